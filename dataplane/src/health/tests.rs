use super::*;
use lb_core::backend::{Algorithm, Membership, SetPolicy};
use lb_core::health::{ActiveSettings, SetPlan};
use std::net::{SocketAddr, TcpListener};
use weir_proto::push::BackendHealth;
use weir_proto::push::proxy_message::Body as ToController;

const DEADLINE: Duration = Duration::from_secs(20);

/// A caretaker at work, and who gives it orders.
struct Bench {
    orders: Arc<Orders>,
    exchange: Arc<Exchange>,
    ids: Ids,
    started: Instant,
    _judged: mpsc::Sender<Judged>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Bench {
    /// Alone: as a controller would tell it at once.
    fn start() -> Self {
        let (exchange, heard) = Exchange::new();
        let (orders, exchange, ids) = (Arc::<Orders>::default(), Arc::new(exchange), Ids::default());
        let started = Instant::now();
        let surroundings = Surroundings {
            started,
            place: Place::default(),
            ids: ids.clone(),
            orders: Arc::clone(&orders),
            exchange: Arc::clone(&exchange),
            counts: Arc::default(),
        };
        let ((judged, batches), (_, questions)) = (mpsc::channel(1), View::new());
        let task = tokio::spawn(Caretaker::new(surroundings).run(batches, questions, heard));
        Self { orders, exchange, ids, started, _judged: judged, task }
    }

    /// A set of one backend.
    fn set(&self, name: &str, address: SocketAddr) -> Arc<BackendSet> {
        let policy = SetPolicy::new(Algorithm::default());
        let backend = Backend::new(address.to_string(), address);
        let now = self.started.elapsed();
        let members = Membership::build(self.ids.next(), vec![backend], &policy, &Place::default(), now);
        Arc::new(BackendSet::new(self.ids.next(), name.into(), policy, Arc::new(members)))
    }

    /// The next word on a backend.
    async fn said(&self) -> BackendHealth {
        let word = async {
            loop {
                match self.exchange.next() {
                    Some(ToController::BackendHealth(health)) => return health,
                    Some(_) => {}
                    None => self.exchange.changed().await,
                }
            }
        };
        tokio::time::timeout(DEADLINE, word).await.expect("in time")
    }
}

/// TCP, every 100 ms, out after one failure.
fn plan() -> SetPlan {
    let quick = Duration::from_millis(100);
    let settings = ActiveSettings {
        interval: quick,
        timeout: quick * 10,
        unhealthy_threshold: 1,
        ..ActiveSettings::default()
    };
    SetPlan { active: Some(settings.validate().expect("valid")), ..SetPlan::default() }
}

fn closed() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port")
}

#[tokio::test]
async fn a_word_on_a_backend_is_taken_back_with_its_set() {
    let bench = Bench::start();
    let set = bench.set("ns/pool/web", closed());
    bench.orders.keep(&set, &plan());
    let down = bench.said().await;
    assert_eq!((&*down.pool, &*down.set, down.available), ("ns/pool", "web", false));
    assert!(down.reason.contains("connection refused"), "{}", down.reason);
    assert_eq!(set.members().eligible().count(), 0);
    bench.orders.forget(&set);
    assert!(bench.said().await.available, "nobody checks it any more");
}

#[tokio::test]
async fn a_word_on_a_backend_goes_on_under_the_set_that_takes_its_sets_place() {
    let bench = Bench::start();
    let address = closed();
    let (first, second) = (bench.set("ns/pool/web", address), bench.set("ns/pool/web", address));
    bench.orders.keep(&first, &plan());
    assert!(!bench.said().await.available);
    bench.orders.keep(&second, &plan());
    bench.orders.forget(&first);
    let _well = TcpListener::bind(address).expect("free again");
    let up = bench.said().await;
    assert!(up.available, "no word in between: it was down all the time");
    assert_eq!(second.members().eligible().count(), 1);
}

#[tokio::test]
async fn a_membership_that_says_what_is_known_is_not_made_again() {
    let bench = Bench::start();
    let well = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let ill = bench.set("ns/pool/ill", closed());
    let set = bench.set("ns/pool/web", well.local_addr().expect("bound"));
    let version = set.members().version;
    bench.orders.keep(&set, &plan());
    bench.orders.keep(&ill, &plan());
    assert!(!bench.said().await.available);
    bench.orders.forget(&ill);
    assert!(bench.said().await.available);
    assert_eq!(set.members().version, version);
}

//! A second attempt beside a slow one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use weir_tests::harness::client::Connection;
use weir_tests::harness::folder::Folder;
use weir_tests::harness::manifest::PoolText;
use weir_tests::harness::ports;
use weir_tests::harness::scripted::{Exchange, Scripted};
use weir_tests::harness::services::Service;
use weir_tests::harness::wait;

/// What a backend saw.
#[derive(Debug, Default)]
struct Seen {
    requests: AtomicUsize,
    /// Connections that the proxy closed.
    closed: AtomicUsize,
}

impl Seen {
    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

fn backend(answer: Option<&'static str>) -> (Scripted, Arc<Seen>) {
    let seen = Arc::<Seen>::default();
    let counts = Arc::clone(&seen);
    let serve = move |exchange: &mut Exchange| {
        while exchange.read_head().is_some() {
            counts.requests.fetch_add(1, Ordering::SeqCst);
            match answer {
                Some(answer) => exchange.write(answer),
                // Until the proxy has had enough.
                None => drop(exchange.read_until("never")),
            }
        }
        counts.closed.fetch_add(1, Ordering::SeqCst);
    };
    (Scripted::start(move |_, exchange| serve(exchange)), seen)
}

const QUICK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nquick";

struct Site {
    port: u16,
    _folder: Folder,
    _weir: Service,
}

/// Over these backends in turn, with a hedge after 50 ms and a second for the whole request.
fn site(backends: &[&Scripted]) -> Site {
    let (port, folder) = (ports::free(), Folder::new());
    let members: Vec<_> = backends.iter().map(|backend| (backend.port, 1)).collect();
    let mut pool = PoolText::new("hedged", port, &members);
    pool.request_timeout = "1s".to_owned();
    let text = pool.yaml().replace("spec:\n", "spec:\n  retry: { attempts: 0, hedgeAfter: 50ms }\n");
    folder.write("pool.yaml", &text);
    let weir = Service::standalone(folder.path(), &[]);
    Site { port, _folder: folder, _weir: weir }
}

#[test]
fn whoever_answers_first_is_passed_on_and_the_other_is_let_go() {
    let ((frozen, frozen_saw), (quick, quick_saw)) = (backend(None), backend(Some(QUICK)));
    let site = site(&[&frozen, &quick]);
    let mut client = Connection::open(site.port).expect("serves");
    for _ in 0..8 {
        let answer = client.get("/").expect("an answer");
        assert_eq!((answer.status, answer.text().as_str()), (200, "quick"));
    }
    let given = frozen_saw.requests();
    assert!(given >= 2, "the frozen one has its turns: {given}");
    assert_eq!(quick_saw.requests(), 8, "each request is answered once");
    wait::until("the proxy should let go of what it waits for no more", || {
        (frozen_saw.closed.load(Ordering::SeqCst) == given).then_some(())
    });
}

#[test]
fn a_body_of_known_length_goes_to_both_and_what_may_not_be_repeated_to_one() {
    let ((frozen, frozen_saw), (quick, quick_saw)) = (backend(None), backend(Some(QUICK)));
    let site = site(&[&frozen, &quick]);
    let mut client = Connection::open(site.port).expect("serves");
    for _ in 0..4 {
        let put = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(client.request(put).expect("an answer").status, 200);
    }
    assert!(frozen_saw.requests() > 0);
    let before = frozen_saw.requests() + quick_saw.requests();
    let statuses: Vec<u16> = (0..2)
        .map(|_| {
            let mut client = Connection::open(site.port).expect("serves");
            let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
            client.request(post).expect("an answer").status
        })
        .collect();
    assert!(statuses.contains(&504), "one of the two has its turn on the frozen backend: {statuses:?}");
    assert_eq!(frozen_saw.requests() + quick_saw.requests(), before + 2, "each order is given once");
}

#[test]
fn a_client_that_stops_in_the_middle_of_its_body_is_told_so_and_holds_no_backend() {
    let ((one, one_saw), (other, other_saw)) = (backend(Some(QUICK)), backend(Some(QUICK)));
    let site = site(&[&one, &other]);
    let half = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf of";
    let answer = Connection::open(site.port).expect("serves").request(half).expect("an answer");
    assert_eq!((answer.status, answer.header("x-weir-reason")), (408, Some("request_slow")));
    assert_eq!(one_saw.requests() + other_saw.requests(), 0);
}

#[test]
fn two_slow_backends_are_a_time_out_as_one_is() {
    let ((one, _), (other, _)) = (backend(None), backend(None));
    let site = site(&[&one, &other]);
    let answer = Connection::open(site.port).expect("serves").get("/").expect("an answer");
    assert_eq!((answer.status, answer.header("x-weir-reason")), (504, Some("backend_timeout")));
}

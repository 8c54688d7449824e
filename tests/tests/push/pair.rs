//! Store, push service, client and applier over real gRPC, up to the snapshot.

use crate::fixtures::{Pool, backend};
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use weir_controller::push::{self, Security};
use weir_controller::store::{Completeness, Store};
use weir_dial::{Credentials, Dialer, Target};
use weir_proto::push::Backend;
use weir_proxy::config::disk::{State, StateOptions};
use weir_proxy::config::shares::Exchange;
use weir_proxy::config::{Applier, Status, client};
use weir_proxy::listener::{ListenerChange, Sockets};
use weir_proxy::readiness::{Phase, Readiness};
use weir_proxy::snapshot::Current;
use weir_tests::harness::wait;

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A proxy without workers: its sockets are bound and never accepted on.
pub(crate) struct Proxy {
    pub(crate) current: Current,
    pub(crate) status: Arc<Status>,
    pub(crate) readiness: Arc<Readiness>,
    _worker: mpsc::UnboundedReceiver<ListenerChange>,
    /// Of the stream, and of who keeps the configuration on disk.
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Proxy {
    pub(crate) fn start(controller: impl Into<Dialer>) -> Self {
        Self::start_on(Ipv4Addr::LOCALHOST, controller)
    }

    /// With its listeners on this address, so that two proxies can serve the same port.
    pub(crate) fn start_on(address: Ipv4Addr, controller: impl Into<Dialer>) -> Self {
        Self::start_with(address, controller, None)
    }

    /// Keeping its configuration on disk.
    pub(crate) fn start_with(
        address: Ipv4Addr,
        controller: impl Into<Dialer>,
        state: Option<&StateOptions>,
    ) -> Self {
        let current = Current::default();
        let (sender, worker) = mpsc::unbounded_channel();
        let sockets = Sockets::new(address.into(), vec![sender]);
        let applier = Applier::new(Arc::clone(&current), sockets);
        let (status, readiness) = (applier.status(), Arc::<Readiness>::default());
        // A proxy that was stopped may be writing still.
        let open = |state| wait::until("the folder is free", || State::open(state, applier.status()).ok());
        let opened = state.map(open);
        let (kept, writer) = opened.unzip();
        let run = client::run(
            controller.into(),
            "proxy-1".into(),
            applier,
            kept,
            Arc::clone(&readiness),
            Exchange::new().0,
            std::future::pending(),
        );
        let writing = writer.map(|writer| tokio::spawn(writer.run()));
        let tasks = [tokio::spawn(run)].into_iter().chain(writing).collect();
        Self { current, status, readiness, _worker: worker, tasks }
    }

    /// Ends it, and gives back its ports and its folder.
    pub(crate) async fn stop(mut self) {
        for task in std::mem::take(&mut self.tasks) {
            task.abort();
            let _ = task.await;
        }
    }

    pub(crate) async fn ready(&self) {
        let mut phases = self.readiness.subscribe();
        let ready = phases.wait_for(|phase| *phase == Phase::Ready);
        tokio::time::timeout(DEADLINE, ready).await.expect("ready in time").expect("the proxy runs");
    }

    /// Ids of the backends behind a path, as a request would find them.
    pub(crate) fn backends(&self, port: u16, path: &str) -> Option<Vec<String>> {
        let snapshot = self.current.load();
        let route = snapshot
            .listeners
            .get(&port)?
            .routes
            .find("example.org", path, &lb_core::route::PathAlone::default())?
            .route;
        let members = route.sets[0].set.members();
        Some(members.eligible().map(|backend| backend.id.to_string()).collect())
    }
}

pub(crate) struct Controller {
    pub(crate) address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Controller {
    pub(crate) async fn start(address: SocketAddr, store: &Arc<Store>) -> Self {
        Self::start_secured(address, store, Security::plaintext()).await
    }

    pub(crate) async fn start_secured(address: SocketAddr, store: &Arc<Store>, security: Security) -> Self {
        let listener = TcpListener::bind(address).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (stop, stopped) = oneshot::channel();
        let serving = push::serve(listener, Arc::clone(store), security, async {
            let _ = stopped.await;
        });
        let task = tokio::spawn(async move { serving.await.expect("serves") });
        Self { address, stop, task }
    }

    pub(crate) async fn stop(self) -> SocketAddr {
        let _ = self.stop.send(());
        tokio::time::timeout(DEADLINE, self.task).await.expect("streams end with it").expect("no panic");
        self.address
    }
}

pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let waited = tokio::time::timeout(DEADLINE, async {
        let mut polls = tokio::time::interval(Duration::from_millis(2));
        while !condition() {
            polls.tick().await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

pub(crate) fn free_port() -> u16 {
    StdListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|socket| socket.local_addr())
        .expect("a free port")
        .port()
}

pub(crate) fn any_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

pub(crate) fn dial(address: SocketAddr) -> Target {
    Target::new(&format!("http://{address}"), Credentials::default()).expect("a URL")
}

pub(crate) fn ids(ids: &[&str]) -> Option<Vec<String>> {
    Some(ids.iter().map(|id| (*id).to_owned()).collect())
}

pub(crate) async fn serves_and_follows(store: &Store, proxy: &Proxy) {
    let port = free_port();
    let mut pool = Pool::new("ns/shop", port, vec![backend("a", 1)]);
    store.replace_all([pool.contents()], Completeness::All);
    proxy.ready().await;
    assert_eq!(proxy.backends(port, "/"), ids(&["a"]), "ready means applied");
    let version = proxy.current.load().version;
    pool.sets.insert("web".into(), vec![backend("a", 1), backend("b", 2)]);
    store.replace_all([pool.contents()], Completeness::All);
    until("the new backend", || proxy.backends(port, "/") == ids(&["a", "b"])).await;
    assert_eq!(proxy.current.load().version, version, "backends alone swap no snapshot");
    let newest = store.pool("ns/shop").map(|pool| pool.version);
    until("the acknowledgement", || {
        store.fleet().pools.get("ns/shop").and_then(|proxies| proxies["proxy-1"].version) == newest
    })
    .await;
    store.replace_all([], Completeness::All);
    until("the pool is gone", || proxy.current.load().listeners.is_empty()).await;
}

#[tokio::test]
async fn a_pool_is_served_over_tcp_follows_its_backends_and_goes() {
    let store = Store::new(1);
    let controller = Controller::start(any_port(), &store).await;
    serves_and_follows(&store, &Proxy::start(dial(controller.address))).await;
}

#[tokio::test]
async fn the_same_holds_within_one_process_without_a_port() {
    let store = Store::new(1);
    let (serving, channel) = push::in_process(Arc::clone(&store), std::future::pending());
    let serving = tokio::spawn(serving);
    serves_and_follows(&store, &Proxy::start(channel)).await;
    serving.abort();
}

#[tokio::test]
async fn a_proxy_is_not_ready_before_the_controller_has_loaded() {
    let store = Store::new(1);
    let controller = Controller::start(any_port(), &store).await;
    let proxy = Proxy::start(dial(controller.address));
    until("the stream", || proxy.status.connects() > 0).await;
    assert_eq!(proxy.readiness.phase(), Phase::Starting);
    store.replace_all([], Completeness::All);
    proxy.ready().await;
}

#[tokio::test]
async fn a_refused_configuration_leaves_the_last_good_one_and_its_backends_move_on() {
    let store = Store::new(1);
    let controller = Controller::start(any_port(), &store).await;
    let proxy = Proxy::start(dial(controller.address));
    let port = free_port();
    let mut pool = Pool::new("ns/shop", port, vec![backend("a", 1)]);
    store.replace_all([pool.contents()], Completeness::All);
    proxy.ready().await;

    let taken = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    pool.port = taken.local_addr().expect("bound").port().into();
    pool.sets.insert("web".into(), vec![backend("b", 1)]);
    store.replace_all([pool.contents()], Completeness::All);
    let refusal =
        || store.fleet().pools.get("ns/shop").and_then(|proxies| proxies["proxy-1"].refusal.clone());
    until("the refusal", || refusal().is_some()).await;
    let told = refusal().expect("there");
    assert_eq!(told.field, "spec.listeners[0].port");
    assert!(told.reason.contains("cannot listen on"), "{}", told.reason);
    assert_eq!(proxy.backends(port, "/"), ids(&["b"]), "the old port serves the new backend");
    pool.sets.insert("web".into(), vec![backend("b", 1), backend("c", 1)]);
    store.replace_all([pool.contents()], Completeness::All);
    until("backends move on", || proxy.backends(port, "/") == ids(&["b", "c"])).await;

    let port = taken.local_addr().expect("bound").port();
    drop(taken);
    until("it heals by itself", || proxy.backends(port, "/") == ids(&["b", "c"]) && refusal().is_none())
        .await;
}

#[tokio::test]
async fn a_backend_that_cannot_be_used_is_counted_and_shown_until_it_is_taken_back() {
    let store = Store::new(1);
    let controller = Controller::start(any_port(), &store).await;
    let proxy = Proxy::start(dial(controller.address));
    let port = free_port();
    let mut pool = Pool::new("ns/shop", port, vec![backend("a", 1)]);
    store.replace_all([pool.contents()], Completeness::All);
    proxy.ready().await;
    let bad = Backend { address: "nowhere".into(), ..backend("bad", 1) };
    pool.sets.insert("web".into(), vec![backend("a", 1), bad]);
    store.replace_all([pool.contents()], Completeness::All);
    until("the refusal", || proxy.status.refused_count() == 1).await;
    assert_eq!(proxy.status.nacks(), 1);
    assert_eq!(proxy.backends(port, "/"), ids(&["a"]), "the others are in place");
    pool.sets.insert("web".into(), vec![backend("a", 1), backend("b", 1)]);
    store.replace_all([pool.contents()], Completeness::All);
    until("it is healed", || proxy.status.refused_count() == 0).await;
    assert_eq!(proxy.backends(port, "/"), ids(&["a", "b"]));
    assert_eq!(proxy.status.nacks(), 1);
}

#[tokio::test]
async fn one_bad_pool_among_ten_holds_back_none_of_the_others() {
    let store = Store::new(1);
    let controller = Controller::start(any_port(), &store).await;
    let proxy = Proxy::start(dial(controller.address));
    let port = free_port();
    let pools = (0..10).map(|n| {
        let mut pool = Pool::new(&format!("ns/p{n}"), port, vec![backend(&format!("b{n}"), 1)]);
        pool.path = if n == 4 { "no slash".into() } else { format!("/{n}") };
        pool.contents()
    });
    store.replace_all(pools.collect::<Vec<_>>(), Completeness::All);
    proxy.ready().await;
    for n in 0..10 {
        let expected = (n != 4).then(|| vec![format!("b{n}")]);
        assert_eq!(proxy.backends(port, &format!("/{n}")), expected);
    }
    until("the refusal", || {
        let fleet = store.fleet();
        let refused: Vec<_> =
            fleet.pools.iter().filter(|(_, proxies)| proxies["proxy-1"].refusal.is_some()).collect();
        refused.len() == 1 && &**refused[0].0 == "ns/p4"
    })
    .await;
}

#[tokio::test]
async fn a_proxy_resumes_with_a_restarted_controller_and_is_sent_only_what_differs() {
    let port = free_port();
    let big = (0..3_000).map(|n| backend(&format!("b{n:04}"), 1)).collect();
    let mut pool = Pool::new("ns/shop", port, big);
    pool.sets.insert("zone".into(), vec![backend("z", 1)]);
    let first = Store::new(1);
    first.replace_all([pool.contents()], Completeness::All);
    let controller = Controller::start(any_port(), &first).await;
    let proxy = Proxy::start(dial(controller.address));
    proxy.ready().await;
    let before = proxy.current.load_full();
    let address = controller.stop().await;
    until("the loss is seen", || !proxy.status.is_in_step()).await;
    assert!(proxy.backends(port, "/").is_some_and(|ids| ids.len() == 3_000), "it serves on");

    pool.sets.insert("zone".into(), vec![backend("z", 1), backend("y", 1)]);
    let second = Store::new(2);
    second.replace_all([pool.contents()], Completeness::All);
    let _controller = Controller::start(address, &second).await;
    until("in step again", || proxy.status.is_in_step()).await;
    let status = proxy.status.pools();
    assert_eq!(status["ns/shop"].version, second.pool("ns/shop").map(|pool| pool.version));
    assert_eq!(status["ns/shop"].sets["zone"].members().eligible().count(), 2);
    assert_eq!(proxy.status.snapshot_requests(), 0);
    let after = proxy.current.load_full();
    assert!(
        Arc::ptr_eq(&before.listeners[&port], &after.listeners[&port]),
        "equal configuration touches nothing"
    );
}

#[tokio::test]
async fn live_counts_of_a_backend_outlive_a_change_of_configuration() {
    let store = Store::new(1);
    let controller = Controller::start(any_port(), &store).await;
    let proxy = Proxy::start(dial(controller.address));
    let port = free_port();
    let mut pool = Pool::new("ns/shop", port, vec![backend("a", 1)]);
    store.replace_all([pool.contents()], Completeness::All);
    proxy.ready().await;
    let request = {
        let snapshot = proxy.current.load();
        let route = snapshot.listeners[&port]
            .routes
            .find("h", "/", &lb_core::route::PathAlone::default())
            .expect("a route")
            .route;
        route.sets[0].set.members().backends()[0].live.enter()
    };
    pool.path = "/other".into();
    store.replace_all([pool.contents()], Completeness::All);
    until("the new route", || proxy.backends(port, "/other").is_some()).await;
    let in_flight = || proxy.status.pools()["ns/shop"].sets["web"].members().backends()[0].live.in_flight();
    assert_eq!(in_flight(), 1);
    drop(request);
    assert_eq!(in_flight(), 0);
}

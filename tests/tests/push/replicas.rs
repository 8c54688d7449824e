//! Two replicas over real gRPC: the one that holds the Lease counts the proxies of the other.

use crate::fixtures::{Pool, backend};
use crate::pair::{Controller, Proxy, any_port, dial, free_port, until};
use crate::scripted::Scripted;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use weir_controller::lease::{Holder, Leader};
use weir_controller::replicas::{Peers, Reporter};
use weir_controller::store::{Completeness, Reach, Store};
use weir_dial::{Credentials, Dialer, Random};
use weir_proto::push::BackendHealth;
use weir_proto::push::controller_message::Body as ToProxy;
use weir_proto::push::proxy_message::Body as FromProxy;
use weir_proxy::config;

/// A replica that serves proxies and reports to whoever leads.
struct Replica {
    store: Arc<Store>,
    controller: Controller,
    leader: watch::Sender<Leader>,
    reporting: JoinHandle<()>,
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.reporting.abort();
    }
}

impl Replica {
    async fn start(name: &str, epoch: u64) -> Self {
        let store = Store::new(epoch);
        let controller = Controller::start(any_port(), &store).await;
        let leader = watch::Sender::new(Leader::default());
        let peers = Peers::new(false, Credentials::default()).expect("nothing to refuse");
        let reporter =
            Reporter { me: name.into(), store: Arc::clone(&store), leader: leader.subscribe(), peers };
        Self { store, controller, leader, reporting: tokio::spawn(reporter.run()) }
    }

    /// This replica learns who holds the Lease.
    fn hears_of(&self, name: &str, address: SocketAddr) {
        let is_me = address == self.controller.address;
        self.leader.send_replace(Leader { is_me, holder: Some(Holder { name: name.into(), address }) });
    }

    /// A proxy with its stream to this replica, on 127.0.0.N.
    fn proxy(&self, n: u8) -> Proxy {
        Proxy::start_on([127, 0, 0, n].into(), dial(self.controller.address))
    }

    /// Proxies of `ns/shop` that are current, and all of them, as its status would say.
    fn counts(&self) -> (u32, u32) {
        let summary = self.store.summary("ns/shop", Reach::All);
        (summary.current, summary.proxies)
    }

    async fn shows(&self, current: u32, proxies: u32) {
        until(&format!("{current}/{proxies}"), || self.counts() == (current, proxies)).await;
    }
}

async fn two() -> [Replica; 2] {
    let [a, b] = [Replica::start("a", 1).await, Replica::start("b", 2).await];
    let holder = a.controller.address;
    a.hears_of("a", holder);
    b.hears_of("a", holder);
    [a, b]
}

/// Both compile the same objects.
fn put(replicas: &[Replica; 2], pool: &Pool) {
    for replica in replicas {
        replica.store.replace_all([pool.contents()], Completeness::All);
    }
}

#[tokio::test]
async fn the_holder_counts_the_proxies_of_every_replica_until_they_or_it_are_gone() {
    let replicas = two().await;
    let [a, b] = &replicas;
    put(&replicas, &Pool::new("ns/shop", free_port(), vec![backend("a", 1)]));
    let (own, others) = (a.proxy(1), b.proxy(2));
    a.shows(2, 2).await;
    assert_eq!(b.counts(), (1, 1), "who does not write counts its own");
    drop(others);
    a.shows(1, 1).await;
    drop(own);
    a.shows(0, 0).await;
    let _others = b.proxy(2);
    a.shows(1, 1).await;
    b.reporting.abort();
    a.shows(0, 0).await;
}

#[tokio::test]
async fn when_the_lease_passes_on_the_reports_follow_it() {
    let replicas = two().await;
    let [a, b] = &replicas;
    put(&replicas, &Pool::new("ns/shop", free_port(), vec![backend("a", 1)]));
    let _proxies = [a.proxy(1), b.proxy(2)];
    a.shows(2, 2).await;
    for replica in &replicas {
        replica.hears_of("b", b.controller.address);
    }
    b.shows(2, 2).await;
    a.shows(1, 1).await;
    a.leader.send_replace(Leader::default());
    b.shows(1, 1).await;
}

#[tokio::test]
async fn a_replica_that_cannot_reach_the_holder_goes_on_trying() {
    let [a, b] = two().await;
    let nobody = free_port();
    b.hears_of("c", SocketAddr::from(([127, 0, 0, 1], nobody)));
    b.store.replace_all(
        [Pool::new("ns/shop", free_port(), vec![backend("a", 1)]).contents()],
        Completeness::All,
    );
    let _proxy = b.proxy(1);
    b.shows(1, 1).await;
    let late = Store::new(3);
    let _late = Controller::start(SocketAddr::from(([127, 0, 0, 1], nobody)), &late).await;
    until("the late one is told", || late.summary("ns/shop", Reach::All).proxies == 1).await;
    assert_eq!(a.counts(), (0, 0));
}

#[tokio::test]
async fn a_refusal_at_one_replica_is_told_to_the_holder() {
    let replicas = two().await;
    let [a, b] = &replicas;
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let port = taken.local_addr().expect("bound").port();
    put(&replicas, &Pool::new("ns/shop", port, vec![backend("a", 1)]));
    let _proxy = b.proxy(1);
    until("the refusal", || a.store.summary("ns/shop", Reach::All).refused == 1).await;
    let summary = a.store.summary("ns/shop", Reach::All);
    let (proxy, refusal) = &summary.refusals[0];
    assert_eq!((&**proxy, &*refusal.field), ("proxy-1", "spec.listeners[0].port"));
    assert!(refusal.reason.contains("cannot listen on"), "{}", refusal.reason);
}

/// A proxy that says what the test says, and hears nothing after Welcome.
async fn voice(proxy: &str, controller: SocketAddr) -> Scripted {
    let link = Dialer::from(dial(controller)).dial(&mut Random::default()).await.expect("it is there");
    let mut voice = Scripted::dial(link.channel(), proxy, config::replica::Replica::default()).await;
    let first = voice.hear().await.expect("a message").body;
    assert!(matches!(first, Some(ToProxy::Welcome(_))), "{first:?}");
    voice
}

/// It says this of a backend of set `web` of `ns/shop`.
async fn finds(voice: &Scripted, backend: &str, available: bool) {
    let reason = if available { String::new() } else { "timed out".into() };
    let (pool, set) = ("ns/shop".into(), "web".into());
    let health = BackendHealth { pool, set, backend: backend.into(), available, reason };
    voice.say(FromProxy::BackendHealth(health)).await;
}

/// Unhealthy backends of `ns/shop`, as its status would say, with how many proxies say so.
async fn shows_unhealthy(replica: &Replica, expected: &[(&str, u32)]) {
    let shown = || -> Vec<(String, u32)> {
        let summary = replica.store.summary("ns/shop", Reach::All);
        summary.unhealthy.iter().map(|(name, of)| (name.backend.to_string(), of.proxies)).collect()
    };
    let expected: Vec<_> = expected.iter().map(|(name, proxies)| ((*name).to_owned(), *proxies)).collect();
    until(&format!("{expected:?}"), || shown() == expected).await;
}

#[tokio::test]
async fn what_proxies_of_every_replica_find_of_a_backend_reaches_the_holder_until_their_streams_end() {
    let replicas = two().await;
    let [a, b] = &replicas;
    put(&replicas, &Pool::new("ns/shop", free_port(), vec![backend("x", 1), backend("y", 2)]));
    let here = voice("proxy-1", a.controller.address).await;
    let there = voice("proxy-2", b.controller.address).await;
    finds(&here, "x", false).await;
    finds(&there, "x", false).await;
    finds(&there, "y", false).await;
    shows_unhealthy(a, &[("x", 2), ("y", 1)]).await;
    shows_unhealthy(b, &[("x", 1), ("y", 1)]).await;
    let summary = a.store.summary("ns/shop", Reach::All);
    assert!(summary.unhealthy.iter().all(|(name, of)| &*name.set == "web" && &*of.reason == "timed out"));
    finds(&there, "y", true).await;
    finds(&here, "x", true).await;
    shows_unhealthy(a, &[("x", 1)]).await;
    drop(there);
    shows_unhealthy(a, &[]).await;
    assert_eq!((a.store.unhealthy_count(), b.store.unhealthy_count()), (0, 0));
}

use super::*;
use crate::listener::ListenerChange;
use crate::tls::Termination;
use crate::tls::tests::certificate;
use lb_core::route::{Fallback, PathAlone, Route};
use std::net::TcpListener;
use tokio::sync::mpsc;

struct Fixture {
    applier: Applier,
    current: Current,
    worker: mpsc::UnboundedReceiver<ListenerChange>,
}

impl Fixture {
    fn new() -> Self {
        let (sender, worker) = mpsc::unbounded_channel();
        let sockets = Sockets::new([127, 0, 0, 1].into(), vec![sender]);
        let current = Current::default();
        Self { applier: Applier::new(Arc::clone(&current), sockets), current, worker }
    }

    fn apply(&mut self, config: &push::PoolConfig) -> Result<(), Rejection> {
        self.apply_all(&[config]).into_values().next().map_or(Ok(()), Err)
    }

    fn apply_all(&mut self, configs: &[&push::PoolConfig]) -> BTreeMap<String, Rejection> {
        let backend = wire_backend("b");
        let configs: Vec<_> = configs.iter().map(|config| Arc::new((*config).clone())).collect();
        let refused = self.applier.stage(&configs, |_, _| vec![&backend]);
        self.applier.commit();
        refused
    }

    fn speaks_tls(&self, port: u16) -> Option<bool> {
        let snapshot = self.current.load();
        snapshot.listeners.get(&port).map(|listener| matches!(listener.protocol, Protocol::Https(_)))
    }

    fn rule(&self, port: u16, host: &str, path: &str) -> Option<(String, usize)> {
        let snapshot = self.current.load();
        let route = snapshot.listeners.get(&port)?.routes.find(host, path, &PathAlone::default())?.route;
        Some((route.pool.to_string(), route.rule))
    }
}

fn wire_backend(id: &str) -> push::Backend {
    let state = push::BackendState::Ready.into();
    push::Backend {
        id: id.into(),
        address: "10.0.0.1:80".into(),
        weight: 1,
        state,
        ..push::Backend::default()
    }
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).and_then(|socket| socket.local_addr()).expect("a free port").port()
}

fn listener(port: u16, hostnames: &[&str], certificates: Vec<push::Certificate>) -> push::Listener {
    let protocol = if certificates.is_empty() { push::Protocol::Http } else { push::Protocol::Https };
    push::Listener {
        name: "l".into(),
        port: port.into(),
        protocol: protocol.into(),
        hostnames: hostnames.iter().map(|host| (*host).to_owned()).collect(),
        tls: (!certificates.is_empty()).then_some(push::Tls { certificates, ..push::Tls::default() }),
        ..push::Listener::default()
    }
}

fn rule(hostnames: &[&str], path: &str) -> push::Rule {
    push::Rule {
        hostnames: hostnames.iter().map(|host| (*host).to_owned()).collect(),
        paths: vec![push::PathMatch {
            kind: push::PathMatchKind::Prefix.into(),
            value: path.into(),
            ..push::PathMatch::default()
        }],
        backend_sets: vec![push::WeightedSet {
            set: "web".into(),
            weight: 1,
            ..push::WeightedSet::default()
        }],
        ..push::Rule::default()
    }
}

fn config(pool: &str, listeners: Vec<push::Listener>, rules: Vec<push::Rule>) -> push::PoolConfig {
    let set = push::BackendSet {
        name: "web".into(),
        algorithm: push::Algorithm::RoundRobin.into(),
        connect_timeout_ms: 1,
        ..push::BackendSet::default()
    };
    push::PoolConfig { pool: pool.into(), listeners, rules, backend_sets: vec![set] }
}

#[test]
fn pools_share_a_port_by_host_and_leave_it_together() {
    let (mut fixture, port) = (Fixture::new(), free_port());
    let shop = config("ns/shop", vec![listener(port, &["shop.org"], vec![])], vec![rule(&[], "/")]);
    let blog = config("ns/blog", vec![listener(port, &["blog.org"], vec![])], vec![rule(&[], "/")]);
    fixture.apply(&shop).expect("accepted");
    fixture.apply(&blog).expect("accepted");
    assert!(matches!(fixture.worker.try_recv(), Ok(ListenerChange::Open { .. })));
    assert!(fixture.worker.try_recv().is_err(), "the port is opened once");
    assert_eq!(fixture.rule(port, "shop.org", "/"), Some(("ns/shop".into(), 0)));
    assert_eq!(fixture.rule(port, "blog.org", "/"), Some(("ns/blog".into(), 0)));
    fixture.applier.remove("ns/shop");
    fixture.applier.commit();
    assert_eq!(fixture.rule(port, "shop.org", "/"), None);
    assert!(matches!(fixture.worker.try_recv(), Ok(ListenerChange::PoolGone { .. })), "for its tunnels");
    assert!(fixture.worker.try_recv().is_err(), "the other pool still wants the port");
    fixture.applier.remove("ns/blog");
    let removed = Instant::now();
    fixture.applier.commit();
    let due = fixture.applier.close_retired(removed).expect("the port lingers");
    assert!(due >= removed + PORT_LINGER);
    assert_eq!(fixture.rule(port, "blog.org", "/"), Some(("ns/blog".into(), 0)), "and serves");
    assert!(matches!(fixture.worker.try_recv(), Ok(ListenerChange::PoolGone { .. })));
    assert!(fixture.worker.try_recv().is_err());
    assert_eq!(fixture.applier.close_retired(due), None);
    assert!(matches!(fixture.worker.try_recv(), Ok(ListenerChange::Close { .. })));
    assert_eq!(fixture.rule(port, "blog.org", "/"), None);
}

#[test]
fn a_port_passes_to_another_pool_without_closing() {
    let (mut fixture, port, other) = (Fixture::new(), free_port(), free_port());
    let on = |pool: &str, port| config(pool, vec![listener(port, &[], vec![])], vec![rule(&[], "/")]);
    fixture.apply(&on("ns/a", port)).expect("accepted");
    fixture.apply(&on("ns/a", other)).expect("accepted");
    assert_eq!(fixture.rule(port, "h", "/"), Some(("ns/a".into(), 0)), "until another takes it over");
    fixture.apply(&on("ns/b", port)).expect("accepted");
    assert_eq!(fixture.rule(port, "h", "/"), Some(("ns/b".into(), 0)));
    assert_eq!(fixture.applier.close_retired(Instant::now() + PORT_LINGER), None);
    let changes: Vec<_> = std::iter::from_fn(|| fixture.worker.try_recv().ok()).collect();
    let opens = |change: &ListenerChange| matches!(change, ListenerChange::Open { .. });
    assert!(changes.len() == 2 && changes.iter().all(opens), "{changes:?}");
}

/// Pools `ns/a` over HTTP on the first port, `ns/b` over HTTPS on the second, `ns/d` over HTTP on the third.
fn three_pools() -> (Fixture, [u16; 3], [push::PoolConfig; 2]) {
    let (mut fixture, ports) = (Fixture::new(), [free_port(), free_port(), free_port()]);
    let [plain, secure, stays] = ports;
    let served = [http("ns/a", plain), https("ns/b", secure), http("ns/d", stays)];
    assert_eq!(fixture.apply_all(&served.each_ref()), BTreeMap::new());
    (fixture, ports, [http("ns/a", secure), https("ns/b", plain)])
}

fn http(pool: &str, port: u16) -> push::PoolConfig {
    config(pool, vec![listener(port, &[], vec![])], vec![rule(&[], "/")])
}

fn https(pool: &str, port: u16) -> push::PoolConfig {
    let tls = certificate("ns/secret", &["a.org"]);
    config(pool, vec![listener(port, &[], vec![tls])], vec![rule(&[], "/")])
}

#[test]
fn pools_that_swap_ports_of_different_protocols_come_into_force_together() {
    let (mut fixture, [plain, secure, stays], [a, b]) = three_pools();
    for (alone, other) in [(&a, "ns/b"), (&b, "ns/a")] {
        let refused = fixture.apply(alone).expect_err("the other has the port");
        assert!(refused.field == "spec.listeners[0].protocol" && refused.reason.contains(other), "{refused}");
    }
    // One that clashes with a pool that stays is refused, and holds back nobody.
    let c = https("ns/c", stays);
    let refused = fixture.apply_all(&[&a, &b, &c]);
    assert_eq!(refused.keys().collect::<Vec<_>>(), ["ns/c"]);
    assert!(refused["ns/c"].reason.contains("ns/d"), "{refused:?}");
    assert_eq!((fixture.speaks_tls(plain), fixture.speaks_tls(secure)), (Some(true), Some(false)));
    assert_eq!(fixture.rule(secure, "h", "/"), Some(("ns/a".into(), 0)));
}

#[test]
fn a_swap_in_which_one_pool_cannot_move_moves_none() {
    let (mut fixture, [plain, secure, stays], [a, mut b]) = three_pools();
    let taken = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    b.listeners.push(listener(taken.local_addr().expect("bound").port(), &[], vec![]));
    let refused = fixture.apply_all(&[&a, &b]);
    assert_eq!(refused["ns/a"].field, "spec.listeners[0].protocol", "{refused:?}");
    assert_eq!(refused["ns/b"].field, "spec.listeners[1].port", "{refused:?}");
    // Nor where the two would clash again, or one of them with a pool that stays.
    for port in [free_port(), stays] {
        let (mut a, mut b) = (a.clone(), b.clone());
        a.listeners.push(listener(port, &[], vec![]));
        b.listeners[1] = https("ns/b", port).listeners[0].clone();
        let refused = fixture.apply_all(&[&a, &b]);
        assert_eq!(refused.len(), 2, "{refused:?}");
    }
    assert_eq!((fixture.speaks_tls(plain), fixture.speaks_tls(secure)), (Some(false), Some(true)));
    drop(taken);
    assert_eq!(fixture.apply_all(&[&a, &b]), BTreeMap::new());
}

#[test]
fn a_certificate_answers_for_the_hosts_of_its_own_pool() {
    let (mut fixture, port) = (Fixture::new(), free_port());
    // The first pool by name, with a certificate for the host of the second.
    let (greedy, own) = (certificate("ns/a", &["a.org", "b.org"]), certificate("ns/b", &["b.org"]));
    let a = config("ns/a", vec![listener(port, &["a.org"], vec![greedy.clone()])], vec![rule(&[], "/")]);
    let b = config("ns/b", vec![listener(port, &[], vec![own.clone()])], vec![rule(&["b.org"], "/")]);
    assert_eq!(fixture.apply_all(&[&a, &b]), BTreeMap::new());
    let port = fixture.applier.ports.wanted(port.into()).expect("two pools want it");
    let hosts: Vec<_> = port.certificates().map(|of| of.hosts.clone()).collect();
    assert_eq!(hosts, [vec![Some("a.org".to_owned())], vec![None, Some("b.org".to_owned())]]);
}

#[test]
fn a_port_speaks_one_protocol_and_a_refused_pool_leaves_no_trace() {
    let (mut fixture, port, other) = (Fixture::new(), free_port(), free_port());
    fixture.apply(&config("ns/a", vec![listener(port, &[], vec![])], vec![])).expect("accepted");
    let version = fixture.current.load().version;
    let tls = certificate("ns/secret", &["a.org"]);
    let mixed = vec![listener(other, &[], vec![]), listener(port, &[], vec![tls])];
    let refused = fixture.apply(&config("ns/b", mixed, vec![])).expect_err("refused");
    assert_eq!(refused.field, "spec.listeners[1].protocol");
    assert!(refused.reason.contains("ns/a"), "{refused}");
    assert_eq!(fixture.current.load().version, version);
    let taken = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let taken_port = taken.local_addr().expect("bound").port();
    let half = vec![listener(other, &[], vec![]), listener(taken_port, &[], vec![])];
    let refused = fixture.apply(&config("ns/b", half, vec![])).expect_err("refused");
    assert_eq!(refused.field, "spec.listeners[1].port");
    assert_eq!(fixture.current.load().version, version, "nothing is swapped");
    TcpListener::bind(("127.0.0.1", other)).expect("the port that was bound before is given back");
}

#[test]
fn an_unchanged_certificate_keeps_its_configuration_and_a_new_one_its_ticket_keys() {
    let (mut fixture, port) = (Fixture::new(), free_port());
    let tls = certificate("ns/secret", &["a.org"]);
    let server = |fixture: &Fixture| match &fixture.current.load().listeners[&port].protocol {
        Protocol::Https(server) => Arc::clone(server),
        _ => panic!("the listener has a certificate"),
    };
    let ticketer = |server: &Termination| Arc::clone(&server.of("").expect("one").1.ticketer);
    let with = |tls: &push::Certificate, path| {
        config("ns/a", vec![listener(port, &[], vec![tls.clone()])], vec![rule(&[], path)])
    };
    fixture.apply(&with(&tls, "/")).expect("accepted");
    let first = server(&fixture);
    fixture.apply(&with(&tls, "/other")).expect("accepted");
    assert!(Arc::ptr_eq(&first, &server(&fixture)));
    fixture.apply(&with(&certificate("ns/secret", &["a.org"]), "/")).expect("accepted");
    assert!(!Arc::ptr_eq(&first, &server(&fixture)));
    assert!(Arc::ptr_eq(&ticketer(&first), &ticketer(&server(&fixture))), "sessions resume");
}

#[test]
fn cells_outlive_new_routes_and_live_counts_a_new_policy() {
    let (mut fixture, port) = (Fixture::new(), free_port());
    let mut pool = config("ns/a", vec![listener(port, &[], vec![])], vec![rule(&[], "/")]);
    let set = |fixture: &Fixture| fixture.applier.sets("ns/a").map(|(_, set)| Arc::clone(set)).next();
    fixture.apply(&pool).expect("accepted");
    let first = set(&fixture).expect("one set");
    let request = first.members().backends()[0].live.enter();
    pool.rules = vec![rule(&[], "/other")];
    fixture.apply(&pool).expect("accepted");
    assert!(Arc::ptr_eq(&first, &set(&fixture).expect("one set")));
    pool.backend_sets[0].connect_timeout_ms = 2;
    fixture.apply(&pool).expect("accepted");
    let second = set(&fixture).expect("one set");
    assert!(!Arc::ptr_eq(&first, &second) && first.id != second.id);
    assert_eq!(second.members().backends()[0].live.in_flight(), 1);
    drop(request);
    assert_eq!(second.members().backends()[0].live.in_flight(), 0);
}

#[test]
fn an_unusable_backend_is_left_out_and_the_others_are_in_place() {
    let (mut fixture, port) = (Fixture::new(), free_port());
    let pool = config("ns/a", vec![listener(port, &[], vec![])], vec![rule(&[], "/")]);
    fixture.apply(&pool).expect("accepted");
    let bad = push::Backend { address: "no address".into(), ..wire_backend("bad") };
    let good = wire_backend("good");
    let refused = fixture.applier.replace_backends("ns/a", "web", vec![&bad, &good]).expect_err("one is bad");
    assert!(refused.reason.contains("no address"), "{refused}");
    let (_, set) = fixture.applier.sets("ns/a").next().expect("one set");
    assert_eq!(set.members().eligible().map(|b| b.id.to_string()).collect::<Vec<_>>(), ["good"]);
    for (what, count) in [("to none", 0), ("and back", 1)] {
        let backends = vec![&good; count];
        fixture.applier.replace_backends("ns/a", "web", backends).expect("usable");
        let (_, set) = fixture.applier.sets("ns/a").next().expect("one set");
        assert_eq!(set.members().eligible().count(), count, "{what}");
    }
}

#[test]
fn what_is_wrong_is_named_by_its_field() {
    type Break = fn(&mut push::PoolConfig);
    let cases: [(&str, Break); 12] = [
        ("spec.listeners[0].port", |c| c.listeners[0].port = 0),
        ("spec.listeners[0].port", |c| c.listeners[0].port = 65_536),
        ("spec.listeners[0].protocol", |c| c.listeners[0].protocol = 99),
        ("spec.listeners[0].hostnames", |c| c.listeners[0].hostnames = vec!["a.*.org".into()]),
        ("spec.listeners[0].tls", |c| c.listeners[0].tls = Some(push::Tls::default())),
        ("spec.listeners[0].tls.certificateRefs", |c| {
            c.listeners[0].protocol = push::Protocol::Https.into();
        }),
        ("spec.rules[0].matches[0].path.value", |c| c.rules[0].paths[0].value = "a".into()),
        ("spec.rules[0].matches[0].path.type", |c| c.rules[0].paths[0].kind = 99),
        ("spec.rules[0].backendSets", |c| c.rules[0].backend_sets.clear()),
        ("spec.rules[0].backendSets[0].name", |c| c.rules[0].backend_sets[0].set = "none".into()),
        ("spec.backendSets[web].loadBalancing.algorithm", |c| c.backend_sets[0].algorithm = 99),
        ("spec.backendSets[web].timeouts.connect", |c| c.backend_sets[0].connect_timeout_ms = 0),
    ];
    let port = free_port();
    for (field, spoil) in cases {
        let mut pool = config("ns/a", vec![listener(port, &[], vec![])], vec![rule(&[], "/")]);
        spoil(&mut pool);
        let refused = Fixture::new().apply(&pool).expect_err(field);
        assert_eq!(refused.field, field, "{refused}");
    }
}

/// The sets of a pool, each with its own name: `web`, `spare` and `last`.
fn three_sets(pool: &mut push::PoolConfig) {
    let web = pool.backend_sets[0].clone();
    for name in ["spare", "last"] {
        pool.backend_sets.push(push::BackendSet { name: name.into(), ..web.clone() });
    }
}

fn breaker(fallback: &str) -> Option<push::CircuitBreaker> {
    Some(push::CircuitBreaker {
        failure_percent: 50,
        min_requests: 20,
        window_ms: 10_000,
        reset_ms: 30_000,
        probes: 3,
        fallback: Some(push::circuit_breaker::Fallback::FallbackSet(fallback.into())),
    })
}

impl Fixture {
    fn route(&self, port: u16, path: &str) -> Arc<Route> {
        let snapshot = self.current.load();
        Arc::clone(
            snapshot.listeners[&port].routes.find("h", path, &PathAlone::default()).expect("a route").route,
        )
    }

    fn set(&self, name: &str) -> Arc<BackendSet> {
        let mut sets = self.applier.sets("ns/a");
        sets.find(|(set, _)| *set == name).map(|(_, set)| Arc::clone(set)).expect("the set")
    }

    /// Names of the snapshot's sets, in order.
    fn snapshot_sets(&self) -> Vec<String> {
        let mut names: Vec<_> = self.current.load().sets.iter().map(|set| set.name.to_string()).collect();
        names.sort_unstable();
        names
    }
}

#[test]
fn sets_that_only_fallbacks_name_are_kept_and_stand_in_one_after_the_other() {
    let (mut fixture, port) = (Fixture::new(), free_port());
    let rules = vec![rule(&[], "/"), rule(&[], "/other")];
    let mut pool = config("ns/a", vec![listener(port, &[], vec![])], rules);
    three_sets(&mut pool);
    pool.backend_sets[0].circuit_breaker = breaker("spare");
    pool.backend_sets[1].circuit_breaker = breaker("last");
    fixture.apply(&pool).expect("accepted");
    assert_eq!(fixture.snapshot_sets(), ["ns/a/last", "ns/a/spare", "ns/a/web"], "each once");
    let route = fixture.route(port, "/other");
    let mut chain = vec![Arc::clone(&route.sets[0].set)];
    while let Some(Fallback::Set(next)) = route.fallback_of(chain.last().expect("one at least")) {
        chain.push(Arc::clone(next));
    }
    let expected = ["web", "spare", "last"].map(|name| fixture.set(name));
    assert_eq!(chain.len(), 3);
    assert!(chain.iter().zip(&expected).all(|(set, own)| Arc::ptr_eq(set, own)), "{chain:?}");
    assert_eq!(chain[2].members().backends().len(), 1, "and has backends");
    // Backends of such a set go on being updated.
    let more = [wire_backend("b"), wire_backend("c")];
    fixture.applier.replace_backends("ns/a", "last", more.iter().collect()).expect("usable");
    assert_eq!(chain[2].members().backends().len(), 2);
    // Another fallback is no other set.
    pool.backend_sets[0].circuit_breaker = breaker("last");
    fixture.apply(&pool).expect("accepted");
    assert!(Arc::ptr_eq(&fixture.set("web"), &expected[0]));
    assert_eq!(fixture.snapshot_sets(), ["ns/a/last", "ns/a/web"]);
}

#[test]
fn the_snapshot_has_the_sets_of_ports_that_linger() {
    let (mut fixture, port) = (Fixture::new(), free_port());
    let pool = config("ns/a", vec![listener(port, &[], vec![])], vec![rule(&[], "/")]);
    fixture.apply(&pool).expect("accepted");
    fixture.apply(&http("ns/b", free_port())).expect("accepted");
    assert_eq!(fixture.snapshot_sets(), ["ns/a/web", "ns/b/web"]);
    fixture.applier.remove("ns/a");
    fixture.applier.commit();
    assert_eq!(fixture.snapshot_sets(), ["ns/a/web", "ns/b/web"], "its port serves on");
    fixture.applier.close_retired(Instant::now() + PORT_LINGER);
    assert_eq!(fixture.snapshot_sets(), ["ns/b/web"]);
}

#[test]
fn what_is_known_of_a_set_s_circuit_outlives_another_policy() {
    let (mut fixture, port) = (Fixture::new(), free_port());
    let mut pool = config("ns/a", vec![listener(port, &[], vec![])], vec![rule(&[], "/")]);
    three_sets(&mut pool);
    pool.backend_sets[0].circuit_breaker = breaker("spare");
    fixture.apply(&pool).expect("accepted");
    let first = fixture.set("web");
    pool.backend_sets[0].connect_timeout_ms = 2;
    fixture.apply(&pool).expect("accepted");
    let second = fixture.set("web");
    let circuit = |set: &BackendSet| set.guard.breaker.clone().expect("a circuit");
    assert!(!Arc::ptr_eq(&first, &second) && Arc::ptr_eq(&circuit(&first), &circuit(&second)));
    assert!(Arc::ptr_eq(&first.guard.budget, &second.guard.budget));
    pool.backend_sets[0].circuit_breaker.as_mut().expect("there").window_ms = 20_000;
    fixture.apply(&pool).expect("accepted");
    let third = fixture.set("web");
    assert!(!Arc::ptr_eq(&circuit(&second), &circuit(&third)), "other settings, another circuit");
    assert!(Arc::ptr_eq(&second.guard.budget, &third.guard.budget));
}

#[test]
fn a_pool_has_one_table_of_sessions_which_outlives_what_does_not_change_it() {
    use push::session_persistence::Source;
    let (mut fixture, port) = (Fixture::new(), free_port());
    let sessions = |source, idle_timeout_ms, sessions_max| {
        Some(push::SessionPersistence { source: Some(source), idle_timeout_ms, sessions_max })
    };
    let by_address = || Source::SourceIp(push::SourceIp {});
    let mut pool = config(
        "ns/a",
        vec![listener(port, &[], vec![])],
        ["/a", "/b", "/c"].map(|path| rule(&[], path)).into(),
    );
    pool.rules[0].sessions = sessions(by_address(), 5_000, 1_000);
    pool.rules[1].sessions = sessions(Source::Header("x-user".into()), 4_000, 2_000);
    fixture.apply(&pool).expect("accepted");
    let table = |fixture: &Fixture, path| {
        let sessions = fixture.route(port, path).sessions.clone().expect("sessions");
        sessions.table.clone().expect("a table")
    };
    let first = table(&fixture, "/a");
    assert!(Arc::ptr_eq(&first, &table(&fixture, "/b")), "one for the pool");
    assert!(fixture.route(port, "/c").sessions.is_none());

    // The largest counts: neither another set's policy nor a smaller wish makes another.
    pool.backend_sets[0].connect_timeout_ms = 2;
    pool.rules[0].sessions = sessions(by_address(), 5_000, 1_500);
    fixture.apply(&pool).expect("accepted");
    assert!(Arc::ptr_eq(&first, &table(&fixture, "/a")));
    for (idle_timeout_ms, sessions_max) in [(6_000, 1_500), (5_000, 3_000)] {
        let before = table(&fixture, "/a");
        pool.rules[0].sessions = sessions(by_address(), idle_timeout_ms, sessions_max);
        fixture.apply(&pool).expect("accepted");
        assert!(!Arc::ptr_eq(&before, &table(&fixture, "/a")), "{idle_timeout_ms} {sessions_max}");
    }
    let cookie = push::SealedCookie {
        name: "c".into(),
        path: "/".into(),
        same_site: push::SameSite::Lax.into(),
        security: push::CookieSecurity::Auto.into(),
        lifetime_ms: 1_000,
        ..push::SealedCookie::default()
    };
    pool.rules[0].sessions = sessions(Source::Sealed(cookie), 0, 0);
    fixture.apply(&pool).expect("accepted");
    let sealed = fixture.route(port, "/a").sessions.clone().expect("sessions");
    assert!(sealed.table.is_none(), "the cookie says it all");
}

#[test]
fn an_edit_of_one_pool_makes_its_own_routes_again_and_the_rest_stays_where_it_is() {
    let (mut fixture, port) = (Fixture::new(), free_port());
    let hosts: Vec<_> = (0..50).map(|at| format!("h{at}.org")).collect();
    let pool = |at: usize, path: &str| {
        let own = certificate(&format!("ns/{at}"), &[&hosts[at]]);
        config(&format!("ns/{at:02}"), vec![listener(port, &[&hosts[at]], vec![own])], vec![rule(&[], path)])
    };
    let mut configs: Vec<_> = (0..50).map(|at| pool(at, "/")).collect();
    assert_eq!(fixture.apply_all(&configs.iter().collect::<Vec<_>>()), BTreeMap::new());
    let before = fixture.current.load_full();

    configs[7].rules = vec![rule(&[], "/edited")];
    fixture.apply(&configs[7]).expect("accepted");
    let now = fixture.current.load_full();
    let (then, listener) = (&before.listeners[&port], &now.listeners[&port]);
    for (at, host) in hosts.iter().enumerate() {
        let find = |listener: &Listener, path| {
            listener.routes.find(host, path, &PathAlone::default()).map(|found| Arc::clone(found.route))
        };
        let (was, is) = (find(then, "/x"), find(listener, "/x"));
        match (at, was, is) {
            (7, Some(_), None) => assert!(find(listener, "/edited/x").is_some()),
            (_, Some(was), Some(is)) => assert!(Arc::ptr_eq(&was, &is), "{host}"),
            other => panic!("{other:?}"),
        }
    }
    assert!(Arc::ptr_eq(&then.sets, &listener.sets) && Arc::ptr_eq(&before.sets, &now.sets));
    let config = |listener: &Listener| match &listener.protocol {
        Protocol::Https(config) => Arc::clone(config),
        _ => panic!("it is HTTPS"),
    };
    assert!(Arc::ptr_eq(&config(then), &config(listener)), "no certificate is another");

    fixture.apply(&pool(8, "/")).expect("accepted");
    let renewed = fixture.current.load_full();
    assert!(!Arc::ptr_eq(&config(listener), &config(&renewed.listeners[&port])));
}

#[test]
fn a_limit_keeps_its_counts_while_it_is_the_same_and_rules_that_take_the_pools_share_it() {
    use push::rate_limit::{Algorithm, Key};
    let limit = |id: &str, requests| push::RateLimit {
        id: id.into(),
        name: "l".into(),
        key: Some(Key::Route(push::RouteKey {})),
        algorithm: Some(Algorithm::TokenBucketBurst(1)),
        requests,
        period_ms: 1_000,
        keys_max: 0,
        always_told: false,
        shared: 0,
    };
    let (mut fixture, port) = (Fixture::new(), free_port());
    let mut pool = config(
        "ns/a",
        vec![listener(port, &[], vec![])],
        ["/a", "/b", "/c"].map(|path| rule(&[], path)).into(),
    );
    pool.rules[0].rate_limits = vec![limit("pool/l", 5)];
    pool.rules[1].rate_limits = vec![limit("pool/l", 5)];
    pool.rules[2].rate_limits = vec![limit("rules/2/l", 5)];
    fixture.apply(&pool).expect("accepted");
    let of = |fixture: &Fixture, path| Arc::clone(&fixture.route(port, path).limits[0]);
    let first = of(&fixture, "/a");
    assert!(Arc::ptr_eq(&first, &of(&fixture, "/b")), "the pool's is one");
    assert!(!Arc::ptr_eq(&first, &of(&fixture, "/c")), "a rule's own is another");
    assert_eq!(fixture.current.load().limiters.len(), 2);
    let of_rule = of(&fixture, "/c");
    pool.rules[2].rate_limits = vec![limit("rules/2/l", 6)];
    pool.backend_sets[0].connect_timeout_ms = 2;
    fixture.apply(&pool).expect("accepted");
    assert!(Arc::ptr_eq(&first, &of(&fixture, "/a")), "an edit of something else");
    assert!(!Arc::ptr_eq(&of_rule, &of(&fixture, "/c")), "an edit of the limit");
    fixture.applier.remove("ns/a");
    fixture.applier.commit();
    assert!(fixture.current.load().limiters.is_empty());
}

#[test]
fn pools_that_share_a_port_have_each_its_own_trusted_proxies() {
    let (mut fixture, port) = (Fixture::new(), free_port());
    let trusting = |network: &str| {
        Some(push::ClientAddress { trusted_networks: vec![network.into()], ..Default::default() })
    };
    let on = |pool: &str, host: &str, client_address| {
        let listener = push::Listener { client_address, ..listener(port, &[host], vec![]) };
        config(pool, vec![listener], vec![rule(&[], "/")])
    };
    fixture.apply(&on("ns/a", "a.org", trusting("10.0.0.0/8"))).expect("accepted");
    fixture.apply(&on("ns/b", "b.org", trusting("192.0.2.0/24"))).expect("accepted");
    fixture.apply(&on("ns/c", "c.org", None)).expect("accepted");
    let clients = |fixture: &Fixture| Arc::clone(&fixture.current.load().listeners[&port].clients);
    let trusts = |fixture: &Fixture, pool: &str, address: [u8; 4]| {
        clients(fixture).get(pool).is_some_and(|policy| policy.trusted.trusts(address.into()))
    };
    let (ten, doc) = ([10, 0, 0, 1], [192, 0, 2, 1]);
    assert!(trusts(&fixture, "ns/a", ten) && !trusts(&fixture, "ns/a", doc));
    assert!(!trusts(&fixture, "ns/b", ten) && trusts(&fixture, "ns/b", doc));
    assert!(!clients(&fixture).contains_key("ns/c"));
    fixture.apply(&on("ns/a", "a.org", None)).expect("accepted");
    assert!(!trusts(&fixture, "ns/a", ten) && trusts(&fixture, "ns/b", doc));
    fixture.applier.remove("ns/b");
    fixture.applier.commit();
    assert!(clients(&fixture).is_empty());
}

//! Makes checked configurations the ones that are served.
//!
//! In two steps. [`Applier::stage`] does all that can fail for one pool (checks, certificates, binding its ports),
//! so that a refused pool leaves no trace. [`Applier::commit`] cannot fail: it swaps one pointer for everything that
//! was staged, then opens sockets. A thousand pools of a first connection are staged one by one and committed
//! together.
//!
//! What is equal is kept: a set whose policy is unchanged keeps its cell, a port that no changed pool touches its
//! listener, a certificate its parsed form, and each backend its live counts by its id.

use super::convert::{self, Certificates, ListenerProtocol, PathSpec, PoolSpec, Rejection};
use super::status::Status;
use crate::listener::Sockets;
use crate::snapshot::{Current, Listener, Protocol, Snapshot};
use crate::tls::{self, ServerCertificate};
use lb_core::backend::{Backend, BackendSet, Membership};
use lb_core::route::{PathMatch, Route, RouteTable, WeightedSet};
use rustls::ServerConfig;
use rustls::server::ProducesTickets;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use weir_proto::push;

/// What is served, and the means to change it. Owned by the task that reads the push stream.
#[derive(Debug)]
pub struct Applier {
    current: Current,
    sockets: Sockets,
    status: Arc<Status>,
    pools: BTreeMap<String, ServedPool>,
    tls: BTreeMap<u16, PortTls>,
    /// Ports whose listener is to be built again at the next commit.
    touched: BTreeSet<u16>,
    /// Memberships of kept cells, to be put in place with the routes that go with them.
    members: Vec<(Arc<BackendSet>, Arc<Membership>)>,
    needs_commit: bool,
    last_id: u64,
}

#[derive(Debug)]
struct ServedPool {
    spec: PoolSpec,
    certificates: Certificates,
    sets: BTreeMap<String, Arc<BackendSet>>,
    /// One for each rule.
    routes: Vec<Arc<Route>>,
}

/// TLS of one port. The ticket keys stay while the port does, so that sessions outlive a renewed certificate.
#[derive(Debug)]
struct PortTls {
    tickets: Arc<dyn ProducesTickets>,
    made: Option<(Vec<Arc<ServerCertificate>>, Arc<ServerConfig>)>,
}

impl Applier {
    /// Serves nothing yet. Snapshots go to `current`, ports are bound by `sockets`.
    #[must_use]
    pub fn new(current: Current, sockets: Sockets) -> Self {
        Self {
            current,
            sockets,
            status: Arc::default(),
            pools: BTreeMap::new(),
            tls: BTreeMap::new(),
            touched: BTreeSet::new(),
            members: Vec::new(),
            needs_commit: false,
            last_id: 0,
        }
    }

    /// What is served, for the admin interface and the metrics.
    #[must_use]
    pub fn status(&self) -> Arc<Status> {
        Arc::clone(&self.status)
    }

    /// Prepares a pool's configuration and the contents of its sets; [`Self::commit`] makes them serve.
    ///
    /// # Errors
    /// [`Rejection`]; then the pool stays as it is.
    pub fn stage<'a>(
        &mut self,
        config: &push::PoolConfig,
        contents: impl Fn(&str) -> Vec<&'a push::Backend>,
    ) -> Result<(), Rejection> {
        let none = Certificates::new();
        let known = self.pools.get(&config.pool).map_or(&none, |pool| &pool.certificates);
        let (spec, certificates) = convert::pool(config, known)?;
        self.check_protocols(&config.pool, &spec)?;
        self.prepare_ports(&spec)?;
        let mut members = BTreeMap::new();
        for set in spec.sets.keys() {
            let (usable, refused) = self.members_of(&config.pool, set, contents(set));
            if let Some(Rejection { field, reason }) = refused {
                tracing::warn!(pool = %config.pool, %field, %reason, "a backend is left out");
            }
            members.insert(set, usable);
        }

        let old = self.pools.remove(&config.pool);
        let mut sets = BTreeMap::new();
        for (name, set) in &spec.sets {
            let members = members.remove(name).expect("one membership was made for each set");
            // Another policy or source makes another cell, so that it comes into force with the snapshot's swap.
            let is_same = old.as_ref().is_some_and(|pool| pool.spec.sets.get(name) == Some(set));
            let kept = old.as_ref().and_then(|pool| pool.sets.get(name)).filter(|_| is_same);
            let set = if let Some(set) = kept {
                self.members.push((Arc::clone(set), members));
                Arc::clone(set)
            } else {
                let full_name = format!("{}/{name}", config.pool).into();
                Arc::new(BackendSet::new(self.new_id(), full_name, set.policy.clone(), members))
            };
            sets.insert(name.clone(), set);
        }
        let routes = self.routes(&config.pool, &spec, &sets);
        let ports = old.iter().flat_map(|pool| &pool.spec.listeners).chain(&spec.listeners);
        self.touched.extend(ports.map(|listener| listener.port));
        self.needs_commit = true;
        self.pools.insert(config.pool.clone(), ServedPool { spec, certificates, sets, routes });
        Ok(())
    }

    /// Stops serving a pool at the next commit.
    pub fn remove(&mut self, pool: &str) {
        if let Some(pool) = self.pools.remove(pool) {
            self.touched.extend(pool.spec.listeners.iter().map(|listener| listener.port));
            self.needs_commit = true;
        }
    }

    /// Replaces who is in a set, at once; routes, connections and all other sets are not touched. A set that the
    /// configuration in force does not use is nothing to do.
    ///
    /// # Errors
    /// [`Rejection`] for the first backend that cannot be used; it is left out and the others are in place.
    pub fn replace_backends(
        &mut self,
        pool: &str,
        set: &str,
        backends: Vec<&push::Backend>,
    ) -> Result<(), Rejection> {
        // What is staged comes first, or it would put an older membership over this one.
        self.commit();
        let Some(cell) = self.pools.get(pool).and_then(|pool| pool.sets.get(set)).cloned() else {
            return Ok(());
        };
        let (members, refused) = self.members_of(pool, set, backends);
        cell.replace_members(members);
        refused.map_or(Ok(()), Err)
    }

    /// Serves what was staged: memberships, then one swap of the snapshot, then the sockets.
    pub fn commit(&mut self) {
        if !std::mem::take(&mut self.needs_commit) {
            return;
        }
        for (cell, members) in std::mem::take(&mut self.members) {
            cell.replace_members(members);
        }
        let before = self.current.load_full();
        if self.touched.is_empty() {
            // Only a port that was bound for a pool that was refused has to be given back.
            self.sockets.open_exactly(&before.listeners.keys().copied().collect());
            return;
        }
        let mut listeners = before.listeners.clone();
        for port in std::mem::take(&mut self.touched) {
            match self.listener(port) {
                Some(listener) => listeners.insert(port, Arc::new(listener)),
                None => {
                    self.tls.remove(&port);
                    listeners.remove(&port)
                }
            };
        }
        let ports = listeners.keys().copied().collect();
        self.current.store(Arc::new(Snapshot { version: before.version + 1, listeners }));
        self.sockets.open_exactly(&ports);
        self.status.committed(before.version + 1);
    }

    /// The sets of a pool, by name.
    pub fn sets(&self, pool: &str) -> impl Iterator<Item = (&str, &Arc<BackendSet>)> {
        let sets = self.pools.get(pool).map(|pool| &pool.sets);
        sets.into_iter().flatten().map(|(name, set)| (name.as_str(), set))
    }

    fn new_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn check_protocols(&self, pool: &str, spec: &PoolSpec) -> Result<(), Rejection> {
        for (index, listener) in spec.listeners.iter().enumerate() {
            let others = self.pools.iter().filter(|(name, _)| *name != pool);
            for (other, served) in others {
                let clash = |theirs: &convert::ListenerSpec| {
                    theirs.port == listener.port && is_tls(&theirs.protocol) != is_tls(&listener.protocol)
                };
                if served.spec.listeners.iter().any(clash) {
                    let reason = format!(
                        "port {} speaks another protocol for LoadBalancerPool {other}: choose another port or the same protocol",
                        listener.port
                    );
                    return Err(Rejection::new(format!("spec.listeners[{index}].protocol"), reason));
                }
            }
        }
        Ok(())
    }

    /// Binds what is not bound. A port that stays bound for a pool that is refused after all is given back by the
    /// next commit.
    fn prepare_ports(&mut self, spec: &PoolSpec) -> Result<(), Rejection> {
        for (index, listener) in spec.listeners.iter().enumerate() {
            let field = format!("spec.listeners[{index}].port");
            if let Err(error) = self.sockets.bind(listener.port) {
                self.needs_commit = true;
                let reason = format!(
                    "{error}: {}: free the port, or choose another (below 1024 a privilege is needed)",
                    error.source
                );
                return Err(Rejection::new(field, reason));
            }
            if is_tls(&listener.protocol) && !self.tls.contains_key(&listener.port) {
                let tickets = tls::tickets().map_err(|error| Rejection::new(field, error.to_string()))?;
                self.tls.insert(listener.port, PortTls { tickets, made: None });
                self.touched.insert(listener.port);
            }
        }
        Ok(())
    }

    /// A set's members, without those that cannot be used; and why the first of these cannot.
    fn members_of(
        &mut self,
        pool: &str,
        set: &str,
        wire: Vec<&push::Backend>,
    ) -> (Arc<Membership>, Option<Rejection>) {
        let version = self.new_id();
        let old = self.pools.get(pool).and_then(|pool| pool.sets.get(set)).map(|set| set.members());
        let old = old.as_ref().map_or(&[][..], |members| members.backends());
        let mut backends = Vec::with_capacity(wire.len());
        let mut refused = None;
        for wire in wire {
            let spec = match convert::backend(set, wire) {
                Ok(spec) => spec,
                Err(rejection) => {
                    refused.get_or_insert(rejection);
                    continue;
                }
            };
            let known = old.binary_search_by(|known| (*known.id).cmp(&wire.id)).ok().map(|at| &old[at]);
            backends.push(Backend {
                id: known.map_or_else(|| wire.id.as_str().into(), |known| Arc::clone(&known.id)),
                address: spec.address,
                weight: wire.weight,
                zone: match known {
                    Some(known) if *known.zone == *wire.zone => Arc::clone(&known.zone),
                    _ => wire.zone.as_str().into(),
                },
                state: spec.state,
                live: known.map(|known| Arc::clone(&known.live)).unwrap_or_default(),
            });
        }
        (Arc::new(Membership::new(version, backends)), refused)
    }

    fn routes(
        &mut self,
        pool: &str,
        spec: &PoolSpec,
        sets: &BTreeMap<String, Arc<BackendSet>>,
    ) -> Vec<Arc<Route>> {
        let pool: Arc<str> = pool.into();
        let mut routes = Vec::with_capacity(spec.rules.len());
        for (index, rule) in spec.rules.iter().enumerate() {
            let weighted = rule.sets.iter().map(|(name, weight)| {
                let set = sets.get(name).expect("the conversion has checked that each name is there");
                WeightedSet { set: Arc::clone(set), weight: *weight }
            });
            routes.push(Arc::new(Route {
                id: self.new_id(),
                pool: Arc::clone(&pool),
                rule: index,
                sets: weighted.collect(),
                request_timeout: rule.request_timeout,
            }));
        }
        routes
    }

    /// The port as all pools together want it; `None` when none does.
    fn listener(&mut self, port: u16) -> Option<Listener> {
        let mut routes = RouteTable::default();
        let mut certificates = Vec::new();
        let mut is_wanted = false;
        for pool in self.pools.values() {
            for listener in pool.spec.listeners.iter().filter(|listener| listener.port == port) {
                is_wanted = true;
                if let ListenerProtocol::Https(own) = &listener.protocol {
                    certificates.extend(own.iter().cloned());
                }
                for (rule, route) in pool.spec.rules.iter().zip(&pool.routes) {
                    for host in common_hosts(&listener.hostnames, &rule.hostnames) {
                        for path in &rule.paths {
                            let path = match path {
                                PathSpec::Exact(path) => PathMatch::Exact(path),
                                PathSpec::Prefix(path) => PathMatch::Prefix(path),
                            };
                            // Taken already: the controller has settled whose it is, and the order of names
                            // repeats what it said.
                            routes.insert(host, path, route);
                        }
                    }
                }
            }
        }
        let protocol = match self.tls.get_mut(&port) {
            Some(tls) if !certificates.is_empty() => Protocol::Https(tls.config(certificates)),
            _ => Protocol::Http,
        };
        is_wanted.then_some(Listener { port, protocol, routes })
    }
}

impl PortTls {
    fn config(&mut self, certificates: Vec<Arc<ServerCertificate>>) -> Arc<ServerConfig> {
        if let Some((made_of, config)) = &self.made
            && made_of.len() == certificates.len()
            && made_of.iter().zip(&certificates).all(|(a, b)| Arc::ptr_eq(a, b))
        {
            return Arc::clone(config);
        }
        let config = tls::server_config(&certificates, Arc::clone(&self.tickets));
        self.made = Some((certificates, Arc::clone(&config)));
        config
    }
}

fn is_tls(protocol: &ListenerProtocol) -> bool {
    matches!(protocol, ListenerProtocol::Https(_))
}

/// Hosts that both a listener and a rule accept, the narrower of each pair (Gateway API, HTTPRoute hostnames);
/// `None` stands for every host.
fn common_hosts<'a>(listener: &'a [String], rule: &'a [String]) -> Vec<Option<&'a str>> {
    match (listener.is_empty(), rule.is_empty()) {
        (true, true) => vec![None],
        (true, false) => rule.iter().map(|host| Some(host.as_str())).collect(),
        (false, true) => listener.iter().map(|host| Some(host.as_str())).collect(),
        (false, false) => {
            let pairs = listener.iter().flat_map(|a| rule.iter().map(move |b| (a.as_str(), b.as_str())));
            pairs.filter_map(|(a, b)| narrower(a, b)).map(Some).collect()
        }
    }
}

fn narrower<'a>(a: &'a str, b: &'a str) -> Option<&'a str> {
    let covers = |wide: &str, narrow: &str| {
        wide.strip_prefix('*').is_some_and(|suffix| narrow.len() > suffix.len() && narrow.ends_with(suffix))
    };
    match () {
        () if a == b || covers(a, b) => Some(b),
        () if covers(b, a) => Some(a),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::ListenerChange;
    use crate::tls::tests::certificate;
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
            let backend = wire_backend("b");
            let staged = self.applier.stage(config, |_| vec![&backend]);
            self.applier.commit();
            staged
        }

        fn rule(&self, port: u16, host: &str, path: &str) -> Option<(String, usize)> {
            let snapshot = self.current.load();
            let route = snapshot.listeners.get(&port)?.routes.find(host, path)?;
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
        TcpListener::bind(("127.0.0.1", 0))
            .and_then(|socket| socket.local_addr())
            .expect("a free port")
            .port()
    }

    fn listener(port: u16, hostnames: &[&str], certificates: Vec<push::Certificate>) -> push::Listener {
        let protocol = if certificates.is_empty() { push::Protocol::Http } else { push::Protocol::Https };
        push::Listener {
            name: "l".into(),
            port: port.into(),
            protocol: protocol.into(),
            hostnames: hostnames.iter().map(|host| (*host).to_owned()).collect(),
            tls: (!certificates.is_empty()).then_some(push::Tls { certificates }),
        }
    }

    fn rule(hostnames: &[&str], path: &str) -> push::Rule {
        push::Rule {
            hostnames: hostnames.iter().map(|host| (*host).to_owned()).collect(),
            paths: vec![push::PathMatch { kind: push::PathMatchKind::Prefix.into(), value: path.into() }],
            backend_sets: vec![push::WeightedSet { set: "web".into(), weight: 1 }],
            request_timeout_ms: 0,
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
    fn hosts_are_those_that_listener_and_rule_both_accept() {
        type Case = (&'static [&'static str], &'static [&'static str], &'static [Option<&'static str>]);
        let cases: [Case; 8] = [
            (&[], &[], &[None]),
            (&["a.org"], &[], &[Some("a.org")]),
            (&[], &["a.org"], &[Some("a.org")]),
            (&["*.a.org"], &["x.a.org", "b.org", "a.org"], &[Some("x.a.org")]),
            (&["x.a.org"], &["*.a.org"], &[Some("x.a.org")]),
            (&["*.a.org"], &["*.x.a.org"], &[Some("*.x.a.org")]),
            (&["*.a.org"], &["*.a.org"], &[Some("*.a.org")]),
            (&["a.org"], &["b.org"], &[]),
        ];
        for (listener, rule, expected) in cases {
            let owned = |hosts: &[&str]| hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>();
            assert_eq!(common_hosts(&owned(listener), &owned(rule)), expected, "{listener:?} {rule:?}");
        }
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
        assert!(fixture.worker.try_recv().is_err(), "the other pool still wants the port");
        fixture.applier.remove("ns/blog");
        fixture.applier.commit();
        assert!(matches!(fixture.worker.try_recv(), Ok(ListenerChange::Close { .. })));
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
            Protocol::Http => panic!("the listener has a certificate"),
        };
        let with = |tls: &push::Certificate, path| {
            config("ns/a", vec![listener(port, &[], vec![tls.clone()])], vec![rule(&[], path)])
        };
        fixture.apply(&with(&tls, "/")).expect("accepted");
        let first = server(&fixture);
        fixture.apply(&with(&tls, "/other")).expect("accepted");
        assert!(Arc::ptr_eq(&first, &server(&fixture)));
        fixture.apply(&with(&certificate("ns/secret", &["a.org"]), "/")).expect("accepted");
        assert!(!Arc::ptr_eq(&first, &server(&fixture)));
        assert!(Arc::ptr_eq(&first.ticketer, &server(&fixture).ticketer), "sessions resume");
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
        let refused =
            fixture.applier.replace_backends("ns/a", "web", vec![&bad, &good]).expect_err("one is bad");
        assert!(refused.reason.contains("no address"), "{refused}");
        let (_, set) = fixture.applier.sets("ns/a").next().expect("one set");
        assert_eq!(set.members().eligible().map(|b| b.id.to_string()).collect::<Vec<_>>(), ["good"]);
        for (what, count) in [("to none", 0), ("and back", 1)] {
            let backends = vec![&good; count];
            fixture.applier.replace_backends("ns/a", "web", backends).expect("usable");
            let (_, set) = fixture.applier.sets("ns/a").next().expect("one set");
            assert_eq!(set.members().eligible().len(), count, "{what}");
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
}

//! Makes checked configurations the ones that are served.
//!
//! In two steps. [`Applier::stage`] does all that can fail (checks, certificates, binding ports), pool by pool, so that a
//! refused pool leaves no trace. Only pools that stand in each other's way, since each wants a port that the other
//! leaves, are staged together or not at all. [`Applier::commit`] cannot fail: it swaps one pointer for everything that
//! was staged, then opens sockets.
//!
//! A port that no pool wants any more serves on for [`PORT_LINGER`], so that another pool can take it over without a
//! moment in which it is closed: the two changes may come in two messages, or from two edits.
//!
//! What is equal is kept: a set whose policy is unchanged keeps its cell, a port that no changed pool touches its
//! listener, a certificate its parsed form, and each backend its live counts by its id.

use super::convert::{
    self, Certificates, ListenerProtocol, ListenerSpec, PathSpec, PoolSpec, Rejection, SetSpec,
};
use super::hosts;
use super::members;
use super::status::Status;
use crate::health::{Counts, Exchange, Ids, Orders, Surroundings};
use crate::listener::Sockets;
use crate::snapshot::{Current, Listener, Protocol, Snapshot};
use crate::tls::tickets::{PortTickets, Ring};
use crate::tls::{self, HostCertificates};
use lb_core::backend::{BackendSet, Membership, Place};
use lb_core::health::SetPlan;
use lb_core::route::{PathMatch, Route, RouteTable, WeightedSet};
use rustls::ServerConfig;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use weir_proto::push;

/// How long a port serves on that no pool wants any more.
pub(super) const PORT_LINGER: Duration = Duration::from_millis(500);

/// What is served, and the means to change it. Owned by the task that reads the push stream.
#[derive(Debug)]
pub struct Applier {
    current: Current,
    sockets: Sockets,
    status: Arc<Status>,
    pools: BTreeMap<String, ServedPool>,
    tls: BTreeMap<u16, PortTls>,
    /// What proxies share for session tickets; `None` until a controller gives it.
    ring: Option<Ring>,
    /// Ports whose listener is to be built again at the next commit.
    touched: BTreeSet<u16>,
    /// When ports close that no pool wants any more. Until then their listeners stay in the snapshot as they were.
    retiring: BTreeMap<u16, Instant>,
    /// Memberships of kept cells, to be put in place with the routes that go with them.
    members: Vec<(Arc<BackendSet>, Arc<Membership>)>,
    /// Sets whose members or checks are new, and sets that are gone: for who keeps their health, once they serve.
    kept: Vec<(Arc<BackendSet>, SetPlan)>,
    gone: Vec<Arc<BackendSet>>,
    orders: Arc<Orders>,
    exchange: Arc<Exchange>,
    place: Place,
    /// The process's zero of time.
    started: Instant,
    needs_commit: bool,
    ids: Ids,
}

#[derive(Debug)]
struct ServedPool {
    spec: PoolSpec,
    certificates: Certificates,
    sets: BTreeMap<String, Arc<BackendSet>>,
    /// One for each rule.
    routes: Vec<Arc<Route>>,
}

/// A configuration that is right in itself.
#[derive(Debug)]
struct Candidate {
    spec: PoolSpec,
    certificates: Certificates,
}

/// TLS of one port. The ticket keys stay while the port does, so that sessions outlive a renewed certificate.
#[derive(Debug)]
struct PortTls {
    tickets: Arc<PortTickets>,
    made: Option<(Vec<HostCertificates>, Arc<ServerConfig>)>,
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
            ring: None,
            touched: BTreeSet::new(),
            retiring: BTreeMap::new(),
            members: Vec::new(),
            kept: Vec::new(),
            gone: Vec::new(),
            orders: Arc::default(),
            // With nobody who hears, nothing is shared.
            exchange: Arc::new(Exchange::new().0),
            place: Place::default(),
            started: Instant::now(),
            needs_commit: false,
            ids: Ids::default(),
        }
    }

    /// Where this proxy runs, since when (the zero of time of everything in its process), and how it shares health
    /// checks with others.
    #[must_use]
    pub(crate) fn placed(self, place: Place, started: Instant, exchange: Exchange) -> Self {
        Self { place, started, exchange: Arc::new(exchange), ..self }
    }

    /// What the health of the sets is kept by.
    pub(crate) fn surroundings(&self, counts: Arc<Counts>) -> Surroundings {
        let (place, ids, orders) = (self.place.clone(), self.ids.clone(), Arc::clone(&self.orders));
        Surroundings { started: self.started, place, ids, orders, exchange: self.exchange(), counts }
    }

    /// With the other proxies of this one's kind, on health.
    pub(crate) fn exchange(&self) -> Arc<Exchange> {
        Arc::clone(&self.exchange)
    }

    /// What is served, for the admin interface and the metrics.
    #[must_use]
    pub fn status(&self) -> Arc<Status> {
        Arc::clone(&self.status)
    }

    /// Prepares configurations and the contents of their sets, each pool once; [`Self::commit`] makes them serve.
    /// Gives those that are refused, by pool: they stay as they are and hold back nobody.
    pub fn stage<'a>(
        &mut self,
        configs: &[Arc<push::PoolConfig>],
        contents: impl Fn(&str, &str) -> Vec<&'a push::Backend>,
    ) -> BTreeMap<String, Rejection> {
        let mut refused = BTreeMap::new();
        let mut candidates = BTreeMap::new();
        for config in configs {
            let none = Certificates::new();
            let known = self.pools.get(&config.pool).map_or(&none, |pool| &pool.certificates);
            match convert::pool(config, known) {
                Ok((spec, certificates)) => {
                    candidates.insert(config.pool.clone(), Candidate { spec, certificates });
                }
                Err(rejection) => drop(refused.insert(config.pool.clone(), rejection)),
            }
        }
        for config in configs {
            // Refused above, or staged together with another one.
            if !candidates.contains_key(&config.pool) {
                continue;
            }
            match self.admit(&config.pool, &candidates) {
                Ok(together) => {
                    for pool in together {
                        let candidate = candidates.remove(&pool).expect("only candidates are admitted");
                        self.replace(&pool, candidate, |set| contents(&pool, set));
                        refused.remove(&pool);
                    }
                }
                Err(rejection) => drop(refused.insert(config.pool.clone(), rejection)),
            }
        }
        refused
    }

    /// Stops serving a pool at the next commit.
    pub fn remove(&mut self, pool: &str) {
        if let Some(pool) = self.pools.remove(pool) {
            self.gone.extend(pool.sets.values().cloned());
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
        let Some(served) = self.pools.get(pool) else { return Ok(()) };
        let (Some(cell), Some(spec)) = (served.sets.get(set).cloned(), served.spec.sets.get(set).cloned())
        else {
            return Ok(());
        };
        let (members, refused) = self.members_of(pool, set, &spec, backends);
        cell.replace_members(members);
        self.orders.keep(&cell, &spec.health);
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
        self.kept.drain(..).for_each(|(cell, plan)| self.orders.keep(&cell, &plan));
        self.gone.drain(..).for_each(|cell| self.orders.forget(&cell));
        let before = self.current.load_full();
        if self.touched.is_empty() {
            // Only a port that was bound for a pool that was refused has to be given back.
            self.sockets.open_exactly(&before.listeners.keys().copied().collect());
            return;
        }
        let mut listeners = before.listeners.clone();
        for port in std::mem::take(&mut self.touched) {
            match self.listener(port) {
                Some(listener) => {
                    self.retiring.remove(&port);
                    listeners.insert(port, Arc::new(listener));
                }
                None if listeners.contains_key(&port) => {
                    self.retiring.entry(port).or_insert_with(|| Instant::now() + PORT_LINGER);
                }
                // Prepared for a pool that was refused.
                None => drop(self.tls.remove(&port)),
            }
        }
        self.swap(listeners);
    }

    /// Closes ports that no pool has taken over in time. Gives the moment at which the next one closes.
    pub fn close_retired(&mut self, now: Instant) -> Option<Instant> {
        let due: Vec<u16> =
            self.retiring.iter().filter(|(_, at)| **at <= now).map(|(port, _)| *port).collect();
        if !due.is_empty() {
            let mut listeners = self.current.load().listeners.clone();
            for port in due {
                self.retiring.remove(&port);
                self.tls.remove(&port);
                listeners.remove(&port);
            }
            self.swap(listeners);
        }
        self.retiring.values().min().copied()
    }

    /// Seals and opens session tickets with these keys, at once and without another snapshot.
    pub fn use_ring(&mut self, ring: Ring) {
        self.tls.values().for_each(|tls| tls.tickets.use_ring(&ring));
        self.ring = Some(ring);
    }

    /// The sets of a pool, by name.
    pub fn sets(&self, pool: &str) -> impl Iterator<Item = (&str, &Arc<BackendSet>)> {
        let sets = self.pools.get(pool).map(|pool| &pool.sets);
        sets.into_iter().flatten().map(|(name, set)| (name.as_str(), set))
    }

    fn swap(&mut self, listeners: BTreeMap<u16, Arc<Listener>>) {
        let version = self.current.load().version + 1;
        let ports = listeners.keys().copied().collect();
        self.current.store(Arc::new(Snapshot { version, listeners }));
        self.sockets.open_exactly(&ports);
        self.status.committed(version);
    }

    /// Whether a candidate can come into force, and which others must come with it. Their ports are bound then.
    fn admit(
        &mut self,
        pool: &str,
        candidates: &BTreeMap<String, Candidate>,
    ) -> Result<Vec<String>, Rejection> {
        let spec = &candidates[pool].spec;
        let Some((other, index)) = self.clashes(pool, spec).min_by_key(|(_, index)| *index) else {
            self.prepare_ports(spec)?;
            return Ok(vec![pool.to_owned()]);
        };
        let reason = format!(
            "port {} speaks another protocol for LoadBalancerPool {other}: choose another port or the same protocol",
            spec.listeners[index].port
        );
        let refusal = Rejection::new(format!("spec.listeners[{index}].protocol"), reason);
        let Some(together) = self.together(pool, candidates) else { return Err(refusal) };
        for name in &together {
            let prepared = self.prepare_ports(&candidates[*name].spec);
            prepared.map_err(|own| if *name == pool { own } else { refusal.clone() })?;
        }
        Ok(together.into_iter().map(ToOwned::to_owned).collect())
    }

    /// A candidate, those that have to leave a port for it, those that have to for these, and so on. `None` where one of
    /// them stays where it is, or where they would clash again.
    fn together<'c>(
        &self,
        pool: &str,
        candidates: &'c BTreeMap<String, Candidate>,
    ) -> Option<BTreeSet<&'c str>> {
        let mut together = BTreeSet::new();
        let mut next = vec![pool];
        while let Some(name) = next.pop() {
            let (name, candidate) = candidates.get_key_value(name)?;
            if together.insert(name.as_str()) {
                next.extend(self.clashes(name, &candidate.spec).map(|(other, _)| other));
            }
        }
        let specs: Vec<_> = together.iter().map(|name| &candidates[*name].spec).collect();
        let agrees = |(at, spec): (usize, &&PoolSpec)| specs[..at].iter().all(|s| clash(spec, s).is_none());
        specs.iter().enumerate().all(agrees).then_some(together)
    }

    /// Pools that speak another protocol on a port of this specification, with the position of its listener.
    fn clashes<'a>(&'a self, pool: &'a str, spec: &'a PoolSpec) -> impl Iterator<Item = (&'a str, usize)> {
        let others = self.pools.iter().filter(move |(name, _)| *name != pool);
        others.filter_map(move |(name, served)| Some((name.as_str(), clash(spec, &served.spec)?)))
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
                let local = tls::local_tickets().map_err(|error| Rejection::new(field, error.to_string()))?;
                let tickets = PortTickets::new(listener.port, local, self.ring.as_ref());
                self.tls.insert(listener.port, PortTls { tickets, made: None });
                self.touched.insert(listener.port);
            }
        }
        Ok(())
    }

    /// Puts a candidate in the place of what its pool has.
    fn replace<'a>(
        &mut self,
        pool: &str,
        candidate: Candidate,
        contents: impl Fn(&str) -> Vec<&'a push::Backend>,
    ) {
        let Candidate { spec, certificates } = candidate;
        let mut members = BTreeMap::new();
        for (set, spec) in &spec.sets {
            let (usable, refused) = self.members_of(pool, set, spec, contents(set));
            if let Some(Rejection { field, reason }) = refused {
                tracing::warn!(%pool, %field, %reason, "a backend is left out");
            }
            members.insert(set, usable);
        }
        let old = self.pools.remove(pool);
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
                let full_name = format!("{pool}/{name}").into();
                Arc::new(BackendSet::new(self.ids.next(), full_name, set.policy.clone(), members))
            };
            self.kept.push((Arc::clone(&set), spec.sets[name].health.clone()));
            sets.insert(name.clone(), set);
        }
        let is_kept = |set: &Arc<BackendSet>| sets.values().any(|kept| Arc::ptr_eq(kept, set));
        self.gone.extend(old.iter().flat_map(|pool| pool.sets.values()).filter(|set| !is_kept(set)).cloned());
        let routes = self.routes(pool, &spec, &sets);
        let ports = old.iter().flat_map(|pool| &pool.spec.listeners).chain(&spec.listeners);
        self.touched.extend(ports.map(|listener| listener.port));
        self.needs_commit = true;
        self.pools.insert(pool.to_owned(), ServedPool { spec, certificates, sets, routes });
    }

    /// A set's members, without those that cannot be used; and why the first of these cannot.
    fn members_of(
        &mut self,
        pool: &str,
        set: &str,
        spec: &SetSpec,
        wire: Vec<&push::Backend>,
    ) -> (Arc<Membership>, Option<Rejection>) {
        let old = self.pools.get(pool).and_then(|pool| pool.sets.get(set)).map(|set| set.members());
        let made =
            members::Made { version: self.ids.next(), place: &self.place, now: self.started.elapsed() };
        members::read(set, spec, old.as_deref().map(|old| &**old), wire, &made)
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
                id: self.ids.next(),
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
                    let rules = pool.spec.rules.iter().map(|rule| rule.hostnames.as_slice());
                    let hosts = hosts::claimed(&listener.hostnames, rules);
                    certificates.push(HostCertificates {
                        hosts: hosts.into_iter().map(|host| host.map(ToOwned::to_owned)).collect(),
                        certificates: own.clone(),
                    });
                }
                for (rule, route) in pool.spec.rules.iter().zip(&pool.routes) {
                    for host in hosts::common(&listener.hostnames, &rule.hostnames) {
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
    fn config(&mut self, listeners: Vec<HostCertificates>) -> Arc<ServerConfig> {
        if let Some((made_of, config)) = &self.made
            && *made_of == listeners
        {
            return Arc::clone(config);
        }
        let config = tls::server_config(&listeners, Arc::<PortTickets>::clone(&self.tickets));
        self.made = Some((listeners, Arc::clone(&config)));
        config
    }
}

/// The first listener of `spec` whose port speaks another protocol in `other`.
fn clash(spec: &PoolSpec, other: &PoolSpec) -> Option<usize> {
    spec.listeners.iter().position(|listener| {
        let differs = |theirs: &ListenerSpec| {
            theirs.port == listener.port && is_tls(&theirs.protocol) != is_tls(&listener.protocol)
        };
        other.listeners.iter().any(differs)
    })
}

fn is_tls(protocol: &ListenerProtocol) -> bool {
    matches!(protocol, ListenerProtocol::Https(_))
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
        let removed = Instant::now();
        fixture.applier.commit();
        let due = fixture.applier.close_retired(removed).expect("the port lingers");
        assert!(due >= removed + PORT_LINGER);
        assert_eq!(fixture.rule(port, "blog.org", "/"), Some(("ns/blog".into(), 0)), "and serves");
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
            assert!(
                refused.field == "spec.listeners[0].protocol" && refused.reason.contains(other),
                "{refused}"
            );
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
        let listeners = fixture.applier.tls[&port].made.as_ref().map(|(listeners, _)| listeners);
        let hosts: Vec<_> = listeners.into_iter().flatten().map(|of| of.hosts.clone()).collect();
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
}

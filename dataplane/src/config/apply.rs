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
        let mut contents = spec
            .sets
            .keys()
            .map(|set| Ok((set.clone(), self.members_of(&config.pool, set, contents(set))?)))
            .collect::<Result<BTreeMap<_, _>, Rejection>>()?;
        self.prepare_ports(&spec)?;

        let old = self.pools.remove(&config.pool);
        let mut sets = BTreeMap::new();
        for (name, policy) in &spec.sets {
            let members = contents.remove(name).expect("one membership was made for each set");
            let kept = old.as_ref().and_then(|pool| pool.sets.get(name)).filter(|set| set.policy == *policy);
            let set = if let Some(set) = kept {
                self.members.push((Arc::clone(set), members));
                Arc::clone(set)
            } else {
                let full_name = format!("{}/{name}", config.pool).into();
                Arc::new(BackendSet::new(self.new_id(), full_name, policy.clone(), members))
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
        let mut refused = None;
        let usable = backends.into_iter().filter(|wire| match convert::backend(set, wire) {
            Ok(_) => true,
            Err(rejection) => {
                refused.get_or_insert(rejection);
                false
            }
        });
        let usable = usable.collect();
        cell.replace_members(self.members_of(pool, set, usable)?);
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

    fn members_of(
        &mut self,
        pool: &str,
        set: &str,
        wire: Vec<&push::Backend>,
    ) -> Result<Arc<Membership>, Rejection> {
        let version = self.new_id();
        let old = self.pools.get(pool).and_then(|pool| pool.sets.get(set)).map(|set| set.members());
        let old = old.as_ref().map_or(&[][..], |members| members.backends());
        let mut backends = Vec::with_capacity(wire.len());
        for wire in wire {
            let spec = convert::backend(set, wire)?;
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
        Ok(Arc::new(Membership::new(version, backends)))
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

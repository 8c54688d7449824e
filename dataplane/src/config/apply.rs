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

mod port_tls;

use super::convert::{self, Certificates, ListenerSpec, PoolSpec, Rejection, SetSpec, Spoken};
use super::members;
use super::ports::Ports;
use super::routes::{self, Parts, PoolLimits, PoolSessions};
use super::status::Status;
use crate::health::{Counts, Exchange, Ids, Orders, Surroundings};
use crate::listener::{Door, Sockets, Transport};
use crate::sessions::Sealer;
use crate::snapshot::{Current, Listener, Protocol, Snapshot};
use crate::tls::Within;
use crate::tls::tickets::Ring;
use lb_core::backend::{BackendSet, Membership, Place};
use lb_core::health::SetPlan;
use port_tls::PortTls;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, RandomState};
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
    /// Of those that remember sessions.
    sessions: BTreeMap<String, PoolSessions>,
    /// Of all pools.
    limits: BTreeMap<String, PoolLimits>,
    /// For their hashes.
    seed: u64,
    /// What they have on each port.
    ports: Ports,
    tls: BTreeMap<u16, PortTls>,
    /// What proxies share for session tickets; `None` until a controller gives it.
    ring: Option<Ring>,
    /// `None` in a proxy without workers.
    sealer: Option<Arc<Sealer>>,
    /// Ports whose listener is to be built again at the next commit.
    touched: BTreeSet<Door>,
    /// When ports close that no pool wants any more. Until then their listeners stay in the snapshot as they were.
    retiring: BTreeMap<Door, Instant>,
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
}

/// A configuration that is right in itself.
#[derive(Debug)]
struct Candidate {
    spec: PoolSpec,
    certificates: Certificates,
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
            sessions: BTreeMap::new(),
            limits: BTreeMap::new(),
            seed: RandomState::new().hash_one(0),
            ports: Ports::default(),
            tls: BTreeMap::new(),
            ring: None,
            sealer: None,
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
        self.status.started(started);
        Self { place, started, exchange: Arc::new(exchange), ..self }
    }

    /// Session cookies are sealed by this, with the keys that proxies share.
    #[must_use]
    pub(crate) fn sealing(self, sealer: Arc<Sealer>) -> Self {
        Self { sealer: Some(sealer), ..self }
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
            let none = Certificates::default();
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
        if let Some(served) = self.pools.remove(pool) {
            self.gone.extend(served.sets.values().cloned());
            self.sessions.remove(pool);
            self.limits.remove(pool);
            self.touched.extend(self.ports.remove(pool, &served.spec));
            self.sockets.pool_gone(pool);
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
            self.sockets.open_exactly(&before.doors().into_keys().collect());
            return;
        }
        let mut listeners = before.doors();
        for port in std::mem::take(&mut self.touched) {
            match self.listener(port) {
                Some(listener) => {
                    self.retiring.remove(&port);
                    listeners.insert(port, Arc::new(listener));
                }
                None if listeners.contains_key(&port) => {
                    self.retiring.entry(port).or_insert_with(|| now() + PORT_LINGER);
                }
                // Prepared for a pool that was refused.
                None => drop(self.tls.remove(&port.port)),
            }
        }
        self.swap(&listeners);
    }

    /// Closes ports that no pool has taken over in time. Gives the moment at which the next one closes.
    pub fn close_retired(&mut self, now: Instant) -> Option<Instant> {
        let due: Vec<Door> =
            self.retiring.iter().filter(|(_, at)| **at <= now).map(|(port, _)| *port).collect();
        if !due.is_empty() {
            let mut listeners = self.current.load().doors();
            for port in due {
                self.retiring.remove(&port);
                if port.transport == Transport::Tcp {
                    self.tls.remove(&port.port);
                }
                listeners.remove(&port);
            }
            self.swap(&listeners);
        }
        self.retiring.values().min().copied()
    }

    /// Seals and opens session tickets with these keys, at once and without another snapshot.
    pub fn use_ring(&mut self, ring: Ring) {
        let tickets = self.tls.values().flat_map(|tls| tls.tickets.values());
        tickets.for_each(|tickets| tickets.use_ring(&ring));
        self.sealer.iter().for_each(|sealer| sealer.use_ring(&ring));
        self.ring = Some(ring);
    }

    /// The sets of a pool, by name.
    pub fn sets(&self, pool: &str) -> impl Iterator<Item = (&str, &Arc<BackendSet>)> {
        let sets = self.pools.get(pool).map(|pool| &pool.sets);
        sets.into_iter().flatten().map(|(name, set)| (name.as_str(), set))
    }

    fn swap(&mut self, listeners: &BTreeMap<Door, Arc<Listener>>) {
        let before = self.current.load_full();
        let known = before.doors();
        let version = before.version + 1;
        let ports = listeners.keys().copied().collect();
        let is_same = |(port, listener): (&Door, &Arc<Listener>)| {
            known.get(port).is_some_and(|before| Arc::ptr_eq(&before.sets, &listener.sets))
        };
        let are_sets_same = listeners.len() == known.len() && listeners.iter().all(is_same);
        let sets = if are_sets_same {
            Arc::clone(&before.sets)
        } else {
            routes::once(listeners.values().flat_map(|listener| &*listener.sets)).into()
        };
        let tables = routes::tables(self.sessions.values());
        let limiters = self.limits.values().flat_map(PoolLimits::all).cloned().collect();
        let of = |transport| {
            let all = listeners.iter().filter(|(door, _)| door.transport == transport);
            all.map(|(door, listener)| (door.port, Arc::clone(listener))).collect()
        };
        let (listeners, datagrams) = (of(Transport::Tcp), of(Transport::Udp));
        self.current.store(Arc::new(Snapshot { version, listeners, datagrams, sets, tables, limiters }));
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
        let Some((other, index)) = self.ports.clashes(pool, spec).min_by_key(|(_, index)| *index) else {
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
                next.extend(self.ports.clashes(name, &candidate.spec).map(|(other, _)| other));
            }
        }
        let specs: Vec<_> = together.iter().map(|name| &candidates[*name].spec).collect();
        let agrees = |(at, spec): (usize, &&PoolSpec)| specs[..at].iter().all(|s| clash(spec, s).is_none());
        specs.iter().enumerate().all(agrees).then_some(together)
    }

    /// Binds what is not bound. A port that stays bound for a pool that is refused after all is given back by the
    /// next commit.
    fn prepare_ports(&mut self, spec: &PoolSpec) -> Result<(), Rejection> {
        for (index, listener) in spec.listeners.iter().enumerate() {
            let field = format!("spec.listeners[{index}].port");
            if let Err(error) = self.sockets.bind(listener.door()) {
                self.needs_commit = true;
                let reason = format!(
                    "{error}: {}: free the port, or choose another (below 1024 a privilege is needed)",
                    error.source
                );
                return Err(Rejection::new(field, reason));
            }
            let Some(own) = listener.protocol.tls() else { continue };
            let (port, policy) = (listener.port, own.policy.id());
            if !self.tls.contains_key(&port) {
                self.touched.insert(listener.door());
            }
            let prepared = self.tls.entry(port).or_default().prepare(port, policy, self.ring.as_ref());
            prepared.map_err(|error| Rejection::new(field, error.to_string()))?;
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
                let cell = BackendSet::new(self.ids.next(), full_name, set.policy.clone(), members);
                let before = old.as_ref().and_then(|pool| pool.sets.get(name));
                Arc::new(match before {
                    Some(before) => cell.following(before),
                    None => cell,
                })
            };
            self.kept.push((Arc::clone(&set), spec.sets[name].health.clone()));
            sets.insert(name.clone(), set);
        }
        let is_kept = |set: &Arc<BackendSet>| sets.values().any(|kept| Arc::ptr_eq(kept, set));
        self.gone.extend(old.iter().flat_map(|pool| pool.sets.values()).filter(|set| !is_kept(set)).cloned());
        let before = self.sessions.remove(pool);
        let sessions = PoolSessions::of(pool, &spec.rules, before.as_ref());
        let limits = PoolLimits::of(&spec.rules, self.limits.get(pool), self.seed);
        let parts = Parts { sets: &sets, sessions: sessions.as_ref(), limits: &limits, ids: &self.ids };
        let routes = parts.routes(pool, &spec);
        self.limits.insert(pool.to_owned(), limits);
        self.sessions.extend(sessions.map(|sessions| (pool.to_owned(), sessions)));
        self.touched.extend(self.ports.put(pool, &spec, &routes, old.as_ref().map(|old| &old.spec)));
        self.needs_commit = true;
        self.pools.insert(pool.to_owned(), ServedPool { spec, certificates, sets });
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

    /// The port as all pools together want it; `None` when none does.
    fn listener(&mut self, door: Door) -> Option<Listener> {
        let port = self.ports.wanted(door)?;
        let protocol = match (port.spoken(), self.tls.get_mut(&door.port)) {
            (Some(Spoken::Https), Some(tls)) => Protocol::Https(tls.config(port, Within::Http)),
            (Some(Spoken::Tls), Some(tls)) => Protocol::Tls(tls.config(port, Within::Bytes)),
            (Some(Spoken::Passthrough), _) => Protocol::Passthrough,
            (Some(Spoken::Tcp), _) => Protocol::Tcp,
            (Some(Spoken::Udp), _) => Protocol::Udp,
            _ => Protocol::Http,
        };
        Some(Listener {
            port: door.port,
            protocol,
            routes: port.routes(),
            sets: port.sets(),
            limits: port.limits(),
            paths: port.paths(),
            clients: port.clients(),
            proxies: port.proxies(),
            fronts: port.fronts(),
        })
    }
}

/// By tokio's clock, as those who ask when to close, so that a test's paused time holds here too.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The first listener of `spec` whose port speaks another protocol in `other`.
fn clash(spec: &PoolSpec, other: &PoolSpec) -> Option<usize> {
    spec.listeners.iter().position(|listener| {
        let differs = |theirs: &ListenerSpec| {
            theirs.door() == listener.door() && theirs.protocol.spoken() != listener.protocol.spoken()
        };
        other.listeners.iter().any(differs)
    })
}

#[cfg(test)]
mod tests;

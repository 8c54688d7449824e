//! What a port serves, kept by the pools that share it, so that a pool changes its part and no other is looked at.

use super::convert::{ListenerSpec, PoolSpec, Spoken};
use super::{hosts, routes};
use crate::listener::Door;
use crate::proxied::Proxies;
use crate::snapshot::{Clients, Front, Fronts, ListenerLimits};
use crate::tls::HostCertificates;
use lb_core::addresses::ClientPolicy;
use lb_core::backend::BackendSet;
use lb_core::host::HostMap;
use lb_core::path::PathPolicy;
use lb_core::route::{Entry, Route, RouteParts, RouteTable};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Every port that a pool wants.
#[derive(Debug, Default)]
pub(super) struct Ports(BTreeMap<Door, Port>);

/// One port as all pools together want it.
#[derive(Debug, Default)]
pub(super) struct Port {
    parts: BTreeMap<String, Part>,
    /// Pools by what they speak here; only while they change places there is more than one. None is kept without pools.
    speakers: BTreeMap<Spoken, BTreeSet<String>>,
    routes: RouteParts,
    /// The sets of all parts; `None` after one of them came or went.
    sets: Option<Arc<[Arc<BackendSet>]>>,
    /// Who the client is, for pools that say it; `None` after one of them changed that.
    clients: Option<Clients>,
    /// What is said of HTTPS; `None` after a pool changed that, or its hosts.
    fronts: Option<Option<Fronts>>,
    are_certificates_new: bool,
}

/// What one pool has on the port.
#[derive(Debug, Default)]
struct Part {
    sets: Vec<Arc<BackendSet>>,
    certificates: Vec<HostCertificates>,
    limits: Option<Arc<ListenerLimits>>,
    paths: Option<PathPolicy>,
    created_s: u64,
    client: Option<Arc<ClientPolicy>>,
    proxies: Option<Arc<Proxies>>,
    fronts: Vec<HostFront>,
}

/// What a listener says of HTTPS, and for which hosts: `None` for every one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct HostFront {
    hosts: Vec<Option<String>>,
    front: Arc<Front>,
}

impl Ports {
    /// Makes this what a pool has, in place of what it had `before`. `of_rules` are its routes, one for each rule. Returns
    /// the ports that are to be built again.
    pub(super) fn put(
        &mut self,
        pool: &str,
        spec: &PoolSpec,
        of_rules: &[Arc<Route>],
        before: Option<&PoolSpec>,
    ) -> BTreeSet<Door> {
        let (now, before) = (doors(spec), before.map(doors).unwrap_or_default());
        for door in &now {
            self.0.entry(*door).or_default().put(*door, pool, spec, of_rules);
        }
        before.difference(&now).for_each(|door| self.take(*door, pool));
        now.union(&before).copied().collect()
    }

    /// Takes away what a pool had, and returns the ports that are to be built again.
    pub(super) fn remove(&mut self, pool: &str, before: &PoolSpec) -> BTreeSet<Door> {
        let doors = doors(before);
        doors.iter().for_each(|door| self.take(*door, pool));
        doors
    }

    /// `None` for one that no pool wants.
    pub(super) fn wanted(&mut self, door: Door) -> Option<&mut Port> {
        self.0.get_mut(&door)
    }

    /// Other pools that speak another protocol on a port of this specification, with the position of its listener.
    pub(super) fn clashes<'a>(
        &'a self,
        pool: &'a str,
        spec: &'a PoolSpec,
    ) -> impl Iterator<Item = (&'a str, usize)> {
        spec.listeners.iter().enumerate().flat_map(move |(index, listener)| {
            let port = self.0.get(&listener.door());
            let spoken = listener.protocol.spoken();
            let others = port.into_iter().flat_map(move |port| port.speaking_other_than(spoken));
            others.filter(move |name| *name != pool).map(move |name| (name.as_str(), index))
        })
    }

    fn take(&mut self, door: Door, pool: &str) {
        let Some(port) = self.0.get_mut(&door) else { return };
        port.remove(pool);
        if port.parts.is_empty() {
            self.0.remove(&door);
        }
    }
}

fn doors(spec: &PoolSpec) -> BTreeSet<Door> {
    spec.listeners.iter().map(ListenerSpec::door).collect()
}

impl Port {
    fn put(&mut self, door: Door, pool: &str, spec: &PoolSpec, of_rules: &[Arc<Route>]) {
        let listeners = || spec.listeners.iter().filter(move |listener| listener.door() == door);
        let part = Part {
            sets: routes::sets_of(of_rules.iter()),
            certificates: listeners().filter_map(|listener| certificates(listener, spec)).collect(),
            limits: listeners().find_map(|listener| listener.limits.clone()),
            paths: listeners().find_map(|listener| listener.paths),
            created_s: listeners().map(|listener| listener.created_s).min().unwrap_or(u64::MAX),
            client: listeners().find_map(|listener| listener.client.clone()),
            proxies: listeners().find_map(|listener| listener.proxies.clone()),
            fronts: listeners().map(|listener| front(pool, listener, spec)).collect(),
        };
        let entries = listeners().flat_map(|listener| entries(listener, spec, of_rules));
        // Of two pools with one host and path the first by name has it: the controller has settled whose it is, and the
        // order of names repeats what it said.
        self.routes.put(pool, entries);
        self.fall_silent(pool);
        for listener in listeners() {
            self.speakers.entry(listener.protocol.spoken()).or_default().insert(pool.to_owned());
        }
        let before = self.parts.insert(pool.to_owned(), part);
        self.compare(pool, before.as_ref());
    }

    fn remove(&mut self, pool: &str) {
        let before = self.parts.remove(pool);
        self.routes.remove(pool);
        self.fall_silent(pool);
        self.compare(pool, before.as_ref());
    }

    /// Pools that speak something else here, by name.
    fn speaking_other_than(&self, spoken: Spoken) -> impl Iterator<Item = &String> {
        self.speakers.iter().filter(move |(theirs, _)| **theirs != spoken).flat_map(|(_, pools)| pools)
    }

    fn fall_silent(&mut self, pool: &str) {
        self.speakers.retain(|_, pools| {
            pools.remove(pool);
            !pools.is_empty()
        });
    }

    /// Routes of all pools; shares with those before what is the same.
    pub(super) fn routes(&self) -> RouteTable {
        self.routes.table().clone()
    }

    /// The sets of those routes, the very same list where none came or went. Not always each once.
    pub(super) fn sets(&mut self) -> Arc<[Arc<BackendSet>]> {
        let all = || self.parts.values().flat_map(|part| &part.sets).cloned().collect();
        Arc::clone(self.sets.get_or_insert_with(all))
    }

    /// Who the client is for each pool, the very same map where none changed that.
    pub(super) fn clients(&mut self) -> Clients {
        let of = |(pool, part): (&String, &Part)| Some((pool.as_str().into(), part.client.clone()?));
        let all = || Arc::new(self.parts.iter().filter_map(of).collect());
        Arc::clone(self.clients.get_or_insert_with(all))
    }

    /// The certificates of all pools.
    pub(super) fn certificates(&self) -> impl Iterator<Item = &HostCertificates> + Clone {
        self.parts.values().flat_map(|part| &part.certificates)
    }

    /// What clients may do here: as the oldest pool says that says anything, of equals the first by name.
    pub(super) fn limits(&self) -> Arc<ListenerLimits> {
        self.first_that_says(|part| part.limits.clone())
    }

    /// The same for paths.
    pub(super) fn paths(&self) -> PathPolicy {
        self.first_that_says(|part| part.paths)
    }

    /// The same for whose connections begin with a header of the PROXY protocol.
    pub(super) fn proxies(&self) -> Option<Arc<Proxies>> {
        self.first_that_says(|part| part.proxies.clone().map(Some))
    }

    /// What is said of HTTPS for each host, the very same map where nobody changed that. Where one says something all hosts
    /// are in it, so that those of one that says nothing are not taken for the others'.
    pub(super) fn fronts(&mut self) -> Option<Fronts> {
        let all = || {
            let says = |own: &HostFront| own.front.redirect.is_some() || own.front.hsts.is_some();
            let fronts = || self.parts.values().flat_map(|part| &part.fronts);
            fronts().any(says).then(|| {
                let mut map = HostMap::default();
                for own in fronts() {
                    for host in &own.hosts {
                        map.ensure(host.as_deref(), || Arc::clone(&own.front));
                    }
                }
                Arc::new(map)
            })
        };
        self.fronts.get_or_insert_with(all).clone()
    }

    fn first_that_says<T: Default>(&self, what: impl Fn(&Part) -> Option<T>) -> T {
        let said = self.parts.values().filter_map(|part| what(part).map(|said| (part.created_s, said)));
        said.min_by_key(|(created_s, _)| *created_s).map(|(_, said)| said).unwrap_or_default()
    }

    /// What is spoken here; `None` where no pool is left.
    pub(super) fn spoken(&self) -> Option<Spoken> {
        self.speakers.keys().next_back().copied()
    }

    /// Whether certificates came or went since the last call.
    pub(super) fn take_are_certificates_new(&mut self) -> bool {
        std::mem::take(&mut self.are_certificates_new)
    }

    fn compare(&mut self, pool: &str, before: Option<&Part>) {
        let (none, now) = (Part::default(), self.parts.get(pool));
        let (before, now) = (before.unwrap_or(&none), now.unwrap_or(&none));
        let ids = |part: &Part| part.sets.iter().map(|set| set.id).collect::<Vec<_>>();
        if ids(before) != ids(now) {
            self.sets = None;
        }
        if before.client != now.client {
            self.clients = None;
        }
        if before.fronts != now.fronts {
            self.fronts = None;
        }
        self.are_certificates_new |= before.certificates != now.certificates;
    }
}

/// Hosts that are a pool's on a listener.
fn claimed(listener: &ListenerSpec, spec: &PoolSpec) -> Vec<Option<String>> {
    let rules = spec.rules.iter().filter(|rule| rule.serves(listener));
    let rules = rules.map(|rule| rule.hostnames.as_slice());
    let hosts = hosts::claimed(&listener.hostnames, rules);
    hosts.into_iter().map(|host| host.map(ToOwned::to_owned)).collect()
}

fn front(pool: &str, listener: &ListenerSpec, spec: &PoolSpec) -> HostFront {
    let front = Front { pool: pool.into(), redirect: listener.redirect, hsts: listener.hsts.clone() };
    HostFront { hosts: claimed(listener, spec), front: Arc::new(front) }
}

fn certificates(listener: &ListenerSpec, spec: &PoolSpec) -> Option<HostCertificates> {
    let own = listener.protocol.tls()?;
    Some(HostCertificates {
        hosts: claimed(listener, spec),
        certificates: own.certificates.clone(),
        policy: Arc::clone(&own.policy),
    })
}

fn entries<'a>(
    listener: &'a ListenerSpec,
    spec: &'a PoolSpec,
    of_rules: &'a [Arc<Route>],
) -> impl Iterator<Item = Entry<'a>> {
    let serving = spec.rules.iter().zip(of_rules).filter(|(rule, _)| rule.serves(listener));
    serving.flat_map(move |(rule, route)| {
        let hosts = hosts::common(&listener.hostnames, &rule.hostnames);
        hosts.into_iter().flat_map(move |host| rule.matches.iter().map(move |wanted| (host, wanted, route)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_pools_that_share_a_port_the_oldest_says_what_clients_may_do_and_of_equals_the_first_by_name() {
        let says = |headers_max, created_s| Part {
            limits: Some(Arc::new(ListenerLimits { headers_max, ..ListenerLimits::default() })),
            created_s,
            ..Part::default()
        };
        let mut port = Port::default();
        assert_eq!(*port.limits(), ListenerLimits::default());
        for (name, part, headers) in [
            ("ns/silent", Part { created_s: 1, ..Part::default() }, 100),
            ("ns/unknown", says(10, u64::MAX), 10),
            ("ns/b", says(20, 9), 20),
            ("ns/a", says(30, 9), 30),
            ("ns/young", says(40, 10), 30),
            ("ns/z", says(50, 8), 50),
        ] {
            port.parts.insert(name.to_owned(), part);
            assert_eq!(port.limits().headers_max, headers, "{name}");
        }
    }
}

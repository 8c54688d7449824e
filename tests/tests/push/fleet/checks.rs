//! What must hold, all along and once it is calm.

use super::api::{NAMESPACE, key};
use super::chaos::{self, CONTESTED, ODD};
use super::controller::Controller;
use super::proxy::Proxy;
use super::simulation::Simulation;
use super::streams::StreamState;
use super::{BOUND, PROXIES, REMOVAL_BOUND, SECOND};
use lb_core::route::PathAlone;
use std::collections::BTreeMap;
use weir_proto::push::SetDigest;

/// Bytes that a confirmation of one pool may take, of Welcome and Synced together, and of a pool of which one set
/// changed: its configuration and the set.
const CONFIRMATION_BYTES_MAX: usize = 128;
const FRAME_BYTES_MAX: usize = 256;
const CHANGED_POOL_BYTES_MAX: usize = 8 << 10;

/// Time in which a proxy that dials again is in step.
const RESUMED: u64 = 5 * SECOND;

impl Simulation {
    /// One request at one proxy.
    pub(super) fn request(&mut self) {
        let index = self.random.index(PROXIES);
        let nth = self.random.index(self.api.pools.len());
        let (name, pool) = self.api.pools.iter().nth(nth).expect("below the length");
        let nth = self.random.index(pool.sets.len());
        let set = pool.sets.keys().nth(nth).expect("below the length");
        let (name, set) = (name.clone(), set.clone());
        self.ask(index, &name, &set);
    }

    /// One request at this proxy for this set of a pool.
    pub(super) fn ask(&mut self, index: usize, name: &str, set: &str) {
        let pool = &self.api.pools[name];
        let (port, host, service) = (pool.port, pool.host.clone(), pool.sets[set].clone());
        if self.time < self.proxies[index].frozen_until {
            return;
        }
        self.counts.requests += 1;
        self.check_core(index);
        self.check_gone(index);
        let seed = self.random.below(u64::MAX);
        let route = self.proxies[index].route(port, &host, set);
        let route = route.filter(|route| *route.pool == *key(name).to_string());
        let picked = route.as_ref().and_then(|route| self.proxies[index].pick(route, seed));
        let Some(works_since) = self.works_since(index) else { return };
        // A replica that begins while such a pool is refused knows nothing of it: proxies keep what they have.
        if ODD.contains(&name) {
            return;
        }
        if let Some(backend) = picked
            && let Some(removed) = self.api.removed_at.get(&backend)
        {
            let since = works_since.max(*removed);
            assert!(
                self.time <= since + BOUND,
                "proxy {index} sends a request of {name}/{set} to {backend}, which was removed at {removed}"
            );
        }
        let changed = self.api.pools[name].changed_at.max(self.api.services[&service].changed_at);
        let is_due = self.time > works_since.max(changed) + BOUND;
        if !is_due || name == CONTESTED {
            return;
        }
        self.counts.exact += 1;
        let route =
            route.unwrap_or_else(|| panic!("proxy {index} has no route to {name}/{set} since {changed}"));
        assert_eq!(
            Proxy::members(&route),
            self.api.members(&service),
            "proxy {index}: {name}/{set} since {changed}"
        );
    }

    /// Whether nobody is served by this set of a pool at this proxy.
    pub(super) fn is_empty(&self, index: usize, name: &str, set: &str) -> bool {
        let pool = &self.api.pools[name];
        let route = self.proxies[index].route(pool.port, &pool.host, set);
        route.is_none_or(|route| Proxy::members(&route).is_empty())
    }

    /// Nobody is served by a pool that was deleted.
    fn check_gone(&self, index: usize) {
        let Some(works_since) = self.works_since(index) else { return };
        let snapshot = self.proxies[index].current.load();
        for (name, gone_at) in &self.api.gone_at {
            let host = format!("{name}.example");
            let request = PathAlone::default();
            let mut ports = snapshot.listeners.values();
            let is_served = ports.any(|port| port.routes.find(&host, "/web", &request).is_some());
            let is_due = self.time > works_since.max(*gone_at) + REMOVAL_BOUND;
            assert!(!is_served || !is_due, "proxy {index} serves {name}, which was deleted at {gone_at}");
        }
    }

    /// The core set always has a ready backend: no proxy that had it is without.
    fn check_core(&mut self, index: usize) {
        let proxy = &mut self.proxies[index];
        let snapshot = proxy.current.load_full();
        let request = PathAlone::default();
        let ports = snapshot.listeners.values();
        let mut routes = ports.filter_map(|port| port.routes.find("core.example", "/web", &request));
        let has_backend = routes.any(|found| found.route.sets[0].set.members().eligible().len() > 0);
        assert!(has_backend || !proxy.has_core, "proxy {index} has emptied a set that never was empty");
        proxy.has_core = has_backend;
    }

    /// Those that are frozen too: they would believe it as soon as they run.
    pub(super) fn check_leaders(&self) {
        let now = self.now();
        let leaders: Vec<_> =
            self.controllers.iter().filter(|controller| controller.leads(now)).map(|c| &c.name).collect();
        assert!(leaders.len() <= 1, "{leaders:?} hold the Lease at once");
    }

    /// Everybody says and serves the same, which is what the API server has.
    pub(super) fn check_calm(&mut self) {
        self.check_leaders();
        let leaders = self.controllers.iter().filter(|controller| controller.leads(self.now()));
        assert_eq!(leaders.count(), 1, "nobody holds the Lease in calm");
        let names: Vec<String> = self.api.pools.keys().map(|name| key(name).to_string()).collect();
        for controller in &self.controllers {
            let stored: Vec<String> = controller.store.pools().keys().map(ToString::to_string).collect();
            assert_eq!(stored, names, "pools of {}", controller.name);
        }
        for index in 0..PROXIES {
            self.check_proxy(index, &names);
        }
        for (name, pool) in &self.api.pools {
            let summary = pool.status.as_ref().and_then(|status| status.summary.clone()).unwrap_or_default();
            let all = format!("{PROXIES}/{PROXIES}");
            assert_eq!(summary.proxies.as_deref(), Some(&*all), "status of {name}: {summary:?}");
        }
        if !self.mode.drops {
            self.counts.resends += self.controllers.iter().map(Controller::resends).sum::<u64>();
            assert_eq!(self.counts.resends, 0, "no message was lost, and some proxy was out of step");
        }
    }

    fn check_proxy(&self, index: usize, names: &[String]) {
        let proxy = &self.proxies[index];
        assert!(proxy.is_ready(), "proxy {index} is not ready");
        let stream = proxy.stream.and_then(|id| self.streams.get(&id));
        let stream = stream.unwrap_or_else(|| panic!("proxy {index} has no stream"));
        let StreamState::Open(conversation) = &stream.state else { panic!("proxy {index} waits") };
        assert_eq!(conversation.stuck_at(), None, "proxy {index}: something was never acknowledged");
        let replica = proxy.follower.replica();
        assert_eq!(replica.pools().collect::<Vec<_>>(), names, "pools of proxy {index}");
        for controller in &self.controllers {
            for (name, pool) in controller.store.pools() {
                let (version, digests) = replica.state(&name).expect("compared above");
                if controller.name == self.controllers[stream.controller].name {
                    assert_eq!(version, Some(pool.version), "proxy {index}, {name}");
                }
                let digest = |set: SetDigest| (set.set, set.digest);
                let held: BTreeMap<_, _> = digests.into_iter().map(digest).collect();
                let sets = pool.contents.sets.iter().map(|(set, content)| (set.clone(), content.digest));
                assert_eq!(held, sets.collect(), "proxy {index}, {name} of {}", controller.name);
                let in_force = replica.in_force(&name).map(|(_, digest)| digest);
                assert_eq!(in_force, Some(pool.contents.config_digest), "proxy {index}, {name}");
            }
        }
        for (name, pool) in &self.api.pools {
            for (set, service) in &pool.sets {
                let route = proxy.route(pool.port, &pool.host, set);
                let route = route.unwrap_or_else(|| panic!("proxy {index} has no route to {name}/{set}"));
                assert_eq!(*route.pool, format!("{NAMESPACE}/{name}"));
                assert_eq!(Proxy::members(&route), self.api.members(service), "proxy {index}: {name}/{set}");
            }
        }
    }

    /// A stream costs what is new, and confirmations of all else.
    pub(super) async fn check_resumption(&mut self) {
        let pools = self.api.pools.len();
        let nothing_new = FRAME_BYTES_MAX + pools * CONFIRMATION_BYTES_MAX;
        self.resume(0, nothing_new).await;
        let proxies = self.part();
        let changed = chaos::edit_once(self).len();
        self.run_to(self.time + SECOND).await;
        assert!(proxies.iter().all(|proxy| self.proxies[*proxy].stream.is_none()));
        self.resume(1, nothing_new + changed * CHANGED_POOL_BYTES_MAX).await;
        self.check_calm();
    }

    /// Every proxy loses its stream and does not dial. Gives their positions.
    fn part(&mut self) -> Vec<usize> {
        let streams: Vec<u64> = self.proxies.iter_mut().filter_map(|proxy| proxy.stream.take()).collect();
        streams.iter().for_each(|id| drop(self.streams.remove(id)));
        self.proxies.iter_mut().for_each(|proxy| proxy.follower.end_stream());
        (0..PROXIES).collect()
    }

    async fn resume(&mut self, round: u64, bytes_max: usize) {
        for index in self.part() {
            let life = self.proxies[index].life;
            self.dial(index, life);
        }
        self.run_to(self.time + RESUMED).await;
        for (index, proxy) in self.proxies.iter().enumerate() {
            let stream = proxy.stream.and_then(|id| self.streams.get(&id)).expect("it dialled");
            let bytes = stream.down.bytes_sent;
            assert!(proxy.follower.is_stream_synced(), "proxy {index} is not in step");
            assert!(
                bytes <= bytes_max,
                "round {round}: proxy {index} was sent {bytes} bytes, of {bytes_max}"
            );
        }
    }
}

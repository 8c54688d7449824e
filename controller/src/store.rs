//! The compiled pools in force, each with its version, and who has to hear of a change.
//!
//! A change costs what its pool costs: an equal pool is not touched, each subscriber gets one name into a set.
//! There is no queue. A subscriber that is slow finds the newest state when it looks, however often it changed
//! in between, so that it can hold no more than one name for each pool.

mod fleet;
mod knowledge;
mod loss;
mod pool;

pub use fleet::{
    Applied, BackendName, CHANGES_REMEMBERED_MAX, Fleet, FleetCounts, FleetObserver, HEALTH_NAME_BYTES_MAX,
    HEALTH_REASON_BYTES_MAX, LACKS_MAX, Lack, Lane, OfLane, PROPAGATION_BOUNDS_S, PROXIES_LISTED_MAX,
    PoolSummary, ProxyPage, ProxyRow, RECENT_MAX, REFUSALS_MAX, REPLICAS_MAX, Reach, Refusal, Took,
    Unhealthy, UnhealthyBackends,
};
pub use knowledge::{Completeness, Knowledge};
pub use pool::{Contents, Pool};

use crate::compile::{ObjectKey, World};
use crate::keys::Ring;
use crate::shares::Desk;
pub(crate) use fleet::{FleetRecord, Peer, RemoteId, Resend, StreamId, reason_within_limit};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;
use tokio::sync::{Notify, watch};
use weir_proto::push::Version;

/// All pools in force.
#[derive(Debug)]
pub struct Store {
    epoch: u64,
    state: Mutex<State>,
    /// `None` before the first [`Store::apply`].
    loaded: watch::Sender<Option<Loaded>>,
    ring: watch::Sender<Option<Arc<Ring>>>,
    fleet: FleetRecord,
    desk: Arc<Desk>,
}

#[derive(Debug)]
struct Loaded {
    at: Instant,
    knowledge: Knowledge,
}

#[derive(Debug, Default)]
struct State {
    /// Of the last change, even. One counter for all pools, so that a pool that comes back is newer than it was and
    /// nothing needs to be kept of those that are gone.
    sequence: u64,
    pools: BTreeMap<Arc<str>, Arc<Pool>>,
    subscribers: BTreeMap<u64, Arc<Mailbox>>,
    subscribed: u64,
}

#[derive(Debug, Default)]
struct Mailbox {
    changed: Mutex<BTreeSet<Arc<str>>>,
    notify: Notify,
}

/// How many pools an [`Store::apply`] touched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// New pools and pools that differ from before.
    pub changed: usize,
    /// Pools that are gone.
    pub removed: usize,
}

/// An epoch for a controller process: two processes draw the same one once in 2^64.
#[must_use]
pub fn random_epoch() -> u64 {
    // The standard library seeds each process's hash keys from the system's random source.
    std::collections::hash_map::RandomState::new().build_hasher().finish().max(1)
}

fn knowledge(world: &World, completeness: Completeness) -> Knowledge {
    let lacking = world.lacking().map(ToString::to_string);
    Knowledge::new(completeness, lacking).while_open(world.open().map(ToString::to_string))
}

impl Store {
    /// An empty store. Streams wait for the first [`Self::apply`]: nothing is sent before it, since "no pools yet"
    /// would tell every proxy to forget what it serves.
    #[must_use]
    pub fn new(epoch: u64) -> Arc<Self> {
        Arc::new(Self {
            epoch,
            state: Mutex::default(),
            loaded: watch::Sender::new(None),
            ring: watch::Sender::new(None),
            fleet: FleetRecord::default(),
            desk: Arc::default(),
        })
    }

    /// Of this process's versions.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Makes everything that `world` serves the state in force: new and changed pools get the next sequence, equal
    /// ones are not touched, all others are removed.
    ///
    /// `seen` is when the oldest event was seen that is new in `world`: by tokio's clock, like all times here. What a change
    /// takes to the proxies counts from there.
    ///
    /// Compares one digest for each set; copies and sends only what differs.
    pub fn apply(&self, world: &World, completeness: Completeness, seen: Instant) -> Outcome {
        let serving = world.all_serving().map(|(key, pool)| (key.to_string(), pool.into()));
        self.replace(serving, knowledge(world, completeness), seen)
    }

    /// The same for these pools alone, after [`World::refresh`]. Costs what they cost, whatever the size
    /// of the world. Without effect before the first [`Self::apply`].
    pub fn apply_pools<'a>(
        &self,
        world: &World,
        pools: impl IntoIterator<Item = &'a ObjectKey>,
        seen: Instant,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        if self.loaded.borrow().is_none() {
            return outcome;
        }
        let mut state = self.state();
        for key in pools {
            let name = key.to_string();
            let Some(pool) = world.serving(key) else {
                if state.remove(&name) {
                    self.fleet.forget_pool(&name);
                    outcome.removed += 1;
                }
                continue;
            };
            if self.put(&mut state, &name, pool.into(), seen) {
                outcome.changed += 1;
            }
        }
        outcome
    }

    /// The same after [`World::update`], with what is known now.
    pub fn apply_update<'a>(
        &self,
        world: &World,
        pools: impl IntoIterator<Item = &'a ObjectKey>,
        completeness: Completeness,
        seen: Instant,
    ) -> Outcome {
        if self.loaded.borrow().is_none() {
            return Outcome::default();
        }
        let outcome = self.apply_pools(world, pools, seen);
        self.know(knowledge(world, completeness));
        outcome
    }

    /// What [`Self::apply`] does, for pools from anywhere, by their `namespace/name`. What is new is seen with this call.
    pub fn replace_all(
        &self,
        pools: impl IntoIterator<Item = (String, Contents)>,
        completeness: Completeness,
    ) -> Outcome {
        self.replace(pools, Knowledge::new(completeness, []), now())
    }

    fn replace(
        &self,
        pools: impl IntoIterator<Item = (String, Contents)>,
        knowledge: Knowledge,
        seen: Instant,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        let mut state = self.state();
        let mut serving = BTreeSet::new();
        for (name, contents) in pools {
            if self.put(&mut state, &name, contents, seen) {
                outcome.changed += 1;
            }
            serving.insert(name);
        }
        let gone: Vec<Arc<str>> =
            state.pools.keys().filter(|name| !serving.contains(&***name)).cloned().collect();
        for name in gone {
            state.remove(&name);
            self.fleet.forget_pool(&name);
            outcome.removed += 1;
        }
        drop(state);
        self.know(knowledge);
        outcome
    }

    fn know(&self, knowledge: Knowledge) {
        let is_news = self.loaded.send_if_modified(|loaded| match loaded {
            Some(loaded) if loaded.knowledge == knowledge => false,
            Some(loaded) => {
                loaded.knowledge = knowledge;
                true
            }
            None => {
                *loaded = Some(Loaded { at: now(), knowledge });
                true
            }
        });
        if !is_news {
            return;
        }
        // What streams left alone may have to go now.
        let subscribers: Vec<_> = self.state().subscribers.values().cloned().collect();
        subscribers.iter().for_each(|mailbox| mailbox.notify.notify_one());
    }

    /// The pool's newest version.
    #[must_use]
    pub fn pool(&self, name: &str) -> Option<Arc<Pool>> {
        self.state().pools.get(name).cloned()
    }

    /// All pools at their newest versions, by name.
    #[must_use]
    pub fn pools(&self) -> BTreeMap<Arc<str>, Arc<Pool>> {
        self.state().pools.clone()
    }

    /// Returns when the first world has been applied, with the moment of that; at once ever after. Cancellation safe.
    pub async fn loaded(&self) -> Instant {
        let mut loaded = self.loaded.subscribe();
        let loaded = loaded.wait_for(Option::is_some).await.expect("the sender lives in `self`");
        loaded.as_ref().expect("it was waited for").at
    }

    /// From now on proxies share these keys.
    pub fn use_ring(&self, ring: Arc<Ring>) {
        self.ring.send_replace(Some(ring));
    }

    /// The keys that proxies share; `None` while each has its own.
    #[must_use]
    pub fn ring(&self) -> watch::Receiver<Option<Arc<Ring>>> {
        self.ring.subscribe()
    }

    /// How much is known since the last [`Self::apply`].
    #[must_use]
    pub fn knowledge(&self) -> Knowledge {
        self.loaded.borrow().as_ref().map_or_else(Knowledge::part, |loaded| loaded.knowledge.clone())
    }

    /// How many pools there are.
    #[must_use]
    pub fn pool_count(&self) -> usize {
        self.state().pools.len()
    }

    /// How many proxies have a stream to this process.
    #[must_use]
    pub fn proxy_count(&self) -> usize {
        self.fleet.stream_count()
    }

    /// What the proxies of this process reported, one by one.
    #[must_use]
    pub fn fleet(&self) -> Fleet {
        self.fleet.view()
    }

    /// What is known of the proxies of this process, those after a name; lets others run in between.
    pub async fn proxies(&self, after: Option<&str>) -> ProxyPage {
        self.fleet.page(after, now()).await
    }

    /// What the proxies make of one pool; costs what they are.
    #[must_use]
    pub fn summary(&self, pool: &str, reach: Reach) -> PoolSummary {
        self.fleet.summary(pool, reach, now())
    }

    /// From now on, the names of all pools whose [`Self::summary`] changes, beginning with all that are there.
    #[must_use]
    pub fn observe_fleet(&self, reach: Reach) -> FleetObserver {
        self.fleet.observe(reach)
    }

    /// What the proxies did since the process began.
    #[must_use]
    pub fn fleet_counts(&self) -> FleetCounts {
        self.fleet.counts()
    }

    /// Backends of all pools that take no requests at some proxy with a stream to this process; of each pool those that
    /// are named.
    #[must_use]
    pub fn unhealthy_count(&self) -> usize {
        self.fleet.unhealthy_count()
    }

    /// The times from when a change was seen until a proxy acknowledged it, for a registry.
    #[must_use]
    pub fn propagation(&self) -> Family<OfLane, Histogram> {
        self.fleet.propagation().family()
    }

    /// Where proxies get their shares of limits.
    #[must_use]
    pub fn desk(&self) -> &Arc<Desk> {
        &self.desk
    }

    pub(crate) fn fleet_record(&self) -> &FleetRecord {
        &self.fleet
    }

    /// From now on, the names of all pools that change, beginning with all that are there.
    pub(crate) fn subscribe(self: &Arc<Self>) -> Subscription {
        let mut state = self.state();
        state.subscribed += 1;
        let id = state.subscribed;
        let mailbox = Arc::new(Mailbox::default());
        mailbox.changed().extend(state.pools.keys().cloned());
        mailbox.notify.notify_one();
        state.subscribers.insert(id, Arc::clone(&mailbox));
        Subscription { id, store: Arc::clone(self), mailbox }
    }

    /// False when it is equal to what is there.
    fn put(&self, state: &mut State, name: &str, contents: Contents, seen: Instant) -> bool {
        let is_first = self.loaded.borrow().is_none();
        let empty = if is_first { contents.empty_sets() } else { BTreeSet::new() };
        let Some(pool) = state.put(self.epoch, name, contents, empty, seen) else { return false };
        self.fleet.made(&pool);
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics between two writes that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// By tokio's clock, so that a test's paused time holds here too.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl State {
    /// `None` when it is equal to what is there.
    /// `empty` are the sets that a pool which is new has had empty from the start.
    fn put(
        &mut self,
        epoch: u64,
        name: &str,
        mut contents: Contents,
        empty: BTreeSet<String>,
        seen: Instant,
    ) -> Option<Arc<Pool>> {
        let known = self.pools.get_key_value(name);
        let sequence = self.sequence + 2;
        let (mut takes_away, mut empty_from_start) = (sequence, empty);
        if let Some((_, before)) = known {
            if before.contents.is_equal(&contents) {
                return None;
            }
            contents.reuse(&before.contents);
            if !loss::takes_away(&before.contents, &contents) {
                takes_away = before.takes_away;
            }
            let is_empty = |set: &&String| contents.sets.get(*set).is_some_and(|set| set.backends.is_empty());
            empty_from_start = before.empty_from_start.iter().filter(is_empty).cloned().collect();
        }
        let name = known.map_or_else(|| Arc::from(name), |(name, _)| Arc::clone(name));
        self.sequence = sequence;
        let version = Version { epoch, sequence };
        let pool = Arc::new(Pool {
            name: Arc::clone(&name),
            version,
            takes_away,
            empty_from_start,
            contents,
            seen,
            whole: OnceLock::new(),
        });
        self.pools.insert(Arc::clone(&name), Arc::clone(&pool));
        self.announce(&name);
        Some(pool)
    }

    fn remove(&mut self, name: &str) -> bool {
        let Some((name, _)) = self.pools.remove_entry(name) else { return false };
        self.announce(&name);
        true
    }

    fn announce(&self, name: &Arc<str>) {
        for mailbox in self.subscribers.values() {
            mailbox.changed().insert(Arc::clone(name));
            mailbox.notify.notify_one();
        }
    }
}

impl Mailbox {
    fn changed(&self) -> MutexGuard<'_, BTreeSet<Arc<str>>> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One stream's interest in all pools. Ends when dropped.
#[derive(Debug)]
pub(crate) struct Subscription {
    id: u64,
    store: Arc<Store>,
    mailbox: Arc<Mailbox>,
}

impl Subscription {
    /// Returns when something changed since the last [`Self::take`]; may return without. Cancellation safe.
    pub(crate) async fn changed(&self) {
        self.mailbox.notify.notified().await;
    }

    /// The pools that changed since the last call, as they are now; `None` for a pool that is gone.
    pub(crate) fn take(&self) -> Vec<(Arc<str>, Option<Arc<Pool>>)> {
        // The same order of locks as in `announce`.
        let state = self.store.state();
        let names = std::mem::take(&mut *self.mailbox.changed());
        names
            .into_iter()
            .map(|name| {
                let pool = state.pools.get(&name).cloned();
                (name, pool)
            })
            .collect()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.store.state().subscribers.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::{BackendSetContent, DataPlane};
    use weir_proto::push::Backend;

    fn contents(config_digest: u64, backends: &[&str]) -> Contents {
        let backend = |id: &&str| Backend { id: (*id).into(), ..Backend::default() };
        let set = |ids: &[&str]| Arc::new(BackendSetContent::new(ids.iter().map(backend).collect()));
        let sets = [("moves".to_owned(), set(backends)), ("stays".to_owned(), set(&["s"]))];
        Contents { config_digest, sets: sets.into(), ..Contents::default() }
    }

    fn put(store: &Store, pools: &[(&str, Contents)]) -> Outcome {
        let pools = pools.iter().map(|(name, contents)| ((*name).to_owned(), contents.clone()));
        store.replace_all(pools, Completeness::All)
    }

    #[test]
    fn an_equal_pool_is_not_touched_and_a_changed_one_shares_what_is_equal() {
        let store = Store::new(1);
        put(&store, &[("ns/a", contents(1, &["x"])), ("ns/b", contents(1, &["x"]))]);
        let (a, b) = (store.pool("ns/a").expect("a"), store.pool("ns/b").expect("b"));
        let outcome = put(&store, &[("ns/a", contents(1, &["x", "y"])), ("ns/b", contents(1, &["x"]))]);
        assert_eq!(outcome, Outcome { changed: 1, removed: 0 });
        assert!(Arc::ptr_eq(&b, &store.pool("ns/b").expect("b")));
        let newer = store.pool("ns/a").expect("a");
        assert!(newer.version.sequence > b.version.sequence && newer.version.sequence.is_multiple_of(2));
        assert!(Arc::ptr_eq(&a.contents.config, &newer.contents.config));
        assert!(Arc::ptr_eq(&a.contents.sets["stays"], &newer.contents.sets["stays"]));
        assert!(!Arc::ptr_eq(&a.contents.sets["moves"], &newer.contents.sets["moves"]));
    }

    #[test]
    fn a_pool_that_other_proxies_serve_now_has_a_new_version_and_the_same_configuration() {
        let store = Store::new(1);
        put(&store, &[("ns/a", contents(1, &["x"]))]);
        let before = store.pool("ns/a").expect("a");
        let data_plane = Arc::new(DataPlane { class: "edge".to_owned(), ..DataPlane::default() });
        let moved = Contents { data_plane, ..contents(1, &["x"]) };
        assert_eq!(put(&store, &[("ns/a", moved.clone())]), Outcome { changed: 1, removed: 0 });
        let after = store.pool("ns/a").expect("a");
        assert!(after.version.sequence > before.version.sequence);
        assert_eq!(after.contents.data_plane.class, "edge");
        assert!(Arc::ptr_eq(&after.contents.config, &before.contents.config));
        let again = Contents { data_plane: Arc::new((*moved.data_plane).clone()), ..moved };
        assert_eq!(put(&store, &[("ns/a", again)]), Outcome::default(), "equal");
    }

    #[test]
    fn a_pool_that_comes_back_is_newer_than_it_was() {
        let store = Store::new(1);
        put(&store, &[("ns/a", contents(1, &[]))]);
        let before = store.pool("ns/a").expect("a").version.sequence;
        assert_eq!(put(&store, &[]), Outcome { changed: 0, removed: 1 });
        put(&store, &[("ns/a", contents(1, &[]))]);
        assert!(store.pool("ns/a").expect("a").version.sequence > before);
    }

    #[test]
    fn a_slow_subscriber_finds_one_pending_state_for_each_pool() {
        let store = Store::new(1);
        put(&store, &[("ns/a", contents(1, &[])), ("ns/b", contents(1, &[]))]);
        let subscription = store.subscribe();
        assert_eq!(subscription.take().len(), 2, "all that is there");
        for digest in 2..50 {
            put(&store, &[("ns/a", contents(digest, &[])), ("ns/b", contents(1, &[]))]);
        }
        put(&store, &[("ns/a", contents(99, &[]))]);
        let changes = subscription.take();
        let newest: Vec<_> = changes
            .iter()
            .map(|(name, pool)| (&**name, pool.as_ref().map(|p| p.contents.config_digest)))
            .collect();
        assert_eq!(newest, [("ns/a", Some(99)), ("ns/b", None)]);
        assert!(subscription.take().is_empty());
        drop(subscription);
        assert!(store.state().subscribers.is_empty());
    }

    #[test]
    fn single_pools_are_applied_after_the_first_world_only() {
        let (store, world) = (Store::new(1), World::default());
        let key = ObjectKey::new("ns", "a");
        assert_eq!(store.apply_pools(&world, [&key], now()), Outcome::default());
        assert!(store.loaded.borrow().is_none());
        put(&store, &[("ns/a", contents(1, &[])), ("ns/b", contents(1, &[]))]);
        assert_eq!(store.apply_pools(&world, [&key], now()), Outcome { changed: 0, removed: 1 });
        assert!(store.pool("ns/b").is_some(), "others are not looked at");
    }
}

//! What the proxies say of the pools: the version that each applied, what it refused and why, and which backends take no
//! requests there.
//!
//! The store says what is expected, the streams say of whom and what came back; status, metrics and the other
//! replicas read it. Time is passed in. Bounded by pools times connected proxies: a proxy's entries go when its
//! stream ends, a pool's when it is gone, and a word about anything else is nobody's.

mod health;
mod observer;
mod summary;

pub(crate) use health::reason_within_limit;
pub use health::{BackendName, HEALTH_NAME_BYTES_MAX, HEALTH_REASON_BYTES_MAX, Unhealthy, UnhealthyBackends};
pub use observer::{FleetObserver, Reach};
pub use summary::{PoolSummary, REFUSALS_MAX, Refusal};

use super::Pool;
use health::Found;
use observer::Mailboxes;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use weir_proto::limits::POOLS_MAX;
use weir_proto::push::{BackendHealth, Version};

/// Changes of one pool whose times are remembered until every proxy has acknowledged them. Of more, the newest count
/// as made when the last remembered one was, so that a lag is never understated.
pub const CHANGES_REMEMBERED_MAX: usize = 16;

/// Replicas that tell this one of their proxies. One past it is refused.
pub const REPLICAS_MAX: usize = 32;

/// What all proxies of this process reported, at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fleet {
    /// Ids of the proxies with a stream, sorted; one that dials again before its old stream ended is in it twice.
    pub proxies: Vec<Arc<str>>,
    /// Pool to proxy id to report; a proxy is in it from when the pool is expected of it.
    pub pools: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Applied>>,
}

/// What one proxy said of one pool.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Applied {
    /// All messages up to this version are applied.
    pub version: Option<Version>,
    /// Of the configuration in force. The proxy is current when both this and the version are the store's.
    pub config_digest: u64,
    /// What it refused since.
    pub refusal: Option<Refusal>,
    /// Times that the proxy was out of step on this stream and was sent the whole pool.
    pub resent: u64,
}

/// What happened since the process began; only grows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FleetCounts {
    /// Versions acknowledged.
    pub acks: u64,
    /// Versions refused.
    pub nacks: u64,
    /// Pools sent again whole, since a proxy was out of step.
    pub resends: u64,
    /// Pools that were too large to be sent.
    pub too_large: u64,
}

/// One stream of another replica's reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RemoteId(u64);

/// Identifies one stream within the process; a later one is larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StreamId(u64);

#[derive(Debug, Default)]
pub(crate) struct FleetRecord {
    state: Mutex<State>,
    mailboxes: Mailboxes,
}

#[derive(Debug, Default)]
struct State {
    begun: u64,
    /// By stream and not by proxy, so that the end of an old stream takes nothing from the one that follows it.
    streams: BTreeMap<StreamId, Arc<str>>,
    pools: BTreeMap<Arc<str>, Expected>,
    /// Never two of one replica, and never more than [`REPLICAS_MAX`].
    remote: BTreeMap<RemoteId, Remote>,
    counts: FleetCounts,
}

/// Another replica.
#[derive(Debug)]
struct Remote {
    name: Arc<str>,
    /// What it said of each pool, and when.
    told: BTreeMap<Arc<str>, (PoolSummary, Instant)>,
}

/// One pool at its newest version, and how far each stream is.
#[derive(Debug)]
struct Expected {
    version: Version,
    made_at: Instant,
    config_digest: u64,
    /// Sequence and time of the version that brought this configuration.
    config_since: (u64, Instant),
    /// Sequences, and times at or before that of their making; the first is not acknowledged by all.
    changes: VecDeque<(u64, Instant)>,
    streams: BTreeMap<StreamId, Standing>,
    /// What all of them found of backends; `None` where that changed and was not asked for since.
    unhealthy: Option<UnhealthyBackends>,
}

/// One stream that the pool is expected of.
#[derive(Debug)]
struct Standing {
    proxy: Arc<str>,
    /// A proxy that comes late is not behind for longer than it is there.
    since: Instant,
    applied: Applied,
    /// From the making of the newest version, or from `since`, until the stream was current.
    took: Option<Duration>,
    /// Of the newest version's encoding, where it cannot be sent.
    too_large_bytes: Option<u64>,
    found: Found,
}

impl FleetRecord {
    pub(crate) fn begin(&self, proxy: Arc<str>) -> StreamId {
        let mut state = self.state();
        state.begun += 1;
        let id = StreamId(state.begun);
        state.streams.insert(id, proxy);
        self.mailboxes.wake();
        id
    }

    pub(crate) fn end(&self, stream: StreamId) {
        let mut state = self.state();
        state.streams.remove(&stream);
        for (name, pool) in &mut state.pools {
            if pool.leave(stream) {
                self.mailboxes.announce(name, Reach::Own);
            }
        }
    }

    /// The pool is now at this version: nobody has it yet. What it lacks then, a proxy lacks since it was seen.
    pub(crate) fn made(&self, pool: &Pool) {
        let Pool { name, version, contents, seen } = pool;
        let mut state = self.state();
        match state.pools.get_mut(name) {
            Some(expected) => expected.advance(*version, contents.config_digest, *seen),
            None => {
                let expected = Expected::new(*version, contents.config_digest, *seen);
                state.pools.insert(Arc::clone(name), expected);
            }
        }
        self.mailboxes.announce(name, Reach::Own);
    }

    /// There is no such pool any more; what streams still say of it is not recorded.
    pub(crate) fn forget_pool(&self, pool: &str) {
        if let Some((name, _)) = self.state().pools.remove_entry(pool) {
            self.mailboxes.announce(&name, Reach::Own);
        }
    }

    /// The stream is to serve the pool; without effect where that is known, or where the pool is gone already.
    pub(crate) fn expect(&self, stream: StreamId, pool: &Arc<str>, now: Instant) {
        let mut state = self.state();
        let State { streams, pools, .. } = &mut *state;
        let (Some(proxy), Some(expected)) = (streams.get(&stream), pools.get_mut(pool)) else { return };
        expected.join(stream, proxy, now);
        self.mailboxes.announce(pool, Reach::Own);
    }

    /// The stream is not to serve the pool any more.
    pub(crate) fn release(&self, stream: StreamId, pool: &Arc<str>) {
        self.update(stream, pool, |expected, _| {
            expected.leave(stream);
        });
    }

    /// Everything up to `version` is applied, and `config_digest` is in force. That heals a refusal when it is the
    /// configuration expected, and not when only backends moved.
    pub(crate) fn acked(
        &self,
        stream: StreamId,
        pool: &Arc<str>,
        version: Version,
        config_digest: u64,
        now: Instant,
    ) {
        self.update(stream, pool, |expected, counts| {
            counts.acks += 1;
            expected.acked(stream, version, config_digest, now);
        });
    }

    /// The proxy was out of step and gets the whole pool.
    pub(crate) fn resent(&self, stream: StreamId, pool: &Arc<str>) {
        self.update(stream, pool, |expected, counts| {
            counts.resends += 1;
            if let Some(standing) = expected.streams.get_mut(&stream) {
                standing.applied.resent += 1;
            }
        });
    }

    pub(crate) fn refused(&self, stream: StreamId, pool: &Arc<str>, refusal: Refusal) {
        self.update(stream, pool, |expected, counts| {
            counts.nacks += 1;
            if let Some(standing) = expected.streams.get_mut(&stream) {
                standing.applied.refusal = Some(refusal);
            }
        });
    }

    /// The newest version cannot be sent to this stream.
    pub(crate) fn too_large(&self, stream: StreamId, pool: &Arc<str>, bytes: usize) {
        self.update(stream, pool, |expected, counts| {
            counts.too_large += 1;
            if let Some(standing) = expected.streams.get_mut(&stream) {
                standing.too_large_bytes = u64::try_from(bytes).ok();
            }
        });
    }

    /// Whether a backend takes requests at the stream's proxy; counts until the stream ends or is not to serve the pool.
    pub(crate) fn found(&self, stream: StreamId, health: &BackendHealth) {
        self.update(stream, &health.pool.as_str().into(), |expected, _| {
            if let Some(standing) = expected.streams.get_mut(&stream) {
                standing.found.hear(health);
                expected.unhealthy = None;
            }
        });
    }

    /// A replica begins to tell of its proxies. What an earlier stream of it said is forgotten: everything is said again
    /// on this one. `None` where [`REPLICAS_MAX`] others do.
    pub(crate) fn begin_remote(&self, name: &Arc<str>) -> Option<RemoteId> {
        let mut state = self.state();
        let earlier = state.remote.iter().find(|(_, remote)| remote.name == *name).map(|(id, _)| *id);
        if let Some(earlier) = earlier {
            self.forget_remote(&mut state, earlier);
        }
        if state.remote.len() >= REPLICAS_MAX {
            return None;
        }
        state.begun += 1;
        let id = RemoteId(state.begun);
        state.remote.insert(id, Remote { name: Arc::clone(name), told: BTreeMap::new() });
        Some(id)
    }

    /// What that replica's proxies make of a pool. It names [`POOLS_MAX`] pools at most. False when a later stream of the
    /// same replica has taken this one's place.
    pub(crate) fn set_remote(
        &self,
        id: RemoteId,
        pool: &Arc<str>,
        summary: PoolSummary,
        now: Instant,
    ) -> bool {
        let mut state = self.state();
        let Some(Remote { told, .. }) = state.remote.get_mut(&id) else { return false };
        if summary.proxies == 0 {
            told.remove(pool);
        } else if told.len() < POOLS_MAX || told.contains_key(pool) {
            told.insert(Arc::clone(pool), (summary, now));
        }
        self.mailboxes.announce(pool, Reach::All);
        true
    }

    /// Without effect where a later stream has taken its place.
    pub(crate) fn end_remote(&self, id: RemoteId) {
        self.forget_remote(&mut self.state(), id);
    }

    fn forget_remote(&self, state: &mut State, id: RemoteId) {
        for pool in state.remote.remove(&id).into_iter().flat_map(|remote| remote.told.into_keys()) {
            self.mailboxes.announce(&pool, Reach::All);
        }
    }

    /// Of this process's proxies, or of all replicas'.
    pub(crate) fn summary(&self, pool: &str, reach: Reach, now: Instant) -> PoolSummary {
        let mut state = self.state();
        let mut summary = state.pools.get_mut(pool).map(|expected| expected.summary(now)).unwrap_or_default();
        if reach == Reach::All {
            let told = state.remote.values().filter_map(|remote| remote.told.get(pool));
            told.for_each(|(remote, at)| summary.merge(&remote.aged(now.saturating_duration_since(*at))));
        }
        summary
    }

    pub(crate) fn view(&self) -> Fleet {
        let state = self.state();
        let mut fleet = Fleet { proxies: state.streams.values().cloned().collect(), ..Fleet::default() };
        for (name, expected) in state.pools.iter().filter(|(_, expected)| !expected.streams.is_empty()) {
            let proxies = expected.streams.values();
            let applied = proxies.map(|standing| (Arc::clone(&standing.proxy), standing.applied.clone()));
            fleet.pools.insert(Arc::clone(name), applied.collect());
        }
        fleet.proxies.sort();
        fleet
    }

    /// Backends of all pools that take no requests at some proxy of this process, of each pool those that are named.
    pub(crate) fn unhealthy_count(&self) -> usize {
        self.state().pools.values_mut().map(|expected| expected.unhealthy().len()).sum()
    }

    pub(crate) fn counts(&self) -> FleetCounts {
        self.state().counts
    }

    /// Beginning with all pools that are there.
    pub(crate) fn observe(&self, reach: Reach) -> FleetObserver {
        let state = self.state();
        let remote = state.remote.values().filter(|_| reach == Reach::All);
        let names = state.pools.keys().chain(remote.flat_map(|remote| remote.told.keys()));
        self.mailboxes.add(reach, names.cloned())
    }

    /// Only of what is expected: a word that comes after its pool is gone brings nothing back.
    fn update(
        &self,
        stream: StreamId,
        pool: &Arc<str>,
        change: impl FnOnce(&mut Expected, &mut FleetCounts),
    ) {
        let mut state = self.state();
        let State { pools, counts, .. } = &mut *state;
        let Some(expected) = pools.get_mut(pool).filter(|expected| expected.streams.contains_key(&stream))
        else {
            return;
        };
        change(expected, counts);
        self.mailboxes.announce(pool, Reach::Own);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Expected {
    fn new(version: Version, config_digest: u64, now: Instant) -> Self {
        Self {
            version,
            made_at: now,
            config_digest,
            config_since: (version.sequence, now),
            changes: [(version.sequence, now)].into(),
            streams: BTreeMap::new(),
            unhealthy: None,
        }
    }

    fn join(&mut self, stream: StreamId, proxy: &Arc<str>, now: Instant) {
        self.streams.entry(stream).or_insert_with(|| Standing {
            proxy: Arc::clone(proxy),
            since: now,
            applied: Applied::default(),
            took: None,
            too_large_bytes: None,
            found: Found::default(),
        });
        // It takes the place of an earlier stream of the same proxy.
        self.unhealthy = None;
    }

    /// False where the pool was not expected of it.
    fn leave(&mut self, stream: StreamId) -> bool {
        self.unhealthy = None;
        self.streams.remove(&stream).is_some()
    }

    fn advance(&mut self, version: Version, config_digest: u64, now: Instant) {
        let slowest = self.streams.values().map(Standing::sequence).min().unwrap_or(version.sequence);
        while self.changes.front().is_some_and(|&(sequence, _)| sequence <= slowest) {
            self.changes.pop_front();
        }
        let is_full = self.changes.len() >= CHANGES_REMEMBERED_MAX;
        match self.changes.back_mut().filter(|_| is_full) {
            Some((sequence, _)) => *sequence = version.sequence,
            None => self.changes.push_back((version.sequence, now)),
        }
        if self.config_digest != config_digest {
            self.config_digest = config_digest;
            self.config_since = (version.sequence, now);
        }
        (self.version, self.made_at) = (version, now);
        for standing in self.streams.values_mut() {
            standing.too_large_bytes = None;
            standing.took = None;
        }
    }

    fn acked(&mut self, stream: StreamId, version: Version, config_digest: u64, now: Instant) {
        let Some(standing) = self.streams.get_mut(&stream) else { return };
        standing.applied.version = Some(version);
        standing.applied.config_digest = config_digest;
        if config_digest == self.config_digest {
            standing.applied.refusal = None;
        }
        if version.sequence >= self.version.sequence {
            standing.too_large_bytes = None;
        }
        if self.streams.get(&stream).is_some_and(|standing| self.is_current(standing))
            && let Some(standing) = self.streams.get_mut(&stream)
        {
            let begun = self.made_at.max(standing.since);
            standing.took = standing.took.or(Some(now.saturating_duration_since(begun)));
        }
    }

    fn summary(&mut self, now: Instant) -> PoolSummary {
        let unhealthy = self.unhealthy();
        let proxies = self.proxies();
        let (current, behind): (Vec<&Standing>, Vec<&Standing>) =
            proxies.values().copied().partition(|standing| self.is_current(standing));
        let refused = proxies.iter().filter_map(|(proxy, standing)| {
            self.refusal(standing).map(|refusal| (Arc::clone(proxy), refusal.clone()))
        });
        let waited = behind.iter().map(|standing| self.waits_since(standing));
        let age = waited.map(|since| now.saturating_duration_since(since)).max();
        PoolSummary {
            proxies: count(proxies.len()),
            current: count(current.len()),
            oldest_lag: age.or_else(|| current.iter().filter_map(|standing| standing.took).max()),
            refused: count(refused.clone().count()),
            refusals: refused.take(REFUSALS_MAX).collect(),
            too_large_bytes: proxies.values().filter_map(|standing| standing.too_large_bytes).max(),
            config_digest: self.config_digest,
            unhealthy,
        }
    }

    /// A proxy that dialled again counts once, by its newest stream: streams are in the order of their age.
    fn proxies(&self) -> BTreeMap<&Arc<str>, &Standing> {
        self.streams.values().map(|standing| (&standing.proxy, standing)).collect()
    }

    fn unhealthy(&mut self) -> UnhealthyBackends {
        if let Some(unhealthy) = &self.unhealthy {
            return Arc::clone(unhealthy);
        }
        let unhealthy = health::of_all(self.proxies().values().map(|standing| &standing.found));
        self.unhealthy = Some(Arc::clone(&unhealthy));
        unhealthy
    }

    fn is_current(&self, standing: &Standing) -> bool {
        standing.sequence() >= self.version.sequence
            && standing.applied.config_digest == self.config_digest
            && self.refusal(standing).is_none()
    }

    /// A refusal of the configuration expected; one of a configuration before is history.
    fn refusal<'a>(&self, standing: &'a Standing) -> Option<&'a Refusal> {
        let refusal = standing.applied.refusal.as_ref()?;
        let is_history = refusal.version.is_some_and(|version| version.sequence < self.config_since.0);
        (!is_history).then_some(refusal)
    }

    /// When the oldest change was made that this stream has not acknowledged.
    fn waits_since(&self, standing: &Standing) -> Instant {
        // What was seen first is not always made first: a pool may have waited for a Secret.
        let lacking = self.changes.iter().filter(|&&(sequence, _)| sequence > standing.sequence());
        let mut since = lacking.map(|&(_, at)| at).min().unwrap_or(self.made_at);
        if standing.applied.config_digest != self.config_digest {
            since = since.min(self.config_since.1);
        }
        since.max(standing.since)
    }
}

impl Standing {
    /// Of the newest version acknowledged; 0 is before all.
    fn sequence(&self) -> u64 {
        self.applied.version.map_or(0, |version| version.sequence)
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;

//! What the proxies say of the pools: the version that each applied, what it refused and why, and which backends take no
//! requests there.
//!
//! The store says what is expected, the streams say of whom and what came back; status, metrics and the other
//! replicas read it. Time is passed in. Bounded by pools times connected proxies: a proxy's entries go when its
//! stream ends, a pool's when it is gone, and a word about anything else is nobody's.

mod expected;
mod health;
mod observer;
mod propagation;
mod rows;
mod summary;

pub(crate) use health::reason_within_limit;
pub use health::{BackendName, HEALTH_NAME_BYTES_MAX, HEALTH_REASON_BYTES_MAX, Unhealthy, UnhealthyBackends};
pub use observer::{FleetObserver, Reach};
pub(crate) use propagation::Propagation;
pub use propagation::{Lane, OfLane, PROPAGATION_BOUNDS_S, RECENT_MAX, Took};
pub use rows::{LACKS_MAX, Lack, PROXIES_LISTED_MAX, ProxyPage, ProxyRow};
pub use summary::{PoolSummary, REFUSALS_MAX, Refusal};

use super::Pool;
use expected::Expected;
use observer::Mailboxes;
use propagation::Recent;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
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
    pub refusal: Option<Box<Refusal>>,
}

/// What happened since the process began; only grows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FleetCounts {
    /// Versions acknowledged.
    pub acks: u64,
    /// Versions refused.
    pub nacks: u64,
    /// Pools sent again whole, since a proxy asked for it.
    pub snapshot_requests: u64,
    /// Pools sent again whole, since what a proxy says to hold is not what it was sent.
    pub divergences: u64,
    /// Pools that were too large to be sent.
    pub too_large: u64,
}

/// Why a pool is sent again whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resend {
    /// The proxy asked for it.
    Requested,
    /// Its digests are not those of what it was sent.
    Diverged,
}

/// Who is at the other end of a stream.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// As the fleet and the log call it.
    pub(crate) proxy: Arc<str>,
    /// How that is known, for a person.
    pub(crate) identity: Arc<str>,
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
    propagation: Propagation,
}

#[derive(Debug, Default)]
struct State {
    begun: u64,
    /// By stream and not by proxy, so that the end of an old stream takes nothing from the one that follows it.
    streams: BTreeMap<StreamId, ProxyStream>,
    pools: BTreeMap<Arc<str>, Expected>,
    /// Never two of one replica, and never more than [`REPLICAS_MAX`].
    remote: BTreeMap<RemoteId, Remote>,
    counts: FleetCounts,
}

/// What is known of a stream beside its pools.
#[derive(Debug)]
struct ProxyStream {
    peer: Peer,
    begun: Instant,
    sent_bytes: Arc<AtomicU64>,
    /// Of this stream alone.
    counts: FleetCounts,
    recent: Recent,
    /// With its pool; kept when it is healed.
    last_refusal: Option<(Arc<str>, Refusal, Instant)>,
}

/// Another replica.
#[derive(Debug)]
struct Remote {
    name: Arc<str>,
    /// What it said of each pool, and when.
    told: BTreeMap<Arc<str>, (PoolSummary, Instant)>,
}

impl FleetRecord {
    /// Returns where the stream counts the bytes that it sends, too.
    pub(crate) fn begin(&self, peer: Peer, now: Instant) -> (StreamId, Arc<AtomicU64>) {
        let mut state = self.state();
        state.begun += 1;
        let id = StreamId(state.begun);
        let sent_bytes: Arc<AtomicU64> = Arc::default();
        let stream = ProxyStream {
            peer,
            begun: now,
            sent_bytes: Arc::clone(&sent_bytes),
            counts: FleetCounts::default(),
            recent: Recent::default(),
            last_refusal: None,
        };
        state.streams.insert(id, stream);
        self.mailboxes.wake();
        (id, sent_bytes)
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
        let Pool { name, version, contents, seen, .. } = pool;
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
    pub(crate) fn expect(&self, stream: StreamId, pool: &Arc<str>) {
        let mut state = self.state();
        let State { streams, pools, .. } = &mut *state;
        let (Some(known), Some(expected)) = (streams.get(&stream), pools.get_mut(pool)) else { return };
        expected.join(stream, &known.peer.proxy, known.begun);
        self.mailboxes.announce(pool, Reach::Own);
    }

    /// The stream is not to serve the pool any more.
    pub(crate) fn release(&self, stream: StreamId, pool: &Arc<str>) {
        self.update(stream, pool, |expected, _| {
            expected.leave(stream);
            FleetCounts::default()
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
        self.update(stream, pool, |expected, known| {
            let settled = expected.acked(stream, version, config_digest, now);
            known.recent.add(settled);
            self.propagation.add(settled);
            FleetCounts { acks: 1, ..FleetCounts::default() }
        });
    }

    /// The proxy was out of step and gets the whole pool.
    pub(crate) fn resent(&self, stream: StreamId, pool: &Arc<str>, why: Resend) {
        self.update(stream, pool, |_, _| match why {
            Resend::Requested => FleetCounts { snapshot_requests: 1, ..FleetCounts::default() },
            Resend::Diverged => FleetCounts { divergences: 1, ..FleetCounts::default() },
        });
    }

    pub(crate) fn refused(&self, stream: StreamId, pool: &Arc<str>, refusal: Refusal, now: Instant) {
        self.update(stream, pool, |expected, known| {
            known.last_refusal = Some((Arc::clone(pool), refusal.clone(), now));
            if let Some(standing) = expected.streams.get_mut(&stream) {
                standing.applied.refusal = Some(Box::new(refusal));
            }
            FleetCounts { nacks: 1, ..FleetCounts::default() }
        });
    }

    /// The newest version cannot be sent to this stream.
    pub(crate) fn too_large(&self, stream: StreamId, pool: &Arc<str>, bytes: usize) {
        self.update(stream, pool, |expected, _| {
            if let Some(standing) = expected.streams.get_mut(&stream) {
                standing.too_large_bytes = u64::try_from(bytes).ok();
            }
            FleetCounts { too_large: 1, ..FleetCounts::default() }
        });
    }

    /// Whether a backend takes requests at the stream's proxy; counts until the stream ends or is not to serve the pool.
    pub(crate) fn found(&self, stream: StreamId, health: &BackendHealth) {
        self.update(stream, &health.pool.as_str().into(), |expected, _| {
            if let Some(standing) = expected.streams.get_mut(&stream) {
                standing.found.hear(health);
                expected.unhealthy = None;
            }
            FleetCounts::default()
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

    pub(crate) fn stream_count(&self) -> usize {
        self.state().streams.len()
    }

    pub(crate) fn view(&self) -> Fleet {
        let state = self.state();
        let proxies = state.streams.values().map(|stream| Arc::clone(&stream.peer.proxy)).collect();
        let mut fleet = Fleet { proxies, ..Fleet::default() };
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

    /// Where each acknowledgement's time is counted.
    pub(crate) fn propagation(&self) -> &Propagation {
        &self.propagation
    }

    /// Only of what is expected: a word that comes after its pool is gone brings nothing back. `change` says what it
    /// counts as.
    fn update(
        &self,
        stream: StreamId,
        pool: &Arc<str>,
        change: impl FnOnce(&mut Expected, &mut ProxyStream) -> FleetCounts,
    ) {
        let mut state = self.state();
        let State { pools, counts, streams, .. } = &mut *state;
        let Some(known) = streams.get_mut(&stream) else { return };
        let Some(expected) = pools.get_mut(pool).filter(|expected| expected.streams.contains_key(&stream))
        else {
            return;
        };
        let one = change(expected, known);
        counts.add(one);
        known.counts.add(one);
        self.mailboxes.announce(pool, Reach::Own);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FleetCounts {
    fn add(&mut self, Self { acks, nacks, snapshot_requests, divergences, too_large }: Self) {
        self.acks += acks;
        self.nacks += nacks;
        self.snapshot_requests += snapshot_requests;
        self.divergences += divergences;
        self.too_large += too_large;
    }
}

#[cfg(test)]
mod tests;

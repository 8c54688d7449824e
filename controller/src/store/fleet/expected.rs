//! One pool at its newest version, and how far each stream is.

use super::health::{self, Found, UnhealthyBackends};
use super::propagation::{Lane, Settled};
use super::{Applied, CHANGES_REMEMBERED_MAX, PoolSummary, REFUSALS_MAX, Refusal, StreamId};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use weir_proto::push::Version;

/// One pool at its newest version, and how far each stream is.
#[derive(Debug)]
pub(super) struct Expected {
    pub(super) version: Version,
    seen: Instant,
    config_digest: u64,
    /// Sequence and time of the version that brought this configuration.
    config_since: (u64, Instant),
    /// In the order of their sequences; the first is not acknowledged by all.
    pub(super) changes: VecDeque<Change>,
    pub(super) streams: BTreeMap<StreamId, Standing>,
    /// What all of them found of backends; `None` where that changed and was not asked for since.
    pub(super) unhealthy: Option<UnhealthyBackends>,
}

/// One version, or several past [`CHANGES_REMEMBERED_MAX`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Change {
    sequence: u64,
    /// The oldest event of it. Not in the order of the sequences: a pool may have waited for a Secret.
    seen: Instant,
    lane: Lane,
    /// Of the configuration at that version.
    config_digest: u64,
}

/// One stream that the pool is expected of.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) proxy: Arc<str>,
    /// When the stream began: a proxy that comes late is not behind for longer than it is there.
    since: Instant,
    pub(super) applied: Applied,
    /// From when the newest version was seen, or from `since`, until the stream was current.
    took: Option<Duration>,
    /// Of the newest version's encoding, where it cannot be sent.
    pub(super) too_large_bytes: Option<u64>,
    pub(super) found: Found,
}

impl Expected {
    pub(super) fn new(version: Version, config_digest: u64, seen: Instant) -> Self {
        let change = Change { sequence: version.sequence, seen, lane: Lane::Config, config_digest };
        Self {
            version,
            seen,
            config_digest,
            config_since: (version.sequence, seen),
            changes: [change].into(),
            streams: BTreeMap::new(),
            unhealthy: None,
        }
    }

    pub(super) fn join(&mut self, stream: StreamId, proxy: &Arc<str>, since: Instant) {
        self.streams.entry(stream).or_insert_with(|| Standing {
            proxy: Arc::clone(proxy),
            since,
            applied: Applied::default(),
            took: None,
            too_large_bytes: None,
            found: Found::default(),
        });
        // It takes the place of an earlier stream of the same proxy.
        self.unhealthy = None;
    }

    /// False where the pool was not expected of it.
    pub(super) fn leave(&mut self, stream: StreamId) -> bool {
        self.unhealthy = None;
        self.streams.remove(&stream).is_some()
    }

    pub(super) fn advance(&mut self, version: Version, config_digest: u64, seen: Instant) {
        let slowest = self.streams.values().map(Standing::sequence).min().unwrap_or(version.sequence);
        while self.changes.front().is_some_and(|change| change.sequence <= slowest) {
            self.changes.pop_front();
        }
        let is_same = self.config_digest == config_digest;
        let lane = if is_same { Lane::Endpoints } else { Lane::Config };
        let change = Change { sequence: version.sequence, seen, lane, config_digest };
        let is_full = self.changes.len() >= CHANGES_REMEMBERED_MAX;
        match self.changes.back_mut().filter(|_| is_full) {
            Some(last) => {
                let lane = if is_same { last.lane } else { lane };
                *last = Change { seen: last.seen.min(seen), lane, ..change };
            }
            None => self.changes.push_back(change),
        }
        if !is_same {
            self.config_digest = config_digest;
            self.config_since = (version.sequence, seen);
        }
        (self.version, self.seen) = (version, seen);
        for standing in self.streams.values_mut() {
            standing.too_large_bytes = None;
            standing.took = None;
        }
    }

    /// Says how long what it settles took.
    pub(super) fn acked(
        &mut self,
        stream: StreamId,
        version: Version,
        config_digest: u64,
        now: Instant,
    ) -> Settled {
        let settled = self.settled(stream, version, config_digest, now);
        let Some(standing) = self.streams.get_mut(&stream) else { return settled };
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
            let begun = self.seen.max(standing.since);
            standing.took = standing.took.or(Some(now.saturating_duration_since(begun)));
        }
        settled
    }

    /// From the oldest event that this acknowledgement settles in each lane. What was seen before the stream began is the
    /// proxy's first state and no news to it. A configuration that the proxy refused is not settled, though its sequence is
    /// acknowledged with backends of a later one.
    fn settled(&self, stream: StreamId, version: Version, config_digest: u64, now: Instant) -> Settled {
        let Some(standing) = self.streams.get(&stream) else { return Settled::default() };
        let reached = standing.sequence() + 1..=version.sequence;
        let reached = || self.changes.iter().filter(|change| reached.contains(&change.sequence));
        let newest = reached().rfind(|change| change.lane == Lane::Config);
        let has_config = newest.is_some_and(|newest| newest.config_digest == config_digest);
        let oldest = |lane: Lane| {
            let of_lane = reached().filter(|change| change.lane == lane && change.seen >= standing.since);
            let seen = of_lane.map(|change| change.seen).min();
            seen.map(|seen| now.saturating_duration_since(seen))
        };
        Settled { endpoints: oldest(Lane::Endpoints), config: oldest(Lane::Config).filter(|_| has_config) }
    }

    pub(super) fn summary(&mut self, now: Instant) -> PoolSummary {
        let unhealthy = self.unhealthy();
        let proxies = self.proxies();
        let (current, behind): (Vec<&Standing>, Vec<&Standing>) =
            proxies.values().copied().partition(|standing| self.is_current(standing));
        let refused = proxies.iter().filter_map(|(proxy, standing)| {
            self.refusal(standing).map(|refusal| (Arc::clone(proxy), refusal.clone()))
        });
        let waits = behind.iter().map(|standing| (self.waits_since(standing), *standing));
        let slowest = waits.min_by_key(|(since, _)| *since);
        let age = slowest.map(|(since, _)| now.saturating_duration_since(since));
        PoolSummary {
            proxies: count(proxies.len()),
            current: count(current.len()),
            oldest_lag: age.or_else(|| current.iter().filter_map(|standing| standing.took).max()),
            slowest: slowest.map(|(_, standing)| Arc::clone(&standing.proxy)),
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

    pub(super) fn unhealthy(&mut self) -> UnhealthyBackends {
        if let Some(unhealthy) = &self.unhealthy {
            return Arc::clone(unhealthy);
        }
        let unhealthy = health::of_all(self.proxies().values().map(|standing| &standing.found));
        self.unhealthy = Some(Arc::clone(&unhealthy));
        unhealthy
    }

    pub(super) fn is_current(&self, standing: &Standing) -> bool {
        standing.sequence() >= self.version.sequence
            && standing.applied.config_digest == self.config_digest
            && self.refusal(standing).is_none()
    }

    /// A refusal of the configuration expected; one of a configuration before is history.
    pub(super) fn refusal<'a>(&self, standing: &'a Standing) -> Option<&'a Refusal> {
        let refusal = standing.applied.refusal.as_deref()?;
        let is_history = refusal.version.is_some_and(|version| version.sequence < self.config_since.0);
        (!is_history).then_some(refusal)
    }

    /// When the oldest change was seen that this stream has not acknowledged, or when the stream began after that.
    pub(super) fn waits_since(&self, standing: &Standing) -> Instant {
        let lacking = self.changes.iter().filter(|change| change.sequence > standing.sequence());
        let mut since = lacking.map(|change| change.seen).min().unwrap_or(self.seen);
        if standing.applied.config_digest != self.config_digest {
            since = since.min(self.config_since.1);
        }
        since.max(standing.since)
    }
}

impl Standing {
    /// Of the newest version acknowledged; 0 is before all.
    pub(super) fn sequence(&self) -> u64 {
        self.applied.version.map_or(0, |version| version.sequence)
    }
}

pub(super) fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

//! When which status is looked at and written: pure, with the time passed in.
//!
//! A status costs the API server a write and everyone who watches a message, while proxies acknowledge a thousand
//! times as often as anyone reads it. So a pool's first change is written at once and further ones are put together;
//! what usually passes within milliseconds (a proxy that has not acknowledged yet) is waited for; and what only
//! flickers (the lag) is never a reason by itself, unless a proxy stays behind.

use super::compute::PROXY_BEHIND_AFTER;
use super::reason;
use crate::compile::ObjectKey;
use crate::store::PoolSummary;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use weir_crds::LoadBalancerPoolStatus;

/// Shortest time between two writes of one pool's status.
pub const WRITE_INTERVAL: Duration = Duration::from_secs(1);
/// Shortest time between two looks at one pool, so that each acknowledgement of a hundred proxies is not one.
pub const EVALUATE_INTERVAL: Duration = Duration::from_millis(10);
/// How long proxies may take to acknowledge, and to connect, before the status says that they have not; and to say again
/// what they found of backends, before the status says that all is well with them.
pub const PATIENCE: Duration = Duration::from_millis(500);
/// How long a status is put off in all, where changes come so fast that at every look some proxy is just behind.
pub const PATIENCE_MAX: Duration = Duration::from_secs(2);
/// Shortest time between two writes whose only news is the lag of a proxy that stays behind.
pub const LAG_INTERVAL: Duration = Duration::from_secs(5);
/// How long after taking over fewer proxies than the status shows are not yet believed: they may be about to dial.
pub const FLEET_SETTLING: Duration = Duration::from_secs(5);
/// How long fewer proxies than the status shows are not believed: they dial anew when a stream ends of its age.
pub const REDIAL_PATIENCE: Duration = Duration::from_secs(3);
/// Shortest wait after a write that failed; it doubles with each failure.
pub const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// Longest wait after a write that failed.
pub const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// The pools to look at, in the order of when.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    entries: BTreeMap<ObjectKey, Entry>,
    due: BTreeSet<(Instant, ObjectKey)>,
}

#[derive(Debug, Default)]
struct Entry {
    due: Option<Instant>,
    not_before: Option<Instant>,
    is_writing: bool,
    /// Looked at again as soon as the write has ended.
    is_touched: bool,
    failures: u32,
    /// Since when every look found something that is likely to pass by itself.
    unsettled_since: Option<Instant>,
    /// Since when every look found fewer proxies than the status shows.
    fewer_since: Option<Instant>,
    /// Since when every look found fewer unhealthy backends than the status shows, and nothing else that passes.
    healthier_since: Option<Instant>,
    written_at: Option<Instant>,
}

/// What to do about a pool that was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// The object says what there is to say.
    Nothing,
    /// It may pass by itself, or is not worth a write yet: look again then, or when something changes.
    Later(Instant),
    /// Now.
    Write,
}

/// What a look at a pool found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sight<'a> {
    pub(super) desired: &'a LoadBalancerPoolStatus,
    /// What the object shows, only our part of it.
    pub(super) shown: Option<&'a LoadBalancerPoolStatus>,
    pub(super) summary: &'a PoolSummary,
    /// Of what is to be served; `None` where nothing is.
    pub(super) config_digest: Option<u64>,
    /// When this process became the one that writes.
    pub(super) leads_since: Instant,
}

impl Agenda {
    /// Something about the pool changed: it is looked at as soon as it may be.
    pub(super) fn touch(&mut self, key: &ObjectKey, now: Instant) {
        let entry = self.entries.entry(key.clone()).or_default();
        if entry.is_writing {
            entry.is_touched = true;
            return;
        }
        let at = entry.not_before.map_or(now, |at| at.max(now));
        self.schedule(key, at);
    }

    /// There is nothing to say before then, if nothing changes.
    pub(super) fn look_again(&mut self, key: &ObjectKey, at: Instant) {
        self.schedule(key, at);
    }

    /// There is no such pool any more.
    pub(super) fn forget(&mut self, key: &ObjectKey) {
        if let Some(Entry { due: Some(at), .. }) = self.entries.remove(key) {
            self.due.remove(&(at, key.clone()));
        }
    }

    /// Nothing is to be done by this process any more.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// When the next pool is to be looked at.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The next pool to be looked at by now; the caller says with [`Self::decide`] what came of it.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<ObjectKey> {
        if self.next_at()? > now {
            return None;
        }
        let (_, key) = self.due.pop_first()?;
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.due = None;
            entry.not_before = Some(now + EVALUATE_INTERVAL);
        }
        Some(key)
    }

    /// Whether and when the status of a pool that was just taken is to be written; takes note of it.
    pub(super) fn decide(&mut self, key: &ObjectKey, sight: Sight<'_>, now: Instant) -> Decision {
        let entry = self.entries.entry(key.clone()).or_default();
        let decision = entry.weigh(sight, now);
        match decision {
            Decision::Nothing => {}
            Decision::Later(at) => self.schedule(key, at),
            Decision::Write => {
                entry.is_writing = true;
                entry.written_at = Some(now);
                entry.not_before = Some(now + WRITE_INTERVAL);
            }
        }
        decision
    }

    /// A write has ended. One that failed is tried again, later each time.
    pub(super) fn written(&mut self, key: &ObjectKey, is_good: bool, now: Instant) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.is_writing = false;
        let is_touched = std::mem::take(&mut entry.is_touched);
        if is_good {
            entry.failures = 0;
        } else {
            let wait = BACKOFF_MIN.saturating_mul(1 << entry.failures.min(16)).min(BACKOFF_MAX);
            entry.failures = entry.failures.saturating_add(1);
            entry.not_before = Some(now + wait);
        }
        if is_touched || !is_good {
            self.touch(key, now);
        }
    }

    fn schedule(&mut self, key: &ObjectKey, at: Instant) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        if let Some(before) = entry.due {
            if before <= at {
                return;
            }
            self.due.remove(&(before, key.clone()));
        }
        entry.due = Some(at);
        self.due.insert((at, key.clone()));
    }
}

impl Entry {
    fn weigh(&mut self, sight: Sight<'_>, now: Instant) -> Decision {
        let Sight { desired, shown, .. } = sight;
        let passes_at = self.passes_at(sight, now);
        if shown == Some(desired) {
            // Nothing may happen any more while a proxy stays behind, and yet it is behind for longer and longer.
            return match grows_at(sight, now) {
                Some(at) => Decision::Later(at),
                None => Decision::Nothing,
            };
        }
        if let Some(at) = passes_at.filter(|at| *at > now) {
            return Decision::Later(at);
        }
        if shown.is_none_or(|shown| without_lag(shown) != without_lag(desired)) {
            return Decision::Write;
        }
        // Only the lag differs. Of proxies that are current it is history.
        if !sight.summary.is_behind() {
            return Decision::Nothing;
        }
        match self.written_at.map(|at| at + LAG_INTERVAL).filter(|at| *at > now) {
            Some(at) => Decision::Later(grows_at(sight, now).map_or(at, |grows_at| grows_at.min(at))),
            None => Decision::Write,
        }
    }

    /// Until when what was found is likely to pass by itself.
    fn passes_at(&mut self, sight: Sight<'_>, now: Instant) -> Option<Instant> {
        let Sight { summary, config_digest, leads_since, .. } = sight;
        let is_unserved =
            config_digest.is_some_and(|digest| summary.proxies == 0 || summary.config_digest != digest);
        let is_refused = summary.refused > 0 || summary.too_large_bytes.is_some();
        let is_behind = config_digest.is_some() && summary.is_behind() && !is_refused;
        if !is_unserved && !is_behind {
            self.unsettled_since = None;
        }
        let settled = match config_digest.is_some() && shows_more_proxies(sight) {
            true => {
                let since = *self.fewer_since.get_or_insert(now);
                Some((leads_since + FLEET_SETTLING).max(since + REDIAL_PATIENCE))
            }
            false => {
                self.fewer_since = None;
                None
            }
        };
        // Whoever edits the pool, or breaks a proxy by it, wants the answer now.
        let settled = settled.filter(|_| !is_refused && !is_new_generation(sight));
        let passes = if is_unserved {
            // The store, or the proxies, may be about to hear of it.
            Some(*self.unsettled_since.get_or_insert(now) + PATIENCE)
        } else if is_behind {
            let since = *self.unsettled_since.get_or_insert(now);
            let left = PATIENCE.saturating_sub(summary.oldest_lag.unwrap_or_default());
            Some((now + left).min(since + PATIENCE_MAX))
        } else {
            None
        };
        let passes = passes.max(settled);
        // A proxy that dialled anew is about to say again which backends it found unhealthy.
        let is_healthier = passes.is_none() && shows_more_unhealthy(sight) && !is_new_generation(sight);
        self.healthier_since = if is_healthier { self.healthier_since.or(Some(now)) } else { None };
        passes.max(self.healthier_since.map(|since| since + PATIENCE))
    }
}

/// When there is more to say of a proxy that is still behind by then: that it is so for long, and later for how long.
fn grows_at(Sight { summary, config_digest, .. }: Sight<'_>, now: Instant) -> Option<Instant> {
    let lag = summary.oldest_lag.filter(|_| config_digest.is_some() && summary.is_behind())?;
    let is_for_long = lag > PROXY_BEHIND_AFTER;
    // Just past it, for at it nothing is said yet.
    Some(now + if is_for_long { LAG_INTERVAL } else { PROXY_BEHIND_AFTER - lag + EVALUATE_INTERVAL })
}

fn shows_more_proxies(Sight { shown, summary, .. }: Sight<'_>) -> bool {
    let shown = shown.and_then(|shown| shown.programmed.as_ref()).map_or(0, |programmed| programmed.proxies);
    i64::from(shown) > i64::from(summary.proxies)
}

fn shows_more_unhealthy(Sight { shown, desired, .. }: Sight<'_>) -> bool {
    let unhealthy = |status: &LoadBalancerPoolStatus| status.endpoints.as_ref().map_or(0, |of| of.unhealthy);
    shown.map_or(0, unhealthy) > unhealthy(desired)
}

fn is_new_generation(Sight { desired, shown, .. }: Sight<'_>) -> bool {
    shown.is_none_or(|shown| shown.observed_generation != desired.observed_generation)
}

fn without_lag(status: &LoadBalancerPoolStatus) -> LoadBalancerPoolStatus {
    let mut status = status.clone();
    if let Some(programmed) = &mut status.programmed {
        programmed.oldest_lag = None;
    }
    let lags = |reason: &str| reason == reason::PROXY_BEHIND;
    if let Some(summary) = &mut status.summary {
        summary.lag = None;
        if summary.state.as_deref().is_some_and(lags) {
            summary.message = None;
        }
    }
    // That condition's message says the lag, too.
    let conditions = status.conditions.iter_mut();
    conditions.filter(|condition| lags(&condition.reason)).for_each(|condition| condition.message.clear());
    status
}

#[cfg(test)]
mod tests;

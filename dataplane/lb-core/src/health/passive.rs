//! Passive checks of one backend of a set: what its requests tell.
//!
//! One backend can say that it deserves to be ejected; whether it is, the set decides ([`super::SetHealth`]), for there
//! is a largest share. Envoy's outlier detection is the model; we differ where it waits for a sweep every 10 s (here each
//! batch is judged), and where a backend comes back: with little of its weight, and more each second.

use super::moment::Moment;
use super::random::{part_of, permille_of};
use super::settings::{GraySettings, PassiveSettings, Valid};
use super::window::{Batch, Window};
use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

/// The whole of a backend's weight.
pub const WEIGHT_FULL: u16 = 1000;
/// Weights are lowered to multiples of this, or to the least that is set, so that noise does not make a new membership each second.
pub const WEIGHT_STEP: u16 = 50;

/// Why a backend is ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Too large a share of the newest outcomes failed.
    FailureShare {
        /// Failures in a thousand.
        permille: u16,
    },
    /// Too many failures in a row.
    ConsecutiveFailures {
        /// So many.
        count: u32,
    },
    /// Too many failures to connect in a row.
    ConnectFailures {
        /// So many.
        count: u32,
    },
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FailureShare { permille } => write!(f, "{permille} of 1000 requests failed"),
            Self::ConsecutiveFailures { count } => write!(f, "{count} requests failed in a row"),
            Self::ConnectFailures { count } => write!(f, "{count} connections failed in a row"),
        }
    }
}

/// Whether requests are kept away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ejection {
    /// They are not.
    In,
    /// They are, for a time.
    Out {
        /// When it ends.
        until: Moment,
        /// Why.
        cause: Cause,
    },
}

/// Passive checks of one backend of a set.
#[derive(Debug, Clone)]
pub struct Passive {
    settings: Valid<PassiveSettings>,
    window: Window,
    /// Failures since the last success, as far as batches tell.
    failed_in_row: u32,
    /// Failures to connect since anything else.
    unconnected_in_row: u32,
    ejection: Ejection,
    /// How often it was ejected, less one for each [`PassiveSettings::ejection_base`] without.
    ejections: u32,
    /// When that falls by one, while In.
    forgiven_at: Moment,
    weight: u16,
}

impl Passive {
    /// A backend with all its weight and no past.
    #[must_use]
    pub fn new(settings: Valid<PassiveSettings>) -> Self {
        Self {
            window: Window::new(settings.window),
            settings,
            failed_in_row: 0,
            unconnected_in_row: 0,
            ejection: Ejection::In,
            ejections: 0,
            forgiven_at: Moment::START,
            weight: WEIGHT_FULL,
        }
    }

    /// Whether it is ejected.
    #[must_use]
    pub fn ejection(&self) -> Ejection {
        self.ejection
    }

    /// 1 to 1000.
    #[must_use]
    pub fn weight_permille(&self) -> u16 {
        self.weight
    }

    /// How many ejections the next one's length counts.
    #[must_use]
    pub fn ejections(&self) -> u32 {
        self.ejections
    }

    /// Takes in a batch; says why the backend deserves to be ejected, if it does. What arrives while it is ejected began
    /// before, and tells nothing new. Costs at most the ten parts of the window.
    ///
    /// A batch has no order: with a success in it no row is longer than the batch's own failures could make it, so a row
    /// begins anew. What such a batch means, the share says.
    pub fn observe(&mut self, now: Moment, batch: &Batch) -> Option<Cause> {
        if self.ejection != Ejection::In {
            return None;
        }
        self.window.add(now, batch);
        let failures = u32::try_from(batch.failures()).unwrap_or(u32::MAX);
        let others = batch.errors.saturating_add(batch.timeouts);
        self.failed_in_row =
            if batch.successes > 0 { 0 } else { self.failed_in_row.saturating_add(failures) };
        self.unconnected_in_row = if batch.successes > 0 || others > 0 {
            0
        } else {
            self.unconnected_in_row.saturating_add(batch.connect_failures)
        };
        if failures == 0 { None } else { self.cause(now) }
    }

    fn cause(&mut self, now: Moment) -> Option<Cause> {
        let reaches = |limit: Option<NonZeroU32>, count: u32| limit.is_some_and(|limit| count >= limit.get());
        if reaches(self.settings.consecutive_connect_failures, self.unconnected_in_row) {
            return Some(Cause::ConnectFailures { count: self.unconnected_in_row });
        }
        if reaches(self.settings.consecutive_failures, self.failed_in_row) {
            return Some(Cause::ConsecutiveFailures { count: self.failed_in_row });
        }
        let limit = self.settings.failure_share_permille?;
        let newest = self.window.newest(now, self.settings.outcomes_min);
        let is_judged = newest.outcomes() >= u64::from(self.settings.outcomes_min);
        let permille = u16::try_from(newest.failure_permille()).unwrap_or(WEIGHT_FULL);
        (is_judged && newest.fail_more_than(limit)).then_some(Cause::FailureShare { permille })
    }

    /// Ejects: the n-th time for n times the base, at most the largest, and a random part more.
    pub fn eject(&mut self, now: Moment, cause: Cause, random: u64) {
        self.ejections = self.ejections.saturating_add(1);
        let length =
            self.settings.ejection_base.saturating_mul(self.ejections).min(self.settings.ejection_max);
        let jitter = part_of(permille_of(length, self.settings.jitter_permille), random);
        self.ejection = Ejection::Out { until: now + (length + jitter), cause };
    }

    /// Ends an ejection, in time or before. The past is forgotten but for the count of ejections; where weights are
    /// lowered at all, it comes back with the least.
    pub fn restore(&mut self, now: Moment) {
        self.ejection = Ejection::In;
        self.forget();
        self.forgiven_at = now + self.settings.ejection_base;
        self.weight = self.settings.gray.as_ref().map_or(WEIGHT_FULL, |gray| gray.weight_min_permille);
    }

    /// Forgets all outcomes: the backend is another than it was, or was away.
    pub fn forget(&mut self) {
        self.window.clear();
        self.failed_in_row = 0;
        self.unconnected_in_row = 0;
    }

    /// Mean latency of the successes in the window, where there are enough outcomes to tell.
    pub fn mean_latency(&mut self, now: Moment) -> Option<Duration> {
        let sums = self.window.newest(now, self.settings.outcomes_min);
        sums.mean_latency().filter(|_| sums.outcomes() >= u64::from(self.settings.outcomes_min))
    }

    /// Sets the weight anew, once a second: down at once, up by a step. `median` is the middle of the mean latencies of
    /// the set's backends, where enough of them have one.
    pub fn weigh(&mut self, now: Moment, median: Option<Duration>) {
        if self.ejection != Ejection::In {
            return;
        }
        if self.ejections > 0 && self.forgiven_at <= now {
            self.ejections -= 1;
            self.forgiven_at = now + self.settings.ejection_base;
        }
        let settings = self.settings.clone();
        let Some(gray) = &settings.gray else { return };
        let deserved = self.deserved(now, gray, median);
        let reached = self.weight.saturating_add(gray.recovery_step_permille);
        self.weight = deserved.min(reached.min(WEIGHT_FULL));
    }

    fn deserved(&mut self, now: Moment, gray: &GraySettings, median: Option<Duration>) -> u16 {
        let sums = self.window.newest(now, self.settings.outcomes_min);
        if sums.outcomes() < u64::from(self.settings.outcomes_min) {
            return WEIGHT_FULL;
        }
        let (from, to) =
            (gray.failure_share_permille, self.settings.failure_share_permille.unwrap_or(WEIGHT_FULL));
        let above = sums.failure_permille().saturating_sub(u64::from(from));
        let least = u64::from(gray.weight_min_permille);
        let fall = above * (1000 - least) / u64::from(to - from);
        let by_failures = 1000_u64.saturating_sub(fall);
        let by_latency = match (sums.mean_latency(), median) {
            (Some(mean), Some(median)) => latency_weight(gray, mean, median),
            _ => 1000,
        };
        let weight = u16::try_from(by_failures.min(by_latency).max(least)).unwrap_or(WEIGHT_FULL);
        (weight / WEIGHT_STEP * WEIGHT_STEP).max(gray.weight_min_permille)
    }
}

/// In inverse proportion to the latency, from where it is too much: half the weight for twice as much.
fn latency_weight(gray: &GraySettings, mean: Duration, median: Duration) -> u64 {
    let allowed = median.as_nanos() * u128::from(gray.latency_factor_permille) / 1000;
    if mean.as_nanos() <= allowed || mean.saturating_sub(median) < gray.latency_excess_min {
        return 1000;
    }
    u64::try_from(allowed * 1000 / mean.as_nanos().max(1)).unwrap_or(1000)
}

#[cfg(test)]
mod tests;

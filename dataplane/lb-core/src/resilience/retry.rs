//! When a request is tried again.

use crate::balance::Rng;
use std::time::Duration;

/// Most retries of one request.
pub const RETRIES_MAX: u32 = 10;

/// How often a request is tried again, and on what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// After the first attempt, at most [`RETRIES_MAX`].
    pub retries_max: u32,
    /// Statuses of answers that are not passed on while a retry is allowed.
    pub statuses: Box<[u16]>,
    /// Of the first retry; doubled for each further one.
    pub backoff: Duration,
    /// A second attempt is begun, beside the first, where that has no answer after this.
    pub hedge_after: Option<Duration>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            retries_max: 3,
            statuses: [502, 503, 504].into(),
            backoff: Duration::from_millis(25),
            hedge_after: None,
        }
    }
}

/// Before the `nth` retry (from 0), anything between nothing and `base * 2^nth`, at most ten times the base ("full
/// jitter").
#[must_use]
pub fn backoff(base: Duration, nth: u32, rng: &mut Rng) -> Duration {
    let most = base.saturating_mul(1 << nth.min(16)).min(base.saturating_mul(10));
    let micros = usize::try_from(most.as_micros()).unwrap_or(usize::MAX).min(u32::MAX as usize);
    Duration::from_micros(rng.below(micros + 1) as u64)
}

//! The circuit breaker of one set: closed passes, open refuses, half-open lets a few probes through.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

/// When a circuit opens, and how it closes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerSettings {
    /// Opens where at least this share of a window's requests failed: 1 to 100 percent.
    pub failure_percent: u8,
    /// Requests that a window must have before it is judged.
    pub requests_min: NonZeroU32,
    /// Over which outcomes are counted.
    pub window: Duration,
    /// From opening to half-open.
    pub reset_after: Duration,
    /// Probes of a half-open circuit: all of them must succeed for it to close.
    pub probes: NonZeroU32,
}

/// The breaker of one set, shared by all workers.
#[derive(Debug)]
pub struct Breaker {
    settings: BreakerSettings,
}

/// Whether a request may go to the set.
#[derive(Debug)]
pub enum Admission {
    /// Closed: its outcome is told with [`Breaker::record`].
    Passed,
    /// Half-open: the outcome is told to the probe itself.
    Probe(Probe),
    /// Open, or half-open with all probes under way.
    Refused,
}

/// One probe of a half-open circuit. Dropped without a word it gives its place back.
#[derive(Debug)]
pub struct Probe {
    breaker: Arc<Breaker>,
}

impl Breaker {
    /// A closed circuit.
    #[must_use]
    pub fn new(settings: BreakerSettings) -> Self {
        Self { settings }
    }

    /// Whether a request may go to the set now.
    #[must_use]
    pub fn admit(self: &Arc<Self>, _now: Duration) -> Admission {
        Admission::Passed
    }

    /// Outcomes of requests that passed.
    pub fn record(&self, _now: Duration, _successes: u32, _failures: u32) {}
}

impl Probe {
    /// What came of it.
    pub fn end(self, _now: Duration, _is_success: bool) {
        let _ = self.breaker.settings;
    }
}

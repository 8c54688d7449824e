//! The circuit breaker of one set: closed passes, open refuses, half-open lets a few probes through.
//!
//! Nygard's pattern ("Release It!", 2007), judged by the share of failures over a window, as resilience4j and Hystrix do.
//! Where it differs: probes are bounded by number, and all of them must succeed; what ends late, from before the circuit
//! opened, says nothing of how the set is now.

use super::tally::Tally;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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
    /// Probes of a half-open circuit: all of them must succeed for it to close. At most [`PROBES_MAX`]; more count as
    /// that.
    pub probes: NonZeroU32,
}

/// Most probes of a half-open circuit.
pub const PROBES_MAX: u32 = 100;

/// The breaker of one set, shared by all workers.
#[derive(Debug)]
pub struct Breaker {
    settings: BreakerSettings,
    /// A [`Gate`], packed: whatever changes it changes all of it.
    gate: AtomicU64,
    /// Successes and failures while closed.
    tally: Tally,
    opened: AtomicU64,
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

/// What a circuit does with the next request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// It passes.
    Closed,
    /// It is refused.
    Open {
        /// When the next one may go, as a probe; since the process began.
        until: Duration,
    },
    /// It goes as a probe, where not all are under way. Also a circuit whose time is over and that nobody asked since.
    HalfOpen,
}

/// One probe of a half-open circuit. Dropped without a word it gives its place back.
#[derive(Debug)]
pub struct Probe {
    breaker: Arc<Breaker>,
    /// Of the circuit when it began: one of before says nothing.
    generation: u64,
    is_told: bool,
}

/// A circuit's state, and how often it opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Gate {
    /// Of openings, modulo 2^[`GENERATION_BITS`].
    generation: u64,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Closed,
    Open {
        /// Milliseconds since the process began.
        until: u64,
    },
    /// Together never more than the probes of the settings.
    HalfOpen {
        under_way: u64,
        succeeded: u64,
    },
}

const PHASE_BITS: u32 = 2;
const GENERATION_BITS: u32 = 20;
/// For the time of an open circuit: 139 years.
const REST_BITS: u32 = 64 - PHASE_BITS - GENERATION_BITS;
/// For each of the two counts of a half-open one.
const COUNT_BITS: u32 = REST_BITS / 2;
const CLOSED: u64 = 0;
const OPEN: u64 = 1;
const HALF_OPEN: u64 = 2;

const fn low(word: u64, bits: u32) -> u64 {
    word & ((1 << bits) - 1)
}

impl Gate {
    fn of(word: u64) -> Self {
        let rest = low(word, REST_BITS);
        let phase = match word >> (64 - PHASE_BITS) {
            OPEN => Phase::Open { until: rest },
            HALF_OPEN => Phase::HalfOpen { under_way: rest >> COUNT_BITS, succeeded: low(rest, COUNT_BITS) },
            _ => Phase::Closed,
        };
        Self { generation: low(word >> REST_BITS, GENERATION_BITS), phase }
    }

    fn word(self) -> u64 {
        let (phase, rest) = match self.phase {
            Phase::Closed => (CLOSED, 0),
            Phase::Open { until } => (OPEN, until),
            Phase::HalfOpen { under_way, succeeded } => (HALF_OPEN, (under_way << COUNT_BITS) | succeeded),
        };
        (phase << (64 - PHASE_BITS)) | (self.generation << REST_BITS) | rest
    }

    fn half_open(self, under_way: u64, succeeded: u64) -> Self {
        Self { phase: Phase::HalfOpen { under_way, succeeded }, ..self }
    }

    /// Opened once more, until `reset_after` from now.
    fn opened(self, now: Duration, reset_after: Duration) -> Self {
        let until = now.saturating_add(reset_after).as_nanos().div_ceil(1_000_000);
        let until = u64::try_from(until).unwrap_or(u64::MAX).min(low(u64::MAX, REST_BITS));
        Self { generation: low(self.generation + 1, GENERATION_BITS), phase: Phase::Open { until } }
    }
}

fn is_past(until: u64, now: Duration) -> bool {
    now.as_millis() >= u128::from(until)
}

/// What came of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Well,
    Failed,
    /// Given up before anything was known.
    Unknown,
}

impl Breaker {
    /// A closed circuit.
    #[must_use]
    pub fn new(settings: BreakerSettings) -> Self {
        let gate = Gate { generation: 0, phase: Phase::Closed };
        Self {
            settings,
            gate: AtomicU64::new(gate.word()),
            tally: Tally::new(settings.window),
            opened: AtomicU64::new(0),
        }
    }

    /// Whether a request may go to the set now. One load while the circuit is closed.
    #[must_use]
    pub fn admit(self: &Arc<Self>, now: Duration) -> Admission {
        let mut word = self.gate.load(Ordering::Relaxed);
        loop {
            let gate = Gate::of(word);
            let next = match gate.phase {
                Phase::Closed => return Admission::Passed,
                Phase::Open { until } if is_past(until, now) => gate.half_open(1, 0),
                Phase::HalfOpen { under_way, succeeded } if under_way + succeeded < self.probes() => {
                    gate.half_open(under_way + 1, succeeded)
                }
                Phase::Open { .. } | Phase::HalfOpen { .. } => return Admission::Refused,
            };
            match self.exchange(word, next) {
                Ok(()) => {
                    let breaker = Arc::clone(self);
                    return Admission::Probe(Probe { breaker, generation: gate.generation, is_told: false });
                }
                Err(other) => word = other,
            }
        }
    }

    /// Outcomes of requests that passed. To be called with batches, every 10 ms or so from each worker: until then they
    /// open nothing. While the circuit is not closed they are of before, and count for nothing; so do those that end
    /// only after it closed again, but as outcomes of now.
    pub fn record(&self, now: Duration, successes: u32, failures: u32) {
        // Acquire: the tally was emptied before the circuit closed.
        let word = self.gate.load(Ordering::Acquire);
        let gate = Gate::of(word);
        if gate.phase != Phase::Closed || (successes == 0 && failures == 0) {
            return;
        }
        self.tally.add(now, successes.into(), failures.into());
        if self.must_open(now) {
            // Where it fails, another worker has opened it.
            let _ = self.open(word, gate, now);
        }
    }

    /// What happens to the next request.
    #[must_use]
    pub fn state(&self, now: Duration) -> BreakerState {
        match Gate::of(self.gate.load(Ordering::Relaxed)).phase {
            Phase::Closed => BreakerState::Closed,
            Phase::Open { until } if !is_past(until, now) => {
                BreakerState::Open { until: Duration::from_millis(until) }
            }
            Phase::Open { .. } | Phase::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// How often the circuit has opened; a half-open one that opens again counts.
    #[must_use]
    pub fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// Until the next probe may go, for a refused request; nothing where the circuit is not open, also where it is
    /// half-open and all its probes are under way: nobody knows when they end.
    #[must_use]
    pub fn retry_after(&self, now: Duration) -> Duration {
        match self.state(now) {
            BreakerState::Open { until } => until.saturating_sub(now),
            BreakerState::Closed | BreakerState::HalfOpen => Duration::ZERO,
        }
    }

    fn probes(&self) -> u64 {
        self.settings.probes.get().min(PROBES_MAX).into()
    }

    fn must_open(&self, now: Duration) -> bool {
        let (successes, failures) = self.tally.sums(now);
        let requests = successes + failures;
        let share = u64::from(self.settings.failure_percent.max(1));
        requests >= u64::from(self.settings.requests_min.get()) && failures * 100 >= requests * share
    }

    fn open(&self, word: u64, gate: Gate, now: Duration) -> Result<(), u64> {
        self.exchange(word, gate.opened(now, self.settings.reset_after))?;
        self.opened.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Release: whoever sees a circuit closed sees its window emptied.
    fn exchange(&self, before: u64, after: Gate) -> Result<(), u64> {
        self.gate.compare_exchange(before, after.word(), Ordering::AcqRel, Ordering::Relaxed).map(|_| ())
    }

    /// What a probe of this generation has to say.
    fn probed(&self, generation: u64, ended: Ended, now: Duration) {
        let mut word = self.gate.load(Ordering::Relaxed);
        loop {
            let gate = Gate::of(word);
            let Phase::HalfOpen { under_way, succeeded } = gate.phase else { return };
            if gate.generation != generation {
                return;
            }
            let others = under_way.checked_sub(1).expect("this probe is under way");
            let changed = match ended {
                Ended::Failed => self.open(word, gate, now),
                Ended::Unknown => self.exchange(word, gate.half_open(others, succeeded)),
                Ended::Well if succeeded + 1 < self.probes() => {
                    self.exchange(word, gate.half_open(others, succeeded + 1))
                }
                Ended::Well => {
                    self.tally.clear();
                    self.exchange(word, Gate { phase: Phase::Closed, ..gate })
                }
            };
            match changed {
                Ok(()) => return,
                Err(other) => word = other,
            }
        }
    }
}

impl Probe {
    /// What came of it.
    pub fn end(mut self, now: Duration, is_success: bool) {
        let ended = if is_success { Ended::Well } else { Ended::Failed };
        self.is_told = true;
        self.breaker.probed(self.generation, ended, now);
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if !self.is_told {
            // The time is for opening again, which this does not.
            self.breaker.probed(self.generation, Ended::Unknown, Duration::ZERO);
        }
    }
}

#[cfg(test)]
mod tests;

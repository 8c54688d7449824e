//! The least loaded of some backends.
//!
//! Drawing two and taking the less loaded one is nearly as even as looking at all (Mitzenmacher, "The Power of Two
//! Choices in Randomized Load Balancing", 2001) and, unlike looking at all, does not send everybody to the same backend
//! while what they know is old (Mitzenmacher, "How Useful Is Old Information?", 2000). Requests in flight are one
//! atomic for all workers, so within a process they are never old; latencies are at most one merge old, and requests in
//! flight multiply them at once.
//!
//! The two are always different backends, so that with two or three backends a slow one is always compared.
//!
//! The exact least of n would need an order that every worker's every request changes. Instead, up to [`ALL_MAX`]
//! backends are all read; of more, some are drawn and the best one of the last pick is looked at again, which is worth
//! many draws (Mitzenmacher, Prabhakar and Shah, "Load Balancing with Memory", 2002). With 1,000 backends and 500 requests
//! at once, chosen from a standstill by requests, no backend has a second one: a test below.
//!
//! **Weights.** The first is drawn by weight and stays unless another is clearly better, so that the shares of a set
//! with little load follow the weights, and load corrects them where it is uneven:
//!
//! - by requests, another one must have, with this request on it, at most as many for its weight as the first has
//!   without. Where weights are equal that is "fewer".
//! - by latency, another one's must be lower: by mean latency the first's must be more than 1.25 times as high (in a
//!   simulation three equal replicas get 47, 31 and 22 percent of the requests without that, 40, 31 and 29 with it); and
//!   where weights differ more than twice as high, or noise would decide more than the weights do.

use super::excluded::Excluded;
use super::lane::{Lane, Seat};
use super::rng::Rng;
use crate::backend::{Decay, Smoothing, Tick};

/// Up to so many backends, all are looked at.
pub(super) const ALL_MAX: usize = 16;
/// Draws of more than that, by requests: 45 ns with 1,000 backends.
const REQUEST_DRAWS: usize = 8;
/// The same by latency, where a look costs twice as much.
const LATENCY_DRAWS: usize = 4;
/// How many times as high the first one's latency must be to leave it: where weights differ, by mean latency, by peaks.
const MARGINS: (f32, f32, f32) = (2.0, 1.25, 1.0);
/// Cost, in microseconds, of a request on a backend that has requests and never answered one: such a one gets no
/// second request while another backend has ever answered.
const UNKNOWN_MICROS: f32 = 1e15;

/// Draws and compares.
#[derive(Debug)]
pub(super) struct Choices {
    measure: Measure,
    draws: usize,
    /// The best one of the last pick, where there are many draws.
    best: Option<usize>,
}

/// How backends are compared.
#[derive(Debug, Clone, Copy)]
pub(super) enum Measure {
    /// Requests in flight.
    Requests,
    /// Smoothed latency times requests in flight and this one.
    Latency(LatencyRule),
}

impl Choices {
    /// The best of so many draws, at least two.
    pub(super) fn few(measure: Measure, draws: u8) -> Self {
        Self { measure, draws: usize::from(draws).max(2), best: None }
    }

    /// The best of all, or nearly.
    pub(super) fn many(measure: Measure) -> Self {
        let draws = match measure {
            Measure::Requests => REQUEST_DRAWS,
            Measure::Latency(_) => LATENCY_DRAWS,
        };
        Self { measure, draws, best: Some(0) }
    }

    /// A seat that is not passed over; `None` where there is none.
    pub(super) fn pick(
        &mut self,
        lane: &Lane,
        excluded: Excluded<'_>,
        now: Tick,
        rng: &mut Rng,
    ) -> Option<usize> {
        let drawn = lane.draw(rng);
        let first = if excluded.has(&lane.seats()[drawn]) { lane.any_but(excluded, rng)? } else { drawn };
        Some(match self.measure {
            Measure::Requests => self.best_from(first, &RequestRule, lane, excluded, rng),
            Measure::Latency(rule) => self.best_from(first, &LatencyAt { rule, now }, lane, excluded, rng),
        })
    }

    fn best_from<R: Rule>(
        &mut self,
        first: usize,
        rule: &R,
        lane: &Lane,
        excluded: Excluded<'_>,
        rng: &mut Rng,
    ) -> usize {
        let count = lane.seats().len();
        let mut best = Best { at: first, load: rule.load(&lane.seats()[first]) };
        if self.draws >= count || (self.best.is_some() && count <= ALL_MAX) {
            for at in (first + 1..count).chain(0..first) {
                best.improve(at, lane, excluded, rule);
            }
            return best.at;
        }
        for nth in 1..self.draws {
            let drawn = lane.draw(rng);
            // The first two differ. Of more, one that comes again is only lost.
            let other =
                if nth == 1 && drawn == first { (drawn + 1 + rng.below(count - 1)) % count } else { drawn };
            best.improve(other, lane, excluded, rule);
        }
        if let Some(remembered) = &mut self.best {
            best.improve(*remembered, lane, excluded, rule);
            *remembered = best.at;
        }
        best.at
    }
}

/// The best so far.
struct Best<L> {
    at: usize,
    load: L,
}

impl<L> Best<L> {
    fn improve<R: Rule<Load = L>>(&mut self, at: usize, lane: &Lane, excluded: Excluded<'_>, rule: &R) {
        let seat = &lane.seats()[at];
        let load = rule.load(seat);
        if rule.prefers(&load, &self.load) && !excluded.has(seat) {
            *self = Self { at, load };
        }
    }
}

/// How loads are read and compared. A backend is never preferred to itself.
trait Rule {
    type Load;

    fn load(&self, seat: &Seat) -> Self::Load;

    /// Whether the other one is better by enough.
    fn prefers(&self, other: &Self::Load, best: &Self::Load) -> bool;
}

struct RequestRule;

struct Requests {
    in_flight: u64,
    weight: u64,
}

impl Rule for RequestRule {
    type Load = Requests;

    fn load(&self, seat: &Seat) -> Requests {
        Requests { in_flight: seat.live.in_flight().into(), weight: seat.weight.into() }
    }

    fn prefers(&self, other: &Requests, best: &Requests) -> bool {
        best.in_flight * other.weight >= (other.in_flight + 1) * best.weight
    }
}

/// How latencies are read in a lane.
#[derive(Debug, Clone, Copy)]
pub(super) struct LatencyRule {
    of: Latency,
    decay: Decay,
    /// Requests count for weight: those of a backend of mean weight count as they are.
    mean_weight: f32,
    margin: f32,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Latency {
    Mean,
    Peak,
}

impl LatencyRule {
    pub(super) fn new(of: Latency, smoothing: Smoothing, lane: &Lane) -> Self {
        Self {
            of,
            decay: Decay::over(smoothing.decay),
            mean_weight: lane.weight_total() as f32 / lane.seats().len() as f32,
            margin: match of {
                _ if !lane.is_equal() => MARGINS.0,
                Latency::Mean => MARGINS.1,
                Latency::Peak => MARGINS.2,
            },
        }
    }
}

struct LatencyAt {
    rule: LatencyRule,
    now: Tick,
}

impl Rule for LatencyAt {
    /// Microseconds.
    type Load = f32;

    fn load(&self, seat: &Seat) -> f32 {
        let requests = seat.live.in_flight() as f32 * (self.rule.mean_weight / seat.weight as f32);
        let signal = match self.rule.of {
            Latency::Mean => seat.live.mean(),
            Latency::Peak => seat.live.peak(),
        };
        match signal.read() {
            Some(sample) => sample.micros * sample.weight(self.now, self.rule.decay) * (requests + 1.0),
            None => UNKNOWN_MICROS * requests,
        }
    }

    fn prefers(&self, other: &f32, best: &f32) -> bool {
        *best > *other * self.rule.margin
    }
}

//! What came of requests, on its way to the pickers.
//!
//! Each worker collects outcomes for itself and merges them into the shared [`Live`] every 10 ms, so that a request
//! writes nothing that another worker reads but the count in flight.
//!
//! Peak EWMA is Finagle's (`PeakEwma.scala`; linkerd's and tower's are the same): a latency above the estimate replaces
//! it, one below moves it by `1 - e^(-time since the last update / decay)`, and while nothing comes the estimate decays,
//! so that a backend that was slow is tried again. Where it differs: outcomes are merged in batches, of which the
//! greatest may be a peak and the mean moves the estimate; failures count as latency; and the estimate is shared by all
//! workers, so that each learns from what any of them saw.

use crate::backend::{Live, Smoothing, Tick};
use foldhash::fast::FixedState;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// A backend's `Retry-After` counts up to this.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// What came of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// From when the request was sent, or the connection begun, to the response's head or the failure.
    pub latency: Duration,
    /// How it ended.
    pub kind: OutcomeKind,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutcomeKind {
    /// An answer that is no fault of the backend.
    Success,
    /// An answer that is, by whatever the caller takes for one, or one that could not be read.
    Error,
    /// Status 429, or 503 with the header.
    TooManyRequests {
        /// The header `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// No answer in time.
    Timeout,
    /// No connection.
    ConnectFailure,
    /// The client went away first: the backend would have taken at least so long.
    Abandoned,
}

impl Outcome {
    /// What it counts as; `None` where it says nothing.
    fn counts_as(self, smoothing: &Smoothing) -> Duration {
        let at_least = |least: Duration| self.latency.max(least);
        match self.kind {
            OutcomeKind::Success | OutcomeKind::Abandoned => self.latency,
            OutcomeKind::Error | OutcomeKind::Timeout | OutcomeKind::ConnectFailure => {
                at_least(smoothing.error_penalty)
            }
            OutcomeKind::TooManyRequests { retry_after } => {
                let wait = retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
                at_least(smoothing.error_penalty.max(wait))
            }
        }
    }
}

/// One worker's outcomes since its last merge.
#[derive(Debug, Default)]
pub struct Recorder {
    batches: HashMap<usize, Batch, FixedState>,
}

#[derive(Debug)]
struct Batch {
    /// Kept, so that the address by which the batch is found stays this backend's.
    live: Arc<Live>,
    smoothing: Smoothing,
    peak_micros: f32,
    sum_micros: f32,
    count: u32,
    /// The longest that an abandoned request was waited for.
    abandoned_micros: f32,
}

impl Recorder {
    /// Keeps an outcome until the next merge. `smoothing` is the set's ([`crate::backend::Algorithm::smoothing`]). O(1).
    pub fn record(&mut self, live: &Arc<Live>, smoothing: Smoothing, outcome: Outcome) {
        let batch = self.batches.entry(Arc::as_ptr(live).addr()).or_insert_with(|| Batch {
            live: Arc::clone(live),
            smoothing,
            peak_micros: 0.0,
            sum_micros: 0.0,
            count: 0,
            abandoned_micros: 0.0,
        });
        let micros = outcome.counts_as(&smoothing).as_secs_f32() * 1e6;
        if outcome.kind == OutcomeKind::Abandoned {
            batch.abandoned_micros = batch.abandoned_micros.max(micros);
        } else {
            batch.peak_micros = batch.peak_micros.max(micros);
            batch.sum_micros += micros;
            batch.count += 1;
        }
    }

    /// Gives what was collected to the pickers of all workers. O(1) for each backend that had an outcome.
    ///
    /// To be called every 10 ms or so: until then an outcome steers nothing. `now` is since the process began.
    pub fn merge(&mut self, now: Duration) {
        let now = Tick::at(now);
        for (_, batch) in self.batches.drain() {
            batch.merge(now);
        }
    }
}

impl Batch {
    fn merge(&self, now: Tick) {
        let decay = crate::backend::Decay::over(self.smoothing.decay);
        let mean = (self.count > 0).then(|| self.sum_micros / self.count as f32);
        for (signal, jumps) in [(self.live.peak(), true), (self.live.mean(), false)] {
            let Some(mean) = mean.or_else(|| self.abandoned(signal.read().map(|sample| sample.micros)))
            else {
                continue;
            };
            let peak = self.peak_micros.max(self.abandoned_micros);
            signal.update(now, |before| match before {
                None if jumps => peak,
                None => mean,
                Some(sample) => {
                    let weight = sample.weight(now, decay);
                    let decayed = sample.micros * weight;
                    if jumps && peak > decayed { peak } else { decayed + mean * (1.0 - weight) }
                }
            });
        }
    }

    /// Abandoned requests alone say something only where they waited for longer than is known.
    fn abandoned(&self, known: Option<f32>) -> Option<f32> {
        (self.abandoned_micros > known.unwrap_or(0.0)).then_some(self.abandoned_micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn merged(outcomes: &[(u64, Outcome)]) -> Arc<Live> {
        let live = Arc::<Live>::default();
        let mut recorder = Recorder::default();
        for (at_ms, outcome) in outcomes {
            recorder.record(&live, Smoothing::default(), *outcome);
            recorder.merge(Duration::from_millis(*at_ms));
        }
        live
    }

    fn success(ms: u32) -> Outcome {
        Outcome { latency: ms * MS, kind: OutcomeKind::Success }
    }

    fn peak_ms(live: &Live) -> f32 {
        live.peak().read().expect("merged").micros / 1000.0
    }

    #[test]
    fn a_peak_counts_at_once_and_fades_by_the_time_constant() {
        let live = merged(&[(0, success(10)), (10, success(500))]);
        assert!((peak_ms(&live) - 500.0).abs() < 0.01);
        // Ten seconds later a mean of 10 ms: 500 / e + 10 * (1 - 1 / e).
        let live = merged(&[(0, success(10)), (10, success(500)), (10_010, success(10))]);
        assert!((peak_ms(&live) - 190.3).abs() < 1.0, "{}", peak_ms(&live));
    }

    #[test]
    fn the_mean_does_not_jump() {
        let live = merged(&[(0, success(10)), (10, success(500))]);
        let mean = live.latency().expect("merged");
        assert!(mean >= 10 * MS && mean < 11 * MS, "{mean:?}");
    }

    #[test]
    fn failures_count_as_latency_however_fast_they_come() {
        let of = |kind| {
            let live = merged(&[(0, Outcome { latency: MS, kind })]);
            live.latency().expect("merged").as_secs_f64().round()
        };
        let retry_after =
            |secs| OutcomeKind::TooManyRequests { retry_after: Some(Duration::from_secs(secs)) };
        for (kind, seconds) in [
            (OutcomeKind::Success, 0.0),
            (OutcomeKind::Error, 1.0),
            (OutcomeKind::Timeout, 1.0),
            (OutcomeKind::ConnectFailure, 1.0),
            (OutcomeKind::TooManyRequests { retry_after: None }, 1.0),
            (retry_after(0), 1.0),
            (retry_after(20), 20.0),
            (retry_after(60), 60.0),
            (retry_after(61), 60.0),
        ] {
            assert!((of(kind) - seconds).abs() < f64::EPSILON, "{kind:?}");
        }
    }

    #[test]
    fn an_abandoned_request_counts_only_where_it_waited_longer_than_is_known() {
        let abandoned = |ms: u32| Outcome { latency: ms * MS, kind: OutcomeKind::Abandoned };
        assert!((peak_ms(&merged(&[(0, success(10)), (10, abandoned(5))])) - 10.0).abs() < 0.01);
        assert!((peak_ms(&merged(&[(0, success(10)), (10, abandoned(50))])) - 50.0).abs() < 0.01);
    }

    #[test]
    fn nothing_collected_merges_nothing() {
        let mut recorder = Recorder::default();
        recorder.merge(Duration::ZERO);
        assert_eq!(merged(&[]).latency(), None);
    }
}

//! How long changes take, from the moment at which they were seen to the acknowledgement of a proxy.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

/// Upper bounds of the buckets, in seconds: from what one proxy takes to what nobody should wait for.
pub const PROPAGATION_BOUNDS_S: [f64; 16] =
    [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Times of one proxy that are remembered, the newest.
pub const RECENT_MAX: usize = 128;

/// What a change is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Of the members of backend sets alone.
    Endpoints,
    /// Of the configuration.
    Config,
}

/// The label of [`Lane`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfLane {
    lane: Lane,
}

/// The times of all proxies, for the metrics.
#[derive(Debug, Clone)]
pub(crate) struct Propagation(Family<OfLane, Histogram>);

/// What one acknowledgement settles in each lane, and how long the oldest of it took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Settled {
    pub(super) endpoints: Option<Duration>,
    pub(super) config: Option<Duration>,
}

/// The newest times of one proxy.
#[derive(Debug, Default)]
pub(super) struct Recent(VecDeque<Duration>);

/// What the newest [`RECENT_MAX`] changes took to one proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Took {
    /// The newest of all.
    pub last: Duration,
    /// Half of them took no longer.
    pub p50: Duration,
    /// All but one in a hundred took no longer.
    pub p99: Duration,
    /// The slowest of them.
    pub longest: Duration,
    /// How many there are, 1 to [`RECENT_MAX`].
    pub count: usize,
}

impl Propagation {
    pub(super) fn add(&self, settled: Settled) {
        for (lane, took) in settled.lanes() {
            self.0.get_or_create(&OfLane { lane }).observe(took.as_secs_f64());
        }
    }

    /// For the registry; shares its numbers with this.
    pub(crate) fn family(&self) -> Family<OfLane, Histogram> {
        self.0.clone()
    }
}

impl Default for Propagation {
    fn default() -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(PROPAGATION_BOUNDS_S);
        let family = Family::new_with_constructor(histogram);
        // Both are there from the start, so that a rate over them has a beginning.
        for lane in [Lane::Endpoints, Lane::Config] {
            drop(family.get_or_create(&OfLane { lane }));
        }
        Self(family)
    }
}

impl Settled {
    fn lanes(self) -> impl Iterator<Item = (Lane, Duration)> {
        let both = [(Lane::Endpoints, self.endpoints), (Lane::Config, self.config)];
        both.into_iter().filter_map(|(lane, took)| took.map(|took| (lane, took)))
    }
}

impl Recent {
    pub(super) fn add(&mut self, settled: Settled) {
        for (_, took) in settled.lanes() {
            if self.0.len() >= RECENT_MAX {
                self.0.pop_front();
            }
            self.0.push_back(took);
        }
    }

    /// `None` before the first.
    pub(super) fn took(&self) -> Option<Took> {
        let last = *self.0.back()?;
        let mut sorted: Vec<_> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        // The nearest rank: a time that was measured, and never one between two.
        let at = |percent: usize| sorted[(sorted.len() * percent).div_ceil(100).saturating_sub(1)];
        Some(Took { last, p50: at(50), p99: at(99), longest: at(100), count: sorted.len() })
    }
}

impl EncodeLabelValue for Lane {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        let word = match self {
            Self::Endpoints => "endpoints",
            Self::Config => "config",
        };
        EncodeLabelValue::encode(&word, encoder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(times_ms: impl IntoIterator<Item = u64>) -> Option<[u64; 5]> {
        let mut recent = Recent::default();
        for ms in times_ms {
            recent.add(Settled { endpoints: Some(Duration::from_millis(ms)), config: None });
        }
        let Took { last, p50, p99, longest, count } = recent.took()?;
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).expect("small");
        Some([ms(last), ms(p50), ms(p99), ms(longest), count as u64])
    }

    #[test]
    fn the_newest_times_are_told_up_to_the_limit_and_older_ones_are_forgotten() {
        assert_eq!(of([]), None);
        assert_eq!(of([7]), Some([7, 7, 7, 7, 1]));
        assert_eq!(of([1, 9]), Some([9, 1, 9, 9, 2]));
        assert_eq!(of(1..=100), Some([100, 50, 99, 100, 100]));
        let limit = RECENT_MAX as u64;
        assert_eq!(of(1..=limit).map(|told| (told[3], told[4])), Some((limit, limit)));
        let past = of(std::iter::once(1_000_000).chain(1..=limit));
        assert_eq!(past.map(|told| (told[3], told[4])), Some((limit, limit)), "the slowest is the oldest");
    }
}

//! What happened to requests lately, for one backend of a set.

use super::moment::Moment;
use std::time::Duration;

/// Parts of a window; outcomes leave it a part at a time.
const BUCKETS: usize = 10;

/// Outcomes of requests to one backend that ended since the last batch, from all workers.
///
/// A batch has no order within it. Each request is counted once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Batch {
    /// Requests that ended well.
    pub successes: u32,
    /// Requests that failed at the backend: a status that counts as failure, a broken exchange.
    pub errors: u32,
    /// Requests without an answer in time.
    pub timeouts: u32,
    /// Requests for which no connection could be made.
    pub connect_failures: u32,
    /// Time to the response's head, summed over the successes.
    pub latency_sum: Duration,
}

impl Batch {
    /// All that failed.
    #[must_use]
    pub fn failures(&self) -> u64 {
        u64::from(self.errors) + u64::from(self.timeouts) + u64::from(self.connect_failures)
    }

    /// Adds what another worker counted.
    pub fn merge(&mut self, other: &Self) {
        self.successes = self.successes.saturating_add(other.successes);
        self.errors = self.errors.saturating_add(other.errors);
        self.timeouts = self.timeouts.saturating_add(other.timeouts);
        self.connect_failures = self.connect_failures.saturating_add(other.connect_failures);
        self.latency_sum = self.latency_sum.saturating_add(other.latency_sum);
    }
}

/// Sums over some outcomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Sums {
    pub(super) successes: u64,
    pub(super) failures: u64,
    latency_sum: Duration,
}

impl Sums {
    pub(super) fn outcomes(&self) -> u64 {
        self.successes + self.failures
    }

    /// Failures among a thousand outcomes, rounded down; 0 without any.
    pub(super) fn failure_permille(&self) -> u64 {
        (self.failures * 1000).checked_div(self.outcomes()).unwrap_or(0)
    }

    /// Whether the failures are more than this share; exact where `failure_permille` rounds.
    pub(super) fn fail_more_than(&self, permille: u16) -> bool {
        self.failures * 1000 > self.outcomes() * u64::from(permille)
    }

    /// Mean latency of the successes.
    pub(super) fn mean_latency(&self) -> Option<Duration> {
        let successes = u32::try_from(self.successes).unwrap_or(u32::MAX);
        self.latency_sum.checked_div(successes)
    }

    fn add(&mut self, other: &Self) {
        self.successes += other.successes;
        self.failures += other.failures;
        self.latency_sum = self.latency_sum.saturating_add(other.latency_sum);
    }
}

/// A ring of buckets that cover the window's length.
#[derive(Debug, Clone)]
pub(super) struct Window {
    bucket_length: Duration,
    buckets: [Sums; BUCKETS],
    /// The newest bucket, counted from the start of time.
    newest: u64,
}

impl Window {
    pub(super) fn new(length: Duration) -> Self {
        // The shortest window is a second, so a bucket is never nothing.
        let bucket_length = (length / 10).max(Duration::from_millis(1));
        Self { bucket_length, buckets: Default::default(), newest: 0 }
    }

    pub(super) fn add(&mut self, now: Moment, batch: &Batch) {
        self.advance(now);
        let successes = u64::from(batch.successes);
        let sums = Sums { successes, failures: batch.failures(), latency_sum: batch.latency_sum };
        self.buckets[slot(self.newest)].add(&sums);
    }

    /// The newest outcomes, whole buckets of them, until there are at least `count`; all where there are fewer.
    pub(super) fn newest(&mut self, now: Moment, count: u32) -> Sums {
        self.advance(now);
        let mut sums = Sums::default();
        for age in 0..(BUCKETS as u64).min(self.newest + 1) {
            sums.add(&self.buckets[slot(self.newest - age)]);
            if sums.outcomes() >= u64::from(count) {
                break;
            }
        }
        sums
    }

    pub(super) fn clear(&mut self) {
        self.buckets = Default::default();
    }

    /// Empties the buckets that time has passed over.
    fn advance(&mut self, now: Moment) {
        let passed = now.since(Moment::START).as_nanos() / self.bucket_length.as_nanos();
        let newest = u64::try_from(passed).unwrap_or(u64::MAX);
        let steps = newest.saturating_sub(self.newest).min(BUCKETS as u64);
        for step in 0..steps {
            self.buckets[slot(newest - step)] = Sums::default();
        }
        self.newest = self.newest.max(newest);
    }
}

fn slot(bucket: u64) -> usize {
    usize::try_from(bucket % BUCKETS as u64).expect("less than ten")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Moment {
        Moment::after_start(Duration::from_millis(milliseconds))
    }

    fn failures(count: u32) -> Batch {
        Batch { errors: count, ..Batch::default() }
    }

    #[test]
    fn outcomes_leave_with_the_window() {
        let mut window = Window::new(Duration::from_secs(10));
        window.add(at(500), &failures(3));
        window.add(at(9_999), &failures(4));
        assert_eq!(window.newest(at(9_999), 100).failures, 7);
        assert_eq!(window.newest(at(10_000), 100).failures, 4);
        assert_eq!(window.newest(at(18_999), 100).failures, 4);
        assert_eq!(window.newest(at(19_000), 100).failures, 0);
        window.add(at(500_000), &failures(1));
        assert_eq!(window.newest(at(500_000), 100).failures, 1);
    }

    #[test]
    fn the_newest_outcomes_count_as_far_back_as_they_are_needed() {
        let mut window = Window::new(Duration::from_secs(10));
        for second in 0..5 {
            window.add(at(second * 1000), &failures(4));
        }
        assert_eq!(window.newest(at(4500), 4).outcomes(), 4);
        assert_eq!(window.newest(at(4500), 5).outcomes(), 8);
        assert_eq!(window.newest(at(4500), 1000).outcomes(), 20);
    }

    #[test]
    fn shares_and_means_of_nothing_are_nothing() {
        let nothing = Sums::default();
        assert_eq!((nothing.failure_permille(), nothing.mean_latency()), (0, None));
        assert!(!nothing.fail_more_than(1));
        let half = Sums { successes: 5, failures: 5, latency_sum: Duration::from_millis(50) };
        assert_eq!((half.failure_permille(), half.mean_latency()), (500, Some(Duration::from_millis(10))));
        assert!(!half.fail_more_than(500));
        assert!(half.fail_more_than(499));
    }

    #[test]
    fn batches_merge_and_never_overflow() {
        let full = Batch {
            successes: u32::MAX,
            errors: 1,
            timeouts: 2,
            connect_failures: 3,
            latency_sum: Duration::MAX,
        };
        let mut merged = full;
        merged.merge(&full);
        assert_eq!((merged.successes, merged.failures(), merged.latency_sum), (u32::MAX, 12, Duration::MAX));
    }
}

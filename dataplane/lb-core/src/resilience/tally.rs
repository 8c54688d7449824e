//! Two counts over a sliding window, without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Parts of a window; counts leave it a part at a time.
const BUCKETS: usize = 10;

/// Two counts over a sliding window, shared by all workers.
///
/// The window is ten buckets, the newest of which is still filling: it covers from nine tenths of its length to all of
/// it. A bucket is one word: the round in which it was last used (20 bits; a round is one window) and both counts (22
/// bits each). Who finds a bucket of an earlier round begins it anew in the same step, so that no count is lost and none
/// is counted for longer, but for these:
///
/// - A bucket whose count passes 4,194,303 is halved, both counts at once: their ratio stays.
/// - What comes a whole window late is left out.
/// - A bucket that was not used for 2^20 windows (12 days, for a window of a second), or up to 16 fewer, may count once
///   more, and refuses new counts until that many have passed.
#[derive(Debug)]
pub struct Tally {
    bucket_nanos: u64,
    buckets: [AtomicU64; BUCKETS],
}

const COUNT_BITS: u32 = 22;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;
const ROUNDS: u64 = 1 << (64 - 2 * COUNT_BITS);
/// A bucket that is at most so many rounds ahead of a worker is one of another worker, that is faster; beyond that it is
/// so old that rounds have wrapped.
const AHEAD_MAX: u64 = 16;

/// One bucket's word, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bucket {
    round: u64,
    a: u64,
    b: u64,
}

impl Bucket {
    fn of(word: u64) -> Self {
        Self { round: word >> (2 * COUNT_BITS), a: (word >> COUNT_BITS) & COUNT_MAX, b: word & COUNT_MAX }
    }

    fn word(self) -> u64 {
        (self.round << (2 * COUNT_BITS)) | (self.a << COUNT_BITS) | self.b
    }

    /// With these counts, in this round; `None` where the bucket has gone on to a later one.
    fn with(self, round: u64, a: u64, b: u64) -> Option<Self> {
        let ahead = self.round.wrapping_sub(round) % ROUNDS;
        let is_empty = self.a == 0 && self.b == 0;
        if (1..=AHEAD_MAX).contains(&ahead) && !is_empty {
            return None;
        }
        let before = if ahead == 0 { (self.a, self.b) } else { (0, 0) };
        let (mut a, mut b) = (before.0.saturating_add(a), before.1.saturating_add(b));
        while a.max(b) > COUNT_MAX {
            (a, b) = (a / 2, b / 2);
        }
        Some(Self { round, a, b })
    }
}

impl Tally {
    /// Nothing counted yet. A window of less than 10 ms counts as that.
    #[must_use]
    pub fn new(window: Duration) -> Self {
        let nanos = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
        Self { bucket_nanos: (nanos / BUCKETS as u64).max(1_000_000), buckets: Default::default() }
    }

    /// Adds to both. `now` is since the process began; workers' clocks may differ by a little. O(1).
    pub fn add(&self, now: Duration, a: u64, b: u64) {
        let (round, slot) = self.place(now);
        let bucket = &self.buckets[slot];
        let mut word = bucket.load(Ordering::Relaxed);
        while let Some(next) = Bucket::of(word).with(round, a, b) {
            match bucket.compare_exchange_weak(word, next.word(), Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(other) => word = other,
            }
        }
    }

    /// Both counts over the window that ends now. Ten loads.
    #[must_use]
    pub fn sums(&self, now: Duration) -> (u64, u64) {
        let (round, slot) = self.place(now);
        self.sums_with(round, slot, self.buckets[slot].load(Ordering::Relaxed))
    }

    /// Adds one to the second count where `allows` says so of both sums without it. Exact among workers that are in the
    /// same bucket: their bucket's word is what was judged by, or it is judged again.
    pub(super) fn add_b_if(&self, now: Duration, allows: impl Fn(u64, u64) -> bool) -> bool {
        let (round, slot) = self.place(now);
        let bucket = &self.buckets[slot];
        let mut word = bucket.load(Ordering::Relaxed);
        loop {
            let (a, b) = self.sums_with(round, slot, word);
            let Some(next) = Bucket::of(word).with(round, 0, 1).filter(|_| allows(a, b)) else {
                return false;
            };
            match bucket.compare_exchange_weak(word, next.word(), Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(other) => word = other,
            }
        }
    }

    /// Forgets all counts.
    pub fn clear(&self) {
        for bucket in &self.buckets {
            bucket.store(0, Ordering::Relaxed);
        }
    }

    /// The round and the bucket of a time.
    fn place(&self, now: Duration) -> (u64, usize) {
        let tick = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX) / self.bucket_nanos;
        let slot = usize::try_from(tick % BUCKETS as u64).expect("less than ten");
        ((tick / BUCKETS as u64) % ROUNDS, slot)
    }

    /// The sums, with `word` in place of what is in the newest bucket.
    fn sums_with(&self, round: u64, newest: usize, word: u64) -> (u64, u64) {
        let (mut a, mut b) = (0, 0);
        for (slot, bucket) in self.buckets.iter().enumerate() {
            let bucket = Bucket::of(if slot == newest { word } else { bucket.load(Ordering::Relaxed) });
            // Slots past the newest one were last used in the round before; a faster worker may have begun them.
            let ahead = bucket.round.wrapping_sub(round) % ROUNDS;
            let is_within = ahead == 0 || (slot > newest && ahead == ROUNDS - 1) || ahead == 1;
            if is_within {
                a += bucket.a;
                b += bucket.b;
            }
        }
        (a, b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::Rng;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn counts_leave_with_the_window() {
        let tally = Tally::new(10 * SECOND);
        tally.add(ms(500), 3, 1);
        tally.add(ms(9_999), 4, 2);
        assert_eq!(tally.sums(ms(9_999)), (7, 3));
        assert_eq!(tally.sums(ms(10_000)), (4, 2));
        assert_eq!(tally.sums(ms(18_999)), (4, 2));
        assert_eq!(tally.sums(ms(19_000)), (0, 0));
        tally.add(ms(500_000), 1, 0);
        assert_eq!(tally.sums(ms(500_000)), (1, 0));
        tally.clear();
        assert_eq!(tally.sums(ms(500_000)), (0, 0));
    }

    #[test]
    fn a_worker_whose_clock_is_behind_counts_and_sees_what_the_others_counted() {
        let tally = Tally::new(SECOND);
        tally.add(ms(1_000), 1, 0);
        tally.add(ms(999), 2, 0);
        assert_eq!(tally.sums(ms(1_000)), (3, 0));
        assert_eq!(tally.sums(ms(999)), (3, 0));
        tally.add(ms(1_999), 5, 0);
        tally.add(ms(999), 7, 0);
        assert_eq!(tally.sums(ms(1_999)), (6, 0), "a window late is too late");
    }

    #[test]
    fn a_full_bucket_is_halved_and_keeps_the_ratio() {
        let tally = Tally::new(SECOND);
        tally.add(ms(0), COUNT_MAX, 1_000);
        assert_eq!(tally.sums(ms(0)), (COUNT_MAX, 1_000));
        tally.add(ms(0), 1, 0);
        assert_eq!(tally.sums(ms(0)), (COUNT_MAX.div_ceil(2), 500));
        tally.add(ms(0), u64::MAX, 0);
        assert!(tally.sums(ms(0)).0 <= COUNT_MAX);
    }

    #[test]
    fn rounds_that_wrap_neither_keep_nor_refuse_counts() {
        let rounds = u32::try_from(ROUNDS).expect("20 bits");
        for idle in [rounds / 2, rounds - 17, rounds + 1] {
            let tally = Tally::new(SECOND);
            tally.add(ms(50), 9, 9);
            let later = SECOND * idle;
            tally.add(later + ms(50), 1, 2);
            assert_eq!(tally.sums(later + ms(999)), (1, 2), "after {idle} windows");
        }
        let tally = Tally::new(SECOND);
        let last = SECOND * (rounds - 1);
        tally.add(last + ms(950), 1, 2);
        tally.add(last + ms(1_050), 3, 4);
        assert_eq!(tally.sums(last + ms(1_050)), (4, 6), "a window over the wrap");
        assert_eq!(tally.sums(last + ms(1_999)), (3, 4));
    }

    #[test]
    fn workers_that_add_at_once_lose_nothing() {
        let tally = Tally::new(SECOND);
        #[expect(clippy::disallowed_methods, reason = "a test of what threads do at once")]
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let tally = &tally;
                scope.spawn(move || {
                    let mut rng = Rng::new(worker);
                    for _ in 0..10_000 {
                        tally.add(ms(2_000 + rng.below(1000) as u64), 1, 2);
                    }
                });
            }
        });
        assert_eq!(tally.sums(ms(2_999)), (40_000, 80_000));
    }

    proptest! {
        #[test]
        fn sums_are_those_of_whole_buckets_within_the_window(
            steps in prop::collection::vec((0u64..400, 0u64..50, 0u64..50), 1..200),
        ) {
            let tally = Tally::new(SECOND);
            let mut now = 0;
            let mut added: Vec<(u64, u64, u64)> = Vec::new();
            for (step, a, b) in steps {
                now += step;
                tally.add(ms(now), a, b);
                added.push((now / 100, a, b));
                let within = added.iter().filter(|(tick, ..)| tick + BUCKETS as u64 > now / 100);
                let wanted = within.fold((0, 0), |sum, (_, a, b)| (sum.0 + a, sum.1 + b));
                prop_assert_eq!(tally.sums(ms(now)), wanted);
            }
        }
    }
}

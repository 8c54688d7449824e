//! How long whoever dials waits, so that many of them do not come at once.

use std::hash::{BuildHasher as _, Hasher as _};
use std::time::Duration;

/// Wait before the second attempt to dial; doubles with each one that fails, half of it at random.
pub const BACKOFF_MIN: Duration = Duration::from_millis(100);

/// Longest wait between two attempts to dial.
pub const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Jitter. Need not be good, only different in each process.
#[derive(Debug)]
pub struct Random(u64);

impl Default for Random {
    fn default() -> Self {
        // The standard library seeds each process's hash keys from the system's random source.
        Self(std::collections::hash_map::RandomState::new().build_hasher().finish())
    }
}

impl Random {
    /// The same seed gives the same numbers.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        // SplitMix64 (Steele, Lea and Flood, 2014).
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Within a fifth of `middle`.
    pub fn around(&mut self, middle: Duration) -> Duration {
        self.between(middle * 4 / 5, middle * 6 / 5)
    }

    fn between(&mut self, from: Duration, to: Duration) -> Duration {
        let share = f64::from(u32::try_from(self.number() >> 32).unwrap_or(0)) / f64::from(u32::MAX);
        from + (to.saturating_sub(from)).mul_f64(share)
    }
}

/// Waits that double with each failure, from [`BACKOFF_MIN`] to [`BACKOFF_MAX`].
#[derive(Debug)]
pub struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(BACKOFF_MIN)
    }
}

impl Backoff {
    /// What was dialled works: the next failure is the first again.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// How long to wait after one more failure.
    pub fn wait(&mut self, random: &mut Random) -> Duration {
        let wait = random.between(self.0 / 2, self.0);
        self.0 = (self.0 * 2).min(BACKOFF_MAX);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit_and_begin_anew_after_success() {
        let (mut backoff, mut random) = (Backoff::default(), Random(7));
        let mut limit = BACKOFF_MIN;
        for _ in 0..10 {
            let wait = backoff.wait(&mut random);
            assert!(wait >= limit / 2 && wait <= limit, "{wait:?} of {limit:?}");
            limit = (limit * 2).min(BACKOFF_MAX);
        }
        assert_eq!(limit, BACKOFF_MAX);
        backoff.reset();
        assert!(backoff.wait(&mut random) <= BACKOFF_MIN);
    }
}

//! Points in time, told apart from lengths of time.

use std::ops::Add;
use std::time::Duration;

/// A point in time, as the time since a start that the caller chose and keeps. It never goes backwards.
///
/// Not `Instant`: only the clock can make one of those, and what is simulated here has none. Moments of two processes
/// do not compare; what another process saw arrives with its age and becomes `now` less that age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(Duration);

impl Moment {
    /// The caller's start.
    pub const START: Self = Self(Duration::ZERO);

    /// So long after the start.
    #[must_use]
    pub const fn after_start(passed: Duration) -> Self {
        Self(passed)
    }

    /// Time from `earlier` to here; zero where `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// So long before; the start where that is before it.
    #[must_use]
    pub fn earlier_by(self, length: Duration) -> Self {
        Self(self.0.saturating_sub(length))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, length: Duration) -> Self {
        Self(self.0.saturating_add(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_saturate_at_both_ends() {
        let second = Duration::from_secs(1);
        assert_eq!(Moment::START.since(Moment::START + second), Duration::ZERO);
        assert_eq!((Moment::START + second).since(Moment::START), second);
        assert_eq!(Moment::START.earlier_by(second), Moment::START);
        assert_eq!(Moment::after_start(Duration::MAX) + second, Moment::after_start(Duration::MAX));
    }
}

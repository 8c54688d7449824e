//! Which connection to a backend a request takes, and how many are kept.
//!
//! The pure half of one worker's connections to one backend: [`Pool`] where a connection has one exchange at a time,
//! [`Shared`] where it has many. The sockets are the caller's, as type `C`: what is dropped here is closed, and gives
//! back what it counts against ([`crate::backend::Connected`]).
//!
//! Each worker has its own, for a socket stays with the runtime that registered it; what a set allows the process is
//! given out by [`share`]. Where the most connections are open, and another worker's request wants one
//! ([`crate::backend::Live::wanted`]), [`Pool::shed`] and [`Shared::shed`] give up one that is idle.
//!
//! **Not here**: opening, waiting for one, and whether a request that failed on a kept connection is tried again.

mod idle;
mod life;
mod shared;

pub use idle::{Origin, Pool, Taken};
pub use shared::{ConnectionId, Shared};

use crate::backend::ConnectionLimits;
use std::time::Duration;

/// What one worker may keep of its connections to one backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Most that are idle; where [`Self::warm_min`] is more, that.
    pub idle_max: usize,
    /// Those that are idle for longer are closed.
    pub idle_timeout: Duration,
    /// So many stay open however long they are idle.
    pub warm_min: usize,
}

impl Keep {
    /// What worker `index` of `count` has of what a set allows the process.
    #[must_use]
    pub fn of(limits: &ConnectionLimits, index: usize, count: usize) -> Self {
        Self {
            idle_max: share(limits.idle_max as usize, index, count),
            idle_timeout: limits.idle_timeout,
            warm_min: share(limits.warm_min as usize, index, count),
        }
    }

    fn most(&self) -> usize {
        self.idle_max.max(self.warm_min)
    }
}

/// The part that worker `index` of `count` has of a number of the process: the parts of all workers come to exactly
/// `total`, and differ by one at most. A worker that is not one of them has none.
///
/// Where there are more workers than things the first ones have them; callers that share out many small numbers begin
/// with different workers.
#[must_use]
pub fn share(total: usize, index: usize, count: usize) -> usize {
    if index >= count {
        return 0;
    }
    total / count + usize::from(index < total % count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shares_differ_by_one_at_most() {
        for (total, count, wanted) in [
            (0, 3, &[0, 0, 0][..]),
            (1, 3, &[1, 0, 0]),
            (3, 3, &[1, 1, 1]),
            (5, 3, &[2, 2, 1]),
            (100, 1, &[100]),
        ] {
            let shares: Vec<usize> = (0..count).map(|index| share(total, index, count)).collect();
            assert_eq!(shares, wanted, "{total} among {count}");
        }
        assert_eq!((share(5, 3, 3), share(5, 0, 0)), (0, 0), "nobody");
    }

    #[test]
    fn what_the_workers_keep_comes_to_what_the_set_allows() {
        let limits = ConnectionLimits { idle_max: 5, warm_min: 2, ..ConnectionLimits::default() };
        let keeps = (0..3).map(|index| Keep::of(&limits, index, 3));
        let (idle, warm): (Vec<_>, Vec<_>) = keeps.map(|keep| (keep.idle_max, keep.warm_min)).unzip();
        assert_eq!((idle, warm), (vec![2, 2, 1], vec![1, 1, 0]));
    }

    proptest! {
        #[test]
        fn shares_come_to_the_whole(total in 0usize..100_000, count in 1usize..200) {
            prop_assert_eq!((0..count).map(|index| share(total, index, count)).sum::<usize>(), total);
        }
    }
}

//! When the changes of a pool go out on one stream.
//!
//! The first change after a quiet time goes at once. Those that follow it closely are held back until they stop coming,
//! and never for long, so that a rollout that moves a thousand backends is a few messages and not a thousand. What
//! takes a backend away is never held, and takes with it whatever of its pool is.
//!
//! Not a tick for all pools: pools that change together need not wait for one another. Not in the store either: each
//! stream has its own quiet times, since one that is slow conflates by itself.
//!
//! Costs O(log n) in the pools that are held back, and nothing for the others.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is held back goes when no change of its pool came for this long.
pub const COALESCE_QUIET: Duration = Duration::from_millis(10);

/// Longest time that a change is held back while others of its pool follow.
pub const COALESCE_MAX: Duration = Duration::from_millis(100);

/// Whether a change can be held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Urgency {
    /// It takes something away, or nothing of its pool was sent.
    AtOnce,
    /// More of the same may follow.
    MayWait,
}

/// What becomes of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// It goes, and with it what was held back.
    Now,
    /// [`Pace::due`] says when to look again.
    Later,
}

/// The pools of a stream that are held back, by when they go.
#[derive(Debug, Default)]
pub(super) struct Pace {
    due: BTreeSet<(Instant, Arc<str>)>,
}

/// One pool's.
#[derive(Debug, Default)]
pub(super) struct Beat {
    changed_at: Option<Instant>,
    held: Option<Box<Held>>,
}

#[derive(Debug)]
struct Held {
    since: Instant,
    due: Instant,
}

impl Beat {
    pub(super) fn is_held(&self) -> bool {
        self.held.is_some()
    }
}

impl Pace {
    /// The pool has changed.
    pub(super) fn changed(
        &mut self,
        pool: &Arc<str>,
        beat: &mut Beat,
        urgency: Urgency,
        now: Instant,
    ) -> Turn {
        let before = beat.changed_at.replace(now);
        let is_quiet = before.is_none_or(|before| now.duration_since(before) >= COALESCE_QUIET);
        let held = self.let_go(pool, beat);
        if urgency == Urgency::AtOnce || (held.is_none() && is_quiet) {
            return Turn::Now;
        }
        let since = held.map_or(now, |held| held.since);
        let due = (now + COALESCE_QUIET).min(since + COALESCE_MAX);
        if due <= now {
            return Turn::Now;
        }
        beat.held = Some(Box::new(Held { since, due }));
        self.due.insert((due, Arc::clone(pool)));
        Turn::Later
    }

    /// Everything of the pool that waits is being sent, or the pool is gone.
    pub(super) fn sent(&mut self, pool: &Arc<str>, beat: &mut Beat) {
        self.let_go(pool, beat);
    }

    fn let_go(&mut self, pool: &Arc<str>, beat: &mut Beat) -> Option<Held> {
        let held = *beat.held.take()?;
        self.due.remove(&(held.due, Arc::clone(pool)));
        Some(held)
    }

    /// When the first of the pools that are held back goes.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Takes out the first of the pools that are held back, if its time has come.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Arc<str>> {
        if self.due()? > now {
            return None;
        }
        self.due.pop_first().map(|(_, pool)| pool)
    }

    /// All pools that are held back.
    pub(super) fn held(&self) -> impl Iterator<Item = &Arc<str>> {
        self.due.iter().map(|(_, pool)| pool)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Turn::{Later, Now};
    use Urgency::{AtOnce, MayWait};

    /// Changes at these milliseconds, with what becomes of each and when what is held back goes then.
    fn check(steps: &[(u64, Urgency, Turn, Option<u64>)]) {
        let (begun, pool) = (Instant::now(), Arc::from("ns/p"));
        let (mut pace, mut beat) = (Pace::default(), Beat::default());
        for (at, urgency, turn, due) in steps {
            let now = begun + Duration::from_millis(*at);
            while pace.pop_due(now).is_some() {
                pace.sent(&pool, &mut beat);
            }
            assert_eq!(pace.changed(&pool, &mut beat, *urgency, now), *turn, "at {at} ms");
            assert_eq!(pace.due(), due.map(|due| begun + Duration::from_millis(due)), "at {at} ms");
        }
    }

    #[test]
    fn the_first_change_after_a_quiet_time_goes_at_once_and_those_close_behind_it_go_together() {
        check(&[
            (0, MayWait, Now, None),
            (9, MayWait, Later, Some(19)),
            (12, MayWait, Later, Some(22)),
            // Sent at 22, and the last change is 10 ms ago.
            (22, MayWait, Now, None),
            (32, MayWait, Now, None),
            (41, MayWait, Later, Some(51)),
        ]);
    }

    #[test]
    fn what_takes_something_away_goes_at_once_and_nothing_is_left_behind_it() {
        check(&[
            (0, MayWait, Now, None),
            (1, AtOnce, Now, None),
            (2, MayWait, Later, Some(12)),
            (3, AtOnce, Now, None),
            (4, MayWait, Later, Some(14)),
        ]);
    }

    #[test]
    fn a_change_is_held_back_for_no_longer_than_the_longest_time() {
        let every_millisecond = (1..=300).map(|at| {
            // Held since 1, 101 and 201, each time sent when the longest time is over.
            let since = (at - 1) / 100 * 100 + 1;
            (at, MayWait, Later, Some((at + 10).min(since + 100)))
        });
        check(&std::iter::once((0, MayWait, Now, None)).chain(every_millisecond).collect::<Vec<_>>());
    }
}

//! How long a backend leaves an idle connection open, learnt from those that it closed.
//!
//! A backend that closes an idle connection and a request on its way to it cross, and nobody can tell whether the
//! request was begun (RFC 9112, section 9.3.1). A request that must not be repeated therefore takes only connections that
//! have been idle for much less than the backend's own limit, which no header has to say and which is found out here.

use std::time::Duration;

/// Without a further observation what is known doubles each minute, so that a restart of the backend, which closes
/// connections of any age, is forgotten.
const DOUBLES_AFTER: Duration = Duration::from_secs(60);
/// What is learnt is not less than this, so that doubling it leads somewhere.
const LIFE_MIN: Duration = Duration::from_millis(1);
/// Beyond this nothing is known.
const LIFE_MAX: Duration = Duration::from_secs(3600);

/// The shortest idle time after which a connection was found closed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Life {
    /// `(idle time, when it was seen)`.
    shortest: Option<(Duration, Duration)>,
}

impl Life {
    /// A connection was found closed after so much idle time. One that lived longer than what is known says nothing: it
    /// may have been closed long before it was looked at.
    pub(super) fn observe(&mut self, now: Duration, idle: Duration) {
        let idle = idle.max(LIFE_MIN);
        if idle <= LIFE_MAX && self.at(now).is_none_or(|known| idle <= known) {
            self.shortest = Some((idle, now));
        }
    }

    /// What is known at this time.
    pub(super) fn at(&self, now: Duration) -> Option<Duration> {
        let (idle, seen) = self.shortest?;
        let doublings = now.saturating_sub(seen).as_secs() / DOUBLES_AFTER.as_secs();
        let factor = u32::try_from(doublings).ok().and_then(|doublings| 1u32.checked_shl(doublings))?;
        idle.checked_mul(factor).filter(|life| *life <= LIFE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn the_shortest_counts_and_a_longer_one_neither_replaces_nor_renews_it() {
        let mut life = Life::default();
        assert_eq!(life.at(secs(0)), None);
        for (at, idle, known) in [(0, 30, 30), (10, 20, 20), (20, 25, 20), (30, 20, 20)] {
            life.observe(secs(at), secs(idle));
            assert_eq!(life.at(secs(at)), Some(secs(known)), "at {at}");
        }
        life.observe(secs(85), secs(50));
        assert_eq!(life.at(secs(89)), Some(secs(20)));
        assert_eq!(life.at(secs(90)), Some(secs(40)), "a minute after it was last seen");
    }

    #[test]
    fn it_doubles_each_minute_and_is_forgotten_past_an_hour() {
        let mut life = Life::default();
        life.observe(secs(0), secs(900));
        for (at, known) in
            [(59, Some(900)), (60, Some(1800)), (120, Some(3600)), (180, None), (100_000, None)]
        {
            assert_eq!(life.at(secs(at)), known.map(secs), "at {at}");
        }
        life.observe(secs(180), secs(3601));
        assert_eq!(life.at(secs(180)), None, "more than an hour is not learnt");
        life.observe(secs(180), secs(3600));
        assert_eq!(life.at(secs(180)), Some(secs(3600)));
    }

    #[test]
    fn a_connection_that_closed_at_once_is_forgotten_too() {
        let mut life = Life::default();
        life.observe(secs(0), Duration::ZERO);
        assert_eq!(life.at(secs(0)), Some(LIFE_MIN));
        assert_eq!(life.at(secs(600)), Some(LIFE_MIN * 1024));
        assert_eq!(life.at(secs(22 * 60)), None);
        assert_eq!(life.at(secs(u64::MAX)), None);
    }
}

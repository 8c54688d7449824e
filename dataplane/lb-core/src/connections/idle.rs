//! Connections of HTTP/1.1, one exchange at a time on each.

use super::Keep;
use super::life::Life;
use std::collections::VecDeque;
use std::time::Duration;

/// Idle connections of one worker to one backend.
///
/// The one that was used last goes first, so that what is not needed ages out. Times are since the process began and do
/// not go back.
#[derive(Debug)]
pub struct Pool<C> {
    /// The one that is idle for longest is first.
    idle: VecDeque<Entry<C>>,
    life: Life,
}

#[derive(Debug)]
struct Entry<C> {
    connection: C,
    origin: Origin,
    since: Duration,
}

/// What a connection that is to be kept has behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It was opened to be warm, and no request had it yet. That its backend closes it then says nothing: a limit on the
    /// wait for a first request is another one than that on the wait between two.
    Opened,
    /// A request had it.
    Taken,
}

/// A kept connection, for a request.
#[derive(Debug)]
pub struct Taken<C> {
    /// Its backend may still be about to close it.
    pub connection: C,
    /// How long it was idle: what [`Pool::found_closed`] is told where it proves closed.
    pub idle: Duration,
}

impl<C> Default for Pool<C> {
    fn default() -> Self {
        Self { idle: VecDeque::new(), life: Life::default() }
    }
}

impl<C> Pool<C> {
    /// Connections that are idle.
    #[must_use]
    pub fn len(&self) -> usize {
        self.idle.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.idle.is_empty()
    }

    /// The connection that was used last. Those that are not `usable`, because their backend closed them, are dropped on
    /// the way, and learnt from. O(1) but for these.
    pub fn take(&mut self, now: Duration, usable: impl FnMut(&C) -> bool) -> Option<Taken<C>> {
        self.take_younger(now, Duration::MAX, usable)
    }

    /// As [`Self::take`], for a request that must not be repeated: a connection that has been idle for less than half of
    /// [`Self::life`], so that its backend is not about to close it. Any one while nothing is learnt.
    pub fn take_fresh(&mut self, now: Duration, usable: impl FnMut(&C) -> bool) -> Option<Taken<C>> {
        let age_max = self.life(now).map_or(Duration::MAX, |life| life / 2);
        self.take_younger(now, age_max, usable)
    }

    fn take_younger(
        &mut self,
        now: Duration,
        age_max: Duration,
        mut usable: impl FnMut(&C) -> bool,
    ) -> Option<Taken<C>> {
        loop {
            // The youngest: where it is too old, so are all others.
            let idle = now.saturating_sub(self.idle.back()?.since);
            if idle >= age_max {
                return None;
            }
            let entry = self.idle.pop_back()?;
            if usable(&entry.connection) {
                return Some(Taken { connection: entry.connection, idle });
            }
            entry.learn(&mut self.life, now);
        }
    }

    /// Keeps a connection whose last exchange is over. Where there are too many, the one that is idle for longest is
    /// closed.
    pub fn keep(&mut self, now: Duration, connection: C, origin: Origin, keep: &Keep) {
        self.idle.push_back(Entry { connection, origin, since: now });
        self.drop_surplus(keep);
    }

    fn drop_surplus(&mut self, keep: &Keep) {
        let surplus = self.idle.len().saturating_sub(keep.most());
        self.idle.drain(..surplus);
    }

    /// Closes those that are not `usable` or idle for too long, but keeps as many as are to be warm, the youngest.
    /// Returns how many it closed. O(n).
    pub fn expire(&mut self, now: Duration, keep: &Keep, mut usable: impl FnMut(&C) -> bool) -> usize {
        let before = self.idle.len();
        let life = &mut self.life;
        self.idle.retain(|entry| {
            let is_usable = usable(&entry.connection);
            if !is_usable {
                entry.learn(life, now);
            }
            is_usable
        });
        let is_old = |entry: &Entry<C>| now.saturating_sub(entry.since) >= keep.idle_timeout;
        while self.idle.len() > keep.warm_min && self.idle.front().is_some_and(is_old) {
            self.idle.pop_front();
        }
        self.drop_surplus(keep);
        before - self.idle.len()
    }

    /// How many connections have to be opened for as many to be open as are to be warm. `elsewhere` are those of this
    /// worker to this backend that are in use or being opened. Whoever opens waits after a failure: this does not.
    #[must_use]
    pub fn lacking(&self, elsewhere: usize, keep: &Keep) -> usize {
        keep.warm_min.saturating_sub(self.idle.len().saturating_add(elsewhere))
    }

    /// Gives up the connection that is idle for longest, so that another worker may open one.
    pub fn shed(&mut self) -> Option<C> {
        self.idle.pop_front().map(|entry| entry.connection)
    }

    /// A connection that was taken after so much idle time proved closed by its backend before anything came back.
    pub fn found_closed(&mut self, now: Duration, idle: Duration) {
        self.life.observe(now, idle);
    }

    /// The shortest idle time after which a connection that a request had had was found closed, of late: it doubles with
    /// each minute in which that is not seen again, and is forgotten past an hour.
    #[must_use]
    pub fn life(&self, now: Duration) -> Option<Duration> {
        self.life.at(now)
    }
}

impl<C> Entry<C> {
    fn learn(&self, life: &mut Life, now: Duration) {
        if self.origin == Origin::Taken {
            life.observe(now, now.saturating_sub(self.since));
        }
    }
}

#[cfg(test)]
mod tests;

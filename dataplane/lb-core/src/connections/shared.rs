//! Connections of HTTP/2, many streams at a time on each.
//!
//! Several connections for each backend: one alone is bounded by what its peer allows of streams, and by one core there.
//! A request takes the one with the fewest streams, so that none is full while another is idle.

use super::Keep;
use std::time::Duration;

/// Open connections of one worker to one backend.
///
/// Times are since the process began and do not go back.
#[derive(Debug)]
pub struct Shared<C> {
    /// In the order in which they were opened: at most as many as may be open, so a scan.
    open: Vec<Entry<C>>,
    next: u64,
}

/// Names a connection, as long as its [`Shared`] lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(u64);

#[derive(Debug)]
struct Entry<C> {
    id: ConnectionId,
    connection: C,
    streams: usize,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Takes streams.
    Open {
        /// When the last stream ended; of use while there is none.
        idle_since: Duration,
    },
    /// Keeps the streams that it has (GOAWAY), takes no more, and is dropped with the last.
    Closing,
}

impl<C> Default for Shared<C> {
    fn default() -> Self {
        Self { open: Vec::new(), next: 0 }
    }
}

impl<C> Shared<C> {
    /// Connections that are open, also those that are closing.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Streams on all of them.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.open.iter().map(|entry| entry.streams).sum()
    }

    /// The connection of this name, while it is there.
    #[must_use]
    pub fn get(&self, id: ConnectionId) -> Option<&C> {
        self.open.iter().find(|entry| entry.id == id).map(|entry| &entry.connection)
    }

    /// Counts one more stream on a connection, whatever it has: the request that opened it goes over it.
    pub fn enter(&mut self, id: ConnectionId) {
        if let Some(at) = self.position(id) {
            self.open[at].streams += 1;
        }
    }

    /// A connection that was opened; without streams.
    pub fn add(&mut self, now: Duration, connection: C) -> ConnectionId {
        let id = ConnectionId(self.next);
        self.next += 1;
        self.open.push(Entry { id, connection, streams: 0, state: State::Open { idle_since: now } });
        id
    }

    /// The connection with the fewest streams of those that have room, and counts one more on it until [`Self::done`].
    /// Of several the one that was opened first, so that the others may become idle. `streams_max_of` says how many one
    /// may have: the less of our own limit and its peer's, 0 where it takes none. O(n).
    pub fn take(&mut self, streams_max_of: impl Fn(&C) -> usize) -> Option<(ConnectionId, &C)> {
        let has_room = |entry: &&mut Entry<C>| entry.has_room(&streams_max_of);
        let entry = self.open.iter_mut().filter(has_room).min_by_key(|entry| entry.streams)?;
        entry.streams += 1;
        Some((entry.id, &entry.connection))
    }

    /// Whether [`Self::take`] would find one. O(n).
    pub fn has_room(&self, streams_max_of: impl Fn(&C) -> usize) -> bool {
        let has_room = |entry: &Entry<C>| entry.has_room(&streams_max_of);
        self.open.iter().any(has_room)
    }

    /// A stream has ended. A connection that is closing is dropped with the last of its streams. One that is gone
    /// already says nothing.
    pub fn done(&mut self, now: Duration, id: ConnectionId) {
        let Some(at) = self.position(id) else { return };
        let entry = &mut self.open[at];
        entry.streams = entry.streams.checked_sub(1).expect("each stream that was taken ends once");
        match &mut entry.state {
            State::Open { idle_since } => *idle_since = now,
            State::Closing if entry.streams == 0 => drop(self.open.remove(at)),
            State::Closing => {}
        }
    }

    /// The backend closes it gracefully: it takes no more streams, and is dropped once it has none.
    pub fn close(&mut self, id: ConnectionId) {
        let Some(at) = self.position(id) else { return };
        if self.open[at].streams == 0 {
            self.open.remove(at);
        } else {
            self.open[at].state = State::Closing;
        }
    }

    /// It broke: dropped with all its streams, whose [`Self::done`] then says nothing.
    pub fn remove(&mut self, id: ConnectionId) -> Option<C> {
        self.position(id).map(|at| self.open.remove(at).connection)
    }

    /// Closes those that are not `usable` and those without streams that are idle for too long or too many, but keeps
    /// as many open as are to be warm. One that is not usable and has streams is closing from now on. Returns how many
    /// it dropped. O(n log n).
    pub fn expire(&mut self, now: Duration, keep: &Keep, mut usable: impl FnMut(&C) -> bool) -> usize {
        let before = self.open.len();
        for entry in &mut self.open {
            if !usable(&entry.connection) {
                entry.state = State::Closing;
            }
        }
        self.open.retain(|entry| entry.state != State::Closing || entry.streams > 0);
        let mut idle: Vec<(Duration, ConnectionId)> = self.open.iter().filter_map(Entry::idle).collect();
        // Those that are idle for longest go first.
        idle.sort_unstable();
        let spare = self.ready().saturating_sub(keep.warm_min);
        let surplus = idle.len().saturating_sub(keep.most());
        let goes = |(at, (since, _)): &(usize, (Duration, ConnectionId))| {
            *at < surplus || now.saturating_sub(*since) >= keep.idle_timeout
        };
        for (_, (_, id)) in idle.into_iter().enumerate().take_while(goes).take(spare) {
            self.remove(id);
        }
        before - self.open.len()
    }

    /// How many connections have to be opened for as many to be open as are to be warm. `opening` are those of this
    /// worker to this backend that are being opened. Whoever opens waits after a failure: this does not.
    #[must_use]
    pub fn lacking(&self, opening: usize, keep: &Keep) -> usize {
        keep.warm_min.saturating_sub(self.ready().saturating_add(opening))
    }

    /// Gives up the connection that is idle for longest, so that another worker may open one.
    pub fn shed(&mut self) -> Option<C> {
        let (_, id) = self.open.iter().filter_map(Entry::idle).min()?;
        self.remove(id)
    }

    /// Those that take streams.
    fn ready(&self) -> usize {
        self.open.iter().filter(|entry| entry.state != State::Closing).count()
    }

    fn position(&self, id: ConnectionId) -> Option<usize> {
        self.open.iter().position(|entry| entry.id == id)
    }
}

impl<C> Entry<C> {
    fn has_room(&self, streams_max_of: impl Fn(&C) -> usize) -> bool {
        self.state != State::Closing && self.streams < streams_max_of(&self.connection)
    }

    /// Since when it has had no stream.
    fn idle(&self) -> Option<(Duration, ConnectionId)> {
        match self.state {
            State::Open { idle_since } if self.streams == 0 => Some((idle_since, self.id)),
            State::Open { .. } | State::Closing => None,
        }
    }
}

#[cfg(test)]
mod tests;

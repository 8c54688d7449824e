//! Connections without sockets, and what one worker has of them.

use lb_core::backend::{Connected, InFlight, Live};
use lb_core::connections::{ConnectionId, Keep, Origin, Pool, Shared};
use lb_core::resilience::Queue;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// From when a backend closes a connection to when a worker can see it.
const CLOSE_TAKES: Duration = Duration::from_millis(3);

/// What of a backend matters to its connections.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    pub(crate) live: Arc<Live>,
    /// Connections of an earlier one are dead.
    pub(crate) epoch: u64,
    pub(crate) epoch_since: Duration,
    /// It closes what is idle for longer.
    pub(crate) idle_max: Duration,
    /// Connections that exist, counted by themselves.
    pub(crate) open: Rc<Cell<u32>>,
}

/// A connection. Whoever drops it says so to those that wait.
#[derive(Debug)]
pub(crate) struct Wire<'a> {
    pub(crate) epoch: u64,
    pub(crate) idle_since: Option<Duration>,
    live: Arc<Live>,
    connected: Option<Connected>,
    queue: &'a Queue,
    open: Rc<Cell<u32>>,
}

impl<'a> Wire<'a> {
    pub(crate) fn new(host: &Host, connected: Connected, queue: &'a Queue) -> Self {
        host.open.set(host.open.get() + 1);
        let (live, open) = (Arc::clone(&host.live), Rc::clone(&host.open));
        Self { epoch: host.epoch, idle_since: None, live, connected: Some(connected), queue, open }
    }

    fn closed_at(&self, host: &Host) -> Option<Duration> {
        let by_restart = (self.epoch != host.epoch).then_some(host.epoch_since);
        let by_idleness = self.idle_since.map(|since| since + host.idle_max);
        by_restart.into_iter().chain(by_idleness).min()
    }

    /// Whether its backend has closed it.
    pub(crate) fn is_closed(&self, host: &Host, now: Duration) -> bool {
        self.closed_at(host).is_some_and(|at| at <= now)
    }

    /// Whether it seems open.
    pub(crate) fn is_usable(&self, host: &Host, now: Duration) -> bool {
        self.closed_at(host).is_none_or(|at| at + CLOSE_TAKES > now)
    }
}

impl Drop for Wire<'_> {
    fn drop(&mut self) {
        self.connected.take();
        self.open.set(self.open.get() - 1);
        self.queue.freed(&self.live);
    }
}

/// A slot. Whoever gives it back says so to those that wait.
#[derive(Debug)]
pub(crate) struct Slot<'a> {
    pub(crate) in_flight: Option<InFlight>,
    pub(crate) queue: &'a Queue,
}

impl Slot<'_> {
    pub(crate) fn live(&self) -> &Arc<Live> {
        self.in_flight.as_ref().expect("until it is dropped").live()
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let live = Arc::clone(self.live());
        self.in_flight.take();
        self.queue.freed(&live);
    }
}

/// What one worker has of one backend.
#[derive(Debug)]
pub(crate) enum Wires<'a> {
    Http1(Pool<Wire<'a>>),
    Http2(Shared<Wire<'a>>, usize),
}

/// What one exchange has of it.
#[derive(Debug)]
pub(crate) enum Line<'a> {
    Whole { wire: Wire<'a>, origin: Origin, idle: Duration },
    Stream(ConnectionId),
}

/// How an exchange leaves its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Came {
    Whole,
    /// In the middle of an exchange, or with its place wanted: of no further use where it has no other streams.
    Used,
    Closed,
}

impl<'a> Wires<'a> {
    /// Whether a request need not open a connection, or can make place for one.
    pub(crate) fn can_take(&self, host: &Host, now: Duration) -> bool {
        match self {
            Self::Http1(pool) => !pool.is_empty(),
            Self::Http2(shared, max) => {
                shared.has_room(|wire| if wire.is_usable(host, now) { *max } else { 0 })
            }
        }
    }

    pub(crate) fn take(&mut self, host: &Host, now: Duration, is_repeatable: bool) -> Option<Line<'a>> {
        match self {
            Self::Http1(pool) => {
                let usable = |wire: &Wire<'_>| wire.is_usable(host, now);
                let half = pool.life(now).map(|life| life / 2);
                let taken =
                    if is_repeatable { pool.take(now, usable) } else { pool.take_fresh(now, usable) }?;
                let is_fresh = half.is_none_or(|half| taken.idle < half);
                assert!(
                    is_repeatable || is_fresh,
                    "idle for {:?}, and half its life is {half:?}",
                    taken.idle
                );
                Some(Line::Whole { wire: taken.connection, origin: Origin::Taken, idle: taken.idle })
            }
            Self::Http2(shared, max) => {
                let max = *max;
                let taken = shared.take(|wire| if wire.is_usable(host, now) { max } else { 0 });
                taken.map(|(id, _)| Line::Stream(id))
            }
        }
    }

    /// A connection that was opened for a request.
    pub(crate) fn opened(&mut self, wire: Wire<'a>, host: &Host, now: Duration) -> Line<'a> {
        match self {
            Self::Http1(_) => Line::Whole { wire, origin: Origin::Opened, idle: Duration::ZERO },
            Self::Http2(shared, max) => {
                let (id, max) = (shared.add(now, wire), *max);
                let room = |wire: &Wire<'_>| if wire.is_usable(host, now) { max } else { 0 };
                let (taken, _) = shared.take(room).expect("it has no stream");
                assert_eq!(taken, id, "all others are full");
                Line::Stream(taken)
            }
        }
    }

    /// A connection that was opened for nobody.
    pub(crate) fn warmed(&mut self, mut wire: Wire<'a>, now: Duration, keep: &Keep) {
        match self {
            Self::Http1(pool) => {
                wire.idle_since = Some(now);
                pool.keep(now, wire, Origin::Opened, keep);
            }
            Self::Http2(shared, _) => {
                shared.add(now, wire);
            }
        }
    }

    /// Whether what an exchange is on is still there.
    pub(crate) fn is_whole(&self, line: &Line<'_>, host: &Host) -> bool {
        match (self, line) {
            (Self::Http2(shared, _), Line::Stream(id)) => {
                shared.get(*id).is_some_and(|wire| wire.epoch == host.epoch)
            }
            (_, Line::Whole { wire, .. }) => wire.epoch == host.epoch,
            (Self::Http1(_), Line::Stream(_)) => false,
        }
    }

    /// What an exchange had: kept, unless it is broken or somebody else wants its place.
    pub(crate) fn put_back(&mut self, line: Line<'a>, came: Came, host: &Host, now: Duration, keep: &Keep) {
        match (self, line) {
            (Self::Http1(pool), Line::Whole { mut wire, origin, idle }) => {
                if came == Came::Closed && origin == Origin::Taken {
                    pool.found_closed(now, idle);
                }
                if came == Came::Whole && wire.epoch == host.epoch {
                    wire.idle_since = Some(now);
                    pool.keep(now, wire, Origin::Taken, keep);
                }
            }
            (Self::Http2(shared, _), Line::Stream(id)) => {
                if came == Came::Closed || shared.get(id).is_some_and(|wire| wire.epoch != host.epoch) {
                    drop(shared.remove(id));
                } else {
                    shared.done(now, id);
                }
            }
            _ => panic!("a line of the other protocol"),
        }
    }

    pub(crate) fn give_up(&mut self) -> bool {
        match self {
            Self::Http1(pool) => pool.shed().is_some(),
            Self::Http2(shared, _) => shared.shed().is_some(),
        }
    }

    pub(crate) fn expire(&mut self, host: &Host, now: Duration, keep: &Keep) {
        let usable = |wire: &Wire<'_>| wire.is_usable(host, now);
        match self {
            Self::Http1(pool) => {
                pool.expire(now, keep, usable);
                assert!(pool.len() <= keep.idle_max.max(keep.warm_min));
            }
            Self::Http2(shared, _) => {
                shared.expire(now, keep, usable);
            }
        }
    }

    pub(crate) fn lacking(&self, elsewhere: usize, keep: &Keep) -> usize {
        match self {
            Self::Http1(pool) => pool.lacking(elsewhere, keep),
            Self::Http2(shared, _) => shared.lacking(0, keep),
        }
    }

    /// The backend says GOAWAY on all.
    pub(crate) fn go_away(&mut self, ids: &[ConnectionId]) {
        if let Self::Http2(shared, _) = self {
            ids.iter().for_each(|id| shared.close(*id));
        }
    }
}

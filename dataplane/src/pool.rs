//! Connections to backends that one worker keeps: idle ones for the next request, and those of HTTP/2, which requests share.
//!
//! One pool for each worker: no lock, and a connection's socket stays with the runtime that registered it. What is kept
//! and what goes is lb-core's ([`lb_core::connections`]); here are the sockets. Bounds are of the process: how many
//! connections a backend has at most is one count that all workers share, of all else each worker has its part.

use crate::http1;
use crate::http2;
use crate::proxied::Ends;
use crate::wire::Io;
use bytes::BytesMut;
use foldhash::HashMap;
use lb_core::backend::{
    Connected, Live, ProxyHeaderVersion, SetPolicy, TlsProfile, UpstreamProtocol, Wanted,
};
use lb_core::connections::{ConnectionId, Keep, Origin, Pool, Shared};
use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where requests of this worker and of others wait for connections to one backend, one in so many goes to the others:
/// a connection cannot move, and closing one to open another costs more than a request.
const GIVEN_AWAY_ONE_IN: u32 = 8;

/// Clients whose connections one worker keeps for them, where backends are told at a connection's begin whose it is. Past
/// it such connections are closed after their exchanges, so that who comes and goes fills neither memory nor backends.
const CLIENTS_MAX: usize = 1_024;

/// Whom connections are to, and for whom they are: what they are kept by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct To<'a> {
    pub(crate) live: &'a Arc<Live>,
    pub(crate) policy: &'a SetPolicy,
    /// That the backend is told of when a connection begins; `None` where it is told of nobody.
    pub(crate) client: Option<Ends>,
}

impl To<'_> {
    fn key(&self) -> Key {
        // Stays the same while an entry holds it.
        (Arc::as_ptr(self.live).addr(), self.client)
    }
}

/// The address of the backend's [`Live`], and the client.
type Key = (usize, Option<Ends>);

/// A connection for one exchange.
#[derive(Debug)]
pub(crate) enum Connection {
    Http1(Http1),
    Http2(Stream),
}

/// A connection of HTTP/1, which counts as one to its backend while it lives.
#[derive(Debug)]
pub(crate) struct Http1 {
    pub(crate) connection: http1::client::Connection,
    pub(crate) connected: Connected,
    /// How long it was idle before it was taken; `None` for a new one.
    idle: Option<Duration>,
}

impl Http1 {
    pub(crate) fn new(io: Io, connected: Connected) -> Self {
        Self { connection: http1::client::Connection::new(io), connected, idle: None }
    }

    fn is_usable(&self) -> bool {
        self.connection.wire.is_quiet()
    }
}

/// A stream's place on a connection of HTTP/2.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) connection: http2::client::Connection,
    id: ConnectionId,
    of: Weak<Kept>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(kept) = self.of.upgrade() {
            kept.shared.borrow_mut().done(kept.now(), self.id);
        }
    }
}

/// How sure it must be that a kept connection is still open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// As far as can be seen: a request that may be sent twice takes no harm.
    Any,
    /// The backend has not been known to close connections that were idle for so long.
    Certain,
}

/// Connections of one worker, by backend.
#[derive(Debug)]
pub(crate) struct Pools {
    /// Of the worker, of how many.
    index: usize,
    count: usize,
    started: Instant,
    backends: RefCell<HashMap<Key, Rc<Kept>>>,
    /// Of those, the ones that are of one client each.
    clients: Cell<usize>,
}

/// One worker's connections to one backend.
#[derive(Debug)]
struct Kept {
    live: Arc<Live>,
    /// Of all connections here: none that was secured otherwise is ever used.
    tls: Option<TlsProfile>,
    proxy_header: Option<ProxyHeaderVersion>,
    started: Instant,
    /// As the set said last.
    keep: Cell<Keep>,
    idle: RefCell<Pool<Http1>>,
    shared: RefCell<Shared<http2::client::Connection>>,
    /// Connections that are being opened.
    opening: Cell<usize>,
    /// Requests of this worker that wait for a connection, which count in [`Live::wanted`] too.
    waiting: Cell<u32>,
    /// Connections that came free while requests of this worker and of others waited.
    contested: Cell<u32>,
}

impl Kept {
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn is_of(&self, policy: &SetPolicy) -> bool {
        self.tls == policy.tls && self.proxy_header == policy.proxy_header
    }

    /// Whether a connection that came free is closed, so that another worker can open one: where nobody waits here, and
    /// else now and then.
    fn owes_it_to_others(&self) -> bool {
        let own = self.waiting.get();
        if self.live.wanted() <= own {
            return false;
        }
        let contested = self.contested.get().wrapping_add(u32::from(own > 0));
        self.contested.set(contested);
        own == 0 || contested.is_multiple_of(GIVEN_AWAY_ONE_IN)
    }
}

impl Pools {
    /// Of worker `index` of `count`.
    pub(crate) fn new(index: usize, count: usize) -> Self {
        Self { index, count, started: Instant::now(), backends: RefCell::default(), clients: Cell::new(0) }
    }

    fn of(&self, to: To<'_>) -> Rc<Kept> {
        let keep = Keep::of(&to.policy.connections, self.index, self.count);
        let mut backends = self.backends.borrow_mut();
        // What is idle goes with the entry; exchanges that go on have their connections themselves.
        let kept = backends.get(&to.key()).filter(|kept| kept.is_of(to.policy));
        if let Some(kept) = kept {
            kept.keep.set(keep);
            return Rc::clone(kept);
        }
        let kept = Rc::new(Kept {
            live: Arc::clone(to.live),
            tls: to.policy.tls.clone(),
            proxy_header: to.policy.proxy_header,
            started: self.started,
            keep: Cell::new(keep),
            idle: RefCell::default(),
            shared: RefCell::default(),
            opening: Cell::new(0),
            waiting: Cell::new(0),
            contested: Cell::new(0),
        });
        let before = backends.insert(to.key(), Rc::clone(&kept));
        let is_another = to.client.is_some() && before.is_none();
        self.clients.set(self.clients.get() + usize::from(is_another));
        kept
    }

    /// `None` also where the connections are begun otherwise than the policy says.
    fn known(&self, to: To<'_>) -> Option<Rc<Kept>> {
        let backends = self.backends.borrow();
        backends.get(&to.key()).filter(|kept| kept.is_of(to.policy)).cloned()
    }

    /// A kept connection that nobody closed as far as can be seen. It may still turn out closed.
    pub(crate) fn take(&self, to: To<'_>, freshness: Freshness) -> Option<Connection> {
        let kept = self.known(to)?;
        match to.policy.protocol {
            UpstreamProtocol::Http1 => {
                let (now, mut idle) = (kept.now(), kept.idle.borrow_mut());
                let taken = match freshness {
                    Freshness::Any => idle.take(now, Http1::is_usable),
                    Freshness::Certain => idle.take_fresh(now, Http1::is_usable),
                }?;
                Some(Connection::Http1(Http1 { idle: Some(taken.idle), ..taken.connection }))
            }
            UpstreamProtocol::Http2 => {
                let most = to.policy.connections.streams_max.get() as usize;
                let mut shared = kept.shared.borrow_mut();
                let (id, connection) = shared.take(|connection| connection.streams_max().min(most))?;
                let (connection, of) = (connection.clone(), Rc::downgrade(&kept));
                Some(Connection::Http2(Stream { connection, id, of }))
            }
        }
    }

    /// Shares a new connection of HTTP/2 with the requests that follow.
    pub(crate) fn share(&self, to: To<'_>, connection: http2::client::Connection) -> Connection {
        let kept = self.of(to);
        let mut shared = kept.shared.borrow_mut();
        let id = shared.add(kept.now(), connection.clone());
        shared.enter(id);
        Connection::Http2(Stream { connection, id, of: Rc::downgrade(&kept) })
    }

    /// Keeps a connection whose last exchange is over.
    pub(crate) fn keep(&self, to: To<'_>, connection: Connection) {
        // A place on one of HTTP/2 ends by itself.
        if let Connection::Http1(mut connection) = connection
            && connection.connection.buf.is_empty()
        {
            let Some(kept) = self.known(to) else { return };
            let is_one_too_many = to.client.is_some() && self.clients.get() > CLIENTS_MAX;
            if is_one_too_many || kept.owes_it_to_others() {
                return;
            }
            // An idle connection holds no buffer.
            connection.connection.buf = BytesMut::new();
            kept.idle.borrow_mut().keep(kept.now(), connection, Origin::Taken, &kept.keep.get());
        }
    }

    /// A kept connection turned out closed before anything came back.
    pub(crate) fn found_closed(&self, connection: &Connection, to: To<'_>) {
        if let Connection::Http1(Http1 { idle: Some(idle), .. }) = connection
            && let Some(kept) = self.known(to)
        {
            kept.idle.borrow_mut().found_closed(kept.now(), *idle);
        }
    }

    /// Whether a connection of HTTP/2 is being opened: requests that find none share it then.
    pub(crate) fn is_opening(&self, to: To<'_>) -> bool {
        self.known(to).is_some_and(|kept| kept.opening.get() > 0)
    }

    /// Counts a request as waiting for a connection until the guard drops.
    pub(crate) fn wait(&self, to: To<'_>) -> Waiting {
        let kept = self.of(to);
        kept.waiting.set(kept.waiting.get() + 1);
        Waiting { _wanted: to.live.want(), kept }
    }

    /// Counts a connection as being opened until the guard drops.
    pub(crate) fn open(&self, to: To<'_>) -> Opening {
        let kept = self.of(to);
        kept.opening.set(kept.opening.get() + 1);
        Opening(kept)
    }

    /// How many connections this worker has to open to a backend for as many to be open as are to be warm.
    pub(crate) fn lacking(&self, to: To<'_>) -> usize {
        let kept = self.of(to);
        let opening = kept.opening.get();
        match to.policy.protocol {
            UpstreamProtocol::Http1 => kept.idle.borrow().lacking(opening, &kept.keep.get()),
            UpstreamProtocol::Http2 => kept.shared.borrow().lacking(opening, &kept.keep.get()),
        }
    }

    /// Gives up idle connections that requests of other workers wait for.
    pub(crate) fn give_up_wanted(&self) {
        for kept in self.backends.borrow().values() {
            for _ in kept.waiting.get()..kept.live.wanted() {
                let has_given = kept.idle.borrow_mut().shed().is_some();
                if !has_given && kept.shared.borrow_mut().shed().is_none() {
                    break;
                }
            }
        }
    }

    /// Closes what has been idle for too long, and what its backend closed.
    pub(crate) fn expire(&self) {
        let mut backends = self.backends.borrow_mut();
        let are_too_many = self.clients.get() > CLIENTS_MAX;
        backends.retain(|(_, client), kept| {
            let (now, keep) = (kept.now(), kept.keep.get());
            let (mut idle, mut shared) = (kept.idle.borrow_mut(), kept.shared.borrow_mut());
            idle.expire(now, &keep, Http1::is_usable);
            shared.expire(now, &keep, |connection| connection.streams_max() > 0);
            if client.is_some() {
                // Of a client that has nothing under way and nothing kept, nothing is left. Where there are too many of
                // them, neither of those that have.
                let is_used = shared.streams() > 0 || kept.opening.get() > 0 || kept.waiting.get() > 0;
                let is_kept = !idle.is_empty() || !shared.is_empty();
                return is_used || (is_kept && !are_too_many);
            }
            // Each connection knows its backend, and so does this entry. Where nobody else does the backend is gone, and
            // with it the reason to keep any of them, however warm.
            // What was learnt of a backend stays as long as anybody does.
            Arc::strong_count(&kept.live) > 1 + idle.len() + shared.len()
        });
        self.clients.set(backends.keys().filter(|(_, client)| client.is_some()).count());
    }
}

/// A request that waits for a connection.
#[derive(Debug)]
pub(crate) struct Waiting {
    kept: Rc<Kept>,
    _wanted: Wanted,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.kept.waiting.set(self.kept.waiting.get() - 1);
    }
}

/// A connection that is being opened.
#[derive(Debug)]
pub(crate) struct Opening(Rc<Kept>);

impl Opening {
    /// It is open, and nobody needs it yet: kept warm.
    pub(crate) fn keep_warm(self, stream: Opened) {
        let kept = &self.0;
        match stream {
            Opened::Http1(connection) => {
                let mut idle = kept.idle.borrow_mut();
                idle.keep(kept.now(), connection, Origin::Opened, &kept.keep.get());
            }
            Opened::Http2(connection) => drop(kept.shared.borrow_mut().add(kept.now(), connection)),
        }
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.0.opening.set(self.0.opening.get() - 1);
    }
}

/// A connection that nobody has used yet.
#[derive(Debug)]
pub(crate) enum Opened {
    Http1(Http1),
    Http2(http2::client::Connection),
}

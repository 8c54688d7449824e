//! Connections to backends that one worker keeps: idle ones for the next request, and shared ones of HTTP/2.
//!
//! One pool for each worker: no lock, and a connection's socket stays with the runtime that registered it. What is kept
//! and what goes is lb-core's; here are the sockets. Bounds are of the process: the most connections to a backend is one
//! count that all workers share, of all else each worker has its part.

use crate::http1;
use crate::http2;
use foldhash::HashMap;
use lb_core::backend::{Connected, Live, SetPolicy};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;
use tokio::net::TcpStream;

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
}

/// A place on a connection of HTTP/2.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) connection: http2::client::Connection,
    streams: Rc<Cell<usize>>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.streams.set(self.streams.get() - 1);
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

impl Connection {
    pub(crate) fn http1(stream: TcpStream, connected: Connected) -> Self {
        Self::Http1(Http1 { connection: http1::client::Connection::new(stream), connected })
    }
}

/// Connections of one worker, by backend.
#[derive(Debug)]
pub(crate) struct Pools {
    index: usize,
    count: usize,
    backends: RefCell<HashMap<usize, Kept>>,
}

#[derive(Debug)]
struct Kept {
    live: Arc<Live>,
    idle: VecDeque<(Http1, Instant)>,
    shared: Vec<(http2::client::Connection, Rc<Cell<usize>>)>,
}

impl Pools {
    /// Of worker `index` of `count`.
    pub(crate) fn new(index: usize, count: usize) -> Self {
        Self { index, count, backends: RefCell::default() }
    }

    /// A kept connection that nobody closed as far as can be seen. It may still turn out stale.
    pub(crate) fn take(
        &self,
        live: &Arc<Live>,
        policy: &SetPolicy,
        _freshness: Freshness,
        _now: Instant,
    ) -> Option<Connection> {
        let mut backends = self.backends.borrow_mut();
        let kept = backends.get_mut(&Arc::as_ptr(live).addr())?;
        while let Some((entry, _)) = kept.idle.pop_back() {
            if entry.connection.wire.is_quiet() {
                return Some(Connection::Http1(entry));
            }
        }
        let most = policy.connections.streams_max.get() as usize;
        let free = kept
            .shared
            .iter()
            .filter(|(connection, streams)| streams.get() < connection.streams_max().min(most));
        let (connection, streams) = free.min_by_key(|(_, streams)| streams.get())?;
        streams.set(streams.get() + 1);
        Some(Connection::Http2(Stream { connection: connection.clone(), streams: Rc::clone(streams) }))
    }

    pub(crate) fn share(&self, live: &Arc<Live>, connection: http2::client::Connection) -> Connection {
        let mut backends = self.backends.borrow_mut();
        let kept = backends.entry(Arc::as_ptr(live).addr()).or_insert_with(|| Kept::new(live));
        let streams = Rc::new(Cell::new(1));
        kept.shared.push((connection.clone(), Rc::clone(&streams)));
        Connection::Http2(Stream { connection, streams })
    }

    /// Keeps a connection whose last exchange is over.
    pub(crate) fn keep(&self, live: &Arc<Live>, policy: &SetPolicy, connection: Connection, now: Instant) {
        let Connection::Http1(mut connection) = connection else { return };
        if !connection.connection.buf.is_empty() {
            return;
        }
        connection.connection.buf = bytes::BytesMut::new();
        let mut backends = self.backends.borrow_mut();
        let kept = backends.entry(Arc::as_ptr(live).addr()).or_insert_with(|| Kept::new(live));
        if kept.idle.len() < (policy.connections.idle_max as usize).div_ceil(self.count) && live.wanted() == 0
        {
            kept.idle.push_back((connection, now + policy.connections.idle_timeout));
        }
    }

    pub(crate) fn give_up_wanted(&self) {}

    /// Closes what has been idle for too long, and what its backend closed.
    pub(crate) fn expire(&self, now: Instant) {
        let _ = self.index;
        self.backends.borrow_mut().retain(|_, kept| {
            kept.idle.retain(|(entry, expires)| *expires > now && entry.connection.wire.is_quiet());
            kept.shared.retain(|(connection, _)| connection.streams_max() > 0);
            !kept.idle.is_empty() || !kept.shared.is_empty()
        });
    }
}

impl Kept {
    fn new(live: &Arc<Live>) -> Self {
        Self { live: Arc::clone(live), idle: VecDeque::new(), shared: Vec::new() }
    }
}

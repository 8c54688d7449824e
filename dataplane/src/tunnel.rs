//! After an upgrade: bytes both ways until both sides have ended, without looking at them.

use crate::connection::STALL_TIMEOUT;
use crate::http2::carried::{Carried, Incoming, Outgoing};
use crate::request::{Tunnel, TunnelTo};
use crate::timer::Deadline;
use crate::wire::Wire;
use crate::worker::Worker;
use bytes::{Bytes, BytesMut};
use std::cell::Cell;
use std::io;
use std::pin::pin;

/// Room for a read, in bytes. Held only while data is on its way.
const READ_BYTES: usize = 8 << 10;

/// One side of a tunnel.
pub(crate) enum Side<'a> {
    /// A connection that carries nothing else, and what was read from it already.
    Wire(&'a Wire, BytesMut),
    /// A stream of HTTP/2.
    Stream(Carried),
}

impl<'a> Side<'a> {
    fn split(self) -> (Inlet<'a>, Outlet<'a>) {
        match self {
            Self::Wire(wire, early) => (Inlet::Wire(wire, early), Outlet::Wire(wire)),
            Self::Stream(Carried { incoming, outgoing }) => {
                (Inlet::Stream(incoming), Outlet::Stream(outgoing))
            }
        }
    }
}

/// Carries bytes between a client and a backend.
///
/// A side that reads slowly slows down the other: one piece is under way in each direction, besides what HTTP/2's windows
/// let a side send ahead. A half-close is passed on, and the other direction then ends once nothing has moved in it for
/// [`STALL_TIMEOUT`]; before that silence has no limit. An error ends both directions, since no protocol goes on after it:
/// a stream of HTTP/2 is reset then. A peer that vanished is noticed by keep-alive probes of its connection.
pub(crate) async fn run(worker: &Worker, client: Side<'_>, tunnel: Tunnel) {
    let Tunnel { backend, held } = tunnel;
    let _open = Open::new(worker);
    match backend {
        TunnelTo::Http1(backend) => {
            backend.wire.keep_alive();
            carry(worker, client, Side::Wire(&backend.wire, backend.buf)).await;
        }
        TunnelTo::Http2(carried) => carry(worker, client, Side::Stream(carried)).await,
    }
    drop(held);
}

async fn carry(worker: &Worker, client: Side<'_>, backend: Side<'_>) {
    let deadline = worker.timers.deadline();
    let last = Last { is_alone: Cell::new(false), deadline: &deadline };
    let ((from_client, to_client), (from_backend, to_backend)) = (client.split(), backend.split());
    let mut up = pin!(copy(from_client, to_backend, &last));
    let mut down = pin!(copy(from_backend, to_client, &last));
    // A side that has ended keeps its half until both have: given up, a stream of HTTP/2 would be reset.
    let _ended = tokio::select! {
        end = &mut up => match end {
            Ok(half) => (half, last.within(down).await),
            Err(_) => return,
        },
        end = &mut down => match end {
            Ok(half) => (half, last.within(up).await),
            Err(_) => return,
        },
    };
}

/// What limits a direction once the other one has ended.
struct Last<'a> {
    is_alone: Cell<bool>,
    deadline: &'a Deadline,
}

impl Last<'_> {
    async fn within<T>(&self, direction: impl Future<Output = io::Result<T>>) -> Option<T> {
        self.is_alone.set(true);
        self.deadline.within(STALL_TIMEOUT, direction).await?.ok()
    }

    fn moved(&self) {
        if self.is_alone.get() {
            self.deadline.set(Some(STALL_TIMEOUT));
        }
    }
}

/// One direction; gives its ends back once `from` has ended and `to` knows.
async fn copy<'a>(
    mut from: Inlet<'a>,
    mut to: Outlet<'a>,
    last: &Last<'_>,
) -> io::Result<(Inlet<'a>, Outlet<'a>)> {
    loop {
        let next = tokio::select! { biased;
            next = from.next() => next?,
            () = to.gone() => return Err(io::ErrorKind::ConnectionReset.into()),
        };
        let Some(data) = next else {
            to.end().await?;
            return Ok((from, to));
        };
        to.write(data).await?;
        last.moved();
    }
}

enum Inlet<'a> {
    Wire(&'a Wire, BytesMut),
    Stream(Incoming),
}

impl Inlet<'_> {
    /// The next bytes; `None` at the end. Cancellation safe.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        match self {
            Self::Wire(wire, early) if early.is_empty() => {
                // An idle tunnel holds no buffer: most WebSockets are idle most of the time.
                wire.readable().await;
                let mut buf = BytesMut::with_capacity(READ_BYTES);
                let read = wire.read(&mut buf).await?;
                Ok((read > 0).then(|| buf.freeze()))
            }
            Self::Wire(_, early) => Ok(Some(std::mem::take(early).freeze())),
            Self::Stream(incoming) => incoming.next().await,
        }
    }
}

enum Outlet<'a> {
    Wire(&'a Wire),
    Stream(Outgoing),
}

impl Outlet<'_> {
    async fn write(&mut self, data: Bytes) -> io::Result<()> {
        match self {
            Self::Wire(wire) => wire.write(&data, &[]).await,
            Self::Stream(outgoing) => outgoing.write(data).await,
        }
    }

    async fn end(&mut self) -> io::Result<()> {
        match self {
            Self::Wire(wire) => wire.shutdown().await,
            Self::Stream(outgoing) => outgoing.end(),
        }
    }

    /// Waits until the other side takes nothing more; may never return. Cancellation safe.
    async fn gone(&mut self) {
        match self {
            // What the other direction reads tells.
            Self::Wire(_) => std::future::pending().await,
            Self::Stream(outgoing) => outgoing.gone().await,
        }
    }
}

/// Counts a tunnel for as long as it is open.
struct Open<'a>(&'a Worker);

impl<'a> Open<'a> {
    fn new(worker: &'a Worker) -> Self {
        worker.counters.tunnels.add(1);
        worker.counters.tunnels_open.add(1);
        Self(worker)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.counters.tunnels_open.sub(1);
    }
}

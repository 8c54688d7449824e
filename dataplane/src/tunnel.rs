//! Bytes both ways until both sides have ended: after an upgrade, and for connections of layer 4. Of what a WebSocket says,
//! only where frames end is looked at, so that it can be ended between two of them; of all else, nothing.

mod frames;

use crate::connection::{LINGER_TIMEOUT, STALL_TIMEOUT};
use crate::counters::{Count, Counters};
use crate::http2::carried::{Carried, Incoming, Outgoing};
use crate::request::{Relay, Tunnel, TunnelTo};
use crate::timer::Deadline;
use crate::wire::{Wire, poll_once};
use crate::worker::Worker;
use bytes::{Bytes, BytesMut};
use frames::{CLOSE_TO_BACKEND, CLOSE_TO_CLIENT, Frames};
use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

/// Room for a read of a WebSocket, in bytes. Held only while data is on its way.
const READ_BYTES: usize = 8 << 10;

/// The same at layer 4, where much may come at once: as much as the allocator keeps for a thread.
const RELAY_READ_BYTES: usize = 32 << 10;

/// Longest time that a tunnel which is to end goes on because a frame to the client has not ended.
const FRAME_END_LIMIT: Duration = Duration::from_secs(1);

/// One side of a tunnel.
pub(crate) enum Side<'a> {
    /// A connection that carries nothing else, and what was read from it already.
    Wire(&'a Wire, BytesMut),
    /// A stream of HTTP/2.
    Stream(Carried),
}

impl<'a> Side<'a> {
    fn split(self, room: usize) -> (Inlet<'a>, Outlet<'a>) {
        match self {
            Self::Wire(wire, early) => (Inlet::Wire { wire, early, room }, Outlet::Wire(wire)),
            Self::Stream(Carried { incoming, outgoing }) => {
                (Inlet::Stream(incoming), Outlet::Stream(outgoing))
            }
        }
    }
}

/// How a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Both sides have ended.
    Both,
    /// One of them broke off.
    Broken,
    /// Nothing moved for as long as it may.
    Idle,
    /// It was asked to go.
    Asked,
}

/// Carries bytes between a client and a backend that agreed on WebSocket.
///
/// A side that reads slowly slows down the other: one piece is under way in each direction, besides what HTTP/2's windows
/// let a side send ahead. A half-close is passed on, and the other direction then ends once nothing has moved in it for
/// [`STALL_TIMEOUT`]; before that silence has no limit. An error ends both directions, since no protocol goes on after it:
/// a stream of HTTP/2 is reset then. A peer that vanished is noticed by keep-alive probes of its connection. A tunnel whose
/// client, which came to `port`, is asked to go ends with a frame that says so, to both sides.
pub(crate) async fn run(worker: &Worker, port: u16, client: Side<'_>, tunnel: Box<Tunnel>) {
    let Tunnel { backend, set, held, account } = *tunnel;
    let _open = Open::new(&worker.counters.tunnels, &worker.counters.tunnels_open);
    let leave = worker.timers.deadline();
    leave.set_tunnel(port, &set);
    let (ended, bytes) = match backend {
        TunnelTo::Http1(backend) => {
            backend.wire.keep_alive();
            carry(worker, &leave, client, Side::Wire(&backend.wire, backend.buf), Kind::WebSocket).await
        }
        TunnelTo::Http2(carried) => {
            carry(worker, &leave, client, Side::Stream(carried), Kind::WebSocket).await
        }
    };
    account.into_iter().for_each(|account| account.carried(ended, bytes));
    drop(held);
}

/// Carries bytes between a client and a backend at layer 4. The same as for WebSockets but for three things: silence in both
/// directions has a limit from the begin, there is no word that could tell the end, and what ends otherwise than by both
/// sides ends with a reset to both, so that a part never passes for the whole.
pub(crate) async fn relay(
    worker: &Worker,
    port: u16,
    (client, early): (&Wire, BytesMut),
    relay: Relay,
) -> Ended {
    let Relay { backend, set, idle, held, account } = relay;
    let counters = &worker.counters;
    let _open = Open::new(&counters.layer4_connections, &counters.layer4_connections_open);
    let leave = worker.timers.deadline();
    leave.set_untold(port, &set);
    let sides = (Side::Wire(client, early), Side::Wire(&backend, BytesMut::new()));
    let (ended, bytes) = carry(worker, &leave, sides.0, sides.1, Kind::Bytes { idle }).await;
    account.into_iter().for_each(|account| account.carried(ended, bytes));
    if ended != Ended::Both {
        client.reset_on_close();
        backend.reset_on_close();
    }
    drop(held);
    ended
}

/// What a tunnel carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    WebSocket,
    /// Whatever they say; `idle` is how long they may stand still.
    Bytes {
        idle: Duration,
    },
}

impl Kind {
    fn read_bytes(self) -> usize {
        match self {
            Self::WebSocket => READ_BYTES,
            Self::Bytes { .. } => RELAY_READ_BYTES,
        }
    }

    /// Without frames there is no place between two of them.
    fn gap(self) -> Gap {
        Cell::new((self == Self::WebSocket).then(Frames::default))
    }
}

/// How it ended, and how many bytes were carried to the backend and to the client.
async fn carry(
    worker: &Worker,
    leave: &Deadline,
    client: Side<'_>,
    backend: Side<'_>,
    kind: Kind,
) -> (Ended, [u64; 2]) {
    let deadline = worker.timers.deadline();
    let (counters, carried) = (&*worker.counters, Default::default());
    let last = Last { kind, is_alone: Cell::new(false), deadline: &deadline, counters, carried };
    last.moved();
    // A side that has ended keeps its half until both have: given up, a stream of HTTP/2 would be reset.
    let room = kind.read_bytes();
    let ((mut from_client, mut to_client), (mut from_backend, mut to_backend)) =
        (client.split(room), backend.split(room));
    let (client_gap, backend_gap) = (kind.gap(), kind.gap());
    let ended = {
        let mut up = pin!(copy(&mut from_client, &mut to_backend, &last, &backend_gap, Way::Up));
        let mut down = pin!(copy(&mut from_backend, &mut to_client, &last, &client_gap, Way::Down));
        let both = async {
            tokio::select! {
                end = &mut up => {
                    end?;
                    last.is_left_alone();
                    down.await
                }
                end = &mut down => {
                    end?;
                    last.is_left_alone();
                    up.await
                }
            }
        };
        tokio::select! { biased;
            end = both => if end.is_ok() { Ended::Both } else { Ended::Broken },
            () = deadline.passed() => Ended::Idle,
            // Asked again whenever the task has moved bytes.
            () = ended(leave, worker, &client_gap, &last) => Ended::Asked,
        }
    };
    if ended == Ended::Asked {
        if is_between(&backend_gap) {
            // A backend that takes nothing keeps no client from its word.
            let _ = poll_once(to_backend.write(Bytes::from_static(&CLOSE_TO_BACKEND))).await;
        }
        if is_between(&client_gap) {
            let theirs = backend_gap.get().unwrap_or_default();
            let _ = deadline.within(LINGER_TIMEOUT, farewell(&mut from_client, &mut to_client, theirs)).await;
        }
    }
    (ended, last.carried.map(Cell::into_inner))
}

/// Where a frame of ours can go: `None` while bytes are being written, of which any part may be gone, and where there are no
/// frames.
type Gap = Cell<Option<Frames>>;

fn is_between(gap: &Gap) -> bool {
    gap.get().is_some_and(|frames| frames.is_between())
}

/// Waits until the tunnel is to end, and then until the client can be told, for [`FRAME_END_LIMIT`] at most.
async fn ended(leave: &Deadline, worker: &Worker, client: &Gap, last: &Last<'_>) {
    leave.passed().await;
    if last.kind != Kind::WebSocket {
        return;
    }
    let patience = worker.timers.deadline();
    patience.set(Some(FRAME_END_LIMIT));
    poll_fn(|cx| if is_between(client) { Poll::Ready(()) } else { patience.poll_passed(cx) }).await;
}

/// Tells the client, and waits until it has answered with a word of its own: bytes of it that nobody has read would turn
/// our end into a reset, which overtakes ours. `theirs` is how far its frames are.
async fn farewell(from: &mut Inlet<'_>, to: &mut Outlet<'_>, mut theirs: Frames) -> io::Result<()> {
    to.write(Bytes::from_static(&CLOSE_TO_CLIENT)).await?;
    while !theirs.has_closed() {
        let Some(bytes) = from.next().await? else { break };
        theirs.pass(&bytes);
    }
    to.end().await
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// To the backend.
    Up,
    /// To the client.
    Down,
}

/// What limits silence: of a WebSocket, in one direction once the other one has ended. And what was carried.
struct Last<'a> {
    kind: Kind,
    is_alone: Cell<bool>,
    deadline: &'a Deadline,
    counters: &'a Counters,
    /// Bytes, by [`Way`].
    carried: [Cell<u64>; 2],
}

impl Last<'_> {
    fn is_left_alone(&self) {
        self.is_alone.set(true);
        self.moved();
    }

    fn carries(&self, way: Way, bytes: usize) {
        let (way, bytes) = (way as usize, bytes as u64);
        self.carried[way].update(|carried| carried + bytes);
        if let Kind::Bytes { .. } = self.kind {
            self.counters.layer4_bytes[way].add(bytes);
        }
    }

    fn moved(&self) {
        match self.kind {
            Kind::Bytes { idle } => self.deadline.set(Some(idle)),
            Kind::WebSocket if self.is_alone.get() => self.deadline.set(Some(STALL_TIMEOUT)),
            Kind::WebSocket => {}
        }
    }
}

/// One direction, until `from` has ended and `to` knows. `gap` says where its frames are.
async fn copy(
    from: &mut Inlet<'_>,
    to: &mut Outlet<'_>,
    last: &Last<'_>,
    gap: &Gap,
    way: Way,
) -> io::Result<()> {
    loop {
        let next = tokio::select! { biased;
            next = from.next() => next?,
            () = to.gone() => return Err(io::ErrorKind::ConnectionReset.into()),
        };
        let mut frames = gap.take();
        let Some(data) = next else {
            // Nothing of ours can follow either.
            return to.end().await;
        };
        frames.iter_mut().for_each(|frames| frames.pass(&data));
        last.carries(way, data.len());
        to.write(data).await?;
        gap.set(frames);
        last.moved();
    }
}

enum Inlet<'a> {
    /// With room for so many bytes in a read.
    Wire {
        wire: &'a Wire,
        early: BytesMut,
        room: usize,
    },
    Stream(Incoming),
}

impl Inlet<'_> {
    /// The next bytes; `None` at the end. Cancellation safe.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        match self {
            Self::Wire { wire, early, room } if early.is_empty() => {
                // An idle tunnel holds no buffer: most WebSockets are idle most of the time.
                wire.readable().await;
                let mut buf = BytesMut::with_capacity(*room);
                let read = wire.read(&mut buf).await?;
                Ok((read > 0).then(|| buf.freeze()))
            }
            Self::Wire { early, .. } => Ok(Some(std::mem::take(early).freeze())),
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
struct Open<'a>(&'a Count);

impl<'a> Open<'a> {
    fn new(all: &Count, open: &'a Count) -> Self {
        all.add(1);
        open.add(1);
        Self(open)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.sub(1);
    }
}

/// The frames of any bytes end at the same places, however they are cut.
#[cfg(fuzzing)]
pub fn fuzz(bytes: &[u8]) {
    let Some((&step, bytes)) = bytes.split_first() else { return };
    let (mut whole, mut pieces) = (Frames::default(), Frames::default());
    whole.pass(bytes);
    bytes.chunks(usize::from(step) + 1).for_each(|piece| pieces.pass(piece));
    assert_eq!(whole.is_between(), pieces.is_between());
    assert_eq!(whole.has_closed(), pieces.has_closed());
}

//! After an upgrade: bytes both ways until both sides have ended. Of what they say, only where frames end is looked at,
//! so that a tunnel can be ended between two of them.

mod frames;

use crate::connection::{LINGER_TIMEOUT, Peer, STALL_TIMEOUT};
use crate::request::Tunnel;
use crate::timer::Deadline;
use crate::wire::Wire;
use crate::worker::Worker;
use bytes::BytesMut;
use frames::{CLOSE_TO_BACKEND, CLOSE_TO_CLIENT, Frames};
use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

/// Room for a read, in bytes. Held only while data is on its way.
const READ_BYTES: usize = 8 << 10;

/// Longest time that a tunnel which is to end goes on because a frame to the client has not ended.
const FRAME_END_LIMIT: Duration = Duration::from_secs(1);

/// Carries bytes between a client and a backend. `early` is what the client sent behind its request.
///
/// A half-close is passed on, and the other direction then has [`STALL_TIMEOUT`] to end; an error ends both, since
/// no protocol goes on after it. A peer that vanished is noticed by keep-alive probes. A tunnel whose client is asked to
/// go ends with a frame that says so, to both sides.
pub(crate) async fn run(worker: &Worker, peer: &Peer, client: &Wire, early: BytesMut, tunnel: Tunnel) {
    let Tunnel { backend, set, held } = tunnel;
    let (backend, greeting) = (backend.wire, backend.buf);
    backend.keep_alive();
    worker.counters.tunnels_open.add(1);
    let leave = worker.timers.deadline();
    leave.set_tunnel(peer.port, &set);
    let (to_client, to_backend) = (gap(), gap());
    let carry = async {
        let deadline = worker.timers.deadline();
        let mut up = pin!(copy(client, &backend, early, &to_backend));
        let mut down = pin!(copy(&backend, client, greeting, &to_client));
        tokio::select! {
            end = &mut up => if end.is_ok() {
                let _ = deadline.within(STALL_TIMEOUT, down).await;
            },
            end = &mut down => if end.is_ok() {
                let _ = deadline.within(STALL_TIMEOUT, up).await;
            },
        }
    };
    let patience = worker.timers.deadline();
    let is_to_end = tokio::select! { biased;
        () = carry => false,
        // Asked again whenever the task has moved bytes.
        () = ended(&leave, &patience, &to_client) => true,
    };
    if is_to_end {
        let _ =
            patience.within(LINGER_TIMEOUT, farewell((client, &to_client), (&backend, &to_backend))).await;
    }
    worker.counters.tunnels_open.sub(1);
    drop(held);
}

/// Where a frame of ours can go: `None` while bytes are being written, of which any part may be gone.
type Gap = Cell<Option<Frames>>;

fn gap() -> Gap {
    Cell::new(Some(Frames::default()))
}

fn is_between(gap: &Gap) -> bool {
    gap.get().is_some_and(|frames| frames.is_between())
}

/// Waits until the tunnel is to end, and then until the client can be told, as far as `patience` goes.
async fn ended(leave: &Deadline, patience: &Deadline, to_client: &Gap) {
    leave.passed().await;
    patience.set(Some(FRAME_END_LIMIT));
    poll_fn(|cx| if is_between(to_client) { Poll::Ready(()) } else { patience.poll_passed(cx) }).await;
}

/// Tells both sides, where their frames let us, and waits for the client to have read it.
async fn farewell(client: (&Wire, &Gap), backend: (&Wire, &Gap)) -> io::Result<()> {
    let (client, to_client) = client;
    let (backend, to_backend) = backend;
    if is_between(to_backend) {
        // A backend that takes nothing keeps no client from its word.
        let _ = crate::wire::poll_once(backend.write(&CLOSE_TO_BACKEND, &[])).await;
    }
    if !is_between(to_client) {
        return Ok(());
    }
    client.write(&CLOSE_TO_CLIENT, &[]).await?;
    // Until it has answered with its own: bytes of it that nobody has read would turn our end into a reset, which
    // overtakes the frame.
    let mut buf = BytesMut::with_capacity(READ_BYTES);
    let mut theirs = to_backend.get().unwrap_or_default();
    while !theirs.has_closed() {
        buf.clear();
        if client.read(&mut buf).await? == 0 {
            break;
        }
        theirs.pass(&buf);
    }
    client.shutdown().await
}

/// One direction. `gap` says where its frames are.
async fn copy(from: &Wire, to: &Wire, mut buf: BytesMut, gap: &Gap) -> io::Result<()> {
    loop {
        if !buf.is_empty() {
            let mut frames = gap.take();
            to.write(&buf, &[]).await?;
            frames.iter_mut().for_each(|frames| frames.pass(&buf));
            gap.set(frames);
        }
        // An idle tunnel holds no buffer: most WebSockets are idle most of the time.
        buf = BytesMut::new();
        from.readable().await;
        buf.reserve(READ_BYTES);
        if from.read(&mut buf).await? == 0 {
            // Nothing of ours can follow either.
            gap.set(None);
            return to.shutdown().await;
        }
    }
}

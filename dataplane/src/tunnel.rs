//! After an upgrade: bytes both ways until both sides have ended, without looking at them.

use crate::connection::STALL_TIMEOUT;
use crate::request::Tunnel;
use crate::wire::Wire;
use crate::worker::Worker;
use bytes::BytesMut;
use std::io;
use std::pin::pin;

/// Room for a read, in bytes. Held only while data is on its way.
const READ_BYTES: usize = 8 << 10;

/// Carries bytes between a client and a backend. `early` is what the client sent behind its request.
///
/// A half-close is passed on, and the other direction then has [`STALL_TIMEOUT`] to end; an error ends both, since
/// no protocol goes on after it. A peer that vanished is noticed by keep-alive probes.
pub(crate) async fn run(worker: &Worker, client: &Wire, early: BytesMut, tunnel: Tunnel) {
    let Tunnel { backend, held } = tunnel;
    let (backend, greeting) = (backend.wire, backend.buf);
    backend.keep_alive();
    worker.counters.tunnels_open.add(1);
    let deadline = worker.timers.deadline();
    let mut up = pin!(copy(client, &backend, early));
    let mut down = pin!(copy(&backend, client, greeting));
    tokio::select! {
        end = &mut up => if end.is_ok() {
            let _ = deadline.within(STALL_TIMEOUT, down).await;
        },
        end = &mut down => if end.is_ok() {
            let _ = deadline.within(STALL_TIMEOUT, up).await;
        },
    }
    worker.counters.tunnels_open.sub(1);
    drop(held);
}

async fn copy(from: &Wire, to: &Wire, mut buf: BytesMut) -> io::Result<()> {
    loop {
        if !buf.is_empty() {
            to.write(&buf, &[]).await?;
        }
        // An idle tunnel holds no buffer: most WebSockets are idle most of the time.
        buf = BytesMut::new();
        from.readable().await;
        buf.reserve(READ_BYTES);
        if from.read(&mut buf).await? == 0 {
            return to.shutdown().await;
        }
    }
}

//! After an upgrade: bytes both ways until either side ends, without looking at them.

use crate::http1::client;
use crate::wire::Wire;
use crate::worker::Worker;
use bytes::BytesMut;
use std::io;

/// Room for a read, in bytes. Held for as long as the tunnel is open, in each direction that has carried data.
const READ_BYTES: usize = 8 << 10;

/// Carries bytes between a client and a backend until both directions ended or one broke. `early` is what the
/// client sent behind its request.
pub(crate) async fn run(worker: &Worker, client: &Wire, early: BytesMut, backend: client::Connection) {
    let client::Connection { wire: backend, buf: greeting } = backend;
    worker.counters.tunnels_open.add(1);
    let up = copy(client, &backend, early);
    let down = copy(&backend, client, greeting);
    // Half-close is passed on; an error ends both, since no protocol goes on after it.
    let _ = tokio::try_join!(up, down);
    worker.counters.tunnels_open.sub(1);
}

async fn copy(from: &Wire, to: &Wire, mut buf: BytesMut) -> io::Result<()> {
    loop {
        if !buf.is_empty() {
            to.write(&buf, &[]).await?;
            buf.clear();
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

//! Opens connections to backends: for a request that finds none, and ahead of requests, as many as a set keeps warm.

use crate::course::Step;
use crate::failure::Failure;
use crate::http2;
use crate::pool::{Http1, Opened, To};
use crate::proxied;
use crate::tls::backends;
use crate::upstream;
use crate::wire::{self, Io};
use crate::worker::Worker;
use lb_core::backend::{BackendSet, Connected, Live, UpstreamProtocol};
use socket2::SockRef;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use tokio::io::AsyncWriteExt as _;
use tokio::task::spawn_local;

/// Connections that one worker begins to open ahead of requests in one round; the next round goes on.
const OPENED_AT_ONCE_MAX: usize = 64;

/// Opens a connection, within the set's time for it. `connected` counts it for as long as it is open.
pub(crate) async fn open(
    address: SocketAddr,
    to: To<'_>,
    connected: Connected,
    step: &Step<'_>,
) -> Result<Opened, Failure> {
    let io = dial(address, to, Some(to.policy.protocol), step).await?;
    match to.policy.protocol {
        UpstreamProtocol::Http1 => Ok(Opened::Http1(Http1::new(io, connected))),
        UpstreamProtocol::Http2 => {
            let connection = step.within(http2::client::Connection::new(io, connected)).await;
            let connection =
                connection.ok_or(Failure::ConnectTimeout)?.map_err(|_| Failure::ConnectFailed)?;
            Ok(Opened::Http2(connection))
        }
    }
}

/// Connects, tells the backend of the client where the set says so, and secures the connection where it does. `protocol` is
/// agreed on by ALPN; `None`: bytes are passed on for as long as they come.
pub(crate) async fn dial(
    address: SocketAddr,
    to: To<'_>,
    protocol: Option<UpstreamProtocol>,
    step: &Step<'_>,
) -> Result<Io, Failure> {
    let policy = to.policy;
    let mut stream = upstream::connect(address, step).await?;
    if protocol != Some(UpstreamProtocol::Http1) {
        // What it carries may wait for as long as it likes: a backend that vanished would keep it.
        let _ = SockRef::from(&stream).set_tcp_keepalive(&wire::keep_alive());
    }
    if let Some(version) = policy.proxy_header {
        // Before TLS, as its specification has it.
        let header = proxied::header(version, to.client);
        let sent = step.within(stream.write_all(&header)).await;
        sent.ok_or(Failure::ConnectTimeout)?.map_err(|_| Failure::ConnectFailed)?;
    }
    match &policy.tls {
        None => Ok(Io::Plain(stream)),
        // On the heap, for few requests begin with a handshake.
        Some(profile) => Ok(Io::Tls(Box::pin(backends::secure(profile, protocol, stream, step)).await?)),
    }
}

/// One round over the sets in force: begins to open what they lack.
pub(crate) fn round(worker: &Rc<Worker>) {
    let snapshot = worker.snapshot();
    let mut left = OPENED_AT_ONCE_MAX;
    // A connection that says whose it is cannot be opened before its client is there.
    let is_warm =
        |set: &&Arc<BackendSet>| set.policy.connections.warm_min > 0 && set.policy.proxy_header.is_none();
    for set in snapshot.sets.iter().filter(is_warm) {
        for backend in set.members().eligible() {
            let to = To { live: &backend.live, policy: &set.policy, client: None };
            let lacking = worker.pool.lacking(to).min(left);
            for _ in 0..lacking {
                let Some(connected) = backend.live.try_connect(set.policy.connections.max) else { break };
                left -= 1;
                let opening = worker.pool.open(to);
                let (worker, set) = (Rc::clone(worker), Arc::clone(set));
                let (live, address) = (Arc::clone(&backend.live), backend.address);
                spawn_local(async move {
                    if let Ok(opened) = open_warm(&worker, &set, (&live, address), connected).await {
                        opening.keep_warm(opened);
                    }
                });
            }
            if left == 0 {
                return;
            }
        }
    }
}

async fn open_warm(
    worker: &Worker,
    set: &BackendSet,
    (live, address): (&Arc<Live>, SocketAddr),
    connected: Connected,
) -> Result<Opened, Failure> {
    let deadline = worker.timers.deadline();
    deadline.set(Some(set.policy.connect_timeout));
    let to = To { live, policy: &set.policy, client: None };
    let opened = open(address, to, connected, &Step::alone(&deadline)).await;
    match opened {
        Ok(_) => worker.counters.upstream_connects.add(1),
        Err(_) => worker.counters.upstream_connect_failures.add(1),
    }
    opened
}

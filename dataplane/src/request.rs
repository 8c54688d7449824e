//! The life of a request, from its head to the end of its answer.
//!
//! This is the one place that knows the stages and their order; no stage knows another.

use crate::balance::Target;
use crate::connection::Peer;
use crate::failure::Failure;
use crate::forwarding;
use crate::http1::client::Connection;
use crate::message::{BodyLength, RequestBody, RequestHead, ResponseSink};
use crate::pool;
use crate::timer::Deadline;
use crate::upstream::{self, Exchanged, Then};
use crate::worker::Worker;
use http::{Method, StatusCode};
use std::time::Instant;

/// Backends that are tried while none accepts a connection. Nothing has been sent then, so any method may move on.
pub const CONNECT_ATTEMPTS_MAX: usize = 3;

/// How a request ended, for the connection that it came by.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The whole response was sent.
    Answered,
    /// The response broke off, or the client is gone: the connection (or stream) can only be cut.
    Aborted,
    /// Both sides agreed on another protocol; bytes go both ways from here.
    Upgraded(Box<Connection>),
}

/// Serves one request.
pub(crate) async fn serve(
    worker: &Worker,
    peer: &Peer,
    mut head: RequestHead,
    body: &mut impl RequestBody,
    sink: &mut impl ResponseSink,
    deadline: &Deadline,
) -> Outcome {
    let began = Instant::now();
    let (status, outcome) = match forward(worker, peer, &mut head, body, sink, deadline).await {
        Ok((status, None)) => (status, Outcome::Answered),
        Ok((status, Some(connection))) => (status, Outcome::Upgraded(connection)),
        Err(failure) if sink.has_begun() || failure == Failure::ClientGone => {
            (failure.answer().0, Outcome::Aborted)
        }
        Err(failure) => match answer(sink, failure, Some(&head.method)).await {
            Ok(()) => (failure.answer().0, Outcome::Answered),
            Err(gone) => (gone.answer().0, Outcome::Aborted),
        },
    };
    worker.counters.answered(status.as_u16(), began.elapsed());
    outcome
}

/// Answers in place of a backend. `method` is the request's, where it is known.
pub(crate) async fn answer(
    sink: &mut impl ResponseSink,
    failure: Failure,
    method: Option<&Method>,
) -> Result<(), Failure> {
    let (mut head, body) = failure.response();
    if method == Some(&Method::HEAD) {
        head.body = BodyLength::Announced(Some(body.len() as u64));
        sink.head(head).await?;
    } else {
        sink.head(head).await?;
        sink.data(body).await?;
    }
    sink.end(None).await
}

/// The stages. Gives the status and, after an upgrade, the connection to the backend.
async fn forward(
    worker: &Worker,
    peer: &Peer,
    head: &mut RequestHead,
    body: &mut impl RequestBody,
    sink: &mut impl ResponseSink,
    deadline: &Deadline,
) -> Result<(StatusCode, Option<Box<Connection>>), Failure> {
    // 1. Configuration: one load, and everything below is of that version.
    let snapshot = worker.snapshot();
    let listener = snapshot.listeners.get(&peer.port).ok_or(Failure::NoRoute)?;
    // 2. Route: host and path say which backend sets may answer.
    let route = listener.routes.find(&head.host(), head.target.path()).ok_or(Failure::NoRoute)?;
    // 3. Policy: the backend learns who asks, and the client's own claims end here.
    forwarding::describe_client(head, peer);
    let mut fresh_only = false;
    let mut attempts = 1;
    loop {
        // 4. Balance: the set by share, the backend by the set's algorithm.
        let target = worker.turns.pick(route).ok_or(Failure::NoBackend)?;
        // 5. Pool: a kept connection, or a new one.
        let (mut connection, kept) = match connection(worker, &target, deadline, fresh_only).await {
            Ok(connection) => connection,
            Err(_) if attempts < CONNECT_ATTEMPTS_MAX => {
                attempts += 1;
                continue;
            }
            Err(failure) => return Err(failure),
        };
        // 6. Upstream: request up, response down.
        worker.counters.upstream_in_flight.add(1);
        let limit = route.request_timeout;
        let exchanged = upstream::exchange(&mut connection, head, body, sink, deadline, limit).await;
        worker.counters.upstream_in_flight.sub(1);
        match exchanged {
            Ok(exchanged) => return Ok(settle(worker, &target, connection, exchanged)),
            // A backend may close a kept connection at the moment we use it. Then, and only where repeating the
            // request does no harm, it goes out once more, on a new connection.
            Err(broken) if kept && broken.can_be_sent_again && head.method.is_idempotent() && !fresh_only => {
                worker.counters.upstream_stale.add(1);
                fresh_only = true;
            }
            Err(broken) => return Err(broken.failure),
        }
    }
}

/// A connection to the target, and whether it was a kept one.
async fn connection(
    worker: &Worker,
    target: &Target<'_>,
    deadline: &Deadline,
    fresh_only: bool,
) -> Result<(Connection, bool), Failure> {
    if !fresh_only && let Some(kept) = worker.idle.take(target.address) {
        worker.counters.upstream_reuses.add(1);
        return Ok((kept, true));
    }
    match upstream::connect(target.address, target.set.policy.connect_timeout, deadline).await {
        Ok(fresh) => {
            worker.counters.upstream_connects.add(1);
            Ok((fresh, false))
        }
        Err(failure) => {
            worker.counters.upstream_connect_failures.add(1);
            Err(failure)
        }
    }
}

/// Puts the connection where it is of use.
fn settle(
    worker: &Worker,
    target: &Target<'_>,
    connection: Connection,
    exchanged: Exchanged,
) -> (StatusCode, Option<Box<Connection>>) {
    match exchanged.then {
        Then::Keep => {
            let limits = pool::Limits::of(worker, &target.set.policy);
            worker.idle.keep(target.address, connection, Instant::now(), limits);
            (exchanged.status, None)
        }
        Then::Close => (exchanged.status, None),
        Then::Tunnel => (exchanged.status, Some(Box::new(connection))),
    }
}

//! The life of a request, from its head to the end of its answer.
//!
//! This is the one place that knows the stages and their order; no stage knows another.

use crate::affinity;
use crate::balance::Target;
use crate::connection::Peer;
use crate::failure::Failure;
use crate::forwarding;
use crate::http1::client::Connection;
use crate::message::{BodyLength, Frame, RequestBody, RequestHead, ResponseHead, ResponseSink};
use crate::outcomes;
use crate::pool;
use crate::timer::Deadline;
use crate::upstream::{self, Exchanged, Then};
use crate::wire::poll_once;
use crate::worker::Worker;
use http::{Method, StatusCode};
use lb_core::backend::{BackendSet, InFlight};
use lb_core::balance::{Outcome as Came, OutcomeKind, PickRequest};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Backends that are tried while none accepts a connection. Nothing has been sent then, so any method may move on.
pub const CONNECT_ATTEMPTS_MAX: usize = 3;

/// Longest time that a client may take to receive an answer of ours.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Most bytes of a refused request's body that are read for the sake of its connection.
pub const SKIPPED_BYTES_MAX: usize = 64 << 10;

/// How a request ended, for the connection that it came by.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The whole response was sent.
    Answered,
    /// The response broke off, or the client is gone: the connection (or stream) can only be cut.
    Aborted,
    /// Both sides agreed on another protocol; bytes go both ways from here.
    Upgraded(Box<Tunnel>),
}

/// What a request leaves behind that became a tunnel.
#[derive(Debug)]
pub(crate) struct Tunnel {
    pub(crate) backend: Connection,
    /// The tunnel counts as a request on its backend for as long as it is open.
    pub(crate) in_flight: InFlight,
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
        Ok((status, Some(tunnel))) => (status, Outcome::Upgraded(tunnel)),
        Err(failure) if sink.has_begun() || failure == Failure::ClientGone => {
            (failure.answer().0, Outcome::Aborted)
        }
        Err(failure) => {
            skip_what_came(body).await;
            if !body.has_ended() {
                sink.close_after();
            }
            match answer(sink, failure, Some(&head.method), deadline).await {
                Ok(()) => (failure.answer().0, Outcome::Answered),
                Err(gone) => (gone.answer().0, Outcome::Aborted),
            }
        }
    };
    worker.counters.answered(status.as_u16(), began.elapsed());
    outcome
}

/// Takes a body that nobody wants, as far as it is there already, so that its connection can go on.
async fn skip_what_came(body: &mut impl RequestBody) {
    let mut left = SKIPPED_BYTES_MAX;
    while let Some(Ok(Some(frame))) = poll_once(body.next()).await {
        if let Frame::Data(data) = frame {
            left = left.saturating_sub(data.len());
        }
        if left == 0 {
            return;
        }
    }
}

/// Answers in place of a backend. `method` is the request's, where it is known.
pub(crate) async fn answer(
    sink: &mut impl ResponseSink,
    failure: Failure,
    method: Option<&Method>,
    deadline: &Deadline,
) -> Result<(), Failure> {
    let (mut head, body) = failure.response();
    let write = async {
        if method == Some(&Method::HEAD) {
            head.body = BodyLength::Announced(Some(body.len() as u64));
            sink.head(head).await?;
        } else {
            sink.head(head).await?;
            sink.data(body).await?;
        }
        sink.end(None).await
    };
    deadline.within(ANSWER_TIMEOUT, write).await.unwrap_or(Err(Failure::ClientGone))
}

/// The stages. Gives the status and, after an upgrade, the tunnel to the backend.
async fn forward(
    worker: &Worker,
    peer: &Peer,
    head: &mut RequestHead,
    body: &mut impl RequestBody,
    sink: &mut impl ResponseSink,
    deadline: &Deadline,
) -> Result<(StatusCode, Option<Box<Tunnel>>), Failure> {
    // 1. Configuration: one load, and everything below is of that version.
    let snapshot = worker.snapshot();
    let listener = snapshot.listeners.get(&peer.port).ok_or(Failure::NoRoute)?;
    // 2. Route: host and path say which backend sets may answer.
    let route = listener.routes.find(&head.host(), head.path()).ok_or(Failure::NoRoute)?;
    // 3. Policy: the backend learns who asks, and the client's own claims end here.
    forwarding::describe_client(head, peer);
    let mut fresh_only = false;
    let mut tried = Vec::new();
    loop {
        // 4. Balance: the set by share, the backend by the set's algorithm.
        let begun = Instant::now();
        let request = |set: &BackendSet| PickRequest {
            now: worker.outcomes.since_start(begun),
            key: set.policy.key.as_ref().and_then(|source| affinity::key(source, head, peer)),
            tried: &tried,
        };
        let target = worker.turns.pick(route, request).ok_or(Failure::NoBackend)?;
        // 5. Pool: a kept connection, or a new one.
        let (mut backend, kept) = match connection(worker, &target, deadline, fresh_only).await {
            Ok(backend) => backend,
            Err(failure) => {
                record(worker, &target, begun, OutcomeKind::ConnectFailure);
                if tried.len() + 1 == CONNECT_ATTEMPTS_MAX {
                    return Err(failure);
                }
                tried.push(Arc::clone(target.in_flight.live()));
                continue;
            }
        };
        // 6. Upstream: request up, response down.
        worker.counters.upstream_in_flight.add(1);
        let limit = route.timeouts.request;
        let mut body = forwarding::Disclaimed(&mut *body);
        let answered = |head: &ResponseHead| {
            record(worker, &target, begun, outcomes::of_answer(head.status, &head.headers));
        };
        let exchange = upstream::exchange(&mut backend, head, &mut body, sink, deadline, limit, answered);
        let exchanged = exchange.await;
        worker.counters.upstream_in_flight.sub(1);
        match exchanged {
            Ok(exchanged) => return Ok(settle(worker, target, backend, exchanged)),
            // A backend may close a kept connection at the moment we use it. Then, and only where repeating the
            // request does no harm, it goes out once more, on a new connection.
            Err(broken) if kept && broken.can_be_sent_again && head.method.is_idempotent() => {
                worker.counters.upstream_stale.add(1);
                fresh_only = true;
            }
            Err(broken) => {
                // The backend's part is known already where its answer had begun, unless that broke off.
                if let Some(kind) = outcomes::of_failure(broken.failure, sink.has_begun()) {
                    record(worker, &target, begun, kind);
                }
                return Err(broken.failure);
            }
        }
    }
}

/// Tells those whom it concerns what came of a request on a backend.
fn record(worker: &Worker, target: &Target<'_>, begun: Instant, kind: OutcomeKind) {
    let latency = begun.elapsed();
    let (live, backend) = (target.in_flight.live(), target.backend.as_ref());
    worker.outcomes.record(target.set, live, backend, Came { latency, kind });
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
    target: Target<'_>,
    backend: Connection,
    exchanged: Exchanged,
) -> (StatusCode, Option<Box<Tunnel>>) {
    let tunnel = match exchanged.then {
        Then::Keep => {
            let limits = pool::Limits::of(worker, &target.set.policy);
            worker.idle.keep(target.address, backend, Instant::now(), limits);
            None
        }
        Then::Close => None,
        Then::Tunnel => Some(Box::new(Tunnel { backend, in_flight: target.in_flight })),
    };
    (exchanged.status, tunnel)
}

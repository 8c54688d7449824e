//! The life of a request, from its head to the end of its answer.
//!
//! This is the one place that knows the stages and their order; no stage knows another. Here is the way of a request as a
//! whole; [`attempt`] is what is done again where a backend fails.

pub(crate) mod answers;
mod asked;
mod attempt;
mod edited;
pub(crate) mod front;
mod hedge;
mod intake;
mod mirror;
mod waits;

use crate::access_log::{Account, Reason, Said};
use crate::connection::Peer;
use crate::course::Course;
use crate::failure::{self, Failure};
use crate::forwarding;
use crate::grpc;
use crate::message::{Frame, RequestBody, RequestHead, ResponseHead, ResponseSink};
use crate::replay::Replay;
use crate::retry::Attempts;
use crate::snapshot::{Listener, Protocol};
use crate::timer::Deadline;
use crate::wire::poll_once;
use crate::worker::Worker;
pub(crate) use asked::Asked;
use attempt::Attempt;
pub(crate) use attempt::{Relay, Tunnel, TunnelTo};
use bytes::Bytes;
use edited::Edited;
use hedge::Hedge;
use http::StatusCode;
use intake::Intake;
use lb_core::route::{Found, Route};
use mirror::Mirrored;
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::{Duration, Instant};
pub(crate) use waits::{Placed, Waits};

/// The status that was answered, and after an upgrade the tunnel to the backend.
type Done = (StatusCode, Option<Box<Tunnel>>);

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
    let account = worker.access_log.open(peer, || Said::of(&head));
    let sink = &mut Edited::new(sink, account.as_deref());
    let done = forward(worker, peer, &mut head, body, sink, deadline).await;
    let failure = done.as_ref().err().copied();
    if let Some(failure) = failure {
        worker.counters.failed(failure);
    }
    let (status, outcome) = match done {
        Ok((status, None)) => (status, Outcome::Answered),
        Ok((status, Some(tunnel))) => (status, Outcome::Upgraded(tunnel)),
        Err(failure) if sink.has_begun() || failure == Failure::ClientGone => {
            (failure.answer().0, Outcome::Aborted)
        }
        Err(failure) => {
            skip_what_came(body).await;
            // On a connection that belongs to another host the next request would fare no better.
            if !body.has_ended() || failure == Failure::Misdirected {
                sink.close_after();
            }
            match answer(sink, failure, &failure::Asked::new(&head.method, &head.headers), deadline).await {
                Ok(()) => (failure.answer().0, Outcome::Answered),
                Err(gone) => (gone.answer().0, Outcome::Aborted),
            }
        }
    };
    let reason = failure.map(Reason::from).or(sink.reason);
    worker.counters.answered(status.as_u16(), began.elapsed());
    close(account, reason, outcome)
}

/// Ends the account of a request; that of a tunnel ends with the tunnel.
fn close(account: Option<Box<Account>>, reason: Option<Reason>, mut outcome: Outcome) -> Outcome {
    match (account, &mut outcome) {
        (Some(account), Outcome::Upgraded(tunnel)) => {
            account.upgraded();
            tunnel.account = Some(account);
        }
        (Some(account), _) => account.end(reason),
        (None, _) => {}
    }
    outcome
}

/// Answers what is not looked at any further: its head is malformed, or beyond a limit.
pub(crate) async fn refuse(
    worker: &Worker,
    peer: &Peer,
    said: impl FnOnce() -> Said,
    sink: &mut impl ResponseSink,
    (failure, asked): (Failure, &failure::Asked),
    deadline: &Deadline,
) -> Result<(), Failure> {
    worker.counters.refused(failure);
    let account = worker.access_log.open(peer, said);
    let answered = answer(&mut Edited::new(sink, account.as_deref()), failure, asked, deadline).await;
    account.into_iter().for_each(|account| account.end(Some(failure.into())));
    answered
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

/// Answers in place of a backend.
async fn answer(
    sink: &mut impl ResponseSink,
    failure: Failure,
    asked: &failure::Asked,
    deadline: &Deadline,
) -> Result<(), Failure> {
    let (head, body) = failure.response(asked);
    write(sink, head, body, deadline).await
}

async fn write(
    sink: &mut impl ResponseSink,
    head: ResponseHead,
    body: Bytes,
    deadline: &Deadline,
) -> Result<(), Failure> {
    let write = async {
        sink.head(head).await?;
        if !body.is_empty() {
            sink.data(body).await?;
        }
        sink.end(None).await
    };
    deadline.within(ANSWER_TIMEOUT, write).await.unwrap_or(Err(Failure::ClientGone))
}

/// The stages.
async fn forward(
    worker: &Worker,
    peer: &Peer,
    head: &mut RequestHead,
    body: &mut impl RequestBody,
    sink: &mut Edited<'_, impl ResponseSink>,
    deadline: &Deadline,
) -> Result<Done, Failure> {
    // 1. Configuration: one load, and everything below is of that version.
    let snapshot = worker.snapshot();
    let listener = snapshot.listeners.get(&peer.port).ok_or(Failure::NoRoute)?;
    // 2. Route: host, path and what else is asked for say which backend sets may answer, where the client came as it is to.
    if let Some(answer) = front::meet(listener, peer, head, &mut sink.telling)? {
        sink.reason = Some(Reason::Word(front::REASON));
        return answer.send(body, sink, &head.method, deadline).await;
    }
    let Found { route, prefix_bytes } = find_route(listener, peer, head)?;
    sink.account.iter().for_each(|account| account.routed(route));
    if let Some(filters) = &route.filters {
        sink.editing.follow(filters, &head.headers);
    }
    // 3. Policy: the backend learns who asks; the client's own claims end, and from here on it is whom trusted proxies name.
    let client = forwarding::describe_client(head, peer, listener.client_policy(&route.pool));
    let peer = client.as_ref().unwrap_or(peer);
    sink.account.iter().for_each(|account| account.asked_by(peer));
    // 4. Guards: from where it comes, and how many came before.
    worker.admit(route, head, peer, &mut sink.telling)?;
    // 5. Filters: what is not taken, what is answered here, and what the backend is asked in place of what came.
    if let Some(filters) = &route.filters
        && let Some(answer) = answers::filtered(filters, head, peer, prefix_bytes, &mut sink.editing)?
    {
        return answer.send(body, sink, &head.method, deadline).await;
    }
    let limits = intake::Limits::of(listener, route);
    exchange(worker, route, (head, peer), (body, limits), sink, deadline).await
}

/// The stages of a request that goes to a backend.
async fn exchange(
    worker: &Worker,
    route: &Arc<Route>,
    (head, peer): (&mut RequestHead, &Peer),
    (body, limits): (&mut impl RequestBody, intake::Limits),
    sink: &mut Edited<'_, impl ResponseSink>,
    deadline: &Deadline,
) -> Result<Done, Failure> {
    // 6. Session: what the request says of where it is at home. A backend does not see our cookie.
    let mut session = route.sessions.as_ref().map(|sessions| worker.session(sessions, head, peer));
    if let Some(session) = &mut session {
        session.recall().await;
    }
    let session = &RefCell::new(session);
    let course = Course::new(deadline, &route.timeouts, grpc::timeout(&head.headers));
    let is_kept = &Cell::new(true);
    let account = sink.account;
    let mut body = Intake::new(body, worker, &course, head, limits, account)?;
    let mut body = Replay::new(forwarding::Disclaimed(&mut body), &course, is_kept);
    let mut attempts = Attempts::new(&route.retry, head);
    let hedge_after = hedge::after(route, head, &attempts);
    if hedge_after.is_some() {
        // Two attempts cannot both read from the client. It takes its time before a backend's slot is held for it.
        course.begin_sending();
        course.while_client(body.read_ahead()).await?;
    }
    let mirrored = Mirrored::of(route.filters.as_deref(), worker, head, peer);
    loop {
        course.begin_wait();
        // 7. Balance: the set by match, session or share, the backend by the set's algorithm, a free slot on it.
        let waits = Waits { worker, course: &course };
        let gone = async || sink.gone().await;
        let target = match waits.place(route, (Some(head), peer), session, &attempts.tried, gone).await? {
            Placed::Backend(target) => target,
            Placed::Response(response) => return answers::say(sink, response, &head.method, &course).await,
        };
        // 8. One attempt: a connection, the exchange over it, and what came of it.
        course.begin_attempt();
        let attempt = Attempt { worker, course: &course, attempts: &attempts, is_kept, session, account };
        let ended = match hedge_after {
            None => attempt.run(target, head, &mut body, sink).await,
            Some(after) => {
                let hedge = Hedge { attempt, route, head, peer, after };
                hedge.run(target, || body.copy(), sink).await
            }
        };
        let (failed, target) = match ended {
            Ok(done) => {
                mirrored.send(worker, head, peer, || body.copy());
                return Ok(done);
            }
            Err(failed) => *failed,
        };
        // 9. Retry: what does no harm twice, while there is time, and budget for it.
        if course.is_over() {
            return Err(failed.failure);
        }
        let next = attempts.after(failed, target.slot.live());
        waits.before(next, failed.failure, target, route, sink).await?;
        body.rewind();
    }
}

/// A connection proves what the policy of its SNI asks for: what another host asks for, a certificate say, nobody has
/// proven on it (RFC 9110, section 7.4). Of that host's policy as it is now, so that what was lax once is not for ever.
pub(crate) fn find_route<'l>(
    listener: &'l Listener,
    peer: &Peer,
    head: &RequestHead,
) -> Result<Found<'l>, Failure> {
    let host = head.host();
    if let (Protocol::Https(termination), Some(secured)) = (&listener.protocol, &peer.secured)
        && !termination.admits(secured.policy, &host)
    {
        return Err(Failure::Misdirected);
    }
    let asked = Asked { head, peer, listener };
    listener.routes.find(&host, head.path(), &asked).ok_or(Failure::NoRoute)
}

//! The life of a connection at layer 4, from its client to its backend and back.
//!
//! Beside [`crate::request`] the other place that knows the stages and their order. Bytes are passed on whatever they say, so
//! that all there is to go by is the listener and who connected. While no backend has taken the connection nothing was sent,
//! and another backend does no harm.

pub(crate) mod passthrough;
pub(crate) mod udp;

use crate::access_log::{Account, Said, Via};
use crate::balance::Target;
use crate::connection::Peer;
use crate::course::{Course, Step};
use crate::failure::Failure;
use crate::outcomes;
use crate::pool::To;
use crate::rates;
use crate::request::{Placed, Relay, Waits};
use crate::retry::{Attempts, Failed, Harm, Next};
use crate::sessions::Seen;
use crate::snapshot::Listener;
use crate::tunnel;
use crate::warm;
use crate::wire::{Io, Wire};
use crate::worker::Worker;
use bytes::BytesMut;
use http::HeaderMap;
use lb_core::backend::Connected;
use lb_core::balance::OutcomeKind;
use lb_core::route::{FallbackResponse, PathAlone, Route, Timeouts};
use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between two looks at whether a connection to a backend that has its fill was given up.
const CONNECTION_WAIT: Duration = Duration::from_millis(2);

/// Serves one connection. `name` is the host that its client asked for, in lower case; empty where it named none.
pub(crate) async fn serve(worker: &Worker, peer: &Peer, client: Io, name: &str) {
    let client = Wire::new(client);
    if pass_on(worker, peer, (&client, BytesMut::new()), name).await.is_err() {
        // An end in order would pass for an answer that is empty.
        client.reset_on_close();
    }
}

/// The same for a client of which some bytes were read already. Fails where no backend takes the connection.
async fn pass_on(
    worker: &Worker,
    peer: &Peer,
    (client, early): (&Wire, BytesMut),
    name: &str,
) -> Result<(), Failure> {
    let account = worker.access_log.open_connection(peer, || Said::of_name(name));
    // Boxed, for it is not needed while bytes flow, or none do.
    let relay = match Box::pin(open(worker, peer, name, account.as_deref())).await {
        Ok(relay) => Relay { account, ..relay },
        Err(failure) => {
            worker.counters.layer4_failed(failure);
            account.into_iter().for_each(|account| account.end(Some(failure.into())));
            return Err(failure);
        }
    };
    let ended = tunnel::relay(worker, peer.port, (client, early), relay).await;
    worker.counters.layer4_ended(ended);
    Ok(())
}

/// The stages, up to a backend that has taken the connection.
async fn open(worker: &Worker, peer: &Peer, name: &str, account: Option<&Account>) -> Result<Relay, Failure> {
    // 1. Configuration: one load. It is let go of before bytes flow, or an old one would live as long as they do.
    let snapshot = worker.snapshot();
    let listener = snapshot.listeners.get(&peer.port).ok_or(Failure::NoRoute)?;
    // 2. Route: the listener's only one, or that of the name.
    let route = find_route(listener, name)?;
    account.iter().for_each(|account| account.routed(route));
    // 3. Guards: from where it comes.
    rates::let_in(route, peer)?;
    // 4. Session: whether connections of this address are at home on a backend.
    let mut session = route.sessions.as_ref().map(|sessions| worker.session_of_source(sessions, peer));
    if let Some(session) = &mut session {
        session.recall().await;
    }
    let session = RefCell::new(session);
    let deadline = worker.timers.deadline();
    let course = Course::new(&deadline, &Timeouts::NONE, None);
    let mut attempts = Attempts::of_connection(&route.retry);
    loop {
        course.begin_wait();
        // 5. Balance: the set by session or share, the backend by the set's algorithm, a free slot on it.
        let waits = Waits { worker, course: &course };
        let target = match waits.place(route, (None, peer), &session, &attempts.tried, never).await? {
            Placed::Backend(target) => target,
            Placed::Response(response) => return Err(in_place_of(response)),
        };
        // 6. One attempt: a connection, with the PROXY protocol's header and TLS where the set says so.
        let begun = Instant::now();
        let to = To { live: target.slot.live(), policy: &target.set.policy, client: target.client };
        let opened = connect(worker, target.address, to, &course).await;
        if let Some(account) = account {
            let via = opened.as_ref().map_or(Via::Nothing, |_| Via::New(begun.elapsed()));
            account.tries(target.address, &target.set.name, via);
        }
        match opened {
            Ok((backend, connected)) => {
                // 7. Outcome: who takes a connection is well.
                worker.record(&target, begun, OutcomeKind::Success);
                remember(worker, &session, &target, account);
                return Ok(Relay {
                    backend: Wire::new(backend),
                    set: Arc::clone(&target.set.name),
                    idle: route.timeouts.connection_idle,
                    held: (target.slot, connected),
                    account: None,
                });
            }
            Err(failure) => {
                if let Some(kind) = outcomes::of_failure(failure, false) {
                    worker.record(&target, begun, kind);
                }
                // 8. Retry: nothing was sent yet.
                let failed = Failed { failure, harm: Harm::None, was_stale: false };
                if attempts.after(failed, target.slot.live()) == Next::GiveUp {
                    return Err(failure);
                }
                worker.counters.retries.add(1);
            }
        }
    }
}

/// The host that a client asks for by its handshake, as routes know it; empty where it asks for none.
pub(crate) fn host(server_name: Option<&str>) -> String {
    server_name.unwrap_or_default().to_ascii_lowercase()
}

/// The path that every rule of layer 4 is for.
pub(crate) const PATH: &str = "/";

/// The route of a connection or flow: the listener's only one, or that of the host, in lower case.
pub(crate) fn find_route<'l>(listener: &'l Listener, host: &str) -> Result<&'l Arc<Route>, Failure> {
    let found = listener.routes.find(host, PATH, &PathAlone::default());
    Ok(found.ok_or(Failure::NoRoute)?.route)
}

/// What becomes of a connection or flow where an answer of HTTP stands in for a set: none can be given that is not the
/// protocol's.
pub(crate) fn in_place_of(_: &FallbackResponse) -> Failure {
    Failure::NoBackend
}

/// A connection that waits is not watched: a client that has ended may still expect an answer, and the wait has a limit.
async fn never() {
    std::future::pending::<()>().await;
}

/// Connects to a backend, once it has room for a connection, within the set's time for both.
async fn connect(
    worker: &Worker,
    address: SocketAddr,
    to: To<'_>,
    course: &Course<'_>,
) -> Result<(Io, Connected), Failure> {
    let step = course.step(to.policy.connect_timeout);
    let connected = room(worker, to, &step).await?;
    match warm::dial(address, to, None, &step).await {
        Ok(backend) => {
            worker.counters.upstream_connects.add(1);
            Ok((backend, connected))
        }
        Err(failure) => {
            worker.counters.upstream_connect_failures.add(1);
            Err(failure)
        }
    }
}

async fn room(worker: &Worker, to: To<'_>, step: &Step<'_>) -> Result<Connected, Failure> {
    let mut waiting = None;
    loop {
        if let Some(connected) = to.live.try_connect(to.policy.connections.max) {
            return Ok(connected);
        }
        // Requests of the same set may keep one that they do not need.
        waiting.get_or_insert_with(|| worker.pool.wait(to));
        if step.within(tokio::time::sleep(CONNECTION_WAIT)).await.is_none() {
            worker.counters.connection_limits.add(1);
            return Err(Failure::ConnectionLimit);
        }
    }
}

/// The session stays with the backend that took the connection. A set that stands in for another is nobody's home.
fn remember(
    worker: &Worker,
    session: &RefCell<Option<Seen<'_>>>,
    target: &Target<'_>,
    account: Option<&Account>,
) {
    let session = session.borrow_mut().take().filter(|_| !target.is_fallback.get());
    if let Some(session) = session {
        let result = session.keep(target.choice, &mut HeaderMap::new());
        worker.counters.session(result);
        account.iter().for_each(|account| account.session(result));
    }
}

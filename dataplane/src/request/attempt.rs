//! One attempt: a connection to the backend that was chosen, the exchange over it, and what came of it.

use super::Done;
use crate::access_log::{Account, Via};
use crate::balance::{Slot, Target};
use crate::course::Course;
use crate::failure::Failure;
use crate::http1;
use crate::http2;
use crate::http2::carried::Carried;
use crate::message::{RequestBody, RequestHead, ResponseHead, ResponseSink, Upgrade};
use crate::outcomes;
use crate::pool::{Connection, Freshness, Opened, Stream, To};
use crate::retry::{Attempts, Failed, Harm};
use crate::sessions::Seen;
use crate::upstream::{self, Broken, Exchanged, Reach, Then, Verdict};
use crate::warm;
use crate::wire::Wire;
use crate::worker::Worker;
use lb_core::backend::{Connected, UpstreamProtocol};
use lb_core::balance::OutcomeKind;
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between two looks at whether a connection to a backend that has its fill was given up.
const CONNECTION_WAIT: Duration = Duration::from_millis(2);

/// What a request leaves behind that became a tunnel.
#[derive(Debug)]
pub(crate) struct Tunnel {
    pub(crate) backend: TunnelTo,
    /// Name of the set that the backend is of.
    pub(crate) set: Arc<str>,
    /// The tunnel counts as a request on its backend, and as a connection to it or a stream on one, for as long as it is
    /// open.
    pub(crate) held: (Slot, Option<Connected>, Option<Stream>),
    /// Where it is logged.
    pub(crate) account: Option<Box<Account>>,
}

/// A connection of layer 4 that a backend has taken.
#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) backend: Wire,
    /// Name of the set that the backend is of.
    pub(crate) set: Arc<str>,
    /// How long it may stand still.
    pub(crate) idle: Duration,
    /// It counts as a request on its backend, and as a connection to it, for as long as it is open.
    pub(crate) held: (Slot, Connected),
    /// Where it is logged.
    pub(crate) account: Option<Box<Account>>,
}

/// A tunnel's backend.
#[derive(Debug)]
pub(crate) enum TunnelTo {
    Http1(http1::client::Connection),
    Http2(Carried),
}

/// What an attempt knows of its request.
#[derive(Clone, Copy)]
pub(super) struct Attempt<'a, 's> {
    pub(super) worker: &'a Worker,
    pub(super) course: &'a Course<'a>,
    pub(super) attempts: &'a Attempts<'a>,
    /// Whether the body can be sent again.
    pub(super) is_kept: &'a Cell<bool>,
    /// Of the request, until an answer is passed on.
    pub(super) session: &'a RefCell<Option<Seen<'s>>>,
    /// Where the request is logged.
    pub(super) account: Option<&'a Account>,
}

/// How an attempt began.
#[derive(Clone, Copy)]
struct Begin {
    at: Instant,
    via: Via,
}

impl Attempt<'_, '_> {
    /// Sends the request to the backend and passes the answer on.
    pub(super) async fn run<'t>(
        &self,
        target: Target<'t>,
        head: &RequestHead,
        body: &mut impl RequestBody,
        sink: &mut impl ResponseSink,
    ) -> Result<Done, Box<(Failed, Target<'t>)>> {
        let begun = Instant::now();
        // Pool: a kept connection, or a new one.
        let connection = self.connection(&target).await;
        let via = match &connection {
            Ok((_, true)) => Via::Kept,
            Ok((_, false)) => Via::New(begun.elapsed()),
            Err(_) => Via::Nothing,
        };
        if let Some(account) = self.account {
            account.tries(target.address, &target.set.name, via);
        }
        let (mut connection, was_kept) = match connection {
            Ok(connection) => connection,
            Err(failure) => {
                if failure != Failure::ConnectionLimit {
                    self.record(&target, begun, OutcomeKind::ConnectFailure);
                }
                return Err(Box::new((Failed { failure, harm: Harm::None, was_stale: false }, target)));
            }
        };
        if head.upgrade == Upgrade::WebSocket
            && let Err(failure) = self.check_upgrade(&connection, &target).await
        {
            return Err(Box::new((Failed { failure, harm: Harm::None, was_stale: false }, target)));
        }
        // Upstream: request up, response down.
        let counters = &self.worker.counters;
        counters.upstream_in_flight.add(1);
        let exchanged =
            self.exchange(&mut connection, &target, Begin { at: begun, via }, head, body, sink).await;
        counters.upstream_in_flight.sub(1);
        match exchanged {
            Ok((Exchanged { status, then }, carried)) => {
                Ok((status, self.settle(target, connection, then, carried)))
            }
            Err(broken) => {
                // The backend's part is known already where its answer had begun, unless that broke off.
                let was_stale = was_kept && broken.is_silent;
                if was_stale {
                    self.worker.pool.found_closed(&connection, to(&target));
                } else if let Some(kind) = outcomes::of_failure(broken.failure, sink.has_begun()) {
                    self.record(&target, begun, kind);
                }
                let harm = match broken.reach {
                    Reach::Over => Harm::Impossible,
                    _ if !self.is_kept.get() => Harm::Impossible,
                    Reach::Untouched => Harm::None,
                    Reach::Unknown => Harm::Repeats,
                };
                Err(Box::new((Failed { failure: broken.failure, harm, was_stale }, target)))
            }
        }
    }

    async fn exchange(
        &self,
        connection: &mut Connection,
        target: &Target<'_>,
        begin: Begin,
        head: &RequestHead,
        body: &mut impl RequestBody,
        sink: &mut impl ResponseSink,
    ) -> Result<(Exchanged, Option<Carried>), Broken> {
        let judge = |answer: &mut ResponseHead| {
            let first_byte = begin.at.elapsed();
            self.worker.counters.upstream_latency.add(first_byte);
            self.record(target, begin.at, outcomes::of_answer(answer.status, &answer.headers));
            if let Some(account) = self.account {
                account.answered_by(target.address, &target.set.name, begin.via, first_byte);
            }
            let is_repeated = self.attempts.is_unwelcome(answer.status)
                && self.is_kept.get()
                && !self.course.is_over()
                && self.worker.may_retry(&target.set.guard.budget);
            if is_repeated {
                return Verdict::TryAgain;
            }
            self.remember(target, answer);
            Verdict::PassOn
        };
        match connection {
            Connection::Http1(connection) => {
                let mut exchange = http1::client::Exchange::begin(&mut connection.connection, head);
                let exchanged =
                    upstream::exchange(exchange.split(), head, body, sink, self.course, judge).await?;
                Ok((exchanged, None))
            }
            Connection::Http2(stream) => {
                let Some(mut exchange) = http2::client::Exchange::begin(&mut stream.connection, head) else {
                    return Err(Broken::refused());
                };
                let exchanged =
                    upstream::exchange(exchange.split(), head, body, sink, self.course, judge).await?;
                let carried = (exchanged.then == Then::Tunnel).then(|| exchange.into_carried()).flatten();
                Ok((exchanged, carried))
            }
        }
    }

    /// Whether the backend may be asked for a WebSocket: over HTTP/1.1 always, over HTTP/2 where it said so. Another backend
    /// of the set may be.
    async fn check_upgrade(&self, connection: &Connection, target: &Target<'_>) -> Result<(), Failure> {
        let Connection::Http2(stream) = connection else { return Ok(()) };
        let step = self.course.step(target.set.policy.connect_timeout);
        match step.within(stream.connection.takes_websockets()).await {
            Some(true) => Ok(()),
            Some(false) => Err(Failure::UpgradeUnsupported),
            None => Err(Failure::ConnectTimeout),
        }
    }

    /// A connection to the target, and whether it was a kept one.
    async fn connection(&self, target: &Target<'_>) -> Result<(Connection, bool), Failure> {
        let Self { worker, attempts, course, .. } = self;
        let freshness = if attempts.is_idempotent() { Freshness::Any } else { Freshness::Certain };
        let to = to(target);
        let To { live, policy, .. } = to;
        let (mut step, mut waiting) = (None, None);
        // One of HTTP/2 that is over says so; it is new ones that all who were on it would open at once.
        let only_new = attempts.only_new && policy.protocol == UpstreamProtocol::Http1;
        let connected = loop {
            if !only_new && let Some(kept) = worker.pool.take(to, freshness) {
                worker.counters.upstream_reuses.add(1);
                return Ok((kept, true));
            }
            // Requests that come while a connection is opened that they can share wait for it.
            let is_shared = policy.protocol == UpstreamProtocol::Http2 && worker.pool.is_opening(to);
            if !is_shared {
                if let Some(connected) = live.try_connect(policy.connections.max) {
                    break connected;
                }
                // Some other worker may keep one that it does not need.
                waiting.get_or_insert_with(|| worker.pool.wait(to));
            }
            let step = step.get_or_insert_with(|| course.step(policy.connect_timeout));
            if step.within(tokio::time::sleep(CONNECTION_WAIT)).await.is_none() {
                worker.counters.connection_limits.add(1);
                return Err(Failure::ConnectionLimit);
            }
        };
        drop(waiting);
        let opening = worker.pool.open(to);
        let step = course.step(policy.connect_timeout);
        let opened = warm::open(target.address, to, connected, &step).await;
        drop(opening);
        match opened {
            Ok(opened) => {
                worker.counters.upstream_connects.add(1);
                let connection = match opened {
                    Opened::Http1(connection) => Connection::Http1(connection),
                    Opened::Http2(connection) => worker.pool.share(to, connection),
                };
                Ok((connection, false))
            }
            Err(failure) => {
                worker.counters.upstream_connect_failures.add(1);
                Err(failure)
            }
        }
    }

    /// The session stays with the backend that answers. A set that stands in for another is nobody's home.
    fn remember(&self, target: &Target<'_>, answer: &mut ResponseHead) {
        let session = self.session.borrow_mut().take().filter(|_| !target.is_fallback.get());
        if let Some(session) = session {
            let result = session.keep(target.choice, &mut answer.headers);
            self.worker.counters.session(result);
            self.account.iter().for_each(|account| account.session(result));
        }
    }

    /// Tells those whom it concerns what came of a request on a backend.
    fn record(&self, target: &Target<'_>, begun: Instant, kind: OutcomeKind) {
        self.worker.record(target, begun, kind);
    }

    /// Puts the connection where it is of use.
    fn settle(
        &self,
        target: Target<'_>,
        connection: Connection,
        then: Then,
        carried: Option<Carried>,
    ) -> Option<Box<Tunnel>> {
        match (then, connection, carried) {
            (Then::Keep, connection, _) => {
                self.worker.pool.keep(to(&target), connection);
                None
            }
            (Then::Tunnel, Connection::Http1(connection), _) => Some(Box::new(Tunnel {
                backend: TunnelTo::Http1(connection.connection),
                set: Arc::clone(&target.set.name),
                held: (target.slot, Some(connection.connected), None),
                account: None,
            })),
            (Then::Tunnel, Connection::Http2(stream), Some(carried)) => Some(Box::new(Tunnel {
                backend: TunnelTo::Http2(carried),
                set: Arc::clone(&target.set.name),
                held: (target.slot, None, Some(stream)),
                account: None,
            })),
            (Then::Tunnel | Then::Close, _, _) => None,
        }
    }
}

/// What connections to the target are kept by.
fn to<'a>(target: &'a Target<'_>) -> To<'a> {
    To { live: target.slot.live(), policy: &target.set.policy, client: target.client }
}

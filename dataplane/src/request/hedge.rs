//! A second attempt beside a first one that takes long (Dean and Barroso, "The Tail at Scale", 2013).
//!
//! Both ask; whoever has the head of an answer first gets the client, and the other is dropped, its connection with it.
//! Only for requests that may be sent twice and whose body is whole in memory, and only where the retry budget allows:
//! hedges are load that nobody asked for.

use super::Done;
use super::attempt::Attempt;
use crate::balance::{Ask, Place, Target};
use crate::connection::Peer;
use crate::failure::Failure;
use crate::message::{BodyLength, RequestHead, ResponseHead, ResponseSink, Upgrade};
use crate::replay::{Copy, REPLAY_BYTES_MAX};
use crate::retry::{Attempts, Failed, Harm};
use crate::worker::Worker;
use bytes::Bytes;
use http::header::EXPECT;
use http::{HeaderMap, StatusCode};
use lb_core::backend::{BackendSet, Live};
use lb_core::balance::{Outcome, OutcomeKind};
use lb_core::route::Route;
use std::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// After how long a second attempt begins; `None` where none does.
pub(super) fn after(route: &Route, head: &RequestHead, attempts: &Attempts<'_>) -> Option<Duration> {
    let is_small = match head.body {
        BodyLength::Empty => true,
        BodyLength::Known(length) => length <= REPLAY_BYTES_MAX as u64,
        BodyLength::Unknown | BodyLength::Announced(_) => false,
    };
    // Nor is a body that the client keeps until a backend asks for it.
    let is_simple = is_small
        && head.upgrade == Upgrade::No
        && !head.headers.contains_key(EXPECT)
        && attempts.is_idempotent();
    // A session has one backend: another one would answer in its place.
    route.retry.hedge_after.filter(|_| is_simple && route.sessions.is_none())
}

/// What both attempts know of their request.
pub(super) struct Hedge<'a, 's, 't> {
    pub(super) attempt: Attempt<'a, 's>,
    pub(super) route: &'t Arc<Route>,
    pub(super) head: &'a RequestHead,
    pub(super) peer: &'a Peer,
    pub(super) after: Duration,
}

type Failing<'t> = Box<(Failed, Target<'t>)>;

impl<'t> Hedge<'_, '_, 't> {
    /// Runs an attempt on `target`, and a second one elsewhere where it takes long. `body` gives the request's body to each.
    pub(super) async fn run<S: ResponseSink>(
        &self,
        target: Target<'t>,
        body: impl Fn() -> Option<Copy>,
        sink: &mut S,
    ) -> Result<Done, Failing<'t>> {
        let client = Cell::new(Some(sink));
        let begun = Cell::new(false);
        let tried = Arc::clone(target.slot.live());
        let first = self.leg(target, body(), &client);
        let second = async {
            tokio::time::sleep(self.after).await;
            let Some(other) = self.other(&tried) else { return std::future::pending().await };
            begun.set(true);
            self.attempt.worker.counters.hedges.add(1);
            self.leg(other, body(), &client).await
        };
        race(Box::pin(first), Box::pin(second), &client, &begun).await
    }

    /// Another backend that takes the request at once.
    fn other(&self, tried: &Arc<Live>) -> Option<Target<'t>> {
        let worker = self.attempt.worker;
        let mut all = self.attempt.attempts.tried.clone();
        all.push(Arc::clone(tried));
        let now = worker.outcomes.since_start(Instant::now());
        let ask = Ask {
            head: Some(self.head),
            peer: self.peer,
            choices: &[],
            session_key: None,
            tried: &all,
            now,
            is_waiting: false,
        };
        let Ok(Place::Backend(target)) = worker.turns.place(self.route, &ask) else { return None };
        let is_other = !all.iter().any(|live| Arc::ptr_eq(live, target.slot.live()));
        (is_other && worker.may_retry(&target.set.guard.budget)).then_some(target)
    }

    async fn leg<S: ResponseSink>(
        &self,
        target: Target<'t>,
        body: Option<Copy>,
        client: &Cell<Option<&mut S>>,
    ) -> Result<Done, Failing<'t>> {
        let Some(mut body) = body else {
            let failed = Failed { failure: Failure::BackendClosed, harm: Harm::Impossible, was_stale: false };
            return Err(Box::new((failed, target)));
        };
        let deadline = self.attempt.worker.timers.deadline();
        let course = self.attempt.course.beside(&deadline);
        course.begin_attempt();
        let attempt = Attempt { course: &course, ..self.attempt };
        let watch = Watch::over(self.attempt.worker, &target);
        let ended = attempt.run(target, self.head, &mut body, &mut Contender { client, sink: None }).await;
        watch.end();
        ended
    }
}

/// Files an attempt that is dropped because the other one was faster: its backend would have taken at least so long.
struct Watch<'a> {
    worker: &'a Worker,
    set: Arc<BackendSet>,
    /// `None` once the attempt has filed its own end.
    live: Option<Arc<Live>>,
    begun: Instant,
}

impl<'a> Watch<'a> {
    fn over(worker: &'a Worker, target: &Target<'_>) -> Self {
        let (set, live) = (Arc::clone(target.set), Arc::clone(target.slot.live()));
        Self { worker, set, live: Some(live), begun: Instant::now() }
    }

    fn end(mut self) {
        self.live = None;
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if let Some(live) = &self.live {
            let came = Outcome { latency: self.begun.elapsed(), kind: OutcomeKind::Abandoned };
            self.worker.outcomes.record(&self.set, live, None, came);
        }
    }
}

/// The answer of whoever gets the client; a failure when both have failed, or the one that there is.
async fn race<'t, S: ResponseSink>(
    first: Running<'_, 't>,
    second: Running<'_, 't>,
    client: &Cell<Option<&mut S>>,
    begun: &Cell<bool>,
) -> Result<Done, Failing<'t>> {
    let mut legs = [Leg::Running(first), Leg::Running(second)];
    poll_fn(|cx| {
        for at in 0..legs.len() {
            let had_client = has_client(client);
            let Leg::Running(leg) = &mut legs[at] else { continue };
            let end = leg.as_mut().poll(cx);
            if had_client && !has_client(client) {
                // The client is this one's now.
                legs[1 - at] = Leg::Lost;
            }
            match end {
                Poll::Pending => {}
                Poll::Ready(Ok(done)) => return Poll::Ready(Ok(done)),
                Poll::Ready(Err(failing)) => legs[at] = Leg::Failed(failing),
            }
        }
        let is_alone = !begun.get() || !matches!(legs[1], Leg::Running(_));
        if is_alone && let Leg::Failed(_) = legs[0] {
            return Poll::Ready(Err(failed(&mut legs)));
        }
        if !matches!(legs[0], Leg::Running(_)) && !matches!(legs[1], Leg::Running(_)) {
            return Poll::Ready(Err(failed(&mut legs)));
        }
        Poll::Pending
    })
    .await
}

/// Boxed, so that whoever has lost can be dropped while the other goes on.
type Running<'a, 't> = Pin<Box<dyn Future<Output = Result<Done, Failing<'t>>> + 'a>>;

enum Leg<'a, 't> {
    Running(Running<'a, 't>),
    Failed(Failing<'t>),
    Lost,
}

fn failed<'t>(legs: &mut [Leg<'_, 't>; 2]) -> Failing<'t> {
    let mut failures = legs.iter_mut().filter_map(|leg| match std::mem::replace(leg, Leg::Lost) {
        Leg::Failed(failing) => Some(failing),
        Leg::Running(_) | Leg::Lost => None,
    });
    failures.next().expect("asked only where one has failed")
}

fn has_client<S>(client: &Cell<Option<&mut S>>) -> bool {
    let sink = client.take();
    let has = sink.is_some();
    client.set(sink);
    has
}

/// A response's way to the client, for whoever is first.
struct Contender<'c, 's, S> {
    client: &'c Cell<Option<&'s mut S>>,
    sink: Option<&'s mut S>,
}

impl<'s, S: ResponseSink> Contender<'_, 's, S> {
    /// The client, once it is this one's. Whoever comes second waits to be dropped.
    async fn client(&mut self) -> &mut &'s mut S {
        if self.sink.is_none() {
            self.sink = self.client.take();
        }
        match &mut self.sink {
            Some(sink) => sink,
            None => std::future::pending().await,
        }
    }

    fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(sink) = self.client.take() else { return Poll::Pending };
        let gone = pin!(sink.gone()).poll(cx);
        self.client.set(Some(sink));
        gone
    }
}

impl<S: ResponseSink> ResponseSink for Contender<'_, '_, S> {
    /// Dropped: who will answer is not known yet.
    async fn interim(&mut self, _status: StatusCode, _headers: HeaderMap) -> Result<(), Failure> {
        Ok(())
    }

    async fn head(&mut self, head: ResponseHead) -> Result<(), Failure> {
        self.client().await.head(head).await
    }

    async fn data(&mut self, data: Bytes) -> Result<(), Failure> {
        self.client().await.data(data).await
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        self.client().await.flush().await
    }

    async fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(), Failure> {
        self.client().await.end(trailers).await
    }

    fn close_after(&mut self) {
        if let Some(sink) = &mut self.sink {
            sink.close_after();
        }
    }

    async fn gone(&mut self) {
        match &mut self.sink {
            Some(sink) => sink.gone().await,
            None => poll_fn(|cx| self.poll_gone(cx)).await,
        }
    }

    fn has_begun(&self) -> bool {
        self.sink.as_ref().is_some_and(|sink| sink.has_begun())
    }
}

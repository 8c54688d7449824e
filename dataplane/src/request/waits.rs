//! Where a request waits: for a free slot, and before it is sent again.

use crate::balance::{Ask, Place, Target};
use crate::connection::Peer;
use crate::course::Course;
use crate::failure::Failure;
use crate::message::{RequestHead, ResponseSink};
use crate::retry::Next;
use crate::sessions::Seen;
use crate::worker::Worker;
use lb_core::backend::Live;
use lb_core::resilience::{Queue, Waiting};
use lb_core::route::{FallbackResponse, Route};
use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between two looks at whether a session's backend has room: nobody is woken for one backend alone.
const HOME_WAIT: Duration = Duration::from_millis(5);

/// A request, or a connection of layer 4, that may have to wait.
pub(crate) struct Waits<'a> {
    pub(crate) worker: &'a Worker,
    pub(crate) course: &'a Course<'a>,
}

/// Where the request goes.
pub(crate) enum Placed<'a> {
    Backend(Target<'a>),
    Response(&'a FallbackResponse),
}

impl Waits<'_> {
    /// A place on a backend, at once or after a wait in the set's queue, which ends where the client is `gone`.
    pub(crate) async fn place<'a>(
        &self,
        route: &'a Arc<Route>,
        (head, peer): (Option<&RequestHead>, &Peer),
        session: &RefCell<Option<Seen<'_>>>,
        tried: &[Arc<Live>],
        mut gone: impl AsyncFnMut(),
    ) -> Result<Placed<'a>, Failure> {
        let worker = self.worker;
        let mut place: Option<Waiting<'a>> = None;
        let mut since = None;
        loop {
            let now = worker.outcomes.since_start(Instant::now());
            let place_now = {
                let session = session.borrow();
                let ask = Ask {
                    head,
                    peer,
                    choices: session.as_ref().map_or(&[], Seen::choices),
                    session_key: session.as_ref().and_then(Seen::key),
                    tried,
                    now,
                    is_waiting: since.is_some(),
                };
                worker.turns.place(route, &ask).inspect_err(|why| self.count(*why))?
            };
            let (queue, is_home) = match place_now {
                Place::Backend(target) => {
                    worker.counters.fallbacks.add(u64::from(target.is_fallback.get()));
                    if let Some(place) = place {
                        place.served();
                    }
                    return Ok(Placed::Backend(target));
                }
                Place::Response(response) => {
                    worker.counters.fallbacks.add(1);
                    return Ok(Placed::Response(response));
                }
                Place::Queue(queue) => (queue, false),
                Place::Home(queue) => (queue, true),
            };
            let since = *since.get_or_insert(now);
            let left = queue.timeout().saturating_sub(now.saturating_sub(since));
            if left.is_zero() {
                return Err(self.refused(queue));
            }
            if is_home {
                // A wake is for any backend: whoever waits for one alone would swallow it.
                place = None;
            } else if place.is_none() {
                worker.counters.queued.add(1);
                place = Some(queue.join().ok_or_else(|| self.full())?);
            }
            let pause = if is_home { left.min(HOME_WAIT) } else { left };
            tokio::select! { biased;
                () = woken(place.as_mut()) => {}
                () = tokio::time::sleep(pause) => {}
                () = gone() => return Err(Failure::ClientGone),
                () = self.course.deadline().passed() => return Err(self.late()),
            }
        }
    }

    /// What is to be done before the next attempt.
    pub(super) async fn before(
        &self,
        next: Next,
        failure: Failure,
        target: Target<'_>,
        route: &Route,
        sink: &mut impl ResponseSink,
    ) -> Result<(), Failure> {
        let worker = self.worker;
        let pause = match next {
            Next::GiveUp => return Err(failure),
            Next::Refresh => {
                worker.counters.upstream_stale.add(1);
                return Ok(());
            }
            Next::Another => Duration::ZERO,
            Next::Retry(nth) => {
                // Where an answer was refused for its status, that was taken out of the budget already.
                let is_paid = matches!(failure, Failure::BackendUnwilling(_));
                if !is_paid && !worker.may_retry(&target.set.guard.budget) {
                    return Err(failure);
                }
                worker.turns.backoff(route.retry.backoff, nth)
            }
        };
        worker.counters.retries.add(1);
        // A pause is spent on no backend's slot.
        drop(target);
        if pause.is_zero() {
            return Ok(());
        }
        self.course.begin_wait();
        tokio::select! { biased;
            () = tokio::time::sleep(pause) => Ok(()),
            () = sink.gone() => Err(Failure::ClientGone),
            () = self.course.deadline().passed() => Err(failure),
        }
    }

    fn count(&self, why: Failure) {
        if matches!(why, Failure::CircuitOpen { .. }) {
            self.worker.counters.circuits_refused.add(1);
        }
    }

    fn full(&self) -> Failure {
        self.worker.counters.queue_full.add(1);
        Failure::QueueFull
    }

    fn refused(&self, queue: &Queue) -> Failure {
        if queue.timeout().is_zero() {
            return self.full();
        }
        self.late()
    }

    fn late(&self) -> Failure {
        self.worker.counters.queue_timeouts.add(1);
        Failure::QueueTimeout
    }
}

async fn woken(place: Option<&mut Waiting<'_>>) {
    match place {
        Some(place) => place.woken().await,
        None => std::future::pending().await,
    }
}

//! Copies of requests, sent to another set whose answers nobody reads.
//!
//! A copy is a task of its own, which begins when all of the request is known: at once where it has no body, else when the
//! request itself is done with. So nothing of the request ever waits for a copy, or fails with it. What would be too much
//! is not copied: a body that is not kept for retries either, and more copies at a time than a worker may have.

use super::attempt::Attempt;
use super::waits::{Placed, Waits};
use crate::connection::Peer;
use crate::course::Course;
use crate::failure::Failure;
use crate::message::{BodyLength, RequestHead, ResponseHead, ResponseSink, Upgrade};
use crate::replay::Copy;
use crate::retry::Attempts;
use crate::worker::Worker;
use bytes::Bytes;
use http::header::EXPECT;
use http::{HeaderMap, StatusCode};
use lb_core::route::{Filters, Route};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use tokio::task::spawn_local;

/// Copies that one worker has under way at a time; those past it are not made.
const MIRRORS_IN_FLIGHT_MAX: usize = 128;

/// Copies of one request, which wait for its body.
#[derive(Debug, Default)]
pub(super) struct Mirrored {
    routes: Vec<Arc<Route>>,
}

impl Mirrored {
    /// Draws which mirrors get a copy of this request. Those of a request without a body are sent now.
    pub(super) fn of(filters: Option<&Filters>, worker: &Worker, head: &RequestHead, peer: &Peer) -> Self {
        let mirrors = filters.map_or(&[][..], |filters| &filters.mirrors);
        if mirrors.is_empty() || head.upgrade != Upgrade::No {
            return Self::default();
        }
        let drawn = mirrors.iter().filter(|mirror| worker.turns.chance(mirror.numerator, mirror.denominator));
        let drawn = Self { routes: drawn.map(|mirror| Arc::clone(&mirror.route)).collect() };
        if head.body != BodyLength::Empty {
            return drawn;
        }
        drawn.send(worker, head, peer, || Some(Copy::default()));
        Self::default()
    }

    /// Sends those that wait. `body` is `None` where it was too large, or did not come to its end.
    pub(super) fn send(
        &self,
        worker: &Worker,
        head: &RequestHead,
        peer: &Peer,
        body: impl Fn() -> Option<Copy>,
    ) {
        for route in &self.routes {
            let place = Place::take(worker);
            let (Some(place), Some(body)) = (place, body()) else {
                worker.counters.mirrors_left_out.add(1);
                continue;
            };
            worker.counters.mirrors.add(1);
            let mut headers = head.headers.clone();
            headers.remove(EXPECT);
            let head = RequestHead {
                version: head.version,
                method: head.method.clone(),
                authority: head.authority.clone(),
                target: head.target.clone(),
                headers,
                body: body.length(head.body),
                upgrade: Upgrade::No,
            };
            let sending = Sending { place, route: Arc::clone(route), head, peer: peer.clone(), body };
            spawn_local(Box::pin(sending.run()));
        }
    }
}

/// Counts a copy for as long as it is under way.
struct Place(Rc<Worker>);

impl Place {
    fn take(worker: &Worker) -> Option<Self> {
        let worker = worker.me.upgrade()?;
        let count = worker.mirrors_in_flight.get();
        (count < MIRRORS_IN_FLIGHT_MAX).then(|| {
            worker.mirrors_in_flight.set(count + 1);
            Self(worker)
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.mirrors_in_flight.set(self.0.mirrors_in_flight.get() - 1);
    }
}

struct Sending {
    place: Place,
    route: Arc<Route>,
    head: RequestHead,
    peer: Peer,
    body: Copy,
}

impl Sending {
    /// One attempt, whatever comes of it.
    async fn run(self) {
        let Self { place, route, head, peer, mut body } = self;
        let worker = &*place.0;
        let deadline = worker.timers.deadline();
        let course = Course::new(&deadline, &route.timeouts, None);
        let attempts = Attempts::new(&route.retry, &head);
        let (is_kept, session, mut sink) = (Cell::new(false), RefCell::new(None), Unread::default());
        course.begin_wait();
        let waits = Waits { worker, course: &course };
        let placed = waits
            .place(&route, (Some(&head), &peer), &session, &attempts.tried, async || sink.gone().await)
            .await;
        if let Ok(Placed::Backend(target)) = placed {
            course.begin_attempt();
            let attempt = Attempt {
                worker,
                course: &course,
                attempts: &attempts,
                is_kept: &is_kept,
                session: &session,
                account: None,
            };
            // Its outcome is filed with the backend; there is nobody else to tell.
            let _ = attempt.run(target, &head, &mut body, &mut sink).await;
        }
    }
}

/// Takes an answer and drops it.
#[derive(Debug, Default)]
struct Unread {
    has_begun: bool,
}

impl ResponseSink for Unread {
    async fn interim(&mut self, _status: StatusCode, _headers: HeaderMap) -> Result<(), Failure> {
        Ok(())
    }

    async fn head(&mut self, _head: ResponseHead) -> Result<(), Failure> {
        self.has_begun = true;
        Ok(())
    }

    async fn data(&mut self, _data: Bytes) -> Result<(), Failure> {
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    async fn end(&mut self, _trailers: Option<HeaderMap>) -> Result<(), Failure> {
        Ok(())
    }

    fn close_after(&mut self) {}

    async fn gone(&mut self) {
        std::future::pending::<()>().await;
    }

    fn has_begun(&self) -> bool {
        self.has_begun
    }
}

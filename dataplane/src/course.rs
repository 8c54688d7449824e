//! How long a request may still take, over all of its attempts.

use crate::failure::Failure;
use crate::timer::{Deadline, Until};
use lb_core::route::Timeouts;
use std::cell::Cell;
use std::time::Duration;

/// The time limits of one request.
///
/// Until the response's head there are two, that of the request and that of the attempt, and both begin again whenever
/// the client sends some of the body: a slow upload is no slow backend. From the head on, nothing may stand still for
/// long. Over all of it there may be a limit for the whole.
#[derive(Debug)]
pub(crate) struct Course<'a> {
    deadline: &'a Deadline,
    timeouts: &'a Timeouts,
    total: Until,
    request: Cell<Until>,
    attempt: Cell<Until>,
    phase: Cell<Phase>,
    /// What stands still is the client.
    waits_for_client: Cell<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The request is on its way up.
    Sending,
    /// It is sent, and has no answer yet.
    Waiting,
    /// The response is on its way down.
    Answering,
}

impl<'a> Course<'a> {
    /// `most` is what the client gives the request; the route's limit holds beside it.
    pub(crate) fn new(deadline: &'a Deadline, timeouts: &'a Timeouts, most: Option<Duration>) -> Self {
        Self {
            deadline,
            timeouts,
            total: deadline.after(timeouts.total).min(deadline.after(most)),
            request: Cell::new(deadline.after(timeouts.request)),
            attempt: Cell::new(Until::NEVER),
            phase: Cell::new(Phase::Sending),
            waits_for_client: Cell::new(false),
        }
    }

    /// For an attempt beside another one: with the same limits, on a deadline of its own.
    pub(crate) fn beside<'b>(&'b self, deadline: &'b Deadline) -> Course<'b> {
        let request = self.request.clone();
        Course { total: self.total, request, ..Course::new(deadline, self.timeouts, None) }
    }

    pub(crate) fn deadline(&self) -> &'a Deadline {
        self.deadline
    }

    /// No attempt is under way: a place is looked for, or the next attempt waited for. The time for it is the request's.
    pub(crate) fn begin_wait(&self) {
        self.attempt.set(Until::NEVER);
        self.waits_for_client.set(false);
        self.phase.set(Phase::Waiting);
        self.arm();
    }

    /// Another attempt begins: its own limit begins, and no other.
    pub(crate) fn begin_attempt(&self) {
        self.attempt.set(self.deadline.after(self.timeouts.attempt));
        self.waits_for_client.set(false);
        self.phase.set(Phase::Sending);
        self.arm();
    }

    /// For a step of an attempt that has a limit of its own, such as connecting.
    pub(crate) fn step(&self, limit: Duration) -> Step<'a> {
        let limit = self.deadline.after(Some(limit));
        let limit = limit.min(self.total).min(self.request.get()).min(self.attempt.get());
        self.deadline.set_until(limit);
        Step(self.deadline)
    }

    /// The request goes on its way, from the client or to the backend: the limits of a step before are over.
    pub(crate) fn begin_sending(&self) {
        self.arm();
    }

    /// Something of the request came from the client, or something of the answer from the backend.
    pub(crate) fn moved(&self) {
        if self.phase.get() != Phase::Answering {
            self.request.set(self.deadline.after(self.timeouts.request));
            self.attempt.set(self.deadline.after(self.timeouts.attempt));
        }
        self.arm();
    }

    /// Whether the next thing to happen is the client's.
    pub(crate) fn wait_for_client(&self, waits: bool) {
        self.waits_for_client.set(waits);
    }

    /// What the client gives, or whose fault it is that it did not in time.
    pub(crate) async fn while_client<T>(
        &self,
        given: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        self.wait_for_client(true);
        let given = tokio::select! { biased;
            given = given => given,
            () = self.deadline.passed() => Err(self.stalled()),
        };
        self.wait_for_client(false);
        given
    }

    pub(crate) fn request_sent(&self) {
        self.phase.set(Phase::Waiting);
        self.arm();
    }

    /// Whether the response's head has come.
    pub(crate) fn is_answering(&self) -> bool {
        self.phase.get() == Phase::Answering
    }

    pub(crate) fn response_began(&self) {
        self.phase.set(Phase::Answering);
        self.arm();
    }

    /// Whose fault it is that the deadline passed.
    pub(crate) fn stalled(&self) -> Failure {
        if self.deadline.is_past(self.total) {
            Failure::RequestTimeout
        } else if self.waits_for_client.get() {
            Failure::RequestSlow
        } else {
            Failure::BackendTimeout
        }
    }

    /// Whether there is no time for another attempt.
    pub(crate) fn is_over(&self) -> bool {
        self.deadline.is_past(self.total.min(self.request.get()))
    }

    fn arm(&self) {
        let idle = || self.deadline.after(Some(self.timeouts.idle));
        let limit = match self.phase.get() {
            Phase::Answering => idle(),
            Phase::Sending if self.timeouts.request.is_none() => idle().min(self.attempt.get()),
            Phase::Sending | Phase::Waiting => self.request.get().min(self.attempt.get()),
        };
        self.deadline.set_until(limit.min(self.total));
    }
}

/// A step with a limit, which is set.
#[derive(Debug)]
pub(crate) struct Step<'a>(&'a Deadline);

impl<'a> Step<'a> {
    /// Of no request.
    pub(crate) fn alone(deadline: &'a Deadline) -> Self {
        Self(deadline)
    }

    /// What the future gives, or `None` once the limit has passed.
    pub(crate) async fn within<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        tokio::select! { biased;
            value = future => Some(value),
            () = self.0.passed() => None,
        }
    }
}

//! The request's body as it comes in: how large it may be, and how slowly it may come.

use crate::access_log::Account;
use crate::course::Course;
use crate::failure::Failure;
use crate::grpc;
use crate::message::{BodyLength, Frame, RequestBody, RequestHead};
use crate::snapshot::Listener;
use crate::timer::{Deadline, TICK};
use crate::wire::poll_once;
use crate::worker::Worker;
use lb_core::route::Route;
use std::time::Duration;

/// How long a body is waited for in all before its pace counts.
pub(crate) const PACE_GRACE: Duration = Duration::from_secs(30);

/// What a body is held to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// `None` for no limit.
    bytes_max: Option<u64>,
    /// Bytes for each second in which the client is waited for; 0 for no minimum.
    pace_min: u32,
}

impl Limits {
    pub(super) fn of(listener: &Listener, route: &Route) -> Self {
        Self { bytes_max: route.body_bytes_max, pace_min: listener.limits.body_bytes_per_second_min }
    }
}

/// A request's body within its limits.
pub(super) struct Intake<'a, B> {
    body: &'a mut B,
    worker: &'a Worker,
    course: &'a Course<'a>,
    /// Where the request is logged.
    account: Option<&'a Account>,
    bytes_max: Option<u64>,
    bytes: u64,
    pace: Option<Pace>,
    /// Made where the body is waited for.
    deadline: Option<Deadline>,
}

impl<'a, B: RequestBody> Intake<'a, B> {
    /// # Errors
    /// [`Failure::BodyTooLarge`] where the head says so already.
    pub(super) fn new(
        body: &'a mut B,
        worker: &'a Worker,
        course: &'a Course<'a>,
        head: &RequestHead,
        limits: Limits,
        account: Option<&'a Account>,
    ) -> Result<Self, Failure> {
        if let (BodyLength::Known(length), Some(max)) = (head.body, limits.bytes_max)
            && length > max
        {
            return Err(Failure::BodyTooLarge);
        }
        // A call of gRPC may be silent for as long as it likes: its messages are a conversation, no upload.
        let is_call = grpc::content_type(&head.headers).is_some();
        let pace = (limits.pace_min > 0 && !is_call).then(|| Pace::new(limits.pace_min));
        let bytes_max = limits.bytes_max;
        Ok(Self { body, worker, course, account, bytes_max, bytes: 0, pace, deadline: None })
    }

    fn take(&mut self, frame: Option<Frame>) -> Result<Option<Frame>, Failure> {
        if let Some(Frame::Data(data)) = &frame {
            self.bytes += data.len() as u64;
            self.account.iter().for_each(|account| account.came(data.len()));
            if self.bytes_max.is_some_and(|max| self.bytes > max) {
                return Err(Failure::BodyTooLarge);
            }
        }
        Ok(frame)
    }

    /// Waits for the client, as long as its pace allows. Once the backend answers, the two converse: no pace is asked.
    async fn wait(&mut self, pace: Pace) -> Result<Option<Frame>, Failure> {
        let began = self.worker.timers.now();
        let deadline = self.deadline.get_or_insert_with(|| self.worker.timers.deadline());
        deadline.set(Some(pace.left(self.bytes)));
        let next = tokio::select! { biased;
            next = self.body.next() => Some(next?),
            () = deadline.passed() => None,
        };
        let frame = match next {
            Some(frame) => {
                let ticks = self.worker.timers.now() - began;
                self.pace = Some(pace.after(TICK * u32::try_from(ticks).unwrap_or(u32::MAX)));
                frame
            }
            None if self.course.is_answering() => {
                self.pace = None;
                self.body.next().await?
            }
            None => return Err(Failure::RequestSlow),
        };
        self.take(frame)
    }
}

impl<B: RequestBody> RequestBody for Intake<'_, B> {
    async fn next(&mut self) -> Result<Option<Frame>, Failure> {
        if let Some(next) = poll_once(self.body.next()).await {
            return self.take(next?);
        }
        match self.pace {
            Some(pace) if !self.course.is_answering() => self.wait(pace).await,
            _ => {
                let next = self.body.next().await?;
                self.take(next)
            }
        }
    }

    fn has_ended(&self) -> bool {
        self.body.has_ended()
    }
}

/// How long a client may still be waited for: [`PACE_GRACE`], and a second for each so many bytes that it sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pace {
    bytes_per_second_min: u32,
    waited: Duration,
}

impl Pace {
    fn new(bytes_per_second_min: u32) -> Self {
        Self { bytes_per_second_min, waited: Duration::ZERO }
    }

    fn after(self, waited: Duration) -> Self {
        Self { waited: self.waited.saturating_add(waited), ..self }
    }

    fn left(self, bytes: u64) -> Duration {
        let earned =
            Duration::from_millis(bytes.saturating_mul(1_000) / u64::from(self.bytes_per_second_min));
        PACE_GRACE.saturating_add(earned).saturating_sub(self.waited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_waited_for_as_long_as_its_bytes_earn_beyond_the_grace() {
        let pace = Pace::new(240);
        assert_eq!(pace.left(0), PACE_GRACE);
        assert_eq!(pace.left(2_400), PACE_GRACE + Duration::from_secs(10));
        let late = pace.after(PACE_GRACE);
        assert_eq!(late.left(0), Duration::ZERO);
        assert_eq!(late.left(24), Duration::from_millis(100));
        assert_eq!(late.after(Duration::MAX).left(u64::MAX), Duration::ZERO);
    }
}

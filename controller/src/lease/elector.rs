//! The decisions of one candidate for the Lease: pure, from what was seen and when to what is asked next.
//!
//! One request is under way at a time, each written over the revision that was read before, so that of two
//! candidates one is refused. Why two never both lead is in the module above.

use super::record::{Record, Revision, in_microseconds};
use super::{LEASE_DURATION, LEASE_DURATION_MAX, RENEW_DEADLINE, RETRY_PERIOD};
use k8s_openapi::jiff::Timestamp;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How patient a candidate is. Always `2 * retry <= renew_deadline <= 0.8 * duration`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    duration: Duration,
    renew_deadline: Duration,
    retry: Duration,
}

/// Durations that would let two replicas lead at once, or none for long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TimingError {
    /// Kubernetes keeps the duration in whole seconds, above 0.
    #[error("the Lease's duration must be 1 to {} s: others wait that long for a dead holder", LEASE_DURATION_MAX.as_secs())]
    Duration,
    /// No margin between the end of one tenure and the begin of the next.
    #[error(
        "the deadline to renew the Lease must be at most four fifths of its duration: the rest is the margin in \
         which nobody writes"
    )]
    Deadline,
    /// One lost request would lose the Lease.
    #[error(
        "the time between two attempts must be above 0 and at most half of the deadline to renew the Lease"
    )]
    Retry,
}

impl Timing {
    /// `duration` is how long others wait for a holder that is silent, `renew_deadline` when a holder that cannot
    /// renew stops, `retry` the time between two attempts.
    ///
    /// # Errors
    /// [`TimingError`] when the three do not fit.
    pub fn new(duration: Duration, renew_deadline: Duration, retry: Duration) -> Result<Self, TimingError> {
        if duration < Duration::from_secs(1) || duration > LEASE_DURATION_MAX {
            return Err(TimingError::Duration);
        }
        if renew_deadline > duration * 4 / 5 {
            return Err(TimingError::Deadline);
        }
        if retry.is_zero() || retry > renew_deadline / 2 {
            return Err(TimingError::Retry);
        }
        Ok(Self { duration, renew_deadline, retry })
    }

    /// Between two attempts.
    #[must_use]
    pub fn retry(&self) -> Duration {
        self.retry
    }

    /// After which a request counts as lost: three fit into the deadline.
    #[must_use]
    pub fn request_timeout(&self) -> Duration {
        self.renew_deadline / 3
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self { duration: LEASE_DURATION, renew_deadline: RENEW_DEADLINE, retry: RETRY_PERIOD }
    }
}

/// What the clocks say.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// What decides.
    pub monotonic: Instant,
    /// Of the day; written into the Lease for people.
    pub wall: Timestamp,
}

/// What has happened since the last action was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The time that was asked for has come.
    Wake,
    /// The Lease was read.
    Found(Record, Revision),
    /// There is no Lease.
    Missing,
    /// The Lease was written, and has this revision now.
    Written(Revision),
    /// The write was refused: the Lease is not what it was when it was read.
    Conflict,
    /// No answer, or one that says nothing of the Lease. A write may have happened, or may still.
    Failed,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Read the Lease.
    Read,
    /// Over this revision; `None` only if there is no Lease.
    Write(Record, Option<Revision>),
    /// Nothing, up to this moment.
    WaitUntil(Instant),
}

/// One candidate.
#[derive(Debug)]
pub struct Elector {
    me: Arc<str>,
    timing: Timing,
    /// The Lease as last seen, and when it was first seen so.
    seen: Option<(Record, Instant)>,
    /// When this process acquired the Lease, or last tried to. A record with my name and another time is of a process
    /// before this one or of a twin by mistake: a stranger.
    tenure: Option<Timestamp>,
    /// The write under way and when it was asked for.
    writing: Option<(Record, Instant)>,
    /// When the last successful renewal was asked for.
    renewed: Option<Instant>,
    /// To renew without reading first.
    revision: Option<Revision>,
}

impl Elector {
    /// Knows nothing of the Lease yet. `me` is unique among all candidates.
    #[must_use]
    pub fn new(me: Arc<str>, timing: Timing) -> Self {
        Self { me, timing, seen: None, tenure: None, writing: None, renewed: None, revision: None }
    }

    /// Until when this candidate leads, if it does not renew: a moment that may have passed.
    #[must_use]
    pub fn leads_until(&self) -> Option<Instant> {
        self.renewed.map(|renewed| renewed + self.timing.renew_deadline)
    }

    /// Whether this candidate leads.
    #[must_use]
    pub fn leads(&self, now: Instant) -> bool {
        self.leads_until().is_some_and(|until| now < until)
    }

    /// Who holds the Lease by what was last seen, unless it has expired.
    #[must_use]
    pub fn holder(&self, now: Instant) -> Option<&str> {
        let (record, _) = self.seen.as_ref()?;
        let expires = self.expires()?;
        record.holder.as_deref().filter(|_| now < expires)
    }

    /// Takes in what happened and says what to do next.
    pub fn step(&mut self, now: Now, input: Input) -> Action {
        let writing = self.writing.take();
        match input {
            Input::Wake => match self.revision.take() {
                Some(revision) if self.leads(now.monotonic) => self.renew(now, revision),
                _ => Action::Read,
            },
            Input::Found(record, revision) => {
                self.see(now.monotonic, record);
                self.on_found(now, revision)
            }
            Input::Missing => self.on_missing(now),
            Input::Written(revision) => {
                let Some((record, asked)) = writing else { return Action::Read };
                self.see(now.monotonic, record);
                self.renewed = Some(asked);
                self.revision = Some(revision);
                Action::WaitUntil(asked + self.timing.retry)
            }
            // Not at once: whoever keeps editing the Lease would keep this going.
            Input::Conflict => Action::WaitUntil(now.monotonic + self.timing.retry / 4),
            Input::Failed => Action::WaitUntil(now.monotonic + self.timing.retry),
        }
    }

    /// What to write to give the Lease to the next at once, if it is this candidate's.
    pub(super) fn released(&self, record: &Record) -> Option<Record> {
        self.is_mine(record).then(|| Record { holder: None, ..record.clone() })
    }

    /// Stops leading, whatever the time.
    pub(super) fn resign(&mut self) {
        self.renewed = None;
    }

    fn on_found(&mut self, now: Now, revision: Revision) -> Action {
        let Some((record, _)) = &self.seen else { return Action::Read };
        if self.is_mine(record) {
            return self.renew(now, revision);
        }
        self.renewed = None;
        if record.holder.is_some() {
            self.tenure = None;
            if let Some(wait) = self.wait_for_expiry(now.monotonic) {
                return wait;
            }
        }
        self.acquire(now, Some(revision))
    }

    fn on_missing(&mut self, now: Now) -> Action {
        // Somebody deleted the Lease of a holder that does not know yet.
        let is_strangers =
            self.seen.as_ref().is_some_and(|(record, _)| record.holder.is_some() && !self.is_mine(record));
        match self.wait_for_expiry(now.monotonic) {
            Some(wait) if is_strangers => wait,
            _ => self.acquire(now, None),
        }
    }

    fn wait_for_expiry(&self, now: Instant) -> Option<Action> {
        let expires = self.expires().filter(|expires| now < *expires)?;
        Some(Action::WaitUntil(expires.min(now + self.timing.retry)))
    }

    fn renew(&mut self, now: Now, revision: Revision) -> Action {
        let Some((mine, _)) = &self.seen else { return Action::Read };
        let mut record = mine.clone();
        record.renewed = Some(after(record.renewed, now.wall));
        record.duration = Some(self.timing.duration);
        self.write(now, record, Some(revision))
    }

    fn acquire(&mut self, now: Now, revision: Option<Revision>) -> Action {
        let before = self.seen.as_ref().map(|(record, _)| record);
        // The same in each attempt, so that one whose answer was lost is known as mine.
        let tenure = self.tenure.unwrap_or_else(|| in_microseconds(now.wall));
        let record = Record {
            holder: Some(self.me.to_string()),
            acquired: Some(tenure),
            renewed: Some(after(before.and_then(|record| record.renewed), now.wall)),
            duration: Some(self.timing.duration),
            transitions: before.map_or(0, |record| record.transitions.saturating_add(1)),
        };
        self.tenure = Some(tenure);
        self.write(now, record, revision)
    }

    fn write(&mut self, now: Now, record: Record, revision: Option<Revision>) -> Action {
        self.writing = Some((record.clone(), now.monotonic));
        Action::Write(record, revision)
    }

    /// An equal record is no sign of life.
    fn see(&mut self, now: Instant, record: Record) {
        if self.seen.as_ref().is_none_or(|(before, _)| *before != record) {
            self.seen = Some((record, now));
        }
    }

    fn is_mine(&self, record: &Record) -> bool {
        record.holder.as_deref() == Some(&*self.me) && self.tenure.is_some() && record.acquired == self.tenure
    }

    fn expires(&self) -> Option<Instant> {
        let (record, at) = self.seen.as_ref()?;
        Some(*at + record.duration.unwrap_or(self.timing.duration))
    }
}

/// The time of day, moved on where needed: a renewal that changes nothing would be no sign of life.
fn after(last: Option<Timestamp>, now: Timestamp) -> Timestamp {
    let next = last.and_then(|last| Timestamp::from_microsecond(last.as_microsecond() + 1).ok());
    next.map_or(in_microseconds(now), |next| next.max(in_microseconds(now)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Candidate `me` beside a server of which the test plays the part.
    struct Candidate {
        elector: Elector,
        begin: Instant,
    }

    const ME: &str = "me@127.0.0.1:1";

    impl Candidate {
        fn new() -> Self {
            Self { elector: Elector::new(ME.into(), Timing::default()), begin: Instant::now() }
        }

        fn at(&self, seconds: f64) -> Instant {
            self.begin + Duration::from_secs_f64(seconds)
        }

        fn step(&mut self, seconds: f64, input: Input) -> Action {
            let wall = Timestamp::from_microsecond(1_000_000 * 1_000).expect("a time");
            self.elector.step(Now { monotonic: self.at(seconds), wall }, input)
        }

        fn writes(&mut self, seconds: f64, input: Input) -> Record {
            match self.step(seconds, input) {
                Action::Write(record, _) => record,
                other => panic!("a write was due, not {other:?}"),
            }
        }

        fn leads(&self, seconds: f64) -> bool {
            self.elector.leads(self.at(seconds))
        }
    }

    fn revision(number: u32) -> Revision {
        Revision(number.to_string())
    }

    fn other(renewed: i64) -> Record {
        Record {
            holder: Some("other@127.0.0.1:2".into()),
            acquired: Timestamp::from_microsecond(5).ok(),
            renewed: Timestamp::from_microsecond(renewed).ok(),
            duration: Some(Duration::from_secs(15)),
            transitions: 4,
        }
    }

    fn found(record: &Record, number: u32) -> Input {
        Input::Found(record.clone(), revision(number))
    }

    #[test]
    fn a_lease_that_is_not_there_is_created_and_renewed_without_reading() {
        let mut me = Candidate::new();
        assert_eq!(me.step(0.0, Input::Wake), Action::Read);
        let created = me.writes(0.0, Input::Missing);
        assert_eq!((created.holder.as_deref(), created.transitions), (Some(ME), 0));
        assert!(!me.leads(0.1), "not before the answer");
        assert_eq!(me.step(1.0, Input::Written(revision(1))), Action::WaitUntil(me.at(2.0)));
        assert!(me.leads(9.9) && !me.leads(10.0), "ten seconds from the question, not from the answer");
        let renewed = me.writes(2.0, Input::Wake);
        assert_ne!(renewed.renewed, created.renewed, "although the clock on the wall stands still");
        assert_eq!((renewed.acquired, renewed.transitions), (created.acquired, 0));
    }

    #[test]
    fn a_silent_holder_is_replaced_when_its_duration_has_passed_here() {
        let mut me = Candidate::new();
        me.step(0.0, Input::Wake);
        assert_eq!(me.step(1.0, found(&other(1), 1)), Action::WaitUntil(me.at(3.0)));
        assert_eq!(me.elector.holder(me.at(15.9)), other(1).holder.as_deref());
        me.step(3.0, Input::Wake);
        assert_eq!(
            me.step(14.5, found(&other(1), 2)),
            Action::WaitUntil(me.at(16.0)),
            "another revision only"
        );
        let taken = me.writes(16.0, found(&other(1), 2));
        assert_eq!((taken.holder.as_deref(), taken.transitions), (Some(ME), 5));
        assert_eq!(me.elector.holder(me.at(16.0)), None);
    }

    #[test]
    fn each_change_that_is_seen_begins_the_wait_anew() {
        let mut me = Candidate::new();
        me.step(0.0, found(&other(1), 1));
        me.step(14.0, found(&other(2), 2));
        assert!(matches!(me.step(28.9, found(&other(2), 2)), Action::WaitUntil(_)));
        assert!(matches!(me.step(29.0, found(&other(2), 2)), Action::Write(..)));
    }

    #[test]
    fn a_released_lease_is_taken_at_once() {
        let mut me = Candidate::new();
        me.step(0.0, found(&other(1), 1));
        let released = Record { holder: None, ..other(1) };
        assert_eq!(me.writes(2.0, found(&released, 2)).transitions, 5);
    }

    #[test]
    fn a_holder_that_hears_nothing_stops_before_its_lease_expires_for_others() {
        let mut me = Candidate::new();
        me.step(0.0, Input::Missing);
        me.step(0.0, Input::Written(revision(1)));
        me.step(2.0, Input::Wake);
        assert_eq!(me.step(5.0, Input::Failed), Action::WaitUntil(me.at(7.0)));
        assert!(me.leads(9.9) && !me.leads(10.0));
        assert_eq!(me.step(7.0, Input::Wake), Action::Read, "the write that failed may have happened");
    }

    #[test]
    fn a_holder_that_sees_another_one_stops_at_once() {
        let mut me = Candidate::new();
        me.step(0.0, Input::Missing);
        me.step(0.0, Input::Written(revision(1)));
        me.step(2.0, Input::Wake);
        assert!(matches!(me.step(2.1, Input::Conflict), Action::WaitUntil(_)));
        assert!(me.leads(2.2), "only the next answer says who");
        me.step(2.6, Input::Wake);
        me.step(2.7, found(&other(1), 3));
        assert!(!me.leads(2.7));
    }

    #[test]
    fn an_edit_that_leaves_the_holder_in_place_costs_one_reading() {
        let mut me = Candidate::new();
        let mine = me.writes(0.0, Input::Missing);
        me.step(0.0, Input::Written(revision(1)));
        me.step(2.0, Input::Wake);
        me.step(2.1, Input::Conflict);
        assert_eq!(me.step(2.6, Input::Wake), Action::Read);
        match me.step(2.7, found(&mine, 3)) {
            Action::Write(_, over) => assert_eq!(over, Some(revision(3))),
            other => panic!("a renewal was due, not {other:?}"),
        }
    }

    #[test]
    fn an_acquisition_whose_answer_was_lost_is_known_again() {
        let mut me = Candidate::new();
        let sent = me.writes(0.0, Input::Missing);
        me.step(3.0, Input::Failed);
        assert!(!me.leads(3.0));
        let renewed = me.writes(5.0, found(&sent, 1));
        assert_eq!((renewed.acquired, renewed.transitions), (sent.acquired, sent.transitions));
        me.step(5.1, Input::Written(revision(2)));
        assert!(me.leads(5.1));
    }

    #[test]
    fn a_record_with_my_name_of_a_process_before_is_a_strangers() {
        let mut me = Candidate::new();
        let before = Record { holder: Some(ME.into()), ..other(1) };
        assert!(matches!(me.step(0.0, found(&before, 1)), Action::WaitUntil(_)));
        assert!(me.elector.released(&before).is_none());
        assert!(matches!(me.step(15.0, found(&before, 1)), Action::Write(..)));
    }

    #[test]
    fn a_deleted_lease_is_recreated_at_once_by_its_holder_and_late_by_others() {
        let mut me = Candidate::new();
        me.step(0.0, Input::Missing);
        me.step(0.0, Input::Written(revision(1)));
        me.step(2.0, Input::Wake);
        assert!(matches!(me.step(2.1, Input::Missing), Action::Write(_, None)));
        let mut other_one = Candidate::new();
        other_one.step(0.0, found(&other(1), 1));
        assert!(matches!(other_one.step(14.9, Input::Missing), Action::WaitUntil(_)));
        assert!(matches!(other_one.step(15.0, Input::Missing), Action::Write(_, None)));
    }

    #[test]
    fn only_its_own_lease_is_released() {
        let mut me = Candidate::new();
        let mine = me.writes(0.0, Input::Missing);
        assert_eq!(me.elector.released(&mine).map(|record| record.holder), Some(None));
        assert_eq!(me.elector.released(&other(1)), None);
    }

    #[test]
    fn durations_without_a_margin_are_refused() {
        let timing = |duration, deadline, retry| {
            let millis = Duration::from_millis;
            Timing::new(millis(duration), millis(deadline), millis(retry)).map(|_| ())
        };
        assert_eq!(timing(15_000, 10_000, 2_000), Ok(()));
        assert_eq!(timing(1_000, 800, 400), Ok(()));
        assert_eq!(timing(999, 500, 100), Err(TimingError::Duration));
        assert_eq!(timing(600_001, 500, 100), Err(TimingError::Duration));
        assert_eq!(timing(1_000, 801, 100), Err(TimingError::Deadline));
        assert_eq!(timing(1_000, 800, 401), Err(TimingError::Retry));
        assert_eq!(timing(1_000, 800, 0), Err(TimingError::Retry));
    }
}

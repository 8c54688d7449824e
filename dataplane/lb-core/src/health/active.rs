//! Active checks of one target: when the next probe is due, and what its results come to.
//!
//! Own rules, where products differ:
//! - Before its first result a target is [`State::Unknown`] and counts as [`Initial`] says.
//! - Unknown turns Up with the first pass: nothing speaks against it.
//! - Unknown that counts as up turns Down only with the whole threshold. Kubernetes called it ready, and one lost packet
//!   should not outweigh that (HAProxy takes one failure there).
//! - Unknown that counts as down turns Down with the first failure: nothing changes but the reason.

use super::moment::Moment;
use super::random::{part_of, permille_of};
use super::settings::{ActiveSettings, Initial, Valid};
use std::fmt;
use std::time::Duration;

/// First probes are spread over this time, or over the interval where that is shorter.
pub const FIRST_PROBE_SPREAD: Duration = Duration::from_secs(1);

/// What active checks make of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// No result yet.
    Unknown,
    /// It takes requests.
    Up,
    /// It takes none.
    Down,
}

/// One result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// What came of it.
    pub outcome: Outcome,
    /// When that was known.
    pub at: Moment,
}

/// What came of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All was as expected.
    Pass {
        /// From the begin of the probe to its result.
        latency: Duration,
    },
    /// Something was not.
    Fail {
        /// What.
        reason: Reason,
    },
}

/// Why a probe failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No result within the time-out.
    TimedOut,
    /// The connection was refused.
    Refused,
    /// No way to the address.
    Unreachable,
    /// The connection closed before there was a result.
    Closed,
    /// The TLS handshake failed.
    Tls,
    /// The bytes were not the protocol's.
    Protocol,
    /// A status code that is not expected.
    Status(u16),
    /// The body lacks the text looked for.
    Body,
    /// A gRPC health status other than SERVING, or the RPC's own failure.
    NotServing,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut => f.write_str("no answer within the time-out"),
            Self::Refused => f.write_str("connection refused"),
            Self::Unreachable => f.write_str("address not reachable"),
            Self::Closed => f.write_str("connection closed before an answer"),
            Self::Tls => f.write_str("TLS handshake failed"),
            Self::Protocol => f.write_str("answer broke the protocol"),
            Self::Status(status) => write!(f, "status {status}"),
            Self::Body => f.write_str("body lacks the expected text"),
            Self::NotServing => f.write_str("gRPC health is not SERVING"),
        }
    }
}

/// A change of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// The state before.
    pub from: State,
    /// The state since.
    pub to: State,
    /// When.
    pub at: Moment,
    /// Of the last failure, where it turned Down.
    pub reason: Option<Reason>,
}

/// Where a checker is between two probes.
///
/// ```text
/// Idle --resume--> Waiting --begin--> Probing --finish--> Waiting
///   ^----------------- pause ------------'-------------------'
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Another proxy checks this target.
    Idle,
    /// The next probe begins at `due`.
    Waiting {
        /// When.
        due: Moment,
    },
    /// A probe is on its way.
    Probing {
        /// Since when.
        since: Moment,
    },
}

/// Checks of one target.
#[derive(Debug, Clone)]
pub struct Checker {
    settings: Valid<ActiveSettings>,
    state: State,
    /// Consecutive results that speak against the state; below the threshold.
    against: u32,
    /// Whether a result of our own bears the state out, since it was taken over or began.
    is_confirmed: bool,
    phase: Phase,
    last: Option<Probe>,
}

impl Checker {
    /// A checker that waits for its first probe: at once, spread by `random` over [`FIRST_PROBE_SPREAD`].
    #[must_use]
    pub fn new(settings: Valid<ActiveSettings>, now: Moment, random: u64) -> Self {
        let (state, phase) = (State::Unknown, Phase::Idle);
        let mut checker = Self { settings, state, against: 0, is_confirmed: false, phase, last: None };
        checker.resume(now, State::Unknown, random);
        checker
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &Valid<ActiveSettings> {
        &self.settings
    }

    /// The state.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether the state is of our own finding, and not only taken over.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        self.is_confirmed
    }

    /// Where it is between two probes.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The last result, whenever it was.
    #[must_use]
    pub fn last(&self) -> Option<Probe> {
        self.last
    }

    /// When something is to be done: a probe to begin, or one to give up. `None` while idle.
    #[must_use]
    pub fn wakes_at(&self) -> Option<Moment> {
        match self.phase {
            Phase::Idle => None,
            Phase::Waiting { due } => Some(due),
            Phase::Probing { since } => Some(since + self.settings.timeout),
        }
    }

    /// Checks from now on, beginning in `state`, which another proxy found: taking over changes nothing by itself.
    pub fn resume(&mut self, now: Moment, state: State, random: u64) {
        self.state = state;
        self.against = 0;
        self.is_confirmed = false;
        let spread = self.settings.interval.min(FIRST_PROBE_SPREAD);
        self.phase = Phase::Waiting { due: now + part_of(spread, random) };
    }

    /// Takes over what other proxies found, where there is no state yet. The schedule stays, and failures that were
    /// counted against Up still are.
    pub fn adopt(&mut self, state: State) {
        if self.state == State::Unknown {
            self.state = state;
            self.against = if state == State::Up { self.against } else { 0 };
        }
    }

    /// Checks no more; the state stays what it was.
    pub fn pause(&mut self) {
        self.phase = Phase::Idle;
        self.against = 0;
    }

    /// A probe begins.
    pub fn begin(&mut self, now: Moment) {
        self.phase = Phase::Probing { since: now };
    }

    /// The result of the probe that began. Without one, nothing changes.
    ///
    /// The next is due an interval after this one began, less jitter, and not before now.
    pub fn finish(&mut self, probe: Probe, random: u64) -> Option<Transition> {
        let Phase::Probing { since } = self.phase else { return None };
        self.last = Some(probe);
        let transition = self.judge(probe);
        let interval = match self.settings.recheck_interval {
            Some(recheck) if self.against > 0 => recheck,
            _ => self.settings.interval,
        };
        let jitter = part_of(permille_of(interval, self.settings.jitter_permille), random);
        self.phase = Phase::Waiting { due: (since + (interval - jitter)).max(probe.at) };
        transition
    }

    fn judge(&mut self, probe: Probe) -> Option<Transition> {
        let (found, reason) = match probe.outcome {
            Outcome::Pass { .. } => (State::Up, None),
            Outcome::Fail { reason } => (State::Down, Some(reason)),
        };
        if found == self.state {
            self.against = 0;
            self.is_confirmed = true;
            return None;
        }
        self.against += 1;
        if self.against < self.needed(found) {
            return None;
        }
        let from = std::mem::replace(&mut self.state, found);
        self.against = 0;
        self.is_confirmed = true;
        Some(Transition { from, to: found, at: probe.at, reason })
    }

    /// Results that turn the state to `found`.
    fn needed(&self, found: State) -> u32 {
        match (self.state, found, self.settings.initial) {
            (State::Unknown, State::Up, _) | (State::Unknown, State::Down, Initial::Down) => 1,
            (_, State::Down, _) => self.settings.unhealthy_threshold,
            _ => self.settings.healthy_threshold,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn settings(change: impl FnOnce(&mut ActiveSettings)) -> Valid<ActiveSettings> {
        let mut settings = ActiveSettings::default();
        change(&mut settings);
        settings.validate().expect("settings of a test")
    }

    fn pass() -> Outcome {
        Outcome::Pass { latency: Duration::from_millis(1) }
    }

    fn fail() -> Outcome {
        Outcome::Fail { reason: Reason::Refused }
    }

    /// States after each of `results`: `+` passes, `-` fails.
    fn states(settings: Valid<ActiveSettings>, results: &str) -> String {
        let mut checker = Checker::new(settings, Moment::START, 0);
        let after = |result: char| {
            let now = checker.wakes_at().expect("it waits");
            checker.begin(now);
            let outcome = if result == '+' { pass() } else { fail() };
            checker.finish(Probe { outcome, at: now }, 0);
            match checker.state() {
                State::Unknown => '?',
                State::Up => 'U',
                State::Down => 'D',
            }
        };
        results.chars().map(after).collect()
    }

    #[test]
    fn thresholds_count_results_in_a_row() {
        let rows = [
            ("+", "U"),
            ("---", "??D"),
            ("--+", "??U"),
            ("+---++", "UUUDDU"),
            ("+--+--+---", "UUUUUUUUUD"),
            ("---+-++", "??DDDDU"),
        ];
        for (results, expected) in rows {
            assert_eq!(states(settings(|_| ()), results), expected, "{results}");
        }
    }

    #[test]
    fn what_begins_down_needs_one_result_either_way() {
        let down = |settings: &mut ActiveSettings| settings.initial = Initial::Down;
        assert_eq!(states(settings(down), "+"), "U");
        assert_eq!(states(settings(down), "-+"), "DD");
        assert_eq!(states(settings(down), "-++"), "DDU");
    }

    #[test]
    fn a_transition_tells_when_and_why() {
        let mut checker = Checker::new(settings(|s| s.unhealthy_threshold = 1), Moment::START, 0);
        checker.begin(Moment::START);
        let at = Moment::START + Duration::from_millis(7);
        let found = checker.finish(Probe { outcome: fail(), at }, 0);
        let reason = Some(Reason::Refused);
        assert_eq!(found, Some(Transition { from: State::Unknown, to: State::Down, at, reason }));
        assert_eq!(checker.last(), Some(Probe { outcome: fail(), at }));
    }

    #[test]
    fn the_next_probe_is_an_interval_after_the_last_began_less_jitter() {
        let second = Duration::from_secs(1);
        for (random, expected) in
            [(0, second), (u64::MAX, Duration::from_millis(900) + Duration::from_nanos(1))]
        {
            let mut checker = Checker::new(settings(|_| ()), Moment::START, 0);
            checker.begin(Moment::START);
            checker.finish(Probe { outcome: pass(), at: Moment::START + second / 2 }, random);
            assert_eq!(checker.wakes_at(), Some(Moment::START + expected));
        }
    }

    #[test]
    fn a_probe_that_outlives_the_interval_is_not_overlapped() {
        let long = Duration::from_secs(5);
        let mut checker = Checker::new(settings(|s| s.timeout = long), Moment::START, 0);
        checker.begin(Moment::START);
        assert_eq!(checker.wakes_at(), Some(Moment::START + long));
        checker.finish(Probe { outcome: fail(), at: Moment::START + long }, 0);
        assert_eq!(checker.wakes_at(), Some(Moment::START + long));
    }

    #[test]
    fn in_doubt_it_looks_again_sooner() {
        let recheck = Duration::from_millis(200);
        let mut checker = Checker::new(settings(|s| s.recheck_interval = Some(recheck)), Moment::START, 0);
        let mut gaps = Vec::new();
        for outcome in [pass(), fail(), fail(), fail(), pass(), pass()] {
            let now = checker.wakes_at().expect("it waits");
            checker.begin(now);
            checker.finish(Probe { outcome, at: now }, 0);
            gaps.push(checker.wakes_at().expect("it waits").since(now).as_millis());
        }
        assert_eq!(gaps, [1000, 200, 200, 1000, 200, 1000]);
    }

    #[test]
    fn taking_over_changes_nothing_by_itself() {
        let mut checker = Checker::new(settings(|_| ()), Moment::START, 0);
        checker.pause();
        assert_eq!((checker.wakes_at(), checker.state()), (None, State::Unknown));
        assert_eq!(checker.finish(Probe { outcome: fail(), at: Moment::START }, 0), None);
        checker.resume(Moment::START, State::Down, u64::MAX);
        assert_eq!((checker.state(), checker.is_confirmed()), (State::Down, false));
        assert!(checker.wakes_at().expect("it waits") < Moment::START + FIRST_PROBE_SPREAD);
        checker.begin(Moment::START);
        checker.finish(Probe { outcome: fail(), at: Moment::START }, 0);
        assert!(checker.is_confirmed());
    }

    #[test]
    fn what_others_found_is_adopted_only_while_nothing_is_known() {
        let mut checker = Checker::new(settings(|_| ()), Moment::START, 0);
        let probe = |checker: &mut Checker, outcome| {
            let now = checker.wakes_at().expect("it waits");
            checker.begin(now);
            checker.finish(Probe { outcome, at: now }, 0)
        };
        probe(&mut checker, fail());
        probe(&mut checker, fail());
        checker.adopt(State::Up);
        assert!(probe(&mut checker, fail()).is_some(), "two failures were counted before");
        checker.adopt(State::Up);
        assert_eq!(checker.state(), State::Down);
        let mut other = Checker::new(settings(|_| ()), Moment::START, 0);
        other.adopt(State::Down);
        probe(&mut other, pass());
        assert_eq!((other.state(), other.is_confirmed()), (State::Down, false), "two passes are needed");
    }

    proptest! {
        #[test]
        fn transitions_alternate_and_need_their_thresholds(
            healthy in 1u32..5, unhealthy in 1u32..5, results in prop::collection::vec(any::<bool>(), 0..200)
        ) {
            let settings = settings(|s| { s.healthy_threshold = healthy; s.unhealthy_threshold = unhealthy; });
            let mut checker = Checker::new(settings, Moment::START, 0);
            for (at, passes) in results.iter().enumerate() {
                let before = checker.state();
                let now = checker.wakes_at().expect("it waits");
                checker.begin(now);
                let outcome = if *passes { pass() } else { fail() };
                let found = checker.finish(Probe { outcome, at: now }, 0);
                prop_assert_eq!(found.is_some(), checker.state() != before);
                let needed = match (before, checker.state()) {
                    (State::Up | State::Unknown, State::Down) => unhealthy,
                    (State::Down, State::Up) => healthy,
                    _ => continue,
                } as usize;
                let first = (at + 1).checked_sub(needed);
                let run = first.map(|first| &results[first..=at]);
                prop_assert!(run.is_some_and(|run| run.iter().all(|p| p == passes)));
            }
        }
    }
}

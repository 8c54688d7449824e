use super::*;
use crate::status::health::tests::found;
use weir_crds::{EndpointStatus, ProgrammedStatus, StatusSummary};

const MS: Duration = Duration::from_millis(1);
const DIGEST: u64 = 7;

/// An agenda for one pool, its clock, and what the object shows.
struct Bench {
    agenda: Agenda,
    begun: Instant,
    now: Instant,
    key: ObjectKey,
    shown: Option<LoadBalancerPoolStatus>,
    is_leading_for_long: bool,
}

impl Bench {
    fn new() -> Self {
        let begun = Instant::now();
        let key = ObjectKey::new("ns", "p");
        Self { agenda: Agenda::default(), begun, now: begun, key, shown: None, is_leading_for_long: true }
    }

    /// The pool changed: looks at it as soon as the agenda allows, and says when and what came of it. A write
    /// succeeds at once.
    fn change(&mut self, summary: &PoolSummary, ready: i32) -> (Duration, Decision) {
        self.agenda.touch(&self.key.clone(), self.now);
        self.look(summary, ready)
    }

    /// Waits until the agenda wants a look.
    fn look(&mut self, summary: &PoolSummary, ready: i32) -> (Duration, Decision) {
        let due = self.agenda.next_at().expect("a look is due");
        self.now = self.now.max(due);
        assert_eq!(self.agenda.take_due(self.now).as_ref(), Some(&self.key));
        let desired = status(summary, ready);
        let lead = if self.is_leading_for_long { FLEET_SETTLING * 2 } else { Duration::ZERO };
        let sight = Sight {
            desired: &desired,
            shown: self.shown.as_ref(),
            summary,
            config_digest: Some(DIGEST),
            leads_since: self.begun.checked_sub(lead).expect("the clock began before"),
        };
        let decision = self.agenda.decide(&self.key, sight, self.now);
        if decision == Decision::Write {
            self.shown = Some(desired);
            self.agenda.written(&self.key, true, self.now);
        }
        (self.now - self.begun, decision)
    }

    fn later(&self, at: Duration) -> Decision {
        Decision::Later(self.begun + at)
    }
}

fn summary(current: u32, proxies: u32, lag: Duration) -> PoolSummary {
    let oldest_lag = (proxies > 0).then_some(lag);
    PoolSummary { proxies, current, oldest_lag, config_digest: DIGEST, ..PoolSummary::default() }
}

fn status(summary: &PoolSummary, ready: i32) -> LoadBalancerPoolStatus {
    let number = |count: u32| i32::try_from(count).expect("small");
    let lag = summary
        .oldest_lag
        .map(|lag| weir_crds::Duration::from_millis(u64::try_from(lag.as_millis()).expect("small")));
    let unhealthy = i32::try_from(summary.unhealthy.len()).expect("small");
    LoadBalancerPoolStatus {
        endpoints: Some(EndpointStatus { unhealthy, ..EndpointStatus::default() }),
        programmed: Some(ProgrammedStatus {
            proxies: number(summary.proxies),
            current: number(summary.current),
            oldest_lag: lag,
            config_version: String::new(),
        }),
        summary: Some(StatusSummary {
            ready: Some(format!("{ready}")),
            lag: lag.map(|lag| lag.to_string()),
            ..StatusSummary::default()
        }),
        ..LoadBalancerPoolStatus::default()
    }
}

#[test]
fn the_first_change_is_written_at_once_and_further_ones_once_in_a_second() {
    let mut bench = Bench::new();
    let done = summary(1, 1, MS * 4);
    assert_eq!(bench.change(&done, 1), (Duration::ZERO, Decision::Write));
    assert_eq!(bench.change(&done, 2), (WRITE_INTERVAL, Decision::Write));
    bench.now += MS;
    assert_eq!(bench.change(&done, 3), (WRITE_INTERVAL * 2, Decision::Write));
    bench.now += WRITE_INTERVAL * 5;
    assert_eq!(bench.change(&done, 4), (WRITE_INTERVAL * 7, Decision::Write), "at once after a quiet time");
}

#[test]
fn a_proxy_that_stays_behind_is_looked_at_though_nothing_happens() {
    let mut bench = Bench::new();
    let at = |lag: Duration| summary(0, 1, lag);
    bench.change(&at(MS * 500), 1);
    let (looked_at, decision) = bench.change(&at(MS * 500), 1);
    let past = PROXY_BEHIND_AFTER - MS * 500 + EVALUATE_INTERVAL;
    assert_eq!(decision, bench.later(looked_at + past), "the object shows that already");
    let long = PROXY_BEHIND_AFTER + EVALUATE_INTERVAL;
    assert_eq!(bench.look(&at(long), 1), (looked_at + past, Decision::Write));
    let (looked_at, decision) = bench.change(&at(long), 1);
    assert_eq!(decision, bench.later(looked_at + LAG_INTERVAL));
}

#[test]
fn what_the_object_shows_already_is_not_written_again() {
    let mut bench = Bench::new();
    let done = summary(1, 1, MS * 4);
    bench.change(&done, 1);
    assert_eq!(bench.change(&done, 1).1, Decision::Nothing);
    assert_eq!(bench.agenda.next_at(), None, "nothing is left to do");
}

#[test]
fn proxies_that_are_just_behind_are_waited_for_and_then_reported() {
    let mut bench = Bench::new();
    let at = |ms: u32| summary(0, 1, MS * ms);
    assert_eq!(bench.change(&at(0), 1).1, bench.later(PATIENCE));
    bench.now += MS * 4;
    let acked = summary(1, 1, MS * 4);
    assert_eq!(bench.change(&acked, 1), (EVALUATE_INTERVAL, Decision::Write), "as soon as it acknowledged");
    bench.now += WRITE_INTERVAL;
    let (changed_at, decision) = bench.change(&at(0), 1);
    assert_eq!(decision, bench.later(changed_at + PATIENCE));
    assert_eq!(bench.look(&at(500), 1), (changed_at + PATIENCE, Decision::Write), "it stayed behind");
}

#[test]
fn changes_that_never_stop_are_reported_after_all() {
    let mut bench = Bench::new();
    let behind = summary(99, 100, MS * 3);
    let begun = bench.change(&behind, 1).0;
    let written = loop {
        bench.now += MS * 20;
        if let (at, Decision::Write) = bench.change(&behind, 1) {
            break at;
        }
    };
    assert!(written - begun >= PATIENCE_MAX && written - begun < PATIENCE_MAX + MS * 50, "{written:?}");
}

#[test]
fn a_refusal_is_reported_at_once() {
    let mut bench = Bench::new();
    let refused = PoolSummary { refused: 1, ..summary(0, 1, MS) };
    assert_eq!(bench.change(&refused, 1), (Duration::ZERO, Decision::Write));
}

#[test]
fn a_pool_that_nobody_serves_yet_is_waited_for() {
    let mut bench = Bench::new();
    let none = summary(0, 0, MS);
    assert_eq!(bench.change(&none, 1), (Duration::ZERO, bench.later(PATIENCE)));
    let unheard = PoolSummary { config_digest: 1, ..summary(1, 1, MS) };
    assert_eq!(bench.change(&unheard, 1).1, bench.later(PATIENCE), "the store has the configuration before");
    assert_eq!(bench.look(&none, 1), (PATIENCE, Decision::Write));
}

#[test]
fn fewer_proxies_than_shown_are_not_believed_right_after_taking_over() {
    let mut bench = Bench::new();
    bench.is_leading_for_long = false;
    bench.shown = Some(status(&summary(12, 12, MS), 1));
    assert_eq!(bench.change(&summary(0, 0, MS), 1).1, bench.later(FLEET_SETTLING));
    assert_eq!(bench.change(&summary(3, 3, MS), 1).1, bench.later(FLEET_SETTLING));
    assert_eq!(bench.change(&summary(12, 12, MS), 1).1, Decision::Nothing, "they have all dialled");
    assert_eq!(bench.change(&summary(3, 3, MS), 1).1, bench.later(FLEET_SETTLING));
    assert_eq!(bench.look(&summary(3, 3, MS), 1), (FLEET_SETTLING, Decision::Write));
}

#[test]
fn a_proxy_that_dials_anew_does_not_flicker_and_one_that_is_gone_is_reported() {
    let mut bench = Bench::new();
    bench.change(&summary(2, 2, MS), 1);
    bench.now += WRITE_INTERVAL;
    let (left_at, decision) = bench.change(&summary(1, 1, MS), 1);
    assert_eq!(decision, bench.later(left_at + REDIAL_PATIENCE));
    assert_eq!(bench.change(&summary(2, 2, MS), 1).1, Decision::Nothing, "it is back");
    let (left_at, _) = bench.change(&summary(1, 1, MS), 1);
    assert_eq!(bench.look(&summary(1, 1, MS), 1), (left_at + REDIAL_PATIENCE, Decision::Write));
}

/// One proxy, with so many unhealthy backends.
fn unhealthy(current: u32, proxies: u32, unhealthy: &[(&str, &str, u32)]) -> PoolSummary {
    PoolSummary { unhealthy: found(1, unhealthy).unhealthy, ..summary(current, proxies, MS) }
}

#[test]
fn a_backend_that_goes_down_is_reported_at_once_and_one_that_comes_up_when_it_stays_up() {
    let mut bench = Bench::new();
    let (well, ill) = (unhealthy(1, 1, &[]), unhealthy(1, 1, &[("web", "a", 1)]));
    bench.change(&well, 1);
    bench.now += WRITE_INTERVAL;
    assert_eq!(bench.change(&ill, 1), (WRITE_INTERVAL, Decision::Write));
    bench.now += WRITE_INTERVAL;
    let (up_at, decision) = bench.change(&well, 1);
    assert_eq!(decision, bench.later(up_at + PATIENCE));
    assert_eq!(bench.look(&well, 1), (up_at + PATIENCE, Decision::Write));
}

#[test]
fn a_proxy_that_dials_anew_has_time_to_say_again_what_is_unhealthy() {
    let mut bench = Bench::new();
    let ill = unhealthy(1, 1, &[("web", "a", 1)]);
    bench.change(&ill, 1);
    bench.now += WRITE_INTERVAL;
    let (left_at, decision) = bench.change(&unhealthy(0, 0, &[]), 1);
    assert_eq!(decision, bench.later(left_at + REDIAL_PATIENCE));
    bench.now += MS * 900;
    assert_ne!(
        bench.change(&unhealthy(0, 1, &[]), 1).1,
        Decision::Write,
        "it is back, and has acknowledged nothing"
    );
    bench.now += EVALUATE_INTERVAL;
    let (acked_at, decision) = bench.change(&unhealthy(1, 1, &[]), 1);
    assert_eq!(decision, bench.later(acked_at + PATIENCE), "and has said nothing of backends");
    bench.now += MS * 100;
    assert_eq!(bench.change(&ill, 1).1, Decision::Nothing);
}

#[test]
fn a_lag_that_flickers_is_no_reason_to_write_unless_a_proxy_stays_behind() {
    let mut bench = Bench::new();
    bench.change(&summary(1, 1, MS * 4), 1);
    for lag in 5..50 {
        assert_eq!(bench.change(&summary(1, 1, MS * lag), 1).1, Decision::Nothing);
    }
    bench.now += WRITE_INTERVAL;
    let (stuck_at, decision) = bench.change(&summary(0, 1, PATIENCE), 1);
    assert_eq!(decision, Decision::Write);
    let lagging = |since: Duration| summary(0, 1, PATIENCE + since);
    bench.now += WRITE_INTERVAL;
    let is_behind_at = stuck_at + PROXY_BEHIND_AFTER - PATIENCE + EVALUATE_INTERVAL;
    assert_eq!(
        bench.change(&lagging(MS * 1_000), 1).1,
        bench.later(is_behind_at),
        "there may be more to say"
    );
    let looked = bench.look(&lagging(is_behind_at - stuck_at), 1);
    assert_eq!(looked, (is_behind_at, bench.later(stuck_at + LAG_INTERVAL)), "only the lag differs");
    assert_eq!(bench.look(&lagging(LAG_INTERVAL), 1), (stuck_at + LAG_INTERVAL, Decision::Write));
}

#[test]
fn a_write_that_failed_is_tried_again_later_each_time_up_to_the_limit() {
    let mut bench = Bench::new();
    let key = bench.key.clone();
    bench.agenda.touch(&key, bench.now);
    let mut waits = Vec::new();
    for _ in 0..9 {
        let due = bench.agenda.next_at().expect("it is tried again");
        waits.push(due.saturating_duration_since(bench.now));
        bench.now = due;
        bench.agenda.take_due(bench.now);
        let desired = status(&summary(1, 1, MS), 1);
        let summary = summary(1, 1, MS);
        let sight = Sight {
            desired: &desired,
            shown: None,
            summary: &summary,
            config_digest: Some(DIGEST),
            leads_since: bench.begun,
        };
        assert_eq!(bench.agenda.decide(&key, sight, bench.now), Decision::Write);
        bench.agenda.written(&key, false, bench.now);
    }
    let seconds: Vec<_> = waits.iter().map(Duration::as_secs).collect();
    assert_eq!(seconds, [0, 1, 2, 4, 8, 16, 32, 60, 60]);
    bench.agenda.forget(&key);
    assert_eq!(bench.agenda.next_at(), None);
}

#[test]
fn a_change_during_a_write_is_looked_at_after_it_and_never_beside_it() {
    let mut bench = Bench::new();
    let key = bench.key.clone();
    bench.agenda.touch(&key, bench.now);
    bench.agenda.take_due(bench.now);
    let (desired, summary) = (status(&summary(1, 1, MS), 1), summary(1, 1, MS));
    let sight = Sight {
        desired: &desired,
        shown: None,
        summary: &summary,
        config_digest: Some(DIGEST),
        leads_since: bench.begun,
    };
    assert_eq!(bench.agenda.decide(&key, sight, bench.now), Decision::Write);
    bench.agenda.touch(&key, bench.now);
    assert_eq!(bench.agenda.next_at(), None, "the write is under way");
    bench.agenda.written(&key, true, bench.now + MS * 30);
    assert_eq!(bench.agenda.next_at(), Some(bench.now + WRITE_INTERVAL));
}

//! What holds, worked out from what the world knows and not from what the state machines made of it.

use super::settings::Settings;
use super::world::{Stage, World};
use lb_core::backend::Membership;
use lb_core::balance::Picked;
use lb_core::resilience::{Admission, BreakerSettings, BreakerState, BudgetSettings};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Two counts over a sliding window of ten buckets, with all the time there is in their numbers.
struct Ledger {
    bucket: u128,
    entries: VecDeque<(u128, u64, u64)>,
}

impl Ledger {
    fn new(window: Duration) -> Self {
        Self { bucket: (window / 10).as_nanos(), entries: VecDeque::new() }
    }

    fn add(&mut self, now: Duration, a: u64, b: u64) {
        let tick = now.as_nanos() / self.bucket;
        match self.entries.back_mut() {
            Some(last) if last.0 == tick => *last = (tick, last.1 + a, last.2 + b),
            _ => self.entries.push_back((tick, a, b)),
        }
    }

    fn sums(&mut self, now: Duration) -> (u64, u64) {
        let tick = now.as_nanos() / self.bucket;
        while self.entries.front().is_some_and(|(at, ..)| at + 10 <= tick) {
            self.entries.pop_front();
        }
        self.entries.iter().fold((0, 0), |(a, b), (_, more_a, more_b)| (a + more_a, b + more_b))
    }
}

/// What the retry budget has to say.
pub(crate) struct Allowance {
    settings: BudgetSettings,
    ledger: Ledger,
}

impl Allowance {
    pub(crate) fn new(settings: BudgetSettings) -> Self {
        Self { settings, ledger: Ledger::new(settings.window) }
    }

    pub(crate) fn deposited(&mut self, now: Duration, requests: u32) {
        self.ledger.add(now, requests.into(), 0);
    }

    pub(crate) fn check_withdrawal(&mut self, now: Duration, is_allowed: bool) {
        let (requests, retries) = self.ledger.sums(now);
        let by_share = requests as f64 * f64::from(self.settings.percent) / 100.0;
        let by_time = f64::from(self.settings.retries_per_second_min) * self.settings.window.as_secs_f64();
        let bound = by_share.max(by_time);
        let next = (retries + 1) as f64;
        assert_eq!(next <= bound, is_allowed, "{retries} of {bound} retries at {now:?}, {requests} requests");
        if is_allowed {
            self.ledger.add(now, 0, 1);
        }
    }
}

/// What the circuit has to do.
pub(crate) struct Circuit {
    settings: Option<BreakerSettings>,
    ledger: Ledger,
    pub(crate) opened: u64,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    Closed,
    Open(Duration),
    HalfOpen { under_way: u32, succeeded: u32 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    Well,
    Failed,
    Nothing,
}

impl Circuit {
    pub(crate) fn new(settings: Option<BreakerSettings>) -> Self {
        let window = settings.map_or(Duration::from_secs(1), |settings| settings.window);
        Self { settings, ledger: Ledger::new(window), opened: 0, phase: Phase::Closed }
    }

    fn open(&mut self, now: Duration) {
        let after = self.settings.expect("it opened").reset_after;
        let until = u64::try_from((now + after).as_nanos().div_ceil(1_000_000)).expect("small");
        self.phase = Phase::Open(Duration::from_millis(until));
        self.opened += 1;
    }

    pub(crate) fn recorded(&mut self, now: Duration, successes: u32, failures: u32) {
        let Some(settings) = self.settings.filter(|_| self.phase == Phase::Closed) else { return };
        if successes == 0 && failures == 0 {
            return;
        }
        self.ledger.add(now, successes.into(), failures.into());
        let (successes, failures) = self.ledger.sums(now);
        let requests = successes + failures;
        let share = failures as f64 / requests as f64;
        let is_reached = share >= f64::from(settings.failure_percent) / 100.0 - 1e-12;
        if requests >= settings.requests_min.get().into() && is_reached {
            self.open(now);
        }
    }

    pub(crate) fn check_admission(&mut self, now: Duration, admission: &Admission) {
        let probes = self.settings.map_or(0, |settings| settings.probes.get());
        let is_right = match (self.phase, admission) {
            (Phase::Closed, Admission::Passed) => true,
            (Phase::Open(until), Admission::Refused) => now < until,
            (Phase::Open(until), Admission::Probe(_)) => {
                self.phase = Phase::HalfOpen { under_way: 1, succeeded: 0 };
                now >= until
            }
            (Phase::HalfOpen { under_way, succeeded }, Admission::Probe(_)) => {
                self.phase = Phase::HalfOpen { under_way: under_way + 1, succeeded };
                under_way + succeeded < probes
            }
            (Phase::HalfOpen { under_way, succeeded }, Admission::Refused) => under_way + succeeded >= probes,
            _ => false,
        };
        assert!(is_right, "{admission:?} while {:?} at {now:?}, {probes} probes", self.phase);
    }

    /// A probe that began when the circuit had opened so often.
    pub(crate) fn probed(&mut self, now: Duration, opened: u64, said: Said) {
        let Phase::HalfOpen { under_way, succeeded } = self.phase else { return };
        if opened != self.opened {
            return;
        }
        let probes = self.settings.map_or(0, |settings| settings.probes.get());
        match said {
            Said::Failed => self.open(now),
            Said::Well if succeeded + 1 == probes => {
                self.phase = Phase::Closed;
                self.ledger.entries.clear();
            }
            Said::Well => self.phase = Phase::HalfOpen { under_way: under_way - 1, succeeded: succeeded + 1 },
            Said::Nothing => self.phase = Phase::HalfOpen { under_way: under_way - 1, succeeded },
        }
    }

    fn check(&self, now: Duration, state: BreakerState) {
        let is_right = match self.phase {
            Phase::Closed => state == BreakerState::Closed,
            Phase::Open(until) if now < until => state == BreakerState::Open { until },
            Phase::Open(_) | Phase::HalfOpen { .. } => state == BreakerState::HalfOpen,
        };
        assert!(is_right, "it is {state:?} and should be {:?} at {now:?}", self.phase);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    pub(crate) fn is_open(&self, now: Duration) -> bool {
        matches!(self.phase, Phase::Open(until) if now < until)
    }
}

/// Of each pick.
pub(crate) fn check_pick(settings: &Settings, members: &Membership, picked: Picked<'_>) {
    let has_room = |on: u32| settings.policy.requests_max.is_none_or(|max| on < max.get());
    let mut on = members.backends().iter().map(|backend| backend.live.in_flight());
    match picked {
        Picked::Backend(backend) => assert!(has_room(backend.live.in_flight()), "{} is full", backend.id),
        Picked::Full => assert!(!members.backends().is_empty() && !on.any(has_room), "not all are full"),
        Picked::None => assert!(members.backends().is_empty(), "there are backends"),
    }
}

/// After each event.
pub(crate) fn check(world: &World<'_>) {
    let policy = &world.settings.policy;
    let mut on = BTreeMap::<usize, u32>::new();
    for request in world.requests.values() {
        if let Stage::Sending(exchange) = &request.stage {
            *on.entry(exchange.number).or_default() += 1;
        }
    }
    for (number, host) in world.hosts.iter().enumerate() {
        let (live, now) = (&host.live, world.now);
        assert_eq!(live.in_flight(), on.get(&number).copied().unwrap_or(0), "on b{number} at {now:?}");
        assert!(policy.requests_max.is_none_or(|max| live.in_flight() <= max.get()), "b{number} at {now:?}");
        assert_eq!(live.connections(), host.open.get(), "to b{number} at {now:?}");
        let max = policy.connections.max;
        assert!(max.is_none_or(|max| live.connections() <= max.get()), "to b{number} at {now:?}");
    }
    let waiting = world.requests.values().filter(|request| matches!(request.stage, Stage::Waiting(_)));
    let waiting = u32::try_from(waiting.count()).expect("small");
    assert_eq!(world.queue().len(), waiting, "at {:?}", world.now);
    assert!(waiting <= policy.queue.requests_max, "{waiting} wait at {:?}", world.now);
    if let Some(breaker) = &world.set.guard.breaker {
        world.circuit.check(world.now, breaker.state(world.now));
        assert_eq!(breaker.opened(), world.circuit.opened, "at {:?}", world.now);
    }
    check_sleepers(world);
}

/// Nobody sleeps beyond its time, nor while it could go and nobody else was woken.
fn check_sleepers(world: &World<'_>) {
    let mut could_go = None;
    for (id, request) in &world.requests {
        let Stage::Waiting(wait) = &request.stage else { continue };
        assert!(world.now <= wait.deadline, "{id} still sleeps at {:?}", world.now);
        if wait.flag.is_set() {
            return;
        }
        let max = world.settings.policy.requests_max;
        let is_free = |number: &usize| {
            let is_full = max.is_some_and(|max| world.hosts[*number].live.in_flight() >= max.get());
            !is_full && world.can_connect(request.worker, *number)
        };
        could_go = could_go.or(world.members.iter().copied().find(is_free).map(|number| (id, number)));
    }
    assert!(could_go.is_none(), "{could_go:?} (request, backend) and nobody is woken at {:?}", world.now);
}

/// All is well for long enough.
pub(crate) fn check_recovered(world: &World<'_>) {
    if let Some(breaker) = &world.set.guard.breaker {
        assert_eq!(breaker.state(world.now), BreakerState::Closed, "at {:?}", world.now);
    }
}

/// When all requests have ended and the workers are gone.
pub(crate) fn check_ended(world: &World<'_>) {
    assert_eq!(world.ended.len(), usize::try_from(world.arrived).expect("small"), "each has ended");
    for host in &world.hosts {
        let live = &host.live;
        assert_eq!((live.in_flight(), live.connections(), live.wanted(), host.open.get()), (0, 0, 0, 0));
        assert_eq!(Arc::strong_count(live), 2, "the host's and the member's");
    }
    assert_eq!(world.queue().len(), 0);
}

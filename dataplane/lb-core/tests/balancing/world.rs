//! A process with its workers, the backends that it sends to, and time that only the test moves.
//!
//! Here are requests: a worker that picks, what the backend does, and what came of it, which is merged 10 ms after a
//! worker's first outcome, as the proxy does.

use super::rules;
use super::settings::{REQUEST_TIMEOUT, Settings};
use lb_core::backend::{Algorithm, Backend, BackendSet, BackendState, Hints, InFlight, Live, Membership};
use lb_core::balance::{Outcome, OutcomeKind, PickRequest, Picker, Recorder, Rng};
use lb_core::health::{self, Batch, Health, Moment, PROBES_AT_ONCE_MAX, ProbeId};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Backends that there may be.
pub(crate) const REPLICAS: usize = 7;
/// From new members to the moment at which health hears of them.
pub(crate) const ORDER_MAX: Duration = Duration::from_millis(4);
/// From a worker's first outcome to the moment at which its outcomes steer anything.
const MERGE_AFTER: Duration = Duration::from_millis(10);
/// Backends that one request is sent to, one after another.
const ATTEMPTS_MAX: usize = 4;
const WORKERS: usize = 3;
const MS: Duration = Duration::from_millis(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behaviour {
    Well,
    /// Answers, late.
    Slow,
    /// Probes pass, and more than half of the requests fail.
    Failing,
    /// Accepts nothing.
    Refusing,
    /// Accepts and never answers.
    Frozen,
    /// Probes pass, and requests are answered 429.
    TurnsAway,
    /// Refusing and Well by turns of this length.
    Flapping(Duration),
}

/// A backend, whether it is in the set or not.
#[derive(Debug)]
pub(crate) struct Replica {
    behaviour: Behaviour,
    /// Of the behaviour.
    pub(crate) since: Duration,
}

impl Replica {
    pub(crate) fn is_dead(&self) -> bool {
        matches!(self.behaviour, Behaviour::Refusing | Behaviour::Frozen)
    }

    pub(crate) fn is_well(&self) -> bool {
        self.behaviour == Behaviour::Well
    }

    /// What it does at this moment.
    pub(crate) fn acts(&self, now: Duration) -> Behaviour {
        let Behaviour::Flapping(turn) = self.behaviour else { return self.behaviour };
        let turns = (now - self.since).as_nanos() / turn.as_nanos();
        if turns.is_multiple_of(2) { Behaviour::Refusing } else { Behaviour::Well }
    }
}

/// A member as the control plane has it.
#[derive(Debug)]
pub(crate) struct Spec {
    pub(crate) weight: u32,
    pub(crate) priority: u32,
    pub(crate) state: BackendState,
    pub(crate) joined: Duration,
    pub(crate) zone: Arc<str>,
    pub(crate) hints: Hints,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Event {
    Arrival,
    Done {
        request: u64,
    },
    Merge {
        worker: usize,
    },
    /// Health hears of the members.
    Order,
    Probed {
        probe: ProbeId,
        outcome: health::Outcome,
    },
}

/// What a simulation must have met to be worth anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Met {
    NoBackend,
    Panic,
    Draining,
    SecondTry,
    /// All others have been tried.
    TriedAgain,
    SlowStart,
    Ejected,
    EndedEarly,
    ChecksFail,
    LowerWeight,
}

impl Met {
    pub(crate) const ALL: [Self; 10] = [
        Self::NoBackend,
        Self::Panic,
        Self::Draining,
        Self::SecondTry,
        Self::TriedAgain,
        Self::SlowStart,
        Self::Ejected,
        Self::EndedEarly,
        Self::ChecksFail,
        Self::LowerWeight,
    ];

    fn of(
        members: &Membership,
        tried: &[Arc<Live>],
        picked: Option<&Backend>,
    ) -> impl Iterator<Item = Self> + use<> {
        let is_again = |backend: &Backend| tried.iter().any(|live| Arc::ptr_eq(live, &backend.live));
        [
            (Self::NoBackend, picked.is_none()),
            (Self::Panic, picked.is_some_and(|backend| !backend.standing.is_available)),
            (Self::Draining, picked.is_some_and(|backend| backend.state == BackendState::Draining)),
            (Self::SecondTry, !tried.is_empty()),
            (Self::TriedAgain, picked.is_some_and(is_again)),
            (Self::SlowStart, members.next_change().is_some()),
            (Self::LowerWeight, picked.is_some_and(|backend| backend.standing.weight_permille < 1000)),
        ]
        .into_iter()
        .filter_map(|(met, is_met)| is_met.then_some(met))
    }
}

struct Worker {
    picker: Picker,
    recorder: Recorder,
    rng: Rng,
    judged: BTreeMap<Arc<str>, Batch>,
    /// Backends whose latency is known after the next merge.
    recorded: Vec<Arc<Live>>,
    merges: bool,
}

struct Request {
    worker: usize,
    in_flight: InFlight,
    /// Where the set is judged.
    backend: Option<Arc<str>>,
    outcome: Outcome,
    tried: Vec<Arc<Live>>,
}

pub(crate) struct World {
    pub(crate) now: Duration,
    pub(crate) settings: Settings,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) specs: BTreeMap<usize, Spec>,
    pub(crate) set: BackendSet,
    pub(crate) health: Health,
    /// Whether health has yet to hear of the members.
    pub(crate) order_waits: bool,
    /// Requests on each backend, by where its live state is.
    pub(crate) on: BTreeMap<usize, u32>,
    /// Requests sent so far, by replica.
    pub(crate) sent: Vec<u64>,
    /// The live state that each member came with.
    pub(crate) lives: BTreeMap<usize, Weak<Live>>,
    /// Live states and ids of those that left.
    pub(crate) gone: Vec<(Weak<Live>, Weak<str>)>,
    /// What the history has had in it.
    pub(crate) met: BTreeSet<Met>,
    /// On the average.
    pub(crate) between_requests: Duration,
    pub(crate) next_change: Option<Duration>,
    pub(crate) version: u64,
    workers: Vec<Worker>,
    requests: BTreeMap<u64, Request>,
    pub(crate) running: BTreeSet<ProbeId>,
    events: BTreeMap<(Duration, u64), Event>,
    count: u64,
    is_open: bool,
    dice: Rng,
    pub(crate) history: DefaultHasher,
}

pub(crate) fn number_of(id: &str) -> usize {
    id[1..].parse().expect("a letter and a number")
}

impl World {
    /// A set with some members, to which requests come.
    pub(crate) fn new(seed: u64, settings: Settings, between_requests: Duration) -> Self {
        let algorithm = settings.policy.algorithm;
        let worker = |number: u64| Worker {
            picker: Picker::new(algorithm, seed + number),
            recorder: Recorder::default(),
            rng: Rng::new(seed + number),
            judged: BTreeMap::new(),
            recorded: Vec::new(),
            merges: false,
        };
        let replica = |_| Replica { behaviour: Behaviour::Well, since: Duration::ZERO };
        let set = BackendSet::new(1, "set".into(), settings.policy.clone(), Arc::default());
        let mut world = Self {
            now: Duration::ZERO,
            settings,
            replicas: (0..REPLICAS).map(replica).collect(),
            specs: BTreeMap::new(),
            set,
            health: Health::new(None, PROBES_AT_ONCE_MAX, seed),
            order_waits: false,
            on: BTreeMap::new(),
            sent: vec![0; REPLICAS],
            lives: BTreeMap::new(),
            gone: Vec::new(),
            met: BTreeSet::new(),
            between_requests,
            next_change: None,
            version: 0,
            workers: (0..).take(WORKERS).map(worker).collect(),
            requests: BTreeMap::new(),
            running: BTreeSet::new(),
            events: BTreeMap::new(),
            count: 0,
            is_open: true,
            dice: Rng::new(seed),
            history: DefaultHasher::new(),
        };
        world.join_all();
        world.schedule(Duration::ZERO, Event::Arrival);
        world
    }

    pub(crate) fn below(&mut self, count: usize) -> usize {
        self.dice.below(count)
    }

    pub(crate) fn milliseconds(&mut self, from: u32, to: u32) -> Duration {
        MS * (from + u32::try_from(self.dice.below((to - from) as usize)).expect("small"))
    }

    pub(crate) fn weight(&mut self) -> u32 {
        [0, 1, 1, 2, 5][self.dice.below(5)]
    }

    /// Of all that happened.
    pub(crate) fn history(&self) -> u64 {
        self.history.finish()
    }

    pub(crate) fn behave(&mut self, number: usize, behaviour: Behaviour) {
        if self.replicas[number].behaviour != behaviour {
            self.replicas[number] = Replica { behaviour, since: self.now };
        }
    }

    /// Each backend that gets a share by the lanes of the set, with its part of the whole.
    pub(crate) fn shares(&self) -> Vec<(usize, f64)> {
        let members = self.set.members();
        let mut shares = Vec::new();
        for lane in members.lanes() {
            for seat in lane.seats() {
                let share = lane.share() * f64::from(seat.weight) / lane.weight_total() as f64;
                shares.push((number_of(&members.backends()[seat.backend as usize].id), share));
            }
        }
        shares
    }

    pub(crate) fn run_for(&mut self, length: Duration) {
        let until = self.now + length;
        loop {
            let event = self.events.first_key_value().map(|((at, _), _)| *at);
            let step = self.wakes_at();
            let Some(next) = event.into_iter().chain(step).min().filter(|next| *next <= until) else { break };
            self.now = self.now.max(next);
            if event == Some(next) {
                let (_, event) = self.events.pop_first().expect("it was there a line ago");
                self.happen(event);
            } else {
                self.step();
            }
        }
        self.now = until;
    }

    /// Nothing new comes, and what was on its way ends.
    pub(crate) fn finish(&mut self) {
        self.is_open = false;
        self.run_for(REQUEST_TIMEOUT * 10);
        assert!(self.requests.is_empty());
        // A worker follows the members when it picks, so each of them does once more.
        for worker in 0..WORKERS {
            self.send(worker, Vec::new());
        }
        self.run_for(REQUEST_TIMEOUT * 10);
    }

    pub(crate) fn moment(&self) -> Moment {
        Moment::after_start(self.now)
    }

    pub(crate) fn schedule(&mut self, after: Duration, event: Event) {
        self.count += 1;
        self.events.insert((self.now + after, self.count), event);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrival if self.is_open => {
                let after = self.between_requests.mul_f64(self.dice.below(2000) as f64 / 1000.0);
                self.schedule(after, event);
                let worker = self.dice.below(WORKERS);
                self.send(worker, Vec::new());
            }
            Event::Arrival => {}
            Event::Done { request } => self.done(request),
            Event::Merge { worker } => self.merge(worker),
            Event::Order => self.follow_order(),
            Event::Probed { probe, outcome } => {
                if self.running.remove(&probe) {
                    self.health.report(self.moment(), probe, outcome);
                    self.step();
                }
            }
        }
    }

    fn send(&mut self, worker: usize, mut tried: Vec<Arc<Live>>) {
        let members = Arc::clone(&self.set.members());
        let key = Some(self.dice.bits()).filter(|key| key % 8 > 0);
        let request = PickRequest { now: self.now, key, tried: &tried, requests_max: None };
        let Worker { picker, rng, .. } = &mut self.workers[worker];
        let picked = picker.pick(&members, &request, rng).backend();
        (self.now, worker, picked.map(|backend| &backend.id)).hash(&mut self.history);
        rules::check_pick(self, &members, &tried, picked);
        self.met.extend(Met::of(&members, &tried, picked));
        let Some(backend) = picked else { return };
        let number = number_of(&backend.id);
        let in_flight = backend.live.enter();
        self.sent[number] += 1;
        self.count_on(&backend.live, |count| count + 1);
        tried.push(Arc::clone(&backend.live));
        let outcome = self.answer(number);
        let backend = self.settings.policy.is_judged.then(|| Arc::clone(&backend.id));
        self.count += 1;
        let id = self.count;
        self.requests.insert(id, Request { worker, in_flight, backend, outcome, tried });
        self.schedule(outcome.latency, Event::Done { request: id });
    }

    fn answer(&mut self, number: usize) -> Outcome {
        let quick = self.milliseconds(2, 12);
        let (latency, kind) = match self.replicas[number].acts(self.now) {
            Behaviour::Well | Behaviour::Flapping(_) => (quick, OutcomeKind::Success),
            Behaviour::Slow => (quick + MS * 300, OutcomeKind::Success),
            Behaviour::Failing if self.dice.below(10) < 7 => (quick, OutcomeKind::Error),
            Behaviour::Failing => (quick, OutcomeKind::Success),
            Behaviour::Refusing => (MS, OutcomeKind::ConnectFailure),
            Behaviour::Frozen if self.dice.below(4) == 0 => (REQUEST_TIMEOUT / 2, OutcomeKind::Abandoned),
            Behaviour::Frozen => (REQUEST_TIMEOUT, OutcomeKind::Timeout),
            Behaviour::TurnsAway => {
                (quick, OutcomeKind::TooManyRequests { retry_after: Some(REQUEST_TIMEOUT) })
            }
        };
        Outcome { latency, kind }
    }

    fn done(&mut self, id: u64) {
        let Request { worker, in_flight, backend, outcome, tried } =
            self.requests.remove(&id).expect("a request ends once");
        let algorithm = self.settings.policy.algorithm;
        let steers = matches!(algorithm, Algorithm::LeastResponseTime(_) | Algorithm::PeakEwma(_));
        if steers {
            self.workers[worker].recorder.record(in_flight.live(), algorithm.smoothing(), outcome);
            self.workers[worker].recorded.push(Arc::clone(in_flight.live()));
        }
        let judged = backend.filter(|_| outcome.kind != OutcomeKind::Abandoned);
        if steers || judged.is_some() {
            self.begin_merge(worker);
        }
        if let Some(backend) = judged {
            self.workers[worker].judged.entry(backend).or_default().merge(&batch(outcome));
        }
        self.count_on(in_flight.live(), |count| count - 1);
        drop(in_flight);
        if outcome.kind == OutcomeKind::ConnectFailure && tried.len() < ATTEMPTS_MAX {
            self.send(worker, tried);
        }
    }

    fn begin_merge(&mut self, worker: usize) {
        if !std::mem::replace(&mut self.workers[worker].merges, true) {
            self.schedule(MERGE_AFTER, Event::Merge { worker });
        }
    }

    fn merge(&mut self, worker: usize) {
        let now = self.moment();
        let Worker { recorder, judged, recorded, merges, .. } = &mut self.workers[worker];
        *merges = false;
        recorder.merge(self.now);
        assert!(recorded.drain(..).all(|live| live.latency().is_some()), "merged at {:?}", self.now);
        for (backend, batch) in std::mem::take(judged) {
            let is_ejected = rules::must_eject(self, &backend, &batch);
            self.health.observe(now, self.set.id, &backend, &batch);
            let found = self.health.set(self.set.id).and_then(|set| set.standing(&backend));
            let is_out = found.is_none_or(|found| !found.is_available);
            assert!(is_out || !is_ejected, "{backend} keeps its place at {:?}: {batch:?}", self.now);
            rules::check_health(self);
        }
        self.step();
    }

    /// Counts on our own, and compares.
    fn count_on(&mut self, live: &Arc<Live>, change: impl Fn(u32) -> u32) {
        let count = self.on.entry(Arc::as_ptr(live).addr()).or_default();
        let before = *count;
        *count = change(before);
        // Entering has counted, and leaving has not yet.
        assert_eq!(live.in_flight(), before.max(*count), "at {:?}", self.now);
        if *count == 0 {
            self.on.remove(&Arc::as_ptr(live).addr());
        }
    }
}

fn batch(outcome: Outcome) -> Batch {
    let none = Batch::default();
    match outcome.kind {
        OutcomeKind::Success | OutcomeKind::TooManyRequests { .. } => {
            Batch { successes: 1, latency_sum: outcome.latency, ..none }
        }
        OutcomeKind::Error => Batch { errors: 1, ..none },
        OutcomeKind::Timeout => Batch { timeouts: 1, ..none },
        OutcomeKind::ConnectFailure => Batch { connect_failures: 1, ..none },
        OutcomeKind::Abandoned => none,
    }
}

//! A process with its workers, the backends of one set, and time that only the test moves.
//!
//! Here is what goes on by itself: time, backends that change, and what each worker does every 10 ms. What becomes of
//! requests is in [`super::request`].

use super::homes::Homes;
use super::met::Met;
use super::rules::{self, Allowance, Circuit};
use super::settings::Settings;
use super::wires::{Host, Line, Slot, Wire, Wires};
use lb_core::backend::{Backend, BackendSet, Live, Membership, UpstreamProtocol};
use lb_core::balance::{Picker, Rng};
use lb_core::connections::{ConnectionId, Keep, Pool, Shared};
use lb_core::resilience::{Probe, Queue, Waiting};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;
use std::time::Duration;

pub(crate) const WORKERS: usize = 3;
/// How often a worker tells what it counted, and looks after its connections.
const TICK: Duration = Duration::from_millis(10);
pub(crate) const MS: Duration = Duration::from_millis(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behaviour {
    Well,
    /// Answers, late.
    Slow,
    /// More than half of the answers are errors.
    Failing,
    /// Accepts no connection.
    Refusing,
    /// Accepts and never answers.
    Frozen,
}

#[derive(Debug, Clone, Copy, Hash)]
pub(crate) enum Event {
    Arrival,
    Tick {
        worker: usize,
    },
    Done {
        request: u64,
    },
    /// A task that was woken gets to run.
    Wake {
        request: u64,
    },
    /// Other workers did something between a try and the wait after it.
    Join {
        request: u64,
    },
    /// The `nth` wait of this process has taken long enough.
    Deadline {
        request: u64,
        nth: u64,
    },
    Retry {
        request: u64,
    },
    /// The client goes away.
    Abandon {
        request: u64,
    },
}

pub(crate) struct Worker<'a> {
    pub(crate) picker: Picker,
    pub(crate) rng: Rng,
    /// By backend.
    pub(crate) wires: Vec<Wires<'a>>,
    /// Since the last tick.
    pub(crate) arrived: u32,
    pub(crate) successes: u32,
    pub(crate) failures: u32,
}

/// Whether a task was woken.
#[derive(Debug, Default)]
pub(crate) struct Flag(AtomicBool);

impl Flag {
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

pub(crate) type Sleep<'a> = Pin<Box<dyn Future<Output = Waiting<'a>> + 'a>>;

pub(crate) struct Wait<'a> {
    pub(crate) sleep: Sleep<'a>,
    pub(crate) flag: Arc<Flag>,
    pub(crate) deadline: Duration,
    pub(crate) nth: u64,
    /// It is to run.
    pub(crate) is_scheduled: bool,
}

pub(crate) struct Exchange<'a> {
    pub(crate) number: usize,
    pub(crate) slot: Slot<'a>,
    pub(crate) line: Line<'a>,
    pub(crate) fate: Fate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Fate {
    Success,
    Error,
    Timeout,
    Refused,
    /// The connection was closed before the request came.
    FoundClosed,
}

pub(crate) enum Stage<'a> {
    /// Before a try, or between two.
    Idle,
    /// It tried in vain, for these had no connection or all are full.
    Joining(Vec<Arc<Live>>),
    Waiting(Wait<'a>),
    Sending(Exchange<'a>),
}

pub(crate) struct Request<'a> {
    pub(crate) worker: usize,
    pub(crate) is_repeatable: bool,
    pub(crate) key: Option<u64>,
    /// Whose requests stay on a backend.
    pub(crate) client: Option<u64>,
    /// Until when it waits for room there.
    pub(crate) home_until: Option<Duration>,
    pub(crate) tried: Vec<Arc<Live>>,
    pub(crate) retries: u32,
    pub(crate) is_replaced: bool,
    /// With how often the circuit had opened.
    pub(crate) probe: Option<(Probe, u64)>,
    pub(crate) stage: Stage<'a>,
}

pub(crate) struct World<'a> {
    pub(crate) now: Duration,
    pub(crate) settings: &'a Settings,
    pub(crate) set: &'a BackendSet,
    pub(crate) hosts: Vec<Host>,
    pub(crate) backends: Vec<Backend>,
    pub(crate) homes: Homes,
    behaviours: Vec<Behaviour>,
    pub(crate) members: BTreeSet<usize>,
    pub(crate) workers: Vec<Worker<'a>>,
    pub(crate) requests: BTreeMap<u64, Request<'a>>,
    pub(crate) arrived: u64,
    pub(crate) ended: BTreeSet<u64>,
    pub(crate) successes: u64,
    pub(crate) allowance: Allowance,
    pub(crate) circuit: Circuit,
    pub(crate) met: BTreeSet<Met>,
    pub(crate) between_requests: Duration,
    is_open: bool,
    events: BTreeMap<(Duration, u64), Event>,
    pub(crate) count: u64,
    version: u64,
    pub(crate) dice: Rng,
    pub(crate) history: DefaultHasher,
}

/// A set of nobody, for [`World::new`].
pub(crate) fn set(settings: &Settings) -> BackendSet {
    BackendSet::new(1, "set".into(), settings.policy.clone(), Arc::default())
}

impl<'a> World<'a> {
    pub(crate) fn new(seed: u64, settings: &'a Settings, set: &'a BackendSet) -> Self {
        let policy = &settings.policy;
        let wires = |_| match policy.protocol {
            UpstreamProtocol::Http1 => Wires::Http1(Pool::default()),
            UpstreamProtocol::Http2 => {
                Wires::Http2(Shared::default(), policy.connections.streams_max.get() as usize)
            }
        };
        let worker = |number: u64| Worker {
            picker: Picker::new(policy.algorithm, seed + number),
            rng: Rng::new(seed + number),
            wires: (0..settings.replicas).map(wires).collect(),
            arrived: 0,
            successes: 0,
            failures: 0,
        };
        let backend = |number: usize| Backend::new(format!("b{number}"), ([127, 0, 0, 1], 80).into());
        let backends: Vec<Backend> = (0..settings.replicas).map(backend).collect();
        let host = |backend: &Backend| Host {
            live: Arc::clone(&backend.live),
            epoch: 0,
            epoch_since: Duration::ZERO,
            idle_max: Duration::from_secs(60),
            open: std::rc::Rc::default(),
        };
        let mut world = Self {
            now: Duration::ZERO,
            settings,
            set,
            hosts: backends.iter().map(host).collect(),
            behaviours: vec![Behaviour::Well; settings.replicas],
            members: (0..settings.replicas).collect(),
            backends,
            homes: Homes::new(settings.idle_secs),
            workers: (0..).take(WORKERS).map(worker).collect(),
            requests: BTreeMap::new(),
            arrived: 0,
            ended: BTreeSet::new(),
            successes: 0,
            allowance: Allowance::new(policy.retry_budget),
            circuit: Circuit::new(policy.breaker),
            met: BTreeSet::new(),
            between_requests: Duration::ZERO,
            is_open: true,
            events: BTreeMap::new(),
            count: 0,
            version: 0,
            dice: Rng::new(seed),
            history: DefaultHasher::new(),
        };
        world.follow_members();
        world.schedule(Duration::ZERO, Event::Arrival);
        for worker in 0..WORKERS {
            let after = world.milliseconds(0, 10);
            world.schedule(after, Event::Tick { worker });
        }
        world
    }

    pub(crate) fn queue(&self) -> &'a Queue {
        &self.set.guard.queue
    }

    pub(crate) fn below(&mut self, count: usize) -> usize {
        self.dice.below(count)
    }

    pub(crate) fn milliseconds(&mut self, from: u32, to: u32) -> Duration {
        MS * (from + u32::try_from(self.dice.below((to - from) as usize)).expect("small"))
    }

    pub(crate) fn keep(&self, worker: usize) -> Keep {
        Keep::of(&self.settings.policy.connections, worker, WORKERS)
    }

    pub(crate) fn behave(&mut self, number: usize, behaviour: Behaviour) {
        self.behaviours[number] = behaviour;
        if behaviour == Behaviour::Refusing {
            self.restart(number);
        }
    }

    pub(crate) fn behaviour(&self, number: usize) -> Behaviour {
        self.behaviours[number]
    }

    /// All connections of a backend break.
    pub(crate) fn restart(&mut self, number: usize) {
        self.hosts[number].epoch += 1;
        self.hosts[number].epoch_since = self.now;
    }

    /// From now on a backend closes what is idle for so long.
    pub(crate) fn close_idle(&mut self, number: usize, idle_max: Duration) {
        self.hosts[number].idle_max = idle_max;
    }

    /// A backend says that it takes no new streams on its connections.
    pub(crate) fn go_away(&mut self, number: usize) {
        for worker in 0..WORKERS {
            let ids: Vec<ConnectionId> = self.streams(worker, number).into_keys().collect();
            if !ids.is_empty() && matches!(self.workers[worker].wires[number], Wires::Http2(..)) {
                self.met.insert(Met::WentAway);
            }
            self.workers[worker].wires[number].go_away(&ids);
        }
        self.settle();
    }

    /// Streams of each connection that has some.
    pub(crate) fn streams(&self, worker: usize, number: usize) -> BTreeMap<ConnectionId, usize> {
        let mut streams = BTreeMap::new();
        for request in self.requests.values().filter(|request| request.worker == worker) {
            if let Stage::Sending(Exchange { line: Line::Stream(id), number: on, .. }) = &request.stage
                && *on == number
            {
                *streams.entry(*id).or_default() += 1;
            }
        }
        streams
    }

    pub(crate) fn join_or_leave(&mut self, number: usize) {
        if !self.members.remove(&number) {
            self.members.insert(number);
        }
        self.follow_members();
    }

    pub(crate) fn leave_all_but(&mut self, number: usize) {
        self.members = [number].into();
        self.follow_members();
    }

    pub(crate) fn join_all(&mut self) {
        self.members = (0..self.settings.replicas).collect();
        self.follow_members();
    }

    fn follow_members(&mut self) {
        self.version += 1;
        let members = self.members.iter().map(|number| self.backends[*number].clone()).collect();
        let place = lb_core::backend::Place::default();
        let members = Membership::build(self.version, members, &self.settings.policy, &place, self.now);
        self.set.replace_members(Arc::new(members));
        self.settle();
    }

    pub(crate) fn run_for(&mut self, length: Duration) {
        let until = self.now + length;
        while let Some(first) = self.events.first_entry().filter(|first| first.key().0 <= until) {
            let ((at, _), event) = first.remove_entry();
            self.now = at;
            (at, event).hash(&mut self.history);
            self.happen(event);
            self.settle();
        }
        self.now = until;
    }

    /// Nothing new comes, what was on its way ends, and the workers with it.
    pub(crate) fn finish(&mut self) {
        self.is_open = false;
        self.run_for(Duration::from_secs(3));
        assert!(self.requests.is_empty(), "{} requests never end", self.requests.len());
        self.workers.clear();
        self.set.replace_members(Arc::default());
    }

    pub(crate) fn schedule(&mut self, after: Duration, event: Event) {
        self.count += 1;
        self.events.insert((self.now + after, self.count), event);
    }

    /// Who was woken gets to run a little later. Then all that must hold is checked.
    fn settle(&mut self) {
        let is_due = |wait: &Wait<'_>| wait.flag.is_set() && !wait.is_scheduled;
        let mut due = Vec::new();
        for (id, request) in &mut self.requests {
            if let Stage::Waiting(wait) = &mut request.stage
                && is_due(wait)
            {
                wait.is_scheduled = true;
                due.push(*id);
            }
        }
        for request in due {
            let after = self.milliseconds(0, 5);
            self.schedule(after, Event::Wake { request });
        }
        rules::check(self);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrival if self.is_open => {
                let after = self.between_requests.mul_f64(self.dice.below(2000) as f64 / 1000.0);
                self.schedule(after, event);
                self.arrive();
            }
            Event::Arrival => {}
            Event::Tick { worker } => {
                if self.is_open || !self.requests.is_empty() {
                    self.schedule(TICK, event);
                }
                self.tick(worker);
            }
            Event::Done { request } => self.done(request),
            Event::Wake { request } => self.woken(request),
            Event::Join { request } => self.join(request),
            Event::Deadline { request, nth } => self.waited_enough(request, nth),
            Event::Retry { request } => self.begin(request),
            Event::Abandon { request } => self.abandon(request),
        }
    }

    fn tick(&mut self, number: usize) {
        let worker = &mut self.workers[number];
        let (arrived, successes, failures) = (
            std::mem::take(&mut worker.arrived),
            std::mem::take(&mut worker.successes),
            std::mem::take(&mut worker.failures),
        );
        self.set.guard.budget.deposit(self.now, arrived);
        self.allowance.deposited(self.now, arrived);
        if let Some(breaker) = &self.set.guard.breaker {
            breaker.record(self.now, successes, failures);
            self.circuit.recorded(self.now, successes, failures);
            if self.circuit.opened > 0 {
                self.met.insert(Met::Opened);
            }
        }
        let keep = self.keep(number);
        for host in 0..self.hosts.len() {
            self.workers[number].wires[host].expire(&self.hosts[host], self.now, &keep);
            self.give_up(number, host);
            self.warm(number, host, &keep);
        }
    }

    /// Another worker's request may want the place of an idle connection.
    fn give_up(&mut self, worker: usize, number: usize) {
        let host = &self.hosts[number];
        let is_full =
            self.settings.policy.connections.max.is_some_and(|max| host.live.connections() >= max.get());
        if is_full && host.live.wanted() > 0 && self.workers[worker].wires[number].give_up() {
            self.met.insert(Met::GaveUp);
        }
    }

    /// One connection at a time.
    fn warm(&mut self, worker: usize, number: usize, keep: &Keep) {
        let host = &self.hosts[number];
        let accepts = !matches!(self.behaviours[number], Behaviour::Refusing);
        let in_use = |request: &&Request<'_>| {
            request.worker == worker
                && matches!(&request.stage, Stage::Sending(exchange) if exchange.number == number)
        };
        let elsewhere = self.requests.values().filter(in_use).count();
        let wires = &mut self.workers[worker].wires[number];
        if !accepts || host.live.wanted() > 0 || wires.lacking(elsewhere, keep) == 0 {
            return;
        }
        if let Some(connected) = host.live.try_connect(self.settings.policy.connections.max) {
            wires.warmed(Wire::new(host, connected, self.set.guard.queue.as_ref()), self.now, keep);
            self.met.insert(Met::Warmed);
        }
    }

    /// Whether this worker has or could open a connection.
    pub(crate) fn can_connect(&self, worker: usize, number: usize) -> bool {
        let host = &self.hosts[number];
        let max = self.settings.policy.connections.max;
        max.is_none_or(|max| host.live.connections() < max.get())
            || self.workers[worker].wires[number].can_take(host, self.now)
    }

    /// Of all that happened.
    pub(crate) fn history(&self) -> u64 {
        self.history.finish()
    }
}

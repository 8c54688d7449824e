//! The one queue of what happens, and how the parts act on one another.

use super::api::Api;
use super::controller::Controller;
use super::holder::{Mail, STATUS_EVERY};
use super::proxy::{Addresses, Proxy};
use super::streams::Stream;
use super::trace::Trace;
use super::{CALM_LATENCY, CONTROLLERS, FIRST_LISTS_GUARD, MILLISECOND, PROXIES, SECOND, chaos};
use crate::fixtures::Random;
use futures_util::FutureExt as _;
use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::rc::Rc;
use std::time::{Duration, Instant};
use weir_controller::lease::{Action, Input};

const REQUEST_EVERY: u64 = 10 * MILLISECOND;

/// A step of one life of a replica's elector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Asked {
    pub(super) controller: usize,
    pub(super) life: u64,
    pub(super) step: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    /// Somebody edits an object.
    Edit,
    /// The large set changes by one backend.
    EditFat,
    /// Something goes wrong.
    Disturb,
    /// Whoever holds the Lease goes.
    Depose,
    /// A watch has something to say.
    Watch {
        controller: usize,
        life: u64,
        watch: usize,
    },
    /// A process that crashed is there again.
    Start {
        controller: usize,
        life: u64,
    },
    Dial {
        proxy: usize,
        life: u64,
    },
    /// A message arrives at the proxy.
    Down(u64),
    /// A message arrives at the replica.
    Up(u64),
    /// The replica looks whether there is something to send.
    Wake(u64),
    /// The proxy learns that its stream has ended.
    Closed {
        proxy: usize,
        life: u64,
        stream: u64,
    },
    /// The replica learns it.
    Gone(u64),
    ProxyWake {
        proxy: usize,
        life: u64,
    },
    Digests(u64),
    LeaseArrives(Asked),
    LeaseAnswers(Asked),
    LeaseEnds(Asked),
    /// A replica tells the holder of its proxies.
    Tell {
        controller: usize,
        life: u64,
    },
    /// The holder hears the next of that telling.
    Told(u64),
    Status {
        controller: usize,
        life: u64,
    },
    /// What a replica kept though no list has it has been kept for long enough.
    Lapse {
        controller: usize,
        life: u64,
    },
    Request,
}

/// What this seed is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mode {
    /// Single messages vanish inside a stream, or come before others.
    pub(super) drops: bool,
    /// A pool whose backends take several chunks.
    pub(super) is_fat: bool,
}

/// What happened, so that a run that proves nothing is noticed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) requests: u64,
    /// Requests where a removed backend must not have been chosen, and where members had to be exact.
    pub(super) exact: u64,
    pub(super) streams: u64,
    pub(super) crashes: u64,
    pub(super) refusals: u64,
    pub(super) dropped: u64,
    pub(super) overtook: u64,
    pub(super) resends: u64,
    pub(super) tenures: u64,
    pub(super) bytes_down: u64,
}

pub(super) struct Simulation {
    pub(super) random: Random,
    pub(super) mode: Mode,
    begin: Instant,
    /// Microseconds since the begin.
    pub(super) time: u64,
    pub(super) calm_from: u64,
    queue: BinaryHeap<Reverse<(u64, u64, Event)>>,
    happened: u64,
    ids: u64,
    pub(super) api: Api,
    pub(super) controllers: Vec<Controller>,
    pub(super) proxies: Vec<Proxy>,
    pub(super) streams: BTreeMap<u64, Stream>,
    pub(super) lease_requests: BTreeMap<Asked, Action>,
    pub(super) lease_answers: BTreeMap<Asked, Input>,
    pub(super) mail: BTreeMap<u64, Mail>,
    /// For as long as they are used.
    _addresses: Addresses,
    pub(super) counts: Counts,
    trace: Rc<RefCell<Trace>>,
}

impl Simulation {
    pub(super) fn new(seed: u64, chaos_us: u64, trace: Rc<RefCell<Trace>>) -> Self {
        let mut random = Random(seed);
        let mode = Mode { drops: seed % 4 == 3, is_fat: seed.is_multiple_of(3) };
        let addresses = Addresses::take();
        let controllers = (0..CONTROLLERS).map(|index| Controller::new(index, 0, 1 + random.below(1 << 40)));
        let controllers = controllers.collect();
        let proxies = (0..PROXIES).map(|index| Proxy::new(index, &addresses, index % 2 == 0)).collect();
        let mut simulation = Self {
            random,
            mode,
            begin: tokio::time::Instant::now().into_std(),
            time: 0,
            calm_from: chaos_us,
            queue: BinaryHeap::new(),
            happened: 0,
            ids: 0,
            api: Api::default(),
            controllers,
            proxies,
            streams: BTreeMap::new(),
            lease_requests: BTreeMap::new(),
            lease_answers: BTreeMap::new(),
            mail: BTreeMap::new(),
            _addresses: addresses,
            counts: Counts::default(),
            trace,
        };
        chaos::found(&mut simulation);
        for controller in 0..CONTROLLERS {
            simulation.start(controller);
        }
        for proxy in 0..PROXIES {
            simulation.after(simulation.time, Event::Dial { proxy, life: 0 });
        }
        for event in [Event::Edit, Event::Disturb, Event::Request] {
            simulation.after(SECOND, event);
        }
        let deposed = simulation.random.below(1 + chaos_us / 3);
        simulation.after(deposed, Event::Depose);
        simulation
    }

    /// What the production code takes for the time.
    pub(super) fn now(&self) -> Instant {
        self.begin + Duration::from_micros(self.time)
    }

    pub(super) fn is_calm(&self) -> bool {
        self.time >= self.calm_from
    }

    pub(super) fn note(&self, what: std::fmt::Arguments<'_>) {
        self.trace.borrow_mut().note(self.time, what);
    }

    pub(super) fn after(&mut self, delay: u64, event: Event) {
        self.at(self.time + delay, event);
    }

    pub(super) fn at(&mut self, time: u64, event: Event) {
        self.happened += 1;
        self.queue.push(Reverse((time, self.happened, event)));
    }

    pub(super) fn since_begin(&self, moment: Instant) -> u64 {
        let micros = moment.saturating_duration_since(self.begin).as_nanos().div_ceil(1_000);
        u64::try_from(micros).expect("a short time")
    }

    /// Mostly milliseconds, at times much more.
    pub(super) fn latency(&mut self) -> u64 {
        match self.random.below(50) {
            0 if !self.is_calm() => self.random.below(300 * MILLISECOND),
            _ => MILLISECOND / 2 + self.random.below(CALM_LATENCY),
        }
    }

    pub(super) fn id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    pub(super) async fn run_to(&mut self, end: u64) {
        while let Some(Reverse((time, number, event))) = self.queue.pop() {
            if time > end {
                self.queue.push(Reverse((time, number, event)));
                break;
            }
            if time > self.time {
                tokio::time::advance(Duration::from_micros(time - self.time)).await;
                self.time = time;
            }
            self.trace.borrow_mut().mix(time);
            self.happen(event);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Edit => chaos::edit(self),
            Event::EditFat => chaos::edit_fat_slightly(self),
            Event::Disturb => chaos::disturb(self),
            Event::Depose => chaos::depose(self),
            Event::Watch { controller, life, watch } => self.on_watch(controller, life, watch),
            Event::Start { controller, life } => {
                if self.controllers[controller].life == life {
                    self.start(controller);
                }
            }
            Event::Dial { proxy, life } => self.dial(proxy, life),
            Event::Down(stream) => self.on_down(stream),
            Event::Up(stream) => self.on_up(stream),
            Event::Wake(id) => {
                if let Some(stream) = self.streams.get_mut(&id) {
                    stream.wake_at = None;
                    self.pump(id);
                }
            }
            Event::Closed { proxy, life, stream } => self.on_closed(proxy, life, stream),
            Event::Gone(stream) => drop(self.streams.remove(&stream)),
            Event::ProxyWake { proxy, life } => self.on_proxy_wake(proxy, life),
            Event::Digests(stream) => self.on_digests(stream),
            Event::LeaseArrives(asked) => self.on_lease_request(asked),
            Event::LeaseAnswers(asked) | Event::LeaseEnds(asked) => self.on_lease(asked, event),
            Event::Tell { controller, life } => self.on_tell(controller, life),
            Event::Told(telling) => self.on_told(telling),
            Event::Status { controller, life } => self.on_status(controller, life),
            Event::Lapse { controller, life } => self.on_lapse(controller, life),
            Event::Request => {
                self.request();
                self.after(REQUEST_EVERY, Event::Request);
            }
        }
    }

    /// Whether this happens later, since who it happens to does not run.
    pub(super) fn postponed(&mut self, until: u64, event: Event) -> bool {
        let is_frozen = self.time < until;
        if is_frozen {
            self.at(until, event);
        }
        is_frozen
    }

    /// Whether this process of a replica does this now. One that has ended never does; one that is frozen does it later,
    /// and so does a watch that hears nothing.
    pub(super) fn acts(&mut self, index: usize, life: u64, event: Event) -> bool {
        let controller = &self.controllers[index];
        let until = match event {
            Event::Watch { watch, .. } => {
                controller.frozen_until.max(controller.watches[watch].paused_until).max(self.api.away_until)
            }
            _ => controller.frozen_until,
        };
        controller.life == life && !self.postponed(until, event)
    }

    fn start(&mut self, index: usize) {
        let (life, now) = (self.controllers[index].life, self.time);
        self.note(format_args!("controller-{index} starts"));
        let controller = &mut self.controllers[index];
        controller.troubled_until = controller.troubled_until.max(now);
        for watch in 0..self.controllers[index].watches.len() {
            self.controllers[index].watches[watch].is_scheduled = true;
            let delay = self.latency();
            self.after(delay, Event::Watch { controller: index, life, watch });
        }
        self.step_lease(index, Input::Wake);
        self.after(STATUS_EVERY, Event::Status { controller: index, life });
        self.after(STATUS_EVERY / 2, Event::Tell { controller: index, life });
    }

    /// Watches hear of what is new.
    pub(super) fn announce(&mut self) {
        for index in 0..CONTROLLERS {
            for watch in 0..self.controllers[index].watches.len() {
                self.wake_watch(index, watch);
            }
        }
    }

    pub(super) fn wake_watch(&mut self, index: usize, watch: usize) {
        let delay = self.latency();
        let controller = &mut self.controllers[index];
        let is_due = controller.watches[watch].is_behind(&self.api) && !controller.is_down(self.time);
        if is_due && !std::mem::replace(&mut controller.watches[watch].is_scheduled, true) {
            let life = controller.life;
            self.after(delay, Event::Watch { controller: index, life, watch });
        }
    }

    fn wake_for_lapse(&mut self, index: usize) {
        let controller = &self.controllers[index];
        let life = controller.life;
        if let Some(due) = controller.due() {
            self.at(self.since_begin(due).max(self.time + 1), Event::Lapse { controller: index, life });
        }
    }

    fn on_lapse(&mut self, index: usize, life: u64) {
        if !self.acts(index, life, Event::Lapse { controller: index, life }) {
            return;
        }
        let now = self.now();
        if self.controllers[index].due().is_some_and(|due| due <= now) {
            self.controllers[index].lapse(now);
            self.wake_for_lapse(index);
            self.pump_all(index);
        }
    }

    fn on_watch(&mut self, index: usize, life: u64, watch: usize) {
        if !self.acts(index, life, Event::Watch { controller: index, life, watch }) {
            return;
        }
        let controller = &mut self.controllers[index];
        controller.watches[watch].is_scheduled = false;
        let now = self.begin + Duration::from_micros(self.time);
        let is_news = controller.read(watch, &self.api, now, self.time);
        self.wake_watch(index, watch);
        self.wake_for_lapse(index);
        if !is_news {
            return;
        }
        let controller = &mut self.controllers[index];
        if controller.loaded_at.is_none()
            && let Some(loaded_at) = controller.store.loaded().now_or_never()
        {
            assert_eq!(loaded_at, now, "the store has the time of the simulation");
            controller.loaded_at = Some(loaded_at);
            controller.troubled_until = controller.troubled_until.max(self.time + FIRST_LISTS_GUARD);
            self.note(format_args!("controller-{index} has listed everything"));
        }
        self.pump_all(index);
    }
}

//! One request, from its arrival to its end: circuit, queue, backend, slot, connection, and again.

use super::homes::Home;
use super::met::Met;
use super::rules::{self, Said};
use super::settings::ATTEMPT_TIMEOUT;
use super::wires::{Came, Line, Slot, Wire};
use super::world::{
    Behaviour, Event, Exchange, Fate, Flag, MS, Request, Sleep, Stage, WORKERS, Wait, Worker, World,
};
use lb_core::backend::Live;
use lb_core::balance::{PickRequest, Picked};
use lb_core::resilience::{Admission, Waiting, backoff};
use std::hash::Hash;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum End {
    Answered(Fate),
    CircuitOpen,
    QueueFull,
    QueueTimeout,
    NoBackend,
    Abandoned,
}

/// What came of a try.
enum Tried {
    Started,
    /// All are full, or have no connection: these.
    Wait(Vec<Arc<Live>>),
    /// The one backend where it is at home is.
    Home,
    NoBackend,
}

impl<'a> World<'a> {
    pub(crate) fn arrive(&mut self) {
        self.arrived += 1;
        let id = self.arrived;
        let worker = self.below(WORKERS);
        let is_repeatable = self.below(3) > 0;
        let key = Some(self.dice.bits()).filter(|key| key % 4 > 0);
        // Some clients come often, some hardly ever.
        let client = match self.below(8) {
            0..=1 => Some(self.below(12) as u64),
            2 => Some(100 + self.below(30) as u64),
            _ => None,
        };
        self.workers[worker].arrived += 1;
        let request = Request {
            worker,
            is_repeatable,
            key,
            client,
            home_until: None,
            tried: Vec::new(),
            retries: 0,
            is_replaced: false,
            probe: None,
            stage: Stage::Idle,
        };
        self.requests.insert(id, request);
        if self.below(12) == 0 {
            let after = self.milliseconds(0, 60);
            self.schedule(after, Event::Abandon { request: id });
        }
        self.begin(id);
    }

    /// The first attempt or another one.
    pub(crate) fn begin(&mut self, id: u64) {
        if !self.requests.contains_key(&id) {
            return;
        }
        if !self.admit(id) {
            return self.end(id, End::CircuitOpen);
        }
        let mut wanted = Vec::new();
        let has_home = self.requests[&id].client.is_some() && self.requests[&id].tried.is_empty();
        if has_home || self.queue().is_empty() {
            match self.attempt(id) {
                Tried::Started => return,
                Tried::NoBackend => return self.end(id, End::NoBackend),
                Tried::Wait(lacking) => wanted = lacking,
                Tried::Home => return self.leave_or_look_again(id),
            }
        }
        self.request(id).stage = Stage::Joining(wanted);
        if self.below(2) == 0 {
            let after = self.milliseconds(0, 5);
            return self.schedule(after, Event::Join { request: id });
        }
        self.join(id);
    }

    fn leave_or_look_again(&mut self, id: u64) {
        if let Some(probe) = self.request(id).probe.take() {
            self.end_probe(probe, Said::Nothing);
        }
        if !self.wait_for_home(id) {
            self.end(id, End::QueueTimeout);
        }
    }

    pub(crate) fn join(&mut self, id: u64) {
        let Some(Request { stage, .. }) = self.requests.get_mut(&id) else { return };
        let Stage::Joining(wanted) = std::mem::replace(stage, Stage::Idle) else { return };
        let Some(waiting) = self.queue().join() else {
            self.met.insert(Met::QueueFull);
            return self.end(id, End::QueueFull);
        };
        self.met.insert(Met::Waited);
        self.count += 1;
        let (nth, deadline) = (self.count, self.now + self.queue().timeout());
        self.schedule(self.queue().timeout(), Event::Deadline { request: id, nth });
        self.wait(id, waiting, (nth, deadline), wanted);
    }

    /// Whether the circuit lets it pass.
    fn admit(&mut self, id: u64) -> bool {
        let Some(breaker) = &self.set.guard.breaker else { return true };
        let admission = breaker.admit(self.now);
        self.circuit.check_admission(self.now, &admission);
        match admission {
            Admission::Passed => true,
            Admission::Probe(probe) => {
                let opened = self.circuit.opened;
                self.request(id).probe = Some((probe, opened));
                true
            }
            Admission::Refused => false,
        }
    }

    /// Sleeps until it is woken, tries, and sleeps again.
    fn wait(
        &mut self,
        id: u64,
        mut waiting: Waiting<'a>,
        time: (u64, Duration),
        mut lacking: Vec<Arc<Live>>,
    ) {
        loop {
            lacking.iter().for_each(|live| waiting.lacks(live));
            let flag = Arc::<Flag>::default();
            let mut sleep: Sleep<'a> = Box::pin(async move {
                waiting.woken().await;
                waiting
            });
            let waker = Waker::from(Arc::clone(&flag));
            match sleep.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(awake) => match self.attempt_awake(id, awake) {
                    Some(again) => (waiting, lacking) = again,
                    None => return,
                },
                Poll::Pending => {
                    let (nth, deadline) = time;
                    let wait = Wait { sleep, flag, deadline, nth, is_scheduled: false };
                    self.request(id).stage = Stage::Waiting(wait);
                    return;
                }
            }
        }
    }

    /// One try after a wake. Gives the place back where it must wait on.
    fn attempt_awake(&mut self, id: u64, waiting: Waiting<'a>) -> Option<(Waiting<'a>, Vec<Arc<Live>>)> {
        // The circuit may have opened meanwhile.
        if self.request(id).probe.is_none() && !self.admit(id) {
            self.met.insert(Met::CircuitOpenedMeanwhile);
            drop(waiting);
            self.end(id, End::CircuitOpen);
            return None;
        }
        match self.attempt(id) {
            Tried::Wait(lacking) => return Some((waiting, lacking)),
            Tried::Started => waiting.served(),
            Tried::NoBackend => {
                drop(waiting);
                self.end(id, End::NoBackend);
            }
            Tried::Home => panic!("{id} has a home and is in the queue"),
        }
        None
    }

    pub(crate) fn woken(&mut self, id: u64) {
        let Some(Request { stage, .. }) = self.requests.get_mut(&id) else { return };
        let wait = match std::mem::replace(stage, Stage::Idle) {
            Stage::Waiting(wait) if wait.flag.is_set() => wait,
            // It is over, and the request somewhere else.
            other => {
                *stage = other;
                return;
            }
        };
        let Wait { mut sleep, deadline, nth, .. } = wait;
        let Poll::Ready(waiting) = sleep.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
            panic!("{id} was woken for nothing at {:?}", self.now);
        };
        drop(sleep);
        if let Some((waiting, lacking)) = self.attempt_awake(id, waiting) {
            self.met.insert(Met::WokenInVain);
            self.wait(id, waiting, (nth, deadline), lacking);
        }
    }

    pub(crate) fn waited_enough(&mut self, id: u64, nth: u64) {
        let waits = self
            .requests
            .get(&id)
            .is_some_and(|request| matches!(&request.stage, Stage::Waiting(wait) if wait.nth == nth));
        if waits {
            self.met.insert(Met::QueueTimeout);
            self.end(id, End::QueueTimeout);
        }
    }

    pub(crate) fn abandon(&mut self, id: u64) {
        let Some(request) = self.requests.get(&id) else { return };
        if matches!(request.stage, Stage::Waiting(_)) {
            self.met.insert(Met::AbandonedInQueue);
        }
        self.end(id, End::Abandoned);
    }

    /// Finds a backend with a slot and a connection, and sends the request there.
    fn attempt(&mut self, id: u64) -> Tried {
        assert!(!self.circuit.is_open(self.now) || self.requests[&id].probe.is_some(), "the circuit is open");
        let members = Arc::clone(&self.set.members());
        match self.home(id, &members) {
            Home::Nowhere => {}
            Home::Full => return Tried::Home,
            Home::Backend(number) => {
                self.start(id, number);
                return Tried::Started;
            }
        }
        let (worker, key, tried) = {
            let request = &self.requests[&id];
            (request.worker, request.key, request.tried.clone())
        };
        let mut lacking: Vec<Arc<Live>> = Vec::new();
        let mut skips_tried = !tried.is_empty();
        loop {
            let excluded: Vec<_> =
                tried.iter().filter(|_| skips_tried).chain(&lacking).map(Arc::clone).collect();
            let requests_max = self.settings.policy.requests_max;
            let request = PickRequest { now: self.now, key, tried: &excluded, requests_max };
            let Worker { picker, rng, .. } = &mut self.workers[worker];
            let picked = picker.pick(&members, &request, rng);
            rules::check_pick(self.settings, &members, picked);
            let backend = match picked {
                Picked::None => {
                    self.met.insert(Met::NoBackend);
                    return Tried::NoBackend;
                }
                Picked::Full => return Tried::Wait(lacking),
                Picked::Backend(backend) => backend,
            };
            let number: usize = backend.id[1..].parse().expect("a letter and a number");
            if lacking.iter().any(|live| Arc::ptr_eq(live, &backend.live)) {
                if !skips_tried {
                    self.met.insert(Met::Wanted);
                    return Tried::Wait(lacking);
                }
                skips_tried = false;
            } else if self.can_connect(worker, number) {
                self.start(id, number);
                return Tried::Started;
            } else {
                lacking.push(Arc::clone(&backend.live));
            }
        }
    }

    fn start(&mut self, id: u64, number: usize) {
        let live = Arc::clone(&self.hosts[number].live);
        let entered = live.try_enter(self.settings.policy.requests_max).expect("it was picked for its room");
        self.settle_at(id, number);
        let slot = Slot { in_flight: Some(entered), queue: self.queue() };
        let (line, is_new) = self.connection(id, number);
        let quick = self.milliseconds(1, 8);
        let behaviour = self.behaviour(number);
        let is_closed = match &line {
            Line::Whole { wire, .. } => wire.is_closed(&self.hosts[number], self.now),
            Line::Stream(_) => {
                !self.workers[self.requests[&id].worker].wires[number].is_whole(&line, &self.hosts[number])
            }
        };
        let (fate, latency) = match behaviour {
            _ if is_closed => (Fate::FoundClosed, MS),
            Behaviour::Refusing if is_new => (Fate::Refused, MS),
            Behaviour::Well => (Fate::Success, quick),
            Behaviour::Slow => (Fate::Success, quick + MS * 50),
            Behaviour::Failing if self.below(10) < 7 => (Fate::Error, quick),
            Behaviour::Failing => (Fate::Success, quick),
            Behaviour::Refusing => (Fate::Error, quick),
            Behaviour::Frozen => (Fate::Timeout, ATTEMPT_TIMEOUT),
        };
        let mut exchange = Exchange { number, slot, line, fate };
        if let Line::Whole { wire, .. } = &mut exchange.line {
            wire.idle_since = None;
        }
        self.request(id).stage = Stage::Sending(exchange);
        self.check_streams(id);
        self.schedule(latency, Event::Done { request: id });
    }

    /// A kept connection or a new one.
    fn connection(&mut self, id: u64, number: usize) -> (Line<'a>, bool) {
        let Request { worker, is_repeatable, .. } = self.requests[&id];
        let (host, max) = (&self.hosts[number], self.settings.policy.connections.max);
        let wires = &mut self.workers[worker].wires[number];
        if let Some(line) = wires.take(host, self.now, is_repeatable) {
            self.met.insert(Met::Reused);
            return (line, false);
        }
        let connected = host.live.try_connect(max).or_else(|| {
            // What is idle is too old for this request.
            self.met.insert(Met::NotFresh);
            assert!(wires.give_up(), "there was one or a place for one");
            host.live.try_connect(max)
        });
        let wire = Wire::new(host, connected.expect("a place is free"), &self.set.guard.queue);
        (wires.opened(wire, host, self.now), true)
    }

    fn check_streams(&mut self, id: u64) {
        let Request { worker, stage: Stage::Sending(exchange), .. } = &self.requests[&id] else { return };
        let streams = self.streams(*worker, exchange.number);
        let max = self.settings.policy.connections.streams_max.get() as usize;
        assert!(streams.values().all(|count| *count <= max), "{streams:?} at {:?}", self.now);
        if streams.values().any(|count| *count > 1) {
            self.met.insert(Met::SharedConnection);
        }
    }

    pub(crate) fn done(&mut self, id: u64) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        if !matches!(request.stage, Stage::Sending(_)) {
            return;
        }
        let Stage::Sending(exchange) = std::mem::replace(&mut request.stage, Stage::Idle) else { return };
        let (worker, number) = (request.worker, exchange.number);
        let is_whole = self.workers[worker].wires[number].is_whole(&exchange.line, &self.hosts[number]);
        let fate = if exchange.fate == Fate::Success && !is_whole { Fate::Error } else { exchange.fate };
        let live = Arc::clone(exchange.slot.live());
        self.release(worker, exchange, fate);
        self.tell(id, fate);
        self.retry_or_end(id, fate, live);
    }

    /// Gives back what an exchange has: the connection first, so that whoever the slot wakes finds it.
    fn release(&mut self, worker: usize, exchange: Exchange<'a>, fate: Fate) {
        let Exchange { number, slot, line, .. } = exchange;
        let came = match fate {
            Fate::Success | Fate::Error if slot.live().wanted() == 0 => Came::Whole,
            Fate::Success | Fate::Error | Fate::Timeout => Came::Used,
            Fate::Refused | Fate::FoundClosed => Came::Closed,
        };
        let keep = self.keep(worker);
        self.workers[worker].wires[number].put_back(line, came, &self.hosts[number], self.now, &keep);
        drop(slot);
    }

    /// Tells the circuit.
    fn tell(&mut self, id: u64, fate: Fate) {
        let said = match fate {
            Fate::Success => Said::Well,
            Fate::Error | Fate::Timeout | Fate::Refused => Said::Failed,
            // Nobody's fault.
            Fate::FoundClosed => Said::Nothing,
        };
        let request = self.requests.get_mut(&id).expect("it is not over");
        match (request.probe.take(), said) {
            (Some(probe), said) => self.end_probe(probe, said),
            (None, Said::Well) => self.workers[request.worker].successes += 1,
            (None, Said::Failed) => self.workers[request.worker].failures += 1,
            (None, Said::Nothing) => {}
        }
    }

    fn end_probe(&mut self, (probe, opened): (lb_core::resilience::Probe, u64), said: Said) {
        let before = (self.circuit.opened, self.circuit.is_closed());
        match said {
            Said::Well => probe.end(self.now, true),
            Said::Failed => probe.end(self.now, false),
            Said::Nothing => {
                self.met.insert(Met::ProbeLeft);
                drop(probe);
            }
        }
        self.circuit.probed(self.now, opened, said);
        if self.circuit.opened > before.0 {
            self.met.insert(Met::OpenedAgain);
        }
        if self.circuit.is_closed() && !before.1 {
            self.met.insert(Met::ClosedAgain);
        }
    }

    fn retry_or_end(&mut self, id: u64, fate: Fate, live: Arc<Live>) {
        let retries_max = self.settings.retries_max;
        let base = self.settings.backoff;
        let request = self.requests.get_mut(&id).expect("it is not over");
        let was_sent = fate != Fate::Refused;
        let may = fate != Fate::Success && (request.is_repeatable || !was_sent);
        if may && fate == Fate::FoundClosed && !std::mem::replace(&mut request.is_replaced, true) {
            self.met.insert(Met::FoundClosed);
            return self.begin(id);
        }
        if !may || request.retries == retries_max {
            return self.end(id, End::Answered(fate));
        }
        let is_allowed = self.set.guard.budget.withdraw(self.now);
        self.allowance.check_withdrawal(self.now, is_allowed);
        if !is_allowed {
            self.met.insert(Met::RetryRefused);
            return self.end(id, End::Answered(fate));
        }
        self.met.insert(Met::Retried);
        let request = self.requests.get_mut(&id).expect("it is not over");
        request.retries += 1;
        request.tried.push(live);
        let after = backoff(base, request.retries - 1, &mut self.workers[request.worker].rng);
        self.schedule(after, Event::Retry { request: id });
    }

    /// The one place where a request ends, whatever it has.
    fn end(&mut self, id: u64, how: End) {
        (id, how).hash(&mut self.history);
        let Request { worker, probe, stage, .. } = self.requests.remove(&id).expect("it is not over");
        assert!(self.ended.insert(id), "{id} ends twice");
        self.successes += u64::from(how == End::Answered(Fate::Success));
        if let Stage::Sending(exchange) = stage {
            self.release(worker, exchange, Fate::Timeout);
        }
        if let Some(probe) = probe {
            self.end_probe(probe, Said::Nothing);
        }
    }

    fn request(&mut self, id: u64) -> &mut Request<'a> {
        self.requests.get_mut(&id).expect("it is not over")
    }
}

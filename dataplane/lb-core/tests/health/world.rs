//! A world of backends, proxies and a controller, in time that only the test moves.

use lb_core::health::{
    ActiveSettings, Batch, Event, Health, Moment, News, Outcome, PassiveSettings, ProbeId, ProxyId, Reason,
    Remote, Say, SetPlan, Start, State, TargetId, Valid,
};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Requests are sent every so many milliseconds.
const TRAFFIC_EVERY: u64 = 200;
/// The longest way through the controller, in milliseconds.
pub(crate) const RELAY_MAX: u64 = 40;
/// Probes on their way at once, of one proxy.
pub(crate) const PROBES_AT_ONCE: usize = 6;

pub(crate) fn at(milliseconds: u64) -> Moment {
    Moment::after_start(Duration::from_millis(milliseconds))
}

/// SplitMix64.
#[derive(Debug)]
pub(crate) struct Dice(pub u64);

impl Dice {
    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (value ^ (value >> 31)) % limit
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behaviour {
    Healthy,
    /// Answers, at half the time-out.
    Slow,
    /// Probes pass, and more than half of the requests fail.
    Failing,
    /// Accepts nothing.
    Refusing,
    /// Accepts and never answers.
    Frozen,
    /// Refusing and Healthy by turns of so many milliseconds.
    Flapping(u64),
}

#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) name: Arc<str>,
    pub(crate) address: SocketAddr,
    pub(crate) behaviour: Behaviour,
    /// Of the behaviour.
    pub(crate) since: u64,
    pub(crate) was_always_healthy: bool,
    pub(crate) probes: u64,
}

impl Backend {
    /// What it does at this moment.
    fn acts(&self, now: u64) -> Behaviour {
        match self.behaviour {
            Behaviour::Flapping(length) if ((now - self.since) / length).is_multiple_of(2) => {
                Behaviour::Refusing
            }
            Behaviour::Flapping(_) => Behaviour::Healthy,
            other => other,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) id: ProxyId,
    pub(crate) health: Health,
    pub(crate) joined: u64,
    pub(crate) sets: Vec<u64>,
    /// The last event of each backend of each set, or what it began with.
    is_up: BTreeMap<(u64, Arc<str>), bool>,
    delay: u64,
    wakes_at: u64,
}

enum Mail {
    News(News),
    NewStream,
}

pub(crate) struct World {
    pub(crate) now: u64,
    pub(crate) dice: Dice,
    pub(crate) backends: Vec<Backend>,
    pub(crate) proxies: Vec<Proxy>,
    pub(crate) active: Valid<ActiveSettings>,
    pub(crate) passive: Option<Valid<PassiveSettings>>,
    pub(crate) controller_is_there: bool,
    /// When proxies or the controller last came or went.
    pub(crate) unrest_at: u64,
    /// A proxy that cannot reach a backend.
    pub(crate) cut: Option<(ProxyId, usize)>,
    /// Events since the start.
    pub(crate) events: Vec<(u64, ProxyId, Arc<str>, Event)>,
    reports: BTreeMap<(ProxyId, TargetId), Remote>,
    heard: BTreeMap<ProxyId, Moment>,
    results: BTreeMap<(u64, u64), (ProxyId, ProbeId, Outcome)>,
    mail: BTreeMap<(u64, u64), (ProxyId, Mail)>,
    count: u64,
    traffic_at: u64,
}

impl World {
    pub(crate) fn new(
        seed: u64,
        backends: u16,
        active: Valid<ActiveSettings>,
        passive: Option<Valid<PassiveSettings>>,
    ) -> Self {
        let backend = |number| Backend {
            name: format!("b{number}").into(),
            address: ([10, 0, 0, 1], 8000 + number).into(),
            behaviour: Behaviour::Healthy,
            since: 0,
            was_always_healthy: true,
            probes: 0,
        };
        Self {
            now: 0,
            dice: Dice(seed),
            backends: (0..backends).map(backend).collect(),
            proxies: Vec::new(),
            active,
            passive,
            controller_is_there: true,
            unrest_at: 0,
            cut: None,
            events: Vec::new(),
            reports: BTreeMap::new(),
            heard: BTreeMap::new(),
            results: BTreeMap::new(),
            mail: BTreeMap::new(),
            count: 0,
            traffic_at: 0,
        }
    }

    /// A proxy that shares its checks, with set 1 of all backends.
    pub(crate) fn join(&mut self) {
        let id = ProxyId(self.dice.below(u64::MAX));
        let proxy = Proxy {
            id,
            health: Health::new(Some(id), PROBES_AT_ONCE, self.dice.below(u64::MAX)),
            joined: self.now,
            sets: Vec::new(),
            is_up: BTreeMap::new(),
            delay: 1 + self.dice.below(RELAY_MAX),
            wakes_at: self.now,
        };
        self.proxies.push(proxy);
        self.unrest_at = self.now;
        self.open_stream(self.proxies.len() - 1);
        self.send_list();
        self.add_set(self.proxies.len() - 1, 1);
    }

    /// A proxy's process ends.
    pub(crate) fn kill(&mut self, position: usize) {
        let gone = self.proxies.remove(position).id;
        self.unrest_at = self.now;
        self.reports.retain(|(proxy, _), _| *proxy != gone);
        self.heard.remove(&gone);
        self.send_to_all(&News::Gone(gone));
        self.send_list();
    }

    pub(crate) fn add_set(&mut self, position: usize, number: u64) {
        let plan = SetPlan {
            active: Some(self.active.clone()),
            passive: self.passive.clone(),
            panic_below_permille: 0,
        };
        let backends: Vec<_> = self.backends.iter().map(|b| (Arc::clone(&b.name), b.address)).collect();
        let proxy = &mut self.proxies[position];
        proxy.health.replace_set(at(self.now), number, plan, backends);
        proxy.sets.push(number);
        let state = |name: &Arc<str>| proxy.health.set(number).and_then(|set| set.standing(name));
        for backend in &self.backends {
            let is_up = state(&backend.name).is_some_and(|standing| standing.is_available);
            proxy.is_up.insert((number, Arc::clone(&backend.name)), is_up);
        }
        proxy.wakes_at = self.now;
    }

    pub(crate) fn remove_set(&mut self, position: usize, number: u64) {
        let proxy = &mut self.proxies[position];
        proxy.health.remove_set(at(self.now), number);
        proxy.sets.retain(|set| *set != number);
        proxy.wakes_at = self.now;
    }

    pub(crate) fn lose_controller(&mut self) {
        self.controller_is_there = false;
        self.unrest_at = self.now;
        self.mail.clear();
        self.reports.clear();
        self.heard.clear();
    }

    pub(crate) fn bring_controller_back(&mut self) {
        self.controller_is_there = true;
        self.unrest_at = self.now;
        for position in 0..self.proxies.len() {
            self.open_stream(position);
        }
        self.send_list();
    }

    pub(crate) fn behave(&mut self, number: usize, behaviour: Behaviour) {
        let backend = &mut self.backends[number];
        if backend.behaviour != behaviour {
            (backend.behaviour, backend.since) = (behaviour, self.now);
            backend.was_always_healthy &= behaviour == Behaviour::Healthy;
        }
    }

    /// Moves time on to `until`, and looks at the world after each moment at which something happened.
    pub(crate) fn run(&mut self, until: u64, mut look: impl FnMut(&World)) {
        while let Some(next) = self.next_moment().filter(|next| *next <= until) {
            self.now = next;
            self.deliver();
            if self.traffic_at <= self.now {
                self.traffic_at = self.now + TRAFFIC_EVERY;
                self.send_requests();
            }
            for position in 0..self.proxies.len() {
                if self.proxies[position].wakes_at <= self.now {
                    self.step(position);
                }
            }
            look(self);
        }
        self.now = until;
    }

    fn next_moment(&self) -> Option<u64> {
        let results = self.results.first_key_value().map(|((at, _), _)| *at);
        let mail = self.mail.first_key_value().map(|((at, _), _)| *at);
        let proxies = self.proxies.iter().map(|proxy| proxy.wakes_at);
        results
            .into_iter()
            .chain(mail)
            .chain(proxies)
            .chain([self.traffic_at])
            .min()
            .map(|at| at.max(self.now))
    }

    fn deliver(&mut self) {
        let now = at(self.now);
        while let Some(entry) = self.results.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let (to, probe, outcome) = entry.remove();
            if let Some(proxy) = self.proxies.iter_mut().find(|proxy| proxy.id == to) {
                proxy.health.report(now, probe, outcome);
                proxy.wakes_at = self.now;
            }
        }
        while let Some(entry) = self.mail.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let (to, mail) = entry.remove();
            if let Some(proxy) = self.proxies.iter_mut().find(|proxy| proxy.id == to) {
                match mail {
                    Mail::News(news) => proxy.health.hear(now, news),
                    Mail::NewStream => proxy.health.reconnect(now),
                }
                proxy.wakes_at = self.now;
            }
        }
    }

    /// Every proxy sends requests to each backend that is available, by its weight.
    fn send_requests(&mut self) {
        for proxy in &mut self.proxies {
            for set in &proxy.sets {
                for (number, backend) in self.backends.iter().enumerate() {
                    let standing = proxy.health.set(*set).and_then(|set| set.standing(&backend.name));
                    let Some(standing) = standing.filter(|standing| standing.is_available) else { continue };
                    let requests = 1 + u32::from(standing.weight_permille) / 100;
                    let acts = if self.cut == Some((proxy.id, number)) {
                        Behaviour::Refusing
                    } else {
                        backend.acts(self.now)
                    };
                    let batch = outcomes(acts, requests, &mut self.dice);
                    proxy.health.observe(at(self.now), *set, &backend.name, &batch);
                }
            }
            proxy.wakes_at = self.now;
        }
    }

    fn step(&mut self, position: usize) {
        let proxy = &mut self.proxies[position];
        let steps = proxy.health.step(at(self.now));
        let id = proxy.id;
        let wakes_at =
            proxy.health.wakes_at().map_or(Duration::from_secs(3600), |at| at.since(Moment::START));
        // Time here is whole milliseconds; to wake early would be to wake twice.
        let milliseconds = u64::try_from(wakes_at.as_nanos().div_ceil(1_000_000)).expect("a short test");
        proxy.wakes_at = milliseconds.max(self.now + 1);
        for (set, steps) in steps.sets {
            for change in steps.changes {
                let is_up = matches!(change.event, Event::Up(_));
                let before = proxy.is_up.insert((set, Arc::clone(&change.backend)), is_up);
                assert_eq!(before, Some(!is_up), "events of {} alternate", change.backend);
                let backend = self.backends.iter().find(|known| known.name == change.backend).expect("known");
                let is_well = backend.was_always_healthy && self.cut.is_none();
                assert!(!is_well, "{id:?} saw {change:?} of a backend that was always healthy");
                self.events.push((self.now, id, change.backend, change.event));
            }
        }
        for start in steps.start {
            self.probe(id, &start);
        }
        for say in steps.say {
            self.relay(id, say);
        }
    }

    fn probe(&mut self, proxy: ProxyId, start: &Start) {
        let address = start.key.address();
        let number = self.backends.iter().position(|backend| backend.address == address).expect("a backend");
        self.backends[number].probes += 1;
        let is_cut = self.cut == Some((proxy, number));
        let timeout = u64::try_from(self.active.timeout.as_millis()).expect("a short test");
        let quick = 1 + self.dice.below(9);
        let pass = |after: u64| (after, Outcome::Pass { latency: Duration::from_millis(after) });
        let (after, outcome) = match self.backends[number].acts(self.now) {
            Behaviour::Frozen => return,
            Behaviour::Refusing => (quick, Outcome::Fail { reason: Reason::Refused }),
            _ if is_cut => (quick, Outcome::Fail { reason: Reason::Unreachable }),
            Behaviour::Slow => pass(timeout / 2),
            _ => pass(quick),
        };
        self.count += 1;
        self.results.insert((self.now + after, self.count), (proxy, start.probe, outcome));
    }

    fn relay(&mut self, from: ProxyId, say: Say) {
        if !self.controller_is_there {
            return;
        }
        let news = match say {
            Say::Alive => {
                self.heard.insert(from, at(self.now));
                News::Alive { proxy: from, at: at(self.now) }
            }
            Say::Report(report) => {
                self.reports.insert((from, report.target), report);
                if report.state == State::Unknown {
                    self.reports.remove(&(from, report.target));
                }
                News::Report(report)
            }
        };
        for position in 0..self.proxies.len() {
            if self.proxies[position].id != from {
                self.post(position, Mail::News(news.clone()));
            }
        }
    }

    fn open_stream(&mut self, position: usize) {
        if self.controller_is_there {
            self.post(position, Mail::NewStream);
        }
    }

    /// The list goes to everybody, and to who may be new to it what the others said last.
    fn send_list(&mut self) {
        let list: Vec<ProxyId> = self.proxies.iter().map(|proxy| proxy.id).collect();
        self.send_to_all(&News::Proxies(list));
        let reports = self.reports.values().map(|report| News::Report(*report));
        let heard = self.heard.iter().map(|(proxy, at)| News::Alive { proxy: *proxy, at: *at });
        for news in reports.chain(heard).collect::<Vec<News>>() {
            self.send_to_all(&news);
        }
    }

    fn send_to_all(&mut self, news: &News) {
        if self.controller_is_there {
            for position in 0..self.proxies.len() {
                self.post(position, Mail::News(news.clone()));
            }
        }
    }

    fn post(&mut self, position: usize, mail: Mail) {
        self.count += 1;
        let Proxy { id, delay, .. } = self.proxies[position];
        self.mail.insert((self.now + delay, self.count), (id, mail));
    }
}

fn outcomes(acts: Behaviour, requests: u32, dice: &mut Dice) -> Batch {
    let fine = |latency: u64| Batch {
        successes: requests,
        latency_sum: Duration::from_millis(latency) * requests,
        ..Batch::default()
    };
    match acts {
        Behaviour::Slow => fine(400),
        Behaviour::Refusing => Batch { connect_failures: requests, ..Batch::default() },
        Behaviour::Frozen => Batch { timeouts: requests, ..Batch::default() },
        Behaviour::Failing => {
            let errors = (0..requests).map(|_| u32::from(dice.below(10) < 7)).sum();
            let successes = requests - errors;
            let latency_sum = Duration::from_millis(10) * successes;
            Batch { successes, errors, latency_sum, ..Batch::default() }
        }
        Behaviour::Healthy | Behaviour::Flapping(_) => fine(10),
    }
}

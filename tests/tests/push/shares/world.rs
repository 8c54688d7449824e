//! Proxies, replicas and what is between them, in virtual time: the limiter, the holdings, the desk and the allocator are
//! those that serve.

use lb_core::balance::Rng;
use lb_core::rate::{Algorithm, LimitPolicy, Limiter, RateKey, Scope, Told, WHOLE, admit};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use weir_controller::shares::{Desk, NEW_AFTER, Outbox, Seat};
use weir_proto::push::{Demand, ProxyDemand, ReplicaShares, Shares};
use weir_proxy::config::shares::{Holdings, Keeps};

pub(super) const STEP: Duration = Duration::from_millis(10);
const LIMIT: u64 = 7;

/// From the last moment of a holder that could not renew its Lease to the next one.
const LEASE_MARGIN: Duration = Duration::from_secs(5);

/// In order, as on a stream.
struct Wire<T>(VecDeque<(Duration, T)>);

impl<T> Wire<T> {
    fn new() -> Self {
        Self(VecDeque::new())
    }

    fn send(&mut self, message: T, now: Duration, delay: Duration) {
        let due = self.0.back().map_or(Duration::ZERO, |(due, _)| *due).max(now + delay);
        self.0.push_back((due, message));
    }

    fn arrived(&mut self, now: Duration) -> Option<T> {
        self.0.pop_front_if(|(due, _)| *due <= now).map(|(_, message)| message)
    }
}

/// A proxy's stream to a replica.
struct Stream {
    replica: usize,
    seat: Seat,
    up: Wire<Demand>,
    down: Wire<Shares>,
}

pub(super) struct Proxy {
    id: u64,
    limiter: Arc<Limiter>,
    holdings: Holdings,
    stream: Option<Stream>,
    dials_at: Duration,
    /// Requests a second that clients send here.
    pub(super) rate: f64,
    owed: f64,
    /// Nobody stood by its share at the last step.
    was_without_word: bool,
    /// It serves nobody any more, and is gone then.
    ends_at: Option<Duration>,
}

impl Proxy {
    /// Whether a request passes now.
    pub(super) fn passes(&self, now: Duration) -> bool {
        let limits = std::slice::from_ref(&self.limiter);
        admit(limits, now, |_, _| 42).refused().is_none()
    }

    pub(super) fn share(&self) -> f64 {
        f64::from(self.limiter.share().unwrap_or(0)) / f64::from(WHOLE)
    }
}

struct Replica {
    desk: Arc<Desk>,
    outbox: Outbox,
    is_up_at: Duration,
    up: Wire<ProxyDemand>,
    down: Wire<ReplicaShares>,
    is_linked_at: Duration,
}

impl Replica {
    fn new(is_up_at: Duration) -> Self {
        let desk = Arc::<Desk>::default();
        let outbox = desk.outbox();
        Self { desk, outbox, is_up_at, up: Wire::new(), down: Wire::new(), is_linked_at: is_up_at }
    }
}

/// The time of one holder.
#[derive(Debug, Default)]
struct Tenure {
    began: Duration,
    heard: BTreeSet<u64>,
    /// Who had a share when a holder took the limit for new, and was heard by none since.
    unknown: BTreeSet<u64>,
    /// None of these had a share when it took the limit for new.
    is_taken_for_new: bool,
    has_heard_old: bool,
}

impl Tenure {
    fn hears(&mut self, proxy: u64, demand: &Demand) {
        self.unknown.remove(&proxy);
        self.heard.insert(proxy);
        self.has_heard_old |= demand.limits.iter().any(|limit| !limit.is_new);
    }
}

/// What the limit is, and how bad the network.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) requests: u32,
    pub(super) burst: u32,
    pub(super) is_keyed: bool,
    /// Out of a thousand messages, how many take up to six seconds.
    pub(super) stalls: usize,
}

pub(super) struct World {
    pub(super) rng: Rng,
    settings: Settings,
    base: Instant,
    pub(super) now: Duration,
    pub(super) proxies: Vec<Proxy>,
    replicas: Vec<Replica>,
    holder: Option<usize>,
    tenure: Tenure,
    elects_at: Duration,
    epochs: u64,
    ids: u64,
    pub(super) passed: u64,
    /// How far what passed is ahead of what may, and the lowest that it was.
    ahead: f64,
    lowest: f64,
    pub(super) worst: f64,
    /// What proxies on their own were allowed beyond the limit.
    pub(super) extra: f64,
    pub(super) is_calm: bool,
}

impl World {
    pub(super) fn new(seed: usize, settings: Settings, proxies: usize) -> Self {
        let mut world = Self {
            rng: Rng::new(seed as u64),
            settings,
            base: Instant::now(),
            now: Duration::from_secs(1),
            proxies: Vec::new(),
            replicas: (0..3).map(|_| Replica::new(Duration::ZERO)).collect(),
            holder: None,
            tenure: Tenure::default(),
            elects_at: Duration::ZERO,
            epochs: 0,
            ids: seed as u64 * 1_000,
            passed: 0,
            ahead: 0.0,
            lowest: 0.0,
            worst: 0.0,
            extra: 0.0,
            is_calm: false,
        };
        (0..proxies).for_each(|_| world.start_proxy());
        world
    }

    fn at(&self) -> Instant {
        self.base + self.now
    }

    fn delay(&mut self) -> Duration {
        let millis = match self.rng.below(1_000) {
            roll if roll < self.settings.stalls && !self.is_calm => self.rng.below(6_000),
            _ => 1 + self.rng.below(30),
        };
        Duration::from_millis(millis as u64)
    }

    pub(super) fn start_proxy(&mut self) {
        self.ids += 1;
        let policy = LimitPolicy {
            id: "pool/l".into(),
            name: "l".into(),
            key: match self.settings.is_keyed {
                true => RateKey::Source { v4_bits: 32, v6_bits: 64 },
                false => RateKey::Route,
            },
            algorithm: Algorithm::TokenBucket { burst: self.settings.burst },
            requests: self.settings.requests,
            period: Duration::from_secs(1),
            scope: Scope::Cluster(LIMIT),
            keys_max: 100,
            told: Told::WhenRefused,
        };
        let rate = self.rng.below(3 * self.settings.requests as usize + 1) as f64;
        self.proxies.push(Proxy {
            id: self.ids,
            limiter: Arc::new(Limiter::new(policy, 1)),
            holdings: Holdings::default(),
            stream: None,
            dials_at: self.now,
            rate,
            owed: 0.0,
            was_without_word: false,
            ends_at: None,
        });
    }

    /// Without a word to anybody.
    pub(super) fn kill_proxy(&mut self, at: usize) {
        self.proxies.remove(at);
    }

    /// Its requests have finished, and it says so.
    pub(super) fn end_proxy(&mut self, at: usize) {
        let (now, delay) = (self.now, self.delay());
        let proxy = &mut self.proxies[at];
        if proxy.ends_at.is_some() {
            return;
        }
        let last = proxy.holdings.leave(Keeps::Nothing, now);
        if let (Some(stream), Some(last)) = (&mut proxy.stream, last) {
            stream.up.send(last, now, delay);
        }
        // Until its last word has arrived.
        proxy.ends_at = Some(now + Duration::from_millis(500));
        proxy.rate = 0.0;
    }

    /// It dials again after this long.
    pub(super) fn cut_proxy(&mut self, at: usize, away: Duration) {
        self.proxies[at].stream = None;
        self.proxies[at].dials_at = self.now + away;
    }

    pub(super) fn cut_replica(&mut self, at: usize, away: Duration) {
        let replica = &mut self.replicas[at];
        (replica.up, replica.down) = (Wire::new(), Wire::new());
        replica.is_linked_at = self.now + away;
    }

    /// The process is another one afterwards.
    pub(super) fn kill_replica(&mut self, at: usize, away: Duration) {
        self.replicas[at] = Replica::new(self.now + away);
        if self.holder == Some(at) {
            // Others wait until its Lease has expired.
            let wait = Duration::from_secs(13 + self.rng.below(4) as u64);
            self.lose_holder(wait);
        }
        for proxy in &mut self.proxies {
            if proxy.stream.as_ref().is_some_and(|stream| stream.replica == at) {
                proxy.stream = None;
                proxy.dials_at = self.now + Duration::from_millis(100 + self.rng.below(1_500) as u64);
            }
        }
    }

    /// The Lease passes to another one: at once, or as fast as its margin lets it.
    pub(super) fn pass_lease(&mut self) {
        if let Some(holder) = self.holder {
            self.replicas[holder].desk.ask();
            self.lose_holder(LEASE_MARGIN);
        }
    }

    fn lose_holder(&mut self, wait: Duration) {
        self.holder = None;
        self.elects_at = self.now + wait;
        for replica in &mut self.replicas {
            (replica.up, replica.down) = (Wire::new(), Wire::new());
        }
    }

    pub(super) fn elapse(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.step();
        }
    }

    pub(super) fn step(&mut self) {
        self.now += STEP;
        self.elect();
        self.dial();
        for at in 0..self.proxies.len() {
            self.talk(at);
        }
        for at in 0..self.replicas.len() {
            self.pass_on(at);
        }
        let now = self.now;
        self.proxies.retain(|proxy| proxy.ends_at.is_none_or(|ends_at| now < ends_at));
        self.allow();
        for at in 0..self.proxies.len() {
            self.ask(at);
        }
    }

    fn elect(&mut self) {
        if self.holder.is_some() || self.now < self.elects_at {
            return;
        }
        let at = self.rng.below(self.replicas.len());
        if self.replicas[at].is_up_at <= self.now {
            self.epochs += 1;
            self.replicas[at].desk.give(self.epochs, self.at());
            self.holder = Some(at);
            let unknown = std::mem::take(&mut self.tenure.unknown);
            self.tenure = Tenure { began: self.now, unknown, ..Tenure::default() };
        }
    }

    fn dial(&mut self) {
        for at in 0..self.proxies.len() {
            let to = self.rng.below(self.replicas.len());
            let (now, is_up) = (self.now, self.replicas[to].is_up_at <= self.now);
            let proxy = &mut self.proxies[at];
            if proxy.stream.is_none() && proxy.dials_at <= now && is_up {
                let seat = self.replicas[to].desk.join(proxy.id).expect("there is room");
                proxy.holdings.begin_stream(true, now);
                proxy.stream = Some(Stream { replica: to, seat, up: Wire::new(), down: Wire::new() });
            }
        }
    }

    fn talk(&mut self, at: usize) {
        let (now, moment, delays) = (self.now, self.at(), [self.delay(), self.delay()]);
        let proxy = &mut self.proxies[at];
        proxy.holdings.keep([&proxy.limiter], now);
        proxy.holdings.expire(now);
        let demand = proxy.holdings.demand(now);
        let Some(stream) = &mut proxy.stream else { return };
        if let Some(demand) = demand {
            stream.up.send(demand, now, delays[0]);
        }
        while let Some(demand) = stream.up.arrived(now) {
            if self.holder == Some(stream.replica) {
                self.tenure.hears(proxy.id, &demand);
            }
            stream.seat.say(demand, moment);
        }
        if let Some(shares) = stream.seat.next() {
            stream.down.send(shares, now, delays[1]);
        }
        while let Some(shares) = stream.down.arrived(now) {
            proxy.holdings.hear(&shares, now);
        }
    }

    fn pass_on(&mut self, at: usize) {
        let (now, moment, delays) = (self.now, self.at(), [self.delay(), self.delay()]);
        let Some(holder) = self.holder.filter(|holder| *holder != at) else { return };
        let to = Arc::clone(&self.replicas[holder].desk);
        let replica = &mut self.replicas[at];
        if replica.is_linked_at > now || replica.is_up_at > now {
            return;
        }
        while let Some(demand) = replica.outbox.next() {
            replica.up.send(demand, now, delays[0]);
        }
        while let Some(ProxyDemand { proxy, demand }) = replica.up.arrived(now) {
            let demand = demand.expect("it was said");
            self.tenure.hears(proxy, &demand);
            let shares = to.answer(proxy, &demand, moment);
            if shares.is_some() {
                replica.down.send(ReplicaShares { proxy, shares }, now, delays[1]);
            }
        }
        while let Some(answer) = replica.down.arrived(now) {
            replica.desk.deliver(answer);
        }
    }

    /// What may pass in this step: the limit, and the shares that proxies have by themselves, or of which a holder knows
    /// nothing that has heard only of new ones.
    fn allow(&mut self) {
        let Settings { requests, burst, .. } = self.settings;
        let mut allowed = f64::from(requests) * STEP.as_secs_f64();
        let tenure = &mut self.tenure;
        if !tenure.has_heard_old && !tenure.is_taken_for_new && self.now >= tenure.began + NEW_AFTER {
            tenure.is_taken_for_new = true;
            let others =
                self.proxies.iter().filter(|proxy| !tenure.heard.contains(&proxy.id) && proxy.share() > 0.0);
            tenure.unknown.extend(others.map(|proxy| proxy.id));
            if self.epochs > 1 {
                self.extra += f64::from(burst);
                allowed += f64::from(burst);
            }
        }
        for proxy in &mut self.proxies {
            let is_unknown = tenure.unknown.contains(&proxy.id);
            let is_without_word = is_unknown || proxy.holdings.standing().without_word > 0;
            if is_without_word {
                let more = proxy.share() * f64::from(requests) * STEP.as_secs_f64();
                let at_once = if proxy.was_without_word { 0.0 } else { proxy.share() * f64::from(burst) };
                self.extra += more + at_once;
                allowed += more + at_once;
            }
            // What it takes at once, it takes when it has a share.
            proxy.was_without_word = is_without_word && proxy.share() > 0.0;
        }
        self.ahead -= allowed;
        self.lowest = self.lowest.min(self.ahead);
    }

    fn ask(&mut self, at: usize) {
        let now = self.now;
        let proxy = &mut self.proxies[at];
        proxy.owed += proxy.rate * STEP.as_secs_f64();
        while proxy.owed >= 1.0 {
            proxy.owed -= 1.0;
            if proxy.passes(now) {
                self.passed += 1;
                self.ahead += 1.0;
            }
        }
        self.worst = self.worst.max(self.ahead - self.lowest);
    }
}

//! Health of backends, beside the request path: one task that asks backends, hears what became of requests, and makes
//! what follows the membership of their sets.
//!
//! ```text
//! Applier -> Orders (which sets, checked how) --+
//! probe (I/O) -> results -----------------------+--> Caretaker: lb_core::health::Health --> membership, one swap a set
//! workers -> outcomes, every 10 ms -------------+
//! ```
//!
//! All decisions are lb-core's. Requests see nothing of this but the membership that they load anyway.

mod orders;
mod probe;
mod share;
mod view;

pub(crate) use orders::{Ids, Orders};
pub(crate) use share::{Exchange, Heard};
pub use view::{Finding, View};

use crate::outcomes::Judged;
use lb_core::backend::{Backend, BackendSet, Place, Standing};
use lb_core::health::{self, Event, Health, Moment, Outcome, PROBES_AT_ONCE_MAX, ProbeId, SetSteps};
use orders::Order;
use probe::{ProbeTls, probe};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use view::Question;

/// What health checks and ejection did since the process began, and now.
#[derive(Debug, Default)]
pub struct Counts {
    /// Probes that passed.
    pub passed: AtomicU64,
    /// Probes that failed or timed out.
    pub failed: AtomicU64,
    /// Backends that ceased to take requests.
    pub downs: AtomicU64,
    /// Backends that take requests again.
    pub ups: AtomicU64,
    /// Targets that are checked here now: addresses with their settings.
    pub targets: AtomicU64,
}

/// What the task lives on.
#[derive(Debug)]
pub(crate) struct Surroundings {
    /// The process's zero of time, the same for its workers.
    pub(crate) started: Instant,
    /// Where this proxy runs.
    pub(crate) place: Place,
    pub(crate) ids: Ids,
    pub(crate) orders: Arc<Orders>,
    /// With the other proxies of its kind.
    pub(crate) exchange: Arc<Exchange>,
    pub(crate) counts: Arc<Counts>,
}

/// One set in the caretaker's hands.
#[derive(Debug)]
struct Charge {
    set: Weak<BackendSet>,
    /// Of the set, also once that is gone: what was said under it is to be taken back.
    name: Arc<str>,
    /// When its membership is to be made anew though nothing happens: a backend starts slowly.
    next_change: Option<Duration>,
    /// Why backends take no requests, for who asks again.
    down: BTreeMap<Arc<str>, String>,
}

/// Keeps the health of a process. One task owns it.
pub(crate) struct Caretaker {
    surroundings: Surroundings,
    health: Health,
    sets: BTreeMap<u64, Charge>,
    /// Sets by [`Charge::next_change`].
    changes: BTreeSet<(Duration, u64)>,
    tls: ProbeTls,
    probes: JoinSet<(ProbeId, Outcome)>,
    running: BTreeMap<ProbeId, AbortHandle>,
}

impl Caretaker {
    /// Knows no set yet.
    pub(crate) fn new(surroundings: Surroundings) -> Self {
        let seed = weir_dial::Random::default().number();
        let me = Some(surroundings.exchange.id());
        Self {
            surroundings,
            health: Health::new(me, PROBES_AT_ONCE_MAX, seed),
            sets: BTreeMap::new(),
            changes: BTreeSet::new(),
            tls: ProbeTls::new(),
            probes: JoinSet::new(),
            running: BTreeMap::new(),
        }
    }

    /// Runs for as long as it is polled.
    pub(crate) async fn run(
        mut self,
        mut judged: mpsc::Receiver<Judged>,
        mut questions: mpsc::Receiver<Question>,
        mut heard: mpsc::Receiver<Heard>,
    ) {
        let orders = Arc::clone(&self.surroundings.orders);
        let mut batches = Vec::new();
        loop {
            let wakes_at = self.wakes_at();
            tokio::select! {
                Some(done) = self.probes.join_next() => self.done(done.ok()),
                count = judged.recv_many(&mut batches, crate::outcomes::BATCHES_MAX) => {
                    if count == 0 {
                        // Every worker has ended, and so does the process.
                        return std::future::pending().await;
                    }
                }
                () = orders.changed() => {}
                Some(question) = questions.recv() => self.answer(question),
                Some(heard) = heard.recv() => self.hear(heard),
                () = at(wakes_at) => {}
            }
            // What has arrived comes before the time that has passed: after a stall, results that wait are no time-outs.
            while let Some(done) = self.probes.try_join_next() {
                self.done(done.ok());
            }
            while let Ok(heard) = heard.try_recv() {
                self.hear(heard);
            }
            let now = self.now();
            for ((set, backend), batch) in batches.drain(..).flatten() {
                self.health.observe(now, set, &backend, &batch);
            }
            self.follow_orders(now);
            self.step(now);
        }
    }

    fn now(&self) -> Moment {
        Moment::after_start(self.surroundings.started.elapsed())
    }

    fn wakes_at(&self) -> Option<tokio::time::Instant> {
        let change = self.changes.first().map(|(at, _)| *at);
        let by_health = self.health.wakes_at().map(since_start);
        let wakes = change.into_iter().chain(by_health).min()?;
        Some((self.surroundings.started + wakes).into())
    }

    /// A probe that was dropped has nothing to say; the roster times out one that is a defect.
    fn done(&mut self, done: Option<(ProbeId, Outcome)>) {
        let Some((probe, outcome)) = done else { return };
        self.running.remove(&probe);
        let counts = &self.surroundings.counts;
        let count = if matches!(outcome, Outcome::Pass { .. }) { &counts.passed } else { &counts.failed };
        count.fetch_add(1, Ordering::Relaxed);
        self.health.report(self.now(), probe, outcome);
    }

    fn hear(&mut self, heard: Heard) {
        let now = self.now();
        match heard {
            Heard::News(wire) => {
                for news in share::news(&wire, now) {
                    self.health.hear(now, news);
                }
            }
            Heard::Stream(said) => {
                self.health.reconnect(now);
                self.say_again();
                // The stream may be gone by now.
                let _ = said.send(());
            }
        }
    }

    /// Each backend that takes no requests, for a controller that knows nothing of it.
    fn say_again(&self) {
        for (number, charge) in &self.sets {
            let Some(set) = charge.set.upgrade() else { continue };
            let known = self.health.set(*number).into_iter().flat_map(health::SetHealth::standings);
            for (backend, _) in known.filter(|(_, standing)| !standing.is_available) {
                let why = charge.down.get(backend).cloned().unwrap_or_default();
                self.surroundings.exchange.say_backend(&set.name, backend, Some(why));
            }
        }
    }

    fn follow_orders(&mut self, now: Moment) {
        for (number, order) in self.surroundings.orders.take() {
            match order {
                Order::Keep { set, plan } => {
                    let Some(kept) = set.upgrade() else { continue };
                    let members = kept.members();
                    let backends = members.backends().iter();
                    let backends = backends.map(|backend| (Arc::clone(&backend.id), backend.address));
                    self.health.replace_set(now, number, plan, backends);
                    self.keep(number, &kept);
                    // Whatever health makes of it: the members may have come without what is known of them.
                    self.put_in_force(now, number);
                }
                Order::Forget => {
                    self.health.remove_set(now, number);
                    self.change_at(number, None);
                    if let Some(charge) = self.sets.remove(&number) {
                        self.hand_over(&charge.name, charge.down);
                    }
                }
            }
        }
    }

    /// What was said of backends that left the set is taken back.
    fn keep(&mut self, number: u64, set: &Arc<BackendSet>) {
        let before = self.sets.get_mut(&number).map(|charge| std::mem::take(&mut charge.down));
        let next_change = self.sets.get(&number).and_then(|charge| charge.next_change);
        let (name, down) = (Arc::clone(&set.name), BTreeMap::new());
        self.sets.insert(number, Charge { set: Arc::downgrade(set), name, next_change, down });
        self.hand_over(&set.name, before.unwrap_or_default());
    }

    /// What was said of backends of a set goes on under another set of that name which knows them as unavailable: the
    /// same one with other members, or the one that took its place. All else is taken back.
    fn hand_over(&mut self, set: &Arc<str>, down: BTreeMap<Arc<str>, String>) {
        for (backend, why) in down {
            let is_down = |number: &u64| {
                let standing = self.health.set(*number).and_then(|known| known.standing(&backend));
                standing.is_some_and(|standing| !standing.is_available)
            };
            let heir = self.sets.iter_mut().find(|(number, heir)| heir.name == *set && is_down(number));
            match heir {
                Some((_, heir)) => drop(heir.down.insert(backend, why)),
                None => self.surroundings.exchange.say_backend(set, &backend, None),
            }
        }
    }

    fn change_at(&mut self, number: u64, at: Option<Duration>) {
        let Some(charge) = self.sets.get_mut(&number) else { return };
        if let Some(before) = std::mem::replace(&mut charge.next_change, at) {
            self.changes.remove(&(before, number));
        }
        self.changes.extend(at.map(|at| (at, number)));
    }

    fn step(&mut self, now: Moment) {
        let steps = self.health.step(now);
        for probe in steps.abandon {
            if let Some(running) = self.running.remove(&probe) {
                running.abort();
                self.surroundings.counts.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
        steps.say.into_iter().for_each(|say| self.surroundings.exchange.say(say));
        for start in steps.start {
            let tls = self.tls.clone();
            let running = self.probes.spawn(async move { (start.probe, probe(&start.key, &tls).await) });
            self.running.insert(start.probe, running);
        }
        for (number, SetSteps { changes, is_changed }) in steps.sets {
            if is_changed {
                self.put_in_force(now, number);
            }
            self.say(number, &changes);
        }
        let due = self.changes.iter().take_while(|(at, _)| *at <= since_start(now));
        for number in due.map(|(_, number)| *number).collect::<Vec<_>>() {
            self.put_in_force(now, number);
        }
        let targets = self.health.checks().roster().targets().len() as u64;
        self.surroundings.counts.targets.store(targets, Ordering::Relaxed);
    }

    /// Makes a set's membership anew, of its members as they are now and of what is known of them. One that says that
    /// already stays: it was made with the members, and some are dear to make.
    fn put_in_force(&mut self, now: Moment, number: u64) {
        let Some(set) = self.sets.get(&number).and_then(|charge| charge.set.upgrade()) else { return };
        let Surroundings { place, ids, .. } = &self.surroundings;
        let known = self.health.set(number);
        let standing = |backend: &Backend| {
            let found = known.and_then(|known| known.standing(&backend.id));
            found.map_or(backend.standing, |found| standing(found, &set, now))
        };
        let members = set.members();
        let is_due = members.next_change().is_some_and(|at| at <= since_start(now));
        if is_due || members.backends().iter().any(|backend| standing(backend) != backend.standing) {
            let version = ids.next();
            set.update_members(|members| {
                members.with_standings(version, &set.policy, place, since_start(now), standing)
            });
        }
        let next_change = set.members().next_change();
        self.change_at(number, next_change);
    }

    fn say(&mut self, number: u64, changes: &[health::Change]) {
        let Some(charge) = self.sets.get_mut(&number) else { return };
        let Some(set) = charge.set.upgrade() else { return };
        let Surroundings { counts, exchange, .. } = &self.surroundings;
        for health::Change { backend, event, .. } in changes {
            let set = &set.name;
            match event {
                Event::Up(_) => {
                    counts.ups.fetch_add(1, Ordering::Relaxed);
                    tracing::info!(%set, %backend, "{event}");
                    charge.down.remove(backend);
                    exchange.say_backend(set, backend, None);
                }
                Event::Down(reason) => {
                    counts.downs.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(%set, %backend, "{event}");
                    charge.down.insert(Arc::clone(backend), reason.to_string());
                    exchange.say_backend(set, backend, Some(reason.to_string()));
                }
            }
        }
    }

    fn answer(&self, question: Question) {
        let now = self.now();
        let mut findings = BTreeMap::new();
        for (number, charge) in &self.sets {
            let known = self.health.set(*number).into_iter().flat_map(health::SetHealth::standings);
            for (backend, standing) in known {
                let target = self.health.target(*number, backend);
                let status = target.and_then(|target| self.health.checks().status(target));
                let reason = charge.down.get(backend).filter(|_| !standing.is_available).cloned();
                let finding = Finding { reason, ..Finding::new(standing, status, now) };
                findings.insert((*number, Arc::clone(backend)), finding);
            }
        }
        // Who asked may be gone.
        let _ = question.send(findings);
    }
}

fn since_start(moment: Moment) -> Duration {
    moment.since(Moment::START)
}

/// What a membership needs of a standing. Slow start and the weight that grows back after an ejection are not both
/// applied: each is meant to spare a backend that has just come.
fn standing(found: health::Standing, set: &BackendSet, now: Moment) -> Standing {
    let window = set.policy.eligibility.slow_start.map(|slow| slow.window);
    let is_starting =
        found.available_since.zip(window).is_some_and(|(since, window)| now.since(since) < window);
    Standing {
        is_available: found.is_available,
        weight_permille: if is_starting { 1000 } else { found.weight_permille },
        available_since: found.available_since.filter(|_| window.is_some()).map(since_start),
    }
}

async fn at(moment: Option<tokio::time::Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;

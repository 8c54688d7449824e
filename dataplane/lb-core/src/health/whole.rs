//! All health of a process: its checks, and the sets that they are for.

use super::active::Outcome;
use super::checks::{Checks, Say, Steps, TargetChange};
use super::moment::Moment;
use super::roster::{ProbeId, Start, TargetId, TargetKey};
use super::set::{Member, SetHealth, SetSteps};
use super::settings::{ActiveSettings, Initial, PassiveSettings, Valid};
use super::sharing::{News, ProxyId};
use super::window::Batch;
use crate::balance::{Rng, mix};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

/// How a set's backends are checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SetPlan {
    /// Active checks, if any.
    pub active: Option<Valid<ActiveSettings>>,
    /// Passive checks, if any.
    pub passive: Option<Valid<PassiveSettings>>,
    /// Fewer available backends than this share is a panic; 0 never is, and is the default.
    pub panic_below_permille: u16,
}

/// What is to be done after a step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HealthSteps {
    /// Probes to begin.
    pub start: Vec<Start>,
    /// Probes to drop.
    pub abandon: Vec<ProbeId>,
    /// What to tell the controller.
    pub say: Vec<Say>,
    /// Sets of which something changed, by number, each once.
    pub sets: Vec<(u64, SetSteps)>,
}

#[derive(Debug)]
struct Set {
    health: SetHealth,
    targets: BTreeMap<Arc<str>, TargetId>,
    wakes_at: Option<Moment>,
}

/// All health of a process. One task owns it.
///
/// Inputs are collected; [`Self::step`] says what follows from them, and is to be called after any of them and when
/// [`Self::wakes_at`] says so. Memory is bounded by sets, members, targets and proxies.
#[derive(Debug)]
pub struct Health {
    checks: Checks,
    sets: BTreeMap<u64, Set>,
    /// Which sets a target is for.
    users: BTreeSet<(TargetId, u64)>,
    /// Sets by when they wake.
    agenda: BTreeSet<(Moment, u64)>,
    /// Sets that something happened to since the last step.
    touched: BTreeSet<u64>,
    random: Rng,
}

impl Health {
    /// Of a process that shares its checks with nobody where `me` is `None`; for `probes_at_once_max` see
    /// [`super::PROBES_AT_ONCE_MAX`]. `seed` decides about spread and jitter.
    #[must_use]
    pub fn new(me: Option<ProxyId>, probes_at_once_max: usize, seed: u64) -> Self {
        Self {
            checks: Checks::new(me, probes_at_once_max, seed),
            sets: BTreeMap::new(),
            users: BTreeSet::new(),
            agenda: BTreeSet::new(),
            touched: BTreeSet::new(),
            random: Rng::new(mix(seed)),
        }
    }

    /// A set comes, or has other members or another plan. Who stays keeps what is known of it; but passive checks that
    /// are set otherwise begin anew. A backend that is there twice counts once. O(n log n).
    pub fn replace_set(
        &mut self,
        now: Moment,
        number: u64,
        plan: SetPlan,
        backends: impl IntoIterator<Item = (Arc<str>, SocketAddr)>,
    ) {
        let mut targets = BTreeMap::new();
        let mut members = BTreeMap::new();
        for (backend, address) in backends {
            if members.contains_key(&backend) {
                continue;
            }
            let key = plan.active.clone().map(|settings| TargetKey::new(address, settings));
            let target = key.map(|key| self.checks.add(now, key));
            targets.extend(target.map(|target| (Arc::clone(&backend), target)));
            let state = target.and_then(|id| self.checks.status(id)).map(|status| status.state);
            let initial = plan.active.as_ref().map_or(Initial::Up, |settings| settings.initial);
            let state = state.unwrap_or(super::State::Unknown);
            members.insert(Arc::clone(&backend), Member { backend, target, state, initial });
        }
        let (mut health, old_targets, wakes_at) = match self.sets.remove(&number) {
            Some(set) => (set.health, set.targets, set.wakes_at),
            None => (SetHealth::new(None, 0, self.random.bits()), BTreeMap::new(), None),
        };
        health.replace_settings(now, plan.passive, plan.panic_below_permille);
        health.replace_members(now, members.into_values().collect());
        self.users.extend(targets.values().map(|target| (*target, number)));
        self.let_go(now, number, old_targets, &targets);
        self.sets.insert(number, Set { health, targets, wakes_at });
        self.touched.insert(number);
    }

    /// A set is gone, and with it the checks that only it asked for.
    pub fn remove_set(&mut self, now: Moment, number: u64) {
        let Some(set) = self.sets.remove(&number) else { return };
        set.wakes_at.map(|at| self.agenda.remove(&(at, number)));
        self.touched.remove(&number);
        self.let_go(now, number, set.targets, &BTreeMap::new());
    }

    /// The result of a probe.
    pub fn report(&mut self, now: Moment, probe: ProbeId, outcome: Outcome) {
        self.checks.report(now, probe, outcome);
    }

    /// News from the controller.
    pub fn hear(&mut self, now: Moment, news: News) {
        self.checks.hear(now, news);
    }

    /// The stream to the controller is a new one: see [`Checks::reconnect`].
    pub fn reconnect(&mut self, now: Moment) {
        self.checks.reconnect(now);
    }

    /// What happened to requests on a backend of a set since the last batch. O(log n).
    pub fn observe(&mut self, now: Moment, number: u64, backend: &str, batch: &Batch) {
        if let Some(set) = self.sets.get_mut(&number) {
            set.health.observe(now, backend, batch);
            self.touched.insert(number);
        }
    }

    /// When [`Self::step`] has something to do by itself.
    #[must_use]
    pub fn wakes_at(&self) -> Option<Moment> {
        let set = self.agenda.first().map(|(at, _)| *at);
        self.checks.wakes_at().into_iter().chain(set).min()
    }

    /// What is to be done now. Costs what changed and what is due.
    pub fn step(&mut self, now: Moment) -> HealthSteps {
        let Steps { start, abandon, changes, say } = self.checks.step(now);
        for change in &changes {
            self.turn(now, change);
        }
        let due = self.agenda.iter().take_while(|(at, _)| *at <= now);
        self.touched.extend(due.map(|(_, number)| *number));
        let mut sets = Vec::new();
        for number in std::mem::take(&mut self.touched) {
            let Some(set) = self.sets.get_mut(&number) else { continue };
            let steps = set.health.step(now);
            if steps.is_changed || !steps.changes.is_empty() {
                sets.push((number, steps));
            }
            let wakes_at = set.health.wakes_at();
            if set.wakes_at != wakes_at {
                set.wakes_at.map(|at| self.agenda.remove(&(at, number)));
                self.agenda.extend(wakes_at.map(|at| (at, number)));
                set.wakes_at = wakes_at;
            }
        }
        HealthSteps { start, abandon, say, sets }
    }

    /// Active checks, for status.
    #[must_use]
    pub fn checks(&self) -> &Checks {
        &self.checks
    }

    /// Standings of a set.
    #[must_use]
    pub fn set(&self, number: u64) -> Option<&SetHealth> {
        self.sets.get(&number).map(|set| &set.health)
    }

    /// What is checked for a backend of a set.
    #[must_use]
    pub fn target(&self, number: u64, backend: &str) -> Option<TargetId> {
        self.sets.get(&number)?.targets.get(backend).copied()
    }

    fn turn(&mut self, now: Moment, change: &TargetChange) {
        let users = self.users.range((change.target, 0)..=(change.target, u64::MAX));
        for (_, number) in users {
            if let Some(set) = self.sets.get_mut(number) {
                set.health.turn(now, change);
                self.touched.insert(*number);
            }
        }
    }

    /// Gives back the uses that a set had, once those that it has now are counted.
    fn let_go(
        &mut self,
        now: Moment,
        number: u64,
        old: BTreeMap<Arc<str>, TargetId>,
        new: &BTreeMap<Arc<str>, TargetId>,
    ) {
        let kept: BTreeSet<TargetId> = new.values().copied().collect();
        for target in old.into_values() {
            if !kept.contains(&target) {
                self.users.remove(&(target, number));
            }
            self.checks.release(now, target);
        }
    }
}

#[cfg(test)]
mod tests;

//! Health of one backend set: active and passive checks together say which of its backends take requests, and how many.
//!
//! A backend is available when active checks do not say Down and it is not ejected. Ejection is a guess, so it is held
//! within bounds that the whole set gives: at most a share of it is ejected, and an ejected backend comes back before its
//! time when too few others are available. That a backend is Down is no guess; nothing holds it.

use super::active::{Reason, State};
use super::checks::TargetChange;
use super::moment::Moment;
use super::passive::{Cause, Ejection, Passive, WEIGHT_FULL};
use super::roster::TargetId;
use super::settings::{Initial, PassiveSettings, Valid};
use super::window::Batch;
use crate::balance::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How often weights are set anew.
pub const WEIGH_EVERY: Duration = Duration::from_secs(1);
/// Latencies are compared only where so many backends of the set have one.
pub const MEDIAN_OF_MIN: usize = 3;

/// What a picker has to know of a backend's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Whether it takes new requests.
    pub is_available: bool,
    /// Part of its own weight, 1 to 1000 thousandths.
    pub weight_permille: u16,
    /// Since when it takes them; `None` while it does not.
    pub available_since: Option<Moment>,
}

/// A backend that began or ceased to take requests. For each backend Up and Down alternate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which, within the set.
    pub backend: Arc<str>,
    /// What happened to it.
    pub event: Event,
    /// When.
    pub at: Moment,
}

/// What happened to a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It takes requests.
    Up(UpReason),
    /// It takes none.
    Down(DownReason),
}

/// Why a backend takes requests again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpReason {
    /// Its checks pass.
    ChecksPass,
    /// Nobody checks it any more.
    Unchecked,
    /// Its ejection is over.
    EjectionOver,
    /// Its ejection was ended early: too few others are there.
    Needed,
}

/// Why a backend takes none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DownReason {
    /// Its checks fail; the last failure, where it is known.
    ChecksFail(Option<Reason>),
    /// Its requests fail.
    Ejected(Cause),
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up(UpReason::ChecksPass) => f.write_str("backend up: checks pass"),
            Self::Up(UpReason::Unchecked) => f.write_str("backend up: it is not checked any more"),
            Self::Up(UpReason::EjectionOver) => f.write_str("backend up: its ejection is over"),
            Self::Up(UpReason::Needed) => f.write_str("backend up: too few others are available"),
            Self::Down(reason) => write!(f, "backend down: {reason}"),
        }
    }
}

impl fmt::Display for DownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ChecksFail(Some(reason)) => write!(f, "checks fail: {reason}"),
            Self::ChecksFail(None) => f.write_str("checks fail"),
            Self::Ejected(cause) => write!(f, "ejected: {cause}"),
        }
    }
}

/// A backend as the set's membership has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its id within the set.
    pub backend: Arc<str>,
    /// What is checked for it; `None` is nothing.
    pub target: Option<TargetId>,
    /// What the checks say now.
    pub state: State,
    /// What it counts as while that is Unknown.
    pub initial: Initial,
}

/// What came of a step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SetSteps {
    /// Events, in order.
    pub changes: Vec<Change>,
    /// Whether any [`Standing`] is another than at the last step, so that a membership is to be made.
    pub is_changed: bool,
}

#[derive(Debug)]
struct Known {
    target: Option<TargetId>,
    initial: Initial,
    state: State,
    reason: Option<Reason>,
    passive: Option<Passive>,
    standing: Standing,
}

/// Health of one backend set.
///
/// Inputs are collected; [`Self::step`] says what follows from them, and is to be called after any of them and when
/// [`Self::wakes_at`] says so. Memory is bounded by the set's members.
#[derive(Debug)]
pub struct SetHealth {
    passive: Option<Valid<PassiveSettings>>,
    /// Fewer available than this share of the set is a panic; 0 never is.
    panic_below_permille: u16,
    members: BTreeMap<Arc<str>, Known>,
    /// Members by what is checked for them.
    checked: BTreeSet<(TargetId, Arc<str>)>,
    /// Ejected members by when that ends.
    ejected: BTreeSet<(Moment, Arc<str>)>,
    available: usize,
    weighs_at: Moment,
    random: Rng,
    pending: SetSteps,
}

impl SetHealth {
    /// A set without members. Where `panic_below_permille` is more than 0, [`Self::is_panicking`] may be; `seed` decides
    /// about jitter.
    #[must_use]
    pub fn new(passive: Option<Valid<PassiveSettings>>, panic_below_permille: u16, seed: u64) -> Self {
        Self {
            passive,
            panic_below_permille,
            members: BTreeMap::new(),
            checked: BTreeSet::new(),
            ejected: BTreeSet::new(),
            available: 0,
            weighs_at: Moment::START,
            random: Rng::new(seed),
            pending: SetSteps::default(),
        }
    }

    /// Other settings. Where passive checks are set otherwise they begin anew, and who was ejected comes back.
    pub fn replace_settings(
        &mut self,
        now: Moment,
        passive: Option<Valid<PassiveSettings>>,
        panic_below_permille: u16,
    ) {
        self.panic_below_permille = panic_below_permille;
        if self.passive == passive {
            return;
        }
        self.passive = passive;
        self.ejected.clear();
        for known in self.members.values_mut() {
            known.passive = self.passive.clone().map(Passive::new);
        }
        self.refresh_all(now, UpReason::EjectionOver);
    }

    /// Takes over who is in the set; what is known of those that stay, stays. O(n log n).
    ///
    /// A backend that gets other checks keeps its state until the new ones have a result of their own: to change how it
    /// is checked does not bring a dead backend back.
    pub fn replace_members(&mut self, now: Moment, members: Vec<Member>) {
        let mut old = std::mem::take(&mut self.members);
        self.checked.clear();
        for Member { backend, target, state, initial } in members {
            self.checked.extend(target.map(|target| (target, Arc::clone(&backend))));
            let known = match old.remove(&backend) {
                Some(known) => {
                    let state = if target.is_some() && state == State::Unknown { known.state } else { state };
                    Known { target, initial, state, ..known }
                }
                None => {
                    self.pending.is_changed = true;
                    let passive = self.passive.clone().map(Passive::new);
                    Known::new(target, state, initial, passive, now)
                }
            };
            self.members.insert(backend, known);
        }
        self.pending.is_changed |= !old.is_empty();
        self.ejected.retain(|(_, backend)| self.members.contains_key(backend));
        self.available = self.members.values().filter(|known| known.standing.is_available).count();
        self.refresh_all(now, UpReason::ChecksPass);
    }

    /// Active checks have another state for a target. Costs the members that it is checked for.
    pub fn turn(&mut self, now: Moment, change: &TargetChange) {
        let from = (change.target, Arc::<str>::from(""));
        let here = self.checked.range(from..).take_while(|(target, _)| *target == change.target);
        let backends: Vec<Arc<str>> = here.map(|(_, backend)| Arc::clone(backend)).collect();
        for backend in backends {
            if let Some(known) = self.members.get_mut(&backend) {
                known.state = change.state;
                known.reason = change.reason;
                if let Some(passive) = known.passive.as_mut().filter(|_| change.state == State::Up) {
                    passive.forget();
                }
            }
            self.refresh(now, &backend, UpReason::ChecksPass);
        }
    }

    /// What happened to requests on a backend since the last batch. O(log n).
    ///
    /// A backend that is Down is not judged: what still ends there began before.
    pub fn observe(&mut self, now: Moment, backend: &str, batch: &Batch) {
        let Some((backend, known)) = self.members.get_key_value(backend) else { return };
        let backend = Arc::clone(backend);
        if !known.is_up() {
            return;
        }
        let Some(cause) = self.passive_of(&backend).and_then(|passive| passive.observe(now, batch)) else {
            return;
        };
        if self.may_eject() {
            let random = self.random.bits();
            if let Some(passive) = self.passive_of(&backend) {
                passive.eject(now, cause, random);
                if let Ejection::Out { until, .. } = passive.ejection() {
                    self.ejected.insert((until, Arc::clone(&backend)));
                }
            }
            self.refresh(now, &backend, UpReason::ChecksPass);
        }
    }

    /// When [`Self::step`] has something to do by itself.
    #[must_use]
    pub fn wakes_at(&self) -> Option<Moment> {
        let weighs = self.passive.is_some().then_some(self.weighs_at);
        self.ejected.first().map(|(until, _)| *until).into_iter().chain(weighs).min()
    }

    /// Ends ejections, keeps their bounds, sets weights anew once a second, and says what changed. O(log n) for each
    /// ejection that ends; O(n) once a second where there are passive checks.
    pub fn step(&mut self, now: Moment) -> SetSteps {
        while let Some((_, backend)) = self.ejected.first().filter(|(until, _)| *until <= now).cloned() {
            self.restore(now, &backend, UpReason::EjectionOver);
        }
        self.keep_bounds(now);
        if self.passive.is_some() && self.weighs_at <= now {
            self.weighs_at = now + WEIGH_EVERY;
            self.weigh(now);
        }
        std::mem::take(&mut self.pending)
    }

    /// A backend's standing.
    #[must_use]
    pub fn standing(&self, backend: &str) -> Option<Standing> {
        self.members.get(backend).map(|known| known.standing)
    }

    /// All backends' standings, by id.
    pub fn standings(&self) -> impl ExactSizeIterator<Item = (&Arc<str>, Standing)> {
        self.members.iter().map(|(backend, known)| (backend, known.standing))
    }

    /// Backends that are available.
    #[must_use]
    pub fn available(&self) -> usize {
        self.available
    }

    /// Backends that are ejected, Down or not.
    #[must_use]
    pub fn ejected(&self) -> usize {
        self.ejected.len()
    }

    /// Whether so few are available that what is wrong is more likely the checks, or that those few would break down:
    /// requests should then go to all (Envoy's panic threshold).
    #[must_use]
    pub fn is_panicking(&self) -> bool {
        self.available * 1000 < self.members.len() * usize::from(self.panic_below_permille)
    }

    fn passive_of(&mut self, backend: &str) -> Option<&mut Passive> {
        self.members.get_mut(backend)?.passive.as_mut()
    }

    /// Whether one that is available may be ejected.
    fn may_eject(&self) -> bool {
        let Some(settings) = &self.passive else { return false };
        let available_min = usize::try_from(settings.available_min).unwrap_or(usize::MAX);
        self.ejected.len() < settings.ejected_max(self.members.len()) && self.available > available_min
    }

    /// Ends ejections early where members left or others went Down, those that have the least time left first.
    fn keep_bounds(&mut self, now: Moment) {
        let Some(settings) = self.passive.clone() else { return };
        while self.ejected.len() > settings.ejected_max(self.members.len()) {
            let Some((_, backend)) = self.ejected.first().cloned() else { break };
            self.restore(now, &backend, UpReason::Needed);
        }
        let available_min = usize::try_from(settings.available_min).unwrap_or(usize::MAX);
        while self.available < available_min {
            let is_up = |backend: &str| self.members.get(backend).is_some_and(Known::is_up);
            let Some((_, backend)) = self.ejected.iter().find(|(_, id)| is_up(id)).cloned() else { break };
            self.restore(now, &backend, UpReason::Needed);
        }
    }

    fn restore(&mut self, now: Moment, backend: &Arc<str>, reason: UpReason) {
        if let Some(passive) = self.passive_of(backend)
            && let Ejection::Out { until, .. } = passive.ejection()
        {
            passive.restore(now);
            self.ejected.remove(&(until, Arc::clone(backend)));
        }
        self.refresh(now, backend, reason);
    }

    fn weigh(&mut self, now: Moment) {
        let available = self.members.values_mut().filter(|known| known.standing.is_available);
        let mut means: Vec<Duration> =
            available.filter_map(|known| known.passive.as_mut()?.mean_latency(now)).collect();
        let median = (means.len() >= MEDIAN_OF_MIN).then(|| {
            // Of an even number, the lower of the two in the middle.
            let middle = (means.len() - 1) / 2;
            *means.select_nth_unstable(middle).1
        });
        for known in self.members.values_mut() {
            let Some(passive) = known.passive.as_mut() else { continue };
            passive.weigh(now, median);
            let weight_permille = passive.weight_permille();
            self.pending.is_changed |= known.standing.weight_permille != weight_permille;
            known.standing.weight_permille = weight_permille;
        }
    }

    fn refresh_all(&mut self, now: Moment, up: UpReason) {
        let backends: Vec<Arc<str>> = self.members.keys().cloned().collect();
        for backend in backends {
            self.refresh(now, &backend, up);
        }
    }

    /// The one place where a standing's availability changes. `up` is why, where it comes to be available and its checks
    /// did not do that.
    fn refresh(&mut self, now: Moment, backend: &Arc<str>, up: UpReason) {
        let Some(known) = self.members.get_mut(backend) else { return };
        let weight_permille = known.passive.as_ref().map_or(WEIGHT_FULL, Passive::weight_permille);
        self.pending.is_changed |= known.standing.weight_permille != weight_permille;
        known.standing.weight_permille = weight_permille;
        let obstacle = known.obstacle();
        if obstacle.is_none() == known.standing.is_available {
            return;
        }
        let event = match obstacle {
            Some(obstacle) => {
                self.available -= 1;
                known.standing.available_since = None;
                Event::Down(obstacle)
            }
            None => {
                self.available += 1;
                known.standing.available_since = Some(now);
                let is_unchecked = known.target.is_none() && up == UpReason::ChecksPass;
                Event::Up(if is_unchecked { UpReason::Unchecked } else { up })
            }
        };
        known.standing.is_available = obstacle.is_none();
        self.pending.is_changed = true;
        self.pending.changes.push(Change { backend: Arc::clone(backend), event, at: now });
    }
}

impl Known {
    fn new(
        target: Option<TargetId>,
        state: State,
        initial: Initial,
        passive: Option<Passive>,
        now: Moment,
    ) -> Self {
        let standing =
            Standing { is_available: true, weight_permille: WEIGHT_FULL, available_since: Some(now) };
        let mut known = Self { target, initial, state, reason: None, passive, standing };
        if !known.is_up() {
            known.standing.is_available = false;
            known.standing.available_since = None;
        }
        known
    }

    /// What active checks come to.
    fn is_up(&self) -> bool {
        match (self.target, self.state) {
            (None, _) | (_, State::Up) => true,
            (_, State::Down) => false,
            (_, State::Unknown) => self.initial == Initial::Up,
        }
    }

    /// Why it is not available.
    fn obstacle(&self) -> Option<DownReason> {
        if !self.is_up() {
            return Some(DownReason::ChecksFail(self.reason));
        }
        match self.passive.as_ref()?.ejection() {
            Ejection::In => None,
            Ejection::Out { cause, .. } => Some(DownReason::Ejected(cause)),
        }
    }
}

#[cfg(test)]
mod tests;

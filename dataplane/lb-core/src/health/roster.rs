//! All targets of a process: each is checked once, however many backend sets and pools use it.
//!
//! The roster says which probes begin and which are given up; the caller does them. A probe that never reports is timed
//! out here, so a caller needs no timers of its own. What arrived should be reported before time moves on: after a stall
//! of the process, results that wait to be read then still count.

use super::active::{Checker, Outcome, Phase, Probe, Reason, State, Transition};
use super::moment::Moment;
use super::random::stable_hash;
use super::settings::{ActiveSettings, Valid};
use crate::balance::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Probes on their way at once, unless the caller says otherwise. Each is a socket and a small task; with a time-out of
/// a second it lets 512 frozen targets be checked each second before checks of others come late.
pub const PROBES_AT_ONCE_MAX: usize = 512;

/// What is checked: where, and how. Two sets with equal keys share one check.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TargetKey {
    address: SocketAddr,
    settings: Valid<ActiveSettings>,
}

impl TargetKey {
    /// The target of a backend that listens at `backend`. A port of the check's own takes the place of the backend's, so
    /// backends of one address that differ in nothing else share it.
    #[must_use]
    pub fn new(mut backend: SocketAddr, settings: Valid<ActiveSettings>) -> Self {
        if let Some(port) = settings.port {
            backend.set_port(port.get());
        }
        Self { address: backend, settings: settings.without_port() }
    }

    /// Where probes go.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How it is checked.
    #[must_use]
    pub fn settings(&self) -> &Valid<ActiveSettings> {
        &self.settings
    }

    /// The same in every process. Costs one pass over the settings.
    #[must_use]
    pub fn id(&self) -> TargetId {
        let mut bytes = Vec::with_capacity(256);
        match self.address.ip() {
            IpAddr::V4(ip) => bytes.extend_from_slice(&ip.octets()),
            IpAddr::V6(ip) => bytes.extend_from_slice(&ip.octets()),
        }
        bytes.extend_from_slice(&self.address.port().to_le_bytes());
        self.settings.encode(&mut bytes);
        TargetId(stable_hash(&bytes))
    }
}

/// A target in 64 bits, equal in every process; [`TargetKey::id`] makes it.
///
/// Good for sharing work, and no proof: who may choose settings can look for two keys with one id. Whoever passes ids
/// between processes passes them only where the target itself may be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetId(pub u64);

/// One probe; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProbeId {
    /// Of what.
    pub target: TargetId,
    number: u64,
}

/// A probe that begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// To report with.
    pub probe: ProbeId,
    /// What to probe.
    pub key: TargetKey,
}

/// A target whose state changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turned {
    /// Which.
    pub target: TargetId,
    /// How.
    pub transition: Transition,
}

/// What the caller is to do at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tick {
    /// Probes to begin.
    pub start: Vec<Start>,
    /// Probes to drop: their time is over.
    pub abandon: Vec<ProbeId>,
    /// States that changed because of those.
    pub turned: Vec<Turned>,
}

#[derive(Debug)]
struct Entry {
    key: TargetKey,
    uses: usize,
    checker: Checker,
    /// The number of the last probe that began.
    probe: u64,
}

/// All targets of a process. Memory is bounded by the targets that are in use.
#[derive(Debug)]
pub struct Roster {
    targets: BTreeMap<TargetId, Entry>,
    /// Every target that waits, by when its next probe is due.
    waiting: BTreeSet<(Moment, TargetId)>,
    /// Every target that is being probed, by when that is given up.
    probing: BTreeSet<(Moment, TargetId)>,
    probes_at_once_max: usize,
    last_probe: u64,
    random: Rng,
}

impl Roster {
    /// An empty roster. `probes_at_once_max` of 0 counts as 1; `seed` decides how probes are spread.
    #[must_use]
    pub fn new(probes_at_once_max: usize, seed: u64) -> Self {
        Self {
            targets: BTreeMap::new(),
            waiting: BTreeSet::new(),
            probing: BTreeSet::new(),
            probes_at_once_max: probes_at_once_max.max(1),
            last_probe: 0,
            random: Rng::new(seed),
        }
    }

    /// One more use of a target; the first brings it in, idle or waiting for its first probe. To be released by the id
    /// that this returns. O(log n).
    pub fn add(&mut self, now: Moment, key: TargetKey, begin: Begin) -> TargetId {
        let mut id = key.id();
        while let Some(entry) = self.targets.get_mut(&id) {
            if entry.key == key {
                entry.uses += 1;
                return id;
            }
            // Two keys with one id: the later takes the next, so that neither gets the other's results.
            id = TargetId(id.0.wrapping_add(1));
        }
        let mut checker = Checker::new(key.settings.clone(), now, self.random.bits());
        if begin == Begin::Idle {
            checker.pause();
        }
        self.targets.insert(id, Entry { key, uses: 1, checker, probe: 0 });
        self.enlist(id);
        id
    }

    /// One use less; with the last the target is gone. The probe that is on its way then, if any, is to be dropped.
    /// O(log n).
    pub fn release(&mut self, id: TargetId) -> Released {
        let Some(entry) = self.targets.get_mut(&id) else { return Released::Gone { abandon: None } };
        entry.uses -= 1;
        if entry.uses > 0 {
            return Released::Kept;
        }
        self.delist(id);
        let entry = self.targets.remove(&id).expect("it was there a line ago");
        Released::Gone { abandon: entry.probe_in_flight(id) }
    }

    /// Checks a target that was idle, beginning in `state`.
    pub fn resume(&mut self, now: Moment, id: TargetId, state: State) {
        let random = self.random.bits();
        let is_idle = |entry: &Entry| entry.checker.phase() == Phase::Idle;
        if self.targets.get(&id).is_some_and(is_idle) {
            self.change(id, |entry| entry.checker.resume(now, state, random));
        }
    }

    /// Takes over what others found of a target that has no state yet: see [`Checker::adopt`].
    pub fn adopt(&mut self, id: TargetId, state: State) {
        self.change(id, |entry| entry.checker.adopt(state));
    }

    /// Checks a target no more, though it stays in use. The probe that is on its way then is to be dropped.
    pub fn pause(&mut self, id: TargetId) -> Option<ProbeId> {
        self.change(id, |entry| {
            let probe = entry.probe_in_flight(id);
            entry.checker.pause();
            probe
        })?
    }

    /// When [`Self::tick`] has something to do. O(log n).
    #[must_use]
    pub fn wakes_at(&self) -> Option<Moment> {
        let gives_up = self.probing.first().map(|(at, _)| *at);
        let begins = self.waiting.first().map(|(at, _)| *at);
        let begins = begins.filter(|_| self.probing.len() < self.probes_at_once_max);
        gives_up.into_iter().chain(begins).min()
    }

    /// Gives up probes whose time is over, then begins those that are due, the longest due first, as far as the limit
    /// allows. O(log n) each.
    pub fn tick(&mut self, now: Moment) -> Tick {
        let mut tick = Tick::default();
        while let Some((_, id)) = self.probing.first().copied().filter(|(at, _)| *at <= now) {
            tick.abandon.extend(self.targets.get(&id).and_then(|entry| entry.probe_in_flight(id)));
            let outcome = Outcome::Fail { reason: Reason::TimedOut };
            tick.turned.extend(self.finish(id, Probe { outcome, at: now }));
        }
        while self.probing.len() < self.probes_at_once_max {
            let Some((_, id)) = self.waiting.first().copied().filter(|(at, _)| *at <= now) else { break };
            self.last_probe += 1;
            let number = self.last_probe;
            let start = self.change(id, |entry| {
                entry.checker.begin(now);
                entry.probe = number;
                Start { probe: ProbeId { target: id, number }, key: entry.key.clone() }
            });
            tick.start.extend(start);
        }
        tick
    }

    /// The result of a probe. One that was given up, or whose target is gone or paused, counts no more.
    pub fn report(&mut self, now: Moment, probe: ProbeId, outcome: Outcome) -> Option<Turned> {
        let entry = self.targets.get(&probe.target)?;
        if entry.probe_in_flight(probe.target) != Some(probe) {
            return None;
        }
        self.finish(probe.target, Probe { outcome, at: now })
    }

    /// A target's checker, with its state and its last result.
    #[must_use]
    pub fn checker(&self, id: TargetId) -> Option<&Checker> {
        self.targets.get(&id).map(|entry| &entry.checker)
    }

    /// Every target, by id.
    pub fn targets(&self) -> impl ExactSizeIterator<Item = (TargetId, &TargetKey)> {
        self.targets.iter().map(|(id, entry)| (*id, &entry.key))
    }

    /// Probes on their way.
    #[must_use]
    pub fn probes_in_flight(&self) -> usize {
        self.probing.len()
    }

    /// How long the next probe has been due: more than nothing for longer than a moment means that the limit, or the
    /// caller, does not keep up.
    #[must_use]
    pub fn overdue(&self, now: Moment) -> Duration {
        self.waiting.first().map_or(Duration::ZERO, |(due, _)| now.since(*due))
    }

    fn finish(&mut self, id: TargetId, probe: Probe) -> Option<Turned> {
        let random = self.random.bits();
        let transition = self.change(id, |entry| entry.checker.finish(probe, random))??;
        Some(Turned { target: id, transition })
    }

    /// The one place where a checker changes: its place among those that wait or are probed changes with it.
    fn change<R>(&mut self, id: TargetId, change: impl FnOnce(&mut Entry) -> R) -> Option<R> {
        self.delist(id);
        let result = self.targets.get_mut(&id).map(change);
        self.enlist(id);
        result
    }

    fn delist(&mut self, id: TargetId) {
        if let Some(at) = self.targets.get(&id).and_then(|entry| entry.checker.wakes_at()) {
            self.waiting.remove(&(at, id));
            self.probing.remove(&(at, id));
        }
    }

    fn enlist(&mut self, id: TargetId) {
        let Some(entry) = self.targets.get(&id) else { return };
        let Some(at) = entry.checker.wakes_at() else { return };
        match entry.checker.phase() {
            Phase::Idle => false,
            Phase::Waiting { .. } => self.waiting.insert((at, id)),
            Phase::Probing { .. } => self.probing.insert((at, id)),
        };
    }
}

impl Entry {
    fn probe_in_flight(&self, target: TargetId) -> Option<ProbeId> {
        let is_probing = matches!(self.checker.phase(), Phase::Probing { .. });
        is_probing.then_some(ProbeId { target, number: self.probe })
    }
}

/// What a new target does first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// It is checked.
    Checked,
    /// It waits for what other proxies say.
    Idle,
}

/// What became of a target with one use less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Released {
    /// Others use it.
    Kept,
    /// It is gone.
    Gone {
        /// Its probe, to be dropped.
        abandon: Option<ProbeId>,
    },
}

#[cfg(test)]
mod tests;

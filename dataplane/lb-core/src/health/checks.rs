//! Active checks of a process: what it probes itself, and what it hears of others, come to one state for each target.

use super::active::{Outcome, Phase, Probe, Reason, State};
use super::moment::Moment;
use super::roster::{Begin, ProbeId, Released, Roster, Start, TargetId, TargetKey};
use super::sharing::{ALIVE_EVERY, Duty, News, ProxyId, REPEAT_EVERY, Remote, Sharing};
use std::collections::BTreeMap;
use std::time::Duration;

/// How often duties are looked through, so how late the age of a report is seen.
pub const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What is to be done after a step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Steps {
    /// Probes to begin.
    pub start: Vec<Start>,
    /// Probes to drop.
    pub abandon: Vec<ProbeId>,
    /// Targets whose state changed, in order.
    pub changes: Vec<TargetChange>,
    /// What to tell the controller, in order; empty without sharing.
    pub say: Vec<Say>,
}

/// A target whose state changed, by whatever was learnt of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TargetChange {
    /// Which.
    pub target: TargetId,
    /// The state since.
    pub state: State,
    /// Of the last failure, where it is Down.
    pub reason: Option<Reason>,
    /// When.
    pub at: Moment,
}

/// A word to the controller, which passes it on to the other proxies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Say {
    /// For the others, [`News::Report`].
    Report(Remote),
    /// For the others, [`News::Alive`].
    Alive,
}

/// What is known of a target, for who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// The state that counts here.
    pub state: State,
    /// Since when; `None` while Unknown.
    pub since: Option<Moment>,
    /// Of the failure that turned it Down.
    pub reason: Option<Reason>,
    /// The last result of a probe of this process, however old.
    pub last: Option<Probe>,
    /// Whether this process checks it.
    pub is_checked_here: bool,
}

#[derive(Debug, Clone, Copy)]
struct Found {
    state: State,
    since: Option<Moment>,
    reason: Option<Reason>,
    /// What the others were told last, and when.
    said: Option<(State, Moment)>,
}

/// Active checks of a process.
///
/// Inputs are collected; [`Self::step`] says what follows from them, and is to be called after any of them and when
/// [`Self::wakes_at`] says so. Memory is bounded by the targets in use and the proxies.
#[derive(Debug)]
pub struct Checks {
    roster: Roster,
    sharing: Option<Sharing>,
    found: BTreeMap<TargetId, Found>,
    pending: Steps,
    looks_at: Moment,
    alive_at: Moment,
}

impl Checks {
    /// Checks of a process that shares them with nobody where `me` is `None`. For the other two, [`Roster::new`].
    #[must_use]
    pub fn new(me: Option<ProxyId>, probes_at_once_max: usize, seed: u64) -> Self {
        Self {
            roster: Roster::new(probes_at_once_max, seed),
            sharing: me.map(Sharing::new),
            found: BTreeMap::new(),
            pending: Steps::default(),
            looks_at: Moment::START,
            alive_at: Moment::START,
        }
    }

    /// One more use of a target.
    pub fn add(&mut self, now: Moment, key: TargetKey) -> TargetId {
        let begin = if self.sharing.is_some() { Begin::Idle } else { Begin::Checked };
        let id = self.roster.add(now, key, begin);
        let fresh = Found { state: State::Unknown, since: None, reason: None, said: None };
        self.found.entry(id).or_insert(fresh);
        if let Some(sharing) = &mut self.sharing {
            sharing.add(now, id);
        }
        self.settle(now, id);
        id
    }

    /// One use less. With the last, what is known of the target is forgotten, and the others are told.
    pub fn release(&mut self, now: Moment, id: TargetId) {
        let Released::Gone { abandon } = self.roster.release(id) else { return };
        self.pending.abandon.extend(abandon);
        self.take_back(now, id);
        self.found.remove(&id);
        if let Some(sharing) = &mut self.sharing {
            sharing.remove(id);
        }
    }

    /// The result of a probe.
    pub fn report(&mut self, now: Moment, probe: ProbeId, outcome: Outcome) {
        self.roster.report(now, probe, outcome);
        self.settle(now, probe.target);
    }

    /// News from the controller; ignored by who shares nothing.
    pub fn hear(&mut self, now: Moment, news: News) {
        let Some(sharing) = &mut self.sharing else { return };
        let about = match &news {
            News::Report(report) => Some(report.target),
            News::Proxies(_) | News::Gone(_) => {
                self.looks_at = now;
                None
            }
            News::Alive { .. } => None,
        };
        sharing.hear(news);
        if let Some(target) = about {
            self.settle(now, target);
        }
    }

    /// The stream to the controller is a new one, and the controller knows nothing of us: everything is said again.
    pub fn reconnect(&mut self, now: Moment) {
        let Some(sharing) = &mut self.sharing else { return };
        sharing.reconnect(now);
        for found in self.found.values_mut() {
            found.said = None;
        }
        self.pending.say.clear();
        self.looks_at = now;
        self.alive_at = now;
    }

    /// When [`Self::step`] has something to do by itself.
    #[must_use]
    pub fn wakes_at(&self) -> Option<Moment> {
        let look = self.sharing.is_some().then_some(self.looks_at);
        self.roster.wakes_at().into_iter().chain(look).min()
    }

    /// What is to be done now. O(log n) for each probe; where checks are shared, every [`LOOK_EVERY`] O(n).
    pub fn step(&mut self, now: Moment) -> Steps {
        if self.sharing.is_some() && self.looks_at <= now {
            self.looks_at = now + LOOK_EVERY;
            let targets: Vec<TargetId> = self.found.keys().copied().collect();
            for target in targets {
                self.settle(now, target);
            }
            if self.alive_at <= now {
                self.alive_at = now + ALIVE_EVERY;
                self.pending.say.push(Say::Alive);
            }
        }
        let tick = self.roster.tick(now);
        self.pending.start.extend(tick.start);
        for probe in tick.abandon {
            self.settle(now, probe.target);
            self.pending.abandon.push(probe);
        }
        std::mem::take(&mut self.pending)
    }

    /// What is known of a target.
    #[must_use]
    pub fn status(&self, id: TargetId) -> Option<Status> {
        let checker = self.roster.checker(id)?;
        let Found { state, since, reason, .. } = *self.found.get(&id)?;
        let is_checked_here = checker.phase() != Phase::Idle;
        Some(Status { state, since, reason, last: checker.last(), is_checked_here })
    }

    /// The targets, for counts and for who asks.
    #[must_use]
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// Brings one target in line with what is known now: who checks it, its state, what the others were told.
    fn settle(&mut self, now: Moment, id: TargetId) {
        let Some(checker) = self.roster.checker(id) else { return };
        let Some(found) = self.found.get(&id).copied() else { return };
        let is_checked_here = checker.phase() != Phase::Idle;
        match self.sharing.as_ref().map_or(Duty::Check, |sharing| sharing.duty(now, id, is_checked_here)) {
            // What was heard so far holds until our own results say otherwise.
            Duty::Check if !is_checked_here => self.roster.resume(now, id, found.state),
            Duty::Check if checker.state() == State::Unknown => self.adopt(now, id),
            Duty::Check => {
                let (state, is_confirmed) = (checker.state(), checker.is_confirmed());
                let reason = match checker.last().map(|last| last.outcome) {
                    Some(Outcome::Fail { reason }) => Some(reason),
                    _ => found.reason,
                };
                self.turn(now, id, state, reason);
                if is_confirmed {
                    self.say(now, id);
                }
            }
            Duty::Rely(opinion) => {
                self.pending.abandon.extend(self.roster.pause(id));
                self.take_back(now, id);
                self.turn(now, id, opinion.state, opinion.reason);
            }
            Duty::Wait => {}
        }
    }

    fn adopt(&mut self, now: Moment, id: TargetId) {
        let Some(sharing) = &self.sharing else { return };
        if let Some(opinion) = sharing.hearsay(now, id) {
            self.roster.adopt(id, opinion.state);
            self.turn(now, id, opinion.state, opinion.reason);
        }
    }

    fn turn(&mut self, now: Moment, id: TargetId, state: State, reason: Option<Reason>) {
        let Some(found) = self.found.get_mut(&id) else { return };
        if found.state == state {
            return;
        }
        let reason = reason.filter(|_| state == State::Down);
        *found = Found { state, since: Some(now), reason, said: found.said };
        self.pending.changes.push(TargetChange { target: id, state, reason, at: now });
    }

    /// Tells the others of a target where they have not been told, or long ago.
    fn say(&mut self, now: Moment, id: TargetId) {
        let Some(found) = self.found.get_mut(&id) else { return };
        let is_told =
            found.said.is_some_and(|(said, at)| said == found.state && now.since(at) < REPEAT_EVERY);
        if !is_told {
            found.said = Some((found.state, now));
            let Found { state, reason, .. } = *found;
            self.push_report(now, id, state, reason);
        }
    }

    fn take_back(&mut self, now: Moment, id: TargetId) {
        if self.found.get_mut(&id).and_then(|found| found.said.take()).is_some() {
            self.push_report(now, id, State::Unknown, None);
        }
    }

    fn push_report(&mut self, now: Moment, target: TargetId, state: State, reason: Option<Reason>) {
        let Some(sharing) = &self.sharing else { return };
        let report = Remote { proxy: sharing.me(), target, state, reason, at: now };
        self.pending.say.push(Say::Report(report));
    }
}

#[cfg(test)]
mod tests;

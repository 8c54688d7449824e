//! Who checks what, where several proxies serve the same backends.
//!
//! Each target is checked by two proxies, so probes at a backend do not grow with the number of proxies, and the loss of
//! one proxy leaves no target without news. Which two is rendezvous hashing (Thaler and Ravishankar, 1998): everybody
//! computes it alike from the list of proxies, and a proxy that leaves moves only what it checked.
//!
//! Results travel through the controller as [`Remote`]s: at each change, and now and then again, so that one that came
//! too early or was lost is made good. The controller gives who is new to it what the others said last, and when it heard of them. A proxy that is [`News::Alive`] stands by all that it reported; so a report can
//! age quickly without being repeated for each target.
//!
//! Rules of merging:
//! - Who checks a target believes itself. Its own requests take the way that its probes take. Only until its own probes
//!   tell, it begins with what others say: a new proxy sends nothing to a backend that is known to be dead.
//! - Who does not believes that a target is Down only where every fresh report says so. One checker that is cut off
//!   would otherwise take backends away from everybody. To be wrong with Up costs a retry, and passive checks see it;
//!   to be wrong with Down costs capacity.
//! - Without one fresh report a proxy checks for itself. That covers the loss of the controller as well as of both
//!   checkers. It stops when another's fresh report is there, never before.

use super::active::{Reason, State};
use super::moment::Moment;
use super::random::stable_hash;
use super::roster::TargetId;
use crate::balance::mix;
use std::collections::BTreeMap;
use std::time::Duration;

/// Proxies that check one target.
pub const CHECKERS: usize = 2;
/// A report of a proxy that was not heard for this time counts no more; a new target waits this long for a report.
pub const REPORT_AGE_MAX: Duration = Duration::from_secs(3);
/// How often a proxy says that it is alive; the controller passes it on.
pub const ALIVE_EVERY: Duration = Duration::from_secs(1);
/// How often a proxy repeats its reports.
pub const REPEAT_EVERY: Duration = Duration::from_secs(10);
/// Reports kept for one target: its checkers', and those of proxies that are handing over.
pub const REPORTS_PER_TARGET_MAX: usize = 8;
/// Proxies that share checks: those with the lowest ids. The rest only listens, and a change of the list stays cheap.
pub const PROXIES_MAX: usize = 1000;

/// A process of a proxy, not a pod: one that starts again is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProxyId(pub u64);

impl ProxyId {
    /// From a name that is unique for the process, such as the pod's name and the process's start.
    #[must_use]
    pub fn of_name(name: &str) -> Self {
        Self(stable_hash(name.as_bytes()))
    }
}

/// The proxies that check a target, the first choice first. The order of `proxies` does not matter, nor does it if one
/// is there twice. O(proxies).
#[must_use]
pub fn checkers_of(target: TargetId, proxies: &[ProxyId]) -> [Option<ProxyId>; CHECKERS] {
    let mut best: [Option<(u64, ProxyId)>; CHECKERS] = [None; CHECKERS];
    for &proxy in proxies {
        let scored = Some((mix(target.0 ^ mix(proxy.0)), proxy));
        if scored > best[0] {
            best[1] = best[0];
            best[0] = scored;
        } else if scored > best[1] && scored != best[0] {
            best[1] = scored;
        }
    }
    best.map(|scored| scored.map(|(_, proxy)| proxy))
}

/// What another proxy says of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remote {
    /// Who says it.
    pub proxy: ProxyId,
    /// Of what.
    pub target: TargetId,
    /// [`State::Unknown`] takes back what it said before.
    pub state: State,
    /// Of the last failure, where it is Down.
    pub reason: Option<Reason>,
    /// When it said so, in the receiver's time: now less the age with which it arrived.
    pub at: Moment,
}

/// What arrives from the controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// The proxies that share checks now, this one among them.
    Proxies(Vec<ProxyId>),
    /// What one of them says of a target.
    Report(Remote),
    /// One of them stands by what it reported.
    Alive {
        /// Who.
        proxy: ProxyId,
        /// When, in the receiver's time.
        at: Moment,
    },
    /// A proxy's stream ended: what it reported counts no more.
    Gone(ProxyId),
}

/// What a proxy has to do for a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duty {
    /// Check it.
    Check,
    /// Believe the others.
    Rely(Opinion),
    /// Wait for the others' first report; the state stays what it is.
    Wait,
}

/// What all others that were heard say of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opinion {
    /// Up or Down.
    pub state: State,
    /// Of one of those that say Down.
    pub reason: Option<Reason>,
}

/// One proxy's view of who checks what.
#[derive(Debug)]
pub struct Sharing {
    me: ProxyId,
    proxies: Vec<ProxyId>,
    heard: BTreeMap<ProxyId, Moment>,
    targets: BTreeMap<TargetId, Known>,
}

#[derive(Debug)]
struct Known {
    since: Moment,
    is_mine: bool,
    reports: Vec<Remote>,
}

impl Sharing {
    /// A proxy that knows of no other yet: it checks everything.
    #[must_use]
    pub fn new(me: ProxyId) -> Self {
        Self { me, proxies: Vec::new(), heard: BTreeMap::new(), targets: BTreeMap::new() }
    }

    /// This proxy.
    #[must_use]
    pub fn me(&self) -> ProxyId {
        self.me
    }

    /// A target comes into use; reports of others are kept from now on. O(proxies).
    pub fn add(&mut self, now: Moment, target: TargetId) {
        let is_mine = self.is_mine(target);
        self.targets.entry(target).or_insert_with(|| Known { since: now, is_mine, reports: Vec::new() });
    }

    /// A target goes out of use, and what was said of it.
    pub fn remove(&mut self, target: TargetId) {
        self.targets.remove(&target);
    }

    /// The stream to the controller is a new one: what others said over the old one is forgotten, for it is said again,
    /// and each target waits for it as a new one does. O(targets).
    pub fn reconnect(&mut self, now: Moment) {
        self.heard.clear();
        for known in self.targets.values_mut() {
            known.since = now;
            known.reports.clear();
        }
    }

    /// Takes in what arrived. Reports of targets that are not in use are dropped; they are repeated. A list of proxies
    /// costs O(targets × proxies) where it changed, anything else O(log n).
    pub fn hear(&mut self, news: News) {
        match news {
            News::Proxies(proxies) => self.replace_proxies(proxies),
            News::Report(report) => self.keep(report),
            News::Alive { proxy, at } => {
                if proxy != self.me && self.proxies.binary_search(&proxy).is_ok() {
                    let heard = self.heard.entry(proxy).or_insert(at);
                    *heard = at.max(*heard);
                }
            }
            News::Gone(proxy) => {
                self.heard.remove(&proxy);
                for known in self.targets.values_mut() {
                    known.reports.retain(|report| report.proxy != proxy);
                }
            }
        }
    }

    /// What others say of a target that is checked here, to begin with.
    #[must_use]
    pub fn hearsay(&self, now: Moment, target: TargetId) -> Option<Opinion> {
        self.opinion(now, self.targets.get(&target)?)
    }

    /// What is to be done for a target, which is checked here now or not.
    #[must_use]
    pub fn duty(&self, now: Moment, target: TargetId, is_checked_here: bool) -> Duty {
        let Some(known) = self.targets.get(&target) else { return Duty::Check };
        if known.is_mine {
            return Duty::Check;
        }
        match self.opinion(now, known) {
            Some(opinion) => Duty::Rely(opinion),
            None if is_checked_here || now.since(known.since) >= REPORT_AGE_MAX => Duty::Check,
            None => Duty::Wait,
        }
    }

    fn opinion(&self, now: Moment, known: &Known) -> Option<Opinion> {
        let fresh = known.reports.iter().filter(|report| {
            let heard = self.heard.get(&report.proxy).copied().unwrap_or(report.at);
            now.since(heard.max(report.at)) < REPORT_AGE_MAX
        });
        // Up is before Down: one Up is enough.
        let best = fresh.min_by_key(|report| report.state)?;
        Some(Opinion { state: best.state, reason: best.reason })
    }

    fn is_mine(&self, target: TargetId) -> bool {
        is_checked_by(self.me, target, &self.proxies)
    }

    fn replace_proxies(&mut self, mut proxies: Vec<ProxyId>) {
        proxies.sort_unstable();
        proxies.dedup();
        proxies.truncate(PROXIES_MAX);
        if proxies == self.proxies {
            return;
        }
        self.proxies = proxies;
        let (me, proxies) = (self.me, &self.proxies);
        let is_there = |proxy: ProxyId| proxies.binary_search(&proxy).is_ok();
        self.heard.retain(|proxy, _| is_there(*proxy));
        for (target, known) in &mut self.targets {
            known.is_mine = is_checked_by(me, *target, proxies);
            known.reports.retain(|report| is_there(report.proxy));
        }
    }

    fn keep(&mut self, report: Remote) {
        if report.proxy == self.me || self.proxies.binary_search(&report.proxy).is_err() {
            return;
        }
        let Some(known) = self.targets.get_mut(&report.target) else { return };
        if known.reports.iter().any(|kept| kept.proxy == report.proxy && kept.at > report.at) {
            return;
        }
        known.reports.retain(|kept| kept.proxy != report.proxy);
        if report.state == State::Unknown {
            return;
        }
        if known.reports.len() == REPORTS_PER_TARGET_MAX {
            let oldest = (0..known.reports.len()).min_by_key(|position| known.reports[*position].at);
            oldest.map(|position| known.reports.swap_remove(position));
        }
        known.reports.push(report);
    }
}

/// Without a list there is nobody to wait for.
fn is_checked_by(me: ProxyId, target: TargetId, proxies: &[ProxyId]) -> bool {
    proxies.is_empty() || checkers_of(target, proxies).contains(&Some(me))
}

#[cfg(test)]
mod tests;

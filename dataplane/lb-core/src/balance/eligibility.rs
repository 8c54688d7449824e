//! Which backends may take a request, and at what share: states, health, priorities, places and slow start come to
//! lanes. Pure, and off the request path.
//!
//! In this order:
//!
//! 1. Ready backends with a weight. When none of them is available, those that drain and are available.
//! 2. Priorities, as Envoy ("Priority levels"): a level's health is its available share of weight times the
//!    overprovisioning factor, at most 1. Each level in turn takes its health's part of what is left; where all of
//!    them come to less than 1, they are scaled up to it. We keep fractions where Envoy keeps whole percents.
//! 3. Panic, as Envoy ("Panic threshold"): a level in which less than the threshold is available ignores health, unless
//!    other levels can carry everything.
//! 4. Places, within a level: [`super::locality`].
//! 5. Weights: the backend's own, times the part that a gray failure leaves, times slow start's.
//!
//! What is not available is in no lane, but for a level that ignores health.

use super::lane::{self, Lane, LaneKey, Plan};
use super::locality;
use crate::backend::{Algorithm, Backend, BackendState, Eligibility, Place, SlowStart};
use std::collections::BTreeMap;
use std::time::Duration;

/// What decides beside the backends themselves.
#[derive(Debug)]
pub(crate) struct Terms<'a> {
    pub(crate) algorithm: Algorithm,
    pub(crate) eligibility: Eligibility,
    pub(crate) place: &'a Place,
    /// Since the process began.
    pub(crate) now: Duration,
}

/// What comes of it.
#[derive(Debug)]
pub(crate) struct Lanes {
    pub(crate) lanes: Vec<Lane>,
    pub(crate) ignores_health: bool,
    pub(crate) next_change: Option<Duration>,
}

/// A candidate with its weights, in parts of a million of the backend's own unit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    /// Position of the backend.
    pub(super) at: u32,
    /// If it were in perfect health.
    pub(super) whole: u64,
    /// Less what health takes: 0 where it is not available.
    pub(super) healthy: u64,
    /// Less what slow start withholds.
    pub(super) effective: u64,
}

#[derive(Debug)]
struct Level {
    priority: u32,
    candidates: Vec<Candidate>,
    /// Available share times overprovisioning, at most 1.
    health: f64,
    /// The available share, where a gray failure counts as available.
    available: f64,
    panics: bool,
}

/// Slow start moves weights in this many steps, since each makes a version.
const SLOW_START_STEPS: u32 = 20;
/// The shortest step.
const SLOW_START_STEP_MIN: Duration = Duration::from_millis(100);
/// Parts of a weight, so that a thousandth of it can start slowly at a thousandth.
const PARTS: u64 = 1_000_000;

/// Backends are sorted by id and unique.
pub(crate) fn lanes(backends: &[Backend], terms: &Terms<'_>) -> Lanes {
    let mut next_change = None;
    let candidates = candidates(backends, terms, &mut next_change);
    let levels = levels(candidates, backends, &terms.eligibility);
    let shares = shares(&levels);
    let ignores_health = levels.iter().any(|level| level.panics);
    let mut plans = Vec::new();
    for (level, share) in levels.iter().zip(shares) {
        for (part, seats, fraction) in level.parts(backends, terms) {
            let key = LaneKey { priority: level.priority, part };
            plans.push(Plan { key, share: share * fraction, seats });
        }
    }
    Lanes { lanes: lane::arrange(plans, backends, terms.algorithm), ignores_health, next_change }
}

/// Those that are ready or, where none of these is available, those that drain and are; without weight 0.
fn candidates(backends: &[Backend], terms: &Terms<'_>, next_change: &mut Option<Duration>) -> Vec<Candidate> {
    let mut with = |state: BackendState| -> Vec<Candidate> {
        let of_state = (0u32..).zip(backends).filter(|(_, b)| b.state == state && b.weight > 0);
        of_state.map(|(at, backend)| candidate(at, backend, terms, next_change)).collect()
    };
    let is_available = |candidate: &Candidate| candidate.healthy > 0;
    let ready = with(BackendState::Ready);
    if ready.iter().any(is_available) {
        return ready;
    }
    let draining = with(BackendState::Draining);
    if draining.iter().any(is_available) || ready.is_empty() { draining } else { ready }
}

fn candidate(at: u32, backend: &Backend, terms: &Terms<'_>, next_change: &mut Option<Duration>) -> Candidate {
    let standing = backend.standing;
    let kept = if standing.is_available { u64::from(standing.weight_permille.min(1000)) } else { 0 };
    let weight = u64::from(backend.weight);
    let (healthy, mut effective) = (weight * kept * 1000, weight * kept * 1000);
    if let (Some(slow_start), Some(since)) = (terms.eligibility.slow_start, standing.available_since)
        && healthy > 0
        && !matches!(terms.algorithm, Algorithm::Maglev { .. })
        && terms.now < since + slow_start.window
    {
        effective = weight * kept * ramp_permille(slow_start, terms.now.saturating_sub(since));
        let step = terms.now + (slow_start.window / SLOW_START_STEPS).max(SLOW_START_STEP_MIN);
        let next = step.min(since + slow_start.window);
        *next_change = Some(next_change.map_or(next, |earlier| earlier.min(next)));
    }
    Candidate { at, whole: weight * PARTS, healthy, effective }
}

/// The part of its weight that a backend has so long after it became available, 1 to 1000.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 1 to 1000")]
fn ramp_permille(slow_start: SlowStart, elapsed: Duration) -> u64 {
    let elapsed = elapsed.max(Duration::from_secs(1)).min(slow_start.window);
    let factor = elapsed.as_secs_f64() / slow_start.window.as_secs_f64().max(1e-9);
    let grown = factor.powf(100.0 / f64::from(slow_start.aggression_percent.max(1)));
    (grown.max(f64::from(slow_start.weight_min_percent) / 100.0) * 1000.0).clamp(1.0, 1000.0) as u64
}

fn levels(candidates: Vec<Candidate>, backends: &[Backend], rules: &Eligibility) -> Vec<Level> {
    let mut by_priority = BTreeMap::<u32, Vec<Candidate>>::new();
    for candidate in candidates {
        by_priority.entry(backends[candidate.at as usize].priority).or_default().push(candidate);
    }
    let level = |(priority, candidates): (u32, Vec<Candidate>)| {
        let whole = sum(&candidates, |c| c.whole);
        let available = sum(&candidates, |c| if c.healthy > 0 { c.whole } else { 0 }) / whole;
        let health = capped(sum(&candidates, |c| c.healthy) / whole, rules);
        Level { priority, candidates, health, available, panics: false }
    };
    let mut levels: Vec<Level> = by_priority.into_iter().map(level).collect();
    if let Some(percent) = rules.panic_below_percent {
        let health: f64 = levels.iter().map(|level| level.health).sum();
        for level in &mut levels {
            let others_carry_all = health - level.health >= 1.0;
            level.panics = level.available < f64::from(percent) / 100.0 && !others_carry_all;
        }
    }
    levels
}

/// Each level's part of requests. Where they come to less than 1, [`lane::arrange`] scales them up; they come to 0 where
/// nothing is available and nobody ignores it.
fn shares(levels: &[Level]) -> Vec<f64> {
    let health: f64 = levels.iter().map(|level| level.health).sum();
    if health <= 0.0 {
        // Nothing at all is available: whoever ignores that shares by size.
        let size = |level: &Level| if level.panics { sum(&level.candidates, |c| c.whole) } else { 0.0 };
        let all: f64 = levels.iter().map(size).sum();
        return levels.iter().map(|level| if all > 0.0 { size(level) / all } else { 0.0 }).collect();
    }
    let mut left = 1.0f64;
    let share = |level: &Level| {
        let share = level.health.min(left);
        left -= share;
        // What rounding leaves is no share.
        if share < 1e-9 { 0.0 } else { share }
    };
    levels.iter().map(share).collect()
}

impl Level {
    /// The level's lanes: part, seats with their weights, and the fraction of the level's share.
    fn parts(&self, backends: &[Backend], terms: &Terms<'_>) -> Vec<locality::Portion> {
        if self.panics {
            let seats = self.candidates.iter().map(|c| (c.at, c.whole)).collect();
            return vec![(lane::Part::All, seats, 1.0)];
        }
        locality::portions(&self.candidates, backends, terms)
    }
}

/// A share of weight that is available as the share of load that it carries.
pub(super) fn capped(available: f64, rules: &Eligibility) -> f64 {
    (available * f64::from(rules.overprovisioning_percent) / 100.0).min(1.0)
}

/// A sum of weights.
pub(super) fn sum<'a>(
    candidates: impl IntoIterator<Item = &'a Candidate>,
    weight: impl Fn(&Candidate) -> u64,
) -> f64 {
    candidates.into_iter().map(|candidate| weight(candidate) as f64).sum()
}

#[cfg(test)]
mod tests;

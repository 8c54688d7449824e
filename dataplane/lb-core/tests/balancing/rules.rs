//! What holds, worked out from what the world knows and not from what the state machines made of it.

use super::settings::Settings;
use super::world::{ORDER_MAX, Spec, World, number_of};
use lb_core::backend::{Backend, BackendState, Live, Membership};
use lb_core::balance::Seat;
use lb_core::health::{Batch, State, WEIGHT_FULL};
use std::sync::{Arc, Weak};

/// A member, at the moment of a pick.
struct Seen<'a> {
    number: usize,
    spec: &'a Spec,
    is_available: bool,
    is_whole: bool,
    is_tried: bool,
}

impl Seen<'_> {
    fn may_take(&self) -> bool {
        self.spec.weight > 0 && self.is_available
    }

    fn is_ready(&self) -> bool {
        self.spec.state == BackendState::Ready
    }
}

fn seen<'a>(world: &'a World, members: &Membership, tried: &[Arc<Live>]) -> Vec<Seen<'a>> {
    let known = world.health.set(world.set.id).filter(|_| !world.order_waits);
    assert_eq!(members.backends().len(), world.specs.len());
    let see = |backend: &Backend| {
        let number = number_of(&backend.id);
        let found = known.map(|known| known.standing(&backend.id).expect("health knows every member"));
        Seen {
            number,
            spec: world.specs.get(&number).expect("it left the set"),
            // Until health has heard of the members, what they came with counts.
            is_available: found.map_or(backend.standing.is_available, |found| found.is_available),
            is_whole: found.map_or(backend.standing.weight_permille, |found| found.weight_permille)
                == WEIGHT_FULL,
            is_tried: tried.iter().any(|live| Arc::ptr_eq(live, &backend.live)),
        }
    };
    members.backends().iter().map(see).collect()
}

/// What only checks took away is there again in time. An ejection has its own time, which the end of a run waits for.
fn check_returned(world: &World, seen: &[Seen<'_>]) {
    let Some(checks) = world.settings.checks_recover_max() else { return };
    if world.settings.plan.passive.is_some() {
        return;
    }
    for one in seen.iter().filter(|one| !one.is_available) {
        let replica = &world.replicas[one.number];
        let bound = replica.since.max(one.spec.joined) + checks + ORDER_MAX;
        let is_late = replica.is_well() && world.now > bound;
        assert!(!is_late, "b{} is well since {:?} and out at {:?}", one.number, replica.since, world.now);
    }
}

/// Of each pick. `picked` is its answer.
pub(crate) fn check_pick(world: &World, members: &Membership, tried: &[Arc<Live>], picked: Option<&Backend>) {
    let seen = seen(world, members, tried);
    check_returned(world, &seen);
    let panic_below = world.settings.policy.eligibility.panic_below_percent;
    let Some(picked) = picked else {
        let could = seen.iter().find(|one| one.may_take() || (one.spec.weight > 0 && panic_below.is_some()));
        assert!(could.is_none(), "none at {:?}, and b{} could", world.now, could.expect("some").number);
        return;
    };
    let number = number_of(&picked.id);
    let it = seen.iter().find(|one| one.number == number).expect("it left the set");
    let what = || format!("b{number} at {:?}: {:?}", world.now, it.spec);
    assert!(it.spec.weight > 0, "of weight 0, {}", what());
    let live = world.lives.get(&number).map(Weak::as_ptr);
    assert_eq!(live, Some(Arc::as_ptr(&picked.live)), "its live state is another, {}", what());
    let is_ready_there = seen.iter().any(|one| one.may_take() && one.is_ready());
    assert!(it.is_ready() || !is_ready_there, "it drains and another is ready, {}", what());
    if !it.is_available {
        assert!(members.ignores_health(), "not available, {}", what());
        assert!(available_percent(&seen, it) < f64::from(panic_below.unwrap_or(0)), "no panic, {}", what());
    }
    if it.is_tried {
        let fresh = |one: &&Seen<'_>| one.may_take() && !one.is_tried && one.is_ready() == is_ready_there;
        let other = seen.iter().find(fresh);
        assert!(other.is_none(), "tried, and b{} was not, {}", other.expect("some").number, what());
    }
    check_priority(&seen, it, tried, &what);
    check_dead(world, members, it, &what);
}

/// The available share of weight of the level that it is in.
fn available_percent(seen: &[Seen<'_>], it: &Seen<'_>) -> f64 {
    let level = seen
        .iter()
        .filter(|one| one.spec.priority == it.spec.priority && one.spec.state == it.spec.state)
        .filter(|one| one.spec.weight > 0);
    let (mut all, mut available) = (0.0, 0.0);
    for one in level {
        all += f64::from(one.spec.weight);
        available += if one.is_available { f64::from(one.spec.weight) } else { 0.0 };
    }
    available / all * 100.0
}

/// While the first level has all its weight, nothing goes to the next.
fn check_priority(seen: &[Seen<'_>], it: &Seen<'_>, tried: &[Arc<Live>], what: &dyn Fn() -> String) {
    let level = || seen.iter().filter(|one| one.spec.weight > 0 && one.spec.state == it.spec.state);
    let first = level().map(|one| one.spec.priority).min();
    let mut of_first = level().filter(|one| Some(one.spec.priority) == first);
    if tried.is_empty() && of_first.all(|one| one.is_available && one.is_whole) {
        assert_eq!(Some(it.spec.priority), first, "the first level could, {}", what());
    }
}

/// Nothing goes to a backend that has been dead for longer than its checks need, unless health is ignored.
fn check_dead(world: &World, members: &Membership, it: &Seen<'_>, what: &dyn Fn() -> String) {
    let Some(active) = &world.settings.plan.active else { return };
    let replica = &world.replicas[it.number];
    if !replica.is_dead() || members.ignores_health() {
        return;
    }
    let bound = replica.since.max(it.spec.joined) + active.detection_max() + ORDER_MAX;
    assert!(world.now <= bound, "dead since {:?}, {}", replica.since, what());
}

/// Whether a batch of nothing but failures to connect must take its backend out: it is a member, is not out already,
/// and the bounds allow one more.
pub(crate) fn must_eject(world: &World, backend: &str, batch: &Batch) -> bool {
    let Some(set) = world.health.set(world.set.id) else { return false };
    let Some(settings) = &world.settings.plan.passive else { return false };
    let fails = settings.consecutive_connect_failures.is_some_and(|n| batch.connect_failures >= n.get());
    let others = batch.successes + batch.errors + batch.timeouts;
    let kept = usize::try_from(settings.available_min).expect("small");
    let is_in = set.standing(backend).is_some_and(|standing| standing.is_available);
    let may = set.ejected() < settings.ejected_max(set.standings().len()) && set.available() > kept;
    fails && others == 0 && is_in && may
}

/// After each step of health: the largest share that is ejected, the least that is kept, and the targets.
pub(crate) fn check_health(world: &World) {
    let Some(set) = world.health.set(world.set.id) else { return };
    let Settings { plan, .. } = &world.settings;
    let targets = world.health.checks().roster().targets().len();
    assert!(targets <= set.standings().len());
    let Some(settings) = &plan.passive else { return };
    assert!(set.ejected() <= settings.ejected_max(set.standings().len()), "at {:?}", world.now);
    if set.available() >= usize::try_from(settings.available_min).expect("small") {
        return;
    }
    for (backend, _) in set.standings().filter(|(_, standing)| !standing.is_available) {
        let target = world.health.target(world.set.id, backend).expect("only checks take it away");
        let state = world.health.checks().status(target).map(|status| status.state);
        assert_ne!(state, Some(State::Up), "{backend} is held back at {:?}", world.now);
    }
}

/// Long after the last trouble, the membership is as if it never was.
pub(crate) fn check_recovered(world: &World) {
    let members = world.set.members();
    assert_eq!(members.next_change(), None, "slow starts are over");
    for backend in members.backends() {
        let standing = backend.standing;
        let is_well = standing.is_available && standing.weight_permille == WEIGHT_FULL;
        assert!(is_well, "{} is {standing:?} at {:?}", backend.id, world.now);
    }
    for lane in members.lanes() {
        let weights = |seat: &Seat| (seat.weight, members.backends()[seat.backend as usize].weight);
        let (first, of_first) = weights(&lane.seats()[0]);
        for (weight, whole) in lane.seats().iter().map(weights) {
            assert_eq!(weight * of_first, first * whole, "weights are whole again, {:?}", lane.key());
        }
    }
}

/// When all requests have ended: none is counted, and nothing is kept of backends that are gone.
pub(crate) fn check_ended(world: &World) {
    assert!(world.on.values().all(|count| *count == 0));
    for backend in world.set.members().backends() {
        assert_eq!(backend.live.in_flight(), 0, "{}", backend.id);
    }
    for (live, id) in &world.gone {
        assert_eq!(Weak::strong_count(live), 0, "somebody keeps the live state of {:?}", id.upgrade());
        assert_eq!(Weak::strong_count(id), 0, "somebody keeps {:?}", id.upgrade());
    }
}

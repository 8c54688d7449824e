//! A set's members, from the wire: what is known of a backend goes on with it by its id.

use super::convert::{self, Rejection, SetSpec};
use lb_core::backend::{Backend, Hints, Membership, Place, Standing};
use lb_core::health::{Initial, SetPlan};
use std::sync::Arc;
use std::time::Duration;
use weir_proto::limits::HINTS_MAX;
use weir_proto::push;

/// What a membership is made with, beside the backends.
pub(super) struct Made<'a> {
    pub(super) version: u64,
    pub(super) place: &'a Place,
    /// Since the process began.
    pub(super) now: Duration,
}

/// The members without those that cannot be used; and why the first of these cannot. `old` is what the set has now.
pub(super) fn read(
    set: &str,
    spec: &SetSpec,
    old: Option<&Membership>,
    wire: Vec<&push::Backend>,
    made: &Made<'_>,
) -> (Arc<Membership>, Option<Rejection>) {
    let SetSpec { policy, health, .. } = spec;
    // A backend that comes to a set starts slowly, where any does; those that a set begins with start together.
    let starts_slowly = old.is_some() && policy.eligibility.slow_start.is_some();
    let newcomer = first_standing(health, starts_slowly.then_some(made.now));
    let is_checked = health.active.is_some() || health.passive.is_some();
    let old = old.map_or(&[][..], Membership::backends);
    let mut backends = Vec::with_capacity(wire.len());
    let mut refused = None;
    for wire in wire {
        let spec = match convert::backend(set, wire) {
            Ok(spec) => spec,
            Err(rejection) => {
                refused.get_or_insert(rejection);
                continue;
            }
        };
        let known = old.binary_search_by(|known| (*known.id).cmp(&wire.id)).ok().map(|at| &old[at]);
        backends.push(Backend {
            id: known.map_or_else(|| wire.id.as_str().into(), |known| Arc::clone(&known.id)),
            address: spec.address,
            weight: wire.weight,
            priority: wire.priority,
            hints: hints(wire, known),
            standing: match known.map(|known| known.standing) {
                Some(standing) if is_checked => standing,
                Some(standing) => {
                    Standing { available_since: standing.available_since, ..Standing::default() }
                }
                None => newcomer,
            },
            zone: match known {
                Some(known) if *known.zone == *wire.zone => Arc::clone(&known.zone),
                _ => wire.zone.as_str().into(),
            },
            state: spec.state,
            live: known.map(|known| Arc::clone(&known.live)).unwrap_or_default(),
        });
    }
    (Arc::new(Membership::build(made.version, backends, policy, made.place, made.now)), refused)
}

/// Of a backend of which nothing is known.
fn first_standing(plan: &SetPlan, came: Option<Duration>) -> Standing {
    let is_down = plan.active.as_ref().is_some_and(|active| active.initial == Initial::Down);
    let available_since = came.filter(|_| !is_down);
    Standing { is_available: !is_down, available_since, ..Standing::default() }
}

/// Those known are taken again where they are the same.
fn hints(wire: &push::Backend, known: Option<&Backend>) -> Hints {
    let is_same = |known: &[Arc<str>], wire: &[String]| {
        known.iter().map(|name| &**name).eq(wire.iter().map(String::as_str))
    };
    if let Some(known) = known
        && is_same(&known.hints.zones, &wire.hint_zones)
        && is_same(&known.hints.nodes, &wire.hint_nodes)
    {
        return known.hints.clone();
    }
    let names = |names: &[String]| names.iter().take(HINTS_MAX).map(|name| name.as_str().into()).collect();
    Hints { zones: names(&wire.hint_zones), nodes: names(&wire.hint_nodes) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_proto::push::active_check::Kind;

    fn spec(change: impl FnOnce(&mut push::BackendSet)) -> SetSpec {
        let mut set =
            push::BackendSet { name: "web".into(), connect_timeout_ms: 1, ..push::BackendSet::default() };
        set.set_algorithm(push::Algorithm::RoundRobin);
        change(&mut set);
        let config = push::PoolConfig { backend_sets: vec![set], ..push::PoolConfig::default() };
        let (mut pool, _) = convert::pool(&config, &convert::Certificates::default()).expect("a pool");
        pool.sets.remove("web").expect("the set")
    }

    fn backend(id: &str) -> push::Backend {
        let address = "10.0.0.1:80".to_owned();
        let mut backend = push::Backend { id: id.into(), address, weight: 1, ..push::Backend::default() };
        backend.set_state(push::BackendState::Ready);
        backend
    }

    fn members(
        spec: &SetSpec,
        old: Option<&Membership>,
        wire: &[push::Backend],
        place: &Place,
    ) -> Arc<Membership> {
        let made = Made { version: 1, place, now: Duration::from_secs(9) };
        let (members, refused) = read("web", spec, old, wire.iter().collect(), &made);
        assert_eq!(refused, None);
        members
    }

    fn ids(members: &Membership) -> Vec<&str> {
        members
            .lanes()
            .iter()
            .filter(|lane| lane.share() > 0.0)
            .flat_map(lb_core::balance::Lane::seats)
            .map(|seat| &*members.backends()[seat.backend as usize].id)
            .collect()
    }

    #[test]
    fn zones_hints_and_priorities_decide_who_is_chosen_here() {
        let here = Place { zone: "a".into(), node: "n1".into() };
        let zoned = |id: &str, zone: &str| push::Backend { zone: zone.into(), ..backend(id) };
        let by_zone = spec(|set| set.set_locality(push::Locality::PreferZone));
        assert_eq!(ids(&members(&by_zone, None, &[zoned("x", "a"), zoned("y", "b")], &here)), ["x"]);
        assert_eq!(
            ids(&members(&by_zone, None, &[zoned("x", "a"), zoned("y", "b")], &Place::default())).len(),
            2
        );
        let by_hints = spec(|set| set.set_locality(push::Locality::Hints));
        let zone = |id: &str, zone: &str| push::Backend { hint_zones: vec![zone.into()], ..backend(id) };
        assert_eq!(ids(&members(&by_hints, None, &[zone("x", "b"), zone("y", "a")], &here)), ["y"]);
        let node = |id: &str, node: &str| push::Backend { hint_nodes: vec![node.into()], ..backend(id) };
        assert_eq!(ids(&members(&by_hints, None, &[node("x", "n1"), node("y", "n2")], &here)), ["x"]);
        let second = push::Backend { priority: 1, ..backend("x") };
        assert_eq!(ids(&members(&spec(|_| {}), None, &[second, backend("y")], &here)), ["y"]);
    }

    #[test]
    fn what_is_known_of_a_backend_goes_on_only_while_somebody_checks_it() {
        let place = Place::default();
        let check = push::ActiveCheck {
            kind: Some(Kind::Tcp(push::TcpCheck {})),
            interval_ms: 1_000,
            timeout_ms: 1_000,
            healthy_threshold: 1,
            unhealthy_threshold: 1,
            initially_down: true,
            ..push::ActiveCheck::default()
        };
        let checked = spec(|set| set.active_check = Some(check));
        let waits = members(&checked, None, &[backend("x")], &place);
        assert!(!waits.backends()[0].standing.is_available, "its first pass is still to come");
        let later = members(&checked, Some(&waits), &[backend("x"), backend("y")], &place);
        assert_eq!(later.eligible().count(), 0);
        assert!(Arc::ptr_eq(&later.backends()[0].live, &waits.backends()[0].live));
        let unchecked = members(&spec(|_| {}), Some(&later), &[backend("x")], &place);
        assert_eq!(unchecked.eligible().count(), 1);
    }

    #[test]
    fn who_comes_to_a_set_that_is_there_starts_slowly_where_any_does() {
        let place = Place::default();
        let slow = push::SlowStart { window_ms: 30_000, min_weight_percent: 10 };
        let slowly = spec(|set| set.slow_start = Some(slow));
        let first = members(&slowly, None, &[backend("x")], &place);
        assert_eq!(first.backends()[0].standing.available_since, None);
        let second = members(&slowly, Some(&first), &[backend("x"), backend("y")], &place);
        let since: Vec<_> =
            second.backends().iter().map(|backend| backend.standing.available_since).collect();
        assert_eq!(since, [None, Some(Duration::from_secs(9))]);
        let at_once = members(&spec(|_| {}), Some(&first), &[backend("x"), backend("y")], &place);
        assert!(at_once.backends().iter().all(|backend| backend.standing == Standing::default()));
    }
}

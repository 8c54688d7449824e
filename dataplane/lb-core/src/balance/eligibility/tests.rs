use super::*;
use crate::backend::tests::{backend, policy};
use crate::backend::{BackendState::*, Hints, Locality, Membership, Standing};
use crate::balance::Part;
use proptest::prelude::*;
use std::sync::Arc;

const NOW: Duration = Duration::from_secs(1000);

fn down() -> Standing {
    Standing { is_available: false, ..Standing::default() }
}

fn of(priority: u32, count: usize, available: usize) -> impl Iterator<Item = Backend> {
    (0..count).map(move |n| {
        let standing = if n < available { Standing::default() } else { down() };
        Backend { priority, standing, ..backend(&format!("p{priority}-{n:02}"), 1, Ready) }
    })
}

fn build(backends: impl IntoIterator<Item = Backend>, rules: Eligibility, place: &Place) -> Membership {
    let policy = policy(Algorithm::RoundRobin, rules);
    Membership::build(1, backends.into_iter().collect(), &policy, place, NOW)
}

/// Percent of requests by priority, rounded.
fn percents(members: &Membership) -> Vec<(u32, i32)> {
    let mut by_priority = BTreeMap::<u32, f64>::new();
    for lane in members.lanes() {
        *by_priority.entry(lane.key().priority).or_default() += lane.share() * 100.0;
    }
    #[expect(clippy::cast_possible_truncation, reason = "a percentage")]
    let rounded = |share: f64| share.round() as i32;
    by_priority.into_iter().map(|(priority, share)| (priority, rounded(share))).collect()
}

#[test]
fn priorities_spill_over_as_in_envoy_s_tables() {
    // "Priority levels" of Envoy's documentation: with a healthy second level.
    for (available, first, second) in
        [(100, 100, 0), (72, 100, 0), (71, 99, 1), (50, 70, 30), (25, 35, 65), (0, 0, 100)]
    {
        let members =
            build(of(0, 100, available).chain(of(1, 4, 4)), Eligibility::default(), &Place::default());
        let percents: BTreeMap<_, _> = percents(&members).into_iter().collect();
        assert_eq!(percents.get(&0).copied().unwrap_or(0), first, "{available} % available");
        assert_eq!(percents.get(&1).copied().unwrap_or(0), second, "{available} % available");
    }
}

#[test]
fn three_priorities_spill_over_as_in_envoy_s_tables() {
    // The same page, three levels: percent available in each and percent of requests.
    for (available, requests) in [
        ([100, 100, 100], [100, 0, 0]),
        ([72, 72, 100], [100, 0, 0]),
        ([71, 71, 100], [99, 1, 0]),
        ([50, 50, 100], [70, 30, 0]),
        ([25, 100, 100], [35, 65, 0]),
        ([25, 25, 100], [35, 35, 30]),
        // Less than all together: scaled up.
        ([25, 25, 20], [36, 36, 29]),
    ] {
        let backends = (0..3u32).flat_map(|p| of(p, 100, available[p as usize]));
        let members = build(backends, Eligibility::default(), &Place::default());
        let percents = percents(&members);
        let off = percents.iter().zip(requests).map(|((_, share), wanted)| (share - wanted).abs()).max();
        assert!(off <= Some(1), "{available:?}: {percents:?}");
    }
}

#[test]
fn a_lower_priority_is_a_reserve_while_the_first_carries_all() {
    let members = build(of(0, 2, 2).chain(of(1, 1, 1)), Eligibility::default(), &Place::default());
    assert_eq!(members.lanes().len(), 2);
    assert!(members.lanes()[0].share() == 1.0 && members.lanes()[1].share() == 0.0);
}

#[test]
fn below_the_panic_threshold_health_is_ignored() {
    let with = |available, percent| {
        let rules = Eligibility { panic_below_percent: percent, ..Eligibility::default() };
        let members = build(of(0, 10, available), rules, &Place::default());
        (members.eligible().count(), members.ignores_health())
    };
    assert_eq!(with(4, None), (4, false), "off by default");
    assert_eq!(with(0, None), (0, false));
    assert_eq!(with(5, Some(50)), (5, false), "at the threshold");
    assert_eq!(with(4, Some(50)), (10, true));
    assert_eq!(with(0, Some(50)), (10, true));
}

#[test]
fn panic_waits_while_another_priority_carries_everything() {
    let rules = Eligibility { panic_below_percent: Some(50), ..Eligibility::default() };
    let calm = build(of(0, 10, 0).chain(of(1, 4, 3)), rules, &Place::default());
    assert_eq!((percents(&calm), calm.ignores_health()), (vec![(1, 100)], false));
    // 2 of 4 come to 70 percent: not everything.
    let panic = build(of(0, 10, 0).chain(of(1, 4, 2)), rules, &Place::default());
    assert!(panic.ignores_health());
    // Nothing at all: by size.
    let all_down = build(of(0, 6, 0).chain(of(1, 2, 0)), rules, &Place::default());
    assert_eq!(percents(&all_down), [(0, 75), (1, 25)]);
}

#[test]
fn draining_backends_that_are_available_go_before_panic() {
    let rules = Eligibility { panic_below_percent: Some(50), ..Eligibility::default() };
    let members = build(of(0, 3, 0).chain([backend("z", 1, Draining)]), rules, &Place::default());
    assert_eq!(members.eligible().map(|b| &*b.id).collect::<Vec<_>>(), ["z"]);
}

#[test]
fn a_gray_failure_keeps_a_part_of_its_weight() {
    let gray = Standing { weight_permille: 250, ..Standing::default() };
    let none = Standing { weight_permille: 0, ..Standing::default() };
    let backends = [
        backend("a", 2, Ready),
        Backend { standing: gray, ..backend("b", 2, Ready) },
        Backend { standing: none, ..backend("c", 2, Ready) },
    ];
    let members = build(backends, Eligibility::default(), &Place::default());
    let weights: Vec<u32> = members.lanes()[0].seats().iter().map(|seat| seat.weight).collect();
    assert_eq!(weights, [4, 1]);
}

#[test]
fn a_new_backend_s_weight_grows_over_the_window() {
    let slow_start =
        SlowStart { window: Duration::from_secs(60), aggression_percent: 100, weight_min_percent: 10 };
    let share = |slow_start, seconds_ago: u64| {
        let since = Some(NOW - Duration::from_secs(seconds_ago));
        let new = Standing { available_since: since, ..Standing::default() };
        let rules = Eligibility { slow_start: Some(slow_start), ..Eligibility::default() };
        let backends = [backend("a", 1, Ready), Backend { standing: new, ..backend("b", 1, Ready) }];
        let members = build(backends, rules, &Place::default());
        let seats = members.lanes()[0].seats();
        let next = members.next_change().map(|at| (at - NOW).as_secs());
        (seats[1].weight * 1000 / seats[0].weight, next)
    };
    assert_eq!(share(slow_start, 0), (100, Some(3)), "the least part, next step in a twentieth");
    assert_eq!(share(slow_start, 15), (250, Some(3)));
    assert_eq!(share(slow_start, 58).1, Some(2), "the last step is the end");
    assert_eq!(share(slow_start, 60), (1000, None));
    let eager = SlowStart { aggression_percent: 200, ..slow_start };
    assert_eq!(share(eager, 15), (500, Some(3)), "a quarter to the power of a half");
}

#[test]
fn keys_do_not_move_while_a_backend_starts_slowly() {
    let slow_start =
        SlowStart { window: Duration::from_secs(60), aggression_percent: 100, weight_min_percent: 10 };
    let rules = Eligibility { slow_start: Some(slow_start), ..Eligibility::default() };
    let new = Standing { available_since: Some(NOW), ..Standing::default() };
    let backends = vec![backend("a", 1, Ready), Backend { standing: new, ..backend("b", 1, Ready) }];
    let policy = policy(Algorithm::MAGLEV, rules);
    let members = Membership::build(1, backends, &policy, &Place::default(), NOW);
    assert!(members.lanes()[0].is_equal());
    assert_eq!(members.next_change(), None);
}

fn place(zone: &str, node: &str) -> Place {
    Place { zone: zone.into(), node: node.into() }
}

fn in_zones(counts: &[(&str, usize, usize)]) -> Vec<Backend> {
    let of_zone = |(zone, count, available): &(&str, usize, usize)| {
        let zone: Arc<str> = (*zone).into();
        let named = |backend: Backend| Backend {
            id: format!("{zone}-{}", backend.id).into(),
            zone: Arc::clone(&zone),
            hints: Hints { zones: [Arc::clone(&zone)].into(), nodes: Arc::default() },
            ..backend
        };
        of(0, *count, *available).map(named).collect::<Vec<_>>()
    };
    counts.iter().flat_map(of_zone).collect()
}

/// Percent of requests by part, for parts that have any.
fn by_part(members: &Membership) -> Vec<(String, i64)> {
    #[expect(clippy::cast_possible_truncation, reason = "a percentage")]
    let percent = |share: f64| (share * 100.0).round() as i64;
    let name = |part: &Part| match part {
        Part::All => "all".to_owned(),
        Part::Near => "near".to_owned(),
        Part::Far => "far".to_owned(),
        Part::Zone(zone) => zone.to_string(),
    };
    let with_share = members.lanes().iter().filter(|lane| lane.share() > 0.0);
    with_share.map(|lane| (name(&lane.key().part), percent(lane.share()))).collect()
}

#[test]
fn the_own_zone_takes_all_while_it_holds_its_part_of_the_capacity() {
    let rules = Eligibility { locality: Locality::PreferZone, ..Eligibility::default() };
    let shares = |zones: &[(&str, usize, usize)]| by_part(&build(in_zones(zones), rules, &place("a", "")));
    let part = |name: &str, percent| (name.to_owned(), percent);
    assert_eq!(shares(&[("a", 3, 3), ("b", 3, 3), ("c", 3, 3)]), [part("near", 100)]);
    assert_eq!(shares(&[("a", 6, 6), ("b", 2, 2)]), [part("near", 100)]);
    // A quarter of the capacity where half is needed: half stays, half overflows.
    assert_eq!(shares(&[("a", 1, 1), ("b", 3, 3)]), [part("near", 50), part("b", 50)]);
    // The rest goes where there is more than that zone needs itself: c holds exactly its third.
    assert_eq!(shares(&[("a", 1, 1), ("b", 3, 3), ("c", 2, 2)]), [part("near", 50), part("b", 50)]);
    // Backends that fail move their part away, and a zone without any is all overflow.
    assert_eq!(shares(&[("a", 4, 2), ("b", 4, 4)]), [part("near", 67), part("b", 33)]);
    assert_eq!(shares(&[("b", 2, 2), ("c", 2, 2)]), [part("b", 50), part("c", 50)]);
    assert_eq!(shares(&[("a", 2, 0), ("b", 2, 2)]), [part("b", 100)]);
    let unknown = build(in_zones(&[("a", 1, 1), ("b", 9, 9)]), rules, &Place::default());
    assert_eq!(by_part(&unknown), [part("all", 100)], "our zone is not known");
}

#[test]
fn hints_are_followed_as_by_kube_proxy() {
    let rules = Eligibility { locality: Locality::Hints, ..Eligibility::default() };
    let part = |name: &str, percent| (name.to_owned(), percent);
    let hinted = in_zones(&[("a", 2, 2), ("b", 2, 2)]);
    assert_eq!(by_part(&build(hinted.clone(), rules, &place("a", ""))), [part("near", 100)]);
    assert_eq!(by_part(&build(hinted.clone(), rules, &place("c", ""))), [part("all", 100)], "none for us");
    assert_eq!(by_part(&build(hinted.clone(), rules, &place("", ""))), [part("all", 100)]);
    let mut one_without = hinted.clone();
    one_without[3].hints = Hints::default();
    assert_eq!(by_part(&build(one_without, rules, &place("a", ""))), [part("all", 100)], "all or none");
    // A node's hint goes before the zone's.
    let mut with_nodes = hinted;
    for (n, backend) in with_nodes.iter_mut().enumerate() {
        backend.hints.nodes = [Arc::from(format!("node-{n}"))].into();
    }
    let near = |place| {
        let members = build(with_nodes.clone(), rules, &place);
        members.lanes()[0].seats().len()
    };
    assert_eq!((near(place("a", "node-3")), near(place("a", "node-9"))), (1, 2));
}

#[test]
fn hinted_backends_that_fail_overflow_to_the_others() {
    let rules = Eligibility { locality: Locality::Hints, ..Eligibility::default() };
    let part = |name: &str, percent| (name.to_owned(), percent);
    let shares = |a, b| by_part(&build(in_zones(&[("a", 4, a), ("b", 4, b)]), rules, &place("a", "")));
    assert_eq!(shares(3, 4), [part("near", 100)], "1.4 times three quarters");
    assert_eq!(shares(2, 4), [part("near", 70), part("far", 30)]);
    assert_eq!(shares(0, 4), [part("far", 100)]);
    assert_eq!(shares(1, 0), [part("near", 100)], "there is nothing to overflow to");
}

prop_compose! {
    fn any_backend()(
        id in 0u32..40,
        weight in 0u32..4,
        priority in 0u32..3,
        zone in prop::sample::select(vec!["", "a", "b", "c"]),
        hinted: bool,
        draining: bool,
        is_available: bool,
        weight_permille in prop::sample::select(vec![0u16, 1, 300, 1000]),
        age in prop::option::of(0u64..100),
    ) -> Backend {
        let available_since = age.map(|age| NOW - Duration::from_secs(age));
        let zones = if hinted { Arc::from([Arc::from(zone)]) } else { Arc::default() };
        Backend {
            priority,
            zone: zone.into(),
            hints: Hints { zones, nodes: Arc::default() },
            standing: Standing { is_available, weight_permille, available_since },
            ..backend(&format!("{id:02}"), weight, if draining { Draining } else { Ready })
        }
    }
}

prop_compose! {
    fn any_rules()(
        locality in prop::sample::select(vec![Locality::Off, Locality::PreferZone, Locality::Hints]),
        panic_below_percent in prop::option::of(1u8..=100),
        overprovisioning_percent in 100u16..300,
        starts_slowly: bool,
    ) -> Eligibility {
        let slow_start =
            SlowStart { window: Duration::from_secs(50), aggression_percent: 150, weight_min_percent: 1 };
        let slow_start = starts_slowly.then_some(slow_start);
        Eligibility { locality, panic_below_percent, overprovisioning_percent, slow_start }
    }
}

fn is_usable(backend: &Backend) -> bool {
    backend.weight > 0 && backend.standing.is_available && backend.standing.weight_permille > 0
}

proptest! {
    #[test]
    fn what_is_drained_or_not_available_is_never_eligible_but_in_panic(
        backends in prop::collection::vec(any_backend(), 0..30),
        rules in any_rules(),
    ) {
        let members = build(backends, rules, &place("a", "n"));
        let all = members.backends();
        let ready_is_usable = all.iter().any(|b| b.state == Ready && is_usable(b));
        for backend in members.eligible() {
            prop_assert!(backend.weight > 0);
            prop_assert!(members.ignores_health() || is_usable(backend));
            prop_assert!(backend.state == Ready || !ready_is_usable, "a draining one is the last resort");
        }
        prop_assert!(!members.ignores_health() || rules.panic_below_percent.is_some());
        // And nothing that is usable is left out.
        prop_assert_eq!(members.eligible().next().is_some(), members.ignores_health() || all.iter().any(is_usable));
        let usable = all.iter().filter(|b| is_usable(b) && (b.state == Ready || !ready_is_usable)).count();
        prop_assert!(members.eligible().count() >= usable);
    }

    #[test]
    fn shares_add_up_and_every_lane_has_seats(
        backends in prop::collection::vec(any_backend(), 0..30),
        rules in any_rules(),
    ) {
        let members = build(backends, rules, &place("a", "n"));
        let sum: f64 = members.lanes().iter().map(Lane::share).sum();
        prop_assert!(members.lanes().is_empty() || (sum - 1.0).abs() < 1e-9, "{}", sum);
        prop_assert!(members.lanes().is_sorted_by_key(|lane| lane.share() <= 0.0), "reserves come last");
        let mut seen = std::collections::BTreeSet::new();
        for lane in members.lanes() {
            prop_assert!(!lane.seats().is_empty());
            for seat in lane.seats() {
                prop_assert!(seat.weight > 0);
                prop_assert!(seen.insert(seat.backend), "a backend has one seat");
            }
        }
    }

    #[test]
    fn the_next_step_of_a_slow_start_is_ahead(backends in prop::collection::vec(any_backend(), 0..30), rules in any_rules()) {
        let members = build(backends, rules, &Place::default());
        prop_assert!(members.next_change().is_none_or(|at| at > NOW));
    }
}

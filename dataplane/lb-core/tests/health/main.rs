//! Several proxies check backends that misbehave, with the state machines that serve in production.
//!
//! A seed that failed is named in the failure; `WEIR_HEALTH_SEED=17 cargo test -p lb-core --test health` runs it alone.

mod world;

use lb_core::health::{
    ActiveSettings, LOOK_EVERY, News, PassiveSettings, REPORT_AGE_MAX, State, TargetKey, Valid, WEIGHT_FULL,
};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;
use world::{Behaviour, Dice, PROBES_AT_ONCE, Proxy, RELAY_MAX, World, at};

/// How many seeds each quarter of the simulation has.
const SEEDS_PER_QUARTER: u64 = 50;
/// Misbehaviour lasts so long, in milliseconds; then everything is healthy.
const TROUBLE: u64 = 30_000;

fn active(change: impl FnOnce(&mut ActiveSettings)) -> Valid<ActiveSettings> {
    let mut settings = ActiveSettings::default();
    change(&mut settings);
    settings.validate().expect("settings of a test")
}

fn milliseconds(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).expect("a short test")
}

/// A world with so many proxies and three backends, without passive checks, that has settled.
fn calm_world(proxies: usize, settings: Valid<ActiveSettings>) -> World {
    let mut world = World::new(proxies as u64, 3, settings, None);
    for _ in 0..proxies {
        world.join();
    }
    world.run(20_000, |_| ());
    assert_eq!(world.events, []);
    world
}

fn probes(world: &World) -> Vec<u64> {
    world.backends.iter().map(|backend| backend.probes).collect()
}

/// Probes at each backend in the next minute.
fn probes_in_a_minute(world: &mut World) -> Vec<u64> {
    let before = probes(world);
    world.run(world.now + 60_000, |_| ());
    probes(world).iter().zip(before).map(|(after, before)| after - before).collect()
}

#[test]
fn probes_at_a_backend_do_not_grow_with_the_number_of_proxies() {
    for proxies in [2, 4, 8] {
        let mut world = calm_world(proxies, active(|settings| settings.jitter_permille = 0));
        for probes in probes_in_a_minute(&mut world) {
            assert!((118..=122).contains(&probes), "{probes} probes a minute with {proxies} proxies");
        }
    }
}

#[test]
fn a_dead_backend_is_out_everywhere_in_under_five_seconds() {
    for proxies in [1, 2, 4, 8] {
        for behaviour in [Behaviour::Refusing, Behaviour::Frozen] {
            let mut world = calm_world(proxies, active(|_| ()));
            world.behave(0, behaviour);
            let died = world.now;
            world.run(died + 5000, |_| ());
            assert_eq!(world.events.len(), proxies, "{behaviour:?} with {proxies} proxies");
            assert!(world.events.iter().all(|(at, ..)| *at < died + 5000));
        }
    }
}

#[test]
fn without_the_controller_everybody_checks_and_with_it_two_do_again_without_an_event() {
    let mut world = calm_world(6, active(|settings| settings.jitter_permille = 0));
    world.behave(0, Behaviour::Refusing);
    world.run(world.now + 6000, |_| ());
    let events = world.events.len();
    assert_eq!(events, 6);
    world.lose_controller();
    world.run(world.now + 10_000, |_| ());
    assert!(probes_in_a_minute(&mut world).iter().all(|probes| (6 * 59..=6 * 61).contains(probes)));
    world.bring_controller_back();
    world.run(world.now + 10_000, |_| ());
    assert!(probes_in_a_minute(&mut world).iter().all(|probes| (118..=122).contains(probes)));
    assert_eq!(world.events.len(), events, "nothing changed, so nobody saw a change");
}

#[test]
fn a_backend_that_dies_while_the_controller_is_lost_is_out_and_stays_out_when_it_is_back() {
    let mut world = calm_world(4, active(|_| ()));
    world.lose_controller();
    world.run(world.now + 5000, |_| ());
    world.behave(1, Behaviour::Frozen);
    world.run(world.now + 5000, |_| ());
    assert_eq!(world.events.len(), 4);
    world.bring_controller_back();
    world.run(world.now + 20_000, |_| ());
    assert_eq!(world.events.len(), 4);
}

#[test]
fn a_new_proxy_knows_at_once_what_the_others_found() {
    let mut world = calm_world(1, active(|_| ()));
    world.behave(0, Behaviour::Refusing);
    world.run(world.now + 5000, |_| ());
    // Each of the first few checks the backend itself, and later ones do not.
    for _ in 0..6 {
        world.join();
        world.run(world.now + RELAY_MAX + 10, |_| ());
        let newest = world.proxies.last().and_then(|proxy| proxy.health.set(1)).expect("it joined");
        assert_eq!(newest.available(), 2);
        world.run(world.now + 5000, |_| ());
    }
    assert_eq!(world.events.len(), 7, "and nobody changed its mind");
}

#[test]
fn a_checker_that_is_cut_off_takes_a_backend_from_itself_alone() {
    let mut world = calm_world(5, active(|_| ()));
    let key = TargetKey::new(world.backends[2].address, world.active.clone());
    let ids: Vec<_> = world.proxies.iter().map(|proxy| proxy.id).collect();
    let checker = lb_core::health::checkers_of(key.id(), &ids)[0].expect("five proxies");
    world.cut = Some((checker, 2));
    world.run(world.now + 20_000, |_| ());
    assert_eq!(world.events.iter().map(|(_, proxy, ..)| *proxy).collect::<Vec<_>>(), [checker]);
}

#[test]
fn who_shares_nothing_is_not_disturbed_by_news() {
    let mut health = lb_core::health::Health::new(None, 4, 1);
    health.hear(at(0), News::Proxies(Vec::new()));
    health.reconnect(at(0));
    assert_eq!(health.wakes_at(), None);
}

#[test]
fn simulated_worlds_hold_their_invariants_first_quarter() {
    quarter(0);
}

#[test]
fn simulated_worlds_hold_their_invariants_second_quarter() {
    quarter(1);
}

#[test]
fn simulated_worlds_hold_their_invariants_third_quarter() {
    quarter(2);
}

#[test]
fn simulated_worlds_hold_their_invariants_fourth_quarter() {
    quarter(3);
}

#[expect(clippy::disallowed_methods, reason = "a test reads which seed to run again")]
fn quarter(number: u64) {
    match std::env::var("WEIR_HEALTH_SEED") {
        Ok(seed) if number == 0 => simulate(seed.parse().expect("WEIR_HEALTH_SEED is a number")),
        Ok(_) => {}
        Err(_) => {
            for seed in (0..SEEDS_PER_QUARTER).map(|seed| seed * 4 + number) {
                let held = catch_unwind(AssertUnwindSafe(|| simulate(seed)));
                assert!(held.is_ok(), "the panic above again, alone: WEIR_HEALTH_SEED={seed}");
            }
        }
    }
}

fn simulate(seed: u64) {
    let mut dice = Dice(seed);
    let settings = active(|settings| {
        settings.interval = Duration::from_millis(500 + dice.below(1000));
        settings.timeout = Duration::from_millis(200 + dice.below(1300));
        settings.recheck_interval = (dice.below(3) == 0).then_some(Duration::from_millis(250));
        settings.unhealthy_threshold = 1 + u32::from(dice.below(3) > 0) * 2;
        settings.healthy_threshold = 1 + u32::from(dice.below(2) > 0);
    });
    let passive = PassiveSettings {
        ejection_base: Duration::from_secs(1),
        ejection_max: Duration::from_secs(4),
        available_min: 1 + u32::from(dice.below(2) > 0),
        ..PassiveSettings::default()
    };
    let passive = (dice.below(4) > 0).then(|| passive.validate().expect("settings of a test"));
    let backends = 2 + u16::try_from(dice.below(4)).expect("small");
    let mut world = World::new(seed, backends, settings, passive);
    for _ in 0..=dice.below(5) {
        world.join();
    }
    while world.now < TROUBLE {
        disturb(&mut world, &mut dice);
        let until = world.now + 1 + dice.below(4000);
        world.run(until, check);
    }
    for number in 0..world.backends.len() {
        world.behave(number, Behaviour::Healthy);
    }
    if !world.controller_is_there {
        world.bring_controller_back();
    }
    world.run(world.now + recovery_max(&world), check);
    check_recovered(&world);
}

/// One thing happens to the world.
fn disturb(world: &mut World, dice: &mut Dice) {
    let number = usize::try_from(dice.below(world.backends.len() as u64)).expect("small");
    let position = usize::try_from(dice.below(world.proxies.len() as u64)).expect("small");
    match dice.below(14) {
        0 => world.behave(number, Behaviour::Slow),
        1 => world.behave(number, Behaviour::Failing),
        2 | 3 => world.behave(number, Behaviour::Refusing),
        4 | 5 => world.behave(number, Behaviour::Frozen),
        6 => world.behave(number, Behaviour::Flapping(100 + dice.below(3000))),
        7 | 8 => world.behave(number, Behaviour::Healthy),
        9 if world.proxies.len() < 6 => world.join(),
        10 if world.proxies.len() > 1 => world.kill(position),
        11 if world.controller_is_there => world.lose_controller(),
        12 if !world.controller_is_there => world.bring_controller_back(),
        13 if world.proxies[position].sets.len() == 1 => world.add_set(position, 2),
        13 => world.remove_set(position, 2),
        _ => {}
    }
}

/// What holds at every moment.
fn check(world: &World) {
    for proxy in &world.proxies {
        let roster = proxy.health.checks().roster();
        assert_eq!(roster.targets().len(), world.backends.len(), "sets share their targets");
        assert!(roster.probes_in_flight() <= PROBES_AT_ONCE);
        for set in &proxy.sets {
            check_bounds(world, proxy, *set);
            check_dead(world, proxy, *set);
        }
    }
}

/// The largest share that is ejected, and the least that is kept.
fn check_bounds(world: &World, proxy: &Proxy, number: u64) {
    let Some(settings) = &world.passive else { return };
    let set = proxy.health.set(number).expect("it is there");
    assert!(set.ejected() <= settings.ejected_max(world.backends.len()), "at {} ms", world.now);
    if set.available() < usize::try_from(settings.available_min).expect("small") {
        for (backend, standing) in set.standings().filter(|(_, standing)| !standing.is_available) {
            let target = proxy.health.target(number, backend).expect("it is checked");
            let state = proxy.health.checks().status(target).map(|status| status.state);
            assert_eq!(state, Some(State::Down), "{backend} is held back at {} ms: {standing:?}", world.now);
        }
    }
}

/// A backend that has been dead for long is not available.
fn check_dead(world: &World, proxy: &Proxy, number: u64) {
    let set = proxy.health.set(number).expect("it is there");
    let detection = milliseconds(world.active.detection_max());
    for backend in &world.backends {
        if !matches!(backend.behaviour, Behaviour::Refusing | Behaviour::Frozen) {
            continue;
        }
        let unrest = world.unrest_at.max(proxy.joined);
        // In unrest what was counted may be lost, and a report may have to age before somebody else begins.
        let long = detection + milliseconds(REPORT_AGE_MAX + LOOK_EVERY) * 2 + detection;
        let is_calm = world.now > unrest + long && backend.since > unrest + long;
        let bound = if is_calm {
            backend.since + detection + RELAY_MAX + 10
        } else {
            backend.since.max(unrest) + long
        };
        let is_available = set.standing(&backend.name).is_some_and(|standing| standing.is_available);
        assert!(
            !is_available || world.now <= bound,
            "{} is dead since {} ms and available at {} ms",
            backend.name,
            backend.since,
            world.now
        );
    }
}

/// How long after the last trouble everything must be as if it never was.
fn recovery_max(world: &World) -> u64 {
    let checks = milliseconds(world.active.recovery_max() + REPORT_AGE_MAX + LOOK_EVERY) + RELAY_MAX + 1000;
    let ejection = world.passive.as_ref().map_or(0, |settings| {
        let steps =
            u64::from(WEIGHT_FULL / settings.gray.as_ref().map_or(WEIGHT_FULL, |g| g.recovery_step_permille));
        // The longest ejection with its jitter, the window in which failures are remembered, and the steps of weight.
        milliseconds(settings.ejection_max) * 11 / 10 + milliseconds(settings.window) + (steps + 1) * 1000
    });
    checks + ejection
}

fn check_recovered(world: &World) {
    for proxy in &world.proxies {
        for number in &proxy.sets {
            for (backend, standing) in proxy.health.set(*number).expect("it is there").standings() {
                let is_well = standing.is_available && standing.weight_permille == WEIGHT_FULL;
                assert!(is_well, "{backend} is {standing:?} at {:?} at {} ms", proxy.id, world.now);
            }
        }
    }
}

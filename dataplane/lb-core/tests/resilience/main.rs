//! One process sends requests over backends that are slow, fail, refuse, freeze, close connections, come and go, with all
//! that keeps failures small as in production: circuit, retry budget, slots, queue, connection pools and sessions.
//!
//! A seed that failed is named in the failure; `WEIR_RESILIENCE_SEED=17 cargo test -p lb-core --test resilience` runs it
//! alone.

mod homes;
mod met;
mod request;
mod rules;
mod settings;
mod wires;
mod world;

use met::Met;
use settings::Settings;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;
use world::{Behaviour, World};

/// How many seeds each quarter of the simulation has.
const SEEDS_PER_QUARTER: u64 = 80;
/// Misbehaviour lasts so long; then everything is well.
const TROUBLE: Duration = Duration::from_millis(1500);
/// Mean time between requests in trouble, and after it.
const BETWEEN_REQUESTS: [Duration; 2] = [Duration::from_millis(3), Duration::from_millis(15)];
/// How long it must stay well.
const CALM: Duration = Duration::from_millis(300);

#[test]
fn simulated_requests_keep_to_their_bounds_first_quarter() {
    quarter(0);
}

#[test]
fn simulated_requests_keep_to_their_bounds_second_quarter() {
    quarter(1);
}

#[test]
fn simulated_requests_keep_to_their_bounds_third_quarter() {
    quarter(2);
}

#[test]
fn simulated_requests_keep_to_their_bounds_fourth_quarter() {
    quarter(3);
}

#[test]
fn the_same_seed_is_the_same_history() {
    let mut histories = BTreeSet::new();
    for seed in 0..6 {
        let (history, _) = simulate(seed);
        assert_eq!(history, simulate(seed).0, "seed {seed}");
        histories.insert(history);
    }
    assert_eq!(histories.len(), 6, "another seed is another history");
}

#[expect(clippy::disallowed_methods, reason = "a test reads which seed to run again")]
fn quarter(number: u64) {
    match std::env::var("WEIR_RESILIENCE_SEED") {
        Ok(seed) if number == 0 => {
            simulate(seed.parse().expect("WEIR_RESILIENCE_SEED is a number"));
        }
        Ok(_) => {}
        Err(_) => {
            let mut met = BTreeSet::new();
            for seed in (0..SEEDS_PER_QUARTER).map(|seed| seed * 4 + number) {
                let held = catch_unwind(AssertUnwindSafe(|| simulate(seed)));
                assert!(held.is_ok(), "the panic above again, alone: WEIR_RESILIENCE_SEED={seed}");
                met.extend(held.into_iter().flat_map(|(_, met)| met));
            }
            assert_eq!(met.into_iter().collect::<Vec<Met>>(), Met::ALL, "what the seeds are about");
        }
    }
}

/// One life of a process. Returns a hash of its history, and what it met.
fn simulate(seed: u64) -> (u64, BTreeSet<Met>) {
    let settings = Settings::of(seed);
    let set = world::set(&settings);
    let mut world = World::new(seed, &settings, &set);
    world.between_requests = BETWEEN_REQUESTS[0];
    while world.now < TROUBLE {
        disturb(&mut world);
        let pause = world.milliseconds(5, 120);
        world.run_for(pause);
    }
    for number in 0..settings.replicas {
        world.behave(number, Behaviour::Well);
        world.close_idle(number, Duration::from_secs(60));
    }
    world.join_all();
    world.between_requests = BETWEEN_REQUESTS[1];
    world.run_for(settings.recovery_max());
    rules::check_recovered(&world);
    let (opened, successes) = (world.circuit.opened, world.successes);
    world.run_for(CALM);
    rules::check_recovered(&world);
    assert_eq!(world.circuit.opened, opened, "it opened although all was well");
    assert!(world.successes > successes, "nothing is answered although all is well");
    world.finish();
    rules::check_ended(&world);
    world.homes.check_ended(world.now);
    (world.history(), std::mem::take(&mut world.met))
}

/// One thing happens to the world.
fn disturb(world: &mut World<'_>) {
    let number = world.below(world.settings.replicas);
    match world.below(28) {
        0..=1 => world.behave(number, Behaviour::Slow),
        2..=3 => world.behave(number, Behaviour::Failing),
        4..=5 => world.behave(number, Behaviour::Refusing),
        6..=7 => world.behave(number, Behaviour::Frozen),
        8..=12 => world.behave(number, Behaviour::Well),
        13..=14 => world.restart(number),
        15..=17 => {
            let idle_max = world.milliseconds(5, 80);
            world.close_idle(number, idle_max);
        }
        18..=19 => world.go_away(number),
        20 => world.join_or_leave(number),
        21..=24 => world.leave_all_but(number),
        _ => world.join_all(),
    }
}

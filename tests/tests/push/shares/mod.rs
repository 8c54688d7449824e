//! Limits that proxies have together, from the limiter to the holder of the Lease, over a network that delays, stalls and
//! breaks, with proxies and replicas that die, come and go.
//!
//! What holds is counted request by request: in every stretch of time the proxies together let through no more than one
//! limiter would, and beside that only what a proxy has by itself that no controller stands by.

mod answers;
mod world;

use std::time::Duration;
use world::{Settings, World};

const SECOND: Duration = Duration::from_secs(1);

fn settings(seed: usize) -> Settings {
    let requests: u32 = [5, 40, 200, 1_000][seed % 4];
    let burst = [requests, requests * 3, requests.div_ceil(4)][seed % 3];
    Settings { requests, burst, is_keyed: seed.is_multiple_of(5), stalls: [0, 3, 20][seed / 4 % 3] }
}

/// One thing that goes wrong, or is done by somebody.
fn happen(world: &mut World) {
    let proxies = world.proxies.len();
    let at = world.rng.below(proxies.max(1));
    let away = Duration::from_millis(match world.rng.below(10) {
        0 => world.rng.below(90_000),
        _ => world.rng.below(4_000),
    } as u64);
    match world.rng.below(12) {
        0..2 if proxies < 8 => world.start_proxy(),
        2 if proxies > 1 => world.kill_proxy(at),
        3 if proxies > 1 => world.end_proxy(at),
        4..6 if proxies > 0 => world.cut_proxy(at, away),
        6 => {
            let replica = world.rng.below(3);
            world.kill_replica(replica, away);
        }
        7 => {
            let replica = world.rng.below(3);
            world.cut_replica(replica, away);
        }
        8 => world.pass_lease(),
        _ if proxies > 0 => world.proxies[at].rate = world.rng.below(3_000) as f64,
        _ => {}
    }
}

/// How much of what a limit allows passes in this time.
fn utilisation(world: &mut World, requests: u32, time: Duration) -> f64 {
    let before = world.passed;
    world.elapse(time);
    (world.passed - before) as f64 / (f64::from(requests) * time.as_secs_f64())
}

#[test]
fn shares_follow_demand_in_seconds_and_little_of_the_limit_is_left_over() {
    for seed in 0..30 {
        let requests = [100, 400, 2_000][seed % 3];
        let settings = Settings { requests, burst: requests, is_keyed: seed.is_multiple_of(5), stalls: 0 };
        let mut world = World::new(seed, settings, 3);
        let set = |world: &mut World, rates: [f64; 3]| {
            let of_limit = |rate| rate * f64::from(requests);
            world.proxies.iter_mut().zip(rates).for_each(|(proxy, rate)| proxy.rate = of_limit(rate));
        };
        set(&mut world, [1.0, 1.0, 1.0]);
        world.elapse(10 * SECOND);
        for rates in [[1.0, 1.0, 1.0], [2.0, 0.0, 0.0], [0.0, 0.0, 1.5], [0.2, 3.0, 0.2], [0.6, 0.6, 0.6]] {
            set(&mut world, rates);
            world.elapse(8 * SECOND);
            let all: f64 = rates.iter().sum();
            for (proxy, rate) in world.proxies.iter().zip(rates) {
                let (has, wants) = (proxy.share(), rate / all);
                assert!((has - wants).abs() < 0.06, "seed {seed}: {has} for {wants} of {rates:?}");
            }
            let used = utilisation(&mut world, requests, 10 * SECOND);
            assert!((0.95..=1.001).contains(&used), "seed {seed}: {used} of the limit under {rates:?}");
        }
        assert!(world.worst <= f64::from(requests) + 2.0 && world.extra == 0.0, "seed {seed}");
    }
}

#[test]
fn a_quiet_proxy_passes_its_first_request_and_one_that_comes_finds_something() {
    for seed in 0..10 {
        let settings = Settings { requests: 100, burst: 100, is_keyed: false, stalls: 0 };
        let mut world = World::new(seed, settings, 3);
        for (proxy, rate) in world.proxies.iter_mut().zip([300.0, 0.0, 0.0]) {
            proxy.rate = rate;
        }
        world.elapse(20 * SECOND);
        assert!(world.proxies[1..].iter().all(|proxy| proxy.passes(world.now)), "seed {seed}");
        world.start_proxy();
        world.proxies[3].rate = 0.0;
        world.elapse(SECOND / 2);
        assert!(world.proxies[3].passes(world.now), "seed {seed}: half a second after it came");
    }
}

#[test]
fn a_quota_of_a_long_period_can_be_had_at_one_proxy() {
    let settings = Settings { requests: 1, burst: 300, is_keyed: false, stalls: 0 };
    let mut world = World::new(1, settings, 3);
    world.proxies.iter_mut().for_each(|proxy| proxy.rate = 0.0);
    world.elapse(20 * SECOND);
    world.proxies[1].rate = 100.0;
    world.elapse(20 * SECOND);
    assert!((290..=345).contains(&world.passed), "{} of a burst of 300 and 40 more", world.passed);
}

#[test]
fn without_controllers_proxies_go_on_with_equal_shares_and_pass_no_more_together() {
    for seed in 0..10 {
        let settings = Settings { requests: 200, burst: 200, is_keyed: false, stalls: 0 };
        let mut world = World::new(seed, settings, 4);
        world.proxies.iter_mut().for_each(|proxy| proxy.rate = 150.0);
        world.elapse(15 * SECOND);
        (0..3).for_each(|replica| world.kill_replica(replica, 300 * SECOND));
        for (time, least) in [(25, 0.95), (60, 0.9)] {
            let used = utilisation(&mut world, 200, time * SECOND);
            assert!((least..=1.01).contains(&used), "seed {seed}: {used} in {time} s");
        }
        assert!(world.worst <= 202.0, "seed {seed}: {}", world.worst);
        let alone: f64 = world.proxies.iter().map(world::Proxy::share).sum();
        assert!(alone <= 1.0, "{alone}");
    }
}

#[test]
fn together_proxies_pass_no_more_than_the_limit_whatever_breaks() {
    let (mut passed, mut extra) = (0, 0.0);
    for seed in 0..24 {
        let settings = settings(seed);
        let mut world = World::new(seed, settings, 1 + seed % 5);
        while world.now < 150 * SECOND {
            let quiet = Duration::from_millis(world.rng.below(6_000) as u64);
            world.elapse(quiet);
            happen(&mut world);
            let bound = f64::from(settings.burst) + 2.0;
            assert!(
                world.worst <= bound,
                "seed {seed} at {:?}: {} ahead, {settings:?}",
                world.now,
                world.worst
            );
        }
        passed += world.passed;
        extra += world.extra;
    }
    assert!(passed > 50_000, "{passed}");
    assert!(extra < passed as f64, "{extra} of {passed}: the bound would say nothing");
}

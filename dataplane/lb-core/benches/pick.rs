//! What a pick costs, for each algorithm and number of backends: `figure pick.ALGORITHM.COUNT VALUE ns`.
//!
//! One worker, all else quiet. Backends have requests on them and a latency, as under load; a pick's request ends many
//! picks later. What counts requests in and out is not in the figure. Of several rounds the median counts.

#![allow(clippy::disallowed_methods, reason = "a bench measures time; the core is given it")]
#![allow(clippy::print_stdout, reason = "figures are what it is for")]

use lb_core::backend::{Algorithm, Backend, Membership, Place, SetPolicy, Smoothing};
use lb_core::balance::{Outcome, OutcomeKind, PickRequest, Picker, Recorder, Rng};
use std::collections::VecDeque;
use std::hint::black_box;
use std::time::{Duration, Instant};

const COUNTS: [usize; 4] = [10, 100, 1_000, 10_000];
const ROUNDS: usize = 9;
const BATCHES: usize = 1_500;
/// Picks between two looks at the clock; their requests begin after it.
const BATCH: usize = 64;
/// Requests in flight for each ten backends.
const IN_FLIGHT_PER_TEN: usize = 7;

fn main() {
    let algorithms = [
        ("round_robin", Algorithm::RoundRobin),
        ("random", Algorithm::Random),
        ("least_request", Algorithm::default()),
        ("least_connections", Algorithm::LeastConnections),
        ("least_response_time", Algorithm::LeastResponseTime(Smoothing::default())),
        ("peak_ewma", Algorithm::PeakEwma(Smoothing::default())),
        ("maglev", Algorithm::Maglev { load_percent_max: None }),
        ("maglev_bounded", Algorithm::MAGLEV),
    ];
    for (name, algorithm) in algorithms {
        for count in COUNTS {
            for (suffix, weight_of) in [("", equal as fn(usize) -> u32), (".weighted", various)] {
                let nanos = median(algorithm, count, weight_of);
                println!("figure pick.{name}.{count}{suffix} {nanos:.1} ns");
            }
        }
    }
    for count in COUNTS {
        let began = Instant::now();
        let members = members(Algorithm::MAGLEV, count, various);
        let micros = began.elapsed().as_secs_f64() * 1e6;
        black_box(&members);
        println!("figure build.maglev.{count} {micros:.0} us");
    }
}

fn equal(_: usize) -> u32 {
    1
}

fn various(n: usize) -> u32 {
    u32::try_from(n % 5).expect("small") + 1
}

fn members(algorithm: Algorithm, count: usize, weight_of: fn(usize) -> u32) -> Membership {
    let policy = SetPolicy::new(algorithm);
    let backend = |n: usize| Backend {
        weight: weight_of(n),
        ..Backend::new(format!("pod-{n}"), ([10, 0, 0, 1], 80).into())
    };
    Membership::build(1, (0..count).map(backend).collect(), &policy, &Place::default(), Duration::ZERO)
}

fn median(algorithm: Algorithm, count: usize, weight_of: fn(usize) -> u32) -> f64 {
    let members = members(algorithm, count, weight_of);
    let mut rng = Rng::new(1);
    let mut recorder = Recorder::default();
    for backend in members.backends() {
        let latency = Duration::from_micros(5_000 + rng.bits() % 10_000);
        let outcome = Outcome { latency, kind: OutcomeKind::Success };
        recorder.record(&backend.live, algorithm.smoothing(), outcome);
    }
    recorder.merge(Duration::ZERO);
    let mut picker = Picker::new(algorithm, 1);
    let mut in_flight = VecDeque::new();
    let mut rounds: Vec<f64> = Vec::new();
    for round in 0..=ROUNDS {
        let mut spent = Duration::ZERO;
        for _ in 0..BATCHES {
            let mut picked = Vec::with_capacity(BATCH);
            let began = Instant::now();
            for _ in 0..BATCH {
                let key = Some(rng.bits());
                let request = PickRequest { now: Duration::from_millis(5), key, ..PickRequest::default() };
                let backend = black_box(picker.pick(&members, &request, &mut rng)).backend();
                picked.push(backend.expect("there are backends"));
            }
            spent += began.elapsed();
            for backend in picked {
                in_flight.push_back(backend.live.enter());
                if in_flight.len() > count * IN_FLIGHT_PER_TEN / 10 {
                    in_flight.pop_front();
                }
            }
        }
        // The first round warms caches.
        if round > 0 {
            rounds.push(spent.as_secs_f64() * 1e9 / (BATCHES * BATCH) as f64);
        }
    }
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}

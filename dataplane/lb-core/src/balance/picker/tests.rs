use super::*;
use crate::backend::tests::{backend, policy};
use crate::backend::{BackendState::*, Eligibility, Hints, InFlight, Place, Smoothing, Standing};
use crate::balance::{Outcome, OutcomeKind, Recorder, Rng};
use proptest::prelude::*;
use std::collections::BTreeMap;

const SMOOTHING: Smoothing =
    Smoothing { decay: Duration::from_secs(10), error_penalty: Duration::from_secs(1) };
const ALL: [Algorithm; 8] = [
    Algorithm::RoundRobin,
    Algorithm::Random,
    Algorithm::LeastRequest { choices: 2 },
    Algorithm::LeastRequest { choices: 5 },
    Algorithm::LeastConnections,
    Algorithm::LeastResponseTime(SMOOTHING),
    Algorithm::PeakEwma(SMOOTHING),
    Algorithm::MAGLEV,
];

fn down() -> Standing {
    Standing { is_available: false, ..Standing::default() }
}

fn named(n: usize, weight: u32) -> Backend {
    backend(&format!("{n:04}"), weight, Ready)
}

fn members(version: u64, algorithm: Algorithm, backends: Vec<Backend>) -> Membership {
    let policy = policy(algorithm, Eligibility::default());
    Membership::build(version, backends, &policy, &Place::default(), Duration::ZERO)
}

fn weighted(algorithm: Algorithm, weights: &[u32]) -> Membership {
    members(1, algorithm, weights.iter().enumerate().map(|(n, weight)| named(n, *weight)).collect())
}

/// A worker: a picker, its random numbers and requests that stay.
struct Worker {
    picker: Picker,
    rng: Rng,
    in_flight: Vec<InFlight>,
}

impl Worker {
    fn new(algorithm: Algorithm, seed: u64) -> Self {
        Self { picker: Picker::new(algorithm, seed), rng: Rng::new(seed), in_flight: Vec::new() }
    }

    fn pick<'a>(&mut self, members: &'a Membership, tried: &[Arc<Live>]) -> Option<&'a Backend> {
        let request = PickRequest { tried, ..PickRequest::default() };
        self.picker.pick(members, &request, &mut self.rng).backend()
    }

    fn pick_for<'a>(&mut self, members: &'a Membership, key: u64) -> &'a Backend {
        let request = PickRequest { key: Some(key), ..PickRequest::default() };
        self.picker.pick(members, &request, &mut self.rng).backend().expect("there are backends")
    }

    /// Picks and stays.
    fn enter<'a>(&mut self, members: &'a Membership) -> &'a Backend {
        let backend = self.pick(members, &[]).expect("there are backends");
        self.in_flight.push(backend.live.enter());
        backend
    }

    fn counts(&mut self, members: &Membership, picks: usize) -> Vec<usize> {
        let mut counts = vec![0; members.backends().len()];
        for _ in 0..picks {
            let picked = self.pick(members, &[]).expect("there are backends");
            counts[position(members, picked)] += 1;
        }
        counts
    }
}

fn position(members: &Membership, backend: &Backend) -> usize {
    members.backends().iter().position(|other| other.id == backend.id).expect("a member")
}

fn in_flight(members: &Membership) -> Vec<u32> {
    members.backends().iter().map(|backend| backend.live.in_flight()).collect()
}

/// Records answers of these latencies, in milliseconds, at this second.
fn answer(members: &Membership, seconds: u64, latencies_ms: &[u64]) {
    let mut recorder = Recorder::default();
    for (backend, ms) in members.backends().iter().zip(latencies_ms) {
        let outcome = Outcome { latency: Duration::from_millis(*ms), kind: OutcomeKind::Success };
        recorder.record(&backend.live, SMOOTHING, outcome);
    }
    recorder.merge(Duration::from_secs(seconds));
}

/// Each count is within five standard deviations of a binomial distribution: one run in some 100,000 would not be, and
/// the seeds are fixed.
fn assert_shares(counts: &[usize], shares: &[f64], what: &str) {
    let picks = counts.iter().sum::<usize>() as f64;
    for (count, share) in counts.iter().zip(shares) {
        let off = (*count as f64 - picks * share).abs();
        let deviation = (picks * share * (1.0 - share)).sqrt();
        assert!(off <= 5.0 * deviation, "{what}: {counts:?} for {shares:?}");
    }
}

#[test]
fn every_picker_follows_a_change_of_members_from_none_to_many_and_back() {
    for algorithm in ALL {
        let mut worker = Worker::new(algorithm, 1);
        let mut version = 0;
        let mut next = |count: usize| {
            version += 1;
            members(
                version,
                algorithm,
                (0..count).zip([1, 2, 3].into_iter().cycle()).map(|(n, weight)| named(n, weight)).collect(),
            )
        };
        for count in [0, 1, 2, 40, 3, 0, 17, 1, 0] {
            let members = next(count);
            for _ in 0..100 {
                let picked = worker.pick(&members, &[]);
                assert_eq!(picked.is_some(), count > 0, "{algorithm:?} of {count}");
            }
        }
        assert!(worker.pick(&Membership::default(), &[]).is_none());
    }
}

#[test]
fn round_robin_takes_turns_and_keeps_its_place_when_members_change() {
    let mut worker = Worker::new(Algorithm::RoundRobin, 0);
    let two = weighted(Algorithm::RoundRobin, &[1, 1]);
    assert_eq!(worker.counts(&two, 3), [2, 1]);
    let three = members(2, Algorithm::RoundRobin, (0..3).map(|n| named(n, 1)).collect());
    let order: Vec<usize> = (0..4).map(|_| position(&three, worker.pick(&three, &[]).unwrap())).collect();
    assert_eq!(order, [1, 2, 0, 1], "0 was served last");
}

#[test]
fn shares_follow_weights_while_there_is_little_load() {
    // Round robin is exact. Maglev is by the table, and these are picks without a key.
    for algorithm in ALL {
        let members = weighted(algorithm, &[1, 2, 7]);
        let counts = Worker::new(algorithm, 5).counts(&members, 10_000);
        assert_shares(&counts, &[0.1, 0.2, 0.7], &format!("{algorithm:?}"));
    }
}

#[test]
fn equal_backends_have_equal_shares_when_there_is_no_load() {
    for algorithm in ALL {
        let members = weighted(algorithm, &[3; 20]);
        let counts = Worker::new(algorithm, 6).counts(&members, 40_000);
        if matches!(algorithm, Algorithm::LeastConnections | Algorithm::LeastResponseTime(_)) {
            // What the last pick chose is looked at again, but preferred to nothing.
            assert!(counts.iter().all(|count| *count > 1600), "{algorithm:?}: {counts:?}");
        }
        assert_shares(&counts, &[0.05; 20], &format!("{algorithm:?}"));
    }
}

#[test]
fn random_draws_have_the_distribution_of_the_weights() {
    // Pearson's chi-square over nine backends: eight degrees of freedom, 99.99 percent of all runs are below 31.8.
    let weights = [1, 1, 2, 3, 5, 8, 13, 21, 34];
    let members = weighted(Algorithm::Random, &weights);
    let counts = Worker::new(Algorithm::Random, 9).counts(&members, 88_000);
    let term = |(count, weight): (&usize, &u32)| {
        let expected = f64::from(*weight) * 1000.0;
        (*count as f64 - expected).powi(2) / expected
    };
    let chi_square: f64 = counts.iter().zip(&weights).map(term).sum();
    assert!(chi_square < 31.8, "{chi_square}: {counts:?}");
}

#[test]
fn load_is_even_for_its_weight_under_load() {
    // 300 requests that stay, on weights that add up to 15.
    for algorithm in [
        Algorithm::LeastRequest { choices: 2 },
        Algorithm::LeastRequest { choices: 5 },
        Algorithm::LeastConnections,
    ] {
        let members = weighted(algorithm, &[1, 2, 3, 4, 5]);
        let mut worker = Worker::new(algorithm, 3);
        for _ in 0..300 {
            worker.enter(&members);
        }
        for (count, fair) in in_flight(&members).iter().zip([20, 40, 60, 80, 100]) {
            let off = count.abs_diff(fair);
            let off_max = if algorithm == Algorithm::LeastConnections { 3 } else { 10 };
            assert!(off <= off_max, "{algorithm:?}: {:?}", in_flight(&members));
        }
    }
}

#[test]
fn least_request_takes_the_less_loaded_of_two_backends_always() {
    let members = weighted(Algorithm::default(), &[1, 1]);
    let mut worker = Worker::new(Algorithm::default(), 1);
    let _busy = members.backends()[0].live.enter();
    assert_eq!(worker.counts(&members, 100), [0, 100]);
}

#[test]
fn least_connections_is_exact_in_a_small_set_and_nearly_in_a_large_one() {
    let small = weighted(Algorithm::LeastConnections, &[1; 16]);
    let mut worker = Worker::new(Algorithm::LeastConnections, 1);
    for _ in 0..1600 {
        let before = in_flight(&small);
        let picked = position(&small, worker.enter(&small));
        assert_eq!(before.iter().min(), Some(&before[picked]));
    }
    let large = weighted(Algorithm::LeastConnections, &[1; 1000]);
    for _ in 0..500 {
        worker.enter(&large);
    }
    assert_eq!(in_flight(&large).iter().max(), Some(&1), "500 requests on 1,000 backends");
    for _ in 0..9_500 {
        worker.enter(&large);
    }
    assert!(in_flight(&large).iter().max() <= Some(&12), "10 for each backend");
}

#[test]
fn latency_decides_for_the_faster_backend_and_for_one_never_asked() {
    for algorithm in [Algorithm::PeakEwma(SMOOTHING), Algorithm::LeastResponseTime(SMOOTHING)] {
        let members = weighted(algorithm, &[1, 1, 1]);
        let mut worker = Worker::new(algorithm, 1);
        answer(&members, 0, &[10, 100]);
        assert!(worker.counts(&members, 100)[2] > 50, "{algorithm:?}: the third has not answered yet");
        let _asked = members.backends()[2].live.enter();
        let counts = worker.counts(&members, 1000);
        assert!(counts[2] == 0, "{algorithm:?}: one request at a time until it has answered, {counts:?}");
        answer(&members, 0, &[10, 100, 1000]);
        let counts = worker.counts(&members, 1000);
        assert!(counts[0] > counts[1] && counts[2] == 0, "{algorithm:?}: {counts:?}");
    }
}

#[test]
fn noise_in_latency_leaves_the_shares_to_the_weights() {
    for algorithm in [Algorithm::PeakEwma(SMOOTHING), Algorithm::LeastResponseTime(SMOOTHING)] {
        let members = weighted(algorithm, &[1, 2, 7]);
        answer(&members, 0, &[10, 19, 12]);
        let mut worker = Worker::new(algorithm, 2);
        let counts = worker.counts(&members, 10_000);
        assert_shares(&counts, &[0.1, 0.2, 0.7], &format!("{algorithm:?}"));
        // The heaviest is twice as slow and more: nobody goes there who has seen another.
        answer(&members, 60, &[10, 19, 60_000]);
        let counts = worker.counts(&members, 10_000);
        assert_eq!(counts[2], 0, "{algorithm:?}: {counts:?}");
    }
}

#[test]
fn latency_counts_requests_for_their_backend_s_weight() {
    let algorithm = Algorithm::LeastResponseTime(SMOOTHING);
    let members = weighted(algorithm, &[1, 2, 7]);
    answer(&members, 0, &[10, 10, 10]);
    let mut worker = Worker::new(algorithm, 2);
    for _ in 0..1000 {
        worker.enter(&members);
    }
    // Drawn by weight, and nobody above twice what another has for its weight.
    for (count, fair) in in_flight(&members).iter().zip([100, 200, 700]) {
        assert!(count.abs_diff(fair) <= fair / 3, "{:?}", in_flight(&members));
    }
    // From an uneven start, load goes where there is room for the weight.
    let _taken: Vec<InFlight> = (0..3000).map(|_| members.backends()[2].live.enter()).collect();
    let counts = worker.counts(&members, 1000);
    assert_eq!(counts[2], 0, "{counts:?}");
    let _more: Vec<InFlight> = (0..900).map(|_| members.backends()[1].live.enter()).collect();
    let counts = worker.counts(&members, 1000);
    assert!(counts[0] == 1000, "100 of weight 1 are less than 1,100 of weight 2: {counts:?}");
}

#[test]
fn a_new_backend_of_a_large_set_is_remembered_until_it_has_caught_up() {
    let members = weighted(Algorithm::LeastConnections, &[1; 100]);
    let _busy: Vec<InFlight> =
        members.backends()[1..].iter().flat_map(|b| (0..20).map(|_| b.live.enter())).collect();
    let mut worker = Worker::new(Algorithm::LeastConnections, 1);
    for _ in 0..100 {
        worker.enter(&members);
    }
    // Eight draws of 100 would have found it eight times; once it is found, it stays the best.
    assert!(in_flight(&members)[0] >= 20, "{}", in_flight(&members)[0]);
}

#[test]
fn requests_on_a_fast_backend_make_it_as_dear_as_a_slow_one() {
    let algorithm = Algorithm::PeakEwma(SMOOTHING);
    let members = weighted(algorithm, &[1, 1]);
    answer(&members, 0, &[10, 45]);
    let mut worker = Worker::new(algorithm, 1);
    let order: Vec<usize> = (0..5).map(|_| position(&members, worker.enter(&members))).collect();
    // 10, 20, 30, 40, then 50 against 45.
    assert_eq!(order, [0, 0, 0, 0, 1]);
}

#[test]
fn a_slow_backend_is_tried_again_once_its_latency_has_faded() {
    let algorithm = Algorithm::PeakEwma(SMOOTHING);
    let members = weighted(algorithm, &[1, 1]);
    let mut worker = Worker::new(algorithm, 1);
    answer(&members, 0, &[10, 1000]);
    let mut picks_slow = |seconds: u64| {
        answer(&members, seconds, &[10]);
        let request = PickRequest { now: Duration::from_secs(seconds), ..PickRequest::default() };
        (0..20).any(|_| {
            let picked = worker.picker.pick(&members, &request, &mut worker.rng).backend().expect("two");
            position(&members, picked) == 1
        })
    };
    // A hundred times as slow takes ln(100) time constants, which are 46 s.
    assert!((1..=45).all(|second| !picks_slow(second)));
    assert!(picks_slow(48));
}

#[test]
fn a_key_keeps_its_backend_whatever_the_worker_and_version() {
    let algorithm = Algorithm::Maglev { load_percent_max: None };
    let backends =
        || (0..50).zip([1, 2].into_iter().cycle()).map(|(n, weight)| named(n, weight)).collect::<Vec<_>>();
    let (one, two) = (members(1, algorithm, backends()), members(2, algorithm, backends()));
    let (mut first, mut second) = (Worker::new(algorithm, 1), Worker::new(algorithm, 2));
    for key in 0..1000 {
        assert_eq!(first.pick_for(&one, key).id, second.pick_for(&two, key).id);
    }
    let fewer = members(3, algorithm, backends().split_off(1));
    let moved = (0..10_000).filter(|key| {
        let before = first.pick_for(&one, *key);
        before.id != second.pick_for(&fewer, *key).id && *before.id != *"0000"
    });
    // Its own keys are a 75th; about as many of the others' move, as in the paper's section 5.3.
    assert!(moved.count() < 2 * 10_000 / 75);
}

#[test]
fn a_full_backend_s_keys_go_on_and_the_bound_holds() {
    let members = weighted(Algorithm::MAGLEV, &[1; 8]);
    let mut worker = Worker::new(Algorithm::MAGLEV, 1);
    let home = position(&members, worker.pick_for(&members, 7));
    let mut seen = BTreeMap::<usize, usize>::new();
    for total in 1..=800u32 {
        // All requests are for one key, the worst there is.
        let picked = worker.pick_for(&members, 7);
        *seen.entry(position(&members, picked)).or_default() += 1;
        worker.in_flight.push(picked.live.enter());
        // The paper's bound: ceil(1.25 * requests / backends).
        let bound = (f64::from(total) * 1.25 / 8.0).ceil();
        let most = in_flight(&members).into_iter().max().map(f64::from);
        assert!(most <= Some(bound), "{most:?} of {total}");
    }
    assert_eq!(seen.get(&home), Some(&125), "and the key's own backend is full");
    worker.in_flight.clear();
    assert_eq!(position(&members, worker.pick_for(&members, 7)), home, "it is back once there is room");
}

#[test]
fn another_backend_comes_before_one_that_was_tried() {
    for algorithm in ALL {
        // A weight that would win every draw.
        let members = weighted(algorithm, &[1_000_000, 1, 1]);
        for seed in 0..20 {
            let mut worker = Worker::new(algorithm, seed);
            let mut tried = vec![Arc::clone(&members.backends()[0].live)];
            for _ in 0..2 {
                let picked = worker.pick(&members, &tried).expect("not all were tried");
                assert!(!tried.iter().any(|live| Arc::ptr_eq(live, &picked.live)), "{algorithm:?}");
                tried.push(Arc::clone(&picked.live));
            }
            assert!(worker.pick(&members, &tried).is_some(), "{algorithm:?}: all were tried, one goes again");
        }
    }
}

#[test]
fn a_reserve_is_used_once_its_betters_were_tried() {
    for algorithm in ALL {
        let reserve = Backend { priority: 1, ..named(9, 1) };
        let members = members(1, algorithm, vec![named(0, 1), named(1, 1), reserve]);
        let mut worker = Worker::new(algorithm, 4);
        assert_eq!(worker.counts(&members, 100)[2], 0, "{algorithm:?}");
        let tried: Vec<_> = members.backends()[..2].iter().map(|backend| Arc::clone(&backend.live)).collect();
        assert_eq!(&*worker.pick(&members, &tried).expect("the reserve").id, "0009", "{algorithm:?}");
    }
}

#[test]
fn lanes_get_their_shares_and_a_key_keeps_its_lane() {
    for algorithm in ALL {
        // Half of the first level is available: 70 percent.
        let backends = (0..4).map(|n| Backend {
            standing: if n == 0 { down() } else { Standing::default() },
            priority: u32::from(n > 1),
            ..named(n, 1)
        });
        let members = members(1, algorithm, backends.collect());
        let counts = Worker::new(algorithm, 8).counts(&members, 20_000);
        // Of one available backend in two; the second level has two.
        assert_shares(&counts[1..2], &[1.0], "one lane alone");
        let shares = [counts[1], counts[2] + counts[3]];
        assert_shares(&shares, &[0.7, 0.3], &format!("{algorithm:?}"));
        let mut worker = Worker::new(Algorithm::MAGLEV, 1);
        if algorithm == Algorithm::MAGLEV {
            let homes = |worker: &mut Worker| -> Vec<usize> {
                (0..100).map(|key| position(&members, worker.pick_for(&members, key))).collect()
            };
            assert_eq!(homes(&mut worker), homes(&mut Worker::new(Algorithm::MAGLEV, 2)));
        }
    }
}

#[test]
fn four_workers_together_are_as_even_as_one() {
    // Workers with equal seeds would move in step; theirs differ, and the counts in flight are shared.
    for algorithm in [Algorithm::default(), Algorithm::LeastConnections] {
        let members = weighted(algorithm, &[1; 10]);
        let mut workers: Vec<Worker> = (0..4).map(|seed| Worker::new(algorithm, seed)).collect();
        for turn in 0..400 {
            workers[turn % 4].enter(&members);
        }
        let counts = in_flight(&members);
        assert!(counts.iter().all(|count| count.abs_diff(40) <= 3), "{algorithm:?}: {counts:?}");
    }
}

fn bounded(tried: &[Arc<Live>], requests_max: u32) -> PickRequest<'_> {
    PickRequest { key: Some(7), tried, requests_max: NonZeroU32::new(requests_max), ..PickRequest::default() }
}

#[test]
fn a_full_backend_is_passed_over_until_it_has_room() {
    for algorithm in ALL {
        // A weight that would win every draw, and one place each.
        let members = weighted(algorithm, &[1_000_000, 1, 1]);
        let Worker { mut picker, mut rng, .. } = Worker::new(algorithm, 1);
        let mut pick = || picker.pick(&members, &bounded(&[], 1), &mut rng);
        let mut all = Vec::new();
        for _ in 0..3 {
            let picked = pick().backend().expect("there is room");
            all.push(picked.live.try_enter(NonZeroU32::new(1)).expect("it has room"));
        }
        assert!(matches!(pick(), Picked::Full), "{algorithm:?}");
        let second = all.remove(1);
        let live = Arc::clone(second.live());
        drop(second);
        let picked = pick().backend().expect("one has room");
        assert!(Arc::ptr_eq(&picked.live, &live), "{algorithm:?}");
    }
}

#[test]
fn one_with_room_is_found_among_many_that_are_full() {
    for algorithm in ALL {
        let members = weighted(algorithm, &[1; 200]);
        let entered: Vec<_> =
            members.backends().iter().filter(|b| &*b.id != "0137").map(|b| b.live.enter()).collect();
        let Worker { mut picker, mut rng, .. } = Worker::new(algorithm, 1);
        for _ in 0..20 {
            let picked = picker.pick(&members, &bounded(&[], 1), &mut rng).backend();
            assert_eq!(picked.map(|b| &*b.id), Some("0137"), "{algorithm:?}");
        }
        drop(entered);
    }
}

#[test]
fn a_tried_backend_goes_again_where_the_others_are_full_and_a_full_one_never() {
    for algorithm in ALL {
        let members = weighted(algorithm, &[1, 5]);
        let [first, second] = members.backends() else { panic!("two") };
        let Worker { mut picker, mut rng, .. } = Worker::new(algorithm, 1);
        let tried = [Arc::clone(&first.live)];
        let on_second = second.live.enter();
        for _ in 0..20 {
            let picked = picker.pick(&members, &bounded(&tried, 1), &mut rng).backend();
            assert_eq!(picked.map(|b| &b.id), Some(&first.id), "{algorithm:?}");
        }
        let on_first = first.live.enter();
        assert!(matches!(picker.pick(&members, &bounded(&tried, 1), &mut rng), Picked::Full));
        drop((on_first, on_second));
    }
}

#[test]
fn nobody_eligible_and_everybody_full_are_different_answers() {
    for algorithm in ALL {
        let mut picker = Picker::new(algorithm, 1);
        let mut rng = Rng::new(1);
        let nobody = members(1, algorithm, vec![Backend { standing: down(), ..named(1, 1) }]);
        assert!(matches!(picker.pick(&nobody, &bounded(&[], 1), &mut rng), Picked::None));
        let full = members(2, algorithm, vec![named(1, 1)]);
        let entered = full.backends()[0].live.enter();
        assert!(matches!(picker.pick(&full, &bounded(&[], 1), &mut rng), Picked::Full));
        let unbounded = bounded(&[], 0);
        assert!(picker.pick(&full, &unbounded, &mut rng).backend().is_some(), "a bound of none");
        drop(entered);
    }
}

#[test]
fn who_is_full_leaves_requests_to_the_next_priority() {
    for algorithm in ALL {
        let reserve = Backend { priority: 1, ..named(9, 1) };
        let members = members(1, algorithm, vec![named(0, 1), named(1, 1), reserve]);
        let Worker { mut picker, mut rng, .. } = Worker::new(algorithm, 4);
        let entered: Vec<_> = members.backends()[..2].iter().map(|backend| backend.live.enter()).collect();
        let picked = picker.pick(&members, &bounded(&[], 1), &mut rng).backend();
        assert_eq!(picked.map(|b| &*b.id), Some("0009"), "{algorithm:?}");
        drop(entered);
    }
}

#[test]
fn a_key_whose_backend_is_full_goes_where_its_bounded_load_would_send_it() {
    for algorithm in [Algorithm::MAGLEV, Algorithm::Maglev { load_percent_max: None }] {
        let members = weighted(algorithm, &[1; 8]);
        let mut worker = Worker::new(algorithm, 1);
        let home = worker.pick_for(&members, 7);
        let entered = home.live.enter();
        let mut next = |seed| {
            let picked = Picker::new(algorithm, seed).pick(&members, &bounded(&[], 1), &mut worker.rng);
            picked.backend().expect("seven have room").id.clone()
        };
        let second = next(1);
        assert_ne!(second, home.id);
        assert!((2..20).all(|seed| next(seed) == second), "for every worker the same");
        drop(entered);
        assert_eq!(next(1), home.id, "it is back once there is room");
    }
}

prop_compose! {
    fn any_backend()(
        id in 0usize..30,
        weight in 0u32..4,
        priority in 0u32..2,
        draining: bool,
        is_available: bool,
        weight_permille in prop::sample::select(vec![0u16, 10, 1000]),
        in_flight in 0usize..3,
    ) -> (Backend, Vec<InFlight>) {
        let backend = Backend {
            priority,
            hints: Hints::default(),
            state: if draining { Draining } else { Ready },
            standing: Standing { is_available, weight_permille, available_since: None },
            ..named(id, weight)
        };
        let in_flight = (0..in_flight).map(|_| backend.live.enter()).collect();
        (backend, in_flight)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_drained_no_unavailable_and_no_full_backend_is_ever_picked(
        versions in prop::collection::vec(prop::collection::vec(any_backend(), 0..20), 1..4),
        seed: u64,
        tried_positions in prop::collection::vec(0usize..20, 0..4),
        // Backends have up to two requests on them.
        requests_max in (0u32..4).prop_map(NonZeroU32::new),
    ) {
        for algorithm in ALL {
            let mut worker = Worker::new(algorithm, seed);
            for (version, backends) in versions.iter().enumerate() {
                let backends: Vec<Backend> = backends.iter().map(|(backend, _)| backend.clone()).collect();
                let members = members(version as u64, algorithm, backends);
                let tried: Vec<Arc<Live>> = tried_positions
                    .iter()
                    .filter_map(|at| members.backends().get(*at))
                    .map(|backend| Arc::clone(&backend.live))
                    .collect();
                let usable = |b: &Backend| {
                    b.weight > 0 && b.standing.is_available && b.standing.weight_permille > 0
                };
                let any_ready = members.backends().iter().any(|b| usable(b) && b.state == Ready);
                let untried = |b: &Backend| !tried.iter().any(|live| Arc::ptr_eq(live, &b.live));
                let may = |b: &&Backend| usable(b) && (b.state == Ready || !any_ready);
                let has_room = |b: &&Backend| requests_max.is_none_or(|max| b.live.in_flight() < max.get());
                let eligible: Vec<&Backend> = members.backends().iter().filter(may).collect();
                let all: Vec<&Backend> = eligible.iter().copied().filter(has_room).collect();
                let request = PickRequest { tried: &tried, requests_max, ..PickRequest::default() };
                for _ in 0..30 {
                    let picked = worker.picker.pick(&members, &request, &mut worker.rng);
                    prop_assert_eq!(matches!(picked, Picked::None), eligible.is_empty());
                    prop_assert_eq!(picked.backend().is_some(), !all.is_empty());
                    let Some(picked) = picked.backend() else { break };
                    prop_assert!(all.iter().any(|b| b.id == picked.id), "{:?} picked {:?}", algorithm, picked);
                    prop_assert!(untried(picked) || !all.iter().any(|b| untried(b)));
                }
            }
        }
    }

    #[test]
    fn equal_seeds_and_events_pick_equal_backends(seed: u64, weights in prop::collection::vec(1u32..5, 1..30)) {
        for algorithm in ALL {
            let run = || {
                let members = weighted(algorithm, &weights);
                let mut worker = Worker::new(algorithm, seed);
                (0..50).map(|_| position(&members, worker.enter(&members))).collect::<Vec<_>>()
            };
            prop_assert_eq!(run(), run());
        }
    }
}

use super::*;
use proptest::prelude::*;

fn at(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn settings() -> BreakerSettings {
    BreakerSettings {
        failure_percent: 50,
        requests_min: NonZeroU32::new(10).unwrap(),
        window: at(10_000),
        reset_after: at(3_000),
        probes: NonZeroU32::new(2).unwrap(),
    }
}

fn closed() -> Arc<Breaker> {
    Arc::new(Breaker::new(settings()))
}

/// Opened at the first second, half-open from the fourth.
fn open() -> Arc<Breaker> {
    let breaker = closed();
    breaker.record(at(1_000), 0, 10);
    breaker
}

fn probe(breaker: &Arc<Breaker>, now: Duration) -> Probe {
    match breaker.admit(now) {
        Admission::Probe(probe) => probe,
        other => panic!("no probe but {other:?} at {now:?}"),
    }
}

fn is_refused(breaker: &Arc<Breaker>, now: Duration) -> bool {
    matches!(breaker.admit(now), Admission::Refused)
}

fn passes(breaker: &Arc<Breaker>, now: Duration) -> bool {
    matches!(breaker.admit(now), Admission::Passed)
}

#[test]
fn it_opens_at_the_share_of_failures_once_there_are_enough_requests() {
    for (percent, batches, opens) in [
        (50, &[(0, 9)][..], false),
        (50, &[(0, 10)], true),
        (50, &[(5, 5)], true),
        (50, &[(6, 5)], false),
        (50, &[(0, 9), (1, 0)], true),
        (50, &[(100, 0), (0, 99)], false),
        (50, &[(100, 0), (0, 100)], true),
        (100, &[(1, 99)], false),
        (100, &[(0, 100)], true),
        (1, &[(99, 1)], true),
        (1, &[(100, 1)], false),
        (1, &[(1_000, 0)], false),
    ] {
        let breaker = Arc::new(Breaker::new(BreakerSettings { failure_percent: percent, ..settings() }));
        for (successes, failures) in batches {
            breaker.record(at(100), *successes, *failures);
        }
        assert_eq!(is_refused(&breaker, at(100)), opens, "{percent} % of {batches:?}");
        assert_eq!(passes(&breaker, at(100)), !opens);
        assert_eq!(breaker.opened(), u64::from(opens));
    }
}

#[test]
fn failures_that_left_the_window_open_nothing() {
    let breaker = closed();
    breaker.record(at(0), 0, 9);
    breaker.record(at(9_999), 0, 0);
    breaker.record(at(10_000), 0, 1);
    assert!(passes(&breaker, at(10_000)));
    breaker.record(at(10_001), 0, 9);
    assert!(is_refused(&breaker, at(10_001)));
}

#[test]
fn an_open_circuit_passes_nothing_until_its_time_and_says_when() {
    let breaker = open();
    for now in [1_000, 2_000, 3_999] {
        assert!(is_refused(&breaker, at(now)), "at {now}");
        assert_eq!(breaker.state(at(now)), BreakerState::Open { until: at(4_000) });
        assert_eq!(breaker.retry_after(at(now)), at(4_000 - now));
    }
    assert_eq!(breaker.state(at(4_000)), BreakerState::HalfOpen, "also while nobody asks");
    assert_eq!(breaker.retry_after(at(4_000)), Duration::ZERO);
    drop(probe(&breaker, at(4_000)));
    assert_eq!(breaker.state(at(4_000)), BreakerState::HalfOpen);
}

#[test]
fn a_time_of_less_than_a_millisecond_is_not_cut_short() {
    let breaker = closed();
    let now = Duration::from_micros(1_000_001);
    breaker.record(now, 0, 10);
    assert!(is_refused(&breaker, now + at(2_999)));
    assert!(is_refused(&breaker, now + at(3_000)), "to the next millisecond");
    drop(probe(&breaker, now + at(3_001)));
}

#[test]
fn it_closes_with_an_empty_window_when_all_probes_succeed() {
    let breaker = open();
    let (first, second) = (probe(&breaker, at(4_000)), probe(&breaker, at(4_001)));
    assert!(is_refused(&breaker, at(4_002)), "two under way");
    first.end(at(4_010), true);
    assert!(is_refused(&breaker, at(4_011)), "one under way, one succeeded");
    second.end(at(4_020), true);
    assert!(passes(&breaker, at(4_021)));
    assert_eq!((breaker.state(at(4_021)), breaker.opened()), (BreakerState::Closed, 1));
    breaker.record(at(4_030), 0, 9);
    assert!(passes(&breaker, at(4_030)), "what came before it opened is forgotten");
    breaker.record(at(4_031), 0, 1);
    assert!(is_refused(&breaker, at(4_031)));
}

#[test]
fn one_failed_probe_opens_it_again_for_the_whole_time() {
    let breaker = open();
    let (first, second) = (probe(&breaker, at(4_000)), probe(&breaker, at(4_000)));
    first.end(at(4_100), true);
    second.end(at(4_200), false);
    assert_eq!(breaker.state(at(4_200)), BreakerState::Open { until: at(7_200) });
    assert_eq!(breaker.opened(), 2);
    let third = probe(&breaker, at(7_200));
    third.end(at(7_210), true);
    assert!(!passes(&breaker, at(7_211)), "the success of before does not count");
}

#[test]
fn a_probe_that_is_dropped_gives_its_place_back() {
    let breaker = open();
    let (first, second) = (probe(&breaker, at(4_000)), probe(&breaker, at(4_000)));
    assert!(is_refused(&breaker, at(4_000)));
    drop(first);
    let third = probe(&breaker, at(4_000));
    assert!(is_refused(&breaker, at(4_000)));
    second.end(at(4_010), true);
    third.end(at(4_010), true);
    assert!(passes(&breaker, at(4_010)));
}

#[test]
fn a_probe_of_an_older_generation_says_nothing() {
    for is_success in [None, Some(true), Some(false)] {
        let breaker = open();
        let (old, failed) = (probe(&breaker, at(4_000)), probe(&breaker, at(4_000)));
        failed.end(at(4_000), false);
        let say = |probe: Probe, now| match is_success {
            Some(is_success) => probe.end(now, is_success),
            None => drop(probe),
        };
        // While it is half-open once more, with one place left.
        let new = probe(&breaker, at(7_000));
        say(old, at(7_001));
        assert_eq!((breaker.state(at(7_001)), breaker.opened()), (BreakerState::HalfOpen, 2));
        let other = probe(&breaker, at(7_002));
        assert!(is_refused(&breaker, at(7_002)), "its place was not given back twice");
        new.end(at(7_003), true);
        other.end(at(7_003), true);
        assert!(passes(&breaker, at(7_003)));
    }
}

#[test]
fn outcomes_of_before_say_nothing_while_it_is_not_closed() {
    let breaker = open();
    breaker.record(at(3_000), 1_000, 0);
    breaker.record(at(3_000), 0, 1_000);
    assert_eq!((breaker.state(at(3_000)), breaker.opened()), (BreakerState::Open { until: at(4_000) }, 1));
    let one = probe(&breaker, at(4_000));
    breaker.record(at(4_001), 0, 1_000);
    assert_eq!(breaker.opened(), 1);
    one.end(at(4_002), true);
    probe(&breaker, at(4_002)).end(at(4_003), true);
    assert!(passes(&breaker, at(4_003)));
}

#[test]
fn workers_that_ask_a_half_open_circuit_at_once_get_as_many_probes_as_there_are() {
    for probes in [1, 3, 100] {
        let settings = BreakerSettings { probes: NonZeroU32::new(probes).unwrap(), ..settings() };
        let breaker = Arc::new(Breaker::new(settings));
        breaker.record(at(1_000), 0, 10);
        #[expect(clippy::disallowed_methods, reason = "a test of what threads do at once")]
        let got: Vec<Probe> = std::thread::scope(|scope| {
            let ask = || {
                (0..100).filter_map(|_| match breaker.admit(at(4_000)) {
                    Admission::Probe(probe) => Some(probe),
                    Admission::Refused => None,
                    Admission::Passed => panic!("it is not closed"),
                })
            };
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(move || ask().collect::<Vec<_>>())).collect();
            workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
        });
        assert_eq!(got.len(), probes as usize);
        for probe in got {
            assert!(!passes(&breaker, at(4_001)));
            probe.end(at(4_001), true);
        }
        assert!(passes(&breaker, at(4_001)));
    }
}

#[test]
fn the_most_probes_that_there_may_be_are_counted_and_no_more() {
    let probes = NonZeroU32::new(PROBES_MAX + 1).unwrap();
    let breaker = Arc::new(Breaker::new(BreakerSettings { probes, ..settings() }));
    breaker.record(at(1_000), 0, 10);
    let all: Vec<Probe> = (0..PROBES_MAX).map(|_| probe(&breaker, at(4_000))).collect();
    assert!(is_refused(&breaker, at(4_000)));
    all.into_iter().for_each(|probe| probe.end(at(4_000), true));
    assert!(passes(&breaker, at(4_000)));
}

proptest! {
    #[test]
    fn a_gate_is_what_it_was_packed_from(
        generation in 0..1u64 << GENERATION_BITS,
        kind in 0..3u8,
        until in 0..1u64 << REST_BITS,
        counts in (0..=u64::from(PROBES_MAX), 0..=u64::from(PROBES_MAX)),
    ) {
        let phase = match kind {
            0 => Phase::Closed,
            1 => Phase::Open { until },
            _ => Phase::HalfOpen { under_way: counts.0, succeeded: counts.1 },
        };
        let gate = Gate { generation, phase };
        prop_assert_eq!(Gate::of(gate.word()), gate);
    }
}

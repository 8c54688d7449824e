use super::*;
use proptest::prelude::*;

fn at(milliseconds: u64) -> Moment {
    Moment::after_start(Duration::from_millis(milliseconds))
}

fn passive(change: impl FnOnce(&mut PassiveSettings)) -> Passive {
    let mut settings = PassiveSettings { jitter_permille: 0, ..PassiveSettings::default() };
    change(&mut settings);
    Passive::new(settings.validate().expect("settings of a test"))
}

fn batch(successes: u32, errors: u32, connect_failures: u32) -> Batch {
    let latency_sum = Duration::from_millis(10) * successes;
    Batch { successes, errors, connect_failures, latency_sum, ..Batch::default() }
}

#[test]
fn more_than_half_of_the_last_ten_is_too_much_and_half_is_not() {
    let rows = [
        (batch(5, 5, 0), None),
        (batch(4, 6, 0), Some(Cause::FailureShare { permille: 600 })),
        (batch(3, 6, 0), None),
        (batch(499, 501, 0), Some(Cause::FailureShare { permille: 501 })),
        (batch(0, 4, 0), None),
        (batch(0, 5, 0), Some(Cause::ConsecutiveFailures { count: 5 })),
        (batch(0, 0, 2), None),
        (batch(0, 0, 3), Some(Cause::ConnectFailures { count: 3 })),
        (batch(0, 1, 3), None),
        (batch(100, 0, 0), None),
    ];
    for (batch, cause) in rows {
        assert_eq!(passive(|_| ()).observe(at(0), &batch), cause, "{batch:?}");
    }
}

#[test]
fn rows_go_on_over_batches_and_a_success_ends_them() {
    let mut passive = passive(|_| ());
    for (batch, deserves) in [
        (batch(0, 4, 0), false),
        (batch(1, 0, 0), false),
        (batch(0, 2, 0), false),
        (batch(0, 0, 2), false),
        (batch(0, 1, 0), true),
    ] {
        assert_eq!(passive.observe(at(0), &batch).is_some(), deserves, "{batch:?}");
    }
}

#[test]
fn what_is_switched_off_never_ejects() {
    let mut passive = passive(|settings| {
        settings.failure_share_permille = None;
        settings.consecutive_failures = None;
        settings.consecutive_connect_failures = None;
    });
    assert_eq!(passive.observe(at(0), &batch(0, 1000, 1000)), None);
}

#[test]
fn ejections_grow_to_their_largest_and_are_forgiven() {
    let mut passive = passive(|settings| settings.ejection_max = Duration::from_secs(25));
    let cause = Cause::ConsecutiveFailures { count: 5 };
    for seconds in [10, 20, 25, 25] {
        passive.eject(at(0), cause, 0);
        assert_eq!(passive.ejection(), Ejection::Out { until: at(seconds * 1000), cause });
        passive.restore(at(0));
    }
    for (now, left) in
        [(9_999, 4), (10_000, 3), (19_999, 3), (20_000, 2), (30_000, 1), (40_000, 0), (60_000, 0)]
    {
        passive.weigh(at(now), None);
        assert_eq!(passive.ejections(), left, "at {now} ms");
    }
}

#[test]
fn jitter_only_lengthens() {
    let cause = Cause::ConsecutiveFailures { count: 5 };
    let mut passive = passive(|settings| settings.jitter_permille = 100);
    passive.eject(at(0), cause, u64::MAX);
    let Ejection::Out { until, .. } = passive.ejection() else { panic!("it is ejected") };
    assert!(until > at(10_999) && until < at(11_000));
}

#[test]
fn while_it_is_ejected_nothing_counts() {
    let mut passive = passive(|_| ());
    passive.eject(at(0), Cause::ConnectFailures { count: 3 }, 0);
    assert_eq!(passive.observe(at(1), &batch(0, 100, 0)), None);
    passive.restore(at(10_000));
    assert_eq!(passive.observe(at(10_001), &batch(0, 1, 0)), None);
}

#[test]
fn weight_falls_with_failures_before_they_eject() {
    for (errors, weight) in [(0, 1000), (10, 1000), (20, 750), (30, 550), (49, 100), (50, 100)] {
        let mut passive = passive(|_| ());
        assert_eq!(passive.observe(at(0), &batch(100 - errors, errors, 0)), None);
        passive.weigh(at(0), None);
        assert_eq!(passive.weight_permille(), weight, "{errors} %");
    }
}

#[test]
fn weight_falls_with_latency_far_above_the_median() {
    let milliseconds = Duration::from_millis;
    let rows = [
        // The backend's mean is 10 ms; the excess is too little where it is under 10 ms.
        (milliseconds(4), milliseconds(1), 1000),
        (milliseconds(2), milliseconds(1), 600),
        (milliseconds(1), milliseconds(1), 300),
        (milliseconds(1), milliseconds(10), 1000),
        (Duration::ZERO, milliseconds(1), 100),
    ];
    for (median, excess, weight) in rows {
        let mut passive = passive(|settings| {
            let gray = settings.gray.get_or_insert_default();
            gray.latency_excess_min = excess;
        });
        passive.observe(at(0), &batch(100, 0, 0));
        passive.weigh(at(0), Some(median));
        assert_eq!(passive.weight_permille(), weight, "{median:?}");
    }
}

#[test]
fn weight_comes_back_step_by_step() {
    let mut passive = passive(|_| ());
    passive.eject(at(0), Cause::ConnectFailures { count: 3 }, 0);
    passive.restore(at(10_000));
    let mut weights = vec![passive.weight_permille()];
    for second in 11..22 {
        passive.weigh(at(second * 1000), None);
        weights.push(passive.weight_permille());
    }
    assert_eq!(weights, [100, 200, 300, 400, 500, 600, 700, 800, 900, 1000, 1000, 1000]);
}

#[test]
fn a_few_outcomes_lower_no_weight() {
    let mut passive = passive(|_| ());
    passive.observe(at(0), &batch(5, 4, 0));
    passive.weigh(at(0), None);
    assert_eq!((passive.weight_permille(), passive.mean_latency(at(0))), (1000, None));
}

proptest! {
    #[test]
    fn weights_stay_within_their_limits(
        batches in prop::collection::vec((0u32..200, 0u32..200, 0u32..5, 0u64..5000, 0u64..100), 1..60)
    ) {
        let mut passive = passive(|_| ());
        let mut now = Moment::START;
        for (successes, errors, connect_failures, pause, median) in batches {
            now = now + Duration::from_millis(pause);
            let cause = passive.observe(now, &batch(successes, errors, connect_failures));
            prop_assert!(cause.is_none() || errors + connect_failures > 0);
            let before = passive.weight_permille();
            passive.weigh(now, Some(Duration::from_millis(median)));
            let weight = passive.weight_permille();
            prop_assert!((100..=1000).contains(&weight) && weight <= before + 100, "{before} to {weight}");
        }
    }
}

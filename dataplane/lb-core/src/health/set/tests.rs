use super::*;
use proptest::prelude::*;

fn at(milliseconds: u64) -> Moment {
    Moment::after_start(Duration::from_millis(milliseconds))
}

fn name(number: usize) -> Arc<str> {
    format!("b{number}").into()
}

fn target(number: usize) -> TargetId {
    TargetId(number as u64)
}

fn member(number: usize) -> Member {
    Member {
        backend: name(number),
        target: Some(target(number)),
        state: State::Unknown,
        initial: Initial::Up,
    }
}

fn set_of(count: usize, change: impl FnOnce(&mut PassiveSettings)) -> SetHealth {
    let mut settings = PassiveSettings { jitter_permille: 0, ..PassiveSettings::default() };
    change(&mut settings);
    let mut set = SetHealth::new(Some(settings.validate().expect("settings of a test")), 0, 1);
    set.replace_members(at(0), (0..count).map(member).collect());
    assert_eq!(set.step(at(0)).changes, []);
    set
}

fn turned(number: usize, state: State, now: Moment) -> TargetChange {
    let reason = (state == State::Down).then_some(Reason::Refused);
    TargetChange { target: target(number), state, reason, at: now }
}

fn failing() -> Batch {
    Batch { connect_failures: 3, ..Batch::default() }
}

/// `b0 down` and so on.
fn events(steps: &SetSteps) -> Vec<String> {
    let word = |event: &Event| if matches!(event, Event::Up(_)) { "up" } else { "down" };
    steps.changes.iter().map(|change| format!("{} {}", change.backend, word(&change.event))).collect()
}

#[test]
fn a_backend_is_down_with_its_checks_and_up_with_them() {
    let mut set = set_of(2, |_| ());
    set.turn(at(10), &turned(0, State::Down, at(10)));
    let steps = set.step(at(10));
    let event = Event::Down(DownReason::ChecksFail(Some(Reason::Refused)));
    assert_eq!(steps.changes, [Change { backend: name(0), event, at: at(10) }]);
    assert_eq!(event.to_string(), "backend down: checks fail: connection refused");
    assert_eq!(
        set.standing("b0").map(|standing| (standing.is_available, standing.available_since)),
        Some((false, None))
    );
    set.turn(at(20), &turned(0, State::Up, at(20)));
    assert_eq!(set.step(at(20)).changes[0].event, Event::Up(UpReason::ChecksPass));
    assert_eq!(set.standing("b0").and_then(|standing| standing.available_since), Some(at(20)));
    assert_eq!(set.step(at(30)), SetSteps::default(), "nothing changed since");
}

#[test]
fn ejection_ends_in_time_and_weight_comes_back() {
    let mut set = set_of(2, |_| ());
    set.observe(at(10), "b0", &failing());
    assert_eq!(events(&set.step(at(10))), ["b0 down"]);
    assert_eq!(events(&set.step(at(10_009))), [""; 0]);
    assert!(set.wakes_at() <= Some(at(10_010)));
    let steps = set.step(at(10_010));
    assert_eq!(steps.changes[0].event, Event::Up(UpReason::EjectionOver));
    let weight = |set: &SetHealth| set.standing("b0").map(|standing| standing.weight_permille);
    assert_eq!(weight(&set), Some(100));
    for second in 12..30 {
        set.step(at(second * 1000));
    }
    assert_eq!(weight(&set), Some(1000));
}

#[test]
fn at_the_largest_share_ejections_stop() {
    let mut set = set_of(5, |_| ());
    for number in 0..5 {
        set.observe(at(10), &name(number), &failing());
    }
    assert_eq!(events(&set.step(at(10))), ["b0 down", "b1 down"]);
    assert_eq!((set.ejected(), set.available()), (2, 3));
}

#[test]
fn at_the_least_available_ejections_stop() {
    let mut set = set_of(5, |settings| {
        settings.ejected_share_max_permille = 1000;
        settings.available_min = 4;
    });
    for number in 0..5 {
        set.observe(at(10), &name(number), &failing());
    }
    assert_eq!(events(&set.step(at(10))), ["b0 down"]);
}

#[test]
fn an_ejected_backend_comes_back_when_the_others_are_down() {
    let mut set = set_of(3, |_| ());
    set.observe(at(10), "b0", &failing());
    set.step(at(10));
    for number in [1, 2] {
        set.turn(at(20), &turned(number, State::Down, at(20)));
    }
    let steps = set.step(at(20));
    assert_eq!(events(&steps), ["b1 down", "b2 down", "b0 up"]);
    assert_eq!(steps.changes[2].event, Event::Up(UpReason::Needed));
}

#[test]
fn an_ejected_backend_that_is_down_is_up_only_with_both() {
    let mut set = set_of(3, |_| ());
    set.observe(at(10), "b0", &failing());
    set.turn(at(20), &turned(0, State::Down, at(20)));
    assert_eq!(events(&set.step(at(20))), ["b0 down"]);
    set.turn(at(5000), &turned(0, State::Up, at(5000)));
    assert_eq!(events(&set.step(at(5000))), [""; 0]);
    assert_eq!(events(&set.step(at(10_010))), ["b0 up"]);
}

#[test]
fn ejections_end_when_the_set_shrinks() {
    let mut set = set_of(4, |_| ());
    set.observe(at(10), "b0", &failing());
    set.observe(at(10), "b1", &failing());
    set.step(at(10));
    set.replace_members(at(20), (0..3).map(member).collect());
    assert_eq!(events(&set.step(at(20))), ["b0 up"]);
    set.replace_members(at(30), vec![member(2)]);
    assert_eq!((set.step(at(30)).is_changed, set.ejected(), set.available()), (true, 0, 1));
    set.replace_members(at(30), vec![member(2)]);
    assert!(!set.step(at(30)).is_changed, "the same members");
}

#[test]
fn other_checks_do_not_bring_a_dead_backend_back() {
    let mut set = set_of(2, |_| ());
    set.turn(at(10), &turned(0, State::Down, at(10)));
    set.step(at(10));
    let other = Member { target: Some(target(9)), ..member(0) };
    set.replace_members(at(20), vec![other, member(1)]);
    assert_eq!(events(&set.step(at(20))), [""; 0]);
    set.replace_members(at(30), vec![Member { target: None, ..member(0) }, member(1)]);
    let steps = set.step(at(30));
    assert_eq!(steps.changes[0].event, Event::Up(UpReason::Unchecked));
}

#[test]
fn without_passive_checks_outcomes_change_nothing() {
    let mut set = set_of(4, |_| ());
    set.observe(at(10), "b0", &failing());
    set.step(at(10));
    set.replace_settings(at(20), None, 0);
    assert_eq!(events(&set.step(at(20))), ["b0 up"]);
    set.observe(at(30), "b0", &failing());
    set.observe(at(30), "nobody", &failing());
    assert_eq!((set.step(at(30)), set.wakes_at()), (SetSteps::default(), None));
}

#[test]
fn a_backend_far_slower_than_the_others_gets_less() {
    let mut set = set_of(4, |_| ());
    for (number, milliseconds) in [(0, 10), (1, 12), (2, 11), (3, 100)] {
        let latency_sum = Duration::from_millis(milliseconds) * 20;
        set.observe(at(900), &name(number), &Batch { successes: 20, latency_sum, ..Batch::default() });
    }
    let steps = set.step(at(1000));
    let weights: Vec<u16> = set.standings().map(|(_, standing)| standing.weight_permille).collect();
    assert_eq!(weights, [1000, 1000, 1000, 300]);
    assert_eq!((steps.changes.len(), steps.is_changed), (0, true));
}

#[test]
fn a_panic_is_below_its_threshold_and_off_by_default() {
    let mut set = SetHealth::new(None, 500, 1);
    set.replace_members(at(0), (0..4).map(member).collect());
    for (number, is_panicking) in [(0, false), (1, false), (2, true)] {
        set.turn(at(1), &turned(number, State::Down, at(1)));
        assert_eq!(set.is_panicking(), is_panicking);
    }
    set.replace_settings(at(2), None, 0);
    assert!(!set.is_panicking());
}

#[derive(Debug, Clone)]
enum Input {
    Turn(usize, bool),
    Observe(usize, u32, u32),
    Members(usize),
    Wait(u64),
}

fn input() -> impl Strategy<Value = Input> {
    prop_oneof![
        (0usize..8, any::<bool>()).prop_map(|(number, up)| Input::Turn(number, up)),
        (0usize..8, 0u32..20, 0u32..20).prop_map(|(n, good, bad)| Input::Observe(n, good, bad)),
        (0usize..8).prop_map(Input::Members),
        (0u64..20_000).prop_map(Input::Wait),
    ]
}

proptest! {
    #[test]
    fn bounds_hold_and_events_alternate(
        inputs in prop::collection::vec(input(), 1..150), share in 0u16..=1000, available_min in 0u32..5
    ) {
        let mut set = set_of(6, |settings| {
            settings.ejected_share_max_permille = share;
            settings.available_min = available_min;
        });
        let mut now = Moment::START;
        let mut is_up: BTreeMap<Arc<str>, bool> = (0..6).map(|number| (name(number), true)).collect();
        for input in inputs {
            match input {
                Input::Turn(number, up) => {
                    let state = if up { State::Up } else { State::Down };
                    set.turn(now, &turned(number, state, now));
                }
                Input::Observe(number, successes, errors) => {
                    set.observe(now, &name(number), &Batch { successes, errors, ..Batch::default() });
                }
                Input::Members(count) => {
                    let fresh = |number: &usize| !is_up.contains_key(&name(*number));
                    let fresh: Vec<usize> = (0..count).filter(fresh).collect();
                    is_up.extend(fresh.into_iter().map(|number| (name(number), true)));
                    let kept = |number| {
                        let known = set.members.get(&name(number)).map(|known| known.state);
                        Member { state: known.unwrap_or(State::Unknown), ..member(number) }
                    };
                    let members: Vec<Member> = (0..count).map(kept).collect();
                    set.replace_members(now, members);
                }
                Input::Wait(milliseconds) => now = now + Duration::from_millis(milliseconds),
            }
            let steps = set.step(now);
            is_up.retain(|backend, _| set.members.contains_key(backend));
            for change in steps.changes.iter().filter(|change| set.members.contains_key(&change.backend)) {
                let up = matches!(change.event, Event::Up(_));
                prop_assert_eq!(is_up.insert(Arc::clone(&change.backend), up), Some(!up), "{:?}", change);
            }
            let standings: BTreeMap<Arc<str>, bool> =
                set.standings().map(|(backend, standing)| (Arc::clone(backend), standing.is_available)).collect();
            prop_assert_eq!(&standings, &is_up);
            prop_assert_eq!(set.available(), standings.values().filter(|up| **up).count());
            prop_assert!(set.ejected() <= set.members.len() * usize::from(share) / 1000);
            let is_held_back = |known: &Known| known.is_up() && !known.standing.is_available;
            prop_assert!(
                set.available() >= available_min as usize || !set.members.values().any(is_held_back)
            );
        }
    }
}

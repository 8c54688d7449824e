use super::*;
use proptest::prelude::*;
use std::num::NonZeroU16;

fn key(port: u16) -> TargetKey {
    let settings = ActiveSettings { jitter_permille: 0, ..ActiveSettings::default() };
    TargetKey::new(([10, 0, 0, 1], port).into(), settings.validate().expect("settings"))
}

fn at(milliseconds: u64) -> Moment {
    Moment::after_start(Duration::from_millis(milliseconds))
}

fn pass() -> Outcome {
    Outcome::Pass { latency: Duration::from_millis(1) }
}

#[test]
fn a_target_is_checked_once_however_many_use_it() {
    let mut roster = Roster::new(8, 1);
    let id = roster.add(at(0), key(80), Begin::Checked);
    assert_eq!(roster.add(at(0), key(80), Begin::Checked), id);
    assert_eq!(roster.tick(at(1000)).start.len(), 1);
    assert_eq!(roster.release(id), Released::Kept);
    let Released::Gone { abandon } = roster.release(id) else { panic!("it was the last use") };
    assert_eq!(abandon.map(|probe| probe.target), Some(id));
    assert_eq!((roster.targets().len(), roster.probes_in_flight(), roster.wakes_at()), (0, 0, None));
    assert_eq!(roster.release(id), Released::Gone { abandon: None });
}

#[test]
fn other_settings_or_another_address_are_another_target() {
    let other = ActiveSettings { healthy_threshold: 5, ..ActiveSettings::default() };
    let other = TargetKey::new(key(80).address(), other.validate().expect("settings"));
    assert_ne!(key(80).id(), key(81).id());
    assert_ne!(key(80).id(), other.id());
    assert_eq!(key(80).id(), key(80).id());
}

#[test]
fn a_port_of_the_checks_own_is_the_targets() {
    let own = ActiveSettings {
        jitter_permille: 0,
        port: Some(NonZeroU16::new(9000).expect("not 0")),
        ..ActiveSettings::default()
    };
    let own = own.validate().expect("settings");
    let of = |port| TargetKey::new(([10, 0, 0, 1], port).into(), own.clone());
    assert_eq!(of(80), of(81));
    assert_eq!(of(80), key(9000));
}

#[test]
fn ids_are_the_same_in_every_version() {
    assert_eq!(key(80).id(), TargetId(11_241_026_138_966_585_617));
}

#[test]
fn a_probe_that_never_reports_is_timed_out() {
    let mut roster = Roster::new(8, 1);
    let id = roster.add(at(0), key(80), Begin::Checked);
    let probe = roster.tick(at(1000)).start[0].probe;
    assert_eq!(roster.wakes_at(), Some(at(2000)));
    assert_eq!(roster.tick(at(1999)), Tick::default());
    let tick = roster.tick(at(2000));
    assert_eq!(tick.abandon, [probe]);
    assert_eq!(tick.start.len(), 1, "the next begins at once: an interval is over");
    assert_eq!(roster.report(at(2001), probe, pass()), None, "its result comes too late");
    assert_eq!(roster.checker(id).map(Checker::state), Some(State::Unknown));
    roster.tick(at(3000));
    let turned = roster.tick(at(4000)).turned;
    assert_eq!(turned.len(), 1);
    assert_eq!((turned[0].transition.to, turned[0].transition.reason), (State::Down, Some(Reason::TimedOut)));
}

#[test]
fn at_the_limit_probes_begin_and_one_past_it_waits_its_turn() {
    let mut roster = Roster::new(3, 1);
    for port in 1..=4 {
        roster.add(at(0), key(port), Begin::Checked);
    }
    let started = roster.tick(at(1000)).start;
    assert_eq!(started.len(), 3);
    assert_eq!(roster.wakes_at(), Some(at(2000)), "nothing to do before one ends");
    assert!(roster.overdue(at(1500)) > Duration::from_millis(400));
    roster.report(at(1500), started[0].probe, pass());
    let next = roster.tick(at(1500)).start;
    assert_eq!(next.len(), 1);
    assert!(started.iter().all(|start| start.key != next[0].key), "the one that waited longest");
}

#[test]
fn an_idle_target_is_not_probed_until_it_is_resumed() {
    let mut roster = Roster::new(8, 1);
    let id = roster.add(at(0), key(80), Begin::Idle);
    assert_eq!((roster.wakes_at(), roster.tick(at(5000))), (None, Tick::default()));
    roster.resume(at(5000), id, State::Down);
    let probe = roster.tick(at(6000)).start[0].probe;
    roster.resume(at(6000), id, State::Up);
    assert_eq!(roster.checker(id).map(Checker::state), Some(State::Down), "it was not idle");
    assert_eq!(roster.pause(id), Some(probe));
    assert_eq!(roster.report(at(6001), probe, pass()), None);
    assert_eq!((roster.pause(id), roster.wakes_at()), (None, None));
}

#[test]
fn first_probes_are_spread() {
    let mut roster = Roster::new(1000, 1);
    for port in 1..=1000 {
        roster.add(at(0), key(port), Begin::Checked);
    }
    let counts: Vec<usize> = (1..=10).map(|tenth| roster.tick(at(tenth * 100)).start.len()).collect();
    assert_eq!(counts.iter().sum::<usize>(), 1000);
    assert!(counts.iter().all(|count| (60..=140).contains(count)), "{counts:?}");
}

proptest! {
    #[test]
    fn every_target_that_is_checked_has_one_place_and_nothing_else_has(
        limit in 1usize..5, inputs in prop::collection::vec((0u8..7, 1u16..6, 0u64..1500), 1..200)
    ) {
        let mut roster = Roster::new(limit, 1);
        let mut uses = Vec::new();
        let mut probes = Vec::new();
        let mut now = Moment::START;
        for (input, port, pause) in inputs {
            now = now + Duration::from_millis(pause);
            let id = key(port).id();
            match input {
                0 => uses.push(roster.add(now, key(port), Begin::Checked)),
                1 => uses.push(roster.add(now, key(port), Begin::Idle)),
                2 if !uses.is_empty() => {
                    roster.release(uses.swap_remove(usize::from(port) % uses.len()));
                }
                3 => roster.resume(now, id, State::Down),
                4 => {
                    roster.pause(id);
                }
                5 if !probes.is_empty() => {
                    let probe = probes.swap_remove(usize::from(port) % probes.len());
                    roster.report(now, probe, pass());
                }
                _ => probes.extend(roster.tick(now).start.into_iter().map(|start| start.probe)),
            }
            let of = |wanted: fn(Phase) -> bool| {
                roster.targets.iter().filter(move |(_, entry)| wanted(entry.checker.phase()))
            };
            prop_assert_eq!(roster.waiting.len(), of(|phase| matches!(phase, Phase::Waiting { .. })).count());
            prop_assert_eq!(roster.probing.len(), of(|phase| matches!(phase, Phase::Probing { .. })).count());
            prop_assert!(roster.probing.len() <= limit);
            let distinct: BTreeSet<TargetId> = uses.iter().copied().collect();
            prop_assert_eq!(roster.targets.len(), distinct.len());
            prop_assert_eq!(roster.targets.values().map(|entry| entry.uses).sum::<usize>(), uses.len());
        }
    }
}

use super::*;
use crate::health::settings::ActiveSettings;

fn key() -> TargetKey {
    let settings = ActiveSettings { jitter_permille: 0, ..ActiveSettings::default() };
    TargetKey::new(([10, 0, 0, 1], 80).into(), settings.validate().expect("settings"))
}

fn at(milliseconds: u64) -> Moment {
    Moment::after_start(Duration::from_millis(milliseconds))
}

fn pass() -> Outcome {
    Outcome::Pass { latency: Duration::from_millis(1) }
}

/// A proxy that does not check [`key`], and one that does.
fn bystander() -> (Checks, ProxyId, TargetId) {
    let proxies: Vec<ProxyId> = (0..5).map(ProxyId).collect();
    let checkers = crate::health::checkers_of(key().id(), &proxies);
    let me = proxies.iter().find(|proxy| !checkers.contains(&Some(**proxy))).expect("five proxies");
    let mut checks = Checks::new(Some(*me), 8, 1);
    checks.hear(at(0), News::Proxies(proxies));
    let id = checks.add(at(0), key());
    (checks, checkers[0].expect("five proxies"), id)
}

fn report(proxy: ProxyId, target: TargetId, state: State, at: Moment) -> News {
    let reason = (state == State::Down).then_some(Reason::Refused);
    News::Report(Remote { proxy, target, state, reason, at })
}

fn reports(steps: &Steps) -> Vec<State> {
    let said = steps.say.iter().filter_map(|say| match say {
        Say::Report(report) => Some(report.state),
        Say::Alive => None,
    });
    said.collect()
}

/// Steps until a probe begins, and lets it pass.
fn pass_one(checks: &mut Checks, from: u64) -> Steps {
    for now in (from..from + 5000).step_by(50) {
        if let Some(start) = checks.step(at(now)).start.first() {
            checks.report(at(now), start.probe, pass());
            return checks.step(at(now));
        }
    }
    panic!("no probe began");
}

#[test]
fn who_shares_nothing_checks_and_says_nothing() {
    let mut checks = Checks::new(None, 8, 1);
    let id = checks.add(at(0), key());
    let steps = pass_one(&mut checks, 0);
    assert_eq!((steps.changes.len(), steps.say.len()), (1, 0));
    let status = checks.status(id).expect("it is in use");
    assert_eq!((status.state, status.is_checked_here), (State::Up, true));
    assert!(matches!(status.last.map(|last| last.outcome), Some(Outcome::Pass { .. })));
    checks.release(at(5000), id);
    assert_eq!((checks.status(id), checks.wakes_at()), (None, None));
}

#[test]
fn a_bystander_believes_reports_and_probes_nothing() {
    let (mut checks, checker, id) = bystander();
    checks.hear(at(10), report(checker, id, State::Down, at(10)));
    let steps = checks.step(at(10));
    let reason = Some(Reason::Refused);
    assert_eq!(steps.changes, [TargetChange { target: id, state: State::Down, reason, at: at(10) }]);
    for now in (10..9000).step_by(250) {
        checks.hear(at(now), News::Alive { proxy: checker, at: at(now) });
        assert!(checks.step(at(now)).start.is_empty(), "at {now} ms");
    }
}

#[test]
fn who_hears_nothing_checks_and_takes_over_the_state() {
    let (mut checks, checker, id) = bystander();
    checks.hear(at(10), report(checker, id, State::Down, at(10)));
    checks.step(at(10));
    let steps = pass_one(&mut checks, 3010);
    assert_eq!(steps.changes, [], "one pass does not bring back what was Down");
    assert_eq!(reports(&steps), [], "nor is what was only heard passed on");
    let steps = pass_one(&mut checks, 4010);
    assert_eq!((steps.changes.len(), reports(&steps)), (1, vec![State::Up]));
}

#[test]
fn handing_back_drops_the_probe_and_takes_back_the_report() {
    let (mut checks, checker, id) = bystander();
    assert_eq!(reports(&pass_one(&mut checks, 3000)), [State::Up]);
    let mut now = 4000;
    let begun = loop {
        match checks.step(at(now)).start.first() {
            Some(start) => break start.probe,
            None => now += 50,
        }
    };
    checks.hear(at(now), report(checker, id, State::Up, at(now)));
    let steps = checks.step(at(now));
    assert_eq!((&steps.abandon, reports(&steps)), (&vec![begun], vec![State::Unknown]));
    assert_eq!(steps.changes, []);
    assert_eq!(checks.status(id).map(|status| status.is_checked_here), Some(false));
}

#[test]
fn reports_are_repeated_and_taken_back_with_the_last_use() {
    let mut checks = Checks::new(Some(ProxyId(1)), 8, 1);
    let id = checks.add(at(0), key());
    let mut said = 0;
    for now in (0..25_000).step_by(50) {
        let steps = checks.step(at(now));
        for start in &steps.start {
            checks.report(at(now), start.probe, pass());
        }
        said += reports(&steps).len();
    }
    assert_eq!(said, 3, "at once, and every ten seconds");
    checks.release(at(25_000), id);
    assert_eq!(reports(&checks.step(at(25_000))), [State::Unknown]);
}

#[test]
fn after_a_new_stream_everything_is_said_again() {
    let (mut checks, checker, id) = bystander();
    checks.hear(at(10), report(checker, id, State::Up, at(10)));
    checks.step(at(10));
    checks.reconnect(at(100));
    assert!(checks.step(at(100)).start.is_empty());
    assert_eq!(
        checks.status(id).map(|status| status.is_checked_here),
        Some(false),
        "it waits for the others"
    );
    let mut checks = Checks::new(Some(ProxyId(1)), 8, 1);
    checks.add(at(0), key());
    assert_eq!(reports(&pass_one(&mut checks, 0)), [State::Up]);
    checks.reconnect(at(2000));
    let steps = checks.step(at(2000));
    assert_eq!((reports(&steps), steps.say.last()), (vec![State::Up], Some(&Say::Alive)));
}

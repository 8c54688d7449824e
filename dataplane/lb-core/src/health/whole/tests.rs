use super::*;
use crate::health::{Event, Reason, State};
use std::time::Duration;

fn at(milliseconds: u64) -> Moment {
    Moment::after_start(Duration::from_millis(milliseconds))
}

fn plan(interval: Duration) -> SetPlan {
    let settings = ActiveSettings { interval, jitter_permille: 0, ..ActiveSettings::default() };
    SetPlan { active: Some(settings.validate().expect("settings")), ..SetPlan::default() }
}

fn backend(number: u16) -> (Arc<str>, SocketAddr) {
    (format!("b{number}").into(), ([10, 0, 0, 1], 8000 + number).into())
}

/// Lets every probe fail for a time; the events of each set.
fn fail(health: &mut Health, from: u64, to: u64) -> Vec<(u64, Event)> {
    let mut events = Vec::new();
    for now in (from..to).step_by(50) {
        let steps = health.step(at(now));
        for start in &steps.start {
            health.report(at(now), start.probe, Outcome::Fail { reason: Reason::Refused });
        }
        for (number, set) in steps.sets {
            events.extend(set.changes.into_iter().map(|change| (number, change.event)));
        }
    }
    events
}

#[test]
fn sets_share_a_check_and_both_hear_of_it() {
    let mut health = Health::new(None, 8, 1);
    let second = Duration::from_secs(1);
    health.replace_set(at(0), 1, plan(second), [backend(1)]);
    health.replace_set(at(0), 2, plan(second), [backend(1), backend(1)]);
    assert_eq!(health.checks().roster().targets().len(), 1);
    let sets: Vec<u64> = fail(&mut health, 0, 4000).into_iter().map(|(number, _)| number).collect();
    assert_eq!(sets, [1, 2]);
    health.remove_set(at(4000), 1);
    assert_eq!(health.checks().roster().targets().len(), 1);
    health.remove_set(at(4000), 2);
    assert_eq!(
        (health.checks().roster().targets().len(), health.users.len(), health.agenda.len()),
        (0, 0, 0)
    );
}

#[test]
fn a_set_that_is_replaced_keeps_its_checks() {
    let mut health = Health::new(None, 8, 1);
    let second = Duration::from_secs(1);
    health.replace_set(at(0), 1, plan(second), [backend(1), backend(2)]);
    assert_eq!(fail(&mut health, 0, 4000).len(), 2);
    health.replace_set(at(4000), 1, plan(second), [backend(1), backend(3)]);
    let target = health.target(1, "b1").and_then(|target| health.checks().status(target));
    assert_eq!(target.map(|status| status.state), Some(State::Down));
    assert_eq!(health.target(1, "b2"), None);
    assert_eq!(health.checks().roster().targets().len(), 2);
    health.replace_set(at(4000), 1, plan(second * 2), [backend(1)]);
    assert_eq!(health.set(1).map(SetHealth::available), Some(0), "other checks bring nobody back");
    health.replace_set(at(4000), 1, SetPlan::default(), [backend(1)]);
    assert_eq!(health.set(1).map(SetHealth::available), Some(1));
    assert_eq!(health.checks().roster().targets().len(), 0);
}

#[test]
fn a_process_sleeps_until_something_is_due() {
    let mut health = Health::new(None, 8, 1);
    assert_eq!(health.wakes_at(), None);
    let passive = PassiveSettings::default().validate().expect("defaults");
    health.replace_set(at(0), 1, SetPlan { passive: Some(passive), ..SetPlan::default() }, [backend(1)]);
    assert!(health.step(at(0)).sets.iter().all(|(number, steps)| *number == 1 && steps.changes.is_empty()));
    assert_eq!(health.wakes_at(), Some(at(1000)));
    health.observe(at(10), 1, "b1", &Batch { successes: 1, ..Batch::default() });
    assert_eq!(health.step(at(10)).sets, []);
    assert_eq!(health.wakes_at(), Some(at(1000)));
}

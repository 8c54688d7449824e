//! Sets that come, go and stand by.

use super::{QUICK_CHECKS, Site, equal};
use weir_tests::harness::manifest::PoolText;
use weir_tests::harness::services::{Samples, wait_for_status};
use weir_tests::harness::switchable::Switchable;
use weir_tests::harness::{client, ports, wait};

#[test]
fn a_backend_that_counts_as_down_at_first_takes_nothing_before_its_first_pass() {
    let (old, new) = (Switchable::start("old"), Switchable::start("new"));
    let mut pool = PoolText::new("initial", ports::free(), &equal([old.port]));
    pool.health_check =
        Some("{ active: { http: { path: /health }, interval: 100ms, initial: Down } }".to_owned());
    new.answer_checks(503);
    let site = Site::start(&pool);
    wait_for_status(pool.port, "/", 200);
    pool.backends = equal([old.port, new.port]);
    site.edit(&pool);
    wait::until("it should be checked more often than takes a backend out", || {
        (new.checks() > 5).then_some(())
    });
    assert_eq!(site.statuses(100), [200; 100]);
    assert_eq!((new.requests(), site.backend(new.port).is_available), (0, Some(false)));
    new.answer_checks(200);
    wait::until("it should take requests", || {
        assert_eq!(site.statuses(2), [200; 2]);
        (new.requests() > 0).then_some(())
    });
}

#[test]
fn a_set_that_loses_all_its_backends_answers_503_and_recovers_when_it_gets_some() {
    let samples = Samples::start("member", 3);
    let mut pool = PoolText::new("coming", ports::free(), &[]);
    pool.health_check = Some(QUICK_CHECKS.to_owned());
    let site = Site::start(&pool);
    for _ in 0..3 {
        site.wait_for_no_backend();
        pool.backends = samples.equal();
        site.edit(&pool);
        wait_for_status(pool.port, "/", 200);
        assert_eq!(site.statuses(30), [200; 30]);
        pool.backends.clear();
        site.edit(&pool);
    }
    site.wait_for_no_backend();
}

#[test]
fn with_every_backend_down_requests_get_503_and_panic_sends_them_there_all_the_same() {
    let backends = [1, 2, 3].map(|number| Switchable::start(&format!("member-{number}")));
    let all = backends.each_ref().map(|backend| backend.port);
    let mut pool = PoolText::new("panicking", ports::free(), &equal(all));
    pool.health_check = Some(QUICK_CHECKS.to_owned());
    let site = Site::start(&pool);
    wait_for_status(pool.port, "/", 200);
    for backend in &backends {
        backend.answer_checks(500);
    }
    all.iter().for_each(|port| site.wait_for(*port, false));
    site.wait_for_no_backend();
    assert_eq!(site.backend(all[0]).reason.as_deref(), Some("status 500"));

    pool.load_balancing = "{ algorithm: RoundRobin, panicBelowPercent: 50 }".to_owned();
    site.edit(&pool);
    wait_for_status(pool.port, "/", 200);
    let before = backends.each_ref().map(Switchable::requests);
    assert_eq!(site.statuses(30), [200; 30]);
    let given: Vec<_> =
        backends.iter().zip(before).map(|(backend, before)| backend.requests() - before).collect();
    assert!(given.iter().all(|given| *given > 0), "{given:?}");
    let view = client::fetch(site.weir.admin, "/api/v1/backends").expect("an answer").json();
    assert_eq!(view["pools"][0]["sets"][0]["ignores_health"], true, "{view}");

    // Two of three are above the limit: the third is left again.
    backends[0].answer_checks(200);
    backends[1].answer_checks(200);
    all[..2].iter().for_each(|port| site.wait_for(*port, true));
    let before = backends[2].requests();
    assert_eq!(site.statuses(30), [200; 30]);
    assert_eq!(backends[2].requests(), before);
}

#[test]
fn backends_that_stand_by_take_nothing_while_the_first_ones_are_well_and_all_when_those_are_down() {
    let [first, second, standby, other] = ["first", "second", "standby", "other"].map(Switchable::start);
    let mut pool = PoolText::new("ranked", ports::free(), &equal([first.port, second.port]));
    pool.standby = vec![standby.port, other.port];
    pool.health_check = Some(QUICK_CHECKS.to_owned());
    let site = Site::start(&pool);
    let given = || [&first, &second, &standby, &other].map(Switchable::requests);
    let by_hundred = || {
        let before = given();
        assert_eq!(site.statuses(100), [200; 100]);
        let after = given();
        [0, 1, 2, 3].map(|index: usize| after[index] - before[index])
    };
    wait_for_status(pool.port, "/", 200);
    assert_eq!(by_hundred(), [50, 50, 0, 0]);
    for backend in [&first, &second] {
        backend.answer_checks(503);
        site.wait_for(backend.port, false);
    }
    assert_eq!(by_hundred(), [0, 0, 50, 50]);
    // One of two is less than 72 percent: what it cannot carry spills over.
    first.answer_checks(200);
    site.wait_for(first.port, true);
    let shared = by_hundred();
    assert!(shared[0] > 0 && shared[1] == 0 && shared[2] + shared[3] > 0, "{shared:?}");
    second.answer_checks(200);
    site.wait_for(second.port, true);
    assert_eq!(by_hundred(), [50, 50, 0, 0]);
}

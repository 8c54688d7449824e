//! Passive checks: backends that answer with failures.

use super::{Site, equal};
use std::time::{Duration, Instant};
use weir_tests::harness::client::Connection;
use weir_tests::harness::load::{Clients, Load};
use weir_tests::harness::manifest::PoolText;
use weir_tests::harness::switchable::Switchable;
use weir_tests::harness::{ports, wait};

/// Failures in a row that eject by default.
const IN_A_ROW: usize = 5;

fn switchables(count: usize) -> Vec<Switchable> {
    (1..=count).map(|number| Switchable::start(&format!("member-{number}"))).collect()
}

fn site(backends: &[Switchable], passive: &str) -> Site {
    let mut pool =
        PoolText::new("judged", ports::free(), &equal(backends.iter().map(|backend| backend.port)));
    pool.health_check = Some(format!("{{ passive: {{ {passive} }} }}"));
    Site::start(&pool)
}

#[test]
fn five_failures_in_a_row_eject_a_backend_and_it_comes_back_after_its_time() {
    let backends = switchables(4);
    let failing = &backends[0];
    // Alone: the share of failures would eject it too.
    let mut site = site(&backends, "baseEjection: 1s, maxFailurePercent: 100");
    let mut connection = Connection::open(site.port).expect("serves");
    let mut ask = || connection.get("/").expect("an answer").status;

    failing.answer(500);
    let mut failed = 0;
    wait::until("one less than five in a row should fail", || {
        failed += usize::from(ask() == 500);
        (failed == IN_A_ROW - 1).then_some(())
    });
    failing.answer(200);
    assert!((0..200).all(|_| ask() == 200));
    assert_eq!(site.backend(failing.port).is_available, Some(true), "four are not enough");

    failing.answer(500);
    let begun = Instant::now();
    let why = wait::until("the fifth in a row should eject it", || {
        ask();
        let backend = site.backend(failing.port);
        (backend.is_available == Some(false)).then_some(backend.why_not).flatten()
    });
    assert!(why.starts_with("ejected: ") && why.ends_with("requests failed in a row"), "{why}");
    let given = failing.requests();
    assert!((0..20).all(|_| ask() == 200));
    failing.answer(200);
    site.weir.process.wait_for_stderr(&format!("backend down: {why}"));
    wait::until("it should come back", || {
        ask();
        (failing.requests() > given).then_some(())
    });
    let back = begun.elapsed();
    assert!(back >= Duration::from_secs(1), "{back:?}");
    site.weir.process.wait_for_stderr("backend up: its ejection is over");
    assert_eq!(site.backend(failing.port).why_not, None);
}

#[test]
fn no_more_of_a_set_are_out_than_its_limit_says_also_when_all_of_it_fails() {
    let backends = switchables(5);
    let site = site(&backends, "baseEjection: 300ms, maxEjectedPercent: 40");
    let _load = Load::start(site.port, Clients { kept: 4, fresh: 0 });
    for backend in &backends {
        backend.answer(503);
    }
    let mut most = 0;
    wait::until("ejections should come and go", || {
        let views = site.weir.backends();
        let out = views.values().filter(|backend| backend.is_available == Some(false)).count();
        most = most.max(out);
        assert!(out <= 2, "{views:?}");
        (site.weir.process.stderr().matches("backend down: ejected").count() >= 6).then_some(())
    });
    assert_eq!(most, 2);
    for backend in &backends {
        backend.answer(200);
    }
    wait::until("all should come back", || {
        site.weir.backends().values().all(|backend| backend.is_available == Some(true)).then_some(())
    });
}

//! Backends that freeze or die, under load.

use super::{Site, equal, members};
use std::time::{Duration, Instant};
use weir_tests::harness::load::{Clients, Load};
use weir_tests::harness::manifest::PoolText;
use weir_tests::harness::services::Samples;
use weir_tests::harness::{ports, wait};

const CLIENTS: Clients = Clients { kept: 4, fresh: 2 };
/// A backend that dies is left after at most 4 s with default checks: docs/health-checks.md.
const OUT_AFTER_MAX: Duration = Duration::from_secs(5);
/// Requests that the others answer between two looks at a share.
const STRETCH: u64 = 180;

/// Ten backends with default checks under load, one of which is stopped.
struct Ten {
    site: Site,
    load: Load,
    victim: u16,
}

impl Ten {
    fn start(members: &[Samples], victim: &Samples) -> Self {
        let all = members.iter().chain([victim]).map(|member| member.ports[0]);
        let mut pool = PoolText::new("ten", ports::free(), &equal(all));
        pool.request_timeout = "1s".to_owned();
        pool.load_balancing = "{ algorithm: RoundRobin, slowStart: { window: 5s } }".to_owned();
        pool.health_check = Some("{ active: { http: { path: /health } } }".to_owned());
        let site = Site::start(&pool);
        let load = Load::start(pool.port, CLIENTS);
        wait::until("each should answer and be up", || {
            let is_up = site.weir.backends().values().all(|backend| backend.state == "Up");
            (is_up && load.seen().answers.len() == 10).then_some(())
        });
        Self { site, load, victim: victim.ports[0] }
    }

    /// Waits until the stopped one is left, in time and for this reason, and gets nothing any more.
    fn is_left(&self, stopped: Instant, reason: &str) {
        let down = wait::until("the stopped one should be down", || {
            let backend = self.site.backend(self.victim);
            (backend.is_available == Some(false)).then_some(backend)
        });
        let took = stopped.elapsed();
        assert!(took < OUT_AFTER_MAX, "{took:?}");
        assert_eq!((down.state.as_str(), down.reason.as_deref()), ("Down", Some(reason)));
        assert_eq!(down.why_not, Some(format!("checks fail: {reason}")));
        // Those that were sent to it before end with the time-out; none is sent after.
        self.flow(50);
        let given = self.site.backend(self.victim).requests;
        wait::until("requests to the stopped one should end", || {
            let before = self.load.seen().failures.len();
            self.flow(200);
            (self.load.seen().failures.len() == before).then_some(())
        });
        assert_eq!(self.site.backend(self.victim).requests, given);
    }

    /// Waits until the load goes on by so many good answers.
    fn flow(&self, answers: u64) {
        let before = self.load.seen().good;
        wait::until("the load should flow", || (self.load.seen().good > before + answers).then_some(()));
    }

    /// Waits until the one that goes on is up and has its whole share, which grows.
    fn comes_back_slowly(self, expected: &[&str]) {
        self.site.wait_for(self.victim, true);
        let mut before = self.site.weir.backends();
        let mut shares = Vec::new();
        wait::until("its share should be whole", || {
            let now = self.site.weir.backends();
            let given = |port: &u16| now[port].requests - before[port].requests;
            let others: u64 = now.keys().filter(|port| **port != self.victim).map(given).sum();
            if others < STRETCH {
                return None;
            }
            // In percent of what each of the nine others got.
            let share = given(&self.victim) * 900 / others;
            shares.push(share);
            before = now;
            (share >= 90).then_some(())
        });
        let (first, middle, last) = (shares[0], shares[shares.len() / 2], shares[shares.len() - 1]);
        assert!(first < 60 && first < middle && middle <= last, "percent of a share: {shares:?}");
        let backend = self.site.backend(self.victim);
        assert_eq!((backend.state.as_str(), backend.reason), ("Up", None));
        let failures = self.load.stop().failures;
        let is_expected = |failure: &String| expected.iter().any(|reason| failure.contains(reason));
        assert!(failures.iter().all(is_expected), "{failures:?}");
    }
}

#[test]
fn a_frozen_backend_is_left_within_five_seconds_and_gets_its_share_back_little_by_little() {
    let (nine, victim) = (members(9), Samples::start("victim", 1));
    let ten = Ten::start(&nine, &victim);
    victim.process.pause();
    ten.is_left(Instant::now(), "no answer within the time-out");
    victim.process.resume();
    ten.comes_back_slowly(&["backend_timeout"]);
}

#[test]
fn a_killed_backend_is_left_within_five_seconds_and_gets_its_share_back_once_it_is_started_again() {
    let (nine, victim) = (members(9), Samples::start("victim", 1));
    let ten = Ten::start(&nine, &victim);
    let ports = victim.ports.clone();
    victim.process.kill();
    ten.is_left(Instant::now(), "connection refused");
    let _again = Samples::start_on("victim", ports);
    ten.comes_back_slowly(&["connect_failed", "backend_closed"]);
}

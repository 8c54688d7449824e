//! Checks that proxies of one controller share.

use super::equal;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};
use weir_tests::harness::controller::{Controller, ControllerCommand};
use weir_tests::harness::folder::Folder;
use weir_tests::harness::manifest::PoolText;
use weir_tests::harness::services::Service;
use weir_tests::harness::switchable::Switchable;
use weir_tests::harness::{ports, wait};

const INTERVAL: Duration = Duration::from_millis(250);
/// Proxies that check a backend, however many there are.
const CHECKERS: u8 = 2;
/// Intervals over which checks are counted.
const INTERVALS: u32 = 12;

/// Proxies of one controller in front of one backend.
struct Fleet {
    backend: Switchable,
    proxies: Vec<Service>,
}

impl Fleet {
    /// On addresses of their own, so that all can have the pool's port.
    fn start(count: u8, url: &str, backend: Switchable) -> Self {
        let binds = (1..=count).map(|number| Ipv4Addr::new(127, 0, 1, number));
        let proxies: Vec<_> = binds.map(|bind| Service::proxy_at(bind, url, &[])).collect();
        proxies.iter().for_each(Service::wait_until_ready);
        Self { backend, proxies }
    }

    /// Waits until so many proxies check the backend.
    fn wait_for_checkers(&self, count: usize) {
        wait::until(&format!("{count} of {} should check", self.proxies.len()), || {
            let backends =
                self.proxies.iter().filter_map(|proxy| proxy.backends().remove(&self.backend.port));
            (backends.filter(|backend| backend.is_checked_here).count() == count).then_some(())
        });
    }

    /// Waits until so many proxies check the backend, and looks whether as many checks arrive in each interval.
    fn is_checked_by(&self, checkers: u8) {
        self.wait_for_checkers(usize::from(checkers));
        let due = u64::from(INTERVALS * u32::from(checkers));
        let (first, begun) = (self.backend.checks(), Instant::now());
        wait::until("checks should arrive", || (self.backend.checks() - first >= due).then_some(()));
        let intervals = begun.elapsed().div_duration_f64(INTERVAL) / f64::from(INTERVALS);
        // Chance takes up to a tenth off each interval; a busy machine adds to it.
        assert!(
            (0.75..2.0).contains(&intervals),
            "{due} checks by {checkers} of {} took {intervals:.2} of their time",
            self.proxies.len()
        );
    }

    /// One of those that check; the fleet goes on without it.
    fn take_a_checker(&mut self) -> Service {
        let port = self.backend.port;
        let checks =
            |proxy: &Service| proxy.backends().remove(&port).is_some_and(|view| view.is_checked_here);
        let at = self.proxies.iter().position(checks).expect("some proxy checks");
        self.proxies.remove(at)
    }

    /// What the checkers find is in force at all.
    fn all_follow_the_checkers(&self) {
        for (status, state) in [(503, "Down"), (200, "Up")] {
            self.backend.answer_checks(status);
            wait::patiently(&format!("the backend should be {state} everywhere"), || {
                let mut backends = self.proxies.iter().map(Service::backends);
                backends.all(|backends| backends[&self.backend.port].state == state).then_some(())
            });
        }
    }
}

/// A controller's folder, the controller, and proxies that are ready.
fn site(count: u8) -> (Folder, Controller, Fleet) {
    let backend = Switchable::start("checked");
    let mut pool = PoolText::new("shared", ports::free(), &equal([backend.port]));
    pool.health_check = Some("{ active: { http: { path: /health }, interval: 250ms } }".to_owned());
    let folder = Folder::new();
    folder.write("pool.yaml", &pool.yaml());
    let controller = ControllerCommand::of_folder(folder.path()).start();
    let fleet = Fleet::start(count, &format!("http://127.0.0.1:{}", controller.push), backend);
    (folder, controller, fleet)
}

fn two_of(count: u8) {
    let (folder, controller, fleet) = site(count);
    let push = controller.push;
    fleet.is_checked_by(CHECKERS);
    controller.service.process.kill();
    fleet.is_checked_by(count);
    let _again = ControllerCommand::of_folder(folder.path()).listening(push).start();
    fleet.is_checked_by(CHECKERS);
    fleet.all_follow_the_checkers();
}

#[test]
fn two_proxies_check_a_backend_twice_in_each_interval() {
    two_of(2);
}

#[test]
fn four_proxies_check_a_backend_twice_in_each_interval_and_each_for_itself_without_their_controller() {
    two_of(4);
}

#[test]
fn eight_proxies_check_a_backend_twice_in_each_interval_and_each_for_itself_without_their_controller() {
    two_of(8);
}

#[test]
fn proxies_whose_controller_is_frozen_check_for_themselves_until_it_goes_on() {
    let (_folder, controller, fleet) = site(4);
    fleet.is_checked_by(CHECKERS);
    controller.service.process.pause();
    fleet.is_checked_by(4);
    controller.service.process.resume();
    fleet.is_checked_by(CHECKERS);
    fleet.all_follow_the_checkers();
}

#[test]
fn the_others_learn_of_a_backend_also_where_one_that_checks_it_is_killed_or_frozen() {
    let (_folder, _controller, mut fleet) = site(4);
    fleet.is_checked_by(CHECKERS);
    fleet.take_a_checker().process.kill();
    fleet.is_checked_by(CHECKERS);
    let frozen = fleet.take_a_checker();
    frozen.process.pause();
    fleet.all_follow_the_checkers();
}

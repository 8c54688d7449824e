//! `weir-controller` and `weir-proxy` as two processes.

use weir_tests::harness::folder::Folder;
use weir_tests::harness::load::{Clients, Load};
use weir_tests::harness::manifest::PoolText;
use weir_tests::harness::services::{Samples, Service, controller, wait_for_backend};
use weir_tests::harness::{ports, wait};

#[test]
fn no_request_fails_while_the_controller_is_killed_and_changes_flow_once_it_is_back() {
    let (old, new) = (Samples::start("old", 1), Samples::start("new", 1));
    let (port, push) = (ports::free(), ports::free());
    let folder = Folder::new();
    folder.write("pool.yaml", &PoolText::new("apart", port, &old.equal()).yaml());
    let first = controller(folder.path(), push);
    let proxy = Service::proxy(push);
    proxy.wait_until_ready();
    wait_for_backend(port, "/", "old");

    let load = Load::start(port, Clients { kept: 4, fresh: 2 });
    wait::until("the load should flow", || (load.seen().good > 50).then_some(()));
    first.kill();
    let before = load.seen().good;
    wait::until("the load should flow on", || (load.seen().good > before + 200).then_some(()));
    folder.write("pool.yaml", &PoolText::new("apart", port, &new.equal()).yaml());
    let _second = controller(folder.path(), push);
    wait::until("the change should arrive", || load.seen().first_answer.get("new").copied());
    load.assert_no_failure();
}

#[test]
fn a_proxy_that_starts_before_its_controller_serves_once_it_is_there() {
    let samples = Samples::start("member", 1);
    let (port, push) = (ports::free(), ports::free());
    let folder = Folder::new();
    folder.write("pool.yaml", &PoolText::new("late", port, &samples.equal()).yaml());
    let proxy = Service::proxy(push);
    let _controller = controller(folder.path(), push);
    proxy.wait_until_ready();
    wait_for_backend(port, "/", "member");
}

#[test]
fn two_proxies_of_one_controller_serve_the_same() {
    // On one address two proxies cannot have one port: the second refuses the pool and says why.
    let samples = Samples::start("member", 1);
    let (port, push) = (ports::free(), ports::free());
    let folder = Folder::new();
    folder.write("pool.yaml", &PoolText::new("twice", port, &samples.equal()).yaml());
    let mut controller = controller(folder.path(), push);
    let first = Service::proxy(push);
    wait_for_backend(port, "/", "member");
    let second = Service::proxy(push);
    let refusal = controller.wait_for_stderr("spec.listeners[0].port");
    assert!(refusal.contains("default/twice"), "{refusal}");
    drop(second);
    wait_for_backend(port, "/", "member");
    drop(first);
}

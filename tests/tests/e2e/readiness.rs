//! Live is not ready.

use weir_tests::harness::folder::Folder;
use weir_tests::harness::manifest::PoolText;
use weir_tests::harness::services::{LIVE, READY, Samples, Service, controller, wait_for_status};
use weir_tests::harness::{client, ports};

#[test]
fn a_proxy_is_live_without_a_controller_and_ready_only_after_its_first_complete_snapshot() {
    let samples = Samples::start("member", 1);
    let (port, push) = (ports::free(), ports::free());
    let proxy = Service::proxy(push);
    wait_for_status(proxy.admin, LIVE, 200);
    let answer = client::fetch(proxy.admin, READY).expect("an answer");
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("no complete configuration"), "the reason is in: {}", answer.text());

    let folder = Folder::new();
    folder.write("pool.yaml", &PoolText::new("first", port, &samples.equal()).yaml());
    let controller = controller(folder.path(), push);
    proxy.wait_until_ready();
    assert_eq!(client::fetch(port, "/").expect("ready means that it serves").status, 200);

    controller.kill();
    assert_eq!(
        client::fetch(proxy.admin, READY).expect("an answer").status,
        200,
        "the last good one serves on"
    );
    assert_eq!(client::fetch(port, "/").expect("an answer").status, 200);
}

#[test]
fn an_empty_folder_is_ready_with_nothing_to_serve() {
    let folder = Folder::new();
    let weir = Service::standalone(folder.path(), &[]);
    assert_eq!(client::fetch(weir.admin, READY).expect("an answer").status, 200);
}

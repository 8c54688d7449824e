//! Changes that must cost no request: names, ports, restarts, refusals.

use weir_tests::harness::folder::Folder;
use weir_tests::harness::load::{Clients, Load};
use weir_tests::harness::manifest::PoolText;
use weir_tests::harness::services::{READY, Samples, Service, controller, wait_for_backend};
use weir_tests::harness::{client, ports, wait};

#[test]
fn a_pool_is_renamed_under_load_and_no_request_fails() {
    let (old, new) = (Samples::start("old", 1), Samples::start("new", 1));
    let port = ports::free();
    let folder = Folder::new();
    // To a name that sorts before and to one that sorts behind.
    folder.write("pool.yaml", &PoolText::new("middle", port, &old.equal()).yaml());
    let _weir = Service::standalone(folder.path(), &[]);
    wait_for_backend(port, "/", "old");
    let load = Load::start(port, Clients { kept: 4, fresh: 2 });
    for (name, samples, answers) in [("first", &new, "new"), ("second", &old, "old"), ("first", &new, "new")]
    {
        wait::until("the load should flow", || (load.seen().good > 50).then_some(()));
        folder.write("pool.yaml", &PoolText::new(name, port, &samples.equal()).yaml());
        wait_for_backend(port, "/", answers);
    }
    assert_eq!(load.stop().failures, Vec::<String>::new());
}

#[test]
fn a_controller_that_restarts_over_a_broken_manifest_leaves_the_pool_serving() {
    let samples = Samples::start("member", 1);
    let (port, other, push) = (ports::free(), ports::free(), ports::free());
    let folder = Folder::new();
    let good = PoolText::new("broken", port, &samples.equal()).yaml();
    folder.write("pool.yaml", &good);
    let first = controller(folder.path(), push);
    let proxy = Service::proxy(push);
    proxy.wait_until_ready();
    let load = Load::start(port, Clients { kept: 2, fresh: 2 });
    for broken in [good.replace(&format!("port: {port}"), "port: 70000"), "{[".to_owned()] {
        folder.write("pool.yaml", &broken);
    }
    first.kill();
    let mut second = controller(folder.path(), push);
    second.wait_for_stderr("a proxy has connected");
    // Whatever comes after the resumption of the stream proves that it is over.
    folder.write("other.yaml", &PoolText::new("other", other, &samples.equal()).yaml());
    wait_for_backend(other, "/", "member");
    assert_eq!(load.stop().failures, Vec::<String>::new());
    folder.write("pool.yaml", &PoolText::new("another", ports::free(), &samples.equal()).yaml());
    wait::until("a pool that is known to be gone is removed", || {
        client::Connection::open(port).is_err().then_some(())
    });
}

#[test]
fn a_refused_edit_moves_no_traffic() {
    let (old, new) = (Samples::start("old", 1), Samples::start("new", 1));
    let (port, other) = (ports::free(), ports::free());
    let owner = std::net::TcpListener::bind(client::local(other)).expect("a free port");
    let folder = Folder::new();
    folder.write("pool.yaml", &PoolText::new("edited", port, &old.equal()).yaml());
    let mut weir = Service::standalone(folder.path(), &[]);
    wait_for_backend(port, "/", "old");
    // One edit: other backends, and a listener whose port somebody has.
    let edited = PoolText::new("edited", port, &new.equal()).yaml();
    let two = format!("    - name: taken\n      port: {other}\n      protocol: HTTP\n  rules:\n");
    folder.write("pool.yaml", &edited.replace("  rules:\n", &two));
    weir.process.wait_for_stderr("refused");
    for _ in 0..20 {
        assert_eq!(client::fetch(port, "/").expect("an answer").json()["name"], "old");
    }
    drop(owner);
    wait_for_backend(port, "/", "new");
}

#[test]
fn a_proxy_whose_every_pool_is_refused_is_not_ready_and_becomes_so_by_itself() {
    let samples = Samples::start("member", 1);
    let (port, push) = (ports::free(), ports::free());
    let owner = std::net::TcpListener::bind(client::local(port)).expect("a free port");
    let folder = Folder::new();
    folder.write("pool.yaml", &PoolText::new("refused", port, &samples.equal()).yaml());
    let _controller = controller(folder.path(), push);
    let mut proxy = Service::proxy(push);
    proxy.process.wait_for_stderr("in step with the controller");
    assert_eq!(client::fetch(proxy.admin, READY).expect("an answer").status, 503);
    drop(owner);
    proxy.wait_until_ready();
    wait_for_backend(port, "/", "member");
}

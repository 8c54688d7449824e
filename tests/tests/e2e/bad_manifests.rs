//! What is wrong in a folder is named, and holds nothing else back.

use weir_tests::harness::folder::Folder;
use weir_tests::harness::load::{Clients, Load};
use weir_tests::harness::manifest::PoolText;
use weir_tests::harness::services::{Samples, Service, wait_for_backend, wait_for_status};
use weir_tests::harness::{client, ports};

#[test]
fn one_malformed_pool_of_ten_leaves_nine_untouched_and_is_named_by_file_line_and_field() {
    let (old, new) = (Samples::start("old", 1), Samples::start("new", 1));
    let folder = Folder::new();
    let pools: Vec<PoolText> =
        (0..10).map(|n| PoolText::new(&format!("pool-{n}"), ports::free(), &old.equal())).collect();
    for pool in &pools {
        folder.write(&format!("{}.yaml", pool.name), &pool.yaml());
    }
    let mut weir = Service::standalone(folder.path(), &[]);
    for pool in &pools {
        wait_for_status(pool.port, "/", 200);
    }
    let load = Load::start(pools[4].port, Clients { kept: 1, fresh: 1 });

    let broken = pools[3].yaml().replace("protocol: HTTP", "protocol: GOPHER");
    let line = broken.lines().position(|line| line.contains("GOPHER")).expect("replaced") + 1;
    folder.write("pool-3.yaml", &broken);
    let problem = weir.process.wait_for_stderr("GOPHER");
    assert!(problem.contains(&format!("pool-3.yaml:{line}:")), "{problem}");
    assert!(problem.contains("spec.listeners[0].protocol"), "{problem}");

    // All ten serve on, and the nine still take changes.
    for pool in &pools {
        assert_eq!(client::fetch(pool.port, "/").expect("an answer").status, 200, "{}", pool.name);
    }
    for pool in pools.iter().filter(|pool| pool.name != "pool-3") {
        folder.write(
            &format!("{}.yaml", pool.name),
            &PoolText::new(&pool.name, pool.port, &new.equal()).yaml(),
        );
    }
    for pool in pools.iter().filter(|pool| pool.name != "pool-3") {
        wait_for_backend(pool.port, "/", "new");
    }
    assert_eq!(client::fetch(pools[3].port, "/").expect("an answer").json()["name"], "old");
    assert_eq!(load.stop().failures, Vec::<String>::new());

    // It heals by itself.
    folder.write("pool-3.yaml", &PoolText::new("pool-3", pools[3].port, &new.equal()).yaml());
    wait_for_backend(pools[3].port, "/", "new");
}

#[test]
fn a_file_that_is_no_yaml_is_named_and_the_others_serve() {
    let samples = Samples::start("member", 1);
    let port = ports::free();
    let folder = Folder::new();
    folder.write("good.yaml", &PoolText::new("good", port, &samples.equal()).yaml());
    folder.write("bad.yaml", "apiVersion: weir.dev/v1alpha1\nkind: [LoadBalancerPool\nmetadata: {\n");
    let mut weir = Service::standalone(folder.path(), &[]);
    wait_for_status(port, "/", 200);
    weir.process.wait_for_stderr("bad.yaml:");
}

#[test]
fn a_certificate_that_is_none_names_the_listener_and_the_other_pools_serve() {
    let samples = Samples::start("member", 1);
    let (plain, tls) = (ports::free(), ports::free());
    let folder = Folder::new();
    folder.write("plain.yaml", &PoolText::new("plain", plain, &samples.equal()).yaml());
    let https = PoolText::new("secure", tls, &samples.equal()).yaml().replace(
        "protocol: HTTP\n",
        "protocol: HTTPS\n      tls:\n        certificateRefs:\n          - name: broken\n",
    );
    folder.write("secure.yaml", &https);
    folder.write(
        "secret.yaml",
        "apiVersion: v1
kind: Secret
metadata:
  name: broken
  namespace: default
type: kubernetes.io/tls
stringData:
  tls.crt: this is no certificate
  tls.key: this is no key
",
    );
    let mut weir = Service::standalone(folder.path(), &[]);
    wait_for_status(plain, "/", 200);
    let problem = weir.process.wait_for_stderr("spec.listeners[0].tls.certificateRefs[0]");
    assert!(problem.contains("broken"), "{problem}");
    assert!(!weir.process.stderr().contains("this is no key"), "a key is never shown");
}

#[test]
fn a_port_that_another_process_has_is_named_by_field_and_the_pool_heals_once_it_is_free() {
    let samples = Samples::start("member", 1);
    let (good, taken) = (ports::free(), ports::free());
    let owner = std::net::TcpListener::bind(client::local(taken)).expect("free");
    let folder = Folder::new();
    folder.write("good.yaml", &PoolText::new("good", good, &samples.equal()).yaml());
    let mut weir = Service::standalone(folder.path(), &[]);
    folder.write("taken.yaml", &PoolText::new("taken", taken, &samples.equal()).yaml());
    let problem = weir.process.wait_for_stderr("spec.listeners[0].port");
    assert!(problem.contains("default/taken"), "{problem}");
    assert!(problem.contains(&taken.to_string()), "{problem}");
    wait_for_status(good, "/", 200);
    drop(owner);
    // Any change of the pool tries again.
    let other = PoolText::new("taken", taken, &[(samples.ports[0], 2)]);
    folder.write("taken.yaml", &other.yaml());
    wait_for_status(taken, "/", 200);
}

#[test]
fn two_pools_that_claim_one_port_leave_it_to_the_first_by_name_and_the_other_is_told() {
    let (first, second) = (Samples::start("first", 1), Samples::start("second", 1));
    let port = ports::free();
    let folder = Folder::new();
    folder.write("b.yaml", &PoolText::new("b", port, &second.equal()).yaml());
    folder.write("a.yaml", &PoolText::new("a", port, &first.equal()).yaml());
    let mut weir = Service::standalone(folder.path(), &[]);
    wait_for_backend(port, "/", "first");
    let problem = weir.process.wait_for_stderr("b.yaml:");
    assert!(problem.contains("spec.listeners[0]") && problem.contains("default/a"), "{problem}");
    std::fs::remove_file(folder.file("a.yaml")).expect("it is there");
    wait_for_backend(port, "/", "second");
}

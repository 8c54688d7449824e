//! Ports that pools share, and ports that pass from one pool to another.

use weir_tests::harness::certificates::{secret, subject};
use weir_tests::harness::folder::Folder;
use weir_tests::harness::load::{Clients, Load};
use weir_tests::harness::manifest::PoolText;
use weir_tests::harness::services::{Samples, Service, wait_for_backend};
use weir_tests::harness::{ports, wait};

/// The manifest of a pool whose listener speaks HTTPS with the certificate of a Secret.
fn over_tls(pool: &PoolText, secret: &str, more: &str) -> String {
    let listener =
        format!("protocol: HTTPS\n      tls: {{ certificateRefs: [{{ name: {secret} }}] }}\n{more}");
    pool.yaml().replace("protocol: HTTP\n", &listener)
}

#[test]
fn a_pool_s_certificate_never_answers_for_the_host_of_another_pool() {
    let samples = Samples::start("member", 1);
    let port = ports::free();
    let folder = Folder::new();
    // The first pool by name has a certificate that is also valid for the second pool's host.
    folder.write("first-secret.yaml", &secret("first", "first", &["a.example", "b.example"]));
    folder.write("second-secret.yaml", &secret("second", "second", &["b.example"]));
    for (name, host) in [("first", "a.example"), ("second", "b.example")] {
        let pool = PoolText::new(name, port, &samples.equal());
        let hostnames = format!("      hostnames: [{host}]\n");
        folder.write(&format!("{name}.yaml"), &over_tls(&pool, name, &hostnames));
    }
    let _weir = Service::standalone(folder.path(), &[]);
    assert_eq!(subject(port, "a.example"), "CN=first");
    assert_eq!(subject(port, "b.example"), "CN=second");
    assert_eq!(subject(port, "c.example"), "CN=first", "nobody has it: the first pool by name");
}

#[test]
fn two_pools_swap_a_plain_port_and_a_secure_one_in_one_edit() {
    let (first, second) = (Samples::start("first", 1), Samples::start("second", 1));
    let (one, other) = (ports::free(), ports::free());
    let folder = Folder::new();
    folder.write("secret.yaml", &secret("pair", "pair", &["localhost"]));
    let both = |plain: u16, secure: u16| {
        let plain = PoolText::new("first", plain, &first.equal()).yaml();
        let secure = over_tls(&PoolText::new("second", secure, &second.equal()), "pair", "");
        format!("{plain}---\n{secure}")
    };
    folder.write("pools.yaml", &both(one, other));
    let _weir = Service::standalone(folder.path(), &[]);
    for (plain, secure) in [(one, other), (other, one), (one, other)] {
        folder.write("pools.yaml", &both(plain, secure));
        wait_for_backend(plain, "/", "first");
        wait::until("the other port should speak TLS", || {
            (subject(secure, "localhost") == "CN=pair").then_some(())
        });
    }
}

#[test]
fn a_port_moves_from_one_pool_to_another_and_no_request_fails() {
    let (old, new) = (Samples::start("old", 1), Samples::start("new", 1));
    let (moving, spare, rest) = (ports::free(), ports::free(), ports::free());
    let folder = Folder::new();
    let first = |port| PoolText::new("first", port, &old.equal()).yaml();
    let second = |port| PoolText::new("second", port, &new.equal()).yaml();
    folder.write("first.yaml", &first(moving));
    folder.write("second.yaml", &second(spare));
    let _weir = Service::standalone(folder.path(), &[]);
    wait_for_backend(moving, "/", "old");
    let load = Load::start(moving, Clients { kept: 2, fresh: 4 });
    let flows = || {
        let before = load.seen().good;
        wait::until("the load should flow", || (load.seen().good > before + 50).then_some(()));
    };
    for _ in 0..3 {
        flows();
        // Two files, so two changes: the port is left before it is taken,
        folder.write("first.yaml", &first(rest));
        folder.write("second.yaml", &second(moving));
        wait_for_backend(moving, "/", "new");
        flows();
        // and claimed before it is left, which the controller refuses until it is.
        folder.write("first.yaml", &first(moving));
        folder.write("second.yaml", &second(spare));
        wait_for_backend(moving, "/", "old");
        wait_for_backend(spare, "/", "new");
    }
    assert_eq!(load.stop().failures, Vec::<String>::new());
}

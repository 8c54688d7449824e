//! Backends by a name in DNS, from a server that says what the test wants.

use crate::cluster::sample;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};
use weir_tests::harness::folder::Folder;
use weir_tests::harness::nameserver::{NameServer, Says};
use weir_tests::harness::process::Process;
use weir_tests::harness::services::Service;
use weir_tests::harness::{binaries, client, ports, wait};

const NAME: &str = "db.shop.example";

/// Sample backends on one port of several addresses of this machine.
struct Backends {
    port: u16,
    _processes: Vec<Process>,
}

impl Backends {
    /// The name of each is its address.
    fn start(addresses: &[&str]) -> Self {
        let port = ports::free();
        let start = |address: &&str| {
            let listen = SocketAddr::new(address.parse().expect("an address"), port);
            sample(address, listen)
        };
        Self { port, _processes: addresses.iter().map(start).collect() }
    }
}

fn pool(port: u16, dns: &str) -> String {
    format!(
        "apiVersion: weir.dev/v1alpha1
kind: LoadBalancerPool
metadata: {{ name: shop, namespace: default }}
spec:
  listeners: [{{ name: http, port: {port}, protocol: HTTP }}]
  rules: [{{ backendSets: [{{ name: db }}] }}]
  backendSets:
    - name: db
      dns: {{ {dns} }}
"
    )
}

fn v4(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, last))
}

/// Waits until the server was asked for the name this many times more.
fn wait_for_lookups(server: &NameServer, more: usize) {
    let before = server.asked(NAME);
    wait::patiently("the name should be looked up again", || {
        (server.asked(NAME) >= before + more).then_some(())
    });
}

/// Waits for the backend with more time than it takes to ask a server again that failed.
fn wait_for_backend(port: u16, name: &str) {
    wait::patiently(&format!("{name} should answer"), || {
        let answer = client::fetch(port, "/").ok().filter(|answer| answer.status == 200)?;
        (answer.json()["name"] == name).then_some(())
    });
}

fn wait_for_words(weir: &Service, words: &[&str]) {
    wait::patiently(&format!("it should say {words:?}"), || {
        let said = weir.process.stderr();
        said.lines().any(|line| words.iter().all(|word| line.contains(word))).then_some(())
    });
}

#[test]
fn a_set_follows_its_name_and_loses_no_backend_while_the_server_fails() {
    let backends = Backends::start(&["127.0.0.2", "127.0.0.3"]);
    let server = NameServer::start();
    server.resolve(NAME, &["127.0.0.2"], 1);
    let (port, folder) = (ports::free(), Folder::new());
    folder.write("pool.yaml", &pool(port, &format!("hostname: {NAME}., port: {}", backends.port)));
    let weir = Service::standalone(folder.path(), &server.flags().each_ref().map(String::as_str));
    let first = client::fetch(port, "/").expect("ready is ready");
    assert_eq!((first.status, first.json()["name"].as_str()), (200, Some("127.0.0.2")), "{}", first.text());

    let changed = Instant::now();
    server.resolve(NAME, &["127.0.0.3"], 1);
    wait_for_backend(port, "127.0.0.3");
    assert!(changed.elapsed() < Duration::from_secs(10), "{:?}", changed.elapsed());

    server.say(NAME, Says::Failure);
    wait_for_lookups(&server, 4);
    wait_for_words(&weir, &["warning", "spec.backendSets[0].dns.hostname", NAME, "SERVFAIL", "serves on"]);
    wait_for_backend(port, "127.0.0.3");

    server.resolve(NAME, &["127.0.0.2", "127.0.0.3"], 1);
    wait_for_backend(port, "127.0.0.2");
    server.forget(NAME);
    wait_for_words(&weir, &["NXDOMAIN", "serves on"]);
    wait_for_words(&weir, &["NXDOMAIN", "answered 503"]);
    wait::patiently("nothing should answer", || {
        client::fetch(port, "/").is_ok_and(|answer| answer.status == 503).then_some(())
    });
    server.resolve(NAME, &["127.0.0.2"], 1);
    wait_for_backend(port, "127.0.0.2");
}

#[test]
fn a_long_answer_comes_over_tcp_and_an_alias_holds_for_the_least_of_its_times() {
    let backends = Backends::start(&["127.0.0.2", "127.0.0.3"]);
    let server = NameServer::start();
    server.say(NAME, Says::LongAddresses(vec![v4(2)], 1));
    let (port, folder) = (ports::free(), Folder::new());
    folder.write("pool.yaml", &pool(port, &format!("hostname: {NAME}., port: {}", backends.port)));
    let _weir = Service::standalone(folder.path(), &server.flags().each_ref().map(String::as_str));
    wait_for_backend(port, "127.0.0.2");
    assert!(server.asked_over_tcp() > 0);

    server.say(NAME, Says::Alias("a.example".to_owned(), 1, vec![v4(3)], 300));
    wait_for_backend(port, "127.0.0.3");
    server.say(NAME, Says::Alias("b.example".to_owned(), 300, vec![v4(2)], 1));
    wait_for_backend(port, "127.0.0.2");
    server.resolve(NAME, &["127.0.0.3"], 1);
    wait_for_backend(port, "127.0.0.3");
}

#[test]
fn an_edit_of_the_name_takes_no_backend_away_before_the_new_name_is_known() {
    let backends = Backends::start(&["127.0.0.2", "127.0.0.3"]);
    let server = NameServer::start();
    server.resolve(NAME, &["127.0.0.2"], 1);
    server.say("other.example", Says::Silence);
    let (port, folder) = (ports::free(), Folder::new());
    let pool = |name: &str| pool(port, &format!("hostname: {name}., port: {}", backends.port));
    folder.write("pool.yaml", &pool(NAME));
    let weir = Service::standalone(folder.path(), &server.flags().each_ref().map(String::as_str));
    wait_for_backend(port, "127.0.0.2");
    folder.write("pool.yaml", &pool("other.example"));
    wait::patiently("the new name should be asked", || (server.asked("other.example") > 0).then_some(()));
    wait_for_words(&weir, &["other.example", "serves on for a moment"]);
    wait_for_backend(port, "127.0.0.2");
    server.resolve("other.example", &["127.0.0.3"], 1);
    wait::patiently("the new name should be followed", || {
        let answer = client::fetch(port, "/").ok()?;
        assert_eq!(answer.status, 200, "{}", answer.text());
        (answer.json()["name"] == "127.0.0.3").then_some(())
    });
}

#[test]
fn what_an_answer_may_not_be_is_left_out_and_said() {
    let backends = Backends::start(&["127.0.0.2"]);
    let server = NameServer::start();
    server.resolve(NAME, &["169.254.169.254", "0.0.0.0", "127.0.0.2"], 1);
    let (port, folder) = (ports::free(), Folder::new());
    folder.write("pool.yaml", &pool(port, &format!("hostname: {NAME}., port: {}", backends.port)));
    let weir = Service::standalone(folder.path(), &server.flags().each_ref().map(String::as_str));
    wait_for_backend(port, "127.0.0.2");
    let ports: Vec<_> = weir.backends().into_keys().collect();
    assert_eq!(ports, [backends.port], "one backend");
    wait_for_words(&weir, &["never used (2: 0.0.0.0, 169.254.169.254)"]);
}

#[test]
fn a_name_that_is_none_is_refused_and_its_validation_asks_nobody() {
    let folder = Folder::new();
    let validate = |dns: &str| {
        folder.write("pool.yaml", &pool(8080, dns));
        let mut command = Command::new(binaries::path("weir"));
        Process::start(command.arg("validate").arg(folder.path())).wait()
    };
    for (dns, field, rule) in [
        ("hostname: 10.0.0.1, port: 80", "dns.hostname", "write it under static"),
        ("hostname: \"::1\", port: 80", "dns.hostname", "write it under static"),
        ("hostname: DB.example, port: 80", "dns.hostname", "is not a name in DNS"),
        ("hostname: db.example, port: 0", "dns.port", "use 1 to 65535"),
        ("hostname: db.example, port: 80, families: [IPv4, IPv4]", "dns.families", "each once"),
        ("hostname: db.example, port: 80, minRefresh: 500ms", "dns.minRefresh", "use 1s to 1h"),
        (
            "hostname: db.example, port: 80, minRefresh: 10s, maxRefresh: 5s",
            "dns.minRefresh",
            "is longer than maxRefresh",
        ),
    ] {
        let ended = validate(dns);
        assert!(!ended.status.success(), "{dns}");
        assert!(ended.stdout.contains(field) && ended.stdout.contains(rule), "{dns}: {}", ended.stdout);
    }
    let ended = validate("hostname: db.example, port: 80, families: [IPv6, IPv4], minRefresh: 10s");
    assert_eq!(ended.stdout, "1 pool would be served; 0 problems, 0 warnings\n");
}

//! Who may connect, how many, to whom they stay, and what is asked of backends.

use super::{Site, Text, connect, is_echoed, is_reset, named, read};
use rustix::net::{AddressFamily, SocketType};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use weir_tests::harness::authority::Authority;
use weir_tests::harness::client::{local, read_to};
use weir_tests::harness::process::Process;
use weir_tests::harness::{ports, wait};

/// From another address of this machine.
pub(super) fn connect_from(last: u8, port: u16) -> TcpStream {
    let own = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    let from = SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0));
    rustix::net::bind(&own, &from).expect("all of 127/8 is local");
    rustix::net::connect(&own, &local(port)).expect("it listens");
    let own = TcpStream::from(own);
    own.set_read_timeout(Some(super::PATIENCE)).expect("a time");
    own
}

#[test]
fn addresses_that_may_not_connect_are_turned_away_before_any_backend_hears_of_them() {
    let backend = named("one");
    let text = Text { rule: ", ipRules: { deny: [127.0.0.2/32] }", ..Text::default() };
    let site = Site::start(&[backend], &text);
    assert!(is_reset(&connect_from(2, site.port)));
    assert_eq!(read(&connect_from(3, site.port), 3), "one");
    assert_eq!(site.failures("ip_denied"), 1);
    assert_eq!(site.weir.metric("weir_upstream_connects_total"), 1);
}

#[test]
fn a_source_has_as_many_connections_as_it_may_and_one_more_is_closed() {
    let backend = named("one");
    let text = Text { listener: ", limits: { connectionsPerSource: 2 }", ..Text::default() };
    let site = Site::start(&[backend], &text);
    let held: Vec<_> = (0..2).map(|_| site.connect()).collect();
    assert!(held.iter().all(|client| read(client, 3) == "one"));
    assert!(is_reset(&site.connect()));
    assert_eq!(site.weir.metric_of("weir_connections_refused_total", "limit=\"source\""), 1);
    assert_eq!(read(&connect_from(2, site.port), 3), "one", "another source");
    drop(held);
    wait::until("there should be room again", || (!is_reset_at_once(site.port)).then_some(()));
}

fn is_reset_at_once(port: u16) -> bool {
    let client = connect(port);
    let mut byte = [0];
    client.peek(&mut byte).is_err()
}

#[test]
fn connections_of_one_address_stay_on_one_backend() {
    let backends = [named("one"), named("two"), named("six")];
    let text = Text {
        spec: "loadBalancing: { algorithm: RoundRobin },",
        rule: ", sessionPersistence: { type: SourceIP }",
        ..Text::default()
    };
    let hashed = Text {
        spec: "loadBalancing: { algorithm: ConsistentHash, consistentHash: { key: SourceIP, maxLoadPercent: 0 } },",
        ..Text::default()
    };
    for text in [text, hashed] {
        let site = Site::start(&backends, &text);
        let mut all = BTreeSet::new();
        for source in 1..=16 {
            let names: BTreeSet<_> = (0..4).map(|_| read(&connect_from(source, site.port), 3)).collect();
            assert_eq!(names.len(), 1, "127.0.0.{source}: {names:?}");
            all.extend(names);
        }
        assert!(all.len() > 1, "addresses are spread: {all:?}");
    }
}

#[test]
fn a_backend_has_as_many_connections_as_it_may_and_others_wait_in_the_queue() {
    let text = Text {
        set: ", concurrency: { maxRequestsPerBackend: 1, queue: { maxRequests: 1, timeout: 5m } }",
        ..Text::default()
    };
    let site = Site::start(&[named("one")], &text);
    let first = site.connect();
    assert_eq!(read(&first, 3), "one");
    let waiting = site.connect();
    let label = "limit=\"queued\"";
    wait::until("it should wait", || {
        (site.weir.metric_of("weir_limits_reached_total", label) == 1).then_some(())
    });
    assert!(is_reset(&site.connect()), "no more may wait");
    assert_eq!(site.failures("queue_full"), 1);
    drop(first);
    assert_eq!(read(&waiting, 3), "one");
}

#[test]
fn a_check_of_tcp_takes_out_who_does_not_listen_and_brings_it_back() {
    let (late, one) = (ports::free(), named("one"));
    let text = Text {
        spec: "loadBalancing: { algorithm: RoundRobin },
               healthCheck: { active: { tcp: {}, interval: 100ms, healthyThreshold: 1, unhealthyThreshold: 1 } },",
        ..Text::default()
    };
    let site = Site::start(&[one, late], &text);
    let state = |port: u16| site.weir.backends()[&port].is_available;
    wait::until("it should be out", || (state(late) == Some(false)).then_some(()));
    let failures = site.weir.metric("weir_upstream_connect_failures_total");
    (0..10).for_each(|_| assert_eq!(read(&site.connect(), 3), "one"));
    assert_eq!(site.weir.metric("weir_upstream_connect_failures_total"), failures, "nobody is sent there");
    let _late = redis(late);
    wait::until("it should be back", || (state(late) == Some(true)).then_some(()));
}

fn redis(port: u16) -> Process {
    super::redis::server(port)
}

#[test]
fn a_circuit_opens_where_no_connection_is_taken_and_what_stands_in_takes_them() {
    let text = Text {
        spec: "retry: { attempts: 0 }, circuitBreaker: { minRequests: 5, resetTimeout: 1h },",
        ..Text::default()
    };
    let site = Site::start(&[ports::free()], &text);
    wait::until("the circuit should open", || {
        assert!(is_reset(&site.connect()));
        (site.failures("circuit_open") > 0).then_some(())
    });
}

#[test]
fn connections_to_backends_are_secured_where_their_set_says_so() {
    let (ca, folder) = (Authority::new(), weir_tests::harness::folder::Folder::new());
    let files = ca.issue("db", &["db.internal"]).write(folder.path(), "db");
    let port = ports::free();
    let mut server = Command::new("openssl");
    // It says every line backwards.
    server.args(["s_server", "-rev", "-quiet", "-accept", &format!("127.0.0.1:{port}")]);
    server.arg("-cert").arg(&files.certificate).arg("-key").arg(&files.key);
    let _server = Process::start(&mut server);
    wait::until("openssl listens", || TcpStream::connect(local(port)).ok());
    let secrets = format!("---\n{}", crate::tls::authority("ca", &ca.certificate()));
    let set = |name: &str| format!(", tls: {{ hostname: {name}, caCertificateRefs: [{{ name: ca }}] }}");
    let of = |set: &str| Site::start(&[port], &Text { set, more: &secrets, ..Text::default() });
    let site = of(&set("db.internal"));
    let client = site.connect();
    std::io::Write::write_all(&mut &client, b"abc\n").expect("open");
    assert_eq!(read_to(&client, "\n"), "cba\n");
    // It serves one at a time.
    drop(client);
    let site = of(&set("other.internal"));
    assert!(is_reset(&site.connect()));
    wait::until("it should be counted", || (site.failures("backend_tls") == 1).then_some(()));
}

#[test]
fn a_pool_serves_http_and_tcp_each_by_its_own_rules() {
    let samples = weir_tests::harness::services::Samples::start("member", 1);
    let (http, raw, folder) = (ports::free(), ports::free(), weir_tests::harness::folder::Folder::new());
    let text = format!(
        "apiVersion: weir.dev/v1alpha1\nkind: LoadBalancerPool\nmetadata: {{ name: both }}\nspec:\n  listeners:\n    \
         - {{ name: web, port: {http}, protocol: HTTP }}\n    - {{ name: raw, port: {raw}, protocol: TCP }}\n  rules:\n    \
         - {{ listeners: [web], matches: [{{ path: {{ value: /a }} }}], backendSets: [{{ name: web }}] }}\n    \
         - {{ listeners: [raw], backendSets: [{{ name: raw }}] }}\n  backendSets:\n    - {{ name: web, static: {{ backends: \
         [{{ address: 127.0.0.1, port: {} }}] }} }}\n    - {{ name: raw, static: {{ backends: [{{ address: 127.0.0.1, port: \
         {} }}] }} }}\n",
        samples.ports[0],
        named("raw")
    );
    folder.write("pool.yaml", &text);
    let _weir = weir_tests::harness::services::Service::standalone(folder.path(), &[]);
    let status = |path: &str| weir_tests::harness::client::fetch(http, path).expect("an answer").status;
    assert_eq!((status("/a"), status("/b")), (200, 404), "the rule of the other listener takes no request");
    let client = connect(raw);
    assert_eq!(read(&client, 3), "raw");
    assert!(is_echoed(&client));
}

//! Explanations of connections and flows over manifests.

use super::{explained, over, parse};
use crate::exit::Failure;
use weir_proxy::explain::{Answerer, Explanation, OfRequests, QuestionError};

const POOL: &str = "apiVersion: weir.dev/v1alpha1
kind: LoadBalancerPool
metadata: { name: data, namespace: default }
spec:
  timeouts: { connect: 1s }
  listeners:
    - { name: web, port: 8080, protocol: HTTP }
    - { name: redis, port: 6380, protocol: TCP, proxyProtocol: { trustedCIDRs: [10.9.0.0/16] } }
    - { name: hashed, port: 6381, protocol: TCP }
    - { name: kept, port: 6382, protocol: TCP }
    - { name: empty, port: 6383, protocol: TCP }
    - { name: idle, port: 6384, protocol: TCP }
    - { name: dns-tcp, port: 53, protocol: TCP }
    - { name: dns, port: 53, protocol: UDP }
    - { name: syslog, port: 514, protocol: UDP }
    - { name: named, port: 8443, protocol: TLS, tls: { mode: Passthrough }, hostnames: [\"*.db.example\", db.example] }
    - { name: any, port: 8444, protocol: TLS, tls: { mode: Passthrough } }
  rules:
    - { listeners: [web], backendSets: [{ name: one }] }
    - name: cache
      listeners: [redis]
      ipRules: { allow: [10.0.0.0/8, 127.0.0.0/8], deny: [10.66.0.0/16] }
      timeouts: { connectionIdle: 10m }
      retry: { attempts: 2 }
      backendSets: [{ name: three, weight: 3 }, { name: one, weight: 1 }]
    - { listeners: [hashed], backendSets: [{ name: hashed }] }
    - { listeners: [kept], sessionPersistence: { type: SourceIP }, backendSets: [{ name: three }] }
    - { listeners: [empty], backendSets: [{ name: none }] }
    - { listeners: [dns-tcp], backendSets: [{ name: one }] }
    - { name: dns, listeners: [dns], timeouts: { flowIdle: 5s }, ipRules: { deny: [192.0.2.0/24] }, backendSets: [{ name: names }] }
    - { listeners: [syslog], backendSets: [{ name: nobody }] }
    - { name: a, listeners: [named], hostnames: [a.db.example], backendSets: [{ name: one }] }
    - { name: rest, listeners: [named], hostnames: [\"*.db.example\"], backendSets: [{ name: three }] }
    - { name: inner, listeners: [any], hostnames: [\"*.in.example\"], backendSets: [{ name: one }] }
    - { name: others, listeners: [any], backendSets: [{ name: three }] }
  backendSets:
    - { name: one, static: { backends: [{ address: 10.0.1.1, port: 6379 }] } }
    - { name: three, loadBalancing: { algorithm: RoundRobin }, static: { backends: [{ address: 10.0.2.1, port: 6379, weight: 2 }, { address: 10.0.2.2, port: 6379 }, { address: 10.0.2.3, port: 6379 }] } }
    - { name: hashed, loadBalancing: { algorithm: ConsistentHash, consistentHash: { key: SourceIP, maxLoadPercent: 0 } }, static: { backends: [{ address: 10.0.3.1, port: 6379 }, { address: 10.0.3.2, port: 6379 }, { address: 10.0.3.3, port: 6379 }] } }
    - { name: names, static: { backends: [{ address: 10.0.4.1, port: 53 }, { address: 10.0.4.2, port: 53 }] } }
    - { name: none, static: { backends: [] } }
    - { name: nobody, static: { backends: [] } }
";

/// The pool's word, asked as on the command line.
fn told(flags: &[&str]) -> Explanation {
    over(POOL, flags).0
}

#[test]
fn the_pool_is_as_it_should_be() {
    assert_eq!(over(POOL, &["tcp://any:6380"]).1, [""; 0]);
}

#[test]
fn a_connection_is_told_with_its_listener_its_only_rule_and_what_counts_there() {
    let told = told(&["tcp://cache.example:6380", "--source", "10.0.0.7"]);
    assert!(told.answered);
    assert_eq!((&*told.request.scheme, &*told.request.authority), ("tcp", "cache.example:6380"));
    assert_eq!((&*told.request.method, &*told.request.target), ("", ""));
    let listener = told.listener.expect("a listener");
    assert_eq!((&*listener.protocol, listener.port), ("TCP", 6380));
    assert_eq!(
        (listener.name.as_deref(), listener.field.as_deref()),
        (Some("redis"), Some("spec.listeners[1]"))
    );
    let route = told.route.expect("a route");
    assert_eq!((route.rule.as_deref(), &*route.field), (Some("cache"), "spec.rules[1]"));
    assert_eq!((route.why.as_deref(), &*route.path_type), (Some("the listener's only rule"), ""));
    let timeouts = told.timeouts.expect("some");
    assert_eq!(
        (timeouts.connect_ms, timeouts.connection_idle_ms, timeouts.flow_idle_ms, timeouts.idle_ms),
        (Some(1_000), Some(600_000), None, None)
    );
    assert_eq!(told.retry.expect("some").retries_max, 2);
    let sets: Vec<_> = told.sets.iter().map(|set| (&*set.name, set.share)).collect();
    assert_eq!(sets, [("three", 0.75), ("one", 0.25)]);
    let parts: Vec<_> = told.sets[0].backends.iter().map(|backend| backend.probability).collect();
    assert_eq!(parts, [0.5, 0.25, 0.25]);
    assert!(told.backend.is_none() && told.answer.by == Answerer::Backend);
    assert_eq!(
        told.answer.detail,
        "weights split connections between sets, in turn at each worker of each proxy"
    );
}

#[test]
fn the_network_that_lets_a_client_in_or_keeps_it_out_is_named() {
    for (url, source, allow, network) in [
        ("tcp://a:6380", "10.0.0.7", Some(true), Some("10.0.0.0/8")),
        ("tcp://a:6380", "10.66.0.7", Some(false), Some("10.66.0.0/16")),
        ("tcp://a:6380", "192.0.2.7", Some(false), None),
        ("tcp://a:6380", "::ffff:10.66.0.7", Some(false), Some("10.66.0.0/16")),
        ("udp://a:53", "192.0.2.7", Some(false), Some("192.0.2.0/24")),
        ("udp://a:53", "10.0.0.7", Some(true), None),
        ("tcp://a:53", "10.0.0.7", None, None),
    ] {
        let told = told(&[url, "--source", source]);
        let guards = &told.guards;
        assert_eq!(
            (guards.ip_rules_allow, guards.ip_rules_network.as_deref()),
            (allow, network),
            "{url} {source}"
        );
        assert_eq!(told.answered, allow != Some(false), "{url} {source}");
        let reason = (allow == Some(false)).then_some("ip_denied");
        assert_eq!((told.answer.reason.as_deref(), told.answer.status), (reason, None), "{url} {source}");
    }
    let of_http = explained(&["http://shop.example:8080/api", "--source", "203.0.113.7"]);
    assert_eq!(of_http.guards.ip_rules_network.as_deref(), Some("203.0.113.0/24"));
}

#[test]
fn the_backend_is_named_where_source_session_or_number_decide_it() {
    for (url, by, reason) in [
        ("tcp://a:6381", "hash", "the hash of the client's address leads there"),
        ("tcp://a:6382", "session_start", "the connection's session begins there"),
        ("tcp://a:53", "only", "no other backend takes connections"),
        ("udp://a:53", "hash", "the hash of the client's address leads there"),
        ("tls://a.db.example:8443", "only", "no other backend takes connections"),
    ] {
        let told = told(&[url, "--source", "192.168.3.4"]);
        let backend = told.backend.unwrap_or_else(|| panic!("{url}: {:?}", told.answer));
        assert_eq!(backend.decided_by, by, "{url}");
        assert!(backend.why.starts_with(reason), "{url}: {}", backend.why);
    }
    for url in ["tcp://a:6381", "tcp://a:6382"] {
        let sources = (1..=20).map(|last| {
            let told = told(&[url, "--source", &format!("192.168.3.{last}")]);
            told.backend.expect("decided").address
        });
        assert_eq!(sources.collect::<std::collections::BTreeSet<_>>().len(), 3, "{url}: sources are spread");
    }
    let session = told(&["tcp://a:6382"]).session.expect("sessions");
    assert_eq!(
        (&*session.by, &*session.state),
        ("source_ip", "it begins, on the backend that every proxy names for it")
    );
    let told = told(&["tls://b.db.example:8443"]);
    assert!(told.backend.is_none());
    assert_eq!(told.answer.detail, "RoundRobin chooses anew for each connection");
}

#[test]
fn of_tls_the_name_says_which_rule_has_it() {
    let exact = "the very name that the client asks for";
    let wildcard = "the longest wildcard that has the name";
    for (url, rule, hostname, why, listener) in [
        ("tls://a.db.example:8443", "a", Some("a.db.example"), exact, "named"),
        ("tls://A.DB.example:8443", "a", Some("a.db.example"), exact, "named"),
        ("tls://b.db.example:8443", "rest", Some("*.db.example"), wildcard, "named"),
        ("tls://x.y.db.example:8443", "rest", Some("*.db.example"), wildcard, "named"),
        ("tls://x.in.example:8444", "inner", Some("*.in.example"), wildcard, "any"),
        (
            "tls://x.example:8444",
            "others",
            None,
            "no rule has the name itself, and this one is for every name",
            "any",
        ),
        (
            "tls://192.0.2.1:8444",
            "others",
            None,
            "the client asks for no name, and this rule is for every one",
            "any",
        ),
    ] {
        let told = told(&[url]);
        assert!(told.answered, "{url}: {:?}", told.answer);
        let route = told.route.expect(url);
        assert_eq!(
            (route.rule.as_deref(), route.hostname.as_deref(), route.why.as_deref()),
            (Some(rule), hostname, Some(why)),
            "{url}"
        );
        let own = told.listener.expect(url);
        assert_eq!(
            (own.name.as_deref(), &*own.protocol, own.tls_mode.as_deref()),
            (Some(listener), "TLS", Some("Passthrough")),
            "{url}"
        );
    }
    let told = told(&["tls://a.db.example:8443"]);
    let near: Vec<_> = told.passed_over.iter().map(|one| (one.of.rule.as_deref(), &*one.why)).collect();
    assert_eq!(near, [(Some("rest"), "the other goes first: its host is more specific")]);
}

#[test]
fn what_nobody_takes_is_told_with_what_its_client_gets() {
    for (url, reason, client_gets, want) in [
        (
            "tcp://a:6383",
            "no_backend",
            "reset",
            "no backend of the rule's sets takes connections; the connection is reset",
        ),
        ("tcp://a:6384", "no_route", "reset", "no rule serves port 6384; the connection is reset"),
        (
            "udp://a:514",
            "no_backend",
            "dropped",
            "no backend of the rule's sets takes flows; datagrams are dropped",
        ),
        (
            "tls://x.example:8443",
            "no_route",
            "unrecognized_name",
            "no rule on port 8443 is for the name x.example; names there: a.db.example, *.db.example; the client gets the alert \
             unrecognized_name",
        ),
        (
            "tls://192.0.2.1:8443",
            "no_route",
            "unrecognized_name",
            "the client asks for no name, and no rule on port 8443 is for every name; names there: a.db.example, \
             *.db.example; the client gets the alert unrecognized_name",
        ),
    ] {
        let told = told(&[url]);
        let answer = &told.answer;
        assert!(!told.answered && answer.by == Answerer::Nobody, "{url}: {answer:?}");
        assert_eq!(
            (answer.reason.as_deref(), answer.turned_away.as_deref(), &*answer.detail),
            (Some(reason), Some(client_gets), want),
            "{url}"
        );
    }
}

#[test]
fn a_port_that_speaks_otherwise_is_told_with_what_to_ask() {
    for (url, want) in [
        (
            "http://a:6380/",
            "port 6380 speaks plain TCP, and the URL says http://: ask tcp://, or name another --port",
        ),
        ("tls://a:6380", "port 6380 speaks plain TCP, and the URL says tls://: ask tcp://"),
        ("udp://a:6380", "port 6380 speaks plain TCP alone, and the URL says udp://: ask tcp://"),
        ("tcp://a:514", "port 514 speaks UDP alone, and the URL says tcp://: ask udp://"),
        ("http://a:514/", "port 514 speaks UDP alone, and the URL says http://: ask udp://"),
        ("tcp://a:8080", "port 8080 speaks HTTP without TLS, and the URL says tcp://: ask http://"),
        ("https://a:8443/", "port 8443 speaks TLS at layer 4, and the URL says https://: ask tls://"),
        ("tcp://a:8443", "port 8443 speaks TLS at layer 4, and the URL says tcp://: ask tls://"),
        (
            "tcp://a:9",
            "no listener has port 9; ports that are listened on: 53, 6380, 6381, 6382, 6383, 6384, 8080, 8443, 8444, 53 of UDP, 514 of UDP",
        ),
    ] {
        let told = told(&[url]);
        assert!(!told.answered && told.answer.by == Answerer::Nobody && told.route.is_none(), "{url}");
        assert!(told.answer.detail.contains(want), "{url}: {}", told.answer.detail);
    }
    let (of_tcp, of_udp) = (told(&["tcp://a:53"]), told(&["udp://a:53"]));
    assert_eq!(of_tcp.listener.expect("one").name.as_deref(), Some("dns-tcp"));
    assert_eq!(of_udp.listener.expect("another").name.as_deref(), Some("dns"));
    let limits = of_udp.timeouts.expect("some");
    assert_eq!(
        (limits.flow_idle_ms, limits.connection_idle_ms, limits.connect_ms),
        (Some(5_000), None, None)
    );
    assert!(of_udp.retry.is_none());
    let told = told(&["tcp://a", "--port", "53"]);
    assert!(told.answered, "the port may be said beside the URL");
}

#[test]
fn whose_header_of_the_proxy_protocol_counts_is_said_where_the_port_has_any() {
    let said = |flags: &[&str]| told(flags).listener.expect("a listener").proxy_protocol;
    let trusted = said(&["tcp://a:6380", "--source", "10.9.1.1"]).expect("it matters");
    assert!(trusted.starts_with("10.9.1.1 is a trusted proxy"), "{trusted}");
    let other = said(&["tcp://a:6380", "--source", "10.8.1.1"]).expect("it matters");
    assert!(other.starts_with("10.8.1.1 is no trusted proxy: it is the client"), "{other}");
    assert_eq!(said(&["tcp://a:6381", "--source", "10.9.1.1"]), None);
}

#[test]
fn what_is_of_requests_is_refused_with_what_to_leave_out() {
    for (flags, want) in [
        (&["GET", "tcp://a:6380"][..], QuestionError::OfRequests("tcp", OfRequests::Method)),
        (&["tls://a:6380", "-H", "X-A: 1"], QuestionError::OfRequests("tls", OfRequests::Header)),
        (&["udp://a:53/path"], QuestionError::OfRequests("udp", OfRequests::Path)),
        (&["tcp://a"], QuestionError::NoPort("tcp://a".into())),
    ] {
        let asked = parse(&[flags, &["-f", "x"]].concat()).expect("clap takes any text").question();
        let Err(Failure::Usage(error)) = asked else { panic!("{flags:?} is no question") };
        assert_eq!(error.downcast_ref(), Some(&want), "{flags:?}");
    }
}

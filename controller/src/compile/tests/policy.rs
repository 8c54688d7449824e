//! How backends are chosen and checked: what is refused, what is taken, and what it compiles to.

use super::*;
use weir_proto::push::{self, BackendSet};

/// A pool of two sets, `own` and `plain`, with these fields of the specification and of the first set.
fn pool(spec: &str, set: &str) -> String {
    let written = "static: {backends: [{address: 10.0.0.1, port: 80}]}";
    let comma = |fields: &str| if fields.is_empty() { String::new() } else { format!(", {fields}") };
    format!(
        "apiVersion: weir.dev/v1alpha1\nkind: LoadBalancerPool\nmetadata: {{name: shop}}\nspec: {{listeners: [{{name: l, \
         port: 80, protocol: HTTP}}], backendSets: [{{name: own, {written}{}}}, {{name: plain, {written}}}]{}}}",
        comma(set),
        comma(spec)
    )
}

fn compiled(spec: &str, set: &str) -> Result<Vec<BackendSet>, Vec<String>> {
    let world = world(&objects(&pool(spec, set)), None);
    match world.pools.get(&key("shop")) {
        Some(pool) => Ok(pool.config.backend_sets.clone()),
        None => Err(shown(world.rejections.values().flatten())),
    }
}

fn sets(spec: &str, set: &str) -> [BackendSet; 2] {
    let sets = compiled(spec, set).unwrap_or_else(|refused| panic!("{spec} {set}: {refused:?}"));
    sets.try_into().expect("two sets")
}

/// What is wrong, and the sentence from the field on, below `spec` and below a set alike.
const WRONG: &[(&str, &str)] = &[
    ("loadBalancing: {algorithm: ConsistentHash}", "loadBalancing.consistentHash: is missing: algorithm"),
    (
        "loadBalancing: {consistentHash: {key: Host}}",
        "loadBalancing.consistentHash: is for algorithm ConsistentHash only: remove it, or choose that algorithm",
    ),
    (
        "loadBalancing: {algorithm: ConsistentHash, consistentHash: {key: Host}, slowStart: {window: 1s}}",
        "loadBalancing.slowStart: is not for algorithm ConsistentHash, where each of its steps would move keys: remove it",
    ),
    (
        "loadBalancing: {slowStart: {window: 0s}}",
        "loadBalancing.slowStart.window: 0s is out of range: use 1ms to 1h",
    ),
    (
        "loadBalancing: {slowStart: {window: 1h1ms}}",
        "loadBalancing.slowStart.window: 1h1ms is out of range: use 1ms to 1h",
    ),
    (
        "loadBalancing: {slowStart: {window: 1s, minWeightPercent: 0}}",
        "loadBalancing.slowStart.minWeightPercent: 0 is out of range: use 1 to 100",
    ),
    (
        "loadBalancing: {slowStart: {window: 1s, minWeightPercent: 101}}",
        "loadBalancing.slowStart.minWeightPercent: 101 is out of range: use 1 to 100",
    ),
    (
        "loadBalancing: {panicBelowPercent: 0}",
        "loadBalancing.panicBelowPercent: 0 is out of range: use 1 to 100",
    ),
    (
        "loadBalancing: {panicBelowPercent: 101}",
        "loadBalancing.panicBelowPercent: 101 is out of range: use 1 to 100",
    ),
    ("healthCheck: {active: {}}", "healthCheck.active: must have exactly one of http, tcp, tls and grpc"),
    (
        "healthCheck: {active: {tcp: {}, tls: {}}}",
        "healthCheck.active: must have exactly one of http, tcp, tls and grpc",
    ),
    (
        "healthCheck: {passive: {maxFailurePercent: 100, consecutiveFailures: 0, consecutiveConnectFailures: 0, grayFailures: false}}",
        "healthCheck.passive: has everything switched off: leave it out, or switch something on",
    ),
    (
        "healthCheck: {passive: {baseEjection: 2s, maxEjection: 1s}}",
        "healthCheck.passive.maxEjection: 1s is shorter than baseEjection: make it as long at least",
    ),
];

/// Fields of `loadBalancing.consistentHash`, and the sentence from the field on.
const WRONG_HASHES: &[(&str, &str)] = &[
    ("key: Header", "name: is missing: key Header, Cookie or Query needs the name of which one"),
    ("key: Cookie", "name: is missing"),
    ("key: Query", "name: is missing"),
    ("key: Host, name: x", "name: \"x\" is for key Header, Cookie or Query only: remove it"),
    ("key: SourceIP, name: x", "name: \"x\" is for key Header, Cookie or Query only: remove it"),
    ("key: Header, name: ''", "name: \"\" is not a token of HTTP: use 1 to 256 letters, digits and"),
    ("key: Header, name: x y", "name: \"x y\" is not a token of HTTP"),
    ("key: Cookie, name: é", "name: \"é\" is not a token of HTTP"),
    (
        "key: Host, maxLoadPercent: -1",
        "maxLoadPercent: -1 is out of range: use 105 to 1000, or 0 for no bound",
    ),
    ("key: Host, maxLoadPercent: 104", "maxLoadPercent: 104 is out of range"),
    ("key: Host, maxLoadPercent: 1001", "maxLoadPercent: 1001 is out of range"),
];

/// Fields of `healthCheck.active` beside `tcp`, and the sentence from the field on.
const WRONG_CHECKS: &[(&str, &str)] = &[
    ("port: 0", "port: 0 is not a port: use 1 to 65535"),
    ("port: 65536", "port: 65536 is not a port: use 1 to 65535"),
    ("interval: 99ms", "interval: 99ms is out of range: use 100ms to 1h"),
    ("interval: 1h1ms", "interval: 1h1ms is out of range: use 100ms to 1h"),
    ("timeout: 9ms", "timeout: 9ms is out of range: use 10ms to 5m"),
    ("timeout: 5m1ms", "timeout: 5m1ms is out of range: use 10ms to 5m"),
    ("healthyThreshold: 0", "healthyThreshold: 0 is out of range: use 1 to 100"),
    ("healthyThreshold: 101", "healthyThreshold: 101 is out of range: use 1 to 100"),
    ("unhealthyThreshold: 0", "unhealthyThreshold: 0 is out of range: use 1 to 100"),
    ("unhealthyThreshold: 101", "unhealthyThreshold: 101 is out of range: use 1 to 100"),
];

/// Fields of `healthCheck.active.http`, and the sentence from the field on.
const WRONG_REQUESTS: &[(&str, &str)] = &[
    ("method: ''", "method: \"\" is not a token of HTTP: use 1 to 32"),
    ("method: G T", "method: \"G T\" is not a token of HTTP"),
    ("method: CONNECT", "method: \"CONNECT\" asks for a tunnel and not for an answer: use another method"),
    ("path: ''", "path: \"\" is not a path: start it with a slash"),
    ("path: healthz", "path: \"healthz\" is not a path: start it with a slash"),
    ("path: /a b", "path: \"/a b\" is not a path"),
    ("path: '/a<b'", "path: \"/a<b\" is not a path"),
    ("path: '/a#b'", "path: \"/a#b\" is not a path"),
    ("path: /é", "path: \"/é\" is not a path"),
    ("host: ''", "host: \"\" is not a host: write a name or an address, with or without a port"),
    ("host: a/b", "host: \"a/b\" is not a host"),
    ("host: a@b", "host: \"a@b\" is not a host"),
    ("bodyContains: ''", "bodyContains: 0 bytes must have 1 to 4096 bytes"),
    (
        "method: HEAD, bodyContains: ok",
        "bodyContains: \"ok\" is of no use with method HEAD, whose answer has no body: use another method, or remove it",
    ),
    ("headers: [{name: '', value: b}]", "headers[0].name: \"\" is not a token of HTTP"),
    (
        "headers: [{name: a, value: b}, {name: 'a:', value: b}]",
        "headers[1].name: \"a:\" is not a token of HTTP",
    ),
    (
        "headers: [{name: Host, value: b}]",
        "headers[0].name: \"Host\" is a field that a check writes itself: remove it",
    ),
    (
        "headers: [{name: a, value: \"b\\tc\"}]",
        "headers[0].value: \"b\\tc\" is not a header's value: use up to 2048",
    ),
    (
        "expectedStatuses: ['20']",
        "expectedStatuses[0]: \"20\" is not a status code or a range of them: write 200",
    ),
    ("expectedStatuses: ['200', '199']", "expectedStatuses[1]: \"199\" is not a status code"),
    ("expectedStatuses: ['600']", "expectedStatuses[0]: \"600\" is not a status code"),
    ("expectedStatuses: ['299-200']", "expectedStatuses[0]: \"299-200\" is not a status code"),
    ("expectedStatuses: ['200-']", "expectedStatuses[0]: \"200-\" is not a status code"),
    ("expectedStatuses: ['+20']", "expectedStatuses[0]: \"+20\" is not a status code"),
];

/// Fields of `healthCheck.passive`, and the sentence from the field on.
const WRONG_JUDGEMENTS: &[(&str, &str)] = &[
    ("window: 999ms", "window: 999ms is out of range: use 1s to 10m"),
    ("window: 10m1ms", "window: 10m1ms is out of range: use 1s to 10m"),
    ("minRequests: 0", "minRequests: 0 is out of range: use 1 to 100000"),
    ("minRequests: 100001", "minRequests: 100001 is out of range: use 1 to 100000"),
    ("maxFailurePercent: 10", "maxFailurePercent: 10 is out of range: use 11 to 100"),
    ("maxFailurePercent: 101", "maxFailurePercent: 101 is out of range: use 11 to 100"),
    ("consecutiveFailures: -1", "consecutiveFailures: -1 is out of range: use 0 to 100"),
    ("consecutiveFailures: 101", "consecutiveFailures: 101 is out of range: use 0 to 100"),
    ("consecutiveConnectFailures: -1", "consecutiveConnectFailures: -1 is out of range: use 0 to 100"),
    ("consecutiveConnectFailures: 101", "consecutiveConnectFailures: 101 is out of range: use 0 to 100"),
    ("baseEjection: 99ms", "baseEjection: 99ms is out of range: use 100ms to 1h"),
    ("baseEjection: 1h1ms", "baseEjection: 1h1ms is out of range: use 100ms to 1h"),
    ("maxEjection: 99ms", "maxEjection: 99ms is out of range: use 100ms to 1h"),
    ("maxEjection: 1h1ms", "maxEjection: 1h1ms is out of range: use 100ms to 1h"),
    ("maxEjectedPercent: -1", "maxEjectedPercent: -1 is out of range: use 0 to 100"),
    ("maxEjectedPercent: 101", "maxEjectedPercent: 101 is out of range: use 0 to 100"),
    ("minAvailable: -1", "minAvailable: -1 is out of range: use 0 to 65535"),
    ("minAvailable: 65536", "minAvailable: 65536 is out of range: use 0 to 65535"),
];

/// Rows of the tables, each written out from below `spec` or a set.
fn wrong() -> Vec<(String, String)> {
    let below = |before: &'static str, after: &'static str, field: &'static str| {
        move |(wrong, sentence): &(&str, &str)| {
            (format!("{before}{wrong}{after}"), format!("{field}{sentence}"))
        }
    };
    let hash = "loadBalancing: {algorithm: ConsistentHash, consistentHash: {";
    let mut rows: Vec<_> = WRONG.iter().map(below("", "", "")).collect();
    rows.extend(WRONG_HASHES.iter().map(below(hash, "}}", "loadBalancing.consistentHash.")));
    let active = "healthCheck.active.";
    rows.extend(WRONG_CHECKS.iter().map(below("healthCheck: {active: {tcp: {}, ", "}}", active)));
    let request = "healthCheck.active.http.";
    rows.extend(WRONG_REQUESTS.iter().map(below("healthCheck: {active: {http: {", "}}}", request)));
    let passive = "healthCheck.passive.";
    rows.extend(WRONG_JUDGEMENTS.iter().map(below("healthCheck: {passive: {", "}}", passive)));
    rows.push((
        "healthCheck: {active: {grpc: {service: ''}}}".to_owned(),
        "healthCheck.active.grpc.service: \"\" is not the name of a gRPC service: use 1 to 253".to_owned(),
    ));
    rows.push((
        "healthCheck: {active: {grpc: {service: a b}}}".to_owned(),
        "healthCheck.active.grpc.service: \"a b\" is not the name of a gRPC service".to_owned(),
    ));
    rows
}

#[test]
fn every_wrong_policy_is_refused_once_with_its_field_in_the_pool_and_in_a_set() {
    for (wrong, sentence) in wrong() {
        for (refused, field) in
            [(compiled(&wrong, ""), "spec."), (compiled("", &wrong), "spec.backendSets[0].")]
        {
            let refused = refused.expect_err(&wrong);
            let expected = format!("default/shop: {field}{sentence}");
            assert!(refused.len() == 1 && refused[0].starts_with(&expected), "{wrong}: {refused:?}");
        }
    }
}

/// What is written so many times or so long, the most that it may be, and the field.
type Sized = (fn(usize) -> String, usize, &'static str);

/// Fields of `healthCheck.active.http`.
const SIZED_REQUESTS: &[Sized] = &[
    (|n| format!("method: {}", "M".repeat(n)), 32, "method"),
    (|n| format!("path: /{}", "p".repeat(n - 1)), 1024, "path"),
    (|n| format!("host: {}", "h".repeat(n)), 253, "host"),
    (|n| format!("bodyContains: {}", "b".repeat(n)), 4096, "bodyContains"),
    (|n| format!("headers: [{}]", vec!["{name: a, value: ''}"; n].join(",")), 16, "headers"),
    (|n| format!("headers: [{{name: {}, value: b}}]", "n".repeat(n)), 256, "headers[0].name"),
    (|n| format!("headers: [{{name: a, value: {}}}]", "v".repeat(n)), 2048, "headers[0].value"),
    (|n| format!("expectedStatuses: [{}]", vec!["'200'"; n].join(",")), 16, "expectedStatuses"),
];

#[test]
fn every_length_has_a_limit_and_one_past_it_is_refused() {
    let judge = |written: &dyn Fn(usize) -> String, most: usize, field: &str| {
        assert_eq!(compiled(&written(most), "").err(), None, "{field}: {most}");
        let refused = compiled(&written(most + 1), "").expect_err(field);
        let expected = format!("default/shop: spec.{field}: ");
        assert!(refused.len() == 1 && refused[0].starts_with(&expected), "{refused:?}");
    };
    for (written, most, field) in SIZED_REQUESTS {
        let request = |n| format!("healthCheck: {{active: {{http: {{{}}}}}}}", written(n));
        judge(&request, *most, &format!("healthCheck.active.http.{field}"));
    }
    let service = |n| format!("healthCheck: {{active: {{grpc: {{service: {}}}}}}}", "s".repeat(n));
    judge(&service, 253, "healthCheck.active.grpc.service");
    let name = |n| {
        let name = "n".repeat(n);
        format!("loadBalancing: {{algorithm: ConsistentHash, consistentHash: {{key: Query, name: {name}}}}}")
    };
    judge(&name, 256, "loadBalancing.consistentHash.name");
}

#[test]
fn limits_are_taken() {
    for good in [
        "loadBalancing: {algorithm: ConsistentHash, consistentHash: {key: Host, maxLoadPercent: 0}}",
        "loadBalancing: {algorithm: ConsistentHash, consistentHash: {key: SourceIP, maxLoadPercent: 105}}",
        "loadBalancing: {algorithm: ConsistentHash, consistentHash: {key: Cookie, name: sid, maxLoadPercent: 1000}}",
        "loadBalancing: {slowStart: {window: 1ms, minWeightPercent: 1}, panicBelowPercent: 1}",
        "loadBalancing: {slowStart: {window: 1h, minWeightPercent: 100}, panicBelowPercent: 100}",
        "healthCheck: {}",
        "healthCheck: {active: {tcp: {}, port: 1, interval: 100ms, timeout: 10ms, healthyThreshold: 1, unhealthyThreshold: 1}}",
        "healthCheck: {active: {tls: {}, port: 65535, interval: 1h, timeout: 5m, healthyThreshold: 100, unhealthyThreshold: 100}}",
        "healthCheck: {active: {http: {path: '/a?b=c%20d', host: '[::1]:80', expectedStatuses: ['200', 599-599]}}}",
        "healthCheck: {passive: {window: 1s, minRequests: 1, maxFailurePercent: 11, consecutiveFailures: 0, \
         consecutiveConnectFailures: 0, baseEjection: 100ms, maxEjection: 100ms, maxEjectedPercent: 0, minAvailable: 0}}",
        "healthCheck: {passive: {window: 10m, minRequests: 100000, maxFailurePercent: 100, consecutiveFailures: 100, \
         consecutiveConnectFailures: 100, baseEjection: 1h, maxEjection: 1h, maxEjectedPercent: 100, minAvailable: 65535}}",
        "healthCheck: {passive: {maxFailurePercent: 100, consecutiveFailures: 0, consecutiveConnectFailures: 0}}",
    ] {
        for refused in [compiled(good, "").err(), compiled("", good).err()] {
            assert_eq!(refused, None, "{good}");
        }
    }
}

#[test]
fn a_pool_that_says_nothing_gets_least_request_and_no_checks() {
    let [own, plain] = sets("", "");
    assert_eq!(own.algorithm(), push::Algorithm::LeastRequest);
    assert_eq!(own.locality(), push::Locality::Off);
    assert_eq!((&own.consistent_hash, &own.slow_start, own.panic_below_percent), (&None, &None, 0));
    assert_eq!((&own.active_check, &own.passive_check), (&None, &None));
    assert_eq!(BackendSet { name: String::new(), ..own }, BackendSet { name: String::new(), ..plain });
}

#[test]
fn what_a_policy_leaves_out_has_its_default() {
    let [set, _] =
        sets("loadBalancing: {slowStart: {window: 30s}}, healthCheck: {active: {http: {}}, passive: {}}", "");
    assert_eq!(set.slow_start, Some(push::SlowStart { window_ms: 30_000, min_weight_percent: 10 }));
    let active = set.active_check.expect("an active check");
    let request = push::HttpCheck {
        version: push::HttpVersion::HttpVersion1.into(),
        method: "GET".to_owned(),
        path: "/".to_owned(),
        expected: vec![push::StatusRange { first: 200, last: 399 }],
        ..push::HttpCheck::default()
    };
    let expected = push::ActiveCheck {
        kind: Some(push::active_check::Kind::Http(request)),
        port: 0,
        interval_ms: 1_000,
        timeout_ms: 1_000,
        healthy_threshold: 2,
        unhealthy_threshold: 3,
        initially_down: false,
    };
    assert_eq!(active, expected);
    let passive = push::PassiveCheck {
        window_ms: 10_000,
        min_requests: 10,
        max_failure_percent: 50,
        consecutive_failures: 5,
        consecutive_connect_failures: 3,
        base_ejection_ms: 10_000,
        max_ejection_ms: 300_000,
        max_ejected_percent: 50,
        min_available: 1,
        gray_failures: true,
    };
    assert_eq!(set.passive_check, Some(passive));
}

#[test]
fn each_algorithm_locality_and_key_compiles_to_its_own() {
    use push::{Algorithm, HashKey, Locality};
    for (name, expected) in [
        ("LeastRequest", Algorithm::LeastRequest),
        ("RoundRobin", Algorithm::RoundRobin),
        ("Random", Algorithm::Random),
        ("LeastConnections", Algorithm::LeastConnections),
        ("LeastResponseTime", Algorithm::LeastResponseTime),
        ("PeakEwma", Algorithm::PeakEwma),
    ] {
        assert_eq!(sets(&format!("loadBalancing: {{algorithm: {name}}}"), "")[0].algorithm(), expected);
    }
    for (name, expected) in
        [("None", Locality::Off), ("PreferZone", Locality::PreferZone), ("Hints", Locality::Hints)]
    {
        assert_eq!(sets(&format!("loadBalancing: {{locality: {name}}}"), "")[0].locality(), expected);
    }
    // Header fields are compared without case, so that they are spelled one way; cookies and queries are not.
    for (key, expected, name) in [
        ("SourceIP", HashKey::SourceIp, ""),
        ("Header, name: X-User", HashKey::Header, "x-user"),
        ("Cookie, name: SID", HashKey::Cookie, "SID"),
        ("Query, name: User", HashKey::Query, "User"),
        ("Host", HashKey::Host, ""),
    ] {
        let spec = format!(
            "loadBalancing: {{algorithm: ConsistentHash, consistentHash: {{key: {key}, maxLoadPercent: 0}}}}"
        );
        let [set, _] = sets(&spec, "");
        assert_eq!(set.algorithm(), Algorithm::ConsistentHash);
        let hash = push::ConsistentHash { key: expected.into(), name: name.to_owned(), max_load_percent: 0 };
        assert_eq!(set.consistent_hash, Some(hash));
    }
    let default = "loadBalancing: {algorithm: ConsistentHash, consistentHash: {key: Host}}";
    assert_eq!(sets(default, "")[0].consistent_hash.as_ref().map(|hash| hash.max_load_percent), Some(125));
}

#[test]
fn each_kind_of_check_compiles_to_its_own() {
    use push::active_check::Kind;
    let kind = |active: &str| {
        let [set, _] = sets(&format!("healthCheck: {{active: {{{active}}}}}"), "");
        set.active_check.and_then(|active| active.kind)
    };
    assert_eq!(kind("tcp: {}"), Some(Kind::Tcp(push::TcpCheck {})));
    assert_eq!(kind("tls: {}"), Some(Kind::Tls(push::TlsCheck {})));
    assert_eq!(kind("grpc: {}"), Some(Kind::Grpc(push::GrpcCheck::default())));
    let service = "shop.v1.Cart".to_owned();
    assert_eq!(kind("grpc: {service: shop.v1.Cart}"), Some(Kind::Grpc(push::GrpcCheck { service })));
    let http = "http: {version: HTTP2, method: POST, path: /ready, host: a, headers: [{name: X-A, value: b}], \
                expectedStatuses: ['204', 300-302], bodyContains: ok}";
    let expected = push::HttpCheck {
        version: push::HttpVersion::HttpVersion2.into(),
        method: "POST".to_owned(),
        path: "/ready".to_owned(),
        host: "a".to_owned(),
        headers: vec![push::HeaderField { name: "x-a".to_owned(), value: "b".to_owned() }],
        expected: vec![
            push::StatusRange { first: 204, last: 204 },
            push::StatusRange { first: 300, last: 302 },
        ],
        body_contains: "ok".to_owned(),
    };
    assert_eq!(kind(http), Some(Kind::Http(expected)));
    let [down, _] = sets("healthCheck: {active: {tcp: {}, port: 8081, initial: Down}}", "");
    let down = down.active_check.expect("an active check");
    assert_eq!((down.initially_down, down.port), (true, 8081));
}

#[test]
fn what_a_set_says_stands_in_for_the_pools_as_a_whole() {
    let spec = "loadBalancing: {algorithm: Random, slowStart: {window: 1m}, panicBelowPercent: 50}, \
                healthCheck: {active: {tcp: {}}, passive: {}}";
    let [own, plain] = sets(spec, "loadBalancing: {locality: Hints}, healthCheck: {active: {tls: {}}}");
    assert_eq!(own.algorithm(), push::Algorithm::LeastRequest, "the default, and not the pool's");
    assert_eq!((&own.slow_start, own.panic_below_percent), (&None, 0));
    assert_eq!(own.locality(), push::Locality::Hints);
    assert!(own.active_check.is_some() && own.passive_check.is_none());
    assert_eq!(plain.algorithm(), push::Algorithm::Random);
    assert_eq!((plain.slow_start.is_some(), plain.panic_below_percent), (true, 50));
    assert!(plain.active_check.is_some() && plain.passive_check.is_some());
    // Each of the two by itself.
    let [own, _] = sets(spec, "loadBalancing: {}");
    assert!(own.active_check.is_some() && own.passive_check.is_some());
    let [own, plain] = sets(spec, "healthCheck: {}");
    assert_eq!((&own.active_check, &own.passive_check), (&None, &None));
    assert_eq!((own.algorithm(), own.slow_start.is_some()), (push::Algorithm::Random, true));
    assert!(plain.active_check.is_some() && plain.passive_check.is_some());
}

#[test]
fn equal_policies_are_equal_bytes_however_they_are_spelled() {
    use prost::Message as _;
    let bytes = |spec: &str| {
        let world = world(&objects(&pool(spec, "")), None);
        let pool = &world.pools[&key("shop")];
        (pool.config.encode_to_vec(), pool.config_digest)
    };
    for (spec, same) in [
        ("", "loadBalancing: {}"),
        ("", "loadBalancing: {algorithm: LeastRequest, locality: None}, healthCheck: {}"),
        (
            "loadBalancing: {slowStart: {window: 90s}}",
            "loadBalancing: {slowStart: {window: 1m30s, minWeightPercent: 10}}",
        ),
        (
            "healthCheck: {active: {http: {headers: [{name: A, value: b}]}}}",
            "healthCheck: {active: {http: {headers: [{name: a, value: b}], expectedStatuses: ['200-399'], method: GET}}}",
        ),
        ("healthCheck: {passive: {}}", "healthCheck: {passive: {window: 10000ms, grayFailures: true}}"),
    ] {
        assert_eq!(bytes(spec), bytes(same), "{spec} {same}");
    }
    assert_ne!(bytes("").1, bytes("healthCheck: {passive: {}}").1);
    assert_ne!(bytes("").1, bytes("loadBalancing: {algorithm: Random}").1);
}

//! The definition of `LoadBalancerPool` as a real API server reads it: what it refuses, fills in and shows.

use serde_json::{Value, json};
use weir_tests::harness::cluster::Cluster;

fn pool(name: &str) -> Value {
    json!({
        "apiVersion": "weir.dev/v1alpha1",
        "kind": "LoadBalancerPool",
        "metadata": { "name": name },
        "spec": {
            "listeners": [
                { "name": "http", "port": 80, "protocol": "HTTP" },
                { "name": "https", "port": 443, "protocol": "HTTPS", "tls": { "certificateRefs": [{ "name": "c" }] } },
            ],
            "rules": [{
                "matches": [{ "path": { "value": "/api" } }],
                "backendSets": [{ "name": "web" }, { "name": "static" }],
            }],
            "backendSets": [
                { "name": "web", "service": { "name": "web", "port": "http" } },
                { "name": "static", "static": { "backends": [{ "address": "10.0.0.1", "port": 80 }] } },
            ],
            "timeouts": {},
            "connectionPool": {},
        },
    })
}

/// The pool with another value at this path.
fn changed(path: &str, value: &Value) -> Value {
    let mut pool = pool("bad");
    let (parent, name) = path.rsplit_once('/').expect("a path below the root");
    match pool.pointer_mut(parent).expect("a path that is there") {
        Value::Array(entries) => {
            let index: usize = name.parse().expect("an index");
            entries.truncate(index + 1);
            entries.resize(index + 1, Value::Null);
            entries[index] = value.clone();
        }
        parent => parent[name] = value.clone(),
    }
    pool
}

#[test]
fn what_is_left_out_is_filled_in() {
    let cluster = Cluster::shared();
    let namespace = cluster.namespace("defaults");
    let mut pool = pool("shop");
    pool["spec"]["backendSets"][0]["service"]["clusters"] =
        json!([{ "name": "east", "kubeconfigRef": { "name": "east" } }]);
    pool["spec"]["healthCheck"] = json!({ "active": { "http": {} }, "passive": {} });
    pool["spec"]["backendSets"][1]["loadBalancing"] = json!({ "slowStart": { "window": "30s" } });
    namespace.apply(&pool.to_string());
    let kept = namespace.get(&["lbp", "shop"]);
    let spec = &kept["spec"];
    for (path, expected) in [
        ("/loadBalancing/algorithm", json!("LeastRequest")),
        ("/loadBalancing/locality", json!("None")),
        ("/backendSets/1/static/backends/0/priority", json!(0)),
        ("/backendSets/0/service/priority", json!(0)),
        ("/backendSets/0/service/clusters/0/priority", json!(1)),
        ("/backendSets/0/service/clusters/0/kubeconfigRef/key", json!("kubeconfig")),
        ("/backendSets/1/loadBalancing/slowStart/minWeightPercent", json!(10)),
        ("/healthCheck/active/interval", json!("1s")),
        ("/healthCheck/active/timeout", json!("1s")),
        ("/healthCheck/active/healthyThreshold", json!(2)),
        ("/healthCheck/active/unhealthyThreshold", json!(3)),
        ("/healthCheck/active/initial", json!("Up")),
        ("/healthCheck/active/http/method", json!("GET")),
        ("/healthCheck/active/http/path", json!("/")),
        ("/healthCheck/passive/window", json!("10s")),
        ("/healthCheck/passive/minRequests", json!(10)),
        ("/healthCheck/passive/maxFailurePercent", json!(50)),
        ("/healthCheck/passive/maxEjection", json!("5m")),
        ("/healthCheck/passive/grayFailures", json!(true)),
        ("/rules/0/matches/0/path/type", json!("PathPrefix")),
        ("/rules/0/backendSets/0/weight", json!(1)),
        ("/backendSets/1/static/backends/0/weight", json!(1)),
        ("/timeouts/connect", json!("3s")),
        ("/timeouts/request", json!("30s")),
        ("/connectionPool/maxIdlePerBackend", json!(100)),
        ("/connectionPool/idleTimeout", json!("1m")),
    ] {
        assert_eq!(spec.pointer(path), Some(&expected), "{path} of {spec}");
    }
    assert_eq!(kept["metadata"]["generation"], 1);
}

/// Where, what, and the field and the rule that the refusal names.
const NONSENSE: &[(&str, &str, &str, &str)] = &[
    (
        "/spec/listeners/0/tls",
        r#"{"certificateRefs": [{"name": "c"}]}"#,
        "spec.listeners[0].tls",
        "protocol HTTP must not have tls",
    ),
    (
        "/spec/listeners/0/protocol",
        r#""HTTPS""#,
        "spec.listeners[0].tls",
        "protocol HTTPS must have tls.certificateRefs",
    ),
    (
        "/spec/listeners/1",
        r#"{"name": "other", "port": 80, "protocol": "HTTP"}"#,
        "spec.listeners",
        "two listeners must not have the same port",
    ),
    (
        "/spec/listeners/1",
        r#"{"name": "http", "port": 81, "protocol": "HTTP"}"#,
        ".spec.listeners",
        r#"duplicate entries for key [name="http"]"#,
    ),
    (
        "/spec/listeners/0/clientAddress",
        r#"{"numTrustedHops": 17}"#,
        "spec.listeners[0].clientAddress.numTrustedHops",
        "less than or equal to 16",
    ),
    (
        "/spec/listeners/0/clientAddress",
        r#"{"trustedCIDRs": ["proxy.example"]}"#,
        "spec.listeners[0].clientAddress.trustedCIDRs[0]",
        "must be of type cidr",
    ),
    (
        "/spec/listeners/0/clientAddress",
        r#"{"source": "ProxyProtocol"}"#,
        "spec.listeners[0].clientAddress.source",
        r#""XForwardedFor", "Forwarded""#,
    ),
    (
        "/spec/rateLimits",
        r#"[{"name": "a", "requests": 1, "period": "1s"}, {"name": "a", "requests": 2, "period": "1s"}]"#,
        "spec.rateLimits",
        r#"duplicate entries for key [name="a"]"#,
    ),
    ("/spec/listeners/0/port", "0", "spec.listeners[0].port", "greater than or equal to 1"),
    ("/spec/listeners/0/protocol", r#""QUIC""#, "spec.listeners[0].protocol", r#""HTTP", "HTTPS""#),
    ("/spec/listeners/0/hostnames", r#"["Example.com"]"#, "spec.listeners[0].hostnames[0]", "should match"),
    ("/spec/rules/0/backendSets/1/name", r#""nowhere""#, "spec", "must be a name in spec.backendSets"),
    (
        "/spec/rules/0/backendSets",
        r#"[{"name": "web", "weight": 0}]"#,
        "spec.rules[0].backendSets",
        "must have a weight above 0",
    ),
    ("/spec/rules/0/matches/0/path/value", r#""/a//b""#, "matches[0].path.value", "empty segment"),
    ("/spec/rules/0/matches/0/path/value", r#""/a/../b""#, "matches[0].path.value", "segment . or .."),
    ("/spec/rules/0/matches/0/path/value", r#""/a%2fb""#, "matches[0].path.value", "encoded slash"),
    ("/spec/rules/0/matches/0/path/value", r#""a""#, "matches[0].path.value", "must start with a slash"),
    ("/spec/rules/0/matches/0/path/value", r#""/a b""#, "matches[0].path.value", "percent-encode it"),
    (
        "/spec/rules/0/matches/0/headers",
        r#"[{"name": "a b", "value": "x"}]"#,
        "matches[0].headers[0].name",
        "should match",
    ),
    ("/spec/rules/0/backendSets", "[]", "spec.rules[0].backendSets", "at least 1"),
    ("/spec/rules/0", r#"{"matches": []}"#, "spec.rules[0]", "a rule must have backendSets, or a filter"),
    (
        "/spec/rules/0/filters",
        r#"[{"type": "DirectResponse", "directResponse": {}}]"#,
        "spec.rules[0]",
        "a filter RequestRedirect or DirectResponse that answers, and not both",
    ),
    (
        "/spec/rules/0/filters",
        r#"[{"type": "URLRewrite", "cors": {}}]"#,
        "spec.rules[0].filters[0]",
        "must have the field of its type",
    ),
    (
        "/spec/rules/0",
        r#"{"filters": [{"type": "RequestRedirect", "requestRedirect": {"statusCode": 304}}]}"#,
        "requestRedirect.statusCode",
        "301",
    ),
    (
        "/spec/backendSets/0/static",
        r#"{"backends": []}"#,
        "spec.backendSets[0]",
        "exactly one of service, endpointSelector, static and dns",
    ),
    (
        "/spec/backendSets/1",
        r#"{"name": "static"}"#,
        "spec.backendSets[1]",
        "exactly one of service, endpointSelector, static and dns",
    ),
    (
        "/spec/backendSets/0/service",
        r#"{"name": "web", "port": 80, "clusters": [
            {"name": "a", "kubeconfigRef": {"name": "a"}}, {"name": "a", "kubeconfigRef": {"name": "b"}}]}"#,
        "service.clusters",
        r#"duplicate entries for key [name="a"]"#,
    ),
    (
        "/spec/backendSets/0/service",
        r#"{"name": "web", "port": 80, "clusters": [{"name": "a", "kubeconfigRef": {"name": "a", "key": "a/b"}}]}"#,
        "clusters[0].kubeconfigRef.key",
        "should match",
    ),
    (
        "/spec/backendSets/0/service",
        r#"{"name": "web", "port": 80, "clusters": [{"name": "a", "priority": 16, "kubeconfigRef": {"name": "a"}}]}"#,
        "clusters[0].priority",
        "less than or equal to 15",
    ),
    (
        "/spec/backendSets/1",
        r#"{"name": "static", "endpointSelector": {"port": 80}}"#,
        "spec.backendSets[1].endpointSelector",
        "an empty selector would take every pod",
    ),
    (
        "/spec/backendSets/1",
        r#"{"name": "static", "endpointSelector": {"matchExpressions": [{"key": "a", "operator": "In"}], "port": 80}}"#,
        "matchExpressions[0]",
        "operators In and NotIn need values",
    ),
    (
        "/spec/backendSets/1",
        r#"{"name": "static", "endpointSelector": {"matchLabels": {"a": "b c"}, "port": 80}}"#,
        "endpointSelector.matchLabels.a",
        "should match",
    ),
    (
        "/spec/backendSets/1/static/backends/0/address",
        r#""web.example.com""#,
        "backends[0].address",
        "must be of type ipv4",
    ),
    (
        "/spec/backendSets/1",
        r#"{"name": "static", "dns": {"hostname": "10.0.0.1", "port": 80}}"#,
        "spec.backendSets[1].dns.hostname",
        "must not be an IP address",
    ),
    (
        "/spec/backendSets/1",
        r#"{"name": "static", "dns": {"hostname": "db..example", "port": 80}}"#,
        "spec.backendSets[1].dns.hostname",
        "should match",
    ),
    (
        "/spec/backendSets/1",
        r#"{"name": "static", "dns": {"hostname": "db.example", "port": 80, "maxRefresh": "2h"}}"#,
        "spec.backendSets[1].dns.maxRefresh",
        "maxRefresh must be 1s to 1h",
    ),
    (
        "/spec/backendSets/1",
        r#"{"name": "static", "dns": {"hostname": "db.example", "port": 80, "minRefresh": "9s", "maxRefresh": "5s"}}"#,
        "spec.backendSets[1].dns.minRefresh",
        "must not be longer than maxRefresh",
    ),
    (
        "/spec/backendSets/1",
        r#"{"name": "static", "dns": {"hostname": "db.example", "port": 80, "families": ["IPv4", "IPv4"]}}"#,
        "dns.families",
        "duplicate entries",
    ),
    ("/spec/timeouts/connect", r#""0s""#, "spec.timeouts.connect", "connect timeout must be above 0s"),
    ("/spec/timeouts/request", r#""soon""#, "spec.timeouts.request", "should match"),
    (
        "/spec/connectionPool/idleTimeout",
        r#""0m""#,
        "spec.connectionPool.idleTimeout",
        "idle timeout must be above 0s",
    ),
    (
        "/spec/backendSets/0/tls",
        r#"{"hostname": "web.internal"}"#,
        "spec.backendSets[0].tls",
        "exactly one of caCertificateRefs and wellKnownCACertificates",
    ),
    (
        "/spec/backendSets/0/tls",
        r#"{"hostname": "web.internal", "caCertificateRefs": [{"name": "ca"}], "wellKnownCACertificates": "System"}"#,
        "spec.backendSets[0].tls",
        "exactly one of caCertificateRefs and wellKnownCACertificates",
    ),
    (
        "/spec/backendSets/0/tls",
        r#"{"hostname": "10.0.0.1", "wellKnownCACertificates": "System"}"#,
        "spec.backendSets[0].tls.hostname",
        "should match",
    ),
    (
        "/spec/backendSets/0/tls",
        r#"{"hostname": "a.b", "wellKnownCACertificates": "System", "subjectAltNames": [{"type": "URI", "hostname": "a.b"}]}"#,
        "tls.subjectAltNames[0]",
        "one of type URI must have uri",
    ),
    (
        "/spec/listeners/1/tls",
        r#"{"certificateRefs": [{"name": "c"}], "minVersion": "1.1"}"#,
        "spec.listeners[1].tls.minVersion",
        r#""1.2", "1.3""#,
    ),
    (
        "/spec/listeners/1/tls",
        r#"{"certificateRefs": [{"name": "c"}], "minVersion": "1.2", "cipherPolicy": "Modern"}"#,
        "spec.listeners[1].tls.minVersion",
        "cipherPolicy Modern is TLS 1.3 alone",
    ),
    (
        "/spec/listeners/1/tls",
        r#"{"certificateRefs": [{"name": "c"}], "clientValidation": {"caCertificateRefs": []}}"#,
        "tls.clientValidation.caCertificateRefs",
        "at least 1",
    ),
    (
        "/spec/listeners/1/httpsRedirect",
        "{}",
        "spec.listeners[1].httpsRedirect",
        "its clients are there already",
    ),
    ("/spec/listeners/0/httpsRedirect", r#"{"statusCode": 304}"#, "httpsRedirect.statusCode", "308"),
    ("/spec/listeners/0/hsts", r#"{"maxAge": "1h"}"#, "spec.listeners[0].hsts", "over HTTPS alone"),
    ("/spec/listeners/1/hsts", r#"{"maxAge": "87601h"}"#, "hsts.maxAge", "maxAge must be 0s to 87600h"),
    (
        "/spec/listeners/1/hsts",
        r#"{"maxAge": "8760h", "preload": true}"#,
        "spec.listeners[1].hsts.preload",
        "preload needs includeSubDomains",
    ),
    (
        "/spec/listeners/0/proxyProtocol",
        r#"{"trustedCIDRs": []}"#,
        "proxyProtocol.trustedCIDRs",
        "at least 1",
    ),
    (
        "/spec/listeners/0/proxyProtocol",
        r#"{"trustedCIDRs": ["10.0.0.0/8"], "versions": ["V3"]}"#,
        "proxyProtocol.versions",
        r#""V1", "V2""#,
    ),
    (
        "/spec/listeners/0/limits",
        r#"{"handshakesAtOnce": 0}"#,
        "limits.handshakesAtOnce",
        "greater than or equal to 1",
    ),
    (
        "/spec/backendSets/0",
        r#"{"name": "web", "static": {"backends": []}, "proxyProtocol": "V1", "connectionPool": {"minWarmPerBackend": 1}}"#,
        "connectionPool.minWarmPerBackend",
        "keeps no connection warm",
    ),
    ("/spec/listeners", "[]", "spec.listeners", "at least 1"),
    ("/spec/loadBalancing", r#"{"algorithm": "Sorcery"}"#, "spec.loadBalancing.algorithm", r#""RoundRobin""#),
];

#[test]
fn nonsense_is_refused_with_field_and_rule() {
    let cluster = Cluster::shared();
    let namespace = cluster.namespace("refusals");
    for (path, value, field, rule) in NONSENSE {
        let changed = changed(path, &serde_json::from_str(value).expect("JSON"));
        let refusal = namespace.refusal(&changed.to_string());
        assert!(refusal.contains(field) && refusal.contains(rule), "{path} = {value}: {refusal}");
    }
    // A field that nothing applies is an error and not ignored.
    let unknown = namespace.refusal(&changed("/spec/sessionAffinity", &json!("ClientIP")).to_string());
    assert!(unknown.contains("sessionAffinity"), "{unknown}");
}

#[test]
fn a_status_is_written_beside_the_specification() {
    let cluster = Cluster::shared();
    let namespace = cluster.namespace("status");
    let mut with_status = pool("shop");
    with_status["status"] = json!({ "observedGeneration": 7 });
    namespace.apply(&with_status.to_string());
    assert_eq!(namespace.get(&["lbp", "shop"])["status"], Value::Null, "only the subresource writes it");
    let patch = json!({ "status": { "observedGeneration": 1 } }).to_string();
    namespace.kubectl(&["patch", "lbp", "shop", "--subresource=status", "--type=merge", "--patch", &patch]);
    let kept = namespace.get(&["lbp", "shop"]);
    assert_eq!(
        (&kept["status"]["observedGeneration"], &kept["metadata"]["generation"]),
        (&json!(1), &json!(1))
    );
}

#[test]
fn kubectl_shows_the_columns_under_the_short_name_and_the_category() {
    let cluster = Cluster::shared();
    let namespace = cluster.namespace("columns");
    namespace.apply(&pool("shop").to_string());
    for name in ["lbp", "weir", "loadbalancerpools.weir.dev"] {
        let table = namespace.kubectl(&["get", name]);
        let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let head = lines.next().expect("a head");
        for column in ["NAME", "ALGORITHM", "READY", "PROXIES", "STATUS", "AGE"] {
            assert!(head.contains(&column), "{table}");
        }
        let row = lines.next().expect("a row");
        assert_eq!(row[..2], ["shop", "LeastRequest"], "{table}");
    }
}

#[test]
fn kubectl_explains_every_field() {
    let cluster = Cluster::shared();
    let explained = cluster.kubectl(&["explain", "lbp.spec.timeouts.connect"]);
    assert!(explained.contains("To open a connection to a backend"), "{explained}");
}

//! How backends are chosen and checked: what the API server refuses the compile step refuses too, and the other way round.

use serde_json::{Value, json};
use weir_controller::compile::{ObjectKey, Objects, world};
use weir_tests::harness::cluster::Cluster;
use weir_tests::harness::folder::Folder;
use weir_tests::harness::ports;
use weir_tests::harness::services::{Samples, Service, wait_for_status};

/// A pool of as many sets as there are policies, each with its own.
fn pool(name: &str, policies: &[Value]) -> Value {
    let set = |(index, policy): (usize, &Value)| {
        let backends = json!([{ "address": "10.0.0.1", "port": 80 }]);
        let mut set = json!({ "name": format!("s{index}"), "static": { "backends": backends } });
        let fields = policy.as_object().expect("an object").clone();
        set.as_object_mut().expect("an object").extend(fields);
        set
    };
    json!({
        "apiVersion": "weir.dev/v1alpha1",
        "kind": "LoadBalancerPool",
        "metadata": { "name": name },
        "spec": {
            "listeners": [{ "name": "http", "port": 80, "protocol": "HTTP" }],
            "backendSets": policies.iter().enumerate().map(set).collect::<Vec<_>>(),
        },
    })
}

/// The pool with a policy for all of its sets.
fn with(policy: &Value) -> Value {
    let mut pool = pool("bad", &[json!({})]);
    let spec = pool["spec"].as_object_mut().expect("an object");
    spec.extend(policy.as_object().expect("an object").clone());
    pool
}

/// What the controller says of a pool that no API server has looked at.
pub(super) fn compiled(pool: &Value) -> Result<(), Vec<String>> {
    let pool = serde_json::from_value(pool.clone()).map_err(|error| vec![error.to_string()])?;
    let mut objects = Objects::default();
    let key = ObjectKey::new("default", "bad");
    objects.pools.insert(key.clone(), std::sync::Arc::new(pool));
    match world(&objects, None).rejections.remove(&key) {
        None => Ok(()),
        Some(rejections) => Err(rejections.iter().map(ToString::to_string).collect()),
    }
}

fn parsed(policy: &str) -> Value {
    serde_json::from_str(policy).unwrap_or_else(|error| panic!("{policy}: {error}"))
}

/// What, the field that both name, and the rules that the API server and the compile step name. The first group is of
/// rules, for which an object must be right in its types.
const MIXES: &[(&str, &str, &str, &str)] = &[
    (
        r#"{"loadBalancing": {"algorithm": "ConsistentHash"}}"#,
        "loadBalancing.consistentHash",
        "algorithm ConsistentHash must have consistentHash",
        "is missing",
    ),
    (
        r#"{"loadBalancing": {"consistentHash": {"key": "Host"}}}"#,
        "loadBalancing.consistentHash",
        "and no other algorithm may: add it, remove it or change the algorithm",
        "remove it, or choose that algorithm",
    ),
    (
        r#"{"loadBalancing": {"algorithm": "ConsistentHash", "consistentHash": {"key": "Host"}, "slowStart": {"window": "1s"}}}"#,
        "loadBalancing.slowStart",
        "is not for algorithm ConsistentHash, where each of its steps would move keys: remove it",
        "is not for algorithm ConsistentHash",
    ),
    (
        r#"{"loadBalancing": {"algorithm": "ConsistentHash", "consistentHash": {"key": "Header"}}}"#,
        "loadBalancing.consistentHash.name",
        "key Header, Cookie and Query must have name",
        "is missing",
    ),
    (
        r#"{"loadBalancing": {"algorithm": "ConsistentHash", "consistentHash": {"key": "SourceIP", "name": "x"}}}"#,
        "loadBalancing.consistentHash.name",
        "no other key may",
        "remove it",
    ),
    (
        r#"{"loadBalancing": {"algorithm": "ConsistentHash", "consistentHash": {"key": "Host", "maxLoadPercent": 104}}}"#,
        "loadBalancing.consistentHash.maxLoadPercent",
        "must be 0 (no bound), or 105 to 1000",
        "use 105 to 1000, or 0",
    ),
    (
        r#"{"loadBalancing": {"slowStart": {"window": "0s"}}}"#,
        "loadBalancing.slowStart.window",
        "must be above 0s and at most 1h",
        "use 1ms to 1h",
    ),
    (
        r#"{"loadBalancing": {"slowStart": {"window": "61m"}}}"#,
        "loadBalancing.slowStart.window",
        "must be above 0s and at most 1h",
        "use 1ms to 1h",
    ),
    (
        r#"{"healthCheck": {"active": {}}}"#,
        "healthCheck.active",
        "exactly one of http, tcp",
        "exactly one of http",
    ),
    (
        r#"{"healthCheck": {"active": {"http": {}, "grpc": {}}}}"#,
        "healthCheck.active",
        "exactly one of http, tcp, tls and grpc",
        "exactly one of http, tcp, tls and grpc",
    ),
    (
        r#"{"healthCheck": {"active": {"tcp": {}, "interval": "99ms"}}}"#,
        "healthCheck.active.interval",
        "interval must be 100ms to 1h",
        "use 100ms to 1h",
    ),
    (
        r#"{"healthCheck": {"active": {"tcp": {}, "timeout": "301s"}}}"#,
        "healthCheck.active.timeout",
        "timeout must be 10ms to 5m",
        "use 10ms to 5m",
    ),
    (
        r#"{"healthCheck": {"active": {"http": {"method": "CONNECT"}}}}"#,
        "healthCheck.active.http.method",
        "use another method",
        "use another method",
    ),
    (
        r#"{"healthCheck": {"active": {"http": {"method": "HEAD", "bodyContains": "ok"}}}}"#,
        "healthCheck.active.http.bodyContains",
        "use another method, or remove bodyContains",
        "use another method, or remove it",
    ),
    (
        r#"{"healthCheck": {"active": {"http": {"headers": [{"name": "Content-Length", "value": "1"}]}}}}"#,
        "healthCheck.active.http.headers[0].name",
        "a check writes this header field itself: remove it",
        "is a field that a check writes itself: remove it",
    ),
    (
        r#"{"healthCheck": {"active": {"http": {"expectedStatuses": ["299-200"]}}}}"#,
        "healthCheck.active.http.expectedStatuses",
        "must have the lower one first",
        "the lower first",
    ),
    (
        r#"{"healthCheck": {"passive": {"window": "11m"}}}"#,
        "healthCheck.passive.window",
        "window must be 1s to 10m",
        "use 1s to 10m",
    ),
    (
        r#"{"healthCheck": {"passive": {"baseEjection": "99ms"}}}"#,
        "healthCheck.passive.baseEjection",
        "baseEjection must be 100ms to 1h",
        "use 100ms to 1h",
    ),
    (
        r#"{"healthCheck": {"passive": {"maxEjection": "61m"}}}"#,
        "healthCheck.passive.maxEjection",
        "maxEjection must be at most 1h",
        "use 100ms to 1h",
    ),
    (
        r#"{"healthCheck": {"passive": {"baseEjection": "10s", "maxEjection": "9s"}}}"#,
        "healthCheck.passive.maxEjection",
        "must not be shorter than baseEjection",
        "is shorter than baseEjection",
    ),
    (
        r#"{"healthCheck": {"passive": {"maxFailurePercent": 100, "consecutiveFailures": 0, "consecutiveConnectFailures": 0, "grayFailures": false}}}"#,
        "healthCheck.passive",
        "leave it out, or switch something on",
        "leave it out, or switch something on",
    ),
];

/// As [`MIXES`], for what the types and ranges of the definition refuse.
const RANGES: &[(&str, &str, &str, &str)] = &[
    (
        r#"{"loadBalancing": {"algorithm": "Fastest"}}"#,
        "loadBalancing.algorithm",
        r#""PeakEwma""#,
        "`PeakEwma`",
    ),
    (
        r#"{"loadBalancing": {"algorithm": "ConsistentHash", "consistentHash": {"key": "Cookie", "name": "a;b"}}}"#,
        "loadBalancing.consistentHash.name",
        "should match",
        "is not a token of HTTP",
    ),
    (
        r#"{"loadBalancing": {"slowStart": {"window": "1s", "minWeightPercent": 0}}}"#,
        "loadBalancing.slowStart.minWeightPercent",
        "greater than or equal to 1",
        "use 1 to 100",
    ),
    (
        r#"{"loadBalancing": {"panicBelowPercent": 101}}"#,
        "loadBalancing.panicBelowPercent",
        "less than or equal to 100",
        "use 1 to 100",
    ),
    (
        r#"{"healthCheck": {"active": {"tcp": {}, "port": 65536}}}"#,
        "healthCheck.active.port",
        "less than or equal to 65535",
        "use 1 to 65535",
    ),
    (
        r#"{"healthCheck": {"active": {"tcp": {}, "healthyThreshold": 0}}}"#,
        "healthCheck.active.healthyThreshold",
        "greater than or equal to 1",
        "use 1 to 100",
    ),
    (
        r#"{"healthCheck": {"active": {"tcp": {}, "unhealthyThreshold": 101}}}"#,
        "healthCheck.active.unhealthyThreshold",
        "less than or equal to 100",
        "use 1 to 100",
    ),
    (
        r#"{"healthCheck": {"active": {"http": {"path": "healthz"}}}}"#,
        "healthCheck.active.http.path",
        "should match",
        "start it with a slash",
    ),
    (
        r#"{"healthCheck": {"active": {"http": {"path": "/a#b"}}}}"#,
        "healthCheck.active.http.path",
        "should match",
        "is not a path",
    ),
    (
        r#"{"healthCheck": {"active": {"http": {"host": "a/b"}}}}"#,
        "healthCheck.active.http.host",
        "should match",
        "is not a host",
    ),
    (
        r#"{"healthCheck": {"active": {"http": {"headers": [{"name": "a b", "value": "c"}]}}}}"#,
        "healthCheck.active.http.headers[0].name",
        "should match",
        "is not a token of HTTP",
    ),
    (
        r#"{"healthCheck": {"active": {"http": {"headers": [{"name": "a", "value": "é"}]}}}}"#,
        "healthCheck.active.http.headers[0].value",
        "should match",
        "is not a header's value",
    ),
    (
        r#"{"healthCheck": {"active": {"http": {"expectedStatuses": ["2xx"]}}}}"#,
        "healthCheck.active.http.expectedStatuses[0]",
        "should match",
        "write 200 or 200-399",
    ),
    (
        r#"{"healthCheck": {"active": {"http": {"bodyContains": ""}}}}"#,
        "healthCheck.active.http.bodyContains",
        "at least 1 char",
        "1 to 4096 bytes",
    ),
    (
        r#"{"healthCheck": {"active": {"grpc": {"service": ""}}}}"#,
        "healthCheck.active.grpc.service",
        "at least 1 char",
        "use 1 to 253",
    ),
    (
        r#"{"healthCheck": {"passive": {"minRequests": 0}}}"#,
        "healthCheck.passive.minRequests",
        "greater than or equal to 1",
        "use 1 to 100000",
    ),
    (
        r#"{"healthCheck": {"passive": {"maxFailurePercent": 10}}}"#,
        "healthCheck.passive.maxFailurePercent",
        "greater than or equal to 11",
        "use 11 to 100",
    ),
    (
        r#"{"healthCheck": {"passive": {"consecutiveFailures": 101}}}"#,
        "healthCheck.passive.consecutiveFailures",
        "less than or equal to 100",
        "use 0 to 100",
    ),
    (
        r#"{"healthCheck": {"passive": {"consecutiveConnectFailures": -1}}}"#,
        "healthCheck.passive.consecutiveConnectFailures",
        "greater than or equal to 0",
        "use 0 to 100",
    ),
    (
        r#"{"healthCheck": {"passive": {"maxEjectedPercent": 101}}}"#,
        "healthCheck.passive.maxEjectedPercent",
        "less than or equal to 100",
        "use 0 to 100",
    ),
    (
        r#"{"healthCheck": {"passive": {"minAvailable": 65536}}}"#,
        "healthCheck.passive.minAvailable",
        "less than or equal to 65535",
        "use 0 to 65535",
    ),
];

#[test]
fn what_the_api_server_refuses_the_compile_step_refuses_by_the_same_field() {
    let cluster = Cluster::shared();
    let namespace = cluster.namespace("policies");
    for group in [MIXES, RANGES] {
        let policies: Vec<Value> = group.iter().map(|(policy, ..)| parsed(policy)).collect();
        // All of a group at once, each in a set of its own.
        let sets = pool("bad", &policies);
        let refusal = namespace.refusal(&sets.to_string());
        for (index, (policy, field, rule, compile_rule)) in group.iter().enumerate() {
            let named = format!("spec.backendSets[{index}].{field}: ");
            let is_refused = refusal.lines().any(|line| line.contains(&named) && line.contains(rule));
            assert!(is_refused, "{policy}: {refusal}");

            let with = with(&policies[index]);
            let refusals = compiled(&with).expect_err(policy);
            let named = |refusal: &String| {
                // What is no value of the type is refused by whoever reads it, who knows the place.
                let is_read =
                    refusal.starts_with("unknown variant") || refusal.contains(&format!("spec.{field}"));
                is_read && refusal.contains(compile_rule)
            };
            assert!(refusals.iter().any(named), "{policy}: {refusals:?}");
        }
    }
    for (policy, field, rule, _) in &MIXES[..1] {
        let refusal = namespace.refusal(&with(&parsed(policy)).to_string());
        assert!(refusal.contains(&format!("spec.{field}: ")) && refusal.contains(rule), "{refusal}");
    }
}

/// Policies at the limits; the first is none.
const GOOD: &[&str] = &[
    "{}",
    r#"{"loadBalancing": {"algorithm": "ConsistentHash", "consistentHash": {"key": "Header", "name": "X-User"}}}"#,
    r#"{"loadBalancing": {"algorithm": "ConsistentHash", "consistentHash": {"key": "Host", "maxLoadPercent": 0}}}"#,
    r#"{"loadBalancing": {"algorithm": "ConsistentHash", "consistentHash": {"key": "SourceIP", "maxLoadPercent": 105}}}"#,
    r#"{"loadBalancing": {"algorithm": "ConsistentHash", "consistentHash": {"key": "Query", "name": "a", "maxLoadPercent": 1000}}}"#,
    r#"{"loadBalancing": {"slowStart": {"window": "1ms", "minWeightPercent": 1}, "locality": "Hints", "panicBelowPercent": 1}}"#,
    r#"{"loadBalancing": {"slowStart": {"window": "1h", "minWeightPercent": 100}, "panicBelowPercent": 100}}"#,
    r#"{"healthCheck": {}}"#,
    r#"{"healthCheck": {"active": {"tcp": {}, "port": 1, "interval": "100ms", "timeout": "10ms", "healthyThreshold": 1}}}"#,
    r#"{"healthCheck": {"active": {"tls": {}, "port": 65535, "interval": "1h", "timeout": "5m", "unhealthyThreshold": 100}}}"#,
    r#"{"healthCheck": {"active": {"grpc": {"service": "shop.v1.Cart"}, "initial": "Down"}}}"#,
    r#"{"healthCheck": {"active": {"http": {"version": "HTTP2", "path": "/a?b=%20", "host": "[::1]:80", "expectedStatuses": ["200", "599-599"]}}}}"#,
    r#"{"healthCheck": {"passive": {"window": "1s", "minRequests": 1, "maxFailurePercent": 11, "baseEjection": "100ms", "maxEjection": "100ms"}}}"#,
    r#"{"healthCheck": {"passive": {"window": "10m", "minRequests": 100000, "baseEjection": "1h", "maxEjection": "1h", "minAvailable": 65535}}}"#,
    r#"{"healthCheck": {"passive": {"maxFailurePercent": 100, "consecutiveFailures": 0, "consecutiveConnectFailures": 0}}}"#,
];

fn good() -> Vec<Value> {
    let mut policies: Vec<Value> = GOOD.iter().map(|policy| parsed(policy)).collect();
    policies.push(json!({ "healthCheck": { "active": { "http": { "bodyContains": "é".repeat(2048) } } } }));
    policies
}

#[test]
fn what_the_api_server_takes_the_compile_step_takes_too() {
    let cluster = Cluster::shared();
    let namespace = cluster.namespace("good-policies");
    let policies = good();
    let mut pool = pool("good", &policies);
    pool["spec"]["backendSets"][0]["static"]["backends"][0]["priority"] = json!(15);
    assert_eq!(compiled(&pool), Ok(()));
    namespace.apply(&pool.to_string());
    // What the API server filled in compiles as well, and to the same.
    let kept = namespace.get(&["lbp", "good"]);
    assert_eq!(compiled(&kept), Ok(()));

    let past = json!({ "healthCheck": { "active": { "http": { "bodyContains": format!("{}a", "é".repeat(2048)) } } } });
    let refusal = namespace.refusal(&with(&past).to_string());
    assert!(refusal.contains("bodyContains must be at most 4096 bytes"), "{refusal}");
    assert!(compiled(&with(&past)).is_err());
    pool["spec"]["backendSets"][0]["static"]["backends"][0]["priority"] = json!(16);
    let refusal = namespace.refusal(&pool.to_string());
    let field = "spec.backendSets[0].static.backends[0].priority";
    assert!(refusal.contains(field) && refusal.contains("less than or equal to 15"), "{refusal}");
    assert!(compiled(&pool).expect_err("out of range")[0].contains(field));
}

#[test]
fn as_many_sets_as_there_may_be_with_all_that_a_policy_can_say_cost_the_api_server_no_more_than_it_gives() {
    let cluster = Cluster::shared();
    let namespace = cluster.namespace("many-policies");
    let headers: Vec<_> = (0..16).map(|n| json!({ "name": format!("x-{n}"), "value": "v" })).collect();
    let statuses = vec!["200-299"; 16];
    let policy = json!({
        "loadBalancing": { "algorithm": "ConsistentHash", "consistentHash": { "key": "Query", "name": "q".repeat(256) } },
        "healthCheck": {
            "active": { "http": { "headers": headers, "expectedStatuses": statuses, "bodyContains": "b".repeat(512) } },
            "passive": {},
        },
    });
    let pool = pool("many", &vec![policy; weir_crds::pool::BACKEND_SETS_MAX]);
    assert_eq!(compiled(&pool), Ok(()));
    namespace.apply(&pool.to_string());
}

#[test]
fn what_the_compile_step_takes_a_proxy_takes_too() {
    let samples = Samples::start("member", 1);
    let port = ports::free();
    let mut pool = pool("good", &good());
    let spec = &mut pool["spec"];
    spec["listeners"][0]["port"] = json!(port);
    spec["rules"] = json!([{ "backendSets": [{ "name": "s0" }] }]);
    spec["backendSets"][0]["static"]["backends"] =
        json!([{ "address": "127.0.0.1", "port": samples.ports[0] }]);
    let folder = Folder::new();
    folder.write("pool.yaml", &pool.to_string());
    let _weir = Service::standalone(folder.path(), &[]);
    // One set that is refused would hold all of the pool back.
    wait_for_status(port, "/", 200);
}

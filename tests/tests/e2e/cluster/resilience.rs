//! Connections, resilience and sessions: what the API server refuses the compile step refuses too, by the same field,
//! and what one takes the other takes, and a proxy.

mod wrong;

use super::policy::compiled;
use serde_json::{Value, json};
use weir_tests::harness::cluster::Cluster;
use weir_tests::harness::folder::Folder;
use weir_tests::harness::ports;
use weir_tests::harness::services::{Samples, Service, wait_for_status};
use wrong::{RULE_MIXES, RULE_RANGES, SET_MIXES, SET_RANGES, Wrong};

/// A pool whose sets, after one named `web`, and whose rules each have the fields of one entry.
fn pool(sets: &[Value], rules: &[Value]) -> Value {
    let with = |mut object: Value, fields: &Value| {
        let fields = fields.as_object().expect("an object").clone();
        object.as_object_mut().expect("an object").extend(fields);
        object
    };
    let backends = json!([{ "address": "10.0.0.1", "port": 80 }]);
    let set = |name: String| json!({ "name": name, "static": { "backends": backends } });
    let own = sets.iter().enumerate().map(|(index, fields)| with(set(format!("s{index}")), fields));
    let sets: Vec<Value> = std::iter::once(set("web".to_owned())).chain(own).collect();
    let rule = |fields: &Value| with(json!({ "backendSets": [{ "name": "web" }] }), fields);
    json!({
        "apiVersion": "weir.dev/v1alpha1",
        "kind": "LoadBalancerPool",
        "metadata": { "name": "bad" },
        "spec": {
            "listeners": [{ "name": "http", "port": 80, "protocol": "HTTP" }],
            "backendSets": sets,
            "rules": rules.iter().map(rule).collect::<Vec<_>>(),
        },
    })
}

/// The pool with these fields of its own.
fn with(fields: &Value) -> Value {
    let mut pool = pool(&[], &[]);
    let spec = pool["spec"].as_object_mut().expect("an object");
    spec.extend(fields.as_object().expect("an object").clone());
    pool
}

fn parsed(fields: &str) -> Value {
    serde_json::from_str(fields).unwrap_or_else(|error| panic!("{fields}: {error}"))
}

#[test]
fn what_the_api_server_refuses_of_it_the_compile_step_refuses_by_the_same_field() {
    let cluster = Cluster::shared();
    let namespace = cluster.namespace("resilience");
    let long = "n".repeat(65);
    for (sets, rules) in [(SET_MIXES, RULE_MIXES), (SET_RANGES, RULE_RANGES)] {
        let fields = |group: &[Wrong]| -> Vec<Value> {
            group.iter().map(|(fields, ..)| parsed(&fields.replace("NAME65", &long))).collect()
        };
        let (of_sets, of_rules) = (fields(sets), fields(rules));
        // All of a group at once, each in a set or a rule of its own. The first set is that of the rules.
        let refusal = namespace.refusal(&pool(&of_sets, &of_rules).to_string());
        let sets = sets.iter().zip(&of_sets).enumerate();
        let sets = sets.map(|(index, row)| (format!("spec.backendSets[{}]", index + 1), row));
        let rules = rules.iter().zip(&of_rules).enumerate();
        let rules = rules.map(|(index, row)| (format!("spec.rules[{index}]"), row));
        for (place, ((_, field, rule, compile_rule), fields)) in sets.chain(rules) {
            let named = format!("{place}.{field}: ");
            let is_refused = refusal.lines().any(|line| line.contains(&named) && line.contains(rule));
            assert!(is_refused, "{named}{fields}: {refusal}");
            let refusals = compiled(&with(fields)).expect_err(field);
            let expected = format!("spec.{field}: ");
            let is_named = |refusal: &String| refusal.contains(&expected) && refusal.contains(compile_rule);
            assert!(refusals.len() == 1 && refusals.iter().any(is_named), "{fields}: {refusals:?}");
        }
    }
}

#[test]
fn a_fallback_is_a_set_that_there_is_and_not_the_set_itself() {
    let cluster = Cluster::shared();
    let namespace = cluster.namespace("fallbacks");
    let to = |name: &str| json!({ "circuitBreaker": { "fallback": { "backendSet": name } } });
    let own = "spec.backendSets[1].circuitBreaker.fallback.backendSet";
    for (pool, field, rule) in [
        (pool(&[to("s0")], &[]), own, "must not be its own fallback: name another set, or use a response"),
        (pool(&[to("none")], &[]), "spec.backendSets", "must be a name in spec.backendSets: add the set"),
        (with(&to("none")), "spec.circuitBreaker.fallback.backendSet", "must be a name in spec.backendSets"),
    ] {
        let refusal = namespace.refusal(&pool.to_string());
        assert!(refusal.contains(field) && refusal.contains(rule), "{refusal}");
        let refusals = compiled(&pool).expect_err(field);
        assert!(
            refusals.len() == 1 && refusals[0].contains("circuitBreaker.fallback.backendSet"),
            "{refusals:?}"
        );
    }
    // No rule of the API server finds a longer circle; the status says it.
    let circle = pool(&[to("s1"), to("s0")], &[]);
    namespace.apply(&circle.to_string());
    let refusals = compiled(&circle).expect_err("a circle");
    assert!(refusals.len() == 1 && refusals[0].contains("(s0, s1, s0)"), "{refusals:?}");
}

#[test]
fn a_status_is_tried_again_once_in_a_list() {
    let twice = with(&json!({ "retry": { "codes": [500, 500] } }));
    let refusal = Cluster::shared().namespace("codes").refusal(&twice.to_string());
    assert!(refusal.contains("spec.retry.codes") && refusal.contains("duplicate entries"), "{refusal}");
    let refusals = compiled(&twice).expect_err("twice");
    assert!(
        refusals.len() == 1 && refusals[0].contains("spec.retry.codes[1]: 500 is there twice"),
        "{refusals:?}"
    );
}

#[test]
fn matches_of_a_split_are_refused_with_their_fields() {
    let cluster = Cluster::shared();
    let namespace = cluster.namespace("splits");
    for (matches, field, rule, compile_rule) in [
        (json!([{ "type": "Header", "name": "a b" }]), "[0].name", "should match", "is not a token of HTTP"),
        (
            json!([{ "type": "Cookie", "name": "a", "value": "é" }]),
            "[0].value",
            "should match",
            "is not a header's value",
        ),
        (json!(vec![json!({ "type": "Header", "name": "a" }); 9]), "", "at most 8", "use at most 8"),
        (json!([{ "type": "Query", "name": "a" }]), "[0].type", r#""Header", "Cookie""#, "unknown variant"),
    ] {
        let pool = pool(&[], &[json!({ "backendSets": [{ "name": "web", "matches": matches }] })]);
        let refusal = namespace.refusal(&pool.to_string());
        let field = format!("spec.rules[0].backendSets[0].matches{field}");
        assert!(refusal.contains(&field) && refusal.contains(rule), "{refusal}");
        let refusals = compiled(&pool).expect_err(compile_rule);
        assert!(refusals.len() == 1 && refusals[0].contains(compile_rule), "{refusals:?}");
    }
}

/// Everything that can be said, at a limit where there is one, for sets.
fn good_sets() -> Vec<Value> {
    vec![
        json!({
            "protocol": "HTTP2",
            "connectionPool": { "maxIdlePerBackend": 0, "idleTimeout": "1ms", "minWarmPerBackend": 1000, "maxPerBackend": 1000, "maxStreamsPerConnection": 1000 },
            "concurrency": { "maxRequestsPerBackend": 1_000_000, "queue": { "maxRequests": 100_000, "timeout": "5m" } },
            "circuitBreaker": {
                "failurePercent": 100, "minRequests": 100_000, "window": "10m", "resetTimeout": "1h", "halfOpenRequests": 100,
                "fallback": { "response": { "status": 599, "contentType": "t".repeat(256), "body": "é".repeat(2048) } },
            },
            "retryBudget": { "percent": 100, "minRetriesPerSecond": 10_000, "window": "1m" },
        }),
        json!({
            "protocol": "HTTP",
            "connectionPool": { "maxPerBackend": 65_535 },
            "concurrency": { "maxRequestsPerBackend": 1, "queue": { "maxRequests": 1, "timeout": "1ms" } },
            "circuitBreaker": {
                "failurePercent": 1, "minRequests": 1, "window": "1s", "resetTimeout": "100ms", "halfOpenRequests": 1,
                "fallback": { "backendSet": "s0" },
            },
            "retryBudget": { "percent": 0, "minRetriesPerSecond": 0, "window": "1s" },
        }),
        json!({ "connectionPool": {}, "concurrency": { "maxRequestsPerBackend": 5, "queue": {} }, "circuitBreaker": {}, "retryBudget": {} }),
        json!({ "circuitBreaker": { "fallback": { "response": { "status": 200, "body": "" } } } }),
    ]
}

/// The same for rules.
fn good_rules() -> Vec<Value> {
    let split = json!([
        { "name": "web", "weight": 9 },
        { "name": "s0", "weight": 0, "matches": vec![json!({ "type": "Header", "name": "h".repeat(256), "value": "v".repeat(256) }); 8] },
        { "name": "s1", "matches": [{ "type": "Cookie", "name": "canary" }] },
    ]);
    let codes: Vec<u32> = (400..416).collect();
    let limit = |n: usize| {
        json!({
            "name": format!("l{n}"), "key": { "type": "Header", "name": "h".repeat(256) }, "requests": 1_000_000,
            "period": "24h", "burst": 1_000_000, "maxKeys": 100, "responseHeaders": "Always",
        })
    };
    let limits: Vec<_> = (0..weir_crds::pool::RATE_LIMITS_MAX).map(limit).collect();
    let networks: Vec<_> =
        (0..weir_crds::pool::IP_NETWORKS_MAX).map(|n| format!("2001:db8:{n:x}::/48")).collect();
    vec![
        json!({
            "backendSets": split,
            "timeouts": { "request": "1s", "backendRequest": "500ms", "idle": "1ms", "total": "10m" },
            "retry": { "attempts": 10, "codes": codes, "backoff": "10s", "hedgeAfter": "1m" },
            "sessionPersistence": {
                "type": "Cookie", "sessionName": "__Host-session", "absoluteTimeout": "720h",
                "cookieConfig": { "lifetimeType": "Session", "path": "/", "sameSite": "None", "secure": "Always", "httpOnly": false },
            },
            "rateLimits": limits,
            "ipRules": { "allow": ["10.0.0.0/8"], "deny": ["::ffff:10.1.0.0/112"] },
        }),
        json!({
            "timeouts": {},
            "retry": { "attempts": 0, "codes": [], "backoff": "0s", "hedgeAfter": "1ms" },
            "sessionPersistence": { "type": "SourceIP", "idleTimeout": "1s", "maxSessions": 1000 },
            "rateLimits": [
                { "name": "a", "requests": 1, "period": "1s", "key": { "ipv4PrefixLength": 1, "ipv6PrefixLength": 128 } },
                { "name": "b", "requests": 1, "period": "1s", "algorithm": "SlidingWindow", "key": { "type": "Cookie", "name": "c" } },
                { "name": "c", "requests": 1, "period": "1s", "key": { "type": "Route" } },
            ],
            "ipRules": { "allow": networks, "deny": networks },
        }),
        json!({ "retry": {}, "sessionPersistence": { "type": "Header", "sessionName": "h".repeat(256), "idleTimeout": "720h", "maxSessions": 4_000_000 } }),
        json!({ "sessionPersistence": { "type": "LearntCookie", "sessionName": "c".repeat(64) } }),
        json!({ "sessionPersistence": { "sessionName": "c".repeat(64), "absoluteTimeout": "1s", "cookieConfig": { "path": format!("/{}", "p".repeat(255)), "sameSite": "Strict", "secure": "Never" } } }),
        json!({ "sessionPersistence": { "type": "None" } }),
        json!({ "sessionPersistence": {}, "rateLimits": [], "ipRules": {} }),
    ]
}

/// A pool that says all of it, also for itself.
fn good() -> Value {
    let mut pool = pool(&good_sets(), &good_rules());
    let spec = pool["spec"].as_object_mut().expect("an object");
    let own = json!({
        "timeouts": { "connect": "1s", "request": "0s", "backendRequest": "0s", "idle": "1m", "total": "0s" },
        "connectionPool": { "minWarmPerBackend": 1 },
        "concurrency": { "maxRequestsPerBackend": 100 },
        "circuitBreaker": { "fallback": { "backendSet": "s3" } },
        "retry": {},
        "retryBudget": {},
        "sessionPersistence": { "cookieConfig": {} },
        "rateLimits": [{ "name": "a", "requests": 1, "period": "1h" }],
        "ipRules": { "deny": ["192.0.2.0/24"] },
    });
    spec.extend(own.as_object().expect("an object").clone());
    pool
}

#[test]
fn what_says_all_of_it_is_taken_and_filled_in() {
    let cluster = Cluster::shared();
    let namespace = cluster.namespace("good-resilience");
    assert_eq!(compiled(&good()), Ok(()));
    namespace.apply(&good().to_string());
    // What the API server filled in compiles as well.
    let kept = namespace.get(&["lbp", "bad"]);
    assert_eq!(compiled(&kept), Ok(()));
    for (path, expected) in [
        ("/connectionPool/maxIdlePerBackend", json!(100)),
        ("/connectionPool/idleTimeout", json!("1m")),
        ("/connectionPool/maxStreamsPerConnection", json!(100)),
        ("/backendSets/3/connectionPool/minWarmPerBackend", json!(0)),
        ("/backendSets/3/concurrency/queue/maxRequests", json!(100)),
        ("/backendSets/3/concurrency/queue/timeout", json!("1s")),
        ("/circuitBreaker/failurePercent", json!(50)),
        ("/circuitBreaker/minRequests", json!(20)),
        ("/circuitBreaker/window", json!("10s")),
        ("/circuitBreaker/resetTimeout", json!("30s")),
        ("/circuitBreaker/halfOpenRequests", json!(3)),
        ("/backendSets/4/circuitBreaker/fallback/response/contentType", json!("text/plain; charset=utf-8")),
        ("/retry/attempts", json!(3)),
        ("/retry/backoff", json!("25ms")),
        ("/retryBudget/percent", json!(20)),
        ("/retryBudget/minRetriesPerSecond", json!(10)),
        ("/retryBudget/window", json!("10s")),
        ("/sessionPersistence/type", json!("Cookie")),
        ("/sessionPersistence/cookieConfig/lifetimeType", json!("Permanent")),
        ("/sessionPersistence/cookieConfig/path", json!("/")),
        ("/sessionPersistence/cookieConfig/sameSite", json!("Lax")),
        ("/sessionPersistence/cookieConfig/secure", json!("Auto")),
        ("/sessionPersistence/cookieConfig/httpOnly", json!(true)),
        ("/rules/6/sessionPersistence/type", json!("Cookie")),
    ] {
        assert_eq!(kept["spec"].pointer(path), Some(&expected), "{path}");
    }
    assert_eq!(kept["spec"]["timeouts"]["idle"], "1m");
    assert!(kept["spec"]["retry"].get("codes").is_none(), "a list has no default of its own");
}

#[test]
fn as_many_sets_and_rules_as_there_may_be_with_all_of_it_cost_the_api_server_no_more_than_it_gives() {
    let cluster = Cluster::shared();
    let namespace = cluster.namespace("many-resilience");
    let sets_max = weir_crds::pool::BACKEND_SETS_MAX;
    let mut set = good_sets().remove(1);
    set["circuitBreaker"]["fallback"] = json!({ "backendSet": format!("s{}", sets_max - 2) });
    set["loadBalancing"] = json!({ "algorithm": "ConsistentHash", "consistentHash": { "key": "Query", "name": "q".repeat(256) } });
    let headers: Vec<_> = (0..16).map(|n| json!({ "name": format!("x-{n}"), "value": "v" })).collect();
    let http = json!({ "headers": headers, "expectedStatuses": vec!["200-299"; 16], "bodyContains": "b".repeat(512) });
    set["healthCheck"] = json!({ "active": { "http": http }, "passive": {} });
    let mut sets = vec![set; sets_max - 1];
    sets[sets_max - 2]["circuitBreaker"]["fallback"] = json!({ "response": { "body": "b".repeat(512) } });
    let mut rule = good_rules().remove(0);
    // What an object may be in size ends before what it may say of all rules.
    let limit = |name: &str| json!({ "name": name, "key": { "type": "Cookie", "name": "c" }, "requests": 1, "period": "1s", "burst": 1, "maxKeys": 100 });
    rule["rateLimits"] = json!([limit("a"), limit("b")]);
    let matches = json!([{ "type": "Header", "name": "x-canary", "value": "v" }]);
    // The last ones, so that whoever looks for them looks at all.
    let names = (sets_max - 10..sets_max - 2).map(|index| format!("s{index}"));
    rule["backendSets"] = names.map(|name| json!({ "name": name, "matches": matches })).collect();
    let pool = pool(&sets, &vec![rule; weir_crds::pool::RULES_MAX]);
    assert_eq!(compiled(&pool), Ok(()));
    namespace.apply(&pool.to_string());
}

#[test]
fn what_the_compile_step_takes_of_it_a_proxy_takes_too() {
    let samples = Samples::start("member", 1);
    let port = ports::free();
    let mut pool = good();
    let spec = &mut pool["spec"];
    spec["listeners"][0]["port"] = json!(port);
    spec["backendSets"][0]["static"]["backends"] =
        json!([{ "address": "127.0.0.1", "port": samples.ports[0] }]);
    let rules = spec["rules"].as_array_mut().expect("rules");
    rules.insert(
        0,
        json!({ "matches": [{ "path": { "value": "/" } }], "backendSets": [{ "name": "web" }], "rateLimits": [] }),
    );
    let folder = Folder::new();
    folder.write("pool.yaml", &pool.to_string());
    let _weir = Service::standalone(folder.path(), &[]);
    // One field that is refused would hold all of the pool back.
    wait_for_status(port, "/", 200);
}

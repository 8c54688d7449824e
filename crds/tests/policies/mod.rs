//! Rules on connections, resilience and sessions.

use super::{pool, refusals};
use serde_json::{Value, json};

/// Where a field may stand, beside the specification itself.
const SET: &str = "/spec/backendSets/0";
const RULE: &str = "/spec/rules/0";

/// The pool with these fields at a place.
fn with(parent: &str, fields: &Value) -> Value {
    let mut changed = pool();
    let at = changed.pointer_mut(parent).and_then(Value::as_object_mut).expect("an object");
    at.extend(fields.as_object().expect("an object").clone());
    changed
}

#[test]
fn what_is_right_passes_in_the_pool_and_in_a_set_or_a_rule() {
    let of_sets = [
        json!({"connectionPool": {}}),
        json!({"connectionPool": {"minWarmPerBackend": 5, "maxPerBackend": 5}}),
        json!({"connectionPool": {"minWarmPerBackend": 1000}}),
        json!({"concurrency": {"maxRequestsPerBackend": 1}}),
        json!({"concurrency": {"maxRequestsPerBackend": 1, "queue": {}}}),
        json!({"concurrency": {"maxRequestsPerBackend": 1, "queue": {"timeout": "5m"}}}),
        json!({"circuitBreaker": {}}),
        json!({"circuitBreaker": {"window": "1s", "resetTimeout": "100ms"}}),
        json!({"circuitBreaker": {"window": "10m", "resetTimeout": "1h"}}),
        json!({"circuitBreaker": {"fallback": {"backendSet": "static"}}}),
        json!({"circuitBreaker": {"fallback": {"response": {}}}}),
        json!({"circuitBreaker": {"fallback": {"response": {"body": "é".repeat(2048)}}}}),
        json!({"retryBudget": {}}),
        json!({"retryBudget": {"window": "1s"}}),
        json!({"retryBudget": {"window": "1m"}}),
    ];
    let of_rules = [
        json!({"timeouts": {"request": "0s", "backendRequest": "0s", "idle": "1ms", "total": "0s"}}),
        json!({"retry": {}}),
        json!({"retry": {"codes": [], "backoff": "0s", "hedgeAfter": "1ms"}}),
        json!({"retry": {"codes": [400, 599], "backoff": "10s", "hedgeAfter": "1m"}}),
        json!({"sessionPersistence": {}}),
        json!({"sessionPersistence": {"type": "None"}}),
        json!({"sessionPersistence": {"sessionName": "n".repeat(64), "absoluteTimeout": "720h"}}),
        json!({"sessionPersistence": {"type": "Header", "sessionName": "n".repeat(256), "idleTimeout": "1s"}}),
        json!({"sessionPersistence": {"type": "LearntCookie", "sessionName": "SID", "maxSessions": 1000}}),
        json!({"sessionPersistence": {"type": "SourceIP", "idleTimeout": "720h", "maxSessions": 4000000}}),
        json!({"sessionPersistence": {"cookieConfig": {"sameSite": "None"}}}),
        json!({"sessionPersistence": {"cookieConfig": {"secure": "Never"}}}),
        json!({"sessionPersistence": {"sessionName": "__Host-a", "cookieConfig": {}}}),
        json!({"sessionPersistence": {"sessionName": "__Secure-a", "cookieConfig": {"path": "/shop", "secure": "Always"}}}),
    ];
    let places =
        of_sets.iter().map(|fields| (fields, SET)).chain(of_rules.iter().map(|fields| (fields, RULE)));
    for (fields, place) in places {
        for parent in ["/spec", place] {
            assert_eq!(refusals(&with(parent, fields)), Vec::<String>::new(), "{parent} {fields}");
        }
    }
    let last =
        json!({"matches": [{"type": "Header", "name": "x"}, {"type": "Cookie", "name": "c", "value": "v"}]});
    assert_eq!(refusals(&with("/spec/rules/0/backendSets/1", &last)), Vec::<String>::new());
}

/// Fields of the specification and of a set, and what their rule says.
fn wrong_for_sets() -> Vec<(Value, &'static str)> {
    let queue = |queue: Value| json!({"concurrency": {"maxRequestsPerBackend": 1, "queue": queue}});
    let breaker = |breaker: Value| json!({"circuitBreaker": breaker});
    let one_of = "a fallback must have exactly one of backendSet and response";
    vec![
        (json!({"connectionPool": {"idleTimeout": "0s"}}), "an idle timeout must be above 0s"),
        (
            json!({"connectionPool": {"minWarmPerBackend": 6, "maxPerBackend": 5}}),
            "minWarmPerBackend must not be above maxPerBackend: lower it, or raise maxPerBackend",
        ),
        (queue(json!({"timeout": "0s"})), "a queue's timeout must be above 0s and at most 5m"),
        (queue(json!({"timeout": "5m1ms"})), "a queue's timeout must be above 0s and at most 5m"),
        (breaker(json!({"window": "999ms"})), "window must be 1s to 10m"),
        (breaker(json!({"window": "10m1ms"})), "window must be 1s to 10m"),
        (breaker(json!({"resetTimeout": "99ms"})), "resetTimeout must be 100ms to 1h"),
        (breaker(json!({"resetTimeout": "1h1ms"})), "resetTimeout must be 100ms to 1h"),
        (breaker(json!({"fallback": {}})), one_of),
        (breaker(json!({"fallback": {"backendSet": "static", "response": {}}})), one_of),
        (
            breaker(json!({"fallback": {"backendSet": "nowhere"}})),
            "the backend set of a fallback must be a name in spec.backendSets",
        ),
        (
            breaker(json!({"fallback": {"response": {"body": "é".repeat(2049)}}})),
            "body must be at most 4096 bytes in UTF-8",
        ),
        (json!({"retryBudget": {"window": "999ms"}}), "window must be 1s to 1m"),
        (json!({"retryBudget": {"window": "1m1ms"}}), "window must be 1s to 1m"),
    ]
}

/// Fields of the specification and of a rule, and what their rule says.
fn wrong_for_rules() -> Vec<(Value, &'static str)> {
    let kept = |kept: Value| json!({"sessionPersistence": kept});
    let named = "type Header and LearntCookie must have sessionName: say which header or cookie";
    let unnamed = "sessionName is for type Cookie, Header and LearntCookie only: remove it";
    let long = "the name of a cookie must be at most 64 characters";
    let absolute = "absoluteTimeout is for type Cookie only: remove it, or use idleTimeout";
    let idle =
        "idleTimeout is for type SourceIP, Header and LearntCookie only: remove it, or use absoluteTimeout";
    let many = "maxSessions is for type SourceIP, Header and LearntCookie only";
    let secure = "browsers drop a cookie whose name begins with __Secure- or __Host- where it is not secure";
    vec![
        (json!({"timeouts": {"idle": "0s"}}), "an idle timeout must be above 0s"),
        (json!({"retry": {"backoff": "10s1ms"}}), "backoff must be at most 10s"),
        (json!({"retry": {"hedgeAfter": "0s"}}), "hedgeAfter must be 1ms to 1m"),
        (json!({"retry": {"hedgeAfter": "1m1ms"}}), "hedgeAfter must be 1ms to 1m"),
        (kept(json!({"type": "Header"})), named),
        (kept(json!({"type": "LearntCookie"})), named),
        (kept(json!({"type": "SourceIP", "sessionName": "a"})), unnamed),
        (kept(json!({"type": "None", "sessionName": "a"})), unnamed),
        (kept(json!({"sessionName": "n".repeat(65)})), long),
        (kept(json!({"type": "LearntCookie", "sessionName": "n".repeat(65)})), long),
        (kept(json!({"type": "SourceIP", "absoluteTimeout": "1h"})), absolute),
        (kept(json!({"type": "None", "absoluteTimeout": "1h"})), absolute),
        (kept(json!({"idleTimeout": "1h"})), idle),
        (kept(json!({"type": "None", "idleTimeout": "1h"})), idle),
        (kept(json!({"maxSessions": 1000})), many),
        (kept(json!({"type": "None", "maxSessions": 1000})), many),
        (
            kept(json!({"type": "SourceIP", "cookieConfig": {}})),
            "cookieConfig is for type Cookie only: remove it",
        ),
        (kept(json!({"absoluteTimeout": "999ms"})), "absoluteTimeout must be 1s to 720h (30 days)"),
        (kept(json!({"absoluteTimeout": "720h1ms"})), "absoluteTimeout must be 1s to 720h (30 days)"),
        (
            kept(json!({"type": "SourceIP", "idleTimeout": "999ms"})),
            "idleTimeout must be 1s to 720h (30 days)",
        ),
        (
            kept(json!({"type": "SourceIP", "idleTimeout": "720h1ms"})),
            "idleTimeout must be 1s to 720h (30 days)",
        ),
        (
            kept(json!({"cookieConfig": {"sameSite": "None", "secure": "Never"}})),
            "browsers drop a cookie with sameSite None that is not secure: use secure Auto or Always",
        ),
        (kept(json!({"sessionName": "__Secure-a", "cookieConfig": {"secure": "Never"}})), secure),
        (kept(json!({"sessionName": "__host-a", "cookieConfig": {"secure": "Never"}})), secure),
        (
            kept(json!({"sessionName": "__Host-a", "cookieConfig": {"path": "/shop"}})),
            "browsers drop a cookie whose name begins with __Host- where its path is not /: use path /",
        ),
    ]
}

#[test]
fn each_rule_refuses_what_it_is_for_in_the_pool_and_in_a_set_or_a_rule() {
    let sets = wrong_for_sets().into_iter().map(|(fields, expected)| (fields, expected, SET));
    let rules = wrong_for_rules().into_iter().map(|(fields, expected)| (fields, expected, RULE));
    for (fields, expected, place) in sets.chain(rules) {
        for parent in ["/spec", place] {
            let refusals = refusals(&with(parent, &fields));
            assert!(refusals.len() == 1 && refusals[0].contains(expected), "{parent} {fields}: {refusals:?}");
        }
    }
}

#[test]
fn a_set_is_not_its_own_fallback_and_the_pools_fallback_may_be_any_of_its_sets() {
    let fallback = json!({"circuitBreaker": {"fallback": {"backendSet": "web"}}});
    let refused = refusals(&with(SET, &fallback));
    assert!(refused.len() == 1 && refused[0].contains("must not be its own fallback"), "{refused:?}");
    assert_eq!(refusals(&with("/spec", &fallback)), Vec::<String>::new());
}

#[test]
fn empty_objects_mean_the_defaults() {
    let fields = json!({"timeouts": {}, "connectionPool": {}, "retry": {}, "retryBudget": {}, "circuitBreaker": {}, "sessionPersistence": {}});
    let read: weir_crds::LoadBalancerPool =
        serde_json::from_value(with("/spec", &fields)).expect("the pool is good");
    let spec = read.spec;
    assert_eq!(spec.timeouts, Some(weir_crds::pool::Timeouts::default()));
    assert_eq!(spec.connection_pool, Some(weir_crds::pool::ConnectionPool::default()));
    assert_eq!(spec.retry, Some(weir_crds::pool::Retry::default()));
    assert_eq!(spec.retry_budget, Some(weir_crds::pool::RetryBudget::default()));
    let breaker = spec.circuit_breaker.expect("there");
    assert_eq!((breaker.failure_percent, breaker.min_requests, breaker.half_open_requests), (50, 20, 3));
    let sessions = spec.session_persistence.expect("there");
    assert_eq!((sessions.kind, sessions.session_name), (weir_crds::pool::SessionType::Cookie, None));
}

//! How sets are connected to, what protects them, and what stands in for them.

use super::*;
use weir_proto::push::{self, BackendSet};

/// A pool of the sets `own`, `plain` and `last`, with these fields of the specification and of the first set.
fn pool(spec: &str, set: &str) -> String {
    pool_of(spec, [set, "", ""])
}

fn pool_of(spec: &str, sets: [&str; 3]) -> String {
    let comma = |fields: &str| if fields.is_empty() { String::new() } else { format!(", {fields}") };
    let [own, plain, last] = sets
        .map(|fields| format!("static: {{backends: [{{address: 10.0.0.1, port: 80}}]}}{}}}", comma(fields)));
    format!(
        "apiVersion: weir.dev/v1alpha1\nkind: LoadBalancerPool\nmetadata: {{name: shop}}\nspec: {{listeners: [{{name: l, \
         port: 80, protocol: HTTP}}], backendSets: [{{name: own, {own}, {{name: plain, {plain}, {{name: last, {last}]{}}}",
        comma(spec)
    )
}

fn compiled(pool: &str) -> Result<Vec<BackendSet>, Vec<String>> {
    let world = world(&objects(pool), None);
    match world.pools.get(&key("shop")) {
        Some(pool) => Ok(pool.config.backend_sets.clone()),
        None => Err(shown(world.rejections.values().flatten())),
    }
}

fn sets(pool: &str) -> [BackendSet; 3] {
    let sets = compiled(pool).unwrap_or_else(|refused| panic!("{pool}: {refused:?}"));
    sets.try_into().expect("three sets")
}

/// What is wrong, below `spec` and below a set alike, and the sentence from the field on.
const WRONG: &[(&str, &str)] = &[
    (
        "connectionPool: {maxIdlePerBackend: -1}",
        "connectionPool.maxIdlePerBackend: -1 is out of range: use 0 to 65535",
    ),
    (
        "connectionPool: {maxIdlePerBackend: 65536}",
        "connectionPool.maxIdlePerBackend: 65536 is out of range: use 0 to 65535",
    ),
    (
        "connectionPool: {idleTimeout: 0s}",
        "connectionPool.idleTimeout: 0s is no time at all: use more than 0s",
    ),
    (
        "connectionPool: {minWarmPerBackend: -1}",
        "connectionPool.minWarmPerBackend: -1 is out of range: use 0 to 1000",
    ),
    (
        "connectionPool: {minWarmPerBackend: 1001}",
        "connectionPool.minWarmPerBackend: 1001 is out of range: use 0 to 1000",
    ),
    ("connectionPool: {maxPerBackend: 0}", "connectionPool.maxPerBackend: 0 is out of range: use 1 to 65535"),
    (
        "connectionPool: {maxPerBackend: 65536}",
        "connectionPool.maxPerBackend: 65536 is out of range: use 1 to 65535",
    ),
    (
        "connectionPool: {minWarmPerBackend: 3, maxPerBackend: 2}",
        "connectionPool.minWarmPerBackend: 3 is above maxPerBackend, 2: lower it, or raise maxPerBackend",
    ),
    (
        "connectionPool: {maxStreamsPerConnection: 0}",
        "connectionPool.maxStreamsPerConnection: 0 is out of range: use 1 to 1000",
    ),
    (
        "connectionPool: {maxStreamsPerConnection: 1001}",
        "connectionPool.maxStreamsPerConnection: 1001 is out of range: use 1 to 1000",
    ),
    (
        "concurrency: {maxRequestsPerBackend: 0}",
        "concurrency.maxRequestsPerBackend: 0 is out of range: use 1 to 1000000",
    ),
    (
        "concurrency: {maxRequestsPerBackend: 1000001}",
        "concurrency.maxRequestsPerBackend: 1000001 is out of range: use 1 to 1000000",
    ),
    (
        "concurrency: {maxRequestsPerBackend: 1, queue: {maxRequests: 0}}",
        "concurrency.queue.maxRequests: 0 is out of range: use 1 to 100000",
    ),
    (
        "concurrency: {maxRequestsPerBackend: 1, queue: {maxRequests: 100001}}",
        "concurrency.queue.maxRequests: 100001 is out of range: use 1 to 100000",
    ),
    (
        "concurrency: {maxRequestsPerBackend: 1, queue: {timeout: 0s}}",
        "concurrency.queue.timeout: 0s is out of range: use 1ms to 5m",
    ),
    (
        "concurrency: {maxRequestsPerBackend: 1, queue: {timeout: 5m1ms}}",
        "concurrency.queue.timeout: 5m1ms is out of range: use 1ms to 5m",
    ),
    ("retryBudget: {percent: -1}", "retryBudget.percent: -1 is out of range: use 0 to 100"),
    ("retryBudget: {percent: 101}", "retryBudget.percent: 101 is out of range: use 0 to 100"),
    (
        "retryBudget: {minRetriesPerSecond: -1}",
        "retryBudget.minRetriesPerSecond: -1 is out of range: use 0 to 10000",
    ),
    (
        "retryBudget: {minRetriesPerSecond: 10001}",
        "retryBudget.minRetriesPerSecond: 10001 is out of range: use 0 to 10000",
    ),
    ("retryBudget: {window: 999ms}", "retryBudget.window: 999ms is out of range: use 1s to 1m"),
    ("retryBudget: {window: 1m1ms}", "retryBudget.window: 1m1ms is out of range: use 1s to 1m"),
];

/// Fields of `circuitBreaker`, and the sentence from the field on.
const WRONG_BREAKERS: &[(&str, &str)] = &[
    ("failurePercent: 0", "failurePercent: 0 is out of range: use 1 to 100"),
    ("failurePercent: 101", "failurePercent: 101 is out of range: use 1 to 100"),
    ("minRequests: 0", "minRequests: 0 is out of range: use 1 to 100000"),
    ("minRequests: 100001", "minRequests: 100001 is out of range: use 1 to 100000"),
    ("window: 999ms", "window: 999ms is out of range: use 1s to 10m"),
    ("window: 10m1ms", "window: 10m1ms is out of range: use 1s to 10m"),
    ("resetTimeout: 99ms", "resetTimeout: 99ms is out of range: use 100ms to 1h"),
    ("resetTimeout: 1h1ms", "resetTimeout: 1h1ms is out of range: use 100ms to 1h"),
    ("halfOpenRequests: 0", "halfOpenRequests: 0 is out of range: use 1 to 100"),
    ("halfOpenRequests: 101", "halfOpenRequests: 101 is out of range: use 1 to 100"),
    ("fallback: {}", "fallback: must have exactly one of backendSet and response"),
    (
        "fallback: {backendSet: plain, response: {}}",
        "fallback: must have exactly one of backendSet and response",
    ),
    (
        "fallback: {backendSet: none}",
        "fallback.backendSet: \"none\" is not a name in spec.backendSets: add the set or correct the name",
    ),
    ("fallback: {response: {status: 199}}", "fallback.response.status: 199 is out of range: use 200 to 599"),
    ("fallback: {response: {status: 600}}", "fallback.response.status: 600 is out of range: use 200 to 599"),
    (
        "fallback: {response: {contentType: ''}}",
        "fallback.response.contentType: \"\" is not a header's value: use 1 to 256 visible ASCII",
    ),
    (
        "fallback: {response: {contentType: é}}",
        "fallback.response.contentType: \"é\" is not a header's value",
    ),
    (
        "fallback: {response: {contentType: 'a '}}",
        "fallback.response.contentType: \"a \" begins or ends with a blank: remove it",
    ),
];

#[test]
fn whatever_is_wrong_is_refused_once_with_its_field_in_the_pool_and_in_a_set() {
    let own = |(wrong, sentence): &(&str, &str)| ((*wrong).to_owned(), (*sentence).to_owned());
    let breaker = |(wrong, sentence): &(&str, &str)| {
        (format!("circuitBreaker: {{{wrong}}}"), format!("circuitBreaker.{sentence}"))
    };
    let rows = WRONG.iter().map(own).chain(WRONG_BREAKERS.iter().map(breaker));
    for (wrong, sentence) in rows {
        for (refused, field) in
            [(compiled(&pool(&wrong, "")), "spec."), (compiled(&pool("", &wrong)), "spec.backendSets[0].")]
        {
            let refused = refused.expect_err(&wrong);
            let expected = format!("default/shop: {field}{sentence}");
            assert!(refused.len() == 1 && refused[0].starts_with(&expected), "{wrong}: {refused:?}");
        }
    }
}

#[test]
fn limits_are_taken() {
    let long = format!(
        "circuitBreaker: {{fallback: {{response: {{status: 599, contentType: {}, body: {}}}}}}}",
        "c".repeat(256),
        "b".repeat(4096)
    );
    for good in [
        "connectionPool: {maxIdlePerBackend: 0, idleTimeout: 1ms, minWarmPerBackend: 1000, maxPerBackend: 1000}",
        "connectionPool: {maxIdlePerBackend: 65535, maxPerBackend: 65535, maxStreamsPerConnection: 1000}",
        "connectionPool: {minWarmPerBackend: 1000, maxStreamsPerConnection: 1}",
        "concurrency: {maxRequestsPerBackend: 1, queue: {maxRequests: 1, timeout: 1ms}}",
        "concurrency: {maxRequestsPerBackend: 1000000, queue: {maxRequests: 100000, timeout: 5m}}",
        "circuitBreaker: {failurePercent: 1, minRequests: 1, window: 1s, resetTimeout: 100ms, halfOpenRequests: 1}",
        "circuitBreaker: {failurePercent: 100, minRequests: 100000, window: 10m, resetTimeout: 1h, halfOpenRequests: 100}",
        "circuitBreaker: {fallback: {response: {status: 200, body: ''}}}",
        &long,
        "retryBudget: {percent: 0, minRetriesPerSecond: 0, window: 1s}",
        "retryBudget: {percent: 100, minRetriesPerSecond: 10000, window: 1m}",
        "circuitBreaker: {}, retryBudget: {}, connectionPool: {}",
    ] {
        for refused in [compiled(&pool(good, "")).err(), compiled(&pool("", good)).err()] {
            assert_eq!(refused, None, "{good}");
        }
    }
    let response =
        |fields: &str| pool(&format!("circuitBreaker: {{fallback: {{response: {{{fields}}}}}}}"), "");
    for (field, past) in [
        ("contentType", format!("contentType: {}", "c".repeat(257))),
        ("body", format!("body: {}", "b".repeat(4097))),
    ] {
        let refused = compiled(&response(&past)).expect_err(field);
        let expected = format!("default/shop: spec.circuitBreaker.fallback.response.{field}: ");
        assert!(refused.len() == 1 && refused[0].starts_with(&expected), "{refused:?}");
    }
}

#[test]
fn a_pool_that_says_nothing_has_a_retry_budget_and_no_bounds() {
    let [own, plain, _] = sets(&pool("", ""));
    assert_eq!((own.idle_connections_max, own.idle_timeout_ms), (100, 60_000));
    assert_eq!(own.connections, Some(push::ConnectionLimits { warm_min: 0, max: 0, streams_max: 100 }));
    assert_eq!((&own.concurrency, &own.circuit_breaker), (&None, &None));
    let budget = push::RetryBudget { percent: 20, min_retries_per_second: 10, window_ms: 10_000 };
    assert_eq!(own.retry_budget, Some(budget));
    assert_eq!(own.protocol(), push::UpstreamProtocol::Http1);
    let [same, ..] = sets(&pool("connectionPool: {}, retryBudget: {}", ""));
    assert_eq!(same, own);
    assert_eq!(BackendSet { name: String::new(), ..own }, BackendSet { name: String::new(), ..plain });
}

#[test]
fn every_field_compiles_to_its_own() {
    use push::circuit_breaker::Fallback;
    let [set, ..] = sets(&pool(
        "",
        "protocol: HTTP2, connectionPool: {maxIdlePerBackend: 5, idleTimeout: 7s, minWarmPerBackend: 2, maxPerBackend: 9, \
         maxStreamsPerConnection: 11}, concurrency: {maxRequestsPerBackend: 13, queue: {maxRequests: 17, timeout: 19ms}}, \
         circuitBreaker: {failurePercent: 23, minRequests: 29, window: 31s, resetTimeout: 37s, halfOpenRequests: 41, \
         fallback: {response: {status: 202, contentType: text/html, body: later}}}, \
         retryBudget: {percent: 43, minRetriesPerSecond: 47, window: 53s}",
    ));
    assert_eq!(set.protocol(), push::UpstreamProtocol::Http2);
    assert_eq!((set.idle_connections_max, set.idle_timeout_ms), (5, 7_000));
    assert_eq!(set.connections, Some(push::ConnectionLimits { warm_min: 2, max: 9, streams_max: 11 }));
    let queue = Some(push::Queue { requests_max: 17, timeout_ms: 19 });
    assert_eq!(set.concurrency, Some(push::Concurrency { requests_max: 13, queue }));
    let response =
        push::FallbackResponse { status: 202, content_type: "text/html".into(), body: b"later".into() };
    let breaker = push::CircuitBreaker {
        failure_percent: 23,
        min_requests: 29,
        window_ms: 31_000,
        reset_ms: 37_000,
        probes: 41,
        fallback: Some(Fallback::FallbackResponse(response)),
    };
    assert_eq!(set.circuit_breaker, Some(breaker));
    let budget = push::RetryBudget { percent: 43, min_retries_per_second: 47, window_ms: 53_000 };
    assert_eq!(set.retry_budget, Some(budget));
}

#[test]
fn what_is_left_out_has_its_default() {
    use push::circuit_breaker::Fallback;
    let [set, ..] = sets(&pool(
        "concurrency: {maxRequestsPerBackend: 1, queue: {}}, circuitBreaker: {fallback: {response: {}}}",
        "",
    ));
    let queue = Some(push::Queue { requests_max: 100, timeout_ms: 1_000 });
    assert_eq!(set.concurrency, Some(push::Concurrency { requests_max: 1, queue }));
    let response = push::FallbackResponse {
        status: 503,
        content_type: "text/plain; charset=utf-8".into(),
        body: Vec::new(),
    };
    let breaker = push::CircuitBreaker {
        failure_percent: 50,
        min_requests: 20,
        window_ms: 10_000,
        reset_ms: 30_000,
        probes: 3,
        fallback: Some(Fallback::FallbackResponse(response)),
    };
    assert_eq!(set.circuit_breaker, Some(breaker));
}

#[test]
fn what_a_set_says_stands_in_for_the_pools_as_a_whole() {
    let spec = "connectionPool: {maxIdlePerBackend: 5, minWarmPerBackend: 2}, \
                concurrency: {maxRequestsPerBackend: 3, queue: {}}, circuitBreaker: {failurePercent: 7}, \
                retryBudget: {percent: 11, minRetriesPerSecond: 13}";
    let own = "connectionPool: {maxPerBackend: 17}, concurrency: {maxRequestsPerBackend: 19}, \
               circuitBreaker: {minRequests: 23}, retryBudget: {percent: 29}";
    let [own, plain, _] = sets(&pool(spec, own));
    assert_eq!((own.idle_connections_max, plain.idle_connections_max), (100, 5));
    assert_eq!(own.connections, Some(push::ConnectionLimits { warm_min: 0, max: 17, streams_max: 100 }));
    assert_eq!(plain.connections, Some(push::ConnectionLimits { warm_min: 2, max: 0, streams_max: 100 }));
    assert_eq!(own.concurrency, Some(push::Concurrency { requests_max: 19, queue: None }));
    assert!(plain.concurrency.is_some_and(|plain| plain.requests_max == 3 && plain.queue.is_some()));
    let breaker =
        |set: &BackendSet| set.circuit_breaker.as_ref().map(|own| (own.failure_percent, own.min_requests));
    assert_eq!((breaker(&own), breaker(&plain)), (Some((50, 23)), Some((7, 20))));
    let budget = |set: &BackendSet| set.retry_budget.map(|own| (own.percent, own.min_retries_per_second));
    assert_eq!((budget(&own), budget(&plain)), (Some((29, 10)), Some((11, 13))));
}

/// What stands in for each set.
fn fallbacks(sets: &[BackendSet; 3]) -> [Option<String>; 3] {
    use push::circuit_breaker::Fallback;
    sets.each_ref().map(|set| match set.circuit_breaker.as_ref()?.fallback.as_ref()? {
        Fallback::FallbackSet(other) => Some(other.clone()),
        Fallback::FallbackResponse(_) => None,
    })
}

fn to(set: &str) -> String {
    format!("circuitBreaker: {{fallback: {{backendSet: {set}}}}}")
}

#[test]
fn the_set_that_stands_in_for_the_pool_s_others_has_nothing_that_stands_in_for_it() {
    let named = |name: &str| Some(name.to_owned());
    let all = sets(&pool(&to("last"), ""));
    assert_eq!(fallbacks(&all), [named("last"), named("last"), None]);
    assert!(all[2].circuit_breaker.is_some(), "its circuit opens all the same");
    let with_own = sets(&pool_of("", [&to("plain"), &to("last"), "circuitBreaker: {}"]));
    assert_eq!(fallbacks(&with_own), [named("plain"), named("last"), None], "one after the other");
}

#[test]
fn no_set_stands_in_for_itself_also_not_through_others() {
    let refused = |spec: &str, sets: [&str; 3]| compiled(&pool_of(spec, sets)).expect_err("a circle");
    let field = |index: usize| {
        format!("default/shop: spec.backendSets[{index}].circuitBreaker.fallback.backendSet: ")
    };
    let itself = refused("", [&to("own"), "", ""]);
    assert_eq!(itself, [field(0) + "\"own\" is the set itself: name another set, or use a response"]);
    let [own, plain, last] = ["own", "plain", "last"].map(to);
    let end = "end the chain with a response, or without a fallback";
    let two = refused("", [&plain, &own, ""]);
    assert_eq!(two, [format!("{}\"plain\" leads back to the set itself (own, plain, own): {end}", field(0))]);
    let three = refused("", [&plain, &last, &own]);
    let expected =
        format!("{}\"plain\" leads back to the set itself (own, plain, last, own): {end}", field(0));
    assert_eq!(three, [expected]);
    // The pool's own way to `last` is the other half of the circle.
    let through_pool = refused(&last, ["", "", &own]);
    let expected = format!("{}\"own\" leads back to the set itself (last, own, last): {end}", field(2));
    assert_eq!(through_pool, [expected]);
    // A set that leads into a circle is not said to be one.
    let tail = refused("", [&plain, &last, &plain]);
    assert_eq!(
        tail,
        [format!("{}\"last\" leads back to the set itself (plain, last, plain): {end}", field(1))]
    );
}

#[test]
fn another_protocol_or_circuit_is_another_configuration_and_the_same_source() {
    let [plain, ..] = sets(&pool("", ""));
    for changed in ["protocol: HTTP2", "circuitBreaker: {}", "concurrency: {maxRequestsPerBackend: 1}"] {
        let [set, ..] = sets(&pool("", changed));
        assert!(set != plain && set.source == plain.source, "{changed}");
    }
    let [same, ..] = sets(&pool("", "protocol: HTTP"));
    assert_eq!(same, plain);
}

//! What is wrong, and what both the API server and the compile step say of it.

/// What, the field that both name, and the rules that the API server and the compile step name.
pub(super) type Wrong = (&'static str, &'static str, &'static str, &'static str);

/// Of sets, against rules: an object must be right in its types to be judged by them.
pub(super) const SET_MIXES: &[Wrong] = &[
    (
        r#"{"connectionPool": {"idleTimeout": "0s"}}"#,
        "connectionPool.idleTimeout",
        "an idle timeout must be above 0s",
        "use more than 0s",
    ),
    (
        r#"{"connectionPool": {"minWarmPerBackend": 3, "maxPerBackend": 2}}"#,
        "connectionPool.minWarmPerBackend",
        "lower it, or raise maxPerBackend",
        "lower it, or raise maxPerBackend",
    ),
    (
        r#"{"concurrency": {"maxRequestsPerBackend": 1, "queue": {"timeout": "0s"}}}"#,
        "concurrency.queue.timeout",
        "must be above 0s and at most 5m",
        "use 1ms to 5m",
    ),
    (
        r#"{"concurrency": {"maxRequestsPerBackend": 1, "queue": {"timeout": "6m"}}}"#,
        "concurrency.queue.timeout",
        "must be above 0s and at most 5m",
        "use 1ms to 5m",
    ),
    (
        r#"{"circuitBreaker": {"window": "999ms"}}"#,
        "circuitBreaker.window",
        "window must be 1s to 10m",
        "use 1s to 10m",
    ),
    (
        r#"{"circuitBreaker": {"resetTimeout": "61m"}}"#,
        "circuitBreaker.resetTimeout",
        "resetTimeout must be 100ms to 1h",
        "use 100ms to 1h",
    ),
    (
        r#"{"circuitBreaker": {"fallback": {}}}"#,
        "circuitBreaker.fallback",
        "must have exactly one of backendSet and response",
        "must have exactly one of backendSet and response",
    ),
    (
        r#"{"circuitBreaker": {"fallback": {"backendSet": "web", "response": {}}}}"#,
        "circuitBreaker.fallback",
        "must have exactly one of backendSet and response",
        "must have exactly one of backendSet and response",
    ),
    (r#"{"retryBudget": {"window": "2m"}}"#, "retryBudget.window", "window must be 1s to 1m", "use 1s to 1m"),
];

/// Of rules, against rules.
pub(super) const RULE_MIXES: &[Wrong] = &[
    (
        r#"{"timeouts": {"idle": "0s"}}"#,
        "timeouts.idle",
        "an idle timeout must be above 0s",
        "use more than 0s",
    ),
    (r#"{"retry": {"backoff": "11s"}}"#, "retry.backoff", "backoff must be at most 10s", "use 0s to 10s"),
    (
        r#"{"retry": {"hedgeAfter": "0s"}}"#,
        "retry.hedgeAfter",
        "hedgeAfter must be 1ms to 1m",
        "use 1ms to 1m",
    ),
    (
        r#"{"sessionPersistence": {"type": "Header"}}"#,
        "sessionPersistence.sessionName",
        "must have sessionName: say which header or cookie",
        "is missing",
    ),
    (
        r#"{"sessionPersistence": {"type": "LearntCookie"}}"#,
        "sessionPersistence.sessionName",
        "must have sessionName: say which header or cookie",
        "is missing",
    ),
    (
        r#"{"sessionPersistence": {"type": "SourceIP", "sessionName": "a"}}"#,
        "sessionPersistence.sessionName",
        "is for type Cookie, Header and LearntCookie only: remove it",
        "is for type Cookie, Header or LearntCookie only: remove it",
    ),
    (
        r#"{"sessionPersistence": {"type": "Cookie", "sessionName": "NAME65"}}"#,
        "sessionPersistence.sessionName",
        "the name of a cookie must be at most 64 characters",
        "use 1 to 64",
    ),
    (
        r#"{"sessionPersistence": {"type": "SourceIP", "absoluteTimeout": "1h"}}"#,
        "sessionPersistence.absoluteTimeout",
        "is for type Cookie only: remove it, or use idleTimeout",
        "is for type Cookie only: remove it, or use idleTimeout",
    ),
    (
        r#"{"sessionPersistence": {"type": "Cookie", "idleTimeout": "1h"}}"#,
        "sessionPersistence.idleTimeout",
        "remove it, or use absoluteTimeout",
        "remove it, or use absoluteTimeout",
    ),
    (
        r#"{"sessionPersistence": {"type": "Cookie", "maxSessions": 1000}}"#,
        "sessionPersistence.maxSessions",
        "where proxies remember sessions: remove it",
        "where proxies remember sessions: remove it",
    ),
    (
        r#"{"sessionPersistence": {"type": "Header", "sessionName": "a", "cookieConfig": {}}}"#,
        "sessionPersistence.cookieConfig",
        "cookieConfig is for type Cookie only: remove it",
        "is for type Cookie only: remove it",
    ),
    (
        r#"{"sessionPersistence": {"absoluteTimeout": "721h"}}"#,
        "sessionPersistence.absoluteTimeout",
        "absoluteTimeout must be 1s to 720h (30 days)",
        "use 1s to 720h",
    ),
    (
        r#"{"sessionPersistence": {"type": "SourceIP", "idleTimeout": "999ms"}}"#,
        "sessionPersistence.idleTimeout",
        "idleTimeout must be 1s to 720h (30 days)",
        "use 1s to 720h",
    ),
    (
        r#"{"sessionPersistence": {"cookieConfig": {"sameSite": "None", "secure": "Never"}}}"#,
        "sessionPersistence.cookieConfig.secure",
        "browsers drop a cookie with sameSite None that is not secure",
        "makes browsers drop a cookie with sameSite None",
    ),
    (
        r#"{"sessionPersistence": {"sessionName": "__Secure-a", "cookieConfig": {"secure": "Never"}}}"#,
        "sessionPersistence.cookieConfig.secure",
        "use secure Auto or Always, or another name",
        "use Auto or Always, or another name",
    ),
    (
        r#"{"sessionPersistence": {"sessionName": "__Host-a", "cookieConfig": {"path": "/shop"}}}"#,
        "sessionPersistence.cookieConfig.path",
        "use path /, or another name",
        "use path /, or another name",
    ),
    (
        r#"{"rateLimits": [{"name": "a", "requests": 1, "period": "999ms"}]}"#,
        "rateLimits[0].period",
        "period must be 1s to 24h",
        "use 1s to 24h",
    ),
    (
        r#"{"rateLimits": [{"name": "a", "requests": 1, "period": "25h"}]}"#,
        "rateLimits[0].period",
        "period must be 1s to 24h",
        "use 1s to 24h",
    ),
    (
        r#"{"rateLimits": [{"name": "a", "requests": 1, "period": "1s", "algorithm": "SlidingWindow", "burst": 1}]}"#,
        "rateLimits[0].burst",
        "burst is for algorithm TokenBucket only",
        "is for algorithm TokenBucket only",
    ),
    (
        r#"{"rateLimits": [{"name": "a", "requests": 1, "period": "1s", "key": {"type": "Route"}, "maxKeys": 100}]}"#,
        "rateLimits[0].maxKeys",
        "maxKeys is not for key type Route",
        "is not for key type Route",
    ),
    (
        r#"{"rateLimits": [{"name": "a", "requests": 1, "period": "1s", "key": {"type": "Header"}}]}"#,
        "rateLimits[0].key.name",
        "key type Header and Cookie must have name",
        "is missing",
    ),
    (
        r#"{"rateLimits": [{"name": "a", "requests": 1, "period": "1s", "key": {"name": "x-user"}}]}"#,
        "rateLimits[0].key.name",
        "no other type may",
        "is for key type Header and Cookie only",
    ),
    (
        r#"{"rateLimits": [{"name": "a", "requests": 1, "period": "1s", "key": {"type": "Route", "ipv4PrefixLength": 24}}]}"#,
        "rateLimits[0].key",
        "are for key type SourceIP only",
        "is for key type SourceIP only",
    ),
];

/// Of sets, against types and ranges.
pub(super) const SET_RANGES: &[Wrong] = &[
    (
        r#"{"connectionPool": {"minWarmPerBackend": 1001}}"#,
        "connectionPool.minWarmPerBackend",
        "less than or equal to 1000",
        "use 0 to 1000",
    ),
    (
        r#"{"connectionPool": {"maxPerBackend": 0}}"#,
        "connectionPool.maxPerBackend",
        "greater than or equal to 1",
        "use 1 to 65535",
    ),
    (
        r#"{"connectionPool": {"maxStreamsPerConnection": 1001}}"#,
        "connectionPool.maxStreamsPerConnection",
        "less than or equal to 1000",
        "use 1 to 1000",
    ),
    (
        r#"{"concurrency": {"maxRequestsPerBackend": 0}}"#,
        "concurrency.maxRequestsPerBackend",
        "greater than or equal to 1",
        "use 1 to 1000000",
    ),
    (
        r#"{"concurrency": {"maxRequestsPerBackend": 1, "queue": {"maxRequests": 100001}}}"#,
        "concurrency.queue.maxRequests",
        "less than or equal to 100000",
        "use 1 to 100000",
    ),
    (
        r#"{"circuitBreaker": {"failurePercent": 0}}"#,
        "circuitBreaker.failurePercent",
        "greater than or equal to 1",
        "use 1 to 100",
    ),
    (
        r#"{"circuitBreaker": {"minRequests": 0}}"#,
        "circuitBreaker.minRequests",
        "greater than or equal to 1",
        "use 1 to 100000",
    ),
    (
        r#"{"circuitBreaker": {"halfOpenRequests": 101}}"#,
        "circuitBreaker.halfOpenRequests",
        "less than or equal to 100",
        "use 1 to 100",
    ),
    (
        r#"{"circuitBreaker": {"fallback": {"response": {"status": 199}}}}"#,
        "circuitBreaker.fallback.response.status",
        "greater than or equal to 200",
        "use 200 to 599",
    ),
    (
        r#"{"circuitBreaker": {"fallback": {"response": {"contentType": "a\nb"}}}}"#,
        "circuitBreaker.fallback.response.contentType",
        "should match",
        "is not a header's value",
    ),
    (
        r#"{"circuitBreaker": {"fallback": {"response": {"contentType": "a "}}}}"#,
        "circuitBreaker.fallback.response.contentType",
        "should match",
        "begins or ends with a blank",
    ),
    (
        r#"{"retryBudget": {"percent": 101}}"#,
        "retryBudget.percent",
        "less than or equal to 100",
        "use 0 to 100",
    ),
    (
        r#"{"retryBudget": {"minRetriesPerSecond": -1}}"#,
        "retryBudget.minRetriesPerSecond",
        "greater than or equal to 0",
        "use 0 to 10000",
    ),
];

/// Of rules, against types and ranges.
pub(super) const RULE_RANGES: &[Wrong] = &[
    (r#"{"retry": {"attempts": 11}}"#, "retry.attempts", "less than or equal to 10", "use 0 to 10"),
    (r#"{"retry": {"codes": [399]}}"#, "retry.codes[0]", "greater than or equal to 400", "use 400 to 599"),
    (
        r#"{"sessionPersistence": {"sessionName": "a b"}}"#,
        "sessionPersistence.sessionName",
        "should match",
        "is not a token of HTTP",
    ),
    (
        r#"{"sessionPersistence": {"type": "SourceIP", "maxSessions": 999}}"#,
        "sessionPersistence.maxSessions",
        "greater than or equal to 1000",
        "use 1000 to 4000000",
    ),
    (
        r#"{"sessionPersistence": {"cookieConfig": {"path": "a"}}}"#,
        "sessionPersistence.cookieConfig.path",
        "should match",
        "is not the path of a cookie",
    ),
    (
        r#"{"sessionPersistence": {"cookieConfig": {"path": "/;a"}}}"#,
        "sessionPersistence.cookieConfig.path",
        "should match",
        "is not the path of a cookie",
    ),
    (
        r#"{"rateLimits": [{"name": "a", "requests": 0, "period": "1s"}]}"#,
        "rateLimits[0].requests",
        "greater than or equal to 1",
        "use 1 to 1000000",
    ),
    (
        r#"{"rateLimits": [{"name": "a", "requests": 1, "period": "1s", "burst": 1000001}]}"#,
        "rateLimits[0].burst",
        "less than or equal to 1000000",
        "use 1 to 1000000",
    ),
    (
        r#"{"rateLimits": [{"name": "a", "requests": 1, "period": "1s", "maxKeys": 99}]}"#,
        "rateLimits[0].maxKeys",
        "greater than or equal to 100",
        "use 100 to 1000000",
    ),
    (
        r#"{"rateLimits": [{"name": "a", "requests": 1, "period": "1s", "key": {"ipv4PrefixLength": 33}}]}"#,
        "rateLimits[0].key.ipv4PrefixLength",
        "less than or equal to 32",
        "use 1 to 32",
    ),
    (
        r#"{"rateLimits": [{"name": "A", "requests": 1, "period": "1s"}]}"#,
        "rateLimits[0].name",
        "should match",
        "is not a name",
    ),
    (
        r#"{"rateLimits": [{"name": "a", "requests": 1, "period": "1s", "key": {"type": "Cookie", "name": "a b"}}]}"#,
        "rateLimits[0].key.name",
        "should match",
        "is not a token of HTTP",
    ),
    (
        r#"{"ipRules": {"allow": ["10.0.0.0/33"]}}"#,
        "ipRules.allow[0]",
        "must be of type cidr",
        "is not a network",
    ),
    (r#"{"ipRules": {"deny": ["10.0.0.1"]}}"#, "ipRules.deny[0]", "must be of type cidr", "is not a network"),
];

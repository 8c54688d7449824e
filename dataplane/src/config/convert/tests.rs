use super::*;
use lb_core::backend::{Algorithm, ConnectionLimits, UpstreamProtocol};
use lb_core::resilience::{BreakerSettings, BudgetSettings, QueueSettings, RetryPolicy};
use lb_core::route::{FallbackResponse, SplitMatch, SplitSource, Timeouts};
use lb_core::sessions::{SameSite, SealedCookie, SessionPolicy, SessionSource};
use push::circuit_breaker::Fallback;
use push::session_persistence::Source;
use std::num::NonZeroU32;

/// One rule, to the first of the sets `web`, `spare` and `last`.
fn config() -> push::PoolConfig {
    let set = |name: &str| {
        let mut set =
            push::BackendSet { name: name.into(), connect_timeout_ms: 1, ..push::BackendSet::default() };
        set.set_algorithm(push::Algorithm::RoundRobin);
        set
    };
    let weighted = push::WeightedSet { set: "web".into(), weight: 1, ..push::WeightedSet::default() };
    let rule = push::Rule { backend_sets: vec![weighted], ..push::Rule::default() };
    push::PoolConfig {
        pool: "ns/shop".into(),
        rules: vec![rule],
        backend_sets: ["web", "spare", "last"].map(set).into(),
        ..push::PoolConfig::default()
    }
}

fn breaker(fallback: Option<Fallback>) -> push::CircuitBreaker {
    push::CircuitBreaker {
        failure_percent: 50,
        min_requests: 20,
        window_ms: 10_000,
        reset_ms: 30_000,
        probes: 3,
        fallback,
    }
}

fn response() -> push::FallbackResponse {
    push::FallbackResponse { status: 503, content_type: "text/plain".into(), body: b"later".to_vec() }
}

fn to(set: &str) -> Option<push::CircuitBreaker> {
    Some(breaker(Some(Fallback::FallbackSet(set.into()))))
}

fn sealed() -> push::SealedCookie {
    push::SealedCookie {
        name: "LB_SESSION".into(),
        path: "/".into(),
        same_site: push::SameSite::Lax.into(),
        security: push::CookieSecurity::Auto.into(),
        http_only: true,
        lifetime_ms: 3_600_000,
        permanent: true,
    }
}

fn sessions(source: Source) -> push::SessionPersistence {
    push::SessionPersistence { source: Some(source), idle_timeout_ms: 3_600_000, sessions_max: 100_000 }
}

fn read(config: &push::PoolConfig) -> Result<PoolSpec, Rejection> {
    pool(config, &Certificates::default()).map(|(spec, _)| spec)
}

#[test]
fn what_an_old_controller_does_not_say_is_the_default() {
    let spec = read(&config()).expect("a pool");
    let expected =
        SetPolicy { connect_timeout: Duration::from_millis(1), ..SetPolicy::new(Algorithm::RoundRobin) };
    let connections = ConnectionLimits { idle_max: 0, idle_timeout: Duration::ZERO, ..expected.connections };
    assert_eq!(spec.sets["web"].policy, SetPolicy { connections, ..expected });
    let rule = &spec.rules[0];
    assert_eq!((&rule.timeouts, &rule.retry), (&Timeouts::default(), &RetryPolicy::default()));
    assert_eq!(rule.sessions, None);
    assert!(rule.sets[0].matches.is_empty() && spec.fallbacks.is_empty());
}

#[test]
fn a_set_is_what_its_fields_say() {
    let mut config = config();
    let set = &mut config.backend_sets[0];
    set.set_protocol(push::UpstreamProtocol::Http2);
    set.connections = Some(push::ConnectionLimits { warm_min: 2, max: 9, streams_max: 7 });
    set.concurrency = Some(push::Concurrency {
        requests_max: 40,
        queue: Some(push::Queue { requests_max: 5, timeout_ms: 700 }),
    });
    set.circuit_breaker = to("spare");
    set.retry_budget = Some(push::RetryBudget { percent: 0, min_retries_per_second: 1, window_ms: 2_000 });
    config.backend_sets[1].circuit_breaker = Some(breaker(Some(Fallback::FallbackResponse(response()))));
    config.backend_sets[2].concurrency = Some(push::Concurrency { requests_max: 1, queue: None });
    let spec = read(&config).expect("a pool");
    let (policy, number) = (&spec.sets["web"].policy, |number| NonZeroU32::new(number).expect("above 0"));
    assert_eq!(policy.protocol, UpstreamProtocol::Http2);
    let ConnectionLimits { warm_min, max, streams_max, .. } = policy.connections;
    assert_eq!((warm_min, max, streams_max), (2, Some(number(9)), number(7)));
    assert_eq!(policy.requests_max, Some(number(40)));
    assert_eq!(policy.queue, QueueSettings { requests_max: 5, timeout: Duration::from_millis(700) });
    let settings = BreakerSettings {
        failure_percent: 50,
        requests_min: number(20),
        window: Duration::from_secs(10),
        reset_after: Duration::from_secs(30),
        probes: number(3),
    };
    assert_eq!(policy.breaker, Some(settings));
    let window = Duration::from_secs(2);
    assert_eq!(policy.retry_budget, BudgetSettings { percent: 0, retries_per_second_min: 1, window });
    let body = b"later".as_slice().into();
    let answer = FallbackResponse { status: 503, content_type: "text/plain".into(), body };
    assert_eq!(spec.fallbacks["web"], FallbackSpec::Set("spare".into()));
    assert_eq!(spec.fallbacks["spare"], FallbackSpec::Response(Arc::new(answer)));
    let last = &spec.sets["last"].policy;
    assert_eq!((last.requests_max, last.queue.requests_max), (Some(number(1)), 0), "refused at once");
}

#[test]
fn a_rule_is_what_its_fields_say() {
    let mut config = config();
    let rule = &mut config.rules[0];
    (rule.request_timeout_ms, rule.attempt_timeout_ms) = (30_000, 5_000);
    (rule.idle_timeout_ms, rule.total_timeout_ms) = (60_000, 90_000);
    rule.retry =
        Some(push::Retry { retries_max: 10, statuses: vec![503], backoff_ms: 0, hedge_after_ms: 50 });
    let matched = |source, value: Option<&str>| push::SplitMatch {
        source: Some(source),
        value: value.map(ToOwned::to_owned),
    };
    rule.backend_sets[0].matches = vec![
        matched(push::split_match::Source::Header("X-Canary".into()), Some("always")),
        matched(push::split_match::Source::Cookie("Canary".into()), None),
    ];
    let spec = read(&config).expect("a pool");
    let rule = &spec.rules[0];
    let seconds = Duration::from_secs;
    let timeouts = Timeouts {
        request: Some(seconds(30)),
        attempt: Some(seconds(5)),
        idle: seconds(60),
        total: Some(seconds(90)),
        ..Timeouts::NONE
    };
    assert_eq!(rule.timeouts, timeouts);
    let hedge_after = Some(Duration::from_millis(50));
    let retry = RetryPolicy { retries_max: 10, statuses: [503].into(), backoff: Duration::ZERO, hedge_after };
    assert_eq!(rule.retry, retry);
    let header = SplitMatch { source: SplitSource::Header("x-canary".into()), value: Some("always".into()) };
    let cookie = SplitMatch { source: SplitSource::Cookie("Canary".into()), value: None };
    assert_eq!(rule.sets[0].matches, [header, cookie]);
}

#[test]
fn each_kind_of_session_is_what_its_name_says() {
    let kept = |source| {
        let mut config = config();
        config.rules[0].sessions = Some(sessions(source));
        read(&config).expect("a pool").rules.remove(0).sessions.expect("asked for")
    };
    for (wire, source) in [
        (Source::SourceIp(push::SourceIp {}), SessionSource::SourceIp),
        (Source::Header("X-User".into()), SessionSource::Header("x-user".into())),
        (Source::LearntCookie("SID".into()), SessionSource::Learnt("SID".into())),
    ] {
        let expected = SessionPolicy {
            source,
            pool: "ns/shop".into(),
            idle_timeout: Duration::from_secs(3_600),
            sessions_max: 100_000,
        };
        assert_eq!(kept(wire), expected);
    }
    for (same_site, expected_site) in [
        (push::SameSite::Strict, SameSite::Strict),
        (push::SameSite::Lax, SameSite::Lax),
        (push::SameSite::None, SameSite::None),
    ] {
        for (security, secure) in
            [(push::CookieSecurity::Auto, None), (push::CookieSecurity::Always, Some(true))]
        {
            let (same_site, security) = (same_site.into(), security.into());
            let policy = kept(Source::Sealed(push::SealedCookie { same_site, security, ..sealed() }));
            let cookie = SealedCookie {
                name: "LB_SESSION".into(),
                path: "/".into(),
                same_site: expected_site,
                secure,
                http_only: true,
                lifetime: Duration::from_secs(3_600),
                is_permanent: true,
            };
            assert_eq!(policy.source, SessionSource::Sealed(cookie));
        }
    }
}

type Spoil = fn(&mut push::PoolConfig);

/// What is wrong with the set `web`, below its field.
const WRONG_SETS: &[(&str, Spoil)] = &[
    ("protocol", |c| c.backend_sets[0].protocol = 99),
    ("connectionPool.minWarmPerBackend", |c| limits(c, 1_001, 0, 1)),
    ("connectionPool.minWarmPerBackend", |c| limits(c, 3, 2, 1)),
    ("connectionPool.maxPerBackend", |c| limits(c, 0, 65_536, 1)),
    ("connectionPool.maxStreamsPerConnection", |c| limits(c, 0, 0, 0)),
    ("connectionPool.maxStreamsPerConnection", |c| limits(c, 0, 0, 1_001)),
    ("concurrency.maxRequestsPerBackend", |c| slots(c, 0, 1, 1)),
    ("concurrency.maxRequestsPerBackend", |c| slots(c, 1_000_001, 1, 1)),
    ("concurrency.queue.maxRequests", |c| slots(c, 1, 0, 1)),
    ("concurrency.queue.maxRequests", |c| slots(c, 1, 100_001, 1)),
    ("concurrency.queue.timeout", |c| slots(c, 1, 1, 0)),
    ("concurrency.queue.timeout", |c| slots(c, 1, 1, 300_001)),
    ("circuitBreaker.failurePercent", |c| broken(c, |b| b.failure_percent = 0)),
    ("circuitBreaker.failurePercent", |c| broken(c, |b| b.failure_percent = 101)),
    ("circuitBreaker.minRequests", |c| broken(c, |b| b.min_requests = 0)),
    ("circuitBreaker.minRequests", |c| broken(c, |b| b.min_requests = 100_001)),
    ("circuitBreaker.window", |c| broken(c, |b| b.window_ms = 999)),
    ("circuitBreaker.window", |c| broken(c, |b| b.window_ms = 600_001)),
    ("circuitBreaker.resetTimeout", |c| broken(c, |b| b.reset_ms = 99)),
    ("circuitBreaker.resetTimeout", |c| broken(c, |b| b.reset_ms = 3_600_001)),
    ("circuitBreaker.halfOpenRequests", |c| broken(c, |b| b.probes = 0)),
    ("circuitBreaker.halfOpenRequests", |c| broken(c, |b| b.probes = 101)),
    ("circuitBreaker.fallback.backendSet", |c| c.backend_sets[0].circuit_breaker = to("none")),
    ("circuitBreaker.fallback.backendSet", |c| c.backend_sets[0].circuit_breaker = to("web")),
    ("circuitBreaker.fallback.response.status", |c| answered(c, |r| r.status = 199)),
    ("circuitBreaker.fallback.response.status", |c| answered(c, |r| r.status = 600)),
    ("circuitBreaker.fallback.response.contentType", |c| answered(c, |r| r.content_type.clear())),
    ("circuitBreaker.fallback.response.contentType", |c| answered(c, |r| r.content_type = "a\r\nb".into())),
    ("circuitBreaker.fallback.response.contentType", |c| answered(c, |r| r.content_type = "a".repeat(257))),
    ("circuitBreaker.fallback.response.body", |c| answered(c, |r| r.body = vec![0; 4_097])),
    ("retryBudget.percent", |c| budget(c, 101, 0, 1_000)),
    ("retryBudget.minRetriesPerSecond", |c| budget(c, 0, 10_001, 1_000)),
    ("retryBudget.window", |c| budget(c, 0, 0, 999)),
    ("retryBudget.window", |c| budget(c, 0, 0, 60_001)),
];

/// What is wrong with the rule, below its field.
const WRONG_RULES: &[(&str, Spoil)] = &[
    ("retry.attempts", |c| retried(c, |r| r.retries_max = 11)),
    ("retry.codes", |c| retried(c, |r| r.statuses = vec![399])),
    ("retry.codes", |c| retried(c, |r| r.statuses = vec![600])),
    ("retry.codes", |c| retried(c, |r| r.statuses = vec![503; 17])),
    ("retry.backoff", |c| retried(c, |r| r.backoff_ms = 10_001)),
    ("retry.hedgeAfter", |c| retried(c, |r| r.hedge_after_ms = 60_001)),
    ("backendSets[0].matches", |c| split(c, vec![header("a"); 9])),
    ("backendSets[0].matches[1].name", |c| split(c, vec![header("a"), header("")])),
    ("backendSets[0].matches[0].name", |c| split(c, vec![header("a b")])),
    ("backendSets[0].matches[0].name", |c| split(c, vec![header(&"a".repeat(257))])),
    ("backendSets[0].matches[0].type", |c| split(c, vec![push::SplitMatch::default()])),
    ("backendSets[0].matches[0].value", |c| {
        split(c, vec![push::SplitMatch { value: Some("é".into()), ..header("a") }]);
    }),
    ("sessionPersistence.type", |c| c.rules[0].sessions = Some(push::SessionPersistence::default())),
    ("sessionPersistence.sessionName", |c| kept(c, Source::Header(String::new()))),
    ("sessionPersistence.sessionName", |c| kept(c, Source::Header("h".repeat(257)))),
    ("sessionPersistence.sessionName", |c| kept(c, Source::LearntCookie("a=b".into()))),
    ("sessionPersistence.sessionName", |c| kept(c, Source::LearntCookie("c".repeat(65)))),
    ("sessionPersistence.idleTimeout", |c| remembered(c, 999, 1_000)),
    ("sessionPersistence.idleTimeout", |c| remembered(c, 30 * 86_400_000 + 1, 1_000)),
    ("sessionPersistence.maxSessions", |c| remembered(c, 1_000, 999)),
    ("sessionPersistence.maxSessions", |c| remembered(c, 1_000, 4_000_001)),
    ("sessionPersistence.sessionName", |c| cookie(c, |k| k.name = "a;b".into())),
    ("sessionPersistence.sessionName", |c| cookie(c, |k| k.name = "c".repeat(65))),
    ("sessionPersistence.absoluteTimeout", |c| cookie(c, |k| k.lifetime_ms = 999)),
    ("sessionPersistence.absoluteTimeout", |c| cookie(c, |k| k.lifetime_ms = 30 * 86_400_000 + 1)),
    ("sessionPersistence.cookieConfig.path", |c| cookie(c, |k| k.path = "a".into())),
    ("sessionPersistence.cookieConfig.path", |c| cookie(c, |k| k.path = "/; Domain=b".into())),
    ("sessionPersistence.cookieConfig.path", |c| cookie(c, |k| k.path = "/\n".into())),
    ("sessionPersistence.cookieConfig.path", |c| cookie(c, |k| k.path = "/".repeat(257))),
    ("sessionPersistence.cookieConfig.sameSite", |c| cookie(c, |k| k.same_site = 99)),
    ("sessionPersistence.cookieConfig.secure", |c| cookie(c, |k| k.security = 99)),
    ("sessionPersistence.cookieConfig.secure", |c| {
        cookie(c, |k| {
            (k.same_site, k.security) = (push::SameSite::None.into(), push::CookieSecurity::Never.into());
        });
    }),
];

fn limits(config: &mut push::PoolConfig, warm_min: u32, max: u32, streams_max: u32) {
    config.backend_sets[0].connections = Some(push::ConnectionLimits { warm_min, max, streams_max });
}

fn slots(config: &mut push::PoolConfig, requests_max: u32, waiting: u32, timeout_ms: u64) {
    let queue = Some(push::Queue { requests_max: waiting, timeout_ms });
    config.backend_sets[0].concurrency = Some(push::Concurrency { requests_max, queue });
}

fn broken(config: &mut push::PoolConfig, spoil: impl FnOnce(&mut push::CircuitBreaker)) {
    spoil(config.backend_sets[0].circuit_breaker.insert(breaker(None)));
}

fn answered(config: &mut push::PoolConfig, spoil: impl FnOnce(&mut push::FallbackResponse)) {
    let mut response = response();
    spoil(&mut response);
    config.backend_sets[0].circuit_breaker = Some(breaker(Some(Fallback::FallbackResponse(response))));
}

fn budget(config: &mut push::PoolConfig, percent: u32, min_retries_per_second: u32, window_ms: u64) {
    config.backend_sets[0].retry_budget =
        Some(push::RetryBudget { percent, min_retries_per_second, window_ms });
}

fn retried(config: &mut push::PoolConfig, spoil: impl FnOnce(&mut push::Retry)) {
    spoil(config.rules[0].retry.insert(push::Retry::default()));
}

fn header(name: &str) -> push::SplitMatch {
    push::SplitMatch { source: Some(push::split_match::Source::Header(name.into())), value: None }
}

fn split(config: &mut push::PoolConfig, matches: Vec<push::SplitMatch>) {
    config.rules[0].backend_sets[0].matches = matches;
}

fn kept(config: &mut push::PoolConfig, source: Source) {
    config.rules[0].sessions = Some(sessions(source));
}

fn remembered(config: &mut push::PoolConfig, idle_timeout_ms: u64, sessions_max: u32) {
    let source = Some(Source::SourceIp(push::SourceIp {}));
    config.rules[0].sessions = Some(push::SessionPersistence { source, idle_timeout_ms, sessions_max });
}

fn cookie(config: &mut push::PoolConfig, spoil: impl FnOnce(&mut push::SealedCookie)) {
    let mut cookie = sealed();
    spoil(&mut cookie);
    kept(config, Source::Sealed(cookie));
}

#[test]
fn whatever_is_past_a_limit_is_refused_by_its_field() {
    let sets = WRONG_SETS.iter().map(|(field, spoil)| (format!("spec.backendSets[web].{field}"), spoil));
    let rules = WRONG_RULES.iter().map(|(field, spoil)| (format!("spec.rules[0].{field}"), spoil));
    for (field, spoil) in sets.chain(rules) {
        let mut config = config();
        spoil(&mut config);
        let refused = read(&config).expect_err(&field);
        assert_eq!(refused.field, field, "{refused}");
    }
}

#[test]
fn whatever_is_at_a_limit_is_taken() {
    let good: &[Spoil] = &[
        |c| limits(c, 1_000, 65_535, 1_000),
        |c| limits(c, 1, 1, 1),
        |c| limits(c, 1_000, 0, 1),
        |c| slots(c, 1, 1, 1),
        |c| slots(c, 1_000_000, 100_000, 300_000),
        |c| {
            broken(c, |b| {
                (b.failure_percent, b.min_requests, b.window_ms, b.reset_ms, b.probes) =
                    (1, 1, 1_000, 100, 1);
            });
        },
        |c| broken(c, |b| (b.failure_percent, b.min_requests, b.window_ms) = (100, 100_000, 600_000)),
        |c| broken(c, |b| (b.reset_ms, b.probes) = (3_600_000, 100)),
        |c| answered(c, |r| (r.status, r.content_type, r.body) = (200, "a".repeat(256), vec![0; 4_096])),
        |c| answered(c, |r| (r.status, r.body) = (599, Vec::new())),
        |c| budget(c, 0, 0, 1_000),
        |c| budget(c, 100, 10_000, 60_000),
        |c| {
            retried(c, |r| {
                (r.retries_max, r.statuses, r.backoff_ms, r.hedge_after_ms) =
                    (10, vec![400; 16], 10_000, 60_000);
            });
        },
        |c| retried(c, |r| (r.statuses, r.hedge_after_ms) = (vec![599], 1)),
        |c| split(c, vec![header(&"a".repeat(256)); 8]),
        |c| kept(c, Source::Header("h".repeat(256))),
        |c| kept(c, Source::LearntCookie("c".repeat(64))),
        |c| remembered(c, 1_000, 1_000),
        |c| remembered(c, 30 * 86_400_000, 4_000_000),
        |c| cookie(c, |k| (k.name, k.path, k.lifetime_ms) = ("c".repeat(64), "/".repeat(256), 1_000)),
        |c| cookie(c, |k| k.lifetime_ms = 30 * 86_400_000),
        |c| cookie(c, |k| k.security = push::CookieSecurity::Never.into()),
    ];
    for (nth, change) in good.iter().enumerate() {
        let mut config = config();
        change(&mut config);
        assert_eq!(read(&config).err(), None, "{nth}");
    }
}

#[test]
fn no_set_falls_back_to_itself_through_others() {
    let mut config = config();
    config.backend_sets[0].circuit_breaker = to("spare");
    config.backend_sets[1].circuit_breaker = to("last");
    assert_eq!(read(&config).err(), None, "a chain that ends");
    config.backend_sets[2].circuit_breaker = to("spare");
    let refused = read(&config).expect_err("a circle");
    assert!(refused.field.ends_with("circuitBreaker.fallback.backendSet"), "{refused}");
    assert!(refused.reason.contains("falls back to itself"), "{refused}");
}

#[test]
fn what_only_a_newer_controller_knows_asks_for_newer_proxies() {
    let newer: &[Spoil] = &[
        |c| c.backend_sets[0].protocol = 99,
        |c| split(c, vec![push::SplitMatch::default()]),
        |c| c.rules[0].sessions = Some(push::SessionPersistence::default()),
        |c| cookie(c, |k| k.same_site = 99),
        |c| cookie(c, |k| k.security = 99),
    ];
    for (nth, change) in newer.iter().enumerate() {
        let mut config = config();
        change(&mut config);
        let refused = read(&config).expect_err("unknown");
        assert!(refused.reason.contains("upgrade the proxies"), "{nth}: {refused}");
    }
}

/// So many listeners of `*.a.org` and so many rules of so many hosts there, each with so many paths; and `more` routes of
/// `b.org`.
fn multiplied(listeners: u32, [rules, hosts, paths]: [usize; 3], more: usize) -> push::PoolConfig {
    let mut config = config();
    let listener = |port, hostname: &str| push::Listener {
        name: format!("l{port}"),
        port,
        protocol: push::Protocol::Http.into(),
        hostnames: vec![hostname.to_owned()],
        ..push::Listener::default()
    };
    let rule = |hostnames, paths| {
        let path = push::PathMatch {
            kind: push::PathMatchKind::Exact.into(),
            value: "/".into(),
            ..push::PathMatch::default()
        };
        push::Rule { hostnames, paths: vec![path; paths], ..config.rules[0].clone() }
    };
    let hosts = (0..hosts).map(|nth| format!("{nth}.a.org")).collect();
    let mut multiplied = vec![rule(hosts, paths); rules];
    multiplied.extend((0..more).map(|_| rule(vec!["b.org".to_owned()], 0)));
    config.rules = multiplied;
    config.listeners = (1..=listeners).map(|port| listener(port, "*.a.org")).collect();
    config.listeners.push(listener(listeners + 1, "b.org"));
    config
}

#[test]
fn routes_of_a_pool_have_a_limit_and_one_past_it_is_refused_before_any_is_made() {
    for (made, more, refused) in [
        ((50, [250, 8, 1]), 0, None),
        ((50, [250, 8, 1]), 1, Some("100001 routes are too many")),
        ((1, [250, 16, 25]), 0, None),
        ((1, [250, 16, 25]), 1, Some("100001 routes are too many")),
        ((63, [256, 16, 16]), 0, Some("4128768 routes are too many")),
    ] {
        let read = read(&multiplied(made.0, made.1, more));
        match (read.err(), refused) {
            (None, None) => {}
            (Some(error), Some(reason)) => {
                assert!(error.field == "spec.rules" && error.reason.starts_with(reason), "{error}");
                assert!(error.reason.ends_with("use at most 100000"), "{error}");
            }
            (read, _) => panic!("{made:?} and {more}: {read:?}, not {refused:?}"),
        }
    }
}

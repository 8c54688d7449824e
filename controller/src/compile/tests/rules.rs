//! What a rule says of time, of retries, of sessions and of how its requests are divided.

use super::*;
use weir_proto::push::{self, Rule, session_persistence::Source};

/// A pool of the rules `own` and `plain`, with these fields of the specification and of the first rule.
fn pool(spec: &str, rule: &str) -> String {
    pool_with(spec, rule, "")
}

fn pool_with(spec: &str, rule: &str, weighted: &str) -> String {
    let comma = |fields: &str| if fields.is_empty() { String::new() } else { format!(", {fields}") };
    format!(
        "apiVersion: weir.dev/v1alpha1\nkind: LoadBalancerPool\nmetadata: {{name: shop}}\nspec: {{listeners: [{{name: l, \
         port: 80, protocol: HTTP}}], backendSets: [{{name: web, static: {{backends: []}}}}], \
         rules: [{{backendSets: [{{name: web{}}}]{}}}, {{backendSets: [{{name: web}}]}}]{}}}",
        comma(weighted),
        comma(rule),
        comma(spec)
    )
}

fn compiled(pool: &str) -> Result<Vec<Rule>, Vec<String>> {
    let world = world(&objects(pool), None);
    match world.pools.get(&key("shop")) {
        Some(pool) => Ok(pool.config.rules.clone()),
        None => Err(shown(world.rejections.values().flatten())),
    }
}

fn rules(spec: &str, rule: &str) -> [Rule; 2] {
    let rules = compiled(&pool(spec, rule)).unwrap_or_else(|refused| panic!("{spec} {rule}: {refused:?}"));
    rules.try_into().expect("two rules")
}

fn times(rule: &Rule) -> [u64; 4] {
    [rule.request_timeout_ms, rule.attempt_timeout_ms, rule.idle_timeout_ms, rule.total_timeout_ms]
}

#[test]
fn each_timeout_of_a_rule_overrides_the_pools_alone() {
    let [own, plain] = rules("", "");
    assert_eq!((times(&own), times(&plain)), ([30_000, 0, 300_000, 0], [30_000, 0, 300_000, 0]));
    let spec = "timeouts: {request: 1s, backendRequest: 2s, idle: 3s, total: 4s}";
    for (rule, expected) in [
        ("", [1_000, 2_000, 3_000, 4_000]),
        ("timeouts: {}", [1_000, 2_000, 3_000, 4_000]),
        ("timeouts: {request: 0s}", [0, 2_000, 3_000, 4_000]),
        ("timeouts: {backendRequest: 0s}", [1_000, 0, 3_000, 4_000]),
        ("timeouts: {idle: 9s}", [1_000, 2_000, 9_000, 4_000]),
        ("timeouts: {total: 0s}", [1_000, 2_000, 3_000, 0]),
    ] {
        let [own, plain] = rules(spec, rule);
        assert_eq!(times(&own), expected, "{rule}");
        assert_eq!(times(&plain), [1_000, 2_000, 3_000, 4_000]);
    }
}

#[test]
fn retries_are_on_unless_somebody_says_otherwise() {
    let default =
        push::Retry { retries_max: 3, statuses: vec![502, 503, 504], backoff_ms: 25, hedge_after_ms: 0 };
    for (spec, rule) in [
        ("", ""),
        ("retry: {}", ""),
        ("", "retry: {}"),
        ("retry: {attempts: 0, hedgeAfter: 1s}", "retry: {}"),
    ] {
        assert_eq!(rules(spec, rule)[0].retry, Some(default.clone()), "{spec} {rule}");
    }
    let [own, plain] =
        rules("retry: {codes: [599, 400], backoff: 10s, hedgeAfter: 1m}", "retry: {attempts: 0, codes: []}");
    let never = push::Retry { retries_max: 0, statuses: Vec::new(), ..default };
    assert_eq!(own.retry, Some(never));
    let said =
        push::Retry { retries_max: 3, statuses: vec![400, 599], backoff_ms: 10_000, hedge_after_ms: 60_000 };
    assert_eq!(plain.retry, Some(said));
}

#[test]
fn each_type_of_session_compiles_to_its_own() {
    let kept = |own: &str| {
        let [own, plain] = rules(&format!("sessionPersistence: {{{own}}}"), "");
        assert_eq!(own.sessions, plain.sessions);
        own.sessions
    };
    let cookie = push::SealedCookie {
        name: "LB_SESSION".into(),
        path: "/".into(),
        same_site: push::SameSite::Lax.into(),
        security: push::CookieSecurity::Auto.into(),
        http_only: true,
        lifetime_ms: 3_600_000,
        permanent: true,
    };
    let sealed = |cookie: push::SealedCookie| {
        let source = Some(Source::Sealed(cookie));
        Some(push::SessionPersistence { source, idle_timeout_ms: 0, sessions_max: 0 })
    };
    assert_eq!(kept(""), sealed(cookie.clone()), "a cookie");
    assert_eq!(kept("type: Cookie, cookieConfig: {}"), sealed(cookie));
    let said = "type: Cookie, sessionName: __Host-id, absoluteTimeout: 720h, cookieConfig: {lifetimeType: Session, \
                sameSite: None, secure: Always, httpOnly: false}";
    let other = push::SealedCookie {
        name: "__Host-id".into(),
        path: "/".into(),
        same_site: push::SameSite::None.into(),
        security: push::CookieSecurity::Always.into(),
        http_only: false,
        lifetime_ms: 720 * 3_600_000,
        permanent: false,
    };
    assert_eq!(kept(said), sealed(other));
    let remembered = |source, idle_timeout_ms, sessions_max| {
        Some(push::SessionPersistence { source: Some(source), idle_timeout_ms, sessions_max })
    };
    let by_address = Source::SourceIp(push::SourceIp {});
    assert_eq!(kept("type: SourceIP"), remembered(by_address.clone(), 3_600_000, 100_000));
    assert_eq!(
        kept("type: SourceIP, idleTimeout: 1s, maxSessions: 1000"),
        remembered(by_address, 1_000, 1_000)
    );
    assert_eq!(
        kept("type: Header, sessionName: X-User"),
        remembered(Source::Header("x-user".into()), 3_600_000, 100_000)
    );
    assert_eq!(
        kept("type: LearntCookie, sessionName: SID, maxSessions: 4000000"),
        remembered(Source::LearntCookie("SID".into()), 3_600_000, 4_000_000)
    );
    assert_eq!(kept("type: None"), None);
    let [own, plain] = rules("sessionPersistence: {}", "sessionPersistence: {type: None}");
    assert!(own.sessions.is_none() && plain.sessions.is_some());
    assert_eq!(rules("", "")[0].sessions, None);
}

#[test]
fn a_set_of_a_rule_takes_what_its_matches_say() {
    let matches =
        "weight: 0, matches: [{type: Header, name: X-Canary, value: always}, {type: Cookie, name: Canary}]";
    let both = pool_with("", "", matches)
        .replace("backendSets: [{name: web, weight: 0", "backendSets: [{name: other}, {name: web, weight: 0");
    let both = both.replace(
        "{name: web, static: {backends: []}}",
        "{name: web, static: {backends: []}}, {name: other, static: {backends: []}}",
    );
    let rules = compiled(&both).expect("it is right");
    let expected = [
        push::SplitMatch {
            source: Some(push::split_match::Source::Header("x-canary".into())),
            value: Some("always".into()),
        },
        push::SplitMatch { source: Some(push::split_match::Source::Cookie("Canary".into())), value: None },
    ];
    assert_eq!(rules[0].backend_sets[1].matches, expected);
    assert!(rules[0].backend_sets[0].matches.is_empty());
}

/// What is wrong, below `spec` and below a rule alike, and the sentence from the field on.
const WRONG: &[(&str, &str)] = &[
    ("timeouts: {idle: 0s}", "timeouts.idle: 0s is no time at all: use more than 0s"),
    ("retry: {attempts: -1}", "retry.attempts: -1 is out of range: use 0 to 10"),
    ("retry: {attempts: 11}", "retry.attempts: 11 is out of range: use 0 to 10"),
    ("retry: {codes: [500, 399]}", "retry.codes[1]: 399 is out of range: use 400 to 599"),
    ("retry: {codes: [600]}", "retry.codes[0]: 600 is out of range: use 400 to 599"),
    ("retry: {codes: [500, 500]}", "retry.codes[1]: 500 is there twice: remove one or give it another value"),
    (
        "retry: {codes: [400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416]}",
        "retry.codes: 17 entries are too many: use at most 16",
    ),
    ("retry: {backoff: 10s1ms}", "retry.backoff: 10s1ms is out of range: use 0s to 10s"),
    ("retry: {hedgeAfter: 0s}", "retry.hedgeAfter: 0s is out of range: use 1ms to 1m"),
    ("retry: {hedgeAfter: 1m1ms}", "retry.hedgeAfter: 1m1ms is out of range: use 1ms to 1m"),
];

/// Fields of `sessionPersistence`, and the sentence from the field on.
const WRONG_SESSIONS: &[(&str, &str)] = &[
    ("type: Header", "sessionName: is missing: type Header or LearntCookie needs the name of which one"),
    ("type: LearntCookie", "sessionName: is missing"),
    (
        "type: SourceIP, sessionName: a",
        "sessionName: \"a\" is for type Cookie, Header or LearntCookie only: remove it",
    ),
    ("type: None, sessionName: a", "sessionName: \"a\" is for type Cookie, Header or LearntCookie only"),
    ("sessionName: ''", "sessionName: \"\" is not a token of HTTP: use 1 to 64"),
    ("sessionName: a b", "sessionName: \"a b\" is not a token of HTTP: use 1 to 64"),
    ("type: LearntCookie, sessionName: 'a;'", "sessionName: \"a;\" is not a token of HTTP: use 1 to 64"),
    ("type: Header, sessionName: 'a:'", "sessionName: \"a:\" is not a token of HTTP: use 1 to 256"),
    ("absoluteTimeout: 999ms", "absoluteTimeout: 999ms is out of range: use 1s to 720h"),
    ("absoluteTimeout: 720h1ms", "absoluteTimeout: 720h1ms is out of range: use 1s to 720h"),
    (
        "type: SourceIP, absoluteTimeout: 1h",
        "absoluteTimeout: 1h is for type Cookie only: remove it, or use idleTimeout",
    ),
    ("type: None, absoluteTimeout: 1h", "absoluteTimeout: 1h is for type Cookie only"),
    ("type: SourceIP, cookieConfig: {}", "cookieConfig: is for type Cookie only: remove it"),
    ("type: SourceIP, idleTimeout: 999ms", "idleTimeout: 999ms is out of range: use 1s to 720h"),
    ("type: SourceIP, idleTimeout: 720h1ms", "idleTimeout: 720h1ms is out of range: use 1s to 720h"),
    (
        "type: Cookie, idleTimeout: 1h",
        "idleTimeout: 1h is for type SourceIP, Header or LearntCookie only: remove it, or use absoluteTimeout",
    ),
    ("type: None, idleTimeout: 1h", "idleTimeout: 1h is for type SourceIP, Header or LearntCookie only"),
    ("type: SourceIP, maxSessions: 999", "maxSessions: 999 is out of range: use 1000 to 4000000"),
    ("type: SourceIP, maxSessions: 4000001", "maxSessions: 4000001 is out of range: use 1000 to 4000000"),
    (
        "type: Cookie, maxSessions: 1000",
        "maxSessions: 1000 is for type SourceIP, Header or LearntCookie only, where proxies remember sessions: remove it",
    ),
    (
        "cookieConfig: {path: a}",
        "cookieConfig.path: \"a\" is not the path of a cookie: start it with a slash, and use up to 256",
    ),
    ("cookieConfig: {path: '/;a'}", "cookieConfig.path: \"/;a\" is not the path of a cookie"),
    ("cookieConfig: {path: \"/\\n\"}", "cookieConfig.path: \"/\\n\" is not the path of a cookie"),
    (
        "cookieConfig: {sameSite: None, secure: Never}",
        "cookieConfig.secure: Never makes browsers drop a cookie with sameSite None: use Auto or Always, or another sameSite",
    ),
    (
        "sessionName: __Secure-a, cookieConfig: {secure: Never}",
        "cookieConfig.secure: Never makes browsers drop a cookie whose name begins with __Secure- or __Host-: use Auto",
    ),
    (
        "sessionName: __host-a, cookieConfig: {secure: Never}",
        "cookieConfig.secure: Never makes browsers drop a cookie whose name begins with __Secure- or __Host-: use Auto",
    ),
    (
        "sessionName: __Host-a, cookieConfig: {path: /shop}",
        "cookieConfig.path: \"/shop\" makes browsers drop a cookie whose name begins with __Host-: use path /, or another name",
    ),
];

#[test]
fn whatever_is_wrong_is_refused_once_with_its_field_in_the_pool_and_in_a_rule() {
    let own = |(wrong, sentence): &(&str, &str)| ((*wrong).to_owned(), (*sentence).to_owned());
    let session = |(wrong, sentence): &(&str, &str)| {
        (format!("sessionPersistence: {{{wrong}}}"), format!("sessionPersistence.{sentence}"))
    };
    for (wrong, sentence) in WRONG.iter().map(own).chain(WRONG_SESSIONS.iter().map(session)) {
        for (refused, field) in
            [(compiled(&pool(&wrong, "")), "spec."), (compiled(&pool("", &wrong)), "spec.rules[0].")]
        {
            let refused = refused.expect_err(&wrong);
            let expected = format!("default/shop: {field}{sentence}");
            assert!(refused.len() == 1 && refused[0].starts_with(&expected), "{wrong}: {refused:?}");
        }
    }
}

#[test]
fn wrong_matches_of_a_set_are_refused_with_their_fields() {
    let nine = format!("matches: [{}]", ["{type: Header, name: a}"; 9].join(", "));
    for (wrong, sentence) in [
        (nine.as_str(), "matches: 9 entries are too many: use at most 8"),
        ("matches: [{type: Header, name: ''}]", "matches[0].name: \"\" is not a token of HTTP: use 1 to 256"),
        (
            "matches: [{type: Header, name: a}, {type: Cookie, name: a b}]",
            "matches[1].name: \"a b\" is not a token of HTTP",
        ),
        (
            "matches: [{type: Header, name: a, value: ''}]",
            "matches[0].value: \"\" is not a header's value: use 1 to 256 visible ASCII characters and blanks",
        ),
        ("matches: [{type: Cookie, name: a, value: é}]", "matches[0].value: \"é\" is not a header's value"),
    ] {
        let refused = compiled(&pool_with("", "", wrong)).expect_err(wrong);
        let expected = format!("default/shop: spec.rules[0].backendSets[0].{sentence}");
        assert!(refused.len() == 1 && refused[0].starts_with(&expected), "{wrong}: {refused:?}");
    }
}

/// What is written so long, the most that it may be, and the field below a rule.
type Sized = (fn(usize) -> String, usize, &'static str);

const SIZED: &[Sized] = &[
    (
        |n| format!("sessionPersistence: {{sessionName: {}}}", "n".repeat(n)),
        64,
        "sessionPersistence.sessionName",
    ),
    (
        |n| format!("sessionPersistence: {{type: LearntCookie, sessionName: {}}}", "n".repeat(n)),
        64,
        "sessionPersistence.sessionName",
    ),
    (
        |n| format!("sessionPersistence: {{type: Header, sessionName: {}}}", "n".repeat(n)),
        256,
        "sessionPersistence.sessionName",
    ),
    (
        |n| format!("sessionPersistence: {{cookieConfig: {{path: /{}}}}}", "p".repeat(n - 1)),
        256,
        "sessionPersistence.cookieConfig.path",
    ),
];

#[test]
fn every_length_has_a_limit_and_one_past_it_is_refused() {
    let judge = |good: &str, past: &str, field: &str| {
        assert_eq!(compiled(good).err(), None, "{field}");
        let refused = compiled(past).expect_err(field);
        let expected = format!("default/shop: spec.rules[0].{field}: ");
        assert!(refused.len() == 1 && refused[0].starts_with(&expected), "{refused:?}");
    };
    for (written, most, field) in SIZED {
        judge(&pool("", &written(*most)), &pool("", &written(most + 1)), field);
    }
    let name = |n: usize| pool_with("", "", &format!("matches: [{{type: Cookie, name: {}}}]", "n".repeat(n)));
    judge(&name(256), &name(257), "backendSets[0].matches[0].name");
    let value = |n: usize| {
        pool_with("", "", &format!("matches: [{{type: Header, name: a, value: {}}}]", "v".repeat(n)))
    };
    judge(&value(256), &value(257), "backendSets[0].matches[0].value");
    let codes = |n: usize| {
        let codes: Vec<_> = (400..400 + n).map(|code| code.to_string()).collect();
        pool("", &format!("retry: {{codes: [{}]}}", codes.join(", ")))
    };
    judge(&codes(16), &codes(17), "retry.codes");
}

#[test]
fn limits_are_taken() {
    for good in [
        "timeouts: {request: 0s, backendRequest: 0s, idle: 1ms, total: 0s}",
        "retry: {attempts: 10, codes: [400, 599], backoff: 0s, hedgeAfter: 1ms}",
        "retry: {attempts: 0, codes: [], backoff: 10s, hedgeAfter: 1m}",
        "sessionPersistence: {absoluteTimeout: 1s}",
        "sessionPersistence: {sessionName: __Host-a, cookieConfig: {secure: Auto, path: /}}",
        "sessionPersistence: {sessionName: __Secure-a, cookieConfig: {secure: Always, path: /shop}}",
        "sessionPersistence: {cookieConfig: {secure: Never, sameSite: Strict}}",
        "sessionPersistence: {type: SourceIP, idleTimeout: 720h, maxSessions: 4000000}",
    ] {
        for refused in [compiled(&pool(good, "")).err(), compiled(&pool("", good)).err()] {
            assert_eq!(refused, None, "{good}");
        }
    }
}

#[test]
fn equal_rules_are_equal_bytes_however_they_are_spelled() {
    for (rule, same) in [
        ("", "retry: {attempts: 3, codes: [504, 502, 503], backoff: 25ms}"),
        ("", "timeouts: {request: 30000ms}"),
        (
            "sessionPersistence: {}",
            "sessionPersistence: {type: Cookie, sessionName: LB_SESSION, absoluteTimeout: 60m}",
        ),
        (
            "sessionPersistence: {type: Header, sessionName: a}",
            "sessionPersistence: {type: Header, sessionName: A, maxSessions: 100000}",
        ),
    ] {
        assert_eq!(rules("", rule)[0], rules("", same)[0], "{rule} {same}");
    }
}

/// A pool with so many listeners of `*.a.org` and so many rules of so many hosts there, each with so many matches; and `more`
/// routes of `b.org`.
fn multiplied(listeners: usize, [rules, hosts, matches]: [usize; 3], more: usize) -> String {
    let list =
        |count: usize, item: &dyn Fn(usize) -> String| (0..count).map(item).collect::<Vec<_>>().join(", ");
    let listener = |nth: usize, host: &str| {
        format!("{{name: l{nth}, port: {}, protocol: HTTP, hostnames: ['{host}']}}", nth + 1)
    };
    let hosts = list(hosts, &|nth| format!("{nth}.a.org"));
    let matches = list(matches, &|nth| format!("{{path: {{value: /{nth}}}}}"));
    let rule = |hosts: &str, matches: &str| {
        format!("{{hostnames: [{hosts}], matches: [{matches}], backendSets: [{{name: web}}]}}")
    };
    let mut rules = vec![rule(&hosts, &matches); rules];
    rules.extend((0..more).map(|_| rule("b.org", "")));
    format!(
        "apiVersion: weir.dev/v1alpha1\nkind: LoadBalancerPool\nmetadata: {{name: shop}}\nspec: {{backendSets: [{{name: \
         web, static: {{backends: []}}}}], listeners: [{}, {}], rules: [{}]}}",
        list(listeners, &|nth| listener(nth, "*.a.org")),
        listener(listeners, "b.org"),
        rules.join(", ")
    )
}

#[test]
fn routes_of_a_pool_have_a_limit_and_one_past_it_is_refused_before_any_is_made() {
    let refused = |count: usize| {
        Err(vec![format!(
            "default/shop: spec.rules: {count} routes are too many, one for each listener, hostname and match: use at most \
             100000, by fewer of any of them or by several pools"
        )])
    };
    for (made, more, expected) in [
        ((50, [250, 8, 1]), 0, Ok(250)),
        ((50, [250, 8, 1]), 1, refused(100_001)),
        ((50, [250, 8, 0]), 0, Ok(250)),
        ((50, [250, 8, 0]), 1, refused(100_001)),
        ((63, [256, 16, 16]), 0, refused(4_128_768)),
    ] {
        let compiled = compiled(&multiplied(made.0, made.1, more)).map(|rules| rules.len());
        assert_eq!(compiled, expected, "{made:?} and {more}");
    }
}

#[test]
fn a_pool_with_longer_lists_than_there_may_be_is_refused_for_those() {
    let refused = compiled(&multiplied(64, [256, 16, 16], 0)).expect_err("65 listeners");
    assert_eq!(refused, ["default/shop: spec.listeners: 65 entries are too many: use at most 64"]);
}

#[test]
fn a_listener_that_waits_for_its_certificate_counts_among_the_routes() {
    let secure = multiplied(50, [250, 8, 1], 1).replacen(
        "protocol: HTTP,",
        "protocol: HTTPS, tls: {certificateRefs: [{name: none}]},",
        1,
    );
    let refused = compiled(&secure).expect_err("100,001 routes");
    assert!(refused.iter().any(|refused| refused.contains("100001 routes")), "{refused:?}");
}

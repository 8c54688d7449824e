use super::*;
use crate::message::{BodyLength, Upgrade};
use http::Method;
use lb_core::addresses::IpRules;
use lb_core::rate::{Algorithm, Limiter, Scope};
use std::sync::Arc;

fn head(fields: &[(&'static str, &'static str)]) -> RequestHead {
    let fields =
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
    RequestHead {
        version: http::Version::HTTP_11,
        method: Method::GET,
        authority: None,
        target: http::uri::PathAndQuery::from_static("/"),
        headers: fields.collect(),
        body: BodyLength::Empty,
        upgrade: Upgrade::No,
    }
}

fn peer(ip: &str) -> Peer {
    Peer::at(80, ip.parse::<IpAddr>().expect("an address"))
}

fn policy(name: &str, key: RateKey, requests: u32) -> LimitPolicy {
    LimitPolicy {
        id: name.into(),
        name: name.into(),
        key,
        algorithm: Algorithm::TokenBucket { burst: requests },
        requests,
        period: Duration::from_secs(60),
        scope: Scope::Local,
        keys_max: 100,
        told: Told::WhenRefused,
    }
}

fn route(limits: impl IntoIterator<Item = LimitPolicy>) -> Route {
    let limits = limits.into_iter().map(|policy| Arc::new(Limiter::new(policy, 1))).collect();
    Route { limits, ..Route::new(1, "ns/p".into(), 0, Vec::new()) }
}

/// What became of a request, and what its response says.
fn asked(route: &Route, head: &RequestHead, ip: &'static str) -> (Result<(), Failure>, Option<HeaderMap>) {
    let mut telling = Telling::default();
    let checked = check(route, head, &peer(ip), || Duration::from_secs(100), &mut telling);
    (checked, telling.fields.map(|fields| *fields))
}

fn passes(route: &Route, head: &RequestHead, ip: &'static str) -> bool {
    asked(route, head, ip).0.is_ok()
}

const ANYBODY: &str = "192.0.2.1";

#[test]
fn a_client_is_its_address_or_its_network() {
    let key = |v4_bits, v6_bits| RateKey::Source { v4_bits, v6_bits };
    for (key, one, other, are_same) in [
        (key(32, 64), "192.0.2.1", "192.0.2.2", false),
        (key(24, 64), "192.0.2.1", "192.0.2.2", true),
        (key(24, 64), "192.0.2.1", "192.0.3.1", false),
        (key(32, 64), "2001:db8::1", "2001:db8::ffff:2", true),
        (key(32, 64), "2001:db8::1", "2001:db8:0:1::1", false),
        (key(32, 128), "2001:db8::1", "2001:db8::2", false),
        (key(1, 1), "192.0.2.1", "200.0.0.0", true),
    ] {
        let route = route([policy("l", key.clone(), 1)]);
        assert!(passes(&route, &head(&[]), one));
        assert!(!passes(&route, &head(&[]), one));
        assert_eq!(passes(&route, &head(&[]), other), !are_same, "{key:?}: {one} and {other}");
    }
}

#[test]
fn a_user_is_a_header_or_a_cookie_and_all_without_are_one() {
    for (key, name) in
        [(RateKey::Header("x-user".into()), "x-user"), (RateKey::Cookie("user".into()), "cookie")]
    {
        let route = route([policy("l", key, 1)]);
        for value in ["user=anna", "user=berta"] {
            assert!(passes(&route, &head(&[(name, value)]), ANYBODY));
            assert!(!passes(&route, &head(&[(name, value)]), "192.0.2.9"), "its address does not matter");
        }
        assert!(passes(&route, &head(&[]), ANYBODY));
        assert!(!passes(&route, &head(&[("x-other", "1")]), "192.0.2.9"), "leaving it out frees nobody");
    }
}

#[test]
fn a_refusal_says_when_to_come_back_and_who_passes_is_told_where_it_is_asked_for() {
    let quiet = policy("quiet", RateKey::Route, 3);
    let loud = LimitPolicy { told: Told::Always, ..policy("loud", RateKey::Route, 2) };
    let route = route([quiet, loud]);
    let field = |fields: &HeaderMap, name: &str| fields[name].to_str().expect("text").to_owned();
    for (remaining, reset) in [(1, 30), (0, 60)] {
        let (checked, fields) = asked(&route, &head(&[]), ANYBODY);
        assert_eq!(checked, Ok(()));
        let fields = fields.expect("asked for");
        assert_eq!(field(&fields, "ratelimit-policy"), r#""loud";q=2;w=60"#);
        assert_eq!(field(&fields, "ratelimit"), format!(r#""loud";r={remaining};t={reset}"#));
    }
    let (checked, fields) = asked(&route, &head(&[]), ANYBODY);
    assert_eq!(checked, Err(Failure::RateLimited { retry_after_s: 30 }));
    let fields = fields.expect("a refusal is told");
    assert_eq!(field(&fields, "ratelimit-policy"), r#""loud";q=2;w=60"#);
    assert_eq!(field(&fields, "ratelimit"), r#""loud";r=0;t=30"#);
}

#[test]
fn a_route_without_limits_says_nothing_and_reads_no_clock() {
    let (route, mut telling) = (route([]), Telling::default());
    let no_clock = || -> Duration { panic!("the clock was read") };
    assert_eq!(check(&route, &head(&[]), &peer(ANYBODY), no_clock, &mut telling), Ok(()));
    assert!(telling.fields.is_none());
}

#[test]
fn who_may_not_ask_is_refused_before_it_is_counted() {
    let nets: Vec<ipnet::IpNet> = vec!["192.0.2.0/24".parse().expect("a network")];
    let rules = Arc::new(IpRules::new(&nets, &[]));
    let route = Route { ip_rules: Some(rules), ..route([policy("l", RateKey::Route, 1)]) };
    for _ in 0..5 {
        assert_eq!(asked(&route, &head(&[]), "198.51.100.1").0, Err(Failure::IpDenied));
    }
    assert!(passes(&route, &head(&[]), ANYBODY));
}

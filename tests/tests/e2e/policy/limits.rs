//! Rate limits, as clients meet them.

use super::{Site, ask};
use weir_tests::harness::client::Connection;
use weir_tests::harness::wait;

const TRUSTED: &str = "{ trustedCIDRs: [127.0.0.0/8] }";
const BY_ADDRESS: &str = "rateLimits: [{ name: per-client, requests: 3, period: 1h }]";

#[test]
fn each_client_has_its_own_limit_and_is_told_when_to_come_back() {
    let site = Site::start(1, TRUSTED, &[BY_ADDRESS]);
    for client in ["198.51.100.7", "198.51.100.8", "2001:db8::1"] {
        let from = format!("X-Forwarded-For: {client}\r\n");
        assert_eq!(site.statuses(&from, 3), [200; 3], "{client}");
        let refused = site.ask(&from);
        assert_eq!(refused.status, 429);
        assert_eq!(refused.header("x-weir-reason"), Some("rate_limited"));
        assert_eq!(refused.json()["reason"], "rate_limited");
        let retry: u32 = refused.header("retry-after").and_then(|s| s.parse().ok()).expect("seconds");
        assert!((1_000..=1_200).contains(&retry), "{retry}: a third of an hour for one more");
        assert_eq!(refused.header("ratelimit-policy"), Some("\"per-client\";q=3;w=3600"));
        assert_eq!(refused.header("ratelimit"), Some(format!("\"per-client\";r=0;t={retry}").as_str()));
    }
    assert_eq!(site.ask("X-Forwarded-For: 2001:db8::ffff\r\n").status, 429, "of the same network of 64 bits");
    assert_eq!(site.ask("X-Forwarded-For: 1.1.1.1, 198.51.100.7\r\n").status, 429, "a claim changes nothing");
    assert_eq!(site.weir.metric("weir_requests_rate_limited_total"), 5);
}

#[test]
fn users_are_told_apart_by_header_and_cookie_and_responses_say_what_is_left() {
    let limits = "rateLimits: [\
        { name: user, key: { type: Header, name: X-User }, requests: 2, period: 1h, responseHeaders: Always },\
        { name: all, key: { type: Route }, algorithm: SlidingWindow, requests: 5, period: 1h, responseHeaders: Always }]";
    let site = Site::start(1, "", &[limits]);
    let anna = site.ask("X-User: anna\r\n");
    assert_eq!(anna.status, 200);
    assert_eq!(anna.header("ratelimit-policy"), Some("\"user\";q=2;w=3600, \"all\";q=5;w=3600"));
    let left = |header: Option<&str>| -> Vec<String> {
        let remaining = |entry: &str| entry.split(';').find(|part| part.starts_with("r=")).map(str::to_owned);
        header.expect("it is told").split(',').filter_map(remaining).collect()
    };
    assert_eq!(left(anna.header("ratelimit")), ["r=1", "r=4"]);
    assert_eq!(site.statuses("X-User: anna\r\n", 3), [200, 429, 429]);
    assert_eq!(site.statuses("X-User: berta\r\n", 2), [200, 200], "what anna was refused counts for nobody");
    // Five passed, but for one: who leaves the header out is somebody too.
    assert_eq!(site.statuses("", 2), [200, 429]);
    let full = site.ask("X-User: clara\r\n");
    assert_eq!(full.header("ratelimit-policy"), Some("\"all\";q=5;w=3600"), "which one refused");
}

#[test]
fn workers_together_admit_exactly_the_limit() {
    let site = Site::start(
        2,
        "",
        &["rateLimits: [{ name: all, key: { type: Route }, requests: 100, period: 24h }]"],
    );
    let passed: usize = std::thread::scope(|scope| {
        let client = || {
            // Connections of their own, so that both workers serve some.
            let ask = |_| ask(site.port, "/", "").status;
            (0..40).map(ask).filter(|status| *status == 200).count()
        };
        let clients: Vec<_> = (0..6).map(|_| scope.spawn(client)).collect();
        clients.into_iter().map(|client| client.join().expect("no panic")).sum()
    });
    assert_eq!(passed, 100);
}

#[test]
fn an_edit_of_something_else_frees_nobody_and_one_of_the_limit_does() {
    let site = Site::start(1, "", &[BY_ADDRESS]);
    assert_eq!(site.statuses("", 4), [200, 200, 200, 429]);
    site.change(TRUSTED, &[BY_ADDRESS]);
    wait::until("the change should be in force", || {
        let believed = site.ask("X-Forwarded-For: 198.51.100.7\r\n").status == 200;
        believed.then_some(())
    });
    assert_eq!(site.ask("").status, 429, "what was counted stays");
    site.change(TRUSTED, &["rateLimits: [{ name: per-client, requests: 4, period: 1h }]"]);
    wait::until("the new limit should be in force", || (site.ask("").status == 200).then_some(()));
}

#[test]
fn a_refusal_keeps_the_connection_and_skips_the_body() {
    let site = Site::start(1, "", &["rateLimits: [{ name: one, requests: 1, period: 1h }]"]);
    let mut connection = Connection::open(site.port).expect("serves");
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    assert_eq!(connection.request(post).expect("an answer").status, 200);
    for _ in 0..3 {
        assert_eq!(connection.request(post).expect("the same connection").status, 429);
    }
}

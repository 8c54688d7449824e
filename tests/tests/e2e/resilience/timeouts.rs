//! How long a request may take, each attempt and all of it.

use super::{Site, pool, told};
use std::sync::mpsc;
use weir_tests::harness::gauge::Gauge;
use weir_tests::harness::scripted::{Exchange, Scripted};
use weir_tests::harness::switchable::Switchable;
use weir_tests::harness::wait::GENEROUS;

/// A backend that reads requests and never answers; the gauge counts them.
fn silent(requests: &Gauge) -> u16 {
    let requests = requests.clone();
    let script = move |_, exchange: &mut Exchange| {
        while exchange.read_request().is_some() {
            let _ = requests.enter();
        }
    };
    Scripted::start(script).port
}

fn site(backends: &[u16], timeouts: &str) -> Site {
    let mut pool = pool(backends, &[]);
    pool.timeouts = timeouts.to_owned();
    Site::start(&pool)
}

#[test]
fn an_attempt_that_takes_too_long_is_left_for_another_backend_where_that_is_safe() {
    let (asked, good) = (Gauge::default(), Switchable::start("good"));
    let site = site(&[silent(&asked), good.port], "backendRequest: 200ms");
    for _ in 0..4 {
        assert_eq!(site.get("/").status, 200);
    }
    assert!(asked.total() > 0);
    let before = (asked.total(), good.requests());
    let answers: Vec<_> = (0..2).map(|_| site.send("POST")).collect();
    let mut seen: Vec<_> = answers.iter().map(told).collect();
    seen.sort_unstable();
    assert_eq!(seen, [(200, None), (504, Some("backend_timeout"))]);
    assert_eq!((asked.total(), good.requests()), (before.0 + 1, before.1 + 1), "each was sent once");
}

#[test]
fn attempts_together_take_no_longer_than_the_request_may() {
    let asked = Gauge::default();
    let mut pool = pool(&[silent(&asked), silent(&asked)], &["retry: { attempts: 10, backoff: 0s }"]);
    pool.timeouts = "backendRequest: 300ms".to_owned();
    pool.request_timeout = "700ms".to_owned();
    let site = Site::start(&pool);
    assert_eq!(told(&site.get("/")), (504, Some("backend_timeout")));
    let attempts = asked.total();
    assert!((2..=4).contains(&attempts), "{attempts} attempts of 300 ms in 700 ms");
}

#[test]
fn a_rule_says_its_own_limit_of_an_attempt() {
    let (asked, good) = (Gauge::default(), Switchable::start("good"));
    let pool = pool(&[silent(&asked), good.port], &[]);
    let of_rule = "    - timeouts: { backendRequest: 200ms }\n      backendSets:\n";
    let site = Site::of_text(pool.port, &pool.yaml().replacen("    - backendSets:\n", of_rule, 1));
    assert_eq!([site.get("/").status, site.get("/").status], [200; 2]);
    assert!(asked.total() > 0);
}

/// A backend that sends a head and then `piece` again and again, until the proxy leaves.
fn endless(piece: &'static str, left: &mpsc::Sender<()>) -> u16 {
    let left = left.clone();
    let script = move |_, exchange: &mut Exchange| {
        exchange.read_request();
        exchange.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ndone\r\n");
        exchange.wait_at_most(std::time::Duration::from_millis(20));
        while let Ok(None) = exchange.read_request_if_any() {
            exchange.write(piece);
        }
        let _ = left.send(());
    };
    Scripted::start(script).port
}

/// The head comes, the whole never does, and the backend is left.
fn breaks_off(piece: &'static str, timeouts: &str) {
    let (left, leaves) = mpsc::channel();
    let site = site(&[endless(piece, &left)], timeouts);
    let mut connection = site.connect();
    connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("open");
    let head = connection.read_head().expect("a head");
    assert_eq!(head.status, 200);
    connection.read_rest(head).expect_err("a part must not pass for the whole");
    leaves.recv_timeout(GENEROUS).expect("the backend is left");
}

#[test]
fn a_response_that_goes_on_past_the_total_breaks_off() {
    breaks_off("4\r\nmore\r\n", "idle: 1m, total: 500ms");
}

#[test]
fn a_response_whose_body_stands_still_breaks_off() {
    breaks_off("", "idle: 300ms");
}

#[test]
fn a_request_without_an_answer_at_the_total_is_told_so() {
    let asked = Gauge::default();
    let mut pool = pool(&[silent(&asked)], &[]);
    pool.timeouts = "total: 400ms".to_owned();
    pool.request_timeout = "0s".to_owned();
    let site = Site::start(&pool);
    assert_eq!(told(&site.get("/")), (504, Some("request_timeout")));
    assert_eq!(asked.total(), 1, "there is no time for another attempt");
}

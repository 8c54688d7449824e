//! What is sent again, and how often.

use super::backends::{CLOSES, Recording};
use super::{Site, pool, told};
use std::time::{Duration, Instant};
use weir_tests::harness::ports;
use weir_tests::harness::switchable::Switchable;

/// Most bytes of a body that are kept for another attempt.
const REPLAY_BYTES_MAX: usize = 64 << 10;

/// Statuses that clients see of a backend with this one beside a good one, over a few requests.
fn seen_of(status: u16, site: &Site, failing: &Switchable) -> Vec<u16> {
    failing.answer(status);
    let before = failing.requests();
    let seen: Vec<u16> = (0..6).map(|_| site.get("/").status).collect();
    assert!(failing.requests() > before, "{status} was never answered");
    seen
}

#[test]
fn answers_of_502_503_and_504_are_tried_elsewhere_by_default_and_others_are_passed_on() {
    let (failing, good) = (Switchable::start("failing"), Switchable::start("good"));
    let site = Site::start(&pool(&[failing.port, good.port], &[]));
    for status in [502, 503, 504] {
        assert_eq!(seen_of(status, &site, &failing), [200; 6], "{status}");
    }
    for status in [400, 429, 500, 501] {
        assert!(seen_of(status, &site, &failing).contains(&status), "{status}");
    }
}

#[test]
fn the_statuses_that_a_pool_lists_are_tried_elsewhere_and_no_others() {
    let (failing, good) = (Switchable::start("failing"), Switchable::start("good"));
    let site = Site::start(&pool(&[failing.port, good.port], &["retry: { codes: [429, 500] }"]));
    for status in [429, 500] {
        assert_eq!(seen_of(status, &site, &failing), [200; 6], "{status}");
    }
    for status in [502, 503] {
        assert!(seen_of(status, &site, &failing).contains(&status), "{status}");
    }
}

#[test]
fn a_rule_says_its_own_retries() {
    let (failing, good) = (Switchable::start("failing"), Switchable::start("good"));
    let pool = pool(&[failing.port, good.port], &["retry: { codes: [500] }"]);
    let of_rule = "    - retry: { attempts: 0 }\n      backendSets:\n";
    let site = Site::of_text(pool.port, &pool.yaml().replacen("    - backendSets:\n", of_rule, 1));
    assert!(seen_of(500, &site, &failing).contains(&500));
}

#[test]
fn without_attempts_a_failure_reaches_the_client() {
    let good = Switchable::start("good");
    for (reason, bad) in
        [("connect_failed", ports::free()), ("backend_closed", Recording::start(&[CLOSES]).ports[0])]
    {
        let site = Site::start(&pool(&[bad, good.port], &["retry: { attempts: 0 }"]));
        let answers: Vec<_> = (0..4).map(|_| site.get("/")).collect();
        let failed = answers.iter().filter(|answer| told(answer) == (502, Some(reason))).count();
        assert_eq!(failed, 2, "{reason}: they take turns");
    }
}

#[test]
fn retries_end_with_the_last_attempt_and_wait_before_each() {
    let backend = Recording::start(&[503]);
    let site = Site::start(&pool(&backend.ports, &["retry: { attempts: 5, backoff: 100ms }"]));
    let begun = Instant::now();
    let answer = site.get("/");
    assert_eq!((told(&answer), backend.asked().len()), ((503, None), 6));
    // Five waits of 0 to 100, 200, 400, 800 and 1000 ms: together less than this about once in ten million times.
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(25), "{took:?}");
}

#[test]
fn a_post_is_sent_once_whatever_comes_of_it() {
    for (status, expected) in
        [(503, (503, None)), (502, (502, None)), (CLOSES, (502, Some("backend_closed")))]
    {
        let backend = Recording::start(if status == 503 {
            &[503]
        } else if status == 502 {
            &[502]
        } else {
            &[CLOSES]
        });
        let site = Site::start(&pool(&backend.ports, &["retry: { attempts: 10, codes: [502, 503] }"]));
        for count in 1..=4 {
            assert_eq!(told(&site.send("POST")), expected);
            assert_eq!(backend.asked().len(), count, "{status}");
        }
        for (method, most) in [("PATCH", 1), ("PUT", 11), ("DELETE", 11)] {
            let before = backend.asked().len();
            assert_eq!(told(&site.send(method)), expected);
            assert_eq!(backend.asked().len() - before, most, "{method} {status}");
        }
    }
}

#[test]
fn a_post_that_reached_nobody_is_sent_elsewhere() {
    let good = Switchable::start("good");
    let site = Site::start(&pool(&[ports::free(), ports::free(), good.port], &[]));
    for count in 1..=6 {
        assert_eq!(site.send("POST").status, 200);
        assert_eq!(good.requests(), count);
    }
}

/// So many letters, of which no two stretches are equal.
fn letters(bytes: usize) -> String {
    (0..bytes).map(|at| char::from(b'a' + u8::try_from((at * at + at / 7) % 26).expect("small"))).collect()
}

/// A PUT of this body with its length, and one in chunks with trailers.
fn framings(body: &str) -> [(String, &'static str); 2] {
    let with_length = format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let mut chunked = "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
    for piece in body.as_bytes().chunks(1000) {
        let piece = std::str::from_utf8(piece).expect("ASCII");
        chunked.push_str(&format!("{:x}\r\n{piece}\r\n", piece.len()));
    }
    chunked.push_str("0\r\nx-sum: 7\r\n\r\n");
    [(with_length, ""), (chunked, "x-sum: 7\r\n\r\n")]
}

#[test]
fn a_body_up_to_the_limit_is_sent_again_byte_for_byte_with_its_trailers() {
    for bytes in [0, 1, 5000, REPLAY_BYTES_MAX] {
        let body = letters(bytes);
        for (request, trailers) in framings(&body) {
            let backend = Recording::start(&[503, CLOSES, 200]);
            let site = Site::start(&pool(&backend.ports, &[]));
            assert_eq!(site.connect().request(&request).expect("an answer").status, 200);
            let asked = backend.asked();
            assert_eq!(asked.len(), 3, "{bytes}");
            for asked in asked {
                let (data, trailing) = asked.content();
                assert!(data == body, "{} of {bytes} bytes came, or others", data.len());
                assert_eq!(trailing.trim_end(), trailers.trim_end());
            }
        }
    }
}

#[test]
fn a_body_past_the_limit_is_passed_on_and_sent_once() {
    let body = letters(REPLAY_BYTES_MAX + 1);
    for (request, trailers) in framings(&body) {
        for (statuses, expected) in
            [(&[503, 200][..], (503, None)), (&[CLOSES, 200], (502, Some("backend_closed")))]
        {
            let backend = Recording::start(statuses);
            let site = Site::start(&pool(&backend.ports, &[]));
            assert_eq!(told(&site.connect().request(&request).expect("an answer")), expected);
            let asked = backend.asked();
            assert_eq!(asked.len(), 1);
            let (data, trailing) = asked[0].content();
            assert!(data == body, "{} bytes came, or others", data.len());
            assert_eq!(trailing.trim_end(), trailers.trim_end());
        }
    }
}

#[test]
fn while_every_backend_fails_retries_add_a_fifth_to_the_load_and_no_more() {
    const REQUESTS: usize = 300;
    /// `minRetriesPerSecond` over the window.
    const ALWAYS: usize = 10;
    for statuses in [&[503][..], &[CLOSES]] {
        let backend = Recording::start(statuses);
        let budget = "retryBudget: { percent: 20, minRetriesPerSecond: 1, window: 10s }";
        let site = Site::start(&pool(&backend.ports, &[budget, "retry: { backoff: 0s }"]));
        let mut connection = site.connect();
        for _ in 0..REQUESTS {
            assert!(connection.get("/").expect("an answer").status >= 502);
        }
        let asked = backend.asked().len();
        assert!(asked <= REQUESTS + REQUESTS / 5 + ALWAYS, "{asked}");
        assert!(asked >= REQUESTS + ALWAYS, "{asked}: what the budget allows is done");
    }
}

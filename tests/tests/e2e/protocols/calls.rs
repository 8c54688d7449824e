//! Calls of gRPC: what the proxy says itself, deadlines, and what breaks off.

use super::streams::{Announces, Backend};
use super::{Site, Speaks};
use crate::http2_client::over_http2;
use bytes::Bytes;
use http::{HeaderMap, Request};
use std::time::{Duration, Instant};
use weir_tests::harness::client::read_to;
use weir_tests::harness::ports;
use weir_tests::harness::scripted::Scripted;
use weir_tests::harness::wait;

fn call(path: &str, fields: &[(&'static str, &str)]) -> Request<()> {
    let mut request = Request::post(format!("http://a{path}")).body(()).expect("a request");
    for (name, value) in [("te", "trailers"), ("content-type", "application/grpc+proto")].iter().chain(fields)
    {
        request.headers_mut().insert(*name, value.parse().expect("a value"));
    }
    request
}

/// The head of the answer to a call without a message, and whether that is all of it.
fn told(site: &Site, path: &str, fields: &[(&'static str, &str)]) -> (u16, HeaderMap, bool) {
    over_http2(site.port, async |mut client| {
        let (answer, _) = client.send_request(call(path, fields), true).expect("open");
        let answer = answer.await.expect("an answer");
        let (head, body) = answer.into_parts();
        (head.status.as_u16(), head.headers, body.is_end_stream())
    })
}

fn assert_told(told: &(u16, HeaderMap, bool), status: &str, reason: &str) {
    let (code, headers, is_all) = told;
    let header = |name: &str| headers.get(name).map(|value| value.to_str().expect("text"));
    assert_eq!((*code, header("grpc-status"), header("x-weir-reason")), (200, Some(status), Some(reason)));
    assert_eq!(header("content-type"), Some("application/grpc+proto"));
    assert!(header("grpc-message").is_some_and(|message| message.ends_with('.')), "{headers:?}");
    assert!(is_all, "trailers only");
}

#[test]
fn every_failure_of_ours_is_a_status_of_grpc_to_a_call() {
    let site = Site::before(&[ports::free()], Speaks::Http2, &["retry: { attempts: 0 }"]);
    assert_told(&told(&site, "/", &[]), "14", "connect_failed");
    assert_told(&told(&site, "/", &[("expect", "the-worst")]), "2", "expectation_failed");
    assert_told(&told(&site, "/", &[("host", "b")]), "13", "bad_request");
    let none = Site::before(&[], Speaks::Http2, &[]);
    assert_told(&told(&none, "/", &[]), "14", "no_backend");
    // Over HTTP/1.1 in the same words, with an end that its client can see.
    let request =
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc-web\r\nContent-Length: 0\r\n\r\n";
    let mut connection = none.connect();
    for _ in 0..2 {
        let answer = connection.request(request).expect("an answer");
        assert_eq!((answer.status, answer.header("grpc-status")), (200, Some("14")));
        assert_eq!(answer.header("content-type"), Some("application/grpc-web"));
    }
    let silent = Backend::start(Announces::Nothing);
    let mut pool = weir_tests::harness::manifest::PoolText::new("silent", ports::free(), &[(silent.port, 1)]);
    pool.request_timeout = "200ms".to_owned();
    pool.set = vec!["protocol: HTTP2".to_owned()];
    assert_told(&told(&Site::of(&pool), "/wait", &[]), "4", "backend_timeout");
    // What is no call is told as before.
    let answer = site.connect().get("/").expect("an answer");
    assert_eq!((answer.status, answer.header("grpc-status")), (502, None));
}

#[test]
fn a_call_ends_at_its_own_deadline_or_the_rule_s_whichever_is_first() {
    let backend = Backend::start(Announces::Nothing);
    let mut pool = weir_tests::harness::manifest::PoolText::new("slow", ports::free(), &[(backend.port, 1)]);
    pool.set = vec!["protocol: HTTP2".to_owned()];
    let patient = Site::of(&pool);
    let begun = Instant::now();
    assert_told(&told(&patient, "/wait", &[("grpc-timeout", "300m")]), "4", "request_timeout");
    assert!((300..5_000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    let (.., headers) = backend.asked();
    assert_eq!(headers["grpc-timeout"], "300m", "the backend knows its deadline");
    // Never above the rule's.
    pool.port = ports::free();
    pool.timeouts = "total: 300ms".to_owned();
    let strict = Site::of(&pool);
    let begun = Instant::now();
    assert_told(&told(&strict, "/wait", &[("grpc-timeout", "1H")]), "4", "request_timeout");
    assert!(begun.elapsed() < Duration::from_secs(5));
    // Another request's header is nobody's deadline.
    over_http2(patient.port, async |mut client| {
        let request = Request::get("http://a/").header("grpc-timeout", "1n").body(()).expect("a request");
        let (answer, _) = client.send_request(request, true).expect("open");
        assert_eq!(answer.await.expect("an answer").status(), 200);
    });
}

#[test]
fn a_backend_that_dies_in_a_call_gives_a_reset_and_never_a_clean_end() {
    const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n";
    let http2 = Backend::start(Announces::Nothing);
    let http1 = Scripted::start(|_, exchange| {
        exchange.read_head();
        exchange.write(ANSWER);
        exchange.read_until("0\r\n\r\n");
    });
    // One whose end comes together with what it has said: that arrives before the reset.
    let hasty = Scripted::start(|_, exchange| {
        exchange.read_head();
        exchange.write(ANSWER);
    });
    let all = [(http1.port, Speaks::Http1), (http2.port, Speaks::Http2), (hasty.port, Speaks::Http1)];
    for (port, speaks) in all {
        let site = Site::before(&[port], speaks, &[]);
        over_http2(site.port, async |mut client| {
            let (answer, mut up) = client.send_request(call("/cut", &[]), false).expect("open");
            let mut body = answer.await.expect("a head").into_body();
            assert_eq!(&body.data().await.expect("some").expect("some")[..], b"part", "{speaks:?}");
            let _ = up.send_data(Bytes::new(), true);
            let end = body.data().await.expect("no clean end");
            assert!(end.as_ref().is_err_and(h2::Error::is_reset), "{speaks:?}: {end:?}");
        });
    }
}

#[test]
fn trailers_cross_from_each_version_to_each() {
    let http2 = Backend::start(Announces::Nothing);
    let http1 = Scripted::start(|_, exchange| {
        while let Some(asked) = exchange.read_request() {
            let (_, trailers) = asked.content();
            exchange.write(&format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ndone\r\n0\r\nx-sum: 4\r\n{trailers}"));
        }
    });
    for (port, speaks) in [(http1.port, Speaks::Http1), (http2.port, Speaks::Http2)] {
        let site = Site::before(&[port], speaks, &[]);
        over_http2(site.port, async |mut client| {
            let (answer, mut up) = client.send_request(call("/", &[]), false).expect("open");
            up.send_data(Bytes::from_static(b"body"), false).expect("open");
            up.send_trailers(HeaderMap::from_iter([("x-in".parse().expect("a name"), 1.into())]))
                .expect("open");
            let mut body = answer.await.expect("a head").into_body();
            assert_eq!(super::streams::read(&mut body).await, b"done");
            let trailers = body.trailers().await.expect("whole").expect("trailers");
            assert_eq!((&trailers["x-sum"], &trailers["x-in"]), (&4.into(), &1.into()), "{speaks:?}");
        });
        let mut connection = site.connect();
        let request = "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nx-in: 1\r\n\r\n";
        connection.send(request.as_bytes()).expect("open");
        let end = match speaks {
            Speaks::Http1 => "4\r\ndone\r\n0\r\nx-sum: 4\r\nx-in: 1\r\n\r\n",
            Speaks::Http2 => "4\r\ndone\r\n0\r\nx-in: 1\r\nx-sum: 4\r\n\r\n",
        };
        let text = read_to(&connection.into_stream(), end);
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{speaks:?} {text}");
    }
}

#[test]
fn an_answer_before_the_end_of_a_call_s_messages_arrives_whole() {
    let backend = Backend::start(Announces::Nothing);
    let site = Site::before(&[backend.port], Speaks::Http2, &[]);
    over_http2(site.port, async |mut client| {
        for _ in 0..3 {
            let (answer, mut up) = client.send_request(call("/status", &[]), false).expect("open");
            up.send_data(Bytes::from_static(b"first of many"), false).expect("open");
            let answer = answer.await.expect("an answer");
            assert_eq!((answer.status().as_u16(), &answer.headers()["grpc-status"]), (200, &14.into()));
            assert!(!answer.headers().contains_key("x-weir-reason"), "it is the backend's");
        }
    });
}

/// Timers of the kernel on connections to a port of this machine, as proc(5) numbers them.
fn timers(to: u16) -> Vec<String> {
    const ESTABLISHED: &str = "01";
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
    let rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
    let to = format!(":{to:04X}");
    let ours = rows.filter(|row| row[2].ends_with(&to) && row[3] == ESTABLISHED);
    ours.filter_map(|row| Some(row[5].split_once(':')?.0.to_owned())).collect()
}

#[test]
fn a_backend_of_http2_that_vanishes_would_be_noticed_by_probes() {
    const KEEP_ALIVE: &str = "02";
    let backend = Backend::start(Announces::Nothing);
    let site = Site::before(&[backend.port], Speaks::Http2, &[]);
    assert_eq!(site.connect().get("/").expect("an answer").status, 200);
    wait::until("the connection that is kept should be probed", || {
        let timers = timers(backend.port);
        (!timers.is_empty() && timers.iter().all(|timer| timer == KEEP_ALIVE)).then_some(())
    });
}

//! Interim answers, expectations, HEAD, OPTIONS and event streams.

use super::streams::{Announces, Backend, ends, read};
use super::{BOTH, Site, Speaks};
use crate::http2_client::over_http2;
use bytes::Bytes;
use http::{Method, Request, Uri};
use std::future::poll_fn;
use std::sync::mpsc;
use weir_tests::harness::client::read_to;
use weir_tests::harness::scripted::Scripted;
use weir_tests::harness::wait::GENEROUS;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A backend of HTTP/1.1 that does by path what the one of HTTP/2 does.
fn http1() -> Scripted {
    Scripted::start(|_, exchange| {
        while let Some(head) = exchange.read_head() {
            if head.contains(" /hints ") {
                exchange.write("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </b.css>\r\n\r\n");
                exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            } else if head.contains(" /continue ") {
                exchange.write("HTTP/1.1 100 Continue\r\n\r\n");
                exchange.read_until("body").expect("a body");
                exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n4");
            } else if head.contains(" /final ") {
                exchange.write("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n");
            } else {
                exchange.write(OK);
            }
        }
    })
}

/// Sites before a backend of each version.
fn sites() -> Vec<(Speaks, Site, Box<dyn std::any::Any>)> {
    let start = |speaks| match speaks {
        Speaks::Http1 => {
            let backend = http1();
            (speaks, Site::before(&[backend.port], speaks, &[]), Box::new(backend) as Box<dyn std::any::Any>)
        }
        Speaks::Http2 => {
            let backend = Backend::start(Announces::Nothing);
            (speaks, Site::before(&[backend.port], speaks, &[]), Box::new(backend) as Box<dyn std::any::Any>)
        }
    };
    BOTH.map(start).into()
}

#[test]
fn several_early_hints_reach_clients_of_both_versions_from_backends_of_both() {
    for (speaks, site, _backend) in sites() {
        let mut connection = site.connect();
        connection.send(b"GET /hints HTTP/1.1\r\nHost: a\r\n\r\n").expect("open");
        for link in ["</a.css>", "</b.css>"] {
            let hint = connection.read_answer().expect("a hint");
            assert_eq!((hint.status, hint.header("link")), (103, Some(link)), "{speaks:?}");
        }
        assert_eq!(connection.read_answer().expect("an answer").status, 200);
        over_http2(site.port, async |mut client| {
            let request = Request::get("http://a/hints").body(()).expect("a request");
            let (mut answer, _) = client.send_request(request, true).expect("open");
            for link in ["</a.css>", "</b.css>"] {
                let hint =
                    poll_fn(|cx| answer.poll_informational(cx)).await.expect("a hint").expect("a hint");
                assert_eq!(
                    (hint.status().as_u16(), &hint.headers()["link"]),
                    (103, &link.parse().expect("a value"))
                );
            }
            assert_eq!(answer.await.expect("an answer").status(), 200);
        });
    }
}

#[test]
fn a_client_that_waits_to_continue_is_told_by_the_backend_and_one_that_does_not_is_not_held_up() {
    let head = "POST /continue HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    for (speaks, site, _backend) in sites() {
        // One that waits.
        let mut connection = site.connect();
        connection.send(head.as_bytes()).expect("open");
        assert_eq!(connection.read_answer().expect("an interim answer").status, 100, "{speaks:?}");
        assert_eq!(connection.request("body").expect("an answer").text(), "4");
        // One that sends at once, on the same connection.
        connection.send(format!("{head}body").as_bytes()).expect("open");
        assert_eq!(connection.read_answer().expect("an interim answer").status, 100);
        assert_eq!(connection.read_answer().expect("an answer").text(), "4");
        over_http2(site.port, async |mut client| {
            let request = Request::post("http://a/continue").header("expect", "100-continue");
            let (mut answer, mut up) =
                client.send_request(request.body(()).expect("a request"), false).expect("open");
            let interim = poll_fn(|cx| answer.poll_informational(cx)).await.expect("one").expect("one");
            assert_eq!(interim.status(), 100, "{speaks:?}");
            up.send_data(Bytes::from_static(b"body"), true).expect("open");
            let mut body = answer.await.expect("an answer").into_body();
            assert_eq!(read(&mut body).await, b"4");
        });
    }
}

#[test]
fn a_final_answer_at_once_reaches_whoever_waits_to_continue_and_ends_what_may_follow() {
    for (speaks, site, _backend) in sites() {
        let head = "POST /final HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
        // Whether the body comes after that answer nobody knows: the connection ends, and no body is taken for a request.
        for late in ["", "GET "] {
            let mut connection = site.connect();
            let answer = connection.request(head).expect("an answer");
            assert_eq!((answer.status, answer.closes()), (401, true), "{speaks:?}");
            let _ = connection.send(late.as_bytes());
            connection.read_end().expect("an end");
        }
        over_http2(site.port, async |mut client| {
            let request = Request::post("http://a/final").header("expect", "100-continue");
            let (answer, _up) =
                client.send_request(request.body(()).expect("a request"), false).expect("open");
            assert_eq!(answer.await.expect("an answer").status(), 401);
            let (answer, _) = client
                .send_request(Request::get("http://a/").body(()).expect("a request"), true)
                .expect("open");
            assert_eq!(answer.await.expect("the connection goes on").status(), 200);
        });
    }
}

#[test]
fn a_hedge_never_keeps_a_client_waiting_that_waits_to_continue() {
    let backend = http1();
    let site = Site::before(&[backend.port], Speaks::Http1, &["retry: { hedgeAfter: 50ms }"]);
    let mut connection = site.connect();
    connection
        .send(b"PUT /continue HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        .expect("open");
    assert_eq!(connection.read_answer().expect("an interim answer").status, 100);
    assert_eq!(connection.request("body").expect("an answer").text(), "4");
}

#[test]
fn an_expectation_that_nobody_knows_is_417_and_reaches_no_backend() {
    let (say, asked) = mpsc::channel();
    let backend = Scripted::start(move |_, exchange| {
        while let Some(head) = exchange.read_head() {
            say.send(head).expect("the test listens");
            exchange.write(OK);
        }
    });
    let site = Site::before(&[backend.port], Speaks::Http1, &[]);
    for expect in ["200-ok", "100-continue, other", "100-continue\r\nExpect: other"] {
        let answer =
            site.connect().request(&format!("GET / HTTP/1.1\r\nHost: a\r\nExpect: {expect}\r\n\r\n"));
        let answer = answer.expect("an answer");
        assert_eq!(
            (answer.status, answer.header("x-weir-reason")),
            (417, Some("expectation_failed")),
            "{expect}"
        );
    }
    assert!(asked.try_recv().is_err());
    let answer = site.connect().request("GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\n\r\n");
    assert_eq!(answer.expect("an answer").status, 200);
    assert!(asked.recv_timeout(GENEROUS).expect("asked").contains("expect: 100-Continue\r\n"));
}

#[test]
fn head_and_options_of_the_server_itself_cross_versions() {
    let http2 = Backend::start(Announces::Nothing);
    let site = Site::before(&[http2.port], Speaks::Http2, &[]);
    let mut stream = site.connect().into_stream();
    for (request, target) in [("OPTIONS *", "*"), ("HEAD /x", "/x")] {
        use std::io::Write as _;
        stream.write_all(format!("{request} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).expect("kept");
        let (method, _, asked, _) = http2.asked();
        assert_eq!((format!("{method} {asked}"), asked.as_str()), (request.to_owned(), target));
        let end = if method == "HEAD" { "\r\n\r\n" } else { "0\r\nx-sum: 4\r\n\r\n" };
        assert!(read_to(&stream, end).starts_with("HTTP/1.1 200 OK\r\n"));
    }
    let (say, asked) = mpsc::channel();
    let http1 = Scripted::start(move |_, exchange| {
        while let Some(head) = exchange.read_head() {
            say.send(head.split("\r\n").next().expect("a line").to_owned()).expect("the test listens");
            exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n");
        }
    });
    let site = Site::before(&[http1.port], Speaks::Http1, &[]);
    over_http2(site.port, async |mut client| {
        for _ in 0..2 {
            let request = Request::head("http://a/x").body(()).expect("a request");
            let (answer, _) = client.send_request(request, true).expect("open");
            let (head, body) = answer.await.expect("an answer").into_parts();
            assert_eq!((&head.headers["content-length"], body.is_end_stream()), (&5000.into(), true));
            assert_eq!(asked.recv_timeout(GENEROUS).expect("asked"), "HEAD /x HTTP/1.1");
        }
        let itself = Uri::builder().scheme("http").authority("a").path_and_query("*").build();
        let request = Request::builder().method(Method::OPTIONS).uri(itself.expect("a target"));
        let request = request.body(()).expect("a request");
        let (answer, _) = client.send_request(request, true).expect("open");
        assert_eq!(answer.await.expect("an answer").status(), 200);
        assert_eq!(asked.recv_timeout(GENEROUS).expect("asked"), "OPTIONS * HTTP/1.1");
    });
}

#[test]
fn each_event_of_a_stream_arrives_before_the_next_is_sent() {
    let (go, gone) = mpsc::channel::<()>();
    let gone = std::sync::Mutex::new(gone);
    let backend = Scripted::start(move |_, exchange| {
        let gone = gone.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        exchange.read_head();
        exchange
            .write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n\r\n");
        for number in 0..5 {
            exchange.write(&format!("data: {number}\n\n"));
            if gone.recv().is_err() {
                return;
            }
        }
    });
    let site = Site::before(&[backend.port], Speaks::Http1, &[]);
    let mut connection = site.connect();
    connection.send(b"GET / HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n").expect("open");
    let stream = connection.into_stream();
    for number in 0..5 {
        let _ = read_to(&stream, &format!("data: {number}\n\n\r\n"));
        go.send(()).expect("the backend waits");
    }
    over_http2(site.port, async |mut client| {
        let request = Request::get("http://a/").body(()).expect("a request");
        let (answer, _) = client.send_request(request, true).expect("open");
        let mut body = answer.await.expect("a head").into_body();
        for number in 0..5 {
            let event = body.data().await.expect("an event").expect("an event");
            assert_eq!(event, format!("data: {number}\n\n"));
            go.send(()).expect("the backend waits");
        }
        assert!(ends(&mut body).await);
    });
}

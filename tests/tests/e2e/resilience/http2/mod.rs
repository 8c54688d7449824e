//! Backends that speak HTTP/2.

mod backend;
mod unread;

use super::load::{End, Load, mixed};
use super::{Site, pool, told};
use crate::http2_client::over_http2;
use backend::Backend;
use bytes::Bytes;
use http::{HeaderMap, Request};
use weir_tests::harness::client::{Connection, read_to};
use weir_tests::harness::wait;

/// A site before this backend.
fn site(backend: &Backend, spec: &[&str]) -> Site {
    let mut pool = pool(&[backend.port], spec);
    pool.set = vec!["protocol: HTTP2".to_owned()];
    Site::start(&pool)
}

fn begin(site: &Site, path: &str) -> Connection {
    let mut connection = site.connect();
    connection.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).expect("open");
    connection
}

#[test]
fn connections_are_opened_for_streams_that_one_may_not_have() {
    let backend = Backend::start();
    let site = site(&backend, &["connectionPool: { maxStreamsPerConnection: 2 }"]);
    let sent: Vec<Connection> = (0..7).map(|_| begin(&site, "/held")).collect();
    wait::until("all should be there", || (backend.held() == 7).then_some(()));
    assert_eq!(backend.streams_most(), 2);
    let connections = backend.connections().now();
    assert!((4..=7).contains(&connections), "{connections}");
    backend.let_go();
    for mut connection in sent {
        assert_eq!(connection.read_answer().expect("an answer").text(), "done");
    }
    for _ in 0..20 {
        assert_eq!(site.get("/").status, 200);
    }
    assert_eq!(backend.connections().total(), connections, "they are kept");
}

#[test]
fn there_are_no_more_connections_of_http2_than_a_backend_may_have() {
    let backend = Backend::start();
    let bound = "connectionPool: { maxStreamsPerConnection: 2, maxPerBackend: 2 }";
    let mut pool = pool(&[backend.port], &[bound, "retry: { attempts: 0 }"]);
    pool.set = vec!["protocol: HTTP2".to_owned()];
    pool.timeouts = "connect: 300ms".to_owned();
    let site = Site::start(&pool);
    let sent: Vec<Connection> = (0..4).map(|_| begin(&site, "/held")).collect();
    wait::until("all should be there", || (backend.held() == 4).then_some(()));
    assert_eq!(told(&site.get("/")), (503, Some("connection_limit")));
    backend.let_go();
    for mut connection in sent {
        assert_eq!(connection.read_answer().expect("an answer").status, 200);
    }
    assert_eq!(site.get("/").status, 200);
    assert_eq!(backend.connections().total(), 2);
}

#[test]
fn a_backend_that_leaves_costs_no_request_and_none_is_carried_out_twice() {
    let backend = Backend::start();
    let site = site(&backend, &[]);
    let load = Load::start(site.port, &mixed(2, 100));
    for round in 1..=5 {
        load.flow(100);
        let before = backend.connections().total();
        backend.leave();
        wait::until(&format!("a new connection should be there, round {round}"), || {
            (backend.connections().total() > before).then_some(())
        });
    }
    load.flow(100);
    let (shown, executed) = (load.stop(), backend.executed());
    for request in &shown {
        assert_eq!((&request.end, executed.get(&request.id)), (&End::Good, Some(&1)), "{request:?}");
    }
}

#[test]
fn a_post_whose_stream_is_refused_is_sent_again_and_carried_out_once() {
    let backend = Backend::start();
    let site = site(&backend, &[]);
    for id in ["first", "second", "third"] {
        backend.refuse_one();
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\nx-id: {id}\r\nContent-Length: 4\r\n\r\nbody");
        assert_eq!(site.connect().request(&request).expect("an answer").text(), "done");
        assert!(backend.has_refused());
        assert_eq!(backend.executed().get(id), Some(&1));
    }
}

#[test]
fn a_stream_that_is_reset_without_an_answer_is_sent_again_unless_that_does_harm() {
    let backend = Backend::start();
    let site = site(&backend, &["retry: { attempts: 2, backoff: 0s }"]);
    for (method, times) in [("GET", 3), ("PUT", 3), ("POST", 1)] {
        let request =
            format!("{method} /reset HTTP/1.1\r\nHost: a\r\nx-id: {method}\r\nContent-Length: 0\r\n\r\n");
        let answer = site.connect().request(&request).expect("an answer");
        assert_eq!(told(&answer), (502, Some("backend_closed")), "{method}");
        assert_eq!(backend.executed().get(method), Some(&times), "{method}");
    }
}

#[test]
fn a_post_that_a_connection_ends_under_is_sent_once() {
    let backend = Backend::start();
    let site = site(&backend, &[]);
    for id in ["on a new connection", "on a kept one"] {
        let request = format!("POST /die HTTP/1.1\r\nHost: a\r\nx-id: {id}\r\nContent-Length: 0\r\n\r\n");
        let answer = site.connect().request(&request).expect("an answer");
        assert_eq!(told(&answer), (502, Some("backend_closed")), "{id}");
        assert_eq!(backend.executed().get(id), Some(&1));
        assert_eq!(site.get("/").status, 200);
    }
}

#[test]
fn connections_of_http2_are_warm_before_the_first_request_and_after_the_backend_left() {
    let backend = Backend::start();
    let site = site(&backend, &["connectionPool: { minWarmPerBackend: 2 }"]);
    for total in [2, 4] {
        wait::until("connections should be warm", || {
            (backend.connections().now() == 2 && backend.connections().total() == total).then_some(())
        });
        assert_eq!(site.get("/").status, 200);
        assert_eq!(backend.connections().total(), total, "the request took one of them");
        backend.leave();
    }
}

#[test]
fn bodies_and_trailers_pass_both_ways_at_once_for_a_client_of_http1() {
    use std::io::Write as _;
    let backend = Backend::start();
    let site = site(&backend, &[]);
    let mut stream = site.connect().into_stream();
    let head = "POST /echo HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(format!("{head}3\r\none\r\n").as_bytes()).expect("open");
    let answer = read_to(&stream, "one\r\n");
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.contains("content-type: application/grpc"),
        "{answer}"
    );
    stream.write_all(b"3\r\ntwo\r\n").expect("open");
    assert_eq!(read_to(&stream, "two\r\n"), "3\r\ntwo\r\n");
    stream.write_all(b"0\r\nx-sum: 6\r\n\r\n").expect("open");
    let end = read_to(&stream, "\r\n\r\n");
    assert!(end.starts_with("0\r\n") && end.contains("grpc-status: 0\r\n"), "{end}");
    assert!(end.contains("x-sum: 6\r\n"), "{end}");
}

fn call(path: &str) -> Request<()> {
    let request = Request::post(format!("http://a{path}")).header("te", "trailers");
    request.header("content-type", "application/grpc").body(()).expect("a request")
}

#[test]
fn a_unary_call_and_one_in_both_directions_pass_whole_for_a_client_of_http2() {
    let backend = Backend::start();
    let site = site(&backend, &[]);
    over_http2(site.port, async |mut client| {
        // Unary: one message up, one down, the status in the trailers.
        let (answer, mut up) = client.send_request(call("/echo"), false).expect("open");
        up.send_data(Bytes::from_static(b"question"), true).expect("open");
        let answer = answer.await.expect("an answer");
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["content-type"] == "application/grpc"),
            (200, true)
        );
        let mut down = answer.into_body();
        assert_eq!(&down.data().await.expect("a message").expect("whole")[..], b"question");
        assert!(down.data().await.is_none());
        let trailers = down.trailers().await.expect("whole").expect("trailers");
        assert_eq!(trailers["grpc-status"], "0");
        // Both ways: each message is answered before the next is sent.
        let (answer, mut up) = client.send_request(call("/echo"), false).expect("open");
        up.send_data(Bytes::from_static(b"message 0"), false).expect("open");
        let mut down = answer.await.expect("an answer before the request has ended").into_body();
        for number in 1..=20 {
            let echo = down.data().await.expect("a message").expect("whole");
            assert_eq!(echo, format!("message {}", number - 1));
            let _ = down.flow_control().release_capacity(echo.len());
            up.send_data(Bytes::from(format!("message {number}")), false).expect("open");
        }
        assert_eq!(&down.data().await.expect("a message").expect("whole")[..], b"message 20");
        up.send_trailers(HeaderMap::from_iter([("x-sum".parse().expect("a name"), 21.into())]))
            .expect("open");
        assert!(down.data().await.is_none());
        let trailers = down.trailers().await.expect("whole").expect("trailers");
        assert_eq!((&trailers["grpc-status"], &trailers["x-sum"]), (&0.into(), &21.into()));
    });
    assert_eq!(backend.connections().total(), 1, "both went over one");
}

#[test]
fn a_stream_that_the_backend_resets_breaks_off_for_clients_of_both_versions() {
    let backend = Backend::start();
    let site = site(&backend, &[]);
    let mut connection = begin(&site, "/cut");
    let head = connection.read_head().expect("a head");
    assert_eq!(head.status, 200);
    over_http2(site.port, async |mut client| {
        let (answer, _) = client.send_request(call("/cut"), true).expect("open");
        let mut body = answer.await.expect("a head").into_body();
        assert_eq!(&body.data().await.expect("some").expect("some")[..], b"part");
        backend.let_go();
        let rest = body.data().await.expect("no end");
        assert!(rest.as_ref().is_err_and(h2::Error::is_reset), "{rest:?}");
        // The connection goes on.
        let (answer, _) = client.send_request(call("/"), true).expect("open");
        assert_eq!(answer.await.expect("an answer").status(), 200);
    });
    connection.read_rest(head).expect_err("a part must not pass for the whole");
    assert_eq!(backend.connections().total(), 1, "the others on it are not touched");
}

#[test]
fn a_websocket_is_not_for_backends_of_http2() {
    let backend = Backend::start();
    let site = site(&backend, &[]);
    let answer = site.connect().request(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    assert_eq!(told(&answer.expect("an answer")), (501, Some("upgrade_unsupported")));
    assert_eq!(site.get("/").status, 200);
}

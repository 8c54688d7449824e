//! WebSockets from clients of both versions of HTTP to backends of both.

use super::streams::{Announces, Backend, Event, Pipe, ends};
use super::{BOTH, Site, Speaks, until};
use crate::http2_client::over_http2;
use bytes::Bytes;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc;
use tungstenite::handshake::derive_accept_key;
use tungstenite::{Message, WebSocket};
use weir_tests::harness::client::{Connection, read_to};
use weir_tests::harness::manifest::PoolText;
use weir_tests::harness::ports;
use weir_tests::harness::scripted::{Exchange, Scripted};
use weir_tests::harness::services::Samples;
use weir_tests::harness::wait::{self, GENEROUS};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const PROOF: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

fn upgrade(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: chat\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    )
}

fn agreed(proof: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {proof}\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
    )
}

/// A backend of HTTP/1.1 that agrees and says back what comes, until its end. It tells of each head.
fn echo() -> (Scripted, mpsc::Receiver<String>) {
    let (say, heads) = mpsc::channel();
    let backend = Scripted::start(move |_, exchange| {
        let Some(head) = exchange.read_head() else { return };
        let key = head.split("\r\n").find_map(|line| line.strip_prefix("sec-websocket-key: "));
        let proof = derive_accept_key(key.expect("a key").as_bytes());
        say.send(head.clone()).expect("the test listens");
        exchange.write(&agreed(&proof));
        exchange.echo();
    });
    (backend, heads)
}

fn open(site: &Site, path: &str) -> (String, TcpStream) {
    let mut stream = site.connect().into_stream();
    stream.write_all(upgrade(path).as_bytes()).expect("open");
    (read_to(&stream, "\r\n\r\n"), stream)
}

#[test]
fn a_websocket_over_http2_reaches_a_backend_of_http1_as_an_upgrade() {
    let (backend, heads) = echo();
    let site = Site::before(&[backend.port], Speaks::Http1, &[]);
    over_http2(site.port, async |mut client| {
        let fields = [("sec-websocket-protocol", "chat"), ("sec-websocket-key", "mine"), ("cookie", "a=b")];
        let (status, headers, mut pipe) = Pipe::ask(&mut client, "/room?x=1", "websocket", &fields).await;
        assert_eq!(status, 200);
        assert_eq!(headers["sec-websocket-protocol"], "chat");
        for name in ["sec-websocket-accept", "connection", "upgrade", "content-length"] {
            assert!(!headers.contains_key(name), "{headers:?}");
        }
        let head = heads.recv_timeout(GENEROUS).expect("the backend is asked");
        assert!(head.starts_with("GET /room?x=1 HTTP/1.1\r\nhost: a\r\n"), "{head}");
        for line in ["connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13", "cookie: a=b"]
        {
            assert!(head.contains(&format!("\r\n{line}\r\n")), "{head}");
        }
        assert!(
            !head.contains("mine") && !head.contains("content-length") && !head.contains("chunked"),
            "{head}"
        );
        pipe.write(b"ping");
        assert_eq!(pipe.read(4).await, b"ping");
        assert_eq!(site.weir.metric("weir_tunnels_open"), 1);
        // A second one on the same connection has a key of its own.
        let (_, mut other) = Pipe::open(&mut client, "/room").await;
        let again = heads.recv_timeout(GENEROUS).expect("the backend is asked");
        let key = |head: &str| head.split("sec-websocket-key: ").nth(1).map(|rest| rest[..24].to_owned());
        assert_ne!(key(&head), key(&again));
        other.write(b"other");
        assert_eq!(other.read(5).await, b"other");
        // The end of one side is passed on, and what comes back still arrives.
        pipe.up.send_data(Bytes::from_static(b"last"), true).expect("open");
        assert_eq!(pipe.read(4).await, b"last");
        assert!(ends(&mut pipe.down).await, "an end, not a reset");
        // A reset ends the backend's connection.
        other.up.send_reset(h2::Reason::CANCEL);
        until(|| (site.weir.metric("weir_tunnels_open") == 0).then_some(())).await;
        assert_eq!(site.weir.metric("weir_tunnels_opened_total"), 2);
    });
}

#[test]
fn a_websocket_over_http1_reaches_a_backend_of_http2_as_an_extended_connect() {
    let backend = Backend::start(Announces::WebSocket);
    let site = Site::before(&[backend.port], Speaks::Http2, &[]);
    let (answer, mut stream) = open(&site, "/ws?x=1");
    assert!(answer.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{answer}");
    for line in ["connection: upgrade", "upgrade: websocket", &format!("sec-websocket-accept: {PROOF}")] {
        assert!(answer.contains(&format!("{line}\r\n")), "{answer}");
    }
    let (method, protocol, target, headers) = backend.asked();
    assert_eq!(
        (method.as_str(), protocol.as_deref(), target.as_str()),
        ("CONNECT", Some("websocket"), "/ws?x=1")
    );
    assert_eq!(
        (&headers["sec-websocket-version"], &headers["sec-websocket-protocol"]),
        (&13.into(), &"chat".parse().expect("a value"))
    );
    for name in ["sec-websocket-key", "connection", "upgrade", "content-length"] {
        assert!(!headers.contains_key(name), "{headers:?}");
    }
    stream.write_all(b"ping").expect("open");
    assert_eq!(read_to(&stream, "ping"), "ping");
    // More than any window or buffer on the way holds.
    let large = vec![b'x'; 3 << 20];
    let writing = {
        let (mut stream, large) = (stream.try_clone().expect("a socket"), large.clone());
        std::thread::spawn(move || {
            stream.write_all(&large).expect("open");
            stream.shutdown(Shutdown::Write).expect("open");
        })
    };
    let mut back = Vec::new();
    stream.read_to_end(&mut back).expect("an end, and no reset");
    writing.join().expect("all is sent");
    assert!(back == large, "{} bytes of {}", back.len(), large.len());
    wait::until("the stream should have ended", || (backend.streams.now() == 0).then_some(()));
    // What is kept carries the next one.
    let (answer, _stream) = open(&site, "/ws");
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert_eq!(site.weir.metric("weir_upstream_connects_total"), 1);
}

#[test]
fn a_websocket_over_http2_stays_one_to_a_backend_of_http2() {
    let backend = Backend::start(Announces::WebSocket);
    let site = Site::before(&[backend.port], Speaks::Http2, &[]);
    over_http2(site.port, async |mut client| {
        let (headers, mut pipe) = Pipe::open(&mut client, "/ws").await;
        assert!(!headers.contains_key("sec-websocket-accept"), "{headers:?}");
        pipe.write(b"ping");
        assert_eq!(pipe.read(4).await, b"ping");
        pipe.up.send_data(Bytes::new(), true).expect("open");
        assert!(ends(&mut pipe.down).await);
        // A reset passes through in both directions, and the connection goes on.
        let (_, pipe) = Pipe::open(&mut client, "/ws").await;
        let Pipe { mut up, .. } = pipe;
        up.send_reset(h2::Reason::CANCEL);
        let reset = until(|| match backend.events.try_recv() {
            Ok(Event::Reset(reason)) => Some(reason),
            _ => None,
        });
        assert_eq!(reset.await, h2::Reason::CANCEL);
        let (_, mut pipe) = Pipe::open(&mut client, "/ws-cut").await;
        pipe.write(b"x");
        let end = pipe.down.data().await.expect("no clean end");
        assert!(end.as_ref().is_err_and(h2::Error::is_reset), "{end:?}");
        let (_, mut pipe) = Pipe::open(&mut client, "/ws").await;
        pipe.write(b"on");
        assert_eq!(pipe.read(2).await, b"on");
    });
}

#[test]
fn a_backend_of_http2_that_announces_nothing_is_asked_for_no_websocket() {
    let plain = Backend::start(Announces::Nothing);
    let site = Site::before(&[plain.port], Speaks::Http2, &[]);
    let answer = site.connect().request(&upgrade("/ws")).expect("an answer");
    assert_eq!((answer.status, answer.header("x-weir-reason")), (501, Some("upgrade_unsupported")));
    over_http2(site.port, async |mut client| {
        let (status, headers, _) = Pipe::ask(&mut client, "/ws", "websocket", &[]).await;
        assert_eq!(
            (status.as_u16(), &headers["x-weir-reason"]),
            (501, &"upgrade_unsupported".parse().expect("a value"))
        );
    });
    assert_eq!(plain.streams.total(), 0, "no stream was opened");
    // Where another backend takes it, it goes there.
    let good = Backend::start(Announces::WebSocket);
    let site = Site::before(&[plain.port, good.port], Speaks::Http2, &[]);
    for _ in 0..4 {
        let (answer, _stream) = open(&site, "/ws");
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    }
}

#[test]
fn other_protocols_and_plain_connects_are_refused_with_a_sentence() {
    let backend = Backend::start(Announces::WebSocket);
    let site = Site::before(&[backend.port], Speaks::Http2, &[]);
    over_http2(site.port, async |mut client| {
        let (status, headers, mut pipe) = Pipe::ask(&mut client, "/", "connect-udp", &[]).await;
        assert_eq!(
            (status.as_u16(), &headers["x-weir-reason"]),
            (501, &"protocol_unsupported".parse().expect("a value"))
        );
        let body = super::streams::read(&mut pipe.down).await;
        assert!(String::from_utf8_lossy(&body).contains("websocket"), "{body:?}");
        let request = http::Request::connect("a:80").body(()).expect("a request");
        let (answer, _) = client.send_request(request, true).expect("open");
        assert_eq!(answer.await.expect("an answer").status(), 405);
    });
    assert_eq!(backend.streams.total(), 0);
}

#[test]
fn an_answer_that_is_no_yes_is_passed_on_as_it_is() {
    for speaks in BOTH {
        let http2 = Backend::start(Announces::WebSocket);
        let http1 = Scripted::start(|_, exchange| {
            exchange.read_head();
            exchange.write("HTTP/1.1 403 Forbidden\r\nContent-Length: 7\r\n\r\nnot you");
        });
        let port = if speaks == Speaks::Http1 { http1.port } else { http2.port };
        let site = Site::before(&[port], speaks, &[]);
        let answer = site.connect().request(&upgrade("/no")).expect("an answer");
        assert_eq!((answer.status, answer.text().as_str()), (403, "not you"), "{speaks:?}");
        over_http2(site.port, async |mut client| {
            let (status, _, mut pipe) = Pipe::ask(&mut client, "/no", "websocket", &[]).await;
            assert_eq!(status, 403, "{speaks:?}");
            assert_eq!(pipe.read(7).await, b"not you");
        });
        assert_eq!(site.weir.metric("weir_tunnels_opened_total"), 0);
    }
}

#[test]
fn a_yes_that_proves_nothing_is_a_failure() {
    let switching =
        |fields: &str| format!("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n{fields}\r\n");
    for answer in [
        switching("Upgrade: websocket\r\n"),
        switching(&format!("Upgrade: websocket\r\nSec-WebSocket-Accept: {PROOF}\r\n")),
        switching("Upgrade: h2c\r\n"),
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_owned(),
    ] {
        let backend = Scripted::start(move |_, exchange: &mut Exchange| {
            exchange.read_head();
            exchange.write(&answer);
            exchange.read_until("never");
        });
        let site = Site::before(&[backend.port], Speaks::Http1, &["retry: { attempts: 0 }"]);
        over_http2(site.port, async |mut client| {
            let (status, headers, _) = Pipe::ask(&mut client, "/", "websocket", &[]).await;
            assert_eq!(
                (status.as_u16(), &headers["x-weir-reason"]),
                (502, &"backend_invalid".parse().expect("a value"))
            );
        });
    }
}

#[test]
fn an_upgrade_needs_a_key_and_only_a_get_is_one() {
    let backend = Scripted::start(|_, exchange| {
        while let Some(head) = exchange.read_head() {
            assert!(!head.contains("upgrade"), "{head}");
            exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let site = Site::before(&[backend.port], Speaks::Http1, &[]);
    let keyless = upgrade("/").replace("Sec-WebSocket-Key", "X-Key");
    let answer = site.connect().request(&keyless).expect("an answer");
    assert_eq!((answer.status, answer.header("x-weir-reason")), (400, Some("bad_request")));
    let delete = upgrade("/").replace("GET", "DELETE");
    assert_eq!(site.connect().request(&delete).expect("an answer").text(), "ok");
}

#[test]
fn frames_of_real_clients_pass_whole_whatever_their_size() {
    let samples = Samples::start("echo", 1);
    let site = Site::before(&samples.ports, Speaks::Http1, &[]);
    let stream = Connection::open(site.port).expect("serves").into_stream();
    let (mut socket, _): (WebSocket<TcpStream>, _) =
        tungstenite::client("ws://localhost/", stream).expect("an upgrade");
    for length in [0, 1, 125, 126, 127, 65_535, 65_536, 500_000] {
        for message in [Message::text("t".repeat(length)), Message::binary(vec![7; length])] {
            socket.send(message.clone()).expect("open");
            assert_eq!(socket.read().expect("the echo"), message);
        }
    }
    socket.close(None).expect("open");
    while socket.read().is_ok() {}
    // The same frames over HTTP/2, written by hand: text, final, masked with zeros.
    over_http2(site.port, async |mut client| {
        let (_, mut pipe) = Pipe::open(&mut client, "/").await;
        for text in ["hello", "again"] {
            pipe.write(&[&[0x81, 0x85, 0, 0, 0, 0], text.as_bytes()].concat());
            assert_eq!(pipe.read(7).await, [&[0x81, 5], text.as_bytes()].concat());
        }
    });
}

#[test]
fn a_dead_backend_costs_no_websocket_and_a_silent_one_outlives_every_time_limit() {
    let backend = Scripted::start(|_, exchange| {
        let Some(head) = exchange.read_head() else { return };
        if !head.contains("upgrade: websocket") {
            exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n");
            exchange.read_until("never");
            return;
        }
        let key = head.split("\r\n").find_map(|line| line.strip_prefix("sec-websocket-key: "));
        exchange.write(&agreed(&derive_accept_key(key.expect("a key").as_bytes())));
        exchange.echo();
    });
    let mut pool = PoolText::new("quiet", ports::free(), &[(ports::free(), 1), (backend.port, 1)]);
    pool.request_timeout = "300ms".to_owned();
    pool.timeouts = "idle: 1s, total: 1s".to_owned();
    let site = Site::of(&pool);
    over_http2(site.port, async |mut client| {
        let mut open = Vec::new();
        for _ in 0..4 {
            open.push(Pipe::open(&mut client, "/").await.1);
        }
        let (answer, mut stream) = self::open(&site, "/");
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        // A response that is as silent, and began later, is cut by all three limits.
        site.connect().get("/").expect_err("it stands still");
        for pipe in &mut open {
            pipe.write(b"still");
            assert_eq!(pipe.read(5).await, b"still");
        }
        stream.write_all(b"still").expect("open");
        assert_eq!(read_to(&stream, "still"), "still");
    });
}

#[test]
fn a_websocket_holds_its_slot_and_its_session_over_http2_too() {
    let samples = Samples::start("home", 3);
    let site = Site::before(&samples.ports, Speaks::Http1, &["sessionPersistence: { type: Cookie }"]);
    over_http2(site.port, async |mut client| {
        let (headers, _first) = Pipe::open(&mut client, "/").await;
        let cookie =
            headers["set-cookie"].to_str().expect("text").split(';').next().expect("a pair").to_owned();
        // Requests of its session go where the WebSocket is, and so do more WebSockets.
        let before: Vec<u64> = site.weir.backends().values().map(|view| view.requests).collect();
        for _ in 0..6 {
            let (status, headers, _pipe) =
                Pipe::ask(&mut client, "/", "websocket", &[("cookie", &cookie)]).await;
            assert_eq!((status.as_u16(), headers.contains_key("set-cookie")), (200, false));
        }
        let after = site.weir.backends();
        let grown = after.values().zip(&before).filter(|(view, before)| view.requests > **before).count();
        assert_eq!(grown, 1, "{after:?}");
    });
    let one = Samples::start("one", 1);
    let bound = "concurrency: { maxRequestsPerBackend: 1 }";
    let site = Site::before(&one.ports, Speaks::Http1, &[bound]);
    over_http2(site.port, async |mut client| {
        let (_, mut pipe) = Pipe::open(&mut client, "/").await;
        let answer = site.connect().get("/").expect("an answer");
        assert_eq!((answer.status, answer.header("x-weir-reason")), (503, Some("queue_full")));
        pipe.up.send_reset(h2::Reason::CANCEL);
        until(|| (site.connect().get("/").ok()?.status == 200).then_some(())).await;
    });
}

#[test]
fn a_websocket_over_http2_goes_on_through_a_drain_and_the_process_ends_with_it() {
    let (backend, _heads) = echo();
    let site = Site::before(&[backend.port], Speaks::Http1, &[]);
    over_http2(site.port, async |mut client| {
        let (_, mut pipe) = Pipe::open(&mut client, "/").await;
        site.weir.process.terminate();
        // GOAWAY: no new stream begins, and the one that is open goes on.
        let refused = async {
            loop {
                // Weir answers it. Its answer is waited for: a stream that is dropped is reset, and many are a flood.
                let request = http::Request::get("http://a/").header("expect", "nothing");
                match client.send_request(request.body(()).expect("a request"), true) {
                    Ok((answer, _)) => drop(answer.await),
                    Err(_) => return,
                }
            }
        };
        tokio::time::timeout(GENEROUS, refused).await.expect("a GOAWAY");
        pipe.write(b"still");
        assert_eq!(pipe.read(5).await, b"still");
        pipe.up.send_data(Bytes::new(), true).expect("open");
        assert!(ends(&mut pipe.down).await);
    });
    let ended = site.weir.process.wait();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
}

//! Probes of real servers in this process, and of listeners that misbehave.

mod servers;

use super::*;
use lb_core::health::{ActiveSettings, BODY_BYTES_MAX, HttpCheck, StatusRange, TEXT_BYTES_MAX};
use servers::*;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

/// Far more than a probe of this machine takes.
const GENEROUS: Duration = Duration::from_secs(30);
/// For what is to time out.
const SHORT: Duration = Duration::from_millis(100);

/// `None` is a pass.
async fn reason(address: SocketAddr, settings: ActiveSettings) -> Option<Reason> {
    let (begin, limit) = (Instant::now(), settings.timeout);
    let key = TargetKey::new(address, settings.validate().expect("valid settings"));
    let outcome = timeout(2 * GENEROUS, probe(&key, &ProbeTls::new())).await.expect("a probe ends by itself");
    match outcome {
        Outcome::Pass { latency } => {
            assert!(latency <= begin.elapsed() && latency <= limit);
            None
        }
        Outcome::Fail { reason } => {
            assert!(reason != Reason::TimedOut || begin.elapsed() >= limit);
            Some(reason)
        }
    }
}

fn settings(kind: Kind) -> ActiveSettings {
    ActiveSettings { kind, timeout: GENEROUS, ..ActiveSettings::default() }
}

fn secured(kind: Kind) -> ActiveSettings {
    ActiveSettings {
        tls_profile: Some(lb_core::backend::TlsProfile::new(1, std::sync::Arc::new(()))),
        ..settings(kind)
    }
}

fn http(change: impl FnOnce(&mut HttpCheck)) -> Kind {
    let mut check = HttpCheck::default();
    change(&mut check);
    Kind::Http(check)
}

fn http1() -> Kind {
    http(|_| ())
}

fn http2() -> Kind {
    http(|check| check.version = HttpVersion::Http2)
}

fn body(text: &str) -> Kind {
    http(|check| check.body_contains = Some(text.into()))
}

fn grpc(service: &str) -> Kind {
    Kind::Grpc { service: service.into() }
}

fn every_kind() -> [ActiveSettings; 7] {
    let plain = [Kind::Tcp, Kind::Tls, http1(), http2(), grpc("")].map(settings);
    let [tcp, tls, http1, http2, grpc] = plain;
    [tcp, tls, http1.clone(), http2, grpc.clone(), secured(http1.kind), secured(grpc.kind)]
}

fn all_but_tcp() -> impl Iterator<Item = ActiveSettings> {
    every_kind().into_iter().filter(|settings| settings.kind != Kind::Tcp)
}

#[tokio::test]
async fn what_answers_as_expected_passes() {
    let (http1_server, http2_server) = (http1_server().await, http2_server().await);
    let (tls_server, grpc_server) = (tls_server().await, grpc_server().await);
    for (address, settings) in [
        (http1_server, settings(Kind::Tcp)),
        (http1_server, settings(http1())),
        (http1_server, settings(http(|check| check.method = "HEAD".into()))),
        (http1_server, settings(http(|check| check.method = "POST".into()))),
        (http2_server, settings(http2())),
        (tls_server, settings(Kind::Tls)),
        (tls_server, secured(http1())),
        (tls_server, secured(http2())),
        (grpc_server, settings(grpc(""))),
        (grpc_server, settings(grpc("blog"))),
    ] {
        let case = format!("{settings:?}");
        assert_eq!(reason(address, settings).await, None, "{case}");
    }
}

#[tokio::test]
async fn whoever_refuses_or_cannot_be_reached_is_told_apart() {
    // Bound and not listening: nobody else can have the port, and a connection is refused.
    let bound = TcpSocket::new_v4().expect("a socket");
    bound.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let refuses = bound.local_addr().expect("bound");
    // No TCP connection goes to everybody.
    let broadcast = "255.255.255.255:80".parse().expect("an address");
    for settings in every_kind() {
        assert_eq!(reason(refuses, settings.clone()).await, Some(Reason::Refused), "{settings:?}");
        assert_eq!(reason(broadcast, settings.clone()).await, Some(Reason::Unreachable), "{settings:?}");
    }
}

#[tokio::test]
async fn a_frozen_backend_times_out_and_keeps_no_connection() {
    for settings in every_kind() {
        // The system accepts for it.
        let listener = listener().await;
        let address = listener.local_addr().expect("bound");
        let settings = match settings.kind {
            Kind::Tcp => settings,
            Kind::Tls | Kind::Http(_) | Kind::Grpc { .. } => ActiveSettings { timeout: SHORT, ..settings },
        };
        let expected = (settings.kind != Kind::Tcp).then_some(Reason::TimedOut);
        assert_eq!(reason(address, settings.clone()).await, expected, "{settings:?}");
        let (mut socket, _) = listener.accept().await.expect("the probe's connection");
        let ended = timeout(GENEROUS, socket.read_to_end(&mut Vec::new())).await;
        assert!(ended.is_ok(), "{settings:?}");
    }
}

#[tokio::test]
async fn a_backend_that_takes_the_request_and_says_nothing_times_out() {
    for settings in all_but_tcp().map(|settings| ActiveSettings { timeout: SHORT, ..settings }) {
        let address = raw("", Then::Hold).await;
        assert_eq!(reason(address, settings.clone()).await, Some(Reason::TimedOut), "{settings:?}");
    }
    // One whose head came and whose body does not.
    let stalls = raw("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nready", Then::Hold).await;
    assert_eq!(reason(stalls, settings(body("ready"))).await, None);
    assert_eq!(
        reason(stalls, ActiveSettings { timeout: SHORT, ..settings(body("steady")) }).await,
        Some(Reason::TimedOut)
    );
    assert_eq!(reason(stalls, settings(http1())).await, None);
}

#[tokio::test]
async fn a_connection_that_closes_before_the_answer_is_closed() {
    for settings in all_but_tcp() {
        let address = raw("", Then::Close).await;
        assert_eq!(reason(address, settings.clone()).await, Some(Reason::Closed), "{settings:?}");
        // At once, with the request unread.
        let listener = listener().await;
        let address = listener.local_addr().expect("bound");
        let server = tokio::spawn(async move { while listener.accept().await.is_ok() {} });
        assert_eq!(reason(address, settings.clone()).await, Some(Reason::Closed), "{settings:?}");
        server.abort();
    }
    for part in ["HTTP/1.1 200", "HTTP/1.1 200 OK\r\ncontent-le", "HTTP/1.1 103 Early\r\n\r\n"] {
        let address = raw(part, Then::Close).await;
        assert_eq!(reason(address, settings(http1())).await, Some(Reason::Closed), "{part}");
    }
    for (name, answer) in [
        ("GOAWAY", frames(&[SETTINGS, (7, 0, &[0; 8])])),
        ("RST_STREAM", frames(&[SETTINGS, (3, 1, &[0, 0, 0, 7])])),
        ("a cut after an interim head", frames(&[SETTINGS, EARLY_HINTS])),
    ] {
        let address = raw(answer, Then::Close).await;
        assert_eq!(reason(address, settings(http2())).await, Some(Reason::Closed), "{name}");
        assert_eq!(reason(address, settings(grpc(""))).await, Some(Reason::Closed), "{name}");
    }
    let cut = raw(frames(&[SETTINGS, OK]), Then::Close).await;
    assert_eq!(reason(cut, settings(http2())).await, None);
    assert_eq!(reason(cut, settings(grpc(""))).await, Some(Reason::Closed));
    let cut = raw("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nready", Then::Close).await;
    assert_eq!(reason(cut, settings(body("steady"))).await, Some(Reason::Closed));
}

#[tokio::test]
async fn a_connection_is_closed_with_a_goodbye() {
    let (plain, secure) = (listener().await, tls_acceptor());
    let address = plain.local_addr().expect("bound");
    let server = tokio::spawn(async move {
        let (mut socket, _) = plain.accept().await.expect("a probe");
        let first = socket.read(&mut [0; 1]).await;
        let (socket, _) = plain.accept().await.expect("a probe");
        // Without close_notify this would be an error.
        let second = secure.accept(socket).await.expect("a handshake").read(&mut [0; 1]).await;
        (first.expect("an end"), second.expect("an end"))
    });
    assert_eq!(reason(address, settings(Kind::Tcp)).await, None);
    assert_eq!(reason(address, settings(Kind::Tls)).await, None);
    let ends = timeout(GENEROUS, server).await.expect("both ended").expect("no panic");
    assert_eq!(ends, (0, 0));
}

#[tokio::test]
async fn bytes_that_are_no_answer_break_the_protocol() {
    let (http1, http2, grpc) = (settings(http1()), settings(http2()), settings(grpc("")));
    let bad_request = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n";
    let endless = Then::Repeat(b"x-more: of the same\r\n");
    let interim = Then::Repeat(b"HTTP/1.1 103 Early Hints\r\n\r\n");
    for (name, answer, then, settings) in [
        ("garbage", "220 mail.example.com ESMTP\r\n", Then::Hold, &http1),
        ("binary garbage", "\0\u{1}\u{2}\u{3}\n\n\n", Then::Hold, &http1),
        ("HTTP/2", "\0\0\0\u{4}\0\0\0\0\0", Then::Hold, &http1),
        ("a head without end", "HTTP/1.1 200 OK\r\n", endless, &http1),
        ("a line without end", "HTTP/1.1 200 ", Then::Repeat(b"OK OK OK "), &http1),
        ("interim responses without end", "", interim, &http1),
        ("HTTP/1.1", bad_request, Then::Hold, &http2),
        ("garbage", "220 mail.example.com ESMTP\r\n", Then::Hold, &http2),
        ("HTTP/1.1", bad_request, Then::Hold, &grpc),
    ] {
        let address = raw(answer, then).await;
        let case = format!("{name} for {:?}", settings.kind);
        assert_eq!(reason(address, settings.clone()).await, Some(Reason::Protocol), "{case}");
    }
    let tls = tls_server().await;
    assert_eq!(reason(tls, http1.clone()).await, Some(Reason::Protocol));
    let pings = Then::Repeat(b"\0\0\x08\x06\x01\0\0\0\0weirweir");
    for (name, answer, then) in [
        ("pings without end", frames(&[SETTINGS]), pings),
        ("data before a head", frames(&[SETTINGS, (0, 1, b"x")]), Then::Hold),
        ("data after an interim head", frames(&[SETTINGS, EARLY_HINTS, (0, 1, b"x")]), Then::Hold),
        ("an answer to nothing", frames(&[SETTINGS, (1, 3, b"\x88")]), Then::Hold),
        ("a head that is no HPACK", frames(&[SETTINGS, (1, 1, b"\xff\xff\xff")]), Then::Hold),
    ] {
        let address = raw(answer, then).await;
        assert_eq!(reason(address, http2.clone()).await, Some(Reason::Protocol), "{name}");
        assert_eq!(reason(address, grpc.clone()).await, Some(Reason::Protocol), "{name}");
    }
    // Whoever speaks first.
    let listener = listener().await;
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        let mut greeted = Vec::new();
        while let Ok((mut socket, _)) = listener.accept().await {
            let _ = socket.write_all(b"220 mail.example.com ESMTP\r\n").await;
            greeted.push(socket);
        }
    });
    for settings in [http1, http2, grpc] {
        assert_eq!(reason(address, settings.clone()).await, Some(Reason::Protocol), "{settings:?}");
    }
}

#[tokio::test]
async fn what_speaks_no_tls_fails_the_handshake() {
    let plain = raw("HTTP/1.1 400 Bad Request\r\n\r\n", Then::Close).await;
    let endless = raw("", Then::Repeat(b"HTTP/1.1 200 OK\r\n")).await;
    // A fatal alert: handshake_failure.
    let alert = raw([21, 3, 3, 0, 2, 2, 40], Then::Close).await;
    for address in [plain, endless, alert] {
        for settings in [settings(Kind::Tls), secured(http1()), secured(http2()), secured(grpc(""))] {
            assert_eq!(reason(address, settings.clone()).await, Some(Reason::Tls), "{settings:?}");
        }
    }
}

#[tokio::test]
async fn a_tls_probe_names_the_host_where_there_is_one() {
    let address = tls_server().await;
    for (host, expected) in [
        (Some("shop.example.com:8443"), "name=shop.example.com protocol=http/1.1\n"),
        (Some("shop.example.com"), "name=shop.example.com protocol=http/1.1\n"),
        (Some("10.0.0.1"), "name=none protocol=http/1.1\n"),
        (Some("[::1]:80"), "name=none protocol=http/1.1\n"),
        (None, "name=none protocol=http/1.1\n"),
    ] {
        let check = http(|check| {
            check.host = host.map(Into::into);
            check.body_contains = Some(expected.into());
        });
        assert_eq!(reason(address, secured(check)).await, None, "{host:?}");
    }
}

#[tokio::test]
async fn a_request_is_as_the_check_says() {
    let (first, second) = (http1_server().await, http2_server().await);
    let names = format!("user-agent: weir-health/{}\n", env!("CARGO_PKG_VERSION"));
    let own: Vec<(Box<str>, Box<str>)> =
        ["X-One", "x-one", "User-Agent"].map(|name| (name.into(), name.to_lowercase().into())).into();
    for version in [HttpVersion::Http1, HttpVersion::Http2] {
        let (address, authority) = match version {
            HttpVersion::Http1 => (first, format!("host: {first}\n")),
            HttpVersion::Http2 => (second, format!("GET http://{second}/ HTTP/2.0\n")),
        };
        let line = match version {
            HttpVersion::Http1 => "PUT /a//b?c=d&e HTTP/1.1\n",
            HttpVersion::Http2 => "PUT http://shop.example.com/a//b?c=d&e HTTP/2.0\n",
        };
        let with = |text: &str, change: &dyn Fn(&mut HttpCheck)| {
            settings(http(|check| {
                check.version = version;
                check.body_contains = Some(text.into());
                change(check);
            }))
        };
        let whole = |check: &mut HttpCheck| {
            check.method = "PUT".into();
            check.path = "/a//b?c=d&e".into();
            check.host = Some("shop.example.com".into());
            check.headers.clone_from(&own);
        };
        for settings in [
            with(&names, &|_| ()),
            with(&authority, &|_| ()),
            with(line, &whole),
            with("x-one: x-one\nx-one: x-one\n", &whole),
            with("user-agent: user-agent\n", &whole),
        ] {
            assert_eq!(reason(address, settings.clone()).await, None, "{settings:?}");
        }
        assert_eq!(reason(address, with("user-agent: weir", &whole)).await, Some(Reason::Body));
    }
    assert_eq!(reason(first, settings(body("connection: close\n"))).await, None);
}

#[tokio::test]
async fn whatever_settings_allow_can_be_written() {
    let (first, second) = (http1_server().await, http2_server().await);
    for host in ["[::1]:80", "a_b.example:8080", "192.0.2.1", "-"] {
        for (address, version) in [(first, HttpVersion::Http1), (second, HttpVersion::Http2)] {
            let check = http(|check| {
                check.version = version;
                check.path = "/200?a=%zz;:@!$&'()*+,/?".into();
                check.host = Some(host.into());
            });
            assert_eq!(reason(address, settings(check)).await, None, "{host}");
        }
    }
}

#[tokio::test]
async fn a_status_counts_as_it_is_after_interim_ones() {
    let (first, second) = (http1_server().await, http2_server().await);
    let only = |first, last| move |check: &mut HttpCheck| check.expected = vec![StatusRange { first, last }];
    for (path, from, to, expected) in [
        ("/204", 204, 204, None),
        ("/301", 200, 399, None),
        ("/301", 200, 299, Some(Reason::Status(301))),
        ("/404", 404, 404, None),
        ("/200", 404, 404, Some(Reason::Status(200))),
        ("/503", 200, 399, Some(Reason::Status(503))),
    ] {
        let with = |version| {
            settings(http(|check| {
                check.version = version;
                check.path = path.into();
                only(from, to)(check);
            }))
        };
        assert_eq!(reason(first, with(HttpVersion::Http1)).await, expected, "{path}");
        assert_eq!(reason(second, with(HttpVersion::Http2)).await, expected, "{path}");
    }
    let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
    let answer = |last: &str| raw(format!("{interim}HTTP/1.1 {last}\r\n\r\n"), Then::Hold);
    assert_eq!(reason(answer("200 OK").await, settings(http1())).await, None);
    assert_eq!(reason(answer("500 No").await, settings(http1())).await, Some(Reason::Status(500)));
    let upgrade =
        raw("HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", Then::Hold).await;
    assert_eq!(reason(upgrade, settings(http1())).await, Some(Reason::Status(101)));
    // A body is not looked at where the status is wrong.
    let wrong = raw("HTTP/1.1 404 Not Found\r\ncontent-length: 9\r\n\r\nrea", Then::Hold).await;
    assert_eq!(reason(wrong, settings(body("ready"))).await, Some(Reason::Status(404)));
    let early = frames(&[SETTINGS, EARLY_HINTS, EARLY_HINTS, OK]);
    assert_eq!(reason(raw(early, Then::Hold).await, settings(http2())).await, None);
}

#[tokio::test]
async fn heads_and_bodies_are_read_to_their_limits() {
    let fill = |bytes: usize| "x".repeat(bytes);
    let head = |bytes: usize| {
        let (begin, end) = ("HTTP/1.1 200 OK\r\nx-fill: ", "\r\n\r\n");
        raw(format!("{begin}{}{end}", fill(bytes - begin.len() - end.len())), Then::Hold)
    };
    assert_eq!(reason(head(HEAD_BYTES_MAX).await, settings(http1())).await, None);
    assert_eq!(reason(head(HEAD_BYTES_MAX + 1).await, settings(http1())).await, Some(Reason::Protocol));
    let fields =
        |count: usize| raw(format!("HTTP/1.1 200 OK\r\n{}\r\n", "x-a: b\r\n".repeat(count)), Then::Hold);
    assert_eq!(reason(fields(HEADERS_MAX).await, settings(http1())).await, None);
    assert_eq!(reason(fields(HEADERS_MAX + 1).await, settings(http1())).await, Some(Reason::Protocol));
    // HTTP/2 counts otherwise; 8 of the longest fields are past it in both.
    let fields = |count: usize, version| {
        let field = ("x-fill".into(), fill(TEXT_BYTES_MAX).into());
        let check = http(|check| (check.version, check.headers) = (version, vec![field; count]));
        settings(check)
    };
    let (first, second) = (http1_server().await, http2_server().await);
    assert_eq!(reason(first, fields(7, HttpVersion::Http1)).await, None);
    assert_eq!(reason(second, fields(7, HttpVersion::Http2)).await, None);
    assert_eq!(reason(first, fields(8, HttpVersion::Http1)).await, Some(Reason::Protocol));
    assert_eq!(reason(second, fields(8, HttpVersion::Http2)).await, Some(Reason::Protocol));
    let text =
        |before: usize| raw(format!("HTTP/1.1 200 OK\r\n\r\n{}ready", fill(before)), Then::Repeat(b"x"));
    let last = BODY_BYTES_MAX - "ready".len();
    assert_eq!(reason(text(last).await, settings(body("ready"))).await, None);
    assert_eq!(reason(text(last + 1).await, settings(body("ready"))).await, Some(Reason::Body));
    // Of 1 byte each, so that the text is in no chunk as a whole.
    let chunks = |text: &str| {
        let chunks: String = text.chars().map(|letter| format!("1\r\n{letter}\r\n")).collect();
        raw(format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunks}0\r\n\r\n"), Then::Hold)
    };
    assert_eq!(reason(chunks("all is ready").await, settings(body("ready"))).await, None);
    assert_eq!(reason(chunks("all is lost").await, settings(body("ready"))).await, Some(Reason::Body));
    let empty = raw("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Then::Hold).await;
    assert_eq!(reason(empty, settings(body("ready"))).await, Some(Reason::Body));
}

#[tokio::test]
async fn a_connection_gives_so_many_bytes_and_no_more() {
    let address = raw("ready", Then::Hold).await;
    for (bytes_max, expected) in [(5, None), (6, Some(io::ErrorKind::TimedOut))] {
        let socket = TcpStream::connect(address).await.expect("connected");
        let mut bounded = Bounded::new(socket, bytes_max);
        bounded.write_all(b"?").await.expect("written");
        bounded.read_exact(&mut [0; 5]).await.expect("as many as there may be");
        let next = timeout(SHORT, bounded.read(&mut [0; 1])).await;
        let found = next.map_or(io::ErrorKind::TimedOut, |read| read.expect_err("nothing to read").kind());
        assert_eq!(found, expected.unwrap_or(io::ErrorKind::InvalidData));
    }
}

#[tokio::test]
async fn grpc_health_passes_only_where_it_is_serving() {
    let (with, without, http) =
        (grpc_server().await, grpc_server_without_health().await, http2_server().await);
    for (address, service, expected) in [
        (with, "", None),
        (with, "blog", None),
        (with, "shop", Some(Reason::NotServing)),
        (with, "new", Some(Reason::NotServing)),
        (with, "nobody", Some(Reason::NotServing)),
        (without, "", Some(Reason::NotServing)),
        (http, "", Some(Reason::NotServing)),
    ] {
        assert_eq!(reason(address, settings(grpc(service))).await, expected, "{service:?}");
    }
}

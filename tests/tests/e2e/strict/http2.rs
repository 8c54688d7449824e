//! HTTP/2 that is wrong, before a backend that speaks HTTP/1.1: what could not have come over HTTP/1.1 does not go on.

use super::Site;
use super::raw::{DATA, END_HEADERS, END_STREAM, End, HEADERS, Wire, block, frame};

/// A request in frames: fields, and what follows them.
type Fields = &'static [(&'static str, &'static str)];

const GET: Fields = &[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")];
const POST: Fields = &[(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/")];

/// What has to come of it.
#[derive(Debug, Clone, Copy)]
enum Outcome {
    /// An error of the stream, of the connection, or an answer of ours; nothing whole reaches the backend.
    Refused,
    /// This, and nothing else, reaches the backend.
    Arrives(&'static str),
}

use Outcome::{Arrives, Refused};

struct Request {
    fields: Vec<(&'static str, &'static str)>,
    data: Option<&'static [u8]>,
    trailers: Option<Fields>,
}

fn with(base: Fields, more: Fields) -> Request {
    Request { fields: [base, more].concat(), data: None, trailers: None }
}

fn only(fields: Fields) -> Request {
    with(fields, &[])
}

fn sent(more: Fields, data: &'static [u8]) -> Request {
    Request { data: Some(data), ..with(POST, more) }
}

fn trailed(trailers: Fields) -> Request {
    Request { trailers: Some(trailers), ..sent(&[], b"hello") }
}

fn path(path: &'static str) -> Request {
    Request {
        fields: vec![(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", path)],
        data: None,
        trailers: None,
    }
}

fn authority(authority: &'static str) -> Request {
    Request {
        fields: vec![(":method", "GET"), (":scheme", "http"), (":authority", authority), (":path", "/")],
        data: None,
        trailers: None,
    }
}

impl Request {
    fn bytes(&self) -> Vec<u8> {
        let last = |is_last: bool| if is_last { END_STREAM } else { 0 };
        let is_bare = self.data.is_none() && self.trailers.is_none();
        let mut bytes = frame(HEADERS, END_HEADERS | last(is_bare), 1, &block(&self.fields));
        if let Some(data) = self.data {
            bytes.extend(frame(DATA, last(self.trailers.is_none()), 1, data));
        }
        if let Some(trailers) = self.trailers {
            bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(trailers)));
        }
        bytes
    }
}

fn check(class: &str, cases: &[(Request, Outcome)]) {
    assert!(cases.len() >= 10, "{class}: {} cases", cases.len());
    let site = Site::start(|pool| pool);
    let mut wrong = Vec::new();
    for (request, outcome) in cases {
        let mut wire = Wire::connect(site.port);
        wire.send(&request.bytes()).expect("open");
        let end = wire.end_of(1);
        drop(wire);
        let arrived = site.arrived();
        let is_right = match outcome {
            Refused => arrived.is_empty() && !matches!(end, End::Answered(0..=399) | End::Closed),
            Arrives(what) => arrived == [*what] && end == End::Answered(200),
        };
        if !is_right {
            wrong.push(format!("{:?} {:?}: {end:?}, arrived {arrived:?}", request.fields, request.trailers));
        }
    }
    assert!(wrong.is_empty(), "{class}:\n{}", wrong.join("\n"));
}

const ARRIVES: Outcome = Arrives("GET / HTTP/1.1 | host: a || ");

#[test]
fn pseudo_fields_come_first_once_and_no_others() {
    check(
        "pseudo fields",
        &[
            (only(GET), ARRIVES),
            (only(&[(":scheme", "http"), (":authority", "a"), (":path", "/")]), Refused),
            (only(&[(":method", "GET"), (":scheme", "http"), (":authority", "a")]), Refused),
            (only(&[(":method", "GET"), (":authority", "a"), (":path", "/")]), Refused),
            (only(&[(":method", "GET"), (":scheme", "http"), (":path", "/")]), Refused),
            (with(GET, &[(":method", "GET")]), Refused),
            (with(GET, &[(":path", "/admin")]), Refused),
            (with(GET, &[(":authority", "b")]), Refused),
            (with(GET, &[(":scheme", "https")]), Refused),
            (with(GET, &[(":status", "200")]), Refused),
            (with(GET, &[(":unknown", "x")]), Refused),
            (with(GET, &[("x-a", "1"), (":path", "/")]), Refused),
            (
                only(&[
                    (":method", "GET"),
                    ("x-a", "1"),
                    (":scheme", "http"),
                    (":authority", "a"),
                    (":path", "/"),
                ]),
                Refused,
            ),
            (only(&[(":method", "G T"), (":scheme", "http"), (":authority", "a"), (":path", "/")]), Refused),
            (
                only(&[
                    (":method", "GET / HTTP/1.1\r\nHost: b\r\n\r\nGET"),
                    (":scheme", "http"),
                    (":authority", "a"),
                    (":path", "/"),
                ]),
                Refused,
            ),
            (only(&[(":method", ""), (":scheme", "http"), (":authority", "a"), (":path", "/")]), Refused),
            (only(&[(":method", "GET"), (":scheme", "ftp"), (":authority", "a"), (":path", "/")]), Refused),
            (
                only(&[(":method", "GET"), (":scheme", "http://b/?"), (":authority", "a"), (":path", "/")]),
                Refused,
            ),
            (only(&[(":method", "CONNECT"), (":authority", "a:443")]), Refused),
        ],
    );
}

#[test]
fn fields_for_a_connection_are_not_for_http2() {
    check(
        "connection fields",
        &[
            (
                with(GET, &[("te", "trailers")]),
                Arrives("GET / HTTP/1.1 | connection: te | host: a | te: trailers || "),
            ),
            (with(GET, &[("connection", "close")]), Refused),
            (with(GET, &[("connection", "x-a"), ("x-a", "1")]), Refused),
            (with(GET, &[("keep-alive", "timeout=5")]), Refused),
            (with(GET, &[("proxy-connection", "keep-alive")]), Refused),
            (with(GET, &[("upgrade", "h2c")]), Refused),
            (with(GET, &[("upgrade", "websocket"), ("connection", "upgrade")]), Refused),
            (with(POST, &[("transfer-encoding", "chunked")]), Refused),
            (with(POST, &[("transfer-encoding", "identity")]), Refused),
            (sent(&[("transfer-encoding", "chunked")], b"0\r\n\r\n"), Refused),
            (with(GET, &[("te", "gzip")]), Refused),
            (with(GET, &[("te", "trailers, gzip")]), Refused),
            (with(GET, &[("transfer_encoding", "chunked")]), Refused),
            (with(GET, &[("content_length", "5")]), Refused),
            (with(GET, &[("expect", "200-ok")]), Refused),
            (with(GET, &[("expect", "100-continue"), ("expect", "100-continue")]), Refused),
        ],
    );
}

#[test]
fn a_length_is_that_of_the_data() {
    check(
        "lengths",
        &[
            (
                sent(&[("content-length", "5")], b"hello"),
                Arrives("POST / HTTP/1.1 | content-length: 5 | host: a || hello"),
            ),
            (sent(&[], b"hello"), Arrives("POST / HTTP/1.1 | host: a | transfer-encoding: chunked || hello")),
            (sent(&[("content-length", "5")], b"hell"), Refused),
            (sent(&[("content-length", "5")], b"hello, GET /"), Refused),
            (sent(&[("content-length", "0")], b"hello"), Refused),
            (with(POST, &[("content-length", "5")]), Refused),
            (sent(&[("content-length", "5"), ("content-length", "5")], b"hello"), Refused),
            (sent(&[("content-length", "5"), ("content-length", "6")], b"hello"), Refused),
            (sent(&[("content-length", "+5")], b"hello"), Refused),
            (sent(&[("content-length", "-5")], b"hello"), Refused),
            (sent(&[("content-length", "5, 5")], b"hello"), Refused),
            (sent(&[("content-length", "0x5")], b"hello"), Refused),
            (sent(&[("content-length", "")], b"hello"), Refused),
            (sent(&[("content-length", "9223372036854775808")], b"hello"), Refused),
            (sent(&[("content-length", "18446744073709551621")], b"hello"), Refused),
        ],
    );
}

#[test]
fn names_are_in_lower_case_and_values_hold_no_ends_of_lines() {
    check(
        "names and values",
        &[
            (with(GET, &[("x-a", "b")]), Arrives("GET / HTTP/1.1 | host: a | x-a: b || ")),
            (with(GET, &[("X-A", "b")]), Refused),
            (with(GET, &[("x-a", "b\r\nx-b: c")]), Refused),
            (with(GET, &[("x-a", "b\r\n\r\nGET /admin HTTP/1.1\r\nHost: a")]), Refused),
            (with(GET, &[("x-a", "b\nx-b: c")]), Refused),
            (with(GET, &[("x-a", "b\rc")]), Refused),
            (with(GET, &[("x-a", "b\0c")]), Refused),
            (with(GET, &[("x-a: b\r\nx-b", "c")]), Refused),
            (with(GET, &[("x a", "b")]), Refused),
            (with(GET, &[("x-a:", "b")]), Refused),
            (with(GET, &[("x-a\0", "b")]), Refused),
            (with(GET, &[("x-a\n", "b")]), Refused),
            (with(GET, &[("", "b")]), Refused),
            (with(GET, &[("(x)", "b")]), Refused),
            (with(GET, &[("x-é", "b")]), Refused),
        ],
    );
}

#[test]
fn an_authority_is_a_host_with_a_port_and_the_only_one() {
    check(
        "authorities",
        &[
            (authority("a:80"), Arrives("GET / HTTP/1.1 | host: a:80 || ")),
            (authority("[::1]"), Arrives("GET / HTTP/1.1 | host: [::1] || ")),
            (with(GET, &[("host", "a")]), ARRIVES),
            (only(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), ("host", "a")]), ARRIVES),
            (with(GET, &[("host", "b")]), Refused),
            (with(GET, &[("host", "a:80")]), Refused),
            (with(GET, &[("host", "a"), ("host", "a")]), Refused),
            (with(GET, &[("host", "a"), ("host", "b")]), Refused),
            (authority(""), Refused),
            (authority("user@a"), Refused),
            (authority("a/b"), Refused),
            (authority("a b"), Refused),
            (authority("a:b"), Refused),
            (authority("a:65536"), Refused),
            (authority("a,b"), Refused),
            (authority("a%62"), Refused),
            (authority("[::1%25eth0]"), Refused),
            (authority("[::1"), Refused),
            (authority("a\r\nx: y"), Refused),
            (authority("http://a"), Refused),
        ],
    );
}

#[test]
fn a_path_is_one_and_in_its_one_form() {
    check(
        "paths",
        &[
            (path("/public/../admin"), Arrives("GET /admin HTTP/1.1 | host: a || ")),
            (path("//b/%61"), Arrives("GET /b/a HTTP/1.1 | host: a || ")),
            (path("/x?y=/../z"), Arrives("GET /x?y=/../z HTTP/1.1 | host: a || ")),
            (path(""), Refused),
            (path("x"), Refused),
            (path("*"), Refused),
            (path("?x"), Refused),
            (path("http://b/"), Refused),
            (path("/ HTTP/1.1\r\nHost: b\r\n\r\nGET /x"), Refused),
            (path("/a b"), Refused),
            (path("/a\r\nb"), Refused),
            (path("/a\0"), Refused),
            (path("/a\\b"), Refused),
            (path("/%"), Refused),
            (path("/%00"), Refused),
            (path("/%2e%2e/x"), Refused),
            (path("/a%2fb"), Refused),
            (path("/a/..;/b"), Refused),
        ],
    );
}

#[test]
fn trailers_are_fields_and_frame_nothing() {
    const PASSED: Outcome = Arrives("POST / HTTP/1.1 | host: a | transfer-encoding: chunked || hello");
    check(
        "trailers",
        &[
            (
                trailed(&[("x-sum", "5")]),
                Arrives("POST / HTTP/1.1 | host: a | transfer-encoding: chunked || hello ++ x-sum: 5"),
            ),
            (trailed(&[("host", "b")]), PASSED),
            (trailed(&[("content-length", "9")]), PASSED),
            (trailed(&[("authorization", "b")]), PASSED),
            (trailed(&[("cookie", "a=b")]), PASSED),
            (trailed(&[("x-forwarded-for", "6.6.6.6")]), PASSED),
            (trailed(&[("content_length", "9")]), PASSED),
            // h2 drops them where RFC 9113, section 8.1, would have the stream reset.
            (trailed(&[(":path", "/admin")]), PASSED),
            (trailed(&[(":method", "GET")]), PASSED),
            (trailed(&[("x-sum", "5"), (":status", "200")]), Refused),
            (trailed(&[("X-Sum", "5")]), Refused),
            (trailed(&[("x-sum", "5\r\nx: y")]), Refused),
            (trailed(&[("x sum", "5")]), Refused),
            (trailed(&[("transfer-encoding", "chunked")]), Refused),
            (trailed(&[("connection", "close")]), Refused),
        ],
    );
}

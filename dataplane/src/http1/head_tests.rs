//! What is taken and what is refused of a message's head.

use super::*;
use proptest::prelude::*;

fn parse(text: &str) -> Result<ParsedRequest, Failure> {
    let bytes = Bytes::copy_from_slice(text.as_bytes());
    let end = head_end(&bytes, &mut 0).map_err(Failure::BadRequest)?;
    assert_eq!(end, Some(bytes.len()), "a whole head: {text:?}");
    request(&bytes, HEADERS_MAX)
}

fn refused(text: &str) -> u16 {
    match parse(text) {
        Ok(parsed) => panic!("accepted {text:?} as {parsed:?}"),
        Err(failure) => failure.answer().0.as_u16(),
    }
}

#[test]
fn a_request_is_split_into_what_goes_on_and_what_does_not() {
    let parsed = parse(
        "POST /a%20b?q=1 HTTP/1.1\r\nHost: Shop.Example:8080\r\nContent-Length: 5\r\nConnection: keep-alive, X-Hop, TE\r\n\
         X-Hop: 1\r\nKeep-Alive: 5\r\nProxy-Connection: close\r\nTE: gzip, trailers\r\nAccept: */*\r\nUpgrade: h2c\r\n\r\n",
    )
    .expect("valid");
    let head = parsed.head;
    assert_eq!(head.host(), "shop.example");
    assert_eq!(head.target.as_str(), "/a%20b?q=1");
    assert_eq!(head.body, BodyLength::Known(5));
    assert_eq!(head.upgrade, Upgrade::No, "only WebSocket is an upgrade");
    assert_eq!((parsed.framing, parsed.persistence), (Framing::Length(5), Persistence::Keep));
    let mut names: Vec<_> = head.headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["accept", "te"]);
    assert_eq!(head.headers["te"], "trailers");
}

#[test]
fn connection_cannot_strip_what_decisions_are_made_by() {
    let head = parse(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: cookie, X-Forwarded-For, x-real-ip, authorization, x-a\r\n\
         Cookie: a=b\r\nX-Forwarded-For: c\r\nX-Real-IP: d\r\nAuthorization: e\r\nX-A: f\r\n\r\n",
    )
    .expect("valid")
    .head;
    let mut names: Vec<_> = head.headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["authorization", "cookie", "x-forwarded-for", "x-real-ip"]);
}

#[test]
fn a_length_up_to_the_largest_signed_number_is_taken() {
    let text = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775807\r\n\r\n";
    assert_eq!(parse(text).expect("at the limit").framing, Framing::Length(i64::MAX.unsigned_abs()));
}

#[test]
fn a_websocket_upgrade_is_seen() {
    let text = "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\r\n";
    assert_eq!(parse(text).expect("valid").head.upgrade, Upgrade::WebSocket);
    let text = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(parse(text).expect("valid").head.upgrade, Upgrade::No, "Connection must name it");
}

#[test]
fn the_absolute_form_names_the_host() {
    let of = |text| parse(text).map(|p| (p.head.host().into_owned(), p.head.target.as_str().to_owned()));
    let pair = |host: &str, target: &str| Ok((host.to_owned(), target.to_owned()));
    assert_eq!(of("GET http://a.b/c?d HTTP/1.1\r\nHost: a.b\r\n\r\n"), pair("a.b", "/c?d"));
    assert_eq!(of("GET http://a.b HTTP/1.1\r\nHost: A.b\r\n\r\n"), pair("a.b", "/"));
    assert_eq!(of("GET http://a.b?x HTTP/1.1\r\nHost: a.b\r\n\r\n"), pair("a.b", "/?x"));
    assert_eq!(of("OPTIONS * HTTP/1.1\r\nHost: a.b\r\n\r\n"), pair("a.b", "*"));
    assert_eq!(of("GET / HTTP/1.0\r\n\r\n"), pair("", "/"));
}

#[test]
fn ambiguous_framing_is_refused() {
    let with = |fields: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    for (fields, status) in [
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Content-Length: 5\r\nContent-Length: 5\r\n", 400),
        ("Content-Length: 5\r\nContent-Length: 6\r\n", 400),
        ("Content-Length: 5, 5\r\n", 400),
        ("Content-Length: +5\r\n", 400),
        ("Content-Length: -1\r\n", 400),
        ("Content-Length: 0x5\r\n", 400),
        ("Content-Length: \r\n", 400),
        ("Content-Length: 18446744073709551616\r\n", 400),
        ("Content-Length: 9223372036854775808\r\n", 400),
        ("Content_Length: 5\r\n", 400),
        ("Transfer_Encoding: chunked\r\n", 400),
        ("Expect: 100-continue, x\r\n", 417),
        ("Expect: 100-continue\r\nExpect: 100-continue\r\n", 417),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Transfer-Encoding: chunked, identity\r\n", 501),
        ("Transfer-Encoding: gzip, chunked\r\n", 501),
        ("Transfer-Encoding: xchunked\r\n", 501),
        ("Transfer-Encoding : chunked\r\n", 400),
        (" Transfer-Encoding: chunked\r\n", 400),
        ("A: b\r\n folded\r\n", 400),
        ("A\x00: b\r\n", 400),
        ("A: b\x00\r\n", 400),
        ("A: b\rc\r\n", 400),
        (": b\r\n", 400),
        ("A b: c\r\n", 400),
    ] {
        assert_eq!(refused(&with(fields)), status, "{fields:?}");
    }
    assert_eq!(refused("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
}

#[test]
fn a_bad_host_target_or_version_is_refused() {
    for (text, status) in [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: \r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: user@a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a:\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: [::1%eth0]\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: [:::1]\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a:0\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a%62\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        ("GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n", 400),
        ("GET http://a@b/ HTTP/1.1\r\nHost: b\r\n\r\n", 400),
        ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /#f HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
        ("GET /\tb HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("G{}T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 405),
    ] {
        assert_eq!(refused(text), status, "{text:?}");
    }
    for host in ["[::1]:80", "xn--a_b", "127.0.0.1:65535"] {
        assert!(parse(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).is_ok(), "{host}");
    }
}

#[test]
fn lines_end_with_cr_lf_and_nothing_less() {
    for text in
        ["GET / HTTP/1.1\nHost: a\n\n", "GET / HTTP/1.1\r\nHost: a\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\n"]
    {
        assert!(head_end(text.as_bytes(), &mut 0).is_err(), "{text:?}");
    }
}

#[test]
fn the_end_of_a_head_is_found_in_whatever_pieces_it_comes() {
    let text = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest";
    let mut line = 0;
    for seen in 0..27 {
        assert_eq!(head_end(&text[..seen], &mut line), Ok(None), "{seen}");
    }
    assert_eq!(head_end(text, &mut line), Ok(Some(27)));
}

#[test]
fn a_hundred_headers_are_taken_and_one_more_is_not() {
    let with = |count: usize| {
        let fields: String = (1..count).map(|i| format!("h{i}: v\r\n")).collect();
        parse(&format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"))
    };
    assert_eq!(with(HEADERS_MAX).expect("at the limit").head.headers.len(), HEADERS_MAX - 1);
    assert_eq!(with(HEADERS_MAX + 1).expect_err("one past it"), Failure::TooManyHeaders);
}

#[test]
fn persistence_follows_version_and_connection() {
    let of = |version, connection: &str| {
        let field =
            if connection.is_empty() { String::new() } else { format!("Connection: {connection}\r\n") };
        parse(&format!("GET / HTTP/1.{version}\r\nHost: a\r\n{field}\r\n")).expect("valid").persistence
    };
    assert_eq!(of(1, ""), Persistence::Keep);
    assert_eq!(of(1, "foo, Close"), Persistence::Close);
    assert_eq!(of(0, ""), Persistence::Close);
    assert_eq!(of(0, "Keep-Alive"), Persistence::Keep);
}

#[test]
fn a_response_is_framed_by_its_status_and_its_request() {
    let of = |text: &str, method: Method| {
        let parsed = response(&Bytes::copy_from_slice(text.as_bytes()), &method)?;
        Ok::<_, &str>((parsed.framing, parsed.head.body, parsed.persistence))
    };
    use BodyLength::{Announced, Empty, Known, Unknown};
    use Persistence::{Close, Keep};
    for (text, method, want) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", Method::GET, (Framing::Length(3), Known(3), Keep)),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",
            Method::HEAD,
            (Framing::Empty, Announced(Some(3)), Keep),
        ),
        (
            "HTTP/1.1 304 x\r\nContent-Length: 3\r\n\r\n",
            Method::GET,
            (Framing::Empty, Announced(Some(3)), Keep),
        ),
        ("HTTP/1.1 204 x\r\n\r\n", Method::GET, (Framing::Empty, Empty, Keep)),
        ("HTTP/1.1 100 Continue\r\n\r\n", Method::POST, (Framing::Empty, Empty, Keep)),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            Method::GET,
            (Framing::Chunked, Unknown, Keep),
        ),
        ("HTTP/1.1 200 OK\r\n\r\n", Method::GET, (Framing::UntilClose, Unknown, Close)),
        ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", Method::GET, (Framing::Empty, Known(0), Close)),
    ] {
        assert_eq!(of(text, method), Ok(want), "{text:?}");
    }
    for text in [
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 099 x\r\n\r\n",
        "HTTP/3 200 x\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
    ] {
        assert!(of(text, Method::GET).is_err(), "{text:?}");
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(input in prop::collection::vec(any::<u8>(), 0..200)) {
        let bytes = Bytes::from([b"GET / HTTP/1.1\r\nhost: a\r\n", input.as_slice(), b"\r\n\r\n"].concat());
        let _ = request(&bytes, HEADERS_MAX);
        let _ = response(&bytes, &Method::GET);
        let _ = trailers(&bytes);
        let _ = authority(&Bytes::from(input));
    }
}

//! Request lines, header fields, hosts, and fields that are for one connection alone.

use super::Outcome::{self, Arrives, Refused};
use super::{Site, check};

/// Ends of lines, and control characters.
const ENDS: &[(&str, Outcome)] = &[
    ("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Arrives(&["GET / HTTP/1.1 | host: a || "])),
    ("\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Arrives(&["GET / HTTP/1.1 | host: a || "])),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nX-A: b\tc\r\n\r\n",
        Arrives(&["GET / HTTP/1.1 | host: a | x-a: b\tc || "]),
    ),
    ("GET / HTTP/1.1\nHost: a\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a\r\n\n", Refused(400)),
    ("GET / HTTP/1.1\nHost: a\n\n", Refused(400)),
    ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a\r\nX-A: b\rc\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a\r\nX-A: b\r\r\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a\r\nX-A: b\0c\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a\r\nX-A\0: b\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a\r\nX-A: b\u{1}\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a\r\nX-A: b\u{7f}\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a\r\nX-A: b\u{b}c\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a\r\nX-A: b\u{c}c\r\n\r\n", Refused(400)),
    ("GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("GET /\rx HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a\r\nX-A: b\nX-B: c\r\n\r\n", Refused(400)),
];

#[test]
fn lines_end_with_cr_lf_and_hold_no_controls() {
    check(&Site::start(|pool| pool), "ends of lines", ENDS);
}

/// Names of fields, folds, and blanks where none may be.
const NAMES: &[(&str, Outcome)] = &[
    ("GET / HTTP/1.1\r\nHost: a\r\nX-A:\r\n\r\n", Arrives(&["GET / HTTP/1.1 | host: a | x-a:  || "])),
    ("GET / HTTP/1.1\r\nHost: a\r\nX-A:1\r\n\r\n", Arrives(&["GET / HTTP/1.1 | host: a | x-a: 1 || "])),
    ("GET / HTTP/1.1\r\nHost: a\r\nx_y: 1\r\n\r\n", Arrives(&["GET / HTTP/1.1 | host: a | x_y: 1 || "])),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded_For: 6.6.6.6\r\n\r\n",
        Arrives(&["GET / HTTP/1.1 | host: a || "]),
    ),
    ("GET / HTTP/1.1\r\nHost: a\r\nX_Real_IP: 6.6.6.6\r\n\r\n", Arrives(&["GET / HTTP/1.1 | host: a || "])),
    (
        "GET / HTTP/1.1\r\nHost: a\r\n!#$%&'*+-.^_`|~: 1\r\n\r\n",
        Arrives(&["GET / HTTP/1.1 | !#$%&'*+-.^_`|~: 1 | host: a || "]),
    ),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n\tb\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n X-B: c\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a\r\nX\t: 1\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a\r\n: 1\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a\r\nX Y: 1\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a\r\nX(: 1\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a\r\nX\": 1\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a\r\nX{: 1\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a\r\nX@: 1\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a\r\nX;: 1\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a\r\nX,Y: 1\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a\r\nXé: 1\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a\r\nX=1\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a\r\nX/Y: 1\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a\r\ncontent_length: 5\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a\r\nTransfer_Encoding: chunked\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a\r\nHost\r\n\r\n", Refused(400)),
];

#[test]
fn names_are_tokens_and_no_line_is_folded() {
    check(&Site::start(|pool| pool), "names of fields", NAMES);
}

/// Request lines.
const LINES: &[(&str, Outcome)] = &[
    ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", Arrives(&["OPTIONS * HTTP/1.1 | host: a || "])),
    ("get / HTTP/1.1\r\nHost: a\r\n\r\n", Arrives(&["get / HTTP/1.1 | host: a || "])),
    ("M-SEARCH /x?y=?/ HTTP/1.1\r\nHost: a\r\n\r\n", Arrives(&["M-SEARCH /x?y=?/ HTTP/1.1 | host: a || "])),
    ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", Refused(400)),
    (" GET / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("GET /\tHTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("G@T / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("GET /#f HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("GET /\r\nHost: a\r\n\r\n", Refused(400)),
    ("GET\r\nHost: a\r\n\r\n", Refused(400)),
    ("GET ? HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("POST * HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("GET /é\u{1} HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("{} / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", Refused(505)),
    ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", Refused(505)),
    ("GET / HTTP/3\r\nHost: a\r\n\r\n", Refused(505)),
    ("GET / http/1.1\r\nHost: a\r\n\r\n", Refused(505)),
    ("GET / HTTP/01.1\r\nHost: a\r\n\r\n", Refused(505)),
    ("GET / ICAP/1.0\r\nHost: a\r\n\r\n", Refused(505)),
    ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", Refused(505)),
    ("PRI * HTTP/1.9\r\nHost: a\r\n\r\n", Refused(505)),
    ("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", Refused(405)),
    ("CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(405)),
];

#[test]
fn a_request_line_has_three_words() {
    check(&Site::start(|pool| pool), "request lines", LINES);
}

/// Host.
const HOSTS: &[(&str, Outcome)] = &[
    ("GET / HTTP/1.1\r\nHost: a:80\r\n\r\n", Arrives(&["GET / HTTP/1.1 | host: a:80 || "])),
    ("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", Arrives(&["GET / HTTP/1.1 | host: [::1]:80 || "])),
    ("GET / HTTP/1.1\r\nHost: [2001:db8::1]\r\n\r\n", Arrives(&["GET / HTTP/1.1 | host: [2001:db8::1] || "])),
    ("GET / HTTP/1.1\r\nHost: A.Example\r\n\r\n", Arrives(&["GET / HTTP/1.1 | host: A.Example || "])),
    ("GET / HTTP/1.1\r\nHost: a_b\r\n\r\n", Arrives(&["GET / HTTP/1.1 | host: a_b || "])),
    ("GET / HTTP/1.1\r\nHost: 1.2.3.4:65535\r\n\r\n", Arrives(&["GET / HTTP/1.1 | host: 1.2.3.4:65535 || "])),
    ("GET / HTTP/1.0\r\n\r\n", Arrives(&["GET / HTTP/1.1 | host:  || "])),
    ("GET / HTTP/1.1\r\nHost: \r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: user@a\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: user:pass@a\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a/\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a:\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a:0\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a:000080\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a:-1\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a:+1\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a:80 ,b\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a;b\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a%62\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a%00\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a%2f\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a'b\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a\"b\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a\\b\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a?b\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a#b\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: é\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: ::1\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: [::1]x\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: [::1%25eth0]\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: [::1%eth0]\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: [g::1]\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: []\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: [1.2.3.4]\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a\tb\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: <a>\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: http://a\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nX: a\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.0\r\nHost: a@b\r\n\r\n", Refused(400)),
];

#[test]
fn a_host_is_a_name_or_an_address_with_a_port() {
    check(&Site::start(|pool| pool), "hosts", HOSTS);
}

/// Targets in other forms than a path, and what Host says beside them.
const TARGETS: &[(&str, Outcome)] = &[
    ("GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", Arrives(&["GET / HTTP/1.1 | host: a || "])),
    ("GET HTTP://A/ HTTP/1.1\r\nHost: a\r\n\r\n", Arrives(&["GET / HTTP/1.1 | host: A || "])),
    ("GET http://a/x?y=/z HTTP/1.1\r\nHost: a\r\n\r\n", Arrives(&["GET /x?y=/z HTTP/1.1 | host: a || "])),
    ("GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", Arrives(&["GET / HTTP/1.1 | host: a || "])),
    ("GET http://a?q HTTP/1.1\r\nHost: a\r\n\r\n", Arrives(&["GET /?q HTTP/1.1 | host: a || "])),
    ("GET https://a/ HTTP/1.1\r\nHost: a\r\n\r\n", Arrives(&["GET / HTTP/1.1 | host: a || "])),
    ("GET //b/x HTTP/1.1\r\nHost: a\r\n\r\n", Arrives(&["GET /b/x HTTP/1.1 | host: a || "])),
    ("GET http://a//b/x HTTP/1.1\r\nHost: a\r\n\r\n", Arrives(&["GET /b/x HTTP/1.1 | host: a || "])),
    ("GET http://a/x/../y HTTP/1.1\r\nHost: a\r\n\r\n", Arrives(&["GET /y HTTP/1.1 | host: a || "])),
    ("GET http://a/ HTTP/1.0\r\n\r\n", Arrives(&["GET / HTTP/1.1 | host: a || "])),
    ("GET http://[::1]/ HTTP/1.1\r\nHost: [::1]\r\n\r\n", Arrives(&["GET / HTTP/1.1 | host: [::1] || "])),
    ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("GET http://a:80/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("GET http://a/ HTTP/1.1\r\nHost: a:80\r\n\r\n", Refused(400)),
    ("GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("GET http://a@b/ HTTP/1.1\r\nHost: b\r\n\r\n", Refused(400)),
    ("GET http://a\\@b/ HTTP/1.1\r\nHost: b\r\n\r\n", Refused(400)),
    ("GET http://a%2eb/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("GET http:// HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("GET http:a HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("GET http:/a HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("GET ws://a/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("GET http://a/ HTTP/1.1\r\n\r\n", Refused(400)),
    ("GET http://a#b/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("GET http://a:b/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("GET x/http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("GET http://a,b/ HTTP/1.1\r\nHost: a,b\r\n\r\n", Refused(400)),
];

#[test]
fn a_target_names_no_other_host() {
    check(&Site::start(|pool| pool), "targets", TARGETS);
}

/// Fields for one connection, those that Connection names, expectations and upgrades.
const CONNECTION: &[(&str, Outcome)] = &[
    (
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: x-a\r\nX-A: 1\r\n\r\n",
        Arrives(&["GET / HTTP/1.1 | host: a || "]),
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-A\r\nX-A: 1\r\nX-B: 2\r\n\r\n",
        Arrives(&["GET / HTTP/1.1 | host: a | x-b: 2 || "]),
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: X-A\r\nConnection: X-B\r\nX-A: 1\r\nX-B: 2\r\n\r\n",
        Arrives(&["GET / HTTP/1.1 | host: a || "]),
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: cookie\r\nCookie: a=b\r\n\r\n",
        Arrives(&["GET / HTTP/1.1 | cookie: a=b | host: a || "]),
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Authorization\r\nAuthorization: b\r\n\r\n",
        Arrives(&["GET / HTTP/1.1 | authorization: b | host: a || "]),
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: X-Forwarded-For, X-Real-IP, X-Forwarded-Host, X-Forwarded-Proto\r\n\r\n",
        Arrives(&["GET / HTTP/1.1 | host: a || "]),
    ),
    ("GET / HTTP/1.1\r\nHost: a\r\nConnection: host\r\n\r\n", Arrives(&["GET / HTTP/1.1 | host: a || "])),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: cache-control, via\r\nCache-Control: no-store\r\n\r\n",
        Arrives(&["GET / HTTP/1.1 | cache-control: no-store | host: a || "]),
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nKeep-Alive: timeout=5\r\n\r\n",
        Arrives(&["GET / HTTP/1.1 | host: a || "]),
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nProxy-Connection: keep-alive\r\n\r\n",
        Arrives(&["GET / HTTP/1.1 | host: a || "]),
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n",
        Arrives(&["GET / HTTP/1.1 | connection: te | host: a | te: trailers || "]),
    ),
    ("GET / HTTP/1.1\r\nHost: a\r\nTE: gzip\r\n\r\n", Arrives(&["GET / HTTP/1.1 | host: a || "])),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nTE: gzip;q=0.5, trailers\r\n\r\n",
        Arrives(&["GET / HTTP/1.1 | connection: te | host: a | te: trailers || "]),
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nConnection: Upgrade, HTTP2-Settings\r\n\r\n",
        Arrives(&["GET / HTTP/1.1 | host: a || "]),
    ),
    ("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n", Arrives(&["GET / HTTP/1.1 | host: a || "])),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: foo\r\nConnection: Upgrade\r\n\r\n",
        Arrives(&["GET / HTTP/1.1 | host: a || "]),
    ),
    ("GET / HTTP/1.1\r\nHost: a\r\nConnection:\r\n\r\n", Arrives(&["GET / HTTP/1.1 | host: a || "])),
    ("GET / HTTP/1.1\r\nHost: a\r\nConnection: ,, ,\r\n\r\n", Arrives(&["GET / HTTP/1.1 | host: a || "])),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: \"close\"\r\n\r\n",
        Arrives(&["GET / HTTP/1.1 | host: a || "]),
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: content-length\r\nContent-Length: 5\r\n\r\nhello",
        Arrives(&["POST / HTTP/1.1 | content-length: 5 | host: a || hello"]),
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        Arrives(&["POST / HTTP/1.1 | host: a | transfer-encoding: chunked || hello"]),
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
        Arrives(&["POST / HTTP/1.1 | content-length: 5 | expect: 100-continue | host: a || hello"]),
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: expect\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
        Arrives(&["POST / HTTP/1.1 | content-length: 5 | expect: 100-continue | host: a || hello"]),
    ),
    (
        "POST / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
        Arrives(&["POST / HTTP/1.1 | content-length: 5 | host: a || hello"]),
    ),
    ("POST / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\nContent-Length: 5\r\n\r\nhello", Refused(417)),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue, 100-continue\r\nContent-Length: 5\r\n\r\nhello",
        Refused(417),
    ),
    ("POST / HTTP/1.1\r\nHost: a\r\nExpect: y 100-continue\r\nContent-Length: 5\r\n\r\nhello", Refused(417)),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
        Refused(417),
    ),
    ("POST / HTTP/1.1\r\nHost: a\r\nExpect:\r\nContent-Length: 5\r\n\r\nhello", Refused(417)),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue;q=1\r\nContent-Length: 5\r\n\r\nhello",
        Refused(417),
    ),
];

#[test]
fn what_is_for_one_connection_goes_no_further() {
    check(&Site::start(|pool| pool), "connection", CONNECTION);
}

//! Limits of a listener and of a rule: what is at the limit passes, and one past it does not.

use super::Site;
use super::raw::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, End, GOAWAY, HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, Wire, block, frame,
};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::mpsc;
use weir_tests::harness::client::{Answer, Connection, local};
use weir_tests::harness::manifest::PoolText;
use weir_tests::harness::scripted::Scripted;
use weir_tests::harness::{ports, wait};

const ENHANCE_YOUR_CALM: u32 = 11;

/// A proxy whose listener has these limits.
fn limited(limits: &str) -> Site {
    Site::start(|pool| {
        pool.replace("      protocol: HTTP\n", &format!("      protocol: HTTP\n      limits: {limits}\n"))
    })
}

fn ask(site: &Site, request: &str) -> Answer {
    Connection::open(site.port).expect("serves").request(request).expect("an answer")
}

fn told(answer: &Answer) -> (u16, Option<&str>) {
    (answer.status, answer.header("x-weir-reason"))
}

fn of_path(bytes: usize) -> String {
    format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(bytes - 1))
}

#[test]
fn a_path_of_8_kib_is_taken_and_one_byte_more_is_not() {
    let site = Site::start(|pool| pool);
    assert_eq!(ask(&site, &of_path(8_192)).status, 200);
    assert_eq!(told(&ask(&site, &of_path(8_193))), (414, Some("uri_too_long")));
    let site = limited("{ uriBytes: 100 }");
    assert_eq!(ask(&site, &of_path(100)).status, 200);
    assert_eq!(told(&ask(&site, &of_path(101))), (414, Some("uri_too_long")));
}

#[test]
fn heads_and_header_fields_are_taken_up_to_the_listeners_limits() {
    let site = limited("{ headBytes: 1024, headers: 8 }");
    let sized = |bytes: usize| {
        let empty = "GET / HTTP/1.1\r\nHost: a\r\nx: \r\n\r\n";
        empty.replace("x: ", &format!("x: {}", "y".repeat(bytes - empty.len())))
    };
    assert_eq!(ask(&site, &sized(1_024)).status, 200);
    assert_eq!(told(&ask(&site, &sized(1_025))), (431, Some("head_too_large")));
    let fields = |count: usize| {
        let fields: String = (1..count).map(|n| format!("x-{n}: 1\r\n")).collect();
        format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
    };
    assert_eq!(ask(&site, &fields(8)).status, 200);
    assert_eq!(told(&ask(&site, &fields(9))), (431, Some("too_many_headers")));
}

#[test]
fn a_body_is_taken_up_to_the_rules_limit_whether_or_not_it_says_its_length() {
    let site = Site::start(|pool| {
        pool.replace("  rules:\n    - ", "  rules:\n    - limits: { requestBodyBytes: 10 }\n      ")
    });
    let length = |bytes: usize| {
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {bytes}\r\n\r\n{}", "x".repeat(bytes))
    };
    let chunks = |bytes: usize| {
        format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{bytes:x}\r\n{}\r\n0\r\n\r\n",
            "x".repeat(bytes)
        )
    };
    for within in [length(0), length(10), chunks(10)] {
        assert_eq!(ask(&site, &within).status, 200, "{within:?}");
    }
    assert_eq!(site.arrived().len(), 3);
    for past in [length(11), chunks(11)] {
        assert_eq!(told(&ask(&site, &past)), (413, Some("body_too_large")), "{past:?}");
    }
    assert_eq!(site.arrived(), Vec::<String>::new());
}

#[test]
fn a_pools_limit_for_bodies_is_for_rules_that_have_none() {
    let site =
        Site::start(|pool| pool.replace("  rules:\n", "  limits: { requestBodyBytes: 3 }\n  rules:\n"));
    let request =
        |bytes| format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {bytes}\r\n\r\n{}", "x".repeat(bytes));
    assert_eq!(ask(&site, &request(3)).status, 200);
    assert_eq!(ask(&site, &request(4)).status, 413);
}

#[test]
fn a_head_that_is_slow_is_answered_and_a_connection_that_is_idle_closed() {
    let site = limited("{ headTimeout: 200ms, idleTimeout: 300ms }");
    let answer = ask(&site, "GET / HTTP/1.1\r\nHost: ");
    assert_eq!(told(&answer), (408, Some("request_slow")));
    let mut connection = Connection::open(site.port).expect("serves");
    assert_eq!(connection.get("/").expect("an answer").status, 200);
    connection.read_end().expect("an end");
    Connection::open(site.port).expect("serves").read_end().expect("an end without a byte, too");
}

/// Whether the proxy serves this new connection.
fn is_served(site: &Site) -> Option<Connection> {
    let mut connection = Connection::open(site.port).ok()?;
    let answer = connection.get("/").ok()?;
    assert_eq!(answer.status, 200);
    Some(connection)
}

#[test]
fn a_source_and_a_port_have_as_many_connections_as_they_may() {
    for limits in ["{ connectionsPerSource: 3 }", "{ connections: 3 }"] {
        let site = limited(limits);
        let mut held: Vec<Connection> = (0..3).map(|_| is_served(&site).expect("within")).collect();
        assert!(is_served(&site).is_none(), "{limits}: one past it");
        held.pop();
        wait::until("a place should be free", || is_served(&site).map(drop));
    }
}

fn get(stream: u32) -> Vec<u8> {
    let fields = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")];
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&fields))
}

fn post(stream: u32) -> Vec<u8> {
    let fields = [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/")];
    frame(HEADERS, END_HEADERS, stream, &block(&fields))
}

/// What ends a connection that sends this over and over, of which it answers nothing.
fn flood(site: &Site, piece: impl Fn(u32) -> Vec<u8>, count: u32) -> End {
    let mut wire = Wire::connect(site.port);
    for nth in 0..count {
        if wire.send(&piece(nth)).is_err() {
            break;
        }
    }
    wire.end_of(u32::MAX >> 1)
}

fn is_ended(end: End) -> bool {
    // A reset because of what we still sent may overtake the goodbye.
    matches!(end, End::GoAway(ENHANCE_YOUR_CALM) | End::Closed)
}

#[test]
fn floods_over_http2_end_their_connection_and_no_other() {
    let site = Site::start(|pool| pool);
    let mut other = Connection::open(site.port).expect("serves");
    let stream = |nth: u32| 2 * nth + 1;
    let reset = |nth| [get(stream(nth)), frame(RST_STREAM, 0, stream(nth), &[0, 0, 0, 8])].concat();
    // The stream's window may not grow so far: the server resets it.
    let made =
        |nth| [post(stream(nth)), frame(WINDOW_UPDATE, 0, stream(nth), &[0x7f, 0xff, 0xff, 0xff])].concat();
    let mut wrong = Vec::new();
    let mut expect = |name: &str, end: End| {
        if !is_ended(end) {
            wrong.push(format!("{name}: {end:?}"));
        }
        assert_eq!(other.get("/").expect("an answer").status, 200, "{name}");
    };
    expect("rapid reset", flood(&site, reset, 2_000));
    expect("resets that the server is made to send", flood(&site, made, 2_000));
    expect("pings", flood(&site, |_| frame(PING, 0, 0, &[0; 8]), 20_000));
    expect("settings", flood(&site, |_| frame(SETTINGS, 0, 0, &[]), 20_000));
    expect("windows", flood(&site, |_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]), 20_000));
    expect("priorities", flood(&site, |_| frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 16]), 20_000));
    expect("frames of no known kind", flood(&site, |_| frame(99, 0, 0, &[]), 20_000));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(site.weir.metric_of("weir_http2_connections_cut_total", "excess=\"control_frames\"") >= 1);
}

#[test]
fn resets_one_by_one_are_taken_at_their_rate_and_no_faster() {
    let site = limited("{ resetsPerSecond: 10 }");
    // Each is waited for, so that none of what h2 bounds by itself is ever reached.
    let one_by_one = |is_made: bool| {
        let mut wire = Wire::connect(site.port);
        for nth in 0..500 {
            let stream = 2 * nth + 1;
            let (bytes, end) = if is_made {
                let grown = frame(WINDOW_UPDATE, 0, stream, &[0x7f, 0xff, 0xff, 0xff]);
                ([post(stream), grown].concat(), RST_STREAM)
            } else {
                let reset = frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]);
                ([post(stream), frame(PING, 0, 0, &[0; 8]), reset].concat(), PING)
            };
            if wire.send(&bytes).is_err() {
                return nth;
            }
            loop {
                match wire.read() {
                    Ok(frame) if frame.kind == end => break,
                    Ok(frame) if frame.kind != GOAWAY => {}
                    _ => return nth,
                }
            }
        }
        500
    };
    for is_made in [false, true] {
        let taken = one_by_one(is_made);
        assert!((50..499).contains(&taken), "{taken} resets, made by the server: {is_made}");
    }
    assert_eq!(site.weir.metric_of("weir_http2_connections_cut_total", "excess=\"resets\""), 2);
}

#[test]
fn heads_without_an_end_and_empty_data_end_their_connection() {
    let site = Site::start(|pool| pool);
    let begun = |nth: u32| {
        if nth == 0 {
            frame(HEADERS, 0, 1, &block(&[(":method", "GET")]))
        } else {
            frame(CONTINUATION, 0, 1, &[])
        }
    };
    let grows = |nth: u32| {
        let piece = block(&[("x", &"y".repeat(1_000))]);
        if nth == 0 { frame(HEADERS, 0, 1, &piece) } else { frame(CONTINUATION, 0, 1, &piece) }
    };
    let empty = |nth: u32| if nth == 0 { post(1) } else { frame(DATA, 0, 1, &[]) };
    for (name, end) in [
        ("continuations of nothing", flood(&site, begun, 20_000)),
        ("continuations that grow", flood(&site, grows, 20_000)),
        ("empty data", flood(&site, empty, 20_000)),
    ] {
        assert!(matches!(end, End::GoAway(_) | End::Closed), "{name}: {end:?}");
    }
    assert_eq!(ask(&site, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").status, 200);
}

#[test]
fn a_field_that_is_named_again_and_again_is_not_multiplied() {
    let site = Site::start(|pool| pool);
    // One field of 4,000 bytes into the table (RFC 7541, section 6.2.1), then named a thousand times by one byte each.
    let value = "y".repeat(3_900);
    let mut head = block(&[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")]);
    let mut entry = block(&[("x", &value)]);
    entry[0] = 0x40;
    head.extend(entry);
    head.extend([0xbe; 1_000]);
    let mut wire = Wire::connect(site.port);
    wire.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &head)).expect("open");
    let end = wire.end_of(1);
    assert!(matches!(end, End::Answered(431) | End::Reset(_) | End::GoAway(_)), "{end:?}");
    assert_eq!(site.arrived(), Vec::<String>::new());
}

#[test]
fn as_many_streams_are_open_as_may_be_and_one_more_is_refused() {
    const REFUSED_STREAM: u32 = 7;
    let site = limited("{ streamsPerConnection: 3 }");
    let mut wire = Wire::connect(site.port);
    // Settings of the server first: before, a client may not know of the limit.
    let settings = wire.read().expect("settings");
    assert_eq!(settings.kind, SETTINGS);
    wire.send(&frame(SETTINGS, 1, 0, &[])).expect("open");
    for stream in [1, 3, 5, 7] {
        wire.send(&post(stream)).expect("open");
    }
    assert_eq!(wire.end_of(7), End::Reset(REFUSED_STREAM));
    wire.send(&frame(DATA, END_STREAM, 1, b"x")).expect("open");
    assert_eq!(wire.end_of(1), End::Answered(200), "those within go on");
}

#[test]
fn a_reader_that_takes_nothing_is_cut_and_its_backend_let_go() {
    const ANSWER_BYTES: usize = 1 << 30;
    let (say, ended) = mpsc::channel();
    let backend = Scripted::start(move |_, exchange| {
        if exchange.read_request().is_none() {
            return;
        }
        exchange.write(&format!("HTTP/1.1 200 OK\r\nContent-Length: {ANSWER_BYTES}\r\n\r\n"));
        let (piece, line) = ("x".repeat(1 << 20), exchange.line());
        for _ in 0..ANSWER_BYTES >> 20 {
            exchange.write(&piece);
            if line.has_ended() {
                break;
            }
        }
        let _ = say.send(line.has_ended());
    });
    let mut pool = PoolText::new("reader", ports::free(), &[(backend.port, 1)]);
    pool.timeouts = "idle: 500ms".to_owned();
    let site = Site::over(&pool, |pool| pool, mpsc::channel().1);
    let mut stream = TcpStream::connect(local(site.port)).expect("serves");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("open");
    assert_eq!(ended.recv_timeout(wait::GENEROUS), Ok(true), "the backend's connection is closed");
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(rest.len() < ANSWER_BYTES / 4, "{} bytes were held for it", rest.len());
}

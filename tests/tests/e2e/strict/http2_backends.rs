//! Backends of HTTP/2 that do not do as they should, frame by frame.

use super::raw::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PREFACE, PUSH_PROMISE, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, Wire, block, frame,
};
use std::net::TcpListener;
use weir_tests::harness::client::Connection;
use weir_tests::harness::folder::Folder;
use weir_tests::harness::manifest::PoolText;
use weir_tests::harness::ports;
use weir_tests::harness::services::Service;

/// What the client has to see.
#[derive(Debug, Clone, Copy)]
enum Seen {
    /// An answer of ours with this status.
    Failure(u16),
    /// A head with status 200, and then no whole body.
    Cut,
    Whole,
}

use Seen::{Cut, Failure, Whole};

/// On the stream of the request, which is the first of its connection.
fn on_stream(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    frame(kind, flags, 1, payload)
}

fn head(fields: &[(&str, &str)]) -> Vec<u8> {
    on_stream(HEADERS, END_HEADERS, &block(fields))
}

/// Name, the backend's frames after its settings, whether it closes then, what the client sees.
type Case = (&'static str, Vec<u8>, bool, Seen);

fn cases() -> Vec<Case> {
    [heads(), frames(), bodies()].concat()
}

fn data(flags: u8, bytes: &[u8]) -> Vec<u8> {
    on_stream(DATA, flags, bytes)
}

fn after(frame: &[u8]) -> Vec<u8> {
    [head(&[(":status", "200")]), frame.to_vec()].concat()
}

/// A head of 90 kB in as many frames as it takes.
fn large() -> Vec<u8> {
    let value = "x".repeat(1_000);
    let block = block(&[("x-large", value.as_str()); 90]);
    let mut frames = on_stream(HEADERS, 0, &block[..16_000]);
    let mut pieces = block[16_000..].chunks(16_000).peekable();
    while let Some(piece) = pieces.next() {
        let flags = if pieces.peek().is_none() { END_HEADERS } else { 0 };
        frames.extend(on_stream(CONTINUATION, flags, piece));
    }
    frames
}

/// Heads that are none.
fn heads() -> Vec<Case> {
    let many: Vec<(&str, &str)> = [(":status", "200")].into_iter().chain([("x", "y"); 101]).collect();
    vec![
        ("what is not HTTP/2", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), true, Failure(502)),
        ("nothing", Vec::new(), false, Failure(504)),
        ("an end", Vec::new(), true, Failure(502)),
        ("no status", head(&[("x", "y")]), false, Failure(502)),
        ("a status that is none", head(&[(":status", "abc")]), false, Failure(502)),
        ("two statuses", head(&[(":status", "200"), (":status", "200")]), false, Failure(502)),
        // h2 drops it where it could refuse the head; there is no body then.
        ("a pseudo field of requests", head(&[(":status", "200"), (":path", "/")]), false, Cut),
        ("a pseudo field after others", head(&[("x", "y"), (":status", "200")]), false, Failure(502)),
        ("a name in upper case", head(&[(":status", "200"), ("X", "y")]), false, Failure(502)),
        ("an end of a line in a value", head(&[(":status", "200"), ("x", "y\r\nz: 1")]), false, Failure(502)),
        (
            "a field for connections",
            head(&[(":status", "200"), ("connection", "close")]),
            false,
            Failure(502),
        ),
        ("a coding", head(&[(":status", "200"), ("transfer-encoding", "chunked")]), false, Failure(502)),
        ("101", head(&[(":status", "101")]), false, Failure(502)),
        ("too many interim responses", head(&[(":status", "103")]).repeat(1_000), false, Failure(502)),
        ("101 fields", head(&many), false, Failure(502)),
        ("a head that is too large", large(), false, Failure(502)),
        (
            "fields that no table has",
            on_stream(HEADERS, END_HEADERS, &[0xff, 0xff, 0xff]),
            false,
            Failure(502),
        ),
    ]
}

/// Frames that may not come, and ends.
fn frames() -> Vec<Case> {
    vec![
        ("data before a head", data(0, b"ok"), false, Failure(502)),
        ("data of another stream", frame(DATA, 0, 7, b"ok"), false, Failure(502)),
        (
            "a head of no stream",
            frame(HEADERS, END_HEADERS, 0, &block(&[(":status", "200")])),
            false,
            Failure(502),
        ),
        ("a continuation of nothing", on_stream(CONTINUATION, END_HEADERS, &[]), false, Failure(502)),
        ("a push", on_stream(PUSH_PROMISE, END_HEADERS, &[0, 0, 0, 2, 0x82]), false, Failure(502)),
        ("settings of another length", frame(SETTINGS, 0, 0, &[0; 5]), false, Failure(502)),
        ("settings of a stream", frame(SETTINGS, 0, 1, &[]), false, Failure(502)),
        ("a frame that is too large", on_stream(DATA, 0, &[0; 20_000]), false, Failure(502)),
        ("a window that grows by nothing", frame(WINDOW_UPDATE, 0, 0, &[0; 4]), false, Failure(502)),
        (
            "a window that overflows",
            frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
            false,
            Failure(502),
        ),
        ("a reset", on_stream(RST_STREAM, 0, &[0, 0, 0, 2]), false, Failure(502)),
        ("a goodbye", frame(GOAWAY, 0, 0, &[0; 8]), true, Failure(502)),
        ("an end within a frame", vec![0, 0, 9, HEADERS, END_HEADERS, 0, 0], true, Failure(502)),
    ]
}

/// Bodies, and what lies behind them.
fn bodies() -> Vec<Case> {
    vec![
        ("a reset within the body", after(&on_stream(RST_STREAM, 0, &[0, 0, 0, 2])), false, Cut),
        ("an end within the body", after(&data(0, b"part")), true, Cut),
        ("a body that stops", after(&data(0, b"part")), false, Cut),
        (
            "less than the length",
            [head(&[(":status", "200"), ("content-length", "9")]), data(END_STREAM, b"ok")].concat(),
            false,
            Cut,
        ),
        (
            "more than the length",
            [head(&[(":status", "200"), ("content-length", "1")]), data(0, b"okay"), data(END_STREAM, b"")]
                .concat(),
            false,
            Cut,
        ),
        (
            "trailers with a status, which h2 drops",
            [
                after(&data(0, b"ok")),
                on_stream(HEADERS, END_HEADERS | END_STREAM, &block(&[(":status", "200")])),
            ]
            .concat(),
            false,
            Whole,
        ),
        ("all as it should be", after(&data(END_STREAM, b"ok")), false, Whole),
        ("data after the end", [after(&data(END_STREAM, b"ok")), data(0, b"more")].concat(), false, Whole),
    ]
}

/// Answers each connection's first request with these frames.
fn backend(frames: Vec<u8>, closes: bool) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            let frames = frames.clone();
            std::thread::spawn(move || {
                let mut wire = Wire::new(stream);
                let mut preface = [0; PREFACE.len()];
                if wire.read_exact(&mut preface).is_err() {
                    return;
                }
                let _ = wire.send(&frame(SETTINGS, 0, 0, &[]));
                while let Ok(frame) = wire.read() {
                    if frame.kind == HEADERS {
                        let _ = wire.send(&answering(&frames, frame.stream));
                        if closes {
                            return;
                        }
                    }
                }
            });
        }
    });
    port
}

/// The same frames, on this stream instead of the first.
fn answering(frames: &[u8], stream: u32) -> Vec<u8> {
    let (mut frames, mut at) = (frames.to_vec(), 0);
    while let Some(header) = frames.get_mut(at..at + 9) {
        if header[5..] == 1_u32.to_be_bytes() {
            header[5..].copy_from_slice(&stream.to_be_bytes());
        }
        at += 9 + u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
    }
    frames
}

fn judge(port: u16, seen: Seen) -> Result<(), String> {
    let mut connection = Connection::open(port).expect("serves");
    connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").map_err(|error| error.to_string())?;
    let head = loop {
        let head = connection.read_head().map_err(|error| format!("no head: {error}"))?;
        if head.status >= 200 {
            break head;
        }
    };
    let (status, reason) = (head.status, head.header("x-weir-reason").map(str::to_owned));
    let rest = connection.read_rest(head).map(|answer| answer.text());
    let is_right = match seen {
        Failure(want) => status == want && reason.is_some() && rest.is_ok(),
        Cut => status == 200 && reason.is_none() && rest.is_err(),
        Whole => status == 200 && rest.as_deref().is_ok_and(|text| text == "ok"),
    };
    if is_right { Ok(()) } else { Err(format!("{status} {reason:?} {rest:?}, and not {seen:?}")) }
}

#[test]
fn a_backend_that_breaks_http2_fails_its_own_requests_and_no_client_hangs() {
    let folder = Folder::new();
    let mut sites = Vec::new();
    for (nth, (name, frames, closes, seen)) in cases().into_iter().enumerate() {
        let mut pool = PoolText::new(&format!("case-{nth}"), ports::free(), &[(backend(frames, closes), 1)]);
        pool.request_timeout = "1s".to_owned();
        pool.timeouts = "idle: 1s".to_owned();
        pool.spec = vec!["retry: { attempts: 0 }".to_owned()];
        pool.set = vec!["protocol: HTTP2".to_owned()];
        folder.write(&format!("{nth}.yaml"), &pool.yaml());
        sites.push((name, pool.port, seen));
    }
    let _weir = Service::standalone(folder.path(), &[]);
    let mut wrong = Vec::new();
    for (name, port, seen) in sites {
        // Twice: the second request finds what the first left behind.
        for round in 1..=2 {
            if let Err(what) = judge(port, seen) {
                wrong.push(format!("{name}, request {round}: {what}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

//! Backends of HTTP/1 that do not do as they should: no client hangs, none is told a part for the whole, and no connection
//! is used again that is in doubt.

use std::sync::mpsc;
use weir_tests::harness::client::{Answer, Connection, read_to};
use weir_tests::harness::folder::Folder;
use weir_tests::harness::manifest::PoolText;
use weir_tests::harness::ports;
use weir_tests::harness::scripted::Scripted;
use weir_tests::harness::services::Service;

/// What the client has to see.
#[derive(Debug, Clone, Copy)]
enum Seen {
    /// An answer of ours: status and reason.
    Failure(u16, &'static str),
    /// A head with status 200, and then no whole body.
    Cut,
    /// The backend's answer, whole.
    Whole(u16, &'static str),
}

/// What the backend does after its bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Then {
    /// It ends the connection.
    Close,
    /// It is silent, and leaves the connection open.
    Wait,
}

use Seen::{Cut, Failure, Whole};
use Then::{Close, Wait};

const INVALID: Seen = Failure(502, "backend_invalid");
const CLOSED: Seen = Failure(502, "backend_closed");
const LATE: Seen = Failure(504, "backend_timeout");

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Name, the backend's bytes, what it does then, what the client sees.
type Case = (&'static str, String, Then, Seen);

fn cases() -> Vec<Case> {
    [heads(), framings(), silences(), bodies(), leftovers()].concat()
}

fn head(fields: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\nok")
}

fn chunks(chunks: &str) -> String {
    format!("{CHUNKED}{chunks}")
}

/// Heads that are none.
fn heads() -> Vec<Case> {
    vec![
        ("no HTTP", "garbage\r\n\r\n".into(), Wait, INVALID),
        ("no number for a status", "HTTP/1.1 abc OK\r\n\r\n".into(), Wait, INVALID),
        ("a status of two digits", "HTTP/1.1 99 x\r\n\r\n".into(), Wait, INVALID),
        ("a status of four digits", "HTTP/1.1 2000 x\r\n\r\n".into(), Wait, INVALID),
        ("a status below 100", "HTTP/1.1 099 x\r\n\r\n".into(), Wait, INVALID),
        ("another version", "HTTP/2.0 200 OK\r\n\r\n".into(), Wait, INVALID),
        ("a version in lower case", "http/1.1 200 OK\r\n\r\n".into(), Wait, INVALID),
        ("two blanks in the status line", "HTTP/1.1  200 OK\r\n\r\n".into(), Wait, INVALID),
        ("an empty line first", format!("\r\n{OK}"), Wait, INVALID),
        ("a bare LF", "HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nok".into(), Wait, INVALID),
        ("a folded line", head("X: a\r\n b\r\nContent-Length: 2"), Wait, INVALID),
        ("a blank before the colon", head("Content-Length : 2"), Wait, INVALID),
        ("a NUL", head("X: \0\r\nContent-Length: 2"), Wait, INVALID),
        ("a name that is none", head("X(: 1\r\nContent-Length: 2"), Wait, INVALID),
    ]
}

/// Heads that say in two ways, or in none, where their body ends.
fn framings() -> Vec<Case> {
    let many = |count: usize| (0..count).map(|n| format!("x-{n}: 1\r\n")).collect::<String>();
    vec![
        ("two lengths", head("Content-Length: 2\r\nContent-Length: 3"), Wait, INVALID),
        ("two equal lengths", head("Content-Length: 2\r\nContent-Length: 2"), Wait, INVALID),
        ("a list of lengths", head("Content-Length: 2, 2"), Wait, INVALID),
        ("a length with a sign", head("Content-Length: +2"), Wait, INVALID),
        ("a length that overflows", head("Content-Length: 18446744073709551618"), Wait, INVALID),
        ("a length and chunks", head("Content-Length: 2\r\nTransfer-Encoding: chunked"), Wait, INVALID),
        ("a coding that is not chunked", head("Transfer-Encoding: gzip"), Wait, INVALID),
        ("chunked twice", head("Transfer-Encoding: chunked, chunked"), Wait, INVALID),
        (
            "chunks over HTTP/1.0",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".into(),
            Wait,
            INVALID,
        ),
        ("a head over 32 KiB", head(&format!("X: {}", "x".repeat(33 << 10))), Wait, INVALID),
        ("a head without an end", format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(40 << 10)), Wait, INVALID),
        ("101 fields", head(&format!("{}Content-Length: 2", many(100))), Wait, INVALID),
        ("101 that nobody asked for", "HTTP/1.1 101 x\r\nUpgrade: websocket\r\n\r\n".into(), Wait, INVALID),
        ("too many interim responses", "HTTP/1.1 103 x\r\n\r\n".repeat(1_000), Wait, INVALID),
        (
            "an interim response with a body",
            "HTTP/1.1 103 x\r\nContent-Length: 2\r\n\r\nok".into(),
            Wait,
            INVALID,
        ),
        ("204 with a length", "HTTP/1.1 204 x\r\nContent-Length: 2\r\n\r\nok".into(), Wait, INVALID),
        ("204 with chunks", format!("{}0\r\n\r\n", CHUNKED.replace("200", "204")), Wait, INVALID),
    ]
}

/// Backends that end, or say nothing more.
fn silences() -> Vec<Case> {
    vec![
        ("an end before the head", String::new(), Close, CLOSED),
        ("an end within the head", "HTTP/1.1 200 OK\r\nX: ".into(), Close, CLOSED),
        ("nothing", String::new(), Wait, LATE),
        ("half a head", "HTTP/1.1 200 OK\r\nX: ".into(), Wait, LATE),
        ("only interim responses", "HTTP/1.1 103 x\r\n\r\n".into(), Wait, LATE),
    ]
}

/// Bodies that are not what their heads said.
fn bodies() -> Vec<Case> {
    vec![
        ("a body that is short", head("Content-Length: 9"), Close, Cut),
        ("a body that stops", head("Content-Length: 9"), Wait, Cut),
        ("a chunk without a size", chunks("x\r\nok\r\n0\r\n\r\n"), Wait, Cut),
        ("a chunk that is longer than its size", chunks("2\r\nokay\r\n0\r\n\r\n"), Wait, Cut),
        ("a chunk that ends with LF", chunks("2\r\nok\n0\r\n\r\n"), Wait, Cut),
        ("a size that ends with LF", chunks("2\nok\r\n0\r\n\r\n"), Wait, Cut),
        ("a size with a sign", chunks("+2\r\nok\r\n0\r\n\r\n"), Wait, Cut),
        ("a size that overflows", chunks("ffffffffffffffffff\r\nok"), Wait, Cut),
        ("a size's line without an end", chunks(&format!("2;{}", "x".repeat(1_000))), Wait, Cut),
        ("chunks without the last", chunks("2\r\nok\r\n"), Close, Cut),
        ("chunks that stop", chunks("2\r\nok\r\n"), Wait, Cut),
        ("trailers that are none", chunks("2\r\nok\r\n0\r\nx y: 1\r\n\r\n"), Wait, Cut),
        ("trailers without an end", chunks(&format!("2\r\nok\r\n0\r\nx: {}", "x".repeat(9_000))), Wait, Cut),
    ]
}

/// Whole answers, and what may lie behind them.
fn leftovers() -> Vec<Case> {
    vec![
        ("garbage after the body", format!("{OK}garbage"), Wait, Whole(200, "ok")),
        ("a second response", format!("{OK}{}", OK.replace("ok", "no")), Wait, Whole(200, "ok")),
        ("garbage after the last chunk", chunks("2\r\nok\r\n0\r\n\r\ngarbage"), Wait, Whole(200, "ok")),
        ("a body after a length of 0", head("Content-Length: 0"), Wait, Whole(200, "")),
        ("a body after 304", head("ETag: \"a\"").replace("200", "304"), Wait, Whole(304, "")),
        ("a body after 204", "HTTP/1.1 204 x\r\n\r\nok".into(), Wait, Whole(204, "")),
        ("a body to the end", head("X: y"), Close, Whole(200, "ok")),
        ("a close that is announced", head("Content-Length: 2\r\nConnection: close"), Wait, Whole(200, "ok")),
        ("HTTP/1.0", head("Content-Length: 2").replace("HTTP/1.1", "HTTP/1.0"), Wait, Whole(200, "ok")),
    ]
}

struct Site {
    _folder: Folder,
    _weir: Service,
    port: u16,
    asked: mpsc::Receiver<(usize, String)>,
}

/// A proxy before a backend that answers `/N` with case N and everything else well.
fn site() -> Site {
    let (say, asked) = mpsc::channel();
    let backend = Scripted::start(move |number, exchange| {
        while let Some(request) = exchange.read_request() {
            let path = request.head.split(' ').nth(1).unwrap_or_default().to_owned();
            let _ = say.send((number, path.clone()));
            let Some((_, bytes, then, _)) =
                path[1..].parse::<usize>().ok().and_then(|n| cases().into_iter().nth(n))
            else {
                exchange.write(OK);
                continue;
            };
            exchange.write(&bytes);
            if then == Close {
                return;
            }
        }
    });
    let mut pool = PoolText::new("distrusted", ports::free(), &[(backend.port, 1)]);
    pool.request_timeout = "1s".to_owned();
    pool.timeouts = "idle: 1s".to_owned();
    pool.spec = vec!["retry: { attempts: 0 }".to_owned()];
    let folder = Folder::new();
    folder.write("pool.yaml", &pool.yaml());
    let weir = Service::standalone(folder.path(), &[]);
    Site { _folder: folder, _weir: weir, port: pool.port, asked }
}

fn is_as_expected(seen: Seen, connection: &mut Connection) -> Result<(), String> {
    let mut head = loop {
        let head = connection.read_head().map_err(|error| format!("no head: {error}"))?;
        if head.status >= 200 {
            break head;
        }
    };
    let status = head.status;
    let reason = head.header("x-weir-reason").map(str::to_owned);
    if status == 304 || status == 204 {
        head.headers.retain(|(name, _)| name != "content-length");
    }
    let rest = connection.read_rest(head).map(|answer: Answer| answer.text());
    let is_right = match seen {
        Failure(want, why) => status == want && reason.as_deref() == Some(why) && rest.is_ok(),
        Cut => status == 200 && reason.is_none() && rest.is_err(),
        Whole(want, body) => {
            status == want && reason.is_none() && rest.as_deref().is_ok_and(|text| text == body)
        }
    };
    if is_right { Ok(()) } else { Err(format!("{status} {reason:?} {rest:?}, and not {seen:?}")) }
}

#[test]
fn no_client_hangs_and_no_connection_in_doubt_is_used_again() {
    let (site, cases) = (site(), cases());
    assert!(cases.len() >= 40, "{} cases", cases.len());
    let mut wrong = Vec::new();
    for (nth, (name, _, _, seen)) in cases.iter().enumerate() {
        let mut connection = Connection::open(site.port).expect("serves");
        connection.send(format!("GET /{nth} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).expect("open");
        if let Err(what) = is_as_expected(*seen, &mut connection) {
            wrong.push(format!("{name}: {what}"));
        }
        let good = Connection::open(site.port).and_then(|mut connection| connection.get("/ok"));
        match good {
            Ok(answer) if (answer.status, answer.text().as_str()) == (200, "ok") => {}
            other => wrong.push(format!("{name}: what follows got {other:?}")),
        }
        let asked: Vec<_> = site.asked.try_iter().collect();
        match asked.as_slice() {
            // A kept connection that ends without a byte was closed before: the request goes once more, on a new one.
            [bad @ .., (good, path)]
                if path == "/ok" && !bad.is_empty() && bad.iter().all(|(number, _)| number != good) => {}
            other => wrong.push(format!("{name}: asked on {other:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_body_in_answer_to_head_is_passed_to_nobody() {
    use std::io::Write as _;
    let (say, numbers) = mpsc::channel();
    let backend = Scripted::start(move |number, exchange| {
        while exchange.read_request().is_some() {
            let _ = say.send(number);
            exchange.write(OK);
        }
    });
    let folder = Folder::new();
    let pool = PoolText::new("head", ports::free(), &[(backend.port, 1)]);
    folder.write("pool.yaml", &pool.yaml());
    let _weir = Service::standalone(folder.path(), &[]);
    let mut stream = Connection::open(pool.port).expect("serves").into_stream();
    for _ in 0..3 {
        stream.write_all(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").expect("kept");
        let head = read_to(&stream, "\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("content-length: 2\r\n"), "{head}");
    }
    let numbers: Vec<usize> = numbers.try_iter().collect();
    assert!(numbers[0] != numbers[1] && numbers[1] != numbers[2], "{numbers:?}");
}

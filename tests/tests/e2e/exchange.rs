//! One request through the proxy, with backends and clients that behave oddly or badly.

use crate::http2_client::over_http2;
use std::sync::mpsc;
use weir_tests::harness::client::{Connection, read_to};
use weir_tests::harness::folder::Folder;
use weir_tests::harness::manifest::PoolText;
use weir_tests::harness::ports;
use weir_tests::harness::scripted::{Exchange, Scripted};
use weir_tests::harness::services::Service;
use weir_tests::harness::wait::GENEROUS;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

struct Through {
    _folder: Folder,
    _weir: Service,
    port: u16,
}

/// A proxy before these backends.
fn through(backends: &[u16]) -> Through {
    let port = ports::free();
    let folder = Folder::new();
    let backends: Vec<_> = backends.iter().map(|&port| (port, 1)).collect();
    folder.write("pool.yaml", &PoolText::new("exchange", port, &backends).yaml());
    let weir = Service::standalone(folder.path(), &[]);
    Through { _folder: folder, _weir: weir, port }
}

/// A proxy before one backend with this script.
fn before(script: impl Fn(usize, &mut Exchange) + Send + Sync + 'static) -> Through {
    through(&[Scripted::start(script).port])
}

/// A proxy before a backend that answers every request with these bytes, and then closes.
fn before_answer(answer: &'static str) -> Through {
    before(move |_, exchange| {
        if exchange.read_head().is_some() {
            exchange.write(answer);
        }
    })
}

#[test]
fn chunks_and_trailers_pass_in_both_directions() {
    let (seen, heard) = mpsc::channel();
    let through = before(move |_, exchange| {
        let head = exchange.read_head().expect("a request");
        let body = exchange.read_until("\r\n\r\n").expect("a body");
        seen.send((head, body)).expect("the test listens");
        exchange.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n");
        exchange.write("5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\nx-sum: 11\r\n\r\n");
    });
    let mut connection = Connection::open(through.port).expect("serves");
    connection
        .send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Forwarded-For: 6.6.6.6\r\nx-in: 1\r\n\r\n")
        .expect("open");
    let raw = connection.into_stream();
    let (head, body) = heard.recv_timeout(GENEROUS).expect("the backend is asked");
    assert!(head.contains("transfer-encoding: chunked\r\n") && !head.contains("content-length"), "{head}");
    assert_eq!(body, "3\r\nabc\r\n0\r\nx-in: 1\r\n\r\n", "a trailer says nothing of the client");
    let answer = read_to(&raw, "\r\n0\r\nx-sum: 11\r\n\r\n");
    assert!(answer.contains("hello") && answer.contains(" world") && !answer.contains("ext"), "{answer}");
}

#[test]
fn a_body_that_ends_with_its_connection_is_passed_on_in_chunks_or_to_the_end() {
    let through = before_answer("HTTP/1.1 200 OK\r\nETag: \"1\"\r\n\r\nuntil the end");
    let mut connection = Connection::open(through.port).expect("serves");
    for _ in 0..2 {
        let answer = connection.get("/").expect("an answer, and the client's connection is kept");
        assert_eq!(answer.text(), "until the end");
        assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
    }
    let mut old = Connection::open(through.port).expect("serves");
    let answer = old.request("GET / HTTP/1.0\r\n\r\n").expect("an answer");
    assert_eq!((answer.text().as_str(), answer.header("transfer-encoding")), ("until the end", None));
    assert!(answer.closes());
}

#[test]
fn head_and_304_have_lengths_without_bodies_and_keep_the_connection() {
    let through = before(|_, exchange| {
        while let Some(head) = exchange.read_head() {
            let status = if head.starts_with("HEAD") { "200 OK" } else { "304 Not Modified" };
            exchange.write(&format!("HTTP/1.1 {status}\r\nContent-Length: 5000\r\n\r\n"));
        }
    });
    let connection = Connection::open(through.port).expect("serves");
    let mut stream = connection.into_stream();
    for request in ["HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"] {
        use std::io::Write as _;
        stream.write_all(request.as_bytes()).expect("kept");
        let head = read_to(&stream, "\r\n\r\n");
        assert!(head.contains("content-length: 5000\r\n"), "{head}");
    }
}

#[test]
fn a_failure_in_answer_to_head_has_no_body() {
    let through = through(&[ports::free()]);
    let connection = Connection::open(through.port).expect("serves");
    let mut stream = connection.into_stream();
    for _ in 0..2 {
        use std::io::Write as _;
        stream.write_all(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").expect("kept");
        let head = read_to(&stream, "\r\n\r\n");
        assert!(
            head.starts_with("HTTP/1.1 502 ") && head.contains("x-weir-reason: connect_failed"),
            "{head}"
        );
    }
}

#[test]
fn interim_responses_reach_the_client_and_release_its_body() {
    let through = before(|_, exchange| {
        let head = exchange.read_head().expect("a request");
        assert!(head.contains("expect: 100-continue"), "{head}");
        exchange.write("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n");
        exchange.read_until("body").expect("the body");
        exchange.write(OK);
    });
    let mut connection = Connection::open(through.port).expect("serves");
    connection
        .send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        .expect("open");
    let hints = connection.read_answer().expect("an interim response");
    assert_eq!((hints.status, hints.header("link")), (103, Some("</a.css>")));
    assert_eq!(connection.read_answer().expect("an interim response").status, 100);
    assert_eq!(connection.request("body").expect("an answer").text(), "ok");
}

#[test]
fn an_answer_before_the_end_of_the_request_arrives_and_the_connection_ends() {
    let through = before(|_, exchange| {
        exchange.read_head().expect("a request");
        exchange.write("HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n");
        exchange.read_until("never");
    });
    let mut connection = Connection::open(through.port).expect("serves");
    let answer = connection
        .request("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nsome")
        .expect("an answer");
    assert_eq!(answer.status, 413);
    connection.read_end().expect("the rest of the body would be taken for a request");
}

#[test]
fn an_answer_before_the_end_of_the_request_arrives_over_http2_too() {
    let through = before(|_, exchange| {
        exchange.read_head().expect("a request");
        exchange.write("HTTP/1.1 413 Content Too Large\r\nContent-Length: 8\r\n\r\ntoo much");
        exchange.read_until("never");
    });
    over_http2(through.port, async |mut client| {
        let request = http::Request::post("http://a/").body(()).expect("a request");
        let (answer, mut upload) = client.send_request(request, false).expect("open");
        upload.send_data(bytes::Bytes::from_static(b"some"), false).expect("open");
        let answer = answer.await.expect("an answer");
        assert_eq!(answer.status(), 413);
        let body = answer.into_body().data().await.expect("a body").expect("whole");
        assert_eq!(&body[..], b"too much");
    });
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let through = before(|_, exchange| {
        while let Some(head) = exchange.read_head() {
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            exchange.write(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len()));
        }
    });
    let mut connection = Connection::open(through.port).expect("serves");
    let request = |n: usize| format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n");
    connection.send((0..20).map(request).collect::<String>().as_bytes()).expect("open");
    for n in 0..20 {
        assert_eq!(connection.read_answer().expect("an answer").text(), format!("/{n}"));
    }
}

#[test]
fn a_kept_connection_that_the_backend_closed_costs_no_request() {
    // Every connection answers once and closes without a word; the close may overtake the next request or not.
    let through = before_answer(OK);
    let mut connection = Connection::open(through.port).expect("serves");
    for n in 0..50 {
        let answer = connection.get("/").expect("an answer");
        assert_eq!((n, answer.status), (n, 200), "{}", answer.text());
    }
}

#[test]
fn a_kept_connection_that_dies_under_a_request_is_replaced_only_where_repeating_is_safe() {
    let dying = || {
        before(|_, exchange| {
            exchange.read_head();
            exchange.write(OK);
            // The next request is read and never answered: the proxy cannot know whether it was carried out.
            exchange.read_head();
        })
    };
    let through = dying();
    let mut connection = Connection::open(through.port).expect("serves");
    assert_eq!(connection.get("/").expect("an answer").status, 200);
    assert_eq!(connection.get("/").expect("sent again on a new connection").status, 200);
    let delete = "DELETE / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(connection.request(delete).expect("sent again on a new connection").status, 200);
    // One that has not seen yet how soon this backend ends connections: it would not use an old one for this.
    let through = dying();
    let mut connection = Connection::open(through.port).expect("serves");
    assert_eq!(connection.get("/").expect("an answer").status, 200);
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
    let answer = connection.request(post).expect("an answer");
    assert_eq!((answer.status, answer.header("x-weir-reason")), (502, Some("backend_closed")));
}

#[test]
fn a_backend_that_accepts_nothing_is_passed_over() {
    let good = Scripted::start(|_, exchange| {
        while exchange.read_until("\r\n\r\nbody").is_some() {
            exchange.write(OK);
        }
    });
    let through = through(&[ports::free(), good.port]);
    let mut connection = Connection::open(through.port).expect("serves");
    for _ in 0..10 {
        let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";
        assert_eq!(connection.request(post).expect("an answer").status, 200);
    }
}

#[test]
fn answers_that_are_no_http_become_502_with_a_reason() {
    for (answer, reason) in [
        ("", "backend_closed"),
        ("HTTP/1.1 200 OK\r\nContent-Le", "backend_closed"),
        ("SSH-2.0-OpenSSH\r\n\r\n", "backend_invalid"),
        ("HTTP/1.1 200 OK\nContent-Length: 0\n\n", "backend_invalid"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "backend_invalid"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", "backend_invalid"),
        ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n", "backend_invalid"),
        ("HTTP/1.1 200 OK\r\nX: a\r\n folded\r\n\r\n", "backend_invalid"),
    ] {
        let through = before_answer(answer);
        let mut connection = Connection::open(through.port).expect("serves");
        let got = connection.get("/").expect("an answer");
        assert_eq!((got.status, got.header("x-weir-reason")), (502, Some(reason)), "{answer:?}");
        assert_eq!(got.json()["reason"], reason);
    }
}

#[test]
fn a_body_that_breaks_off_breaks_off_for_the_client_too() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nnonsense\r\n",
    ] {
        let through = before_answer(answer);
        let mut connection = Connection::open(through.port).expect("serves");
        connection.get("/").expect_err("a part must not pass for the whole");
    }
}

#[test]
fn a_client_that_leaves_ends_the_backends_work() {
    let (seen, heard) = mpsc::channel();
    let through = before(move |_, exchange| {
        exchange.read_head().expect("a request");
        seen.send("asked").expect("the test listens");
        assert!(exchange.read_head().is_none(), "nothing more is asked");
        seen.send("left").expect("the test listens");
    });
    let mut connection = Connection::open(through.port).expect("serves");
    connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("open");
    assert_eq!(heard.recv_timeout(GENEROUS), Ok("asked"));
    drop(connection);
    assert_eq!(heard.recv_timeout(GENEROUS), Ok("left"), "the connection to the backend is closed");
}

#[test]
fn a_head_at_the_limit_passes_and_one_past_it_is_431() {
    const HEAD_BYTES_MAX: usize = 32 << 10;
    let through = before(|_, exchange| {
        while exchange.read_head().is_some() {
            exchange.write(OK);
        }
    });
    let frame = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n".len();
    let of = |bytes: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(bytes - frame));
    let mut connection = Connection::open(through.port).expect("serves");
    assert_eq!(connection.request(&of(HEAD_BYTES_MAX)).expect("an answer").status, 200);
    let answer = connection.request(&of(HEAD_BYTES_MAX + 1)).expect("an answer");
    assert_eq!((answer.status, answer.header("x-weir-reason")), (431, Some("head_too_large")));
}

#[test]
fn a_refused_request_keeps_its_connection_where_its_body_is_there_and_says_so_where_it_is_not() {
    let port = ports::free();
    let folder = Folder::new();
    let mut pool = PoolText::new("exchange", port, &[(ports::free(), 1)]);
    pool.path = Some("/only".to_owned());
    folder.write("pool.yaml", &pool.yaml());
    let _weir = Service::standalone(folder.path(), &[]);
    let mut connection = Connection::open(port).expect("serves");
    for _ in 0..3 {
        let post = "POST /other HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
        let answer = connection.request(post).expect("the connection is kept");
        assert_eq!((answer.status, answer.closes()), (404, false));
    }
    let half = "POST /other HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\nhello";
    let answer = connection.request(half).expect("an answer");
    assert_eq!((answer.status, answer.closes()), (404, true));
}

#[test]
fn a_part_of_a_body_that_ends_with_its_connection_ends_with_a_reset() {
    let through = before_answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    let mut stream = Connection::open(through.port).expect("serves").into_stream();
    use std::io::{ErrorKind, Read as _, Write as _};
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("open");
    let mut bytes = Vec::new();
    let end = stream.read_to_end(&mut bytes).expect_err("an orderly end would make the part look whole");
    assert_eq!(end.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_head_that_does_not_come_in_time_is_408_whether_it_is_the_first_or_not() {
    let through = before(|_, exchange| {
        while exchange.read_head().is_some() {
            exchange.write(OK);
        }
    });
    let first = "G";
    let second = "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HT";
    let mut open: Vec<_> = [first, second]
        .map(|bytes| {
            let mut connection = Connection::open(through.port).expect("serves");
            connection.send(bytes.as_bytes()).expect("open");
            connection
        })
        .into();
    assert_eq!(open[1].read_answer().expect("an answer").status, 200);
    for connection in &mut open {
        let answer = connection.read_answer().expect("an answer");
        assert_eq!((answer.status, answer.header("x-weir-reason")), (408, Some("request_slow")));
        connection.read_end().expect("closed");
    }
}

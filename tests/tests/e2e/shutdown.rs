//! SIGTERM, and the end of a listener or a pool.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Message, WebSocket};
use weir_tests::harness::client::{self, Connection, read_to};
use weir_tests::harness::folder::Folder;
use weir_tests::harness::manifest::PoolText;
use weir_tests::harness::scripted::Scripted;
use weir_tests::harness::services::{READY, Samples, Service, is_free};
use weir_tests::harness::{ports, wait};

struct Serving {
    samples: Samples,
    folder: Folder,
    weir: Service,
    port: u16,
}

fn serving(flags: &[&str]) -> Serving {
    let samples = Samples::start("member", 1);
    let port = ports::free();
    let folder = Folder::new();
    folder.write("pool.yaml", &PoolText::new("ending", port, &samples.equal()).yaml());
    let weir = Service::standalone(folder.path(), flags);
    Serving { samples, folder, weir, port }
}

impl Serving {
    /// A request that the backend answers after `delay`, sent and arrived at the backend.
    fn slow_request(&self, delay: &str) -> Connection {
        let mut connection = Connection::open(self.port).expect("serves");
        connection
            .send(format!("GET /?delay={delay} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())
            .expect("sent");
        wait::until("the request should reach the backend", || {
            let detail = client::fetch(self.samples.ports[0], "/health/detailed").ok()?;
            (detail.json()["inFlight"].as_u64()? >= 2).then_some(())
        });
        connection
    }

    /// A WebSocket that has echoed.
    fn websocket(&self, host: &str) -> Socket {
        let stream = Connection::open(self.port).expect("serves").into_stream();
        let (mut socket, _) = tungstenite::client(format!("ws://{host}/"), stream).expect("an upgrade");
        echo(&mut socket);
        socket
    }
}

type Socket = WebSocket<std::net::TcpStream>;

fn echo(socket: &mut Socket) {
    socket.send(Message::text("still here")).expect("open");
    assert_eq!(socket.read().expect("the echo").to_text().expect("text"), "still here");
}

/// Waits for the word that this end goes away, and answers it. Gives the moment.
fn farewell(mut socket: Socket) -> Instant {
    match socket.read() {
        Ok(Message::Close(Some(CloseFrame { code: CloseCode::Away, .. }))) => {}
        other => panic!("not told to go: {other:?}"),
    }
    let told = Instant::now();
    while socket.read().is_ok() {}
    told
}

#[test]
fn a_request_in_flight_finishes_new_connections_are_refused_and_the_exit_code_is_0() {
    let serving = serving(&[]);
    let mut slow = serving.slow_request("2s");
    let mut idle = Connection::open(serving.port).expect("serves");
    idle.get("/").expect("an answer");
    serving.weir.process.terminate();
    wait::until("new connections should be refused", || {
        Connection::open(serving.port).is_err().then_some(())
    });
    idle.read_end().expect("an idle connection is closed");
    let answer = slow.read_answer().expect("what was in flight is answered");
    assert_eq!(answer.status, 200);
    assert!(answer.closes(), "no next request is invited: {:?}", answer.headers);
    let ended = serving.weir.process.wait();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    assert!(ended.took < Duration::from_secs(10), "{:?}", ended.took);
    assert!(is_free(serving.port));
}

#[test]
fn readiness_is_withdrawn_when_the_drain_begins() {
    let serving = serving(&[]);
    let mut slow = serving.slow_request("2s");
    serving.weir.process.terminate();
    wait::until("readiness should be withdrawn", || {
        (client::fetch(serving.weir.admin, READY).ok()?.status == 503).then_some(())
    });
    assert_eq!(slow.read_answer().expect("what was in flight is answered").status, 200);
}

#[test]
fn a_request_longer_than_the_drain_limit_is_cut_at_the_limit() {
    let serving = serving(&["--drain-timeout", "1s"]);
    let mut slow = serving.slow_request("60s");
    serving.weir.process.terminate();
    let ended = serving.weir.process.wait();
    assert!(ended.took >= Duration::from_millis(900), "{:?}", ended.took);
    assert!(ended.took < Duration::from_secs(5), "{:?}", ended.took);
    slow.read_answer().expect_err("it was cut");
    assert_eq!(ended.status.code(), Some(3), "{}", ended.stderr);
    let said = ended.stderr.lines().find(|line| line.contains("what was still open is cut"));
    let said = said.expect("it is said what was cut");
    assert!(said.contains("the drain limit has passed") && said.contains("requests=1"), "{said}");
}

#[test]
fn a_second_signal_ends_at_once() {
    let serving = serving(&[]);
    let _slow = serving.slow_request("60s");
    serving.weir.process.terminate();
    wait::until("the drain should begin", || Connection::open(serving.port).is_err().then_some(()));
    serving.weir.process.terminate();
    let ended = serving.weir.process.wait();
    assert_eq!(ended.status.code(), Some(130), "{}", ended.stderr);
    assert!(ended.took < Duration::from_secs(5), "{:?}", ended.took);
}

#[test]
fn sigint_is_sigterm_and_a_second_one_ends_at_once() {
    let serving = serving(&[]);
    let _slow = serving.slow_request("60s");
    serving.weir.process.interrupt();
    wait::until("the drain should begin", || Connection::open(serving.port).is_err().then_some(()));
    serving.weir.process.interrupt();
    assert_eq!(serving.weir.process.wait().status.code(), Some(130));
}

#[test]
fn everything_is_served_as_before_until_the_floor_is_over() {
    let serving = serving(&["--accept-floor", "2s"]);
    let mut kept = Connection::open(serving.port).expect("serves");
    let began = Instant::now();
    serving.weir.process.terminate();
    wait::until("readiness should be withdrawn", || {
        (client::fetch(serving.weir.admin, READY).ok()?.status == 503).then_some(())
    });
    let mut fresh = Connection::open(serving.port).expect("accepted");
    for connection in [&mut kept, &mut fresh] {
        let answer = connection.get("/").expect("an answer");
        assert!(answer.status == 200 && !answer.closes(), "{:?}", answer.headers);
    }
    assert!(began.elapsed() < Duration::from_secs(2), "the machine was too slow to tell");
    wait::until("new connections should be refused", || {
        Connection::open(serving.port).is_err().then_some(())
    });
    assert!(began.elapsed() >= Duration::from_millis(1_900), "{:?}", began.elapsed());
    assert_eq!(serving.weir.process.wait().status.code(), Some(0));
}

#[test]
fn websockets_are_told_to_go_spread_over_the_window_and_nothing_is_cut() {
    let serving = serving(&["--tunnel-window", "2s"]);
    let sockets: Vec<Socket> = (0..20).map(|_| serving.websocket("localhost")).collect();
    serving.weir.process.terminate();
    let began = Instant::now();
    let waiting = sockets.into_iter().map(|socket| std::thread::spawn(move || farewell(socket)));
    let waiting: Vec<_> = waiting.collect();
    let told: Vec<Duration> =
        waiting.into_iter().map(|thread| thread.join().expect("told to go").duration_since(began)).collect();
    let (first, last) = (told.iter().min().expect("some"), told.iter().max().expect("some"));
    assert!(*last - *first > Duration::from_millis(800), "not spread: {told:?}");
    let ended = serving.weir.process.wait();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    assert!(began.elapsed() < Duration::from_secs(8), "the limit was not waited for: {:?}", began.elapsed());
}

#[test]
fn a_websocket_in_the_middle_of_a_frame_is_ended_without_a_word_in_between() {
    const BEGUN: &str = "\u{2}\u{7d}begun";
    let backend = Scripted::start(|_, exchange| {
        let Some(head) = exchange.read_head() else { return };
        if let Some(key) = head.split("\r\n").find_map(|line| line.strip_prefix("sec-websocket-key: ")) {
            let proof = derive_accept_key(key.as_bytes());
            exchange.write(&format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {proof}\r\n\r\n"
            ));
            exchange.write(BEGUN);
            exchange.stay();
        }
    });
    let (port, folder) = (ports::free(), Folder::new());
    folder.write("pool.yaml", &PoolText::new("ending", port, &[(backend.port, 1)]).yaml());
    let weir = Service::standalone(folder.path(), &["--tunnel-window", "0s"]);
    let mut stream = Connection::open(port).expect("serves").into_stream();
    let upgrade = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(upgrade.as_bytes()).expect("open");
    assert!(read_to(&stream, BEGUN).starts_with("HTTP/1.1 101 "));
    weir.process.terminate();
    let ended = weir.process.wait();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert_eq!(rest, b"");
}

/// A frame of HTTP/2: type, flags, stream and payload.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The next frame of this type.
fn read_frame(stream: &mut std::net::TcpStream, wanted: u8) -> (u8, Vec<u8>) {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).expect("a frame");
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).expect("short")];
        stream.read_exact(&mut payload).expect("its payload");
        if head[3] == wanted {
            return (head[4], payload);
        }
    }
}

#[test]
fn a_request_that_crosses_the_first_goaway_is_answered_and_the_second_one_names_it() {
    const HEADERS: u8 = 1;
    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    const GOAWAY: u8 = 7;
    let serving = serving(&[]);
    let mut stream = Connection::open(serving.port).expect("serves").into_stream();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("sent");
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).expect("sent");
    read_frame(&mut stream, SETTINGS);
    stream.write_all(&frame(SETTINGS, 1, 0, &[])).expect("sent");
    serving.weir.process.terminate();
    let (_, first) = read_frame(&mut stream, GOAWAY);
    assert_eq!(first[..8], [0x7F, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0], "no stream is given up, no error");
    let (_, ping) = read_frame(&mut stream, PING);
    // GET http://localhost/ by HPACK's static table, sent before the client could have heard.
    let request = [&[0x82, 0x86, 0x84, 0x41, 9][..], b"localhost"].concat();
    stream.write_all(&frame(HEADERS, 5, 1, &request)).expect("sent");
    stream.write_all(&frame(PING, 1, 0, &ping)).expect("sent");
    // The answer and the second GOAWAY come in either order.
    let (mut has_answer, mut last) = (false, None);
    while !has_answer || last.is_none() {
        let mut head = [0; 9];
        stream.read_exact(&mut head).expect("a frame");
        let mut payload = vec![0; usize::from(u16::from_be_bytes([head[1], head[2]]))];
        stream.read_exact(&mut payload).expect("its payload");
        match head[3] {
            HEADERS => {
                assert_eq!(payload[0], 0x88, "200 by HPACK's static table");
                has_answer = true;
            }
            GOAWAY => last = Some(payload[..4].to_vec()),
            _ => {}
        }
    }
    assert_eq!(last, Some(vec![0, 0, 0, 1]), "the request is named as the last one that is served");
    assert_eq!(serving.weir.process.wait().status.code(), Some(0));
}

#[test]
fn a_listener_that_is_removed_drains_its_connections() {
    let serving = serving(&["--tunnel-window", "1s"]);
    let socket = serving.websocket("localhost");
    let mut idle = Connection::open(serving.port).expect("serves");
    idle.get("/").expect("an answer");
    let mut slow = serving.slow_request("2s");
    let other = ports::free();
    let moved = PoolText::new("ending", other, &serving.samples.equal()).yaml();
    serving.folder.write("pool.yaml", &moved);
    wait::until("the port should close", || Connection::open(serving.port).is_err().then_some(()));
    farewell(socket);
    idle.read_end().expect("closed in order");
    let answer = slow.read_answer().expect("what was in flight is answered");
    assert!(answer.status == 200 && answer.closes(), "{:?}", answer.headers);
    assert_eq!(client::fetch(other, "/").expect("an answer").status, 200, "the rest serves on");
}

#[test]
fn tunnels_of_a_pool_that_is_removed_end_and_those_of_its_neighbour_on_the_port_stay() {
    const REQUEST: &str = "GET / HTTP/1.1\r\nHost: stays.example\r\n\r\n";
    let serving = serving(&["--tunnel-window", "1s"]);
    for (file, name, host) in
        [("pool.yaml", "ending", "goes.example"), ("neighbour.yaml", "neighbour", "stays.example")]
    {
        let pool = PoolText::new(name, serving.port, &serving.samples.equal()).yaml();
        let listener = format!("protocol: HTTP\n      hostnames: [{host}]\n");
        serving.folder.write(file, &pool.replace("protocol: HTTP\n", &listener));
    }
    let mut kept = wait::until("the neighbour should serve", || {
        let mut connection = Connection::open(serving.port).ok()?;
        let elsewhere = connection.get("/").ok()?;
        let answer = connection.request(REQUEST).ok()?;
        (elsewhere.status == 404 && answer.status == 200).then_some(connection)
    });
    let (goes, mut remains) = (serving.websocket("goes.example"), serving.websocket("stays.example"));
    std::fs::remove_file(serving.folder.file("pool.yaml")).expect("removed");
    farewell(goes);
    echo(&mut remains);
    let answer = kept.request(REQUEST).expect("an answer");
    assert!(answer.status == 200 && !answer.closes(), "{:?}", answer.headers);
}

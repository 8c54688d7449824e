//! SIGTERM.

use std::time::Duration;
use weir_tests::harness::client::{self, Connection};
use weir_tests::harness::folder::Folder;
use weir_tests::harness::manifest::PoolText;
use weir_tests::harness::services::{READY, Samples, Service, is_free};
use weir_tests::harness::{ports, wait};

struct Serving {
    samples: Samples,
    _folder: Folder,
    weir: Service,
    port: u16,
}

fn serving(flags: &[&str]) -> Serving {
    let samples = Samples::start("member", 1);
    let port = ports::free();
    let folder = Folder::new();
    folder.write("pool.yaml", &PoolText::new("ending", port, &samples.equal()).yaml());
    let weir = Service::standalone(folder.path(), flags);
    Serving { samples, _folder: folder, weir, port }
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
fn an_open_websocket_is_closed_at_the_drain_limit_and_not_before() {
    let serving = serving(&["--drain-timeout", "1s"]);
    let stream = Connection::open(serving.port).expect("serves").into_stream();
    let (mut socket, _) = tungstenite::client("ws://localhost/", stream).expect("an upgrade");
    serving.weir.process.terminate();
    wait::until("the drain should begin", || Connection::open(serving.port).is_err().then_some(()));
    socket.send(tungstenite::Message::text("still here")).expect("open while the drain lasts");
    assert_eq!(socket.read().expect("the echo").to_text().expect("text"), "still here");
    assert!(socket.read().is_err(), "cut at the limit");
    let ended = serving.weir.process.wait();
    assert!(ended.took < Duration::from_secs(5), "{:?}", ended.took);
}

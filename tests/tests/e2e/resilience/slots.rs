//! How many requests a backend has at a time, and where the others wait.

use super::backends::Held;
use super::load::{End, Load, Shown, mixed};
use super::{Site, pool, told};
use std::collections::BTreeMap;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;
use weir_tests::harness::client::{Answer, Connection};
use weir_tests::harness::services::Samples;
use weir_tests::harness::wait::{self, GENEROUS};

const FULL: (u16, Option<&str>) = (503, Some("queue_full"));
/// Longer than a refusal takes, on any machine that runs tests.
const LONG: Duration = Duration::from_secs(1);

/// A site before one backend that holds its requests.
fn site(concurrency: &str) -> (Site, Held) {
    let backend = Held::start();
    let site = Site::start(&pool(&[backend.port], &[&format!("concurrency: {{ {concurrency} }}")]));
    (site, backend)
}

/// Requests on connections of their own; answers come as they come.
fn ask(site: &Site, count: usize) -> Receiver<Answer> {
    let (answered, answers) = mpsc::channel();
    for _ in 0..count {
        let (mut connection, answered) = (site.connect(), answered.clone());
        std::thread::spawn(move || {
            let _ = answered.send(connection.get("/").expect("an answer"));
        });
    }
    answers
}

fn next(answers: &Receiver<Answer>) -> Answer {
    answers.recv_timeout(GENEROUS).expect("an answer")
}

#[test]
fn no_backend_has_more_requests_than_it_may_and_nobody_starves_in_the_queue() {
    const CLIENTS: usize = 12;
    const SLOTS: usize = 2;
    let backends = [Held::start(), Held::start()];
    let queue = format!("queue: {{ maxRequests: {CLIENTS}, timeout: 1m }}");
    let concurrency = format!("concurrency: {{ maxRequestsPerBackend: {SLOTS}, {queue} }}");
    let site = Site::of_workers(&pool(&backends.each_ref().map(|backend| backend.port), &[&concurrency]));
    let load = Load::start(site.port, &mixed(CLIENTS / 4, 100));
    for backend in &backends {
        wait::until("every slot should be taken", || (backend.gate.waiting() == SLOTS).then_some(()));
    }
    for backend in &backends {
        backend.gate.open();
    }
    load.flow(1000);
    let mut answered = BTreeMap::<String, usize>::new();
    for Shown { id, end, .. } in load.stop() {
        assert_eq!(end, End::Good, "{id}");
        *answered.entry(id.split('-').next().expect("a client").to_owned()).or_default() += 1;
    }
    for backend in &backends {
        assert_eq!(backend.requests.most(), SLOTS);
    }
    let (least, most) = (answered.values().min().copied(), answered.values().max().copied());
    assert_eq!(answered.len(), CLIENTS);
    assert!(least.zip(most).is_some_and(|(least, most)| least * 4 >= most), "{answered:?}");
}

#[test]
fn without_a_queue_a_request_that_finds_no_slot_is_refused_at_once() {
    let (site, backend) = site("maxRequestsPerBackend: 2");
    let held = ask(&site, 2);
    wait::until("both should be there", || (backend.gate.waiting() == 2).then_some(()));
    for method in ["GET", "POST"] {
        assert_eq!(told(&site.send(method)), FULL);
    }
    backend.gate.open();
    assert_eq!([next(&held).status, next(&held).status], [200; 2]);
    assert_eq!(site.get("/").status, 200);
    assert_eq!(backend.requests.most(), 2);
}

#[test]
fn as_many_wait_as_the_queue_has_places_and_one_more_is_refused() {
    let (site, backend) = site("maxRequestsPerBackend: 1, queue: { maxRequests: 3, timeout: 1m }");
    let answers = ask(&site, 5);
    assert_eq!(told(&next(&answers)), FULL, "one is held, three wait");
    wait::until("one should be held", || (backend.gate.waiting() == 1).then_some(()));
    backend.gate.open();
    assert!((0..4).all(|_| next(&answers).status == 200));
    assert_eq!(backend.requests.most(), 1);
}

#[test]
fn who_waits_too_long_is_told_so() {
    let (site, backend) = site("maxRequestsPerBackend: 1, queue: { maxRequests: 3, timeout: 300ms }");
    let answers = ask(&site, 3);
    for _ in 0..2 {
        assert_eq!(told(&next(&answers)), (503, Some("queue_timeout")));
    }
    backend.gate.open();
    assert_eq!(next(&answers).status, 200);
    assert_eq!(backend.requests.total(), 1);
}

#[test]
fn a_client_that_leaves_gives_its_place_and_its_slot_to_others() {
    let (site, backend) = site("maxRequestsPerBackend: 1, queue: { maxRequests: 1, timeout: 5m }");
    let begin = || -> Connection {
        let mut connection = site.connect();
        connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("open");
        connection
    };
    let held = begin();
    wait::until("one should be held", || (backend.gate.waiting() == 1).then_some(()));
    let waiting = begin();
    assert_eq!(told(&site.get("/")), FULL, "requests that come in turn are served in turn");
    drop(waiting);
    let next_in_line = wait::until("the place should be free", || {
        let answers = ask(&site, 1);
        match answers.recv_timeout(LONG) {
            Ok(answer) => {
                assert_eq!(told(&answer), FULL);
                None
            }
            Err(_) => Some(answers),
        }
    });
    drop(held);
    wait::until("the next should have the slot", || (backend.requests.total() == 2).then_some(()));
    backend.gate.open();
    assert_eq!(next(&next_in_line).status, 200);
}

#[test]
fn a_tunnel_holds_its_slot_until_it_ends() {
    let samples = Samples::start("member", 1);
    let site = Site::start(&pool(&samples.ports, &["concurrency: { maxRequestsPerBackend: 1 }"]));
    let stream = site.connect().into_stream();
    let (socket, _) = tungstenite::client("ws://localhost/", stream).expect("an upgrade");
    for _ in 0..5 {
        assert_eq!(told(&site.get("/")), FULL);
    }
    drop(socket);
    wait::until("the slot should be free", || (site.get("/").status == 200).then_some(()));
}

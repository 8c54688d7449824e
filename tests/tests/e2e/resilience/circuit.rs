//! Circuits: when they open, what requests get meanwhile, how they close.

use super::backends::Held;
use super::{Site, pool, told};
use weir_tests::harness::client::{Answer, Connection};
use weir_tests::harness::manifest::PoolText;
use weir_tests::harness::switchable::Switchable;
use weir_tests::harness::wait;

const OPEN: (u16, Option<&str>) = (503, Some("circuit_open"));
const REQUESTS_MIN: u64 = 10;

/// A pool before these backends with a circuit, and more fields of that. Nothing is tried again.
fn breaking(backends: &[u16], more: &str) -> PoolText {
    let breaker =
        format!("circuitBreaker: {{ failurePercent: 50, minRequests: {REQUESTS_MIN}, window: 10m, {more} }}");
    pool(backends, &[&breaker, "retry: { attempts: 0 }"])
}

/// Sends requests until the circuit answers one.
fn open(site: &Site) -> Answer {
    wait::until("the circuit should open", || {
        let answer = site.get("/");
        (told(&answer) == OPEN).then_some(answer)
    })
}

#[test]
fn it_opens_at_its_share_of_failures_and_says_when_to_come_again() {
    let backend = Switchable::start("failing");
    let site = Site::start(&breaking(&[backend.port], "resetTimeout: 1h"));
    let mut connection = site.connect();
    let mut ask = |count: usize, status: u16| {
        backend.answer(status);
        let answers = (0..count).map(|_| connection.get("/").expect("an answer").status);
        assert!(answers.into_iter().all(|answered| answered == status), "the circuit is closed");
    };
    ask(60, 200);
    ask(40, 500);
    // So many that what came of those before is known.
    ask(100, 200);
    let before = backend.requests();
    backend.answer(500);
    let answer = open(&site);
    let failed = backend.requests() - before;
    // 200 requests with 40 failures are 50 percent after 120 more; the rest is on its way to the judgement.
    assert!(failed >= 120, "{failed}");
    let again: u64 = answer.header("retry-after").and_then(|after| after.parse().ok()).expect("a number");
    assert!((3000..=3600).contains(&again), "{again} s");
    backend.answer(200);
    let given = backend.requests();
    assert!((0..10).all(|_| told(&site.get("/")) == OPEN));
    assert_eq!(backend.requests(), given, "nobody is asked while it is open");
}

#[test]
fn it_needs_its_number_of_requests_to_judge() {
    let backend = Switchable::start("failing");
    let site = Site::start(&breaking(&[backend.port], "resetTimeout: 1h"));
    backend.answer(500);
    open(&site);
    assert!(backend.requests() >= REQUESTS_MIN, "{}", backend.requests());
}

/// A request that is under way; nothing reads its answer before [`Connection::read_answer`].
fn begin(site: &Site) -> Connection {
    let mut connection = site.connect();
    connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("open");
    connection
}

/// A site whose circuit has opened, before a backend that holds what it gets from now on.
fn opened(more: &str) -> (Site, Held) {
    let backend = Held::start();
    let site = Site::start(&breaking(&[backend.port], more));
    backend.gate.open();
    backend.answer(500);
    open(&site);
    backend.gate.close();
    (site, backend)
}

/// Sends requests until so many are held, or more, and returns all of them.
fn probe(site: &Site, backend: &Held, probes: usize) -> Vec<Connection> {
    let mut sent = Vec::new();
    wait::until("probes should go", || {
        sent.push(begin(site));
        (backend.gate.waiting() >= probes).then_some(())
    });
    sent
}

#[test]
fn half_open_it_lets_its_number_of_requests_through_and_closes_when_all_of_them_succeed() {
    let (site, backend) = opened("resetTimeout: 100ms, halfOpenRequests: 3");
    backend.answer(200);
    let sent = probe(&site, &backend, 3);
    for _ in 0..10 {
        let refused = site.get("/");
        assert_eq!(told(&refused), OPEN, "three are under way");
        assert_eq!(refused.header("retry-after"), Some("1"));
    }
    assert_eq!(backend.requests.now(), 3);
    backend.gate.open();
    let answers = sent.into_iter().map(|mut connection| connection.read_answer().expect("an answer"));
    assert_eq!(answers.filter(|answer| answer.status == 200).count(), 3);
    assert!((0..20).all(|_| site.get("/").status == 200), "it is closed");
}

#[test]
fn half_open_it_opens_again_when_one_fails() {
    let (site, backend) = opened("resetTimeout: 2s, halfOpenRequests: 2");
    let sent = probe(&site, &backend, 1);
    backend.gate.open();
    let answers = sent.into_iter().map(|mut connection| connection.read_answer().expect("an answer"));
    let failed = answers.filter(|answer| answer.status == 500).count();
    assert!((1..=2).contains(&failed), "{failed}");
    let again = open(&site);
    assert_eq!(again.header("retry-after"), Some("2"), "its whole time begins again");
}

#[test]
fn a_fallback_set_answers_while_the_circuit_is_open() {
    let (backend, spare) = (Switchable::start("failing"), Switchable::start("spare"));
    let pool = breaking(&[backend.port], "resetTimeout: 1h, fallback: { backendSet: spare }");
    let backends = format!("[{{ address: 127.0.0.1, port: {} }}]", spare.port);
    let text = pool.yaml() + &format!("    - name: spare\n      static: {{ backends: {backends} }}\n");
    let site = Site::of_text(pool.port, &text);
    assert_eq!(site.get("/").json()["name"], "failing");
    backend.answer(500);
    wait::until("the spare should answer", || (site.get("/").status == 200).then_some(()));
    backend.answer(200);
    let given = backend.requests();
    for method in ["GET", "POST"] {
        assert_eq!(site.send(method).json()["name"], "spare");
    }
    assert_eq!(backend.requests(), given);
    // What the pool says of circuits holds for the spare too, but for the fallback.
    spare.answer(500);
    open(&site);
}

#[test]
fn a_fallback_response_is_given_as_it_is_written() {
    let backend = Switchable::start("failing");
    let response = "{ status: 299, contentType: application/json, body: '{\"busy\":true}' }";
    let more = format!("resetTimeout: 1h, fallback: {{ response: {response} }}");
    let site = Site::start(&breaking(&[backend.port], &more));
    backend.answer(500);
    let answer = wait::until("the fallback should answer", || {
        let answer = site.get("/");
        (answer.status == 299).then_some(answer)
    });
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("x-weir-reason"), Some("fallback"));
    assert_eq!(answer.text(), "{\"busy\":true}");
    let mut connection = site.connect();
    connection.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").expect("open");
    let head = connection.read_head().expect("a head");
    assert_eq!((head.status, head.header("content-length")), (299, Some("13")));
    // Were there a body, it would be taken for the next answer.
    assert_eq!(connection.get("/").expect("the connection is kept").text(), "{\"busy\":true}");
}

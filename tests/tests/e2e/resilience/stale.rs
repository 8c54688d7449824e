//! Backends that close kept connections just when the next request may come.

use super::load::{End, Load, Method, mixed};
use super::{Site, pool};
use std::time::{Duration, Instant};
use weir_tests::harness::folder::Folder;
use weir_tests::harness::gauge::Gauge;
use weir_tests::harness::ledger::Ledger;
use weir_tests::harness::scripted::{Exchange, Scripted};
use weir_tests::harness::wait;

/// Between two rounds, and the longest that a connection may be idle.
const PERIOD: Duration = Duration::from_millis(50);
/// Connections that a test sees closed.
const CLOSED: usize = 60;
/// Requests of a test, at least.
const REQUESTS: usize = 300;
/// Of a POST: it goes out in one segment with its head.
const BODY_BYTES: usize = 100;

/// Nothing fails and nothing is carried out twice before backends of this kind. `patience` says how long a connection of
/// one that began at a moment may be idle from now on, `pause` how long a client waits between two requests.
/// It goes on until so many requests met a close as `meetings` says.
fn nothing_fails_before(patience: fn(Instant) -> Duration, pause: fn(u32) -> Duration, meetings: u64) {
    let folder = Folder::new();
    let ledger = Ledger::open(&folder.file("ledger"));
    let (began, connections) = (Instant::now(), Gauge::default());
    let backend = || {
        let (ledger, connections) = (ledger.clone(), connections.clone());
        let serve = move |_, exchange: &mut Exchange| {
            let _connected = connections.enter();
            loop {
                exchange.wait_at_most(patience(began).max(Duration::from_millis(1)));
                let Some(asked) = exchange.read_request() else { return exchange.end() };
                ledger.enter(&asked);
                exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone");
            }
        };
        Scripted::start(serve).port
    };
    let mut clients = mixed(2, BODY_BYTES);
    // They take turns, so that each is asked about as often as a client asks.
    let backends: Vec<u16> = clients.iter().map(|_| backend()).collect();
    let site = Site::start(&pool(&backends, &[]));
    for (client, number) in clients.iter_mut().zip(0..) {
        client.pause = pause(number);
    }
    let load = Load::start(site.port, &clients);
    load.flow(REQUESTS);
    wait::until("connections should close", || {
        (connections.total() - connections.now() >= CLOSED).then_some(())
    });
    wait::until("requests and closes should have met", || {
        (site.weir.metric("weir_upstream_stale_total") >= meetings).then_some(())
    });
    let (shown, executed) = (load.stop(), ledger.executed());
    for request in &shown {
        let times = executed.get(&request.id).copied().unwrap_or_default();
        assert_eq!(request.end, End::Good, "{request:?}, carried out {times} times");
        assert_eq!(times, 1, "{request:?}");
    }
    let posts = shown.iter().filter(|request| request.method == Method::Post).count();
    assert!(posts > REQUESTS / 4, "{posts} POST");
}

#[test]
fn nothing_fails_while_backends_close_what_is_idle_every_fifty_milliseconds() {
    let until_next = |began: Instant| {
        let into = began.elapsed().as_nanos() % PERIOD.as_nanos();
        PERIOD - Duration::from_nanos(u64::try_from(into).expect("less than the period"))
    };
    // Requests come often, so that some are on their way at the moment of a round; but a backend that always finds one
    // at once never sees a round, for its wait is as coarse as the system's clock tick, 4 ms.
    nothing_fails_before(until_next, |number| Duration::from_millis(5 + 2 * u64::from(number)), 1);
}

#[test]
fn nothing_fails_while_backends_close_what_is_idle_for_fifty_milliseconds() {
    // Requests come about when a connection ends; they meet about once in two seconds, which is no state to wait for.
    nothing_fails_before(
        |_| PERIOD,
        |number| PERIOD - Duration::from_millis(8) + Duration::from_millis(2) * number,
        0,
    );
}

//! Which connections to backends are open: at most, at least, and for how long.

use super::backends::Held;
use super::load::{End, Load, mixed};
use super::{Site, pool, told};
use weir_tests::harness::ports;
use weir_tests::harness::services::Samples;
use weir_tests::harness::wait;

#[test]
fn there_are_never_more_connections_to_a_backend_than_it_may_have_whoever_of_the_workers_opens_them() {
    const CONNECTIONS: usize = 4;
    let backends = [Held::start(), Held::start()];
    let bound = format!("connectionPool: {{ maxPerBackend: {CONNECTIONS} }}");
    let mut pool = pool(&backends.each_ref().map(|backend| backend.port), &[&bound]);
    pool.timeouts = "connect: 15s".to_owned();
    let site = Site::of_workers(&pool);
    let load = Load::start(site.port, &mixed(4, 100));
    for backend in &backends {
        wait_for(backend, CONNECTIONS);
    }
    for backend in &backends {
        backend.gate.open();
    }
    load.flow(1000);
    for shown in load.stop() {
        assert_eq!(shown.end, End::Good, "{shown:?}");
    }
    for backend in &backends {
        assert_eq!(backend.most_open(), CONNECTIONS);
    }
}

#[test]
fn a_request_that_gets_no_connection_in_time_is_told_so() {
    let backend = Held::start();
    let mut pool = pool(&[backend.port], &["connectionPool: { maxPerBackend: 1 }", "retry: { attempts: 0 }"]);
    pool.timeouts = "connect: 300ms".to_owned();
    let site = Site::start(&pool);
    let mut held = site.connect();
    held.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("open");
    wait::until("one should be held", || (backend.gate.waiting() == 1).then_some(()));
    for method in ["GET", "POST"] {
        assert_eq!(told(&site.send(method)), (503, Some("connection_limit")));
    }
    backend.gate.open();
    assert_eq!(held.read_answer().expect("an answer").status, 200);
    assert_eq!(site.send("POST").status, 200);
    assert_eq!(backend.connections.total(), 1);
}

#[test]
fn a_tunnel_is_a_connection_like_any_other() {
    let samples = Samples::start("member", 1);
    let mut pool = pool(&samples.ports, &["connectionPool: { maxPerBackend: 1 }", "retry: { attempts: 0 }"]);
    pool.timeouts = "connect: 200ms".to_owned();
    let site = Site::start(&pool);
    let stream = site.connect().into_stream();
    let (socket, _) = tungstenite::client("ws://localhost/", stream).expect("an upgrade");
    assert_eq!(told(&site.get("/")), (503, Some("connection_limit")));
    drop(socket);
    wait::until("the connection should be free", || (site.get("/").status == 200).then_some(()));
}

/// Waits until the backend has so many connections.
fn wait_for(backend: &Held, connections: usize) {
    wait::until(&format!("there should be {connections} connections"), || {
        (backend.connections.now() == connections).then_some(())
    });
}

#[test]
fn connections_are_warm_before_the_first_request_and_again_after_the_backend_closed_them() {
    let backend = Held::start();
    backend.gate.open();
    let site = Site::start(&pool(&[backend.port], &["connectionPool: { minWarmPerBackend: 3 }"]));
    wait_for(&backend, 3);
    assert_eq!(site.get("/").status, 200);
    assert_eq!(
        (backend.connections.total(), backend.requests.total()),
        (3, 1),
        "the request took one of them"
    );
    backend.close_idle();
    wait::until("they should be replaced", || (backend.connections.total() >= 6).then_some(()));
    wait_for(&backend, 3);
    assert_eq!(site.get("/").status, 200);
}

#[test]
fn idle_connections_are_closed_after_their_time_but_for_those_that_are_kept_warm() {
    for warm in [0, 2] {
        let backend = Held::start();
        let idle = format!("connectionPool: {{ idleTimeout: 1s, minWarmPerBackend: {warm} }}");
        let site = Site::start(&pool(&[backend.port], &[&idle]));
        let held: Vec<_> = (0..5)
            .map(|_| {
                let mut connection = site.connect();
                connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("open");
                connection
            })
            .collect();
        wait::until("all should be there", || (backend.gate.waiting() == 5).then_some(()));
        backend.gate.open();
        for mut connection in held {
            assert_eq!(connection.read_answer().expect("an answer").status, 200);
        }
        assert!(backend.connections.most() >= 5);
        wait_for(&backend, warm);
    }
}

#[test]
fn no_more_idle_connections_are_kept_than_may_be() {
    let backend = Held::start();
    let site = Site::start(&pool(&[backend.port], &["connectionPool: { maxIdlePerBackend: 2 }"]));
    let mut held: Vec<_> = (0..5).map(|_| site.connect()).collect();
    for connection in &mut held {
        connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("open");
    }
    wait::until("all should be there", || (backend.gate.waiting() == 5).then_some(()));
    backend.gate.open();
    wait_for(&backend, 2);
}

#[test]
fn connections_to_a_backend_that_is_removed_are_closed_warm_ones_too() {
    let (old, new) = (Held::start(), Held::start());
    let warm = ["connectionPool: { minWarmPerBackend: 2 }"];
    let mut pool = pool(&[old.port], &warm);
    let site = Site::start(&pool);
    old.gate.open();
    wait_for(&old, 2);
    assert_eq!(site.get("/").status, 200);
    pool.backends = vec![(new.port, 1)];
    site.folder.write("pool.yaml", &pool.yaml());
    wait_for(&new, 2);
    wait_for(&old, 0);
}

#[test]
fn a_backend_that_is_away_costs_no_warm_connection_of_others() {
    let backend = Held::start();
    let away = ports::free();
    let _site = Site::start(&pool(&[away, backend.port], &["connectionPool: { minWarmPerBackend: 2 }"]));
    wait_for(&backend, 2);
    wait_for(&Held::start_on(away), 2);
}

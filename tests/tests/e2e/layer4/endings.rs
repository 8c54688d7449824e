//! How connections end that nobody ends.

use super::{Site, Text, connect, is_echoed, is_reset, named, read};
use std::net::TcpStream;
use weir_tests::harness::client::local;
use weir_tests::harness::wait;

#[test]
fn a_connection_that_stands_still_is_closed_and_one_that_moves_is_not() {
    let text = Text { rule: ", timeouts: { connectionIdle: 1s }", ..Text::default() };
    let site = Site::start(&[named("one")], &text);
    let (still, busy) = (site.connect(), site.connect());
    assert_eq!((read(&still, 3), read(&busy, 3)), ("one".to_owned(), "one".to_owned()));
    wait::until("the one that stands still should be closed", || {
        assert!(is_echoed(&busy));
        (site.ended("idle") == 1).then_some(())
    });
    assert!(is_reset(&still) && is_echoed(&busy));
    assert_eq!(site.weir.metric("weir_layer4_connections_open"), 1);
}

#[test]
fn a_drain_waits_for_connections_to_end_and_takes_no_more() {
    let mut site = Site::start_with(&[(1, &[named("one")])], &Text::default(), &["--drain-timeout", "60s"]);
    let client = site.connect();
    assert_eq!(read(&client, 3), "one");
    site.weir.process.terminate();
    wait::until("no more should be taken", || TcpStream::connect(local(site.port)).err());
    assert!(is_echoed(&client) && site.weir.process.is_running());
    drop(client);
    let ended = site.weir.process.wait();
    assert!(ended.status.success(), "{}", ended.stderr);
}

#[test]
fn a_drain_ends_at_its_limit_with_what_is_still_open() {
    let site = Site::start_with(&[(1, &[named("one")])], &Text::default(), &["--drain-timeout", "1s"]);
    let client = site.connect();
    assert_eq!(read(&client, 3), "one");
    site.weir.process.terminate();
    let ended = site.weir.process.wait();
    assert_eq!(ended.status.code(), Some(3), "{}", ended.stderr);
    assert!(!is_echoed(&client));
}

#[test]
fn connections_of_a_listener_that_is_removed_end_within_the_window_of_tunnels() {
    let backend = named("one");
    let text = Text::default();
    let site = Site::start_with(&[(1, &[backend])], &text, &["--tunnel-window", "1s"]);
    let clients: Vec<_> = (0..5).map(|_| site.connect()).collect();
    assert!(clients.iter().all(|client| read(client, 3) == "one"));
    let other = weir_tests::harness::ports::free();
    site.folder.write("pool.yaml", &super::manifest(other, &[(1, &[backend])], &text));
    wait::until("the other port should be served", || TcpStream::connect(local(other)).ok());
    assert!(clients.iter().all(is_reset));
    assert_eq!(site.ended("asked"), 5);
    assert_eq!(read(&connect(other), 3), "one");
}

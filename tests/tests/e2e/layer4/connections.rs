//! What goes through a connection, and to whom.

use super::{Site, Text, connect, is_echoed, is_reset, named, read, server};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc;
use std::time::Duration;
use weir_tests::harness::client::local;
use weir_tests::harness::{ports, wait};

/// More than any buffer on the way.
const LARGE: usize = 8 << 20;

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from(at % 251).expect("less than 251")).collect()
}

#[test]
fn a_client_that_has_said_all_still_hears_the_answer() {
    let backend = server(|mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).expect("the client ends in order");
        all.reverse();
        stream.write_all(&all).expect("it still listens");
    });
    let site = Site::start(&[backend], &Text::default());
    let mut client = site.connect();
    let said = bytes(LARGE);
    client.write_all(&said).expect("open");
    client.shutdown(Shutdown::Write).expect("open");
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).expect("an end in order");
    heard.reverse();
    assert!(heard == said, "{} of {} bytes", heard.len(), said.len());
    wait::until("it should be counted", || (site.ended("both") == 1).then_some(()));
    for direction in ["to_backend", "to_client"] {
        let label = format!("direction=\"{direction}\"");
        assert_eq!(site.weir.metric_of("weir_layer4_bytes_total", &label), LARGE as u64, "{direction}");
    }
    assert_eq!(site.weir.metric("weir_layer4_connections_open"), 0);
}

#[test]
fn a_backend_that_has_said_all_still_hears_the_client() {
    let (tell, told) = mpsc::channel();
    let backend = server(move |mut stream| {
        stream.write_all(b"that is all").expect("open");
        stream.shutdown(Shutdown::Write).expect("open");
        let mut all = Vec::new();
        let end = stream.read_to_end(&mut all);
        tell.send(end.map(|_| all)).expect("the test waits");
    });
    let site = Site::start(&[backend], &Text::default());
    let mut client = site.connect();
    let mut heard = String::new();
    client.read_to_string(&mut heard).expect("an end in order");
    assert_eq!(heard, "that is all");
    let said = bytes(LARGE);
    client.write_all(&said).expect("still open");
    drop(client);
    let all = told.recv_timeout(super::PATIENCE).expect("it ends").expect("an end in order");
    assert!(all == said, "{} of {} bytes", all.len(), said.len());
}

#[test]
fn a_reset_of_one_side_is_a_reset_to_the_other() {
    let backend = server(|stream| {
        let mut first = [0];
        (&stream).read_exact(&mut first).expect("a byte");
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).expect("an option");
    });
    let site = Site::start(&[backend], &Text::default());
    let mut client = site.connect();
    client.write_all(b"x").expect("open");
    assert!(is_reset(&client));
    wait::until("it should be counted", || (site.ended("broken") == 1).then_some(()));
}

#[test]
fn a_backend_that_nobody_listens_on_costs_no_client_its_connection() {
    let (dead, alive) = (ports::free(), named("alive"));
    let text = Text { spec: "loadBalancing: { algorithm: RoundRobin },", ..Text::default() };
    let site = Site::start(&[dead, alive], &text);
    for _ in 0..20 {
        assert_eq!(read(&site.connect(), 5), "alive");
    }
    assert!(site.weir.metric("weir_upstream_connect_failures_total") >= 5);
    assert_eq!(site.failures("connect_failed"), 0);
    // As often as the rule says, and not once more: one attempt with none left.
    let text = Text { rule: ", retry: { attempts: 0 }", ..text };
    let site = Site::start(&[dead, alive], &text);
    let reached = (0..10).filter(|_| !is_reset(&half_closed(site.port))).count();
    assert_eq!(reached, 5, "each in turn");
    assert_eq!(site.failures("connect_failed"), 5);
}

/// Says at once that it will say nothing.
fn half_closed(port: u16) -> TcpStream {
    let client = connect(port);
    // Who was reset already has nobody to say it to.
    let _ = client.shutdown(Shutdown::Write);
    client
}

#[test]
fn without_a_backend_a_connection_is_reset_and_counted_by_its_reason() {
    let site = Site::start(&[], &Text::default());
    assert!(is_reset(&site.connect()));
    let reason = || site.failures("no_backend");
    assert_eq!(wait::until("it should be counted", || Some(reason()).filter(|count| *count > 0)), 1);
    let site = Site::start(&[ports::free()], &Text::default());
    assert!(is_reset(&site.connect()));
    wait::until("it should be counted", || (site.failures("connect_failed") == 1).then_some(()));
}

#[test]
fn sets_share_connections_by_weight_and_a_set_without_backends_leaves_its_share() {
    let (one, two) = (named("one"), named("two"));
    let site = Site::start_with(&[(3, &[one]), (1, &[two]), (9, &[])], &Text::default(), &[]);
    let names: Vec<_> = (0..13 * 4).map(|_| read(&site.connect(), 3)).collect();
    let twos = names.iter().filter(|name| *name == "two").count();
    assert!((4..20).contains(&twos), "{twos} of {}", names.len());
    let site = Site::start_with(&[(3, &[one]), (1, &[two])], &Text::default(), &[]);
    let names: Vec<_> = (0..40).map(|_| read(&site.connect(), 3)).collect();
    assert_eq!(names.iter().filter(|name| *name == "two").count(), 10);
}

#[test]
fn a_connection_counts_on_its_backend_for_as_long_as_it_is_open() {
    let (one, two) = (named("one"), named("two"));
    let text = Text { spec: "loadBalancing: { algorithm: LeastConnections },", ..Text::default() };
    let site = Site::start(&[one, two], &text);
    let first = site.connect();
    let name = read(&first, 3);
    for _ in 0..10 {
        assert_ne!(read(&site.connect(), 3), name, "the other one has fewer");
        wait::until("it should have ended", || {
            (site.weir.metric("weir_layer4_connections_open") == 1).then_some(())
        });
    }
    assert!(is_echoed(&first));
}

#[test]
fn an_edit_of_backends_leaves_connections_where_they_are() {
    let (one, two) = (named("one"), named("two"));
    let site = Site::start(&[one], &Text::default());
    let first = site.connect();
    assert_eq!(read(&first, 3), "one");
    site.folder.write("pool.yaml", &super::manifest(site.port, &[(1, &[two])], &Text::default()));
    wait::until("new ones should go to the other", || (read(&site.connect(), 3) == "two").then_some(()));
    assert!(is_echoed(&first), "a removed backend keeps what it has");
}

#[test]
fn the_backend_is_told_who_connects_and_trusted_proxies_say_who_that_is() {
    let backend = server(|mut stream| {
        let mut line = Vec::new();
        let mut byte = [0];
        while !line.ends_with(b"\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
            line.push(byte[0]);
        }
        stream.write_all(&line).expect("open");
        super::echo(stream);
    });
    let text = Text { set: ", proxyProtocol: V1", ..Text::default() };
    let site = Site::start(&[backend], &text);
    let client = site.connect();
    let (own, to) = (client.local_addr().expect("open"), local(site.port));
    let told = expected(own, to);
    assert_eq!(read(&client, told.len()), told);
    assert!(is_echoed(&client));
    let text = Text { listener: ", proxyProtocol: { trustedCIDRs: [127.0.0.0/8] }", ..text };
    let site = Site::start(&[backend], &text);
    let mut client = site.connect();
    client.write_all(b"PROXY TCP4 198.51.100.7 203.0.113.9 1000 2000\r\nstill").expect("open");
    let (from, to) = (([198, 51, 100, 7], 1000).into(), ([203, 0, 113, 9], 2000).into());
    let told = expected(from, to);
    assert_eq!(read(&client, told.len()), told);
    assert_eq!(read(&client, 5), "still", "nothing behind the header is lost");
}

fn expected(from: SocketAddr, to: SocketAddr) -> String {
    format!("PROXY TCP4 {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port())
}

//! Datagrams, and the flows that they make.

use super::{PATIENCE, Site, Text};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use weir_tests::harness::client::local;
use weir_tests::harness::{ports, wait};

/// A server that answers each datagram with its name and what was said. It ends when dropped, and its port is closed then.
pub(super) struct Server {
    pub(super) port: u16,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    pub(super) fn start(name: &'static str) -> Self {
        let socket = UdpSocket::bind(local(0)).expect("a free port");
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a time");
        let port = socket.local_addr().expect("bound").port();
        let stop = Arc::<AtomicBool>::default();
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut bytes = [0; 65_535];
            while !stopped.load(Ordering::SeqCst) {
                if let Ok((length, from)) = socket.recv_from(&mut bytes) {
                    let answer = [name.as_bytes(), b" ", &bytes[..length]].concat();
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Self { port, stop, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

pub(super) fn start(backends: &[u16], text: &Text<'_>, flags: &[&str]) -> Site {
    let (port, folder) = (ports::free(), weir_tests::harness::folder::Folder::new());
    folder.write("pool.yaml", &manifest(port, backends, text));
    let weir = weir_tests::harness::services::Service::standalone(folder.path(), flags);
    Site { port, weir, folder }
}

pub(super) fn manifest(port: u16, backends: &[u16], text: &Text<'_>) -> String {
    super::manifest(port, &[(1, backends)], text).replace("protocol: TCP", "protocol: UDP")
}

/// A client of its own port, and so a flow of its own.
pub(super) fn client(from: u8, to: u16) -> UdpSocket {
    let socket = UdpSocket::bind(SocketAddr::from((Ipv4Addr::new(127, 0, 0, from), 0))).expect("local");
    socket.connect(local(to)).expect("an address");
    socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a time");
    socket
}

/// Says something, and again while nobody answers: datagrams may be lost.
pub(super) fn ask(client: &UdpSocket, text: &str) -> String {
    wait::until("somebody should answer", || answer(client, text))
}

fn answer(client: &UdpSocket, text: &str) -> Option<String> {
    client.send(text.as_bytes()).ok()?;
    let mut bytes = [0; 65_535];
    loop {
        let length = client.recv(&mut bytes).ok()?;
        let heard = String::from_utf8_lossy(&bytes[..length]).into_owned();
        if heard.ends_with(text) {
            return Some(heard);
        }
    }
}

#[test]
fn datagrams_of_a_source_go_to_one_backend_and_answers_come_back_from_where_they_were_sent() {
    let (one, two) = (Server::start("one"), Server::start("two"));
    let site = start(&[one.port, two.port], &Text::default(), &[]);
    let mut names = BTreeSet::new();
    for from in 1..=16 {
        let clients = [client(from, site.port), client(from, site.port)];
        let own: BTreeSet<_> = clients
            .iter()
            .flat_map(|client| (0..3).map(move |nth| ask(client, &format!("q{nth}"))))
            .map(|answer| answer[..3].to_owned())
            .collect();
        assert_eq!(own.len(), 1, "127.0.0.{from}: by the address, whatever the port: {own:?}");
        names.extend(own);
    }
    assert_eq!(names.len(), 2, "addresses are spread");
    assert_eq!(site.weir.metric("weir_udp_flows_total"), 32);
    assert_eq!(site.weir.metric_of("weir_udp_datagrams_total", "of=\"clients\""), 96);
    assert_eq!(site.weir.metric_of("weir_udp_datagrams_total", "of=\"backends\""), 96);
}

#[test]
fn the_largest_datagram_goes_through() {
    let one = Server::start("one");
    let site = start(&[one.port], &Text::default(), &[]);
    // What is left of 65,507 bytes beside the server's name.
    let large = "x".repeat(65_503);
    assert_eq!(ask(&client(1, site.port), &large).len(), 65_507);
}

#[test]
fn flows_of_a_backend_that_is_gone_go_to_another_and_the_others_stay() {
    let (one, two) = (Server::start("one"), Server::start("two"));
    let site = start(&[one.port, two.port], &Text::default(), &[]);
    let clients: Vec<_> = (1..=16).map(|from| client(from, site.port)).collect();
    let of = |text: &str| -> Vec<String> {
        clients.iter().map(|client| ask(client, text)[..3].to_owned()).collect()
    };
    let before = of("a");
    // Its port is closed: an ICMP error says so.
    drop(one);
    assert!(of("b").iter().all(|name| name == "two"));
    let flows = site.weir.metric("weir_udp_flows_total");
    let moved = before.iter().filter(|name| *name == "one").count() as u64;
    assert!(moved > 0 && flows >= 16 + moved, "{before:?} {flows}");
    // One that is removed, or comes, by an edit: those on it move, and nobody else.
    let three = Server::start("six");
    site.folder.write("pool.yaml", &manifest(site.port, &[two.port, three.port], &Text::default()));
    wait::until("the new one should have new flows", || {
        (1..=16).any(|from| ask(&client(from, site.port), "c").starts_with("six")).then_some(())
    });
    assert!(of("d").iter().all(|name| name == "two"), "flows stay where they are");
    site.folder.write("pool.yaml", &manifest(site.port, &[three.port], &Text::default()));
    wait::until("all should move", || of("e").iter().all(|name| name == "six").then_some(()));
}

#[test]
fn a_flow_that_is_silent_for_its_time_is_forgotten_and_one_that_speaks_is_not() {
    let one = Server::start("one");
    let text = Text { rule: ", timeouts: { flowIdle: 1s }", ..Text::default() };
    let site = start(&[one.port], &text, &[]);
    let (silent, busy) = (client(1, site.port), client(1, site.port));
    ask(&silent, "a");
    wait::until("the silent one should be forgotten", || {
        ask(&busy, "b");
        (site.weir.metric("weir_udp_flows_open") == 1 && site.weir.metric("weir_udp_flows_total") == 2)
            .then_some(())
    });
    ask(&silent, "c");
    assert_eq!(site.weir.metric("weir_udp_flows_total"), 3);
}

#[test]
fn what_cannot_go_is_dropped_and_counted_by_its_reason() {
    let one = Server::start("one");
    let dropped = |site: &Site, reason: &str| {
        site.weir.metric_of("weir_udp_datagrams_dropped_total", &format!("reason=\"{reason}\""))
    };
    let text = Text {
        rule: ", ipRules: { deny: [127.0.0.2/32] }",
        listener: ", limits: { connectionsPerSource: 2 }",
        ..Text::default()
    };
    let site = start(&[one.port], &text, &[]);
    assert_eq!(answer(&client(2, site.port), "a"), None);
    assert_eq!(dropped(&site, "ip_denied"), 1);
    let held: Vec<_> = (0..2).map(|_| client(1, site.port)).collect();
    held.iter().for_each(|client| drop(ask(client, "a")));
    assert_eq!(answer(&client(1, site.port), "a"), None, "one more of this source");
    assert_eq!(dropped(&site, "limit"), 1);
    ask(&client(3, site.port), "a");
    let site = start(&[], &Text::default(), &[]);
    assert_eq!(answer(&client(1, site.port), "a"), None);
    assert_eq!(dropped(&site, "no_backend"), 1);
}

#[test]
fn a_port_has_a_listener_of_each_and_they_do_not_know_one_another() {
    let (one, raw) = (Server::start("one"), super::named("raw"));
    let folder = weir_tests::harness::folder::Folder::new();
    let port = ports::free();
    let text = Text::default();
    let streams = super::manifest(port, &[(1, &[raw])], &text)
        .replace("name: raw, namespace", "name: streams, namespace");
    folder.write("pools.yaml", &format!("{}---\n{streams}", manifest(port, &[one.port], &text)));
    let weir = weir_tests::harness::services::Service::standalone(folder.path(), &[]);
    let site = Site { port, weir, folder };
    assert_eq!(ask(&client(1, port), "a"), "one a");
    assert_eq!(super::read(&site.connect(), 3), "raw");
    site.folder.write("pools.yaml", &manifest(port, &[one.port], &text));
    wait::until("the port of connections should close", || std::net::TcpStream::connect(local(port)).err());
    assert_eq!(ask(&client(1, port), "b"), "one b");
}

#[test]
fn a_drain_lets_answers_through_and_ends_by_itself() {
    let one = Server::start("one");
    let site = start(&[one.port], &Text::default(), &["--drain-timeout", "60s"]);
    let open = client(1, site.port);
    ask(&open, "a");
    site.weir.process.terminate();
    let ended = site.weir.process.wait();
    assert!(ended.status.success(), "{}", ended.stderr);
    assert!(ended.took < PATIENCE && answer(&open, "b").is_none());
}

#[test]
fn a_process_that_takes_over_has_the_port_and_flows_go_on() {
    let one = Server::start("one");
    let (port, folder) = (ports::free(), weir_tests::harness::folder::Folder::new());
    let own = tempfile::tempdir().expect("a folder");
    let door = own.path().join("door");
    folder.write("pool.yaml", &manifest(port, &[one.port], &Text::default()));
    let flags = ["--takeover", door.to_str().expect("text")];
    let first = weir_tests::harness::services::Service::standalone(folder.path(), &flags);
    let open = client(1, port);
    ask(&open, "a");
    let _second = weir_tests::harness::services::Service::standalone(folder.path(), &flags);
    let ended = first.process.wait();
    assert!(ended.status.success(), "{}", ended.stderr);
    assert_eq!(ask(&open, "b"), "one b");
}

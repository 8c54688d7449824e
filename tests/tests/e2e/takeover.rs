//! A new process in the place of the one that serves: `--takeover`.

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use tungstenite::Message;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use weir_tests::harness::client::{self, Connection};
use weir_tests::harness::folder::Folder;
use weir_tests::harness::load::{Clients, Load};
use weir_tests::harness::manifest::PoolText;
use weir_tests::harness::process::Process;
use weir_tests::harness::services::{READY, Samples, Service, controller, wait_for_backend, wait_for_status};
use weir_tests::harness::{binaries, ports, wait};

/// What the processes of a test share.
struct Place {
    samples: Samples,
    manifests: Folder,
    /// Holds the socket.
    own: Folder,
    admin: u16,
    port: u16,
}

impl Place {
    fn new() -> Self {
        let samples = Samples::start("member", 2);
        let (admin, port) = (ports::free(), ports::free());
        let manifests = Folder::new();
        manifests.write("pool.yaml", &PoolText::new("upgraded", port, &samples.equal()).yaml());
        Self { samples, manifests, own: Folder::new(), admin, port }
    }

    /// `weir run` with the flags of the one before it, but for the number of workers.
    fn start(&self, workers: usize) -> Process {
        let mut command = Command::new(binaries::path("weir"));
        command.env_remove("HOME").env_remove("XDG_STATE_HOME");
        command.arg("run").arg(self.manifests.path()).args(["--workers", &workers.to_string()]);
        command.args(["--admin", &client::local(self.admin).to_string()]);
        command.args(["--tunnel-window", "1s"]).arg("--takeover").arg(self.socket());
        Process::start(&mut command)
    }

    fn socket(&self) -> std::path::PathBuf {
        self.own.path().join("takeover.sock")
    }

    fn wait_until_ready(&self) {
        wait_for_status(self.admin, READY, 200);
        wait::until("the socket should be there", || self.socket().exists().then_some(()));
    }
}

/// Clients with a WebSocket each, which open another one where they are told that this end goes away.
struct Sockets {
    stop: Arc<AtomicBool>,
    echoes: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<usize>>,
}

impl Sockets {
    fn start(port: u16, count: usize) -> Self {
        let (stop, echoes) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let client = || {
            let (stop, echoes) = (Arc::clone(&stop), Arc::clone(&echoes));
            std::thread::spawn(move || {
                let mut moves = 0;
                while talk(port, &stop, &echoes) {
                    moves += 1;
                }
                moves
            })
        };
        let clients = (0..count).map(|_| client()).collect();
        Self { stop, echoes, clients }
    }

    /// How often each was told to go.
    fn stop(self) -> Vec<usize> {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.into_iter().map(|client| client.join().expect("no WebSocket breaks")).collect()
    }
}

/// Echoes over one WebSocket; true once this end goes away, false once the test is over.
fn talk(port: u16, stop: &AtomicBool, echoes: &AtomicUsize) -> bool {
    let stream = Connection::open(port).expect("no connection is refused").into_stream();
    let (mut socket, _) = tungstenite::client("ws://localhost/", stream).expect("an upgrade");
    while !stop.load(Ordering::Relaxed) {
        socket.send(Message::text("hello")).expect("open");
        match socket.read() {
            Ok(Message::Text(_)) => drop(echoes.fetch_add(1, Ordering::Relaxed)),
            Ok(Message::Close(Some(CloseFrame { code: CloseCode::Away, .. }))) => return true,
            other => panic!("neither the echo nor a word that this end goes away: {other:?}"),
        }
    }
    false
}

#[test]
fn an_upgrade_under_load_fails_no_request_and_refuses_no_connection() {
    let place = Place::new();
    let mut serving = place.start(2);
    place.wait_until_ready();
    let load = Load::start(place.port, Clients { kept: 4, fresh: 4 });
    let sockets = Sockets::start(place.port, 8);
    let flows = || {
        let (requests, echoes) = (load.seen().good, sockets.echoes.load(Ordering::Relaxed));
        wait::until("requests should flow on", || (load.seen().good > requests + 100).then_some(()));
        wait::until("WebSockets should flow on", || {
            (sockets.echoes.load(Ordering::Relaxed) > echoes + 40).then_some(())
        });
    };
    flows();
    // More workers, fewer, and as many.
    for workers in [3, 1, 1] {
        let mut next = place.start(workers);
        next.wait_for_stderr("took over");
        let before = std::mem::replace(&mut serving, next).wait();
        assert_eq!(before.status.code(), Some(0), "{}", before.stderr);
        assert!(before.stderr.contains("drained: every request finished"), "{}", before.stderr);
        flows();
        place.wait_until_ready();
    }
    let moves = sockets.stop();
    assert!(moves.iter().all(|moves| *moves >= 3), "each process told its own to go: {moves:?}");
    load.assert_no_failure();
}

#[test]
fn a_process_whose_manifest_is_broken_takes_nothing_over_and_ends() {
    let place = Place::new();
    let mut serving = place.start(1);
    place.wait_until_ready();
    let load = Load::start(place.port, Clients { kept: 2, fresh: 2 });
    // The one that serves keeps what it last read; a new one can make nothing of it.
    place.manifests.write("pool.yaml", "apiVersion: weir.dev/v1alpha1\nkind: LoadBalancerPool\nspec: 7\n");
    serving.wait_for_stderr("pool.yaml");
    let next = place.start(1).wait();
    assert_eq!(next.status.code(), Some(1), "{}", next.stderr);
    assert!(next.stderr.contains("does not serve LoadBalancerPool default/upgraded"), "{}", next.stderr);
    let before = load.seen().good;
    wait::until("requests should flow on", || (load.seen().good > before + 100).then_some(()));
    load.assert_no_failure();
    assert!(serving.is_running());
    assert_eq!(client::fetch(place.admin, READY).expect("an answer").status, 200);
    // And a good one takes over after that.
    place.manifests.write("pool.yaml", &PoolText::new("upgraded", place.port, &place.samples.equal()).yaml());
    let mut good = place.start(1);
    good.wait_for_stderr("took over");
    assert_eq!(serving.wait().status.code(), Some(0));
    wait_for_backend(place.port, "/", "member-1");
}

#[test]
fn a_process_that_is_killed_while_it_takes_over_leaves_the_other_one_serving() {
    let place = Place::new();
    let mut serving = place.start(1);
    place.wait_until_ready();
    // It cannot become ready: it waits for the pool that only the other one has.
    place.manifests.write("pool.yaml", "apiVersion: weir.dev/v1alpha1\nkind: LoadBalancerPool\nspec: 7\n");
    let next = place.start(1);
    serving.wait_for_stderr("another process takes over once it is ready");
    next.kill();
    serving.wait_for_stderr("did not take them; serving on");
    for _ in 0..20 {
        assert_eq!(client::fetch(place.port, "/").expect("an answer").status, 200);
    }
}

#[test]
fn what_a_killed_process_left_at_the_path_is_replaced_and_a_file_of_somebody_else_is_not() {
    let place = Place::new();
    let first = place.start(1);
    place.wait_until_ready();
    first.kill();
    assert!(place.socket().exists());
    let second = place.start(1);
    place.wait_until_ready();
    wait_for_backend(place.port, "/", "member-1");
    second.terminate();
    assert_eq!(second.wait().status.code(), Some(0));
    assert!(!place.socket().exists(), "who ends in order leaves nothing");
    place.own.write("takeover.sock", "dear diary");
    let third = place.start(1).wait();
    assert_eq!(third.status.code(), Some(1), "{}", third.stderr);
    assert!(third.stderr.contains("is no socket"), "{}", third.stderr);
}

#[test]
fn a_proxy_takes_over_with_its_state_folder() {
    let place = Place::new();
    let push = ports::free();
    let _controller = controller(place.manifests.path(), push);
    let state = place.own.path().join("state");
    let flags = [
        "--takeover".to_owned(),
        place.socket().display().to_string(),
        "--state-folder".to_owned(),
        state.display().to_string(),
    ];
    let url = format!("http://127.0.0.1:{push}");
    let start = || Service::proxy_at(Ipv4Addr::LOCALHOST, &url, &flags);
    let first = start();
    first.wait_until_ready();
    wait::until("the socket should be there", || place.socket().exists().then_some(()));
    let load = Load::start(place.port, Clients { kept: 2, fresh: 2 });
    let mut second = start();
    second.process.wait_for_stderr("took over");
    assert_eq!(first.process.wait().status.code(), Some(0));
    // What is read after the first has ended comes from the second's own writing.
    let file = state.join("last-good");
    let _ = std::fs::remove_file(&file);
    let more = PoolText::new("more", ports::free(), &place.samples.equal()).yaml();
    place.manifests.write("more.yaml", &more);
    wait::until("the second should keep its state", || file.exists().then_some(()));
    load.assert_no_failure();
}

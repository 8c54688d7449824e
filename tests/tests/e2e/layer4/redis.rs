//! A real protocol: Redis, with its own clients.

use super::{PATIENCE, Site, Text, apart, manifest};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use weir_tests::harness::client::local;
use weir_tests::harness::process::Process;
use weir_tests::harness::{network, ports, tools, wait};

/// A Redis that keeps nothing, once it answers.
pub(super) fn server(port: u16) -> Process {
    let mut command = Command::new("redis-server");
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    let process = Process::start(&mut command);
    wait::until("Redis should answer", || ask(port).ok());
    process
}

/// One question over a connection of its own.
fn ask(port: u16) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(local(port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"PING\r\n")?;
    let mut answer = [0; 7];
    stream.read_exact(&mut answer)?;
    if answer == *b"+PONG\r\n" { Ok(()) } else { Err(std::io::ErrorKind::InvalidData.into()) }
}

#[test]
fn a_benchmark_of_redis_runs_while_backends_come_and_go() {
    let backends: Vec<u16> = (0..3).map(|_| ports::free()).collect();
    let _servers: Vec<_> = backends.iter().map(|port| server(*port)).collect();
    let text = Text { spec: "loadBalancing: { algorithm: RoundRobin },", ..Text::default() };
    let site = Site::start(&backends[..2], &text);
    let is_over = Arc::new(AtomicBool::new(false));
    let edits = {
        let (is_over, port) = (Arc::clone(&is_over), site.port);
        let (folder, backends) = (site.folder.path().to_owned(), backends.clone());
        std::thread::spawn(move || {
            let mut edits = 0;
            while !is_over.load(Ordering::SeqCst) {
                let now: Vec<_> = backends.iter().skip(edits % 3).take(2).copied().collect();
                let text = Text { spec: "loadBalancing: { algorithm: RoundRobin },", ..Text::default() };
                let made = folder.join("pool.new");
                std::fs::write(&made, manifest(port, &[(1, &now)], &text)).expect("written");
                std::fs::rename(&made, folder.join("pool.yaml")).expect("renamed");
                edits += 1;
                // One question takes a moment, and the edits come apart.
                (0..20).for_each(|_| ask(port).expect("a backend is always there"));
            }
            edits
        })
    };
    let port = site.port.to_string();
    // Over connections that stay, and over one for each command.
    for kept in ["1", "0"] {
        let arguments = [
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-c",
            "20",
            "-n",
            "5000",
            "-k",
            kept,
            "-q",
            "-t",
            "set,get,lpush",
        ];
        let output = tools::run("redis-benchmark", arguments);
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !said.contains("Error"), "{said}");
    }
    is_over.store(true, Ordering::SeqCst);
    assert!(edits.join().expect("no question failed") > 3);
    assert_eq!(site.ended("broken"), 0);
}

/// Clients that open a connection for each question.
struct Clients {
    stop: Arc<AtomicBool>,
    good: Arc<AtomicU64>,
    /// When each question that failed began.
    failures: Arc<Mutex<Vec<(Instant, String)>>>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Clients {
    fn start(port: u16, count: usize) -> Self {
        let (stop, good, failures) =
            (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default(), Arc::<Mutex<Vec<_>>>::default());
        let threads = (0..count).map(|_| {
            let (stop, good, failures) = (Arc::clone(&stop), Arc::clone(&good), Arc::clone(&failures));
            std::thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    let began = Instant::now();
                    match ask(port) {
                        Ok(()) => drop(good.fetch_add(1, Ordering::SeqCst)),
                        Err(error) => {
                            failures.lock().expect("nobody panics").push((began, error.to_string()));
                        }
                    }
                }
            })
        });
        let threads = threads.collect();
        Self { stop, good, failures, threads }
    }

    fn wait_for(&self, more: u64) {
        let before = self.good.load(Ordering::SeqCst);
        wait::until("clients should be answered", || {
            (self.good.load(Ordering::SeqCst) >= before + more).then_some(())
        });
    }

    fn stop(self) -> Vec<(Instant, String)> {
        self.stop.store(true, Ordering::SeqCst);
        self.threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        self.failures.lock().expect("nobody panics").clone()
    }
}

/// A backend of three is killed, and one comes that was not there before, while so many clients open connections; `stretch`
/// are answered before and after each.
fn no_new_connection_fails(clients: usize, stretch: u64, begin: impl FnOnce()) {
    let ports: Vec<u16> = (0..3).map(|_| ports::free()).collect();
    let (first, _second) = (server(ports[0]), server(ports[1]));
    // The third is not there yet: nobody notices.
    let site = Site::start(&ports, &Text::default());
    begin();
    let load = Clients::start(site.port, clients);
    load.wait_for(stretch);
    let before = Instant::now();
    first.kill();
    let killed = Instant::now();
    load.wait_for(stretch);
    let _third = server(ports[2]);
    wait::until("the new one should be used", || {
        (site.weir.backends()[&ports[2]].requests > stretch / 2).then_some(())
    });
    load.wait_for(stretch);
    let failures = load.stop();
    // A connection that was on the backend when it was killed goes with it.
    let (on_it, others): (Vec<_>, Vec<_>) = failures.into_iter().partition(|(began, _)| *began <= killed);
    assert!(others.is_empty(), "{others:?}");
    assert!(
        on_it.len() <= clients && on_it.iter().all(|(began, _)| before.duration_since(*began) < PATIENCE),
        "{on_it:?}"
    );
    assert_eq!(site.failures("connect_failed"), 0);
}

#[test]
fn no_new_connection_fails_when_a_backend_is_killed_and_another_comes() {
    no_new_connection_fails(4, 200, || ());
}

#[test]
fn nor_does_one_where_five_packets_of_a_hundred_get_lost() {
    let (_inside, _network) = apart();
    no_new_connection_fails(16, 60, || network::lose(5));
}

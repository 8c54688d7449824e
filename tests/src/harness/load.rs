//! Continuous load, in which every request must be answered 200.

use crate::harness::client::{self, Connection};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Pause between two requests of one client: the load shows failures, it is not a benchmark.
const PAUSE: Duration = Duration::from_micros(500);

/// Clients at work.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    clients: Vec<JoinHandle<()>>,
}

/// What the clients saw.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Requests answered 200.
    pub good: u64,
    /// The others, with the reason.
    pub failures: Vec<String>,
    /// Moment of each backend's first answer, by its name.
    pub first_answer: BTreeMap<String, Instant>,
    /// Answers by backend.
    pub answers: BTreeMap<String, u64>,
}

impl Load {
    /// Starts `kept` clients that keep their connection and `fresh` clients that open one for each request.
    #[must_use]
    pub fn start(port: u16, clients: Clients) -> Self {
        Self::start_at(client::local(port), clients)
    }

    /// As [`Load::start`], on a server of another address than 127.0.0.1.
    #[must_use]
    pub fn start_at(server: SocketAddr, clients: Clients) -> Self {
        Self::start_paced(server, clients, PAUSE)
    }

    /// As [`Load::start_at`], with this pause between two requests of one client: for a load that runs beside something
    /// that needs the machine.
    #[must_use]
    pub fn start_paced(server: SocketAddr, clients: Clients, pause: Duration) -> Self {
        let (stop, seen) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Seen>>::default());
        let start = |work: fn(SocketAddr, Duration, &AtomicBool, &Mutex<Seen>)| {
            let (stop, seen) = (Arc::clone(&stop), Arc::clone(&seen));
            std::thread::spawn(move || work(server, pause, &stop, &seen))
        };
        let kept = (0..clients.kept).map(|_| start(over_kept_connections));
        let fresh = (0..clients.fresh).map(|_| start(over_fresh_connections));
        let clients = kept.chain(fresh).collect();
        Self { stop, seen, clients }
    }

    /// What was seen so far.
    #[must_use]
    pub fn seen(&self) -> Seen {
        lock(&self.seen).clone()
    }

    /// Ends the clients after their current request.
    ///
    /// # Panics
    /// When a client panicked.
    #[must_use]
    pub fn stop(mut self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            client.join().expect("clients do not panic");
        }
        self.seen()
    }

    /// Ends the clients and returns the count of good requests.
    ///
    /// # Panics
    /// When a request failed, or a client panicked.
    pub fn assert_no_failure(self) -> u64 {
        let seen = self.stop();
        seen.assert_no_failure();
        seen.good
    }
}

impl Seen {
    /// That every request so far was answered 200.
    ///
    /// # Panics
    /// When one was not, with all those and how many were.
    pub fn assert_no_failure(&self) {
        assert_eq!(self.failures, Vec::<String>::new(), "with {} good requests", self.good);
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// How many clients of which kind.
#[derive(Debug, Clone, Copy)]
pub struct Clients {
    /// Keep their connection.
    pub kept: usize,
    /// Open a connection for each request.
    pub fresh: usize,
}

fn over_kept_connections(server: SocketAddr, pause: Duration, stop: &AtomicBool, seen: &Mutex<Seen>) {
    let mut connection = None;
    while !stop.load(Ordering::Relaxed) {
        let answer = match connection.take().map_or_else(|| Connection::open_at(server), Ok) {
            Ok(mut open) => {
                let answer = open.get("/load");
                // A server may end a kept connection with an answer, never instead of one.
                if answer.as_ref().is_ok_and(|answer| !answer.closes()) {
                    connection = Some(open);
                }
                answer
            }
            Err(error) => Err(error),
        };
        note(seen, answer);
        std::thread::sleep(pause);
    }
}

fn over_fresh_connections(server: SocketAddr, pause: Duration, stop: &AtomicBool, seen: &Mutex<Seen>) {
    while !stop.load(Ordering::Relaxed) {
        note(seen, client::fetch_at(server, "/load"));
        std::thread::sleep(pause);
    }
}

fn note(seen: &Mutex<Seen>, answer: std::io::Result<client::Answer>) {
    let now = Instant::now();
    let mut seen = lock(seen);
    match answer {
        Ok(answer) if answer.status == 200 => {
            let name = answer.json()["name"].as_str().expect("a sample backend says its name").to_owned();
            seen.good += 1;
            seen.first_answer.entry(name.clone()).or_insert(now);
            *seen.answers.entry(name).or_default() += 1;
        }
        Ok(answer) => seen.failures.push(format!("{}: {}", answer.status, answer.text())),
        Err(error) => seen.failures.push(error.to_string()),
    }
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Load of GET and POST, each request with an id, of which every end is kept.

use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use weir_tests::harness::client::{Answer, Connection};
use weir_tests::harness::ledger::ID_HEADER;
use weir_tests::harness::wait;

/// Clients at work.
pub(crate) struct Load {
    seen: Arc<Mutex<Vec<Shown>>>,
    /// Whoever finds that nobody can send it anything ends.
    clients: Vec<(Sender<()>, JoinHandle<()>)>,
}

/// A client of a load.
#[derive(Clone, Copy)]
pub(crate) struct Client {
    pub(crate) method: Method,
    pub(crate) keeps: Keeps,
    pub(crate) body_bytes: usize,
    /// Between two requests.
    pub(crate) pause: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Post,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keeps {
    /// One connection for all requests.
    Connection,
    /// A connection for each.
    Nothing,
}

/// What a client was shown of a request.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    pub(crate) id: String,
    pub(crate) method: Method,
    pub(crate) end: End,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// 200 and the whole of it.
    Good,
    /// Another status.
    Refused { status: u16, reason: Option<String> },
    /// A head with 200, and then not the whole of the body.
    Cut,
    /// The connection ended without a head.
    Silent(String),
}

impl Load {
    pub(crate) fn start(port: u16, clients: &[Client]) -> Self {
        let seen = Arc::<Mutex<Vec<Shown>>>::default();
        let start = |(number, &client): (usize, &Client)| {
            let seen = Arc::clone(&seen);
            let (stop, stopped) = mpsc::channel();
            (stop, std::thread::spawn(move || client.work(number, port, &stopped, &seen)))
        };
        let clients = clients.iter().enumerate().map(start).collect();
        Self { seen, clients }
    }

    /// Waits until so many more requests have ended.
    pub(crate) fn flow(&self, requests: usize) {
        let before = lock(&self.seen).len();
        wait::until("the load should flow", || (lock(&self.seen).len() >= before + requests).then_some(()));
    }

    /// Ends the clients after their current request.
    pub(crate) fn stop(mut self) -> Vec<Shown> {
        let (stops, clients): (Vec<_>, Vec<_>) = self.clients.drain(..).unzip();
        drop(stops);
        for client in clients {
            client.join().expect("clients do not panic");
        }
        std::mem::take(&mut lock(&self.seen))
    }
}

impl Client {
    fn work(self, number: usize, port: u16, stopped: &Receiver<()>, seen: &Mutex<Vec<Shown>>) {
        let (mut kept, mut count) = (None, 0);
        while stopped.recv_timeout(self.pause) == Err(RecvTimeoutError::Timeout) {
            let id = format!("{number}-{count}");
            count += 1;
            let connection = kept.take().map_or_else(|| Connection::open(port), Ok);
            let end = match connection {
                Ok(mut connection) => {
                    let (end, goes_on) = self.ask(&mut connection, &id);
                    kept = (goes_on && self.keeps == Keeps::Connection).then_some(connection);
                    end
                }
                Err(error) => End::Silent(error.to_string()),
            };
            lock(seen).push(Shown { id, method: self.method, end });
        }
    }

    /// How a request ends, and whether its connection goes on.
    fn ask(self, connection: &mut Connection, id: &str) -> (End, bool) {
        let head = match self.begin(connection, id) {
            Ok(head) => head,
            Err(error) => return (End::Silent(error.to_string()), false),
        };
        let reason = head.header("x-weir-reason").map(str::to_owned);
        match connection.read_rest(head) {
            Ok(answer) if answer.status == 200 => (End::Good, !answer.closes()),
            Ok(answer) => (End::Refused { status: answer.status, reason }, !answer.closes()),
            Err(_) => (End::Cut, false),
        }
    }

    fn begin(self, connection: &mut Connection, id: &str) -> io::Result<Answer> {
        let head = format!("Host: localhost\r\n{ID_HEADER}: {id}\r\n");
        let request = match self.method {
            Method::Get => format!("GET /{id} HTTP/1.1\r\n{head}\r\n"),
            Method::Post => {
                let body = "x".repeat(self.body_bytes);
                format!("POST /{id} HTTP/1.1\r\n{head}Content-Length: {}\r\n\r\n{body}", body.len())
            }
        };
        connection.send(request.as_bytes())?;
        connection.read_head()
    }
}

/// As many clients of each method, half of which keep their connection.
pub(super) fn mixed(each: usize, body_bytes: usize) -> Vec<Client> {
    let kinds = [
        (Method::Get, Keeps::Connection),
        (Method::Get, Keeps::Nothing),
        (Method::Post, Keeps::Connection),
        (Method::Post, Keeps::Nothing),
    ];
    let pause = Duration::ZERO;
    let of_kind = |(method, keeps)| (0..each).map(move |_| Client { method, keeps, body_bytes, pause });
    kinds.into_iter().flat_map(of_kind).collect()
}

fn lock(seen: &Mutex<Vec<Shown>>) -> std::sync::MutexGuard<'_, Vec<Shown>> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Backends of these tests.

use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use weir_tests::harness::gate::Gate;
use weir_tests::harness::gauge::Gauge;
use weir_tests::harness::scripted::{Asked, Exchange, Line, Scripted};

/// Answers requests with statuses of a list, the last for all that follow, and keeps what it was asked. It has two ports,
/// so that a request that is tried again finds another backend; to the list both are one.
pub(super) struct Recording {
    pub(super) ports: [u16; 2],
    asked: Arc<Mutex<Vec<Asked>>>,
}

/// In place of a status: the request is read, and the connection ends.
pub(super) const CLOSES: u16 = 0;

impl Recording {
    pub(super) fn start(statuses: &'static [u16]) -> Self {
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let ports = [(); 2].map(|()| {
            let asked = Arc::clone(&asked);
            Scripted::start(move |_, exchange| answer(exchange, &asked, statuses)).port
        });
        Self { ports, asked }
    }

    /// What came so far, in order.
    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn answer(exchange: &mut Exchange, all: &Mutex<Vec<Asked>>, statuses: &[u16]) {
    while let Some(asked) = exchange.read_request() {
        let number = {
            let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
            all.push(asked);
            all.len() - 1
        };
        match statuses[number.min(statuses.len() - 1)] {
            CLOSES => return,
            status => exchange.write(&format!("HTTP/1.1 {status} As told\r\nContent-Length: 2\r\n\r\nok")),
        }
    }
}

/// Connections that the proxy has not closed. Counted at the sockets: that a connection was closed its thread may find out
/// only after the next one came.
#[derive(Default)]
struct Open {
    lines: Vec<Line>,
    most: usize,
}

impl Open {
    fn add(&mut self, line: Line) {
        self.lines.push(line);
        self.lines.retain(|line| !line.has_ended());
        self.most = self.most.max(self.lines.len());
    }
}

/// Between two looks of an idle connection at whether it is to close.
const LOOK: Duration = Duration::from_millis(20);

/// Holds each request at a gate and then answers it.
pub(super) struct Held {
    pub(super) port: u16,
    pub(super) gate: Gate,
    /// Requests that it has.
    pub(super) requests: Gauge,
    pub(super) connections: Gauge,
    open: Arc<Mutex<Open>>,
    status: Arc<AtomicU16>,
    /// Connections before this one close once they are idle.
    closed_below: Arc<AtomicUsize>,
}

impl Held {
    pub(super) fn start() -> Self {
        Self::start_on(0)
    }

    /// On this port of 127.0.0.1.
    pub(super) fn start_on(port: u16) -> Self {
        let (gate, requests, connections) = (Gate::default(), Gauge::default(), Gauge::default());
        let (status, closed_below) = (Arc::new(AtomicU16::new(200)), Arc::<AtomicUsize>::default());
        let open = Arc::<Mutex<Open>>::default();
        let held = (gate.clone(), requests.clone(), connections.clone(), Arc::clone(&open));
        let (told, closed) = (Arc::clone(&status), Arc::clone(&closed_below));
        let backend = Scripted::start_on(port, move |number, exchange| {
            let (gate, requests, connections, open) = &held;
            open.lock().unwrap_or_else(PoisonError::into_inner).add(exchange.line());
            let _connected = connections.enter();
            while closed.load(Ordering::Relaxed) <= number {
                exchange.wait_at_most(LOOK);
                match exchange.read_request_if_any() {
                    Ok(Some(_)) => {}
                    Ok(None) => continue,
                    Err(_) => return,
                }
                {
                    let _here = requests.enter();
                    gate.pass();
                }
                let status = told.load(Ordering::Relaxed);
                exchange.write(&format!("HTTP/1.1 {status} As told\r\nContent-Length: 2\r\n\r\nok"));
            }
        });
        Self { port: backend.port, gate, requests, connections, open, status, closed_below }
    }

    /// From now on requests that pass the gate are answered with this status.
    pub(super) fn answer(&self, status: u16) {
        self.status.store(status, Ordering::Relaxed);
    }

    /// The most connections that were open at a time.
    pub(super) fn most_open(&self) -> usize {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).most
    }

    /// Closes the connections that are idle now.
    pub(super) fn close_idle(&self) {
        self.closed_below.store(self.connections.total(), Ordering::Relaxed);
    }
}

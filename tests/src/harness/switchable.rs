//! A backend whose answers a test switches while requests flow.

use crate::harness::scripted::{Exchange, Scripted};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

/// Answers every request with its name and the status that was set last; checks, which ask for `/health`, with another.
#[derive(Debug)]
pub struct Switchable {
    /// Its port on 127.0.0.1.
    pub port: u16,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    status: AtomicU16,
    check_status: AtomicU16,
    requests: AtomicU64,
    checks: AtomicU64,
}

impl Switchable {
    /// Starts one that answers 200 to everything.
    #[must_use]
    pub fn start(name: &str) -> Self {
        let inner = Arc::new(Inner {
            name: name.to_owned(),
            status: AtomicU16::new(200),
            check_status: AtomicU16::new(200),
            requests: AtomicU64::new(0),
            checks: AtomicU64::new(0),
        });
        let answering = Arc::clone(&inner);
        let port = Scripted::start(move |_, exchange| answering.serve(exchange)).port;
        Self { port, inner }
    }

    /// From now on requests are answered with this status.
    pub fn answer(&self, status: u16) {
        self.inner.status.store(status, Ordering::Relaxed);
    }

    /// From now on checks are answered with this status.
    pub fn answer_checks(&self, status: u16) {
        self.inner.check_status.store(status, Ordering::Relaxed);
    }

    /// Requests so far.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.inner.requests.load(Ordering::Relaxed)
    }

    /// Checks so far.
    #[must_use]
    pub fn checks(&self) -> u64 {
        self.inner.checks.load(Ordering::Relaxed)
    }
}

impl Inner {
    fn serve(&self, exchange: &mut Exchange) {
        while let Some(head) = exchange.read_head() {
            let (count, status) = if head.starts_with("GET /health ") {
                (&self.checks, &self.check_status)
            } else {
                (&self.requests, &self.status)
            };
            count.fetch_add(1, Ordering::Relaxed);
            let status = status.load(Ordering::Relaxed);
            let body = format!("{{\"name\":\"{}\"}}", self.name);
            exchange.write(&format!(
                "HTTP/1.1 {status} As asked\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ));
        }
    }
}

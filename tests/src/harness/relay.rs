//! A stretch of network between two processes that counts what goes over it.

use crate::harness::client;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Passes connections on to a port of 127.0.0.1, for as long as the test runs.
#[derive(Debug)]
pub struct Relay {
    /// Its port on 127.0.0.1.
    pub port: u16,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    accepted: AtomicU64,
    answered: AtomicU64,
}

impl Relay {
    /// Starts it. Nobody needs to listen on `to` yet.
    ///
    /// # Panics
    /// When the system has no port.
    #[must_use]
    pub fn start(to: u16) -> Self {
        let listener = TcpListener::bind(client::local(0)).expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let counts = Arc::<Counts>::default();
        let shared = Arc::clone(&counts);
        std::thread::spawn(move || {
            for near in listener.incoming() {
                let (Ok(near), Ok(far)) = (near, TcpStream::connect(client::local(to))) else { continue };
                shared.accepted.fetch_add(1, Ordering::SeqCst);
                pass(&near, &far, &shared);
            }
        });
        Self { port, counts }
    }

    /// Connections that were passed on.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.counts.accepted.load(Ordering::SeqCst)
    }

    /// Bytes from who is dialled to who dials, so far.
    #[must_use]
    pub fn answered_bytes(&self) -> u64 {
        self.counts.answered.load(Ordering::SeqCst)
    }
}

fn pass(near: &TcpStream, far: &TcpStream, counts: &Arc<Counts>) {
    let clone = |stream: &TcpStream| stream.try_clone().expect("a socket");
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let (up, down) = ((clone(near), clone(far)), (clone(far), clone(near)));
    let counts = Arc::clone(counts);
    std::thread::spawn(move || copy(up.0, up.1, |_| {}));
    std::thread::spawn(move || {
        copy(down.0, down.1, |bytes| {
            counts.answered.fetch_add(bytes as u64, Ordering::SeqCst);
        });
    });
}

/// Until one side ends; then the other is told.
fn copy(mut from: TcpStream, mut to: TcpStream, count: impl Fn(usize)) {
    let mut bytes = [0; 16 << 10];
    while let Ok(read) = from.read(&mut bytes) {
        count(read);
        if read == 0 || to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    let _ = (to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both));
}

//! A stretch of network between two processes that counts what goes over it.

use crate::harness::client;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Passes connections on to a port of 127.0.0.1, for as long as the test runs.
#[derive(Debug)]
pub struct Relay {
    /// Its port on 127.0.0.1.
    pub port: u16,
    answered_bytes: Arc<AtomicU64>,
    road: Arc<Road>,
}

/// What can be cut.
#[derive(Debug, Default)]
struct Road {
    is_cut: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
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
        let answered_bytes = Arc::<AtomicU64>::default();
        let counted = Arc::clone(&answered_bytes);
        let road = Arc::<Road>::default();
        let open = Arc::clone(&road);
        std::thread::spawn(move || {
            for near in listener.incoming() {
                let (Ok(near), Ok(far)) = (near, TcpStream::connect(client::local(to))) else { continue };
                if open.keep(&near) {
                    pass(&near, &far, &counted);
                }
            }
        });
        Self { port, answered_bytes, road }
    }

    /// Ends every connection, and whoever dials from now on is turned away.
    pub fn cut(&self) {
        self.road.is_cut.store(true, Ordering::SeqCst);
        for stream in self.road.streams().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Passes connections on again.
    pub fn mend(&self) {
        self.road.is_cut.store(false, Ordering::SeqCst);
    }

    /// Bytes from who is dialled to who dials, so far.
    #[must_use]
    pub fn answered_bytes(&self) -> u64 {
        self.answered_bytes.load(Ordering::SeqCst)
    }
}

impl Road {
    fn streams(&self) -> MutexGuard<'_, Vec<TcpStream>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False where the road is cut.
    fn keep(&self, stream: &TcpStream) -> bool {
        // Under the lock: a cut sees it or is seen.
        let mut streams = self.streams();
        let is_open = !self.is_cut.load(Ordering::SeqCst);
        if is_open {
            streams.push(stream.try_clone().expect("a socket"));
        }
        is_open
    }
}

fn pass(near: &TcpStream, far: &TcpStream, answered_bytes: &Arc<AtomicU64>) {
    let clone = |stream: &TcpStream| stream.try_clone().expect("a socket");
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let (up, down) = ((clone(near), clone(far)), (clone(far), clone(near)));
    let answered_bytes = Arc::clone(answered_bytes);
    std::thread::spawn(move || copy(up.0, up.1, |_| {}));
    std::thread::spawn(move || {
        copy(down.0, down.1, |bytes| {
            answered_bytes.fetch_add(bytes as u64, Ordering::SeqCst);
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

//! What keeps a proxy serving while backends fail, close or are slow: retries, connections, circuits, slots and queues.

mod backends;
mod chaos;
mod circuit;
mod connections;
mod http2;
pub(crate) mod load;
mod retries;
mod reuse;
mod slots;
mod split;
mod stale;
mod timeouts;

use weir_tests::harness::client::{self, Answer, Connection};
use weir_tests::harness::folder::Folder;
use weir_tests::harness::manifest::PoolText;
use weir_tests::harness::ports;
use weir_tests::harness::services::Service;

/// `weir run` over a folder with one pool.
struct Site {
    folder: Folder,
    weir: Service,
    port: u16,
}

impl Site {
    fn start(pool: &PoolText) -> Self {
        Self::of_text(pool.port, &pool.yaml())
    }

    /// With three workers, each of which has some of the connections of clients and of those to backends.
    fn of_workers(pool: &PoolText) -> Self {
        let folder = Folder::new();
        folder.write("pool.yaml", &pool.yaml());
        let weir = Service::standalone_of(3, folder.path(), &[]);
        Self { folder, weir, port: pool.port }
    }

    /// With one pool in this text, of which this port is a listener.
    fn of_text(port: u16, text: &str) -> Self {
        let folder = Folder::new();
        folder.write("pool.yaml", text);
        let weir = Service::standalone(folder.path(), &[]);
        Self { folder, weir, port }
    }

    fn connect(&self) -> Connection {
        Connection::open(self.port).expect("serves")
    }

    fn get(&self, target: &str) -> Answer {
        client::fetch(self.port, target).expect("an answer")
    }

    /// One request without a body over a connection of its own.
    fn send(&self, method: &str) -> Answer {
        let request = format!(
            "{method} / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        self.connect().request(&request).expect("an answer")
    }
}

/// A pool before these backends, each of weight 1, with more fields of `spec`.
fn pool(backends: &[u16], spec: &[&str]) -> PoolText {
    let backends: Vec<(u16, u32)> = backends.iter().map(|&port| (port, 1)).collect();
    let mut pool = PoolText::new("resilient", ports::free(), &backends);
    pool.spec = spec.iter().map(|&field| field.to_owned()).collect();
    pool
}

/// The status of an answer, and its reason where the proxy made it.
fn told(answer: &Answer) -> (u16, Option<&str>) {
    (answer.status, answer.header("x-weir-reason"))
}

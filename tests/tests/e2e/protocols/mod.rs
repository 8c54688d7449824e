//! Protocols through the proxy: WebSocket, gRPC, interim answers, event streams, and what speaks which after ALPN.

mod alpn;
mod backpressure;
mod calls;
mod interim;
pub(crate) mod judges;
mod streams;
mod websocket;

use weir_tests::harness::client::Connection;
use weir_tests::harness::folder::Folder;
use weir_tests::harness::manifest::PoolText;
use weir_tests::harness::services::Service;
use weir_tests::harness::{certificates, ports};

/// `weir run` with one pool.
struct Site {
    _folder: Folder,
    weir: Service,
    port: u16,
}

/// What a backend speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speaks {
    Http1,
    Http2,
}

const BOTH: [Speaks; 2] = [Speaks::Http1, Speaks::Http2];

impl Site {
    /// Before these backends, with more fields of `spec`.
    fn before(backends: &[u16], speaks: Speaks, spec: &[&str]) -> Self {
        let backends: Vec<(u16, u32)> = backends.iter().map(|&port| (port, 1)).collect();
        let mut pool = PoolText::new("protocols", ports::free(), &backends);
        pool.spec = spec.iter().map(|&field| field.to_owned()).collect();
        if speaks == Speaks::Http2 {
            pool.set = vec!["protocol: HTTP2".to_owned()];
        }
        Self::of(&pool)
    }

    fn of(pool: &PoolText) -> Self {
        Self::of_text(pool.port, &pool.yaml())
    }

    /// With a listener for TLS in place of the plain one. The certificate is for localhost.
    fn over_tls(pool: &PoolText) -> Self {
        let listener = "protocol: HTTPS\n      tls: { certificateRefs: [{ name: cert }] }\n";
        let text = pool.yaml().replace("protocol: HTTP\n", listener);
        Self::of_text(
            pool.port,
            &format!("{text}---\n{}", certificates::secret("cert", "localhost", &["localhost"])),
        )
    }

    fn of_text(port: u16, text: &str) -> Self {
        let folder = Folder::new();
        folder.write("pool.yaml", text);
        // A WebSocket is ended at its own moment of a drain, which is long here.
        let weir =
            Service::standalone(folder.path(), &["--drain-timeout", "600s", "--tunnel-window", "480s"]);
        Self { _folder: folder, weir, port }
    }

    fn connect(&self) -> Connection {
        Connection::open(self.port).expect("serves")
    }
}

/// Looks until there is something to see, while the client's own connection goes on.
async fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        tokio::task::yield_now().await;
    }
}

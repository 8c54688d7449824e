//! Whoever does not read stops whoever sends, and little is held between them.

use super::streams::{Announces, Backend, Event, Pipe, STILL, flood};
use super::{BOTH, Site, Speaks};
use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use std::io::Write as _;
use std::net::TcpStream;
use std::sync::mpsc;
use std::thread::JoinHandle;
use tungstenite::handshake::derive_accept_key;
use weir_tests::harness::client::local;
use weir_tests::harness::scripted::Scripted;
use weir_tests::harness::wait::GENEROUS;

/// Streams at a time.
const STREAMS: usize = 6;

/// Most that the proxy may take in memory for all of them: HTTP/2's windows and send buffers, and less than a megabyte for
/// each. What is sent meanwhile has no end.
const HELD_BYTES_MAX: u64 = 12 << 20;

/// A backend that sends without end to a GET, and reads nothing of a POST; it tells when it stands still.
fn http1() -> (Scripted, mpsc::Receiver<()>) {
    let (say, still) = mpsc::channel();
    let backend = Scripted::start(move |_, exchange| {
        let Some(head) = exchange.read_head() else { return };
        if let Some(key) = head.split("\r\n").find_map(|line| line.strip_prefix("sec-websocket-key: ")) {
            let proof = derive_accept_key(key.as_bytes());
            exchange.write(&format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {proof}\r\n\r\n"
            ));
        } else if head.starts_with("GET ") {
            exchange.write("HTTP/1.1 200 OK\r\n\r\n");
        } else {
            exchange.stay();
        }
        exchange.flood(STILL);
        let _ = say.send(());
        exchange.stay();
    });
    (backend, still)
}

/// A site, what a backend behind it says once it stands still, and what the proxy held before.
struct Stage {
    site: Site,
    http1: (Scripted, mpsc::Receiver<()>),
    http2: Backend,
    speaks: Speaks,
    before: u64,
}

impl Stage {
    fn of(speaks: Speaks) -> Self {
        let (http1, http2) = (http1(), Backend::start(Announces::WebSocket));
        let port = if speaks == Speaks::Http1 { http1.0.port } else { http2.port };
        let site = Site::before(&[port], speaks, &[]);
        // What the first request makes it allocate for good.
        let _ = site.connect().request("GET /flood HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n");
        let before = site.weir.process.resident_bytes();
        Self { site, http1, http2, speaks, before }
    }

    /// Until one more flood of the backend's stands still.
    fn await_still(&self) {
        if self.speaks == Speaks::Http1 {
            self.http1.1.recv_timeout(GENEROUS).expect("the backend should be stopped");
            return;
        }
        while !matches!(self.http2.events.recv_timeout(GENEROUS), Ok(Event::Still)) {}
    }

    fn assert_little_is_held(&self, client: Speaks) {
        let grown = self.site.weir.process.resident_bytes().saturating_sub(self.before);
        let Self { speaks, .. } = self;
        assert!(grown <= HELD_BYTES_MAX, "client of {client:?}, backend of {speaks:?}: {grown} bytes");
    }
}

/// A client of HTTP/2 on a thread of its own, which goes on until this is dropped.
struct Client {
    _open: tokio::sync::oneshot::Sender<()>,
    _thread: JoinHandle<()>,
}

impl Client {
    fn start(port: u16, work: impl AsyncFnOnce(SendRequest<Bytes>) + Send + 'static) -> Self {
        let (open, closed) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let socket = tokio::net::TcpStream::connect(local(port)).await.expect("serves");
                let (send, connection) = h2::client::handshake(socket).await.expect("HTTP/2");
                tokio::spawn(connection);
                tokio::select! {
                    () = work(send) => {}
                    _ = closed => {}
                }
            });
        });
        Self { _open: open, _thread: thread }
    }
}

/// With each client and each backend, what is asked for `/flood` and not read.
fn flood_all_four_ways<T>(
    request: &str,
    open: impl AsyncFn(&mut SendRequest<Bytes>) -> T + Copy + Send + 'static,
    look: impl Fn(&Stage),
) {
    for (speaks, client) in BOTH.into_iter().flat_map(|speaks| BOTH.map(|client| (speaks, client))) {
        let stage = Stage::of(speaks);
        let mut plain: Vec<TcpStream> = Vec::new();
        let mut shared = None;
        if client == Speaks::Http1 {
            plain.extend((0..STREAMS).map(|_| stage.site.connect().into_stream()));
            for stream in &mut plain {
                stream.write_all(request.as_bytes()).expect("open");
            }
        } else {
            shared = Some(Client::start(stage.site.port, async move |mut client| {
                let mut unread = Vec::new();
                for _ in 0..STREAMS {
                    unread.push(open(&mut client).await);
                }
                std::future::pending::<()>().await;
            }));
        }
        (0..STREAMS).for_each(|_| stage.await_still());
        look(&stage);
        stage.assert_little_is_held(client);
        drop((plain, shared));
    }
}

#[test]
fn a_client_that_does_not_read_stops_its_backend_in_all_four_ways() {
    let ask = async |client: &mut SendRequest<Bytes>| {
        let request = Request::get("http://a/flood").body(()).expect("a request");
        client.send_request(request, true).expect("open").0.await.expect("a head")
    };
    flood_all_four_ways("GET /flood HTTP/1.1\r\nHost: a\r\n\r\n", ask, |_| {});
}

#[test]
fn a_websocket_s_client_that_does_not_read_stops_its_backend_in_all_four_ways() {
    let upgrade = "GET /flood HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let open = async |client: &mut SendRequest<Bytes>| Pipe::open(client, "/flood").await;
    flood_all_four_ways(upgrade, open, |stage| {
        assert_eq!(stage.site.weir.metric("weir_tunnels_open"), STREAMS as u64);
    });
}

#[test]
fn a_backend_that_does_not_read_stops_its_client_in_all_four_ways() {
    for (speaks, client) in BOTH.into_iter().flat_map(|speaks| BOTH.map(|client| (speaks, client))) {
        let stage = Stage::of(speaks);
        if client == Speaks::Http1 {
            let upload = |_| {
                let mut stream = stage.site.connect().into_stream();
                let head = b"POST /wait HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999999\r\n\r\n";
                stream.write_all(head).expect("open");
                stream.set_write_timeout(Some(STILL)).expect("a socket");
                std::thread::spawn(move || {
                    while stream.write(&[b'f'; 16 << 10]).is_ok() {}
                    stream
                })
            };
            let uploads: Vec<_> = (0..STREAMS).map(upload).collect();
            let _open: Vec<_> = uploads.into_iter().map(|upload| upload.join().expect("stopped")).collect();
            stage.assert_little_is_held(client);
            continue;
        }
        let (say, stopped) = mpsc::channel();
        let _client = Client::start(stage.site.port, async move |mut client| {
            let mut open = Vec::new();
            for _ in 0..STREAMS {
                let request = Request::post("http://a/wait").body(()).expect("a request");
                let (answer, mut up) = client.send_request(request, false).expect("open");
                flood(&mut up).await;
                open.push((answer, up));
                say.send(()).expect("the test listens");
            }
            std::future::pending::<()>().await;
        });
        (0..STREAMS).for_each(|_| stopped.recv_timeout(GENEROUS).expect("the client should be stopped"));
        stage.assert_little_is_held(client);
    }
}

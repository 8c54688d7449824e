//! A backend that speaks HTTP/2 from the first byte, as one for gRPC does.

use crate::http2_client::SMALL_FRAMES_BUDGET_BYTES;
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use weir_tests::harness::gauge::{Counted, Gauge};
use weir_tests::harness::ledger::ID_HEADER;

/// Answers each path in its own way:
/// - `/held` once it is let go;
/// - `/echo` with the body, frame by frame as it comes, and trailers;
/// - `/late` as `/echo`, but it reads nothing before it is let go;
/// - `/cut` with a head, some of a body and, once it is let go, a reset;
/// - `/reset` with a reset and no head;
/// - `/drops/BYTES/COUNT` with so many frames of so many bytes, as the windows allow;
/// - `/die` with the end of the connection, of which it says that this stream was the last that it began;
/// - every other with 200.
pub(super) struct Backend {
    pub(super) port: u16,
    inner: Arc<Inner>,
}

struct Inner {
    connections: Gauge,
    /// Requests that wait to be let go.
    held: Gauge,
    /// The most streams that a connection had at a time.
    streams_most: AtomicUsize,
    /// Frames that requests for drops were sent, by their paths.
    drops: Mutex<BTreeMap<String, usize>>,
    refuses: AtomicBool,
    executed: Mutex<BTreeMap<String, usize>>,
    is_let_go: watch::Sender<bool>,
    leavings: watch::Sender<u64>,
}

impl Backend {
    pub(super) fn start() -> Self {
        let inner = Arc::new(Inner {
            connections: Gauge::default(),
            held: Gauge::default(),
            streams_most: AtomicUsize::new(0),
            drops: Mutex::default(),
            refuses: AtomicBool::new(false),
            executed: Mutex::default(),
            is_let_go: watch::Sender::new(false),
            leavings: watch::Sender::new(0),
        });
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        listener.set_nonblocking(true).expect("a socket");
        let serving = Arc::clone(&inner);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let listener = TcpListener::from_std(listener).expect("a socket");
                while let Ok((socket, _)) = listener.accept().await {
                    tokio::spawn(Arc::clone(&serving).serve(socket));
                }
            });
        });
        Self { port, inner }
    }

    pub(super) fn connections(&self) -> &Gauge {
        &self.inner.connections
    }

    /// Requests that wait to be let go.
    pub(super) fn held(&self) -> usize {
        self.inner.held.now()
    }

    pub(super) fn let_go(&self) {
        self.inner.is_let_go.send_replace(true);
    }

    pub(super) fn streams_most(&self) -> usize {
        self.inner.streams_most.load(Ordering::Relaxed)
    }

    /// Frames that requests for these drops were sent.
    pub(super) fn drops(&self, path: &str) -> usize {
        let drops = self.inner.drops.lock().unwrap_or_else(PoisonError::into_inner);
        drops.get(path).copied().unwrap_or_default()
    }

    /// Tells every connection that it goes (GOAWAY), and ends each with its last stream.
    pub(super) fn leave(&self) {
        self.inner.leavings.send_modify(|count| *count += 1);
    }

    /// Refuses the next stream, untouched.
    pub(super) fn refuse_one(&self) {
        self.inner.refuses.store(true, Ordering::Relaxed);
    }

    pub(super) fn has_refused(&self) -> bool {
        !self.inner.refuses.load(Ordering::Relaxed)
    }

    /// How often each request was carried out, by its id.
    pub(super) fn executed(&self) -> BTreeMap<String, usize> {
        self.inner.executed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Inner {
    async fn serve(self: Arc<Self>, socket: TcpStream) {
        let _connected = self.connections.enter();
        let _ = socket.set_nodelay(true);
        let mut settings = h2::server::Builder::new();
        settings.data_frame_budget(SMALL_FRAMES_BUDGET_BYTES);
        let Ok(mut connection) = settings.handshake(socket).await else { return };
        let (streams, mut leavings) = (Gauge::default(), self.leavings.subscribe());
        loop {
            let accepted = tokio::select! {
                Ok(()) = leavings.changed() => {
                    connection.graceful_shutdown();
                    continue;
                }
                accepted = connection.accept() => accepted,
            };
            let Some(Ok((request, mut respond))) = accepted else { return };
            if self.refuses.swap(false, Ordering::Relaxed) {
                respond.send_reset(Reason::REFUSED_STREAM);
                continue;
            }
            if request.uri().path() == "/die" {
                self.enter(request.headers());
                connection.abrupt_shutdown(Reason::INTERNAL_ERROR);
                continue;
            }
            let stream = streams.enter();
            self.streams_most.fetch_max(streams.now(), Ordering::Relaxed);
            tokio::spawn(Arc::clone(&self).answer(request, respond, stream));
        }
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
        _stream: Counted,
    ) {
        let (head, mut body) = request.into_parts();
        if head.uri.path() == "/late" {
            self.wait().await;
        }
        if matches!(head.uri.path(), "/echo" | "/late") {
            return echo(body, respond).await;
        }
        while let Some(Ok(data)) = body.data().await {
            let _ = body.flow_control().release_capacity(data.len());
        }
        self.enter(&head.headers);
        if head.uri.path() == "/held" {
            self.wait().await;
        }
        if head.uri.path() == "/reset" {
            return respond.send_reset(Reason::INTERNAL_ERROR);
        }
        let Ok(mut stream) = respond.send_response(Response::new(()), false) else { return };
        if head.uri.path() == "/cut" {
            let _ = stream.send_data(Bytes::from_static(b"part"), false);
            self.wait().await;
            stream.send_reset(Reason::INTERNAL_ERROR);
            return;
        }
        if head.uri.path().starts_with("/drops/") {
            return self.drop_by_drop(head.uri.path(), stream).await;
        }
        let _ = stream.send_data(Bytes::from_static(b"done"), true);
    }

    async fn drop_by_drop(&self, path: &str, mut stream: SendStream<Bytes>) {
        let mut numbers = path.split('/').skip(2).map(|number| number.parse().expect("a number"));
        let mut number = || numbers.next().expect("two numbers");
        let (bytes, count) = (number(), number());
        for number in 0..count {
            stream.reserve_capacity(bytes);
            while stream.capacity() < bytes {
                let Some(Ok(_)) = poll_fn(|cx| stream.poll_capacity(cx)).await else { return };
            }
            let Ok(()) = stream.send_data(drop(bytes, number), number + 1 == count) else { return };
            let mut drops = self.drops.lock().unwrap_or_else(PoisonError::into_inner);
            *drops.entry(path.to_owned()).or_default() += 1;
        }
    }

    /// Carries a request out.
    fn enter(&self, headers: &HeaderMap) {
        if let Some(id) = headers.get(ID_HEADER) {
            let id = id.to_str().expect("text").to_owned();
            let mut executed = self.executed.lock().unwrap_or_else(PoisonError::into_inner);
            *executed.entry(id).or_default() += 1;
        }
    }

    async fn wait(&self) {
        let _held = self.held.enter();
        let _ = self.is_let_go.subscribe().wait_for(|is_let_go| *is_let_go).await;
    }
}

/// What is in a frame of drops.
pub(super) fn drop(bytes: usize, number: usize) -> Bytes {
    let letter = b'a' + u8::try_from(number % 26).expect("a small number");
    vec![letter; bytes].into()
}

/// As a gRPC server does: the status is in the trailers, and so is what the client's trailers said.
async fn echo(mut body: RecvStream, mut respond: SendResponse<Bytes>) {
    let head = Response::builder().header("content-type", "application/grpc").body(()).expect("a response");
    let Ok(mut stream) = respond.send_response(head, false) else { return };
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        let _ = stream.send_data(data, false);
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", 0.into());
    if let Ok(Some(sent)) = body.trailers().await {
        trailers.extend(sent);
    }
    let _ = stream.send_trailers(trailers);
}

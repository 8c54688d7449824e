//! The sample backends' HTTP server: HTTP/1.1 and HTTP/2 without TLS, told apart by the preface.

use crate::demo_backend::{answer, websocket};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use serde_json::json;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// Pause after an accept that failed, for instance for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// One sample backend, bound and not yet serving.
#[derive(Debug)]
pub struct Member {
    name: String,
    address: SocketAddr,
    socket: std::net::TcpListener,
}

impl Member {
    /// A backend on a listening socket.
    ///
    /// # Errors
    /// When the socket has no address or cannot be made non-blocking.
    pub fn new(name: String, socket: std::net::TcpListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { name, address: socket.local_addr()?, socket })
    }

    /// What it calls itself.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Serves each member that arrives. Once the sender of `members` is dropped, accepts nothing more and ends when
/// every request is answered.
pub async fn serve(mut members: mpsc::UnboundedReceiver<Member>, delay: Duration) {
    let (stop, stopped) = watch::channel(());
    let mut serving = JoinSet::new();
    while let Some(member) = members.recv().await {
        serving.spawn(accept(member, delay, stopped.clone()));
    }
    drop(stop);
    while serving.join_next().await.is_some() {}
}

/// What the connections of one backend share.
struct Backend {
    name: String,
    address: SocketAddr,
    delay: Duration,
    started: Instant,
    requests: AtomicU64,
    in_flight: AtomicU64,
    stop: watch::Receiver<()>,
    /// Held by each WebSocket, so that the end waits for their closing frames.
    echoing: mpsc::Sender<()>,
}

async fn accept(member: Member, delay: Duration, mut stop: watch::Receiver<()>) {
    let listener = match TcpListener::from_std(member.socket) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!("sample backend {} cannot serve: {error}", member.name);
            return;
        }
    };
    let (echoing, mut echoed) = mpsc::channel(1);
    let backend = Arc::new(Backend {
        name: member.name,
        address: member.address,
        delay,
        started: Instant::now(),
        requests: AtomicU64::new(0),
        in_flight: AtomicU64::new(0),
        stop: stop.clone(),
        echoing,
    });
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new());
    http.http2().timer(TokioTimer::new());
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.changed() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("sample backend {} cannot accept a connection: {error}", backend.name);
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // A small answer must not wait for the acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        let backend = Arc::clone(&backend);
        let service = hyper::service::service_fn(move |request| respond(Arc::clone(&backend), request));
        let connection = http.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
        // A connection that ends in an error is the client's affair.
        tokio::spawn(graceful.watch(connection));
    }
    drop(listener);
    graceful.shutdown().await;
    drop(backend);
    let _ = echoed.recv().await;
}

async fn respond(
    backend: Arc<Backend>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    backend.requests.fetch_add(1, Ordering::Relaxed);
    backend.in_flight.fetch_add(1, Ordering::Relaxed);
    let response = match request.uri().path() {
        "/health" => answer::json(request.method(), StatusCode::OK, &json!({ "status": "ok" })),
        "/health/detailed" => answer::json(request.method(), StatusCode::OK, &detailed(&backend)),
        _ if websocket::is_asked_for(&request) => {
            websocket::accept(request, backend.stop.clone(), backend.echoing.clone())
        }
        _ => echo(&backend, request).await,
    };
    backend.in_flight.fetch_sub(1, Ordering::Relaxed);
    Ok(response)
}

fn detailed(backend: &Backend) -> serde_json::Value {
    json!({
        "status": "ok",
        "name": backend.name,
        "uptimeSeconds": backend.started.elapsed().as_secs(),
        "requests": backend.requests.load(Ordering::Relaxed),
        // This request is one of them.
        "inFlight": backend.in_flight.load(Ordering::Relaxed),
        "memoryBytes": resident_bytes(),
    })
}

/// The whole process's resident memory; `None` where the system does not say.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

async fn echo(backend: &Backend, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, mut body) = request.into_parts();
    let delay = match answer::asked_delay(head.uri.query()) {
        Ok(asked) => asked.unwrap_or(backend.delay),
        Err(reason) => return refuse(&head.method, &reason),
    };
    let mut arrived = answer::Arrived::new(&head);
    // Counted, never kept: a body of any size costs one frame of memory.
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => arrived.body_bytes += frame.data_ref().map_or(0, |data| data.len() as u64),
            Err(error) => return refuse(&head.method, &format!("the request's body broke off: {error}")),
        }
    }
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    let echo = answer::Echo { name: &backend.name, address: backend.address.to_string(), request: arrived };
    answer::json(&head.method, StatusCode::OK, &echo)
}

fn refuse(method: &Method, reason: &str) -> Response<Full<Bytes>> {
    answer::json(method, StatusCode::BAD_REQUEST, &json!({ "error": reason }))
}

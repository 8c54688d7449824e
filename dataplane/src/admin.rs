//! Administration over HTTP/1.1: liveness, readiness, metrics, and what is served at the moment.
//!
//! Read only. It runs on the control runtime, has its own limits, and touches the request path only by reading
//! counters. No key and no certificate is ever shown.

mod pages;

pub use pages::{Page, Pages};

use crate::access_log;
use crate::config::shares::Exchange;
use crate::config::{Applier, PoolStatus, Status, written};
use crate::counters::Counters;
use crate::explain::{Kept, Question, explain};
use crate::health::{Counts, Finding, View};
use crate::metrics::{Metrics, Sources};
use crate::readiness::{Phase, Readiness};
use crate::sessions::Keeping;
use crate::snapshot::{Current, Protocol};
use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use lb_core::backend::BackendState;
use lb_core::resilience::{Breaker, BreakerState};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use weir_metrics::Format;

/// Connections at a time; one past it waits to be accepted.
pub const CONNECTIONS_MAX: usize = 64;

/// Header fields of one request; one past it is answered 431.
pub const HEADERS_MAX: usize = 64;

/// Bytes of one request's head; one past it is answered 431.
pub const HEAD_BYTES_MAX: usize = 16 << 10;

/// Longest time for a request's head to arrive, and for a connection to wait for the next.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest life of a connection, so that a client that does not read cannot hold one for ever.
pub const CONNECTION_TIME_MAX: Duration = Duration::from_secs(300);

/// Wait after the system could not give a socket.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const PATHS: [&str; 6] = ["/livez", "/readyz", "/metrics", "/api/v1/backends", "/api/v1/config", EXPLAIN];

/// Path of [`explain`], for the question that its query asks.
pub const EXPLAIN: &str = "/api/v1/explain";

/// What the administration interface shows.
#[derive(Debug)]
pub struct AdminState {
    current: Current,
    readiness: Arc<Readiness>,
    status: Arc<Status>,
    health: View,
    metrics: Metrics,
    keeping: Arc<Keeping>,
    pages: Option<Pages>,
}

/// What is looked at beside the configuration.
#[derive(Debug)]
pub struct Seen {
    /// Counts of each worker.
    pub workers: Vec<Arc<Counters>>,
    /// Counts of health checks.
    pub health: Arc<Counts>,
    /// What is known of each backend.
    pub view: View,
    /// What sessions are kept with.
    pub keeping: Arc<Keeping>,
    /// How shares of limits stand.
    pub shares: Arc<Exchange>,
    /// What became of lines of the access log.
    pub access_log: Arc<access_log::Counts>,
}

impl AdminState {
    /// Over the sources of one process.
    #[must_use]
    pub fn new(current: Current, seen: Seen, readiness: Arc<Readiness>, applier: &Applier) -> Self {
        let status = applier.status();
        let Seen { workers, health, view, keeping, shares, access_log } = seen;
        let metrics = Metrics::new(Sources {
            current: Arc::clone(&current),
            workers,
            health,
            store: keeping.store.clone(),
            shares,
            access_log,
            status: Arc::clone(&status),
            readiness: Arc::clone(&readiness),
        });
        Self { current, readiness, status, health: view, metrics, keeping, pages: None }
    }

    /// With pages of another part of the process.
    #[must_use]
    pub fn with_pages(self, pages: Option<Pages>) -> Self {
        Self { pages, ..self }
    }

    fn paths(&self) -> impl Iterator<Item = &'static str> {
        PATHS.into_iter().chain(self.pages.iter().flat_map(Pages::paths))
    }
}

/// Serves until `shutdown` completes; requests under way are cut then.
pub async fn serve(listener: TcpListener, state: AdminState, shutdown: impl Future<Output = ()>) {
    let state = Arc::new(state);
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        while connections.try_join_next().is_some() {}
        let accept = async {
            let permit = Arc::clone(&permits).acquire_owned().await.expect("the semaphore is never closed");
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = &mut shutdown => return,
            accepted = accept => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let state = Arc::clone(&state);
                connections.spawn(async move {
                    connection(stream, state).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection for administration");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, state: Arc<AdminState>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let state = Arc::clone(&state);
        async move { Ok::<_, Infallible>(respond(&state, &request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(CONNECTION_TIME_MAX, connection).await {
        Ok(Ok(())) | Err(_) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection for administration failed"),
    }
}

async fn respond<B: hyper::body::Body>(state: &AdminState, request: &Request<B>) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    if !state.paths().any(|known| known == path) {
        let known = state.paths().collect::<Vec<_>>().join(", ");
        let message = format!("there is nothing at {path}; try {known}");
        return failure(StatusCode::NOT_FOUND, &message);
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let message =
            format!("{} is not answered here: this interface only reads, use GET", request.method());
        let mut response = failure(StatusCode::METHOD_NOT_ALLOWED, &message);
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    if !request.body().is_end_stream() {
        return failure(StatusCode::PAYLOAD_TOO_LARGE, "a request for administration has no body: send none");
    }
    if let Some(pages) = &state.pages
        && let Some(page) = pages.page(path, request.uri().query()).await
    {
        return json_body(StatusCode::OK, &page);
    }
    match path {
        "/livez" => text(StatusCode::OK, "ok\n"),
        "/readyz" => readyz(state.readiness.phase(), state.status.restored_from()),
        "/metrics" => scrape(state, request.headers()),
        "/api/v1/backends" => {
            json_body(StatusCode::OK, &backends(&state.status, &state.health.findings().await))
        }
        EXPLAIN => explained(state, request.uri().query().unwrap_or_default()),
        _ => json_body(StatusCode::OK, &config(state)),
    }
}

/// What would become of a request now. Nothing of the question is logged.
fn explained(state: &AdminState, query: &str) -> Response<Full<Bytes>> {
    let question = match Question::from_query(query) {
        Ok(question) => question,
        Err(error) => return failure(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let kept = Kept {
        keeping: &state.keeping,
        of_day: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        since_start: state.status.since_start(),
    };
    json_body(StatusCode::OK, &json!(explain(&state.current.load(), &question, Some(kept))))
}

fn readyz(phase: Phase, restored_from: Option<SystemTime>) -> Response<Full<Bytes>> {
    let serving =
        restored_from.map(|at| format!("serving the last known configuration, from {}", written(at)));
    match (phase, serving) {
        (Phase::Ready, None) => text(StatusCode::OK, "ok\n"),
        (Phase::Ready, Some(serving)) => text(StatusCode::OK, format!("ok: {serving}\n")),
        (Phase::Starting, None) => text(
            StatusCode::SERVICE_UNAVAILABLE,
            "starting: no complete configuration has been applied yet\n",
        ),
        (Phase::Starting, Some(serving)) => {
            text(StatusCode::SERVICE_UNAVAILABLE, format!("starting: {serving}; waiting for a controller\n"))
        }
        (Phase::Draining, _) => {
            text(StatusCode::SERVICE_UNAVAILABLE, "draining: this proxy is shutting down\n")
        }
    }
}

fn scrape(state: &AdminState, asked: &HeaderMap) -> Response<Full<Bytes>> {
    let format = Format::of_accept(asked.get(ACCEPT).and_then(|accept| accept.to_str().ok()));
    match state.metrics.text(format) {
        Ok(body) => response(StatusCode::OK, format.content_type(), body),
        Err(error) => {
            failure(StatusCode::INTERNAL_SERVER_ERROR, &format!("cannot write the metrics: {error}"))
        }
    }
}

fn backends(status: &Status, health: &BTreeMap<(u64, Arc<str>), Finding>) -> Value {
    let backend = |set: u64, backend: &lb_core::backend::Backend| {
        json!({
            "id": &*backend.id,
            "address": backend.address.to_string(),
            "weight": backend.weight,
            "priority": backend.priority,
            "zone": &*backend.zone,
            "state": match backend.state {
                BackendState::Ready => "ready",
                BackendState::Draining => "draining",
            },
            "health": health.get(&(set, Arc::clone(&backend.id))).map(finding),
            "in_flight": backend.live.in_flight(),
            "connections": backend.live.connections(),
            "requests": backend.live.requests(),
            "latency_ms": backend.live.latency().map(milliseconds),
        })
    };
    let now = status.since_start();
    let pools = status.pools().into_iter().map(|(name, pool)| {
        let sets = pool.sets.iter().map(|(name, set)| {
            let members = set.members();
            let backends = members.backends().iter().map(|member| backend(set.id, member));
            let backends = backends.collect::<Vec<_>>();
            json!({
                "name": name,
                "ignores_health": members.ignores_health(),
                "circuit": set.guard.breaker.as_ref().map(|breaker| circuit(breaker, now)),
                "queued": set.guard.queue.len(),
                "backends": backends,
            })
        });
        json!({ "name": name, "sets": sets.collect::<Vec<_>>() })
    });
    json!({ "pools": pools.collect::<Vec<_>>() })
}

fn circuit(breaker: &Breaker, now: Duration) -> Value {
    let (state, closes) = match breaker.state(now) {
        BreakerState::Closed => ("closed", None),
        BreakerState::Open { until } => ("open", Some(milliseconds(until.saturating_sub(now)))),
        BreakerState::HalfOpen => ("half-open", None),
    };
    json!({ "state": state, "next_probe_in_ms": closes, "opened": breaker.opened() })
}

/// What health checks and ejection say of a backend; its check only where it is checked actively.
fn finding(finding: &Finding) -> Value {
    let check = finding.check.as_ref().map(|check| {
        json!({
            "state": check.state,
            "reason": check.reason,
            "last_ms_ago": check.last_ago.map(milliseconds),
            "latency_ms": check.latency.map(milliseconds),
            "here": check.is_checked_here,
        })
    });
    json!({
        "available": finding.is_available,
        "reason": finding.reason,
        "weight_permille": finding.weight_permille,
        "check": check,
    })
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

fn config(state: &AdminState) -> Value {
    let snapshot = state.current.load();
    let listeners = snapshot.listeners.values().chain(snapshot.datagrams.values()).map(|listener| {
        let protocol = match listener.protocol {
            Protocol::Http => "HTTP",
            Protocol::Https(_) => "HTTPS",
            Protocol::Tcp => "TCP",
            Protocol::Tls(_) => "TLS",
            Protocol::Passthrough => "TLS, passed on",
            Protocol::Udp => "UDP",
        };
        json!({ "port": listener.port, "protocol": protocol })
    });
    let pools = state.status.pools();
    let pools = pools.iter().map(|(name, pool)| pool_config(name, pool));
    json!({
        "version": snapshot.version,
        "in_step": state.status.is_in_step(),
        "restored_from": state.status.restored_from().map(written),
        "config_age_seconds": state.status.config_age().map(|age| age.as_secs_f64()),
        "listeners": listeners.collect::<Vec<_>>(),
        "pools": pools.collect::<Vec<_>>(),
    })
}

/// Digests and the epoch are 64-bit numbers, which JSON readers round: they are written in hexadecimal.
fn pool_config(name: &str, pool: &PoolStatus) -> Value {
    let hex = |n: u64| format!("{n:016x}");
    let sets = pool.set_digests.iter().map(|set| json!({ "name": set.set, "digest": hex(set.digest) }));
    json!({
        "name": name,
        "version": pool.version.map(|v| json!({ "epoch": hex(v.epoch), "sequence": v.sequence })),
        "config_digest": pool.config_digest.map(hex),
        "sets": sets.collect::<Vec<_>>(),
        "refusal": pool.refusal.as_ref().map(|r| json!({ "field": r.field, "reason": r.reason })),
    })
}

fn failure(status: StatusCode, message: &str) -> Response<Full<Bytes>> {
    let mut response = json_body(status, &json!({ "error": message }));
    // A refused request may have a body on its way, which nobody reads.
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

fn json_body(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    response(status, "application/json", format!("{body}\n"))
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    response(status, "text/plain; charset=utf-8", body)
}

fn response(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::Sockets;
    use crate::sessions::Sealer;
    use http_body_util::{BodyExt as _, Empty};

    fn state() -> AdminState {
        let current = Current::default();
        let sockets = Sockets::new([127, 0, 0, 1].into(), Vec::new());
        let applier = Applier::new(Arc::clone(&current), sockets);
        let seen = Seen {
            workers: vec![Arc::default()],
            health: Arc::default(),
            view: View::new().0,
            keeping: Arc::new(Keeping {
                sealer: Arc::new(Sealer::new().expect("the system gives randomness")),
                store: None,
            }),
            shares: Exchange::new().0,
            access_log: Arc::default(),
        };
        AdminState::new(current, seen, Arc::default(), &applier)
    }

    fn ask(state: &AdminState, method: Method, path: &str) -> (StatusCode, String) {
        let request = Request::builder().method(method).uri(path).body(Empty::<Bytes>::new()).expect("valid");
        let response = now(respond(state, &request));
        let status = response.status();
        let body = now(response.into_body().collect());
        (status, String::from_utf8(body.expect("a full body").to_bytes().to_vec()).expect("text"))
    }

    fn now<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(future)
    }

    #[test]
    fn readiness_follows_the_phase_and_liveness_does_not() {
        let state = state();
        assert_eq!(ask(&state, Method::GET, "/readyz").0, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(ask(&state, Method::GET, "/livez").0, StatusCode::OK);
        state.readiness.ready();
        assert_eq!(ask(&state, Method::GET, "/readyz").0, StatusCode::OK);
        state.readiness.drain();
        let (status, body) = ask(&state, Method::GET, "/readyz");
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(body.contains("shutting down"), "{body}");
        assert_eq!(ask(&state, Method::GET, "/livez").0, StatusCode::OK);
    }

    #[test]
    fn what_is_not_there_is_answered_with_what_is() {
        let (status, body) = ask(&state(), Method::GET, "/api");
        assert_eq!(status, StatusCode::NOT_FOUND);
        for path in PATHS {
            assert!(body.contains(path), "{body}");
        }
        assert_eq!(ask(&state(), Method::POST, "/api/v1/config").0, StatusCode::METHOD_NOT_ALLOWED);
    }

    #[test]
    fn a_body_is_refused_unread() {
        let body = Full::new(Bytes::from_static(b"x"));
        let request = Request::builder().uri("/metrics").body(body).expect("valid");
        let response = now(respond(&state(), &request));
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(response.headers()[CONNECTION], "close");
    }

    #[test]
    fn a_question_is_answered_and_a_bad_one_refused_with_what_is_wrong() {
        let asked = |query: &str| {
            let (status, body) = ask(&state(), Method::GET, &format!("{EXPLAIN}?{query}"));
            (status, serde_json::from_str::<Value>(&body).expect("JSON"))
        };
        let (status, told) = asked("url=http://shop.example/a&header=x-a:%201");
        assert_eq!((status, &told["answered"]), (StatusCode::OK, &json!(false)));
        assert_eq!(told["request"]["headers"], json!(["x-a"]));
        let detail = told["answer"]["detail"].as_str().expect("text");
        assert!(detail.ends_with("no pool listens anywhere"), "{detail}");
        let (status, said) = asked("url=shop.example");
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(said["error"].as_str().is_some_and(|said| said.contains("http://")), "{said}");
    }

    #[test]
    fn both_views_are_json_before_any_configuration() {
        for path in ["/api/v1/backends", "/api/v1/config"] {
            let (status, body) = ask(&state(), Method::GET, path);
            let parsed: Value = serde_json::from_str(&body).expect("JSON");
            assert_eq!((status, &parsed["pools"]), (StatusCode::OK, &json!([])));
        }
    }
}

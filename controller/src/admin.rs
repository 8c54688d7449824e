//! Administration over HTTP/1.1: liveness, readiness, metrics, and what is known of pools and proxies.
//!
//! Read only, with limits of its own. It shares the control runtime with everything else here: what it does is
//! small, and nothing of it waits.

mod compiled;
mod overview;

pub use compiled::PAGE_BYTES_ENOUGH;
pub use overview::{COMPILED, Overview, POOLS, POOLS_LISTED_MAX, PROXIES};

use crate::metrics::Metrics;
use crate::readiness::Readiness;
use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
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

const PATHS: [&str; 6] =
    ["/livez", "/readyz", "/metrics", Overview::PATHS[0], Overview::PATHS[1], Overview::PATHS[2]];

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// What the administration interface shows.
#[derive(Debug, Clone)]
pub struct Shown {
    /// Whether the source was read.
    pub readiness: Arc<Readiness>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Pools and proxies.
    pub overview: Arc<Overview>,
}

/// Serves for as long as it is polled.
pub async fn serve(listener: TcpListener, shown: Shown) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let permit = Arc::clone(&permits).acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let shown = shown.clone();
                connections.spawn(async move {
                    connection(stream, shown).await;
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

async fn connection(stream: TcpStream, shown: Shown) {
    let service = service_fn(|request: Request<hyper::body::Incoming>| {
        let shown = shown.clone();
        async move { Ok::<_, Infallible>(respond(&request, &shown).await) }
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

async fn respond<B>(request: &Request<B>, shown: &Shown) -> Response<Full<Bytes>> {
    let Shown { readiness, metrics, overview } = shown;
    let (method, path) = (request.method(), request.uri().path());
    if !PATHS.contains(&path) {
        let body = format!("there is nothing at {path}; try {}\n", PATHS.join(", "));
        return response(StatusCode::NOT_FOUND, TEXT, body);
    }
    if method != Method::GET && method != Method::HEAD {
        let body = format!("{method} is not answered here: this interface only reads, use GET\n");
        let mut response = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, body);
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    if let Some(page) = overview.page(path, request.uri().query()).await {
        return response(StatusCode::OK, JSON, format!("{page}\n"));
    }
    match path {
        "/livez" => response(StatusCode::OK, TEXT, "ok\n".to_owned()),
        "/readyz" => match readiness.reason() {
            None => response(StatusCode::OK, TEXT, "ok\n".to_owned()),
            Some(reason) => response(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("not ready: {reason}\n")),
        },
        _ => scrape(metrics, request.headers()),
    }
}

fn scrape(metrics: &Metrics, asked: &HeaderMap) -> Response<Full<Bytes>> {
    let format = Format::of_accept(asked.get(ACCEPT).and_then(|accept| accept.to_str().ok()));
    match metrics.text(format) {
        Ok(body) => response(StatusCode::OK, format.content_type(), body),
        Err(error) => {
            let body = format!("cannot write the metrics: {error}\n");
            response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, body)
        }
    }
}

fn response(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Board;
    use crate::store::Store;
    use http_body_util::BodyExt as _;

    async fn ask(method: Method, path: &str, readiness: &Arc<Readiness>) -> (u16, String) {
        let store = Store::new(1);
        let metrics = Metrics::new(Arc::clone(&store), Arc::clone(readiness));
        let overview = Overview::new("replica".into(), store, Arc::new(Board::default()));
        let readiness = Arc::clone(readiness);
        let request = Request::builder().method(method).uri(path).body(()).expect("a request");
        let shown = Shown { readiness, metrics: Arc::new(metrics), overview: Arc::new(overview) };
        let response = respond(&request, &shown).await;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.expect("in memory").to_bytes();
        (status, String::from_utf8(body.to_vec()).expect("text"))
    }

    #[tokio::test]
    async fn ready_is_said_once_the_source_was_read_and_alive_always() {
        let readiness = Arc::new(Readiness::default());
        readiness.waiting("waiting for Services".into());
        assert_eq!(ask(Method::GET, "/livez", &readiness).await.0, 200);
        let (status, body) = ask(Method::GET, "/readyz", &readiness).await;
        assert_eq!((status, &*body), (503, "not ready: waiting for Services\n"));
        readiness.ready();
        assert_eq!(ask(Method::GET, "/readyz", &readiness).await.0, 200);
    }

    #[tokio::test]
    async fn metrics_are_exposed_and_anything_else_is_refused() {
        let readiness = Arc::new(Readiness::default());
        let (status, body) = ask(Method::GET, "/metrics", &readiness).await;
        assert_eq!(status, 200);
        assert!(body.contains("weir_controller_ready 0\n"), "{body}");
        assert_eq!(ask(Method::GET, "/other", &readiness).await.0, 404);
        assert_eq!(ask(Method::POST, "/metrics", &readiness).await.0, 405);
        for path in Overview::PATHS {
            let (status, body) = ask(Method::GET, &format!("{path}?after=x"), &readiness).await;
            assert_eq!(status, 200);
            assert!(serde_json::from_str::<serde_json::Value>(&body).is_ok(), "{body}");
        }
    }
}

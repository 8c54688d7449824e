//! A request, and whether its answer is as expected.

use super::socket::Stream;
use super::{HEAD_BYTES_MAX, HEADERS_MAX, Origin, USER_AGENT, of_http};
use bytes::Bytes;
use http::header::{CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, Uri};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use lb_core::health::{BODY_BYTES_MAX, HttpCheck, HttpVersion, Reason};
use memchr::memmem;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, Weak};
use tokio::task::JoinSet;

pub(super) async fn check(stream: Stream, check: &HttpCheck, origin: &Origin) -> Result<(), Reason> {
    // The rules of the settings let through some paths and hosts that are in no URI, as `/<` and `a:b:c`.
    let request = request(check, origin).map_err(|error| {
        tracing::debug!(%error, path = %check.path, authority = %origin.authority, "a probe cannot be written");
        Reason::Protocol
    })?;
    match check.version {
        HttpVersion::Http1 => {
            let mut builder = http1::Builder::new();
            // Reading ahead, hyper may have some of the body in its buffer before it knows where the head ends.
            builder.max_header_size(HEAD_BYTES_MAX).max_buf_size(2 * HEAD_BYTES_MAX).max_headers(HEADERS_MAX);
            let (mut sender, connection) =
                builder.handshake(TokioIo::new(stream)).await.map_err(|error| of_http(&error))?;
            let answer =
                async { judge(sender.send_request(request).await.map_err(|e| of_http(&e))?, check).await };
            drive(connection, answer).await
        }
        HttpVersion::Http2 => {
            let tasks = Tasks::default();
            let (mut sender, connection) = http2(stream, &tasks).await?;
            let answer =
                async { judge(sender.send_request(request).await.map_err(|e| of_http(&e))?, check).await };
            drive(connection, answer).await
        }
    }
}

fn request(check: &HttpCheck, origin: &Origin) -> Result<Request<Empty<Bytes>>, http::Error> {
    let mut request = Request::new(Empty::new());
    *request.method_mut() = Method::from_bytes(check.method.as_bytes())?;
    let headers = request.headers_mut();
    headers.insert(http::header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    if check.version == HttpVersion::Http1 {
        headers.insert(HOST, HeaderValue::from_str(&origin.authority)?);
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let mut own = HeaderMap::new();
    for (name, value) in &check.headers {
        own.append(HeaderName::from_bytes(name.as_bytes())?, HeaderValue::from_str(value)?);
    }
    // One that we wrote gives way, several of the check's own with one name stay.
    headers.extend(own);
    let uri = Uri::builder().path_and_query(&*check.path);
    *request.uri_mut() = match check.version {
        HttpVersion::Http1 => uri.build()?,
        HttpVersion::Http2 => uri.scheme(origin.scheme).authority(&*origin.authority).build()?,
    };
    Ok(request)
}

async fn judge(response: Response<Incoming>, check: &HttpCheck) -> Result<(), Reason> {
    let status = response.status().as_u16();
    if !check.expects(status) {
        return Err(Reason::Status(status));
    }
    match &check.body_contains {
        Some(text) => look_for(text.as_bytes(), response.into_body()).await,
        None => Ok(()),
    }
}

/// Looks for a text in the first [`BODY_BYTES_MAX`] bytes of a body. Reads no further than its end.
async fn look_for(text: &[u8], mut body: Incoming) -> Result<(), Reason> {
    let finder = memmem::Finder::new(text);
    let mut read = Vec::with_capacity(BODY_BYTES_MAX);
    while read.len() < BODY_BYTES_MAX {
        let Some(frame) = body.frame().await else { break };
        let Ok(data) = frame.map_err(|error| of_http(&error))?.into_data() else { continue };
        // The text may begin in what came before.
        let begin = read.len().saturating_sub(text.len());
        let taken = data.len().min(BODY_BYTES_MAX - read.len());
        read.extend_from_slice(&data[..taken]);
        if finder.find(&read[begin..]).is_some() {
            return Ok(());
        }
    }
    Err(Reason::Body)
}

/// Runs a connection until there is an answer.
pub(super) async fn drive(
    connection: impl Future<Output = hyper::Result<()>>,
    answer: impl Future<Output = Result<(), Reason>>,
) -> Result<(), Reason> {
    let mut answer = pin!(answer);
    let mut connection = Box::pin(connection);
    let ended = tokio::select! {
        biased;
        result = &mut answer => return result,
        ended = &mut connection => ended,
    };
    // A request that it has not taken up is told by this.
    drop(connection);
    // The answer can be complete before the connection ends. If there is none, the connection knows better why.
    match (answer.await, ended) {
        (Err(Reason::Closed), Err(error)) => Err(of_http(&error)),
        (result, _) => result,
    }
}

/// An HTTP/2 connection, with prior knowledge.
pub(super) async fn http2<B>(
    stream: Stream,
    tasks: &Tasks,
) -> Result<(http2::SendRequest<B>, http2::Connection<TokioIo<Stream>, B, Spawner>), Reason>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // Settings of HTTP/2 are 32 bits wide; these limits fit many times.
    let head_bytes_max = u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX);
    let window_bytes = u32::try_from(BODY_BYTES_MAX).unwrap_or(u32::MAX);
    http2::Builder::new(tasks.spawner())
        .max_header_list_size(head_bytes_max)
        .initial_stream_window_size(window_bytes)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| of_http(&error))
}

/// What hyper spawns for an HTTP/2 connection; it is aborted when this is dropped.
///
/// On the runtime itself, the task that owns the socket would outlive the probe: it closes only once all is written, and
/// when that is, is up to the backend.
#[derive(Default)]
pub(super) struct Tasks(Arc<Mutex<JoinSet<()>>>);

impl Tasks {
    fn spawner(&self) -> Spawner {
        Spawner(Arc::downgrade(&self.0))
    }
}

/// Spawns while its [`Tasks`] are there. Weak, for the tasks hold one of these themselves.
#[derive(Clone)]
pub(super) struct Spawner(Weak<Mutex<JoinSet<()>>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Spawner {
    fn execute(&self, future: F) {
        let Some(tasks) = self.0.upgrade() else { return };
        // Spawning does not panic with the lock held; a poisoned one would only end the probe.
        if let Ok(mut tasks) = tasks.lock() {
            tasks.spawn(future);
        }
    }
}

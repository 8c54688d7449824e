//! HTTP/2 towards the client, on the `h2` crate: each stream is a request of its own.

use super::carried::Carried;
use super::meter::{Excess, Meter};
use super::{
    CLIENT_FRAMES_BYTES_MAX, CONNECTION_WINDOW_BYTES, SEND_BUFFER_BYTES_MAX, STREAM_WINDOW_BYTES,
    in_its_own_buffer,
};
use crate::connection::{LINGER_TIMEOUT, Peer, Scheme};
use crate::failure::{Asked, Failure};
use crate::http1::head;
use crate::message::{BodyLength, Frame, RequestBody, RequestHead, ResponseHead, ResponseSink, Upgrade};
use crate::request::{self, Outcome, Tunnel};
use crate::snapshot::ListenerLimits;
use crate::wire::{Io, poll_once};
use crate::worker::Worker;
use bytes::{Buf as _, Bytes};
use h2::ext::Protocol;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{self, HeaderMap, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode};
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What becomes of a stream on which both sides agreed to speak another protocol. The connection goes on beside it.
pub(crate) type OnUpgrade = fn(Rc<Worker>, u16, Carried, Box<Tunnel>);

/// Serves a connection until either side ends it. `received` was read from it already.
pub(crate) async fn serve(worker: Rc<Worker>, peer: Peer, io: Io, received: Bytes, on_upgrade: OnUpgrade) {
    let limits = Arc::clone(&peer.limits);
    let peer = Rc::new(peer);
    let deadline = worker.timers.deadline();
    deadline.set(Some(limits.head_timeout));
    let mut settings = h2::server::Builder::new();
    settings
        .max_concurrent_streams(limits.streams_max)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .data_frame_budget(CLIENT_FRAMES_BYTES_MAX)
        .max_header_list_size(u32::try_from(limits.head_bytes_max).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER_BYTES_MAX)
        .enable_connect_protocol();
    let meter = Rc::new(RefCell::new(Meter::new(Rc::clone(&worker.timers), &limits)));
    meter.borrow_mut().came(&received);
    let received = Received { first: received, io, meter: Rc::clone(&meter) };
    let handshake = Box::pin(settings.handshake::<_, Bytes>(received));
    let connection = tokio::select! { biased;
        connection = handshake => connection,
        () = deadline.passed() => return,
    };
    let Ok(mut connection) = connection else { return };
    let (mut closing, mut is_cut) = (false, false);
    loop {
        if !closing && !is_cut {
            deadline.set_idle(limits.idle_timeout, peer.port);
        }
        tokio::select! { biased;
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    worker.counters.requests_http2.add(1);
                    let stream = stream(Rc::clone(&worker), Rc::clone(&peer), request, respond, on_upgrade);
                    tokio::task::spawn_local(stream);
                }
                // The connection is over; h2 has told the client why.
                Some(Err(_)) | None => return,
            },
            excess = exceeded(&meter), if !is_cut => {
                is_cut = true;
                worker.counters.connection_cut(excess);
                connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                deadline.set(Some(LINGER_TIMEOUT));
            }
            () = deadline.passed(), if is_cut => return,
            // Streams that are open end in peace, each within its own limits; then nothing is left to wait for.
            () = deadline.passed() => if closing && !connection.has_streams() { return },
        }
        let is_over =
            worker.timers.is_leaving(peer.port) || (deadline.has_passed() && !connection.has_streams());
        if is_over && !closing && !is_cut {
            closing = true;
            // GOAWAY.
            connection.graceful_shutdown();
        }
        if closing {
            deadline.set(Some(LINGER_TIMEOUT));
        }
    }
}

/// Waits for what the meter does not let pass. It is looked at whenever the connection was: only then bytes pass.
async fn exceeded(meter: &RefCell<Meter>) -> Excess {
    poll_fn(|_| meter.borrow().excess().map_or(Poll::Pending, Poll::Ready)).await
}

/// What was read before the protocol was known, then the rest. Nothing more is read once the meter has had enough.
#[derive(Debug)]
struct Received {
    first: Bytes,
    io: Io,
    meter: Rc<RefCell<Meter>>,
}

impl AsyncRead for Received {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            if self.meter.borrow().excess().is_some() {
                return Poll::Pending;
            }
            let before = buf.filled().len();
            let read = Pin::new(&mut self.io).poll_read(cx, buf);
            self.meter.borrow_mut().came(&buf.filled()[before..]);
            return read;
        }
        let size = self.first.len().min(buf.remaining());
        buf.put_slice(&self.first[..size]);
        self.first.advance(size);
        if self.first.is_empty() {
            // What is empty still holds what it was cut from.
            self.first = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Received {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        if let Poll::Ready(Ok(size)) = written {
            self.meter.borrow_mut().went(&buf[..size]);
        }
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        if let Poll::Ready(Ok(mut left)) = written {
            let mut meter = self.meter.borrow_mut();
            for buf in bufs {
                let size = left.min(buf.len());
                meter.went(&buf[..size]);
                left -= size;
            }
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// One request.
async fn stream(
    worker: Rc<Worker>,
    peer: Rc<Peer>,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    on_upgrade: OnUpgrade,
) {
    let (parts, body) = request.into_parts();
    let asked = Asked::new(&parts.method, &parts.headers);
    let mut sink = Sink { respond, stream: None, pending: Bytes::new(), left: None };
    let mut body = Body { stream: body, data_done: false };
    let deadline = worker.timers.deadline();
    let head = match request_head(parts, &body.stream, peer.scheme, &peer.limits) {
        Ok(head) => head,
        Err(failure) => {
            worker.counters.refused(failure);
            let _ = request::answer(&mut sink, failure, &asked, &deadline).await;
            return;
        }
    };
    let outcome = request::serve(&worker, &peer, head, &mut body, &mut sink, &deadline).await;
    match outcome {
        // Where the client is still sending, h2 tells it to stop once the answer has gone out (NO_ERROR; RFC 9113,
        // section 8.1). A reset by us would overtake the answer.
        Outcome::Answered => {}
        Outcome::Aborted => {
            // What is still here of the answer goes out, as far as that needs no wait: a reset throws away what h2 has not
            // written yet, and the connection's task, which writes it, has its turn first.
            let _ = poll_once(sink.flush()).await;
            tokio::task::yield_now().await;
            sink.reset(Reason::INTERNAL_ERROR);
        }
        Outcome::Upgraded(tunnel) => {
            let send = sink.stream.expect("an upgrade is agreed to with a head");
            on_upgrade(worker, peer.port, Carried::new(send, body.stream), tunnel);
        }
    }
}

/// The head as the stages see it.
fn request_head(
    parts: http::request::Parts,
    body: &RecvStream,
    scheme: Scheme,
    limits: &ListenerLimits,
) -> Result<RequestHead, Failure> {
    let http::request::Parts { mut method, uri, mut headers, extensions, .. } = parts;
    let upgrade = if method == Method::CONNECT { extended_connect(&extensions)? } else { Upgrade::No };
    if upgrade == Upgrade::WebSocket {
        method = Method::GET;
        // What HTTP/1.1 proves by it, :protocol says.
        headers.remove(header::SEC_WEBSOCKET_KEY);
    }
    join_cookies(&mut headers);
    if headers.len() > limits.headers_max {
        return Err(Failure::TooManyHeaders);
    }
    check_fields(&headers)?;
    let uri = uri.into_parts();
    let said = uri.scheme.as_ref().map_or("", http::uri::Scheme::as_str);
    if !said.is_empty() && said != "http" && said != "https" {
        return Err(Failure::BadRequest("The :scheme is neither http nor https."));
    }
    // A client behind a proxy of its own may say https on a plain connection; never the other way round.
    if scheme == Scheme::Https && said == "http" {
        return Err(Failure::BadRequest("The :scheme is http on an encrypted connection."));
    }
    if headers.get_all(header::HOST).iter().nth(1).is_some() {
        return Err(Failure::BadRequest("There are two Host headers; send one."));
    }
    let host = headers.remove(header::HOST);
    let authority = match (uri.authority, host) {
        (Some(named), Some(host)) if !host.as_bytes().eq_ignore_ascii_case(named.as_str().as_bytes()) => {
            return Err(Failure::BadRequest("The :authority and the Host header name different hosts."));
        }
        (Some(named), _) => head::authority(&Bytes::copy_from_slice(named.as_str().as_bytes())),
        (None, Some(host)) => head::authority(&Bytes::copy_from_slice(host.as_bytes())),
        (None, None) => Err("The :authority is missing."),
    };
    let authority = authority.map_err(Failure::BadRequest)?;
    let length = headers.remove(header::CONTENT_LENGTH).map(|length| {
        head::decimal(length.as_bytes())
            .ok_or(Failure::BadRequest("The Content-Length is not a decimal number."))
    });
    let body = match length.transpose()? {
        // What follows the head is no body.
        _ if upgrade == Upgrade::WebSocket => BodyLength::Empty,
        // Data that belies it may still come: it is read on, so that h2 can say so before the request is whole.
        Some(0) if !body.is_end_stream() => BodyLength::Unknown,
        Some(length) => BodyLength::Known(length),
        None if body.is_end_stream() => BodyLength::Empty,
        None => BodyLength::Unknown,
    };
    let target = uri.path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
    let is_target = target.as_str().starts_with('/') || (target == "*" && method == Method::OPTIONS);
    if !is_target {
        return Err(Failure::BadRequest("The :path does not begin with a slash."));
    }
    Ok(RequestHead { method, authority: Some(authority), target, headers, body, upgrade })
}

/// What a CONNECT asks for (RFC 8441, section 4); one without a :protocol asks for a connection to somewhere else.
fn extended_connect(extensions: &http::Extensions) -> Result<Upgrade, Failure> {
    match extensions.get::<Protocol>().map(Protocol::as_str) {
        Some("websocket") => Ok(Upgrade::WebSocket),
        Some(_) => Err(Failure::ProtocolUnsupported),
        None => Err(Failure::MethodRefused),
    }
}

/// What a backend that is asked over HTTP/1 could read in another way.
fn check_fields(headers: &HeaderMap) -> Result<(), Failure> {
    if headers.get_all(header::CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err(Failure::BadRequest("There are two Content-Length headers; send one."));
    }
    if headers.keys().any(|name| head::is_disguised(name.as_str())) {
        return Err(Failure::BadRequest(
            "A header's name is Content-Length or Transfer-Encoding with an underscore.",
        ));
    }
    head::expectation(headers)
}

/// HTTP/2 may split the Cookie field; elsewhere it is one (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(header::COOKIE).iter();
    if crumbs.next().is_none() || crumbs.next().is_none() {
        return;
    }
    let joined = headers
        .get_all(header::COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect::<Vec<_>>()
        .join(&b"; "[..]);
    let joined =
        HeaderValue::from_maybe_shared(Bytes::from(joined)).expect("valid values joined by valid bytes");
    headers.insert(header::COOKIE, joined);
}

struct Body {
    stream: RecvStream,
    data_done: bool,
}

impl RequestBody for Body {
    async fn next(&mut self) -> Result<Option<Frame>, Failure> {
        if !self.data_done {
            match poll_fn(|cx| self.stream.poll_data(cx)).await {
                Some(Ok(data)) => {
                    // The window is given back as soon as the data is taken: what is under way is bounded by
                    // the one frame that the stages hold.
                    let _ = self.stream.flow_control().release_capacity(data.len());
                    return Ok(Some(Frame::Data(data)));
                }
                Some(Err(_)) => return Err(Failure::ClientGone),
                None => self.data_done = true,
            }
        }
        match poll_fn(|cx| self.stream.poll_trailers(cx)).await {
            Ok(trailers) => Ok(trailers.map(|mut fields| {
                head::drop_forbidden_trailers(&mut fields);
                Frame::Trailers(fields)
            })),
            Err(_) => Err(Failure::ClientGone),
        }
    }

    fn has_ended(&self) -> bool {
        self.stream.is_end_stream()
    }
}

/// The response of one stream. One piece of data is held back, so that the last one can carry END_STREAM.
struct Sink {
    respond: SendResponse<Bytes>,
    stream: Option<SendStream<Bytes>>,
    pending: Bytes,
    /// Bytes that the announced length still leaves.
    left: Option<u64>,
}

impl Sink {
    fn reset(&mut self, reason: Reason) {
        match &mut self.stream {
            Some(stream) => stream.send_reset(reason),
            None => self.respond.send_reset(reason),
        }
    }

    /// Sends what is pending as the client's window allows.
    async fn send_pending(&mut self, end: bool) -> Result<(), Failure> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        if self.pending.is_empty() && end {
            return stream.send_data(Bytes::new(), true).map_err(|_| Failure::ClientGone);
        }
        super::send_all(stream, &mut self.pending, end).await.map_err(|_| Failure::ClientGone)
    }
}

impl ResponseSink for Sink {
    async fn interim(&mut self, status: StatusCode, headers: HeaderMap) -> Result<(), Failure> {
        let mut response = Response::new(());
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        self.respond.send_informational(response).map_err(|_| Failure::ClientGone)
    }

    async fn head(&mut self, head: ResponseHead) -> Result<(), Failure> {
        let mut response = Response::new(());
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers;
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            // Agreed to (RFC 8441, section 5). The proof is for a key, which there was none of.
            *response.status_mut() = StatusCode::OK;
            response.headers_mut().remove(header::SEC_WEBSOCKET_ACCEPT);
            let stream = self.respond.send_response(response, false).map_err(|_| Failure::ClientGone)?;
            self.stream = Some(stream);
            return Ok(());
        }
        if let BodyLength::Known(length) | BodyLength::Announced(Some(length)) = head.body {
            response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
        }
        let bodiless =
            matches!(head.body, BodyLength::Empty | BodyLength::Known(0) | BodyLength::Announced(_));
        self.left = match head.body {
            BodyLength::Known(length) => Some(length),
            _ => None,
        };
        let stream = self.respond.send_response(response, bodiless).map_err(|_| Failure::ClientGone)?;
        self.stream = Some(stream);
        if bodiless {
            self.left = Some(0);
        }
        Ok(())
    }

    async fn data(&mut self, data: Bytes) -> Result<(), Failure> {
        self.send_pending(false).await?;
        self.pending = in_its_own_buffer(data);
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(self.pending.len() as u64);
            if *left == 0 {
                return self.send_pending(true).await;
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        self.send_pending(false).await
    }

    async fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(), Failure> {
        if self.left == Some(0) {
            return Ok(());
        }
        match trailers {
            None => self.send_pending(true).await,
            Some(trailers) => {
                self.send_pending(false).await?;
                let Some(stream) = &mut self.stream else { return Ok(()) };
                stream.send_trailers(trailers).map_err(|_| Failure::ClientGone)
            }
        }
    }

    fn close_after(&mut self) {
        // The connection has other streams; h2 ends this one.
    }

    async fn gone(&mut self) {
        let _ = match &mut self.stream {
            Some(stream) => poll_fn(|cx| stream.poll_reset(cx)).await,
            None => poll_fn(|cx| self.respond.poll_reset(cx)).await,
        };
    }

    fn has_begun(&self) -> bool {
        self.stream.is_some()
    }
}

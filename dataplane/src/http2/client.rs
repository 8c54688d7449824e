//! HTTP/2 towards a backend: a connection carries many exchanges, each on a stream of its own.

use super::carried::Carried;
use super::{
    BACKEND_FRAMES_BYTES_MAX, CONNECTION_WINDOW_BYTES, SEND_BUFFER_BYTES_MAX, STREAM_WINDOW_BYTES,
    in_its_own_buffer, send_all,
};
use crate::http1::{HEAD_BYTES_MAX, HEADERS_MAX, head};
use crate::link::{Answer, Down, NoAnswer, Stopped, Up};
use crate::message::{BodyError, BodyLength, Frame, RequestHead, ResponseHead, Upgrade};
use crate::websocket;
use crate::wire::Io;
use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::ext::Protocol;
use h2::{Ping, PingPong, Reason, RecvStream, SendStream};
use http::header::{self, HeaderMap, HeaderValue};
use http::uri::Scheme;
use http::{Method, Request, Response, StatusCode, Uri};
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use tokio::sync::OnceCell;
use tokio::task::spawn_local;

/// A connection to a backend. Clones are of the same one; it ends when the last is gone and its streams have ended.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    send: SendRequest<Bytes>,
    is_over: Rc<Cell<bool>>,
    settled: Rc<Settled>,
    address: SocketAddr,
    is_secured: bool,
}

/// Whether the backend has said how it speaks HTTP/2. Its settings come before anything else that it sends, its answer to
/// a ping included; h2 tells of the answer only.
#[derive(Debug)]
struct Settled {
    answered: OnceCell<()>,
    ping: RefCell<Option<PingPong>>,
    is_sent: Cell<bool>,
}

impl Settled {
    /// Asked by requests that have to know; others cost no ping.
    async fn wait(&self) {
        // One at a time, for h2 wakes one; the next goes on where one was dropped.
        let answer = poll_fn(|cx| {
            let mut ping = self.ping.borrow_mut();
            let Some(ping) = ping.as_mut() else { return Poll::Ready(()) };
            if !self.is_sent.replace(true) && ping.send_ping(Ping::opaque()).is_err() {
                return Poll::Ready(());
            }
            ping.poll_pong(cx).map(drop)
        });
        self.answered.get_or_init(|| answer).await;
    }
}

/// The backend does not speak HTTP/2.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NotSpoken;

impl Connection {
    /// Greets the backend. `held` is kept for as long as the connection is open.
    pub(crate) async fn new(io: Io, held: impl Sized + 'static) -> Result<Self, NotSpoken> {
        let address = io.socket().peer_addr().map_err(|_| NotSpoken)?;
        let is_secured = matches!(io, Io::Tls(_));
        let mut settings = h2::client::Builder::new();
        settings
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .data_frame_budget(BACKEND_FRAMES_BYTES_MAX)
            .max_header_list_size(u32::try_from(HEAD_BYTES_MAX).expect("a small constant"))
            .max_send_buffer_size(SEND_BUFFER_BYTES_MAX);
        let (send, mut connection) = settings.handshake::<_, Bytes>(io).await.map_err(|_| NotSpoken)?;
        let ping = RefCell::new(connection.ping_pong());
        let settled = Rc::new(Settled { answered: OnceCell::new(), ping, is_sent: Cell::new(false) });
        let is_over = Rc::new(Cell::new(false));
        let over = Rc::clone(&is_over);
        spawn_local(async move {
            // Streams learn by themselves what went wrong.
            let _ = connection.await;
            over.set(true);
            drop(held);
        });
        Ok(Self { send, is_over, settled, address, is_secured })
    }

    /// Whether the backend takes WebSockets on streams (RFC 8441, section 3); waits for it to say so.
    pub(crate) async fn takes_websockets(&self) -> bool {
        self.send.is_extended_connect_protocol_enabled() || {
            self.settled.wait().await;
            self.send.is_extended_connect_protocol_enabled()
        }
    }

    /// Streams that the backend allows at a time; 0 when it takes no more on this connection.
    pub(crate) fn streams_max(&self) -> usize {
        if self.is_over.get() || self.is_closing() { 0 } else { self.send.current_max_send_streams() }
    }

    fn is_closing(&self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        matches!(self.send.clone().poll_ready(&mut context), Poll::Ready(Err(_)))
    }
}

/// One exchange. Dropped before its end, its stream is reset.
pub(crate) struct Exchange {
    up: Uplink,
    down: Downlink,
}

impl Exchange {
    /// Begins an exchange: the head is on its way. `None` where the connection takes no more.
    pub(crate) fn begin(connection: &mut Connection, head: &RequestHead) -> Option<Self> {
        let has_body = !matches!(head.body, BodyLength::Empty | BodyLength::Known(0));
        let is_websocket = head.upgrade == Upgrade::WebSocket;
        let key = if is_websocket { head.headers.get(header::SEC_WEBSOCKET_KEY) } else { None };
        let asks = is_websocket.then(|| WebSocket { proof: key.map(websocket::accept) });
        let request = request(head, connection)?;
        let ends = !has_body && !is_websocket;
        let (response, stream) = connection.send.clone().send_request(request, ends).ok()?;
        let up = Uplink { stream, pending: Bytes::new(), is_over: !has_body };
        Some(Self { up, down: Downlink { response, body: None, method: head.method.clone(), asks } })
    }

    pub(crate) fn split(&mut self) -> (&mut Uplink, &mut Downlink) {
        (&mut self.up, &mut self.down)
    }

    /// The stream, once the backend has agreed to speak another protocol on it.
    pub(crate) fn into_carried(self) -> Option<Carried> {
        Some(Carried::new(self.up.stream, self.down.body?.stream))
    }
}

/// `None` where the target is none in HTTP/2.
fn request(head: &RequestHead, to: &Connection) -> Option<Request<()>> {
    let authority = match &head.authority {
        Some(authority) => authority.clone(),
        // HTTP/1.0 without Host.
        None => to.address.to_string().parse().ok()?,
    };
    let scheme = if to.is_secured { Scheme::HTTPS } else { Scheme::HTTP };
    let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(head.target.clone());
    let mut request = Request::new(());
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = uri.build().ok()?;
    request.headers_mut().clone_from(&head.headers);
    if head.upgrade == Upgrade::WebSocket {
        *request.method_mut() = Method::CONNECT;
        request.extensions_mut().insert(Protocol::from_static("websocket"));
        request.headers_mut().remove(header::SEC_WEBSOCKET_KEY);
    }
    if let BodyLength::Known(length) = head.body {
        request.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    }
    Some(request)
}

/// The request. One piece of data is held back, so that the last one can carry END_STREAM.
pub(crate) struct Uplink {
    stream: SendStream<Bytes>,
    pending: Bytes,
    is_over: bool,
}

impl Up for &mut Uplink {
    async fn data(&mut self, data: Bytes) -> Result<(), Stopped> {
        self.flush().await?;
        self.pending = in_its_own_buffer(data);
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Stopped> {
        send_all(&mut self.stream, &mut self.pending, false).await.map_err(|_| Stopped)
    }

    async fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(), Stopped> {
        if std::mem::replace(&mut self.is_over, true) {
            return Ok(());
        }
        match trailers {
            Some(trailers) => {
                self.flush().await?;
                self.stream.send_trailers(trailers).map_err(|_| Stopped)
            }
            None if self.pending.is_empty() => self.stream.send_data(Bytes::new(), true).map_err(|_| Stopped),
            None => send_all(&mut self.stream, &mut self.pending, true).await.map_err(|_| Stopped),
        }
    }
}

/// The response.
pub(crate) struct Downlink {
    response: ResponseFuture,
    body: Option<Body>,
    method: Method,
    asks: Option<WebSocket>,
}

/// The request asks for a WebSocket.
struct WebSocket {
    /// What the client will want to see, where it sent a key.
    proof: Option<HeaderValue>,
}

struct Body {
    stream: RecvStream,
    data_done: bool,
    /// Bytes that were given on and that the backend may not send again yet.
    held_bytes: usize,
}

impl Down for &mut Downlink {
    async fn head(&mut self) -> Result<Answer, NoAnswer> {
        let response = poll_fn(|cx| self.poll_response(cx)).await?;
        let (parts, stream) = response.into_parts();
        let mut head = response_head(parts, &self.method, stream.as_ref())?;
        if let Some(asks) = &self.asks
            && head.status.is_success()
        {
            head.status = StatusCode::SWITCHING_PROTOCOLS;
            head.body = BodyLength::Empty;
            head.headers.remove(header::SEC_WEBSOCKET_ACCEPT);
            head.headers.extend(asks.proof.clone().map(|proof| (header::SEC_WEBSOCKET_ACCEPT, proof)));
        }
        self.body = stream.map(|stream| Body { stream, data_done: false, held_bytes: 0 });
        Ok(Answer { head, keeps: true })
    }

    async fn next(&mut self) -> Result<Option<Frame>, BodyError> {
        let Some(body) = &mut self.body else { return Ok(None) };
        body.next().await
    }

    /// What HTTP/2 leaves untouched it says.
    async fn is_untouched(&mut self) -> bool {
        false
    }
}

impl Downlink {
    /// An interim response has no body.
    fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<Option<RecvStream>>, NoAnswer>> {
        match self.response.poll_informational(cx) {
            Poll::Ready(Some(Ok(interim))) => return Poll::Ready(Ok(interim.map(|()| None))),
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(no_answer(&error))),
            Poll::Ready(None) | Poll::Pending => {}
        }
        let response = std::task::ready!(Pin::new(&mut self.response).poll(cx));
        Poll::Ready(response.map(|response| response.map(Some)).map_err(|error| no_answer(&error)))
    }
}

/// A stream that the backend refuses, or that is past the last one of its GOAWAY, it has not looked at (RFC 9113,
/// sections 6.8 and 8.7).
fn no_answer(error: &h2::Error) -> NoAnswer {
    if error.is_remote() && (error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM)) {
        NoAnswer::Refused
    } else if error.is_reset() {
        // The stream, and not the connection: that this one was old explains nothing.
        NoAnswer::Cut
    } else if error.is_library() {
        NoAnswer::Invalid("it is against the rules of HTTP/2")
    } else {
        NoAnswer::Nothing
    }
}

fn response_head(
    parts: http::response::Parts,
    method: &Method,
    body: Option<&RecvStream>,
) -> Result<ResponseHead, NoAnswer> {
    let http::response::Parts { status, mut headers, .. } = parts;
    if headers.len() > HEADERS_MAX {
        return Err(NoAnswer::Invalid("it has too many headers"));
    }
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(NoAnswer::Invalid("HTTP/2 knows no switch of protocols"));
    }
    let length =
        match headers.remove(header::CONTENT_LENGTH).as_ref().map(|value| head::decimal(value.as_bytes())) {
            Some(None) => return Err(NoAnswer::Invalid("its Content-Length is not a number")),
            Some(Some(length)) => Some(length),
            None => None,
        };
    let has_ended = body.is_none_or(RecvStream::is_end_stream);
    let body = if status.is_informational() || status == StatusCode::NO_CONTENT {
        BodyLength::Empty
    } else if *method == Method::HEAD || status == StatusCode::NOT_MODIFIED {
        BodyLength::Announced(length)
    } else {
        match length {
            Some(length) => BodyLength::Known(length),
            None if has_ended => BodyLength::Known(0),
            None => BodyLength::Unknown,
        }
    };
    Ok(ResponseHead { status, headers, body })
}

impl Body {
    async fn next(&mut self) -> Result<Option<Frame>, BodyError> {
        // Whoever asks for more has passed on what came before: the backend may send as much again.
        let _ = self.stream.flow_control().release_capacity(std::mem::take(&mut self.held_bytes));
        if !self.data_done {
            match poll_fn(|cx| self.stream.poll_data(cx)).await {
                Some(Ok(data)) => {
                    self.held_bytes = data.len();
                    return Ok(Some(Frame::Data(data)));
                }
                Some(Err(error)) => return Err(body_error(&error)),
                None => self.data_done = true,
            }
        }
        let trailers =
            poll_fn(|cx| self.stream.poll_trailers(cx)).await.map_err(|error| body_error(&error))?;
        Ok(trailers.map(|mut fields| {
            head::drop_forbidden_trailers(&mut fields);
            Frame::Trailers(fields)
        }))
    }
}

fn body_error(error: &h2::Error) -> BodyError {
    if error.is_library() { BodyError::Invalid("it is against the rules of HTTP/2") } else { BodyError::Cut }
}

//! HTTP/1 towards the client: requests one after the other on one connection.
//!
//! While no request is under way the connection holds no buffer and no request state, so that an idle connection
//! costs what its socket and a small task cost.

use super::body::{BodyReader, Decoder};
use super::head::{self, Framing, ParsedRequest, Persistence};
use super::writer::Writer;
use super::{READ_BYTES, encode};
use crate::access_log::Said;
use crate::connection::{LINGER_BYTES_MAX, LINGER_TIMEOUT, Peer};
use crate::failure::{Asked, Failure};
use crate::message::{
    BodyError, BodyLength, Frame, RequestBody, RequestHead, ResponseHead, ResponseSink, Upgrade,
};
use crate::request::{self, Outcome, Tunnel};
use crate::timer::Deadline;
use crate::wire::{Wire, poll_once};
use crate::worker::Worker;
use bytes::{Buf as _, Bytes, BytesMut};
use http::header::SEC_WEBSOCKET_KEY;
use http::{HeaderMap, Method, StatusCode};

/// A connection on which both sides agreed to speak another protocol.
pub(crate) struct Upgraded {
    /// What the client sent behind its request.
    pub(crate) early: BytesMut,
    pub(crate) tunnel: Box<Tunnel>,
}

/// Serves a connection until either side ends it, or until it is upgraded. `received` is what was read from it
/// already.
pub(crate) async fn serve(
    worker: &Worker,
    peer: &Peer,
    wire: &Wire,
    mut received: BytesMut,
) -> Option<Upgraded> {
    let deadline = worker.timers.deadline();
    loop {
        if received.is_empty() {
            deadline.set_idle(peer.limits.idle_timeout, peer.port);
            tokio::select! { biased;
                () = wire.readable() => {}
                () = deadline.passed() => break,
            }
        }
        // Boxed: the state of a request is large, and is held only while there is one.
        let (buf, whole) = (received, Bytes::new());
        let requests = Requests { worker, peer, wire, deadline: &deadline, buf, whole, out: Vec::new() };
        match Box::pin(requests.run()).await {
            Next::Wait => received = BytesMut::new(),
            Next::Tunnel(tunnel, early) => return Some(Upgraded { early, tunnel }),
            Next::Cut => {
                wire.reset_on_close();
                return None;
            }
            Next::Close => break,
            Next::Linger => {
                Box::pin(linger(wire, &deadline)).await;
                return None;
            }
        }
    }
    let _ = deadline.within(LINGER_TIMEOUT, wire.shutdown()).await;
    None
}

/// What follows when no whole request is left in the buffer.
enum Next {
    /// For the next request; the buffer is empty.
    Wait,
    Close,
    /// Close, though the client may still be sending.
    Linger,
    /// Close so that nobody takes the part that was sent for the whole.
    Cut,
    /// Carry bytes both ways; those are bytes that the client sent behind its request.
    Tunnel(Box<Tunnel>, BytesMut),
}

/// Closes so that the client still reads the answer: a reset, sent because unread bytes were there, would
/// overtake it (RFC 9112, section 9.6).
async fn linger(wire: &Wire, deadline: &Deadline) {
    deadline.set(Some(LINGER_TIMEOUT));
    tokio::select! { biased;
        end = wire.shutdown() => if end.is_err() { return },
        () = deadline.passed() => return,
    }
    let mut left = LINGER_BYTES_MAX;
    let mut scratch = BytesMut::with_capacity(READ_BYTES);
    while left > 0 {
        scratch.clear();
        let read = tokio::select! { biased;
            read = wire.read(&mut scratch) => read,
            () = deadline.passed() => return,
        };
        match read {
            Ok(0) | Err(_) => return,
            Ok(n) => left = left.saturating_sub(n),
        }
    }
}

/// Requests that follow one another without a pause.
struct Requests<'a> {
    worker: &'a Worker,
    peer: &'a Peer,
    wire: &'a Wire,
    deadline: &'a Deadline,
    buf: BytesMut,
    /// A head that was refused.
    whole: Bytes,
    out: Vec<u8>,
}

impl Requests<'_> {
    async fn run(mut self) -> Next {
        loop {
            let request = match self.read_head().await {
                Ok(Some(mut request)) => match check_upgrade(&mut request.head) {
                    Ok(()) => request,
                    Err(failure) => return self.refuse(failure, || Said::of(&request.head)).await,
                },
                Ok(None) => return if self.buf.is_empty() { Next::Wait } else { Next::Close },
                Err(failure) => {
                    let whole = std::mem::take(&mut self.whole);
                    let read = if whole.is_empty() { self.buf.split().freeze() } else { whole };
                    return self.refuse(failure, || Said::of_bytes(&read)).await;
                }
            };
            self.worker.counters.requests_http1.add(1);
            let mut decoder = Decoder::new(request.framing);
            let mut body = Body(BodyReader::new(self.wire, &mut self.buf, &mut decoder));
            let mut sink =
                Sink::new((self.worker, self.peer.port), self.wire, &mut self.out, request.persistence);
            sink.minor_version = request.minor_version;
            let outcome =
                request::serve(self.worker, self.peer, request.head, &mut body, &mut sink, self.deadline)
                    .await;
            let persistence = sink.persistence;
            match outcome {
                Outcome::Upgraded(tunnel) => return Next::Tunnel(tunnel, self.buf),
                Outcome::Aborted => {
                    // A head that is still here goes out, as far as that needs no wait: without it the client could
                    // not tell a response that broke off from a request that was never read.
                    let _ = poll_once(sink.flush()).await;
                    return Next::Cut;
                }
                Outcome::Answered if !decoder.is_done() => return Next::Linger,
                Outcome::Answered if persistence == Persistence::Close && !self.buf.is_empty() => {
                    return Next::Linger;
                }
                Outcome::Answered if persistence == Persistence::Close => return Next::Close,
                Outcome::Answered if self.buf.is_empty() => return Next::Wait,
                Outcome::Answered => {}
            }
        }
    }

    /// The next request's head; `None` when the client closed, or has sent nothing after all.
    async fn read_head(&mut self) -> Result<Option<ParsedRequest>, Failure> {
        if self.buf.is_empty() {
            // Whoever woke us may have been wrong: hold no buffer while nothing comes.
            self.buf.reserve(READ_BYTES);
            match poll_once(self.wire.read(&mut self.buf)).await {
                None => return Ok(None),
                Some(Ok(0) | Err(_)) => return Err(Failure::ClientGone),
                Some(Ok(_)) => {}
            }
        }
        let limits = &self.peer.limits;
        self.deadline.set(Some(limits.head_timeout));
        let mut line = 0;
        loop {
            // An empty line before a request is forgiven, as RFC 9112, section 2.2, asks.
            while line == 0 && self.buf.starts_with(b"\r\n") {
                self.buf.advance(2);
            }
            if let Some(end) = head::head_end(&self.buf, &mut line).map_err(Failure::BadRequest)? {
                if end > limits.head_bytes_max {
                    return Err(Failure::HeadTooLarge);
                }
                let bytes = self.buf.split_to(end).freeze();
                let request = head::request(&bytes, limits.headers_max);
                if let Err(failure) = &request
                    && is_foreign(&bytes)
                {
                    self.worker.counters.refused(*failure);
                    return Err(Failure::ClientGone);
                }
                if request.is_err() {
                    self.whole = bytes;
                }
                return request.map(Some);
            }
            if self.buf.len() > limits.head_bytes_max {
                return Err(Failure::HeadTooLarge);
            }
            self.buf.reserve(READ_BYTES);
            let read = tokio::select! { biased;
                read = self.wire.read(&mut self.buf) => read,
                () = self.deadline.passed() => return Err(Failure::RequestSlow),
            };
            if matches!(read, Ok(0) | Err(_)) {
                return Err(Failure::ClientGone);
            }
        }
    }

    /// Answers what is not a request, and closes: where the next one would begin is not known.
    async fn refuse(&mut self, failure: Failure, said: impl FnOnce() -> Said) -> Next {
        if failure == Failure::ClientGone {
            return Next::Close;
        }
        let Self { worker, peer, wire, deadline, .. } = *self;
        let mut sink = Sink::new((worker, peer.port), wire, &mut self.out, Persistence::Close);
        let why = (failure, &Asked::default());
        match request::refuse(worker, peer, said, &mut sink, why, deadline).await {
            Ok(()) => Next::Linger,
            Err(_) => Next::Close,
        }
    }
}

/// Whether a head begins with several words of which none is a target or a version as HTTP/1 has them: it is of another
/// protocol, and its sender could make nothing of an answer (a preface of HTTP/2 that is none, above all; RFC 9113, section
/// 3.4).
fn is_foreign(head: &[u8]) -> bool {
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let mut after_method = line.split(|&byte| byte == b' ').skip(1).peekable();
    if after_method.peek().is_none() {
        return false;
    }
    let has = |word: &[u8], what: &[u8]| word.windows(what.len()).any(|window| window == what);
    !after_method
        .any(|word| word.starts_with(b"/") || word == b"*" || has(word, b"://") || has(word, b"HTTP/"))
}

/// A WebSocket begins with a GET and has a key (RFC 6455, section 4.2.1). Another method's wish is left out, as any server
/// may do (RFC 9110, section 7.8).
fn check_upgrade(head: &mut RequestHead) -> Result<(), Failure> {
    if head.upgrade == Upgrade::No {
        return Ok(());
    }
    if head.method != Method::GET {
        head.upgrade = Upgrade::No;
    } else if !head.headers.contains_key(SEC_WEBSOCKET_KEY) {
        return Err(Failure::BadRequest("The WebSocket has no Sec-WebSocket-Key header."));
    }
    Ok(())
}

struct Body<'a>(BodyReader<'a>);

impl RequestBody for Body<'_> {
    async fn next(&mut self) -> Result<Option<Frame>, Failure> {
        self.0.next().await.map_err(|error| match error {
            BodyError::Invalid(sentence) => Failure::BadRequest(sentence),
            BodyError::Cut => Failure::ClientGone,
        })
    }

    fn has_ended(&self) -> bool {
        self.0.decoder.is_done()
    }
}

/// The response of one request.
struct Sink<'a> {
    worker: &'a Worker,
    /// That the client came to.
    port: u16,
    wire: &'a Wire,
    writer: Writer<'a>,
    persistence: Persistence,
    minor_version: u8,
    has_begun: bool,
}

impl<'a> Sink<'a> {
    /// For an answer to HTTP/1.1.
    fn new(
        (worker, port): (&'a Worker, u16),
        wire: &'a Wire,
        out: &'a mut Vec<u8>,
        persistence: Persistence,
    ) -> Self {
        let writer = Writer::new(wire, out);
        Self { worker, port, wire, writer, persistence, minor_version: 1, has_begun: false }
    }
}

impl ResponseSink for Sink<'_> {
    async fn interim(&mut self, status: StatusCode, headers: HeaderMap) -> Result<(), Failure> {
        if self.minor_version == 0 {
            return Ok(());
        }
        encode::interim(self.writer.out, status, &headers);
        self.flush().await
    }

    async fn head(&mut self, head: ResponseHead) -> Result<(), Failure> {
        self.has_begun = true;
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            encode::switching(self.writer.out, &head.headers);
            return Ok(());
        }
        let framing = match head.body {
            BodyLength::Empty | BodyLength::Announced(None) => Framing::Empty,
            BodyLength::Known(length) | BodyLength::Announced(Some(length)) => Framing::Length(length),
            BodyLength::Unknown if self.minor_version == 0 => {
                self.persistence = Persistence::Close;
                Framing::UntilClose
            }
            BodyLength::Unknown => Framing::Chunked,
        };
        self.writer.chunked = framing == Framing::Chunked;
        // Asked here and not when the request came: a drain may have begun since.
        if self.worker.timers.is_leaving(self.port) {
            self.persistence = Persistence::Close;
        }
        let persistence = match self.persistence {
            Persistence::Close => Some(Persistence::Close),
            Persistence::Keep if self.minor_version == 0 => Some(Persistence::Keep),
            Persistence::Keep => None,
        };
        encode::response(self.writer.out, head.status, &head.headers, framing, persistence);
        Ok(())
    }

    async fn data(&mut self, data: Bytes) -> Result<(), Failure> {
        self.writer.data(&data).await.map_err(|_| Failure::ClientGone)
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        self.writer.flush().await.map_err(|_| Failure::ClientGone)
    }

    async fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(), Failure> {
        self.writer.end(trailers.as_ref()).await.map_err(|_| Failure::ClientGone)
    }

    fn close_after(&mut self) {
        self.persistence = Persistence::Close;
    }

    async fn gone(&mut self) {
        self.wire.closed().await;
    }

    fn has_begun(&self) -> bool {
        self.has_begun
    }
}

#[cfg(test)]
mod tests {
    use super::is_foreign;

    #[test]
    fn what_is_no_http_at_all_is_told_from_what_is_malformed() {
        for (head, wanted) in [
            (&b"INVALID CONNECTION PREFACE\r\n\r\n"[..], true),
            (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", false),
            (b"\rGET / HTTP/1.1\r\n\r\n", false),
            (b"EHLO example.com\r\n\r\n", true),
            (b"GET /\r\n\r\n", false),
            (b"GET / HTTP/3.0\r\n\r\n", false),
            (b"GET x HTTP/1.1\r\n\r\n", false),
            (b"OPTIONS * FTP\r\n\r\n", false),
            (b"GET http://a x\r\n\r\n", false),
        ] {
            assert_eq!(is_foreign(head), wanted, "{}", String::from_utf8_lossy(head));
        }
    }
}

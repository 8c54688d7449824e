//! HTTP/1 towards a backend: one connection, one exchange at a time.

use super::body::{BodyReader, Decoder};
use super::head::{self, ParsedResponse, Persistence};
use super::writer::Writer;
use super::{READ_BYTES, encode};
use crate::link::{Answer, Down, NoAnswer, Stopped, Up};
use crate::message::{BodyError, BodyLength, Frame, RequestHead, ResponseHead, Upgrade};
use crate::websocket;
use crate::wire::{Io, Wire};
use bytes::{Bytes, BytesMut};
use http::header::{HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY};
use http::{HeaderMap, Method, StatusCode};
use std::cell::Cell;
use std::io;

/// Most bytes of a request that are taken to travel in one segment, whatever the way.
const SEGMENT_BYTES_MAX: usize = 1_000;

/// A connection to a backend. Between two exchanges `buf` is empty and holds no memory.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) wire: Wire,
    pub(crate) buf: BytesMut,
}

impl Connection {
    pub(crate) fn new(io: Io) -> Self {
        Self { wire: Wire::new(io), buf: BytesMut::new() }
    }
}

/// The two directions of one exchange.
pub(crate) struct Exchange<'a> {
    wire: &'a Wire,
    buf: &'a mut BytesMut,
    /// The request's head, until it is written.
    out: Vec<u8>,
    is_chunked: bool,
    decoder: Decoder,
    sent_bytes: Cell<usize>,
    method: Method,
    /// Of a WebSocket, where it is ours.
    key: Option<HeaderValue>,
}

impl<'a> Exchange<'a> {
    /// Begins an exchange. Nothing is written yet.
    pub(crate) fn begin(connection: &'a mut Connection, head: &RequestHead) -> Self {
        let Connection { wire, buf } = connection;
        let framing = match head.body {
            BodyLength::Empty | BodyLength::Announced(_) => head::Framing::Empty,
            BodyLength::Known(length) => head::Framing::Length(length),
            BodyLength::Unknown => head::Framing::Chunked,
        };
        let mut out = Vec::with_capacity(1024);
        let has_none = head.upgrade == Upgrade::WebSocket && !head.headers.contains_key(SEC_WEBSOCKET_KEY);
        let key = has_none.then(websocket::new_key);
        encode::request(&mut out, head, framing, key.as_ref());
        let sent_bytes = Cell::new(out.len());
        let (is_chunked, method) = (head.body == BodyLength::Unknown, head.method.clone());
        Self { wire, buf, out, is_chunked, decoder: Decoder::Done, sent_bytes, method, key }
    }

    pub(crate) fn split(&mut self) -> (Uplink<'_>, Downlink<'_>) {
        let writer = Writer::after(self.wire, &mut self.out, self.is_chunked);
        let up = Uplink { writer, sent_bytes: &self.sent_bytes };
        let reader = BodyReader::new(self.wire, self.buf, &mut self.decoder);
        let (method, key) = (&self.method, self.key.as_ref());
        (up, Downlink { reader, method, key, sent_bytes: &self.sent_bytes })
    }
}

/// The request.
pub(crate) struct Uplink<'a> {
    writer: Writer<'a>,
    sent_bytes: &'a Cell<usize>,
}

fn stopped(written: io::Result<()>) -> Result<(), Stopped> {
    written.map_err(|_| Stopped)
}

impl Up for Uplink<'_> {
    async fn data(&mut self, data: Bytes) -> Result<(), Stopped> {
        self.sent_bytes.set(self.sent_bytes.get() + data.len());
        stopped(self.writer.data(&data).await)
    }

    async fn flush(&mut self) -> Result<(), Stopped> {
        stopped(self.writer.flush().await)
    }

    async fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(), Stopped> {
        stopped(self.writer.end(trailers.as_ref()).await)
    }
}

/// The response.
pub(crate) struct Downlink<'a> {
    reader: BodyReader<'a>,
    method: &'a Method,
    key: Option<&'a HeaderValue>,
    sent_bytes: &'a Cell<usize>,
}

impl Down for Downlink<'_> {
    async fn head(&mut self) -> Result<Answer, NoAnswer> {
        let ParsedResponse { mut head, framing, persistence } =
            read_head(self.reader.wire, self.reader.buf, self.method).await?;
        if let Some(key) = self.key {
            agreed(&mut head, key)?;
        }
        self.reader.begin(framing);
        Ok(Answer { head, keeps: persistence == Persistence::Keep })
    }

    async fn next(&mut self) -> Result<Option<Frame>, BodyError> {
        self.reader.next().await
    }

    /// A backend that had closed before the request came answers it with a reset, behind the end that it sent before.
    /// That it never read the request is sure only where all of that was one segment: of several it may have read the
    /// first, and been reset for the last.
    async fn is_untouched(&mut self) -> bool {
        self.sent_bytes.get() <= SEGMENT_BYTES_MAX && self.reader.wire.was_refused().await
    }
}

/// Whether an answer to a WebSocket with a key of ours can be passed on: as a yes, it has to prove that it is one; as
/// anything else, it must not pass for one, since over HTTP/2 every success is a yes (RFC 8441, section 5).
fn agreed(head: &mut ResponseHead, key: &HeaderValue) -> Result<(), NoAnswer> {
    if head.status != StatusCode::SWITCHING_PROTOCOLS {
        return match head.status.is_success() {
            true => Err(NoAnswer::Invalid("it answers a WebSocket with success, and does not switch to it")),
            false => Ok(()),
        };
    }
    match head.headers.remove(SEC_WEBSOCKET_ACCEPT) {
        Some(proof) if proof == websocket::accept(key) => Ok(()),
        _ => Err(NoAnswer::Invalid("its Sec-WebSocket-Accept does not fit the key")),
    }
}

/// Reads the head of the next response, interim ones included. What has come stays in `buf` when this is dropped.
async fn read_head(wire: &Wire, buf: &mut BytesMut, method: &Method) -> Result<ParsedResponse, NoAnswer> {
    let mut line = 0;
    loop {
        if let Some(end) = head::head_end(buf, &mut line).map_err(NoAnswer::Invalid)? {
            if head::is_too_large(end) {
                return Err(NoAnswer::Invalid("its head is too large"));
            }
            let bytes = buf.split_to(end).freeze();
            return head::response(&bytes, method).map_err(NoAnswer::Invalid);
        }
        if head::is_too_large(buf.len()) {
            return Err(NoAnswer::Invalid("its head is too large"));
        }
        buf.reserve(READ_BYTES);
        match wire.read(buf).await {
            Ok(0) | Err(_) if buf.is_empty() => return Err(NoAnswer::Nothing),
            Ok(0) | Err(_) => return Err(NoAnswer::Cut),
            Ok(_) => {}
        }
    }
}

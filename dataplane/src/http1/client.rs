//! HTTP/1 towards a backend: one connection, one exchange at a time.

use super::body::{BodyReader, Decoder};
use super::head::{self, ParsedResponse};
use super::{READ_BYTES, encode};
use crate::message::{BodyLength, RequestHead};
use crate::wire::{Io, Wire};
use bytes::BytesMut;
use http::Method;
use tokio::net::TcpStream;

/// A connection to a backend. Between two exchanges `buf` is empty and holds no memory.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) wire: Wire,
    pub(crate) buf: BytesMut,
}

/// Why no response head was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeadError {
    /// The connection ended or broke before a byte of it came: the request may never have been seen.
    Nothing,
    /// The connection ended or broke in the middle.
    Cut,
    /// Not HTTP; what of it.
    Invalid(&'static str),
}

impl Connection {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { wire: Wire::new(Io::Plain(stream)), buf: BytesMut::new() }
    }
}

/// Writes a request's head, and the framing that its body will need, to `out`.
pub(crate) fn encode_head(out: &mut Vec<u8>, head: &RequestHead) {
    let framing = match head.body {
        BodyLength::Empty | BodyLength::Announced(_) => head::Framing::Empty,
        BodyLength::Known(length) => head::Framing::Length(length),
        BodyLength::Unknown => head::Framing::Chunked,
    };
    encode::request(out, head, framing);
}

/// Reads the head of the next response, interim ones included. Not to be dropped half-way and called again with
/// the same connection, unless nothing else reads from it: `buf` keeps what has come.
pub(crate) async fn read_head(
    wire: &Wire,
    buf: &mut BytesMut,
    method: &Method,
) -> Result<ParsedResponse, HeadError> {
    let mut line = 0;
    loop {
        if let Some(end) = head::head_end(buf, &mut line).map_err(HeadError::Invalid)? {
            if head::is_too_large(end) {
                return Err(HeadError::Invalid("its head is too large"));
            }
            let bytes = buf.split_to(end).freeze();
            return head::response(&bytes, method).map_err(HeadError::Invalid);
        }
        if head::is_too_large(buf.len()) {
            return Err(HeadError::Invalid("its head is too large"));
        }
        buf.reserve(READ_BYTES);
        match wire.read(buf).await {
            Ok(0) | Err(_) if buf.is_empty() => return Err(HeadError::Nothing),
            Ok(0) | Err(_) => return Err(HeadError::Cut),
            Ok(_) => {}
        }
    }
}

/// The body that follows a head.
pub(crate) fn body<'a>(wire: &'a Wire, buf: &'a mut BytesMut, decoder: &'a mut Decoder) -> BodyReader<'a> {
    BodyReader::new(wire, buf, decoder)
}

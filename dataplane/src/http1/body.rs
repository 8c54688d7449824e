//! Bodies: bytes to [`Frame`]s, by the framing that the head gave.

use super::head::{self, Framing};
use super::{CHUNK_LINE_BYTES_MAX, READ_BYTES, READ_BYTES_LARGE, TRAILER_BYTES_MAX};
use crate::message::{BodyError, Frame};
use crate::wire::Wire;
use bytes::{Buf as _, BytesMut};
use http::HeaderMap;

/// Where in a body the next byte stands. `step` is pure: it takes from a buffer what it can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decoder {
    Length(u64),
    UntilClose,
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailers,
    Done,
}

/// What a step gave.
#[derive(Debug)]
pub(crate) enum Step {
    Frame(Frame),
    NeedMore,
    End,
}

impl Decoder {
    pub(crate) fn new(framing: Framing) -> Self {
        match framing {
            Framing::Empty | Framing::Length(0) => Self::Done,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::ChunkSize,
            Framing::UntilClose => Self::UntilClose,
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        *self == Self::Done
    }

    /// Takes the next frame out of `buf`. After `NeedMore`, come back with more bytes.
    pub(crate) fn step(&mut self, buf: &mut BytesMut) -> Result<Step, &'static str> {
        loop {
            match *self {
                Self::Done => return Ok(Step::End),
                _ if buf.is_empty() => return Ok(Step::NeedMore),
                Self::UntilClose => return Ok(Step::Frame(Frame::Data(buf.split().freeze()))),
                Self::Length(left) => {
                    let (data, left) = take(buf, left);
                    *self = if left == 0 { Self::Done } else { Self::Length(left) };
                    return Ok(data);
                }
                Self::ChunkData(left) => {
                    let (data, left) = take(buf, left);
                    *self = if left == 0 { Self::ChunkEnd } else { Self::ChunkData(left) };
                    return Ok(data);
                }
                Self::ChunkEnd => match buf.as_ref() {
                    [b'\r', b'\n', ..] => {
                        buf.advance(2);
                        *self = Self::ChunkSize;
                    }
                    [b'\r'] => return Ok(Step::NeedMore),
                    _ => return Err("A chunk is longer than its size says."),
                },
                Self::ChunkSize => match chunk_size(buf)? {
                    None => return Ok(Step::NeedMore),
                    Some(0) => *self = Self::Trailers,
                    Some(size) => *self = Self::ChunkData(size),
                },
                Self::Trailers => {
                    let Some(fields) = trailers(buf)? else { return Ok(Step::NeedMore) };
                    *self = Self::Done;
                    if !fields.is_empty() {
                        return Ok(Step::Frame(Frame::Trailers(fields)));
                    }
                }
            }
        }
    }
}

/// Up to `left` bytes of `buf`, which is not empty, and what is left after them.
fn take(buf: &mut BytesMut, left: u64) -> (Step, u64) {
    let size = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
    (Step::Frame(Frame::Data(buf.split_to(size).freeze())), left - size as u64)
}

/// Takes a chunk-size line: hexadecimal digits, then CR LF or extensions, which are dropped.
fn chunk_size(buf: &mut BytesMut) -> Result<Option<u64>, &'static str> {
    let limit = buf.len().min(CHUNK_LINE_BYTES_MAX);
    let Some(end) = memchr::memchr(b'\n', &buf[..limit]) else {
        return if limit == CHUNK_LINE_BYTES_MAX {
            Err("A chunk's size line is too long.")
        } else {
            Ok(None)
        };
    };
    let [line @ .., b'\r'] = &buf[..end] else { return Err("A chunk's size line ends with LF alone.") };
    let (digits, extensions) = line.split_at(memchr::memchr(b';', line).unwrap_or(line.len()));
    let hexadecimal = (1..=16).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit);
    if !hexadecimal || extensions.iter().any(|&b| b != b'\t' && b.is_ascii_control()) {
        return Err("A chunk's size is not a hexadecimal number.");
    }
    let digits = std::str::from_utf8(digits).expect("hexadecimal digits are ASCII");
    let size = u64::from_str_radix(digits, 16).expect("at most 16 hexadecimal digits");
    if size > i64::MAX.unsigned_abs() {
        return Err("A chunk's size is too large.");
    }
    buf.advance(end + 1);
    Ok(Some(size))
}

fn trailers(buf: &mut BytesMut) -> Result<Option<HeaderMap>, &'static str> {
    match buf.as_ref() {
        [b'\r', b'\n', ..] => {
            buf.advance(2);
            return Ok(Some(HeaderMap::new()));
        }
        [b'\r'] => return Ok(None),
        _ => {}
    }
    match head::head_end(buf, &mut 0)? {
        Some(end) if end <= TRAILER_BYTES_MAX => head::trailers(&buf.split_to(end).freeze()).map(Some),
        None if buf.len() <= TRAILER_BYTES_MAX => Ok(None),
        _ => Err("The trailer section is too long."),
    }
}

/// A body on a connection.
#[derive(Debug)]
pub(crate) struct BodyReader<'a> {
    pub(crate) wire: &'a Wire,
    pub(crate) buf: &'a mut BytesMut,
    pub(crate) decoder: &'a mut Decoder,
    room: usize,
}

impl<'a> BodyReader<'a> {
    pub(crate) fn new(wire: &'a Wire, buf: &'a mut BytesMut, decoder: &'a mut Decoder) -> Self {
        Self { wire, buf, decoder, room: READ_BYTES }
    }

    /// Changes what is to be read: a body follows the head that was read from the same buffer.
    pub(crate) fn begin(&mut self, framing: Framing) {
        *self.decoder = Decoder::new(framing);
    }

    /// The next piece, `None` at the end. Cancellation safe.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>, BodyError> {
        loop {
            match self.decoder.step(self.buf).map_err(BodyError::Invalid)? {
                Step::Frame(frame) => return Ok(Some(frame)),
                Step::End => return Ok(None),
                Step::NeedMore => {}
            }
            self.buf.reserve(self.room);
            match self.wire.read(self.buf).await {
                Ok(0) if *self.decoder == Decoder::UntilClose => {
                    *self.decoder = Decoder::Done;
                    return Ok(None);
                }
                Ok(0) | Err(_) => return Err(BodyError::Cut),
                // Only a body that fills what it is given gets more: a slow one would keep large buffers alive
                // with small pieces in them.
                Ok(n) => self.room = if n >= READ_BYTES { READ_BYTES_LARGE } else { READ_BYTES },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds `input` in pieces of `step` bytes; body, trailers and what was left over.
    fn decode(
        framing: Framing,
        input: &[u8],
        step: usize,
    ) -> Result<(Vec<u8>, HeaderMap, Vec<u8>), &'static str> {
        let (mut decoder, mut buf) = (Decoder::new(framing), BytesMut::new());
        let (mut body, mut fields) = (Vec::new(), HeaderMap::new());
        let mut pieces = input.chunks(step);
        loop {
            match decoder.step(&mut buf)? {
                Step::Frame(Frame::Data(data)) => body.extend_from_slice(&data),
                Step::Frame(Frame::Trailers(map)) => fields = map,
                Step::End => break,
                Step::NeedMore => match pieces.next() {
                    Some(piece) => buf.extend_from_slice(piece),
                    None => return Err("needs more"),
                },
            }
        }
        let rest = pieces.flatten().copied();
        Ok((body, fields, buf.iter().copied().chain(rest).collect()))
    }

    #[test]
    fn chunks_are_joined_whatever_the_pieces_they_arrive_in() {
        let input = b"4\r\nWiki\r\n5;name=\"v\"\r\npedia\r\n0\r\nx-sum: 9\r\nhost: evil\r\n\r\nGET /";
        for step in 1..input.len() {
            let (body, trailers, rest) = decode(Framing::Chunked, input, step).expect("valid");
            assert_eq!(body, b"Wikipedia");
            assert_eq!(trailers["x-sum"], "9");
            assert_eq!(trailers.len(), 1, "a trailer may not name a host");
            assert_eq!(rest, b"GET /");
        }
    }

    #[test]
    fn a_length_ends_the_body_and_leaves_the_next_message() {
        let (body, _, rest) = decode(Framing::Length(5), b"helloGET", 3).expect("valid");
        assert_eq!((body.as_slice(), rest.as_slice()), (&b"hello"[..], &b"GET"[..]));
    }

    #[test]
    fn malformed_chunks_are_refused() {
        for input in [
            &b"4\nWiki\r\n0\r\n\r\n"[..],
            b"4\r\nWikipedia\r\n0\r\n\r\n",
            b"0x4\r\nWiki\r\n0\r\n\r\n",
            b"+4\r\nWiki\r\n0\r\n\r\n",
            b" 4\r\nWiki\r\n0\r\n\r\n",
            b"\r\nWiki\r\n0\r\n\r\n",
            b"4 \r\nWiki\r\n0\r\n\r\n",
            b"10000000000000000\r\n",
            b"4;a\x01\r\nWiki\r\n0\r\n\r\n",
            b"0\r\nbad name: 1\r\n\r\n",
            b"0\r\na: 1\n\r\n",
        ] {
            for step in [1, input.len()] {
                let error = decode(Framing::Chunked, input, step).expect_err("malformed");
                assert_ne!(error, "needs more", "{}", String::from_utf8_lossy(input));
            }
        }
    }

    #[test]
    fn limits_hold_at_the_limit_and_not_one_past_it() {
        let line = |bytes: usize| format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(bytes - 4));
        assert!(decode(Framing::Chunked, line(CHUNK_LINE_BYTES_MAX).as_bytes(), 7).is_ok());
        assert!(decode(Framing::Chunked, line(CHUNK_LINE_BYTES_MAX + 1).as_bytes(), 7).is_err());
        let section = |bytes: usize| format!("0\r\na: {}\r\n\r\n", "e".repeat(bytes - 7));
        assert!(decode(Framing::Chunked, section(TRAILER_BYTES_MAX).as_bytes(), 999).is_ok());
        assert!(decode(Framing::Chunked, section(TRAILER_BYTES_MAX + 1).as_bytes(), 999).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_none_are_made_up(input: Vec<u8>, step in 1usize..9) {
            if let Ok((body, _, rest)) = decode(Framing::Chunked, &input, step) {
                prop_assert!(body.len() + rest.len() <= input.len());
            }
        }
    }
}

//! HTTP/2 frame by frame, so that it can be wrong in any place.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use weir_tests::harness::client::local;
use weir_tests::harness::wait::GENEROUS;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Fields as literals that no table keeps (RFC 7541, section 6.2.2), whatever they hold.
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            length(&mut block, text.len());
            block.extend(text.as_bytes());
        }
    }
    block
}

/// The length of a string that is not Huffman-coded.
fn length(block: &mut Vec<u8>, length: usize) {
    let Some(mut rest) = length.checked_sub(127) else {
        block.push(u8::try_from(length).expect("below 127"));
        return;
    };
    block.push(127);
    while rest >= 128 {
        block.push(u8::try_from(rest % 128 + 128).expect("a byte"));
        rest /= 128;
    }
    block.push(u8::try_from(rest).expect("below 128"));
}

/// A frame as it came.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// What became of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It was answered so, to the end.
    Answered(u16),
    /// It was reset, with this code.
    Reset(u32),
    /// The connection was ended, with this code.
    GoAway(u32),
    /// The connection closed without a word.
    Closed,
}

/// A connection of either side.
pub(crate) struct Wire(TcpStream);

impl Wire {
    pub(crate) fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(GENEROUS)).expect("a socket");
        stream.set_nodelay(true).expect("a socket");
        Self(stream)
    }

    /// A client whose preface and settings are sent.
    pub(crate) fn connect(port: u16) -> Self {
        let mut wire = Self::new(TcpStream::connect(local(port)).expect("serves"));
        let _ = wire.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat());
        wire
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    pub(crate) fn read_exact(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.0.read_exact(bytes)
    }

    pub(crate) fn read(&mut self) -> io::Result<Frame> {
        let mut header = [0; 9];
        self.0.read_exact(&mut header)?;
        let [a, b, c, kind, flags, stream @ ..] = header;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.0.read_exact(&mut payload)?;
        Ok(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload })
    }

    /// Reads until a stream has ended, by what end so ever.
    pub(crate) fn end_of(&mut self, stream: u32) -> End {
        let mut status = 0;
        loop {
            let frame = match self.read() {
                Ok(frame) => frame,
                Err(error) => {
                    assert_ne!(error.kind(), io::ErrorKind::WouldBlock, "nothing comes, and no end");
                    return End::Closed;
                }
            };
            match frame.kind {
                GOAWAY => return End::GoAway(number(&frame.payload[4..])),
                RST_STREAM if frame.stream == stream => return End::Reset(number(&frame.payload)),
                HEADERS if frame.stream == stream && status == 0 => status = self::status(&frame.payload),
                _ => {}
            }
            let ends = matches!(frame.kind, HEADERS | DATA) && frame.flags & END_STREAM != 0;
            if ends && frame.stream == stream {
                return End::Answered(status);
            }
        }
    }
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().expect("four bytes"))
}

/// The status that begins the first block of a connection (RFC 7541, appendices A and B).
fn status(block: &[u8]) -> u16 {
    match block {
        [indexed @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)],
        [0x48 | 0x08, 0x03, digits @ ..] => digits[..3].iter().fold(0, |n, d| n * 10 + u16::from(d - b'0')),
        [0x48 | 0x08, length, coded @ ..] if length & 0x80 != 0 => {
            let bits = coded[..usize::from(length & 0x7f)]
                .iter()
                .fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
            digits(bits << (64 - 8 * u32::from(length & 0x7f)))
        }
        _ => panic!("a block that begins otherwise: {block:?}"),
    }
}

/// Three digits of Huffman's code: 0 to 2 have five bits, the others six.
fn digits(mut bits: u64) -> u16 {
    let mut number = 0;
    for _ in 0..3 {
        let (digit, length) = match bits >> 59 {
            digit @ 0..=2 => (digit, 5),
            _ => ((bits >> 58) - 0b01_1001 + 3, 6),
        };
        number = number * 10 + u16::try_from(digit).expect("a digit");
        bits <<= length;
    }
    number
}

#[test]
fn a_status_is_read_in_each_of_its_codings() {
    assert_eq!(status(&[0x88]), 200);
    assert_eq!(status(&[0x48, 3, b'4', b'3', b'1']), 431);
    // 4 3 1 are 011010 011001 00001, and ones to the end of the byte.
    assert_eq!(status(&[0x48, 0x83, 0b0110_1001, 0b1001_0000, 0b1111_1111]), 431);
}

//! What reads bytes of others, for `fuzz/`: each function must come back, and holds what else can be said of any input.
//! Compiled with `--cfg fuzzing` only; it opens nothing that a build for use has.

use crate::config::fuzz as config;
use crate::http1::body::{Decoder, Step};
use crate::http1::head::{self, Framing};
use crate::http1::{HEAD_BYTES_MAX, HEADERS_MAX};
use crate::message::Frame;
use crate::{cookie, forwarding, sessions, tunnel};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, header};
use std::time::Duration;

pub use crate::proxied::fuzz as proxy_header;
pub use config::{disk, pool_update, updates};
pub use forwarding::fuzz as forwarded;
pub use sessions::fuzz as session;
pub use tunnel::fuzz as websocket;

/// A request's head.
pub fn request_head(bytes: &[u8]) {
    if let Some(head) = whole_head(bytes)
        && let Ok(parsed) = head::request(&head, HEADERS_MAX)
    {
        let headers = &parsed.head.headers;
        assert!(
            headers.get(header::TRANSFER_ENCODING).is_none(),
            "how it came is no matter of the backend's"
        );
        assert!(headers.get(header::CONNECTION).is_none(), "nor is the client's connection");
        assert!(parsed.framing != Framing::UntilClose, "a request that ends with its connection");
    }
}

/// A response's head, to a GET and to a HEAD.
pub fn response_head(bytes: &[u8]) {
    if let Some(head) = whole_head(bytes) {
        for method in [Method::GET, Method::HEAD] {
            let _ = head::response(&head, &method);
        }
    }
}

/// The head at the beginning, found in one piece as it is byte by byte.
fn whole_head(bytes: &[u8]) -> Option<Bytes> {
    let bytes = &bytes[..bytes.len().min(HEAD_BYTES_MAX)];
    let mut line = 0;
    let found = head::head_end(bytes, &mut line);
    let (mut line, mut by_bytes) = (0, Ok(None));
    for end in 1..=bytes.len() {
        by_bytes = head::head_end(&bytes[..end], &mut line);
        if by_bytes != Ok(None) {
            break;
        }
    }
    assert_eq!(found, by_bytes, "where a head ends depends on how it came");
    found.ok().flatten().map(|end| Bytes::copy_from_slice(&bytes[..end]))
}

/// A chunked body and its trailers: the same, however it is cut.
pub fn chunked_body(bytes: &[u8]) {
    let Some((&step, bytes)) = bytes.split_first() else { return };
    let whole = decode(bytes, bytes.len().max(1));
    let pieces = decode(bytes, usize::from(step) + 1);
    match (&whole, &pieces) {
        // Which of two faults is met first may differ.
        (Err(_), Err(_)) => {}
        _ => assert_eq!(whole, pieces, "a body depends on how it came"),
    }
}

type Decoded = Result<(Vec<u8>, Option<HeaderMap>, bool), &'static str>;

fn decode(bytes: &[u8], step: usize) -> Decoded {
    let (mut decoder, mut buf) = (Decoder::new(Framing::Chunked), BytesMut::new());
    let (mut body, mut trailers, mut pieces) = (Vec::new(), None, bytes.chunks(step));
    loop {
        match decoder.step(&mut buf)? {
            Step::Frame(Frame::Data(data)) => body.extend_from_slice(&data),
            Step::Frame(Frame::Trailers(fields)) => trailers = Some(fields),
            Step::End => return Ok((body, trailers, true)),
            Step::NeedMore => match pieces.next() {
                Some(piece) => buf.extend_from_slice(piece),
                None => return Ok((body, trailers, false)),
            },
        }
    }
}

/// An authority; what is accepted reads the same again.
pub fn authority(bytes: &[u8]) {
    if let Ok(authority) = head::authority(&Bytes::copy_from_slice(bytes)) {
        let again = head::authority(&Bytes::copy_from_slice(authority.as_str().as_bytes()));
        assert_eq!(again.as_ref().map(|again| again.as_str()), Ok(authority.as_str()));
    }
}

/// Cookies of a request and of a response.
pub fn cookies(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n').take(8) {
        let Ok(value) = HeaderValue::from_bytes(line) else { continue };
        headers.append(header::COOKIE, value.clone());
        headers.append(header::SET_COOKIE, value);
    }
    let _ = cookie::learnt(&headers, "a", Duration::from_secs(1_800_000_000));
    cookie::remove(&mut headers, "a");
    assert_eq!(cookie::first(&headers, "a"), None, "what was removed is gone");
}

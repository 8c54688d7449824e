//! Heads and chunks to bytes.

use super::head::{Framing, Persistence};
use crate::message::{RequestHead, Upgrade};
use http::header::HeaderValue;
use http::{HeaderMap, StatusCode};

/// Writes a request's head for a backend.
/// `key` is ours, for a WebSocket whose client has none.
pub(crate) fn request(out: &mut Vec<u8>, head: &RequestHead, framing: Framing, key: Option<&HeaderValue>) {
    put(out, head.method.as_str().as_bytes());
    put(out, b" ");
    put(out, head.target.as_str().as_bytes());
    put(out, b" HTTP/1.1\r\nhost: ");
    put(out, head.authority.as_ref().map_or(b"", |authority| authority.as_str().as_bytes()));
    put(out, b"\r\n");
    fields(out, &head.headers);
    if head.upgrade == Upgrade::WebSocket {
        put(out, b"connection: upgrade\r\nupgrade: websocket\r\n");
        if let Some(key) = key {
            put(out, b"sec-websocket-key: ");
            put(out, key.as_bytes());
            put(out, b"\r\n");
        }
    } else if head.headers.contains_key(http::header::TE) {
        // TE is for one connection only, and has to be named as such (RFC 9110, section 10.1.4).
        put(out, b"connection: te\r\n");
    }
    framed(out, framing);
}

/// Writes a response's head for a client.
pub(crate) fn response(
    out: &mut Vec<u8>,
    status: StatusCode,
    headers: &HeaderMap,
    framing: Framing,
    persistence: Option<Persistence>,
) {
    put(out, b"HTTP/1.1 ");
    put(out, status.as_str().as_bytes());
    put(out, b" ");
    put(out, status.canonical_reason().unwrap_or("").as_bytes());
    put(out, b"\r\n");
    fields(out, headers);
    match persistence {
        Some(Persistence::Close) => put(out, b"connection: close\r\n"),
        Some(Persistence::Keep) => put(out, b"connection: keep-alive\r\n"),
        None => {}
    }
    framed(out, framing);
}

/// Writes the agreement to speak WebSocket.
pub(crate) fn switching(out: &mut Vec<u8>, headers: &HeaderMap) {
    put(out, b"HTTP/1.1 101 Switching Protocols\r\n");
    fields(out, headers);
    put(out, b"connection: upgrade\r\nupgrade: websocket\r\n\r\n");
}

/// Writes an interim response.
pub(crate) fn interim(out: &mut Vec<u8>, status: StatusCode, headers: &HeaderMap) {
    response(out, status, headers, Framing::UntilClose, None);
}

/// Writes the size line of a chunk. Its data, then CR LF, must follow; a size of 0 would end the body.
pub(crate) fn chunk_size(out: &mut Vec<u8>, size: usize) {
    debug_assert!(size > 0, "an empty chunk ends the body");
    let mut digits = [0; 16];
    let mut at = digits.len();
    let mut rest = size;
    while rest > 0 {
        at -= 1;
        digits[at] = b"0123456789abcdef"[rest % 16];
        rest /= 16;
    }
    put(out, &digits[at..]);
    put(out, b"\r\n");
}

/// Writes the end of a chunked body.
pub(crate) fn last_chunk(out: &mut Vec<u8>, trailers: Option<&HeaderMap>) {
    put(out, b"0\r\n");
    if let Some(trailers) = trailers {
        fields(out, trailers);
    }
    put(out, b"\r\n");
}

fn fields(out: &mut Vec<u8>, headers: &HeaderMap) {
    for (name, value) in headers {
        put(out, name.as_str().as_bytes());
        put(out, b": ");
        put(out, value.as_bytes());
        put(out, b"\r\n");
    }
}

fn framed(out: &mut Vec<u8>, framing: Framing) {
    match framing {
        Framing::Empty | Framing::UntilClose => {}
        Framing::Chunked => put(out, b"transfer-encoding: chunked\r\n"),
        Framing::Length(length) => {
            put(out, b"content-length: ");
            put(out, itoa::Buffer::new().format(length).as_bytes());
            put(out, b"\r\n");
        }
    }
    put(out, b"\r\n");
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_sizes_are_hexadecimal() {
        for (size, want) in
            [(1, "1\r\n"), (15, "f\r\n"), (16, "10\r\n"), (usize::MAX, "ffffffffffffffff\r\n")]
        {
            let mut out = Vec::new();
            chunk_size(&mut out, size);
            assert_eq!(out, want.as_bytes());
        }
    }

    #[test]
    fn a_response_is_framed_as_told() {
        let headers = HeaderMap::from_iter([(http::header::ETAG, "\"a\"".parse().expect("a value"))]);
        let head = |framing, persistence| {
            let mut out = Vec::new();
            response(&mut out, StatusCode::OK, &headers, framing, persistence);
            String::from_utf8(out).expect("ASCII")
        };
        assert_eq!(
            head(Framing::Length(3), Some(Persistence::Close)),
            "HTTP/1.1 200 OK\r\netag: \"a\"\r\nconnection: close\r\ncontent-length: 3\r\n\r\n"
        );
        assert_eq!(
            head(Framing::Chunked, None),
            "HTTP/1.1 200 OK\r\netag: \"a\"\r\ntransfer-encoding: chunked\r\n\r\n"
        );
    }
}

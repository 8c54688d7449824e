//! The handshake of WebSocket in its two forms: an upgrade over HTTP/1.1 (RFC 6455, section 4) and an extended CONNECT
//! over HTTP/2 (RFC 8441).
//!
//! Within Weir there is one form: a GET that asks for [`crate::message::Upgrade::WebSocket`], agreed to with 101. Only
//! over HTTP/1.1 does a client send a key, which proves that whoever agrees has understood the question. A request has
//! one where the client sent it, and the 101 to it then has the proof; each edge adds or takes away what its side needs.

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::HeaderValue;

/// What RFC 6455 appends to a key.
const SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A key of our own for a backend: 16 random bytes (RFC 6455, section 4.1).
pub(crate) fn new_key() -> HeaderValue {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system gives randomness");
    value(&bytes)
}

/// What proves that the handshake with this key was understood.
pub(crate) fn accept(key: &HeaderValue) -> HeaderValue {
    let mut hash = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key.as_bytes());
    hash.update(SUFFIX);
    value(hash.finish().as_ref())
}

fn value(bytes: &[u8]) -> HeaderValue {
    HeaderValue::try_from(STANDARD.encode(bytes)).expect("Base64 is visible ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_the_rfc_has_the_proof_of_the_rfc() {
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept(&key), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn each_key_is_16_bytes_and_its_own() {
        let (one, other) = (new_key(), new_key());
        assert_ne!(one, other);
        assert_eq!(STANDARD.decode(one.as_bytes()).map(|bytes| bytes.len()), Ok(16));
    }
}

//! HTTP/1.0 and 1.1 on both sides: a strict codec over httparse on buffers that we own.
//!
//! Strict, because a message that two parsers read differently is how requests are smuggled: what RFC 9112 calls
//! an error is refused here even where it allows a recipient to guess. docs/decisions/http1-codec.md has the
//! measurements and the cases that made us write it.
//!
//! [`head`], [`body`] and [`encode`] are pure; [`server`] and [`client`] put them on a connection.

pub(crate) mod body;
pub(crate) mod client;
pub(crate) mod encode;
pub(crate) mod head;
pub(crate) mod server;
pub(crate) mod writer;

/// Largest request or response head, in bytes, from the first byte to the empty line. 431 past it.
pub const HEAD_BYTES_MAX: usize = 32 << 10;

/// Most header fields in one head or trailer section. 431 past it.
pub const HEADERS_MAX: usize = 100;

/// Largest chunk-size line with its extensions, in bytes; extensions are dropped.
pub const CHUNK_LINE_BYTES_MAX: usize = 256;

/// Largest trailer section, in bytes.
pub const TRAILER_BYTES_MAX: usize = 8 << 10;

/// Room for a read while bodies are small, in bytes.
const READ_BYTES: usize = 16 << 10;

/// Room for a read once a body has shown to be large, in bytes.
const READ_BYTES_LARGE: usize = 128 << 10;

/// Data up to this size is copied behind what waits to be written; larger data is written from where it lies.
const GATHER_BYTES_MAX: usize = 8 << 10;

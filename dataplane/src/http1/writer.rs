//! Messages onto a connection: heads and small pieces are gathered, large ones written from where they lie.

use super::{GATHER_BYTES_MAX, encode};
use crate::wire::Wire;
use http::HeaderMap;
use std::io;

/// One message on its way out, to a client or to a backend. After an error nothing more can be written.
pub(crate) struct Writer<'a> {
    wire: &'a Wire,
    /// What waits to be written; heads are encoded into it.
    pub(crate) out: &'a mut Vec<u8>,
    /// Whether the body goes in chunks; otherwise it goes as it is.
    pub(crate) chunked: bool,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(wire: &'a Wire, out: &'a mut Vec<u8>) -> Self {
        out.clear();
        Self { wire, out, chunked: false }
    }

    /// A message whose head is in `out` already.
    pub(crate) fn after(wire: &'a Wire, out: &'a mut Vec<u8>, chunked: bool) -> Self {
        Self { wire, out, chunked }
    }

    /// Some of the body.
    pub(crate) async fn data(&mut self, data: &[u8]) -> io::Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        if self.chunked {
            encode::chunk_size(self.out, data.len());
        }
        if self.out.len() + data.len() <= GATHER_BYTES_MAX {
            self.out.extend_from_slice(data);
        } else {
            self.write_through(data).await?;
        }
        if self.chunked {
            self.out.extend_from_slice(b"\r\n");
        }
        Ok(())
    }

    /// Writes what was gathered.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        if self.out.is_empty() { Ok(()) } else { self.write_through(&[]).await }
    }

    /// The body is complete.
    pub(crate) async fn end(&mut self, trailers: Option<&HeaderMap>) -> io::Result<()> {
        if self.chunked {
            encode::last_chunk(self.out, trailers);
        }
        self.flush().await
    }

    async fn write_through(&mut self, data: &[u8]) -> io::Result<()> {
        let written = self.wire.write(self.out, data).await;
        self.out.clear();
        written
    }
}

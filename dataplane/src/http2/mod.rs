//! HTTP/2 on both sides, on the `h2` crate: each stream is a request of its own.

pub(crate) mod client;
pub(crate) mod server;

use bytes::Bytes;
use h2::SendStream;
use std::future::poll_fn;

/// Bytes of one message's body that the other side may send ahead.
pub const STREAM_WINDOW_BYTES: u32 = 256 << 10;

/// Bytes of all bodies of a connection that the other side may send ahead.
pub const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;

/// Bytes of one stream that wait in memory for the other side.
const SEND_BUFFER_BYTES_MAX: usize = 128 << 10;

/// A piece of a body up to this size is copied, so that it does not keep a read buffer alive.
const COPIED_BYTES_MAX: usize = 4 << 10;

/// The other side has closed or reset the stream, or the connection is gone.
#[derive(Debug, Clone, Copy)]
struct StreamGone;

/// Sends all of `data` as the other side's window allows; `end` closes the stream with the last piece.
async fn send_all(stream: &mut SendStream<Bytes>, data: &mut Bytes, end: bool) -> Result<(), StreamGone> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let mut room = stream.capacity();
        while room == 0 {
            room = match poll_fn(|cx| stream.poll_capacity(cx)).await {
                Some(Ok(room)) => room,
                Some(Err(_)) | None => return Err(StreamGone),
            };
        }
        let piece = data.split_to(room.min(data.len()));
        let last = end && data.is_empty();
        stream.send_data(piece, last).map_err(|_| StreamGone)?;
    }
    Ok(())
}

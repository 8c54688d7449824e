//! HTTP/2 on both sides, on the `h2` crate: each stream is a request of its own.

pub(crate) mod carried;
pub(crate) mod client;
mod meter;
pub(crate) mod server;

pub(crate) use meter::Excess;

use bytes::Bytes;
use h2::SendStream;
use std::future::poll_fn;

/// Bytes of one message's body that the other side may send ahead.
pub const STREAM_WINDOW_BYTES: u32 = 256 << 10;

/// Bytes of all bodies of a connection that the other side may send ahead.
pub const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;

/// What h2 counts for a frame of less DATA that lies unread, less its data, in bytes. It is about what a buffered frame takes
/// in memory, and what the windows do not see: they count data alone.
const FRAME_OVERHEAD_BYTES: usize = 256;

/// Bytes of [`FRAME_OVERHEAD_BYTES`] that frames of a backend may take on one connection. Past it h2 ends the connection
/// (ENHANCE_YOUR_CALM), and with it every stream that shares it; h2's own bound, of half the window, ends it once a
/// client that does not read has left some 2,000 events of a few bytes lying.
///
/// One stream that is not read never comes to it: at most its window is unread, be every byte a frame of its own. Nor do
/// the streams of a whole connection with 4 bytes to a frame; a message of gRPC has 5 at least.
pub const BACKEND_FRAMES_BYTES_MAX: usize = FRAME_OVERHEAD_BYTES * STREAM_WINDOW_BYTES as usize;

/// The same for frames of a client, of whom less is taken on trust: one stream whose backend does not read never comes to
/// it with 4 bytes to a frame, nor do those of a whole connection with 16.
pub const CLIENT_FRAMES_BYTES_MAX: usize = BACKEND_FRAMES_BYTES_MAX / 4;

/// Bytes of one stream that wait in memory for the other side.
const SEND_BUFFER_BYTES_MAX: usize = 128 << 10;

/// A piece of a body up to this size is copied, so that it does not keep a read buffer alive.
const COPIED_BYTES_MAX: usize = 4 << 10;

/// A small piece in a buffer of its own: h2 counts the bytes that wait, not the buffer that they were cut from.
fn in_its_own_buffer(data: Bytes) -> Bytes {
    if data.len() < COPIED_BYTES_MAX { Bytes::copy_from_slice(&data) } else { data }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    /// What h2 counts for a window full of frames with so many bytes of data.
    fn counted(window_bytes: u32, frame_bytes: usize) -> usize {
        (window_bytes as usize).div_ceil(frame_bytes) * (FRAME_OVERHEAD_BYTES - frame_bytes)
    }

    #[test]
    fn streams_that_are_not_read_fill_their_windows_and_end_no_connection() {
        assert!(counted(STREAM_WINDOW_BYTES, 1) <= BACKEND_FRAMES_BYTES_MAX);
        assert!(counted(CONNECTION_WINDOW_BYTES, 4) <= BACKEND_FRAMES_BYTES_MAX);
        assert!(counted(STREAM_WINDOW_BYTES, 4) <= CLIENT_FRAMES_BYTES_MAX);
        assert!(counted(CONNECTION_WINDOW_BYTES, 16) <= CLIENT_FRAMES_BYTES_MAX);
    }
}

//! The connection of a probe: a socket that gives only so much to read, and its polite end.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// With TLS or without.
pub(super) type Stream = Box<dyn ReadWrite>;

pub(super) trait ReadWrite: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> ReadWrite for S {}

/// Says goodbye (TLS close_notify, then FIN) and closes. Waits for nothing: what the probe found out is known, and a
/// backend that does not read cannot hold it.
pub(super) async fn close(mut stream: impl ReadWrite) {
    let _ = timeout(Duration::ZERO, stream.shutdown()).await;
}

/// A socket of which only so many bytes can be read; then reading fails with [`io::ErrorKind::InvalidData`]. The read
/// that reaches the limit is whole, so it is passed by less than a reader's buffer.
pub(super) struct Bounded {
    socket: TcpStream,
    bytes_left: usize,
}

impl Bounded {
    pub(super) fn new(socket: TcpStream, bytes_max: usize) -> Self {
        Self { socket, bytes_left: bytes_max }
    }
}

impl AsyncRead for Bounded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.bytes_left == 0 {
            let error = io::Error::new(io::ErrorKind::InvalidData, "more bytes than a probe reads");
            return Poll::Ready(Err(error));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(cx, buf))?;
        self.bytes_left = self.bytes_left.saturating_sub(buf.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

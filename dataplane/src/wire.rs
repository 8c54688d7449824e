//! A byte stream, plain or TLS, that one task reads and writes at the same time.
//!
//! A connection belongs to one task, so its two directions need no lock: each poll borrows the stream for its own
//! duration. That is what lets a request's body go up while its response comes down, without a second task.

use bytes::BytesMut;
use socket2::{SockRef, TcpKeepalive};
use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

/// How long a reset may be behind the end of a connection: 50 ms in all.
const REFUSAL_WAITS: [Duration; 5] = [
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(5),
    Duration::from_millis(12),
    Duration::from_millis(30),
];

/// What carries the bytes.
#[derive(Debug)]
pub(crate) enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Io {
    pub(crate) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(io) => io,
            Self::Tls(io) => io.get_ref().0,
        }
    }
}

/// A vanished peer is noticed within two minutes.
pub(crate) fn keep_alive() -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(15))
        .with_retries(4)
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Self::Tls(io) => Pin::new(io).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_flush(cx),
            Self::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Self::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}

/// A stream whose two directions are used at once by the one task that owns it.
#[derive(Debug)]
pub(crate) struct Wire {
    io: RefCell<Io>,
}

impl Wire {
    pub(crate) fn new(io: Io) -> Self {
        Self { io: RefCell::new(io) }
    }

    pub(crate) fn into_inner(self) -> Io {
        self.io.into_inner()
    }

    /// Appends what has arrived to the free capacity of `buf`; 0 is the end. Cancellation safe.
    pub(crate) async fn read(&self, buf: &mut BytesMut) -> io::Result<usize> {
        poll_fn(|cx| {
            let mut io = self.io.borrow_mut();
            match &mut *io {
                Io::Plain(io) => pin!(io.read_buf(buf)).poll(cx),
                Io::Tls(io) => pin!(io.read_buf(buf)).poll(cx),
            }
        })
        .await
    }

    /// Writes `head`, then `body`, with as few system calls as the kernel allows, and flushes.
    pub(crate) async fn write(&self, mut head: &[u8], mut body: &[u8]) -> io::Result<()> {
        while !head.is_empty() || !body.is_empty() {
            let written = poll_fn(|cx| {
                let mut io = self.io.borrow_mut();
                let io = Pin::new(&mut *io);
                match (head, body) {
                    (head, []) => io.poll_write(cx, head),
                    ([], body) => io.poll_write(cx, body),
                    (head, body) => io.poll_write_vectored(cx, &[IoSlice::new(head), IoSlice::new(body)]),
                }
            })
            .await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            let from_head = written.min(head.len());
            head = &head[from_head..];
            body = &body[written - from_head..];
        }
        // Only TLS holds bytes back.
        poll_fn(|cx| match &mut *self.io.borrow_mut() {
            Io::Plain(_) => Poll::Ready(Ok(())),
            Io::Tls(io) => Pin::new(io).poll_flush(cx),
        })
        .await
    }

    /// Says that nothing more will be written.
    pub(crate) async fn shutdown(&self) -> io::Result<()> {
        poll_fn(|cx| Pin::new(&mut *self.io.borrow_mut()).poll_shutdown(cx)).await
    }

    /// Has the system find out by itself when the other side has vanished: nothing else would tell while both are
    /// silent.
    pub(crate) fn keep_alive(&self) {
        // A socket that cannot be set up so still works.
        let _ = SockRef::from(self.io.borrow().socket()).set_tcp_keepalive(&keep_alive());
    }

    /// Makes the close that follows a reset, so that what was sent cannot pass for whole.
    pub(crate) fn reset_on_close(&self) {
        let _ = SockRef::from(self.io.borrow().socket()).set_linger(Some(Duration::ZERO));
    }

    /// Waits until there is something to read, an end or an error, without a buffer of the caller's. May return
    /// early; the read that follows decides.
    pub(crate) async fn readable(&self) {
        poll_fn(|cx| match &mut *self.io.borrow_mut() {
            Io::Plain(io) => io.poll_read_ready(cx).map(drop),
            Io::Tls(io) => Pin::new(io).poll_fill_buf(cx).map(drop),
        })
        .await;
    }

    /// Waits until the other side has closed or broken the connection. Bytes that arrive meanwhile stay where
    /// they are, and end the watch: what follows them cannot be seen.
    pub(crate) async fn closed(&self) {
        poll_fn(|cx| {
            let end = match &mut *self.io.borrow_mut() {
                Io::Plain(io) => {
                    let mut one = [0];
                    ready!(io.poll_peek(cx, &mut ReadBuf::new(&mut one))).map(|n| n == 0)
                }
                Io::Tls(io) => ready!(Pin::new(io).poll_fill_buf(cx)).map(<[u8]>::is_empty),
            };
            if end.unwrap_or(true) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Whether the other side, after its end, sent a reset: it had closed the connection before our bytes came, and threw
    /// them away. Waits for that reset as long as it may be on its way.
    ///
    /// Linux tells the two resets apart: one that follows an end is a broken pipe, another a connection reset.
    pub(crate) async fn was_refused(&self) -> bool {
        // Over TLS we may answer the end with a record of our own, and that would be reset just as well.
        if matches!(&*self.io.borrow(), Io::Tls(_)) {
            return false;
        }
        let broken = || self.io.borrow().socket().take_error();
        for wait in REFUSAL_WAITS {
            match broken() {
                Ok(None) => tokio::time::sleep(wait).await,
                Ok(Some(error)) => return error.kind() == io::ErrorKind::BrokenPipe,
                Err(_) => return false,
            }
        }
        false
    }

    /// False when the other side has closed, or has sent what nobody asked for: a kept connection is then of no
    /// use. Costs no system call while nothing happened.
    pub(crate) fn is_quiet(&self) -> bool {
        match &mut *self.io.borrow_mut() {
            Io::Plain(io) => {
                matches!(io.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            }
            // Tickets come after the handshake, and are no answer: what counts is what is left when they were read.
            Io::Tls(io) => {
                let mut cx = Context::from_waker(Waker::noop());
                Pin::new(io).poll_fill_buf(&mut cx).is_pending()
            }
        }
    }
}

/// What a future gives without waiting; `None` where it would have to. The future must be cancellation safe.
pub(crate) async fn poll_once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

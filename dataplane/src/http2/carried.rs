//! A stream that carries another protocol, as bytes both ways.

use super::{in_its_own_buffer, send_all};
use bytes::Bytes;
use h2::{RecvStream, SendStream};
use std::future::poll_fn;
use std::io;

/// Both directions of a stream, after its heads.
#[derive(Debug)]
pub(crate) struct Carried {
    pub(crate) incoming: Incoming,
    pub(crate) outgoing: Outgoing,
}

impl Carried {
    pub(crate) fn new(send: SendStream<Bytes>, receive: RecvStream) -> Self {
        let incoming = Incoming { stream: receive, held_bytes: 0 };
        Self { incoming, outgoing: Outgoing { stream: send } }
    }
}

/// What the other side sends. Dropped before its end together with [`Outgoing`], the stream is reset (CANCEL).
#[derive(Debug)]
pub(crate) struct Incoming {
    stream: RecvStream,
    /// Bytes that were given out and that the other side may not send again yet.
    held_bytes: usize,
}

impl Incoming {
    /// The next bytes; `None` at the end. Cancellation safe.
    ///
    /// Whoever asks for more has passed on what came before: so much may come again.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let _ = self.stream.flow_control().release_capacity(std::mem::take(&mut self.held_bytes));
            match poll_fn(|cx| self.stream.poll_data(cx)).await {
                Some(Ok(data)) if data.is_empty() => {}
                Some(Ok(data)) => {
                    self.held_bytes = data.len();
                    return Ok(Some(data));
                }
                Some(Err(_)) => return Err(io::ErrorKind::ConnectionReset.into()),
                None => return Ok(None),
            }
        }
    }
}

/// What is sent to the other side.
#[derive(Debug)]
pub(crate) struct Outgoing {
    stream: SendStream<Bytes>,
}

impl Outgoing {
    /// Sends bytes as the other side's window allows.
    pub(crate) async fn write(&mut self, data: Bytes) -> io::Result<()> {
        let mut data = in_its_own_buffer(data);
        send_all(&mut self.stream, &mut data, false).await.map_err(|_| io::ErrorKind::ConnectionReset.into())
    }

    /// Says that nothing more will be sent.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        self.stream.send_data(Bytes::new(), true).map_err(|_| io::ErrorKind::ConnectionReset.into())
    }

    /// Waits until the other side has reset the stream. Cancellation safe.
    pub(crate) async fn gone(&mut self) {
        let _ = poll_fn(|cx| self.stream.poll_reset(cx)).await;
    }
}

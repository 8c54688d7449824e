//! The exchange with a backend: request up, response down, both at once where both have bodies.

use crate::connection::STALL_TIMEOUT;
use crate::failure::Failure;
use crate::http1::body::{BodyError, Decoder};
use crate::http1::client::{self, Connection, HeadError};
use crate::http1::encode;
use crate::http1::head::{ParsedResponse, Persistence};
use crate::message::{BodyLength, Frame, RequestBody, RequestHead, ResponseSink, Upgrade};
use crate::timer::Deadline;
use crate::wire::{Wire, poll_once};
use http::StatusCode;
use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;
use tokio::net::TcpStream;

/// Body data up to this size waits for more, to be written together.
const GATHER_BYTES_MAX: usize = 8 << 10;

/// Connects to a backend within `limit`.
pub(crate) async fn connect(
    address: SocketAddr,
    limit: Duration,
    deadline: &Deadline,
) -> Result<Connection, Failure> {
    deadline.set(Some(limit));
    let stream = tokio::select! { biased;
        stream = TcpStream::connect(address) => stream.map_err(|_| Failure::ConnectFailed)?,
        () = deadline.passed() => return Err(Failure::ConnectTimeout),
    };
    stream.set_nodelay(true).map_err(|_| Failure::ConnectFailed)?;
    Ok(Connection::new(stream))
}

/// How an exchange ended well.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exchanged {
    pub(crate) status: StatusCode,
    pub(crate) then: Then,
}

/// What the connection is good for after an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// The next exchange.
    Keep,
    /// Nothing.
    Close,
    /// The protocol that both sides agreed on.
    Tunnel,
}

/// How an exchange failed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Broken {
    pub(crate) failure: Failure,
    /// The connection ended before a byte of the answer came, and none of the request's body was used up.
    pub(crate) can_be_sent_again: bool,
}

impl From<Failure> for Broken {
    fn from(failure: Failure) -> Self {
        Self { failure, can_be_sent_again: false }
    }
}

/// Sends a request and passes its response on. `limit` is the time until the response's head, from when the
/// request last moved.
pub(crate) async fn exchange(
    connection: &mut Connection,
    head: &RequestHead,
    body: &mut impl RequestBody,
    sink: &mut impl ResponseSink,
    deadline: &Deadline,
    limit: Option<Duration>,
) -> Result<Exchanged, Broken> {
    deadline.set(limit);
    let Connection { wire, buf } = connection;
    let touched = Cell::new(false);
    let progress = || {
        touched.set(true);
        deadline.set(limit);
    };
    let mut upload = pin!(upload(wire, head, body, progress));
    let mut sent: Option<Sent> = None;
    // 1. The response's head. The request's body may still be on its way when it comes.
    let response = loop {
        let received = tokio::select! { biased;
            end = &mut upload, if sent.is_none() => {
                sent = Some(end?);
                continue;
            }
            received = client::read_head(wire, buf, &head.method) => received,
            () = sink.gone(), if sent.is_some() => return Err(Failure::ClientGone.into()),
            () = deadline.passed() => return Err(Failure::BackendTimeout.into()),
        };
        let response = received.map_err(|error| no_head(error, touched.get()))?;
        match interim_or_final(response, head.upgrade)? {
            Answer::Interim(response) => sink.interim(response.head.status, response.head.headers).await?,
            Answer::Final(response) => break response,
        }
    };
    // 2. Its body.
    let status = response.head.status;
    let persistence = response.persistence;
    sink.head(response.head).await?;
    if status == StatusCode::SWITCHING_PROTOCOLS {
        sink.flush().await?;
        return Ok(Exchanged { status, then: Then::Tunnel });
    }
    let mut decoder = Decoder::new(response.framing);
    {
        let reader = client::body(wire, buf, &mut decoder);
        let mut download = pin!(download(reader, sink, deadline));
        loop {
            tokio::select! { biased;
                end = &mut download => break end?,
                end = &mut upload, if sent.is_none() => sent = Some(end?),
                () = deadline.passed() => return Err(Failure::BackendTimeout.into()),
            }
        }
    }
    let reusable = sent == Some(Sent::Whole) && persistence == Persistence::Keep && buf.is_empty();
    if reusable {
        // An idle connection holds no buffer.
        *buf = bytes::BytesMut::new();
    }
    Ok(Exchanged { status, then: if reusable { Then::Keep } else { Then::Close } })
}

/// How much of the request the backend took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    Whole,
    /// It stopped reading; its answer may be there all the same (413, say).
    Part,
}

/// Writes the request. Fails only for the client's part: that the backend stops reading is not the end.
async fn upload(
    wire: &Wire,
    head: &RequestHead,
    body: &mut impl RequestBody,
    progress: impl Fn(),
) -> Result<Sent, Failure> {
    let taken = |written: io::Result<()>| if written.is_ok() { Sent::Whole } else { Sent::Part };
    let mut out = Vec::with_capacity(1024);
    client::encode_head(&mut out, head);
    if head.body == BodyLength::Empty {
        return Ok(taken(wire.write(&out, &[]).await));
    }
    let chunked = head.body == BodyLength::Unknown;
    let mut trailers = None;
    loop {
        let next = match poll_once(body.next()).await {
            Some(next) => next?,
            None => {
                if wire.write(&out, &[]).await.is_err() {
                    return Ok(Sent::Part);
                }
                out.clear();
                body.next().await?
            }
        };
        progress();
        match next {
            Some(Frame::Data(data)) if data.is_empty() => {}
            Some(Frame::Data(data)) => {
                if chunked {
                    encode::chunk_size(&mut out, data.len());
                }
                if out.len() + data.len() <= GATHER_BYTES_MAX {
                    out.extend_from_slice(&data);
                } else {
                    if wire.write(&out, &data).await.is_err() {
                        return Ok(Sent::Part);
                    }
                    out.clear();
                }
                if chunked {
                    out.extend_from_slice(b"\r\n");
                }
            }
            Some(Frame::Trailers(fields)) => trailers = Some(fields),
            None => {
                if chunked {
                    encode::last_chunk(&mut out, trailers.as_ref());
                }
                return Ok(taken(wire.write(&out, &[]).await));
            }
        }
    }
}

/// Passes the response's body on. Whatever is there already goes out together with the head.
async fn download(
    mut reader: crate::http1::body::BodyReader<'_>,
    sink: &mut impl ResponseSink,
    deadline: &Deadline,
) -> Result<(), Failure> {
    let mut trailers = None;
    loop {
        deadline.set(Some(STALL_TIMEOUT));
        let next = match poll_once(reader.next()).await {
            Some(next) => next,
            None => {
                sink.flush().await?;
                reader.next().await
            }
        };
        let next = next.map_err(|error| match error {
            BodyError::Invalid(what) => Failure::BackendInvalid(what),
            BodyError::Cut => Failure::BackendClosed,
        })?;
        match next {
            Some(Frame::Data(data)) => sink.data(data).await?,
            Some(Frame::Trailers(fields)) => trailers = Some(fields),
            None => return sink.end(trailers).await,
        }
    }
}

enum Answer {
    Interim(ParsedResponse),
    Final(ParsedResponse),
}

fn interim_or_final(response: ParsedResponse, upgrade: Upgrade) -> Result<Answer, Failure> {
    match (response.head.status, upgrade) {
        (StatusCode::SWITCHING_PROTOCOLS, Upgrade::WebSocket) => Ok(Answer::Final(response)),
        (StatusCode::SWITCHING_PROTOCOLS, Upgrade::No) => {
            Err(Failure::BackendInvalid("it switches protocols without being asked"))
        }
        (status, _) if status.is_informational() => Ok(Answer::Interim(response)),
        _ => Ok(Answer::Final(response)),
    }
}

fn no_head(error: HeadError, touched: bool) -> Broken {
    match error {
        HeadError::Nothing => Broken { failure: Failure::BackendClosed, can_be_sent_again: !touched },
        HeadError::Cut => Failure::BackendClosed.into(),
        HeadError::Invalid(what) => Failure::BackendInvalid(what).into(),
    }
}

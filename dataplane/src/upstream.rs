//! The exchange with a backend: request up, response down, both at once where both have bodies.

use crate::connection::STALL_TIMEOUT;
use crate::failure::Failure;
use crate::http1::body::{BodyError, BodyReader, Decoder};
use crate::http1::client::{self, Connection, HeadError};
use crate::http1::head::{ParsedResponse, Persistence};
use crate::http1::writer::Writer;
use crate::message::{BodyLength, Frame, RequestBody, RequestHead, ResponseHead, ResponseSink, Upgrade};
use crate::timer::Deadline;
use crate::wire::{Wire, poll_once};
use http::StatusCode;
use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;
use tokio::net::TcpStream;

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
/// request last moved; `None` waits for ever once the request is sent. `answered` sees the response's head.
pub(crate) async fn exchange(
    connection: &mut Connection,
    head: &RequestHead,
    body: &mut impl RequestBody,
    sink: &mut impl ResponseSink,
    deadline: &Deadline,
    limit: Option<Duration>,
    answered: impl FnOnce(&ResponseHead),
) -> Result<Exchanged, Broken> {
    let Connection { wire, buf } = connection;
    let progress = Progress::new(deadline, limit);
    let mut sent = None;
    let mut upload = pin!(upload(wire, head, body, &progress));
    // 1. The response's head. The request's body may still be on its way when it comes.
    let response = loop {
        let received = tokio::select! { biased;
            end = &mut upload, if sent.is_none() => {
                sent = Some(end?);
                progress.request_sent();
                continue;
            }
            received = client::read_head(wire, buf, &head.method) => received,
            () = sink.gone(), if sent.is_some() => return Err(Failure::ClientGone.into()),
            () = deadline.passed() => return Err(progress.stalled().into()),
        };
        let response = received.map_err(|error| no_head(error, &progress))?;
        match interim_or_final(response, head.upgrade)? {
            Answer::Interim(ParsedResponse { head, .. }) => {
                progress.answer_began.set(true);
                let passed_on = deadline.within(STALL_TIMEOUT, sink.interim(head.status, head.headers)).await;
                passed_on.ok_or(Failure::ClientGone)??;
                progress.moved();
            }
            Answer::Final(response) => break response,
        }
    };
    // 2. Its body.
    let (status, persistence) = (response.head.status, response.persistence);
    answered(&response.head);
    if sent.is_none() {
        // Whether the rest of the request will still be read is not known when the head goes out.
        sink.close_after();
    }
    progress.response_began();
    sink.head(response.head).await?;
    if status == StatusCode::SWITCHING_PROTOCOLS {
        deadline.within(STALL_TIMEOUT, sink.flush()).await.ok_or(Failure::ClientGone)??;
        return Ok(Exchanged { status, then: Then::Tunnel });
    }
    let mut decoder = Decoder::new(response.framing);
    {
        let reader = client::body(wire, buf, &mut decoder);
        let mut download = pin!(download(reader, sink, &progress));
        loop {
            tokio::select! { biased;
                end = &mut download => break end?,
                end = &mut upload, if sent.is_none() => sent = Some(end?),
                () = deadline.passed() => return Err(progress.stalled().into()),
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

/// How far an exchange has come, and how long it may stand still there.
struct Progress<'a> {
    deadline: &'a Deadline,
    /// Until the response's head, once the request is sent.
    limit: Option<Duration>,
    /// How long nothing may move, at present.
    patience: Cell<Option<Duration>>,
    /// Some of the request's body was used up.
    body_began: Cell<bool>,
    /// Something of the response was seen.
    answer_began: Cell<bool>,
    /// What stands still is the client.
    waits_for_client: Cell<bool>,
}

impl<'a> Progress<'a> {
    fn new(deadline: &'a Deadline, limit: Option<Duration>) -> Self {
        let no = || Cell::new(false);
        let patience = Cell::new(limit.or(Some(STALL_TIMEOUT)));
        let progress =
            Self { deadline, limit, patience, body_began: no(), answer_began: no(), waits_for_client: no() };
        progress.moved();
        progress
    }

    fn moved(&self) {
        self.deadline.set(self.patience.get());
    }

    fn request_sent(&self) {
        self.patience.set(self.limit);
        self.moved();
    }

    fn response_began(&self) {
        self.patience.set(Some(STALL_TIMEOUT));
        self.moved();
    }

    /// Whose fault it is that the deadline passed.
    fn stalled(&self) -> Failure {
        if self.waits_for_client.get() { Failure::RequestSlow } else { Failure::BackendTimeout }
    }
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
    progress: &Progress<'_>,
) -> Result<Sent, Failure> {
    let taken = |written: io::Result<()>| if written.is_ok() { Sent::Whole } else { Sent::Part };
    let mut out = Vec::with_capacity(1024);
    let mut writer = Writer::new(wire, &mut out);
    client::encode_head(writer.out, head);
    if matches!(head.body, BodyLength::Empty | BodyLength::Known(0)) {
        return Ok(taken(writer.flush().await));
    }
    writer.chunked = head.body == BodyLength::Unknown;
    let mut trailers = None;
    loop {
        let next = match poll_once(body.next()).await {
            Some(next) => next?,
            None => {
                if writer.flush().await.is_err() {
                    return Ok(Sent::Part);
                }
                progress.waits_for_client.set(true);
                let next = body.next().await?;
                progress.waits_for_client.set(false);
                next
            }
        };
        progress.moved();
        progress.body_began.set(progress.body_began.get() || next.is_some());
        match next {
            Some(Frame::Data(data)) => {
                if writer.data(&data).await.is_err() {
                    return Ok(Sent::Part);
                }
            }
            Some(Frame::Trailers(fields)) => trailers = Some(fields),
            None => return Ok(taken(writer.end(trailers.as_ref()).await)),
        }
    }
}

/// Passes the response's body on. Whatever is there already goes out together with the head.
async fn download(
    mut reader: BodyReader<'_>,
    sink: &mut impl ResponseSink,
    progress: &Progress<'_>,
) -> Result<(), Failure> {
    let mut trailers = None;
    loop {
        let next = match poll_once(reader.next()).await {
            Some(next) => next,
            None => {
                sink.flush().await?;
                tokio::select! { biased;
                    next = reader.next() => next,
                    () = sink.gone() => return Err(Failure::ClientGone),
                }
            }
        };
        progress.moved();
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

fn no_head(error: HeadError, progress: &Progress<'_>) -> Broken {
    match error {
        HeadError::Nothing => {
            let can_be_sent_again = !progress.body_began.get() && !progress.answer_began.get();
            Broken { failure: Failure::BackendClosed, can_be_sent_again }
        }
        HeadError::Cut => Failure::BackendClosed.into(),
        HeadError::Invalid(what) => Failure::BackendInvalid(what).into(),
    }
}

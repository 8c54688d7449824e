//! The exchange with a backend: request up, response down, both at once where both have bodies.

use crate::course::{Course, Step};
use crate::failure::Failure;
use crate::link::{Answer, Down, NoAnswer, Stopped, Up};
use crate::message::{
    BodyError, BodyLength, Frame, RequestBody, RequestHead, ResponseHead, ResponseSink, Upgrade,
};
use crate::wire::poll_once;
use http::StatusCode;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use tokio::net::TcpStream;

/// Interim responses (1xx) of one exchange; the backend's answer is taken for none past it.
const INTERIM_RESPONSES_MAX: usize = 64;

/// Connects to a backend.
pub(crate) async fn connect(address: SocketAddr, step: &Step<'_>) -> Result<TcpStream, Failure> {
    let stream = step.within(TcpStream::connect(address)).await.ok_or(Failure::ConnectTimeout)?;
    let stream = stream.map_err(|_| Failure::ConnectFailed)?;
    stream.set_nodelay(true).map_err(|_| Failure::ConnectFailed)?;
    Ok(stream)
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Broken {
    pub(crate) failure: Failure,
    pub(crate) reach: Reach,
    /// The connection ended before a byte of an answer came.
    pub(crate) is_silent: bool,
}

/// How far a request came that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The backend cannot have acted on it: sending it again does no harm, whatever it asks.
    Untouched,
    /// The backend may have acted on it, and nothing of an answer went on to the client.
    Unknown,
    /// It cannot be sent again: the client is gone, or has seen some of the answer.
    Over,
}

impl From<Failure> for Broken {
    fn from(failure: Failure) -> Self {
        Self { failure, reach: Reach::Over, is_silent: false }
    }
}

impl Broken {
    /// The connection took no request.
    pub(crate) fn refused() -> Self {
        Self { failure: Failure::BackendClosed, reach: Reach::Untouched, is_silent: true }
    }
}

/// What becomes of a response, by its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The client gets it.
    PassOn,
    /// It is dropped, and the request sent again.
    TryAgain,
}

/// Sends a request and passes its response on. `judge` sees the response's head before the client does, may change it,
/// and may refuse it.
pub(crate) async fn exchange(
    (up, mut down): (impl Up, impl Down),
    head: &RequestHead,
    body: &mut impl RequestBody,
    sink: &mut impl ResponseSink,
    course: &Course<'_>,
    judge: impl FnOnce(&mut ResponseHead) -> Verdict,
) -> Result<Exchanged, Broken> {
    course.begin_sending();
    let mut upload = pin!(upload(up, head, body, course));
    let mut sent = None;
    // 1. The response's head. The request's body may still be on its way when it comes.
    let (Answer { head: mut response, keeps }, is_repeatable) =
        answer(&mut down, (upload.as_mut(), &mut sent), head.upgrade, sink, course).await?;
    if judge(&mut response) == Verdict::TryAgain && is_repeatable {
        let failure = Failure::BackendUnwilling(response.status);
        return Err(Broken { failure, reach: Reach::Unknown, is_silent: false });
    }
    let status = response.status;
    if sent.is_none() {
        // Whether the rest of the request will still be read is not known when the head goes out.
        sink.close_after();
    }
    course.response_began();
    sink.head(response).await?;
    if status == StatusCode::SWITCHING_PROTOCOLS {
        tokio::select! { biased;
            flushed = sink.flush() => flushed?,
            () = course.deadline().passed() => return Err(Failure::ClientGone.into()),
        }
        return Ok(Exchanged { status, then: Then::Tunnel });
    }
    // 2. Its body.
    {
        let mut download = pin!(download(&mut down, sink, course));
        loop {
            tokio::select! { biased;
                end = &mut download => break end?,
                end = upload.as_mut(), if sent.is_none() => sent = Some(end?),
                () = course.deadline().passed() => return Err(course.stalled().into()),
            }
        }
    }
    let then = if keeps && sent == Some(Sent::Whole) { Then::Keep } else { Then::Close };
    Ok(Exchanged { status, then })
}

/// Waits for the response's head while the request goes up, and passes interim ones on. Gives whether the request may still
/// be sent again, which it may not once the client has seen something.
async fn answer(
    down: &mut impl Down,
    (mut upload, sent): (Pin<&mut impl Future<Output = Result<Sent, Failure>>>, &mut Option<Sent>),
    upgrade: Upgrade,
    sink: &mut impl ResponseSink,
    course: &Course<'_>,
) -> Result<(Answer, bool), Broken> {
    let (mut is_repeatable, mut interim) = (true, 0);
    let broken = |failure, is_repeatable: bool| {
        let reach = if is_repeatable { Reach::Unknown } else { Reach::Over };
        Broken { failure, reach, is_silent: false }
    };
    loop {
        let received = tokio::select! { biased;
            end = upload.as_mut(), if sent.is_none() => {
                *sent = Some(end?);
                course.request_sent();
                continue;
            }
            received = down.head() => received,
            () = sink.gone(), if sent.is_some() => return Err(Failure::ClientGone.into()),
            () = course.deadline().passed() => return Err(broken(course.stalled(), is_repeatable)),
        };
        let answer = match received {
            Ok(answer) => answer,
            Err(error) if is_repeatable => return Err(no_answer(error, down).await),
            Err(error) => return Err(failure_of(error).into()),
        };
        if !is_interim(answer.head.status, upgrade).map_err(|failure| broken(failure, is_repeatable))? {
            return Ok((answer, is_repeatable));
        }
        is_repeatable = false;
        interim += 1;
        if interim > INTERIM_RESPONSES_MAX {
            return Err(broken(Failure::BackendInvalid("it has too many interim responses"), is_repeatable));
        }
        course.moved();
        tokio::select! { biased;
            passed_on = sink.interim(answer.head.status, answer.head.headers) => passed_on?,
            () = course.deadline().passed() => return Err(Failure::ClientGone.into()),
        }
        course.moved();
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
    mut up: impl Up,
    head: &RequestHead,
    body: &mut impl RequestBody,
    course: &Course<'_>,
) -> Result<Sent, Failure> {
    let taken = |written: Result<(), Stopped>| if written.is_ok() { Sent::Whole } else { Sent::Part };
    if matches!(head.body, BodyLength::Empty | BodyLength::Known(0)) {
        return Ok(taken(up.end(None).await));
    }
    let mut trailers = None;
    loop {
        let next = match poll_once(body.next()).await {
            Some(next) => next?,
            None => {
                if up.flush().await.is_err() {
                    return Ok(Sent::Part);
                }
                course.wait_for_client(true);
                let next = body.next().await?;
                course.wait_for_client(false);
                next
            }
        };
        match next {
            Some(Frame::Data(data)) => {
                if up.data(data).await.is_err() {
                    return Ok(Sent::Part);
                }
            }
            Some(Frame::Trailers(fields)) => trailers = Some(fields),
            None => return Ok(taken(up.end(trailers).await)),
        }
    }
}

/// Passes the response's body on. Whatever is there already goes out together with the head.
async fn download(
    down: &mut impl Down,
    sink: &mut impl ResponseSink,
    course: &Course<'_>,
) -> Result<(), Failure> {
    let mut trailers = None;
    loop {
        let next = match poll_once(down.next()).await {
            Some(next) => next,
            None => {
                sink.flush().await?;
                tokio::select! { biased;
                    next = down.next() => next,
                    () = sink.gone() => return Err(Failure::ClientGone),
                }
            }
        };
        course.moved();
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

fn is_interim(status: StatusCode, upgrade: Upgrade) -> Result<bool, Failure> {
    match (status, upgrade) {
        (StatusCode::SWITCHING_PROTOCOLS, Upgrade::WebSocket) => Ok(false),
        (StatusCode::SWITCHING_PROTOCOLS, Upgrade::No) => {
            Err(Failure::BackendInvalid("it switches protocols without being asked"))
        }
        (status, _) => Ok(status.is_informational()),
    }
}

async fn no_answer(error: NoAnswer, down: &mut impl Down) -> Broken {
    let is_untouched = match error {
        NoAnswer::Refused => true,
        NoAnswer::Nothing => down.is_untouched().await,
        NoAnswer::Cut | NoAnswer::Invalid(_) => false,
    };
    let reach = if is_untouched { Reach::Untouched } else { Reach::Unknown };
    let is_silent = matches!(error, NoAnswer::Refused | NoAnswer::Nothing);
    Broken { failure: failure_of(error), reach, is_silent }
}

fn failure_of(error: NoAnswer) -> Failure {
    match error {
        NoAnswer::Refused | NoAnswer::Nothing | NoAnswer::Cut => Failure::BackendClosed,
        NoAnswer::Invalid(what) => Failure::BackendInvalid(what),
    }
}

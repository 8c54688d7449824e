//! A request and a response as the stages see them, whatever protocol they came by.
//!
//! Three shapes are kept apart on purpose: heads are values, bodies are streams of [`Frame`]s read through
//! [`RequestBody`], and the response goes out through a [`ResponseSink`]. The two traits are the only generic
//! edge of the request path; HTTP/1 and HTTP/2 downstream implement them.

use crate::failure::Failure;
use bytes::Bytes;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, Method, StatusCode, Version};
use lb_core::path::{self, PathPolicy};
use std::borrow::Cow;

/// A request without its body.
#[derive(Debug)]
pub(crate) struct RequestHead {
    /// That the client speaks: 1.0, 1.1 or 2.
    pub(crate) version: Version,
    pub(crate) method: Method,
    /// What the client called us; without user information. Never empty, save for HTTP/1.0.
    pub(crate) authority: Option<Authority>,
    pub(crate) target: PathAndQuery,
    /// Without `Host`, hop-by-hop fields and framing.
    pub(crate) headers: HeaderMap,
    pub(crate) body: BodyLength,
    /// Whether the client asks to speak WebSocket from here on, on this connection or, over HTTP/2, on this stream.
    pub(crate) upgrade: Upgrade,
}

/// Whether a request asks for another protocol. Agreed to with 101, whatever protocols are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Upgrade {
    No,
    WebSocket,
}

impl RequestHead {
    /// What routes are matched against. `OPTIONS *` asks about the server as a whole, which is its root.
    pub(crate) fn path(&self) -> &str {
        match self.target.path() {
            "*" => "/",
            path => path,
        }
    }

    /// Puts the path into the one form in which routes and the backend read it. Copies nothing where it has that form.
    ///
    /// # Errors
    /// [`Failure::UriTooLong`] where path and query are over so many bytes; [`Failure::BadRequest`] where readers would
    /// take the path in several ways.
    pub(crate) fn settle_target(&mut self, bytes_max: usize, policy: PathPolicy) -> Result<(), Failure> {
        if self.target.as_str().len() > bytes_max {
            return Err(Failure::UriTooLong);
        }
        if self.target == "*" {
            return Ok(());
        }
        let path = path::normalize(self.target.path(), policy);
        let Cow::Owned(mut target) = path.map_err(|error| Failure::BadRequest(error.sentence()))? else {
            return Ok(());
        };
        if let Some(query) = self.target.query() {
            target.push('?');
            target.push_str(query);
        }
        self.target = PathAndQuery::from_maybe_shared(Bytes::from(target))
            .map_err(|_| Failure::BadRequest("The request's target is not a path."))?;
        Ok(())
    }

    /// The host in lower case, without port; empty for HTTP/1.0 without `Host`.
    pub(crate) fn host(&self) -> Cow<'_, str> {
        let host = self.authority.as_ref().map_or("", Authority::host);
        if host.bytes().any(|b| b.is_ascii_uppercase()) {
            Cow::Owned(host.to_ascii_lowercase())
        } else {
            Cow::Borrowed(host)
        }
    }
}

/// A response without its body.
#[derive(Debug)]
pub(crate) struct ResponseHead {
    pub(crate) status: StatusCode,
    /// Without hop-by-hop fields and framing.
    pub(crate) headers: HeaderMap,
    pub(crate) body: BodyLength,
}

impl ResponseHead {
    /// The head of an answer of ours, and what is sent of its body: to HEAD nothing, though its length is announced.
    pub(crate) fn of_ours(
        status: StatusCode,
        headers: HeaderMap,
        body: Bytes,
        method: &Method,
    ) -> (Self, Bytes) {
        let bytes = body.len() as u64;
        if *method == Method::HEAD {
            return (Self { status, headers, body: BodyLength::Announced(Some(bytes)) }, Bytes::new());
        }
        (Self { status, headers, body: BodyLength::Known(bytes) }, body)
    }
}

/// What is known of a body before it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyLength {
    /// There is none, and none is announced.
    Empty,
    /// That many bytes.
    Known(u64),
    /// Known when it ends.
    Unknown,
    /// There is none, though this many are announced: the answer to HEAD, and 304.
    Announced(Option<u64>),
}

/// A piece of a body.
#[derive(Debug)]
pub(crate) enum Frame {
    Data(Bytes),
    /// The last one, where there are any.
    Trailers(HeaderMap),
}

/// Why a body could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// Not what the framing promised; a sentence.
    Invalid(&'static str),
    /// The connection ended or broke before the body did.
    Cut,
}

/// The downstream side's request body.
pub(crate) trait RequestBody {
    /// The next piece, `None` at the end. Cancellation safe.
    ///
    /// # Errors
    /// A [`Failure`] of the client's side.
    async fn next(&mut self) -> Result<Option<Frame>, Failure>;
    /// Whether its end was seen.
    fn has_ended(&self) -> bool;
}

/// The downstream side's response. Small writes are gathered until [`Self::flush`] or [`Self::end`].
///
/// Every method's error means that the client is gone.
pub(crate) trait ResponseSink {
    /// An interim response (100, 103). May be dropped where the protocol cannot carry it.
    async fn interim(&mut self, status: StatusCode, headers: HeaderMap) -> Result<(), Failure>;
    /// The response's head; once, first.
    async fn head(&mut self, head: ResponseHead) -> Result<(), Failure>;
    /// Some of its body.
    async fn data(&mut self, data: Bytes) -> Result<(), Failure>;
    /// Sends what was gathered.
    async fn flush(&mut self) -> Result<(), Failure>;
    /// The response is complete; sends what was gathered.
    async fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(), Failure>;
    /// The client will not be listened to after this answer: say so, where the protocol can. Before the head.
    fn close_after(&mut self);
    /// Waits until the client is gone; may never return. Cancellation safe.
    async fn gone(&mut self);
    /// Whether [`Self::head`] was called: no other answer can be given any more.
    fn has_begun(&self) -> bool;
}

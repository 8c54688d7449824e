//! A connection to a backend as an exchange sees it: one direction up, one down, both used at once by one task.
//!
//! HTTP/1 and HTTP/2 implement the two traits; nothing past them knows which it is.

use crate::message::{BodyError, Frame, ResponseHead};
use bytes::Bytes;
use http::HeaderMap;

/// The backend takes no more of the request; its answer may be there all the same (413, say).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stopped;

/// Towards the backend; the request's head is on its way. Small pieces are gathered until [`Self::flush`] or [`Self::end`].
pub(crate) trait Up {
    /// Some of the body.
    async fn data(&mut self, data: Bytes) -> Result<(), Stopped>;
    /// Sends what was gathered.
    async fn flush(&mut self) -> Result<(), Stopped>;
    /// The request is complete; sends what was gathered.
    async fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(), Stopped>;
}

/// From the backend. Every method is cancellation safe.
pub(crate) trait Down {
    /// The next head: interim ones, then the response's.
    async fn head(&mut self) -> Result<Answer, NoAnswer>;
    /// The next piece of the response's body, `None` at the end.
    async fn next(&mut self) -> Result<Option<Frame>, BodyError>;
    /// Whether the backend cannot have acted on the request although it was sent: asked after a head that did not come.
    async fn is_untouched(&mut self) -> bool;
}

/// A response's head, and whether the connection goes on after it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: ResponseHead,
    pub(crate) keeps: bool,
}

/// Why there is no response's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// The backend says that it has not looked at the request.
    Refused,
    /// The connection ended or broke before a byte of the head came: the request may never have been seen.
    Nothing,
    /// The connection ended or broke in the middle, or the backend gave up this request alone.
    Cut,
    /// Not HTTP; what of it.
    Invalid(&'static str),
}

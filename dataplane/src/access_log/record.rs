//! What a line is made of.

use super::said::Said;
use crate::connection::Scheme;
use crate::failure::Failure;
use crate::sessions::SessionResult;
use crate::tunnel::Ended;
use http::StatusCode;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// nginx's number for a request whose client left before there was an answer. Sent to nobody.
pub(super) const CLIENT_GONE_STATUS: u16 = 499;

/// What came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Request,
    WebSocket,
    /// Of layer 4.
    Connection,
}

/// Why it ended as it did: a code, as `x-weir-reason` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    Failure(&'static str),
    /// Nothing went wrong.
    Word(&'static str),
}

impl Reason {
    /// An end that nobody told of: the process did not wait for it.
    pub(super) const CUT: Self = Self::Failure("cut");

    pub(super) fn code(self) -> &'static str {
        let (Self::Failure(code) | Self::Word(code)) = self;
        code
    }

    /// Of what carries bytes both ways; `None` where both sides ended it.
    pub(super) fn of_end(ended: Ended) -> Option<Self> {
        match ended {
            Ended::Both => None,
            Ended::Broken => Some(Self::Failure("broken")),
            Ended::Idle => Some(Self::Failure("idle")),
            Ended::Asked => Some(Self::Word("asked")),
        }
    }
}

impl From<Failure> for Reason {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure.answer().1)
    }
}

/// How the last backend was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    /// It was not.
    Nothing,
    /// Over a connection that was there.
    Kept,
    /// Over one that took so long to be there.
    New(Duration),
}

/// The last backend that it was on, or that answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Upstream {
    pub(super) backend: SocketAddr,
    /// Name of the set.
    pub(super) set: Arc<str>,
    pub(super) via: Via,
    /// From the begin of the attempt to the head of the answer; `None` where there was none.
    pub(super) first_byte: Option<Duration>,
}

/// Everything that a line may tell.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) kind: Kind,
    /// When its head was there, since 1970.
    pub(super) at: Duration,
    /// From then to its end.
    pub(super) took: Duration,
    /// Of the listener.
    pub(super) port: u16,
    /// Who is connected.
    pub(super) peer: SocketAddr,
    /// As far as trusted proxies told.
    pub(super) client: IpAddr,
    pub(super) scheme: Scheme,
    /// Version of TLS.
    pub(super) tls: Option<&'static str>,
    pub(super) said: Said,
    /// `namespace/pool`.
    pub(super) pool: Option<Arc<str>>,
    /// Name, which may be empty, and position.
    pub(super) rule: Option<(Arc<str>, usize)>,
    /// That was sent; `None` where no head was.
    pub(super) status: Option<StatusCode>,
    pub(super) grpc_status: Option<u8>,
    pub(super) reason: Option<Reason>,
    pub(super) request_bytes: u64,
    pub(super) response_bytes: u64,
    pub(super) attempts: u32,
    pub(super) upstream: Option<Upstream>,
    pub(super) session: Option<SessionResult>,
}

impl Record {
    /// As a number; 0 for a connection of layer 4.
    pub(super) fn status(&self) -> u16 {
        match (self.status, self.kind) {
            (Some(status), _) => status.as_u16(),
            (None, Kind::Connection) => 0,
            (None, _) => CLIENT_GONE_STATUS,
        }
    }

    pub(super) fn is_failure(&self) -> bool {
        matches!(self.reason, Some(Reason::Failure(_))) || self.status() >= 500
    }
}

//! Sessions: requests that belong together go to one backend.
//!
//! What a session remembers is a [`Choice`]: a set and a backend, by hashes that are equal on every proxy. It is kept in
//! a sealed cookie ([`Token`] is what is sealed), or in a [`SessionTable`] by what the client sends anyway.

mod key;
mod rendezvous;
mod table;
mod token;

pub use key::{pool_tag, session_key};
pub use rendezvous::rendezvous;
pub use table::SessionTable;
pub use token::{CHOICES_MAX, TOKEN_BYTES_MAX, Token, TokenError};

use std::sync::Arc;
use std::time::Duration;

/// Where a session's requests go: in which set, to which backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Choice {
    /// [`crate::backend::BackendSet::tag`].
    pub set: u32,
    /// [`crate::backend::Backend::tag`].
    pub backend: u64,
}

/// How the requests of a session are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionSource {
    /// By a cookie of ours, which says the choice itself.
    Sealed(SealedCookie),
    /// By the client's address.
    SourceIp,
    /// By the value of this header, in lower case.
    Header(Arc<str>),
    /// By the value of this cookie, which the application sets.
    Learnt(Arc<str>),
}

/// How a rule keeps sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionPolicy {
    /// How requests are known.
    pub source: SessionSource,
    /// `namespace/name` of the pool: sessions of one pool mean nothing in another.
    pub pool: Arc<str>,
    /// A session that is not used for so long is forgotten; not for [`SessionSource::Sealed`].
    pub idle_timeout: Duration,
    /// Sessions that one process remembers of the pool; not for [`SessionSource::Sealed`].
    pub sessions_max: u32,
}

/// The cookie that we set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedCookie {
    /// Its name.
    pub name: Arc<str>,
    /// `Path`.
    pub path: Arc<str>,
    /// `SameSite`.
    pub same_site: SameSite,
    /// `Secure`; `None`: where the request came over HTTPS.
    pub secure: Option<bool>,
    /// `HttpOnly`.
    pub http_only: bool,
    /// From its issue until it is worth nothing.
    pub lifetime: Duration,
    /// Whether the browser keeps it for that long (`Max-Age`), or until it is closed.
    pub is_permanent: bool,
}

/// Whether a browser sends a cookie from other sites.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SameSite {
    /// Never.
    Strict,
    /// When a link is followed.
    Lax,
    /// Always; only over HTTPS.
    None,
}

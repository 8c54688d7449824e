//! What the compile step has to say about a pool.

use super::ObjectKey;
use std::fmt;

/// One thing that is wrong with a `LoadBalancerPool`, as a sentence for its author.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rejection {
    /// The `LoadBalancerPool`.
    pub pool: ObjectKey,
    /// Where in it, for example `spec.listeners[0].port`; an index counts from 0.
    pub field: String,
    /// What is there, quoted if it is text; empty where nothing is.
    pub value: String,
    /// The rule and what to do; reads on from the value.
    pub rule: String,
    /// For the condition of the pool's status.
    pub reason: Reason,
}

/// Same shape as a rejection, with a milder consequence: the pool serves without what the field points to.
pub type Warning = Rejection;

/// Reasons of conditions, by their names in the Gateway API where it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Against the schema or a rule of the resource.
    Invalid,
    /// Another pool has the same port and host.
    Conflicted,
    /// The Service or its port is not there.
    BackendNotFound,
    /// The Service's port asks for a protocol that is not spoken to backends.
    UnsupportedProtocol,
    /// The Secret is not there or holds no usable certificate and key.
    InvalidCertificateRef,
    /// No ReferenceGrant of the other namespace permits the reference into it.
    RefNotPermitted,
    /// Endpoints, or addresses of a name, cannot be used as they are.
    InvalidEndpoints,
    /// There is more of something than is taken, and the rest is left out.
    LimitReached,
    /// A name in DNS is not there or has no address, or nobody says which.
    NameNotResolved,
    /// Which endpoints there are cannot be read.
    EndpointsUnread,
    /// Which endpoints another cluster has cannot be read.
    ClusterUnreachable,
    /// Another pool says it for the port that they share.
    Overruled,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 12] = [
        Self::Invalid,
        Self::Conflicted,
        Self::BackendNotFound,
        Self::UnsupportedProtocol,
        Self::InvalidCertificateRef,
        Self::RefNotPermitted,
        Self::InvalidEndpoints,
        Self::LimitReached,
        Self::NameNotResolved,
        Self::EndpointsUnread,
        Self::ClusterUnreachable,
        Self::Overruled,
    ];

    /// The reason as conditions spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "Invalid",
            Self::Conflicted => "Conflicted",
            Self::BackendNotFound => "BackendNotFound",
            Self::UnsupportedProtocol => "UnsupportedProtocol",
            Self::InvalidCertificateRef => "InvalidCertificateRef",
            Self::RefNotPermitted => "RefNotPermitted",
            Self::InvalidEndpoints => "InvalidEndpoints",
            Self::LimitReached => "LimitReached",
            Self::NameNotResolved => "NameNotResolved",
            Self::EndpointsUnread => "EndpointsUnread",
            Self::ClusterUnreachable => "ClusterUnreachable",
            Self::Overruled => "Overruled",
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pool, field, value, rule, .. } = self;
        if value.is_empty() {
            write!(f, "{pool}: {field}: {rule}")
        } else {
            write!(f, "{pool}: {field}: {value} {rule}")
        }
    }
}

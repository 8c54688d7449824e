//! What a proxy does that no proxy of this protocol does.

use weir_proto::limits::{POOLS_MAX, PROXY_ID_BYTES_MAX, STUCK_STREAM_TIMEOUT};

/// Why a stream is closed from this end. The text goes to the proxy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Breach {
    /// The first message was another one.
    #[error("the first message of a stream must be Hello: this proxy does not speak weir.push.v1alpha1")]
    HelloMissing,
    /// Hello twice.
    #[error("Hello came twice on one stream: open a new stream to start again")]
    HelloAgain,
    /// A message without a body, or with one from a later protocol.
    #[error("a message has no body that this controller knows: upgrade the controller before the proxies")]
    Unknown,
    /// Outside 1 to [`PROXY_ID_BYTES_MAX`] bytes.
    #[error("proxy_id has {0} bytes, and must have 1 to {PROXY_ID_BYTES_MAX}: name the proxy after its pod")]
    ProxyId(usize),
    /// More than [`POOLS_MAX`].
    #[error("Hello names {0} pools, more than {POOLS_MAX}: one stream carries no more")]
    TooManyPools(usize),
    /// Not the chunk that was sent first of those in flight.
    #[error("ChunkReceived names chunk {index} of {pool}, which is not the oldest one in flight")]
    ChunkOutOfOrder {
        /// As the proxy said it.
        pool: String,
        /// As the proxy said it.
        index: u32,
    },
    /// A version of another epoch.
    #[error("the version acknowledged for {0} is not of this controller process")]
    ForeignVersion(String),
    /// Nothing was acknowledged for [`STUCK_STREAM_TIMEOUT`].
    #[error("nothing was acknowledged for {} s while messages were in flight: dial again to resume", STUCK_STREAM_TIMEOUT.as_secs())]
    Stuck,
}

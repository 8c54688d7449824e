//! What a stream tells about its proxy.

use crate::store::Refusal;
use std::sync::Arc;
use weir_proto::push::{BackendHealth, Demand, HealthSaid, Version};

/// What a message of the proxy told, for the fleet view and the log.
#[derive(Debug, Clone, PartialEq)]
pub enum Report {
    /// The proxy serves the pool at this version.
    Acked {
        /// Which pool.
        pool: Arc<str>,
        /// All messages up to this one are applied.
        version: Version,
        /// Of the configuration in force.
        config_digest: u64,
        /// Whether that is the one last sent.
        is_newest_config: bool,
    },
    /// The proxy refused something.
    Refused {
        /// Which pool.
        pool: Arc<str>,
        /// What and why.
        refusal: Refusal,
    },
    /// The proxy is out of step and gets the whole pool.
    SnapshotRequested {
        /// Which pool.
        pool: Arc<str>,
        /// As the proxy said it.
        reason: String,
    },
    /// A digest report did not match what was sent; the proxy gets the whole pool.
    Diverged {
        /// Which pool.
        pool: Arc<str>,
        /// What differs.
        what: String,
    },
    /// A pool that cannot be sent, since its update is too large.
    TooLarge {
        /// Which pool.
        pool: Arc<str>,
        /// Of the encoded update.
        bytes: usize,
    },
    /// What the proxy found of backends that it checks, for the others of its kind.
    Health(HealthSaid),
    /// What is asked of the proxy under limits that proxies have together.
    Demand(Demand),
    /// Whether a backend takes requests at this proxy.
    Backend(BackendHealth),
}

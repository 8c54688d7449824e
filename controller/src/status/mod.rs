//! What the user sees in `kubectl get lbp`: conditions, counts and Events of each `LoadBalancerPool`.
//!
//! ```text
//! compile -> Verdict -> Board --+
//!                               +-> compute (pure) -> agenda (pure: when) -> writer (server-side apply, Events)
//! proxies -> store's fleet -----+
//! ```
//!
//! Only the holder writes. What a status says depends on the verdict, the fleet and the status before alone, so that
//! two replicas that take turns write the same and nobody rewrites what is there already.

mod agenda;
mod board;
mod compute;
mod events;
mod expiry;
mod health;
mod outages;
pub mod reason;
mod text;
mod verdict;
mod writer;

pub use agenda::{
    BACKOFF_MAX, BACKOFF_MIN, EVALUATE_INTERVAL, FLEET_SETTLING, LAG_INTERVAL, PATIENCE, PATIENCE_MAX,
    REDIAL_PATIENCE, WRITE_INTERVAL,
};
pub use board::Board;
pub use compute::{PROXY_BEHIND_AFTER, compute};
pub use expiry::{EXPIRING_S, EXPIRING_SOON_S};
pub use health::Members;
pub use verdict::{Endpoints, Serving, Verdict};
pub use writer::{CONCURRENT_WRITES_MAX, FIELD_MANAGER, WRITE_TIMEOUT, Writer};

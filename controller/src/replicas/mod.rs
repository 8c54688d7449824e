//! What replicas tell the holder of the Lease: how far the proxies are that have their streams to them.
//!
//! Each proxy has its stream to one replica, and one replica writes status. So every other one dials the holder, whose
//! address is in the Lease, and tells for each pool a summary of its own proxies, again whenever that changes
//! ([`Reporter`]). The holder adds these to its own ([`Service`]); what a replica said counts until its stream ends,
//! since then its proxies dial another.
//!
//! Beside that the others pass on what their proxies ask for of limits that all proxies have together, and the holder
//! answers ([`crate::shares`]).
//!
//! Who may report is who runs as the ServiceAccount that the holder runs as itself: a proxy of the same namespace does
//! not, and what it said would be believed of every pool. Which replica it is, its pod's name says and not its Hello.

mod reporter;
mod service;
mod shares;
mod wire;

pub use reporter::{Peers, REPORT_INTERVAL, Report, Reporter};
pub use service::Entry;
pub(crate) use service::Service;
pub use wire::{Breach, REFUSAL_BYTES_MAX};

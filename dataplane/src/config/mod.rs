//! Configuration: from the push stream to the snapshot in force.
//!
//! ```text
//! stream -> client -> replica (wire, exact) -> convert (checked) -> apply (sockets, snapshot, one swap) -> ack
//!                        ^ at start | once it serves
//!                          disk <---+
//! ```
//!
//! Runs on the control runtime as one task, so that nothing here needs a lock against itself and a large
//! configuration delays no request.

mod apply;
pub mod client;
mod content;
mod convert;
pub mod disk;
#[cfg(fuzzing)]
pub(crate) mod fuzz;
mod hosts;
mod members;
pub mod offline;
mod ports;
pub mod replica;
mod routes;
pub mod shares;
mod status;

pub use apply::Applier;
pub use convert::Rejection;
pub(crate) use status::written;
pub use status::{PoolStatus, Status};

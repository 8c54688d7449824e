//! Weir's data plane.

pub mod counters;
pub mod listener;
pub mod snapshot;

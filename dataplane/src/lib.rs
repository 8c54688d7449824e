//! Weir's data plane: a client's request to a backend, by configuration that is pushed.
//!
//! A request goes through these modules from top to bottom; [`request`] is the one that knows them all:
//! `listener` -> `worker` -> `connection` -> `http1` or `http2` -> `request` -> `forwarding` -> `balance` ->
//! `pool` -> `upstream`.

pub mod counters;
pub mod listener;
pub mod snapshot;

mod balance;
pub mod connection;
mod failure;
mod forwarding;
pub mod http1;
pub mod http2;
mod message;
mod pool;
pub mod request;
mod timer;
mod tunnel;
mod upstream;
mod wire;
mod worker;
pub mod config;
pub mod readiness;
pub mod tls;
pub mod admin;
pub mod metrics;

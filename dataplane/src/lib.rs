//! Weir's data plane: a client's request to a backend, by configuration that is pushed.
//!
//! [`proxy`] says what runs in the process. A request goes through these modules in this order; [`request`] is the
//! one that knows them all: `listener` -> `worker` -> `connection` -> `http1` or `http2` -> `request` ->
//! `forwarding` -> `rates` -> `balance` -> `pool` -> `upstream`. A connection of layer 4 goes from `connection` to `layer4`,
//! which knows the stages in its place.
//!
//! A configuration change comes in by [`config`], becomes a [`snapshot`] and is in force with one pointer swap.
//! [`admin`] and [`metrics`] show what happens, and [`access_log`] what happened; nothing on the request path waits for them.

pub mod proxy;
pub mod signals;
pub mod takeover;

pub mod connection;
pub mod http1;
pub mod http2;
pub mod listener;
pub mod proxied;
pub mod request;

mod affinity;
mod balance;
mod cookie;
mod course;
mod failure;
mod filters;
mod forwarding;
mod grpc;
mod layer4;
mod link;
mod message;
mod outcomes;
mod pool;
mod rates;
mod replay;
mod retry;
mod sources;
mod timer;
mod tunnel;
mod upstream;
mod warm;
mod websocket;
mod wire;
mod worker;

pub mod config;
pub mod ring;
pub mod sessions;
pub mod snapshot;
pub mod tls;

pub mod access_log;
pub mod admin;
pub mod counters;
pub mod explain;
pub mod health;
pub mod metrics;
pub mod readiness;

#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzz;

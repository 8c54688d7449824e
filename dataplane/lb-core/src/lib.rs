//! The pure core of the proxy: what a request is matched against and how a backend is chosen.
//!
//! No I/O, no clock, no global randomness: time and seeds are arguments, so that every decision can be replayed
//! in a table test or a simulation.
//!
//! - [`host`]: what is kept by host, and which host goes first.
//! - [`route`]: host and path to a [`route::Route`], near-constant in the number of routes.
//! - [`backend`]: backend sets, immutable [`backend::Membership`] versions and the [`backend::Live`] state that
//!   survives them.
//! - [`health`]: which backends take requests: checks, shared with other proxies, and what requests tell.
//! - [`balance`]: which backends may take a request and at what share; pickers, one mutable state per worker; what came
//!   of requests, on its way to them.

pub mod backend;
pub mod balance;
pub mod health;
pub mod host;
pub mod route;

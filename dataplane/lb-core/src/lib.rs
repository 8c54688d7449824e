//! The pure core of the proxy: what a request is matched against and how a backend is chosen.
//!
//! No I/O, no clock, no global randomness: time and seeds are arguments, so that every decision can be replayed
//! in a table test or a simulation.
//!
//! - [`addresses`]: who may ask, and whose word on clients counts.
//! - [`host`]: what is kept by host, and which host goes first.
//! - [`path`]: paths in one form, before a route is looked for.
//! - [`route`]: host and path to a [`route::Route`], near-constant in the number of routes.
//! - [`backend`]: backend sets, immutable [`backend::Membership`] versions and the [`backend::Live`] state that
//!   survives them.
//! - [`flows`]: which datagrams belong together, and for how long.
//! - [`health`]: which backends take requests: checks, shared with other proxies, and what requests tell.
//! - [`balance`]: which backends may take a request and at what share; pickers, one mutable state per worker; what came
//!   of requests, on its way to them.
//! - [`rate`]: how many requests there may be in a time, by client or in all.
//! - [`connections`]: which connection to a backend a request takes, and how many are kept.
//! - [`resilience`]: circuit breakers, retry budgets, slots and queues.
//! - [`sessions`]: which backend a client's requests stay with.

pub mod addresses;
pub mod backend;
pub mod balance;
pub mod connections;
pub mod flows;
pub mod health;
pub mod host;
pub mod path;
pub mod rate;
pub mod resilience;
pub mod route;
pub mod sessions;

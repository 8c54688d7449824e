//! The `weir` command: everything that people type.
//!
//! Each subcommand is one module with its flags (`Args`) and one `run` that returns the exit code. Nothing in
//! here decides how traffic flows: that is compiled by `weir-controller` and done by `weir-proxy`.

pub mod access_log;
pub mod cli;
pub mod controller;
pub mod demo_backend;
pub mod dialing;
pub mod duration;
pub mod exit;
pub mod explain;
mod fetch;
pub mod findings;
pub mod follower;
pub mod keys;
pub mod logging;
pub mod names;
#[cfg(test)]
mod reference;
pub mod run;
pub mod serving;
pub mod state;
pub mod status;
pub mod validate;

//! The controller: watch, store, compile, push, status.
//!
//! [`cluster`] follows an API server; [`manifest`] turns text into Kubernetes objects, [`folder`] follows a folder of
//! it, [`source`] is what that hands over. [`compile`] turns objects into wire messages and is pure. [`identity`] says
//! who a proxy is.

pub mod admin;
pub mod cluster;
pub mod compile;
pub mod dns;
pub mod folder;
pub mod identity;
pub mod keys;
pub mod lease;
pub mod manifest;
pub mod metrics;
pub mod push;
pub mod readiness;
pub mod replicas;
pub mod shares;
pub mod source;
pub mod status;
pub mod store;

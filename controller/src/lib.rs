//! The controller: watch, store, compile, push, status.
//!
//! [`manifest`] turns text into Kubernetes objects, [`folder`] follows a folder of it, [`compile`] turns objects
//! into wire messages and is pure; [`source`] is what a source of objects hands over.

pub mod compile;
pub mod folder;
pub mod manifest;
pub mod push;
pub mod source;
pub mod store;

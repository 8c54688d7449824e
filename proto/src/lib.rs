//! The wire between a Weir controller and its proxies.
//!
//! `weir/push/v1alpha1/push.proto` is the source; [`push`] is generated from it and checked in, so that a
//! build needs neither `protoc` nor a build script; `cargo run -p weir-proto-generator` writes it, and a test there
//! fails when the two differ. Beside the messages stand the things that both ends must agree on to the bit: [`limits`],
//! [`digest`], [`headers`], [`hosts`], [`pattern`] and [`renewal`].

pub mod digest;
pub mod headers;
pub mod hosts;
pub mod limits;
pub mod pattern;
mod redact;
pub mod renewal;

/// Messages and gRPC stubs of package `weir.push.v1alpha1`.
#[allow(missing_docs, unused_qualifications, unreachable_pub, clippy::all, clippy::too_many_lines, reason = "generated code")]
#[path = "gen/weir.push.v1alpha1.rs"]
#[rustfmt::skip]
pub mod push;

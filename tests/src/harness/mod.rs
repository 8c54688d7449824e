//! What end-to-end tests stand on: the real binaries as processes, folders of manifests, a real Kubernetes control
//! plane, plain clients.
//!
//! Nothing here sleeps for a fixed time. [`wait`] polls for a state until a deadline, and a deadline that passes
//! prints what every process of the test had said.

pub mod authority;
pub mod binaries;
pub mod certificates;
pub mod client;
pub mod cluster;
pub mod controller;
pub mod folder;
pub mod gate;
pub mod gauge;
pub mod ledger;
pub mod load;
pub mod manifest;
pub mod nameserver;
pub mod network;
pub mod ports;
pub mod process;
pub mod relay;
pub mod scripted;
pub mod services;
pub mod switchable;
pub mod tools;
pub mod wait;

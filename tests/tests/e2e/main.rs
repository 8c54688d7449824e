//! End to end: the real binaries, real sockets, the command lines that people type.

mod bad_manifests;
mod cluster;
mod continuity;
mod demo_backend;
mod disruption;
mod exchange;
mod frames;
mod health;
mod hedging;
mod kept_connections;
mod kubernetes_manifests;
mod last_good;
mod live_changes;
mod names;
mod objects;
mod poison;
mod quickstart;
mod readiness;
mod resilience;
mod secured_stream;
mod separate_processes;
mod sessions;
mod shared_ports;
mod shutdown;
mod status;
mod wrong_input;

//! Flags that `weir run` and `weir-proxy` share: how a proxy serves.

use crate::duration;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::thread::available_parallelism;
use std::time::Duration;
use weir_proxy::proxy::Options;

/// How a proxy serves. The address to bind differs between the two commands, and is theirs.
#[derive(Debug, Clone, clap::Args)]
pub struct ServingArgs {
    /// Threads that serve requests [default: one for each core]
    #[arg(long, value_name = "N")]
    workers: Option<NonZeroUsize>,
    /// Address of administration, /metrics, /readyz and /livez
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9900", env = "WEIR_ADMIN")]
    admin: SocketAddr,
    /// How long new connections are still accepted after SIGTERM
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration::parse)]
    accept_floor: Duration,
    /// How long requests may go on after that; what is left is cut
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration::parse)]
    drain_timeout: Duration,
    /// Topology zone that this proxy runs in, for pools whose backends are chosen by locality
    #[arg(long, value_name = "ZONE", env = "WEIR_ZONE")]
    zone: Option<String>,
    /// Node that this proxy runs on, for the same
    #[arg(long, value_name = "NODE", env = "NODE_NAME")]
    node: Option<String>,
}

impl ServingArgs {
    /// The proxy's options, for listeners on `bind`.
    #[must_use]
    pub fn options(&self, proxy_id: String, bind: IpAddr) -> Options {
        Options {
            proxy_id,
            workers: self.workers.or_else(|| available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN),
            bind,
            admin: self.admin,
            accept_floor: self.accept_floor,
            drain_limit: self.drain_timeout,
            zone: self.zone.clone().unwrap_or_default(),
            node: self.node.clone().unwrap_or_default(),
            state: None,
        }
    }
}

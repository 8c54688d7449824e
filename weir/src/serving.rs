//! Flags that `weir run` and `weir-proxy` share: how a proxy serves.

use crate::access_log::AccessLogArgs;
use crate::duration;
use crate::exit::Failure;
use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::thread::available_parallelism;
use std::time::Duration;
use weir_proxy::proxy::Options;
use weir_proxy::sessions::StoreAddress;

/// How a proxy serves. The address to bind differs between the two commands, and is theirs.
#[derive(Debug, Clone, clap::Args)]
pub struct ServingArgs {
    /// Threads that serve requests [default: one for each core]
    #[arg(long, value_name = "N")]
    workers: Option<NonZeroUsize>,
    /// Address of administration, /metrics, /readyz and /livez
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9900", env = "WEIR_ADMIN")]
    admin: SocketAddr,
    /// How long everything is served as before after SIGTERM, with /readyz saying no, so that whoever sends clients here
    /// stops [default: 5s of weir-proxy, 0s of weir run]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    accept_floor: Option<Duration>,
    /// How long requests may go on after that; what is left is cut
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration::parse)]
    drain_timeout: Duration,
    /// Time over which WebSockets are ended when clients are asked to go, a few at a time; at most four fifths of
    /// --drain-timeout
    #[arg(long, value_name = "DURATION", default_value = "8s", value_parser = duration::parse)]
    tunnel_window: Duration,
    /// Unix socket for upgrades without a refused connection: a process that is started with the same path takes the
    /// listeners over from the one that serves, once it is ready; that one then drains and ends
    #[arg(long, value_name = "PATH", env = "WEIR_TAKEOVER")]
    takeover: Option<PathBuf>,
    /// Topology zone that this proxy runs in, for pools whose backends are chosen by locality
    #[arg(long, value_name = "ZONE", env = "WEIR_ZONE")]
    zone: Option<String>,
    /// Node that this proxy runs on, for the same
    #[arg(long, value_name = "NODE", env = "NODE_NAME")]
    node: Option<String>,
    /// Redis that proxies share sessions by, as redis://USER:PASSWORD@HOST:PORT/DATABASE, or rediss:// for TLS; the host
    /// is enough [default: each proxy knows those that began there]
    // A text here, since clap shows a value that it refuses, and this one may hold a password.
    #[arg(long, value_name = "URL", env = "WEIR_SESSION_STORE", hide_env_values = true)]
    session_store: Option<String>,
    #[command(flatten)]
    access_log: AccessLogArgs,
}

impl ServingArgs {
    /// The proxy's options, for listeners on `bind`. `accept_floor` is what it is where no flag says.
    ///
    /// # Errors
    /// [`Failure::Usage`] for a URL that names no store; it is not shown.
    pub fn options(
        &self,
        proxy_id: String,
        bind: IpAddr,
        accept_floor: Duration,
    ) -> Result<Options, Failure> {
        raise_open_files_limit();
        let store = self.session_store.as_deref().filter(|url| !url.is_empty());
        let session_store = store.map(StoreAddress::read).transpose();
        let session_store = session_store.context("the URL of --session-store is of no use");
        Ok(Options {
            proxy_id,
            workers: self.workers.or_else(|| available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN),
            bind,
            admin: self.admin,
            accept_floor: self.accept_floor.unwrap_or(accept_floor),
            drain_limit: self.drain_timeout,
            tunnel_spread: self.tunnel_window,
            // An environment may say it with nothing in it.
            takeover: self.takeover.clone().filter(|path| !path.as_os_str().is_empty()),
            zone: self.zone.clone().unwrap_or_default(),
            node: self.node.clone().unwrap_or_default(),
            session_store: session_store.map_err(Failure::Usage)?,
            state: None,
            access_log: self.access_log.options(),
            pages: None,
        })
    }
}

/// Lets this process open as many files as it may. Most systems start processes with a soft limit of 1024, for who calls
/// `select`; a proxied WebSocket takes two, so that 500 of them were all.
fn raise_open_files_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, raised)
    {
        tracing::warn!(%error, limit = limit.current, "the limit of open files stays as it is");
    }
}

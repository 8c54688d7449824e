//! Sample backends: HTTP servers whose every answer says who answered and what arrived.
//!
//! They exist for the quick start, for the tests and for a look at what the proxy changes on the way. One
//! current-thread runtime serves all of them, so that they take at most one core from what is being shown.

mod answer;
mod server;
mod websocket;

pub use server::{Member, serve};

use crate::duration;
use crate::exit::Failure;
use anyhow::Context as _;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;
use tokio::sync::mpsc;
use weir_proxy::proxy::Stop;
use weir_proxy::signals;

/// Longest delay that a request may ask for.
pub const DELAY_MAX: Duration = Duration::from_secs(60);

/// Time for requests in flight once the end was asked for.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// Flags of `weir demo-backend`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to listen; more than one starts several backends
    #[arg(long = "listen", value_name = "ADDR:PORT", default_value = "127.0.0.1:9101")]
    listen: Vec<SocketAddr>,
    /// What the backend calls itself; several are NAME-1, NAME-2 and so on
    #[arg(long, default_value = "sample")]
    name: String,
    /// Wait before each answer, such as 100ms. A request may ask for its own with `?delay=100ms`, at most 60s
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = duration::parse)]
    delay: Duration,
}

/// `weir demo-backend`: serves until a signal asks for the end.
///
/// # Errors
/// When an address cannot be listened on.
pub fn run(args: &Args) -> Result<(), Failure> {
    let members = args
        .listen
        .iter()
        .enumerate()
        .map(|(index, &address)| {
            let name = if args.listen.len() == 1 {
                args.name.clone()
            } else {
                format!("{}-{}", args.name, index + 1)
            };
            listen(name, address)
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    runtime.block_on(async {
        let mut stop = signals::stop_on_signals().context("cannot handle signals")?;
        let (sender, receiver) = mpsc::unbounded_channel();
        for member in members {
            tracing::info!("sample backend {} listens on http://{}", member.name(), member.address());
            // The receiver is right here.
            let _ = sender.send(member);
        }
        let served = tokio::spawn(serve(receiver, args.delay));
        let _ = stop.wait_for(|stop| *stop > Stop::No).await;
        tracing::info!(
            "closing once requests in flight are answered, in {} s at the latest",
            DRAIN_LIMIT.as_secs()
        );
        drop(sender);
        tokio::select! {
            _ = tokio::time::timeout(DRAIN_LIMIT, served) => Ok(()),
            _ = stop.wait_for(|stop| *stop == Stop::Now) => Ok(()),
        }
    })
}

/// Binds one backend's address.
///
/// # Errors
/// Names the address; the cause is what the system said.
pub fn listen(name: String, address: SocketAddr) -> anyhow::Result<Member> {
    let member = TcpListener::bind(address).and_then(|socket| Member::new(name, socket));
    member.with_context(|| format!("cannot listen on {address} for a sample backend"))
}

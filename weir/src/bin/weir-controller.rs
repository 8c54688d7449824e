//! `weir-controller`: follows a folder of manifests and streams what it compiles to, to proxies.

use anyhow::{Context as _, anyhow};
use clap::Parser;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::watch;
use weir::exit::{self, Failure};
use weir::follower::Follower;
use weir::logging::{self, LogArgs};
use weir_controller::folder::FolderSource;
use weir_controller::push;
use weir_controller::store::{Store, random_epoch};
use weir_proxy::proxy::Stop;
use weir_proxy::signals;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Weir's control plane: compiles LoadBalancerPools and streams them to proxies.
#[derive(Debug, Parser)]
#[command(name = "weir-controller", version = weir::cli::version(), max_term_width = 100)]
struct Args {
    /// Folder (or one file) of manifests: LoadBalancerPool, Service, EndpointSlice, Secret
    #[arg(long, value_name = "FOLDER")]
    folder: PathBuf,
    /// Address that proxies dial
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9901", env = "WEIR_LISTEN")]
    listen: SocketAddr,
    /// Let proxies on other machines dial although the stream is not encrypted
    #[arg(long)]
    allow_plaintext: bool,
    #[command(flatten)]
    log: LogArgs,
}

fn main() -> ExitCode {
    let args = Args::parse();
    logging::start(args.log.log_format);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = runtime.context("cannot start the runtime").map_err(Failure::Failed).and_then(|runtime| {
        let ended = runtime.block_on(run(&args));
        // A folder that is being read at this moment is of no use to anyone.
        runtime.shutdown_background();
        ended
    });
    exit::end("weir-controller", ended)
}

async fn run(args: &Args) -> Result<ExitCode, Failure> {
    check_address(args).map_err(Failure::Usage)?;
    let stop = signals::stop_on_signals().context("cannot handle signals")?;
    let source = FolderSource::open(&args.folder).map_err(|error| Failure::Usage(error.into()))?;
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen on {}: choose another address with --listen", args.listen))?;
    let store = Store::new(random_epoch());
    let mut follower = Follower::new(Arc::clone(&store), args.log.log_format);
    tracing::info!(address = %args.listen, folder = %args.folder.display(), "controller started");
    let asked = until(stop.clone(), Stop::Gently);
    let shutdown = async move {
        asked.await;
        tracing::info!("ending: proxies serve on with what they have");
    };
    tokio::select! {
        served = push::serve(listener, store, shutdown) => {
            served.context("cannot serve proxies")?;
            Ok(ExitCode::from(exit::GOOD))
        }
        () = source.run(move |loaded| follower.take(loaded)) => Ok(ExitCode::from(exit::GOOD)),
        () = until(stop, Stop::Now) => Ok(ExitCode::from(exit::FORCED)),
    }
}

/// Waits for a signal that asks for as much as `stop`; for ever where none comes.
async fn until(mut signals: watch::Receiver<Stop>, stop: Stop) {
    if signals.wait_for(|asked| *asked >= stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The stream carries private keys, and is neither encrypted nor authenticated.
fn check_address(args: &Args) -> anyhow::Result<()> {
    if args.listen.ip().is_loopback() || args.allow_plaintext {
        return Ok(());
    }
    Err(anyhow!(
        "--listen {} can be reached from other machines, and the stream to proxies carries private keys of \
         certificates without encryption or authentication: listen on 127.0.0.1, or add --allow-plaintext where \
         the network itself is trusted",
        args.listen
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[test]
    fn an_address_that_others_reach_needs_consent() {
        let check = |flags: &[&str]| {
            check_address(&Args::parse_from([&["weir-controller", "--folder", "."], flags].concat()))
        };
        assert!(check(&[]).is_ok());
        assert!(check(&["--listen", "[::1]:9901"]).is_ok());
        let refused = check(&["--listen", "0.0.0.0:9901"]).expect_err("refused").to_string();
        assert!(refused.contains("private keys") && refused.contains("--allow-plaintext"), "{refused}");
        assert!(check(&["--listen", "10.0.0.1:9901", "--allow-plaintext"]).is_ok());
    }

    #[tokio::test]
    async fn only_the_second_signal_insists() {
        let (sender, signals) = watch::channel(Stop::No);
        let mut gently = Box::pin(until(signals.clone(), Stop::Gently));
        let mut now = Box::pin(until(signals, Stop::Now));
        sender.send_replace(Stop::Gently);
        assert!(gently.as_mut().now_or_never().is_some());
        assert!(now.as_mut().now_or_never().is_none());
        sender.send_replace(Stop::Now);
        assert!(now.as_mut().now_or_never().is_some());
    }

    #[test]
    fn the_command_line_is_well_formed() {
        <Args as clap::CommandFactory>::command().debug_assert();
    }
}

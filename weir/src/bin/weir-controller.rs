//! `weir-controller`: follows a folder of manifests and streams what it compiles to, to proxies.

use anyhow::{Context as _, anyhow};
use clap::Parser;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::net::TcpListener;
use weir::exit::{self, Failure};
use weir::follower::Follower;
use weir::logging;
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
    /// How log lines on standard error look
    #[arg(long, value_enum, default_value = "text", env = "WEIR_LOG_FORMAT")]
    log_format: logging::Format,
}

fn main() -> ExitCode {
    let args = Args::parse();
    logging::start(args.log_format);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = runtime.context("cannot start the runtime").map_err(Failure::Failed).and_then(|runtime| {
        let ended = runtime.block_on(run(&args));
        // A folder that is being read at this moment is of no use to anyone.
        runtime.shutdown_background();
        ended
    });
    match ended {
        Ok(()) => ExitCode::from(exit::GOOD),
        Err(failure) => {
            // With standard error closed there is nobody left to tell.
            let _ = writeln!(std::io::stderr(), "weir-controller: {}", failure.sentence());
            failure.code()
        }
    }
}

async fn run(args: &Args) -> Result<(), Failure> {
    check_address(args).map_err(Failure::Usage)?;
    let mut stop = signals::stop_on_signals().context("cannot handle signals")?;
    let source = FolderSource::open(&args.folder).map_err(|error| Failure::Usage(error.into()))?;
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen on {}: choose another address with --listen", args.listen))?;
    let store = Store::new(random_epoch());
    let mut follower = Follower::new(Arc::clone(&store), args.log_format);
    tracing::info!(address = %args.listen, folder = %args.folder.display(), "controller started");
    let shutdown = async move {
        let _ = stop.wait_for(|stop| *stop > Stop::No).await;
        tracing::info!("ending: proxies serve on with what they have");
    };
    tokio::select! {
        served = push::serve(listener, store, shutdown) => Ok(served.context("cannot serve proxies")?),
        () = source.run(move |loaded| follower.take(loaded)) => Ok(()),
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

    #[test]
    fn the_command_line_is_well_formed() {
        <Args as clap::CommandFactory>::command().debug_assert();
    }
}

//! The `weir-controller` binary: follows a folder of manifests and streams what it compiles to, to proxies.
//!
//! Flags are read here and nowhere else. Exit codes: 0 after a signal, 1 when something failed at run time, 2 when
//! the command line asks for what cannot be.

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use weir_controller::compile::{World, world};
use weir_controller::folder::FolderSource;
use weir_controller::push;
use weir_controller::source::Loaded;
use weir_controller::store::{self, Store};

/// Command line was understood and asks for what cannot be.
const EXIT_USAGE: u8 = 2;

/// Compiles LoadBalancerPools and streams them to proxies.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Flags {
    /// Folder of manifests (LoadBalancerPool, Service, EndpointSlice, Secret), followed for changes.
    #[arg(long, value_name = "DIR")]
    folder: PathBuf,
    /// Address that proxies dial.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:9901")]
    listen: SocketAddr,
    /// Let proxies on other machines dial although the stream is not encrypted.
    #[arg(long)]
    allow_plaintext: bool,
    /// Form of log lines; RUST_LOG chooses which ones there are.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    if let Err(sentence) = check_address(flags.listen, flags.allow_plaintext.then_some(Plaintext)) {
        complain(&sentence);
        return ExitCode::from(EXIT_USAGE);
    }
    start_logging(flags.log_format);
    let ended = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")
        .and_then(|runtime| runtime.block_on(run(flags)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// The user has been told that the stream is not encrypted.
#[derive(Debug, Clone, Copy)]
struct Plaintext;

fn check_address(listen: SocketAddr, consent: Option<Plaintext>) -> Result<(), String> {
    if listen.ip().is_loopback() || consent.is_some() {
        return Ok(());
    }
    Err(format!(
        "--listen {listen} can be reached from other machines, and the stream to proxies carries private keys of \
         certificates without encryption or authentication: listen on 127.0.0.1, or add --allow-plaintext where the \
         network itself is trusted"
    ))
}

fn complain(sentence: &str) {
    // With standard error closed there is nobody left to tell.
    let _ = writeln!(std::io::stderr(), "weir-controller: {sentence}");
}

fn start_logging(format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().init(),
    }
}

async fn run(flags: Flags) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("shutting down: proxies serve on with what they have");
    };
    let source = FolderSource::open(&flags.folder).context("cannot follow --folder")?;
    let listener = TcpListener::bind(flags.listen).await.with_context(|| {
        format!("cannot listen on {}: choose another address with --listen", flags.listen)
    })?;
    let address = listener.local_addr().context("cannot tell the address that was bound")?;
    let store = Store::new(store::random_epoch());
    tracing::info!(%address, folder = %flags.folder.display(), version = env!("CARGO_PKG_VERSION"), "controller started");
    let mut follower = Follower { store: Arc::clone(&store), world: None, told: BTreeSet::new() };
    tokio::select! {
        served = push::serve(listener, store, shutdown) => served.context("serving proxies"),
        () = source.run(|loaded| follower.take(&loaded)) => Ok(()),
    }
}

/// Compiles each load and puts it into the store; says what is wrong once, when it begins to be.
struct Follower {
    store: Arc<Store>,
    world: Option<World>,
    told: BTreeSet<String>,
}

impl Follower {
    fn take(&mut self, loaded: &Loaded) {
        let world = world(&loaded.objects, self.world.as_ref());
        self.tell(loaded, &world);
        let outcome = self.store.apply(&world);
        if outcome != store::Outcome::default() {
            let (changed, removed) = (outcome.changed, outcome.removed);
            tracing::info!(pools = world.all_serving().count(), changed, removed, "configuration changed");
        }
        self.world = Some(world);
    }

    fn tell(&mut self, loaded: &Loaded, world: &World) {
        let unread = loaded.problems.iter().map(ToString::to_string);
        let placed = world.rejections.values().flatten().chain(world.warnings()).map(|about| {
            match loaded.place_of(about) {
                Some(place) => format!("{place}: {about}"),
                None => about.to_string(),
            }
        });
        let wrong: BTreeSet<String> = unread.chain(placed).collect();
        for sentence in wrong.difference(&self.told) {
            tracing::warn!("{sentence}");
        }
        for sentence in self.told.difference(&wrong) {
            tracing::info!("no longer: {sentence}");
        }
        self.told = wrong;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_others_reach_needs_consent() {
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        assert!(check_address(address("127.0.0.1:9901"), None).is_ok());
        assert!(check_address(address("[::1]:9901"), None).is_ok());
        let refused = check_address(address("0.0.0.0:9901"), None).expect_err("refused");
        assert!(refused.contains("private keys") && refused.contains("--allow-plaintext"), "{refused}");
        assert!(check_address(address("10.0.0.1:9901"), Some(Plaintext)).is_ok());
    }

    #[test]
    fn the_command_line_is_well_formed() {
        <Flags as clap::CommandFactory>::command().debug_assert();
    }
}

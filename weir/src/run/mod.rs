//! `weir run`: controller and proxy in one process, over the messages that they would exchange as two.
//!
//! ```text
//! folder -> samples -> compile -> store -> push service -> (in memory) -> proxy
//! ```
//!
//! The workers that carry requests are the proxy's own threads. All of the rest, administration included, shares
//! this thread, so that a large change delays a scrape at most.

pub mod samples;
mod summary;

use crate::exit::{self, Failure};
use crate::follower::Follower;
use crate::keys::KeysArgs;
use crate::logging::{self, LogArgs};
use crate::names::DnsArgs;
use crate::serving::ServingArgs;
use anyhow::Context as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use weir_controller::admin::Overview;
use weir_controller::dns::{Meters, Reach};
use weir_controller::folder::FolderSource;
use weir_controller::push;
use weir_controller::status::Board;
use weir_controller::store::{Store, random_epoch};
use weir_proxy::admin::Pages;
use weir_proxy::proxy;
use weir_proxy::signals;

/// The only proxy's name.
const PROXY_ID: &str = "weir-run";

/// Flags of `weir run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder (or one file) of manifests: LoadBalancerPool, Service, EndpointSlice, Pod, Secret
    folder: PathBuf,
    /// Address that listeners bind; 0.0.0.0 or :: takes requests from other machines
    #[arg(long, value_name = "ADDR", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    bind: IpAddr,
    #[command(flatten)]
    dns: DnsArgs,
    #[command(flatten)]
    keys: KeysArgs,
    #[command(flatten)]
    serving: ServingArgs,
    #[command(flatten)]
    log: LogArgs,
}

/// Serves until a signal asks for the end.
///
/// # Errors
/// [`Failure::Usage`] where there is nothing to follow; [`Failure::Failed`] when the process cannot start.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    logging::start(args.log.log_format);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start a runtime")?;
    let ended = runtime.block_on(serve(args));
    // A folder that is being read at this moment is of no use to anyone.
    runtime.shutdown_background();
    ended
}

/// What the controller knows, at the one administration address.
fn pages(overview: Overview) -> Pages {
    let overview = Arc::new(overview);
    Pages::new(&Overview::PATHS, move |path, query| {
        let overview = Arc::clone(&overview);
        Box::pin(async move { overview.page(&path, query.as_deref()).await })
    })
}

async fn serve(args: &Args) -> Result<ExitCode, Failure> {
    let stop = signals::stop_on_signals().context("cannot handle signals")?;
    let source = FolderSource::open(&args.folder).map_err(|error| Failure::Usage(error.into()))?;
    let keys = args.keys.open(&args.folder)?;
    let store = Store::new(random_epoch());
    // Limits of the cluster are this proxy's.
    store.desk().stand_alone();
    let (service, channel) = push::in_process(Arc::clone(&store), std::future::pending());
    let board = Arc::new(Board::default());
    let (names, lookups) = args.dns.client(Reach::Machine, Meters::default());
    let follower = Follower::with_samples(Arc::clone(&store), Arc::clone(&board), args.log.log_format);

    let mut options = args.serving.options(PROXY_ID.to_owned(), args.bind, Duration::ZERO)?;
    options.pages = Some(pages(Overview::new(PROXY_ID.to_owned(), Arc::clone(&store), board)));

    let mut controller = JoinSet::new();
    controller.spawn(async move {
        if let Err(error) = service.await {
            tracing::error!("the push service ended: {error}");
        }
    });
    if let Some((keeper, ring)) = keys {
        // Before the first request: what was sealed by the process before this one opens.
        store.use_ring(ring);
        let store = Arc::clone(&store);
        controller.spawn(keeper.run(move |ring| store.use_ring(ring)));
    }
    controller.spawn(lookups.run());
    controller.spawn(follower.run(source, names, || ()));
    controller.spawn(summary::print_once_served(
        store,
        summary::Addresses { bind: options.bind, admin: options.admin },
    ));

    let ended = proxy::run(options, channel.into(), stop).await.map_err(anyhow::Error::new)?;
    Ok(exit::of_proxy(ended))
}

//! `weir-controller`: a source of objects, the store, the push service, and what is said of them.
//!
//! ```text
//! cluster or folder -> compile -> store -> push service -> proxies
//! ```

mod args;
mod replica;
mod security;
mod source;

pub use args::{Args, PodArgs, SourceArgs};
pub use replica::{Own, Replica, ReplicaArgs};
pub use security::{STREAM_AGE_MIN, SecurityArgs};

use crate::exit::{self, Failure};
use crate::logging;
use anyhow::Context as _;
use source::Source;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use weir_controller::admin::{self, Overview, Shown};
use weir_controller::cluster::Cluster;
use weir_controller::metrics::Metrics;
use weir_controller::push;
use weir_controller::readiness::Readiness;
use weir_controller::status::{self, Board};
use weir_controller::store::{Store, random_epoch};
use weir_proxy::proxy::Stop;
use weir_proxy::signals;

/// The process, from the command line to its exit code.
#[must_use]
pub fn main(args: Args) -> ExitCode {
    logging::start(args.log.log_format);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = runtime.context("cannot start the runtime").map_err(Failure::Failed).and_then(|runtime| {
        let ended = runtime.block_on(run(args));
        // A folder that is being read at this moment is of no use to anyone.
        runtime.shutdown_background();
        ended
    });
    exit::end("weir-controller", ended)
}

/// Serves proxies until a signal asks for the end.
///
/// # Errors
/// [`Failure::Usage`] where there is no source to follow; [`Failure::Failed`] when the process cannot start.
pub async fn run(args: Args) -> Result<ExitCode, Failure> {
    // Refused before anything is opened: what the command line alone says.
    args.check().map_err(Failure::Usage)?;
    let stop = signals::stop_on_signals().context("cannot handle signals")?;
    let source = Source::open(&args).await.map_err(Failure::Usage)?;
    let security = args.security.security(args.listen, source.cluster())?;

    let keys = match &args.source.folder {
        Some(folder) => args.keys.open(folder)?,
        None => None,
    };

    // Both ports before any work, so that one that is taken is a start that failed and not half a controller.
    let proxies = bind(args.listen, "--listen").await?;
    let administration = bind(args.admin, "--admin").await?;

    // A new epoch for each process: what proxies hold from another one is compared by digest, never by number.
    let store = Store::new(random_epoch());
    let readiness = Arc::new(Readiness::default());
    let metrics = Arc::new(Metrics::new(Arc::clone(&store), Arc::clone(&readiness)));
    let mut tasks = JoinSet::new();
    let board = Arc::new(Board::default());
    let overview = Arc::new(Overview::new(args.replica_name(), Arc::clone(&store), Arc::clone(&board)));
    let shown = Shown { readiness: Arc::clone(&readiness), metrics: Arc::clone(&metrics), overview };
    tasks.spawn(admin::serve(administration, shown));

    tracing::info!(listen = %args.listen, admin = %args.admin, source = %source, "controller started");
    let mut replica = None;
    if let Some(cluster) = source.cluster() {
        let campaign = replica_of(&args, cluster, &store).map_err(Failure::Usage)?;
        let (may_write, asked) = (campaign.may_write(), until(stop.clone(), Stop::Gently));
        tasks.spawn(write_status(cluster.clone(), Arc::clone(&board), Arc::clone(&store), may_write, asked));
        replica = Some(tokio::spawn(campaign.run(until(stop.clone(), Stop::Gently))));
    }
    if replica.is_none() {
        // There is no Lease: this is the only controller.
        store.desk().give(random_epoch(), Instant::now().into_std());
    }
    if let Some((keeper, ring)) = keys {
        store.use_ring(ring);
        let store = Arc::clone(&store);
        tasks.spawn(keeper.run(move |ring| store.use_ring(ring)));
    }
    // The only writer of the store's pools. Proxies wait on their streams until it has seen everything once.
    let (names, lookups) = args.dns.client(source.reach(), metrics.dns());
    tasks.spawn(lookups.run());
    let sinks = source::Sinks { store: Arc::clone(&store), board, readiness, metrics, names };
    tasks.spawn(source.follow(sinks, args.log.log_format));

    let asked = until(stop.clone(), Stop::Gently);
    let shutdown = async move {
        asked.await;
        tracing::info!("ending: proxies serve on with what they have");
    };
    let serving = async {
        push::serve(proxies, store, security, shutdown).await.context("cannot serve proxies")?;
        if let Some(replica) = replica {
            // It gives the Lease back, so that the next replica need not wait until it expires.
            replica.await.context("the campaign for the Lease ended")?;
        }
        Ok(ExitCode::from(exit::GOOD))
    };
    tokio::select! {
        served = serving => served,
        // Every task runs as long as the process: one that ends takes the process along, to be started anew.
        ended = tasks.join_next() => {
            Err(Failure::Failed(anyhow::anyhow!("a part of the controller has ended: {ended:?}")))
        }
        () = until(stop, Stop::Now) => Ok(ExitCode::from(exit::FORCED)),
    }
}

/// Keeps the status of pools while this replica holds the Lease, and ends with the first word of an end: streams that end
/// with this process are no reason to say that a pool has lost its proxies.
async fn write_status(
    cluster: Cluster,
    board: Arc<Board>,
    store: Arc<Store>,
    may_write: watch::Receiver<bool>,
    shutdown: impl Future<Output = ()>,
) {
    status::Writer::run(cluster.client, board, store, may_write, shutdown).await;
    std::future::pending::<()>().await;
}

fn replica_of(args: &Args, cluster: &Cluster, store: &Arc<Store>) -> anyhow::Result<Replica> {
    let name = args.replica_name();
    let own = Own { name: &name, listen: args.listen, is_tls: args.security.is_tls() };
    args.replica.replica(cluster, own, store)
}

async fn bind(address: SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}: choose another address with {flag}"))
}

/// Waits for a signal that asks for as much as `stop`; for ever where none comes.
async fn until(mut signals: watch::Receiver<Stop>, stop: Stop) {
    if signals.wait_for(|asked| *asked >= stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

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
}

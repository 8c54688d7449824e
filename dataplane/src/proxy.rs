//! The proxy as a process: what is started, in which order, and how it ends.
//!
//! Workers serve requests, each on a thread of its own. Configuration, metrics and administration run on the
//! caller's runtime, so that a scrape or a large update never delays a request.

use crate::admin::{self, AdminState, Pages, Seen};
use crate::config::disk::{State, StateError, StateOptions};
use crate::config::{Applier, client};
use crate::counters::Counters;
use crate::health::{self, Caretaker, Exchange, View};
use crate::listener::Sockets;
use crate::outcomes::{self, Outcomes};
use crate::readiness::Readiness;
use crate::sessions::{self, Keeping, Sealer, SealerError, Store, StoreAddress};
use crate::snapshot::{Current, Snapshot};
use crate::worker::{self, Phase, Seat};
use arc_swap::ArcSwap;
use lb_core::backend::Place;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use weir_dial::Dialer;
pub use weir_proto::limits::PROXY_ID_BYTES_MAX;

/// What a proxy is started with.
#[derive(Debug, Clone)]
pub struct Options {
    /// Names this proxy to the controller; unique among running proxies, 1 to 253 bytes.
    pub proxy_id: String,
    /// Threads that serve requests.
    pub workers: NonZeroUsize,
    /// Address that listeners bind.
    pub bind: IpAddr,
    /// Topology zone that this proxy runs in; empty where unknown.
    pub zone: String,
    /// Node that this proxy runs on; empty where unknown.
    pub node: String,
    /// Address of administration and metrics.
    pub admin: SocketAddr,
    /// Time after the signal to end in which new connections are still accepted, while whoever sends them learns
    /// that this proxy is no longer ready.
    pub accept_floor: Duration,
    /// Time after [`Self::accept_floor`] in which requests may finish; what is left is cut.
    pub drain_limit: Duration,
    /// What proxies share the sessions of their tables by, if they do.
    pub session_store: Option<StoreAddress>,
    /// Where the last known good configuration is kept; `None` for nowhere.
    pub state: Option<StateOptions>,
    /// What is shown at [`Self::admin`] beside what the proxy shows.
    pub pages: Option<Pages>,
}

/// Why a proxy could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The administration address is taken or not ours.
    #[error("cannot listen on {address} for administration: choose another address with --admin")]
    Admin {
        /// As asked for.
        address: SocketAddr,
        /// Why, as the system said it.
        source: io::Error,
    },
    /// The system gave no thread or no event queue.
    #[error("cannot start worker {index}")]
    Worker {
        /// Which, from 0.
        index: usize,
        /// Why, as the system said it.
        source: io::Error,
    },
    /// The system gave no randomness for the keys of session cookies.
    #[error("cannot make keys for session cookies")]
    Keys(#[from] SealerError),
    /// There is no place, or no key, for what is to be kept on disk.
    #[error(transparent)]
    State(#[from] StateError),
    /// A worker ended that was not told to.
    #[error("a worker ended by itself: this is a defect, see the log above")]
    WorkerEnded,
    /// A task of the control side ended that was not told to: what is left would serve an old configuration for ever,
    /// or nobody could ask whether it is ready.
    #[error("{0} ended by itself: this is a defect, see the log above")]
    TaskEnded(&'static str),
}

/// How far a shutdown has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// Not asked for.
    No,
    /// Asked for: end when requests have finished.
    Gently,
    /// Asked for again: end now.
    Now,
}

/// Runs a proxy, configured by `controller`, until `stop` says otherwise.
///
/// # Errors
/// [`ProxyError`] at start; afterwards only when a worker or a task of the control side dies.
pub async fn run(
    options: Options,
    controller: Dialer,
    mut stop: watch::Receiver<Stop>,
) -> Result<(), ProxyError> {
    let address = options.admin;
    let admin = TcpListener::bind(address).await.map_err(|source| ProxyError::Admin { address, source })?;
    let current: Current = Arc::new(ArcSwap::from_pointee(Snapshot::default()));
    let started = Instant::now();
    let place = Place { zone: options.zone.as_str().into(), node: options.node.as_str().into() };
    let (to_health, judged) = mpsc::channel(outcomes::BATCHES_MAX);
    let sealer = Arc::new(Sealer::new()?);
    let (store, storing) = options.session_store.clone().map(Store::open).unzip();
    let keeping = Arc::new(Keeping { sealer: Arc::clone(&sealer), store: store.clone() });
    let outcomes = || (Outcomes::new(started, to_health.clone()), Arc::clone(&keeping));
    let mut workers = start_workers(&options, &current, outcomes)?;
    drop(to_health);
    let readiness = Arc::new(Readiness::default());
    let sockets = Sockets::new(options.bind, std::mem::take(&mut workers.listeners));
    let (exchange, heard) = Exchange::new();
    let applier =
        Applier::new(Arc::clone(&current), sockets).placed(place, started, exchange).sealing(sealer);
    let kept = options.state.as_ref().map(|state| State::open(state, applier.status())).transpose()?;
    let (state, writer) = kept.unzip();
    let counts = Arc::new(health::Counts::default());
    let caretaker = Caretaker::new(applier.surroundings(Arc::clone(&counts)));
    let (view, questions) = View::new();
    let seen = Seen { workers: workers.counters.clone(), health: counts, view, store };
    let shown = AdminState::new(Arc::clone(&current), seen, Arc::clone(&readiness), &applier)
        .with_pages(options.pages.clone());
    let mut caretaking = tokio::spawn(caretaker.run(judged, questions, heard));
    let mut configuration = tokio::spawn(client::run(
        controller,
        options.proxy_id.clone(),
        applier,
        state,
        Arc::clone(&readiness),
        std::future::pending(),
    ));
    let sessions = tokio::spawn(sessions::upkeep::run(Arc::clone(&current), started));
    let upkeep = [Some(sessions), storing.map(tokio::spawn), writer.map(|writer| tokio::spawn(writer.run()))];
    let mut administration = tokio::spawn(admin::serve(admin, shown, std::future::pending()));
    tracing::info!(admin = %address, workers = options.workers, "proxy started");
    let ended = tokio::select! {
        _ = stop.wait_for(|stop| *stop > Stop::No) => Ok(()),
        defect = defect(&mut workers.alive, &mut configuration, &mut administration) => Err(defect),
        _ = &mut caretaking => Err(ProxyError::TaskEnded("health")),
    };
    if ended.is_ok() {
        readiness.drain();
        drain(&options, &mut workers, &mut stop).await;
    }
    configuration.abort();
    administration.abort();
    caretaking.abort();
    upkeep.iter().flatten().for_each(JoinHandle::abort);
    ended
}

/// Waits for the end of something that only ends when it is told to.
async fn defect(
    workers: &mut mpsc::Receiver<()>,
    configuration: &mut JoinHandle<()>,
    administration: &mut JoinHandle<()>,
) -> ProxyError {
    tokio::select! {
        _ = workers.recv() => ProxyError::WorkerEnded,
        _ = configuration => ProxyError::TaskEnded("configuration"),
        _ = administration => ProxyError::TaskEnded("administration"),
    }
}

/// Asks clients to leave, then waits for them, then stops waiting.
async fn drain(options: &Options, workers: &mut Workers, stop: &mut watch::Receiver<Stop>) {
    tracing::info!(limit = ?options.drain_limit, "draining: requests under way may finish");
    let orderly = async {
        workers.phase.send_replace(Phase::Ask);
        tokio::time::sleep(options.accept_floor).await;
        workers.phase.send_replace(Phase::Drain);
        tokio::time::timeout(options.drain_limit, workers.alive.recv()).await.is_ok()
    };
    let finished = tokio::select! {
        finished = orderly => finished,
        _ = stop.wait_for(|stop| *stop == Stop::Now) => false,
    };
    if finished {
        tracing::info!("drained: every request finished");
    } else {
        let open: u64 = workers.counters.iter().map(|worker| worker.connections_open.value()).sum();
        tracing::warn!(connections = open, "stopped waiting: connections that were still open are cut");
        workers.phase.send_replace(Phase::Stop);
        workers.alive.recv().await;
    }
}

struct Workers {
    counters: Vec<Arc<Counters>>,
    listeners: Vec<mpsc::UnboundedSender<crate::listener::ListenerChange>>,
    phase: watch::Sender<Phase>,
    /// Closed when the last worker has ended; nothing is ever sent.
    alive: mpsc::Receiver<()>,
}

fn start_workers(
    options: &Options,
    current: &Current,
    keeps: impl Fn() -> (Outcomes, Arc<Keeping>),
) -> Result<Workers, ProxyError> {
    let (phase, phases) = watch::channel(Phase::Serve);
    let (alive, all_ended) = mpsc::channel(1);
    let sources = Arc::<crate::sources::Sources>::default();
    let mut workers = Workers { counters: Vec::new(), listeners: Vec::new(), phase, alive: all_ended };
    for index in 0..options.workers.get() {
        let (sender, listeners) = mpsc::unbounded_channel();
        let counters = Arc::new(Counters::default());
        let (outcomes, keeping) = keeps();
        let seat = Seat {
            index,
            count: options.workers.get(),
            current: Arc::clone(current),
            counters: Arc::clone(&counters),
            listeners,
            phase: phases.clone(),
            outcomes,
            keeping,
            sources: Arc::clone(&sources),
            alive: alive.clone(),
        };
        worker::spawn(seat).map_err(|source| ProxyError::Worker { index, source })?;
        workers.counters.push(counters);
        workers.listeners.push(sender);
    }
    Ok(workers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_of_the_control_side_is_an_end_with_a_name() {
        let task = |panics: bool| {
            tokio::spawn(async move {
                assert!(!panics, "as a defect would");
                std::future::pending::<()>().await;
            })
        };
        for (panics, named) in [([true, false], "configuration"), ([false, true], "administration")] {
            let (_alive, mut workers) = mpsc::channel(1);
            let [mut configuration, mut administration] = panics.map(task);
            let defect = defect(&mut workers, &mut configuration, &mut administration).await;
            assert!(defect.to_string().starts_with(named), "{defect}");
            configuration.abort();
            administration.abort();
        }
        let (alive, mut workers) = mpsc::channel(1);
        drop(alive);
        let defect = defect(&mut workers, &mut task(false), &mut task(false)).await;
        assert!(matches!(defect, ProxyError::WorkerEnded));
    }
}

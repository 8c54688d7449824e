//! The proxy as a process: what is started, in which order, and how it ends.
//!
//! Workers serve requests, each on a thread of its own. Configuration, metrics and administration run on the
//! caller's runtime, so that a scrape or a large update never delays a request.

use crate::access_log::{self, AccessLogError, AccessLogOptions, Writing};
use crate::admin::{self, AdminState, Pages, Seen};
use crate::config::disk::{State, StateError, StateOptions, Writer};
use crate::config::shares::{self, Keeps};
use crate::config::{Applier, Status, client};
use crate::counters::{self, Count, Counters};
use crate::health::{self, Caretaker, Exchange, View};
use crate::listener::{ListenerChange, Sockets};
use crate::outcomes::{self, Outcomes};
use crate::readiness::Readiness;
use crate::sessions::{self, Keeping, Sealer, SealerError, Store, StoreAddress};
use crate::snapshot::{Current, Snapshot};
use crate::takeover::{Door, Estate, Predecessor, Successor, TakeoverError};
use crate::worker::{self, Phase, Seat};
use arc_swap::ArcSwap;
use lb_core::backend::Place;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
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
    /// Time after the signal to end in which everything is served as before, while whoever sends clients learns that
    /// this proxy is no longer ready.
    pub accept_floor: Duration,
    /// Time after [`Self::accept_floor`] in which requests may finish; what is left is cut.
    pub drain_limit: Duration,
    /// Time over which tunnels are ended, when clients are asked to go. Counts as [`Self::drain_limit`] where it is longer.
    pub tunnel_spread: Duration,
    /// Unix socket by which a new process takes over from the one that serves.
    pub takeover: Option<PathBuf>,
    /// What proxies share the sessions of their tables by, if they do.
    pub session_store: Option<StoreAddress>,
    /// Where the last known good configuration is kept; `None` for nowhere.
    pub state: Option<StateOptions>,
    /// Where requests are logged, if they are.
    pub access_log: Option<AccessLogOptions>,
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
    /// There is no access log.
    #[error(transparent)]
    AccessLog(#[from] AccessLogError),
    /// The process that serves goes on in our place.
    #[error(transparent)]
    Takeover(#[from] TakeoverError),
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

/// How a proxy ended that was asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Everything that was under way finished.
    Drained,
    /// Something was cut at [`Options::drain_limit`].
    Cut,
    /// Something was cut because the end was asked for again.
    Forced,
}

/// Runs a proxy, configured by `controller`, until `stop` says otherwise or another process takes over.
///
/// # Errors
/// [`ProxyError`] at start; afterwards only when a worker or a task of the control side dies.
pub async fn run(
    options: Options,
    controller: Dialer,
    mut stop: watch::Receiver<Stop>,
) -> Result<Ended, ProxyError> {
    let mut predecessor = match &options.takeover {
        Some(path) => Predecessor::ask(path).await?,
        None => None,
    };
    let mut proxy = start(&options, controller, predecessor.as_mut()).await?;
    if let Some(predecessor) = predecessor {
        let (readiness, status) = (Arc::clone(&proxy.readiness), Arc::clone(&proxy.status));
        tokio::select! {
            replaced = predecessor.replace(&readiness, &status) => replaced?,
            // Nothing was accepted.
            _ = stop.wait_for(|stop| *stop > Stop::No) => return Ok(Ended::Drained),
            defect = proxy.defect() => return Err(defect),
        }
        tracing::info!("took over from the process before");
    }
    let door = options.takeover.as_deref().map(Door::open).transpose()?;
    let end = proxy.serve(&options, door.as_ref(), &mut stop).await;
    if let (Some(door), Ok((_, None)) | Err(_)) = (door, &end) {
        // Nobody is to ask who ends.
        door.close();
    }
    let (own, successor) = end?;
    proxy.readiness.drain();
    let (floor, own) = match successor {
        // Clients find the other process at the same address.
        Some(successor) => {
            drop(own);
            // It counts from nothing, and should find something that it may let through.
            proxy.shares.leave(Keeps::Little).await;
            // A port that is wanted from now on is the other one's to bind.
            proxy.configuration.abort();
            let _ = (&mut proxy.configuration).await;
            successor.begin().await;
            (Duration::ZERO, None)
        }
        None => (options.accept_floor, Some(own)),
    };
    let ended = drain(&options, floor, &mut proxy.workers, &mut stop).await;
    drop(own);
    proxy.shares.leave(Keeps::Nothing).await;
    proxy.stop().await;
    Ok(ended)
}

/// A proxy that has been started.
struct Running {
    workers: Workers,
    readiness: Arc<Readiness>,
    status: Arc<Status>,
    admin: std::net::TcpListener,
    shown: Option<AdminState>,
    shares: Arc<shares::Exchange>,
    configuration: JoinHandle<()>,
    caretaking: JoinHandle<()>,
    upkeep: Vec<JoinHandle<()>>,
    writer: Option<Writer>,
}

/// What only the process has that serves, and gives up with this value.
struct Own {
    administration: JoinHandle<()>,
    writing: Option<JoinHandle<()>>,
}

impl Drop for Own {
    fn drop(&mut self) {
        self.administration.abort();
        self.writing.iter().for_each(JoinHandle::abort);
    }
}

/// Starts everything. Nothing is accepted and nothing written before [`Running::serve`].
async fn start(
    options: &Options,
    controller: Dialer,
    mut predecessor: Option<&mut Predecessor>,
) -> Result<Running, ProxyError> {
    let admin = admin_socket(options.admin, predecessor.as_deref_mut()).await?;
    let current: Current = Arc::new(ArcSwap::from_pointee(Snapshot::default()));
    let started = Instant::now();
    let place = Place { zone: options.zone.as_str().into(), node: options.node.as_str().into() };
    let (to_health, judged) = mpsc::channel(outcomes::BATCHES_MAX);
    let sealer = Arc::new(Sealer::new()?);
    let (store, storing) = options.session_store.clone().map(Store::open).unzip();
    let keeping = Arc::new(Keeping { sealer: Arc::clone(&sealer), store });
    let outcomes = || (Outcomes::new(started, to_health.clone()), Arc::clone(&keeping));
    let workers = start_workers(options, &current, outcomes)?;
    drop(to_health);
    let readiness = Arc::new(Readiness::default());
    let mut sockets = Sockets::new(options.bind, workers.listeners.clone());
    let open_state = match predecessor {
        Some(predecessor) => {
            sockets = sockets.inheriting(std::mem::take(&mut predecessor.listeners));
            State::inherit
        }
        None => State::open,
    };
    let (exchange, heard) = Exchange::new();
    let applier =
        Applier::new(Arc::clone(&current), sockets).placed(place, started, exchange).sealing(sealer);
    let status = applier.status();
    let kept = options.state.as_ref().map(|state| open_state(state, Arc::clone(&status))).transpose()?;
    let (state, writer) = kept.unzip();
    let counts = Arc::new(health::Counts::default());
    let caretaker = Caretaker::new(applier.surroundings(Arc::clone(&counts)));
    let (view, questions) = View::new();
    let (shares, words) = shares::Exchange::new();
    let seen = Seen {
        workers: workers.counters.clone(),
        health: counts,
        view,
        keeping,
        shares: Arc::clone(&shares),
        access_log: workers.access_log.as_ref().map(Writing::counts).unwrap_or_default(),
    };
    let shown = AdminState::new(Arc::clone(&current), seen, Arc::clone(&readiness), &applier)
        .with_pages(options.pages.clone());
    let caretaking = tokio::spawn(caretaker.run(judged, questions, heard));
    let (id, ready) = (options.proxy_id.clone(), Arc::clone(&readiness));
    let sharing = tokio::spawn(shares::run(Arc::clone(&current), started, Arc::clone(&shares), words));
    let client =
        client::run(controller, id, applier, state, ready, Arc::clone(&shares), std::future::pending());
    let configuration = tokio::spawn(client);
    let sessions = tokio::spawn(sessions::upkeep::run(current, started));
    let upkeep = [Some(sessions), Some(sharing), storing.map(tokio::spawn)].into_iter().flatten().collect();
    tracing::info!(admin = %options.admin, workers = options.workers, "proxy started");
    let shown = Some(shown);
    Ok(Running {
        workers,
        readiness,
        status,
        admin,
        shown,
        shares,
        configuration,
        caretaking,
        upkeep,
        writer,
    })
}

/// The one of the process before, where it has the same address.
async fn admin_socket(
    address: SocketAddr,
    predecessor: Option<&mut Predecessor>,
) -> Result<std::net::TcpListener, ProxyError> {
    let inherited = predecessor.and_then(|predecessor| predecessor.admin.take());
    if let Some(socket) = inherited.filter(|socket| socket.local_addr().is_ok_and(|of| of == address)) {
        return Ok(socket);
    }
    let bound = TcpListener::bind(address).await.and_then(TcpListener::into_std);
    bound.map_err(|source| ProxyError::Admin { address, source })
}

impl Running {
    /// Serves until the end is asked for, or until a process that comes by `door` is ready. What only one process can
    /// have is given up with the value that this gives.
    async fn serve(
        &mut self,
        options: &Options,
        door: Option<&Door>,
        stop: &mut watch::Receiver<Stop>,
    ) -> Result<(Own, Option<Successor>), ProxyError> {
        let listening = self.admin.try_clone().and_then(TcpListener::from_std);
        let listening = listening.map_err(|source| ProxyError::Admin { address: options.admin, source })?;
        let shown = self.shown.take().expect("a proxy serves once");
        let mut own = Own {
            administration: tokio::spawn(admin::serve(listening, shown, std::future::pending())),
            writing: self.writer.take().map(|writer| tokio::spawn(writer.run())),
        };
        self.workers.phase.send_replace(Phase::Serve);
        let (admin, lend) = (&self.admin, self.workers.listeners.clone());
        let successor = async {
            match door {
                Some(door) => door.successor(&self.status, || estate(admin, &lend)).await,
                None => std::future::pending().await,
            }
        };
        let tasks = [
            ("administration", &mut own.administration),
            ("configuration", &mut self.configuration),
            ("health", &mut self.caretaking),
        ];
        let successor = tokio::select! {
            _ = stop.wait_for(|stop| *stop > Stop::No) => None,
            successor = successor => Some(successor),
            defect = defect(&mut self.workers.alive, tasks) => return Err(defect),
        };
        Ok((own, successor))
    }

    async fn defect(&mut self) -> ProxyError {
        let tasks = [("configuration", &mut self.configuration), ("health", &mut self.caretaking)];
        defect(&mut self.workers.alive, tasks).await
    }

    async fn stop(self) {
        self.configuration.abort();
        self.caretaking.abort();
        self.upkeep.iter().for_each(JoinHandle::abort);
        if let Some(writing) = self.workers.access_log {
            writing.finish().await;
        }
    }
}

/// Second handles of all sockets that are listened on.
async fn estate<'a>(admin: &'a std::net::TcpListener, workers: &[ToWorker]) -> Estate<'a> {
    let (to, mut lent) = mpsc::unbounded_channel();
    for worker in workers {
        let _ = worker.send(ListenerChange::Lend { to: to.clone() });
    }
    drop(to);
    let mut listeners = Vec::new();
    while let Some(socket) = lent.recv().await {
        listeners.push(socket);
    }
    Estate { listeners, admin }
}

/// Waits for the end of something that only ends when it is told to.
async fn defect<const N: usize>(
    workers: &mut mpsc::Receiver<()>,
    mut tasks: [(&'static str, &mut JoinHandle<()>); N],
) -> ProxyError {
    let task = poll_fn(|cx| {
        let mut ended = tasks
            .iter_mut()
            .filter_map(|(name, task)| Pin::new(&mut **task).poll(cx).is_ready().then_some(*name));
        ended.next().map_or(Poll::Pending, Poll::Ready)
    });
    tokio::select! {
        _ = workers.recv() => ProxyError::WorkerEnded,
        name = task => ProxyError::TaskEnded(name),
    }
}

/// Serves on for `floor`, asks clients to go, waits for them, then stops waiting.
async fn drain(
    options: &Options,
    floor: Duration,
    workers: &mut Workers,
    stop: &mut watch::Receiver<Stop>,
) -> Ended {
    let limit = options.drain_limit;
    tracing::info!(?floor, ?limit, "draining: not ready any more, and requests may finish");
    let orderly = async {
        tokio::time::sleep(floor).await;
        tracing::info!(?limit, "draining: no connection is accepted any more, and clients are asked to go");
        workers.phase.send_replace(Phase::Drain);
        tokio::time::timeout(limit, workers.alive.recv()).await.map_or(Ended::Cut, |_| Ended::Drained)
    };
    let ended = tokio::select! {
        ended = orderly => ended,
        _ = stop.wait_for(|stop| *stop == Stop::Now) => Ended::Forced,
    };
    if ended == Ended::Drained {
        tracing::info!("drained: every request finished");
        return ended;
    }
    let sum = |of: fn(&Counters) -> &Count| counters::sum(&workers.counters, of);
    let connections = sum(|worker| &worker.connections_open);
    let (requests, tunnels) = (sum(|worker| &worker.upstream_in_flight), sum(|worker| &worker.tunnels_open));
    let why = if ended == Ended::Cut { "the drain limit has passed" } else { "asked to end at once" };
    tracing::warn!(why, connections, requests, tunnels, "what was still open is cut");
    workers.phase.send_replace(Phase::Stop);
    workers.alive.recv().await;
    ended
}

type ToWorker = mpsc::UnboundedSender<ListenerChange>;

struct Workers {
    counters: Vec<Arc<Counters>>,
    listeners: Vec<ToWorker>,
    phase: watch::Sender<Phase>,
    /// Closed when the last worker has ended; nothing is ever sent.
    alive: mpsc::Receiver<()>,
    access_log: Option<Writing>,
}

fn start_workers(
    options: &Options,
    current: &Current,
    keeps: impl Fn() -> (Outcomes, Arc<Keeping>),
) -> Result<Workers, ProxyError> {
    let (phase, phases) = watch::channel(Phase::Hold);
    let (alive, all_ended) = mpsc::channel(1);
    let sources = Arc::<crate::sources::Sources>::default();
    let (desk, access_log) = options.access_log.as_ref().map(access_log::start).transpose()?.unzip();
    let (counters, listeners) = (Vec::new(), Vec::new());
    let mut workers = Workers { counters, listeners, phase, alive: all_ended, access_log };
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
            tunnel_spread: options.tunnel_spread.min(options.drain_limit * 4 / 5),
            sources: Arc::clone(&sources),
            access_log: desk.clone(),
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
            let tasks = [("configuration", &mut configuration), ("administration", &mut administration)];
            let defect = defect(&mut workers, tasks).await;
            assert!(defect.to_string().starts_with(named), "{defect}");
            configuration.abort();
            administration.abort();
        }
        let (alive, mut workers) = mpsc::channel(1);
        drop(alive);
        let defect = defect(&mut workers, [("configuration", &mut task(false))]).await;
        assert!(matches!(defect, ProxyError::WorkerEnded));
    }
}

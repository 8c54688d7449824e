//! A worker: one thread, one current-thread runtime, its own listening sockets and upstream connections.
//!
//! Everything of a request happens on the worker that accepted its connection, so nothing here is shared and
//! nothing is locked. Configuration, metrics and administration run elsewhere and reach in by atomics.

use crate::access_log::{AccessLog, Desk};
use crate::balance::{Target, Turns};
use crate::connection::{self, Arrival, Peer, Scheme};
use crate::counters::Counters;
use crate::failure::Failure;
use crate::layer4::udp;
use crate::listener::{Door, ListenerChange, ListeningSocket, Transport};
use crate::message::RequestHead;
use crate::outcomes::{self, Outcomes};
use crate::pool::Pools;
use crate::rates::{self, Telling};
use crate::sessions::{Keeping, Moment, Seen};
use crate::snapshot::{Current, ListenerLimits, Snapshot};
use crate::sources::{Counted, Handshake, Refused, Sources};
use crate::timer::{Spread, TICK, Timers, Whose};
use crate::warm;
use crate::wire::poll_once;
use lb_core::balance::{Outcome, OutcomeKind, Rng};
use lb_core::resilience::RetryBudget;
use lb_core::route::{Route, Sessions};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::spawn_local;

/// How often idle upstream connections and forgotten state are swept.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that wait for a request are closed within this time after they are asked to go. A client that keeps its
/// connection busy sends another request in it, and learns from the answer; for others the moments are spread.
pub(crate) const IDLE_SPREAD: Duration = Duration::from_secs(1);

/// What a worker is to do, in the order of a shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Be ready, and accept nothing yet: another process still does.
    Hold,
    /// Accept and serve.
    Serve,
    /// Accept nothing, ask clients to go (`Connection: close`, GOAWAY), close what is idle, end tunnels over their time,
    /// end when the last connection has ended.
    Drain,
    /// End now.
    Stop,
}

/// What a worker is made of.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) index: usize,
    /// Workers in this process.
    pub(crate) count: usize,
    pub(crate) current: Current,
    pub(crate) counters: Arc<Counters>,
    pub(crate) listeners: mpsc::UnboundedReceiver<ListenerChange>,
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) outcomes: Outcomes,
    pub(crate) keeping: Arc<Keeping>,
    pub(crate) sources: Arc<Sources>,
    pub(crate) access_log: Option<Desk>,
    /// Over which tunnels are ended.
    pub(crate) tunnel_spread: Duration,
    /// Held until the worker has ended.
    pub(crate) alive: mpsc::Sender<()>,
}

/// A snapshot as one worker's requests share it: taking it writes to this worker's memory only, where another `Arc`
/// would have all workers write to one counter.
#[allow(clippy::redundant_allocation, reason = "the outer count is the point")]
pub(crate) type Held = Rc<Arc<Snapshot>>;

/// State of one worker, within reach of all its connections.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) counters: Arc<Counters>,
    pub(crate) timers: Rc<Timers>,
    pub(crate) turns: Turns,
    pub(crate) outcomes: Outcomes,
    pub(crate) pool: Pools,
    pub(crate) access_log: AccessLog,
    keeping: Arc<Keeping>,
    sources: Arc<Sources>,
    current: Current,
    held: RefCell<Held>,
    connections: Cell<usize>,
    ended: Notify,
    /// For tasks that outlive the request that began them.
    pub(crate) me: Weak<Worker>,
    /// Copies of requests that are under way.
    pub(crate) mirrors_in_flight: Cell<usize>,
}

impl Worker {
    /// The configuration in force. Held for one request; costs no shared write while nothing changes.
    pub(crate) fn snapshot(&self) -> Held {
        let current = self.current.load();
        let mut held = self.held.borrow_mut();
        if !Arc::ptr_eq(&held, &current) {
            *held = Rc::new(Arc::clone(&current));
        }
        Rc::clone(&held)
    }

    /// What a request says of its session.
    pub(crate) fn session<'a>(
        &'a self,
        sessions: &'a Sessions,
        head: &mut RequestHead,
        peer: &Peer,
    ) -> Seen<'a> {
        let of_day = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let since_start = self.outcomes.since_start(Instant::now());
        let seen = self.keeping.seen(sessions, head, peer, Moment { of_day, since_start });
        if let Some(refusal) = seen.refusal() {
            self.counters.cookie_refused(refusal);
        }
        seen
    }

    /// Lets a request of this route go on, where it may come from there and so often.
    ///
    /// # Errors
    /// What it is refused for.
    pub(crate) fn admit(
        &self,
        route: &Route,
        head: &RequestHead,
        peer: &Peer,
        telling: &mut Telling,
    ) -> Result<(), Failure> {
        rates::check(route, head, peer, || self.outcomes.since_start(Instant::now()), telling)
    }

    /// Counts a client's connection in with its source, and the handshake that it begins.
    pub(crate) fn admit_client(&self, client: &Peer) -> Result<Counted, Refused> {
        let admitted = self.sources.admit_source(client.port, client.address, &client.limits)?;
        let shakes_hands = client.scheme == Scheme::Https;
        if shakes_hands && !self.sources.may_shake_hands(client.port, client.address, &client.limits) {
            return Err(Refused::Handshakes);
        }
        Ok(admitted)
    }

    /// Counts a flow in, with its port and with its source.
    pub(crate) fn admit_flow(&self, client: &Peer) -> Result<(Counted, Counted), Refused> {
        let of_port = self.sources.admit(client.port, &client.limits)?;
        Ok((of_port, self.sources.admit_source(client.port, client.address, &client.limits)?))
    }

    /// Counts a handshake among those that are under way.
    pub(crate) fn begin_handshake(&self, peer: &Peer) -> Result<Handshake, Refused> {
        self.sources.begin_handshake(peer.port, peer.address, &peer.limits)
    }

    /// What a connection of layer 4 says of its session.
    pub(crate) fn session_of_source<'a>(&'a self, sessions: &'a Sessions, peer: &Peer) -> Seen<'a> {
        let of_day = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let since_start = self.outcomes.since_start(Instant::now());
        self.keeping.seen_of_source(sessions, peer, Moment { of_day, since_start })
    }

    /// Tells those whom it concerns what came of a request, or of a connection of layer 4, on a backend.
    pub(crate) fn record(&self, target: &Target<'_>, begun: Instant, kind: OutcomeKind) {
        let latency = begun.elapsed();
        if let Some(probe) = target.probe.take() {
            probe.end(self.outcomes.since_start(Instant::now()), !outcomes::is_failure(kind));
        }
        let (live, backend) = (target.slot.live(), target.backend.as_ref());
        self.outcomes.record(target.set, live, backend, Outcome { latency, kind });
    }

    /// Takes a retry out of a set's budget, where there is one left.
    pub(crate) fn may_retry(&self, budget: &RetryBudget) -> bool {
        let now = self.outcomes.since_start(Instant::now());
        self.turns.count_requests(now);
        let allowed = budget.withdraw(now);
        if !allowed {
            self.counters.retries_refused.add(1);
        }
        allowed
    }
}

/// Starts a worker's thread and waits until it can serve. It ends as [`Phase`] says.
///
/// # Errors
/// When the system gives no thread or no event queue.
pub(crate) fn spawn(seat: Seat) -> io::Result<()> {
    let name = format!("worker-{}", seat.index);
    let (started, starting) = std::sync::mpsc::sync_channel(1);
    let work = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build_local(tokio::runtime::LocalOptions::default());
        // Whoever started us waits for this one message.
        match runtime {
            Ok(runtime) => {
                let _ = started.send(Ok(()));
                runtime.block_on(run(seat));
            }
            Err(error) => drop(started.send(Err(error))),
        }
    };
    std::thread::Builder::new().name(name).spawn(work)?;
    starting.recv().map_err(io::Error::other)?
}

async fn run(seat: Seat) {
    let Seat {
        index,
        count,
        current,
        counters,
        mut listeners,
        mut phase,
        outcomes,
        keeping,
        sources,
        access_log,
        tunnel_spread,
        alive,
    } = seat;
    let held = RefCell::new(Rc::new(current.load_full()));
    let worker = Rc::new_cyclic(|me| Worker {
        counters,
        timers: Rc::default(),
        turns: Turns::new(index as u64),
        outcomes,
        pool: Pools::new(index, count),
        access_log: AccessLog::new(access_log),
        keeping,
        sources,
        current,
        held,
        connections: Cell::new(0),
        ended: Notify::new(),
        me: Weak::clone(me),
        mirrors_in_flight: Cell::new(0),
    });
    let upkeep = spawn_local(upkeep(Rc::clone(&worker)));
    let merging = Rc::clone(&worker);
    let merge = spawn_local(async move { merging.outcomes.merge().await });
    let mut doors = Doors {
        worker: Rc::clone(&worker),
        accepting: BTreeMap::new(),
        spread: Spread { idle: IDLE_SPREAD, tunnels: tunnel_spread },
        random: Rng::new(RandomState::new().hash_one(index)),
    };
    let mut now = *phase.borrow_and_update();
    while now < Phase::Drain {
        tokio::select! { biased;
            changed = phase.changed() => {
                now = if changed.is_ok() { *phase.borrow_and_update() } else { Phase::Stop };
            }
            Some(change) = listeners.recv(), if now > Phase::Hold => doors.change(change),
        }
    }
    doors.leave();
    // The accepting tasks take what is in their backlogs before this goes on.
    tokio::task::yield_now().await;
    while worker.connections.get() > 0 && *phase.borrow() < Phase::Stop {
        tokio::select! {
            () = worker.ended.notified() => {}
            changed = phase.changed() => if changed.is_err() { break },
        }
    }
    upkeep.abort();
    merge.abort();
    drop(alive);
}

/// A listening socket, and what stops its task.
type Accepting = (Served, Rc<Notify>);

/// A listening socket whose task has it too.
enum Served {
    Streams(Rc<TcpListener>),
    Datagrams(Rc<UdpSocket>),
}

impl AsFd for Served {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Streams(socket) => socket.as_fd(),
            Self::Datagrams(socket) => socket.as_fd(),
        }
    }
}

/// Where clients come in, and how they are asked to go.
struct Doors {
    worker: Rc<Worker>,
    accepting: BTreeMap<Door, Vec<Accepting>>,
    spread: Spread,
    /// Seeded by the system, so that workers and proxies do not end their tunnels in step.
    random: Rng,
}

impl Doors {
    fn change(&mut self, change: ListenerChange) {
        match change {
            ListenerChange::Open { port, socket } => {
                if let Err(error) = self.open(port, socket) {
                    tracing::error!(port, %error, "a listening socket cannot be used");
                }
            }
            ListenerChange::Close { door } => {
                for (_, stop) in self.accepting.remove(&door).unwrap_or_default() {
                    stop.notify_one();
                }
                if door.transport == Transport::Tcp {
                    self.ask(Whose::Port(door.port));
                }
            }
            ListenerChange::PoolGone { sets } => self.ask(Whose::TunnelsTo(&sets)),
            ListenerChange::Lend { to } => {
                for (socket, _) in self.accepting.values().flatten() {
                    // Whoever asked looks at what came, and does without what did not.
                    let lent = socket.as_fd().try_clone_to_owned().and_then(ListeningSocket::of);
                    let _ = lent.map(|socket| to.send(socket));
                }
            }
        }
    }

    fn open(&mut self, port: u16, socket: ListeningSocket) -> io::Result<()> {
        let stop = Rc::<Notify>::default();
        let (transport, socket) = match socket {
            ListeningSocket::Streams(socket) => {
                let socket = Rc::new(TcpListener::from_std(socket)?);
                spawn_local(accept(Rc::clone(&self.worker), port, Rc::clone(&socket), Rc::clone(&stop)));
                self.worker.timers.stay(port);
                (Transport::Tcp, Served::Streams(socket))
            }
            ListeningSocket::Datagrams(socket) => {
                let socket = Rc::new(UdpSocket::from_std(socket)?);
                let served = udp::serve(Rc::clone(&self.worker), port, Rc::clone(&socket), Rc::clone(&stop));
                spawn_local(served);
                (Transport::Udp, Served::Datagrams(socket))
            }
        };
        self.accepting.entry(Door { transport, port }).or_default().push((socket, stop));
        Ok(())
    }

    /// Accepts no more, and asks everyone to go.
    fn leave(&mut self) {
        for (_, stop) in std::mem::take(&mut self.accepting).into_values().flatten() {
            stop.notify_one();
        }
        self.ask(Whose::Everyone);
    }

    fn ask(&mut self, whose: Whose<'_>) {
        self.worker.timers.leave(whose, self.spread, &mut self.random);
    }
}

/// Moves the timers and sweeps what is forgotten.
async fn upkeep(worker: Rc<Worker>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut sweep_at = Instant::now() + SWEEP_INTERVAL;
    loop {
        ticks.tick().await;
        worker.timers.tick();
        worker.turns.count_requests(worker.outcomes.since_start(Instant::now()));
        worker.pool.give_up_wanted();
        worker.access_log.flush();
        let now = Instant::now();
        if now >= sweep_at {
            sweep_at = now + SWEEP_INTERVAL;
            // An idle worker would otherwise keep an old snapshot alive.
            drop(worker.snapshot());
            worker.pool.expire();
            warm::round(&worker);
            worker.turns.sweep();
        }
    }
}

async fn accept(worker: Rc<Worker>, port: u16, socket: Rc<TcpListener>, stop: Rc<Notify>) {
    loop {
        let accepted = tokio::select! { biased;
            accepted = socket.accept() => accepted,
            () = stop.notified() => break,
        };
        match accepted {
            Ok((stream, address)) => serve(&worker, port, stream, address),
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(port, %error, "no connection can be accepted; trying again");
                let pause = worker.timers.deadline();
                pause.set(Some(ACCEPT_PAUSE));
                pause.passed().await;
            }
        }
    }
    // Closing the socket resets whoever is established in its backlog.
    while let Some(Ok((stream, address))) = poll_once(socket.accept()).await {
        serve(&worker, port, stream, address);
    }
}

fn serve(worker: &Rc<Worker>, port: u16, stream: TcpStream, address: SocketAddr) {
    worker.counters.connections_accepted.add(1);
    let snapshot = worker.snapshot();
    // Accepted while the listener was being removed.
    let Some(listener) = snapshot.listeners.get(&port) else { return };
    let Some(arrival) = Arrival::new(listener, stream, address) else { return };
    let admitted = match admit(worker, port, &listener.limits, &arrival) {
        Ok(admitted) => admitted,
        Err(why) => return arrival.refuse(worker, why),
    };
    let open = (Open::new(worker), admitted);
    let worker = Rc::clone(worker);
    spawn_local(async move {
        connection::serve(worker, arrival).await;
        drop(open);
    });
}

/// What a connection counts with: its port, and its source where that is known.
type Counts = (Counted, Option<Counted>);

/// Counts a connection in, where its listener's limits let it be.
fn admit(worker: &Worker, port: u16, limits: &ListenerLimits, arrival: &Arrival) -> Result<Counts, Refused> {
    let of_port = worker.sources.admit(port, limits)?;
    let of_source = arrival.client().map(|client| worker.admit_client(client)).transpose()?;
    Ok((of_port, of_source))
}

/// The client gave up between its SYN and our accept; nothing is wrong here.
fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

/// A connection that is open.
struct Open(Busy);

impl Open {
    fn new(worker: &Rc<Worker>) -> Self {
        worker.counters.connections_open.add(1);
        Self(Busy::new(worker))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.0.counters.connections_open.sub(1);
    }
}

/// What a worker waits for before it ends: a connection, or a flow.
pub(crate) struct Busy(Rc<Worker>);

impl Busy {
    pub(crate) fn new(worker: &Rc<Worker>) -> Self {
        worker.connections.set(worker.connections.get() + 1);
        Self(Rc::clone(worker))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.connections.set(self.0.connections.get() - 1);
        self.0.ended.notify_one();
    }
}

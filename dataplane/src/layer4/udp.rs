//! The life of a flow: datagrams of one source, to one backend and back.
//!
//! The kernel keeps a source at one worker (SO_REUSEPORT goes by both ends of a datagram), so that a worker's table is all
//! that there is to know of its flows. Each flow has a socket of its own to its backend, connected, so that only that backend
//! can answer and an ICMP error is this flow's; answers leave from the listener's socket. Nothing waits here: a datagram that
//! cannot go now is dropped and counted, as any network may do.

use super::{find_route, in_place_of};
use crate::balance::{Ask, Place, Target};
use crate::connection::Peer;
use crate::failure::Failure;
use crate::proxied::{Ends, canonical};
use crate::rates;
use crate::sessions::Seen;
use crate::snapshot::{Listener, Snapshot};
use crate::sources::Counted;
use crate::timer::TICK;
use crate::worker::{Busy, Worker};
use http::HeaderMap;
use lb_core::backend::{BackendSet, Live, Membership};
use lb_core::balance::{Outcome, OutcomeKind};
use lb_core::flows::FlowTable;
use lb_core::resilience::Probe;
use lb_core::route::Route;
use lb_core::sessions::Choice;
use rustix::net::{SendFlags, sendto};
use std::cell::{Cell, RefCell};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{Interest, Ready};
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, spawn_local, yield_now};

/// Flows of one port and worker; a datagram of one more source is dropped.
const FLOWS_MAX: usize = 65_536;

/// Largest datagram, in bytes: what UDP can carry.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// Datagrams that are taken from one socket before others have their turn.
const BATCH: usize = 64;

const NOWAIT: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

/// How long a flow may be silent once its port closes or the process ends: as long as an answer takes.
const ENDING_IDLE: Duration = Duration::from_secs(1);

/// A listening socket of one worker, with its flows.
struct Port {
    worker: Rc<Worker>,
    number: u16,
    socket: Rc<UdpSocket>,
    /// Where clients send to.
    local: SocketAddr,
    flows: RefCell<FlowTable<Flow>>,
    /// For one datagram, whichever way it goes.
    buffer: RefCell<Box<[u8]>>,
    is_ending: Cell<bool>,
}

struct Flow {
    /// Its backend does not take datagrams: the next one is for another.
    is_refused: bool,
    upstream: Rc<UdpSocket>,
    /// Tells its answers that a datagram to its backend was refused.
    refused: Rc<Notify>,
    choice: Choice,
    live: Arc<Live>,
    /// What the choice was looked at under last.
    looked: (u64, Arc<Membership>),
    set: Arc<BackendSet>,
    answers: JoinHandle<()>,
    /// It counts as a request on its backend, with the port and with its source.
    _held: (crate::balance::Slot, Counted, Counted, Busy),
}

impl Flow {
    /// Whether nothing has changed since its backend was looked at, which takes datagrams.
    fn is_settled(&self, snapshot: &Snapshot) -> bool {
        !self.is_refused
            && self.looked.0 == snapshot.version
            && Arc::ptr_eq(&self.looked.1, &self.set.members())
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.answers.abort();
    }
}

/// Serves one socket until it is told to stop and its flows have ended.
pub(crate) async fn serve(worker: Rc<Worker>, number: u16, socket: Rc<UdpSocket>, stop: Rc<Notify>) {
    let Ok(local) = socket.local_addr() else { return };
    let deadline = worker.timers.deadline();
    let port = Rc::new(Port {
        worker,
        number,
        socket,
        local: canonical(local),
        flows: RefCell::new(FlowTable::new(FLOWS_MAX)),
        buffer: RefCell::new(vec![0; DATAGRAM_BYTES_MAX].into()),
        is_ending: Cell::new(false),
    });
    deadline.set(Some(TICK));
    loop {
        tokio::select! { biased;
            () = stop.notified(), if !port.is_ending.get() => port.end(),
            () = deadline.passed() => {
                deadline.set(Some(TICK));
                port.expire();
            }
            ready = port.socket.readable() => {
                if ready.is_ok() {
                    port.take_what_came();
                }
                yield_now().await;
            }
        }
        if port.is_ending.get() && port.flows.borrow().is_empty() {
            return;
        }
    }
}

impl Port {
    /// New sources are not taken any more, and those that are there have as long as an answer takes.
    fn end(&self) {
        self.is_ending.set(true);
        self.flows.borrow_mut().shorten(ENDING_IDLE);
    }

    fn expire(&self) {
        let over = self.flows.borrow_mut().expire(self.now());
        self.worker.counters.flows_open.sub(over.len() as u64);
    }

    fn remove(&self, source: SocketAddr) {
        let removed = self.flows.borrow_mut().remove(source);
        self.worker.counters.flows_open.sub(u64::from(removed.is_some()));
    }

    fn now(&self) -> Duration {
        self.worker.outcomes.since_start(Instant::now())
    }

    fn take_what_came(self: &Rc<Self>) {
        let mut buffer = self.buffer.borrow_mut();
        for _ in 0..BATCH {
            match self.socket.try_recv_from(&mut buffer) {
                Ok((length, source)) => self.take(source, &buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // About an answer that a client did not take.
                Err(_) => {}
            }
        }
    }

    /// A datagram of a client.
    fn take(self: &Rc<Self>, source: SocketAddr, bytes: &[u8]) {
        let counters = &self.worker.counters;
        counters.datagrams[0].add(1);
        let flow = self.flow(source);
        let sent =
            flow.and_then(|upstream| send(&upstream, bytes).map_err(|error| self.unsent(source, &error)));
        match sent {
            Ok(_) => counters.layer4_bytes[0].add(bytes.len() as u64),
            Err(Refusal(reason)) => counters.datagram_dropped(reason),
        }
    }

    /// An error that came by ICMP is of a datagram before this one, and the flow's answers are told.
    fn unsent(&self, source: SocketAddr, error: &io::Error) -> Refusal {
        use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
        let is_told = [ConnectionRefused, HostUnreachable, NetworkUnreachable].contains(&error.kind());
        if is_told && let Some(flow) = self.flows.borrow_mut().find(source, self.now()) {
            flow.refused.notify_one();
        }
        Refusal("unsent")
    }

    /// Where a source's datagrams go: as before where that backend still takes them, or chosen anew.
    fn flow(self: &Rc<Self>, source: SocketAddr) -> Result<Rc<UdpSocket>, Refusal> {
        let (now, snapshot) = (self.now(), self.worker.snapshot());
        let before = match self.flows.borrow_mut().find(source, now) {
            Some(flow) if flow.is_settled(&snapshot) => return Ok(Rc::clone(&flow.upstream)),
            Some(flow) => Some(Before {
                choice: (!flow.is_refused).then_some(flow.choice),
                live: Arc::clone(&flow.live),
            }),
            None => None,
        };
        if before.is_none() && self.is_ending.get() {
            return Err(Refusal("ending"));
        }
        self.choose(source, &snapshot, before, now)
    }

    fn choose(
        self: &Rc<Self>,
        source: SocketAddr,
        snapshot: &Snapshot,
        before: Option<Before>,
        now: Duration,
    ) -> Result<Rc<UdpSocket>, Refusal> {
        let placed = || -> Result<_, Failure> {
            let listener = snapshot.datagrams.get(&self.number).ok_or(Failure::NoRoute)?;
            let ends = Ends { from: canonical(source), to: self.local };
            let peer = Peer::of_listener(listener, ends);
            let placed = self.place(&peer, listener, before.as_ref(), now)?;
            Ok((peer, placed))
        };
        let (peer, (route, target, members)) = match placed() {
            Ok(placed) => placed,
            Err(failure) => {
                self.remove(source);
                return Err(failure.into());
            }
        };
        let is_same = before
            .is_some_and(|before| before.choice.is_some() && Arc::ptr_eq(&before.live, target.slot.live()));
        if is_same && let Some(flow) = self.flows.borrow_mut().find(source, now) {
            flow.looked = (snapshot.version, members);
            flow.set = Arc::clone(target.set);
            return Ok(Rc::clone(&flow.upstream));
        }
        self.remove(source);
        self.begin(source, &peer, route, target, (snapshot.version, members), now)
    }

    /// The stages of a flow that begins, or whose backend may be gone.
    fn place<'s>(
        &self,
        peer: &Peer,
        listener: &'s Listener,
        before: Option<&Before>,
        now: Duration,
    ) -> Result<(&'s Arc<Route>, Target<'s>, Arc<Membership>), Failure> {
        let route = find_route(listener, "")?;
        rates::let_in(route, peer)?;
        let session = route.sessions.as_ref().map(|sessions| self.worker.session_of_source(sessions, peer));
        let of_session = session.as_ref().map_or(&[][..], |session| session.choices());
        let of_flow = before.and_then(|before| before.choice);
        let choices: Vec<Choice> = of_flow.into_iter().chain(of_session.iter().copied()).collect();
        let refused = before.filter(|before| before.choice.is_none()).map(|before| Arc::clone(&before.live));
        let ask = Ask {
            head: None,
            peer,
            choices: &choices,
            session_key: session.as_ref().and_then(Seen::key),
            tried: refused.as_slice(),
            now,
            is_waiting: false,
        };
        let target = match self.worker.turns.place(route, &ask)? {
            Place::Backend(target) => target,
            Place::Response(response) => return Err(in_place_of(response)),
            Place::Queue(_) | Place::Home(_) => return Err(Failure::QueueFull),
        };
        if let Some(session) = session.filter(|_| !target.is_fallback.get()) {
            self.worker.counters.session(session.keep(target.choice, &mut HeaderMap::new()));
        }
        let members = Arc::clone(&target.set.members());
        Ok((route, target, members))
    }

    fn begin(
        self: &Rc<Self>,
        source: SocketAddr,
        peer: &Peer,
        route: &Route,
        target: Target<'_>,
        looked: (u64, Arc<Membership>),
        now: Duration,
    ) -> Result<Rc<UdpSocket>, Refusal> {
        let counted = self.worker.admit_flow(peer).map_err(|_| Refusal("limit"))?;
        let upstream = Rc::new(connected(target.address).map_err(|_| Refusal("no_socket"))?);
        let refused = Rc::new(Notify::new());
        let answers = Answers {
            port: Rc::clone(self),
            source,
            upstream: Rc::clone(&upstream),
            refused: Rc::clone(&refused),
            set: Arc::clone(target.set),
            live: Arc::clone(target.slot.live()),
            backend: target.backend.clone(),
            probe: target.probe.take(),
            begun: Instant::now(),
            is_answered: false,
        };
        let flow = Flow {
            is_refused: false,
            upstream: Rc::clone(&upstream),
            refused,
            choice: target.choice,
            live: Arc::clone(target.slot.live()),
            looked,
            set: Arc::clone(target.set),
            answers: spawn_local(answers.pass()),
            _held: (target.slot, counted.0, counted.1, Busy::new(&self.worker)),
        };
        let idle = if self.is_ending.get() { ENDING_IDLE } else { route.timeouts.flow_idle };
        self.flows.borrow_mut().insert(source, flow, idle, now).map_err(|_| Refusal("limit"))?;
        self.worker.counters.flows.add(1);
        self.worker.counters.flows_open.add(1);
        Ok(upstream)
    }
}

/// Where a flow is whose backend may be gone.
struct Before {
    /// `None` where that backend has refused it.
    choice: Option<Choice>,
    live: Arc<Live>,
}

/// Why a datagram is dropped.
#[derive(Debug, Clone, Copy)]
struct Refusal(&'static str);

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self(failure.answer().1)
    }
}

/// Past the runtime, which knows of a new socket only later that it can be written to.
fn send(upstream: &UdpSocket, bytes: &[u8]) -> io::Result<usize> {
    Ok(rustix::net::send(upstream, bytes, NOWAIT)?)
}

fn connected(to: SocketAddr) -> io::Result<UdpSocket> {
    let any = match to {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = std::net::UdpSocket::bind(any)?;
    socket.set_nonblocking(true)?;
    socket.connect(to)?;
    UdpSocket::from_std(socket)
}

/// The way back of one flow.
struct Answers {
    port: Rc<Port>,
    source: SocketAddr,
    upstream: Rc<UdpSocket>,
    refused: Rc<Notify>,
    set: Arc<BackendSet>,
    live: Arc<Live>,
    /// Of the backend, where what becomes of requests is of interest.
    backend: Option<Arc<str>>,
    probe: Option<Probe>,
    begun: Instant,
    is_answered: bool,
}

impl Answers {
    /// Until the flow ends, which ends this task too, or the backend is not there.
    async fn pass(mut self) {
        while self.may_read().await && self.pass_what_came().is_ok() {
            yield_now().await;
        }
        if !self.is_answered {
            self.record(OutcomeKind::ConnectFailure);
        }
        // The next datagram chooses anew, and not the same.
        if let Some(flow) = self.port.flows.borrow_mut().find(self.source, self.port.now())
            && Rc::ptr_eq(&flow.upstream, &self.upstream)
        {
            flow.is_refused = true;
        }
    }

    /// Until there is something to read. False where the backend's port is closed, as an ICMP error says to this task or to
    /// the next datagram, whichever looks first.
    async fn may_read(&mut self) -> bool {
        loop {
            let ready = tokio::select! {
                () = self.refused.notified() => None,
                ready = self.upstream.ready(Interest::READABLE | Interest::ERROR) => ready.ok(),
            };
            // Readable is what has datagrams; an error alone is not.
            let error = ready.is_some_and(Ready::is_error).then(|| self.upstream.take_error());
            if ready.is_none() || !matches!(error, None | Some(Ok(None))) {
                // It was there, and is no more.
                self.is_answered = false;
                return false;
            }
            if error.is_some() {
                // A datagram had it. Looked at again with the next one.
                let none = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
                let _ = self.upstream.try_io(Interest::ERROR, none);
            }
            if ready.is_some_and(Ready::is_readable) {
                return true;
            }
        }
    }

    fn pass_what_came(&mut self) -> io::Result<()> {
        let port = Rc::clone(&self.port);
        let counters = &port.worker.counters;
        let mut buffer = port.buffer.borrow_mut();
        for _ in 0..BATCH {
            let length = match self.upstream.try_recv(&mut buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => {
                    // It was there, and is no more.
                    self.is_answered = false;
                    return Err(error);
                }
            };
            if !std::mem::replace(&mut self.is_answered, true) {
                self.record(OutcomeKind::Success);
            }
            counters.datagrams[1].add(1);
            counters.layer4_bytes[1].add(length as u64);
            port.flows.borrow_mut().find(self.source, port.now());
            // A client that takes nothing misses it, as it may miss any datagram.
            let _ = sendto(&*port.socket, &buffer[..length], NOWAIT, &self.source);
        }
        Ok(())
    }

    fn record(&mut self, kind: OutcomeKind) {
        let outcomes = &self.port.worker.outcomes;
        if let Some(probe) = self.probe.take() {
            probe.end(self.port.now(), kind == OutcomeKind::Success);
        }
        let latency = self.begun.elapsed();
        outcomes.record(&self.set, &self.live, self.backend.as_ref(), Outcome { latency, kind });
    }
}

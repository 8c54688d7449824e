//! Listening sockets, of connections and of datagrams: bound by the configuration, accepted on by the workers.
//!
//! Each worker has its own socket on each port (SO_REUSEPORT; the kernel spreads connections), so accepting
//! needs no lock and no hand-over. Binding is separate from opening: a port that cannot be bound refuses the
//! configuration that asked for it, before anything is swapped.

use socket2::{Domain, Protocol, Socket, Type};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Connections that the kernel holds for a worker before it accepts them.
pub const ACCEPT_BACKLOG: i32 = 4096;

/// What a port is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

/// A port, which is another for each transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Door {
    /// What it is of.
    pub transport: Transport,
    /// Its number.
    pub port: u16,
}

impl From<u16> for Door {
    /// One of connections.
    fn from(port: u16) -> Self {
        Self { transport: Transport::Tcp, port }
    }
}

/// A socket that clients send to.
#[derive(Debug)]
pub enum ListeningSocket {
    /// Of connections.
    Streams(TcpListener),
    /// Of datagrams.
    Datagrams(UdpSocket),
}

impl ListeningSocket {
    /// What a descriptor is of.
    ///
    /// # Errors
    /// When it is no socket.
    pub fn of(descriptor: OwnedFd) -> io::Result<Self> {
        let socket = Socket::from(descriptor);
        Ok(if socket.r#type()? == Type::DGRAM {
            Self::Datagrams(socket.into())
        } else {
            Self::Streams(socket.into())
        })
    }

    /// Its address, and what it is of.
    fn door(&self) -> io::Result<(IpAddr, Door)> {
        let (address, transport) = match self {
            Self::Streams(socket) => (socket.local_addr()?, Transport::Tcp),
            Self::Datagrams(socket) => (socket.local_addr()?, Transport::Udp),
        };
        Ok((address.ip(), Door { transport, port: address.port() }))
    }

    fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Streams(socket) => Self::Streams(socket.try_clone()?),
            Self::Datagrams(socket) => Self::Datagrams(socket.try_clone()?),
        })
    }

    fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Self::Streams(socket) => socket.set_nonblocking(true),
            Self::Datagrams(socket) => socket.set_nonblocking(true),
        }
    }
}

impl From<ListeningSocket> for OwnedFd {
    fn from(socket: ListeningSocket) -> Self {
        match socket {
            ListeningSocket::Streams(socket) => socket.into(),
            ListeningSocket::Datagrams(socket) => socket.into(),
        }
    }
}

/// A port that could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub struct BindError {
    /// Where.
    pub address: SocketAddr,
    /// Why, as the system said it.
    pub source: io::Error,
}

/// What a worker is told to do.
#[derive(Debug)]
pub enum ListenerChange {
    /// Accept on this socket from now on.
    Open {
        /// The listener's port in the snapshot.
        port: u16,
        /// Bound, listening and non-blocking.
        socket: ListeningSocket,
    },
    /// Accept no more on this port, and ask those who came to it to go.
    Close {
        /// The listener's port in the snapshot.
        door: Door,
    },
    /// Ask tunnels to a pool that is gone to end.
    PoolGone {
        /// What the names of its sets begin with.
        sets: Arc<str>,
    },
    /// Give a second handle of each listening socket; one that is accepted on is lent from all workers.
    Lend {
        /// Takes sockets. Closed once every worker has given what it has.
        to: mpsc::UnboundedSender<ListeningSocket>,
    },
}

/// All listening sockets of the process.
#[derive(Debug)]
pub struct Sockets {
    address: IpAddr,
    workers: Vec<mpsc::UnboundedSender<ListenerChange>>,
    bound: BTreeMap<Door, Vec<ListeningSocket>>,
    open: BTreeSet<Door>,
    /// What another process listened on, by port, until a configuration wants it.
    inherited: BTreeMap<Door, Vec<ListeningSocket>>,
    binding: Binding,
}

/// Whether ports are bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Binding {
    Real,
    /// For whoever only wants to know what would be served.
    Pretended,
}

impl Sockets {
    /// No sockets yet. They will be bound on `address`, one for each worker.
    #[must_use]
    pub fn new(address: IpAddr, workers: Vec<mpsc::UnboundedSender<ListenerChange>>) -> Self {
        Self {
            address,
            workers,
            bound: BTreeMap::new(),
            open: BTreeSet::new(),
            inherited: BTreeMap::new(),
            binding: Binding::Real,
        }
    }

    /// Ports that count as bound, and are not: nobody is served on them.
    #[must_use]
    pub fn pretended() -> Self {
        Self { binding: Binding::Pretended, ..Self::new(Ipv4Addr::UNSPECIFIED.into(), Vec::new()) }
    }

    /// Listens on these sockets, in place of binding their addresses, once a configuration wants their ports. Those of
    /// other addresses are closed.
    #[must_use]
    pub fn inheriting(mut self, sockets: Vec<ListeningSocket>) -> Self {
        for socket in sockets {
            let Ok((address, door)) = socket.door() else { continue };
            if address == self.address {
                self.inherited.entry(door).or_default().push(socket);
            }
        }
        self
    }

    /// Closes what was inherited and no configuration has wanted.
    pub fn give_up_inherited(&mut self) {
        self.inherited.clear();
    }

    /// Binds a port where it is not bound already; nothing is accepted on it before [`Self::open_exactly`].
    ///
    /// # Errors
    /// [`BindError`] when the port is taken or not permitted; nothing stays bound then.
    pub fn bind(&mut self, door: impl Into<Door>) -> Result<(), BindError> {
        let door = door.into();
        let is_pretended = self.binding == Binding::Pretended;
        if is_pretended || self.open.contains(&door) || self.bound.contains_key(&door) {
            return Ok(());
        }
        let address = SocketAddr::new(self.address, door.port);
        let sockets = match self.inherited.remove(&door) {
            Some(sockets) => share(sockets, self.workers.len()),
            None => bind_all(address, door.transport, self.workers.len()),
        };
        let sockets = sockets.map_err(|source| BindError { address, source })?;
        self.bound.insert(door, sockets);
        Ok(())
    }

    /// Hands bound ports that are in `ports` to the workers and takes all others back.
    pub fn open_exactly(&mut self, ports: &BTreeSet<Door>) {
        for (door, sockets) in std::mem::take(&mut self.bound) {
            if ports.contains(&door) {
                self.open.insert(door);
                for (worker, socket) in self.workers.iter().cycle().zip(sockets) {
                    // A worker that is gone is ending the process; there is nobody to tell.
                    let _ = worker.send(ListenerChange::Open { port: door.port, socket });
                }
            }
        }
        let close: Vec<Door> = self.open.difference(ports).copied().collect();
        for door in close {
            self.open.remove(&door);
            for worker in &self.workers {
                let _ = worker.send(ListenerChange::Close { door });
            }
        }
    }

    /// Asks the tunnels of a pool that is gone to end.
    pub fn pool_gone(&self, pool: &str) {
        let sets: Arc<str> = format!("{pool}/").into();
        for worker in &self.workers {
            let _ = worker.send(ListenerChange::PoolGone { sets: Arc::clone(&sets) });
        }
    }
}

/// At least one for each worker. What there is more of would be a queue that nobody empties, so that some workers get two;
/// what is missing is a second handle of another worker's.
fn share(mut sockets: Vec<ListeningSocket>, count: usize) -> io::Result<Vec<ListeningSocket>> {
    for at in 0..count.saturating_sub(sockets.len()) {
        sockets.push(sockets[at].try_clone()?);
    }
    for socket in &sockets {
        socket.set_nonblocking()?;
    }
    Ok(sockets)
}

fn bind_all(address: SocketAddr, transport: Transport, count: usize) -> io::Result<Vec<ListeningSocket>> {
    // With SO_REUSEPORT alone a second process of the same user would share the port in silence and take half
    // of the connections. A first bind without it fails where anybody listens.
    if transport == Transport::Udp {
        drop(datagrams(address, Sharing::Exclusive)?);
        let each = || datagrams(address, Sharing::BetweenWorkers).map(ListeningSocket::Datagrams);
        return (0..count).map(|_| each()).collect();
    }
    drop(socket(address, Sharing::Exclusive)?);
    let each = || socket(address, Sharing::BetweenWorkers).map(ListeningSocket::Streams);
    (0..count).map(|_| each()).collect()
}

/// Without SO_REUSEADDR, with which UDP would share the port.
fn datagrams(address: SocketAddr, sharing: Sharing) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if sharing == Sharing::BetweenWorkers {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

#[derive(Clone, Copy, PartialEq)]
enum Sharing {
    Exclusive,
    BetweenWorkers,
}

fn socket(address: SocketAddr, sharing: Sharing) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if sharing == Sharing::BetweenWorkers {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    if sharing == Sharing::BetweenWorkers {
        // What is accepted inherits both.
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_keepalive(&crate::wire::keep_alive())?;
        socket.listen(ACCEPT_BACKLOG)?;
    }
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sockets(workers: usize) -> (Sockets, Vec<mpsc::UnboundedReceiver<ListenerChange>>) {
        let (senders, receivers) = (0..workers).map(|_| mpsc::unbounded_channel()).unzip();
        (Sockets::new(IpAddr::from([127, 0, 0, 1]), senders), receivers)
    }

    fn free_port() -> u16 {
        let probe = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        probe.local_addr().expect("bound").port()
    }

    #[test]
    fn a_taken_port_is_refused_even_when_its_owner_shares_it() {
        let port = free_port();
        let owner = socket(([127, 0, 0, 1], port).into(), Sharing::BetweenWorkers).expect("free");
        let error = sockets(2).0.bind(port).expect_err("taken");
        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
        drop(owner);
    }

    #[test]
    fn every_worker_gets_a_socket_of_its_own_and_only_once() {
        let (mut sockets, mut workers) = sockets(2);
        let port = free_port();
        let ports = BTreeSet::from([Door::from(port)]);
        sockets.bind(port).expect("free");
        assert!(workers[0].try_recv().is_err(), "bound is not open");
        sockets.open_exactly(&ports);
        sockets.bind(port).expect("open already");
        sockets.open_exactly(&ports);
        for worker in &mut workers {
            assert!(matches!(worker.try_recv(), Ok(ListenerChange::Open { port: p, .. }) if p == port));
            assert!(worker.try_recv().is_err());
        }
        sockets.open_exactly(&BTreeSet::new());
        assert!(matches!(workers[1].try_recv(), Ok(ListenerChange::Close { door }) if door == port.into()));
    }

    #[test]
    fn a_port_of_datagrams_is_another_and_a_taken_one_is_refused() {
        let port = free_port();
        let owner = socket(([127, 0, 0, 1], port).into(), Sharing::BetweenWorkers).expect("free");
        let door = Door { transport: Transport::Udp, port };
        let (mut sockets, mut workers) = sockets(2);
        sockets.bind(door).expect("free, whoever has the one of connections");
        sockets.open_exactly(&BTreeSet::from([door]));
        for worker in &mut workers {
            let open = worker.try_recv();
            assert!(matches!(open, Ok(ListenerChange::Open { socket: ListeningSocket::Datagrams(_), .. })));
            let error = self::sockets(1).0.bind(door).expect_err("taken");
            assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
        }
        drop(owner);
    }

    #[test]
    fn inherited_sockets_serve_every_worker_and_none_of_them_is_left_without() {
        for (inherited, count) in [(1, 3), (3, 1), (2, 2)] {
            let port = free_port();
            let address = ([127, 0, 0, 1], port).into();
            let given: Vec<_> = (0..inherited)
                .map(|_| socket(address, Sharing::BetweenWorkers).expect("shared between workers"))
                .map(|socket| ListeningSocket::of(socket.into()).expect("a socket"))
                .collect();
            let (sockets, mut workers) = sockets(count);
            let mut sockets = sockets.inheriting(given);
            sockets.bind(port).expect("not bound, but inherited");
            sockets.open_exactly(&BTreeSet::from([port.into()]));
            let open: Vec<usize> = workers
                .iter_mut()
                .map(|worker| std::iter::from_fn(|| worker.try_recv().ok()).count())
                .collect();
            assert!(open.iter().all(|open| *open > 0), "{inherited} for {count}: {open:?}");
            assert_eq!(open.iter().sum::<usize>(), inherited.max(count));
        }
    }

    #[test]
    fn what_is_inherited_of_another_address_is_closed() {
        let port = free_port();
        let given = socket(([127, 0, 0, 2], port).into(), Sharing::BetweenWorkers).expect("free");
        let sockets = sockets(1).0.inheriting(vec![ListeningSocket::Streams(given)]);
        assert!(sockets.inherited.is_empty());
        socket(([127, 0, 0, 2], port).into(), Sharing::Exclusive).expect("closed");
    }
}

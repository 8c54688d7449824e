//! Listening sockets: bound by the configuration, accepted on by the workers.
//!
//! Each worker has its own socket on each port (SO_REUSEPORT; the kernel spreads connections), so accepting
//! needs no lock and no hand-over. Binding is separate from opening: a port that cannot be bound refuses the
//! configuration that asked for it, before anything is swapped.

use socket2::{Domain, Protocol, Socket, Type};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use tokio::sync::mpsc;

/// Connections that the kernel holds for a worker before it accepts them.
pub const ACCEPT_BACKLOG: i32 = 4096;

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
        socket: TcpListener,
    },
    /// Accept no more on this port; connections that are open go on.
    Close {
        /// The listener's port in the snapshot.
        port: u16,
    },
}

/// All listening sockets of the process.
#[derive(Debug)]
pub struct Sockets {
    address: IpAddr,
    workers: Vec<mpsc::UnboundedSender<ListenerChange>>,
    bound: BTreeMap<u16, Vec<TcpListener>>,
    open: BTreeSet<u16>,
}

impl Sockets {
    /// No sockets yet. They will be bound on `address`, one for each worker.
    #[must_use]
    pub fn new(address: IpAddr, workers: Vec<mpsc::UnboundedSender<ListenerChange>>) -> Self {
        Self { address, workers, bound: BTreeMap::new(), open: BTreeSet::new() }
    }

    /// Binds a port where it is not bound already; nothing is accepted on it before [`Self::open_exactly`].
    ///
    /// # Errors
    /// [`BindError`] when the port is taken or not permitted; nothing stays bound then.
    pub fn bind(&mut self, port: u16) -> Result<(), BindError> {
        if self.open.contains(&port) || self.bound.contains_key(&port) {
            return Ok(());
        }
        let address = SocketAddr::new(self.address, port);
        let sockets =
            bind_all(address, self.workers.len()).map_err(|source| BindError { address, source })?;
        self.bound.insert(port, sockets);
        Ok(())
    }

    /// Hands bound ports that are in `ports` to the workers and takes all others back.
    pub fn open_exactly(&mut self, ports: &BTreeSet<u16>) {
        for (port, sockets) in std::mem::take(&mut self.bound) {
            if ports.contains(&port) {
                self.open.insert(port);
                for (worker, socket) in self.workers.iter().zip(sockets) {
                    // A worker that is gone is ending the process; there is nobody to tell.
                    let _ = worker.send(ListenerChange::Open { port, socket });
                }
            }
        }
        let close: Vec<u16> = self.open.difference(ports).copied().collect();
        for port in close {
            self.open.remove(&port);
            for worker in &self.workers {
                let _ = worker.send(ListenerChange::Close { port });
            }
        }
    }
}

fn bind_all(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    // With SO_REUSEPORT alone a second process of the same user would share the port in silence and take half
    // of the connections. A first bind without it fails where anybody listens.
    drop(socket(address, Sharing::Exclusive)?);
    (0..count).map(|_| socket(address, Sharing::BetweenWorkers)).collect()
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
        let ports = BTreeSet::from([port]);
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
        assert!(matches!(workers[1].try_recv(), Ok(ListenerChange::Close { port: p }) if p == port));
    }
}

//! A client's connection: from the accepted socket to the protocol that is spoken on it.

use crate::http2::carried::Carried;
use crate::proxied::{self, Ends, Introduced, PROXY_HEADER_TIMEOUT, Proxies, Versions};
use crate::request::Tunnel;
use crate::snapshot::{Listener, ListenerLimits, Protocol};
use crate::sources::{Counted, Refused};
use crate::tls::Termination;
use crate::tls::clients::Secured;
use crate::tunnel::Side;
use crate::wire::{Io, Wire};
use crate::worker::Worker;
use crate::{http1, http2, layer4, tunnel};
use bytes::BytesMut;
use http::HeaderValue;
use rustls::server::Acceptor;
use socket2::SockRef;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::{LazyConfigAcceptor, TlsStream};

/// Longest time for a TLS handshake; the connection is closed past it.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest time from the first byte of a request's head to its last; 408 past it.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest time that a connection waits for a request; it is closed past it.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// Longest time that a body may stand still in either direction; the exchange is cut past it.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(300);

/// Longest time that a connection takes to close, and that a refused request is read on meanwhile so that its
/// sender sees the answer.
pub const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// Most bytes of a refused request that are read on.
pub const LINGER_BYTES_MAX: usize = 256 << 10;

/// How an HTTP/2 connection begins (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Who asks: what is known of a client's connection, or what trusted proxies said of the client of one request.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// Port of the listener that it came to.
    pub(crate) port: u16,
    pub(crate) scheme: Scheme,
    /// The client's address; never an IPv4-mapped one.
    pub(crate) address: IpAddr,
    /// The port that the client came from; 0 where nobody said.
    pub(crate) from_port: u16,
    /// The address that the client connected to: ours, or that of a proxy in front.
    pub(crate) to: SocketAddr,
    /// The same, as it goes into headers.
    pub(crate) ip: HeaderValue,
    /// Of the listener, as they were when the connection came.
    pub(crate) limits: Arc<ListenerLimits>,
    /// What is known since the handshake; `None` without TLS.
    pub(crate) secured: Option<Arc<Secured>>,
}

impl Peer {
    /// The connection that a client came by.
    pub(crate) fn new(port: u16, scheme: Scheme, ends: Ends, limits: Arc<ListenerLimits>) -> Self {
        let address = ends.from.ip();
        let ip = HeaderValue::try_from(address.to_string()).expect("an address is ASCII");
        Self { port, scheme, address, from_port: ends.from.port(), to: ends.to, ip, limits, secured: None }
    }

    /// Whoever comes to a listener, by a connection or by datagrams.
    pub(crate) fn of_listener(listener: &Listener, ends: Ends) -> Self {
        let scheme = match listener.protocol {
            Protocol::Http | Protocol::Tcp | Protocol::Udp => Scheme::Http,
            // What comes first is a handshake, or has to be: it counts as one.
            Protocol::Https(_) | Protocol::Tls(_) | Protocol::Passthrough => Scheme::Https,
        };
        Self::new(listener.port, scheme, ends, Arc::clone(&listener.limits))
    }

    /// A client at this address, without TLS, of which no more is known.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn at(port: u16, address: impl Into<IpAddr>) -> Self {
        let ends = Ends { from: SocketAddr::new(address.into(), 0), to: ([0, 0, 0, 0], 0).into() };
        Self::new(port, Scheme::Http, ends, Arc::default())
    }

    /// Both ends of the client's connection.
    pub(crate) fn ends(&self) -> Ends {
        Ends { from: SocketAddr::new(self.address, self.from_port), to: self.to }
    }
}

/// How the client's bytes are protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Https,
}

/// A connection that came to a listener.
#[derive(Debug)]
pub(crate) struct Arrival {
    stream: TcpStream,
    /// The client as far as it is known: who connected.
    peer: Box<Peer>,
    protocol: Protocol,
    /// `None` where this connection begins without a header of the PROXY protocol.
    proxies: Option<Arc<Proxies>>,
}

impl Arrival {
    /// `None` where the connection has no address of ours any more, as it is closed.
    pub(crate) fn new(listener: &Listener, stream: TcpStream, from: SocketAddr) -> Option<Self> {
        let to = stream.local_addr().ok()?;
        let ends = Ends { from: proxied::canonical(from), to: proxied::canonical(to) };
        let proxies = listener.proxies_at(ends.from.ip()).map(Arc::clone);
        let peer = Box::new(Peer::of_listener(listener, ends));
        Some(Self { stream, peer, protocol: listener.protocol.clone(), proxies })
    }

    /// Who connected; `None` where that is a proxy in front, which has not said yet for whom.
    pub(crate) fn client(&self) -> Option<&Peer> {
        self.proxies.is_none().then_some(&*self.peer)
    }

    /// Closes the connection. A reset leaves no state behind, neither here nor with the client.
    pub(crate) fn refuse(&self, worker: &Worker, why: Refused) {
        refuse(worker, &self.stream, why);
    }
}

/// Serves one client until either side ends the connection.
///
/// Whatever is large and not needed by an idle HTTP/1 connection is boxed where it begins (a handshake, HTTP/2, a
/// request): the size of this future is what every idle connection costs.
pub(crate) async fn serve(worker: Rc<Worker>, arrival: Arrival) {
    let Arrival { stream, mut peer, protocol, proxies } = arrival;
    let admitted = match proxies {
        None => None,
        Some(proxies) => match Box::pin(introduced(&worker, &mut peer, &stream, proxies.takes)).await {
            Some(admitted) => Some(admitted),
            None => return,
        },
    };
    match protocol {
        Protocol::Http => plain(worker, peer, Io::Plain(stream)).await,
        Protocol::Https(termination) => tls(worker, peer, stream, termination).await,
        Protocol::Tls(termination) => Box::pin(within_tls(&worker, peer, stream, &termination)).await,
        // No connection comes to a port of datagrams.
        Protocol::Udp => {}
        Protocol::Passthrough => Box::pin(layer4::passthrough::serve(&worker, &peer, stream)).await,
        Protocol::Tcp => Box::pin(layer4::serve(&worker, &peer, Io::Plain(stream), "")).await,
    }
    drop(admitted);
}

/// A connection of a proxy in front: who the client is comes first, and counts then as if it had connected itself. `None`
/// where it is not to be served.
async fn introduced(
    worker: &Worker,
    peer: &mut Peer,
    stream: &TcpStream,
    takes: Versions,
) -> Option<Counted> {
    let deadline = worker.timers.deadline();
    deadline.set(Some(PROXY_HEADER_TIMEOUT));
    let introduced = tokio::select! { biased;
        introduced = proxied::read(stream, takes) => introduced,
        () = deadline.passed() => None,
    };
    match introduced {
        Some(Introduced::Client(ends)) => {
            *peer = Peer::new(peer.port, peer.scheme, ends, Arc::clone(&peer.limits));
        }
        Some(Introduced::Itself) => {}
        None => {
            worker.counters.proxy_headers_refused.add(1);
            return None;
        }
    }
    worker.admit_client(peer).map_err(|why| refuse(worker, stream, why)).ok()
}

pub(crate) fn refuse(worker: &Worker, stream: &TcpStream, why: Refused) {
    worker.counters.connection_refused(why);
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// HTTP/2 by prior knowledge, or HTTP/1, as the first bytes say.
async fn plain(worker: Rc<Worker>, peer: Box<Peer>, io: Io) {
    let wire = Wire::new(io);
    let deadline = worker.timers.deadline();
    deadline.set_idle(peer.limits.idle_timeout, peer.port);
    tokio::select! { biased;
        () = wire.readable() => {}
        () = deadline.passed() => return,
    }
    deadline.set(Some(peer.limits.head_timeout));
    let mut received = BytesMut::with_capacity(http1::HEAD_BYTES_MAX / 2);
    while received.len() < PREFACE.len() && PREFACE.starts_with(&received) {
        let read = tokio::select! { biased;
            read = wire.read(&mut received) => read,
            () = deadline.passed() => return,
        };
        if matches!(read, Ok(0) | Err(_)) {
            return;
        }
    }
    drop(deadline);
    if received.starts_with(PREFACE) {
        Box::pin(http2::server::serve(worker, *peer, wire.into_inner(), received.freeze(), carry)).await;
    } else {
        http1(&worker, &peer, &wire, received).await;
    }
}

async fn http1(worker: &Worker, peer: &Peer, wire: &Wire, received: BytesMut) {
    if let Some(upgraded) = http1::server::serve(worker, peer, wire, received).await {
        let http1::server::Upgraded { early, tunnel } = upgraded;
        Box::pin(tunnel::run(worker, peer.port, Side::Wire(wire, early), tunnel)).await;
    }
}

/// Begins a tunnel on a stream of HTTP/2, in a task of its own: what the request took is given back.
fn carry(worker: Rc<Worker>, port: u16, stream: Carried, tunnel: Box<Tunnel>) {
    tokio::task::spawn_local(carried(worker, port, stream, tunnel));
}

async fn carried(worker: Rc<Worker>, port: u16, stream: Carried, tunnel: Box<Tunnel>) {
    tunnel::run(&worker, port, Side::Stream(stream), tunnel).await;
}

async fn tls(worker: Rc<Worker>, mut peer: Box<Peer>, stream: TcpStream, termination: Arc<Termination>) {
    let Some(stream) = secured(&worker, &mut peer, stream, &termination).await else { return };
    let speaks_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let io = Io::Tls(stream);
    if speaks_http2 {
        Box::pin(http2::server::serve(worker, *peer, io, bytes::Bytes::new(), carry)).await;
    } else {
        http1(&worker, &peer, &Wire::new(io), BytesMut::new()).await;
    }
}

/// A connection of layer 4 whose TLS ends here.
async fn within_tls(worker: &Worker, mut peer: Box<Peer>, stream: TcpStream, termination: &Termination) {
    let Some(stream) = secured(worker, &mut peer, stream, termination).await else { return };
    let asked = match &*stream {
        TlsStream::Server(own) => own.get_ref().1.server_name(),
        TlsStream::Client(_) => None,
    };
    let name = layer4::host(asked);
    layer4::serve(worker, &peer, Io::Tls(stream), &name).await;
}

/// A handshake, with what it has shown of the client. `None` where it did not come to its end.
async fn secured(
    worker: &Worker,
    peer: &mut Peer,
    stream: TcpStream,
    termination: &Termination,
) -> Option<Box<TlsStream<TcpStream>>> {
    let begun = match worker.begin_handshake(peer) {
        Ok(begun) => begun,
        Err(why) => {
            refuse(worker, &stream, why);
            return None;
        }
    };
    let shaken = Box::pin(handshake(worker, stream, termination)).await;
    drop(begun);
    let Some((stream, secured)) = shaken else {
        worker.counters.handshakes_failed.add(1);
        return None;
    };
    peer.secured = Some(secured);
    Some(stream)
}

async fn handshake(
    worker: &Worker,
    stream: TcpStream,
    termination: &Termination,
) -> Option<(Box<TlsStream<TcpStream>>, Arc<Secured>)> {
    let deadline = worker.timers.deadline();
    deadline.set(Some(HANDSHAKE_TIMEOUT));
    tokio::select! { biased;
        accepted = accept(stream, termination) => accepted,
        () = deadline.passed() => None,
    }
}

/// What the client asks for says which policy holds; what it has shown goes with the connection.
async fn accept(
    stream: TcpStream,
    termination: &Termination,
) -> Option<(Box<TlsStream<TcpStream>>, Arc<Secured>)> {
    let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await.ok()?;
    let (policy, config) = termination.of(start.client_hello().server_name().unwrap_or_default())?;
    let stream = start.into_stream(Arc::clone(config)).await.ok()?;
    let session = stream.get_ref().1;
    let shown = session.peer_certificates().unwrap_or_default();
    let secured = Secured::new(policy.id(), session.protocol_version(), shown, policy.forward)?;
    Some((Box::new(stream.into()), Arc::new(secured)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, B, F: Future>(_: impl Fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    fn of_tunnel<F: Future>(_: impl Fn(Rc<Worker>, u16, Carried, Box<Tunnel>) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_task_of_an_idle_websocket_over_http2_is_small() {
        // Both directions with their ends, and no buffer.
        assert!(
            of_tunnel(carried) <= 2_048,
            "{} bytes; box what is large where it begins",
            of_tunnel(carried)
        );
    }

    #[test]
    fn the_task_of_an_idle_connection_is_small() {
        // What a connection holds while it waits, besides its socket: a regression here is paid by each of them.
        // The bound leaves room for the runtime's own part in a kilobyte; features of dependencies move it a little.
        assert!(size(serve) <= 912, "{} bytes; box what is large where it begins", size(serve));
    }
}

//! One probe of one backend: connects, does what the check says, and names what went wrong.
//!
//! All that a probe makes belongs to its future: whoever drops that closes the connection, however far it came. A backend
//! may send what it likes; a probe reads [`READ_BYTES_MAX`] of it at most, in memory never more than a head and
//! [`lb_core::health::BODY_BYTES_MAX`] of a body.
//!
//! Not here: when a probe is due and what its result comes to (`lb_core::health`).

mod grpc;
mod http;
mod socket;
#[cfg(test)]
mod tests;
mod tls;

pub(crate) use tls::ProbeTls;

use crate::proxied;
use lb_core::health::{HttpVersion, Kind, Outcome, Reason, TargetKey};
use socket::{Bounded, Stream};
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// Bytes that a probe reads from its connection at most, TLS included: a certificate chain, a head and the part of a
/// body that is looked at have room many times over; interim responses or empty frames without end have not.
const READ_BYTES_MAX: usize = 256 << 10;

/// Bytes of a response's head; one past it breaks the protocol.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Header fields of a response over HTTP/1.1; one past it breaks the protocol.
const HEADERS_MAX: usize = 100;

/// What a probe calls itself, unless the check has a name of its own.
const USER_AGENT: &str = concat!("weir-health/", env!("CARGO_PKG_VERSION"));

/// Probes a target once.
///
/// The outcome is known within the check's time-out, which holds for the whole: connecting, handshakes and the answer.
/// Latency is from the call to the result. Dropping the future closes the connection; nothing goes on behind it.
///
/// It has to run on a tokio runtime with I/O and time. Costs a socket, some 20 KiB, and for HTTP/2 two small tasks.
pub(crate) async fn probe(key: &TargetKey, tls: &ProbeTls) -> Outcome {
    let begin = Instant::now();
    // On the heap: a task that waits for many probes would carry the largest of them for each.
    let result = timeout(key.settings().timeout, Box::pin(check(key, tls))).await;
    match result.unwrap_or(Err(Reason::TimedOut)) {
        Ok(()) => Outcome::Pass { latency: begin.elapsed() },
        Err(reason) => Outcome::Fail { reason },
    }
}

async fn check(key: &TargetKey, tls: &ProbeTls) -> Result<(), Reason> {
    let socket = connect(key).await?;
    match &key.settings().kind {
        Kind::Tcp => socket::close(socket).await,
        Kind::Tls => socket::close(tls.handshake(socket, key, None, None).await?).await,
        Kind::Http(check) => {
            let host = check.host.as_deref();
            let protocol = match check.version {
                HttpVersion::Http1 => tls::HTTP1,
                HttpVersion::Http2 => tls::HTTP2,
            };
            let stream = secured(socket, key, tls, host, protocol).await?;
            return http::check(stream, check, &Origin::new(key, host)).await;
        }
        Kind::Grpc { service } => {
            let stream = secured(socket, key, tls, None, tls::HTTP2).await?;
            return grpc::check(stream, service, &Origin::new(key, None)).await;
        }
    }
    Ok(())
}

/// With TLS where the check has settings for it.
async fn secured(
    socket: Bounded,
    key: &TargetKey,
    tls: &ProbeTls,
    host: Option<&str>,
    protocol: &[u8],
) -> Result<Stream, Reason> {
    if key.settings().tls_profile.is_none() {
        return Ok(Box::new(socket));
    }
    Ok(Box::new(tls.handshake(socket, key, host, Some(protocol)).await?))
}

async fn connect(key: &TargetKey) -> Result<Bounded, Reason> {
    let address = key.address();
    let mut socket = TcpStream::connect(address).await.map_err(|error| of_connecting(address, &error))?;
    // A port of this machine on which nobody listens can be the one that the system chose for our own end: the
    // connection is then one to itself, and says nothing of a backend.
    if socket.local_addr().is_ok_and(|own| own == address) {
        return Err(Reason::Refused);
    }
    // Without it a probe is slower; whether the socket is broken, the next read says better.
    let _ = socket.set_nodelay(true);
    if let Some(version) = key.settings().proxy_header {
        socket.write_all(&proxied::header(version, None)).await.map_err(|error| of_io(&error))?;
    }
    Ok(Bounded::new(socket, READ_BYTES_MAX))
}

/// Whom a request is for.
struct Origin {
    scheme: &'static str,
    authority: Box<str>,
}

impl Origin {
    fn new(key: &TargetKey, host: Option<&str>) -> Self {
        // Without the zone that an IPv6 address may have: it means something on this machine only.
        let address = SocketAddr::new(key.address().ip(), key.address().port());
        let scheme = if key.settings().tls_profile.is_some() { "https" } else { "http" };
        Self { scheme, authority: host.map_or_else(|| address.to_string().into(), Into::into) }
    }
}

/// Why there is no connection. What is wrong on this machine (no file descriptors, no free ports) has no reason of its
/// own: a request would fail of it, too.
fn of_connecting(address: SocketAddr, error: &io::Error) -> Reason {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Reason::Refused,
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => Reason::Closed,
        io::ErrorKind::TimedOut => Reason::TimedOut,
        _ => {
            tracing::debug!(%address, %error, "a probe has no way to its target");
            Reason::Unreachable
        }
    }
}

/// Why a connection that was there is of no use any more.
fn of_io(error: &io::Error) -> Reason {
    if error.get_ref().is_some_and(<dyn Error + Send + Sync>::is::<rustls::Error>) {
        return Reason::Tls;
    }
    match error.kind() {
        io::ErrorKind::TimedOut => Reason::TimedOut,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Reason::Unreachable,
        io::ErrorKind::InvalidData => Reason::Protocol,
        _ => Reason::Closed,
    }
}

/// Why a request has no answer: as the first cause that says it, for hyper's own error is often only that its
/// connection has failed.
fn of_http(error: &(dyn Error + 'static)) -> Reason {
    if let Some(error) = error.downcast_ref::<io::Error>() {
        return of_io(error);
    }
    if let Some(error) = error.downcast_ref::<h2::Error>() {
        return match error.get_io() {
            Some(error) => of_io(error),
            // GOAWAY or RST_STREAM of the backend: it does not want to answer. Our own say that it broke the protocol.
            None if error.is_remote() => Reason::Closed,
            None => Reason::Protocol,
        };
    }
    let http = error.downcast_ref::<hyper::Error>();
    if http.is_some_and(hyper::Error::is_incomplete_message) {
        return Reason::Closed;
    }
    match error.source().filter(|source| is_known(*source)) {
        Some(source) => of_http(source),
        None if http.is_some_and(|error| error.is_canceled() || error.is_closed()) => Reason::Closed,
        None => Reason::Protocol,
    }
}

fn is_known(error: &(dyn Error + 'static)) -> bool {
    error.is::<io::Error>() || error.is::<h2::Error>() || error.is::<hyper::Error>()
}

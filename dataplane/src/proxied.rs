//! The PROXY protocol (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>), versions 1 and 2: what a proxy in
//! front says of the client before anything else, and what backends are told in the same way.
//!
//! Who is trusted has to send a header, and nobody else may: to guess would let a client speak for another, as the
//! specification says too. A header is read to its end and not a byte further, whatever follows it (TLS, HTTP/2). The format
//! is the crate `proxy-header`'s; of the others `ppp` has no limit of its own on a header's length, and `proxy-protocol` does
//! not tell one that is cut from one that is wrong.

use lb_core::addresses::IpTable;
use lb_core::backend::ProxyHeaderVersion;
use proxy_header::{Error, ParseConfig, Protocol, ProxiedAddress, ProxyHeader};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::net::TcpStream;

/// Longest time from a connection's begin to the end of its header; it is closed past it.
pub const PROXY_HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// Largest header, in bytes; the connection is closed past it. Addresses take 52 at most, the rest is what proxies add to
/// them in version 2, a client's certificate at most.
pub const PROXY_HEADER_BYTES_MAX: usize = 4 << 10;

/// Largest header of version 1, in bytes, as its specification has it.
const V1_BYTES_MAX: usize = 107;

/// How headers of version 1 and 2 begin.
const V1: &[u8] = b"PROXY ";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Whose connections to a port begin with a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxies {
    /// Networks of who is trusted.
    pub trusted: IpTable<()>,
    /// Versions that are taken.
    pub takes: Versions,
}

/// Versions of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// The one in text.
    pub v1: bool,
    /// The binary one.
    pub v2: bool,
}

/// What a header says of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Introduced {
    /// It is a client's, who connected to `to`.
    Client(Ends),
    /// It is the proxy's own, as that of a health check is, or a client's without an address.
    Itself,
}

/// The two ends of a client's connection. Addresses are never IPv4-mapped ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Ends {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
}

/// What is no header, or is too large, or of a version that is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

impl Proxies {
    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.find(address).is_some()
    }
}

/// The header at the begin of `bytes`, and its length; `None` where more has to come. Costs no allocation.
///
/// # Errors
/// [`Malformed`], as early as it shows.
pub(crate) fn parse(bytes: &[u8], takes: Versions) -> Result<Option<(Introduced, usize)>, Malformed> {
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(a, b)| a == b);
    let is_v1 = takes.v1 && begins(V1);
    let is_v2 = takes.v2 && begins(V2);
    if !is_v1 && !is_v2 {
        return Err(Malformed);
    }
    // What is there whole by its own word, and still too short for its addresses, never gets longer.
    let whole_bytes = if is_v1 { V1_BYTES_MAX } else { v2_bytes(bytes).unwrap_or(PROXY_HEADER_BYTES_MAX) };
    let bytes_max = if is_v1 { V1_BYTES_MAX } else { PROXY_HEADER_BYTES_MAX };
    let config = ParseConfig { include_tlvs: false, allow_v1: takes.v1, allow_v2: takes.v2 };
    let (header, length) = match ProxyHeader::parse(bytes, config) {
        Ok((header, length)) if length <= bytes_max => (header, length),
        Err(Error::BufferTooShort) if bytes.len() < whole_bytes && whole_bytes <= bytes_max => {
            return Ok(None);
        }
        _ => return Err(Malformed),
    };
    let introduced = match header.proxied_address() {
        None => Introduced::Itself,
        Some(ProxiedAddress { protocol: Protocol::Stream, source, destination }) => {
            Introduced::Client(Ends { from: canonical(*source), to: canonical(*destination) })
        }
        Some(_) => return Err(Malformed),
    };
    Ok(Some((introduced, length)))
}

/// How long a header of version 2 says to be; `None` while that has not come.
fn v2_bytes(bytes: &[u8]) -> Option<usize> {
    let length = bytes.get(V2.len() + 2..V2.len() + 4)?;
    Some(V2.len() + 4 + usize::from(u16::from_be_bytes([length[0], length[1]])))
}

/// Reads the header of a connection, and nothing behind it. `None` where there is none that is right. Not cancellation safe.
pub(crate) async fn read(stream: &TcpStream, takes: Versions) -> Option<Introduced> {
    let mut bytes = vec![0; PROXY_HEADER_BYTES_MAX];
    let mut held = 0;
    loop {
        // As long as it is not whole, all that is there is of the header.
        let seen = stream.peek(bytes.get_mut(held..).filter(|room| !room.is_empty())?).await.ok()?;
        if seen == 0 {
            return None;
        }
        let (length, found) = match parse(&bytes[..held + seen], takes).ok()? {
            Some((introduced, length)) => (length, Some(introduced)),
            None => (held + seen, None),
        };
        while held < length {
            stream.readable().await.ok()?;
            match stream.try_read(&mut bytes[held..length]) {
                Ok(0) => return None,
                Ok(read) => held += read,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return None,
            }
        }
        if found.is_some() {
            return found;
        }
    }
}

/// The header that tells a backend of a client; `None` for a connection of our own.
pub(crate) fn header(version: ProxyHeaderVersion, ends: Option<Ends>) -> Vec<u8> {
    let header = match ends {
        None => ProxyHeader::with_local(),
        Some(Ends { from, to }) if from.is_ipv4() == to.is_ipv4() => {
            ProxyHeader::with_address(ProxiedAddress::stream(from, to))
        }
        // Both have to be of one family.
        Some(Ends { from, to }) => {
            ProxyHeader::with_address(ProxiedAddress::stream(mapped(from), mapped(to)))
        }
    };
    let mut bytes = Vec::with_capacity(V1_BYTES_MAX);
    match version {
        ProxyHeaderVersion::V1 => header.encode_v1(&mut bytes),
        ProxyHeaderVersion::V2 => header.encode_v2(&mut bytes),
    }
    .expect("two addresses of TCP of one family, and nothing else");
    bytes
}

/// An IPv4-mapped address is the IPv4 address that it maps.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn mapped(address: SocketAddr) -> SocketAddr {
    let ip: Ipv6Addr = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    SocketAddr::new(ip.into(), address.port())
}

/// Any bytes: the same header in pieces as in one, and what is understood can be told again.
#[cfg(fuzzing)]
pub fn fuzz(bytes: &[u8]) {
    let takes = Versions { v1: true, v2: true };
    let whole = parse(bytes, takes);
    let mut by_bytes = Ok(None);
    for end in 1..=bytes.len() {
        by_bytes = parse(&bytes[..end], takes);
        if by_bytes != Ok(None) {
            break;
        }
    }
    if !bytes.is_empty() {
        assert_eq!(whole, by_bytes, "a header depends on how it came");
    }
    if let Ok(Some((introduced, length))) = whole {
        assert!(length <= bytes.len() && length <= PROXY_HEADER_BYTES_MAX);
        let ends = match introduced {
            Introduced::Client(ends) => Some(ends),
            Introduced::Itself => None,
        };
        for version in [ProxyHeaderVersion::V1, ProxyHeaderVersion::V2] {
            let again = header(version, ends);
            assert_eq!(
                parse(&again, takes),
                Ok(Some((introduced, again.len()))),
                "what is told is understood"
            );
        }
    }
}

#[cfg(test)]
mod tests;

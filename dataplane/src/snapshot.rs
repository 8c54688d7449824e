//! The configuration that requests are served from: immutable, replaced as a whole by one pointer swap.
//!
//! Made by `config`, read by every stage of the request path, once per request. What changes often, the members
//! of a backend set, lives in a cell of its own inside ([`lb_core::backend::BackendSet`]).

use crate::listener::{Door, Transport};
use crate::proxied::Proxies;
use crate::tls::Termination;
use crate::{connection, http1};
use arc_swap::ArcSwap;
use foldhash::HashMap;
use http::{HeaderValue, StatusCode};
use lb_core::addresses::ClientPolicy;
use lb_core::backend::BackendSet;
use lb_core::host::HostMap;
use lb_core::path::PathPolicy;
use lb_core::rate::Limiter;
use lb_core::route::RouteTable;
use lb_core::sessions::SessionTable;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Everything that this proxy serves at one version.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Grows with each swap within this process.
    pub version: u64,
    /// By port.
    pub listeners: BTreeMap<u16, Arc<Listener>>,
    /// Those of datagrams, whose ports are others.
    pub datagrams: BTreeMap<u16, Arc<Listener>>,
    /// Every set that a route sends to, also in place of another one, each once.
    pub sets: Arc<[Arc<BackendSet>]>,
    /// Sessions that this process remembers, a table for each pool that has any.
    pub tables: Vec<Arc<SessionTable>>,
    /// Every limit that a route asks, each once.
    pub limiters: Vec<Arc<Limiter>>,
}

impl Snapshot {
    /// Every listener, of connections and of datagrams. Costs a copy of the list.
    #[must_use]
    pub fn doors(&self) -> BTreeMap<Door, Arc<Listener>> {
        let streams = self.listeners.iter().map(|(port, own)| (Door::from(*port), own));
        let datagrams = self.datagrams.iter();
        let datagrams = datagrams.map(|(port, own)| (Door { transport: Transport::Udp, port: *port }, own));
        streams.chain(datagrams).map(|(door, own)| (door, Arc::clone(own))).collect()
    }
}

/// One port: pools that share it are merged here.
#[derive(Debug)]
pub struct Listener {
    /// 1 to 65535.
    pub port: u16,
    /// What is spoken on it.
    pub protocol: Protocol,
    /// Routes of all pools on this port.
    pub routes: RouteTable,
    /// The sets of those routes and their fallbacks. Not always each once.
    pub sets: Arc<[Arc<BackendSet>]>,
    /// What clients may do here.
    pub limits: Arc<ListenerLimits>,
    /// What is done with paths before a route is looked for.
    pub paths: PathPolicy,
    /// Who the client is for the routes of a pool; for a pool that is not there, who is connected.
    pub clients: Clients,
    /// Whose connections begin with a header of the PROXY protocol; `None`: nobody's.
    pub proxies: Option<Arc<Proxies>>,
    /// What is said of HTTPS, by host; `None` where nothing is.
    pub fronts: Option<Fronts>,
}

impl Listener {
    /// Whose word counts on who the client of a pool's route is; `None`: nobody's.
    #[must_use]
    pub fn client_policy(&self, pool: &str) -> Option<&ClientPolicy> {
        // Most listeners have none, and then nothing is hashed.
        if self.clients.is_empty() { None } else { self.clients.get(pool).map(|policy| &**policy) }
    }

    /// Whose header of the PROXY protocol a connection from this address begins with; `None`: it begins without one.
    #[must_use]
    pub fn proxies_at(&self, from: IpAddr) -> Option<&Arc<Proxies>> {
        self.proxies.as_ref().filter(|proxies| proxies.trusts(from))
    }

    /// What is said of HTTPS for a host, in lower case.
    #[must_use]
    pub fn front(&self, host: &str) -> Option<&Arc<Front>> {
        self.fronts.as_ref()?.matching(host).next()
    }
}

/// What clients may do on a listener. A connection keeps what it came under, but for the size of targets and the pace of
/// bodies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerLimits {
    /// Bytes of a request's path and query; 414 past it.
    pub uri_bytes_max: usize,
    /// Bytes of a request's line and headers; 431 past it.
    pub head_bytes_max: usize,
    /// Header fields of a request; 431 past it.
    pub headers_max: usize,
    /// Requests at a time on one connection of HTTP/2; the stream is refused past it.
    pub streams_max: u32,
    /// Streams of one connection that end by a reset of either side, in each second for long; the connection is ended past
    /// it.
    pub resets_per_second_max: u32,
    /// Frames of one connection that carry nothing of a message, in each second for long; the connection is ended past it.
    pub control_frames_per_second_max: u32,
    /// Connections of this port to this process; closed at once past it.
    pub connections_max: u32,
    /// The same of one source: an address of IPv4, 64 bits of one of IPv6.
    pub connections_per_source_max: u32,
    /// TLS handshakes that one source begins in each second for long; closed at once past it.
    pub handshakes_per_source_max: u32,
    /// TLS handshakes that are under way at one time, of the process; one more is closed at once.
    pub handshakes_at_once_max: u32,
    /// The same of one source on this port.
    pub handshakes_at_once_per_source_max: u32,
    /// From the first byte of a request's head to its last; 408 past it.
    pub head_timeout: Duration,
    /// How long a connection waits for a request; it is closed past it.
    pub idle_timeout: Duration,
    /// Bytes of a request's body that the client sends in each second that it is waited for; 408 below it. 0: no minimum.
    pub body_bytes_per_second_min: u32,
}

impl Default for ListenerLimits {
    fn default() -> Self {
        Self {
            uri_bytes_max: 8 << 10,
            head_bytes_max: http1::HEAD_BYTES_MAX,
            headers_max: http1::HEADERS_MAX,
            streams_max: 256,
            resets_per_second_max: 100,
            control_frames_per_second_max: 1_000,
            connections_max: 100_000,
            connections_per_source_max: 10_000,
            handshakes_per_source_max: 1_000,
            handshakes_at_once_max: 10_000,
            handshakes_at_once_per_source_max: 2_000,
            head_timeout: connection::HEAD_TIMEOUT,
            idle_timeout: connection::IDLE_TIMEOUT,
            body_bytes_per_second_min: 240,
        }
    }
}

/// Who the client is, by the name of the pool whose route it is.
pub type Clients = Arc<HashMap<Arc<str>, Arc<ClientPolicy>>>;

/// What is said of HTTPS by host, also nothing: the most specific host that a listener has counts.
pub type Fronts = Arc<HostMap<Arc<Front>>>;

/// What a pool says of HTTPS for hosts of a listener.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Front {
    /// The pool.
    pub pool: Arc<str>,
    /// Requests are answered with it.
    pub redirect: Option<HttpsRedirect>,
    /// Strict-Transport-Security of every answer.
    pub hsts: Option<HeaderValue>,
}

/// Where clients are sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpsRedirect {
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
    /// That clients know HTTPS by.
    pub port: u16,
}

/// What a listener speaks.
#[derive(Debug, Clone)]
pub enum Protocol {
    /// HTTP/1.1, or HTTP/2 by prior knowledge.
    Http,
    /// TLS, then HTTP/2 or HTTP/1.1 by ALPN.
    Https(Arc<Termination>),
    /// Bytes, whatever they say.
    Tcp,
    /// TLS, then the same.
    Tls(Arc<Termination>),
    /// TLS that is passed on.
    Passthrough,
    /// Datagrams, whatever they say.
    Udp,
}

/// The cell that holds the snapshot in force.
pub type Current = Arc<ArcSwap<Snapshot>>;

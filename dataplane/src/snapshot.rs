//! The configuration that requests are served from: immutable, replaced as a whole by one pointer swap.
//!
//! Made by `config`, read by every stage of the request path, once per request. What changes often, the members
//! of a backend set, lives in a cell of its own inside ([`lb_core::backend::BackendSet`]).

use arc_swap::ArcSwap;
use foldhash::HashMap;
use lb_core::addresses::ClientPolicy;
use lb_core::backend::BackendSet;
use lb_core::rate::Limiter;
use lb_core::route::RouteTable;
use lb_core::sessions::SessionTable;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Everything that this proxy serves at one version.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Grows with each swap within this process.
    pub version: u64,
    /// By port.
    pub listeners: BTreeMap<u16, Arc<Listener>>,
    /// Every set that a route sends to, also in place of another one, each once.
    pub sets: Arc<[Arc<BackendSet>]>,
    /// Sessions that this process remembers, a table for each pool that has any.
    pub tables: Vec<Arc<SessionTable>>,
    /// Every limit that a route asks, each once.
    pub limiters: Vec<Arc<Limiter>>,
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
    /// Who the client is for the routes of a pool; for a pool that is not there, who is connected.
    pub clients: Clients,
}

/// Who the client is, by the name of the pool whose route it is.
pub type Clients = Arc<HashMap<Arc<str>, Arc<ClientPolicy>>>;

/// What a listener speaks.
#[derive(Debug, Clone)]
pub enum Protocol {
    /// HTTP/1.1, or HTTP/2 by prior knowledge.
    Http,
    /// TLS, then HTTP/2 or HTTP/1.1 by ALPN.
    Https(Arc<rustls::ServerConfig>),
}

/// The cell that holds the snapshot in force.
pub type Current = Arc<ArcSwap<Snapshot>>;

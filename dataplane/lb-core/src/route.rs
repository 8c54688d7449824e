//! Routes: host and path of a request to the backend sets that may answer it.
//!
//! Precedence is the Gateway API's (HTTPRouteRule, matches): hosts as [`crate::host`] orders them; within a host an exact
//! path, then expressions with the longest first, then the longest prefix; then what has a method, the most headers, the
//! most query parameters; beyond the Gateway API the most cookies, and a source; then whoever was added first. What does
//! not hold for a request hides nothing behind it: the next match is tried, a shorter prefix, a less specific host.

mod choices;
mod conditions;
mod considered;
mod filters;
mod parts;
mod pattern;
mod table;

pub use conditions::{Condition, Conditions, FieldMatch, PathAlone, Request, ValueMatch, parameter};
pub use considered::{Considered, Fit, Precedence};
pub use filters::{
    Answer, Cors, Filters, HeaderChanges, Listed, Mirror, Origin, PathChange, Redirect, Rewrite, Validation,
};
pub use parts::{Entry, RouteParts};
pub use pattern::Pattern;
pub use table::{Found, PathMatch, RouteMatch, RouteTable};

use crate::addresses::IpRules;
use crate::backend::BackendSet;
use crate::rate::Limiter;
use crate::resilience::RetryPolicy;
use crate::sessions::{SessionPolicy, SessionTable};
use std::sync::Arc;
use std::time::Duration;

/// What a matching request is sent to.
#[derive(Debug)]
pub struct Route {
    /// Unique within the process: the key of state that a worker keeps for this route.
    pub id: u64,
    /// `namespace/pool`, for messages.
    pub pool: Arc<str>,
    /// Position in the pool's `spec.rules`.
    pub rule: usize,
    /// At least one, unless a filter answers; the share of each is its weight over the sum.
    pub sets: Vec<WeightedSet>,
    /// Sets that only fallbacks name, each once, of weight 0: what stands in for them in turn.
    pub fallbacks: Vec<WeightedSet>,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// When a request is tried again.
    pub retry: RetryPolicy,
    /// `None`: each request goes its own way.
    pub sessions: Option<Arc<Sessions>>,
    /// Bytes of a request's body; `None` for no limit.
    pub body_bytes_max: Option<u64>,
    /// From where requests may come; `None`: from everywhere.
    pub ip_rules: Option<Arc<IpRules>>,
    /// How many there may be, asked in this order.
    pub limits: Vec<Arc<Limiter>>,
    /// What is done to requests and responses; `None`: nothing.
    pub filters: Option<Arc<Filters>>,
    /// For people.
    pub written: Written,
}

/// What of a rule is told to people, and decides nothing.
#[derive(Debug, Clone, Default)]
pub struct Written {
    /// The rule's name; empty where it has none.
    pub name: Arc<str>,
    /// Its matches, in their order.
    pub matches: Arc<[RouteMatch]>,
    /// The listeners of its pool, in their order.
    pub listeners: Arc<[WrittenListener]>,
}

/// A listener of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenListener {
    /// Unique within the pool.
    pub name: Arc<str>,
    /// Its port.
    pub port: u16,
    /// Whether the port is one of datagrams, which is another than that of connections.
    pub is_of_datagrams: bool,
}

impl Route {
    /// A route with no time limits but that for bodies, the default rules for retries, and without sessions.
    #[must_use]
    pub fn new(id: u64, pool: Arc<str>, rule: usize, sets: Vec<WeightedSet>) -> Self {
        let (timeouts, retry) = (Timeouts::default(), RetryPolicy::default());
        Self {
            id,
            pool,
            rule,
            sets,
            fallbacks: Vec::new(),
            timeouts,
            retry,
            sessions: None,
            body_bytes_max: None,
            ip_rules: None,
            limits: Vec::new(),
            filters: None,
            written: Written::default(),
        }
    }

    /// What stands in for a set of this route, or for one that stands in itself. No set comes back to itself in this way.
    /// Looks at every set: for the rare request whose set does not answer.
    #[must_use]
    pub fn fallback_of(&self, set: &BackendSet) -> Option<&Fallback> {
        let mut sets = self.sets.iter().chain(&self.fallbacks);
        sets.find(|weighted| weighted.set.id == set.id)?.fallback.as_ref()
    }
}

/// How long a request may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// Until the response's head, whatever was tried, from when the request last moved; `None` for no limit.
    pub request: Option<Duration>,
    /// The same for one attempt.
    pub attempt: Option<Duration>,
    /// How long a body may stand still.
    pub idle: Duration,
    /// Until the end of the response; `None` for no limit.
    pub total: Option<Duration>,
    /// How long a connection of layer 4 may stand still in both directions.
    pub connection_idle: Duration,
    /// How long a flow of datagrams may be silent in both directions.
    pub flow_idle: Duration,
}

impl Timeouts {
    /// No limits but the defaults of what stands still.
    pub const NONE: Self = Self {
        request: None,
        attempt: None,
        idle: Duration::from_secs(300),
        total: None,
        connection_idle: Duration::from_secs(3_600),
        flow_idle: Duration::from_secs(30),
    };
}

impl Default for Timeouts {
    fn default() -> Self {
        Self::NONE
    }
}

/// How a route keeps sessions, and those that it keeps in this process.
#[derive(Debug)]
pub struct Sessions {
    /// How.
    pub policy: SessionPolicy,
    /// Shared by all routes of the pool; `None` where the cookie says it all.
    pub table: Option<Arc<SessionTable>>,
}

/// A backend set and its share of a route's requests.
#[derive(Debug)]
pub struct WeightedSet {
    /// Where requests go.
    pub set: Arc<BackendSet>,
    /// Relative; 0 takes none, but for the sessions that are there.
    pub weight: u32,
    /// A request with one of these goes here, whatever the weights.
    pub matches: Vec<SplitMatch>,
    /// In place of an answer of this set, where its circuit is open or it has no backend.
    pub fallback: Option<Fallback>,
}

impl WeightedSet {
    /// By weight alone.
    #[must_use]
    pub fn new(set: Arc<BackendSet>, weight: u32) -> Self {
        Self { set, weight, matches: Vec::new(), fallback: None }
    }
}

/// What sends a request to one set of a split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitMatch {
    /// Where it stands.
    pub source: SplitSource,
    /// What it says; `None`: anything.
    pub value: Option<Arc<str>>,
}

/// Where a [`SplitMatch`] looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SplitSource {
    /// The header of this name, in lower case; any of its fields.
    Header(Arc<str>),
    /// The cookie of this name.
    Cookie(Arc<str>),
}

/// In place of a set's answer.
#[derive(Debug, Clone)]
pub enum Fallback {
    /// Another set's answer.
    Set(Arc<BackendSet>),
    /// A fixed answer.
    Response(Arc<FallbackResponse>),
}

/// A fixed answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FallbackResponse {
    /// 200 to 599.
    pub status: u16,
    /// Of the body.
    pub content_type: Arc<str>,
    /// Bytes of the body.
    pub body: Arc<[u8]>,
}

#[cfg(test)]
mod tests;

//! What is told of a request, a connection or a flow. Its JSON is a public format: names are only added.

use serde::{Deserialize, Serialize};

/// Where a request goes, or a connection of layer 4, or a flow, and why. What is of requests alone is empty for the others.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Explanation {
    /// What was asked.
    pub request: Request,
    /// Whether a route, or a listener's redirect to HTTPS, has the request, and something to answer it with; whether a
    /// backend takes the connection or flow.
    pub answered: bool,
    /// What comes of it.
    pub answer: Answer,
    /// Where it came in; `None` where nobody listens.
    pub listener: Option<Listener>,
    /// The path that routes and backends read.
    pub path: Option<Path>,
    /// The match that it has.
    pub route: Option<Match>,
    /// Matches that came near, in the order of precedence: those before the one that it has do not hold, those after
    /// it would hold too. Where it has none, those that are nearest.
    pub passed_over: Vec<Rival>,
    /// How many more of them there are.
    pub passed_over_more: usize,
    /// Who asks, as backends and rules see it.
    pub client: Option<Client>,
    /// What the rule asks before anything else.
    pub guards: Guards,
    /// What is done to the request and its response, in this order.
    pub filters: Vec<Filter>,
    /// What the backend is asked.
    pub upstream: Option<Upstream>,
    /// How long things may take; `None` where no backend is asked.
    pub timeouts: Option<Timeouts>,
    /// When it is tried again.
    pub retry: Option<Retry>,
    /// The session that it belongs to; `None` where the rule keeps none.
    pub session: Option<Session>,
    /// Where it may go.
    pub sets: Vec<Set>,
    /// The backend that gets it, where that is decided.
    pub backend: Option<Choice>,
}

/// What was asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Request {
    /// As it was said; empty at layer 4.
    pub method: String,
    /// `http`, `https`, `tcp`, `tls` or `udp`.
    pub scheme: String,
    /// With a port where one was said.
    pub authority: String,
    /// Path and query; empty at layer 4.
    pub target: String,
    /// Of headers the names alone, in their order.
    pub headers: Vec<String>,
    /// Who is connected.
    pub source: String,
}

/// What comes of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Answer {
    /// Who answers.
    pub by: Answerer,
    /// Where Weir answers.
    pub status: Option<u16>,
    /// What its header `x-weir-reason` says, and at layer 4 the metric of what failed.
    pub reason: Option<String>,
    /// What becomes of a connection or flow that no backend takes: `reset`, `unrecognized_name` (an alert of TLS) or
    /// `dropped`.
    pub turned_away: Option<String>,
    /// Where a redirect leads.
    pub location: Option<String>,
    /// A sentence.
    pub detail: String,
}

/// Who answers a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answerer {
    /// Nobody: it is refused, or cannot be served.
    #[default]
    Nobody,
    /// A backend.
    Backend,
    /// The listener, with a redirect to HTTPS.
    Listener,
    /// The route: a filter answers, or refuses.
    Route,
    /// What stands in for a backend set.
    Fallback,
}

/// A listener.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Listener {
    /// 1 to 65535.
    pub port: u16,
    /// `HTTP`, `HTTPS`, `TCP`, `TLS` or `UDP`.
    pub protocol: String,
    /// Of `TLS`: `Terminate` or `Passthrough`.
    pub tls_mode: Option<String>,
    /// Why this port.
    pub why: String,
    /// What headers of the PROXY protocol mean for this source; `None` where the port has none.
    pub proxy_protocol: Option<String>,
    /// The pool whose listener it is for this request; `None` where no route has it.
    pub pool: Option<String>,
    /// The listener's name in that pool.
    pub name: Option<String>,
    /// Its place in that pool.
    pub field: Option<String>,
    /// The redirect to HTTPS that hosts of this listener have.
    pub https_redirect: Option<u16>,
}

/// A path.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Path {
    /// As it was asked.
    pub asked: String,
    /// As it is read.
    pub read: String,
}

/// A match of a rule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Match {
    /// `namespace/name`.
    pub pool: String,
    /// The rule's name.
    pub rule: Option<String>,
    /// The rule's place in `spec.rules`.
    pub rule_index: usize,
    /// The match's place in the rule; `None` where the rule has none.
    pub match_index: Option<usize>,
    /// Like `spec.rules[0].matches[1]`.
    pub field: String,
    /// `None`: every host.
    pub hostname: Option<String>,
    /// At layer 4: why it is this one.
    pub why: Option<String>,
    /// `Exact`, `PathPrefix` or `RegularExpression`; empty at layer 4.
    pub path_type: String,
    /// Its value.
    pub path: String,
    /// What else it asks.
    pub conditions: Vec<Asks>,
}

/// What a match asks beside host and path.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Asks {
    /// `method`, `header`, `query_param`, `cookie` or `source`.
    pub of: String,
    /// Of the header, parameter or cookie.
    pub name: Option<String>,
    /// What it has to be; `None` for `source`.
    pub value: Option<String>,
    /// Whether `value` is an expression.
    pub is_expression: bool,
    /// Whether it holds.
    pub holds: bool,
}

/// A match that the request does not have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rival {
    /// The match.
    #[serde(rename = "match")]
    pub of: Match,
    /// Whether it would have the request if the one that has it were not there.
    pub holds: bool,
    /// Why not.
    pub why: String,
}

/// Who asks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Client {
    /// Of the client.
    pub address: String,
    /// `http` or `https`, as it asked; `tcp`, `tls` or `udp` at layer 4.
    pub scheme: String,
    /// Whether trusted proxies said so.
    pub is_told_by_proxies: bool,
}

/// What is asked before anything else is done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Guards {
    /// Whether `ipRules` let this client in; `None` where there are none.
    pub ip_rules_allow: Option<bool>,
    /// The network of theirs that decides it, as it is written: one of `allow` or of `deny`, as `ip_rules_allow` says;
    /// `None` where none covers the client.
    pub ip_rules_network: Option<String>,
    /// Every limit that the request counts on.
    pub rate_limits: Vec<RateLimit>,
    /// Bytes of its body, at most.
    pub body_bytes_max: Option<u64>,
}

/// A limit; not how much of it is left.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RateLimit {
    /// Its name.
    pub name: String,
    /// `pool/NAME`, or the rule and the name.
    pub id: String,
    /// What requests are counted by.
    pub by: String,
    /// So many
    pub requests: u32,
    /// in so many milliseconds.
    pub period_ms: u64,
    /// Whether all proxies have it together.
    pub is_of_cluster: bool,
}

/// A filter, and what it does to this request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Filter {
    /// As in `filters[].type`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Phrases, each one effect.
    pub effects: Vec<String>,
}

/// What a backend is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Upstream {
    /// As the client asked.
    pub method: String,
    /// Its `Host`.
    pub host: String,
    /// Path and query.
    pub target: String,
    /// Headers that are not as the client sent them.
    pub headers_set: Vec<Header>,
    /// Headers of the client that it does not get.
    pub headers_removed: Vec<String>,
}

/// A header field.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Header {
    /// In lower case.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// Milliseconds; `None` for no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Timeouts {
    /// Until the response's head.
    pub request_ms: Option<u64>,
    /// The same for one attempt.
    pub attempt_ms: Option<u64>,
    /// How long a body may stand still; `None` at layer 4.
    pub idle_ms: Option<u64>,
    /// Until the end.
    pub total_ms: Option<u64>,
    /// Until a backend has taken the connection, for each try; told at layer 4 alone.
    pub connect_ms: Option<u64>,
    /// How long a connection of layer 4 may stand still in both directions.
    pub connection_idle_ms: Option<u64>,
    /// How long a flow may be silent in both directions.
    pub flow_idle_ms: Option<u64>,
}

/// When a request is tried again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Retry {
    /// After the first attempt.
    pub retries_max: u32,
    /// Statuses that are tried again.
    pub statuses: Vec<u16>,
    /// Before the first retry.
    pub backoff_ms: u64,
    /// When a second attempt begins beside the first.
    pub hedge_after_ms: Option<u64>,
}

/// A session.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Session {
    /// `cookie`, `source_ip`, `header` or `application_cookie`.
    pub by: String,
    /// Of the cookie or header.
    pub name: Option<String>,
    /// What is known of this request's.
    pub state: String,
}

/// A backend set of the route.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Set {
    /// As in `spec.backendSets[].name`.
    pub name: String,
    /// `route` or `fallback`.
    pub role: String,
    /// In the rule.
    pub weight: u32,
    /// Of requests like this one, 0 to 1: 1 where the request itself decides for the set.
    pub share: f64,
    /// Why it is this set, or none.
    pub why: String,
    /// As in `loadBalancing.algorithm`.
    pub algorithm: String,
    /// What of a request a hash is taken of.
    pub hash_key: Option<String>,
    /// Whether so few backends are available that health is ignored.
    pub ignores_health: bool,
    /// What stands in for it.
    pub fallback: Option<String>,
    /// By their ids.
    pub backends: Vec<Backend>,
}

/// A backend.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Backend {
    /// Unique within its set.
    pub id: String,
    /// `IP:port`.
    pub address: String,
    /// As written or discovered.
    pub weight: u32,
    /// 0 goes first.
    pub priority: u32,
    /// Empty where unknown.
    pub zone: String,
    /// `ready` or `draining`.
    pub state: String,
    /// Whether health lets it take requests. Only a proxy knows; elsewhere all are.
    pub available: bool,
    /// Of the requests of its set that nothing else decides, while all backends are equally busy: 0 to 1.
    pub probability: f64,
}

/// The backend that gets a request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Choice {
    /// The set.
    pub set: String,
    /// The backend's id.
    pub id: String,
    /// Its `IP:port`.
    pub address: String,
    /// `only`, `hash`, `session` or `session_start`.
    pub decided_by: String,
    /// A sentence.
    pub why: String,
}

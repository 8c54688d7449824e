//! The types of `LoadBalancerPool`. Each doc comment is the field's description in the definition.

#![allow(clippy::duplicated_attributes, reason = "each printcolumn has a type_ of its own")]

mod backend_set;
mod backend_tls;
mod client_address;
mod connections;
mod data_plane;
mod endpoint_selector;
mod filters;
mod health_check;
mod https_only;
mod limits;
mod listener;
mod listener_tls;
mod load_balancing;
mod matches;
mod proxy_protocol;
mod rate_limit;
mod resilience;
mod rule;
mod sessions;
mod split;

pub use backend_set::{
    BackendSet, CLUSTERS_MAX, DnsSource, IpFamily, KubeconfigRef, OtherCluster, SECRET_KEY_BYTES_MAX,
    SECRET_KEY_PATTERN, ServiceSource, StaticBackend, StaticSource,
};
pub use backend_tls::{BackendTls, SubjectAltName, SubjectAltNameType, WellKnownCaCertificates};
pub use client_address::{
    ClientAddress, ClientAddressSource, ForwardedHeader, TRUSTED_HOPS_MAX, TRUSTED_NETWORKS_MAX,
};
pub use connections::{
    BACKEND_REQUESTS_MAX, Concurrency, ConnectionPool, IDLE_PER_BACKEND_MAX, PER_BACKEND_MAX,
    QUEUE_REQUESTS_MAX, Queue, RuleTimeouts, STREAMS_MAX, Timeouts, UpstreamProtocol, WARM_PER_BACKEND_MAX,
};
pub use data_plane::{
    CLASS_LABEL, DEFAULT_CLASS, DataPlane, LABEL_BYTES_MAX, LABEL_PREFIX_BYTES_MAX, LABEL_VALUE_PATTERN,
    PROXY_LABELS_MAX, ProxySelector,
};
pub use endpoint_selector::{
    EndpointSelector, LABEL_NAME_BYTES_MAX, LABEL_NAME_PATTERN, LabelExpression, LabelOperator,
    SELECTOR_EXPRESSIONS_MAX, SELECTOR_LABELS_MAX, SELECTOR_VALUES_MAX,
};

pub use filters::{
    CORS_ENTRIES_MAX, Cors, DirectResponse, FILTER_VALUE_BYTES_MAX, FILTERS_MAX, FilterType, Fraction,
    HeaderField, HeaderModifier, MIRROR_DENOMINATOR_MAX, PathModifier, PathModifierType, REDIRECT_CODES,
    RedirectScheme, RequestMirror, RequestRedirect, RequestValidation, RuleFilter, UrlRewrite,
};
pub use health_check::{
    AVAILABLE_MIN_MAX, ActiveCheck, BODY_BYTES_MAX, CHECK_HEADERS_MAX, CheckHeader, GrpcCheck,
    HEADER_VALUE_BYTES_MAX, HealthCheck, HttpCheck, HttpVersion, InitialState, OUTCOMES_MAX, PassiveCheck,
    STATUS_RANGES_MAX, THRESHOLD_MAX, TcpCheck, TlsCheck,
};
pub use https_only::{Hsts, HttpsRedirect, REDIRECT_STATUSES};
pub use limits::{
    BODY_BYTES_RANGE, BODY_PACE_RANGE, CONNECTIONS_RANGE, CONTROL_FRAMES_RANGE, DotSegments, DoubleSlashes,
    EncodedSlashes, HANDSHAKES_AT_ONCE_RANGE, HANDSHAKES_RANGE, HEAD_BYTES_RANGE, HEADERS_RANGE,
    LISTENER_STREAMS_RANGE, ListenerLimits, PathPolicy, RESETS_RANGE, RequestLimits, URI_BYTES_RANGE,
};
pub use listener::{Listener, Protocol};
pub use listener_tls::{
    CipherPolicy, ClientCertificateForward, ClientValidation, ClientValidationMode, ListenerTls, TlsMode,
    TlsVersion,
};
pub use load_balancing::{
    Algorithm, ConsistentHash, HashKey, KEY_NAME_BYTES_MAX, LOAD_PERCENT_MAX, LOAD_PERCENT_MIN,
    LoadBalancing, Locality, PRIORITY_MAX, SLOW_START_MAX_S, SlowStart,
};

pub use matches::{
    FieldMatch, FieldMatchType, MATCH_FIELDS_MAX, MATCH_SOURCES_MAX, METHOD_BYTES_MAX, PathMatch,
    PathMatchType, RouteMatch,
};
pub use proxy_protocol::{ProxyProtocol, ProxyProtocolVersion};
pub use rate_limit::{
    IP_NETWORKS_MAX, IpRules, NETWORK_BYTES_MAX, RATE_KEYS_DEFAULT, RATE_KEYS_OF_POOL_MAX, RATE_KEYS_RANGE,
    RATE_LIMITS_MAX, RATE_NAME_BYTES_MAX, RATE_REQUESTS_MAX, RATE_SHARED_OF_POOL_MAX, RateLimit,
    RateLimitAlgorithm, RateLimitHeaders, RateLimitKey, RateLimitKeyType, RateLimitScope,
};
pub use resilience::{
    BREAKER_REQUESTS_MAX, BUDGET_RETRIES_MAX, CONTENT_TYPE_BYTES_MAX, CircuitBreaker, Fallback,
    FallbackResponse, HALF_OPEN_REQUESTS_MAX, RESPONSE_BODY_BYTES_MAX, RETRY_ATTEMPTS_MAX, RETRY_CODES_MAX,
    Retry, RetryBudget,
};
pub use rule::Rule;
pub use sessions::{
    COOKIE_NAME, COOKIE_NAME_BYTES_MAX, COOKIE_PATH_BYTES_MAX, CookieConfig, CookieLifetime, CookieSecurity,
    SESSION_NAME_BYTES_MAX, SESSIONS_RANGE, SameSite, SessionPersistence, SessionType,
};
pub use split::{
    SET_WEIGHT_MAX, SPLIT_BYTES_MAX, SPLIT_MATCHES_MAX, SplitMatch, SplitMatchType, WeightedBackendSet,
};

use crate::status::LoadBalancerPoolStatus;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Listeners of one pool.
pub const LISTENERS_MAX: usize = 64;
/// Rules of one pool.
pub const RULES_MAX: usize = 256;
/// Backend sets of one pool.
pub const BACKEND_SETS_MAX: usize = 256;
/// Backends written into one `static` set.
pub const STATIC_BACKENDS_MAX: usize = 1024;
/// Matches of one rule.
pub const MATCHES_MAX: usize = 16;
/// Listeners that one rule names.
pub const RULE_LISTENERS_MAX: usize = 16;
/// Hostnames of one listener or rule.
pub const HOSTNAMES_MAX: usize = 16;
/// Backend sets that share one rule's requests.
pub const RULE_BACKEND_SETS_MAX: usize = 8;
/// Certificates of one listener.
pub const CERTIFICATES_MAX: usize = 16;
/// Bytes of a hostname.
pub const HOSTNAME_BYTES_MAX: usize = 253;
/// Bytes of a name in DNS, with the dot of an absolute one.
pub const DNS_HOSTNAME_BYTES_MAX: usize = 254;
/// Bytes of the name of a listener, rule, backend set or static backend.
pub const NAME_BYTES_MAX: usize = 63;
/// Secrets with certificates of authorities that one set, or one listener, trusts.
pub const TLS_AUTHORITIES_MAX: usize = 8;
/// Names of which a backend's certificate must have one.
pub const TLS_ALTERNATIVE_NAMES_MAX: usize = 5;
/// Bytes of a URI in a certificate.
pub const TLS_URI_BYTES_MAX: usize = 253;
/// A URI with its scheme: visible ASCII.
pub const TLS_URI_PATTERN: &str = "^[a-zA-Z][a-zA-Z0-9+.-]*:[!-~]+$";
/// A name in DNS, lower case, without a wildcard and without a dot at its end; no address.
pub const DNS_NAME_PATTERN: &str = "^([a-z0-9]([-a-z0-9]*[a-z0-9])?[.])*[a-z]([-a-z0-9]*[a-z0-9])?$";
/// Bytes of a path, of a value that a match asks for, and of an expression for one.
pub const PATH_BYTES_MAX: usize = 1024;
/// Bytes of the name of a header, parameter or cookie.
pub const FIELD_BYTES_MAX: usize = 256;
/// Weight of a static backend.
pub const BACKEND_WEIGHT_MAX: i32 = 65_535;

/// Hostname of the Gateway API: lower case, with or without a leading `*.`.
pub const HOSTNAME_PATTERN: &str =
    r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// Names that are looked up in DNS: lower case, with or without a dot at the end.
pub const DNS_HOSTNAME_PATTERN: &str =
    "^[a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?([.][a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?)*[.]?$";
/// Names within a pool: a DNS label.
pub const NAME_PATTERN: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// Names of other Kubernetes objects: a DNS subdomain.
pub const OBJECT_NAME_PATTERN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// Names of headers, parameters and cookies: tokens of HTTP.
pub const FIELD_NAME_PATTERN: &str = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$";

/// Listeners, the rules that say which request goes where, and the backend sets that answer.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "weir.dev",
    version = "v1alpha1",
    kind = "LoadBalancerPool",
    plural = "loadbalancerpools",
    shortname = "lbp",
    category = "weir",
    namespaced,
    status = "LoadBalancerPoolStatus",
    derive = "PartialEq",
    doc = "LoadBalancerPool is a load balancer: what it listens on, which request goes where, and which backends answer.",
    printcolumn(
        name = "Algorithm",
        type_ = "string",
        json_path = ".spec.loadBalancing.algorithm",
        description = "How a backend is chosen"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.summary.ready",
        description = "Backends that take requests, of all"
    ),
    printcolumn(
        name = "Proxies",
        type_ = "string",
        json_path = ".status.summary.proxies",
        description = "Proxies that run the newest version, of all that serve the pool"
    ),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.summary.state",
        description = "What the pool is doing, in one word"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Lag",
        type_ = "string",
        json_path = ".status.summary.lag",
        description = "How far the last proxy is behind, or how long the newest change took to reach it",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.summary.message",
        description = "The condition that matters most, in a sentence",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
// The list of one list gives the names a name, so that they are taken together once and not for each rule: the API server
// bounds what a rule may cost.
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "!has(self.rules) || [self.backendSets.map(s, s.name)].all(names, self.rules.all(r, !has(r.backendSets) || sets.contains(names, r.backendSets.map(b, b.name))))",
        "message": "every name in spec.rules[].backendSets must be a name in spec.backendSets",
        "reason": "FieldValueInvalid",
    },
    {
        "rule": "!has(self.circuitBreaker) || !has(self.circuitBreaker.fallback) || !has(self.circuitBreaker.fallback.backendSet) || self.backendSets.exists(s, s.name == self.circuitBreaker.fallback.backendSet)",
        "message": "the backend set of a fallback must be a name in spec.backendSets: add the set or correct the name",
        "reason": "FieldValueInvalid",
        "fieldPath": ".circuitBreaker.fallback.backendSet",
    },
    {
        "rule": "!has(self.rules) || [self.listeners.map(l, l.name)].all(names, self.rules.all(r, !has(r.listeners) || sets.contains(names, r.listeners)))",
        "message": "every name in spec.rules[].listeners must be a name in spec.listeners",
        "reason": "FieldValueInvalid",
    },
    {
        "rule": "!has(self.rules) || [self.listeners.filter(l, l.protocol in ['TCP', 'TLS', 'UDP']).map(l, l.name)].all(names, names.size() == 0 || self.rules.all(r, (has(r.listeners) && !sets.intersects(names, r.listeners)) || !(has(r.matches) || has(r.filters) || has(r.limits) || (has(r.rateLimits) && r.rateLimits.size() > 0) || (has(r.sessionPersistence) && !(r.sessionPersistence.type in ['SourceIP', 'None'])) || (has(r.timeouts) && (has(r.timeouts.request) || has(r.timeouts.backendRequest) || has(r.timeouts.idle) || has(r.timeouts.total))) || (has(r.retry) && (has(r.retry.codes) || has(r.retry.hedgeAfter))) || (has(r.backendSets) && r.backendSets.exists(b, has(b.matches))))))",
        "message": "a rule that serves a listener with protocol TCP, TLS or UDP must have nothing that is of requests: no matches, filters, limits, rateLimits, cookies, codes, hedgeAfter and timeouts but connectionIdle and flowIdle; remove it, or name the listeners of HTTP in the rule's listeners",
        "reason": "FieldValueInvalid",
    },
    {
        "rule": "!has(self.rules) || [self.listeners.filter(l, l.protocol in ['TCP', 'TLS']).map(l, l.name)].all(names, self.rules.all(r, !has(r.timeouts) || !has(r.timeouts.connectionIdle) || (has(r.listeners) ? sets.intersects(names, r.listeners) : names.size() > 0)))",
        "message": "timeouts.connectionIdle is for rules that serve a listener with protocol TCP or TLS: remove it, or name the listener in the rule's listeners",
        "reason": "FieldValueInvalid",
    },
    {
        "rule": "!has(self.rules) || [self.listeners.filter(l, l.protocol == 'UDP').map(l, l.name)].all(names, self.rules.all(r, !has(r.timeouts) || !has(r.timeouts.flowIdle) || (has(r.listeners) ? sets.intersects(names, r.listeners) : names.size() > 0)))",
        "message": "timeouts.flowIdle is for rules that serve a listener with protocol UDP: remove it, or name the listener in the rule's listeners",
        "reason": "FieldValueInvalid",
    },
    {
        "rule": "!has(self.rules) || [self.listeners.filter(l, l.protocol in ['TCP', 'UDP']).map(l, l.name)].all(names, names.size() == 0 || self.rules.all(r, !has(r.hostnames) || (has(r.listeners) && !sets.intersects(names, r.listeners))))",
        "message": "a rule that serves a listener with protocol TCP or UDP must not have hostnames: remove them, or name the other listeners in the rule's listeners",
        "reason": "FieldValueInvalid",
    },
    {
        "rule": "!has(self.rules) || self.listeners.all(l, !(l.protocol in ['TCP', 'UDP']) || self.rules.filter(r, !has(r.listeners) || l.name in r.listeners).size() <= 1)",
        "message": "a listener with protocol TCP or UDP must have one rule: name the listeners of each rule in its listeners",
        "reason": "FieldValueInvalid",
    },
]))]
pub struct LoadBalancerPoolSpec {
    /// Addresses that the proxies listen on: 1 to 64, each with its own name and port.
    // The API server drops the message of a rule whose reason is FieldValueDuplicate.
    #[schemars(
        length(min = 1, max = LISTENERS_MAX),
        extend(
            "x-kubernetes-list-type" = "map",
            "x-kubernetes-list-map-keys" = ["name"],
            "x-kubernetes-validations" = [{
                "rule": "self.all(l, self.exists_one(m, m.port == l.port && (m.protocol == 'UDP') == (l.protocol == 'UDP')))",
                "message": "two listeners must not have the same port, unless one of them has protocol UDP",
                "reason": "FieldValueInvalid",
            }]
        )
    )]
    pub listeners: Vec<Listener>,

    /// Which request goes to which backend sets; at most 256. An exact hostname goes before a wildcard, an exact
    /// path before an expression and the longest prefix; then what has a method, most headers, most queryParams, most
    /// cookies, sourceIPs; then the first rule wins. Without a rule every request is answered 404, and every connection of
    /// protocol TCP or TLS is closed, every datagram dropped.
    /// Listeners, hostnames and matches together make at most 100,000 routes: one for each listener and match, and for
    /// each hostname that both the listener and the rule take.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = RULES_MAX), extend("x-kubernetes-list-type" = "atomic"))]
    pub rules: Vec<Rule>,

    /// Groups of backends that rules send requests to: 1 to 256, each with its own name.
    #[schemars(
        length(min = 1, max = BACKEND_SETS_MAX),
        extend(
            "x-kubernetes-list-type" = "map",
            "x-kubernetes-list-map-keys" = ["name"],
            "x-kubernetes-validations" = [{
                "rule": "sets.contains(self.map(s, s.name), self.filter(s, has(s.circuitBreaker) && has(s.circuitBreaker.fallback) && has(s.circuitBreaker.fallback.backendSet)).map(s, s.circuitBreaker.fallback.backendSet))",
                "message": "the backend set of a fallback must be a name in spec.backendSets: add the set or correct the name",
                "reason": "FieldValueInvalid",
            }]
        )
    )]
    pub backend_sets: Vec<BackendSet>,

    /// How a backend of a set is chosen, for every set that does not say it itself. Without it: LeastRequest.
    // The empty object's own defaults fill it, so that the column says the algorithm of every pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = {}))]
    pub load_balancing: Option<LoadBalancing>,

    /// How backends are checked, for every set that does not say it itself. Without it: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,

    /// How long things may take. Without it: 3s to connect, 30s for a request, 5m for a body that stands still, 1h for a
    /// connection of protocol TCP or TLS that does, 30s for a flow of protocol UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,

    /// Connections to backends, for every set that does not say it itself. Without it: each proxy keeps 100 idle ones per
    /// backend, for 1m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_pool: Option<ConnectionPool>,

    /// How many requests a backend has at a time, for every set that does not say it itself. Without it: no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Concurrency>,

    /// When requests are kept away from a set that fails them, for every set that does not say it itself. Without it:
    /// never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit_breaker: Option<CircuitBreaker>,

    /// When a request is tried again, for every rule that does not say it itself. Without it: three times, as `{}` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,

    /// How many retries there are, for every set that does not say it itself. Without it: as `{}` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_budget: Option<RetryBudget>,

    /// Whether requests that belong together go to one backend, for every rule that does not say it itself. Without it:
    /// each goes its own way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_persistence: Option<SessionPersistence>,

    /// How large requests may be, for every rule that does not say it itself. Without it: no limit for bodies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<RequestLimits>,

    /// From where requests may come, for every rule that does not say it itself. Without it: from everywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_rules: Option<IpRules>,

    /// How many requests there may be, for every rule that does not say it itself, and counted over all of these rules
    /// together; at most 8. Without it: as many as come.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = RATE_LIMITS_MAX),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub rate_limits: Vec<RateLimit>,

    /// Which proxies serve the pool. Without it: all of class default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_plane: Option<DataPlane>,
}

/// A Secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretReference {
    /// Namespace of the Secret. Without it: the pool's own. Any other one needs a ReferenceGrant there, from group
    /// weir.dev and kind LoadBalancerPool to kind Secret; without that the certificate is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = NAME_BYTES_MAX), regex(pattern = NAME_PATTERN))]
    pub namespace: Option<String>,

    /// Name of the Secret.
    #[schemars(length(min = 1, max = HOSTNAME_BYTES_MAX), regex(pattern = OBJECT_NAME_PATTERN))]
    pub name: String,
}

fn one() -> i32 {
    1
}

/// The schema of a TCP port by number, or by a name.
fn port_by_number_or_name(schema: &mut schemars::Schema) {
    schema.insert("minimum".into(), 1.into());
    schema.insert("maximum".into(), 65_535.into());
    schema.insert("minLength".into(), 1.into());
    schema.insert("maxLength".into(), NAME_BYTES_MAX.into());
    schema.insert("pattern".into(), NAME_PATTERN.into());
}

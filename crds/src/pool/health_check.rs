//! How backends are checked.

use super::{HOSTNAME_BYTES_MAX, PATH_BYTES_MAX};
use crate::duration::Duration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Bytes of the text that a body must have.
pub const BODY_BYTES_MAX: usize = 4_096;
/// Header fields of a check's request.
pub const CHECK_HEADERS_MAX: usize = 16;
/// Ranges of expected status codes.
pub const STATUS_RANGES_MAX: usize = 16;
/// Bytes of a header's value.
pub const HEADER_VALUE_BYTES_MAX: usize = 2_048;
/// Results in a row that a change may need.
pub const THRESHOLD_MAX: i32 = 100;
/// Outcomes that a judgement may need.
pub const OUTCOMES_MAX: i32 = 100_000;
/// Backends that may have to stay.
pub const AVAILABLE_MIN_MAX: i32 = 65_535;

/// A status code or a range of them: `200`, `200-299`.
const STATUS_RANGE_PATTERN: &str = "^[2-5][0-9]{2}(-[2-5][0-9]{2})?$";
/// A token of HTTP (RFC 9110, section 5.6.2).
const TOKEN_PATTERN: &str = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$";

/// How backends are checked. Without active and passive nothing is: a backend that Kubernetes calls ready takes
/// requests.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheck {
    /// Proxies ask the backends by themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<ActiveCheck>,

    /// Proxies watch what becomes of requests, and take out backends that fail them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passive: Option<PassiveCheck>,
}

/// A question that each backend is asked again and again, by two of the proxies, which tell the others. However many
/// sets and pools ask the same of a backend, a proxy asks it once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "[has(self.http), has(self.tcp), has(self.tls), has(self.grpc)].exists_one(kind, kind)",
    "message": "an active check must have exactly one of http, tcp, tls and grpc",
    "reason": "FieldValueInvalid",
}]))]
pub struct ActiveCheck {
    /// A request, and an answer as expected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheck>,

    /// A TCP connection is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpCheck>,

    /// A TLS handshake ends well. The certificate is not checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsCheck>,

    /// The gRPC health protocol (grpc.health.v1) answers SERVING.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcCheck>,

    /// TCP port that is asked, 1 to 65535. Without it: the one that requests go to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub port: Option<i32>,

    /// Between two checks of a backend, as a duration like `1s`: 100ms to 1h. Up to a tenth is taken off by chance.
    #[serde(default = "interval")]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "duration(self) >= duration('100ms') && duration(self) <= duration('1h')",
        "message": "interval must be 100ms to 1h",
    }]))]
    pub interval: Duration,

    /// A check without an answer after this time has failed, as a duration like `1s`: 10ms to 5m.
    #[serde(default = "timeout")]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "duration(self) >= duration('10ms') && duration(self) <= duration('5m')",
        "message": "timeout must be 10ms to 5m",
    }]))]
    pub timeout: Duration,

    /// Good results in a row that bring a backend back, 1 to 100.
    #[serde(default = "healthy_threshold")]
    #[schemars(range(min = 1, max = THRESHOLD_MAX))]
    pub healthy_threshold: i32,

    /// Bad results in a row that take a backend out, 1 to 100.
    #[serde(default = "unhealthy_threshold")]
    #[schemars(range(min = 1, max = THRESHOLD_MAX))]
    pub unhealthy_threshold: i32,

    /// What a new backend counts as before its first result: Up, or Down.
    #[serde(default)]
    pub initial: InitialState,
}

/// What a backend counts as before its first result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[allow(missing_docs, reason = "a doc comment on a variant would turn the schema's enum into oneOf")]
pub enum InitialState {
    #[default]
    Up,
    Down,
}

/// A request, and what its answer must be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.method != 'HEAD' || !has(self.bodyContains)",
    "message": "the answer to HEAD has no body: use another method, or remove bodyContains",
    "reason": "FieldValueInvalid",
    "fieldPath": ".bodyContains",
}]))]
pub struct HttpCheck {
    /// What is spoken: HTTP1, or HTTP2 with prior knowledge.
    #[serde(default)]
    pub version: HttpVersion,

    /// Method of the request; not CONNECT.
    #[serde(default = "method")]
    #[schemars(
        length(min = 1, max = 32),
        regex(pattern = TOKEN_PATTERN),
        extend("x-kubernetes-validations" = [{
            "rule": "self != 'CONNECT'",
            "message": "CONNECT asks for a tunnel and not for an answer: use another method",
        }])
    )]
    pub method: String,

    /// Path of the request, with or without a query: starts with a slash, up to 1024 characters.
    #[serde(default = "path")]
    #[schemars(length(min = 1, max = PATH_BYTES_MAX), regex(pattern = r"^/[-A-Za-z0-9._~!$&'()*+,;=:@/?%]*$"))]
    pub path: String,

    /// Host of the request, with or without a port. Without it: the backend's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = HOSTNAME_BYTES_MAX), regex(pattern = r"^([-A-Za-z0-9._]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?$"))]
    pub host: Option<String>,

    /// More header fields of the request, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = CHECK_HEADERS_MAX), extend("x-kubernetes-list-type" = "atomic"))]
    pub headers: Vec<CheckHeader>,

    /// Status codes that pass, at most 16: `200`, or a range like `200-399`. Without it: 200-399.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = STATUS_RANGES_MAX),
        inner(length(min = 3, max = 7), regex(pattern = STATUS_RANGE_PATTERN)),
        extend("x-kubernetes-list-type" = "atomic", "x-kubernetes-validations" = [{
            "rule": "self.all(range, range.size() < 7 || range.substring(0, 3) <= range.substring(4))",
            "message": "a range of status codes must have the lower one first",
            "reason": "FieldValueInvalid",
        }])
    )]
    pub expected_statuses: Vec<String>,

    /// Text that the first 4096 bytes of the answer's body must have, itself of 1 to 4096 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = BODY_BYTES_MAX),
        extend("x-kubernetes-validations" = [{
            "rule": "bytes(self).size() <= 4096",
            "message": "bodyContains must be at most 4096 bytes in UTF-8",
        }])
    )]
    pub body_contains: Option<String>,
}

/// What an HTTP check speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[allow(missing_docs, reason = "a doc comment on a variant would turn the schema's enum into oneOf")]
pub enum HttpVersion {
    #[default]
    #[serde(rename = "HTTP1")]
    Http1,
    #[serde(rename = "HTTP2")]
    Http2,
}

/// A header field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckHeader {
    /// Name of the field, none of those that frame a message or name its host.
    #[schemars(
        length(min = 1, max = 256),
        regex(pattern = TOKEN_PATTERN),
        extend("x-kubernetes-validations" = [{
            "rule": "!(self.lowerAscii() in ['connection', 'content-length', 'host', 'keep-alive', 'te', 'trailer', 'transfer-encoding', 'upgrade'])",
            "message": "a check writes this header field itself: remove it",
        }])
    )]
    pub name: String,

    /// Value of the field: visible ASCII characters and blanks, up to 2048.
    #[schemars(length(max = HEADER_VALUE_BYTES_MAX), regex(pattern = "^[ -~]*$"))]
    pub value: String,
}

/// A TCP connection; there is nothing to set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TcpCheck {}

/// A TLS handshake; there is nothing to set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TlsCheck {}

/// A question in the gRPC health protocol.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GrpcCheck {
    /// Service that is asked for, up to 253 characters. Without it: the whole server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = HOSTNAME_BYTES_MAX), regex(pattern = "^[!-~]+$"))]
    pub service: Option<String>,
}

/// What becomes of requests. A failure is an answer of 500 or above other than 501 and 505, no answer, or no
/// connection. Each proxy judges by its own requests, each backend set for itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "duration(self.maxEjection) >= duration(self.baseEjection)",
        "message": "maxEjection must not be shorter than baseEjection: raise it, or lower baseEjection",
        "reason": "FieldValueInvalid",
        "fieldPath": ".maxEjection",
    },
    {
        "rule": "self.maxFailurePercent < 100 || self.consecutiveFailures > 0 || self.consecutiveConnectFailures > 0 || self.grayFailures",
        "message": "a passive check with everything switched off judges nothing: leave it out, or switch something on",
        "reason": "FieldValueInvalid",
    },
]))]
pub struct PassiveCheck {
    /// Requests older than this are forgotten, as a duration like `10s`: 1s to 10m.
    #[serde(default = "window")]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "duration(self) >= duration('1s') && duration(self) <= duration('10m')",
        "message": "window must be 1s to 10m",
    }]))]
    pub window: Duration,

    /// A share of failures is judged over this many of the newest requests, 1 to 100000, and not over fewer.
    #[serde(default = "min_requests")]
    #[schemars(range(min = 1, max = OUTCOMES_MAX))]
    pub min_requests: i32,

    /// A larger share of failures takes a backend out: 11 to 99 percent. 100: never.
    #[serde(default = "max_failure_percent")]
    #[schemars(range(min = 11, max = 100))]
    pub max_failure_percent: i32,

    /// This many failures in a row take a backend out, 1 to 100. 0: never.
    #[serde(default = "consecutive_failures")]
    #[schemars(range(min = 0, max = THRESHOLD_MAX))]
    pub consecutive_failures: i32,

    /// This many failures to connect in a row take a backend out, 1 to 100. 0: never.
    #[serde(default = "consecutive_connect_failures")]
    #[schemars(range(min = 0, max = THRESHOLD_MAX))]
    pub consecutive_connect_failures: i32,

    /// How long a backend is out the first time, as a duration like `10s`: 100ms to 1h. The n-th time is n times as long.
    #[serde(default = "base_ejection")]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "duration(self) >= duration('100ms') && duration(self) <= duration('1h')",
        "message": "baseEjection must be 100ms to 1h",
    }]))]
    pub base_ejection: Duration,

    /// No time out is longer than this, as a duration like `5m`: up to 1h.
    #[serde(default = "max_ejection")]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "duration(self) <= duration('1h')",
        "message": "maxEjection must be at most 1h",
    }]))]
    pub max_ejection: Duration,

    /// Largest share of a set's backends that is out at once for failed requests, 0 to 100 percent.
    #[serde(default = "max_ejected_percent")]
    #[schemars(range(min = 0, max = 100))]
    pub max_ejected_percent: i32,

    /// Backends that stay in whatever they do, 0 to 65535.
    #[serde(default = "min_available")]
    #[schemars(range(min = 0, max = AVAILABLE_MIN_MAX))]
    pub min_available: i32,

    /// A backend that fails some requests, or is much slower than the others, gets fewer of them before it is taken out.
    #[serde(default = "yes")]
    pub gray_failures: bool,
}

impl Default for HttpCheck {
    fn default() -> Self {
        Self {
            version: HttpVersion::default(),
            method: method(),
            path: path(),
            host: None,
            headers: Vec::new(),
            expected_statuses: Vec::new(),
            body_contains: None,
        }
    }
}

impl Default for ActiveCheck {
    /// A TCP check.
    fn default() -> Self {
        Self {
            http: None,
            tcp: Some(TcpCheck {}),
            tls: None,
            grpc: None,
            port: None,
            interval: interval(),
            timeout: timeout(),
            healthy_threshold: healthy_threshold(),
            unhealthy_threshold: unhealthy_threshold(),
            initial: InitialState::default(),
        }
    }
}

impl Default for PassiveCheck {
    fn default() -> Self {
        Self {
            window: window(),
            min_requests: min_requests(),
            max_failure_percent: max_failure_percent(),
            consecutive_failures: consecutive_failures(),
            consecutive_connect_failures: consecutive_connect_failures(),
            base_ejection: base_ejection(),
            max_ejection: max_ejection(),
            max_ejected_percent: max_ejected_percent(),
            min_available: min_available(),
            gray_failures: yes(),
        }
    }
}

fn interval() -> Duration {
    Duration::from_secs(1)
}

fn timeout() -> Duration {
    Duration::from_secs(1)
}

fn healthy_threshold() -> i32 {
    2
}

fn unhealthy_threshold() -> i32 {
    3
}

fn method() -> String {
    "GET".to_owned()
}

fn path() -> String {
    "/".to_owned()
}

fn window() -> Duration {
    Duration::from_secs(10)
}

fn min_requests() -> i32 {
    10
}

fn max_failure_percent() -> i32 {
    50
}

fn consecutive_failures() -> i32 {
    5
}

fn consecutive_connect_failures() -> i32 {
    3
}

fn base_ejection() -> Duration {
    Duration::from_secs(10)
}

fn max_ejection() -> Duration {
    Duration::from_secs(300)
}

fn max_ejected_percent() -> i32 {
    50
}

fn min_available() -> i32 {
    1
}

fn yes() -> bool {
    true
}

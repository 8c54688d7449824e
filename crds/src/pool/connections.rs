//! How long things take, and what connections and requests a backend has at a time.

use crate::duration::Duration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Idle connections kept per backend.
pub const IDLE_PER_BACKEND_MAX: i32 = 65_535;
/// Connections kept open per backend although no request needs them.
pub const WARM_PER_BACKEND_MAX: i32 = 1_000;
/// Connections per backend.
pub const PER_BACKEND_MAX: i32 = 65_535;
/// Requests at a time on one connection of HTTP/2.
pub const STREAMS_MAX: i32 = 1_000;
/// Requests at a time on one backend.
pub const BACKEND_REQUESTS_MAX: i32 = 1_000_000;
/// Requests that wait for a backend of one set.
pub const QUEUE_REQUESTS_MAX: i32 = 100_000;

/// How long things may take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    /// To open a connection to a backend, as a duration like `3s`; above 0s.
    #[serde(default = "connect_timeout")]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "duration(self) > duration('0s')",
        "message": "a connect timeout must be above 0s",
    }]))]
    pub connect: Duration,

    /// Until the response's head arrives, whatever was tried for it, as a duration like `30s`; `0s` means no limit. It
    /// starts anew while the request's body flows, and does not limit the response's body: that is for idle and total.
    /// spec.rules[].timeouts.request overrides it.
    #[serde(default = "request_timeout")]
    pub request: Duration,

    /// The same for one attempt, as a duration like `5s`: past it the next attempt begins where the request can be
    /// retried without harm, and else the answer is 504. `0s`: no limit but that of request.
    /// spec.rules[].timeouts.backendRequest overrides it.
    #[serde(default = "none")]
    pub backend_request: Duration,

    /// How long the body of a request or response may stand still, as a duration like `5m`; above 0s.
    /// spec.rules[].timeouts.idle overrides it.
    #[serde(default = "body_idle_timeout")]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "duration(self) > duration('0s')",
        "message": "an idle timeout must be above 0s",
    }]))]
    pub idle: Duration,

    /// The whole request to the end of its response, as a duration like `10m`; `0s` means no limit. It cuts downloads
    /// and event streams too. spec.rules[].timeouts.total overrides it.
    #[serde(default = "none")]
    pub total: Duration,

    /// How long a connection of protocol TCP or TLS may stand still in both directions, as a duration like `1h`: 1s to 168h. It
    /// is closed past it. spec.rules[].timeouts.connectionIdle overrides it.
    #[serde(default = "connection_idle_timeout")]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "duration(self) >= duration('1s') && duration(self) <= duration('168h')",
        "message": "connectionIdle must be 1s to 168h",
    }]))]
    pub connection_idle: Duration,

    /// How long a flow of protocol UDP may be silent in both directions, as a duration like `30s`: 1s to 1h. It is
    /// forgotten past it. spec.rules[].timeouts.flowIdle overrides it.
    #[serde(default = "flow_idle_timeout")]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "duration(self) >= duration('1s') && duration(self) <= duration('1h')",
        "message": "flowIdle must be 1s to 1h",
    }]))]
    pub flow_idle: Duration,
}

/// How long a request may take; what is left out is as in spec.timeouts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuleTimeouts {
    /// Until the response's head arrives, as a duration like `30s`; `0s` means no limit. Without it:
    /// spec.timeouts.request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Duration>,

    /// The same for one attempt, as a duration like `5s`; `0s`: no limit but that of request. Without it:
    /// spec.timeouts.backendRequest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_request: Option<Duration>,

    /// How long a body may stand still, as a duration like `5m`; above 0s. Without it: spec.timeouts.idle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "duration(self) > duration('0s')",
        "message": "an idle timeout must be above 0s",
    }]))]
    pub idle: Option<Duration>,

    /// The whole request to the end of its response, as a duration like `10m`; `0s` means no limit. Without it:
    /// spec.timeouts.total.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<Duration>,

    /// How long a connection of protocol TCP or TLS may stand still in both directions, as a duration like `1h`: 1s to 168h.
    /// Without it: spec.timeouts.connectionIdle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "duration(self) >= duration('1s') && duration(self) <= duration('168h')",
        "message": "connectionIdle must be 1s to 168h",
    }]))]
    pub connection_idle: Option<Duration>,

    /// How long a flow of protocol UDP may be silent in both directions, as a duration like `30s`: 1s to 1h. Without it:
    /// spec.timeouts.flowIdle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "duration(self) >= duration('1s') && duration(self) <= duration('1h')",
        "message": "flowIdle must be 1s to 1h",
    }]))]
    pub flow_idle: Option<Duration>,
}

/// Connections to backends. Each proxy counts its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.maxPerBackend) || self.minWarmPerBackend <= self.maxPerBackend",
    "message": "minWarmPerBackend must not be above maxPerBackend: lower it, or raise maxPerBackend",
    "reason": "FieldValueInvalid",
    "fieldPath": ".minWarmPerBackend",
}]))]
pub struct ConnectionPool {
    /// Idle connections that each proxy keeps per backend, 0 to 65535; 0 keeps none.
    #[serde(default = "idle_per_backend")]
    #[schemars(range(min = 0, max = IDLE_PER_BACKEND_MAX))]
    pub max_idle_per_backend: i32,

    /// An idle connection is closed after this long, as a duration like `1m`; above 0s.
    #[serde(default = "idle_timeout")]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "duration(self) > duration('0s')",
        "message": "an idle timeout must be above 0s",
    }]))]
    pub idle_timeout: Duration,

    /// Connections that each proxy opens ahead of requests and keeps open although idle, per backend, 0 to 1000.
    #[serde(default)]
    #[schemars(range(min = 0, max = WARM_PER_BACKEND_MAX))]
    pub min_warm_per_backend: i32,

    /// Connections that each proxy has per backend at most, 1 to 65535. A request that needs one more waits in the queue
    /// of spec.concurrency, or is answered 503. Without it: no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = PER_BACKEND_MAX))]
    pub max_per_backend: Option<i32>,

    /// Requests at a time on one connection of HTTP/2, 1 to 1000, where the backend does not allow fewer. HTTP/1.1 has
    /// one request on a connection.
    #[serde(default = "streams_per_connection")]
    #[schemars(range(min = 1, max = STREAMS_MAX))]
    pub max_streams_per_connection: i32,
}

/// Requests at a time on one backend. Each proxy counts its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Concurrency {
    /// Requests that each proxy has on a backend at a time, 1 to 1000000. Where every backend of a set has as many, a
    /// request waits in the queue.
    #[schemars(range(min = 1, max = BACKEND_REQUESTS_MAX))]
    pub max_requests_per_backend: i32,

    /// Where requests wait while every backend is at its bound. Without it: they are answered 503 at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<Queue>,
}

/// Where requests wait for a backend, first come, first served; one for each set and proxy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Queue {
    /// Requests that wait at a time, 1 to 100000; one more is answered 503 at once.
    #[serde(default = "queue_requests")]
    #[schemars(range(min = 1, max = QUEUE_REQUESTS_MAX))]
    pub max_requests: i32,

    /// A request that waited for longer is answered 503, as a duration like `1s`: above 0s, at most 5m.
    #[serde(default = "queue_timeout")]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "duration(self) > duration('0s') && duration(self) <= duration('5m')",
        "message": "a queue's timeout must be above 0s and at most 5m",
    }]))]
    pub timeout: Duration,
}

/// What is spoken to backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[allow(missing_docs, reason = "a doc comment on a variant would turn the schema's enum into oneOf")]
pub enum UpstreamProtocol {
    #[serde(rename = "HTTP")]
    Http,
    #[serde(rename = "HTTP2")]
    Http2,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: connect_timeout(),
            request: request_timeout(),
            backend_request: none(),
            idle: body_idle_timeout(),
            total: none(),
            connection_idle: connection_idle_timeout(),
            flow_idle: flow_idle_timeout(),
        }
    }
}

impl Default for ConnectionPool {
    fn default() -> Self {
        Self {
            max_idle_per_backend: idle_per_backend(),
            idle_timeout: idle_timeout(),
            min_warm_per_backend: 0,
            max_per_backend: None,
            max_streams_per_connection: streams_per_connection(),
        }
    }
}

fn connect_timeout() -> Duration {
    Duration::from_secs(3)
}

fn request_timeout() -> Duration {
    Duration::from_secs(30)
}

fn body_idle_timeout() -> Duration {
    Duration::from_secs(300)
}

fn none() -> Duration {
    Duration::from_secs(0)
}

fn connection_idle_timeout() -> Duration {
    Duration::from_secs(3_600)
}

fn flow_idle_timeout() -> Duration {
    Duration::from_secs(30)
}

fn idle_per_backend() -> i32 {
    100
}

fn idle_timeout() -> Duration {
    Duration::from_secs(60)
}

fn streams_per_connection() -> i32 {
    100
}

fn queue_requests() -> i32 {
    100
}

fn queue_timeout() -> Duration {
    Duration::from_secs(1)
}

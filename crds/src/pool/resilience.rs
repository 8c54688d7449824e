//! What keeps failures small: circuit breakers, retries and their budget.

use super::{NAME_BYTES_MAX, NAME_PATTERN};
use crate::duration::Duration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Requests that a circuit's judgement may need.
pub const BREAKER_REQUESTS_MAX: i32 = 100_000;
/// Probes of a half-open circuit.
pub const HALF_OPEN_REQUESTS_MAX: i32 = 100;
/// Bytes of the body of a fallback's response.
pub const RESPONSE_BODY_BYTES_MAX: usize = 4_096;
/// Bytes of the type of that body.
pub const CONTENT_TYPE_BYTES_MAX: usize = 256;
/// Retries of one request.
pub const RETRY_ATTEMPTS_MAX: i32 = 10;
/// Statuses that are tried again.
pub const RETRY_CODES_MAX: usize = 16;
/// Retries that a budget always allows, for each second.
pub const BUDGET_RETRIES_MAX: i32 = 10_000;

/// Keeps requests away from a backend set that fails them. Its circuit is closed and requests pass; it opens where too
/// many of them fail, and requests get the fallback at once; after a while it is half-open and lets a few requests
/// through, which close it where all of them succeed. Each proxy judges by its own requests. A failure is what it is for
/// passive health checks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CircuitBreaker {
    /// Share of failed requests that opens the circuit, 1 to 100 percent.
    #[serde(default = "failure_percent")]
    #[schemars(range(min = 1, max = 100))]
    pub failure_percent: i32,

    /// Requests that a window must have before it is judged, 1 to 100000.
    #[serde(default = "min_requests")]
    #[schemars(range(min = 1, max = BREAKER_REQUESTS_MAX))]
    pub min_requests: i32,

    /// Requests older than this are forgotten, as a duration like `10s`: 1s to 10m.
    #[serde(default = "window")]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "duration(self) >= duration('1s') && duration(self) <= duration('10m')",
        "message": "window must be 1s to 10m",
    }]))]
    pub window: Duration,

    /// How long an open circuit stays so before it is half-open, as a duration like `30s`: 100ms to 1h.
    #[serde(default = "reset_timeout")]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "duration(self) >= duration('100ms') && duration(self) <= duration('1h')",
        "message": "resetTimeout must be 100ms to 1h",
    }]))]
    pub reset_timeout: Duration,

    /// Requests that a half-open circuit lets through, 1 to 100: all of them must succeed for it to close.
    #[serde(default = "half_open_requests")]
    #[schemars(range(min = 1, max = HALF_OPEN_REQUESTS_MAX))]
    pub half_open_requests: i32,

    /// What requests get while the circuit is open. Without it: 503 with the reason circuit_open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
}

/// What requests get in place of a set's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.backendSet) != has(self.response)",
    "message": "a fallback must have exactly one of backendSet and response",
    "reason": "FieldValueInvalid",
}]))]
pub struct Fallback {
    /// The answer of this set: a name in spec.backendSets, not the set itself. A fallback of that set counts in turn, and
    /// must not lead back. The set that the fallback of spec.circuitBreaker names has itself no fallback, unless it says
    /// one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = NAME_BYTES_MAX), regex(pattern = NAME_PATTERN))]
    pub backend_set: Option<String>,

    /// A fixed answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<FallbackResponse>,
}

/// A fixed answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FallbackResponse {
    /// Status code, 200 to 599.
    #[serde(default = "status")]
    #[schemars(range(min = 200, max = 599))]
    pub status: i32,

    /// Content-Type of the answer, 1 to 256 visible ASCII characters and blanks.
    #[serde(default = "content_type")]
    #[schemars(length(min = 1, max = CONTENT_TYPE_BYTES_MAX), regex(pattern = "^[!-~]([ -~]*[!-~])?$"))]
    pub content_type: String,

    /// Body of the answer, at most 4096 bytes.
    #[serde(default)]
    #[schemars(
        length(max = RESPONSE_BODY_BYTES_MAX),
        extend("x-kubernetes-validations" = [{
            "rule": "bytes(self).size() <= 4096",
            "message": "body must be at most 4096 bytes in UTF-8",
        }])
    )]
    pub body: String,
}

/// When a request is tried again. Only a request that can be repeated without harm is: its method is idempotent, or
/// nothing of it has reached a backend; and no byte of an answer has reached the client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// Attempts after the first one, 0 to 10; 0: never.
    #[serde(default = "attempts")]
    #[schemars(range(min = 0, max = RETRY_ATTEMPTS_MAX))]
    pub attempts: i32,

    /// Status codes of answers that are tried again, 400 to 599, at most 16, beside those cases in which there was no
    /// answer. An empty list: none. Without it: 502, 503 and 504.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = RETRY_CODES_MAX),
        inner(range(min = 400, max = 599)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub codes: Option<Vec<i32>>,

    /// Longest wait before the first of them, as a duration like `25ms`: at most 10s. It doubles with each further one,
    /// up to ten times, and the wait is anything between nothing and it, by chance.
    #[serde(default = "backoff")]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "duration(self) <= duration('10s')",
        "message": "backoff must be at most 10s",
    }]))]
    pub backoff: Duration,

    /// A second attempt begins beside the first where that has no answer after this, as a duration like `50ms`: 1ms to
    /// 1m; the first answer counts. It counts as a retry. Without it: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "duration(self) >= duration('1ms') && duration(self) <= duration('1m')",
        "message": "hedgeAfter must be 1ms to 1m",
    }]))]
    pub hedge_after: Option<Duration>,
}

/// How many retries a backend set gets, so that retries do not bring down what is only slow. Each proxy counts its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetryBudget {
    /// Retries are at most this share of the window's requests, 0 to 100 percent.
    #[serde(default = "percent")]
    #[schemars(range(min = 0, max = 100))]
    pub percent: i32,

    /// Retries that are allowed for each second whatever the share, 0 to 10000.
    #[serde(default = "min_retries")]
    #[schemars(range(min = 0, max = BUDGET_RETRIES_MAX))]
    pub min_retries_per_second: i32,

    /// Requests older than this are forgotten, as a duration like `10s`: 1s to 1m.
    #[serde(default = "window")]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "duration(self) >= duration('1s') && duration(self) <= duration('1m')",
        "message": "window must be 1s to 1m",
    }]))]
    pub window: Duration,
}

impl Retry {
    /// Statuses that are tried again where nothing is said of them.
    pub const CODES: [i32; 3] = [502, 503, 504];
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: attempts(), codes: None, backoff: backoff(), hedge_after: None }
    }
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { percent: percent(), min_retries_per_second: min_retries(), window: window() }
    }
}

fn failure_percent() -> i32 {
    50
}

fn min_requests() -> i32 {
    20
}

fn window() -> Duration {
    Duration::from_secs(10)
}

fn reset_timeout() -> Duration {
    Duration::from_secs(30)
}

fn half_open_requests() -> i32 {
    3
}

fn status() -> i32 {
    503
}

fn content_type() -> String {
    "text/plain; charset=utf-8".to_owned()
}

fn attempts() -> i32 {
    3
}

fn backoff() -> Duration {
    Duration::from_millis(25)
}

fn percent() -> i32 {
    20
}

fn min_retries() -> i32 {
    10
}

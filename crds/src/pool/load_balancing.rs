//! How a backend of a set is chosen.

use crate::duration::Duration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Bytes of the name of a header, cookie or query parameter.
pub const KEY_NAME_BYTES_MAX: usize = 256;
/// Largest bound of [`ConsistentHash::max_load_percent`].
pub const LOAD_PERCENT_MAX: i32 = 1_000;
/// Smallest bound of [`ConsistentHash::max_load_percent`]: below it, few keys would stay where they belong.
pub const LOAD_PERCENT_MIN: i32 = 105;
/// Priorities of backends; 0 goes first.
pub const PRIORITY_MAX: i32 = 15;
/// Longest slow start, in seconds.
pub const SLOW_START_MAX_S: u32 = 3_600;

/// How a backend is chosen.
// The rules ask whether there is an algorithm: the API server judges the field's default, `{}`, before it fills that in.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "(has(self.algorithm) && self.algorithm == 'ConsistentHash') == has(self.consistentHash)",
        "message": "algorithm ConsistentHash must have consistentHash, and no other algorithm may: add it, remove it or change the algorithm",
        "reason": "FieldValueInvalid",
        "fieldPath": ".consistentHash",
    },
    {
        "rule": "!has(self.algorithm) || self.algorithm != 'ConsistentHash' || !has(self.slowStart)",
        "message": "slowStart is not for algorithm ConsistentHash, where each of its steps would move keys: remove it",
        "reason": "FieldValueForbidden",
        "fieldPath": ".slowStart",
    },
]))]
pub struct LoadBalancing {
    /// LeastRequest: of two backends drawn by weight, the one with fewer requests for its weight. RoundRobin: each in
    /// turn, in proportion to its weight and smoothly (no bursts). Random: any, by weight. LeastConnections: the one
    /// with the fewest requests for its weight. LeastResponseTime: the one with the lowest mean latency times its
    /// requests. PeakEwma: of two, the one with the lower latency times its requests, where a slow answer counts at
    /// once, is forgotten slowly, and failures count as slow. ConsistentHash: by what consistentHash says, so that
    /// requests with the same key go to the same backend (Maglev).
    #[serde(default)]
    pub algorithm: Algorithm,

    /// What ConsistentHash hashes; for that algorithm, and only there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consistent_hash: Option<ConsistentHash>,

    /// A backend that begins to take requests gets its share little by little. Without it: at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<SlowStart>,

    /// Whether backends near the proxy go first. None: all the same. PreferZone: requests stay in the proxy's zone as
    /// far as that loads no backend there more than others. Hints: as the hints of EndpointSlices say, which follow
    /// spec.trafficDistribution of the Service. In both the rest takes over what the near ones cannot carry.
    #[serde(default)]
    pub locality: Locality,

    /// Where less than this share of the backends is healthy, 1 to 100 percent, all of them take requests, healthy or
    /// not: better some failures than a few backends crushed by the load of all. Without it: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub panic_below_percent: Option<i32>,
}

/// Names of the algorithms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[allow(missing_docs, reason = "a doc comment on a variant would turn the schema's enum into oneOf")]
pub enum Algorithm {
    #[default]
    LeastRequest,
    RoundRobin,
    Random,
    LeastConnections,
    LeastResponseTime,
    PeakEwma,
    ConsistentHash,
}

/// What ConsistentHash hashes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "(self.key in ['Header', 'Cookie', 'Query']) == has(self.name)",
    "message": "key Header, Cookie and Query must have name, and no other key may: add it, remove it or change the key",
    "reason": "FieldValueInvalid",
    "fieldPath": ".name",
}]))]
pub struct ConsistentHash {
    /// SourceIP: the client's address. Header, Cookie, Query: the value of the one that name says. Host: the request's
    /// host. A request without it goes to any backend.
    pub key: HashKey,

    /// Name of the header, cookie or query parameter, 1 to 256 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = KEY_NAME_BYTES_MAX),
        regex(pattern = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
    )]
    pub name: Option<String>,

    /// What one backend may have of the requests under way, 105 to 1000 percent of its fair share, before its keys go
    /// on to another one. 0: no bound.
    #[serde(default = "max_load_percent")]
    #[schemars(
        range(min = 0, max = LOAD_PERCENT_MAX),
        extend("x-kubernetes-validations" = [{
            "rule": "self == 0 || self >= 105",
            "message": "maxLoadPercent must be 0 (no bound), or 105 to 1000",
            "reason": "FieldValueInvalid",
        }])
    )]
    pub max_load_percent: i32,
}

/// What a request is told by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[allow(missing_docs, reason = "a doc comment on a variant would turn the schema's enum into oneOf")]
pub enum HashKey {
    #[serde(rename = "SourceIP")]
    SourceIp,
    Header,
    Cookie,
    Query,
    Host,
}

/// A share that grows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SlowStart {
    /// Until a backend has its whole share, as a duration like `30s`; above 0s, at most 1h.
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "duration(self) > duration('0s') && duration(self) <= duration('1h')",
        "message": "window must be above 0s and at most 1h",
    }]))]
    pub window: Duration,

    /// What a backend gets at once, 1 to 100 percent of its share.
    #[serde(default = "min_weight_percent")]
    #[schemars(range(min = 1, max = 100))]
    pub min_weight_percent: i32,
}

/// Whether near backends go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[allow(missing_docs, reason = "a doc comment on a variant would turn the schema's enum into oneOf")]
pub enum Locality {
    // Not `Off`: unquoted it is `false` to kubectl, whose YAML is 1.1.
    #[default]
    None,
    PreferZone,
    Hints,
}

fn max_load_percent() -> i32 {
    125
}

fn min_weight_percent() -> i32 {
    10
}

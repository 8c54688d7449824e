//! The status of a `LoadBalancerPool`, which the controller writes.

use crate::duration::Duration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Zones that a status counts; backends of further ones are in the totals only.
pub const STATUS_ZONES_MAX: usize = 32;
/// Bytes of a condition's message.
pub const CONDITION_MESSAGE_BYTES_MAX: usize = 1024;
/// Bytes of the summary's message.
pub const SUMMARY_MESSAGE_BYTES_MAX: usize = 256;

/// What the controller and the proxies made of the pool.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancerPoolStatus {
    /// metadata.generation of the specification that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Backends behind the pool; those that two backend sets share count once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<EndpointStatus>,

    /// How far the proxies are with the pool. Absent while nothing of it is served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub programmed: Option<ProgrammedStatus>,

    /// What holds and what does not, one entry per type: Accepted, ResolvedRefs, EndpointsReady, Programmed, Degraded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<Condition>,

    /// The columns of `kubectl get lbp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<StatusSummary>,
}

/// How many backends there are.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointStatus {
    /// All of them, ready and draining.
    #[schemars(range(min = 0))]
    pub total: i32,

    /// Those that take requests: ready as the cluster says, and not kept from requests at every proxy by what checks
    /// found.
    #[schemars(range(min = 0))]
    pub ready: i32,

    /// Those that end and take requests only when no other can.
    #[schemars(range(min = 0))]
    pub draining: i32,

    /// Ready as the cluster says, and taking no requests at some proxy, by what checks found. Those that take none at any
    /// proxy are not counted as ready.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub unhealthy: i32,

    /// Ready backends by zone, where the zone is known; at most 32 zones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = STATUS_ZONES_MAX),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub zones: Vec<ZoneStatus>,
}

/// Backends of one zone.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ZoneStatus {
    /// Of the nodes, as topology.kubernetes.io/zone names it.
    pub name: String,

    /// Backends there that take requests.
    #[schemars(range(min = 0))]
    pub ready: i32,
}

/// How many proxies run the newest version.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProgrammedStatus {
    /// Proxies that are connected and serve the pool.
    #[schemars(range(min = 0))]
    pub proxies: i32,

    /// Those of them that run its newest configuration with its newest backends.
    #[schemars(range(min = 0))]
    pub current: i32,

    /// While a proxy is behind: how old the oldest change is that it lacks. When none is: how long the newest
    /// change took to reach the last proxy. A duration like `4ms`, rounded up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_lag: Option<Duration>,

    /// Digest of the configuration, 16 hexadecimal digits; equal wherever the configuration is.
    pub config_version: String,
}

/// One line about the pool.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatusSummary {
    /// Backends that take requests, of all: `40/42`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<String>,

    /// Proxies that run the newest version, of all that serve the pool: `12/12`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxies: Option<String>,

    /// The reason of the condition that matters most, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,

    /// programmed.oldestLag, like `4ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<String>,

    /// The message of the condition that matters most, at most 256 bytes of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

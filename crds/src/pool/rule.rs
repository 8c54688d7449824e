//! Rules: which requests go to which backend sets, and how.

use super::{
    HOSTNAME_BYTES_MAX, HOSTNAME_PATTERN, HOSTNAMES_MAX, IpRules, MATCHES_MAX, NAME_BYTES_MAX, NAME_PATTERN,
    PATH_BYTES_MAX, PATH_PATTERN, RATE_LIMITS_MAX, RULE_BACKEND_SETS_MAX, RateLimit, RequestLimits, Retry,
    RuleTimeouts, SessionPersistence, WeightedBackendSet,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Requests that match go to these backend sets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// Name of the rule, for messages: a DNS label of 1 to 63 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = NAME_BYTES_MAX), regex(pattern = NAME_PATTERN))]
    pub name: Option<String>,

    /// Hosts that the rule is for, lower case, at most 16; `*.example.com` stands for every name below
    /// example.com. Without it: every host of the listeners.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = HOSTNAMES_MAX),
        inner(length(min = 1, max = HOSTNAME_BYTES_MAX), regex(pattern = HOSTNAME_PATTERN)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub hostnames: Vec<String>,

    /// Requests that the rule is for: any of these, at most 16. Without it: every request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MATCHES_MAX), extend("x-kubernetes-list-type" = "atomic"))]
    pub matches: Vec<RouteMatch>,

    /// Backend sets that share the rule's requests by weight: 1 to 8, at least one with a weight above 0.
    #[schemars(
        length(min = 1, max = RULE_BACKEND_SETS_MAX),
        extend(
            "x-kubernetes-list-type" = "map",
            "x-kubernetes-list-map-keys" = ["name"],
            "x-kubernetes-validations" = [{
                "rule": "self.exists(b, b.weight > 0)",
                "message": "at least one backend set of a rule must have a weight above 0",
                "reason": "FieldValueInvalid",
            }]
        )
    )]
    pub backend_sets: Vec<WeightedBackendSet>,

    /// How long a request of this rule may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<RuleTimeouts>,

    /// When a request of this rule is tried again, in place of spec.retry as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,

    /// Whether requests of this rule that belong together go to one backend, in place of spec.sessionPersistence as a
    /// whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_persistence: Option<SessionPersistence>,

    /// How large requests of this rule may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<RequestLimits>,

    /// From where requests of this rule may come, in place of spec.ipRules as a whole; `{}` is from everywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_rules: Option<IpRules>,

    /// How many requests of this rule there may be, in place of spec.rateLimits as a whole; at most 8, and `[]` is as many
    /// as come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = RATE_LIMITS_MAX),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub rate_limits: Option<Vec<RateLimit>>,
}

/// One kind of request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteMatch {
    /// The path of the request.
    pub path: PathMatch,
}

/// Compares the path of a request, as the listener's paths makes it, byte by byte and without the query.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PathMatch {
    /// PathPrefix compares whole segments: /a matches /a and /a/b, not /ab. Exact compares the whole path.
    #[serde(rename = "type", default)]
    pub kind: PathMatchType,

    /// Path to compare with, up to 1024 characters: starts with a slash; no empty, `.` or `..` segment, no `%2F`.
    #[schemars(
        length(min = 1, max = PATH_BYTES_MAX),
        regex(pattern = PATH_PATTERN),
        extend("x-kubernetes-validations" = [
            {
                "rule": "!self.contains('//')",
                "message": "a path must not contain an empty segment (//)",
            },
            {
                "rule": "!self.contains('/./') && !self.contains('/../') && !self.endsWith('/.') && !self.endsWith('/..')",
                "message": "a path must not contain a segment . or ..",
            },
            {
                "rule": "!self.contains('%2f') && !self.contains('%2F')",
                "message": "a path must not contain an encoded slash (%2F)",
            },
        ])
    )]
    pub value: String,
}

/// How a path is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[allow(missing_docs, reason = "a doc comment on a variant would turn the schema's enum into oneOf")]
pub enum PathMatchType {
    #[default]
    PathPrefix,
    Exact,
}

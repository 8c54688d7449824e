//! Rules: which requests go to which backend sets, and how.

use super::{
    FILTERS_MAX, HOSTNAME_BYTES_MAX, HOSTNAME_PATTERN, HOSTNAMES_MAX, IpRules, MATCHES_MAX, NAME_BYTES_MAX,
    NAME_PATTERN, RATE_LIMITS_MAX, RULE_BACKEND_SETS_MAX, RULE_LISTENERS_MAX, RateLimit, RequestLimits,
    Retry, RouteMatch, RuleFilter, RuleTimeouts, SessionPersistence, WeightedBackendSet,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Requests that match go to these backend sets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "has(self.backendSets) != (has(self.filters) && self.filters.exists(f, f.type == 'RequestRedirect' || f.type == 'DirectResponse'))",
        "message": "a rule must have backendSets, or a filter RequestRedirect or DirectResponse that answers, and not both",
        "reason": "FieldValueInvalid",
    },
    {
        "rule": "!has(self.filters) || self.filters.all(f, f.type == 'RequestMirror' || self.filters.exists_one(g, g.type == f.type))",
        "message": "a rule must not have two filters of one type, but for RequestMirror",
        "reason": "FieldValueInvalid",
        "fieldPath": ".filters",
    },
    {
        "rule": "!has(self.filters) || self.filters.filter(f, f.type in ['RequestRedirect', 'URLRewrite', 'DirectResponse']).size() <= 1",
        "message": "a rule must have at most one of the filters RequestRedirect, URLRewrite and DirectResponse",
        "reason": "FieldValueInvalid",
        "fieldPath": ".filters",
    },
]))]
pub struct Rule {
    /// Name of the rule, for messages: a DNS label of 1 to 63 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = NAME_BYTES_MAX), regex(pattern = NAME_PATTERN))]
    pub name: Option<String>,

    /// Names of the listeners that the rule serves, at most 16. Without it: every listener of the pool. A rule that serves a
    /// listener with protocol TCP, TLS or UDP has backendSets, and nothing that is of requests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = RULE_LISTENERS_MAX),
        inner(length(min = 1, max = NAME_BYTES_MAX), regex(pattern = NAME_PATTERN)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub listeners: Vec<String>,

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

    /// What is done to its requests and their responses, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = FILTERS_MAX), extend("x-kubernetes-list-type" = "atomic"))]
    pub filters: Vec<RuleFilter>,

    /// Backend sets that share the rule's requests by weight: 1 to 8, at least one with a weight above 0. Only where a filter
    /// RequestRedirect or DirectResponse answers there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
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

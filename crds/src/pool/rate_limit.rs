//! How many requests there may be in a time, and from where they may come.

use super::{NAME_BYTES_MAX, NAME_PATTERN};
use crate::duration::Duration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Limits of one rule.
pub const RATE_LIMITS_MAX: usize = 8;
/// Requests in a period, and at once.
pub const RATE_REQUESTS_MAX: i32 = 1_000_000;
/// Clients that a limit counts at a time, at least and at most.
pub const RATE_KEYS_RANGE: (i32, i32) = (100, 1_000_000);
/// Limits of one pool that proxies have together.
pub const RATE_SHARED_OF_POOL_MAX: usize = 64;
/// Clients that all limits of a pool together count at a time.
pub const RATE_KEYS_OF_POOL_MAX: u64 = 4_000_000;
/// Clients that a limit counts at a time where it does not say.
pub const RATE_KEYS_DEFAULT: i32 = 10_000;
/// Bytes of the name of a header or cookie.
pub const RATE_NAME_BYTES_MAX: usize = 256;
/// Allowed and denied networks of one rule, each.
pub const IP_NETWORKS_MAX: usize = 1_000;
/// What a network may be made of; what it is exactly is for the format.
pub const NETWORK_BYTES_MAX: usize = 64;

/// At most so many requests in a period: of each client, or in all. One that a limit refuses is answered 429 with
/// Retry-After, and counts on no other limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "!has(self.burst) || self.algorithm == 'TokenBucket'",
        "message": "burst is for algorithm TokenBucket only: remove it",
        "reason": "FieldValueForbidden",
        "fieldPath": ".burst",
    },
    {
        "rule": "!has(self.maxKeys) || !has(self.key) || self.key.type != 'Route'",
        "message": "maxKeys is not for key type Route, which has one bucket: remove it",
        "reason": "FieldValueForbidden",
        "fieldPath": ".maxKeys",
    },
]))]
pub struct RateLimit {
    /// Name of the limit, unique within the list: a DNS label of 1 to 63 characters. Clients see it in RateLimit.
    #[schemars(length(min = 1, max = NAME_BYTES_MAX), regex(pattern = NAME_PATTERN))]
    pub name: String,

    /// Whose requests. Local: those of one proxy, so that each of several lets so many pass. Cluster: those of all proxies
    /// together; each has a share, which follows what is asked of it.
    #[serde(default)]
    pub scope: RateLimitScope,

    /// What is counted together. Without it: the requests of one source address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<RateLimitKey>,

    /// TokenBucket lets requests pass evenly, and so many at once as burst says. SlidingWindow counts those of the last
    /// period.
    #[serde(default)]
    pub algorithm: RateLimitAlgorithm,

    /// Requests in each period, 1 to 1000000.
    #[schemars(range(min = 1, max = RATE_REQUESTS_MAX))]
    pub requests: i32,

    /// As a duration like `1m`: 1s to 24h.
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "duration(self) >= duration('1s') && duration(self) <= duration('24h')",
        "message": "period must be 1s to 24h",
    }]))]
    pub period: Duration,

    /// Requests at once, 1 to 1000000; for TokenBucket, and only there. Without it: as many as requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = RATE_REQUESTS_MAX))]
    pub burst: Option<i32>,

    /// Clients that each proxy counts at a time, 100 to 1000000; those past it are counted in groups. Not for key type
    /// Route. Without it: 10000. All limits of a pool together: 4000000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = RATE_KEYS_RANGE.0, max = RATE_KEYS_RANGE.1))]
    pub max_keys: Option<i32>,

    /// When responses carry RateLimit and RateLimit-Policy. WhenRefused: those with status 429 by this limit. Always: all.
    #[serde(default)]
    pub response_headers: RateLimitHeaders,
}

/// What a limit counts together.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "(self.type in ['Header', 'Cookie']) == has(self.name)",
        "message": "key type Header and Cookie must have name, and no other type may: say which header or cookie, or remove it",
        "reason": "FieldValueInvalid",
        "fieldPath": ".name",
    },
    {
        "rule": "self.type == 'SourceIP' || !(has(self.ipv4PrefixLength) || has(self.ipv6PrefixLength))",
        "message": "ipv4PrefixLength and ipv6PrefixLength are for key type SourceIP only: remove them",
        "reason": "FieldValueForbidden",
    },
]))]
pub struct RateLimitKey {
    /// SourceIP: requests of one client address. Header, Cookie: those with the same value of it; requests without it
    /// are counted together. Route: all requests of the rule; of all rules that take the limit from spec.rateLimits.
    #[serde(rename = "type", default)]
    pub kind: RateLimitKeyType,

    /// Name of the header or cookie, 1 to 256 characters; for Header and Cookie, and only there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = RATE_NAME_BYTES_MAX),
        regex(pattern = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
    )]
    pub name: Option<String>,

    /// Leading bits of an IPv4 address that are one client, 1 to 32; for SourceIP, and only there. Without it: 32.
    #[serde(default, rename = "ipv4PrefixLength", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 32))]
    pub ipv4_prefix_length: Option<i32>,

    /// Leading bits of an IPv6 address that are one client, 1 to 128; for SourceIP, and only there. Without it: 64, which
    /// is what one customer has at least.
    #[serde(default, rename = "ipv6PrefixLength", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 128))]
    pub ipv6_prefix_length: Option<i32>,
}

/// Whose requests a limit is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[allow(missing_docs, reason = "a doc comment on a variant would turn the schema's enum into oneOf")]
pub enum RateLimitScope {
    #[default]
    Local,
    Cluster,
}

/// What a limit counts together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[allow(missing_docs, reason = "a doc comment on a variant would turn the schema's enum into oneOf")]
pub enum RateLimitKeyType {
    #[default]
    #[serde(rename = "SourceIP")]
    SourceIp,
    Header,
    Cookie,
    Route,
}

/// How a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[allow(missing_docs, reason = "a doc comment on a variant would turn the schema's enum into oneOf")]
pub enum RateLimitAlgorithm {
    #[default]
    TokenBucket,
    SlidingWindow,
}

/// When responses tell of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[allow(missing_docs, reason = "a doc comment on a variant would turn the schema's enum into oneOf")]
pub enum RateLimitHeaders {
    #[default]
    WhenRefused,
    Always,
}

/// From where requests may come; others are answered 403. The longest prefix that covers the client's address decides, and
/// denied before allowed where both list it. An address that none covers may ask where nothing is allowed by name.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IpRules {
    /// Networks whose clients may ask, at most 1000, like `10.0.0.0/8` or `2001:db8::/32`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = IP_NETWORKS_MAX),
        transform = networks,
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub allow: Vec<String>,

    /// Networks whose clients may not, at most 1000.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = IP_NETWORKS_MAX),
        transform = networks,
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub deny: Vec<String>,
}

/// The schema of a list of networks; the API server knows the format.
pub(super) fn networks(schema: &mut schemars::Schema) {
    let item = serde_json::json!({
        "type": "string", "format": "cidr", "minLength": 1, "maxLength": NETWORK_BYTES_MAX,
    });
    schema.insert("items".into(), item);
}

//! How the requests of a rule are divided between backend sets.

use super::{NAME_BYTES_MAX, NAME_PATTERN};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Weight of a backend set within a rule.
pub const SET_WEIGHT_MAX: i32 = 1_000_000;
/// Matches that send a request to one set.
pub const SPLIT_MATCHES_MAX: usize = 8;
/// Bytes of the name and of the value of such a match.
pub const SPLIT_BYTES_MAX: usize = 256;

/// A backend set and its share of a rule's requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WeightedBackendSet {
    /// Name of a set in spec.backendSets.
    #[schemars(length(min = 1, max = NAME_BYTES_MAX), regex(pattern = NAME_PATTERN))]
    pub name: String,

    /// Share of the requests, 0 to 1000000, in proportion to the other sets of the rule; 0 takes none, but for sessions
    /// that are there already.
    #[serde(default = "super::one")]
    #[schemars(range(min = 0, max = SET_WEIGHT_MAX))]
    pub weight: i32,

    /// A request with any of these goes to this set, whatever the weights and its session; at most 8. Where several sets
    /// match, to the first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = SPLIT_MATCHES_MAX), extend("x-kubernetes-list-type" = "atomic"))]
    pub matches: Vec<SplitMatch>,
}

/// What sends a request to one of a rule's sets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SplitMatch {
    /// Where it stands in the request: Header or Cookie.
    #[serde(rename = "type")]
    pub kind: SplitMatchType,

    /// Name of the header or cookie, 1 to 256 characters.
    #[schemars(length(min = 1, max = SPLIT_BYTES_MAX), regex(pattern = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"))]
    pub name: String,

    /// What it says, compared as it is: 1 to 256 visible ASCII characters and blanks. Without it: anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = SPLIT_BYTES_MAX), regex(pattern = "^[ -~]+$"))]
    pub value: Option<String>,
}

/// Where something stands in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[allow(missing_docs, reason = "a doc comment on a variant would turn the schema's enum into oneOf")]
pub enum SplitMatchType {
    Header,
    Cookie,
}

//! What a rule asks of a request.

use super::{FIELD_BYTES_MAX, FIELD_NAME_PATTERN, NETWORK_BYTES_MAX, PATH_BYTES_MAX};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Headers, parameters or cookies that one match asks for, each.
pub const MATCH_FIELDS_MAX: usize = 16;
/// Networks of one match.
pub const MATCH_SOURCES_MAX: usize = 64;
/// Bytes of a method.
pub const METHOD_BYTES_MAX: usize = 32;

/// One kind of request: everything that is said here has to hold.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteMatch {
    /// The path of the request. Without it: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathMatch>,

    /// Headers that the request has, as the client sent them, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = MATCH_FIELDS_MAX),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub headers: Vec<FieldMatch>,

    /// Parameters in the query, at most 16: the first of each name counts, with percent-encoding and `+` undone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = MATCH_FIELDS_MAX),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub query_params: Vec<FieldMatch>,

    /// Cookies that the request has, at most 16: the first of each name counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = MATCH_FIELDS_MAX),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub cookies: Vec<FieldMatch>,

    /// Method, in capital letters as GET is, 1 to 32 characters. Without it: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = METHOD_BYTES_MAX), regex(pattern = FIELD_NAME_PATTERN))]
    pub method: Option<String>,

    /// Networks that the client's address is in one of, at most 64, like `10.0.0.0/8`. Who the client is, says the
    /// listener's clientAddress.
    #[serde(default, rename = "sourceIPs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = MATCH_SOURCES_MAX),
        inner(length(min = 1, max = NETWORK_BYTES_MAX)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub source_ips: Vec<String>,
}

/// Compares the path of a request, as the listener's paths makes it, byte by byte and without the query.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
// The expression for a path's characters is short because the API server counts its length for each match that there may be.
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "self.type == 'RegularExpression' || self.value.startsWith('/')",
        "message": "a path must start with a slash",
        "fieldPath": ".value",
    },
    {
        "rule": "self.type == 'RegularExpression' || self.value.matches('^[!$-;=@-Z_a-z~]*$')",
        "message": "a path has a character that paths cannot have: percent-encode it, and leave out ? and #",
        "fieldPath": ".value",
    },
    {
        "rule": "self.type == 'RegularExpression' || !self.value.contains('//')",
        "message": "a path must not contain an empty segment (//)",
        "fieldPath": ".value",
    },
    {
        "rule": "self.type == 'RegularExpression' || (!self.value.contains('/./') && !self.value.contains('/../') && !self.value.endsWith('/.') && !self.value.endsWith('/..'))",
        "message": "a path must not contain a segment . or ..",
        "fieldPath": ".value",
    },
    {
        "rule": "self.type == 'RegularExpression' || (!self.value.contains('%2f') && !self.value.contains('%2F'))",
        "message": "a path must not contain an encoded slash (%2F)",
        "fieldPath": ".value",
    },
]))]
pub struct PathMatch {
    /// PathPrefix compares whole segments: /a matches /a and /a/b, not /ab. Exact compares the whole path, and so does
    /// RegularExpression.
    #[serde(rename = "type", default)]
    pub kind: PathMatchType,

    /// Path to compare with, up to 1024 characters: starts with a slash; no empty, `.` or `..` segment, no `%2F`. Or an
    /// expression of ASCII characters for whole paths, as the regex crate of Rust reads it.
    #[schemars(length(min = 1, max = PATH_BYTES_MAX), regex(pattern = "^[ -~]+$"))]
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
    RegularExpression,
}

/// A value that a request has by name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FieldMatch {
    /// Exact compares the value as it is, RegularExpression the whole value.
    #[serde(rename = "type", default)]
    pub kind: FieldMatchType,

    /// Name, 1 to 256 characters.
    #[schemars(length(min = 1, max = FIELD_BYTES_MAX), regex(pattern = FIELD_NAME_PATTERN))]
    pub name: String,

    /// What its value is, 1 to 1024 visible ASCII characters and blanks; or an expression for it.
    #[schemars(length(min = 1, max = PATH_BYTES_MAX), regex(pattern = "^[ -~]+$"))]
    pub value: String,
}

/// How a value is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[allow(missing_docs, reason = "a doc comment on a variant would turn the schema's enum into oneOf")]
pub enum FieldMatchType {
    #[default]
    Exact,
    RegularExpression,
}

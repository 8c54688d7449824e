//! What a rule does to requests and responses.

use super::{
    FIELD_BYTES_MAX, FIELD_NAME_PATTERN, HOSTNAME_BYTES_MAX, MATCH_FIELDS_MAX, METHOD_BYTES_MAX,
    NAME_BYTES_MAX, NAME_PATTERN, PATH_BYTES_MAX, RESPONSE_BODY_BYTES_MAX,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Filters of one rule.
pub const FILTERS_MAX: usize = 16;
/// Bytes of a header's value that a filter writes.
pub const FILTER_VALUE_BYTES_MAX: usize = 1024;
/// Origins, and headers of each kind, of one CORS filter.
pub const CORS_ENTRIES_MAX: usize = 64;
/// Requests of which a mirror copies some.
pub const MIRROR_DENOMINATOR_MAX: i32 = 1_000_000;
/// Status codes of a redirect.
pub const REDIRECT_CODES: [i32; 5] = [301, 302, 303, 307, 308];

/// Hostnames without a star.
const PRECISE_HOSTNAME_PATTERN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
const ORIGIN_PATTERN: &str = r"^(\*|https?://(\*|(\*\.)?[-a-z0-9.]+|\[[0-9a-f:.]+\])(:([0-9]{1,5}|\*))?)$";
/// With parameters a type would never be equal to another.
const CONTENT_TYPE_PATTERN: &str = r"^[A-Za-z0-9!#$&^_.+-]+/([A-Za-z0-9!#$&^_.+-]+|\*)$";

/// One thing that is done to requests and responses. Whatever their order, it is done in the order of docs/routing.md.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "(self.type == 'RequestHeaderModifier') == has(self.requestHeaderModifier) && (self.type == 'ResponseHeaderModifier') == has(self.responseHeaderModifier) && (self.type == 'URLRewrite') == has(self.urlRewrite) && (self.type == 'RequestRedirect') == has(self.requestRedirect) && (self.type == 'RequestMirror') == has(self.requestMirror) && (self.type == 'CORS') == has(self.cors) && (self.type == 'DirectResponse') == has(self.directResponse) && (self.type == 'RequestValidation') == has(self.requestValidation)",
    "message": "a filter must have the field of its type (for URLRewrite it is urlRewrite), and no other",
    "reason": "FieldValueInvalid",
}]))]
pub struct RuleFilter {
    /// What it does; the field of the same name says how. At most one of each type, but for RequestMirror.
    #[serde(rename = "type")]
    pub kind: FilterType,

    /// Headers of the request, for the backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_header_modifier: Option<HeaderModifier>,

    /// Headers of the response, for the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_header_modifier: Option<HeaderModifier>,

    /// Host and path that the backend is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_rewrite: Option<UrlRewrite>,

    /// Sends the client elsewhere; the rule then has no backendSets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_redirect: Option<RequestRedirect>,

    /// Sends a copy of the request to another backend set, whose answer is dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_mirror: Option<RequestMirror>,

    /// Which origins browsers may let ask, and read the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cors: Option<Cors>,

    /// A fixed answer; the rule then has no backendSets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direct_response: Option<DirectResponse>,

    /// Which requests the rule takes; others are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_validation: Option<RequestValidation>,
}

/// What a filter does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[allow(missing_docs, reason = "a doc comment on a variant would turn the schema's enum into oneOf")]
pub enum FilterType {
    #[default]
    RequestHeaderModifier,
    ResponseHeaderModifier,
    #[serde(rename = "URLRewrite")]
    UrlRewrite,
    RequestRedirect,
    RequestMirror,
    #[serde(rename = "CORS")]
    Cors,
    DirectResponse,
    RequestValidation,
}

/// Changes of headers: set, then add, then remove. Each name once. Host, headers of the connection and of framing, and
/// those that tell backends of the client cannot be changed.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeaderModifier {
    /// In place of all fields of the name, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = MATCH_FIELDS_MAX),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub set: Vec<HeaderField>,

    /// Beside the fields of the name, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = MATCH_FIELDS_MAX),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub add: Vec<HeaderField>,

    /// Names of headers that are taken away, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = MATCH_FIELDS_MAX),
        inner(length(min = 1, max = FIELD_BYTES_MAX)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub remove: Vec<String>,
}

/// A header.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeaderField {
    /// Its name, 1 to 256 characters.
    #[schemars(length(min = 1, max = FIELD_BYTES_MAX), regex(pattern = FIELD_NAME_PATTERN))]
    pub name: String,

    /// Its value, 1 to 1024 visible ASCII characters and blanks.
    #[schemars(length(min = 1, max = FILTER_VALUE_BYTES_MAX), regex(pattern = "^[!-~]([ -~]*[!-~])?$"))]
    pub value: String,
}

/// What backends are asked in place of what came: host, path, or both.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UrlRewrite {
    /// Host of the request. X-Forwarded-Host says what the client asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = HOSTNAME_BYTES_MAX), regex(pattern = PRECISE_HOSTNAME_PATTERN))]
    pub hostname: Option<String>,

    /// Path of the request; its query stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathModifier>,
}

/// Another path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "(self.type == 'ReplaceFullPath') == has(self.replaceFullPath) && (self.type == 'ReplacePrefixMatch') == has(self.replacePrefixMatch)",
    "message": "a path must have the field of its type, replaceFullPath or replacePrefixMatch, and not the other",
    "reason": "FieldValueInvalid",
}]))]
pub struct PathModifier {
    /// Whether the whole path is replaced, or the prefix that a match of type PathPrefix took.
    #[serde(rename = "type")]
    pub kind: PathModifierType,

    /// The whole path, up to 1024 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = PATH_BYTES_MAX))]
    pub replace_full_path: Option<String>,

    /// In place of the prefix, up to 1024 characters; with or without a slash at its end. Every match of the rule is then of
    /// type PathPrefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = PATH_BYTES_MAX))]
    pub replace_prefix_match: Option<String>,
}

/// What of a path is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[allow(missing_docs, reason = "a doc comment on a variant would turn the schema's enum into oneOf")]
pub enum PathModifierType {
    ReplaceFullPath,
    ReplacePrefixMatch,
}

/// Where clients are sent. What is left out is as they asked.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequestRedirect {
    /// Scheme: http or https.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<RedirectScheme>,

    /// Host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = HOSTNAME_BYTES_MAX), regex(pattern = PRECISE_HOSTNAME_PATTERN))]
    pub hostname: Option<String>,

    /// Path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathModifier>,

    /// Port, 1 to 65535. Without it: that of the scheme where scheme is said, else the listener's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub port: Option<i32>,

    /// Status code: 301, 302, 303, 307 or 308.
    #[serde(default = "found")]
    #[schemars(extend("enum" = REDIRECT_CODES))]
    pub status_code: i32,
}

/// A scheme of URLs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
#[allow(missing_docs, reason = "a doc comment on a variant would turn the schema's enum into oneOf")]
pub enum RedirectScheme {
    Http,
    Https,
}

/// Which requests are copied, and where to. A mirror never delays or fails the request; a body of more than 64 KiB is not
/// copied.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "!(has(self.percent) && has(self.fraction))",
        "message": "a mirror must not have both percent and fraction: remove one",
        "reason": "FieldValueInvalid",
    },
    {
        "rule": "!has(self.fraction) || self.fraction.numerator <= self.fraction.denominator",
        "message": "numerator must not be above denominator",
        "reason": "FieldValueInvalid",
        "fieldPath": ".fraction",
    },
]))]
pub struct RequestMirror {
    /// Name of a set in spec.backendSets.
    #[schemars(length(min = 1, max = NAME_BYTES_MAX), regex(pattern = NAME_PATTERN))]
    pub backend_set: String,

    /// Share of the requests that are copied, 0 to 100. Without it and fraction: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub percent: Option<i32>,

    /// The same, finer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fraction: Option<Fraction>,
}

/// A share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Fraction {
    /// So many, 0 to 1000000,
    #[schemars(range(min = 0, max = MIRROR_DENOMINATOR_MAX))]
    pub numerator: i32,

    /// of so many, 1 to 1000000.
    #[serde(default = "hundred")]
    #[schemars(range(min = 1, max = MIRROR_DENOMINATOR_MAX))]
    pub denominator: i32,
}

/// Cross-origin requests (Fetch Standard, section 3.2). Preflights are answered here; a request of an origin that may not
/// read the answer passes without the headers that would let it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cors {
    /// Origins that may read, at most 64: `https://a.example`, `https://*.example`, with or without a port, or `*`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = CORS_ENTRIES_MAX),
        inner(length(min = 1, max = HOSTNAME_BYTES_MAX), regex(pattern = ORIGIN_PATTERN)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub allow_origins: Vec<String>,

    /// Whether they may with credentials.
    #[serde(default)]
    pub allow_credentials: bool,

    /// Methods beyond GET, HEAD and POST that they may ask with, at most 16; `*` for any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = MATCH_FIELDS_MAX),
        inner(length(min = 1, max = METHOD_BYTES_MAX), regex(pattern = FIELD_NAME_PATTERN)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub allow_methods: Vec<String>,

    /// Headers that they may ask with, at most 64; `*` for any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = CORS_ENTRIES_MAX),
        inner(length(min = 1, max = FIELD_BYTES_MAX), regex(pattern = FIELD_NAME_PATTERN)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub allow_headers: Vec<String>,

    /// Headers of the response that they may read, at most 64; `*` for any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = CORS_ENTRIES_MAX),
        inner(length(min = 1, max = FIELD_BYTES_MAX), regex(pattern = FIELD_NAME_PATTERN)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub expose_headers: Vec<String>,

    /// Seconds for which a browser keeps the answer to a preflight, 1 to 86400.
    #[serde(default = "five")]
    #[schemars(range(min = 1, max = 86_400))]
    pub max_age: i32,
}

/// A fixed answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DirectResponse {
    /// Status code, 200 to 599.
    #[serde(default = "ok")]
    #[schemars(range(min = 200, max = 599))]
    pub status: i32,

    /// Content-Type of the answer, 1 to 256 visible ASCII characters and blanks.
    #[serde(default = "text_plain")]
    #[schemars(length(min = 1, max = FIELD_BYTES_MAX), regex(pattern = "^[!-~]([ -~]*[!-~])?$"))]
    pub content_type: String,

    /// Body of the answer, at most 4096 bytes.
    #[serde(default)]
    #[schemars(length(max = RESPONSE_BODY_BYTES_MAX))]
    pub body: String,
}

/// Which requests a rule takes. How large they may be, limits say.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequestValidation {
    /// Methods, at most 16; others are answered 405 with Allow. Without it: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = MATCH_FIELDS_MAX),
        inner(length(min = 1, max = METHOD_BYTES_MAX), regex(pattern = FIELD_NAME_PATTERN)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub methods: Vec<String>,

    /// Types of content that a body may have, at most 16, like `application/json` or `image/*`; others are answered 415.
    /// Without it: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = MATCH_FIELDS_MAX),
        inner(length(min = 1, max = FIELD_BYTES_MAX), regex(pattern = CONTENT_TYPE_PATTERN)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub content_types: Vec<String>,
}

fn found() -> i32 {
    302
}

fn hundred() -> i32 {
    100
}

fn five() -> i32 {
    5
}

fn ok() -> i32 {
    200
}

fn text_plain() -> String {
    "text/plain".into()
}

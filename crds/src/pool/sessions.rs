//! Requests that belong together: how they are known, and what they share.

use crate::duration::Duration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Bytes of the name of a header.
pub const SESSION_NAME_BYTES_MAX: usize = 256;
/// Bytes of the name of a cookie.
pub const COOKIE_NAME_BYTES_MAX: usize = 64;
/// Bytes of the path of a cookie.
pub const COOKIE_PATH_BYTES_MAX: usize = 256;
/// Sessions that a proxy remembers of a pool, at least and at most.
pub const SESSIONS_RANGE: (i32, i32) = (1_000, 4_000_000);
/// Name of the cookie where none is said.
pub const COOKIE_NAME: &str = "LB_SESSION";

/// Requests that belong together go to one backend, for as long as it takes requests: also while it drains, while its
/// weight is 0, and while its set has no share of a rule's requests. What the pool or the Service lists no longer, or
/// health checks took out, is replaced by another backend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "!(self.type in ['Header', 'LearntCookie']) || has(self.sessionName)",
        "message": "type Header and LearntCookie must have sessionName: say which header or cookie",
        "reason": "FieldValueRequired",
        "fieldPath": ".sessionName",
    },
    {
        "rule": "!(self.type in ['SourceIP', 'None']) || !has(self.sessionName)",
        "message": "sessionName is for type Cookie, Header and LearntCookie only: remove it",
        "reason": "FieldValueForbidden",
        "fieldPath": ".sessionName",
    },
    {
        "rule": "!(self.type in ['Cookie', 'LearntCookie']) || !has(self.sessionName) || self.sessionName.size() <= 64",
        "message": "the name of a cookie must be at most 64 characters",
        "reason": "FieldValueInvalid",
        "fieldPath": ".sessionName",
    },
    {
        "rule": "self.type == 'Cookie' || !has(self.absoluteTimeout)",
        "message": "absoluteTimeout is for type Cookie only: remove it, or use idleTimeout",
        "reason": "FieldValueForbidden",
        "fieldPath": ".absoluteTimeout",
    },
    {
        "rule": "self.type in ['SourceIP', 'Header', 'LearntCookie'] || !has(self.idleTimeout)",
        "message": "idleTimeout is for type SourceIP, Header and LearntCookie only: remove it, or use absoluteTimeout",
        "reason": "FieldValueForbidden",
        "fieldPath": ".idleTimeout",
    },
    {
        "rule": "self.type in ['SourceIP', 'Header', 'LearntCookie'] || !has(self.maxSessions)",
        "message": "maxSessions is for type SourceIP, Header and LearntCookie only, where proxies remember sessions: remove it",
        "reason": "FieldValueForbidden",
        "fieldPath": ".maxSessions",
    },
    {
        "rule": "self.type == 'Cookie' || !has(self.cookieConfig)",
        "message": "cookieConfig is for type Cookie only: remove it",
        "reason": "FieldValueForbidden",
        "fieldPath": ".cookieConfig",
    },
    {
        "rule": "self.type != 'Cookie' || !has(self.sessionName) || !has(self.cookieConfig) || self.cookieConfig.secure != 'Never' || !(self.sessionName.lowerAscii().startsWith('__secure-') || self.sessionName.lowerAscii().startsWith('__host-'))",
        "message": "browsers drop a cookie whose name begins with __Secure- or __Host- where it is not secure: use secure Auto or Always, or another name",
        "reason": "FieldValueInvalid",
        "fieldPath": ".cookieConfig.secure",
    },
    {
        "rule": "self.type != 'Cookie' || !has(self.sessionName) || !has(self.cookieConfig) || self.cookieConfig.path == '/' || !self.sessionName.lowerAscii().startsWith('__host-')",
        "message": "browsers drop a cookie whose name begins with __Host- where its path is not /: use path /, or another name",
        "reason": "FieldValueInvalid",
        "fieldPath": ".cookieConfig.path",
    },
]))]
pub struct SessionPersistence {
    /// How requests that belong together are known. Cookie: by a cookie that the proxy sets, sealed, which says itself
    /// where they go, on every proxy and after a restart. SourceIP: by the client's address. Header: by the value of the
    /// header that sessionName says. LearntCookie: by the value of the application's own cookie that sessionName says.
    /// None: not at all, for a rule that is not to keep the pool's sessions.
    #[serde(rename = "type", default)]
    pub kind: SessionType,

    /// Name of the cookie, 1 to 64 characters (for Cookie it may be left out: LB_SESSION), or of the header, 1 to 256.
    /// Not for SourceIP and None.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = SESSION_NAME_BYTES_MAX),
        regex(pattern = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
    )]
    pub session_name: Option<String>,

    /// How long a cookie counts from when it was issued, as a duration like `1h`: 1s to 720h (30 days). For Cookie, and
    /// only there. Without it: 1h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "duration(self) >= duration('1s') && duration(self) <= duration('720h')",
        "message": "absoluteTimeout must be 1s to 720h (30 days)",
    }]))]
    pub absolute_timeout: Option<Duration>,

    /// A session without a request for this long is forgotten, as a duration like `1h`: 1s to 720h (30 days). For
    /// SourceIP, Header and LearntCookie, and only there; the longest of the pool's rules counts for all of them. Without
    /// it: 1h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "duration(self) >= duration('1s') && duration(self) <= duration('720h')",
        "message": "idleTimeout must be 1s to 720h (30 days)",
    }]))]
    pub idle_timeout: Option<Duration>,

    /// Sessions that each proxy remembers of the pool, 1000 to 4000000; past that old ones are forgotten. For SourceIP,
    /// Header and LearntCookie, and only there; the largest of the pool's rules counts for all of them. Without it: 100000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = SESSIONS_RANGE.0, max = SESSIONS_RANGE.1))]
    pub max_sessions: Option<i32>,

    /// What the cookie is like; for Cookie, and only there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie_config: Option<CookieConfig>,
}

/// How requests that belong together are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[allow(missing_docs, reason = "a doc comment on a variant would turn the schema's enum into oneOf")]
pub enum SessionType {
    #[default]
    Cookie,
    #[serde(rename = "SourceIP")]
    SourceIp,
    Header,
    LearntCookie,
    None,
}

/// What the cookie of a session is like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.sameSite != 'None' || self.secure != 'Never'",
    "message": "browsers drop a cookie with sameSite None that is not secure: use secure Auto or Always, or another sameSite",
    "reason": "FieldValueInvalid",
    "fieldPath": ".secure",
}]))]
pub struct CookieConfig {
    /// How long a browser keeps it. Permanent: for absoluteTimeout (Max-Age). Session: until it is closed, and no longer
    /// than absoluteTimeout.
    #[serde(default)]
    pub lifetime_type: CookieLifetime,

    /// Path that it is sent for, 1 to 256 visible ASCII characters and blanks without a semicolon; starts with a slash.
    #[serde(default = "path")]
    #[schemars(length(min = 1, max = COOKIE_PATH_BYTES_MAX), regex(pattern = "^/[ -:<-~]*$"))]
    pub path: String,

    /// Whether a browser sends it from other sites. Strict: never. Lax: when a link is followed. None: always.
    #[serde(default)]
    pub same_site: SameSite,

    /// Whether a browser sends it over HTTPS only. Auto: where the request came over HTTPS. Always, Never: as they say.
    #[serde(default)]
    pub secure: CookieSecurity,

    /// Whether it is kept from scripts of the page.
    #[serde(default = "yes")]
    pub http_only: bool,
}

/// How long a browser keeps a cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[allow(missing_docs, reason = "a doc comment on a variant would turn the schema's enum into oneOf")]
pub enum CookieLifetime {
    #[default]
    Permanent,
    Session,
}

/// Whether a browser sends a cookie from other sites.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[allow(missing_docs, reason = "a doc comment on a variant would turn the schema's enum into oneOf")]
pub enum SameSite {
    Strict,
    #[default]
    Lax,
    None,
}

/// Whether a browser sends a cookie over HTTPS only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[allow(missing_docs, reason = "a doc comment on a variant would turn the schema's enum into oneOf")]
pub enum CookieSecurity {
    #[default]
    Auto,
    Always,
    Never,
}

impl Default for CookieConfig {
    fn default() -> Self {
        Self {
            lifetime_type: CookieLifetime::default(),
            path: path(),
            same_site: SameSite::default(),
            secure: CookieSecurity::default(),
            http_only: yes(),
        }
    }
}

fn path() -> String {
    "/".to_owned()
}

fn yes() -> bool {
    true
}

//! How clients are brought to HTTPS, and kept there.

use crate::duration::Duration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Statuses that a redirect may have.
pub const REDIRECT_STATUSES: [i32; 5] = [301, 302, 303, 307, 308];

/// Answers every request of a listener with a redirect to HTTPS, to the same host and path. What a trusted proxy says to have
/// come over HTTPS (clientAddress) is served.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpsRedirect {
    /// Status: 301, 302, 303, 307 or 308. With 308 and 307 clients repeat the method and the body. Default: 308.
    #[serde(default = "permanent")]
    #[schemars(range(min = 301, max = 308), extend("enum" = REDIRECT_STATUSES))]
    pub status_code: i32,

    /// Port that clients are sent to, 1 to 65535: the one that they know, which need not be that of a listener. Default: 443,
    /// which is not written.
    #[serde(default = "https_port")]
    #[schemars(range(min = 1, max = 65_535))]
    pub port: i32,
}

fn permanent() -> i32 {
    308
}

fn https_port() -> i32 {
    443
}

/// Tells clients to ask for the host over HTTPS alone (Strict-Transport-Security, RFC 6797), in every answer of the listener,
/// in place of what a backend says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.preload) || !self.preload || (has(self.includeSubDomains) && self.includeSubDomains && duration(self.maxAge) >= duration('8760h'))",
    "message": "preload needs includeSubDomains and a maxAge of 8760h (a year) or more, as the lists of browsers ask",
    "reason": "FieldValueInvalid",
    "fieldPath": ".preload",
}]))]
pub struct Hsts {
    /// For how long, as a duration like `8760h`: 0s to 87600h; 0s takes back what was said before.
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "duration(self) >= duration('0s') && duration(self) <= duration('87600h')",
        "message": "maxAge must be 0s to 87600h",
    }]))]
    pub max_age: Duration,

    /// Also for every name below the host. Default: false.
    #[serde(default)]
    pub include_sub_domains: bool,

    /// Consent to the lists that browsers are shipped with. Default: false.
    #[serde(default)]
    pub preload: bool,
}

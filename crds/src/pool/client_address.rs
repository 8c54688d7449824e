//! Who the client is where other proxies stand in front.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Networks of trusted proxies of one listener.
pub const TRUSTED_NETWORKS_MAX: usize = 64;
/// Trusted proxies in a row.
pub const TRUSTED_HOPS_MAX: i32 = 16;

/// Whose word on the client counts. Who is not trusted is the client, whatever its headers say. A trusted proxy's header
/// is read from its end: the first address that is not a trusted proxy's is the client's. Source addresses of sessions,
/// hashing, rate limits and IP rules are the client's.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientAddress {
    /// Networks of the proxies in front, at most 64, like `10.0.0.0/8`. Without it: any address, where numTrustedHops is
    /// set, else nobody.
    #[serde(default, rename = "trustedCIDRs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = TRUSTED_NETWORKS_MAX),
        transform = super::rate_limit::networks,
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub trusted_cidrs: Vec<String>,

    /// Proxies in front, 1 to 16; with trustedCIDRs at most so many of them. Without trustedCIDRs whoever can reach the
    /// listener past those proxies can claim any address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = TRUSTED_HOPS_MAX))]
    pub num_trusted_hops: Option<i32>,

    /// The header that the proxies in front keep: XForwardedFor (with X-Forwarded-Proto and X-Forwarded-Host), or Forwarded
    /// (RFC 7239). The other one is dropped.
    #[serde(default)]
    pub source: ClientAddressSource,

    /// Whether backends are sent Forwarded (RFC 7239) as well. Omit: only X-Forwarded-For and its kin.
    #[serde(default)]
    pub forwarded: ForwardedHeader,
}

/// Where the client's address is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[allow(missing_docs, reason = "a doc comment on a variant would turn the schema's enum into oneOf")]
pub enum ClientAddressSource {
    #[default]
    XForwardedFor,
    Forwarded,
}

/// Whether backends are sent `Forwarded`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[allow(missing_docs, reason = "a doc comment on a variant would turn the schema's enum into oneOf")]
pub enum ForwardedHeader {
    #[default]
    Omit,
    Send,
}

//! The PROXY protocol, from proxies in front and to backends.

use super::client_address::TRUSTED_NETWORKS_MAX;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Connections of these networks begin with a header of the PROXY protocol, before TLS, which says who the client is; one
/// without it is closed. Connections of others have none, and nothing that they send is taken for one. Where pools share a
/// port, what the oldest pool says that has any applies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProxyProtocol {
    /// Networks of the proxies in front, 1 to 64, like `10.0.0.0/8`.
    #[serde(rename = "trustedCIDRs")]
    #[schemars(
        length(min = 1, max = TRUSTED_NETWORKS_MAX),
        transform = super::rate_limit::networks,
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub trusted_cidrs: Vec<String>,

    /// Versions that are taken: V1, V2 or both. Default: both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2), extend("x-kubernetes-list-type" = "set"))]
    pub versions: Option<Vec<ProxyProtocolVersion>>,
}

/// A version of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[allow(missing_docs, reason = "a doc comment on a variant would turn the schema's enum into oneOf")]
pub enum ProxyProtocolVersion {
    V1,
    V2,
}

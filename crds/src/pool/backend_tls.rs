//! How the connections to backends are secured. Fields are called as in the Gateway API's `BackendTLSPolicy`.

use super::{
    DNS_NAME_PATTERN, HOSTNAME_BYTES_MAX, SecretReference, TLS_ALTERNATIVE_NAMES_MAX, TLS_AUTHORITIES_MAX,
    TLS_URI_BYTES_MAX, TLS_URI_PATTERN,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// TLS to the backends of a set. Every certificate is verified; there is no way around it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "(has(self.caCertificateRefs) && size(self.caCertificateRefs) > 0) != has(self.wellKnownCACertificates)",
    "message": "tls of a backend set must have exactly one of caCertificateRefs and wellKnownCACertificates",
    "reason": "FieldValueInvalid",
}]))]
pub struct BackendTls {
    /// Name in DNS, lower case: sent to the backend (SNI), and one that its certificate must have, unless subjectAltNames
    /// says which.
    #[schemars(length(min = 1, max = HOSTNAME_BYTES_MAX), regex(pattern = DNS_NAME_PATTERN))]
    pub hostname: String,

    /// Secrets whose ca.crt holds, as PEM, the certificates of who signs those of the backends; at most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = TLS_AUTHORITIES_MAX), extend("x-kubernetes-list-type" = "atomic"))]
    pub ca_certificate_refs: Vec<SecretReference>,

    /// System trusts what the proxy's own system trusts.
    #[serde(default, rename = "wellKnownCACertificates", skip_serializing_if = "Option::is_none")]
    pub well_known_ca_certificates: Option<WellKnownCaCertificates>,

    /// Names of which the backend's certificate must have one, in place of hostname; at most 5.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = TLS_ALTERNATIVE_NAMES_MAX), extend("x-kubernetes-list-type" = "atomic"))]
    pub subject_alt_names: Vec<SubjectAltName>,

    /// A Secret of type kubernetes.io/tls with the certificate that backends are shown that ask for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate_ref: Option<SecretReference>,
}

/// Certificates that somebody else keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[allow(missing_docs, reason = "a doc comment on a variant would turn the schema's enum into oneOf")]
pub enum WellKnownCaCertificates {
    System,
}

/// One name of a certificate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.type == 'Hostname' ? has(self.hostname) && !has(self.uri) : has(self.uri) && !has(self.hostname)",
    "message": "a subject alternative name of type Hostname must have hostname, one of type URI must have uri, and no other",
    "reason": "FieldValueInvalid",
}]))]
pub struct SubjectAltName {
    /// Hostname or URI.
    #[serde(rename = "type")]
    pub kind: SubjectAltNameType,

    /// Name in DNS, lower case; for type Hostname.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = HOSTNAME_BYTES_MAX), regex(pattern = DNS_NAME_PATTERN))]
    pub hostname: Option<String>,

    /// URI such as `spiffe://cluster.local/ns/shop/sa/web`, up to 253 characters, compared byte by byte; for type URI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = TLS_URI_BYTES_MAX), regex(pattern = TLS_URI_PATTERN))]
    pub uri: Option<String>,
}

/// What kind of name it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[allow(missing_docs, reason = "a doc comment on a variant would turn the schema's enum into oneOf")]
pub enum SubjectAltNameType {
    Hostname,
    #[serde(rename = "URI")]
    Uri,
}

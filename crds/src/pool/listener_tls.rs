//! How a listener ends TLS.

use super::{CERTIFICATES_MAX, SecretReference, TLS_AUTHORITIES_MAX};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a listener ends TLS, or passes it on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "(has(self.mode) && self.mode == 'Passthrough') != has(self.certificateRefs)",
    "message": "tls must have certificateRefs, and must not with mode Passthrough, which passes on what it cannot read",
    "reason": "FieldValueInvalid",
    "fieldPath": ".certificateRefs",
}, {
    "rule": "!has(self.mode) || self.mode != 'Passthrough' || !(has(self.minVersion) || has(self.cipherPolicy) || has(self.clientValidation))",
    "message": "mode Passthrough must not have minVersion, cipherPolicy and clientValidation: backends end TLS",
    "reason": "FieldValueForbidden",
}, {
    "rule": "!has(self.cipherPolicy) || self.cipherPolicy != 'Modern' || !has(self.minVersion) || self.minVersion == '1.3'",
    "message": "cipherPolicy Modern is TLS 1.3 alone: remove minVersion or set it to 1.3",
    "reason": "FieldValueInvalid",
    "fieldPath": ".minVersion",
}]))]
pub struct ListenerTls {
    /// Terminate: TLS ends here, with certificateRefs. Passthrough: it is passed on to the backends, which end it, by the
    /// name that the client asks for (SNI); for protocol TLS, and only there. Default: Terminate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<TlsMode>,

    /// Secrets of type kubernetes.io/tls, 1 to 16, chosen by the name that the client asks for (SNI); the first
    /// one answers a client that asks for none. Of several with one name, the first whose key the client can verify.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = CERTIFICATES_MAX),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub certificate_refs: Vec<SecretReference>,

    /// The oldest version of TLS that is spoken: 1.2 or 1.3. Default: 1.2, and 1.3 with cipherPolicy Modern.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_version: Option<TlsVersion>,

    /// Which ciphers, named after the profiles of Mozilla's server side TLS: Intermediate, or Modern, which is TLS 1.3
    /// alone. Default: Intermediate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cipher_policy: Option<CipherPolicy>,

    /// Asks clients for a certificate. Without it: none is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_validation: Option<ClientValidation>,
}

/// Where TLS ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[allow(missing_docs, reason = "a doc comment on a variant would turn the schema's enum into oneOf")]
pub enum TlsMode {
    #[default]
    Terminate,
    Passthrough,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[allow(missing_docs, reason = "a doc comment on a variant would turn the schema's enum into oneOf")]
pub enum TlsVersion {
    #[serde(rename = "1.2")]
    V1_2,
    #[serde(rename = "1.3")]
    V1_3,
}

/// A set of ciphers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[allow(missing_docs, reason = "a doc comment on a variant would turn the schema's enum into oneOf")]
pub enum CipherPolicy {
    Intermediate,
    Modern,
}

/// How clients prove who they are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientValidation {
    /// Secrets whose ca.crt holds, as PEM, the certificates of who signs those of clients: 1 to 8.
    #[schemars(
        length(min = 1, max = TLS_AUTHORITIES_MAX),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub ca_certificate_refs: Vec<SecretReference>,

    /// Required: no connection without a certificate. Optional: none is fine, a bad one is not. Default: Required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<ClientValidationMode>,

    /// In which headers backends learn of the certificate: XFCC (X-Forwarded-Client-Cert), ClientCert (Client-Cert and
    /// Client-Cert-Chain, RFC 9440), Both or None. What clients send in these headers is always dropped. Default: None.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward: Option<ClientCertificateForward>,
}

/// Whether a client must have a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[allow(missing_docs, reason = "a doc comment on a variant would turn the schema's enum into oneOf")]
pub enum ClientValidationMode {
    #[default]
    Required,
    Optional,
}

/// How backends learn of a client's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[allow(missing_docs, reason = "a doc comment on a variant would turn the schema's enum into oneOf")]
pub enum ClientCertificateForward {
    #[serde(rename = "XFCC")]
    Xfcc,
    ClientCert,
    Both,
    #[default]
    None,
}

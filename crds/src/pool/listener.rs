//! Listeners: ports, and what clients speak there.

use super::{
    ClientAddress, HOSTNAME_BYTES_MAX, HOSTNAME_PATTERN, HOSTNAMES_MAX, Hsts, HttpsRedirect, ListenerLimits,
    ListenerTls, NAME_BYTES_MAX, NAME_PATTERN, PathPolicy, ProxyProtocol,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A port that the proxies listen on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "!(self.protocol in ['HTTPS', 'TLS']) || has(self.tls)",
        "message": "a listener with protocol HTTPS must have tls.certificateRefs, and one with protocol TLS those or mode Passthrough",
        "reason": "FieldValueRequired",
        "fieldPath": ".tls",
    },
    {
        "rule": "self.protocol != 'HTTP' || !has(self.tls)",
        "message": "a listener with protocol HTTP must not have tls: remove it or set protocol to HTTPS",
        "reason": "FieldValueForbidden",
        "fieldPath": ".tls",
    },
    {
        "rule": "self.protocol == 'TLS' || !has(self.tls) || !has(self.tls.mode) || self.tls.mode == 'Terminate'",
        "message": "tls.mode Passthrough is for protocol TLS: use that, or remove it",
        "reason": "FieldValueForbidden",
        "fieldPath": ".tls.mode",
    },
    {
        "rule": "self.protocol != 'TLS' || !(has(self.clientAddress) || has(self.httpsRedirect) || has(self.hsts) || has(self.paths))",
        "message": "a listener with protocol TLS must not have clientAddress, httpsRedirect, hsts or paths: bytes are passed on whatever they say",
        "reason": "FieldValueForbidden",
    },
    {
        "rule": "self.protocol != 'TLS' || !has(self.limits) || !(has(self.limits.uriBytes) || has(self.limits.headBytes) || has(self.limits.headers) || has(self.limits.streamsPerConnection) || has(self.limits.resetsPerSecond) || has(self.limits.controlFramesPerSecond) || has(self.limits.headTimeout) || has(self.limits.idleTimeout) || has(self.limits.minBodyBytesPerSecond))",
        "message": "a listener with protocol TLS has limits of connections and handshakes: remove all others, which are of HTTP",
        "reason": "FieldValueForbidden",
        "fieldPath": ".limits",
    },
    {
        "rule": "self.protocol != 'UDP' || !has(self.proxyProtocol)",
        "message": "a listener with protocol UDP must not have proxyProtocol: datagrams have no begin for it",
        "reason": "FieldValueForbidden",
        "fieldPath": ".proxyProtocol",
    },
    {
        "rule": "!(self.protocol in ['TCP', 'UDP']) || !(has(self.tls) || has(self.hostnames) || has(self.clientAddress) || has(self.httpsRedirect) || has(self.hsts) || has(self.paths))",
        "message": "a listener with protocol TCP or UDP must not have tls, hostnames, clientAddress, httpsRedirect, hsts or paths: bytes are passed on whatever they say",
        "reason": "FieldValueForbidden",
    },
    {
        "rule": "!(self.protocol in ['TCP', 'UDP']) || !has(self.limits) || !(has(self.limits.uriBytes) || has(self.limits.headBytes) || has(self.limits.headers) || has(self.limits.streamsPerConnection) || has(self.limits.resetsPerSecond) || has(self.limits.controlFramesPerSecond) || has(self.limits.handshakesPerSourcePerSecond) || has(self.limits.handshakesAtOnce) || has(self.limits.handshakesAtOncePerSource) || has(self.limits.headTimeout) || has(self.limits.idleTimeout) || has(self.limits.minBodyBytesPerSecond))",
        "message": "a listener with protocol TCP or UDP has the limits connections and connectionsPerSource: remove all others, which are of HTTP and TLS",
        "reason": "FieldValueForbidden",
        "fieldPath": ".limits",
    },
    {
        "rule": "self.protocol != 'HTTPS' || !has(self.httpsRedirect)",
        "message": "a listener with protocol HTTPS must not have httpsRedirect: its clients are there already",
        "reason": "FieldValueForbidden",
        "fieldPath": ".httpsRedirect",
    },
    {
        "rule": "self.protocol != 'HTTP' || !has(self.hsts)",
        "message": "a listener with protocol HTTP must not have hsts: browsers take it over HTTPS alone (RFC 6797)",
        "reason": "FieldValueForbidden",
        "fieldPath": ".hsts",
    },
]))]
pub struct Listener {
    /// Name of the listener, unique within the pool: a DNS label of 1 to 63 characters.
    #[schemars(length(min = 1, max = NAME_BYTES_MAX), regex(pattern = NAME_PATTERN))]
    pub name: String,

    /// Port that the proxies listen on, 1 to 65535, unique within the pool, but that one of UDP may have the number of another.
    #[schemars(range(min = 1, max = 65_535))]
    pub port: i32,

    /// What clients speak: HTTP or HTTPS, which both take HTTP/1.1 and HTTP/2; TCP, whose bytes are passed on whatever they
    /// say; TLS, where rules go by the name that the client asks for (SNI), and what is in it is passed on likewise; or UDP,
    /// whose datagrams are.
    pub protocol: Protocol,

    /// Hosts that the listener serves, lower case, at most 16; `*.example.com` stands for every name below
    /// example.com. Without it: every host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = HOSTNAMES_MAX),
        inner(length(min = 1, max = HOSTNAME_BYTES_MAX), regex(pattern = HOSTNAME_PATTERN)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub hostnames: Vec<String>,

    /// Whose word on the client's address counts. Without it: nobody's, and every X-Forwarded header of a request is
    /// replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_address: Option<ClientAddress>,

    /// Certificates, or that TLS is passed on; for protocols HTTPS and TLS, and only there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenerTls>,

    /// Sends clients to HTTPS; for protocol HTTP, and only there. `{}` is status 308 and port 443.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub https_redirect: Option<HttpsRedirect>,

    /// Tells clients to stay with HTTPS; for protocol HTTPS, and only there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hsts: Option<Hsts>,

    /// From which proxies in front connections begin with a header of the PROXY protocol. Without it: from none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocol>,

    /// What clients may do here. Without it: what each limit says of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<ListenerLimits>,

    /// What is done with paths before a route is looked for. Without it: as `{}` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<PathPolicy>,
}

/// What clients speak to a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Protocol {
    #[serde(rename = "HTTP")]
    #[allow(missing_docs, reason = "a doc comment here would turn the schema's enum into oneOf")]
    Http,
    #[serde(rename = "HTTPS")]
    #[allow(missing_docs, reason = "a doc comment here would turn the schema's enum into oneOf")]
    Https,
    #[serde(rename = "TCP")]
    #[allow(missing_docs, reason = "a doc comment here would turn the schema's enum into oneOf")]
    Tcp,
    #[serde(rename = "TLS")]
    #[allow(missing_docs, reason = "a doc comment here would turn the schema's enum into oneOf")]
    Tls,
    #[serde(rename = "UDP")]
    #[allow(missing_docs, reason = "a doc comment here would turn the schema's enum into oneOf")]
    Udp,
}

//! Where backends come from.

use super::{
    BACKEND_WEIGHT_MAX, BackendTls, CircuitBreaker, Concurrency, ConnectionPool, DNS_HOSTNAME_BYTES_MAX,
    DNS_HOSTNAME_PATTERN, EndpointSelector, HOSTNAME_BYTES_MAX, HealthCheck, LoadBalancing, NAME_BYTES_MAX,
    NAME_PATTERN, OBJECT_NAME_PATTERN, PRIORITY_MAX, ProxyProtocolVersion, RetryBudget, STATIC_BACKENDS_MAX,
    UpstreamProtocol,
};
use crate::Duration;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Other clusters of one backend set.
pub const CLUSTERS_MAX: usize = 8;
/// Bytes of a key of a Secret's data.
pub const SECRET_KEY_BYTES_MAX: usize = 253;
/// Key of a Secret's data.
pub const SECRET_KEY_PATTERN: &str = "^[-._a-zA-Z0-9]+$";

/// A group of backends that can stand in for each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "[has(self.service), has(self.endpointSelector), has(self.static), has(self.dns)].exists_one(is_written, is_written)",
        "message": "a backend set must have exactly one of service, endpointSelector, static and dns",
        "reason": "FieldValueInvalid",
    },
    {
        "rule": "!has(self.circuitBreaker) || !has(self.circuitBreaker.fallback) || !has(self.circuitBreaker.fallback.backendSet) || self.circuitBreaker.fallback.backendSet != self.name",
        "message": "a backend set must not be its own fallback: name another set, or use a response",
        "reason": "FieldValueInvalid",
        "fieldPath": ".circuitBreaker.fallback.backendSet",
    },
    {
        "rule": "!has(self.proxyProtocol) || !has(self.connectionPool) || !has(self.connectionPool.minWarmPerBackend) || self.connectionPool.minWarmPerBackend == 0",
        "message": "a backend set with proxyProtocol keeps no connection warm, since each is one client's: leave minWarmPerBackend out",
        "reason": "FieldValueInvalid",
        "fieldPath": ".connectionPool.minWarmPerBackend",
    },
]))]
pub struct BackendSet {
    /// Name of the set, unique within the pool: a DNS label of 1 to 63 characters.
    #[schemars(length(min = 1, max = NAME_BYTES_MAX), regex(pattern = NAME_PATTERN))]
    pub name: String,

    /// Backends are the endpoints of a Service, followed through its EndpointSlices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceSource>,

    /// Backends are the pods with these labels, without a Service in between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_selector: Option<EndpointSelector>,

    /// Backends are the addresses written here.
    #[serde(default, rename = "static", skip_serializing_if = "Option::is_none")]
    pub static_backends: Option<StaticSource>,

    /// Backends are the addresses that a name has in DNS, looked up again as its TTL says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<DnsSource>,

    /// How a backend of this set is chosen, in place of spec.loadBalancing as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancing: Option<LoadBalancing>,

    /// How backends of this set are checked, in place of spec.healthCheck as a whole; `{}` checks nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,

    /// What is spoken to the backends: HTTP (HTTP/1.1), or HTTP2 with prior knowledge, which gRPC needs. Without it:
    /// HTTP2 where the Service's port has appProtocol kubernetes.io/h2c, h2c or grpc, and else HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<UpstreamProtocol>,

    /// Connections to backends of this set, in place of spec.connectionPool as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_pool: Option<ConnectionPool>,

    /// How many requests a backend of this set has at a time, in place of spec.concurrency as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Concurrency>,

    /// When requests are kept away from this set, in place of spec.circuitBreaker as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit_breaker: Option<CircuitBreaker>,

    /// How many retries this set gets, in place of spec.retryBudget as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_budget: Option<RetryBudget>,

    /// TLS to the backends, for requests and health checks. Without it: plaintext.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<BackendTls>,

    /// Connections to the backends begin with a header of the PROXY protocol, V1 or V2, before TLS, that says who the client
    /// is; those of health checks with one that names nobody. A connection is used again for the same client alone, and
    /// none is kept warm. Without it: no header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocolVersion>,
}

/// A Service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceSource {
    /// Namespace of the Service. Without it: the pool's own. Any other one needs a ReferenceGrant there, from group
    /// weir.dev and kind LoadBalancerPool to kind Service; without that the set is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = NAME_BYTES_MAX), regex(pattern = NAME_PATTERN))]
    pub namespace: Option<String>,

    /// Name of the Service.
    #[schemars(length(min = 1, max = HOSTNAME_BYTES_MAX), regex(pattern = OBJECT_NAME_PATTERN))]
    pub name: String,

    /// Port of the Service (not of its pods), by number (1 to 65535) or by name.
    #[schemars(transform = super::port_by_number_or_name)]
    pub port: IntOrString,

    /// Priority of the backends of the pool's own cluster, 0 to 15: those of a higher number take only what those of
    /// lower ones cannot carry.
    #[serde(default)]
    #[schemars(range(min = 0, max = PRIORITY_MAX))]
    pub priority: i32,

    /// Other clusters whose backends of the same Service are in the set too; at most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = CLUSTERS_MAX),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub clusters: Vec<OtherCluster>,
}

/// A Service of the same name and port in another cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OtherCluster {
    /// Name of the cluster, unique within the list: a DNS label of 1 to 63 characters. Its backends are called
    /// NAME/ADDRESS:PORT.
    #[schemars(length(min = 1, max = NAME_BYTES_MAX), regex(pattern = NAME_PATTERN))]
    pub name: String,

    /// A Secret of the pool's namespace with a kubeconfig for the cluster. Its credentials are in it: what runs a program,
    /// names a file or leaves TLS out is refused.
    pub kubeconfig_ref: KubeconfigRef,

    /// Priority of this cluster's backends, 0 to 15: those of a higher number take only what those of lower ones cannot
    /// carry.
    #[serde(default = "super::one")]
    #[schemars(range(min = 0, max = PRIORITY_MAX))]
    pub priority: i32,

    /// Namespace of the Service there. Without it: the one that it has here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = NAME_BYTES_MAX), regex(pattern = NAME_PATTERN))]
    pub namespace: Option<String>,
}

/// A kubeconfig in a Secret of the pool's namespace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KubeconfigRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = HOSTNAME_BYTES_MAX), regex(pattern = OBJECT_NAME_PATTERN))]
    pub name: String,

    /// Key of the Secret's data that holds the kubeconfig: 1 to 253 letters, digits, -, _ and .
    #[serde(default = "kubeconfig_key")]
    #[schemars(length(min = 1, max = SECRET_KEY_BYTES_MAX), regex(pattern = SECRET_KEY_PATTERN))]
    pub key: String,
}

fn kubeconfig_key() -> String {
    "kubeconfig".to_owned()
}

/// Backends by address.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StaticSource {
    /// The backends, at most 1024, each with its own address and port. An empty list is a set that answers 503.
    #[schemars(
        length(max = STATIC_BACKENDS_MAX),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["address", "port"])
    )]
    pub backends: Vec<StaticBackend>,
}

/// One backend by address.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StaticBackend {
    /// IPv4 or IPv6 address, without brackets and without a port.
    #[schemars(
        length(min = 2, max = 45),
        extend("anyOf" = [{"format": "ipv4"}, {"format": "ipv6"}])
    )]
    pub address: String,

    /// TCP port, 1 to 65535.
    #[schemars(range(min = 1, max = 65_535))]
    pub port: i32,

    /// Share of the set's requests, 0 to 65535, in proportion to the other backends; 0 takes no new requests.
    #[serde(default = "super::one")]
    #[schemars(range(min = 0, max = BACKEND_WEIGHT_MAX))]
    pub weight: i32,

    /// Priority, 0 to 15: backends of a higher number take only what those of lower ones cannot carry.
    #[serde(default)]
    #[schemars(range(min = 0, max = PRIORITY_MAX))]
    pub priority: i32,

    /// Name of the backend, for people: a DNS label of 1 to 63 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = NAME_BYTES_MAX), regex(pattern = NAME_PATTERN))]
    pub name: Option<String>,
}

/// A name in DNS.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.minRefresh) || !has(self.maxRefresh) || duration(self.minRefresh) <= duration(self.maxRefresh)",
    "message": "minRefresh must not be longer than maxRefresh",
    "reason": "FieldValueInvalid",
    "fieldPath": ".minRefresh",
}]))]
pub struct DnsSource {
    /// The name, in lower case. With a dot at its end it is absolute; without one, the search domains of the
    /// controller's machine (of its pod, in a cluster) apply as its resolv.conf says. An address belongs under static.
    #[schemars(
        length(min = 1, max = DNS_HOSTNAME_BYTES_MAX),
        regex(pattern = DNS_HOSTNAME_PATTERN),
        extend("x-kubernetes-validations" = [{
            "rule": "!self.matches('^([^.]*[.])*[0-9]+[.]?$')",
            "message": "hostname must not be an IP address: write it under static",
        }])
    )]
    pub hostname: String,

    /// TCP port of every backend, 1 to 65535.
    #[schemars(range(min = 1, max = 65_535))]
    pub port: i32,

    /// Families of addresses in the order of preference: the first that the name has an address of is used. Default:
    /// IPv4, IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2), extend("x-kubernetes-list-type" = "set"))]
    pub families: Option<Vec<IpFamily>>,

    /// The shortest time between two lookups, however small the TTL, as a duration like `1s`: 1s to 1h. Default: 1s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "duration(self) >= duration('1s') && duration(self) <= duration('1h')",
        "message": "minRefresh must be 1s to 1h",
    }]))]
    pub min_refresh: Option<Duration>,

    /// The longest time between two lookups, however large the TTL, as a duration like `5m`: 1s to 1h. Default: 5m, or
    /// minRefresh where that is longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "duration(self) >= duration('1s') && duration(self) <= duration('1h')",
        "message": "maxRefresh must be 1s to 1h",
    }]))]
    pub max_refresh: Option<Duration>,
}

/// A family of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs, reason = "a doc comment on a variant would turn the schema's enum into oneOf")]
pub enum IpFamily {
    IPv4,
    IPv6,
}

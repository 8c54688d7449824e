//! Objects of a cluster, written by hand: a Service without a selector, its endpoints, and a pool in front of it.

use serde_json::{Value, json};
use std::net::SocketAddr;
use weir_tests::harness::cluster::{Api, Resource};

pub(crate) fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": name },
        "spec": { "ports": [{ "name": "http", "port": 80 }] },
    })
}

/// An EndpointSlice of a Service. All addresses have the port of the first.
pub(crate) fn slice(service: &str, name: &str, addresses: &[SocketAddr]) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": { "name": name, "labels": { "kubernetes.io/service-name": service } },
        "addressType": "IPv4",
        "ports": [{ "name": "http", "port": addresses[0].port(), "protocol": "TCP" }],
        "endpoints": endpoints(addresses),
    })
}

fn endpoints<'a>(addresses: impl IntoIterator<Item = &'a SocketAddr>) -> Value {
    addresses.into_iter().map(|address| json!({ "addresses": [address.ip()] })).collect()
}

/// Makes these the endpoints of a slice.
pub(crate) fn move_to<'a>(api: &mut Api, slice: &str, addresses: impl IntoIterator<Item = &'a SocketAddr>) {
    api.patch(Resource::Slice, slice, &json!({ "endpoints": endpoints(addresses) }));
}

/// A pool with these listeners, these rules, and a backend set for each of these Services, of its name.
pub(crate) fn pool(name: &str, listeners: &[Value], rules: &[Value], services: &[&str]) -> Value {
    let set = |name: &&str| json!({ "name": name, "service": { "name": name, "port": "http" } });
    json!({
        "apiVersion": "weir.dev/v1alpha1",
        "kind": "LoadBalancerPool",
        "metadata": { "name": name },
        "spec": {
            "listeners": listeners,
            "rules": rules,
            "backendSets": services.iter().map(set).collect::<Vec<_>>(),
        },
    })
}

/// A rule for everything below a path.
pub(crate) fn rule(path: &str, set: &str) -> Value {
    json!({ "matches": [{ "path": { "value": path } }], "backendSets": [{ "name": set }] })
}

/// A listener without TLS.
pub(crate) fn http(port: u16) -> Value {
    json!({ "name": "http", "port": port, "protocol": "HTTP" })
}

//! What changes, ends or goes away while connections are open and requests flow, and costs none of them.

mod away;
mod edits;
mod endings;
mod open;
mod outages;

use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;
use weir_tests::harness::cluster::{Api, Resource};
use weir_tests::harness::load::{Clients, Load};
use weir_tests::harness::{client, wait};

/// Between two requests of one client.
const PAUSE: Duration = Duration::from_millis(5);

fn load(server: SocketAddr) -> Load {
    let load = Load::start_paced(server, Clients { kept: 3, fresh: 3 }, PAUSE);
    flow(&load);
    load
}

/// Waits for requests that began and ended from here on, none of which may fail.
fn flow(load: &Load) {
    let before = load.seen().good;
    wait::until("the load should flow", || {
        let seen = load.seen();
        assert_eq!(seen.failures, Vec::<String>::new(), "with {} good requests", seen.good);
        (seen.good > before + 50).then_some(())
    });
}

fn assert_no_failure(load: Load) -> u64 {
    let seen = load.stop();
    assert_eq!(seen.failures, Vec::<String>::new(), "with {} good requests", seen.good);
    seen.good
}

/// A pool with this listener, these rules, and a backend set for each of these Services.
fn pool(name: &str, listeners: &Value, rules: &Value, services: &[&str]) -> Value {
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
fn rule(path: &str, set: &str) -> Value {
    json!({ "matches": [{ "path": { "value": path } }], "backendSets": [{ "name": set }] })
}

fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": name },
        "spec": { "ports": [{ "name": "http", "port": 80 }] },
    })
}

/// The only EndpointSlice of a Service, of its name. All addresses have the port of the first.
fn slice(service: &str, addresses: &[SocketAddr]) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": { "name": service, "labels": { "kubernetes.io/service-name": service } },
        "addressType": "IPv4",
        "ports": [{ "name": "http", "port": addresses[0].port(), "protocol": "TCP" }],
        "endpoints": endpoints(addresses),
    })
}

fn endpoints<'a>(addresses: impl IntoIterator<Item = &'a SocketAddr>) -> Value {
    addresses.into_iter().map(|address| json!({ "addresses": [address.ip()] })).collect()
}

/// Makes these the endpoints of a Service.
fn move_to<'a>(api: &mut Api, service: &str, addresses: impl IntoIterator<Item = &'a SocketAddr>) {
    api.patch(Resource::Slice, service, &json!({ "endpoints": endpoints(addresses) }));
}

/// Waits until requests below a path are answered with this status.
fn wait_for_path(server: SocketAddr, path: &str, status: u16) {
    wait::until(&format!("{server}{path} should answer {status}"), || {
        client::fetch_at(server, path).is_ok_and(|answer| answer.status == status).then_some(())
    });
}

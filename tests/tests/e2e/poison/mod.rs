//! Objects that are wrong, or as large as may be, cost themselves and nobody else: requests of another pool go on, its
//! changes arrive as always, the status names field and rule, and the next edit heals.

mod endpoints;
mod grants;
mod ports;
mod rules;

mod secrets;
mod slices;
mod unreadable;

use crate::cluster::{condition, sample};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::time::Duration;
use weir_tests::harness::cluster::{Api, Cluster, Namespace, Resource};
use weir_tests::harness::controller::{Controller, ControllerCommand};
use weir_tests::harness::load::{Clients, Load};
use weir_tests::harness::process::Process;
use weir_tests::harness::services::{Service, wait_for_backend, wait_for_status};
use weir_tests::harness::{client, ports as free_ports, wait};

/// Port of every sample backend, on an address of its own.
const BACKEND_PORT: u16 = 8080;
/// Between two requests of one client.
const PAUSE: Duration = Duration::from_millis(5);

/// A controller and a proxy with a pool that is sound, under load from the start to the end.
struct Ward<'a> {
    system: Namespace<'a>,
    shop: Namespace<'a>,
    api: Api,
    controller: Controller,
    proxy: Service,
    port: u16,
    load: Load,
    /// The Service's endpoint is one of them, in turn.
    backends: [(&'static str, IpAddr); 2],
    _processes: [Process; 2],
    edits: usize,
}

impl<'a> Ward<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        Self::of(cluster, |command, shop| command.watching(shop))
    }

    /// With a controller that watches what this says.
    fn of(
        cluster: &'a Cluster,
        watching: impl FnOnce(ControllerCommand, &Namespace<'a>) -> ControllerCommand,
    ) -> Self {
        let [system, shop] = ["weir", "shop"].map(|name| cluster.namespace(name));
        let kubeconfig = system.install_weir();
        let backends = ["one", "two"].map(|name| (name, IpAddr::from(cluster.pod_address())));
        let processes = backends.map(|(name, address)| sample(name, (address, BACKEND_PORT).into()));
        let port = free_ports::free();
        let mut api = shop.api();
        shop.apply(&service("web").to_string());
        api.create(Resource::Slice, &slice("web", "web-1", &[backends[0].1]));
        api.create(Resource::Pool, &sound(port));
        let command = ControllerCommand::of_cluster(&kubeconfig).in_namespace(&system);
        let controller = watching(command, &shop).start();
        let proxy = Service::proxy(controller.push);
        proxy.wait_until_ready();
        wait_for_backend(port, "/load", "one");
        let load = Load::start_paced(client::local(port), Clients { kept: 2, fresh: 2 }, PAUSE);
        Self { system, shop, api, controller, proxy, port, load, backends, _processes: processes, edits: 0 }
    }

    /// Endpoints and routes of the sound pool change, and requests follow.
    fn assert_others_go_on(&mut self) {
        self.edits += 1;
        let (name, address) = self.backends[self.edits % 2];
        let endpoints = json!({ "endpoints": [{ "addresses": [address] }] });
        self.api.patch(Resource::Slice, "web-1", &endpoints);
        wait_for_backend(self.port, "/load", name);
        let rules = sound_rules(&format!("/edit-{}", self.edits));
        self.api.patch(Resource::Pool, "sound", &json!({ "spec": { "rules": rules } }));
        wait_for_status(self.port, &format!("/edit-{}", self.edits), 200);
        let before = self.load.seen();
        assert_eq!(before.failures, Vec::<String>::new(), "with {} good requests", before.good);
        wait::until("the load should flow", || (self.load.seen().good > before.good + 20).then_some(()));
    }

    /// The controller's ServiceAccount, as kubectl wants it for a role.
    fn account(&self) -> String {
        format!("--serviceaccount={}:weir-controller", self.system.name)
    }

    /// Waits until a condition of a pool has this reason and its message says all of this; returns the message.
    fn wait_for_condition(&self, pool: &str, kind: &str, reason: &str, texts: &[&str]) -> String {
        let mut shown = Value::Null;
        let what = format!("{kind} of {pool} should be {reason} and say {texts:?}");
        let said = wait::patiently_or_not(|| {
            let object = self.shop.get(&["lbp", pool]);
            shown = object["status"].clone();
            let Value::Array(_) = shown["conditions"] else { return None };
            let condition = condition(&object, kind);
            let message = condition["message"].as_str()?;
            let is_there = condition["reason"] == reason && texts.iter().all(|text| message.contains(text));
            is_there.then(|| message.to_owned())
        });
        said.unwrap_or_else(|| panic!("{what}: {shown}"))
    }

    /// No request of the sound pool has failed, and nobody ended.
    fn end(mut self) {
        self.assert_others_go_on();
        assert!(self.controller.service.process.is_running() && self.proxy.process.is_running());
        let seen = self.load.stop();
        assert_eq!(seen.failures, Vec::<String>::new(), "with {} good requests", seen.good);
    }
}

/// Puts another value at this path of an object, which the API server would not take.
fn corrupt(namespace: &Namespace<'_>, resource: Resource, name: &str, path: &str, value: Value) {
    let kind = match resource {
        Resource::Pool => "lbp",
        Resource::Slice => "endpointslice",
        Resource::Secret => "secret",
        Resource::Grant => "referencegrant",
    };
    let mut object = namespace.get(&[kind, name]);
    *object.pointer_mut(path).expect("a path that is there") = value;
    namespace.write_past_the_api_server(resource, name, object);
}

fn sound(port: u16) -> Value {
    pool("sound", &[json!({ "name": "http", "port": port, "protocol": "HTTP" })], &sound_rules("/edit-0"))
}

fn sound_rules(path: &str) -> Value {
    let rule = |path: &str| json!({ "matches": [{ "path": { "value": path } }], "backendSets": [{ "name": "web" }] });
    json!([rule("/load"), rule(path)])
}

/// A pool in front of the Service `web`.
fn pool(name: &str, listeners: &[Value], rules: &Value) -> Value {
    json!({
        "apiVersion": "weir.dev/v1alpha1",
        "kind": "LoadBalancerPool",
        "metadata": { "name": name },
        "spec": {
            "listeners": listeners,
            "rules": rules,
            "backendSets": [{ "name": "web", "service": { "name": "web", "port": "http" } }],
        },
    })
}

/// The same with one listener and one rule, for everything.
fn plain_pool(name: &str, port: u16) -> Value {
    let rules = json!([{ "backendSets": [{ "name": "web" }] }]);
    pool(name, &[json!({ "name": "http", "port": port, "protocol": "HTTP" })], &rules)
}

fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": name },
        "spec": { "ports": [{ "name": "http", "port": 80 }] },
    })
}

/// An EndpointSlice written by hand, of addresses that all listen on [`BACKEND_PORT`].
fn slice(service: &str, name: &str, addresses: &[IpAddr]) -> Value {
    let endpoints: Vec<_> = addresses.iter().map(|address| json!({ "addresses": [address] })).collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": { "name": name, "labels": { "kubernetes.io/service-name": service } },
        "addressType": "IPv4",
        "ports": [{ "name": "http", "port": BACKEND_PORT, "protocol": "TCP" }],
        "endpoints": endpoints,
    })
}

//! Objects that are wrong, or as large as may be, cost themselves and nobody else: requests of another pool go on, its
//! changes arrive as always, the status names field and rule, and the next edit heals.

mod endpoints;
mod grants;
mod ports;
mod rules;
mod secrets;
mod slices;
mod unreadable;

use crate::cluster::{sample, wait_for_condition};
use crate::objects::{http, move_to, pool, rule, service, slice};
use serde_json::{Value, json};
use std::net::SocketAddr;
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
    backends: [(&'static str, SocketAddr); 2],
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
        let backends = ["one", "two"].map(|name| (name, (cluster.pod_address(), BACKEND_PORT).into()));
        let processes = backends.map(|(name, address)| sample(name, address));
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
        move_to(&mut self.api, "web-1", &[address]);
        wait_for_backend(self.port, "/load", name);
        let rules = sound_rules(&format!("/edit-{}", self.edits));
        self.api.patch(Resource::Pool, "sound", &json!({ "spec": { "rules": rules } }));
        wait_for_status(self.port, &format!("/edit-{}", self.edits), 200);
        let before = self.load.seen();
        before.assert_no_failure();
        wait::until("the load should flow", || (self.load.seen().good > before.good + 20).then_some(()));
    }

    /// Waits until a condition of a pool has this reason and its message says all of this; returns the message.
    fn wait_for_condition(&self, pool: &str, kind: &str, reason: &str, texts: &[&str]) -> String {
        wait_for_condition(&self.shop, pool, kind, reason, texts)
    }

    /// No request of the sound pool has failed, and nobody ended.
    fn end(mut self) {
        self.assert_others_go_on();
        assert!(self.controller.service.process.is_running() && self.proxy.process.is_running());
        self.load.assert_no_failure();
    }
}

/// Puts another value at this path of an object, which the API server would not take.
fn corrupt(namespace: &Namespace<'_>, resource: Resource, name: &str, path: &str, value: Value) {
    let kind = match resource {
        Resource::Pool => "lbp",
        Resource::Slice => "endpointslice",
        Resource::Grant => "referencegrant",
    };
    let mut object = namespace.get(&[kind, name]);
    *object.pointer_mut(path).expect("a path that is there") = value;
    namespace.write_past_the_api_server(resource, name, object);
}

fn sound(port: u16) -> Value {
    pool("sound", &[http(port)], &sound_rules("/edit-0"), &["web"])
}

fn sound_rules(path: &str) -> [Value; 2] {
    ["/load", path].map(|path| rule(path, "web"))
}

/// A pool in front of the Service `web`, of one listener and one rule, for everything.
fn plain_pool(name: &str, port: u16) -> Value {
    pool(name, &[http(port)], &[json!({ "backendSets": [{ "name": "web" }] })], &["web"])
}

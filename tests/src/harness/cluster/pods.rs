//! Pods that are many, or of a special kind: written and spoken for with one kubectl for all of them.

use super::Namespace;
use super::kubectl::good;
use serde_json::{Value, json};
use std::net::IpAddr;

/// A pod without processes. What listens on its addresses is the test's to start.
#[derive(Debug, Clone)]
pub struct PodText {
    /// Its name.
    pub name: String,
    /// Value of its label `app`.
    pub app: String,
    /// Name of its port.
    pub port_name: String,
    /// Number of that port.
    pub port: u16,
    /// The first one is of the cluster's first family.
    pub addresses: Vec<IpAddr>,
}

/// What a pod's probe says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// It is Ready.
    Passes,
    /// It runs and is not Ready.
    Fails,
}

impl Namespace<'_> {
    /// Creates pods on `node-a` that run and are Ready.
    ///
    /// # Panics
    /// When the API server refuses one.
    pub fn run_pods(&self, pods: &[PodText]) {
        let spec = |pod: &PodText| {
            let port = json!({ "name": pod.port_name, "containerPort": pod.port });
            json!({
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": { "name": pod.name, "labels": { "app": pod.app } },
                "spec": {
                    "nodeName": "node-a",
                    "containers": [{ "name": "main", "image": "weir", "ports": [port] }],
                },
            })
        };
        self.apply(&list(pods.iter().map(spec)));
        self.say_probed(pods, Probe::Passes);
    }

    /// Says of pods what their probes say, as their kubelet would.
    ///
    /// # Panics
    /// When one is not there.
    pub fn say_probed(&self, pods: &[PodText], probe: Probe) {
        let ready = if probe == Probe::Passes { "True" } else { "False" };
        let status = |pod: &PodText| {
            let addresses: Vec<_> = pod.addresses.iter().map(|address| json!({ "ip": address })).collect();
            json!({
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": { "name": pod.name },
                "status": {
                    "phase": "Running",
                    "podIP": pod.addresses.first(),
                    "podIPs": addresses,
                    "conditions": [{ "type": "Ready", "status": ready }],
                },
            })
        };
        let arguments =
            ["apply", "--server-side", "--force-conflicts", "--subresource=status", "--filename=-"];
        good(&arguments, self.try_kubectl(&arguments, &list(pods.iter().map(status))));
    }
}

fn list(items: impl Iterator<Item = Value>) -> String {
    json!({ "apiVersion": "v1", "kind": "List", "items": items.collect::<Vec<_>>() }).to_string()
}

//! On a real API server, with kubectl.

mod clusters;
mod control_plane;
mod definition;
pub(crate) mod fleet;
pub(crate) mod grants;
mod identity;
mod names;
mod pods;
mod policy;
mod propagation;
pub(crate) mod replicas;
mod resilience;
mod shares;
pub(crate) mod site;
mod slices;
mod source;
mod status;
mod unhealthy;
mod users_path;

use serde_json::Value;
use std::net::SocketAddr;
use std::process::Command;
use weir_tests::harness::authority::KeyPairText;
use weir_tests::harness::cluster::Namespace;
use weir_tests::harness::process::Process;
use weir_tests::harness::{binaries, client, wait};

/// Sample backends behind a Service, as a person would deploy them.
const WEB: &str = r#"
apiVersion: v1
kind: Service
metadata: { name: web }
spec:
  selector: { app: web }
  ports: [{ name: http, port: 80, targetPort: 8080 }]
---
apiVersion: apps/v1
kind: Deployment
metadata: { name: web }
spec:
  replicas: 2
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web } }
    spec:
      containers:
        - name: web
          image: weir
          command: [weir, demo-backend, --name, $(POD_NAME), --listen, "$(POD_IP):8080"]
          ports: [{ containerPort: 8080 }]
"#;

/// A pool on this port in front of a Service, whose backends take turns.
pub(crate) fn pool(name: &str, port: u16, service: &str) -> String {
    pool_of(name, &format!("name: http, port: {port}, protocol: HTTP"), service)
}

/// A pool with this listener in front of a Service.
pub(crate) fn pool_of(name: &str, listener: &str, service: &str) -> String {
    format!(
        "apiVersion: weir.dev/v1alpha1
kind: LoadBalancerPool
metadata: {{ name: {name} }}
spec:
  listeners:
    - {{ {listener} }}
  loadBalancing: {{ algorithm: RoundRobin }}
  rules:
    - backendSets: [{{ name: web }}]
  backendSets:
    - {{ name: web, service: {{ name: {service}, port: http }} }}
"
    )
}

/// A pool on this port with written addresses of the network that the test is in.
fn static_pool(name: &str, port: u16, backends: &[u16]) -> String {
    let backends: String =
        backends.iter().map(|port| format!("\n          - {{ address: 127.0.0.1, port: {port} }}")).collect();
    format!(
        "apiVersion: weir.dev/v1alpha1\nkind: LoadBalancerPool\nmetadata: {{ name: {name} }}\nspec:\n  \
         listeners: [{{ name: http, port: {port}, protocol: HTTP }}]\n  \
         loadBalancing: {{ algorithm: RoundRobin }}\n  \
         rules: [{{ backendSets: [{{ name: web }}] }}]\n  \
         backendSets:\n    - name: web\n      static:\n        backends:{backends}\n"
    )
}

/// A sample backend on any address, once it answers.
pub(crate) fn sample(name: &str, address: SocketAddr) -> Process {
    let mut command = Command::new(binaries::path("weir"));
    command.args(["demo-backend", "--name", name, "--listen", &address.to_string()]);
    let process = Process::start(&mut command);
    wait::until("the sample backend should answer", || {
        client::fetch_at(address, "/health").ok().filter(|answer| answer.status == 200)
    });
    process
}

/// A condition of an object's status.
pub(crate) fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    let conditions = object["status"]["conditions"].as_array().expect("conditions");
    conditions.iter().find(|condition| condition["type"] == kind).unwrap_or(&Value::Null)
}

/// Waits until a condition of a pool has this reason and its message says all of this; returns the message.
pub(crate) fn wait_for_condition(
    namespace: &Namespace<'_>,
    pool: &str,
    kind: &str,
    reason: &str,
    texts: &[&str],
) -> String {
    let mut shown = Value::Null;
    let said = wait::patiently_or_not(|| {
        let object = namespace.get(&["lbp", pool]);
        shown = object["status"].clone();
        let Value::Array(_) = shown["conditions"] else { return None };
        let condition = condition(&object, kind);
        let message = condition["message"].as_str()?;
        let is_there = condition["reason"] == reason && texts.iter().all(|text| message.contains(text));
        is_there.then(|| message.to_owned())
    });
    said.unwrap_or_else(|| panic!("{kind} of {pool} should be {reason} and say {texts:?}: {shown}"))
}

/// Reasons of the Events about an object.
fn reasons(namespace: &Namespace<'_>, name: &str) -> Vec<String> {
    let events = namespace.get(&["events"]);
    let items = events["items"].as_array().cloned().unwrap_or_default();
    let about = items.iter().filter(|event| event["involvedObject"]["name"] == name);
    about.filter_map(|event| event["reason"].as_str().map(str::to_owned)).collect()
}

/// A Secret of this certificate and its key.
pub(crate) fn tls_secret(name: &str, pair: &KeyPairText) -> String {
    let KeyPairText { certificate, key } = pair;
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{ name: {name} }}\ntype: kubernetes.io/tls\n\
         stringData: {{ tls.crt: {certificate:?}, tls.key: {key:?} }}\n"
    )
}

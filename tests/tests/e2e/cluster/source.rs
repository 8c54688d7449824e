//! The controller follows the API server with its own ServiceAccount and nothing but the roles of deploy/rbac.yaml.

use super::{sample, tls_secret};
use std::process::Command;
use weir_tests::harness::authority::Authority;
use weir_tests::harness::cluster::Cluster;
use weir_tests::harness::controller::ControllerCommand;
use weir_tests::harness::process::Process;
use weir_tests::harness::services::{Service, is_free, wait_for_backend, wait_for_status};
use weir_tests::harness::{binaries, client, ports, tools, wait};

/// The Service that all pools here send to.
const SERVICE: &str = "apiVersion: v1
kind: Service
metadata: { name: web }
spec:
  ports: [{ name: http, port: 80 }]
";

/// A pool in front of it.
fn pool(name: &str, listener: &str) -> String {
    super::pool_of(name, listener, "web")
}

fn http(port: u16) -> String {
    format!("name: http, port: {port}, protocol: HTTP")
}

fn https(port: u16, secret: &str) -> String {
    format!("name: https, port: {port}, protocol: HTTPS, tls: {{ certificateRefs: [{{ name: {secret} }}] }}")
}

/// A sample backend on an address of the pods' network, and the EndpointSlice that says so.
struct Backend {
    _process: Process,
    slice: String,
}

fn backend(cluster: &Cluster, name: &str) -> Backend {
    let address = cluster.pod_address();
    let process = sample(name, (address, 8080).into());
    let slice = format!(
        "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: web-{name}
  labels: {{ kubernetes.io/service-name: web }}
addressType: IPv4
ports: [{{ name: http, port: 8080, protocol: TCP }}]
endpoints:
  - {{ addresses: [{address}], conditions: {{ ready: true }} }}
"
    );
    Backend { _process: process, slice }
}

/// Whether this backend answers every time, where others would take turns with it.
fn is_alone(port: u16, name: &str) -> bool {
    (0..4).all(|_| {
        client::fetch(port, "/").is_ok_and(|answer| answer.status == 200 && answer.json()["name"] == name)
    })
}

#[test]
fn what_kubectl_applies_reaches_a_proxy_and_what_it_deletes_leaves_it() {
    let cluster = Cluster::shared();
    let namespace = cluster.namespace("source");
    let kubeconfig = namespace.install_weir();
    let (old, new) = (backend(&cluster, "old"), backend(&cluster, "new"));
    let port = ports::free();
    namespace.apply(&format!("{}---\n{SERVICE}---\n{}", pool("shop", &http(port)), old.slice));
    let controller = ControllerCommand::of_cluster(&kubeconfig).watching(&namespace).start();
    let proxy = Service::proxy(controller.push);
    proxy.wait_until_ready();
    controller.service.wait_until_ready();
    wait_for_backend(port, "/", "old");

    namespace.apply(&new.slice);
    wait_for_backend(port, "/", "new");
    namespace.kubectl(&["delete", "endpointslice", "web-old"]);
    wait::until("the one that is gone should fall silent", || is_alone(port, "new").then_some(()));
    let metrics = client::fetch(controller.service.admin, "/metrics").expect("an answer").text();
    assert!(metrics.contains("weir_controller_objects{kind=\"EndpointSlice\"} 1\n"), "{metrics}");
    assert!(metrics.contains("weir_controller_pools 1\n"), "{metrics}");

    namespace.kubectl(&["delete", "loadbalancerpool", "shop"]);
    wait::until("the pool's port should close", || is_free(port).then_some(()));
}

#[test]
fn a_controller_without_a_cluster_says_what_to_name() {
    let mut command = Command::new(binaries::path("weir-controller"));
    command.env_remove("KUBERNETES_SERVICE_HOST");
    let ended = Process::start(&mut command).wait();
    assert_eq!(ended.status.code(), Some(2), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("--kubeconfig FILE") && ended.stderr.contains("--folder"),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_secret_waits_for_its_role_and_its_certificate_and_holds_up_no_other_listener() {
    let cluster = Cluster::shared();
    let namespace = cluster.namespace("secret");
    let kubeconfig = namespace.install_weir();
    let backend = backend(&cluster, "member");
    let (plain, tls) = (ports::free(), ports::free());
    let pools = format!("{}---\n{}", pool("plain", &http(plain)), pool("secure", &https(tls, "shop-tls")));
    namespace.apply(&format!("{pools}---\n{SERVICE}---\n{}", backend.slice));
    let mut controller = ControllerCommand::of_cluster(&kubeconfig).watching(&namespace).start();
    let _proxy = Service::proxy(controller.push);
    wait_for_backend(plain, "/", "member");
    let sentence = controller.service.process.wait_for_stderr("resourceNames [shop-tls]");
    assert!(
        sentence.contains(&format!("Role in namespace {} with get, list, watch", namespace.name)),
        "{sentence}"
    );
    assert!(is_free(tls), "nothing can be served there");

    namespace.let_controller_read("shop-tls", &namespace);
    controller.service.process.wait_for_stderr("read again");

    let pair = Authority::new().issue("localhost", &["localhost"]);
    namespace.apply(&tls_secret("shop-tls", &pair));
    let url = format!("https://localhost:{tls}/");
    wait_for_status(plain, "/", 200);
    wait::patiently("the listener should open", || (!is_free(tls)).then_some(()));
    let resolve = format!("localhost:{tls}:127.0.0.1");
    let answer = tools::curl(["-sSk", "--resolve", &resolve, &url]);
    assert!(answer.contains("member"), "{answer}");
}

/// A definition that takes anything, as an older one may have.
const PERMISSIVE: &str = "apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: { name: loadbalancerpools.weir.dev }
spec:
  group: weir.dev
  scope: Namespaced
  names: { plural: loadbalancerpools, singular: loadbalancerpool, kind: LoadBalancerPool, listKind: LoadBalancerPoolList }
  versions:
    - name: v1alpha1
      served: true
      storage: true
      subresources: { status: {} }
      schema:
        openAPIV3Schema: { type: object, x-kubernetes-preserve-unknown-fields: true }
";

#[test]
fn a_pool_written_under_another_definition_costs_itself_and_is_named_with_its_field() {
    let cluster = Cluster::private();
    let namespace = cluster.namespace("malformed");
    let kubeconfig = namespace.install_weir();
    let backend = backend(&cluster, "member");
    let good = ports::free();
    let malformed = pool("bad", "name: http, port: eighty, protocol: HTTP");
    cluster.apply(PERMISSIVE);
    wait::patiently("the definition should take anything", || {
        namespace.try_kubectl(&["apply", "--filename=-"], &malformed).status.success().then_some(())
    });
    let definition = binaries::workspace().join("crds/loadbalancerpools.weir.dev.yaml");
    cluster.apply(&std::fs::read_to_string(definition).expect("it is there"));
    wait::patiently("the definition should refuse it again", || {
        let dry = ["apply", "--dry-run=server", "--filename=-"];
        let other = malformed.replace("name: bad", "name: other");
        (!namespace.try_kubectl(&dry, &other).status.success()).then_some(())
    });

    namespace.apply(&format!("{}---\n{SERVICE}---\n{}", pool("good", &http(good)), backend.slice));
    let mut controller = ControllerCommand::of_cluster(&kubeconfig).start();
    let _proxy = Service::proxy(controller.push);
    wait_for_backend(good, "/", "member");
    let sentence = controller.service.process.wait_for_stderr("spec.listeners[0].port");
    assert!(sentence.contains(&format!("{}/bad", namespace.name)), "{sentence}");

    // It heals by itself.
    let healed = ports::free();
    // Not by a server-side apply, which has to read what is there.
    let replaced = namespace.try_kubectl(&["replace", "--filename=-"], &pool("bad", &http(healed)));
    assert!(replaced.status.success(), "{}", String::from_utf8_lossy(&replaced.stderr));
    wait_for_backend(healed, "/", "member");
}

#[test]
fn what_changed_while_the_api_server_was_away_is_noticed() {
    let cluster = Cluster::private();
    let namespace = cluster.namespace("away");
    let kubeconfig = namespace.install_weir();
    let (old, new) = (backend(&cluster, "old"), backend(&cluster, "new"));
    let (port, later) = (ports::free(), ports::free());
    namespace.apply(&format!("{}---\n{SERVICE}---\n{}", pool("shop", &http(port)), old.slice));
    let controller = ControllerCommand::of_cluster(&kubeconfig).start();
    let proxy = Service::proxy(controller.push);
    wait_for_backend(port, "/", "old");

    // Asleep, so that it hears of nothing before all of it is over.
    controller.service.process.pause();
    cluster.stop_api_server();
    cluster.start_api_server();
    namespace.apply(&format!("{}---\n{}", new.slice, pool("later", &http(later))));
    namespace.kubectl(&["delete", "endpointslice", "web-old"]);
    controller.service.process.resume();
    wait::patiently("only the new one should answer", || is_alone(port, "new").then_some(()));
    wait_for_backend(later, "/", "new");
    assert_eq!(client::fetch(proxy.admin, "/readyz").expect("an answer").status, 200);
}

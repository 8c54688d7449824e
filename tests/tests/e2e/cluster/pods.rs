//! Backends straight from pods, as the API server knows them.

use super::slices::{Site, at, wait_for_all, wait_for_only};
use super::{condition, sample};
use std::net::SocketAddr;
use weir_tests::harness::cluster::{Cluster, Namespace, PodText, Probe};
use weir_tests::harness::services::wait_for_status;
use weir_tests::harness::{binaries, client, ports, wait};

/// A pool of the pods with these labels.
fn pool(name: &str, port: u16, selector: &str) -> String {
    super::pool(name, port, "none").replacen(
        "service: { name: none, port: http }",
        &format!("endpointSelector: {{ {selector}, port: http }}"),
        1,
    )
}

/// Lets the controller of a namespace read the pods there, as deploy/rbac-pods.yaml says.
fn permit(namespace: &Namespace<'_>) {
    let role = binaries::workspace().join("deploy/rbac-pods.yaml");
    let role = std::fs::read_to_string(role).expect("it is there");
    namespace.cluster().apply(&role.replace("weir-system", &namespace.name));
    let role = format!("--clusterrole={}-pods", namespace.name);
    let account = format!("--serviceaccount={}:weir-controller", namespace.name);
    namespace.kubectl(&["create", "rolebinding", "weir-pods", &role, &account]);
}

fn label(namespace: &Namespace<'_>, pod: &PodText, app: &str) {
    namespace.kubectl(&["label", "pod", &pod.name, &format!("app={app}"), "--overwrite"]);
}

/// A pool named `pods` of two pods that give their port two numbers.
fn two_pods(site: &Site<'_>) -> [PodText; 2] {
    let pods = [site.pod("a", 8080), site.pod("b", 9090)];
    site.namespace.run_pods(&pods);
    pods
}

#[test]
fn a_pool_follows_what_pods_say_of_themselves_their_labels_and_their_end() {
    let cluster = Cluster::shared();
    let site = Site::new(&cluster);
    permit(&site.namespace);
    let pods = two_pods(&site);
    let _samples = pods.each_ref().map(|pod| sample(&pod.name, at(pod)));
    let [a, b] = pods.each_ref().map(at);
    let port = ports::free();
    let selector =
        "matchLabels: { app: web }, matchExpressions: [{ key: app, operator: NotIn, values: [api, \"\"] }]";
    site.namespace.apply(&pool("pods", port, selector));
    let both: &[(SocketAddr, &str)] = &[(a, "ready"), (b, "ready")];
    let only: &[(SocketAddr, &str)] = &[(a, "ready")];
    site.wait_for_backends("pods", both);
    wait_for_all(port, &["a", "b"]);
    site.namespace.kubectl(&["wait", "lbp/pods", "--for=condition=ResolvedRefs", "--timeout=60s"]);

    let [_, second] = &pods;
    site.namespace.say_probed(std::slice::from_ref(second), Probe::Fails);
    site.wait_for_backends("pods", only);
    wait_for_only(port, "a");
    site.namespace.say_probed(std::slice::from_ref(second), Probe::Passes);
    site.wait_for_backends("pods", both);

    label(&site.namespace, second, "api");
    site.wait_for_backends("pods", only);
    label(&site.namespace, second, "web");
    site.wait_for_backends("pods", both);

    site.namespace.kubectl(&["delete", "pod", "b", "--wait=false"]);
    site.wait_for_backends("pods", &[(a, "ready"), (b, "draining")]);
    wait_for_only(port, "a");
    site.namespace.kubectl(&["delete", "pod", "b", "--grace-period=0", "--force"]);
    site.wait_for_backends("pods", only);
}

#[test]
fn a_pool_that_names_another_selector_loses_no_request() {
    let cluster = Cluster::shared();
    let site = Site::new(&cluster);
    permit(&site.namespace);
    let pods = two_pods(&site);
    label(&site.namespace, &pods[1], "api");
    let _samples = pods.each_ref().map(|pod| sample(&pod.name, at(pod)));
    let [a, b] = pods.each_ref().map(at);
    let port = ports::free();
    let of = |app: &str| pool("pods", port, &format!("matchLabels: {{ app: {app} }}"));
    site.namespace.apply(&of("web"));
    site.wait_for_backends("pods", &[(a, "ready")]);
    wait_for_all(port, &["a"]);
    let load = super::site::load(client::local(port));
    for _ in 0..5 {
        site.namespace.apply(&of("api"));
        site.wait_for_backends("pods", &[(b, "ready")]);
        super::site::wait_for_more(&load);
        site.namespace.apply(&of("web"));
        site.wait_for_backends("pods", &[(a, "ready")]);
        super::site::wait_for_more(&load);
    }
    load.assert_no_failure();
}

#[test]
fn without_the_right_to_read_pods_a_pool_names_the_rule_and_others_go_on() {
    let cluster = Cluster::shared();
    let site = Site::new(&cluster);
    let pods = two_pods(&site);
    let _samples = pods.each_ref().map(|pod| sample(&pod.name, at(pod)));
    let [a, b] = pods.each_ref().map(at);
    let port = ports::free();
    site.namespace.apply(&pool("pods", port, "matchLabels: { app: web }"));
    let other =
        site.serve("web", "selector: { app: web }, ports: [{ name: http, port: 80, targetPort: http }]");
    site.wait_for_backends("web", &[(a, "ready"), (b, "ready")]);
    wait_for_all(other, &["a", "b"]);
    wait_for_status(port, "/", 503);
    let refs = |status: &str| {
        wait::patiently(&format!("ResolvedRefs should be {status}"), || {
            let object = site.namespace.get(&["lbp", "pods"]);
            object["status"]["conditions"].as_array()?;
            let refs = condition(&object, "ResolvedRefs").clone();
            (refs["status"] == status).then_some(refs)
        })
    };
    let told = refs("False");
    assert_eq!(told["reason"], "EndpointsUnread", "{told}");
    let message = told["message"].as_str().unwrap_or_default();
    let rule = format!("a Role in namespace {} with get, list, watch on pods", site.namespace.name);
    assert!(message.contains(&rule), "{message}");

    permit(&site.namespace);
    site.wait_for_backends("pods", &[(a, "ready"), (b, "ready")]);
    refs("True");
    wait_for_all(port, &["a", "b"]);
}

//! The control plane that the other tests stand on does what they rely on.

use super::WEB;
use serde_json::json;
use weir_tests::harness::cluster::{Cluster, Node};
use weir_tests::harness::{client, wait};

#[test]
fn kubectl_and_the_api_server_are_of_the_version_that_the_tests_pin() {
    let cluster = Cluster::shared();
    let version: serde_json::Value =
        serde_json::from_str(&cluster.kubectl(&["version", "--output=json"])).expect("JSON");
    let pinned = include_str!("../../../kube/go.mod").lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("k8s.io/kubernetes")).then(|| words.next()).flatten()
    });
    assert_eq!(version["serverVersion"]["gitVersion"].as_str(), pinned);
    assert_eq!(version["clientVersion"]["gitVersion"].as_str(), pinned);
}

#[test]
fn a_deployment_becomes_processes_whose_addresses_are_in_endpoint_slices() {
    let cluster = Cluster::shared();
    let namespace = cluster.namespace("deployment");
    let _node = Node::start(&cluster, &namespace);
    namespace.apply(WEB);
    namespace.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    let ready = || {
        let slices = namespace.get(&["endpointslices", "--selector=kubernetes.io/service-name=web"]);
        let slices = slices["items"].as_array().cloned().unwrap_or_default();
        let endpoints =
            slices.iter().flat_map(|slice| slice["endpoints"].as_array().cloned().unwrap_or_default());
        let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] == true);
        ready
            .filter_map(|endpoint| endpoint["addresses"][0].as_str()?.parse().ok())
            .collect::<Vec<std::net::IpAddr>>()
    };
    let addresses =
        wait::patiently("both pods should be endpoints", || Some(ready()).filter(|all| all.len() == 2));
    for address in addresses {
        let answer = client::fetch_at((address, 8080).into(), "/").expect("a sample backend answers");
        let name = answer.json()["name"].as_str().expect("a name").to_owned();
        assert_eq!(namespace.get(&["pod", &name])["status"]["podIP"], json!(address));
    }

    namespace.kubectl(&["scale", "deployment/web", "--replicas=1"]);
    wait::patiently("one endpoint should be left", || (ready().len() == 1).then_some(()));
    wait::patiently("one pod should be left", || {
        let pods = namespace.get(&["pods"]);
        (pods["items"].as_array().map(Vec::len) == Some(1)).then_some(())
    });
}

#[test]
fn a_bound_token_passes_review_for_its_audience_and_no_other() {
    let cluster = Cluster::shared();
    let namespace = cluster.namespace("tokens");
    namespace.kubectl(&["create", "serviceaccount", "proxy"]);
    let pod = namespace.pod("proxy-1", "proxy", &[("app", "proxy")]);
    let token = namespace.token("proxy", &pod.name, "weir.dev/controller");
    let review = |audience: &str| {
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": { "token": token, "audiences": [audience] },
        });
        let made = cluster.try_kubectl(&["create", "--output=json", "--filename=-"], &review.to_string());
        serde_json::from_slice::<serde_json::Value>(&made.stdout).expect("a review")["status"].take()
    };
    let status = review("weir.dev/controller");
    assert_eq!(status["authenticated"], true, "{status}");
    assert_eq!(status["user"]["username"], format!("system:serviceaccount:{}:proxy", namespace.name));
    assert_eq!(status["user"]["extra"]["authentication.kubernetes.io/pod-name"], json!(["proxy-1"]));
    assert_ne!(review("https://kubernetes.default.svc")["authenticated"], true);

    namespace.kubectl(&["delete", "pod", "proxy-1", "--grace-period=0", "--force"]);
    wait::patiently("a token should end with its pod", || {
        (review("weir.dev/controller")["authenticated"] != true).then_some(())
    });
}

#[test]
fn a_service_account_may_do_what_its_role_says_and_no_more() {
    let cluster = Cluster::shared();
    let namespace = cluster.namespace("roles");
    namespace.apply(
        "apiVersion: v1
kind: ServiceAccount
metadata: { name: reader }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: { name: reader }
rules: [{ apiGroups: [weir.dev], resources: [loadbalancerpools], verbs: [get, list] }]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: { name: reader }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader }
subjects: [{ kind: ServiceAccount, name: reader }]
",
    );
    let reader = namespace.kubeconfig_for("reader");
    let list = |what: &str| {
        let output = cluster.try_kubectl_as(&reader, &["--namespace", &namespace.name, "get", what], "");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    // The authorizer learns of a new role through a watch.
    wait::patiently("pools should be listed", || list("loadbalancerpools").0.then_some(()));
    let (listed, said) = list("secrets");
    assert!(!listed && said.contains("forbidden"), "{said}");
}

#[test]
fn what_was_written_outlives_the_api_server() {
    let cluster = Cluster::private();
    let namespace = cluster.namespace("restart");
    namespace.kubectl(&["create", "configmap", "kept", "--from-literal=word=still-here"]);
    cluster.stop_api_server();
    assert!(!namespace.try_kubectl(&["get", "configmaps"], "").status.success());
    cluster.start_api_server();
    assert_eq!(namespace.get(&["configmap", "kept"])["data"]["word"], "still-here");
}

//! Backends of another cluster. The one API server stands for both: what is there is another namespace, and its kubeconfig
//! leads over a stretch of network that can be cut.

use super::slices::{Site, at, wait_for_only};
use super::{condition, sample};
use data_encoding::BASE64;
use serde_json::json;
use std::path::PathBuf;
use weir_tests::harness::cluster::{Cluster, Namespace, PodText, Probe, Visit};
use weir_tests::harness::relay::Relay;
use weir_tests::harness::{ports, wait};

const API_SERVER_PORT: u16 = 6443;
const WEB: &str = "apiVersion: v1\nkind: Service\nmetadata: { name: web }\nspec: { selector: { app: web }, \
                   ports: [{ name: http, port: 80, targetPort: http }] }\n";

/// A namespace that stands for another cluster, and the way there.
struct East<'a> {
    cluster: &'a Visit,
    namespace: Namespace<'a>,
    relay: Relay,
}

impl<'a> East<'a> {
    fn new(cluster: &'a Visit) -> Self {
        let namespace = cluster.namespace("east");
        let east = Self { cluster, namespace, relay: Relay::start(API_SERVER_PORT) };
        east.namespace.apply(WEB);
        east.permit();
        east
    }

    /// The ServiceAccount and the Role that docs/endpoints.md has.
    fn permit(&self) {
        self.namespace.apply(
            "apiVersion: v1
kind: ServiceAccount
metadata: { name: weir-reader }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: { name: weir-reader }
rules:
  - { apiGroups: [\"\"], resources: [services], verbs: [get, list, watch] }
  - { apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [get, list, watch] }
",
        );
        let account = format!("--serviceaccount={}:weir-reader", self.namespace.name);
        let bound = ["create", "rolebinding", "weir-reader", "--role=weir-reader", &account];
        // It is there already the second time, and holds for an account of the same name.
        let _ = self.namespace.try_kubectl(&bound, "");
    }

    fn token(&self) -> String {
        self.namespace.kubectl(&["create", "token", "weir-reader", "--duration=1h"]).trim().to_owned()
    }

    /// A Secret `east` with a kubeconfig of this user.
    fn tell(&self, site: &Site<'_>, user: &serde_json::Value) {
        let authority = std::fs::read(self.cluster.file("ca.crt")).expect("it was written at the start");
        let (server, authority) =
            (format!("https://127.0.0.1:{}", self.relay.port), BASE64.encode(&authority));
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "east",
            "clusters": [{ "name": "east", "cluster": { "server": server, "certificate-authority-data": authority } }],
            "users": [{ "name": "weir", "user": user }],
            "contexts": [{ "name": "east", "context": { "cluster": "east", "user": "weir" } }],
        });
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "east" },
            "stringData": { "kubeconfig": kubeconfig.to_string() },
        });
        site.namespace.apply(&secret.to_string());
    }

    /// Takes the credentials back, and waits until the API server knows.
    fn revoke(&self, token: &str) {
        let file: PathBuf = self.cluster.kubeconfig_of_token(&self.namespace.name, token);
        self.namespace.kubectl(&["delete", "serviceaccount", "weir-reader"]);
        wait::patiently("the token should be refused", || {
            let list = ["--namespace", &self.namespace.name, "get", "services"];
            (!self.cluster.try_kubectl_as(&file, &list, "").status.success()).then_some(())
        });
    }

    fn pool(&self, port: u16) -> String {
        let clusters = format!(
            "service: {{ name: web, port: http, clusters: [{{ name: east, namespace: {}, kubeconfigRef: {{ name: east }} }}] }}",
            self.namespace.name
        );
        super::pool("web", port, "web").replacen("service: { name: web, port: http }", &clusters, 1)
    }
}

/// Lets the controller of a site read the kubeconfig.
fn permit_secret(namespace: &Namespace<'_>) {
    let verbs = "--verb=get,list,watch";
    namespace.kubectl(&["create", "role", "east", verbs, "--resource=secrets", "--resource-name=east"]);
    let account = format!("--serviceaccount={}:weir-controller", namespace.name);
    namespace.kubectl(&["create", "rolebinding", "east", "--role=east", &account]);
}

fn wait_for_refs(site: &Site<'_>, reason: &str, text: &str) {
    wait::patiently(&format!("ResolvedRefs should be {reason} and say `{text}`"), || {
        let object = site.namespace.get(&["lbp", "web"]);
        object["status"]["conditions"].as_array()?;
        let refs = condition(&object, "ResolvedRefs");
        let says = refs["message"].as_str().is_some_and(|message| message.contains(text));
        (refs["reason"] == reason && says).then_some(())
    });
}

#[test]
fn another_cluster_serves_while_this_one_has_nobody_and_what_was_known_of_it_stays_while_it_is_away() {
    let cluster = Cluster::shared();
    let (site, east) = (Site::new(&cluster), East::new(&cluster));
    permit_secret(&site.namespace);
    let (here, there): (PodText, PodText) = (site.pod("here", 8080), site.pod("there", 9090));
    site.namespace.apply(WEB);
    site.namespace.run_pods(std::slice::from_ref(&here));
    east.namespace.run_pods(std::slice::from_ref(&there));
    let _samples = [&here, &there].map(|pod| sample(&pod.name, at(pod)));
    let probe = |probe| site.namespace.say_probed(std::slice::from_ref(&here), probe);
    let port = ports::free();

    // What can run a program is refused, and this cluster serves.
    east.tell(&site, &json!({ "exec": { "apiVersion": "v1", "command": "sh" } }));
    site.namespace.apply(&east.pool(port));
    wait_for_only(port, "here");
    wait_for_refs(&site, "ClusterUnreachable", "users[0].user.exec would run a program");

    let token = east.token();
    east.tell(&site, &json!({ "token": token }));
    let both = &[(at(&here), "ready"), (at(&there), "ready")];
    site.wait_for_backends("web", both);
    wait_for_refs(&site, "ResolvedRefs", "");
    wait_for_only(port, "here");
    probe(Probe::Fails);
    wait_for_only(port, "there");
    probe(Probe::Passes);
    wait_for_only(port, "here");

    // The API server there is away, then answers and knows the token no more.
    east.relay.cut();
    wait_for_refs(&site, "ClusterUnreachable", "its API server does not answer");
    site.wait_for_backends("web", both);
    east.revoke(&token);
    east.relay.mend();
    wait_for_refs(&site, "ClusterUnreachable", "refuses the credentials");
    probe(Probe::Fails);
    wait_for_only(port, "there");

    // Without the kubeconfig too, until there is one that can be used.
    site.namespace.kubectl(&["delete", "secret", "east"]);
    wait_for_refs(&site, "ClusterUnreachable", "which is not there: create it");
    wait_for_only(port, "there");
    east.permit();
    east.tell(&site, &json!({ "token": east.token() }));
    wait_for_refs(&site, "ResolvedRefs", "");
    east.namespace.say_probed(std::slice::from_ref(&there), Probe::Fails);
    site.wait_for_backends("web", &[]);
    east.namespace.say_probed(std::slice::from_ref(&there), Probe::Passes);
    wait_for_only(port, "there");
}

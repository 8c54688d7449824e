//! A test's own namespace.

use super::Cluster;
use super::kubectl::good;
use crate::harness::{binaries, wait};
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Output;
use std::sync::atomic::Ordering;

/// A namespace of the cluster. It stays until the cluster ends: to remove one takes seconds.
#[derive(Debug, Clone)]
pub struct Namespace<'a> {
    cluster: &'a Cluster,
    /// Its name.
    pub name: String,
}

/// A pod that runs, as far as the API server knows.
#[derive(Debug, Clone)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its address, on which processes of the test may listen.
    pub address: Ipv4Addr,
}

impl Cluster {
    /// A new namespace, whose name begins so, with its default ServiceAccount.
    ///
    /// # Panics
    /// When it does not come.
    pub fn namespace(&self, prefix: &str) -> Namespace<'_> {
        let name = format!("{prefix}-{}", self.namespaces.fetch_add(1, Ordering::Relaxed));
        self.kubectl(&["create", "namespace", &name]);
        let namespace = Namespace { cluster: self, name };
        // Without it the API server refuses pods.
        namespace.kubectl(&["wait", "--for=create", "serviceaccount/default", "--timeout=60s"]);
        namespace
    }
}

impl<'a> Namespace<'a> {
    /// The cluster that it is in.
    #[must_use]
    pub fn cluster(&self) -> &'a Cluster {
        self.cluster
    }

    /// Runs kubectl in this namespace and returns what it prints.
    ///
    /// # Panics
    /// When it fails, with what it says.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        good(arguments, self.try_kubectl(arguments, ""))
    }

    /// Runs kubectl in this namespace.
    #[must_use]
    pub fn try_kubectl(&self, arguments: &[&str], stdin: &str) -> Output {
        self.cluster.try_kubectl(&[&["--namespace", &self.name], arguments].concat(), stdin)
    }

    /// `kubectl apply` of manifests that name no namespace.
    ///
    /// # Panics
    /// When the API server refuses one, with its sentence.
    pub fn apply(&self, manifests: &str) {
        let arguments = ["apply", "--server-side", "--force-conflicts", "--filename=-"];
        good(&arguments, self.try_kubectl(&arguments, manifests));
    }

    /// `kubectl apply` of what the API server refuses, and its sentence.
    ///
    /// # Panics
    /// When it takes it.
    #[must_use]
    pub fn refusal(&self, manifests: &str) -> String {
        let output = self.try_kubectl(&["apply", "--server-side", "--filename=-"], manifests);
        assert!(!output.status.success(), "the API server took this:\n{manifests}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// An object, or a list of them.
    ///
    /// # Panics
    /// When it is not there.
    #[must_use]
    pub fn get(&self, arguments: &[&str]) -> Value {
        self.cluster.get(&[&["--namespace", &self.name], arguments].concat())
    }

    /// A pod of this ServiceAccount with these labels, on `node-a`, running and Ready. What it runs is the test's to
    /// start.
    ///
    /// # Panics
    /// When the API server refuses it.
    #[must_use]
    pub fn pod(&self, name: &str, service_account: &str, labels: &[(&str, &str)]) -> Pod {
        let labels: serde_json::Map<_, _> =
            labels.iter().map(|&(key, value)| (key.to_owned(), Value::from(value))).collect();
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": name, "labels": labels },
            "spec": {
                "serviceAccountName": service_account,
                "nodeName": "node-a",
                "containers": [{ "name": "main", "image": "weir" }],
            },
        });
        self.apply(&pod.to_string());
        let address = self.cluster.pod_address();
        self.say_running(name, address);
        Pod { name: name.to_owned(), address }
    }

    pub(super) fn existing(cluster: &'a Cluster, name: String) -> Self {
        Self { cluster, name }
    }

    /// Says that a pod runs and is Ready, as its kubelet would.
    pub(super) fn say_running(&self, pod: &str, address: Ipv4Addr) {
        let object = self.get(&["pod", pod]);
        let (since, name) =
            (&object["metadata"]["creationTimestamp"], &object["spec"]["containers"][0]["name"]);
        let condition = |kind: &str| json!({ "type": kind, "status": "True", "lastTransitionTime": since });
        let container = json!({
            "name": name, "image": "weir", "imageID": "weir", "ready": true, "started": true, "restartCount": 0,
            "state": { "running": { "startedAt": since } },
        });
        let conditions = ["PodScheduled", "Initialized", "ContainersReady", "Ready"].map(condition);
        let status = json!({
            "phase": "Running",
            "podIP": address,
            "podIPs": [{ "ip": address }],
            "hostIP": super::NODE_ADDRESS,
            "hostIPs": [{ "ip": super::NODE_ADDRESS }],
            "startTime": since,
            "conditions": conditions,
            "containerStatuses": [container],
        });
        let patch = json!({ "status": status }).to_string();
        self.kubectl(&["patch", "pod", pod, "--subresource=status", "--type=merge", "--patch", &patch]);
    }

    /// A token of a ServiceAccount, bound to a pod of it, for this audience: what a projected volume gives the pod.
    ///
    /// # Panics
    /// When the API server refuses it.
    #[must_use]
    pub fn token(&self, service_account: &str, pod: &str, audience: &str) -> String {
        let audience = format!("--audience={audience}");
        let pod = format!("--bound-object-name={pod}");
        self.kubectl(&["create", "token", service_account, "--bound-object-kind=Pod", &pod, &audience])
            .trim()
            .to_owned()
    }

    /// What an administrator installs for a controller in this namespace, and the kubeconfig of that controller.
    ///
    /// # Panics
    /// When it may not read pools in the end.
    #[must_use]
    pub fn install_weir(&self) -> PathBuf {
        let roles = binaries::workspace().join("deploy/rbac.yaml");
        let roles = std::fs::read_to_string(roles).expect("it is there");
        self.cluster.apply(&roles.replace("weir-system", &self.name));
        let kubeconfig = self.kubeconfig_for("weir-controller");
        // The API server learns of a role through a watch of its own.
        wait::patiently("the controller should be allowed to list pools", || {
            let list = ["get", "loadbalancerpools", "--all-namespaces"];
            self.cluster.try_kubectl_as(&kubeconfig, &list, "").status.success().then_some(())
        });
        kubeconfig
    }

    /// Lets the controller in namespace `system` read one Secret of this namespace, as deploy/rbac.yaml says.
    ///
    /// # Panics
    /// When it was let read another one before.
    pub fn let_controller_read(&self, secret: &str, system: &Namespace<'_>) {
        let name = format!("--resource-name={secret}");
        let role = ["create", "role", "certificates", "--verb=get,list,watch", "--resource=secrets", &name];
        self.kubectl(&role);
        let account = format!("--serviceaccount={}:weir-controller", system.name);
        self.kubectl(&["create", "rolebinding", "certificates", "--role=certificates", &account]);
    }

    /// The kubeconfig of a ServiceAccount: with it a program may do what its roles allow, and no more.
    ///
    /// # Panics
    /// When there is no such account.
    #[must_use]
    pub fn kubeconfig_for(&self, service_account: &str) -> PathBuf {
        let token = self.kubectl(&["create", "token", service_account, "--duration=1h"]);
        self.cluster.kubeconfig_of_token(&format!("{}-{service_account}", self.name), token.trim())
    }
}

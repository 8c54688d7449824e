//! A site: Weir installed by an administrator, a Deployment of a user, and load on it.

use super::{WEB, pool};
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use weir_tests::harness::cluster::{Namespace, Node, Visit};
use weir_tests::harness::controller::ControllerCommand;
use weir_tests::harness::load::{Clients, Load};
use weir_tests::harness::services::Service;
use weir_tests::harness::{client, ports, wait};

/// Weir in a namespace of its own, and a user's namespace, whose pods run.
pub(crate) struct Site<'a> {
    pub(crate) system: Namespace<'a>,
    pub(crate) shop: Namespace<'a>,
    pub(crate) node: Node,
    pub(crate) kubeconfig: PathBuf,
    /// What proxies dial.
    pub(crate) push: u16,
}

impl<'a> Site<'a> {
    pub(crate) fn new(cluster: &'a Visit) -> Self {
        let (system, shop) = (cluster.namespace("weir"), cluster.namespace("shop"));
        let kubeconfig = system.install_weir();
        let node = Node::start(cluster, &shop);
        Self { system, shop, node, kubeconfig, push: ports::free() }
    }

    pub(crate) fn controller(&self) -> Service {
        self.command().start().service
    }

    /// Beside the controllers of other tests: hence of this namespace only.
    pub(crate) fn command(&self) -> ControllerCommand {
        let command = ControllerCommand::of_cluster(&self.kubeconfig).listening(self.push);
        command.in_namespace(&self.system).watching(&self.shop)
    }

    /// The Deployment behind a pool, each pod of which has answered through the proxy of this address.
    pub(crate) fn deploy(&self, server: SocketAddr) {
        self.shop.apply(&format!("{WEB}---\n{}", pool("shop", server.port(), "web")));
        self.shop.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
        for pod in self.pods() {
            wait::patiently(&format!("{} should answer", pod.name), || {
                let answer = client::fetch_at(server, "/").ok().filter(|answer| answer.status == 200)?;
                (answer.json()["name"] == pod.name).then_some(())
            });
        }
    }

    pub(crate) fn scale(&self, replicas: usize) {
        self.shop.kubectl(&["scale", "deployment/web", &format!("--replicas={replicas}")]);
        self.shop.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    }

    pub(crate) fn pods(&self) -> Vec<WebPod> {
        let pods = self.shop.get(&["pods", "--selector=app=web"]);
        pods["items"].as_array().into_iter().flatten().map(WebPod::of).collect()
    }

    /// Waits until `kubectl get lbp shop` prints this under READY, PROXIES and STATUS.
    pub(crate) fn wait_for_row(&self, expected: [&str; 3]) {
        wait::patiently(&format!("kubectl get lbp should print {expected:?}"), || {
            let said = self.shop.kubectl(&["get", "lbp", "shop", "--no-headers"]);
            let columns: Vec<_> = said.split_whitespace().collect();
            (columns.get(2..5) == Some(&expected[..])).then_some(())
        });
    }

    /// Waits until this many pods are deleted, though they may still run, and returns them.
    pub(crate) fn deleted(&self, count: usize) -> Vec<WebPod> {
        wait::patiently(&format!("{count} pods should be deleted"), || {
            let deleted: Vec<_> = self.pods().into_iter().filter(|pod| pod.is_deleted).collect();
            (deleted.len() == count).then_some(deleted)
        })
    }

    /// Ends the pods that the node held, and waits until only this many are left.
    pub(crate) fn release(&self, left: usize) {
        self.node.release_deleted_pods();
        wait::patiently(&format!("{left} pods should be left"), || (self.pods().len() == left).then_some(()));
    }
}

#[derive(Debug)]
pub(crate) struct WebPod {
    pub(crate) name: String,
    pub(crate) address: IpAddr,
    pub(crate) is_deleted: bool,
}

impl WebPod {
    fn of(pod: &Value) -> Self {
        let text =
            |value: &Value| value.as_str().expect("a pod that runs has a name and an address").to_owned();
        Self {
            name: text(&pod["metadata"]["name"]),
            address: text(&pod["status"]["podIP"]).parse().expect("an address"),
            is_deleted: pod["metadata"]["deletionTimestamp"].is_string(),
        }
    }
}

pub(crate) fn load(server: SocketAddr) -> Load {
    let load = Load::start_at(server, Clients { kept: 2, fresh: 2 });
    wait_for_more(&load);
    load
}

/// Waits for requests that began and ended from here on.
pub(crate) fn wait_for_more(load: &Load) {
    let before = load.seen().good;
    wait::until("the load should flow", || (load.seen().good > before + 100).then_some(()));
}

/// Waits until requests go to others only.
pub(crate) fn wait_until_left(load: &Load, pods: &[WebPod]) {
    let answers = || pods.iter().filter_map(|pod| load.seen().answers.get(&pod.name).copied()).sum::<u64>();
    wait::patiently("backends of deleted pods should get no request", || {
        let before = answers();
        wait_for_more(load);
        (answers() == before).then_some(())
    });
}

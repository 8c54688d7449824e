//! What a kubelet does, as far as load balancing can tell.

use super::{Namespace, Visit, programs};
use crate::harness::process::Process;
use crate::harness::{binaries, wait};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

/// Runs the pods of one namespace as processes, as a kubelet and a scheduler would.
///
/// A pod that nobody has placed yet gets a node, in turn, and an address. Its first container's `command` is started: the
/// first word names one of the workspace's binaries, and `$(POD_NAME)` and `$(POD_IP)` stand for what they say. Once
/// the `containerPort` accepts connections the pod is Ready. A pod that is deleted gets SIGTERM, and when its process has
/// ended it is gone.
#[derive(Debug)]
pub struct Node {
    events: mpsc::Sender<Event>,
    watch: Child,
    worker: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Event {
    /// What a watch says of a pod.
    Pod(Value),
    /// Deleted pods run on until they are released.
    Hold,
    Release,
    Stop,
}

impl Node {
    /// Starts with the pods that are there.
    ///
    /// # Panics
    /// When the pods cannot be watched.
    #[must_use]
    pub fn start(visit: &Visit, namespace: &Namespace<'_>) -> Self {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(programs::path("kubectl"));
        command.arg("--kubeconfig").arg(visit.admin_kubeconfig());
        command.args([
            "--namespace",
            &namespace.name,
            "get",
            "pods",
            "--watch",
            "--output-watch-events",
            "--output=json",
        ]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut watch = command.spawn().expect("setpriv is of util-linux, which every Debian has");
        let stream = watch.stdout.take().expect("piped");
        let (events, received) = mpsc::channel();
        let sender = events.clone();
        std::thread::spawn(move || {
            for event in serde_json::Deserializer::from_reader(stream).into_iter::<Value>() {
                let Ok(event) = event else { return };
                if sender.send(Event::Pod(event)).is_err() {
                    return;
                }
            }
        });
        let (cluster, name) = (Arc::clone(&visit.cluster), namespace.name.clone());
        // Started in the test's thread, so it is in the cluster's network too.
        let worker = std::thread::spawn(move || {
            let namespace = Namespace::existing(&cluster, name);
            Kubelet { namespace, running: BTreeMap::new(), placed: 0, holds: false, deleted: Vec::new() }
                .work(&received);
        });
        Self { events, watch, worker: Some(worker) }
    }

    /// From now on, pods that are deleted run on: what a long `preStop` does.
    pub fn hold_deleted_pods(&self) {
        let _ = self.events.send(Event::Hold);
    }

    /// Ends the pods that were held, and holds no more.
    pub fn release_deleted_pods(&self) {
        let _ = self.events.send(Event::Release);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.watch.kill();
        let _ = self.watch.wait();
        let _ = self.events.send(Event::Stop);
        let ended = self.worker.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            assert!(matches!(ended, Some(Ok(()))), "the node failed; the reason is above");
        }
    }
}

/// The thread behind a [`Node`].
struct Kubelet<'a> {
    namespace: Namespace<'a>,
    running: BTreeMap<String, Process>,
    /// Pods placed so far; the nodes take turns.
    placed: usize,
    holds: bool,
    /// Pods that are deleted and held.
    deleted: Vec<String>,
}

impl Kubelet<'_> {
    fn work(&mut self, events: &mpsc::Receiver<Event>) {
        while let Ok(event) = events.recv() {
            match event {
                Event::Pod(event) => self.see(&event),
                Event::Hold => self.holds = true,
                Event::Release => {
                    self.holds = false;
                    for pod in std::mem::take(&mut self.deleted) {
                        self.end(&pod);
                    }
                }
                Event::Stop => return,
            }
        }
    }

    fn see(&mut self, event: &Value) {
        let (pod, metadata) = (&event["object"], &event["object"]["metadata"]);
        let Some(name) = metadata["name"].as_str() else { return };
        if event["type"] == "DELETED" {
            self.running.remove(name);
        } else if metadata["deletionTimestamp"].is_string() {
            if self.holds && !self.deleted.iter().any(|held| held == name) {
                self.deleted.push(name.to_owned());
            } else if !self.holds {
                self.end(name);
            }
        } else if pod["spec"]["nodeName"].is_null() && !self.running.contains_key(name) {
            self.start(name, pod);
        }
    }

    fn start(&mut self, name: &str, pod: &Value) {
        let node = ["node-a", "node-b"][self.placed % 2];
        self.placed += 1;
        self.bind(name, node);
        let address = self.namespace.cluster().pod_address();
        let container = &pod["spec"]["containers"][0];
        let mut words = container["command"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let program = words.next().expect("a pod of these tests has a command");
        let arguments =
            words.map(|word| word.replace("$(POD_NAME)", name).replace("$(POD_IP)", &address.to_string()));
        let process = Process::leashed(&binaries::path(program), arguments);
        self.running.insert(name.to_owned(), process);
        let port = container["ports"][0]["containerPort"].as_u64().and_then(|port| u16::try_from(port).ok());
        wait_for_port(address, port.expect("a pod of these tests has a port"));
        self.namespace.say_running(name, address);
    }

    fn bind(&self, pod: &str, node: &str) {
        let binding = json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": { "name": pod },
            "target": { "apiVersion": "v1", "kind": "Node", "name": node },
        });
        let path = format!("/api/v1/namespaces/{}/pods/{pod}/binding", self.namespace.name);
        let bound =
            self.namespace.try_kubectl(&["create", "--raw", &path, "--filename=-"], &binding.to_string());
        assert!(bound.status.success(), "{}", String::from_utf8_lossy(&bound.stderr));
    }

    fn end(&mut self, pod: &str) {
        // The watch may say twice that a pod is deleted.
        let Some(process) = self.running.remove(pod) else { return };
        process.terminate();
        let _ = process.wait();
        // As a kubelet ends: nothing is left to wait for.
        self.namespace.kubectl(&["delete", "pod", pod, "--grace-period=0", "--force", "--wait=false"]);
    }
}

fn wait_for_port(address: Ipv4Addr, port: u16) {
    wait::until(&format!("{address}:{port} should accept connections"), || {
        TcpStream::connect((address, port)).ok()
    });
}

//! A real Kubernetes control plane: etcd, kube-apiserver and kube-controller-manager, on a network of its own.
//!
//! [`Cluster::shared`] is one for the whole test binary: it starts with the first test that asks, within seconds, and
//! ends with the process. Tests keep apart by namespaces. What breaks a control plane takes a [`Cluster::private`] one.
//!
//! There is no kubelet. [`Node`] does what load balancing needs of one: pods get an address, run as processes, are Ready
//! and end.

mod api;
mod kubectl;
mod namespace;
mod node;
mod pods;
mod programs;
mod servers;
mod tokens;

pub use api::{Api, Resource};
pub use namespace::{Namespace, Pod};
pub use node::Node;
pub use pods::{PodText, Probe};

use crate::harness::binaries;
use crate::harness::network::{self, Inside, Network};
use servers::Servers;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

/// Where the API server says it is; the node's address too.
const NODE_ADDRESS: &str = "10.199.0.1";
/// Addresses of pods are 10.244.A.B.
const POD_NETWORK: [u8; 2] = [10, 244];
/// Those of the other family are fd00:244::N.
const POD_NETWORK_V6: [u16; 2] = [0xfd00, 0x244];

/// A running control plane, with the definition of `LoadBalancerPool` and two nodes, `node-a` in zone `a` and `node-b` in
/// zone `b`.
#[derive(Debug)]
pub struct Cluster {
    servers: Servers,
    pod_addresses: AtomicU16,
    namespaces: AtomicU16,
    /// After the servers, so that it is removed when these have ended.
    folder: Folder,
    network: Network,
}

/// A test's use of a cluster. While it lives, the test's thread, and the threads and processes that it starts, are in the
/// cluster's network, where pods have their addresses and the API server is on 127.0.0.1.
#[derive(Debug)]
pub struct Visit {
    /// Before the cluster, so that the thread is out of the network when that ends.
    _inside: Inside,
    cluster: Arc<Cluster>,
}

impl Cluster {
    /// The one of this test binary.
    ///
    /// # Panics
    /// When it does not start; the sentence says what is missing.
    #[must_use]
    pub fn shared() -> Visit {
        static SHARED: Mutex<Option<Arc<Cluster>>> = Mutex::new(None);
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        Visit::new(Arc::clone(shared.get_or_insert_with(start_on_a_thread_that_stays)))
    }

    /// One for this test alone, which ends with it.
    ///
    /// # Panics
    /// As [`Cluster::shared`].
    #[must_use]
    pub fn private() -> Visit {
        Visit::new(Arc::new(Self::start()))
    }

    /// An address for a pod, given out once.
    ///
    /// # Panics
    /// When all of them are given out.
    #[must_use]
    pub fn pod_address(&self) -> Ipv4Addr {
        let number = self.pod_addresses.fetch_add(1, Ordering::Relaxed);
        assert!(number < u16::MAX, "the pods' network is full");
        let ([a, b], [c, d]) = (POD_NETWORK, number.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    }

    /// The same of the other family, for a pod that has both.
    ///
    /// # Panics
    /// When all of them are given out, or this machine has no IPv6.
    #[must_use]
    pub fn pod_address_v6(&self) -> Ipv6Addr {
        let [.., c, d] = self.pod_address().octets();
        let [a, b] = POD_NETWORK_V6;
        let address = Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, u16::from_be_bytes([c, d]));
        network::add(address);
        address
    }

    /// A file for this test run, removed with the cluster.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path.join(name)
    }

    /// Ends the API server at once, as a crash does. For a private cluster.
    pub fn stop_api_server(&self) {
        self.servers.stop_api_server();
    }

    /// Ends the API server in order, as far as it does so while it is watched. For a private cluster.
    ///
    /// # Panics
    /// When it goes on.
    pub fn shut_api_server_down(&self) {
        self.servers.shut_api_server_down();
    }

    /// Starts it again where it was, and waits for it.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start_api_server(&self) {
        self.servers.start_api_server(&self.folder.path);
        self.wait_until_ready();
    }

    fn start() -> Self {
        // Both may build, and the network to come has no way to a registry.
        let _ = (programs::path("etcd"), binaries::path("weir"));
        // The API server refuses endpoints on 127.0.0.0/8, so pods need other addresses.
        let [a, b] = POD_NETWORK;
        let network = Network::new(&[NODE_ADDRESS, &format!("{a}.{b}.0.1/16")]);
        let folder = Folder::new();
        let inside = network.enter();
        let servers = Servers::start(&folder.path);
        // The first two addresses of the network: its own, and the interface's.
        let cluster = Self {
            servers,
            pod_addresses: AtomicU16::new(2),
            namespaces: AtomicU16::new(0),
            folder,
            network,
        };
        cluster.wait_until_ready();
        cluster.servers.start_controller_manager(&cluster.folder.path);
        cluster.furnish();
        drop(inside);
        cluster
    }

    /// What every test expects to find.
    fn furnish(&self) {
        let definition = binaries::workspace().join("crds").join(weir_crds::DEFINITION_FILE);
        let definition = std::fs::read_to_string(definition).expect("the generated definition is there");
        self.apply(&definition);
        for (name, zone) in [("node-a", "a"), ("node-b", "b")] {
            let labels = format!("topology.kubernetes.io/zone: {zone}");
            self.apply(&format!(
                "apiVersion: v1\nkind: Node\nmetadata: {{ name: {name}, labels: {{ {labels} }} }}\n"
            ));
        }
        self.wait_for_kind("lbp");
    }
}

impl Visit {
    fn new(cluster: Arc<Cluster>) -> Self {
        Self { _inside: cluster.network.enter(), cluster }
    }
}

impl Deref for Visit {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

/// The servers end with the thread that starts them, and a test's thread ends with its test.
fn start_on_a_thread_that_stays() -> Arc<Cluster> {
    let (sender, receiver) = mpsc::channel();
    let keeper = std::thread::spawn(move || {
        let started = sender.send(Arc::new(Cluster::start()));
        while started.is_ok() {
            std::thread::park();
        }
    });
    receiver.recv().unwrap_or_else(|_| {
        let reason = keeper.join().expect_err("it sends a cluster or panics");
        std::panic::resume_unwind(reason)
    })
}

/// A temporary folder that goes with this process, however that ends: nothing drops the shared cluster.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    /// Waits for the end of its input, which is ours, and removes the folder.
    remover: Child,
}

impl Folder {
    fn new() -> Self {
        let path = tempfile::Builder::new()
            .prefix("weir-test-cluster-")
            .tempdir()
            .expect("a temporary folder")
            .keep();
        // The servers are killed in the same moment and may write while the folder is removed: hence more than once.
        let script = "cat; for i in 1 2 3 4 5 6 7 8 9 10; do rm -rf -- \"$0\"; [ -e \"$0\" ] || exit 0; sleep 0.2; done";
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(&path);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // A group of its own, which Ctrl-C in a terminal does not reach.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let remover = command.spawn().expect("there is a shell");
        Self { path, remover }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(self.remover.stdin.take());
        let _ = self.remover.wait();
    }
}

/// Writes a file that only we may read.
fn write_secret(path: &Path, text: &str) {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::File::options();
    let mut file =
        options.create(true).truncate(true).write(true).mode(0o600).open(path).expect("a writable folder");
    file.write_all(text.as_bytes()).expect("room on the disk");
}

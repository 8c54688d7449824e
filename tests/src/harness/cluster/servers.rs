//! The three servers, with the flags that make them start fast and leave the tests' pods alone.

use super::{NODE_ADDRESS, programs, write_secret};
use crate::harness::authority::{self, Authority};
use crate::harness::client;
use crate::harness::process::Process;
use crate::harness::wait;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Ports are free for the asking: the network is the cluster's own.
const ETCD_PORT: u16 = 2379;
const ETCD: &str = "http://127.0.0.1:2379";
const ETCD_PEERS: &str = "http://127.0.0.1:2380";
const API_SERVER_PORT: u16 = 6443;
pub(super) const API_SERVER: &str = "https://127.0.0.1:6443";

/// One of each family. The first address is the Service `kubernetes`.
const SERVICE_NETWORKS: &str = "10.96.0.0/16,fd00:96::/112";
const ISSUER: &str = "https://kubernetes.default.svc";
/// Nobody else is on this network.
const ADMIN_TOKEN: &str = "admin";

/// Files in the cluster's folder.
pub(super) const ADMIN_KUBECONFIG: &str = "admin.kubeconfig";
const CA: &str = "ca.crt";
const CERTIFICATE: &str = "api-server.crt";
const KEY: &str = "api-server.key";
const TOKENS: &str = "tokens.csv";
pub(super) const ACCOUNT_KEY: &str = "service-accounts.key";
const ACCOUNT_PUBLIC_KEY: &str = "service-accounts.pub";

/// In the order in which they end.
#[derive(Debug)]
pub(super) struct Servers {
    controller_manager: Mutex<Option<Process>>,
    api_server: Mutex<Option<Process>>,
    etcd: Mutex<Option<Process>>,
}

impl Servers {
    /// Starts what stores and serves. Neither is waited for.
    pub(super) fn start(folder: &Path) -> Self {
        write_credentials(folder);
        let etcd = Mutex::new(Some(etcd(folder)));
        Self { controller_manager: Mutex::default(), api_server: Mutex::new(Some(api_server(folder))), etcd }
    }

    /// Starts the controllers, once the API server is ready: they give up after ten seconds without it.
    pub(super) fn start_controller_manager(&self, folder: &Path) {
        *lock(&self.controller_manager) = Some(controller_manager(folder));
    }

    pub(super) fn stop_api_server(&self) {
        if let Some(process) = lock(&self.api_server).take() {
            process.kill();
        }
    }

    pub(super) fn shut_api_server_down(&self) {
        if let Some(process) = lock(&self.api_server).take() {
            process.terminate();
            wait::until("the API server should accept nothing more", || {
                TcpStream::connect(client::local(API_SERVER_PORT)).is_err().then_some(())
            });
            // Watches that are open would keep it for a minute.
            process.kill();
        }
    }

    pub(super) fn start_api_server(&self, folder: &Path) {
        *lock(&self.api_server) = Some(api_server(folder));
    }

    /// Fails early where waiting would only hide the reason.
    pub(super) fn assert_running(&self) {
        for (name, server) in [("etcd", &self.etcd), ("kube-apiserver", &self.api_server)] {
            let mut server = lock(server);
            assert!(server.as_mut().is_none_or(Process::is_running), "{name} ended; what it said is below");
        }
    }
}

/// Where etcd listens, for who writes past the API server.
pub(super) fn etcd_address() -> SocketAddr {
    client::local(ETCD_PORT)
}

fn lock(server: &Mutex<Option<Process>>) -> MutexGuard<'_, Option<Process>> {
    server.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A kubeconfig for a token. The authority is named by path, so that the text is short.
pub(super) fn kubeconfig(folder: &Path, token: &str) -> String {
    let ca = folder.join(CA);
    format!(
        "apiVersion: v1
kind: Config
clusters: [{{ name: test, cluster: {{ server: \"{API_SERVER}\", certificate-authority: \"{}\" }} }}]
users: [{{ name: test, user: {{ token: \"{token}\" }} }}]
contexts: [{{ name: test, context: {{ cluster: test, user: test }} }}]
current-context: test
",
        ca.display()
    )
}

fn write_credentials(folder: &Path) {
    let authority = Authority::new();
    let names = ["127.0.0.1", NODE_ADDRESS, "10.96.0.1", "localhost", "kubernetes.default.svc"];
    let pair = authority.issue("kube-apiserver", &names);
    write_secret(&folder.join(CA), &authority.certificate());
    write_secret(&folder.join(CERTIFICATE), &pair.certificate);
    write_secret(&folder.join(KEY), &pair.key);
    let account_key = authority::key();
    write_secret(&folder.join(ACCOUNT_KEY), &account_key.serialize_pem());
    write_secret(&folder.join(ACCOUNT_PUBLIC_KEY), &account_key.public_key_pem());
    write_secret(&folder.join(TOKENS), &format!("{ADMIN_TOKEN},admin,admin,\"system:masters\"\n"));
    write_secret(&folder.join(ADMIN_KUBECONFIG), &kubeconfig(folder, ADMIN_TOKEN));
}

fn etcd(folder: &Path) -> Process {
    let data = folder.join("etcd");
    let flags = [
        format!("--data-dir={}", data.display()),
        format!("--listen-client-urls={ETCD}"),
        format!("--advertise-client-urls={ETCD}"),
        format!("--listen-peer-urls={ETCD_PEERS}"),
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
    ];
    Process::leashed(programs::path("etcd"), flags)
}

fn api_server(folder: &Path) -> Process {
    let file = |name: &str| folder.join(name).display().to_string();
    let flags = [
        format!("--etcd-servers={ETCD}"),
        "--secure-port=6443".to_owned(),
        // Endpoints of the Service `kubernetes` may not be on loopback, so the server says another address of ours.
        format!("--advertise-address={}", NODE_ADDRESS),
        format!("--tls-cert-file={}", file(CERTIFICATE)),
        format!("--tls-private-key-file={}", file(KEY)),
        format!("--token-auth-file={}", file(TOKENS)),
        "--authorization-mode=Node,RBAC".to_owned(),
        format!("--service-account-issuer={ISSUER}"),
        format!("--service-account-key-file={}", file(ACCOUNT_PUBLIC_KEY)),
        format!("--service-account-signing-key-file={}", file(ACCOUNT_KEY)),
        format!("--service-cluster-ip-range={SERVICE_NETWORKS}"),
        "--profiling=false".to_owned(),
    ];
    Process::leashed(programs::path("kube-apiserver"), flags)
}

fn controller_manager(folder: &Path) -> Process {
    let file = |name: &str| folder.join(name).display().to_string();
    let flags = [
        format!("--kubeconfig={}", file(ADMIN_KUBECONFIG)),
        format!("--service-account-private-key-file={}", file(ACCOUNT_KEY)),
        format!("--root-ca-file={}", file(CA)),
        format!("--cert-dir={}", file("controller-manager")),
        "--bind-address=127.0.0.1".to_owned(),
        "--use-service-account-credentials".to_owned(),
        "--leader-elect=false".to_owned(),
        // No kubelet renews the nodes' leases, so these two would turn every pod NotReady and remove it.
        "--controllers=*,-node-lifecycle-controller,-pod-garbage-collector-controller".to_owned(),
        // Its own limit costs seconds of the start.
        "--kube-api-qps=500".to_owned(),
        "--kube-api-burst=1000".to_owned(),
    ];
    Process::leashed(programs::path("kube-controller-manager"), flags)
}

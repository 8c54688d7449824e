//! What a person types.

use super::{Cluster, programs, servers};
use crate::harness::wait;
use serde_json::Value;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Where kubectl keeps what it knows of the API, in the cluster's folder.
const CACHE: &str = "kubectl-cache";

impl Cluster {
    /// Runs kubectl as the administrator and returns what it prints.
    ///
    /// # Panics
    /// When it fails, with what it says.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        good(arguments, self.try_kubectl(arguments, ""))
    }

    /// Runs kubectl as the administrator, with this on its standard input.
    #[must_use]
    pub fn try_kubectl(&self, arguments: &[&str], stdin: &str) -> Output {
        self.try_kubectl_as(&self.admin_kubeconfig(), arguments, stdin)
    }

    /// Runs kubectl as somebody else.
    ///
    /// # Panics
    /// When it cannot be run.
    #[must_use]
    pub fn try_kubectl_as(&self, kubeconfig: &Path, arguments: &[&str], stdin: &str) -> Output {
        let mut command = Command::new(programs::path("kubectl"));
        // Discovery is cached by host and port, which every cluster here has in common; and nobody's own settings.
        command.arg("--cache-dir").arg(self.file(CACHE)).env("KUBERC", "off");
        command.arg("--kubeconfig").arg(kubeconfig).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("kubectl is a program");
        // What ends before it has read everything says why on standard error.
        let _ = child.stdin.take().expect("piped").write_all(stdin.as_bytes());
        child.wait_with_output().expect("a child can be waited for")
    }

    /// `kubectl apply` of manifests, on the server's side.
    ///
    /// # Panics
    /// When the API server refuses one, with its sentence.
    pub fn apply(&self, manifests: &str) {
        let arguments = ["apply", "--server-side", "--force-conflicts", "--filename=-"];
        good(&arguments, self.try_kubectl(&arguments, manifests));
    }

    /// An object, or a list of them, as `kubectl get` prints it with `--output=json`.
    ///
    /// # Panics
    /// When it is not there.
    #[must_use]
    pub fn get(&self, arguments: &[&str]) -> Value {
        let arguments = [&["get", "--output=json"], arguments].concat();
        serde_json::from_str(&self.kubectl(&arguments)).expect("kubectl prints JSON")
    }

    /// Waits until kubectl knows a kind whose definition was just applied. Discovery learns of it a moment later, and
    /// kubectl remembers that it had not.
    ///
    /// # Panics
    /// At the deadline.
    pub fn wait_for_kind(&self, name: &str) {
        wait::patiently(&format!("kubectl should know {name}"), || {
            let _ = std::fs::remove_dir_all(self.file(CACHE));
            let known = self.try_kubectl(&["explain", name], "").status.success();
            (known && self.try_kubectl(&["get", name], "").status.success()).then_some(())
        });
    }

    /// The kubeconfig of the administrator.
    #[must_use]
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.file(servers::ADMIN_KUBECONFIG)
    }

    /// A kubeconfig with this bearer token.
    ///
    /// # Panics
    /// When the disk is full.
    #[must_use]
    pub fn kubeconfig_of_token(&self, name: &str, token: &str) -> PathBuf {
        let file = self.file(&format!("{name}.kubeconfig"));
        super::write_secret(&file, &servers::kubeconfig(&self.folder.path, token));
        file
    }

    pub(super) fn wait_until_ready(&self) {
        wait::patiently("the API server should be ready", || {
            self.servers.assert_running();
            let output = self.try_kubectl(&["get", "--raw=/readyz"], "");
            output.status.success().then_some(())
        });
    }
}

pub(super) fn good(arguments: &[&str], output: Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "kubectl {} failed: {said}", arguments.join(" "));
    String::from_utf8(output.stdout).expect("kubectl prints text")
}

//! `weir-controller` as an administrator starts it.

use crate::harness::authority::KeyPairFiles;
use crate::harness::cluster::Namespace;
use crate::harness::process::Process;
use crate::harness::services::Service;
use crate::harness::{binaries, client, ports};
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

/// The command line of a controller that is to be started. It listens on 127.0.0.1.
#[derive(Debug)]
pub struct ControllerCommand {
    command: Command,
    push: u16,
}

/// A running controller.
#[derive(Debug)]
pub struct Controller {
    /// The process and its administration.
    pub service: Service,
    /// The port of 127.0.0.1 that proxies dial.
    pub push: u16,
}

impl ControllerCommand {
    /// Over a folder of manifests.
    #[must_use]
    pub fn of_folder(folder: &Path) -> Self {
        Self::new().flags(["--folder".as_ref(), folder.as_os_str()])
    }

    /// Of the API server and with the rights of this kubeconfig, for every namespace.
    #[must_use]
    pub fn of_cluster(kubeconfig: &Path) -> Self {
        Self::new().flags(["--kubeconfig".as_ref(), kubeconfig.as_os_str()])
    }

    fn new() -> Self {
        let mut command = Command::new(binaries::path("weir-controller"));
        // It keeps no keys in a file unless a flag says where: tests leave nothing with who runs them.
        command.env_remove("HOME").env_remove("XDG_STATE_HOME");
        Self { command, push: ports::free() }
    }

    /// As a pod of this namespace: where its Lease and keys are, and whose proxies are gateways.
    #[must_use]
    pub fn in_namespace(self, own: &Namespace<'_>) -> Self {
        self.flags(["--namespace", &own.name])
    }

    /// For this namespace, beside the controllers of other tests. For several where it is called several times.
    #[must_use]
    pub fn watching(self, namespace: &Namespace<'_>) -> Self {
        self.flags(["--watch-namespace", &namespace.name])
    }

    /// On this port instead of a free one.
    #[must_use]
    pub fn listening(self, push: u16) -> Self {
        Self { push, ..self }
    }

    /// With TLS.
    #[must_use]
    pub fn with_certificate(self, pair: &KeyPairFiles) -> Self {
        self.flags(["--tls-cert".as_ref(), pair.certificate.as_os_str()])
            .flags(["--tls-key".as_ref(), pair.key.as_os_str()])
    }

    /// With client certificates of this authority.
    #[must_use]
    pub fn with_client_ca(self, ca: &Path) -> Self {
        self.flags(["--client-ca".as_ref(), ca.as_os_str()])
    }

    /// With any other flags.
    #[must_use]
    pub fn flags(mut self, flags: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(flags);
        self
    }

    /// Starts it. Not waited for.
    #[must_use]
    pub fn start(mut self) -> Controller {
        let admin = ports::free();
        self.command.args(["--listen", &client::local(self.push).to_string()]);
        self.command.args(["--admin", &client::local(admin).to_string()]);
        Controller { service: Service { process: Process::start(&mut self.command), admin }, push: self.push }
    }
}

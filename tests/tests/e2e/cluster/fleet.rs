//! Proxies that are pods, and what they prove it with.

use std::path::{Path, PathBuf};
use weir_tests::harness::authority::{Authority, KeyPairFiles, replace};
use weir_tests::harness::client;
use weir_tests::harness::cluster::{Namespace, Pod};
use weir_tests::harness::controller::ControllerCommand;
use weir_tests::harness::services::Service;

/// The name in the controller's certificate.
pub(crate) const CONTROLLER: &str = "controller.example";
/// What tokens are for.
pub(crate) const AUDIENCE: &str = "weir.dev/controller";

/// An authority, the controller's certificate of it, and proxies that dial the controller's port over TLS.
pub(crate) struct Fleet<'a> {
    system: &'a Namespace<'a>,
    push: u16,
    pub(crate) authority: Authority,
    /// What proxies trust.
    pub(crate) ca: PathBuf,
    /// The controller's.
    pub(crate) pair: KeyPairFiles,
}

impl<'a> Fleet<'a> {
    pub(crate) fn new(system: &'a Namespace<'a>, push: u16) -> Self {
        let authority = Authority::new();
        let ca = system.cluster().file(&format!("{}-ca.crt", system.name));
        replace(&ca, &authority.certificate());
        let folder = ca.parent().expect("the cluster's folder");
        let pair = authority.issue("weir-controller", &[CONTROLLER]).write(folder, &system.name);
        Self { system, push, authority, ca, pair }
    }

    /// The controller, as its namespace's and with the certificate.
    pub(crate) fn controller(&self, kubeconfig: &Path) -> ControllerCommand {
        let command = ControllerCommand::of_cluster(kubeconfig).listening(self.push);
        command.in_namespace(self.system).with_certificate(&self.pair)
    }

    /// A proxy as a pod of this ServiceAccount, which listens on the pod's address and shows the pod's token.
    pub(crate) fn proxy_pod(&self, namespace: &Namespace<'_>, name: &str, account: &str) -> (Pod, Service) {
        let pod = namespace.pod(name, account, &[]);
        let token = self.token_file(&pod, &namespace.token(account, &pod.name, AUDIENCE));
        let proxy = self.proxy(&pod, &with_token(&token));
        (pod, proxy)
    }

    /// A proxy on a pod's address.
    pub(crate) fn proxy(&self, pod: &Pod, flags: &[String]) -> Service {
        self.proxy_of(pod, [format!("https://{}", client::local(self.push))], flags)
    }

    /// The same at other controllers.
    pub(crate) fn proxy_of(
        &self,
        pod: &Pod,
        urls: impl IntoIterator<Item = String>,
        flags: &[String],
    ) -> Service {
        let ca = self.ca.display().to_string();
        let trust = ["--controller-ca".to_owned(), ca, "--controller-name".to_owned(), CONTROLLER.to_owned()];
        let urls: Vec<_> = urls.into_iter().collect();
        Service::proxy_at(pod.address, &urls.join(","), &[&trust[..], flags].concat())
    }

    /// The file where this proxy finds its token, with this text.
    pub(crate) fn token_file(&self, pod: &Pod, text: &str) -> PathBuf {
        let file = self.system.cluster().file(&format!("{}-{}.token", self.system.name, pod.address));
        replace(&file, text);
        file
    }
}

/// The flags of a proxy that shows the token in this file.
pub(crate) fn with_token(file: &Path) -> Vec<String> {
    vec!["--token-file".to_owned(), file.display().to_string()]
}

/// The flags of a proxy that shows this certificate.
pub(crate) fn with_certificate(pair: &KeyPairFiles) -> Vec<String> {
    let file = |file: &Path| file.display().to_string();
    vec!["--client-cert".to_owned(), file(&pair.certificate), "--client-key".to_owned(), file(&pair.key)]
}

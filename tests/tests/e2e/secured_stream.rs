//! `weir-controller` and `weir-proxy` with certificates on both sides.

use weir_tests::harness::authority::{Authority, KeyPairFiles, replace};
use weir_tests::harness::controller::ControllerCommand;
use weir_tests::harness::folder::Folder;
use weir_tests::harness::manifest::PoolText;
use weir_tests::harness::ports;
use weir_tests::harness::process::Process;
use weir_tests::harness::services::{Samples, Service, wait_for_backend};

const NAME: &str = "controller.example";

/// A folder of manifests and one of certificates.
struct Fleet {
    authority: Authority,
    manifests: Folder,
    keys: Folder,
    push: u16,
}

impl Fleet {
    fn new() -> Self {
        let fleet = Self {
            authority: Authority::new(),
            manifests: Folder::new(),
            keys: Folder::new(),
            push: ports::free(),
        };
        replace(&fleet.keys.file("ca.crt"), &fleet.authority.certificate());
        fleet.authority.issue("controller", &[NAME]).write(fleet.keys.path(), "controller");
        fleet.authority.issue("proxy", &["proxy"]).write(fleet.keys.path(), "proxy");
        fleet
    }

    fn controller(&self, flags: &[&str]) -> Process {
        let command = ControllerCommand::of_folder(self.manifests.path()).listening(self.push);
        let command = command.with_certificate(&self.pair("controller"));
        command.with_client_ca(&self.keys.file("ca.crt")).flags(flags).start().service.process
    }

    fn proxy(&self, pair: Option<KeyPairFiles>) -> Service {
        let ca = self.keys.file("ca.crt").display().to_string();
        let mut flags = vec!["--controller-ca".to_owned(), ca];
        flags.extend(["--controller-name".to_owned(), NAME.to_owned()]);
        if let Some(KeyPairFiles { certificate, key }) = pair {
            flags.extend(["--client-cert".to_owned(), certificate.display().to_string()]);
            flags.extend(["--client-key".to_owned(), key.display().to_string()]);
        }
        Service::proxy_of(&format!("https://127.0.0.1:{}", self.push), &flags)
    }

    fn pair(&self, name: &str) -> KeyPairFiles {
        KeyPairFiles {
            certificate: self.keys.file(&format!("{name}.crt")),
            key: self.keys.file(&format!("{name}.key")),
        }
    }
}

#[test]
fn pools_come_over_mutual_tls_and_rotated_certificates_are_in_use_without_a_restart() {
    let (fleet, old, new) = (Fleet::new(), Samples::start("old", 1), Samples::start("new", 1));
    let port = ports::free();
    fleet.manifests.write("pool.yaml", &PoolText::new("sealed", port, &old.equal()).yaml());
    let mut controller = fleet.controller(&["--stream-age-max", "1s"]);
    controller.wait_for_stderr("controller started");
    let proxy = fleet.proxy(Some(fleet.pair("proxy")));
    proxy.wait_until_ready();
    wait_for_backend(port, "/", "old");

    replace(&fleet.keys.file("controller.key"), "half written");
    let said = controller.wait_for_stderr("new TLS files are not used");
    assert!(said.contains("controller.key"), "{said}");
    fleet.authority.issue("controller", &[NAME]).write(fleet.keys.path(), "controller");
    controller.wait_for_stderr("a new TLS certificate is in use");
    fleet.authority.issue("proxy", &["proxy"]).write(fleet.keys.path(), "proxy");
    fleet.manifests.write("pool.yaml", &PoolText::new("sealed", port, &new.equal()).yaml());
    wait_for_backend(port, "/", "new");
    let said = proxy.process.stderr();
    assert!(!said.contains("no stream to a controller"), "a stream that ends by its age is no fault: {said}");
}

#[test]
fn a_proxy_that_is_not_let_in_says_what_to_do_about_it() {
    let fleet = Fleet::new();
    let _controller = fleet.controller(&[]);
    let mut without = fleet.proxy(None);
    without.process.wait_for_stderr("give --client-cert and --client-key");
    let foreign = Authority::new().issue("proxy", &["proxy"]).write(fleet.keys.path(), "foreign");
    let mut foreign = fleet.proxy(Some(foreign));
    let said = foreign.process.wait_for_stderr("does not know the authority");
    assert!(said.contains("foreign.crt") && said.contains("--client-ca"), "{said}");
}

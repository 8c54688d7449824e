//! Sessions over several proxies, and over a rotation of the keys that they share.

use super::pair;
use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use weir_tests::harness::authority::Authority;
use weir_tests::harness::controller::{Controller, ControllerCommand};
use weir_tests::harness::folder::Folder;
use weir_tests::harness::manifest::PoolText;
use weir_tests::harness::services::{Samples, Service};
use weir_tests::harness::{ports, wait};

const HOST: &str = "shop.example";

/// A controller over a folder with its keys in a file, and two proxies on addresses of their own.
struct Site {
    folder: Folder,
    keys: Folder,
    push: u16,
    port: u16,
    proxies: [Service; 2],
    _samples: Samples,
}

const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 3)];

impl Site {
    fn start() -> (Self, Controller) {
        let (folder, keys, samples) = (Folder::new(), Folder::new(), Samples::start("behind", 1));
        let pool = PoolText::new("shared", ports::free(), &samples.equal());
        let listener = "protocol: HTTPS\n      tls: { certificateRefs: [{ name: own }] }\n";
        folder.write("pool.yaml", &pool.yaml().replace("protocol: HTTP\n", listener));
        folder.write("own.yaml", &pair("own", &Authority::new().issue("own", &[HOST])));
        let push = ports::free();
        let controller = controller(folder.path(), &keys, push);
        let url = format!("http://127.0.0.1:{push}");
        let proxies = ADDRESSES.map(|address| Service::proxy_at(address, &url, &[]));
        proxies.iter().for_each(Service::wait_until_ready);
        (Self { folder, keys, push, port: pool.port, proxies, _samples: samples }, controller)
    }

    /// What `openssl s_client` says of a connection to one of the proxies.
    fn shake(&self, proxy: usize, version: &str, flag: &str) -> String {
        let server = format!("{}:{}", ADDRESSES[proxy], self.port);
        let session = self.keys.file(&format!("session{version}"));
        let session = session.to_str().expect("text");
        let mut command = Command::new("openssl");
        command.args([
            "s_client",
            "-ign_eof",
            version,
            "-servername",
            HOST,
            "-connect",
            &server,
            flag,
            session,
        ]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("openssl: install the Debian package `openssl`");
        let mut stdin = child.stdin.take().expect("piped");
        // A ticket of TLS 1.3 comes with the first bytes that are read.
        let _ = write!(stdin, "GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
        let mut said = Vec::new();
        child.stdout.take().expect("piped").read_to_end(&mut said).expect("piped");
        drop(stdin);
        child.wait().expect("it ends");
        String::from_utf8_lossy(&said).into_owned()
    }

    fn is_resumed(&self, proxy: usize, version: &str) -> bool {
        let said = self.shake(proxy, version, "-sess_in");
        assert!(said.contains("\nNew, TLSv1") || said.contains("\nReused, TLSv1"), "{said}");
        said.contains("\nReused, TLSv1")
    }

    /// Ends the controller and begins another one that finds that its keys are to be rotated.
    fn rotate(&self, controller: Controller) -> Controller {
        let streams = |proxy: &Service| proxy.metric("weir_controller_streams_total");
        let before = self.proxies.each_ref().map(streams);
        drop(controller);
        let file = self.keys.file("keys");
        let text = std::fs::read_to_string(&file).expect("the controller's");
        let mut secret: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let annotations = secret["metadata"]["annotations"].as_object_mut().expect("when it was rotated");
        annotations.values_mut().for_each(|at| *at = "2026-01-01T00:00:00Z".into());
        std::fs::write(&file, secret.to_string()).expect("a writable folder");
        let mut controller = self::controller(self.folder.path(), &self.keys, self.push);
        controller.service.process.wait_for_stderr("keys are rotated");
        for (proxy, before) in self.proxies.iter().zip(before) {
            // The ring comes before the pools, and a proxy is in step after these.
            wait::until("the proxy should be back", || {
                (streams(proxy) > before && proxy.metric("weir_controller_connected") == 1).then_some(())
            });
        }
        controller
    }
}

fn controller(folder: &Path, keys: &Folder, push: u16) -> Controller {
    let file = keys.file("keys");
    let flags = ["--keys".as_ref(), file.as_os_str()];
    ControllerCommand::of_folder(folder).listening(push).flags(flags).start()
}

#[test]
fn a_session_resumes_on_another_proxy_and_through_a_rotation_of_the_keys_and_no_longer_after_two() {
    let (site, first) = Site::start();
    for version in ["-tls1_2", "-tls1_3"] {
        wait::until("the keys should have reached both proxies", || {
            assert!(site.shake(0, version, "-sess_out").contains("\nNew, TLSv1"), "{version}");
            site.is_resumed(1, version).then_some(())
        });
    }
    let second = site.rotate(first);
    for (proxy, version) in [(0, "-tls1_2"), (1, "-tls1_2"), (0, "-tls1_3"), (1, "-tls1_3")] {
        assert!(site.is_resumed(proxy, version), "after one: {proxy} {version}");
    }
    let _third = site.rotate(second);
    for (proxy, version) in [(0, "-tls1_2"), (1, "-tls1_2"), (0, "-tls1_3"), (1, "-tls1_3")] {
        assert!(!site.is_resumed(proxy, version), "after two: {proxy} {version}");
    }
}

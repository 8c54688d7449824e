//! A proxy that starts with no controller and serves its last known good configuration.

use std::path::Path;
use weir_tests::harness::controller::ControllerCommand;
use weir_tests::harness::folder::Folder;
use weir_tests::harness::load::{Clients, Load};
use weir_tests::harness::manifest::PoolText;
use weir_tests::harness::services::{
    READY, Samples, Service, controller, is_free, wait_for_backend, wait_for_status,
};
use weir_tests::harness::{certificates, client, ports, wait};

/// A folder of manifests, one of state, and the port at which the controller is, if it is.
struct Stage {
    manifests: Folder,
    own: Folder,
    push: u16,
}

impl Stage {
    fn new() -> Self {
        let stage = Self { manifests: Folder::new(), own: Folder::new(), push: ports::free() };
        stage.key("right", 1);
        stage
    }

    fn key(&self, name: &str, byte: u8) {
        std::fs::write(self.own.file(name), [byte; 32]).expect("written");
    }

    /// With the key of this name.
    fn proxy(&self, key: &str, grace: &str) -> Service {
        let url = format!("http://127.0.0.1:{}", self.push);
        let flag = |name: &str, file: &str| {
            [format!("--{name}"), self.own.file(file).to_str().expect("text").to_owned()]
        };
        let flags = flag("state-folder", "state").into_iter().chain(flag("state-key-file", key));
        let flags: Vec<_> = flags.chain(["--state-grace".to_owned(), grace.to_owned()]).collect();
        Service::proxy_of(&url, &flags)
    }

    /// Until all of these texts are in the file.
    fn wait_until_kept(&self, texts: &[&str]) {
        let path = self.own.file("state/last-good");
        wait::until("the configuration should be kept", || {
            let file = std::fs::read(&path).ok()?;
            let file = String::from_utf8_lossy(&file);
            texts.iter().all(|text| file.contains(text)).then_some(())
        });
    }

    fn shows(&self, text: &str) -> bool {
        let file = std::fs::read(self.own.file("state/last-good")).expect("kept");
        String::from_utf8_lossy(&file).contains(text)
    }
}

fn secured(name: &str, port: u16, samples: &Samples) -> String {
    let listener = "protocol: HTTPS\n      tls: { certificateRefs: [{ name: cert }] }\n";
    PoolText::new(name, port, &samples.equal()).yaml().replace("protocol: HTTP\n", listener)
}

fn metric(proxy: &Service, name: &str) -> f64 {
    let text = client::fetch(proxy.admin, "/metrics").expect("administration answers").text();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).map(str::to_owned);
    let line = line.unwrap_or_else(|| panic!("no {name} in {text}"));
    line.parse().expect("a number")
}

fn mode(path: &Path) -> u32 {
    std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(path).expect("there")) & 0o777
}

#[test]
fn a_proxy_serves_without_a_controller_and_comes_into_step_again_without_a_failed_request() {
    let (old, new) = (Samples::start("old", 1), Samples::start("new", 1));
    let (open, tls, leaving) = (ports::free(), ports::free(), ports::free());
    let stage = Stage::new();
    stage.manifests.write("secret.yaml", &certificates::secret("cert", "kept", &["kept.example"]));
    stage.manifests.write("open.yaml", &PoolText::new("open", open, &old.equal()).yaml());
    stage.manifests.write("tls.yaml", &secured("secured", tls, &old));
    stage.manifests.write("leaving.yaml", &PoolText::new("leaving", leaving, &old.equal()).yaml());
    let first = controller(stage.manifests.path(), stage.push);
    let proxy = stage.proxy("right", "5s");
    proxy.wait_until_ready();
    stage.wait_until_kept(&["default/open", "default/secured", "default/leaving"]);
    assert_eq!((metric(&proxy, "weir_config_restored"), stage.shows("PRIVATE KEY")), (0.0, false));
    assert_eq!(mode(&stage.own.file("state/last-good")), 0o600);
    first.kill();
    proxy.process.kill();

    let mut proxy = stage.proxy("right", "100ms");
    proxy.process.wait_for_stderr("serving the last known configuration, from ");
    wait_for_status(proxy.admin, READY, 200);
    let said = client::fetch(proxy.admin, READY).expect("an answer").text();
    assert!(said.starts_with("ok: serving the last known configuration, from "), "{said}");
    assert_eq!(certificates::subject(tls, "kept.example"), "CN=kept");
    assert_eq!(metric(&proxy, "weir_config_restored"), 1.0);
    assert!(metric(&proxy, "weir_config_age_seconds") > 0.0);
    let loads = [open, leaving].map(|port| {
        wait_for_backend(port, "/", "old");
        Load::start(port, Clients { kept: 2, fresh: 1 })
    });
    let [load, to_leave] = loads;
    wait::until("the load should flow", || (load.seen().good > 50).then_some(()));
    assert_eq!(to_leave.stop().failures, Vec::<String>::new());

    stage.manifests.write("open.yaml", &PoolText::new("open", open, &new.equal()).yaml());
    std::fs::remove_file(stage.manifests.file("leaving.yaml")).expect("removed");
    let _second = controller(stage.manifests.path(), stage.push);
    wait::until("the change should arrive", || load.seen().first_answer.get("new").copied());
    wait::until("what was removed should go", || is_free(leaving).then_some(()));
    assert_eq!(load.stop().failures, Vec::<String>::new());
    assert_eq!(metric(&proxy, "weir_config_restored"), 0.0);
    assert_eq!(metric(&proxy, "weir_snapshot_requests_total"), 0.0);
    assert_eq!(client::fetch(proxy.admin, READY).expect("an answer").text(), "ok\n");
    let said = proxy.process.stderr();
    let of_secured = said
        .lines()
        .filter(|line| line.contains("a new configuration serves") && line.contains("default/secured"));
    assert_eq!(of_secured.count(), 1, "restored, and not sent again: {said}");
}

#[test]
fn without_its_key_https_waits_for_the_controller_and_the_log_says_so() {
    let samples = Samples::start("member", 1);
    let (open, tls) = (ports::free(), ports::free());
    let stage = Stage::new();
    stage.key("wrong", 2);
    stage.manifests.write("secret.yaml", &certificates::secret("cert", "kept", &["kept.example"]));
    stage.manifests.write("open.yaml", &PoolText::new("open", open, &samples.equal()).yaml());
    stage.manifests.write("tls.yaml", &secured("secured", tls, &samples));
    let first = controller(stage.manifests.path(), stage.push);
    let proxy = stage.proxy("right", "5s");
    proxy.wait_until_ready();
    stage.wait_until_kept(&["default/open", "default/secured"]);
    first.kill();
    proxy.process.kill();

    let mut proxy = stage.proxy("wrong", "0s");
    let said = proxy.process.wait_for_stderr("HTTPS listeners wait for a controller");
    assert!(said.contains("default/secured") && said.contains("--state-key-file"), "{said}");
    proxy.wait_until_ready();
    wait_for_backend(open, "/", "member");
    assert!(is_free(tls));
    proxy.process.kill();

    // The right key still opens what is there.
    let proxy = stage.proxy("right", "0s");
    proxy.wait_until_ready();
    assert_eq!(certificates::subject(tls, "kept.example"), "CN=kept");
    proxy.process.kill();

    let _proxy = stage.proxy("wrong", "0s");
    let _second = controller(stage.manifests.path(), stage.push);
    wait::until("HTTPS is back with the controller", || {
        (certificates::subject(tls, "kept.example") == "CN=kept").then_some(())
    });
}

#[test]
fn a_damaged_file_is_set_aside_and_the_proxy_waits_for_a_controller() {
    let samples = Samples::start("member", 1);
    let port = ports::free();
    let stage = Stage::new();
    stage.manifests.write("pool.yaml", &PoolText::new("kept", port, &samples.equal()).yaml());
    let first = controller(stage.manifests.path(), stage.push);
    let proxy = stage.proxy("right", "5s");
    proxy.wait_until_ready();
    stage.wait_until_kept(&["default/kept"]);
    first.kill();
    proxy.process.kill();
    let file = stage.own.file("state/last-good");
    let mut bytes = std::fs::read(&file).expect("kept");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, &bytes).expect("written");

    let mut proxy = stage.proxy("right", "0s");
    let said = proxy.process.wait_for_stderr("is set aside");
    assert!(said.contains("its checksum does not match"), "{said}");
    proxy.process.wait_for_stderr("no stream to a controller");
    let answer = client::fetch(proxy.admin, READY).expect("an answer");
    assert_eq!((answer.status, is_free(port)), (503, true));
    assert!(!file.exists() && stage.own.file("state/last-good.refused").exists());
    let _second = controller(stage.manifests.path(), stage.push);
    proxy.wait_until_ready();
    wait_for_backend(port, "/", "member");
    stage.wait_until_kept(&["default/kept"]);
}

#[test]
fn a_second_proxy_on_the_same_folder_ends_with_a_sentence() {
    let stage = Stage::new();
    let first = ControllerCommand::of_folder(stage.manifests.path()).listening(stage.push).start();
    let proxy = stage.proxy("right", "5s");
    proxy.wait_until_ready();
    let ended = stage.proxy("right", "5s").process.wait();
    assert!(!ended.status.success());
    assert!(ended.stderr.contains("another proxy keeps its state in"), "{}", ended.stderr);
    assert!(ended.stderr.contains("--state-folder"), "{}", ended.stderr);
    drop(first);
}

#[test]
fn a_key_file_without_a_key_ends_the_start_and_a_key_without_a_folder_is_no_use() {
    let stage = Stage::new();
    std::fs::write(stage.own.file("short"), "hunter2").expect("written");
    let ended = stage.proxy("short", "5s").process.wait();
    assert!(!ended.status.success());
    assert!(ended.stderr.contains("holds no key") && !ended.stderr.contains("hunter2"), "{}", ended.stderr);
    let flags = ["--state-key-file", "key"].map(str::to_owned);
    let ended = Service::proxy_of("http://127.0.0.1:1", &flags).process.wait();
    assert_eq!(ended.status.code(), Some(2));
    assert!(ended.stderr.contains("--state-folder"), "{}", ended.stderr);
}

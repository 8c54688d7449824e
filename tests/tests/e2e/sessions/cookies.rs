//! The sealed cookie, from proxy to proxy, from key to key, and in the wrong hands.

use super::{Came, ask, keys, pool};
use serde_json::Value;
use std::fs;
use std::path::Path;
use weir_tests::harness::folder::Folder;
use weir_tests::harness::manifest::PoolText;
use weir_tests::harness::ports;
use weir_tests::harness::services::{Samples, Service, wait_for_status};
use weir_tests::harness::wait;

const SEALED: &str = "{ type: Cookie }";

/// A proxy with manifests of its own and keys that others share.
struct Proxy {
    port: u16,
    folder: Folder,
    weir: Service,
}

impl Proxy {
    fn start(text: impl Fn(u16) -> String, keys: &str) -> Self {
        let (port, folder) = (ports::free(), Folder::new());
        folder.write("pool.yaml", &text(port));
        let weir = Service::standalone(folder.path(), &["--keys", keys]);
        wait_for_status(port, "/", 200);
        Self { port, folder, weir }
    }

    /// Another process in its place.
    fn restart(self, keys: &str) -> Self {
        self.weir.process.kill();
        let weir = Service::standalone(self.folder.path(), &["--keys", keys]);
        wait_for_status(self.port, "/", 200);
        Self { weir, ..self }
    }

    /// Waits until a second configuration is in force.
    fn wait_for_the_change(&self) {
        wait::until("the change should be in force", || {
            let said = self.weir.process.stderr();
            (said.matches("a new configuration serves").count() >= 2).then_some(())
        });
    }

    fn counted(&self, result: &str) -> u64 {
        self.weir.metric(&format!("weir_sessions_total{{result=\"{result}\"}}"))
    }

    /// What comes back where the session is expected to go on there.
    fn follow(&self, cookie: &str, home: &str) -> Came {
        let came = ask(self.port, &format!("Cookie: {cookie}"));
        assert_eq!(came.backend, home);
        came
    }
}

/// What the keeper does when the time has come, to the file that it keeps.
fn rotate(keys: &str) {
    let path = Path::new(keys);
    let mut file: Value = serde_json::from_slice(&fs::read(path).expect("there")).expect("JSON");
    let data = &mut file["data"];
    data["previous"] = data["current"].take();
    data["current"] = data["next"].take();
    data["next"] = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=".into();
    // Written over, so that its mode stays.
    fs::write(path, file.to_string()).expect("written");
}

#[test]
fn a_session_goes_on_at_another_proxy_through_a_rotation_of_keys_and_a_change_of_configuration() {
    let samples = Samples::start("member", 4);
    let state = Folder::new();
    let keys = keys(&state);
    let text = |port| pool(port, &samples.equal(), SEALED);
    let (one, two) = (Proxy::start(text, &keys), Proxy::start(text, &keys));
    let begun = ask(one.port, "Cookie: a=1");
    let (cookie, home) = (begun.set.expect("a session begins"), begun.backend);
    assert!(!cookie.contains("127"), "no address is inside");
    for _ in 0..6 {
        assert_eq!(two.follow(&cookie, &home).set, None);
    }

    // Another time-out, other weights: the same backends.
    let weights: Vec<_> = samples.ports.iter().zip(2..).map(|(port, weight)| (*port, weight)).collect();
    let mut changed = PoolText::new("sticky", two.port, &weights);
    changed.request_timeout = "7s".to_owned();
    two.folder.write("pool.yaml", &format!("{}  sessionPersistence: {SEALED}\n", changed.yaml()));
    two.wait_for_the_change();
    two.follow(&cookie, &home);

    rotate(&keys);
    let two = two.restart(&keys);
    let sealed_again = two.follow(&cookie, &home).set.expect("it is sealed with the newer key");
    assert_ne!(sealed_again, cookie);
    assert_eq!(two.follow(&sealed_again, &home).set, None);
    one.follow(&sealed_again, &home);
    assert_eq!(two.counted("failed_over") + one.counted("failed_over"), 0);
}

#[test]
fn a_forged_foreign_or_oversized_cookie_is_ignored_counted_and_replaced() {
    let samples = Samples::start("member", 4);
    let state = Folder::new();
    let keys = keys(&state);
    let proxy = Proxy::start(|port| pool(port, &samples.equal(), SEALED), &keys);
    let foreign = {
        let other = |port| pool(port, &samples.equal(), SEALED).replace("name: sticky", "name: other");
        let other = Proxy::start(other, &keys);
        ask(other.port, "Cookie: a=1").set.expect("a session begins")
    };
    let good = ask(proxy.port, "Cookie: a=1").set.expect("a session begins");
    let (body, last) = good.split_at(good.len() - 2);
    let forged = format!("{body}{}", if last == "AA" { "BB" } else { "AA" });
    let oversized = format!("LB_SESSION={}", "A".repeat(2_000));
    for (cookie, result) in [(forged, "forged"), (foreign, "foreign"), (oversized, "oversized")] {
        let before = (proxy.counted(result), proxy.counted("new"));
        let came = ask(proxy.port, &format!("Cookie: {cookie}"));
        let replaced = came.set.unwrap_or_else(|| panic!("{result}: another session begins"));
        assert_eq!((proxy.counted(result), proxy.counted("new")), (before.0 + 1, before.1 + 1), "{result}");
        proxy.follow(&replaced, &came.backend);
        assert_eq!(came.cookies, None, "{result}: the backend sees nothing of it");
    }
    proxy.follow(&good, &ask(proxy.port, &format!("Cookie: {good}")).backend);
}

#[test]
fn a_session_keeps_its_side_of_a_split_and_its_backend_while_that_drains() {
    let (stable, canary) = (Samples::start("stable", 2), Samples::start("canary", 2));
    let text = |port: u16, weights: (u32, u32), drained: Option<u16>| {
        let member = |port: &u16| {
            let weight = u32::from(Some(*port) != drained);
            format!("{{ address: 127.0.0.1, port: {port}, weight: {weight} }}")
        };
        let members = |samples: &Samples| samples.ports.iter().map(member).collect::<Vec<_>>().join(", ");
        format!(
            "apiVersion: weir.dev/v1alpha1
kind: LoadBalancerPool
metadata: {{ name: split, namespace: default }}
spec:
  listeners: [{{ name: http, port: {port}, protocol: HTTP }}]
  sessionPersistence: {SEALED}
  rules:
    - backendSets: [{{ name: stable, weight: {} }}, {{ name: canary, weight: {} }}]
  backendSets:
    - {{ name: stable, static: {{ backends: [{}] }} }}
    - {{ name: canary, static: {{ backends: [{}] }} }}
",
            weights.0,
            weights.1,
            members(&stable),
            members(&canary)
        )
    };
    let state = Folder::new();
    let proxy = Proxy::start(|port| text(port, (1, 1), None), &keys(&state));
    let on_canary = |came: &Came| canary.ports.iter().any(|port| came.backend.ends_with(&format!(":{port}")));
    let begun = wait::until("one of them should go to the canary", || {
        Some(ask(proxy.port, "Cookie: a=1")).filter(on_canary)
    });
    let (cookie, home) = (begun.set.expect("a session begins"), begun.backend);
    for _ in 0..6 {
        proxy.follow(&cookie, &home);
    }
    // Neither the set nor the backend takes anybody new, and who is there stays.
    let drained = home.rsplit(':').next().and_then(|port| port.parse().ok());
    proxy.folder.write("pool.yaml", &text(proxy.port, (1, 0), drained));
    proxy.wait_for_the_change();
    for _ in 0..20 {
        assert!(!on_canary(&ask(proxy.port, "Cookie: a=1")), "nobody new");
        proxy.follow(&cookie, &home);
    }
}

//! Services, EndpointSlices and Secrets in a folder mean what they mean in a cluster.

use std::io::Read as _;
use std::net::TcpListener;
use std::sync::mpsc;
use weir_tests::harness::folder::Folder;
use weir_tests::harness::load::{Clients, Load};
use weir_tests::harness::manifest::PoolText;
use weir_tests::harness::services::{Samples, Service, controller, wait_for_backend};
use weir_tests::harness::{certificates, client, ports, wait};

const SERVICE: &str = "apiVersion: v1
kind: Service
metadata: { name: web, namespace: default }
spec:
  ports:
    - { name: http, port: 80, protocol: TCP }
";

fn pool_of_service(port: u16) -> String {
    let static_set = PoolText::new("sliced", port, &[]).yaml();
    let (before, _) = static_set.split_once("      static:").expect("the set");
    format!("{before}      service: {{ name: web, port: http }}\n")
}

/// A slice of the Service; each endpoint has its own port, so it gets a slice of its own.
fn slice(name: &str, port: u16, conditions: &str) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {name}
  namespace: default
  labels: {{ kubernetes.io/service-name: web }}
addressType: IPv4
ports:
  - {{ name: http, port: {port}, protocol: TCP }}
endpoints:
  - addresses: [127.0.0.1]
    conditions: {{ {conditions} }}
"
    )
}

#[test]
fn requests_stay_in_the_zone_that_the_proxy_is_told_it_runs_in() {
    let (near, far) = (Samples::start("near", 1), Samples::start("far", 1));
    let port = ports::free();
    let folder = Folder::new();
    let local =
        pool_of_service(port).replace("algorithm: RoundRobin", "algorithm: RoundRobin, locality: PreferZone");
    folder.write("pool.yaml", &local);
    folder.write("service.yaml", SERVICE);
    for (zone, samples) in [("a", &near), ("b", &far)] {
        let placed = format!("  - addresses: [127.0.0.1]\n    zone: {zone}");
        let slice = slice(zone, samples.ports[0], "ready: true");
        folder.write(&format!("{zone}.yaml"), &slice.replace("  - addresses: [127.0.0.1]", &placed));
    }
    let answers = |flags: &[&str]| {
        let _weir = Service::standalone(folder.path(), flags);
        wait_for_backend(port, "/", "near");
        let name = || client::fetch(port, "/").expect("an answer").json()["name"].to_string();
        (0..20).map(|_| name()).collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(answers(&["--zone", "a"]).into_iter().collect::<Vec<_>>(), ["\"near\""]);
    assert_eq!(answers(&[]).len(), 2, "nowhere in particular, all are alike");
}

/// Answers nothing, and tells how each connection to it begins.
fn first_words() -> (u16, mpsc::Receiver<[u8; 3]>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut words = [0; 3];
            if stream.and_then(|mut stream| stream.read_exact(&mut words)).is_ok()
                && sender.send(words).is_err()
            {
                break;
            }
        }
    });
    (port, receiver)
}

#[test]
fn what_a_service_says_its_port_speaks_is_what_its_backends_are_spoken_to_in() {
    let (backend, words) = first_words();
    let port = ports::free();
    let folder = Folder::new();
    folder.write("pool.yaml", &pool_of_service(port));
    folder.write("service.yaml", SERVICE);
    folder.write("slice.yaml", &slice("web", backend, "ready: true"));
    let _weir = Service::standalone(folder.path(), &[]);
    let spoken = |expected: &[u8; 3], why: &str| {
        // Asked for again until the change is in force.
        wait::until(why, || {
            let _ = client::fetch(port, "/");
            words.try_iter().last().filter(|words| words == expected)
        });
    };
    spoken(b"GET", "HTTP/1.1, where nobody says anything");
    folder.write("service.yaml", &SERVICE.replace("port: 80,", "port: 80, appProtocol: kubernetes.io/h2c,"));
    spoken(b"PRI", "HTTP/2, as the Service says");
    folder.write(
        "pool.yaml",
        &pool_of_service(port).replace("      service:", "      protocol: HTTP\n      service:"),
    );
    spoken(b"GET", "HTTP/1.1, as the pool says");
    folder.write("service.yaml", SERVICE);
    folder.write("pool.yaml", &pool_of_service(port));
    let said =
        slice("web", backend, "ready: true").replace("protocol: TCP", "protocol: TCP, appProtocol: grpc");
    folder.write("slice.yaml", &said);
    spoken(b"PRI", "HTTP/2, as the slice says");
}

#[test]
fn endpoint_slices_move_traffic_and_no_request_fails() {
    let (old, new) = (Samples::start("old", 1), Samples::start("new", 1));
    let port = ports::free();
    let folder = Folder::new();
    folder.write("pool.yaml", &pool_of_service(port));
    folder.write("service.yaml", SERVICE);
    folder.write("slice-old.yaml", &slice("web-old", old.ports[0], "ready: true"));
    let _weir = Service::standalone(folder.path(), &[]);
    wait_for_backend(port, "/", "old");
    let load = Load::start(port, Clients { kept: 2, fresh: 2 });

    // As in a rolling update: the new one becomes ready, the old one terminates, then is gone.
    folder.write("slice-new.yaml", &slice("web-new", new.ports[0], "ready: true"));
    wait::until("both should answer", || load.seen().first_answer.get("new").copied());
    folder.write(
        "slice-old.yaml",
        &slice("web-old", old.ports[0], "ready: false, serving: true, terminating: true"),
    );
    wait::until("the terminating one should fall silent", || {
        let before = load.seen();
        wait::until("the load should flow", || (load.seen().good > before.good + 50).then_some(()));
        (load.seen().answers["old"] == before.answers["old"]).then_some(())
    });
    std::fs::remove_file(folder.file("slice-old.yaml")).expect("it is there");
    let before = load.seen().good;
    wait::until("the load should flow on", || (load.seen().good > before + 50).then_some(()));
    assert_eq!(load.stop().failures, Vec::<String>::new());
}

#[test]
fn a_service_without_endpoints_answers_503_and_heals() {
    let samples = Samples::start("member", 1);
    let port = ports::free();
    let folder = Folder::new();
    folder.write("pool.yaml", &pool_of_service(port));
    folder.write("service.yaml", SERVICE);
    let _weir = Service::standalone(folder.path(), &[]);
    let answer = client::fetch(port, "/").expect("an answer");
    assert_eq!((answer.status, answer.json()["reason"].as_str()), (503, Some("no_backend")));
    folder.write("slice.yaml", &slice("web-1", samples.ports[0], "ready: true"));
    wait_for_backend(port, "/", "member");
}

fn secret(common_name: &str) -> String {
    certificates::secret("rotating", common_name, &["localhost"])
}

fn subject(port: u16) -> String {
    certificates::subject(port, "localhost")
}

#[test]
fn a_new_certificate_is_shown_to_new_connections_and_a_broken_one_keeps_the_last_good_one() {
    let samples = Samples::start("member", 1);
    let port = ports::free();
    let folder = Folder::new();
    let pool = PoolText::new("tls", port, &samples.equal()).yaml();
    let listener = "protocol: HTTPS\n      tls:\n        certificateRefs:\n          - name: rotating\n";
    folder.write("pool.yaml", &pool.replace("protocol: HTTP\n", listener));
    folder.write("secret.yaml", &secret("first"));
    let mut weir = Service::standalone(folder.path(), &[]);
    assert_eq!(subject(port), "CN=first");
    folder.write("secret.yaml", &secret("second"));
    wait::until("the second certificate should be shown", || (subject(port) == "CN=second").then_some(()));
    let broken = secret("third").replace("BEGIN CERTIFICATE", "BEGIN NONSENSE");
    folder.write("secret.yaml", &broken);
    weir.process.wait_for_stderr("spec.listeners[0].tls.certificateRefs[0]");
    assert_eq!(subject(port), "CN=second");
    folder.write("secret.yaml", &secret("fourth"));
    wait::until("the fourth certificate should be shown", || (subject(port) == "CN=fourth").then_some(()));
}

#[test]
fn a_key_of_another_certificate_costs_its_listener_and_later_edits_still_apply() {
    let (old, new) = (Samples::start("old", 1), Samples::start("new", 1));
    let (plain, tls) = (ports::free(), ports::free());
    let folder = Folder::new();
    let to = |samples: &Samples| {
        let secure = format!(
            "    - name: https\n      port: {tls}\n      protocol: HTTPS\n      tls:\n        certificateRefs:\n          - name: rotating\n  rules:\n"
        );
        PoolText::new("pair", plain, &samples.equal()).yaml().replacen("  rules:\n", &secure, 1)
    };
    let (first, second) = (secret("first"), secret("second"));
    let (chain, _) = first.split_once("  tls.key:").expect("a key");
    let (_, key) = second.split_once("  tls.key:").expect("a key");
    folder.write("secret.yaml", &format!("{chain}  tls.key:{key}"));
    folder.write("pool.yaml", &to(&old));
    let mut weir = Service::standalone(folder.path(), &[]);
    let problem = weir.process.wait_for_stderr("tls.key does not belong");
    assert!(problem.contains("spec.listeners[1].tls.certificateRefs[0]"), "{problem}");
    wait_for_backend(plain, "/", "old");
    folder.write("pool.yaml", &to(&new));
    wait_for_backend(plain, "/", "new");
    folder.write("secret.yaml", &first);
    wait::until("the pair should be shown", || (subject(tls) == "CN=first").then_some(()));
}

#[test]
fn a_controller_that_restarts_without_a_usable_secret_takes_no_listener_from_a_proxy() {
    let samples = Samples::start("member", 1);
    let (tls, push) = (ports::free(), ports::free());
    let folder = Folder::new();
    let pool = PoolText::new("tls", tls, &samples.equal()).yaml();
    let listener = "protocol: HTTPS\n      tls:\n        certificateRefs:\n          - name: rotating\n";
    folder.write("pool.yaml", &pool.replace("protocol: HTTP\n", listener));
    folder.write("secret.yaml", &secret("first"));
    let mut running = controller(folder.path(), push);
    let proxy = Service::proxy(push);
    proxy.wait_until_ready();
    assert_eq!(subject(tls), "CN=first");
    let broken = secret("broken").replace("BEGIN CERTIFICATE", "BEGIN NONSENSE");
    for unusable in ["", &broken] {
        running.kill();
        folder.write("secret.yaml", unusable);
        running = controller(folder.path(), push);
        running.wait_for_stderr("a proxy has connected");
        // Whatever comes after the resumption of the stream proves that it is over.
        let other = ports::free();
        folder.write("other.yaml", &PoolText::new("other", other, &samples.equal()).yaml());
        wait_for_backend(other, "/", "member");
        assert_eq!(subject(tls), "CN=first");
    }
    folder.write("secret.yaml", &secret("second"));
    wait::until("the second certificate should be shown", || (subject(tls) == "CN=second").then_some(()));
}

//! Re-encryption: whom a set trusts, what it shows, and what is said where that fails.

use super::{authority, pair};
use std::process::Command;
use weir_tests::harness::authority::{Authority, KeyPairText};
use weir_tests::harness::client::{Answer, fetch};
use weir_tests::harness::folder::Folder;
use weir_tests::harness::manifest::PoolText;
use weir_tests::harness::ports;
use weir_tests::harness::process::Process;
use weir_tests::harness::services::{Samples, Service, wait_for_backend};
use weir_tests::harness::wait::until;

const NAME: &str = "web.internal";

fn is_so(what: &str, mut look: impl FnMut() -> bool) {
    until(what, || look().then_some(()));
}

/// `openssl s_server`, which says what it knows of the connection as a page.
struct Backend {
    _process: Process,
    _folder: Folder,
    port: u16,
}

impl Backend {
    fn start(own: &KeyPairText, flags: &[&str]) -> Self {
        let folder = Folder::new();
        let files = own.write(folder.path(), "own");
        let port = ports::free();
        let mut command = Command::new("openssl");
        command.args(["s_server", "-www", "-accept", &format!("127.0.0.1:{port}")]);
        for (flag, file) in [("-cert", &files.certificate), ("-key", &files.key)] {
            // The second pair is what it shows to who asks for its -servername.
            command.arg(flag).arg(file).arg(format!("{flag}2")).arg(file);
        }
        command.args(flags);
        let process = Process::start(&mut command);
        is_so("openssl listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { _process: process, _folder: folder, port }
    }
}

/// `weir run` with one pool and Secrets.
struct Site {
    folder: Folder,
    weir: Service,
    port: u16,
}

fn pool(backend: u16, tls: &str) -> PoolText {
    let mut pool = PoolText::new("secured", ports::free(), &[(backend, 1)]);
    pool.set = vec![format!("tls: {tls}")];
    pool.spec = vec!["retry: { attempts: 0 }".to_owned()];
    pool
}

impl Site {
    fn of(pool: &PoolText, secrets: &[String]) -> Self {
        let folder = Folder::new();
        folder.write("pool.yaml", &pool.yaml());
        folder.write("secrets.yaml", &secrets.concat());
        let weir = Service::standalone(folder.path(), &[]);
        Self { folder, weir, port: pool.port }
    }

    fn get(&self) -> Answer {
        fetch(self.port, "/").expect("an answer")
    }

    /// Status, reason and message of a failure.
    fn failure(&self) -> (u16, String, String) {
        let answer = self.get();
        let json = answer.json();
        let text = |name: &str| json[name].as_str().expect("text").to_owned();
        (answer.status, text("reason"), text("message"))
    }
}

#[test]
fn requests_reach_a_backend_that_is_who_it_should_be_and_it_learns_who_asks() {
    let ca = Authority::new();
    let own = ca.issue("weir", &["weir.internal"]);
    let folder = Folder::new();
    let trusted = folder.file("ca.crt");
    std::fs::write(&trusted, ca.certificate()).expect("a writable folder");
    let trusted = trusted.to_str().expect("text");
    // It ends a handshake with another name, or without a certificate of its authority.
    let flags = [
        "-servername",
        NAME,
        "-servername_fatal",
        "-CAfile",
        trusted,
        "-Verify",
        "1",
        "-verify_return_error",
    ];
    let backend = Backend::start(&ca.issue("web", &[NAME]), &flags);
    let tls = format!(
        "{{ hostname: {NAME}, caCertificateRefs: [{{ name: ca }}], clientCertificateRef: {{ name: own }} }}"
    );
    let secrets = [authority("ca", &ca.certificate()), pair("own", &own)];
    let site = Site::of(&pool(backend.port, &tls), &secrets);
    let answer = site.get();
    let page = answer.text();
    assert_eq!(answer.status, 200, "{page}");
    assert!(
        page.contains("TLSv1.3") && page.contains("Client certificate") && page.contains("Subject: CN=weir"),
        "{page}"
    );
}

#[test]
fn a_backend_that_is_not_who_it_should_be_gets_no_request_and_the_answer_says_why() {
    let (ca, other) = (Authority::new(), Authority::new());
    let uri = "spiffe://cluster.local/ns/shop/sa/web";
    let good = ca.issue("web", &[NAME, uri]);
    let trusting = |more: &str| format!("{{ hostname: {NAME}, caCertificateRefs: [{{ name: ca }}]{more} }}");
    let named = |kind: &str, field: &str, name: &str| {
        trusting(&format!(", subjectAltNames: [{{ type: {kind}, {field}: \"{name}\" }}]"))
    };
    let (wrong_issuer, wrong_name) = ("signed by no authority that the set trusts", "is for another name");
    for (own, tls, said) in [
        (&good, trusting(""), None),
        (&other.issue("web", &[NAME]), trusting(""), Some(wrong_issuer)),
        (&ca.issue("web", &["mail.internal"]), trusting(""), Some(wrong_name)),
        (&ca.issue_expired("web", &[NAME]), trusting(""), Some("has expired")),
        (&good, named("URI", "uri", uri), None),
        (&good, named("Hostname", "hostname", NAME), None),
        (&good, named("URI", "uri", "spiffe://cluster.local/ns/shop/sa/mail"), Some(wrong_name)),
        // With names of its own it is not the hostname that counts.
        (&good, named("Hostname", "hostname", "mail.internal"), Some(wrong_name)),
        (&good, format!("{{ hostname: {NAME}, wellKnownCACertificates: System }}"), Some(wrong_issuer)),
    ] {
        let backend = Backend::start(own, &[]);
        let site = Site::of(&pool(backend.port, &tls), &[authority("ca", &ca.certificate())]);
        match said {
            None => assert_eq!(site.get().status, 200, "{tls}: {}", site.get().text()),
            Some(said) => {
                let (status, reason, message) = site.failure();
                assert_eq!((status, reason.as_str()), (502, "backend_tls"), "{tls}: {message}");
                assert!(message.contains(said), "{tls}: {message}");
            }
        }
    }
}

#[test]
fn a_backend_without_tls_or_without_the_protocol_is_said_to_be_that() {
    let ca = Authority::new();
    let tls = format!("{{ hostname: {NAME}, caCertificateRefs: [{{ name: ca }}] }}");
    let samples = Samples::start("plain", 1);
    let site = Site::of(&pool(samples.ports[0], &tls), &[authority("ca", &ca.certificate())]);
    assert!(site.failure().2.contains("does not speak TLS"), "{:?}", site.failure());
    let backend = Backend::start(&ca.issue("web", &[NAME]), &["-alpn", "http/1.1"]);
    let mut pool = pool(backend.port, &tls);
    pool.set.push("protocol: HTTP2".to_owned());
    let site = Site::of(&pool, &[authority("ca", &ca.certificate())]);
    assert!(site.failure().2.contains("(ALPN)"), "{:?}", site.failure());
}

/// Another `weir` that ends TLS for a backend.
fn inner(ca: &Authority, samples: &Samples) -> (Folder, Service, u16) {
    let pool = PoolText::new("inner", ports::free(), &samples.equal());
    let listener = "protocol: HTTPS\n      tls: { certificateRefs: [{ name: own }] }\n";
    let folder = Folder::new();
    folder.write("pool.yaml", &pool.yaml().replace("protocol: HTTP\n", listener));
    folder.write("own.yaml", &pair("own", &ca.issue("web", &[NAME])));
    let weir = Service::standalone(folder.path(), &[]);
    (folder, weir, pool.port)
}

#[test]
fn connections_are_kept_over_either_protocol_and_none_outlives_whom_it_trusts() {
    let (ca, other) = (Authority::new(), Authority::new());
    let samples = Samples::start("behind", 1);
    let (_folder, _inner, port) = inner(&ca, &samples);
    let tls = format!("{{ hostname: {NAME}, caCertificateRefs: [{{ name: ca }}] }}");
    for protocol in ["HTTP", "HTTP2"] {
        let mut pool = pool(port, &tls);
        pool.set.push(format!("protocol: {protocol}"));
        let site = Site::of(&pool, &[authority("ca", &ca.certificate())]);
        for _ in 0..5 {
            let answer = site.get();
            assert_eq!(answer.status, 200, "{protocol}: {}", answer.text());
        }
        let connects = || site.weir.metric("weir_upstream_connects_total");
        assert_eq!(connects(), 1, "{protocol}: one connection for all");
        // Trusting another one, the old connection is of no use, however good.
        site.folder.write("secrets.yaml", &authority("ca", &other.certificate()));
        is_so("the new authority counts", || site.get().status == 502);
        assert!(site.failure().2.contains("signed by no authority"), "{:?}", site.failure());
        // What is no certificate changes nothing of what was good.
        site.folder.write("secrets.yaml", &authority("ca", &ca.certificate()));
        is_so("the old authority counts again", || site.get().status == 200);
    }
}

#[test]
fn health_checks_verify_as_requests_do() {
    let (ca, other) = (Authority::new(), Authority::new());
    let samples = Samples::start("behind", 1);
    let (_folder, _inner, port) = inner(&ca, &samples);
    let tls = format!("{{ hostname: {NAME}, caCertificateRefs: [{{ name: ca }}] }}");
    for check in ["http: {}", "http: { version: HTTP2 }", "tls: {}"] {
        let mut pool = pool(port, &tls);
        pool.health_check = Some(format!(
            "{{ active: {{ {check}, interval: 100ms, healthyThreshold: 1, unhealthyThreshold: 1, initial: Down }} }}"
        ));
        let site = Site::of(&pool, &[authority("ca", &ca.certificate())]);
        is_so("the check passes", || site.get().status == 200);
        site.folder.write("secrets.yaml", &authority("ca", &other.certificate()));
        is_so("the check fails", || {
            let answer = site.get();
            answer.status == 503 && answer.header("x-weir-reason") == Some("no_backend")
        });
    }
}

/// A server of gRPC's health service, in plaintext; `shop` is told to serve or not.
fn health_service() -> (u16, tonic_health::server::HealthReporter, tokio::runtime::Runtime) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let (reporter, service) = tonic_health::server::health_reporter();
    let port = runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let server = tonic::transport::Server::builder().add_service(service);
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        tokio::spawn(server.serve_with_incoming(incoming));
        port
    });
    (port, reporter, runtime)
}

#[test]
fn health_checks_of_grpc_go_over_tls_and_verify() {
    use tonic_health::ServingStatus::{NotServing, Serving};
    let (ca, other) = (Authority::new(), Authority::new());
    let (port, reporter, runtime) = health_service();
    let tell = |status| runtime.block_on(reporter.set_service_status("shop", status));
    tell(Serving);
    // TLS is ended before it, and HTTP/2 agreed on.
    let mut inner = PoolText::new("inner", ports::free(), &[(port, 1)]);
    inner.set = vec!["protocol: HTTP2".to_owned()];
    let listener = "protocol: HTTPS\n      tls: { certificateRefs: [{ name: own }] }\n";
    let folder = Folder::new();
    folder.write("pool.yaml", &inner.yaml().replace("protocol: HTTP\n", listener));
    folder.write("own.yaml", &pair("own", &ca.issue("web", &[NAME])));
    let _inner = Service::standalone(folder.path(), &[]);
    let tls = format!("{{ hostname: {NAME}, caCertificateRefs: [{{ name: ca }}] }}");
    let mut outer = pool(inner.port, &tls);
    outer.set.push("protocol: HTTP2".to_owned());
    outer.health_check = Some(
        "{ active: { grpc: { service: shop }, interval: 100ms, healthyThreshold: 1, unhealthyThreshold: 1, initial: Down } }"
            .to_owned(),
    );
    let site = Site::of(&outer, &[authority("ca", &ca.certificate())]);
    let is_up = || site.weir.backends()[&inner.port].is_available == Some(true);
    is_so("the check passes", is_up);
    tell(NotServing);
    is_so("it is told not to serve", || !is_up());
    tell(Serving);
    is_so("it serves again", is_up);
    site.folder.write("secrets.yaml", &authority("ca", &other.certificate()));
    is_so("its certificate is not trusted any more", || !is_up());
}

#[test]
fn a_missing_authority_closes_its_set_alone_and_a_broken_one_leaves_what_was_good() {
    let ca = Authority::new();
    let samples = Samples::start("behind", 1);
    let (_folder, _inner, port) = inner(&ca, &samples);
    let tls = format!("{{ hostname: {NAME}, caCertificateRefs: [{{ name: ca }}] }}");
    let mut pool = pool(port, &tls);
    pool.path = Some("/secured".to_owned());
    let plain = format!(
        "    - name: plain\n      static: {{ backends: [{{ address: 127.0.0.1, port: {} }}] }}\n",
        samples.ports[0]
    );
    let text =
        pool.yaml().replace("  loadBalancing:", "    - backendSets: [{ name: plain }]\n  loadBalancing:");
    let folder = Folder::new();
    folder.write("pool.yaml", &format!("{text}{plain}"));
    let weir = Service::standalone(folder.path(), &[]);
    let status = |target: &str| fetch(pool.port, target).expect("an answer").status;
    wait_for_backend(pool.port, "/", "behind");
    let closed = fetch(pool.port, "/secured").expect("an answer");
    assert_eq!(closed.json()["reason"], "backend_tls");
    assert!(closed.text().contains("missing or cannot be used"), "{}", closed.text());
    folder.write("ca.yaml", &authority("ca", &ca.certificate()));
    is_so("the set opens", || status("/secured") == 200);
    // Broken: what was good is used on, and the log says which Secret and why.
    folder.write("ca.yaml", &authority("ca", "no certificate\n"));
    let mut weir = weir;
    let log = weir.process.wait_for_stderr("ca.crt holds no PEM certificate");
    assert!(log.contains("caCertificateRefs[0].name"), "{log}");
    assert_eq!((status("/secured"), status("/")), (200, 200));
}

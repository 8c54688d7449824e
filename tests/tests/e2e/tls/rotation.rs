//! Certificates that change while clients are there.

use super::pair;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tungstenite::{Message, WebSocket};
use weir_tests::harness::authority::{Authority, KeyPairText};
use weir_tests::harness::client::local;
use weir_tests::harness::folder::Folder;
use weir_tests::harness::manifest::PoolText;
use weir_tests::harness::services::{Samples, Service};
use weir_tests::harness::{ports, tools, wait};

const HOST: &str = "localhost";
const ROTATIONS: usize = 200;
const WEBSOCKETS: usize = 5;

type Secured = StreamOwned<ClientConnection, TcpStream>;

/// A client that verifies, and resumes nothing.
struct Client {
    config: Arc<ClientConfig>,
    port: u16,
}

impl Client {
    fn new(ca: &Authority, port: u16) -> Self {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(ca.certificate().as_bytes()).expect("PEM");
        roots.add(authority).expect("a certificate");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("suites")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = rustls::client::Resumption::disabled();
        Self { config: Arc::new(config), port }
    }

    /// A connection whose handshake is over.
    fn connect(&self) -> std::io::Result<Secured> {
        let name = ServerName::try_from(HOST).expect("a name");
        let connection = ClientConnection::new(Arc::clone(&self.config), name).expect("complete");
        let socket = TcpStream::connect(local(self.port))?;
        socket.set_read_timeout(Some(wait::GENEROUS))?;
        let mut secured = StreamOwned::new(connection, socket);
        while secured.conn.is_handshaking() {
            secured.conn.complete_io(&mut secured.sock)?;
        }
        Ok(secured)
    }

    fn shown(&self) -> std::io::Result<CertificateDer<'static>> {
        let secured = self.connect()?;
        Ok(secured.conn.peer_certificates().expect("it verified one")[0].clone().into_owned())
    }

    /// Whether a request over a new connection is answered 200.
    fn get(&self) -> std::io::Result<bool> {
        let mut secured = self.connect()?;
        secured.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        secured.read_to_string(&mut answer)?;
        Ok(answer.starts_with("HTTP/1.1 200 "))
    }

    fn websocket(&self) -> WebSocket<Secured> {
        let (websocket, _) = tungstenite::client(format!("ws://{HOST}/"), self.connect().expect("serves"))
            .unwrap_or_else(|_| panic!("the backend takes WebSockets"));
        websocket
    }
}

fn der(pair: &KeyPairText) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pair.certificate.as_bytes()).expect("PEM")
}

/// `weir run` with one HTTPS listener.
fn site(samples: &Samples, secret: &str) -> (Folder, Service, u16) {
    let (folder, pool) = (Folder::new(), PoolText::new("rotated", ports::free(), &samples.equal()));
    let listener = "protocol: HTTPS\n      tls: { certificateRefs: [{ name: own }] }\n";
    folder.write("pool.yaml", &pool.yaml().replace("protocol: HTTP\n", listener));
    folder.write("own.yaml", secret);
    let weir = Service::standalone(folder.path(), &[]);
    (folder, weir, pool.port)
}

/// One generator after the other, 3 s each, until `is_over`: what each said of its failures.
fn generate(port: u16, is_over: &AtomicBool) -> Vec<String> {
    let url = format!("https://127.0.0.1:{port}/");
    let mut said = Vec::new();
    while !is_over.load(Ordering::SeqCst) {
        let wrk = ["-t1", "-c2", "-d3s", "-H", "Connection: close", &url];
        let h2load = ["-t1", "-c2", "-m2", "-D3", &url];
        std::thread::scope(|scope| {
            let wrk = scope.spawn(|| tools::run("wrk", wrk));
            let h2load = tools::run("h2load", h2load);
            for output in [wrk.join().expect("it ran"), h2load] {
                said.push(String::from_utf8_lossy(&output.stdout).into_owned());
            }
        });
    }
    said
}

fn has_failed(said: &str) -> bool {
    let wrk = said.contains("requests in") && !said.contains("Socket errors") && !said.contains("Non-2xx");
    let h2load = said.contains(" 0 failed, 0 errored, 0 timeout") && said.contains(" 0 3xx, 0 4xx, 0 5xx");
    !(wrk || h2load)
}

fn percentile(times: &[Duration], percent: usize) -> Duration {
    times[(times.len() - 1) * percent / 100]
}

#[test]
fn two_hundred_rotations_under_load_fail_no_request_and_end_no_websocket() {
    let (ca, samples) = (Authority::new(), Samples::start("behind", 1));
    let own = |nth: usize| ca.issue(&format!("own-{nth}"), &[HOST]);
    let (folder, _weir, port) = site(&samples, &pair("own", &own(0)));
    let client = Client::new(&ca, port);
    let mut websockets: Vec<_> = (0..WEBSOCKETS).map(|_| client.websocket()).collect();
    let is_over = AtomicBool::new(false);
    let (mut times, mut own_requests) = (Vec::new(), 0);
    let said = std::thread::scope(|scope| {
        let generators = scope.spawn(|| generate(port, &is_over));
        // However this ends, they are to end too.
        let rotated = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for nth in 1..=ROTATIONS {
                let next = own(nth);
                let (text, expected) = (pair("own", &next), der(&next));
                let written = folder.write("own.yaml", &text);
                wait::until("the new certificate should be served", || {
                    (client.shown().expect("each handshake is good") == expected).then_some(())
                });
                times.push(written.elapsed());
                assert!(client.get().expect("an answer"), "rotation {nth}");
                own_requests += 1;
                let websocket = &mut websockets[nth % WEBSOCKETS];
                websocket.send(Message::text(format!("{nth}"))).expect("open");
                assert_eq!(
                    websocket.read().expect("open").into_text().expect("text").as_str(),
                    format!("{nth}")
                );
            }
        }));
        is_over.store(true, Ordering::SeqCst);
        let said = generators.join().expect("the generators ran");
        rotated.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        said
    });
    let failed: Vec<_> = said.iter().filter(|said| has_failed(said)).collect();
    assert!(failed.is_empty() && !said.is_empty(), "{failed:#?}");
    assert_eq!(own_requests, ROTATIONS);
    times.sort_unstable();
    println!(
        "from the Secret's change to a handshake with it, {ROTATIONS} times under load: p50 {:?}, p99 {:?}, longest {:?}",
        percentile(&times, 50),
        percentile(&times, 99),
        percentile(&times, 100)
    );
}

/// What is wrong, as a Secret, and what is said of it.
fn wrongs(ca: &Authority) -> Vec<(String, &'static str)> {
    let (good, other) = (ca.issue("new", &[HOST]), ca.issue("other", &[HOST]));
    let with = |certificate: &str, key: &str| {
        pair("own", &KeyPairText { certificate: certificate.to_owned(), key: key.to_owned() })
    };
    let folder = Folder::new();
    let files = good.write(folder.path(), "key");
    let key = files.key.to_str().expect("text");
    let encrypted = Command::new("openssl")
        .args(["pkcs8", "-topk8", "-v2", "aes-256-cbc", "-passout", "pass:secret", "-in", key])
        .output()
        .expect("openssl: install the Debian package `openssl`");
    let encrypted = String::from_utf8(encrypted.stdout).expect("PEM");
    vec![
        (with("nothing\n", &good.key), "tls.crt is not a PEM certificate chain"),
        (with(&good.certificate, "nothing\n"), "tls.key is not a PEM private key"),
        (with(&good.certificate, &other.key), "tls.key does not belong to the first certificate of tls.crt"),
        (with(&good.certificate, &encrypted), "tls.key is encrypted, and nobody here has its passphrase"),
        (pair("own", &ca.issue_expired("old", &[HOST])), "whose certificate has expired"),
        (super::secret("own", "kubernetes.io/tls", &[("tls.crt", &good.certificate)]), "without tls.key"),
        (String::new(), "is not the name of a Secret"),
    ]
}

#[test]
fn a_certificate_that_cannot_be_used_leaves_the_last_good_one_and_all_other_names_as_they_were() {
    let (ca, samples) = (Authority::new(), Samples::start("behind", 1));
    let good = ca.issue("good", &[HOST]);
    let (folder, mut weir, port) = site(&samples, &pair("own", &good));
    let other = PoolText::new("other", ports::free(), &samples.equal());
    let listener = "protocol: HTTPS\n      tls: { certificateRefs: [{ name: other }] }\n";
    let own = ca.issue("other", &[HOST]);
    let text = other.yaml().replace("protocol: HTTP\n", listener);
    folder.write("other.yaml", &format!("{text}{}", pair("other", &own)));
    let (client, beside) = (Client::new(&ca, port), Client::new(&ca, other.port));
    wait::until("the other pool should serve", || beside.get().ok().filter(|is_good| *is_good));
    for (wrong, expected) in wrongs(&ca) {
        folder.write("own.yaml", &wrong);
        let log = weir.process.wait_for_stderr(expected);
        let line = log.lines().rfind(|line| line.contains(expected)).expect("it is there");
        assert!(
            line.contains("spec.listeners[0].tls.certificateRefs[0].name") && line.contains("\"own\""),
            "{line}"
        );
        assert_eq!(client.shown().expect("it serves on"), der(&good), "{expected}");
        assert_eq!(beside.shown().expect("it is not touched"), der(&own), "{expected}");
        assert!(client.get().expect("an answer") && beside.get().expect("an answer"), "{expected}");
    }
    // A good one takes its place at once.
    let next = ca.issue("next", &[HOST]);
    let begun = Instant::now();
    folder.write("own.yaml", &pair("own", &next));
    wait::until("the new one should be served", || (client.shown().ok()? == der(&next)).then_some(()));
    println!("a good one after bad ones is served after {:?}", begun.elapsed());
    let end = weir.metric_of("weir_tls_certificate_expiry_timestamp_seconds", "secret=\"default/own\"");
    assert!(end > 1_700_000_000, "{end}");
}

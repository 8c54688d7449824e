//! Certificates of clients: who gets in, what backends learn, and that nothing crosses from one policy to another.

use super::{authority, pair};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use weir_tests::harness::authority::{Authority, KeyPairFiles};
use weir_tests::harness::folder::Folder;
use weir_tests::harness::manifest::PoolText;
use weir_tests::harness::ports;
use weir_tests::harness::scripted::Scripted;
use weir_tests::harness::services::Service;
use weir_tests::harness::wait::until;

const OPEN: &str = "open.example";
const STRICT: &str = "strict.example";

/// `weir run` with two pools on one port: one asks clients for a certificate, the other does not. Backends answer with the
/// head of the request.
struct Site {
    folder: Folder,
    _weir: Service,
    port: u16,
    ca: Authority,
    client: KeyPairFiles,
}

impl Site {
    fn new(validation: &str) -> Self {
        Self::trusting(validation, "")
    }

    /// With this `clientAddress` of both listeners.
    fn trusting(validation: &str, client_address: &str) -> Self {
        let backend = Scripted::start(|_, exchange| {
            while let Some(head) = exchange.read_head() {
                exchange.write(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{head}", head.len()));
            }
        });
        let (folder, ca, port) = (Folder::new(), Authority::new(), ports::free());
        let pool = |host: &str, more: &str| {
            let name = host.split('.').next().expect("a label");
            let tls = format!("tls: {{ certificateRefs: [{{ name: {name} }}]{more} }}");
            let listener =
                format!("protocol: HTTPS\n      hostnames: [{host}]\n      {tls}\n{client_address}");
            PoolText::new(name, port, &[(backend.port, 1)]).yaml().replace("protocol: HTTP\n", &listener)
        };
        let validation =
            format!(", clientValidation: {{ caCertificateRefs: [{{ name: ca }}], {validation} }}");
        folder.write("open.yaml", &format!("{}{}", pool(OPEN, ""), pair("open", &ca.issue("open", &[OPEN]))));
        let strict = pair("strict", &ca.issue("strict", &[STRICT]));
        folder.write("strict.yaml", &format!("{}{strict}", pool(STRICT, &validation)));
        folder.write("ca.yaml", &authority("ca", &ca.certificate()));
        let keys = folder.file("client");
        std::fs::create_dir(&keys).expect("a writable folder");
        let client = ca.issue("alice", &["alice.example", "spiffe://example/alice"]).write(&keys, "client");
        let weir = Service::standalone(folder.path(), &[]);
        Self { folder, _weir: weir, port, ca, client }
    }

    /// What `openssl s_client` shows of a connection with one request. `host` is the name of the handshake.
    fn talk(&self, host: &str, shows: Option<&KeyPairFiles>, flags: &[&str], request: &str) -> String {
        let connect = format!("127.0.0.1:{}", self.port);
        let mut command = Command::new("openssl");
        command.args(["s_client", "-ign_eof", "-connect", &connect, "-servername", host]).args(flags);
        if let Some(files) = shows {
            command.arg("-cert").arg(&files.certificate).arg("-key").arg(&files.key);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("openssl: install the Debian package `openssl`");
        let mut stdin = child.stdin.take().expect("piped");
        let _ = stdin.write_all(request.as_bytes());
        let mut got = Vec::new();
        child.stdout.take().expect("piped").read_to_end(&mut got).expect("piped");
        drop(stdin);
        child.wait().expect("it ends");
        String::from_utf8_lossy(&got).into_owned()
    }

    fn get(&self, host: &str, shows: Option<&KeyPairFiles>, flags: &[&str]) -> String {
        self.talk(host, shows, flags, &request(host, ""))
    }

    fn session(&self) -> PathBuf {
        self.folder.file("client").join("session")
    }
}

fn request(host: &str, fields: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\n{fields}Connection: close\r\n\r\n")
}

fn is_served(talk: &str) -> bool {
    talk.contains("HTTP/1.1 200")
}

const FORGED: &str = "X-Forwarded-Client-Cert: Hash=forged\r\nX_Forwarded-Client_Cert: Hash=forged\r\n\
                      Client-Cert: :Zm9yZ2Vk:\r\nClient_Cert: forged\r\nClient-Cert-Chain: :Zm9yZ2Vk:\r\n";

#[test]
fn backends_learn_who_the_client_is_from_the_handshake_alone() {
    let site = Site::new("forward: Both");
    let strict = site.talk(STRICT, Some(&site.client), &[], &request(STRICT, FORGED)).to_ascii_lowercase();
    assert!(is_served(&strict.to_ascii_uppercase()), "{strict}");
    let count = |what: &str| strict.matches(what).count();
    assert_eq!((count("\nx-forwarded-client-cert: hash="), count("\nclient-cert: :")), (1, 1), "{strict}");
    assert!(
        strict.contains(";subject=\"cn=alice\";dns=alice.example;uri=spiffe://example/alice"),
        "{strict}"
    );
    assert!(
        !strict.contains("hash=forged") && !strict.contains("zm9yz2vk") && !strict.contains("client_cert")
    );
    // Also where nobody is asked for one.
    let open = site.talk(OPEN, None, &[], &request(OPEN, FORGED)).to_ascii_lowercase();
    assert!(is_served(&open.to_ascii_uppercase()), "{open}");
    assert!(!open.contains("\nclient-cert") && !open.contains("forged"), "{open}");
}

#[test]
fn what_a_trusted_proxy_says_of_certificates_is_dropped_too() {
    let trusting = "      clientAddress: { trustedCIDRs: [127.0.0.0/8] }\n";
    let site = Site::trusting("forward: Both", trusting);
    let fields = format!("X-Forwarded-For: 198.51.100.7\r\n{FORGED}");
    for (host, shows) in [(OPEN, None), (STRICT, Some(&site.client))] {
        let talk = site.talk(host, shows, &[], &request(host, &fields)).to_ascii_lowercase();
        assert!(talk.contains("\nx-forwarded-for: 198.51.100.7, 127.0.0.1\r"), "it is believed: {talk}");
        assert!(!talk.contains("forged") && !talk.contains("zm9yz2vk"), "{talk}");
    }
}

#[test]
fn who_gets_in_is_as_the_mode_says() {
    let other = Authority::new();
    for (mode, without) in [("Required", false), ("Optional", true)] {
        let site = Site::new(&format!("mode: {mode}"));
        let keys = site.folder.file("client");
        let stranger = other.issue("mallory", &["mallory.example"]).write(&keys, "stranger");
        let expired = site.ca.issue_expired("old", &["old.example"]).write(&keys, "expired");
        for version in ["-tls1_2", "-tls1_3"] {
            let served = |shows| is_served(&site.get(STRICT, shows, &[version]));
            assert!(served(Some(&site.client)), "{mode} {version}");
            assert_eq!(served(None), without, "{mode} {version}");
            assert!(!served(Some(&stranger)) && !served(Some(&expired)), "{mode} {version}");
        }
        assert!(is_served(&site.get(OPEN, None, &[])), "the other host of the port asks for nothing");
    }
}

#[test]
fn a_connection_serves_no_host_that_another_policy_owns() {
    let site = Site::new("mode: Required");
    for (name, asked, shows) in
        [(OPEN, STRICT, None), (OPEN, STRICT, Some(&site.client)), (STRICT, OPEN, Some(&site.client))]
    {
        let talk = site.talk(name, shows, &[], &request(asked, ""));
        assert!(talk.contains("HTTP/1.1 421 ") && talk.contains("\"misdirected\""), "{name} {asked}: {talk}");
    }
}

#[test]
fn no_session_resumes_where_other_rules_hold() {
    let site = Site::new("mode: Required");
    let session = site.session();
    let file = |path: &Path| path.to_str().expect("text").to_owned();
    let session = file(&session);
    for version in ["-tls1_2", "-tls1_3"] {
        for (begun, shows) in [(OPEN, None), (STRICT, Some(&site.client))] {
            let first = site.get(begun, shows, &[version, "-sess_out", &session]);
            assert!(is_served(&first) && first.contains("\nNew, TLSv1"), "{version} {begun}: {first}");
            for (resumed, expected) in [(OPEN, begun == OPEN), (STRICT, begun == STRICT)] {
                // Without a certificate: what is resumed has brought its own.
                let again = site.get(resumed, None, &[version, "-sess_in", &session]);
                let is_reused = again.contains("\nReused, TLSv1");
                assert_eq!(is_reused, expected, "{version}: {begun}, then {resumed}: {again}");
                assert_eq!(
                    is_served(&again),
                    expected || resumed == OPEN,
                    "{version}: {begun}, then {resumed}"
                );
            }
        }
        // What another authority vouched for counts no more.
        let other = Authority::new();
        site.folder.write("ca.yaml", &authority("ca", &other.certificate()));
        until("the other authority counts", || {
            (!is_served(&site.get(STRICT, Some(&site.client), &[version]))).then_some(())
        });
        let again = site.get(STRICT, Some(&site.client), &[version, "-sess_in", &session]);
        assert!(!again.contains("\nReused, TLSv1") && !is_served(&again), "{version}: {again}");
        site.folder.write("ca.yaml", &authority("ca", &site.ca.certificate()));
        until("the authority counts again", || {
            is_served(&site.get(STRICT, Some(&site.client), &[version])).then_some(())
        });
    }
}

//! Versions, ciphers and keys: what clients of different abilities get.

use super::{pair, secret};
use std::process::{Command, Stdio};
use weir_tests::harness::authority::Authority;
use weir_tests::harness::folder::Folder;
use weir_tests::harness::manifest::PoolText;
use weir_tests::harness::ports;
use weir_tests::harness::services::{Samples, Service};

/// `weir run` with one HTTPS listener of one host with these Secrets, and more fields of its tls.
pub(super) struct Site {
    _folder: Folder,
    _weir: Service,
    _samples: Samples,
    pub(super) port: u16,
}

impl Site {
    pub(super) fn new(secrets: &[(&str, String)], more: &str) -> Self {
        let samples = Samples::start("behind", 1);
        let pool = PoolText::new("versions", ports::free(), &samples.equal());
        let names: Vec<_> = secrets.iter().map(|(name, _)| format!("{{ name: {name} }}")).collect();
        let tls = format!("tls: {{ certificateRefs: [{}]{more} }}", names.join(", "));
        let listener = format!("protocol: HTTPS\n      {tls}\n");
        let folder = Folder::new();
        let texts: String = secrets.iter().map(|(_, text)| text.as_str()).collect();
        folder.write("pool.yaml", &format!("{}{texts}", pool.yaml().replace("protocol: HTTP\n", &listener)));
        let weir = Service::standalone(folder.path(), &[]);
        Self { _folder: folder, _weir: weir, _samples: samples, port: pool.port }
    }

    /// What `openssl s_client` says of a handshake.
    fn shake(&self, flags: &[&str]) -> String {
        let connect = format!("127.0.0.1:{}", self.port);
        let mut command = Command::new("openssl");
        command.args(["s_client", "-connect", &connect, "-servername", "localhost"]).args(flags);
        let output =
            command.stdin(Stdio::null()).output().expect("openssl: install the Debian package `openssl`");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

fn is_shaken(text: &str) -> bool {
    text.contains("\nNew, TLSv1.")
}

/// A certificate with an RSA key, as a Secret.
fn rsa(name: &str) -> String {
    let folder = Folder::new();
    let [key, certificate] = ["key", "crt"].map(|file| folder.file(file).to_str().expect("text").to_owned());
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=rsa"])
        .args(["-addext", "subjectAltName=DNS:localhost", "-keyout", &key, "-out", &certificate])
        .output()
        .expect("openssl: install the Debian package `openssl`");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let [key, certificate] =
        [key, certificate].map(|file| std::fs::read_to_string(file).expect("made above"));
    secret(name, "kubernetes.io/tls", &[("tls.crt", &certificate), ("tls.key", &key)])
}

#[test]
fn only_the_versions_that_are_asked_for_are_spoken() {
    let own = || [("own", pair("own", &Authority::new().issue("own", &["localhost"])))];
    for (more, versions) in [
        ("", ["-tls1_2", "-tls1_3"].as_slice()),
        (", minVersion: \"1.2\", cipherPolicy: Intermediate", &["-tls1_2", "-tls1_3"]),
        (", minVersion: \"1.3\"", &["-tls1_3"]),
        (", cipherPolicy: Modern", &["-tls1_3"]),
    ] {
        let site = Site::new(&own(), more);
        for version in ["-tls1_1", "-tls1_2", "-tls1_3"] {
            let text = site.shake(&[version, "-cipher", "ALL:@SECLEVEL=0"]);
            assert_eq!(is_shaken(&text), versions.contains(&version), "{more} {version}: {text}");
        }
        assert!(
            !is_shaken(&site.shake(&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0"])),
            "no CBC"
        );
    }
}

#[test]
fn of_two_certificates_with_one_name_a_client_gets_the_one_that_it_can_verify() {
    let ecdsa = pair("ecdsa", &Authority::new().issue("ecdsa", &["localhost"]));
    let site = Site::new(&[("ecdsa", ecdsa), ("rsa", rsa("rsa"))], "");
    for (flags, kind) in [
        (&["-tls1_3"][..], "ecdsa"),
        (&["-tls1_3", "-sigalgs", "RSA-PSS+SHA256"], "rsa"),
        (&["-tls1_2"], "ecdsa"),
        (&["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"], "rsa"),
        (&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"], "ecdsa"),
        (&["-tls1_2", "-sigalgs", "RSA-PSS+SHA256"], "rsa"),
    ] {
        let text = site.shake(flags);
        let subject = text.lines().find(|line| line.starts_with("subject=")).unwrap_or_default();
        assert!(
            is_shaken(&text) && subject.replace(' ', "") == format!("subject=CN={kind}"),
            "{flags:?}: {text}"
        );
    }
}

//! Certificates as a user makes them with openssl, and the one that a port shows.

use crate::harness::folder::Folder;
use crate::harness::tools;
use std::fmt::Write as _;

/// A Secret of type `kubernetes.io/tls` in namespace `default`, as YAML. The certificate is new each time: its subject is
/// `/CN=common_name`, and it is valid for the DNS names.
///
/// # Panics
/// When openssl is missing or fails.
#[must_use]
pub fn secret(name: &str, common_name: &str, dns_names: &[&str]) -> String {
    let folder = Folder::new();
    let [key, certificate] =
        ["key.pem", "crt.pem"].map(|name| folder.file(name).to_str().expect("text").to_owned());
    let subject = format!("/CN={common_name}");
    let names: Vec<String> = dns_names.iter().map(|name| format!("DNS:{name}")).collect();
    let names = format!("subjectAltName={}", names.join(","));
    let made = tools::run(
        "openssl",
        [
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            &subject,
            "-addext",
            &names,
            "-keyout",
            &key,
            "-out",
            &certificate,
        ],
    );
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mut text = format!(
        "apiVersion: v1
kind: Secret
metadata: {{ name: {name}, namespace: default }}
type: kubernetes.io/tls
stringData:
"
    );
    for (field, file) in [("tls.crt", certificate), ("tls.key", key)] {
        let pem = std::fs::read_to_string(file).expect("made above");
        let _ = writeln!(text, "  {field}: |");
        for line in pem.lines() {
            let _ = writeln!(text, "    {line}");
        }
    }
    text
}

/// The subject of the certificate that a port of 127.0.0.1 shows for a host, `CN=...`; empty where there is no handshake.
#[must_use]
pub fn subject(port: u16, host: &str) -> String {
    let connect = format!("127.0.0.1:{port}");
    let shown = tools::run("openssl", ["s_client", "-connect", &connect, "-servername", host]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let subject = shown.lines().find_map(|line| line.strip_prefix("subject="));
    subject.unwrap_or_default().replace(' ', "")
}

//! TLS towards clients and towards backends.

mod backends;
mod browser;
mod clients;
mod front;
mod handshakes;
mod resumption;
mod rotation;
mod versions;

use std::fmt::Write as _;
use weir_tests::harness::authority::KeyPairText;

/// A Secret of namespace `default`, as a YAML document with a separator before it.
fn secret(name: &str, kind: &str, data: &[(&str, &str)]) -> String {
    let mut text = format!(
        "---\napiVersion: v1\nkind: Secret\nmetadata: {{ name: {name}, namespace: default }}\ntype: {kind}\nstringData:\n"
    );
    for (field, value) in data {
        let _ = writeln!(text, "  {field}: |");
        for line in value.lines() {
            let _ = writeln!(text, "    {line}");
        }
    }
    text
}

/// Of type `kubernetes.io/tls`.
pub(crate) fn pair(name: &str, pair: &KeyPairText) -> String {
    secret(name, "kubernetes.io/tls", &[("tls.crt", &pair.certificate), ("tls.key", &pair.key)])
}

/// With `ca.crt`.
pub(crate) fn authority(name: &str, pem: &str) -> String {
    secret(name, "Opaque", &[("ca.crt", pem)])
}

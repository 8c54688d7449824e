//! What was agreed on by ALPN is spoken, and nothing else.

use super::Site;
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use weir_tests::harness::manifest::PoolText;
use weir_tests::harness::ports;
use weir_tests::harness::services::Samples;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// What a port answers to these bytes over TLS, up to its end, after these protocols were offered.
fn answer(port: u16, offers: &[&str], bytes: &[u8]) -> Vec<u8> {
    let connect = format!("127.0.0.1:{port}");
    let mut command = Command::new("openssl");
    command
        .args(["s_client", "-quiet", "-ign_eof", "-connect", &connect, "-servername", "localhost"])
        .args(offers);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl: install the Debian package `openssl`");
    let mut stdin = child.stdin.take().expect("piped");
    let _ = stdin.write_all(bytes);
    let mut got = Vec::new();
    child.stdout.take().expect("piped").read_to_end(&mut got).expect("piped");
    drop(stdin);
    child.wait().expect("it ends");
    got
}

#[test]
fn a_connection_speaks_what_was_agreed_on_and_nothing_else() {
    let samples = Samples::start("member", 1);
    let site = Site::over_tls(&PoolText::new("alpn", ports::free(), &samples.equal()));
    let text =
        |offers: &[&str], bytes| String::from_utf8_lossy(&answer(site.port, offers, bytes)).into_owned();
    for offers in [&["-alpn", "http/1.1"][..], &[]] {
        let good = text(offers, REQUEST);
        assert!(good.starts_with("HTTP/1.1 200 "), "{offers:?}: {good}");
        let refused = text(offers, PREFACE);
        assert!(
            refused.starts_with("HTTP/1.1 505 ") && refused.contains("version_unsupported"),
            "{offers:?}: {refused}"
        );
    }
    // SETTINGS come first over HTTP/2, and no answer follows to what is none of its.
    let refused = answer(site.port, &["-alpn", "h2"], REQUEST);
    assert!(!refused.windows(5).any(|window| window == b"HTTP/"), "{}", String::from_utf8_lossy(&refused));
    // Who offers neither gets no connection (RFC 7301, section 3.2).
    assert_eq!(text(&["-alpn", "spdy/1"], REQUEST), "");
}

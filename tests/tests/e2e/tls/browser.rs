//! A browser as it comes.

use super::pair;
use super::versions::Site;
use serde_json::Value;
use weir_tests::harness::authority::Authority;
use weir_tests::harness::folder::Folder;
use weir_tests::harness::tools;

/// The number of X25519MLKEM768 among TLS's groups.
const X25519_MLKEM768: u64 = 0x11ec;

/// The SHA-256 of a certificate's public key in base64, by which a browser is told to take it.
fn fingerprint(folder: &Folder, certificate: &str) -> String {
    folder.write("shown.pem", certificate);
    let [pem, der] =
        ["shown.pem", "key.der"].map(|file| folder.file(file).to_str().expect("text").to_owned());
    let key = tools::run("openssl", ["x509", "-in", &pem, "-noout", "-pubkey"]);
    folder.write("key.pem", &String::from_utf8_lossy(&key.stdout));
    let pem = folder.file("key.pem");
    tools::run(
        "openssl",
        ["pkey", "-pubin", "-in", pem.to_str().expect("text"), "-outform", "der", "-out", &der],
    );
    let digest = tools::run(
        "openssl",
        ["dgst", "-sha256", "-binary", "-out", &pem.with_extension("sha").to_string_lossy(), &der],
    );
    assert!(digest.status.success(), "{}", String::from_utf8_lossy(&digest.stderr));
    let digest = pem.with_extension("sha");
    let text = tools::run("openssl", ["base64", "-in", digest.to_str().expect("text")]);
    String::from_utf8_lossy(&text.stdout).trim().to_owned()
}

#[test]
fn a_browser_shows_a_page_over_http2_with_a_key_that_keeps_from_quantum_computers() {
    let own = Authority::new().issue("own", &["localhost"]);
    let site = Site::new(&[("own", pair("own", &own))], "");
    let folder = Folder::new();
    let [profile, log] =
        ["profile", "net.json"].map(|file| folder.file(file).to_str().expect("text").to_owned());
    let shown = tools::run(
        "chromium-headless-shell",
        [
            "--no-sandbox",
            "--disable-gpu",
            &format!("--user-data-dir={profile}"),
            &format!("--log-net-log={log}"),
            &format!("--ignore-certificate-errors-spki-list={}", fingerprint(&folder, &own.certificate)),
            "--dump-dom",
            &format!("https://localhost:{}/page", site.port),
        ],
    );
    let page = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(page.contains(r#""path":"/page""#), "{page} {}", String::from_utf8_lossy(&shown.stderr));
    let log: Value =
        serde_json::from_str(&std::fs::read_to_string(log).expect("the browser's log")).expect("JSON");
    let events = log["events"].as_array().expect("events");
    let shaken = events.iter().map(|event| &event["params"]).find(|said| said["next_proto"].is_string());
    let shaken = shaken.expect("a handshake");
    assert_eq!((&shaken["next_proto"], &shaken["version"]), (&"h2".into(), &"TLS 1.3".into()), "{shaken}");
    assert_eq!(shaken["key_exchange_group"], X25519_MLKEM768, "{shaken}");
}

//! Handshakes: the tools that people use, judges, and how many there may be at one time.

use super::pair;
use crate::protocols::judges::judge;
use std::net::TcpStream;
use std::process::Command;
use weir_tests::harness::authority::KeyPairText;
use weir_tests::harness::client::local;
use weir_tests::harness::folder::Folder;
use weir_tests::harness::manifest::PoolText;
use weir_tests::harness::services::{Samples, Service};
use weir_tests::harness::{certificates, ports, tools, wait};

/// `weir run` with one HTTPS listener, and more fields of it and of its tls.
struct Site {
    port: u16,
    weir: Service,
    _folder: Folder,
    _samples: Samples,
}

impl Site {
    fn start(listener: &str, tls: &str) -> Self {
        Self::with(&certificates::secret("own", "localhost", &["localhost"]), listener, tls)
    }

    /// With this Secret `own`.
    fn with(secret: &str, listener: &str, tls: &str) -> Self {
        let samples = Samples::start("behind", 1);
        let pool = PoolText::new("shaken", ports::free(), &samples.equal());
        let said =
            format!("protocol: HTTPS\n{listener}      tls: {{ certificateRefs: [{{ name: own }}]{tls} }}\n");
        let folder = Folder::new();
        folder.write("pool.yaml", &pool.yaml().replace("protocol: HTTP\n", &said));
        folder.write("own.yaml", secret);
        let weir = Service::standalone(folder.path(), &[]);
        Self { port: pool.port, weir, _folder: folder, _samples: samples }
    }
}

#[test]
fn the_tools_that_people_use_are_served() {
    let site = Site::start("", "");
    let url = format!("https://localhost:{}/", site.port);
    for (version, expected) in [("--http1.1", "1.1"), ("--http2", "2")] {
        for (tls, most) in [("--tlsv1.2", "1.2"), ("--tlsv1.3", "1.3")] {
            let said = tools::curl([
                "-skS",
                version,
                tls,
                "--tls-max",
                most,
                "-o",
                "/dev/null",
                "-w",
                "%{http_version}",
                &url,
            ]);
            assert_eq!(said, expected, "{version} {tls}");
        }
    }
    let said = tools::run("nghttp", ["-vn", "-y", &url]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("The negotiated protocol: h2") && said.contains(":status: 200"), "{said}");
    let server = format!("localhost:{}", site.port);
    for (offers, agreed) in [("h2,http/1.1", "h2"), ("http/1.1", "http/1.1")] {
        let said = tools::run(
            "openssl",
            ["s_client", "-connect", &server, "-servername", "localhost", "-alpn", offers],
        );
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.contains(&format!("ALPN protocol: {agreed}")), "{offers}: {said}");
    }
}

/// A certificate of localhost as public authorities sign them (for servers, for weeks), and that of its authority, which only
/// the test trusts; the first as a Secret, the second in a file of the folder.
fn issued(folder: &Folder) -> (String, String) {
    let path = |name: &str| folder.file(name).to_str().expect("text").to_owned();
    let [ca, ca_key, own, own_key, asked, fields] =
        ["ca.pem", "ca.key", "own.pem", "own.key", "own.csr", "fields"].map(path);
    let more = "subjectAltName=DNS:localhost\nextendedKeyUsage=serverAuth\nkeyUsage=critical,digitalSignature\n\
                basicConstraints=critical,CA:FALSE\nauthorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n";
    folder.write("fields", more);
    let make = |arguments: &str| {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        let made = Command::new("openssl").args(&arguments).output();
        let made = made.expect("openssl: install the Debian package `openssl`");
        assert!(made.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&made.stderr));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    let signs = "-addext keyUsage=critical,keyCertSign,cRLSign";
    make(&format!("req -x509 {key} -days 30 -subj /CN=ca {signs} -keyout {ca_key} -out {ca}"));
    make(&format!("req -new {key} -subj /CN=localhost -keyout {own_key} -out {asked}"));
    make(&format!("x509 -req -in {asked} -CA {ca} -CAkey {ca_key} -days 20 -extfile {fields} -out {own}"));
    let [certificate, key] = [own, own_key].map(|file| std::fs::read_to_string(file).expect("made above"));
    (pair("own", &KeyPairText { certificate, key }), ca)
}

#[test]
fn sslyze_finds_the_default_to_be_mozillas_intermediate_profile_and_modern_the_modern_one() {
    for (tls, profile) in [("", "intermediate"), (", cipherPolicy: Modern", "modern")] {
        let folder = Folder::new();
        let (secret, ca) = issued(&folder);
        let site = Site::with(&secret, "", tls);
        let mut sslyze = judge("sslyze");
        sslyze.args([&format!("--mozilla_config={profile}"), &format!("--certinfo_ca_file={ca}")]);
        sslyze.arg(format!("localhost:{}", site.port));
        let output = sslyze.output().expect("sslyze starts");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && said.contains("OK - Compliant"), "{profile}: {said}");
    }
}

#[test]
fn handshakes_that_stand_still_are_counted_and_others_go_on() {
    for limit in ["handshakesAtOncePerSource: 2", "handshakesAtOnce: 2"] {
        let site = Site::start(&format!("      limits: {{ {limit} }}\n"), "");
        let shake = || certificates::subject(site.port, "localhost") == "CN=localhost";
        assert!(shake(), "{limit}");
        let mut still: Vec<_> =
            (0..2).map(|_| TcpStream::connect(local(site.port)).expect("it listens")).collect();
        wait::until("the limit should be reached", || (!shake()).then_some(()));
        assert!(site.weir.metric_of("weir_connections_refused_total", "limit=\"handshakes_at_once\"") >= 1);
        still.pop();
        wait::until("a place should be free", || shake().then_some(()));
    }
}

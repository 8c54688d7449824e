//! TLS at layer 4: passed on by the name that clients ask for, or ended here.

use super::{Site, connect};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use weir_tests::harness::authority::{Authority, KeyPairFiles};
use weir_tests::harness::certificates::{secret, subject};
use weir_tests::harness::client::local;
use weir_tests::harness::folder::Folder;
use weir_tests::harness::process::Process;
use weir_tests::harness::services::{Samples, Service};
use weir_tests::harness::{ports, tools, wait};

/// A server of TLS that shows this certificate.
pub(super) struct Server {
    pub(super) port: u16,
    _process: Process,
}

impl Server {
    fn start(files: &KeyPairFiles) -> Self {
        let port = ports::free();
        let mut command = Command::new("openssl");
        command.args(["s_server", "-www", "-quiet", "-accept", &format!("127.0.0.1:{port}")]);
        command.arg("-cert").arg(&files.certificate).arg("-key").arg(&files.key);
        let process = Process::start(&mut command);
        wait::until("openssl listens", || TcpStream::connect(local(port)).ok());
        Self { port, _process: process }
    }
}

/// Two servers behind one listener of this text, with rules for their hosts.
pub(super) struct Passing {
    pub(super) site: Site,
    ca: Authority,
    files: Folder,
    pub(super) servers: [Server; 2],
}

impl Passing {
    pub(super) fn start() -> Self {
        let (ca, files) = (Authority::new(), Folder::new());
        let server =
            |name: &str, host: &str| Server::start(&ca.issue(name, &[host]).write(files.path(), name));
        let servers = [server("one", "one.example"), server("two", "*.two.example")];
        let (port, folder) = (ports::free(), Folder::new());
        let hosts = ["one.example", "'*.two.example'"];
        folder.write(
            "pool.yaml",
            &passing("first", port, &[(hosts[0], servers[0].port), (hosts[1], servers[1].port)]),
        );
        let weir = Service::standalone(folder.path(), &[]);
        Self { site: Site { port, weir, folder }, ca, files, servers }
    }
}

/// A pool that passes each host on to a port.
fn passing(name: &str, port: u16, hosts: &[(&str, u16)]) -> String {
    let all: Vec<_> = hosts.iter().map(|(host, _)| *host).collect();
    let mut text = format!(
        "apiVersion: weir.dev/v1alpha1\nkind: LoadBalancerPool\nmetadata: {{ name: {name} }}\nspec:\n  listeners: [{{ name: tls, \
         port: {port}, protocol: TLS, tls: {{ mode: Passthrough }}, hostnames: [{}] }}]\n  rules:\n",
        all.join(", ")
    );
    for (at, (host, _)) in hosts.iter().enumerate() {
        text.push_str(&format!("    - {{ hostnames: [{host}], backendSets: [{{ name: s{at} }}] }}\n"));
    }
    text.push_str("  backendSets:\n");
    for (at, (_, port)) in hosts.iter().enumerate() {
        let backends = format!("backends: [{{ address: 127.0.0.1, port: {port} }}]");
        text.push_str(&format!("    - {{ name: s{at}, static: {{ {backends} }} }}\n"));
    }
    text
}

/// What a server answers over TLS that is verified by this authority.
fn ask(host: &str, port: u16, ca: &str, files: &Folder) -> String {
    let file = files.path().join("asked-by.crt");
    std::fs::write(&file, ca).expect("written");
    let (url, resolve) = (format!("https://{host}:{port}/"), format!("{host}:{port}:127.0.0.1"));
    let arguments = ["-q", "-sS", "--cacert", file.to_str().expect("text"), "--resolve", &resolve, &url];
    tools::curl(arguments)
}

#[test]
fn a_client_sees_the_certificate_of_the_backend_that_has_its_name() {
    let passing = Passing::start();
    let port = passing.site.port;
    assert_eq!(subject(port, "one.example"), "CN=one");
    assert_eq!(subject(port, "ONE.example"), "CN=one");
    for host in ["a.two.example", "b.a.two.example"] {
        assert_eq!(subject(port, host), "CN=two", "{host}");
    }
    let answer = ask("one.example", port, &passing.ca.certificate(), &passing.files);
    assert!(answer.contains("TLSv1.3"), "{answer}");
    assert_eq!(passing.site.weir.metric("weir_tls_handshakes_failed_total"), 0);
}

#[test]
fn a_name_that_nobody_has_is_told_so_and_so_is_none() {
    let passing = Passing::start();
    let connect = format!("127.0.0.1:{}", passing.site.port);
    for name in [&["-servername", "three.example"][..], &["-noservername"]] {
        let output = Command::new("openssl").args(["s_client", "-connect", &connect]).args(name).output();
        let said = String::from_utf8_lossy(&output.expect("openssl runs").stderr).into_owned();
        assert!(said.contains("unrecognized name"), "{name:?}: {said}");
    }
    assert_eq!(passing.site.failures("no_route"), 2);
}

#[test]
fn pools_share_a_port_by_names_and_another_protocol_does_not() {
    let passing = Passing::start();
    let (port, folder) = (passing.site.port, &passing.site.folder);
    folder
        .write("second.yaml", &self::passing("second", port, &[("three.example", passing.servers[1].port)]));
    wait::until("the second pool should have its host", || {
        (subject(port, "three.example") == "CN=two").then_some(())
    });
    assert_eq!(subject(port, "one.example"), "CN=one");
    folder.write(
        "third.yaml",
        &format!("{}---\n{}", terminating("third", port, "", 1), secret("own", "own", &["four.example"])),
    );
    let mut validate = Command::new(weir_tests::harness::binaries::path("weir"));
    let output = validate.arg("validate").arg(folder.path()).output().expect("weir runs");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("speaks another protocol in LoadBalancerPool default/first"), "{said}");
    assert_eq!(subject(port, "one.example"), "CN=one");
}

#[test]
fn what_is_no_begin_of_tls_is_closed_with_an_alert_and_so_is_one_without_end() {
    let passing = Passing::start();
    let refused = |bytes: &[u8]| {
        let mut client = connect(passing.site.port);
        client.write_all(bytes).expect("open");
        let mut heard = Vec::new();
        // What was not read may turn our end into a reset, behind the alert or in its place.
        let _ = client.read_to_end(&mut heard);
        heard
    };
    assert_eq!(refused(b"GET / HTTP/1.1\r\n\r\n").first(), Some(&21));
    // A message of 64 KiB in records of 4 KiB, of which so many come as there may be.
    let record = |first: bool| {
        let mut record = vec![22, 3, 1, 16, 0];
        record.extend(if first { [1, 1, 0, 0] } else { [0; 4] });
        record.resize(5 + 4096, 0);
        record
    };
    let mut endless = record(true);
    (0..3).for_each(|_| endless.extend(record(false)));
    // What was not read of it may reset the connection before the alert is heard.
    let heard = refused(&endless);
    assert!(heard.is_empty() || heard == [21, 3, 3, 0, 2, 2, 50], "16 KiB and no end: {heard:?}");
    wait::until("both should be counted", || {
        (passing.site.weir.metric("weir_tls_handshakes_failed_total") == 2).then_some(())
    });
}

/// A pool that ends TLS with the Secret `own` and passes on what is in it.
pub(super) fn terminating(name: &str, port: u16, tls: &str, backend: u16) -> String {
    format!(
        "apiVersion: weir.dev/v1alpha1\nkind: LoadBalancerPool\nmetadata: {{ name: {name} }}\nspec:\n  listeners: [{{ name: tls, \
         port: {port}, protocol: TLS, tls: {{ certificateRefs: [{{ name: own }}]{tls} }} }}]\n  rules: [{{ backendSets: [{{ \
         name: all }}] }}]\n  backendSets: [{{ name: all, static: {{ backends: [{{ address: 127.0.0.1, port: {backend} }}] }} }}]\n"
    )
}

#[test]
fn what_is_in_tls_that_ends_here_is_passed_on_as_it_is() {
    let (ca, folder, files) = (Authority::new(), Folder::new(), Folder::new());
    let (samples, port) = (Samples::start("member", 1), ports::free());
    folder.write("pool.yaml", &terminating("ends", port, "", samples.ports[0]));
    folder.write("secret.yaml", &crate::tls::pair("own", &ca.issue("own", &["one.example"])));
    let weir = Service::standalone(folder.path(), &[]);
    let answer = ask("one.example", port, &ca.certificate(), &files);
    let json: serde_json::Value = serde_json::from_str(&answer).expect("of the sample backend");
    assert_eq!(json["name"], "member");
    assert!(json["request"]["headers"]["x-forwarded-for"].is_null(), "nothing is read of it: {answer}");
    assert_eq!(weir.metric("weir_layer4_connections_total"), 1);
    assert_eq!(weir.metric("http_requests_total{protocol=\"http1\"}"), 0);
}

#[test]
fn clients_prove_who_they_are_before_a_backend_hears_of_them() {
    let (ca, folder, files) = (Authority::new(), Folder::new(), Folder::new());
    let (samples, port) = (Samples::start("member", 1), ports::free());
    let tls = ", clientValidation: { caCertificateRefs: [{ name: ca }] }";
    folder.write("pool.yaml", &terminating("ends", port, tls, samples.ports[0]));
    let secrets = [
        crate::tls::pair("own", &ca.issue("own", &["one.example"])),
        crate::tls::authority("ca", &ca.certificate()),
    ];
    folder.write("secrets.yaml", &secrets.join("---\n"));
    let weir = Service::standalone(folder.path(), &[]);
    let own = ca.issue("client", &["client"]).write(files.path(), "client");
    let connect = format!("127.0.0.1:{port}");
    let handshake = |own: &[&str]| {
        let output =
            Command::new("openssl").args(["s_client", "-connect", &connect, "-ign_eof"]).args(own).output();
        String::from_utf8_lossy(&output.expect("openssl runs").stderr).into_owned()
    };
    let said = handshake(&[]);
    assert!(said.contains("certificate required"), "{said}");
    assert_eq!(weir.metric("weir_layer4_connections_total"), 0);
    let (certificate, key) = (own.certificate.to_str().expect("text"), own.key.to_str().expect("text"));
    let arguments = ["-q", "-sS", "-k", "--cert", certificate, "--key", key, &format!("https://{connect}/")];
    assert!(tools::curl(arguments).contains("member"));
    assert_eq!(weir.metric("weir_layer4_connections_total"), 1);
}

#[test]
fn a_handshake_that_fails_reaches_no_backend() {
    let (folder, port) = (Folder::new(), ports::free());
    folder.write("pool.yaml", &terminating("ends", port, "", super::named("one")));
    folder.write("secret.yaml", &secret("own", "own", &["one.example"]));
    let weir = Service::standalone(folder.path(), &[]);
    let mut client = connect(port);
    client.write_all(b"no TLS\r\n\r\n").expect("open");
    let mut heard = Vec::new();
    let _ = client.read_to_end(&mut heard);
    wait::until("it should be counted", || {
        (weir.metric("weir_tls_handshakes_failed_total") == 1).then_some(())
    });
    assert_eq!(weir.metric("weir_layer4_connections_total"), 0);
}

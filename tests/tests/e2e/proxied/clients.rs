//! Who the client is where a proxy in front says it before anything else.

use super::{V2, v2};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use weir_tests::harness::client::{Answer, Connection, local};
use weir_tests::harness::folder::Folder;
use weir_tests::harness::manifest::PoolText;
use weir_tests::harness::services::{Samples, Service};
use weir_tests::harness::{certificates, ports, wait};

/// One pool with a listener for HTTP and one for HTTPS.
struct Site {
    port: u16,
    secure: u16,
    weir: Service,
    folder: Folder,
    _samples: Samples,
}

impl Site {
    fn start(proxy_protocol: &str, more: &str) -> Self {
        Self::of(proxy_protocol, more, &[])
    }

    fn of(proxy_protocol: &str, more: &str, fields: &[&str]) -> Self {
        let (port, secure, folder) = (ports::free(), ports::free(), Folder::new());
        let samples = Samples::start("behind", 1);
        let mut pool = PoolText::new("proxied", port, &samples.equal());
        pool.spec = fields.iter().map(|field| (*field).to_owned()).collect();
        let said = format!("      proxyProtocol: {proxy_protocol}\n{more}");
        let tls = "      tls: { certificateRefs: [{ name: own }] }\n";
        let listeners = format!(
            "protocol: HTTP\n{said}    - name: https\n      port: {secure}\n      protocol: HTTPS\n{said}{tls}"
        );
        let pool = pool.yaml().replace("protocol: HTTP\n", &listeners);
        folder.write("pool.yaml", &pool);
        folder.write("own.yaml", &certificates::secret("own", "own", &["localhost"]));
        let weir = Service::standalone(folder.path(), &[]);
        Self { port, secure, weir, folder, _samples: samples }
    }

    /// The answer to a GET behind these bytes; `None` where the connection ends without one.
    fn ask(&self, before: &[u8], fields: &str) -> Option<Answer> {
        let mut connection = Connection::open(self.port).expect("it listens");
        let _ = connection.send(before);
        connection.request(&format!("GET / HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n")).ok()
    }

    fn seen(&self, before: &[u8], fields: &str) -> Option<String> {
        let answer = self.ask(before, fields)?;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["request"]["headers"]["x-forwarded-for"].as_str().map(str::to_owned)
    }

    fn refused(&self) -> u64 {
        self.weir.metric("weir_proxy_headers_refused_total")
    }
}

const TRUSTING: &str = "{ trustedCIDRs: [127.0.0.0/8] }";
const V1: &[u8] = b"PROXY TCP4 198.51.100.7 203.0.113.9 4711 443\r\n";

#[test]
fn the_client_is_whom_a_trusted_proxy_names_in_either_version() {
    let site = Site::start(TRUSTING, "");
    for (header, client) in [
        (V1.to_vec(), "198.51.100.7"),
        (b"PROXY TCP6 2001:db8::7 2001:db8::9 4711 443\r\n".to_vec(), "2001:db8::7"),
        (v2([198, 51, 100, 8], 4711), "198.51.100.8"),
        // Of its own, as a check of its own is, and of a client that it cannot name.
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        ([V2, &[0x20, 0, 0, 0]].concat(), "127.0.0.1"),
    ] {
        let seen = site.seen(&header, "X-Forwarded-For: 6.6.6.6\r\n");
        assert_eq!(seen.as_deref(), Some(client), "{}", header.escape_ascii());
    }
    assert_eq!(site.refused(), 0);
}

#[test]
fn a_trusted_proxy_that_says_nothing_or_nonsense_or_the_other_version_is_turned_away() {
    let site = Site::start("{ trustedCIDRs: [127.0.0.0/8], versions: [V2] }", "");
    let wrong: [&[u8]; 5] =
        [b"", V1, b"PROXY TCP4 x\r\n", b"\x16\x03\x01\x02\0", &[V2, &[0x31, 0x11, 0, 12]].concat()];
    for before in wrong {
        assert!(site.ask(before, "").is_none(), "{}", before.escape_ascii());
    }
    wait::until("each should be counted", || (site.refused() == 5).then_some(()));
    assert_eq!(site.seen(&v2([198, 51, 100, 8], 1), "").as_deref(), Some("198.51.100.8"));
}

#[test]
fn nobody_else_can_say_who_it_is() {
    let site = Site::start("{ trustedCIDRs: [10.0.0.0/8] }", "");
    assert_eq!(site.seen(b"", "").as_deref(), Some("127.0.0.1"), "no header is asked for");
    for header in [V1.to_vec(), v2([198, 51, 100, 8], 1)] {
        let answer = site.ask(&header, "");
        assert!(answer.is_none_or(|answer| answer.status == 400), "{}", header.escape_ascii());
    }
}

#[test]
fn a_header_that_does_not_come_ends_its_connection_in_time() {
    let site = Site::start(TRUSTING, "");
    for begin in [&b""[..], b"PROXY TCP4 198.51.100.7 ", &v2([1, 2, 3, 4], 5)[..20]] {
        let mut stream = TcpStream::connect(local(site.port)).expect("it listens");
        stream.set_read_timeout(Some(wait::GENEROUS)).expect("a socket");
        stream.write_all(begin).expect("open");
        let ended = stream.read(&mut [0]);
        let is_timeout = |error: &std::io::Error| {
            matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
        };
        assert!(!ended.is_err_and(|error| is_timeout(&error)), "{}", begin.escape_ascii());
    }
    assert_eq!(site.refused(), 3);
}

#[test]
fn tls_begins_behind_the_header_and_http2_too() {
    let site = Site::start(TRUSTING, "");
    // curl writes a header of version 1, which names itself.
    let url = format!("https://localhost:{}/", site.secure);
    for version in ["--http1.1", "--http2"] {
        let mut curl = Command::new("curl");
        curl.args(["-skS", "--max-time", "15", "-4", "--haproxy-protocol", version, &url]);
        let output = curl.output().expect("curl: install the Debian package `curl`");
        let said = String::from_utf8_lossy(&output.stderr);
        let body: serde_json::Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{version}: {said}"));
        assert_eq!(body["request"]["headers"]["x-forwarded-for"], "127.0.0.1", "{version}");
    }
    let without =
        Command::new("curl").args(["-skS", "--max-time", "15", &url]).stderr(Stdio::null()).output();
    assert!(!without.expect("curl starts").status.success(), "without a header there is no handshake");
}

#[test]
fn limits_and_rules_are_about_the_client_that_is_named() {
    let limits = "      limits: { connectionsPerSource: 2 }\n";
    let site = Site::of(TRUSTING, limits, &["ipRules: { deny: [198.51.100.66/32] }"]);
    let open = |last: u8| {
        let mut connection = Connection::open(site.port).expect("it listens");
        connection.send(&v2([198, 51, 100, last], 1)).expect("open");
        let answer = connection.request("GET / HTTP/1.1\r\nHost: a\r\n\r\n").ok()?;
        Some((connection, answer.status))
    };
    let held: Vec<_> = (0..2).map(|_| open(1).expect("within")).collect();
    assert!(open(1).is_none(), "one past it");
    assert_eq!(open(2).map(|(_, status)| status), Some(200), "another client of the same proxy");
    assert_eq!(open(66).map(|(_, status)| status), Some(403));
    drop(held);
    wait::until("a place should be free", || open(1));
    assert!(site.weir.metric_of("weir_connections_refused_total", "limit=\"source\"") >= 1);
}

#[test]
fn a_client_that_the_header_names_may_be_a_trusted_proxy_itself() {
    let site = Site::start(TRUSTING, "      clientAddress: { trustedCIDRs: [198.51.100.0/24] }\n");
    let seen = site.seen(V1, "X-Forwarded-For: 192.0.2.1\r\n");
    assert_eq!(seen.as_deref(), Some("192.0.2.1, 198.51.100.7"));
    let seen = site.seen(b"PROXY TCP4 192.0.2.9 203.0.113.9 4711 443\r\n", "X-Forwarded-For: 192.0.2.1\r\n");
    assert_eq!(seen.as_deref(), Some("192.0.2.9"), "it is not trusted");
}

#[test]
fn a_listener_begins_to_ask_for_headers_and_ceases_while_connections_stay_open() {
    let site = Site::start(TRUSTING, "");
    let mut before = Connection::open(site.port).expect("it listens");
    before.send(V1).expect("open");
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(before.request(get).expect("an answer").status, 200);
    let pool = std::fs::read_to_string(site.folder.file("pool.yaml")).expect("written above");
    let line = format!("      proxyProtocol: {TRUSTING}\n");
    site.folder.write("pool.yaml", &pool.replace(&line, ""));
    wait::until("a client without a header should be served", || site.ask(b"", ""));
    assert_eq!(before.request(get).expect("an answer").status, 200, "it stays who it was");
    site.folder.write("pool.yaml", &pool);
    wait::until("a header should be asked for", || site.ask(b"", "").is_none().then_some(()));
    assert_eq!(site.seen(V1, "").as_deref(), Some("198.51.100.7"));
}

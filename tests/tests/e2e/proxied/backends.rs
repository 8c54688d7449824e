//! What backends are told of clients at the begin of a connection, and whose requests go over it.

use super::V2;
use std::collections::BTreeSet;
use std::io::{Read, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use weir_tests::harness::authority::Authority;
use weir_tests::harness::client::{Connection, local};
use weir_tests::harness::folder::Folder;
use weir_tests::harness::manifest::PoolText;
use weir_tests::harness::services::Service;
use weir_tests::harness::{ports, wait};

/// What a header said: the client, or "nobody".
type Told = String;

/// A backend that reads a header of every connection and answers each request with what it said and the number of the
/// connection. What comes behind the header goes to `beyond`, where it has one.
struct Backend {
    port: u16,
    told: Arc<Mutex<Vec<Told>>>,
}

impl Backend {
    fn start(beyond: Option<u16>) -> Self {
        let listener = TcpListener::bind(local(0)).expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let told = Arc::<Mutex<Vec<Told>>>::default();
        let (kept, number) = (Arc::clone(&told), Arc::new(AtomicUsize::new(0)));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let (kept, number) = (Arc::clone(&kept), number.fetch_add(1, Ordering::SeqCst));
                std::thread::spawn(move || {
                    let Some(header) = read_header(&mut stream) else { return };
                    kept.lock().expect("nobody panics").push(header.clone());
                    match beyond {
                        Some(port) => pass(&stream, &TcpStream::connect(local(port)).expect("it listens")),
                        None => answer(&mut stream, &format!("{header} {number}")),
                    }
                });
            }
        });
        Self { port, told }
    }

    fn told(&self) -> Vec<Told> {
        self.told.lock().expect("nobody panics").clone()
    }
}

fn read_header(stream: &mut impl Read) -> Option<Told> {
    let mut begin = [0; 12];
    stream.read_exact(&mut begin).ok()?;
    if begin == V2 {
        let mut head = [0; 4];
        stream.read_exact(&mut head).ok()?;
        let mut rest = vec![0; usize::from(u16::from_be_bytes([head[2], head[3]]))];
        stream.read_exact(&mut rest).ok()?;
        return Some(match head[0] {
            0x20 => "nobody".to_owned(),
            _ => {
                assert_eq!((head[0], head[1], rest.len()), (0x21, 0x11, 12), "TCP over IPv4");
                let port = u16::from_be_bytes([rest[8], rest[9]]);
                format!("{}.{}.{}.{}:{port}", rest[0], rest[1], rest[2], rest[3])
            }
        });
    }
    let mut line = begin.to_vec();
    while !line.ends_with(b"\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        line.push(byte[0]);
    }
    let line = String::from_utf8(line).expect("text");
    let words: Vec<_> = line.split_whitespace().collect();
    Some(match words.as_slice() {
        ["PROXY", "UNKNOWN"] => "nobody".to_owned(),
        ["PROXY", "TCP4", from, _, port, _] => format!("{from}:{port}"),
        other => panic!("{other:?}"),
    })
}

fn answer(stream: &mut TcpStream, text: &str) {
    let (mut bytes, mut got) = ([0; 4096], Vec::new());
    while let Ok(1..) = stream.read(&mut bytes).inspect(|read| got.extend_from_slice(&bytes[..*read])) {
        while let Some(end) = got.windows(4).position(|window| window == b"\r\n\r\n") {
            got.drain(..end + 4);
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
}

fn pass(near: &TcpStream, far: &TcpStream) {
    let copy = |from: &TcpStream, to: &TcpStream| {
        let (mut from, mut to) = (from.try_clone().expect("a socket"), to.try_clone().expect("a socket"));
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        })
    };
    let (up, down) = (copy(near, far), copy(far, near));
    let _ = (up.join(), down.join());
}

struct Site {
    port: u16,
    weir: Service,
    _folder: Folder,
}

impl Site {
    fn start(backend: u16, set: &[&str], pool: &[&str], secrets: &str) -> Self {
        let (port, folder) = (ports::free(), Folder::new());
        let mut text = PoolText::new("telling", port, &[(backend, 1)]);
        text.set = set.iter().map(|field| (*field).to_owned()).collect();
        text.spec = pool.iter().map(|field| (*field).to_owned()).collect();
        let listener = "protocol: HTTP\n      clientAddress: { trustedCIDRs: [127.0.0.0/8] }\n";
        folder.write("pool.yaml", &text.yaml().replace("protocol: HTTP\n", listener));
        folder.write("secrets.yaml", secrets);
        let weir = Service::standalone(folder.path(), &[]);
        Self { port, weir, _folder: folder }
    }

    fn connect(&self) -> Connection {
        Connection::open(self.port).expect("it listens")
    }
}

fn ask(connection: &mut Connection, fields: &str) -> String {
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let answer = connection.request(&request).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text()
}

#[test]
fn a_connection_names_its_client_and_serves_no_other() {
    for version in ["V1", "V2"] {
        let backend = Backend::start(None);
        let site = Site::start(backend.port, &[&format!("proxyProtocol: {version}")], &[], "");
        let (mut first, mut second) = (site.connect(), site.connect());
        let told: Vec<_> = (0..3).map(|_| (ask(&mut first, ""), ask(&mut second, ""))).collect();
        assert!(told.iter().all(|pair| *pair == told[0]), "each keeps its connection: {told:?}");
        let (of_first, of_second) = &told[0];
        assert!(of_first.starts_with("127.0.0.1:") && of_second.starts_with("127.0.0.1:"), "{told:?}");
        assert_ne!(of_first, of_second);
        let ports: BTreeSet<_> = backend.told().into_iter().collect();
        let ours: BTreeSet<_> =
            [first, second].map(|own| own.into_stream().local_addr().expect("open").to_string()).into();
        assert_eq!(ports, ours, "{version}: the very addresses and ports");
        assert!(site.weir.metric("weir_upstream_reuses_total") >= 4);
    }
}

#[test]
fn whom_a_trusted_proxy_names_is_told_and_has_connections_of_its_own() {
    let backend = Backend::start(None);
    let site = Site::start(backend.port, &["proxyProtocol: V2"], &[], "");
    let mut connection = site.connect();
    let mut of = |client: &str| ask(&mut connection, &format!("X-Forwarded-For: {client}\r\n"));
    let (one, two) = (of("198.51.100.1"), of("198.51.100.2"));
    assert_eq!((one.as_str(), two.as_str()), ("198.51.100.1:0 0", "198.51.100.2:0 1"));
    assert_eq!((of("198.51.100.1"), of("198.51.100.2")), (one.clone(), two));
    // Also by another connection of that proxy.
    let mut other = site.connect();
    assert_eq!(ask(&mut other, "X-Forwarded-For: 198.51.100.1\r\n"), one);
}

#[test]
fn the_header_comes_before_tls_and_checks_have_one_that_names_nobody() {
    let (ca, folder) = (Authority::new(), Folder::new());
    let files = ca.issue("web", &["web.internal"]).write(folder.path(), "web");
    let tls = ports::free();
    let mut server = Command::new("openssl");
    server.args(["s_server", "-www", "-quiet", "-accept", &format!("127.0.0.1:{tls}")]);
    server.arg("-cert").arg(&files.certificate).arg("-key").arg(&files.key);
    let _server = weir_tests::harness::process::Process::start(&mut server);
    wait::until("openssl listens", || TcpStream::connect(local(tls)).ok());
    for version in ["V1", "V2"] {
        let backend = Backend::start(Some(tls));
        let secured = "tls: { hostname: web.internal, caCertificateRefs: [{ name: ca }] }";
        let telling = format!("proxyProtocol: {version}");
        let check = "healthCheck: { active: { http: {}, interval: 100ms, initial: Down } }";
        let secrets = crate::tls::authority("ca", &ca.certificate());
        let site = Site::start(backend.port, &[&telling, secured], &[check], &secrets);
        let answer = wait::until("the check should pass", || {
            let answer = site.connect().get("/").ok()?;
            (answer.status == 200).then_some(answer)
        });
        assert!(answer.text().contains("TLSv1.3"), "{version}: {}", answer.text());
        let told = backend.told();
        assert!(told[0] == "nobody" && told.iter().any(|told| told.starts_with("127.0.0.1:")), "{told:?}");
    }
}

#[test]
fn connections_of_clients_that_left_are_closed_after_their_idle_time() {
    let backend = Backend::start(None);
    let pool = ["connectionPool: { idleTimeout: 1s }"];
    let site = Site::start(backend.port, &["proxyProtocol: V1"], &pool, "");
    for nth in 0..20 {
        ask(&mut site.connect(), &format!("X-Forwarded-For: 198.51.100.{nth}\r\n"));
    }
    assert_eq!(site.weir.metric("weir_upstream_connects_total"), 20);
    wait::until("all should be closed", || {
        (site.weir.metric("weir_upstream_connections") == 0).then_some(())
    });
}

#[test]
fn a_bound_on_connections_holds_over_all_clients_and_idle_ones_make_room() {
    let backend = Backend::start(None);
    let pool = ["connectionPool: { maxPerBackend: 2 }"];
    let site = Site::start(backend.port, &["proxyProtocol: V1"], &pool, "");
    for nth in 0..6 {
        let told = ask(&mut site.connect(), &format!("X-Forwarded-For: 198.51.100.{nth}\r\n"));
        assert!(told.starts_with(&format!("198.51.100.{nth}:0")), "{told}");
        assert!(site.weir.metric("weir_upstream_connections") <= 2);
    }
}

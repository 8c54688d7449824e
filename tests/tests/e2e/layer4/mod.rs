//! Layer 4: real processes on both sides of the proxy, and bytes that it does not read.

mod connections;
mod dns;
mod documents;
mod endings;
mod explained;
mod policies;
mod redis;
mod tls;
mod udp;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;
use weir_tests::harness::client::local;
use weir_tests::harness::folder::Folder;
use weir_tests::harness::network::{Inside, Network};
use weir_tests::harness::services::Service;
use weir_tests::harness::{binaries, ports};

/// Longest wait for bytes.
const PATIENCE: Duration = Duration::from_secs(15);

/// A proxy with one listener and one rule, which sends to the sets `one`, `two` and so on, or to `one` alone.
struct Site {
    port: u16,
    weir: Service,
    folder: Folder,
}

/// What a manifest says beside its ports; each in flow style.
#[derive(Clone, Default)]
struct Text<'a> {
    /// More of the listener, with a comma in front.
    listener: &'a str,
    /// More of the rule, with a comma in front.
    rule: &'a str,
    /// More of each set, with a comma in front.
    set: &'a str,
    /// More fields of the specification, each with a comma behind.
    spec: &'a str,
    /// Other documents.
    more: &'a str,
}

const SETS: [&str; 3] = ["one", "two", "three"];

/// `sets` are the backends of each, with its weight.
fn manifest(port: u16, sets: &[(u32, &[u16])], text: &Text<'_>) -> String {
    let named = || SETS.iter().zip(sets);
    let weights: Vec<_> =
        named().map(|(name, (weight, _))| format!("{{ name: {name}, weight: {weight} }}")).collect();
    let sets = named().map(|(name, (_, ports))| {
        let backends: Vec<_> =
            ports.iter().map(|port| format!("{{ address: 127.0.0.1, port: {port} }}")).collect();
        format!("{{ name: {name}, static: {{ backends: [{}] }}{} }}", backends.join(", "), text.set)
    });
    format!(
        "apiVersion: weir.dev/v1alpha1\nkind: LoadBalancerPool\nmetadata: {{ name: raw, namespace: default }}\nspec: {{ {} \
         listeners: [{{ name: raw, port: {port}, protocol: TCP{} }}],\n rules: [{{ backendSets: [{}]{} }}],\n \
         backendSets: [{}] }}\n{}",
        text.spec,
        text.listener,
        weights.join(", "),
        text.rule,
        sets.collect::<Vec<_>>().join(", "),
        text.more
    )
}

impl Site {
    fn start(backends: &[u16], text: &Text<'_>) -> Self {
        Self::start_with(&[(1, backends)], text, &[])
    }

    fn start_with(sets: &[(u32, &[u16])], text: &Text<'_>, flags: &[&str]) -> Self {
        let (port, folder) = (ports::free(), Folder::new());
        folder.write("pool.yaml", &manifest(port, sets, text));
        let weir = Service::standalone(folder.path(), flags);
        Self { port, weir, folder }
    }

    /// A new connection. It says nothing yet of a backend.
    fn connect(&self) -> TcpStream {
        connect(self.port)
    }

    fn failures(&self, reason: &str) -> u64 {
        self.weir.metric_of("weir_layer4_failures_total", &format!("reason=\"{reason}\""))
    }

    fn ended(&self, by: &str) -> u64 {
        self.weir.metric_of("weir_layer4_connections_ended_total", &format!("by=\"{by}\""))
    }
}

/// The calling thread is on a network of its own, until the first of the two is dropped.
fn apart() -> (Inside, Network) {
    // This may build, and the network to come has no way to a registry.
    let _ = binaries::path("weir");
    let network = Network::new(&[]);
    (network.enter(), network)
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(local(port)).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time");
    stream.set_write_timeout(Some(PATIENCE)).expect("a time");
    stream
}

/// A server that does this with each connection, in a thread of its own, for as long as the test runs.
fn server(work: impl Fn(TcpStream) + Clone + Send + 'static) -> u16 {
    let listener = TcpListener::bind(local(0)).expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let work = work.clone();
            std::thread::spawn(move || work(stream));
        }
    });
    port
}

/// A server that says its name, and then says everything again that it hears.
fn named(name: &'static str) -> u16 {
    server(move |mut stream| {
        let _ = stream.write_all(name.as_bytes());
        echo(stream);
    })
}

fn echo(mut stream: TcpStream) {
    let mut bytes = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut bytes) {
        if stream.write_all(&bytes[..read]).is_err() {
            return;
        }
    }
    let _ = stream.shutdown(Shutdown::Write);
}

/// The next `length` bytes as text.
fn read(mut stream: &TcpStream, length: usize) -> String {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).expect("as many bytes");
    String::from_utf8(bytes).expect("text")
}

/// Says something and hears it again.
fn is_echoed(mut stream: &TcpStream) -> bool {
    let mut bytes = [0; 5];
    stream.write_all(b"still").is_ok() && stream.read_exact(&mut bytes).is_ok() && bytes == *b"still"
}

/// Whether the other side resets the connection, once it does something.
fn is_reset(mut stream: &TcpStream) -> bool {
    let mut bytes = [0; 64];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

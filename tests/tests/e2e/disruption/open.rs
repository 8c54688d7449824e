//! Connections that are open for a whole test: WebSockets, and responses that end when the test says so.

use crate::http2_client::{self, SMALL_FRAMES_BUDGET_BYTES};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;
use tungstenite::{Message, WebSocket};
use weir_tests::harness::client::Connection;
use weir_tests::harness::gate::Gate;
use weir_tests::harness::gauge::Gauge;
use weir_tests::harness::scripted::Scripted;
use weir_tests::harness::wait::{self, GENEROUS};

/// Between two chunks of a response.
const BEAT: Duration = Duration::from_millis(200);
/// The last chunk of each.
const LAST: &str = "last";

/// A backend whose responses go on until they are told to end.
pub(super) struct Source {
    end: Gate,
    responses: Gauge,
}

impl Source {
    pub(super) fn start(address: SocketAddr) -> Self {
        let (end, responses) = (Gate::default(), Gauge::default());
        let (told, counted) = (end.clone(), responses.clone());
        let _ = Scripted::start_at(address, move |_, exchange| {
            while exchange.read_head().is_some() {
                let _one = counted.enter();
                exchange.write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
                exchange.write("5\r\nbeat\n\r\n");
                while !told.opens_within(BEAT) {
                    exchange.write("5\r\nbeat\n\r\n");
                }
                exchange.write(&format!("{:x}\r\n{LAST}\r\n0\r\n\r\n", LAST.len()));
            }
        });
        Self { end, responses }
    }

    /// Waits until so many responses are under way.
    pub(super) fn wait_for(&self, count: usize) {
        wait::until(&format!("{count} responses should have begun"), || {
            (self.responses.now() == count).then_some(())
        });
    }

    /// Responses that are under way, all that ever were.
    pub(super) fn responses(&self) -> (usize, usize) {
        (self.responses.now(), self.responses.total())
    }

    pub(super) fn end(&self) {
        self.end.open();
    }
}

/// Responses of a [`Source`] as their clients read them.
#[derive(Default)]
pub(super) struct Streams(Vec<JoinHandle<Vec<String>>>);

impl Streams {
    /// Over HTTP/1.1, each on a connection of its own.
    pub(super) fn http1(&mut self, server: SocketAddr, path: &'static str, count: usize) {
        self.0.extend((0..count).map(|_| {
            std::thread::spawn(move || {
                let mut connection = Connection::open_at(server).expect("serves");
                vec![connection.get(path).expect("a whole answer").text()]
            })
        }));
    }

    /// Over one connection of HTTP/2.
    pub(super) fn http2(&mut self, server: SocketAddr, path: &'static str, count: usize) {
        let uri = format!("http://localhost{path}");
        self.0.push(std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(http2(server, &uri, count))
        }));
    }

    /// Over TLS, with a client that is not ours.
    pub(super) fn curl(&mut self, url: &str, version: &'static str) {
        let mut command = Command::new("curl");
        command.args(["-sSkN", version, url]).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().expect("curl is installed, which other tests need too");
        self.0.push(std::thread::spawn(move || {
            let output = child.wait_with_output().expect("a child can be waited for");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            vec![String::from_utf8_lossy(&output.stdout).into_owned()]
        }));
    }

    /// Waits for the end of all of them, each of which has to be whole; returns how many there were.
    pub(super) fn assert_whole(self) -> usize {
        let bodies: Vec<_> = self.0.into_iter().flat_map(|client| client.join().expect("whole")).collect();
        for body in &bodies {
            assert!(body.starts_with("beat\n") && body.ends_with(LAST), "{body}");
        }
        bodies.len()
    }
}

async fn http2(server: SocketAddr, uri: &str, count: usize) -> Vec<String> {
    let socket = tokio::net::TcpStream::connect(server).await.expect("serves");
    let mut settings = h2::client::Builder::new();
    // As many small frames may lie unread as come while this thread waits for a processor.
    let connected =
        settings.data_frame_budget(SMALL_FRAMES_BUDGET_BYTES).handshake::<_, bytes::Bytes>(socket).await;
    let (mut client, connection) = connected.expect("HTTP/2");
    let connection = tokio::spawn(connection);
    let mut begun = Vec::new();
    for _ in 0..count {
        client = client.ready().await.expect("room for a stream");
        let request = http::Request::get(uri).body(()).expect("a request");
        begun.push(client.send_request(request, true).expect("open").0);
    }
    // All at once: who lets frames of one stream lie while it reads another is taken for an attacker.
    let bodies = futures_util::future::join_all(begun.into_iter().map(body)).await;
    connection.abort();
    bodies
}

async fn body(answer: h2::client::ResponseFuture) -> String {
    let body = http2_client::read(answer.await.expect("an answer").into_body()).await;
    String::from_utf8_lossy(&body).into_owned()
}

/// WebSockets on a sample backend, which says everything back.
pub(super) struct Sockets(Vec<WebSocket<TcpStream>>);

impl Sockets {
    pub(super) fn open(server: SocketAddr, path: &str, count: usize) -> Self {
        let open = |_| {
            let stream = TcpStream::connect(server).expect("serves");
            stream.set_read_timeout(Some(GENEROUS)).expect("a socket");
            tungstenite::client(format!("ws://localhost{path}"), stream).expect("an upgrade").0
        };
        Self((0..count).map(open).collect())
    }

    /// Each says this and hears it back.
    pub(super) fn assert_echo(&mut self, text: &str) {
        for (index, socket) in self.0.iter_mut().enumerate() {
            let said = Message::text(format!("{text} {index}"));
            socket.send(said.clone()).unwrap_or_else(|error| panic!("socket {index} at {text}: {error}"));
            let heard = socket.read().unwrap_or_else(|error| panic!("socket {index} at {text}: {error}"));
            assert_eq!(heard, said);
        }
    }
}

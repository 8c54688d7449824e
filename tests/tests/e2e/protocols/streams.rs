//! A backend of HTTP/2 for these tests, and streams as byte pipes.

use bytes::Bytes;
use h2::ext::Protocol;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response, StatusCode};
use std::future::poll_fn;
use std::sync::mpsc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use weir_tests::harness::gauge::Gauge;

/// After so long without a byte a stream is taken to stand still.
pub(super) const STILL: Duration = Duration::from_millis(700);

/// Whether it says that it takes WebSockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Announces {
    WebSocket,
    Nothing,
}

/// Answers each path in its own way:
/// - `/ws` with 200 to a CONNECT, and then with what comes, until its end;
/// - `/ws-cut` the same, and a reset for the first bytes;
/// - `/no` with 403 and a body;
/// - `/flood` with a body without end, or with it on a WebSocket; says [`Event::Still`] once nothing more is taken;
/// - `/hints` with 103, 103 and 200;
/// - `/continue` with 100, the body, and its length;
/// - `/final` with 401 and no look at the body;
/// - `/cut` with a message and a reset;
/// - `/wait` never;
/// - `/status` with trailers alone that say UNAVAILABLE;
/// - every other with `done` and trailers, once the body has ended; trailers that came come back.
pub(super) struct Backend {
    pub(super) port: u16,
    pub(super) events: mpsc::Receiver<Event>,
    pub(super) streams: Gauge,
}

/// What a backend has seen.
#[derive(Debug)]
pub(super) enum Event {
    Asked {
        method: String,
        protocol: Option<String>,
        target: String,
        headers: HeaderMap,
    },
    /// A flood of which nothing more is taken.
    Still,
    /// A stream that was reset by the other side.
    Reset(Reason),
}

impl Backend {
    pub(super) fn start(announces: Announces) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        listener.set_nonblocking(true).expect("a socket");
        let (say, events) = mpsc::channel();
        let streams = Gauge::default();
        let counted = streams.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let listener = TcpListener::from_std(listener).expect("a socket");
                while let Ok((socket, _)) = listener.accept().await {
                    tokio::spawn(serve(socket, announces, say.clone(), counted.clone()));
                }
            });
        });
        Self { port, events, streams }
    }

    /// The next request's head.
    pub(super) fn asked(&self) -> (String, Option<String>, String, HeaderMap) {
        loop {
            match self.events.recv_timeout(weir_tests::harness::wait::GENEROUS).expect("an event") {
                Event::Asked { method, protocol, target, headers } => {
                    return (method, protocol, target, headers);
                }
                Event::Still | Event::Reset(_) => {}
            }
        }
    }
}

async fn serve(socket: TcpStream, announces: Announces, say: mpsc::Sender<Event>, streams: Gauge) {
    let _ = socket.set_nodelay(true);
    let mut settings = h2::server::Builder::new();
    if announces == Announces::WebSocket {
        settings.enable_connect_protocol();
    }
    let Ok(mut connection) = settings.handshake(socket).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let (say, streams) = (say.clone(), streams.clone());
        tokio::spawn(async move {
            let _stream = streams.enter();
            let _ = answer(request, respond, &say).await;
        });
    }
}

fn response(status: u16) -> Response<()> {
    Response::builder().status(status).body(()).expect("a response")
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    say: &mpsc::Sender<Event>,
) -> Result<(), h2::Error> {
    let (head, mut body) = request.into_parts();
    let _ = say.send(Event::Asked {
        method: head.method.to_string(),
        protocol: head.extensions.get::<Protocol>().map(|protocol| protocol.as_str().to_owned()),
        target: head.uri.path_and_query().map_or_else(String::new, ToString::to_string),
        headers: head.headers,
    });
    match head.uri.path() {
        "/ws" | "/ws-cut" => websocket(head.uri.path(), body, respond, say).await?,
        "/no" => {
            let mut stream = respond.send_response(response(403), false)?;
            stream.send_data(Bytes::from_static(b"not you"), true)?;
        }
        "/flood" => {
            let mut stream = respond.send_response(response(200), false)?;
            flood(&mut stream).await;
            let _ = say.send(Event::Still);
            std::future::pending::<()>().await;
        }
        "/hints" => {
            for link in ["</a.css>", "</b.css>"] {
                let mut hint = response(103);
                hint.headers_mut().insert("link", link.parse().expect("a value"));
                respond.send_informational(hint)?;
            }
            respond.send_response(response(200), true)?;
        }
        "/continue" => {
            respond.send_informational(response(100))?;
            let length = read(&mut body).await.len();
            let mut stream = respond.send_response(response(200), false)?;
            stream.send_data(Bytes::from(length.to_string()), true)?;
        }
        "/final" => drop(respond.send_response(response(401), true)?),
        "/cut" => {
            let mut stream = respond.send_response(response(200), false)?;
            stream.send_data(Bytes::from_static(b"part"), false)?;
            read(&mut body).await;
            stream.send_reset(Reason::INTERNAL_ERROR);
        }
        "/wait" => std::future::pending().await,
        "/status" => {
            let mut response = response(200);
            response.headers_mut().insert("content-type", "application/grpc".parse().expect("a value"));
            response.headers_mut().insert("grpc-status", 14.into());
            respond.send_response(response, true)?;
        }
        _ => {
            read(&mut body).await;
            let mut trailers = body.trailers().await?.unwrap_or_default();
            trailers.insert("x-sum", 4.into());
            let mut stream = respond.send_response(response(200), false)?;
            stream.send_data(Bytes::from_static(b"done"), false)?;
            stream.send_trailers(trailers)?;
        }
    }
    Ok(())
}

async fn websocket(
    path: &str,
    mut body: RecvStream,
    mut respond: SendResponse<Bytes>,
    say: &mpsc::Sender<Event>,
) -> Result<(), h2::Error> {
    let mut stream = respond.send_response(response(200), false)?;
    if path == "/ws-cut" {
        let _ = body.data().await;
        stream.send_reset(Reason::INTERNAL_ERROR);
    } else if let Err(error) = echo(&mut body, &mut stream).await {
        let _ = say.send(Event::Reset(error.reason().unwrap_or(Reason::NO_ERROR)));
    }
    Ok(())
}

async fn echo(from: &mut RecvStream, to: &mut SendStream<Bytes>) -> Result<(), h2::Error> {
    while let Some(data) = from.data().await {
        let data = data?;
        let _ = from.flow_control().release_capacity(data.len());
        to.send_data(data, false)?;
    }
    to.send_data(Bytes::new(), true)
}

/// Sends for as long as somebody takes it.
pub(super) async fn flood(stream: &mut SendStream<Bytes>) {
    loop {
        stream.reserve_capacity(16 << 10);
        let room = tokio::time::timeout(STILL, poll_fn(|cx| stream.poll_capacity(cx))).await;
        let Ok(Some(Ok(room))) = room else { return };
        if stream.send_data(vec![b'f'; room].into(), false).is_err() {
            return;
        }
    }
}

/// Whether a body ends here, and ends well.
pub(super) async fn ends(body: &mut RecvStream) -> bool {
    loop {
        match body.data().await {
            None => return true,
            Some(Ok(data)) if data.is_empty() => {}
            Some(_) => return false,
        }
    }
}

/// All of a body.
pub(super) async fn read(body: &mut RecvStream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        all.extend_from_slice(&data);
    }
    all
}

/// Both ends of a stream that a client opened, as a pipe of bytes.
pub(super) struct Pipe {
    pub(super) up: SendStream<Bytes>,
    pub(super) down: RecvStream,
    ahead: Vec<u8>,
}

impl Pipe {
    /// Asks for a WebSocket over HTTP/2, and has to get it.
    pub(super) async fn open(client: &mut h2::client::SendRequest<Bytes>, path: &str) -> (HeaderMap, Self) {
        let (status, headers, pipe) = Self::ask(client, path, "websocket", &[]).await;
        assert_eq!(status, 200, "{headers:?}");
        (headers, pipe)
    }

    /// Asks for a protocol over HTTP/2.
    pub(super) async fn ask(
        client: &mut h2::client::SendRequest<Bytes>,
        path: &str,
        protocol: &str,
        fields: &[(&'static str, &str)],
    ) -> (StatusCode, HeaderMap, Self) {
        while !client.is_extended_connect_protocol_enabled() {
            tokio::task::yield_now().await;
        }
        let mut request = Request::connect(format!("http://a{path}")).body(()).expect("a request");
        request.extensions_mut().insert(Protocol::from(protocol));
        request.headers_mut().insert("sec-websocket-version", 13.into());
        for (name, value) in fields {
            request.headers_mut().insert(*name, value.parse().expect("a value"));
        }
        let (answer, up) = client.send_request(request, false).expect("open");
        let (head, down) = answer.await.expect("an answer").into_parts();
        (head.status, head.headers, Self { up, down, ahead: Vec::new() })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) {
        self.up.send_data(Bytes::copy_from_slice(bytes), false).expect("open");
    }

    pub(super) async fn read(&mut self, length: usize) -> Vec<u8> {
        while self.ahead.len() < length {
            let data = self.down.data().await.expect("no end").expect("no reset");
            let _ = self.down.flow_control().release_capacity(data.len());
            self.ahead.extend_from_slice(&data);
        }
        self.ahead.drain(..length).collect()
    }
}

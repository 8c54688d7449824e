//! Servers to probe: real ones, and listeners that send what they are told.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;

pub(super) async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("a free port")
}

/// What a raw server does after its answer.
#[derive(Clone, Copy)]
pub(super) enum Then {
    Close,
    Hold,
    /// Sends this without end.
    Repeat(&'static [u8]),
}

/// Each answer as frames of HTTP/2: those of type 4 are SETTINGS, 0 DATA, 1 HEADERS, 3 RST_STREAM, 7 GOAWAY; with the
/// stream, and HEADERS end there.
pub(super) fn frames(frames: &[(u8, u8, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, stream, payload) in frames {
        let flags = if *kind == 1 { 4 } else { 0 };
        let length = u8::try_from(payload.len()).expect("a short frame");
        bytes.extend_from_slice(&[0, 0, length, *kind, flags, 0, 0, 0, *stream]);
        bytes.extend_from_slice(payload);
    }
    bytes
}

/// SETTINGS that change nothing.
pub(super) const SETTINGS: (u8, u8, &[u8]) = (4, 0, b"");
/// HEADERS with `:status` 103 in a literal.
pub(super) const EARLY_HINTS: (u8, u8, &[u8]) = (1, 1, b"\x08\x03103");
/// HEADERS with `:status` 200 by its index.
pub(super) const OK: (u8, u8, &[u8]) = (1, 1, b"\x88");

/// Answers each connection with these bytes once anything has come in.
pub(super) async fn raw(answer: impl Into<Vec<u8>>, then: Then) -> SocketAddr {
    let (listener, answer) = (listener().await, answer.into());
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut request = [0; 16 << 10];
                let _ = socket.read(&mut request).await;
                let _ = socket.write_all(&answer).await;
                match then {
                    Then::Close => {}
                    Then::Hold => while socket.read(&mut request).await.is_ok_and(|read| read > 0) {},
                    Then::Repeat(bytes) => while socket.write_all(bytes).await.is_ok() {},
                }
            });
        }
    });
    address
}

/// Says in the body what it was asked, a line for each field, and repeats those whose names begin with x.
pub(super) async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let status = request.uri().path().trim_start_matches('/').parse().unwrap_or(200);
    let mut text = format!("{} {} {:?}\n", request.method(), request.uri(), request.version());
    for (name, value) in request.headers() {
        writeln!(text, "{name}: {}", value.to_str().unwrap_or("?")).expect("written to a string");
    }
    let mut response = Response::builder().status(status).header("location", "/elsewhere");
    for (name, value) in request.headers().iter().filter(|(name, _)| name.as_str().starts_with("x-")) {
        response = response.header(name, value);
    }
    Ok(response.body(Full::from(text)).expect("a response"))
}

pub(super) async fn serve_http1(io: impl AsyncRead + AsyncWrite + Unpin) {
    let builder = hyper::server::conn::http1::Builder::new();
    let _ = builder.serve_connection(TokioIo::new(io), service_fn(echo)).await;
}

pub(super) async fn serve_http2(io: impl AsyncRead + AsyncWrite + Unpin) {
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    let _ = builder.max_header_list_size(1 << 20).serve_connection(TokioIo::new(io), service_fn(echo)).await;
}

pub(super) async fn http1_server() -> SocketAddr {
    let listener = listener().await;
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve_http1(socket));
        }
    });
    address
}

pub(super) async fn http2_server() -> SocketAddr {
    let listener = listener().await;
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve_http2(socket));
        }
    });
    address
}

/// With a certificate that nobody has signed but itself.
pub(super) fn tls_acceptor() -> TlsAcceptor {
    let made = rcgen::generate_simple_self_signed(["other.example.com".to_owned()]).expect("a certificate");
    let key = rustls_pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().expect("versions").with_no_client_auth();
    let mut config = config.with_single_cert(vec![made.cert.der().clone()], key).expect("a pair");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// Answers a request with the name and the protocol of the handshake, or serves HTTP/2 where that was agreed on.
pub(super) async fn tls_server() -> SocketAddr {
    let (acceptor, listener) = (tls_acceptor(), listener().await);
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(socket).await else { return };
                let session = stream.get_ref().1;
                let name = session.server_name().unwrap_or("none").to_owned();
                let protocol =
                    String::from_utf8_lossy(session.alpn_protocol().unwrap_or(b"none")).into_owned();
                if protocol == "h2" {
                    return serve_http2(stream).await;
                }
                let _ = stream.read(&mut [0; 1024]).await;
                let answer = format!("HTTP/1.1 200 OK\r\n\r\nname={name} protocol={protocol}\n");
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    address
}

/// The gRPC health service: the whole server serves, `shop` does not.
pub(super) async fn grpc_server() -> SocketAddr {
    let listener = listener().await;
    let address = listener.local_addr().expect("bound");
    let (reporter, service) = tonic_health::server::health_reporter();
    reporter.set_service_status("shop", ServingStatus::NotServing).await;
    reporter.set_service_status("blog", ServingStatus::Serving).await;
    reporter.set_service_status("new", ServingStatus::Unknown).await;
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    address
}

/// A server of gRPC without the health service.
pub(super) async fn grpc_server_without_health() -> SocketAddr {
    let listener = listener().await;
    let address = listener.local_addr().expect("bound");
    let server = tonic::transport::Server::builder().add_routes(tonic::service::Routes::default());
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    address
}

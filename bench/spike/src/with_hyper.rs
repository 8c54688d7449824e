//! hyper on both sides: server connections from clients, client connections kept idle in a list of the one thread.

use std::{cell::RefCell, path::Path, rc::Rc, sync::Arc};

use anyhow::Context as _;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self as client, SendRequest};
use hyper::header::{CONNECTION, HOST, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, Version, server::conn::http1 as server};
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::{net::TcpListener, net::TcpStream, task::spawn_local};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

use crate::dial;

/// Idle connections to the origins, and whose turn it is when a new one is opened.
#[derive(Default)]
struct Upstream {
    idle: RefCell<Vec<SendRequest<Incoming>>>,
    turn: RefCell<u16>,
}

/// Accepts plain HTTP/1.1 for ever; an error is a listener that cannot be opened or accept any more.
pub async fn serve(port: u16) -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let upstream = Rc::new(Upstream::default());
    loop {
        let (stream, forwarded_for) = accept(&listener).await?;
        let upstream = upstream.clone();
        spawn_local(async move {
            let service =
                service_fn(move |request| forward(request, upstream.clone(), forwarded_for.clone(), "http"));
            // A client that goes away is its own business.
            let _ = server::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// The same over TLS, with HTTP/2 or HTTP/1.1 by ALPN.
pub async fn serve_tls(port: u16, tls: TlsAcceptor) -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let upstream = Rc::new(Upstream::default());
    loop {
        let (stream, forwarded_for) = accept(&listener).await?;
        let (upstream, tls) = (upstream.clone(), tls.clone());
        spawn_local(async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            let service =
                service_fn(move |request| forward(request, upstream.clone(), forwarded_for.clone(), "https"));
            let mut builder = auto::Builder::new(Local);
            builder.http2().max_concurrent_streams(256);
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// Reads `cert.pem` and `key.pem` of a folder.
pub fn acceptor(folder: &str) -> anyhow::Result<TlsAcceptor> {
    let folder = Path::new(folder);
    let chain = CertificateDer::pem_file_iter(folder.join("cert.pem"))
        .and_then(Iterator::collect)
        .with_context(|| format!("{}: no certificate in cert.pem", folder.display()))?;
    let key = PrivateKeyDer::from_pem_file(folder.join("key.pem"))
        .with_context(|| format!("{}: no key in key.pem", folder.display()))?;
    let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn accept(listener: &TcpListener) -> anyhow::Result<(TcpStream, HeaderValue)> {
    let (stream, client) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, HeaderValue::try_from(client.ip().to_string())?))
}

async fn forward(
    mut request: Request<Incoming>,
    upstream: Rc<Upstream>,
    forwarded_for: HeaderValue,
    scheme: &'static str,
) -> anyhow::Result<Response<Incoming>> {
    if request.version() == Version::HTTP_2 {
        let authority = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        request.headers_mut().insert(HOST, HeaderValue::try_from(authority)?);
        *request.uri_mut() =
            request.uri().path_and_query().context("an HTTP/2 request without a path")?.as_str().parse()?;
        *request.version_mut() = Version::HTTP_11;
    }
    // The client's wish to close is about its own connection (RFC 9110 section 7.6.1), not about ours to the origin.
    request.headers_mut().remove(CONNECTION);
    request.headers_mut().insert("x-forwarded-for", forwarded_for);
    request.headers_mut().insert("x-forwarded-proto", HeaderValue::from_static(scheme));
    let mut sender = connection(&upstream).await?;
    let response = sender.send_request(request).await?;
    // Given back when the whole answer has been read, which is what `ready` waits for.
    spawn_local(async move {
        if sender.ready().await.is_ok() {
            upstream.idle.borrow_mut().push(sender);
        }
    });
    Ok(response)
}

/// An idle connection that is still ready, or a new one to the next origin.
async fn connection(upstream: &Upstream) -> anyhow::Result<SendRequest<Incoming>> {
    loop {
        let idle = upstream.idle.borrow_mut().pop();
        match idle {
            Some(sender) if sender.is_ready() => return Ok(sender),
            Some(_) => {}
            None => break,
        }
    }
    let turn = upstream.turn.borrow().wrapping_add(1);
    *upstream.turn.borrow_mut() = turn;
    let (sender, connection) = client::handshake(TokioIo::new(dial(turn).await?)).await?;
    spawn_local(async move {
        let _ = connection.await;
    });
    Ok(sender)
}

/// Runs hyper's own tasks (one for each HTTP/2 stream) on the thread that asks.
#[derive(Clone)]
struct Local;

impl<F: Future + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        spawn_local(async move {
            future.await;
        });
    }
}

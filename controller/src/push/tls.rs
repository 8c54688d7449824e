//! TLS of the port that proxies dial: its files and their rotation, handshakes and their limits.
//!
//! TLS 1.3 only, since both ends are ours. No session is resumed: a proxy dials once an hour, and a resumed session
//! would bring back a client certificate that nobody has looked at since.

mod connection;

pub(super) use connection::Peer;

use aws_lc_rs::digest::{self, SHA256};
use connection::TlsConnection;
use rustls::crypto::aws_lc_rs as provider;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use weir_proto::limits::CHAIN_CERTIFICATES_MAX;

/// TLS handshakes under way at once. Further connections wait in the system's backlog.
pub const HANDSHAKES_MAX: usize = 128;

/// Longest time for one handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest time that a refused client is listened to, so that it hears why.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// Bytes of a refused client that are read for that.
const LINGER_BYTES_MAX: u64 = 64 << 10;

/// Between two looks at the files. Contents are compared, since mounted Secrets change by a symbolic link further up.
pub const RELOAD_INTERVAL: Duration = Duration::from_secs(1);

/// Largest file of certificates or a key, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Wait after the system refused a connection, for want of file descriptors above all.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

const CERTIFICATE_FLAG: &str = "--tls-cert";
const KEY_FLAG: &str = "--tls-key";
const CLIENT_CA_FLAG: &str = "--client-ca";

/// The files of a controller's TLS, all PEM.
#[derive(Debug, Clone)]
pub(super) struct TlsFiles {
    /// Its chain, leaf first.
    pub(super) certificate: PathBuf,
    /// PKCS#8, PKCS#1 or SEC1.
    pub(super) key: PathBuf,
    /// What is asked of who dials.
    pub(super) clients: ClientCertificates,
}

/// What TLS asks of who dials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ClientCertificates {
    /// No certificate.
    NotAsked,
    /// A certificate of an authority in this file, or none.
    Asked(PathBuf),
    /// A certificate of an authority in this file.
    Required(PathBuf),
}

impl ClientCertificates {
    fn file(&self) -> Option<&Path> {
        match self {
            Self::NotAsked => None,
            Self::Asked(file) | Self::Required(file) => Some(file),
        }
    }
}

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// It cannot be read.
    #[error("cannot read {}, given by {flag}: {source}", .file.display())]
    Read {
        /// What named it.
        flag: &'static str,
        /// Which.
        file: PathBuf,
        /// As the system said it.
        source: io::Error,
    },
    /// It holds something else.
    #[error("{}, given by {flag}, {fault}", .file.display())]
    Content {
        /// What named it.
        flag: &'static str,
        /// Which.
        file: PathBuf,
        /// What is wrong with it. Holds nothing of its contents.
        fault: &'static str,
    },
}

/// The newest good certificate, key and client authorities.
#[derive(Debug)]
pub(super) struct ServerTls {
    files: TlsFiles,
    newest: Mutex<Newest>,
    /// Under way now, never more than [`HANDSHAKES_MAX`].
    handshakes: AtomicUsize,
}

#[derive(Debug)]
struct Newest {
    config: Arc<ServerConfig>,
    /// Of the contents last looked at, good or not.
    seen: [u8; 32],
    /// What is wrong with them, said once.
    said: Option<String>,
}

impl ServerTls {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// [`TlsError`]: without a good first pair there is nothing to serve with.
    pub(super) fn open(files: TlsFiles) -> Result<Arc<Self>, TlsError> {
        let contents = Contents::read(&files)?;
        let newest = Newest { config: contents.config(&files)?, seen: contents.digest(), said: None };
        Ok(Arc::new(Self { files, newest: Mutex::new(newest), handshakes: AtomicUsize::new(0) }))
    }

    fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.newest().config)
    }

    /// Looks at the files for ever.
    async fn follow(self: &Arc<Self>) {
        let mut looks = tokio::time::interval(RELOAD_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let this = Arc::clone(self);
            // A mounted volume can make a reader wait; streams do not wait with it.
            let _ = tokio::task::spawn_blocking(move || this.look()).await;
        }
    }

    /// Takes changed files over. A pair that is broken, or half written, leaves the last good one in use.
    fn look(&self) {
        let fault = match Contents::read(&self.files) {
            Ok(contents) => {
                let seen = contents.digest();
                if self.newest().seen == seen {
                    return;
                }
                let config = contents.config(&self.files);
                let mut newest = self.newest();
                newest.seen = seen;
                match config {
                    Ok(config) => {
                        (newest.config, newest.said) = (config, None);
                        tracing::info!(file = %self.files.certificate.display(), "a new TLS certificate is in use");
                        return;
                    }
                    Err(fault) => fault,
                }
            }
            Err(fault) => fault,
        };
        let fault = fault.to_string();
        let mut newest = self.newest();
        if newest.said.as_ref() != Some(&fault) {
            tracing::warn!(%fault, "the new TLS files are not used; new streams get the certificate before");
            newest.said = Some(fault);
        }
    }

    fn newest(&self) -> MutexGuard<'_, Newest> {
        // Nothing panics between two writes that belong together.
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the files held at one moment. Not `Debug`: it holds a private key.
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Contents {
    fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        Ok(Self {
            certificate: read(CERTIFICATE_FLAG, &files.certificate)?,
            key: read(KEY_FLAG, &files.key)?,
            client_ca: files.clients.file().map(|file| read(CLIENT_CA_FLAG, file)).transpose()?,
        })
    }

    fn digest(&self) -> [u8; 32] {
        let mut all = digest::Context::new(&SHA256);
        for part in [&self.certificate, &self.key].into_iter().chain(&self.client_ca) {
            all.update(digest::digest(&SHA256, part).as_ref());
        }
        let mut bytes = [0; 32];
        bytes.copy_from_slice(all.finish().as_ref());
        bytes
    }

    fn config(&self, files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
        let provider = Arc::new(provider::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider has cipher suites for TLS 1.3");
        let builder = match (files.clients.file(), &self.client_ca) {
            (Some(file), Some(pem)) => {
                let fault = |fault| wrong(CLIENT_CA_FLAG, file, fault);
                let verifier = WebPkiClientVerifier::builder_with_provider(authorities(file, pem)?, provider);
                let verifier = match files.clients {
                    ClientCertificates::Asked(_) => verifier.allow_unauthenticated(),
                    ClientCertificates::NotAsked | ClientCertificates::Required(_) => verifier,
                };
                let built = verifier.build().map_err(|_| fault("cannot be used to check certificates"))?;
                builder.with_client_cert_verifier(built)
            }
            _ => builder.with_no_client_auth(),
        };
        // Errors of the decoder quote what they read.
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| {
            wrong(KEY_FLAG, &files.key, "holds no readable PEM private key in PKCS#8, PKCS#1 or SEC1 form")
        })?;
        let chain = chain(&files.certificate, &self.certificate)?;
        let mut config = builder.with_single_cert(chain, key).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                wrong(KEY_FLAG, &files.key, "is not the key of the certificate given by --tls-cert")
            }
            rustls::Error::InvalidCertificate(_) => {
                wrong(CERTIFICATE_FLAG, &files.certificate, "begins with something that is not X.509 v3")
            }
            _ => wrong(KEY_FLAG, &files.key, "is of a kind that TLS cannot use: take RSA, ECDSA or Ed25519"),
        })?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }
}

fn authorities(file: &Path, pem: &[u8]) -> Result<Arc<RootCertStore>, TlsError> {
    let fault = |fault| wrong(CLIENT_CA_FLAG, file, fault);
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|_| fault("is not readable as PEM"))?;
        roots.add(certificate).map_err(|_| fault("holds a certificate that is not an authority's"))?;
    }
    if roots.is_empty() {
        return Err(fault("holds no PEM certificate"));
    }
    Ok(Arc::new(roots))
}

fn chain(file: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let fault = |fault| wrong(CERTIFICATE_FLAG, file, fault);
    let chain = CertificateDer::pem_slice_iter(pem).take(CHAIN_CERTIFICATES_MAX + 1);
    let chain: Vec<_> = chain.collect::<Result<_, _>>().map_err(|_| fault("is not readable as PEM"))?;
    match chain.len() {
        0 => Err(fault("holds no PEM certificate")),
        1..=CHAIN_CERTIFICATES_MAX => Ok(chain),
        _ => Err(fault("holds more certificates than a chain may have: leave out the root")),
    }
}

fn wrong(flag: &'static str, file: &Path, fault: &'static str) -> TlsError {
    TlsError::Content { flag, file: file.to_path_buf(), fault }
}

fn read(flag: &'static str, file: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::Read { flag, file: file.to_path_buf(), source };
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file).map_err(failed)?;
    opened.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(wrong(flag, file, "is larger than 1 MiB"));
    }
    Ok(bytes)
}

/// Connections whose handshake is done. Ends with what is returned.
pub(super) fn incoming(
    listener: TcpListener,
    tls: Arc<ServerTls>,
) -> ReceiverStream<io::Result<TlsConnection>> {
    let (ready, connections) = mpsc::channel(1);
    tokio::spawn(async move {
        tokio::select! {
            () = ready.closed() => {}
            () = accept(&listener, &tls, &ready) => {}
            () = tls.follow() => {}
        }
    });
    ReceiverStream::new(connections)
}

type Ready = mpsc::Sender<io::Result<TlsConnection>>;

async fn accept(listener: &TcpListener, tls: &Arc<ServerTls>, ready: &Ready) {
    let mut handshakes = JoinSet::new();
    loop {
        while handshakes.try_join_next().is_some() {}
        if handshakes.len() >= HANDSHAKES_MAX {
            handshakes.join_next().await;
        }
        match listener.accept().await {
            Ok((socket, address)) => {
                let under_way = UnderWay::begin(tls);
                let (config, ready) = (tls.config(), ready.clone());
                handshakes.spawn(async move {
                    if let Some(connection) = handshake(socket, address, config).await {
                        // Without a receiver the controller is ending.
                        let _ = ready.send(Ok(connection)).await;
                    }
                    drop(under_way);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a proxy's connection");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

async fn handshake(
    socket: TcpStream,
    address: SocketAddr,
    config: Arc<ServerConfig>,
) -> Option<TlsConnection> {
    // Small messages, of which the last one must not wait. A socket that cannot is about to fail.
    let _ = socket.set_nodelay(true);
    match timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(config).accept(socket).into_fallible()).await {
        Ok(Ok(stream)) => return Some(TlsConnection::new(stream, address)),
        // A health check of a load balancer connects and says nothing.
        Ok(Err((error, _))) if error.kind() == io::ErrorKind::UnexpectedEof => {
            tracing::debug!(%address, "a connection ended before its TLS handshake");
        }
        Ok(Err((error, socket))) => {
            tracing::info!(%address, reason = %error, "a TLS handshake failed");
            let _ = timeout(LINGER_TIMEOUT, linger(socket)).await;
        }
        Err(_) => tracing::info!(%address, "a TLS handshake took too long"),
    }
    None
}

/// Reads what the other side has sent meanwhile, until it closes. A socket that is closed with bytes unread is reset, and
/// a reset takes the alert with it that says why: with TLS 1.3 a client sends before it hears of a refusal.
async fn linger(mut socket: TcpStream) {
    // Best effort: whoever has gone already needs no reason.
    let _ = socket.shutdown().await;
    let mut rest = socket.take(LINGER_BYTES_MAX);
    let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
}

/// Counts one handshake until dropped.
struct UnderWay(Arc<ServerTls>);

impl UnderWay {
    fn begin(tls: &Arc<ServerTls>) -> Self {
        tls.handshakes.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(tls))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.handshakes.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;

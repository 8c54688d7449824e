//! TLS towards a controller: the files it stands on, the handshake, and sentences for what goes wrong.

use super::{DialError, TargetError};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::{AlertDescription, CertificateError, ClientConfig, Error as TlsError, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::metadata::{Ascii, MetadataValue};
use weir_proto::limits::CHAIN_CERTIFICATES_MAX;

/// Largest file of certificates, a key or a token, in bytes.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 20;

const HTTP2: &[u8] = b"h2";

const CA_FLAG: &str = "--controller-ca";
const TOKEN_FLAG: &str = "--token-file";
const CERTIFICATE_FLAG: &str = "--client-cert";
const KEY_FLAG: &str = "--client-key";

/// What who dials knows the controller by, and proves to it. Files, each read anew at each dial.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// PEM certificates of the authorities, one of which must have signed the controller's certificate.
    pub ca: Option<PathBuf>,
    /// The name that certificate must have, where it is not the URL's host.
    pub name: Option<String>,
    /// A token of a ServiceAccount, bound to this pod and for the controller's audience.
    pub token: Option<PathBuf>,
    /// Its own certificate.
    pub client: Option<ClientFiles>,
}

/// A certificate and its key.
#[derive(Debug, Clone)]
pub struct ClientFiles {
    /// PEM, leaf first.
    pub certificate: PathBuf,
    /// PEM, PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
}

impl Credentials {
    pub(super) fn refuse_in_plaintext(&self, url: &str) -> Result<(), TargetError> {
        if self.token.is_some() {
            return Err(TargetError::TokenInPlaintext(url.to_owned()));
        }
        let flags = [
            (CA_FLAG, self.ca.is_some()),
            ("--controller-name", self.name.is_some()),
            (CERTIFICATE_FLAG, self.client.is_some()),
        ];
        match flags.into_iter().find(|(_, is_there)| *is_there) {
            Some((flag, _)) => Err(TargetError::PointlessInPlaintext { flag, url: url.to_owned() }),
            None => Ok(()),
        }
    }
}

/// What TLS needs to know of a target.
#[derive(Debug, Clone)]
pub(super) struct TlsTarget {
    name: ServerName<'static>,
    ca: PathBuf,
    token: Option<PathBuf>,
    client: Option<ClientFiles>,
}

/// What the files held at one dial. Not `Debug`: it holds a token.
pub(super) struct Secrets {
    config: Arc<ClientConfig>,
    pub(super) token: Option<MetadataValue<Ascii>>,
}

impl TlsTarget {
    pub(super) fn new(url: &str, host: &str, credentials: Credentials) -> Result<Self, TargetError> {
        let Credentials { ca, name, token, client } = credentials;
        let ca = ca.ok_or_else(|| TargetError::CaMissing(url.to_owned()))?;
        let name = name.unwrap_or_else(|| host.to_owned());
        let name = ServerName::try_from(name.clone()).map_err(|_| TargetError::Name(name))?;
        Ok(Self { name, ca, token, client })
    }

    /// Reads every file. On a thread where reading may wait: a mounted volume can.
    pub(super) async fn read(&self) -> Result<Secrets, DialError> {
        let this = self.clone();
        let read = tokio::task::spawn_blocking(move || this.read_now()).await;
        // It does not panic, and is not aborted before the runtime is.
        read.unwrap_or_else(|error| {
            Err(DialError::Read { flag: CA_FLAG, file: self.ca.clone(), source: io::Error::other(error) })
        })
    }

    fn read_now(&self) -> Result<Secrets, DialError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider has cipher suites for TLS 1.3")
            .with_root_certificates(authorities(&self.ca)?);
        let mut config = match &self.client {
            None => config.with_no_client_auth(),
            Some(ClientFiles { certificate, key }) => {
                let chain = chain(certificate)?;
                let wrong = |fault| DialError::Content { flag: KEY_FLAG, file: key.clone(), fault };
                // The decoder's errors quote what they read.
                let secret = PrivateKeyDer::from_pem_slice(&read(KEY_FLAG, key)?)
                    .map_err(|_| wrong("holds no readable PEM private key"))?;
                config
                    .with_client_auth_cert(chain, secret)
                    .map_err(|_| wrong("is not the key of the certificate given by --client-cert"))?
            }
        };
        config.alpn_protocols = vec![HTTP2.to_vec()];
        // Each stream is authenticated anew.
        config.resumption = Resumption::disabled();
        let token = self.token.as_deref().map(bearer).transpose()?;
        Ok(Secrets { config: Arc::new(config), token })
    }

    pub(super) async fn handshake(
        &self,
        socket: TcpStream,
        address: SocketAddr,
        secrets: &Secrets,
        witness: &Witness,
    ) -> Result<Witnessed, DialError> {
        let refused = |sentence| DialError::Tls { address, sentence };
        let connector = TlsConnector::from(Arc::clone(&secrets.config));
        let stream = connector.connect(self.name.clone(), socket).await.map_err(|error| {
            refused(tls_error(&error).map_or_else(|| error.to_string(), |error| self.sentence(error)))
        })?;
        if stream.get_ref().1.alpn_protocol() != Some(HTTP2) {
            return Err(refused("it does not speak HTTP/2: it is no controller".into()));
        }
        let explained = Explained { witness: witness.clone(), target: self.clone() };
        Ok(Witnessed { stream, explained })
    }

    /// What a person has to do about it.
    fn sentence(&self, error: &TlsError) -> String {
        let (ca, name) = (self.ca.display(), self.name.to_str());
        let own = self.client.as_ref().map_or_else(String::new, |c| c.certificate.display().to_string());
        match error {
            TlsError::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            ) => {
                format!("no authority in {ca}, given by {CA_FLAG}, has signed the controller's certificate")
            }
            TlsError::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => format!(
                "the controller's certificate is not for `{name}`: set --controller-name to a name that it has"
            ),
            TlsError::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            ) => "the controller's certificate has expired: renew it there".into(),
            TlsError::InvalidCertificate(
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
            ) => "the controller's certificate is not valid yet: compare the clocks".into(),
            TlsError::InvalidMessage(_) => {
                "what answers does not speak TLS: is it a controller without --tls-cert?".into()
            }
            TlsError::AlertReceived(AlertDescription::CertificateRequired) => {
                format!(
                    "the controller asks for a client certificate: give {CERTIFICATE_FLAG} and {KEY_FLAG}"
                )
            }
            // An authority of the same name and another key fails by its signature.
            TlsError::AlertReceived(AlertDescription::UnknownCA | AlertDescription::DecryptError) => {
                format!("the controller does not know the authority that signed {own}: see its --client-ca")
            }
            TlsError::AlertReceived(AlertDescription::CertificateExpired) => {
                format!("the certificate in {own} has expired, the controller says: renew it")
            }
            TlsError::AlertReceived(
                alert @ (AlertDescription::BadCertificate
                | AlertDescription::CertificateUnknown
                | AlertDescription::UnsupportedCertificate),
            ) => format!("the controller refuses the certificate in {own} ({alert:?})"),
            TlsError::AlertReceived(AlertDescription::NoApplicationProtocol) => {
                "what answers does not speak HTTP/2: it is no controller".into()
            }
            TlsError::AlertReceived(AlertDescription::ProtocolVersion) | TlsError::PeerIncompatible(_) => {
                "what answers has no TLS 1.3: it is no controller".into()
            }
            other => other.to_string(),
        }
    }
}

fn authorities(file: &Path) -> Result<RootCertStore, DialError> {
    let wrong = |fault| DialError::Content { flag: CA_FLAG, file: file.to_path_buf(), fault };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&read(CA_FLAG, file)?) {
        let certificate = certificate.map_err(|_| wrong("is not readable as PEM"))?;
        roots.add(certificate).map_err(|_| wrong("holds a certificate that is not an authority's"))?;
    }
    if roots.is_empty() {
        return Err(wrong("holds no PEM certificate"));
    }
    Ok(roots)
}

fn chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, DialError> {
    let wrong = |fault| DialError::Content { flag: CERTIFICATE_FLAG, file: file.to_path_buf(), fault };
    let pem = read(CERTIFICATE_FLAG, file)?;
    let chain = CertificateDer::pem_slice_iter(&pem).take(CHAIN_CERTIFICATES_MAX + 1);
    let chain: Vec<_> = chain.collect::<Result<_, _>>().map_err(|_| wrong("is not readable as PEM"))?;
    match chain.len() {
        0 => Err(wrong("holds no PEM certificate")),
        1..=CHAIN_CERTIFICATES_MAX => Ok(chain),
        _ => Err(wrong("holds more certificates than a chain may have: leave out the root")),
    }
}

/// The token as a header. No error quotes it.
fn bearer(file: &Path) -> Result<MetadataValue<Ascii>, DialError> {
    let wrong = |fault| DialError::Content { flag: TOKEN_FLAG, file: file.to_path_buf(), fault };
    let bytes = read(TOKEN_FLAG, file)?;
    let token = bytes.trim_ascii();
    if token.is_empty() {
        return Err(wrong("is empty"));
    }
    if !token.iter().all(u8::is_ascii_graphic) {
        return Err(wrong("is not a token: one line of letters, digits and signs"));
    }
    let mut value = MetadataValue::try_from([b"Bearer ", token].concat())
        .map_err(|_| wrong("is not a token: one line of letters, digits and signs"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn read(flag: &'static str, file: &Path) -> Result<Vec<u8>, DialError> {
    let failed = |source| DialError::Read { flag, file: file.to_path_buf(), source };
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file).map_err(failed)?;
    opened.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(DialError::Content { flag, file: file.to_path_buf(), fault: "is larger than 1 MiB" });
    }
    Ok(bytes)
}

fn tls_error(error: &io::Error) -> Option<&TlsError> {
    error.get_ref()?.downcast_ref()
}

/// Remembers what TLS said first, since HTTP/2 above it passes on that something failed, and not what.
#[derive(Debug, Clone, Default)]
pub(super) struct Witness(Arc<OnceLock<String>>);

impl Witness {
    pub(super) fn sentence(&self) -> Option<String> {
        self.0.get().cloned()
    }
}

struct Explained {
    witness: Witness,
    target: TlsTarget,
}

impl Explained {
    fn note<T>(&self, polled: &Poll<io::Result<T>>) {
        if let Poll::Ready(Err(error)) = polled
            && let Some(error) = tls_error(error)
        {
            self.witness.0.get_or_init(|| self.target.sentence(error));
        }
    }
}

/// A connection whose errors are witnessed.
pub(super) struct Witnessed {
    stream: TlsStream<TcpStream>,
    explained: Explained,
}

impl AsyncRead for Witnessed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.explained.note(&polled);
        polled
    }
}

impl AsyncWrite for Witnessed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.explained.note(&polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.explained.note(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.explained.note(&polled);
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

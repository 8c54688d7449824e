//! TLS towards backends: whom a set trusts, what it shows of itself, and how a connection is secured.
//!
//! There is no way not to verify. The certificate has to be signed by an authority of the set, and to have one of its
//! names; which of the two failed is told in a word, for it is the first question of whoever sets this up.

use super::{CertificateError, Expiry, PROVIDER, ServerCertificate};
use crate::course::Step;
use crate::failure::Failure;
use aws_lc_rs::digest::{SHA256, digest};
use lb_core::backend::{TlsProfile, UpstreamProtocol};
use prost::Message as _;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::sign::SingleCertAndKey;
use rustls::{
    AlertDescription, CertificateError as Refused, ClientConfig, DigitallySignedStruct, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::io;
use std::sync::{Arc, LazyLock};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, TlsStream};
use weir_proto::limits::{ALTERNATIVE_NAMES_MAX, AUTHORITIES_MAX, AUTHORITY_CERTIFICATES_MAX};
use weir_proto::push;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// HTTP/1.1 as ALPN names it.
pub(crate) const HTTP1: &[u8] = b"http/1.1";
/// HTTP/2 as ALPN names it.
pub(crate) const HTTP2: &[u8] = b"h2";

/// What the machine trusts, read once: who changes it restarts the proxy. Empty where there is nothing to be read.
static SYSTEM: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        tracing::error!(
            errors = ?found.errors,
            "this machine has no certificates of authorities: no backend can be verified by them; install ca-certificates"
        );
    }
    Arc::new(roots)
});

/// Settings that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackendTlsError {
    /// `hostname`, or one of the names, is none.
    #[error("{0:?} is not a name in DNS")]
    Name(String),
    /// More authorities or names than there may be.
    #[error("{0} are too many: use at most {1}")]
    TooMany(&'static str, usize),
    /// What should be certificates of authorities.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// What should be a certificate with its key.
    #[error(transparent)]
    Client(#[from] CertificateError),
}

/// Certificates of an authority that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// It holds none, or what cannot be read.
    #[error("Secret {0}: ca.crt holds no readable PEM certificates of authorities")]
    Unreadable(String),
    /// More than [`AUTHORITY_CERTIFICATES_MAX`].
    #[error("there are more than {AUTHORITY_CERTIFICATES_MAX} certificates of authorities: use fewer")]
    TooMany,
}

/// How connections to the backends of a set are secured.
#[derive(Debug)]
pub(crate) struct BackendTls {
    /// Sent to the backend.
    name: ServerName<'static>,
    /// `None`: nobody is trusted, and no connection is made.
    configs: Option<Configs>,
    /// Of the certificate that is shown.
    pub(crate) expiry: Option<Expiry>,
}

#[derive(Debug)]
struct Configs {
    requests: Arc<ClientConfig>,
    /// Keeps no session, for the handshake is what a check looks at.
    checks: Arc<ClientConfig>,
}

/// What the settings of a set say, whatever makes them.
pub(crate) fn digest_of(wire: &push::BackendTls) -> u128 {
    let digest = digest(&SHA256, &wire.encode_to_vec());
    let first = digest.as_ref().first_chunk().expect("SHA-256 has 32 bytes");
    u128::from_be_bytes(*first)
}

/// Reads and checks settings.
///
/// # Errors
/// [`BackendTlsError`]; the controller checks the same.
pub(crate) fn profile(wire: &push::BackendTls) -> Result<TlsProfile, BackendTlsError> {
    Ok(TlsProfile::new(digest_of(wire), Arc::new(BackendTls::new(wire)?)))
}

impl BackendTls {
    fn new(wire: &push::BackendTls) -> Result<Self, BackendTlsError> {
        let name = dns_name(&wire.hostname)?;
        if wire.dns_names.len() + wire.uris.len() > ALTERNATIVE_NAMES_MAX {
            return Err(BackendTlsError::TooMany("subjectAltNames", ALTERNATIVE_NAMES_MAX));
        }
        let roots = match (wire.authorities.is_empty(), wire.system_roots) {
            (true, false) => return Ok(Self { name, configs: None, expiry: None }),
            (true, true) => Arc::clone(&SYSTEM),
            (false, _) => Arc::new(roots(&wire.authorities)?),
        };
        let names = wire.dns_names.iter().map(|name| dns_name(name)).collect::<Result<_, _>>()?;
        let verifier = Verifier {
            roots,
            names,
            uris: wire.uris.clone(),
            algorithms: PROVIDER.signature_verification_algorithms,
        };
        let config = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .expect("the provider has cipher suites for both versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let own = wire.client_certificate.as_ref().map(ServerCertificate::new).transpose()?;
        let expiry = own.as_ref().map(|own| own.expiry.clone());
        let requests = match own {
            None => config.with_no_client_auth(),
            Some(ServerCertificate { key: own, .. }) => {
                config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from((*own).clone())))
            }
        };
        let mut checks = requests.clone();
        checks.resumption = Resumption::disabled();
        let configs = Configs { requests: Arc::new(requests), checks: Arc::new(checks) };
        Ok(Self { name, configs: Some(configs), expiry })
    }

    /// What a health check makes its handshake with; `None` where nobody is trusted.
    pub(crate) fn of_check(&self) -> Option<(Arc<ClientConfig>, ServerName<'static>)> {
        self.configs.as_ref().map(|configs| (Arc::clone(&configs.checks), self.name.clone()))
    }
}

/// The certificates of authorities.
///
/// # Errors
/// [`AuthorityError`]; whoever owns the Secret can fix it.
pub(crate) fn roots(authorities: &[push::Authority]) -> Result<RootCertStore, AuthorityError> {
    let (mut roots, mut left) = (RootCertStore::empty(), AUTHORITY_CERTIFICATES_MAX);
    if authorities.len() > AUTHORITIES_MAX {
        return Err(AuthorityError::TooMany);
    }
    for authority in authorities {
        let unreadable = || AuthorityError::Unreadable(authority.source.clone());
        let before = roots.len();
        for certificate in CertificateDer::pem_slice_iter(&authority.certificates_pem) {
            left = left.checked_sub(1).ok_or(AuthorityError::TooMany)?;
            roots.add(certificate.map_err(|_| unreadable())?).map_err(|_| unreadable())?;
        }
        if roots.len() == before {
            return Err(unreadable());
        }
    }
    Ok(roots)
}

fn dns_name(name: &str) -> Result<ServerName<'static>, BackendTlsError> {
    let read = ServerName::try_from(name.to_owned()).ok();
    let is_dns = |name: &ServerName<'_>| matches!(name, ServerName::DnsName(_));
    read.filter(is_dns).ok_or_else(|| BackendTlsError::Name(name.to_owned()))
}

/// Secures a connection, within the time for it. `protocol` is agreed on by ALPN; `None`: whatever is passed on says it.
pub(crate) async fn secure(
    profile: &TlsProfile,
    protocol: Option<UpstreamProtocol>,
    stream: TcpStream,
    step: &Step<'_>,
) -> Result<Box<TlsStream<TcpStream>>, Failure> {
    let settings = profile.settings::<BackendTls>();
    let Some((settings, Configs { requests, .. })) =
        settings.and_then(|own| Some((own, own.configs.as_ref()?)))
    else {
        return Err(Failure::BackendTls(
            "a Secret that its set's tls names is missing or cannot be used, see the condition ResolvedRefs",
        ));
    };
    let offer = protocol.map(|protocol| match protocol {
        UpstreamProtocol::Http1 => HTTP1,
        UpstreamProtocol::Http2 => HTTP2,
    });
    let connector = TlsConnector::from(Arc::clone(requests));
    let connector = connector.with_alpn(offer.into_iter().map(<[u8]>::to_vec).collect());
    let secured = step.within(connector.connect(settings.name.clone(), stream)).await;
    let secured =
        secured.ok_or(Failure::ConnectTimeout)?.map_err(|error| Failure::BackendTls(why(&error)))?;
    // Who knows nothing of ALPN speaks HTTP/1.1.
    if protocol == Some(UpstreamProtocol::Http2) && secured.get_ref().1.alpn_protocol() != Some(HTTP2) {
        return Err(Failure::BackendTls("it does not agree to HTTP/2 (ALPN)"));
    }
    Ok(Box::new(secured.into()))
}

/// What went wrong, for who reads the answer; never what a certificate says.
fn why(error: &io::Error) -> &'static str {
    use rustls::Error;
    let Some(error) = error.get_ref().and_then(|error| error.downcast_ref::<Error>()) else {
        return "it ended the connection within the handshake";
    };
    match error {
        Error::InvalidCertificate(refused) => match refused {
            // The latter: an authority of the same name has another key.
            Refused::UnknownIssuer | Refused::BadSignature => {
                "its certificate is signed by no authority that the set trusts"
            }
            Refused::NotValidForName | Refused::NotValidForNameContext { .. } => {
                "its certificate is for another name"
            }
            Refused::Expired | Refused::ExpiredContext { .. } => "its certificate has expired",
            Refused::NotValidYet | Refused::NotValidYetContext { .. } => "its certificate is not valid yet",
            Refused::InvalidPurpose | Refused::InvalidPurposeContext { .. } => {
                "its certificate is not for a server"
            }
            _ => "its certificate is not valid",
        },
        Error::NoApplicationProtocol | Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
            "it does not agree to the set's protocol (ALPN)"
        }
        Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::AccessDenied,
        ) => "it refuses our certificate, or asks for one and clientCertificateRef is not set",
        Error::AlertReceived(AlertDescription::UnrecognisedName) => {
            "it does not know the set's hostname (SNI)"
        }
        Error::AlertReceived(_) => "it refused the handshake",
        Error::InvalidMessage(_) => "it does not speak TLS",
        Error::PeerIncompatible(_) => "it has no version or cipher of TLS in common with us",
        _ => "the handshake failed",
    }
}

/// Verifies the chain as webpki does, and then the name, or one of several.
#[derive(Debug)]
struct Verifier {
    roots: Arc<RootCertStore>,
    names: Vec<ServerName<'static>>,
    uris: Vec<String>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    fn check_name(&self, leaf: &CertificateDer<'_>, hostname: &ServerName<'_>) -> Result<(), rustls::Error> {
        let parsed = ParsedCertificate::try_from(leaf)?;
        if self.names.is_empty() && self.uris.is_empty() {
            return verify_server_name(&parsed, hostname);
        }
        let has_name = self.names.iter().any(|name| verify_server_name(&parsed, name).is_ok());
        let is_named = has_name || has_uri(leaf, &self.uris);
        is_named.then_some(()).ok_or(rustls::Error::InvalidCertificate(Refused::NotValidForName))
    }
}

fn has_uri(leaf: &CertificateDer<'_>, uris: &[String]) -> bool {
    let Ok((_, leaf)) = X509Certificate::from_der(leaf) else { return false };
    let names = leaf.subject_alternative_name().ok().flatten();
    let names = names.into_iter().flat_map(|extension| &extension.value.general_names);
    names.into_iter().any(|name| matches!(name, GeneralName::URI(uri) if uris.iter().any(|own| own == uri)))
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let parsed = ParsedCertificate::try_from(leaf)?;
        let algorithms = self.algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)?;
        self.check_name(leaf, name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;

//! What a listener asks of a handshake: versions, ciphers, and a certificate of the client.

use super::PROVIDER;
use super::backends::{AuthorityError, roots};
use aws_lc_rs::digest::{Context, SHA256};
use rustls::crypto::CryptoProvider;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, WebPkiClientVerifier};
use rustls::{ServerConfig, SupportedProtocolVersion};
use std::fmt;
use std::sync::Arc;
use weir_proto::push;

/// Names a policy: equal ones ask the same of clients, on every proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicyId(pub(super) [u8; 16]);

/// How backends learn of a client's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Forward {
    /// `X-Forwarded-Client-Cert`.
    pub xfcc: bool,
    /// `Client-Cert` and `Client-Cert-Chain`.
    pub client_cert: bool,
}

/// What a listener asks of a handshake.
pub struct TlsPolicy {
    id: PolicyId,
    versions: &'static [&'static SupportedProtocolVersion],
    clients: Arc<dyn ClientCertVerifier>,
    pub(crate) forward: Forward,
}

/// Settings that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A number that only a newer controller knows.
    #[error("{0} {1} is not known to this proxy: upgrade the proxies")]
    Unknown(&'static str, i32),
    /// What clients are verified by.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// No client could ever be verified.
    #[error("clientValidation has no certificates of authorities: name a Secret with ca.crt")]
    NoAuthority,
}

/// TLS 1.3 and 1.2. The suites of the provider are those of Mozilla's intermediate profile, and of 1.3 those of the modern
/// one: none is left out.
const INTERMEDIATE: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];
const MODERN: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

impl fmt::Debug for TlsPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TlsPolicy").field(&self.id).finish()
    }
}

impl PartialEq for TlsPolicy {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

/// What a listener's policy is named by; costs a digest of its authorities.
pub(crate) fn id_of(wire: &push::Tls) -> PolicyId {
    let mut context = Context::new(&SHA256);
    let is_modern = wire.cipher_policy() == push::CipherPolicy::Modern;
    let is_13 = is_modern || wire.min_version() == push::TlsVersion::TlsVersion13;
    context.update(if is_13 { b"tls1.3" } else { b"tls1.2" });
    if let Some(clients) = &wire.client_validation {
        context.update(&[1]);
        context.update(&clients.mode.to_be_bytes());
        context.update(&clients.forward.to_be_bytes());
        for authority in &clients.authorities {
            context.update(&(authority.certificates_pem.len() as u64).to_be_bytes());
            context.update(&authority.certificates_pem);
        }
    }
    let digest = context.finish();
    PolicyId(*digest.as_ref().first_chunk().expect("SHA-256 has 32 bytes"))
}

impl TlsPolicy {
    /// Reads and checks a policy.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub fn new(wire: &push::Tls) -> Result<Self, PolicyError> {
        if push::TlsVersion::try_from(wire.min_version).is_err() {
            return Err(PolicyError::Unknown("minVersion", wire.min_version));
        }
        if push::CipherPolicy::try_from(wire.cipher_policy).is_err() {
            return Err(PolicyError::Unknown("cipherPolicy", wire.cipher_policy));
        }
        let is_modern = wire.cipher_policy() == push::CipherPolicy::Modern;
        let is_13 = is_modern || wire.min_version() == push::TlsVersion::TlsVersion13;
        let versions = if is_13 { MODERN } else { INTERMEDIATE };
        let (clients, forward) = match &wire.client_validation {
            None => (Arc::new(NoClientAuth) as Arc<dyn ClientCertVerifier>, Forward::default()),
            Some(own) => (verifier(own)?, forward(own)?),
        };
        Ok(Self { id: id_of(wire), versions, clients, forward })
    }

    /// The name of the policy.
    #[must_use]
    pub fn id(&self) -> PolicyId {
        self.id
    }

    pub(super) fn builder(&self) -> rustls::ConfigBuilder<ServerConfig, rustls::server::WantsServerCert> {
        ServerConfig::builder_with_provider(Arc::clone(&PROVIDER))
            .with_protocol_versions(self.versions)
            .expect("the provider has cipher suites for both versions")
            .with_client_cert_verifier(Arc::clone(&self.clients))
    }
}

fn verifier(own: &push::ClientValidation) -> Result<Arc<dyn ClientCertVerifier>, PolicyError> {
    let roots = roots(&own.authorities)?;
    let builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::<CryptoProvider>::clone(&PROVIDER));
    let builder = match own.mode() {
        push::ClientValidationMode::Required => builder,
        push::ClientValidationMode::Optional => builder.allow_unauthenticated(),
        push::ClientValidationMode::Unspecified => {
            return Err(PolicyError::Unknown("clientValidation.mode", own.mode));
        }
    };
    builder.build().map_err(|_| PolicyError::NoAuthority)
}

fn forward(own: &push::ClientValidation) -> Result<Forward, PolicyError> {
    let (xfcc, client_cert) = match own.forward() {
        push::ClientCertificateForward::None => (false, false),
        push::ClientCertificateForward::Xfcc => (true, false),
        push::ClientCertificateForward::ClientCert => (false, true),
        push::ClientCertificateForward::Both => (true, true),
        push::ClientCertificateForward::Unspecified => {
            return Err(PolicyError::Unknown("clientValidation.forward", own.forward));
        }
    };
    Ok(Forward { xfcc, client_cert })
}

//! TLS of a probe: that a handshake ends well. Where the set's requests are secured, as theirs does: a backend that they
//! cannot reach is not healthy. Else with whatever certificate.

pub(super) use crate::tls::backends::{HTTP1, HTTP2};

use super::of_io;
use super::socket::Bounded;
use crate::tls::backends::BackendTls;
use http::uri::Authority;
use lb_core::backend::TlsProfile;
use lb_core::health::{Reason, TargetKey};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// What probes need for TLS. Made once for a process; cheap to clone.
#[derive(Clone)]
pub(crate) struct ProbeTls(TlsConnector);

impl ProbeTls {
    /// TLS 1.2 and 1.3. No session is kept: the handshake is what is checked, so each probe makes a whole one.
    pub(crate) fn new() -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let any = Arc::new(AnyCertificate {
            schemes: provider.signature_verification_algorithms.supported_schemes(),
        });
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has cipher suites for both versions")
            .dangerous()
            .with_custom_certificate_verifier(any)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        Self(TlsConnector::from(Arc::new(config)))
    }

    /// With the name in the handshake (SNI) where `host` is one. An address is none: RFC 6066, 3.
    pub(super) async fn handshake(
        &self,
        socket: Bounded,
        key: &TargetKey,
        host: Option<&str>,
        protocol: Option<&[u8]>,
    ) -> Result<TlsStream<Bounded>, Reason> {
        let protocols = protocol.map(<[u8]>::to_vec).into_iter().collect();
        let profile = key.settings().tls_profile.as_ref().and_then(TlsProfile::settings::<BackendTls>);
        let (connector, name) = match profile {
            Some(profile) => {
                let (config, name) = profile.of_check().ok_or(Reason::Tls)?;
                (TlsConnector::from(config), name)
            }
            None => {
                let name = host.and_then(name);
                let address = || ServerName::IpAddress(key.address().ip().into());
                (self.0.clone(), name.unwrap_or_else(address))
            }
        };
        let handshake = connector.with_alpn(protocols).connect(name, socket);
        handshake.await.map_err(|error| match of_io(&error) {
            // What is no TLS at all breaks the handshake, not a protocol within.
            Reason::Protocol => Reason::Tls,
            reason => reason,
        })
    }
}

fn name(host: &str) -> Option<ServerName<'static>> {
    let authority: Authority = host.parse().ok()?;
    ServerName::try_from(authority.host().to_owned())
        .ok()
        .filter(|name| matches!(name, ServerName::DnsName(_)))
}

/// Takes every certificate.
///
/// A check of a set that has no TLS of its own asks whether a backend answers, not who it is, as a kubelet's HTTPS probe does: backends are probed by
/// address, often before anybody has named an authority for them, and one with a certificate that has run out still
/// serves. Whether requests may go there is decided where requests are sent. So a probe proves nothing about its peer, and
/// it sends nothing secret: no client certificate, no token, only what the check's own settings say.
#[derive(Debug)]
struct AnyCertificate {
    schemes: Vec<SignatureScheme>,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

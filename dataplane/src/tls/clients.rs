//! What backends learn of a client's certificate: `X-Forwarded-Client-Cert` as Envoy writes it, and `Client-Cert` and
//! `Client-Cert-Chain` (RFC 9440). Made once for a connection.

use super::CHAIN_CERTIFICATES_MAX;
use super::policies::{Forward, PolicyId};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use rustls::ProtocolVersion;
use rustls_pki_types::CertificateDer;
use std::fmt::Write as _;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

const XFCC: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
const CLIENT_CERT: HeaderName = HeaderName::from_static("client-cert");
const CLIENT_CERT_CHAIN: HeaderName = HeaderName::from_static("client-cert-chain");

/// Most bytes of all fields that speak of one client; a connection is closed past it, for it could not be said who it is.
pub(crate) const CLIENT_FIELDS_BYTES_MAX: usize = 16 << 10;

/// What is known of a connection since its handshake.
#[derive(Debug)]
pub(crate) struct Secured {
    /// Of the listener that the client asked for by SNI.
    pub(crate) policy: PolicyId,
    /// Of TLS, as its own documents write it.
    pub(crate) version: &'static str,
    fields: Vec<(HeaderName, HeaderValue)>,
}

impl Secured {
    /// `chain` is what the client has shown and the policy has verified; `None` where it cannot be told to backends.
    pub(crate) fn new(
        policy: PolicyId,
        version: Option<ProtocolVersion>,
        chain: &[CertificateDer<'_>],
        forward: Forward,
    ) -> Option<Self> {
        let version = match version {
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "TLSv1.3",
        };
        let mut fields = Vec::new();
        let Some((leaf, rest)) = chain.split_first() else { return Some(Self { policy, version, fields }) };
        if chain.len() > CHAIN_CERTIFICATES_MAX {
            return None;
        }
        if forward.xfcc {
            fields.push((XFCC, HeaderValue::try_from(xfcc(leaf)?).ok()?));
        }
        if forward.client_cert {
            let bytes = |der: &CertificateDer<'_>| format!(":{}:", STANDARD.encode(der));
            fields.push((CLIENT_CERT, HeaderValue::try_from(bytes(leaf)).ok()?));
            if !rest.is_empty() {
                let chain = rest.iter().map(bytes).collect::<Vec<_>>().join(", ");
                fields.push((CLIENT_CERT_CHAIN, HeaderValue::try_from(chain).ok()?));
            }
        }
        let bytes: usize = fields.iter().map(|(_, value)| value.len()).sum();
        (bytes <= CLIENT_FIELDS_BYTES_MAX).then_some(Self { policy, version, fields })
    }

    /// Puts the fields into a request's headers.
    pub(crate) fn describe(&self, headers: &mut HeaderMap) {
        headers.extend(self.fields.iter().cloned());
    }
}

/// Envoy's form, <https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/headers>, with the keys
/// Hash, Subject, URI and DNS.
fn xfcc(leaf: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
    let mut text = String::from("Hash=");
    for byte in digest(&SHA256, leaf).as_ref() {
        let _ = write!(text, "{byte:02x}");
    }
    let _ = write!(text, ";Subject={}", quoted(&certificate.subject().to_string())?);
    let names = certificate.subject_alternative_name().ok()?;
    for name in names.into_iter().flat_map(|extension| &extension.value.general_names) {
        let _ = match name {
            GeneralName::URI(uri) => write!(text, ";URI={}", plain_or_quoted(uri)?),
            GeneralName::DNSName(name) => write!(text, ";DNS={}", plain_or_quoted(name)?),
            _ => Ok(()),
        };
    }
    Some(text)
}

fn plain_or_quoted(text: &str) -> Option<String> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic() && !b",;=\"\\".contains(&byte));
    if is_plain { Some(text.to_owned()) } else { quoted(text) }
}

/// `None` where it could not be told from another one, or is no header's value.
fn quoted(text: &str) -> Option<String> {
    let is_text = text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    is_text.then(|| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::policies::id_of;
    use weir_proto::push;

    fn leaf(params: impl FnOnce(&mut rcgen::CertificateParams)) -> CertificateDer<'static> {
        let mut made = rcgen::CertificateParams::new(["a.org".to_owned()]).expect("a name");
        params(&mut made);
        let key = rcgen::KeyPair::generate().expect("a key");
        made.self_signed(&key).expect("complete").der().clone()
    }

    fn told(chain: &[CertificateDer<'_>], forward: Forward) -> Option<HeaderMap> {
        let mut headers = HeaderMap::new();
        Secured::new(id_of(&push::Tls::default()), None, chain, forward)?.describe(&mut headers);
        Some(headers)
    }

    const BOTH: Forward = Forward { xfcc: true, client_cert: true };

    #[test]
    fn a_certificate_is_told_in_both_forms_and_cannot_speak_for_another() {
        let uri = "spiffe://a/b;Hash=0,By=me";
        let certificate = leaf(|params| {
            params.subject_alt_names.push(rcgen::SanType::URI(uri.try_into().expect("ASCII")));
            params.distinguished_name.push(rcgen::DnType::CommonName, "a\";Hash=\"0");
        });
        let headers = told(&[certificate.clone(), certificate.clone()], BOTH).expect("can be told");
        let text = headers["x-forwarded-client-cert"].to_str().expect("text");
        assert!(text.starts_with("Hash=") && text.contains(r#"a\";Hash=\"0"#), "{text}");
        assert!(text.contains(&format!(";DNS=a.org;URI=\"{uri}\"")), "{text}");
        let whole = format!(":{}:", STANDARD.encode(&certificate));
        assert_eq!(headers["client-cert"], whole);
        assert_eq!(headers["client-cert-chain"], whole);
        assert_eq!(told(std::slice::from_ref(&certificate), Forward::default()).expect("nothing").len(), 0);
        assert_eq!(told(&[], BOTH).expect("nothing").len(), 0);
        let many =
            |count| told(&vec![certificate.clone(); count], Forward { xfcc: true, client_cert: false });
        assert!(many(CHAIN_CERTIFICATES_MAX).is_some() && many(CHAIN_CERTIFICATES_MAX + 1).is_none());
    }

    #[test]
    fn what_is_too_large_to_be_told_is_refused() {
        let certificate = leaf(|params| {
            let name = |n: usize| {
                rcgen::SanType::DnsName(format!("{n}.{}", "a".repeat(60)).try_into().expect("ASCII"))
            };
            params.subject_alt_names.extend((0..200).map(name));
        });
        assert!(
            told(std::slice::from_ref(&certificate), Forward { xfcc: true, client_cert: false }).is_some()
        );
        assert!(told(&[certificate], BOTH).is_none());
    }
}

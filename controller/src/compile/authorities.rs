//! Whom TLS trusts: the authorities of backends and of clients, from Secrets.
//!
//! Where such a Secret cannot be used, and never could, its set or listener alone is closed: to speak TLS to whoever
//! answers, or to let everybody in, would be worse than not to serve.

use super::certificates::{Certificates, Stakes};
use super::check::{Check, quoted};
use k8s_openapi::api::core::v1::Secret;
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use std::collections::BTreeSet;
use weir_crds::pool as spec;
use weir_proto::limits::AUTHORITY_CERTIFICATES_MAX;
use weir_proto::push::{self, PoolConfig};

/// Key of a Secret's data that holds certificates of authorities.
const CA_KEY: &str = "ca.crt";

/// What is at stake with a Secret that a set's TLS needs.
pub(super) const BACKENDS: Stakes = Stakes {
    with: "what it held before is used on",
    without: "no request goes to the backends of this set until it is there",
};

/// What is at stake with a Secret that clients are verified by.
pub(super) const CLIENTS: Stakes = Stakes {
    with: "what it held before is used on",
    without: "the listener serves nobody until it is there",
};

/// A policy by which every connection fails.
pub(super) fn trusting_nobody(hostname: &str) -> push::BackendTls {
    push::BackendTls { hostname: hostname.to_owned(), ..push::BackendTls::default() }
}

/// The Secrets that a set's TLS is made of, as "namespace/name".
pub(super) fn secured_by(tls: &push::BackendTls) -> impl Iterator<Item = &str> {
    let authorities = tls.authorities.iter().map(|held| held.source.as_str());
    authorities.chain(tls.client_certificate.iter().map(|held| held.source.as_str()))
}

/// The authorities that a configuration holds, those of listeners before those of sets.
pub(super) fn authorities_of(config: Option<&PoolConfig>) -> impl Iterator<Item = &push::Authority> {
    let listeners = config.into_iter().flat_map(|config| &config.listeners);
    let clients = listeners.filter_map(|listener| listener.tls.as_ref()?.client_validation.as_ref());
    let sets = config.into_iter().flat_map(|config| &config.backend_sets);
    let backends = sets.filter_map(|set| set.tls.as_ref());
    clients.flat_map(|own| &own.authorities).chain(backends.flat_map(|tls| &tls.authorities))
}

/// The references of a pool beside those to certificates of listeners.
pub(super) fn references(
    pool: &weir_crds::LoadBalancerPoolSpec,
) -> impl Iterator<Item = &spec::SecretReference> {
    let listeners = pool.listeners.iter().filter_map(|listener| listener.tls.as_ref());
    let clients = listeners.filter_map(|tls| tls.client_validation.as_ref());
    let sets = pool.backend_sets.iter().filter_map(|set| set.tls.as_ref());
    let backends = sets.flat_map(|tls| tls.ca_certificate_refs.iter().chain(&tls.client_certificate_ref));
    clients.flat_map(|own| &own.ca_certificate_refs).chain(backends)
}

/// How a set's backends are spoken to; `None` for plaintext.
pub(super) fn of_set(
    field: &str,
    tls: &spec::BackendTls,
    check: &mut Check,
    certificates: &mut Certificates<'_>,
) -> push::BackendTls {
    check_backends(field, tls, check);
    let refs = format!("{field}.caCertificateRefs");
    let authorities = all(&refs, &tls.ca_certificate_refs, BACKENDS, certificates);
    let reference = tls.client_certificate_ref.as_ref();
    let own = reference
        .map(|reference| certificates.pair(&format!("{field}.clientCertificateRef"), reference, BACKENDS));
    let (Some(authorities), None | Some(Some(_))) = (authorities, &own) else {
        return trusting_nobody(&tls.hostname);
    };
    push::BackendTls {
        authorities,
        system_roots: tls.well_known_ca_certificates.is_some(),
        dns_names: tls.subject_alt_names.iter().filter_map(|name| name.hostname.clone()).collect(),
        uris: tls.subject_alt_names.iter().filter_map(|name| name.uri.clone()).collect(),
        client_certificate: own.flatten(),
        ..trusting_nobody(&tls.hostname)
    }
}

/// How a listener's clients are verified; `None` where it can serve nobody.
pub(super) fn of_clients(
    field: &str,
    own: &spec::ClientValidation,
    certificates: &mut Certificates<'_>,
) -> Option<push::ClientValidation> {
    let refs = format!("{field}.caCertificateRefs");
    let authorities = all(&refs, &own.ca_certificate_refs, CLIENTS, certificates)?;
    let mode = match own.mode.unwrap_or_default() {
        spec::ClientValidationMode::Required => push::ClientValidationMode::Required,
        spec::ClientValidationMode::Optional => push::ClientValidationMode::Optional,
    };
    let forward = match own.forward.unwrap_or_default() {
        spec::ClientCertificateForward::Xfcc => push::ClientCertificateForward::Xfcc,
        spec::ClientCertificateForward::ClientCert => push::ClientCertificateForward::ClientCert,
        spec::ClientCertificateForward::Both => push::ClientCertificateForward::Both,
        spec::ClientCertificateForward::None => push::ClientCertificateForward::None,
    };
    Some(push::ClientValidation { authorities, mode: mode.into(), forward: forward.into() })
}

/// Checks what can be wrong with the client validation of a listener.
pub(super) fn check_clients(field: &str, own: &spec::ClientValidation, check: &mut Check) {
    let field = format!("{field}.caCertificateRefs");
    check.count(&field, &own.ca_certificate_refs, (1, spec::TLS_AUTHORITIES_MAX));
    check_references(&field, &own.ca_certificate_refs, check);
}

fn check_backends(field: &str, tls: &spec::BackendTls, check: &mut Check) {
    check_hostname(&format!("{field}.hostname"), &tls.hostname, check);
    let refs = format!("{field}.caCertificateRefs");
    check.count(&refs, &tls.ca_certificate_refs, (0, spec::TLS_AUTHORITIES_MAX));
    check_references(&refs, &tls.ca_certificate_refs, check);
    if tls.ca_certificate_refs.is_empty() == tls.well_known_ca_certificates.is_none() {
        let rule = "must have exactly one of caCertificateRefs and wellKnownCACertificates";
        check.refuse(field, "", rule);
    }
    if let Some(own) = &tls.client_certificate_ref {
        check_reference(&format!("{field}.clientCertificateRef"), own, check);
    }
    let names = format!("{field}.subjectAltNames");
    check.count(&names, &tls.subject_alt_names, (0, spec::TLS_ALTERNATIVE_NAMES_MAX));
    for (index, name) in tls.subject_alt_names.iter().enumerate() {
        let field = format!("{names}[{index}]");
        match (name.kind, &name.hostname, &name.uri) {
            (spec::SubjectAltNameType::Hostname, Some(hostname), None) => {
                check_hostname(&format!("{field}.hostname"), hostname, check);
            }
            (spec::SubjectAltNameType::Uri, None, Some(uri)) => {
                let has_scheme = uri.split_once(':').is_some_and(|(scheme, rest)| {
                    scheme.starts_with(|first: char| first.is_ascii_alphabetic()) && !rest.is_empty()
                });
                let is_text =
                    uri.len() <= spec::TLS_URI_BYTES_MAX && uri.bytes().all(|b| b.is_ascii_graphic());
                if !has_scheme || !is_text {
                    let rule = "is not a URI: write its scheme, a colon and up to 253 visible ASCII characters in all";
                    check.refuse(format!("{field}.uri"), quoted(uri), rule);
                }
            }
            _ => {
                let rule = "needs hostname for type Hostname, or uri for type URI, and no other";
                check.refuse(field, "", rule);
            }
        }
    }
}

fn check_hostname(field: &str, hostname: &str, check: &mut Check) {
    let is_name = super::is_object_name(hostname)
        && hostname.rsplit('.').next().is_some_and(|last| last.starts_with(|c: char| c.is_ascii_lowercase()));
    if !is_name {
        let rule = "is not a name in DNS: use lower-case labels of a-z, 0-9 and - joined by dots, the last beginning \
                    with a letter";
        check.refuse(field, quoted(hostname), rule);
    }
}

/// Names and namespaces of Secrets.
pub(super) fn check_references(field: &str, references: &[spec::SecretReference], check: &mut Check) {
    for (index, reference) in references.iter().enumerate() {
        check_reference(&format!("{field}[{index}]"), reference, check);
    }
}

fn check_reference(field: &str, reference: &spec::SecretReference, check: &mut Check) {
    check.object_name(&format!("{field}.name"), &reference.name);
    if let Some(namespace) = &reference.namespace {
        check.name(&format!("{field}.namespace"), namespace);
    }
}

/// `None` where one is missing, for a certificate that it signed would be refused without a word of why. What is wrong
/// with each is warned of.
fn all(
    field: &str,
    references: &[spec::SecretReference],
    stakes: Stakes,
    certificates: &mut Certificates<'_>,
) -> Option<Vec<push::Authority>> {
    let (mut found, mut seen, mut is_whole) = (Vec::new(), BTreeSet::new(), true);
    let mut left = AUTHORITY_CERTIFICATES_MAX;
    for (index, reference) in references.iter().enumerate() {
        let previous = certificates.previous();
        let before = |source: &str| authorities_of(previous).find(|held| held.source == source);
        let read = |source, secret: &Secret, before: Option<&_>| authority(source, secret, before, left);
        match certificates.read(&format!("{field}[{index}]"), reference, stakes, before, read) {
            Some(authority) if seen.insert(authority.source.clone()) => {
                left = left.saturating_sub(count(&authority.certificates_pem));
                found.push(authority);
            }
            Some(_) => {}
            None => is_whole = false,
        }
    }
    is_whole.then_some(found)
}

fn authority(
    source: String,
    secret: &Secret,
    before: Option<&push::Authority>,
    certificates_max: usize,
) -> Result<push::Authority, String> {
    let pem = secret.data.as_ref().and_then(|data| data.get(CA_KEY));
    let pem = pem.ok_or_else(|| format!("is a Secret without {CA_KEY}: add it as PEM"))?;
    let authority = push::Authority { source, certificates_pem: pem.0.clone() };
    if before != Some(&authority) {
        check_pem(&authority.certificates_pem)?;
    }
    if count(&authority.certificates_pem) > certificates_max {
        return Err(format!(
            "is a Secret whose {CA_KEY} is more than is taken: use at most {AUTHORITY_CERTIFICATES_MAX} certificates in all"
        ));
    }
    Ok(authority)
}

fn count(pem: &[u8]) -> usize {
    CertificateDer::pem_slice_iter(pem).take(AUTHORITY_CERTIFICATES_MAX + 1).count()
}

fn check_pem(pem: &[u8]) -> Result<(), String> {
    let fault = |sentence: &str| Err(format!("is a Secret whose {CA_KEY} {sentence}"));
    let certificates = CertificateDer::pem_slice_iter(pem).take(AUTHORITY_CERTIFICATES_MAX + 1);
    let Ok(certificates) = certificates.collect::<Result<Vec<_>, _>>() else {
        return fault("is not PEM: put certificates there, and nothing else");
    };
    if certificates.is_empty() {
        return fault("holds no PEM certificate: put that of the authority there");
    }
    let mut roots = RootCertStore::empty();
    match certificates.into_iter().all(|certificate| roots.add(certificate).is_ok()) {
        true => Ok(()),
        false => {
            fault("holds something that is not an X.509 v3 certificate: put that of the authority there")
        }
    }
}

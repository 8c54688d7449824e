//! Secrets into certificates.
//!
//! What a proxy would refuse is found here where it can be, so that one bad Secret costs itself and no more: the
//! proxy can only refuse a whole configuration. The pair is compared by its public key; what is left to the proxy is
//! a leaf that webpki reads more strictly than x509-parser does.

use super::authorities::{BACKENDS, CLIENTS, authorities_of, secured_by, trusting_nobody};
use super::check::quoted;
use super::references::{Target, is_permitted, not_permitted};
use super::{ObjectKey, Objects, Reason, SECRETS_MAX, Unread, Validity, Warning, expiry};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING,
    EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair,
};
use k8s_openapi::api::core::v1::Secret;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use weir_crds::pool as spec;
use weir_proto::limits::CHAIN_CERTIFICATES_MAX;
use weir_proto::push::{self, PoolConfig};
use x509_parser::prelude::{FromDer as _, X509Certificate, X509Version};

const LEFT_OUT: &str = "the listener serves without it, and not at all without any other";

const LISTENER: Stakes = Stakes { with: "the certificate that it held before serves on", without: LEFT_OUT };

/// What becomes of who names a Secret while it cannot be used.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stakes {
    /// Where it could be used before.
    pub(super) with: &'static str,
    /// Where it could not, or may not be any more.
    pub(super) without: &'static str,
}

/// The certificates of one pool.
pub(super) struct Certificates<'a> {
    key: &'a ObjectKey,
    objects: &'a Objects,
    previous: Option<&'a PoolConfig>,
    /// Seconds since 1970.
    now_s: i64,
    warnings: Vec<Warning>,
    lacks_any: bool,
}

impl<'a> Certificates<'a> {
    /// `previous` is what the pool compiled to before: what it holds is taken while a Secret is missing or broken.
    pub(super) fn new(
        key: &'a ObjectKey,
        objects: &'a Objects,
        previous: Option<&'a PoolConfig>,
        now_s: i64,
    ) -> Self {
        Self { key, objects, previous, now_s, warnings: Vec::new(), lacks_any: false }
    }

    /// Why certificates were left out or kept.
    pub(super) fn into_warnings(self) -> Vec<Warning> {
        self.warnings
    }

    /// Whether one was left out whose Secret is missing or broken, so that proxies may have more than this.
    pub(super) fn lacks_any(&self) -> bool {
        self.lacks_any
    }

    /// Those of one listener that can be used; `field` is that of its references.
    pub(super) fn of(&mut self, field: &str, tls: &spec::ListenerTls) -> Vec<push::Certificate> {
        let references = tls.certificate_refs.iter().enumerate();
        let found = references
            .filter_map(|(index, reference)| self.pair(&format!("{field}[{index}]"), reference, LISTENER));
        found.collect()
    }

    /// A certificate with its key.
    pub(super) fn pair(
        &mut self,
        field: &str,
        reference: &spec::SecretReference,
        stakes: Stakes,
    ) -> Option<push::Certificate> {
        let previous = self.previous;
        let before = |source: &str| certificates_of(previous).find(|held| held.source == source);
        let now_s = self.now_s;
        let read = |source, secret: &Secret, before: Option<&_>| certificate(source, secret, before, now_s);
        self.read(field, reference, stakes, before, read)
    }

    /// What a Secret holds, or what it held while it cannot be used; a warning says why.
    pub(super) fn read<T: Clone + 'a>(
        &mut self,
        field: &str,
        reference: &spec::SecretReference,
        stakes: Stakes,
        before: impl Fn(&str) -> Option<&'a T>,
        read: impl Fn(String, &Secret, Option<&T>) -> Result<T, String>,
    ) -> Option<T> {
        let own = &self.key.namespace;
        let secret = ObjectKey::new(reference.namespace.as_deref().unwrap_or(own), reference.name.as_str());
        if !is_permitted(own, Target::Secret, &secret, self.objects) {
            let fault = not_permitted(own, Target::Secret, &secret);
            let rule = format!("{fault} ({})", stakes.without);
            let value = quoted(&secret.namespace);
            self.warn(format!("{field}.namespace"), value, rule, Reason::RefNotPermitted);
            return None;
        }
        let source = secret.to_string();
        let before = before(&source);
        let compiled = match self.objects.secrets.get(&secret) {
            None => Err(absent(&secret, self.objects.unread_secrets.get(&secret).copied())),
            Some(found) => read(source, found, before),
        };
        let fault = match compiled {
            Ok(compiled) => return Some(compiled),
            Err(fault) => fault,
        };
        let effect = if before.is_some() { stakes.with } else { stakes.without };
        self.lacks_any |= before.is_none();
        let rule = format!("{fault} ({effect})");
        let value = quoted(&reference.name);
        let reason = match self.objects.unread_secrets.get(&secret) {
            Some(Unread::TooMany) => Reason::LimitReached,
            _ => Reason::InvalidCertificateRef,
        };
        self.warn(format!("{field}.name"), value, rule, reason);
        before.cloned()
    }

    /// What the pool compiled to before.
    pub(super) fn previous(&self) -> Option<&'a PoolConfig> {
        self.previous
    }

    fn warn(&mut self, field: String, value: String, rule: String, reason: Reason) {
        self.warnings.push(Warning { pool: self.key.clone(), field, value, rule, reason });
    }
}

/// A pool that serves on as it was specified before, without the certificates of other namespaces that it may not use
/// any more, and a warning for each of them; `None` where it has none.
pub(super) fn without_revoked(
    pool: &ObjectKey,
    config: &PoolConfig,
    objects: &Objects,
) -> Option<(PoolConfig, Vec<Warning>)> {
    let is_permitted = |source: &str| {
        let secret = source.split_once('/');
        let secret = secret.map(|(namespace, name)| ObjectKey::new(namespace, name));
        secret.is_some_and(|secret| is_permitted(&pool.namespace, Target::Secret, &secret, objects))
    };
    if sources_of(config).all(is_permitted) {
        return None;
    }
    let (mut kept, mut warnings) = (config.clone(), Vec::new());
    let mut warn = |field: String, source: &str, without: &str| {
        warnings.push(Warning {
            pool: pool.clone(),
            field,
            value: quoted(source),
            rule: format!("is a Secret that no ReferenceGrant of its namespace permits any more ({without})"),
            reason: Reason::RefNotPermitted,
        });
    };
    kept.listeners.retain_mut(|listener| {
        let Some(tls) = &mut listener.tls else { return true };
        for certificate in tls.certificates.extract_if(.., |certificate| !is_permitted(&certificate.source)) {
            warn("spec.listeners".to_owned(), &certificate.source, LEFT_OUT);
        }
        let validation = tls.client_validation.iter().flat_map(|own| &own.authorities);
        let revoked: Vec<_> = validation.filter(|held| !is_permitted(&held.source)).collect();
        revoked.iter().for_each(|held| warn("spec.listeners".to_owned(), &held.source, CLIENTS.without));
        revoked.is_empty() && !tls.certificates.is_empty()
    });
    for set in &mut kept.backend_sets {
        let Some(tls) = &mut set.tls else { continue };
        let sources = secured_by(tls).filter(|source| !is_permitted(source)).map(ToOwned::to_owned);
        let revoked: Vec<_> = sources.collect();
        for source in &revoked {
            warn(format!("spec.backendSets[{}].tls", set.name), source, BACKENDS.without);
        }
        if !revoked.is_empty() {
            *tls = trusting_nobody(&tls.hostname);
        }
    }
    Some((kept, warnings))
}

/// What is to be done about a Secret that is not among the objects.
fn absent(secret: &ObjectKey, unread: Option<Unread>) -> String {
    let ObjectKey { namespace, name } = secret;
    let fault = match unread {
        None => return format!("is not the name of a Secret in namespace {namespace:?}: create it"),
        Some(Unread::Forbidden) => format!(
            "may not read: give its ServiceAccount a Role there with get, list, watch on secrets and resourceNames [{name}]"
        ),
        Some(Unread::Unanswered) => "cannot read now: it tries again, and its log says why".to_owned(),
        Some(Unread::TooMany) => {
            format!("does not read, since pools name too many, more than {SECRETS_MAX}: name fewer of them")
        }
    };
    format!("names a Secret in namespace {namespace:?} that the controller {fault}")
}

/// The pairs that a configuration holds, those of listeners before those of sets.
pub(super) fn certificates_of(config: Option<&PoolConfig>) -> impl Iterator<Item = &push::Certificate> {
    let listeners = config.into_iter().flat_map(|config| &config.listeners);
    let sets = config.into_iter().flat_map(|config| &config.backend_sets);
    let of_sets = sets.filter_map(|set| set.tls.as_ref()?.client_certificate.as_ref());
    listeners.filter_map(|listener| listener.tls.as_ref()).flat_map(|tls| &tls.certificates).chain(of_sets)
}

/// The Secrets whose contents a configuration holds, as "namespace/name"; not always each once.
pub(super) fn sources_of(config: &PoolConfig) -> impl Iterator<Item = &str> {
    let pairs = certificates_of(Some(config)).map(|held| held.source.as_str());
    pairs.chain(authorities_of(Some(config)).map(|held| held.source.as_str()))
}

fn certificate(
    source: String,
    secret: &Secret,
    before: Option<&push::Certificate>,
    now_s: i64,
) -> Result<push::Certificate, String> {
    let kind = secret.type_.as_deref().unwrap_or("Opaque");
    if kind != "kubernetes.io/tls" {
        return Err(format!("is a Secret of type {kind}: use one of type kubernetes.io/tls"));
    }
    let part = |name: &str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(name)).map(|bytes| bytes.0.clone());
        bytes.ok_or_else(|| format!("is a Secret without {name}: add it as PEM"))
    };
    let certificate = push::Certificate { source, chain_pem: part("tls.crt")?, key_pem: part("tls.key")? };
    // What was good before is good: a thousand keys need not be looked at again for each edit.
    if before != Some(&certificate) {
        check_pair(&certificate.chain_pem, &certificate.key_pem)?;
        check_validity(&certificate, before, now_s)?;
    }
    Ok(certificate)
}

/// What is out of date takes no place of what is not. Where there is nothing better it serves: some client may take it.
fn check_validity(
    certificate: &push::Certificate,
    before: Option<&push::Certificate>,
    now_s: i64,
) -> Result<(), String> {
    let is_valid = |validity: Validity| (validity.begins_s..=validity.ends_s).contains(&now_s);
    let Some(own) = expiry::validity(certificate).filter(|own| !is_valid(*own)) else { return Ok(()) };
    if !before.and_then(expiry::validity).is_some_and(is_valid) {
        return Ok(());
    }
    let fault = if own.ends_s < now_s { "has expired" } else { "is not valid yet" };
    Err(format!("is a Secret whose certificate {fault}: put a valid one into tls.crt"))
}

fn check_pair(chain_pem: &[u8], key_pem: &[u8]) -> Result<(), String> {
    let fault = |sentence: &str| Err(format!("is a Secret whose {sentence}"));
    let chain = CertificateDer::pem_slice_iter(chain_pem).take(CHAIN_CERTIFICATES_MAX + 1);
    let Ok(chain) = chain.collect::<Result<Vec<_>, _>>() else {
        return fault("tls.crt is not a PEM certificate chain: put the leaf first");
    };
    let Some(leaf) = chain.first() else {
        return fault("tls.crt is not a PEM certificate chain: put the leaf first");
    };
    if chain.len() > CHAIN_CERTIFICATES_MAX {
        return fault(&format!(
            "tls.crt holds more than {CHAIN_CERTIFICATES_MAX} certificates: leave out the root and what is not of the chain"
        ));
    }
    let Some(leaf) = leaf_public_key(leaf) else {
        return fault(
            "tls.crt begins with something that is not an X.509 v3 certificate: put the leaf first",
        );
    };
    let Ok(key) = PrivateKeyDer::from_pem_slice(key_pem) else {
        if key_pem.windows(9).any(|text| text == b"ENCRYPTED") {
            return fault("tls.key is encrypted, and nobody here has its passphrase: put the bare key there");
        }
        return fault("tls.key is not a PEM private key: use PKCS#8, PKCS#1 or SEC1");
    };
    match public_key(&key) {
        None => fault(
            "tls.key is of a kind that TLS cannot use: take RSA (2048 bits and more), ECDSA (P-256, P-384, P-521) or Ed25519",
        ),
        Some(public) if public != leaf => fault(
            "tls.key does not belong to the first certificate of tls.crt: put that certificate's key there",
        ),
        Some(_) => Ok(()),
    }
}

/// The bits of the public key in a certificate.
fn leaf_public_key(leaf: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
    // The names are read by the proxy, and must be readable.
    certificate.subject_alternative_name().ok()?;
    let is_v3 = certificate.version == X509Version::V3;
    is_v3.then(|| certificate.public_key().subject_public_key.data.to_vec())
}

/// The bits of the public key that belongs to a private one, as a certificate holds them. `None` for a kind that
/// rustls does not sign with; the kinds are tried in its order.
fn public_key(key: &PrivateKeyDer<'_>) -> Option<Vec<u8>> {
    let der = key.secret_der();
    let rsa = match key {
        PrivateKeyDer::Pkcs1(_) => RsaKeyPair::from_der(der).ok(),
        PrivateKeyDer::Pkcs8(_) => RsaKeyPair::from_pkcs8(der).ok(),
        _ => None,
    };
    let ecdsa = || {
        let curves = [
            &ECDSA_P256_SHA256_ASN1_SIGNING,
            &ECDSA_P384_SHA384_ASN1_SIGNING,
            &ECDSA_P521_SHA512_ASN1_SIGNING,
        ];
        curves.into_iter().find_map(|curve| EcdsaKeyPair::from_private_key_der(curve, der).ok())
    };
    if let Some(rsa) = rsa {
        return Some(rsa.public_key().as_ref().to_vec());
    }
    if let Some(ecdsa) = ecdsa() {
        return Some(ecdsa.public_key().as_ref().to_vec());
    }
    let ed25519 = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok()?;
    Some(ed25519.public_key().as_ref().to_vec())
}

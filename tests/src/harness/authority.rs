//! Certificates of an authority that only the test trusts.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType, date_time_ymd,
};
use std::path::{Path, PathBuf};

/// A certificate authority.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, both as PEM.
#[derive(Debug, Clone)]
pub struct KeyPairText {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: String,
}

/// Where a certificate and its key were written.
#[derive(Debug, Clone)]
pub struct KeyPairFiles {
    /// The certificate.
    pub certificate: PathBuf,
    /// The key.
    pub key: PathBuf,
}

impl Authority {
    /// A new one.
    ///
    /// # Panics
    /// When the system has no randomness.
    #[must_use]
    pub fn new() -> Self {
        let mut params = named("the test's authority", &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, key()).expect("complete parameters");
        Self { issuer }
    }

    /// What a client trusts, as PEM.
    #[must_use]
    pub fn certificate(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate of this common name for these DNS names, IP addresses and URIs.
    ///
    /// # Panics
    /// When a name cannot be one.
    #[must_use]
    pub fn issue(&self, common_name: &str, names: &[&str]) -> KeyPairText {
        self.sign(&named(common_name, names))
    }

    /// The same, expired years ago.
    ///
    /// # Panics
    /// When a name cannot be one.
    #[must_use]
    pub fn issue_expired(&self, common_name: &str, names: &[&str]) -> KeyPairText {
        let mut params = named(common_name, names);
        (params.not_before, params.not_after) = (date_time_ymd(2019, 1, 1), date_time_ymd(2020, 1, 1));
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> KeyPairText {
        let key = key();
        let certificate = params.signed_by(&key, &self.issuer).expect("complete parameters");
        KeyPairText { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

impl KeyPairText {
    /// Writes `NAME.crt` and `NAME.key`, each in one step.
    ///
    /// # Panics
    /// When the disk is full.
    pub fn write(&self, folder: &Path, name: &str) -> KeyPairFiles {
        let files = KeyPairFiles {
            certificate: folder.join(format!("{name}.crt")),
            key: folder.join(format!("{name}.key")),
        };
        replace(&files.certificate, &self.certificate);
        replace(&files.key, &self.key);
        files
    }
}

/// Writes a file in one step.
///
/// # Panics
/// When the disk is full.
pub fn replace(file: &Path, text: &str) {
    let scratch = file.with_extension("writing");
    std::fs::write(&scratch, text).expect("a writable folder");
    std::fs::rename(&scratch, file).expect("a writable folder");
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

fn named(common_name: &str, names: &[&str]) -> CertificateParams {
    let (uris, names): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| name.contains("://"));
    let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
    let mut params = CertificateParams::new(names).expect("DNS names and IP addresses");
    let uris = uris.into_iter().map(|uri| SanType::URI(uri.try_into().expect("ASCII")));
    params.subject_alt_names.extend(uris);
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

/// An ECDSA key, as PKCS #8 where it is written.
pub(crate) fn key() -> KeyPair {
    KeyPair::generate().expect("the system has randomness")
}

//! Certificates of an authority that only the test trusts.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

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

    /// A certificate of this common name for these DNS names and IP addresses.
    ///
    /// # Panics
    /// When a name cannot be one.
    #[must_use]
    pub fn issue(&self, common_name: &str, names: &[&str]) -> KeyPairText {
        let key = key();
        let certificate =
            named(common_name, names).signed_by(&key, &self.issuer).expect("complete parameters");
        KeyPairText { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

fn named(common_name: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("DNS names and IP addresses");
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

/// An ECDSA key, as PKCS #8 where it is written.
pub(crate) fn key() -> KeyPair {
    KeyPair::generate().expect("the system has randomness")
}

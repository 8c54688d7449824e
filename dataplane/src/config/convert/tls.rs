//! Certificates and TLS, from the wire.

use super::Rejection;
use crate::tls::backends;
use crate::tls::policies::{TlsPolicy, id_of};
use crate::tls::{CertificateError, ServerCertificate};
use lb_core::backend::TlsProfile;
use std::sync::Arc;
use weir_proto::push;

/// What was read of one configuration, so that what did not change is read once.
#[derive(Debug, Default)]
pub(in crate::config) struct Certificates {
    /// By what they were on the wire.
    pairs: Vec<(push::Certificate, Arc<ServerCertificate>)>,
    profiles: Vec<TlsProfile>,
    policies: Vec<Arc<TlsPolicy>>,
}

/// Reads certificates, and takes from before what is the same.
pub(super) struct Reader<'a> {
    known: &'a Certificates,
    pub(super) used: Certificates,
}

impl<'a> Reader<'a> {
    pub(super) fn new(known: &'a Certificates) -> Self {
        Self { known, used: Certificates::default() }
    }

    pub(super) fn pair(
        &mut self,
        wire: &push::Certificate,
    ) -> Result<Arc<ServerCertificate>, CertificateError> {
        let mut pairs = self.known.pairs.iter().chain(&self.used.pairs);
        let found = pairs.find(|(read, _)| read == wire).map(|(_, made)| Arc::clone(made));
        let certificate = match found {
            Some(certificate) => certificate,
            None => Arc::new(ServerCertificate::new(wire)?),
        };
        if !self.used.pairs.iter().any(|(read, _)| read == wire) {
            self.used.pairs.push((wire.clone(), Arc::clone(&certificate)));
        }
        Ok(certificate)
    }

    /// What a listener asks of handshakes.
    pub(super) fn policy(&mut self, field: &str, wire: &push::Tls) -> Result<Arc<TlsPolicy>, Rejection> {
        let id = id_of(wire);
        let mut policies = self.known.policies.iter().chain(&self.used.policies);
        let policy = match policies.find(|policy| policy.id() == id) {
            Some(policy) => Arc::clone(policy),
            None => {
                let policy = TlsPolicy::new(wire);
                Arc::new(policy.map_err(|error| Rejection::new(field, error.to_string()))?)
            }
        };
        if !self.used.policies.contains(&policy) {
            self.used.policies.push(Arc::clone(&policy));
        }
        Ok(policy)
    }

    /// How the backends of a set are spoken to.
    pub(super) fn profile(&mut self, set: &push::BackendSet) -> Result<Option<TlsProfile>, Rejection> {
        let Some(wire) = &set.tls else { return Ok(None) };
        let digest = backends::digest_of(wire);
        let mut profiles = self.known.profiles.iter().chain(&self.used.profiles);
        let profile = match profiles.find(|profile| profile.digest() == digest) {
            Some(profile) => profile.clone(),
            None => backends::profile(wire).map_err(|error| {
                Rejection::new(format!("spec.backendSets[{}].tls", set.name), error.to_string())
            })?,
        };
        if !self.used.profiles.contains(&profile) {
            self.used.profiles.push(profile.clone());
        }
        Ok(Some(profile))
    }
}

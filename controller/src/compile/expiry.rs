//! When certificates end.

use super::certificates::certificates_of;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use std::collections::BTreeMap;
use weir_proto::push::{self, PoolConfig};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// For how long a certificate is valid, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Its first second.
    pub begins_s: i64,
    /// Its last one.
    pub ends_s: i64,
}

/// Of the certificates that a configuration shows to clients and backends, by the Secret that they come from
/// ("namespace/name").
pub(super) fn of(config: &PoolConfig) -> BTreeMap<String, Validity> {
    let each = certificates_of(Some(config));
    each.filter_map(|held| Some((held.source.clone(), validity(held)?))).collect()
}

/// Of the leaf; `None` where it cannot be read.
pub(super) fn validity(held: &push::Certificate) -> Option<Validity> {
    let leaf = CertificateDer::pem_slice_iter(&held.chain_pem).next()?.ok()?;
    let (_, leaf) = X509Certificate::from_der(&leaf).ok()?;
    let validity = leaf.validity();
    Some(Validity { begins_s: validity.not_before.timestamp(), ends_s: validity.not_after.timestamp() })
}

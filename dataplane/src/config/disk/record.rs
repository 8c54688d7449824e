//! One pool on disk: its configuration and its sets, and its private keys apart.

use super::Kept;
use super::format::{Keys, Record, Refusal, Secret};
use super::secrets::Care;
use crate::config::content::SetContent;
use bytes::Bytes;
use prost::Message as _;
use std::collections::BTreeMap;
use weir_proto::digest;
use weir_proto::push::{BackendSetContent, BackendTls, Certificate, Listener, PoolConfig, PoolUpdate};

/// What the key ring is sealed as. No pool's name: those have a slash.
pub(super) const KEY_RING: &str = "key ring";

/// What a record says, without reading it: where it is equal, nothing is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    config: u64,
    sets: Vec<(String, u64)>,
    keys: Form,
}

/// How the private keys of a pool stand on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// The pool has none.
    None,
    Sealed,
    Plain,
    LeftOut,
}

/// A pool as it was kept.
#[derive(Debug)]
pub(in crate::config) struct RestoredPool {
    pub(in crate::config) config: PoolConfig,
    pub(in crate::config) sets: BTreeMap<String, SetContent>,
    /// Names of the listeners that are left out of `config`, and of the sets that are closed, since their private keys are
    /// not there.
    pub(in crate::config) waiting: Vec<String>,
    keys: Form,
}

impl RestoredPool {
    /// Of what is held, whatever a controller said: fields that the proxy which wrote it did not know are not there.
    pub(in crate::config) fn digest(&self) -> u64 {
        digest::config(&self.config)
    }

    /// `None` where the record holds more than could be read.
    pub(super) fn mark(&self) -> Option<Mark> {
        let sets = self.sets.iter().map(|(set, content)| (set.clone(), content.digest()));
        let is_whole = self.waiting.is_empty();
        is_whole.then(|| Mark { config: self.digest(), sets: sets.collect(), keys: self.keys })
    }
}

pub(super) fn mark(kept: &Kept, care: &Care) -> Mark {
    let has_keys = kept.config.listeners.iter().any(|listener| listener.tls.is_some())
        || kept.config.backend_sets.iter().any(|set| shows_certificate(set.tls.as_ref()));
    let keys = match care {
        _ if !has_keys => Form::None,
        Care::Sealed(_) => Form::Sealed,
        Care::Memory => Form::Plain,
        Care::LeftOut => Form::LeftOut,
    };
    let mut sets: Vec<_> = kept.sets.iter().map(|(set, content)| (set.clone(), content.digest())).collect();
    sets.sort();
    Mark { config: kept.digest, sets, keys }
}

/// Costs a copy of the pool.
pub(super) fn encode(kept: &Kept, care: &Care) -> Bytes {
    let mut config = PoolConfig::clone(&kept.config);
    let pem: Vec<_> = certificates(&mut config).map(|c| std::mem::take(&mut c.key_pem)).collect();
    let keys = (!pem.is_empty()).then(|| care.keep(&config.pool, Keys { pem }.encode_to_vec())).flatten();
    let sets = kept.sets.iter().map(|(set, content)| BackendSetContent {
        set: set.clone(),
        digest: content.digest(),
        backends: content.backends().cloned().collect(),
    });
    let sets = sets.collect();
    let update = PoolUpdate { config: Some(config), sets, ..PoolUpdate::default() };
    Record { update: Some(update), keys }.encode_to_vec().into()
}

/// Reads a record back, with as many of its listeners as there are private keys for: all of them or those without TLS.
pub(super) fn open(record: Bytes, care: &Care) -> Result<RestoredPool, Refusal> {
    let Record { update, keys } = Record::decode(record)?;
    let update = update.unwrap_or_default();
    let mut config = update.config.unwrap_or_default();
    if config.pool.is_empty() {
        return Err(Refusal::Pool(config.pool));
    }
    let sets = update.sets.into_iter().map(|set| (set.set, SetContent::new(set.backends)));
    let sets = sets.collect();
    let form = match &keys {
        Some(Secret { sealed, .. }) if !sealed.is_empty() => Form::Sealed,
        Some(_) => Form::Plain,
        None => Form::None,
    };
    let needed = certificates(&mut config).count();
    let pem = keys.and_then(|secret| care.open(&config.pool, secret));
    let pem = pem.and_then(|keys| Keys::decode(&*keys).ok()).map(|keys| keys.pem).unwrap_or_default();
    let mut waiting = Vec::new();
    if pem.len() == needed {
        certificates(&mut config).zip(pem).for_each(|(certificate, pem)| certificate.key_pem = pem);
    } else {
        let (secured, open) = config.listeners.into_iter().partition(|listener| listener.tls.is_some());
        config.listeners = open;
        let secured: Vec<Listener> = secured;
        waiting.extend(secured.into_iter().map(|listener| listener.name));
        // Without its key a set could not say who it is: its backends are not spoken to.
        for set in &mut config.backend_sets {
            if let Some(tls) = set.tls.as_mut().filter(|tls| shows_certificate(Some(tls))) {
                *tls = BackendTls { hostname: std::mem::take(&mut tls.hostname), ..BackendTls::default() };
                waiting.push(format!("backend set {}", set.name));
            }
        }
    }
    Ok(RestoredPool { config, sets, waiting, keys: form })
}

fn shows_certificate(tls: Option<&BackendTls>) -> bool {
    tls.is_some_and(|tls| tls.client_certificate.is_some())
}

/// Those of listeners, then those of sets.
fn certificates(config: &mut PoolConfig) -> impl Iterator<Item = &mut Certificate> {
    let listeners = config.listeners.iter_mut().filter_map(|listener| listener.tls.as_mut());
    let sets = config.backend_sets.iter_mut().filter_map(|set| set.tls.as_mut());
    let of_sets = sets.filter_map(|tls| tls.client_certificate.as_mut());
    listeners.flat_map(|tls| &mut tls.certificates).chain(of_sets)
}

//! The parts of a [`super::replica::Replica`]: a set's members with their running digest, an update in chunks.

use prost::Message as _;
use std::collections::BTreeMap;
use std::sync::Arc;
use weir_proto::digest;
use weir_proto::push::{Backend, BackendDelta, PoolConfig, PoolUpdate, SetDelta, Version};

/// A pool's configuration and its digest, which is taken as it came: a later controller may have digested fields that
/// this proxy does not know.
#[derive(Debug, Clone)]
pub(super) struct WireConfig {
    pub(super) config: Arc<PoolConfig>,
    pub(super) digest: u64,
    /// It came from disk, and listeners are left out whose private keys are not there. Never claimed to be known, and
    /// never written over what is on disk.
    pub(super) is_partial: bool,
}

/// Who is in a set. Shared with who writes it to disk: cloned in no time, and copied by the first change while somebody
/// else holds it.
#[derive(Debug, Clone, Default)]
pub(super) struct SetContent {
    digest: u64,
    backends: Arc<BTreeMap<String, Backend>>,
}

impl SetContent {
    pub(super) fn new(backends: Vec<Backend>) -> Self {
        let mut content = Self::default();
        for backend in backends {
            content.upsert(backend);
        }
        content
    }

    /// Always that of what is held, whatever the controller said.
    pub(super) fn digest(&self) -> u64 {
        self.digest
    }

    pub(super) fn backends(&self) -> impl Iterator<Item = &Backend> {
        self.backends.values()
    }

    /// O(log n) for each backend named.
    pub(super) fn apply(&mut self, delta: &SetDelta) {
        for id in &delta.removed {
            if let Some(old) = Arc::make_mut(&mut self.backends).remove(id) {
                self.digest = self.digest.wrapping_sub(digest::backend(&old));
            }
        }
        for backend in &delta.upserted {
            self.upsert(backend.clone());
        }
    }

    fn upsert(&mut self, backend: Backend) {
        self.digest = self.digest.wrapping_add(digest::backend(&backend));
        if let Some(old) = Arc::make_mut(&mut self.backends).insert(backend.id.clone(), backend) {
            self.digest = self.digest.wrapping_sub(digest::backend(&old));
        }
    }
}

/// An update of which not all chunks have come.
#[derive(Debug)]
pub(super) struct Assembly {
    pub(super) version: Option<Version>,
    pub(super) next_index: u32,
    pub(super) payload: Vec<u8>,
    /// Deltas that came since the first chunk, in order.
    pub(super) held: Vec<BackendDelta>,
    /// Sets that those deltas touched, as they are live meanwhile.
    pub(super) live: BTreeMap<String, SetContent>,
}

impl Assembly {
    pub(super) fn new(version: Option<Version>) -> Self {
        Self { version, next_index: 0, payload: Vec::new(), held: Vec::new(), live: BTreeMap::new() }
    }

    /// The version that the pool will be at when the update is whole and what was held is applied.
    pub(super) fn tail(&self) -> Option<Version> {
        self.held.last().map_or(self.version, |delta| delta.version)
    }

    /// Decodes and checks: the configuration, and each of its sets' contents, sent or kept from `held`.
    pub(super) fn contents(
        &self,
        pool: &str,
        held: &BTreeMap<String, SetContent>,
    ) -> Result<(WireConfig, BTreeMap<String, SetContent>), String> {
        let update = PoolUpdate::decode(&*self.payload)
            .map_err(|error| format!("the update cannot be decoded: {error}"))?;
        let config = update.config.ok_or("the update has no configuration")?;
        if config.pool != pool {
            return Err(format!("the update is for pool {:?}", config.pool));
        }
        let mut fresh = BTreeMap::new();
        for kept in update.kept {
            match held.get(&kept.set) {
                Some(content) if content.digest == kept.digest => fresh.insert(kept.set, content.clone()),
                _ => return Err(format!("set {:?} was to be kept and differs", kept.set)),
            };
        }
        for sent in update.sets {
            let content = SetContent::new(sent.backends);
            if content.digest != sent.digest {
                return Err(format!("set {:?} has another digest than was sent with it", sent.set));
            }
            fresh.insert(sent.set, content);
        }
        let digest = update.config_digest;
        Ok((WireConfig { config: Arc::new(config), digest, is_partial: false }, fresh))
    }
}

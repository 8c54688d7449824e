//! A pool at one version, and what it serves.

use crate::compile::{BackendSetContent, CompiledPool, DataPlane};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Instant;
use weir_proto::push::{PoolConfig, Version};

/// A pool at one version.
#[derive(Debug)]
pub struct Pool {
    /// `namespace/name`.
    pub name: Arc<str>,
    /// Of this store's epoch. The sequence is even and grows with each version.
    pub version: Version,
    /// Sequence of the newest version that took a backend away, or the readiness of one, or that may have: such a change
    /// is never held back.
    pub takes_away: u64,
    /// Sets that had no backends when the store was loaded, and have had none since.
    pub empty_from_start: BTreeSet<String>,
    /// What it serves.
    pub contents: Contents,
    /// When the oldest event was seen that made this version differ from the one before.
    pub seen: Instant,
    /// All of it for a proxy that has nothing, encoded once for all of them.
    pub(crate) whole: OnceLock<Bytes>,
}

/// What a pool serves.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Contents {
    /// For the wire.
    pub config: Arc<PoolConfig>,
    /// Of `config`.
    pub config_digest: u64,
    /// Which proxies serve it. A changed one makes a new version, though no proxy sees it.
    pub data_plane: Arc<DataPlane>,
    /// Who is in each set of `config`. Two versions share what is equal.
    pub sets: BTreeMap<String, Arc<BackendSetContent>>,
}

impl Pool {
    /// The version of a proxy that has this one's backends and not yet its configuration: higher than every version
    /// before, lower than this one.
    pub(crate) fn version_ahead(&self) -> Version {
        Version { sequence: self.version.sequence - 1, ..self.version }
    }
}

impl From<&CompiledPool> for Contents {
    fn from(pool: &CompiledPool) -> Self {
        let sets = pool.sets.iter().map(|(name, set)| (name.clone(), Arc::clone(&set.content)));
        Self {
            config: Arc::clone(&pool.config),
            config_digest: pool.config_digest,
            data_plane: Arc::clone(&pool.data_plane),
            sets: sets.collect(),
        }
    }
}

impl Contents {
    pub(super) fn is_equal(&self, other: &Self) -> bool {
        self.config_digest == other.config_digest
            && self.data_plane == other.data_plane
            && self.sets.len() == other.sets.len()
            && self
                .sets
                .iter()
                .zip(&other.sets)
                .all(|((a, old), (b, new))| a == b && old.digest == new.digest)
    }

    pub(super) fn empty_sets(&self) -> BTreeSet<String> {
        let empty = self.sets.iter().filter(|(_, set)| set.backends.is_empty());
        empty.map(|(name, _)| name.clone()).collect()
    }

    /// Takes what is equal from the version before, so that old versions that streams still hold share it.
    pub(super) fn reuse(&mut self, before: &Self) {
        if before.config_digest == self.config_digest {
            self.config = Arc::clone(&before.config);
        }
        if before.data_plane == self.data_plane {
            self.data_plane = Arc::clone(&before.data_plane);
        }
        for (name, set) in &mut self.sets {
            if let Some(old) = before.sets.get(name)
                && old.digest == set.digest
            {
                *set = Arc::clone(old);
            }
        }
    }
}

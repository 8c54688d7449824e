//! Pools that come from disk, and what goes there.

use super::{PoolReplica, Replica};
use crate::config::content::WireConfig;
use crate::config::disk::{Kept, RestoredPool};
use std::sync::Arc;
use weir_proto::push::BackendSet;

impl Replica {
    /// Takes over a pool that was kept, as a candidate. Gives the names of its sets.
    pub(in crate::config) fn restore(&mut self, pool: RestoredPool) -> Vec<String> {
        let (digest, is_partial) = (pool.digest(), !pool.waiting.is_empty());
        let RestoredPool { config, sets, .. } = pool;
        let names = sets.keys().cloned().collect();
        let name = config.pool.clone();
        let candidate = Some(WireConfig { config: Arc::new(config), digest, is_partial });
        self.pools.insert(name, PoolReplica { candidate, sets, ..PoolReplica::default() });
        names
    }

    /// What is to be kept of a pool, or that it is gone. Nothing where it is not in force as a whole: what was kept
    /// before stays. That is so too while members of one of its sets are those of another configuration's source.
    pub(in crate::config) fn keepsake(&self, name: &str) -> Option<Option<Kept>> {
        let Some(pool) = self.pools.get(name) else { return Some(None) };
        let WireConfig { config, digest, .. } = pool.in_force.as_ref().filter(|wire| !wire.is_partial)?;
        let set = |set: &BackendSet| {
            let content = pool.live(&set.name).filter(|_| self.is_of_source_in_force(name, &set.name))?;
            Some((set.name.clone(), content.clone()))
        };
        let sets = config.backend_sets.iter().map(set).collect::<Option<_>>()?;
        Some(Some(Kept { config: Arc::clone(config), digest: *digest, sets }))
    }
}

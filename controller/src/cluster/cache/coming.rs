//! Pools as they were last read, until what they name is read.
//!
//! A pool that names another Secret or selector serves what it said before until that is known, instead of losing a
//! listener or its backends for the moment in between. It waits alone: all others go on.

use super::{Cache, Changes, ObjectKey, Objects, WatchId};
use std::collections::BTreeMap;
use std::sync::Arc;
use weir_crds::LoadBalancerPool;

/// What pools are to say next.
#[derive(Debug, Default)]
pub(crate) struct Coming(BTreeMap<ObjectKey, Arc<LoadBalancerPool>>);

impl Coming {
    pub(super) fn insert(&mut self, key: ObjectKey, pool: Arc<LoadBalancerPool>) {
        self.0.insert(key, pool);
    }

    /// Whether it was there.
    pub(super) fn remove(&mut self, key: &ObjectKey) -> bool {
        self.0.remove(key).is_some()
    }

    /// The pool as it was last read.
    pub(super) fn newest<'a>(
        &'a mut self,
        key: &ObjectKey,
        objects: &'a mut Objects,
    ) -> Option<&'a mut Arc<LoadBalancerPool>> {
        self.0.get_mut(key).or_else(|| objects.pools.get_mut(key))
    }

    /// What the pool is to say and what it says now, as far as there is either.
    pub(crate) fn and_in_force<'a>(
        &'a self,
        key: &ObjectKey,
        objects: &'a Objects,
    ) -> impl Iterator<Item = &'a LoadBalancerPool> {
        self.0.get(key).into_iter().chain(objects.pools.get(key)).map(|pool| &**pool)
    }
}

impl Cache {
    /// Whether some pool waits for what it names.
    pub(crate) fn are_any_coming(&self) -> bool {
        !self.coming.0.is_empty()
    }

    /// Pools that wait for what they name.
    pub(crate) fn coming(&self) -> impl Iterator<Item = &ObjectKey> {
        self.coming.0.keys()
    }

    /// A pool is new or different; it says so once what it names is read ([`Self::take_in_use`]).
    pub(super) fn put_pool(&mut self, key: ObjectKey, pool: Arc<LoadBalancerPool>, changes: &mut Changes) {
        let was_malformed = self.malformed.remove(&key).is_some();
        // The uid tells a pool from its successor of the same name, and age decides who has a port.
        let compiles_as =
            |pool: &LoadBalancerPool| (pool.metadata.uid.clone(), pool.metadata.creation_timestamp.clone());
        let newest = self.coming.newest(&key, &mut self.objects);
        let is_same =
            |before: &LoadBalancerPool| before.spec == pool.spec && compiles_as(before) == compiles_as(&pool);
        match newest.filter(|before| is_same(before)) {
            Some(before) => {
                if was_malformed {
                    changes.touched.pools.insert(key);
                } else if *before != pool {
                    changes.pools.insert(key);
                }
                *before = pool;
            }
            None => {
                self.coming.insert(key.clone(), pool);
                changes.touched.pools.insert(key);
            }
        }
    }

    /// Whether any pool waited for nothing more.
    pub(super) fn take_in_use(&mut self, changes: &mut Changes) -> bool {
        let is_waited_for = |id: WatchId| self.unsettled.contains(&id);
        let waits = |key: &ObjectKey| {
            self.references.of(key).iter().cloned().map(WatchId::secret).any(is_waited_for)
                || self.selectors.of(key).cloned().map(WatchId::pods).any(is_waited_for)
        };
        let ready: Vec<_> = self.coming.0.extract_if(.., |key, _| !waits(key)).collect();
        changes.touched.pools.extend(ready.iter().map(|(key, _)| key.clone()));
        let is_any = !ready.is_empty();
        self.objects.pools.extend(ready);
        is_any
    }
}

//! The Secrets that pools name and may use, kept up to date pool by pool.

use super::cache::Coming;
use crate::compile::{ObjectKey, Objects, Touched, secret_namespaces, secret_references, take};
use std::collections::{BTreeMap, BTreeSet};

/// Who names what. Nothing that nobody names is kept.
#[derive(Debug, Default)]
pub(super) struct References {
    by_pool: BTreeMap<ObjectKey, Named>,
    /// With how many pools name it.
    secrets: BTreeMap<ObjectKey, usize>,
    /// Pools that name a Secret of another namespace, permitted or not, by that namespace.
    abroad: BTreeMap<String, BTreeSet<ObjectKey>>,
}

#[derive(Debug, Default)]
struct Named {
    secrets: Vec<ObjectKey>,
    namespaces: BTreeSet<String>,
}

impl References {
    /// Every Secret that a pool names and may use, with the number of pools that do.
    pub(super) fn named(&self) -> &BTreeMap<ObjectKey, usize> {
        &self.secrets
    }

    /// The Secrets that a pool names and may use.
    pub(super) fn of(&self, pool: &ObjectKey) -> &[ObjectKey] {
        self.by_pool.get(pool).map_or(&[], |named| &named.secrets)
    }

    /// Takes in pools and grants that changed, and returns the Secrets that are named now and were not, or the reverse. A
    /// pool that is coming names what it named before, too.
    pub(super) fn follow(
        &mut self,
        touched: &Touched,
        objects: &Objects,
        coming: &Coming,
    ) -> BTreeSet<ObjectKey> {
        let abroad = touched.grants.iter().filter_map(|namespace| self.abroad.get(namespace)).flatten();
        let pools: BTreeSet<_> = touched.pools.iter().chain(abroad).cloned().collect();
        let mut moved = BTreeSet::new();
        for key in pools {
            let before = self.by_pool.remove(&key).unwrap_or_default();
            let mut now = Named::default();
            for pool in coming.and_in_force(&key, objects) {
                now.secrets.extend(secret_references(pool, objects));
                now.namespaces.extend(secret_namespaces(pool));
            }
            if !now.namespaces.is_empty() || !now.secrets.is_empty() {
                self.add(&key, &now, &mut moved);
                self.by_pool.insert(key.clone(), now);
            }
            self.remove(&key, &before, &mut moved);
        }
        moved
    }

    fn add(&mut self, pool: &ObjectKey, named: &Named, moved: &mut BTreeSet<ObjectKey>) {
        for secret in &named.secrets {
            let pools = self.secrets.entry(secret.clone()).or_default();
            *pools += 1;
            if *pools == 1 {
                toggle(moved, secret);
            }
        }
        for namespace in &named.namespaces {
            self.abroad.entry(namespace.clone()).or_default().insert(pool.clone());
        }
    }

    fn remove(&mut self, pool: &ObjectKey, named: &Named, moved: &mut BTreeSet<ObjectKey>) {
        for secret in &named.secrets {
            let Some(pools) = self.secrets.get_mut(secret) else { continue };
            *pools -= 1;
            if *pools == 0 {
                self.secrets.remove(secret);
                toggle(moved, secret);
            }
        }
        let still = self.by_pool.get(pool).map(|now| &now.namespaces);
        let left = |namespace: &&String| still.is_none_or(|still| !still.contains(*namespace));
        for namespace in named.namespaces.iter().filter(left) {
            take(&mut self.abroad, namespace, pool);
        }
    }
}

/// What comes and goes again has not moved.
fn toggle(moved: &mut BTreeSet<ObjectKey>, secret: &ObjectKey) {
    if !moved.remove(secret) {
        moved.insert(secret.clone());
    }
}

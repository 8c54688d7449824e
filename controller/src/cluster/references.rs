//! The Secrets that pools name and may use, kept up to date pool by pool.

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

    /// Takes in pools and grants that changed, and returns the Secrets that are named now and were not, or the reverse.
    pub(super) fn follow(&mut self, touched: &Touched, objects: &Objects) -> BTreeSet<ObjectKey> {
        let abroad = touched.grants.iter().filter_map(|namespace| self.abroad.get(namespace)).flatten();
        let pools: BTreeSet<_> = touched.pools.iter().chain(abroad).cloned().collect();
        let mut moved = BTreeSet::new();
        for key in pools {
            let before = self.by_pool.remove(&key).unwrap_or_default();
            let now = objects.pools.get(&key).map(|pool| Named {
                secrets: secret_references(pool, objects),
                namespaces: secret_namespaces(pool),
            });
            if let Some(now) = now {
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

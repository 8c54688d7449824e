//! What changed since a world was compiled, by name.

use super::{ObjectKey, Objects, Origin};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Objects that are new, different or gone. Naming one that is the same costs time and changes nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Touched {
    /// Pools.
    pub pools: BTreeSet<ObjectKey>,
    /// What backends follow, with a difference in it: a Service in itself or in one of its slices, a
    /// selector in its pods or in what is known of them, a name in its addresses, a Service of another cluster.
    pub origins: BTreeSet<Origin>,
    /// Secrets, and those of which it is known otherwise than before why they are not read.
    pub secrets: BTreeSet<ObjectKey>,
    /// Namespaces with a difference in what their grants permit.
    pub grants: BTreeSet<String>,
}

impl Touched {
    /// What is different between two states. Costs a look at every object, and a comparison of those that do not share
    /// their memory.
    #[must_use]
    pub fn between(before: &Objects, now: &Objects) -> Self {
        let mut services: BTreeSet<_> = differences(&before.services, &now.services).cloned().collect();
        let slices = before.slices().chain(now.slices()).map(|(key, _)| key).collect::<BTreeSet<_>>();
        let other = |key: &&ObjectKey| !is_same(before.slice(key), now.slice(key));
        for key in slices.into_iter().filter(other) {
            services.extend([before, now].into_iter().filter_map(|objects| objects.service_of_slice(key)));
        }
        let names = differences(&before.names, &now.names).cloned().map(Origin::Name);
        let selectors = before.pods.differences(&now.pods).cloned().map(Origin::Pods);
        let remotes = before.remotes.differences(&now.remotes).cloned().map(Origin::Remote);
        let unread = before.unread_secrets.keys().chain(now.unread_secrets.keys());
        let unread = unread.filter(|key| before.unread_secrets.get(key) != now.unread_secrets.get(key));
        Self {
            pools: differences(&before.pools, &now.pools).cloned().collect(),
            origins: services
                .into_iter()
                .map(Origin::Service)
                .chain(selectors)
                .chain(remotes)
                .chain(names)
                .collect(),
            secrets: differences(&before.secrets, &now.secrets).chain(unread).cloned().collect(),
            grants: differences(&before.grants, &now.grants).map(|key| key.namespace.clone()).collect(),
        }
    }

    /// Whether nothing is named.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Names what the other names too.
    pub fn extend(&mut self, other: Self) {
        self.pools.extend(other.pools);
        self.origins.extend(other.origins);
        self.secrets.extend(other.secrets);
        self.grants.extend(other.grants);
    }
}

fn differences<'a, K: Ord, T: PartialEq>(
    before: &'a BTreeMap<K, Arc<T>>,
    now: &'a BTreeMap<K, Arc<T>>,
) -> impl Iterator<Item = &'a K> {
    let gone = before.keys().filter(|key| !now.contains_key(key));
    gone.chain(now.iter().filter(|(key, object)| !is_same(before.get(key), Some(object))).map(|(key, _)| key))
}

fn is_same<T: PartialEq>(before: Option<&Arc<T>>, now: Option<&Arc<T>>) -> bool {
    match (before, now) {
        (Some(before), Some(now)) => Arc::ptr_eq(before, now) || before == now,
        (None, None) => true,
        _ => false,
    }
}

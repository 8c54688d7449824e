//! Who has to be looked at when something changes: pools by what they refer to, by what they claim, and in the order
//! in which claims are granted.

use super::certificates::sources_of;
use super::conflict::{Claimant, Claims, Turn};
use super::pool::{Claim, secrets_of};
use super::{CompiledPool, DataPlane, ObjectKey, Origin, SetKey};
use crate::dns::Wanted;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use weir_crds::LoadBalancerPool;
use weir_proto::limits::POOLS_MAX;

/// What a world knows of its pools beside what they compiled to. It follows from that and from the objects, and not from
/// the order in which they changed: two worlds that serve the same of the same objects have equal ones.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Index {
    places_max: usize,
    records: BTreeMap<ObjectKey, Record>,
    turns: BTreeSet<Arc<Turn>>,
    /// Pools that are served; more than `places_max` only while a change is being followed.
    placed: BTreeSet<Arc<Turn>>,
    /// Pools that come after the last place.
    displaced: BTreeSet<Arc<Turn>>,
    /// Of the pools that are served: what they were granted.
    pub(super) granted: Claims,
    /// Of the pools that are rejected since another has what they ask for: what they ask for.
    pub(super) awaited: Claims,
    /// Pools of which there is less than they ask for, see [`super::World::lacking`].
    pub(super) lacking: BTreeSet<ObjectKey>,
    /// Pools with a set that waits for a name, see [`super::World::open`].
    pub(super) open: BTreeSet<ObjectKey>,
    by_origin: BTreeMap<Origin, BTreeSet<SetKey>>,
    /// Those of `by_origin` that are names. Shared with who looks them up, and copied when they change.
    names: Wanted,
    by_secret: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
    /// Pools that refer from elsewhere to something in this namespace.
    by_namespace: BTreeMap<String, BTreeSet<ObjectKey>>,
}

#[derive(Debug, Clone, PartialEq)]
struct Record {
    turn: Arc<Turn>,
    secrets: BTreeSet<ObjectKey>,
    namespaces: BTreeSet<String>,
    awaited: Option<Awaited>,
}

/// What a pool asks for, and whose it would be.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Awaited {
    pub(super) data_plane: Arc<DataPlane>,
    pub(super) claims: Vec<Claim>,
}

/// What became of a pool.
pub(super) struct Outcome<'a> {
    pub(super) serving: Option<&'a CompiledPool>,
    pub(super) awaited: Option<Awaited>,
    pub(super) is_lacking: bool,
}

impl Default for Index {
    fn default() -> Self {
        Self::new(POOLS_MAX)
    }
}

impl Index {
    pub(super) fn new(places_max: usize) -> Self {
        Self {
            places_max,
            records: BTreeMap::new(),
            turns: BTreeSet::new(),
            placed: BTreeSet::new(),
            displaced: BTreeSet::new(),
            granted: Claims::default(),
            awaited: Claims::default(),
            lacking: BTreeSet::new(),
            open: BTreeSet::new(),
            by_origin: BTreeMap::new(),
            names: Wanted::default(),
            by_secret: BTreeMap::new(),
            by_namespace: BTreeMap::new(),
        }
    }

    pub(super) fn places_max(&self) -> usize {
        self.places_max
    }

    pub(super) fn turn(&self, pool: &ObjectKey) -> Option<&Arc<Turn>> {
        self.records.get(pool).map(|record| &record.turn)
    }

    pub(super) fn sets_of(&self, origin: &Origin) -> impl Iterator<Item = &SetKey> {
        self.by_origin.get(origin).into_iter().flatten()
    }

    /// Every name that a set follows.
    pub(super) fn names(&self) -> &Wanted {
        &self.names
    }

    /// Takes note of a set that was compiled again, and of what it and its pool's other sets are now.
    pub(super) fn refresh(&mut self, key: &SetKey, before: &[Origin], pool: &CompiledPool) {
        let now = pool.sets.get(&key.set).map(|set| set.origins.as_slice()).unwrap_or_default();
        if now != before {
            before.iter().for_each(|origin| self.leave(origin, key));
            now.iter().for_each(|origin| self.follow(origin.clone(), key.clone()));
        }
        if pool.is_open() {
            self.open.insert(key.pool.clone());
        } else {
            self.open.remove(&key.pool);
        }
    }

    fn follow(&mut self, origin: Origin, set: SetKey) {
        if let Origin::Name(lookup) = &origin
            && !self.names.contains(lookup)
        {
            Arc::make_mut(&mut self.names).insert(lookup.clone());
        }
        self.by_origin.entry(origin).or_default().insert(set);
    }

    fn leave(&mut self, origin: &Origin, set: &SetKey) {
        take(&mut self.by_origin, origin, set);
        if let Origin::Name(lookup) = origin
            && !self.by_origin.contains_key(origin)
        {
            Arc::make_mut(&mut self.names).remove(lookup);
        }
    }

    /// The turns of pools that name this Secret.
    pub(super) fn naming_secret(&self, secret: &ObjectKey) -> impl Iterator<Item = &Arc<Turn>> {
        self.by_secret.get(secret).into_iter().flatten().filter_map(|pool| self.turn(pool))
    }

    /// The turns of pools of other namespaces that refer to something in this one.
    pub(super) fn referring_to(&self, namespace: &str) -> impl Iterator<Item = &Arc<Turn>> {
        self.by_namespace.get(namespace).into_iter().flatten().filter_map(|pool| self.turn(pool))
    }

    /// Whether fewer pools are served before this turn than may be.
    pub(super) fn has_place(&self, turn: &Arc<Turn>) -> bool {
        match self.placed.len().checked_sub(self.places_max) {
            None => true,
            Some(excess) => self.placed.range(Arc::clone(turn)..).nth(excess).is_some(),
        }
    }

    /// The last turn that has a place; `None` while there is more room than pools.
    pub(super) fn last_place(&self) -> Option<Arc<Turn>> {
        let excess = self.placed.len().checked_sub(self.places_max)?;
        self.placed.iter().rev().nth(excess).cloned()
    }

    /// The first pool for which there was no place and is one now.
    pub(super) fn next_to_place(&self) -> Option<&Arc<Turn>> {
        self.displaced.first().filter(|turn| self.has_place(turn))
    }

    /// The turns after one, up to another if there is one, of pools that had a place when they were looked at.
    pub(super) fn placed_between(&self, after: &Turn, to: Option<&Turn>) -> impl Iterator<Item = &Arc<Turn>> {
        let to = to.map_or(Bound::Unbounded, Bound::Included);
        let between = self.turns.range::<Turn, _>((Bound::Excluded(after), to));
        between.filter(|turn| !self.displaced.contains(*turn))
    }

    pub(super) fn insert(&mut self, turn: &Arc<Turn>, pool: &LoadBalancerPool, outcome: Outcome<'_>) {
        let key = &turn.pool;
        let mut secrets = secrets_of(key, pool);
        let mut namespaces: BTreeSet<_> = secrets.iter().map(|secret| secret.namespace.clone()).collect();
        self.turns.insert(Arc::clone(turn));
        if !self.has_place(turn) {
            self.displaced.insert(Arc::clone(turn));
        }
        if let Some(serving) = outcome.serving {
            self.placed.insert(Arc::clone(turn));
            self.granted.insert(turn, &serving.data_plane, serving.claims());
            for (origin, set) in origins_of(key, serving) {
                namespaces.extend(origin.namespace().map(str::to_owned));
                // What a pool said before may name another Secret than it does now.
                if let Origin::Remote(remote) = &origin {
                    secrets.insert(remote.secret.clone());
                }
                self.follow(origin, set);
            }
            if serving.is_open() {
                self.open.insert(key.clone());
            }
            let sources = sources_of(&serving.config).filter_map(|source| source.split_once('/'));
            namespaces.extend(sources.map(|(namespace, _)| namespace.to_owned()));
        }
        if let Some(awaited) = &outcome.awaited {
            self.awaited.insert(turn, &awaited.data_plane, &awaited.claims);
        }
        if outcome.is_lacking {
            self.lacking.insert(key.clone());
        }
        namespaces.remove(&key.namespace);
        for secret in &secrets {
            self.by_secret.entry(secret.clone()).or_default().insert(key.clone());
        }
        for namespace in &namespaces {
            self.by_namespace.entry(namespace.clone()).or_default().insert(key.clone());
        }
        let record = Record { turn: Arc::clone(turn), secrets, namespaces, awaited: outcome.awaited };
        self.records.insert(key.clone(), record);
    }

    /// `serving` is what the pool was inserted with.
    pub(super) fn remove(&mut self, pool: &ObjectKey, serving: Option<&CompiledPool>) {
        let Some(record) = self.records.remove(pool) else { return };
        let Record { turn, secrets, namespaces, awaited } = &record;
        self.turns.remove(turn);
        self.placed.remove(turn);
        self.displaced.remove(turn);
        self.lacking.remove(pool);
        self.open.remove(pool);
        if let Some(serving) = serving {
            self.granted.remove(Claimant { turn, data_plane: &serving.data_plane }, serving.claims());
            origins_of(pool, serving).for_each(|(origin, set)| self.leave(&origin, &set));
        }
        if let Some(Awaited { data_plane, claims }) = awaited {
            self.awaited.remove(Claimant { turn, data_plane }, claims);
        }
        secrets.iter().for_each(|secret| take(&mut self.by_secret, secret, pool));
        namespaces.iter().for_each(|namespace| take(&mut self.by_namespace, namespace, pool));
    }
}

fn origins_of<'a>(pool: &'a ObjectKey, serving: &'a CompiledPool) -> impl Iterator<Item = (Origin, SetKey)> {
    serving.sets.iter().flat_map(|(name, set)| {
        let key = SetKey { pool: pool.clone(), set: name.clone() };
        set.origins.iter().map(move |origin| (origin.clone(), key.clone()))
    })
}

/// Takes one value away, and the key with its last one.
pub(crate) fn take<K: Ord, V: Ord>(of: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: &V) {
    let Some(values) = of.get_mut(key) else { return };
    values.remove(value);
    if values.is_empty() {
        of.remove(key);
    }
}

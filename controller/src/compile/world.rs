//! All pools together.

use super::certificates::without_revoked;
use super::conflict::{Claimant, Turn};
use super::index::{Awaited, Index, Outcome};
use super::pool::{self, Claim, Plan};
use super::sources::{Resolved, SetSource};
use super::{
    BackendSetContent, DataPlane, ObjectKey, Objects, Origin, Reason, Rejection, Validity, Warning, expiry,
};
use crate::dns::Wanted;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use weir_proto::digest;
use weir_proto::limits::POOLS_MAX;
use weir_proto::push::{PoolConfig, UpstreamProtocol};

/// What all objects compile to. What did not change shares its memory with the world before.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct World {
    /// Pools whose specification is accepted.
    pub pools: BTreeMap<ObjectKey, CompiledPool>,
    /// For a pool whose specification is rejected: what it said before, kept up to date in its backends. Absent
    /// where there is no before, where another pool was given its port and host, or past
    /// [`POOLS_MAX`] pools.
    pub last_good: BTreeMap<ObjectKey, CompiledPool>,
    /// Everything that is wrong with each pool that is not in `pools`; never empty lists.
    pub rejections: BTreeMap<ObjectKey, Vec<Rejection>>,
    pub(super) index: Index,
    /// Seconds since 1970, see [`Self::set_clock`].
    pub(super) now_s: i64,
}

/// One pool as the proxies get it.
#[derive(Debug, Clone, PartialEq)]
pub struct CompiledPool {
    /// For the wire.
    pub config: Arc<PoolConfig>,
    /// Of `config`; equal digests share one `Arc` from world to world.
    pub config_digest: u64,
    /// Which proxies serve it; equal ones share one `Arc` from world to world.
    pub data_plane: Arc<DataPlane>,
    /// Exactly the sets of `config`, by name.
    pub sets: BTreeMap<String, CompiledSet>,
    /// About the configuration; those about a set are with the set.
    pub config_warnings: Vec<Warning>,
    /// For how long the certificates of `config` are valid, by Secret.
    pub validities: Arc<BTreeMap<String, Validity>>,
    claims: Vec<Claim>,
    /// Of a Secret that is missing or broken, and none before could stand in.
    lacks_certificate: bool,
}

/// One set of a pool.
#[derive(Debug, Clone, PartialEq)]
pub struct CompiledSet {
    /// Equal digests share one `Arc` from world to world.
    pub content: Arc<BackendSetContent>,
    /// Where the backends come from.
    pub source: Arc<SetSource>,
    /// What they are spoken to in; the same in the pool's `config`.
    pub protocol: UpstreamProtocol,
    /// Why the set is empty, where its source does not resolve, what of its endpoints cannot be used, or what its
    /// backends will not get.
    pub warnings: Vec<Warning>,
    /// What its backends follow, in order, each once.
    pub origins: Vec<Origin>,
    /// It waits for a name, and `content` is what was there before.
    pub is_open: bool,
}

/// Names one set of one pool.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetKey {
    /// The `LoadBalancerPool`.
    pub pool: ObjectKey,
    /// The set's name in it.
    pub set: String,
}

/// Compiles everything. Depends on `previous` only for what is rejected or cannot be resolved now.
///
/// Each pool is compiled on its own, in the order of age and then name; only conflicts and the number of pools look at
/// those before it. [`World::update`] gives the same at the cost of what changed.
#[must_use]
pub fn world(objects: &Objects, previous: Option<&World>) -> World {
    let places_max = previous.map_or(POOLS_MAX, |previous| previous.index.places_max());
    let mut world = World { index: Index::new(places_max), ..World::default() };
    world.now_s = previous.map_or(0, |previous| previous.now_s);
    let turns: BTreeSet<_> = objects.pools.iter().map(|(key, pool)| Turn::new(key, pool)).collect();
    for turn in turns {
        let before = previous.and_then(|previous| previous.serving(&turn.pool));
        world.admit(&Arc::new(turn), objects, before);
    }
    world
}

/// A proxy takes no configuration at all rather than one of too many pools.
fn too_many(pool: &ObjectKey) -> Rejection {
    let rule = format!(
        "is past the {POOLS_MAX} pools that a proxy takes, of which older ones and then smaller names go first: remove some"
    );
    let value = format!("{:?}", pool.name);
    Rejection {
        pool: pool.clone(),
        field: "metadata.name".to_owned(),
        value,
        rule,
        reason: Reason::LimitReached,
    }
}

impl World {
    /// Tells the time by which certificates are found to be out of date from now on; none is before it was told.
    pub fn set_clock(&mut self, now: SystemTime) {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.now_s = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    }

    /// What the proxies are to run for this pool: as specified now, or else as specified before.
    #[must_use]
    pub fn serving(&self, pool: &ObjectKey) -> Option<&CompiledPool> {
        self.pools.get(pool).or_else(|| self.last_good.get(pool))
    }

    /// Every pool that is to be served, see [`World::serving`].
    pub fn all_serving(&self) -> impl Iterator<Item = (&ObjectKey, &CompiledPool)> {
        self.pools.iter().chain(&self.last_good)
    }

    /// How many pools are served.
    #[must_use]
    pub fn serving_count(&self) -> usize {
        self.pools.len() + self.last_good.len()
    }

    /// Pools of which the world has less than they ask for, and nothing of before that could stand in: rejected ones,
    /// and those that lack a certificate. Proxies may have more of them than this.
    pub fn lacking(&self) -> impl Iterator<Item = &ObjectKey> {
        self.index.lacking.iter()
    }

    /// Whether some set of a pool that is served follows this.
    #[must_use]
    pub fn is_followed(&self, origin: &Origin) -> bool {
        self.index.sets_of(origin).next().is_some()
    }

    /// Every warning of every pool that is served, pool by pool.
    pub fn warnings(&self) -> impl Iterator<Item = &Warning> {
        self.all_serving().flat_map(|(_, pool)| pool.warnings())
    }

    /// Names in DNS that sets follow.
    #[must_use]
    pub fn names(&self) -> &Wanted {
        self.index.names()
    }

    /// Pools with a set that waits for a name of which nothing is known yet. Proxies may have more of that set than this.
    pub fn open(&self) -> impl Iterator<Item = &ObjectKey> {
        self.index.open.iter()
    }

    /// Compiles the sets that follow one origin again, after something changed there, and names those whose content,
    /// protocol or warning is different now, or what they wait for. Costs what these sets cost, whatever the size of the world.
    /// Another protocol is another configuration of the pool.
    pub fn refresh(&mut self, origin: &Origin, objects: &Objects) -> Vec<SetKey> {
        let keys: Vec<SetKey> = self.index.sets_of(origin).cloned().collect();
        keys.into_iter().filter(|key| self.refresh_set(key, objects)).collect()
    }

    fn refresh_set(&mut self, key: &SetKey, objects: &Objects) -> bool {
        let pool = self.pools.get_mut(&key.pool).or_else(|| self.last_good.get_mut(&key.pool));
        let Some(pool) = pool else { return false };
        let Some(set) = pool.sets.get_mut(&key.set) else { return false };
        let refreshed = CompiledSet::new(&key.pool, &set.source, objects, Some(set));
        let before = std::mem::replace(set, refreshed);
        let is_other_protocol = before.protocol != set.protocol;
        let is_other = !Arc::ptr_eq(&before.content, &set.content) || before.warnings != set.warnings;
        let is_otherwise_known = before.origins != set.origins || before.is_open != set.is_open;
        if is_other_protocol {
            pool.speak();
        }
        if is_otherwise_known {
            self.index.refresh(key, &before.origins, pool);
        }
        is_other || is_other_protocol || is_otherwise_known
    }

    /// Compiles the pool of this turn, and gives it what it asks for where none of those before it has it; a rejected
    /// one what it had. `before` is what was served of it. The pool is not part of the world yet.
    pub(super) fn admit(&mut self, turn: &Arc<Turn>, objects: &Objects, before: Option<&CompiledPool>) {
        let key = &turn.pool;
        let Some(pool) = objects.pools.get(key) else { return };
        let plan = pool::plan(key, pool, objects, before.map(|before| &*before.config), self.now_s);
        let has_place = self.index.has_place(turn);
        let granted = plan.as_ref().map_err(Clone::clone).and_then(|plan| {
            has_place.then_some(()).ok_or_else(|| vec![too_many(key)])?;
            self.index.granted.check(Claimant { turn, data_plane: &plan.data_plane }, &plan.claims)?;
            Ok(CompiledPool::new(key, plan, objects, before))
        });
        let (mut serving, rejections) = match granted {
            Ok(compiled) => (Some(compiled), None),
            Err(rejections) => {
                let kept = before.filter(|before| {
                    let claimant = Claimant { turn, data_plane: &before.data_plane };
                    has_place && self.index.granted.check(claimant, &before.claims).is_ok()
                });
                (kept.map(|before| before.refreshed(key, objects)), Some(rejections))
            }
        };
        if let Some(serving) = &mut serving {
            let claimant = Claimant { turn, data_plane: &serving.data_plane };
            let overruled = self.index.granted.overruled(claimant, &serving.claims);
            serving.config_warnings.retain(|warning| warning.reason != Reason::Overruled);
            serving.config_warnings.extend(overruled);
        }
        let is_lacking = serving.as_ref().map_or(rejections.is_some(), |serving| serving.lacks_certificate);
        let is_denied = has_place && rejections.is_some();
        let awaited = plan
            .ok()
            .filter(|_| is_denied)
            .map(|plan| Awaited { data_plane: Arc::new(plan.data_plane), claims: plan.claims });
        self.index.insert(turn, pool, Outcome { serving: serving.as_ref(), awaited, is_lacking });
        let served = if rejections.is_some() { &mut self.last_good } else { &mut self.pools };
        served.extend(serving.map(|serving| (key.clone(), serving)));
        self.rejections.extend(rejections.map(|rejections| (key.clone(), rejections)));
    }

    /// Takes a pool out, and returns what was served of it.
    pub(super) fn expel(&mut self, pool: &ObjectKey) -> Option<CompiledPool> {
        self.rejections.remove(pool);
        let serving = self.pools.remove(pool).or_else(|| self.last_good.remove(pool));
        self.index.remove(pool, serving.as_ref());
        serving
    }
}

impl CompiledPool {
    /// Every warning: those of the configuration, then those of the sets.
    pub fn warnings(&self) -> impl Iterator<Item = &Warning> {
        self.config_warnings.iter().chain(self.sets.values().flat_map(|set| &set.warnings))
    }

    /// Whether one of its sets waits for a name.
    pub(super) fn is_open(&self) -> bool {
        self.sets.values().any(|set| set.is_open)
    }

    /// Ports and hosts that it was granted.
    pub(super) fn claims(&self) -> &[Claim] {
        &self.claims
    }

    fn new(key: &ObjectKey, plan: &Plan, objects: &Objects, before: Option<&Self>) -> Self {
        let set = |(name, source): (&String, &SetSource)| {
            let before = before.and_then(|before| before.sets.get(name));
            let source = match before {
                Some(before) if *before.source == *source => Arc::clone(&before.source),
                _ => Arc::new(source.clone()),
            };
            (name.clone(), CompiledSet::new(key, &source, objects, before))
        };
        let sets = plan.sources.iter().map(set).collect();
        let config = speaking(&plan.config, &sets);
        let config_digest = digest::config(&config);
        let config = match before {
            Some(before) if before.config_digest == config_digest => Arc::clone(&before.config),
            _ => Arc::new(config),
        };
        let validities = match before {
            Some(before) if before.config_digest == config_digest => Arc::clone(&before.validities),
            _ => Arc::new(expiry::of(&config)),
        };
        let data_plane = match before {
            Some(before) if *before.data_plane == plan.data_plane => Arc::clone(&before.data_plane),
            _ => Arc::new(plan.data_plane.clone()),
        };
        Self {
            config,
            config_digest,
            data_plane,
            sets,
            config_warnings: plan.warnings.clone(),
            validities,
            claims: plan.claims.clone(),
            lacks_certificate: plan.lacks_certificate,
        }
    }

    /// Brings the configuration up to date with the protocols of its sets: their Services say them, and change by
    /// themselves.
    fn speak(&mut self) {
        let is_said = |name: &str, said: UpstreamProtocol| {
            self.sets.get(name).is_none_or(|compiled| compiled.protocol == said)
        };
        if !self.config.backend_sets.iter().all(|set| is_said(&set.name, set.protocol())) {
            let config = speaking(&self.config, &self.sets);
            self.config_digest = digest::config(&config);
            self.config = Arc::new(config);
        }
    }

    fn refreshed(&self, key: &ObjectKey, objects: &Objects) -> Self {
        let set = |(name, set): (&String, &CompiledSet)| {
            (name.clone(), CompiledSet::new(key, &set.source, objects, Some(set)))
        };
        let mut refreshed = Self { sets: self.sets.iter().map(set).collect(), ..self.clone() };
        refreshed.speak();
        if let Some((config, warnings)) = without_revoked(key, &refreshed.config, objects) {
            refreshed.config_digest = digest::config(&config);
            refreshed.validities = Arc::new(expiry::of(&config));
            refreshed.config = Arc::new(config);
            refreshed.config_warnings.extend(warnings);
        }
        refreshed
    }
}

/// A configuration with the protocols of its sets.
fn speaking(config: &PoolConfig, sets: &BTreeMap<String, CompiledSet>) -> PoolConfig {
    let mut config = config.clone();
    for set in &mut config.backend_sets {
        set.set_protocol(sets.get(&set.name).map_or(UpstreamProtocol::Http1, |compiled| compiled.protocol));
    }
    config
}

impl CompiledSet {
    fn new(pool: &ObjectKey, source: &Arc<SetSource>, objects: &Objects, before: Option<&Self>) -> Self {
        let Resolved { content, protocol, warnings, name, is_open } = source.resolve(pool, objects);
        let content = match before {
            Some(before) if is_open => before.content_now(pool, objects),
            Some(before) if before.content.digest == content.digest => Arc::clone(&before.content),
            _ => Arc::new(content),
        };
        let origins: BTreeSet<_> = source.origins().chain(name.map(Origin::Name)).collect();
        let origins = origins.into_iter().collect();
        Self { content, source: Arc::clone(source), protocol, warnings, origins, is_open }
    }

    /// What it would hold if it were compiled now: the set that takes its place has nothing of its own yet.
    fn content_now(&self, pool: &ObjectKey, objects: &Objects) -> Arc<BackendSetContent> {
        let now = self.source.resolve(pool, objects);
        if now.is_open || now.content.digest == self.content.digest {
            return Arc::clone(&self.content);
        }
        Arc::new(now.content)
    }
}

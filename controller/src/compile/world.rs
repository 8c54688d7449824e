//! All pools together.

use super::backends::{self, Resolved, SetSource};
use super::certificates::without_revoked;
use super::conflict::{Claimant, Claims};
use super::pool::{self, Claim, Plan};
use super::{BackendSetContent, DataPlane, ObjectKey, Objects, Reason, Rejection, Warning};
use std::collections::BTreeMap;
use std::sync::Arc;
use weir_crds::LoadBalancerPool;
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
    /// Sets whose backends come from each Service.
    by_service: BTreeMap<ObjectKey, Vec<SetKey>>,
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
/// Each pool is compiled on its own; only conflicts look at two of them.
#[must_use]
pub fn world(objects: &Objects, previous: Option<&World>) -> World {
    let before = |key: &ObjectKey| previous.and_then(|world| world.serving(key));
    let mut pools: Vec<_> = objects.pools.iter().collect();
    pools.sort_by_key(|(key, pool)| (age(pool), *key));
    let plans: Vec<(&ObjectKey, Result<Plan, Vec<Rejection>>)> = pools
        .into_iter()
        .map(|(key, pool)| (key, pool::plan(key, pool, objects, before(key).map(|pool| &*pool.config))))
        .collect();

    let mut claims = Claims::default();
    let mut world = World::default();
    for (key, plan) in &plans {
        let has_place = world.pools.len() + world.last_good.len() < POOLS_MAX;
        let granted = plan.as_ref().map_err(Clone::clone).and_then(|plan| {
            has_place.then_some(()).ok_or_else(|| vec![too_many(key)])?;
            claims.grant(Claimant { pool: key, data_plane: &plan.data_plane }, &plan.claims)?;
            Ok(plan)
        });
        match granted {
            Ok(plan) => {
                world.pools.insert((*key).clone(), CompiledPool::new(key, plan, objects, before(key)));
            }
            Err(rejections) => {
                world.rejections.insert((*key).clone(), rejections);
                let kept = before(key).filter(|pool| {
                    let claimant = Claimant { pool: key, data_plane: &pool.data_plane };
                    has_place && claims.grant(claimant, &pool.claims).is_ok()
                });
                world.last_good.extend(kept.map(|pool| ((*key).clone(), pool.refreshed(key, objects))));
            }
        }
    }
    world.index();
    world
}

/// A proxy takes no configuration at all rather than one of too many pools.
fn too_many(pool: &ObjectKey) -> Rejection {
    let rule = format!(
        "is past the {POOLS_MAX} pools that a proxy takes, of which older ones and then smaller names go first: remove some"
    );
    let value = format!("{:?}", pool.name);
    Rejection { pool: pool.clone(), field: "metadata.name".to_owned(), value, rule, reason: Reason::Invalid }
}

impl World {
    /// What the proxies are to run for this pool: as specified now, or else as specified before.
    #[must_use]
    pub fn serving(&self, pool: &ObjectKey) -> Option<&CompiledPool> {
        self.pools.get(pool).or_else(|| self.last_good.get(pool))
    }

    /// Every pool that is to be served, see [`World::serving`].
    pub fn all_serving(&self) -> impl Iterator<Item = (&ObjectKey, &CompiledPool)> {
        self.pools.iter().chain(&self.last_good)
    }

    /// Pools of which the world has less than they ask for, and nothing of before that could stand in: rejected ones,
    /// and those that lack a certificate. Proxies may have more of them than this.
    pub fn lacking(&self) -> impl Iterator<Item = &ObjectKey> {
        let rejected = self.rejections.keys().filter(|key| self.serving(key).is_none());
        let served = self.all_serving().filter(|(_, pool)| pool.lacks_certificate);
        rejected.chain(served.map(|(key, _)| key))
    }

    /// Every warning of every pool that is served, pool by pool.
    pub fn warnings(&self) -> impl Iterator<Item = &Warning> {
        self.all_serving().flat_map(|(_, pool)| pool.warnings())
    }

    /// Compiles the sets of one Service again, after it or one of its EndpointSlices changed, and names those
    /// whose content, protocol or warning is different now. Costs what these sets cost, whatever the size of the world.
    /// Another protocol is another configuration of the pool.
    pub fn refresh_service(&mut self, service: &ObjectKey, objects: &Objects) -> Vec<SetKey> {
        let mut changed = Vec::new();
        for key in self.by_service.get(service).into_iter().flatten() {
            let pool = match self.pools.get_mut(&key.pool) {
                Some(pool) => pool,
                None => match self.last_good.get_mut(&key.pool) {
                    Some(pool) => pool,
                    None => continue,
                },
            };
            let Some(set) = pool.sets.get_mut(&key.set) else { continue };
            let refreshed = CompiledSet::new(&key.pool, &set.source, objects, Some(set));
            let is_other_protocol = refreshed.protocol != set.protocol;
            let is_other =
                !Arc::ptr_eq(&refreshed.content, &set.content) || refreshed.warnings != set.warnings;
            *set = refreshed;
            if is_other_protocol {
                pool.speak();
            }
            if is_other || is_other_protocol {
                changed.push(key.clone());
            }
        }
        changed
    }

    fn index(&mut self) {
        let mut by_service: BTreeMap<ObjectKey, Vec<SetKey>> = BTreeMap::new();
        for (pool, compiled) in self.all_serving() {
            for (name, set) in &compiled.sets {
                if let SetSource::Service { service, .. } = &*set.source {
                    let key = SetKey { pool: pool.clone(), set: name.clone() };
                    by_service.entry(service.clone()).or_default().push(key);
                }
            }
        }
        self.by_service = by_service;
    }
}

impl CompiledPool {
    /// Every warning: those of the configuration, then those of the sets.
    pub fn warnings(&self) -> impl Iterator<Item = &Warning> {
        self.config_warnings.iter().chain(self.sets.values().flat_map(|set| &set.warnings))
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
        let Resolved { content, protocol, warnings } = backends::resolve(pool, source, objects);
        let content = match before {
            Some(before) if before.content.digest == content.digest => Arc::clone(&before.content),
            _ => Arc::new(content),
        };
        Self { content, source: Arc::clone(source), protocol, warnings }
    }
}

/// Orders pools by age. A missing time of creation (a folder) is younger than any and equal to its like.
fn age(pool: &LoadBalancerPool) -> (bool, Option<i128>) {
    let created = pool.metadata.creation_timestamp.as_ref().map(|time| time.0.as_nanosecond());
    (created.is_none(), created)
}

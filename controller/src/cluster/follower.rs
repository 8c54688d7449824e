//! What the watches bring, compiled and put in force.

use super::Kind;
use super::cache::{Cache, Changes, Message, SecretWatches};
use crate::compile::{Rejection, World, world};
use crate::metrics::{Metrics, Scope};
use crate::readiness::Readiness;
use crate::store::{Completeness, Store};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

/// Owns the objects and what they compile to. The only writer of the store.
pub(super) struct Follower {
    cache: Cache,
    /// `None` before everything has been seen once.
    world: Option<World>,
    /// Something changed that only compiling the world puts in force.
    is_world_due: bool,
    /// What was said before, so that a change says what is new and not everything again.
    said: BTreeSet<(Severity, Rejection)>,
    store: Arc<Store>,
    readiness: Arc<Readiness>,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Severity {
    Problem,
    Warning,
}

impl Follower {
    pub(super) fn new(
        namespaces: &[String],
        store: Arc<Store>,
        readiness: Arc<Readiness>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let cache = Cache::new(namespaces);
        readiness.waiting(cache.waiting_for());
        Self { cache, world: None, is_world_due: true, said: BTreeSet::new(), store, readiness, metrics }
    }

    pub(super) fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Takes in messages, puts in force what they change, and says which Secrets are to be watched from now on.
    pub(super) fn take(&mut self, messages: impl Iterator<Item = Message>) -> SecretWatches {
        let mut changes = Changes::default();
        messages.for_each(|message| self.cache.step(message, &mut changes));
        let secrets =
            if changes.world { self.cache.follow_references(&mut changes) } else { SecretWatches::default() };
        // First what costs little, so that endpoints never wait for a world that is compiled for another reason.
        self.refresh(&changes);
        self.is_world_due |= changes.world;
        if self.is_world_due && self.cache.is_settled() {
            self.compile();
        } else if self.world.is_none() {
            self.readiness.waiting(self.cache.waiting_for());
        }
        self.measure();
        secrets
    }

    /// The sets of the Services that changed. Nothing where no pool uses them.
    fn refresh(&mut self, changes: &Changes) {
        let Some(world) = &mut self.world else { return };
        if changes.services.is_empty() {
            return;
        }
        let begun = Instant::now();
        let mut pools = BTreeSet::new();
        for service in &changes.services {
            let changed = world.refresh_service(service, self.cache.objects());
            pools.extend(changed.into_iter().map(|set| set.pool));
        }
        let outcome = self.store.apply_pools(world, &pools);
        self.metrics.compiled(Scope::Endpoints, begun.elapsed());
        tracing::debug!(services = changes.services.len(), changed = outcome.changed, "endpoints changed");
    }

    fn compile(&mut self) {
        let begun = Instant::now();
        let world = world(self.cache.objects(), self.world.as_ref());
        let malformed = self.cache.malformed().keys();
        let unread =
            malformed.filter(|pool| world.serving(pool).is_none()).map(ToString::to_string).collect();
        let outcome = self.store.apply(&world, Completeness::AllBut(unread));
        self.is_world_due = false;
        self.metrics.compiled(Scope::World, begun.elapsed());
        tracing::info!(
            pools = world.all_serving().count(),
            changed = outcome.changed,
            removed = outcome.removed,
            malformed = self.cache.malformed().len(),
            rejected = world.rejections.len(),
            "compiled"
        );
        self.say(&world);
        self.world = Some(world);
        self.readiness.ready();
    }

    /// Logs what is wrong and was not said before.
    fn say(&mut self, world: &World) {
        let malformed = self.cache.malformed().iter().map(|(key, malformed)| Rejection {
            pool: key.clone(),
            field: malformed.field.clone(),
            value: String::new(),
            rule: malformed.sentence.clone(),
            reason: crate::compile::Reason::Invalid,
        });
        let rejected = world.rejections.values().flatten().cloned();
        let problems = malformed.chain(rejected).map(|problem| (Severity::Problem, problem));
        let warnings = world.warnings().cloned().map(|warning| (Severity::Warning, warning));
        let all: BTreeSet<_> = problems.chain(warnings).collect();
        for (severity, finding) in all.difference(&self.said) {
            let Rejection { pool, field, value, rule, .. } = finding;
            let sentence = if value.is_empty() { rule.clone() } else { format!("{value} {rule}") };
            match severity {
                Severity::Problem => tracing::error!(%pool, field, "{sentence}"),
                Severity::Warning => tracing::warn!(%pool, field, "{sentence}"),
            }
        }
        self.said = all;
        let unwatched = self.cache.unwatched();
        if unwatched > 0 {
            tracing::error!(
                "{unwatched} Secrets that pools name are not read, since {} are: name fewer of them",
                super::SECRETS_MAX
            );
        }
    }

    fn measure(&self) {
        let objects = self.cache.objects();
        let counts = [
            (Kind::LoadBalancerPool, objects.pools.len()),
            (Kind::Service, objects.services.len()),
            (Kind::EndpointSlice, objects.slices().len()),
            (Kind::ReferenceGrant, objects.grants.len()),
            (Kind::Secret, objects.secrets.len()),
        ];
        for (kind, count) in counts {
            self.metrics.set_objects(kind, count);
            self.metrics.set_synced_watches(kind, self.cache.settled(kind));
        }
        self.metrics.set_malformed(self.cache.malformed().len());
    }
}

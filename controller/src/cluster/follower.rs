//! What the watches bring, compiled, put in force and told.

use super::Kind;
use super::cache::{Cache, Changes, Message, SecretWatches};
use crate::compile::{ObjectKey, Rejection, World, world};
use crate::metrics::{Metrics, Scope};
use crate::readiness::Readiness;
use crate::status::{Board, Verdict};
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
    said: BTreeSet<Finding>,
    /// Pools on which there may be another verdict than the board has.
    unjudged: BTreeSet<ObjectKey>,
    store: Arc<Store>,
    board: Arc<Board>,
    readiness: Arc<Readiness>,
    metrics: Arc<Metrics>,
}

/// Something that is wrong with an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Finding {
    /// A grant that cannot be read.
    Grant { key: ObjectKey, field: String, sentence: String },
    /// With a pool, so that it is not served as written.
    Problem(Rejection),
    /// With what a pool points to.
    Warning(Rejection),
}

impl Follower {
    pub(super) fn new(
        namespaces: &[String],
        store: Arc<Store>,
        board: Arc<Board>,
        readiness: Arc<Readiness>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let cache = Cache::new(namespaces);
        readiness.waiting(cache.waiting_for());
        Self {
            cache,
            world: None,
            is_world_due: true,
            said: BTreeSet::new(),
            unjudged: BTreeSet::new(),
            store,
            board,
            readiness,
            metrics,
        }
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
        self.unjudged.extend(changes.pools);
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
        self.unjudged.append(&mut pools);
    }

    /// Brings the board up to date. Apart from [`Self::take`], so that proxies hear of a change first.
    pub(super) fn judge(&mut self) {
        // A pool may be newer than the world then; compiling it is a reason to judge every pool.
        let Some(world) = self.world.as_ref().filter(|_| !self.is_world_due) else { return };
        for key in std::mem::take(&mut self.unjudged) {
            // What a malformed pool said before is among the objects too.
            let verdict = match (self.cache.malformed().get(&key), self.cache.objects().pools.get(&key)) {
                (Some(malformed), _) => malformed.verdict(world),
                (None, Some(pool)) => Verdict::of(pool, world),
                (None, None) => {
                    self.board.remove(&key);
                    continue;
                }
            };
            self.board.set(key, verdict);
        }
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
        self.unjudged.extend(self.board.keys());
        self.unjudged.extend(self.cache.objects().pools.keys().chain(self.cache.malformed().keys()).cloned());
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
        let grants = self.cache.malformed_grants().iter().map(|(key, malformed)| {
            let (field, sentence) = (malformed.field.clone(), malformed.sentence.clone());
            Finding::Grant { key: key.clone(), field, sentence }
        });
        let rejected = world.rejections.values().flatten().cloned();
        let problems = malformed.chain(rejected).map(Finding::Problem);
        let warnings = world.warnings().cloned().map(Finding::Warning);
        let all: BTreeSet<_> = grants.chain(problems).chain(warnings).collect();
        all.difference(&self.said).for_each(Finding::say);
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

impl Finding {
    fn say(&self) {
        match self {
            Self::Grant { key: grant, field, sentence } => {
                tracing::error!(%grant, field, "a ReferenceGrant permits nothing: {sentence}");
            }
            Self::Problem(problem) => {
                tracing::error!(pool = %problem.pool, field = problem.field, "{}", sentence(problem));
            }
            Self::Warning(warning) => {
                tracing::warn!(pool = %warning.pool, field = warning.field, "{}", sentence(warning));
            }
        }
    }
}

fn sentence(Rejection { value, rule, .. }: &Rejection) -> String {
    if value.is_empty() { rule.clone() } else { format!("{value} {rule}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::cache::Event;
    use crate::cluster::{Extent, WatchId, read};
    use crate::compile::Reason;
    use serde_json::{Value, json};

    fn follower(board: &Arc<Board>) -> Follower {
        let (store, readiness) = (Store::new(1), Arc::new(Readiness::default()));
        let metrics = Arc::new(Metrics::new(Arc::clone(&store), Arc::clone(&readiness)));
        let mut follower = Follower::new(&[], store, Arc::clone(board), readiness, metrics);
        for kind in Kind::NAMESPACED {
            say(&mut follower, kind, Event::Init);
            say(&mut follower, kind, Event::InitDone);
        }
        follower
    }

    fn say(follower: &mut Follower, kind: Kind, event: Event) {
        let watch = WatchId { kind, extent: Extent::Everywhere };
        follower.take(std::iter::once(Message { watch, event }));
        follower.judge();
    }

    fn object<T: serde::de::DeserializeOwned>(name: &str, rest: Value) -> T {
        let mut object =
            json!({ "metadata": { "namespace": "ns", "name": name, "uid": "u", "generation": 1 } });
        let (Value::Object(object_fields), Value::Object(rest)) = (&mut object, rest) else {
            panic!("an object")
        };
        object_fields.extend(rest);
        serde_json::from_value(object).expect("an object")
    }

    fn pool(port: &Value, observed: u64) -> Event {
        let spec = json!({
            "listeners": [{ "name": "l", "port": port, "protocol": "HTTP" }],
            "backendSets": [{ "name": "s", "service": { "name": "web", "port": 80 } }],
        });
        let (version, kind) = ("weir.dev/v1alpha1", "LoadBalancerPool");
        let status = json!({ "observedGeneration": observed });
        let rest = json!({ "apiVersion": version, "kind": kind, "spec": spec, "status": status });
        Event::Apply(read::pool(object("p", rest)))
    }

    #[test]
    fn the_board_follows_pools_services_statuses_and_what_cannot_be_read() {
        let board = Arc::new(Board::default());
        let mut follower = follower(&board);
        let key = ObjectKey::new("ns", "p");
        let verdict = || board.verdict(&key).expect("there is such a pool");

        say(&mut follower, Kind::LoadBalancerPool, pool(&json!(80), 1));
        assert_eq!(verdict().warnings[0].reason, Reason::BackendNotFound);

        let spec = json!({ "spec": { "ports": [{ "name": "http", "port": 80 }] } });
        say(&mut follower, Kind::Service, Event::Apply(read::service(object("web", spec))));
        assert_eq!(verdict().warnings, [], "though the set is as empty as it was");

        say(&mut follower, Kind::LoadBalancerPool, pool(&json!(80), 2));
        assert_eq!(verdict().shown.as_ref().and_then(|shown| shown.observed_generation), Some(2));

        say(&mut follower, Kind::LoadBalancerPool, pool(&json!("eighty"), 3));
        let malformed = verdict();
        assert!(
            malformed.rejections[0].rule.starts_with("spec.listeners[0].port cannot be read"),
            "{malformed:?}"
        );
        assert!(malformed.serving.is_some(), "what it said before");
        say(&mut follower, Kind::LoadBalancerPool, pool(&json!("eighty"), 4));
        assert_eq!(verdict().shown.as_ref().and_then(|shown| shown.observed_generation), Some(4));

        say(&mut follower, Kind::LoadBalancerPool, Event::Delete(key.clone()));
        assert_eq!(board.verdict(&key), None);
    }
}

//! What the watches bring, compiled, put in force and told.

use super::Kind;
use super::cache::{Cache, Changes, Message, NamedWatches};
use crate::compile::{CompiledPool, ObjectKey, Origin, Rejection, Touched, World, world};
use crate::dns::{Answered, Wanted};
use crate::metrics::{Metrics, Scope};
use crate::readiness::Readiness;
use crate::status::{Board, Verdict};
use crate::store::{Completeness, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// Longest time that the first world waits for Services of other clusters.
pub const REMOTES_WAIT: Duration = Duration::from_secs(5);

/// Owns the objects and what they compile to. The only writer of the store. No I/O: messages of watches in, versions
/// and verdicts out.
#[derive(Debug)]
pub struct Follower {
    cache: Cache,
    /// `None` before everything has been seen once.
    world: Option<World>,
    /// Names that the first world waits for.
    awaited: Wanted,
    /// Until when the first world waits for other clusters; `None` before it could be without them.
    remotes_wait: Option<Instant>,
    /// What changed and waits for all watches to settle, and when the oldest of it was seen.
    due: Touched,
    due_seen: Option<Instant>,
    /// What was said before, so that a change says what is new and not everything again. Of grants, and by pool.
    said_of_grants: BTreeSet<Finding>,
    said: BTreeMap<ObjectKey, BTreeSet<Finding>>,
    /// Pools of which there may be something else to say.
    unsaid: BTreeSet<ObjectKey>,
    /// Secrets that were said to be too many.
    said_unwatched: usize,
    /// Selectors that were said to be too many.
    said_unwatched_selectors: usize,
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
    /// Knows nothing yet, of these namespaces or (none named) of all. Nothing reaches the store before every watch has
    /// listed once.
    pub fn new(
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
            awaited: Wanted::default(),
            remotes_wait: None,
            due: Touched::default(),
            due_seen: None,
            said_of_grants: BTreeSet::new(),
            said: BTreeMap::new(),
            unsaid: BTreeSet::new(),
            said_unwatched: 0,
            said_unwatched_selectors: 0,
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

    /// When [`Self::take`] has something to do though no message came.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        let first = self.remotes_wait.filter(|_| self.world.is_none());
        self.cache.due().into_iter().chain(first).min()
    }

    /// Takes in messages, puts in force what they and the time change, and says which Secrets and pods are to be
    /// watched from now on.
    pub fn take(&mut self, messages: impl Iterator<Item = Message>, now: Instant) -> NamedWatches {
        let mut changes = Changes::default();
        messages.for_each(|message| self.cache.step(message, &mut changes));
        self.cache.lapse(now, &mut changes);
        let mut watches = if changes.is_of_pools() || self.cache.are_any_coming() {
            self.cache.follow_references(&mut changes)
        } else {
            NamedWatches::default()
        };
        // First what costs little, so that endpoints never wait for pools.
        if let Some(seen) = changes.seen {
            self.refresh(&std::mem::take(&mut changes.touched.origins), seen);
            if !changes.touched.is_empty() {
                self.due_seen = Some(self.due_seen.map_or(seen, |before| before.min(seen)));
            }
        }
        self.unjudged.extend(changes.pools);
        self.due.extend(changes.touched);
        // At the start for everything; then a pool waits alone for what it names.
        if self.world.is_some() || self.cache.is_settled() {
            self.compile(now);
            self.release(&mut watches, now);
        } else {
            self.readiness.waiting(self.cache.waiting_for());
        }
        self.measure();
        watches
    }

    /// Ends what is not needed for what is served now.
    fn release(&mut self, watches: &mut NamedWatches, now: Instant) {
        let Some(world) = &self.world else { return };
        let mut changes = Changes::default();
        watches.extend(self.cache.release_selectors(world, &mut changes));
        watches.extend(self.cache.release_remotes(world, &mut changes));
        self.refresh(&changes.touched.origins, now);
    }

    /// Takes in what became known of names then, and puts it in force; a first world that waited for it is compiled by
    /// [`Self::take`], which must follow.
    pub(super) fn learn(&mut self, news: Vec<Answered>, seen: Instant) {
        let mut changes = Changes::default();
        self.cache.learn(news, &mut changes);
        self.refresh(&changes.touched.origins, seen);
        // Proxies that kept a set for want of an answer are to have it now.
        if let Some(world) = &self.world {
            self.store.apply_update(world, [], completeness(&self.cache, world), seen);
        }
    }

    /// Names that are to be looked up; `None` while nothing is known of them.
    pub(super) fn names(&self) -> Option<&Wanted> {
        match &self.world {
            Some(world) => Some(world.names()),
            None => Some(&self.awaited).filter(|awaited| !awaited.is_empty()),
        }
    }

    /// The sets whose backends changed. Nothing where no pool uses them.
    fn refresh(&mut self, origins: &BTreeSet<Origin>, seen: Instant) {
        let Some(world) = &mut self.world else { return };
        if origins.is_empty() {
            return;
        }
        let begun = Instant::now();
        let mut pools = BTreeSet::new();
        for origin in origins {
            let changed = world.refresh(origin, self.cache.objects());
            pools.extend(changed.into_iter().map(|set| set.pool));
        }
        let outcome = self.store.apply_pools(world, &pools, seen);
        self.metrics.compiled(Scope::Endpoints, begun.elapsed());
        tracing::debug!(origins = origins.len(), changed = outcome.changed, "endpoints changed");
        // Said with the next change of a pool: endpoints come and go too often for a line each time.
        self.unsaid.extend(pools.iter().cloned());
        self.unjudged.append(&mut pools);
    }

    /// Brings the board up to date. Apart from [`Self::take`], so that proxies hear of a change first.
    pub fn judge(&mut self) {
        let Some(world) = &self.world else { return };
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

    /// Puts in force what is due, at the cost of that; the first time everything.
    fn compile(&mut self, now: Instant) {
        let objects = self.cache.objects();
        if self.world.is_some() && self.due.is_empty() || !objects.are_known(&self.awaited) {
            return;
        }
        let begun = Instant::now();
        let due = std::mem::take(&mut self.due);
        // Nothing is due where the cluster is empty; what it is compiled to was known just now.
        let seen = self.due_seen.take().unwrap_or(begun);
        let objects = self.cache.objects();
        let (scope, looked_at, outcome) = match &mut self.world {
            None => {
                let first = world(objects, None);
                // Once: names that came meanwhile hold up nobody.
                if self.awaited.is_empty() && !objects.are_known(first.names()) {
                    self.awaited = Arc::clone(first.names());
                    self.readiness.waiting("waiting for the first answers of DNS".to_owned());
                    return;
                }
                let end = *self.remotes_wait.get_or_insert(now + REMOTES_WAIT);
                if now < end && !self.cache.are_remotes_read() {
                    self.readiness.waiting("waiting for other clusters".to_owned());
                    return;
                }
                self.awaited = Wanted::default();
                let world = self.world.insert(first);
                let outcome = self.store.apply(world, completeness(&self.cache, world), seen);
                let all = objects.pools.keys().chain(self.cache.malformed().keys());
                (Scope::World, all.cloned().collect(), outcome)
            }
            Some(world) => {
                world.set_clock(SystemTime::now());
                let mut looked_at = world.update(objects, &due);
                looked_at.extend(due.pools);
                let completeness = completeness(&self.cache, world);
                let outcome = self.store.apply_update(world, &looked_at, completeness, seen);
                (Scope::Pool, looked_at, outcome)
            }
        };
        self.metrics.compiled(scope, begun.elapsed());
        let world = self.world.as_ref().expect("it was made or updated above");
        tracing::info!(
            pools = world.serving_count(),
            looked_at = looked_at.len(),
            changed = outcome.changed,
            removed = outcome.removed,
            malformed = self.cache.malformed().len(),
            rejected = world.rejections.len(),
            "compiled"
        );
        self.unsaid.extend(looked_at.iter().cloned());
        self.unjudged.extend(looked_at);
        self.say();
        self.readiness.ready();
    }

    /// Logs what is wrong and was not said before.
    fn say(&mut self) {
        let grants = self.cache.malformed_grants().iter().map(|(key, malformed)| {
            let (field, sentence) = (malformed.field.clone(), malformed.sentence.clone());
            Finding::Grant { key: key.clone(), field, sentence }
        });
        let grants: BTreeSet<_> = grants.collect();
        grants.difference(&self.said_of_grants).for_each(Finding::say);
        self.said_of_grants = grants;
        for key in std::mem::take(&mut self.unsaid) {
            let findings = self.findings(&key);
            let said = if findings.is_empty() {
                self.said.remove(&key)
            } else {
                self.said.insert(key.clone(), findings)
            };
            let findings = self.said.get(&key).into_iter().flatten();
            let is_new = |finding: &&Finding| said.as_ref().is_none_or(|said| !said.contains(*finding));
            findings.filter(is_new).for_each(Finding::say);
        }
        let unwatched = self.cache.unwatched();
        if unwatched > 0 && unwatched != self.said_unwatched {
            tracing::error!(
                "{unwatched} Secrets that pools name are not read, since {} are: name fewer of them",
                super::SECRETS_MAX
            );
        }
        self.said_unwatched = unwatched;
        let unwatched = self.cache.unwatched_selectors();
        if unwatched > 0 && unwatched != self.said_unwatched_selectors {
            tracing::error!(
                "{unwatched} selectors that pools name are not watched, since {} are: name fewer of them, or use Services",
                super::SELECTORS_MAX
            );
        }
        self.said_unwatched_selectors = unwatched;
    }

    /// Everything that is wrong with one pool.
    fn findings(&self, key: &ObjectKey) -> BTreeSet<Finding> {
        let malformed = self.cache.malformed().get(key).map(|malformed| Rejection {
            pool: key.clone(),
            field: malformed.field.clone(),
            value: String::new(),
            rule: malformed.sentence.clone(),
            reason: crate::compile::Reason::Invalid,
        });
        let world = self.world.as_ref();
        let rejected = world.and_then(|world| world.rejections.get(key)).into_iter().flatten().cloned();
        let served = world.and_then(|world| world.serving(key)).into_iter();
        let warnings = served.flat_map(CompiledPool::warnings).cloned().map(Finding::Warning);
        malformed.into_iter().chain(rejected).map(Finding::Problem).chain(warnings).collect()
    }

    fn measure(&self) {
        let objects = self.cache.objects();
        let counts = [
            (Kind::LoadBalancerPool, objects.pools.len()),
            (Kind::Service, objects.services.len()),
            (Kind::EndpointSlice, objects.slices().len()),
            (Kind::ReferenceGrant, objects.grants.len()),
            (Kind::Secret, objects.secrets.len()),
            (Kind::Pod, objects.pods.count()),
        ];
        for (kind, count) in counts {
            self.metrics.set_objects(kind, count);
            self.metrics.set_synced_watches(kind, self.cache.settled(kind));
        }
        self.metrics.set_malformed(self.cache.malformed().len());
    }
}

/// A pool that cannot be read, and of which nothing is known from before, is there nevertheless.
fn completeness(cache: &Cache, world: &World) -> Completeness {
    let unread = cache.malformed().keys().filter(|pool| world.serving(pool).is_none());
    // Another replica may have read what these wait for.
    Completeness::AllBut(unread.chain(cache.coming()).map(ToString::to_string).collect())
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
        let now = Instant::now();
        follower.take(std::iter::once(Message { watch, event, seen: now }), now);
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

    fn tls_pool(name: &str, port: u16, secret: &str) -> Event {
        let tls = json!({ "certificateRefs": [{ "name": secret }] });
        let spec = json!({
            "listeners": [
                { "name": "plain", "port": port, "protocol": "HTTP" },
                { "name": "tls", "port": 8443, "protocol": "HTTPS", "tls": tls },
            ],
            "backendSets": [{ "name": "s", "static": { "backends": [] } }],
        });
        let (version, kind) = ("weir.dev/v1alpha1", "LoadBalancerPool");
        Event::Apply(read::pool(object(name, json!({ "apiVersion": version, "kind": kind, "spec": spec }))))
    }

    #[test]
    fn a_pool_that_names_another_secret_serves_what_it_said_and_waits_for_that_alone() {
        let mut follower = follower(&Arc::default());
        let port = |follower: &Follower, pool: &str| {
            let pool = follower.store.pool(&format!("ns/{pool}"))?;
            pool.contents.config.listeners.first().map(|listener| listener.port)
        };
        let list = |follower: &mut Follower, secret: &str| {
            let watch = WatchId::secret(ObjectKey::new("ns", secret));
            for event in [Event::Init, Event::InitDone] {
                let (watch, now) = (watch.clone(), Instant::now());
                follower.take(std::iter::once(Message { watch, event, seen: now }), now);
            }
        };
        say(&mut follower, Kind::LoadBalancerPool, pool(&json!(80), 1));
        say(&mut follower, Kind::LoadBalancerPool, tls_pool("t", 443, "one"));
        assert_eq!(port(&follower, "t"), None);
        assert!(follower.store.knowledge().may_exist("ns/t"), "another replica may serve it");
        list(&mut follower, "one");
        assert!(port(&follower, "t") == Some(443) && !follower.cache().are_any_coming());

        say(&mut follower, Kind::LoadBalancerPool, pool(&json!(81), 2));
        say(&mut follower, Kind::LoadBalancerPool, tls_pool("t", 444, "two"));
        say(&mut follower, Kind::LoadBalancerPool, pool(&json!(82), 3));
        assert_eq!((port(&follower, "p"), port(&follower, "t")), (Some(82), Some(443)));
        say(&mut follower, Kind::LoadBalancerPool, tls_pool("t", 445, "two"));
        list(&mut follower, "two");
        assert_eq!(port(&follower, "t"), Some(445), "the newest of what it said");
        say(&mut follower, Kind::LoadBalancerPool, tls_pool("t", 446, "three"));
        say(&mut follower, Kind::LoadBalancerPool, Event::Delete(ObjectKey::new("ns", "t")));
        assert!(follower.store.pool("ns/t").is_none() && !follower.cache().are_any_coming());
        assert!(!follower.store.knowledge().may_exist("ns/t"));
    }

    #[test]
    fn a_pool_that_a_later_list_misses_serves_until_its_time_is_over_without_another_message() {
        let board = Arc::new(Board::default());
        let mut follower = follower(&board);
        say(&mut follower, Kind::LoadBalancerPool, pool(&json!(80), 1));
        say(&mut follower, Kind::LoadBalancerPool, Event::Init);
        assert_eq!(follower.cache().due(), None);
        say(&mut follower, Kind::LoadBalancerPool, Event::InitDone);
        let due = follower.cache().due().expect("it is kept for a time");
        follower.take(std::iter::empty(), due - Duration::from_millis(1));
        assert!(follower.store.pool("ns/p").is_some());
        follower.take(std::iter::empty(), due);
        follower.judge();
        assert!(follower.store.pool("ns/p").is_none());
        assert_eq!(board.verdict(&ObjectKey::new("ns", "p")), None);
    }

    fn named_pool(name: &str, host: &str, created: &str) -> Event {
        let spec = json!({
            "listeners": [{ "name": "l", "port": 80, "protocol": "HTTP", "hostnames": [host] }],
            "backendSets": [{ "name": "s", "static": { "backends": [] } }],
        });
        let (version, kind) = ("weir.dev/v1alpha1", "LoadBalancerPool");
        let mut pool: Value = object(name, json!({ "apiVersion": version, "kind": kind, "spec": spec }));
        pool["metadata"]["creationTimestamp"] = json!(created);
        Event::Apply(read::pool(serde_json::from_value(pool).expect("an object")))
    }

    #[test]
    fn a_claim_that_is_given_up_goes_to_the_oldest_of_those_that_wait_and_each_is_judged() {
        let board = Arc::new(Board::default());
        let mut follower = follower(&board);
        let day = |day: u8| format!("2026-01-0{day}T00:00:00Z");
        for (name, created) in [("first", day(1)), ("third", day(3)), ("second", day(2))] {
            say(&mut follower, Kind::LoadBalancerPool, named_pool(name, "shop.org", &created));
        }
        say(&mut follower, Kind::LoadBalancerPool, named_pool("other", "other.org", &day(1)));
        let key = |name: &str| ObjectKey::new("ns", name);
        let is_accepted =
            |name: &str| board.verdict(&key(name)).expect("there is such a pool").rejections.is_empty();
        assert_eq!(["first", "second", "third"].map(is_accepted), [true, false, false]);
        let in_store = |name: &str| follower.store.pool(&key(name).to_string()).map(|pool| pool.version);
        let other = in_store("other");
        assert!(other.is_some() && in_store("second").is_none());

        say(&mut follower, Kind::LoadBalancerPool, named_pool("first", "moved.org", &day(1)));
        assert_eq!(["first", "second", "third"].map(is_accepted), [true, true, false]);
        let in_store = |name: &str| follower.store.pool(&key(name).to_string()).map(|pool| pool.version);
        assert_eq!(in_store("other"), other, "it has nothing to do with it");
        assert!(in_store("second").is_some() && in_store("third").is_none());
        assert!(
            follower.store.knowledge().may_exist("ns/third"),
            "it is there, and asks for more than it has"
        );
        assert!(!follower.store.knowledge().may_exist("ns/second-that-never-was"));

        say(&mut follower, Kind::LoadBalancerPool, Event::Delete(key("third")));
        assert!(!follower.store.knowledge().may_exist("ns/third"));
        assert_eq!(board.verdict(&key("third")), None);
        let said: Vec<_> = follower.said.keys().collect();
        assert_eq!(said, Vec::<&ObjectKey>::new(), "nothing is wrong any more");
    }
}

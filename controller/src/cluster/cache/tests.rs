mod remote;
mod selected;

use super::*;
use crate::cluster::guard::RELIST_GUARD;
use crate::compile::{PodState, ReferenceGrant, SelectedPod, Selector, Unread, World};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;
use weir_crds::LoadBalancerPool;

const SEEDS: u64 = 50;
const STEPS: usize = 300;

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("ns", name)
}

fn metadata(name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.into()), namespace: Some("ns".into()), ..ObjectMeta::default() }
}

fn pool(name: &str, port: u16, secret: &str) -> Item {
    let spec = json!({
        "listeners": [{
            "name": "l", "port": port, "protocol": "HTTPS",
            "tls": { "certificateRefs": [{ "name": secret }] },
        }],
        "backendSets": [{ "name": "s", "service": { "name": "web", "port": 80 } }],
    });
    let spec = serde_json::from_value(spec).expect("a specification");
    Item::Pool(Arc::new(LoadBalancerPool { metadata: metadata(name), spec, status: None }))
}

/// The same pool with a set of pods of this app.
fn selecting(pool: &Item, app: &str) -> Item {
    let Item::Pool(pool) = pool else { panic!("a pool") };
    let mut pool = (**pool).clone();
    let set = json!({ "name": "p", "endpointSelector": { "matchLabels": { "app": app }, "port": 80 } });
    pool.spec.backend_sets.push(serde_json::from_value(set).expect("a set"));
    Item::Pool(Arc::new(pool))
}

fn malformed(name: &str, sentence: &str) -> Item {
    let sentence = sentence.to_owned();
    Item::Malformed(Arc::new(Malformed { metadata: metadata(name), sentence, ..Malformed::default() }))
}

fn service(name: &str, version: u64) -> Item {
    let mut service = Service { metadata: metadata(name), ..Service::default() };
    service.metadata.labels = Some([("version".to_owned(), version.to_string())].into());
    Item::Service(Arc::new(service))
}

fn slice(name: &str, service: &str, version: u64) -> Item {
    let mut slice = EndpointSlice { metadata: metadata(name), ..EndpointSlice::default() };
    let labels = [("kubernetes.io/service-name", service.to_owned()), ("version", version.to_string())];
    slice.metadata.labels = Some(labels.map(|(name, value)| (name.to_owned(), value)).into());
    Item::Slice(Arc::new(slice))
}

fn secret(name: &str, version: u64) -> Item {
    let data = [("tls.key".to_owned(), ByteString(version.to_string().into_bytes()))];
    Item::Secret(Arc::new(Secret { metadata: metadata(name), data: Some(data.into()), ..Secret::default() }))
}

fn selected_pod(name: &str, version: u64) -> Item {
    let (node, zone) = (version.to_string().into(), "".into());
    let pod =
        SelectedPod { state: PodState::Ready, address: None, misspelt: None, ports: [].into(), zone, node };
    Item::Pod(key(name), Arc::new(pod))
}

fn grant(name: &str, version: u64) -> Item {
    let spec = json!({ "from": [], "to": [{ "group": "", "kind": "Service", "name": version.to_string() }] });
    let spec = serde_json::from_value(spec).expect("a specification");
    Item::Grant(Arc::new(ReferenceGrant { metadata: metadata(name), spec }))
}

fn everywhere(kind: Kind) -> WatchId {
    WatchId { kind, extent: Extent::Everywhere }
}

fn failure(reason: FailureReason) -> Event {
    Event::Failed(Failure { reason, cause: "test".into(), at: SystemTime::UNIX_EPOCH })
}

/// Names every pool and grant: those that are the same are no difference.
fn all_touched(cache: &Cache) -> Changes {
    let gone = ["a", "b", "p"].map(key);
    let pools = cache.kept(&everywhere(Kind::LoadBalancerPool)).chain(gone).collect();
    let grants = ["ns", "other"].map(ToOwned::to_owned).into();
    Changes { touched: Touched { pools, grants, ..Touched::default() }, ..Changes::default() }
}

fn message(watch: &WatchId, event: Event) -> Message {
    Message { watch: watch.clone(), event, seen: Instant::now() }
}

impl Cache {
    fn follow(&mut self) -> NamedWatches {
        let mut changes = all_touched(self);
        self.follow_references(&mut changes)
    }

    /// Nothing happened but what was said before.
    fn go_on(&mut self) -> NamedWatches {
        self.follow_references(&mut Changes::default())
    }

    fn say(&mut self, watch: &WatchId, event: Event) -> Changes {
        let mut changes = Changes::default();
        self.step(message(watch, event), &mut changes);
        // Asserted here, so that what an event brings compares with what was expected of it.
        assert_eq!(changes.seen.take().is_some(), changes != Changes::default());
        changes
    }

    fn list(&mut self, watch: &WatchId, items: Vec<Item>) -> Changes {
        assert_eq!(self.say(watch, Event::Init), Changes::default());
        for item in items {
            assert_eq!(self.say(watch, Event::InitApply(item)), Changes::default(), "half a list is none");
        }
        self.say(watch, Event::InitDone)
    }

    /// After whatever guards there are.
    fn lapsed(&mut self) -> Changes {
        let (mut changes, now) = (Changes::default(), Instant::now());
        self.lapse(now, &mut changes);
        self.lapse(now + RELIST_GUARD, &mut changes);
        changes
    }

    fn synced() -> Self {
        let mut cache = Self::new(&[]);
        for kind in Kind::NAMESPACED {
            cache.list(&everywhere(kind), Vec::new());
        }
        cache
    }
}

#[test]
fn nothing_is_settled_before_every_watch_has_listed_once() {
    let mut cache = Cache::new(&["a".into(), "b".into()]);
    let ids: Vec<_> = cache.watches().cloned().collect();
    assert_eq!(ids.len(), 2 * Kind::NAMESPACED.len());
    assert_eq!(
        cache.waiting_for(),
        "waiting for LoadBalancerPools of namespace a, LoadBalancerPools of namespace b, Services of namespace a, \
         Services of namespace b and 4 more"
    );
    for id in &ids {
        assert!(!cache.is_settled());
        cache.list(id, Vec::new());
    }
    assert!(cache.is_settled());
    cache.say(&ids[0], Event::Init);
    cache.say(&ids[0], failure(FailureReason::Unreachable));
    assert!(cache.is_settled(), "what was known once is known while the API server is away");
}

#[test]
fn what_is_named_was_seen_with_the_oldest_event_that_names_something_and_a_list_with_its_first_object() {
    let mut cache = Cache::synced();
    let begun = Instant::now();
    let at = |ms: u64| begun + std::time::Duration::from_millis(ms);
    let (services, mut changes) = (everywhere(Kind::Service), Changes::default());
    let mut say = |ms: u64, event: Event| {
        cache.step(Message { watch: services.clone(), event, seen: at(ms) }, &mut changes);
        changes.seen
    };
    say(1, Event::Init);
    say(2, Event::InitApply(service("a", 1)));
    assert_eq!(say(3, Event::InitApply(service("b", 1))), None, "half a list is none");
    assert_eq!(say(4, Event::InitDone), Some(at(2)));
    assert_eq!(say(0, Event::Apply(service("a", 1))), Some(at(2)), "it is the same as before");
    assert_eq!(say(9, Event::Apply(service("b", 2))), Some(at(2)), "it is younger");
    assert_eq!(say(1, Event::Apply(service("a", 2))), Some(at(1)));
}

#[test]
fn a_forbidden_kind_is_waited_for_and_named() {
    let mut cache = Cache::new(&[]);
    for kind in [Kind::LoadBalancerPool, Kind::EndpointSlice, Kind::ReferenceGrant] {
        cache.list(&everywhere(kind), Vec::new());
    }
    for _ in 0..10 {
        cache.say(&everywhere(Kind::Service), failure(FailureReason::Forbidden));
    }
    assert_eq!(cache.waiting_for(), "waiting for Services (forbidden)");
    cache.list(&everywhere(Kind::Service), Vec::new());
    assert!(cache.is_settled());
}

#[test]
fn a_list_replaces_everything_that_its_watch_brought_and_nothing_else() {
    let mut cache = Cache::new(&["ns".into(), "other".into()]);
    let of = |namespace: &str| WatchId { kind: Kind::Service, extent: Extent::Namespace(namespace.into()) };
    let mut foreign = Service { metadata: metadata("far"), ..Service::default() };
    foreign.metadata.namespace = Some("other".into());
    cache.list(&of("other"), vec![Item::Service(Arc::new(foreign))]);
    let changes = cache.list(&of("ns"), vec![service("a", 1), service("b", 1), service("c", 1)]);
    assert_eq!(changes.touched.origins, ["a", "b", "c"].map(|name| Origin::Service(key(name))).into());
    let changes = cache.list(&of("ns"), vec![service("a", 1), service("b", 2)]);
    assert_eq!(
        changes.touched.origins,
        [Origin::Service(key("b"))].into(),
        "one differs, and one vanished while nobody looked"
    );
    assert_eq!(cache.lapsed().touched.origins, [Origin::Service(key("c"))].into());
    assert!(!changes.is_of_pools());
    assert_eq!(cache.objects().services.len(), 3);
}

#[test]
fn what_a_later_list_misses_is_kept_for_a_moment_and_what_an_event_says_is_gone_goes_at_once() {
    let (mut cache, begun) = (Cache::synced(), Instant::now());
    let (pools, services, slices) =
        (everywhere(Kind::LoadBalancerPool), everywhere(Kind::Service), everywhere(Kind::EndpointSlice));
    let all = || ["a", "b", "c"].map(|name| slice(name, "web", 1)).to_vec();
    cache.list(&pools, vec![pool("p", 443, "tls")]);
    cache.list(&services, vec![service("web", 1)]);
    cache.list(&slices, all());
    assert_eq!(cache.due(), None, "a first list keeps nothing that it does not have");
    let mut missing = Changes::default();
    for id in [&pools, &services, &slices] {
        assert_eq!(cache.list(id, Vec::new()), Changes::default(), "nothing is gone yet");
    }
    cache.lapse(begun, &mut missing);
    assert_eq!((&missing, cache.due()), (&Changes::default(), Some(begun + RELIST_GUARD)));

    let gone = cache.say(&slices, Event::Delete(key("a")));
    assert_eq!(gone.touched.origins, [Origin::Service(key("web"))].into(), "there is no doubt about it");
    assert_eq!(cache.say(&slices, Event::Apply(slice("b", "web", 1))), Changes::default(), "it was there");
    assert_eq!(cache.list(&services, vec![service("web", 1)]), Changes::default(), "and the list had lagged");
    cache.lapse(begun + RELIST_GUARD / 2, &mut missing);
    assert_eq!(missing, Changes::default());

    cache.lapse(begun + RELIST_GUARD, &mut missing);
    assert_eq!(missing.touched.pools, [key("p")].into());
    assert_eq!(missing.touched.origins, [Origin::Service(key("web"))].into(), "for slice c");
    assert_eq!(cache.due(), None);
    let left: Vec<_> = cache.objects().slices().map(|(slice, _)| slice.clone()).collect();
    assert_eq!((left, cache.objects().services.len()), (vec![key("b")], 1));
}

#[test]
fn a_list_that_breaks_off_leaves_what_was_there() {
    let mut cache = Cache::synced();
    let services = everywhere(Kind::Service);
    cache.list(&services, vec![service("a", 1)]);
    cache.say(&services, Event::Init);
    cache.say(&services, Event::InitApply(service("b", 1)));
    cache.say(&services, failure(FailureReason::Refused));
    assert_eq!(cache.objects().services.keys().collect::<Vec<_>>(), [&key("a")]);
    assert_eq!(cache.list(&services, vec![service("a", 1)]), Changes::default());
}

#[test]
fn what_is_the_same_for_the_compile_step_compiles_nothing() {
    let mut cache = Cache::synced();
    let pools = everywhere(Kind::LoadBalancerPool);
    assert!(cache.say(&pools, Event::Apply(pool("p", 443, "tls"))).is_of_pools());
    assert_eq!(cache.say(&pools, Event::Apply(pool("p", 443, "tls"))), Changes::default());
    let Item::Pool(same) = pool("p", 443, "tls") else { panic!("a pool") };
    let mut with_status = (*same).clone();
    with_status.status = Some(weir_crds::LoadBalancerPoolStatus::default());
    let changes = cache.say(&pools, Event::Apply(Item::Pool(Arc::new(with_status.clone()))));
    assert_eq!(changes, Changes { pools: [key("p")].into(), ..Changes::default() });
    with_status.metadata.uid = Some("another".into());
    let changes = cache.say(&pools, Event::Apply(Item::Pool(Arc::new(with_status))));
    assert!(changes.is_of_pools(), "deleted and created between two looks");
}

#[test]
fn a_malformed_pool_costs_itself_and_keeps_what_it_said() {
    let mut cache = Cache::synced();
    let pools = everywhere(Kind::LoadBalancerPool);
    let changes = cache.list(&pools, vec![pool("good", 443, "tls"), malformed("bad", "no")]);
    assert!(changes.is_of_pools());
    cache.follow();
    cache.list(&WatchId::secret(key("tls")), Vec::new());
    cache.go_on();
    assert_eq!(cache.objects().pools.len(), 1);
    cache.say(&pools, Event::Apply(malformed("good", "broken now")));
    assert_eq!(cache.malformed().len(), 2);
    assert!(cache.objects().pools.contains_key(&key("good")), "what it said before");
    assert!(cache.say(&pools, Event::Apply(pool("bad", 444, "tls"))).is_of_pools(), "it heals by itself");
    cache.follow();
    assert!(cache.say(&pools, Event::Delete(key("good"))).is_of_pools());
    assert_eq!((cache.malformed().len(), cache.objects().pools.len()), (0, 1));
}

#[test]
fn secrets_are_watched_while_a_pool_names_them() {
    let mut cache = Cache::synced();
    let pools = everywhere(Kind::LoadBalancerPool);
    let follow = |cache: &mut Cache| {
        let mut changes = all_touched(cache);
        let watches = cache.follow_references(&mut changes);
        (watches, !changes.touched.secrets.is_empty())
    };
    cache.list(&pools, vec![pool("a", 1, "one"), pool("b", 2, "one")]);
    let one = WatchId::secret(key("one"));
    let (watches, _) = follow(&mut cache);
    assert_eq!(watches, NamedWatches { needed: vec![one.clone()], unneeded: Vec::new() });
    assert!(!cache.is_settled(), "the pools wait for what they name");
    assert!(cache.list(&one, vec![secret("one", 1)]).is_of_pools());
    assert!(cache.is_settled());
    assert_eq!(follow(&mut cache), (NamedWatches::default(), false));

    cache.say(&pools, Event::Apply(pool("a", 1, "two")));
    let two = WatchId::secret(key("two"));
    assert_eq!(follow(&mut cache).0, NamedWatches { needed: vec![two.clone()], unneeded: Vec::new() });
    cache.say(&pools, Event::Delete(key("b")));
    let (watches, forgotten) = follow(&mut cache);
    assert_eq!(
        (watches, forgotten),
        (NamedWatches::default(), false),
        "it serves with it until the other is there"
    );
    cache.list(&two, vec![secret("two", 1)]);
    let (watches, forgotten) = follow(&mut cache);
    assert_eq!(watches, NamedWatches { needed: Vec::new(), unneeded: vec![one.clone()] });
    let left = |cache: &Cache| cache.objects().secrets.keys().cloned().collect::<Vec<_>>();
    assert!(forgotten && left(&cache) == [key("two")]);
    assert_eq!(cache.say(&one, Event::Apply(secret("one", 2))), Changes::default(), "it was stopped");
    assert_eq!(left(&cache), [key("two")]);
}

#[test]
fn a_secret_of_another_namespace_is_watched_while_a_grant_there_permits_it() {
    let mut cache = Cache::synced();
    let Item::Pool(shared) = pool("a", 1, "tls") else { panic!("a pool") };
    let mut shared = (*shared).clone();
    let tls = shared.spec.listeners[0].tls.as_mut().expect("it is HTTPS");
    tls.certificate_refs[0].namespace = Some("other".into());
    cache.list(&everywhere(Kind::LoadBalancerPool), vec![Item::Pool(Arc::new(shared))]);
    assert_eq!(cache.follow(), NamedWatches::default(), "nobody permits");

    let spec = json!({
        "from": [{ "group": "weir.dev", "kind": "LoadBalancerPool", "namespace": "ns" }],
        "to": [{ "group": "", "kind": "Secret" }],
    });
    let mut grant =
        ReferenceGrant { metadata: metadata("g"), spec: serde_json::from_value(spec).expect("one") };
    grant.metadata.namespace = Some("other".into());
    let grants = everywhere(Kind::ReferenceGrant);
    assert!(cache.say(&grants, Event::Apply(Item::Grant(Arc::new(grant.clone())))).is_of_pools());
    let tls = WatchId::secret(ObjectKey::new("other", "tls"));
    let watches = cache.follow();
    assert_eq!(watches, NamedWatches { needed: vec![tls.clone()], unneeded: Vec::new() });
    grant.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
    assert_eq!(cache.say(&grants, Event::Apply(Item::Grant(Arc::new(grant)))), Changes::default());

    assert!(
        cache.say(&grants, failure(FailureReason::NotInstalled)).is_of_pools(),
        "their definition is deleted"
    );
    let watches = cache.follow();
    assert_eq!(watches, NamedWatches { needed: Vec::new(), unneeded: vec![tls] });
}

#[test]
fn grants_hold_up_nothing_where_they_are_not_installed_and_are_kept_while_they_cannot_be_read() {
    let mut cache = Cache::synced();
    let grants = everywhere(Kind::ReferenceGrant);
    cache.list(&grants, vec![grant("g", 1)]);
    for reason in [FailureReason::Forbidden, FailureReason::Refused, FailureReason::Unreachable] {
        assert_eq!(cache.say(&grants, failure(reason)), Changes::default(), "{reason}");
    }
    let mut cache = Cache::new(&[]);
    for kind in Kind::NAMESPACED.into_iter().filter(|kind| *kind != Kind::ReferenceGrant) {
        cache.list(&everywhere(kind), Vec::new());
    }
    assert_eq!(cache.waiting_for(), "waiting for ReferenceGrants");
    cache.say(&grants, failure(FailureReason::NotInstalled));
    assert!(cache.is_settled());
    assert!(cache.list(&grants, vec![grant("g", 1)]).is_of_pools(), "installed later");
}

#[test]
fn a_malformed_grant_permits_nothing_and_is_named_until_it_is_good_or_gone() {
    let mut cache = Cache::synced();
    let grants = everywhere(Kind::ReferenceGrant);
    cache.list(&grants, vec![grant("g", 1), grant("other", 1)]);
    assert!(
        cache.say(&grants, Event::Apply(malformed("g", "no"))).is_of_pools(),
        "what it permits is not known"
    );
    assert_eq!(cache.malformed_grants()[&key("g")].sentence, "no");
    assert_eq!(cache.objects().grants.keys().collect::<Vec<_>>(), [&key("other")]);
    assert_eq!(cache.say(&grants, Event::Apply(malformed("g", "no"))), Changes::default());
    assert!(
        cache.say(&grants, Event::Apply(malformed("g", "no again"))).is_of_pools(),
        "there is more to say"
    );
    assert!(cache.say(&grants, Event::Apply(grant("g", 1))).is_of_pools());
    assert_eq!((cache.malformed_grants().len(), cache.objects().grants.len()), (0, 2));
    cache.say(&grants, Event::Apply(malformed("other", "no")));
    assert!(cache.list(&grants, vec![grant("g", 1)]).is_of_pools());
    assert_eq!((cache.malformed_grants().len(), cache.objects().grants.len()), (0, 1));
    cache.say(&grants, Event::Apply(malformed("g", "no")));
    assert!(cache.say(&grants, Event::Delete(key("g"))).is_of_pools());
    assert_eq!((cache.malformed_grants().len(), cache.objects().grants.len()), (0, 0));
}

#[test]
fn a_secret_that_may_not_be_read_is_told_from_one_that_is_not_there() {
    let mut cache = Cache::synced();
    let pools = everywhere(Kind::LoadBalancerPool);
    cache.list(&pools, vec![pool("a", 1, "one")]);
    cache.follow();
    let one = WatchId::secret(key("one"));
    let unread = |cache: &Cache| cache.objects().unread_secrets.get(&key("one")).copied();
    assert!(cache.say(&one, failure(FailureReason::Forbidden)).is_of_pools());
    assert_eq!(unread(&cache), Some(Unread::Forbidden));
    assert_eq!(cache.say(&one, failure(FailureReason::Forbidden)), Changes::default(), "the same again");
    assert!(cache.say(&one, failure(FailureReason::Unreachable)).is_of_pools());
    assert_eq!(unread(&cache), Some(Unread::Unanswered));
    assert!(cache.list(&one, Vec::new()).is_of_pools(), "it is known now that there is none");
    assert_eq!(unread(&cache), None);
    cache.list(&one, vec![secret("one", 1)]);
    assert_eq!(cache.say(&one, failure(FailureReason::Forbidden)), Changes::default());
    assert_eq!(unread(&cache), None, "what was known of it stays");

    cache.say(&one, Event::Delete(key("one")));
    assert!(cache.say(&one, failure(FailureReason::Forbidden)).is_of_pools());
    cache.say(&pools, Event::Apply(pool("a", 1, "two")));
    cache.follow();
    assert_eq!(unread(&cache), None, "nobody names it");
}

#[test]
fn a_secret_that_cannot_be_read_holds_up_nothing_for_ever() {
    for (reason, attempts) in [
        (FailureReason::Forbidden, 1),
        (FailureReason::Refused, FAILURES_MAX),
        (FailureReason::Unreachable, FAILURES_MAX),
    ] {
        let mut cache = Cache::synced();
        cache.list(&everywhere(Kind::LoadBalancerPool), vec![pool("a", 1, "one")]);
        cache.follow();
        let one = WatchId::secret(key("one"));
        for _ in 0..attempts {
            assert!(!cache.is_settled(), "{reason}");
            cache.say(&one, failure(reason));
        }
        assert!(cache.is_settled(), "{reason}");
        cache.list(&one, vec![secret("one", 1)]);
        cache.say(&one, failure(reason));
        assert_eq!(cache.objects().secrets.len(), 1, "what was known of it stays");
    }
}

#[test]
fn secrets_past_the_limit_are_counted_and_not_watched() {
    for (count, unwatched) in [(SECRETS_MAX, 0), (SECRETS_MAX + 1, 1)] {
        let mut cache = Cache::synced();
        let pools = (0..count).map(|n| pool(&format!("p-{n}"), 1, &format!("s-{n}"))).collect();
        cache.list(&everywhere(Kind::LoadBalancerPool), pools);
        let watches = cache.follow();
        assert_eq!((watches.needed.len(), cache.unwatched()), (SECRETS_MAX, unwatched));
        let past = cache.objects().unread_secrets.values().filter(|why| **why == Unread::TooMany);
        assert_eq!(past.count(), unwatched);
    }
}

/// Xorshift: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// The API server: what is there, and how far each watch has heard of it.
struct Server {
    items: BTreeMap<(Kind, ObjectKey), Item>,
    connected: BTreeMap<WatchId, bool>,
    /// Values of the label `app` of pods.
    apps: BTreeMap<ObjectKey, String>,
    version: u64,
}

impl Server {
    fn of<'a>(&'a self, id: &'a WatchId) -> impl Iterator<Item = &'a Item> {
        let here =
            self.items.iter().filter(move |((kind, key), _)| *kind == id.kind && self.is_of(&id.extent, key));
        here.map(|(_, item)| item)
    }

    fn is_of(&self, extent: &Extent, key: &ObjectKey) -> bool {
        let labels = || self.apps.get(key).map(|app| [("app".to_owned(), app.clone())].into());
        match extent {
            Extent::Selected(selector) => {
                labels().is_some_and(|labels| selector.takes(&key.namespace, &labels))
            }
            _ => extent.covers(key),
        }
    }

    /// Changes one pod, perhaps so that other selectors take it.
    fn change_pod(&mut self, name: &str, random: &mut Random) -> Vec<Message> {
        let (key, item) = (key(name), selected_pod(name, random.below(3)));
        let connected = |server: &Self| -> BTreeSet<WatchId> {
            let is_here = |id: &&WatchId| id.kind == Kind::Pod && server.is_of(&id.extent, &key);
            let connected = server.connected.iter().filter(|(_, is_connected)| **is_connected);
            connected.map(|(id, _)| id).filter(is_here).cloned().collect()
        };
        let before = connected(self);
        if random.below(3) == 0 {
            self.items.remove(&(Kind::Pod, key.clone()));
            self.apps.remove(&key);
        } else {
            self.items.insert((Kind::Pod, key.clone()), item.clone());
            let app = ["web", "b", "c"][usize::try_from(random.below(3)).expect("small")];
            self.apps.insert(key.clone(), app.to_owned());
        }
        let now = connected(self);
        let left = before.difference(&now).map(|id| (id, Event::Delete(key.clone())));
        let said = left.chain(now.iter().map(|id| (id, Event::Apply(item.clone()))));
        said.map(|(id, event)| message(id, event)).collect()
    }

    /// Changes one object, and says which watches hear what of it, as far as they are connected.
    fn change(&mut self, random: &mut Random) -> Vec<Message> {
        self.version += 1;
        let kind = Kind::ALL[usize::try_from(random.below(6)).expect("small")];
        let name = ["web", "b", "c"][usize::try_from(random.below(3)).expect("small")];
        let version = random.below(3);
        let item = match kind {
            Kind::LoadBalancerPool if random.below(4) == 0 => malformed(name, &version.to_string()),
            Kind::LoadBalancerPool => {
                let named = ["web", "b", "c"][usize::try_from(version).expect("small")];
                selecting(&pool(name, 443, named), named)
            }
            Kind::Service => service(name, version),
            Kind::EndpointSlice => slice(name, ["web", "b"][usize::from(version > 0)], self.version),
            Kind::ReferenceGrant if random.below(4) == 0 => malformed(name, &version.to_string()),
            Kind::ReferenceGrant => grant(name, version),
            Kind::Secret => secret(name, version),
            Kind::Pod => return self.change_pod(name, random),
        };
        let event = if random.below(3) == 0 {
            if self.items.remove(&(kind, key(name))).is_none() {
                return Vec::new();
            }
            Event::Delete(key(name))
        } else {
            self.items.insert((kind, key(name)), item.clone());
            Event::Apply(item)
        };
        let hears = self
            .connected
            .iter()
            .find(|(id, is_connected)| id.kind == kind && id.extent.covers(&key(name)) && **is_connected);
        hears.map(|(id, _)| message(id, event)).into_iter().collect()
    }
}

/// Who compiles: sees only what was announced.
#[derive(Default)]
struct Compiler {
    services: BTreeMap<ObjectKey, (Option<Arc<Service>>, Vec<EndpointSlice>)>,
    pods: BTreeMap<Selector, (Selected, Option<Unread>)>,
    known: Objects,
}

type Selected = BTreeMap<String, SelectedPod>;

fn selected(objects: &Objects, selector: &Selector) -> (Selected, Option<Unread>) {
    let pods = objects.pods.of(selector).map(|(name, pod)| (name.to_owned(), pod.clone()));
    (pods.collect(), objects.pods.unread.get(selector).copied())
}

/// Copies what is there now of what was named.
fn copy<T: Clone>(
    names: impl Iterator<Item = ObjectKey>,
    from: &BTreeMap<ObjectKey, T>,
    to: &mut BTreeMap<ObjectKey, T>,
) {
    for name in names {
        match from.get(&name) {
            Some(object) => drop(to.insert(name, object.clone())),
            None => drop(to.remove(&name)),
        }
    }
}

impl Compiler {
    fn hear(&mut self, Changes { touched, .. }: &Changes, objects: &Objects) {
        for origin in &touched.origins {
            match origin {
                Origin::Service(service) => {
                    let slices = objects.slices_of(service).cloned().collect();
                    self.services.insert(service.clone(), (objects.services.get(service).cloned(), slices));
                }
                Origin::Pods(selector) => {
                    self.pods.insert(selector.clone(), selected(objects, selector));
                }
                Origin::Name(name) => panic!("{name:?} comes by no watch"),
                Origin::Remote(remote) => panic!("{remote} is named by no pool of these"),
            }
        }
        let known = &mut self.known;
        copy(touched.pools.iter().cloned(), &objects.pools, &mut known.pools);
        copy(touched.secrets.iter().cloned(), &objects.secrets, &mut known.secrets);
        copy(touched.secrets.iter().cloned(), &objects.unread_secrets, &mut known.unread_secrets);
        let grants: Vec<_> = known.grants.keys().chain(objects.grants.keys()).cloned().collect();
        let grants = grants.into_iter().filter(|grant| touched.grants.contains(&grant.namespace));
        copy(grants, &objects.grants, &mut known.grants);
    }

    fn assert_knows(&self, objects: &Objects) {
        for name in ["web", "b", "c"].map(key) {
            let slices: Vec<_> = objects.slices_of(&name).cloned().collect();
            let known = self.services.get(&name).cloned().unwrap_or_default();
            assert_eq!(known, (objects.services.get(&name).cloned(), slices), "{name}");
        }
        for selector in objects.pods.selectors().chain(objects.pods.unread.keys()) {
            assert_eq!(self.pods.get(selector), Some(&selected(objects, selector)), "{selector}");
        }
        let specs = |objects: &Objects| -> Vec<_> {
            objects.pools.iter().map(|(key, pool)| (key.clone(), pool.spec.clone())).collect()
        };
        assert_eq!(specs(&self.known), specs(objects));
        assert_eq!(self.known.secrets, objects.secrets);
        assert_eq!(self.known.unread_secrets, objects.unread_secrets);
        assert_eq!(self.known.grants, objects.grants);
    }
}

#[test]
fn whatever_the_order_of_events_the_cache_ends_as_the_api_server_and_every_change_is_announced() {
    for seed in 1..=SEEDS {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut cache = Cache::new(&[]);
        let connected = cache.watches().map(|id| (id.clone(), false)).collect();
        let mut server = Server { items: BTreeMap::new(), connected, apps: BTreeMap::new(), version: 0 };
        let mut compiler = Compiler::default();
        let mut now = Instant::now();
        for step in 0..STEPS {
            let mut changes = Changes::default();
            match random.below(8) {
                // One watch in a while breaks off, perhaps in the middle of a list.
                0 => {
                    let pick = usize::try_from(random.below(server.connected.len() as u64)).expect("small");
                    let (id, is_connected) = server.connected.iter_mut().nth(pick).expect("in range");
                    *is_connected = false;
                    let watch = id.clone();
                    cache.step(message(&watch, Event::Init), &mut changes);
                    cache.step(message(&watch, failure(FailureReason::Unreachable)), &mut changes);
                }
                1 | 2 => relist(&mut cache, &mut server, &mut random, &mut changes),
                _ => {
                    for message in server.change(&mut random) {
                        cache.step(message, &mut changes);
                    }
                }
            }
            now += std::time::Duration::from_millis(random.below(1_000));
            cache.lapse(now, &mut changes);
            follow(&mut cache, &mut server, &mut changes);
            compiler.hear(&changes, cache.objects());
            compiler.assert_knows(cache.objects());
            assert_connected_watches_are_exact(&cache, &server, seed, step);
        }
    }
}

fn relist(cache: &mut Cache, server: &mut Server, random: &mut Random, changes: &mut Changes) {
    let pick = usize::try_from(random.below(server.connected.len() as u64)).expect("small");
    let watch = server.connected.keys().nth(pick).expect("in range").clone();
    let items: Vec<_> = server.of(&watch).cloned().collect();
    cache.step(message(&watch, Event::Init), changes);
    for item in items {
        cache.step(message(&watch, Event::InitApply(item)), changes);
    }
    cache.step(message(&watch, Event::InitDone), changes);
    server.connected.insert(watch, true);
}

fn follow(cache: &mut Cache, server: &mut Server, changes: &mut Changes) {
    if changes.is_of_pools() {
        let mut watches = cache.follow_references(changes);
        // Nothing is served here, so that what nobody names ends at once.
        watches.unneeded.extend(cache.release_selectors(&World::default(), changes).unneeded);
        server.connected.retain(|id, _| !watches.unneeded.contains(id));
        server.connected.extend(watches.needed.into_iter().map(|id| (id, false)));
    }
}

fn assert_connected_watches_are_exact(cache: &Cache, server: &Server, seed: u64, step: usize) {
    for (id, _) in server.connected.iter().filter(|(_, is_connected)| **is_connected) {
        let kept: BTreeSet<_> = match &id.extent {
            Extent::Selected(selector) => {
                cache.objects().pods.of(selector).map(|(name, _)| key(name)).collect()
            }
            _ => cache.kept(id).filter(|key| !cache.guard.holds(id.kind, key)).collect(),
        };
        let there: BTreeSet<_> = server.of(id).map(Item::key).collect();
        // A malformed pool keeps what it said before, under the same key.
        assert_eq!(kept, there, "seed {seed}, step {step}, {id}");
    }
    for (kind, malformed) in
        [(Kind::LoadBalancerPool, cache.malformed()), (Kind::ReferenceGrant, cache.malformed_grants())]
    {
        for (key, malformed) in malformed {
            if server.connected.get(&everywhere(kind)) == Some(&true) && !cache.guard.holds(kind, key) {
                let there = server.items.get(&(kind, key.clone()));
                assert_eq!(there, Some(&Item::Malformed(Arc::clone(malformed))), "seed {seed}, step {step}");
            }
        }
    }
}

#[test]
fn a_secret_past_the_limit_is_watched_once_there_is_room_and_its_pool_hears_of_it() {
    let mut cache = Cache::synced();
    let pools = everywhere(Kind::LoadBalancerPool);
    let item = |n: usize| pool(&format!("p-{n:04}"), 1, &format!("s-{n:04}"));
    cache.list(&pools, (0..=SECRETS_MAX).map(item).collect());
    cache.follow();
    let past = key(&format!("s-{SECRETS_MAX:04}"));
    assert_eq!(cache.objects().unread_secrets.get(&past), Some(&Unread::TooMany));
    let mut changes = cache.say(&pools, Event::Delete(key("p-0000")));
    let watches = cache.follow_references(&mut changes);
    let ids = |name: &ObjectKey| vec![WatchId::secret(name.clone())];
    assert_eq!(watches, NamedWatches { needed: ids(&past), unneeded: ids(&key("s-0000")) });
    assert_eq!((cache.unwatched(), cache.objects().unread_secrets.len()), (0, 0));
    assert!(changes.touched.secrets.contains(&past));
}

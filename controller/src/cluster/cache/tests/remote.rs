//! Services of other clusters: when they are watched, with what, and what is made of what they say.

use super::*;
use crate::cluster::followed::REMOTES_MAX;
use crate::compile::{AwayReason, RemoteService, world};
use weir_crds::LoadBalancerPool;

/// A pool without a certificate, of Services `web0` and so on in another cluster.
fn remote_pool(name: &str, services: std::ops::Range<usize>) -> Item {
    let set = |n: usize| {
        json!({ "name": format!("s{n}"), "service": { "name": format!("web{n}"), "port": 80,
            "clusters": [{ "name": "east", "kubeconfigRef": { "name": "east" } }] } })
    };
    let spec = json!({
        "listeners": [{ "name": "l", "port": 80, "protocol": "HTTP" }],
        "backendSets": services.map(set).collect::<Vec<_>>(),
    });
    let spec = serde_json::from_value(spec).expect("a specification");
    Item::Pool(Arc::new(LoadBalancerPool { metadata: metadata(name), spec, status: None }))
}

fn kubeconfig(content: &str) -> Item {
    let data = [("kubeconfig".to_owned(), ByteString(content.as_bytes().to_vec()))];
    Item::Secret(Arc::new(Secret {
        metadata: metadata("east"),
        data: Some(data.into()),
        ..Secret::default()
    }))
}

fn remote(service: &str) -> RemoteService {
    RemoteService { secret: key("east"), key: "kubeconfig".to_owned(), service: key(service) }
}

fn watches(service: &str) -> Vec<WatchId> {
    [Kind::Service, Kind::EndpointSlice].map(|kind| WatchId::remote(kind, remote(service))).into()
}

fn secret_watch() -> WatchId {
    WatchId::secret(key("east"))
}

fn origins(service: &str) -> BTreeSet<Origin> {
    [Origin::Remote(remote(service))].into()
}

/// A cache that watches `web0` with the kubeconfig `one`.
fn watching() -> Cache {
    let mut cache = Cache::synced();
    cache.list(&everywhere(Kind::LoadBalancerPool), vec![remote_pool("p", 0..1)]);
    assert_eq!(cache.follow().needed, vec![secret_watch()], "without a kubeconfig there is nobody to ask");
    assert!(!cache.is_settled() && cache.are_remotes_read());
    assert_eq!(change_secret(&mut cache, vec![kubeconfig("one")]), (watches("web0"), Vec::new()));
    cache
}

/// The Secret's list, and which watches are started and stopped for it.
fn change_secret(cache: &mut Cache, items: Vec<Item>) -> (Vec<WatchId>, Vec<WatchId>) {
    let mut changes = cache.list(&secret_watch(), items);
    let NamedWatches { needed, unneeded } = cache.follow_references(&mut changes);
    (needed, unneeded)
}

fn list_both(cache: &mut Cache) -> [Changes; 2] {
    let [services, slices] = &watches("web0")[..] else { panic!("two") };
    [cache.list(services, vec![service("web0", 1)]), cache.list(slices, vec![slice("a", "web0", 1)])]
}

fn why(cache: &Cache) -> Option<AwayReason> {
    cache.objects().remotes.away.get(&remote("web0")).map(|away| away.why.clone())
}

fn slices(cache: &Cache) -> usize {
    cache.objects().remotes.of(&remote("web0")).map_or(0, |(_, slices)| slices.len())
}

#[test]
fn another_cluster_is_waited_for_by_nobody_and_touches_its_own_sets_alone() {
    let mut cache = watching();
    assert!(cache.is_settled(), "it is not waited for");
    assert!(!cache.are_remotes_read(), "but for who starts");
    assert_eq!((cache.settled(Kind::Secret), cache.settled(Kind::Service)), (1, 1));
    let [half, whole] = list_both(&mut cache);
    assert_eq!((half, whole.touched.origins), (Changes::default(), origins("web0")));
    assert!(cache.are_remotes_read());
    let [services, slices_watch] = &watches("web0")[..] else { panic!("two") };
    let mut brought = |watch: &WatchId, event| cache.say(watch, event).touched;
    for (watch, event, is_news) in [
        (slices_watch, Event::Apply(slice("a", "web0", 1)), false),
        (slices_watch, Event::Apply(slice("a", "web0", 2)), true),
        (slices_watch, Event::Apply(slice("b", "web0", 1)), true),
        (slices_watch, Event::Delete(key("b")), true),
        (slices_watch, Event::Delete(key("b")), false),
        (services, Event::Apply(service("web0", 1)), false),
        (services, Event::Apply(service("web0", 2)), true),
        (services, Event::Apply(service("other", 1)), false),
        (services, Event::Delete(key("web0")), true),
    ] {
        let expected = if is_news { origins("web0") } else { BTreeSet::new() };
        assert_eq!(brought(watch, event).origins, expected);
    }
    assert!(
        cache.objects().services.is_empty() && cache.objects().slices().len() == 0,
        "nothing of it is ours"
    );
    let changes = cache.list(slices_watch, Vec::new());
    assert_eq!((changes.touched.origins, slices(&cache)), (origins("web0"), 0), "a list is believed at once");
}

#[test]
fn another_kubeconfig_is_another_watch_and_what_was_known_stays_all_the_way() {
    let mut cache = watching();
    list_both(&mut cache);
    assert_eq!(change_secret(&mut cache, vec![kubeconfig("one")]), (Vec::new(), Vec::new()), "the same");
    assert_eq!(change_secret(&mut cache, vec![kubeconfig("two")]), (watches("web0"), watches("web0")));
    let content = |cache: &Cache| cache.kubeconfig_of(&watches("web0")[0]).cloned();
    assert_eq!((slices(&cache), content(&cache)), (1, Some(ByteString(b"two".to_vec()))));
    assert_eq!(change_secret(&mut cache, Vec::new()), (Vec::new(), watches("web0")));
    assert_eq!((slices(&cache), content(&cache)), (1, None), "nobody is asked any more");
    let late = message(&watches("web0")[0], Event::Delete(key("web0")));
    cache.step(late, &mut Changes::default());
    assert_eq!(slices(&cache), 1, "a watch that ended says nothing");
    assert_eq!(change_secret(&mut cache, vec![kubeconfig("one")]), (watches("web0"), Vec::new()));
    assert_eq!(list_both(&mut cache), [Changes::default(), Changes::default()], "all is as it was");
}

#[test]
fn a_cluster_is_away_once_that_is_certain_and_back_once_both_watches_have_listed() {
    for (reason, failures, expected) in [
        (FailureReason::Forbidden, 1, AwayReason::Forbidden),
        (FailureReason::Kubeconfig, 1, AwayReason::Kubeconfig("test".to_owned())),
        (FailureReason::Refused, FAILURES_MAX, AwayReason::Refused),
        (FailureReason::NotInstalled, FAILURES_MAX, AwayReason::Refused),
        (FailureReason::Unreachable, FAILURES_MAX, AwayReason::Unreachable),
    ] {
        for is_known in [false, true] {
            let mut cache = watching();
            if is_known {
                list_both(&mut cache);
            }
            let id = &watches("web0")[1];
            for _ in 1..failures {
                assert_eq!(cache.say(id, failure(reason)), Changes::default(), "{reason}");
            }
            assert_eq!(cache.say(id, failure(reason)).touched.origins, origins("web0"), "{reason}");
            assert_eq!(why(&cache), Some(expected.clone()));
            assert!(cache.is_settled() && cache.are_remotes_read(), "nobody waits for it");
            assert_eq!(cache.say(id, failure(reason)), Changes::default(), "the same again");
            assert_eq!(slices(&cache), usize::from(is_known), "what was known stays");
            let [_, listed] = list_both(&mut cache);
            assert_eq!((listed.touched.origins, why(&cache)), (origins("web0"), None), "{reason}");
        }
    }
}

#[test]
fn a_service_that_nobody_names_is_watched_until_nothing_follows_it() {
    let mut cache = watching();
    list_both(&mut cache);
    let world = world(cache.objects(), None);
    let mut changes = cache.say(&everywhere(Kind::LoadBalancerPool), Event::Delete(key("p")));
    cache.follow_references(&mut changes);
    let release = |cache: &mut Cache, world: &World| {
        cache.release_remotes(world, &mut Changes::default());
        cache.objects().remotes.is_known(&remote("web0"))
    };
    assert!(release(&mut cache, &world), "it is served");
    assert!(!release(&mut cache, &World::default()));
    assert_eq!(cache.remote_watches(), 0);
}

#[test]
fn past_the_limit_services_wait_for_room_and_their_pools_say_so() {
    let mut cache = Cache::synced();
    let pools = vec![remote_pool("p", 0..1), remote_pool("q", 1..REMOTES_MAX)];
    cache.list(&everywhere(Kind::LoadBalancerPool), pools);
    cache.follow();
    change_secret(&mut cache, vec![kubeconfig("one")]);
    assert_eq!((cache.remote_watches(), cache.objects().remotes.away.len()), (2 * REMOTES_MAX, 0));
    let late = REMOTES_MAX..REMOTES_MAX + 1;
    let apply = |cache: &mut Cache, event| {
        let mut changes = cache.say(&everywhere(Kind::LoadBalancerPool), event);
        cache.follow_references(&mut changes);
        changes.touched.origins
    };
    let name = format!("web{REMOTES_MAX}");
    assert_eq!(apply(&mut cache, Event::Apply(remote_pool("r", late))), origins(&name));
    assert_eq!(cache.objects().remotes.away[&remote(&name)].why, AwayReason::TooMany);
    assert_eq!(cache.remote_watches(), 2 * REMOTES_MAX, "none loses its place");
    apply(&mut cache, Event::Delete(key("p")));
    let mut changes = Changes::default();
    let NamedWatches { needed, unneeded } = cache.release_remotes(&World::default(), &mut changes);
    assert_eq!((needed, unneeded), (watches(&name), watches("web0")));
    assert_eq!((changes.touched.origins, cache.objects().remotes.away.len()), (origins(&name), 0));
}

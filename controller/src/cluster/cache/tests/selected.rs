//! Pods that selectors take: which are watched, waited for, kept and given up.

use super::*;
use crate::cluster::followed::SELECTORS_MAX;
use crate::compile::world;

fn of(app: &str) -> Selector {
    let Item::Pool(pool) = selecting(&pool("p", 1, "tls"), app) else { panic!("a pool") };
    crate::compile::selectors_of(&pool).pop_first().expect("it names one")
}

fn watch(app: &str) -> WatchId {
    WatchId::pods(of(app))
}

fn origins(apps: &[&str]) -> BTreeSet<Origin> {
    apps.iter().map(|app| Origin::Pods(of(app))).collect()
}

/// A pool without a Secret.
fn plain(name: &str, app: &str) -> Item {
    let Item::Pool(pool) = selecting(&pool(name, 80, "no"), app) else { panic!("a pool") };
    let mut pool = (*pool).clone();
    pool.spec.listeners[0].tls = None;
    pool.spec.listeners[0].protocol = weir_crds::pool::Protocol::Http;
    Item::Pool(Arc::new(pool))
}

fn pods_of(cache: &Cache, app: &str) -> Vec<String> {
    cache.objects().pods.of(&of(app)).map(|(name, _)| name.to_owned()).collect()
}

fn unread(cache: &Cache, app: &str) -> Option<Unread> {
    cache.objects().pods.unread.get(&of(app)).copied()
}

fn synced_with(items: Vec<Item>) -> Cache {
    let mut cache = Cache::synced();
    cache.list(&everywhere(Kind::LoadBalancerPool), items);
    cache.follow();
    cache
}

fn edit(cache: &mut Cache, item: Item) -> NamedWatches {
    let mut changes = cache.say(&everywhere(Kind::LoadBalancerPool), Event::Apply(item));
    cache.follow_references(&mut changes)
}

fn release(cache: &mut Cache, world: &World) -> Vec<WatchId> {
    cache.release_selectors(world, &mut Changes::default()).unneeded
}

#[test]
fn two_pools_with_one_selector_are_one_watch_and_an_event_is_of_its_sets_alone() {
    let mut cache = Cache::synced();
    let pools = vec![plain("a", "web"), plain("b", "web"), plain("c", "api")];
    cache.list(&everywhere(Kind::LoadBalancerPool), pools);
    assert_eq!(cache.follow().needed, vec![watch("api"), watch("web")]);
    assert!(!cache.is_settled(), "pools wait for what they name");
    let waiting = "waiting for Pods with \"app=api\" of namespace ns, Pods with \"app=web\" of namespace ns";
    assert_eq!(cache.waiting_for(), waiting);
    let changes = cache.list(&watch("web"), vec![selected_pod("one", 1), selected_pod("two", 1)]);
    assert_eq!(changes.touched.origins, origins(&["web"]));
    assert!(!changes.is_of_pools());
    let changes = cache.list(&watch("api"), Vec::new());
    assert_eq!(changes.touched.origins, origins(&["api"]), "it is known that there is none");
    assert!(cache.is_settled());
    assert_eq!((cache.settled(Kind::Pod), cache.settled(Kind::Secret)), (2, 0));

    let web = watch("web");
    let mut origins_of = |event| cache.say(&web, event).touched.origins;
    assert_eq!(origins_of(Event::Apply(selected_pod("one", 1))), origins(&[]), "the same");
    assert_eq!(origins_of(Event::Apply(selected_pod("one", 2))), origins(&["web"]));
    assert_eq!(origins_of(Event::Delete(key("one"))), origins(&["web"]));
    assert_eq!(origins_of(Event::Delete(key("one"))), origins(&[]));
    assert_eq!(cache.list(&web, vec![selected_pod("two", 1)]), Changes::default(), "listed again, no other");
    assert_eq!(pods_of(&cache, "web"), ["two"]);
    let changes = cache.list(&web, Vec::new());
    assert_eq!(changes.touched.origins, origins(&["web"]), "it vanished while nobody looked");
}

#[test]
fn a_selector_that_is_left_is_watched_until_nothing_that_is_served_follows_it() {
    let mut cache = synced_with(vec![plain("a", "old")]);
    cache.list(&watch("old"), vec![selected_pod("one", 1)]);
    cache.go_on();
    let before = world(cache.objects(), None);
    assert!(before.is_followed(&Origin::Pods(of("old"))));

    let watches = edit(&mut cache, plain("a", "new"));
    assert_eq!(watches, NamedWatches { needed: vec![watch("new")], unneeded: Vec::new() });
    assert!(!cache.is_settled());
    assert_eq!(release(&mut cache, &before), []);
    assert_eq!(pods_of(&cache, "old"), ["one"], "it serves until the other is there");
    cache.list(&watch("new"), vec![selected_pod("two", 1)]);
    cache.go_on();
    let after = world(cache.objects(), Some(&before));
    assert_eq!(release(&mut cache, &after), [watch("old")]);
    assert_eq!((pods_of(&cache, "old"), pods_of(&cache, "new")), (vec![], vec!["two".to_owned()]));
    let late = cache.say(&watch("old"), Event::Apply(selected_pod("one", 2)));
    assert_eq!(late, Changes::default(), "it was stopped");
    assert_eq!(cache.settled(Kind::Pod), 1);
}

#[test]
fn a_pool_that_is_rejected_keeps_the_pods_that_it_serves_with() {
    let mut cache = synced_with(vec![plain("a", "old")]);
    cache.list(&watch("old"), vec![selected_pod("one", 1)]);
    cache.go_on();
    let before = world(cache.objects(), None);
    let Item::Pool(wrong) = plain("a", "new") else { panic!("a pool") };
    let mut wrong = (*wrong).clone();
    wrong.spec.listeners[0].port = 0;
    edit(&mut cache, Item::Pool(Arc::new(wrong)));
    cache.list(&watch("new"), Vec::new());
    cache.go_on();
    let after = world(cache.objects(), Some(&before));
    assert_eq!(after.last_good.len(), 1);
    assert_eq!(release(&mut cache, &after), [], "what it said before serves on");
    // It goes, and with it what was served of it.
    cache.say(&everywhere(Kind::LoadBalancerPool), Event::Delete(key("a")));
    let mut changes = Changes::default();
    changes.touched.pools.insert(key("a"));
    cache.follow_references(&mut changes);
    let gone = world(cache.objects(), Some(&after));
    assert_eq!(release(&mut cache, &gone), [watch("new"), watch("old")]);
    assert_eq!(cache.objects().pods, crate::compile::Pods::default());
}

#[test]
fn a_selector_that_is_named_again_before_its_watch_ended_goes_on() {
    let mut cache = synced_with(vec![plain("a", "web")]);
    cache.list(&watch("web"), vec![selected_pod("one", 1)]);
    cache.go_on();
    let before = world(cache.objects(), None);
    edit(&mut cache, plain("a", "other"));
    assert_eq!(edit(&mut cache, plain("a", "web")), NamedWatches::default());
    assert_eq!(release(&mut cache, &before), [watch("other")], "nobody names or follows it");
    assert!(cache.is_settled());
    assert_eq!(release(&mut cache, &World::default()), [], "it is named");
}

#[test]
fn a_watch_of_pods_that_is_refused_holds_up_nothing_and_what_was_known_stays() {
    for (reason, attempts, expected) in [
        (FailureReason::Forbidden, 1, Unread::Forbidden),
        (FailureReason::Refused, FAILURES_MAX, Unread::Unanswered),
        (FailureReason::Unreachable, FAILURES_MAX, Unread::Unanswered),
    ] {
        let mut cache = synced_with(vec![plain("a", "web")]);
        let web = watch("web");
        let mut changes = Changes::default();
        for _ in 0..attempts {
            assert!(!cache.is_settled() && unread(&cache, "web").is_none(), "{reason}");
            changes = cache.say(&web, failure(reason));
        }
        assert_eq!(changes.touched.origins, origins(&["web"]), "{reason}");
        assert!(cache.is_settled(), "{reason}");
        assert_eq!(unread(&cache, "web"), Some(expected), "{reason}");
        assert_eq!(cache.say(&web, failure(reason)), Changes::default(), "the same again");

        cache.list(&web, vec![selected_pod("one", 1)]);
        assert_eq!(unread(&cache, "web"), None, "{reason}");
        for attempt in 1..=FAILURES_MAX {
            cache.say(&web, failure(reason));
            let is_told = reason != FailureReason::Unreachable && attempt >= attempts;
            assert_eq!(unread(&cache, "web"), is_told.then_some(expected), "{reason}");
        }
        assert_eq!(pods_of(&cache, "web"), ["one"], "{reason}");
    }
}

#[test]
fn selectors_past_the_limit_wait_and_take_nothing_from_those_that_are_watched() {
    let named = |n: usize| plain(&format!("p-{n:04}"), &format!("s-{n:04}"));
    let mut cache = Cache::synced();
    let pools = everywhere(Kind::LoadBalancerPool);
    let mut changes = cache.list(&pools, (1..=SELECTORS_MAX).map(named).collect());
    assert_eq!(cache.follow_references(&mut changes).needed.len(), SELECTORS_MAX);
    assert_eq!((cache.unwatched_selectors(), cache.selectors.watched().len()), (0, SELECTORS_MAX));
    let first = edit(&mut cache, named(0));
    assert_eq!(first, NamedWatches::default(), "though its name is smaller than theirs");
    assert_eq!((cache.unwatched_selectors(), unread(&cache, "s-0000")), (1, Some(Unread::TooMany)));
    assert_eq!(cache.selectors.watched().len(), SELECTORS_MAX);

    let mut changes = cache.say(&pools, Event::Delete(key("p-0007")));
    cache.follow_references(&mut changes);
    let mut changes = Changes::default();
    let watches = cache.release_selectors(&World::default(), &mut changes);
    assert_eq!(watches, NamedWatches { needed: vec![watch("s-0000")], unneeded: vec![watch("s-0007")] });
    assert_eq!(changes.touched.origins, origins(&["s-0000"]));
    assert_eq!((cache.unwatched_selectors(), unread(&cache, "s-0000")), (0, None));
}

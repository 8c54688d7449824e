//! A world that follows changes is the world that everything compiles to.

use super::*;
use crate::compile::index::Index;
use crate::dns::{Answered, Families, Lookup, REFRESH_DEFAULT, Resolution, Trouble, What};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

const SEEDS: u64 = 300;
const STEPS: usize = 25;
const NAMESPACES: [&str; 2] = ["a", "b"];
const HOSTNAMES: [&str; 2] = ["a.example.", "b.example."];

/// A world with room for so many pools.
fn with_places(places_max: usize) -> World {
    World { index: Index::new(places_max), ..World::default() }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let bound = u64::try_from(bound).expect("a small number");
        usize::try_from((z ^ (z >> 31)) % bound).expect("below the bound")
    }

    fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }

    fn key(&mut self, prefix: &str, count: usize) -> ObjectKey {
        ObjectKey::new(self.of(&NAMESPACES), format!("{prefix}{}", self.below(count)))
    }
}

fn metadata(key: &ObjectKey) -> ObjectMeta {
    let (name, namespace) = (Some(key.name.clone()), Some(key.namespace.clone()));
    ObjectMeta { name, namespace, ..ObjectMeta::default() }
}

fn pool_of(key: &ObjectKey, created: Option<i64>, spec: Value) -> Arc<LoadBalancerPool> {
    let mut metadata = metadata(key);
    metadata.creation_timestamp = created.map(|second| Time(Timestamp::from_second(second).expect("a time")));
    let spec = serde_json::from_value(spec).expect("a specification");
    Arc::new(LoadBalancerPool { metadata, spec, status: None })
}

/// Pools that often want the same, of objects that often are not there.
fn random_pool(random: &mut Random, key: &ObjectKey) -> Arc<LoadBalancerPool> {
    let host_lists = [json!([]), json!(["x"]), json!(["y"]), json!(["x", "y"]), json!(["*.z"])];
    let listener = |random: &mut Random, index: usize| {
        let mut listener = json!({
            "name": format!("l{index}"), "port": random.of(&[80, 81, 82]), "protocol": "HTTP",
            "hostnames": random.of(&host_lists),
        });
        if random.below(3) == 0 {
            listener["protocol"] = json!("HTTPS");
            let reference = |random: &mut Random| json!({ "name": format!("tls{}", random.below(3)), "namespace": random.of(&NAMESPACES) });
            let references: Vec<_> = (0..=random.below(2)).map(|_| reference(random)).collect();
            listener["tls"] = json!({ "certificateRefs": references });
        }
        for setting in ["limits", "paths"] {
            if random.below(4) == 0 {
                listener[setting] = json!({});
            }
        }
        listener
    };
    // Now and then one port twice, or one of 0, which is refused.
    let mut listeners: Vec<_> = (0..=random.below(2)).map(|index| listener(random, index)).collect();
    if random.below(10) == 0 {
        listeners[0]["port"] = json!(0);
    }
    let sets = ["s0", "s1"].map(|name| match random.below(5) {
        1 => json!({ "name": name, "endpointSelector":
            { "matchLabels": { "app": format!("web{}", random.below(3)) }, "port": random.of(&[json!(80), json!("http")]) } }),
        0 if random.below(2) == 0 => {
            json!({ "name": name, "static": { "backends": [{ "address": "10.0.0.1", "port": 80 }] } })
        }
        0 => json!({ "name": name, "dns": { "hostname": random.of(&HOSTNAMES), "port": 80 } }),
        _ => {
            let service = random.key("web", 3);
            let east = json!([{ "name": "east", "kubeconfigRef": { "name": "tls0" } }]);
            json!({ "name": name, "service":
                { "name": service.name, "namespace": service.namespace, "port": random.of(&[80, 80, 81]),
                  "clusters": random.of(&[json!([]), east]) } })
        }
    });
    let rules = match random.below(3) {
        0 => json!([{ "hostnames": [random.of(&["x", "w"])], "backendSets": [{ "name": "s0" }] }]),
        1 => json!([{ "backendSets": [{ "name": "s1" }] }]),
        _ => json!([]),
    };
    let labels = [json!({}), json!({}), json!({ "app": "one" }), json!({ "app": "two" })];
    let spec = json!({
        "listeners": listeners, "backendSets": sets, "rules": rules,
        "dataPlane": {
            "className": random.of(&["default", "default", "default", "edge"]),
            "selector": { "matchLabels": random.of(&labels) },
        },
    });
    let created = random.of(&[None, Some(1), Some(2), Some(3)]);
    pool_of(key, created, spec)
}

fn random_service(random: &mut Random, key: &ObjectKey) -> Arc<Service> {
    let mut port = json!({ "name": "http", "port": 80 });
    if random.below(3) == 0 {
        port["appProtocol"] = json!(random.of(&["kubernetes.io/h2c", "smtp"]));
    }
    let mut spec = json!({ "ports": [port] });
    if random.below(3) == 0 {
        (spec["type"], spec["externalName"]) = (json!("ExternalName"), json!(random.of(&HOSTNAMES)));
    }
    let spec = serde_json::from_value(spec).expect("a specification");
    Arc::new(Service { metadata: metadata(key), spec: Some(spec), ..Service::default() })
}

fn random_slice(random: &mut Random, key: &ObjectKey) -> Arc<EndpointSlice> {
    let address = format!("10.1.0.{}", random.below(5));
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {
                "name": key.name, "namespace": key.namespace,
                "labels": { "kubernetes.io/service-name": format!("web{}", random.below(3)) },
            },
            "addressType": "IPv4",
            "ports": [{ "name": "http", "port": 8080 }],
            "endpoints": [{ "addresses": [address] }],
        }))
        .expect("a slice"),
    )
}

fn random_selector(random: &mut Random) -> Selector {
    let spec: weir_crds::LoadBalancerPoolSpec = serde_json::from_value(json!({
        "listeners": [],
        "backendSets": [{
            "name": "s",
            "endpointSelector": { "matchLabels": { "app": format!("web{}", random.below(3)) }, "port": 80 },
        }],
    }))
    .expect("a specification");
    let pool = LoadBalancerPool { metadata: metadata(&random.key("p", 1)), spec, status: None };
    selectors_of(&pool).pop_first().expect("it names one")
}

fn random_pods(random: &mut Random) -> BTreeMap<String, Arc<SelectedPod>> {
    let pod = |random: &mut Random| SelectedPod {
        state: random.of(&[PodState::Ready, PodState::Draining, PodState::Out]),
        address: Some(IpAddr::from([10, 1, 0, random.of(&[1, 2, 3])])),
        misspelt: None,
        ports: random.of(&[
            Box::default(),
            [PodPort { name: "http".into(), transport: Transport::Tcp, number: 8080 }].into(),
        ]),
        zone: "a".into(),
        node: Box::default(),
    };
    (0..random.below(4)).map(|n| (format!("pod{n}"), Arc::new(pod(random)))).collect()
}

fn random_remote(random: &mut Random) -> RemoteService {
    let secret = ObjectKey::new(random.of(&NAMESPACES), "tls0");
    RemoteService { secret, key: "kubeconfig".to_owned(), service: random.key("web", 3) }
}

fn random_grant(random: &mut Random) -> Arc<ReferenceGrant> {
    let from =
        json!([{ "group": "weir.dev", "kind": "LoadBalancerPool", "namespace": random.of(&NAMESPACES) }]);
    let mut to = json!({ "group": "", "kind": random.of(&["Service", "Secret"]) });
    if random.below(3) == 0 {
        to["name"] = json!(random.of(&["web0", "tls0"]));
    }
    let spec = serde_json::from_value(json!({ "from": from, "to": [to] })).expect("a grant");
    Arc::new(ReferenceGrant { metadata: ObjectMeta::default(), spec })
}

fn random_name(random: &mut Random) -> Answered {
    let hostname: &str = random.of(&HOSTNAMES);
    let lookup =
        Lookup { hostname: hostname.into(), families: Families::default(), refresh: REFRESH_DEFAULT };
    let address = |last: usize| IpAddr::from([10, 2, 0, u8::try_from(last).expect("small")]);
    let resolution = match random.below(4) {
        0 => return (lookup, None),
        1 => {
            let trouble = Trouble { what: What::Unanswered, since: std::time::SystemTime::UNIX_EPOCH };
            Resolution { is_open: random.below(2) == 0, trouble: Some(trouble), ..Resolution::default() }
        }
        _ => Resolution { addresses: vec![address(random.below(3))], ..Resolution::default() },
    };
    (lookup, Some(Arc::new(resolution)))
}

/// Something else is known of a Service of another cluster.
fn change_remote(random: &mut Random, objects: &mut Objects) -> RemoteService {
    let remote = random_remote(random);
    match random.below(4) {
        0 => objects.remotes.forget(&remote),
        1 => {
            let away = Away { since: std::time::SystemTime::UNIX_EPOCH, why: AwayReason::Unreachable };
            objects.remotes.away.insert(remote.clone(), away);
        }
        2 => {
            let service = random_service(random, &remote.service);
            objects.remotes.set_service(&remote, random.of(&[None, Some(service)]));
        }
        _ => {
            let slice = random_slice(random, &remote.service);
            objects.remotes.replace_slices(&remote, [("slice".to_owned(), slice)].into());
        }
    }
    remote
}

/// A Secret becomes another, comes, goes or may not be read.
fn change_secret(random: &mut Random, secrets: &[Arc<Secret>], objects: &mut Objects) -> ObjectKey {
    let (key, is_gone) = (random.key("tls", 3), random.below(4) == 0);
    objects.unread_secrets.remove(&key);
    if !is_gone {
        objects.secrets.insert(key.clone(), random.of(secrets));
    } else if objects.secrets.remove(&key).is_none() {
        objects.unread_secrets.insert(key.clone(), Unread::Forbidden);
    }
    key
}

/// One object becomes another, comes or goes.
fn change(random: &mut Random, secrets: &[Arc<Secret>], objects: &mut Objects, touched: &mut Touched) {
    let is_gone = random.below(4) == 0;
    match random.below(12) {
        9 => {
            let selector = random_selector(random);
            if is_gone {
                objects.pods.forget(&selector);
            } else {
                objects.pods.replace(&selector, random_pods(random));
            }
            touched.origins.insert(Origin::Pods(selector));
        }
        11 => {
            touched.origins.insert(Origin::Remote(change_remote(random, objects)));
        }
        10 => {
            let answered = random_name(random);
            touched.origins.insert(Origin::Name(answered.0.clone()));
            objects.learn(answered);
        }
        0..=3 => {
            let key = random.key("p", 4);
            let mut pool = random_pool(random, &key);
            if let Some(before) = objects.pools.remove(&key)
                && random.below(3) == 0
            {
                // Somebody created it again as it was.
                Arc::make_mut(&mut pool).spec = before.spec.clone();
            }
            if !is_gone {
                objects.pools.insert(key.clone(), pool);
            }
            touched.pools.insert(key);
        }
        4 => {
            let key = random.key("web", 3);
            if is_gone {
                objects.services.remove(&key);
            } else {
                objects.services.insert(key.clone(), random_service(random, &key));
            }
            touched.origins.insert(Origin::Service(key));
        }
        5 => {
            let key = random.key("slice", 4);
            if is_gone {
                touched.origins.extend(objects.remove_slice(&key).map(Origin::Service));
            } else {
                let services = objects.insert_slice(key.clone(), random_slice(random, &key));
                touched.origins.extend(services.into_iter().map(Origin::Service));
            }
        }
        6 | 7 => {
            touched.secrets.insert(change_secret(random, secrets, objects));
        }
        _ => {
            let key = random.key("grant", 2);
            if is_gone {
                objects.grants.remove(&key);
            } else {
                objects.grants.insert(key.clone(), random_grant(random));
            }
            touched.grants.insert(key.namespace);
        }
    }
}

/// Everything that is known of one pool.
fn of_pool<'a>(
    world: &'a World,
    key: &ObjectKey,
) -> (Option<&'a CompiledPool>, Option<&'a Vec<Rejection>>, bool) {
    (world.serving(key), world.rejections.get(key), world.lacking().any(|lacking| lacking == key))
}

#[test]
fn whatever_changes_a_world_that_follows_is_the_world_that_all_compiles_to() {
    let secrets = [good_secret(), good_secret(), secret("kubernetes.io/tls", "no", "no")];
    // How often each thing was met that is hard to get right.
    let (mut denied, mut kept, mut crowded, mut lacking, mut open, mut warned) = (0, 0, 0, 0, 0, 0);
    for seed in 0..SEEDS {
        let mut random = Random(seed);
        let places_max = random.of(&[2, 4, 10_000]);
        let (mut objects, mut pending) = (Objects::default(), Touched::default());
        let (mut following, mut whole) = (with_places(places_max), with_places(places_max));
        for step in 0..STEPS {
            for _ in 0..=random.below(3) {
                change(&mut random, &secrets, &mut objects, &mut pending);
            }
            if random.below(4) == 0 {
                // Endpoints do not wait for what waits for a Secret.
                let origins = std::mem::take(&mut pending.origins);
                following.update(&objects, &Touched { origins: origins.clone(), ..Touched::default() });
                for origin in &origins {
                    whole.refresh(origin, &objects);
                }
                continue;
            }
            let before = following.clone();
            let seen = following.update(&objects, &std::mem::take(&mut pending));
            whole = world(&objects, Some(&whole));
            assert!(following == whole, "seed {seed}, step {step}");
            assert!(following.all_serving().count() <= places_max, "seed {seed}, step {step}");
            let all = objects.pools.keys().chain(before.pools.keys()).chain(before.rejections.keys());
            for key in all.collect::<BTreeSet<_>>().into_iter().filter(|key| !seen.contains(key)) {
                assert_eq!(
                    of_pool(&before, key),
                    of_pool(&following, key),
                    "seed {seed}, step {step}: {key}"
                );
            }
            let rejections = || whole.rejections.values().flatten();
            denied += rejections().filter(|rejection| rejection.reason == Reason::Conflicted).count();
            crowded += rejections().filter(|rejection| rejection.field == "metadata.name").count();
            kept += whole.last_good.len();
            lacking += whole.lacking().count();
            open += whole.open().count();
            warned += whole.warnings().filter(|warning| warning.reason == Reason::RefNotPermitted).count();
        }
    }
    for (count, what) in [
        (denied, "denied"),
        (kept, "kept"),
        (crowded, "crowded"),
        (lacking, "lacking"),
        (open, "open"),
        (warned, "warned"),
    ] {
        assert!(count > 500, "{what}: only {count}");
    }
}

#[test]
fn what_differs_between_two_states_is_what_was_touched() {
    let secrets = [good_secret(), good_secret()];
    for seed in 0..50 {
        let (mut random, mut objects, mut following) = (Random(seed), Objects::default(), World::default());
        for step in 0..STEPS {
            let (before, mut touched) = (objects.clone(), Touched::default());
            for _ in 0..3 {
                change(&mut random, &secrets, &mut objects, &mut touched);
            }
            let between = Touched::between(&before, &objects);
            assert!(between.pools.is_subset(&touched.pools) && between.origins.is_subset(&touched.origins));
            assert!(between.secrets.is_subset(&touched.secrets) && between.grants.is_subset(&touched.grants));
            let whole = world(&objects, Some(&following));
            following.update(&objects, &between);
            assert!(following == whole, "seed {seed}, step {step}");
            assert!(Touched::between(&objects, &objects.clone()).is_empty());
        }
    }
}

/// Pools of one port and a host each, some of them behind TLS.
fn many(count: usize) -> (Objects, World) {
    let mut objects = objects(SHOP);
    objects.pools.clear();
    let secret = good_secret();
    for index in 0..count {
        let key = key(&format!("p{index:04}"));
        let listener = json!({
            "name": "l", "port": 443, "protocol": "HTTPS", "hostnames": [format!("h{index}")],
            "tls": { "certificateRefs": [{ "name": format!("tls{index}") }] },
        });
        let set = json!({ "name": "s", "service": { "name": format!("web{index}"), "port": 80 } });
        let spec = json!({ "listeners": [listener], "backendSets": [set] });
        objects.pools.insert(key.clone(), pool_of(&key, Some(1), spec));
        objects.secrets.insert(ObjectKey::new("default", format!("tls{index}")), Arc::clone(&secret));
    }
    let world = world(&objects, None);
    assert_eq!(world.pools.len(), count);
    (objects, world)
}

fn edited(objects: &mut Objects, name: &str, edit: impl FnOnce(&mut LoadBalancerPool)) -> Touched {
    edit(Arc::make_mut(objects.pools.get_mut(&key(name)).expect("there is such a pool")));
    Touched { pools: [key(name)].into(), ..Touched::default() }
}

#[test]
fn a_change_looks_at_what_it_names_and_at_those_in_its_way() {
    let (mut objects, mut world) = many(300);
    let names = |names: &[&str]| names.iter().map(|name| key(name)).collect::<BTreeSet<_>>();

    let edit = edited(&mut objects, "p0007", |pool| pool.spec.listeners[0].name = "other".to_owned());
    assert_eq!(world.update(&objects, &edit), names(&["p0007"]));

    objects.secrets.insert(key("tls8"), good_secret());
    let rotated = Touched { secrets: [key("tls8")].into(), ..Touched::default() };
    assert_eq!(world.update(&objects, &rotated), names(&["p0008"]));

    let granted = Touched { grants: ["default".to_owned()].into(), ..Touched::default() };
    assert_eq!(world.update(&objects, &granted), names(&[]), "nobody refers to it from elsewhere");

    for (younger, older) in [("p0020", 10), ("p0030", 10), ("p0040", 10)] {
        let host = vec![format!("h{older}")];
        let edit = edited(&mut objects, younger, |pool| pool.spec.listeners[0].hostnames = host);
        assert_eq!(world.update(&objects, &edit), names(&[younger]), "it is the loser that is looked at");
        assert_eq!(world.rejections[&key(younger)][0].reason, Reason::Conflicted);
    }

    let edit =
        edited(&mut objects, "p0010", |pool| pool.spec.listeners[0].hostnames = vec!["new".to_owned()]);
    assert_eq!(world.update(&objects, &edit), names(&["p0010", "p0020", "p0030", "p0040"]));
    assert!(world.pools.contains_key(&key("p0020")), "the oldest of those who wait");
    let winner = |world: &World, loser: &str| world.rejections[&key(loser)][0].rule.contains("default/p0020");
    assert!(winner(&world, "p0030") && winner(&world, "p0040"));

    objects.pools.remove(&key("p0020"));
    let gone = Touched { pools: [key("p0020")].into(), ..Touched::default() };
    assert_eq!(world.update(&objects, &gone), names(&["p0020", "p0030", "p0040"]));
    assert!(world.pools.contains_key(&key("p0030")) && !world.pools.contains_key(&key("p0040")));
    assert_eq!(world, super::world(&objects, Some(&world)));
}

#[test]
fn a_pool_too_many_costs_the_last_one_and_a_place_that_is_free_goes_to_the_next() {
    let (mut objects, _) = many(60);
    let mut world = world(&objects, Some(&with_places(50)));
    let touched = |name: &str| Touched { pools: [key(name)].into(), ..Touched::default() };
    let served = |world: &World| world.all_serving().map(|(key, _)| key.name.clone()).last();
    assert_eq!((world.pools.len(), served(&world).as_deref()), (50, Some("p0049")));

    let gone = objects.pools.remove(&key("p0003")).expect("there is such a pool");
    assert_eq!(world.update(&objects, &touched("p0003")).len(), 2);
    assert_eq!((world.pools.len(), served(&world).as_deref()), (50, Some("p0050")));

    objects.pools.insert(key("p0003"), gone);
    assert_eq!(world.update(&objects, &touched("p0003")).len(), 2);
    assert_eq!((world.pools.len(), served(&world).as_deref()), (50, Some("p0049")));
    assert_eq!(world, super::world(&objects, Some(&world)));
}

//! Tables over whole objects: what is accepted, refused, warned about, and shared.

mod backends;
mod certificates;
mod conflicts;
mod front;
mod incremental;
mod layer4;
mod limits;
mod names;
mod odd_objects;
mod pods;
mod policy;
mod references;
mod remotes;
mod routing;
mod rules;
mod secured;
mod slices;
mod upstream;

use super::*;
use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use proptest::prelude::*;
use std::sync::Arc;
use weir_crds::LoadBalancerPool;
use weir_proto::push::BackendState;

const SHOP: &str = r#"
apiVersion: weir.dev/v1alpha1
kind: LoadBalancerPool
metadata: {name: shop, namespace: default}
spec:
  listeners:
    - {name: http, port: 80, protocol: HTTP, hostnames: [shop.example.com]}
    - {name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: shop-tls}]}}
  rules:
    - hostnames: [shop.example.com]
      matches: [{path: {value: /api}}, {path: {type: Exact, value: /}}]
      backendSets: [{name: web, weight: 3}, {name: two}]
      timeouts: {request: 1m30s}
    - backendSets: [{name: two}]
  backendSets:
    - {name: web, service: {name: web, port: http}}
    - name: two
      static:
        backends:
          - {address: 10.0.0.2, port: 80, weight: 5}
          - {address: "fd00::1", port: 80}
  timeouts: {connect: 1s}
"#;

const WEB: &str = r#"
metadata: {name: web, namespace: default}
spec:
  ports:
    - {name: http, port: 80, targetPort: web}
    - {name: metrics, port: 9090}
    - {name: dns, port: 53, protocol: UDP}
"#;

const WEB_1: &str = r#"
metadata: {name: web-1, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}, {name: metrics, port: 9090}]
endpoints:
  - {addresses: [10.1.0.1], zone: a}
  - {addresses: [10.1.0.2], conditions: {ready: false, serving: true, terminating: true}}
  - {addresses: [10.1.0.3], conditions: {ready: false}}
  - {addresses: [10.1.0.4], conditions: {ready: false, serving: false, terminating: true}}
"#;

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("default", name)
}

fn yaml<T: serde::de::DeserializeOwned>(text: &str) -> T {
    serde_saphyr::from_str(text).expect("the fixture is right")
}

fn slice(text: &str) -> (ObjectKey, Arc<EndpointSlice>) {
    let slice: EndpointSlice = yaml(&format!("apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n{text}"));
    (pool::key_of(&slice.metadata), Arc::new(slice))
}

fn secret(kind: &str, chain: &str, private_key: &str) -> Arc<Secret> {
    let data = [("tls.crt", chain), ("tls.key", private_key)];
    let data = data.map(|(name, pem)| (name.to_owned(), k8s_openapi::ByteString(pem.as_bytes().to_vec())));
    Arc::new(Secret { type_: Some(kind.to_owned()), data: Some(data.into()), ..Secret::default() })
}

fn good_secret() -> Arc<Secret> {
    let made = rcgen::generate_simple_self_signed(["shop.example.com".to_owned()]).expect("a certificate");
    secret("kubernetes.io/tls", &made.cert.pem(), &made.signing_key.serialize_pem())
}

fn objects(pool: &str) -> Objects {
    let mut objects = Objects::default();
    let pool: LoadBalancerPool = yaml(pool);
    objects.pools.insert(pool::key_of(&pool.metadata), Arc::new(pool));
    let web: Service = yaml(&format!("apiVersion: v1\nkind: Service\n{WEB}"));
    objects.services.insert(key("web"), Arc::new(web));
    objects.secrets.insert(key("shop-tls"), good_secret());
    let (name, slice) = slice(WEB_1);
    objects.insert_slice(name, slice);
    objects
}

fn shown<'a>(rejections: impl IntoIterator<Item = &'a Rejection>) -> Vec<String> {
    rejections.into_iter().map(ToString::to_string).collect()
}

fn backends(world: &World, set: &str) -> Vec<(String, u32, String, BackendState)> {
    let content = &world.pools[&key("shop")].sets[set].content;
    let shown = |b: &weir_proto::push::Backend| (b.id.clone(), b.weight, b.zone.clone(), b.state());
    content.backends.iter().map(shown).collect()
}

#[test]
fn a_pool_compiles_to_what_it_says() {
    let world = world(&objects(SHOP), None);
    assert_eq!(shown(world.rejections.values().flatten()), Vec::<String>::new());
    assert_eq!(shown(world.warnings()), Vec::<String>::new());
    let pool = &world.pools[&key("shop")];
    let config = &pool.config;
    assert_eq!(config.pool, "default/shop");
    assert_eq!(pool.config_digest, weir_proto::digest::config(config));
    let ports: Vec<_> =
        config.listeners.iter().map(|listener| (listener.port, listener.protocol())).collect();
    assert_eq!(ports, [(80, weir_proto::push::Protocol::Http), (443, weir_proto::push::Protocol::Https)]);
    let certificates = &config.listeners[1].tls.as_ref().expect("tls").certificates;
    assert_eq!(certificates[0].source, "default/shop-tls");
    assert_eq!(config.rules[0].request_timeout_ms, 90_000);
    assert_eq!(config.rules[1].request_timeout_ms, 30_000);
    assert_eq!(config.rules[0].paths.iter().map(|path| path.kind).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(config.rules[0].backend_sets.iter().map(|set| set.weight).collect::<Vec<_>>(), [3, 1]);
    let set = &config.backend_sets[0];
    assert_eq!((set.connect_timeout_ms, set.idle_timeout_ms, set.idle_connections_max), (1_000, 60_000, 100));
}

#[test]
fn a_pool_says_which_proxies_serve_it_and_they_are_not_told() {
    let objects = objects(SHOP);
    let plain = world(&objects, None);
    assert_eq!(*plain.pools[&key("shop")].data_plane, DataPlane::default());
    let chosen =
        "dataPlane: {className: edge, selector: {matchLabels: {app: web}}}\n  timeouts: {connect: 1s}";
    let mut moved = objects.clone();
    let pool: LoadBalancerPool = yaml(&SHOP.replacen("timeouts: {connect: 1s}", chosen, 1));
    moved.pools.insert(key("shop"), Arc::new(pool));
    let moved = world(&moved, Some(&plain));
    let (before, after) = (&plain.pools[&key("shop")], &moved.pools[&key("shop")]);
    assert_eq!((after.data_plane.namespace.as_str(), after.data_plane.class.as_str()), ("default", "edge"));
    assert_eq!(after.data_plane.labels["app"], "web");
    assert!(Arc::ptr_eq(&before.config, &after.config));
    let again = world(&objects, Some(&plain));
    assert!(Arc::ptr_eq(&before.data_plane, &again.pools[&key("shop")].data_plane));
}

#[test]
fn pools_past_what_a_proxy_takes_are_refused_youngest_first() {
    let pool: LoadBalancerPool = yaml(
        "apiVersion: weir.dev/v1alpha1\nkind: LoadBalancerPool\nmetadata: {name: p}\n\
         spec: {listeners: [{name: l, port: 80, protocol: HTTP, hostnames: [h]}], backendSets: [{name: s, static: {backends: []}}]}",
    );
    let max = weir_proto::limits::POOLS_MAX;
    let mut objects = Objects::default();
    for index in 0..max {
        let mut pool = pool.clone();
        pool.spec.listeners[0].hostnames = vec![format!("h{index}")];
        objects.pools.insert(key(&format!("p{index:05}")), Arc::new(pool));
    }
    let full = world(&objects, None);
    assert_eq!((full.pools.len(), full.rejections.len()), (max, 0));
    objects.pools.insert(key("a"), Arc::new(pool));
    let past = world(&objects, Some(&full));
    assert_eq!(past.all_serving().count(), max);
    let last = format!("p{:05}", max - 1);
    let refused = shown(past.rejections.values().flatten());
    let expected = format!("default/{last}: metadata.name: \"{last}\" is past the {max} pools");
    assert!(refused.len() == 1 && refused[0].starts_with(&expected), "{refused:?}");
}

/// What to replace, by what, and how the sentence begins.
const WRONG: &[(&str, &str, &str)] = &[
    ("port: 80,", "port: 70000,", "spec.listeners[0].port: 70000 is not a port: use 1 to 65535"),
    ("port: 80,", "port: 0,", "spec.listeners[0].port: 0 is not a port: use 1 to 65535"),
    ("port: 443,", "port: 80,", "spec.listeners[1].port: 80 is there twice"),
    ("name: https", "name: http", "spec.listeners[1].name: \"http\" is there twice"),
    ("name: https", "name: Https", "spec.listeners[1].name: \"Https\" is not a name"),
    ("protocol: HTTPS", "protocol: HTTP", "spec.listeners[1].tls: is not for protocol HTTP"),
    (", tls: {certificateRefs: [{name: shop-tls}]}", "", "spec.listeners[1].tls: is missing"),
    ("[{name: shop-tls}]", "[]", "spec.listeners[1].tls.certificateRefs: is empty"),
    ("name: shop-tls", "name: a/b", "spec.listeners[1].tls.certificateRefs[0].name: \"a/b\" is not the name"),
    (
        "hostnames: [shop.example.com]}",
        "hostnames: [a, A.b]}",
        "spec.listeners[0].hostnames[1]: \"A.b\" is not a",
    ),
    (
        "hostnames: [shop.example.com]}",
        "hostnames: [a, a]}",
        "spec.listeners[0].hostnames[1]: \"a\" is there twice",
    ),
    ("value: /api", "value: api", "spec.rules[0].matches[0].path.value: \"api\" is not a path"),
    ("weight: 3", "weight: -1", "spec.rules[0].backendSets[0].weight: -1 is out of range: use 0 to 1000000"),
    ("weight: 3", "weight: 1000001", "spec.rules[0].backendSets[0].weight: 1000001 is out of range"),
    (
        "{name: two}]\n      timeouts",
        "{name: tow}]\n      timeouts",
        "spec.rules[0].backendSets[1].name: \"tow\" is not a name in spec.backendSets",
    ),
    (
        "{name: two}]\n      timeouts",
        "{name: web}]\n      timeouts",
        "spec.rules[0].backendSets[1].name: \"web\" is there twice",
    ),
    (
        "backendSets: [{name: two}]",
        "backendSets: [{name: two, weight: 0}]",
        "spec.rules[1].backendSets: has no weight above 0",
    ),
    (
        "backendSets: [{name: two}]",
        "backendSets: []",
        "spec.rules[1].backendSets: is empty: write at least 1",
    ),
    ("- name: two", "- name: web", "spec.backendSets[1].name: \"web\" is there twice"),
    (
        "service: {name: web, port: http}",
        "service: null",
        "spec.backendSets[0]: has no backends: write exactly one",
    ),
    (
        "- name: two\n",
        "- name: two\n      service: {name: web, port: 80}\n",
        "spec.backendSets[1]: has service and static: write exactly one of",
    ),
    ("port: http}", "port: 0}", "spec.backendSets[0].service.port: 0 is not a port"),
    (
        "port: http}",
        "port: http, namespace: a.b}",
        "spec.backendSets[0].service.namespace: \"a.b\" is not a name",
    ),
    (
        "port: http}",
        "port: http, namespace: ''}",
        "spec.backendSets[0].service.namespace: \"\" is not a name",
    ),
    (
        "name: shop-tls}",
        "name: shop-tls, namespace: A}",
        "spec.listeners[1].tls.certificateRefs[0].namespace: \"A\" is not a name",
    ),
    ("port: http}", "port: ''}", "spec.backendSets[0].service.port: \"\" is not a name"),
    (
        "10.0.0.2",
        "10.0.0.256",
        "spec.backendSets[1].static.backends[0].address: \"10.0.0.256\" is not an IPv4 or IPv6",
    ),
    ("10.0.0.2", "fd00:0::1", "spec.backendSets[1].static.backends[1].address: [fd00::1]:80 is there twice"),
    (
        "weight: 5",
        "weight: 65536",
        "spec.backendSets[1].static.backends[0].weight: 65536 is out of range: use 0 to 65535",
    ),
    ("connect: 1s", "connect: 0s", "spec.timeouts.connect: 0s is no time at all"),
    (
        "timeouts: {connect: 1s}",
        "dataPlane: {className: Edge}",
        "spec.dataPlane.className: \"Edge\" is not a name",
    ),
    (
        "timeouts: {connect: 1s}",
        "dataPlane: {selector: {matchLabels: {a b: c}}}",
        "spec.dataPlane.selector.matchLabels: \"a b\" is not the name of a label",
    ),
    (
        "timeouts: {connect: 1s}",
        "dataPlane: {selector: {matchLabels: {a.b/c: -d}}}",
        "spec.dataPlane.selector.matchLabels.a.b/c: \"-d\" is not the value of a label",
    ),
    (
        "timeouts: {connect: 1s}",
        "connectionPool: {maxIdlePerBackend: -1}",
        "spec.connectionPool.maxIdlePerBackend: -1 is out of range",
    ),
];

#[test]
fn every_wrong_value_is_refused_with_its_field() {
    for (from, to, expected) in WRONG {
        let changed = SHOP.replacen(from, to, 1);
        assert_ne!(changed, SHOP, "{from}");
        let world = world(&objects(&changed), None);
        let rejections = shown(world.rejections.values().flatten());
        assert!(world.pools.is_empty() && world.last_good.is_empty(), "{to}");
        let expected = format!("default/shop: {expected}");
        assert!(rejections.iter().any(|shown| shown.starts_with(&expected)), "{to}: {rejections:?}");
    }
}

#[test]
fn one_pass_finds_every_fault() {
    let changed = SHOP.replacen("port: 80,", "port: 0,", 1).replace("value: /api", "value: api");
    let changed = changed.replace("weight: 5", "weight: -5");
    assert_eq!(world(&objects(&changed), None).rejections[&key("shop")].len(), 3);
}

#[test]
fn every_list_has_a_limit_and_one_past_it_is_refused() {
    let listeners = |count: usize| {
        (1..=count)
            .map(|n| format!("{{name: l{n}, port: {n}, protocol: HTTP}}"))
            .collect::<Vec<_>>()
            .join(",")
    };
    let pool = |count: usize, sets: &str| {
        format!(
            "metadata: {{name: shop}}\nspec: {{listeners: [{}], backendSets: [{sets}]}}",
            listeners(count)
        )
    };
    let set = |n: usize| format!("{{name: s{n}, static: {{backends: []}}}}");
    let sets = |count| (0..count).map(set).collect::<Vec<_>>().join(",");
    let refused = |text: &str| {
        let text = format!("apiVersion: weir.dev/v1alpha1\nkind: LoadBalancerPool\n{text}");
        shown(world(&objects(&text), None).rejections.values().flatten())
    };
    let labels = |count| (0..count).map(|n| format!("l{n}: v")).collect::<Vec<_>>().join(",");
    let sets = |count, labelled| {
        format!(
            "{}], dataPlane: {{selector: {{matchLabels: {{{}}}}}}}, rules: [",
            sets(count),
            labels(labelled)
        )
    };
    assert_eq!(refused(&pool(64, &sets(256, 16))), Vec::<String>::new());
    let one_past = refused(&pool(65, &sets(257, 17)));
    let expected = [
        "default/shop: spec.listeners: 65 entries are too many: use at most 64",
        "default/shop: spec.backendSets: 257 entries are too many: use at most 256",
        "default/shop: spec.dataPlane.selector.matchLabels: 17 entries are too many: use at most 16",
    ];
    assert_eq!(one_past, expected);
}

#[test]
fn a_secret_that_cannot_be_used_leaves_out_its_listener_only() {
    let pem = rcgen::generate_simple_self_signed(["a".to_owned()]).expect("a certificate");
    let (chain, private_key) = (pem.cert.pem(), pem.signing_key.serialize_pem());
    for (secret, expected) in [
        (None, "is not the name of a Secret in namespace \"default\": create it"),
        (Some(secret("Opaque", &chain, &private_key)), "is a Secret of type Opaque"),
        (Some(secret("kubernetes.io/tls", "", &private_key)), "is a Secret whose tls.crt is not a PEM"),
        (
            Some(secret("kubernetes.io/tls", &private_key, &private_key)),
            "is a Secret whose tls.crt is not a PEM",
        ),
        (Some(secret("kubernetes.io/tls", &chain, &chain)), "is a Secret whose tls.key is not a PEM"),
        (
            Some(Arc::new(Secret { type_: Some("kubernetes.io/tls".to_owned()), ..Secret::default() })),
            "is a Secret without tls.crt",
        ),
    ] {
        let mut objects = objects(SHOP);
        let before = world(&objects, None);
        objects.secrets.clear();
        objects.secrets.extend(secret.map(|secret| (key("shop-tls"), secret)));
        let fresh = world(&objects, None);
        let warnings = shown(fresh.warnings());
        let expected =
            format!("default/shop: spec.listeners[1].tls.certificateRefs[0].name: \"shop-tls\" {expected}");
        assert!(warnings.len() == 1 && warnings[0].starts_with(&expected), "{warnings:?}");
        assert_eq!(fresh.pools[&key("shop")].config.listeners.len(), 1);

        let kept = world(&objects, Some(&before));
        assert_eq!(
            kept.pools[&key("shop")].config,
            before.pools[&key("shop")].config,
            "the old certificate serves on"
        );
        assert_eq!(kept.warnings().count(), 1);
    }
}

#[test]
fn a_refused_change_serves_on_as_before_with_fresh_backends() {
    let mut objects = objects(SHOP);
    let good = world(&objects, None);
    let broken: LoadBalancerPool = yaml(&SHOP.replace("port: 80,", "port: 0,"));
    objects.pools.insert(key("shop"), Arc::new(broken));
    let (name, moved) = slice(&WEB_1.replace("10.1.0.1", "10.1.0.9"));
    objects.insert_slice(name, moved);
    let once = world(&objects, Some(&good));
    let twice = world(&objects, Some(&once));
    for world in [&once, &twice] {
        assert!(world.pools.is_empty() && world.rejections.len() == 1);
        let serving = world.serving(&key("shop")).expect("the last good one");
        assert!(Arc::ptr_eq(&serving.config, &good.pools[&key("shop")].config));
        assert_eq!(serving.sets["web"].content.backends[1].id, "10.1.0.9:8080");
    }
    objects.pools.clear();
    assert_eq!(world(&objects, Some(&twice)), World::default());
}

#[test]
fn what_did_not_change_is_the_same_memory() {
    let objects = objects(SHOP);
    let first = world(&objects, None);
    let second = world(&objects.clone(), Some(&first));
    let (a, b) = (&first.pools[&key("shop")], &second.pools[&key("shop")]);
    assert!(Arc::ptr_eq(&a.config, &b.config));
    for (a, b) in a.sets.values().zip(b.sets.values()) {
        assert!(Arc::ptr_eq(&a.content, &b.content) && Arc::ptr_eq(&a.source, &b.source));
    }
}

#[test]
fn an_endpoint_event_compiles_its_sets_and_equals_a_whole_compile() {
    let mut objects = objects(SHOP);
    let mut world_now = world(&objects, None);
    let (name, moved) = slice(&WEB_1.replace("10.1.0.1", "10.1.0.9"));
    let touched = objects.insert_slice(name, moved);
    assert_eq!(touched, [key("web")]);
    let changed = world_now.refresh(&Origin::Service(key("web")), &objects);
    assert_eq!(changed, [SetKey { pool: key("shop"), set: "web".to_owned() }]);
    assert_eq!(world_now, world(&objects, None));
    assert_eq!(world_now.refresh(&Origin::Service(key("web")), &objects), []);
    assert_eq!(world_now.refresh(&Origin::Service(key("other")), &objects), []);
    objects.services.clear();
    assert_eq!(world_now.refresh(&Origin::Service(key("web")), &objects).len(), 1);
    assert_eq!(world_now.warnings().count(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        rng_seed: proptest::test_runner::RngSeed::Fixed(7),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn one_broken_pool_leaves_the_others_byte_for_byte(broken in 0_usize..10, how in 0_usize..5) {
        let pool = |index: usize| SHOP
            .replace("name: shop,", &format!("name: shop-{index},"))
            .replace("port: 80,", &format!("port: {},", 1000 + index))
            .replace("port: 443,", &format!("port: {},", 2000 + index));
        let break_it = |text: &str| match how {
            0 => text.replacen(&format!("port: {}", 1000 + broken), "port: 0", 1),
            1 => text.replacen("name: two}", "name: tow}", 1),
            2 => text.replacen("hostnames: [shop", "hostnames: [Shop", 1),
            3 => text.replacen("10.0.0.2", "10.0.0", 1),
            _ => text.replacen("connect: 1s", "connect: 0s", 1),
        };
        let mut all = objects(SHOP);
        all.pools.clear();
        for index in 0..10 {
            all.pools.insert(key(&format!("shop-{index}")), Arc::new(yaml(&pool(index))));
        }
        let whole = world(&all, None);
        prop_assert_eq!(whole.pools.len(), 10);
        let name = key(&format!("shop-{broken}"));
        all.pools.insert(name.clone(), Arc::new(yaml(&break_it(&pool(broken)))));
        let mut partial = world(&all, None);
        prop_assert_eq!(partial.rejections.keys().collect::<Vec<_>>(), [&name]);
        let mut expected = whole.clone();
        expected.pools.remove(&name);
        prop_assert_eq!(&partial.pools, &expected.pools);
        partial = world(&all, Some(&whole));
        prop_assert_eq!(&partial.last_good[&name], &whole.pools[&name]);
    }
}

//! Services and Secrets of other namespaces, and who permits them.

use super::*;

/// The shop with its Service, slices and Secret in namespace `far`.
fn far_shop() -> Objects {
    let text = SHOP.replacen("service: {name: web,", "service: {namespace: far, name: web,", 1).replacen(
        "{name: shop-tls}",
        "{namespace: far, name: shop-tls}",
        1,
    );
    let mut far = objects(&text);
    let moved = |name: &str| ObjectKey::new("far", name);
    let service = far.services.remove(&key("web")).expect("there");
    far.services.insert(moved("web"), service);
    let secret = far.secrets.remove(&key("shop-tls")).expect("there");
    far.secrets.insert(moved("shop-tls"), secret);
    far.remove_slice(&key("web-1"));
    let (name, slice) = slice(&WEB_1.replacen("namespace: default", "namespace: far", 1));
    far.insert_slice(name, slice);
    far
}

fn grant(from: &str, to: &str) -> Arc<ReferenceGrant> {
    Arc::new(yaml(&format!(
        "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {{name: g, namespace: far}}\n\
         spec: {{from: [{from}], to: [{to}]}}"
    )))
}

const FROM: &str = "{group: weir.dev, kind: LoadBalancerPool, namespace: default}";
const BOTH: &str = "{group: '', kind: Service}, {group: '', kind: Secret}";

fn permitted() -> Objects {
    let mut objects = far_shop();
    objects.grants.insert(ObjectKey::new("far", "g"), grant(FROM, BOTH));
    objects
}

fn listeners(world: &World) -> usize {
    world.serving(&key("shop")).expect("it serves").config.listeners.len()
}

#[test]
fn a_grant_permits_exactly_what_it_says() {
    let other = "{group: weir.dev, kind: LoadBalancerPool, namespace: other}";
    let (service, secret) = ("{group: '', kind: Service}", "{group: '', kind: Secret}");
    // Who, to what, and whether the Service's endpoints and the Secret's certificate are there.
    for (from, to, has_service, has_secret) in [
        (FROM, BOTH, true, true),
        (FROM, service, true, false),
        (FROM, secret, false, true),
        (
            FROM,
            "{group: '', kind: Service, name: web}, {group: '', kind: Secret, name: shop-tls}",
            true,
            true,
        ),
        (FROM, "{group: '', kind: Service, name: wbe}, {group: '', kind: Secret, name: tls}", false, false),
        (FROM, "{group: '', kind: Service, name: ''}", false, false),
        (FROM, "{group: core, kind: Service}", false, false),
        (FROM, "{group: '', kind: ConfigMap}", false, false),
        (FROM, "", false, false),
        (other, BOTH, false, false),
        (&format!("{other}, {FROM}"), BOTH, true, true),
        ("{group: gateway.networking.k8s.io, kind: Gateway, namespace: default}", BOTH, false, false),
        ("{group: weir.dev, kind: Service, namespace: default}", BOTH, false, false),
        ("{group: '', kind: LoadBalancerPool, namespace: default}", BOTH, false, false),
        ("", BOTH, false, false),
    ] {
        let mut objects = far_shop();
        objects.grants.insert(ObjectKey::new("far", "g"), grant(from, to));
        let world = world(&objects, None);
        assert_eq!(backends(&world, "web").len(), if has_service { 2 } else { 0 }, "{from} {to}");
        assert_eq!(listeners(&world), if has_secret { 2 } else { 1 }, "{from} {to}");
        let expected = usize::from(!has_service) + usize::from(!has_secret);
        assert_eq!(world.warnings().count(), expected, "{from} {to}");
        assert!(world.warnings().all(|warning| warning.reason == Reason::RefNotPermitted), "{from} {to}");
        let references = secret_references(&objects.pools[&key("shop")], &objects);
        assert_eq!(references.len(), usize::from(has_secret), "{from} {to}");
    }
}

#[test]
fn a_grant_is_of_its_own_namespace_only() {
    for namespace in ["default", "fa", "farr", "near"] {
        let mut objects = far_shop();
        objects.grants.insert(ObjectKey::new(namespace, "g"), grant(FROM, BOTH));
        assert_eq!(world(&objects, None).warnings().count(), 2, "{namespace}");
    }
    // One of several in the right one is enough.
    let mut objects = permitted();
    for name in ["a", "z"] {
        objects.grants.insert(ObjectKey::new("far", name), grant("", ""));
    }
    assert_eq!(world(&objects, None).warnings().count(), 0);
}

#[test]
fn what_nobody_permits_is_told_with_the_grant_that_would_and_not_whether_it_is_there() {
    let there = shown(world(&far_shop(), None).warnings());
    let mut nothing = far_shop();
    nothing.services.clear();
    nothing.secrets.clear();
    assert_eq!(there, shown(world(&nothing, None).warnings()));
    let expected = [
        "default/shop: spec.listeners[1].tls.certificateRefs[0].namespace: \"far\" is another namespace, and no \
         ReferenceGrant there permits LoadBalancerPools of namespace \"default\" to use Secret \"shop-tls\": create one in \
         namespace \"far\" with from group weir.dev, kind LoadBalancerPool, namespace default, and to group \"\", kind \
         Secret, name shop-tls (the listener serves without it, and not at all without any other)",
        "default/shop: spec.backendSets[0].service.namespace: \"far\" is another namespace, and no ReferenceGrant there \
         permits LoadBalancerPools of namespace \"default\" to use Service \"web\": create one in namespace \"far\" with from \
         group weir.dev, kind LoadBalancerPool, namespace default, and to group \"\", kind Service, name web (the set is \
         empty, its requests are answered 503)",
    ];
    assert_eq!(there, expected);
}

#[test]
fn the_pool_s_own_namespace_needs_no_grant_however_it_is_written() {
    let text = SHOP.replacen("service: {name: web,", "service: {namespace: default, name: web,", 1).replacen(
        "{name: shop-tls}",
        "{namespace: default, name: shop-tls}",
        1,
    );
    let (plain, mut named) = (objects(SHOP), objects(&text));
    named.secrets.clone_from(&plain.secrets);
    let (plain, named) = (world(&plain, None), world(&named, None));
    assert_eq!(plain.pools[&key("shop")].config, named.pools[&key("shop")].config);
    assert_eq!((backends(&named, "web").len(), named.warnings().count()), (2, 0));
}

#[test]
fn a_grant_that_is_gone_takes_effect_at_once_and_keeps_nothing() {
    let mut objects = permitted();
    let before = world(&objects, None);
    assert_eq!((before.warnings().count(), listeners(&before), backends(&before, "web").len()), (0, 2, 2));
    objects.grants.clear();
    let after = world(&objects, Some(&before));
    assert_eq!((after.warnings().count(), listeners(&after), backends(&after, "web").len()), (2, 1, 0));
    objects = permitted();
    let again = world(&objects, Some(&after));
    assert_eq!((again.warnings().count(), listeners(&again)), (0, 2));
}

#[test]
fn a_refused_pool_that_serves_on_loses_what_is_permitted_no_more() {
    let mut objects = permitted();
    let good = world(&objects, None);
    let mut broken = (*objects.pools[&key("shop")]).clone();
    broken.spec.listeners[0].port = 0;
    objects.pools.insert(key("shop"), Arc::new(broken));
    let kept = world(&objects, Some(&good));
    let serving = &kept.last_good[&key("shop")];
    assert!(Arc::ptr_eq(&serving.config, &good.pools[&key("shop")].config));
    objects.grants.clear();
    let first = world(&objects, Some(&kept));
    let second = world(&objects, Some(&first));
    for world in [&first, &second] {
        let serving = &world.last_good[&key("shop")];
        assert_eq!((serving.config.listeners.len(), serving.sets["web"].content.backends.len()), (1, 0));
        assert_eq!(serving.config_digest, weir_proto::digest::config(&serving.config));
        let warnings = shown(serving.warnings());
        assert!(warnings[0].contains("\"far/shop-tls\" is a Secret that no ReferenceGrant"), "{warnings:?}");
        assert_eq!(warnings.len(), 2, "{warnings:?}");
    }
    assert_eq!(first, second);
}

#[test]
fn an_endpoint_event_of_another_namespace_finds_its_sets() {
    let mut objects = permitted();
    let mut world_now = world(&objects, None);
    let far = ObjectKey::new("far", "web");
    let moved = WEB_1.replacen("namespace: default", "namespace: far", 1).replace("10.1.0.1", "10.1.0.9");
    let (name, moved) = slice(&moved);
    assert_eq!(objects.insert_slice(name, moved), std::slice::from_ref(&far));
    let changed = world_now.refresh(&Origin::Service(far.clone()), &objects);
    assert_eq!(changed, [SetKey { pool: key("shop"), set: "web".to_owned() }]);
    assert_eq!(backends(&world_now, "web")[1].0, "10.1.0.9:8080");
    assert_eq!(world_now, world(&objects, None));
    assert_eq!(world_now.refresh(&Origin::Service(key("web")), &objects), []);
    objects.grants.clear();
    world_now.refresh(&Origin::Service(far.clone()), &objects);
    assert_eq!(backends(&world_now, "web").len(), 0);
}

#[test]
fn the_secrets_to_watch_are_those_that_are_named_and_permitted() {
    let references = |listeners: &str, objects: &Objects| {
        let pool: LoadBalancerPool = yaml(&format!(
            "apiVersion: weir.dev/v1alpha1\nkind: LoadBalancerPool\nmetadata: {{name: p, namespace: default}}\n\
             spec: {{backendSets: [], listeners: [{listeners}]}}"
        ));
        let references = secret_references(&pool, objects);
        references.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let listener =
        |refs: &str| format!("{{name: l, port: 443, protocol: HTTPS, tls: {{certificateRefs: [{refs}]}}}}");
    let refs = "{name: b}, {name: a}, {name: b}, {name: a, namespace: far}, {name: a, namespace: near}, {name: '../x'}, \
                {name: a, namespace: '..'}, {name: ''}";
    let listeners = format!("{}, {}", listener(refs), listener("{name: c}"));
    let all = ["default/a", "default/b", "default/c", "far/a"];
    assert_eq!(references(&listeners, &permitted()), all);
    assert_eq!(references(&listeners, &far_shop()), all[..3]);
    assert_eq!(references("{name: l, port: 80, protocol: HTTP}", &permitted()), [""; 0]);
}

#[test]
fn the_examples_of_the_page_serve_and_are_permitted() {
    let page = include_str!("../../../../docs/namespaces.md");
    let reader = crate::manifest::Reader::new().expect("the schema can be read");
    let mut loaded = crate::source::Loaded::default();
    for block in page.split("```yaml\n").skip(1) {
        let (text, _) = block.split_once("```").expect("a block ends");
        let parsed = reader.read(&"page".into(), text);
        assert_eq!(parsed.problems, []);
        parsed.manifests.iter().for_each(|manifest| loaded.add(manifest));
    }
    loaded.objects.secrets.insert(ObjectKey::new("certificates", "shop-tls"), good_secret());
    let with_grants = world(&loaded.objects, None);
    assert_eq!((with_grants.pools.len(), shown(with_grants.warnings())), (2, vec![]));
    loaded.objects.grants.clear();
    assert_eq!(world(&loaded.objects, None).warnings().count(), 2);
}

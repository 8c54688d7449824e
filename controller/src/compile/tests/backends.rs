//! What a set holds, and what is said where its Service gives none.

use super::*;

#[test]
fn endpoints_become_backends_by_their_conditions() {
    use BackendState::{Draining, Ready};
    let world = world(&objects(SHOP), None);
    let own = str::to_owned;
    let web = [(own("10.1.0.1:8080"), 1, own("a"), Ready), (own("10.1.0.2:8080"), 1, own(""), Draining)];
    assert_eq!(backends(&world, "web"), web);
    let two = [(own("10.0.0.2:80"), 5, own(""), Ready), (own("[fd00::1]:80"), 1, own(""), Ready)];
    assert_eq!(backends(&world, "two"), two);
}

#[test]
fn slices_are_merged_and_each_may_have_its_own_port() {
    use BackendState::Ready;
    let mut objects = objects(SHOP);
    let (name, more) = slice(
        "metadata: {name: web-2, namespace: default, labels: {kubernetes.io/service-name: web}}\naddressType: IPv4\n\
         ports: [{name: http, port: 8080}, {name: http, port: 53, protocol: UDP}]\n\
         endpoints: [{addresses: [10.1.0.1]}, {addresses: [10.1.0.2]}, {addresses: [not-an-ip]}, {addresses: []}]",
    );
    objects.insert_slice(name, more);
    let (name, six) = slice(
        "metadata: {name: web-6, namespace: default, labels: {kubernetes.io/service-name: web}}\naddressType: IPv4\n\
         ports: [{name: http, port: 8081}]\nendpoints: [{addresses: [10.1.0.7, 10.1.0.8]}]",
    );
    objects.insert_slice(name, six);
    let (name, other) = slice(
        "metadata: {name: web-9, namespace: other, labels: {kubernetes.io/service-name: web}}\naddressType: IPv4\n\
         ports: [{name: http, port: 8080}]\nendpoints: [{addresses: [10.9.9.9]}]",
    );
    objects.insert_slice(name, other);
    let own = str::to_owned;
    let merged = [
        (own("10.1.0.1:8080"), 1, own("a"), Ready),
        (own("10.1.0.2:8080"), 1, own(""), Ready),
        (own("10.1.0.7:8081"), 1, own(""), Ready),
    ];
    assert_eq!(backends(&world(&objects, None), "web"), merged);
}

#[test]
fn a_pod_with_two_families_is_one_backend() {
    let families = |families: &str, six: &str| {
        let mut objects = objects(SHOP);
        let text = WEB.replace("spec:\n", &format!("spec:\n  ipFamilies: {families}\n"));
        let web: Service = yaml(&format!("apiVersion: v1\nkind: Service\n{text}"));
        objects.services.insert(key("web"), Arc::new(web));
        let (name, slice) = slice(&format!(
            "metadata: {{name: web-0, namespace: default, labels: {{kubernetes.io/service-name: web}}}}\naddressType: IPv6\n\
             ports: [{{name: http, port: 8080}}]\nendpoints: [{{addresses: ['fd00::1'], conditions: {{ready: {six}}}}}]",
        ));
        objects.insert_slice(name, slice);
        let ids = backends(&world(&objects, None), "web").into_iter().map(|backend| backend.0);
        ids.collect::<Vec<_>>()
    };
    let (four, six) = (["10.1.0.1:8080", "10.1.0.2:8080"], ["[fd00::1]:8080"]);
    assert_eq!(families("[IPv4, IPv6]", "true"), four);
    assert_eq!(families("[IPv6, IPv4]", "true"), six);
    assert_eq!(families("[IPv6, IPv4]", "false"), four, "the other family where the first has no backend");
    assert_eq!(families("[]", "true"), six, "the first slice by name where the Service does not say");
    assert_eq!(families("[IPv6]", "false"), four);
}

#[test]
fn a_port_that_speaks_something_else_is_warned_of_and_serves() {
    for (protocol, is_spoken) in [
        ("http", true),
        ("kubernetes.io/ws", true),
        ("https", false),
        ("kubernetes.io/h2c", false),
        ("kubernetes.io/wss", false),
    ] {
        let mut objects = objects(SHOP);
        let text = WEB.replacen("port: 80,", &format!("port: 80, appProtocol: {protocol},"), 1);
        let web: Service = yaml(&format!("apiVersion: v1\nkind: Service\n{text}"));
        objects.services.insert(key("web"), Arc::new(web));
        let world = world(&objects, None);
        assert_eq!(backends(&world, "web").len(), 2, "{protocol}");
        let expected = format!(
            "default/shop: spec.backendSets[0].service.port: 80 has appProtocol \"{protocol}\" in its Service, and backends"
        );
        let warnings = shown(world.warnings());
        assert_eq!(warnings.is_empty(), is_spoken, "{warnings:?}");
        assert!(warnings.iter().all(|warning| warning.starts_with(&expected)), "{warnings:?}");
    }
}

#[test]
fn a_port_is_found_by_number_too() {
    let world = world(&objects(&SHOP.replace("port: http}", "port: 9090}")), None);
    assert_eq!(backends(&world, "web")[0].0, "10.1.0.1:9090");
}

#[test]
fn a_missing_service_empties_its_set_and_nothing_else() {
    for (from, to, expected) in [
        (
            "service: {name: web,",
            "service: {name: wbe,",
            "spec.backendSets[0].service.name: \"wbe\" is not the name of a Service",
        ),
        (
            "port: http}",
            "port: htpt}",
            "spec.backendSets[0].service.port: \"htpt\" is not a TCP port of Service default/web: use one of 80 (http), 9090 (metrics)",
        ),
        ("port: http}", "port: 81}", "spec.backendSets[0].service.port: 81 is not a TCP port"),
        ("port: http}", "port: dns}", "spec.backendSets[0].service.port: \"dns\" is not a TCP port"),
    ] {
        let good = objects(SHOP);
        let whole = world(&good, None);
        let mut broken = objects(&SHOP.replacen(from, to, 1));
        broken.secrets.clone_from(&good.secrets);
        let broken = world(&broken, Some(&whole));
        let warnings = shown(broken.warnings());
        assert!(warnings[0].starts_with(&format!("default/shop: {expected}")), "{warnings:?}");
        assert_eq!(
            (warnings.len(), backends(&broken, "web").len(), backends(&broken, "two").len()),
            (1, 0, 2)
        );
        // Another source is another configuration, and differs in nothing else.
        let without_sources = |world: &World| {
            let mut config = (*world.pools[&key("shop")].config).clone();
            config.backend_sets.iter_mut().for_each(|set| set.source.clear());
            config
        };
        assert_eq!(without_sources(&whole), without_sources(&broken));
    }
}

#[test]
fn written_backends_have_priorities_and_another_one_is_another_configuration() {
    let priorities = |first: &str| {
        let changed = SHOP.replace("weight: 5}", &format!("weight: 5{first}}}"));
        let world = world(&objects(&changed), None);
        let Some(pool) = world.pools.get(&key("shop")) else {
            return Err(shown(world.rejections.values().flatten()));
        };
        let priorities: Vec<_> =
            pool.sets["two"].content.backends.iter().map(|backend| backend.priority).collect();
        Ok((priorities, pool.config.backend_sets[1].source.clone(), pool.sets["two"].content.digest))
    };
    let (plain, source, set) = priorities("").expect("it is right");
    assert_eq!(plain, [0, 0]);
    assert_eq!(priorities(", priority: 0"), Ok((plain, source.clone(), set)));
    let (last, other_source, other_set) = priorities(", priority: 15").expect("it is right");
    assert_eq!(last, [15, 0]);
    assert!(source != other_source && set != other_set);
    for wrong in [-1, 16] {
        let refused = priorities(&format!(", priority: {wrong}")).expect_err("out of range");
        let expected = format!(
            "default/shop: spec.backendSets[1].static.backends[0].priority: {wrong} is out of range: use 0 to 15"
        );
        assert!(refused.len() == 1 && refused[0].starts_with(&expected), "{refused:?}");
    }
}

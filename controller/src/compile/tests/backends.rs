//! What a set holds, and what is said where its Service gives none.

use super::*;
use weir_proto::push::UpstreamProtocol;

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

/// The shop, whose set `web` and its Service's port have these fields more.
fn speaking(set: &str, port: &str) -> Objects {
    let mut objects = objects(&SHOP.replacen("port: http}", &format!("port: http}}{set}"), 1));
    let text = WEB.replacen("port: 80,", &format!("port: 80,{port}"), 1);
    let web: Service = yaml(&format!("apiVersion: v1\nkind: Service\n{text}"));
    objects.services.insert(key("web"), Arc::new(web));
    objects
}

/// What the backends of `web` are spoken to in: of the set, and of the configuration.
fn protocols(world: &World) -> [UpstreamProtocol; 2] {
    let pool = &world.pools[&key("shop")];
    assert_eq!(pool.config_digest, weir_proto::digest::config(&pool.config));
    [pool.sets["web"].protocol, pool.config.backend_sets[0].protocol()]
}

#[test]
fn the_service_says_what_its_port_speaks_and_what_cannot_be_spoken_is_warned_of_and_serves() {
    use UpstreamProtocol::{Http1, Http2};
    for (protocol, spoken) in [
        ("http", Some(Http1)),
        ("ws", Some(Http1)),
        ("kubernetes.io/ws", Some(Http1)),
        ("kubernetes.io/h2c", Some(Http2)),
        ("h2c", Some(Http2)),
        ("grpc", Some(Http2)),
        ("https", None),
        ("kubernetes.io/wss", None),
        ("GRPC", None),
    ] {
        let objects = speaking("", &format!(" appProtocol: {protocol},"));
        let whole = world(&objects, None);
        assert_eq!(backends(&whole, "web").len(), 2, "{protocol}");
        assert_eq!(protocols(&whole), [spoken.unwrap_or(Http1); 2], "{protocol}");
        let expected = format!(
            "default/shop: spec.backendSets[0].service.port: 80 has appProtocol \"{protocol}\" in its Service, and backends"
        );
        let warnings = shown(whole.warnings());
        assert_eq!(warnings.is_empty(), spoken.is_some(), "{warnings:?}");
        assert!(warnings.iter().all(|warning| warning.starts_with(&expected)), "{warnings:?}");
        for (set, written) in [(", protocol: HTTP", Http1), (", protocol: HTTP2", Http2)] {
            let whole = world(&speaking(set, &format!(" appProtocol: {protocol},")), None);
            assert_eq!(protocols(&whole), [written; 2], "{protocol}");
            assert_eq!(shown(whole.warnings()), Vec::<String>::new(), "who writes it down knows it");
        }
    }
}

#[test]
fn another_protocol_of_a_service_is_another_configuration_at_once() {
    use UpstreamProtocol::{Http1, Http2};
    let plain = speaking("", "");
    let mut now = world(&plain, None);
    let before = now.pools[&key("shop")].clone();
    let set = SetKey { pool: key("shop"), set: "web".to_owned() };
    let spoken = speaking("", " appProtocol: h2c,");
    let mut spoken_now = plain.clone();
    spoken_now.services.clone_from(&spoken.services);
    assert_eq!(now.refresh(&Origin::Service(key("web")), &spoken_now), std::slice::from_ref(&set));
    assert_eq!(protocols(&now), [Http2; 2]);
    let after = &now.pools[&key("shop")];
    assert!(after.config_digest != before.config_digest);
    assert!(Arc::ptr_eq(&after.sets["web"].content, &before.sets["web"].content));
    assert_eq!(after.config.backend_sets[0].source, before.config.backend_sets[0].source);
    assert_eq!(now, world(&spoken_now, None), "as a whole compile has it");
    assert_eq!(now.refresh(&Origin::Service(key("web")), &spoken_now), []);
    let mut gone = spoken_now.clone();
    gone.services.clear();
    assert_eq!(now.refresh(&Origin::Service(key("web")), &gone), [set]);
    assert_eq!(protocols(&now), [Http1; 2]);
    assert_eq!(now, world(&gone, None));
}

#[test]
fn a_pool_that_serves_what_it_said_before_hears_of_another_protocol_too() {
    let plain = speaking("", "");
    let first = world(&plain, None);
    let mut broken = speaking("", " appProtocol: h2c,");
    broken.secrets.clone_from(&plain.secrets);
    let pool: LoadBalancerPool = yaml(&SHOP.replacen("port: 80,", "port: 0,", 1));
    broken.pools.insert(key("shop"), Arc::new(pool));
    let second = world(&broken, Some(&first));
    let kept = &second.last_good[&key("shop")];
    assert_eq!(kept.config.backend_sets[0].protocol(), UpstreamProtocol::Http2);
    assert_eq!(kept.config_digest, weir_proto::digest::config(&kept.config));
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

//! Every clause of the EndpointSlice API, one table each.

use super::*;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions};
use weir_proto::limits::{BACKENDS_PER_SET_MAX, HINTS_MAX};

/// The shop with these slices and no others; `service` is the `spec` of its Service.
fn shop(service: &str, slices: &[&str]) -> Objects {
    let mut objects = objects(SHOP);
    objects.remove_slice(&key("web-1"));
    let service = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: default}}\nspec: {service}"
    );
    objects.services.insert(key("web"), Arc::new(yaml(&service)));
    for (index, text) in slices.iter().enumerate() {
        let (name, slice) = slice(&format!(
            "metadata: {{name: web-{index}, namespace: default, labels: {{kubernetes.io/service-name: web}}}}\n{text}"
        ));
        objects.insert_slice(name, slice);
    }
    objects
}

const PORTS: &str = "{ports: [{name: http, port: 80, targetPort: web}, {name: metrics, port: 9090}]}";

fn ids(objects: &Objects) -> Vec<String> {
    backends(&world(objects, None), "web").into_iter().map(|backend| backend.0).collect()
}

/// Ids of the backends, and what is said of them.
fn of(service: &str, slices: &[&str]) -> (Vec<String>, Vec<String>) {
    let objects = shop(service, slices);
    let warnings = shown(world(&objects, None).warnings());
    (ids(&objects), warnings)
}

#[test]
fn conditions_are_read_as_the_api_documents_them() {
    use BackendState::{Draining, Ready};
    let (yes, no) = (Some(true), Some(false));
    for (ready, serving, terminating, expected) in [
        (None, None, None, Some(Ready)),
        (None, no, None, Some(Ready)),
        (None, None, yes, Some(Ready)),
        (yes, None, None, Some(Ready)),
        (yes, yes, no, Some(Ready)),
        // As for a Service with publishNotReadyAddresses: ready whatever the pod is.
        (yes, no, no, Some(Ready)),
        (yes, no, yes, Some(Ready)),
        (yes, yes, yes, Some(Ready)),
        (no, yes, yes, Some(Draining)),
        (no, None, yes, Some(Draining)),
        (no, no, yes, None),
        (no, no, no, None),
        (no, no, None, None),
        (no, yes, no, None),
        (no, yes, None, None),
        (no, None, no, None),
        // As in the mirror of the notReadyAddresses of an Endpoints object.
        (no, None, None, None),
    ] {
        let mut objects = shop(PORTS, &[]);
        let (name, slice) = slice(
            "metadata: {name: web-0, namespace: default, labels: {kubernetes.io/service-name: web}}\naddressType: IPv4\n\
             ports: [{name: http, port: 8080}]\nendpoints: [{addresses: [10.1.0.1]}]",
        );
        let mut slice = (*slice).clone();
        let conditions = EndpointConditions { ready, serving, terminating };
        slice.endpoints[0].conditions = Some(conditions.clone());
        objects.insert_slice(name, Arc::new(slice));
        let states: Vec<_> =
            backends(&world(&objects, None), "web").into_iter().map(|backend| backend.3).collect();
        assert_eq!(states, expected.into_iter().collect::<Vec<_>>(), "{conditions:?}");
    }
    let without =
        "addressType: IPv4\nports: [{name: http, port: 8080}]\nendpoints: [{addresses: [10.1.0.1]}]";
    assert_eq!(of(PORTS, &[without]).0, ["10.1.0.1:8080"], "no conditions at all");
}

#[test]
fn a_port_is_found_in_each_slice_under_its_name_there() {
    let slice =
        |ports: &str| format!("addressType: IPv4\nports: {ports}\nendpoints: [{{addresses: [10.1.0.1]}}]");
    let two = "addressType: IPv4\nports: [{name: http, port: 8081}]\nendpoints: [{addresses: [10.1.0.2]}]";
    let unnamed = "{ports: [{port: 80, targetPort: 8080}]}";
    let cases: &[(&str, &str, &[&str])] = &[
        (PORTS, "[{name: http, port: 8080}]", &["10.1.0.1:8080", "10.1.0.2:8081"]),
        (PORTS, "[{name: metrics, port: 1}, {name: http, port: 8080}]", &["10.1.0.1:8080", "10.1.0.2:8081"]),
        (PORTS, "[{name: http, port: 8080, protocol: TCP}]", &["10.1.0.1:8080", "10.1.0.2:8081"]),
        (PORTS, "[{name: http, port: 8080, protocol: UDP}]", &["10.1.0.2:8081"]),
        (PORTS, "[{name: http, port: 8080, protocol: SCTP}]", &["10.1.0.2:8081"]),
        (PORTS, "[{name: HTTP, port: 8080}]", &["10.1.0.2:8081"]),
        (PORTS, "[{port: 8080}]", &["10.1.0.2:8081"]),
        // Pods of this slice do not have the port: its controller leaves it out.
        (PORTS, "[]", &["10.1.0.2:8081"]),
        (PORTS, "null", &["10.1.0.2:8081"]),
        // Every port, or none: nothing to connect to either way.
        (PORTS, "[{name: http}]", &["10.1.0.2:8081"]),
        (PORTS, "[{name: http, port: 0}]", &["10.1.0.2:8081"]),
        (PORTS, "[{name: http, port: -1}]", &["10.1.0.2:8081"]),
        (PORTS, "[{name: http, port: 65536}]", &["10.1.0.2:8081"]),
        (PORTS, "[{name: http, port: 65535}]", &["10.1.0.1:65535", "10.1.0.2:8081"]),
        (unnamed, "[{port: 8080}]", &["10.1.0.1:8080"]),
        (unnamed, "[{name: '', port: 8080}]", &["10.1.0.1:8080"]),
        (unnamed, "[{name: http, port: 8080}]", &[]),
    ];
    for (service, ports, expected) in cases {
        let port = if service == &unnamed { "port: 80}" } else { "port: http}" };
        let mut objects = shop(service, &[&slice(ports), two]);
        let pool: LoadBalancerPool = yaml(&SHOP.replacen("port: http}", port, 1));
        objects.pools.insert(key("shop"), Arc::new(pool));
        assert_eq!(ids(&objects), *expected, "{service} {ports}");
    }
}

#[test]
fn the_first_family_with_a_backend_is_the_one() {
    let four = "addressType: IPv4\nports: [{name: http, port: 8080}]\nendpoints: [{addresses: [10.1.0.1]}]";
    let six = "addressType: IPv6\nports: [{name: http, port: 8080}]\nendpoints: [{addresses: ['fd00::1']}]";
    let six_off = "addressType: IPv6\nports: [{name: http, port: 8080}]\nendpoints: [{addresses: ['fd00::1'], conditions: {ready: false}}]";
    let of = |families: &str, slices: &[&str]| {
        of(&PORTS.replacen("{ports", &format!("{{ipFamilies: {families}, ports"), 1), slices).0
    };
    assert_eq!(of("[IPv4]", &[four]), ["10.1.0.1:8080"]);
    assert_eq!(of("[IPv6]", &[six]), ["[fd00::1]:8080"]);
    assert_eq!(of("[IPv4, IPv6]", &[six, four]), ["10.1.0.1:8080"]);
    assert_eq!(of("[IPv6, IPv4]", &[four, six]), ["[fd00::1]:8080"]);
    assert_eq!(of("null", &[six, four]), ["[fd00::1]:8080"], "a Service without selector may not say");
    // The Service is made anew with the other family: served by the old slices until the new ones have a backend.
    assert_eq!(of("[IPv6]", &[four]), ["10.1.0.1:8080"]);
    assert_eq!(of("[IPv6]", &[four, six_off]), ["10.1.0.1:8080"]);
    assert_eq!(of("[IPv6]", &[four, six]), ["[fd00::1]:8080"]);
    assert_eq!(of("[IPX]", &[four]), ["10.1.0.1:8080"]);
}

#[test]
fn topology_and_hints_are_carried_sorted_and_within_limits() {
    let long_zone = "z".repeat(64);
    let many: Vec<_> = (0..=HINTS_MAX).rev().map(|n| format!("{{name: zone-{n}}}")).collect();
    let slices = format!(
        "addressType: IPv4\nports: [{{name: http, port: 8080}}]\nendpoints:\n\
         - {{addresses: [10.1.0.1], zone: a, nodeName: n1, hints: {{forZones: [{{name: b}}, {{name: a}}, {{name: b}}], forNodes: [{{name: n1}}]}}}}\n\
         - {{addresses: [10.1.0.2], zone: {long_zone}, nodeName: {}, hints: {{forZones: [{}]}}}}\n\
         - {{addresses: [10.1.0.3], hints: {{forZones: [{{name: ''}}, {{name: {long_zone}}}], forNodes: null}}}}\n",
        "n".repeat(254),
        many.join(", ")
    );
    let objects = shop(PORTS, &[&slices]);
    let world = world(&objects, None);
    let content = &world.pools[&key("shop")].sets["web"].content;
    let shown: Vec<_> = content
        .backends
        .iter()
        .map(|b| (b.zone.as_str(), b.node.as_str(), b.hint_zones.join(" "), b.hint_nodes.join(" ")))
        .collect();
    let first_eight = "zone-0 zone-1 zone-2 zone-3 zone-4 zone-5 zone-6 zone-7";
    let expected = [
        ("a", "n1", "a b".to_owned(), "n1".to_owned()),
        ("", "", first_eight.to_owned(), String::new()),
        ("", "", String::new(), String::new()),
    ];
    assert_eq!(shown, expected);
    assert_eq!(content.digest, weir_proto::digest::set(&content.backends));
}

#[test]
fn an_endpoint_in_two_slices_is_one_backend_whatever_their_order() {
    use BackendState::{Draining, Ready};
    let slice = |endpoint: &str| {
        format!(
            "addressType: IPv4\nports: [{{name: http, port: 8080}}]\nendpoints: [{{addresses: [10.1.0.1]{endpoint}}}]"
        )
    };
    let gone = ", conditions: {ready: false}";
    let drains = ", conditions: {ready: false, serving: true, terminating: true}, zone: b";
    for (a, b, zone, state) in [
        (", zone: a", "", "a", Ready),
        (", zone: a", drains, "a", Ready),
        ("", drains, "", Ready),
        (", zone: a", gone, "a", Ready),
        (gone, drains, "b", Draining),
        (", zone: a, nodeName: x", ", zone: a", "a", Ready),
        (", zone: a", ", zone: b", "b", Ready),
    ] {
        let (a, b) = (slice(a), slice(b));
        let contents = [shop(PORTS, &[&a, &b]), shop(PORTS, &[&b, &a])].map(|objects| {
            let world = world(&objects, None);
            world.pools[&key("shop")].sets["web"].content.clone()
        });
        assert_eq!(contents[0], contents[1], "{a} {b}");
        let [backend] = contents[0].backends.as_slice() else { panic!("{a} {b}: {:?}", contents[0]) };
        assert_eq!((backend.zone.as_str(), backend.state()), (zone, state), "{a} {b}");
    }
}

#[test]
fn what_cannot_be_used_is_said_once_and_the_rest_serves() {
    let slice = |kind: &str, ports: &str, endpoints: &str| {
        format!("addressType: {kind}\nports: {ports}\nendpoints: [{{addresses: [10.1.0.1]}}, {endpoints}]")
    };
    let http = "[{name: http, port: 8080}]";
    let fqdn =
        "addressType: FQDN\nports: [{name: http, port: 8080}]\nendpoints: [{addresses: [a.example.com]}]";
    let good = slice("IPv4", http, "");
    let endpoints = "spec.backendSets[0].service.name: \"web\" has endpoints that cannot be used";
    let long = "9".repeat(300);
    let cases: &[(&[&str], String)] = &[
        (
            &[&slice("IPv4", http, "{addresses: [nowhere]}, {addresses: []}, {addresses: ['']}")],
            format!("{endpoints} (3): in EndpointSlice default/web-0 \"nowhere\" is not an address of the slice's type"),
        ),
        (
            &[&slice("IPv4", http, "{addresses: ['fd00::1']}")],
            format!("{endpoints} (1): in EndpointSlice default/web-0 \"fd00::1\" is not"),
        ),
        (
            &[&slice("IPv4", http, "{addresses: ['010.1.0.2']}")],
            format!("{endpoints} (1): in EndpointSlice default/web-0 \"010.1.0.2\" is not"),
        ),
        (
            &[&slice("IPv4", http, &format!("{{addresses: ['{long}']}}"))],
            format!("{endpoints} (1): in EndpointSlice default/web-0 \"{}\"... is not", "9".repeat(253)),
        ),
        (
            &[fqdn, &good],
            "spec.backendSets[0].service.name: \"web\" has EndpointSlices without IP addresses (1, of which default/web-0 \
             is of type \"FQDN\"), which are ignored"
                .to_owned(),
        ),
        (
            &["addressType: ''\nports: null\nendpoints: null", &good],
            "spec.backendSets[0].service.name: \"web\" has EndpointSlices without IP addresses (1, of which default/web-0 \
             is of type \"\"), which are ignored"
                .to_owned(),
        ),
        (
            &[&slice("IPv4", "[{name: http, port: 70000}]", ""), &slice("IPv4", "[{name: http}]", ""), &good],
            "spec.backendSets[0].service.port: 80 is in EndpointSlices that cannot be used (2): EndpointSlice default/web-0 \
             has 70000, which is not a port"
                .to_owned(),
        ),
        (
            &[&good.replace("port: 8080", "port: 8080, appProtocol: kubernetes.io/wss")],
            "spec.backendSets[0].service.port: 80 has appProtocol \"kubernetes.io/wss\" in EndpointSlice default/web-0, and \
             backends are spoken to in HTTP/1.1"
                .to_owned(),
        ),
    ];
    for (slices, expected) in cases {
        let (ids, warnings) = of(PORTS, slices);
        assert_eq!(ids, ["10.1.0.1:8080"], "{slices:?}");
        let expected = format!("default/shop: {expected}");
        assert!(warnings.len() == 1 && warnings[0].starts_with(&expected), "{slices:?}: {warnings:?}");
    }
    // An endpoint that takes nothing is not in anybody's way.
    let off = slice("IPv4", http, "{addresses: [nowhere], conditions: {ready: false}}");
    assert_eq!(of(PORTS, &[&off]).1, Vec::<String>::new());
}

#[test]
fn the_protocol_of_the_service_s_port_goes_before_that_of_a_slice_s() {
    for (service, slice, warned_of) in [
        ("", "", None),
        ("", ", appProtocol: http", None),
        ("", ", appProtocol: https", Some("\"https\" in EndpointSlice default/web-0")),
        (", appProtocol: http", ", appProtocol: https", None),
        (", appProtocol: https", ", appProtocol: http", Some("\"https\" in its Service")),
        (", appProtocol: kubernetes.io/ws", "", None),
        (
            ", appProtocol: kubernetes.io/wss",
            ", appProtocol: https",
            Some("\"kubernetes.io/wss\" in its Service"),
        ),
    ] {
        let service = format!("{{ports: [{{name: http, port: 80{service}}}]}}");
        let slice = format!(
            "addressType: IPv4\nports: [{{name: http, port: 8080{slice}}}]\nendpoints: [{{addresses: [10.1.0.1]}}]"
        );
        let (ids, warnings) = of(&service, &[&slice]);
        assert_eq!(ids.len(), 1);
        assert_eq!(warnings.len(), usize::from(warned_of.is_some()), "{service} {slice}: {warnings:?}");
        assert!(warnings.iter().zip(warned_of).all(|(warning, of)| warning.contains(of)), "{warnings:?}");
    }
}

#[test]
fn a_target_port_that_no_pod_has_is_said() {
    let none = "addressType: IPv4\nports: null\nendpoints: [{addresses: [10.1.0.1]}]";
    let (ids, warnings) = of(PORTS, &[none]);
    assert_eq!(ids, Vec::<String>::new());
    let expected = "default/shop: spec.backendSets[0].service.port: 80 is a port of Service default/web that none of its \
                    endpoints has under the name \"http\": ";
    assert!(warnings.len() == 1 && warnings[0].starts_with(expected), "{warnings:?}");
    // Scaled to zero, and not yet ready: a set may be empty.
    for quiet in [
        "addressType: IPv4\nports: null\nendpoints: null",
        "addressType: IPv4\nports: null\nendpoints: []",
        "addressType: IPv4\nports: null\nendpoints: [{addresses: [10.1.0.1], conditions: {ready: false}}]",
    ] {
        assert_eq!(of(PORTS, &[quiet]), (vec![], vec![]), "{quiet}");
    }
    assert_eq!(of(PORTS, &[]), (vec![], vec![]));
}

#[test]
fn kinds_of_services_and_who_wrote_their_slices_make_no_difference() {
    let slice = |label: &str| {
        format!(
            "metadata: {{name: web-0, namespace: default, labels: {{kubernetes.io/service-name: web, \
             endpointslice.kubernetes.io/managed-by: {label}}}}}\naddressType: IPv4\n\
             ports: [{{name: http, port: 8080}}]\nendpoints: [{{addresses: [10.1.0.1]}}]"
        )
    };
    for service in [
        PORTS.to_owned(),
        PORTS.replacen('{', "{clusterIP: None, ", 1),
        PORTS.replacen('{', "{clusterIP: 10.96.0.1, type: NodePort, ", 1),
        PORTS.replacen('{', "{type: LoadBalancer, publishNotReadyAddresses: true, ", 1),
        PORTS.replacen('{', "{selector: {app: web}, ", 1),
    ] {
        for managed_by in
            ["endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io", "someone"]
        {
            let mut objects = shop(&service, &[]);
            let (name, slice) = super::slice(&slice(managed_by));
            objects.insert_slice(name, slice);
            assert_eq!(ids(&objects), ["10.1.0.1:8080"], "{service} {managed_by}");
        }
    }
    let (ids, warnings) =
        of("{clusterIP: None}", &["addressType: IPv4\nports: null\nendpoints: [{addresses: [10.1.0.1]}]"]);
    assert_eq!(ids, Vec::<String>::new());
    assert!(
        warnings.len() == 1 && warnings[0].contains("use one of its ports, of which it has none"),
        "{warnings:?}"
    );
}

#[test]
fn slices_say_the_protocol_where_the_service_does_not_and_all_of_them_say_the_same() {
    use weir_proto::push::UpstreamProtocol::{self, Http1, Http2};
    let of = |service: &str, protocols: &[&str]| -> (UpstreamProtocol, Vec<String>) {
        let slices: Vec<_> = (0..)
            .zip(protocols)
            .map(|(n, protocol)| {
                format!(
                    "addressType: IPv4\nports: [{{name: http, port: 8080{protocol}}}]\nendpoints: [{{addresses: [10.1.0.{n}]}}]"
                )
            })
            .collect();
        let slices: Vec<_> = slices.iter().map(String::as_str).collect();
        let objects = shop(&format!("{{ports: [{{name: http, port: 80{service}}}]}}"), &slices);
        let world = world(&objects, None);
        let pool = &world.pools[&key("shop")];
        assert_eq!(pool.config.backend_sets[0].protocol(), pool.sets["web"].protocol);
        (pool.sets["web"].protocol, shown(world.warnings()))
    };
    let (http, h2c, tls) =
        (", appProtocol: http", ", appProtocol: kubernetes.io/h2c", ", appProtocol: https");
    for (service, slices, expected) in [
        ("", &[""][..], Http1),
        ("", &[http], Http1),
        ("", &[h2c], Http2),
        ("", &["", h2c, ", appProtocol: grpc"], Http2),
        (http, &[h2c], Http1),
        (h2c, &[http], Http2),
        (h2c, &[tls], Http2),
    ] {
        assert_eq!(of(service, slices), (expected, Vec::new()), "{service} {slices:?}");
    }
    for (slices, said) in [
        (&[http, h2c][..], &["\"kubernetes.io/h2c\" in EndpointSlice default/web-1"][..]),
        (&[h2c, http], &["\"kubernetes.io/h2c\" in EndpointSlice default/web-0"]),
        (&[http, tls], &["\"https\" in EndpointSlice default/web-1"]),
        (
            &[h2c, tls],
            &[
                "\"https\" in EndpointSlice default/web-1",
                "\"kubernetes.io/h2c\" in EndpointSlice default/web-0",
            ],
        ),
    ] {
        let (protocol, warnings) = of("", slices);
        assert_eq!((protocol, warnings.len()), (Http1, said.len()), "{slices:?}: {warnings:?}");
        assert!(warnings.iter().zip(said).all(|(warning, said)| warning.contains(said)), "{warnings:?}");
    }
}

#[test]
fn slices_wait_for_their_service() {
    let mut objects = objects(SHOP);
    let service = objects.services.remove(&key("web")).expect("there");
    let mut world_now = world(&objects, None);
    assert_eq!(backends(&world_now, "web").len(), 0);
    objects.services.insert(key("web"), service);
    assert_eq!(world_now.refresh(&Origin::Service(key("web")), &objects).len(), 1);
    assert_eq!(backends(&world_now, "web").len(), 2);
    assert_eq!(world_now.warnings().count(), 0);
}

#[test]
fn a_set_has_a_limit_and_one_past_it_is_said_and_ready_ones_go_first() {
    let with = |count: usize| {
        let mut objects = shop(
            PORTS,
            &[
                "addressType: IPv4\nports: [{name: http, port: 8080}]\nendpoints: [{addresses: [10.0.0.0], conditions: {ready: false, terminating: true}}]",
            ],
        );
        let (name, template) = slice(
            "metadata: {name: web-1, namespace: default, labels: {kubernetes.io/service-name: web}}\naddressType: IPv4\n\
             ports: [{name: http, port: 8080}]\nendpoints: [{addresses: [10.0.0.0]}]",
        );
        let mut slice = (*template).clone();
        let ready = slice.endpoints.remove(0);
        let address = |n: usize| format!("10.{}.{}.{}", n >> 16, (n >> 8) & 255, n & 255);
        slice.endpoints =
            (1..count).map(|n| Endpoint { addresses: vec![address(n)], ..ready.clone() }).collect();
        objects.insert_slice(name, Arc::new(slice));
        let warnings = shown(world(&objects, None).warnings());
        (ids(&objects), warnings)
    };
    let (ids, warnings) = with(BACKENDS_PER_SET_MAX);
    assert_eq!((ids.len(), warnings), (BACKENDS_PER_SET_MAX, vec![]));
    let (ids, warnings) = with(BACKENDS_PER_SET_MAX + 1);
    assert_eq!(ids.len(), BACKENDS_PER_SET_MAX);
    assert!(!ids.contains(&"10.0.0.0:8080".to_owned()), "the one that drains");
    let expected =
        "default/shop: spec.backendSets[0].service.name: \"web\" has 20001 endpoints, more than the 20000";
    assert!(warnings.len() == 1 && warnings[0].starts_with(expected), "{warnings:?}");
}

#[test]
fn the_page_says_the_limits_and_the_protocols() {
    let page = include_str!("../../../../docs/endpoints.md");
    assert_eq!((BACKENDS_PER_SET_MAX, HINTS_MAX), (20_000, 8));
    for said in [
        "At most 20,000 backends",
        "8 zones and 8 nodes",
        "`http`, `ws` and `kubernetes.io/ws`",
        "`kubernetes.io/h2c`, `h2c` and `grpc`",
        "`InvalidEndpoints`",
    ] {
        assert!(page.contains(said), "{said}");
    }
}

//! Every rule by which pods become backends, one table each.

use super::*;
use k8s_openapi::api::core::v1::Pod;
use std::collections::BTreeMap;
use weir_proto::limits::{BACKENDS_PER_SET_MAX, ZONE_BYTES_MAX};

const SELECTOR: &str = "endpointSelector: {matchLabels: {app: web}, port: http}";
const NUMBERED: &str = "endpointSelector: {matchLabels: {app: web}, port: 80}";
const READY: &str = "conditions: [{type: Ready, status: 'True'}]";
const DELETED: &str = "metadata: {deletionTimestamp: '2026-01-01T00:00:00Z'}";

/// The shop whose set `web` is of pods, by this selector.
fn shop(selector: &str) -> Objects {
    objects(&SHOP.replacen("service: {name: web, port: http}", selector, 1))
}

fn selector(objects: &Objects) -> Selector {
    selectors_of(&objects.pools[&key("shop")]).pop_first().expect("it names one")
}

fn with_pods(text: &str, pods: &[(&str, &str)]) -> Objects {
    let mut objects = shop(text);
    let pods = pods.iter().map(|(name, text)| {
        let pod: Pod = yaml(&format!("apiVersion: v1\nkind: Pod\n{text}"));
        ((*name).to_owned(), Arc::new(SelectedPod::of(&pod)))
    });
    let selector = selector(&objects);
    objects.pods.replace(&selector, pods.collect());
    objects
}

/// A Ready pod of this address.
fn pod(address: &str, more: &str) -> String {
    format!(
        "spec: {{nodeName: node-a, containers: [{{name: main, ports: [{{name: http, containerPort: 8080}}]}}]}}\n\
         status: {{phase: Running, podIPs: [{{ip: '{address}'}}], {READY}}}\n{more}"
    )
}

fn ids(objects: &Objects) -> Vec<String> {
    backends(&world(objects, None), "web").into_iter().map(|backend| backend.0).collect()
}

fn warnings(objects: &Objects) -> Vec<String> {
    shown(world(objects, None).warnings())
}

#[test]
fn a_pod_takes_requests_while_it_is_ready_and_drains_while_it_is_deleted() {
    use BackendState::{Draining, Ready};
    let ready = "conditions: [{type: Initialized, status: 'True'}, {type: Ready, status: 'True'}]";
    let unready = "conditions: [{type: Ready, status: 'False'}]";
    for (phase, conditions, metadata, expected) in [
        ("phase: Running", ready, "", Some(Ready)),
        ("phase: Running", ready, DELETED, Some(Draining)),
        ("phase: Running", unready, "", None),
        ("phase: Running", unready, DELETED, None),
        ("phase: Running", "conditions: [{type: Ready, status: Unknown}]", "", None),
        ("phase: Running", "conditions: [{type: ContainersReady, status: 'True'}]", "", None),
        ("phase: Running", "conditions: []", "", None),
        ("phase: Running", "message: no conditions", "", None),
        ("message: no phase", ready, "", Some(Ready)),
        ("phase: Pending", unready, "", None),
        ("phase: Failed", ready, "", None),
        ("phase: Succeeded", ready, "", None),
        ("phase: Succeeded", ready, DELETED, None),
    ] {
        let status = format!("status: {{{phase}, podIPs: [{{ip: 10.1.0.1}}], {conditions}}}");
        let text = format!("{metadata}\nspec: {{containers: []}}\n{status}");
        let objects = with_pods(NUMBERED, &[("a", &text)]);
        let states = backends(&world(&objects, None), "web").into_iter().map(|one| (one.0, one.3));
        let expected = expected.into_iter().map(|state| ("10.1.0.1:80".to_owned(), state));
        assert_eq!(states.collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "{text}");
        assert_eq!(warnings(&objects), Vec::<String>::new(), "pods that come and go are no fault: {text}");
    }
}

#[test]
fn a_port_is_a_number_or_what_each_pods_own_containers_call_so() {
    let of = |ports: &str, init: &str| {
        format!(
            "spec: {{containers: [{{name: log, ports: [{{containerPort: 1}}]}}, {{name: main, ports: {ports}}}], \
             initContainers: [{init}]}}\nstatus: {{phase: Running, podIPs: [{{ip: 10.1.0.1}}], {READY}}}"
        )
    };
    let other = pod("10.1.0.2", "").replacen("8080", "9090", 1);
    let sidecar = "{name: s, restartPolicy: Always, ports: [{name: http, containerPort: 7070}]}";
    let once = "{name: s, ports: [{name: http, containerPort: 7070}]}";
    let (both, one) = (&["10.1.0.1:8080", "10.1.0.2:9090"][..], &["10.1.0.2:9090"][..]);
    for (port, ports, init, expected) in [
        ("http", "[{name: http, containerPort: 8080}]", "", both),
        ("http", "[{name: web, containerPort: 1}, {name: http, containerPort: 8080}]", "", both),
        ("http", "[{name: http, containerPort: 8080, protocol: TCP}]", "", both),
        ("http", "[{name: http, containerPort: 8080, protocol: UDP}]", "", one),
        (
            "http",
            "[{name: http, containerPort: 1, protocol: UDP}, {name: http, containerPort: 8080}]",
            "",
            both,
        ),
        ("http", "[{name: http, containerPort: 8080}, {name: http, containerPort: 8081}]", "", both),
        ("http", "[{name: http, containerPort: 0}]", "", one),
        ("http", "[{name: http, containerPort: 65536}]", "", one),
        ("http", "[]", sidecar, &["10.1.0.1:7070", "10.1.0.2:9090"]),
        ("http", "[{name: http, containerPort: 8080}]", sidecar, both),
        ("http", "[]", once, one),
        // Whether or not a container declares it.
        ("80", "[]", "", &["10.1.0.1:80", "10.1.0.2:80"]),
    ] {
        let selector = SELECTOR.replacen("http", port, 1);
        let objects = with_pods(&selector, &[("a", &of(ports, init)), ("b", &other)]);
        assert_eq!(ids(&objects), expected, "{port} {ports} {init}");
        assert_eq!(warnings(&objects), Vec::<String>::new());
    }
    let objects = with_pods(SELECTOR, &[("a", &of("[]", ""))]);
    assert_eq!(ids(&objects), Vec::<String>::new());
    assert_eq!(
        warnings(&objects),
        [
            "default/shop: spec.backendSets[0].endpointSelector.port: \"http\" is the name of no TCP port of the pods \
             that \"app=web\" of namespace default takes: give a port of their containers that name, or write its number \
             (the set is empty, its requests are answered 503)"
        ]
    );
}

#[test]
fn the_first_address_of_a_pod_is_the_one_and_each_pod_counts_once() {
    for (ips, expected) in [
        ("podIPs: [{ip: 10.1.0.1}, {ip: 'fd00::1'}]", &["10.1.0.1:80"][..]),
        ("podIPs: [{ip: 'fd00::1'}, {ip: 10.1.0.1}]", &["[fd00::1]:80"]),
        ("podIPs: [{ip: 'fd00::1'}]", &["[fd00::1]:80"]),
        ("podIP: 10.1.0.1", &["10.1.0.1:80"]),
        ("podIP: 10.1.0.2, podIPs: [{ip: 10.1.0.1}]", &["10.1.0.1:80"]),
        ("podIPs: []", &[]),
        ("podIP: ''", &[]),
        ("hostIP: 10.1.0.9", &[]),
    ] {
        let text = format!("spec: {{containers: []}}\nstatus: {{phase: Running, {ips}, {READY}}}");
        let objects = with_pods(NUMBERED, &[("a", &text)]);
        assert_eq!(ids(&objects), expected, "{ips}");
        assert_eq!(warnings(&objects), Vec::<String>::new(), "a pod without an address has none yet");
    }
    let (good, bad) = (pod("10.1.0.1", ""), pod("10.1.0.300", ""));
    let objects = with_pods(SELECTOR, &[("a", &bad), ("b", &good), ("c", &bad)]);
    assert_eq!(ids(&objects), ["10.1.0.1:8080"]);
    assert_eq!(
        warnings(&objects),
        [
            "default/shop: spec.backendSets[0].endpointSelector: \"app=web\" takes pods that cannot be used (2): of pod \
             default/a \"10.1.0.300\" is not an address; correct it, the others serve"
        ]
    );
}

#[test]
fn pods_that_share_an_address_are_one_backend_and_ready_goes_before_draining() {
    let deleted = pod("10.1.0.1", DELETED);
    let zoned = pod("10.1.0.1", "metadata: {labels: {topology.kubernetes.io/zone: a}}");
    for pods in [[("a", &*deleted), ("b", &*zoned)], [("a", &zoned), ("b", &deleted)]] {
        let world = world(&with_pods(SELECTOR, &pods), None);
        let found = &world.pools[&key("shop")].sets["web"].content.backends;
        let [only] = &found[..] else { panic!("{found:?}") };
        assert_eq!((only.state(), &*only.zone, &*only.node), (BackendState::Ready, "a", "node-a"));
        assert_eq!((only.weight, only.priority, only.hint_zones.len()), (1, 0, 0));
    }
}

#[test]
fn what_is_not_known_of_a_selector_is_said_and_what_was_known_serves_on() {
    for (why, sentence) in [
        (
            Unread::Forbidden,
            "may not read: give the controller's ServiceAccount a Role in namespace default with get, list, watch on pods",
        ),
        (Unread::Unanswered, "cannot read now: it tries again, and its log says why"),
        (Unread::TooMany, "does not watch, since pools name too many selectors: name fewer, or use Services"),
    ] {
        let of = |mut objects: Objects, consequence: &str, expected: &[&str]| {
            let selector = selector(&objects);
            objects.pods.unread.insert(selector, why);
            let world = world(&objects, None);
            let warning = world.warnings().next().expect("one");
            assert_eq!(warning.reason, Reason::EndpointsUnread);
            assert_eq!(
                warning.to_string(),
                format!(
                    "default/shop: spec.backendSets[0].endpointSelector: \"app=web\" takes pods that the controller \
                     {sentence} ({consequence})"
                )
            );
            assert_eq!(ids(&objects), expected);
        };
        of(shop(SELECTOR), "the set is empty, its requests are answered 503", &[]);
        let known = with_pods(SELECTOR, &[("a", &pod("10.1.0.1", ""))]);
        of(known, "the pods that were known serve on", &["10.1.0.1:8080"]);
    }
}

#[test]
fn a_selector_takes_as_many_pods_as_a_set_may_have_ready_ones_first() {
    let blank: SelectedPod = SelectedPod::of(&Pod::default());
    for (count, expected) in [(BACKENDS_PER_SET_MAX, 0), (BACKENDS_PER_SET_MAX + 1, 1)] {
        let mut objects = shop(NUMBERED);
        let pod = |n: usize| {
            let n = u32::try_from(n).expect("small");
            let address = Some(std::net::Ipv4Addr::from(0x0a00_0000 + n).into());
            // The one of the smallest address drains.
            let state = if n == 0 { PodState::Draining } else { PodState::Ready };
            (format!("pod-{n}"), Arc::new(SelectedPod { state, address, ..blank.clone() }))
        };
        let selector = selector(&objects);
        objects.pods.replace(&selector, (0..count).map(pod).collect::<BTreeMap<_, _>>());
        let found = ids(&objects);
        assert_eq!((found.len(), warnings(&objects).len()), (BACKENDS_PER_SET_MAX, expected));
        assert_eq!(
            found.contains(&"10.0.0.0:80".to_owned()),
            expected == 0,
            "it is the draining one that goes"
        );
    }
}

#[test]
fn a_change_among_pods_compiles_the_sets_that_follow_them_and_no_other() {
    let mut objects = with_pods(SELECTOR, &[("a", &pod("10.1.0.1", ""))]);
    let mut world = world(&objects, None);
    let selector = selector(&objects);
    let origin = Origin::Pods(selector.clone());
    assert_eq!(world.refresh(&origin, &objects), Vec::<SetKey>::new(), "nothing changed");
    assert!(world.is_followed(&origin));
    let two: Pod = yaml(&format!("apiVersion: v1\nkind: Pod\n{}", pod("10.1.0.2", "")));
    assert!(objects.pods.insert(&selector, "b".to_owned(), Arc::new(SelectedPod::of(&two))));
    assert_eq!(world.refresh(&origin, &objects), [SetKey { pool: key("shop"), set: "web".to_owned() }]);
    assert_eq!(world, super::world(&objects, Some(&world.clone())));
}

#[test]
fn a_set_of_another_selector_is_of_another_source_and_the_order_of_its_labels_is_no_difference() {
    let source = |selector: &str| {
        world(&shop(selector), None).pools[&key("shop")].config.backend_sets[0].source.clone()
    };
    let exists = "{key: c, operator: Exists}";
    let one = source(&format!(
        "endpointSelector: {{matchLabels: {{a: b}}, matchExpressions: [{exists}], port: 80}}"
    ));
    let same = source(&format!(
        "endpointSelector: {{port: 80, matchExpressions: [{exists}, {{key: a, operator: In, values: [b]}}]}}"
    ));
    assert_eq!((&*one, &*same), ("pods default:a=b,c:80", &*one));
    for other in [
        format!("endpointSelector: {{matchLabels: {{a: b}}, matchExpressions: [{exists}], port: 81}}"),
        NUMBERED.to_owned(),
        "service: {name: web, port: 80}".to_owned(),
    ] {
        assert_ne!(source(&other), one);
    }
}

#[test]
fn a_selector_that_is_wrong_is_refused_with_its_field() {
    let field = "spec.backendSets[0]";
    for (set, sentence) in [
        ("endpointSelector: {port: 80}", ".endpointSelector: is empty, and would take every pod"),
        ("endpointSelector: {matchLabels: {a: b}, port: 0}", ".endpointSelector.port: 0 is not a port"),
        ("endpointSelector: {matchLabels: {a: b}, port: A}", ".endpointSelector.port: \"A\" is not a name"),
        (
            "service: {name: web, port: 80}, endpointSelector: {matchLabels: {a: b}, port: 80}",
            ": has service and endpointSelector: write exactly one of service, endpointSelector, static, dns",
        ),
    ] {
        let refused = shown(world(&shop(set), None).rejections.values().flatten());
        let sentence = format!("{field}{sentence}");
        assert!(refused.len() == 1 && refused[0].contains(&sentence), "{refused:?}: {sentence}");
    }
}

#[test]
fn the_zone_is_the_pods_label_and_a_name_longer_than_any_real_one_is_none() {
    let long = "z".repeat(ZONE_BYTES_MAX + 1);
    for (label, expected) in [("a", "a"), (&long[1..], &long[1..]), (&long, ""), ("''", "")] {
        let label = format!("metadata: {{labels: {{topology.kubernetes.io/zone: {label}}}}}");
        let found = backends(&world(&with_pods(SELECTOR, &[("a", &pod("10.1.0.1", &label))]), None), "web");
        assert_eq!(found[0].2, expected);
    }
}

#[test]
fn the_page_says_the_limits_of_selectors_and_their_rights() {
    use weir_crds::pool::{SELECTOR_EXPRESSIONS_MAX, SELECTOR_LABELS_MAX, SELECTOR_VALUES_MAX};
    let page = include_str!("../../../../docs/endpoints.md");
    assert_eq!((SELECTOR_LABELS_MAX, SELECTOR_EXPRESSIONS_MAX, SELECTOR_VALUES_MAX), (16, 8, 16));
    assert_eq!(crate::cluster::SELECTORS_MAX, 256);
    for said in [
        "At most 16 labels, 8 expressions, 16 values each",
        "256 selectors are watched",
        "`EndpointsUnread`",
        "`get`, `list`, `watch` on `pods`",
    ] {
        assert!(page.contains(said), "{said}");
    }
}

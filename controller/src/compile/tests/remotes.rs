//! Backends of other clusters: who they are, with what priority, and what is said of clusters that are away.

use super::*;
use k8s_openapi::ByteString;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};
use weir_proto::limits::BACKENDS_PER_SET_MAX;

const EAST: &str = "{name: east, kubeconfigRef: {name: east}}";

/// The shop whose set `web` is in these clusters too.
fn shop(clusters: &str) -> Objects {
    let service = format!("service: {{name: web, port: http, clusters: [{clusters}]}}");
    let mut objects = objects(&SHOP.replacen("service: {name: web, port: http}", &service, 1));
    objects.secrets.insert(key("east"), kubeconfig());
    objects
}

fn kubeconfig() -> Arc<Secret> {
    let data = [("kubeconfig".to_owned(), ByteString(b"read elsewhere".to_vec()))];
    Arc::new(Secret { data: Some(data.into()), ..Secret::default() })
}

fn remote(objects: &Objects) -> RemoteService {
    remotes_of(&objects.pools[&key("shop")]).pop_first().expect("it names one")
}

fn service(spec: &str) -> Arc<Service> {
    let text =
        format!("apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: default}}\nspec: {spec}");
    Arc::new(yaml(&text))
}

/// With what the cluster that is named first has.
fn with(mut objects: Objects, spec: &str, slice_text: &str) -> Objects {
    let remote = remote(&objects);
    objects.remotes.set_service(&remote, Some(service(spec)));
    let (name, slice) = slice(slice_text);
    objects.remotes.replace_slices(&remote, BTreeMap::from([(name.name, slice)]));
    objects
}

/// The same address as here, and one that is only there.
const THERE: &str = r#"
metadata: {name: web-1, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints:
  - {addresses: [10.1.0.1], zone: a, nodeName: n, hints: {forZones: [{name: a}]}}
  - {addresses: [10.9.0.1], conditions: {ready: false, serving: true, terminating: true}}
"#;
const PORTS: &str = "{ports: [{name: http, port: 80}]}";

fn members(objects: &Objects) -> Vec<(String, u32)> {
    let world = world(objects, None);
    let content = &world.pools[&key("shop")].sets["web"].content;
    content.backends.iter().map(|backend| (backend.id.clone(), backend.priority)).collect()
}

fn warnings(objects: &Objects) -> Vec<String> {
    shown(world(objects, None).warnings())
}

fn owned<const N: usize>(members: [(&str, u32); N]) -> Vec<(String, u32)> {
    members.map(|(id, priority)| (id.to_owned(), priority)).into()
}

#[test]
fn backends_of_another_cluster_join_under_its_name_with_its_priority_and_without_places() {
    let objects = with(shop(EAST), PORTS, THERE);
    let world = world(&objects, None);
    let set = &world.pools[&key("shop")].sets["web"];
    let [own, draining, there, other] = &set.content.backends[..] else { panic!("{:?}", set.content) };
    assert_eq!((&*own.id, own.priority, &*own.zone), ("10.1.0.1:8080", 0, "a"));
    assert_eq!((&*draining.id, draining.state()), ("10.1.0.2:8080", BackendState::Draining));
    assert_eq!((&*there.id, &*there.address, there.priority), ("east/10.1.0.1:8080", "10.1.0.1:8080", 1));
    assert_eq!((&*there.zone, &*there.node, there.hint_zones.len(), there.weight), ("", "", 0, 1));
    assert_eq!((&*other.id, other.state()), ("east/10.9.0.1:8080", BackendState::Draining));
    assert_eq!(set.warnings, []);
    assert_eq!(set.origins, [Origin::Service(key("web")), Origin::Remote(remote(&objects))]);
    let source = &world.pools[&key("shop")].config.backend_sets[0].source;
    assert_eq!(source, "service default/web:http east=defaultp1");
}

#[test]
fn priorities_namespace_secret_and_key_are_those_that_are_written() {
    let written = "{name: east, kubeconfigRef: {name: east, key: k}, priority: 15, namespace: elsewhere}";
    let mut objects = shop(written);
    let expected = RemoteService {
        secret: key("east"),
        key: "k".to_owned(),
        service: ObjectKey::new("elsewhere", "web"),
    };
    assert_eq!(remote(&objects), expected);
    let pool = objects.pools.get_mut(&key("shop")).expect("it is there");
    let set = &mut Arc::make_mut(pool).spec.backend_sets[0];
    set.service.as_mut().expect("a Service").priority = 3;
    let objects = with(objects, PORTS, THERE);
    let members = members(&objects).into_iter().map(|member| member.1).collect::<Vec<_>>();
    assert_eq!(members, [3, 3, 15, 15]);
}

#[test]
fn the_port_is_looked_up_in_the_service_there() {
    let other_port = THERE.replacen("name: http, port: 8080", "name: web, port: 9090", 1);
    let number = |objects: &mut Objects, port: i32| {
        let pool = objects.pools.get_mut(&key("shop")).expect("it is there");
        let set = &mut Arc::make_mut(pool).spec.backend_sets[0];
        set.service.as_mut().expect("a Service").port =
            k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::Int(port);
    };
    let mut objects = with(shop(EAST), "{ports: [{name: web, port: 80}]}", &other_port);
    number(&mut objects, 80);
    let expected =
        [("10.1.0.1:8080", 0), ("10.1.0.2:8080", 0), ("east/10.1.0.1:9090", 1), ("east/10.9.0.1:9090", 1)];
    assert_eq!(members(&objects), owned(expected));
    assert_eq!(warnings(&objects), Vec::<String>::new());
    for (spec, sentence) in [
        (
            "{ports: [{name: web, port: 80}]}",
            "\"east\" is a cluster where \"http\" is not a TCP port of Service default/web: use one of 80 (web) (none of its \
             backends serve)",
        ),
        (
            "{type: ExternalName, externalName: a.example}",
            "\"east\" is a cluster where \"web\" is a Service of type ExternalName, which is not followed in other clusters: \
             name what it names with dns (none of its backends serve)",
        ),
    ] {
        let objects = with(shop(EAST), spec, THERE);
        assert_eq!(members(&objects), owned([("10.1.0.1:8080", 0), ("10.1.0.2:8080", 0)]));
        let field = "default/shop: spec.backendSets[0].service.clusters[0]";
        assert_eq!(warnings(&objects), [format!("{field}: {sentence}")]);
    }
}

type Break = fn(&mut Objects, SystemTime);

fn lose(objects: &mut Objects, since: SystemTime, why: AwayReason) {
    let remote = remote(objects);
    objects.remotes.away.insert(remote, Away { since, why });
}

#[test]
fn what_is_wrong_with_a_cluster_is_said_with_its_field_and_what_was_known_serves_on() {
    let since = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let cases: [(&str, Break, &str); 8] = [
        (
            ".kubeconfigRef.name",
            |o, _| drop(o.secrets.remove(&key("east"))),
            "Secret default/east, which is not there: create it",
        ),
        (
            ".kubeconfigRef.name",
            |o, _| {
                o.secrets.remove(&key("east"));
                o.unread_secrets.insert(key("east"), Unread::Forbidden);
            },
            "Secret default/east, which may not be read: give the controller's ServiceAccount a Role in namespace default",
        ),
        (
            ".kubeconfigRef.key",
            |o, _| drop(o.secrets.insert(key("east"), Arc::default())),
            "under the key \"kubeconfig\" of Secret default/east, which has no such key",
        ),
        (
            ".kubeconfigRef",
            |o, since| lose(o, since, AwayReason::Kubeconfig("users[0].user.exec would run".to_owned())),
            "has a kubeconfig in Secret default/east that cannot be used: users[0].user.exec would run",
        ),
        (
            "",
            |o, since| lose(o, since, AwayReason::Unreachable),
            "is a cluster of which nothing is heard since 2023-11-14T22:13:20Z: its API server does not answer",
        ),
        (
            "",
            |o, since| lose(o, since, AwayReason::Forbidden),
            "give them a Role there in namespace default with get, list, watch on services and on endpointslices",
        ),
        ("", |o, since| lose(o, since, AwayReason::TooMany), "name too many Services of other clusters"),
        ("", |o, since| lose(o, since, AwayReason::NoCluster), "since objects come from a folder: remove it"),
    ];
    for (field, spoil, sentence) in cases {
        for (mut objects, consequence, count) in [
            (with(shop(EAST), PORTS, THERE), "(its backends that were known last serve on)", 4),
            (shop(EAST), "(none of its backends serve)", 2),
        ] {
            spoil(&mut objects, since);
            assert_eq!(members(&objects).len(), count, "{sentence}");
            let world = world(&objects, None);
            let [warning] = &world.warnings().collect::<Vec<_>>()[..] else { panic!("one: {sentence}") };
            assert_eq!(warning.reason, Reason::ClusterUnreachable);
            assert_eq!(warning.field, format!("spec.backendSets[0].service.clusters[0]{field}"));
            let said = warning.to_string();
            assert!(said.contains(sentence) && said.ends_with(consequence), "{said}");
        }
    }
}

#[test]
fn a_cluster_that_was_not_read_yet_delays_nothing_and_one_without_the_service_is_named() {
    let mut objects = shop(EAST);
    assert_eq!(members(&objects).len(), 2);
    assert_eq!(warnings(&objects), Vec::<String>::new(), "it is a matter of a moment");
    let remote = remote(&objects);
    objects.remotes.set_service(&remote, None);
    assert_eq!(warnings(&objects), Vec::<String>::new(), "half of it");
    objects.remotes.replace_slices(&remote, BTreeMap::new());
    let said = warnings(&objects);
    let expected = "\"east\" is a cluster where \"web\" is not the name of a Service in namespace \"default\": create it there";
    assert!(said.len() == 1 && said[0].contains(expected), "{said:?}");
}

#[test]
fn without_a_service_here_the_others_serve_in_what_they_speak() {
    let h2c = "{ports: [{name: http, port: 80, appProtocol: kubernetes.io/h2c}]}";
    let mut objects = with(shop(EAST), h2c, THERE);
    let protocol = |objects: &Objects| world(objects, None).pools[&key("shop")].sets["web"].protocol;
    assert_eq!(protocol(&objects), weir_proto::push::UpstreamProtocol::Http1, "as here");
    let said = warnings(&objects);
    assert!(said.len() == 1 && said[0].contains("speaks another protocol than the set"), "{said:?}");
    objects.services.clear();
    assert_eq!(members(&objects), owned([("east/10.1.0.1:8080", 1), ("east/10.9.0.1:8080", 1)]));
    assert_eq!(protocol(&objects), weir_proto::push::UpstreamProtocol::Http2);
    let said = warnings(&objects);
    assert!(said.len() == 1 && said[0].ends_with("(the set has no backends of this cluster)"), "{said:?}");
}

#[test]
fn past_the_limit_of_a_set_the_backends_of_higher_priorities_are_left_out() {
    for (count, expected) in [(BACKENDS_PER_SET_MAX - 2, 0), (BACKENDS_PER_SET_MAX - 1, 1)] {
        let mut objects = with(shop(EAST), PORTS, THERE);
        let remote = remote(&objects);
        let mut slice = EndpointSlice::clone(&slice(THERE).1);
        let endpoint = |n: usize| k8s_openapi::api::discovery::v1::Endpoint {
            addresses: vec![
                std::net::Ipv4Addr::from(0x0a00_0000 + u32::try_from(n).expect("small")).to_string(),
            ],
            ..Default::default()
        };
        slice.endpoints = (0..count).map(endpoint).collect();
        objects.remotes.insert_slice(&remote, "web-1".to_owned(), Arc::new(slice));
        let members = members(&objects);
        assert_eq!((members.len(), warnings(&objects).len()), (BACKENDS_PER_SET_MAX, expected));
        let own = |id: &str| members.iter().any(|member| member.0 == id);
        assert_eq!(
            (own("10.1.0.1:8080"), own("10.1.0.2:8080")),
            (true, expected == 0),
            "the one that drains goes first"
        );
    }
}

#[test]
fn a_cluster_that_is_written_wrong_is_refused_with_its_field() {
    let many = |count: usize| {
        let one = |n: usize| format!("{{name: c{n}, kubeconfigRef: {{name: east}}}}");
        (0..count).map(one).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(world(&shop(&many(8)), None).rejections.len(), 0);
    for (clusters, sentence) in [
        (&*many(9), ": 9 entries are too many: use at most 8"),
        (&format!("{EAST}, {EAST}"), "[1].name: \"east\" is there twice"),
        ("{name: E, kubeconfigRef: {name: east}}", "[0].name: \"E\" is not a name"),
        (
            "{name: e, kubeconfigRef: {name: '..'}}",
            "[0].kubeconfigRef.name: \"..\" is not the name of an object",
        ),
        ("{name: e, kubeconfigRef: {name: e, key: a/b}}", "[0].kubeconfigRef.key: \"a/b\" is not a key"),
        (
            "{name: e, kubeconfigRef: {name: e}, priority: 16}",
            "[0].priority: 16 is out of range: use 0 to 15",
        ),
        ("{name: e, kubeconfigRef: {name: e}, namespace: A}", "[0].namespace: \"A\" is not a name"),
    ] {
        let refused = shown(world(&shop(clusters), None).rejections.values().flatten());
        let sentence = format!("spec.backendSets[0].service.clusters{sentence}");
        assert!(refused.len() == 1 && refused[0].contains(&sentence), "{refused:?}: {sentence}");
    }
}

#[test]
fn the_page_says_the_limits_of_other_clusters() {
    let page = include_str!("../../../../docs/endpoints.md");
    assert_eq!((weir_crds::pool::CLUSTERS_MAX, crate::cluster::REMOTES_MAX), (8, 64));
    assert_eq!(crate::cluster::REMOTES_WAIT, Duration::from_secs(5));
    assert_eq!(crate::cluster::kubeconfig::KUBECONFIG_BYTES_MAX, 64 << 10);
    for said in ["At most 8 for a set", "64 Services of other clusters", "64 KiB", "waits for them for 5 s"] {
        assert!(page.contains(said), "{said}");
    }
}

//! Sets that follow a name in DNS: written in the pool, or in a Service of type ExternalName.

use super::*;
use crate::dns::{Families, Lookup, REFRESH_DEFAULT, Resolution, Trouble, What};
use std::time::{Duration, SystemTime};

fn lookup(hostname: &str) -> Lookup {
    Lookup { hostname: hostname.into(), families: Families::default(), refresh: REFRESH_DEFAULT }
}

fn of_addresses(addresses: &[&str]) -> Resolution {
    let addresses = addresses.iter().map(|address| address.parse().expect("an address")).collect();
    Resolution { addresses, ..Resolution::default() }
}

fn in_trouble(what: What) -> Resolution {
    let since = SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000);
    Resolution { trouble: Some(Trouble { what, since }), ..Resolution::default() }
}

/// The shop with this source of its set `web`.
fn shop(source: &str) -> Objects {
    objects(&SHOP.replace("service: {name: web, port: http}", source))
}

/// The shop whose Service has this specification, at this port.
fn external(spec: &str, port: &str) -> Objects {
    let mut objects = shop(&format!("service: {{name: web, port: {port}}}"));
    let service = format!("metadata: {{name: web, namespace: default}}\nspec: {spec}");
    objects.services.insert(key("web"), Arc::new(yaml(&service)));
    objects
}

fn ids(world: &World) -> Vec<String> {
    backends(world, "web").into_iter().map(|backend| backend.0).collect()
}

fn names(world: &World) -> Vec<String> {
    world.names().iter().map(|lookup| lookup.hostname.to_string()).collect()
}

/// Tells the world what became known of a name.
fn learn(world: &mut World, objects: &mut Objects, lookup: &Lookup, resolution: Option<Resolution>) {
    objects.learn((lookup.clone(), resolution.map(Arc::new)));
    let touched = Touched { origins: [Origin::Name(lookup.clone())].into(), ..Touched::default() };
    world.update(objects, &touched);
}

#[test]
fn a_set_holds_the_addresses_of_its_name_at_its_port() {
    let mut objects = shop("dns: {hostname: db.example.com., port: 5432}");
    let mut following = world(&objects, None);
    assert_eq!(names(&following), ["db.example.com."]);
    assert_eq!((ids(&following), following.open().count()), (vec![], 1), "nobody has answered");
    assert_eq!(shown(following.warnings()), Vec::<String>::new());
    let db = lookup("db.example.com.");
    learn(&mut following, &mut objects, &db, Some(of_addresses(&["10.0.0.1", "fd00::1"])));
    assert_eq!(ids(&following), ["10.0.0.1:5432", "[fd00::1]:5432"]);
    assert_eq!(following.open().count(), 0);
    assert_eq!(following, world(&objects, Some(&following)));
}

#[test]
fn what_does_not_resolve_is_said_with_name_cause_time_and_advice() {
    let kept = |what| Resolution { addresses: of_addresses(&["10.0.0.1"]).addresses, ..in_trouble(what) };
    let open = |what| Resolution { is_open: true, ..in_trouble(what) };
    let forbidden =
        Resolution { forbidden: of_addresses(&["169.254.169.254"]).addresses, ..Resolution::default() };
    let failed = || What::Failed("answers SERVFAIL".to_owned());
    for (resolution, reason, parts) in [
        (
            in_trouble(What::NoSuchName),
            Reason::NameNotResolved,
            ["knows no such name (NXDOMAIN)", "answered 503"],
        ),
        (
            in_trouble(What::NoAddress),
            Reason::NameNotResolved,
            ["has no IPv4 or IPv6 address", "create its record"],
        ),
        (in_trouble(What::TooMany), Reason::NameNotResolved, ["more than 1000 names", "use fewer names"]),
        (
            kept(failed()),
            Reason::NameNotResolved,
            ["the DNS server answers SERVFAIL", "last good answer serves on, 1 of"],
        ),
        (
            open(What::Unanswered),
            Reason::NameNotResolved,
            ["no answer yet", "what was there before serves on"],
        ),
        (
            forbidden,
            Reason::InvalidEndpoints,
            ["never used (1: 169.254.169.254)", "correct the name's records"],
        ),
        (
            Resolution { excess: 1, ..of_addresses(&["10.0.0.1"]) },
            Reason::InvalidEndpoints,
            ["to 2 addresses", "256"],
        ),
    ] {
        let mut objects = shop("dns: {hostname: db.example.com., port: 5432}");
        objects.learn((lookup("db.example.com."), Some(Arc::new(resolution))));
        let world = world(&objects, None);
        let warning = world.warnings().next().expect("a warning");
        let said = warning.to_string();
        assert_eq!(warning.reason, reason, "{said}");
        assert!(said.contains("spec.backendSets[0].dns.hostname: \"db.example.com.\""), "{said}");
        assert!(parts.iter().all(|part| said.contains(part)), "{said}");
        if reason == Reason::NameNotResolved {
            assert!(said.contains("since 2026-09-21T14:13:20Z"), "{said}");
        }
    }
}

#[test]
fn a_service_of_type_external_name_is_its_name_at_the_port_that_the_pool_says() {
    const NAMED: &str = "{type: ExternalName, externalName: DB.example.com, ports: [{name: http, port: 8080}, {name: raw, port: 53, protocol: UDP}]}";
    for (spec, port, expected) in [
        (NAMED, "http", Ok("10.0.0.1:8080")),
        (NAMED, "8080", Ok("10.0.0.1:8080")),
        (NAMED, "9090", Ok("10.0.0.1:9090")),
        ("{type: ExternalName, externalName: db.example.com.}", "80", Ok("10.0.0.1:80")),
        (
            "{type: ExternalName, externalName: db.example.com}",
            "http",
            Err("use a number, or one of its ports"),
        ),
        (NAMED, "raw", Err("is not the name of a TCP port of Service default/web")),
        (
            "{type: ExternalName, externalName: 10.0.0.1}",
            "80",
            Err("its spec.externalName \"10.0.0.1\" is an IP address"),
        ),
        ("{type: ExternalName}", "80", Err("is not a name in DNS")),
    ] {
        let mut objects = external(spec, port);
        objects.learn((lookup("db.example.com."), Some(Arc::new(of_addresses(&["10.0.0.1"])))));
        let world = world(&objects, None);
        let said = shown(world.warnings());
        match expected {
            Ok(id) => assert_eq!((ids(&world), said), (vec![id.to_owned()], vec![]), "{spec} {port}"),
            Err(part) => {
                assert!(said.len() == 1 && said[0].contains(part), "{spec} {port}: {said:?}");
                assert_eq!((ids(&world), names(&world)), (vec![], vec![]));
            }
        }
    }
}

#[test]
fn the_application_protocol_of_an_external_name_counts_as_that_of_any_service() {
    for (protocol, expected) in [("kubernetes.io/h2c", 0), ("smtp", 1)] {
        let spec = format!(
            "{{type: ExternalName, externalName: a.b, ports: [{{port: 80, appProtocol: {protocol}}}]}}"
        );
        let mut objects = external(&spec, "80");
        objects.learn((lookup("a.b."), Some(Arc::new(of_addresses(&["10.0.0.1"])))));
        let world = world(&objects, None);
        let unspoken = world.warnings().filter(|warning| warning.reason == Reason::UnsupportedProtocol);
        assert_eq!(unspoken.count(), expected, "{protocol}");
        let set = &world.serving(&key("shop")).expect("served").sets["web"];
        let is_http2 = set.protocol == weir_proto::push::UpstreamProtocol::Http2;
        assert_eq!(is_http2, expected == 0, "{protocol}");
    }
}

#[test]
fn a_service_that_changes_its_name_is_followed_and_keeps_its_backends_until_the_new_name_is_known() {
    let spec = |name: &str| {
        format!("{{type: ExternalName, externalName: {name}, ports: [{{name: http, port: 80}}]}}")
    };
    let mut objects = external(&spec("a.example"), "http");
    let mut following = world(&objects, None);
    learn(&mut following, &mut objects, &lookup("a.example."), Some(of_addresses(&["10.0.0.1"])));
    let service = |objects: &mut Objects, following: &mut World, spec: String| {
        let service = format!("metadata: {{name: web, namespace: default}}\nspec: {spec}");
        objects.services.insert(key("web"), Arc::new(yaml(&service)));
        following.refresh(&Origin::Service(key("web")), objects);
    };
    service(&mut objects, &mut following, spec("b.example"));
    assert_eq!(names(&following), ["b.example."]);
    assert_eq!((ids(&following), following.open().count()), (vec!["10.0.0.1:80".to_owned()], 1));
    learn(&mut following, &mut objects, &lookup("a.example."), None);
    assert_eq!(ids(&following), ["10.0.0.1:80"]);
    let open = Resolution { is_open: true, ..in_trouble(What::Unanswered) };
    learn(&mut following, &mut objects, &lookup("b.example."), Some(open));
    assert_eq!(ids(&following), ["10.0.0.1:80"], "there may still be an answer");
    learn(&mut following, &mut objects, &lookup("b.example."), Some(in_trouble(What::Unanswered)));
    assert_eq!((ids(&following), following.open().count()), (vec![], 0), "it is not waited for without end");
    learn(&mut following, &mut objects, &lookup("b.example."), Some(of_addresses(&["10.0.0.2"])));
    assert_eq!(ids(&following), ["10.0.0.2:80"]);
    service(&mut objects, &mut following, "{ports: [{name: http, port: 80}]}".to_owned());
    assert_eq!(names(&following), Vec::<String>::new());
    assert_eq!(ids(&following), ["10.1.0.1:8080", "10.1.0.2:8080"], "those of its slices");
}

#[test]
fn an_edit_from_a_service_to_a_name_keeps_the_endpoints_of_now_and_not_those_that_are_forbidden() {
    let mut objects = shop("service: {name: web, port: http}");
    let before = world(&objects, None);
    let had = ids(&before);
    assert!(!had.is_empty());
    let dns = shop("dns: {hostname: db.example.com., port: 5432}");
    objects.pools = dns.pools;
    assert_eq!(ids(&world(&objects, Some(&before))), had);
    objects.services.remove(&key("web"));
    assert_eq!(ids(&world(&objects, Some(&before))), Vec::<String>::new());
}

#[test]
fn sets_that_want_the_same_share_a_lookup_and_others_do_not() {
    let two = "dns: {hostname: a.example, port: 80}}\n    - {name: again, dns: {hostname: a.example, port: 81}}\n    \
               - {name: other, dns: {hostname: a.example, port: 80, families: [IPv6], maxRefresh: 1m}";
    let objects = shop(two);
    let world = world(&objects, None);
    assert_eq!(world.rejections, [].into());
    assert_eq!(names(&world), ["a.example", "a.example"]);
    let ipv6 = world.names().iter().find(|lookup| lookup.families == Families::Ipv6).expect("its own");
    assert_eq!(ipv6.refresh.max, Duration::from_secs(60));
}

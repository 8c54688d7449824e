//! Pools that want one port and host.

use super::*;

fn claimant(name: &str, created: &str, listener: &str) -> LoadBalancerPool {
    yaml(&format!(
        "apiVersion: weir.dev/v1alpha1\nkind: LoadBalancerPool\nmetadata: {{name: {name}, creationTimestamp: {created}}}\n\
         spec: {{listeners: [{listener}], backendSets: [{{name: s, static: {{backends: []}}}}]}}"
    ))
}

#[test]
fn the_older_then_the_smaller_name_gets_a_port_and_host() {
    const OLD: &str = "2026-01-01T00:00:00Z";
    const NEW: &str = "2026-02-01T00:00:00Z";
    let http = "{name: l, port: 80, protocol: HTTP}";
    let shop = "{name: l, port: 80, protocol: HTTP, hostnames: [a.b, shop]}";
    let api = "{name: l, port: 80, protocol: HTTP, hostnames: [api]}";
    let shop_too = "{name: l, port: 80, protocol: HTTP, hostnames: [c, shop]}";
    let star = "{name: l, port: 80, protocol: HTTP, hostnames: ['*.b']}";
    let https =
        "{name: l, port: 80, protocol: HTTPS, hostnames: [x], tls: {certificateRefs: [{name: none}]}}";
    let elsewhere = "{name: l, port: 81, protocol: HTTP}";
    let conflict = |value: &str| {
        Some(format!(
            "spec.listeners[0].hostnames: {value} is claimed on port 80 by LoadBalancerPool default/"
        ))
    };
    let protocol =
        Some("spec.listeners[0].port: 80 speaks another protocol in LoadBalancerPool default/".to_owned());
    let cases = [
        ((OLD, http), (NEW, http), Some("b"), conflict("every host")),
        ((NEW, http), (OLD, http), Some("a"), conflict("every host")),
        ((OLD, http), (OLD, http), Some("b"), conflict("every host")),
        (("null", http), ("null", http), Some("b"), conflict("every host")),
        (("null", http), (NEW, http), Some("a"), conflict("every host")),
        ((OLD, shop), (NEW, shop_too), Some("b"), conflict("\"shop\"")),
        ((OLD, shop), (NEW, https), Some("b"), protocol),
        ((OLD, shop), (NEW, api), None, None),
        ((OLD, shop), (NEW, star), None, None),
        ((OLD, shop), (NEW, http), None, None),
        ((OLD, http), (NEW, elsewhere), None, None),
    ];
    for (index, (a, b, loser, expected)) in cases.into_iter().enumerate() {
        let mut objects = Objects::default();
        for (name, (created, listener)) in [("a", a), ("b", b)] {
            objects.pools.insert(key(name), Arc::new(claimant(name, created, listener)));
        }
        let world = world(&objects, None);
        let refused: Vec<_> = world.rejections.keys().map(|key| key.name.as_str()).collect();
        assert_eq!(refused, loser.into_iter().collect::<Vec<_>>(), "case {index}");
        for rejection in world.rejections.values().flatten() {
            let winner = if rejection.pool.name == "a" { "b" } else { "a" };
            let expected = format!(
                "default/{}: {}{winner}",
                rejection.pool.name,
                expected.as_deref().unwrap_or_default()
            );
            assert_eq!(rejection.reason, Reason::Conflicted);
            assert!(rejection.to_string().starts_with(&expected), "case {index}: {rejection}");
        }
    }
}

#[test]
fn what_an_older_pool_says_of_a_port_holds_and_the_younger_one_is_told() {
    const OLD: &str = "2026-01-01T00:00:00Z";
    const NEW: &str = "2026-02-01T00:00:00Z";
    let listener = |host: &str, rest: &str| {
        format!("{{name: l, port: 80, protocol: HTTP, hostnames: [{host}, {host}.b]{rest}}}")
    };
    let limits = ", limits: {uriBytes: 2000}";
    let all = ", limits: {}, paths: {}, proxyProtocol: {trustedCIDRs: [10.0.0.0/8]}";
    let said = |fields: &[&str]| -> Vec<String> {
        let said = |field: &&str| {
            format!(
                "default/b: spec.listeners[0].{field}: does not hold: pools share port 80, and what LoadBalancerPool \
                 default/a says of it, which is older or has the smaller name, holds for all"
            )
        };
        fields.iter().map(said).collect()
    };
    for (index, (of_a, of_b, expected)) in [
        (limits, limits, said(&["limits"])),
        (limits, "", said(&[])),
        ("", limits, said(&[])),
        (limits, ", paths: {}", said(&[])),
        (all, all, said(&["limits", "paths", "proxyProtocol"])),
    ]
    .into_iter()
    .enumerate()
    {
        let mut objects = Objects::default();
        for (name, created, rest) in [("a", OLD, of_a), ("b", NEW, of_b)] {
            objects.pools.insert(key(name), Arc::new(claimant(name, created, &listener(name, rest))));
        }
        let world = world(&objects, None);
        assert_eq!(world.rejections.len(), 0, "case {index}");
        assert_eq!(world.warnings().map(ToString::to_string).collect::<Vec<_>>(), expected, "case {index}");
    }
}

#[test]
fn pools_that_no_proxy_serves_both_of_do_not_conflict() {
    let served = |data_plane: &str, listener: &str| -> LoadBalancerPool {
        yaml(&format!(
            "apiVersion: weir.dev/v1alpha1\nkind: LoadBalancerPool\nmetadata: {{name: p}}\n\
             spec: {{dataPlane: {data_plane}, listeners: [{listener}], backendSets: [{{name: s, static: {{backends: []}}}}]}}"
        ))
    };
    let http = "{name: l, port: 80, protocol: HTTP}";
    let https = "{name: l, port: 80, protocol: HTTPS, tls: {certificateRefs: [{name: none}]}}";
    let label = |value: &str| format!("{{selector: {{matchLabels: {{app: {value}}}}}}}");
    let (edge, default) = ("{className: edge}".to_owned(), "{className: default}".to_owned());
    let (web, api, none) = (label("web"), label("api"), "{}".to_owned());
    for (a, b, refused) in [
        ((&edge, http), (&edge, http), true),
        ((&edge, http), (&default, http), false),
        ((&edge, http), (&default, https), false),
        ((&none, http), (&default, http), true),
        ((&none, http), (&default, https), true),
        ((&web, http), (&api, http), false),
        ((&web, http), (&api, https), false),
        ((&web, http), (&none, http), true),
        ((&web, http), (&none, https), true),
    ] {
        let mut objects = Objects::default();
        // Another namespace does not part them: a gateway may serve both.
        for (namespace, (data_plane, listener)) in [("x", a), ("y", b)] {
            let key = ObjectKey::new(namespace, "p");
            objects.pools.insert(key, Arc::new(served(data_plane, listener)));
        }
        let world = world(&objects, None);
        let losers: Vec<_> = world.rejections.keys().map(|key| key.namespace.as_str()).collect();
        assert_eq!(losers, if refused { vec!["y"] } else { vec![] }, "{a:?} {b:?}");
    }
    let mut objects = Objects::default();
    for (name, data_plane) in [("a", &web), ("b", &api), ("c", &none)] {
        objects.pools.insert(key(name), Arc::new(served(data_plane, http)));
    }
    let refused = shown(world(&objects, None).rejections.values().flatten());
    assert!(
        refused.len() == 1
            && refused[0].contains("default/c: ")
            && refused[0].contains("LoadBalancerPool default/a"),
        "{refused:?}"
    );
}

#[test]
fn a_pool_that_serves_on_keeps_its_claims() {
    let mut objects = Objects::default();
    let http = "{name: l, port: 80, protocol: HTTP}";
    objects.pools.insert(key("a"), Arc::new(claimant("a", "null", http)));
    let good = world(&objects, None);
    objects.pools.insert(key("a"), Arc::new(claimant("a", "null", "{name: L, port: 80, protocol: HTTP}")));
    objects.pools.insert(key("b"), Arc::new(claimant("b", "null", http)));
    let world = world(&objects, Some(&good));
    assert_eq!(world.rejections[&key("b")][0].reason, Reason::Conflicted);
    assert!(world.pools.is_empty() && world.last_good.contains_key(&key("a")));
}

#[test]
fn a_rule_s_host_is_claimed_like_a_listener_s() {
    let pool = |name: &str, hosts: &str, rule: &str| -> LoadBalancerPool {
        yaml(&format!(
            "apiVersion: weir.dev/v1alpha1\nkind: LoadBalancerPool\nmetadata: {{name: {name}}}\n\
             spec: {{listeners: [{{name: l, port: 80, protocol: HTTP, hostnames: {hosts}}}], \
             rules: [{{backendSets: [{{name: s}}]}}, {{hostnames: {rule}, backendSets: [{{name: s}}]}}], \
             backendSets: [{{name: s, static: {{backends: []}}}}]}}"
        ))
    };
    let conflict =
        |field: &str| format!("default/b: {field}.hostnames: \"shop.org\" is claimed on port 80 by");
    let (rule, listener) = (conflict("spec.rules[1]"), conflict("spec.listeners[0]"));
    for (a, b, expected) in [
        (("[shop.org]", "[]"), ("[]", "[shop.org]"), Some(&rule)),
        (("[]", "[shop.org]"), ("[shop.org]", "[]"), Some(&listener)),
        (("['*.org']", "[x.org, shop.org]"), ("[shop.org]", "[shop.org]"), Some(&listener)),
        (("['*.org']", "[shop.org]"), ("[]", "[a, shop.org]"), Some(&rule)),
        // No request for that host ever comes to that rule.
        (("[x.org]", "[shop.org]"), ("[shop.org]", "[]"), None),
        (("['*.org']", "[org]"), ("[org]", "[shop.org]"), None),
        (("['*.org']", "[]"), ("[]", "[shop.org]"), None),
    ] {
        let mut objects = Objects::default();
        objects.pools.insert(key("a"), Arc::new(pool("a", a.0, a.1)));
        objects.pools.insert(key("b"), Arc::new(pool("b", b.0, b.1)));
        let refused = shown(world(&objects, None).rejections.values().flatten());
        assert_eq!(refused.len(), usize::from(expected.is_some()), "{a:?} {b:?}: {refused:?}");
        assert!(
            refused.iter().zip(expected).all(|(refused, expected)| refused.starts_with(expected)),
            "{refused:?}"
        );
    }
}

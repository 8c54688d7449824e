//! Listeners of layer 4 and the rules that serve them: what they compile to, and each wrong mix with field and sentence.

use super::*;
use weir_proto::push::{self, PoolConfig};

/// A pool with listeners `web` (HTTP) and `db` (TCP); `spec` has rules, and what else there is.
fn pool(db: &str, spec: &str) -> String {
    format!(
        "apiVersion: weir.dev/v1alpha1\nkind: LoadBalancerPool\nmetadata: {{name: shop}}\nspec: {{listeners: [{{name: web, \
         port: 80, protocol: HTTP}}, {{name: db, port: 5432, protocol: TCP{db}}}], backendSets: [{{name: a, static: \
         {{backends: []}}}}, {{name: b, static: {{backends: []}}}}], {spec}}}"
    )
}

fn compiled(pool: &str) -> Result<PoolConfig, Vec<String>> {
    let world = world(&objects(pool), None);
    match world.pools.get(&key("shop")) {
        Some(pool) => Ok(PoolConfig::clone(&pool.config)),
        None => Err(shown(world.rejections.values().flatten())),
    }
}

fn refused(db: &str, spec: &str) -> Vec<String> {
    compiled(&pool(db, spec)).expect_err(spec)
}

#[test]
fn a_rule_serves_the_listeners_that_it_names_and_connections_have_their_time() {
    let rules = "rules: [{listeners: [web], matches: [{path: {value: /a}}], backendSets: [{name: a}]}, {listeners: [db], \
                 timeouts: {connectionIdle: 2h}, sessionPersistence: {type: SourceIP}, retry: {attempts: 1}, \
                 ipRules: {allow: [10.0.0.0/8]}, rateLimits: [], backendSets: [{name: a, weight: 3}, {name: b}]}]";
    let config =
        compiled(&pool(", limits: {connections: 9, connectionsPerSource: 3}", rules)).expect("right");
    assert_eq!(config.listeners[1].protocol(), push::Protocol::Tcp);
    assert_eq!(config.listeners[1].limits.map(|own| own.connections_max), Some(9));
    let [http, tcp] = config.rules.as_slice() else { panic!("two rules") };
    assert_eq!(
        (http.listeners.as_slice(), tcp.listeners.as_slice()),
        (&["web".into()][..], &["db".into()][..])
    );
    assert_eq!((http.connection_idle_timeout_ms, tcp.connection_idle_timeout_ms), (0, 7_200_000));
    let of_both = compiled(&pool("", "rules: [{backendSets: [{name: a}]}]")).expect("one rule for both");
    assert_eq!(
        (of_both.rules[0].listeners.len(), of_both.rules[0].connection_idle_timeout_ms),
        (0, 3_600_000)
    );
    let of_pool = "timeouts: {connectionIdle: 1s}, rules: [{backendSets: [{name: a}]}]";
    let of_pool = compiled(&pool("", of_pool)).expect("the least");
    assert_eq!(of_pool.rules[0].connection_idle_timeout_ms, 1_000);
}

#[test]
fn a_listener_of_tcp_has_nothing_that_is_of_http() {
    for (db, expected) in [
        (", tls: {certificateRefs: [{name: c}]}", "spec.listeners[1].tls: is not for protocol TCP"),
        (
            ", hostnames: [a.example]",
            "spec.listeners[1].hostnames: is not for protocol TCP, where bytes are passed on",
        ),
        (
            ", clientAddress: {trustedCIDRs: [10.0.0.0/8]}",
            "spec.listeners[1].clientAddress: is not for protocol TCP",
        ),
        (", httpsRedirect: {}", "spec.listeners[1].httpsRedirect: is not for protocol TCP"),
        (", hsts: {maxAge: 1h}", "spec.listeners[1].hsts: is not for protocol TCP"),
        (", paths: {}", "spec.listeners[1].paths: is not for protocol TCP"),
        (", limits: {uriBytes: 100}", "spec.listeners[1].limits.uriBytes: is not for protocol TCP"),
        (", limits: {idleTimeout: 1s}", "spec.listeners[1].limits.idleTimeout: is not for protocol TCP"),
        (
            ", limits: {handshakesAtOnce: 1}",
            "spec.listeners[1].limits.handshakesAtOnce: is not for protocol TCP",
        ),
    ] {
        let refused = refused(db, "rules: [{backendSets: [{name: a}]}]");
        assert!(refused.len() == 1 && refused[0].contains(expected), "{db}: {refused:?}");
    }
}

#[test]
fn what_is_of_requests_is_refused_in_a_rule_that_serves_tcp() {
    let of_requests = "is of requests, and the rule serves listener \"db\" with protocol TCP: remove it, or name the \
                       listeners of HTTP in spec.rules[0].listeners";
    for (rule, field) in [
        ("matches: [{path: {value: /}}]", "matches"),
        ("filters: [{type: CORS, cors: {allowOrigins: ['*']}}]", "filters"),
        ("limits: {requestBodyBytes: 1}", "limits"),
        ("rateLimits: [{name: a, requests: 1, period: 1s, key: {type: Route}}]", "rateLimits"),
        ("timeouts: {request: 1s}", "timeouts.request"),
        ("timeouts: {backendRequest: 1s}", "timeouts.backendRequest"),
        ("timeouts: {idle: 1s}", "timeouts.idle"),
        ("timeouts: {total: 1s}", "timeouts.total"),
        ("retry: {codes: [503]}", "retry.codes"),
        ("retry: {hedgeAfter: 1s}", "retry.hedgeAfter"),
    ] {
        let refused = refused("", &format!("rules: [{{{rule}, backendSets: [{{name: a}}]}}]"));
        let expected = format!("spec.rules[0].{field}: {of_requests}");
        assert!(refused.len() == 1 && refused[0].contains(&expected), "{rule}: {refused:?}");
        // The same is right for the listener of HTTP.
        let rules = format!("rules: [{{listeners: [web], {rule}, backendSets: [{{name: a}}]}}]");
        assert!(compiled(&pool("", &rules)).is_ok(), "{rule}");
    }
}

#[test]
fn what_else_cannot_be_for_tcp_is_refused_with_its_own_sentence() {
    let rules = "rules: [{backendSets: [{name: a}]}]";
    for (spec, expected) in [
        (
            "rules: [{hostnames: [a.example], backendSets: [{name: a}]}]".to_owned(),
            "spec.rules[0].hostnames: is not for listener \"db\" with protocol TCP, which the rule serves and whose clients \
             name none",
        ),
        (
            "rules: [{listeners: [nobody], backendSets: [{name: a}]}]".to_owned(),
            "spec.rules[0].listeners[0]: \"nobody\" is not a name in spec.listeners",
        ),
        (
            "rules: [{listeners: [db, db], backendSets: [{name: a}]}]".to_owned(),
            "spec.rules[0].listeners[1]: \"db\" is there twice",
        ),
        (
            "rules: [{backendSets: [{name: a}]}, {listeners: [db], backendSets: [{name: b}]}]".to_owned(),
            "spec.rules[1].listeners: serves listener \"db\" with protocol TCP, as spec.rules[0] does",
        ),
        (
            "rules: [{listeners: [web], timeouts: {connectionIdle: 1h}, backendSets: [{name: a}]}]"
                .to_owned(),
            "spec.rules[0].timeouts.connectionIdle: is for rules that serve a listener with protocol TCP",
        ),
        (
            "rules: [{timeouts: {connectionIdle: 999ms}, backendSets: [{name: a}]}]".to_owned(),
            "spec.rules[0].timeouts.connectionIdle: 999ms is out of range: use 1s to 168h",
        ),
        (
            format!("timeouts: {{connectionIdle: 168h1s}}, {rules}"),
            "spec.timeouts.connectionIdle: 168h1s is out of range",
        ),
        (
            "rules: [{sessionPersistence: {type: Cookie}, backendSets: [{name: a}]}]".to_owned(),
            "spec.rules[0].sessionPersistence.type: Cookie is of requests, and the rule serves listener \"db\"",
        ),
        (
            format!("sessionPersistence: {{}}, {rules}"),
            "spec.rules[0].sessionPersistence: is missing, and that of the pool is of requests",
        ),
        (
            format!("rateLimits: [{{name: a, requests: 1, period: 1s, key: {{type: Route}}}}], {rules}"),
            "spec.rules[0].rateLimits: is missing, and spec.rateLimits counts requests",
        ),
        (
            "rules: [{backendSets: [{name: a, matches: [{type: Header, name: x}]}]}]".to_owned(),
            "spec.rules[0].backendSets[0].matches: is of requests",
        ),
        (
            format!("loadBalancing: {{algorithm: ConsistentHash, consistentHash: {{key: Host}}}}, {rules}"),
            "spec.backendSets[0]: hashes Host of a request, and spec.rules[0] sends it the connections of listener",
        ),
        (
            format!("circuitBreaker: {{fallback: {{response: {{}}}}}}, {rules}"),
            "spec.backendSets[0]: has a fallback that is an answer of HTTP",
        ),
    ] {
        let refused = refused("", &spec);
        assert!(refused.len() == 1 && refused[0].contains(expected), "{spec}: {refused:?}");
    }
}

#[test]
fn a_rule_names_at_most_so_many_listeners() {
    let many = |count: usize| {
        let names: Vec<_> = (0..count).map(|nth| format!("l{nth}")).collect();
        let own = names
            .iter()
            .enumerate()
            .map(|(nth, name)| format!("{{name: {name}, port: {}, protocol: HTTP}}", 1_000 + nth));
        let own: Vec<_> = own.collect();
        let rules = format!("rules: [{{listeners: [{}], backendSets: [{{name: a}}]}}]", names.join(", "));
        let text = pool("", &rules);
        compiled(
            &text.replace("listeners: [{name: web", &format!("listeners: [{}, {{name: web", own.join(", "))),
        )
    };
    assert!(many(16).is_ok());
    assert!(many(17).is_err_and(|refused| refused[0].contains("17 entries are too many: use at most 16")));
}

#[test]
fn a_set_that_only_tcp_uses_keeps_no_connection_warm() {
    let warm = "connectionPool: {minWarmPerBackend: 2}";
    let of = |rules: &str| compiled(&pool("", &format!("{warm}, rules: [{rules}]"))).expect("right");
    let kept = |config: &PoolConfig| -> Vec<u32> {
        config.backend_sets.iter().map(|set| set.connections.map_or(0, |own| own.warm_min)).collect()
    };
    let apart = "{listeners: [web], backendSets: [{name: a}]}, {listeners: [db], backendSets: [{name: b}]}";
    assert_eq!(kept(&of(apart)), [2, 0]);
    assert_eq!(kept(&of("{backendSets: [{name: a}]}")), [2, 2], "requests use it too, or nobody does");
    let own = pool("", &format!("rules: [{apart}]"))
        .replace("{name: b, static", &format!("{{name: b, {warm}, static"));
    let refused = compiled(&own).expect_err("shown to nobody");
    assert!(refused[0].contains("spec.backendSets[1].connectionPool.minWarmPerBackend"), "{refused:?}");
}

#[test]
fn a_port_of_tcp_conflicts_with_every_other_protocol_of_other_pools() {
    let mut objects = objects(&pool("", "rules: [{listeners: [web], backendSets: [{name: a}]}]"));
    let other = "apiVersion: weir.dev/v1alpha1\nkind: LoadBalancerPool\nmetadata: {name: zed}\nspec: {listeners: [{name: x, \
                 port: 5432, protocol: HTTP, hostnames: [a.example]}], backendSets: [{name: a, static: {backends: []}}]}";
    let other: LoadBalancerPool = yaml(other);
    objects.pools.insert(key("zed"), Arc::new(other));
    let world = world(&objects, None);
    let refused = shown(world.rejections.values().flatten());
    assert!(
        refused.len() == 1
            && refused[0].contains("default/zed: spec.listeners[0].port: 5432 speaks another protocol")
    );
}

/// A pool with the listener `tls` of protocol TLS.
fn of_tls(tls: &str, listener: &str, rule: &str, set: &str) -> Result<PoolConfig, Vec<String>> {
    compiled(&format!(
        "apiVersion: weir.dev/v1alpha1\nkind: LoadBalancerPool\nmetadata: {{name: shop}}\nspec: {{listeners: [{{name: tls, \
         port: 443, protocol: TLS, tls: {{{tls}}}{listener}}}], rules: [{{backendSets: [{{name: a}}]{rule}}}], \
         backendSets: [{{name: a, static: {{backends: []}}{set}}}]}}"
    ))
}

#[test]
fn tls_is_ended_or_passed_on_by_the_names_that_rules_have() {
    let named = ", hostnames: ['*.example']";
    let passed = of_tls("mode: Passthrough", named, ", hostnames: [a.example]", "").expect("right");
    let listener = &passed.listeners[0];
    assert_eq!((listener.protocol(), &listener.tls), (push::Protocol::TlsPassthrough, &None));
    assert_eq!(
        (listener.hostnames.as_slice(), passed.rules[0].hostnames.as_slice()),
        (&["*.example".into()][..], &["a.example".into()][..])
    );
    assert_eq!(passed.rules[0].connection_idle_timeout_ms, 3_600_000);
    for tls in ["certificateRefs: [{name: shop-tls}]", "mode: Terminate, certificateRefs: [{name: shop-tls}]"]
    {
        let ended = of_tls(
            tls,
            ", limits: {handshakesAtOnce: 9}",
            "",
            ", tls: {hostname: a.example, wellKnownCACertificates: System}",
        );
        let listener = ended.expect(tls).listeners.remove(0);
        assert_eq!(listener.protocol(), push::Protocol::Tls);
        assert_eq!(listener.tls.map(|tls| tls.certificates.len()), Some(1));
    }
}

#[test]
fn what_cannot_be_for_tls_is_refused_with_field_and_sentence() {
    let (passed, own) = ("mode: Passthrough", "certificateRefs: [{name: shop-tls}]");
    for (tls, listener, rule, set, expected) in [
        ("", "", "", "", "spec.listeners[0].tls.certificateRefs: is empty"),
        (
            "mode: Passthrough, certificateRefs: [{name: shop-tls}]",
            "",
            "",
            "",
            "tls.certificateRefs: is not for mode Passthrough",
        ),
        ("mode: Passthrough, minVersion: '1.3'", "", "", "", "tls.minVersion: is not for mode Passthrough"),
        (
            "mode: Passthrough, cipherPolicy: Modern",
            "",
            "",
            "",
            "tls.cipherPolicy: is not for mode Passthrough",
        ),
        (passed, ", paths: {}", "", "", "spec.listeners[0].paths: is not for protocol TLS"),
        (
            passed,
            ", clientAddress: {trustedCIDRs: [10.0.0.0/8]}",
            "",
            "",
            "clientAddress: is not for protocol TLS",
        ),
        (own, ", limits: {headTimeout: 1s}", "", "", "limits.headTimeout: is not for protocol TLS"),
        (
            own,
            "",
            ", matches: [{path: {value: /}}]",
            "",
            "spec.rules[0].matches: is of requests, and the rule serves listener \"tls\"",
        ),
        (
            passed,
            "",
            "",
            ", tls: {hostname: a.example, wellKnownCACertificates: System}",
            "spec.backendSets[0].tls: secures what is secured already",
        ),
    ] {
        let refused = of_tls(tls, listener, rule, set).expect_err(expected);
        assert!(
            refused.len() == 1 && refused[0].contains(expected),
            "{tls}{listener}{rule}{set}: {refused:?}"
        );
    }
    let refused = compiled(
        &pool("", "rules: []").replace("protocol: HTTP}", "protocol: HTTPS, tls: {mode: Passthrough}}"),
    );
    let refused = refused.expect_err("not of HTTPS");
    assert!(
        refused[0].contains("spec.listeners[0].tls.mode: Passthrough is for protocol TLS"),
        "{refused:?}"
    );
}

/// A pool with the listener `dns` of protocol UDP, and one of TCP with its port.
fn of_udp(listener: &str, rule: &str, set: &str, spec: &str) -> Result<PoolConfig, Vec<String>> {
    compiled(&format!(
        "apiVersion: weir.dev/v1alpha1\nkind: LoadBalancerPool\nmetadata: {{name: shop}}\nspec: {{{spec} listeners: [{{name: dns, \
         port: 53, protocol: UDP{listener}}}, {{name: tcp, port: 53, protocol: TCP}}], rules: [{{listeners: [dns], \
         backendSets: [{{name: a}}]{rule}}}, {{listeners: [tcp], backendSets: [{{name: b}}]}}], backendSets: [{{name: a, \
         static: {{backends: []}}{set}}}, {{name: b, static: {{backends: []}}}}]}}"
    ))
}

#[test]
fn udp_is_balanced_by_source_unless_somebody_chooses_and_flows_have_their_time() {
    let of = |set: &str, spec: &str| of_udp("", "", set, spec).expect("right");
    let config = of("", "loadBalancing: {slowStart: {window: 1m}},");
    let [a, b] = config.backend_sets.as_slice() else { panic!("two sets") };
    assert_eq!(
        (a.algorithm(), b.algorithm()),
        (push::Algorithm::ConsistentHash, push::Algorithm::LeastRequest)
    );
    let hash = a.consistent_hash.clone().expect("a key");
    assert_eq!((hash.key(), hash.max_load_percent, a.slow_start), (push::HashKey::SourceIp, 0, None));
    let idle = |config: &PoolConfig| {
        (config.rules[0].flow_idle_timeout_ms, config.rules[0].connection_idle_timeout_ms)
    };
    assert_eq!((idle(&config), config.rules[1].flow_idle_timeout_ms), ((30_000, 0), 0));
    let chosen = of(", loadBalancing: {algorithm: LeastRequest}", "timeouts: {flowIdle: 5s},");
    assert_eq!(
        (chosen.backend_sets[0].algorithm(), idle(&chosen)),
        (push::Algorithm::LeastRequest, (5_000, 0))
    );
    let of_pool = of("", "loadBalancing: {algorithm: RoundRobin},");
    assert_eq!(of_pool.backend_sets[0].algorithm(), push::Algorithm::RoundRobin);
}

#[test]
fn what_cannot_be_for_udp_is_refused_with_field_and_sentence() {
    for (listener, rule, set, spec, expected) in [
        (
            ", proxyProtocol: {trustedCIDRs: [10.0.0.0/8]}",
            "",
            "",
            "",
            "spec.listeners[0].proxyProtocol: is not for protocol UDP",
        ),
        (", hostnames: [a.example]", "", "", "", "spec.listeners[0].hostnames: is not for protocol UDP"),
        (", tls: {mode: Passthrough}", "", "", "", "spec.listeners[0].tls: is not for protocol UDP"),
        (
            "",
            ", hostnames: [a.example]",
            "",
            "",
            "spec.rules[0].hostnames: is not for listener \"dns\" with protocol UDP",
        ),
        (
            "",
            ", timeouts: {connectionIdle: 1h}",
            "",
            "",
            "timeouts.connectionIdle: is for rules that serve a listener with protocol TCP or TLS",
        ),
        (
            "",
            ", timeouts: {flowIdle: 61m}",
            "",
            "",
            "spec.rules[0].timeouts.flowIdle: 1h1m is out of range: use 1s to 1h",
        ),
        ("", "", "", "timeouts: {flowIdle: 1ms},", "spec.timeouts.flowIdle: 1ms is out of range"),
        (
            "",
            "",
            ", tls: {hostname: a.example, wellKnownCACertificates: System}",
            "",
            "spec.backendSets[0].tls: is of connections",
        ),
        ("", "", ", proxyProtocol: V2", "", "spec.backendSets[0].proxyProtocol: is of connections"),
    ] {
        let refused = of_udp(listener, rule, set, spec).expect_err(expected);
        assert!(
            refused.len() == 1 && refused[0].contains(expected),
            "{listener}{rule}{set}{spec}: {refused:?}"
        );
    }
    let flow = compiled(&pool("", "rules: [{timeouts: {flowIdle: 1s}, backendSets: [{name: a}]}]"))
        .expect_err("no flows");
    assert!(
        flow[0].contains(
            "spec.rules[0].timeouts.flowIdle: is for rules that serve a listener with protocol UDP"
        )
    );
}

#[test]
fn a_service_is_followed_by_its_port_of_udp_where_a_set_is_sent_datagrams() {
    let text = |rule: &str| {
        format!(
            "apiVersion: weir.dev/v1alpha1\nkind: LoadBalancerPool\nmetadata: {{name: shop}}\nspec: {{listeners: [{{name: dns, \
             port: 53, protocol: UDP}}, {{name: tcp, port: 53, protocol: TCP}}], rules: [{{{rule}backendSets: [{{name: a}}]}}], \
             backendSets: [{{name: a, service: {{name: web, port: dns}}}}]}}"
        )
    };
    let mut objects = objects(&text("listeners: [dns], "));
    let (name, own) = slice(&WEB_1.replace(
        "{name: metrics, port: 9090}",
        "{name: dns, port: 5353, protocol: UDP}, {name: dns, port: 1, protocol: TCP}",
    ));
    objects.insert_slice(name, own);
    let world = world(&objects, None);
    let ids: Vec<_> = backends(&world, "a").into_iter().map(|(id, ..)| id).collect();
    assert_eq!(ids, ["10.1.0.1:5353", "10.1.0.2:5353"], "{:?}", shown(world.warnings()));
    let refused = compiled(&text("")).expect_err("of both");
    assert!(
        refused[0].contains("spec.backendSets[0]: is sent datagrams by spec.rules[0], and connections too"),
        "{refused:?}"
    );
}

#[test]
fn pods_are_sent_datagrams_at_the_port_of_udp_that_has_the_name() {
    let text = |protocol: &str| {
        format!(
            "apiVersion: weir.dev/v1alpha1\nkind: LoadBalancerPool\nmetadata: {{name: shop}}\nspec: {{listeners: [{{name: dns, \
             port: 53, protocol: {protocol}}}], rules: [{{backendSets: [{{name: a}}]}}], \
             backendSets: [{{name: a, endpointSelector: {{matchLabels: {{app: dns}}, port: dns}}}}]}}"
        )
    };
    let with_ports = |protocol: &str, ports: &str| {
        let mut objects = objects(&text(protocol));
        let selector = selectors_of(&objects.pools[&key("shop")]).pop_first().expect("it names one");
        let pod: k8s_openapi::api::core::v1::Pod = yaml(&format!(
            "apiVersion: v1\nkind: Pod\nspec: {{containers: [{{name: main, ports: {ports}}}]}}\nstatus: {{phase: Running, \
             podIPs: [{{ip: 10.1.0.1}}], conditions: [{{type: Ready, status: 'True'}}]}}"
        ));
        let pods = [("pod".to_owned(), Arc::new(SelectedPod::of(&pod)))];
        objects.pods.replace(&selector, pods.into());
        world(&objects, None)
    };
    let [udp, tcp, sctp] = [("UDP", 5301), ("TCP", 5302), ("SCTP", 5303)]
        .map(|(protocol, number)| format!("{{name: dns, containerPort: {number}, protocol: {protocol}}}"));
    for (protocol, ports, expected) in [
        ("UDP", format!("[{tcp}, {sctp}, {udp}]"), Some("10.1.0.1:5301")),
        ("TCP", format!("[{sctp}, {udp}, {tcp}]"), Some("10.1.0.1:5302")),
        ("UDP", format!("[{tcp}, {sctp}]"), None),
    ] {
        let world = with_ports(protocol, &ports);
        let ids: Vec<_> = backends(&world, "a").into_iter().map(|(id, ..)| id).collect();
        assert_eq!(ids, Vec::from_iter(expected.map(str::to_owned)), "{protocol} {ports}");
        let said = shown(world.warnings());
        assert_eq!(said.len(), usize::from(expected.is_none()), "{said:?}");
        let rule =
            "spec.backendSets[0].endpointSelector.port: \"dns\" is the name of no UDP port of the pods";
        assert!(said.iter().all(|said| said.contains(rule)), "{said:?}");
    }
}

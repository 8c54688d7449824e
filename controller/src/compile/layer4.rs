//! Layer 4: which rules serve which listeners, and what cannot be said of connections whose bytes nobody reads.
//!
//! What the pool says for all of its rules counts for these too, so that it has to be possible for them, or the rule has to
//! say otherwise. Only what is about single requests (`spec.limits`, the time-outs of requests) says nothing of them.

use super::check::{Check, quoted};
use std::collections::BTreeSet;
use weir_crds::LoadBalancerPoolSpec;
use weir_crds::pool as spec;
use weir_crds::pool::{Protocol, SessionType};
use weir_proto::limits::{CONNECTION_IDLE_MS, FLOW_IDLE_MS};
use weir_proto::push;

/// Whether bytes are passed on whatever they say.
pub(super) fn is_layer4(protocol: Protocol) -> bool {
    match protocol {
        Protocol::Http | Protocol::Https => false,
        Protocol::Tcp | Protocol::Tls | Protocol::Udp => true,
    }
}

/// Whether clients name no host.
fn is_bare(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Tcp | Protocol::Udp)
}

/// As it is written.
pub(super) fn name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http => "HTTP",
        Protocol::Https => "HTTPS",
        Protocol::Tcp => "TCP",
        Protocol::Tls => "TLS",
        Protocol::Udp => "UDP",
    }
}

/// Whether TLS goes on to the backends as it came.
pub(super) fn passes_tls_on(listener: &spec::Listener) -> bool {
    let mode = listener.tls.as_ref().and_then(|tls| tls.mode);
    listener.protocol == Protocol::Tls && mode == Some(spec::TlsMode::Passthrough)
}

/// Whether a rule serves a listener.
pub(super) fn serves(rule: &spec::Rule, listener: &spec::Listener) -> bool {
    rule.listeners.is_empty() || rule.listeners.contains(&listener.name)
}

/// The first listener of layer 4 that a rule serves.
fn listener_of<'s>(spec: &'s LoadBalancerPoolSpec, rule: &spec::Rule) -> Option<&'s spec::Listener> {
    spec.listeners.iter().find(|listener| is_layer4(listener.protocol) && serves(rule, listener))
}

fn has_connections(protocol: Protocol) -> bool {
    is_layer4(protocol) && !has_flows(protocol)
}

fn has_flows(protocol: Protocol) -> bool {
    protocol == Protocol::Udp
}

/// Whether a rule serves some listener of such a protocol.
fn serves_one(spec: &LoadBalancerPoolSpec, rule: &spec::Rule, is: fn(Protocol) -> bool) -> bool {
    spec.listeners.iter().any(|listener| is(listener.protocol) && serves(rule, listener))
}

/// Fields of a listener that are of HTTP.
pub(super) fn check_listener(field: &str, own: &spec::Listener, check: &mut Check) {
    if !is_layer4(own.protocol) {
        return;
    }
    let limits = own.limits.clone().unwrap_or_default();
    let is_bare = is_bare(own.protocol);
    let said = [
        ("hostnames", is_bare && !own.hostnames.is_empty()),
        ("clientAddress", own.client_address.is_some()),
        ("httpsRedirect", own.https_redirect.is_some()),
        ("hsts", own.hsts.is_some()),
        ("paths", own.paths.is_some()),
        ("proxyProtocol", own.protocol == Protocol::Udp && own.proxy_protocol.is_some()),
        ("limits.uriBytes", limits.uri_bytes.is_some()),
        ("limits.headBytes", limits.head_bytes.is_some()),
        ("limits.headers", limits.headers.is_some()),
        ("limits.streamsPerConnection", limits.streams_per_connection.is_some()),
        ("limits.resetsPerSecond", limits.resets_per_second.is_some()),
        ("limits.controlFramesPerSecond", limits.control_frames_per_second.is_some()),
        ("limits.handshakesPerSourcePerSecond", is_bare && limits.handshakes_per_source_per_second.is_some()),
        ("limits.handshakesAtOnce", is_bare && limits.handshakes_at_once.is_some()),
        ("limits.handshakesAtOncePerSource", is_bare && limits.handshakes_at_once_per_source.is_some()),
        ("limits.headTimeout", limits.head_timeout.is_some()),
        ("limits.idleTimeout", limits.idle_timeout.is_some()),
        ("limits.minBodyBytesPerSecond", limits.min_body_bytes_per_second.is_some()),
    ];
    for (name, _) in said.into_iter().filter(|(_, is_said)| *is_said) {
        let rule = format!(
            "is not for protocol {}, where bytes are passed on whatever they say: remove it",
            self::name(own.protocol)
        );
        check.refuse(format!("{field}.{name}"), "", rule);
    }
}

/// TLS that is passed on.
pub(super) fn check_passthrough(
    field: &str,
    listener: &spec::Listener,
    tls: &spec::ListenerTls,
    check: &mut Check,
) {
    if listener.protocol != Protocol::Tls {
        let rule = "is for protocol TLS: use that, or remove it";
        check.refuse(format!("{field}.mode"), "Passthrough", rule);
    }
    let said = [
        ("certificateRefs", !tls.certificate_refs.is_empty()),
        ("minVersion", tls.min_version.is_some()),
        ("cipherPolicy", tls.cipher_policy.is_some()),
        ("clientValidation", tls.client_validation.is_some()),
    ];
    for (name, _) in said.into_iter().filter(|(_, is_said)| *is_said) {
        let rule = "is not for mode Passthrough, where backends end TLS: remove it";
        check.refuse(format!("{field}.{name}"), "", rule);
    }
}

/// How rules and listeners go together, and what of a rule cannot be for the listener that it serves.
pub(super) fn check_rules(spec: &LoadBalancerPoolSpec, check: &mut Check) {
    let names: BTreeSet<_> = spec.listeners.iter().map(|listener| listener.name.as_str()).collect();
    for (index, rule) in spec.rules.iter().enumerate() {
        let field = format!("spec.rules[{index}]");
        check.count(&format!("{field}.listeners"), &rule.listeners, (0, spec::RULE_LISTENERS_MAX));
        let mut seen = BTreeSet::new();
        for (nth, listener) in rule.listeners.iter().enumerate() {
            let field = format!("{field}.listeners[{nth}]");
            if !names.contains(listener.as_str()) {
                let rule = "is not a name in spec.listeners: add the listener or correct the name";
                check.refuse(field.as_str(), quoted(listener), rule);
            }
            check.unique(&mut seen, listener, field, quoted(listener));
        }
        if let Some(listener) = listener_of(spec, rule) {
            check_rule(&field, spec, rule, listener, check);
        }
        let own = rule.timeouts.clone().unwrap_or_default();
        if own.connection_idle.is_some() && !serves_one(spec, rule, has_connections) {
            let rule = "is for rules that serve a listener with protocol TCP or TLS: remove it";
            check.refuse(format!("{field}.timeouts.connectionIdle"), "", rule);
        }
        if own.flow_idle.is_some() && !serves_one(spec, rule, has_flows) {
            let rule = "is for rules that serve a listener with protocol UDP: remove it";
            check.refuse(format!("{field}.timeouts.flowIdle"), "", rule);
        }
    }
    check_one_each(spec, check);
}

/// Nothing tells connections apart that name no host, so that a second rule would have none.
fn check_one_each(spec: &LoadBalancerPoolSpec, check: &mut Check) {
    for listener in spec.listeners.iter().filter(|listener| is_bare(listener.protocol)) {
        let mut rules = spec.rules.iter().enumerate().filter(|(_, rule)| serves(rule, listener));
        if let (Some((first, _)), Some((second, _))) = (rules.next(), rules.next()) {
            let rule = format!(
                "serves listener {} with protocol {}, as spec.rules[{first}] does: name the listeners of each",
                quoted(&listener.name),
                name(listener.protocol)
            );
            check.refuse(format!("spec.rules[{second}].listeners"), "", rule);
        }
    }
}

fn check_rule(
    field: &str,
    spec: &LoadBalancerPoolSpec,
    rule: &spec::Rule,
    listener: &spec::Listener,
    check: &mut Check,
) {
    let served = format!("listener {} with protocol {}", quoted(&listener.name), name(listener.protocol));
    let bare = spec.listeners.iter().find(|own| is_bare(own.protocol) && serves(rule, own));
    if let Some(bare) = bare.filter(|_| !rule.hostnames.is_empty()) {
        let rule = format!(
            "is not for listener {} with protocol {}, which the rule serves and whose clients name none: remove it, or \
             name the other listeners in {field}.listeners",
            quoted(&bare.name),
            name(bare.protocol)
        );
        check.refuse(format!("{field}.hostnames"), "", rule);
    }
    for (name, _) in of_requests(rule).into_iter().filter(|(_, is_said)| *is_said) {
        let rule = format!(
            "is of requests, and the rule serves {served}: remove it, or name the listeners of HTTP in {field}.listeners"
        );
        check.refuse(format!("{field}.{name}"), "", rule);
    }
    let of_source =
        |own: &spec::SessionPersistence| matches!(own.kind, SessionType::SourceIp | SessionType::None);
    match (&rule.session_persistence, &spec.session_persistence) {
        (Some(own), _) if !of_source(own) => {
            let rule = format!("is of requests, and the rule serves {served}: use SourceIP or None");
            check.refuse(format!("{field}.sessionPersistence.type"), format!("{:?}", own.kind), rule);
        }
        (None, Some(pool)) if !of_source(pool) => {
            let rule = format!(
                "is missing, and that of the pool is of requests, while the rule serves {served}: write one of type \
                 SourceIP or None"
            );
            check.refuse(format!("{field}.sessionPersistence"), "", rule);
        }
        _ => {}
    }
    if rule.rate_limits.is_none() && !spec.rate_limits.is_empty() {
        let rule = format!(
            "is missing, and spec.rateLimits counts requests, while the rule serves {served}: write rateLimits: []"
        );
        check.refuse(format!("{field}.rateLimits"), "", rule);
    }
    for (nth, weighted) in rule.backend_sets.iter().enumerate() {
        if !weighted.matches.is_empty() {
            let rule = format!("is of requests, and the rule serves {served}: remove it");
            check.refuse(format!("{field}.backendSets[{nth}].matches"), "", rule);
        }
        if let Some(set) = spec.backend_sets.iter().position(|set| set.name == weighted.name) {
            check_set(set, spec, field, &served, check);
            if serves_one(spec, rule, has_flows) {
                check_set_of_datagrams(set, spec, field, check);
            }
            let passed_on = spec.listeners.iter().find(|own| passes_tls_on(own) && serves(rule, own));
            if let Some(listener) = passed_on.filter(|_| spec.backend_sets[set].tls.is_some()) {
                let rule = format!(
                    "secures what is secured already: {field} sends it the connections of listener {} with mode Passthrough",
                    quoted(&listener.name)
                );
                check.refuse(format!("spec.backendSets[{set}].tls"), "", rule);
            }
        }
    }
}

/// What a rule says that is of requests, but for what needs another sentence.
fn of_requests(rule: &spec::Rule) -> [(&'static str, bool); 10] {
    let timeouts = rule.timeouts.clone().unwrap_or_default();
    let retry = rule.retry.as_ref();
    [
        ("matches", !rule.matches.is_empty()),
        ("filters", !rule.filters.is_empty()),
        ("limits", rule.limits.is_some()),
        ("rateLimits", rule.rate_limits.as_ref().is_some_and(|own| !own.is_empty())),
        ("timeouts.request", timeouts.request.is_some()),
        ("timeouts.backendRequest", timeouts.backend_request.is_some()),
        ("timeouts.idle", timeouts.idle.is_some()),
        ("timeouts.total", timeouts.total.is_some()),
        ("retry.codes", retry.is_some_and(|own| own.codes.is_some())),
        ("retry.hedgeAfter", retry.is_some_and(|own| own.hedge_after.is_some())),
    ]
}

/// A set that a rule of layer 4 sends connections to.
fn check_set(index: usize, spec: &LoadBalancerPoolSpec, rule: &str, served: &str, check: &mut Check) {
    let set = &spec.backend_sets[index];
    let own = format!("spec.backendSets[{index}]");
    let (field, balancing) = match (&set.load_balancing, &spec.load_balancing) {
        (Some(balancing), _) => (format!("{own}.loadBalancing"), Some(balancing)),
        (None, pool) => (own.clone(), pool.as_ref()),
    };
    let hash = balancing.and_then(|balancing| balancing.consistent_hash.as_ref());
    if let Some(hash) = hash.filter(|hash| hash.key != spec::HashKey::SourceIp) {
        let said = format!(
            "hashes {:?} of a request, and {rule} sends it the connections of {served}: use a set with key SourceIP",
            hash.key
        );
        check.refuse(field, "", said);
    }
    let (field, breaker) = match (&set.circuit_breaker, &spec.circuit_breaker) {
        (Some(breaker), _) => (format!("{own}.circuitBreaker.fallback.response"), Some(breaker)),
        (None, pool) => (own, pool.as_ref()),
    };
    let fallback = breaker.and_then(|breaker| breaker.fallback.as_ref());
    if fallback.is_some_and(|fallback| fallback.response.is_some()) {
        let said = format!(
            "has a fallback that is an answer of HTTP, and {rule} sends it the connections of {served}: use a fallback \
             with backendSet"
        );
        check.refuse(field, "", said);
    }
}

/// A set that a rule sends datagrams to.
fn check_set_of_datagrams(index: usize, spec: &LoadBalancerPoolSpec, rule: &str, check: &mut Check) {
    let set = &spec.backend_sets[index];
    let field = format!("spec.backendSets[{index}]");
    let said = [("tls", set.tls.is_some()), ("proxyProtocol", set.proxy_protocol.is_some())];
    for (name, _) in said.into_iter().filter(|(_, is_said)| *is_said) {
        let said = format!("is of connections, and {rule} sends it datagrams: remove it, or use another set");
        check.refuse(format!("{field}.{name}"), "", said);
    }
    let ports = set.service.is_some() || set.endpoint_selector.is_some();
    if ports && !is_of_datagrams(spec, &set.name) {
        let said = format!(
            "is sent datagrams by {rule}, and connections too: its ports are either of UDP or of TCP, use a set for each"
        );
        check.refuse(field, "", said);
    }
}

/// How long a connection of a rule may stand still; 0 where the rule serves none.
pub(super) fn connection_idle_ms(
    field: &str,
    spec: &LoadBalancerPoolSpec,
    rule: &spec::Rule,
    check: &mut Check,
) -> u64 {
    let pool = spec.timeouts.clone().unwrap_or_default().connection_idle;
    let own = rule.timeouts.as_ref().and_then(|own| own.connection_idle);
    let idle = match own {
        Some(own) => check.within(&format!("{field}.timeouts.connectionIdle"), own, CONNECTION_IDLE_MS),
        None => pool.as_millis(),
    };
    if serves_one(spec, rule, has_connections) { idle } else { 0 }
}

/// The same for a flow.
pub(super) fn flow_idle_ms(
    field: &str,
    spec: &LoadBalancerPoolSpec,
    rule: &spec::Rule,
    check: &mut Check,
) -> u64 {
    let pool = spec.timeouts.clone().unwrap_or_default().flow_idle;
    let own = rule.timeouts.as_ref().and_then(|own| own.flow_idle);
    let idle = match own {
        Some(own) => check.within(&format!("{field}.timeouts.flowIdle"), own, FLOW_IDLE_MS),
        None => pool.as_millis(),
    };
    if serves_one(spec, rule, has_flows) { idle } else { 0 }
}

/// Whether only rules of layer 4 send to a set.
pub(super) fn is_alone(spec: &LoadBalancerPoolSpec, set: &str) -> bool {
    is_of_these(spec, set, is_layer4)
}

/// Whether a set is sent datagrams, and nothing else.
pub(super) fn is_of_datagrams(spec: &LoadBalancerPoolSpec, set: &str) -> bool {
    is_of_these(spec, set, has_flows)
}

/// Whether rules send to a set, and all of them serve such listeners alone.
fn is_of_these(spec: &LoadBalancerPoolSpec, set: &str, are: fn(Protocol) -> bool) -> bool {
    let sends = |rule: &&spec::Rule| rule.backend_sets.iter().any(|own| own.name == set);
    let mut rules = spec.rules.iter().filter(sends).peekable();
    rules.peek().is_some()
        && rules.all(|rule| {
            let mut served = spec.listeners.iter().filter(|listener| serves(rule, listener));
            served.all(|listener| are(listener.protocol))
        })
}

/// Sets of datagrams whose algorithm nobody chose: a source goes to the same backend after its flow was forgotten, and from
/// every proxy.
pub(super) fn balance_by_source(spec: &LoadBalancerPoolSpec, sets: &mut [push::BackendSet]) {
    let of_pool = spec.load_balancing.as_ref().map(|own| own.algorithm).unwrap_or_default();
    for (own, set) in spec.backend_sets.iter().zip(sets) {
        let is_chosen = own.load_balancing.is_some() || of_pool != spec::Algorithm::default();
        if !is_chosen && is_of_datagrams(spec, &set.name) {
            set.set_algorithm(push::Algorithm::ConsistentHash);
            let key = push::HashKey::SourceIp.into();
            set.consistent_hash =
                Some(push::ConsistentHash { key, name: String::new(), max_load_percent: 0 });
            // Each of its steps would move sources.
            set.slow_start = None;
        }
    }
}

/// Sets that only rules of layer 4 send to keep no connection open that nobody needs: backends would be shown clients that
/// say nothing.
pub(super) fn keep_none_warm(spec: &LoadBalancerPoolSpec, sets: &mut [push::BackendSet], check: &mut Check) {
    for (index, set) in sets.iter_mut().enumerate() {
        if !is_alone(spec, &set.name) {
            continue;
        }
        let own = spec.backend_sets[index].connection_pool.as_ref();
        if own.is_some_and(|own| own.min_warm_per_backend != 0) {
            let rule = "is not for a set that only rules of layer 4 use, where each connection is one client's: remove it";
            check.refuse(format!("spec.backendSets[{index}].connectionPool.minWarmPerBackend"), "", rule);
        }
        if let Some(connections) = &mut set.connections {
            connections.warm_min = 0;
        }
    }
}

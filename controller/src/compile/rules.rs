//! Rules: which requests, to which sets, for how long, and what is done again.

use super::check::{Check, quoted};
use super::filters::{self, filters};
use super::layer4;
use super::limits;
use super::matches::Matches;
use super::policy;
use std::collections::BTreeSet;
use weir_crds::pool as spec;
use weir_crds::{Duration, LoadBalancerPoolSpec};
use weir_proto::limits::{CONNECTION_IDLE_MS, FLOW_IDLE_MS, ROUTES_PER_POOL_MAX, routes};
use weir_proto::push;

/// How long a request may take.
#[derive(Debug, Clone, Copy)]
struct Timeouts {
    request: Duration,
    attempt: Duration,
    idle: Duration,
    total: Duration,
}

impl Timeouts {
    fn of_pool(spec: &LoadBalancerPoolSpec, check: &mut Check) -> Self {
        let own = spec.timeouts.clone().unwrap_or_default();
        check.positive("spec.timeouts.idle", own.idle);
        check.within("spec.timeouts.connectionIdle", own.connection_idle, CONNECTION_IDLE_MS);
        check.within("spec.timeouts.flowIdle", own.flow_idle, FLOW_IDLE_MS);
        Self { request: own.request, attempt: own.backend_request, idle: own.idle, total: own.total }
    }

    /// Each by itself is the rule's own or the pool's.
    fn of_rule(&self, field: &str, rule: &spec::Rule, check: &mut Check) -> Self {
        let own = rule.timeouts.clone().unwrap_or_default();
        if let Some(idle) = own.idle {
            check.positive(&format!("{field}.timeouts.idle"), idle);
        }
        Self {
            request: own.request.unwrap_or(self.request),
            attempt: own.backend_request.unwrap_or(self.attempt),
            idle: own.idle.unwrap_or(self.idle),
            total: own.total.unwrap_or(self.total),
        }
    }
}

/// Every rule, with all that it does not say itself from the pool.
pub(super) fn rules(spec: &LoadBalancerPoolSpec, check: &mut Check) -> Vec<push::Rule> {
    check.count("spec.rules", &spec.rules, (0, spec::RULES_MAX));
    let known: BTreeSet<_> = spec.backend_sets.iter().map(|set| set.name.as_str()).collect();
    let timeouts = Timeouts::of_pool(spec, check);
    let retry = policy::retry("spec.retry", &spec.retry.clone().unwrap_or_default(), check);
    let sessions = spec.session_persistence.as_ref();
    let sessions = sessions.and_then(|own| policy::sessions("spec.sessionPersistence", own, check));
    let body_bytes_max = limits::body_bytes("spec.limits", spec.limits.as_ref(), check);
    let ip_rules = spec.ip_rules.as_ref().map(|own| policy::ip_rules("spec.ipRules", own, check));
    let rate_limits = policy::rate_limits("spec.rateLimits", "pool", &spec.rate_limits, check);
    let (mut matches, mut compiled) = (Matches::default(), Vec::new());
    for (index, rule) in spec.rules.iter().enumerate() {
        let field = format!("spec.rules[{index}]");
        if let Some(name) = &rule.name {
            check.name(&format!("{field}.name"), name);
        }
        check.hostnames(&format!("{field}.hostnames"), &rule.hostnames);
        let timeouts = timeouts.of_rule(&field, rule, check);
        compiled.push(push::Rule {
            hostnames: rule.hostnames.clone(),
            paths: matches.of_rule(&format!("{field}.matches"), rule, check),
            backend_sets: weighted_sets(&format!("{field}.backendSets"), rule, &known, check),
            request_timeout_ms: timeouts.request.as_millis(),
            attempt_timeout_ms: timeouts.attempt.as_millis(),
            idle_timeout_ms: timeouts.idle.as_millis(),
            total_timeout_ms: timeouts.total.as_millis(),
            retry: Some(match &rule.retry {
                Some(own) => policy::retry(&format!("{field}.retry"), own, check),
                None => retry.clone(),
            }),
            sessions: match &rule.session_persistence {
                Some(own) => policy::sessions(&format!("{field}.sessionPersistence"), own, check),
                None => sessions.clone(),
            },
            request_body_bytes_max: limits::body_bytes(
                &format!("{field}.limits"),
                rule.limits.as_ref(),
                check,
            )
            .or(body_bytes_max)
            .unwrap_or_default(),
            ip_rules: match &rule.ip_rules {
                Some(own) => Some(policy::ip_rules(&format!("{field}.ipRules"), own, check)),
                None => ip_rules.clone(),
            },
            rate_limits: match &rule.rate_limits {
                Some(own) => policy::rate_limits(
                    &format!("{field}.rateLimits"),
                    &scope(index, &spec.rules),
                    own,
                    check,
                ),
                None => rate_limits.clone(),
            },
            filters: filters(&field, rule, &known, check),
            name: rule.name.clone().unwrap_or_default(),
            listeners: rule.listeners.clone(),
            connection_idle_timeout_ms: layer4::connection_idle_ms(&field, spec, rule, check),
            flow_idle_timeout_ms: layer4::flow_idle_ms(&field, spec, rule, check),
        });
    }
    layer4::check_rules(spec, check);
    policy::check_keys(&compiled, check);
    matches.check_patterns(check);
    compiled
}

/// What a rule's limits are known by: its name, so that rules may change places, or its place where it has none of its own.
fn scope(index: usize, rules: &[spec::Rule]) -> String {
    match &rules[index].name {
        Some(name) if rules.iter().filter(|rule| rule.name.as_ref() == Some(name)).count() == 1 => {
            format!("rule/{name}")
        }
        _ => format!("rules/{index}"),
    }
}

/// Refuses more routes than a proxy makes of one pool. Listeners that have no certificate as yet count too: one that comes
/// makes no specification wrong.
pub(super) fn check_routes(spec: &LoadBalancerPoolSpec, check: &mut Check) {
    // Lists past their own limits are refused for that, and could take for ever to count.
    if !check.is_clean() {
        return;
    }
    let of_listener = |listener: &spec::Listener| {
        let rules = spec.rules.iter().filter(|rule| layer4::serves(rule, listener));
        let rules: Vec<_> = rules.map(|rule| (rule.hostnames.as_slice(), rule.matches.len())).collect();
        routes(&[listener.hostnames.as_slice()], &rules)
    };
    let count = spec.listeners.iter().map(of_listener).fold(0, usize::saturating_add);
    if count > ROUTES_PER_POOL_MAX {
        let rule = format!(
            "are too many, one for each listener, hostname and match: use at most {ROUTES_PER_POOL_MAX}, by fewer of \
             any of them or by several pools"
        );
        check.refuse("spec.rules", format!("{count} routes"), rule);
    }
}

fn weighted_sets(
    field: &str,
    rule: &spec::Rule,
    known: &BTreeSet<&str>,
    check: &mut Check,
) -> Vec<push::WeightedSet> {
    if filters::answer(rule) {
        if !rule.backend_sets.is_empty() {
            check.refuse(field, "", "is not for a rule whose filter answers: remove it, or the filter");
        }
        return Vec::new();
    }
    check.count(field, &rule.backend_sets, (1, spec::RULE_BACKEND_SETS_MAX));
    if !rule.backend_sets.is_empty() && rule.backend_sets.iter().all(|set| set.weight == 0) {
        check.refuse(field, "", "has no weight above 0: give at least one set a weight");
    }
    let (mut names, mut compiled) = (BTreeSet::new(), Vec::new());
    for (index, set) in rule.backend_sets.iter().enumerate() {
        let name = format!("{field}[{index}].name");
        if !known.contains(set.name.as_str()) {
            check.refuse(
                &name,
                quoted(&set.name),
                "is not a name in spec.backendSets: add the set or correct the name",
            );
        }
        check.unique(&mut names, &set.name, name, quoted(&set.name));
        let weight = check.number(&format!("{field}[{index}].weight"), set.weight, spec::SET_WEIGHT_MAX);
        let matches = split_matches(&format!("{field}[{index}].matches"), &set.matches, check);
        compiled.extend(weight.map(|weight| push::WeightedSet { set: set.name.clone(), weight, matches }));
    }
    compiled
}

fn split_matches(field: &str, own: &[spec::SplitMatch], check: &mut Check) -> Vec<push::SplitMatch> {
    use push::split_match::Source;
    check.count(field, own, (0, spec::SPLIT_MATCHES_MAX));
    let mut compiled = Vec::new();
    for (index, spec::SplitMatch { kind, name, value }) in own.iter().enumerate() {
        check.token(&format!("{field}[{index}].name"), name, spec::SPLIT_BYTES_MAX);
        if let Some(value) = value {
            check.header_text(&format!("{field}[{index}].value"), value, spec::SPLIT_BYTES_MAX);
        }
        // Header fields are compared in lower case; cookies as they are.
        let source = match kind {
            spec::SplitMatchType::Header => Source::Header(name.to_ascii_lowercase()),
            spec::SplitMatchType::Cookie => Source::Cookie(name.clone()),
        };
        compiled.push(push::SplitMatch { source: Some(source), value: value.clone() });
    }
    compiled
}

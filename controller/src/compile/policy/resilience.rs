//! Circuit breakers with what stands in, retries and their budget.

use super::super::check::{Check, quoted};
use std::collections::{BTreeMap, BTreeSet};
use weir_crds::pool as spec;
use weir_proto::limits::{BACKOFF_MS, BREAKER_RESET_MS, BREAKER_WINDOW_MS, BUDGET_WINDOW_MS, HEDGE_MS};
use weir_proto::push;
use weir_proto::push::circuit_breaker::Fallback;

pub(super) fn breaker(field: &str, own: &spec::CircuitBreaker, check: &mut Check) -> push::CircuitBreaker {
    let window_ms = check.within(&format!("{field}.window"), own.window, BREAKER_WINDOW_MS);
    let reset_ms = check.within(&format!("{field}.resetTimeout"), own.reset_timeout, BREAKER_RESET_MS);
    let fallback = own.fallback.as_ref().and_then(|own| fallback(&format!("{field}.fallback"), own, check));
    let mut number = |name: &str, value: i32, max: i32| {
        check.between(&format!("{field}.{name}"), value, (1, max)).unwrap_or_default()
    };
    push::CircuitBreaker {
        failure_percent: number("failurePercent", own.failure_percent, 100),
        min_requests: number("minRequests", own.min_requests, spec::BREAKER_REQUESTS_MAX),
        window_ms,
        reset_ms,
        probes: number("halfOpenRequests", own.half_open_requests, spec::HALF_OPEN_REQUESTS_MAX),
        fallback,
    }
}

fn fallback(field: &str, own: &spec::Fallback, check: &mut Check) -> Option<Fallback> {
    match (&own.backend_set, &own.response) {
        (Some(set), None) => Some(Fallback::FallbackSet(set.clone())),
        (None, Some(own)) => {
            Some(Fallback::FallbackResponse(response(&format!("{field}.response"), own, check)))
        }
        (None, None) | (Some(_), Some(_)) => {
            check.refuse(field, "", "must have exactly one of backendSet and response");
            None
        }
    }
}

fn response(field: &str, own: &spec::FallbackResponse, check: &mut Check) -> push::FallbackResponse {
    let status = check.between(&format!("{field}.status"), own.status, (200, 599)).unwrap_or_default();
    check.header_text(&format!("{field}.contentType"), &own.content_type, spec::CONTENT_TYPE_BYTES_MAX);
    if own.content_type.trim() != own.content_type {
        let rule = "begins or ends with a blank: remove it";
        check.refuse(format!("{field}.contentType"), quoted(&own.content_type), rule);
    }
    if own.body.len() > spec::RESPONSE_BODY_BYTES_MAX {
        let rule = format!("are too many: use at most {}", spec::RESPONSE_BODY_BYTES_MAX);
        check.refuse(format!("{field}.body"), format!("{} bytes", own.body.len()), rule);
    }
    push::FallbackResponse { status, content_type: own.content_type.clone(), body: own.body.clone().into() }
}

/// When a request is tried again.
pub(in super::super) fn retry(field: &str, own: &spec::Retry, check: &mut Check) -> push::Retry {
    let codes = own.codes.as_deref().unwrap_or(&spec::Retry::CODES);
    let codes_field = format!("{field}.codes");
    check.count(&codes_field, codes, (0, spec::RETRY_CODES_MAX));
    let (mut seen, mut statuses) = (BTreeSet::new(), Vec::new());
    for (index, &code) in codes.iter().enumerate() {
        let field = format!("{codes_field}[{index}]");
        statuses.extend(check.between(&field, code, (400, 599)));
        check.unique(&mut seen, code, field, code);
    }
    // The order says nothing: equal rules are equal bytes.
    statuses.sort_unstable();
    push::Retry {
        retries_max: check
            .number(&format!("{field}.attempts"), own.attempts, spec::RETRY_ATTEMPTS_MAX)
            .unwrap_or_default(),
        statuses,
        backoff_ms: check.within(&format!("{field}.backoff"), own.backoff, BACKOFF_MS),
        hedge_after_ms: own
            .hedge_after
            .map_or(0, |after| check.within(&format!("{field}.hedgeAfter"), after, HEDGE_MS)),
    }
}

pub(super) fn budget(field: &str, own: &spec::RetryBudget, check: &mut Check) -> push::RetryBudget {
    let mut number = |name: &str, value: i32, max: i32| {
        check.number(&format!("{field}.{name}"), value, max).unwrap_or_default()
    };
    push::RetryBudget {
        percent: number("percent", own.percent, 100),
        min_retries_per_second: number(
            "minRetriesPerSecond",
            own.min_retries_per_second,
            spec::BUDGET_RETRIES_MAX,
        ),
        window_ms: check.within(&format!("{field}.window"), own.window, BUDGET_WINDOW_MS),
    }
}

/// Sets that stand in for others must be there, and none may stand in for itself, also not through others.
pub(in super::super) fn check_fallbacks(
    spec: &weir_crds::LoadBalancerPoolSpec,
    compiled: &[push::BackendSet],
    check: &mut Check,
) {
    let names: BTreeSet<_> = spec.backend_sets.iter().map(|set| set.name.as_str()).collect();
    let mut exists = |field: &str, named: &str| {
        if !names.contains(named) {
            let rule = "is not a name in spec.backendSets: add the set or correct the name";
            check.refuse(format!("{field}.circuitBreaker.fallback.backendSet"), quoted(named), rule);
        }
    };
    if let Some(named) = named(spec.circuit_breaker.as_ref()) {
        exists("spec", named);
    }
    for (index, set) in spec.backend_sets.iter().enumerate() {
        if let Some(named) = named(set.circuit_breaker.as_ref()) {
            exists(&format!("spec.backendSets[{index}]"), named);
        }
    }
    let next: BTreeMap<&str, &str> = compiled.iter().filter_map(after).collect();
    let mut refused = BTreeSet::new();
    for (index, set) in spec.backend_sets.iter().enumerate() {
        // Each circle once, at a set that says itself what stands in for it: one of them does.
        if named(set.circuit_breaker.as_ref()).is_none() || refused.contains(set.name.as_str()) {
            continue;
        }
        if let Some(circle) = circle(&set.name, &next) {
            let rule = match circle.as_slice() {
                [_] => "is the set itself: name another set, or use a response".to_owned(),
                circle => format!(
                    "leads back to the set itself ({}, {}): end the chain with a response, or without a fallback",
                    circle.join(", "),
                    set.name
                ),
            };
            let field = format!("spec.backendSets[{index}].circuitBreaker.fallback.backendSet");
            check.refuse(field, quoted(next[set.name.as_str()]), rule);
            refused.extend(circle);
        }
    }
}

fn named(breaker: Option<&spec::CircuitBreaker>) -> Option<&str> {
    breaker?.fallback.as_ref()?.backend_set.as_deref()
}

fn after(set: &push::BackendSet) -> Option<(&str, &str)> {
    match set.circuit_breaker.as_ref()?.fallback.as_ref()? {
        Fallback::FallbackSet(next) => Some((&set.name, next)),
        Fallback::FallbackResponse(_) => None,
    }
}

/// The sets from one back to itself, itself first.
fn circle<'a>(set: &'a str, next: &BTreeMap<&'a str, &'a str>) -> Option<Vec<&'a str>> {
    let mut circle = vec![set];
    while let Some(&after) = next.get(circle[circle.len() - 1]) {
        if after == set {
            return Some(circle);
        }
        // A circle further on, of which this set is no part.
        if circle.contains(&after) {
            return None;
        }
        circle.push(after);
    }
    None
}

use super::*;
use crate::compile::{ObjectKey, Validity};
use crate::status::health::tests::{found, served};
use crate::status::reason::DEGRADED;
use crate::store::{REFUSALS_MAX, Refusal};
use std::collections::BTreeMap;
use std::sync::Arc;

const DIGEST: u64 = 0x00ab_cdef_0123_4567;

fn now() -> Timestamp {
    "2026-11-21T10:00:00.75Z".parse().expect("a time")
}

fn later() -> Timestamp {
    "2026-11-21T11:00:00Z".parse().expect("a time")
}

fn key() -> ObjectKey {
    ObjectKey::new("default", "shop")
}

fn endpoints(ready: usize, draining: usize) -> Endpoints {
    Endpoints { total: ready + draining, ready, draining, ..Endpoints::default() }
}

/// Accepted, with these backends.
fn accepted_with(endpoints: Endpoints) -> Verdict {
    Verdict {
        key: key(),
        uid: Some("u".into()),
        generation: 3,
        rejections: Vec::new(),
        warnings: Vec::new(),
        serving: Some(Serving { config_digest: DIGEST, endpoints, ..Serving::default() }),
        shown: None,
    }
}

fn said(field: &str, value: &str, rule: &str, reason: Reason) -> Rejection {
    let (field, value, rule) = (field.to_owned(), value.to_owned(), rule.to_owned());
    Rejection { pool: key(), field, value, rule, reason }
}

fn fleet(current: u32, proxies: u32) -> PoolSummary {
    let oldest_lag = (proxies > 0).then(|| Duration::from_micros(3_400));
    PoolSummary { proxies, current, oldest_lag, config_digest: DIGEST, ..PoolSummary::default() }
}

fn refusing(refused: usize, proxies: u32) -> PoolSummary {
    let refusal = |n: usize| {
        let (field, reason) = ("spec.listeners[0].port".to_owned(), "cannot listen on 80".to_owned());
        (Arc::from(format!("weir/proxy-{n:02}")), Refusal { version: None, field, reason })
    };
    PoolSummary {
        refused: u32::try_from(refused).expect("small"),
        refusals: (0..refused.min(REFUSALS_MAX)).map(refusal).collect(),
        ..fleet(proxies - u32::try_from(refused).expect("small"), proxies)
    }
}

fn of(verdict: &Verdict, summary: &PoolSummary) -> LoadBalancerPoolStatus {
    compute(verdict, summary, None, now())
}

/// Status, reason and message of a condition.
fn told<'a>(status: &'a LoadBalancerPoolStatus, kind: &str) -> (&'a str, &'a str, &'a str) {
    let condition = condition(status, kind).expect("all six are there");
    (&condition.status, &condition.reason, &condition.message)
}

/// `status/reason` of the first five conditions, and the word of the column.
fn words(status: &LoadBalancerPoolStatus) -> [String; 6] {
    let word = |kind| {
        let (status, reason, _) = told(status, kind);
        format!("{status}/{reason}")
    };
    let [a, b, c, d, e, _] = reason::TYPES.map(word);
    [a, b, c, d, e, status.summary.clone().and_then(|summary| summary.state).unwrap_or_default()]
}

#[test]
fn an_accepted_pool_that_every_proxy_runs_is_programmed() {
    let mut backends = endpoints(40, 2);
    backends.zones = BTreeMap::from([("a".to_owned(), 25), ("b".to_owned(), 15)]);
    let status = of(&accepted_with(backends), &fleet(12, 12));
    assert_eq!(
        words(&status),
        [
            "True/Accepted",
            "True/ResolvedRefs",
            "True/EndpointsReady",
            "True/Programmed",
            "False/AsSpecified",
            "Programmed"
        ]
    );
    let summary = status.summary.expect("columns");
    assert_eq!(summary.ready.as_deref(), Some("40/42"));
    assert_eq!(summary.proxies.as_deref(), Some("12/12"));
    assert_eq!(summary.lag.as_deref(), Some("4ms"), "rounded up");
    assert_eq!(summary.message.as_deref(), Some("12 of 12 proxies run the newest version"));
    let programmed = status.programmed.expect("served");
    assert_eq!((programmed.proxies, programmed.current), (12, 12));
    assert_eq!(programmed.config_version, "00abcdef01234567");
    let counted = status.endpoints.expect("served");
    assert_eq!((counted.total, counted.ready, counted.draining), (42, 40, 2));
    assert_eq!(
        counted.zones.iter().map(|zone| (&*zone.name, zone.ready)).collect::<Vec<_>>(),
        [("a", 25), ("b", 15)]
    );
}

/// Accepted, with a certificate of a year that ends in so many days.
fn ending_in(days: i64) -> Verdict {
    let ends_s = now().as_second() + days * 86_400;
    let validity = Validity { begins_s: ends_s - 365 * 86_400, ends_s };
    let mut verdict = accepted_with(endpoints(1, 0));
    let serving = verdict.serving.as_mut().expect("accepted");
    serving.validities = Arc::new(BTreeMap::from([("default/shop-tls".to_owned(), validity)]));
    verdict
}

#[test]
fn a_certificate_that_ends_is_said_a_month_before_and_degrades_its_pool_a_week_before() {
    for (days, expected, degraded, word) in [
        (31, "NoneExpiring", "AsSpecified", "Programmed"),
        (30, "Within30Days", "AsSpecified", "Programmed"),
        (8, "Within30Days", "AsSpecified", "Programmed"),
        (7, "Within7Days", "CertificateExpiring", "CertificateExpiring"),
        (-1, "Expired", "CertificateExpiring", "CertificateExpiring"),
    ] {
        let status = of(&ending_in(days), &fleet(1, 1));
        let (is_so, reason, message) = told(&status, reason::CERTIFICATE_EXPIRING);
        assert_eq!((reason, is_so == "True"), (expected, expected != "NoneExpiring"), "{days}");
        assert_eq!(message.contains("Secret default/shop-tls"), days <= 30, "{days}: {message}");
        assert_eq!(told(&status, DEGRADED).1, degraded, "{days}");
        assert_eq!(status.summary.and_then(|summary| summary.state).as_deref(), Some(word), "{days}");
    }
}

#[test]
fn a_rejected_pool_says_why_and_what_is_served_instead() {
    let mut verdict = accepted_with(endpoints(3, 0));
    verdict.rejections = vec![
        said("spec.listeners[0].port", "70000", "is not a port: use 1 to 65535", Reason::Invalid),
        said(
            "spec.rules[0].backendSets[0].name",
            "\"w\"",
            "is not a name in spec.backendSets",
            Reason::Invalid,
        ),
    ];
    let status = of(&verdict, &fleet(12, 12));
    assert_eq!(
        words(&status),
        [
            "False/Invalid",
            "True/ResolvedRefs",
            "True/EndpointsReady",
            "False/ServesLastGood",
            "True/ServesLastGood",
            "Invalid"
        ]
    );
    let message = "spec.listeners[0].port: 70000 is not a port: use 1 to 65535; \
                   spec.rules[0].backendSets[0].name: \"w\" is not a name in spec.backendSets";
    assert_eq!(told(&status, ACCEPTED).2, message);
    let serves = "12 of 12 proxies serve what the pool said before (configuration 00abcdef01234567)";
    assert_eq!(told(&status, PROGRAMMED).2, serves);
    assert_eq!(status.observed_generation, Some(3), "that generation was looked at");
    assert!(status.conditions.iter().all(|condition| condition.observed_generation == Some(3)));
}

#[test]
fn of_a_rejected_pool_without_a_past_nothing_else_is_known() {
    let mut verdict = accepted_with(Endpoints::default());
    verdict.serving = None;
    verdict.rejections = vec![said("spec.listeners", "", "has no entry: add one", Reason::Invalid)];
    let status = of(&verdict, &PoolSummary::default());
    assert_eq!(
        words(&status),
        [
            "False/Invalid",
            "Unknown/NotAccepted",
            "Unknown/NotAccepted",
            "False/NotAccepted",
            "True/NotAccepted",
            "Invalid"
        ]
    );
    assert_eq!((status.endpoints, status.programmed), (None, None));
    assert_eq!(status.summary.expect("columns").ready, None);
}

#[test]
fn a_conflict_names_the_winner() {
    let mut verdict = accepted_with(Endpoints::default());
    verdict.serving = None;
    let rule = "is claimed on port 80 by LoadBalancerPool default/first, which is older";
    verdict.rejections = vec![said("spec.listeners[0].hostnames", "\"a.example\"", rule, Reason::Conflicted)];
    let status = of(&verdict, &PoolSummary::default());
    assert_eq!(words(&status)[5], "Conflicted");
    let (state, reason, message) = told(&status, ACCEPTED);
    assert_eq!((state, reason), ("False", "Conflicted"));
    assert!(message.contains("LoadBalancerPool default/first"), "{message}");
}

#[test]
fn a_missing_service_is_named_and_the_gravest_reason_is_the_condition_s() {
    let mut verdict = accepted_with(endpoints(0, 0));
    verdict.warnings = vec![
        said(
            "spec.backendSets[1].service.port",
            "80",
            "has appProtocol \"h2c\"",
            Reason::UnsupportedProtocol,
        ),
        said(
            "spec.backendSets[0].service.name",
            "\"web\"",
            "is not the name of a Service",
            Reason::BackendNotFound,
        ),
    ];
    let status = of(&verdict, &fleet(1, 1));
    assert_eq!(
        words(&status),
        [
            "True/Accepted",
            "False/BackendNotFound",
            "False/NoEndpoints",
            "True/Programmed",
            "True/BackendNotFound",
            "BackendNotFound"
        ]
    );
    assert!(
        told(&status, RESOLVED_REFS).2.contains("spec.backendSets[0].service.name: \"web\" is not the name")
    );
}

#[test]
fn one_of_twelve_proxies_that_refuses_is_named_with_field_and_reason() {
    let status = of(&accepted_with(endpoints(2, 0)), &refusing(1, 12));
    assert_eq!(words(&status)[3..], ["False/Nacked", "True/Nacked", "Nacked"]);
    assert_eq!(
        told(&status, PROGRAMMED).2,
        "1 of 12 proxies refuse this configuration and serve their last good one: \
         weir/proxy-00: spec.listeners[0].port: cannot listen on 80"
    );
    let many = of(&accepted_with(endpoints(2, 0)), &refusing(1_000, 1_000));
    let message = told(&many, PROGRAMMED).2;
    assert!(message.ends_with(&format!("and {} more", 1_000 - REFUSALS_MAX)), "{message}");
}

#[test]
fn without_proxies_the_pool_is_not_programmed() {
    let status = of(&accepted_with(endpoints(2, 0)), &fleet(0, 0));
    assert_eq!(words(&status)[3..], ["False/NoProxies", "False/AsSpecified", "NoProxies"]);
    assert_eq!(status.summary.expect("columns").lag, None);
}

#[test]
fn a_proxy_that_is_behind_makes_it_pending() {
    let status = of(&accepted_with(endpoints(2, 0)), &fleet(11, 12));
    assert_eq!(words(&status)[3..], ["False/Pending", "False/AsSpecified", "Pending"]);
    assert_eq!(told(&status, PROGRAMMED).2, "11 of 12 proxies run the newest version");
}

#[test]
fn a_proxy_that_stays_behind_is_named_and_degrades_the_pool() {
    let behind = |lag: Duration, summary: PoolSummary| {
        let summary = PoolSummary { oldest_lag: Some(lag), slowest: Some("edge/proxy-7".into()), ..summary };
        of(&accepted_with(endpoints(2, 0)), &summary)
    };
    let at = behind(PROXY_BEHIND_AFTER, fleet(11, 12));
    assert_eq!(words(&at)[3..], ["False/Pending", "False/AsSpecified", "Pending"]);
    let past = behind(PROXY_BEHIND_AFTER + Duration::from_millis(1), fleet(11, 12));
    assert_eq!(words(&past)[3..], ["False/Pending", "True/ProxyBehind", "ProxyBehind"]);
    let expected =
        "1 of 12 proxies are behind and serve what the pool said before, edge/proxy-7 for 5s100ms: ";
    let message = told(&past, DEGRADED).2;
    assert!(message.starts_with(expected), "{message}");
    let column = past.summary.as_ref().and_then(|summary| summary.message.as_deref());
    assert_eq!(column, Some(message));

    let long = Duration::from_secs(60);
    let history = behind(long, fleet(12, 12));
    assert_eq!(
        words(&history)[3..],
        ["True/Programmed", "False/AsSpecified", "Programmed"],
        "it took that long"
    );
    let refused = behind(long, refusing(1, 12));
    assert_eq!(words(&refused)[3..], ["False/Nacked", "True/Nacked", "Nacked"], "that is why");
}

#[test]
fn acknowledgements_of_another_configuration_do_not_count() {
    let summary = PoolSummary { config_digest: 1, ..fleet(12, 12) };
    let status = of(&accepted_with(endpoints(2, 0)), &summary);
    assert_eq!(told(&status, PROGRAMMED).2, "0 of 12 proxies run the newest version");
}

#[test]
fn endpoints_that_are_missing_are_told_from_those_that_end() {
    let none = of(&accepted_with(endpoints(0, 0)), &fleet(1, 1));
    assert_eq!(
        words(&none)[2..],
        ["False/NoEndpoints", "True/Programmed", "True/NoEndpoints", "NoEndpoints"]
    );
    let message = told(&none, ENDPOINTS_READY).2;
    assert_eq!(message, "No backend is ready: requests are answered 503");
    let ending = of(&accepted_with(endpoints(0, 3)), &fleet(1, 1));
    let message = told(&ending, ENDPOINTS_READY).2;
    assert_eq!(message, "No backend is ready: 3 are ending and take requests while no other can");
    let mut backends = endpoints(3, 0);
    backends.starved = ["cart".to_owned()].into();
    let starved = of(&accepted_with(backends), &fleet(1, 1));
    assert_eq!(words(&starved)[2], "False/RulesWithoutEndpoints");
    assert!(told(&starved, ENDPOINTS_READY).2.ends_with("answered 503: backend set cart"));
}

#[test]
fn a_backend_that_is_unhealthy_at_some_proxy_is_named_with_its_reason() {
    let pool = served(&[("web", &["a", "b", "-e"])], &[&["web"]]);
    let status = of(&pool, &found(12, &[("web", "a", 1)]));
    assert_eq!(
        words(&status)[2..],
        ["True/EndpointsReady", "True/Programmed", "True/BackendsUnhealthy", "BackendsUnhealthy"]
    );
    let message = "1 of 3 backends take no requests at some proxy: web/a at 1 of 12 proxies: timed out";
    assert_eq!(told(&status, DEGRADED).2, message);
    assert_eq!(status.summary.expect("columns").ready.as_deref(), Some("2/3"), "others send to it");
    let status = of(&pool, &found(12, &[("web", "a", 12)]));
    let counted = status.endpoints.expect("served");
    assert_eq!((counted.total, counted.ready, counted.draining, counted.unhealthy), (3, 1, 1, 1));
    assert_eq!(counted.zones[0].ready, 1);
    assert_eq!(status.summary.expect("columns").ready.as_deref(), Some("1/3"));
    let status = of(&pool, &found(12, &[("web", "-e", 12)]));
    assert_eq!(words(&status)[4..], ["False/AsSpecified", "Programmed"], "what ends is not asked for");
}

#[test]
fn a_rule_whose_ready_backends_are_all_unhealthy_everywhere_has_no_endpoints() {
    let pool = served(&[("api", &["c"]), ("web", &["a", "b"])], &[&["api"], &["web"]]);
    let status = of(&pool, &found(2, &[("web", "a", 2), ("web", "b", 2)]));
    assert_eq!(words(&status)[2..], ["False/Unhealthy", "True/Programmed", "True/Unhealthy", "Unhealthy"]);
    assert_eq!(
        told(&status, ENDPOINTS_READY).2,
        "No ready backend takes the requests of some rules at any proxy, by what checks found: \
         backend set web; web/a at 2 of 2 proxies: timed out; web/b at 2 of 2 proxies: timed out"
    );
    let unused = served(&[("web", &["a"])], &[]);
    let status = of(&unused, &found(1, &[("web", "a", 1)]));
    let message = "No ready backend takes requests at any proxy, by what checks found: \
                   web/a at 1 of 1 proxies: timed out";
    assert_eq!(told(&status, ENDPOINTS_READY), ("False", "Unhealthy", message));
}

#[test]
fn health_is_told_after_what_is_worse() {
    let pool = served(&[("web", &["a", "b"])], &[&["web"]]);
    let unhealthy = found(2, &[("web", "a", 2)]);
    let refused = PoolSummary { config_digest: 7, unhealthy: unhealthy.unhealthy.clone(), ..refusing(1, 2) };
    assert_eq!(words(&of(&pool, &refused))[4..], ["True/Nacked", "Nacked"]);
    let behind = PoolSummary { current: 1, ..unhealthy.clone() };
    assert_eq!(words(&of(&pool, &behind))[4..], ["True/BackendsUnhealthy", "Pending"]);
    let another_configuration = PoolSummary { config_digest: 8, ..unhealthy };
    assert_eq!(words(&of(&pool, &another_configuration))[4], "True/BackendsUnhealthy");
}

#[test]
fn many_unhealthy_backends_fit_the_message_and_say_that_there_may_be_more() {
    let ids: Vec<String> = (0..256).map(|n| format!("10.0.0.{n}:8080")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let down: Vec<_> = ids.iter().map(|id| ("web", *id, 1)).collect();
    let status = of(&served(&[("web", &ids)], &[&["web"]]), &found(2, &down));
    let message = told(&status, DEGRADED).2;
    let expected = "At least 256 of 256 backends take no requests at some proxy (256 of a pool are named): web/10.0.0.0:8080";
    assert!(message.starts_with(expected), "{message}");
    assert!(message.len() <= CONDITION_MESSAGE_BYTES_MAX && message.ends_with(" more"), "{message}");
}

#[test]
fn a_pool_too_large_to_be_sent_says_so() {
    let summary = PoolSummary { too_large_bytes: Some(70 << 20), ..fleet(0, 2) };
    let status = of(&accepted_with(endpoints(2, 0)), &summary);
    assert_eq!(words(&status)[3..], ["False/TooLarge", "True/TooLarge", "TooLarge"]);
    assert!(told(&status, PROGRAMMED).2.contains("split it into several"));
}

#[test]
fn a_condition_keeps_the_time_of_its_last_change_of_status() {
    let before = of(&accepted_with(endpoints(2, 0)), &fleet(1, 1));
    let time = |status: &LoadBalancerPoolStatus, kind| {
        condition(status, kind).expect("there").last_transition_time.0.to_string()
    };
    assert_eq!(time(&before, ACCEPTED), "2026-11-21T10:00:00Z", "whole seconds");
    let after = compute(&accepted_with(endpoints(0, 0)), &fleet(0, 1), Some(&before), later());
    assert_eq!(time(&after, ACCEPTED), "2026-11-21T10:00:00Z");
    assert_eq!(time(&after, PROGRAMMED), "2026-11-21T11:00:00Z");
    let again = compute(&accepted_with(endpoints(0, 0)), &refusing(1, 1), Some(&after), now());
    assert_eq!(time(&again, PROGRAMMED), "2026-11-21T11:00:00Z", "another reason is no other status");
}

#[test]
fn the_status_is_the_same_whatever_else_the_object_shows() {
    let verdict = accepted_with(endpoints(2, 0));
    let before = of(&verdict, &fleet(1, 1));
    let mut foreign = before.clone();
    foreign
        .conditions
        .insert(0, Condition { type_: "example.com/Checked".into(), ..before.conditions[0].clone() });
    foreign.summary = None;
    assert_eq!(compute(&verdict, &fleet(1, 1), Some(&foreign), later()), before);
}

#[test]
fn messages_stay_within_their_limits() {
    let mut verdict = accepted_with(endpoints(2, 0));
    let long = "x".repeat(10_000);
    verdict.rejections =
        (0..500).map(|n| said(&format!("spec.rules[{n}]"), "", &long, Reason::Invalid)).collect();
    verdict.warnings = verdict.rejections.clone();
    verdict.warnings.iter_mut().for_each(|warning| warning.reason = Reason::BackendNotFound);
    if let Some(serving) = &mut verdict.serving {
        serving.endpoints.starved = (0..256).map(|n| format!("set-{n}")).collect();
        serving.endpoints.zones = (0..100).map(|n| (format!("zone-{n}"), 1)).collect();
    }
    let mut summary = refusing(REFUSALS_MAX, 12);
    summary.refusals.iter_mut().for_each(|(_, refusal)| refusal.reason = long.clone());
    let status = of(&verdict, &summary);
    for condition in &status.conditions {
        assert!(condition.message.len() <= CONDITION_MESSAGE_BYTES_MAX, "{}", condition.type_);
    }
    let (_, _, message) = told(&status, ACCEPTED);
    assert!(message.contains("; and 498 more") || message.contains("; and 499 more"), "{message}");
    assert_eq!(status.endpoints.expect("served").zones.len(), STATUS_ZONES_MAX);
    let column = status.summary.and_then(|summary| summary.message).expect("a message");
    assert!(column.len() <= SUMMARY_MESSAGE_BYTES_MAX && column.ends_with("..."));
}

#[test]
fn every_reason_that_a_status_can_have_is_in_the_list() {
    let reasons = reason::all();
    let rejected = [Reason::Invalid, Reason::Conflicted, Reason::LimitReached];
    let rejections = rejected.map(|reason| vec![said("f", "", "r", reason)]);
    let rejections = [Vec::new()].into_iter().chain(rejections).collect::<Vec<_>>();
    // A pool is rejected for the other two.
    let warned = |reason: &Reason| ![Reason::Invalid, Reason::Conflicted].contains(reason);
    let warnings = Reason::ALL.into_iter().filter(warned).map(|reason| vec![said("f", "", "r", reason)]);
    let warnings: Vec<_> = warnings.collect();
    let mut starved = endpoints(2, 0);
    starved.starved = ["web".to_owned()].into();
    let servings = [Some(endpoints(2, 0)), Some(endpoints(0, 0)), Some(starved), None];
    let too_large = PoolSummary { too_large_bytes: Some(1), ..fleet(0, 1) };
    let behind = PoolSummary { oldest_lag: Some(PROXY_BEHIND_AFTER * 2), ..fleet(0, 1) };
    let fleets = [fleet(1, 1), fleet(0, 1), fleet(0, 0), refusing(1, 1), too_large, behind];
    let mut seen = std::collections::BTreeSet::new();
    let sick = served(&[("web", &["a", "b"])], &[&["web"]]);
    for unhealthy in [&[("web", "a", 1)][..], &[("web", "a", 1), ("web", "b", 1)]] {
        for condition in of(&sick, &found(1, unhealthy)).conditions {
            seen.insert((condition.type_, condition.reason));
        }
    }
    for days in [1, 20] {
        for condition in of(&ending_in(days), &fleet(1, 1)).conditions {
            seen.insert((condition.type_, condition.reason));
        }
    }
    for condition in of(&ending_in(-1), &fleet(1, 1)).conditions {
        seen.insert((condition.type_, condition.reason));
    }
    for rejections in &rejections {
        for warnings in warnings.iter().chain([&Vec::new()]) {
            for endpoints in &servings {
                let mut verdict = accepted_with(Endpoints::default());
                verdict.rejections = rejections.clone();
                verdict.warnings = warnings.clone();
                verdict.serving = endpoints.clone().map(|endpoints| Serving {
                    config_digest: DIGEST,
                    endpoints,
                    ..Serving::default()
                });
                if verdict.serving.is_none() && rejections.is_empty() {
                    continue;
                }
                for fleet in &fleets {
                    for condition in of(&verdict, fleet).conditions {
                        seen.insert((condition.type_, condition.reason));
                    }
                }
            }
        }
    }
    for (kind, word) in &seen {
        assert!(reasons.contains(&(kind, word)), "{kind} {word} is not listed");
    }
    let never: Vec<_> = reasons
        .iter()
        .filter(|(kind, word)| !seen.contains(&((*kind).to_owned(), (*word).to_owned())))
        .collect();
    assert_eq!(never, Vec::<&(&str, &str)>::new(), "listed, and never said");
}

#[test]
fn the_page_on_the_status_has_a_row_for_each_reason_and_for_no_other() {
    let page = include_str!("../../../../docs/status.md");
    let reasons = reason::all();
    for (kind, word) in &reasons {
        let row = format!("| {kind} | `{word}` |");
        assert!(page.contains(&row), "docs/status.md has no row {row}");
    }
    let rows = reason::TYPES.iter().map(|kind| page.matches(&format!("\n| {kind} | `")).count());
    assert_eq!(rows.sum::<usize>(), reasons.len(), "docs/status.md has a row for nothing");
}

#[test]
fn a_lag_is_rounded_up_to_what_is_worth_reading() {
    for (lag, shown) in [
        (Duration::ZERO, "0s"),
        (Duration::from_micros(1), "1ms"),
        (Duration::from_millis(999), "999ms"),
        (Duration::from_millis(1_001), "1s100ms"),
        (Duration::from_millis(9_999), "10s"),
        (Duration::from_millis(61_001), "1m2s"),
        (Duration::MAX, "99999h"),
    ] {
        assert_eq!(shown_lag(lag).to_string(), shown);
    }
}

//! Verdict and fleet to status: pure, so that every replica writes the same.

use super::expiry::{self, Nearness};
use super::health::Health;
use super::reason::{self, ACCEPTED, ENDPOINTS_READY, PROGRAMMED, RESOLVED_REFS};
use super::text::{self, Limits};
use super::{Endpoints, Serving, Verdict};
use crate::compile::{Reason, Rejection};
use crate::store::{BackendName, PoolSummary, Unhealthy};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use std::time::Duration;
use weir_crds::{
    CONDITION_MESSAGE_BYTES_MAX, EndpointStatus, LoadBalancerPoolStatus, ProgrammedStatus, STATUS_ZONES_MAX,
    SUMMARY_MESSAGE_BYTES_MAX, StatusSummary, ZoneStatus,
};

/// Room for the words around a list.
const LIST: Limits = Limits { item_bytes_max: 400, bytes_max: CONDITION_MESSAGE_BYTES_MAX - WORDS_BYTES_MAX };
const WORDS_BYTES_MAX: usize = 224;

/// Said where there may be more of them than are named.
const NAMED: &str = " (256 of a pool are named)";

/// A proxy that lacks a change for longer than this is behind: what usually takes milliseconds did not pass by itself.
pub const PROXY_BEHIND_AFTER: Duration = Duration::from_secs(5);

/// What one condition says.
struct Finding {
    status: &'static str,
    reason: &'static str,
    message: String,
}

/// The status of a pool, with the conditions of [`reason::TYPES`] and no others.
///
/// `previous` gives the times since when each condition has its status; whatever else is in it is of no account. The
/// times have whole seconds, as the API server keeps them.
#[must_use]
pub fn compute(
    verdict: &Verdict,
    summary: &PoolSummary,
    previous: Option<&LoadBalancerPoolStatus>,
    now: Timestamp,
) -> LoadBalancerPoolStatus {
    let fleet = in_force(verdict, summary);
    let health = Health::of(verdict, &fleet);
    let findings = findings(verdict, &fleet, &health, now);
    let matters = most_important(&findings);
    let lag = fleet.oldest_lag.map(shown_lag);
    let endpoints = verdict.serving.as_ref().map(|_| counts(&health));
    let columns = StatusSummary {
        ready: endpoints.as_ref().map(|endpoints| format!("{}/{}", endpoints.ready, endpoints.total)),
        proxies: Some(format!("{}/{}", fleet.current, fleet.proxies)),
        state: Some(matters.reason.to_owned()),
        lag: lag.map(|lag| lag.to_string()),
        message: Some(text::cut(&matters.message, SUMMARY_MESSAGE_BYTES_MAX)),
    };
    let programmed = verdict.serving.as_ref().map(|serving| ProgrammedStatus {
        proxies: number(fleet.proxies),
        current: number(fleet.current),
        oldest_lag: lag,
        config_version: spelled(serving.config_digest),
    });
    let conditions = reason::TYPES.iter().zip(findings).map(|(kind, finding)| {
        let before = previous.and_then(|status| condition(status, kind));
        finding.since(kind, verdict.generation, before, now)
    });
    LoadBalancerPoolStatus {
        observed_generation: Some(verdict.generation),
        endpoints,
        programmed,
        conditions: conditions.collect(),
        summary: Some(columns),
    }
}

/// A condition of a status by its type.
pub(super) fn condition<'a>(status: &'a LoadBalancerPoolStatus, kind: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|condition| condition.type_ == kind)
}

/// A configuration's digest as the status spells it.
fn spelled(digest: u64) -> String {
    format!("{digest:016x}")
}

/// What the proxies make of the configuration of the verdict: none is current while the store has another one. Their
/// backends are the same.
fn in_force(verdict: &Verdict, summary: &PoolSummary) -> PoolSummary {
    match &verdict.serving {
        Some(serving) if serving.config_digest != summary.config_digest => {
            let unhealthy = summary.unhealthy.clone();
            PoolSummary { proxies: summary.proxies, unhealthy, ..PoolSummary::default() }
        }
        Some(_) => summary.clone(),
        None => PoolSummary::default(),
    }
}

/// In the order of [`reason::TYPES`].
fn findings(verdict: &Verdict, fleet: &PoolSummary, health: &Health, now: Timestamp) -> [Finding; 6] {
    let unserved = || Finding::unknown("Nothing of the pool is served until it is accepted");
    let (refs, endpoints) = match &verdict.serving {
        Some(serving) => (resolved_refs(verdict), endpoints_ready(&serving.endpoints, health, fleet)),
        None => (unserved(), unserved()),
    };
    let programmed = programmed(verdict, fleet);
    let unhealthy = backends_unhealthy(health, fleet);
    let (nearness, expiring) = match &verdict.serving {
        Some(serving) => expiring(serving, now),
        None => (Nearness::Far, unserved()),
    };
    let ends = (nearness >= Nearness::Week).then(|| Finding {
        status: "True",
        reason: reason::CERTIFICATE_EXPIRING,
        message: expiring.message.clone(),
    });
    let passing = proxy_behind(fleet).or(unhealthy).or(ends).or_else(|| overruled(verdict));
    let degraded = degraded(verdict, [&programmed, &refs, &endpoints], passing);
    [accepted(verdict), refs, endpoints, programmed, degraded, expiring]
}

/// The one that a user has to look at first.
fn most_important([accepted, refs, endpoints, programmed, degraded, _]: &[Finding; 6]) -> &Finding {
    let is_proxies_word = [reason::NACKED, reason::TOO_LARGE].contains(&programmed.reason);
    if !accepted.holds() {
        accepted
    } else if is_proxies_word {
        programmed
    } else if !refs.holds() {
        refs
    } else if programmed.reason != reason::NO_PROXIES && !endpoints.holds() {
        endpoints
    } else if degraded.reason == reason::PROXY_BEHIND || (programmed.holds() && degraded.holds()) {
        degraded
    } else {
        programmed
    }
}

fn accepted(verdict: &Verdict) -> Finding {
    let gravest = verdict.rejections.iter().map(|rejection| rejection.reason).min();
    match gravest {
        None => Finding::holds_as(
            ACCEPTED,
            "The specification is valid and claims nothing that another pool has".to_owned(),
        ),
        Some(gravest) => Finding::fails(gravest.as_str(), sentences(&verdict.rejections)),
    }
}

fn resolved_refs(verdict: &Verdict) -> Finding {
    let rank =
        |reason: Reason| reason::UNRESOLVED.iter().position(|unresolved| *unresolved == reason.as_str());
    let gravest = verdict.warnings.iter().filter_map(|warning| rank(warning.reason)).min();
    match gravest {
        None => Finding::holds_as(
            RESOLVED_REFS,
            "Every Service and Secret that the pool names is there and usable".to_owned(),
        ),
        Some(gravest) => {
            let unresolved = verdict.warnings.iter().filter(|warning| rank(warning.reason).is_some());
            Finding::fails(reason::UNRESOLVED[gravest], sentences(unresolved))
        }
    }
}

/// What the pool says of a port that another one speaks for.
fn overruled(verdict: &Verdict) -> Option<Finding> {
    let mut overruled =
        verdict.warnings.iter().filter(|warning| warning.reason == Reason::Overruled).peekable();
    overruled.peek()?;
    let message = sentences(overruled);
    Some(Finding { status: "True", reason: Reason::Overruled.as_str(), message })
}

/// `endpoints` as the cluster says, `health` as the proxies say.
fn endpoints_ready(endpoints: &Endpoints, health: &Health, fleet: &PoolSummary) -> Finding {
    let Endpoints { total, ready, draining, starved, .. } = endpoints;
    if *ready == 0 {
        let rest = match draining {
            0 => "requests are answered 503".to_owned(),
            _ => format!("{draining} are ending and take requests while no other can"),
        };
        return Finding::fails(reason::NO_ENDPOINTS, format!("No backend is ready: {rest}"));
    }
    if !starved.is_empty() {
        let sets = text::listed(starved.iter().map(|set| format!("backend set {set}")), 0, LIST);
        let message = format!("No backend for the requests of some rules, which are answered 503: {sets}");
        return Finding::fails(reason::RULES_WITHOUT_ENDPOINTS, message);
    }
    let healthy = health.endpoints.ready;
    if healthy == 0 || !health.lost.is_empty() {
        let sets = health.lost.iter().map(|set| format!("backend set {set}"));
        let found = health.unhealthy.iter().map(|(name, of)| spelled_out(name, of, fleet));
        let message = match health.lost.is_empty() {
            true => "No ready backend takes requests at any proxy, by what checks found",
            false => "No ready backend takes the requests of some rules at any proxy, by what checks found",
        };
        let message = format!("{message}: {}", text::listed(sets.chain(found), 0, LIST));
        return Finding::fails(reason::UNHEALTHY, message);
    }
    Finding::holds_as(ENDPOINTS_READY, format!("{healthy} of {total} backends are ready"))
}

/// While checks keep requests from any ready backend at any proxy.
fn backends_unhealthy(health: &Health, fleet: &PoolSummary) -> Option<Finding> {
    if health.unhealthy.is_empty() {
        return None;
    }
    let found = health.unhealthy.iter().map(|(name, of)| spelled_out(name, of, fleet));
    let message = format!(
        "{}{} of {} backends take no requests at some proxy{}: {}",
        if health.is_cut { "At least " } else { "" },
        health.count,
        health.endpoints.total,
        if health.is_cut { NAMED } else { "" },
        text::listed(found, 0, LIST)
    );
    Some(Finding { status: "True", reason: reason::BACKENDS_UNHEALTHY, message })
}

/// While some proxy lacks a change that was seen more than [`PROXY_BEHIND_AFTER`] ago.
fn proxy_behind(fleet: &PoolSummary) -> Option<Finding> {
    let lag = fleet.oldest_lag.filter(|lag| fleet.is_behind() && *lag > PROXY_BEHIND_AFTER)?;
    let PoolSummary { proxies, current, .. } = fleet;
    let behind = proxies.saturating_sub(*current);
    let slowest = text::cut(fleet.slowest.as_deref().unwrap_or("one of them"), LIST.item_bytes_max);
    let message = format!(
        "{behind} of {proxies} proxies are behind and serve what the pool said before, {slowest} for {}: look at that \
         proxy's log, and whether it is overloaded or cut off",
        shown_lag(lag)
    );
    Some(Finding { status: "True", reason: reason::PROXY_BEHIND, message })
}

fn expiring(serving: &Serving, now: Timestamp) -> (Nearness, Finding) {
    let (nearness, message) = expiry::found(&serving.validities, now, LIST);
    let status = if nearness > Nearness::Far { "True" } else { "False" };
    (nearness, Finding { status, reason: nearness.reason(), message })
}

fn spelled_out(name: &BackendName, of: &Unhealthy, fleet: &PoolSummary) -> String {
    let BackendName { set, backend } = name;
    let Unhealthy { reason, proxies } = of;
    format!("{set}/{backend} at {proxies} of {} proxies: {reason}", fleet.proxies)
}

fn programmed(verdict: &Verdict, fleet: &PoolSummary) -> Finding {
    let PoolSummary { proxies, current, refused, .. } = fleet;
    let Some(Serving { config_digest, .. }) = verdict.serving else {
        let message = "Nothing of the pool is served until it is accepted".to_owned();
        return Finding::fails(reason::NOT_ACCEPTED, message);
    };
    if *proxies == 0 {
        let message = "No proxy that serves this pool is connected".to_owned();
        return Finding::fails(reason::NO_PROXIES, message);
    }
    if let Some(bytes) = fleet.too_large_bytes {
        let message = format!(
            "The pool takes {bytes} bytes, more than the {} that a proxy takes: split it into several",
            weir_proto::limits::POOL_UPDATE_BYTES_MAX
        );
        return Finding::fails(reason::TOO_LARGE, message);
    }
    if *refused > 0 {
        let named = fleet.refusals.iter().map(|(proxy, refusal)| {
            let field = if refusal.field.is_empty() { "spec" } else { &refusal.field };
            format!("{proxy}: {field}: {}", refusal.reason)
        });
        let more = usize::try_from(*refused).unwrap_or(usize::MAX).saturating_sub(fleet.refusals.len());
        let message = format!(
            "{refused} of {proxies} proxies refuse this configuration and serve their last good one: {}",
            text::listed(named, more, LIST)
        );
        return Finding::fails(reason::NACKED, message);
    }
    if !verdict.rejections.is_empty() {
        let message = format!(
            "{current} of {proxies} proxies serve what the pool said before (configuration {})",
            spelled(config_digest)
        );
        return Finding::fails(reason::SERVES_LAST_GOOD, message);
    }
    if current < proxies {
        let message = format!("{current} of {proxies} proxies run the newest version");
        return Finding::fails(reason::PENDING, message);
    }
    Finding::holds_as(PROGRAMMED, format!("{current} of {proxies} proxies run the newest version"))
}

/// True for what is served otherwise than specified; not for what nobody serves yet.
fn degraded(verdict: &Verdict, causes: [&Finding; 3], otherwise: Option<Finding>) -> Finding {
    let worse = |reason, message| Finding { status: "True", reason, message };
    if !verdict.rejections.is_empty() {
        return match verdict.serving {
            Some(_) => worse(
                reason::SERVES_LAST_GOOD,
                "The pool is not accepted, and what it said before is served".to_owned(),
            ),
            None => worse(
                reason::NOT_ACCEPTED,
                "The pool is not accepted, and nothing of it is served".to_owned(),
            ),
        };
    }
    let is_yet_to_come = |finding: &Finding| [reason::PENDING, reason::NO_PROXIES].contains(&finding.reason);
    match causes.into_iter().find(|finding| !finding.holds() && !is_yet_to_come(finding)) {
        Some(cause) => worse(cause.reason, cause.message.clone()),
        None => otherwise.unwrap_or_else(|| Finding {
            status: "False",
            reason: reason::AS_SPECIFIED,
            message: "Nothing is known to be served otherwise than specified".to_owned(),
        }),
    }
}

/// `field: value rule`, without the pool, whose status this is.
fn sentences<'a>(rejections: impl IntoIterator<Item = &'a Rejection>) -> String {
    let sentence = |Rejection { field, value, rule, .. }: &Rejection| {
        let said = if value.is_empty() { rule.clone() } else { format!("{value} {rule}") };
        if field.is_empty() { said } else { format!("{field}: {said}") }
    };
    text::listed(rejections.into_iter().map(sentence), 0, LIST)
}

fn counts(health: &Health) -> EndpointStatus {
    let endpoints = &health.endpoints;
    let zones = endpoints.zones.iter().take(STATUS_ZONES_MAX);
    EndpointStatus {
        total: number(endpoints.total),
        ready: number(endpoints.ready),
        draining: number(endpoints.draining),
        unhealthy: number(health.count),
        zones: zones.map(|(name, ready)| ZoneStatus { name: name.clone(), ready: number(*ready) }).collect(),
    }
}

fn number(count: impl TryInto<i32>) -> i32 {
    count.try_into().unwrap_or(i32::MAX)
}

/// Rounded up to what is worth reading: milliseconds below 1 s, tenths below 10 s, seconds above.
fn shown_lag(lag: Duration) -> weir_crds::Duration {
    const SHOWN_MS_MAX: u64 = 99_999 * 3_600_000;
    let ms = u64::try_from(lag.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX).min(SHOWN_MS_MAX);
    let unit = match ms {
        ..1_000 => 1,
        1_000..10_000 => 100,
        10_000.. => 1_000,
    };
    weir_crds::Duration::from_millis(ms.div_ceil(unit) * unit)
}

impl Finding {
    fn holds_as(reason: &'static str, message: String) -> Self {
        Self { status: "True", reason, message }
    }

    fn fails(reason: &'static str, message: String) -> Self {
        Self { status: "False", reason, message }
    }

    fn unknown(message: &str) -> Self {
        Self { status: "Unknown", reason: reason::NOT_ACCEPTED, message: message.to_owned() }
    }

    fn holds(&self) -> bool {
        self.status == "True"
    }

    fn since(self, kind: &str, generation: i64, before: Option<&Condition>, now: Timestamp) -> Condition {
        let same = before.filter(|before| before.status == self.status);
        let whole_second = Timestamp::from_second(now.as_second()).unwrap_or(now);
        Condition {
            last_transition_time: same.map_or(Time(whole_second), |same| same.last_transition_time.clone()),
            message: text::cut(&self.message, CONDITION_MESSAGE_BYTES_MAX),
            observed_generation: Some(generation),
            reason: self.reason.to_owned(),
            status: self.status.to_owned(),
            type_: kind.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;

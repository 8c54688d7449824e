//! Rules, from the wire: which requests, to which sets, and for how long.

use super::filters::{FiltersSpec, filters};
use super::matches::MatchesRead;
use super::traffic::{self, IpRulesRead};
use super::{
    ListenerSpec, Rejection, SetSpec, check_hostname, duration, header_text, sessions, token, within,
};
use lb_core::addresses::IpRules;
use lb_core::rate::LimitPolicy;
use lb_core::resilience::{RETRIES_MAX, RetryPolicy};
use lb_core::route::{RouteMatch, SplitMatch, SplitSource, Timeouts};
use lb_core::sessions::SessionPolicy;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use weir_proto::limits::{BACKOFF_MS, CONNECTION_IDLE_MS, FLOW_IDLE_MS, HEDGE_MS};
use weir_proto::push;

/// Matches that send a request to one set of a rule.
const SPLIT_MATCHES_MAX: usize = 8;
/// Bytes of the name and of the value of such a match.
const SPLIT_BYTES_MAX: usize = 256;
/// Statuses that are tried again.
const RETRY_STATUSES_MAX: usize = 16;

#[derive(Debug, Clone)]
pub(in super::super) struct RuleSpec {
    /// Empty where it has none.
    pub(in super::super) name: Arc<str>,
    /// Empty: every host of the listener.
    pub(in super::super) hostnames: Vec<String>,
    /// At least one.
    pub(in super::super) matches: Arc<[RouteMatch]>,
    /// At least one, unless a filter answers.
    pub(in super::super) sets: Vec<WeightedSpec>,
    pub(in super::super) timeouts: Timeouts,
    pub(in super::super) retry: RetryPolicy,
    pub(in super::super) sessions: Option<SessionPolicy>,
    /// `None` for no limit.
    pub(in super::super) body_bytes_max: Option<u64>,
    pub(in super::super) ip_rules: Option<Arc<IpRules>>,
    /// At most [`lb_core::rate::LIMITS_MAX`].
    pub(in super::super) limits: Vec<LimitPolicy>,
    /// `None`: nothing is done.
    pub(in super::super) filters: Option<FiltersSpec>,
    /// Names of the listeners that it serves; empty: every one.
    listeners: Vec<String>,
}

impl RuleSpec {
    pub(in super::super) fn serves(&self, listener: &ListenerSpec) -> bool {
        self.listeners.is_empty() || self.listeners.iter().any(|name| **name == *listener.name)
    }
}

/// A set of a rule.
#[derive(Debug, Clone)]
pub(in super::super) struct WeightedSpec {
    /// In [`super::PoolSpec::sets`].
    pub(in super::super) name: String,
    pub(in super::super) weight: u32,
    pub(in super::super) matches: Vec<SplitMatch>,
}

/// What several rules of a pool share, each read once.
#[derive(Debug, Default)]
pub(super) struct Shared<'a> {
    ip_rules: IpRulesRead<'a>,
    matches: MatchesRead<'a>,
}

/// Checks a rule; its sets have to be among those of the pool.
pub(super) fn rule<'a>(
    index: usize,
    wire: &'a push::Rule,
    sets: &BTreeMap<String, SetSpec>,
    pool: &Arc<str>,
    shared: &mut Shared<'a>,
) -> Result<RuleSpec, Rejection> {
    let at = format!("spec.rules[{index}]");
    let field = |rest: &str| format!("{at}.{rest}");
    for hostname in &wire.hostnames {
        check_hostname(hostname).map_err(|reason| Rejection::new(field("hostnames"), reason))?;
    }
    let matches = shared.matches.read(&at, &wire.paths)?;
    let read = |wire| filters(&at, wire, &matches, |name| sets.contains_key(name));
    let filters = wire.filters.as_ref().map(read).transpose()?;
    if wire.backend_sets.is_empty() && !filters.as_ref().is_some_and(FiltersSpec::answer) {
        return Err(Rejection::new(field("backendSets"), "the rule names no backend set: name at least one"));
    }
    Ok(RuleSpec {
        name: wire.name.as_str().into(),
        hostnames: wire.hostnames.clone(),
        matches: matches.into(),
        sets: weighted(&at, &wire.backend_sets, sets)?,
        timeouts: timeouts(&at, wire)?,
        retry: match &wire.retry {
            Some(retry) => self::retry(&field("retry"), retry)?,
            None => RetryPolicy::default(),
        },
        sessions: match &wire.sessions {
            Some(sessions) => Some(sessions::read(&field("sessionPersistence"), sessions, pool)?),
            None => None,
        },
        body_bytes_max: (wire.request_body_bytes_max > 0).then_some(wire.request_body_bytes_max),
        ip_rules: match &wire.ip_rules {
            Some(wire) => Some(shared.ip_rules.read(&field("ipRules"), wire)?),
            None => None,
        },
        limits: traffic::limits(&field("rateLimits"), &wire.rate_limits)?,
        filters,
        listeners: wire.listeners.clone(),
    })
}

fn weighted(
    field: &str,
    wire: &[push::WeightedSet],
    sets: &BTreeMap<String, SetSpec>,
) -> Result<Vec<WeightedSpec>, Rejection> {
    let mut weighted_sets = Vec::with_capacity(wire.len());
    let mut names = BTreeSet::new();
    for (nth, weighted) in wire.iter().enumerate() {
        let field = format!("{field}.backendSets[{nth}]");
        let at = format!("{field}.name");
        if !sets.contains_key(&weighted.set) {
            let reason = format!(
                "there is no backend set {:?} in this pool: add it, or correct the name",
                weighted.set
            );
            return Err(Rejection::new(at, reason));
        }
        if !names.insert(&weighted.set) {
            let reason =
                format!("backend set {:?} is named twice: add the weights up in one line", weighted.set);
            return Err(Rejection::new(at, reason));
        }
        weighted_sets.push(WeightedSpec {
            name: weighted.set.clone(),
            weight: weighted.weight,
            matches: split_matches(&field, &weighted.matches)?,
        });
    }
    Ok(weighted_sets)
}

fn split_matches(field: &str, wire: &[push::SplitMatch]) -> Result<Vec<SplitMatch>, Rejection> {
    use push::split_match::Source;
    if wire.len() > SPLIT_MATCHES_MAX {
        let reason = format!("{} matches are too many: use at most {SPLIT_MATCHES_MAX}", wire.len());
        return Err(Rejection::new(format!("{field}.matches"), reason));
    }
    let read = |(nth, wire): (usize, &push::SplitMatch)| {
        let field = format!("{field}.matches[{nth}]");
        let name = |name: &str| token(&field, ".name", name, SPLIT_BYTES_MAX);
        let source = match &wire.source {
            Some(Source::Header(header)) => SplitSource::Header(name(&header.to_ascii_lowercase())?),
            Some(Source::Cookie(cookie)) => SplitSource::Cookie(name(cookie)?),
            None => {
                let reason = "the kind of match is not known to this proxy: upgrade the proxies";
                return Err(Rejection::new(format!("{field}.type"), reason));
            }
        };
        let value = wire.value.as_ref().map(|value| header_text(&field, ".value", value, SPLIT_BYTES_MAX));
        Ok(SplitMatch { source, value: value.transpose()? })
    };
    wire.iter().enumerate().map(read).collect()
}

fn timeouts(field: &str, wire: &push::Rule) -> Result<Timeouts, Rejection> {
    let limit = |ms: u64| (ms > 0).then(|| Duration::from_millis(ms));
    Ok(Timeouts {
        request: limit(wire.request_timeout_ms),
        attempt: limit(wire.attempt_timeout_ms),
        idle: limit(wire.idle_timeout_ms).unwrap_or(Timeouts::default().idle),
        total: limit(wire.total_timeout_ms),
        connection_idle: match wire.connection_idle_timeout_ms {
            0 => Timeouts::NONE.connection_idle,
            ms => duration(field, ".timeouts.connectionIdle", ms, CONNECTION_IDLE_MS)?,
        },
        flow_idle: match wire.flow_idle_timeout_ms {
            0 => Timeouts::NONE.flow_idle,
            ms => duration(field, ".timeouts.flowIdle", ms, FLOW_IDLE_MS)?,
        },
    })
}

fn retry(field: &str, wire: &push::Retry) -> Result<RetryPolicy, Rejection> {
    if wire.statuses.len() > RETRY_STATUSES_MAX {
        let reason =
            format!("{} statuses are too many: use at most {RETRY_STATUSES_MAX}", wire.statuses.len());
        return Err(Rejection::new(format!("{field}.codes"), reason));
    }
    let status = |status: &u32| within(field, ".codes", *status, (400, 599));
    Ok(RetryPolicy {
        retries_max: within(field, ".attempts", wire.retries_max, (0, RETRIES_MAX))?,
        statuses: wire.statuses.iter().map(status).collect::<Result<_, _>>()?,
        backoff: duration(field, ".backoff", wire.backoff_ms, BACKOFF_MS)?,
        hedge_after: match wire.hedge_after_ms {
            0 => None,
            ms => Some(duration(field, ".hedgeAfter", ms, HEDGE_MS)?),
        },
    })
}

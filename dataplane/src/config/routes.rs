//! A pool's routes, from its checked rules and its sets.

use super::convert::{FallbackSpec, PoolSpec, RuleSpec, TargetSpec};
use crate::health::Ids;
use crate::listener::Transport;
use lb_core::backend::BackendSet;
use lb_core::rate::{LimitPolicy, Limiter};
use lb_core::resilience::RetryPolicy;
use lb_core::route::{
    Answer, Fallback, Filters, Mirror, Route, Sessions, Timeouts, WeightedSet, Written, WrittenListener,
};
use lb_core::sessions::{SessionPolicy, SessionSource, SessionTable};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Longest life of a mirrored request whose rule has no limit.
const MIRROR_TIMEOUT: Duration = Duration::from_secs(60);

/// Sessions of a pool that this proxy remembers, and what the table was made for.
#[derive(Debug, Clone)]
pub(super) struct PoolSessions {
    idle_timeout: Duration,
    sessions_max: u32,
    table: Arc<SessionTable>,
}

impl PoolSessions {
    /// The table that the rules need, `None` where none does: the one `before` where it is of the same size and time.
    /// The pool has one table for all of its rules, as large and for as long as the rule says that says the most.
    pub(super) fn of(pool: &str, rules: &[RuleSpec], before: Option<&Self>) -> Option<Self> {
        let remembered =
            || rules.iter().filter_map(|rule| rule.sessions.as_ref()).filter(|rule| is_remembered(rule));
        let idle_timeout = remembered().map(|policy| policy.idle_timeout).max()?;
        let sessions_max = remembered().map(|policy| policy.sessions_max).max()?;
        match before {
            Some(before) if (before.idle_timeout, before.sessions_max) == (idle_timeout, sessions_max) => {
                return Some(before.clone());
            }
            Some(before) => tracing::info!(
                %pool,
                ?idle_timeout,
                sessions_max,
                idle_timeout_before = ?before.idle_timeout,
                sessions_max_before = before.sessions_max,
                "sessions are forgotten: their table has another size or idle timeout now"
            ),
            None => {}
        }
        let table = Arc::new(SessionTable::new(sessions_max, idle_timeout));
        Some(Self { idle_timeout, sessions_max, table })
    }
}

/// Limits of a pool with what they have counted, by their ids.
#[derive(Debug, Clone, Default)]
pub(super) struct PoolLimits(BTreeMap<Arc<str>, Arc<Limiter>>);

impl PoolLimits {
    /// The limits of these rules: the one `before` where it is the same. One that is changed counts from nothing. Keys are
    /// hashed with this seed.
    pub(super) fn of(rules: &[RuleSpec], before: Option<&Self>, seed: u64) -> Self {
        let made = |policy: &LimitPolicy| {
            let before = before.and_then(|before| before.0.get(&policy.id));
            let same = before.filter(|limiter| limiter.policy == *policy);
            same.map_or_else(|| Arc::new(Limiter::new(policy.clone(), seed)), Arc::clone)
        };
        let mut limits = BTreeMap::new();
        for policy in rules.iter().flat_map(|rule| &rule.limits) {
            limits.entry(Arc::clone(&policy.id)).or_insert_with(|| made(policy));
        }
        Self(limits)
    }

    /// Each once.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Limiter>> {
        self.0.values()
    }

    fn of_rule(&self, rule: &RuleSpec) -> Vec<Arc<Limiter>> {
        rule.limits.iter().filter_map(|policy| self.0.get(&policy.id)).map(Arc::clone).collect()
    }
}

/// The tables of these pools.
pub(super) fn tables<'a>(pools: impl Iterator<Item = &'a PoolSessions>) -> Vec<Arc<SessionTable>> {
    pools.map(|sessions| Arc::clone(&sessions.table)).collect()
}

fn is_remembered(policy: &SessionPolicy) -> bool {
    !matches!(policy.source, SessionSource::Sealed(_))
}

/// What a pool's routes are made of, beside its rules.
pub(super) struct Parts<'a> {
    pub(super) sets: &'a BTreeMap<String, Arc<BackendSet>>,
    pub(super) sessions: Option<&'a PoolSessions>,
    pub(super) limits: &'a PoolLimits,
    pub(super) ids: &'a Ids,
}

impl Parts<'_> {
    /// One route for each rule.
    pub(super) fn routes(&self, pool: &str, spec: &PoolSpec) -> Vec<Arc<Route>> {
        let pool: Arc<str> = pool.into();
        let listeners = spec.listeners.iter().map(|listener| WrittenListener {
            name: Arc::clone(&listener.name),
            port: listener.port,
            is_of_datagrams: listener.door().transport == Transport::Udp,
        });
        let listeners: Arc<[WrittenListener]> = listeners.collect();
        let rules = spec.rules.iter().enumerate().map(|(index, rule)| {
            let (name, matches) = (Arc::clone(&rule.name), Arc::clone(&rule.matches));
            let written = Written { name, matches, listeners: Arc::clone(&listeners) };
            Arc::new(Route { written, ..self.route(Arc::clone(&pool), index, rule, spec) })
        });
        rules.collect()
    }

    fn route(&self, pool: Arc<str>, index: usize, rule: &RuleSpec, spec: &PoolSpec) -> Route {
        let weighted = rule.sets.iter().map(|of_rule| WeightedSet {
            matches: of_rule.matches.clone(),
            ..self.weighted(&of_rule.name, of_rule.weight, spec)
        });
        let sessions = rule.sessions.as_ref().map(|policy| {
            let table =
                self.sessions.filter(|_| is_remembered(policy)).map(|sessions| Arc::clone(&sessions.table));
            Arc::new(Sessions { policy: policy.clone(), table })
        });
        Route {
            fallbacks: self.fallbacks(rule, spec),
            timeouts: rule.timeouts.clone(),
            retry: rule.retry.clone(),
            sessions,
            body_bytes_max: rule.body_bytes_max,
            ip_rules: rule.ip_rules.clone(),
            limits: self.limits.of_rule(rule),
            filters: self.filters(&pool, index, rule, spec),
            ..Route::new(self.ids.next(), pool, index, weighted.collect())
        }
    }

    fn filters(
        &self,
        pool: &Arc<str>,
        index: usize,
        rule: &RuleSpec,
        spec: &PoolSpec,
    ) -> Option<Arc<Filters>> {
        let own = rule.filters.as_ref()?;
        let mirrors = own.mirrors.iter().map(|mirror| {
            let set = vec![self.weighted(&mirror.set, 1, spec)];
            // A copy is tried once, and does not outlast what it is a copy of by much.
            let route = Route {
                timeouts: Timeouts {
                    total: rule.timeouts.request.or(Some(MIRROR_TIMEOUT)),
                    ..rule.timeouts.clone()
                },
                retry: RetryPolicy { retries_max: 0, hedge_after: None, ..rule.retry.clone() },
                ..Route::new(self.ids.next(), Arc::clone(pool), index, set)
            };
            let (numerator, denominator) = (mirror.numerator, mirror.denominator);
            Mirror { route: Arc::new(route), numerator, denominator }
        });
        let (answer, rewrite) = match own.target.clone() {
            None => (None, None),
            Some(TargetSpec::Rewrite(rewrite)) => (None, Some(rewrite)),
            Some(TargetSpec::Redirect(redirect)) => (Some(Answer::Redirect(redirect)), None),
            Some(TargetSpec::Response(response)) => (Some(Answer::Response(response)), None),
        };
        Some(Arc::new(Filters {
            validation: own.validation.clone(),
            cors: own.cors.clone(),
            answer,
            rewrite,
            request_headers: own.request_headers.clone(),
            mirrors: mirrors.collect(),
            response_headers: own.response_headers.clone(),
        }))
    }

    /// The sets that only fallbacks of this rule name, one by one through their own fallbacks.
    fn fallbacks(&self, rule: &RuleSpec, spec: &PoolSpec) -> Vec<WeightedSet> {
        let mut seen: BTreeSet<&str> = rule.sets.iter().map(|of_rule| of_rule.name.as_str()).collect();
        let mut made = Vec::new();
        for of_rule in &rule.sets {
            let mut at = of_rule.name.as_str();
            while let Some(FallbackSpec::Set(next)) = spec.fallbacks.get(at)
                && seen.insert(next)
            {
                made.push(self.weighted(next, 0, spec));
                at = next;
            }
        }
        made
    }

    fn weighted(&self, name: &str, weight: u32, spec: &PoolSpec) -> WeightedSet {
        let set = |name: &str| {
            Arc::clone(self.sets.get(name).expect("the conversion has checked that each name is there"))
        };
        let fallback = spec.fallbacks.get(name).map(|fallback| match fallback {
            FallbackSpec::Set(other) => Fallback::Set(set(other)),
            FallbackSpec::Response(response) => Fallback::Response(Arc::clone(response)),
        });
        WeightedSet { fallback, ..WeightedSet::new(set(name), weight) }
    }
}

/// Every set that these routes send to, also in place of another, each once.
pub(super) fn sets_of<'a>(routes: impl Iterator<Item = &'a Arc<Route>>) -> Vec<Arc<BackendSet>> {
    let mirrors = |route: &'a Arc<Route>| route.filters.iter().flat_map(|filters| &filters.mirrors);
    let routes = routes.flat_map(|route| mirrors(route).map(|mirror| &mirror.route).chain([route]));
    let named = routes.flat_map(|route| route.sets.iter().chain(&route.fallbacks));
    once(named.map(|weighted| &weighted.set))
}

/// Sets without those that were there before.
pub(super) fn once<'a>(sets: impl Iterator<Item = &'a Arc<BackendSet>>) -> Vec<Arc<BackendSet>> {
    let mut seen = BTreeSet::new();
    sets.filter(|set| seen.insert(set.id)).map(Arc::clone).collect()
}

//! What the proxies found of the backends that the cluster calls ready: which take no requests at some proxy, which at
//! none, and which rules are left without any.
//!
//! Only ready backends are looked at. One that ends fails its checks as a matter of course, and one that is gone from
//! the pool is nobody's concern, whatever a proxy said of it last.

use super::{Endpoints, Verdict};
use crate::compile::{BackendSetContent, CompiledPool};
use crate::store::{BackendName, PoolSummary, Unhealthy};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use weir_proto::limits::UNHEALTHY_NAMED_MAX;
use weir_proto::push::{Backend, BackendState, PoolConfig};

/// The backends behind each set, and the sets behind each rule.
#[derive(Debug, Clone, Default)]
pub struct Members {
    /// Shared with what was compiled.
    sets: BTreeMap<String, Arc<BackendSetContent>>,
    /// Those that take a share, in rules that differ.
    rules: BTreeSet<Vec<String>>,
}

/// What proxies found of the ready ones of [`Members`].
#[derive(Debug, Default, PartialEq)]
pub(super) struct Health {
    /// Take no requests at some proxy.
    pub(super) unhealthy: BTreeMap<BackendName, Unhealthy>,
    /// The same, those that sets share once.
    pub(super) count: usize,
    /// Whether further ones may be without a name.
    pub(super) is_cut: bool,
    /// What of the endpoints takes requests at some proxy: those that take none at all are not ready.
    pub(super) endpoints: Endpoints,
    /// Sets of rules whose ready backends take no requests at any proxy.
    pub(super) lost: BTreeSet<String>,
}

impl Members {
    pub(super) fn of(pool: &CompiledPool) -> Self {
        let sets = pool.sets.iter().map(|(name, set)| (name.clone(), Arc::clone(&set.content)));
        Self::new(sets.collect(), &pool.config)
    }

    pub(super) fn new(sets: BTreeMap<String, Arc<BackendSetContent>>, config: &PoolConfig) -> Self {
        let rules = config.rules.iter().map(|rule| {
            let with_share = rule.backend_sets.iter().filter(|set| set.weight > 0);
            with_share.map(|set| set.set.clone()).collect()
        });
        Self { sets, rules: rules.collect() }
    }

    /// All of all sets; one that two sets share is in it twice.
    pub(super) fn backends(&self) -> impl Iterator<Item = &Backend> {
        self.sets.values().flat_map(|set| &set.backends)
    }

    /// Sets of rules that have no backend at all.
    pub(super) fn starved(&self) -> BTreeSet<String> {
        let is_empty = |name: &String| self.sets.get(name).is_none_or(|set| set.backends.is_empty());
        self.rules.iter().filter(|sets| sets.iter().all(is_empty)).flatten().cloned().collect()
    }

    /// The backend of that name where it is there and ready.
    pub(super) fn ready(&self, set: &str, backend: &str) -> Option<&Backend> {
        let backends = &self.sets.get(set)?.backends;
        let at = backends.binary_search_by(|other| other.id.as_str().cmp(backend)).ok()?;
        backends.get(at).filter(|backend| is_ready(backend))
    }

    /// Sets of rules whose ready backends are all among `lost`, by set and id.
    fn lost(&self, lost: &BTreeSet<(&str, &str)>) -> BTreeSet<String> {
        if lost.is_empty() {
            return BTreeSet::new();
        }
        let touched: BTreeSet<&str> = lost.iter().map(|(set, _)| *set).collect();
        // Whether a ready backend of a set takes requests somewhere; not there where none is ready.
        let takes = |(set, content): (&String, &Arc<BackendSetContent>)| {
            let mut ready = content.backends.iter().filter(|backend| is_ready(backend)).peekable();
            ready.peek()?;
            let is_lost = |backend: &Backend| lost.contains(&(set.as_str(), backend.id.as_str()));
            Some((set.clone(), !touched.contains(set.as_str()) || !ready.all(is_lost)))
        };
        let takes: BTreeMap<String, bool> = self.sets.iter().filter_map(takes).collect();
        let rules = self.rules.iter().filter(|sets| !sets.iter().any(|set| takes.get(set) == Some(&true)));
        rules.flatten().filter(|set| takes.contains_key(*set)).cloned().collect()
    }
}

/// By digests, so that a verdict on a large pool is compared at once.
impl PartialEq for Members {
    fn eq(&self, other: &Self) -> bool {
        let digests = |members: &Self| -> Vec<(String, u64)> {
            members.sets.iter().map(|(name, set)| (name.clone(), set.digest)).collect()
        };
        self.rules == other.rules && digests(self) == digests(other)
    }
}

impl Eq for Members {}

impl Health {
    /// Costs the backends of the sets that have an unhealthy one, and nothing where none is.
    pub(super) fn of(verdict: &Verdict, summary: &PoolSummary) -> Self {
        let Some(serving) = &verdict.serving else { return Self::default() };
        let members = &serving.members;
        let unhealthy = summary.unhealthy.iter();
        let unhealthy = unhealthy.filter(|(name, _)| members.ready(&name.set, &name.backend).is_some());
        let unhealthy: BTreeMap<_, _> = unhealthy.map(|(name, of)| (name.clone(), of.clone())).collect();
        let at_all = unhealthy.iter().filter(|(_, of)| of.proxies >= summary.proxies);
        let lost: BTreeSet<(&str, &str)> = at_all.map(|(name, _)| (&*name.set, &*name.backend)).collect();
        let ids: BTreeSet<&str> = unhealthy.keys().map(|name| &*name.backend).collect();
        let mut endpoints = serving.endpoints.clone();
        for id in lost.iter().map(|(_, id)| *id).collect::<BTreeSet<_>>() {
            let sets = members.sets.keys().map(String::as_str);
            let mut ready = sets.filter_map(|set| members.ready(set, id).map(|backend| (set, backend)));
            if let Some((first, backend)) = ready.next()
                && lost.contains(&(first, id))
                && ready.all(|(set, _)| lost.contains(&(set, id)))
            {
                endpoints.ready = endpoints.ready.saturating_sub(1);
                if let Some(in_zone) = endpoints.zones.get_mut(&backend.zone) {
                    *in_zone = in_zone.saturating_sub(1);
                }
            }
        }
        Self {
            count: ids.len(),
            is_cut: summary.unhealthy.len() >= UNHEALTHY_NAMED_MAX,
            lost: members.lost(&lost),
            endpoints,
            unhealthy,
        }
    }
}

fn is_ready(backend: &Backend) -> bool {
    backend.state() == BackendState::Ready
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::compile::ObjectKey;
    use crate::status::Serving;
    use weir_proto::push::{Rule, WeightedSet};

    /// A verdict on sets with ready backends, those whose ids begin with `-` draining, all in zone `z`; and on rules with
    /// sets.
    pub(in crate::status) fn served(sets: &[(&str, &[&str])], rules: &[&[&str]]) -> Verdict {
        let backend = |id: &&str| {
            let state = if id.starts_with('-') { BackendState::Draining } else { BackendState::Ready };
            Backend { id: (*id).into(), state: state.into(), zone: "z".into(), ..Backend::default() }
        };
        let content = |ids: &[&str]| Arc::new(BackendSetContent::new(ids.iter().map(backend).collect()));
        let weighted =
            |set: &&str| WeightedSet { set: (*set).to_owned(), weight: 1, ..WeightedSet::default() };
        let rule =
            |sets: &&[&str]| Rule { backend_sets: sets.iter().map(weighted).collect(), ..Rule::default() };
        let config = PoolConfig { rules: rules.iter().map(rule).collect(), ..PoolConfig::default() };
        let sets = sets.iter().map(|(name, ids)| ((*name).to_owned(), content(ids)));
        let members = Members::new(sets.collect(), &config);
        Verdict {
            key: ObjectKey::new("default", "shop"),
            uid: Some("u".into()),
            generation: 3,
            rejections: Vec::new(),
            warnings: Vec::new(),
            serving: Some(Serving {
                config_digest: 7,
                endpoints: Endpoints::of(&members),
                members,
                ..Serving::default()
            }),
            shown: None,
        }
    }

    /// What so many current proxies found: set, backend and how many of them say that it takes no requests.
    pub(in crate::status) fn found(proxies: u32, unhealthy: &[(&str, &str, u32)]) -> PoolSummary {
        let unhealthy = unhealthy.iter().map(|&(set, backend, proxies)| {
            let name = BackendName { set: set.into(), backend: backend.into() };
            (name, Unhealthy { reason: "timed out".into(), proxies })
        });
        let unhealthy = Arc::new(unhealthy.collect());
        PoolSummary { proxies, current: proxies, config_digest: 7, unhealthy, ..PoolSummary::default() }
    }

    /// How many are unhealthy, how many take requests, in the zone too, and which sets are lost.
    fn told(verdict: &Verdict, summary: &PoolSummary) -> (usize, usize, usize, Vec<String>) {
        let health = Health::of(verdict, summary);
        let zone = health.endpoints.zones.get("z").copied().unwrap_or_default();
        (health.count, health.endpoints.ready, zone, health.lost.into_iter().collect())
    }

    fn lost(sets: &[&str]) -> Vec<String> {
        sets.iter().map(|set| (*set).to_owned()).collect()
    }

    #[test]
    fn a_backend_is_unhealthy_at_one_proxy_and_not_ready_at_none() {
        let pool = served(&[("web", &["a", "b"])], &[&["web"]]);
        assert_eq!(told(&pool, &found(3, &[])), (0, 2, 2, lost(&[])));
        assert_eq!(told(&pool, &found(3, &[("web", "a", 2)])), (1, 2, 2, lost(&[])));
        assert_eq!(told(&pool, &found(3, &[("web", "a", 3)])), (1, 1, 1, lost(&[])));
        assert_eq!(told(&pool, &found(3, &[("web", "a", 3), ("web", "b", 2)])), (2, 1, 1, lost(&[])));
        assert_eq!(told(&pool, &found(3, &[("web", "a", 3), ("web", "b", 3)])), (2, 0, 0, lost(&["web"])));
    }

    #[test]
    fn a_backend_of_two_sets_counts_once_and_by_the_better_of_them() {
        let pool = served(&[("api", &["a"]), ("web", &["a", "b"])], &[&["api"], &["web"]]);
        assert_eq!(told(&pool, &found(1, &[("web", "a", 1)])), (1, 2, 2, lost(&[])));
        assert_eq!(told(&pool, &found(1, &[("api", "a", 1)])), (1, 2, 2, lost(&["api"])));
        assert_eq!(told(&pool, &found(1, &[("api", "a", 1), ("web", "a", 1)])), (1, 1, 1, lost(&["api"])));
    }

    #[test]
    fn a_rule_is_lost_when_all_ready_backends_of_all_its_sets_are() {
        let sets: [(&str, &[&str]); 4] = [("a", &["a1"]), ("b", &["b1"]), ("ending", &["-e"]), ("none", &[])];
        let both = served(&sets, &[&["a", "b", "ending", "none"]]);
        assert_eq!(told(&both, &found(1, &[("a", "a1", 1)])).3, lost(&[]));
        assert_eq!(told(&both, &found(1, &[("a", "a1", 1), ("b", "b1", 1)])).3, lost(&["a", "b"]));
        let apart = served(&sets, &[&["a"], &["b"], &["ending"]]);
        assert_eq!(told(&apart, &found(1, &[("a", "a1", 1)])).3, lost(&["a"]));
        let unused = served(&sets, &[]);
        assert_eq!(told(&unused, &found(1, &[("a", "a1", 1)])), (1, 1, 1, lost(&[])));
    }

    #[test]
    fn backends_that_end_or_are_gone_are_nobody_s_concern() {
        let pool = served(&[("web", &["a", "-e"])], &[&["web"]]);
        let summary = found(1, &[("web", "-e", 1), ("web", "gone", 1), ("gone", "a", 1)]);
        assert_eq!(told(&pool, &summary), (0, 1, 1, lost(&[])));
        let unserved = Verdict { serving: None, ..pool };
        assert_eq!(Health::of(&unserved, &summary), Health::default());
    }

    #[test]
    fn at_the_limit_there_may_be_more() {
        let ids: Vec<String> = (0..UNHEALTHY_NAMED_MAX).map(|n| format!("b{n:03}")).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let pool = served(&[("web", &ids)], &[&["web"]]);
        let down: Vec<_> = ids.iter().map(|id| ("web", *id, 1)).collect();
        assert!(Health::of(&pool, &found(1, &down)).is_cut);
        assert!(!Health::of(&pool, &found(1, &down[1..])).is_cut);
    }

    #[test]
    fn members_are_equal_when_their_digests_are() {
        let members =
            |ids: &[&str], rules: &[&[&str]]| served(&[("web", ids)], rules).serving.expect("served").members;
        assert_eq!(members(&["a", "b"], &[&["web"]]), members(&["b", "a"], &[&["web"], &["web"]]));
        assert_ne!(members(&["a", "b"], &[&["web"]]), members(&["a", "c"], &[&["web"]]));
        assert_ne!(members(&["a"], &[&["web"]]), members(&["a"], &[]));
    }
}

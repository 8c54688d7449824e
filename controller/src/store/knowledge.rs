//! How much of what there is a store knows, so that a restart takes nothing from proxies that nobody took away.

use std::collections::BTreeSet;
use std::sync::Arc;

/// Whether a source could be read whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Completeness {
    /// What was compiled is all that there is.
    All,
    /// These pools (`namespace/name`) are there beside it and could not be read.
    AllBut(BTreeSet<String>),
    /// There may be pools beside it of which not even the name could be read.
    Part,
}

/// How much of what there is a store knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Knowledge {
    /// Every pool that exists is in the store, or in `unsure`.
    is_whole: bool,
    /// Pools that exist, and that the store does not have or has with less than they ask for: one that could not be
    /// compiled, or that lacks a certificate, and has no version before that could be kept.
    unsure: Arc<BTreeSet<String>>,
    /// Pools with a set of which nothing is known yet, so that proxies may have more of it.
    open: Arc<BTreeSet<String>>,
}

impl Knowledge {
    /// `lacking` are pools that were compiled to less than they ask for, or not at all.
    pub(crate) fn new(completeness: Completeness, lacking: impl IntoIterator<Item = String>) -> Self {
        let is_whole = completeness != Completeness::Part;
        let mut unsure = match completeness {
            Completeness::AllBut(pools) => pools,
            Completeness::All | Completeness::Part => BTreeSet::new(),
        };
        unsure.extend(lacking);
        Self { is_whole, unsure: Arc::new(unsure), open: Arc::default() }
    }

    /// The same, while these pools have a set that waits for what its backends are.
    #[must_use]
    pub(crate) fn while_open(mut self, pools: impl IntoIterator<Item = String>) -> Self {
        self.open = Arc::new(pools.into_iter().collect());
        self
    }

    /// Everything is known.
    #[must_use]
    pub fn all() -> Self {
        Self { is_whole: true, unsure: Arc::default(), open: Arc::default() }
    }

    /// Nothing is known to be gone.
    #[must_use]
    pub fn part() -> Self {
        Self { is_whole: false, unsure: Arc::default(), open: Arc::default() }
    }

    /// Whether there is nothing that proxies may have to keep.
    pub(crate) fn is_sure(&self) -> bool {
        self.is_whole && self.unsure.is_empty() && self.open.is_empty()
    }

    /// Whether a pool is there with a set of which nothing is known yet.
    pub(crate) fn is_open(&self, pool: &str) -> bool {
        self.open.contains(pool)
    }

    /// Whether a pool that the store does not have may exist.
    pub(crate) fn may_exist(&self, pool: &str) -> bool {
        !self.is_whole || self.unsure.contains(pool)
    }

    /// Whether a pool is there with less than it asks for.
    pub(crate) fn may_lack(&self, pool: &str) -> bool {
        self.unsure.contains(pool)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_exist_is_what_was_named_and_everything_where_names_are_missing() {
        let named = Completeness::AllBut(["ns/malformed".to_owned()].into());
        let knowledge = Knowledge::new(named, ["ns/lacking".to_owned()]);
        assert!(!knowledge.is_sure());
        for (pool, may_exist) in [("ns/malformed", true), ("ns/lacking", true), ("ns/gone", false)] {
            assert_eq!(knowledge.may_exist(pool), may_exist, "{pool}");
        }
        let open = Knowledge::all().while_open(["ns/open".to_owned()]);
        assert!(!open.is_sure() && open.is_open("ns/open") && !open.is_open("ns/other"));
        let part = Knowledge::new(Completeness::Part, []);
        assert!(part.may_exist("ns/gone") && !part.may_lack("ns/gone"));
        assert_eq!(Knowledge::new(Completeness::All, []), Knowledge::all());
    }
}

//! Which backends take no requests at which proxies, and why: bounded for each stream, and put together.

use std::collections::BTreeMap;
use std::sync::Arc;
use weir_proto::limits::UNHEALTHY_NAMED_MAX;
use weir_proto::push::BackendHealth;

/// Bytes of the reason why a backend takes no requests; of a longer one the beginning is kept.
pub const HEALTH_REASON_BYTES_MAX: usize = 256;

/// Bytes of the name of a set, and of a backend, that are taken in. Of a longer one, nothing is.
pub const HEALTH_NAME_BYTES_MAX: usize = 253;

/// A backend within a pool.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BackendName {
    /// Its set.
    pub set: Arc<str>,
    /// Its id there.
    pub backend: Arc<str>,
}

/// What is known of a backend that takes no requests at some proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unhealthy {
    /// One sentence, at most [`HEALTH_REASON_BYTES_MAX`] long. Where proxies differ, the first in the order of text.
    pub reason: Arc<str>,
    /// How many proxies say so, at least 1.
    pub proxies: u32,
}

/// The first [`UNHEALTHY_NAMED_MAX`] by name.
pub type UnhealthyBackends = Arc<BTreeMap<BackendName, Unhealthy>>;

/// The backends that one stream called unhealthy, with the reason; at most [`UNHEALTHY_NAMED_MAX`].
#[derive(Debug, Default)]
pub(super) struct Found(BTreeMap<BackendName, Arc<str>>);

impl Found {
    /// One past the limit is not named.
    pub(super) fn hear(&mut self, health: &BackendHealth) {
        let BackendHealth { set, backend, available, reason, .. } = health;
        if [set, backend].iter().any(|name| name.is_empty() || name.len() > HEALTH_NAME_BYTES_MAX) {
            return;
        }
        let name = BackendName { set: set.as_str().into(), backend: backend.as_str().into() };
        if *available {
            self.0.remove(&name);
        } else if self.0.len() < UNHEALTHY_NAMED_MAX || self.0.contains_key(&name) {
            self.0.insert(name, reason_within_limit(reason));
        }
    }
}

/// The beginning of a reason, in whole characters.
pub(crate) fn reason_within_limit(reason: &str) -> Arc<str> {
    reason[..reason.floor_char_boundary(HEALTH_REASON_BYTES_MAX)].into()
}

/// Of streams of different proxies.
pub(super) fn of_all<'a>(found: impl IntoIterator<Item = &'a Found>) -> UnhealthyBackends {
    let mut all = BTreeMap::new();
    for (name, reason) in found.into_iter().flat_map(|found| &found.0) {
        add(&mut all, name, &Unhealthy { reason: Arc::clone(reason), proxies: 1 });
    }
    cut(&mut all);
    Arc::new(all)
}

/// Adds what other proxies found. What is cut off is the same in whatever order all are added: a name among the first of
/// all is among the first of each part.
pub(super) fn merge(all: &mut UnhealthyBackends, others: &UnhealthyBackends) {
    if others.is_empty() {
        return;
    }
    let all = Arc::make_mut(all);
    for (name, unhealthy) in others.iter() {
        add(all, name, unhealthy);
    }
    cut(all);
}

fn add(all: &mut BTreeMap<BackendName, Unhealthy>, name: &BackendName, other: &Unhealthy) {
    let Some(known) = all.get_mut(name) else {
        all.insert(name.clone(), other.clone());
        return;
    };
    known.proxies = known.proxies.saturating_add(other.proxies);
    if other.reason < known.reason {
        known.reason = Arc::clone(&other.reason);
    }
}

fn cut(all: &mut BTreeMap<BackendName, Unhealthy>) {
    while all.len() > UNHEALTHY_NAMED_MAX {
        all.pop_last();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(backend: &str, available: bool, reason: &str) -> BackendHealth {
        BackendHealth {
            pool: "ns/p".into(),
            set: "web".into(),
            backend: backend.into(),
            available,
            reason: reason.into(),
        }
    }

    fn found(backends: impl IntoIterator<Item = usize>, reason: &str) -> Found {
        let mut found = Found::default();
        backends.into_iter().for_each(|n| found.hear(&said(&format!("b{n:04}"), false, reason)));
        found
    }

    #[test]
    fn a_backend_is_unhealthy_until_it_is_taken_back() {
        let mut one = found([1, 2], "timed out");
        one.hear(&said("b0001", false, "refused"));
        one.hear(&said("b0002", true, ""));
        one.hear(&said("b0003", true, ""));
        let all = of_all([&one]);
        let shown: Vec<_> = all.iter().map(|(name, is)| (&*name.backend, &*is.reason, is.proxies)).collect();
        assert_eq!(shown, [("b0001", "refused", 1)]);
    }

    #[test]
    fn proxies_that_say_the_same_are_counted_and_the_first_reason_stays() {
        let all = of_all([&found([1], "timed out"), &found([1, 2], "refused")]);
        let shown: Vec<_> = all.values().map(|is| (&*is.reason, is.proxies)).collect();
        assert_eq!(shown, [("refused", 2), ("refused", 1)]);
    }

    #[test]
    fn one_past_the_limit_is_not_named_and_takes_no_place_of_another() {
        let mut full = found(0..UNHEALTHY_NAMED_MAX, "no");
        assert_eq!(full.0.len(), UNHEALTHY_NAMED_MAX);
        full.hear(&said("one more", false, "no"));
        assert_eq!(full.0.len(), UNHEALTHY_NAMED_MAX);
        full.hear(&said("b0000", false, "another reason"));
        assert_eq!(&**full.0.first_key_value().expect("there").1, "another reason", "in its own place");
        full.hear(&said("b0000", true, ""));
        full.hear(&said("one more", false, "no"));
        assert!(full.0.keys().any(|name| &*name.backend == "one more"), "there is room again");
    }

    #[test]
    fn names_and_reasons_stay_within_their_limits() {
        let mut one = found([], "");
        one.hear(&said("", false, "no"));
        one.hear(&said(&"b".repeat(HEALTH_NAME_BYTES_MAX + 1), false, "no"));
        assert_eq!(one.0.len(), 0);
        let reason = format!("{}é", "x".repeat(HEALTH_REASON_BYTES_MAX - 1));
        one.hear(&said(&"b".repeat(HEALTH_NAME_BYTES_MAX), false, &reason));
        let kept = one.0.values().next().expect("named");
        assert_eq!(kept.len(), HEALTH_REASON_BYTES_MAX - 1, "cut at a character");
    }

    #[test]
    fn the_order_of_merging_does_not_matter_also_past_the_limit() {
        let limit = UNHEALTHY_NAMED_MAX;
        let parts = [found(0..limit, "c"), found(limit / 2..limit + limit / 2, "b"), found(10..20, "a")];
        let parts = parts.each_ref().map(|part| of_all([part]));
        let merged = |order: [usize; 3]| {
            let mut all = UnhealthyBackends::default();
            order.into_iter().for_each(|part| merge(&mut all, &parts[part]));
            all
        };
        let all = merged([0, 1, 2]);
        assert_eq!(all.len(), limit);
        assert_eq!(merged([2, 1, 0]), all);
        assert_eq!(merged([1, 0, 2]), all);
    }
}

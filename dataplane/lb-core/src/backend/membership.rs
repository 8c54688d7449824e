//! One version of who is in a set, and what selection needs of it.

use super::{Algorithm, Backend, Eligibility, Place, SetPolicy, Standing};
use crate::balance::eligibility::{self, Terms};
use crate::balance::lane::Lane;
use std::sync::OnceLock;
use std::time::Duration;

/// One version of who is in a set, with everything that a pick reads: made off the request path whenever members or
/// their health change, then put in force by one pointer swap.
#[derive(Debug, Default)]
pub struct Membership {
    /// Different for each version within the process, so that a worker sees a change by one comparison.
    pub version: u64,
    backends: Box<[Backend]>,
    /// Positions, in order.
    eligible: Box<[u32]>,
    lanes: Box<[Lane]>,
    ignores_health: bool,
    next_change: Option<Duration>,
    /// `(tag, position)` in the order of tags, made when a session first asks.
    by_tag: OnceLock<Box<[(u64, u32)]>>,
}

impl Membership {
    /// As [`Self::build`], for a set without keys, priorities, places and slow start.
    #[must_use]
    pub fn new(version: u64, backends: Vec<Backend>) -> Self {
        let terms = Terms {
            algorithm: Algorithm::default(),
            eligibility: Eligibility::default(),
            place: &Place::default(),
            now: Duration::ZERO,
        };
        Self::on_terms(version, backends, &terms)
    }

    /// Sorts by id and works out who may take a new request, and at what share.
    ///
    /// A later duplicate of an id is dropped. `now` is since the process began. O(n log n), and about a millisecond more
    /// for each lane of a set with [`Algorithm::Maglev`].
    #[must_use]
    pub fn build(
        version: u64,
        backends: Vec<Backend>,
        policy: &SetPolicy,
        place: &Place,
        now: Duration,
    ) -> Self {
        let SetPolicy { algorithm, eligibility, .. } = *policy;
        Self::on_terms(version, backends, &Terms { algorithm, eligibility, place, now })
    }

    /// The same backends with other standings: after a change of health, or at [`Self::next_change`].
    #[must_use]
    pub fn with_standings(
        &self,
        version: u64,
        policy: &SetPolicy,
        place: &Place,
        now: Duration,
        standing: impl Fn(&Backend) -> Standing,
    ) -> Self {
        let judged = self.backends.iter().map(|backend| {
            let standing = standing(backend);
            Backend { standing, ..backend.clone() }
        });
        Self::build(version, judged.collect(), policy, place, now)
    }

    fn on_terms(version: u64, mut backends: Vec<Backend>, terms: &Terms<'_>) -> Self {
        backends.sort_by(|a, b| a.id.cmp(&b.id));
        backends.dedup_by(|later, kept| later.id == kept.id);
        let lanes = eligibility::lanes(&backends, terms);
        let mut eligible: Box<[u32]> =
            lanes.lanes.iter().flat_map(Lane::seats).map(|seat| seat.backend).collect();
        eligible.sort_unstable();
        Self {
            version,
            backends: backends.into(),
            eligible,
            lanes: lanes.lanes.into(),
            ignores_health: lanes.ignores_health,
            next_change: lanes.next_change,
            by_tag: OnceLock::new(),
        }
    }

    /// The backend of this tag, whatever its state. O(log n), and O(n log n) once for each version.
    #[must_use]
    pub fn tagged(&self, tag: u64) -> Option<&Backend> {
        let by_tag = self.by_tag.get_or_init(|| {
            let mut by_tag: Vec<_> = self.backends.iter().map(Backend::tag).zip(0..).collect();
            by_tag.sort_unstable();
            by_tag.into()
        });
        let at = by_tag.binary_search_by_key(&tag, |(tag, _)| *tag).ok()?;
        Some(&self.backends[by_tag[at].1 as usize])
    }

    /// All backends, sorted by id.
    #[must_use]
    pub fn backends(&self) -> &[Backend] {
        &self.backends
    }

    /// Those that may take a new request, in the order of their ids; also those that take one only when others have
    /// failed.
    pub fn eligible(&self) -> impl ExactSizeIterator<Item = &Backend> + Clone {
        self.eligible.iter().map(|&at| &self.backends[at as usize])
    }

    /// Groups of those that may take a request, each with its share. Those with a share come first, then reserves.
    #[must_use]
    pub fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    /// Whether so few backends are available that health is ignored somewhere.
    #[must_use]
    pub fn ignores_health(&self) -> bool {
        self.ignores_health
    }

    /// When to build the next version even if nothing happens, because a backend gets more of its weight then; `None`
    /// while no backend starts slowly.
    #[must_use]
    pub fn next_change(&self) -> Option<Duration> {
        self.next_change
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::BackendState::{Draining, Ready};
    use crate::backend::tests::backend;

    fn eligible(backends: Vec<Backend>) -> Vec<String> {
        Membership::new(1, backends).eligible().map(|b| b.id.to_string()).collect()
    }

    #[test]
    fn draining_backends_are_the_last_resort() {
        let (a, b) = (backend("a", 1, Ready), backend("b", 1, Draining));
        assert_eq!(eligible(vec![b.clone(), a.clone()]), ["a"]);
        assert_eq!(eligible(vec![b.clone(), backend("a", 0, Ready)]), ["b"]);
        assert_eq!(eligible(vec![b.clone()]), ["b"]);
        let down = Standing { is_available: false, ..Standing::default() };
        assert_eq!(eligible(vec![b, Backend { standing: down, ..a }]), ["b"]);
        assert_eq!(eligible(vec![]), [""; 0]);
    }

    #[test]
    fn weight_zero_takes_nothing_even_when_alone() {
        assert_eq!(eligible(vec![backend("a", 0, Ready)]), [""; 0]);
    }

    #[test]
    fn members_are_sorted_by_id_and_unique() {
        let of = |id| backend(id, 1, Ready);
        assert_eq!(eligible(vec![of("b"), of("a"), of("b")]), ["a", "b"]);
    }

    #[test]
    fn other_standings_keep_the_backends_and_their_live_state() {
        use crate::backend::tests::policy;
        let before = Membership::new(1, vec![backend("a", 1, Ready), backend("b", 1, Ready)]);
        let policy = policy(Algorithm::RoundRobin, Eligibility::default());
        let after = before.with_standings(2, &policy, &Place::default(), Duration::ZERO, |backend| {
            Standing { is_available: &*backend.id == "b", ..Standing::default() }
        });
        assert_eq!(after.eligible().map(|b| &*b.id).collect::<Vec<_>>(), ["b"]);
        let same = |(old, new): (&Backend, &Backend)| std::sync::Arc::ptr_eq(&old.live, &new.live);
        assert!(before.backends().iter().zip(after.backends()).all(same));
    }
}

//! What a list did not have, held back for a moment. No I/O and no clock.
//!
//! A watch that was away lists again, and what vanished meanwhile is not in the list. Nor is what an API server misses
//! that lags behind the others or was restored: the rest follows as events then, or with the next list. So what was
//! known and is not listed is kept for [`RELIST_GUARD`]. An event that it is gone ends that at once, and one that it is
//! there, or a list that has it, makes it as if nothing had been.
//!
//! Not where an event says that something is gone: that is never in doubt. Not at a first list either, for then nothing
//! is known that could be missed; what proxies know from before has a guard of its own, on their streams.

use super::Kind;
use crate::compile::ObjectKey;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Longest time that an object is kept which a list did not have.
pub(crate) const RELIST_GUARD: Duration = Duration::from_secs(2);

/// Objects that are kept though no list has them.
#[derive(Debug, Default)]
pub(super) struct Guard {
    /// With the moment at which each goes; `None` before [`Self::lapse`] has said what time it is.
    held: BTreeMap<(Kind, ObjectKey), Option<Instant>>,
    ends: BTreeSet<(Instant, Kind, ObjectKey)>,
    begun: BTreeSet<(Kind, ObjectKey)>,
}

impl Guard {
    /// Whether objects of a kind are worth it: those whose loss takes traffic away. Permits that vanish are not kept, and
    /// a Secret is not listed among others.
    pub(super) fn covers(kind: Kind) -> bool {
        matches!(kind, Kind::LoadBalancerPool | Kind::Service | Kind::EndpointSlice)
    }

    /// A list did not have the object. One that is held already is held no longer for it.
    pub(super) fn hold(&mut self, kind: Kind, key: ObjectKey) {
        let object = (kind, key);
        if !self.held.contains_key(&object) {
            self.held.insert(object.clone(), None);
            self.begun.insert(object);
        }
    }

    /// The object is there after all, or is gone by an event.
    pub(super) fn release(&mut self, kind: Kind, key: &ObjectKey) {
        if self.held.is_empty() {
            return;
        }
        let object = (kind, key.clone());
        match self.held.remove(&object) {
            Some(Some(end)) => drop(self.ends.remove(&(end, object.0, object.1))),
            Some(None) => drop(self.begun.remove(&object)),
            None => {}
        }
    }

    /// What goes now. What is held since the call before is held from this moment on.
    pub(super) fn lapse(&mut self, now: Instant) -> Vec<(Kind, ObjectKey)> {
        for (kind, key) in std::mem::take(&mut self.begun) {
            let end = now + RELIST_GUARD;
            self.ends.insert((end, kind, key.clone()));
            self.held.insert((kind, key), Some(end));
        }
        let mut gone = Vec::new();
        while self.due().is_some_and(|due| due <= now)
            && let Some((_, kind, key)) = self.ends.pop_first()
        {
            self.held.remove(&(kind, key.clone()));
            gone.push((kind, key));
        }
        gone
    }

    /// When [`Self::lapse`] has something to say.
    pub(super) fn due(&self) -> Option<Instant> {
        self.ends.first().map(|(end, ..)| *end)
    }

    #[cfg(test)]
    pub(super) fn holds(&self, kind: Kind, key: &ObjectKey) -> bool {
        self.held.contains_key(&(kind, key.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("ns", name)
    }

    #[test]
    fn what_a_list_did_not_have_goes_when_its_time_is_over_and_not_before() {
        let (mut guard, begun) = (Guard::default(), Instant::now());
        guard.hold(Kind::Service, key("a"));
        assert_eq!(guard.due(), None, "nobody has said what time it is");
        assert_eq!(guard.lapse(begun), []);
        let second = begun + Duration::from_secs(1);
        guard.hold(Kind::Service, key("a"));
        guard.hold(Kind::EndpointSlice, key("a"));
        assert_eq!(guard.lapse(second), []);
        assert_eq!(
            (guard.due(), guard.held.len()),
            (Some(begun + RELIST_GUARD), 2),
            "another list prolongs nothing"
        );
        assert_eq!(guard.lapse(begun + RELIST_GUARD - Duration::from_millis(1)), []);
        assert_eq!(guard.lapse(begun + RELIST_GUARD), [(Kind::Service, key("a"))]);
        assert_eq!(guard.lapse(second + RELIST_GUARD), [(Kind::EndpointSlice, key("a"))]);
        assert_eq!((guard.due(), guard.held.len()), (None, 0));
    }

    #[test]
    fn what_is_there_again_is_forgotten_and_held_anew_the_next_time() {
        let (mut guard, begun) = (Guard::default(), Instant::now());
        for told in [false, true] {
            guard.hold(Kind::Service, key("a"));
            if told {
                guard.lapse(begun);
            }
            guard.release(Kind::EndpointSlice, &key("a"));
            assert_eq!(guard.held.len(), 1, "another object");
            guard.release(Kind::Service, &key("a"));
            assert_eq!((guard.due(), guard.held.len()), (None, 0));
        }
        guard.hold(Kind::Service, key("a"));
        let later = begun + Duration::from_secs(9);
        assert_eq!(guard.lapse(later), []);
        assert_eq!(guard.due(), Some(later + RELIST_GUARD));
    }
}

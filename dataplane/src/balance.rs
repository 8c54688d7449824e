//! Which backend set of a route, and which backend of the set, takes a request.
//!
//! The choice itself is lb-core's. Here is the state that one worker keeps for it, by route and by set.

use foldhash::HashMap;
use lb_core::backend::{BackendSet, InFlight};
use lb_core::balance::{PickRequest, Picker, Rng, Schedule};
use lb_core::route::Route;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

/// One worker's place in every rotation.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    seed: u64,
    rng: RefCell<Rng>,
    splits: ById<Route, Schedule<usize>>,
    pickers: ById<BackendSet, Picker>,
}

/// State for each `K` that is still in some snapshot, by its id.
type ById<K, S> = RefCell<HashMap<u64, (Weak<K>, S)>>;

/// A backend that was chosen; the request counts as on it for as long as this lives.
#[derive(Debug)]
pub(crate) struct Target<'a> {
    pub(crate) set: &'a BackendSet,
    pub(crate) address: SocketAddr,
    /// Counts the request out when it is dropped.
    pub(crate) in_flight: InFlight,
    /// Of the backend, where what becomes of the request is of interest.
    pub(crate) backend: Option<Arc<str>>,
}

impl Turns {
    /// Workers with different seeds begin at different backends.
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, rng: RefCell::new(Rng::new(seed)), ..Self::default() }
    }

    /// The next backend for a route; `None` when no set of it has one. `request` is for the set that it is asked for.
    pub(crate) fn pick<'a, 'r>(
        &self,
        route: &'a Arc<Route>,
        request: impl Fn(&BackendSet) -> PickRequest<'r>,
    ) -> Option<Target<'a>> {
        let set = self.split(route)?;
        if let Some(target) = self.backend(set, &request(set)) {
            return Some(target);
        }
        // The share of a set without backends goes to the others rather than to an error.
        let others = route.sets.iter().filter(|other| other.weight > 0);
        others.map(|other| &other.set).find_map(|set| self.backend(set, &request(set)))
    }

    fn split<'a>(&self, route: &'a Arc<Route>) -> Option<&'a Arc<BackendSet>> {
        if let [only] = route.sets.as_slice() {
            return (only.weight > 0).then_some(&only.set);
        }
        let mut splits = self.splits.borrow_mut();
        let (_, schedule) = splits.entry(route.id).or_insert_with(|| {
            let mut schedule = Schedule::default();
            schedule.replace(route.sets.iter().map(|set| set.weight).enumerate(), self.seed);
            (Arc::downgrade(route), schedule)
        });
        schedule.next_position().map(|position| &route.sets[position].set)
    }

    fn backend<'a>(&self, set: &'a Arc<BackendSet>, request: &PickRequest<'_>) -> Option<Target<'a>> {
        let mut pickers = self.pickers.borrow_mut();
        let (_, picker) = pickers
            .entry(set.id)
            .or_insert_with(|| (Arc::downgrade(set), Picker::new(set.policy.algorithm, self.seed)));
        let members = set.members();
        let backend = picker.pick(&members, request, &mut self.rng.borrow_mut())?;
        let id = set.policy.is_judged.then(|| Arc::clone(&backend.id));
        Some(Target { set, address: backend.address, in_flight: backend.live.enter(), backend: id })
    }

    /// Forgets routes and sets that are gone.
    pub(crate) fn sweep(&self) {
        self.splits.borrow_mut().retain(|_, (route, _)| route.strong_count() > 0);
        self.pickers.borrow_mut().retain(|_, (set, _)| set.strong_count() > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_core::backend::{Algorithm, Backend, Membership, SetPolicy};
    use lb_core::route::WeightedSet;

    fn set(id: u64, ports: &[u16], weight: u32) -> WeightedSet {
        let backend = |port: &u16| Backend::new(port.to_string(), ([127, 0, 0, 1], *port).into());
        let policy = SetPolicy::new(Algorithm::RoundRobin);
        let members = Arc::new(Membership::new(id, ports.iter().map(backend).collect()));
        WeightedSet::new(Arc::new(BackendSet::new(id, "set".into(), policy, members)), weight)
    }

    fn ports(sets: Vec<WeightedSet>, count: usize) -> Vec<u16> {
        let route = Arc::new(Route::new(1, "p".into(), 0, sets));
        let turns = Turns::default();
        (0..count)
            .filter_map(|_| turns.pick(&route, |_| PickRequest::default()))
            .map(|target| target.address.port())
            .collect()
    }

    #[test]
    fn requests_are_split_between_sets_by_weight_and_take_turns_within() {
        assert_eq!(ports(vec![set(1, &[1, 2], 2), set(2, &[9], 1)], 6), [1, 9, 2, 1, 9, 2]);
    }

    #[test]
    fn a_set_without_backends_leaves_its_share_to_the_others() {
        assert_eq!(ports(vec![set(1, &[], 1), set(2, &[9], 1)], 3), [9, 9, 9]);
        assert!(ports(vec![set(1, &[], 1), set(2, &[9], 0)], 3).is_empty(), "a set of weight 0 takes none");
        assert!(ports(vec![set(1, &[5], 0)], 3).is_empty());
    }

    #[test]
    fn what_is_gone_is_swept() {
        let turns = Turns::default();
        let sets = vec![set(1, &[1], 1), set(2, &[2], 1)];
        let route = Arc::new(Route::new(1, "p".into(), 0, sets));
        for _ in 0..2 {
            assert!(turns.pick(&route, |_| PickRequest::default()).is_some());
        }
        turns.sweep();
        assert_eq!((turns.splits.borrow().len(), turns.pickers.borrow().len()), (1, 2));
        drop(route);
        turns.sweep();
        assert_eq!((turns.splits.borrow().len(), turns.pickers.borrow().len()), (0, 0));
    }
}

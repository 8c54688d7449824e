//! Pickers: which backend of a set takes the next request.
//!
//! A picker is the mutable half, owned by one worker; [`Membership`] is the shared, immutable half. Where the
//! two meet, the picker sees by the version that members changed and adapts, keeping its place.

mod schedule;

pub use schedule::Schedule;

use crate::backend::{Backend, Membership};
use std::sync::Arc;

/// One worker's state for one backend set.
#[derive(Debug)]
pub struct Picker {
    version: u64,
    seed: u64,
    schedule: Schedule<Arc<str>>,
}

impl Picker {
    /// A picker that has seen no membership yet. Different seeds start at different backends, so that workers
    /// do not move in step.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { version: 0, seed, schedule: Schedule::default() }
    }

    /// The backend for the next request; `None` when none is eligible.
    ///
    /// O(1) where weights are equal, O(log n) otherwise; O(n log n) once after a change of members.
    pub fn pick<'a>(&mut self, members: &'a Membership) -> Option<&'a Backend> {
        if self.version != members.version {
            self.version = members.version;
            let entries = members.eligible().map(|b| (Arc::clone(&b.id), b.weight));
            self.schedule.replace(entries, self.seed);
        }
        members.eligible_at(self.schedule.next_position()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{BackendState, tests::backend};

    #[test]
    fn a_picker_follows_a_change_of_members() {
        let of = |id| backend(id, 1, BackendState::Ready);
        let mut picker = Picker::new(0);
        let one = Membership::new(1, vec![of("a")]);
        assert_eq!(&*picker.pick(&one).expect("a").id, "a");
        let two = Membership::new(2, vec![of("b")]);
        assert_eq!(&*picker.pick(&two).expect("b").id, "b");
        assert!(picker.pick(&Membership::new(3, vec![])).is_none());
    }
}

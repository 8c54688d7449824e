//! The newest verdict on each pool, and which of them changed.

use super::Verdict;
use crate::compile::ObjectKey;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Written by whoever compiles, read by the writer. Holds one verdict for each pool that there is, and one name for
/// each that changed.
#[derive(Debug, Default)]
pub struct Board {
    state: Mutex<State>,
    notify: Notify,
}

#[derive(Debug, Default)]
struct State {
    verdicts: BTreeMap<ObjectKey, Arc<Verdict>>,
    changed: BTreeSet<ObjectKey>,
}

impl Board {
    /// The newest verdict on a pool; one that is equal to the one before is no change.
    pub fn set(&self, key: ObjectKey, verdict: Verdict) {
        let mut state = self.state();
        if state.verdicts.get(&key).is_some_and(|before| **before == verdict) {
            return;
        }
        state.verdicts.insert(key.clone(), Arc::new(verdict));
        state.changed.insert(key);
        drop(state);
        self.notify.notify_one();
    }

    /// There is no such pool any more.
    pub fn remove(&self, key: &ObjectKey) {
        let mut state = self.state();
        if state.verdicts.remove(key).is_some() {
            state.changed.insert(key.clone());
            drop(state);
            self.notify.notify_one();
        }
    }

    /// The newest verdict.
    #[must_use]
    pub fn verdict(&self, key: &ObjectKey) -> Option<Arc<Verdict>> {
        self.state().verdicts.get(key).cloned()
    }

    /// Every pool that there is a verdict on.
    #[must_use]
    pub fn keys(&self) -> Vec<ObjectKey> {
        self.state().verdicts.keys().cloned().collect()
    }

    /// Forgets which verdicts changed, where nobody writes them anywhere.
    pub fn forget_changes(&self) {
        self.take();
    }

    /// Returns when a verdict changed since the last [`Self::take`]; may return without. Cancellation safe.
    pub(super) async fn changed(&self) {
        self.notify.notified().await;
    }

    /// The pools whose verdict changed since the last call, those that are gone among them.
    pub(super) fn take(&self) -> BTreeSet<ObjectKey> {
        std::mem::take(&mut self.state().changed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    #[test]
    fn an_equal_verdict_is_no_change_and_many_changes_are_one_name() {
        let board = Board::default();
        let key = ObjectKey::new("ns", "p");
        let verdict = |sentence: &str| {
            let metadata =
                ObjectMeta { namespace: Some("ns".into()), name: Some("p".into()), ..ObjectMeta::default() };
            Verdict::malformed(&metadata, sentence)
        };
        board.set(key.clone(), verdict("one"));
        board.set(key.clone(), verdict("two"));
        assert_eq!(board.take(), [key.clone()].into());
        board.set(key.clone(), verdict("two"));
        assert_eq!(board.take(), [].into());
        board.remove(&key);
        board.remove(&key);
        assert_eq!((board.take(), board.verdict(&key)), ([key].into(), None));
    }
}

//! Where a backend's requests wait until a test lets them go on.

use crate::harness::wait::GENEROUS;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// A gate, closed at first. Clones are of the same one.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_open: bool,
    waiting: usize,
}

impl Gate {
    /// Waits until it is open, or for as long as a test may take.
    pub fn pass(&self) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting += 1;
        let passed = self.0.changed.wait_timeout_while(state, GENEROUS, |state| !state.is_open);
        passed.unwrap_or_else(PoisonError::into_inner).0.waiting -= 1;
    }

    /// Whether it is open, after waiting for that no longer than this.
    #[must_use]
    pub fn opens_within(&self, patience: Duration) -> bool {
        let state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.changed.wait_timeout_while(state, patience, |state| !state.is_open);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_open
    }

    /// Lets everybody pass.
    pub fn open(&self) {
        self.set(true);
    }

    /// Holds whoever comes from now on.
    pub fn close(&self) {
        self.set(false);
    }

    /// Those that wait now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).waiting
    }

    fn set(&self, is_open: bool) {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).is_open = is_open;
        self.0.changed.notify_all();
    }
}

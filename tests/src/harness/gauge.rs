//! How many of something there are at a time, as a backend counts its requests or connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A count that goes up and down. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Gauge(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    now: AtomicUsize,
    most: AtomicUsize,
    total: AtomicUsize,
}

/// One of what is counted, for as long as it lives.
#[derive(Debug)]
pub struct Counted(Gauge);

impl Gauge {
    /// Counts one more until the guard drops.
    #[must_use]
    pub fn enter(&self) -> Counted {
        let now = self.0.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.most.fetch_max(now, Ordering::SeqCst);
        self.0.total.fetch_add(1, Ordering::SeqCst);
        Counted(self.clone())
    }

    /// Those that are there now.
    #[must_use]
    pub fn now(&self) -> usize {
        self.0.now.load(Ordering::SeqCst)
    }

    /// The most that there were at a time.
    #[must_use]
    pub fn most(&self) -> usize {
        self.0.most.load(Ordering::SeqCst)
    }

    /// All that there ever were.
    #[must_use]
    pub fn total(&self) -> usize {
        self.0.total.load(Ordering::SeqCst)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

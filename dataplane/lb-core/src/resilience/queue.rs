//! Requests of one set that wait for a slot.
//!
//! **No wake is lost.** A place in the queue is listed for a wake from the moment at which it is taken, and again before
//! each further try, so that no slot can become free unnoticed between a try and a wait. Who frees a slot and finds
//! the queue empty wakes nobody: whoever joins after that finds the slot, for a first wake comes with the place.
//!
//! **Not here**: who tries, and for what. A wake says only that something has changed.

use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

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
    /// Sequentially consistent, as are the counts of slots: see [`crate::backend::Live`].
    waiting: AtomicU32,
    notify: Notify,
}

/// A place in the queue; given back when it is dropped.
#[derive(Debug)]
pub struct Waiting<'a> {
    queue: &'a Queue,
    /// Listed for the next wake. Dropped after one that nobody heard of, it passes that on to the next in the list.
    next: Pin<Box<Notified<'a>>>,
    is_new: bool,
    /// It was woken, and nobody said yet that it found a slot.
    owes_a_wake: bool,
}

impl Queue {
    /// An empty queue.
    #[must_use]
    pub fn new(settings: QueueSettings) -> Self {
        Self { settings, waiting: AtomicU32::new(0), notify: Notify::new() }
    }

    /// Requests that wait. One load: a request that comes while others wait goes behind them.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.waiting.load(Ordering::SeqCst)
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

    /// A place at the end; `None` when it is full. Exact, however many try at once.
    pub fn join(&self) -> Option<Waiting<'_>> {
        let next = |before| (before < self.settings.requests_max).then(|| before + 1);
        self.waiting.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next).ok()?;
        let next = Box::pin(self.notify.notified());
        let mut waiting = Waiting { queue: self, next, is_new: true, owes_a_wake: false };
        waiting.next.as_mut().enable();
        Some(waiting)
    }

    /// A slot has become free: wakes who waits longest. To be called after the slot was given back, once for each.
    /// Costs one load while nobody waits.
    pub fn wake_one(&self) {
        if !self.is_empty() {
            self.notify.notify_one();
        }
    }

    /// Members have changed: wakes everybody.
    pub fn wake_all(&self) {
        if !self.is_empty() {
            self.notify.notify_waiters();
        }
    }
}

impl Waiting<'_> {
    /// Waits for a wake. Whoever is woken tries at once, and waits again, at the end, where somebody was faster. The
    /// first wake comes at once: a slot may have become free since the try that made the request wait.
    ///
    /// Cancellation safe: a wake that came to a dropped wait is there for the next one, and one that came to a dropped
    /// place goes on to the next in the queue, unless [`Self::served`] says that it was of use.
    pub async fn woken(&mut self) {
        if std::mem::take(&mut self.is_new) {
            return;
        }
        self.owes_a_wake = false;
        self.next.as_mut().await;
        self.owes_a_wake = true;
        // Listed again before the caller tries.
        self.next.set(self.queue.notify.notified());
        self.next.as_mut().enable();
    }

    /// Gives the place back because the request found a slot. A place that is dropped without this after a wake passes
    /// the wake on, for what it was woken for may still be free.
    pub fn served(mut self) {
        self.owes_a_wake = false;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.queue.waiting.fetch_sub(1, Ordering::SeqCst);
        if self.owes_a_wake {
            self.queue.wake_one();
        }
    }
}

#[cfg(test)]
mod tests;

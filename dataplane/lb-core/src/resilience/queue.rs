//! Requests of one set that wait for a slot.
//!
//! **No wake is lost, and nobody overtakes who sleeps.** While somebody is in the queue each slot that becomes free
//! leaves a wake, which goes to who has slept longest, or is kept for who sleeps next: wakes add up, which is why this is
//! a semaphore and not tokio's `Notify`, that keeps one. Who joined tries once more before it sleeps, for a slot that
//! became free while the queue was empty left no wake; but not while others sleep: they tried after they had joined,
//! and whatever became free since has left a wake. A change of members may free more than there are wakes: until somebody
//! has tried in vain after it, who joins tries.
//!
//! **Connections.** A slot is of use to everybody, an idle connection or a stream only to requests of its own worker. Where
//! connections have a bound, who is woken for a slot and finds no connection says so ([`Waiting::lacks`]): that wakes
//! the others once. From then on whatever that backend frees wakes everybody ([`Queue::freed`]), and who joins tries once
//! more though others sleep.
//!
//! **Not here**: who tries, and for what. A wake says only that something has changed.

use crate::backend::{Live, Wanted};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;

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
    /// Places that are taken. Sequentially consistent, as are the counts of slots: see [`Live`].
    waiting: AtomicU32,
    /// Those of them who have tried and now wait for a wake.
    asleep: AtomicU32,
    /// Those that lack a connection.
    lacking: AtomicU32,
    /// How often everything changed, and after how many changes somebody has tried in vain: until then more slots may be
    /// free than there are wakes.
    changes: AtomicU64,
    settled: AtomicU64,
    /// A permit for each wake that nobody has heard of.
    wakes: Semaphore,
}

/// A place in the queue; given back when it is dropped.
#[derive(Debug)]
pub struct Waiting<'a> {
    queue: &'a Queue,
    is_new: bool,
    /// How many changes there had been when it was last woken.
    changes: u64,
    /// It was woken, and nobody said yet that it found a slot.
    owes_a_wake: bool,
    wanted: Vec<Wanted>,
}

/// Counts a sleeper, until it is woken or gives up.
struct Asleep<'a>(&'a AtomicU32);

impl Queue {
    /// An empty queue.
    #[must_use]
    pub fn new(settings: QueueSettings) -> Self {
        let (nobody, never) = (|| AtomicU32::new(0), || AtomicU64::new(0));
        Self {
            settings,
            waiting: nobody(),
            asleep: nobody(),
            lacking: nobody(),
            changes: never(),
            settled: never(),
            wakes: Semaphore::new(0),
        }
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
        Some(Waiting { queue: self, is_new: true, changes: 0, owes_a_wake: false, wanted: Vec::new() })
    }

    /// A slot has become free, which each of those that wait can use: wakes who has slept longest. To be called after
    /// the slot was given back, once for each. Costs one load while nobody waits.
    pub fn wake_one(&self) {
        if !self.is_empty() {
            self.wake(1);
        }
    }

    /// Members have changed, and any number of slots may be free: wakes everybody.
    pub fn wake_all(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.wake(self.len());
    }

    fn wake(&self, count: u32) {
        self.wakes.add_permits(count as usize);
    }

    /// A request or a connection of this backend has ended: wakes who has slept longest, or everybody where connections
    /// to it are wanted, for an idle one or a stream is of use to requests of its own worker alone. To be called as
    /// [`Self::wake_one`]. Costs one load while nobody waits.
    pub fn freed(&self, live: &Live) {
        if self.is_empty() {
            return;
        }
        self.wake(if live.wanted() > 0 { self.len() } else { 1 });
    }

    /// Whether something may be free of which no sleeper has heard, or that was of no use to those who have.
    fn may_be_missed(&self) -> bool {
        self.asleep.load(Ordering::SeqCst) == 0
            || self.lacking.load(Ordering::SeqCst) > 0
            || self.settled.load(Ordering::SeqCst) < self.changes.load(Ordering::SeqCst)
    }
}

impl Waiting<'_> {
    /// Waits for a wake. Whoever is woken tries at once, and waits again, at the end, where somebody was faster. The
    /// first wake comes at once where nobody sleeps, or somebody lacks what this request may have: a slot may have become
    /// free since the try that made the request wait.
    ///
    /// Cancellation safe: a wake that came to a dropped wait, or to a place that is dropped, goes on to the next in the
    /// queue, unless [`Self::served`] says that it was of use. Who waits anew after a dropped wait is at the end.
    pub async fn woken(&mut self) {
        if !std::mem::take(&mut self.is_new) {
            // It has tried since.
            self.queue.settled.fetch_max(self.changes, Ordering::SeqCst);
            self.sleep().await;
        } else if !self.queue.may_be_missed() {
            self.sleep().await;
        }
        self.changes = self.queue.changes.load(Ordering::SeqCst);
    }

    async fn sleep(&mut self) {
        self.owes_a_wake = false;
        let asleep = Asleep::one(&self.queue.asleep);
        self.queue.wakes.acquire().await.expect("it is never closed").forget();
        drop(asleep);
        self.owes_a_wake = true;
    }

    /// The request found a slot on this backend, and no connection for it: workers that hold an idle one are to give it
    /// up ([`Live::wanted`]) as long as the request waits. The first time that wakes all others, for they may have a
    /// connection.
    pub fn lacks(&mut self, live: &Arc<Live>) {
        if self.wanted.iter().any(|wanted| Arc::ptr_eq(wanted.live(), live)) {
            return;
        }
        if self.wanted.is_empty() {
            self.queue.lacking.fetch_add(1, Ordering::SeqCst);
        }
        self.wanted.push(live.want());
        self.queue.wake(self.queue.len().saturating_sub(1));
    }

    /// Gives the place back because the request found a slot. A place that is dropped without this after a wake passes
    /// the wake on, for what it was woken for may still be free.
    pub fn served(mut self) {
        self.owes_a_wake = false;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.wanted.is_empty() {
            self.queue.lacking.fetch_sub(1, Ordering::SeqCst);
        }
        self.queue.waiting.fetch_sub(1, Ordering::SeqCst);
        if self.owes_a_wake {
            self.queue.wake_one();
        }
    }
}

impl<'a> Asleep<'a> {
    fn one(count: &'a AtomicU32) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Asleep<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests;

//! Coarse deadlines for one worker: set and forget at the cost of a store, without a clock read.
//!
//! Why not `tokio::time` for each request: every request has a deadline and nearly none is reached, so arming and
//! disarming a precise timer is pure cost. Here a task looks at all deadlines every [`TICK`] and wakes those that
//! passed. A deadline is met between its time and two ticks later; limits of seconds do not notice.

use slab::Slab;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// How often deadlines are looked at.
pub(crate) const TICK: Duration = Duration::from_millis(100);

const NEVER: u64 = u64::MAX;

/// All deadlines of a worker.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    now: Cell<u64>,
    idle_ended: Cell<bool>,
    slots: RefCell<Slab<Slot>>,
}

#[derive(Debug)]
struct Slot {
    at: u64,
    waits: Waits,
    waker: Option<Waker>,
}

/// What is waited for: idle waits end early when the worker drains.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Waits {
    ForWork,
    Idle,
}

impl Timers {
    /// A deadline that is never reached until it is set.
    pub(crate) fn deadline(self: &Rc<Self>) -> Deadline {
        let key = self.slots.borrow_mut().insert(Slot { at: NEVER, waits: Waits::ForWork, waker: None });
        Deadline { timers: Rc::clone(self), key }
    }

    /// From now on nobody waits idly: idle deadlines are reached at once.
    pub(crate) fn end_idle(&self) {
        self.idle_ended.set(true);
        for (_, slot) in self.slots.borrow_mut().iter_mut().filter(|(_, slot)| slot.waits == Waits::Idle) {
            slot.at = self.now.get();
            if let Some(waker) = slot.waker.take() {
                waker.wake();
            }
        }
    }

    /// [`TICK`]s that have passed.
    pub(crate) fn now(&self) -> u64 {
        self.now.get()
    }

    /// One [`TICK`] has passed: wakes whoever waits for a deadline that is over.
    pub(crate) fn tick(&self) {
        let now = self.now.get() + 1;
        self.now.set(now);
        // Wakers run no task here, they only mark it; the borrow is safe.
        for (_, slot) in self.slots.borrow_mut().iter_mut() {
            if slot.at <= now
                && let Some(waker) = slot.waker.take()
            {
                waker.wake();
            }
        }
    }
}

/// One owner's deadline, used again for each thing it waits for.
#[derive(Debug)]
pub(crate) struct Deadline {
    timers: Rc<Timers>,
    key: usize,
}

/// A moment at which a deadline of the same worker can be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Until(u64);

impl Until {
    pub(crate) const NEVER: Self = Self(NEVER);
}

impl Deadline {
    /// Reached when `limit` has passed from now; `None` is never.
    pub(crate) fn set(&self, limit: Option<Duration>) {
        self.set_until(self.after(limit));
    }

    /// The moment at which `limit` has passed from now; `None` is never.
    pub(crate) fn after(&self, limit: Option<Duration>) -> Until {
        limit.map_or(Until::NEVER, |limit| {
            // Rounded up, plus the part of the present tick that may be over already.
            let ticks = limit.as_millis().div_ceil(TICK.as_millis()) + 1;
            Until(self.timers.now.get().saturating_add(u64::try_from(ticks).unwrap_or(NEVER)))
        })
    }

    /// Reached at this moment.
    pub(crate) fn set_until(&self, until: Until) {
        let slot = &mut self.timers.slots.borrow_mut()[self.key];
        slot.at = until.0;
        slot.waits = Waits::ForWork;
    }

    /// Whether this moment has come.
    pub(crate) fn is_past(&self, until: Until) -> bool {
        until.0 <= self.timers.now.get()
    }

    /// The same for a wait in which nothing is under way; it ends early when the worker drains.
    pub(crate) fn set_idle(&self, limit: Duration) {
        self.set(Some(limit));
        let slot = &mut self.timers.slots.borrow_mut()[self.key];
        slot.waits = Waits::Idle;
        if self.timers.idle_ended.get() {
            slot.at = self.timers.now.get();
        }
    }

    /// What the future gives, or `None` once `limit` has passed. Leaves the deadline set.
    pub(crate) async fn within<T>(&self, limit: Duration, future: impl Future<Output = T>) -> Option<T> {
        self.set(Some(limit));
        tokio::select! { biased;
            value = future => Some(value),
            () = self.passed() => None,
        }
    }

    /// Whether it has been reached.
    pub(crate) fn has_passed(&self) -> bool {
        self.timers.slots.borrow()[self.key].at <= self.timers.now.get()
    }

    /// Waits until the deadline is reached. Cancellation safe.
    pub(crate) async fn passed(&self) {
        poll_fn(|cx| self.poll_passed(cx)).await;
    }

    fn poll_passed(&self, cx: &Context<'_>) -> Poll<()> {
        if self.has_passed() {
            return Poll::Ready(());
        }
        let mut slots = self.timers.slots.borrow_mut();
        let slot = &mut slots[self.key];
        match &mut slot.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => slot.waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        self.timers.slots.borrow_mut().remove(self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(deadline: &Deadline) -> bool {
        deadline.poll_passed(&Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn a_deadline_is_met_at_most_two_ticks_late_and_never_early() {
        let timers = Rc::new(Timers::default());
        let deadline = timers.deadline();
        deadline.set(Some(TICK * 3));
        for _ in 0..3 {
            timers.tick();
            assert!(!passed(&deadline), "early: up to a whole tick was over when it was set");
        }
        timers.tick();
        assert!(passed(&deadline));
    }

    #[test]
    fn an_unset_deadline_is_never_met_and_a_later_one_takes_its_place() {
        let timers = Rc::new(Timers::default());
        let deadline = timers.deadline();
        timers.tick();
        assert!(!passed(&deadline));
        deadline.set(Some(TICK));
        deadline.set(None);
        (0..100).for_each(|_| timers.tick());
        assert!(!passed(&deadline));
        deadline.set(Some(Duration::MAX));
        timers.tick();
        assert!(!passed(&deadline));
    }

    #[test]
    fn draining_ends_idle_waits_at_once_and_no_others() {
        let timers = Rc::new(Timers::default());
        let (idle, busy) = (timers.deadline(), timers.deadline());
        idle.set_idle(TICK * 50);
        busy.set(Some(TICK * 50));
        assert!(!passed(&idle));
        timers.end_idle();
        assert!(passed(&idle) && !passed(&busy));
        busy.set_idle(TICK * 50);
        assert!(passed(&busy), "an idle wait that begins later ends as well");
    }

    #[test]
    fn dropped_deadlines_leave_nothing_behind() {
        let timers = Rc::new(Timers::default());
        drop(timers.deadline());
        assert!(timers.slots.borrow().is_empty());
    }
}

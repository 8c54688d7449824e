//! Coarse deadlines for one worker: set and forget at the cost of a store, without a clock read.
//!
//! Why not `tokio::time` for each request: every request has a deadline and nearly none is reached, so arming and
//! disarming a precise timer is pure cost. Here a task looks at all deadlines every [`TICK`] and wakes those that
//! passed. A deadline is met between its time and two ticks later; limits of seconds do not notice.

use lb_core::balance::Rng;
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// How often deadlines are looked at.
pub(crate) const TICK: Duration = Duration::from_millis(100);

const NEVER: u64 = u64::MAX;

/// All deadlines of a worker.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    now: Cell<u64>,
    slots: RefCell<Slab<Slot>>,
    /// What tunnels carry to: the set's name, by the key of their deadline.
    tunnels: RefCell<BTreeMap<usize, Arc<str>>>,
    /// False while nobody is asked to go, so that this is all that a request looks at.
    is_anyone_leaving: Cell<bool>,
    everyone: Cell<Option<Pace>>,
    /// Ports that are closed while connections of theirs may be open.
    ports: RefCell<BTreeMap<u16, Pace>>,
}

#[derive(Debug)]
struct Slot {
    at: u64,
    waits: Waits,
    waker: Option<Waker>,
}

/// What is waited for. The port is the one that the client came to.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Waits {
    ForWork,
    /// For a request, which may not come: ends early when clients are asked to go.
    Idle(u16),
    /// For nothing, until the tunnel is to end.
    Tunnel(u16),
    /// The same for one whose clients cannot be told: where everyone is asked to go it has until the process ends.
    Untold(u16),
}

/// Who is asked to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose<'a> {
    Everyone,
    /// Whoever came to this port.
    Port(u16),
    /// Tunnels to sets whose name begins so.
    TunnelsTo(&'a str),
}

/// The time over which those who are asked to go are spread, so that they do not all come back at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spread {
    /// For connections that wait for a request.
    pub(crate) idle: Duration,
    pub(crate) tunnels: Duration,
}

/// [`Spread`] as moments.
#[derive(Debug, Clone, Copy)]
struct Pace {
    idle: u64,
    tunnels: u64,
}

impl Timers {
    /// A deadline that is never reached until it is set.
    pub(crate) fn deadline(self: &Rc<Self>) -> Deadline {
        let key = self.slots.borrow_mut().insert(Slot { at: NEVER, waits: Waits::ForWork, waker: None });
        Deadline { timers: Rc::clone(self), key }
    }

    /// Asks to go: each idle wait and each tunnel ends at a moment of its own within the spread, one that begins later
    /// does too, and [`Self::is_leaving`] says so to whoever has a request.
    pub(crate) fn leave(&self, whose: Whose<'_>, spread: Spread, random: &mut Rng) {
        let now = self.now.get();
        let pace = Pace { idle: now + ticks(spread.idle), tunnels: now + ticks(spread.tunnels) };
        match whose {
            Whose::Everyone => self.everyone.set(Some(pace)),
            Whose::Port(port) => drop(self.ports.borrow_mut().insert(port, pace)),
            Whose::TunnelsTo(_) => {}
        }
        self.see_who_leaves();
        let tunnels = self.tunnels.borrow();
        for (key, slot) in self.slots.borrow_mut().iter_mut() {
            let last = match (slot.waits, whose) {
                (Waits::Idle(_), Whose::Everyone) => pace.idle,
                (Waits::Tunnel(_), Whose::Everyone) => pace.tunnels,
                (Waits::Idle(of), Whose::Port(port)) if of == port => pace.idle,
                (Waits::Tunnel(of) | Waits::Untold(of), Whose::Port(port)) if of == port => pace.tunnels,
                (Waits::Tunnel(_) | Waits::Untold(_), Whose::TunnelsTo(sets))
                    if tunnels.get(&key).is_some_and(|set| set.starts_with(sets)) =>
                {
                    pace.tunnels
                }
                _ => continue,
            };
            // Whoever waits is woken by the tick that comes to it.
            let spread = usize::try_from(last - now).unwrap_or(usize::MAX >> 1) + 1;
            slot.at = slot.at.min(now + random.below(spread) as u64);
        }
    }

    /// Takes back that whoever comes to this port is asked to go. Those that have a moment already keep it.
    pub(crate) fn stay(&self, port: u16) {
        self.ports.borrow_mut().remove(&port);
        self.see_who_leaves();
    }

    fn see_who_leaves(&self) {
        self.is_anyone_leaving.set(self.everyone.get().is_some() || !self.ports.borrow().is_empty());
    }

    /// Whether clients that came to this port are asked to come no more.
    pub(crate) fn is_leaving(&self, port: u16) -> bool {
        self.pace(port).is_some()
    }

    fn pace(&self, port: u16) -> Option<Pace> {
        if !self.is_anyone_leaving.get() {
            return None;
        }
        self.everyone.get().or_else(|| self.ports.borrow().get(&port).copied())
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

    /// The same for a wait in which nothing is under way, of a client that came to `port`; it ends early when that one is
    /// asked to go.
    pub(crate) fn set_idle(&self, limit: Duration, port: u16) {
        self.set(Some(limit));
        let slot = &mut self.timers.slots.borrow_mut()[self.key];
        slot.waits = Waits::Idle(port);
        if let Some(pace) = self.timers.pace(port) {
            slot.at = slot.at.min(pace.idle.max(self.timers.now.get()));
        }
    }

    /// Reached when a tunnel to `set` is to end that came to `port`: never, unless one of them is asked to go.
    pub(crate) fn set_tunnel(&self, port: u16, set: &Arc<str>) {
        let slot = &mut self.timers.slots.borrow_mut()[self.key];
        slot.waits = Waits::Tunnel(port);
        slot.at = self.timers.pace(port).map_or(NEVER, |pace| pace.tunnels);
        self.timers.tunnels.borrow_mut().insert(self.key, Arc::clone(set));
    }

    /// The same for a connection whose client cannot be told: one that everyone is asked to leave may end by itself.
    pub(crate) fn set_untold(&self, port: u16, set: &Arc<str>) {
        let pace = self.timers.ports.borrow().get(&port).copied();
        let slot = &mut self.timers.slots.borrow_mut()[self.key];
        slot.waits = Waits::Untold(port);
        slot.at = pace.map_or(NEVER, |pace| pace.tunnels);
        self.timers.tunnels.borrow_mut().insert(self.key, Arc::clone(set));
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

    pub(crate) fn poll_passed(&self, cx: &Context<'_>) -> Poll<()> {
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
        let slot = self.timers.slots.borrow_mut().remove(self.key);
        if let Waits::Tunnel(_) | Waits::Untold(_) = slot.waits {
            self.timers.tunnels.borrow_mut().remove(&self.key);
        }
    }
}

fn ticks(time: Duration) -> u64 {
    u64::try_from(time.as_millis() / TICK.as_millis()).unwrap_or(u64::MAX >> 1)
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

    const SPREAD: Spread = Spread { idle: TICK.saturating_mul(10), tunnels: TICK.saturating_mul(40) };

    /// The ticks after which each of them has passed; `None` for never.
    fn ends(timers: &Timers, deadlines: &[Deadline]) -> Vec<Option<u64>> {
        let mut ends = vec![None; deadlines.len()];
        for tick in 0..200 {
            for (end, deadline) in ends.iter_mut().zip(deadlines) {
                if end.is_none() && passed(deadline) {
                    *end = Some(tick);
                }
            }
            timers.tick();
        }
        ends
    }

    #[test]
    fn who_is_asked_to_go_is_spread_over_the_time_and_nobody_else_is_touched() {
        let timers = Rc::new(Timers::default());
        let deadlines: Vec<Deadline> = (0..300).map(|_| timers.deadline()).collect();
        let set: Arc<str> = "ns/pool/set".into();
        deadlines[..100].iter().for_each(|deadline| deadline.set_idle(TICK * 150, 80));
        deadlines[100..200].iter().for_each(|deadline| deadline.set_tunnel(80, &set));
        timers.leave(Whose::Everyone, SPREAD, &mut Rng::new(1));
        let ends = ends(&timers, &deadlines);
        let of = |range: std::ops::Range<usize>| {
            let of: Vec<u64> = ends[range].iter().flatten().copied().collect();
            (of.len(), of.iter().copied().min(), of.iter().copied().max())
        };
        assert_eq!(of(0..100), (100, Some(0), Some(10)));
        let (count, first, last) = of(100..200);
        assert!(count == 100 && first < Some(4) && last > Some(36) && last <= Some(40), "{first:?} {last:?}");
        assert_eq!(of(200..300).0, 0, "work that is under way goes on");
    }

    #[test]
    fn who_cannot_be_told_goes_with_a_port_or_a_pool_and_not_with_the_process() {
        let timers = Rc::new(Timers::default());
        let deadlines: Vec<Deadline> = (0..4).map(|_| timers.deadline()).collect();
        for (deadline, (port, set)) in
            deadlines.iter().zip([(80, "ns/a/set"), (80, "ns/b/set"), (81, "ns/a/set"), (82, "ns/b/set")])
        {
            deadline.set_untold(port, &set.into());
        }
        timers.leave(Whose::Everyone, SPREAD, &mut Rng::new(1));
        assert_eq!(ends(&timers, &deadlines), [None; 4]);
        timers.leave(Whose::TunnelsTo("ns/a/"), SPREAD, &mut Rng::new(1));
        let end = |ends: Vec<Option<u64>>| ends.iter().map(Option::is_some).collect::<Vec<_>>();
        assert_eq!(end(ends(&timers, &deadlines)), [true, false, true, false]);
        timers.leave(Whose::Port(80), SPREAD, &mut Rng::new(1));
        assert_eq!(end(ends(&timers, &deadlines)), [true, true, true, false]);
        let late = timers.deadline();
        late.set_untold(80, &"ns/b/set".into());
        assert_eq!(end(ends(&timers, &[late])), [true], "one that came while it closed");
        drop(deadlines);
        assert!(timers.tunnels.borrow().is_empty());
    }

    #[test]
    fn a_port_that_closes_asks_its_own_clients_and_one_that_opens_again_asks_no_more() {
        let timers = Rc::new(Timers::default());
        let deadlines: Vec<Deadline> = (0..3).map(|_| timers.deadline()).collect();
        deadlines[0].set_idle(TICK * 150, 80);
        deadlines[1].set_idle(TICK * 150, 81);
        timers.leave(Whose::Port(80), SPREAD, &mut Rng::new(1));
        assert!(timers.is_leaving(80) && !timers.is_leaving(81));
        deadlines[2].set_idle(TICK * 150, 80);
        let ends = ends(&timers, &deadlines);
        assert!(ends[0] <= Some(10) && ends[0].is_some(), "{ends:?}");
        assert_eq!(
            ends[1..],
            [Some(151), Some(10)],
            "one that begins to wait later has the rest of the time"
        );
        timers.stay(80);
        assert!(!timers.is_leaving(80));
    }

    #[test]
    fn tunnels_to_a_pool_that_is_gone_end_and_those_to_others_stay() {
        let timers = Rc::new(Timers::default());
        let deadlines: Vec<Deadline> = (0..3).map(|_| timers.deadline()).collect();
        for (deadline, set) in deadlines.iter().zip(["ns/a/set", "ns/ab/set", "ns/b/set"]) {
            deadline.set_tunnel(80, &set.into());
        }
        timers.leave(Whose::TunnelsTo("ns/a/"), SPREAD, &mut Rng::new(1));
        let ends = ends(&timers, &deadlines);
        assert!(ends[0].is_some() && ends[1..] == [None, None], "{ends:?}");
        assert!(!timers.is_leaving(80), "the port serves other pools");
        drop(deadlines);
        assert!(timers.tunnels.borrow().is_empty());
    }

    #[test]
    fn dropped_deadlines_leave_nothing_behind() {
        let timers = Rc::new(Timers::default());
        drop(timers.deadline());
        assert!(timers.slots.borrow().is_empty());
    }
}

//! Where demands meet shares in one process: a seat for each proxy with a stream here, and either the allocator, or what
//! waits to be passed on to the replica that has it.
//!
//! What waits is conflated, the newest for each proxy; so a stream that is slow costs what there is to know. Pure but for
//! its lock; the time is passed in.

use super::allocator::{Allocator, PROXIES_MAX};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::Notify;
use weir_proto::push::{Demand, ProxyDemand, ReplicaShares, Shares};

/// Shares and demands of one process.
#[derive(Debug, Default)]
pub struct Desk {
    state: Mutex<State>,
    /// Something waits to be passed on.
    waits: Notify,
}

#[derive(Debug, Default)]
struct State {
    role: Role,
    /// By `health_id`.
    seats: BTreeMap<u64, Arc<Mailbox>>,
}

#[derive(Debug)]
enum Role {
    /// This replica gives the shares.
    Gives(Box<Allocator>),
    /// Another one does, or nobody; these wait to be passed on.
    Asks(BTreeMap<u64, Demand>),
    /// There is one proxy, which has every limit whole.
    Alone,
}

#[derive(Debug, Default)]
struct Mailbox {
    shares: Mutex<Option<Shares>>,
    notify: Notify,
}

/// A proxy's stream; left when dropped.
#[derive(Debug)]
pub struct Seat {
    desk: Arc<Desk>,
    proxy: u64,
    mailbox: Arc<Mailbox>,
}

/// What this process has to pass on to the replica that gives shares.
#[derive(Debug)]
pub struct Outbox(Arc<Desk>);

/// For the metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeskCounts {
    /// Limits that this replica gives shares of; 0 where it gives none.
    pub limits: usize,
    /// Proxies that it gives shares to.
    pub proxies: usize,
}

impl Default for Role {
    fn default() -> Self {
        Self::Asks(BTreeMap::new())
    }
}

impl Desk {
    /// This replica gives the shares from now on. `epoch` is drawn at random, and not 0. No effect where it does already.
    pub fn give(&self, epoch: u64, now: Instant) {
        let mut state = self.state();
        if matches!(state.role, Role::Asks(_)) {
            state.role = Role::Gives(Box::new(Allocator::new(epoch, now)));
        }
    }

    /// Another replica gives the shares from now on, or nobody.
    pub fn ask(&self) {
        let mut state = self.state();
        if matches!(state.role, Role::Gives(_)) {
            state.role = Role::default();
        }
    }

    /// There is one proxy, and there will never be another.
    pub fn stand_alone(&self) {
        self.state().role = Role::Alone;
    }

    /// Whether there is one proxy.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        matches!(self.state().role, Role::Alone)
    }

    /// A stream's place, instead of an earlier one of the same proxy. `None` where there are [`PROXIES_MAX`] others.
    pub fn join(self: &Arc<Self>, proxy: u64) -> Option<Seat> {
        let mut state = self.state();
        if state.seats.len() >= PROXIES_MAX && !state.seats.contains_key(&proxy) {
            return None;
        }
        let mailbox = Arc::<Mailbox>::default();
        state.seats.insert(proxy, Arc::clone(&mailbox));
        drop(state);
        Some(Seat { desk: Arc::clone(self), proxy, mailbox })
    }

    /// What a proxy of another replica may have from now on; `None` where there is nothing to say, as in a replica that
    /// gives no shares.
    pub fn answer(&self, proxy: u64, demand: &Demand, now: Instant) -> Option<Shares> {
        match &mut self.state().role {
            Role::Gives(allocator) => allocator.answer(proxy, demand, now),
            Role::Asks(_) | Role::Alone => None,
        }
    }

    /// What another replica answered.
    pub fn deliver(&self, answer: ReplicaShares) {
        let state = self.state();
        let Some(mailbox) = state.seats.get(&answer.proxy) else { return };
        if let (Some(shares), Role::Asks(_)) = (answer.shares, &state.role) {
            mailbox.put(shares);
        }
    }

    /// What is to be passed on, for as long as another replica gives the shares.
    #[must_use]
    pub fn outbox(self: &Arc<Self>) -> Outbox {
        Outbox(Arc::clone(self))
    }

    /// What this replica does now.
    #[must_use]
    pub fn counts(&self, now: Instant) -> DeskCounts {
        match &self.state().role {
            Role::Gives(allocator) => {
                DeskCounts { limits: allocator.limits(), proxies: allocator.there(now) }
            }
            Role::Asks(_) | Role::Alone => DeskCounts::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics between two writes that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Takes in what this proxy says.
    pub fn say(&self, demand: Demand, now: Instant) {
        let mut state = self.desk.state();
        match &mut state.role {
            Role::Gives(allocator) => {
                if let Some(shares) = allocator.answer(self.proxy, &demand, now) {
                    drop(state);
                    self.mailbox.put(shares);
                }
            }
            Role::Asks(waiting) => {
                if waiting.len() < PROXIES_MAX || waiting.contains_key(&self.proxy) {
                    waiting.insert(self.proxy, demand);
                }
                drop(state);
                self.desk.waits.notify_one();
            }
            Role::Alone => {}
        }
    }

    /// Returns when there may be shares. Cancellation safe.
    pub async fn changed(&self) {
        self.mailbox.notify.notified().await;
    }

    /// The newest shares that this proxy has not been told.
    #[must_use]
    pub fn next(&self) -> Option<Shares> {
        self.mailbox.shares().take()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.desk.state();
        if state.seats.get(&self.proxy).is_some_and(|mine| Arc::ptr_eq(mine, &self.mailbox)) {
            state.seats.remove(&self.proxy);
        }
    }
}

impl Outbox {
    /// The next demand to pass on.
    #[must_use]
    pub fn next(&self) -> Option<ProxyDemand> {
        let Role::Asks(waiting) = &mut self.0.state().role else { return None };
        let (proxy, demand) = waiting.pop_first()?;
        Some(ProxyDemand { proxy, demand: Some(demand) })
    }

    /// Returns when there may be something to pass on. Cancellation safe.
    pub async fn changed(&self) {
        self.0.waits.notified().await;
    }
}

impl Mailbox {
    fn put(&self, shares: Shares) {
        *self.shares() = Some(shares);
        self.notify.notify_one();
    }

    fn shares(&self) -> MutexGuard<'_, Option<Shares>> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_proto::push::LimitDemand;

    fn demand(number: u64) -> Demand {
        let limit = LimitDemand {
            limit: 7,
            is_new: true,
            burst: 100,
            requests: 100,
            period_ms: 1_000,
            ..LimitDemand::default()
        };
        Demand { number, limits: vec![limit], ..Demand::default() }
    }

    fn answered(seat: &Seat) -> Option<u64> {
        seat.next().map(|shares| shares.answers)
    }

    #[test]
    fn where_shares_are_given_a_proxy_is_answered_at_once() {
        let (desk, now) = (Arc::<Desk>::default(), Instant::now());
        desk.give(1, now);
        let seat = desk.join(5).expect("room");
        seat.say(demand(1), now);
        seat.say(demand(2), now);
        assert_eq!(answered(&seat), Some(2), "the newest counts");
        assert_eq!(answered(&seat), None);
        assert_eq!(desk.counts(now), DeskCounts { limits: 1, proxies: 1 });
        assert_eq!(desk.outbox().next(), None);
        desk.ask();
        seat.say(demand(3), now);
        assert_eq!((answered(&seat), desk.counts(now)), (None, DeskCounts::default()));
    }

    #[test]
    fn elsewhere_the_newest_demand_of_each_proxy_is_passed_on_and_its_answer_back() {
        let (here, there, now) = (Arc::<Desk>::default(), Desk::default(), Instant::now());
        there.give(1, now);
        let (a, b) = (here.join(5).expect("room"), here.join(6).expect("room"));
        a.say(demand(1), now);
        a.say(demand(2), now);
        b.say(demand(9), now);
        let outbox = here.outbox();
        while let Some(ProxyDemand { proxy, demand }) = outbox.next() {
            let shares = there.answer(proxy, &demand.expect("said"), now);
            here.deliver(ReplicaShares { proxy, shares });
        }
        assert_eq!((answered(&a), answered(&b)), (Some(2), Some(9)));
        here.deliver(ReplicaShares { proxy: 4711, shares: Some(Shares::default()) });
        assert_eq!(here.answer(5, &demand(3), now), None, "it gives none itself");
    }

    #[test]
    fn a_later_stream_of_a_proxy_gets_its_answers() {
        let (desk, now) = (Arc::<Desk>::default(), Instant::now());
        let first = desk.join(5).expect("room");
        let second = desk.join(5).expect("room");
        drop(first);
        second.say(demand(1), now);
        desk.deliver(ReplicaShares { proxy: 5, shares: Some(Shares::default()) });
        assert_eq!(answered(&second), Some(0));
    }

    #[test]
    fn so_many_proxies_have_a_seat_and_no_more() {
        let desk = Arc::<Desk>::default();
        let seats: Vec<_> = (0..PROXIES_MAX as u64).map(|proxy| desk.join(proxy).expect("room")).collect();
        assert!(desk.join(u64::MAX).is_none());
        assert!(desk.join(5).is_some(), "in its own place");
        drop(seats);
        assert!(desk.join(u64::MAX).is_some());
    }
}

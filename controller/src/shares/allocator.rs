//! Who gives shares: demands in, answers out. No I/O and no clock.

use super::limit::{Limit, Said, TERM_HELD};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use weir_proto::limits::SHARED_LIMITS_MAX;
use weir_proto::push::{Demand, LimitShare, Shares};

/// Limits of all proxies; those past it get no shares.
pub const LIMITS_MAX: usize = 10_000;

/// Proxies that have shares of one limit, and that are answered at all.
pub const PROXIES_MAX: usize = 1_000;

/// A proxy counts as there for so long after it spoke.
const THERE_FOR: Duration = Duration::from_secs(4);

/// Between two looks for what is over.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// The shares of every limit.
#[derive(Debug)]
pub struct Allocator {
    epoch: u64,
    began: Instant,
    limits: BTreeMap<u64, Limit>,
    proxies: BTreeMap<u64, Spoke>,
    swept: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Spoke {
    number: u64,
    at: Instant,
}

impl Allocator {
    /// Knows nothing of what proxies have. `epoch` is no other allocator's, and not 0.
    #[must_use]
    pub fn new(epoch: u64, now: Instant) -> Self {
        Self { epoch, began: now, limits: BTreeMap::new(), proxies: BTreeMap::new(), swept: now }
    }

    /// Takes in what a proxy says, and says what it may have from now on. `None` where there is nothing to answer: what it
    /// says came late, or there are more than [`PROXIES_MAX`].
    ///
    /// Of limits past [`SHARED_LIMITS_MAX`] in one message, past [`LIMITS_MAX`] in all, and of those that are not possible,
    /// nothing is given. Costs what the message is long, and for each limit what there are proxies.
    pub fn answer(&mut self, proxy: u64, demand: &Demand, now: Instant) -> Option<Shares> {
        self.sweep(now);
        if self.proxies.get(&proxy).is_some_and(|spoke| spoke.number >= demand.number)
            || (self.proxies.len() >= PROXIES_MAX && !self.proxies.contains_key(&proxy))
        {
            return None;
        }
        self.proxies.insert(proxy, Spoke { number: demand.number, at: now });
        let applied = (demand.epoch == self.epoch).then_some(demand.applied);
        let said = Said { number: demand.number, applied, leaves: demand.leaves };
        let heard_for = now.saturating_duration_since(self.began);
        let known = self.there(now);
        let mut shares = Vec::with_capacity(demand.limits.len().min(SHARED_LIMITS_MAX));
        for wanted in demand.limits.iter().take(SHARED_LIMITS_MAX) {
            let is_possible =
                wanted.limit != 0 && wanted.requests > 0 && wanted.burst > 0 && wanted.period_ms > 0;
            let has_room = self.limits.len() < LIMITS_MAX || self.limits.contains_key(&wanted.limit);
            if !is_possible || !has_room {
                continue;
            }
            let limit = self
                .limits
                .entry(wanted.limit)
                .or_insert_with(|| Limit::new(wanted, heard_for >= TERM_HELD, now));
            if !limit.has_room_for(proxy, PROXIES_MAX) {
                continue;
            }
            limit.hear(proxy, said, wanted, now);
            limit.try_to_settle(heard_for);
            let given = limit.give(proxy, said, known, now);
            shares.extend(given.map(|share| LimitShare { limit: wanted.limit, ..share }));
        }
        Some(Shares { epoch: self.epoch, answers: demand.number, limits: shares })
    }

    /// Limits that proxies have shares of.
    #[must_use]
    pub fn limits(&self) -> usize {
        self.limits.len()
    }

    /// Proxies that spoke in the last seconds.
    #[must_use]
    pub fn there(&self, now: Instant) -> usize {
        self.proxies.values().filter(|spoke| now.saturating_duration_since(spoke.at) < THERE_FOR).count()
    }

    /// What proxies may have of a limit in force together; 0 for one that nobody has.
    #[must_use]
    pub fn in_use(&self, limit: u64, now: Instant) -> u64 {
        self.limits.get(&limit).map_or(0, |limit| limit.in_use(now))
    }

    fn sweep(&mut self, now: Instant) {
        if now.saturating_duration_since(self.swept) < SWEEP_INTERVAL {
            return;
        }
        self.swept = now;
        self.limits.values_mut().for_each(|limit| limit.forget_gone(now));
        self.limits.retain(|_, limit| !limit.is_over(now));
        self.proxies.retain(|_, spoke| now.saturating_duration_since(spoke.at) < 2 * TERM_HELD);
    }
}

//! Flows: what comes from one source belongs together until it falls silent.
//!
//! For protocols without connections. A flow is looked up for each datagram, so that a look costs one hash and the note that
//! something came; who has fallen silent is found by when each flow would be over if nothing came, and looked at again only
//! then. Reads no clock: a moment is a [`Duration`] since the process began.

use foldhash::{HashMap, HashMapExt as _};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

/// Flows by their source.
#[derive(Debug)]
pub struct FlowTable<F> {
    flows: HashMap<SocketAddr, Entry<F>>,
    /// When each flow is looked at next: never later than it is over.
    due: BTreeSet<(Duration, SocketAddr)>,
    flows_max: usize,
}

#[derive(Debug)]
struct Entry<F> {
    flow: F,
    idle: Duration,
    last: Duration,
    due: Duration,
}

/// A table has as many flows as it may; what was to be put there comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Full<F>(pub F);

impl<F> FlowTable<F> {
    /// An empty table of at most so many flows. Takes no memory before there are any.
    #[must_use]
    pub fn new(flows_max: usize) -> Self {
        Self { flows: HashMap::new(), due: BTreeSet::new(), flows_max }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// The flow of a source, of which something comes or goes now. One that is over and was not expired yet goes on.
    pub fn find(&mut self, source: SocketAddr, now: Duration) -> Option<&mut F> {
        let entry = self.flows.get_mut(&source)?;
        entry.last = entry.last.max(now);
        Some(&mut entry.flow)
    }

    /// Begins the flow of a source, in place of the one that it has. It is over when nothing came or went for `idle`.
    ///
    /// # Errors
    /// [`Full`], and nothing has changed.
    pub fn insert(
        &mut self,
        source: SocketAddr,
        flow: F,
        idle: Duration,
        now: Duration,
    ) -> Result<(), Full<F>> {
        if self.flows.len() >= self.flows_max && !self.flows.contains_key(&source) {
            return Err(Full(flow));
        }
        self.remove(source);
        let due = now + idle;
        self.flows.insert(source, Entry { flow, idle, last: now, due });
        self.due.insert((due, source));
        Ok(())
    }

    /// Ends the flow of a source.
    pub fn remove(&mut self, source: SocketAddr) -> Option<F> {
        let entry = self.flows.remove(&source)?;
        self.due.remove(&(entry.due, source));
        Some(entry.flow)
    }

    /// Ends those that are over, and gives them. Costs a step for each that was due to be looked at.
    pub fn expire(&mut self, now: Duration) -> Vec<(SocketAddr, F)> {
        let mut over = Vec::new();
        while let Some(&(due, source)) = self.due.first()
            && due <= now
        {
            self.due.pop_first();
            let Some(entry) = self.flows.get_mut(&source) else { continue };
            entry.due = entry.last + entry.idle;
            if entry.due > now {
                self.due.insert((entry.due, source));
            } else {
                over.extend(self.flows.remove(&source).map(|entry| (source, entry.flow)));
            }
        }
        over
    }

    /// From now on flows are over after this long at most: those that are to end soon.
    pub fn shorten(&mut self, idle_max: Duration) {
        for (source, entry) in &mut self.flows {
            if entry.idle > idle_max {
                entry.idle = idle_max;
                self.due.remove(&(entry.due, *source));
                entry.due = entry.last + idle_max;
                self.due.insert((entry.due, *source));
            }
        }
    }

    /// Every source that has a flow. In no order.
    pub fn sources(&self) -> impl Iterator<Item = SocketAddr> {
        self.flows.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::Rng;

    const IDLE: Duration = Duration::from_secs(30);

    fn source(nth: u16) -> SocketAddr {
        ([192, 0, 2, 1], nth).into()
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_flow_is_over_when_nothing_came_for_its_time_and_not_a_moment_before() {
        let mut table = FlowTable::new(10);
        table.insert(source(1), "one", IDLE, at(0)).expect("room");
        assert_eq!(table.find(source(1), at(20)), Some(&mut "one"));
        assert_eq!(table.expire(at(30)), [], "it was looked at, and something had come");
        assert_eq!(table.expire(at(50) - Duration::from_nanos(1)), []);
        assert_eq!(table.expire(at(50)), [(source(1), "one")]);
        assert!(table.is_empty() && table.due.is_empty());
        assert_eq!(table.find(source(1), at(50)), None);
    }

    #[test]
    fn a_table_has_so_many_flows_and_one_more_comes_back() {
        let mut table = FlowTable::new(2);
        for nth in 0..2 {
            table.insert(source(nth), nth, IDLE, at(0)).expect("room");
        }
        assert_eq!(table.insert(source(2), 2, IDLE, at(0)), Err(Full(2)));
        assert_eq!(table.insert(source(1), 9, IDLE, at(0)), Ok(()), "in place of its own");
        assert_eq!((table.remove(source(0)), table.remove(source(0))), (Some(0), None));
        assert_eq!(table.insert(source(2), 2, IDLE, at(0)), Ok(()));
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn flows_that_are_to_end_soon_end_after_the_shorter_time() {
        let mut table = FlowTable::new(10);
        table.insert(source(1), 1, IDLE, at(0)).expect("room");
        table.insert(source(2), 2, at(1), at(9)).expect("room");
        table.find(source(1), at(8));
        table.shorten(at(5));
        assert_eq!(table.expire(at(10)), [(source(2), 2)], "its own was shorter");
        assert_eq!((table.expire(at(12)), table.expire(at(13))), (vec![], vec![(source(1), 1)]));
    }

    /// The same without an index: every flow with its time and when something came last.
    #[derive(Default)]
    struct Naive(Vec<(SocketAddr, u32, Duration, Duration)>);

    impl Naive {
        fn find(&mut self, source: SocketAddr, now: Duration) -> Option<u32> {
            let found = self.0.iter_mut().find(|own| own.0 == source)?;
            found.3 = now;
            Some(found.1)
        }

        fn expire(&mut self, now: Duration) -> Vec<(SocketAddr, u32)> {
            let (over, left) = self.0.drain(..).partition(|own| own.3 + own.2 <= now);
            self.0 = left;
            let over: Vec<(SocketAddr, u32, Duration, Duration)> = over;
            over.into_iter().map(|own| (own.0, own.1)).collect()
        }
    }

    #[test]
    fn a_table_does_what_one_without_an_index_does() {
        for seed in 0..200 {
            let (mut rng, mut now) = (Rng::new(seed), Duration::ZERO);
            let (mut table, mut naive) = (FlowTable::new(12), Naive::default());
            for step in 0..400 {
                let of = source(u16::try_from(rng.below(20)).expect("small"));
                match rng.below(6) {
                    0 | 1 => {
                        let idle = Duration::from_millis(1 + rng.below(3_000) as u64);
                        let is_new = naive.find(of, now).is_none();
                        let inserted = table.insert(of, step, idle, now);
                        assert_eq!(
                            inserted.is_err(),
                            is_new && naive.0.len() == 12,
                            "seed {seed} step {step}"
                        );
                        if inserted.is_ok() {
                            naive.0.retain(|own| own.0 != of);
                            naive.0.push((of, step, idle, now));
                        }
                    }
                    2 | 3 => {
                        let found = table.find(of, now).copied();
                        assert_eq!(found, naive.find(of, now), "seed {seed} step {step}");
                    }
                    4 => {
                        now += Duration::from_millis(rng.below(900) as u64);
                        let (mut one, mut other) = (table.expire(now), naive.expire(now));
                        one.sort_unstable();
                        other.sort_unstable();
                        assert_eq!(one, other, "seed {seed} step {step}");
                    }
                    _ => {
                        let removed = table.remove(of).is_some();
                        let before = naive.0.len();
                        naive.0.retain(|own| own.0 != of);
                        assert_eq!(removed, naive.0.len() < before, "seed {seed} step {step}");
                    }
                }
                assert_eq!((table.len(), table.due.len()), (naive.0.len(), naive.0.len()));
                assert!(table.len() <= 12);
            }
        }
    }
}

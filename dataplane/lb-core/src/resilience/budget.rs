//! The retry budget of one set: retries are a bounded share of requests.
//!
//! What Finagle's `RetryBudget` is for: while a backend is slow or down, retries must not multiply the load of what is
//! left. Where it differs: Finagle's is a bucket that leaks, to which a request adds a part of a token and the minimum
//! comes on top; here both are counted over one window and the greater of share and minimum is allowed, so that the
//! bound can be read off two counters.

use super::tally::Tally;
use std::time::Duration;

/// How many retries there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetSettings {
    /// Of the window's requests, 0 to 100.
    pub percent: u8,
    /// Always allowed, whatever the requests.
    pub retries_per_second_min: u32,
    /// Over which both are counted.
    pub window: Duration,
}

impl Default for BudgetSettings {
    fn default() -> Self {
        Self { percent: 20, retries_per_second_min: 10, window: Duration::from_secs(10) }
    }
}

/// The budget of one set, shared by all workers.
#[derive(Debug)]
pub struct RetryBudget {
    percent: u64,
    /// In a window, whatever the requests.
    retries_min: u64,
    /// Requests and retries.
    tally: Tally,
}

impl RetryBudget {
    /// A budget of which nothing is spent.
    #[must_use]
    pub fn new(settings: BudgetSettings) -> Self {
        let BudgetSettings { percent, retries_per_second_min, window } = settings;
        let retries_min = u128::from(retries_per_second_min) * window.as_millis() / 1000;
        Self {
            percent: percent.into(),
            retries_min: u64::try_from(retries_min).unwrap_or(u64::MAX),
            tally: Tally::new(window),
        }
    }

    /// Counts requests (not retries) in. To be called with batches, every 10 ms or so from each worker: until then they
    /// allow nothing.
    pub fn deposit(&self, now: Duration, requests: u32) {
        if requests > 0 {
            self.tally.add(now, requests.into(), 0);
        }
    }

    /// Takes one retry out of the budget, where there is one.
    ///
    /// Workers that withdraw at once follow one another, so the bound is exact; but for those that are on two sides of a
    /// tenth of the window, where each may take the last one. Ten loads and one exchange.
    #[must_use]
    pub fn withdraw(&self, now: Duration) -> bool {
        self.tally.add_b_if(now, |requests, retries| retries < self.allowed(requests))
    }

    /// Requests and retries of the window that ends now.
    #[must_use]
    pub fn counted(&self, now: Duration) -> (u64, u64) {
        self.tally.sums(now)
    }

    /// How many retries so many requests allow.
    fn allowed(&self, requests: u64) -> u64 {
        (requests * self.percent / 100).max(self.retries_min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(percent: u8, retries_per_second_min: u32, window_secs: u64) -> RetryBudget {
        let window = Duration::from_secs(window_secs);
        RetryBudget::new(BudgetSettings { percent, retries_per_second_min, window })
    }

    /// How many retries there are in a row.
    fn spend(budget: &RetryBudget, now: Duration) -> u32 {
        (0..100_000).take_while(|_| budget.withdraw(now)).count().try_into().expect("small")
    }

    #[test]
    fn retries_are_the_greater_of_share_and_minimum() {
        for (percent, min, window, requests, wanted) in [
            (0, 0, 10, 1_000_000, 0),
            (0, 0, 10, 0, 0),
            (0, 3, 10, 1_000, 30),
            (0, 1, 1, 0, 1),
            (20, 0, 10, 0, 0),
            (20, 0, 10, 4, 0),
            (20, 0, 10, 5, 1),
            (20, 0, 10, 1_000, 200),
            (100, 0, 10, 7, 7),
            (20, 10, 10, 499, 100),
            (20, 10, 10, 500, 100),
            (20, 10, 10, 505, 101),
        ] {
            let budget = budget(percent, min, window);
            budget.deposit(Duration::ZERO, requests);
            let spent = spend(&budget, Duration::from_millis(10));
            assert_eq!(spent, wanted, "{percent} %, {min}/s over {window} s of {requests}");
            assert_eq!(budget.counted(Duration::from_millis(10)), (requests.into(), wanted.into()));
        }
    }

    #[test]
    fn what_was_spent_comes_back_as_the_window_slides() {
        let budget = budget(10, 0, 10);
        let at = Duration::from_secs;
        budget.deposit(at(0), 100);
        assert_eq!(spend(&budget, at(5)), 10);
        budget.deposit(at(9), 50);
        assert_eq!(spend(&budget, at(9)), 5);
        // The first hundred have left, the retries of the fifth second have not.
        assert_eq!(spend(&budget, at(10)), 0);
        assert_eq!(spend(&budget, at(15)), 0, "5 are spent of 5");
        budget.deposit(at(15), 10);
        assert_eq!(spend(&budget, at(15)), 1);
    }

    #[test]
    fn workers_that_withdraw_at_once_take_no_more_than_there_is() {
        let budget = budget(20, 0, 10);
        let now = Duration::from_secs(3);
        budget.deposit(now, 5_000);
        #[expect(clippy::disallowed_methods, reason = "a test of what threads do at once")]
        let spent: u32 = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(|| spend(&budget, now))).collect();
            workers.into_iter().map(|worker| worker.join().expect("no panic")).sum()
        });
        assert_eq!(spent, 1_000);
    }
}

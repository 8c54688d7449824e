//! The retry budget of one set: retries are a bounded share of requests.

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
    settings: BudgetSettings,
}

impl RetryBudget {
    /// A budget of which nothing is spent.
    #[must_use]
    pub fn new(settings: BudgetSettings) -> Self {
        Self { settings }
    }

    /// Counts requests (not retries) in.
    pub fn deposit(&self, _now: Duration, _requests: u32) {}

    /// Takes one retry out of the budget, where there is one.
    #[must_use]
    pub fn withdraw(&self, _now: Duration) -> bool {
        self.settings.percent > 0
    }
}

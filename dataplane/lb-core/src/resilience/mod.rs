//! What keeps failures small: a circuit breaker and a retry budget for each set, concurrency slots for each backend with
//! a bounded queue for each set, and the rules of a retry.
//!
//! State is of the process and carried over by set name while its settings are the same. Times are a
//! [`std::time::Duration`] since the process began.
//!
//! `tests/resilience/` simulates a process with seeds: circuit, budget, slots, queue, connections and sessions together,
//! over backends that misbehave, come and go.

mod breaker;
mod budget;
mod queue;
mod retry;
mod tally;

pub use breaker::{Admission, Breaker, BreakerSettings, BreakerState, PROBES_MAX, Probe};
pub use budget::{BudgetSettings, RetryBudget};
pub use queue::{Queue, QueueSettings, Waiting};
pub use retry::{RETRIES_MAX, RetryPolicy, backoff};
pub use tally::Tally;

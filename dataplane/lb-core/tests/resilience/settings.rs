//! What a seed is about.

use lb_core::backend::{Algorithm, ConnectionLimits, SetPolicy, Smoothing, UpstreamProtocol};
use lb_core::balance::Rng;
use lb_core::resilience::{BreakerSettings, BudgetSettings, QueueSettings};
use std::num::NonZeroU32;
use std::time::Duration;

/// A request without an answer has failed after this.
pub(crate) const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(150);

#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) policy: SetPolicy,
    pub(crate) replicas: usize,
    pub(crate) retries_max: u32,
    pub(crate) backoff: Duration,
    /// Of sessions.
    pub(crate) idle_secs: u64,
}

impl Settings {
    pub(crate) fn of(seed: u64) -> Self {
        let mut dice = Rng::new(seed ^ 0x5e77_1465);
        let mut below = |count: u32| u32::try_from(dice.below(count as usize)).expect("small");
        let algorithm = [
            Algorithm::RoundRobin,
            Algorithm::Random,
            Algorithm::default(),
            Algorithm::LeastConnections,
            Algorithm::PeakEwma(Smoothing::default()),
            Algorithm::MAGLEV,
        ][below(6) as usize];
        let queue = QueueSettings { requests_max: below(7), timeout: ms(20 + below(200)) };
        let breaker = (below(4) > 0).then(|| BreakerSettings {
            failure_percent: [1, 20, 50, 80, 100][below(5) as usize],
            requests_min: at_least_one(below(12)),
            window: ms(200 + below(1500)),
            reset_after: ms(100 + below(600)),
            probes: at_least_one(below(4)),
        });
        let retry_budget = BudgetSettings {
            percent: [0, 10, 20, 50, 100][below(5) as usize],
            retries_per_second_min: [0, 0, 1, 10][below(4) as usize],
            window: ms(1000 + below(1000)),
        };
        let max = NonZeroU32::new(below(5));
        let connections = ConnectionLimits {
            warm_min: below(4).min(max.map_or(4, NonZeroU32::get)),
            max,
            idle_max: below(7),
            idle_timeout: ms(100 + below(2000)),
            streams_max: at_least_one(1 + below(3)),
        };
        let protocol = [UpstreamProtocol::Http1, UpstreamProtocol::Http1, UpstreamProtocol::Http2];
        let policy = SetPolicy {
            protocol: protocol[below(3) as usize],
            connections,
            requests_max: NonZeroU32::new(below(5)),
            queue,
            breaker,
            retry_budget,
            ..SetPolicy::new(algorithm)
        };
        let (replicas, retries_max) = (1 + below(4) as usize, below(4));
        Self { policy, replicas, retries_max, backoff: ms(below(10)), idle_secs: 1 + u64::from(below(2)) }
    }

    /// From when all is well to when the circuit is closed for good: what was on its way has failed, has left the window,
    /// and the circuit that it opened is tried.
    pub(crate) fn recovery_max(&self) -> Duration {
        let Some(breaker) = self.policy.breaker else { return ATTEMPT_TIMEOUT };
        ATTEMPT_TIMEOUT * 2 + self.policy.queue.timeout + breaker.window + breaker.reset_after * 2 + ms(500)
    }
}

fn ms(ms: u32) -> Duration {
    Duration::from_millis(ms.into())
}

fn at_least_one(number: u32) -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add(number.saturating_sub(1))
}

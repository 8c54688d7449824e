//! How a set is connected to, and how many requests it is given.

use super::super::check::Check;
use super::resilience::{breaker, budget};
use weir_crds::pool as spec;
use weir_proto::limits::QUEUE_WAIT_MS;
use weir_proto::push;

/// What a specification says of connections to a set, of requests on it and of its failures.
#[derive(Debug, Clone, Default)]
pub(super) struct Upstream {
    connections: Connections,
    concurrency: Option<push::Concurrency>,
    breaker: Option<push::CircuitBreaker>,
    budget: push::RetryBudget,
}

#[derive(Debug, Clone, Copy, Default)]
struct Connections {
    idle_max: u32,
    idle_timeout_ms: u64,
    limits: push::ConnectionLimits,
}

impl Upstream {
    pub(super) fn of_pool(spec: &weir_crds::LoadBalancerPoolSpec, check: &mut Check) -> Self {
        let own = spec.connection_pool.clone().unwrap_or_default();
        let budget = spec.retry_budget.clone().unwrap_or_default();
        Self {
            connections: connections("spec.connectionPool", &own, check),
            concurrency: spec.concurrency.as_ref().map(|own| concurrency("spec.concurrency", own, check)),
            breaker: spec.circuit_breaker.as_ref().map(|own| breaker("spec.circuitBreaker", own, check)),
            budget: self::budget("spec.retryBudget", &budget, check),
        }
    }

    /// What a set says itself stands in for the pool's as a whole.
    pub(super) fn of_set(&self, field: &str, set: &spec::BackendSet, check: &mut Check) -> Self {
        let mut upstream = self.clone();
        if let Some(own) = &set.connection_pool {
            upstream.connections = connections(&format!("{field}.connectionPool"), own, check);
        }
        if let Some(own) = &set.concurrency {
            upstream.concurrency = Some(concurrency(&format!("{field}.concurrency"), own, check));
        }
        if let Some(own) = &set.circuit_breaker {
            upstream.breaker = Some(breaker(&format!("{field}.circuitBreaker"), own, check));
        } else if let Some(breaker) = &mut upstream.breaker
            && is_to(breaker, &set.name)
        {
            // What stands in for all other sets has nothing that stands in for it.
            breaker.fallback = None;
        }
        if let Some(own) = &set.retry_budget {
            upstream.budget = budget(&format!("{field}.retryBudget"), own, check);
        }
        upstream
    }

    pub(super) fn put(self, set: &mut push::BackendSet) {
        let Self { connections: Connections { idle_max, idle_timeout_ms, limits }, .. } = self;
        set.idle_connections_max = idle_max;
        set.idle_timeout_ms = idle_timeout_ms;
        set.connections = Some(limits);
        set.concurrency = self.concurrency;
        set.circuit_breaker = self.breaker;
        set.retry_budget = Some(self.budget);
    }
}

/// A protocol that a set says itself.
pub(in super::super) fn protocol(own: spec::UpstreamProtocol) -> push::UpstreamProtocol {
    match own {
        spec::UpstreamProtocol::Http => push::UpstreamProtocol::Http1,
        spec::UpstreamProtocol::Http2 => push::UpstreamProtocol::Http2,
    }
}

fn is_to(breaker: &push::CircuitBreaker, set: &str) -> bool {
    matches!(&breaker.fallback, Some(push::circuit_breaker::Fallback::FallbackSet(other)) if other == set)
}

fn connections(field: &str, own: &spec::ConnectionPool, check: &mut Check) -> Connections {
    check.positive(&format!("{field}.idleTimeout"), own.idle_timeout);
    let mut number = |name: &str, value: i32, bounds: (i32, i32)| {
        check.between(&format!("{field}.{name}"), value, bounds).unwrap_or_default()
    };
    let idle_max = number("maxIdlePerBackend", own.max_idle_per_backend, (0, spec::IDLE_PER_BACKEND_MAX));
    let warm_min = number("minWarmPerBackend", own.min_warm_per_backend, (0, spec::WARM_PER_BACKEND_MAX));
    let max = own.max_per_backend.map(|max| number("maxPerBackend", max, (1, spec::PER_BACKEND_MAX)));
    let streams_max =
        number("maxStreamsPerConnection", own.max_streams_per_connection, (1, spec::STREAMS_MAX));
    // One that is out of range is 0 here, and refused above.
    if let Some(max) = max.filter(|max| (1..warm_min).contains(max)) {
        let rule = format!("is above maxPerBackend, {max}: lower it, or raise maxPerBackend");
        check.refuse(format!("{field}.minWarmPerBackend"), warm_min.to_string(), rule);
    }
    let limits = push::ConnectionLimits { warm_min, max: max.unwrap_or_default(), streams_max };
    Connections { idle_max, idle_timeout_ms: own.idle_timeout.as_millis(), limits }
}

fn concurrency(field: &str, own: &spec::Concurrency, check: &mut Check) -> push::Concurrency {
    let requests_max = check.between(
        &format!("{field}.maxRequestsPerBackend"),
        own.max_requests_per_backend,
        (1, spec::BACKEND_REQUESTS_MAX),
    );
    let queue = own.queue.as_ref().map(|queue| push::Queue {
        requests_max: check
            .between(&format!("{field}.queue.maxRequests"), queue.max_requests, (1, spec::QUEUE_REQUESTS_MAX))
            .unwrap_or_default(),
        timeout_ms: check.within(&format!("{field}.queue.timeout"), queue.timeout, QUEUE_WAIT_MS),
    });
    push::Concurrency { requests_max: requests_max.unwrap_or_default(), queue }
}

//! How a set connects and what keeps its failures small, from the wire.

use super::{Rejection, SetSpec, duration, header_text, within};
use lb_core::backend::{ConnectionLimits, SetPolicy, UpstreamProtocol};
use lb_core::resilience::{BreakerSettings, BudgetSettings, QueueSettings};
use lb_core::route::FallbackResponse;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
use weir_proto::limits::{BREAKER_RESET_MS, BREAKER_WINDOW_MS, BUDGET_WINDOW_MS, QUEUE_WAIT_MS};
use weir_proto::push;
use weir_proto::push::circuit_breaker::Fallback;

const WARM_MAX: u32 = 1_000;
const CONNECTIONS_MAX: u32 = 65_535;
const STREAMS: (u32, u32) = (1, 1_000);
const REQUESTS: (u32, u32) = (1, 1_000_000);
const WAITING: (u32, u32) = (1, 100_000);
const BREAKER_OUTCOMES: (u32, u32) = (1, 100_000);
const PROBES: (u32, u32) = (1, 100);
const BUDGET_RETRIES_MAX: u32 = 10_000;
const RESPONSE_BODY_BYTES_MAX: usize = 4_096;
const CONTENT_TYPE_BYTES_MAX: usize = 256;

/// What stands in for a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum FallbackSpec {
    /// In [`super::PoolSpec::sets`].
    Set(String),
    Response(Arc<FallbackResponse>),
}

/// Puts what a set says of its connections and of its resilience into its policy.
pub(super) fn read(set: &push::BackendSet, policy: SetPolicy) -> Result<SetPolicy, Rejection> {
    let field = format!("spec.backendSets[{}]", set.name);
    let (requests_max, queue) = match &set.concurrency {
        Some(wire) => concurrency(&format!("{field}.concurrency"), wire)?,
        None => (None, policy.queue),
    };
    Ok(SetPolicy {
        protocol: protocol(&field, set)?,
        connections: match &set.connections {
            Some(wire) => connections(&format!("{field}.connectionPool"), wire, policy.connections)?,
            None => policy.connections,
        },
        requests_max,
        queue,
        breaker: match &set.circuit_breaker {
            Some(wire) => Some(breaker(&format!("{field}.circuitBreaker"), wire)?),
            None => None,
        },
        retry_budget: match &set.retry_budget {
            Some(wire) => budget(&format!("{field}.retryBudget"), wire)?,
            None => BudgetSettings::default(),
        },
        ..policy
    })
}

fn protocol(field: &str, set: &push::BackendSet) -> Result<UpstreamProtocol, Rejection> {
    match set.protocol() {
        push::UpstreamProtocol::Http1 => Ok(UpstreamProtocol::Http1),
        push::UpstreamProtocol::Http2 => Ok(UpstreamProtocol::Http2),
        push::UpstreamProtocol::Unspecified if set.protocol == 0 => Ok(UpstreamProtocol::default()),
        push::UpstreamProtocol::Unspecified => {
            let reason = format!(
                "protocol {} is not known to this proxy: upgrade the proxies, or choose another",
                set.protocol
            );
            Err(Rejection::new(format!("{field}.protocol"), reason))
        }
    }
}

fn connections(
    field: &str,
    wire: &push::ConnectionLimits,
    idle: ConnectionLimits,
) -> Result<ConnectionLimits, Rejection> {
    let warm_min = within(field, ".minWarmPerBackend", wire.warm_min, (0, WARM_MAX))?;
    let max = NonZeroU32::new(within(field, ".maxPerBackend", wire.max, (0, CONNECTIONS_MAX))?);
    if max.is_some_and(|max| max.get() < warm_min) {
        let reason =
            format!("{warm_min} is more than maxPerBackend, {}: lower the one or raise the other", wire.max);
        return Err(Rejection::new(format!("{field}.minWarmPerBackend"), reason));
    }
    let streams_max = within(field, ".maxStreamsPerConnection", wire.streams_max, STREAMS)?;
    Ok(ConnectionLimits { warm_min, max, streams_max, ..idle })
}

fn concurrency(
    field: &str,
    wire: &push::Concurrency,
) -> Result<(Option<NonZeroU32>, QueueSettings), Rejection> {
    let requests_max = within(field, ".maxRequestsPerBackend", wire.requests_max, REQUESTS)?;
    let queue = match &wire.queue {
        Some(queue) => QueueSettings {
            requests_max: within(field, ".queue.maxRequests", queue.requests_max, WAITING)?,
            timeout: duration(field, ".queue.timeout", queue.timeout_ms, QUEUE_WAIT_MS)?,
        },
        None => QueueSettings { requests_max: 0, timeout: Duration::ZERO },
    };
    Ok((Some(requests_max), queue))
}

fn breaker(field: &str, wire: &push::CircuitBreaker) -> Result<BreakerSettings, Rejection> {
    Ok(BreakerSettings {
        failure_percent: within(field, ".failurePercent", wire.failure_percent, (1, 100))?,
        requests_min: within(field, ".minRequests", wire.min_requests, BREAKER_OUTCOMES)?,
        window: duration(field, ".window", wire.window_ms, BREAKER_WINDOW_MS)?,
        reset_after: duration(field, ".resetTimeout", wire.reset_ms, BREAKER_RESET_MS)?,
        probes: within(field, ".halfOpenRequests", wire.probes, PROBES)?,
    })
}

fn budget(field: &str, wire: &push::RetryBudget) -> Result<BudgetSettings, Rejection> {
    Ok(BudgetSettings {
        percent: within(field, ".percent", wire.percent, (0, 100))?,
        retries_per_second_min: within(
            field,
            ".minRetriesPerSecond",
            wire.min_retries_per_second,
            (0, BUDGET_RETRIES_MAX),
        )?,
        window: duration(field, ".window", wire.window_ms, BUDGET_WINDOW_MS)?,
    })
}

/// What stands in for each set that has something.
pub(super) fn fallbacks(
    wire: &[push::BackendSet],
    sets: &BTreeMap<String, SetSpec>,
) -> Result<BTreeMap<String, FallbackSpec>, Rejection> {
    let mut fallbacks = BTreeMap::new();
    for set in wire {
        let field = format!("spec.backendSets[{}].circuitBreaker.fallback", set.name);
        let spec = match set.circuit_breaker.as_ref().and_then(|breaker| breaker.fallback.as_ref()) {
            None => continue,
            Some(Fallback::FallbackSet(other)) if !sets.contains_key(other) => {
                let reason =
                    format!("there is no backend set {other:?} in this pool: add it, or correct the name");
                return Err(Rejection::new(field + ".backendSet", reason));
            }
            Some(Fallback::FallbackSet(other)) => FallbackSpec::Set(other.clone()),
            Some(Fallback::FallbackResponse(wire)) => FallbackSpec::Response(response(&field, wire)?),
        };
        fallbacks.insert(set.name.clone(), spec);
    }
    for set in fallbacks.keys() {
        if comes_back(set, &fallbacks) {
            let field = format!("spec.backendSets[{set}].circuitBreaker.fallback.backendSet");
            let reason = "the set falls back to itself, or to sets that do: end the chain with a response";
            return Err(Rejection::new(field, reason));
        }
    }
    Ok(fallbacks)
}

/// Whether the chain of fallbacks from a set never ends.
fn comes_back(set: &str, fallbacks: &BTreeMap<String, FallbackSpec>) -> bool {
    let mut at = set;
    for _ in 0..=fallbacks.len() {
        match fallbacks.get(at) {
            Some(FallbackSpec::Set(next)) => at = next,
            _ => return false,
        }
    }
    true
}

fn response(field: &str, wire: &push::FallbackResponse) -> Result<Arc<FallbackResponse>, Rejection> {
    if wire.body.len() > RESPONSE_BODY_BYTES_MAX {
        let reason = format!("{} bytes are too many: use at most {RESPONSE_BODY_BYTES_MAX}", wire.body.len());
        return Err(Rejection::new(format!("{field}.response.body"), reason));
    }
    let content_type =
        header_text(field, ".response.contentType", &wire.content_type, CONTENT_TYPE_BYTES_MAX)?;
    Ok(Arc::new(FallbackResponse {
        status: within(field, ".response.status", wire.status, (200, 599))?,
        content_type,
        body: wire.body.as_slice().into(),
    }))
}

//! What the workers count. One [`Counters`] for each worker, written by it alone and summed at a scrape, so that
//! counting costs a request an increment in its own core's cache.

use crate::failure::{Failure, REASONS};
use crate::http2::Excess;
use crate::sessions::{Refusal, SessionResult};
use crate::sources::Refused;
use crate::tunnel::Ended;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the latency histogram's buckets, in seconds; the last bucket is unbounded.
pub const LATENCY_BOUNDS_S: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 10.0];

const LATENCY_BOUNDS_US: [u64; 11] =
    [1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 10_000_000];

/// A number with one writer: no read-modify-write on the bus. Gauges go down by [`Count::sub`].
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds; only the owning worker may call this.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Subtracts; only the owning worker may call this.
    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(n), Ordering::Relaxed);
    }

    /// From any thread.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How long something took, each time.
#[derive(Debug, Default)]
pub struct Latencies {
    /// By bucket of [`LATENCY_BOUNDS_S`].
    pub buckets: [Count; LATENCY_BOUNDS_S.len() + 1],
    /// Of all of them, in microseconds.
    pub sum_us: Count,
}

impl Latencies {
    /// Only the owning worker may call this.
    pub fn add(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket =
            LATENCY_BOUNDS_US.iter().position(|&bound| us <= bound).unwrap_or(LATENCY_BOUNDS_US.len());
        self.buckets[bucket].add(1);
        self.sum_us.add(us);
    }
}

/// One worker's counts. Aligned, so that no two workers share a cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Counters {
    /// Requests answered, by the first digit of the status (index 0 is 1xx).
    pub responses: [Count; 5],
    /// Requests that came over HTTP/1.
    pub requests_http1: Count,
    /// Requests that came over HTTP/2.
    pub requests_http2: Count,
    /// Time from the end of the request's head to the end of the response.
    pub latency: Latencies,
    /// Time from the choice of a backend to the head of its answer.
    pub upstream_latency: Latencies,
    /// Requests that failed, by [`REASONS`].
    pub failures: [Count; REASONS.len()],
    /// Client connections accepted.
    pub connections_accepted: Count,
    /// Client connections open now (gauge).
    pub connections_open: Count,
    /// TLS handshakes that did not finish.
    pub handshakes_failed: Count,
    /// Client connections refused: of the port, of a source, handshakes of a source, handshakes under way.
    pub connections_refused: [Count; 4],
    /// Client connections closed for a header of the PROXY protocol that was missing, wrong or slow.
    pub proxy_headers_refused: Count,
    /// Connections of HTTP/2 ended for too many resets, for too many frames without a message.
    pub connections_cut: [Count; 2],
    /// Requests that were refused before a route was looked for (malformed, too large).
    pub requests_refused: Count,
    /// Connections established to backends.
    pub upstream_connects: Count,
    /// Attempts to connect to a backend that failed or timed out.
    pub upstream_connect_failures: Count,
    /// Requests that went over a kept connection.
    pub upstream_reuses: Count,
    /// Kept connections that turned out closed, with the request sent again on another.
    pub upstream_stale: Count,
    /// Attempts after a first one, of requests whose backend failed.
    pub retries: Count,
    /// Retries that the budget did not allow.
    pub retries_refused: Count,
    /// Second attempts beside a first one that took long.
    pub hedges: Count,
    /// Copies of requests that were sent.
    pub mirrors: Count,
    /// Copies that were not made: too large a body, or too many at a time.
    pub mirrors_left_out: Count,
    /// Requests that an open circuit refused.
    pub circuits_refused: Count,
    /// Requests that went to a fallback in place of their set.
    pub fallbacks: Count,
    /// Requests that waited for a slot on a backend.
    pub queued: Count,
    /// Requests refused because no more may wait.
    pub queue_full: Count,
    /// Requests refused because no slot became free in time.
    pub queue_timeouts: Count,
    /// Requests that found a backend at the most of its connections, and none free in time.
    pub connection_limits: Count,
    /// Requests with a session that began with them, that stayed where it was, that moved to another backend.
    pub sessions: [Count; 3],
    /// Session cookies that were not believed: forged, of another pool, expired, too long.
    pub cookies_refused: [Count; 4],
    /// Requests on backends now (gauge).
    pub upstream_in_flight: Count,
    /// Tunnels (WebSocket) that were opened.
    pub tunnels: Count,
    /// Tunnels (WebSocket) open now (gauge).
    pub tunnels_open: Count,
    /// Connections of layer 4 that a backend took.
    pub layer4_connections: Count,
    /// Those that are open now (gauge).
    pub layer4_connections_open: Count,
    /// Bytes that they carried: to backends, to clients.
    pub layer4_bytes: [Count; 2],
    /// Those that ended: by both sides, by a side that broke off, for standing still, for being asked to go.
    pub layer4_ended: [Count; 4],
    /// Flows of datagrams that began.
    pub flows: Count,
    /// Those that have not ended (gauge).
    pub flows_open: Count,
    /// Datagrams: of clients, of backends.
    pub datagrams: [Count; 2],
    /// Datagrams of clients that were dropped, by [`DROP_REASONS`].
    pub datagrams_dropped: [Count; DROP_REASONS.len()],
    /// Connections of layer 4 that no backend took, by [`LAYER4_REASONS`].
    pub layer4_failures: [Count; LAYER4_REASONS.len()],
}

/// Why datagrams of clients are dropped.
pub const DROP_REASONS: [&str; 9] = [
    "no_route",
    "ip_denied",
    "no_backend",
    "circuit_open",
    "queue_full",
    "limit",
    "no_socket",
    "ending",
    "unsent",
];

/// Why no backend takes a connection of layer 4; the names are those of [`crate::failure`].
pub const LAYER4_REASONS: [&str; 10] = [
    "no_route",
    "ip_denied",
    "no_backend",
    "circuit_open",
    "queue_full",
    "queue_timeout",
    "connection_limit",
    "connect_failed",
    "connect_timeout",
    "backend_tls",
];

impl Counters {
    /// Counts one answered request.
    pub fn answered(&self, status: u16, took: Duration) {
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        self.responses[class].add(1);
        self.latency.add(took);
    }

    /// Counts a request that failed.
    pub(crate) fn failed(&self, failure: Failure) {
        count(&REASONS, &self.failures, failure.answer().1);
    }

    /// Counts a request that is refused before a route is looked for.
    pub(crate) fn refused(&self, failure: Failure) {
        self.requests_refused.add(1);
        self.failed(failure);
    }

    /// Counts what became of a request's session.
    pub(crate) fn session(&self, result: Option<SessionResult>) {
        let at = match result {
            None => return,
            Some(SessionResult::New) => 0,
            Some(SessionResult::Kept) => 1,
            Some(SessionResult::FailedOver) => 2,
        };
        self.sessions[at].add(1);
    }

    /// Counts a connection of layer 4 that no backend took.
    pub(crate) fn layer4_failed(&self, failure: Failure) {
        count(&LAYER4_REASONS, &self.layer4_failures, failure.answer().1);
    }

    /// Counts a datagram of a client that was dropped.
    pub(crate) fn datagram_dropped(&self, reason: &str) {
        count(&DROP_REASONS, &self.datagrams_dropped, reason);
    }

    /// Counts a connection of layer 4 that ended.
    pub(crate) fn layer4_ended(&self, ended: Ended) {
        self.layer4_ended[ended as usize].add(1);
    }

    /// Counts a connection that is not served.
    pub(crate) fn connection_refused(&self, why: Refused) {
        self.connections_refused[why as usize].add(1);
    }

    /// Counts a connection of HTTP/2 that is ended for what there was too much of.
    pub(crate) fn connection_cut(&self, excess: Excess) {
        self.connections_cut[excess as usize].add(1);
    }

    /// Counts a session cookie that was not believed.
    pub(crate) fn cookie_refused(&self, refusal: Refusal) {
        let at = match refusal {
            Refusal::Forged => 0,
            Refusal::Foreign => 1,
            Refusal::Expired => 2,
            Refusal::Oversized => 3,
        };
        self.cookies_refused[at].add(1);
    }
}

/// Counts what has this reason, where that is one of those that are counted.
fn count<const N: usize>(reasons: &[&str; N], counts: &[Count; N], reason: &str) {
    if let Some(at) = reasons.iter().position(|known| *known == reason) {
        counts[at].add(1);
    }
}

/// Sums one count over all workers.
pub fn sum(workers: &[Arc<Counters>], of: impl Fn(&Counters) -> &Count) -> u64 {
    workers.iter().fold(0, |total, worker| total.wrapping_add(of(worker).value()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_lands_in_its_class_and_bucket() {
        let counters = Counters::default();
        counters.answered(204, Duration::from_micros(1_000));
        counters.answered(503, Duration::from_micros(1_001));
        counters.answered(200, Duration::from_secs(60));
        assert_eq!(counters.responses.each_ref().map(Count::value), [0, 2, 0, 0, 1]);
        assert_eq!([0, 1, 11].map(|i: usize| counters.latency.buckets[i].value()), [1, 1, 1]);
        assert_eq!(counters.latency.sum_us.value(), 60_002_001);
    }

    #[test]
    fn bounds_in_seconds_and_microseconds_agree() {
        for (s, us) in LATENCY_BOUNDS_S.iter().zip(LATENCY_BOUNDS_US) {
            assert!((s * 1e6 - us as f64).abs() < 1e-6);
        }
    }
}

//! Every metric of the proxy, in one table: name, help and where its value comes from.
//!
//! The number of series is fixed: no label takes a value from configuration or from a client. What one backend
//! does is in the administration API, not here.

use crate::config::Status;
use crate::counters::{Count, Counters, LATENCY_BOUNDS_S, sum};
use crate::health::Counts;
use crate::readiness::{Phase, Readiness};
use crate::sessions::Store;
use crate::snapshot::Current;
use lb_core::backend::{BackendSet, Live};
use lb_core::resilience::BreakerState;
use lb_core::sessions::SessionTable;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Media type of [`Metrics::text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// One metric. A counter's name ends in `_total`, that of a fact in `_info`, every name in its unit where it has one.
#[derive(Debug)]
pub struct Metric {
    /// As it is exposed.
    pub name: &'static str,
    /// For people.
    pub help: &'static str,
    value: fn(&Scrape) -> Value,
}

impl Metric {
    /// The name without the suffix that the encoder puts back.
    fn family(&self) -> &'static str {
        let name = self.name;
        name.strip_suffix("_total").or_else(|| name.strip_suffix("_info")).unwrap_or(name)
    }
}

enum Value {
    Counter(u64),
    /// One counter for each value of a label.
    Counters(&'static str, Vec<(&'static str, u64)>),
    /// `None`: there is no value yet.
    Gauge(Option<f64>),
    /// One gauge for each value of a label.
    Gauges(&'static str, Vec<(&'static str, f64)>),
    /// A fact of the process, as a label.
    Info(&'static str, &'static str),
    /// Sum, and count in each bucket with its upper bound.
    Histogram(f64, Vec<(f64, u64)>),
}

/// Every metric, in the order in which they are exposed.
pub static METRICS: [Metric; 47] = [
    Metric {
        name: "http_request_duration_seconds",
        help: "Time from the end of a request's head to the end of its response",
        value: |scrape| scrape.latency(),
    },
    Metric {
        name: "http_requests_total",
        help: "Requests by the protocol they came over",
        value: |scrape| {
            let by = vec![
                ("http1", scrape.total(|c| &c.requests_http1)),
                ("http2", scrape.total(|c| &c.requests_http2)),
            ];
            Value::Counters("protocol", by)
        },
    },
    Metric {
        name: "http_responses_total",
        help: "Responses by the first digit of their status",
        value: |scrape| {
            let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"].into_iter().enumerate();
            Value::Counters(
                "class",
                classes.map(|(i, class)| (class, scrape.total(|c| &c.responses[i]))).collect(),
            )
        },
    },
    Metric {
        name: "http_requests_refused_total",
        help: "Requests refused before a route was looked for: malformed or beyond a limit",
        value: |scrape| scrape.counter(|c| &c.requests_refused),
    },
    Metric {
        name: "weir_connections_accepted_total",
        help: "Client connections accepted",
        value: |scrape| scrape.counter(|c| &c.connections_accepted),
    },
    Metric {
        name: "weir_connections_refused_total",
        help: "Client connections closed at once because of a limit of their listener",
        value: |scrape| {
            let limits = ["connections", "source", "handshakes"].into_iter().enumerate();
            let by = limits.map(|(i, limit)| (limit, scrape.total(|c| &c.connections_refused[i])));
            Value::Counters("limit", by.collect())
        },
    },
    Metric {
        name: "weir_http2_connections_cut_total",
        help: "Client connections of HTTP/2 ended for too many resets, or too many frames without a message",
        value: |scrape| {
            let excesses = ["resets", "control_frames"].into_iter().enumerate();
            let by = excesses.map(|(i, excess)| (excess, scrape.total(|c| &c.connections_cut[i])));
            Value::Counters("excess", by.collect())
        },
    },
    Metric {
        name: "weir_connections_open",
        help: "Client connections open now",
        value: |scrape| scrape.gauge(|c| &c.connections_open),
    },
    Metric {
        name: "weir_tunnels_opened_total",
        help: "WebSockets opened, over HTTP/1.1 and over streams of HTTP/2",
        value: |scrape| scrape.counter(|c| &c.tunnels),
    },
    Metric {
        name: "weir_tunnels_open",
        help: "WebSockets open now",
        value: |scrape| scrape.gauge(|c| &c.tunnels_open),
    },
    Metric {
        name: "weir_tls_handshakes_failed_total",
        help: "TLS handshakes with clients that did not finish",
        value: |scrape| scrape.counter(|c| &c.handshakes_failed),
    },
    Metric {
        name: "weir_upstream_requests_in_flight",
        help: "Requests on backends now",
        value: |scrape| scrape.gauge(|c| &c.upstream_in_flight),
    },
    Metric {
        name: "weir_upstream_connects_total",
        help: "Connections established to backends",
        value: |scrape| scrape.counter(|c| &c.upstream_connects),
    },
    Metric {
        name: "weir_upstream_connect_failures_total",
        help: "Attempts to connect to a backend that failed or timed out",
        value: |scrape| scrape.counter(|c| &c.upstream_connect_failures),
    },
    Metric {
        name: "weir_upstream_reuses_total",
        help: "Requests that went over a kept connection to a backend",
        value: |scrape| scrape.counter(|c| &c.upstream_reuses),
    },
    Metric {
        name: "weir_upstream_stale_total",
        help: "Kept connections to backends that turned out closed, the request being sent again on another",
        value: |scrape| scrape.counter(|c| &c.upstream_stale),
    },
    Metric {
        name: "weir_upstream_connections",
        help: "Connections open to backends now, idle ones included",
        value: |scrape| scrape.of_backends(Live::connections),
    },
    Metric {
        name: "weir_retries_total",
        help: "Attempts after the first, of requests whose backend failed",
        value: |scrape| scrape.counter(|c| &c.retries),
    },
    Metric {
        name: "weir_retries_refused_total",
        help: "Retries and hedges that the retry budget did not allow",
        value: |scrape| scrape.counter(|c| &c.retries_refused),
    },
    Metric {
        name: "weir_hedges_total",
        help: "Second attempts beside a first one that took long",
        value: |scrape| scrape.counter(|c| &c.hedges),
    },
    Metric {
        name: "weir_circuits",
        help: "Backend sets with a circuit breaker, by its state",
        value: Scrape::circuits,
    },
    Metric {
        name: "weir_circuit_refusals_total",
        help: "Requests refused because a circuit was open",
        value: |scrape| scrape.counter(|c| &c.circuits_refused),
    },
    Metric {
        name: "weir_fallbacks_total",
        help: "Requests that went to a fallback set or got a fallback response",
        value: |scrape| scrape.counter(|c| &c.fallbacks),
    },
    Metric {
        name: "weir_limits_reached_total",
        help: "Requests that met a limit of their backends: waited for a slot, or were refused for want of one or of a connection",
        value: |scrape| {
            let by = vec![
                ("queued", scrape.total(|c| &c.queued)),
                ("queue_full", scrape.total(|c| &c.queue_full)),
                ("queue_timeout", scrape.total(|c| &c.queue_timeouts)),
                ("connection_limit", scrape.total(|c| &c.connection_limits)),
            ];
            Value::Counters("limit", by)
        },
    },
    Metric {
        name: "weir_sessions_total",
        help: "Requests by what became of their session, and session cookies that were not believed",
        value: |scrape| {
            let results = ["new", "kept", "failed_over"].into_iter().enumerate();
            let refusals = ["forged", "foreign", "expired", "oversized"].into_iter().enumerate();
            let results = results.map(|(i, result)| (result, scrape.total(|c| &c.sessions[i])));
            let refusals = refusals.map(|(i, why)| (why, scrape.total(|c| &c.cookies_refused[i])));
            Value::Counters("result", results.chain(refusals).collect())
        },
    },
    Metric {
        name: "weir_session_table_entries",
        help: "Sessions that this proxy remembers now; those in sealed cookies are not among them",
        value: |scrape| Value::whole(scrape.of_tables(SessionTable::live)),
    },
    Metric {
        name: "weir_session_table_expired_total",
        help: "Remembered sessions that ended because nobody used them",
        value: |scrape| Value::Counter(scrape.of_tables(SessionTable::expired)),
    },
    Metric {
        name: "weir_session_table_displaced_total",
        help: "Remembered sessions that were forgotten because a table was full",
        value: |scrape| Value::Counter(scrape.of_tables(SessionTable::displaced)),
    },
    Metric {
        name: "weir_session_store_errors_total",
        help: "Questions and writes to the store of sessions that failed, came too late or were dropped",
        value: |scrape| Value::Counter(scrape.store.as_ref().map_or(0, Store::errors)),
    },
    Metric {
        name: "weir_health_probes_total",
        help: "Probes of backends by their result",
        value: |scrape| {
            let by = vec![("pass", load(&scrape.health.passed)), ("fail", load(&scrape.health.failed))];
            Value::Counters("result", by)
        },
    },
    Metric {
        name: "weir_health_changes_total",
        help: "Backends that ceased to take requests, or take them again, by what health checks and ejection found",
        value: |scrape| {
            Value::Counters(
                "to",
                vec![("up", load(&scrape.health.ups)), ("down", load(&scrape.health.downs))],
            )
        },
    },
    Metric {
        name: "weir_health_targets",
        help: "Addresses that health checks ask, each once however many backend sets use it",
        value: |scrape| Value::whole(load(&scrape.health.targets)),
    },
    Metric {
        name: "weir_config_version",
        help: "Version of the snapshot in force; grows by one with each configuration that is applied",
        value: |scrape| Value::whole(scrape.status.snapshot_version()),
    },
    Metric {
        name: "weir_config_age_seconds",
        help: "Time since the configuration was last known to be the newest; 0 while in step with a controller",
        value: |scrape| Value::Gauge(scrape.status.config_age().map(|age| age.as_secs_f64())),
    },
    Metric {
        name: "weir_config_restored",
        help: "1 while a configuration serves that was kept on disk and that no controller has confirmed, else 0",
        value: |scrape| Value::whole(u64::from(scrape.status.restored_from().is_some())),
    },
    Metric {
        name: "weir_state_writes_total",
        help: "Times that the configuration was written to disk",
        value: |scrape| Value::Counter(scrape.status.state_writes()),
    },
    Metric {
        name: "weir_state_write_failures_total",
        help: "Times that the configuration could not be written to disk",
        value: |scrape| Value::Counter(scrape.status.state_write_failures()),
    },
    Metric {
        name: "weir_controller_connected",
        help: "1 while a controller is connected and everything it knew is applied, else 0",
        value: |scrape| Value::whole(u64::from(scrape.status.is_in_step())),
    },
    Metric {
        name: "weir_controller_streams_total",
        help: "Streams to a controller that were begun",
        value: |scrape| Value::Counter(scrape.status.connects()),
    },
    Metric {
        name: "weir_pools",
        help: "LoadBalancerPools that this proxy holds",
        value: |scrape| Value::whole(scrape.status.pool_count() as u64),
    },
    Metric {
        name: "weir_pools_refused",
        help: "LoadBalancerPools of which something is refused: the last good configuration serves, or a backend is left out",
        value: |scrape| Value::whole(scrape.status.refused_count() as u64),
    },
    Metric {
        name: "weir_nacks_total",
        help: "Configurations and backends that were refused",
        value: |scrape| Value::Counter(scrape.status.nacks()),
    },
    Metric {
        name: "weir_snapshot_requests_total",
        help: "Times that this proxy was out of step and asked for a whole pool",
        value: |scrape| Value::Counter(scrape.status.snapshot_requests()),
    },
    Metric {
        name: "weir_ready",
        help: "1 while this proxy wants traffic, else 0",
        value: |scrape| Value::whole(u64::from(scrape.readiness.phase() == Phase::Ready)),
    },
    Metric {
        name: "weir_workers",
        help: "Threads that serve requests",
        value: |scrape| Value::whole(scrape.workers.len() as u64),
    },
    Metric {
        name: "weir_build_info",
        help: "What runs here",
        value: |_| Value::Info("version", env!("CARGO_PKG_VERSION")),
    },
    Metric {
        name: "process_start_time_seconds",
        help: "When the process started, in seconds since 1970",
        value: |scrape| {
            let since = scrape.started_at.duration_since(UNIX_EPOCH).ok();
            Value::Gauge(since.map(|since| since.as_secs_f64()))
        },
    },
];

/// Makes the text of a scrape.
#[derive(Debug)]
pub struct Metrics(Registry);

impl Metrics {
    /// Metrics over these sources; the process counts as started now.
    #[must_use]
    pub fn new(
        current: Current,
        workers: Vec<Arc<Counters>>,
        health: Arc<Counts>,
        store: Option<Store>,
        status: Arc<Status>,
        readiness: Arc<Readiness>,
    ) -> Self {
        let started_at = SystemTime::now();
        let scrape = Scrape { current, workers, health, store, status, readiness, started_at };
        let mut registry = Registry::default();
        registry.register_collector(Box::new(scrape));
        Self(registry)
    }

    /// All metrics at the moment, as OpenMetrics text.
    ///
    /// # Errors
    /// Only when a string cannot grow.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.0)?;
        Ok(out)
    }
}

#[derive(Debug)]
struct Scrape {
    current: Current,
    workers: Vec<Arc<Counters>>,
    health: Arc<Counts>,
    store: Option<Store>,
    status: Arc<Status>,
    readiness: Arc<Readiness>,
    started_at: SystemTime,
}

impl Scrape {
    fn total(&self, of: impl Fn(&Counters) -> &Count) -> u64 {
        sum(&self.workers, of)
    }

    fn counter(&self, of: impl Fn(&Counters) -> &Count) -> Value {
        Value::Counter(self.total(of))
    }

    fn gauge(&self, of: impl Fn(&Counters) -> &Count) -> Value {
        Value::whole(self.total(of))
    }

    /// The sets of all pools.
    fn sets(&self) -> impl Iterator<Item = Arc<BackendSet>> {
        self.status.pools().into_values().flat_map(|pool| pool.sets.into_values())
    }

    /// Summed over the backends of all sets.
    fn of_backends(&self, of: impl Fn(&Live) -> u32) -> Value {
        let of_set = |set: Arc<BackendSet>| {
            set.members().backends().iter().map(|backend| u64::from(of(&backend.live))).sum::<u64>()
        };
        Value::whole(self.sets().map(of_set).sum())
    }

    fn of_tables(&self, of: impl Fn(&SessionTable) -> u64) -> u64 {
        self.current.load().tables.iter().map(|table| of(table)).sum()
    }

    fn circuits(&self) -> Value {
        let now = self.status.since_start();
        let state = |set: Arc<BackendSet>| set.guard.breaker.as_ref().map(|breaker| breaker.state(now));
        let states: Vec<_> = self.sets().filter_map(state).collect();
        let count = |is: fn(&BreakerState) -> bool| states.iter().filter(|state| is(state)).count() as f64;
        let by = vec![
            ("closed", count(|state| matches!(state, BreakerState::Closed))),
            ("open", count(|state| matches!(state, BreakerState::Open { .. }))),
            ("half_open", count(|state| matches!(state, BreakerState::HalfOpen))),
        ];
        Value::Gauges("state", by)
    }

    fn latency(&self) -> Value {
        let bounds = LATENCY_BOUNDS_S.into_iter().chain([f64::INFINITY]).enumerate();
        let buckets = bounds.map(|(i, bound)| (bound, self.total(|c| &c.latency[i]))).collect();
        Value::Histogram(as_f64(self.total(|c| &c.latency_sum_us)) / 1e6, buckets)
    }
}

fn load(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

impl Value {
    fn whole(n: u64) -> Self {
        Self::Gauge(Some(as_f64(n)))
    }

    fn kind(&self) -> MetricType {
        match self {
            Self::Counter(_) | Self::Counters(..) => MetricType::Counter,
            Self::Gauge(_) | Self::Gauges(..) => MetricType::Gauge,
            Self::Info(..) => MetricType::Info,
            Self::Histogram(..) => MetricType::Histogram,
        }
    }

    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        type NoExemplar = [(&'static str, &'static str); 0];
        match self {
            Self::Counter(n) => encoder.encode_counter::<NoExemplar, _, f64>(n, None),
            Self::Counters(label, values) => {
                for (value, n) in values {
                    let labels = [(*label, *value)];
                    encoder.encode_family(&labels)?.encode_counter::<NoExemplar, _, f64>(n, None)?;
                }
                Ok(())
            }
            Self::Gauge(value) => value.map_or(Ok(()), |value| encoder.encode_gauge(&value)),
            Self::Gauges(label, values) => {
                for (value, n) in values {
                    encoder.encode_family(&[(*label, *value)])?.encode_gauge(n)?;
                }
                Ok(())
            }
            Self::Info(label, value) => encoder.encode_info(&[(*label, *value)]),
            Self::Histogram(sum, buckets) => {
                let count = buckets.iter().map(|(_, n)| n).sum();
                encoder.encode_histogram::<NoExemplar>(*sum, count, buckets, None)
            }
        }
    }
}

/// Exact below 2^53, which is what the exposition format can carry.
fn as_f64(n: u64) -> f64 {
    n as f64
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for metric in &METRICS {
            let value = (metric.value)(self);
            value.encode(encoder.encode_descriptor(metric.family(), metric.help, None, value.kind())?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn text_of(workers: &[Arc<Counters>]) -> String {
        let (health, status, readiness) = (Arc::default(), Arc::default(), Arc::default());
        let metrics = Metrics::new(Current::default(), workers.to_vec(), health, None, status, readiness);
        metrics.text().expect("strings grow")
    }

    #[test]
    fn workers_are_summed_and_buckets_are_cumulative() {
        let workers = [Arc::new(Counters::default()), Arc::new(Counters::default())];
        workers[0].answered(200, Duration::from_millis(2));
        workers[1].answered(503, Duration::from_millis(20));
        workers[1].requests_http2.add(1);
        let text = text_of(&workers);
        for line in [
            "http_responses_total{class=\"2xx\"} 1",
            "http_responses_total{class=\"5xx\"} 1",
            "http_requests_total{protocol=\"http2\"} 1",
            "http_request_duration_seconds_bucket{le=\"0.0025\"} 1",
            "http_request_duration_seconds_bucket{le=\"+Inf\"} 2",
            "http_request_duration_seconds_count 2",
            "http_request_duration_seconds_sum 0.022",
            "weir_controller_connected 0.0",
            "weir_workers 2.0",
            concat!("weir_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn every_metric_of_the_table_is_exposed_and_named_by_its_kind() {
        let text = text_of(&[Arc::default()]);
        for metric in &METRICS {
            let line = text.lines().find(|line| line.starts_with(&format!("# TYPE {} ", metric.family())));
            let kind = line.and_then(|line| line.rsplit(' ').next()).unwrap_or_default();
            assert_eq!(kind == "counter", metric.name.ends_with("_total"), "{} is a {kind}", metric.name);
            assert_eq!(kind == "info", metric.name.ends_with("_info"), "{} is a {kind}", metric.name);
            assert!(!metric.help.is_empty() && !metric.help.ends_with('.'), "{}", metric.name);
        }
        let mut names: Vec<_> = METRICS.iter().map(|metric| metric.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), METRICS.len(), "a name is there twice");
    }
}

//! Every metric of the proxy, in one table: name, help and where its value comes from.
//!
//! The number of series is bounded: no label takes a value from a client, and one from configuration only where so many at
//! most are told ([`EXPIRIES_TOLD_MAX`]). What one backend does is in the administration API, not here.

mod table;

pub use table::METRICS;

use crate::access_log;
use crate::config::Status;
use crate::config::shares::Exchange;
use crate::counters::{Count, Counters, LATENCY_BOUNDS_S, Latencies, sum};
use crate::failure::REASONS;
use crate::health::Counts;
use crate::readiness::Readiness;
use crate::sessions::Store;
use crate::snapshot::{Current, Protocol};
use crate::tls::Expiry;
use crate::tls::backends::BackendTls;
use lb_core::backend::{BackendSet, BackendState, Live};
use lb_core::resilience::BreakerState;
use lb_core::sessions::SessionTable;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use weir_metrics::{Format, Process};

/// Certificates whose end is told, those that end first: enough to act on, and few beside thousands of pools.
pub const EXPIRIES_TOLD_MAX: usize = 100;

/// One metric. A counter's name ends in `_total`, every name in its unit where it has one.
#[derive(Debug)]
pub struct Metric {
    /// As it is exposed.
    pub name: &'static str,
    /// For people.
    pub help: &'static str,
    value: fn(&Sources) -> Value,
}

impl Metric {
    /// The name without the suffix that the encoder puts back.
    fn family(&self) -> &'static str {
        let name = self.name;
        name.strip_suffix("_total").unwrap_or(name)
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
    /// One gauge for each value of a label that configuration gives.
    Named(&'static str, Vec<(Arc<str>, f64)>),
    /// Sum, and count in each bucket with its upper bound.
    Histogram(f64, Vec<(f64, u64)>),
}

/// Where values come from.
#[derive(Debug)]
pub struct Sources {
    /// The configuration in force.
    pub current: Current,
    /// Counts of each worker.
    pub workers: Vec<Arc<Counters>>,
    /// Counts of health checks.
    pub health: Arc<Counts>,
    /// What proxies share of their sessions, if they do.
    pub store: Option<Store>,
    /// How shares of limits stand.
    pub shares: Arc<Exchange>,
    /// What became of lines of the access log.
    pub access_log: Arc<access_log::Counts>,
    /// Pools and their sets.
    pub status: Arc<Status>,
    /// Whether the proxy is ready.
    pub readiness: Arc<Readiness>,
}

/// Makes the text of a scrape.
#[derive(Debug)]
pub struct Metrics(Registry);

impl Metrics {
    /// Metrics over these sources, and of the process, which counts as started now.
    #[must_use]
    pub fn new(sources: Sources) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(sources));
        registry.register_collector(Box::new(Process::here()));
        Self(registry)
    }

    /// Those of a process without workers and configuration: what there is, for who describes it.
    #[must_use]
    pub fn of_nothing() -> Self {
        Self::new(Sources::of(Vec::new()))
    }

    /// All metrics at the moment.
    ///
    /// # Errors
    /// Only when a string cannot grow.
    pub fn text(&self, format: Format) -> Result<String, fmt::Error> {
        weir_metrics::encode(&self.0, format)
    }
}

impl Sources {
    /// Of workers without a configuration.
    fn of(workers: Vec<Arc<Counters>>) -> Self {
        Self {
            current: Current::default(),
            workers,
            health: Arc::default(),
            store: None,
            shares: Exchange::new().0,
            access_log: Arc::default(),
            status: Arc::default(),
            readiness: Arc::default(),
        }
    }

    fn total(&self, of: impl Fn(&Counters) -> &Count) -> u64 {
        sum(&self.workers, of)
    }

    fn counter(&self, of: impl Fn(&Counters) -> &Count) -> Value {
        Value::Counter(self.total(of))
    }

    /// Counts by the values that a label has, in their order.
    fn each<const N: usize>(
        &self,
        values: [&'static str; N],
        of: impl Fn(&Counters) -> &[Count; N],
    ) -> impl Iterator<Item = (&'static str, u64)> {
        values.into_iter().enumerate().map(move |(i, value)| (value, self.total(|c| &of(c)[i])))
    }

    fn counters<const N: usize>(
        &self,
        label: &'static str,
        values: [&'static str; N],
        of: impl Fn(&Counters) -> &[Count; N],
    ) -> Value {
        Value::Counters(label, self.each(values, of).collect())
    }

    /// Requests that failed for this reason.
    fn failed(&self, reason: &str) -> u64 {
        self.each(REASONS, |c| &c.failures).filter(|(known, _)| *known == reason).map(|(_, n)| n).sum()
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

    /// When the certificates in force end, by their Secrets; of several of one Secret the first.
    fn expiries(&self) -> Value {
        let snapshot = self.current.load();
        let mut all: Vec<Expiry> = Vec::new();
        for listener in snapshot.listeners.values() {
            if let Protocol::Https(termination) | Protocol::Tls(termination) = &listener.protocol {
                all.extend_from_slice(termination.expiries());
            }
        }
        let profiles = snapshot.sets.iter().filter_map(|set| set.policy.tls.as_ref());
        all.extend(profiles.filter_map(|profile| profile.settings::<BackendTls>()?.expiry.clone()));
        Value::Named("secret", first_to_end(all))
    }

    fn latencies(&self, of: impl Fn(&Counters) -> &Latencies) -> Value {
        let bounds = LATENCY_BOUNDS_S.into_iter().chain([f64::INFINITY]).enumerate();
        let buckets = bounds.map(|(i, bound)| (bound, self.total(|c| &of(c).buckets[i]))).collect();
        Value::Histogram(as_f64(self.total(|c| &of(c).sum_us)) / 1e6, buckets)
    }

    /// Backends of all sets: those that may take requests, those that health checks and ejection keep from it, those that
    /// drain.
    fn standings(&self) -> Value {
        let [mut healthy, mut unhealthy, mut draining] = [0.0; 3];
        for set in self.sets() {
            for backend in set.members().backends() {
                *match (backend.state, backend.standing.is_available) {
                    (BackendState::Draining, _) => &mut draining,
                    (BackendState::Ready, true) => &mut healthy,
                    (BackendState::Ready, false) => &mut unhealthy,
                } += 1.0;
            }
        }
        let by = vec![("healthy", healthy), ("unhealthy", unhealthy), ("draining", draining)];
        Value::Gauges("state", by)
    }
}

/// At most [`EXPIRIES_TOLD_MAX`].
fn first_to_end(mut all: Vec<Expiry>) -> Vec<(Arc<str>, f64)> {
    all.sort_unstable();
    let mut told = HashSet::new();
    all.retain(|expiry| told.len() < EXPIRIES_TOLD_MAX && told.insert(Arc::clone(&expiry.secret)));
    all.into_iter().map(|Expiry { ends_s, secret }| (secret, ends_s as f64)).collect()
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
            Self::Gauge(_) | Self::Gauges(..) | Self::Named(..) => MetricType::Gauge,
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
            Self::Named(label, values) => {
                for (value, n) in values {
                    encoder.encode_family(&[(*label, &**value)])?.encode_gauge(n)?;
                }
                Ok(())
            }
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

impl Collector for Sources {
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
        let metrics = Metrics::new(Sources::of(workers.to_vec()));
        metrics.text(Format::OpenMetrics).expect("strings grow")
    }

    #[test]
    fn the_ends_of_as_many_certificates_as_may_be_are_told_the_first_ones_each_secret_once() {
        let expiry = |n: usize, ends_s| Expiry { ends_s, secret: format!("ns/{n:03}").into() };
        let most = i64::try_from(EXPIRIES_TOLD_MAX).expect("small");
        let all = (0..=most).rev().map(|n| expiry(usize::try_from(n).expect("not below 0"), n * 10));
        let again = (0..most).map(|n| expiry(usize::try_from(n).expect("not below 0"), n * 10 + 5));
        let told = first_to_end(all.chain(again).collect());
        assert_eq!(told.len(), EXPIRIES_TOLD_MAX);
        assert!(
            told.iter().enumerate().all(|(n, (secret, ends_s))| {
                **secret == format!("ns/{n:03}") && *ends_s == n as f64 * 10.0
            })
        );
    }

    #[test]
    fn workers_are_summed_and_buckets_are_cumulative() {
        let workers = [Arc::new(Counters::default()), Arc::new(Counters::default())];
        workers[0].answered(200, Duration::from_millis(2));
        workers[1].answered(503, Duration::from_millis(20));
        workers[1].requests_http2.add(1);
        workers[0].failed(crate::failure::Failure::NoRoute);
        workers[1].refused(crate::failure::Failure::BadRequest("why"));
        workers[1].upstream_latency.add(Duration::from_millis(3));
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
            "http_request_failures_total{reason=\"no_route\"} 1",
            "http_request_failures_total{reason=\"bad_request\"} 1",
            "http_requests_refused_total 1",
            "weir_upstream_duration_seconds_bucket{le=\"0.0025\"} 0",
            "weir_upstream_duration_seconds_bucket{le=\"0.005\"} 1",
            "weir_backends{state=\"healthy\"} 0.0",
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
            assert!(!metric.help.is_empty() && !metric.help.ends_with('.'), "{}", metric.name);
        }
        let mut names: Vec<_> = METRICS.iter().map(|metric| metric.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), METRICS.len(), "a name is there twice");
    }
}

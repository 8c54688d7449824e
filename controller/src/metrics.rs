//! Every metric of the controller. Labels come from lists in this program: the number of series is fixed.

use crate::cluster::{FailureReason, Kind};
use crate::dns;
use crate::readiness::Readiness;
use crate::store::{FleetCounts, Store};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use weir_metrics::{Format, Process};

/// Upper bounds of the buckets of a compilation's duration.
const COMPILE_BOUNDS_S: [f64; 9] = [0.000_1, 0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0];

/// What was compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Scope {
    /// Everything.
    World,
    /// The pools that a change of a pool, a Secret or a ReferenceGrant makes a difference to.
    Pool,
    /// The backend sets of Services that changed.
    Endpoints,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKind {
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfFailure {
    kind: Kind,
    reason: FailureReason,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfScope {
    scope: Scope,
}

/// The metrics, and what some of them are read from at each scrape.
pub struct Metrics {
    registry: Registry,
    store: Arc<Store>,
    readiness: Arc<Readiness>,
    ready: Gauge,
    proxies: Gauge,
    pools: Gauge,
    shared_limits: Gauge,
    sharing_proxies: Gauge,
    malformed: Gauge,
    unhealthy: Gauge,
    objects: Family<OfKind, Gauge>,
    watches: Family<OfKind, Gauge>,
    failures: Family<OfFailure, Counter>,
    compile: Family<OfScope, Histogram>,
    /// In the order of [`COUNTS`].
    counts: [Counter; COUNTS.len()],
    dns: dns::Meters,
    dns_answer_age: Gauge<f64, AtomicU64>,
}

/// What is counted of proxies: name, help, and where it is.
type Count = (&'static str, &'static str, fn(&FleetCounts) -> u64);

const COUNTS: [Count; 5] = [
    ("acks", "Versions that proxies acknowledged", |counts| counts.acks),
    ("nacks", "Versions that proxies refused", |counts| counts.nacks),
    ("snapshot_requests", "Pools sent again whole, since a proxy asked for it", |counts| {
        counts.snapshot_requests
    }),
    (
        "divergences",
        "Pools sent again whole, since the digests of a proxy are not those of what it was sent",
        |counts| counts.divergences,
    ),
    ("too_large", "Versions of pools that were too large to be sent", |counts| counts.too_large),
];

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// All of them, at zero.
    #[must_use]
    pub fn new(store: Arc<Store>, readiness: Arc<Readiness>) -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(COMPILE_BOUNDS_S);
        let mut metrics = Self {
            registry: Registry::default(),
            store,
            readiness,
            ready: Gauge::default(),
            proxies: Gauge::default(),
            pools: Gauge::default(),
            shared_limits: Gauge::default(),
            sharing_proxies: Gauge::default(),
            malformed: Gauge::default(),
            unhealthy: Gauge::default(),
            objects: Family::default(),
            watches: Family::default(),
            failures: Family::default(),
            compile: Family::new_with_constructor(histogram),
            counts: Default::default(),
            dns: dns::Meters::default(),
            dns_answer_age: Gauge::default(),
        };
        metrics.register();
        metrics.begin();
        metrics
    }

    /// Every value of every label is there from the start: what was never counted is 0, and a rate over it is known.
    fn begin(&self) {
        for kind in Kind::ALL {
            let _ = self.objects.get_or_create(&OfKind { kind });
            let _ = self.watches.get_or_create(&OfKind { kind });
            for reason in FailureReason::ALL {
                let _ = self.failures.get_or_create(&OfFailure { kind, reason });
            }
        }
        for scope in [Scope::World, Scope::Pool, Scope::Endpoints] {
            let _ = self.compile.get_or_create(&OfScope { scope });
        }
    }

    /// For who looks names up.
    #[must_use]
    pub fn dns(&self) -> dns::Meters {
        self.dns.clone()
    }

    /// A watch could not begin, or was ended with an error.
    pub fn watch_failed(&self, kind: Kind, reason: FailureReason) {
        self.failures.get_or_create(&OfFailure { kind, reason }).inc();
    }

    /// How many objects of a kind are kept.
    pub fn set_objects(&self, kind: Kind, count: usize) {
        self.objects.get_or_create(&OfKind { kind }).set(gauge(count));
    }

    /// How many watches of a kind have brought all of their objects once.
    pub fn set_synced_watches(&self, kind: Kind, count: usize) {
        self.watches.get_or_create(&OfKind { kind }).set(gauge(count));
    }

    /// How many pools cannot be read.
    pub fn set_malformed(&self, count: usize) {
        self.malformed.set(gauge(count));
    }

    /// Something was compiled and stored.
    pub fn compiled(&self, scope: Scope, took: Duration) {
        self.compile.get_or_create(&OfScope { scope }).observe(took.as_secs_f64());
    }

    /// All of them at the moment.
    ///
    /// # Errors
    /// Never but for a mistake in a metric's encoding.
    pub fn text(&self, format: Format) -> Result<String, fmt::Error> {
        self.ready.set(i64::from(self.readiness.reason().is_none()));
        self.proxies.set(gauge(self.store.proxy_count()));
        self.pools.set(gauge(self.store.pool_count()));
        let shares = self.store.desk().counts(tokio::time::Instant::now().into_std());
        self.shared_limits.set(gauge(shares.limits));
        self.sharing_proxies.set(gauge(shares.proxies));
        self.unhealthy.set(gauge(self.store.unhealthy_count()));
        let counts = self.store.fleet_counts();
        for (counter, (_, _, of)) in self.counts.iter().zip(COUNTS) {
            counter.inner().store(of(&counts), Ordering::Relaxed);
        }
        self.dns_answer_age.set(self.dns.oldest_answer_age().as_secs_f64());
        weir_metrics::encode(&self.registry, format)
    }

    fn register(&mut self) {
        self.registry.register_collector(Box::new(Process::here()));
        let registry = self.registry.sub_registry_with_prefix("weir_controller");
        registry.register("ready", "1 once the source has been read", self.ready.clone());
        registry.register("proxies", "Streams to proxies that are open", self.proxies.clone());
        registry.register("pools", "LoadBalancerPools that are served", self.pools.clone());
        let help = "Rate limits that proxies have together and this replica gives shares of; 0 where it does not hold the Lease";
        registry.register("shared_limits", help, self.shared_limits.clone());
        let help = "Proxies that this replica gives shares of limits to";
        registry.register("sharing_proxies", help, self.sharing_proxies.clone());
        let help = "LoadBalancerPools that cannot be read; what they said before serves on";
        registry.register("malformed_pools", help, self.malformed.clone());
        let help =
            "Backends that take no requests at some proxy with a stream here, at most 256 of each pool";
        registry.register("unhealthy_backends", help, self.unhealthy.clone());
        let help = "Objects of the API server that are kept, by kind";
        registry.register("objects", help, self.objects.clone());
        let help = "Watches that have brought all of their objects once, by kind";
        registry.register("synced_watches", help, self.watches.clone());
        let help = "Watches that failed and were tried again, by kind and reason";
        registry.register("watch_failures", help, self.failures.clone());
        let help = "Time to compile a change and to hand it to the streams";
        registry.register("compile_duration_seconds", help, self.compile.clone());
        let help = "Time from when a change was seen until a proxy acknowledged it, by lane; of changes that are acknowledged \
                    together, the oldest";
        registry.register("propagation_seconds", help, self.store.propagation());
        for (counter, (name, help, _)) in self.counts.iter().zip(COUNTS) {
            registry.register(name, help, counter.clone());
        }
        let help = "Lookups of names in DNS that ended, by how";
        registry.register("dns_lookups", help, self.dns.lookups.clone());
        registry.register("dns_names", "Names in DNS that are looked up", self.dns.names.clone());
        let help = "Age of the oldest good answer of DNS whose addresses are served; 0 where none are";
        registry.register("dns_oldest_answer_seconds", help, self.dns_answer_age.clone());
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_exposed_with_its_labels() {
        let metrics = Metrics::new(Store::new(1), Arc::default());
        metrics.watch_failed(Kind::Secret, FailureReason::Forbidden);
        metrics.set_objects(Kind::Service, 3);
        metrics.compiled(Scope::Endpoints, Duration::from_micros(200));
        let text = metrics.text(Format::OpenMetrics).expect("encodes");
        for line in [
            "weir_controller_watch_failures_total{kind=\"Secret\",reason=\"Forbidden\"} 1",
            "weir_controller_objects{kind=\"Service\"} 3",
            "weir_controller_compile_duration_seconds_bucket{le=\"0.0003\",scope=\"Endpoints\"} 1",
            "weir_controller_propagation_seconds_count{lane=\"endpoints\"} 0",
            "weir_controller_propagation_seconds_bucket{le=\"60.0\",lane=\"config\"} 0",
            "weir_controller_divergences_total 0",
            "weir_controller_snapshot_requests_total 0",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}

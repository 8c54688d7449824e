//! The metrics, each with its name, its help and where its value comes from.

use super::{Metric, Sources, Value, load};
use crate::counters::{DROP_REASONS, LAYER4_REASONS};
use crate::failure::REASONS;
use crate::readiness::Phase;
use crate::sessions::Store;
use lb_core::backend::Live;
use lb_core::sessions::SessionTable;

/// Every metric, in the order in which they are exposed.
pub static METRICS: [Metric; 71] = [
    Metric {
        name: "http_request_duration_seconds",
        help: "Time from the end of a request's head to the end of its response",
        value: |scrape| scrape.latencies(|c| &c.latency),
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
        value: |scrape| scrape.counters("class", ["1xx", "2xx", "3xx", "4xx", "5xx"], |c| &c.responses),
    },
    Metric {
        name: "http_request_failures_total",
        help: "Requests that failed, by the reason that their client is told in x-weir-reason, or would be",
        value: |scrape| scrape.counters("reason", REASONS, |c| &c.failures),
    },
    Metric {
        name: "http_requests_refused_total",
        help: "Requests refused before a route was looked for: malformed or beyond a limit",
        value: |scrape| scrape.counter(|c| &c.requests_refused),
    },
    Metric {
        name: "weir_access_log_records_total",
        help: "Lines of the access log that were written",
        value: |scrape| Value::Counter(scrape.access_log.records()),
    },
    Metric {
        name: "weir_access_log_dropped_total",
        help: "Lines of the access log that were dropped, as the writer was behind or could not write",
        value: |scrape| Value::Counter(scrape.access_log.dropped()),
    },
    Metric {
        name: "weir_requests_ip_denied_total",
        help: "Requests refused for the client's address, by ipRules",
        value: |scrape| Value::Counter(scrape.failed("ip_denied")),
    },
    Metric {
        name: "weir_requests_rate_limited_total",
        help: "Requests that a rate limit refused",
        value: |scrape| Value::Counter(scrape.failed("rate_limited")),
    },
    Metric {
        name: "weir_rate_limit_shared",
        help: "Requests counted together with those of other clients, as the tables of the limits in force were full",
        value: |scrape| {
            let limiters = &scrape.current.load().limiters;
            Value::whole(limiters.iter().map(|limiter| limiter.shared()).sum())
        },
    },
    Metric {
        name: "weir_cluster_limits",
        help: "Rate limits in force that proxies have together",
        value: |scrape| Value::whole(scrape.shares.standing().limits as u64),
    },
    Metric {
        name: "weir_cluster_limits_without_word",
        help: "Of those, how many have no share that a controller stands by",
        value: |scrape| Value::whole(scrape.shares.standing().without_word as u64),
    },
    Metric {
        name: "weir_cluster_limits_shares",
        help: "Sum of this proxy's shares of those limits, where 1 is a whole limit",
        value: |scrape| Value::Gauge(Some(scrape.shares.standing().shares)),
    },
    Metric {
        name: "weir_cluster_limits_demand",
        help: "Requests asked of this proxy in a second under those limits, smoothed",
        value: |scrape| Value::Gauge(Some(scrape.shares.standing().demand)),
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
            let limits = ["connections", "source", "handshakes", "handshakes_at_once"];
            scrape.counters("limit", limits, |c| &c.connections_refused)
        },
    },
    Metric {
        name: "weir_proxy_headers_refused_total",
        help: "Client connections closed for a header of the PROXY protocol that was missing, wrong or slow",
        value: |scrape| scrape.counter(|c| &c.proxy_headers_refused),
    },
    Metric {
        name: "weir_http2_connections_cut_total",
        help: "Client connections of HTTP/2 ended for too many resets, or too many frames without a message",
        value: |scrape| scrape.counters("excess", ["resets", "control_frames"], |c| &c.connections_cut),
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
        name: "weir_layer4_connections_total",
        help: "Connections of layer 4 that a backend took",
        value: |scrape| scrape.counter(|c| &c.layer4_connections),
    },
    Metric {
        name: "weir_layer4_connections_open",
        help: "Connections of layer 4 open to backends now",
        value: |scrape| scrape.gauge(|c| &c.layer4_connections_open),
    },
    Metric {
        name: "weir_layer4_bytes_total",
        help: "Bytes that connections of layer 4 carried",
        value: |scrape| scrape.counters("direction", ["to_backend", "to_client"], |c| &c.layer4_bytes),
    },
    Metric {
        name: "weir_layer4_connections_ended_total",
        help: "Connections of layer 4 that ended: by both sides, by one that broke off, for standing still, for being asked to go",
        value: |scrape| scrape.counters("by", ["both", "broken", "idle", "asked"], |c| &c.layer4_ended),
    },
    Metric {
        name: "weir_udp_flows_total",
        help: "Flows of UDP that began: datagrams of one source to one backend and back",
        value: |scrape| scrape.counter(|c| &c.flows),
    },
    Metric {
        name: "weir_udp_flows_open",
        help: "Flows of UDP that have not ended",
        value: |scrape| scrape.gauge(|c| &c.flows_open),
    },
    Metric {
        name: "weir_udp_datagrams_total",
        help: "Datagrams that came, of clients and of backends",
        value: |scrape| scrape.counters("of", ["clients", "backends"], |c| &c.datagrams),
    },
    Metric {
        name: "weir_udp_datagrams_dropped_total",
        help: "Datagrams of clients that were dropped, by the reason",
        value: |scrape| scrape.counters("reason", DROP_REASONS, |c| &c.datagrams_dropped),
    },
    Metric {
        name: "weir_layer4_failures_total",
        help: "Connections of layer 4 that no backend took, by the reason",
        value: |scrape| scrape.counters("reason", LAYER4_REASONS, |c| &c.layer4_failures),
    },
    Metric {
        name: "weir_tls_handshakes_failed_total",
        help: "TLS handshakes with clients that did not finish",
        value: |scrape| scrape.counter(|c| &c.handshakes_failed),
    },
    Metric {
        name: "weir_tls_certificate_expiry_timestamp_seconds",
        help: "When the certificate of a Secret ends, in seconds since 1970; of the 100 that end first",
        value: Sources::expiries,
    },
    Metric {
        name: "weir_backends",
        help: "Backends of all sets: healthy ones take requests, unhealthy ones are kept from it by checks or ejection",
        value: Sources::standings,
    },
    Metric {
        name: "weir_backend_sets_without_backend",
        help: "Backend sets of which no backend may take a request",
        value: |scrape| {
            Value::whole(scrape.sets().filter(|set| set.members().eligible().len() == 0).count() as u64)
        },
    },
    Metric {
        name: "weir_upstream_duration_seconds",
        help: "Time from the choice of a backend to the head of its answer, connecting included; of each attempt",
        value: |scrape| scrape.latencies(|c| &c.upstream_latency),
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
        name: "weir_mirrors_total",
        help: "Copies of requests that were sent to mirrors",
        value: |scrape| scrape.counter(|c| &c.mirrors),
    },
    Metric {
        name: "weir_mirrors_left_out_total",
        help: "Copies that were not sent: the body was too large or broke off, or too many were under way",
        value: |scrape| scrape.counter(|c| &c.mirrors_left_out),
    },
    Metric {
        name: "weir_circuits",
        help: "Backend sets with a circuit breaker, by its state",
        value: Sources::circuits,
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
            let results = scrape.each(["new", "kept", "failed_over"], |c| &c.sessions);
            let refusals = ["forged", "foreign", "expired", "oversized"];
            let refusals = scrape.each(refusals, |c| &c.cookies_refused);
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
];

//! Limits of the push protocol. Both ends enforce each of them, so that a breach is an error with a name and
//! never an allocation.

use crate::hosts::covers;
use std::time::Duration;

/// Largest encoded message in either direction, in bytes. Chunks keep messages far below it.
///
/// Set on both ends of the stream: tonic's own default of 4 MiB on the receiving end only is a known outage.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// Largest payload of one `ConfigChunk`, in bytes. A backend delta waits for one chunk at most.
pub const CHUNK_BYTES_MAX: usize = 64 << 10;

/// Payloads of chunks sent and not yet given back by `ChunkReceived`, in bytes, over all pools of a stream.
pub const CHUNK_BYTES_IN_FLIGHT_MAX: usize = 4 * CHUNK_BYTES_MAX;

/// Such chunks, however small: what a proxy has to go through before it hears of a backend.
pub const CHUNKS_IN_FLIGHT_MAX: usize = 256;

/// Bytes of HTTP/2 data that each end takes in before it reads them, for a stream and for its connection. Past it the
/// other end sends nothing, and so decides nothing either: what a proxy does not read costs its controller this and one
/// message, however long it lasts and whatever changes.
///
/// Not hyper's own, which are 2 and 5 MiB at a client: a delta would wait behind as many.
pub const STREAM_WINDOW_BYTES: u32 = 1 << 20;

/// Largest encoded `PoolUpdate`, in bytes: what one pool's configuration and backends may take.
pub const POOL_UPDATE_BYTES_MAX: usize = 64 << 20;

/// Backends that one `BackendDelta` may name, upserted and removed together. A larger change travels as a
/// chunked update, so that it cannot hold up the deltas behind it.
pub const DELTA_BACKENDS_MAX: usize = 512;

/// Deltas of one pool that a proxy holds while an update of the same pool arrives in chunks. One past it, the
/// proxy asks for a snapshot.
pub const DELTAS_HELD_MAX: usize = 1024;

/// Pools on one stream.
pub const POOLS_MAX: usize = 10_000;

/// Time without an acknowledgement while something is in flight, after which the controller closes the stream.
/// The proxy dials again and resumes.
pub const STUCK_STREAM_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest `proxy_id`, in bytes (that of a Kubernetes object's name).
pub const PROXY_ID_BYTES_MAX: usize = 253;

/// Certificates in one TLS chain, the leaf included.
pub const CHAIN_CERTIFICATES_MAX: usize = 16;

/// Certificates of authorities that one set, or one listener, trusts, over all its Secrets.
pub const AUTHORITY_CERTIFICATES_MAX: usize = 256;

/// Secrets with certificates of authorities that one set, or one listener, names.
pub const AUTHORITIES_MAX: usize = 8;

/// Names and URIs of which a backend's certificate has to have one (as in the Gateway API).
pub const ALTERNATIVE_NAMES_MAX: usize = 5;

/// Longest URI of a certificate that is asked for, in bytes.
pub const URI_NAME_BYTES_MAX: usize = 253;

/// Backends that a controller puts into one set. Each at its longest, they still fit one `PoolUpdate`.
pub const BACKENDS_PER_SET_MAX: usize = 20_000;

/// Routes that one pool makes, as [`routes`] counts them: what multiplies in a configuration. 40 hosts with 1,000 paths each
/// behind two listeners are 80,000; a configuration of 64 listeners, 256 rules and 140 KB could ask for four million.
pub const ROUTES_PER_POOL_MAX: usize = 100_000;

/// Zones, and nodes, that one backend has as hints (as in the Kubernetes API). A proxy ignores those past it.
pub const HINTS_MAX: usize = 8;

/// Longest name of a zone, in bytes (that of a label's value).
pub const ZONE_BYTES_MAX: usize = 63;

/// Longest name of a node, in bytes (that of a Kubernetes object's name).
pub const NODE_NAME_BYTES_MAX: usize = 253;

/// Bytes of each key of a `KeyRing`.
pub const KEY_BYTES: usize = 32;

/// What a proxy says in Hello that takes a `KeyRing`.
pub const KEY_RING_CAPABILITY: &str = "keyring";

/// What a controller says in Welcome for which one `ChunkReceived` may stand for all before it.
pub const WINDOW_CAPABILITY: &str = "window";

/// What a proxy says in Hello, and a controller in Welcome, that shares health checks.
pub const HEALTH_CAPABILITY: &str = "health";

/// What a proxy says in Hello, and a controller in Welcome, that knows limits which proxies have together.
pub const SHARES_CAPABILITY: &str = "shares";

/// Limits of one `Demand`; of those past it a proxy gets no share.
pub const SHARED_LIMITS_MAX: usize = 1_000;

/// Parts of a limit that shares are counted in, and parts of a request that proxies hand over. Divisible by every number up
/// to 16, so that equal shares of a small limit are whole requests.
pub const SHARE_WHOLE: u32 = 720_720;

/// How long a share counts, from when the proxy said what it answers. Longer than the Lease of a holder that dies, so that
/// the next one can renew it.
pub const SHARE_TERM: Duration = Duration::from_secs(30);

/// An answer that takes longer than this gives nothing. Less than the time in which nobody holds the Lease after a holder
/// that could not renew it, so that answers of two holders never cross.
pub const SHARE_ANSWER_TIMEOUT: Duration = Duration::from_secs(4);

/// Between two `Demand`s of a proxy.
pub const DEMAND_INTERVAL: Duration = Duration::from_secs(1);

/// Between two `Demand`s of which the later one names a limit for the first time.
pub const DEMAND_INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Reports in one `HealthSaid` or `HealthNews`; more go into the next message.
pub const HEALTH_REPORTS_MAX: usize = 512;

/// Targets that one proxy reports of; what is past it the others find out for themselves.
pub const HEALTH_TARGETS_MAX: usize = 100_000;

/// Proxies that share health checks; those past it check for themselves.
pub const HEALTH_PROXIES_MAX: usize = 1_000;

/// Unhealthy backends that a stream, and the report of a replica, names for each pool.
pub const UNHEALTHY_NAMED_MAX: usize = 256;

/// Bytes of a request's path and query, at least and at most, where a listener says it; so are those that follow.
pub const URI_BYTES: (u32, u32) = (64, 64 << 10);
/// Bytes of a request's line and headers.
pub const HEAD_BYTES: (u32, u32) = (1 << 10, 64 << 10);
/// Header fields of a request.
pub const HEADERS: (u32, u32) = (8, 100);
/// Requests at a time on one connection of HTTP/2.
pub const STREAMS: (u32, u32) = (1, 1_000);
/// Resets of streams of a connection in a second.
pub const RESETS_PER_SECOND: (u32, u32) = (1, 100_000);
/// Frames of a connection in a second that are no part of a message.
pub const CONTROL_FRAMES_PER_SECOND: (u32, u32) = (10, 1_000_000);
/// Connections of a port, and of one source.
pub const CONNECTIONS: (u32, u32) = (1, 10_000_000);
/// TLS handshakes of a source in a second.
pub const HANDSHAKES_PER_SECOND: (u32, u32) = (1, 100_000);
/// TLS handshakes under way at one time, of the process and of one source.
pub const HANDSHAKES_AT_ONCE: (u32, u32) = (1, 1_000_000);
/// Networks whose connections begin with a header of the PROXY protocol.
pub const PROXY_NETWORKS_MAX: usize = 64;
/// Seconds for which a client is to ask over HTTPS alone: two years are what preload lists ask for at most.
pub const HSTS_MAX_AGE_S: (u64, u64) = (0, 315_360_000);
/// Statuses that send a client elsewhere.
pub const REDIRECT_STATUSES: [u32; 5] = [301, 302, 303, 307, 308];
/// How long a head may take, and a connection wait, in milliseconds.
pub const LISTENER_TIMEOUT_MS: (u64, u64) = (100, 3_600_000);
/// Bytes of a body for each second that its client is waited for.
pub const BODY_PACE: (u32, u32) = (1, 1_000_000);
/// Stands for no such minimum, since 0 stands for the default.
pub const NO_BODY_PACE: u32 = u32::MAX;

/// How long a session is kept without a request, in milliseconds; so are the times that follow.
pub const SESSION_LIFETIME_MS: (u64, u64) = (1_000, 30 * 24 * 3_600_000);
/// Time over which a circuit breaker counts.
pub const BREAKER_WINDOW_MS: (u64, u64) = (1_000, 600_000);
/// Time for which it stays open.
pub const BREAKER_RESET_MS: (u64, u64) = (100, 3_600_000);
/// Wait before the first retry.
pub const BACKOFF_MS: (u64, u64) = (0, 10_000);
/// Wait until a second attempt begins beside the first.
pub const HEDGE_MS: (u64, u64) = (1, 60_000);
/// Time over which a budget of retries counts.
pub const BUDGET_WINDOW_MS: (u64, u64) = (1_000, 60_000);
/// Wait in a queue.
pub const QUEUE_WAIT_MS: (u64, u64) = (1, 300_000);
/// How long a connection of layer 4 may stand still.
pub const CONNECTION_IDLE_MS: (u64, u64) = (1_000, 604_800_000);
/// How long a flow of UDP may be silent.
pub const FLOW_IDLE_MS: (u64, u64) = (1_000, 3_600_000);
/// Time over which a rate limit counts.
pub const RATE_PERIOD_MS: (u64, u64) = (1_000, 86_400_000);

/// Expressions in the matches of one pool.
pub const PATTERNS_PER_POOL_MAX: usize = 100;
/// Bytes of one, as it is written.
pub const PATTERN_BYTES_MAX: usize = 1_024;
/// Bytes of the table that one is compiled to: it lies in every proxy.
pub const PATTERN_TABLE_BYTES_MAX: usize = 256 << 10;

/// Headers, parameters or cookies that one match asks for, each.
pub const MATCH_FIELDS_MAX: usize = 16;
/// Networks that one match names.
pub const MATCH_SOURCES_MAX: usize = 64;
/// Header fields that one filter sets, adds or removes, each.
pub const FILTER_HEADERS_MAX: usize = 16;
/// Origins, and headers of each kind, of one CORS filter.
pub const CORS_ENTRIES_MAX: usize = 64;
/// Methods, and types of content, that one filter lists.
pub const FILTER_METHODS_MAX: usize = 16;
/// Mirrors of one rule.
pub const MIRRORS_MAX: usize = 4;
/// Of so many requests at most a mirror copies some.
pub const MIRROR_DENOMINATOR_MAX: u32 = 1_000_000;
/// Seconds for which browsers keep the answer to a preflight.
pub const CORS_MAX_AGE_S: (u32, u32) = (1, 86_400);

/// How many routes listeners, each with its hostnames, make with rules, each with its hostnames and the number of its
/// matches: one for each listener, rule, pair of hostnames of which one is or covers the other, and match. No hostnames
/// stand for every host, and no match for one that takes every path.
///
/// Nothing is made for it; it costs a comparison for each pair of hostnames.
#[must_use]
pub fn routes(listeners: &[&[String]], rules: &[(&[String], usize)]) -> usize {
    let mut count = 0_usize;
    for listener in listeners {
        for (rule, matches) in rules {
            let hosts = match (*listener, *rule) {
                ([], []) => 1,
                ([], own) | (own, []) => own.len(),
                _ => listener.iter().map(|a| rule.iter().filter(|b| have_common(a, b)).count()).sum(),
            };
            count = count.saturating_add(hosts.saturating_mul((*matches).max(1)));
        }
    }
    count
}

/// Whether a host is there that both stand for.
fn have_common(a: &str, b: &str) -> bool {
    a == b || covers(a, b) || covers(b, a)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::{Backend, BackendSetContent};
    use prost::Message as _;

    #[test]
    fn the_largest_set_fits_one_update() {
        let address = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535".to_owned();
        let names = |bytes| vec!["x".repeat(bytes); HINTS_MAX];
        let backend = Backend {
            id: address.clone(),
            address,
            weight: u32::MAX,
            zone: "x".repeat(ZONE_BYTES_MAX),
            state: 2,
            node: "x".repeat(NODE_NAME_BYTES_MAX),
            hint_zones: names(ZONE_BYTES_MAX),
            hint_nodes: names(NODE_NAME_BYTES_MAX),
            priority: u32::MAX,
        };
        let set = |backends| BackendSetContent { backends, ..BackendSetContent::default() };
        let bytes_each =
            set(vec![backend.clone(), backend.clone()]).encoded_len() - set(vec![backend]).encoded_len();
        assert!(bytes_each * BACKENDS_PER_SET_MAX < POOL_UPDATE_BYTES_MAX, "{bytes_each}");
    }

    #[test]
    fn routes_are_counted_by_listener_host_and_match() {
        let owned = |hosts: &[&str]| hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>();
        let count = |listeners: &[&[&str]], rules: &[(&[&str], usize)]| {
            let listeners: Vec<_> = listeners.iter().map(|hosts| owned(hosts)).collect();
            let rules: Vec<_> = rules.iter().map(|(hosts, matches)| (owned(hosts), *matches)).collect();
            let rules: Vec<_> = rules.iter().map(|(hosts, matches)| (hosts.as_slice(), *matches)).collect();
            routes(&listeners.iter().map(Vec::as_slice).collect::<Vec<_>>(), &rules)
        };
        assert_eq!(count(&[], &[(&["a"], 1)]), 0);
        assert_eq!(count(&[&[]], &[]), 0);
        assert_eq!(count(&[&[]], &[(&[], 0)]), 1, "every host and path");
        assert_eq!(count(&[&[], &["a", "b"]], &[(&[], 3)]), 9);
        assert_eq!(count(&[&[]], &[(&["a", "b"], 5), (&[], 1)]), 11);
        assert_eq!(count(&[&["*.a", "b"]], &[(&["x.a", "*.y.a", "b", "a", "*.b"], 2)]), 6);
        assert_eq!(count(&[&["x.a"]], &[(&["*.a"], 0)]), 1);
    }
}

//! Reports as messages, and back: what a replica says is checked before it counts.

use crate::store::{
    BackendName, HEALTH_NAME_BYTES_MAX, PoolSummary, REFUSALS_MAX, Refusal, Unhealthy, UnhealthyBackends,
    reason_within_limit,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use weir_proto::limits::{PROXY_ID_BYTES_MAX, SHARED_LIMITS_MAX, UNHEALTHY_NAMED_MAX};
use weir_proto::push::replica_message::Body;
use weir_proto::push::{PoolReport, Refused, ReplicaHello, ReplicaMessage, UnhealthyBackend};

/// Bytes of a refusal's field and of its reason that are told to the holder; status shows less.
pub const REFUSAL_BYTES_MAX: usize = 1024;

/// Longest name of a pool: two names of objects and a slash.
const POOL_BYTES_MAX: usize = 2 * 253 + 1;

/// Longest name of a proxy in a report: that of a pod with its namespace.
const PROXY_BYTES_MAX: usize = 512;

/// What no replica of this version says. The text goes to the replica.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Breach {
    /// The first message was another one.
    #[error("the first message of a replica must be ReplicaHello")]
    HelloMissing,
    /// Twice, or a message from a later protocol.
    #[error("a replica's message is none that this one knows: upgrade all replicas")]
    Unknown,
    /// Outside 1 to [`PROXY_ID_BYTES_MAX`] bytes.
    #[error(
        "replica_id has {0} bytes, and must have 1 to {PROXY_ID_BYTES_MAX}: name the replica after its pod"
    )]
    ReplicaId(usize),
    /// Too long, or empty.
    #[error("a report's pool has {0} bytes, and must have 1 to {POOL_BYTES_MAX}")]
    Pool(usize),
    /// More current or refusing proxies than there are.
    #[error("the report on {0} counts more proxies as current or refusing than there are")]
    Counts(String),
    /// More than are spelt out.
    #[error("the report on {0} has {1} refusals, more than {REFUSALS_MAX}")]
    Refusals(String, usize),
    /// A name that no proxy has.
    #[error("the report on {0} names a proxy in {1} bytes, more than {PROXY_BYTES_MAX}")]
    Proxy(String, usize),
    /// More than a report names.
    #[error("the report on {0} names {1} unhealthy backends, more than {UNHEALTHY_NAMED_MAX}")]
    Unhealthy(String, usize),
    /// A name that no set and no backend has.
    #[error(
        "the report on {0} names a set or a backend in {1} bytes, and must in 1 to {HEALTH_NAME_BYTES_MAX}"
    )]
    Backend(String, usize),
    /// Said by nobody, or by more proxies than there are, or twice.
    #[error(
        "the report on {0} names an unhealthy backend twice, or by none or more of its proxies than there are"
    )]
    UnhealthyCounts(String),
    /// More limits than one demand may name.
    #[error("a demand names {0} limits, and may name {SHARED_LIMITS_MAX}")]
    Demand(usize),
}

pub(super) fn hello(replica: &str) -> ReplicaMessage {
    ReplicaMessage { body: Some(Body::Hello(replica_hello(replica))) }
}

pub(super) fn replica_hello(replica: &str) -> ReplicaHello {
    ReplicaHello { replica_id: replica.to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() }
}

/// The replica's name in its first message.
pub(super) fn read_hello(message: ReplicaMessage) -> Result<Arc<str>, Breach> {
    let Some(Body::Hello(ReplicaHello { replica_id, .. })) = message.body else {
        return Err(Breach::HelloMissing);
    };
    match replica_id.len() {
        1..=PROXY_ID_BYTES_MAX => Ok(replica_id.into()),
        bytes => Err(Breach::ReplicaId(bytes)),
    }
}

pub(super) fn report(pool: &str, summary: &PoolSummary) -> ReplicaMessage {
    let refusals = summary.refusals.iter().take(REFUSALS_MAX).map(|(proxy, refusal)| Refused {
        proxy: proxy.to_string(),
        version: refusal.version,
        field: within(&refusal.field, REFUSAL_BYTES_MAX),
        reason: within(&refusal.reason, REFUSAL_BYTES_MAX),
    });
    let named = summary.unhealthy.iter().take(UNHEALTHY_NAMED_MAX);
    let unhealthy = named.map(|(name, Unhealthy { reason, proxies })| UnhealthyBackend {
        set: name.set.to_string(),
        backend: name.backend.to_string(),
        reason: reason.to_string(),
        proxies: *proxies,
    });
    let report = PoolReport {
        pool: pool.to_owned(),
        proxies: summary.proxies,
        current: summary.current,
        lag_us: summary.oldest_lag.map(|lag| u64::try_from(lag.as_micros()).unwrap_or(u64::MAX)),
        refused: summary.refused,
        refusals: refusals.collect(),
        too_large_bytes: summary.too_large_bytes,
        config_digest: summary.config_digest,
        unhealthy: unhealthy.collect(),
        slowest_proxy: summary.slowest.as_deref().unwrap_or_default().to_owned(),
    };
    ReplicaMessage { body: Some(Body::Pool(report)) }
}

/// What a message after the first says, and of which pool.
pub(super) fn read_report(message: ReplicaMessage) -> Result<(Arc<str>, PoolSummary), Breach> {
    let Some(Body::Pool(report)) = message.body else { return Err(Breach::Unknown) };
    let PoolReport {
        pool,
        proxies,
        current,
        lag_us,
        refused,
        refusals,
        too_large_bytes,
        config_digest,
        unhealthy,
        slowest_proxy,
    } = report;
    if pool.is_empty() || pool.len() > POOL_BYTES_MAX {
        return Err(Breach::Pool(pool.len()));
    }
    if u64::from(current) + u64::from(refused) > u64::from(proxies) {
        return Err(Breach::Counts(pool));
    }
    if refusals.len() > REFUSALS_MAX {
        return Err(Breach::Refusals(pool, refusals.len()));
    }
    let mut named = refusals.iter().map(|refused| refused.proxy.len()).chain([slowest_proxy.len()]);
    if let Some(bytes) = named.find(|bytes| *bytes > PROXY_BYTES_MAX) {
        return Err(Breach::Proxy(pool, bytes));
    }
    let unhealthy = read_unhealthy(&pool, proxies, unhealthy)?;
    let refusals = refusals.into_iter().map(|refused| {
        let Refused { proxy, version, field, reason } = refused;
        let [field, reason] = [field, reason].map(|text| within(&text, REFUSAL_BYTES_MAX));
        (proxy.into(), Refusal { version, field, reason })
    });
    let summary = PoolSummary {
        proxies,
        current,
        oldest_lag: lag_us.map(Duration::from_micros),
        slowest: Some(slowest_proxy).filter(|proxy| !proxy.is_empty()).map(Into::into),
        refused,
        refusals: refusals.collect(),
        too_large_bytes,
        config_digest,
        unhealthy,
    };
    Ok((pool.into(), summary))
}

fn read_unhealthy(
    pool: &str,
    proxies: u32,
    backends: Vec<UnhealthyBackend>,
) -> Result<UnhealthyBackends, Breach> {
    let count = backends.len();
    if count > UNHEALTHY_NAMED_MAX {
        return Err(Breach::Unhealthy(pool.to_owned(), count));
    }
    let names = backends.iter().flat_map(|named| [named.set.len(), named.backend.len()]);
    if let Some(bytes) = names.into_iter().find(|bytes| !(1..=HEALTH_NAME_BYTES_MAX).contains(bytes)) {
        return Err(Breach::Backend(pool.to_owned(), bytes));
    }
    let is_counted = backends.iter().all(|named| (1..=proxies).contains(&named.proxies));
    let read = backends.into_iter().map(|named| {
        let UnhealthyBackend { set, backend, reason, proxies } = named;
        let name = BackendName { set: set.into(), backend: backend.into() };
        (name, Unhealthy { reason: reason_within_limit(&reason), proxies })
    });
    let read: BTreeMap<_, _> = read.collect();
    if !is_counted || read.len() < count {
        return Err(Breach::UnhealthyCounts(pool.to_owned()));
    }
    Ok(Arc::new(read))
}

/// The beginning of a text, in whole characters.
fn within(text: &str, bytes_max: usize) -> String {
    text[..text.floor_char_boundary(bytes_max)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::HEALTH_REASON_BYTES_MAX;
    use prost::Message as _;
    use weir_proto::push::Version;

    fn summary() -> PoolSummary {
        let refusal = |n: usize| {
            let version = Some(Version { epoch: 7, sequence: 4 });
            let refusal = Refusal { version, field: "spec.listeners[0].port".into(), reason: "no".into() };
            (Arc::from(format!("edge/proxy-{n}")), refusal)
        };
        PoolSummary {
            proxies: 12,
            current: 3,
            oldest_lag: Some(Duration::from_micros(4_711)),
            slowest: Some("edge/proxy-1".into()),
            refused: 9,
            refusals: (0..REFUSALS_MAX).map(refusal).collect(),
            too_large_bytes: Some(1 << 27),
            config_digest: 42,
            unhealthy: unhealthy(UNHEALTHY_NAMED_MAX, "b"),
        }
    }

    fn unhealthy(count: usize, stem: &str) -> UnhealthyBackends {
        let backend = |n: usize| {
            let name = BackendName { set: "web".into(), backend: format!("{stem}{n:03}").into() };
            (
                name,
                Unhealthy {
                    reason: "timed out after 1s".into(),
                    proxies: u32::try_from(1 + n % 12).expect("small"),
                },
            )
        };
        Arc::new((0..count).map(backend).collect())
    }

    fn changed(change: impl FnOnce(&mut PoolReport)) -> Result<(Arc<str>, PoolSummary), Breach> {
        let mut message = report("ns/p", &summary());
        if let Some(Body::Pool(report)) = &mut message.body {
            change(report);
        }
        read_report(message)
    }

    #[test]
    fn a_report_is_read_as_it_was_written() {
        assert_eq!(changed(|_| {}), Ok(("ns/p".into(), summary())));
        let none = PoolSummary::default();
        assert_eq!(read_report(report("ns/p", &none)), Ok(("ns/p".into(), none)));
        assert_eq!(read_hello(hello("weir-controller-1")), Ok("weir-controller-1".into()));
    }

    #[test]
    fn what_no_replica_says_is_refused() {
        assert_eq!(read_hello(report("ns/p", &summary())), Err(Breach::HelloMissing));
        assert_eq!(read_hello(hello("")), Err(Breach::ReplicaId(0)));
        assert!(read_hello(hello(&"x".repeat(PROXY_ID_BYTES_MAX))).is_ok());
        assert!(read_hello(hello(&"x".repeat(PROXY_ID_BYTES_MAX + 1))).is_err());
        assert_eq!(read_report(hello("again")), Err(Breach::Unknown));
        assert_eq!(read_report(ReplicaMessage { body: None }), Err(Breach::Unknown));
        assert_eq!(changed(|report| report.pool.clear()), Err(Breach::Pool(0)));
        assert!(changed(|report| report.pool = "p".repeat(POOL_BYTES_MAX)).is_ok());
        assert!(changed(|report| report.pool = "p".repeat(POOL_BYTES_MAX + 1)).is_err());
        assert_eq!(changed(|report| report.current = 4), Err(Breach::Counts("ns/p".into())));
        assert_eq!(changed(|report| report.refused = u32::MAX), Err(Breach::Counts("ns/p".into())));
        let one_more = changed(|report| report.refusals.push(report.refusals[0].clone()));
        assert_eq!(one_more, Err(Breach::Refusals("ns/p".into(), REFUSALS_MAX + 1)));
        assert!(changed(|report| report.refusals[7].proxy = "p".repeat(PROXY_BYTES_MAX)).is_ok());
        assert!(changed(|report| report.refusals[7].proxy = "p".repeat(PROXY_BYTES_MAX + 1)).is_err());
        assert!(changed(|report| report.slowest_proxy = "p".repeat(PROXY_BYTES_MAX)).is_ok());
        assert!(changed(|report| report.slowest_proxy = "p".repeat(PROXY_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn unhealthy_backends_that_no_replica_names_are_refused() {
        let pool = || "ns/p".to_owned();
        let one_more =
            UnhealthyBackend { set: "web".into(), backend: "c".into(), proxies: 1, ..Default::default() };
        let past = changed(|report| report.unhealthy.push(one_more));
        assert_eq!(past, Err(Breach::Unhealthy(pool(), UNHEALTHY_NAMED_MAX + 1)));
        assert_eq!(changed(|report| report.unhealthy[0].set.clear()), Err(Breach::Backend(pool(), 0)));
        let long = |bytes| changed(|report| report.unhealthy[0].backend = "b".repeat(bytes));
        assert!(long(HEALTH_NAME_BYTES_MAX).is_ok());
        assert_eq!(long(HEALTH_NAME_BYTES_MAX + 1), Err(Breach::Backend(pool(), HEALTH_NAME_BYTES_MAX + 1)));
        let said_by = |proxies| changed(|report| report.unhealthy[0].proxies = proxies).map(drop);
        assert_eq!(said_by(12), Ok(()));
        assert_eq!([said_by(0), said_by(13)], [0, 1].map(|_| Err(Breach::UnhealthyCounts(pool()))));
        let twice = changed(|report| report.unhealthy[1] = report.unhealthy[0].clone());
        assert_eq!(twice, Err(Breach::UnhealthyCounts(pool())));
        let reason = "x".repeat(HEALTH_REASON_BYTES_MAX + 1);
        let (_, read) = changed(|report| report.unhealthy[0].reason = reason).expect("cut");
        assert!(read.unhealthy.values().any(|is| is.reason.len() == HEALTH_REASON_BYTES_MAX));
    }

    #[test]
    fn the_longest_report_fits_a_message() {
        let long = unhealthy(UNHEALTHY_NAMED_MAX, &"b".repeat(HEALTH_NAME_BYTES_MAX - 3));
        let long = long.keys().map(|name| {
            let name = BackendName { set: "s".repeat(HEALTH_NAME_BYTES_MAX).into(), ..name.clone() };
            (name, Unhealthy { reason: "r".repeat(HEALTH_REASON_BYTES_MAX).into(), proxies: u32::MAX })
        });
        let mut summary = PoolSummary { unhealthy: Arc::new(long.collect()), ..summary() };
        for (proxy, refusal) in &mut summary.refusals {
            *proxy = "p".repeat(PROXY_BYTES_MAX).into();
            refusal.field = "f".repeat(REFUSAL_BYTES_MAX);
            refusal.reason = "r".repeat(REFUSAL_BYTES_MAX);
        }
        let bytes = report(&"p".repeat(POOL_BYTES_MAX), &summary).encoded_len();
        assert!(bytes < weir_proto::limits::MESSAGE_BYTES_MAX, "{bytes}");
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let reason = format!("{}é", "x".repeat(REFUSAL_BYTES_MAX - 1));
        let (_, read) = changed(|report| report.refusals[0].reason = reason).expect("cut");
        assert_eq!(read.refusals[0].1.reason.len(), REFUSAL_BYTES_MAX - 1);
    }
}

//! Reports as messages, and back: what a replica says is checked before it counts.

use crate::store::{PoolSummary, REFUSALS_MAX, Refusal};
use std::sync::Arc;
use std::time::Duration;
use weir_proto::limits::PROXY_ID_BYTES_MAX;
use weir_proto::push::replica_message::Body;
use weir_proto::push::{PoolReport, Refused, ReplicaHello, ReplicaMessage};

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
}

pub(super) fn hello(replica: &str) -> ReplicaMessage {
    let hello =
        ReplicaHello { replica_id: replica.to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
    ReplicaMessage { body: Some(Body::Hello(hello)) }
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
    let report = PoolReport {
        pool: pool.to_owned(),
        proxies: summary.proxies,
        current: summary.current,
        lag_us: summary.oldest_lag.map(|lag| u64::try_from(lag.as_micros()).unwrap_or(u64::MAX)),
        refused: summary.refused,
        refusals: refusals.collect(),
        too_large_bytes: summary.too_large_bytes,
        config_digest: summary.config_digest,
    };
    ReplicaMessage { body: Some(Body::Pool(report)) }
}

/// What a message after the first says, and of which pool.
pub(super) fn read_report(message: ReplicaMessage) -> Result<(Arc<str>, PoolSummary), Breach> {
    let Some(Body::Pool(report)) = message.body else { return Err(Breach::Unknown) };
    let PoolReport { pool, proxies, current, lag_us, refused, refusals, too_large_bytes, config_digest } =
        report;
    if pool.is_empty() || pool.len() > POOL_BYTES_MAX {
        return Err(Breach::Pool(pool.len()));
    }
    if u64::from(current) + u64::from(refused) > u64::from(proxies) {
        return Err(Breach::Counts(pool));
    }
    if refusals.len() > REFUSALS_MAX {
        return Err(Breach::Refusals(pool, refusals.len()));
    }
    if let Some(bytes) = refusals.iter().map(|refused| refused.proxy.len()).find(|b| *b > PROXY_BYTES_MAX) {
        return Err(Breach::Proxy(pool, bytes));
    }
    let refusals = refusals.into_iter().map(|refused| {
        let Refused { proxy, version, field, reason } = refused;
        let [field, reason] = [field, reason].map(|text| within(&text, REFUSAL_BYTES_MAX));
        (proxy.into(), Refusal { version, field, reason })
    });
    let summary = PoolSummary {
        proxies,
        current,
        oldest_lag: lag_us.map(Duration::from_micros),
        refused,
        refusals: refusals.collect(),
        too_large_bytes,
        config_digest,
    };
    Ok((pool.into(), summary))
}

/// The beginning of a text, in whole characters.
fn within(text: &str, bytes_max: usize) -> String {
    text[..text.floor_char_boundary(bytes_max)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
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
            refused: 9,
            refusals: (0..REFUSALS_MAX).map(refusal).collect(),
            too_large_bytes: Some(1 << 27),
            config_digest: 42,
        }
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
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let reason = format!("{}é", "x".repeat(REFUSAL_BYTES_MAX - 1));
        let (_, read) = changed(|report| report.refusals[0].reason = reason).expect("cut");
        assert_eq!(read.refusals[0].1.reason.len(), REFUSAL_BYTES_MAX - 1);
    }
}

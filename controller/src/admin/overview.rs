//! What this process knows of pools and proxies, as JSON: for `weir status`, and for whoever asks.
//!
//! Read only, in pages of bounded size. Nothing here waits for anyone, and others run between two pieces.

use super::compiled;
use crate::compile::ObjectKey;
use crate::status::{Board, compute};
use crate::store::{FleetCounts, Lack, ProxyRow, Reach, Store, Took};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Pools on one page.
pub const POOLS_LISTED_MAX: usize = 500;

/// Pools that are summed up before others may run.
const POOLS_AT_ONCE: usize = 32;

/// Path of the pools.
pub const POOLS: &str = "/api/v1/pools";
/// Path of the proxies.
pub const PROXIES: &str = "/api/v1/proxies";
/// Path of what proxies are sent.
pub const COMPILED: &str = "/api/v1/compiled";

/// What the pages are made of.
#[derive(Debug)]
pub struct Overview {
    replica: String,
    store: Arc<Store>,
    board: Arc<Board>,
}

impl Overview {
    /// The paths that [`Self::page`] answers. Each takes `?after=NAME`, which a page names as its `next` where there are
    /// more.
    pub const PATHS: [&str; 3] = [POOLS, PROXIES, COMPILED];

    /// Over one process, which calls itself `replica`.
    #[must_use]
    pub fn new(replica: String, store: Arc<Store>, board: Arc<Board>) -> Self {
        Self { replica, store, board }
    }

    /// The page at a path with its query; `None` where there is none.
    pub async fn page(&self, path: &str, query: Option<&str>) -> Option<Value> {
        let after = query.and_then(after);
        match path {
            POOLS => Some(self.pools(after.as_deref()).await),
            PROXIES => Some(self.proxies(after.as_deref()).await),
            COMPILED => Some(compiled::page(&self.replica, &self.store, after.as_deref()).await),
            _ => None,
        }
    }

    /// Each pool with the status that an object of its would have now, in the order of the keys.
    async fn pools(&self, after: Option<&str>) -> Value {
        let after = after.and_then(|after| after.split_once('/'));
        let after = after.map(|(namespace, name)| ObjectKey::new(namespace, name));
        let mut keys = self.board.keys();
        keys.retain(|key| after.as_ref().is_none_or(|after| key > after));
        let next = (keys.len() > POOLS_LISTED_MAX).then(|| keys[POOLS_LISTED_MAX - 1].to_string());
        keys.truncate(POOLS_LISTED_MAX);
        let mut pools = Vec::with_capacity(keys.len());
        for some in keys.chunks(POOLS_AT_ONCE) {
            pools.extend(some.iter().filter_map(|key| self.pool(key)));
            tokio::task::yield_now().await;
        }
        json!({ "replica": self.replica, "pools": pools, "next": next })
    }

    fn pool(&self, key: &ObjectKey) -> Option<Value> {
        let verdict = self.board.verdict(key)?;
        let summary = self.store.summary(&key.to_string(), Reach::All);
        let mut status = json!(compute(&verdict, &summary, verdict.shown.as_ref(), Timestamp::now()));
        if verdict.shown.is_none() {
            // Since when a condition holds is kept in the object; without one nobody knows.
            for condition in status["conditions"].as_array_mut().into_iter().flatten() {
                condition.as_object_mut().map(|condition| condition.remove("lastTransitionTime"));
            }
        }
        let version = self.store.pool(&key.to_string()).map(|pool| pool.version);
        Some(json!({
            "namespace": key.namespace,
            "name": key.name,
            "generation": verdict.generation,
            // The epoch is a 64-bit number, which JSON readers round.
            "version": version.map(|v| json!({ "epoch": format!("{:016x}", v.epoch), "sequence": v.sequence })),
            "status": status,
        }))
    }

    async fn proxies(&self, after: Option<&str>) -> Value {
        let page = self.store.proxies(after).await;
        let rows: Vec<_> = page.rows.iter().map(proxy).collect();
        json!({ "replica": self.replica, "proxies": rows, "next": page.next.as_deref() })
    }
}

fn proxy(row: &ProxyRow) -> Value {
    let ProxyRow { proxy, identity, stream_age, sent_bytes, pools, current, lag, .. } = row;
    let FleetCounts { acks, nacks, snapshot_requests, divergences, too_large } = row.counts;
    let lacks = row.lacks.iter().map(|Lack { pool, lag, acknowledged, newest }| {
        json!({ "pool": &**pool, "lag_seconds": seconds(*lag), "acknowledged": acknowledged, "newest": newest })
    });
    let propagation = row.took.map(|Took { last, p50, p99, longest, count }| {
        json!({
            "changes": count,
            "last_seconds": seconds(last),
            "p50_seconds": seconds(p50),
            "p99_seconds": seconds(p99),
            "longest_seconds": seconds(longest),
        })
    });
    let last_nack = row.last_refusal.as_ref().map(|(pool, refusal, ago)| {
        let (field, reason) = (&refusal.field, &refusal.reason);
        let sequence = refusal.version.map(|version| version.sequence);
        json!({ "pool": &**pool, "field": field, "reason": reason, "sequence": sequence, "seconds_ago": seconds(*ago) })
    });
    json!({
        "proxy": &**proxy,
        "identity": &**identity,
        "stream_age_seconds": seconds(*stream_age),
        "sent_bytes": sent_bytes,
        "pools": pools,
        "current": current,
        "behind": pools.saturating_sub(*current),
        "refused": row.refused,
        "lag_seconds": lag.map(seconds),
        "lacks": lacks.collect::<Vec<_>>(),
        "propagation": propagation,
        "last_nack": last_nack,
        "acks": acks,
        "nacks": nacks,
        "snapshot_requests": snapshot_requests,
        "divergences": divergences,
        "too_large": too_large,
    })
}

/// To the microsecond.
fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e6
}

/// The value of `after` in a query, with its `%2F`: what it names has letters, digits, `-`, `.` and `/` alone.
fn after(query: &str) -> Option<String> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix("after="))?;
    Some(value.replace("%2F", "/").replace("%2f", "/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Verdict;
    use crate::store::Store;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    fn overview(pools: usize) -> Overview {
        let board = Board::default();
        for n in 0..pools {
            let name = format!("p-{n:04}");
            let metadata = ObjectMeta {
                namespace: Some("ns".into()),
                name: Some(name.clone()),
                generation: Some(3),
                ..ObjectMeta::default()
            };
            board.set(ObjectKey::new("ns", name), Verdict::malformed(&metadata, "is no pool"));
        }
        Overview::new("replica-0".into(), Store::new(1), Arc::new(board))
    }

    #[tokio::test]
    async fn a_pool_has_the_status_that_its_object_would_have_and_no_time_that_nobody_knows() {
        let page = overview(1).page("/api/v1/pools", None).await.expect("a page");
        assert_eq!((&page["replica"], &page["next"]), (&json!("replica-0"), &Value::Null));
        let pool = &page["pools"][0];
        assert_eq!((&pool["name"], &pool["generation"]), (&json!("p-0000"), &json!(3)));
        assert_eq!(pool["status"]["summary"]["state"], "Invalid");
        let condition = &pool["status"]["conditions"][0];
        assert_eq!((&condition["reason"], condition.get("lastTransitionTime")), (&json!("Invalid"), None));
    }

    #[tokio::test]
    async fn what_is_past_a_page_is_on_the_next_one() {
        let overview = overview(POOLS_LISTED_MAX + 1);
        let first = overview.page("/api/v1/pools", None).await.expect("a page");
        assert_eq!(first["pools"].as_array().map(Vec::len), Some(POOLS_LISTED_MAX));
        assert_eq!(first["next"], "ns/p-0499");
        for query in ["after=ns/p-0499", "x=y&after=ns%2Fp-0499"] {
            let second = overview.page("/api/v1/pools", Some(query)).await.expect("a page");
            assert_eq!((&second["pools"][0]["name"], &second["next"]), (&json!("p-0500"), &Value::Null));
        }
    }

    #[tokio::test]
    async fn there_are_no_proxies_before_one_dials_and_no_other_pages() {
        let overview = overview(0);
        let page = overview.page("/api/v1/proxies", None).await.expect("a page");
        assert_eq!(page, json!({ "replica": "replica-0", "proxies": [], "next": null }));
        assert_eq!(overview.page("/api/v1/backends", None).await, None);
    }
}

//! What is known of pools and proxies, and whether all is well. Pure.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Pools with their proxies.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// By namespace and name.
    pub(super) pools: Vec<Pool>,
    /// By name and replica; `None` where no replica was asked.
    pub(super) proxies: Option<Vec<Proxy>>,
}

/// A pool, as an API server or a controller tells of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Pool {
    pub(super) namespace: String,
    pub(super) name: String,
    #[serde(default)]
    pub(super) generation: i64,
    /// `None` where no controller has looked at it.
    pub(super) status: Option<Status>,
}

/// What of a pool's status is shown, by the names of the resource.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Status {
    pub(super) observed_generation: Option<i64>,
    pub(super) endpoints: Option<Value>,
    pub(super) programmed: Option<Programmed>,
    pub(super) conditions: Vec<Condition>,
    pub(super) summary: Summary,
}

/// What the proxies run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Programmed {
    pub(super) proxies: u32,
    pub(super) current: u32,
    pub(super) oldest_lag: Option<String>,
    pub(super) config_version: String,
}

/// One condition.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Condition {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) status: String,
    pub(super) reason: String,
    pub(super) message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_transition_time: Option<String>,
}

/// The columns.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Summary {
    pub(super) ready: Option<String>,
    pub(super) proxies: Option<String>,
    pub(super) state: Option<String>,
    pub(super) lag: Option<String>,
    pub(super) message: Option<String>,
}

/// A proxy, as its replica tells of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Proxy {
    pub(super) proxy: String,
    /// That it has its stream to.
    pub(super) replica: String,
    pub(super) identity: String,
    pub(super) stream_age_seconds: f64,
    pub(super) sent_bytes: u64,
    pub(super) pools: u32,
    pub(super) current: u32,
    pub(super) behind: u32,
    pub(super) refused: u32,
    pub(super) lag_seconds: Option<f64>,
    pub(super) lacks: Vec<Lack>,
    pub(super) propagation: Option<Propagation>,
    pub(super) last_nack: Option<Nack>,
    pub(super) acks: u64,
    pub(super) nacks: u64,
    pub(super) snapshot_requests: u64,
    pub(super) divergences: u64,
    pub(super) too_large: u64,
}

/// A pool that a proxy is behind on.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Lack {
    pub(super) pool: String,
    pub(super) lag_seconds: f64,
    pub(super) acknowledged: u64,
    pub(super) newest: u64,
}

/// What the newest changes took to a proxy.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Propagation {
    pub(super) changes: u64,
    pub(super) last_seconds: f64,
    pub(super) p50_seconds: f64,
    pub(super) p99_seconds: f64,
    pub(super) longest_seconds: f64,
}

/// What a proxy refused last.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Nack {
    pub(super) pool: String,
    pub(super) field: String,
    pub(super) reason: String,
    pub(super) sequence: Option<u64>,
    pub(super) seconds_ago: f64,
}

/// A pool that was asked for and is not there.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no LoadBalancerPool {0}: weir status without a name lists those that there are, -A those of all namespaces"
)]
pub(super) struct Unknown(pub(super) String);

impl Report {
    /// In the order in which it is shown; a pool or a proxy that two replicas tell of is there once, as the first said.
    pub(super) fn new(mut pools: Vec<Pool>, mut proxies: Option<Vec<Proxy>>) -> Self {
        pools.sort_by(|a, b| a.key().cmp(&b.key()));
        pools.dedup_by(|a, b| a.key() == b.key());
        if let Some(proxies) = &mut proxies {
            proxies.sort_by(|a, b| (&a.proxy, &a.replica).cmp(&(&b.proxy, &b.replica)));
            proxies.dedup_by(|a, b| (&a.proxy, &a.replica) == (&b.proxy, &b.replica));
        }
        Self { pools, proxies }
    }

    /// Leaves the pools of a namespace, or these alone (`namespace`, `name`), where any are named.
    ///
    /// # Errors
    /// [`Unknown`] for one that is not there.
    pub(super) fn select(
        mut self,
        namespace: Option<&str>,
        named: &[(Option<String>, String)],
    ) -> Result<Self, Unknown> {
        let is = |pool: &Pool, (of, name): &(Option<String>, String)| {
            pool.name == *name && of.as_deref().or(namespace).is_none_or(|of| pool.namespace == of)
        };
        if let Some((of, name)) = named.iter().find(|named| !self.pools.iter().any(|pool| is(pool, named))) {
            let of = of.as_deref().or(namespace);
            return Err(Unknown(of.map_or_else(|| name.clone(), |of| format!("{of}/{name}"))));
        }
        self.pools.retain(|pool| match named {
            [] => namespace.is_none_or(|of| pool.namespace == of),
            _ => named.iter().any(|named| is(pool, named)),
        });
        Ok(self)
    }

    /// Whether every pool is programmed and none is degraded.
    pub(super) fn is_good(&self) -> bool {
        self.pools.iter().all(Pool::is_good)
    }

    /// For programs: the same fields as the sources have, and `ok` for the whole and for each pool.
    pub(super) fn json(&self) -> Value {
        let pools = self.pools.iter().map(|pool| {
            let mut shown = json!(pool);
            shown["ok"] = pool.is_good().into();
            shown
        });
        json!({ "ok": self.is_good(), "pools": pools.collect::<Vec<_>>(), "proxies": self.proxies })
    }
}

impl Pool {
    fn key(&self) -> (&str, &str) {
        (&self.namespace, &self.name)
    }

    /// Programmed, not degraded, and of the newest generation.
    pub(super) fn is_good(&self) -> bool {
        let Some(status) = &self.status else { return false };
        let says = |kind: &str, word: &str| {
            status.conditions.iter().any(|condition| condition.kind == kind && condition.status == word)
        };
        let is_newest = status.observed_generation.is_none_or(|observed| observed >= self.generation);
        is_newest && says("Programmed", "True") && says("Degraded", "False")
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::status) fn pool(name: &str, programmed: &str, degraded: &str) -> Pool {
        let pool = json!({
            "namespace": "shop",
            "name": name,
            "generation": 3,
            "status": {
                "observedGeneration": 3,
                "programmed": { "proxies": 2, "current": 1, "oldestLag": "6s", "configVersion": "00ab" },
                "conditions": [
                    { "type": "Programmed", "status": programmed, "reason": "Pending", "message": "1 of 2" },
                    { "type": "Degraded", "status": degraded, "reason": "ProxyBehind", "message": "b for 6s" },
                ],
                "summary": {
                    "ready": "2/3",
                    "proxies": "1/2",
                    "state": if degraded == "True" { "ProxyBehind" } else { "Programmed" },
                    "lag": "6s",
                    "message": "1 of 2 proxies are behind",
                },
            },
        });
        serde_json::from_value(pool).expect("a pool")
    }

    #[test]
    fn all_is_well_when_every_pool_is_programmed_and_not_degraded_in_its_newest_generation() {
        for (programmed, degraded, is_good) in [
            ("True", "False", true),
            ("True", "True", false),
            ("False", "False", false),
            ("True", "Unknown", false),
        ] {
            assert_eq!(pool("p", programmed, degraded).is_good(), is_good, "{programmed} {degraded}");
        }
        let older = Pool { generation: 4, ..pool("p", "True", "False") };
        let unseen = Pool { status: None, ..pool("p", "True", "False") };
        assert!(!older.is_good() && !unseen.is_good());
        let report = Report::new(vec![pool("a", "True", "False"), unseen], None);
        assert_eq!((report.is_good(), &report.json()["ok"]), (false, &json!(false)));
        assert!(Report::default().is_good());
    }

    #[test]
    fn pools_are_chosen_by_name_and_namespace_and_one_that_is_not_there_is_named() {
        let other = Pool { namespace: "other".into(), ..pool("b", "True", "False") };
        let all = || vec![pool("b", "True", "False"), pool("a", "True", "False"), other.clone()];
        let chosen = |namespace: Option<&str>, named: &[(Option<&str>, &str)]| {
            let named: Vec<_> =
                named.iter().map(|(of, name)| (of.map(str::to_owned), (*name).to_owned())).collect();
            let report = Report::new(all(), None).select(namespace, &named)?;
            Ok(report
                .pools
                .iter()
                .map(|pool| format!("{}/{}", pool.namespace, pool.name))
                .collect::<Vec<_>>())
        };
        let ok = |names: &[&str]| Ok(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(chosen(None, &[]), ok(&["other/b", "shop/a", "shop/b"]));
        assert_eq!(chosen(Some("shop"), &[]), ok(&["shop/a", "shop/b"]));
        assert_eq!(chosen(Some("shop"), &[(None, "b")]), ok(&["shop/b"]));
        assert_eq!(chosen(None, &[(None, "b")]), ok(&["other/b", "shop/b"]));
        assert_eq!(chosen(Some("shop"), &[(Some("other"), "b"), (None, "a")]), ok(&["other/b", "shop/a"]));
        assert_eq!(chosen(Some("shop"), &[(None, "x")]), Err(Unknown("shop/x".into())));
        assert_eq!(chosen(None, &[(Some("other"), "a")]), Err(Unknown("other/a".into())));
    }

    #[test]
    fn what_two_replicas_tell_of_is_there_once() {
        let proxy = |name: &str, replica: &str| Proxy {
            proxy: name.into(),
            replica: replica.into(),
            ..Proxy::default()
        };
        let pools = vec![pool("a", "True", "False"), pool("a", "False", "True")];
        let proxies = vec![proxy("b", "r1"), proxy("a", "r2"), proxy("b", "r1")];
        let report = Report::new(pools, Some(proxies));
        assert_eq!((report.pools.len(), report.is_good()), (1, true), "as the first said");
        assert_eq!(report.proxies.map(|proxies| proxies.len()), Some(2));
    }
}

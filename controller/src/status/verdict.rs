//! What the compile step made of one pool, as far as its status tells.

use super::health::Members;
use crate::compile::{ObjectKey, Reason, Rejection, Validity, Warning, World};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use weir_crds::{LoadBalancerPool, LoadBalancerPoolStatus};
use weir_proto::push::{Backend, BackendState};

/// What the compile step made of one generation of one pool.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// The pool.
    pub key: ObjectKey,
    /// Of the object, so that nothing is written to its successor of the same name.
    pub uid: Option<String>,
    /// That was looked at.
    pub generation: i64,
    /// Everything that is wrong with it; empty where it is accepted.
    pub rejections: Vec<Rejection>,
    /// What it points to that is not there or not usable.
    pub warnings: Vec<Warning>,
    /// What the proxies are to run: this generation if it is accepted, or else what an earlier one said. `None` where
    /// nothing of it can be served.
    pub serving: Option<Serving>,
    /// The status that the object had when it was looked at.
    pub shown: Option<LoadBalancerPoolStatus>,
}

/// What the proxies are to run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Serving {
    /// Of the configuration.
    pub config_digest: u64,
    /// Behind it.
    pub endpoints: Endpoints,
    /// The same one by one, to find those in that proxies speak of.
    pub members: Members,
    /// For how long its certificates are valid, by Secret.
    pub validities: Arc<BTreeMap<String, Validity>>,
}

/// Backends of all sets of a pool; one that two sets share counts once, by the better of its states.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// Ready and draining.
    pub total: usize,
    /// Take requests, as the cluster says.
    pub ready: usize,
    /// End, and take requests only when no other can.
    pub draining: usize,
    /// Ready ones by zone, where it is known.
    pub zones: BTreeMap<String, usize>,
    /// Sets without a backend, of rules that have no other: their requests are answered 503.
    pub starved: BTreeSet<String>,
}

impl Verdict {
    /// Of a pool that was part of what `world` was compiled from.
    #[must_use]
    pub fn of(pool: &LoadBalancerPool, world: &World) -> Self {
        let verdict = Self::new(&pool.metadata);
        let rejections = world.rejections.get(&verdict.key).cloned().unwrap_or_default();
        Self { rejections, ..verdict }.serving(world).showing(pool.status.clone())
    }

    /// Of an object that cannot be read as a pool; `sentence` says why. Nothing of it is served, unless
    /// [`Self::serving`] finds what it said before.
    #[must_use]
    pub fn malformed(metadata: &ObjectMeta, sentence: impl Into<String>) -> Self {
        let verdict = Self::new(metadata);
        let rejection = Rejection {
            pool: verdict.key.clone(),
            field: String::new(),
            value: String::new(),
            rule: sentence.into(),
            reason: Reason::Invalid,
        };
        Self { rejections: vec![rejection], ..verdict }
    }

    /// With what `world` serves of the pool.
    #[must_use]
    pub fn serving(self, world: &World) -> Self {
        let Some(pool) = world.serving(&self.key) else { return self };
        let members = Members::of(pool);
        let endpoints = Endpoints::of(&members);
        let validities = Arc::clone(&pool.validities);
        let serving = Serving { config_digest: pool.config_digest, endpoints, members, validities };
        Self { serving: Some(serving), warnings: pool.warnings().cloned().collect(), ..self }
    }

    /// With the status that the object has.
    #[must_use]
    pub fn showing(self, shown: Option<LoadBalancerPoolStatus>) -> Self {
        Self { shown, ..self }
    }

    fn new(metadata: &ObjectMeta) -> Self {
        let namespace = metadata.namespace.as_deref().unwrap_or(crate::compile::DEFAULT_NAMESPACE);
        Self {
            key: ObjectKey::new(namespace, metadata.name.clone().unwrap_or_default()),
            uid: metadata.uid.clone(),
            generation: metadata.generation.unwrap_or_default(),
            rejections: Vec::new(),
            warnings: Vec::new(),
            serving: None,
            shown: None,
        }
    }
}

impl Endpoints {
    pub(super) fn of(members: &Members) -> Self {
        let mut known: BTreeMap<&str, &Backend> = BTreeMap::new();
        for backend in members.backends() {
            let known = known.entry(&backend.id).or_insert(backend);
            if known.state() != BackendState::Ready {
                *known = backend;
            }
        }
        let (ready, draining): (Vec<&Backend>, Vec<&Backend>) =
            known.values().copied().partition(|backend| backend.state() == BackendState::Ready);
        let mut zones = BTreeMap::new();
        for backend in ready.iter().filter(|backend| !backend.zone.is_empty()) {
            *zones.entry(backend.zone.clone()).or_default() += 1;
        }
        Self {
            total: known.len(),
            ready: ready.len(),
            draining: draining.len(),
            zones,
            starved: members.starved(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::{Objects, world};
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn pool(rules: &Value, sets: &Value) -> LoadBalancerPool {
        let pool = json!({
            "apiVersion": "weir.dev/v1alpha1",
            "kind": "LoadBalancerPool",
            "metadata": {"namespace": "ns", "name": "p", "uid": "u", "generation": 5},
            "spec": {
                "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}],
                "rules": rules,
                "backendSets": sets,
            },
            "status": {"observedGeneration": 4},
        });
        serde_json::from_value(pool).expect("a pool")
    }

    fn compiled(pool: &LoadBalancerPool, previous: Option<&World>) -> World {
        let mut objects = Objects::default();
        objects.pools.insert(ObjectKey::new("ns", "p"), Arc::new(pool.clone()));
        world(&objects, previous)
    }

    fn written(addresses: &[&str]) -> Value {
        let backends: Vec<_> = addresses.iter().map(|ip| json!({"address": ip, "port": 80})).collect();
        json!({"backends": backends})
    }

    #[test]
    fn an_accepted_pool_has_its_generation_its_backends_once_and_what_it_showed() {
        let sets = json!([
            {"name": "a", "static": written(&["10.0.0.1", "10.0.0.2"])},
            {"name": "b", "static": written(&["10.0.0.2", "10.0.0.3"])},
        ]);
        let pool = pool(&json!([{"backendSets": [{"name": "a"}, {"name": "b"}]}]), &sets);
        let world = compiled(&pool, None);
        let verdict = Verdict::of(&pool, &world);
        assert_eq!((verdict.generation, verdict.uid.as_deref()), (5, Some("u")));
        assert_eq!((&verdict.rejections, &verdict.warnings), (&Vec::new(), &Vec::new()));
        assert_eq!(verdict.shown.and_then(|shown| shown.observed_generation), Some(4));
        let serving = verdict.serving.expect("accepted");
        assert_eq!((serving.endpoints.total, serving.endpoints.ready), (3, 3), "one is in both sets");
        assert_eq!(serving.config_digest, world.pools[&verdict.key].config_digest);
    }

    #[test]
    fn a_rejected_pool_has_what_it_said_before_and_one_without_a_past_nothing() {
        let good = pool(&json!([]), &json!([{"name": "a", "static": written(&["10.0.0.1"])}]));
        let bad = pool(&json!([]), &json!([{"name": "a", "static": written(&["not an address"])}]));
        let before = compiled(&good, None);
        let verdict = Verdict::of(&bad, &compiled(&bad, Some(&before)));
        assert_eq!(verdict.rejections.len(), 1);
        assert_eq!(verdict.serving.map(|serving| serving.endpoints.total), Some(1));
        assert_eq!(Verdict::of(&bad, &compiled(&bad, None)).serving, None);
        let malformed = Verdict::malformed(&bad.metadata, "spec.listeners: is not a list");
        assert_eq!((malformed.serving.is_none(), malformed.rejections[0].reason), (true, Reason::Invalid));
        assert!(Verdict::malformed(&bad.metadata, "no").serving(&before).serving.is_some());
    }

    #[test]
    fn a_rule_is_starved_when_no_set_of_it_has_a_backend() {
        let sets = json!([
            {"name": "full", "static": written(&["10.0.0.1"])},
            {"name": "empty", "static": written(&[])},
            {"name": "unused", "static": written(&[])},
        ]);
        let starved = |rules: Value| {
            let pool = pool(&rules, &sets);
            let serving = Verdict::of(&pool, &compiled(&pool, None)).serving;
            serving.expect("accepted").endpoints.starved.into_iter().collect::<Vec<_>>()
        };
        let shared = json!([{"backendSets": [{"name": "full"}, {"name": "empty"}]}]);
        assert_eq!(starved(shared), [""; 0], "the full one takes the share");
        let alone = json!([{"backendSets": [{"name": "full", "weight": 0}, {"name": "empty"}]}]);
        assert_eq!(starved(alone), ["empty"]);
    }

    #[test]
    fn a_missing_service_is_a_warning_and_an_empty_pool() {
        let sets = json!([{"name": "a", "service": {"name": "web", "port": 80}}]);
        let pool = pool(&json!([{"backendSets": [{"name": "a"}]}]), &sets);
        let verdict = Verdict::of(&pool, &compiled(&pool, None));
        assert_eq!(verdict.warnings[0].reason, Reason::BackendNotFound);
        assert_eq!(verdict.serving.map(|serving| serving.endpoints.total), Some(0));
    }
}

//! Objects as the API server sends them into what the compile step reads.
//!
//! What can be large and is never looked at goes before anything is kept: managedFields are often half of an object,
//! and `kubectl apply` keeps a second copy of it, keys of Secrets included, in an annotation.

use crate::compile::pool::key_of;
use crate::compile::{ObjectKey, ReferenceGrant, SelectedPod, World};
use crate::status::Verdict;
use k8s_openapi::api::core::v1::{self as core, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::DynamicObject;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::sync::Arc;
use weir_crds::{LoadBalancerPool, LoadBalancerPoolStatus};

/// Where `kubectl apply` keeps what was applied.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// One object that was read, or why it was not.
#[derive(Clone, PartialEq)]
pub enum Item {
    /// A pool.
    Pool(Arc<LoadBalancerPool>),
    /// A Service.
    Service(Arc<Service>),
    /// An EndpointSlice.
    Slice(Arc<EndpointSlice>),
    /// A grant.
    Grant(Arc<ReferenceGrant>),
    /// A Secret.
    Secret(Arc<Secret>),
    /// Of a pod hardly anything is kept, and its name is not in it.
    Pod(ObjectKey, Arc<SelectedPod>),
    /// Of the watch's kind, and not to be read.
    Malformed(Arc<Malformed>),
}

/// An object of one of our kinds that is not what the kind says: written while another definition was installed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Malformed {
    /// Of the object.
    pub metadata: ObjectMeta,
    /// Like `spec.listeners[0].port`.
    pub field: String,
    /// What is wrong there.
    pub sentence: String,
    /// For whoever writes the next one.
    pub status: Option<LoadBalancerPoolStatus>,
}

pub(crate) fn pool(mut object: DynamicObject) -> Item {
    trim(&mut object.metadata);
    let mut metadata = object.metadata;
    metadata.namespace = Some(key_of(&metadata).namespace);
    let field = |name: &str| object.data.get(name).cloned().unwrap_or(Value::Null);
    // Written by us, so that one that cannot be read is replaced and is no reason to refuse the pool.
    let status = serde_json::from_value(field("status")).ok();
    match parse("spec", field("spec")) {
        Ok(spec) => Item::Pool(Arc::new(LoadBalancerPool { metadata, spec, status })),
        Err((field, sentence)) => Item::Malformed(Arc::new(Malformed { metadata, field, sentence, status })),
    }
}

pub(crate) fn grant(mut object: DynamicObject) -> Item {
    trim(&mut object.metadata);
    let metadata = object.metadata;
    match parse("spec", object.data.get("spec").cloned().unwrap_or(Value::Null)) {
        Ok(spec) => Item::Grant(Arc::new(ReferenceGrant { metadata, spec })),
        Err((field, sentence)) => {
            Item::Malformed(Arc::new(Malformed { metadata, field, sentence, status: None }))
        }
    }
}

pub(crate) fn service(mut service: Service) -> Item {
    trim(&mut service.metadata);
    // The addresses of load balancers in front of us change without meaning anything here.
    service.status = None;
    Item::Service(Arc::new(service))
}

pub(crate) fn slice(mut slice: EndpointSlice) -> Item {
    trim(&mut slice.metadata);
    // Changes with every pod; a kept slice is equal to the next one only without it.
    slice.metadata.annotations = None;
    Item::Slice(Arc::new(slice))
}

pub(crate) fn secret(mut secret: Secret) -> Item {
    trim(&mut secret.metadata);
    Item::Secret(Arc::new(secret))
}

#[allow(clippy::needless_pass_by_value, reason = "watches hand objects over, and this one ends here")]
pub(crate) fn selected_pod(pod: core::Pod) -> Item {
    Item::Pod(key_of(&pod.metadata), Arc::new(SelectedPod::of(&pod)))
}

impl Malformed {
    /// Whether the difference is beside what is wrong: in a generation, a status.
    pub(crate) fn is_as_wrong_as(&self, other: &Self) -> bool {
        (&self.metadata.uid, &self.field, &self.sentence)
            == (&other.metadata.uid, &other.field, &other.sentence)
    }

    /// What is to be said of it, where `world` serves what it said before.
    pub(crate) fn verdict(&self, world: &World) -> Verdict {
        let sentence = format!("{} {}", self.field, self.sentence);
        Verdict::malformed(&self.metadata, sentence).serving(world).showing(self.status.clone())
    }
}

impl Item {
    pub(crate) fn key(&self) -> ObjectKey {
        key_of(match self {
            Self::Pod(key, _) => return key.clone(),
            Self::Pool(object) => &object.metadata,
            Self::Service(object) => &object.metadata,
            Self::Slice(object) => &object.metadata,
            Self::Grant(object) => &object.metadata,
            Self::Secret(object) => &object.metadata,
            Self::Malformed(object) => &object.metadata,
        })
    }
}

impl std::fmt::Debug for Item {
    /// The name only: a Secret must not reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Item({})", self.key())
    }
}

fn trim(metadata: &mut ObjectMeta) {
    metadata.managed_fields = None;
    // Differs where nothing that we read does: a status of our own, for one.
    metadata.resource_version = None;
    if let Some(annotations) = &mut metadata.annotations {
        annotations.remove(LAST_APPLIED);
        if annotations.is_empty() {
            metadata.annotations = None;
        }
    }
}

/// The value of a field as a type, or the field within it that is wrong and why.
fn parse<T: DeserializeOwned>(name: &str, value: Value) -> Result<T, (String, String)> {
    if value.is_null() {
        return Err((name.to_owned(), "is missing: write it".to_owned()));
    }
    serde_path_to_error::deserialize(value).map_err(|error| {
        let field = match error.path().iter().next() {
            Some(_) => format!("{name}.{}", error.path()),
            None => name.to_owned(),
        };
        let cause = error.into_inner();
        (field, format!("cannot be read ({cause}): write it as the definition that is installed says"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(spec: &Value) -> DynamicObject {
        let object = json!({
            "apiVersion": "weir.dev/v1alpha1",
            "kind": "LoadBalancerPool",
            "metadata": {
                "name": "p", "namespace": "ns", "resourceVersion": "7",
                "managedFields": [{ "manager": "kubectl" }],
                "annotations": { LAST_APPLIED: "{}", "own": "kept" },
            },
            "spec": spec,
            "status": { "observedGeneration": "not a number" },
        });
        serde_json::from_value(object).expect("an object")
    }

    #[test]
    fn a_pool_is_read_without_what_nobody_looks_at() {
        let spec = json!({
            "listeners": [{ "name": "l", "port": 80, "protocol": "HTTP" }],
            "backendSets": [{ "name": "s", "static": { "backends": [] } }],
        });
        let Item::Pool(pool) = pool(object(&spec)) else { panic!("it is right") };
        assert_eq!(pool.spec.listeners[0].port, 80);
        assert_eq!(pool.metadata.managed_fields, None);
        let annotations = pool.metadata.annotations.as_ref().expect("one is left");
        assert_eq!(annotations.keys().collect::<Vec<_>>(), ["own"]);
        assert_eq!(pool.status, None, "a status that cannot be read costs nothing");
    }

    #[test]
    fn a_malformed_pool_is_named_with_its_field() {
        let refused = |spec: &Value| match pool(object(spec)) {
            Item::Malformed(malformed) => (malformed.field.clone(), malformed.sentence.clone()),
            other => panic!("{other:?} is malformed"),
        };
        let listeners = json!({ "listeners": [{ "name": "l", "port": "eighty", "protocol": "HTTP" }] });
        let (field, sentence) = refused(&listeners);
        assert_eq!(field, "spec.listeners[0].port");
        assert!(sentence.contains("eighty"), "{sentence}");
        assert_eq!(refused(&json!("text")).0, "spec");
        assert_eq!(refused(&Value::Null), ("spec".into(), "is missing: write it".into()));
    }

    #[test]
    fn a_secret_is_never_shown() {
        let mut object = Secret::default();
        object.metadata.name = Some("tls".into());
        object.data = Some([("tls.key".to_owned(), k8s_openapi::ByteString(b"hidden".to_vec()))].into());
        assert!(!format!("{:?}", secret(object)).contains("hidden"));
    }
}

//! What the compile step reads: objects by name, and EndpointSlices by their Service.

use super::{Pods, ReferenceGrant, Remotes, take};
use crate::dns::{Answered, Lookup, Resolution};
use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use weir_crds::LoadBalancerPool;

/// Label of an EndpointSlice that names its Service.
pub(crate) const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// Namespace and name of an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Never empty.
    pub namespace: String,
    /// Never empty.
    pub name: String,
}

/// Every object that the compile step reads. Cloning copies pointers, not objects.
#[derive(Clone, Default, PartialEq)]
pub struct Objects {
    /// Pools.
    pub pools: BTreeMap<ObjectKey, Arc<LoadBalancerPool>>,
    /// Services that backend sets name; others do no harm.
    pub services: BTreeMap<ObjectKey, Arc<Service>>,
    /// Secrets that listeners and other clusters of backend sets name; others do no harm.
    pub secrets: BTreeMap<ObjectKey, Arc<Secret>>,
    /// Secrets that are named and that are not in `secrets` for another reason than that they do not exist.
    pub unread_secrets: BTreeMap<ObjectKey, Unread>,
    /// What namespaces let pools of others use; grants for other kinds do no harm.
    pub grants: BTreeMap<ObjectKey, Arc<ReferenceGrant>>,
    /// What is known of names in DNS that sets follow. A name that is missing was not looked up yet.
    pub names: BTreeMap<Lookup, Arc<Resolution>>,
    /// Pods that backend sets select.
    pub pods: Pods,
    /// Services in other clusters that backend sets name.
    pub remotes: Remotes,
    slices: BTreeMap<ObjectKey, Arc<EndpointSlice>>,
    /// Names of the slices of each Service.
    slices_by_service: BTreeMap<ObjectKey, BTreeSet<String>>,
}

/// Secrets that are watched, the first ones by namespace and name. Each is a connection to the API server.
pub const SECRETS_MAX: usize = 1024;

/// Why it is not known whether an object exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// A rule of RBAC is missing.
    Forbidden,
    /// The API server does not answer, or not with the object.
    Unanswered,
    /// It is past the limit of what is watched.
    TooMany,
}

impl ObjectKey {
    /// A key from its two parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Debug for Objects {
    /// Names only: a Secret must not reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Objects")
            .field("pools", &self.pools.keys())
            .field("services", &self.services.keys())
            .field("secrets", &self.secrets.keys())
            .field("grants", &self.grants.keys())
            .field("slices", &self.slices.keys())
            .field("names", &self.names)
            .field("pods", &self.pods.count())
            .finish()
    }
}

impl Objects {
    /// Adds or replaces a slice, and says which Services' backends that may change: the one it is of, and the
    /// one it was of before. A slice without a Service's name is kept and belongs to none.
    pub fn insert_slice(&mut self, key: ObjectKey, slice: Arc<EndpointSlice>) -> Vec<ObjectKey> {
        let mut touched: Vec<_> = self.remove_slice(&key).into_iter().collect();
        if let Some(service) = service_of(&key, &slice) {
            self.slices_by_service.entry(service.clone()).or_default().insert(key.name.clone());
            if !touched.contains(&service) {
                touched.push(service);
            }
        }
        self.slices.insert(key, slice);
        touched
    }

    /// Removes a slice, and says which Service's backends that may change.
    pub fn remove_slice(&mut self, key: &ObjectKey) -> Option<ObjectKey> {
        let slice = self.slices.remove(key)?;
        let service = service_of(key, &slice)?;
        take(&mut self.slices_by_service, &service, &key.name);
        Some(service)
    }

    /// Takes in what became known of a name.
    pub fn learn(&mut self, (lookup, resolution): Answered) {
        match resolution {
            Some(resolution) => self.names.insert(lookup, resolution),
            None => self.names.remove(&lookup),
        };
    }

    /// Whether something is known of each of these names, be it that nobody answers.
    #[must_use]
    pub fn are_known(&self, names: &BTreeSet<Lookup>) -> bool {
        names.iter().all(|name| self.names.contains_key(name))
    }

    /// One slice.
    #[must_use]
    pub fn slice(&self, key: &ObjectKey) -> Option<&Arc<EndpointSlice>> {
        self.slices.get(key)
    }

    /// The Service that a slice is of; `None` where there is no such slice, or it names none.
    #[must_use]
    pub fn service_of_slice(&self, key: &ObjectKey) -> Option<ObjectKey> {
        service_of(key, self.slices.get(key)?)
    }

    /// Every slice, in the order of their keys.
    pub fn slices(&self) -> impl ExactSizeIterator<Item = (&ObjectKey, &Arc<EndpointSlice>)> {
        self.slices.iter()
    }

    /// The slices of one Service, in the order of their names.
    pub fn slices_of<'a>(&'a self, service: &ObjectKey) -> impl Iterator<Item = &'a EndpointSlice> + use<'a> {
        let namespace = service.namespace.clone();
        self.slices_by_service.get(service).into_iter().flatten().filter_map(move |name| {
            self.slices.get(&ObjectKey::new(namespace.as_str(), name.as_str())).map(AsRef::as_ref)
        })
    }
}

fn service_of(key: &ObjectKey, slice: &EndpointSlice) -> Option<ObjectKey> {
    let service = slice.metadata.labels.as_ref()?.get(SERVICE_NAME_LABEL)?;
    Some(ObjectKey::new(key.namespace.as_str(), service.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(service: &str) -> Arc<EndpointSlice> {
        let mut slice = EndpointSlice::default();
        slice.metadata.labels = Some([(SERVICE_NAME_LABEL.to_owned(), service.to_owned())].into());
        Arc::new(slice)
    }

    #[test]
    fn a_slice_that_changes_its_service_touches_both() {
        let (mut objects, key) = (Objects::default(), ObjectKey::new("shop", "web-1"));
        let (web, api) = (ObjectKey::new("shop", "web"), ObjectKey::new("shop", "api"));
        assert_eq!(objects.insert_slice(key.clone(), slice("web")), std::slice::from_ref(&web));
        assert_eq!(objects.insert_slice(key.clone(), slice("web")), std::slice::from_ref(&web));
        assert_eq!(objects.insert_slice(key.clone(), slice("api")), [web.clone(), api.clone()]);
        assert_eq!(objects.slices_of(&web).count(), 0);
        assert_eq!(objects.slices_of(&api).count(), 1);
        assert_eq!(objects.remove_slice(&key), Some(api));
        assert_eq!(objects, Objects::default());
    }
}

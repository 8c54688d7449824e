//! Services in other clusters, as far as their backends are needed.

use super::{ObjectKey, pool};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;
use weir_crds::LoadBalancerPool;
use weir_crds::pool as spec;

/// A Service in the cluster that a kubeconfig leads to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RemoteService {
    /// Holds the kubeconfig, in the pool's namespace.
    pub secret: ObjectKey,
    /// Of the Secret's data.
    pub key: String,
    /// There.
    pub service: ObjectKey,
}

/// What is known of Services in other clusters. What was known of one stays while its cluster is away.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Remotes {
    /// `None` where there is no such Service; a Service that was not read yet is missing.
    services: BTreeMap<RemoteService, Option<Arc<Service>>>,
    /// By their names; those of a Service whose slices were not read yet are missing.
    slices: BTreeMap<RemoteService, BTreeMap<String, Arc<EndpointSlice>>>,
    /// Services of which nothing new is heard.
    pub away: BTreeMap<RemoteService, Away>,
}

/// Since when and why nothing is heard of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Away {
    /// The first failure in a row.
    pub since: SystemTime,
    /// What failed last.
    pub why: AwayReason,
}

/// Why nothing is heard of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AwayReason {
    /// The kubeconfig cannot be used: field and rule, and nothing of what the field holds.
    Kubeconfig(String),
    /// A rule of RBAC is missing there.
    Forbidden,
    /// The API server answers, and not with what was asked for.
    Refused,
    /// The API server does not answer, or the connection broke.
    Unreachable,
    /// It is past the limit of what is watched.
    TooMany,
    /// Objects come from a folder, and nobody watches clusters.
    NoCluster,
}

impl RemoteService {
    /// What one entry of a Service of this pool means.
    pub(super) fn of(pool: &ObjectKey, service: &spec::ServiceSource, other: &spec::OtherCluster) -> Self {
        let namespace = other.namespace.as_deref().or(service.namespace.as_deref());
        Self {
            secret: ObjectKey::new(pool.namespace.as_str(), other.kubeconfig_ref.name.as_str()),
            key: other.kubeconfig_ref.key.clone(),
            service: ObjectKey::new(namespace.unwrap_or(&pool.namespace), service.name.as_str()),
        }
    }
}

impl fmt::Display for RemoteService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { secret, key, service } = self;
        write!(f, "Service {service} of the cluster of kubeconfig {key} in Secret {secret}")
    }
}

/// The Services in other clusters that a pool names, each once.
pub(crate) fn remotes_of(pool: &LoadBalancerPool) -> BTreeSet<RemoteService> {
    let key = pool::key_of(&pool.metadata);
    let services = pool.spec.backend_sets.iter().take(spec::BACKEND_SETS_MAX);
    let services = services.filter_map(|set| set.service.as_ref());
    let remotes = services.flat_map(|service| {
        let others = service.clusters.iter().take(spec::CLUSTERS_MAX);
        others.map(|other| RemoteService::of(&key, service, other))
    });
    // What is no name would be part of a path in a request to an API server.
    let is_named =
        |object: &ObjectKey| super::is_object_name(&object.name) && super::is_object_name(&object.namespace);
    remotes.filter(|remote| is_named(&remote.secret) && is_named(&remote.service)).collect()
}

impl Remotes {
    /// The Service, if there is one, and its slices in the order of their names; `None` before both were read once.
    #[must_use]
    pub fn of(&self, remote: &RemoteService) -> Option<(Option<&Service>, Vec<&EndpointSlice>)> {
        let (service, slices) = (self.services.get(remote)?, self.slices.get(remote)?);
        Some((service.as_deref(), slices.values().map(AsRef::as_ref).collect()))
    }

    /// Whether Service and slices were read at some time.
    #[must_use]
    pub fn is_known(&self, remote: &RemoteService) -> bool {
        self.services.contains_key(remote) && self.slices.contains_key(remote)
    }

    /// Takes in the Service, or that there is none; true where that is different.
    pub fn set_service(&mut self, remote: &RemoteService, service: Option<Arc<Service>>) -> bool {
        let before = self.services.insert(remote.clone(), service);
        before.as_ref() != self.services.get(remote)
    }

    /// Takes in all slices; true where they are others than before.
    pub fn replace_slices(
        &mut self,
        remote: &RemoteService,
        slices: BTreeMap<String, Arc<EndpointSlice>>,
    ) -> bool {
        let before = self.slices.insert(remote.clone(), slices);
        before.as_ref() != self.slices.get(remote)
    }

    /// Takes in one slice; true where it is new or different.
    pub fn insert_slice(&mut self, remote: &RemoteService, name: String, slice: Arc<EndpointSlice>) -> bool {
        let slices = self.slices.entry(remote.clone()).or_default();
        let is_same = slices.get(&name) == Some(&slice);
        if !is_same {
            slices.insert(name, slice);
        }
        !is_same
    }

    /// Takes out one slice; true where it was there.
    pub fn remove_slice(&mut self, remote: &RemoteService, name: &str) -> bool {
        self.slices.get_mut(remote).is_some_and(|slices| slices.remove(name).is_some())
    }

    /// Forgets a Service and all that is known of it.
    pub fn forget(&mut self, remote: &RemoteService) {
        self.services.remove(remote);
        self.slices.remove(remote);
        self.away.remove(remote);
    }

    /// Services of which anything is known otherwise there than here.
    pub(super) fn differences<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a RemoteService> {
        let keys = |remotes: &'a Self| {
            remotes.services.keys().chain(remotes.slices.keys()).chain(remotes.away.keys())
        };
        let all: BTreeSet<_> = keys(self).chain(keys(other)).collect();
        all.into_iter().filter(|remote| {
            self.services.get(remote) != other.services.get(remote)
                || self.slices.get(remote) != other.slices.get(remote)
                || self.away.get(remote) != other.away.get(remote)
        })
    }
}

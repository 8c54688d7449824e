//! The API server as the source of objects.
//!
//! ```text
//! watch, one task each (watch) -> messages -> cache (pure) -> follower -> compile -> store, board
//! ```
//!
//! Each watch lists once and then hears of every change; where one breaks it goes on from the last change that it
//! heard of, or lists again, and what vanished meanwhile is removed then, or two seconds later (guard). Nothing reaches the store before every
//! watch has listed once, since "no Services yet" would empty every set.
//!
//! A change of a Service or an EndpointSlice compiles the sets that name the Service and nothing else, at once. A
//! change of a pool, a Secret or a ReferenceGrant compiles the pools that it makes a difference to, once for all that
//! waits at that moment.
//!
//! Names in DNS that sets follow are looked up beside the watches ([`crate::dns`]), and compiled like an endpoint that
//! changed. The first compiled world waits until every name of it was answered or has failed once.
//!
//! Secrets are watched one by one, by the names that pools mention: a controller that may list Secrets may read
//! every password of the cluster. Pods are watched by the selectors that pools mention, each of which the API server
//! applies: what no pool selects is never sent. Services of other clusters are watched by the kubeconfigs that pools
//! name, with which nothing else is asked; nothing here waits for them, but for a few seconds at the start.

mod cache;
mod connect;
mod failure;
mod followed;
mod follower;
mod guard;
pub mod kubeconfig;
mod list;
mod read;
mod references;
mod remote;
mod watch;

pub use cache::{Event, Message, NamedWatches, SECRETS_MAX};
pub use connect::{Access, Cluster, ConnectError, connect};
pub use failure::{Failure, FailureReason};
pub use followed::{REMOTES_MAX, SELECTORS_MAX};
pub use follower::{Follower, REMOTES_WAIT};
pub use list::{LIST_TIMEOUT, ListError, pools};
pub use read::{Item, Malformed};
pub use remote::REMOTE_CONNECT_TIMEOUT;
pub use watch::{BACKOFF_MAX, BACKOFF_MIN, BACKOFF_RESET, MESSAGES_MAX, WATCH_TIMEOUT_S};

use crate::compile::{ObjectKey, RemoteService, Selector};
use crate::dns;
use crate::metrics::Metrics;
use crate::readiness::Readiness;
use crate::status::Board;
use crate::store::Store;
use prometheus_client::encoding::EncodeLabelValue;
use std::fmt;
use std::sync::Arc;
use tokio::time::Instant;
use watch::Watches;

/// Messages that are taken at once: a thousand pools that arrive together compile once.
const BATCH_MAX: usize = 10_000;

/// Kinds that are watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelValue)]
pub enum Kind {
    /// `weir.dev/v1alpha1`
    LoadBalancerPool,
    /// `v1`
    Service,
    /// `discovery.k8s.io/v1`
    EndpointSlice,
    /// `gateway.networking.k8s.io/v1beta1`, where it is installed
    ReferenceGrant,
    /// `v1`
    Secret,
    /// `v1`
    Pod,
}

/// What one watch covers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Extent {
    /// Every namespace.
    Everywhere,
    /// One namespace.
    Namespace(String),
    /// One object.
    Object(ObjectKey),
    /// Those that a selector takes.
    Selected(Selector),
    /// Those of a Service in another cluster.
    Remote(RemoteService),
}

/// Names one watch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct WatchId {
    /// What is watched.
    pub kind: Kind,
    /// Where.
    pub extent: Extent,
}

/// Follows the API server for as long as it is polled: the only writer of `store` and of `board`.
pub async fn follow(
    cluster: Cluster,
    store: Arc<Store>,
    board: Arc<Board>,
    readiness: Arc<Readiness>,
    metrics: Arc<Metrics>,
    mut names: dns::Client,
) {
    let mut follower = Follower::new(&cluster.watched, store, board, readiness, Arc::clone(&metrics));
    let (mut watches, mut messages) = Watches::new(cluster.client, metrics);
    for id in follower.cache().watches() {
        watches.start(id, None);
    }
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            // `watches` holds a sender, so that the channel never ends by itself.
            _ = messages.recv_many(&mut batch, BATCH_MAX) => {}
            news = names.news() => follower.learn(news, Instant::now().into_std()),
            () = crate::push::at(follower.due().map(Instant::from_std)) => {}
        }
        let named = follower.take(batch.drain(..), Instant::now().into_std());
        named.unneeded.iter().for_each(|id| watches.stop(id));
        for id in &named.needed {
            watches.start(id, follower.cache().kubeconfig_of(id));
        }
        follower.names().into_iter().for_each(|wanted| names.want(wanted));
        // The streams go first: whoever waits for a backend gains by it, and a status can wait for as long.
        tokio::task::yield_now().await;
        follower.judge();
    }
}

impl Kind {
    /// Those that are watched by namespace, or everywhere.
    pub const NAMESPACED: [Self; 4] =
        [Self::LoadBalancerPool, Self::Service, Self::EndpointSlice, Self::ReferenceGrant];

    /// Every kind.
    pub(crate) const ALL: [Self; 6] = [
        Self::LoadBalancerPool,
        Self::Service,
        Self::EndpointSlice,
        Self::ReferenceGrant,
        Self::Secret,
        Self::Pod,
    ];

    /// As rules of RBAC name it: group and resource.
    const fn resource(self) -> (&'static str, &'static str) {
        match self {
            Self::LoadBalancerPool => ("weir.dev", "loadbalancerpools"),
            Self::Service => ("", "services"),
            Self::EndpointSlice => ("discovery.k8s.io", "endpointslices"),
            Self::ReferenceGrant => ("gateway.networking.k8s.io", "referencegrants"),
            Self::Secret => ("", "secrets"),
            Self::Pod => ("", "pods"),
        }
    }
}

impl Extent {
    fn covers(&self, key: &ObjectKey) -> bool {
        match self {
            Self::Everywhere => true,
            Self::Namespace(namespace) => *namespace == key.namespace,
            Self::Object(object) => object == key,
            Self::Selected(selector) => selector.namespace == key.namespace,
            Self::Remote(_) => false,
        }
    }
}

impl WatchId {
    fn secret(key: ObjectKey) -> Self {
        Self { kind: Kind::Secret, extent: Extent::Object(key) }
    }

    fn remote(kind: Kind, service: RemoteService) -> Self {
        Self { kind, extent: Extent::Remote(service) }
    }

    fn pods(selector: Selector) -> Self {
        Self { kind: Kind::Pod, extent: Extent::Selected(selector) }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl fmt::Display for WatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind;
        match &self.extent {
            Extent::Everywhere => write!(f, "{kind}s"),
            Extent::Namespace(namespace) => write!(f, "{kind}s of namespace {namespace}"),
            Extent::Object(key) => write!(f, "{kind} {key}"),
            Extent::Selected(selector) => write!(f, "{kind}s with {selector}"),
            Extent::Remote(remote) => write!(f, "{kind}s of {remote}"),
        }
    }
}

//! Watches: one task each, from the API server to messages.

use super::cache::{Event, Message};
use super::failure::{Failure, FailureReason};
use super::read::{self, Item};
use super::remote::{Clients, RemoteClient};
use super::{Extent, Kind, WatchId};
use crate::compile::SERVICE_NAME_LABEL;
use crate::metrics::Metrics;
use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::{ByteString, NamespaceResourceScope};
use kube::api::{Api, ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::runtime::watcher;
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

/// A watch is asked to end after this long, and goes on from where it was. Less than the 240 s after which the first
/// load balancers cut an idle connection without a word. A watch on which nothing came for 5 s more is given up.
pub const WATCH_TIMEOUT_S: u32 = 230;

/// Shortest wait after a failure; it doubles with each one.
pub const BACKOFF_MIN: Duration = Duration::from_millis(500);
/// Longest wait after a failure: how late a kind that is installed, or a rule that is added, is noticed at most.
pub const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A failure after this long without one is a first one.
pub const BACKOFF_RESET: Duration = Duration::from_secs(60);

/// Messages that wait to be taken; past it the watches wait, and with them the API server's own buffers.
pub const MESSAGES_MAX: usize = 4096;

/// The tasks. All end when dropped.
pub(super) struct Watches {
    client: Client,
    messages: mpsc::Sender<Message>,
    tasks: JoinSet<()>,
    running: BTreeMap<WatchId, AbortHandle>,
    clients: Clients,
    metrics: Arc<Metrics>,
}

impl Watches {
    pub(super) fn new(client: Client, metrics: Arc<Metrics>) -> (Self, mpsc::Receiver<Message>) {
        let (messages, receiver) = mpsc::channel(MESSAGES_MAX);
        let watches = Self {
            client,
            messages,
            tasks: JoinSet::new(),
            running: BTreeMap::new(),
            clients: Clients::default(),
            metrics,
        };
        (watches, receiver)
    }

    /// One of another cluster needs its kubeconfig.
    pub(super) fn start(&mut self, id: &WatchId, kubeconfig: Option<&ByteString>) {
        while self.tasks.try_join_next().is_some() {}
        let (client, extent) = (self.client.clone(), &id.extent);
        let line =
            Line { id: id.clone(), messages: self.messages.clone(), metrics: Arc::clone(&self.metrics) };
        if let (Extent::Remote(remote), Some(kubeconfig)) = (extent, kubeconfig) {
            let client = self.clients.of(remote, kubeconfig);
            let handle = match id.kind {
                Kind::Service => self.tasks.spawn(line.run_elsewhere::<Service>(client, read::service)),
                _ => self.tasks.spawn(line.run_elsewhere::<EndpointSlice>(client, read::slice)),
            };
            self.running.insert(id.clone(), handle);
            return;
        }
        let handle = match id.kind {
            Kind::LoadBalancerPool => {
                let kind = GroupVersionKind::gvk("weir.dev", "v1alpha1", "LoadBalancerPool");
                self.tasks.spawn(line.run(dynamic(client, extent, &kind), read::pool))
            }
            Kind::ReferenceGrant => {
                let kind = GroupVersionKind::gvk("gateway.networking.k8s.io", "v1beta1", "ReferenceGrant");
                self.tasks.spawn(line.run(dynamic(client, extent, &kind), read::grant))
            }
            Kind::Service => self.tasks.spawn(line.run(typed::<Service>(client, extent), read::service)),
            Kind::EndpointSlice => {
                self.tasks.spawn(line.run(typed::<EndpointSlice>(client, extent), read::slice))
            }
            Kind::Secret => self.tasks.spawn(line.run(typed::<Secret>(client, extent), read::secret)),
            Kind::Pod => self.tasks.spawn(line.run(typed::<Pod>(client, extent), read::selected_pod)),
        };
        self.running.insert(id.clone(), handle);
    }

    pub(super) fn stop(&mut self, id: &WatchId) {
        if let Some(handle) = self.running.remove(id) {
            handle.abort();
        }
    }
}

fn typed<K>(client: Client, extent: &Extent) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    match extent {
        Extent::Everywhere => Api::all(client),
        Extent::Namespace(namespace) => Api::namespaced(client, namespace),
        Extent::Object(key) => Api::namespaced(client, &key.namespace),
        Extent::Selected(selector) => Api::namespaced(client, &selector.namespace),
        Extent::Remote(remote) => Api::namespaced(client, &remote.service.namespace),
    }
}

fn dynamic(client: Client, extent: &Extent, kind: &GroupVersionKind) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(kind);
    match extent {
        Extent::Everywhere => Api::all_with(client, &resource),
        Extent::Namespace(namespace) => Api::namespaced_with(client, namespace, &resource),
        Extent::Object(key) => Api::namespaced_with(client, &key.namespace, &resource),
        Extent::Selected(selector) => Api::namespaced_with(client, &selector.namespace, &resource),
        Extent::Remote(remote) => Api::namespaced_with(client, &remote.service.namespace, &resource),
    }
}

/// One watch.
struct Line {
    id: WatchId,
    messages: mpsc::Sender<Message>,
    metrics: Arc<Metrics>,
}

impl Line {
    /// In another cluster. Ends where its kubeconfig cannot be used: another one is another watch.
    async fn run_elsewhere<K>(self, client: Arc<RemoteClient>, read: fn(K) -> Item)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
        K: Clone + Debug + DeserializeOwned + Send + 'static,
    {
        match client.connect().await {
            Ok(client) => {
                let api = typed(client, &self.id.extent);
                self.run(api, read).await;
            }
            Err(fault) => {
                let failure = Failure::new(FailureReason::Kubeconfig, fault);
                self.say(&failure, &mut None);
                // Nobody listens any more where this fails.
                let _ = self.tell(Event::Failed(failure), Instant::now()).await;
            }
        }
    }

    async fn run<K>(self, api: Api<K>, read: fn(K) -> Item)
    where
        K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let mut config = watcher::Config::default().timeout(WATCH_TIMEOUT_S);
        match &self.id.extent {
            // The only selector that resourceNames of a Role permit.
            Extent::Object(key) => config = config.fields(&format!("metadata.name={}", key.name)),
            Extent::Selected(selector) => config = config.labels(&selector.query()),
            Extent::Remote(remote) if self.id.kind == Kind::Service => {
                config = config.fields(&format!("metadata.name={}", remote.service.name));
            }
            Extent::Remote(remote) => {
                config = config.labels(&format!("{SERVICE_NAME_LABEL}={}", remote.service.name));
            }
            Extent::Everywhere | Extent::Namespace(_) => {}
        }
        let is_elsewhere = matches!(self.id.extent, Extent::Remote(_));
        let (mut backoff, mut said) = (Backoff::default(), None);
        loop {
            let mut events = pin!(watcher(api.clone(), config.clone()));
            while let Some(event) = events.next().await {
                let seen = Instant::now();
                let failure = match event {
                    Ok(event) => {
                        if matches!(event, watcher::Event::InitDone) && said.take().is_some() {
                            tracing::info!(watch = %self.id, "read again");
                        }
                        if self.tell(translated(event, read), seen).await.is_err() {
                            return;
                        }
                        continue;
                    }
                    Err(error) => Failure::of(&error),
                };
                self.say(&failure, &mut said);
                let is_answer = failure.reason != FailureReason::Unreachable;
                if self.tell(Event::Failed(failure), seen).await.is_err() {
                    return;
                }
                tokio::time::sleep(backoff.next(Instant::now(), random())).await;
                if is_answer || is_elsewhere {
                    // A watch that the API server refuses is never resumed: where it went on is what may be wrong. Of
                    // another cluster a new list says that it is back, and is small.
                    break;
                }
            }
        }
    }

    /// Fails when nobody listens any more.
    async fn tell(&self, event: Event, seen: Instant) -> Result<(), mpsc::error::SendError<Message>> {
        self.messages.send(Message { watch: self.id.clone(), event, seen: seen.into_std() }).await
    }

    /// Once for each change of the reason: the same is tried again every few seconds.
    fn say(&self, failure: &Failure, said: &mut Option<FailureReason>) {
        let sentence = failure.sentence(&self.id);
        if failure.is_absence(self.id.kind) {
            *said = None;
            tracing::debug!("{sentence}");
            return;
        }
        self.metrics.watch_failed(self.id.kind, failure.reason);
        if said.replace(failure.reason) == Some(failure.reason) {
            tracing::debug!("{sentence}");
        } else if failure.reason == FailureReason::Forbidden {
            tracing::error!("{sentence}");
        } else {
            tracing::warn!("{sentence}");
        }
    }
}

fn translated<K>(event: watcher::Event<K>, read: fn(K) -> Item) -> Event {
    match event {
        watcher::Event::Init => Event::Init,
        watcher::Event::InitApply(object) => Event::InitApply(read(object)),
        watcher::Event::InitDone => Event::InitDone,
        watcher::Event::Apply(object) => Event::Apply(read(object)),
        watcher::Event::Delete(object) => Event::Delete(read(object).key()),
    }
}

/// How long to wait after each failure.
#[derive(Debug, Default)]
struct Backoff {
    failures: u32,
    last: Option<Instant>,
}

impl Backoff {
    /// Half of the wait is random, so that the watches of all replicas do not come back together.
    fn next(&mut self, now: Instant, random: u64) -> Duration {
        if self.last.is_some_and(|last| now.duration_since(last) > BACKOFF_RESET) {
            self.failures = 0;
        }
        self.last = Some(now);
        let full = BACKOFF_MIN.saturating_mul(1 << self.failures.min(16)).min(BACKOFF_MAX);
        self.failures = self.failures.saturating_add(1);
        let share = f64::from(u32::try_from(random >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX);
        full.div_f64(2.0) + full.mul_f64(share / 2.0)
    }
}

fn random() -> u64 {
    // Each state has keys of its own, from the system's random source.
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_begin_anew_after_a_good_while() {
        let (mut backoff, mut now) = (Backoff::default(), Instant::now());
        assert_eq!(backoff.next(now, 0), BACKOFF_MIN / 2);
        assert_eq!(backoff.next(now, u64::MAX), BACKOFF_MIN * 2);
        for _ in 0..40 {
            now += Duration::from_secs(10);
            assert!(backoff.next(now, u64::MAX) <= BACKOFF_MAX);
        }
        assert_eq!(backoff.next(now, u64::MAX), BACKOFF_MAX);
        now += BACKOFF_RESET + Duration::from_millis(1);
        assert_eq!(backoff.next(now, u64::MAX), BACKOFF_MIN);
    }
}

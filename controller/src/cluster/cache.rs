//! What the watches have brought so far: events in, objects and what changed out. No I/O and no clock.
//!
//! A list replaces what was kept of its watch in one step, when it is whole: what is not in it is gone, however long
//! the watch was away. Until then what was kept before stays. An object that is the same as before, as far as
//! anything reads it, is no change: a status that we write ourselves must not compile the world again. What a later
//! list of the same watch misses goes a moment later ([`super::guard`]).

mod coming;
mod remote;
mod secrets;
mod selected;

use super::failure::{Failure, FailureReason};
use super::followed::Followed;
use super::guard::Guard;
use super::read::{Item, Malformed};
use super::references::References;
use super::{Extent, Kind, WatchId};
pub use crate::compile::SECRETS_MAX;
use crate::compile::{ObjectKey, Objects, Origin, RemoteService, Selector, Touched, Unread};
use crate::dns::Answered;
pub(super) use coming::Coming;
use k8s_openapi::ByteString;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// A watch of what pools name that failed so often is not waited for any longer.
const FAILURES_MAX: u32 = 3;

/// Watches that are named while they are waited for.
const NAMED_MAX: usize = 4;

/// What one watch has to say.
#[derive(Debug)]
pub struct Message {
    /// Who says it.
    pub watch: WatchId,
    /// What.
    pub event: Event,
    /// When the watch had it, before it waited to be taken.
    pub seen: Instant,
}

/// As the API server tells it: lists, then changes.
#[derive(Debug)]
pub enum Event {
    /// A list begins.
    Init,
    /// One object of the list.
    InitApply(Item),
    /// The list is whole.
    InitDone,
    /// An object is new or different.
    Apply(Item),
    /// An object is gone.
    Delete(ObjectKey),
    /// The watch could not begin or has ended, and will be tried again.
    Failed(Failure),
}

/// What is different, for who compiles.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// What compiles to something else, or is read or not otherwise than before.
    pub(crate) touched: Touched,
    /// Pools that say the same, and of which something beside it is different: a generation, a status.
    pub(crate) pools: BTreeSet<ObjectKey>,
    /// When the oldest event was seen that brought something of this; `None` while nothing is named.
    pub(crate) seen: Option<Instant>,
}

impl Changes {
    /// Names what an event that was seen then brought, if anything.
    fn extend(&mut self, brought: Self, seen: Instant) {
        if brought == Self::default() {
            return;
        }
        self.touched.extend(brought.touched);
        self.pools.extend(brought.pools);
        self.seen = Some(self.seen.map_or(seen, |before| before.min(seen)));
    }

    /// Whether a pool, a Secret or a grant is among them: what decides which Secrets and pods are watched.
    pub(crate) fn is_of_pools(&self) -> bool {
        let Touched { pools, origins: _, secrets, grants } = &self.touched;
        !(pools.is_empty() && secrets.is_empty() && grants.is_empty())
    }
}

/// Watches of what pools name, to start and to stop.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct NamedWatches {
    /// To start.
    pub needed: Vec<WatchId>,
    /// To stop.
    pub unneeded: Vec<WatchId>,
}

impl NamedWatches {
    /// Starts and stops what the other does too.
    pub(super) fn extend(&mut self, other: Self) {
        self.needed.extend(other.needed);
        self.unneeded.extend(other.unneeded);
    }
}

/// Everything that is known of the cluster.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    /// With pools as they are to be compiled.
    objects: Objects,
    coming: Coming,
    /// Pools that cannot be read. What they said before is in `objects`, where there is a before.
    malformed: BTreeMap<ObjectKey, Arc<Malformed>>,
    /// Grants that cannot be read. What such a one permits is not known, and so it permits nothing.
    malformed_grants: BTreeMap<ObjectKey, Arc<Malformed>>,
    watches: BTreeMap<WatchId, Watch>,
    /// Watches that are waited for.
    unsettled: BTreeSet<WatchId>,
    /// Watches of each kind but Secrets and pods.
    extents: usize,
    references: References,
    /// Of what later lists did not have.
    guard: Guard,
    selectors: Followed<Selector>,
    /// Services of other clusters.
    remotes: Followed<RemoteService>,
    /// With which kubeconfigs they are watched; those that are not watched for want of one are missing.
    kubeconfigs: BTreeMap<RemoteService, ByteString>,
    /// Secrets past [`SECRETS_MAX`].
    unwatched: usize,
}

#[derive(Debug, Default)]
struct Watch {
    /// It has said all that there is once, or there is nothing to be waited for.
    is_settled: bool,
    /// The list that is being read.
    listing: Option<Listing>,
    failures: u32,
    failure: Option<FailureReason>,
    /// The first failure of those in a row.
    failed_since: Option<SystemTime>,
    /// What is wrong with the kubeconfig, where that is the failure.
    kubeconfig_fault: String,
}

/// A list, as far as it is read.
#[derive(Debug, Default)]
struct Listing {
    items: BTreeMap<ObjectKey, Item>,
    /// When the first object came.
    seen: Option<Instant>,
}

impl Cache {
    /// Knows nothing yet, of these namespaces or (none named) of all.
    pub(crate) fn new(namespaces: &[String]) -> Self {
        let mut cache = Self { extents: namespaces.len().max(1), ..Self::default() };
        for kind in Kind::NAMESPACED {
            if namespaces.is_empty() {
                cache.wait_for(WatchId { kind, extent: Extent::Everywhere });
            }
            for namespace in namespaces {
                cache.wait_for(WatchId { kind, extent: Extent::Namespace(namespace.clone()) });
            }
        }
        cache
    }

    fn wait_for(&mut self, id: WatchId) {
        self.unsettled.insert(id.clone());
        self.watches.insert(id, Watch::default());
    }

    pub(crate) fn objects(&self) -> &Objects {
        &self.objects
    }

    pub(crate) fn malformed(&self) -> &BTreeMap<ObjectKey, Arc<Malformed>> {
        &self.malformed
    }

    pub(crate) fn malformed_grants(&self) -> &BTreeMap<ObjectKey, Arc<Malformed>> {
        &self.malformed_grants
    }

    pub(crate) fn watches(&self) -> impl Iterator<Item = &WatchId> {
        self.watches.keys()
    }

    /// How many watches of a kind have settled.
    pub(crate) fn settled(&self, kind: Kind) -> usize {
        let all = match kind {
            Kind::Secret => {
                let others = Kind::NAMESPACED.len() * self.extents + self.selectors.watched().len();
                self.watches.len() - others - self.remote_watches()
            }
            Kind::Pod => self.selectors.watched().len(),
            _ => self.extents,
        };
        all - self.unsettled.iter().filter(|id| id.kind == kind).count()
    }

    /// Secrets that are named by pools and not watched, since there are too many.
    pub(crate) fn unwatched(&self) -> usize {
        self.unwatched
    }

    /// Whether nothing is waited for: what is known is all that can be known now.
    pub(crate) fn is_settled(&self) -> bool {
        self.unsettled.is_empty()
    }

    /// What is waited for, for a person.
    pub(crate) fn waiting_for(&self) -> String {
        let named = self.unsettled.iter().take(NAMED_MAX);
        let named = named.map(|id| match self.watches.get(id).and_then(|watch| watch.failure) {
            Some(reason) => format!("{id} ({reason})"),
            None => id.to_string(),
        });
        let named = named.collect::<Vec<_>>().join(", ");
        match self.unsettled.len().saturating_sub(NAMED_MAX) {
            0 => format!("waiting for {named}"),
            more => format!("waiting for {named} and {more} more"),
        }
    }

    /// Takes in what a watch says. A message of a watch that was stopped meanwhile is without effect.
    pub(crate) fn step(&mut self, Message { watch: id, event, mut seen }: Message, changes: &mut Changes) {
        let mut brought = Changes::default();
        self.take_in(&id, event, &mut seen, &mut brought);
        changes.extend(brought, seen);
    }

    /// A list counts as seen when its first object was, and so `seen` goes back to that.
    fn take_in(&mut self, id: &WatchId, event: Event, seen: &mut Instant, changes: &mut Changes) {
        let Some(watch) = self.watches.get_mut(id) else { return };
        match event {
            Event::Init => watch.listing = Some(Listing::default()),
            Event::InitApply(item) => {
                let listing = watch.listing.get_or_insert_default();
                listing.items.insert(item.key(), item);
                listing.seen.get_or_insert(*seen);
            }
            Event::InitDone => {
                let listed = watch.listing.take().unwrap_or_default();
                *seen = listed.seen.unwrap_or(*seen);
                watch.settle();
                self.unsettled.remove(id);
                if let Extent::Object(key) = &id.extent
                    && self.objects.unread_secrets.remove(key).is_some()
                {
                    changes.touched.secrets.insert(key.clone());
                }
                self.relist(id, listed.items, changes);
                self.judge_remote(id, changes);
            }
            Event::Apply(item) => self.put(id, item, changes),
            Event::Delete(key) => self.remove(id, &key, changes),
            Event::Failed(failure) => {
                watch.fail(id, &failure);
                let is_settled = watch.is_settled;
                if is_settled {
                    self.unsettled.remove(id);
                }
                if failure.is_absence(id.kind) {
                    self.replace(id, BTreeMap::new(), changes);
                } else if is_settled {
                    match &id.extent {
                        Extent::Object(key) => self.lacks_secret(key, failure.reason, changes),
                        Extent::Selected(selector) => self.lacks_pods(id, selector, changes),
                        Extent::Remote(_) => self.judge_remote(id, changes),
                        Extent::Everywhere | Extent::Namespace(_) => {}
                    }
                }
            }
        }
    }

    /// Takes in what became known of names in DNS.
    pub(crate) fn learn(&mut self, news: Vec<Answered>, changes: &mut Changes) {
        for answered in news {
            changes.touched.origins.insert(Origin::Name(answered.0.clone()));
            self.objects.learn(answered);
        }
    }

    /// Brings the watches in line with what pools name and may use, and takes the pools into use that wait for none of them
    /// any more.
    pub(crate) fn follow_references(&mut self, changes: &mut Changes) -> NamedWatches {
        let mut watches = self.follow_named(changes);
        if self.take_in_use(changes) {
            // They do not name any more what they named before.
            watches.extend(self.follow_named(changes));
        }
        watches
    }

    fn follow_named(&mut self, changes: &mut Changes) -> NamedWatches {
        let mut watches = self.follow_secrets(changes);
        watches.needed.extend(self.follow_selectors(changes));
        watches.extend(self.follow_remotes(changes));
        watches
    }

    /// A first list, of which nothing is kept, or a later one.
    fn relist(&mut self, id: &WatchId, listed: BTreeMap<ObjectKey, Item>, changes: &mut Changes) {
        if let Extent::Remote(remote) = &id.extent {
            self.replace_remote(id.kind, remote, listed, changes);
        } else if Guard::covers(id.kind) {
            for key in self.kept(id).filter(|key| !listed.contains_key(key)).collect::<Vec<_>>() {
                self.guard.hold(id.kind, key);
            }
            listed.into_values().for_each(|item| self.put(id, item, changes));
        } else {
            self.replace(id, listed, changes);
        }
    }

    /// It is this moment now: what lists did not have, and was kept for long enough, is gone. After every few messages.
    pub(crate) fn lapse(&mut self, now: Instant, changes: &mut Changes) {
        for (kind, key) in self.guard.lapse(now) {
            tracing::info!(%kind, object = %key, "gone: no list has it, and no event has brought it back");
            self.remove_object(kind, &key, changes);
        }
    }

    /// When [`Self::lapse`] has something to do though no message comes.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.guard.due()
    }

    fn replace(&mut self, id: &WatchId, listed: BTreeMap<ObjectKey, Item>, changes: &mut Changes) {
        if let Extent::Selected(selector) = &id.extent {
            return self.replace_pods(selector, listed, changes);
        }
        for key in self.kept(id).filter(|key| !listed.contains_key(key)).collect::<Vec<_>>() {
            self.remove(id, &key, changes);
        }
        for item in listed.into_values() {
            self.put(id, item, changes);
        }
    }

    /// Keys of everything that is kept of a watch, but for pods, which are replaced as a whole.
    fn kept(&self, id: &WatchId) -> impl Iterator<Item = ObjectKey> {
        let objects = &self.objects;
        let keys: Box<dyn Iterator<Item = &ObjectKey>> = match id.kind {
            Kind::LoadBalancerPool => {
                Box::new(objects.pools.keys().chain(self.coming()).chain(self.malformed.keys()))
            }
            Kind::Service => Box::new(objects.services.keys()),
            Kind::EndpointSlice => Box::new(objects.slices().map(|(key, _)| key)),
            Kind::ReferenceGrant => Box::new(objects.grants.keys().chain(self.malformed_grants.keys())),
            Kind::Secret => Box::new(objects.secrets.keys()),
            Kind::Pod => Box::new(std::iter::empty()),
        };
        keys.filter(|key| id.extent.covers(key)).cloned()
    }

    fn put(&mut self, id: &WatchId, item: Item, changes: &mut Changes) {
        if let Extent::Remote(remote) = &id.extent {
            return self.put_remote(remote, item, changes);
        }
        let key = item.key();
        self.guard.release(id.kind, &key);
        match item {
            Item::Pool(pool) => self.put_pool(key, pool, changes),
            Item::Malformed(malformed) if id.kind == Kind::LoadBalancerPool => {
                let before = self.malformed.insert(key.clone(), Arc::clone(&malformed));
                match before {
                    Some(before) if before == malformed => {}
                    Some(before) if before.is_as_wrong_as(&malformed) => {
                        changes.pools.insert(key);
                    }
                    // Nothing to compile, and yet more or less is known of what there is.
                    _ => {
                        changes.touched.pools.insert(key);
                    }
                }
            }
            Item::Malformed(malformed) => {
                self.objects.grants.remove(&key);
                let before = self.malformed_grants.insert(key.clone(), Arc::clone(&malformed));
                if before.is_none_or(|before| !before.is_as_wrong_as(&malformed)) {
                    changes.touched.grants.insert(key.namespace);
                }
            }
            Item::Service(service) => {
                if self.objects.services.get(&key) != Some(&service) {
                    self.objects.services.insert(key.clone(), service);
                    changes.touched.origins.insert(Origin::Service(key));
                }
            }
            Item::Slice(slice) => {
                if self.objects.slice(&key) != Some(&slice) {
                    let services = self.objects.insert_slice(key, slice);
                    changes.touched.origins.extend(services.into_iter().map(Origin::Service));
                }
            }
            Item::Grant(grant) => {
                let was_malformed = self.malformed_grants.remove(&key).is_some();
                let before = self.objects.grants.insert(key.clone(), Arc::clone(&grant));
                if was_malformed || before.is_none_or(|before| before.spec != grant.spec) {
                    changes.touched.grants.insert(key.namespace);
                }
            }
            Item::Pod(key, pod) => {
                if let Extent::Selected(selector) = &id.extent
                    && self.objects.pods.insert(selector, key.name, pod)
                {
                    changes.touched.origins.insert(Origin::Pods(selector.clone()));
                }
            }
            Item::Secret(secret) => {
                let before = self.objects.secrets.insert(key.clone(), Arc::clone(&secret));
                let is_same = |before: Arc<k8s_openapi::api::core::v1::Secret>| {
                    before.data == secret.data && before.type_ == secret.type_
                };
                if !before.is_some_and(is_same) {
                    changes.touched.secrets.insert(key);
                }
            }
        }
    }

    fn remove(&mut self, id: &WatchId, key: &ObjectKey, changes: &mut Changes) {
        match &id.extent {
            Extent::Selected(selector) => {
                if self.objects.pods.remove(selector, &key.name) {
                    changes.touched.origins.insert(Origin::Pods(selector.clone()));
                }
            }
            Extent::Remote(remote) => self.remove_remote(id.kind, remote, key, changes),
            Extent::Everywhere | Extent::Namespace(_) | Extent::Object(_) => {
                self.remove_object(id.kind, key, changes);
            }
        }
    }

    fn remove_object(&mut self, kind: Kind, key: &ObjectKey, changes: &mut Changes) {
        self.guard.release(kind, key);
        match kind {
            Kind::LoadBalancerPool => {
                let was_malformed = self.malformed.remove(key).is_some();
                let was_coming = self.coming.remove(key);
                if self.objects.pools.remove(key).is_some() || was_coming || was_malformed {
                    changes.touched.pools.insert(key.clone());
                }
            }
            Kind::Service => {
                if self.objects.services.remove(key).is_some() {
                    changes.touched.origins.insert(Origin::Service(key.clone()));
                }
            }
            Kind::EndpointSlice => {
                changes.touched.origins.extend(self.objects.remove_slice(key).map(Origin::Service));
            }
            Kind::ReferenceGrant => {
                let was_malformed = self.malformed_grants.remove(key).is_some();
                if self.objects.grants.remove(key).is_some() || was_malformed {
                    changes.touched.grants.insert(key.namespace.clone());
                }
            }
            Kind::Pod => {}
            Kind::Secret => {
                if self.objects.secrets.remove(key).is_some() {
                    changes.touched.secrets.insert(key.clone());
                }
            }
        }
    }
}

impl Watch {
    fn settle(&mut self) {
        *self = Self { is_settled: true, ..Self::default() };
    }

    fn fail(&mut self, id: &WatchId, failure: &Failure) {
        self.listing = None;
        if failure.reason == FailureReason::Kubeconfig {
            self.kubeconfig_fault.clone_from(&failure.cause);
        }
        self.failure = Some(failure.reason);
        self.failed_since.get_or_insert(failure.at);
        self.failures = self.failures.saturating_add(1);
        // One Secret, selector or cluster never holds up all pools; what is there is unknown then, and what was known stays.
        let is_named = matches!(id.kind, Kind::Secret | Kind::Pod) || matches!(id.extent, Extent::Remote(_));
        let is_given_up = is_named && (failure.is_lasting() || self.failures >= FAILURES_MAX);
        self.is_settled |= is_given_up || failure.is_absence(id.kind);
    }
}

#[cfg(test)]
mod tests;

//! Services of other clusters.
//!
//! * **Nobody waits for them**, but for who starts ([`Cache::are_remotes_read`]).
//! * **Kubeconfigs.** A Service is watched with what its Secret holds. Other contents are other watches, and what was known
//!   stays until these have listed; without a Secret there is no watch, and what was known stays.
//! * **Lists** are believed at once: another cluster is the second choice of a set, and a Service of its own watch.

use super::{
    Cache, Changes, Extent, FAILURES_MAX, FailureReason, Item, Kind, NamedWatches, ObjectKey, Watch, WatchId,
};
use crate::cluster::followed::REMOTES_MAX;
use crate::compile::pool::key_of;
use crate::compile::{Away, AwayReason, Origin, RemoteService, World, remotes_of};
use k8s_openapi::ByteString;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

/// Kinds that are watched of each Service.
const KINDS: [Kind; 2] = [Kind::Service, Kind::EndpointSlice];

impl Cache {
    /// With which kubeconfig a watch is to be started; `None` for those of our own cluster.
    pub(crate) fn kubeconfig_of(&self, id: &WatchId) -> Option<&ByteString> {
        match &id.extent {
            Extent::Remote(remote) => self.kubeconfigs.get(remote),
            _ => None,
        }
    }

    /// Whether of each Service that is watched in another cluster everything was read once, or it is known why not.
    pub(crate) fn are_remotes_read(&self) -> bool {
        let remotes = &self.objects.remotes;
        self.kubeconfigs.keys().all(|remote| remotes.is_known(remote) || remotes.away.contains_key(remote))
    }

    /// Watches in other clusters.
    pub(super) fn remote_watches(&self) -> usize {
        self.kubeconfigs.len() * KINDS.len()
    }

    /// Starts to follow what pools that changed name, and takes in Secrets that changed.
    pub(super) fn follow_remotes(&mut self, changes: &mut Changes) -> NamedWatches {
        let (coming, objects) = (&self.coming, &self.objects);
        self.remotes.follow(&changes.touched.pools, |key| {
            coming.and_in_force(key, objects).flat_map(remotes_of).collect()
        });
        self.start_remotes(changes)
    }

    /// Ends watches that nobody names, and that nothing follows in what is served. For after a compile.
    pub(crate) fn release_remotes(&mut self, world: &World, changes: &mut Changes) -> NamedWatches {
        if !self.remotes.are_any_idle() {
            return NamedWatches::default();
        }
        let released = self.remotes.release(|remote| world.is_followed(&Origin::Remote(remote.clone())));
        let mut watches = NamedWatches::default();
        for remote in released {
            watches.unneeded.extend(self.stop_remote(&remote));
            self.objects.remotes.forget(&remote);
        }
        watches.extend(self.start_remotes(changes));
        watches
    }

    fn start_remotes(&mut self, changes: &mut Changes) -> NamedWatches {
        self.remotes.start(REMOTES_MAX);
        self.say_too_many(changes);
        let mut watches = NamedWatches::default();
        for remote in self.remotes.watched().clone() {
            let secret = self.objects.secrets.get(&remote.secret);
            let held = secret.and_then(|secret| secret.data.as_ref()?.get(&remote.key)).cloned();
            if self.kubeconfigs.get(&remote) == held.as_ref() {
                continue;
            }
            watches.unneeded.extend(self.stop_remote(&remote));
            match held {
                Some(held) => {
                    let ids = KINDS.map(|kind| WatchId::remote(kind, remote.clone()));
                    self.watches.extend(ids.iter().map(|id| (id.clone(), Watch::default())));
                    self.kubeconfigs.insert(remote, held);
                    watches.needed.extend(ids);
                }
                // Why is said of the Secret.
                None if self.objects.remotes.away.remove(&remote).is_some() => {
                    changes.touched.origins.insert(Origin::Remote(remote));
                }
                None => {}
            }
        }
        watches
    }

    fn stop_remote(&mut self, remote: &RemoteService) -> Vec<WatchId> {
        if self.kubeconfigs.remove(remote).is_none() {
            return Vec::new();
        }
        let ids = KINDS.map(|kind| WatchId::remote(kind, remote.clone()));
        ids.iter().for_each(|id| drop(self.watches.remove(id)));
        ids.into()
    }

    fn say_too_many(&mut self, changes: &mut Changes) {
        let (past, away) = (self.remotes.waiting(), &mut self.objects.remotes.away);
        let before = away.extract_if(.., |_, away| away.why == AwayReason::TooMany).map(|(remote, _)| remote);
        let before: BTreeSet<_> = before.collect();
        changes.touched.origins.extend(before.symmetric_difference(past).cloned().map(Origin::Remote));
        // Nothing failed at any time.
        let too_many = Away { since: SystemTime::UNIX_EPOCH, why: AwayReason::TooMany };
        away.extend(past.iter().map(|remote| (remote.clone(), too_many.clone())));
    }

    /// A watch has listed or failed: says whether the cluster is away, once that is certain either way.
    pub(super) fn judge_remote(&mut self, id: &WatchId, changes: &mut Changes) {
        let Extent::Remote(remote) = &id.extent else { return };
        let watches = KINDS.map(|kind| self.watches.get(&WatchId::remote(kind, remote.clone())));
        let failed = watches.iter().flatten().filter_map(|watch| watch.away());
        let away = failed.min_by_key(|away| away.since);
        let is_well = watches.iter().flatten().all(|watch| watch.is_settled && watch.failure.is_none());
        let before = self.objects.remotes.away.get(remote);
        let is_news = match &away {
            Some(away) => before != Some(away),
            None => is_well && before.is_some(),
        };
        if !is_news {
            return;
        }
        match away {
            Some(away) => drop(self.objects.remotes.away.insert(remote.clone(), away)),
            None => drop(self.objects.remotes.away.remove(remote)),
        }
        changes.touched.origins.insert(Origin::Remote(remote.clone()));
    }

    /// Takes in a whole list.
    pub(super) fn replace_remote(
        &mut self,
        kind: Kind,
        remote: &RemoteService,
        listed: BTreeMap<ObjectKey, Item>,
        changes: &mut Changes,
    ) {
        let remotes = &mut self.objects.remotes;
        let is_other = if kind == Kind::Service {
            let found = listed.into_values().find_map(|item| match item {
                Item::Service(service) if item_is(&service.metadata, remote) => Some(service),
                _ => None,
            });
            remotes.set_service(remote, found)
        } else {
            let slices = listed.into_iter().filter_map(|(key, item)| match item {
                Item::Slice(slice) => Some((key.name, slice)),
                _ => None,
            });
            remotes.replace_slices(remote, slices.collect())
        };
        self.touch_remote(is_other, remote, changes);
    }

    pub(super) fn put_remote(&mut self, remote: &RemoteService, item: Item, changes: &mut Changes) {
        let name = item.key().name;
        let remotes = &mut self.objects.remotes;
        let is_other = match item {
            Item::Service(service) if item_is(&service.metadata, remote) => {
                remotes.set_service(remote, Some(service))
            }
            Item::Slice(slice) => remotes.insert_slice(remote, name, slice),
            _ => false,
        };
        self.touch_remote(is_other, remote, changes);
    }

    pub(super) fn remove_remote(
        &mut self,
        kind: Kind,
        remote: &RemoteService,
        key: &ObjectKey,
        changes: &mut Changes,
    ) {
        let remotes = &mut self.objects.remotes;
        let is_other = match kind {
            Kind::Service => remotes.set_service(remote, None),
            _ => remotes.remove_slice(remote, &key.name),
        };
        self.touch_remote(is_other, remote, changes);
    }

    fn touch_remote(&self, is_other: bool, remote: &RemoteService, changes: &mut Changes) {
        // Of one that is half known nothing is used.
        if is_other && self.objects.remotes.is_known(remote) {
            changes.touched.origins.insert(Origin::Remote(remote.clone()));
        }
    }
}

/// Whether the API server sent what was asked for.
fn item_is(metadata: &ObjectMeta, remote: &RemoteService) -> bool {
    key_of(metadata) == remote.service
}

impl Watch {
    /// Why nothing is heard of it, once that is more than a broken connection that is made again.
    fn away(&self) -> Option<Away> {
        let (since, failure) = (self.failed_since?, self.failure?);
        let (why, is_lasting) = match failure {
            FailureReason::Kubeconfig => (AwayReason::Kubeconfig(self.kubeconfig_fault.clone()), true),
            FailureReason::Forbidden => (AwayReason::Forbidden, true),
            FailureReason::NotInstalled | FailureReason::Refused => (AwayReason::Refused, false),
            FailureReason::Unreachable => (AwayReason::Unreachable, false),
        };
        (is_lasting || self.failures >= FAILURES_MAX).then_some(Away { since, why })
    }
}

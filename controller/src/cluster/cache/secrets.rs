//! Secrets that pools name: which are watched, and what is known of those that cannot be read.

use super::{Cache, Changes, Extent, FailureReason, NamedWatches, ObjectKey, SECRETS_MAX, Unread, WatchId};
use std::collections::{BTreeMap, BTreeSet};

impl Cache {
    /// A Secret cannot be read, and nothing is known of it from before.
    pub(super) fn lacks_secret(&mut self, key: &ObjectKey, reason: FailureReason, changes: &mut Changes) {
        if self.objects.secrets.contains_key(key) {
            return;
        }
        let unread = match reason {
            FailureReason::Forbidden => Unread::Forbidden,
            FailureReason::NotInstalled
            | FailureReason::Refused
            | FailureReason::Unreachable
            | FailureReason::Kubeconfig => Unread::Unanswered,
        };
        if self.objects.unread_secrets.insert(key.clone(), unread) != Some(unread) {
            changes.touched.secrets.insert(key.clone());
        }
    }

    /// A Secret whose watch ends is forgotten. Costs what pools and grants that changed name; while pools name too many
    /// Secrets, what all of them name.
    pub(super) fn follow_secrets(&mut self, changes: &mut Changes) -> NamedWatches {
        let moved = self.references.follow(&changes.touched, &self.objects, &self.coming);
        if moved.is_empty() {
            return NamedWatches::default();
        }
        let is_crowded = self.unwatched > 0 || self.references.named().len() > SECRETS_MAX;
        let moved = if is_crowded { self.leave_out(changes) } else { moved };
        let named = |secret: &&ObjectKey| {
            let is_left_out = self.objects.unread_secrets.get(*secret) == Some(&Unread::TooMany);
            self.references.named().contains_key(*secret) && !is_left_out
        };
        let (wanted, unwanted): (Vec<_>, Vec<_>) = moved.iter().partition(named);
        let ids = |secrets: Vec<&ObjectKey>, is_running: bool| -> Vec<WatchId> {
            let ids = secrets.into_iter().cloned().map(WatchId::secret);
            ids.filter(|id| self.watches.contains_key(id) == is_running).collect()
        };
        let watches = NamedWatches { needed: ids(wanted, false), unneeded: ids(unwanted, true) };
        for secret in moved.iter().filter(|secret| !self.references.named().contains_key(*secret)) {
            if self.objects.unread_secrets.remove(secret).is_some() {
                changes.touched.secrets.insert(secret.clone());
            }
        }
        for id in &watches.unneeded {
            self.watches.remove(id);
            self.unsettled.remove(id);
            self.replace(id, BTreeMap::new(), changes);
        }
        watches.needed.iter().for_each(|id| self.wait_for(id.clone()));
        watches
    }

    /// Says which Secrets are past [`SECRETS_MAX`], and returns every one that has to do with the limit.
    fn leave_out(&mut self, changes: &mut Changes) -> BTreeSet<ObjectKey> {
        let named = self.references.named();
        let past: BTreeSet<_> = named.keys().skip(SECRETS_MAX).cloned().collect();
        let unread = &mut self.objects.unread_secrets;
        let before: BTreeSet<_> =
            unread.extract_if(.., |_, why| *why == Unread::TooMany).map(|(secret, _)| secret).collect();
        changes.touched.secrets.extend(before.symmetric_difference(&past).cloned());
        self.unwatched = past.len();
        let watched = self.watches.keys().filter_map(|id| match &id.extent {
            Extent::Object(key) => Some(key),
            Extent::Everywhere | Extent::Namespace(_) | Extent::Selected(_) | Extent::Remote(_) => None,
        });
        let all = named.keys().chain(watched).cloned().collect();
        unread.extend(past.into_iter().map(|secret| (secret, Unread::TooMany)));
        all
    }
}

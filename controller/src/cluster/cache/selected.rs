//! Pods that selectors take.
//!
//! Each selector is a watch of its own with pods of its own, so that an event says by itself which sets it is of.

use super::{Cache, Changes, FAILURES_MAX, FailureReason, Item, NamedWatches, ObjectKey, WatchId};
use crate::cluster::followed::SELECTORS_MAX;
use crate::compile::{Origin, Selector, Unread, World, selectors_of};
use std::collections::{BTreeMap, BTreeSet};

impl Cache {
    /// Selectors that are named by pools and not watched, since there are too many.
    pub(crate) fn unwatched_selectors(&self) -> usize {
        self.selectors.waiting().len()
    }

    /// Starts to follow what pools that changed name. What they do not name any more stays for now, see
    /// [`Self::release_selectors`].
    pub(super) fn follow_selectors(&mut self, changes: &mut Changes) -> Vec<WatchId> {
        let (coming, objects) = (&self.coming, &self.objects);
        self.selectors.follow(&changes.touched.pools, |key| {
            coming.and_in_force(key, objects).flat_map(selectors_of).collect()
        });
        self.start_selectors(changes)
    }

    /// Ends watches that nobody names, and that nothing follows in what is served. For after a compile.
    pub(crate) fn release_selectors(&mut self, world: &World, changes: &mut Changes) -> NamedWatches {
        if !self.selectors.are_any_idle() {
            return NamedWatches::default();
        }
        let released = self.selectors.release(|selector| world.is_followed(&Origin::Pods(selector.clone())));
        let forget = |selector: Selector| {
            self.objects.pods.forget(&selector);
            let id = WatchId::pods(selector);
            self.watches.remove(&id);
            self.unsettled.remove(&id);
            id
        };
        let unneeded = released.into_iter().map(forget).collect();
        NamedWatches { needed: self.start_selectors(changes), unneeded }
    }

    fn start_selectors(&mut self, changes: &mut Changes) -> Vec<WatchId> {
        let started = self.selectors.start(SELECTORS_MAX);
        let (past, unread) = (self.selectors.waiting(), &mut self.objects.pods.unread);
        let before = unread.extract_if(.., |_, why| *why == Unread::TooMany).map(|(selector, _)| selector);
        let before: BTreeSet<_> = before.collect();
        let moved = before.symmetric_difference(past).cloned();
        changes.touched.origins.extend(moved.map(Origin::Pods));
        unread.extend(past.iter().map(|selector| (selector.clone(), Unread::TooMany)));
        let started: Vec<_> = started.into_iter().map(WatchId::pods).collect();
        started.iter().for_each(|id| self.wait_for(id.clone()));
        started
    }

    /// Takes in all pods of a selector.
    pub(super) fn replace_pods(
        &mut self,
        selector: &Selector,
        listed: BTreeMap<ObjectKey, Item>,
        changes: &mut Changes,
    ) {
        let pods = listed.into_values().filter_map(|item| match item {
            Item::Pod(key, pod) => Some((key.name, pod)),
            _ => None,
        });
        let was_unread = self.objects.pods.unread.remove(selector).is_some();
        if self.objects.pods.replace(selector, pods.collect()) || was_unread {
            changes.touched.origins.insert(Origin::Pods(selector.clone()));
        }
    }

    /// The watch of a selector failed for the last time so far. What was known of it stays.
    pub(super) fn lacks_pods(&mut self, id: &WatchId, selector: &Selector, changes: &mut Changes) {
        let Some(watch) = self.watches.get(id) else { return };
        let is_known = self.objects.pods.is_known(selector);
        let why = match watch.failure {
            Some(FailureReason::Forbidden) => Unread::Forbidden,
            // It goes on from where it was without a word, so that nothing would take this back.
            Some(FailureReason::Unreachable) if is_known => return,
            _ if is_known && watch.failures < FAILURES_MAX => return,
            _ => Unread::Unanswered,
        };
        if self.objects.pods.unread.insert(selector.clone(), why) != Some(why) {
            changes.touched.origins.insert(Origin::Pods(selector.clone()));
        }
    }
}

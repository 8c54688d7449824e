//! What pools name and is watched for that, kept up to date pool by pool: selectors of pods, Services of other clusters.
//!
//! * **Room.** At most so many of one sort are watched. What is watched stays: a pool that comes later never takes the
//!   backends of another. Those past the limit get what becomes free, the first ones in their order.
//! * **The end of a watch.** What no pool names any more is watched on while what is served still follows it: a pool that
//!   names another selector loses its backends only when those of the other are there, and one that is rejected serves what
//!   it said before.

use crate::compile::ObjectKey;
use std::collections::{BTreeMap, BTreeSet};

/// Selectors whose pods are watched. Each is a connection to the API server.
pub const SELECTORS_MAX: usize = 256;

/// Services of other clusters that are watched. Each is two watches there.
pub const REMOTES_MAX: usize = 64;

/// Who names what, and what follows from it. Each that is named is either watched or waits; one that is watched and not
/// named is idle.
#[derive(Debug)]
pub(super) struct Followed<T> {
    by_pool: BTreeMap<ObjectKey, BTreeSet<T>>,
    /// With how many pools name it.
    named: BTreeMap<T, usize>,
    watched: BTreeSet<T>,
    waiting: BTreeSet<T>,
    idle: BTreeSet<T>,
}

impl<T> Default for Followed<T> {
    fn default() -> Self {
        Self {
            by_pool: BTreeMap::new(),
            named: BTreeMap::new(),
            watched: BTreeSet::new(),
            waiting: BTreeSet::new(),
            idle: BTreeSet::new(),
        }
    }
}

impl<T: Ord + Clone> Followed<T> {
    /// Those that are watched.
    pub(super) fn watched(&self) -> &BTreeSet<T> {
        &self.watched
    }

    /// Those for which there is no room.
    pub(super) fn waiting(&self) -> &BTreeSet<T> {
        &self.waiting
    }

    /// Whether some watch may have to end.
    pub(super) fn are_any_idle(&self) -> bool {
        !self.idle.is_empty()
    }

    /// What a pool names.
    pub(super) fn of(&self, pool: &ObjectKey) -> impl Iterator<Item = &T> {
        self.by_pool.get(pool).into_iter().flatten()
    }

    /// Takes in pools that changed; `of` is what one names.
    pub(super) fn follow(&mut self, pools: &BTreeSet<ObjectKey>, of: impl Fn(&ObjectKey) -> BTreeSet<T>) {
        for key in pools {
            let now = of(key);
            // First what is named, so that what both name is named all the way.
            now.iter().for_each(|named| self.name(named));
            let before = match now.is_empty() {
                true => self.by_pool.remove(key),
                false => self.by_pool.insert(key.clone(), now),
            };
            before.iter().flatten().for_each(|named| self.unname(named));
        }
    }

    /// Those that there is room for now, where at most so many are watched.
    pub(super) fn start(&mut self, watched_max: usize) -> Vec<T> {
        let mut started = Vec::new();
        while self.watched.len() < watched_max
            && let Some(named) = self.waiting.pop_first()
        {
            self.watched.insert(named.clone());
            started.push(named);
        }
        started
    }

    /// Those that are not to be watched any longer: nobody names them, and nothing that is served follows them.
    pub(super) fn release(&mut self, is_followed: impl Fn(&T) -> bool) -> Vec<T> {
        let released: Vec<_> = self.idle.extract_if(.., |idle| !is_followed(idle)).collect();
        for idle in &released {
            self.watched.remove(idle);
        }
        released
    }

    fn name(&mut self, named: &T) {
        let pools = self.named.entry(named.clone()).or_default();
        *pools += 1;
        if *pools == 1 && !self.idle.remove(named) {
            self.waiting.insert(named.clone());
        }
    }

    fn unname(&mut self, named: &T) {
        let Some(pools) = self.named.get_mut(named) else { return };
        *pools -= 1;
        if *pools == 0 {
            self.named.remove(named);
            if !self.waiting.remove(named) {
                self.idle.insert(named.clone());
            }
        }
    }
}

//! The selectors that pools name, kept up to date pool by pool, and which of them are watched.
//!
//! * **Room.** At most [`SELECTORS_MAX`] are watched. Who is watched stays: a pool that comes later never takes the
//!   backends of another. Those past the limit get what becomes free, the first ones by namespace and query.
//! * **The end of a watch.** A selector that no pool names any more is watched on while what is served still follows it:
//!   a pool that names another one loses its backends only when those of the other are there, and one that is rejected
//!   serves what it said before.

use crate::compile::{ObjectKey, Objects, Selector, selectors_of};
use std::collections::{BTreeMap, BTreeSet};

/// Selectors whose pods are watched. Each is a connection to the API server.
pub const SELECTORS_MAX: usize = 256;

/// Who names what, and what follows from it. Each selector that is named is either watched or waits; one that is watched
/// and not named is idle.
#[derive(Debug, Default)]
pub(super) struct Selectors {
    by_pool: BTreeMap<ObjectKey, BTreeSet<Selector>>,
    /// With how many pools name it.
    named: BTreeMap<Selector, usize>,
    watched: BTreeSet<Selector>,
    waiting: BTreeSet<Selector>,
    idle: BTreeSet<Selector>,
}

impl Selectors {
    /// How many are watched.
    pub(super) fn watched(&self) -> usize {
        self.watched.len()
    }

    /// Those for which there is no room.
    pub(super) fn waiting(&self) -> &BTreeSet<Selector> {
        &self.waiting
    }

    /// Whether some watch may have to end.
    pub(super) fn are_any_idle(&self) -> bool {
        !self.idle.is_empty()
    }

    /// Takes in pools that changed.
    pub(super) fn follow(&mut self, pools: &BTreeSet<ObjectKey>, objects: &Objects) {
        for key in pools {
            let now = objects.pools.get(key).map(|pool| selectors_of(pool)).unwrap_or_default();
            // First what is named, so that what both name is named all the way.
            now.iter().for_each(|selector| self.name(selector));
            let before = match now.is_empty() {
                true => self.by_pool.remove(key),
                false => self.by_pool.insert(key.clone(), now),
            };
            before.iter().flatten().for_each(|selector| self.unname(selector));
        }
    }

    /// Those that there is room for now.
    pub(super) fn start(&mut self) -> Vec<Selector> {
        let mut started = Vec::new();
        while self.watched.len() < SELECTORS_MAX
            && let Some(selector) = self.waiting.pop_first()
        {
            self.watched.insert(selector.clone());
            started.push(selector);
        }
        started
    }

    /// Those that are not to be watched any longer: nobody names them, and nothing that is served follows them.
    pub(super) fn release(&mut self, is_followed: impl Fn(&Selector) -> bool) -> Vec<Selector> {
        let released: Vec<_> = self.idle.extract_if(.., |selector| !is_followed(selector)).collect();
        for selector in &released {
            self.watched.remove(selector);
        }
        released
    }

    fn name(&mut self, selector: &Selector) {
        let pools = self.named.entry(selector.clone()).or_default();
        *pools += 1;
        if *pools == 1 && !self.idle.remove(selector) {
            self.waiting.insert(selector.clone());
        }
    }

    fn unname(&mut self, selector: &Selector) {
        let Some(pools) = self.named.get_mut(selector) else { return };
        *pools -= 1;
        if *pools == 0 {
            self.named.remove(selector);
            if !self.waiting.remove(selector) {
                self.idle.insert(selector.clone());
            }
        }
    }
}

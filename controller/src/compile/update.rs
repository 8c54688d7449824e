//! A change of some objects, at the cost of what it changes.
//!
//! ```text
//! Touched -> sets that follow an origin
//!         -> pools that are named, or name a Secret, or refer to a namespace -> each in its turn
//!                ^                                                              |
//!                +------ those after it that conflict or conflicted with it ----+
//! ```
//!
//! What becomes of a pool depends on its objects, on what was served of it, and on pools whose turn is before its own:
//! on what they were granted, and on how many they are. So pools are looked at in the order of their turns, and each
//! whose claims or place changed calls on those after it that this makes a difference to. Nobody is looked at
//! twice, and what comes of it is what [`super::world()`] makes of everything.

use super::conflict::{Claimant, Turn};
use super::{CompiledPool, ObjectKey, Objects, Touched, World};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// One change being followed.
#[derive(Default)]
struct Pass {
    /// Turns to be looked at, all after those that were.
    due: BTreeSet<Arc<Turn>>,
    /// Of pools whose turn changed: what was served of them.
    moved: BTreeMap<ObjectKey, CompiledPool>,
    seen: BTreeSet<ObjectKey>,
}

impl World {
    /// Makes this the world that [`super::world()`] makes of `objects` with this one as the previous, provided that
    /// nothing changed in between but what is `touched`. Returns the pools that were looked at: no other has changed.
    pub fn update(&mut self, objects: &Objects, touched: &Touched) -> BTreeSet<ObjectKey> {
        let mut pass = Pass::default();
        for origin in &touched.origins {
            pass.seen.extend(self.refresh(origin, objects).into_iter().map(|set| set.pool));
        }
        let index = &self.index;
        let by_secret = touched.secrets.iter().flat_map(|secret| index.naming_secret(secret));
        let by_grant = touched.grants.iter().flat_map(|namespace| index.referring_to(namespace));
        pass.due.extend(by_secret.chain(by_grant).cloned());
        for key in &touched.pools {
            self.take_up(key, objects, &mut pass);
        }
        while let Some(turn) = self.next(&mut pass) {
            self.look_at(&turn, objects, &mut pass);
        }
        pass.seen
    }

    /// A pool that is gone, or whose turn is another, leaves at once: all that it had is for those after it.
    fn take_up(&mut self, key: &ObjectKey, objects: &Objects, pass: &mut Pass) {
        let now = objects.pools.get(key).map(|pool| Turn::new(key, pool));
        match (self.index.turn(key).cloned(), now) {
            (Some(before), Some(now)) if *before == now => {
                pass.due.insert(before);
            }
            (before, now) => {
                if let Some(before) = before {
                    let served = self.leave(&before, pass);
                    pass.due.remove(&before);
                    pass.moved.extend(served.map(|served| (key.clone(), served)));
                    pass.seen.insert(key.clone());
                }
                pass.due.extend(now.map(Arc::new));
            }
        }
    }

    fn next(&self, pass: &mut Pass) -> Option<Arc<Turn>> {
        match self.index.next_to_place() {
            Some(turn) if pass.due.first().is_none_or(|due| turn < due) => Some(Arc::clone(turn)),
            _ => pass.due.pop_first(),
        }
    }

    fn look_at(&mut self, turn: &Arc<Turn>, objects: &Objects, pass: &mut Pass) {
        let key = &turn.pool;
        let last_place = self.index.last_place();
        let had_other_turn = pass.moved.remove(key);
        let has_moved = had_other_turn.is_some();
        let before = self.expel(key).or(had_other_turn);
        self.admit(turn, objects, before.as_ref());
        pass.seen.insert(key.clone());
        let now = self.serving(key);
        if has_moved || !has_equal_claims(before.as_ref(), now) {
            for pool in [before.as_ref(), now].into_iter().flatten() {
                self.call_rivals(turn, pool, &mut pass.due);
            }
        }
        self.call_crowded_out(turn, last_place.as_ref(), &mut pass.due);
    }

    /// A pool leaves, and those after it that it stood in the way of are called.
    fn leave(&mut self, turn: &Arc<Turn>, pass: &mut Pass) -> Option<CompiledPool> {
        let served = self.expel(&turn.pool)?;
        self.call_rivals(turn, &served, &mut pass.due);
        Some(served)
    }

    fn call_rivals(&self, turn: &Arc<Turn>, pool: &CompiledPool, due: &mut BTreeSet<Arc<Turn>>) {
        let of = Claimant { turn, data_plane: &pool.data_plane };
        self.index.granted.add_rivals(of, pool.claims(), due);
        self.index.awaited.add_rivals(of, pool.claims(), due);
    }

    /// Where the last place is an earlier one than before: those that had a place, and have none now.
    fn call_crowded_out(&self, turn: &Arc<Turn>, before: Option<&Arc<Turn>>, due: &mut BTreeSet<Arc<Turn>>) {
        let Some(now) = self.index.last_place() else { return };
        if before.is_some_and(|before| *before <= now) {
            return;
        }
        due.extend(self.index.placed_between((&now).max(turn), before.map(|before| &**before)).cloned());
    }
}

/// Whether two things that are served of one pool are in nobody else's way, or in the way of the same.
fn has_equal_claims(before: Option<&CompiledPool>, now: Option<&CompiledPool>) -> bool {
    match (before, now) {
        (Some(before), Some(now)) => {
            let asked = |pool: &CompiledPool| {
                let claims = pool.claims().iter();
                claims
                    .map(|claim| (claim.port, claim.protocol, claim.hostname.clone(), claim.settings.clone()))
                    .collect::<BTreeSet<_>>()
            };
            before.data_plane == now.data_plane && asked(before) == asked(now)
        }
        (None, None) => true,
        _ => false,
    }
}

//! The buckets of a limit by key, in a table of fixed size.
//!
//! A key has sixteen slots, in two places. It keeps its slot for as long as its bucket is not full; a full one says nothing
//! that a new one would not, so its slot may be taken by another key, and nothing else ever takes one. Where all
//! sixteen are in use by others, the key is counted in one of a few buckets that such keys share: somebody who sends
//! from a million addresses fills the table and then those, so that he neither makes memory grow nor frees anybody of
//! a limit. New clients, meanwhile, share buckets with him.
//!
//! What is counted in a bucket is exact. As a slot passes from one key to another, a request of the first that is under
//! way at that moment may be counted on the second, and two workers that meet a new key in the same instant may give it
//! two buckets, of which one is then forgotten: a key has one request for each worker, or one burst, more than it
//! should, once.

use std::sync::atomic::{AtomicU64, Ordering};

/// Slots in one place.
const SLOTS: usize = 8;
/// Keys for which there is one shared bucket.
const KEYS_PER_SHARED: usize = 16;
/// Shared buckets at least.
const SHARED_MIN: usize = 64;

/// Of nobody or of one key.
#[derive(Debug, Default)]
struct Slot {
    /// 0: nobody's.
    key: AtomicU64,
    state: AtomicU64,
}

/// Buckets by key.
#[derive(Debug)]
pub struct KeyTable {
    places: Box<[[Slot; SLOTS]]>,
    shared: Box<[AtomicU64]>,
    /// Requests that went to `shared`.
    overflows: AtomicU64,
}

impl KeyTable {
    /// For so many keys at a time. Memory is taken at once, 20 bytes for each: five slots for four keys, so that few
    /// keys find their slots taken before the table is full.
    #[must_use]
    pub fn new(keys_max: u32) -> Self {
        let keys = usize::try_from(keys_max).expect("at least 32 bits").max(1);
        let places = (keys + keys / 4).div_ceil(SLOTS).max(2);
        let shared = (keys / KEYS_PER_SHARED).max(SHARED_MIN);
        Self {
            places: (0..places).map(|_| Default::default()).collect(),
            shared: (0..shared).map(|_| AtomicU64::new(0)).collect(),
            overflows: AtomicU64::new(0),
        }
    }

    /// Requests that shared a bucket with those of other keys.
    #[must_use]
    pub fn shared(&self) -> u64 {
        self.overflows.load(Ordering::Relaxed)
    }

    /// The bucket of a key, given by a hash that clients cannot foresee. `is_full` says of a bucket whether it may be
    /// forgotten.
    pub(super) fn bucket(&self, key: u64, is_full: impl Fn(u64) -> bool) -> &AtomicU64 {
        let key = key.max(1);
        let [first, second] = self.places_of(key);
        if let Some(slot) = first.iter().chain(second).find(|slot| slot.key.load(Ordering::Acquire) == key) {
            return &slot.state;
        }
        let is_free = |slot: &Slot| {
            slot.key.load(Ordering::Acquire) == 0 || is_full(slot.state.load(Ordering::Relaxed))
        };
        // Into the emptier place (Azar, Broder, Karlin and Upfal, "Balanced Allocations", 1999).
        let free = |place: &[Slot]| place.iter().filter(|slot| is_free(slot)).count();
        let places = if free(first) < free(second) { [second, first] } else { [first, second] };
        for slot in places.into_iter().flatten() {
            let owner = slot.key.load(Ordering::Acquire);
            if owner != key && owner != 0 && !is_full(slot.state.load(Ordering::Relaxed)) {
                continue;
            }
            match slot.key.compare_exchange(owner, key, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return &slot.state,
                // Another worker was faster, with the same key.
                Err(faster) if faster == key => return &slot.state,
                Err(_) => {}
            }
        }
        self.overflows.fetch_add(1, Ordering::Relaxed);
        &self.shared[index(key.rotate_left(24), self.shared.len())]
    }

    fn places_of(&self, key: u64) -> [&[Slot]; 2] {
        [key, key.rotate_left(32)].map(|hash| self.places[index(hash, self.places.len())].as_slice())
    }
}

/// Evenly from a hash to an index below `len`, by its upper half.
fn index(hash: u64, len: usize) -> usize {
    let scaled = (u128::from(hash) * len as u128) >> 64;
    usize::try_from(scaled).expect("below len")
}

//! Slots, in buckets, in segments that are allocated when a session first needs them.

use super::Choice;
use crate::balance::mix;
use std::slice;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Slots of a bucket.
pub(super) const SLOTS: usize = 8;
/// Buckets of a segment: 12 KiB.
const SEGMENT_BUCKETS: usize = 64;

/// In place of a check: nobody is here.
pub(super) const EMPTY: u64 = 0;
/// In place of a check: somebody is writing.
const BUSY: u64 = 1;

/// One session, or none.
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// [`EMPTY`], [`BUSY`], or the key mixed with the choice.
    check: AtomicU64,
    backend: AtomicU64,
    /// The set's tag above, the second of the last use below.
    rest: AtomicU64,
}

/// What a slot says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) check: u64,
    pub(super) key: u64,
    pub(super) choice: Choice,
    pub(super) last: u32,
}

impl Slot {
    /// The session that is here, if one is. Of a slot that is being written, the key comes out as nobody's.
    pub(super) fn entry(&self) -> Option<Entry> {
        let check = self.check.load(Ordering::Acquire);
        if check <= BUSY {
            return None;
        }
        let backend = self.backend.load(Ordering::Relaxed);
        let rest = self.rest.load(Ordering::Relaxed);
        let (set, last) = halves(rest);
        let choice = Choice { set, backend };
        Some(Entry { check, key: check ^ mixed(choice), choice, last })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.check.load(Ordering::Relaxed) == EMPTY
    }

    /// Puts a session in place of what the check stands for; `false` where that is not here any more.
    pub(super) fn replace(&self, check: u64, key: u64, choice: Choice, last: u32) -> bool {
        if self.check.compare_exchange(check, BUSY, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return false;
        }
        self.backend.store(choice.backend, Ordering::Relaxed);
        self.rest.store((u64::from(choice.set) << 32) | u64::from(last), Ordering::Relaxed);
        // One key in 2^63 would look like an empty slot; its session is then not found, and ends as others do.
        self.check.store((key ^ mixed(choice)).max(BUSY + 1), Ordering::Release);
        true
    }

    pub(super) fn clear(&self, check: u64) -> bool {
        self.check.compare_exchange(check, EMPTY, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Writes nothing where the second is the same. Where another session took the slot meanwhile, its set or its last
    /// use is another one and stays, or it was used in this second anyway.
    pub(super) fn touch(&self, entry: Entry, now: u32) {
        if entry.last >= now {
            return;
        }
        let set = u64::from(entry.choice.set) << 32;
        let (before, after) = (set | u64::from(entry.last), set | u64::from(now));
        let _ = self.rest.compare_exchange(before, after, Ordering::Relaxed, Ordering::Relaxed);
    }
}

fn halves(rest: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = rest.to_be_bytes();
    (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]))
}

fn mixed(choice: Choice) -> u64 {
    // The constant keeps zeros, which mixing leaves as they are, from adding up to an empty slot.
    mix(choice.backend ^ mix(u64::from(choice.set) ^ 0x9e37_79b9_7f4a_7c15))
}

/// Three cache lines.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Bucket([Slot; SLOTS]);

impl<'a> IntoIterator for &'a Bucket {
    type Item = &'a Slot;
    type IntoIter = slice::Iter<'a, Slot>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// A table of one size.
#[derive(Debug)]
pub(super) struct Buckets {
    count: usize,
    segments: Box<[OnceLock<Box<[Bucket]>>]>,
}

impl Buckets {
    /// `count` is 2 to 2^32.
    pub(super) fn new(count: usize) -> Self {
        let segments = (0..count.div_ceil(SEGMENT_BUCKETS)).map(|_| OnceLock::new()).collect();
        Self { count, segments }
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Allocated memory.
    pub(super) fn bytes(&self) -> usize {
        let segments = self.segments.iter().filter_map(OnceLock::get);
        size_of_val(&*self.segments) + segments.map(|segment| size_of_val(&**segment)).sum::<usize>()
    }

    /// `None` where no session was put near it.
    pub(super) fn bucket(&self, at: usize) -> Option<&Bucket> {
        self.segments.get(at / SEGMENT_BUCKETS)?.get()?.get(at % SEGMENT_BUCKETS)
    }

    /// The slots that hold a key, in an order that is the same for everybody.
    pub(super) fn slots_of(&self, key: u64) -> impl Iterator<Item = (&Slot, Entry)> {
        let slots = self.positions(key).into_iter().filter_map(|at| self.bucket(at)).flatten();
        slots.filter_map(move |slot| Some((slot, slot.entry().filter(|entry| entry.key == key)?)))
    }

    /// Both buckets of a key, allocated.
    pub(super) fn both_of(&self, key: u64) -> impl Iterator<Item = &Bucket> {
        self.positions(key).into_iter().map(|at| {
            let segment = self.segments[at / SEGMENT_BUCKETS]
                .get_or_init(|| (0..SEGMENT_BUCKETS).map(|_| Bucket::default()).collect());
            &segment[at % SEGMENT_BUCKETS]
        })
    }

    /// Two different buckets, by the two halves of the key's hash.
    fn positions(&self, key: u64) -> [usize; 2] {
        let (first, second) = halves(mix(key));
        let position = |half: u32| {
            let at = (u64::from(half) * self.count as u64) >> 32;
            usize::try_from(at).expect("less than the count")
        };
        let (first, second) = (position(first), position(second));
        if first == second { [first, (first + 1) % self.count] } else { [first, second] }
    }
}

//! Sessions by what the client sends: a bounded table without a lock.
//!
//! Set-associative: a key has two buckets of eight slots. A new session takes a slot of the emptier one (Azar, Broder,
//! Karlin and Upfal, "Balanced Allocations", 1999), so that four fifths of all slots fill before a thousandth of the
//! sessions finds both buckets full; where they are, the session of the two that was unused for longest goes.
//!
//! A slot is three words. Nothing but single words is atomic, so the first word holds the key mixed with all else that
//! matters (Hyatt and Mann, "A lockless transposition-table implementation for parallel search", 2002): what a
//! reader puts together from two sessions, or from two choices of one, does not add up and is no session. A
//! writer claims a slot by exchanging that word, so two of them never write the same one.
//!
//! The table begins small and doubles. The sessions of the smaller one move a few buckets with each [`SessionTable::put`],
//! so that no request pays for all of them; meanwhile both are looked at. It never shrinks.

mod buckets;

use super::Choice;
use arc_swap::ArcSwap;
use buckets::{Buckets, Entry, SLOTS, Slot};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::time::Duration;

/// Sessions for each bucket of a table of full size, times ten. At 6.4 of 8, filling a table for 1,000,000 displaces 191
/// sessions and takes 30 bytes for each.
const FULL_TENTHS: usize = 64;
/// Sessions for each bucket at which a table that is not of full size doubles.
const GROW_AT: u64 = 5;
/// Buckets that a table begins with, at least, where its full size is not less: 96 KiB. While the system holds up a thread
/// that moves sessions, the table cannot double again, and this leaves room for what comes meanwhile.
const BUCKETS_FIRST: usize = 512;
/// Buckets of a smaller table that one put moves. It is empty long before the larger one can be full.
const MOVED_EACH_PUT: usize = 4;
/// Buckets of a smaller table that one sweep moves.
const MOVED_EACH_SWEEP: usize = 4096;
/// How often an operation begins again because others were faster. A put that still fails is dropped: the session is
/// then chosen again.
const ATTEMPTS_MAX: usize = 8;

/// Sessions of one pool in this process, shared by all workers.
///
/// All times are since the process began, from one clock, and count in whole seconds: a session is forgotten once it was
/// unused for longer than the idle timeout, up to a second later.
#[derive(Debug)]
pub struct SessionTable {
    sessions_max: u64,
    idle_timeout: Duration,
    /// In seconds, rounded up.
    idle: u32,
    /// Of the full size.
    buckets_max: usize,
    generation: ArcSwap<Generation>,
    is_growing: AtomicBool,
    live: AtomicU64,
    expired: AtomicU64,
    displaced: AtomicU64,
}

/// The slots there are.
#[derive(Debug)]
struct Generation {
    current: Arc<Buckets>,
    /// The smaller table from before, until all of it has moved.
    old: Option<Old>,
}

#[derive(Debug)]
struct Old {
    buckets: Arc<Buckets>,
    /// The next bucket to move.
    next: AtomicUsize,
    /// Buckets that have not moved yet.
    left: AtomicUsize,
}

/// What becomes of a session that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Moves,
    Stays,
}

/// Slots of the two buckets of a key.
#[derive(Debug)]
struct Room<'a> {
    /// In the emptier one: an expired session's or an empty one.
    free: Option<(&'a Slot, Option<Entry>)>,
    /// The session that was unused for longest.
    oldest: Option<(&'a Slot, Entry)>,
}

/// A session that is to be there.
#[derive(Debug, Clone, Copy)]
struct Newcomer {
    key: u64,
    choice: Choice,
    last: u32,
    now: u32,
}

impl SessionTable {
    /// An empty table for this many sessions, at least one. Memory comes with sessions: 24 bytes a slot, and five slots
    /// for four sessions once it is full.
    #[must_use]
    pub fn new(sessions_max: u32, idle_timeout: Duration) -> Self {
        let sessions_max = sessions_max.max(1);
        let whole = usize::try_from(sessions_max).expect("at least 32 bits");
        let buckets_max = (whole * 10).div_ceil(FULL_TENTHS).max(2);
        let mut buckets = buckets_max;
        while buckets / 2 >= BUCKETS_FIRST {
            buckets = buckets.div_ceil(2);
        }
        let first = Generation { current: Arc::new(Buckets::new(buckets)), old: None };
        let idle = idle_timeout.as_secs() + u64::from(idle_timeout.subsec_nanos() > 0);
        Self {
            sessions_max: sessions_max.into(),
            idle_timeout,
            idle: u32::try_from(idle).unwrap_or(u32::MAX).max(1),
            buckets_max,
            generation: ArcSwap::from_pointee(first),
            is_growing: AtomicBool::new(false),
            live: AtomicU64::new(0),
            expired: AtomicU64::new(0),
            displaced: AtomicU64::new(0),
        }
    }

    /// As it was made with.
    #[must_use]
    pub fn idle_timeout(&self) -> Duration {
        self.idle_timeout
    }

    /// As it was made with.
    #[must_use]
    pub fn sessions_max(&self) -> u32 {
        u32::try_from(self.sessions_max).unwrap_or(u32::MAX)
    }

    /// Where a session's requests go. Counts as a use, which is written once a second at most.
    ///
    /// Six cache lines at most. A session that another thread moves at this very moment may not be found.
    #[must_use]
    pub fn find(&self, key: u64, now: Duration) -> Option<Choice> {
        self.find_used(key, now).map(|(choice, _)| choice)
    }

    /// As [`Self::find`], with the second of the use before this one.
    #[must_use]
    pub fn find_used(&self, key: u64, now: Duration) -> Option<(Choice, Duration)> {
        let now = seconds(now);
        let mut generation = self.generation.load();
        for _ in 0..ATTEMPTS_MAX {
            if let Some((slot, entry)) = generation.find(key) {
                if self.is_expired(entry.last, now) {
                    return None;
                }
                slot.touch(entry, now);
                return Some((entry.choice, Duration::from_secs(entry.last.into())));
            }
            // It may have moved out of the table that was the current one.
            let latest = self.generation.load();
            if Arc::ptr_eq(&latest, &generation) {
                return None;
            }
            generation = latest;
        }
        None
    }

    /// Remembers a session, or moves it. Where there is no room, the session is displaced that was unused for longest in
    /// the two buckets of this key.
    pub fn put(&self, key: u64, choice: Choice, now: Duration) {
        let now = seconds(now);
        let newcomer = Newcomer { key, choice, last: now, now };
        let mut before: Option<Arc<Generation>> = None;
        for _ in 0..ATTEMPTS_MAX {
            let generation = self.generation.load_full();
            self.advance(&generation, MOVED_EACH_PUT, now);
            if !self.place(&generation.current, newcomer, Known::Moves) {
                continue;
            }
            if let Some(old) = &generation.old {
                self.clear_all(&old.buckets, key);
            }
            if let Some(before) = before.take_if(|it| !Arc::ptr_eq(&it.current, &generation.current)) {
                self.clear_all(&before.current, key);
            }
            // Whoever replaced the generation meanwhile may have moved this bucket before the session came.
            fence(Ordering::SeqCst);
            if Arc::ptr_eq(&self.generation.load(), &generation) {
                return self.grow_when_due(&generation);
            }
            before = Some(generation);
        }
    }

    /// Ends a session.
    pub fn remove(&self, key: u64) {
        let generation = self.generation.load_full();
        self.clear_all(&generation.current, key);
        if let Some(old) = &generation.old {
            self.clear_all(&old.buckets, key);
            // It may have moved in between.
            self.clear_all(&generation.current, key);
        }
    }

    /// Sessions in the table now: slots that are taken, so sessions that expired count until [`Self::sweep`] or another
    /// session finds them. Never more than there may be. Exact when nothing changes; a thread that writes at this moment
    /// may count one too many.
    #[must_use]
    pub fn live(&self) -> u64 {
        self.live.load(Ordering::Relaxed)
    }

    /// Sessions that were found unused for too long, since the table was made. Exact.
    #[must_use]
    pub fn expired(&self) -> u64 {
        self.expired.load(Ordering::Relaxed)
    }

    /// Sessions that went for lack of room, since the table was made. Exact.
    #[must_use]
    pub fn displaced(&self) -> u64 {
        self.displaced.load(Ordering::Relaxed)
    }

    /// Memory that is allocated, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let generation = self.generation.load();
        let old = generation.old.as_ref().map_or(0, |old| old.buckets.bytes());
        size_of::<Self>() + generation.current.bytes() + old
    }

    /// Ends the sessions of the `part`th of `parts` of the table that were unused for too long. For a task in the
    /// background; O(slots / parts).
    pub fn sweep(&self, now: Duration, part: usize, parts: usize) {
        let now = seconds(now);
        let generation = self.generation.load_full();
        self.advance(&generation, MOVED_EACH_SWEEP, now);
        generation.for_each(part, parts, |slot, entry| {
            if self.is_expired(entry.last, now) && self.clear(slot, entry) {
                self.expired.fetch_add(1, Ordering::Relaxed);
            }
        });
    }

    /// Ends the sessions of that part whose choice is worth nothing any more; gives how many. O(slots / parts).
    pub fn forget(&self, is_gone: impl Fn(Choice) -> bool, part: usize, parts: usize) -> u64 {
        let mut count = 0;
        self.generation.load_full().for_each(part, parts, |slot, entry| {
            count += u64::from(is_gone(entry.choice) && self.clear(slot, entry));
        });
        count
    }

    fn is_expired(&self, last: u32, now: u32) -> bool {
        now.saturating_sub(last) > self.idle
    }

    /// `false` where others were faster.
    fn place(&self, buckets: &Buckets, newcomer: Newcomer, known: Known) -> bool {
        let Some(is_written) = self.try_place(buckets, newcomer, known) else { return false };
        if is_written {
            // Another thread may have written the same session to another slot. Both look after both have written, so at
            // least one sees two; the first in order stays.
            fence(Ordering::SeqCst);
            for (slot, entry) in buckets.slots_of(newcomer.key).skip(1) {
                self.clear(slot, entry);
            }
        }
        true
    }

    /// Whether a slot was written, or the session was there already; `None` where others were faster.
    fn try_place(&self, buckets: &Buckets, newcomer: Newcomer, known: Known) -> Option<bool> {
        let Newcomer { key, choice, last, now } = newcomer;
        if let Some((slot, entry)) = buckets.slots_of(key).next() {
            let was_expired = self.is_expired(entry.last, now);
            if !was_expired && (known == Known::Stays || entry.choice == choice) {
                slot.touch(entry, last);
                return Some(false);
            }
            if !slot.replace(entry.check, key, choice, last) {
                return None;
            }
            self.expired.fetch_add(was_expired.into(), Ordering::Relaxed);
            return Some(true);
        }
        let Room { free, oldest } = self.room(buckets, key, now);
        if let Some((slot, None)) = free
            && self.live.fetch_add(1, Ordering::Relaxed) < self.sessions_max
        {
            let is_taken = slot.replace(buckets::EMPTY, key, choice, last);
            if !is_taken {
                self.live.fetch_sub(1, Ordering::Relaxed);
            }
            return is_taken.then_some(true);
        }
        if let Some((_, None)) = free {
            self.live.fetch_sub(1, Ordering::Relaxed);
        }
        let expired = free.and_then(|(slot, entry)| Some((slot, entry?)));
        let (slot, entry) = expired.or(oldest)?;
        if !slot.replace(entry.check, key, choice, last) {
            return None;
        }
        let count = if expired.is_some() { &self.expired } else { &self.displaced };
        count.fetch_add(1, Ordering::Relaxed);
        Some(true)
    }

    /// Where a new session may go.
    fn room<'a>(&self, buckets: &'a Buckets, key: u64, now: u32) -> Room<'a> {
        let mut free: Option<(usize, &Slot, Option<Entry>)> = None;
        let mut oldest: Option<(&Slot, Entry)> = None;
        for bucket in buckets.both_of(key) {
            let mut taken = SLOTS;
            let mut first = None;
            for slot in bucket {
                match slot.entry() {
                    Some(entry) if self.is_expired(entry.last, now) => {
                        taken -= 1;
                        // Before an empty one: it ends here instead of in a sweep.
                        first = Some((slot, Some(entry)));
                    }
                    Some(entry) if oldest.is_none_or(|(_, other)| entry.last < other.last) => {
                        oldest = Some((slot, entry));
                    }
                    None if slot.is_empty() => {
                        taken -= 1;
                        first = first.or(Some((slot, None)));
                    }
                    // Used later than another one, or being written by another thread.
                    _ => {}
                }
            }
            if let Some((slot, entry)) = first
                && free.is_none_or(|(least, ..)| taken < least)
            {
                free = Some((taken, slot, entry));
            }
        }
        Room { free: free.map(|(_, slot, entry)| (slot, entry)), oldest }
    }

    fn clear(&self, slot: &Slot, entry: Entry) -> bool {
        let is_cleared = slot.clear(entry.check);
        if is_cleared {
            self.live.fetch_sub(1, Ordering::Relaxed);
        }
        is_cleared
    }

    fn clear_all(&self, buckets: &Buckets, key: u64) {
        for (slot, entry) in buckets.slots_of(key) {
            self.clear(slot, entry);
        }
    }

    /// Doubles the table where it is not of full size and full enough. Allocates no more than a directory: slots come
    /// when sessions do.
    fn grow_when_due(&self, generation: &Arc<Generation>) {
        let buckets = generation.current.len();
        let is_due = generation.old.is_none()
            && buckets < self.buckets_max
            && self.live.load(Ordering::Relaxed) >= buckets as u64 * GROW_AT;
        if !is_due || self.is_growing.swap(true, Ordering::AcqRel) {
            return;
        }
        // Twice, rounded so that the last doubling ends at the full size.
        let mut larger = self.buckets_max;
        while larger.div_ceil(2) > buckets {
            larger = larger.div_ceil(2);
        }
        let old =
            Old { buckets: Arc::clone(&generation.current), next: AtomicUsize::new(0), left: buckets.into() };
        let next = Generation { current: Arc::new(Buckets::new(larger)), old: Some(old) };
        // Somebody else may have doubled it already; then that is what there is.
        self.generation.compare_and_swap(generation, Arc::new(next));
        self.is_growing.store(false, Ordering::Release);
    }

    /// Moves some buckets of the smaller table. A session is in the larger one before it leaves the smaller one, so that
    /// who looks there, then here, then there again finds it.
    fn advance(&self, generation: &Arc<Generation>, count: usize, now: u32) {
        let Some(old) = &generation.old else { return };
        fence(Ordering::SeqCst);
        for _ in 0..count {
            let at = old.next.fetch_add(1, Ordering::Relaxed);
            if at >= old.buckets.len() {
                return;
            }
            for slot in old.buckets.bucket(at).into_iter().flatten() {
                self.move_over(slot, &generation.current, now);
            }
            if old.left.fetch_sub(1, Ordering::AcqRel) == 1 {
                let next = Generation { current: Arc::clone(&generation.current), old: None };
                self.generation.compare_and_swap(generation, Arc::new(next));
            }
        }
    }

    fn move_over(&self, slot: &Slot, to: &Buckets, now: u32) {
        for _ in 0..ATTEMPTS_MAX {
            let Some(entry) = slot.entry() else { return };
            if self.is_expired(entry.last, now) {
                if self.clear(slot, entry) {
                    self.expired.fetch_add(1, Ordering::Relaxed);
                }
            } else {
                let (key, choice, last) = (entry.key, entry.choice, entry.last);
                let newcomer = Newcomer { key, choice, last, now };
                if self.place(to, newcomer, Known::Stays) {
                    self.clear(slot, entry);
                }
            }
        }
    }
}

impl Generation {
    fn find(&self, key: u64) -> Option<(&Slot, Entry)> {
        let in_current = || self.current.slots_of(key).next();
        let Some(old) = &self.old else { return in_current() };
        // A session moves from old to current: who looked too early at the one and too late at the other looks again.
        in_current().or_else(|| old.buckets.slots_of(key).next()).or_else(in_current)
    }

    fn for_each(&self, part: usize, parts: usize, mut each: impl FnMut(&Slot, Entry)) {
        for buckets in [Some(&self.current), self.old.as_ref().map(|old| &old.buckets)].into_iter().flatten()
        {
            for slot in range(buckets.len(), part, parts).filter_map(|at| buckets.bucket(at)).flatten() {
                if let Some(entry) = slot.entry() {
                    each(slot, entry);
                }
            }
        }
    }
}

/// The `part`th of `parts` equal parts; nothing for a part that is not there.
fn range(count: usize, part: usize, parts: usize) -> Range<usize> {
    if part >= parts {
        return 0..0;
    }
    count * part / parts..count * (part + 1) / parts
}

/// Whole seconds since the process began, for 136 years.
fn seconds(now: Duration) -> u32 {
    u32::try_from(now.as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;

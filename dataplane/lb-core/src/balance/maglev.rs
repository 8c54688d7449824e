//! Maglev's consistent hashing.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A table of slots that says which seat a key goes to.
///
/// Eisenbud and others, "Maglev: A Fast and Reliable Software Network Load Balancer" (NSDI 2016), section 3.4: each seat
/// has a permutation of all slots, made of its id, and the seats take turns in taking their next free one. Weights as in
/// Envoy's `MaglevTable`: a seat takes a turn whenever its weight has added up to that of the heaviest.
///
/// Ids are hashed by XXH3 with fixed seeds: every proxy of a version makes the same table.
#[derive(Debug)]
pub(super) struct Maglev {
    slots: Box<[u32]>,
}

/// Slots of a table: the paper's small size, a prime. With 650 backends or fewer the heaviest of equal ones is at most
/// a hundredth above its share; beyond 65,537 some get no slot.
pub(super) const SLOTS: usize = 65_537;

impl Maglev {
    /// Seats are `(id, weight above 0)`, at least one. About a millisecond.
    pub(super) fn new<'a>(seats: impl Iterator<Item = (&'a str, u32)>) -> Self {
        let seats = seats.map(|(id, weight)| {
            let offset = xxh3_64_with_seed(id.as_bytes(), 0) % SLOTS as u64;
            let skip = xxh3_64_with_seed(id.as_bytes(), 1) % (SLOTS as u64 - 1) + 1;
            Turns::new(offset, skip, weight)
        });
        Self { slots: populate(seats.collect(), SLOTS).into() }
    }

    /// The seat of a slot; slots wrap around.
    pub(super) fn seat(&self, slot: usize) -> usize {
        self.slots[slot % SLOTS] as usize
    }

    /// The slot of a hash.
    pub(super) fn slot(hash: u64) -> usize {
        usize::try_from(hash % SLOTS as u64).expect("less than the slots")
    }
}

/// Where a seat is in its permutation, and how much weight it has saved up.
#[derive(Debug)]
struct Turns {
    next: u64,
    skip: u64,
    weight: u64,
    saved: u64,
}

impl Turns {
    fn new(offset: u64, skip: u64, weight: u32) -> Self {
        Self { next: offset, skip, weight: u64::from(weight), saved: 0 }
    }
}

/// The paper's `Populate`, with weights. The number of slots is prime, so that each skip visits all.
fn populate(mut seats: Vec<Turns>, slot_count: usize) -> Vec<u32> {
    const FREE: u32 = u32::MAX;
    let mut slots = vec![FREE; slot_count];
    let heaviest = seats.iter().map(|seat| seat.weight).max().unwrap_or(0);
    let mut free = if heaviest == 0 { 0 } else { slot_count };
    while free > 0 {
        for (at, seat) in (0u32..).zip(&mut seats) {
            seat.saved += seat.weight;
            if seat.saved < heaviest || free == 0 {
                continue;
            }
            seat.saved -= heaviest;
            loop {
                let slot = usize::try_from(seat.next).expect("less than the slots");
                seat.next = (seat.next + seat.skip) % slot_count as u64;
                if slots[slot] == FREE {
                    slots[slot] = at;
                    free -= 1;
                    break;
                }
            }
        }
    }
    slots
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(table: &[u32], seats: usize) -> Vec<usize> {
        (0..seats).map(|seat| table.iter().filter(|&&at| at as usize == seat).count()).collect()
    }

    fn ids(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("10.0.0.{n}:80")).collect()
    }

    fn equal(ids: &[String]) -> Maglev {
        Maglev::new(ids.iter().map(|id| (id.as_str(), 1)))
    }

    #[test]
    fn the_paper_s_example_comes_out() {
        // Table 1 of the paper: seven slots, three backends with (offset, skip) of (3, 4), (0, 2) and (3, 1); then
        // the same without the second one.
        let [b0, b1, b2] = [(3, 4), (0, 2), (3, 1)];
        let table = |seats: &[(u64, u64)]| {
            populate(seats.iter().map(|(offset, skip)| Turns::new(*offset, *skip, 1)).collect(), 7)
        };
        assert_eq!(table(&[b0, b1, b2]), [1, 0, 1, 0, 2, 2, 0]);
        assert_eq!(table(&[b0, b2]), [0, 0, 0, 0, 1, 1, 1]);
    }

    #[test]
    fn slots_are_counted_by_weight_as_in_envoy() {
        // Envoy's maglev_lb_test: weights 1 and 2 in 17 slots are 6 and 11; six equal ones in 7 slots have 1 or 2.
        let table = populate(vec![Turns::new(3, 4, 1), Turns::new(11, 9, 2)], 17);
        assert_eq!(counts(&table, 2), [6, 11]);
        let six = (0..6).map(|n| Turns::new(n % 3, n + 1, 1)).collect();
        let counts = counts(&populate(six, 7), 6);
        assert_eq!((counts.iter().min(), counts.iter().max()), (Some(&1), Some(&2)));
    }

    #[test]
    fn equal_backends_have_equal_parts_to_a_slot() {
        let table = equal(&ids(100));
        let counts = counts(&table.slots, 100);
        let (min, max) = (counts.iter().min().copied(), counts.iter().max().copied());
        assert_eq!((min, max), (Some(655), Some(656)), "65,537 slots among 100");
    }

    #[test]
    fn few_keys_move_when_a_backend_leaves() {
        let before = ids(100);
        let mut after = before.clone();
        let gone = after.remove(37);
        let (old, new) = (equal(&before), equal(&after));
        let moved = (0..SLOTS).filter(|&slot| before[old.seat(slot)] != after[new.seat(slot)]);
        let (its_own, others): (Vec<_>, Vec<_>) = moved.partition(|&slot| before[old.seat(slot)] == gone);
        assert!((655..=656).contains(&its_own.len()), "all of its slots have to");
        // Section 5.3 of the paper: with a table this size, about as many again of the others'.
        assert!(others.len() < 2 * SLOTS / 100, "{} others moved", others.len());
    }

    #[test]
    fn a_heavier_backend_has_more_slots_and_a_table_of_one_is_all_its() {
        let table = Maglev::new([("a", 2), ("b", 5), ("c", 3)].into_iter());
        let counts = counts(&table.slots, 3);
        for (count, tenths) in counts.iter().zip([2, 5, 3]) {
            assert!(count.abs_diff(SLOTS * tenths / 10) <= 2, "{counts:?}");
        }
        let alone = Maglev::new([("a", 7)].into_iter());
        assert!((0..SLOTS).all(|slot| alone.seat(slot) == 0));
    }
}

//! Bounded load for consistent hashing.
//!
//! Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads" (SODA 2018): a backend takes at most
//! `c` times its fair share of the requests in flight, rounded up; a key whose backend is full goes on to the next. The
//! next is the next slot of the table, which for each slot of a backend is another one, so that a full backend's keys
//! spread.
//!
//! The requests of all backends together are not counted exactly, for that would be one atomic that every request of
//! every worker writes. Each pick reads a few backends in turn instead; the sum is as old as it takes to come around.

use super::excluded::Excluded;
use super::lane::Lane;
use super::maglev::Maglev;
use super::rng::Rng;

/// Backends that a pick reads to keep the sum.
const READ_EACH_PICK: usize = 8;
/// Slots that are looked at before the least loaded of them is taken. At a bound of 1.25, a fifth of the weight has
/// room at any time: that all of 64 are full has a probability of less than one in a million.
const PROBES_MAX: usize = 64;

/// One worker's sum of the requests in flight in a lane.
#[derive(Debug)]
pub(super) struct Bound {
    /// For a weight of 1: its fair share times the bound; `None` for no bound.
    per_weight: Option<f64>,
    /// What was last read of each seat.
    read: Vec<u32>,
    sum: u64,
    next: usize,
}

impl Bound {
    pub(super) fn new(load_percent_max: Option<u16>, lane: &Lane) -> Self {
        let per_weight =
            load_percent_max.map(|percent| f64::from(percent.max(100)) / 100.0 / lane.weight_total() as f64);
        let read = if per_weight.is_some() { vec![0; lane.seats().len()] } else { Vec::new() };
        let mut bound = Self { per_weight, read, sum: 0, next: 0 };
        bound.read(lane, lane.seats().len());
        bound
    }

    /// The seat of a key that has room and is not passed over; `None` where none was found. A key whose backend is full
    /// by the set's bound on requests goes on as one whose backend is full by this one's.
    pub(super) fn pick(
        &mut self,
        lane: &Lane,
        excluded: Excluded<'_>,
        hash: u64,
        rng: &mut Rng,
    ) -> Option<usize> {
        self.read(lane, READ_EACH_PICK);
        let Some(table) = lane.maglev() else {
            return Some(lane.draw(rng)).filter(|&at| !excluded.has(&lane.seats()[at]));
        };
        let slot = Maglev::slot(hash);
        let mut least: Option<(f64, usize)> = None;
        for probe in 0..PROBES_MAX {
            let at = table.seat(slot + probe);
            let seat = &lane.seats()[at];
            if excluded.has(seat) {
                continue;
            }
            let in_flight = seat.live.in_flight();
            if self.has_room(in_flight, seat.weight) {
                return Some(at);
            }
            let load = f64::from(in_flight) / f64::from(seat.weight);
            if least.is_none_or(|(lowest, _)| load < lowest) {
                least = Some((load, at));
            }
        }
        least.map(|(_, at)| at)
    }

    /// Whether one more request stays within `ceil(c * (sum + 1) * weight / all weights)`, which is at least 1.
    fn has_room(&self, in_flight: u32, weight: u32) -> bool {
        let Some(per_weight) = self.per_weight else { return true };
        let fair = per_weight * (self.sum + 1) as f64 * f64::from(weight);
        // For a whole number the same as `in_flight + 1 <= ceil(fair)`.
        f64::from(in_flight) < fair
    }

    fn read(&mut self, lane: &Lane, count: usize) {
        for _ in 0..count.min(self.read.len()) {
            let now = lane.seats()[self.next].live.in_flight();
            let before = std::mem::replace(&mut self.read[self.next], now);
            self.sum = self.sum + u64::from(now) - u64::from(before);
            self.next = if self.next + 1 == self.read.len() { 0 } else { self.next + 1 };
        }
    }
}

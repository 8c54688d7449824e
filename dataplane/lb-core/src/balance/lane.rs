//! A group of backends that take a share of a set's requests together.

use super::excluded::Excluded;
use super::maglev::Maglev;
use super::rng::{Rng, scale};
use crate::backend::{Algorithm, Backend, Live};
use std::sync::Arc;

/// Backends of one priority and part of the topology, with effective weights.
///
/// A request first finds its lane by the lanes' shares, then a backend in it.
#[derive(Debug)]
pub struct Lane {
    key: LaneKey,
    /// A part of 2^32; 0 for a reserve, which is used only when everything else has been tried.
    share: u64,
    /// Where this lane's part of 2^32 ends and the next one's begins.
    share_end: u64,
    seats: Box<[Seat]>,
    weight_total: u64,
    /// `None` where all weights are equal.
    alias: Option<Alias>,
    maglev: Option<Maglev>,
}

/// What a lane is, from version to version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneKey {
    /// Of all its backends.
    pub priority: u32,
    /// Which of that priority's backends.
    pub part: Part,
}

/// Which backends of a priority are in a lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// All that may take a request.
    All,
    /// Those near this process.
    Near,
    /// Those of another zone; empty for an unknown one.
    Zone(Arc<str>),
    /// All but the near ones.
    Far,
}

/// A backend's place in a lane.
#[derive(Debug)]
pub struct Seat {
    /// Position in [`crate::backend::Membership::backends`].
    pub backend: u32,
    /// Relative within the lane, 1 to 2^24.
    pub weight: u32,
    /// The backend's, here so that a pick does not go through the backend.
    pub(super) live: Arc<Live>,
}

/// Effective weights are scaled down to this. A seat has at least 1.
const WEIGHT_MAX: u32 = 1 << 24;

/// All shares of a set's lanes together.
pub(super) const SHARE_WHOLE: u64 = 1 << 32;

/// What a lane is made of: `(position of the backend, weight above 0)` in the order of positions.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) key: LaneKey,
    /// Of the set's requests, 0.0 to 1.0.
    pub(super) share: f64,
    pub(super) seats: Vec<(u32, u64)>,
}

/// Makes lanes of plans. Those with a share come first; shares are brought to a sum of exactly 1. A plan without seats
/// makes no lane.
pub(super) fn arrange(mut plans: Vec<Plan>, backends: &[Backend], algorithm: Algorithm) -> Vec<Lane> {
    plans.retain(|plan| !plan.seats.is_empty());
    // Stable: the order of priorities stays.
    plans.sort_by_key(|plan| plan.share <= 0.0);
    let sum: f64 = plans.iter().map(|plan| plan.share).sum();
    let last = plans.iter().rposition(|plan| plan.share > 0.0);
    let mut end = 0;
    let mut until = 0.0;
    let lane = |(at, plan): (usize, Plan)| {
        until += plan.share;
        let begin = end;
        if plan.share > 0.0 {
            end = if Some(at) == last { SHARE_WHOLE } else { whole_part(until / sum) };
        }
        Lane::new(plan, begin..end, backends, algorithm)
    };
    plans.into_iter().enumerate().map(lane).collect()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0.0 to 1.0 of 2^32")]
fn whole_part(share: f64) -> u64 {
    (share.clamp(0.0, 1.0) * SHARE_WHOLE as f64) as u64
}

impl Lane {
    fn new(plan: Plan, part: std::ops::Range<u64>, backends: &[Backend], algorithm: Algorithm) -> Self {
        let weights = reduced(plan.seats.iter().map(|(_, weight)| *weight));
        let seat = |((backend, _), weight): (&(u32, u64), &u32)| Seat {
            backend: *backend,
            weight: *weight,
            live: Arc::clone(&backends[*backend as usize].live),
        };
        let share = part.end - part.start;
        let is_maglev = share > 0 && matches!(algorithm, Algorithm::Maglev { .. });
        let maglev = is_maglev.then(|| {
            let ids = plan.seats.iter().map(|(backend, _)| &*backends[*backend as usize].id);
            Maglev::new(ids.zip(weights.iter().copied()))
        });
        let is_equal = weights.iter().all(|weight| *weight == weights[0]);
        Self {
            key: plan.key,
            share,
            share_end: part.end,
            seats: plan.seats.iter().zip(&weights).map(seat).collect(),
            weight_total: weights.iter().copied().map(u64::from).sum(),
            alias: (!is_equal).then(|| Alias::new(&weights)),
            maglev,
        }
    }

    /// What it is, from version to version.
    #[must_use]
    pub fn key(&self) -> &LaneKey {
        &self.key
    }

    /// Its share of the set's requests, 0.0 to 1.0.
    #[must_use]
    pub fn share(&self) -> f64 {
        self.share as f64 / SHARE_WHOLE as f64
    }

    /// Its backends, at least one, in the order of their ids.
    #[must_use]
    pub fn seats(&self) -> &[Seat] {
        &self.seats
    }

    /// Sum of its weights.
    #[must_use]
    pub fn weight_total(&self) -> u64 {
        self.weight_total
    }

    pub(super) fn is_equal(&self) -> bool {
        self.alias.is_none()
    }

    pub(super) fn maglev(&self) -> Option<&Maglev> {
        self.maglev.as_ref()
    }

    /// A seat in proportion to weights. O(1).
    pub(super) fn draw(&self, rng: &mut Rng) -> usize {
        match &self.alias {
            None => rng.below(self.seats.len()),
            Some(alias) => alias.draw(rng),
        }
    }

    /// Any seat that is not passed over, or `None` when all are. O(1) for each backend tried; where there is a bound,
    /// O(1) for each that is full.
    pub(super) fn any_but(&self, excluded: Excluded<'_>, rng: &mut Rng) -> Option<usize> {
        let count = self.seats.len();
        let start = rng.below(count);
        (start..start + excluded.looks(count))
            .map(|at| if at < count { at } else { at - count })
            .find(|&at| !excluded.has(&self.seats[at]))
    }
}

impl Seat {
    pub(super) fn is_in(&self, tried: &[Arc<Live>]) -> bool {
        tried.iter().any(|live| Arc::ptr_eq(live, &self.live))
    }
}

/// The lane whose part of 2^32 has this number's upper half. Those with a share come first. O(log n).
pub(super) fn lane_of(lanes: &[Lane], bits: u64) -> Option<usize> {
    if lanes.len() <= 1 || lanes[0].share == SHARE_WHOLE {
        return (!lanes.is_empty()).then_some(0);
    }
    Some(lanes.partition_point(|lane| lane.share_end <= bits >> 32 && lane.share > 0))
}

/// Weights without their common divisor, and none above [`WEIGHT_MAX`] or below 1.
fn reduced(weights: impl Iterator<Item = u64> + Clone) -> Vec<u32> {
    let divisor = weights.clone().fold(0, greatest_common_divisor).max(1);
    let max = weights.clone().max().unwrap_or(0) / divisor;
    // Where the largest is too large, all are scaled by the same factor.
    let scale = |weight: u64| match weight / divisor {
        weight if max <= u64::from(WEIGHT_MAX) => weight,
        weight => u64::try_from(u128::from(weight) * u128::from(WEIGHT_MAX) / u128::from(max))
            .expect("at most WEIGHT_MAX"),
    };
    weights.map(|weight| u32::try_from(scale(weight)).expect("at most WEIGHT_MAX").max(1)).collect()
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// Draws in proportion to weights in constant time: Walker's alias method, tables by Vose ("A Linear Algorithm for
/// Generating Random Numbers with a Given Distribution", 1991), in whole numbers.
#[derive(Debug)]
struct Alias {
    /// `(part of 2^32 that stays here, where the rest goes)`.
    columns: Box<[(u32, u32)]>,
}

impl Alias {
    fn new(weights: &[u32]) -> Self {
        let count = weights.len() as u128;
        let total: u128 = weights.iter().map(|weight| u128::from(*weight)).sum();
        // Each column holds `total`; what a weight has is in parts of that.
        let mut parts: Vec<u128> = weights.iter().map(|weight| u128::from(*weight) * count).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..weights.len()).partition(|&at| parts[at] < total);
        let mut columns: Vec<(u32, u32)> = (0..).take(weights.len()).map(|at| (u32::MAX, at)).collect();
        while let (Some(&lack), Some(&rich)) = (small.last(), large.last()) {
            small.pop();
            let stays = u32::try_from((parts[lack] << 32) / total).expect("less than a whole");
            columns[lack] = (stays, u32::try_from(rich).expect("positions fit 32 bits"));
            parts[rich] -= total - parts[lack];
            if parts[rich] < total {
                large.pop();
                small.push(rich);
            }
        }
        Self { columns: columns.into() }
    }

    fn draw(&self, rng: &mut Rng) -> usize {
        let bits = rng.bits();
        let at = scale(bits, self.columns.len());
        let (stays, other) = self.columns[at];
        // The upper half has chosen the column.
        if bits & u64::from(u32::MAX) < u64::from(stays) { at } else { other as usize }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn weights_lose_their_common_divisor_and_keep_their_ratio_when_scaled() {
        assert_eq!(reduced([1_000_000, 500_000].into_iter()), [2, 1]);
        assert_eq!(reduced([7].into_iter()), [1]);
        let huge = reduced([4_294_967_295_000_000, 2_147_483_647_000_000, 1].into_iter());
        assert_eq!((huge[0], huge[2]), (WEIGHT_MAX, 1));
        assert!(huge[1].abs_diff(WEIGHT_MAX / 2) <= 1);
    }

    proptest! {
        #[test]
        fn alias_columns_hold_exactly_the_weights(weights in prop::collection::vec(1u32..1000, 2..50)) {
            let alias = Alias::new(&weights);
            let mut parts = vec![0u64; weights.len()];
            for (at, (stays, other)) in alias.columns.iter().enumerate() {
                parts[at] += u64::from(*stays);
                parts[*other as usize] += SHARE_WHOLE - u64::from(*stays);
            }
            let total: u64 = weights.iter().copied().map(u64::from).sum();
            for (part, weight) in parts.iter().zip(&weights) {
                let wanted = u128::from(*weight) * (u128::from(SHARE_WHOLE) * weights.len() as u128) / u128::from(total);
                // Each column rounds by less than one part in 2^32.
                prop_assert!(u128::from(*part).abs_diff(wanted) <= 2 * weights.len() as u128);
            }
        }
    }
}

//! One worker's state for one set, and the way of a pick.

use super::bounded::Bound;
use super::choices::{Choices, Latency, LatencyRule, Measure};
use super::excluded::Excluded;
use super::lane::{self, Lane, LaneKey};
use super::rng::{self, Rng};
use super::schedule::Schedule;
use crate::backend::{Algorithm, Backend, Live, Membership, Tick};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

/// One worker's state for one backend set.
#[derive(Debug)]
pub struct Picker {
    algorithm: Algorithm,
    seed: u64,
    version: Option<u64>,
    /// One for each lane of that version.
    lanes: Vec<(LaneKey, State)>,
}

/// What a pick depends on, beside the members.
#[derive(Debug, Clone, Copy, Default)]
pub struct PickRequest<'a> {
    /// Since the process began.
    pub now: Duration,
    /// Hash of what identifies the request (client, header, cookie), for [`Algorithm::Maglev`]; any hash with 64
    /// different values for different keys will do. Without one the request goes anywhere.
    pub key: Option<u64>,
    /// Backends that this request was on already. Such a one is chosen only where there is no other; the caller sees it
    /// by its [`Backend::live`].
    pub tried: &'a [Arc<Live>],
    /// Backends with so many requests on them are full and never chosen ([`crate::backend::SetPolicy::requests_max`]);
    /// `None` for no bound. Between the pick and [`Live::try_enter`] another worker may be faster: then pick again.
    pub requests_max: Option<NonZeroU32>,
}

/// What came of a pick.
#[derive(Debug, Clone, Copy)]
pub enum Picked<'a> {
    /// It goes here.
    Backend(&'a Backend),
    /// Some backends are eligible, and all of them are full.
    Full,
    /// No backend is eligible.
    None,
}

impl<'a> Picked<'a> {
    /// The backend, where there is one.
    #[must_use]
    pub fn backend(self) -> Option<&'a Backend> {
        match self {
            Self::Backend(backend) => Some(backend),
            Self::Full | Self::None => None,
        }
    }
}

/// Draws of one pick beyond those that may hit a tried backend, where draws may hit full ones too.
const DRAWS_FOR_FULL: usize = 4;

/// What a worker keeps for a lane.
#[derive(Debug)]
enum State {
    RoundRobin(Schedule<Arc<str>>),
    Random,
    Choices(Choices),
    Maglev(Bound),
}

impl Picker {
    /// A picker that has seen no membership yet. Different seeds start round robin at different backends, so that
    /// workers do not move in step.
    #[must_use]
    pub fn new(algorithm: Algorithm, seed: u64) -> Self {
        Self { algorithm, seed, version: None, lanes: Vec::new() }
    }

    /// The backend for the next request. One that is drained or not available is never chosen, unless the membership
    /// ignores health.
    ///
    /// Of all backends those come first that are neither full nor tried: in the request's lane, then in the others in
    /// their order, lower priorities last; then those that were tried and are not full.
    pub fn pick<'a>(
        &mut self,
        members: &'a Membership,
        request: &PickRequest<'_>,
        rng: &mut Rng,
    ) -> Picked<'a> {
        if self.version != Some(members.version) {
            self.follow(members);
        }
        let lanes = members.lanes();
        let key = request.key.filter(|_| matches!(self.algorithm, Algorithm::Maglev { .. }));
        let hash = key.map(rng::mix);
        // A key's lane is by the upper half of its hash, its slot by the remainder of a prime: as good as independent.
        let at = match lanes.len() {
            0 => return Picked::None,
            1 => 0,
            _ => lane::lane_of(lanes, hash.unwrap_or_else(|| rng.bits())).expect("there are lanes"),
        };
        let lane = &lanes[at];
        let excluded = Excluded { tried: request.tried, requests_max: request.requests_max };
        let seat = match self.lanes[at].1.pick(lane, request.now, excluded, hash, rng) {
            Some(seat) => Some(&lane.seats()[seat]),
            None => any_but(lanes, excluded, rng).or_else(|| tried_again(lanes, lane, excluded, rng)),
        };
        match seat {
            Some(seat) => Picked::Backend(&members.backends()[seat.backend as usize]),
            None => Picked::Full,
        }
    }

    /// Makes state for the lanes of another version; turns go on where they were.
    fn follow(&mut self, members: &Membership) {
        self.version = Some(members.version);
        let mut before = std::mem::take(&mut self.lanes);
        for lane in members.lanes() {
            let known = before.iter().position(|(key, _)| key == lane.key());
            let known = known.map(|at| before.swap_remove(at).1);
            let state = self.state(lane, known, members.backends());
            self.lanes.push((lane.key().clone(), state));
        }
    }

    fn state(&self, lane: &Lane, known: Option<State>, backends: &[Backend]) -> State {
        match self.algorithm {
            Algorithm::RoundRobin => {
                let mut schedule = match known {
                    Some(State::RoundRobin(schedule)) => schedule,
                    _ => Schedule::default(),
                };
                let id = |backend: u32| Arc::clone(&backends[backend as usize].id);
                let entries = lane.seats().iter().map(|seat| (id(seat.backend), seat.weight));
                schedule.replace(entries, self.seed);
                State::RoundRobin(schedule)
            }
            Algorithm::Random => State::Random,
            Algorithm::LeastRequest { choices } => State::Choices(Choices::few(Measure::Requests, choices)),
            Algorithm::LeastConnections => State::Choices(Choices::many(Measure::Requests)),
            Algorithm::LeastResponseTime(smoothing) => {
                let rule = LatencyRule::new(Latency::Mean, smoothing, lane);
                State::Choices(Choices::many(Measure::Latency(rule)))
            }
            Algorithm::PeakEwma(smoothing) => {
                let rule = LatencyRule::new(Latency::Peak, smoothing, lane);
                State::Choices(Choices::few(Measure::Latency(rule), 2))
            }
            Algorithm::Maglev { load_percent_max } => State::Maglev(Bound::new(load_percent_max, lane)),
        }
    }
}

impl State {
    /// A seat that is not passed over. `None` says that there is none in this lane.
    fn pick(
        &mut self,
        lane: &Lane,
        now: Duration,
        excluded: Excluded<'_>,
        hash: Option<u64>,
        rng: &mut Rng,
    ) -> Option<usize> {
        let draws = match excluded.requests_max {
            None => excluded.tried.len() + 1,
            Some(_) => excluded.tried.len() + 1 + DRAWS_FOR_FULL,
        };
        let is_open = |seat: &usize| excluded.is_nobody() || !excluded.has(&lane.seats()[*seat]);
        let seat = match self {
            Self::RoundRobin(schedule) => (0..draws).map_while(|_| schedule.next_position()).find(is_open),
            Self::Random => (0..draws).map(|_| lane.draw(rng)).find(is_open),
            Self::Choices(choices) => choices.pick(lane, excluded, Tick::at(now), rng),
            Self::Maglev(bound) => bound.pick(lane, excluded, hash.unwrap_or_else(|| rng.bits()), rng),
        };
        seat.or_else(|| lane.any_but(excluded, rng))
    }
}

fn any_but<'a>(lanes: &'a [Lane], excluded: Excluded<'_>, rng: &mut Rng) -> Option<&'a lane::Seat> {
    lanes.iter().find_map(|lane| lane.any_but(excluded, rng).map(|seat| &lane.seats()[seat]))
}

/// A seat although it was tried: by its weight in the request's lane, or any that is not full.
fn tried_again<'a>(
    lanes: &'a [Lane],
    lane: &'a Lane,
    excluded: Excluded<'_>,
    rng: &mut Rng,
) -> Option<&'a lane::Seat> {
    let full = excluded.but_tried();
    let drawn = &lane.seats()[lane.draw(rng)];
    if full.has(drawn) { any_but(lanes, full, rng) } else { Some(drawn) }
}

#[cfg(test)]
mod tests;

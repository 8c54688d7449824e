//! One worker's state for one set, and the way of a pick.

use super::bounded::Bound;
use super::choices::{Choices, Latency, LatencyRule, Measure};
use super::lane::{self, Lane, LaneKey};
use super::rng::{self, Rng};
use super::schedule::Schedule;
use crate::backend::{Algorithm, Backend, Live, Membership, Tick};
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
}

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

    /// The backend for the next request; `None` when none is eligible. A backend that is drained or not available is
    /// never chosen, unless the membership ignores health.
    ///
    /// Of all backends those come first that were not tried: in the request's lane, then in the others in their order,
    /// lower priorities last.
    pub fn pick<'a>(
        &mut self,
        members: &'a Membership,
        request: &PickRequest<'_>,
        rng: &mut Rng,
    ) -> Option<&'a Backend> {
        if self.version != Some(members.version) {
            self.follow(members);
        }
        let lanes = members.lanes();
        let key = request.key.filter(|_| matches!(self.algorithm, Algorithm::Maglev { .. }));
        let hash = key.map(rng::mix);
        // A key's lane is by the upper half of its hash, its slot by the remainder of a prime: as good as independent.
        let at = match lanes.len() {
            0 => return None,
            1 => 0,
            _ => lane::lane_of(lanes, hash.unwrap_or_else(|| rng.bits()))?,
        };
        let lane = &lanes[at];
        let seat = match self.lanes[at].1.pick(lane, request, hash, rng) {
            Some(seat) => &lane.seats()[seat],
            None => untried(lanes, request.tried, rng).unwrap_or(&lane.seats()[lane.draw(rng)]),
        };
        Some(&members.backends()[seat.backend as usize])
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
    /// A seat that was not tried. `None` says that there may be none in this lane.
    fn pick(
        &mut self,
        lane: &Lane,
        request: &PickRequest<'_>,
        hash: Option<u64>,
        rng: &mut Rng,
    ) -> Option<usize> {
        let tried = request.tried;
        let is_fresh = |seat: &usize| tried.is_empty() || !lane.seats()[*seat].is_in(tried);
        let seat = match self {
            Self::RoundRobin(schedule) => {
                (0..=tried.len()).map_while(|_| schedule.next_position()).find(is_fresh)
            }
            Self::Random => (0..=tried.len()).map(|_| lane.draw(rng)).find(is_fresh),
            Self::Choices(choices) => choices.pick(lane, tried, Tick::at(request.now), rng),
            Self::Maglev(bound) => bound.pick(lane, tried, hash.unwrap_or_else(|| rng.bits()), rng),
        };
        seat.or_else(|| lane.untried(tried, rng))
    }
}

fn untried<'a>(lanes: &'a [Lane], tried: &[Arc<Live>], rng: &mut Rng) -> Option<&'a lane::Seat> {
    lanes.iter().find_map(|lane| lane.untried(tried, rng).map(|seat| &lane.seats()[seat]))
}

#[cfg(test)]
mod tests;

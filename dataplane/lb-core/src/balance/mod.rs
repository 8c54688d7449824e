//! Pickers: which backend of a set takes the next request.
//!
//! A picker is the mutable half, owned by one worker; [`Membership`] is the shared, immutable half. Where the
//! two meet, the picker sees by the version that members changed and adapts, keeping its place.
//!
//! A request finds its lane by the lanes' shares ([`eligibility`] makes them), then a backend in it:
//!
//! | algorithm | a pick costs | source |
//! |---|---|---|
//! | round robin | O(1), O(log n) with weights | [`schedule`](Schedule) |
//! | random | O(1) | [`lane`]: alias method |
//! | least request, peak EWMA | O(1) | [`choices`]: the power of two choices |
//! | least connections, least response time | O(1) | [`choices`]: all of up to 16, or some draws and the last pick's best |
//! | Maglev | O(1) | [`maglev`], [`bounded`] |
//!
//! Where backends have a bound on requests, one that is full is passed over: O(1) while a few draws find one that is not,
//! else O(n) once.
//!
//! After a change of members a picker's next pick costs O(n log n) for round robin, and O(1) or O(n) for the others.
//!
//! `tests/balancing/` simulates a process with seeds: workers, health and memberships together, over backends that
//! misbehave, come and go. `tests/slow_replica.rs` compares the algorithms.

mod bounded;
mod choices;
pub(crate) mod eligibility;
mod excluded;
pub(crate) mod lane;
mod locality;
mod maglev;
mod picker;
mod rng;
mod schedule;
mod signals;

pub use lane::{Lane, LaneKey, Part, Seat};
pub use picker::{PickRequest, Picked, Picker};
pub use rng::Rng;
pub(crate) use rng::mix;
pub use schedule::Schedule;
pub use signals::{Outcome, OutcomeKind, RETRY_AFTER_MAX, Recorder};

#[cfg(doc)]
use crate::backend::Membership;

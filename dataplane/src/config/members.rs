//! A set's members, from the wire: what is known of a backend goes on with it by its id.

use super::convert::{self, Rejection, SetSpec};
use lb_core::backend::{Backend, Hints, Membership, Place, Standing};
use lb_core::health::{Initial, SetPlan};
use std::sync::Arc;
use std::time::Duration;
use weir_proto::limits::HINTS_MAX;
use weir_proto::push;

/// What a membership is made with, beside the backends.
pub(super) struct Made<'a> {
    pub(super) version: u64,
    pub(super) place: &'a Place,
    /// Since the process began.
    pub(super) now: Duration,
}

/// The members without those that cannot be used; and why the first of these cannot. `old` is what the set has now.
pub(super) fn read(
    set: &str,
    spec: &SetSpec,
    old: Option<&Membership>,
    wire: Vec<&push::Backend>,
    made: &Made<'_>,
) -> (Arc<Membership>, Option<Rejection>) {
    let SetSpec { policy, health, .. } = spec;
    // A backend that comes to a set starts slowly, where any does; those that a set begins with start together.
    let starts_slowly = old.is_some() && policy.eligibility.slow_start.is_some();
    let newcomer = first_standing(health, starts_slowly.then_some(made.now));
    let is_checked = health.active.is_some() || health.passive.is_some();
    let old = old.map_or(&[][..], Membership::backends);
    let mut backends = Vec::with_capacity(wire.len());
    let mut refused = None;
    for wire in wire {
        let spec = match convert::backend(set, wire) {
            Ok(spec) => spec,
            Err(rejection) => {
                refused.get_or_insert(rejection);
                continue;
            }
        };
        let known = old.binary_search_by(|known| (*known.id).cmp(&wire.id)).ok().map(|at| &old[at]);
        backends.push(Backend {
            id: known.map_or_else(|| wire.id.as_str().into(), |known| Arc::clone(&known.id)),
            address: spec.address,
            weight: wire.weight,
            priority: wire.priority,
            hints: hints(wire, known),
            standing: match known.map(|known| known.standing) {
                Some(standing) if is_checked => standing,
                Some(standing) => {
                    Standing { available_since: standing.available_since, ..Standing::default() }
                }
                None => newcomer,
            },
            zone: match known {
                Some(known) if *known.zone == *wire.zone => Arc::clone(&known.zone),
                _ => wire.zone.as_str().into(),
            },
            state: spec.state,
            live: known.map(|known| Arc::clone(&known.live)).unwrap_or_default(),
        });
    }
    (Arc::new(Membership::build(made.version, backends, policy, made.place, made.now)), refused)
}

/// Of a backend of which nothing is known.
fn first_standing(plan: &SetPlan, came: Option<Duration>) -> Standing {
    let is_down = plan.active.as_ref().is_some_and(|active| active.initial == Initial::Down);
    let available_since = came.filter(|_| !is_down);
    Standing { is_available: !is_down, available_since, ..Standing::default() }
}

/// Those known are taken again where they are the same.
fn hints(wire: &push::Backend, known: Option<&Backend>) -> Hints {
    let is_same = |known: &[Arc<str>], wire: &[String]| {
        known.iter().map(|name| &**name).eq(wire.iter().map(String::as_str))
    };
    if let Some(known) = known
        && is_same(&known.hints.zones, &wire.hint_zones)
        && is_same(&known.hints.nodes, &wire.hint_nodes)
    {
        return known.hints.clone();
    }
    let names = |names: &[String]| names.iter().take(HINTS_MAX).map(|name| name.as_str().into()).collect();
    Hints { zones: names(&wire.hint_zones), nodes: names(&wire.hint_nodes) }
}

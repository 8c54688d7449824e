//! Near backends first, within one priority.
//!
//! [`Locality::PreferZone`] is Envoy's zone aware routing: a zone's proxies send all to their own zone while it holds at
//! least as large a part of the capacity as of the proxies; otherwise the part that matches, and the rest goes to zones
//! in proportion to what they hold beyond their own need. Envoy counts the proxies of each zone; we do not know them and
//! take them to be spread evenly over the zones in which the set has backends, and our own. There is no least number of
//! backends (Envoy's `min_cluster_size`).
//!
//! [`Locality::Hints`] is kube-proxy (`topologyModeFromHints` in its `topology.go`; KEP-3015 and KEP-4444): where each
//! ready endpoint has a node hint and one names our node, those that name it; else the same with zones; else all. Beyond
//! kube-proxy, which knows no health: as hinted backends fail, requests overflow to the others by the overprovisioning
//! factor. An API server that distributes by `PreferSameNode` or `PreferSameZone` sets the hints.
//!
//! What is left out is a reserve: it is used when everything near has been tried.

use super::eligibility::{Candidate, Terms, capped, sum};
use super::lane::Part;
use crate::backend::{Backend, Hints, Locality, Place};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Part, its seats as `(position, weight)`, and its fraction of the level's share.
pub(super) type Portion = (Part, Vec<(u32, u64)>, f64);

/// The lanes of one priority. Those that are not available are in none.
pub(super) fn portions(candidates: &[Candidate], backends: &[Backend], terms: &Terms<'_>) -> Vec<Portion> {
    let preferred = match terms.eligibility.locality {
        Locality::Off => None,
        Locality::PreferZone => zones(candidates, backends, terms.place),
        Locality::Hints => hinted(candidates, backends, terms),
    };
    preferred.unwrap_or_else(|| vec![(Part::All, seats(candidates), 1.0)])
}

fn seats<'a>(candidates: impl IntoIterator<Item = &'a Candidate>) -> Vec<(u32, u64)> {
    candidates.into_iter().filter(|c| c.effective > 0).map(|c| (c.at, c.effective)).collect()
}

/// `None` where our zone is not known or nothing is available.
fn zones(candidates: &[Candidate], backends: &[Backend], place: &Place) -> Option<Vec<Portion>> {
    let zone_of = |candidate: &Candidate| &backends[candidate.at as usize].zone;
    let total = sum(candidates, |c| c.effective);
    if place.zone.is_empty() || total <= 0.0 {
        return None;
    }
    let mut by_zone = BTreeMap::<&Arc<str>, Vec<Candidate>>::new();
    for candidate in candidates {
        by_zone.entry(zone_of(candidate)).or_default().push(*candidate);
    }
    // An unknown zone has no proxies.
    let known: BTreeSet<&Arc<str>> =
        by_zone.keys().copied().filter(|zone| !zone.is_empty()).chain([&place.zone]).collect();
    let need = 1.0 / known.len() as f64;
    let share = |zone: &Arc<str>| by_zone.get(zone).map_or(0.0, |own| sum(own, |c| c.effective)) / total;
    let beyond = |zone: &Arc<str>| {
        let own_need = if zone.is_empty() { 0.0 } else { need };
        (share(zone) - own_need).max(0.0)
    };
    let near = (share(&place.zone) / need).min(1.0);
    // Thirds and the like do not add up to the last digit.
    let near = if near > 1.0 - 1e-9 { 1.0 } else { near };
    let others = by_zone.keys().filter(|zone| **zone != &place.zone);
    let beyond_all: f64 = others.map(|zone| beyond(zone)).sum();
    let portion = |(zone, own): (&Arc<str>, &Vec<Candidate>)| {
        if *zone == place.zone {
            return (Part::Near, seats(own), near);
        }
        let fraction = if beyond_all > 0.0 { (1.0 - near) * beyond(zone) / beyond_all } else { 0.0 };
        (Part::Zone(Arc::clone(zone)), seats(own), fraction)
    };
    Some(by_zone.iter().map(|(zone, own)| portion((zone, own))).collect())
}

/// `None` where hints are missing or none is for us.
fn hinted(candidates: &[Candidate], backends: &[Backend], terms: &Terms<'_>) -> Option<Vec<Portion>> {
    let place = terms.place;
    let by_node = split(candidates, backends, |hints| &hints.nodes, &place.node);
    let (near, far) = by_node.or_else(|| split(candidates, backends, |hints| &hints.zones, &place.zone))?;
    let mut carried = capped(sum(&near, |c| c.healthy) / sum(&near, |c| c.whole), &terms.eligibility);
    if far.iter().all(|candidate| candidate.healthy == 0) {
        carried = 1.0;
    }
    Some(vec![(Part::Near, seats(&near), carried), (Part::Far, seats(&far), 1.0 - carried)])
}

/// Candidates that are meant for us, and the others. `None` where one has no hints, or none is for us.
fn split<'a>(
    candidates: &[Candidate],
    backends: &'a [Backend],
    of: impl Fn(&'a Hints) -> &'a [Arc<str>],
    own: &Arc<str>,
) -> Option<(Vec<Candidate>, Vec<Candidate>)> {
    let hints = |candidate: &Candidate| of(&backends[candidate.at as usize].hints);
    if own.is_empty() || candidates.iter().any(|candidate| hints(candidate).is_empty()) {
        return None;
    }
    let (near, far): (Vec<_>, Vec<_>) =
        candidates.iter().partition(|candidate| hints(candidate).contains(own));
    (!near.is_empty()).then_some((near, far))
}

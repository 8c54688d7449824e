//! Where a session begins that no table knows: the same on every proxy, without asking anybody.

use crate::backend::{Backend, Membership};
use crate::balance::{Lane, mix};

/// The backend on which a key's session begins, among those that take new requests; `None` where there is none.
///
/// Thaler and Ravishankar, "Using Name-Based Mappings to Increase Hit Rates" (1998): each backend has a score for the
/// key and the highest wins, so a key moves only when its own backend goes or a new one beats it. Shares are
/// in proportion to weights by the score `weight / -ln(u)` (Schindelhauer and Schomaker, "Weighted Distributed Hash
/// Tables", 2005). Each backend counts with its written weight, whatever this proxy thinks of its speed. Where priorities or
/// places leave some backends in reserve, only those that have a share of requests are looked at.
///
/// O(n): for the first request of a session, not for each.
#[must_use]
pub fn rendezvous(key: u64, members: &Membership) -> Option<&Backend> {
    let with_share = members.lanes().iter().filter(|lane| lane.share() > 0.0);
    let backends = with_share.flat_map(Lane::seats).map(|seat| &members.backends()[seat.backend as usize]);
    let scored = backends.map(|backend| (score(key, backend), backend));
    let best = scored.reduce(|best, next| {
        let is_better = next.0 > best.0 || (next.0 == best.0 && next.1.id < best.1.id);
        if is_better { next } else { best }
    });
    best.map(|(_, backend)| backend)
}

fn score(key: u64, backend: &Backend) -> f64 {
    // 53 bits, as many as a float tells apart; in the middle of its step, so that it is never 0 or 1.
    let drawn = mix(mix(key) ^ backend.tag()) >> 11;
    let u = (drawn as f64 + 0.5) / (1u64 << 53) as f64;
    f64::from(backend.weight) / -u.ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Algorithm, BackendState, Place, SetPolicy, Standing};
    use std::collections::BTreeMap;
    use std::time::Duration;

    fn backend(id: &str, weight: u32) -> Backend {
        Backend { weight, ..Backend::new(id, ([192, 0, 2, 1], 80).into()) }
    }

    fn members(backends: Vec<Backend>) -> Membership {
        Membership::new(1, backends)
    }

    fn chosen(members: &Membership, keys: u64) -> Vec<&str> {
        (0..keys).map(|key| &*rendezvous(key, members).expect("a backend").id).collect()
    }

    #[test]
    fn keys_spread_in_proportion_to_weights() {
        let members = members(vec![backend("a", 1), backend("b", 2), backend("c", 5), backend("d", 0)]);
        let mut counts = BTreeMap::new();
        chosen(&members, 8000).into_iter().for_each(|id| *counts.entry(id).or_insert(0u32) += 1);
        for (id, fair) in [("a", 1000u32), ("b", 2000), ("c", 5000)] {
            assert!(counts[id].abs_diff(fair) < 150, "{id}: {counts:?}");
        }
        assert_eq!(counts.len(), 3, "weight 0 begins no session");
    }

    #[test]
    fn only_the_keys_of_a_backend_that_goes_move() {
        let before = members((0..10).map(|at| backend(&format!("b{at}"), 1)).collect());
        let after = members((0..9).map(|at| backend(&format!("b{at}"), 1)).collect());
        let moved = chosen(&before, 2000).into_iter().zip(chosen(&after, 2000));
        assert!(moved.into_iter().all(|(was, is)| was == is || was == "b9"));
    }

    #[test]
    fn what_drains_is_down_or_in_reserve_begins_no_session() {
        let draining = Backend { state: BackendState::Draining, ..backend("draining", 1) };
        let standing = Standing { is_available: false, ..Standing::default() };
        let down = Backend { standing, ..backend("down", 1) };
        let reserve = Backend { priority: 1, ..backend("reserve", 1) };
        let policy = SetPolicy::new(Algorithm::RoundRobin);
        let backends = vec![draining, down.clone(), reserve.clone(), backend("good", 1)];
        // Two of three at priority 0 would do; here it is one of two.
        let backends = [backends, vec![backend("too", 1), backend("three", 1)]].concat();
        let members = Membership::build(1, backends, &policy, &Place::default(), Duration::ZERO);
        let ids: std::collections::BTreeSet<&str> = chosen(&members, 500).into_iter().collect();
        assert_eq!(ids.into_iter().collect::<Vec<_>>(), ["good", "three", "too"]);
        let only = Membership::build(1, vec![down, reserve], &policy, &Place::default(), Duration::ZERO);
        assert_eq!(rendezvous(1, &only).map(|backend| &*backend.id), Some("reserve"));
        assert!(rendezvous(1, &Membership::default()).is_none());
    }
}

//! Backend sets: identity and policy ([`BackendSet`]), who is in it now ([`Membership`]), what happens to each
//! member ([`Live`]).
//!
//! Why a cell inside the snapshot: an endpoint change then swaps one pointer in one set and costs what that set
//! costs, whatever else the proxy serves. A change of policy or of routes makes new cells and goes through the
//! snapshot's own swap, so nobody sees new routes over old sets.

use arc_swap::{ArcSwap, Guard};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// How a set balances and how it connects. A change of policy makes a new [`BackendSet`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetPolicy {
    /// How a backend is chosen.
    pub algorithm: Algorithm,
    /// Longest time for a TCP connection to be established.
    pub connect_timeout: Duration,
    /// Idle connections older than this are closed.
    pub idle_timeout: Duration,
    /// Idle connections that this process keeps to one backend; 0 keeps none.
    pub idle_connections_max: u32,
}

/// How a backend is chosen within a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// Each backend in turn, in proportion to its weight ([`crate::balance::Schedule`]).
    RoundRobin,
}

/// A named group of backends that routes send to.
#[derive(Debug)]
pub struct BackendSet {
    /// Unique within the process: the key of state that a worker keeps for this set.
    pub id: u64,
    /// `namespace/pool/set`, for messages.
    pub name: Arc<str>,
    /// Fixed for the life of this value.
    pub policy: SetPolicy,
    current: ArcSwap<Membership>,
}

impl BackendSet {
    /// A set with its first membership. `id` must be unique within the process.
    #[must_use]
    pub fn new(id: u64, name: Arc<str>, policy: SetPolicy, members: Arc<Membership>) -> Self {
        Self { id, name, policy, current: ArcSwap::new(members) }
    }

    /// Who is in the set now. Cheap; hold the guard for one decision, not across an await.
    pub fn members(&self) -> Guard<Arc<Membership>> {
        self.current.load()
    }

    /// Replaces the membership; requests already on a backend are not touched.
    pub fn replace_members(&self, members: Arc<Membership>) {
        self.current.store(members);
    }
}

/// One version of who is in a set.
#[derive(Debug, Default)]
pub struct Membership {
    /// Different for each version within the process, so that a worker sees a change by one comparison.
    pub version: u64,
    backends: Box<[Backend]>,
    eligible: Box<[u32]>,
}

impl Membership {
    /// Sorts by id and works out who may take a new request: backends that are ready and have a weight or, when
    /// there is none, those that drain (last resort; EndpointSlice's serving and terminating).
    ///
    /// A later duplicate of an id is dropped.
    #[must_use]
    pub fn new(version: u64, mut backends: Vec<Backend>) -> Self {
        backends.sort_by(|a, b| a.id.cmp(&b.id));
        backends.dedup_by(|later, kept| later.id == kept.id);
        let with = |state: BackendState| -> Box<[u32]> {
            (0u32..)
                .zip(&backends)
                .filter(|(_, b)| b.state == state && b.weight > 0)
                .map(|(i, _)| i)
                .collect()
        };
        let ready = with(BackendState::Ready);
        let eligible = if ready.is_empty() { with(BackendState::Draining) } else { ready };
        Self { version, backends: backends.into(), eligible }
    }

    /// All backends, sorted by id.
    #[must_use]
    pub fn backends(&self) -> &[Backend] {
        &self.backends
    }

    /// Those that may take a new request, in the order of their ids.
    pub fn eligible(&self) -> impl ExactSizeIterator<Item = &Backend> + Clone {
        self.eligible.iter().map(|&i| &self.backends[i as usize])
    }

    /// The `position`-th of [`Self::eligible`].
    #[must_use]
    pub fn eligible_at(&self, position: usize) -> Option<&Backend> {
        self.eligible.get(position).map(|&i| &self.backends[i as usize])
    }
}

/// A member of a set.
#[derive(Debug, Clone)]
pub struct Backend {
    /// Stable identity within the set; [`Live`] is carried over by it.
    pub id: Arc<str>,
    /// Where it listens.
    pub address: SocketAddr,
    /// Relative; 0 takes no new requests.
    pub weight: u32,
    /// Topology zone; empty where unknown.
    pub zone: Arc<str>,
    /// What the control plane says of it.
    pub state: BackendState,
    /// What this process saw of it.
    pub live: Arc<Live>,
}

/// What the control plane says of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendState {
    /// Takes requests.
    Ready,
    /// Keeps what it has, takes nothing new while another backend is ready.
    Draining,
}

/// What this process saw of a backend. Carried over from version to version by the backend's id.
///
/// Aligned to a pair of cache lines, so that two backends' counters never share one.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Live {
    in_flight: AtomicU32,
    requests: AtomicU64,
}

impl Live {
    /// Counts a request in; it counts out when the guard drops.
    pub fn enter(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    /// Requests on this backend at the moment, from all workers.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Requests sent to this backend since the process knows it.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

/// A request on a backend.
#[derive(Debug)]
pub struct InFlight(Arc<Live>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn backend(id: &str, weight: u32, state: BackendState) -> Backend {
        Backend {
            id: id.into(),
            address: ([127, 0, 0, 1], 80).into(),
            weight,
            zone: "".into(),
            state,
            live: Arc::default(),
        }
    }

    fn eligible(backends: Vec<Backend>) -> Vec<String> {
        Membership::new(1, backends).eligible().map(|b| b.id.to_string()).collect()
    }

    #[test]
    fn draining_backends_are_the_last_resort() {
        use BackendState::{Draining, Ready};
        let (a, b) = (backend("a", 1, Ready), backend("b", 1, Draining));
        assert_eq!(eligible(vec![b.clone(), a]), ["a"]);
        assert_eq!(eligible(vec![b.clone(), backend("a", 0, Ready)]), ["b"]);
        assert_eq!(eligible(vec![b]), ["b"]);
        assert_eq!(eligible(vec![]), [""; 0]);
    }

    #[test]
    fn weight_zero_takes_nothing_even_when_alone() {
        assert_eq!(eligible(vec![backend("a", 0, BackendState::Ready)]), [""; 0]);
    }

    #[test]
    fn members_are_sorted_by_id_and_unique() {
        let of = |id| backend(id, 1, BackendState::Ready);
        assert_eq!(eligible(vec![of("b"), of("a"), of("b")]), ["a", "b"]);
    }

    #[test]
    fn a_request_counts_in_and_out() {
        let live = Arc::<Live>::default();
        let first = live.enter();
        let second = live.enter();
        assert_eq!(live.in_flight(), 2);
        drop(first);
        drop(second);
        assert_eq!((live.in_flight(), live.requests()), (0, 2));
    }
}

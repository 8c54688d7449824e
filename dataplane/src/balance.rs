//! Which backend set of a route, and which backend of the set, takes a request.
//!
//! The choice itself is lb-core's. Here is the state that one worker keeps for it, by route and by set, and the order in
//! which everybody has a say: what the request says of its set, its session, the weights; the set's circuit; then its
//! algorithm, over the backends that have a free slot, and the queue where none has.

use crate::affinity;
use crate::connection::Peer;
use crate::cookie;
use crate::failure::Failure;
use crate::message::RequestHead;
use crate::proxied::Ends;
use foldhash::HashMap;
use lb_core::backend::{Backend, BackendSet, InFlight, Live, Membership};
use lb_core::balance::{PickRequest, Picked, Picker, Rng, Schedule};
use lb_core::resilience::{Admission, Probe, Queue};
use lb_core::route::{Fallback, FallbackResponse, Route, SplitMatch, SplitSource, WeightedSet};
use lb_core::sessions::Choice;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// One worker's place in every rotation.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    seed: u64,
    rng: RefCell<Rng>,
    splits: ById<Route, Schedule<usize>>,
    pickers: ById<BackendSet, Turn>,
    /// Some set has requests that its retry budget does not know of.
    has_uncounted: Cell<bool>,
}

/// One worker's place in a set.
#[derive(Debug)]
struct Turn {
    picker: Picker,
    /// Since the budget was last told.
    requests: u32,
}

/// State for each `K` that is still in some snapshot, by its id.
type ById<K, S> = RefCell<HashMap<u64, (Weak<K>, S)>>;

/// What a request asks for a backend with.
#[derive(Debug)]
pub(crate) struct Ask<'a> {
    /// `None` for a connection of layer 4.
    pub(crate) head: Option<&'a RequestHead>,
    pub(crate) peer: &'a Peer,
    /// Where its session is at home, the best first.
    pub(crate) choices: &'a [Choice],
    /// Of a session that has no home yet: names one, the same on every proxy.
    pub(crate) session_key: Option<u64>,
    /// Backends that it was on already.
    pub(crate) tried: &'a [Arc<Live>],
    /// Since the process began.
    pub(crate) now: Duration,
    /// It is in a queue already. One that is not goes behind those that are.
    pub(crate) is_waiting: bool,
}

/// Where a request goes.
#[derive(Debug)]
pub(crate) enum Place<'a> {
    Backend(Target<'a>),
    /// No backend may be asked now, and this is said instead.
    Response(&'a FallbackResponse),
    /// Every backend has its fill: ask again when one of them has room.
    Queue(&'a Queue),
    /// The backend of its session has its fill.
    Home(&'a Queue),
}

/// A backend that was chosen; the request counts as on it for as long as this lives.
#[derive(Debug)]
pub(crate) struct Target<'a> {
    pub(crate) set: &'a Arc<BackendSet>,
    pub(crate) address: SocketAddr,
    pub(crate) slot: Slot,
    /// Where a session that begins now is at home.
    pub(crate) choice: Choice,
    /// Of the backend, where what becomes of the request is of interest.
    pub(crate) backend: Option<Arc<str>>,
    /// That the backend is told of when a connection begins; `None` where its set tells of nobody.
    pub(crate) client: Option<Ends>,
    /// Its set stands in for another one.
    pub(crate) is_fallback: Cell<bool>,
    /// Of a circuit that is half-open: it hangs on this request.
    pub(crate) probe: RefCell<Option<Probe>>,
}

/// A request's place on a backend. Whoever waits for one is woken when it is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    in_flight: Option<InFlight>,
    /// Where somebody may wait.
    queue: Option<Arc<BackendSet>>,
}

impl Slot {
    pub(crate) fn live(&self) -> &Arc<Live> {
        self.in_flight.as_ref().expect("it is there until the drop").live()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // The order is the point: whoever is woken must find the slot free.
        self.in_flight = None;
        if let Some(set) = &self.queue {
            set.guard.queue.wake_one();
        }
    }
}

impl Turns {
    /// Workers with different seeds begin at different backends.
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, rng: RefCell::new(Rng::new(seed)), ..Self::default() }
    }

    /// A place for a request of this route.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn place<'a>(&self, route: &'a Arc<Route>, ask: &Ask<'_>) -> Result<Place<'a>, Failure> {
        let first = self.set_for(route, ask).ok_or(Failure::NoBackend)?;
        match self.place_in(&first.set, ask) {
            Err(Failure::NoBackend) => {}
            Err(failure) => return self.fall_back(route, &first.set, failure, ask),
            place => return place,
        }
        // The share of a set without backends goes to the others rather than to an error.
        let others = route.sets.iter().filter(|other| other.weight > 0 && !std::ptr::eq(*other, first));
        for other in others {
            match self.place_in(&other.set, ask) {
                Err(Failure::NoBackend) => {}
                Err(failure) => return self.fall_back(route, &other.set, failure, ask),
                place => return place,
            }
        }
        self.fall_back(route, &first.set, Failure::NoBackend, ask)
    }

    /// A place in what stands in for a set, or in what stands in for that, and so on: no set comes back to itself so.
    fn fall_back<'a>(
        &self,
        route: &'a Route,
        set: &'a BackendSet,
        failure: Failure,
        ask: &Ask<'_>,
    ) -> Result<Place<'a>, Failure> {
        let (mut set, mut failure) = (set, failure);
        loop {
            match route.fallback_of(set) {
                None => return Err(failure),
                Some(Fallback::Response(response)) => return Ok(Place::Response(response)),
                Some(Fallback::Set(other)) => match self.place_in(other, ask) {
                    Ok(place) => {
                        if let Place::Backend(target) = &place {
                            target.is_fallback.set(true);
                        }
                        return Ok(place);
                    }
                    Err(of_other) => (set, failure) = (other, of_other),
                },
            }
        }
    }

    fn place_in<'a>(&self, set: &'a Arc<BackendSet>, ask: &Ask<'_>) -> Result<Place<'a>, Failure> {
        let probe = match &set.guard.breaker {
            None => None,
            Some(breaker) => match breaker.admit(ask.now) {
                Admission::Passed => None,
                Admission::Probe(probe) => Some(probe),
                Admission::Refused => {
                    let wait = breaker.retry_after(ask.now).as_millis().div_ceil(1000).max(1);
                    let retry_after_s = u32::try_from(wait).unwrap_or(u32::MAX);
                    return Err(Failure::CircuitOpen { retry_after_s });
                }
            },
        };
        let members = set.members();
        let found = self.backend(set, &members, ask);
        let (backend, in_flight) = match found {
            Found::Backend(backend, in_flight) => (backend, in_flight),
            Found::Full => return Ok(Place::Queue(&set.guard.queue)),
            Found::HomeFull => return Ok(Place::Home(&set.guard.queue)),
            Found::None => return Err(Failure::NoBackend),
        };
        let queue = set.policy.requests_max.is_some().then(|| Arc::clone(set));
        Ok(Place::Backend(Target {
            client: set.policy.proxy_header.map(|_| ask.peer.ends()),
            set,
            address: backend.address,
            slot: Slot { in_flight: Some(in_flight), queue },
            choice: Choice { set: set.tag, backend: backend.tag() },
            backend: set.policy.is_judged.then(|| Arc::clone(&backend.id)),
            is_fallback: Cell::new(false),
            probe: RefCell::new(probe),
        }))
    }

    fn set_for<'a>(&self, route: &'a Arc<Route>, ask: &Ask<'_>) -> Option<&'a WeightedSet> {
        decided_set(route, ask).map(|(set, _)| set).or_else(|| self.split(route))
    }

    fn split<'a>(&self, route: &'a Arc<Route>) -> Option<&'a WeightedSet> {
        if let [only] = route.sets.as_slice() {
            return (only.weight > 0).then_some(only);
        }
        let mut splits = self.splits.borrow_mut();
        let (_, schedule) = splits.entry(route.id).or_insert_with(|| {
            let mut schedule = Schedule::default();
            schedule.replace(route.sets.iter().map(|set| set.weight).enumerate(), self.seed);
            (Arc::downgrade(route), schedule)
        });
        schedule.next_position().map(|position| &route.sets[position])
    }

    fn backend<'m>(&self, set: &Arc<BackendSet>, members: &'m Membership, ask: &Ask<'_>) -> Found<'m> {
        let mut pickers = self.pickers.borrow_mut();
        let (_, turn) = pickers.entry(set.id).or_insert_with(|| {
            let picker = Picker::new(set.policy.algorithm, self.seed);
            (Arc::downgrade(set), Turn { picker, requests: 0 })
        });
        if ask.tried.is_empty() && !ask.is_waiting {
            turn.requests += 1;
            self.has_uncounted.set(true);
        }
        let limit = set.policy.requests_max;
        if let Some((backend, _)) = home(set, members, ask) {
            return match backend.live.try_enter(limit) {
                Some(in_flight) => Found::Backend(backend, in_flight),
                None => Found::HomeFull,
            };
        }
        if limit.is_some() && !ask.is_waiting && !set.guard.queue.is_empty() {
            return Found::Full;
        }
        let request = PickRequest {
            now: ask.now,
            key: set.policy.key.as_ref().and_then(|source| affinity::key(source, ask.head, ask.peer)),
            tried: ask.tried,
            requests_max: limit,
        };
        let mut rng = self.rng.borrow_mut();
        loop {
            match turn.picker.pick(members, &request, &mut rng) {
                Picked::None => return Found::None,
                Picked::Full => return Found::Full,
                Picked::Backend(backend) => {
                    // Where it has none, another worker was faster, and the next pick knows.
                    if let Some(in_flight) = backend.live.try_enter(limit) {
                        return Found::Backend(backend, in_flight);
                    }
                }
            }
        }
    }

    /// Tells the retry budgets of the requests that they do not know of.
    pub(crate) fn count_requests(&self, now: Duration) {
        if !self.has_uncounted.replace(false) {
            return;
        }
        for (set, turn) in self.pickers.borrow_mut().values_mut() {
            if turn.requests > 0
                && let Some(set) = set.upgrade()
            {
                set.guard.budget.deposit(now, std::mem::take(&mut turn.requests));
            }
        }
    }

    /// A pause before the `nth` retry, from 0.
    pub(crate) fn backoff(&self, base: Duration, nth: u32) -> Duration {
        lb_core::resilience::backoff(base, nth, &mut self.rng.borrow_mut())
    }

    /// Whether this is one of so many in so many; `of` is not 0.
    pub(crate) fn chance(&self, numerator: u32, of: u32) -> bool {
        numerator >= of || self.rng.borrow_mut().below(of as usize) < numerator as usize
    }

    /// Forgets routes and sets that are gone.
    pub(crate) fn sweep(&self) {
        self.splits.borrow_mut().retain(|_, (route, _)| route.strong_count() > 0);
        self.pickers.borrow_mut().retain(|_, (set, _)| set.strong_count() > 0);
    }
}

enum Found<'m> {
    Backend(&'m Backend, InFlight),
    Full,
    HomeFull,
    None,
}

/// What of a request decides for a set, or for a backend in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decided {
    /// It has what the set's `matches` ask for.
    Match,
    /// Its session is at home there.
    Session,
    /// Its session begins, and does so there on every proxy.
    SessionStart,
}

/// The set that the request itself says; `None` where the weights do.
pub(crate) fn decided_set<'a>(route: &'a Route, ask: &Ask<'_>) -> Option<(&'a WeightedSet, Decided)> {
    let is_asked_for = |set: &&WeightedSet, head| set.matches.iter().any(|wanted| is_match(wanted, head));
    let mut sets = route.sets.iter();
    if let Some(set) = ask.head.and_then(|head| sets.find(|set| is_asked_for(set, head))) {
        return Some((set, Decided::Match));
    }
    let home = |choice: &Choice| {
        let of_choice = |set: &&WeightedSet| set.set.tag == choice.set;
        let set = route.sets.iter().find(of_choice)?;
        at_home(&set.set.members(), choice, ask.tried).is_some().then_some(set)
    };
    ask.choices.iter().find_map(home).map(|set| (set, Decided::Session))
}

/// The backend of the request's session in a set, or the one on which it begins; `None` where it has none.
pub(crate) fn home<'m>(
    set: &BackendSet,
    members: &'m Membership,
    ask: &Ask<'_>,
) -> Option<(&'m Backend, Decided)> {
    let of_set = ask.choices.iter().filter(|choice| choice.set == set.tag);
    let known = of_set.filter_map(|choice| at_home(members, choice, ask.tried)).next();
    known.map(|backend| (backend, Decided::Session)).or_else(|| {
        let key = ask.session_key.filter(|_| ask.tried.is_empty())?;
        lb_core::sessions::rendezvous(key, members).map(|backend| (backend, Decided::SessionStart))
    })
}

/// The backend of a session, while it takes requests that it has already. One that drains or has no weight does.
fn at_home<'m>(members: &'m Membership, choice: &Choice, tried: &[Arc<Live>]) -> Option<&'m Backend> {
    let backend = members.tagged(choice.backend)?;
    let is_well = backend.standing.is_available || members.ignores_health();
    let is_tried = tried.iter().any(|live| Arc::ptr_eq(live, &backend.live));
    (is_well && !is_tried).then_some(backend)
}

pub(crate) fn is_match(wanted: &SplitMatch, head: &RequestHead) -> bool {
    let is = |found: &[u8]| wanted.value.as_ref().is_none_or(|value| value.as_bytes() == found);
    match &wanted.source {
        SplitSource::Header(name) => head.headers.get_all(&**name).iter().any(|value| is(value.as_bytes())),
        SplitSource::Cookie(name) => cookie::first(&head.headers, name).is_some_and(is),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_core::backend::{Algorithm, Backend, Membership, SetPolicy};
    use lb_core::route::WeightedSet;

    fn set(id: u64, ports: &[u16], weight: u32) -> WeightedSet {
        let backend = |port: &u16| Backend::new(port.to_string(), ([127, 0, 0, 1], *port).into());
        let policy = SetPolicy::new(Algorithm::RoundRobin);
        let members = Arc::new(Membership::new(id, ports.iter().map(backend).collect()));
        WeightedSet::new(Arc::new(BackendSet::new(id, "set".into(), policy, members)), weight)
    }

    fn ports(sets: Vec<WeightedSet>, count: usize) -> Vec<u16> {
        let route = Arc::new(Route::new(1, "p".into(), 0, sets));
        let turns = Turns::default();
        (0..count).filter_map(|_| target(&turns, &route)).collect()
    }

    fn head() -> RequestHead {
        RequestHead {
            version: http::Version::HTTP_11,
            method: http::Method::GET,
            authority: None,
            target: "/".parse().expect("a target"),
            headers: http::HeaderMap::new(),
            body: crate::message::BodyLength::Empty,
            upgrade: crate::message::Upgrade::No,
        }
    }

    fn peer() -> Peer {
        Peer::at(80, [192, 0, 2, 1])
    }

    fn ask_of<'a>(head: &'a RequestHead, peer: &'a Peer) -> Ask<'a> {
        Ask {
            head: Some(head),
            peer,
            choices: &[],
            session_key: None,
            tried: &[],
            now: Duration::ZERO,
            is_waiting: false,
        }
    }

    /// The port of the backend that the next request goes to.
    fn target(turns: &Turns, route: &Arc<Route>) -> Option<u16> {
        let (head, peer) = (head(), peer());
        match turns.place(route, &ask_of(&head, &peer)) {
            Ok(Place::Backend(target)) => Some(target.address.port()),
            _ => None,
        }
    }

    #[test]
    fn requests_are_split_between_sets_by_weight_and_take_turns_within() {
        assert_eq!(ports(vec![set(1, &[1, 2], 2), set(2, &[9], 1)], 6), [1, 9, 2, 1, 9, 2]);
    }

    #[test]
    fn a_set_without_backends_leaves_its_share_to_the_others() {
        assert_eq!(ports(vec![set(1, &[], 1), set(2, &[9], 1)], 3), [9, 9, 9]);
        assert!(ports(vec![set(1, &[], 1), set(2, &[9], 0)], 3).is_empty(), "a set of weight 0 takes none");
        assert!(ports(vec![set(1, &[5], 0)], 3).is_empty());
    }

    #[test]
    fn what_stands_in_for_a_set_has_what_stands_in_for_it() {
        let response =
            FallbackResponse { status: 503, content_type: "a/b".into(), body: b"later".as_slice().into() };
        let end = Fallback::Response(Arc::new(response));
        let place = |last: &[u16], end: Option<Fallback>| {
            let (second, third) = (set(2, &[], 0), set(3, last, 0));
            let to = |set: &WeightedSet| Some(Fallback::Set(Arc::clone(&set.set)));
            let first = WeightedSet { fallback: to(&second), ..set(1, &[], 1) };
            let second = WeightedSet { fallback: to(&third), ..second };
            let third = WeightedSet { fallback: end, ..third };
            let route = Route { fallbacks: vec![second, third], ..Route::new(1, "p".into(), 0, vec![first]) };
            let (turns, route) = (Turns::default(), Arc::new(route));
            match turns.place(&route, &ask_of(&head(), &peer())) {
                Ok(Place::Backend(target)) => {
                    assert!(target.is_fallback.get());
                    Ok(Some(target.address.port()))
                }
                Ok(Place::Response(response)) => Ok(Some(response.status)),
                Ok(_) => Ok(None),
                Err(failure) => Err(failure),
            }
        };
        assert_eq!(place(&[9], None), Ok(Some(9)));
        assert_eq!(place(&[9], Some(end.clone())), Ok(Some(9)));
        assert_eq!(place(&[], Some(end)), Ok(Some(503)));
        assert_eq!(place(&[], None), Err(Failure::NoBackend), "as the last of them failed");
    }

    #[test]
    fn what_is_gone_is_swept() {
        let turns = Turns::default();
        let sets = vec![set(1, &[1], 1), set(2, &[2], 1)];
        let route = Arc::new(Route::new(1, "p".into(), 0, sets));
        for _ in 0..2 {
            assert!(target(&turns, &route).is_some());
        }
        turns.sweep();
        assert_eq!((turns.splits.borrow().len(), turns.pickers.borrow().len()), (1, 2));
        drop(route);
        turns.sweep();
        assert_eq!((turns.splits.borrow().len(), turns.pickers.borrow().len()), (0, 0));
    }
}

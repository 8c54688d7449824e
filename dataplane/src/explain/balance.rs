//! Where goes what a backend takes: the set, and the backend in it.

use super::question::Noun;
use super::value::{Answerer, Backend, Choice as Told, Explanation, Session, Set};
use super::{Kept, moment};
use crate::affinity;
use crate::balance::{Ask, Decided, decided_set, home};
use crate::connection::Peer;
use crate::cookie;
use crate::failure::Failure;
use crate::message::RequestHead;
use crate::sessions;
use lb_core::backend::{Algorithm, BackendSet, BackendState, KeySource, Membership};
use lb_core::balance::{Lane, PickRequest, Picked, Picker, Rng};
use lb_core::route::{Fallback, FallbackResponse, Route, Sessions, WeightedSet};
use lb_core::sessions::{Choice, SessionSource};
use std::sync::Arc;
use std::time::Duration;

/// What a request says of its session.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) told: Option<Session>,
    pub(super) ask: Asking,
}

/// What is asked for a backend with.
#[derive(Default)]
pub(super) struct Asking {
    choices: Vec<Choice>,
    key: Option<u64>,
}

impl Asking {
    pub(super) fn of<'a>(
        &'a self,
        head: Option<&'a RequestHead>,
        peer: &'a Peer,
        kept: Option<Kept<'_>>,
    ) -> Ask<'a> {
        Ask {
            head,
            peer,
            choices: &self.choices,
            session_key: self.key,
            tried: &[],
            now: kept.map_or(Duration::ZERO, |kept| kept.since_start),
            is_waiting: false,
        }
    }
}

/// The session of a request, as [`sessions::Keeping::seen`] has it; our cookie is taken out of the head. What has no head goes
/// by its source alone. Without `kept` nothing is remembered, and no cookie can be opened.
pub(super) fn session(
    route: &Route,
    mut head: Option<&mut RequestHead>,
    peer: &Peer,
    kept: Option<Kept<'_>>,
) -> Seen {
    let Some(own) = &route.sessions else { return Seen::default() };
    let (by, name) = match &own.policy.source {
        SessionSource::Sealed(cookie) => ("cookie", Some(&cookie.name)),
        SessionSource::SourceIp => ("source_ip", None),
        SessionSource::Header(name) => ("header", Some(name)),
        SessionSource::Learnt(name) => ("application_cookie", Some(name)),
    };
    let is_sent = match &own.policy.source {
        SessionSource::Sealed(cookie) => {
            head.as_deref().is_some_and(|head| cookie::first(&head.headers, &cookie.name).is_some())
        }
        source => sessions::key(source, head.as_deref(), peer).is_some(),
    };
    let (choices, key, state) = match kept {
        Some(kept) => {
            let seen = match &mut head {
                Some(head) => kept.keeping.seen(own, head, peer, moment(&kept)),
                None => kept.keeping.seen_of_source(own, peer, moment(&kept)),
            };
            let refusal = seen.refusal().map(|refusal| format!("{refusal:?}").to_lowercase());
            let state = match (seen.choices().is_empty(), refusal) {
                (false, _) => "it is at home on a backend".to_owned(),
                (true, Some(refusal)) => {
                    format!("the cookie is not believed ({refusal}): the session begins anew")
                }
                (true, None) => begins(own, is_sent),
            };
            (seen.choices().to_vec(), seen.key(), state)
        }
        None => unkept(own, head, peer, is_sent),
    };
    let told = Session { by: by.to_owned(), name: name.map(ToString::to_string), state };
    Seen { told: Some(told), ask: Asking { choices, key } }
}

fn unkept(
    own: &Sessions,
    head: Option<&mut RequestHead>,
    peer: &Peer,
    is_sent: bool,
) -> (Vec<Choice>, Option<u64>, String) {
    match &own.policy.source {
        SessionSource::Sealed(cookie) => {
            if let Some(head) = head {
                cookie::remove(&mut head.headers, &cookie.name);
            }
            let state = if is_sent {
                "only a proxy can open the cookie, which says the backend: ask one with --proxy".to_owned()
            } else {
                begins(own, is_sent)
            };
            (Vec::new(), None, state)
        }
        source => (Vec::new(), sessions::key(source, head.as_deref(), peer), begins(own, is_sent)),
    }
}

fn begins(own: &Sessions, is_sent: bool) -> String {
    match (&own.policy.source, is_sent) {
        (SessionSource::Sealed(_), _) => "it begins with the answer, which sets the cookie",
        (_, true) => "it begins, on the backend that every proxy names for it",
        (_, false) => "the request does not say which it is of: it goes its own way",
    }
    .to_owned()
}

/// Where requests of a set go in the end, as [`crate::balance::Turns::place`] has it while no circuit is open.
enum Landing<'a> {
    Set(&'a Arc<BackendSet>),
    Response(&'a FallbackResponse),
    Nobody,
}

fn landing<'a>(route: &'a Route, first: &'a WeightedSet, ask: &Ask<'_>) -> Landing<'a> {
    // A session goes on with a backend that takes no others.
    let takes = |set: &BackendSet| {
        let members = set.members();
        members.eligible().len() > 0 || home(set, &members, ask).is_some()
    };
    let others = route.sets.iter().filter(|other| other.weight > 0 && !std::ptr::eq(*other, first));
    if let Some(found) = std::iter::once(first).chain(others).find(|own| takes(&own.set)) {
        return Landing::Set(&found.set);
    }
    let mut set = &first.set;
    loop {
        match route.fallback_of(set) {
            None => return Landing::Nobody,
            Some(Fallback::Response(response)) => return Landing::Response(response),
            Some(Fallback::Set(other)) if takes(other) => return Landing::Set(other),
            Some(Fallback::Set(other)) => set = other,
        }
    }
}

/// Tells of the sets of a route and, where it is decided, of the backend. Returns the answer that stands in for all of them,
/// where one does.
///
/// # Errors
/// [`Failure::NoBackend`] where none of them takes what is `one` like this.
pub(super) fn tell<'a>(
    told: &mut Explanation,
    route: &'a Arc<Route>,
    ask: &Ask<'_>,
    one: Noun,
) -> Result<Option<&'a FallbackResponse>, Failure> {
    let decided = decided_set(route, ask);
    let total: u64 = route.sets.iter().map(|own| u64::from(own.weight)).sum();
    let part = |own: &WeightedSet| match decided {
        Some((set, _)) => f64::from(u8::from(std::ptr::eq(set, own))),
        None if total == 0 => 0.0,
        None => f64::from(own.weight) / total as f64,
    };
    let landed: Vec<_> = route.sets.iter().map(|own| (part(own), landing(route, own, ask))).collect();
    let share = |set: &BackendSet| -> f64 {
        let of = landed.iter().filter(|(_, landing)| matches!(landing, Landing::Set(to) if to.id == set.id));
        of.map(|(part, _)| part).sum()
    };
    let why = |own: &WeightedSet| match decided {
        Some((set, Decided::Match)) if std::ptr::eq(set, own) => {
            format!("the {one} has what its matches ask for")
        }
        Some((set, _)) if std::ptr::eq(set, own) => format!("the {one}'s session is at home in it"),
        Some(_) => format!("the {one} belongs to another set"),
        None if own.set.members().eligible().len() == 0 => format!("it has no backend that takes {one}s"),
        None if route.sets.len() == 1 => "it is the rule's only set".to_owned(),
        None => "by its weight".to_owned(),
    };
    let of_route = route.sets.iter().map(|own| set(own, "route", share(&own.set), why(own)));
    let used = route.fallbacks.iter().map(|own| {
        let share = share(&own.set);
        let why = if share > 0.0 { "it stands in for a set" } else { "nothing needs it now" };
        set(own, "fallback", share, why.to_owned())
    });
    told.sets = of_route.chain(used).collect();
    let mut taken = landed.iter().filter(|(part, _)| *part > 0.0).map(|(_, landing)| landing);
    let first = taken.next().ok_or(Failure::NoBackend)?;
    let is_one = taken.all(|other| is_same(first, other));
    match first {
        Landing::Nobody if is_one => Err(Failure::NoBackend),
        Landing::Response(response) if is_one => {
            told.answer.by = Answerer::Fallback;
            told.answer.status = Some(response.status);
            told.answer.detail = "no set has a backend, and a response stands in for them".to_owned();
            Ok(Some(*response))
        }
        Landing::Set(set) if is_one => {
            let (backend, detail) = chosen(set, ask, one);
            told.backend = backend;
            told.answer.by = Answerer::Backend;
            told.answer.detail = detail;
            Ok(None)
        }
        _ => {
            told.answer.by = Answerer::Backend;
            told.answer.detail =
                format!("weights split {one}s between sets, in turn at each worker of each proxy");
            Ok(None)
        }
    }
}

fn is_same(one: &Landing<'_>, other: &Landing<'_>) -> bool {
    match (one, other) {
        (Landing::Set(one), Landing::Set(other)) => one.id == other.id,
        (Landing::Nobody, Landing::Nobody) => true,
        (Landing::Response(one), Landing::Response(other)) => std::ptr::eq(*one, *other),
        _ => false,
    }
}

/// The backend of a set that gets the request, where that is decided, and a sentence on how it is.
fn chosen(set: &BackendSet, ask: &Ask<'_>, one: Noun) -> (Option<Told>, String) {
    let members = set.members();
    let told = |backend: &lb_core::backend::Backend, by: &str, why: String| {
        let choice = Told {
            set: short(&set.name).to_owned(),
            id: backend.id.to_string(),
            address: backend.address.to_string(),
            decided_by: by.to_owned(),
            why: why.clone(),
        };
        (Some(choice), why)
    };
    match home(set, &members, ask) {
        Some((backend, Decided::Session)) => {
            return told(backend, "session", format!("the {one}'s session is at home there"));
        }
        Some((backend, _)) => {
            let why =
                format!("the {one}'s session begins there, on whichever proxy, unless one remembers another");
            return told(backend, "session_start", why);
        }
        None => {}
    }
    let with_share = members.lanes().iter().filter(|lane| lane.share() > 0.0);
    let mut seats = with_share.flat_map(Lane::seats);
    if let (Some(only), None) = (seats.next(), seats.next()) {
        let is_alone = members.eligible().len() == 1;
        let why = if is_alone {
            format!("no other backend takes {one}s")
        } else {
            "the others are in reserve".to_owned()
        };
        return told(&members.backends()[only.backend as usize], "only", why);
    }
    let key = set.policy.key.as_ref().and_then(|source| affinity::key(source, ask.head, ask.peer));
    let (Algorithm::Maglev { load_percent_max }, Some(source)) = (set.policy.algorithm, &set.policy.key)
    else {
        return (None, format!("{} chooses anew for each {one}", algorithm(set.policy.algorithm)));
    };
    let by = key_name(source);
    if key.is_none() {
        return (None, format!("the {one} has no {by} to take a hash of: it may go to any backend"));
    }
    let request = PickRequest { now: ask.now, key, ..PickRequest::default() };
    match Picker::new(set.policy.algorithm, 0).pick(&members, &request, &mut Rng::new(0)) {
        Picked::Backend(backend) => {
            let bound = load_percent_max.map_or_else(String::new, |percent| {
                format!(", while that has no more than {percent} % of its fair share of {one}s")
            });
            told(backend, "hash", format!("the hash of {by} leads there{bound}"))
        }
        Picked::Full | Picked::None => (None, format!("no backend takes {one}s")),
    }
}

fn set(own: &WeightedSet, role: &str, share: f64, why: String) -> Set {
    let set = &own.set;
    let members = set.members();
    Set {
        name: short(&set.name).to_owned(),
        role: role.to_owned(),
        weight: own.weight,
        share,
        why,
        algorithm: algorithm(set.policy.algorithm).to_owned(),
        hash_key: set.policy.key.as_ref().map(key_name),
        ignores_health: members.ignores_health(),
        fallback: own.fallback.as_ref().map(|fallback| match fallback {
            Fallback::Set(other) => format!("set {}", short(&other.name)),
            Fallback::Response(response) => format!("response {}", response.status),
        }),
        backends: backends(&members),
    }
}

fn backends(members: &Membership) -> Vec<Backend> {
    let mut odds = vec![0.0; members.backends().len()];
    for lane in members.lanes() {
        for seat in lane.seats() {
            let part = f64::from(seat.weight) / lane.weight_total() as f64;
            odds[seat.backend as usize] += lane.share() * part;
        }
    }
    let shown = members.backends().iter().zip(odds).map(|(backend, probability)| Backend {
        id: backend.id.to_string(),
        address: backend.address.to_string(),
        weight: backend.weight,
        priority: backend.priority,
        zone: backend.zone.to_string(),
        state: match backend.state {
            BackendState::Ready => "ready",
            BackendState::Draining => "draining",
        }
        .to_owned(),
        available: backend.standing.is_available,
        probability,
    });
    shown.collect()
}

/// As configuration calls it.
fn algorithm(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::RoundRobin => "RoundRobin",
        Algorithm::Random => "Random",
        Algorithm::LeastRequest { .. } => "LeastRequest",
        Algorithm::LeastConnections => "LeastConnections",
        Algorithm::LeastResponseTime(_) => "LeastResponseTime",
        Algorithm::PeakEwma(_) => "PeakEwma",
        Algorithm::Maglev { .. } => "ConsistentHash",
    }
}

fn key_name(source: &KeySource) -> String {
    match source {
        KeySource::SourceIp => "the client's address".to_owned(),
        KeySource::Header(name) => format!("header {name}"),
        KeySource::Cookie(name) => format!("cookie {name}"),
        KeySource::Query(name) => format!("query parameter {name}"),
        KeySource::Host => "the host".to_owned(),
    }
}

/// A set's own name, of `namespace/pool/set`.
pub(super) fn short(name: &str) -> &str {
    name.splitn(3, '/').nth(2).unwrap_or(name)
}

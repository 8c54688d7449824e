//! The matches of one host and path, and which of them a request has.
//!
//! Most hosts and paths have one match, without conditions. Where there are many, as of a rule for each tenant or version,
//! those that ask for an exact value are found by it: a hash for each name that is asked about, and not a look at each.

use super::Route;
use super::conditions::{Conditions, FieldMatch, Rank, Request, ValueMatch, parameter};
use foldhash::{HashMap, HashMapExt as _};
use http::{HeaderName, Method};
use std::sync::Arc;

/// So many matches are looked at one by one: an index costs as much as some of them.
const SCANNED_MAX: usize = 8;

/// A match with conditions.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) conditions: Arc<Conditions>,
    pub(super) route: Arc<Route>,
}

impl Candidate {
    pub(super) fn rank(&self) -> Rank {
        self.conditions.rank()
    }

    pub(super) fn holds(&self, request: &impl Request) -> bool {
        self.conditions.hold(request, &self.route.pool)
    }
}

/// What one host and path has. As small as a route alone, since every request comes by.
#[derive(Debug, Clone)]
pub(super) enum Slot {
    /// Whatever else the request says.
    Always(Arc<Route>),
    Choices(Arc<Choices>),
}

impl Slot {
    /// `None` where there is no match at all.
    pub(super) fn new(candidates: Vec<Candidate>, otherwise: Option<Arc<Route>>) -> Option<Self> {
        match (candidates.is_empty(), otherwise) {
            (true, None) => None,
            (true, Some(route)) => Some(Self::Always(route)),
            (false, otherwise) => Some(Self::Choices(Arc::new(Choices::new(candidates, otherwise)))),
        }
    }

    pub(super) fn find(&self, request: &impl Request) -> Option<&Arc<Route>> {
        match self {
            Self::Always(route) => Some(route),
            Self::Choices(choices) => choices.find(request),
        }
    }
}

/// Matches with conditions, and what takes everything else.
#[derive(Debug)]
pub(super) struct Choices {
    /// The first that holds has the request.
    pub(super) candidates: Box<[Candidate]>,
    /// Where there are more than a few.
    index: Option<Index>,
    pub(super) otherwise: Option<Arc<Route>>,
}

impl Choices {
    fn new(mut candidates: Vec<Candidate>, otherwise: Option<Arc<Route>>) -> Self {
        // Stable: of equal ones the first stays first.
        candidates.sort_by_key(Candidate::rank);
        let index = (candidates.len() > SCANNED_MAX).then(|| Index::new(&candidates));
        Self { candidates: candidates.into(), index, otherwise }
    }

    fn find(&self, request: &impl Request) -> Option<&Arc<Route>> {
        let found = match &self.index {
            None => self.candidates.iter().position(|candidate| candidate.holds(request)),
            Some(index) => index.find(&self.candidates, request),
        };
        found.map(|at| &self.candidates[at].route).or(self.otherwise.as_ref())
    }
}

/// Positions of candidates, ascending.
type Positions = Vec<u32>;

/// Each candidate is in one place: with one of the exact values that it asks for, or with those that ask for none.
#[derive(Debug, Default)]
struct Index {
    methods: HashMap<Method, Positions>,
    headers: Vec<(HeaderName, ByValue)>,
    query: Vec<(Arc<str>, ByValue)>,
    cookies: Vec<(Arc<str>, ByValue)>,
    /// Looked at one by one.
    others: Positions,
}

type ByValue = HashMap<Box<[u8]>, Positions>;

/// An exact value that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key<'a> {
    Header(&'a HeaderName, &'a str),
    Query(&'a str, &'a str),
    Cookie(&'a str, &'a str),
    Method(&'a Method),
}

impl Index {
    fn new(candidates: &[Candidate]) -> Self {
        let mut asked: HashMap<Key<'_>, usize> = HashMap::new();
        for key in candidates.iter().flat_map(|candidate| keys(&candidate.conditions)) {
            *asked.entry(key).or_default() += 1;
        }
        let mut index = Self::default();
        for (at, candidate) in (0..).zip(candidates) {
            // The value that the fewest ask for leaves the fewest to be looked at.
            let rarest = keys(&candidate.conditions).min_by_key(|key| asked.get(key).copied());
            index.place(rarest).push(at);
        }
        index
    }

    fn place(&mut self, key: Option<Key<'_>>) -> &mut Positions {
        match key {
            None => &mut self.others,
            Some(Key::Method(method)) => self.methods.entry(method.clone()).or_default(),
            Some(Key::Header(name, value)) => positions(&mut self.headers, name, value),
            Some(Key::Query(name, value)) => positions(&mut self.query, &name.into(), value),
            Some(Key::Cookie(name, value)) => positions(&mut self.cookies, &name.into(), value),
        }
    }

    /// The first candidate that holds. A hash for each name, and a look at each candidate with a value that is there.
    fn find(&self, candidates: &[Candidate], request: &impl Request) -> Option<usize> {
        let mut first = None;
        let mut look = |positions: Option<&Positions>| {
            let before = |at: &&u32| first.is_none_or(|first| **at < first);
            let mut earlier = positions.into_iter().flatten().take_while(before);
            let found = earlier.find(|at| candidates[**at as usize].holds(request)).copied();
            first = found.or(first);
        };
        for (name, by_value) in &self.headers {
            request.headers().get_all(name).iter().for_each(|value| look(by_value.get(value.as_bytes())));
        }
        if let Some(query) = request.query() {
            for (name, by_value) in &self.query {
                look(parameter(query, name).and_then(|value| by_value.get(&*value)));
            }
        }
        for (name, by_value) in &self.cookies {
            look(request.cookie(name).and_then(|value| by_value.get(value)));
        }
        look(self.methods.get(request.method()).filter(|_| !self.methods.is_empty()));
        look(Some(&self.others));
        first.map(|at| at as usize)
    }
}

fn positions<'a, N: PartialEq + Clone>(
    names: &'a mut Vec<(N, ByValue)>,
    name: &N,
    value: &str,
) -> &'a mut Positions {
    let at = names.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
        names.push((name.clone(), ByValue::new()));
        names.len() - 1
    });
    names[at].1.entry(value.as_bytes().into()).or_default()
}

/// The exact values that conditions ask for.
fn keys(conditions: &Conditions) -> impl Iterator<Item = Key<'_>> {
    let headers = exact(&conditions.headers).map(|(name, value)| Key::Header(name, value));
    let query = exact(&conditions.query).map(|(name, value)| Key::Query(name, value));
    let cookies = exact(&conditions.cookies).map(|(name, value)| Key::Cookie(name, value));
    headers.chain(query).chain(cookies).chain(conditions.method.as_ref().map(Key::Method))
}

fn exact<N>(fields: &[FieldMatch<N>]) -> impl Iterator<Item = (&N, &str)> {
    fields.iter().filter_map(|field| match &field.value {
        ValueMatch::Exact(value) => Some((&field.name, &**value)),
        ValueMatch::Pattern(_) => None,
    })
}

//! Routes by host and path.

use super::choices::{Candidate, Slot};
use super::conditions::{Conditions, Rank, Request};
use super::{Pattern, Route};
use crate::host::HostMap;
use foldhash::{HashMap, HashMapExt as _};
use std::cmp::Reverse;
use std::sync::Arc;

/// Requests that a route is for, of one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteMatch {
    /// Their path.
    pub path: PathMatch,
    /// What else they have; `None`: nothing.
    pub conditions: Option<Arc<Conditions>>,
}

impl RouteMatch {
    /// By path alone.
    #[must_use]
    pub fn by_path(path: PathMatch) -> Self {
        Self { path, conditions: None }
    }
}

/// How a path is matched. Paths are compared as they came, byte by byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMatch {
    /// The whole path.
    Exact(Arc<str>),
    /// The whole path, by an expression.
    Pattern(Arc<Pattern>),
    /// Whole segments: `/a` matches `/a` and `/a/b`, not `/ab`. A trailing slash does not count.
    Prefix(Arc<str>),
}

/// Every route of one listener. Clones share what neither of them changes.
#[derive(Debug, Default, Clone)]
pub struct RouteTable {
    pub(super) hosts: HostMap<Paths>,
}

/// A route that a request has.
#[derive(Debug, Clone, Copy)]
pub struct Found<'a> {
    /// The route.
    pub route: &'a Arc<Route>,
    /// Bytes of the path that the prefix of the match took, without a trailing slash; the whole path where there was none.
    pub prefix_bytes: usize,
}

/// Small, since a change of one host copies a few of its neighbours. A request goes to `others` only for a path that may
/// be there: with many hosts that is a wait for memory.
#[derive(Debug, Default, Clone)]
pub(super) struct Paths {
    /// Of the prefix `/`: for most hosts the only one, found without a look at the path.
    pub(super) root: Option<Slot>,
    pub(super) others: Option<Arc<OtherPaths>>,
    has_exact: bool,
    /// Longest key of the prefixes, in bytes: what a long path of slashes may cost at most.
    longest: usize,
}

#[derive(Debug, Default)]
pub(super) struct OtherPaths {
    pub(super) exact: HashMap<Box<str>, Slot>,
    /// In the order in which they are tried.
    pub(super) patterns: Box<[PatternRoute]>,
    /// Keys have no trailing slash, and are not empty.
    pub(super) prefixes: HashMap<Box<str>, Slot>,
}

/// A match by an expression. Looked at one by one: a configuration has few of them.
#[derive(Debug)]
pub(super) struct PatternRoute {
    pub(super) pattern: Arc<Pattern>,
    pub(super) candidate: Candidate,
}

impl PatternRoute {
    fn rank(&self) -> (Reverse<usize>, Rank) {
        (Reverse(self.pattern.text().len()), self.candidate.rank())
    }
}

impl RouteTable {
    /// Makes these the routes of a host (`None`: of every host), in place of those that it had. Where two are for the same
    /// requests, the first has them. Costs a sort of those with conditions.
    pub(super) fn set<'a>(
        &mut self,
        hostname: Option<&str>,
        routes: impl Iterator<Item = (&'a RouteMatch, &'a Arc<Route>)>,
    ) {
        self.hosts.remove(hostname);
        let paths = Paths::of(routes);
        if paths.root.is_some() || paths.others.is_some() {
            *self.hosts.ensure(hostname, Paths::default) = paths;
        }
    }

    /// The route for a request. `host` is lower case and without port; `path` is without query.
    #[must_use]
    pub fn find(&self, host: &str, path: &str, request: &impl Request) -> Option<Found<'_>> {
        self.hosts.matching(host).find_map(|paths| paths.find(path, request))
    }
}

/// Matches of one path, before they are put in order.
#[derive(Default)]
struct Gathered {
    candidates: Vec<Candidate>,
    otherwise: Option<Arc<Route>>,
}

impl Gathered {
    fn add(&mut self, conditions: Option<&Arc<Conditions>>, route: &Arc<Route>) {
        let route = Arc::clone(route);
        match conditions.filter(|conditions| !conditions.are_none()) {
            Some(conditions) => {
                self.candidates.push(Candidate { conditions: Arc::clone(conditions), route });
            }
            None => {
                self.otherwise.get_or_insert(route);
            }
        }
    }

    fn slot(self) -> Option<Slot> {
        Slot::new(self.candidates, self.otherwise)
    }
}

impl Paths {
    fn of<'a>(routes: impl Iterator<Item = (&'a RouteMatch, &'a Arc<Route>)>) -> Self {
        let mut root = Gathered::default();
        let (mut exact, mut prefixes) = (HashMap::new(), HashMap::new());
        let mut patterns = Vec::new();
        for (RouteMatch { path, conditions }, route) in routes {
            let conditions = conditions.as_ref();
            let gathered: &mut Gathered = match path {
                PathMatch::Exact(path) => exact.entry(&**path).or_default(),
                PathMatch::Prefix(path) => match path.trim_end_matches('/') {
                    "" => &mut root,
                    key => prefixes.entry(key).or_default(),
                },
                PathMatch::Pattern(pattern) => {
                    let candidate = Candidate {
                        conditions: conditions.cloned().unwrap_or_default(),
                        route: Arc::clone(route),
                    };
                    patterns.push(PatternRoute { pattern: Arc::clone(pattern), candidate });
                    continue;
                }
            };
            gathered.add(conditions, route);
        }
        // Stable: of equal ones the first stays first.
        patterns.sort_by_key(PatternRoute::rank);
        let has_others = !(exact.is_empty() && prefixes.is_empty() && patterns.is_empty());
        Self {
            root: root.slot(),
            has_exact: !exact.is_empty(),
            longest: prefixes.keys().map(|key| key.len()).max().unwrap_or_default(),
            others: has_others.then(|| {
                let (exact, prefixes) = (slots(exact), slots(prefixes));
                Arc::new(OtherPaths { exact, patterns: patterns.into(), prefixes })
            }),
        }
    }

    fn find(&self, path: &str, request: &impl Request) -> Option<Found<'_>> {
        let bytes = path.as_bytes();
        let found = |prefix_bytes| move |route| Found { route, prefix_bytes };
        if let Some(others) = &self.others {
            if self.has_exact
                && let Some(route) = others.exact.get(path).and_then(|slot| slot.find(request))
            {
                return Some(found(path.len())(route));
            }
            let by_pattern =
                others.patterns.iter().find(|by| by.pattern.matches(bytes) && by.candidate.holds(request));
            if let Some(by) = by_pattern {
                return Some(found(path.len())(&by.candidate.route));
            }
            // Candidates end where a segment ends: before a slash or at the end of the path.
            let mut end = bytes.len().min(self.longest);
            while end > 0 {
                if bytes.get(end).is_none_or(|&next| next == b'/')
                    && let Some(slot) = path.get(..end).and_then(|prefix| others.prefixes.get(prefix))
                    && let Some(route) = slot.find(request)
                {
                    return Some(found(end)(route));
                }
                end = bytes[..end].iter().rposition(|&b| b == b'/')?;
            }
        }
        let root = self.root.as_ref().filter(|_| bytes.first().is_none_or(|&first| first == b'/'));
        root.and_then(|slot| slot.find(request)).map(found(0))
    }
}

fn slots(gathered: HashMap<&str, Gathered>) -> HashMap<Box<str>, Slot> {
    let slots = gathered.into_iter().filter_map(|(key, gathered)| Some((key.into(), gathered.slot()?)));
    slots.collect()
}

//! Every match that a request could have had, in the order of precedence, and why it has it or not.
//!
//! For people who ask where a request goes, never for requests: it looks at all matches of the request's hosts. It reads the
//! table that [`RouteTable::find`] searches and asks the same conditions; a test over generated routes holds that the
//! first match that holds here is the one which is found there.

use super::choices::{Candidate, Slot};
use super::conditions::{Condition, Conditions, Request};
use super::table::{OtherPaths, PathMatch, RouteTable};
use super::{Route, RouteMatch};
use std::fmt;
use std::sync::Arc;

/// A match, and whether a request has it.
#[derive(Debug, Clone)]
pub struct Considered<'a> {
    /// Its host as configuration writes it; `None` for every host.
    pub hostname: Option<Arc<str>>,
    /// Its path; a prefix without the slash at its end, save `/`.
    pub path: PathMatch,
    /// What else it asks; `None`: nothing.
    pub conditions: Option<&'a Conditions>,
    /// Where it leads.
    pub route: &'a Arc<Route>,
    /// Whether the request has it.
    pub fit: Fit<'a>,
}

/// Whether a request has a match, beside its host.
#[derive(Debug, Clone, Copy)]
pub enum Fit<'a> {
    /// All of it holds.
    Holds,
    /// It is for other paths.
    OtherPath,
    /// The path is right, and this is the first condition that does not hold.
    Lacks(Condition<'a>),
}

/// What puts one match before another that holds too, the first of these in which they differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precedence {
    /// It is for fewer hosts.
    Host,
    /// It is for one path.
    ExactPath,
    /// An expression goes before a prefix.
    Expression,
    /// Its expression is longer.
    LongerExpression,
    /// Its prefix is longer.
    LongerPrefix,
    /// It asks for a method.
    Method,
    /// It asks for more headers.
    Headers,
    /// It asks for more query parameters.
    QueryParameters,
    /// It asks for more cookies.
    Cookies,
    /// It asks for a source.
    Source,
    /// Its pool is older or, of two of an age, of the smaller name.
    Pool,
    /// It is of an earlier rule.
    Rule,
    /// It comes first in its rule.
    Match,
}

impl RouteTable {
    /// All matches of the request's hosts, the first in precedence first: the first that [`Fit::Holds`] is found by
    /// [`Self::find`]. Looks at each, and copies its path. Arguments as there.
    pub fn considered<'a>(&'a self, host: &str, path: &str, request: &impl Request) -> Vec<Considered<'a>> {
        let mut all = Vec::new();
        for (hostname, paths) in self.hosts.matching_named(host) {
            let mut add = |of_path: PathMatch, is_path: bool, slot: Vec<Wanted<'a>>| {
                all.extend(slot.into_iter().map(|(conditions, route)| {
                    let mut asked = conditions.into_iter().flat_map(Conditions::each);
                    let fit = if is_path {
                        let lacks = asked.find(|condition| !condition.holds(request, &route.pool));
                        lacks.map_or(Fit::Holds, Fit::Lacks)
                    } else {
                        Fit::OtherPath
                    };
                    Considered { hostname: hostname.clone(), path: of_path.clone(), conditions, route, fit }
                }));
            };
            if let Some(others) = paths.others.as_deref() {
                of_others(others, path, &mut add);
            }
            if let Some(root) = &paths.root {
                let is_path = path.is_empty() || path.starts_with('/');
                add(PathMatch::Prefix("/".into()), is_path, wanted(root));
            }
        }
        all
    }

    /// Every host that has routes, as configuration writes them, in their order; `None` for every host.
    #[must_use]
    pub fn hostnames(&self) -> Vec<Option<Arc<str>>> {
        self.hosts.names()
    }
}

/// What a match asks, and where it leads.
type Wanted<'a> = (Option<&'a Conditions>, &'a Arc<Route>);

fn of_others<'a>(others: &'a OtherPaths, path: &str, add: &mut impl FnMut(PathMatch, bool, Vec<Wanted<'a>>)) {
    let mut exact: Vec<_> = others.exact.iter().collect();
    exact.sort_by(|a, b| a.0.cmp(b.0));
    for (key, slot) in exact {
        add(PathMatch::Exact((&**key).into()), **key == *path, wanted(slot));
    }
    for by in &others.patterns {
        let matches = by.pattern.matches(path.as_bytes());
        add(PathMatch::Pattern(Arc::clone(&by.pattern)), matches, vec![of_candidate(&by.candidate)]);
    }
    let mut prefixes: Vec<_> = others.prefixes.iter().collect();
    prefixes.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then_with(|| a.0.cmp(b.0)));
    for (key, slot) in prefixes {
        let rest = path.strip_prefix(&**key);
        let is_path = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        add(PathMatch::Prefix((&**key).into()), is_path, wanted(slot));
    }
}

fn wanted(slot: &Slot) -> Vec<Wanted<'_>> {
    match slot {
        Slot::Always(route) => vec![(None, route)],
        Slot::Choices(choices) => {
            let otherwise = choices.otherwise.as_ref().map(|route| (None, route));
            choices.candidates.iter().map(of_candidate).chain(otherwise).collect()
        }
    }
}

fn of_candidate(candidate: &Candidate) -> Wanted<'_> {
    let conditions = Some(&*candidate.conditions).filter(|conditions| !conditions.are_none());
    (conditions, &candidate.route)
}

impl Considered<'_> {
    /// Its position in the matches of its rule; `None` where the route does not say them. Of equal ones the first.
    #[must_use]
    pub fn position(&self) -> Option<usize> {
        self.route.written.matches.iter().position(|written| self.is(written))
    }

    fn is(&self, written: &RouteMatch) -> bool {
        let is_path = match (&self.path, &written.path) {
            (PathMatch::Prefix(own), PathMatch::Prefix(written)) => {
                own.trim_end_matches('/') == written.trim_end_matches('/')
            }
            (own, written) => own == written,
        };
        let asked = written.conditions.as_deref().filter(|conditions| !conditions.are_none());
        is_path && asked == self.conditions
    }

    /// What puts this one before another that is considered after it for the same request, where both hold.
    #[must_use]
    pub fn goes_before(&self, other: &Self) -> Precedence {
        if self.hostname != other.hostname {
            return Precedence::Host;
        }
        match (&self.path, &other.path) {
            (PathMatch::Exact(_), PathMatch::Exact(_)) => {}
            (PathMatch::Exact(_), _) => return Precedence::ExactPath,
            (PathMatch::Pattern(own), PathMatch::Pattern(others))
                if own.text().len() != others.text().len() =>
            {
                return Precedence::LongerExpression;
            }
            (PathMatch::Pattern(_), PathMatch::Pattern(_)) => {}
            (PathMatch::Pattern(_), _) => return Precedence::Expression,
            (own, others) if own != others => return Precedence::LongerPrefix,
            _ => {}
        }
        let none = Conditions::default();
        let (own, others) = (self.conditions.unwrap_or(&none), other.conditions.unwrap_or(&none));
        let counted = [
            (Precedence::Method, usize::from(own.method.is_some()), usize::from(others.method.is_some())),
            (Precedence::Headers, own.headers.len(), others.headers.len()),
            (Precedence::QueryParameters, own.query.len(), others.query.len()),
            (Precedence::Cookies, own.cookies.len(), others.cookies.len()),
            (Precedence::Source, usize::from(own.sources.is_some()), usize::from(others.sources.is_some())),
        ];
        let more = counted.into_iter().find(|(_, own, others)| own != others).map(|(what, ..)| what);
        more.unwrap_or(match () {
            () if self.route.pool != other.route.pool => Precedence::Pool,
            () if self.route.rule != other.route.rule => Precedence::Rule,
            () => Precedence::Match,
        })
    }
}

impl fmt::Display for Precedence {
    /// What the one that goes first has.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "its host is more specific",
            Self::ExactPath => "an exact path goes first",
            Self::Expression => "an expression goes before a prefix",
            Self::LongerExpression => "its expression is longer",
            Self::LongerPrefix => "its prefix is longer",
            Self::Method => "it asks for a method",
            Self::Headers => "it asks for more headers",
            Self::QueryParameters => "it asks for more query parameters",
            Self::Cookies => "it asks for more cookies",
            Self::Source => "it asks for a source",
            Self::Pool => "its pool goes first by age and name",
            Self::Rule => "its rule comes first",
            Self::Match => "it comes first in its rule",
        })
    }
}

//! Routes: host and path of a request to the backend sets that may answer it.
//!
//! Precedence is the Gateway API's: hosts as [`crate::host`] orders them; within a host an exact path before the longest
//! prefix; then whoever was added first. A host whose routes do not match the path does not hide the routes of a less
//! specific host.

mod parts;

pub use parts::{Entry, RouteParts};

use crate::backend::BackendSet;
use crate::host::HostMap;
use crate::resilience::RetryPolicy;
use crate::sessions::{SessionPolicy, SessionTable};
use foldhash::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// What a matching request is sent to.
#[derive(Debug)]
pub struct Route {
    /// Unique within the process: the key of state that a worker keeps for this route.
    pub id: u64,
    /// `namespace/pool`, for messages.
    pub pool: Arc<str>,
    /// Position in the pool's `spec.rules`.
    pub rule: usize,
    /// At least one; the share of each is its weight over the sum.
    pub sets: Vec<WeightedSet>,
    /// Sets that only fallbacks name, each once, of weight 0: what stands in for them in turn.
    pub fallbacks: Vec<WeightedSet>,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// When a request is tried again.
    pub retry: RetryPolicy,
    /// `None`: each request goes its own way.
    pub sessions: Option<Arc<Sessions>>,
    /// Bytes of a request's body; `None` for no limit.
    pub body_bytes_max: Option<u64>,
}

impl Route {
    /// A route with no time limits but that for bodies, the default rules for retries, and without sessions.
    #[must_use]
    pub fn new(id: u64, pool: Arc<str>, rule: usize, sets: Vec<WeightedSet>) -> Self {
        let (timeouts, retry) = (Timeouts::default(), RetryPolicy::default());
        Self {
            id,
            pool,
            rule,
            sets,
            fallbacks: Vec::new(),
            timeouts,
            retry,
            sessions: None,
            body_bytes_max: None,
        }
    }

    /// What stands in for a set of this route, or for one that stands in itself. No set comes back to itself in this way.
    /// Looks at every set: for the rare request whose set does not answer.
    #[must_use]
    pub fn fallback_of(&self, set: &BackendSet) -> Option<&Fallback> {
        let mut sets = self.sets.iter().chain(&self.fallbacks);
        sets.find(|weighted| weighted.set.id == set.id)?.fallback.as_ref()
    }
}

/// How long a request may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// Until the response's head, whatever was tried, from when the request last moved; `None` for no limit.
    pub request: Option<Duration>,
    /// The same for one attempt.
    pub attempt: Option<Duration>,
    /// How long a body may stand still.
    pub idle: Duration,
    /// Until the end of the response; `None` for no limit.
    pub total: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { request: None, attempt: None, idle: Duration::from_secs(300), total: None }
    }
}

/// How a route keeps sessions, and those that it keeps in this process.
#[derive(Debug)]
pub struct Sessions {
    /// How.
    pub policy: SessionPolicy,
    /// Shared by all routes of the pool; `None` where the cookie says it all.
    pub table: Option<Arc<SessionTable>>,
}

/// A backend set and its share of a route's requests.
#[derive(Debug)]
pub struct WeightedSet {
    /// Where requests go.
    pub set: Arc<BackendSet>,
    /// Relative; 0 takes none, but for the sessions that are there.
    pub weight: u32,
    /// A request with one of these goes here, whatever the weights.
    pub matches: Vec<SplitMatch>,
    /// In place of an answer of this set, where its circuit is open or it has no backend.
    pub fallback: Option<Fallback>,
}

impl WeightedSet {
    /// By weight alone.
    #[must_use]
    pub fn new(set: Arc<BackendSet>, weight: u32) -> Self {
        Self { set, weight, matches: Vec::new(), fallback: None }
    }
}

/// What sends a request to one set of a split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitMatch {
    /// Where it stands.
    pub source: SplitSource,
    /// What it says; `None`: anything.
    pub value: Option<Arc<str>>,
}

/// Where a [`SplitMatch`] looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SplitSource {
    /// The header of this name, in lower case; any of its fields.
    Header(Arc<str>),
    /// The cookie of this name.
    Cookie(Arc<str>),
}

/// In place of a set's answer.
#[derive(Debug, Clone)]
pub enum Fallback {
    /// Another set's answer.
    Set(Arc<BackendSet>),
    /// A fixed answer.
    Response(Arc<FallbackResponse>),
}

/// A fixed answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FallbackResponse {
    /// 200 to 599.
    pub status: u16,
    /// Of the body.
    pub content_type: Arc<str>,
    /// Bytes of the body.
    pub body: Arc<[u8]>,
}

/// How a path is matched. Paths are compared as they came, byte by byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PathMatch<'a> {
    /// The whole path.
    Exact(&'a str),
    /// Whole segments: `/a` matches `/a` and `/a/b`, not `/ab`. A trailing slash does not count.
    Prefix(&'a str),
}

/// Every route of one listener. Clones share what neither of them changes.
#[derive(Debug, Default, Clone)]
pub struct RouteTable {
    hosts: HostMap<Paths>,
}

/// Small, since a change of one host copies a few of its neighbours. A request goes to `others` only for a path that may
/// be there: with many hosts that is a wait for memory.
#[derive(Debug, Default, Clone)]
struct Paths {
    /// Of the prefix `/`: for most hosts the only one, found without a look at the path.
    root: Option<Arc<Route>>,
    others: Option<Arc<OtherPaths>>,
    has_exact: bool,
    /// Longest key of the prefixes, in bytes: what a long path of slashes may cost at most.
    longest: usize,
}

#[derive(Debug, Default, Clone)]
struct OtherPaths {
    exact: HashMap<Box<str>, Arc<Route>>,
    /// Keys have no trailing slash, and are not empty.
    prefixes: HashMap<Box<str>, Arc<Route>>,
}

impl RouteTable {
    /// Adds a route for one host (`None` for every host) and one path. Where the same host and path is there
    /// already, the earlier one stays and `false` comes back.
    pub fn insert(&mut self, hostname: Option<&str>, path: PathMatch<'_>, route: &Arc<Route>) -> bool {
        self.hosts.ensure(hostname, Paths::default).insert(path, route)
    }

    /// The route for a request. `host` is lower case and without port; `path` is without query.
    #[must_use]
    pub fn find(&self, host: &str, path: &str) -> Option<&Arc<Route>> {
        self.hosts.matching(host).find_map(|paths| paths.find(path))
    }
}

impl Paths {
    fn insert(&mut self, path: PathMatch<'_>, route: &Arc<Route>) -> bool {
        let (map, key) = match path {
            PathMatch::Exact(path) => {
                self.has_exact = true;
                (&mut Arc::make_mut(self.others.get_or_insert_default()).exact, path)
            }
            PathMatch::Prefix(path) => match path.trim_end_matches('/') {
                "" => {
                    let free = self.root.is_none();
                    self.root.get_or_insert_with(|| Arc::clone(route));
                    return free;
                }
                key => {
                    self.longest = self.longest.max(key.len());
                    (&mut Arc::make_mut(self.others.get_or_insert_default()).prefixes, key)
                }
            },
        };
        let free = !map.contains_key(key);
        if free {
            map.insert(key.into(), Arc::clone(route));
        }
        free
    }

    fn find(&self, path: &str) -> Option<&Arc<Route>> {
        let bytes = path.as_bytes();
        if let Some(others) = &self.others {
            if self.has_exact
                && let Some(route) = others.exact.get(path)
            {
                return Some(route);
            }
            // Candidates end where a segment ends: before a slash or at the end of the path.
            let mut end = bytes.len().min(self.longest);
            while end > 0 {
                if bytes.get(end).is_none_or(|&next| next == b'/')
                    && let Some(route) = path.get(..end).and_then(|prefix| others.prefixes.get(prefix))
                {
                    return Some(route);
                }
                end = bytes[..end].iter().rposition(|&b| b == b'/')?;
            }
        }
        self.root.as_ref().filter(|_| bytes.first().is_none_or(|&first| first == b'/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Algorithm, Membership, SetPolicy};
    use PathMatch::{Exact, Prefix};

    fn table(routes: &[(Option<&str>, PathMatch<'_>)]) -> RouteTable {
        let mut table = RouteTable::default();
        for (rule, (host, path)) in routes.iter().enumerate() {
            let id = rule as u64;
            table.insert(*host, *path, &Arc::new(Route::new(id, "ns/pool".into(), rule, Vec::new())));
        }
        table
    }

    #[test]
    fn the_most_specific_host_then_path_wins() {
        let table = table(&[
            (None, Prefix("/")),
            (Some("*.example.com"), Prefix("/")),
            (Some("*.deep.example.com"), Prefix("/")),
            (Some("shop.example.com"), Prefix("/api")),
            (Some("shop.example.com"), Prefix("/api/v2/")),
            (Some("shop.example.com"), Exact("/api/v2/ping")),
        ]);
        let cases = [
            ("other.org", "/x", Some(0)),
            ("example.com", "/", Some(0)),
            ("a.example.com", "/", Some(1)),
            ("a.b.example.com", "/", Some(1)),
            ("a.deep.example.com", "/", Some(2)),
            ("shop.example.com", "/api", Some(3)),
            ("shop.example.com", "/api/", Some(3)),
            ("shop.example.com", "/api/v1", Some(3)),
            ("shop.example.com", "/api/v2", Some(4)),
            ("shop.example.com", "/api/v2/ping", Some(5)),
            ("shop.example.com", "/api/v2/ping/", Some(4)),
            ("shop.example.com", "/api/v2/pinger", Some(4)),
            ("shop.example.com", "/apis", Some(1)),
            ("", "/", Some(0)),
            (".", "/", Some(0)),
        ];
        for (host, path, want) in cases {
            assert_eq!(table.find(host, path).map(|r| r.rule), want, "{host}{path}");
        }
    }

    #[test]
    fn what_stands_in_for_a_set_is_found_for_those_that_stand_in_too() {
        let set = |id: u64| {
            let members = Arc::new(Membership::new(id, Vec::new()));
            let policy = SetPolicy::new(Algorithm::RoundRobin);
            Arc::new(BackendSet::new(id, format!("ns/pool/{id}").into(), policy, members))
        };
        let [first, second, third] = [1, 2, 3].map(set);
        let with = |set: &Arc<BackendSet>, fallback: Option<&Arc<BackendSet>>| WeightedSet {
            fallback: fallback.map(|set| Fallback::Set(Arc::clone(set))),
            ..WeightedSet::new(Arc::clone(set), 0)
        };
        let mut route = Route::new(1, "ns/pool".into(), 0, vec![with(&first, Some(&second))]);
        route.fallbacks = vec![with(&second, Some(&third)), with(&third, None)];
        let after = |set: &BackendSet| match route.fallback_of(set) {
            Some(Fallback::Set(next)) => Some(next.id),
            _ => None,
        };
        assert_eq!([&first, &second, &third].map(|set| after(set)), [Some(2), Some(3), None]);
        assert!(route.fallback_of(&set(4)).is_none(), "a set of another route");
    }

    #[test]
    fn nothing_matches_nothing() {
        assert!(table(&[]).find("a", "/").is_none());
        assert!(table(&[(Some("b"), Prefix("/"))]).find("a", "/").is_none());
        assert!(table(&[(None, Exact("/only"))]).find("a", "/").is_none());
        assert!(table(&[(None, Prefix("/a"))]).find("a", "*").is_none());
    }

    #[test]
    fn the_first_of_two_equal_matches_stays() {
        let table = table(&[(None, Prefix("/a")), (None, Prefix("/a/"))]);
        assert_eq!(table.find("h", "/a/b").map(|r| r.rule), Some(0));
    }

    #[test]
    fn paths_that_are_not_ascii_or_all_slashes_are_matched_without_a_panic() {
        let table = table(&[(None, Prefix("/ab")), (None, Prefix("/"))]);
        for path in ["/\u{e9}\u{e9}\u{e9}", "/a\u{e9}", &"/".repeat(9000), ""] {
            assert_eq!(table.find("h", path).map(|r| r.rule), Some(1), "{path}");
        }
    }
}

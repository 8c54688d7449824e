//! The routes of one listener, kept by the pools that they are of.

use super::{PathMatch, Route, RouteTable};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// `None` for every host.
type Host = Option<Arc<str>>;

/// What several pools add to one [`RouteTable`], so that a pool changes its part at the cost of that.
///
/// The table is the one that all parts make together, added in the order of the pools' names: where two have the same
/// host and path, the smaller name has it. Only hosts that the part has or had are made again.
#[derive(Debug, Default)]
pub struct RouteParts {
    parts: BTreeMap<Arc<str>, Part>,
    /// Pools with a route of a host; never empty.
    pools: BTreeMap<Host, BTreeSet<Arc<str>>>,
    table: RouteTable,
}

/// Routes by host, in the order in which they were added.
type Part = BTreeMap<Host, Vec<(OwnedPath, Arc<Route>)>>;

#[derive(Debug)]
enum OwnedPath {
    Exact(Box<str>),
    Prefix(Box<str>),
}

/// A route for one host (`None` for every host) and one path.
pub type Entry<'a> = (Option<&'a str>, PathMatch<'a>, &'a Arc<Route>);

impl RouteParts {
    /// Makes these the routes of a pool, in place of those that it had.
    pub fn put<'a>(&mut self, pool: &str, routes: impl IntoIterator<Item = Entry<'a>>) {
        let mut part = Part::new();
        for (host, path, route) in routes {
            let path = match path {
                PathMatch::Exact(path) => OwnedPath::Exact(path.into()),
                PathMatch::Prefix(path) => OwnedPath::Prefix(path.into()),
            };
            part.entry(host.map(Into::into)).or_default().push((path, Arc::clone(route)));
        }
        let mut hosts = self.take(pool);
        hosts.extend(part.keys().cloned());
        if !part.is_empty() {
            let pool: Arc<str> = pool.into();
            for host in part.keys() {
                self.pools.entry(host.clone()).or_default().insert(Arc::clone(&pool));
            }
            self.parts.insert(pool, part);
        }
        hosts.iter().for_each(|host| self.make(host));
    }

    /// Takes the routes of a pool away.
    pub fn remove(&mut self, pool: &str) {
        self.put(pool, []);
    }

    /// All of them together. A clone shares what it does not change with this one.
    #[must_use]
    pub fn table(&self) -> &RouteTable {
        &self.table
    }

    fn take(&mut self, pool: &str) -> BTreeSet<Host> {
        let part = self.parts.remove(pool).unwrap_or_default();
        for host in part.keys() {
            if let Some(pools) = self.pools.get_mut(host) {
                pools.remove(pool);
                if pools.is_empty() {
                    self.pools.remove(host);
                }
            }
        }
        part.into_keys().collect()
    }

    fn make(&mut self, host: &Host) {
        self.table.hosts.remove(host.as_deref());
        for pool in self.pools.get(host).into_iter().flatten() {
            let routes = self.parts.get(pool).and_then(|part| part.get(host));
            for (path, route) in routes.into_iter().flatten() {
                let path = match path {
                    OwnedPath::Exact(path) => PathMatch::Exact(path),
                    OwnedPath::Prefix(path) => PathMatch::Prefix(path),
                };
                self.table.insert(host.as_deref(), path, route);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOSTS: [Option<&str>; 6] =
        [None, Some("a.org"), Some("b.org"), Some("*.org"), Some("*.b.org"), Some("c.b.org")];
    const PATHS: [PathMatch<'static>; 6] = [
        PathMatch::Prefix("/"),
        PathMatch::Prefix("/x"),
        PathMatch::Prefix("/x/y/"),
        PathMatch::Exact("/x"),
        PathMatch::Exact("/"),
        PathMatch::Exact("/x/y/z"),
    ];

    /// Which pool, and its routes by host and path; without any, the pool goes.
    fn change() -> impl Strategy<Value = (usize, Vec<(usize, usize)>)> {
        (0..5_usize, proptest::collection::vec((0..HOSTS.len(), 0..PATHS.len()), 0..6))
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 300,
            rng_seed: proptest::test_runner::RngSeed::Fixed(11),
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn after_each_change_of_a_part_the_table_is_what_all_parts_make(
            changes in proptest::collection::vec(change(), 1..20)
        ) {
            let (mut parts, mut all) = (RouteParts::default(), BTreeMap::new());
            for (id, (pool, routes)) in changes.into_iter().enumerate() {
                let pool = format!("ns/{pool}");
                let route = |rule: usize| {
                    Arc::new(Route::new(id as u64, pool.as_str().into(), rule, Vec::new()))
                };
                let routes: Vec<_> = routes
                    .into_iter()
                    .enumerate()
                    .map(|(rule, (host, path))| (HOSTS[host], PATHS[path], route(rule)))
                    .collect();
                let before = parts.table().clone();
                let shown = |table: &RouteTable| -> Vec<_> {
                    let hosts = ["a.org", "b.org", "c.b.org", "d.b.org", "e.org", "org", ""];
                    let paths = ["/", "/x", "/x/", "/x/y", "/x/y/z", "/x/yy", "/z", "", "*"];
                    let all = hosts.iter().flat_map(|host| paths.iter().map(move |path| (host, path)));
                    all.map(|(host, path)| table.find(host, path).map(|found| (found.id, found.rule))).collect()
                };
                let shown_before = shown(&before);
                parts.put(&pool, routes.iter().map(|(host, path, route)| (*host, *path, route)));
                all.insert(pool, routes);
                let mut rebuilt = RouteTable::default();
                for (host, path, route) in all.values().flatten() {
                    rebuilt.insert(*host, *path, route);
                }
                prop_assert_eq!(shown(parts.table()), shown(&rebuilt));
                prop_assert_eq!(shown(&before), shown_before, "a reader keeps what it has");
            }
            for pool in all.keys() {
                parts.remove(pool);
            }
            prop_assert!(parts.parts.is_empty() && parts.pools.is_empty());
        }
    }

    #[test]
    fn an_edit_of_one_pool_leaves_the_routes_of_the_others_where_they_are() {
        let mut parts = RouteParts::default();
        let route = |id: u64| Arc::new(Route::new(id, "ns/pool".into(), 0, Vec::new()));
        let name = |pool: usize| format!("ns/{pool:04}");
        let host = |pool: usize| format!("host-{pool}");
        for pool in 0..1000 {
            parts.put(&name(pool), [(Some(&*host(pool)), PathMatch::Prefix("/"), &route(1))]);
        }
        let others: Vec<_> = (1..1000).map(|pool| parts.table().find(&host(pool), "/").cloned()).collect();
        parts.put(&name(0), [(Some("host-0"), PathMatch::Prefix("/x"), &route(2))]);
        assert!(parts.table().find("host-0", "/").is_none());
        for (pool, before) in (1..1000).zip(&others) {
            let now = parts.table().find(&host(pool), "/").expect("a route");
            assert!(Arc::ptr_eq(now, before.as_ref().expect("a route")));
        }
    }
}

//! The routes of one listener, kept by the pools that they are of.

use super::{Route, RouteMatch, RouteTable};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// `None` for every host.
type Host = Option<Arc<str>>;

/// What several pools add to one [`RouteTable`], so that a pool changes its part at the cost of that.
///
/// The table is the one that all parts make together, added in the order of the pools' names: where two have the same
/// host and path, and conditions that rank alike, the smaller name has it. Only hosts that the part has or had are made again.
#[derive(Debug, Default)]
pub struct RouteParts {
    parts: BTreeMap<Arc<str>, Part>,
    /// Pools with a route of a host; never empty.
    pools: BTreeMap<Host, BTreeSet<Arc<str>>>,
    table: RouteTable,
}

/// Routes by host, in the order in which they were added.
type Part = BTreeMap<Host, Vec<(RouteMatch, Arc<Route>)>>;

/// A route for requests of one host (`None` for every host).
pub type Entry<'a> = (Option<&'a str>, &'a RouteMatch, &'a Arc<Route>);

impl RouteParts {
    /// Makes these the routes of a pool, in place of those that it had.
    pub fn put<'a>(&mut self, pool: &str, routes: impl IntoIterator<Item = Entry<'a>>) {
        let mut part = Part::new();
        for (host, wanted, route) in routes {
            part.entry(host.map(Into::into)).or_default().push((wanted.clone(), Arc::clone(route)));
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
        let pools = self.pools.get(host).into_iter().flatten();
        let parts = pools.filter_map(|pool| self.parts.get(pool)?.get(host));
        self.table.set(host.as_deref(), parts.flatten().map(|(wanted, route)| (wanted, route)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{Conditions, PathAlone, PathMatch};
    use proptest::prelude::*;

    const HOSTS: [Option<&str>; 6] =
        [None, Some("a.org"), Some("b.org"), Some("*.org"), Some("*.b.org"), Some("c.b.org")];
    const PATHS: usize = 7;

    fn wanted(path: usize) -> RouteMatch {
        let get = Conditions { method: Some(http::Method::GET), ..Conditions::default() };
        let (path, conditions) = match path {
            0 => (PathMatch::Prefix("/".into()), None),
            1 => (PathMatch::Prefix("/x".into()), None),
            2 => (PathMatch::Prefix("/x/y/".into()), None),
            3 => (PathMatch::Exact("/x".into()), None),
            4 => (PathMatch::Exact("/".into()), None),
            5 => (PathMatch::Exact("/x/y/z".into()), None),
            _ => (PathMatch::Prefix("/x".into()), Some(Arc::new(get))),
        };
        RouteMatch { path, conditions }
    }

    /// Which pool, and its routes by host and path; without any, the pool goes.
    fn change() -> impl Strategy<Value = (usize, Vec<(usize, usize)>)> {
        (0..5_usize, proptest::collection::vec((0..HOSTS.len(), 0..PATHS), 0..6))
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
                    .map(|(rule, (host, path))| (HOSTS[host], wanted(path), route(rule)))
                    .collect();
                let before = parts.table().clone();
                let shown = |table: &RouteTable| -> Vec<_> {
                    let hosts = ["a.org", "b.org", "c.b.org", "d.b.org", "e.org", "org", ""];
                    let paths = ["/", "/x", "/x/", "/x/y", "/x/y/z", "/x/yy", "/z", "", "*"];
                    let all = hosts.iter().flat_map(|host| paths.iter().map(move |path| (host, path)));
                    all.map(|(host, path)| {
                        let found = table.find(host, path, &PathAlone::default());
                        found.map(|found| (found.route.id, found.route.rule))
                    }).collect()
                };
                let shown_before = shown(&before);
                parts.put(&pool, routes.iter().map(|(host, wanted, route)| (*host, wanted, route)));
                all.insert(pool, routes);
                let mut rebuilt = RouteTable::default();
                for host in HOSTS {
                    let of_host = all.values().flatten().filter(|(of, ..)| *of == host);
                    rebuilt.set(host, of_host.map(|(_, wanted, route)| (wanted, route)));
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
        let find = |parts: &RouteParts, pool: usize| {
            parts.table().find(&host(pool), "/", &PathAlone::default()).map(|found| Arc::clone(found.route))
        };
        for pool in 0..1000 {
            parts.put(&name(pool), [(Some(&*host(pool)), &wanted(0), &route(1))]);
        }
        let others: Vec<_> = (1..1000).map(|pool| find(&parts, pool)).collect();
        parts.put(&name(0), [(Some("host-0"), &wanted(1), &route(2))]);
        assert!(find(&parts, 0).is_none());
        for (pool, before) in (1..1000).zip(&others) {
            let now = find(&parts, pool).expect("a route");
            assert!(Arc::ptr_eq(&now, before.as_ref().expect("a route")));
        }
    }
}

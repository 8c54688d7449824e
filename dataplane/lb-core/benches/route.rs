//! What finding a route costs, and what an edit of one pool's routes does, by how many there are.
//!
//! Requests come in no order, so that with many routes a find waits for the memory of the routes; not for that of the request,
//! which was read just before, as on the request path. One thread, all else quiet. Of several rounds the median counts. An
//! edit copies a pointer for each host, and looks at none but its own.

#![allow(clippy::disallowed_methods, reason = "a bench measures time")]
#![allow(clippy::print_stdout, reason = "figures are what it is for")]

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use lb_core::balance::Rng;
use lb_core::route::{Conditions, FieldMatch, PathMatch, Request, Route, RouteMatch, RouteParts, ValueMatch};
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

const COUNTS: [usize; 3] = [10, 1000, 10_000];
const ROUNDS: usize = 9;
/// Of each round: so many times so many that are read, and then found one after the other.
const BATCHES: usize = 12_500;
const BATCH: usize = 16;
const EDITS: usize = 500;

fn main() {
    for count in COUNTS {
        let mut parts = RouteParts::default();
        let host = |at: usize| format!("host-{at}.example.com");
        for at in 0..count {
            parts.put(&pool(at), [(Some(&*host(at)), &prefix("/"), &route(at))]);
        }
        let asked = requests(count, |at| Asked { host: host(at), ..Asked::new("/orders/17", at) });
        println!("figure route.find.hosts.{count} {:.1} ns", find(&parts, &asked));

        let edit = |at: usize, parts: &mut RouteParts| {
            let (host, route) = (host(at), route(at));
            let begun = Instant::now();
            parts.put(&pool(at), [(Some(&*host), &prefix("/"), &route)]);
            // As a snapshot does, so that the next edit has to copy what it changes.
            let table = parts.table().clone();
            (begun.elapsed().as_secs_f64() * 1e6, table)
        };
        let mut serving = parts.table().clone();
        let mut times = Vec::new();
        for at in 0..EDITS {
            let (time, table) = edit(at * 7 % count, &mut parts);
            serving = black_box(table);
            times.push(time);
        }
        drop(serving);
        println!("figure route.edit.{count} {:.2} us", median(times));

        let mut parts = RouteParts::default();
        let path = |at: usize| format!("/area/{at}");
        let routes: Vec<_> = (0..count).map(|at| (prefix(&path(at)), route(at))).collect();
        parts.put("ns/pool", routes.iter().map(|(path, route)| (Some("shop.org"), path, route)));
        let asked = requests(count, |at| Asked::new(&(path(at) + "/item"), at));
        println!("figure route.find.paths.{count} {:.1} ns", find(&parts, &asked));
        conditions(count);
    }
}

/// Routes of one host and path that are told apart by a header, by a parameter, or by methods of a path each, and the time
/// to find one. The request has some other headers too.
fn conditions(count: usize) {
    let exact = |name: &str, at: usize| FieldMatch { name: name.into(), value: ValueMatch::Exact(value(at)) };
    let none = Conditions::default;
    let by_header = |at| {
        let FieldMatch { value, .. } = exact("", at);
        let headers = vec![FieldMatch { name: TENANT, value }];
        RouteMatch { path: path_of("/"), conditions: Some(Arc::new(Conditions { headers, ..none() })) }
    };
    let by_query = |at| {
        let query = vec![exact("tenant", at)];
        RouteMatch { path: path_of("/"), conditions: Some(Arc::new(Conditions { query, ..none() })) }
    };
    let by_method = |at: usize| {
        let method = Some(if at.is_multiple_of(2) { Method::GET } else { Method::POST });
        let conditions = Some(Arc::new(Conditions { method, ..none() }));
        RouteMatch { path: path_of(&format!("/area/{}", at / 2)), conditions }
    };
    let kinds: [(&str, &dyn Fn(usize) -> RouteMatch); 3] =
        [("headers", &by_header), ("query", &by_query), ("methods", &by_method)];
    for (name, wanted) in kinds {
        let routes: Vec<_> = (0..count).map(|at| (wanted(at), route(at))).collect();
        let mut parts = RouteParts::default();
        parts.put("ns/pool", routes.iter().map(|(wanted, route)| (Some("shop.org"), wanted, route)));
        let asked = requests(count, |at| Asked::new(&format!("/area/{}", at / 2), at));
        println!("figure route.find.{name}.{count} {:.1} ns", find(&parts, &asked));
    }
}

const TENANT: HeaderName = HeaderName::from_static("x-tenant");

fn value(at: usize) -> Arc<str> {
    format!("tenant-{at}").into()
}

fn path_of(path: &str) -> PathMatch {
    PathMatch::Prefix(path.into())
}

fn prefix(path: &str) -> RouteMatch {
    RouteMatch::by_path(path_of(path))
}

/// A request with everything that some route asks for.
struct Asked {
    host: String,
    method: Method,
    path: String,
    query: String,
    headers: HeaderMap,
}

impl Asked {
    fn new(path: &str, at: usize) -> Self {
        let mut headers = HeaderMap::new();
        for name in ["user-agent", "accept", "accept-encoding", "accept-language", "cookie", "referer"] {
            headers.insert(name, HeaderValue::from_static("something of a usual length, as they are"));
        }
        headers.insert(TENANT, HeaderValue::from_str(&value(at)).expect("text"));
        Self {
            host: "shop.org".to_owned(),
            method: if at.is_multiple_of(2) { Method::GET } else { Method::POST },
            path: path.to_owned(),
            query: format!("page=17&tenant=tenant-{at}"),
            headers,
        }
    }

    /// As the parser has just done.
    fn read(&self) -> usize {
        let sum = |bytes: &[u8]| bytes.iter().map(|byte| usize::from(*byte)).sum::<usize>();
        let fields = self.headers.iter().map(|(name, value)| sum(name.as_ref()) + sum(value.as_bytes()));
        let found = self.headers.get(TENANT).map_or(0, HeaderValue::len);
        sum(self.host.as_bytes())
            + sum(self.path.as_bytes())
            + sum(self.query.as_bytes())
            + fields.sum::<usize>()
            + found
    }
}

fn requests(count: usize, one: impl Fn(usize) -> Asked) -> Vec<Asked> {
    (0..count).map(one).collect()
}

impl Request for Asked {
    fn method(&self) -> &Method {
        &self.method
    }

    fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    fn query(&self) -> Option<&str> {
        Some(&self.query)
    }

    fn cookie(&self, _name: &str) -> Option<&[u8]> {
        None
    }

    fn source(&self, _pool: &Arc<str>) -> IpAddr {
        Ipv4Addr::LOCALHOST.into()
    }
}

fn pool(at: usize) -> String {
    format!("ns/pool-{at}")
}

fn route(at: usize) -> Arc<Route> {
    Arc::new(Route::new(at as u64, "ns/pool".into(), 0, Vec::new()))
}

/// Nanoseconds for each of many finds, in no order.
fn find(parts: &RouteParts, asked: &[Asked]) -> f64 {
    let mut random = Rng::new(1);
    let order: Vec<_> = (0..BATCHES * BATCH).map(|_| random.below(asked.len())).collect();
    let round = |_| {
        let mut taken = Duration::ZERO;
        for batch in order.chunks_exact(BATCH) {
            black_box(batch.iter().map(|at| asked[*at].read()).sum::<usize>());
            let begun = Instant::now();
            for at in batch {
                let asked = &asked[*at];
                assert!(black_box(parts.table().find(&asked.host, &asked.path, asked)).is_some());
            }
            taken += begun.elapsed();
        }
        taken.as_secs_f64() * 1e9 / order.len() as f64
    };
    median((0..ROUNDS).map(round).collect())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

//! What finding a route costs, and what an edit of one pool's routes does, by how many there are.
//!
//! Requests come in no order, so that with many routes a find waits for memory. One thread, all else quiet. Of several
//! rounds the median counts. An edit copies a pointer for each host, and looks at none but its own.

#![allow(clippy::disallowed_methods, reason = "a bench measures time")]
#![allow(clippy::print_stdout, reason = "figures are what it is for")]

use lb_core::balance::Rng;
use lb_core::route::{PathMatch, Route, RouteParts};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

const COUNTS: [usize; 3] = [10, 1000, 10_000];
const ROUNDS: usize = 9;
const FINDS: usize = 200_000;
const EDITS: usize = 500;

fn main() {
    for count in COUNTS {
        let mut parts = RouteParts::default();
        let host = |at: usize| format!("host-{at}.example.com");
        for at in 0..count {
            parts.put(&pool(at), [(Some(&*host(at)), PathMatch::Prefix("/"), &route(at))]);
        }
        let asked: Vec<_> = (0..count).map(|at| (host(at), "/orders/17".to_owned())).collect();
        println!("figure route.find.hosts.{count} {:.1} ns", find(&parts, &asked));

        let edit = |at: usize, parts: &mut RouteParts| {
            let (host, route) = (host(at), route(at));
            let begun = Instant::now();
            parts.put(&pool(at), [(Some(&*host), PathMatch::Prefix("/"), &route)]);
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
        let routes: Vec<_> = (0..count).map(|at| (path(at), route(at))).collect();
        let entries = routes.iter().map(|(path, route)| (Some("shop.org"), PathMatch::Prefix(path), route));
        parts.put("ns/pool", entries);
        let asked: Vec<_> = (0..count).map(|at| ("shop.org".to_owned(), path(at) + "/item")).collect();
        println!("figure route.find.paths.{count} {:.1} ns", find(&parts, &asked));
    }
}

fn pool(at: usize) -> String {
    format!("ns/pool-{at}")
}

fn route(at: usize) -> Arc<Route> {
    Arc::new(Route::new(at as u64, "ns/pool".into(), 0, Vec::new()))
}

/// Nanoseconds for each find.
fn find(parts: &RouteParts, asked: &[(String, String)]) -> f64 {
    let mut random = Rng::new(1);
    let order: Vec<_> = (0..FINDS).map(|_| random.below(asked.len())).collect();
    let round = |_| {
        let begun = Instant::now();
        for &at in &order {
            let (host, path) = &asked[at];
            assert!(black_box(parts.table().find(host, path)).is_some());
        }
        begun.elapsed().as_secs_f64() * 1e9 / FINDS as f64
    };
    median((0..ROUNDS).map(round).collect())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

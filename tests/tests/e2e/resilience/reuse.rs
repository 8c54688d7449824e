//! How many requests go over connections that are there.

use super::{Site, pool};
use weir_tests::harness::load::{Clients, Load};
use weir_tests::harness::services::Samples;
use weir_tests::harness::wait;

const CLIENTS: Clients = Clients { kept: 6, fresh: 2 };
/// Requests until every connection is there that the load needs.
const WARM_UP: u64 = 500;
const REQUESTS: u64 = 4_000;

fn nearly_all_reuse(protocol: &str, version: &str) {
    let samples = Samples::start("steady", 4);
    let mut pool = pool(&samples.ports, &[]);
    pool.set = vec![format!("protocol: {protocol}")];
    let site = Site::start(&pool);
    assert_eq!(site.get("/").json()["request"]["protocol"], version);
    let load = Load::start(site.port, CLIENTS);
    let counted = || {
        let metrics = ["weir_upstream_reuses_total", "weir_upstream_connects_total"];
        metrics.map(|name| site.weir.metric(name))
    };
    let flow = |requests: u64| {
        let before = load.seen().good;
        wait::until("the load should flow", || (load.seen().good >= before + requests).then_some(()));
    };
    flow(WARM_UP);
    let before = counted();
    flow(REQUESTS);
    let after = counted();
    assert_eq!(load.stop().failures, Vec::<String>::new());
    let [reuses, connects] = [after[0] - before[0], after[1] - before[1]];
    assert!(reuses >= REQUESTS / 2, "{reuses} requests went over kept connections");
    assert!(connects * 10_000 <= (reuses + connects) * 5, "{connects} connects, {reuses} reuses");
}

#[test]
fn in_steady_state_no_more_than_one_of_2000_requests_opens_a_connection() {
    nearly_all_reuse("HTTP", "HTTP/1.1");
}

#[test]
fn in_steady_state_no_more_than_one_of_2000_requests_opens_a_connection_to_http2_backends() {
    nearly_all_reuse("HTTP2", "HTTP/2");
}

#[test]
fn requests_that_wait_for_a_connection_share_those_that_there_may_be() {
    let samples = Samples::start("steady", 2);
    let pool = pool(&samples.ports, &["connectionPool: { maxPerBackend: 3 }"]);
    let site = Site::start(&pool);
    let load = Load::start(site.port, Clients { kept: 16, fresh: 0 });
    wait::until("the load should flow", || (load.seen().good >= 2_000).then_some(()));
    assert_eq!(load.stop().failures, Vec::<String>::new());
    let connects = site.weir.metric("weir_upstream_connects_total");
    assert!((6..=20).contains(&connects), "{connects} connects for six connections");
}

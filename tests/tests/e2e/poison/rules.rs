//! The pool that multiplies: each rule's hosts by its matches, each as many as there may be.

use super::{Ward, pool};
use serde_json::{Value, json};
use weir_crds::pool::{HOSTNAMES_MAX, MATCHES_MAX, RULES_MAX};
use weir_proto::limits::ROUTES_PER_POOL_MAX;
use weir_tests::harness::client::Connection;
use weir_tests::harness::cluster::{Cluster, Resource};
use weir_tests::harness::{ports, wait};

/// Bytes of each path: what keeps the object below the 1.5 MB that etcd takes.
const PATH_BYTES: usize = 150;

fn path(rule: usize, nth: usize) -> String {
    let path = format!("/{rule}/{nth}/");
    let rest = PATH_BYTES - path.len();
    path + &"p".repeat(rest)
}

/// Every rule is for as many hosts and paths as it may be.
fn largest(port: u16, rules: usize) -> Value {
    let rule = |rule: usize| {
        let hosts: Vec<_> = (0..HOSTNAMES_MAX).map(|nth| format!("h{nth}.example.org")).collect();
        let matches: Vec<_> =
            (0..MATCHES_MAX).map(|nth| json!({ "path": { "value": path(rule, nth) } })).collect();
        let canary = json!([{ "type": "Header", "name": "h".repeat(256), "value": "v".repeat(256) }]);
        json!({ "hostnames": hosts, "matches": matches, "backendSets": [{ "name": "web", "matches": canary }] })
    };
    let rules: Vec<_> = (0..rules).map(rule).collect();
    pool("largest", &[json!({ "name": "http", "port": port, "protocol": "HTTP" })], &json!(rules))
}

/// Waits until the last route of a rule answers with this status.
fn wait_for_rule(port: u16, rule: usize, status: u16) {
    let host = format!("h{}.example.org", HOSTNAMES_MAX - 1);
    let path = path(rule, MATCHES_MAX - 1);
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    wait::until(&format!("rule {rule} should answer {status}"), || {
        let answer = Connection::open(port).ok()?.request(&request).ok()?;
        (answer.status == status).then_some(())
    });
}

#[test]
fn the_pool_with_the_most_rules_is_served_and_one_more_or_another_listener_costs_that_edit_alone() {
    let cluster = Cluster::shared();
    let mut ward = Ward::new(&cluster);
    let port = ports::free();
    ward.api.create(Resource::Pool, &largest(port, RULES_MAX));
    ward.assert_others_go_on();
    wait_for_rule(port, RULES_MAX - 1, 200);
    ward.wait_for_condition("largest", "Programmed", "Programmed", &[]);
    ward.assert_others_go_on();

    // The API server refuses it; an older definition may have let it in.
    let mut past = ward.shop.get(&["lbp", "largest"]);
    past["spec"]["rules"] = largest(port, RULES_MAX + 1)["spec"]["rules"].take();
    ward.shop.write_past_the_api_server(Resource::Pool, "largest", past);
    let count = (RULES_MAX + 1).to_string();
    ward.wait_for_condition(
        "largest",
        "Accepted",
        "Invalid",
        &["spec.rules", &count, &RULES_MAX.to_string()],
    );
    ward.assert_others_go_on();
    wait_for_rule(port, RULES_MAX - 1, 200);

    // Behind a second listener there would be twice as many routes: more than a pool may have.
    let listener = |name: &str, port: u16| json!({ "name": name, "port": port, "protocol": "HTTP" });
    let twice = json!([listener("http", port), listener("more", ports::free())]);
    let rules = largest(port, RULES_MAX)["spec"]["rules"].take();
    ward.api.patch(Resource::Pool, "largest", &json!({ "spec": { "listeners": twice, "rules": rules } }));
    let count = (2 * RULES_MAX * HOSTNAMES_MAX * MATCHES_MAX).to_string();
    ward.wait_for_condition(
        "largest",
        "Accepted",
        "Invalid",
        &["spec.rules", &count, &ROUTES_PER_POOL_MAX.to_string()],
    );
    ward.assert_others_go_on();
    wait_for_rule(port, RULES_MAX - 1, 200);

    let fewer = json!({ "spec": { "rules": largest(port, 1)["spec"]["rules"] } });
    ward.api.patch(Resource::Pool, "largest", &fewer);
    wait_for_rule(port, RULES_MAX - 1, 404);
    wait_for_rule(port, 0, 200);
    ward.wait_for_condition("largest", "Accepted", "Accepted", &[]);
    ward.end();
}

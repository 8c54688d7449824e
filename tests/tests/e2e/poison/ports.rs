//! A listener whose port somebody else has, which only a proxy can find out.

use super::{Ward, plain_pool};
use std::net::TcpListener;
use weir_tests::harness::cluster::{Cluster, Resource};
use weir_tests::harness::services::wait_for_status;
use weir_tests::harness::{client, ports};

#[test]
fn a_port_that_is_taken_costs_its_pool_until_it_is_free() {
    let cluster = Cluster::shared();
    let mut ward = Ward::new(&cluster);
    let port = ports::free();
    let owner = TcpListener::bind(client::local(port)).expect("a free port");
    ward.api.create(Resource::Pool, &plain_pool("taken", port));
    let texts = ["spec.listeners[0].port", &port.to_string(), "1 of 1 proxies"];
    ward.wait_for_condition("taken", "Programmed", "Nacked", &texts);
    ward.assert_others_go_on();

    drop(owner);
    wait_for_status(port, "/", 200);
    ward.wait_for_condition("taken", "Programmed", "Programmed", &[]);
    ward.end();
}

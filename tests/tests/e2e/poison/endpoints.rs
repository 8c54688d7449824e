//! As many endpoints as a set takes, and one more.

use super::{Ward, plain_pool};
use crate::cluster::sample;
use crate::objects::{service, slice};
use serde_json::json;
use std::net::{Ipv4Addr, SocketAddr};
use weir_proto::limits::BACKENDS_PER_SET_MAX;
use weir_tests::harness::cluster::{Cluster, Resource};
use weir_tests::harness::services::wait_for_status;
use weir_tests::harness::{ports, wait};

/// Most that the API server takes in one slice.
const SLICE_ENDPOINTS_MAX: usize = 1000;
/// Slices after which the others are looked at.
const STRETCH: usize = 5;

/// Addresses of the pods' network that no pod gets: those are given out from its beginning.
fn addresses(numbers: std::ops::Range<usize>, port: u16) -> Vec<SocketAddr> {
    let address = |number: usize| {
        let [c, d] = u16::try_from(number + (1 << 15)).expect("within the network").to_be_bytes();
        SocketAddr::from((Ipv4Addr::new(10, 244, c, d), port))
    };
    numbers.map(address).collect()
}

#[test]
fn a_service_of_as_many_endpoints_as_there_may_be_is_served_and_one_more_is_left_out_and_said() {
    let cluster = Cluster::shared();
    let mut ward = Ward::new(&cluster);
    let (port, number) = (ports::free(), ports::free());
    // On every address of the network, so that each of the many answers.
    let _crowd = sample("crowd", SocketAddr::from((Ipv4Addr::UNSPECIFIED, number)));
    ward.shop.apply(&service("large").to_string());
    let mut large = plain_pool("large", port);
    large["spec"]["backendSets"][0]["service"]["name"] = json!("large");
    ward.api.create(Resource::Pool, &large);
    let of = |name: &str, numbers| slice("large", name, &addresses(numbers, number));
    for index in 0..BACKENDS_PER_SET_MAX / SLICE_ENDPOINTS_MAX {
        let begin = index * SLICE_ENDPOINTS_MAX;
        ward.api
            .create(Resource::Slice, &of(&format!("large-{index:02}"), begin..begin + SLICE_ENDPOINTS_MAX));
        if index % STRETCH == 0 {
            ward.assert_others_go_on();
        }
    }
    wait_for_count(&ward, BACKENDS_PER_SET_MAX);
    ward.wait_for_condition("large", "ResolvedRefs", "ResolvedRefs", &[]);
    ward.wait_for_condition("large", "Programmed", "Programmed", &[]);
    for _ in 0..50 {
        wait_for_status(port, "/", 200);
    }
    ward.assert_others_go_on();

    ward.api.create(Resource::Slice, &of("large-more", BACKENDS_PER_SET_MAX..BACKENDS_PER_SET_MAX + 1));
    let past = format!("{} endpoints, more than the {BACKENDS_PER_SET_MAX}", BACKENDS_PER_SET_MAX + 1);
    let field = "spec.backendSets[0].service.name";
    ward.wait_for_condition("large", "ResolvedRefs", "LimitReached", &[field, &past]);
    ward.assert_others_go_on();
    wait_for_count(&ward, BACKENDS_PER_SET_MAX);
    wait_for_status(port, "/", 200);

    ward.api.delete(Resource::Slice, "large-more");
    ward.wait_for_condition("large", "ResolvedRefs", "ResolvedRefs", &[]);
    ward.end();
}

fn wait_for_count(ward: &Ward<'_>, count: usize) {
    wait::patiently(&format!("{count} endpoints should be ready"), || {
        let object = ward.shop.get(&["lbp", "large"]);
        (object["status"]["endpoints"]["ready"] == count).then_some(())
    });
}

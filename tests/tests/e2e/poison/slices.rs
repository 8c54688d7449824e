//! EndpointSlices with what no API server of today takes: written by an older one, or past it.

use super::{BACKEND_PORT, Ward, plain_pool};
use crate::cluster::sample;
use crate::objects::{service, slice};
use serde_json::{Value, json};
use std::net::SocketAddr;
use weir_tests::harness::cluster::{Cluster, Resource};
use weir_tests::harness::ports;
use weir_tests::harness::services::{wait_for_backend, wait_for_status};

/// The name of a slice, what is wrong with it, and what the status says of it.
fn garbage() -> [(&'static str, Value, Option<&'static str>); 4] {
    let addresses =
        ["not an address", "999.1.2.3", "fd00::1", ""].map(|address| json!({ "addresses": [address] }));
    [
        ("bad-addresses", json!({ "endpoints": addresses }), Some("endpoints that cannot be used")),
        // Such pods are of another port.
        ("no-ports", json!({ "ports": null }), None),
        ("no-number", json!({ "ports": [{ "name": "http", "protocol": "TCP" }] }), Some("no number")),
        ("pigeons", json!({ "addressType": "CarrierPigeon" }), Some("CarrierPigeon")),
    ]
}

#[test]
fn garbage_in_endpoint_slices_is_left_out_and_said_and_the_sound_endpoints_serve() {
    let cluster = Cluster::shared();
    let mut ward = Ward::new(&cluster);
    let address = || SocketAddr::from((cluster.pod_address(), BACKEND_PORT));
    let (port, sound) = (ports::free(), address());
    let _sample = sample("sound", sound);
    ward.shop.apply(&service("mixed").to_string());
    let mut mixed = plain_pool("mixed", port);
    mixed["spec"]["backendSets"][0]["service"]["name"] = json!("mixed");
    ward.api.create(Resource::Pool, &mixed);
    ward.api.create(Resource::Slice, &slice("mixed", "mixed-sound", &[sound]));
    wait_for_backend(port, "/", "sound");

    for (name, wrong, text) in garbage() {
        let mut object = slice("mixed", name, &[address()]);
        let fields = wrong.as_object().expect("an object").clone();
        object.as_object_mut().expect("an object").extend(fields);
        ward.shop.write_past_the_api_server(Resource::Slice, name, object);
        if let Some(text) = text {
            let texts = ["spec.backendSets[0].service", text];
            ward.wait_for_condition("mixed", "ResolvedRefs", "InvalidEndpoints", &texts);
        }
        ward.assert_others_go_on();
        for _ in 0..4 {
            wait_for_status(port, "/", 200);
        }
        if text.is_some() {
            ward.api.delete(Resource::Slice, name);
            ward.wait_for_condition("mixed", "ResolvedRefs", "ResolvedRefs", &[]);
        }
    }
    ward.end();
}

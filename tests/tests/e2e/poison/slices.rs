//! EndpointSlices with what no API server of today takes: written by an older one, or past it.

use super::{BACKEND_PORT, Ward, pool, service, slice};
use crate::cluster::sample;
use serde_json::{Value, json};
use std::net::IpAddr;
use weir_tests::harness::cluster::{Cluster, Resource};
use weir_tests::harness::ports;
use weir_tests::harness::services::{wait_for_backend, wait_for_status};

/// The name of a slice, what is wrong with it, and what the status says of it.
fn garbage() -> [(&'static str, Value, &'static str); 4] {
    let addresses =
        ["not an address", "999.1.2.3", "fd00::1", ""].map(|address| json!({ "addresses": [address] }));
    [
        ("bad-addresses", json!({ "endpoints": addresses }), "endpoints that cannot be used"),
        ("no-ports", json!({ "ports": null }), ""),
        ("no-number", json!({ "ports": [{ "name": "http", "protocol": "TCP" }] }), "no number"),
        ("pigeons", json!({ "addressType": "CarrierPigeon" }), "CarrierPigeon"),
    ]
}

#[test]
fn garbage_in_endpoint_slices_is_left_out_and_said_and_the_sound_endpoints_serve() {
    let cluster = Cluster::shared();
    let mut ward = Ward::new(&cluster);
    let (port, sound) = (ports::free(), IpAddr::from(cluster.pod_address()));
    let _sample = sample("sound", (sound, BACKEND_PORT).into());
    ward.shop.apply(&service("mixed").to_string());
    let rules = json!([{ "backendSets": [{ "name": "web" }] }]);
    let mut mixed = pool("mixed", &[json!({ "name": "http", "port": port, "protocol": "HTTP" })], &rules);
    mixed["spec"]["backendSets"][0]["service"]["name"] = json!("mixed");
    ward.api.create(Resource::Pool, &mixed);
    ward.api.create(Resource::Slice, &slice("mixed", "mixed-sound", &[sound]));
    wait_for_backend(port, "/", "sound");

    for (name, wrong, text) in garbage() {
        let mut object = slice("mixed", name, &[IpAddr::from(cluster.pod_address())]);
        let fields = wrong.as_object().expect("an object").clone();
        object.as_object_mut().expect("an object").extend(fields);
        ward.shop.write_past_the_api_server(Resource::Slice, name, object);
        if text.is_empty() {
            // Nothing is said of a slice without the port: such pods are of another port.
            ward.assert_others_go_on();
        } else {
            let texts = ["spec.backendSets[0].service", text];
            ward.wait_for_condition("mixed", "ResolvedRefs", "InvalidEndpoints", &texts);
            ward.assert_others_go_on();
        }
        for _ in 0..4 {
            wait_for_status(port, "/", 200);
        }
        if name == "no-ports" || text.is_empty() {
            continue;
        }
        ward.api.delete(Resource::Slice, name);
        ward.wait_for_condition("mixed", "ResolvedRefs", "ResolvedRefs", &[]);
    }
    ward.end();
}

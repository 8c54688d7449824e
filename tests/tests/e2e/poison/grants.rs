//! A ReferenceGrant that cannot be read permits nothing; others permit what they say.

use super::{Ward, corrupt, plain_pool};
use crate::objects::{service, slice};
use serde_json::{Value, json};
use weir_tests::harness::cluster::{Cluster, Namespace, Resource};
use weir_tests::harness::ports;
use weir_tests::harness::services::wait_for_status;

fn grant(from: &Value) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1beta1",
        "kind": "ReferenceGrant",
        "metadata": { "name": "shops" },
        "spec": {
            "from": [{ "group": "weir.dev", "kind": "LoadBalancerPool", "namespace": from }],
            "to": [{ "group": "", "kind": "Service" }],
        },
    })
}

#[test]
fn a_grant_that_cannot_be_read_costs_whom_it_permitted_and_no_other() {
    // The definition is there, or not, for a whole cluster.
    let cluster = Cluster::private();
    crate::cluster::grants::install_definition(&cluster);
    let mut ward = Ward::of(&cluster, |command, _| command);
    let stores: [Namespace<'_>; 2] = ["store", "mill"].map(|name| cluster.namespace(name));
    let ports = [(); 2].map(|()| ports::free());
    for (store, port) in stores.iter().zip(ports) {
        let mut api = store.api();
        store.apply(&service("web").to_string());
        api.create(Resource::Slice, &slice("web", "web-1", &[ward.backends[0].1]));
        api.create(Resource::Grant, &grant(&json!(ward.shop.name)));
        let mut pool = plain_pool(&store.name, port);
        pool["spec"]["backendSets"][0]["service"]["namespace"] = json!(store.name);
        ward.api.create(Resource::Pool, &pool);
        wait_for_status(port, "/", 200);
    }
    let ([store, mill], [of_store, of_mill]) = (&stores, ports);

    corrupt(store, Resource::Grant, "shops", "/spec/from/0/namespace", json!(7));
    let said = ward.controller.service.process.wait_for_stderr("spec.from[0].namespace");
    assert!(said.contains(&format!("{}/shops", store.name)) && said.contains("permits nothing"), "{said}");
    let field = "spec.backendSets[0].service";
    ward.wait_for_condition(&store.name, "ResolvedRefs", "RefNotPermitted", &[field, &store.name]);
    wait_for_status(of_store, "/", 503);
    ward.wait_for_condition(&mill.name, "ResolvedRefs", "ResolvedRefs", &[]);
    wait_for_status(of_mill, "/", 200);
    ward.assert_others_go_on();

    store.apply(&grant(&json!(ward.shop.name)).to_string());
    wait_for_status(of_store, "/", 200);
    ward.wait_for_condition(&store.name, "ResolvedRefs", "ResolvedRefs", &[]);
    ward.end();
}

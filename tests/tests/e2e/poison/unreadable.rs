//! Pools that are not what the definition says: written under another one, and kept by the API server ever since.

use super::{Ward, corrupt, plain_pool};
use serde_json::{Value, json};
use weir_tests::harness::cluster::{Cluster, Resource};
use weir_tests::harness::services::{is_free, wait_for_status};
use weir_tests::harness::{ports, wait};

#[test]
fn a_pool_that_cannot_be_read_costs_itself_and_says_its_field_and_heals() {
    let cluster = Cluster::shared();
    let mut ward = Ward::new(&cluster);
    let (born, turned) = (ports::free(), ports::free());
    ward.api.create(Resource::Pool, &plain_pool("turned", turned));
    wait_for_status(turned, "/", 200);

    let mut bad = plain_pool("born", born);
    bad["spec"]["listeners"][0]["port"] = json!("eighty");
    ward.shop.write_past_the_api_server(Resource::Pool, "born", bad);
    let field = "spec.listeners[0].port";
    let said = ward.controller.service.process.wait_for_stderr(field);
    assert!(said.contains(&format!("{}/born", ward.shop.name)), "{said}");
    assert!(is_free(born), "there is nothing that it could serve");
    // The API server cannot read it either, so that it takes no status for it; an Event it takes.
    wait::patiently("an Event should name the field", || {
        let events = ward.shop.get(&["events"]);
        let mut about =
            events["items"].as_array()?.iter().filter(|event| event["involvedObject"]["name"] == "born");
        let names = |event: &Value| {
            event["message"].as_str().is_some_and(|said| said.contains(field) && said.contains("eighty"))
        };
        about.any(|event| event["reason"] == "Rejected" && names(event)).then_some(())
    });
    ward.assert_others_go_on();

    corrupt(&ward.shop, Resource::Pool, "turned", "/spec/loadBalancing/algorithm", json!("Sorcery"));
    ward.controller.service.process.wait_for_stderr("spec.loadBalancing.algorithm");
    ward.assert_others_go_on();
    wait_for_status(turned, "/", 200);
    let texts = ["spec.loadBalancing.algorithm", "cannot be read", "Sorcery"];
    ward.wait_for_condition("turned", "Accepted", "Invalid", &texts);
    ward.wait_for_condition("turned", "Programmed", "ServesLastGood", &[]);

    // Not by a server-side apply, which has to read what is there.
    let healed = ports::free();
    for pool in [plain_pool("born", born), plain_pool("turned", healed)] {
        let replaced = ward.shop.try_kubectl(&["replace", "--filename=-"], &pool.to_string());
        assert!(replaced.status.success(), "{}", String::from_utf8_lossy(&replaced.stderr));
    }
    for port in [born, healed] {
        wait_for_status(port, "/", 200);
    }
    for pool in ["born", "turned"] {
        ward.wait_for_condition(pool, "Programmed", "Programmed", &[]);
    }
    ward.end();
}

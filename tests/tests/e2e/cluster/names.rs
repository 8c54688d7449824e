//! Services of type ExternalName, in a cluster.

use super::{pool, sample, wait_for_condition};
use serde_json::json;
use weir_tests::harness::cluster::{Cluster, Namespace};
use weir_tests::harness::controller::ControllerCommand;
use weir_tests::harness::nameserver::NameServer;
use weir_tests::harness::services::{Service, wait_for_backend, wait_for_status};
use weir_tests::harness::{client, ports, wait};

const NAME: &str = "db.shop.example";

fn wait_for_refs(shop: &Namespace<'_>, reason: &str, text: &str) {
    wait_for_condition(shop, "shop", "ResolvedRefs", reason, &[text]);
}

#[test]
fn a_service_of_type_external_name_is_the_addresses_of_its_name() {
    let cluster = Cluster::shared();
    let (system, shop) = (cluster.namespace("weir"), cluster.namespace("shop"));
    let kubeconfig = system.install_weir();
    let address = cluster.pod_address();
    let _backend = sample("external", (address, 8080).into());
    let server = NameServer::start();
    server.resolve(NAME, &[&address.to_string()], 1);
    let external = |name: &str, ports: &str| {
        shop.apply(&format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{ name: db }}\nspec: {{ type: ExternalName, externalName: {name}, {ports} }}\n"
        ));
    };
    external(NAME, "ports: [{ name: http, port: 8080 }]");
    let port = ports::free();
    shop.apply(&pool("shop", port, "db"));
    let command = ControllerCommand::of_cluster(&kubeconfig).in_namespace(&system).watching(&shop);
    let controller = command.flags(server.flags()).start();
    let _proxy = Service::proxy(controller.push);
    wait_for_backend(port, "/", "external");
    wait_for_refs(&shop, "ResolvedRefs", "");
    let metrics = || client::fetch(controller.service.admin, "/metrics").expect("an answer").text();
    let said = metrics();
    assert!(said.contains("weir_controller_dns_names 1\n"), "{said}");
    assert!(said.contains("weir_controller_dns_lookups_total{ending=\"Addresses\"}"), "{said}");

    // Whoever answers for the name could lead the proxies to the credentials of their machines.
    server.resolve(NAME, &["169.254.169.254", "127.0.0.1"], 1);
    wait_for_status(port, "/", 503);
    wait_for_refs(&shop, "InvalidEndpoints", "never used (2: 127.0.0.1, 169.254.169.254)");
    server.resolve(NAME, &[&address.to_string()], 1);
    wait_for_backend(port, "/", "external");

    // Another name of the same Service is another lookup, and the one before is done with.
    external("nowhere.example", "ports: [{ name: http, port: 8080 }]");
    wait_for_refs(&shop, "NameNotResolved", "NXDOMAIN");
    wait_for_status(port, "/", 503);
    wait::until("one name is looked up", || {
        metrics().contains("weir_controller_dns_names 1\n").then_some(())
    });
    external(NAME, "ports: null");
    wait_for_refs(&shop, "BackendNotFound", "use a number");
    let set = json!([{ "name": "web", "service": { "name": "db", "port": 8080 } }]);
    let patch = json!({ "spec": { "backendSets": set } }).to_string();
    shop.kubectl(&["patch", "lbp", "shop", "--type=merge", "--patch", &patch]);
    wait_for_backend(port, "/", "external");

    shop.kubectl(&["delete", "service", "db"]);
    wait_for_status(port, "/", 503);
    wait::until("no name is looked up", || metrics().contains("weir_controller_dns_names 0\n").then_some(()));
}

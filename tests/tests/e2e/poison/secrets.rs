//! Secrets that hold no usable key pair, at the first use and at a rotation.

use super::{Ward, plain_pool};
use crate::cluster::tls_secret;
use serde_json::{Value, json};
use weir_tests::harness::authority::{Authority, KeyPairText};
use weir_tests::harness::cluster::{Cluster, Resource};
use weir_tests::harness::services::is_free;
use weir_tests::harness::{certificates, ports, wait};

fn sealed(port: u16) -> Value {
    let tls = json!({ "certificateRefs": [{ "name": "shop-tls" }] });
    let mut pool = plain_pool("sealed", port);
    pool["spec"]["listeners"] = json!([{ "name": "https", "port": port, "protocol": "HTTPS", "tls": tls }]);
    pool
}

#[test]
fn a_key_pair_that_is_none_costs_its_listener_at_first_and_nothing_at_a_rotation() {
    let cluster = Cluster::shared();
    let mut ward = Ward::new(&cluster);
    let port = ports::free();
    let [first, second] = ["first", "second"].map(|name| Authority::new().issue(name, &["localhost"]));
    let garbage =
        |pair: &KeyPairText| KeyPairText { certificate: "no certificate".to_owned(), ..pair.clone() };
    let mixed = KeyPairText { certificate: second.certificate.clone(), key: first.key.clone() };
    let shows = |name: &str| certificates::subject(port, "localhost") == format!("CN={name}");
    let (field, broken) = ("spec.listeners[0].tls.certificateRefs[0]", "InvalidCertificateRef");

    ward.shop.let_controller_read("shop-tls", &ward.system);
    ward.shop.apply(&tls_secret("shop-tls", &garbage(&first)));
    ward.api.create(Resource::Pool, &sealed(port));
    ward.wait_for_condition("sealed", "ResolvedRefs", broken, &[field, "shop-tls", "tls.crt"]);
    assert!(is_free(port), "nothing can be shown there");
    ward.assert_others_go_on();

    ward.shop.apply(&tls_secret("shop-tls", &first));
    wait::until("the first certificate should be shown", || shows("first").then_some(()));
    ward.wait_for_condition("sealed", "ResolvedRefs", "ResolvedRefs", &[]);

    for (pair, text) in [(&mixed, "tls.key"), (&garbage(&second), "tls.crt")] {
        ward.shop.apply(&tls_secret("shop-tls", pair));
        ward.wait_for_condition("sealed", "ResolvedRefs", broken, &[field, "shop-tls", text]);
        ward.assert_others_go_on();
        assert!(shows("first"), "what was shown before is shown on");
    }

    ward.shop.apply(&tls_secret("shop-tls", &second));
    wait::until("the second certificate should be shown", || shows("second").then_some(()));
    ward.wait_for_condition("sealed", "ResolvedRefs", "ResolvedRefs", &[]);
    ward.end();
}

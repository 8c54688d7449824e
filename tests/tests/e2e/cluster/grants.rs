//! What a pool uses of another namespace, while its owner permits it and no longer. Each test has a cluster of its own: the
//! definition of `ReferenceGrant` is there or is not there for all of it.

use super::{reasons, sample, tls_secret, wait_for_condition};
use weir_tests::harness::authority::Authority;
use weir_tests::harness::cluster::{Cluster, Namespace, Visit};
use weir_tests::harness::controller::{Controller, ControllerCommand};
use weir_tests::harness::process::Process;
use weir_tests::harness::services::{Service, is_free, wait_for_backend, wait_for_status};
use weir_tests::harness::{certificates, client, ports, wait};

/// The Gateway API's own definition says more; this one takes what a careless or older one would take.
const DEFINITION: &str = "apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: referencegrants.gateway.networking.k8s.io
  annotations: { api-approved.kubernetes.io: unapproved }
spec:
  group: gateway.networking.k8s.io
  scope: Namespaced
  names: { plural: referencegrants, singular: referencegrant, kind: ReferenceGrant, listKind: ReferenceGrantList }
  versions:
    - name: v1beta1
      served: true
      storage: true
      schema:
        openAPIV3Schema: { type: object, x-kubernetes-preserve-unknown-fields: true }
";

pub(crate) fn install_definition(cluster: &Cluster) {
    cluster.apply(DEFINITION);
    cluster.wait_for_kind("referencegrants");
}

/// A grant for pools of a namespace, or of whatever stands there in its place.
fn grant(name: &str, from: &str, kind: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {{ name: {name} }}
spec:
  from: [{{ group: weir.dev, kind: LoadBalancerPool, namespace: {from} }}]
  to: [{{ group: \"\", kind: {kind} }}]
"
    )
}

/// A shop whose pool uses a Service and a Secret of a store.
struct Site<'a> {
    shop: Namespace<'a>,
    store: Namespace<'a>,
    system: Namespace<'a>,
    controller: Controller,
    _proxy: Service,
    _backend: Process,
    plain: u16,
    sealed: u16,
}

impl<'a> Site<'a> {
    fn new(cluster: &'a Visit) -> Self {
        let [system, shop, store] = ["weir", "shop", "store"].map(|name| cluster.namespace(name));
        let kubeconfig = system.install_weir();
        let address = cluster.pod_address();
        let backend = sample("stored", (address, 8080).into());
        store.apply(&format!(
            "apiVersion: v1
kind: Service
metadata: {{ name: web }}
spec: {{ ports: [{{ name: http, port: 80 }}] }}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{ name: web-1, labels: {{ kubernetes.io/service-name: web }} }}
addressType: IPv4
ports: [{{ name: http, port: 8080 }}]
endpoints: [{{ addresses: [{address}] }}]
---
{}",
            tls_secret("store-tls", &Authority::new().issue("store", &["localhost"]))
        ));
        let (plain, sealed) = (ports::free(), ports::free());
        shop.apply(&format!(
            "apiVersion: weir.dev/v1alpha1
kind: LoadBalancerPool
metadata: {{ name: shop }}
spec:
  listeners:
    - {{ name: http, port: {plain}, protocol: HTTP }}
    - name: https
      port: {sealed}
      protocol: HTTPS
      tls: {{ certificateRefs: [{{ namespace: {store}, name: store-tls }}] }}
  rules:
    - backendSets: [{{ name: web }}]
  backendSets:
    - {{ name: web, service: {{ namespace: {store}, name: web, port: http }} }}
",
            store = store.name
        ));
        let controller = ControllerCommand::of_cluster(&kubeconfig).in_namespace(&system).start();
        let proxy = Service::proxy(controller.push);
        Self { shop, store, system, controller, _proxy: proxy, _backend: backend, plain, sealed }
    }

    /// Waits until the condition ResolvedRefs has this reason and says this, and returns what it says.
    fn wait_for_refs(&self, reason: &str, text: &str) -> String {
        wait_for_condition(&self.shop, "shop", "ResolvedRefs", reason, &[text])
    }

    fn subject(&self) -> String {
        certificates::subject(self.sealed, "localhost")
    }
}

#[test]
fn a_service_and_a_secret_of_another_namespace_are_used_while_grants_permit_it() {
    let cluster = Cluster::private();
    let site = Site::new(&cluster);
    // Not even the kind is there.
    let said = site.wait_for_refs("RefNotPermitted", "no ReferenceGrant there permits");
    assert!(said.contains("create one in namespace"), "{said}");
    wait::patiently("the Event", || {
        reasons(&site.shop, "shop").contains(&"RefNotPermitted".to_owned()).then_some(())
    });
    wait_for_status(site.plain, "/", 503);
    assert!(is_free(site.sealed), "nothing can be served there");
    let metrics = client::fetch(site.controller.service.admin, "/metrics").expect("an answer").text();
    assert!(metrics.contains("weir_controller_objects{kind=\"Secret\"} 0\n"), "{metrics}");

    install_definition(&cluster);
    site.store.apply(&grant("services", &site.shop.name, "Service"));
    // The kind is asked for again every few seconds.
    wait::patiently("the Service should be used", || {
        client::fetch(site.plain, "/").ok().filter(|answer| answer.status == 200)
    });
    site.wait_for_refs("RefNotPermitted", "Secret \"store-tls\"");
    assert!(is_free(site.sealed), "that grant is for Services");
    site.store.apply(&grant("secrets", &site.shop.name, "Secret"));
    let said = site.wait_for_refs("InvalidCertificateRef", "that the controller may not read");
    assert!(said.contains("secrets and resourceNames [store-tls]") && !said.contains("create it"), "{said}");
    site.store.let_controller_read("store-tls", &site.system);
    wait::patiently("the Secret should be used", || (site.subject() == "CN=store").then_some(()));
    site.wait_for_refs("ResolvedRefs", "");
    wait_for_backend(site.plain, "/", "stored");

    site.store.kubectl(&["delete", "referencegrant", "secrets"]);
    wait::until("the listener should go with its grant", || is_free(site.sealed).then_some(()));
    site.wait_for_refs("RefNotPermitted", "Secret \"store-tls\"");
    wait_for_backend(site.plain, "/", "stored");
    site.store.apply(&grant("services", "elsewhere", "Service"));
    wait_for_status(site.plain, "/", 503);
    site.store.apply(&grant("both", &site.shop.name, "Service"));
    wait_for_backend(site.plain, "/", "stored");
}

#[test]
fn a_malformed_grant_is_named_with_its_field_and_permits_nothing() {
    let cluster = Cluster::private();
    install_definition(&cluster);
    let mut site = Site::new(&cluster);
    site.store.apply(&grant("services", &site.shop.name, "Service"));
    wait_for_backend(site.plain, "/", "stored");
    site.store.apply(&grant("services", "7", "Service"));
    let said = site.controller.service.process.wait_for_stderr("spec.from[0].namespace");
    let name = format!("{}/services", site.store.name);
    assert!(said.contains(&name) && said.contains("a ReferenceGrant permits nothing"), "{said}");
    wait_for_status(site.plain, "/", 503);
    site.store.apply(&grant("services", &site.shop.name, "Service"));
    wait_for_backend(site.plain, "/", "stored");
}

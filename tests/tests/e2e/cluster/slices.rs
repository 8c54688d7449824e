//! EndpointSlices as the cluster's own controllers write them, for Services and pods of every kind, and what a proxy has
//! of them in the end.

use super::{condition, pool, sample};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use weir_tests::harness::cluster::{Cluster, Namespace, PodText, Probe, Visit};
use weir_tests::harness::controller::{Controller, ControllerCommand};
use weir_tests::harness::services::{Service, wait_for_backend, wait_for_status};
use weir_tests::harness::{client, ports, wait};

/// Pods that a slice of the cluster's own takes at most.
const SLICE_ENDPOINTS_MAX: usize = 100;

/// A namespace with a controller of its own and a proxy.
pub(super) struct Site<'a> {
    pub(super) namespace: Namespace<'a>,
    _controller: Controller,
    proxy: Service,
}

impl<'a> Site<'a> {
    pub(super) fn new(cluster: &'a Visit) -> Self {
        let namespace = cluster.namespace("slices");
        let kubeconfig = namespace.install_weir();
        let command = ControllerCommand::of_cluster(&kubeconfig);
        let controller = command.in_namespace(&namespace).watching(&namespace).start();
        let proxy = Service::proxy(controller.push);
        Self { namespace, _controller: controller, proxy }
    }

    /// Pods of these names that all are of the app `web` and have a port named `http` of number 8080.
    fn pods<const N: usize>(&self, names: [&str; N]) -> [PodText; N] {
        let pods = names.map(|name| self.pod(name, 8080));
        self.namespace.run_pods(&pods);
        pods
    }

    pub(super) fn pod(&self, name: &str, port: u16) -> PodText {
        let address = self.namespace.cluster().pod_address().into();
        let [name, app, port_name] = [name, "web", "http"].map(str::to_owned);
        PodText { name, app, port_name, port, addresses: vec![address] }
    }

    /// A Service, and a pool of its name in front of it on this port.
    pub(super) fn serve(&self, name: &str, spec: &str) -> u16 {
        let port = ports::free();
        let service =
            format!("apiVersion: v1\nkind: Service\nmetadata: {{ name: {name} }}\nspec: {{ {spec} }}\n");
        self.namespace.apply(&format!("{service}---\n{}", pool(name, port, name)));
        port
    }

    /// The backends that the proxy has in a pool, each with its state.
    fn backends(&self, pool: &str) -> Option<BTreeMap<SocketAddr, String>> {
        let view = client::fetch(self.proxy.admin, "/api/v1/backends").ok()?.json();
        let name = format!("{}/{pool}", self.namespace.name);
        let pool = view["pools"].as_array()?.iter().find(|pool| pool["name"] == name)?;
        let backends = pool["sets"][0]["backends"].as_array()?.iter();
        let backends = backends.map(|backend| {
            let text = |field: &str| backend[field].as_str().map(str::to_owned);
            Some((text("address")?.parse().ok()?, text("state")?))
        });
        backends.collect()
    }

    /// Waits until the proxy has exactly these backends in a pool.
    pub(super) fn wait_for_backends(&self, pool: &str, expected: &[(SocketAddr, &str)]) {
        let wanted: BTreeMap<_, _> =
            expected.iter().map(|&(address, state)| (address, state.to_owned())).collect();
        wait::patiently(&format!("{pool} should have {expected:?}"), || {
            (self.backends(pool).as_ref() == Some(&wanted)).then_some(())
        });
    }

    /// Waits until the slices of a Service have this many endpoints each, in ascending order.
    fn wait_for_slices(&self, service: &str, sizes: &[usize]) {
        wait::patiently(&format!("slices of {service} should have {sizes:?} endpoints"), || {
            let mut found: Vec<_> = self.slices(service).iter().map(size).collect();
            found.sort_unstable();
            (found == sizes).then_some(())
        });
    }

    fn slices(&self, service: &str) -> Vec<serde_json::Value> {
        let selector = format!("--selector=kubernetes.io/service-name={service}");
        let slices = self.namespace.get(&["endpointslices", &selector]);
        slices["items"].as_array().cloned().unwrap_or_default()
    }
}

fn size(slice: &serde_json::Value) -> usize {
    slice["endpoints"].as_array().map_or(0, Vec::len)
}

pub(super) fn at(pod: &PodText) -> SocketAddr {
    SocketAddr::new(pod.addresses[0], pod.port)
}

/// Who answers requests on a port, once each of them has.
pub(super) fn wait_for_all(port: u16, names: &[&str]) {
    for name in names {
        wait_for_backend(port, "/", name);
    }
}

/// Waits until the last few requests were answered by this backend alone.
pub(super) fn wait_for_only(port: u16, name: &str) {
    wait::until(&format!("{name} should answer alone"), || {
        let answers = (0..6).map(|_| client::fetch(port, "/").ok().filter(|answer| answer.status == 200));
        let names: Option<BTreeSet<_>> =
            answers.map(|answer| Some(answer?.json()["name"].as_str()?.to_owned())).collect();
        (names? == BTreeSet::from([name.to_owned()])).then_some(())
    });
}

#[test]
fn pods_that_give_one_port_two_numbers_are_one_set_also_behind_a_headless_service() {
    let cluster = Cluster::shared();
    let site = Site::new(&cluster);
    let pods = [site.pod("old", 8080), site.pod("new", 9090)];
    site.namespace.run_pods(&pods);
    let _samples = pods.each_ref().map(|pod| sample(&pod.name, at(pod)));
    let ports = "selector: { app: web }, ports: [{ name: http, port: 80, targetPort: http }]";
    let plain = site.serve("plain", ports);
    let headless = site.serve("headless", &format!("clusterIP: None, {ports}"));
    let both = pods.each_ref().map(|pod| (at(pod), "ready"));
    for (name, port) in [("plain", plain), ("headless", headless)] {
        site.wait_for_slices(name, &[1, 1]);
        site.wait_for_backends(name, &both);
        wait_for_all(port, &["old", "new"]);
    }
}

#[test]
fn pods_without_the_port_that_a_service_names_are_left_out_and_the_pool_says_so_where_no_other_is_left() {
    let cluster = Cluster::shared();
    let site = Site::new(&cluster);
    let (good, mut wrong) = (site.pod("good", 8080), site.pod("wrong", 8080));
    "web".clone_into(&mut wrong.port_name);
    site.namespace.run_pods(&[good.clone(), wrong]);
    let _sample = sample(&good.name, at(&good));
    let port =
        site.serve("web", "selector: { app: web }, ports: [{ name: http, port: 80, targetPort: http }]");
    site.wait_for_slices("web", &[1, 1]);
    site.wait_for_backends("web", &[(at(&good), "ready")]);
    wait_for_only(port, "good");
    site.namespace.kubectl(&["wait", "lbp/web", "--for=condition=ResolvedRefs", "--timeout=60s"]);

    site.namespace.kubectl(&["delete", "pod", "good", "--grace-period=0", "--force"]);
    site.wait_for_backends("web", &[]);
    wait_for_status(port, "/", 503);
    site.namespace.kubectl(&["wait", "lbp/web", "--for=condition=ResolvedRefs=false", "--timeout=60s"]);
    let object = site.namespace.get(&["lbp", "web"]);
    let refs = condition(&object, "ResolvedRefs");
    let message = refs["message"].as_str().unwrap_or_default();
    assert!(message.contains("that none of its endpoints has under the name \"http\""), "{refs}");
}

#[test]
fn a_dual_stack_service_is_served_in_its_first_family_and_counts_each_pod_once() {
    let cluster = Cluster::shared();
    let site = Site::new(&cluster);
    let pods = ["a", "b"].map(|name| {
        let mut pod = site.pod(name, 8080);
        pod.addresses.push(cluster.pod_address_v6().into());
        pod
    });
    site.namespace.run_pods(&pods);
    let v4 = pods.each_ref().map(at);
    let v6 = pods.each_ref().map(|pod| SocketAddr::new(pod.addresses[1], pod.port));
    let listening = pods.iter().zip(v4.iter().zip(&v6));
    let _samples: Vec<_> = listening
        .map(|(pod, (v4, v6))| (sample(&pod.name, *v4), sample(&format!("{}-v6", pod.name), *v6)))
        .collect();
    let ports = "selector: { app: web }, ports: [{ name: http, port: 80, targetPort: 8080 }]";
    let families =
        |policy: &str, families: &str| format!("ipFamilyPolicy: {policy}, ipFamilies: [{families}], {ports}");
    let old = site.serve("four-first", &families("RequireDualStack", "IPv4, IPv6"));
    let new = site.serve("six-first", &families("RequireDualStack", "IPv6, IPv4"));
    let only = site.serve("six-only", &families("SingleStack", "IPv6"));
    let ready = |addresses: &[SocketAddr; 2]| addresses.map(|address| (address, "ready"));
    for (name, port, slices, addresses, answering) in [
        ("four-first", old, &[2, 2][..], &v4, ["a", "b"]),
        ("six-first", new, &[2, 2], &v6, ["a-v6", "b-v6"]),
        ("six-only", only, &[2], &v6, ["a-v6", "b-v6"]),
    ] {
        site.wait_for_slices(name, slices);
        site.wait_for_backends(name, &ready(addresses));
        wait_for_all(port, &answering);
    }
}

#[test]
fn a_pod_that_is_not_ready_is_used_where_its_service_publishes_it() {
    let cluster = Cluster::shared();
    let site = Site::new(&cluster);
    let [ready, starting] = site.pods(["ready", "starting"]);
    site.namespace.say_probed(std::slice::from_ref(&starting), Probe::Fails);
    let _samples = [&ready, &starting].map(|pod| sample(&pod.name, at(pod)));
    let ports = "selector: { app: web }, ports: [{ name: http, port: 80, targetPort: http }]";
    let waiting = site.serve("waiting", ports);
    let early = site.serve("early", &format!("publishNotReadyAddresses: true, {ports}"));
    site.wait_for_slices("waiting", &[2]);
    site.wait_for_backends("waiting", &[(at(&ready), "ready")]);
    site.wait_for_backends("early", &[(at(&ready), "ready"), (at(&starting), "ready")]);
    wait_for_all(early, &["ready", "starting"]);
    wait_for_only(waiting, "ready");

    site.namespace.say_probed(std::slice::from_ref(&starting), Probe::Passes);
    site.wait_for_backends("waiting", &[(at(&ready), "ready"), (at(&starting), "ready")]);
}

#[test]
fn a_pod_that_terminates_and_serves_is_left_and_is_the_last_resort() {
    let cluster = Cluster::shared();
    let site = Site::new(&cluster);
    let [old, new] = site.pods(["old", "new"]);
    let _samples = [&old, &new].map(|pod| sample(&pod.name, at(pod)));
    let port =
        site.serve("web", "selector: { app: web }, ports: [{ name: http, port: 80, targetPort: http }]");
    site.wait_for_backends("web", &[(at(&old), "ready"), (at(&new), "ready")]);
    wait_for_all(port, &["old", "new"]);

    // Its grace period is long and no kubelet ends it: it terminates until it is deleted by force.
    site.namespace.kubectl(&["delete", "pod", "old", "--grace-period=600", "--wait=false"]);
    site.wait_for_backends("web", &[(at(&old), "draining"), (at(&new), "ready")]);
    wait_for_only(port, "new");
    site.namespace.say_probed(std::slice::from_ref(&new), Probe::Fails);
    site.wait_for_backends("web", &[(at(&old), "draining")]);
    wait_for_only(port, "old");
    site.namespace.say_probed(std::slice::from_ref(&old), Probe::Fails);
    site.wait_for_backends("web", &[]);
    wait_for_status(port, "/", 503);

    site.namespace.say_probed(std::slice::from_ref(&old), Probe::Passes);
    site.namespace.say_probed(std::slice::from_ref(&new), Probe::Passes);
    site.wait_for_backends("web", &[(at(&old), "draining"), (at(&new), "ready")]);
    site.namespace.kubectl(&["delete", "pod", "old", "--grace-period=0", "--force"]);
    site.wait_for_backends("web", &[(at(&new), "ready")]);
    wait_for_only(port, "new");
}

/// A slice of the Service `web`, written by hand.
fn slice(name: &str, endpoints: &[(SocketAddr, &str)]) -> String {
    let endpoints = endpoints.iter().map(|(address, conditions)| {
        format!("\n  - {{ addresses: [{}], conditions: {{ {conditions} }} }}", address.ip())
    });
    format!(
        "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {name}
  labels: {{ kubernetes.io/service-name: web, endpointslice.kubernetes.io/managed-by: somebody }}
addressType: IPv4
ports: [{{ name: http, port: 8080, protocol: TCP }}]
endpoints: {}
",
        endpoints.collect::<String>()
    )
}

#[test]
fn endpoints_by_hand_are_mirrored_and_slices_by_hand_count_beside_them() {
    let cluster = Cluster::shared();
    let site = Site::new(&cluster);
    let [a, b, c] = ["a", "b", "c"].map(|_| SocketAddr::new(cluster.pod_address().into(), 8080));
    let _samples = [("a", a), ("b", b), ("c", c)].map(|(name, address)| sample(name, address));
    let port = site.serve("web", "ports: [{ name: http, port: 80, targetPort: 8080 }]");
    let endpoints = |ready: SocketAddr, unready: SocketAddr| {
        format!(
            "apiVersion: v1
kind: Endpoints
metadata: {{ name: web }}
subsets:
  - addresses: [{{ ip: {} }}]
    notReadyAddresses: [{{ ip: {} }}]
    ports: [{{ name: http, port: 8080 }}]
",
            ready.ip(),
            unready.ip()
        )
    };
    site.namespace.apply(&endpoints(a, b));
    site.wait_for_slices("web", &[2]);
    site.wait_for_backends("web", &[(a, "ready")]);
    wait_for_all(port, &["a"]);

    // One that says nothing of its conditions is ready; the mirrored one, which is ready, goes before its double.
    let terminating = "ready: false, serving: true, terminating: true";
    site.namespace.apply(&slice("own", &[(c, ""), (a, terminating)]));
    let silent = &site.namespace.get(&["endpointslice", "own"])["endpoints"][0]["conditions"];
    assert_eq!(silent["ready"], serde_json::Value::Null, "the API server fills nothing in");
    site.wait_for_backends("web", &[(a, "ready"), (c, "ready")]);
    wait_for_all(port, &["a", "c"]);

    site.namespace.apply(&endpoints(b, a));
    site.wait_for_backends("web", &[(a, "draining"), (b, "ready"), (c, "ready")]);
    site.namespace.apply(&slice("double", &[(b, "ready: true"), (c, "ready: true")]));
    site.namespace.kubectl(&["delete", "endpoints", "web"]);
    site.wait_for_slices("web", &[2, 2]);
    site.wait_for_backends("web", &[(a, "draining"), (b, "ready"), (c, "ready")]);
    site.namespace.kubectl(&["delete", "endpointslice", "own"]);
    site.wait_for_backends("web", &[(b, "ready"), (c, "ready")]);
    wait_for_all(port, &["b", "c"]);
}

#[test]
fn a_service_of_more_pods_than_a_slice_holds_is_one_set() {
    let cluster = Cluster::shared();
    let site = Site::new(&cluster);
    let mut pods: Vec<_> =
        (0..SLICE_ENDPOINTS_MAX + 20).map(|number| site.pod(&format!("web-{number}"), 8080)).collect();
    site.namespace.run_pods(&pods);
    site.serve("web", "selector: { app: web }, ports: [{ name: http, port: 80, targetPort: http }]");
    let all = |pods: &[PodText]| pods.iter().map(|pod| (at(pod), "ready")).collect::<Vec<_>>();
    site.wait_for_slices("web", &[20, SLICE_ENDPOINTS_MAX]);
    site.wait_for_backends("web", &all(&pods));
    wait::patiently("the status should count each pod once", || {
        (site.namespace.get(&["lbp", "web"])["status"]["endpoints"]["ready"] == pods.len()).then_some(())
    });

    for gone in [pods.pop(), Some(pods.remove(0))].into_iter().flatten() {
        site.namespace.kubectl(&["delete", "pod", &gone.name, "--grace-period=0", "--force"]);
    }
    site.wait_for_backends("web", &all(&pods));
}

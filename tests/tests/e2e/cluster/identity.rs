//! Who a proxy is, asked of a real API server: by tokens and certificates that are good, bad, and become good.

use super::fleet::{AUDIENCE, Fleet, with_certificate, with_token};
use super::static_pool;
use serde_json::json;
use std::net::Ipv4Addr;
use weir_tests::harness::authority::{Authority, KeyPairFiles, replace};
use weir_tests::harness::client::{self, Connection};
use weir_tests::harness::cluster::{Cluster, Namespace, Pod};
use weir_tests::harness::load::{Clients, Load};
use weir_tests::harness::services::{READY, Samples, Service};
use weir_tests::harness::{certificates, ports, wait};

/// A pool for proxies whose pod has this label.
fn selective_pool(name: &str, port: u16, backends: &[u16], label: &str) -> String {
    let pool = static_pool(name, port, backends);
    format!("{pool}  dataPlane: {{ selector: {{ matchLabels: {{ {label} }} }} }}\n")
}

fn is_open(address: Ipv4Addr, port: u16) -> bool {
    Connection::open_at((address, port).into()).is_ok()
}

fn wait_until_served(address: Ipv4Addr, port: u16) {
    wait::until(&format!("{address}:{port} should answer"), || {
        client::fetch_at((address, port).into(), "/").ok().filter(|answer| answer.status == 200)
    });
}

fn assert_has_nothing(proxy: &Service, what: &str) {
    let ready = client::fetch(proxy.admin, READY).expect("an answer");
    assert_eq!(ready.status, 503, "{what}: {}", ready.text());
    let config = client::fetch(proxy.admin, "/api/v1/config").expect("an answer").json();
    assert_eq!((&config["listeners"], &config["pools"]), (&json!([]), &json!([])), "{what}");
}

fn delete_pod(namespace: &Namespace<'_>, name: &str) {
    namespace.kubectl(&["delete", "pod", name, "--grace-period=0", "--force"]);
}

#[test]
fn a_forged_name_gains_nothing_and_takes_nobodys_place() {
    let cluster = Cluster::shared();
    let [system, shop, tenant] = ["weir", "shop", "tenant"].map(|name| cluster.namespace(name));
    let kubeconfig = system.install_weir();
    let fleet = Fleet::new(&system, ports::free());
    let samples = Samples::start("web", 1);
    let (all, own) = (ports::free(), ports::free());
    shop.apply(&static_pool("all", all, &samples.ports));
    tenant.apply(&static_pool("own", own, &samples.ports));
    let mut controller = fleet.controller(&kubeconfig).watching(&shop).watching(&tenant).start();
    // The controller's own namespace is the one whose proxies serve every namespace's pools.
    let (gateway, _proxy) = fleet.proxy_pod(&system, "gateway", "weir-proxy");
    wait_until_served(gateway.address, all);

    let pod = tenant.pod("proxy", "default", &[]);
    let token = fleet.token_file(&pod, &tenant.token("default", &pod.name, AUDIENCE));
    let forged = format!("{}/gateway", system.name);
    let _forger = fleet.proxy(&pod, &[with_token(&token), vec!["--id".to_owned(), forged]].concat());
    wait_until_served(pod.address, own);
    assert!(!is_open(pod.address, all), "a name opened another namespace's pool");
    let proven = format!("a proxy has connected proxy={}/proxy", tenant.name);
    controller.service.process.wait_for_stderr(&proven);
    let said = controller.service.process.stderr();
    let as_gateway = said.lines().filter(|line| line.contains(&format!("proxy={}/gateway", system.name)));
    assert_eq!(as_gateway.count(), 1, "the gateway alone has the gateway's name: {said}");
    for (namespace, pool, proxies) in [(&shop, "all", 1), (&tenant, "own", 2)] {
        wait::patiently(&format!("{pool} should be served by {proxies}"), || {
            let status = namespace.get(&["lbp", pool])["status"]["programmed"].take();
            (status["proxies"] == proxies && status["current"] == proxies).then_some(())
        });
    }
}

/// A proxy with a token that is not good.
struct Unproven {
    pod: Pod,
    token: String,
    /// What is said of it.
    sentence: &'static str,
}

/// One of each kind, named by its pod.
fn unproven(edge: &Namespace<'_>) -> Vec<Unproven> {
    const NOT_ACCEPTED: &str = "the API server does not accept the token: ";
    let pod = |name: &str| edge.pod(name, "default", &[]);
    let of_deleted_pod = |name: &str| {
        let (pod, token) = (pod(name), edge.token("default", name, AUDIENCE));
        delete_pod(edge, name);
        (pod, token)
    };
    let case = |pod, token, sentence| Unproven { pod, token, sentence };
    let elsewhere = pod("elsewhere");
    let for_elsewhere = edge.token("default", &elsewhere.name, "https://kubernetes.default.svc");
    let audience = format!("--audience={AUDIENCE}");
    let unbound = edge.kubectl(&["create", "token", "default", &audience]).trim().to_owned();
    let (gone, of_gone) = of_deleted_pod("gone");
    let (_, of_predecessor) = of_deleted_pod("replaced");
    vec![
        case(elsewhere, for_elsewhere, "token audiences"),
        case(pod("unbound"), unbound, "is bound to no pod: use a projected volume"),
        case(gone, of_gone, NOT_ACCEPTED),
        case(pod("replaced"), of_predecessor, NOT_ACCEPTED),
        case(pod("garbage"), "no.such.token".to_owned(), NOT_ACCEPTED),
        case(pod("empty"), String::new(), "given by --token-file, is empty"),
    ]
}

#[test]
fn a_proxy_without_a_good_token_has_nothing_until_its_file_holds_one() {
    let cluster = Cluster::shared();
    let [system, edge] = ["weir", "edge"].map(|name| cluster.namespace(name));
    let kubeconfig = system.install_weir();
    let fleet = Fleet::new(&system, ports::free());
    let (samples, port) = (Samples::start("web", 1), ports::free());
    edge.apply(&static_pool("web", port, &samples.ports));
    let mut controller = fleet.controller(&kubeconfig).watching(&edge).start();
    controller.service.wait_until_ready();

    let mut without = fleet.proxy(&edge.pod("without", "default", &[]), &[]);
    without.process.wait_for_stderr("the stream brings no token: give the proxy --token-file");
    let mut proxies: Vec<_> = unproven(&edge)
        .into_iter()
        .map(|unproven| {
            let file = fleet.token_file(&unproven.pod, &unproven.token);
            (fleet.proxy(&unproven.pod, &with_token(&file)), unproven)
        })
        .collect();
    for (proxy, Unproven { pod, token, sentence }) in &mut proxies {
        proxy.process.wait_for_stderr(sentence);
        // Without anything to show, the proxy does not even dial.
        if !token.is_empty() {
            controller.service.process.wait_for_stderr(sentence);
        }
        assert_has_nothing(proxy, &pod.name);
        assert!(!is_open(pod.address, port), "{} serves", pod.name);
    }
    assert_has_nothing(&without, "without");
    let said = controller.service.process.stderr();
    assert!(said.contains("a proxy is refused") && said.contains("the stream brings no token"), "{said}");

    // A pod of that name, whose token is good; the proxy stays where it is.
    let _successor = edge.pod("gone", "default", &[]);
    for (_, Unproven { pod, .. }) in &proxies {
        fleet.token_file(pod, &edge.token("default", &pod.name, AUDIENCE));
    }
    for (proxy, Unproven { pod, token, .. }) in &proxies {
        proxy.wait_until_ready();
        wait_until_served(pod.address, port);
        let said = [proxy.process.stderr(), controller.service.process.stderr()].concat();
        assert!(token.is_empty() || !said.contains(token), "a token is in a log: {said}");
    }
    assert_has_nothing(&without, "without");
}

#[test]
fn a_proxy_whose_pod_was_replaced_serves_on_and_hears_nothing_until_its_token_is_the_new_ones() {
    let cluster = Cluster::shared();
    let [system, edge] = ["weir", "edge"].map(|name| cluster.namespace(name));
    let kubeconfig = system.install_weir();
    let fleet = Fleet::new(&system, ports::free());
    let (samples, before, after) = (Samples::start("web", 1), ports::free(), ports::free());
    edge.apply(&static_pool("before", before, &samples.ports));
    let _controller = fleet.controller(&kubeconfig).watching(&edge).flags(["--stream-age-max", "1s"]).start();
    let (pod, mut proxy) = fleet.proxy_pod(&edge, "proxy", "default");
    wait_until_served(pod.address, before);
    let load = Load::start_at((pod.address, before).into(), Clients { kept: 1, fresh: 1 });

    delete_pod(&edge, "proxy");
    let _successor = edge.pod("proxy", "default", &[]);
    // Who says so first, the review or the pod's uid, is the API server's to choose: it keeps reviews for seconds.
    wait::patiently("the proxy should be refused", || {
        let said = proxy.process.stderr();
        let refused = ["it has been replaced", "the API server does not accept the token"];
        refused.iter().any(|sentence| said.contains(sentence)).then_some(())
    });
    edge.apply(&static_pool("after", after, &samples.ports));
    edge.kubectl(&["wait", "lbp/after", "--for=condition=Accepted", "--timeout=60s"]);
    assert!(proxy.process.is_running() && !is_open(pod.address, after), "it heard of a pool");

    fleet.token_file(&pod, &edge.token("default", "proxy", AUDIENCE));
    wait_until_served(pod.address, after);
    load.assert_no_failure();
}

#[test]
fn a_pool_follows_the_labels_of_pods_at_their_next_streams() {
    let cluster = Cluster::shared();
    let [system, edge] = ["weir", "edge"].map(|name| cluster.namespace(name));
    let kubeconfig = system.install_weir();
    let fleet = Fleet::new(&system, ports::free());
    let samples = Samples::start("web", 1);
    let (all, north) = (ports::free(), ports::free());
    edge.apply(&static_pool("all", all, &samples.ports));
    edge.apply(&selective_pool("north", north, &samples.ports, "region: north"));
    let _controller = fleet.controller(&kubeconfig).watching(&edge).flags(["--stream-age-max", "1s"]).start();
    let (a, proxy_a) = fleet.proxy_pod(&edge, "proxy-a", "default");
    let (b, proxy_b) = fleet.proxy_pod(&edge, "proxy-b", "default");
    for (pod, proxy) in [(&a, &proxy_a), (&b, &proxy_b)] {
        proxy.wait_until_ready();
        wait_until_served(pod.address, all);
        assert!(!is_open(pod.address, north), "{} has no such label", pod.name);
    }
    let loads = [&a, &b].map(|pod| Load::start_at((pod.address, all).into(), Clients { kept: 1, fresh: 1 }));

    edge.kubectl(&["label", "pod", "proxy-a", "region=north"]);
    wait_until_served(a.address, north);
    assert!(!is_open(b.address, north), "{} has no such label", b.name);
    edge.kubectl(&["label", "pod", "proxy-b", "region=north"]);
    edge.kubectl(&["label", "pod", "proxy-a", "region=south", "--overwrite"]);
    wait_until_served(b.address, north);
    wait::until("the pool should leave the pod with another label", || {
        (!is_open(a.address, north)).then_some(())
    });
    edge.kubectl(&["label", "pod", "proxy-b", "region-"]);
    wait::until("the pool should leave the pod without the label", || {
        (!is_open(b.address, north)).then_some(())
    });
    for load in loads {
        load.assert_no_failure();
    }
}

#[test]
fn a_certificate_stands_for_the_pod_of_its_uri() {
    let cluster = Cluster::shared();
    let [system, edge, tenant] = ["weir", "edge", "tenant"].map(|name| cluster.namespace(name));
    let kubeconfig = system.install_weir();
    let fleet = Fleet::new(&system, ports::free());
    let (samples, port) = (Samples::start("web", 1), ports::free());
    edge.apply(&static_pool("web", port, &samples.ports));
    let command = fleet.controller(&kubeconfig).watching(&edge).watching(&tenant);
    let _controller = command.with_client_ca(&fleet.ca).start();
    let uri = |namespace: &Namespace<'_>, pod: &str| {
        format!("spiffe://example.org/ns/{}/pod/{pod}", namespace.name)
    };
    let issue = |name: &str, names: &[&str]| -> KeyPairFiles {
        let folder = fleet.ca.parent().expect("a folder");
        fleet.authority.issue(name, names).write(folder, &format!("{}-{name}", edge.name))
    };

    let own = edge.pod("own", "default", &[]);
    let _proxy = fleet.proxy(&own, &with_certificate(&issue("own", &[&uri(&edge, "own")])));
    wait_until_served(own.address, port);
    let (by_token, _proxy) = fleet.proxy_pod(&edge, "by-token", "default");
    wait_until_served(by_token.address, port);
    let foreign = tenant.pod("foreign", "default", &[]);
    let proxy = fleet.proxy(&foreign, &with_certificate(&issue("foreign", &[&uri(&tenant, "foreign")])));
    proxy.wait_until_ready();
    assert!(!is_open(foreign.address, port), "it serves another namespace's pool");

    // On addresses of their own: the pods are not there, or not named.
    let at = |name: &str| Pod { name: name.to_owned(), address: cluster.pod_address() };
    let (later, nameless) = (at("later"), at("nameless"));
    let mut early = fleet.proxy(&later, &with_certificate(&issue("later", &[&uri(&edge, "later")])));
    early.process.wait_for_stderr(&format!("there is no pod {}/later", edge.name));
    let mut unnamed = fleet.proxy(&nameless, &with_certificate(&issue("nameless", &["proxy.example"])));
    unnamed.process.wait_for_stderr("must have exactly one URI");
    for (proxy, pod) in [(&early, &later), (&unnamed, &nameless)] {
        assert_has_nothing(proxy, &pod.name);
    }
    let _pod = edge.pod("later", "default", &[]);
    issue("nameless", &[&uri(&edge, "own")]);
    for (proxy, pod) in [(&early, &later), (&unnamed, &nameless)] {
        proxy.wait_until_ready();
        wait_until_served(pod.address, port);
    }
}

#[test]
fn a_replaced_certificate_of_the_controller_is_what_new_dials_see_and_no_stream_fails() {
    let cluster = Cluster::shared();
    let [system, edge] = ["weir", "edge"].map(|name| cluster.namespace(name));
    let kubeconfig = system.install_weir();
    let push = ports::free();
    let fleet = Fleet::new(&system, push);
    let (samples, port) = (Samples::start("web", 1), ports::free());
    edge.apply(&static_pool("web", port, &samples.ports));
    let command = fleet.controller(&kubeconfig).watching(&edge);
    let mut controller = command.flags(["--stream-age-max", "1s"]).start();
    let (pod, proxy) = fleet.proxy_pod(&edge, "proxy", "default");
    wait_until_served(pod.address, port);
    let load = Load::start_at((pod.address, port).into(), Clients { kept: 1, fresh: 1 });
    assert_eq!(certificates::subject(push, super::fleet::CONTROLLER), "CN=weir-controller");

    // Trust in the next authority comes first, then its certificate, then trust in the one before goes.
    let next = Authority::new();
    replace(&fleet.ca, &[fleet.authority.certificate(), next.certificate()].concat());
    let pair = next.issue("next", &[super::fleet::CONTROLLER]);
    let folder = fleet.ca.parent().expect("a folder");
    pair.write(folder, &system.name);
    controller.service.process.wait_for_stderr("a new TLS certificate is in use");
    assert_eq!(certificates::subject(push, super::fleet::CONTROLLER), "CN=next");
    let streams = || {
        let said = controller.service.process.stderr();
        said.lines().filter(|line| line.contains("a proxy has connected")).count()
    };
    let before = streams();
    replace(&fleet.ca, &next.certificate());
    wait::until("the proxy should open further streams", || (streams() > before + 1).then_some(()));
    // It came over the newest of them.
    let (more, moved) = (Samples::start("more", 1), ports::free());
    edge.apply(&static_pool("more", moved, &more.ports));
    wait_until_served(pod.address, moved);
    let (late, _proxy) = fleet.proxy_pod(&edge, "late", "default");
    wait_until_served(late.address, moved);
    load.assert_no_failure();
    let said = proxy.process.stderr();
    assert!(!said.contains("no stream to a controller"), "a stream that ends by its age is no fault: {said}");
}

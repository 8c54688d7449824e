//! The way of a user: the roles and a Deployment applied, Weir started with its own ServiceAccount, and kubectl from there on.

use super::fleet::Fleet;
use super::pool;
use super::site::{Site, load, wait_for_more, wait_until_left};
use weir_tests::harness::client::Connection;
use weir_tests::harness::cluster::Cluster;
use weir_tests::harness::services::{Service, is_free, wait_for_status};
use weir_tests::harness::{client, ports, wait};

#[test]
fn traffic_follows_the_scale_of_a_deployment_and_no_request_fails() {
    let cluster = Cluster::shared();
    let site = Site::new(&cluster);
    let (_controller, proxy) = (site.controller(), Service::proxy(site.push));
    let port = ports::free();
    site.deploy(client::local(port));
    proxy.wait_until_ready();
    site.wait_for_row(["2/2", "1/1", "Programmed"]);
    let load = load(client::local(port));

    let before = site.pods();
    site.scale(3);
    let new = site.pods().into_iter().find(|pod| before.iter().all(|known| known.name != pod.name));
    let new = new.expect("a third pod").name;
    wait::patiently("the new backend should be used", || load.seen().first_answer.get(&new).copied());
    site.wait_for_row(["3/3", "1/1", "Programmed"]);

    site.node.hold_deleted_pods();
    site.scale(1);
    let deleted = site.deleted(2);
    wait_until_left(&load, &deleted);
    for pod in deleted {
        let answer = client::fetch_at((pod.address, 8080).into(), "/").expect("it was left before it went");
        assert_eq!(answer.json()["name"], pod.name);
    }
    site.release(1);
    site.wait_for_row(["1/1", "1/1", "Programmed"]);
    wait_for_more(&load);
    load.assert_no_failure();
}

#[test]
fn a_rolling_change_fails_no_request() {
    let cluster = Cluster::shared();
    let site = Site::new(&cluster);
    let (_controller, _proxy) = (site.controller(), Service::proxy(site.push));
    let port = ports::free();
    site.deploy(client::local(port));
    let load = load(client::local(port));
    // As long a `preStop` as it takes: a pod that ends with its deletion ends before anyone can know.
    site.node.hold_deleted_pods();
    site.shop.kubectl(&["rollout", "restart", "deployment/web"]);
    site.shop.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    let old = site.deleted(2);
    wait_until_left(&load, &old);
    site.release(2);
    wait_for_more(&load);
    let seen = load.seen();
    for pod in site.pods() {
        assert!(seen.answers.contains_key(&pod.name), "{} got no request: {:?}", pod.name, seen.answers);
    }
    load.assert_no_failure();
}

#[test]
fn a_killed_controller_costs_no_request_and_the_next_one_goes_on() {
    let cluster = Cluster::shared();
    let site = Site::new(&cluster);
    let (first, _proxy) = (site.controller(), Service::proxy(site.push));
    let port = ports::free();
    site.deploy(client::local(port));
    let load = load(client::local(port));
    first.process.kill();
    wait_for_more(&load);
    let before = site.pods();
    site.scale(3);
    let new = site.pods().into_iter().find(|pod| before.iter().all(|known| known.name != pod.name));
    let new = new.expect("a third pod").name;
    let second = site.controller();
    second.wait_until_ready();
    wait::patiently("the new backend should be used", || load.seen().first_answer.get(&new).copied());
    site.wait_for_row(["3/3", "1/1", "Programmed"]);
    wait_for_more(&load);
    load.assert_no_failure();
}

#[test]
fn a_service_may_come_after_its_pool_and_a_deleted_pool_takes_its_listener_along() {
    let cluster = Cluster::shared();
    let site = Site::new(&cluster);
    let (_controller, _proxy) = (site.controller(), Service::proxy(site.push));
    let (port, early) = (ports::free(), ports::free());
    site.shop.apply(&pool("early", early, "web"));
    wait_for_status(early, "/", 503);
    site.shop.kubectl(&["wait", "lbp/early", "--for=condition=ResolvedRefs=false", "--timeout=60s"]);
    let said = site.shop.kubectl(&["describe", "lbp", "early"]);
    assert!(said.contains("BackendNotFound"), "{said}");
    site.deploy(client::local(port));
    wait_for_status(early, "/", 200);
    for condition in ["ResolvedRefs", "EndpointsReady", "Programmed"] {
        let condition = format!("--for=condition={condition}");
        site.shop.kubectl(&["wait", "lbp/early", &condition, "--timeout=60s"]);
    }

    let load = load(client::local(port));
    site.shop.kubectl(&["delete", "lbp", "early"]);
    wait::until("the listener of the deleted pool should go", || is_free(early).then_some(()));
    wait_for_more(&load);
    load.assert_no_failure();
}

#[test]
fn over_tls_a_proxy_gets_what_its_pod_may_serve_and_no_more() {
    let cluster = Cluster::shared();
    let site = Site::new(&cluster);
    let tenant = cluster.namespace("tenant");
    let fleet = Fleet::new(&site.system, site.push);
    let _controller = site.command().watching(&tenant).with_certificate(&fleet.pair).start();

    // The controller's own namespace is the one whose proxies serve every namespace's pools.
    let (pod, gateway) = fleet.proxy_pod(&site.system, "proxy", "weir-proxy");
    let (shop, own) = (ports::free(), ports::free());
    site.deploy((pod.address, shop).into());
    gateway.wait_until_ready();
    let load = load((pod.address, shop).into());

    tenant.apply(&pool("own", own, "web"));
    let (pod, proxy) = fleet.proxy_pod(&tenant, "proxy", "default");
    proxy.wait_until_ready();
    wait::until("the tenant's own pool should be served", || {
        Connection::open_at((pod.address, own).into()).ok()
    });
    assert!(Connection::open_at((pod.address, shop).into()).is_err(), "it serves another namespace's pool");

    site.scale(3);
    wait_for_more(&load);
    load.assert_no_failure();
}

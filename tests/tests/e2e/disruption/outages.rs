//! One thing after another goes away or is replaced while two proxies serve: a leader, the API server, a token, a
//! certificate. No request fails, and after each the status tells how it is.

use super::load;
use crate::cluster::fleet::{AUDIENCE, CONTROLLER, Fleet};
use crate::cluster::replicas::{proxy, replica_with, wait_for_holder};
use crate::cluster::site::Site;
use crate::cluster::{condition, pool, sample};
use crate::objects::{move_to, service, slice};
use std::net::SocketAddr;
use weir_tests::harness::cluster::{Api, Cluster, Pod, Resource};
use weir_tests::harness::controller::Controller;
use weir_tests::harness::load::Load;
use weir_tests::harness::services::Service;
use weir_tests::harness::{certificates, ports};

/// Short, so that proxies prove themselves again and again, also while nobody can be asked.
const STREAM_AGE: [&str; 2] = ["--stream-age-max", "2s"];

struct Fixture<'a> {
    site: &'a Site<'a>,
    fleet: Fleet<'a>,
    api: Api,
    backends: [SocketAddr; 2],
    proxies: [(SocketAddr, Service); 2],
    loads: Vec<Load>,
}

impl Fixture<'_> {
    /// Requests flow at every proxy, and none has failed.
    fn flow(&self) {
        self.loads.iter().for_each(super::flow);
    }

    /// The status says that all is well, and a change of endpoints reaches it and these proxies.
    fn assert_whole(&mut self, proxies: &str) {
        self.site.wait_for_row(["2/2", proxies, "Programmed"]);
        move_to(&mut self.api, "web", &self.backends[1..]);
        self.site.wait_for_row(["1/1", proxies, "Programmed"]);
        move_to(&mut self.api, "web", &self.backends);
        self.site.wait_for_row(["2/2", proxies, "Programmed"]);
        let object = self.site.shop.get(&["lbp", "shop"]);
        for kind in ["Accepted", "ResolvedRefs", "EndpointsReady", "Programmed"] {
            assert_eq!(condition(&object, kind)["status"], "True", "{object}");
        }
        assert_eq!(condition(&object, "Degraded")["status"], "False", "{object}");
        let (before, after) = proxies.split_once('/').expect("one of two");
        let programmed = &object["status"]["programmed"];
        assert_eq!(
            (programmed["current"].to_string(), programmed["proxies"].to_string()),
            (before.into(), after.into())
        );
        self.flow();
    }
}

/// A change of endpoints that this proxy cannot hear of costs it nothing: those that it has still live.
fn expire_a_token(at: &mut Fixture<'_>, cluster: &Cluster) {
    let (server, proxy) = &mut at.proxies[0];
    let SocketAddr::V4(address) = *server else { panic!("pods have such addresses here") };
    let pod = Pod { name: "proxy-0".to_owned(), address: *address.ip() };
    let token = at.site.system.token("weir-proxy", &pod.name, AUDIENCE);
    at.fleet.token_file(&pod, &cluster.expired(&token));
    let said = proxy.process.wait_for_stderr("the API server does not accept the token");
    assert!(said.contains("expired"), "{said}");
    at.assert_whole("1/1");
    at.fleet.token_file(&pod, &token);
    at.assert_whole("2/2");
}

fn replace_the_certificate(at: &mut Fixture<'_>, controllers: &mut [Controller; 2]) {
    let folder = at.fleet.ca.parent().expect("the cluster's folder");
    at.fleet.authority.issue("next", &[CONTROLLER]).write(folder, &at.site.system.name);
    for controller in controllers {
        controller.service.process.wait_for_stderr("a new TLS certificate is in use");
        assert_eq!(certificates::subject(controller.push, CONTROLLER), "CN=next");
    }
    at.assert_whole("2/2");
}

#[test]
fn leader_api_server_token_and_certificate_go_and_come_and_no_request_fails() {
    let cluster = Cluster::private();
    let site = Site::new(&cluster);
    let fleet = Fleet::new(&site.system, site.push);
    let replica = |name: &str, push| replica_with(&site, &fleet, name, push, &STREAM_AGE);
    let leader = replica("controller-0", ports::free());
    wait_for_holder(&site, "controller-0");
    let other = replica("controller-1", ports::free());
    let backends = [(); 2].map(|()| SocketAddr::from((cluster.pod_address(), 8080)));
    let _samples = [("one", backends[0]), ("two", backends[1])].map(|(name, address)| sample(name, address));
    let (mut api, port) = (site.shop.api(), ports::free());
    site.shop.apply(&service("web").to_string());
    api.create(Resource::Slice, &slice("web", "web", &backends));
    site.shop.apply(&pool("shop", port, "web"));
    let proxies = ["proxy-0", "proxy-1"].map(|name| {
        let (address, proxy) = proxy(&site, &fleet, name, &[&leader, &other]);
        (SocketAddr::new(address.ip(), port), proxy)
    });
    site.wait_for_row(["2/2", "2/2", "Programmed"]);
    let loads = proxies.iter().map(|(server, _)| load(*server)).collect();
    let mut at = Fixture { site: &site, fleet, api, backends, proxies, loads };
    at.assert_whole("2/2");

    let push = leader.push;
    leader.service.process.kill();
    wait_for_holder(at.site, "controller-1");
    at.assert_whole("2/2");
    let mut controllers = [other, replica_with(at.site, &at.fleet, "controller-2", push, &STREAM_AGE)];
    at.assert_whole("2/2");

    cluster.shut_api_server_down();
    for (_, proxy) in &mut at.proxies {
        // Nobody can be asked who it is: it serves what it has.
        proxy.process.wait_for_stderr("the controller cannot ask the API server");
    }
    at.flow();
    cluster.start_api_server();
    at.assert_whole("2/2");

    expire_a_token(&mut at, &cluster);
    replace_the_certificate(&mut at, &mut controllers);
    assert!(controllers.iter_mut().all(|controller| controller.service.process.is_running()));
    for load in at.loads {
        load.assert_no_failure();
    }
}

//! Limits that proxies of several replicas have together.

use super::fleet::Fleet;
use super::replicas::{proxy, replica_with, wait_for_holder};
use super::site::Site;
use super::static_pool;
use crate::policy::shares::{LIMIT, assert_limit, load, wait_for_share};
use std::net::SocketAddr;
use weir_tests::harness::cluster::Cluster;
use weir_tests::harness::ports;
use weir_tests::harness::services::Samples;

#[test]
fn proxies_of_two_replicas_pass_one_limit_together_also_after_the_holder_is_killed() {
    let cluster = Cluster::shared();
    let site = Site::new(&cluster);
    let fleet = Fleet::new(&site.system, site.push);
    let (samples, port) = (Samples::start("web", 1), ports::free());
    let limit = format!("spec:\n  {LIMIT}\n");
    site.shop.apply(&static_pool("shop", port, &samples.ports).replacen("spec:\n", &limit, 1));
    let first = replica_with(&site, &fleet, "controller-0", ports::free(), &[]);
    wait_for_holder(&site, "controller-0");
    let second = replica_with(&site, &fleet, "controller-1", ports::free(), &[]);
    let proxies = [
        proxy(&site, &fleet, "proxy-0", &[&first, &second]),
        proxy(&site, &fleet, "proxy-1", &[&second]),
        proxy(&site, &fleet, "proxy-2", &[&second]),
    ];
    for (_, service) in &proxies {
        service.wait_until_ready();
        wait_for_share(service, 0.2);
    }
    let loads = proxies.each_ref().map(|(address, _)| load(SocketAddr::new(address.ip(), port)));
    assert_limit(&loads, "under one holder");

    first.service.process.kill();
    assert_limit(&loads, "without one");
    wait_for_holder(&site, "controller-1");
    assert_limit(&loads, "under the next one");
    // Which gives shares anew: all that there is, to where it is asked for.
    let one: Vec<_> = loads.into_iter().take(1).collect();
    wait_for_share(&proxies[0].1, 0.9);
    assert_limit(&one, "at one proxy");
}

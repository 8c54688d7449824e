//! Limits that several proxies have together, as their clients meet them.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};
use weir_tests::harness::client;
use weir_tests::harness::folder::Folder;
use weir_tests::harness::load::{Clients, Load};
use weir_tests::harness::manifest::PoolText;
use weir_tests::harness::services::{Samples, Service, controller};
use weir_tests::harness::{ports, wait};

/// Little enough for a machine that does other things too, with a burst that leaves each quiet proxy a request.
pub(crate) const LIMIT: &str =
    "rateLimits: [{ name: all, scope: Cluster, key: { type: Route }, requests: 20, period: 1s, burst: 64 }]";

/// A proxy on an address of its own.
struct Proxy {
    service: Service,
    server: SocketAddr,
}

impl Proxy {
    fn start(host: u8, port: u16, push: u16) -> Self {
        let address = Ipv4Addr::new(127, 0, 0, host);
        let service = Service::proxy_at(address, &format!("http://127.0.0.1:{push}"), &[]);
        Self { service, server: (address, port).into() }
    }

    fn load(&self) -> Load {
        load(self.server)
    }
}

/// A metric that may have a fraction.
pub(crate) fn gauge(service: &Service, name: &str) -> f64 {
    let text = client::fetch(service.admin, "/metrics").expect("administration answers").text();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no metric {name}:\n{text}"))
}

pub(crate) fn wait_for_share(service: &Service, at_least: f64) {
    wait::patiently(&format!("a share should be at least {at_least}"), || {
        let has_word = gauge(service, "weir_cluster_limits_without_word") == 0.0;
        (has_word && gauge(service, "weir_cluster_limits_shares") >= at_least).then_some(())
    });
}

/// More than the limit allows to all proxies.
pub(crate) fn load(server: SocketAddr) -> Load {
    Load::start_paced(server, Clients { kept: 2, fresh: 0 }, Duration::from_millis(10))
}

/// That the limit, and no more, passes at all of these loads together, once each is refused something.
pub(crate) fn assert_limit(loads: &[Load], when: &str) {
    for load in loads {
        let before = load.seen().failures.len();
        wait::patiently("the burst should be used up", || {
            (load.seen().failures.len() > before + 5).then_some(())
        });
    }
    let passed = rate(loads, Duration::from_secs(5));
    assert!((15.0..=25.0).contains(&passed), "{when}: {passed} in a second");
    let failures: Vec<_> = loads.iter().flat_map(|load| load.seen().failures).collect();
    assert_eq!(failures.iter().find(|failure| !failure.starts_with("429")), None, "{when}");
}

/// Requests a second that pass at all of these loads, over this time.
fn rate(loads: &[Load], time: Duration) -> f64 {
    let good = || loads.iter().map(|load| load.seen().good).sum::<u64>();
    let (before, begun) = (good(), Instant::now());
    wait::until("the time should pass", || (begun.elapsed() >= time).then_some(()));
    (good() - before) as f64 / begun.elapsed().as_secs_f64()
}

#[test]
fn three_proxies_pass_the_limit_together_wherever_clients_are_and_while_the_controller_is_killed() {
    let samples = Samples::start("member", 1);
    let (port, push, folder) = (ports::free(), ports::free(), Folder::new());
    let pool = PoolText { spec: vec![LIMIT.to_owned()], ..PoolText::new("shared", port, &samples.equal()) };
    folder.write("pool.yaml", &pool.yaml());
    let first = controller(folder.path(), push);
    let proxies = [21, 22, 23].map(|host| Proxy::start(host, port, push));
    for proxy in &proxies {
        proxy.service.wait_until_ready();
        wait_for_share(&proxy.service, 0.2);
    }
    let all: Vec<_> = proxies.iter().map(Proxy::load).collect();
    assert_limit(&all, "at all three");
    let one: Vec<_> = all.into_iter().take(1).collect();
    wait_for_share(&proxies[0].service, 0.9);
    assert_limit(&one, "at one");

    first.kill();
    assert_limit(&one, "without a controller");
    let _second = controller(folder.path(), push);
    assert_limit(&one, "with a new controller");
    drop(one);
    let other = vec![proxies[2].load()];
    wait_for_share(&proxies[2].service, 0.9);
    assert_limit(&other, "at another one");
}

#[test]
fn a_proxy_that_ends_leaves_its_share_to_the_others_at_once() {
    let samples = Samples::start("member", 1);
    let (port, push, folder) = (ports::free(), ports::free(), Folder::new());
    let pool = PoolText { spec: vec![LIMIT.to_owned()], ..PoolText::new("left", port, &samples.equal()) };
    folder.write("pool.yaml", &pool.yaml());
    let _controller = controller(folder.path(), push);
    let [stays, goes] = [24, 25].map(|host| Proxy::start(host, port, push));
    for proxy in [&stays, &goes] {
        proxy.service.wait_until_ready();
        wait_for_share(&proxy.service, 0.3);
    }
    let begun = Instant::now();
    goes.service.process.terminate();
    wait_for_share(&stays.service, 0.9);
    // It drains for some seconds first; without a word its share would be held for 30 s more.
    assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
    stays.service.process.terminate();
}

#[test]
fn one_process_has_the_whole_of_a_limit_of_the_cluster_from_the_first_request() {
    let limit = "rateLimits: [{ name: all, scope: Cluster, key: { type: Route }, requests: 5, period: 1h }]";
    let site = super::Site::start(2, "", &[limit]);
    assert_eq!(site.statuses("", 7), [200, 200, 200, 200, 200, 429, 429]);
    let refused = site.ask("");
    assert_eq!(refused.header("ratelimit-policy"), Some("\"all\";q=5;w=3600"));
    assert_eq!(site.weir.metric("weir_cluster_limits_shares"), 1);
    assert_eq!(site.weir.metric("weir_cluster_limits_without_word"), 0);
}

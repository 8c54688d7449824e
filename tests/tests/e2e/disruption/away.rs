//! A controller that is away while thousands of changes reach the API server, and comes back.

use super::{flow, load, wait_for_path};
use crate::cluster::sample;
use crate::objects::{http, move_to, pool, rule, service, slice};
use serde_json::json;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use weir_tests::harness::cluster::{Api, Cluster, Namespace, Resource};
use weir_tests::harness::controller::{Controller, ControllerCommand};
use weir_tests::harness::relay::Relay;
use weir_tests::harness::services::Service;
use weir_tests::harness::{client, ports, wait};

/// Sets that change, each of a Service of its own.
const SETS: usize = 20;
/// Backends of each.
const BACKENDS: usize = 100;
/// Changes while the controller is away, each time.
const CHANGES: usize = 1000;

struct Site<'a> {
    system: Namespace<'a>,
    shop: Namespace<'a>,
    kubeconfig: PathBuf,
    api: Api,
    push: u16,
    /// Between the proxy and whichever controller listens.
    relay: Relay,
    proxy: Service,
    /// How often the endpoints of each set have changed.
    editions: [usize; SETS],
}

fn name(set: usize) -> String {
    format!("s{set:02}")
}

/// Those of a set differ from one edition to the next by all but one, and are of no other set.
fn members(set: usize, edition: usize) -> Vec<SocketAddr> {
    let third = u8::try_from(100 + set).expect("few sets");
    let last = |nth: usize| u8::try_from(nth + edition % 2 * (BACKENDS - 1) + 1).expect("within a /24");
    (0..BACKENDS).map(|nth| (Ipv4Addr::new(10, 244, third, last(nth)), 8080).into()).collect()
}

impl Site<'_> {
    fn controller(&self) -> Controller {
        let command = ControllerCommand::of_cluster(&self.kubeconfig).listening(self.push);
        command.in_namespace(&self.system).watching(&self.shop).start()
    }

    /// Changes the endpoints of these sets, in turn.
    fn change(&mut self, sets: &[usize]) {
        for number in 0..CHANGES {
            let set = sets[number % sets.len()];
            self.editions[set] += 1;
            move_to(&mut self.api, &name(set), &members(set, self.editions[set]));
        }
        // An odd number for each, or nothing would have changed in the end.
        for &set in sets.iter().filter(|_| (CHANGES / sets.len()).is_multiple_of(2)) {
            self.editions[set] += 1;
            move_to(&mut self.api, &name(set), &members(set, self.editions[set]));
        }
    }

    /// Waits until the proxy has the newest endpoints of every set.
    fn wait_for_newest(&self) {
        let newest = |set: usize| members(set, self.editions[set]).into_iter().collect::<BTreeSet<_>>();
        wait::until("the proxy should have the newest endpoints", || {
            let view = client::fetch(self.proxy.admin, "/api/v1/backends").ok()?.json();
            let all = view["pools"]
                .as_array()?
                .iter()
                .flat_map(|pool| pool["sets"].as_array().into_iter().flatten());
            let is_newest = |set: usize| {
                let name = name(set);
                let found = all.clone().find(|found| found["name"] == name.as_str())?;
                let backends = found["backends"].as_array()?.iter();
                let addresses: Option<BTreeSet<SocketAddr>> =
                    backends.map(|backend| backend["address"].as_str()?.parse().ok()).collect();
                (addresses? == newest(set)).then_some(())
            };
            (0..SETS).all(|set| is_newest(set).is_some()).then_some(())
        });
    }

    fn is_in_step(&self) -> bool {
        self.proxy.metric("weir_controller_connected") == 1
    }

    /// Kills the controller, lets what is given happen, starts the next one, and waits until the proxy has all of it.
    /// Returns the bytes that the next controller sent.
    fn away(&mut self, controller: Controller, meanwhile: impl FnOnce(&mut Self)) -> (Controller, u64) {
        controller.service.process.kill();
        wait::until("the proxy should notice", || (!self.is_in_step()).then_some(()));
        meanwhile(self);
        let before = self.relay.answered_bytes();
        let next = self.controller();
        wait::until("the proxy should be in step", || self.is_in_step().then_some(()));
        self.wait_for_newest();
        (next, self.relay.answered_bytes() - before)
    }
}

#[test]
fn a_controller_that_comes_back_sends_the_sets_that_changed_and_no_request_has_failed() {
    let cluster = Cluster::shared();
    let [system, shop] = ["weir", "shop"].map(|name| cluster.namespace(name));
    let kubeconfig = system.install_weir();
    let mut api = shop.api();
    let sound = SocketAddr::from((cluster.pod_address(), 8080));
    let _sample = sample("sound", sound);
    let names: Vec<_> = (0..SETS).map(name).collect();
    let services: Vec<_> = names.iter().map(String::as_str).chain(["sound"]).collect();
    let items: Vec<_> = services.iter().map(|name| service(name)).collect();
    shop.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": items }).to_string());
    api.create(Resource::Slice, &slice("sound", "sound", &[sound]));
    for set in 0..SETS {
        api.create(Resource::Slice, &slice(&name(set), &name(set), &members(set, 0)));
    }
    let port = ports::free();
    let rules: Vec<_> = names.iter().map(|name| rule(&format!("/{name}"), name)).collect();
    let rules = [vec![rule("/load", "sound")], rules].concat();
    api.create(Resource::Pool, &pool("shop", &[http(port)], &rules, &services));

    let push = ports::free();
    let relay = Relay::start(push);
    let proxy = Service::proxy(relay.port);
    let mut site = Site { system, shop, kubeconfig, api, push, relay, proxy, editions: [0; SETS] };
    let first = site.controller();
    site.proxy.wait_until_ready();
    site.wait_for_newest();
    let whole = site.relay.answered_bytes();
    wait_for_path(client::local(port), "/load", 200);
    let load = load(client::local(port));

    let (second, nothing) = site.away(first, |_| flow(&load));
    let (third, one) = site.away(second, |site| site.change(&[7]));
    flow(&load);
    let all: Vec<_> = (0..SETS).collect();
    let (_fourth, every) = site.away(third, |site| site.change(&all));
    flow(&load);
    let good = load.assert_no_failure();
    assert_eq!(site.proxy.metric("weir_snapshot_requests_total"), 0, "it was never out of step");

    // For people.
    #[allow(clippy::print_stdout, reason = "shown with --nocapture")]
    {
        println!(
            "bytes sent: {whole} at first; {nothing} to resume without a change, {one} after {CHANGES} changes of one \
             set, {every} after {CHANGES} changes of all {SETS}; {good} requests"
        );
    }
    let of_a_set = (every - nothing) / SETS as u64;
    assert!(nothing < whole / 10, "{nothing} bytes for nothing, {whole} for all");
    assert!(
        one > nothing && one - nothing < 2 * of_a_set,
        "{one} for one set, {of_a_set} each for all of them"
    );
    assert!(every < 2 * whole, "{every} for {CHANGES} changes, {whole} for all that there is");
}

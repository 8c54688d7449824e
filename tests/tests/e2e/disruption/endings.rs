//! Backends that are killed in the moment in which their endpoint goes away, and a little before.

use crate::objects::{http, move_to, pool, rule, service, slice};
use crate::resilience::load::{Client, End, Keeps, Load, Method, Shown};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use weir_tests::harness::cluster::{Api, Cluster, Resource};
use weir_tests::harness::controller::ControllerCommand;
use weir_tests::harness::ledger::Ledger;
use weir_tests::harness::process::Process;
use weir_tests::harness::services::Service;
use weir_tests::harness::{client, ports, wait};

const BACKENDS: usize = 3;
/// Of each kind of ending.
const ROUNDS: usize = 4;
/// Requests between two steps.
const STRETCH: usize = 100;
/// Of a POST, in bytes: more than one segment.
const BODY_BYTES: usize = 4 << 10;
/// Between two requests of one client.
const PAUSE: Duration = Duration::from_millis(2);
/// Requests until the cluster notices that a process has ended: about 100 ms of them.
const NOTICE: usize = 200;

/// How a backend and its endpoint end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    EndpointFirst,
    ProcessFirst,
    ProcessLongBefore,
}

/// Backends of a Service, the first of which ends and comes back.
struct Backends {
    api: Api,
    addresses: Vec<SocketAddr>,
    processes: Vec<Process>,
    ledger: Ledger,
}

impl Backends {
    fn end_one(&mut self, ending: Ending, load: &Load) {
        let process = self.processes.remove(0);
        let rest = &self.addresses[1..];
        match ending {
            Ending::EndpointFirst => {
                move_to(&mut self.api, "web", rest);
                process.kill();
            }
            Ending::ProcessFirst => {
                process.kill();
                move_to(&mut self.api, "web", rest);
            }
            Ending::ProcessLongBefore => {
                process.kill();
                load.flow(NOTICE);
                move_to(&mut self.api, "web", rest);
            }
        }
    }

    /// A process on the address of the one that ended; the next one to end is another.
    fn restart(&mut self) {
        self.processes.push(self.ledger.start_backend(self.addresses[0]));
        self.addresses.rotate_left(1);
        move_to(&mut self.api, "web", &self.addresses);
    }
}

fn clients() -> Vec<Client> {
    let kinds = [(Method::Get, 3), (Method::Post, 1)].into_iter().flat_map(|(method, count)| {
        let kept = (0..count).map(move |_| (method, Keeps::Connection));
        kept.chain((0..count).map(move |_| (method, Keeps::Nothing)))
    });
    let client = |(method, keeps)| Client { method, keeps, body_bytes: BODY_BYTES, pause: PAUSE };
    kinds.map(client).collect()
}

#[test]
fn a_backend_that_ends_with_its_endpoint_costs_no_get_and_loses_no_post_in_silence() {
    let cluster = Cluster::shared();
    let [system, shop] = ["weir", "shop"].map(|name| cluster.namespace(name));
    let kubeconfig = system.install_weir();
    let ledger = Ledger::open(&cluster.file(&format!("{}-ledger", shop.name)));
    let addresses: Vec<_> = (0..BACKENDS).map(|_| SocketAddr::from((cluster.pod_address(), 8080))).collect();
    let processes = addresses.iter().map(|&address| ledger.start_backend(address)).collect();
    let (mut api, port) = (shop.api(), ports::free());
    shop.apply(&service("web").to_string());
    api.create(Resource::Slice, &slice("web", "web", &addresses));
    api.create(Resource::Pool, &pool("shop", &[http(port)], &[rule("/", "web")], &["web"]));
    let controller = ControllerCommand::of_cluster(&kubeconfig).in_namespace(&system).watching(&shop).start();
    let proxy = Service::proxy(controller.push);
    proxy.wait_until_ready();
    let health = format!(
        "GET / HTTP/1.1\r\nHost: localhost\r\n{}: first\r\n\r\n",
        weir_tests::harness::ledger::ID_HEADER
    );
    wait::until("the pool should be served", || {
        client::Connection::open(port).ok()?.request(&health).ok().filter(|answer| answer.status == 200)
    });

    let mut backends = Backends { api, addresses, processes, ledger };
    let load = Load::start(port, &clients());
    for _ in 0..ROUNDS {
        for ending in [Ending::EndpointFirst, Ending::ProcessFirst, Ending::ProcessLongBefore] {
            load.flow(STRETCH);
            backends.end_one(ending, &load);
            load.flow(STRETCH);
            backends.restart();
        }
    }
    load.flow(STRETCH);
    judge(&load.stop(), &backends.ledger.executed());
}

fn judge(shown: &[Shown], executed: &BTreeMap<String, usize>) {
    let (mut gets, mut posts, mut refused) = (0, 0, 0);
    for Shown { id, method, end } in shown {
        let times = executed.get(id).copied().unwrap_or_default();
        match (method, end) {
            (Method::Get, End::Good) => gets += 1,
            (Method::Post, End::Good) => {
                posts += 1;
                assert_eq!(times, 1, "{id} was answered, and carried out {times} times");
            }
            // The proxy cannot know whether the backend had carried it out, and says so.
            (Method::Post, End::Refused { status: 502, reason: Some(reason) })
                if reason == "backend_closed" =>
            {
                refused += 1;
                assert!(times <= 1, "{id} was carried out {times} times");
            }
            _ => panic!("{id} {method:?} ended so, carried out {times} times: {end:?}"),
        }
    }
    // For people: how many there are is the moment's to say.
    #[allow(clippy::print_stdout, reason = "shown with --nocapture")]
    {
        println!(
            "{gets} good GET, {posts} good POST, {refused} POST told that they may have been carried out"
        );
    }
}

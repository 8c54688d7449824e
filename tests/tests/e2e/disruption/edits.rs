//! A thousand changes of every kind under open connections.

use super::open::{Sockets, Source, Streams};
use super::{flow, load, wait_for_path};
use crate::cluster::{sample, tls_secret};
use crate::objects::{http, move_to, pool, rule, service, slice};
use serde_json::{Value, json};
use std::net::SocketAddr;
use weir_tests::harness::authority::Authority;
use weir_tests::harness::cluster::{Api, Cluster, Namespace, Resource};
use weir_tests::harness::controller::ControllerCommand;
use weir_tests::harness::services::Service;
use weir_tests::harness::{certificates, client, ports, wait};

const CHANGES: usize = 1000;
/// Changes after which what was changed last is waited for.
const STRETCH: usize = 100;
const SOCKETS: usize = 500;
/// Over each of HTTP/1.1 and HTTP/2.
const STREAMS: usize = 25;
/// Rules that come and go.
const ROUTES: usize = 20;

struct Site<'a> {
    shop: Namespace<'a>,
    api: Api,
    web: [SocketAddr; 2],
    plain: u16,
    sealed: u16,
    authority: Authority,
    certificates: usize,
}

impl<'a> Site<'a> {
    fn new(system: &Namespace<'a>, shop: Namespace<'a>, web: [SocketAddr; 2], drip: SocketAddr) -> Self {
        let (mut api, plain, sealed) = (shop.api(), ports::free(), ports::free());
        for (name, addresses) in [("web", &web[..]), ("drip", &[drip])] {
            shop.apply(&service(name).to_string());
            api.create(Resource::Slice, &slice(name, name, addresses));
        }
        shop.let_controller_read("shop-tls", system);
        let mut site = Self { shop, api, web, plain, sealed, authority: Authority::new(), certificates: 0 };
        site.rotate();
        let listeners = site.listeners();
        site.api.create(Resource::Pool, &pool("shop", &listeners, &rules(0, "30s"), &["web", "drip"]));
        site
    }

    fn listeners(&self) -> [Value; 2] {
        let tls = json!({ "certificateRefs": [{ "name": "shop-tls" }] });
        let https = json!({ "name": "https", "port": self.sealed, "protocol": "HTTPS", "tls": tls });
        [http(self.plain), https]
    }

    /// The next certificate.
    fn rotate(&mut self) {
        self.certificates += 1;
        let pair = self.authority.issue(&format!("shop-{}", self.certificates), &["localhost"]);
        self.shop.apply(&tls_secret("shop-tls", &pair));
    }

    /// One change: of endpoints mostly, as in a cluster.
    fn change(&mut self, number: usize) {
        let [one, two] = &self.web;
        match number % 10 {
            0 | 5 => move_to(&mut self.api, "web", [one]),
            1 | 6 => move_to(&mut self.api, "web", [two]),
            2 | 7 => move_to(&mut self.api, "web", [two, one]),
            3 => self.edit(number, "29s"),
            8 => self.edit(number, "30s"),
            4 => self.api.create(Resource::Pool, &self.neighbour(number)),
            _ => self.api.delete(Resource::Pool, &format!("neighbour-{}", number - 5)),
        }
        if number.is_multiple_of(STRETCH / 2) {
            self.rotate();
        }
    }

    /// Routes added, removed and edited.
    fn edit(&mut self, number: usize, timeout: &str) {
        let patch = json!({ "spec": { "rules": rules(number, timeout) } });
        self.api.patch(Resource::Pool, "shop", &patch);
    }

    /// Another pool on the same port.
    fn neighbour(&self, number: usize) -> Value {
        let mut listener = http(self.plain);
        listener["hostnames"] = json!([format!("n{number}.example.org")]);
        pool(&format!("neighbour-{number}"), &[listener], &[rule("/", "web")], &["web"])
    }
}

/// Those that are always there, and some that come, go and change with the number.
fn rules(number: usize, timeout: &str) -> Vec<Value> {
    let moving = (0..number % ROUTES).map(|nth| format!("/{number}/{nth}")).chain([format!("/at/{number}")]);
    let moving = moving.map(|path| rule(&path, "web"));
    let mut rules: Vec<_> = [rule("/load", "web"), rule("/chat", "web"), rule("/drip", "drip")].into();
    rules.extend(moving);
    for rule in &mut rules {
        // A response that flows has none.
        rule["timeouts"] = json!({ "request": timeout });
    }
    rules
}

#[test]
fn a_thousand_changes_close_no_websocket_end_no_stream_and_fail_no_request() {
    let cluster = Cluster::shared();
    let [system, shop] = ["weir", "shop"].map(|name| cluster.namespace(name));
    let kubeconfig = system.install_weir();
    let at = || SocketAddr::from((cluster.pod_address(), 8080));
    let (web, drip) = ([at(), at()], at());
    let _samples = [sample("one", web[0]), sample("two", web[1])];
    let source = Source::start(drip);
    let mut site = Site::new(&system, shop, web, drip);
    let controller = ControllerCommand::of_cluster(&kubeconfig).in_namespace(&system).watching(&site.shop);
    let controller = controller.start();
    let proxy = Service::proxy(controller.push);
    proxy.wait_until_ready();
    let server = client::local(site.plain);
    wait_for_path(server, "/load", 200);

    let mut sockets = Sockets::open(server, "/chat", SOCKETS);
    sockets.assert_echo("at first");
    let mut streams = Streams::default();
    streams.http1(server, "/drip", STREAMS);
    streams.http2(server, "/drip", STREAMS);
    for version in ["--http1.1", "--http2"] {
        streams.curl(&format!("https://localhost:{}/drip", site.sealed), version);
    }
    source.wait_for(2 * STREAMS + 2);
    let load = load(server);
    let versions = || proxy.metric("weir_config_version");
    let before = versions();

    for number in 0..CHANGES {
        site.change(number);
        if number % STRETCH == STRETCH - 2 {
            wait_for_path(server, &format!("/at/{}", number), 200);
            flow(&load);
        }
    }
    let last = format!("CN=shop-{}", site.certificates);
    wait::until("the last certificate should be shown", || {
        (certificates::subject(site.sealed, "localhost") == last).then_some(())
    });
    let applied = versions() - before;
    assert!(applied > (CHANGES / STRETCH) as u64, "{applied} versions came into force");
    assert_eq!(source.responses(), (2 * STREAMS + 2, 2 * STREAMS + 2), "none ended and none began anew");
    sockets.assert_echo("at last");
    source.end();
    assert_eq!(streams.assert_whole(), 2 * STREAMS + 2);
    let good = load.assert_no_failure();
    // For people.
    #[allow(clippy::print_stdout, reason = "shown with --nocapture")]
    {
        println!("{CHANGES} changes, {applied} versions in force, {good} requests");
    }
}

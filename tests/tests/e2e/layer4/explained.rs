//! What `weir explain` says of connections and flows is where they go: by manifests, at a controller, at a proxy.

use super::policies::connect_from;
use super::tls::{Passing, terminating};
use super::udp::{self, Server};
use super::{Site, is_reset, named, read};
use crate::explain::{candidates, explain, told};
use serde_json::Value;
use weir_tests::harness::certificates::{secret, subject};
use weir_tests::harness::client::{fetch, local};
use weir_tests::harness::folder::Folder;
use weir_tests::harness::services::Service;
use weir_tests::harness::{ports, wait};

const NAMES: [&str; 3] = ["one", "two", "six"];

/// Listeners of TCP, by their names, each with a rule of its own text.
const LISTENERS: [(&str, &str); 5] = [
    ("hashed", "backendSets: [{ name: hashed }]"),
    ("kept", "sessionPersistence: { type: SourceIP }, backendSets: [{ name: all }]"),
    ("split", "backendSets: [{ name: all, weight: 3 }, { name: first, weight: 1 }]"),
    ("denied", "ipRules: { allow: [127.0.0.0/8], deny: [127.0.0.0/29] }, backendSets: [{ name: all }]"),
    ("empty", "backendSets: [{ name: none }]"),
];

/// A proxy with those listeners over servers of those names.
struct Raw {
    /// Of the listeners.
    ports: Vec<u16>,
    /// Of the servers.
    servers: [u16; 3],
    folder: Folder,
    weir: Service,
}

impl Raw {
    fn start() -> Self {
        let (ports, servers) = (LISTENERS.map(|_| ports::free()).to_vec(), NAMES.map(named));
        let folder = Folder::new();
        folder.write("pool.yaml", &manifest(&ports, &servers));
        let weir = Service::standalone(folder.path(), &[]);
        Self { ports, servers, folder, weir }
    }

    fn port(&self, listener: &str) -> u16 {
        let at = LISTENERS.iter().position(|(name, _)| *name == listener).expect("one of them");
        self.ports[at]
    }

    /// Manifests, the controller, and the proxy, as flags name them.
    fn sources(&self) -> [[String; 2]; 3] {
        sources(&self.folder, &self.weir)
    }

    /// Holds what is told of a connection against what becomes of it.
    fn compare(&self, (told, code): &(Value, i32), listener: &str, source: u8) {
        let case = format!("{listener} from 127.0.0.{source}: {told:#}");
        let client = connect_from(source, self.port(listener));
        if told["answer"]["turned_away"] == "reset" {
            assert_eq!(*code, 1, "{case}");
            assert!(is_reset(&client), "{case}");
            return;
        }
        assert_eq!((*code, &told["answer"]["by"]), (0, &"backend".into()), "{case}");
        let name = read(&client, 3);
        let at = NAMES.iter().position(|own| *own == name).expect("one of the servers");
        is_right(told, &format!("127.0.0.1:{}", self.servers[at]), &case);
    }
}

/// The backend that is named, or one of those that may be.
fn is_right(told: &Value, address: &str, case: &str) {
    match told["backend"]["address"].as_str() {
        Some(decided) => assert_eq!(decided, address, "{case}"),
        None => assert!(candidates(told).iter().any(|own| own == address), "{case}"),
    }
}

fn sources(folder: &Folder, weir: &Service) -> [[String; 2]; 3] {
    let admin = format!("http://{}", local(weir.admin));
    let path = folder.path().to_str().expect("text").to_owned();
    [["--folder".to_owned(), path], ["--controller".to_owned(), admin.clone()], ["--proxy".to_owned(), admin]]
}

fn manifest(ports: &[u16], servers: &[u16]) -> String {
    let named = || LISTENERS.iter().zip(ports);
    let listeners =
        named().map(|((name, _), port)| format!("{{ name: {name}, port: {port}, protocol: TCP }}"));
    let rules = named().map(|((name, rule), _)| format!("{{ listeners: [{name}], {rule} }}"));
    let backends =
        |ports: &[u16]| ports.iter().map(|port| format!("{{ address: 127.0.0.1, port: {port} }}")).collect();
    let set = |name: &str, ports: &[u16], more: &str| {
        let backends: Vec<String> = backends(ports);
        format!("{{ name: {name}, {more} static: {{ backends: [{}] }} }}", backends.join(", "))
    };
    let by_source = "loadBalancing: { algorithm: ConsistentHash, \
                     consistentHash: { key: SourceIP, maxLoadPercent: 0 } },";
    let sets = [
        set("hashed", servers, by_source),
        set("all", servers, ""),
        set("first", &servers[..1], ""),
        set("none", &[], ""),
    ];
    format!(
        "apiVersion: weir.dev/v1alpha1\nkind: LoadBalancerPool\nmetadata: {{ name: raw, namespace: default }}\nspec: {{ \
         listeners: [{}],\n rules: [{}],\n backendSets: [{}] }}\n",
        listeners.collect::<Vec<_>>().join(", "),
        rules.collect::<Vec<_>>().join(", "),
        sets.join(", ")
    )
}

/// What is told of a URL for a client at this address.
fn asked(url: &str, source: u8, of: &[String; 2]) -> (Value, i32) {
    let arguments = [url.to_owned(), "--source".to_owned(), format!("127.0.0.{source}")];
    told(&arguments, &[&of[0], &of[1]])
}

#[test]
fn what_is_explained_is_where_connections_go() {
    let raw = Raw::start();
    for (listener, _) in LISTENERS {
        let url = format!("tcp://cache.example:{}", raw.port(listener));
        for source in [2, 5, 9, 12] {
            let [offline, live, serving] = raw.sources().map(|of| asked(&url, source, &of));
            assert_eq!(live, offline, "the controller and the manifests are of one word");
            raw.compare(&offline, listener, source);
            raw.compare(&serving, listener, source);
        }
    }
    let url = format!("tcp://cache.example:{}", raw.port("kept"));
    let (serving, _) = asked(&url, 2, &raw.sources()[2]);
    assert_eq!(serving["backend"]["decided_by"], "session", "the proxy remembers: {serving:#}");
}

#[test]
fn a_question_connects_nowhere_and_counts_nothing() {
    let raw = Raw::start();
    for (listener, _) in LISTENERS {
        let [.., proxy] = raw.sources();
        asked(&format!("tcp://cache.example:{}", raw.port(listener)), 2, &proxy);
    }
    for metric in ["weir_layer4_connections_total", "weir_upstream_connects_total"] {
        assert_eq!(raw.weir.metric(metric), 0, "{metric}");
    }
    for reason in ["ip_denied", "no_backend"] {
        assert_eq!(raw.weir.metric_of("weir_layer4_failures_total", &format!("reason=\"{reason}\"")), 0);
    }
    let (told, _) = asked(&format!("tcp://a:{}", raw.port("kept")), 2, &raw.sources()[2]);
    assert_eq!(told["backend"]["decided_by"], "session_start", "nothing is remembered: {told:#}");
}

#[test]
fn what_is_explained_is_where_names_lead() {
    let passing = Passing::start();
    let (port, [one, two]) = (passing.site.port, &passing.servers);
    for of in sources(&passing.site.folder, &passing.site.weir) {
        for (name, server, shows) in [
            ("one.example", one, "CN=one"),
            ("a.two.example", two, "CN=two"),
            ("B.a.two.example", two, "CN=two"),
        ] {
            let (told, code) = asked(&format!("tls://{name}:{port}"), 1, &of);
            assert_eq!(
                (code, &told["backend"]["address"]),
                (0, &format!("127.0.0.1:{}", server.port).into()),
                "{told:#}"
            );
            assert_eq!(subject(port, name), shows, "{name}");
        }
        for name in ["three.example", "127.0.0.1"] {
            let (told, code) = asked(&format!("tls://{name}:{port}"), 1, &of);
            assert_eq!((code, &told["answer"]["turned_away"]), (1, &"unrecognized_name".into()), "{told:#}");
        }
    }
}

#[test]
fn tls_that_ends_here_is_explained_by_the_name_in_its_handshake() {
    let (port, folder) = (ports::free(), Folder::new());
    let backend = named("one");
    let text =
        terminating("ends", port, "", backend).replace("rules: [{", "rules: [{ hostnames: [four.example],");
    folder.write("pool.yaml", &text);
    folder.write("secret.yaml", &secret("own", "own", &["four.example"]));
    let weir = Service::standalone(folder.path(), &[]);
    for of in sources(&folder, &weir) {
        let (told, code) = asked(&format!("tls://four.example:{port}"), 1, &of);
        assert_eq!((code, &told["listener"]["tls_mode"]), (0, &"Terminate".into()), "{told:#}");
        is_right(&told, &format!("127.0.0.1:{backend}"), &format!("{told:#}"));
        let (told, code) = asked(&format!("tls://other.example:{port}"), 1, &of);
        assert_eq!((code, &told["answer"]["turned_away"]), (1, &"reset".into()), "{told:#}");
    }
    let shown = subject(port, "four.example");
    assert!(!shown.is_empty(), "a handshake");
    wait::until("a backend should have taken it", || {
        (weir.metric("weir_layer4_connections_total") == 1).then_some(())
    });
    assert_eq!(subject(port, "other.example"), shown, "the handshake itself succeeds");
    wait::until("nobody should have taken it", || {
        (weir.metric_of("weir_layer4_failures_total", "reason=\"no_route\"") == 1).then_some(())
    });
}

#[test]
fn what_is_explained_is_where_datagrams_go() {
    let servers = NAMES.map(Server::start);
    let Site { port, weir, folder } =
        udp::start(&servers.each_ref().map(|own| own.port), &super::Text::default(), &[]);
    for source in [2, 5, 9, 12, 77] {
        let heard = udp::ask(&udp::client(source, port), "who");
        let at = NAMES.iter().position(|name| heard == format!("{name} who")).expect("one of the servers");
        for of in sources(&folder, &weir) {
            let (told, code) = asked(&format!("udp://names.example:{port}"), source, &of);
            assert_eq!((code, &told["backend"]["decided_by"]), (0, &"hash".into()), "{told:#}");
            is_right(&told, &format!("127.0.0.1:{}", servers[at].port), &format!("{told:#}"));
        }
    }
}

#[test]
fn the_administration_of_a_proxy_answers_what_the_command_prints() {
    let raw = Raw::start();
    let port = raw.port("hashed");
    let [.., proxy] = raw.sources();
    let (said, _) = asked(&format!("tcp://cache.example:{port}"), 7, &proxy);
    let url = format!("/api/v1/explain?url=tcp%3A%2F%2Fcache.example%3A{port}&source=127.0.0.7");
    let answer = fetch(raw.weir.admin, &url).expect("an answer");
    assert_eq!((answer.status, answer.json()), (200, said));
    for (query, want) in [
        ("url=tcp://cache.example", "has no port"),
        ("url=tcp://cache.example:1&method=GET", "has no method"),
        ("url=udp://cache.example:1&header=a:b", "has no headers"),
        ("url=tls://cache.example:1/a", "has no path"),
    ] {
        let answer = fetch(raw.weir.admin, &format!("/api/v1/explain?{query}")).expect("an answer");
        assert_eq!(answer.status, 400, "{query}");
        assert!(answer.text().contains(want), "{query}: {}", answer.text());
    }
}

#[test]
fn wrong_questions_of_layer_4_are_said_with_what_to_do() {
    let raw = Raw::start();
    let [folder, ..] = raw.sources();
    let port = raw.port("hashed");
    for (arguments, code, want) in [
        (vec!["tcp://a".to_owned()], 2, "has no port"),
        (vec!["GET".to_owned(), "tcp://a:1".to_owned()], 2, "has no method"),
        (vec!["tcp://a:1/b".to_owned()], 2, "has no path"),
        (vec!["tls://a:1".to_owned(), "-H".to_owned(), "a: b".to_owned()], 2, "has no headers"),
        (vec![format!("http://a:{port}/")], 1, "speaks plain TCP, and the URL says http://: ask tcp://"),
        (vec![format!("udp://a:{port}")], 1, "speaks plain TCP alone, and the URL says udp://: ask tcp://"),
        (vec![format!("tcp://a:{}", ports::free())], 1, "no listener has port"),
    ] {
        let ended = explain(&arguments, &[&folder[0], &folder[1]]);
        assert_eq!(ended.status.code(), Some(code), "{arguments:?}: {ended:?}");
        let said = if code == 2 { &ended.stderr } else { &ended.stdout };
        assert!(said.contains(want), "{arguments:?}: {said}");
    }
}

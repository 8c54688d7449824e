//! What `weir explain` says is where the running proxy really sends requests: by manifests, at a controller, at a proxy.

use serde_json::Value;
use std::path::Path;
use std::process::Command;
use weir_tests::harness::client::{Answer, Connection};
use weir_tests::harness::controller::ControllerCommand;
use weir_tests::harness::folder::Folder;
use weir_tests::harness::process::{Ended, Process};
use weir_tests::harness::services::{READY, Samples, Service, wait_for_status};
use weir_tests::harness::{binaries, client, ports, tools, wait};

const BACKENDS: usize = 8;

/// A proxy of a shop, and what explanations of it need.
struct Site {
    port: u16,
    folder: Folder,
    samples: Samples,
    weir: Service,
}

fn manifest(port: u16, backends: &[u16]) -> String {
    let set = |ports: &[u16]| {
        let of = |port: &u16| format!("{{ address: 127.0.0.1, port: {port} }}");
        format!("static: {{ backends: [{}] }}", ports.iter().map(of).collect::<Vec<_>>().join(", "))
    };
    let (plain, hashed, other) = (set(&backends[..2]), set(&backends[2..6]), set(&backends[6..7]));
    let hash = |key: &str| {
        format!("loadBalancing: {{ algorithm: ConsistentHash, consistentHash: {{ {key} }} }}, {hashed}")
    };
    let (header, cookie) = (hash("key: Header, name: X-User"), hash("key: Cookie, name: user"));
    let (query, source, host) = (hash("key: Query, name: user"), hash("key: SourceIP"), hash("key: Host"));
    let spare = set(&backends[7..8]);
    format!(
        "apiVersion: weir.dev/v1alpha1
kind: LoadBalancerPool
metadata: {{ name: shop, namespace: default }}
spec:
  listeners:
    - {{ name: http, port: {port}, protocol: HTTP }}
  rules:
    - name: beta
      matches:
        - {{ path: {{ value: /api }}, headers: [{{ name: X-Beta, value: \"yes\" }}] }}
        - {{ path: {{ type: RegularExpression, value: \"/v[0-9]+/.*\" }}, method: GET }}
        - {{ path: {{ type: Exact, value: /exact }}, queryParams: [{{ name: a, value: \"1\" }}] }}
      backendSets: [{{ name: other }}]
    - name: api
      matches: [{{ path: {{ value: /api }} }}]
      filters:
        - {{ type: URLRewrite, urlRewrite: {{ path: {{ type: ReplacePrefixMatch, replacePrefixMatch: /inner }} }} }}
        - {{ type: RequestHeaderModifier, requestHeaderModifier: {{ set: [{{ name: X-User, value: set }}] }} }}
        - {{ type: RequestValidation, requestValidation: {{ methods: [GET, POST] }} }}
      backendSets: [{{ name: header }}]
    - {{ matches: [{{ path: {{ value: /header }} }}], backendSets: [{{ name: header }}] }}
    - {{ matches: [{{ path: {{ value: /cookie }} }}], backendSets: [{{ name: cookie }}] }}
    - {{ matches: [{{ path: {{ value: /query }} }}], backendSets: [{{ name: query }}] }}
    - {{ matches: [{{ path: {{ value: /source }} }}], backendSets: [{{ name: source }}] }}
    - {{ matches: [{{ path: {{ value: /host }} }}], backendSets: [{{ name: host }}] }}
    - matches: [{{ path: {{ value: /sticky }} }}]
      sessionPersistence: {{ type: Header, sessionName: X-User }}
      backendSets: [{{ name: plain }}]
    - matches: [{{ path: {{ value: /kept }} }}]
      sessionPersistence: {{ type: Cookie }}
      backendSets: [{{ name: plain }}]
    - matches: [{{ path: {{ value: /split }} }}]
      backendSets: [{{ name: plain }}, {{ name: other, matches: [{{ type: Cookie, name: canary }}] }}]
    - matches: [{{ path: {{ value: /moved }} }}]
      filters: [{{ type: RequestRedirect, requestRedirect: {{ hostname: new.test, statusCode: 308 }} }}]
    - matches: [{{ path: {{ value: /said }} }}]
      filters: [{{ type: DirectResponse, directResponse: {{ status: 418, body: tea }} }}]
    - {{ matches: [{{ path: {{ value: /denied }} }}], ipRules: {{ deny: [127.0.0.0/8] }}, backendSets: [{{ name: plain }}] }}
    - {{ matches: [{{ path: {{ value: /small }} }}], limits: {{ requestBodyBytes: 2 }}, backendSets: [{{ name: plain }}] }}
    - {{ matches: [{{ path: {{ value: /none }} }}], backendSets: [{{ name: none }}] }}
    - {{ matches: [{{ path: {{ value: /rescued }} }}], backendSets: [{{ name: none }}, {{ name: spare }}] }}
    - {{ hostnames: [\"*.test\"], matches: [{{ path: {{ value: /wild }} }}], backendSets: [{{ name: spare }}] }}
  backendSets:
    - {{ name: plain, {plain} }}
    - {{ name: header, {header} }}
    - {{ name: cookie, {cookie} }}
    - {{ name: query, {query} }}
    - {{ name: source, {source} }}
    - {{ name: host, {host} }}
    - {{ name: other, {other} }}
    - {{ name: spare, {spare} }}
    - {{ name: none, static: {{ backends: [] }} }}
{}",
        secure(port, &plain)
    )
}

/// Another pool on the same port, whose clients are to come over HTTPS.
fn secure(port: u16, plain: &str) -> String {
    format!(
        "---
apiVersion: weir.dev/v1alpha1
kind: LoadBalancerPool
metadata: {{ name: secure, namespace: default }}
spec:
  listeners: [{{ name: http, port: {port}, protocol: HTTP, hostnames: [secure.test], httpsRedirect: {{}} }}]
  rules: [{{ backendSets: [{{ name: plain }}] }}]
  backendSets: [{{ name: plain, {plain} }}]
"
    )
}

impl Site {
    fn start() -> Self {
        let (port, folder, samples) = (ports::free(), Folder::new(), Samples::start("shop", BACKENDS));
        folder.write("pool.yaml", &manifest(port, &samples.ports));
        let weir = Service::standalone(folder.path(), &[]);
        Self { port, folder, samples, weir }
    }

    fn flags_of(&self, asked: &Asked) -> Vec<String> {
        let mut flags =
            vec![asked.method.to_owned(), format!("http://{}:{}{}", asked.host, self.port, asked.target)];
        flags.extend(asked.headers.iter().flat_map(|header| ["-H".to_owned(), (*header).to_owned()]));
        flags
    }

    fn ask(&self, asked: &Asked) -> Answer {
        let Asked { method, host, target, headers } = asked;
        let port = self.port;
        let mut text = format!("{method} {target} HTTP/1.1\r\nHost: {host}:{port}\r\n");
        headers.iter().for_each(|header| text.push_str(&format!("{header}\r\n")));
        text.push_str("\r\n");
        let is_long = headers.contains(&"Content-Length: 3");
        text.push_str(if is_long { "abc" } else { "" });
        Connection::open(port).expect("serves").request(&text).expect("an answer")
    }

    /// The address of the backend that answered.
    fn address(&self, answer: &Answer) -> String {
        let json = answer.json();
        let number = json["name"].as_str().and_then(|name| name.rsplit('-').next()).expect("a sample");
        let at: usize = number.parse().expect("a number");
        format!("127.0.0.1:{}", self.samples.ports[at - 1])
    }

    fn folder(&self) -> [&str; 2] {
        ["--folder", self.folder.path().to_str().expect("text")]
    }

    fn admin(&self) -> String {
        format!("http://{}", client::local(self.weir.admin))
    }

    /// Holds what is told of a request against what becomes of it.
    fn compare(&self, told: &Value, asked: &Asked) {
        let answer = self.ask(asked);
        let case = format!("{asked:?}: {told:#}\n{} {}", answer.status, answer.text());
        if let Some(status) = told["answer"]["status"].as_u64() {
            assert_eq!(u64::from(answer.status), status, "{case}");
            assert_eq!(told["answer"]["location"].as_str(), answer.header("location"), "{case}");
            assert_eq!(told["answer"]["reason"].as_str(), answer.header("x-weir-reason"), "{case}");
            return;
        }
        assert_eq!((answer.status, &told["answer"]["by"]), (200, &"backend".into()), "{case}");
        let address = self.address(&answer);
        match told["backend"]["address"].as_str() {
            Some(decided) => assert_eq!(decided, address, "{case}"),
            None => assert!(candidates(told).contains(&address), "{case}"),
        }
        let upstream = &told["upstream"];
        let seen = &answer.json()["request"];
        let path = seen["path"].as_str().expect("a path");
        let query = seen["query"].as_str().filter(|query| !query.is_empty());
        let target = query.map_or(path.to_owned(), |query| format!("{path}?{query}"));
        assert_eq!(upstream["target"].as_str(), Some(&*target), "{case}");
        for header in upstream["headers_set"].as_array().expect("a list") {
            let name = header["name"].as_str().expect("text");
            assert_eq!(seen["headers"][name], header["value"], "{name}: {case}");
        }
    }
}

/// Addresses of backends that may get the request.
pub(crate) fn candidates(told: &Value) -> Vec<String> {
    let sets =
        told["sets"].as_array().expect("a list").iter().filter(|set| set["share"].as_f64() > Some(0.0));
    let backends = sets.flat_map(|set| set["backends"].as_array().expect("a list"));
    let may = backends.filter(|backend| backend["probability"].as_f64() > Some(0.0));
    may.map(|backend| backend["address"].as_str().expect("text").to_owned()).collect()
}

#[derive(Debug)]
struct Asked {
    method: &'static str,
    host: &'static str,
    target: &'static str,
    headers: &'static [&'static str],
}

const fn get(target: &'static str, headers: &'static [&'static str]) -> Asked {
    Asked { method: "GET", host: "shop.test", target, headers }
}

/// With the code that the explanation ends with.
const CASES: [(Asked, i32); 33] = [
    (get("/api/x?y=1", &[]), 0),
    (get("/api/x", &["X-Beta: yes"]), 0),
    (get("/api/../api//x/%61", &["X-Beta: no"]), 0),
    (get("/v2/any", &[]), 0),
    (Asked { method: "POST", ..get("/v2/any", &[]) }, 1),
    (get("/exact?a=1", &[]), 0),
    (get("/exact?a=2", &[]), 1),
    (Asked { method: "PATCH", ..get("/api", &[]) }, 0),
    (get("/header", &["X-User: anna"]), 0),
    (get("/header", &["X-User: bert"]), 0),
    (get("/header", &["X-User: carl"]), 0),
    (get("/header", &[]), 0),
    (get("/cookie", &["Cookie: a=b; user=anna"]), 0),
    (get("/cookie", &["Cookie: a=b; user=dora"]), 0),
    (get("/query?user=anna&x=1", &[]), 0),
    (get("/query?user=emil", &[]), 0),
    (get("/source", &[]), 0),
    (get("/host", &[]), 0),
    (Asked { host: "other.test", ..get("/host", &[]) }, 0),
    (get("/sticky", &["X-User: anna"]), 0),
    (get("/sticky", &["X-User: bert"]), 0),
    (get("/sticky", &[]), 0),
    (get("/kept", &[]), 0),
    (get("/split", &[]), 0),
    (get("/split", &["Cookie: canary=1"]), 0),
    (get("/moved?a=b", &[]), 0),
    (get("/said", &[]), 0),
    (get("/denied", &[]), 0),
    (Asked { method: "POST", ..get("/small", &["Content-Length: 3"]) }, 0),
    (get("/none", &[]), 1),
    (get("/rescued", &[]), 0),
    (Asked { host: "a.b.test", ..get("/wild", &[]) }, 0),
    (Asked { host: "secure.test", ..get("/api?a=b", &[]) }, 0),
];

pub(crate) fn explain(arguments: &[String], of: &[&str]) -> Ended {
    let mut command = Command::new(binaries::path("weir"));
    command.env_remove("HOME").env_remove("KUBECONFIG");
    Process::start(command.arg("explain").args(arguments).args(of)).wait()
}

pub(crate) fn told(arguments: &[String], of: &[&str]) -> (Value, i32) {
    let ended = explain(arguments, &[of, &["-o", "json"]].concat());
    let told = serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
    (told, ended.status.code().expect("it ends by itself"))
}

#[test]
fn what_is_explained_is_where_requests_go() {
    let site = Site::start();
    let admin = site.admin();
    for (at, (asked, code)) in CASES.iter().enumerate() {
        let flags = site.flags_of(asked);
        let (offline, ended) = told(&flags, &site.folder());
        assert_eq!(ended, *code, "{asked:?}: {offline:#}");
        site.compare(&offline, asked);
        if at % 4 == 0 {
            let live = told(&flags, &["--controller", &admin]);
            assert_eq!(live, (offline, *code), "{asked:?} at the controller");
        }
        let (serving, ended) = told(&flags, &["--proxy", &admin]);
        assert_eq!(ended, *code, "{asked:?}: {serving:#}");
        site.compare(&serving, asked);
    }
}

#[test]
fn requests_that_the_strict_parser_refuses_are_explained_as_refused() {
    let site = Site::start();
    for (target, status) in [("/a%2Fb", 400), ("/../..", 400), ("/%zz", 400)] {
        let asked = get(target, &[]);
        let (told, code) = told(&site.flags_of(&asked), &site.folder());
        assert_eq!((code, &told["answer"]["status"]), (1, &status.into()), "{told:#}");
        site.compare(&told, &asked);
    }
}

#[test]
fn a_proxy_knows_where_the_session_of_a_cookie_is_at_home() {
    let site = Site::start();
    let admin = site.admin();
    for _ in 0..4 {
        let first = site.ask(&get("/kept", &[]));
        let home = site.address(&first);
        let cookie =
            first.header("set-cookie").and_then(|cookie| cookie.split(';').next()).expect("a session");
        let mut flags = site.flags_of(&get("/kept", &[]));
        flags.extend(["-H".to_owned(), format!("Cookie: {cookie}; mine=1")]);
        let (serving, _) = told(&flags, &["--proxy", &admin]);
        assert_eq!(serving["backend"]["address"].as_str(), Some(&*home), "{serving:#}");
        assert_eq!(serving["backend"]["decided_by"], "session");
        assert!(!serving.to_string().contains(cookie), "what a client sends is not repeated");
        let (offline, _) = told(&flags, &site.folder());
        let state = offline["session"]["state"].as_str().expect("text");
        assert!(offline["backend"].is_null() && state.contains("ask one with --proxy"), "{offline:#}");
    }
}

#[test]
fn a_proxy_knows_which_backends_are_unhealthy() {
    let (port, folder, samples) = (ports::free(), Folder::new(), Samples::start("checked", BACKENDS));
    let gone = ports::free();
    let text = manifest(port, &samples.ports);
    let check =
        "healthCheck: { active: { tcp: {}, interval: 200ms, timeout: 200ms, unhealthyThreshold: 1 } }";
    let text = text.replace("spec:\n", &format!("spec:\n  {check}\n"));
    let from =
        format!("{{ name: spare, static: {{ backends: [{{ address: 127.0.0.1, port: {} }}", samples.ports[7]);
    assert!(text.contains(&from), "{text}");
    let to = format!("{from}, {{ address: 127.0.0.1, port: {gone} }}");
    folder.write("pool.yaml", &text.replace(&from, &to));
    let weir = Service::standalone(folder.path(), &[]);
    let admin = format!("http://{}", client::local(weir.admin));
    let flags = [format!("http://a.test:{port}/wild")];
    let told = wait::until("the check should fail", || {
        let (told, _) = told(&flags, &["--proxy", &admin]);
        told["backend"].is_object().then_some(told)
    });
    assert_eq!(told["backend"]["decided_by"], "only");
    let backends = told["sets"][0]["backends"].as_array().expect("a list");
    let mut available: Vec<_> = backends.iter().map(|backend| backend["available"].as_bool()).collect();
    available.sort_unstable();
    assert_eq!(available, [Some(false), Some(true)], "{told:#}");
}

/// Another process, and another protocol: the keys of a listener stay with the controller.
#[test]
fn a_controller_explains_https_without_giving_its_keys_away() {
    let mut replace: Vec<_> = [8080, 8443, 9101, 9102, 9103, 9104]
        .map(|port| (format!("port: {port}"), format!("port: {}", ports::free())))
        .into();
    let https = ports::free();
    replace[1].1 = format!("port: {https}");
    let folder = Folder::copy_of_example("quickstart", &replace);
    let controller = ControllerCommand::of_folder(folder.path()).start();
    wait_for_status(controller.service.admin, READY, 200);
    let admin = format!("http://{}", client::local(controller.service.admin));
    let flags = [format!("https://api.localhost:{https}/x")];
    let (live, code) = told(&flags, &["--controller", &admin]);
    assert_eq!(
        (code, &live["listener"]["protocol"]),
        (1, &Value::Null),
        "a controller makes up no certificates"
    );
    let weir = Service::standalone(folder.path(), &[]);
    let admin = format!("http://{}", client::local(weir.admin));
    let (live, code) = told(&flags, &["--controller", &admin]);
    assert_eq!((code, &live["listener"]["protocol"]), (0, &"HTTPS".into()), "{live:#}");
    let compiled = client::fetch(weir.admin, "/api/v1/compiled").expect("an answer").json();
    assert_eq!(compiled["pools"].as_array().map(Vec::len), Some(1), "{compiled}");
    let (offline, _) = told(&flags, &["--folder", folder.path().to_str().expect("text")]);
    assert_eq!(live, offline);
    let url = format!("https://127.0.0.1:{https}/x");
    let said = tools::curl(["-sSk", "-H", "Host: api.localhost", &url]);
    let body: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(live["backend"]["address"], body["address"], "{live:#} {body}");
}

#[test]
fn what_cannot_be_asked_is_said_with_what_to_do() {
    let folder = Folder::new();
    folder.write("pool.yaml", &manifest(8080, &[1, 2, 3, 4, 5, 6, 7, 8]));
    let path = folder.path().to_str().expect("text");
    let nobody = format!("http://{}", client::local(ports::free()));
    let gone = folder.file("gone");
    let gone = gone.to_str().expect("text");
    for (arguments, want) in [
        (&["http://a.test/"][..], "--folder"),
        (&["a.test", "-f", path], "does not begin with http://"),
        (&["G T", "http://a.test/", "-f", path], "is not a method"),
        (&["http://a b/", "-f", path], "is not a URL"),
        (&["http://a.test/", "-H", "no colon", "-f", path], "is not of the form 'Name: value'"),
        (&["http://a.test/", "--source", "1.2.3", "-f", path], "--source"),
        (&["http://a.test/", "--port", "70000", "-f", path], "--port"),
        (&["http://a.test/", "-f", gone], "gone"),
        (&["http://a.test/", "--controller", &nobody], "nothing answers at"),
        (&["http://a.test/", "--proxy", &nobody], "nothing answers at"),
    ] {
        let arguments: Vec<_> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let ended = explain(&arguments, &[]);
        assert_eq!(ended.status.code(), Some(2), "{arguments:?}: {ended:?}");
        assert!(ended.stderr.contains(want), "{arguments:?}: {}", ended.stderr);
    }
    folder.write(
        "bad.yaml",
        "apiVersion: weir.dev/v1alpha1\nkind: LoadBalancerPool\nmetadata: { name: bad }\nspec: {}\n",
    );
    let ended = explain(&["http://shop.test:8080/host".to_owned()], &["-f", path]);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(ended.stderr.contains("weir: not served: ") && ended.stderr.contains("bad"), "{}", ended.stderr);
}

/// Each command of the page prints what the page says.
#[test]
fn the_page_on_explanations_shows_what_the_command_prints() {
    let page = include_str!("../../../docs/explain.md");
    let folder = Folder::new();
    let mut shown = 0;
    let parts: Vec<_> = page.split("```").collect();
    for of_block in parts.chunks(2) {
        let [before, block] = of_block else { continue };
        if let Some(yaml) = block.strip_prefix("yaml\n") {
            let file = before.trim_end().strip_suffix("`:").and_then(|before| before.rsplit('`').next());
            folder.write(file.expect("manifests come behind the name of their file"), yaml);
            continue;
        }
        let Some(block) = block.strip_prefix("console\n") else { continue };
        let (command, output) = block.split_once('\n').expect("a command and its output");
        let Some(arguments) = command.strip_prefix("$ weir explain ") else { continue };
        if !arguments.contains(" -f ") {
            continue;
        }
        let ended = in_shell(folder.path(), arguments);
        assert_eq!(ended.stdout, output, "{command} printed\n{}{}", ended.stdout, ended.stderr);
        shown += 1;
    }
    assert!(shown >= 8, "the page has examples");
}

fn in_shell(folder: &Path, arguments: &str) -> Ended {
    let weir = binaries::path("weir");
    let line = format!("{} explain {arguments}", weir.display());
    Process::start(Command::new("sh").arg("-c").arg(line).current_dir(folder)).wait()
}

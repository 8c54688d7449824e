//! Wrong input at each door gets a sentence.

use std::io::{Read as _, Write as _};
use std::process::Command;
use weir_tests::harness::client::Connection;
use weir_tests::harness::folder::Folder;
use weir_tests::harness::manifest::PoolText;
use weir_tests::harness::process::{Ended, Process};
use weir_tests::harness::services::{Samples, Service, controller, wait_for_backend};
use weir_tests::harness::{binaries, client, ports, wait};

fn run(binary: &str, arguments: &[&str]) -> Ended {
    let mut command = Command::new(binaries::path(binary));
    // It keeps no keys with who runs the tests.
    Process::start(command.args(arguments).env_remove("HOME").env_remove("XDG_STATE_HOME")).wait()
}

#[test]
fn flags_that_cannot_be_understood_end_with_code_2_and_name_the_value() {
    for (binary, arguments, named) in [
        ("weir", &["rnu"][..], "rnu"),
        ("weir", &["run"], "<FOLDER>"),
        ("weir", &["run", ".", "--admin", "here"], "here"),
        ("weir", &["run", ".", "--workers", "0"], "0"),
        ("weir", &["run", ".", "--drain-timeout", "10"], "10s"),
        ("weir", &["run", ".", "--bind", "localhost"], "localhost"),
        ("weir", &["run", ".", "--dns-server", "dns.example"], "dns.example"),
        ("weir", &["run", ".", "--access-log", "xml"], "xml"),
        (
            "weir-proxy",
            &["--controller", "http://127.0.0.1:9901", "--access-log-share", "2"],
            "`2` is not a part",
        ),
        ("weir-controller", &["--dns-server", "10.0.0.1:0"], "10.0.0.1:0"),
        ("weir", &["validate"], "<PATH>"),
        ("weir", &["validate", "--output", "xml", "."], "xml"),
        ("weir", &["demo-backend", "--listen", "9101"], "9101"),
        ("weir", &["completions", "tcsh"], "tcsh"),
        ("weir-proxy", &["--controller", "not a url"], "not a url"),
        ("weir-proxy", &["--nonsense"], "--nonsense"),
        ("weir-controller", &["--nonsense"], "--nonsense"),
    ] {
        let ended = run(binary, arguments);
        assert_eq!(ended.status.code(), Some(2), "{binary} {arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(named), "{binary} {arguments:?}: {}", ended.stderr);
    }
}

#[test]
fn the_log_format_of_the_environment_counts_for_every_command_that_serves() {
    for (binary, arguments) in [
        ("weir", &["run", "."][..]),
        ("weir-proxy", &["--controller", "http://127.0.0.1:9901"]),
        ("weir-controller", &["--folder", "."]),
    ] {
        let mut command = Command::new(binaries::path(binary));
        let ended = Process::start(command.args(arguments).env("WEIR_LOG_FORMAT", "smoke")).wait();
        assert_eq!(ended.status.code(), Some(2), "{binary}: {}", ended.stderr);
        assert!(ended.stderr.contains("smoke"), "{binary}: {}", ended.stderr);
    }
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    for arguments in [&["run", "/no/such/folder"][..], &["validate", "/no/such/folder"]] {
        let ended = run("weir", arguments);
        assert_eq!(ended.status.code(), Some(2), "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains("/no/such/folder"), "{arguments:?}: {}", ended.stderr);
    }
}

#[test]
fn a_taken_administration_port_is_named() {
    let owner = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = owner.local_addr().expect("bound").to_string();
    let folder = Folder::new();
    let ended = run("weir", &["run", folder.path().to_str().expect("text"), "--admin", &address]);
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains(&address), "{}", ended.stderr);
}

#[test]
fn bytes_that_are_no_http_get_400_and_a_sentence_and_reach_no_backend() {
    let samples = Samples::start("member", 1);
    let port = ports::free();
    let folder = Folder::new();
    folder.write("pool.yaml", &PoolText::new("strict", port, &samples.equal()).yaml());
    let _weir = Service::standalone(folder.path(), &[]);
    for request in [
        "\u{1}\u{2}\u{3}garbage\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\r\n folded: b\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    ] {
        let mut connection = Connection::open(port).expect("serves");
        let answer = connection.request(request).unwrap_or_else(|error| panic!("{request:?}: {error}"));
        assert_eq!(answer.status, 400, "{request:?}: {}", answer.text());
        let message = answer.json()["message"].as_str().unwrap_or_default().to_owned();
        assert!(message.ends_with('.') && message.contains(' '), "{request:?}: {message}");
        assert!(answer.closes(), "{request:?}");
    }
    let detail = client::fetch(samples.ports[0], "/health/detailed").expect("an answer").json();
    let asked_by_the_test = 2;
    assert_eq!(detail["requests"], asked_by_the_test, "only this question and the wait at the start");
}

#[test]
fn garbage_on_the_push_port_closes_that_connection_and_nothing_else() {
    let (old, new) = (Samples::start("old", 1), Samples::start("new", 1));
    let (port, push) = (ports::free(), ports::free());
    let folder = Folder::new();
    folder.write("pool.yaml", &PoolText::new("push", port, &old.equal()).yaml());
    let mut controller = controller(folder.path(), push);
    let proxy = Service::proxy(push);
    proxy.wait_until_ready();
    for garbage in [
        &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
        &[0; 100],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        let mut stream = std::net::TcpStream::connect(client::local(push)).expect("listens");
        stream.set_read_timeout(Some(wait::GENEROUS)).expect("a socket");
        stream.write_all(garbage).expect("open");
        // Closed, whatever is said before.
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
    }
    assert!(controller.is_running());
    wait_for_backend(port, "/", "old");
    folder.write("pool.yaml", &PoolText::new("push", port, &new.equal()).yaml());
    wait_for_backend(port, "/", "new");
}

#[test]
fn validate_names_each_problem_and_its_exit_code_says_whether_there_is_one() {
    let good = PoolText::new("good", 8080, &[(9101, 1)]).yaml();
    for (name, text, code, named) in [
        ("good", good.clone(), 0, ""),
        ("unknown field", good.replace("  timeouts:", "  timeuots:"), 1, "timeuots"),
        ("wrong type", good.replace("port: 8080", "port: eighty"), 1, "spec.listeners[0].port"),
        ("port out of range", good.replace("port: 8080", "port: 80800"), 1, "spec.listeners[0].port"),
        (
            "negative weight",
            good.replace("weight: 1", "weight: -1"),
            1,
            "spec.backendSets[0].static.backends[0].weight",
        ),
        (
            "no address",
            good.replace("127.0.0.1", "localhost"),
            1,
            "spec.backendSets[0].static.backends[0].address",
        ),
        (
            "unknown set",
            good.replace("        - name: all\n", "        - name: al\n"),
            1,
            "spec.rules[0].backendSets[0].name",
        ),
        ("bad duration", good.replace("request: 30s", "request: soon"), 1, "spec.timeouts.request"),
        ("no certificate", good.replace("protocol: HTTP", "protocol: HTTPS"), 1, "spec.listeners[0].tls"),
        (
            "two of one port",
            good.replace("  rules:\n", "    - name: b\n      port: 8080\n      protocol: HTTP\n  rules:\n"),
            1,
            "spec.listeners[1].port",
        ),
        ("other version", good.replace("v1alpha1", "v9"), 1, "weir.dev/v9"),
        ("no yaml", "{[".to_owned(), 1, "pool.yaml:1:"),
    ] {
        let folder = Folder::new();
        folder.write("pool.yaml", &text);
        let path = folder.path().to_str().expect("text").to_owned();
        let ended = run("weir", &["validate", &path]);
        assert_eq!(ended.status.code(), Some(code), "{name}: {}{}", ended.stdout, ended.stderr);
        assert!(ended.stdout.contains(named), "{name}: {}", ended.stdout);
        if code == 1 {
            assert!(ended.stdout.contains("pool.yaml:"), "{name}: {}", ended.stdout);
        }
    }
}

/// A line of a specification, and how what is said of it begins.
const WRONG_POLICIES: &[(&str, &str)] = &[
    (
        "loadBalancing: { algorithm: roundrobin }",
        "spec.loadBalancing.algorithm: roundrobin cannot be used here: use LeastRequest or RoundRobin or",
    ),
    (
        "loadBalancing: RoundRobin",
        "spec.loadBalancing: RoundRobin cannot be used here: write fields: algorithm,",
    ),
    (
        "loadBalancing: { algorythm: RoundRobin }",
        "spec.loadBalancing.algorythm: is not a field of LoadBalancerPool: write \"algorithm\" if",
    ),
    (
        "loadBalancing: { algorithm: ConsistentHash }",
        "spec.loadBalancing.consistentHash: is missing: algorithm ConsistentHash needs to know what to hash",
    ),
    (
        "loadBalancing: { algorithm: ConsistentHash, consistentHash: { key: Cookie } }",
        "spec.loadBalancing.consistentHash.name: is missing: key Header, Cookie or Query needs the name of which one",
    ),
    (
        "loadBalancing: { algorithm: ConsistentHash, consistentHash: { name: session } }",
        "spec.loadBalancing.consistentHash.key: is missing: add it",
    ),
    (
        "loadBalancing: { slowStart: { window: 30 } }",
        "spec.loadBalancing.slowStart.window: \"30\" is not a duration: write one to four numbers",
    ),
    (
        "loadBalancing: { slowStart: { window: 2h } }",
        "spec.loadBalancing.slowStart.window: 2h is out of range: use 1ms to 1h",
    ),
    (
        "loadBalancing: { panicBelowPercent: 50% }",
        "spec.loadBalancing.panicBelowPercent: 50% cannot be used here: use a whole number from 1 to 100",
    ),
    (
        "healthCheck: { http: { path: /healthz } }",
        "spec.healthCheck.http: is not a field of LoadBalancerPool: use one of active, passive, or remove it",
    ),
    (
        "healthCheck: { active: { interval: 5s } }",
        "spec.healthCheck.active: must have exactly one of http, tcp, tls and grpc",
    ),
    (
        "healthCheck: { active: { tcp: { port: 8081 } } }",
        "spec.healthCheck.active.tcp.port: is not a field of LoadBalancerPool: remove it",
    ),
    (
        "healthCheck: { active: { http: { path: healthz } } }",
        "spec.healthCheck.active.http.path: \"healthz\" is not a path: start it with a slash",
    ),
    (
        "healthCheck: { active: { http: { expectedStatuses: [2xx] } } }",
        "spec.healthCheck.active.http.expectedStatuses[0]: \"2xx\" is not a status code or a range of them: write 200",
    ),
    (
        "healthCheck: { active: { tcp: {}, interval: 1ms } }",
        "spec.healthCheck.active.interval: 1ms is out of range: use 100ms to 1h",
    ),
    (
        "healthCheck: { passive: { maxFailurePercent: 5 } }",
        "spec.healthCheck.passive.maxFailurePercent: 5 is out of range: use 11 to 100",
    ),
    (
        "healthCheck: { passive: true }",
        "spec.healthCheck.passive: true cannot be used here: write fields: base",
    ),
];

#[test]
fn validate_tells_a_stranger_what_is_wrong_with_a_policy_and_what_to_write() {
    let good = PoolText::new("good", 8080, &[(9101, 1)]).yaml();
    for (policy, sentence) in WRONG_POLICIES {
        let folder = Folder::new();
        let text = good.replace("  loadBalancing: { algorithm: RoundRobin }\n", &format!("  {policy}\n"));
        folder.write("pool.yaml", &text);
        let path = folder.path().to_str().expect("text").to_owned();
        let ended = run("weir", &["validate", &path]);
        assert_eq!(ended.status.code(), Some(1), "{policy}: {}{}", ended.stdout, ended.stderr);
        assert!(ended.stdout.contains("pool.yaml:15:"), "{policy}: {}", ended.stdout);
        assert!(ended.stdout.contains(sentence), "{policy}: {}", ended.stdout);
    }
}

#[test]
fn every_manifest_in_the_documents_is_valid() {
    let workspace = binaries::workspace();
    let documents = ["README.md", "docs/load-balancing.md", "docs/health-checks.md", "docs/namespaces.md"];
    for document in documents {
        let text = std::fs::read_to_string(workspace.join(document)).expect("a document");
        for (index, manifest) in manifests(&text).enumerate() {
            let folder = Folder::new();
            folder.write("pool.yaml", &manifest);
            let ended = run("weir", &["validate", folder.path().to_str().expect("text")]);
            assert_eq!(ended.status.code(), Some(0), "{document}, manifest {}: {}", index + 1, ended.stdout);
        }
    }
}

/// The blocks of YAML in a document that hold a pool, or a part of its specification in a pool around it.
fn manifests(document: &str) -> impl Iterator<Item = String> {
    let blocks = document.split("```yaml\n").skip(1).filter_map(|rest| rest.split_once("```"));
    blocks.filter_map(|(block, _)| {
        if block.contains("kind: LoadBalancerPool") {
            return Some(block.to_owned());
        }
        let is_part = block.starts_with("loadBalancing:") || block.starts_with("healthCheck:");
        let part: String = block.lines().map(|line| format!("  {line}\n")).collect();
        let pool = PoolText::new("documented", 8080, &[(9101, 1)]).yaml();
        is_part.then(|| pool.replace("  loadBalancing: { algorithm: RoundRobin }\n", &part))
    })
}

#[test]
fn validate_prints_json_for_machines() {
    let folder = Folder::new();
    folder.write("pool.yaml", &PoolText::new("good", 8080, &[(9101, 1)]).yaml());
    let path = folder.path().to_str().expect("text").to_owned();
    let ended = run("weir", &["validate", "--output", "json", &path]);
    let report: serde_json::Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!(report["problems"], serde_json::json!([]), "{report}");
    folder.write("pool.yaml", &PoolText::new("good", 0, &[(9101, 1)]).yaml());
    let ended = run("weir", &["validate", "--output", "json", &path]);
    assert_eq!(ended.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_str(&ended.stdout).expect("JSON");
    let problem = &report["problems"][0];
    assert_eq!(problem["field"], "spec.listeners[0].port", "{report}");
    assert!(problem["line"].as_u64().is_some_and(|line| line > 1), "{report}");
    assert!(problem["message"].as_str().is_some_and(|message| message.contains('0')), "{report}");
}

#[test]
fn the_quickstart_is_valid() {
    let example = binaries::workspace().join("examples/quickstart");
    let ended = run("weir", &["validate", "--strict", example.to_str().expect("text")]);
    assert_eq!(ended.status.code(), Some(0), "{}{}", ended.stdout, ended.stderr);
}

#[test]
fn validate_reads_standard_input_for_pipelines() {
    let folder = Folder::new();
    for (port, code) in [(8080, 0), (0, 1)] {
        folder.write("pool.yaml", &PoolText::new("piped", port, &[(9101, 1)]).yaml());
        let manifests = std::fs::File::open(folder.file("pool.yaml")).expect("written above");
        let ended = Command::new(binaries::path("weir")).args(["validate", "-"]).stdin(manifests).output();
        let ended = ended.expect("it was built");
        let said = String::from_utf8_lossy(&ended.stdout).into_owned();
        assert_eq!(ended.status.code(), Some(code), "{said}");
        assert_eq!(said.contains("-:10:7: spec.listeners[0].port: 0"), code == 1, "{said}");
    }
}

#[test]
fn strict_validation_fails_on_a_warning() {
    let folder = Folder::new();
    let pool = PoolText::new("early", 8080, &[]).yaml();
    let (before, _) = pool.split_once("      static:").expect("the set");
    folder.write("pool.yaml", &format!("{before}      service: {{ name: not-there-yet, port: 80 }}\n"));
    let path = folder.path().to_str().expect("text").to_owned();
    for (arguments, code) in [(&["validate", &path][..], 0), (&["validate", "--strict", &path], 1)] {
        let ended = run("weir", arguments);
        assert_eq!(ended.status.code(), Some(code), "{}", ended.stdout);
        assert!(ended.stdout.contains("warning: spec.backendSets[0].service"), "{}", ended.stdout);
        assert!(ended.stdout.contains("not-there-yet"), "{}", ended.stdout);
    }
}

#[test]
fn every_line_of_a_json_log_is_json_and_a_problem_has_its_place() {
    let folder = Folder::new();
    folder.write("pool.yaml", &PoolText::new("logged", 0, &[(9101, 1)]).yaml());
    let weir = Service::standalone(folder.path(), &["--log-format", "json"]);
    weir.process.terminate();
    let ended = weir.process.wait();
    let lines = ended.stderr.lines().map(serde_json::from_str::<serde_json::Value>);
    let lines: Vec<_> = lines.collect::<Result<_, _>>().expect("JSON");
    let problem = lines.iter().find(|line| line["level"] == "ERROR").expect("a problem");
    assert_eq!(problem["field"], "spec.listeners[0].port", "{problem}");
    assert_eq!(problem["line"], 10, "{problem}");
}

#[test]
fn completions_are_for_the_shell_that_was_named() {
    let ended = run("weir", &["completions", "zsh"]);
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    assert!(ended.stdout.starts_with("#compdef weir"), "{}", ended.stdout);
}

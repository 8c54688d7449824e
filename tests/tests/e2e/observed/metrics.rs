//! Metrics in numbers: what was done is what is counted, and tools find nothing wrong with how it is written.

use super::{Site, monitoring, rules};
use serde_json::{Value, json};
use std::fs::File;
use weir_tests::harness::client::{self, Connection};
use weir_tests::harness::controller::ControllerCommand;
use weir_tests::harness::folder::Folder;
use weir_tests::harness::{tools, wait};

#[test]
fn promtool_finds_nothing_wrong_with_what_proxies_and_controllers_expose() {
    let site = Site::start();
    assert_eq!(client::fetch(site.port, "/load").expect("an answer").status, 200);
    let folder = Folder::new();
    folder.write("none.yaml", "");
    let controller = ControllerCommand::of_folder(folder.path()).start();
    controller.service.wait_until_ready();
    for (who, admin) in [("proxy", site.weir.admin), ("controller", controller.service.admin)] {
        let answer = client::fetch(admin, "/metrics").expect("administration answers");
        assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"), "{who}");
        folder.write(who, &answer.text());
        let told =
            tools::run_on("promtool", ["check", "metrics"], File::open(folder.file(who)).expect("written"));
        let said = String::from_utf8_lossy(&told.stderr) + String::from_utf8_lossy(&told.stdout);
        assert!(told.status.success() && said.trim().is_empty(), "{who}: {said}");
    }
}

#[test]
fn who_asks_for_openmetrics_gets_it() {
    let site = Site::start();
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                   Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n\r\n";
    let answer = Connection::open(site.weir.admin).expect("serves").request(request).expect("an answer");
    let kind = answer.header("content-type").expect("a type").to_owned();
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    let text = answer.text();
    assert!(text.ends_with("# EOF\n") && text.contains("# TYPE weir_build info\n"), "{text}");
}

#[test]
fn what_was_asked_failed_and_is_missing_is_counted_by_its_reason() {
    let site = Site::start();
    let value = |name: &str| site.weir.metric(name);
    for _ in 0..7 {
        assert_eq!(client::fetch(site.port, "/load").expect("an answer").status, 200);
    }
    assert_eq!(client::fetch(site.port, "/elsewhere").expect("an answer").status, 404);
    let wrong =
        Connection::open(site.port).expect("serves").request("GET /load HTTP/1.1\r\nHost : a\r\n\r\n");
    assert_eq!(wrong.expect("an answer").status, 400);
    assert_eq!(value("http_request_failures_total{reason=\"no_route\"}"), 1);
    assert_eq!(value("http_request_failures_total{reason=\"bad_request\"}"), 1);
    assert_eq!(value("http_requests_refused_total"), 1);
    assert_eq!(value("weir_upstream_duration_seconds_count"), 7);
    assert_eq!(value("http_request_duration_seconds_count"), 8);
    let standing = |state: &str| value(&format!("weir_backends{{state=\"{state}\"}}"));
    assert_eq!(["healthy", "unhealthy", "draining"].map(standing), [3, 0, 0]);
    assert_eq!(value("weir_backend_sets_without_backend"), 0);
    site.samples.process.kill();
    wait::until("all backends should be out", || (standing("unhealthy") == 3).then_some(()));
    assert_eq!(value("weir_backend_sets_without_backend"), 1);
    assert_eq!(client::fetch(site.port, "/load").expect("an answer").status, 503);
    assert_eq!(value("http_request_failures_total{reason=\"no_backend\"}"), 1);
    let open = value("process_open_fds");
    assert!(open > 10 && open < value("process_max_fds"), "{open}");
}

#[test]
fn rules_are_right_and_each_fires_where_it_should() {
    let folder = Folder::new();
    folder.write("rules.yaml", &rules());
    let tests = std::fs::read_to_string(monitoring().join("prometheusrule-tests.yaml")).expect("the tests");
    folder.write("tests.yaml", &tests);
    for (what, file) in [("check", "rules.yaml"), ("test", "tests.yaml")] {
        let path = folder.file(file);
        let told = tools::run("promtool", [what, "rules", path.to_str().expect("text")]);
        let said = String::from_utf8_lossy(&told.stdout) + String::from_utf8_lossy(&told.stderr);
        assert!(told.status.success(), "{what}: {said}");
    }
    let alerts = rules().matches("- alert: ").count();
    let unfired: Vec<_> = rules()
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .filter(|name| !tests.contains(&format!("alertname: {name}\n        exp_alerts:")))
        .map(str::to_owned)
        .collect();
    assert!(alerts >= 13 && unfired.is_empty(), "of {alerts} these fire in no test: {unfired:?}");
}

#[test]
fn prometheus_understands_every_question_of_the_dashboard() {
    let text = std::fs::read_to_string(monitoring().join("grafana-dashboard.json")).expect("the dashboard");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let questions = targets.map(|target| target["expr"].as_str().expect("a question"));
    // What Grafana puts in: a rule file is what promtool reads.
    let asked = questions.map(|asked| asked.replace("[$__rate_interval]", "[5m]").replace(['$'], "x"));
    let rules: Vec<_> =
        asked.enumerate().map(|(nth, expr)| json!({ "record": format!("r{nth}"), "expr": expr })).collect();
    assert!(rules.len() > 30, "{}", rules.len());
    let folder = Folder::new();
    folder.write("rules.yaml", &json!({ "groups": [{ "name": "dashboard", "rules": rules }] }).to_string());
    let path = folder.file("rules.yaml");
    let told = tools::run("promtool", ["check", "rules", path.to_str().expect("text")]);
    let said = String::from_utf8_lossy(&told.stdout) + String::from_utf8_lossy(&told.stderr);
    assert!(told.status.success(), "{said}");
}

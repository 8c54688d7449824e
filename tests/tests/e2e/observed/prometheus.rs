//! A real Prometheus scrapes a running proxy, and the alerts fire that should.

use super::{Site, rules};
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::Command;
use weir_tests::harness::folder::Folder;
use weir_tests::harness::process::Process;
use weir_tests::harness::{client, ports, wait};

struct Prometheus {
    port: u16,
    _process: Process,
    _folder: Folder,
}

impl Prometheus {
    /// One that looks twice a second, and whose alerts wait for nothing.
    fn start(target: u16) -> Self {
        let (port, folder) = (ports::free(), Folder::new());
        let at_once = |line: &str| match line.trim_start().strip_prefix("for: ") {
            Some(_) => line.split("for: ").next().unwrap_or_default().to_owned() + "for: 0s\n",
            None => line.to_owned() + "\n",
        };
        folder.write("rules.yaml", &rules().lines().map(at_once).collect::<String>());
        folder.write(
            "prometheus.yaml",
            &format!(
                "global: {{ scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms }}\n\
                 rule_files: [rules.yaml]\nscrape_configs:\n  - job_name: weir\n    static_configs: \
                 [{{ targets: ['127.0.0.1:{target}'] }}]\n"
            ),
        );
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", folder.file("prometheus.yaml").display()));
        command.arg(format!("--storage.tsdb.path={}", folder.file("data").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let process = Process::start(&mut command);
        let prometheus = Self { port, _process: process, _folder: folder };
        wait::patiently("Prometheus should have scraped the proxy", || {
            let scraped = prometheus.ask("/api/v1/query?query=up")?;
            (scraped["result"][0]["value"][1] == "1").then_some(())
        });
        prometheus
    }

    fn ask(&self, target: &str) -> Option<Value> {
        let answer = client::fetch(self.port, target).ok()?;
        (answer.status == 200).then(|| answer.json()["data"].clone())
    }

    /// Names of the alerts that fire.
    fn firing(&self) -> BTreeSet<String> {
        let data = self.ask("/api/v1/alerts").unwrap_or_default();
        let alerts = data["alerts"].as_array().cloned().unwrap_or_default();
        let firing = alerts.iter().filter(|alert| alert["state"] == "firing");
        firing.map(|alert| alert["labels"]["alertname"].as_str().expect("a name").to_owned()).collect()
    }
}

#[test]
fn a_prometheus_that_scrapes_a_proxy_fires_the_alerts_of_what_is_wrong_and_no_other() {
    let site = Site::start();
    let prometheus = Prometheus::start(site.weir.admin);
    let look = |status: u16| {
        (0..20).for_each(|_| {
            assert_eq!(client::fetch(site.port, "/load").expect("an answer").status, status);
        });
    };
    // So that rates have two points at least, and rules were looked at.
    let scrapes = || {
        let counted = prometheus.ask("/api/v1/query?query=count_over_time(up[1h])")?;
        counted["result"][0]["value"][1].as_str()?.parse::<u32>().ok()
    };
    wait::patiently("there should be scrapes", || {
        look(200);
        (scrapes()? > 5).then_some(())
    });
    assert_eq!(prometheus.firing(), BTreeSet::new());

    site.samples.process.kill();
    wait::until("the backends should be out", || {
        (site.weir.metric("weir_backends{state=\"unhealthy\"}") == 3).then_some(())
    });
    let expected = ["WeirFewHealthyBackends", "WeirNoBackend", "WeirServerErrors"];
    let expected: BTreeSet<_> = expected.map(str::to_owned).into();
    wait::patiently("these alerts should fire, and no others", || {
        look(503);
        let firing = prometheus.firing();
        assert!(firing.is_subset(&expected), "{firing:?}");
        (firing == expected).then_some(())
    });
}

//! How long changes take to the proxies, and which proxy stays behind: in metrics, in the status, and by `weir status`.

use super::{condition, pool};
use serde_json::Value;
use std::process::Command;
use weir_tests::harness::cluster::{Cluster, Namespace, Visit};
use weir_tests::harness::controller::{Controller, ControllerCommand};
use weir_tests::harness::process::{Ended, Process};
use weir_tests::harness::services::Service;
use weir_tests::harness::{binaries, client, ports, wait};

/// A Service, and an EndpointSlice of so many endpoints. Nobody sends to them.
fn service(endpoints: u8) -> String {
    let addresses: String = (1..=endpoints)
        .map(|n| format!("\n  - {{ addresses: [10.9.0.{n}], conditions: {{ ready: true }} }}"))
        .collect();
    format!(
        "apiVersion: v1
kind: Service
metadata: {{ name: web }}
spec:
  ports: [{{ name: http, port: 80 }}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: web-1
  labels: {{ kubernetes.io/service-name: web }}
addressType: IPv4
ports: [{{ name: http, port: 8080, protocol: TCP }}]
endpoints:{addresses}
"
    )
}

/// A pool in a namespace, its controller and its proxy.
struct Scene<'a> {
    namespace: Namespace<'a>,
    kubeconfig: String,
    controller: Controller,
    proxy: Service,
}

impl<'a> Scene<'a> {
    fn new(visit: &'a Visit) -> Self {
        let namespace = visit.namespace("propagation");
        let kubeconfig = visit.admin_kubeconfig();
        let command = ControllerCommand::of_cluster(&kubeconfig);
        let controller = command.in_namespace(&namespace).watching(&namespace).start();
        let proxy = Service::proxy(controller.push);
        proxy.wait_until_ready();
        namespace.apply(&format!("{}---\n{}", service(1), pool("shop", ports::free(), "web")));
        namespace.kubectl(&["wait", "lbp/shop", "--for=condition=Programmed", "--timeout=60s"]);
        let kubeconfig = kubeconfig.to_str().expect("a path of ours").to_owned();
        Self { namespace, kubeconfig, controller, proxy }
    }

    fn admin(&self) -> String {
        format!("http://{}", client::local(self.controller.service.admin))
    }

    /// Of the one proxy.
    fn row(&self) -> Value {
        let answer = client::fetch(self.controller.service.admin, "/api/v1/proxies").expect("administration");
        let rows = answer.json()["proxies"].clone();
        assert_eq!(rows.as_array().map(Vec::len), Some(1), "{rows}");
        rows[0].clone()
    }

    fn status(&self, arguments: &[&str]) -> Ended {
        let own = ["--kubeconfig", &self.kubeconfig, "-n", &self.namespace.name];
        status(&[&own, arguments].concat())
    }
}

fn status(arguments: &[&str]) -> Ended {
    let mut command = Command::new(binaries::path("weir"));
    Process::start(command.arg("status").args(arguments)).wait()
}

fn json(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{ended:?}"))
}

#[test]
fn a_change_of_endpoints_is_counted_with_the_time_from_its_event_to_the_proxy() {
    let visit = Cluster::shared();
    let scene = Scene::new(&visit);
    let counted = || {
        let name = "weir_controller_propagation_seconds_count{lane=\"endpoints\"}";
        scene.controller.service.metric(name)
    };
    let (before, row) = (counted(), scene.row());
    assert_eq!((&row["pools"], &row["current"], &row["behind"]), (&1.into(), &1.into(), &0.into()), "{row}");
    let changes = row["propagation"]["changes"].as_u64().unwrap_or_default();
    scene.namespace.apply(&service(2));
    wait::patiently("the change should be counted", || (counted() > before).then_some(()));
    let row = scene.row();
    let took = &row["propagation"];
    assert!(took["changes"].as_u64().is_some_and(|now| now > changes), "{row}");
    let seconds = took["last_seconds"].as_f64().expect("a time");
    assert!(0.0 < seconds && seconds < 10.0, "{row}");
    assert!(row["sent_bytes"].as_u64().is_some_and(|bytes| bytes > 100), "{row}");
    assert_eq!((&row["divergences"], &row["last_nack"]), (&0.into(), &Value::Null));
    let slow = "weir_controller_propagation_seconds_bucket{le=\"10.0\",lane=\"endpoints\"}";
    assert_eq!(scene.controller.service.metric(slow), counted(), "none took longer");
    assert_eq!(scene.controller.service.metric("weir_controller_divergences_total"), 0);
}

#[test]
fn a_proxy_that_stands_still_degrades_its_pool_until_it_goes_on() {
    let visit = Cluster::shared();
    let scene = Scene::new(&visit);
    let good = scene.status(&["shop"]);
    assert_eq!(good.status.code(), Some(0), "{good:?}");
    assert!(good.stdout.contains("Programmed") && !good.stdout.contains('\x1b'), "{}", good.stdout);

    scene.proxy.process.pause();
    scene.namespace.apply(&service(3));
    let degraded = || {
        let object = scene.namespace.get(&["lbp", "shop"]);
        let degraded = condition(&object, "Degraded").clone();
        let lag = object["status"]["programmed"]["oldestLag"].as_str().unwrap_or_default().to_owned();
        (degraded["reason"] == "ProxyBehind").then(|| (object, degraded["message"].clone(), lag))
    };
    let (object, message, lag) = wait::patiently("the pool should be degraded", degraded);
    let name = scene.row()["proxy"].as_str().expect("a name").to_owned();
    assert!(message.as_str().is_some_and(|message| message.contains(&name)), "{message}");
    assert_eq!(condition(&object, "Degraded")["status"], "True");
    assert_eq!(object["status"]["summary"]["state"], "ProxyBehind");

    let admin = scene.admin();
    let told = scene.status(&["shop", "--admin", &admin, "-o", "json"]);
    assert_eq!(told.status.code(), Some(1), "{told:?}");
    let report = json(&told);
    assert_eq!((&report["ok"], &report["pools"][0]["name"]), (&false.into(), &"shop".into()));
    assert_eq!(report["pools"][0]["status"]["summary"]["state"], "ProxyBehind");
    let row = &report["proxies"][0];
    assert_eq!((&row["proxy"], &row["behind"]), (&name.as_str().into(), &1.into()), "{row}");
    assert!(row["lag_seconds"].as_f64().is_some_and(|lag| lag > 5.0), "{row}");
    let pool = format!("{}/shop", scene.namespace.name);
    assert_eq!(row["lacks"][0]["pool"], pool.as_str());
    // Without a cluster the controller says the same.
    let table = status(&["--admin", &admin]);
    assert_eq!(table.status.code(), Some(1), "{table:?}");
    assert!(table.stdout.contains("ProxyBehind") && table.stdout.contains(&name), "{}", table.stdout);

    let grown = wait::patiently("the lag should grow", || degraded().filter(|(_, _, now)| *now != lag));
    assert_ne!(grown.1, message, "for longer");
    scene.proxy.process.resume();
    wait::patiently("the pool should be programmed again", || {
        let object = scene.namespace.get(&["lbp", "shop"]);
        (object["status"]["summary"]["state"] == "Programmed").then_some(())
    });
    let good = scene.status(&["--admin", &admin, "-o", "json"]);
    assert_eq!((good.status.code(), &json(&good)["ok"]), (Some(0), &true.into()), "{good:?}");
    assert_eq!(json(&good)["proxies"][0]["behind"], 0);
}

#[test]
fn a_question_that_has_no_answer_gets_a_sentence() {
    let visit = Cluster::shared();
    let scene = Scene::new(&visit);
    let nobody = format!("http://{}", client::local(ports::free()));
    let proxy = format!("http://{}", client::local(scene.proxy.admin));
    let unknown = format!("there is no LoadBalancerPool {}/nosuch", scene.namespace.name);
    for (arguments, expected) in [
        (vec!["nosuch"], unknown.as_str()),
        (vec!["elsewhere/shop"], "there is no LoadBalancerPool elsewhere/shop"),
        (vec!["--admin", &nobody], "nothing answers at"),
        (vec!["--admin", &proxy], "has no /api/v1/proxies"),
        (vec!["--context", "nosuch"], "cannot use kubeconfig"),
    ] {
        let ended = scene.status(&arguments);
        assert_eq!(ended.status.code(), Some(2), "{arguments:?}: {ended:?}");
        let is_one = ended.stderr.trim_end().lines().count() == 1;
        assert!(is_one && ended.stderr.contains(expected), "{arguments:?}: {}", ended.stderr);
        assert_eq!(ended.stdout, "", "{arguments:?}");
    }
}

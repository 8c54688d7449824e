//! What `kubectl get lbp` shows, written by a controller into a real API server.

use super::{condition, reasons, static_pool};
use serde_json::Value;
use weir_tests::harness::cluster::{Cluster, Namespace, Visit};
use weir_tests::harness::controller::{Controller, ControllerCommand};
use weir_tests::harness::services::{Samples, Service};
use weir_tests::harness::{ports, wait};

/// A controller of one namespace.
fn controller(visit: &Visit, namespace: &Namespace<'_>) -> Controller {
    let command = ControllerCommand::of_cluster(&visit.admin_kubeconfig());
    command.in_namespace(namespace).watching(namespace).start()
}

fn lbp(namespace: &Namespace<'_>, name: &str) -> Value {
    namespace.get(&["lbp", name])
}

/// Waits until the column STATUS says this word, and returns the object.
fn wait_for_state(namespace: &Namespace<'_>, name: &str, state: &str) -> Value {
    wait::patiently(&format!("lbp {name} should be {state}"), || {
        let object = lbp(namespace, name);
        (object["status"]["summary"]["state"] == state).then_some(object)
    })
}

#[test]
fn the_status_says_that_every_proxy_runs_the_pool_and_then_stands_still() {
    let visit = Cluster::shared();
    let namespace = visit.namespace("status");
    let samples = Samples::start("web", 2);
    let controller = controller(&visit, &namespace);
    let proxy = Service::proxy(controller.push);
    namespace.apply(&static_pool("shop", ports::free(), &samples.ports));

    namespace.kubectl(&["wait", "lbp/shop", "--for=condition=Programmed", "--timeout=60s"]);
    let object = lbp(&namespace, "shop");
    let status = &object["status"];
    assert_eq!(status["observedGeneration"], object["metadata"]["generation"]);
    assert_eq!(status["endpoints"]["ready"], 2);
    assert_eq!(
        (&status["programmed"]["proxies"], &status["programmed"]["current"]),
        (&Value::from(1), &Value::from(1))
    );
    for kind in ["Accepted", "ResolvedRefs", "EndpointsReady", "Programmed"] {
        assert_eq!(condition(&object, kind)["status"], "True", "{object}");
    }
    assert_eq!(condition(&object, "Degraded")["reason"], "AsSpecified");

    let printed = namespace.kubectl(&["get", "lbp", "shop", "-o", "wide"]);
    let (header, row) = printed.split_once('\n').expect("two lines");
    let columns: Vec<_> = header.split_whitespace().collect();
    assert_eq!(columns, ["NAME", "ALGORITHM", "READY", "PROXIES", "STATUS", "AGE", "LAG", "MESSAGE"]);
    let row: Vec<_> = row.split_whitespace().collect();
    assert_eq!(row[..5], ["shop", "RoundRobin", "2/2", "1/1", "Programmed"], "{printed}");
    assert!(row[6].ends_with("ms") && row[7..].join(" ").contains("1 of 1 proxies"), "{printed}");
    wait::patiently("the Event", || {
        reasons(&namespace, "shop").contains(&"Programmed".to_owned()).then_some(())
    });

    // Another manager's word stays beside ours, and ours is not written again for it.
    let foreign = "apiVersion: weir.dev/v1alpha1\nkind: LoadBalancerPool\nmetadata: { name: shop }\nstatus:\n  \
                   conditions: [{ type: example.com/Checked, status: 'True', reason: Checked, message: by hand, \
                   lastTransitionTime: '2026-11-21T10:00:00Z' }]\n";
    let arguments =
        ["apply", "--server-side", "--subresource=status", "--field-manager=auditor", "--filename=-"];
    let applied = namespace.try_kubectl(&arguments, foreign);
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    let version = lbp(&namespace, "shop")["metadata"]["resourceVersion"].clone();
    // A second pool is written while nothing is to be said of the first.
    namespace.apply(&static_pool("other", ports::free(), &samples.ports));
    wait_for_state(&namespace, "other", "Programmed");
    let after = lbp(&namespace, "shop");
    assert_eq!(after["metadata"]["resourceVersion"], version, "no further write");
    assert_eq!(condition(&after, "example.com/Checked")["reason"], "Checked");
    assert_eq!(condition(&after, "Programmed")["status"], "True");

    drop(proxy);
    let gone = wait_for_state(&namespace, "shop", "NoProxies");
    assert_eq!(condition(&gone, "Programmed")["status"], "False");
    assert_eq!(condition(&gone, "example.com/Checked")["reason"], "Checked", "theirs outlives our writes");
    drop(controller);
}

#[test]
fn a_pool_that_is_not_served_as_written_says_why() {
    let visit = Cluster::shared();
    let namespace = visit.namespace("status");
    let samples = Samples::start("web", 1);
    let controller = controller(&visit, &namespace);
    let _proxy = Service::proxy(controller.push);
    let port = ports::free();
    namespace.apply(&static_pool("first", port, &samples.ports));
    wait_for_state(&namespace, "first", "Programmed");

    namespace.apply(&static_pool("second", port, &samples.ports));
    let loser = wait_for_state(&namespace, "second", "Conflicted");
    let accepted = condition(&loser, "Accepted");
    let winner = format!("LoadBalancerPool {}/first", namespace.name);
    assert!(accepted["message"].as_str().is_some_and(|message| message.contains(&winner)), "{accepted}");
    assert_eq!(accepted["observedGeneration"], loser["metadata"]["generation"]);
    wait::patiently("the Event", || {
        reasons(&namespace, "second").contains(&"Conflicted".to_owned()).then_some(())
    });

    // An edit that conflicts leaves what was there before in force.
    namespace.apply(&static_pool("third", ports::free(), &samples.ports));
    wait_for_state(&namespace, "third", "Programmed");
    namespace.apply(&static_pool("third", port, &samples.ports));
    let edited = wait_for_state(&namespace, "third", "Conflicted");
    assert_eq!(condition(&edited, "Programmed")["reason"], "ServesLastGood");
    assert_eq!(condition(&edited, "Degraded")["status"], "True");
    assert_eq!(edited["status"]["programmed"]["current"], 1);

    // Not applied: where a manager owned every entry of a list, server-side apply removes the list with its last one.
    let none = r#"[{"op": "replace", "path": "/spec/backendSets/0/static/backends", "value": []}]"#;
    namespace.kubectl(&["patch", "lbp", "first", "--type=json", "--patch", none]);
    let empty = wait_for_state(&namespace, "first", "NoEndpoints");
    assert_eq!(condition(&empty, "EndpointsReady")["status"], "False");
    wait::patiently("the Event", || {
        reasons(&namespace, "first").contains(&"EndpointsEmpty".to_owned()).then_some(())
    });
}

#[test]
fn a_proxy_that_refuses_a_pool_is_named_with_field_and_reason() {
    let visit = Cluster::shared();
    let namespace = visit.namespace("status");
    let samples = Samples::start("web", 1);
    let controller = controller(&visit, &namespace);
    let _proxy = Service::proxy(controller.push);
    // The port is taken, which only a proxy can find out.
    let taken = &samples.ports[0];
    namespace.apply(&static_pool("shop", *taken, &samples.ports));
    let object = wait_for_state(&namespace, "shop", "Nacked");
    let programmed = condition(&object, "Programmed");
    let message = programmed["message"].as_str().unwrap_or_default();
    assert!(
        message.starts_with("1 of 1 proxies refuse") && message.contains("spec.listeners[0].port"),
        "{message}"
    );
    assert_eq!(condition(&object, "Degraded")["reason"], "Nacked");
    wait::patiently("the Event", || {
        reasons(&namespace, "shop").contains(&"NackedByProxy".to_owned()).then_some(())
    });
}

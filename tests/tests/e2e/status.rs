//! `weir status` of a `weir run`, which has no cluster.

use serde_json::Value;
use std::process::Command;
use weir_tests::harness::folder::Folder;
use weir_tests::harness::manifest::PoolText;
use weir_tests::harness::process::{Ended, Process};
use weir_tests::harness::services::Service;
use weir_tests::harness::{binaries, client, ports, wait};

fn status(arguments: &[&str]) -> Ended {
    let mut command = Command::new(binaries::path("weir"));
    command.env_remove("HOME").env_remove("KUBECONFIG");
    Process::start(command.arg("status").args(arguments)).wait()
}

#[test]
fn weir_run_tells_of_its_pools_and_of_its_proxy() {
    let (folder, port) = (Folder::new(), ports::free());
    folder.write("pool.yaml", &PoolText::new("shop", port, &[(ports::free(), 1)]).yaml());
    let weir = Service::standalone(folder.path(), &[]);
    let admin = format!("http://{}", client::local(weir.admin));
    let good = wait::until("the pool should be programmed", || {
        let ended = status(&["--admin", &admin]);
        (ended.status.code() == Some(0)).then_some(ended)
    });
    for word in ["default/shop", "1/1", "Programmed", "weir-run"] {
        assert!(good.stdout.contains(word), "{word} in {}", good.stdout);
    }
    let told = status(&["shop", "--admin", &admin, "-o", "json"]);
    let report: Value = serde_json::from_str(&told.stdout).expect("JSON");
    assert_eq!((&report["ok"], &report["proxies"][0]["current"]), (&true.into(), &1.into()), "{report}");

    folder.write("taken.yaml", &PoolText::new("taken", port, &[(ports::free(), 1)]).yaml());
    let refused = wait::until("a pool that is refused should be shown", || {
        let ended = status(&["taken", "--admin", &admin]);
        (ended.status.code() == Some(1)).then_some(ended)
    });
    for word in ["default/taken", "Conflicted"] {
        assert!(refused.stdout.contains(word), "{word} in {}", refused.stdout);
    }
}

#[test]
fn without_a_cluster_and_without_an_address_it_is_said_what_to_name() {
    let ended = status(&[]);
    assert_eq!(ended.status.code(), Some(2), "{ended:?}");
    assert!(ended.stderr.contains("--kubeconfig") && ended.stderr.contains("--admin"), "{}", ended.stderr);
}

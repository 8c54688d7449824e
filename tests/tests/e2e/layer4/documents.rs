//! The examples of the documentation do what they say.

use super::connect;
use std::io::{Read as _, Write as _};
use weir_tests::harness::client::fetch;
use weir_tests::harness::folder::Folder;
use weir_tests::harness::ports;
use weir_tests::harness::services::{Samples, Service};

/// The blocks of YAML of the page.
fn examples() -> Vec<&'static str> {
    let page = include_str!("../../../../docs/layer4.md");
    let blocks = page.split("```yaml\n").skip(1);
    blocks.map(|block| block.split("```").next().expect("its end")).collect()
}

#[test]
fn the_example_of_layer_4_serves_http_and_redis() {
    let (web, raw, behind, folder) = (ports::free(), ports::free(), ports::free(), Folder::new());
    let (samples, _redis) = (Samples::start("member", 1), super::redis::server(behind));
    let mut text = examples()[0].to_owned();
    for (from, to) in [("8080", web), ("6380", raw), ("9001", samples.ports[0]), ("6379", behind)] {
        assert!(text.contains(from), "the example has port {from}");
        text = text.replace(from, &to.to_string());
    }
    folder.write("pool.yaml", &text);
    let _weir = Service::standalone(folder.path(), &[]);
    assert_eq!(fetch(web, "/").expect("an answer").status, 200);
    let mut client = connect(raw);
    client.write_all(b"PING\r\n").expect("open");
    let mut answer = [0; 7];
    client.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"+PONG\r\n");
}

#[test]
fn parts_of_examples_are_right_in_a_whole() {
    for (part, sets) in examples()[1..].iter().zip([["a", "others"], ["dns", "dns-tcp"]]) {
        let folder = Folder::new();
        let part: String = part.lines().map(|line| format!("  {line}\n")).collect();
        let sets = sets.map(|set| format!("    - {{ name: {set}, static: {{ backends: [] }} }}\n")).concat();
        let text = format!(
            "apiVersion: weir.dev/v1alpha1\nkind: LoadBalancerPool\nmetadata: {{ name: part }}\nspec:\n{part}  backendSets:\n{sets}"
        );
        folder.write("pool.yaml", &text);
        let mut validate = std::process::Command::new(weir_tests::harness::binaries::path("weir"));
        let output = validate.arg("validate").arg(folder.path()).output().expect("weir runs");
        assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stdout));
    }
}

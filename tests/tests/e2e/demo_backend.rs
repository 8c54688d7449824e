//! `weir demo-backend`, and the samples that `weir run` starts.

use std::time::{Duration, Instant};
use tungstenite::Message;
use tungstenite::protocol::frame::coding::CloseCode;
use weir_tests::harness::client::{self, Connection};
use weir_tests::harness::folder::Folder;
use weir_tests::harness::manifest::PoolText;
use weir_tests::harness::services::{Samples, Service, wait_for_backend};
use weir_tests::harness::{ports, tools};

#[test]
fn several_backends_of_one_process_have_names_and_health_of_their_own() {
    let samples = Samples::start("many", 3);
    for (index, &port) in samples.ports.iter().enumerate() {
        let answer = client::fetch(port, "/where?a=b").expect("an answer").json();
        assert_eq!(answer["name"], format!("many-{}", index + 1));
        assert_eq!(answer["address"], format!("127.0.0.1:{port}"));
        let health = client::fetch(port, "/health").expect("an answer");
        assert_eq!((health.status, health.json()), (200, serde_json::json!({ "status": "ok" })));
        let detail = client::fetch(port, "/health/detailed").expect("an answer").json();
        // The wait at the start, three above, this one.
        assert_eq!((&detail["requests"], &detail["inFlight"]), (&4.into(), &1.into()), "{detail}");
        assert!(detail["memoryBytes"].as_u64().is_some_and(|bytes| bytes > 1 << 20), "{detail}");
        assert!(detail["uptimeSeconds"].is_u64(), "{detail}");
    }
}

#[test]
fn it_speaks_http2_without_tls_too_and_waits_as_it_is_asked() {
    let samples = Samples::start("versatile", 1);
    let url = format!("http://127.0.0.1:{}/?delay=300ms", samples.ports[0]);
    let started = Instant::now();
    let said = tools::curl(["-sS", "--http2-prior-knowledge", "-X", "DELETE", &url]);
    assert!(started.elapsed() >= Duration::from_millis(300));
    let answer: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(
        (&answer["request"]["protocol"], &answer["request"]["method"]),
        (&"HTTP/2".into(), &"DELETE".into())
    );
    let refused = client::fetch(samples.ports[0], "/?delay=soon").expect("an answer");
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("`soon` is not a duration"), "{}", refused.text());
}

#[test]
fn at_the_end_it_tells_its_websockets_that_it_goes_away() {
    let samples = Samples::start("leaving", 1);
    let stream = Connection::open(samples.ports[0]).expect("serves").into_stream();
    let (mut socket, _) = tungstenite::client("ws://localhost/", stream).expect("an upgrade");
    samples.process.terminate();
    match socket.read().expect("a last frame") {
        Message::Close(Some(frame)) => assert_eq!(frame.code, CloseCode::Away),
        other => panic!("no closing frame: {other:?}"),
    }
    drop(socket);
    assert_eq!(samples.process.wait().status.code(), Some(0));
}

#[test]
fn weir_run_leaves_an_address_that_somebody_listens_on_to_them() {
    let owner = Samples::start("owner", 1);
    let (port, other) = (ports::free(), ports::free());
    let pool = PoolText::new("mixed", port, &[(owner.ports[0], 1), (other, 1)]).yaml();
    let asks = "  namespace: default\n  annotations: { weir.dev/demo-backends: \"true\" }\n";
    let folder = Folder::new();
    folder.write("pool.yaml", &pool.replace("  namespace: default\n", asks));
    let mut weir = Service::standalone(folder.path(), &[]);
    wait_for_backend(port, "/", "owner");
    wait_for_backend(port, "/", &format!("sample-{other}"));
    weir.process.wait_for_stderr(&format!("no sample backend on 127.0.0.1:{}", owner.ports[0]));
}

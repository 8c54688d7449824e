//! What is open stays open through changes.

use weir_tests::harness::client::Connection;
use weir_tests::harness::folder::Folder;
use weir_tests::harness::manifest::PoolText;
use weir_tests::harness::ports;
use weir_tests::harness::services::{Samples, Service, wait_for_backend};

const CHANGES: u32 = 200;

#[test]
fn a_websocket_and_a_kept_connection_outlive_200_changes_of_their_pool() {
    let (old, new) = (Samples::start("old", 1), Samples::start("new", 1));
    let port = ports::free();
    let folder = Folder::new();
    let old_port = old.ports[0];
    folder.write("pool.yaml", &PoolText::new("steady", port, &[(old_port, 1)]).yaml());
    let _weir = Service::standalone(folder.path(), &[]);
    let stream = Connection::open(port).expect("serves").into_stream();
    let (mut socket, _) = tungstenite::client("ws://localhost/", stream).expect("an upgrade");
    let mut kept = Connection::open(port).expect("serves");
    for change in 1..=CHANGES {
        folder.write("pool.yaml", &PoolText::new("steady", port, &[(old_port, change + 1)]).yaml());
        let answer = kept.get("/").expect("the connection is kept");
        assert_eq!((answer.status, answer.closes()), (200, false), "change {change}");
        let message = tungstenite::Message::text(change.to_string());
        socket.send(message.clone()).expect("open");
        assert_eq!(socket.read().expect("the echo"), message);
    }
    // The last one moves everything that is new; what is open stays where it is.
    folder.write("pool.yaml", &PoolText::new("steady", port, &new.equal()).yaml());
    wait_for_backend(port, "/", "new");
    assert_eq!(kept.get("/").expect("the connection is kept").json()["name"], "new");
    socket.send(tungstenite::Message::text("still")).expect("open");
    assert_eq!(socket.read().expect("the echo").to_text().expect("text"), "still");
}

#[test]
fn ten_megabytes_pass_whole_in_every_framing() {
    const BYTES: usize = 10 << 20;
    let samples = Samples::start("member", 1);
    let port = ports::free();
    let folder = Folder::new();
    folder.write("pool.yaml", &PoolText::new("large", port, &samples.equal()).yaml());
    let _weir = Service::standalone(folder.path(), &[]);
    let mut connection = Connection::open(port).expect("serves");

    let with_length =
        format!("PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: {BYTES}\r\n\r\n{}", "x".repeat(BYTES));
    let answer = connection.request(&with_length).expect("an answer");
    assert_eq!(answer.json()["request"]["bodyBytes"], BYTES, "{}", answer.status);

    let mut chunked = String::from("PUT /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..BYTES / (1 << 16) {
        chunked.push_str("10000\r\n");
        chunked.push_str(&"y".repeat(1 << 16));
        chunked.push_str("\r\n");
    }
    chunked.push_str("0\r\n\r\n");
    let answer = connection.request(&chunked).expect("an answer");
    assert_eq!(answer.json()["request"]["bodyBytes"], BYTES, "{}", answer.status);

    folder.write("body", &"z".repeat(BYTES));
    let upload = format!("@{}", folder.file("body").to_str().expect("text"));
    let url = format!("http://127.0.0.1:{port}/c");
    let said =
        weir_tests::harness::tools::curl(["-sS", "--http2-prior-knowledge", "--data-binary", &upload, &url]);
    let answer: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(answer["request"]["bodyBytes"], BYTES, "{said}");
}

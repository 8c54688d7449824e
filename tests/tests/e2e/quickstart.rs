//! `weir run examples/quickstart`, on other ports.

use std::collections::BTreeMap;
use tungstenite::Message;
use weir_tests::harness::client::{self, Connection};
use weir_tests::harness::folder::Folder;
use weir_tests::harness::services::Service;
use weir_tests::harness::{ports, tools};

struct Quickstart {
    _folder: Folder,
    weir: Service,
    http: u16,
    https: u16,
}

fn quickstart() -> Quickstart {
    let (http, https) = (ports::free(), ports::free());
    let mut replace = vec![
        ("port: 8080".to_owned(), format!("port: {http}")),
        ("port: 8443".to_owned(), format!("port: {https}")),
    ];
    for port in 9101..=9104 {
        replace.push((format!("port: {port}"), format!("port: {}", ports::free())));
    }
    let folder = Folder::copy_of_example("quickstart", &replace);
    let weir = Service::standalone(folder.path(), &[]);
    Quickstart { _folder: folder, weir, http, https }
}

fn names(connection: &mut Connection, target: &str, count: usize) -> BTreeMap<String, usize> {
    let mut names = BTreeMap::new();
    for _ in 0..count {
        let answer = connection.get(target).expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
        *names.entry(answer.json()["name"].as_str().expect("a name").to_owned()).or_default() += 1;
    }
    names
}

fn counts<const N: usize>(expected: [(&str, usize); N]) -> BTreeMap<String, usize> {
    expected.map(|(name, count)| (name.to_owned(), count)).into()
}

#[test]
fn requests_spread_by_weight_exactly_over_a_cycle() {
    let quickstart = quickstart();
    let mut connection = Connection::open(quickstart.http).expect("serves");
    for cycle in 0..3 {
        let seen = names(&mut connection, "/", 6);
        assert_eq!(seen, counts([("one", 3), ("two", 2), ("three", 1)]), "cycle {cycle}");
    }
}

#[test]
fn path_prefix_and_host_choose_the_backend_set() {
    let quickstart = quickstart();
    let mut connection = Connection::open(quickstart.http).expect("serves");
    for target in ["/api", "/api/", "/api/v1/users?id=1"] {
        assert_eq!(names(&mut connection, target, 4), counts([("api", 4)]), "{target}");
    }
    assert_eq!(names(&mut connection, "/apis", 6).get("api"), None, "a prefix is whole segments");
    let request = "GET /anything HTTP/1.1\r\nHost: api.localhost\r\n\r\n";
    assert_eq!(connection.request(request).expect("an answer").json()["name"], "api");
}

#[test]
fn https_speaks_http2_and_http1_as_the_client_asks_by_alpn() {
    let quickstart = quickstart();
    let url = format!("https://127.0.0.1:{}/tls", quickstart.https);
    for (flag, version) in [("--http2", "2"), ("--http1.1", "1.1")] {
        let said = tools::curl(["-sSk", flag, "-w", "\n%{http_version} %{http_code}", &url]);
        let (body, outcome) = said.trim_end().rsplit_once('\n').expect("two lines");
        assert_eq!(outcome, format!("{version} 200"), "{flag}");
        let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(body["request"]["headers"]["x-forwarded-proto"], "https", "{flag}");
        assert_eq!(body["request"]["path"], "/tls", "{flag}");
    }
}

#[test]
fn the_certificate_is_for_the_names_that_the_manifest_asks_for() {
    let quickstart = quickstart();
    let connect = format!("127.0.0.1:{}", quickstart.https);
    let shown = tools::run("openssl", ["s_client", "-connect", &connect, "-servername", "localhost"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let begin = shown.find("-----BEGIN CERTIFICATE-----").expect("a certificate");
    let folder = Folder::new();
    folder.write("shown.pem", &shown[begin..]);
    let file = folder.file("shown.pem");
    let file = file.to_str().expect("text");
    let names = tools::run("openssl", ["x509", "-in", file, "-noout", "-ext", "subjectAltName"]);
    let names = String::from_utf8_lossy(&names.stdout).into_owned();
    for name in ["DNS:localhost", "DNS:*.localhost", "IP Address:127.0.0.1"] {
        assert!(names.contains(name), "no {name} in {names}");
    }
}

#[test]
fn forwarded_headers_tell_the_backend_who_asked_for_what() {
    let quickstart = quickstart();
    let mut connection = Connection::open(quickstart.http).expect("serves");
    let answer = connection
        .request("POST /form?a=b HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 3\r\n\r\nabc")
        .expect("an answer");
    let seen = answer.json();
    let arrived = &seen["request"];
    assert_eq!(arrived["method"], "POST");
    assert_eq!((&arrived["path"], &arrived["query"]), (&"/form".into(), &"a=b".into()));
    assert_eq!(arrived["bodyBytes"], 3);
    let headers = &arrived["headers"];
    assert_eq!(headers["x-forwarded-for"], "127.0.0.1");
    assert_eq!(headers["x-forwarded-proto"], "http");
    assert_eq!(headers["x-forwarded-host"], "shop.example");
    assert_eq!(headers["host"], "shop.example");
}

#[test]
fn a_websocket_echoes_text_binary_and_pings_through_the_proxy_and_closes() {
    let quickstart = quickstart();
    let stream = Connection::open(quickstart.http).expect("serves").into_stream();
    let (mut socket, response) = tungstenite::client("ws://localhost/chat", stream).expect("an upgrade");
    assert_eq!(response.status(), 101);
    for message in
        [Message::text("hello"), Message::binary(vec![0, 255, 10]), Message::text("x".repeat(100_000))]
    {
        socket.send(message.clone()).expect("open");
        assert_eq!(socket.read().expect("the echo"), message);
    }
    socket.send(Message::Ping(vec![1].into())).expect("open");
    assert_eq!(socket.read().expect("the pong"), Message::Pong(vec![1].into()));
    socket.close(None).expect("open");
    assert!(matches!(socket.read(), Ok(Message::Close(_))));
}

#[test]
fn the_command_says_what_listens_where_and_metrics_count() {
    let quickstart = quickstart();
    client::fetch(quickstart.http, "/").expect("an answer");
    let said = quickstart.weir.process.stdout();
    for port in [quickstart.http, quickstart.https, quickstart.weir.admin] {
        assert!(said.contains(&format!("127.0.0.1:{port}")), "{port} is not in: {said}");
    }
    let metrics = client::fetch(quickstart.weir.admin, "/metrics").expect("an answer");
    assert_eq!(metrics.status, 200);
    assert!(metrics.text().lines().any(|line| line.starts_with("http_requests_total")), "{}", metrics.text());
}

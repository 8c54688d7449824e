//! The access log of the real binary: a line for each request, none of its secrets, and nobody who waits for it.

use crate::http2_client::over_http2;
use bytes::Bytes;
use http::Request;
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use weir_tests::harness::client::{self, Connection, read_to};
use weir_tests::harness::folder::Folder;
use weir_tests::harness::manifest::PoolText;
use weir_tests::harness::scripted::Scripted;
use weir_tests::harness::services::{Samples, Service};
use weir_tests::harness::{binaries, ports, tools, wait};

const RECORDS: &str = "weir_access_log_records_total";
const DROPPED: &str = "weir_access_log_dropped_total";

/// `weir run` with one pool, and a log in a folder of its own.
struct Site {
    weir: Service,
    _folder: Folder,
    logs: tempfile::TempDir,
    port: u16,
}

impl Site {
    fn start(pool: &PoolText, format: &str, flags: &[&str]) -> Self {
        Self::of(1, pool.port, &pool.yaml(), &[&["--access-log", format], flags].concat())
    }

    fn of(workers: usize, port: u16, manifest: &str, flags: &[&str]) -> Self {
        let (folder, logs) = (Folder::new(), tempfile::tempdir().expect("a folder"));
        folder.write("pool.yaml", manifest);
        let file = logs.path().join("access.log").to_str().expect("text").to_owned();
        let flags = [&["--access-log-file", file.as_str()], flags].concat();
        let weir = Service::standalone_of(workers, folder.path(), &flags);
        Self { weir, _folder: folder, logs, port }
    }

    /// Before one backend that does this with each connection.
    fn before(backend: &Scripted, format: &str) -> Self {
        Self::start(&PoolText::new("site", ports::free(), &[(backend.port, 1)]), format, &[])
    }

    fn file(&self) -> PathBuf {
        self.logs.path().join("access.log")
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.file()).unwrap_or_default()
    }

    /// The lines, once there are so many. One more fails.
    fn lines(&self, count: usize) -> Vec<String> {
        wait::until(&format!("{count} lines in the log:\n{}", self.text()), || {
            (self.text().lines().count() >= count).then_some(())
        });
        let lines: Vec<String> = self.text().lines().map(str::to_owned).collect();
        assert_eq!(lines.len(), count, "{lines:#?}");
        lines
    }

    fn records(&self, count: usize) -> Vec<Value> {
        let records = self.lines(count);
        records.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    fn connect(&self) -> Connection {
        Connection::open(self.port).expect("serves")
    }
}

/// Answers every request, and has a word for some paths.
fn backend() -> Scripted {
    Scripted::start(|_, exchange| {
        while let Some(head) = exchange.read_head() {
            match head.split(' ').nth(1).unwrap_or_default() {
                "/cut" => return exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart"),
                "/wrong" => return exchange.write("what\r\n\r\n"),
                "/broken" => exchange.write("HTTP/1.1 500 Broken\r\nContent-Length: 0\r\n\r\n"),
                "/wait" => drop(exchange.read_until("never")),
                "/call" => exchange.write(
                    "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n\
                     0\r\ngrpc-status: 5\r\n\r\n",
                ),
                "/socket" => {
                    let key = head.split("\r\n").find_map(|line| line.strip_prefix("sec-websocket-key: "));
                    let proof = tungstenite::handshake::derive_accept_key(key.expect("a key").as_bytes());
                    exchange.write(&format!(
                        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Accept: {proof}\r\n\r\n"
                    ));
                    exchange.echo();
                }
                _ => exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
            }
        }
    })
}

fn path_of<'r>(records: &'r [Value], path: &str) -> &'r Value {
    let found = records.iter().find(|record| record["path"] == path);
    found.unwrap_or_else(|| panic!("no record of {path}: {records:#?}"))
}

#[test]
fn each_request_has_one_record_that_tells_its_way_and_none_of_its_secrets() {
    let backend = backend();
    let site = Site::before(&backend, "json");
    let url = |path: &str| format!("http://localhost:{}{path}?key=secret", site.port);
    let fields = ["-H", "Cookie: a=secret", "-H", "Authorization: Bearer secret", "-H", "Referer: /?secret"];
    let [c, cookie, a, authorization, r, referer] = fields;
    for (version, path) in [("--http1.1", "/one"), ("--http2-prior-knowledge", "/two")] {
        let url = url(path);
        let said = tools::curl([
            "-sS",
            version,
            c,
            cookie,
            a,
            authorization,
            r,
            referer,
            "-A",
            "agent",
            "-H",
            "X-Request-Id: id-7",
            &url,
        ]);
        assert_eq!(said, "hello");
    }
    let records = site.records(2);
    let text = site.text();
    assert!(!text.contains("secret"), "{text}");
    for (path, protocol) in [("/one", "HTTP/1.1"), ("/two", "HTTP/2")] {
        let record = path_of(&records, path);
        for (name, value) in [
            ("kind", Value::from("request")),
            ("pool", "default/site".into()),
            ("rule", "rules[0]".into()),
            ("port", site.port.into()),
            ("client", "127.0.0.1".into()),
            ("method", "GET".into()),
            ("host", "localhost".into()),
            ("protocol", protocol.into()),
            ("scheme", "http".into()),
            ("request_id", "id-7".into()),
            ("user_agent", "agent".into()),
            ("status", 200.into()),
            ("request_bytes", 0.into()),
            ("response_bytes", 5.into()),
            ("backend", format!("127.0.0.1:{}", backend.port).into()),
            ("set", "default/site/all".into()),
            ("attempts", 1.into()),
        ] {
            assert_eq!(record[name], value, "{name} of {record}");
        }
        let ms = |name: &str| record[name].as_f64().unwrap_or_else(|| panic!("{name} of {record}"));
        assert!(ms("first_byte_ms") <= ms("duration_ms"), "{record}");
        assert!(record["peer"].as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:")), "{record}");
    }
    assert_eq!((&records[0]["reused"], &records[1]["reused"]), (&false.into(), &true.into()));
    assert!(records[0]["connect_ms"].is_number() && records[1]["connect_ms"].is_null());
    let mode = std::fs::metadata(site.file()).expect("a file").permissions().mode();
    assert_eq!(mode & 0o137, 0, "{mode:o}");
    assert_eq!((site.weir.metric(RECORDS), site.weir.metric(DROPPED)), (2, 0));
}

#[test]
fn every_failure_has_its_reason_also_where_no_route_was_looked_for() {
    let backend = backend();
    let mut pool = PoolText::new("site", ports::free(), &[(backend.port, 1)]);
    pool.hostname = Some("a".to_owned());
    pool.spec = vec!["retry: { attempts: 0 }".to_owned()];
    let site = Site::start(&pool, "json", &["--access-log-failures"]);
    let get = |host: &str, path: &str| format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let ask = |request: &str| site.connect().request(request).map(|answer| answer.status);
    // No failure.
    assert_eq!(ask(&get("a", "/good")).expect("an answer"), 200);
    assert_eq!(ask(&get("b", "/none?secret")).expect("an answer"), 404);
    assert_eq!(ask(&get("a", "/broken")).expect("an answer"), 500);
    assert_eq!(ask(&get("a", "/wrong")).expect("an answer"), 502);
    ask(&get("a", "/cut")).expect_err("it broke off");
    assert_eq!(ask("GET /malformed?secret HTTP/1.1\r\nHost : a\r\n\r\n").expect("an answer"), 400);
    let fields = "A: b\r\n".repeat(101);
    let large = format!("GET /fields?secret HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    assert_eq!(ask(&large).expect("an answer"), 431);
    let mut gone = site.connect();
    gone.send(get("a", "/wait").as_bytes()).expect("open");
    wait::until("it should be there", || {
        (site.weir.metric("weir_upstream_requests_in_flight") == 1).then_some(())
    });
    drop(gone);
    over_http2(site.port, async |mut client| {
        let request = Request::get("http://a/refused?secret").header("expect", "the-worst").body(());
        let (answer, _) = client.send_request(request.expect("a request"), true).expect("open");
        assert_eq!(answer.await.expect("an answer").status(), 417);
    });
    let records = site.records(8);
    for (path, method, status, reason) in [
        ("/none", "GET", 404, Some("no_route")),
        ("/broken", "GET", 500, None),
        ("/wrong", "GET", 502, Some("backend_invalid")),
        ("/cut", "GET", 200, Some("backend_closed")),
        ("/malformed", "GET", 400, Some("bad_request")),
        ("/fields", "GET", 431, Some("too_many_headers")),
        ("/wait", "GET", 499, Some("client_gone")),
        ("/refused", "GET", 417, Some("expectation_failed")),
    ] {
        let record = path_of(&records, path);
        assert_eq!((&record["method"], &record["status"]), (&method.into(), &status.into()), "{record}");
        assert_eq!(record["reason"], Value::from(reason), "{record}");
    }
    assert_eq!(path_of(&records, "/cut")["response_bytes"], 4);
    assert!(!site.text().contains("secret"));
}

#[test]
fn a_websocket_has_its_record_at_its_end_and_a_call_its_status() {
    let backend = backend();
    let site = Site::before(&backend, "json");
    let request = "GET /socket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let mut socket = site.connect().into_stream();
    socket.write_all(request.as_bytes()).expect("open");
    assert!(read_to(&socket, "\r\n\r\n").starts_with("HTTP/1.1 101"));
    // A text of two letters, under a mask of nothing.
    let frame = [0x81, 0x82, 0, 0, 0, 0, b'h', b'i'];
    socket.write_all(&frame).expect("open");
    let mut echoed = [0; 8];
    socket.read_exact(&mut echoed).expect("the echo");
    over_http2(site.port, async |mut client| {
        let request = Request::post("http://a/call").header("content-type", "application/grpc").body(());
        let (answer, mut up) = client.send_request(request.expect("a request"), false).expect("open");
        up.send_data(Bytes::from_static(b"\0\0\0\0\0"), true).expect("open");
        let mut body = answer.await.expect("an answer").into_body();
        assert!(body.data().await.is_none());
        assert_eq!(body.trailers().await.expect("whole").expect("some")["grpc-status"], "5");
    });
    // The socket is open: it has none.
    let call = &site.records(1)[0];
    assert_eq!((&call["path"], &call["grpc_status"]), (&"/call".into(), &5.into()), "{call}");
    assert_eq!((&call["status"], &call["request_bytes"]), (&200.into(), &5.into()), "{call}");
    drop(socket);
    let records = site.records(2);
    let socket = path_of(&records, "/socket");
    assert_eq!((&socket["kind"], &socket["status"]), (&"websocket".into(), &101.into()), "{socket}");
    let bytes = (&socket["request_bytes"], &socket["response_bytes"]);
    assert_eq!(bytes, (&8.into(), &8.into()), "{socket}");
}

#[test]
fn a_connection_of_layer_4_has_its_record_at_its_end() {
    let backend = Scripted::start(|_, exchange| exchange.echo());
    let port = ports::free();
    let manifest = PoolText::new("raw", port, &[(backend.port, 1)]).yaml().replace("HTTP\n", "TCP\n");
    let manifest = manifest.replace("  timeouts: { request: 30s,  }\n", "");
    let site = Site::of(1, port, &manifest, &["--access-log", "json"]);
    let mut stream = site.connect().into_stream();
    stream.write_all(b"hello").expect("open");
    assert_eq!(read_to(&stream, "hello"), "hello");
    assert_eq!(site.text(), "");
    drop(stream);
    let record = &site.records(1)[0];
    for (name, value) in [
        ("kind", Value::from("connection")),
        ("pool", "default/raw".into()),
        ("port", port.into()),
        ("client", "127.0.0.1".into()),
        ("request_bytes", 5.into()),
        ("response_bytes", 5.into()),
        ("backend", format!("127.0.0.1:{}", backend.port).into()),
        ("status", Value::Null),
        ("path", Value::Null),
    ] {
        assert_eq!(record[name], value, "{name} of {record}");
    }
}

#[test]
fn common_and_combined_lines_are_those_that_tools_read() {
    let backend = backend();
    for (format, end) in [("common", ""), ("combined", r#" "-" "agent\x22""#)] {
        let site = Site::before(&backend, format);
        let url = format!("http://localhost:{}/a?secret", site.port);
        tools::curl(["-sS", "-A", "agent\"", &url]);
        let line = site.lines(1).remove(0);
        let (client, rest) = line.split_once(" - - [").expect("who");
        let (date, rest) = rest.split_once("] ").expect("when");
        assert_eq!((client, rest), ("127.0.0.1", format!("\"GET /a HTTP/1.1\" 200 5{end}").as_str()));
        assert!(date.len() == 26 && date.ends_with(" +0000") && date.as_bytes()[11] == b':', "{date}");
    }
}

/// Requests over both versions, and how many there were.
fn load(port: u16, each: u32) -> u32 {
    let (url, requests) = (format!("http://127.0.0.1:{port}/load"), format!("-n{each}"));
    for version in ["--h1", "-ph2c"] {
        let output = tools::run("h2load", [version, &requests, "-c8", "-t1", &url]);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains(&format!(" {each} succeeded, 0 failed, 0 errored, 0 timeout")), "{said}");
    }
    each * 2
}

#[test]
fn ten_thousand_requests_have_ten_thousand_records() {
    let samples = Samples::start("member", 2);
    let pool = PoolText::new("site", ports::free(), &samples.equal());
    let site = Site::of(2, pool.port, &pool.yaml(), &["--access-log", "json"]);
    let requests = load(site.port, 5_000) as usize;
    let records = site.records(requests);
    assert!(records.iter().all(|record| record["path"] == "/load" && record["status"] == 200));
    let of = |protocol: &str| records.iter().filter(|record| record["protocol"] == protocol).count();
    assert_eq!((of("HTTP/1.1"), of("HTTP/2")), (requests / 2, requests / 2));
    let counts = (site.weir.metric(RECORDS), site.weir.metric(DROPPED));
    assert_eq!(counts, (requests as u64, 0));
}

#[test]
fn a_share_of_the_requests_is_logged_and_all_is_written_at_the_end() {
    let samples = Samples::start("member", 1);
    let pool = PoolText::new("site", ports::free(), &samples.equal());
    let Site { weir, logs, port, _folder } = Site::start(&pool, "json", &["--access-log-share", "0.1"]);
    let requests = load(port, 2_000);
    assert_eq!(requests, 4_000);
    weir.process.terminate();
    assert_eq!(weir.process.wait().status.code(), Some(0));
    let logged = std::fs::read_to_string(logs.path().join("access.log")).expect("a file").lines().count();
    // 400 with a deviation of 19.
    assert!((280..520).contains(&logged), "{logged}");
}

#[test]
fn a_file_that_is_rotated_is_followed_with_a_signal_and_without() {
    let backend = backend();
    let site = Site::before(&backend, "json");
    let get = |path: &str| assert_eq!(client::fetch(site.port, path).expect("an answer").status, 200);
    get("/one");
    site.lines(1);
    let rotated = |n: u32| site.logs.path().join(format!("access.log.{n}"));
    std::fs::rename(site.file(), rotated(1)).expect("renamed");
    site.weir.process.hang_up();
    wait::until("the signal should make a file", || site.file().exists().then_some(()));
    get("/two");
    assert_eq!(site.records(1)[0]["path"], "/two");
    std::fs::rename(site.file(), rotated(2)).expect("renamed");
    // Looked at once a second, when there is something to write.
    wait::until("a file should be made by itself", || {
        get("/three");
        site.file().exists().then_some(())
    });
    let old = std::fs::read_to_string(rotated(1)).expect("a file");
    assert_eq!(old.lines().count(), 1, "{old}");
    assert_eq!(site.weir.metric(DROPPED), 0);
}

#[test]
fn a_full_disk_delays_no_request_and_is_counted() {
    let backend = backend();
    let folder = Folder::new();
    let port = ports::free();
    folder.write("pool.yaml", &PoolText::new("site", port, &[(backend.port, 1)]).yaml());
    let mut weir =
        Service::standalone(folder.path(), &["--access-log", "common", "--access-log-file", "/dev/full"]);
    for _ in 0..20 {
        assert_eq!(client::fetch(port, "/").expect("an answer").status, 200);
    }
    wait::until("lines should be dropped", || (weir.metric(DROPPED) == 20).then_some(()));
    assert_eq!(weir.metric(RECORDS), 0);
    let said = weir.process.wait_for_stderr("lines of the access log cannot be written");
    assert!(said.contains("/dev/full"), "{said}");
    assert_eq!(weir.process.stderr().matches("cannot be written").count(), 1, "told once a minute");
}

#[test]
fn a_standard_output_that_nobody_reads_delays_neither_requests_nor_the_end() {
    let samples = Samples::start("member", 1);
    let (folder, port, admin) = (Folder::new(), ports::free(), ports::free());
    folder.write("pool.yaml", &PoolText::new("site", port, &samples.equal()).yaml());
    let mut command = Command::new(binaries::path("weir"));
    command.env_remove("HOME").env_remove("XDG_STATE_HOME").stdout(Stdio::piped()).stderr(Stdio::null());
    command.arg("run").arg(folder.path()).args(["--workers", "1", "--access-log", "json"]);
    command.args(["--admin", &client::local(admin).to_string()]);
    let mut weir = command.spawn().expect("it starts");
    let pipe = weir.stdout.take().expect("piped");
    weir_tests::harness::services::wait_for_status(admin, "/readyz", 200);
    // Far more than a pipe, the channel and a batch hold.
    let requests = load(port, 10_000);
    assert_eq!(requests, 20_000);
    let asked = Connection::open(admin).expect("serves").get("/metrics").expect("an answer").text();
    let dropped = asked.lines().find_map(|line| line.strip_prefix(&format!("{DROPPED} ")));
    assert!(dropped.is_some_and(|count| count.parse::<u64>().is_ok_and(|count| count > 0)), "{asked}");
    let pid = rustix::process::Pid::from_child(&weir);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
    let status = wait::until("it should end", || weir.try_wait().expect("a child"));
    assert_eq!(status.code(), Some(0));
    drop(pipe);
}

#[test]
fn a_file_that_cannot_be_made_is_named() {
    let folder = Folder::new();
    let flags = ["--access-log", "json", "--access-log-file", "/no/such/folder/access.log"];
    let mut command = Command::new(binaries::path("weir"));
    command.env_remove("HOME").env_remove("XDG_STATE_HOME").arg("run").arg(folder.path()).args(flags);
    let admin = client::local(ports::free()).to_string();
    let output = command.args(["--admin", &admin]).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("/no/such/folder/access.log: choose another file with --access-log-file"),
        "{said}"
    );
}

//! Sessions across processes: what outlives a restart, and what proxies share.

mod cookies;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use weir_tests::harness::binaries;
use weir_tests::harness::client::{Connection, local};
use weir_tests::harness::folder::Folder;
use weir_tests::harness::manifest::PoolText;
use weir_tests::harness::process::Process;
use weir_tests::harness::services::{Samples, Service, wait_for_status};
use weir_tests::harness::{ports, wait};

/// What came back, and what the backend saw.
struct Came {
    backend: String,
    /// The pair of `Set-Cookie`.
    set: Option<String>,
    /// The `Cookie` that reached the backend.
    cookies: Option<String>,
}

fn ask(port: u16, field: &str) -> Came {
    let mut connection = Connection::open(port).expect("serves");
    let request = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{field}\r\nConnection: close\r\n\r\n");
    let answer = connection.request(&request).expect("an answer");
    let echo = answer.json();
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    Came {
        backend: text(&echo["address"]).expect("who answered"),
        set: answer.header("set-cookie").and_then(|set| set.split(';').next()).map(str::to_owned),
        cookies: text(&echo["request"]["headers"]["cookie"]),
    }
}

fn pool(port: u16, backends: &[(u16, u32)], sessions: &str) -> String {
    let pool = PoolText::new("sticky", port, backends).yaml();
    format!("{pool}  sessionPersistence: {sessions}\n")
}

/// A folder of state beside the manifests, and its path of keys.
fn keys(state: &Folder) -> String {
    state.path().join("keys").to_str().expect("text").to_owned()
}

#[test]
fn a_cookie_keeps_its_backend_over_a_restart_and_is_nothing_to_a_process_of_other_keys() {
    let samples = Samples::start("member", 4);
    let (port, folder, state) = (ports::free(), Folder::new(), Folder::new());
    folder.write("pool.yaml", &pool(port, &samples.equal(), "{ type: Cookie }"));
    let weir = Service::standalone(folder.path(), &["--keys", &keys(&state)]);
    wait_for_status(port, "/", 200);
    let begun = ask(port, "Cookie: a=1");
    let cookie = begun.set.expect("a session begins");
    assert!(cookie.starts_with("LB_SESSION="), "{cookie}");
    let follows = || {
        for _ in 0..8 {
            let came = ask(port, &format!("Cookie: a=1; {cookie}"));
            assert_eq!((came.backend.as_str(), came.set.as_deref()), (begun.backend.as_str(), None));
            assert_eq!(came.cookies.as_deref(), Some("a=1"), "ours is not the backend's to see");
        }
    };
    follows();
    weir.process.kill();
    let weir = Service::standalone(folder.path(), &["--keys", &keys(&state)]);
    wait_for_status(port, "/", 200);
    follows();
    weir.process.kill();
    let _other = Service::standalone(folder.path(), &[]);
    wait_for_status(port, "/", 200);
    let replaced = ask(port, &format!("Cookie: {cookie}")).set.expect("another session begins");
    assert_ne!(replaced, cookie);
}

#[test]
fn a_session_moves_when_its_backend_goes_and_stays_there() {
    let samples = Samples::start("member", 3);
    let (port, folder) = (ports::free(), Folder::new());
    folder.write("pool.yaml", &pool(port, &samples.equal(), "{ type: Cookie }"));
    let _weir = Service::standalone(folder.path(), &[]);
    wait_for_status(port, "/", 200);
    let begun = ask(port, "Cookie: a=1");
    let cookie = begun.set.expect("a session begins");
    let left: Vec<_> = samples
        .equal()
        .into_iter()
        .filter(|(port, _)| !begun.backend.ends_with(&format!(":{port}")))
        .collect();
    assert_eq!(left.len(), 2, "{}", begun.backend);
    folder.write("pool.yaml", &pool(port, &left, "{ type: Cookie }"));
    let moved = wait::until("the session should move", || {
        let came = ask(port, &format!("Cookie: {cookie}"));
        (came.backend != begun.backend).then_some(came)
    });
    let cookie = moved.set.expect("it says so");
    folder.write("pool.yaml", &pool(port, &samples.equal(), "{ type: Cookie }"));
    let users: BTreeSet<String> = (0..20).map(|_| ask(port, &format!("Cookie: {cookie}")).backend).collect();
    assert_eq!(users, BTreeSet::from([moved.backend]));
}

#[test]
fn proxies_that_share_a_store_send_a_session_to_one_backend() {
    let samples = Samples::start("member", 4);
    let redis = ports::free();
    let server = ["--bind", "127.0.0.1", "--port", &redis.to_string(), "--save", "", "--appendonly", "no"];
    let _server = Process::start(Command::new("redis-server").args(server));
    let store = format!("redis://127.0.0.1:{redis}");
    let sessions = "{ type: Header, sessionName: x-user }";
    let run = |backends: &[(u16, u32)]| {
        let (port, folder) = (ports::free(), Folder::new());
        folder.write("pool.yaml", &pool(port, backends, sessions));
        let mut weir = Service::standalone(folder.path(), &["--session-store", &store]);
        wait_for_status(port, "/", 200);
        weir.process.wait_for_stderr("the session store answers");
        (port, folder, weir)
    };
    let all = samples.equal();
    // By itself the second would choose among four.
    let (one, two) = (run(&all[..1]), run(&all));
    let home = ask(one.0, "x-user: 0").backend;
    let entries = || {
        let mut stream = TcpStream::connect(local(redis)).expect("the store is there");
        stream.write_all(b"DBSIZE\r\nQUIT\r\n").expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let count = answer.lines().next().and_then(|line| line.strip_prefix(':')?.parse::<usize>().ok());
        count.expect("a number")
    };
    // A store that answers late is not waited for, and on a busy machine any may: then others are asked for.
    let mut users = (1..).step_by(12);
    wait::until("twelve sessions should be in the store and found by the other proxy", || {
        let (begin, before) = (users.next().expect("without end"), entries());
        let batch = begin..begin + 12;
        for user in batch.clone() {
            assert_eq!(ask(one.0, &format!("x-user: {user}")).backend, home);
        }
        let are_written = (0..50).any(|_| entries() == before + 12);
        let mut follows = batch.map(|user| ask(two.0, &format!("x-user: {user}")).backend == home);
        (are_written && follows.all(|follows| follows)).then_some(())
    });
    let elsewhere = (0..28).map(|user| ask(two.0, &format!("x-user: never {user}")).backend);
    assert!(elsewhere.collect::<BTreeSet<_>>().len() > 1, "without a session they go everywhere");
}

#[test]
fn keys_that_others_may_read_and_a_store_of_another_kind_end_the_start_with_a_sentence() {
    let (folder, state) = (Folder::new(), Folder::new());
    let manifests = folder.path().to_str().expect("text");
    let refused = |flags: &[&str]| {
        let mut command = Command::new(binaries::path("weir"));
        let ended = Process::start(command.args(["run", manifests]).args(flags)).wait();
        assert_eq!(ended.status.code(), Some(2), "{flags:?}: {}", ended.stderr);
        ended.stderr
    };
    let file = keys(&state);
    fs::write(&file, "").expect("written");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("set");
    let said = refused(&["--keys", &file]);
    assert!(said.contains(&file) && said.contains("644"), "{said}");
    let within = folder.path().join("keys");
    let said = refused(&["--keys", within.to_str().expect("text")]);
    assert!(said.contains("among the manifests") && !within.exists(), "{said}");
    let url = "http://weir:swordfish@localhost";
    let said = refused(&["--keys", &keys(&Folder::new()), "--session-store", url]);
    assert!(said.contains("--session-store") && said.contains("redis://"), "{said}");
    assert!(!said.contains("swordfish"), "{said}");
}

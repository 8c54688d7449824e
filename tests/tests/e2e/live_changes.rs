//! Changes to the folder while requests flow.

use std::time::{Duration, Instant};
use weir_tests::harness::folder::Folder;
use weir_tests::harness::load::{Clients, Load};
use weir_tests::harness::manifest::PoolText;
use weir_tests::harness::services::{Samples, Service, wait_for_backend, wait_for_status};
use weir_tests::harness::{client, ports, tools, wait};

const CLIENTS: Clients = Clients { kept: 4, fresh: 2 };

/// Moves all traffic between two backends `moves` times under load and returns the time from each rename to the
/// new backend's first answer.
fn move_traffic(moves: usize) -> Vec<Duration> {
    let (old, new) = (Samples::start("old", 1), Samples::start("new", 1));
    let port = ports::free();
    let folder = Folder::new();
    let to = |samples: &Samples| PoolText::new("moving", port, &samples.equal()).yaml();
    folder.write("pool.yaml", &to(&old));
    let _weir = Service::standalone(folder.path(), &[]);
    wait_for_backend(port, "/", "old");
    (0..moves)
        .map(|_| {
            let load = Load::start(port, CLIENTS);
            wait::until("the load should flow", || (load.seen().good > 50).then_some(()));
            let renamed = folder.write("pool.yaml", &to(&new));
            let answered =
                wait::until("the new backend should answer", || load.seen().first_answer.get("new").copied());
            folder.write("pool.yaml", &to(&old));
            let before = load.seen().answers["old"];
            wait::until("the old backend should answer again", || {
                (load.seen().answers["old"] > before + 20).then_some(())
            });
            load.assert_no_failure();
            answered.duration_since(renamed)
        })
        .collect()
}

#[test]
fn editing_a_manifest_moves_traffic_and_no_request_fails() {
    let mut took = move_traffic(5);
    took.sort();
    // For people: the bench measures, and a test machine has other things to do.
    #[allow(clippy::print_stdout, reason = "shown with --nocapture")]
    {
        println!("from rename() to the first answer by the new backend: {took:?}");
    }
    assert!(took[4] < Duration::from_secs(5), "{took:?}");
}

#[test]
fn editing_a_manifest_under_wrk_breaks_no_socket_and_no_answer() {
    // A client that is not ours: its idea of a broken connection counts too.
    let (old, new) = (Samples::start("old", 1), Samples::start("new", 1));
    let port = ports::free();
    let folder = Folder::new();
    let to = |samples: &Samples| PoolText::new("measured", port, &samples.equal()).yaml();
    folder.write("pool.yaml", &to(&old));
    let _weir = Service::standalone(folder.path(), &[]);
    wait_for_backend(port, "/", "old");
    let url = format!("http://127.0.0.1:{port}/");
    let wrk = std::thread::spawn(move || tools::run("wrk", ["-t1", "-c16", "-d2s", &url]));
    let mut edits = 0;
    while !wrk.is_finished() {
        for (samples, name) in [(&new, "new"), (&old, "old")] {
            folder.write("pool.yaml", &to(samples));
            wait_for_backend(port, "/", name);
            edits += 1;
        }
    }
    let output = wrk.join().expect("wrk can be run");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(edits >= 4, "{edits} edits while this ran: {said}");
    let requests = said.lines().find_map(|line| line.trim().split_once(" requests in "));
    let requests: u64 = requests.and_then(|(count, _)| count.parse().ok()).expect("wrk counts");
    assert!(requests > 100, "{said}");
    assert!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "after {edits} edits: {said}");
}

#[test]
fn a_backend_of_weight_zero_gets_nothing_new_and_no_request_fails() {
    let samples = Samples::start("member", 2);
    let port = ports::free();
    let folder = Folder::new();
    folder.write("pool.yaml", &PoolText::new("weights", port, &samples.equal()).yaml());
    let _weir = Service::standalone(folder.path(), &[]);
    wait_for_status(port, "/", 200);
    let load = Load::start(port, CLIENTS);
    wait::until("both should answer", || (load.seen().answers.len() == 2).then_some(()));
    let weights = [(samples.ports[0], 0), (samples.ports[1], 1)];
    folder.write("pool.yaml", &PoolText::new("weights", port, &weights).yaml());
    wait::until("member-1 should fall silent", || {
        let before = load.seen();
        wait::until("the load should flow", || (load.seen().good > before.good + 50).then_some(()));
        (load.seen().answers["member-1"] == before.answers["member-1"]).then_some(())
    });
    assert_eq!(load.stop().failures, Vec::<String>::new());
}

#[test]
fn a_listener_moves_to_another_port_and_the_old_port_closes() {
    let samples = Samples::start("member", 1);
    let (first, second) = (ports::free(), ports::free());
    let folder = Folder::new();
    folder.write("pool.yaml", &PoolText::new("ports", first, &samples.equal()).yaml());
    let _weir = Service::standalone(folder.path(), &[]);
    wait_for_status(first, "/", 200);
    folder.write("pool.yaml", &PoolText::new("ports", second, &samples.equal()).yaml());
    wait_for_status(second, "/", 200);
    wait::until("the old port should close", || client::fetch(first, "/").is_err().then_some(()));
}

#[test]
fn a_removed_manifest_removes_its_pool_and_a_new_one_adds_it() {
    let samples = Samples::start("member", 1);
    let (first, second) = (ports::free(), ports::free());
    let folder = Folder::new();
    folder.write("first.yaml", &PoolText::new("first", first, &samples.equal()).yaml());
    let _weir = Service::standalone(folder.path(), &[]);
    wait_for_status(first, "/", 200);
    folder.write("second.yaml", &PoolText::new("second", second, &samples.equal()).yaml());
    wait_for_status(second, "/", 200);
    std::fs::remove_file(folder.file("first.yaml")).expect("it is there");
    wait::until("the first pool should close", || client::fetch(first, "/").is_err().then_some(()));
    assert_eq!(client::fetch(second, "/").expect("an answer").status, 200);
}

#[test]
fn a_request_without_a_route_gets_404_and_the_reason() {
    let samples = Samples::start("member", 1);
    let port = ports::free();
    let mut pool = PoolText::new("routes", port, &samples.equal());
    pool.hostname = Some("shop.example".to_owned());
    pool.path = Some("/cart".to_owned());
    let folder = Folder::new();
    folder.write("pool.yaml", &pool.yaml());
    let _weir = Service::standalone(folder.path(), &[]);
    let mut connection = client::Connection::open(port).expect("serves");
    for (host, path, status) in
        [("shop.example", "/cart/1", 200), ("shop.example", "/carts", 404), ("other.example", "/cart", 404)]
    {
        let answer =
            connection.request(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).expect("an answer");
        assert_eq!(answer.status, status, "{host}{path}");
        if status == 404 {
            assert_eq!(answer.header("content-type"), Some("application/json"));
            assert_eq!(answer.json()["reason"], "no_route");
        }
    }
}

#[test]
fn a_request_slower_than_its_time_out_gets_504_in_time() {
    let samples = Samples::start("member", 1);
    let port = ports::free();
    let mut pool = PoolText::new("slow", port, &samples.equal());
    pool.request_timeout = "200ms".to_owned();
    let folder = Folder::new();
    folder.write("pool.yaml", &pool.yaml());
    let _weir = Service::standalone(folder.path(), &[]);
    let started = Instant::now();
    let answer = client::fetch(port, "/?delay=10s").expect("an answer");
    assert_eq!((answer.status, answer.json()["reason"].as_str()), (504, Some("backend_timeout")));
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn backends_that_are_gone_give_502_or_503_with_a_reason_and_heal() {
    let samples = Samples::start("member", 1);
    let gone = ports::free();
    let port = ports::free();
    let folder = Folder::new();
    folder.write("pool.yaml", &PoolText::new("gone", port, &[(gone, 1)]).yaml());
    let _weir = Service::standalone(folder.path(), &[]);
    let answer = client::fetch(port, "/").expect("an answer");
    assert_eq!((answer.status, answer.json()["reason"].as_str()), (502, Some("connect_failed")));
    folder.write("pool.yaml", &PoolText::new("gone", port, &samples.equal()).yaml());
    wait_for_status(port, "/", 200);
}

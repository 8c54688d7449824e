//! A real protocol of datagrams: DNS, with a server and a load that others wrote.

use super::udp::{manifest, start};
use super::{Text, apart};
use std::process::Command;
use weir_tests::harness::folder::Folder;
use weir_tests::harness::process::Process;
use weir_tests::harness::{network, ports, tools, wait};

/// Sockets of the load, and so flows.
const FLOWS: u64 = 20;
/// Flows are placed in turn: all come from one address.
const IN_TURN: &str = "loadBalancing: { algorithm: RoundRobin },";

/// A name server of one name, once it answers.
fn server(port: u16, folder: &Folder) -> Process {
    let mut command = Command::new("dnsmasq");
    command.args([
        "--no-daemon",
        "--no-resolv",
        "--no-hosts",
        "--conf-file=/dev/null",
        "--pid-file",
        "--user=root",
    ]);
    command.args(["--bind-interfaces", "--listen-address=127.0.0.1", &format!("--port={port}")]);
    command.arg("--address=/example.org/192.0.2.1");
    let process = Process::start(&mut command);
    let queries = queries(folder, 1);
    wait::until("the name server should answer", || {
        let port = port.to_string();
        let output =
            tools::run("dnsperf", ["-s", "127.0.0.1", "-p", &port, "-d", &queries, "-n", "1", "-t", "1"]);
        (Told::of(&String::from_utf8_lossy(&output.stdout)).completed == 1).then_some(())
    });
    process
}

/// A file of so many questions.
fn queries(folder: &Folder, count: usize) -> String {
    let name = format!("queries-{count}");
    folder.write(&name, &"www.example.org A\n".repeat(count));
    folder.path().join(name).to_str().expect("text").to_owned()
}

/// What the load says at its end.
struct Told {
    sent: u64,
    completed: u64,
    lost: u64,
    text: String,
}

impl Told {
    fn of(text: &str) -> Self {
        let number = |label: &str| {
            let rest = text.lines().find_map(|line| line.trim().strip_prefix(label));
            rest.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
        };
        let [sent, completed, lost] = ["Queries sent:", "Queries completed:", "Queries lost:"].map(number);
        Self { sent, completed, lost, text: text.to_owned() }
    }

    /// Every answer that came is the server's own.
    fn assert_answers_are_right(&self) {
        let right = format!("NOERROR {} (100.00%)", self.completed);
        assert!(self.completed > 0 && self.text.contains(&right), "{}", self.text);
    }
}

/// So many questions through this port, some a second, and so many of them unanswered at once; a second for each.
fn load(port: u16, folder: &Folder, count: usize, at_once: u64) -> Process {
    let mut command = Command::new("dnsperf");
    let flows = FLOWS.to_string();
    command.args([
        "-s",
        "127.0.0.1",
        "-p",
        &port.to_string(),
        "-d",
        &queries(folder, count),
        "-n",
        "1",
        "-t",
        "1",
    ]);
    command.args(["-c", &flows, "-q", &at_once.to_string(), "-T", "1", "-Q", "1500"]);
    Process::start(&mut command)
}

#[test]
fn names_are_answered_while_a_name_server_comes_and_another_is_killed() {
    let files = Folder::new();
    let ports: Vec<u16> = (0..3).map(|_| ports::free()).collect();
    let servers: Vec<_> = ports.iter().map(|port| server(*port, &files)).collect();
    let text = Text { spec: IN_TURN, ..Text::default() };
    let site = start(&ports[..2], &text, &[]);
    let answered = |nth: usize| site.weir.backends().get(&ports[nth]).map_or(0, |backend| backend.requests);

    let load = load(site.port, &files, 6000, FLOWS);
    wait::until("both should have flows", || (answered(0) > 5 && answered(1) > 5).then_some(()));
    site.folder.write("pool.yaml", &manifest(site.port, &ports, &text));
    wait::until("the third should be known", || site.weir.backends().contains_key(&ports[2]).then_some(()));
    assert_eq!(answered(2), 0, "flows stay where they are");
    let [first, _second, _third] = servers.try_into().expect("three");
    first.kill();
    wait::until("the third should have flows", || (answered(2) > 0).then_some(()));

    let told = Told::of(&load.wait().stdout);
    told.assert_answers_are_right();
    assert_eq!(told.sent, 6000, "{}", told.text);
    // Those under way to the one that was killed, and of each of its flows the one that found its port closed.
    assert!(told.lost <= 2 * FLOWS, "{}", told.text);
}

#[test]
fn flows_go_on_where_five_datagrams_of_a_hundred_get_lost() {
    let files = Folder::new();
    let (_inside, _network) = apart();
    let ports: Vec<u16> = (0..2).map(|_| ports::free()).collect();
    let _servers: Vec<_> = ports.iter().map(|port| server(*port, &files)).collect();
    let site = start(&ports, &Text { spec: IN_TURN, ..Text::default() }, &[]);
    network::lose(5);
    let told = Told::of(&load(site.port, &files, 3000, 1000).wait().stdout);
    told.assert_answers_are_right();
    // There and back again, by way of the proxy: four times 5 % make 18.5 %.
    let lost = told.lost as f64 / told.sent as f64;
    assert!((0.10..0.30).contains(&lost), "{}", told.text);
    assert_eq!(site.weir.metric("weir_udp_flows_total"), FLOWS, "none was placed anew");
}

//! What others ask of an implementation: h2spec, and gRPC's interoperability tests.

use super::Site;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use weir_tests::harness::client::Connection;
use weir_tests::harness::folder::Folder;
use weir_tests::harness::manifest::PoolText;
use weir_tests::harness::process::Process;
use weir_tests::harness::services::Samples;
use weir_tests::harness::{binaries, ports, tools, wait};

/// Seconds that h2spec waits for an answer. Most of its cases are over at once; some wait for a close that comes at once too.
const H2SPEC_WAIT_S: &str = "5";

/// The cases of gRPC's interoperability tests that need no account at a cloud: all four kinds of calls, empty and large
/// messages, metadata both ways, statuses, cancellation and deadlines.
const GRPC_CASES: [&str; 16] = [
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "timeout_on_sleeping_server",
    "cancel_after_begin",
    "cancel_after_first_response",
    "status_code_and_message",
    "special_status_message",
    "custom_metadata",
    "unimplemented_method",
    "unimplemented_service",
    "rpc_soak",
    "channel_soak",
];

/// Where a judge is. The first call builds what is missing.
pub(crate) fn judge(name: &str) -> Command {
    static FOUND: OnceLock<BTreeMap<String, PathBuf>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let build = binaries::workspace().join("tests/judges/build");
        let output = Command::new(&build).stderr(Stdio::inherit()).output();
        let output = output.unwrap_or_else(|error| panic!("{} does not start: {error}", build.display()));
        assert!(output.status.success(), "{} failed; what it said is above", build.display());
        let text = String::from_utf8(output.stdout).expect("names and paths");
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        pairs.map(|(name, path)| (name.to_owned(), PathBuf::from(path))).collect()
    });
    Command::new(found.get(name).unwrap_or_else(|| panic!("tests/judges/build knows no {name}")))
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn h2spec(site: &Site, flags: &[&str]) {
    let mut command = judge("h2spec");
    command.args(["-h", "127.0.0.1", "-p", &site.port.to_string(), "-o", H2SPEC_WAIT_S]).args(flags);
    let output = command.output().expect("h2spec starts");
    let said = said(&output);
    assert!(said.contains("145 tests, 145 passed, 0 skipped, 0 failed"), "{said}");
}

#[test]
fn h2spec_passes_all_145_cases_over_cleartext() {
    let samples = Samples::start("judged", 1);
    h2spec(&Site::of(&PoolText::new("judged", ports::free(), &samples.equal())), &[]);
}

#[test]
fn h2spec_passes_all_145_cases_over_tls() {
    let samples = Samples::start("judged", 1);
    h2spec(&Site::over_tls(&PoolText::new("judged", ports::free(), &samples.equal())), &["-t", "-k"]);
}

/// The server of the interoperability tests, and a pool before it.
fn grpc() -> (Process, PoolText) {
    let port = ports::free();
    let server = Process::start(judge("grpc-server").args(["--port", &port.to_string()]));
    wait::until("the server should listen", || Connection::open(port).ok());
    let mut pool = PoolText::new("calls", ports::free(), &[(port, 1)]);
    pool.set = vec!["protocol: HTTP2".to_owned()];
    (server, pool)
}

fn assert_cases_pass(site: &Site, flags: &[&str]) {
    let failed = GRPC_CASES.iter().filter_map(|case| {
        let mut command = judge("grpc-client");
        command.args(["--server_host", "127.0.0.1", "--server_port", &site.port.to_string()]);
        command.args(["--test_case", case, "--soak_iterations", "50"]).args(flags);
        let output = command.output().expect("the client starts");
        (!output.status.success()).then(|| format!("{case}: {}", said(&output)))
    });
    let failed: Vec<String> = failed.collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn the_16_interoperability_cases_of_grpc_pass() {
    let (_server, pool) = grpc();
    assert_cases_pass(&Site::of(&pool), &[]);
}

#[test]
fn the_16_interoperability_cases_of_grpc_pass_over_tls() {
    let (_server, pool) = grpc();
    let site = Site::over_tls(&pool);
    // Its certificate is its own authority.
    let connect = format!("127.0.0.1:{}", site.port);
    let shown = tools::run("openssl", ["s_client", "-connect", &connect, "-servername", "localhost"]);
    let folder = Folder::new();
    folder.write("ca.pem", &String::from_utf8_lossy(&shown.stdout));
    let ca = folder.file("ca.pem");
    let ca = ca.to_str().expect("text");
    assert_cases_pass(
        &site,
        &["--use_tls", "--use_test_ca", "--ca_file", ca, "--server_host_override", "localhost"],
    );
}

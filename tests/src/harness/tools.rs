//! Programs that are not ours.

use std::process::{Command, Output, Stdio};

/// Runs a tool of the system and returns what it said.
///
/// # Panics
/// When the tool is missing, with the Debian package that has it.
pub fn run<const N: usize>(tool: &str, arguments: [&str; N]) -> Output {
    run_on(tool, arguments, Stdio::null())
}

/// As [`run`], with this as its standard input.
///
/// # Panics
/// As [`run`].
pub fn run_on<const N: usize>(tool: &str, arguments: [&str; N], input: impl Into<Stdio>) -> Output {
    let package = match tool {
        "chromium-headless-shell" => "chromium-headless-shell",
        "curl" => "curl",
        "h2load" | "nghttp" => "nghttp2-client",
        "dnsperf" => "dnsperf",
        "ip" => "iproute2",
        "nft" => "nftables",
        "openssl" => "openssl",
        "promtool" => "prometheus",
        "redis-benchmark" | "redis-cli" => "redis-tools",
        "wrk" => "wrk",
        other => panic!("{other} is not a tool that these tests use"),
    };
    Command::new(tool).args(arguments).stdin(input).output().unwrap_or_else(|error| {
        panic!("`{tool}` cannot be run ({error}): install the Debian package `{package}` (apt-get install {package})")
    })
}

/// Runs curl without any configuration file and returns the body and everything that `--write-out` adds.
///
/// # Panics
/// When curl is missing or fails.
pub fn curl<const N: usize>(arguments: [&str; N]) -> String {
    let output = run("curl", arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "curl {arguments:?} failed with {}: {said}", output.status);
    String::from_utf8(output.stdout).expect("text")
}

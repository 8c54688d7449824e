//! A network of a test's own: a Linux network namespace with nothing but a loopback interface.
//!
//! Nothing reaches the machine's interfaces, ports are free for the asking, and packets can get lost ([`lose`]).
//!
//! A test's thread enters the namespace, and so do the threads and processes that it starts from then on. Rejected:
//! running the test binary anew inside `unshare`, since each test would then have a control plane of its own.

use crate::harness::tools;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::marker::PhantomData;
use std::net::Ipv6Addr;
use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};

/// For a person who runs the tests without the rights for it.
const ADVICE: &str = "tests with a network of their own make a network namespace, which needs root and the Debian packages \
                      `util-linux` and `iproute2`; without root, build with `cargo test --workspace --no-run` and run \
                      `unshare --map-root-user --net cargo test --workspace --offline`";

/// The namespace. It ends with the last thread and process in it, and this.
#[derive(Debug)]
pub struct Network {
    namespace: File,
}

/// The calling thread is in a [`Network`], until this is dropped by it.
#[derive(Debug)]
pub struct Inside {
    before: File,
    /// Not to be sent: what is undone is the thread's.
    _thread: PhantomData<*const ()>,
}

impl Network {
    /// One where these addresses are local beside 127.0.0.0/8; of those with a prefix, such as `10.244.0.1/16`, the whole
    /// of it, so that any process may listen on any address of it.
    ///
    /// # Panics
    /// When this may not be had here; the sentence says what is missing.
    #[must_use]
    pub fn new(addresses: &[&str]) -> Self {
        let add = addresses.iter().map(|address| format!("ip address add {address} dev lo && "));
        let script = format!("ip link set lo up && {}echo made && read -r _", add.collect::<String>());
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", &script]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut maker =
            command.spawn().unwrap_or_else(|error| panic!("unshare does not start ({error}): {ADVICE}"));
        let mut said = String::new();
        let _ = BufReader::new(maker.stdout.take().expect("piped")).read_line(&mut said);
        if said.trim() != "made" {
            let mut reason = String::new();
            let _ = maker.stderr.take().expect("piped").read_to_string(&mut reason);
            let _ = maker.wait();
            panic!("there is no network namespace ({}): {ADVICE}", reason.trim());
        }
        // `unshare` has become the shell, so the id is the same. The open file keeps the namespace from here on.
        let namespace = File::open(format!("/proc/{}/ns/net", maker.id())).expect("the shell waits for us");
        drop(maker.stdin.take());
        let _ = maker.wait();
        Self { namespace }
    }

    /// Moves the calling thread into it.
    ///
    /// # Panics
    /// When it may not go there.
    #[must_use]
    pub fn enter(&self) -> Inside {
        let before = File::open("/proc/thread-self/ns/net").expect("Linux");
        join(&self.namespace);
        Inside { before, _thread: PhantomData }
    }
}

/// Adds an address to the network that the calling thread is in. With IPv6, a prefix on the loopback interface makes none
/// of its addresses one that a process may listen on.
///
/// # Panics
/// When this machine has no IPv6.
pub fn add(address: Ipv6Addr) {
    let prefix = format!("{address}/128");
    let added = tools::run("ip", ["address", "add", &prefix, "dev", "lo", "nodad"]);
    let said = String::from_utf8_lossy(&added.stderr);
    assert!(added.status.success(), "this machine seems to have no IPv6, which this test needs: {said}");
}

/// From here on so many of a hundred packets that arrive anywhere in the network that the calling thread is in are lost, each
/// for itself.
///
/// # Panics
/// When `nft` is missing, or the kernel has no filter.
pub fn lose(percent: u8) {
    let rules = format!(
        "table inet lossy {{\n chain input {{\n type filter hook input priority 0\n \
         numgen random mod 100 < {percent} drop\n }}\n }}\n"
    );
    let made = tools::run("nft", [rules.as_str()]);
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "packets cannot be made to get lost: {said}");
}

impl Drop for Inside {
    fn drop(&mut self) {
        join(&self.before);
    }
}

fn join(namespace: &File) {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap_or_else(|error| {
        panic!("this thread cannot change its network namespace ({error}): {ADVICE}")
    });
}

//! A network of its own for each control plane: a Linux network namespace with nothing but a loopback interface.
//!
//! The API server refuses endpoints on 127.0.0.0/8, so pods need other addresses; here a whole /16 is local and any
//! process may listen on any address of it. Nothing reaches the machine's interfaces, and ports are free for the
//! asking.
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

/// Where the API server says it is; the node's address too.
pub(super) const NODE_ADDRESS: &str = "10.199.0.1";
/// Addresses of pods are 10.244.A.B.
pub(super) const POD_NETWORK: [u8; 2] = [10, 244];
/// Those of the other family are fd00:244::N.
pub(super) const POD_NETWORK_V6: [u16; 2] = [0xfd00, 0x244];

/// For a person who runs the tests without the rights for it.
const ADVICE: &str = "the tests with a cluster make a network namespace, which needs root and the Debian packages \
                      `util-linux` and `iproute2`; without root, build with `cargo test --workspace --no-run` and run \
                      `unshare --map-root-user --net cargo test --workspace --offline`";

/// The namespace. It ends with the last thread and process in it, and this.
#[derive(Debug)]
pub(super) struct Network {
    namespace: File,
}

/// The calling thread is in a [`Network`], until this is dropped by it.
#[derive(Debug)]
pub(super) struct Inside {
    before: File,
    /// Not to be sent: what is undone is the thread's.
    _thread: PhantomData<*const ()>,
}

impl Network {
    pub(super) fn new() -> Self {
        let [a, b] = POD_NETWORK;
        // A prefix on the loopback interface is local as a whole, as 127.0.0.0/8 is.
        let script = format!(
            "ip link set lo up && ip address add {NODE_ADDRESS}/32 dev lo && ip address add {a}.{b}.0.1/16 dev lo \
             && echo made && read -r _"
        );
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
    pub(super) fn enter(&self) -> Inside {
        let before = File::open("/proc/thread-self/ns/net").expect("Linux");
        join(&self.namespace);
        Inside { before, _thread: PhantomData }
    }
}

/// Adds an address to the network that the calling thread is in. With IPv6, a prefix on the loopback interface makes none
/// of its addresses one that a process may listen on.
pub(super) fn add(address: Ipv6Addr) {
    let prefix = format!("{address}/128");
    let added = tools::run("ip", ["address", "add", &prefix, "dev", "lo", "nodad"]);
    let said = String::from_utf8_lossy(&added.stderr);
    assert!(added.status.success(), "this machine seems to have no IPv6, which this test needs: {said}");
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

//! Free ports.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Below the range from which Linux takes the local ports of connections (32768 and up), so that no connection
/// of a test can take a port between its choice here and its use.
const ALL: Range<u16> = 20_000..32_000;
/// Ports that one test run takes at a time.
const BLOCK: u16 = 300;

/// What this test run may give out.
#[derive(Debug)]
struct Reserved {
    ports: Range<u16>,
    /// Locked for the life of the run, so that another run at the same time takes other blocks: a port that is
    /// chosen and not bound yet looks free to everybody.
    locks: Vec<File>,
}

/// A TCP port of 127.0.0.1 that nobody listens on, given out once per test run.
///
/// # Panics
/// When all of them are taken.
pub fn free() -> u16 {
    static RESERVED: Mutex<Reserved> = Mutex::new(Reserved { ports: 0..0, locks: Vec::new() });
    let mut reserved = RESERVED.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        match reserved.ports.next() {
            Some(port) if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() => return port,
            Some(_) => {}
            None => reserved.add_block(),
        }
    }
}

impl Reserved {
    fn add_block(&mut self) {
        for first in ALL.step_by(usize::from(BLOCK)) {
            let file = std::env::temp_dir().join(format!("weir-test-ports-{first}.lock"));
            // A file of another user cannot be opened: that block is theirs.
            let Ok(lock) = File::options().create(true).truncate(false).write(true).open(file) else {
                continue;
            };
            if lock.try_lock().is_ok() {
                self.locks.push(lock);
                self.ports = first..first + BLOCK;
                return;
            }
        }
        panic!(
            "test runs have reserved every port of {} to {}: wait for them to end",
            ALL.start,
            ALL.end - 1
        );
    }
}

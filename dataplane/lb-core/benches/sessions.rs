//! What a million sessions cost: memory for each, and the time to put one and to find one.
//!
//! Memory is the growth of the process, from before the table to after the last session, with all that the table
//! allocates on its way; the system's allocator serves it. Keys come in no order, as hashes do, so a find waits for
//! memory and not for the processor. One thread, all else quiet. Of several rounds the median counts.

#![allow(clippy::disallowed_methods, reason = "a bench measures time and memory")]
#![allow(clippy::print_stdout, reason = "figures are what it is for")]

use lb_core::balance::Rng;
use lb_core::sessions::{Choice, SessionTable, Token};
use std::hint::black_box;
use std::time::{Duration, Instant};

const SESSIONS: u32 = 1_000_000;
const ROUNDS: usize = 5;
const HOUR: Duration = Duration::from_secs(3600);
const NOW: Duration = Duration::from_secs(60);

fn main() {
    let keys = random_keys(1);
    let strangers = random_keys(2);
    memory_of_a_table(&keys);
    memory_of_tokens(&keys);
    let mut put = Vec::new();
    let mut find = Vec::new();
    let mut miss = Vec::new();
    for _ in 0..ROUNDS {
        let table = SessionTable::new(SESSIONS, HOUR);
        put.push(nanos_of_each(&keys, |key| table.put(key, choice(key), NOW)));
        find.push(nanos_of_each(&keys, |key| {
            black_box(table.find(key, NOW));
        }));
        miss.push(nanos_of_each(&strangers, |key| {
            black_box(table.find(key, NOW));
        }));
    }
    println!("figure sessions.put {:.1} ns", median(put));
    println!("figure sessions.find {:.1} ns", median(find));
    println!("figure sessions.find.miss {:.1} ns", median(miss));
}

/// The first table of the process, so that nothing that was freed before serves it.
fn memory_of_a_table(keys: &[u64]) {
    let before = resident_bytes();
    let table = SessionTable::new(SESSIONS, HOUR);
    for key in keys {
        table.put(*key, choice(*key), NOW);
    }
    let grown = resident_bytes() - before;
    let found = keys.iter().filter(|key| table.find(**key, NOW) == Some(choice(**key))).count();
    println!("figure sessions.table.bytes_per_session {:.1} bytes", grown / f64::from(SESSIONS));
    println!("figure sessions.table.allocated {:.1} bytes", table.bytes() as f64 / f64::from(SESSIONS));
    println!("figure sessions.displaced {:.4} %", 100.0 * table.displaced() as f64 / f64::from(SESSIONS));
    println!("figure sessions.found {found} sessions");
}

/// Sessions whose clients keep their token: as many as the table had, each read once.
fn memory_of_tokens(keys: &[u64]) {
    let sent = |key: u64| Token { pool: 1, issued: NOW, choices: vec![choice(key)] }.to_bytes();
    let read = |bytes: &[u8]| Token::read(bytes).expect("one of ours").chosen(1);
    assert_eq!(read(&sent(keys[0])), Some(choice(keys[0])), "a token says its choice");
    let before = resident_bytes();
    for key in keys {
        black_box(read(&sent(*key)));
    }
    let grown = resident_bytes() - before;
    println!("figure sessions.sealed.bytes_per_session {:.1} bytes", grown / f64::from(SESSIONS));
}

fn choice(key: u64) -> Choice {
    Choice { set: 1, backend: key.rotate_left(7) % 100 }
}

fn random_keys(seed: u64) -> Vec<u64> {
    let mut rng = Rng::new(seed);
    (0..SESSIONS).map(|_| rng.bits()).collect()
}

fn nanos_of_each(keys: &[u64], mut one: impl FnMut(u64)) -> f64 {
    let began = Instant::now();
    for key in keys {
        one(*key);
    }
    began.elapsed().as_secs_f64() * 1e9 / keys.len() as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Memory of this process that is in use now. The sum over its mappings: the quicker sources count late.
fn resident_bytes() -> f64 {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").expect("Linux says what a process has");
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:")).expect("in each of these files");
    let kib: f64 = line.trim_end_matches("kB").trim().parse().expect("a number");
    kib * 1024.0
}

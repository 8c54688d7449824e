//! The whole control plane in one thread: an API server, three replicas of the controller, twelve proxies, and a network
//! that delays, stalls and breaks. Seeded: a seed that fails, fails again.
//!
//! What decides is production code: the cache and the compile step behind simulated watches
//! ([`weir_controller::cluster::Follower`]), the store, one [`weir_controller::push::Conversation`] for each stream, the
//! elector, the reports of replicas and the computed status; at a proxy its follower with replica, conversion, apply and
//! disk ([`weir_proxy::config::client::Follower`]), and lb-core's picker for each request. Simulated are the clock, the
//! processes, the network and the API server. Ports are bound on loopback addresses of this test alone and nobody
//! accepts on them.
//!
//! # What holds all along
//!
//! * **Bound.** A proxy *works* from the latest of these moments on: its stream was opened by a replica that has listed
//!   everything; the stream's last stall ended; the replica's last freeze ended, and the last pause, break or absence of
//!   each of its watches and of the API server; [`FIRST_LISTS_GUARD`] after its first lists, and [`RELIST_GUARD`] after a
//!   later one from which something is missing that no event has ended; the proxy's own last freeze ended; where messages
//!   vanish or overtake others, [`HEALED`] after the last one on this stream. While it has no open stream, or a broken one
//!   that nobody has noticed, it does not work. [`BOUND`] after it works and after the last change of a pool and of the
//!   Service behind a set, the set's members at this proxy are those of the API server; and no request goes to a backend
//!   that left the API server longer ago than that. A pool that was deleted serves nobody [`REMOVAL_BOUND`] later.
//! * **Emptiness.** A set that always had a ready backend at the API server never loses its last at a proxy that had one:
//!   not by a replica that begins, nor by a list that is read in pieces.
//! * **Independence.** A pool that some proxies refuse (its port is taken there), and pools that the compile step refuses,
//!   take nothing from the bound of others, and no other pool is refused.
//! * **One holder.** Of all replicas at most one believes to hold the Lease, the frozen ones too; it alone writes status.
//! * **Order.** Versions on one stream never go back.
//! * **Flow.** Chunks without a receipt, and bytes on their way, stay within their limits.
//! * **No false alarm.** Where no message vanishes inside a stream or overtakes another, no proxy is ever out of step, and
//!   no stream breaches the protocol or gets stuck.
//!
//! # What holds in calm
//!
//! Every proxy holds what every replica has, by digests, and serves what the API server has; the status of each pool
//! counts every proxy as current; nothing waits for an acknowledgement. A proxy that dials again is sent confirmations,
//! and what changed meanwhile.

mod api;
mod chaos;
mod checks;
mod controller;
mod holder;
mod link;
mod proxy;
mod simulation;
mod streams;
mod trace;

use chaos::Break;
use simulation::{Counts, Simulation};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use trace::Trace;
use weir_controller::cluster::Kind;

const CONTROLLERS: usize = 3;
const PROXIES: usize = 12;

/// Of virtual time, in microseconds, as all times here.
const SECOND: u64 = 1_000_000;
const MILLISECOND: u64 = 1_000;

/// One way, on most ways.
const CALM_LATENCY: u64 = 25 * MILLISECOND;

/// Within which a change serves at a proxy that works: latencies, round trips of an update in chunks, and what is held
/// back to go together.
const BOUND: u64 = 2 * SECOND;

/// The same for a pool that was deleted, which waits for configurations ahead of it
/// ([`weir_controller::push::REMOVAL_WAIT_MAX`]), and whose port serves on for a moment.
const REMOVAL_BOUND: u64 = BOUND + 6 * SECOND;

/// For how long a replica may keep what is missing in a list that was read again, from the end of that list on.
const RELIST_GUARD: u64 = 2 * SECOND;

/// For how long a replica that has just read its first lists may leave to a proxy what they do not have
/// ([`weir_controller::push::FIRST_SYNC_GUARD`]).
const FIRST_LISTS_GUARD: u64 = 2 * SECOND;

/// Within which a message that vanished is missed: a stream that is stuck, and what comes then.
const HEALED: u64 = 45 * SECOND;

/// For how long things go wrong.
const CHAOS: u64 = 60 * SECOND;

/// The same where only the history matters.
const CHAOS_IN_SHORT: u64 = 15 * SECOND;

/// For how long they may then take to be right: a Lease that expires, and its status.
const SETTLE: u64 = 25 * SECOND;

/// Seeds of an ordinary run.
const SEEDS: u64 = 6;

/// One whole run. Gives what it met, and one number for its history.
fn simulate(seed: u64, chaos: u64) -> (Counts, u64) {
    let trace = Rc::new(RefCell::new(Trace::default()));
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(async {
            let mut simulation = Simulation::new(seed, chaos, Rc::clone(&trace));
            simulation.run_to(chaos).await;
            chaos::calm(&mut simulation);
            let settle = if simulation.mode.drops { SETTLE + HEALED } else { SETTLE };
            simulation.run_to(chaos + settle).await;
            simulation.check_calm();
            simulation.check_resumption().await;
            simulation.counts
        })
    };
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(counts) => (counts, trace.borrow().hash()),
        Err(panic) => {
            let tail = trace.borrow().tail();
            let _ = std::io::Write::write_all(
                &mut std::io::stderr(),
                format!("{tail}alone again: WEIR_FLEET_SEED={seed}\n").as_bytes(),
            );
            resume_unwind(panic)
        }
    }
}

/// `WEIR_FLEET_SEED` runs one seed alone, `WEIR_FLEET_SEEDS` so many from `WEIR_FLEET_SEED` (or 0) on.
fn seeds() -> std::ops::Range<u64> {
    let number = |variable: &str| {
        std::env::var(variable).ok().map(|value| value.parse::<u64>().expect("the variable is a number"))
    };
    match (number("WEIR_FLEET_SEED"), number("WEIR_FLEET_SEEDS")) {
        (None, count) => 0..count.unwrap_or(SEEDS),
        (Some(first), count) => first..first + count.unwrap_or(1),
    }
}

fn run(seeds: impl Iterator<Item = u64>) {
    for seed in seeds {
        let (counts, _) = simulate(seed, CHAOS);
        let Counts { requests, exact, streams, tenures, .. } = counts;
        assert!(
            requests > 1_000 && exact * 10 > requests && streams > 24 && tenures > 1,
            "seed {seed} shows little: {counts:?}"
        );
    }
}

#[test]
fn every_proxy_serves_what_is_true_whatever_happens_on_the_way() {
    run(seeds().filter(|seed| seed % 2 == 0));
}

/// The other half, beside the first.
#[test]
fn every_proxy_serves_what_is_true_also_where_messages_vanish() {
    run(seeds().filter(|seed| seed % 2 == 1));
}

/// The list begins long after its watch broke, for the API server is away by then; only its end says how long what it
/// misses is kept.
#[test]
fn what_a_late_list_misses_serves_until_its_guard_ends_and_no_longer() {
    let (gone_at, listed_from) = (10 * SECOND, 15 * SECOND);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let mut simulation = Simulation::new(1, 0, Rc::default());
        simulation.run_to(gone_at).await;
        let watch = Kind::NAMESPACED.iter().position(|kind| *kind == Kind::Service).expect("one of them");
        for controller in 0..CONTROLLERS {
            let until = gone_at + SECOND;
            chaos::break_watch(&mut simulation, controller, Break { watch, until, lists_again: true });
        }
        chaos::turn_service(&mut simulation, "s3");
        simulation.announce();
        chaos::leave(&mut simulation, listed_from);
        let mut emptied_at = BTreeSet::new();
        let mut serving: BTreeSet<usize> = (0..PROXIES).collect();
        for passed in 0..(listed_from - gone_at + RELIST_GUARD + BOUND) / MILLISECOND {
            let time = gone_at + passed * MILLISECOND;
            simulation.run_to(time).await;
            (0..PROXIES).for_each(|proxy| simulation.ask(proxy, "plain-3", "web"));
            let emptied = serving.extract_if(.., |proxy| simulation.is_empty(*proxy, "plain-3", "web"));
            emptied_at.extend(emptied.map(|_| time));
        }
        assert!(serving.is_empty(), "{serving:?} serve it still");
        assert!(emptied_at.first() > Some(&(listed_from + RELIST_GUARD)), "{emptied_at:?}");
    });
}

#[test]
fn the_same_seed_is_the_same_history() {
    let mut histories = BTreeSet::new();
    for seed in [2, 3] {
        let (first, again) = (simulate(seed, CHAOS_IN_SHORT), simulate(seed, CHAOS_IN_SHORT));
        assert_eq!(first, again, "seed {seed}");
        histories.insert(first.1);
    }
    assert_eq!(histories.len(), 2, "another seed is another history");
}

//! The session table under several threads, which lb-core itself never starts.
#![expect(clippy::disallowed_methods, reason = "workers are threads, and the table is what they share")]

use lb_core::balance::Rng;
use lb_core::sessions::{Choice, SessionTable};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const IDLE: Duration = Duration::from_secs(60);

/// A choice that says whose it is and which of it.
fn choice(key: u64, turn: u64) -> Choice {
    Choice { set: u32::try_from(turn % 1000).expect("small"), backend: (key << 16) | (turn % 1000) }
}

fn is_of(key: u64, choice: Choice) -> bool {
    choice.backend >> 16 == key && choice.backend & 0xffff == u64::from(choice.set)
}

/// Writers fill the table far over its limit, over and over, while it grows and is swept.
fn storm(sessions_max: u32, keys: usize, rounds: u64) -> SessionTable {
    let table = SessionTable::new(sessions_max, IDLE);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (table, is_over) = (&table, &is_over);
        let writer = |seed| {
            move || {
                let mut rng = Rng::new(seed);
                for turn in 0..rounds {
                    let key = rng.below(keys) as u64;
                    table.put(key, choice(key, turn), Duration::from_secs(turn / 5000));
                }
            }
        };
        let reader = |seed| {
            move || {
                let (mut rng, mut hits) = (Rng::new(seed), 0u64);
                while !is_over.load(Ordering::Relaxed) {
                    let key = rng.below(keys) as u64;
                    if let Some(choice) = table.find(key, Duration::from_secs(1)) {
                        assert!(is_of(key, choice), "{key} is given {choice:?}");
                        hits += 1;
                    }
                }
                assert!(hits > 0, "a reader that finds nothing proves nothing");
            }
        };
        let writers = [1, 2, 3].map(|seed| scope.spawn(writer(seed)));
        scope.spawn(reader(4));
        scope.spawn(reader(5));
        scope.spawn(move || {
            for turn in 0.. {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                table.sweep(Duration::from_secs(1), turn % 8, 8);
                table.forget(|choice| choice.set == 7, turn % 8, 8);
            }
        });
        for writer in writers {
            writer.join().expect("a writer ends");
        }
        is_over.store(true, Ordering::Relaxed);
    });
    table
}

#[test]
fn nobody_ever_sees_a_choice_that_was_never_put_for_its_key() {
    for (sessions_max, keys) in [(1, 40), (50, 200), (20_000, 30_000)] {
        let table = storm(sessions_max, keys, 60_000);
        assert!(table.live() <= u64::from(sessions_max), "{}", table.live());
        let found = (0..keys as u64).filter(|key| table.find(*key, Duration::from_secs(1)).is_some()).count();
        assert_eq!(found as u64, table.live(), "each session once, and all of them counted");
    }
}

/// Calls `each` with every key below `keys` that is `of(part, key)`, in four threads that wait for one another, so that
/// the scheduler does not hold one up while the others fill the table.
fn in_step(keys: u64, of: impl Fn(u64, u64) -> bool + Sync, each: impl Fn(u64, u64) + Sync) {
    let barrier = Barrier::new(4);
    std::thread::scope(|scope| {
        for part in 0..4u64 {
            let (barrier, of, each) = (&barrier, &of, &each);
            scope.spawn(move || {
                for key in 0..keys {
                    if key % 1000 == 0 {
                        barrier.wait();
                    }
                    if of(part, key) {
                        each(part, key);
                    }
                }
            });
        }
    });
}

#[test]
fn a_table_that_grows_under_several_threads_loses_nothing() {
    let table = SessionTable::new(100_000, IDLE);
    let put = |part: u64, key: u64| {
        table.put(key, choice(key, 0), Duration::ZERO);
        let earlier = key / 8 * 4 + part;
        let found = table.find(earlier, Duration::ZERO);
        assert_eq!(found, Some(choice(earlier, 0)), "{earlier} after {key}");
    };
    in_step(80_000, |part, key| key % 4 == part, put);
    assert_eq!((table.live(), table.displaced()), (80_000, 0));
    assert!((0..80_000).all(|key| table.find(key, Duration::ZERO) == Some(choice(key, 0))));
}

#[test]
fn a_session_that_several_threads_begin_at_once_is_one() {
    let table = SessionTable::new(10_000, IDLE);
    in_step(8000, |_, _| true, |part, key| table.put(key, choice(key, part), Duration::ZERO));
    assert_eq!((table.live(), table.displaced()), (8000, 0));
}

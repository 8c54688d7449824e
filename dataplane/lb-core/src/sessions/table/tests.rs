use super::*;
use crate::balance::Rng;
use proptest::prelude::*;
use std::collections::HashMap;

const IDLE: Duration = Duration::from_secs(60);

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn choice(of: u64) -> Choice {
    Choice { set: u32::try_from(of % 7).expect("small"), backend: of.wrapping_mul(0x9e37_79b9) }
}

fn filled(sessions_max: u32, keys: u64) -> SessionTable {
    let table = SessionTable::new(sessions_max, IDLE);
    (0..keys).for_each(|key| table.put(key, choice(key), at(1)));
    table
}

fn found(table: &SessionTable, keys: u64) -> u64 {
    (0..keys).map(|key| u64::from(table.find(key, at(1)) == Some(choice(key)))).sum()
}

#[test]
fn a_session_is_found_moved_and_ended() {
    let table = SessionTable::new(1000, IDLE);
    assert_eq!(table.find(5, at(0)), None);
    table.put(5, choice(1), at(0));
    assert_eq!((table.find(5, at(0)), table.find(6, at(0))), (Some(choice(1)), None));
    table.put(5, choice(2), at(0));
    assert_eq!((table.find(5, at(0)), table.live()), (Some(choice(2)), 1));
    table.remove(5);
    assert_eq!((table.find(5, at(0)), table.live()), (None, 0));
}

#[test]
fn a_session_ends_when_it_was_not_used_for_the_idle_timeout_and_a_find_is_a_use() {
    let table = SessionTable::new(1000, IDLE);
    table.put(1, choice(1), at(0));
    table.put(2, choice(2), at(0));
    assert_eq!(table.find(1, at(60)), Some(choice(1)), "at the limit");
    assert_eq!(table.find_used(1, at(120)), Some((choice(1), at(60))), "it was used at 60");
    assert_eq!(table.find(2, at(61)), None, "one past it");
    assert_eq!((table.live(), table.expired()), (2, 0), "found by nobody who may end it");
    table.sweep(at(120), 0, 1);
    assert_eq!((table.live(), table.expired()), (1, 1));
}

#[test]
fn an_expired_session_that_is_put_again_is_a_new_one() {
    let table = SessionTable::new(1000, IDLE);
    table.put(1, choice(1), at(0));
    table.put(1, choice(2), at(100));
    assert_eq!((table.find(1, at(100)), table.live(), table.expired()), (Some(choice(2)), 1, 1));
}

#[test]
fn a_part_of_a_second_counts_as_one() {
    let table = SessionTable::new(1000, Duration::from_millis(1500));
    table.put(1, choice(1), Duration::from_millis(900));
    assert_eq!(table.find(1, Duration::from_millis(2400)), Some(choice(1)));
    assert_eq!(table.idle_timeout(), Duration::from_millis(1500));
}

#[test]
fn the_table_holds_as_many_as_it_was_made_for_and_one_more_displaces() {
    let table = filled(1000, 1000);
    assert_eq!((table.live(), table.displaced(), found(&table, 1000)), (1000, 0, 1000));
    table.put(5000, choice(5000), at(2));
    assert_eq!((table.live(), table.displaced()), (1000, 1));
    assert_eq!(table.find(5000, at(2)), Some(choice(5000)));
    assert_eq!(found(&table, 1000), 999);
    assert_eq!(table.sessions_max(), 1000);
}

#[test]
fn who_was_unused_for_longest_goes_first() {
    let table = filled(1000, 1000);
    (500..1000).for_each(|key| assert!(table.find(key, at(30)).is_some()));
    (2000..2400).for_each(|key| table.put(key, choice(key), at(40)));
    let left = |keys: Range<u64>| keys.filter(|key| table.find(*key, at(40)).is_some()).count();
    // Two buckets hold no unused session at times.
    assert_eq!(table.displaced(), 400);
    assert!(left(500..1000) > 450, "{}", left(500..1000));
    assert_eq!(left(0..500) + left(500..1000), 600);
}

#[test]
fn a_table_of_any_size_keeps_what_it_was_made_for() {
    for sessions_max in [1, 2, 7, 100, 819, 820, 5000, 10_007] {
        let table = filled(sessions_max, sessions_max.into());
        let displaced = u64::from(sessions_max) - found(&table, sessions_max.into());
        assert_eq!(displaced, table.displaced(), "of {sessions_max}");
        assert!(displaced * 1000 < sessions_max.into(), "{displaced} of {sessions_max}");
    }
}

#[test]
fn a_large_table_fills_with_less_than_a_thousandth_displaced_and_costs_what_it_holds() {
    const SESSIONS_MAX: u32 = 200_000;
    let keys = u64::from(SESSIONS_MAX);
    let table = filled(SESSIONS_MAX, 1000);
    let (few, empty) = (table.bytes(), SessionTable::new(SESSIONS_MAX, IDLE).bytes());
    (1000..keys).for_each(|key| table.put(key, choice(key), at(1)));
    let each = table.bytes() as f64 / keys as f64;
    println!("bytes: {empty} empty, {few} with 1,000 sessions, {each:.1} a session when full");
    println!("displaced of {keys}: {}", table.displaced());
    assert!(empty < 8 << 10 && few < 256 << 10, "{empty} {few}");
    assert!(each <= 48.0, "{each}");
    assert!(table.displaced() * 1000 < keys, "{}", table.displaced());
    assert_eq!(table.live() + table.displaced(), keys);
    assert_eq!(found(&table, keys), table.live());
}

#[test]
fn sessions_are_found_while_the_table_doubles() {
    let table = SessionTable::new(100_000, IDLE);
    for key in 0..20_000 {
        table.put(key, choice(key), at(1));
        for earlier in [0, key / 2, key] {
            assert_eq!(table.find(earlier, at(1)), Some(choice(earlier)), "{earlier} after {key}");
        }
    }
    assert_eq!((table.live(), table.displaced()), (20_000, 0));
    // What has not moved yet moves with a sweep, and the smaller table goes.
    table.sweep(at(1), 0, 1);
    assert!(table.generation.load().old.is_none());
    assert_eq!(found(&table, 20_000), 20_000);
}

#[test]
fn parts_of_a_sweep_are_all_of_the_table_and_a_part_that_is_not_there_is_none() {
    let table = filled(10_000, 3000);
    (0..1000).for_each(|key| assert!(table.find(key, at(50)).is_some()));
    table.sweep(at(100), 7, 7);
    assert_eq!(table.live(), 3000);
    (0..7).for_each(|part| table.sweep(at(100), part, 7));
    assert_eq!((table.live(), table.expired()), (1000, 2000));
}

#[test]
fn sessions_of_a_backend_that_is_gone_are_forgotten() {
    let table = filled(10_000, 3000);
    let gone = (0..3).map(|part| table.forget(|choice| choice.set == 3, part, 3)).sum::<u64>();
    assert_eq!(gone, (0..3000).filter(|key| key % 7 == 3).count() as u64);
    assert_eq!((table.live(), table.find(3, at(1)), table.expired()), (3000 - gone, None, 0));
}

/// What a table does, of a map.
#[derive(Debug, Default)]
struct Model(HashMap<u64, (Choice, u64)>);

impl Model {
    fn find(&mut self, key: u64, now: u64) -> Option<Choice> {
        let (choice, last) = self.0.get_mut(&key)?;
        let is_live = now - *last <= IDLE.as_secs();
        is_live.then(|| *last = now).map(|()| *choice)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn a_table_with_room_does_what_a_map_does(seed: u64, keys in 1usize..3000, sessions_max in 3000u32..9000) {
        let (mut rng, mut now) = (Rng::new(seed), 0u64);
        let (table, mut model) = (SessionTable::new(sessions_max, IDLE), Model::default());
        for _ in 0..6000 {
            let key = rng.below(keys) as u64;
            match rng.below(20) {
                0 => now += rng.below(9) as u64,
                1 => {
                    table.remove(key);
                    model.0.remove(&key);
                }
                2 => {
                    let (part, parts) = (rng.below(4), 4);
                    table.sweep(at(now), part, parts);
                }
                3 if rng.below(50) == 0 => {
                    let set = u32::try_from(rng.below(7)).expect("small");
                    table.forget(|choice| choice.set == set, 0, 1);
                    model.0.retain(|_, (choice, _)| choice.set != set);
                }
                4..10 => {
                    let choice = choice(rng.bits());
                    table.put(key, choice, at(now));
                    model.0.insert(key, (choice, now));
                }
                _ => prop_assert_eq!(table.find(key, at(now)), model.find(key, now)),
            }
        }
        table.sweep(at(now), 0, 1);
        model.0.retain(|_, (_, last)| now - *last <= IDLE.as_secs());
        prop_assert_eq!(table.live(), model.0.len() as u64);
        prop_assert_eq!(table.displaced(), 0);
    }
}

use super::*;
use proptest::prelude::*;
use std::cell::Cell;
use std::rc::Rc;

const KEEP: Keep = Keep { idle_max: 3, idle_timeout: Duration::from_secs(60), warm_min: 0 };

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Connections that were kept a second apart from second 0, the first of them first.
fn kept(origin: Origin, names: &[&'static str]) -> Pool<&'static str> {
    let mut pool = Pool::default();
    for (second, name) in (0..).zip(names) {
        pool.keep(secs(second), *name, origin, &KEEP);
    }
    pool
}

fn names(pool: &Pool<&'static str>) -> Vec<&'static str> {
    pool.idle.iter().map(|entry| entry.connection).collect()
}

#[test]
fn the_one_that_was_used_last_goes_first_with_how_long_it_was_idle() {
    let mut pool = kept(Origin::Opened, &["a", "b", "c"]);
    let taken = pool.take(secs(10), |_| true).expect("three are kept");
    assert_eq!((taken.connection, taken.idle), ("c", secs(8)));
    let taken = pool.take(secs(11), |_| true).expect("two are kept");
    assert_eq!((taken.connection, taken.idle), ("b", secs(10)));
    assert_eq!((pool.len(), pool.is_empty()), (1, false));
}

#[test]
fn what_its_backend_closed_is_dropped_on_the_way() {
    let mut pool = kept(Origin::Opened, &["a", "b", "c"]);
    let taken = pool.take(secs(10), |name| *name == "a").expect("a is open");
    assert_eq!(taken.connection, "a");
    assert!(pool.is_empty() && pool.take(secs(10), |_| true).is_none());
}

#[test]
fn as_many_are_kept_as_may_be_and_of_one_more_the_oldest_goes() {
    for (idle_max, warm_min, wanted) in [
        (3, 0, &["b", "c", "d"][..]),
        (4, 0, &["a", "b", "c", "d"]),
        (0, 0, &[]),
        (0, 2, &["c", "d"]),
        (1, 2, &["c", "d"]),
    ] {
        let keep = Keep { idle_max, warm_min, ..KEEP };
        let mut pool = Pool::default();
        for name in ["a", "b", "c", "d"] {
            pool.keep(secs(1), name, Origin::Opened, &keep);
        }
        assert_eq!(names(&pool), wanted, "at most {idle_max}, {warm_min} warm");
    }
}

#[test]
fn those_that_are_idle_for_too_long_are_closed_but_for_the_warm_ones() {
    for (now, warm_min, wanted) in [
        (59, 0, &["a", "b", "c"][..]),
        (60, 0, &["b", "c"]),
        (62, 0, &[]),
        (1_000, 2, &["b", "c"]),
        (60, 3, &["a", "b", "c"]),
    ] {
        let mut pool = kept(Origin::Opened, &["a", "b", "c"]);
        let closed = pool.expire(secs(now), &Keep { warm_min, ..KEEP }, |_| true);
        assert_eq!((names(&pool), closed), (wanted.to_vec(), 3 - wanted.len()), "{warm_min} warm at {now}");
    }
    let mut pool = kept(Origin::Opened, &["a", "b", "c"]);
    let closed = pool.expire(secs(3), &Keep { warm_min: 3, ..KEEP }, |name| *name != "b");
    assert_eq!((names(&pool), closed), (vec!["a", "c"], 1), "a closed one is not warm");
    assert_eq!(pool.expire(secs(3), &Keep { idle_max: 1, ..KEEP }, |_| true), 1, "limits that became less");
}

#[test]
fn as_many_are_lacking_as_are_neither_idle_nor_elsewhere() {
    let pool = kept(Origin::Opened, &["a", "b"]);
    for (elsewhere, warm_min, lacking) in [(0, 0, 0), (0, 2, 0), (0, 3, 1), (1, 3, 0), (1, 9, 6), (99, 9, 0)]
    {
        assert_eq!(pool.lacking(elsewhere, &Keep { warm_min, ..KEEP }), lacking, "{elsewhere} of {warm_min}");
    }
}

#[test]
fn the_one_that_is_idle_for_longest_is_given_up() {
    let mut pool = kept(Origin::Opened, &["a", "b"]);
    assert_eq!((pool.shed(), pool.shed(), pool.shed()), (Some("a"), Some("b"), None));
}

#[test]
fn the_shortest_idle_time_of_what_its_backend_closed_is_learnt() {
    let mut pool = kept(Origin::Taken, &["a", "b", "c"]);
    pool.expire(secs(5), &KEEP, |name| *name != "a");
    assert_eq!(pool.life(secs(5)), Some(secs(5)));
    assert!(pool.take(secs(6), |_| false).is_none());
    assert_eq!(pool.life(secs(6)), Some(secs(4)), "c was idle for four seconds, b for five");
    pool.found_closed(secs(7), secs(3));
    assert_eq!(pool.life(secs(7)), Some(secs(3)));
    assert_eq!(pool.life(secs(67)), Some(secs(6)));
}

#[test]
fn of_what_no_request_had_nothing_is_learnt() {
    let mut pool = kept(Origin::Opened, &["a", "b"]);
    pool.expire(secs(5), &KEEP, |name| *name != "a");
    assert!(pool.take(secs(6), |_| false).is_none());
    assert_eq!(pool.life(secs(6)), None);
}

#[test]
fn what_is_closed_for_its_age_or_given_up_teaches_nothing() {
    let mut pool = kept(Origin::Taken, &["a", "b", "c"]);
    assert_eq!(pool.expire(secs(60), &KEEP, |_| true), 1);
    assert!(pool.shed().is_some());
    assert_eq!(pool.life(secs(60)), None);
}

#[test]
fn who_must_not_be_repeated_takes_what_was_idle_for_less_than_half_the_life() {
    let mut pool = kept(Origin::Taken, &["a"]);
    assert!(pool.take_fresh(secs(1_000), |_| true).is_some(), "any, while nothing is known");
    pool.found_closed(secs(0), secs(10));
    for (idle, is_fresh) in [(0, true), (4, true), (5, false), (9, false)] {
        pool.keep(secs(0), "b", Origin::Taken, &KEEP);
        let taken = pool.take_fresh(secs(idle), |_| true);
        assert_eq!(taken.is_some(), is_fresh, "idle for {idle} of 10");
        pool.shed();
    }
    pool.keep(secs(50), "old", Origin::Taken, &KEEP);
    assert!(pool.take_fresh(secs(56), |_| true).is_none());
    assert_eq!(pool.take(secs(56), |_| true).map(|taken| taken.connection), Some("old"), "it is still there");
}

/// Counts itself while it is open.
struct Fake {
    id: usize,
    open: Rc<Cell<usize>>,
}

impl Fake {
    fn new(id: usize, open: &Rc<Cell<usize>>) -> Self {
        open.set(open.get() + 1);
        Self { id, open: Rc::clone(open) }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.open.set(self.open.get() - 1);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Open,
    Take,
    TakeFresh,
    GiveBack,
    Break(usize),
    Expire,
    Shed,
    Wait(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Open),
        2 => Just(Step::Take),
        1 => Just(Step::TakeFresh),
        4 => Just(Step::GiveBack),
        1 => (0usize..40).prop_map(Step::Break),
        1 => Just(Step::Expire),
        1 => Just(Step::Shed),
        3 => (0u64..40_000).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn limits_hold_and_no_connection_is_lost_or_taken_twice(
        steps in prop::collection::vec(any_step(), 1..200),
        idle_max in 0usize..5,
        warm_min in 0usize..4,
    ) {
        let keep = Keep { idle_max, idle_timeout: secs(60), warm_min };
        let open = Rc::new(Cell::new(0));
        let mut pool = Pool::default();
        let (mut now, mut next) = (Duration::ZERO, 0);
        let mut held: Vec<(Fake, Origin)> = Vec::new();
        let mut broken: Vec<usize> = Vec::new();
        for step in steps {
            let usable = |fake: &Fake| !broken.contains(&fake.id);
            let alive = pool.idle.iter().filter(|entry| usable(&entry.connection)).count();
            let youngest = pool.idle.iter().rfind(|entry| usable(&entry.connection)).map(|entry| entry.connection.id);
            match step {
                Step::Open => {
                    held.push((Fake::new(next, &open), Origin::Opened));
                    next += 1;
                }
                Step::Take => {
                    let taken = pool.take(now, usable);
                    prop_assert_eq!(taken.as_ref().map(|taken| taken.connection.id), youngest);
                    held.extend(taken.map(|taken| (taken.connection, Origin::Taken)));
                }
                Step::TakeFresh => {
                    let life = pool.life(now);
                    let taken = pool.take_fresh(now, usable);
                    if let Some(taken) = taken {
                        prop_assert_eq!(Some(taken.connection.id), youngest);
                        prop_assert!(life.is_none_or(|life| taken.idle < life / 2));
                        held.push((taken.connection, Origin::Taken));
                    }
                }
                Step::GiveBack => {
                    if let Some((fake, origin)) = held.pop() {
                        pool.keep(now, fake, origin, &keep);
                        prop_assert!(pool.len() <= idle_max.max(warm_min));
                    }
                }
                Step::Break(id) => broken.push(id),
                Step::Expire => {
                    let before = pool.len();
                    let closed = pool.expire(now, &keep, usable);
                    prop_assert_eq!(pool.len(), before - closed);
                    prop_assert!(pool.len() >= alive.min(warm_min), "as many are warm as can be");
                    prop_assert!(pool.idle.iter().all(|entry| usable(&entry.connection)));
                    let old = pool.idle.iter().filter(|entry| now - entry.since >= keep.idle_timeout).count();
                    prop_assert!(old == 0 || pool.len() <= warm_min);
                    prop_assert_eq!(pool.lacking(held.len(), &keep), warm_min.saturating_sub(pool.len() + held.len()));
                }
                Step::Shed => drop(pool.shed()),
                Step::Wait(ms) => now += Duration::from_millis(ms),
            }
            prop_assert!(pool.idle.iter().is_sorted_by_key(|entry| entry.since));
            prop_assert_eq!(open.get(), pool.len() + held.len());
        }
    }
}

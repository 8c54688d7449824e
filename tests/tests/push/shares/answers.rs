//! What the allocator answers, demand by demand.

use std::time::{Duration, Instant};
use weir_controller::shares::{Allocator, LIMITS_MAX, NEW_AFTER, PROXIES_MAX, REQUEST, TERM_HELD, WHOLE};
use weir_proto::limits::SHARED_LIMITS_MAX;
use weir_proto::push::{Demand, LimitDemand, LimitShare, Shares};

const LIMIT: u64 = 7;
const SECOND: Duration = Duration::from_secs(1);

struct Bench {
    allocator: Allocator,
    now: Instant,
}

/// What a proxy says of the limit.
#[derive(Debug, Clone, Copy)]
struct Says {
    number: u64,
    /// Of the answer in force, 0 for none.
    applied: u64,
    share: u32,
    demand: u64,
    left_over: u64,
    is_new: bool,
    proxies: u32,
}

const FRESH: Says =
    Says { number: 1, applied: 0, share: 0, demand: 0, left_over: 0, is_new: true, proxies: 0 };

impl Bench {
    /// With a holder that has held the Lease for this long.
    fn after(time: Duration) -> Self {
        let began = Instant::now();
        Self { allocator: Allocator::new(1, began), now: began + time }
    }

    fn old() -> Self {
        Self::after(TERM_HELD)
    }

    fn wanted(says: Says) -> LimitDemand {
        LimitDemand {
            limit: LIMIT,
            share: says.share,
            demand_milli: says.demand * 1_000,
            left_over: says.left_over,
            is_new: says.is_new,
            proxies: says.proxies,
            burst: 100,
            requests: 100,
            period_ms: 1_000,
        }
    }

    fn demand(says: Says) -> Demand {
        let epoch = u64::from(says.applied > 0);
        let limits = vec![Self::wanted(says)];
        Demand { number: says.number, epoch, applied: says.applied, limits, leaves: false }
    }

    fn say(&mut self, proxy: u64, says: Says) -> Option<LimitShare> {
        let shares = self.allocator.answer(proxy, &Self::demand(says), self.now)?;
        assert_eq!((shares.epoch, shares.answers), (1, says.number));
        shares.limits.first().copied()
    }

    fn share(&mut self, proxy: u64, says: Says) -> u32 {
        self.say(proxy, says).map_or(0, |share| share.share)
    }
}

fn percent(share: u32) -> u32 {
    share / (WHOLE / 100)
}

#[test]
fn the_first_proxy_of_a_new_limit_has_all_of_it_and_its_burst() {
    let mut bench = Bench::old();
    let share = bench.say(1, FRESH).expect("answered");
    assert_eq!((percent(share.share), share.handed_over / REQUEST, share.proxies), (98, 98, 1));
    // The same again changes nothing and gives nothing twice.
    let again = Says { number: 2, applied: 1, share: share.share, is_new: false, ..FRESH };
    assert_eq!(bench.say(1, again), Some(share));
}

#[test]
fn what_one_has_another_gets_only_when_it_is_said_to_be_given_up() {
    let mut bench = Bench::old();
    let all = bench.share(1, FRESH);
    let reserve = bench.share(2, FRESH);
    assert_eq!(percent(reserve), 1, "what is kept for who comes");
    bench.now += SECOND;
    // The first is told to give up, and the second waits for its word.
    let less =
        bench.say(1, Says { number: 2, applied: 1, share: all, is_new: false, ..FRESH }).expect("less");
    assert_eq!(percent(less.share), 49);
    let second = Says { number: 2, applied: 1, share: reserve, is_new: false, ..FRESH };
    assert_eq!(bench.share(2, second), reserve);
    bench.now += SECOND;
    let given =
        Says { number: 3, applied: 2, share: less.share, left_over: 40 * REQUEST, is_new: false, ..FRESH };
    bench.say(1, given);
    let more = bench.say(2, Says { number: 3, applied: 2, ..second }).expect("more");
    assert_eq!(percent(more.share), 49);
    assert!(more.handed_over >= 40 * REQUEST, "with what was left over: {}", more.handed_over / REQUEST);
    assert!(bench.allocator.in_use(LIMIT, bench.now) <= u64::from(WHOLE));
}

#[test]
fn a_share_that_was_sent_counts_until_a_later_one_is_in_force() {
    let mut bench = Bench::old();
    let all = bench.share(1, FRESH);
    bench.share(2, FRESH);
    bench.now += SECOND;
    let says = |number, applied, share| Says { number, applied, share, is_new: false, ..FRESH };
    // The answer to 2 takes half away, and is lost.
    bench.say(1, says(2, 1, all));
    bench.now += SECOND;
    bench.say(1, says(3, 1, all));
    assert!(bench.allocator.in_use(LIMIT, bench.now) >= u64::from(all));
    let half = bench.share(1, says(4, 3, all / 2));
    assert!(bench.allocator.in_use(LIMIT, bench.now) <= u64::from(half) + u64::from(WHOLE) / 50);
}

#[test]
fn who_is_silent_holds_its_share_for_a_term_and_no_longer() {
    let mut bench = Bench::old();
    let all = bench.share(1, FRESH);
    let mut has = bench.share(2, FRESH);
    let begun = bench.now;
    for number in 2_u64.. {
        bench.now += SECOND;
        has = bench.share(2, Says { number, applied: number - 1, share: has, is_new: false, ..FRESH });
        if bench.now - begun <= TERM_HELD - SECOND {
            assert!(has <= WHOLE - all, "after {:?}", bench.now - begun);
        } else if percent(has) >= 98 {
            break;
        }
        assert!(bench.now - begun < TERM_HELD + 5 * SECOND, "{has}");
    }
}

#[test]
fn who_leaves_gives_its_share_back_at_once() {
    let mut bench = Bench::old();
    let all = bench.share(1, FRESH);
    bench.share(2, FRESH);
    // The limit is no longer new, and nobody more is expected.
    bench.now += 4 * SECOND;
    let last = Says { number: 2, applied: 1, share: 0, left_over: 90 * REQUEST, is_new: false, ..FRESH };
    let leaves = Demand { leaves: true, ..Bench::demand(last) };
    let answer = bench.allocator.answer(1, &leaves, bench.now).expect("it is waited for");
    assert_eq!(answer, Shares { epoch: 1, answers: 2, limits: vec![] });
    let says = Says { number: 2, applied: 1, share: WHOLE / 64, is_new: false, ..FRESH };
    bench.now += SECOND;
    let heir = bench.say(2, says).expect("answered");
    assert!(heir.share >= all && heir.handed_over >= 90 * REQUEST, "{heir:?}");
}

#[test]
fn a_new_holder_moves_only_what_those_have_who_speak_until_it_has_heard_all_or_a_term_has_passed() {
    let third = WHOLE / 3;
    let old = Says { number: 9, applied: 0, share: third, is_new: false, proxies: 3, ..FRESH };
    let mut bench = Bench::after(SECOND);
    assert_eq!(bench.share(1, old), third);
    assert_eq!(bench.say(9, FRESH), None, "nothing is no word");
    assert_eq!(bench.share(2, Says { demand: 900, ..old }), third, "the other's is in use");
    assert!(bench.allocator.in_use(LIMIT, bench.now) <= u64::from(2 * third));
    // The third makes it complete: what nobody has may be given.
    bench.share(3, Says { share: third / 2, ..old });
    bench.now += SECOND;
    assert!(bench.share(9, Says { number: 2, ..FRESH }) > 0);

    let mut bench = Bench::after(TERM_HELD - SECOND);
    bench.share(1, old);
    let says = |number| Says { number, demand: 900, ..old };
    assert_eq!(bench.share(1, says(10)), third);
    bench.now += SECOND;
    assert_eq!(percent(bench.share(1, says(11))), 98);
}

#[test]
fn a_limit_of_which_only_new_ones_speak_is_new_after_some_seconds() {
    let mut bench = Bench::after(NEW_AFTER - SECOND);
    assert_eq!(bench.say(1, FRESH), None);
    bench.now += SECOND;
    assert!(bench.share(1, Says { number: 2, ..FRESH }) > 0);
}

#[test]
fn who_helped_itself_gets_only_what_is_free() {
    let mut bench = Bench::old();
    let all = bench.share(1, FRESH);
    // Back from where no controller was, with an equal part of what it knew.
    let back = Says { number: 70, share: WHOLE / 3, is_new: false, proxies: 3, ..FRESH };
    assert!(bench.share(2, back) <= WHOLE - all);
}

#[test]
fn what_comes_late_or_is_not_possible_is_answered_with_nothing() {
    let mut bench = Bench::old();
    let later = Says { number: 5, ..FRESH };
    assert!(bench.say(1, later).is_some());
    assert_eq!(bench.allocator.answer(1, &Bench::demand(later), bench.now), None, "twice");
    assert_eq!(bench.allocator.answer(1, &Bench::demand(FRESH), bench.now), None, "from before");
    for wrong in [
        LimitDemand { limit: 0, ..Bench::wanted(FRESH) },
        LimitDemand { burst: 0, ..Bench::wanted(FRESH) },
        LimitDemand { requests: 0, ..Bench::wanted(FRESH) },
        LimitDemand { period_ms: 0, ..Bench::wanted(FRESH) },
    ] {
        let demand = Demand { number: 1, limits: vec![wrong], ..Demand::default() };
        let answer = bench.allocator.answer(wrong.burst.into(), &demand, bench.now);
        assert!(answer.is_none_or(|shares| shares.limits.is_empty()), "{wrong:?}");
    }
}

#[test]
fn so_many_limits_and_proxies_are_answered_and_no_more() {
    let mut bench = Bench::old();
    let of = |from: usize, count: usize| {
        let limit = |number: usize| LimitDemand { limit: 1 + number as u64, ..Bench::wanted(FRESH) };
        Demand { number: 1, limits: (from..from + count).map(limit).collect(), ..Demand::default() }
    };
    let answered = |bench: &mut Bench, proxy, demand: &Demand| {
        bench.allocator.answer(proxy, demand, bench.now).map(|shares| shares.limits.len())
    };
    assert_eq!(answered(&mut bench, 0, &of(0, SHARED_LIMITS_MAX + 1)), Some(SHARED_LIMITS_MAX));
    for proxy in 1..LIMITS_MAX / SHARED_LIMITS_MAX {
        let all = of(proxy * SHARED_LIMITS_MAX, SHARED_LIMITS_MAX);
        assert_eq!(answered(&mut bench, proxy as u64, &all), Some(SHARED_LIMITS_MAX));
    }
    assert_eq!(bench.allocator.limits(), LIMITS_MAX);
    assert_eq!(answered(&mut bench, 100, &of(LIMITS_MAX, 1)), Some(0));
    let mut bench = Bench::old();
    for proxy in 0..PROXIES_MAX as u64 {
        assert!(bench.say(proxy, FRESH).is_some());
    }
    assert_eq!(answered(&mut bench, u64::MAX, &of(0, 1)), None);
}

mod shares;

use super::*;
use crate::balance::Rng;
use std::collections::BTreeMap;

const SECOND: Duration = Duration::from_secs(1);

fn policy(algorithm: Algorithm, requests: u32, period: Duration, key: RateKey) -> LimitPolicy {
    LimitPolicy {
        id: "rules/0/l".into(),
        name: "l".into(),
        key,
        algorithm,
        requests,
        period,
        scope: Scope::Local,
        keys_max: 1000,
        told: Told::WhenRefused,
    }
}

fn limit(algorithm: Algorithm, requests: u32, period: Duration) -> Arc<Limiter> {
    Arc::new(Limiter::new(policy(algorithm, requests, period, RateKey::Route), 1))
}

fn by_client(algorithm: Algorithm, requests: u32, keys_max: u32) -> Arc<Limiter> {
    let key = RateKey::Source { v4_bits: 32, v6_bits: 64 };
    Arc::new(Limiter::new(LimitPolicy { keys_max, ..policy(algorithm, requests, SECOND, key) }, 1))
}

/// A hash as the proxy would make one.
fn hash(client: u64) -> u64 {
    Rng::new(client).bits()
}

fn passes(limit: &Arc<Limiter>, client: u64, now: Duration) -> bool {
    admit(std::slice::from_ref(limit), now, |_, _| hash(client)).refused().is_none()
}

fn passed(limit: &Arc<Limiter>, client: u64, now: Duration, tries: usize) -> usize {
    (0..tries).filter(|_| passes(limit, client, now)).count()
}

const BURST: Algorithm = Algorithm::TokenBucket { burst: 5 };

#[test]
fn a_bucket_gives_its_burst_and_then_its_rate() {
    let limit = limit(BURST, 10, SECOND);
    let ms = Duration::from_millis;
    for (now, tries, expected) in [
        (SECOND, 5, 5),
        (SECOND, 1, 0),
        (SECOND + ms(99), 1, 0),
        (SECOND + ms(100), 1, 1),
        (SECOND + ms(100), 1, 0),
        (SECOND + ms(350), 3, 2),
        (SECOND + ms(400), 3, 1),
        (SECOND * 60, 10, 5),
    ] {
        assert_eq!(passed(&limit, 0, now, tries), expected, "at {now:?}");
    }
}

#[test]
fn a_window_gives_what_is_left_of_it_and_of_the_one_before() {
    let limit = limit(Algorithm::SlidingWindow, 10, SECOND * 10);
    let at = Duration::from_secs;
    for (now, tries, expected) in [
        (at(100), 10, 10),
        (at(100), 1, 0),
        (at(109), 1, 0),
        // All ten count at the turn, nine after a second, five after half of the window.
        (at(110), 1, 0),
        (at(111), 5, 1),
        (at(115), 20, 4),
        (at(119), 20, 4),
        // The nine of this window count from here on.
        (at(120), 20, 1),
        (at(140), 20, 10),
    ] {
        assert_eq!(passed(&limit, 0, now, tries), expected, "at {now:?}");
    }
}

#[test]
fn who_is_refused_is_told_when_to_come_back_and_passes_then() {
    let mut rng = Rng::new(3);
    for algorithm in [BURST, Algorithm::TokenBucket { burst: 1 }, Algorithm::SlidingWindow] {
        for requests in [1, 2, 7, 1000] {
            let limit = limit(algorithm, requests, SECOND * 3);
            let mut now = SECOND;
            let mut refusals = 0;
            for _ in 0..2000 {
                now += Duration::from_micros(rng.below(10_000) as u64);
                let asked = admit(std::slice::from_ref(&limit), now, |_, _| 0);
                let Some((_, wait)) = asked.refused() else { continue };
                refusals += 1;
                assert!(wait > Duration::ZERO && wait <= SECOND * 6, "{wait:?}");
                let just_before = now + wait.saturating_sub(Duration::from_micros(1));
                if just_before > now {
                    assert!(!passes(&limit, 0, just_before), "{algorithm:?} {requests} {wait:?}");
                }
                now += wait;
                assert!(passes(&limit, 0, now), "{algorithm:?} {requests} at {now:?} after {wait:?}");
            }
            assert!(requests == 1000 || refusals > 10, "{algorithm:?} {requests}");
        }
    }
}

#[test]
fn what_remains_is_what_still_passes() {
    for (algorithm, requests) in [(BURST, 10), (Algorithm::SlidingWindow, 5)] {
        let limit = limit(algorithm, requests, SECOND);
        for remaining in (0..5).rev() {
            let admission = admit(std::slice::from_ref(&limit), SECOND, |_, _| 0);
            let (_, verdict) = admission.said().next().expect("asked");
            assert_eq!((verdict.remaining, verdict.retry_after), (remaining, None), "{algorithm:?}");
            assert!(verdict.reset > Duration::ZERO);
        }
        assert!(!passes(&limit, 0, SECOND));
    }
}

#[test]
fn a_request_that_one_limit_refuses_counts_on_none() {
    let large = limit(Algorithm::TokenBucket { burst: 3 }, 1, SECOND * 60);
    let window = limit(Algorithm::SlidingWindow, 3, SECOND * 60);
    let small = limit(Algorithm::TokenBucket { burst: 1 }, 1, SECOND * 60);
    let limits = [Arc::clone(&large), Arc::clone(&window), Arc::clone(&small)];
    assert!(admit(&limits, SECOND, |_, _| 0).refused().is_none());
    for _ in 0..100 {
        let admission = admit(&limits, SECOND, |_, _| 0);
        let (by, wait) = admission.refused().expect("the small one is empty");
        assert!(Arc::ptr_eq(&small, &limits[2]) && std::ptr::eq(by, &*small), "it says who refused");
        assert_eq!(wait, SECOND * 60);
        assert_eq!(admission.said().count(), 3);
    }
    assert_eq!(passed(&large, 0, SECOND, 10), 2);
    assert_eq!(passed(&window, 0, SECOND, 10), 2);
}

#[test]
fn the_first_limit_that_refuses_spares_those_behind_it_and_no_more_than_eight_are_asked() {
    let empty = limit(Algorithm::TokenBucket { burst: 1 }, 1, SECOND);
    assert!(passes(&empty, 0, SECOND));
    let many: Vec<_> = (0..=LIMITS_MAX).map(|_| limit(BURST, 1, SECOND)).collect();
    assert_eq!(admit(&many, SECOND, |_, _| 0).said().count(), LIMITS_MAX);
    let behind = [empty, limit(BURST, 1, SECOND)];
    assert_eq!(admit(&behind, SECOND, |_, _| 0).said().count(), 1);
    assert_eq!(passed(&behind[1], 0, SECOND, 10), 5);
}

#[test]
fn the_largest_and_smallest_limits_hold_without_overflow() {
    let day = SECOND * 86_400;
    for (algorithm, requests, period, at_once) in [
        (Algorithm::TokenBucket { burst: 1_000_000 }, 1_000_000, SECOND, 1_000_000),
        (Algorithm::TokenBucket { burst: 1 }, 1, day, 1),
        (Algorithm::SlidingWindow, 1_000_000, day, 1_000_000),
        (Algorithm::SlidingWindow, 1, SECOND, 1),
    ] {
        let limit = limit(algorithm, requests, period);
        // Long after the start, at which a word counts in large numbers.
        let now = day * 3650;
        assert_eq!(passed(&limit, 0, now, at_once + 1), at_once, "{algorithm:?} {requests} in {period:?}");
    }
    let endless = limit(Algorithm::TokenBucket { burst: 1_000_000 }, 1, day);
    assert!(passes(&endless, 0, day * 3650), "its burst is more than a word can count");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test of what threads do at once")]
fn threads_together_admit_exactly_the_burst() {
    for limit in [
        limit(Algorithm::TokenBucket { burst: 1000 }, 1, SECOND * 3600),
        limit(Algorithm::SlidingWindow, 1000, SECOND * 3600),
        by_client(Algorithm::TokenBucket { burst: 1000 }, 1, 100),
    ] {
        let asked = |_| {
            let limit = &limit;
            move || passed(limit, 7, SECOND, 1000)
        };
        let admitted: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|thread| scope.spawn(asked(thread))).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        assert_eq!(admitted, 1000);
    }
}

#[test]
fn clients_have_buckets_of_their_own() {
    let limit = by_client(BURST, 1, 1000);
    for client in 0..500 {
        assert_eq!(passed(&limit, client, SECOND, 20), 5, "client {client}");
    }
    assert_eq!(limit.shared(), 0);
}

/// As many keys as the table is made for find a slot of their own, but for a few.
#[test]
fn a_table_takes_the_keys_that_it_is_for() {
    let limit = by_client(BURST, 1, 10_000);
    for client in 0..10_000 {
        assert!(passes(&limit, client, SECOND));
    }
    assert!(limit.shared() < 100, "{} shared", limit.shared());
}

#[test]
fn a_million_addresses_free_nobody_and_get_no_more_than_the_table_has_buckets() {
    let limit = by_client(Algorithm::TokenBucket { burst: 2 }, 1, 1000);
    let regulars = 10_000_000..10_000_050_u64;
    for client in regulars.clone() {
        assert_eq!(passed(&limit, client, SECOND, 5), 2);
    }
    let admitted = (0..1_000_000).filter(|client| passes(&limit, *client, SECOND)).count();
    // Slots for 1,250 keys and 64 buckets that the others share, two requests each.
    assert!(admitted <= 2 * (1_256 + 64), "{admitted} of the flood passed");
    assert!(limit.shared() > 990_000);
    for client in regulars.clone() {
        assert!(!passes(&limit, client, SECOND), "the flood freed client {client} of its limit");
    }
    // Regulars earn their tokens as if there were no flood.
    for client in regulars {
        assert_eq!(passed(&limit, client, SECOND * 2, 5), 1, "client {client}");
    }
    // When it ends, its slots are free again.
    let shared = limit.shared();
    for client in 20_000_000..20_000_500 {
        assert_eq!(passed(&limit, client, SECOND * 60, 5), 2);
    }
    assert_eq!(limit.shared(), shared);
}

/// What a client may have had in every stretch of time, whatever it and all others did.
#[test]
fn over_a_long_time_no_client_gets_more_than_its_limit_and_who_stays_below_is_never_refused() {
    for seed in 0..20 {
        let mut rng = Rng::new(seed);
        let (rate, burst) = (1 + rng.below(20), 1 + rng.below(30));
        let algorithm = match seed % 2 {
            0 => Algorithm::TokenBucket { burst: u32::try_from(burst).expect("small") },
            _ => Algorithm::SlidingWindow,
        };
        let limit = by_client(algorithm, u32::try_from(rate).expect("small"), 200);
        let mut admitted: BTreeMap<u64, Vec<Duration>> = BTreeMap::new();
        let mut now = SECOND;
        let modest = 1_000;
        let mut modest_next = now;
        for _ in 0..20_000 {
            now += Duration::from_micros(rng.below(2_000) as u64);
            if modest_next <= now {
                assert!(passes(&limit, modest, now), "seed {seed}: below its limit at {now:?}");
                // A little less often than the limit, from one whole second to the next.
                modest_next = now + SECOND.div_f64(rate as f64) + Duration::from_millis(2);
            }
            // Some ask a lot, many a little.
            let client = if rng.below(2) == 0 { rng.below(3) } else { rng.below(100) } as u64;
            if passes(&limit, client, now) {
                admitted.entry(client).or_default().push(now);
            }
        }
        assert!(admitted.len() > 90);
        for (client, times) in &admitted {
            for (from, first) in times.iter().enumerate() {
                let in_a_second = times[from..].iter().take_while(|time| **time < *first + SECOND).count();
                let most = match algorithm {
                    Algorithm::TokenBucket { .. } => burst + rate,
                    Algorithm::SlidingWindow => 2 * rate,
                };
                assert!(in_a_second <= most, "seed {seed}: client {client} had {in_a_second} in a second");
            }
            let whole = now.as_secs_f64() * rate as f64;
            assert!((times.len() as f64) <= whole + burst as f64, "seed {seed}: client {client}");
        }
    }
}

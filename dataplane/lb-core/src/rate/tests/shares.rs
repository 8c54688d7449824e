use super::*;

const BUCKET: Algorithm = Algorithm::TokenBucket { burst: 100 };

fn cluster(algorithm: Algorithm, requests: u32, period: Duration, key: RateKey) -> Arc<Limiter> {
    let policy = LimitPolicy { scope: Scope::Cluster(7), ..policy(algorithm, requests, period, key) };
    Arc::new(Limiter::new(policy, 1))
}

fn source() -> RateKey {
    RateKey::Source { v4_bits: 32, v6_bits: 64 }
}

/// In percent, with so many requests handed over. Gives whole requests that are left over.
fn set(limit: &Limiter, percent: u32, handed_over: u64, now: Duration) -> u64 {
    let share = Share { of_limit: percent * WHOLE / 100, handed_over: handed_over * REQUEST };
    limit.set_share(share, now) / REQUEST
}

#[test]
fn without_a_share_nothing_passes_and_with_one_what_it_earns_and_is_handed() {
    for algorithm in [BUCKET, Algorithm::SlidingWindow] {
        let limit = cluster(algorithm, 100, SECOND, RateKey::Route);
        assert_eq!((limit.share(), passed(&limit, 0, SECOND, 5)), (Some(0), 0));
        assert_eq!(set(&limit, 30, 20, SECOND), 0);
        assert_eq!(passed(&limit, 0, SECOND, 100), 20, "{algorithm:?}: what was handed over");
        assert_eq!(limit.asked(), 105);
        assert_eq!(
            passed(&limit, 0, SECOND * 20, 100),
            30,
            "{algorithm:?}: never more than its share at once"
        );
    }
    let limit = cluster(BUCKET, 100, SECOND, RateKey::Route);
    set(&limit, 30, 0, SECOND);
    assert_eq!(passed(&limit, 0, SECOND + SECOND / 2, 100), 15);
    assert_eq!(passed(&limit, 0, SECOND * 2, 100), 15);
}

#[test]
fn the_whole_share_counts_as_a_limit_of_its_own() {
    let mut rng = Rng::new(5);
    for algorithm in [BUCKET, Algorithm::SlidingWindow] {
        let local = limit(algorithm, 100, SECOND);
        let shared = cluster(algorithm, 100, SECOND, RateKey::Route);
        let mut now = SECOND * 9;
        set(&shared, 100, 100, now);
        for _ in 0..20_000 {
            now += Duration::from_micros(rng.below(15_000) as u64);
            let ask = |limit: &Arc<Limiter>| {
                let admission = admit(std::slice::from_ref(limit), now, |_, _| 0);
                let verdict = admission.said().next().expect("asked").1;
                (verdict.remaining, verdict.retry_after)
            };
            assert_eq!(ask(&local), ask(&shared), "{algorithm:?} at {now:?}");
        }
    }
}

#[test]
fn a_smaller_share_leaves_over_what_was_not_used_and_never_what_was() {
    for algorithm in [BUCKET, Algorithm::SlidingWindow] {
        for (used, left_over, passes_on) in [(0, 70, 10), (10, 60, 10), (75, 0, 5), (80, 0, 0)] {
            let limit = cluster(algorithm, 100, SECOND * 3600, RateKey::Route);
            set(&limit, 80, 80, SECOND);
            assert_eq!(passed(&limit, 0, SECOND, used), used);
            let expected = match algorithm {
                Algorithm::TokenBucket { .. } => (left_over, passes_on),
                // What it used counts against what is left of its share first.
                Algorithm::SlidingWindow => (70.min(80 - used as u64), usize::saturating_sub(10, used)),
            };
            let left = set(&limit, 10, 0, SECOND);
            assert_eq!((left, passed(&limit, 0, SECOND, 100)), expected, "{algorithm:?} after {used}");
        }
    }
}

#[test]
fn a_larger_share_is_no_full_bucket() {
    for algorithm in [BUCKET, Algorithm::SlidingWindow] {
        for key in [RateKey::Route, source()] {
            let limit = cluster(algorithm, 100, SECOND * 100, key);
            set(&limit, 10, 10, SECOND);
            assert_eq!(passed(&limit, 1, SECOND, 100), 10);
            for _ in 0..5 {
                set(&limit, 90, 0, SECOND);
                assert_eq!(passed(&limit, 1, SECOND, 100), 0, "who was out of tokens stays so");
                set(&limit, 10, 0, SECOND);
                assert_eq!(passed(&limit, 1, SECOND, 100), 0);
            }
            set(&limit, 90, 0, SECOND);
            let soon = passed(&limit, 1, SECOND * 11, 100);
            assert!((7..=9).contains(&soon), "{algorithm:?}: {soon} after a tenth of the period");
        }
    }
}

#[test]
fn of_many_buckets_only_what_every_one_has_is_left_over() {
    for algorithm in [BUCKET, Algorithm::SlidingWindow] {
        let limit = cluster(algorithm, 100, SECOND * 100, source());
        set(&limit, 80, 80, SECOND);
        assert_eq!(set(&limit, 60, 0, SECOND), 20, "nobody has ever asked");
        assert_eq!(passed(&limit, 1, SECOND, 1), 1);
        assert_eq!(set(&limit, 50, 0, SECOND), 0, "who asked may have used all of it");
        assert_eq!(set(&limit, 40, 0, SECOND * 301), 10, "that was long ago");
        assert_eq!(passed(&limit, 1, SECOND * 301, 100), 40);
        assert_eq!(passed(&limit, 2, SECOND * 301, 100), 40);
    }
}

#[test]
fn who_is_refused_under_a_share_is_told_the_time_of_clocks() {
    let limit = cluster(Algorithm::TokenBucket { burst: 10 }, 10, SECOND * 10, RateKey::Route);
    let wait = |now| {
        let asked = admit(std::slice::from_ref(&limit), now, |_, _| 0);
        asked.refused().expect("refused").1
    };
    assert_eq!(wait(SECOND), SECOND * 10, "without a share: a period at most");
    set(&limit, 50, 5, SECOND);
    assert_eq!(passed(&limit, 0, SECOND, 10), 5);
    assert_eq!(wait(SECOND), SECOND * 2, "half of one in a second");
    assert!(passes(&limit, 0, SECOND * 3));
}

#[test]
fn a_share_below_one_request_refuses_without_an_end_in_sight() {
    for algorithm in [Algorithm::TokenBucket { burst: 3 }, Algorithm::SlidingWindow] {
        let limit = cluster(algorithm, 3, SECOND * 60, RateKey::Route);
        set(&limit, 10, 3, SECOND);
        assert_eq!(passed(&limit, 0, SECOND * 10_000, 5), 0);
        let asked = admit(std::slice::from_ref(&limit), SECOND * 10_000, |_, _| 0);
        let wait = asked.refused().expect("refused").1;
        assert!(wait > Duration::ZERO && wait <= SECOND * 60, "{wait:?}");
    }
}

/// Shares move about at random, and what one leaves over another gets: together the proxies let through what one would.
#[test]
fn shares_that_move_at_random_never_pass_more_than_the_limit_together() {
    for seed in 0..60_u64 {
        let mut rng = Rng::new(seed);
        let key = if seed % 3 == 0 { source() } else { RateKey::Route };
        let (rate, burst) = (1 + rng.below(200), 8 + rng.below(300));
        let algorithm = Algorithm::TokenBucket { burst: u32::try_from(burst).expect("small") };
        let limits: Vec<_> = (0..4)
            .map(|_| cluster(algorithm, u32::try_from(rate).expect("small"), SECOND, key.clone()))
            .collect();
        let mut shares = [WHOLE, 0, 0, 0];
        let (mut now, mut free) = (SECOND, 0);
        let share = |of_limit, handed_over| Share { of_limit, handed_over };
        limits[0].set_share(share(WHOLE, burst as u64 * REQUEST), now);
        let mut passed_at = Vec::new();
        for _ in 0..4_000 {
            now += Duration::from_micros(rng.below(20_000) as u64);
            if rng.below(10) == 0 {
                let (from, to) = (rng.below(4), rng.below(4));
                let moved = u32::try_from(rng.below(shares[from] as usize + 1)).expect("millionths");
                if from != to {
                    (shares[from], shares[to]) = (shares[from] - moved, shares[to] + moved);
                    free += limits[from].set_share(share(shares[from], 0), now);
                    free = limits[to].set_share(share(shares[to], free), now);
                }
            }
            let at = &limits[rng.below(4)];
            let asks = rng.below(8);
            passed_at.extend(std::iter::repeat_n(now, passed(at, 1, now, asks)));
        }
        assert!(passed_at.len() > 20, "seed {seed}");
        // The worst stretch of time: how far the count ran ahead of the rate, from its lowest point on.
        let (mut lowest, mut worst) = (f64::MAX, 0.0_f64);
        for (count, at) in passed_at.iter().enumerate() {
            let ahead = count as f64 - at.as_secs_f64() * rate as f64;
            lowest = lowest.min(ahead);
            worst = worst.max(ahead + 1.0 - lowest);
        }
        assert!(worst <= burst as f64 + 1.001, "seed {seed}: {worst} ahead with a burst of {burst}");
    }
}

//! How a limit is divided among proxies: pure arithmetic over what is asked of each.
//!
//! Where less is asked than the limit allows, each has what is asked of it and a quarter more, and an equal part of the
//! rest: who is quiet can take a burst. Where more is asked, shares go by demand, as one counter for all would let
//! requests pass. The quiet ones keep one request, while that is little of the limit for all of them together.

use super::WHOLE;

/// Quiet proxies keep a request each while all of these are at most this part of the burst.
const FLOORS_PART: u64 = 20;

/// What a quiet proxy keeps where a request is less: this part of the limit, divided by the proxies.
const FLOOR_PART: u64 = 50;

/// Kept back for who comes, where that is a request at least.
const RESERVE_PART: u32 = 64;

/// A proxy that has something of a limit too small for all keeps it while another one asks less than this percentage more.
const KEEPING_PERCENT: u128 = 150;

/// What is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Terms {
    /// Requests at once.
    pub(super) burst: u32,
    pub(super) requests: u32,
    pub(super) period_ms: u64,
}

/// One that has a share.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Asking {
    /// Thousandths of a request in a second.
    pub(super) demand_milli: u64,
    /// What it has.
    pub(super) has: u32,
}

impl Terms {
    pub(super) fn rate_milli(&self) -> u64 {
        (u64::from(self.requests) * 1_000_000 / self.period_ms.max(1)).max(1)
    }

    /// The share that is one request at once; with less, none ever passes.
    fn quantum(&self) -> u32 {
        WHOLE.div_ceil(self.burst.max(1))
    }

    /// What nobody should have, so that who comes has something at once.
    pub(super) fn reserve(&self) -> u32 {
        if self.burst >= RESERVE_PART { WHOLE / RESERVE_PART } else { 0 }
    }

    fn floor(&self, proxies: usize) -> u32 {
        let proxies = proxies.max(1) as u64;
        if proxies * FLOORS_PART > u64::from(self.burst) {
            return 0;
        }
        let least = u64::from(WHOLE) / FLOOR_PART / proxies;
        self.quantum().max(u32::try_from(least).expect("below the whole"))
    }
}

/// The share of each, together at most `available`. `expected` is how many there will be, where more are to come.
pub(super) fn divide(available: u32, terms: &Terms, asking: &[Asking], expected: usize) -> Vec<u32> {
    let among = expected.max(asking.len());
    let floor = terms.floor(among);
    if floor == 0 {
        return divide_few(available, terms, asking);
    }
    let floors = u128::from(floor) * among as u128;
    let above = u128::from(available).saturating_sub(floors);
    let floor = floor.min(available / u32::try_from(among).unwrap_or(u32::MAX).max(1));
    let (parts, whole) = parts(terms, asking, among);
    let share = |part: u128| floor + u32::try_from(above * part / whole).expect("at most the whole");
    parts.into_iter().map(share).collect()
}

/// Of a limit of which not everybody can have a request: who has less than that has nothing of it.
fn divide_few(available: u32, terms: &Terms, asking: &[Asking]) -> Vec<u32> {
    let (parts, _) = parts(terms, asking, asking.len());
    let weight = |at: usize| {
        let percent = if asking[at].has > 0 { KEEPING_PERCENT } else { 100 };
        (parts[at].saturating_mul(percent), asking[at].has)
    };
    let mut order: Vec<usize> = (0..asking.len()).collect();
    order.sort_by(|a, b| weight(*b).cmp(&weight(*a)).then(a.cmp(b)));
    order.truncate(usize::try_from(terms.burst.max(1)).unwrap_or(usize::MAX));
    let mut shares = vec![0; asking.len()];
    while let Some(last) = order.last().copied() {
        let whole: u128 = order.iter().map(|at| parts[*at].max(1)).sum();
        let share = |at: usize| {
            u32::try_from(u128::from(available) * parts[at].max(1) / whole).expect("at most the whole")
        };
        let least = order.iter().map(|at| share(*at)).min().unwrap_or(0);
        if least >= terms.quantum() || order.len() == 1 {
            order.iter().for_each(|at| shares[*at] = share(*at));
            break;
        }
        order.retain(|at| *at != last);
    }
    shares
}

/// What each is to have, and of how much; together at most that.
fn parts(terms: &Terms, asking: &[Asking], among: usize) -> (Vec<u128>, u128) {
    let rate = u128::from(terms.rate_milli());
    // So large a demand is a mistake or a lie, and must not overflow.
    let demand = |asking: &Asking| u128::from(asking.demand_milli.min(1 << 50)) * 5 / 4;
    let all: u128 = asking.iter().map(demand).sum();
    if all >= rate {
        return (asking.iter().map(demand).collect(), all.max(1));
    }
    let among = among.max(1) as u128;
    let rest = rate - all;
    (asking.iter().map(|asking| demand(asking) * among + rest).collect(), rate * among)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(burst: u32, requests: u32) -> Terms {
        Terms { burst, requests, period_ms: 1_000 }
    }

    /// In percent of the whole, from demands in requests a second.
    fn shares(terms: Terms, demands: &[u64], expected: usize) -> Vec<u32> {
        let asking: Vec<_> =
            demands.iter().map(|demand| Asking { demand_milli: demand * 1_000, has: 0 }).collect();
        let shares = divide(WHOLE, &terms, &asking, expected);
        assert!(shares.iter().map(|share| u64::from(*share)).sum::<u64>() <= u64::from(WHOLE));
        shares.into_iter().map(|share| share / (WHOLE / 100)).collect()
    }

    #[test]
    fn shares_follow_demand_where_the_limit_is_short_and_leave_room_where_it_is_not() {
        let hundred = terms(100, 100);
        for (demands, expected, percent) in [
            (&[0, 0, 0][..], 0, &[33, 33, 33][..]),
            (&[200, 200], 0, &[50, 50]),
            (&[900, 100], 0, &[89, 10]),
            // One request for each that is quiet.
            (&[500, 0, 0], 0, &[98, 1, 1]),
            (&[40, 0], 0, &[74, 25]),
            (&[0], 4, &[25]),
            (&[1_000], 4, &[97]),
        ] {
            assert_eq!(shares(hundred, demands, expected), percent, "{demands:?}");
        }
    }

    #[test]
    fn of_a_limit_that_is_too_small_for_all_some_have_a_request_and_others_nothing() {
        for (burst, demands, percent) in [
            (1, &[3, 5, 4][..], &[0, 100, 0][..]),
            // Half of two is one, and who asks less than half would have none.
            (2, &[3, 5, 4], &[0, 100, 0]),
            (2, &[4, 4, 4], &[50, 50, 0]),
            (3, &[0, 0, 0], &[33, 33, 33]),
            (5, &[0, 0, 1_000], &[0, 0, 100]),
        ] {
            assert_eq!(shares(terms(burst, 1), demands, 0), percent, "{burst} among {demands:?}");
        }
    }

    #[test]
    fn who_has_something_of_a_small_limit_keeps_it_unless_another_one_asks_much_more() {
        let asking = |first, second| {
            [Asking { demand_milli: first, has: WHOLE }, Asking { demand_milli: second, has: 0 }]
        };
        let one = terms(1, 1);
        assert_eq!(divide(WHOLE, &one, &asking(1_000, 1_400), 0), [WHOLE, 0]);
        assert_eq!(divide(WHOLE, &one, &asking(1_000, 1_600), 0), [0, WHOLE]);
        assert_eq!(divide(WHOLE, &one, &asking(0, 0), 0), [WHOLE, 0]);
    }

    #[test]
    fn nothing_overflows_whatever_is_said() {
        for (available, burst, requests, period_ms) in [
            (WHOLE, u32::MAX, u32::MAX, 1),
            (0, 0, 0, 0),
            (1, 1, 1, u64::MAX),
            (WHOLE, 1_000_000, 1, 86_400_000),
        ] {
            let asking = [Asking { demand_milli: u64::MAX, has: u32::MAX }; 50];
            let shares = divide(available, &Terms { burst, requests, period_ms }, &asking, usize::MAX >> 40);
            assert!(shares.iter().map(|share| u64::from(*share)).sum::<u64>() <= u64::from(available));
        }
    }
}

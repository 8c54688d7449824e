//! Which certificates are about to end, and when there is more to say of them.

use super::reason;
use super::text::{self, Limits};
use crate::compile::Validity;
use k8s_openapi::jiff::Timestamp;
use std::collections::BTreeMap;

/// A certificate that ends within this time, or within a third of its whole time where that is less, is said to: whoever
/// renews it (cert-manager does with a third left) should have done so.
pub const EXPIRING_S: i64 = 30 * 86_400;
/// One that ends within this, or within a sixth, degrades its pool.
pub const EXPIRING_SOON_S: i64 = 7 * 86_400;

/// How near a certificate's end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Nearness {
    Far,
    Month,
    Week,
    Past,
}

impl Nearness {
    fn of(validity: &Validity, now_s: i64) -> Self {
        let [_, month, week, past] = steps(validity);
        match now_s {
            _ if now_s > past => Self::Past,
            _ if now_s >= week => Self::Week,
            _ if now_s >= month => Self::Month,
            _ => Self::Far,
        }
    }

    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Far => reason::NONE_EXPIRING,
            Self::Month => reason::WITHIN_30_DAYS,
            Self::Week => reason::WITHIN_7_DAYS,
            Self::Past => reason::EXPIRED,
        }
    }
}

/// When each [`Nearness`] begins; the last one after that second.
fn steps(validity: &Validity) -> [i64; 4] {
    let Validity { begins_s, ends_s } = *validity;
    let whole = ends_s.saturating_sub(begins_s).max(0);
    let before = |most: i64, part: i64| ends_s.saturating_sub(most.min(whole / part));
    [i64::MIN, before(EXPIRING_S, 3), before(EXPIRING_SOON_S, 6), ends_s]
}

/// The nearest end, and the certificates that are not far from theirs, the first to end first.
pub(super) fn found(
    validities: &BTreeMap<String, Validity>,
    now: Timestamp,
    limits: Limits,
) -> (Nearness, String) {
    let now_s = now.as_second();
    let mut near: Vec<_> = validities
        .iter()
        .map(|(secret, validity)| (validity.ends_s, secret, Nearness::of(validity, now_s)))
        .filter(|(_, _, nearness)| *nearness > Nearness::Far)
        .collect();
    near.sort_unstable();
    let nearest = near.iter().map(|(_, _, nearness)| *nearness).max().unwrap_or(Nearness::Far);
    let each = near.iter().map(|(ends_s, secret, nearness)| {
        let end = Timestamp::from_second(*ends_s).map_or_else(|_| ends_s.to_string(), |end| end.to_string());
        match nearness {
            Nearness::Past => format!("that of Secret {secret} expired {end}"),
            _ => format!("that of Secret {secret} is valid until {end}"),
        }
    });
    let message = match nearest {
        Nearness::Far => "No certificate of the pool is about to expire".to_owned(),
        _ => format!("Certificates have to be renewed: {}", text::listed(each, 0, limits)),
    };
    (nearest, message)
}

/// Seconds since 1970 at which what is found is another than now.
pub(super) fn changes_at_s(validities: &BTreeMap<String, Validity>, now: Timestamp) -> Option<i64> {
    let now_s = now.as_second();
    let of = |validity: &Validity| {
        let [_, month, week, past] = steps(validity);
        [month, week, past.saturating_add(1)].into_iter().filter(|step| *step > now_s).min()
    };
    validities.values().filter_map(of).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { item_bytes_max: 400, bytes_max: 4_000 };
    const DAY: i64 = 86_400;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    #[test]
    fn a_certificate_is_spoken_of_from_30_and_7_days_before_its_end_and_a_short_one_later() {
        let end = 1_800_000_000;
        for (days, steps) in [
            (365, [30 * DAY, 7 * DAY]),
            (90, [30 * DAY, 7 * DAY]),
            // A third and a sixth of its time.
            (30, [10 * DAY, 5 * DAY]),
            (1, [DAY / 3, DAY / 6]),
        ] {
            let validity = Validity { begins_s: end - days * DAY, ends_s: end };
            let all = BTreeMap::from([("ns/a".to_owned(), validity)]);
            let [month, week] = steps;
            for (before_end, expected) in [
                (month + 1, Nearness::Far),
                (month, Nearness::Month),
                (week + 1, Nearness::Month),
                (week, Nearness::Week),
                (0, Nearness::Week),
                (-1, Nearness::Past),
            ] {
                assert_eq!(found(&all, at(end - before_end), LIMITS).0, expected, "{days} {before_end}");
            }
            let mut now = validity.begins_s;
            for next in [end - month, end - week, end + 1] {
                assert_eq!(changes_at_s(&all, at(now)), Some(next), "{days}");
                now = next;
            }
            assert_eq!(changes_at_s(&all, at(now)), None);
        }
    }

    #[test]
    fn the_first_to_end_is_named_first_and_those_far_from_it_are_not() {
        let until = |ends_s| Validity { begins_s: 0, ends_s };
        let now = 1_800_000_000;
        let all = BTreeMap::from([
            ("ns/far".to_owned(), until(now + 31 * DAY)),
            ("ns/month".to_owned(), until(now + 8 * DAY)),
            ("ns/past".to_owned(), until(now - DAY)),
            ("ns/week".to_owned(), until(now + DAY)),
        ]);
        let (nearest, message) = found(&all, at(now), LIMITS);
        assert_eq!(nearest, Nearness::Past);
        let expected = "Certificates have to be renewed: that of Secret ns/past expired 2027-01-14T08:00:00Z; \
                        that of Secret ns/week is valid until 2027-01-16T08:00:00Z; \
                        that of Secret ns/month is valid until 2027-01-23T08:00:00Z";
        assert_eq!(message, expected);
        assert_eq!(found(&BTreeMap::new(), at(now), LIMITS).0, Nearness::Far);
    }
}

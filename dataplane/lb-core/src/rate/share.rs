//! What one proxy has of a limit that several proxies have together: its part of the rate and of the burst.
//!
//! A share changes under buckets that are in use, and what they counted must neither be forgotten nor multiplied: a client
//! who is out of tokens here may not find new ones because the share grew. So a bucket is not kept as the time at which it
//! is full, which would move with the share, but as a place on a scale that only the limiter moves along:
//!
//! - *earned* is how far the scale has come: time at the share, `∫ share dt`, and what other proxies handed over. It does
//!   not jump when the share changes.
//! - a bucket's place is how much of it was used up; a request moves it on by one step, and passes where it stays at or
//!   below *earned*.
//! - the *floor* is what a full bucket counts as, `earned - share * bucket`, and never falls. A smaller share lifts it and
//!   takes away what was saved beyond it; a larger one leaves it, and a bucket grows into its new size only by earning.
//!
//! So changing a share costs the same whatever the number of buckets, and over all proxies the tokens that there are never
//! become more by it. What a smaller share takes away can be handed to another proxy, which begins with so many more.
//!
//! A window of a smaller share lets fewer requests pass at once; with a larger one the number grows over one period, or by
//! what was handed over at once.

use super::bucket::{Algorithm, Rate, Verdict};
use std::time::Duration;

/// The whole limit, in the parts that shares are counted in. Divisible by every number up to 16, so that equal shares of a
/// small limit are whole requests.
pub const WHOLE: u32 = 720_720;

/// One request, in the parts in which proxies hand over what they did not use: so many as a limit has.
pub const REQUEST: u64 = WHOLE as u64;

/// What a share is set to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Parts of the limit, at most [`WHOLE`].
    pub of_limit: u32,
    /// Of what others did not use, in parts of a [`REQUEST`]: on top, once.
    pub handed_over: u64,
}

/// A share in force, with what was earned under it and before.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    since_ns: u64,
    share: u32,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Tokens {
        step_ns: u64,
        bucket_ns: u64,
        /// At `since_ns`.
        earned_ns: u64,
        floor_ns: u64,
    },
    Window {
        period_ns: u64,
        requests: u64,
        /// The share that counted at `since_ns`; it grows to `share` in a period.
        from: u32,
    },
}

/// What is known of the buckets when a share changes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Used {
    /// The only bucket's word.
    One(u64),
    /// There are many, and nobody asked any since.
    Many {
        /// Of the last request, since the process began.
        asked_ns: u64,
    },
}

/// Terms to come, and what the change leaves over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change {
    pub(super) terms: Terms,
    /// What the only bucket's word is lifted to.
    pub(super) floor: u64,
}

impl Terms {
    /// Nothing, and nothing earned.
    pub(super) fn none(algorithm: Algorithm, requests: u32, period: Duration) -> Self {
        let kind = match Rate::new(algorithm, requests, period) {
            Rate::Tokens { step_ns, bucket_ns } => {
                Kind::Tokens { step_ns, bucket_ns, earned_ns: 0, floor_ns: 0 }
            }
            Rate::Window { period_ns, requests } => Kind::Window { period_ns, requests, from: 0 },
        };
        Self { since_ns: 0, share: 0, kind }
    }

    pub(super) fn share(&self) -> u32 {
        self.share
    }

    /// The rate at this moment, and the clock that its buckets go by.
    pub(super) fn at(&self, now_ns: u64) -> (Rate, u64) {
        let elapsed_ns = now_ns.saturating_sub(self.since_ns);
        match self.kind {
            Kind::Tokens { step_ns, .. } => {
                let (earned_ns, floor_ns) = self.scale(elapsed_ns);
                (Rate::Tokens { step_ns, bucket_ns: earned_ns - floor_ns }, floor_ns)
            }
            Kind::Window { period_ns, requests, from } => {
                let counts = counting(from, self.share, elapsed_ns, period_ns);
                (Rate::Window { period_ns, requests: part(requests, counts) }, now_ns)
            }
        }
    }

    /// What a bucket said, in the time of clocks.
    pub(super) fn told(&self, verdict: Verdict, period: Duration) -> Verdict {
        let Kind::Tokens { .. } = self.kind else { return verdict };
        // The scale goes slower than clocks do; where it stands still, nobody knows when it goes on.
        let stretch = |time: Duration| {
            let nanos = time.as_nanos().saturating_mul(WHOLE.into()) / u128::from(self.share.max(1));
            Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)).min(period)
        };
        let retry_after = verdict.retry_after.map(stretch);
        Verdict { reset: stretch(verdict.reset).max(retry_after.unwrap_or_default()), retry_after, ..verdict }
    }

    /// The terms with this share, from now on.
    pub(super) fn with(&self, share: Share, now_ns: u64) -> Change {
        let of_limit = share.of_limit.min(WHOLE);
        let elapsed_ns = now_ns.saturating_sub(self.since_ns);
        let since_ns = self.since_ns.max(now_ns);
        match self.kind {
            Kind::Tokens { step_ns, bucket_ns, .. } => {
                let (earned_ns, floor_ns) = self.scale(elapsed_ns);
                let earned_ns = earned_ns.saturating_add(scaled(share.handed_over, step_ns, REQUEST));
                let floor_ns = floor_ns.max(earned_ns.saturating_sub(part(bucket_ns, of_limit)));
                let kind = Kind::Tokens { step_ns, bucket_ns, earned_ns, floor_ns };
                Change { terms: Self { since_ns, share: of_limit, kind }, floor: floor_ns }
            }
            Kind::Window { period_ns, requests, from } => {
                let counts = counting(from, self.share, elapsed_ns, period_ns);
                let more = u32::try_from(share.handed_over / requests).unwrap_or(WHOLE);
                let from = counts.saturating_add(more).min(of_limit);
                let kind = Kind::Window { period_ns, requests, from };
                Change { terms: Self { since_ns, share: of_limit, kind }, floor: 0 }
            }
        }
    }

    /// What these terms take away of what could have passed before them, at the moment when they begin: in parts of a
    /// request, of every bucket.
    pub(super) fn left_over(&self, next: &Self, share: Share, used: Used) -> u64 {
        let now_ns = next.since_ns;
        match (self.kind, next.kind) {
            (Kind::Tokens { step_ns, .. }, Kind::Tokens { floor_ns: lifted_ns, .. }) => {
                let (_, floor_ns) = self.scale(now_ns.saturating_sub(self.since_ns));
                let place_ns = match used {
                    Used::One(word) => word,
                    // No bucket is further than the scale was when the last of them was asked.
                    Used::Many { asked_ns: 0 } => 0,
                    Used::Many { asked_ns } => self.scale(asked_ns.saturating_sub(self.since_ns)).0,
                };
                scaled(lifted_ns.saturating_sub(place_ns.max(floor_ns)), REQUEST, step_ns)
            }
            (Kind::Window { period_ns, requests, from }, Kind::Window { .. }) => {
                let elapsed_ns = now_ns.saturating_sub(self.since_ns);
                let counts = counting(from, self.share, elapsed_ns, period_ns);
                let before = requests * u64::from(counts) + share.handed_over;
                let used = match used {
                    Used::One(word) => Rate::Window { period_ns, requests }.used(word, now_ns),
                    Used::Many { asked_ns }
                        if asked_ns == 0 || now_ns.saturating_sub(asked_ns) >= 2 * period_ns =>
                    {
                        0
                    }
                    Used::Many { .. } => requests,
                };
                before.saturating_sub((used * REQUEST).max(requests * u64::from(next.share)))
            }
            _ => 0,
        }
    }

    /// What is earned, and the floor, so long after these terms began.
    fn scale(&self, elapsed_ns: u64) -> (u64, u64) {
        let Kind::Tokens { bucket_ns, earned_ns, floor_ns, .. } = self.kind else { return (0, 0) };
        let earned_ns = earned_ns.saturating_add(part(elapsed_ns, self.share));
        (earned_ns, floor_ns.max(earned_ns.saturating_sub(part(bucket_ns, self.share))))
    }
}

/// The share by which a window counts.
fn counting(from: u32, to: u32, elapsed_ns: u64, period_ns: u64) -> u32 {
    let grown = scaled(to.saturating_sub(from).into(), elapsed_ns.min(period_ns), period_ns);
    from.min(to) + u32::try_from(grown).unwrap_or(0)
}

fn part(of: u64, share: u32) -> u64 {
    scaled(of, share.into(), WHOLE.into())
}

/// `of * by / to`, rounded down.
fn scaled(of: u64, by: u64, to: u64) -> u64 {
    u64::try_from(u128::from(of) * u128::from(by) / u128::from(to)).unwrap_or(u64::MAX)
}

//! How a bucket counts: pure functions from its one word and a time to the next one.
//!
//! A token bucket is kept as the time at which it will be full again (the generic cell rate algorithm, ITU-T I.371): a
//! request moves that time on by what it takes to earn one token, and is refused where it would lie further ahead than a
//! whole bucket takes. A sliding window is two counters, of this period and of the one before, of which a part counts that
//! shrinks as this one goes on.
//!
//! The word 0 is a full bucket. Times are nanoseconds since the process began.

use std::time::Duration;

/// How a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// Tokens come evenly, and so many are kept for a burst, 1 to 1,000,000. In a time `t` at most
    /// `burst + t * requests / period` requests pass.
    TokenBucket {
        /// Requests at once.
        burst: u32,
    },
    /// So many in the last `period`, as far as two counters can tell: exact where requests of the period before were
    /// spread evenly over it, and at most twice as many whatever they do.
    SlidingWindow,
}

/// What a limit says of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Requests that would pass now, after this one.
    pub remaining: u32,
    /// Until the limit is whole again.
    pub reset: Duration,
    /// `None`: it passes. Otherwise when it would, if nobody else asked meanwhile; above zero.
    pub retry_after: Option<Duration>,
}

/// A limit in the units of its word.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rate {
    Tokens {
        /// For one token.
        step_ns: u64,
        /// For a whole bucket.
        bucket_ns: u64,
    },
    Window {
        period_ns: u64,
        requests: u64,
    },
}

/// Bits of each counter of a window: more than the most requests of a limit.
const COUNT_BITS: u32 = 20;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
/// Windows are numbered modulo this: at periods of a second, for 194 days.
const NUMBER_MASK: u64 = (1 << (64 - 2 * COUNT_BITS)) - 1;
/// The furthest ahead that a bucket is full, far below what could overflow.
const AHEAD_NS_MAX: u64 = 1 << 62;

/// What a word says of a window at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counts {
    number: u64,
    before: u64,
    now: u64,
    /// Of this window.
    elapsed_ns: u64,
}

impl Rate {
    pub(super) fn new(algorithm: Algorithm, requests: u32, period: Duration) -> Self {
        let requests = u64::from(requests.max(1)).min(COUNT_MASK);
        let period_ns = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX).max(1);
        match algorithm {
            // Rounded up: never above the limit.
            Algorithm::TokenBucket { burst } => {
                let step_ns = period_ns.div_ceil(requests);
                let bucket_ns = step_ns.saturating_mul(burst.max(1).into()).min(AHEAD_NS_MAX);
                Self::Tokens { step_ns, bucket_ns }
            }
            Algorithm::SlidingWindow => Self::Window { period_ns, requests },
        }
    }

    /// The next word, `None` where the request is refused and the word stays.
    pub(super) fn take(&self, state: u64, now_ns: u64) -> (Option<u64>, Verdict) {
        match *self {
            Self::Tokens { step_ns, bucket_ns } => tokens(step_ns, bucket_ns, state, now_ns),
            Self::Window { period_ns, requests } => window(period_ns, requests, state, now_ns),
        }
    }

    /// The word without a request that was taken a moment ago.
    pub(super) fn give_back(&self, state: u64, now_ns: u64) -> u64 {
        match *self {
            Self::Tokens { step_ns, .. } => state.saturating_sub(step_ns),
            Self::Window { period_ns, .. } => {
                let counts = Counts::of(state, now_ns, period_ns);
                Counts { now: counts.now.saturating_sub(1), ..counts }.word()
            }
        }
    }

    /// Requests that a window counts now, rounded up; 0 for tokens.
    pub(super) fn used(&self, state: u64, now_ns: u64) -> u64 {
        let Self::Window { period_ns, .. } = *self else { return 0 };
        let counts = Counts::of(state, now_ns, period_ns);
        part(counts.before, period_ns - counts.elapsed_ns, period_ns)
            + u64::from(counts.before > 0)
            + counts.now
    }

    /// Whether forgetting the bucket changes nothing.
    pub(super) fn is_full(&self, state: u64, now_ns: u64) -> bool {
        match *self {
            Self::Tokens { .. } => state <= now_ns,
            Self::Window { period_ns, .. } => {
                let counts = Counts::of(state, now_ns, period_ns);
                counts.before == 0 && counts.now == 0
            }
        }
    }
}

fn tokens(step_ns: u64, bucket_ns: u64, state: u64, now_ns: u64) -> (Option<u64>, Verdict) {
    let ahead_ns = state.saturating_sub(now_ns);
    let next_ns = ahead_ns.saturating_add(step_ns);
    let whole = |ns: u64| u32::try_from(ns / step_ns).unwrap_or(u32::MAX);
    if next_ns > bucket_ns {
        let verdict = Verdict {
            remaining: 0,
            reset: Duration::from_nanos(ahead_ns),
            retry_after: Some(Duration::from_nanos(next_ns - bucket_ns)),
        };
        return (None, verdict);
    }
    let verdict = Verdict {
        remaining: whole(bucket_ns - next_ns),
        reset: Duration::from_nanos(next_ns),
        retry_after: None,
    };
    (Some(now_ns.saturating_add(next_ns)), verdict)
}

fn window(period_ns: u64, requests: u64, state: u64, now_ns: u64) -> (Option<u64>, Verdict) {
    if requests == 0 {
        // A share that is less than a request. When it grows, nobody knows.
        let period = Duration::from_nanos(period_ns);
        return (None, Verdict { remaining: 0, reset: period, retry_after: Some(period) });
    }
    let counts = Counts::of(state, now_ns, period_ns);
    let left_ns = period_ns - counts.elapsed_ns;
    // Rounded down, or a client that stays just below a small limit would be refused at every other turn.
    let used = part(counts.before, left_ns, period_ns) + counts.now;
    // A request of now counts until the end of the next window.
    let reset =
        |counts: u64| Duration::from_nanos(left_ns.saturating_add(if counts > 0 { period_ns } else { 0 }));
    if used >= requests {
        let verdict = Verdict {
            remaining: 0,
            reset: reset(counts.now),
            retry_after: Some(Duration::from_nanos(wait_ns(&counts, requests, period_ns).max(1))),
        };
        return (None, verdict);
    }
    let next = Counts { now: counts.now + 1, ..counts };
    let remaining = u32::try_from(requests - used - 1).unwrap_or(u32::MAX);
    (Some(next.word()), Verdict { remaining, reset: reset(1), retry_after: None })
}

/// Until one more request passes where nothing else happens.
fn wait_ns(counts: &Counts, requests: u64, period_ns: u64) -> u64 {
    match requests.checked_sub(1 + counts.now) {
        Some(room) => shrunk_ns(counts.before, room, period_ns).saturating_sub(counts.elapsed_ns),
        // Only in the next window, where those of now are those of before.
        None => {
            let left_ns = period_ns - counts.elapsed_ns;
            left_ns.saturating_add(shrunk_ns(counts.now, requests - 1, period_ns))
        }
    }
}

/// From the begin of a window until the part of `before` that counts is no more than `room`.
fn shrunk_ns(before: u64, room: u64, period_ns: u64) -> u64 {
    if before <= room {
        return 0;
    }
    let left = (u128::from(room + 1) * u128::from(period_ns)).div_ceil(u128::from(before)) - 1;
    period_ns - u64::try_from(left).unwrap_or(u64::MAX).min(period_ns)
}

/// `count * part / whole`.
fn part(count: u64, part: u64, whole: u64) -> u64 {
    u64::try_from(u128::from(count) * u128::from(part) / u128::from(whole)).unwrap_or(u64::MAX)
}

impl Counts {
    fn of(word: u64, now_ns: u64, period_ns: u64) -> Self {
        let (number, elapsed_ns) = ((now_ns / period_ns) & NUMBER_MASK, now_ns % period_ns);
        let written = word >> (2 * COUNT_BITS);
        let (before, now) = ((word >> COUNT_BITS) & COUNT_MASK, word & COUNT_MASK);
        let (before, now) = match number.wrapping_sub(written) & NUMBER_MASK {
            0 => (before, now),
            1 => (now, 0),
            // A worker whose clock was read before that of another one, at the turn of a window.
            NUMBER_MASK => return Self { number: written, before, now, elapsed_ns: 0 },
            _ => (0, 0),
        };
        Self { number, before, now, elapsed_ns }
    }

    fn word(&self) -> u64 {
        (self.number << (2 * COUNT_BITS)) | (self.before << COUNT_BITS) | self.now
    }
}

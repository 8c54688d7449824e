//! How many requests there may be in a time: of one client, or of a route in all.
//!
//! A [`Limiter`] is one limit with all that it counts. A bucket is one atomic word, changed by one exchange: what several
//! workers admit together is exact, and nobody waits. Buckets of clients live in a table of fixed size ([`KeyTable`]);
//! [`admit`] asks several limits at once, and a request that one of them refuses counts on none.
//!
//! Our own, and not `governor`: its keyed limiters keep a sharded map behind locks, which grows with the keys that
//! clients send until somebody sweeps it; it has no sliding window, and a rate cannot be changed under its buckets.

mod bucket;
mod table;

pub use bucket::{Algorithm, Verdict};
pub use table::KeyTable;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Limits that one request can be under.
pub const LIMITS_MAX: usize = 8;

/// What a limit counts by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RateKey {
    /// All requests together.
    Route,
    /// The client's network, of so many leading bits.
    Source {
        /// 1 to 32.
        v4_bits: u8,
        /// 1 to 128.
        v6_bits: u8,
    },
    /// The first value of the header of this name, in lower case.
    Header(Arc<str>),
    /// The value of the cookie of this name.
    Cookie(Arc<str>),
}

/// When a response tells how much is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// Where the limit refused the request.
    WhenRefused,
    /// Always.
    Always,
}

/// One limit as it was configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitPolicy {
    /// Unique within the pool, equal on all proxies: what a limit that is configured again is known by.
    pub id: Arc<str>,
    /// For people and headers: a DNS label.
    pub name: Arc<str>,
    /// What it counts by.
    pub key: RateKey,
    /// How it counts.
    pub algorithm: Algorithm,
    /// 1 to 1,000,000 in each `period`.
    pub requests: u32,
    /// 1 s to 24 h.
    pub period: Duration,
    /// Buckets at a time, at least 1; not for [`RateKey::Route`], which has one.
    pub keys_max: u32,
    /// What clients are told.
    pub told: Told,
}

/// A limit, and what was counted.
#[derive(Debug)]
pub struct Limiter {
    /// As configured.
    pub policy: LimitPolicy,
    /// For the hashes of its keys, so that nobody can choose keys that meet.
    pub seed: u64,
    rate: bucket::Rate,
    buckets: Buckets,
}

#[derive(Debug)]
enum Buckets {
    One(Padded),
    Keyed(KeyTable),
}

/// A bucket that all workers write, alone on its cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded(AtomicU64);

/// What a bucket said, and where a request that others refuse is given back.
#[derive(Debug, Clone, Copy)]
struct Taken<'a> {
    bucket: &'a AtomicU64,
    verdict: Verdict,
}

impl Limiter {
    /// With every bucket full. Takes 20 bytes for each key at once.
    #[must_use]
    pub fn new(policy: LimitPolicy, seed: u64) -> Self {
        let rate = bucket::Rate::new(policy.algorithm, policy.requests, policy.period);
        let buckets = match policy.key {
            RateKey::Route => Buckets::One(Padded::default()),
            _ => Buckets::Keyed(KeyTable::new(policy.keys_max)),
        };
        Self { policy, seed, rate, buckets }
    }

    /// Requests that were counted with those of other keys, as the table was full.
    #[must_use]
    pub fn shared(&self) -> u64 {
        match &self.buckets {
            Buckets::One(_) => 0,
            Buckets::Keyed(table) => table.shared(),
        }
    }

    fn take(&self, key: u64, now_ns: u64) -> Taken<'_> {
        let bucket = match &self.buckets {
            Buckets::One(bucket) => &bucket.0,
            Buckets::Keyed(table) => table.bucket(key, |state| self.rate.is_full(state, now_ns)),
        };
        let mut state = bucket.load(Ordering::Relaxed);
        loop {
            let (next, verdict) = self.rate.take(state, now_ns);
            let Some(next) = next else { return Taken { bucket, verdict } };
            match bucket.compare_exchange_weak(state, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Taken { bucket, verdict },
                Err(newer) => state = newer,
            }
        }
    }

    fn give_back(&self, taken: &Taken<'_>, now_ns: u64) {
        let mut state = taken.bucket.load(Ordering::Relaxed);
        loop {
            let next = self.rate.give_back(state, now_ns);
            match taken.bucket.compare_exchange_weak(state, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(newer) => state = newer,
            }
        }
    }
}

/// What all limits of a request say together.
#[derive(Debug)]
pub struct Admission<'a> {
    said: [Option<(&'a Limiter, Verdict)>; LIMITS_MAX],
    asked: usize,
}

impl<'a> Admission<'a> {
    /// Each limit that was asked with what it said, in their order: where one refuses, it is the last.
    pub fn said(&self) -> impl Iterator<Item = (&'a Limiter, Verdict)> + '_ {
        self.said[..self.asked].iter().flatten().copied()
    }

    /// The limit that refuses the request, and for how long it will.
    #[must_use]
    pub fn refused(&self) -> Option<(&'a Limiter, Duration)> {
        let (limiter, verdict) = self.said().last()?;
        Some((limiter, verdict.retry_after?))
    }
}

/// Counts a request on every limit, or on none where one refuses it. `key` hashes what a limit counts by, with the limit's
/// seed; it is asked only for limits that have more than one bucket. At most [`LIMITS_MAX`] limits are asked.
///
/// `now` is since the process began, the same clock at every call.
pub fn admit<'a>(
    limits: &'a [Arc<Limiter>],
    now: Duration,
    mut key: impl FnMut(&RateKey, u64) -> u64,
) -> Admission<'a> {
    let now_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX >> 1);
    let mut admission = Admission { said: [None; LIMITS_MAX], asked: 0 };
    let mut taken: [Option<Taken<'a>>; LIMITS_MAX] = [None; LIMITS_MAX];
    for (at, limiter) in limits.iter().take(LIMITS_MAX).enumerate() {
        let of = match limiter.policy.key {
            RateKey::Route => 0,
            ref other => key(other, limiter.seed),
        };
        let took = limiter.take(of, now_ns);
        admission.said[at] = Some((limiter, took.verdict));
        admission.asked = at + 1;
        if took.verdict.retry_after.is_some() {
            for (limiter, taken) in limits.iter().zip(taken.iter().flatten()) {
                limiter.give_back(taken, now_ns);
            }
            return admission;
        }
        taken[at] = Some(took);
    }
    admission
}

#[cfg(test)]
mod tests;

//! How many requests there may be in a time: of one client, or of a route in all.
//!
//! A [`Limiter`] is one limit with all that it counts. A bucket is one atomic word, changed by one exchange: what several
//! workers admit together is exact, and nobody waits. Buckets of clients live in a table of fixed size ([`KeyTable`]);
//! [`admit`] asks several limits at once, and a request that one of them refuses counts on none.
//!
//! Our own, and not `governor`: its keyed limiters keep a sharded map behind locks, which grows with the keys that
//! clients send until somebody sweeps it; it has no sliding window, and a rate cannot be changed under its buckets.

mod bucket;
mod share;
mod table;

pub use bucket::{Algorithm, Verdict};
pub use share::{REQUEST, Share, WHOLE};
pub use table::KeyTable;

use arc_swap::ArcSwap;
use share::{Terms, Used};
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

/// Whose requests a limit is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Those of this proxy.
    Local,
    /// Those of every proxy that has the limit of this number, each its share.
    Cluster(u64),
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
    /// Whether this proxy has the whole of it.
    pub scope: Scope,
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
    pace: Pace,
    buckets: Buckets,
}

#[derive(Debug)]
enum Pace {
    Whole(bucket::Rate),
    Shared(Box<Shared>),
}

/// Of a limit that this proxy has a share of.
#[derive(Debug)]
struct Shared {
    /// Written by whoever keeps the shares.
    terms: ArcSwap<Terms>,
    asked: Asked,
}

/// What workers write at every request, alone on its cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Asked {
    count: AtomicU64,
    /// Of the last one.
    at_ns: AtomicU64,
}

/// A share as it is in force at one moment.
struct Moment {
    rate: bucket::Rate,
    clock_ns: u64,
    terms: Option<Terms>,
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
    rate: bucket::Rate,
    verdict: Verdict,
}

impl Limiter {
    /// With every bucket full; one of [`Scope::Cluster`] with no share, and nothing in its buckets. Takes 20 bytes for
    /// each key at once.
    #[must_use]
    pub fn new(policy: LimitPolicy, seed: u64) -> Self {
        let LimitPolicy { algorithm, requests, period, .. } = policy;
        let pace = match policy.scope {
            Scope::Local => Pace::Whole(bucket::Rate::new(algorithm, requests, period)),
            Scope::Cluster(_) => {
                let terms = ArcSwap::from_pointee(Terms::none(algorithm, requests, period));
                Pace::Shared(Box::new(Shared { terms, asked: Asked::default() }))
            }
        };
        let buckets = match policy.key {
            RateKey::Route => Buckets::One(Padded::default()),
            _ => Buckets::Keyed(KeyTable::new(policy.keys_max)),
        };
        Self { policy, seed, pace, buckets }
    }

    /// Requests that were counted with those of other keys, as the table was full.
    #[must_use]
    pub fn shared(&self) -> u64 {
        match &self.buckets {
            Buckets::One(_) => 0,
            Buckets::Keyed(table) => table.shared(),
        }
    }

    /// The share in force, in parts of [`WHOLE`]; `None` for a limit that this proxy has alone.
    #[must_use]
    pub fn share(&self) -> Option<u32> {
        let Pace::Shared(shared) = &self.pace else { return None };
        Some(shared.terms.load().share())
    }

    /// Requests that asked since the limiter was made, those that it refused among them. Only counted for a limit that has
    /// a share.
    #[must_use]
    pub fn asked(&self) -> u64 {
        match &self.pace {
            Pace::Whole(_) => 0,
            Pace::Shared(shared) => shared.asked.count.load(Ordering::Relaxed),
        }
    }

    /// Puts a share in force. What was counted stays counted, and nothing is gained but what is handed over. Gives what a
    /// smaller share leaves over of every bucket, in parts of a [`REQUEST`], for another proxy; of a limit with many
    /// buckets only what certainly is left in each.
    ///
    /// Called by one task, which alone keeps the shares; `now` as for [`admit`]. No effect where there is no share.
    pub fn set_share(&self, share: Share, now: Duration) -> u64 {
        let Pace::Shared(shared) = &self.pace else { return 0 };
        let terms = **shared.terms.load();
        let change = terms.with(share, nanos(now));
        let used = match &self.buckets {
            // Before the terms: whoever still has the old ones finds nothing either that is handed to others.
            Buckets::One(bucket) if change.floor > 0 => {
                Used::One(bucket.0.fetch_max(change.floor, Ordering::Relaxed))
            }
            Buckets::One(bucket) => Used::One(bucket.0.load(Ordering::Relaxed)),
            Buckets::Keyed(_) => Used::Many { asked_ns: shared.asked.at_ns.load(Ordering::Relaxed) },
        };
        shared.terms.store(Arc::new(change.terms));
        terms.left_over(&change.terms, share, used)
    }

    fn moment(&self, now_ns: u64) -> Moment {
        match &self.pace {
            Pace::Whole(rate) => Moment { rate: *rate, clock_ns: now_ns, terms: None },
            Pace::Shared(shared) => {
                shared.asked.count.fetch_add(1, Ordering::Relaxed);
                shared.asked.at_ns.store(now_ns.max(1), Ordering::Relaxed);
                let terms = **shared.terms.load();
                let (rate, clock_ns) = terms.at(now_ns);
                Moment { rate, clock_ns, terms: Some(terms) }
            }
        }
    }

    fn take(&self, key: u64, now_ns: u64) -> Taken<'_> {
        let Moment { rate, clock_ns, terms } = self.moment(now_ns);
        let told = |verdict| terms.map_or(verdict, |terms| terms.told(verdict, self.policy.period));
        let bucket = match &self.buckets {
            Buckets::One(bucket) => &bucket.0,
            Buckets::Keyed(table) => table.bucket(key, |state| rate.is_full(state, clock_ns)),
        };
        let mut state = bucket.load(Ordering::Relaxed);
        loop {
            let (next, verdict) = rate.take(state, clock_ns);
            let Some(next) = next else { return Taken { bucket, rate, verdict: told(verdict) } };
            match bucket.compare_exchange_weak(state, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Taken { bucket, rate, verdict: told(verdict) },
                Err(newer) => state = newer,
            }
        }
    }
}

impl Taken<'_> {
    fn give_back(&self, now_ns: u64) {
        let mut state = self.bucket.load(Ordering::Relaxed);
        loop {
            let next = self.rate.give_back(state, now_ns);
            match self.bucket.compare_exchange_weak(state, next, Ordering::Relaxed, Ordering::Relaxed) {
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
    let now_ns = nanos(now);
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
            taken.iter().flatten().for_each(|taken| taken.give_back(now_ns));
            return admission;
        }
        taken[at] = Some(took);
    }
    admission
}

fn nanos(now: Duration) -> u64 {
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX >> 1)
}

#[cfg(test)]
mod tests;

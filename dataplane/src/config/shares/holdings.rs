//! What this proxy holds of each limit that proxies have together: pure, from the limiters, the controller's words and the
//! time to shares in force and demands.
//!
//! A share counts for a term from when the demand was made that it answers; so clocks are not compared, and an answer that
//! was long under way gives nothing. When the term is over without another word, a proxy keeps what it has, but no more than
//! would be its part if all had equal ones: others may have been given the rest. Who has nothing, or less than a tenth of
//! that part, takes the tenth: a limit should not close a proxy because no controller is there.

use lb_core::rate::{Algorithm, Limiter, REQUEST, Scope, Share, WHOLE};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use weir_proto::limits::{
    DEMAND_INTERVAL, DEMAND_INTERVAL_MIN, SHARE_ANSWER_TIMEOUT, SHARE_TERM, SHARE_WHOLE, SHARED_LIMITS_MAX,
};
use weir_proto::push::{Demand, LimitDemand, LimitShare, Shares};

/// A proxy that was never told a share of a limit, and hears none for this long, takes [`UNTOLD_PART`] of it.
pub const FIRST_WORD: Duration = Duration::from_secs(5);

/// This part of a limit.
pub const UNTOLD_PART: u32 = 10;

/// A proxy that ends while it still has requests keeps this part of what it had.
pub const LEAVING_PART: u32 = 8;

/// How fast the smoothed demand follows what is asked.
const SMOOTHING: Duration = Duration::from_secs(1);

/// How long what was counted with a limit that is gone is remembered, in case it comes back.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);

/// What a proxy that ends goes on to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeps {
    /// It serves nobody any more.
    Nothing,
    /// Its connections have requests yet.
    Little,
}

/// How shares stand.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Standing {
    /// Limits that proxies have together.
    pub limits: usize,
    /// Of those, how many have no share that a controller stands by: it was never told, or its term is over.
    pub without_word: usize,
    /// The sum of the shares in force, where 1 is a whole limit.
    pub shares: f64,
    /// Requests asked in a second under all of these limits, smoothed.
    pub demand: f64,
}

/// What became of the controller's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It came too late, or after a later one.
    Stale,
    /// Its shares are in force.
    InForce,
    /// The controller knows that this proxy ends.
    Last,
}

impl Answer {
    pub(super) fn is_last(self) -> bool {
        self == Self::Last
    }
}

/// The shares of one process.
#[derive(Debug, Default)]
pub struct Holdings {
    limits: BTreeMap<u64, Held>,
    /// Of the last demand.
    number: u64,
    /// Demands that may be answered, with when they were made.
    asked: VecDeque<(u64, Duration)>,
    epoch: u64,
    applied: u64,
    said_at: Option<Duration>,
    /// The demand that was the last word.
    left: Option<u64>,
    is_alone: bool,
}

#[derive(Debug)]
struct Held {
    /// `None`: no route asks it now.
    limiter: Option<Arc<Limiter>>,
    since: Duration,
    gone: Duration,
    standing: Told,
    is_named: bool,
    /// As the controller counts them, since the epoch began.
    handed_over: u64,
    left_over: u64,
    asked: u64,
    asked_at: Duration,
    /// Requests in a second; `None` before the first look.
    demand: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Never,
    /// By nobody: never told, and on its own.
    Untold,
    Until {
        ends: Duration,
        proxies: u32,
    },
    /// The term is over.
    Ended {
        proxies: u32,
    },
}

impl Held {
    fn new(now: Duration) -> Self {
        Self {
            limiter: None,
            since: now,
            gone: now,
            standing: Told::Never,
            is_named: false,
            handed_over: 0,
            left_over: 0,
            asked: 0,
            asked_at: now,
            demand: None,
        }
    }

    fn take_up(&mut self, limiter: &Arc<Limiter>, now: Duration) {
        // Counters of hand-overs stay: the controller's do too.
        (self.since, self.standing, self.is_named) = (now, Told::Never, false);
        (self.asked, self.asked_at, self.demand) = (limiter.asked(), now, None);
        self.limiter = Some(Arc::clone(limiter));
    }

    fn share(&self) -> u32 {
        self.limiter.as_ref().and_then(|limiter| limiter.share()).unwrap_or(0)
    }

    fn set(&mut self, of_limit: u32, handed_over: u64, now: Duration) {
        let Some(limiter) = &self.limiter else { return };
        if limiter.share() != Some(of_limit) || handed_over > 0 {
            let left = limiter.set_share(Share { of_limit, handed_over }, now);
            self.left_over = self.left_over.saturating_add(left);
        }
    }

    fn is_untouched(&self) -> bool {
        self.standing == Told::Never
    }

    fn hear(&mut self, word: &LimitShare, ends: Duration, now: Duration) {
        let handed_over = word.handed_over.saturating_sub(self.handed_over);
        self.handed_over = self.handed_over.max(word.handed_over);
        self.set(word.share.min(WHOLE), handed_over, now);
        self.standing = Told::Until { ends, proxies: word.proxies };
    }

    fn expire(&mut self, now: Duration) {
        match self.standing {
            Told::Until { ends, proxies } if ends <= now => {
                let equal = WHOLE / proxies.max(1);
                self.set(self.share().clamp(equal / UNTOLD_PART, equal), 0, now);
                self.standing = Told::Ended { proxies };
            }
            Told::Never if self.since + FIRST_WORD <= now => {
                let part = WHOLE / UNTOLD_PART;
                self.set(part, self.burst() * u64::from(part), now);
                self.standing = Told::Untold;
            }
            _ => {}
        }
    }

    fn ends(&self) -> Option<Duration> {
        self.limiter.as_ref()?;
        match self.standing {
            Told::Never => Some(self.since + FIRST_WORD),
            Told::Until { ends, .. } => Some(ends),
            Told::Untold | Told::Ended { .. } => None,
        }
    }

    fn take_all(&mut self, now: Duration) {
        let full = if self.is_untouched() { self.burst() * REQUEST } else { 0 };
        self.set(WHOLE, full, now);
        self.standing = Told::Untold;
    }

    fn look(&mut self, now: Duration) {
        let Some(limiter) = &self.limiter else { return };
        let asked = limiter.asked();
        let elapsed = now.saturating_sub(self.asked_at).as_secs_f64();
        if elapsed <= 0.0 {
            return;
        }
        let rate = asked.saturating_sub(self.asked) as f64 / elapsed;
        let weight = 1.0 - (-elapsed / SMOOTHING.as_secs_f64()).exp();
        self.demand = Some(self.demand.map_or(rate, |before| before + (rate - before) * weight));
        (self.asked, self.asked_at) = (asked, now);
    }

    fn burst(&self) -> u64 {
        let Some(limiter) = &self.limiter else { return 0 };
        match limiter.policy.algorithm {
            Algorithm::TokenBucket { burst } => burst.into(),
            Algorithm::SlidingWindow => limiter.policy.requests.into(),
        }
    }

    fn said(&self, number: u64) -> Option<LimitDemand> {
        let policy = &self.limiter.as_ref()?.policy;
        let proxies = match self.standing {
            Told::Never | Told::Untold => 0,
            Told::Until { proxies, .. } | Told::Ended { proxies } => proxies,
        };
        Some(LimitDemand {
            limit: number,
            share: self.share(),
            demand_milli: milli(self.demand.unwrap_or(0.0)),
            left_over: self.left_over,
            is_new: matches!(self.standing, Told::Never | Told::Untold),
            proxies,
            burst: u32::try_from(self.burst()).unwrap_or(u32::MAX),
            requests: policy.requests,
            period_ms: u64::try_from(policy.period.as_millis()).unwrap_or(u64::MAX),
        })
    }
}

impl Holdings {
    /// The limits in force are these; those of [`Scope::Local`] are none of ours.
    pub fn keep<'a>(&mut self, limiters: impl IntoIterator<Item = &'a Arc<Limiter>>, now: Duration) {
        let mut there = BTreeMap::new();
        for limiter in limiters {
            if let Scope::Cluster(number) = limiter.policy.scope {
                there.insert(number, limiter);
            }
        }
        for (number, limiter) in &there {
            let held = self.limits.entry(*number).or_insert_with(|| Held::new(now));
            if held.limiter.as_ref().is_none_or(|before| !Arc::ptr_eq(before, limiter)) {
                held.take_up(limiter, now);
                if self.is_alone {
                    held.take_all(now);
                }
            }
        }
        for (number, held) in &mut self.limits {
            if !there.contains_key(number) && held.limiter.take().is_some() {
                held.gone = now;
            }
        }
        self.limits.retain(|_, held| held.limiter.is_some() || now < held.gone + REMEMBERED_FOR);
    }

    /// A stream has begun. A controller that gives no shares has one proxy.
    pub fn begin_stream(&mut self, gives_shares: bool, now: Duration) {
        self.is_alone = !gives_shares;
        if self.is_alone {
            self.limits.values_mut().for_each(|held| held.take_all(now));
        } else {
            // Whoever answers on this stream has heard nothing.
            self.said_at = None;
        }
    }

    /// What to say now; `None` while it is not yet time, or there is nothing to say.
    pub fn demand(&mut self, now: Duration) -> Option<Demand> {
        if self.left.is_some() || self.is_alone || self.next_demand()? > now {
            return None;
        }
        self.limits.values_mut().for_each(|held| {
            held.look(now);
            held.is_named = true;
        });
        Some(self.said(now))
    }

    /// Takes in what the controller says.
    pub fn hear(&mut self, shares: &Shares, now: Duration) -> Answer {
        self.asked.retain(|(_, at)| now <= *at + SHARE_ANSWER_TIMEOUT);
        if self.left.is_some_and(|left| left == shares.answers) {
            return Answer::Last;
        }
        let asked_at = self.asked.iter().find(|(number, _)| *number == shares.answers).map(|(_, at)| *at);
        let Some(asked_at) = asked_at.filter(|_| shares.answers > self.applied && self.left.is_none()) else {
            return Answer::Stale;
        };
        if shares.epoch != self.epoch {
            self.epoch = shares.epoch;
            for held in self.limits.values_mut() {
                (held.handed_over, held.left_over) = (0, 0);
            }
        }
        self.applied = shares.answers;
        for word in &shares.limits {
            if let Some(held) = self.limits.get_mut(&word.limit) {
                held.hear(word, asked_at + SHARE_TERM, now);
            }
        }
        Answer::InForce
    }

    /// Puts in force what is left of shares whose terms are over.
    pub fn expire(&mut self, now: Duration) {
        if !self.is_alone && self.left.is_none() {
            self.limits.values_mut().filter(|held| held.limiter.is_some()).for_each(|held| held.expire(now));
        }
    }

    /// Gives shares up, since the proxy ends, and says so; `None` where there is nothing to give up.
    pub fn leave(&mut self, keeps: Keeps, now: Duration) -> Option<Demand> {
        if self.is_alone || self.limits.is_empty() {
            return None;
        }
        for held in self.limits.values_mut() {
            let share = match keeps {
                Keeps::Nothing => 0,
                Keeps::Little => held.share() / LEAVING_PART,
            };
            held.set(share, 0, now);
        }
        let demand = Demand { leaves: true, ..self.said(now) };
        self.left = Some(demand.number);
        Some(demand)
    }

    /// When there is something to say, or something to expire; `None` while there are no such limits.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        if self.is_alone || self.left.is_some() {
            return None;
        }
        let ends = self.limits.values().filter_map(Held::ends).min();
        [self.next_demand(), ends].into_iter().flatten().min()
    }

    /// For the metrics.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let held = || self.limits.values().filter(|held| held.limiter.is_some());
        let has_word = |held: &&Held| self.is_alone || matches!(held.standing, Told::Until { .. });
        Standing {
            limits: held().count(),
            without_word: held().filter(|held| !has_word(held)).count(),
            shares: sum(held().map(|held| f64::from(held.share()) / f64::from(WHOLE))),
            demand: sum(held().filter_map(|held| held.demand)),
        }
    }

    fn next_demand(&self) -> Option<Duration> {
        let mut limits = self.limits.values().filter(|held| held.limiter.is_some()).peekable();
        limits.peek()?;
        let wait = if limits.all(|held| held.is_named) { DEMAND_INTERVAL } else { DEMAND_INTERVAL_MIN };
        Some(self.said_at.map_or(Duration::ZERO, |at| at + wait))
    }

    fn said(&mut self, now: Duration) -> Demand {
        self.number += 1;
        self.said_at = Some(now);
        self.asked.retain(|(_, at)| now <= *at + SHARE_ANSWER_TIMEOUT);
        self.asked.push_back((self.number, now));
        let limits = self.limits.iter().filter_map(|(number, held)| held.said(*number));
        Demand {
            number: self.number,
            epoch: self.epoch,
            applied: self.applied,
            limits: limits.take(SHARED_LIMITS_MAX).collect(),
            leaves: false,
        }
    }
}

/// That of nothing is 0, where the sum of the standard library is -0.
fn sum(parts: impl Iterator<Item = f64>) -> f64 {
    parts.fold(0.0, |sum, part| sum + part)
}

/// In thousandths. What no counter reaches is as good as the most.
fn milli(rate: f64) -> u64 {
    u64::try_from(Duration::try_from_secs_f64(rate).unwrap_or(Duration::MAX).as_millis()).unwrap_or(u64::MAX)
}

// What one side counts in, the other does.
const _: () = assert!(WHOLE == SHARE_WHOLE);

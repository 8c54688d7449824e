//! One limit: what each proxy may have of it in force, what nobody has, and what each is to have.

use super::division::{self, Asking, Terms};
use super::{REQUEST, WHOLE};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};
use weir_proto::limits::{DEMAND_INTERVAL, SHARE_TERM};
use weir_proto::push::{LimitDemand, LimitShare};

/// How long a share is held to be in force, from when the demand came that it answers: the proxy counts from before, and
/// its clock may be slower.
pub const TERM_HELD: Duration = SHARE_TERM.saturating_add(Duration::from_secs(3));

/// A holder that has heard for so long only of proxies which never had a share takes it that the limit is new.
pub const NEW_AFTER: Duration = Duration::from_secs(3);

/// A proxy that said nothing for this long is not counted on.
const AWAY_AFTER: Duration = Duration::from_millis(3_500);

/// Between two divisions, while the same proxies are there.
const DIVIDED_FOR: Duration = Duration::from_millis(500);

/// How long a limit may wait for proxies that the allocator knows from others.
const GATHERING: Duration = Duration::from_secs(3);

/// Shares that were sent and may come into force yet; the answers of one demand each. More are kept as the largest.
const SENT_MAX: usize = 16;

/// A share is changed where it is off by more than this part of the limit.
const SLACK_PART: u32 = 200;

#[derive(Debug)]
pub(super) struct Limit {
    terms: Terms,
    made: Instant,
    /// What is known to be nobody else's, the whole, once it is settled.
    total: u32,
    is_settled: bool,
    /// Unused requests that nobody has, in parts of one.
    spare: u64,
    spare_at: Instant,
    members: BTreeMap<u64, Member>,
    divided: Option<Instant>,
}

/// A share that may be in force until then.
#[derive(Debug, Clone, Copy)]
struct Claim {
    share: u32,
    until: Instant,
}

#[derive(Debug)]
struct Member {
    /// As it said.
    in_force: Claim,
    /// Answers that it has not said to have, by the demands' numbers.
    sent: VecDeque<(u64, Claim)>,
    /// What it was given last.
    granted: u32,
    target: u32,
    demand_milli: u64,
    heard: Instant,
    is_new: bool,
    is_leaving: bool,
    /// It helped itself to what it has, and that may be somebody else's by now. Until it takes what it is given.
    has_helped_itself: bool,
    /// As it was told by whoever gave it its share.
    told_proxies: u32,
    left_over_seen: u64,
    handed_over: u64,
}

/// How a demand stands to what the allocator sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Said {
    pub(super) number: u64,
    /// The demand whose answer is in force, where this allocator gave it.
    pub(super) applied: Option<u64>,
    pub(super) leaves: bool,
}

impl Member {
    fn may_have(&self, now: Instant) -> u32 {
        let claims = self.sent.iter().map(|(_, claim)| claim).chain([&self.in_force]);
        claims.filter(|claim| claim.until > now).map(|claim| claim.share).max().unwrap_or(0)
    }

    fn is_present(&self, now: Instant) -> bool {
        !self.is_leaving && now.saturating_duration_since(self.heard) < AWAY_AFTER
    }

    fn hear(&mut self, said: Said, demand: &LimitDemand, is_settled: bool, now: Instant) {
        let takes_more = is_settled && demand.share > self.may_have(now);
        self.in_force = Claim { share: demand.share.min(WHOLE), until: now + TERM_HELD };
        self.demand_milli = demand.demand_milli;
        self.heard = now;
        self.is_leaving = said.leaves;
        if said.leaves {
            // It takes no answer any more.
            self.sent.clear();
        }
        if let Some(applied) = said.applied {
            while self.sent.front().is_some_and(|(number, _)| *number <= applied) {
                self.sent.pop_front();
            }
        }
        self.sent.retain(|(_, claim)| claim.until > now);
        self.has_helped_itself = takes_more || (self.has_helped_itself && !self.sent.is_empty());
        if self.sent.is_empty() {
            self.granted = self.in_force.share;
        }
    }

    fn grant(&mut self, number: u64, share: u32, now: Instant) {
        self.granted = share;
        let claim = Claim { share, until: now + TERM_HELD };
        if self.sent.len() >= SENT_MAX
            && let Some((_, oldest)) = self.sent.pop_front()
            && let Some((_, next)) = self.sent.front_mut()
        {
            *next = Claim { share: next.share.max(oldest.share), until: next.until.max(oldest.until) };
        }
        self.sent.push_back((number, claim));
    }
}

impl Limit {
    /// `knows_all`: whoever has a share of any limit would have been heard by now.
    pub(super) fn new(first: &LimitDemand, knows_all: bool, now: Instant) -> Self {
        let terms = Terms { burst: first.burst, requests: first.requests, period_ms: first.period_ms };
        let mut limit = Self {
            terms,
            made: now,
            total: 0,
            is_settled: false,
            spare: 0,
            spare_at: now,
            members: BTreeMap::new(),
            divided: None,
        };
        if knows_all {
            limit.settle(first.is_new);
        }
        limit
    }

    /// Whether nobody may have anything of it. Not while there may be some who were not heard.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.is_settled
            && self.members.values().all(|member| member.may_have(now) == 0 && !member.is_present(now))
    }

    pub(super) fn has_room_for(&self, proxy: u64, proxies_max: usize) -> bool {
        self.members.len() < proxies_max || self.members.contains_key(&proxy)
    }

    /// Takes in what a proxy says.
    pub(super) fn hear(&mut self, proxy: u64, said: Said, demand: &LimitDemand, now: Instant) {
        self.earn(now);
        if !self.members.contains_key(&proxy) {
            self.divided = None;
            if !self.is_settled {
                self.total = self.total.saturating_add(demand.share).min(WHOLE);
            }
        }
        let member = self.members.entry(proxy).or_insert_with(|| Member {
            in_force: Claim { share: 0, until: now },
            sent: VecDeque::new(),
            granted: 0,
            target: 0,
            demand_milli: 0,
            heard: now,
            is_new: demand.is_new,
            is_leaving: false,
            has_helped_itself: false,
            told_proxies: demand.proxies,
            // What came before this allocator knew it is not handed on.
            left_over_seen: if said.applied.is_some() { demand.left_over } else { 0 },
            handed_over: 0,
        });
        member.hear(said, demand, self.is_settled, now);
        if said.applied.is_some() {
            let more = demand.left_over.saturating_sub(member.left_over_seen);
            member.left_over_seen = member.left_over_seen.max(demand.left_over);
            self.spare = self.spare.saturating_add(more);
        }
        self.keep_spare_within_free(now);
    }

    /// Whether enough is known to give out what nobody seems to have. `heard_for` is how long the allocator has heard.
    pub(super) fn try_to_settle(&mut self, heard_for: Duration) {
        if self.is_settled {
            return;
        }
        let had = || self.members.values().filter(|member| !member.is_new);
        let told = had().map(|member| member.told_proxies as usize).max();
        match told {
            _ if heard_for >= TERM_HELD => self.settle(false),
            Some(told) if had().count() >= told => self.settle(false),
            Some(_) => {}
            None if heard_for >= NEW_AFTER => self.settle(true),
            None => {}
        }
    }

    /// The share of a proxy that was heard, from now on. `known` is how many proxies the allocator hears of.
    pub(super) fn give(&mut self, proxy: u64, said: Said, known: usize, now: Instant) -> Option<LimitShare> {
        self.earn(now);
        self.divide(known, now);
        let in_use = self.in_use(now);
        let has_reserve = in_use + u64::from(self.terms.reserve()) <= u64::from(self.total);
        let member = self.members.get_mut(&proxy).filter(|member| !member.is_leaving)?;
        let own = member.may_have(now);
        let left = u64::from(self.total).saturating_sub(in_use - u64::from(own));
        let left = u32::try_from(left).expect("at most the whole");
        let reachable = if member.has_helped_itself { left } else { left.max(own) };
        let target = member.target.min(reachable);
        let is_near =
            member.granted.abs_diff(target) < WHOLE / SLACK_PART && member.granted != 0 && member.target != 0;
        let share = if is_near && has_reserve { member.granted.min(reachable) } else { target };
        if share == 0 && !self.is_settled {
            // Not a word: it would keep the proxy from helping itself, for as long as nobody knows better.
            return None;
        }
        let more = share.saturating_sub(member.granted);
        let handed_over =
            self.spare.min(u64::from(more) * u64::from(self.terms.burst) * REQUEST / u64::from(WHOLE));
        self.spare -= handed_over;
        member.handed_over = member.handed_over.saturating_add(handed_over);
        let handed_over = member.handed_over;
        member.grant(said.number, share, now);
        self.keep_spare_within_free(now);
        let proxies =
            self.members.values().filter(|member| member.may_have(now) > 0 || member.is_present(now));
        let proxies = u32::try_from(proxies.count()).unwrap_or(u32::MAX);
        Some(LimitShare { limit: 0, share, handed_over, proxies })
    }

    /// Forgets proxies that can have nothing any more.
    pub(super) fn forget_gone(&mut self, now: Instant) {
        if !self.is_settled {
            return;
        }
        let before = self.members.len();
        self.members.retain(|_, member| member.may_have(now) > 0 || member.is_present(now));
        if self.members.len() < before {
            self.divided = None;
        }
    }

    /// What proxies may have in force together.
    pub(super) fn in_use(&self, now: Instant) -> u64 {
        self.members.values().map(|member| u64::from(member.may_have(now))).sum()
    }

    fn free(&self, now: Instant) -> u32 {
        let free = u64::from(self.total).saturating_sub(self.in_use(now));
        u32::try_from(free).expect("at most the whole")
    }

    fn settle(&mut self, is_new: bool) {
        self.is_settled = true;
        self.total = WHOLE;
        self.divided = None;
        if is_new {
            self.spare = u64::from(self.terms.burst) * REQUEST;
        }
    }

    /// What nobody has earns as if a proxy had it.
    fn earn(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.spare_at);
        self.spare_at = self.spare_at.max(now);
        let earned = u128::from(self.terms.requests) * u128::from(self.free(now)) * elapsed.as_micros()
            / (u128::from(self.terms.period_ms.max(1)) * 1_000);
        self.spare = self.spare.saturating_add(u64::try_from(earned).unwrap_or(u64::MAX));
        self.keep_spare_within_free(now);
    }

    fn keep_spare_within_free(&mut self, now: Instant) {
        self.spare = self.spare.min(u64::from(self.free(now)) * u64::from(self.terms.burst));
    }

    fn divide(&mut self, known: usize, now: Instant) {
        let is_fresh = |at: Instant| now.saturating_duration_since(at) < DIVIDED_FOR;
        if self.divided.is_some_and(is_fresh) {
            return;
        }
        self.divided = Some(now);
        let held_back: u64 = self
            .members
            .values()
            .filter(|member| !member.is_present(now))
            .map(|member| u64::from(member.may_have(now)))
            .sum();
        let reserve = if self.is_settled { u64::from(self.terms.reserve()) } else { 0 };
        let available = u64::from(self.total).saturating_sub(held_back).saturating_sub(reserve);
        let available = u32::try_from(available).expect("at most the whole");
        let present = || self.members.iter().filter(|(_, member)| member.is_present(now));
        let asking: Vec<_> = present()
            .map(|(_, member)| Asking { demand_milli: member.demand_milli, has: member.granted })
            .collect();
        let is_gathering = now.saturating_duration_since(self.made) < GATHERING;
        let expected = if is_gathering { known } else { 0 };
        let shares = division::divide(available, &self.terms, &asking, expected);
        let mut shares = shares.into_iter();
        for member in self.members.values_mut().filter(|member| member.is_present(now)) {
            member.target = shares.next().expect("one for each that is present");
        }
    }
}

// Between two demands of one proxy another division is made.
const _: () = assert!(DIVIDED_FOR.as_millis() < DEMAND_INTERVAL.as_millis());

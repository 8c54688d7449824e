//! When each name is looked up, and what is served of it. No I/O and no clock; chance comes from a seed.
//!
//! ```text
//!            wanted            asked            answered
//! (nothing) -------> waiting --------> asked -----------> waiting, until the TTL or the back-off has passed
//!                       ^                                    |
//!                       +------------------------------------+     not wanted any more: (nothing)
//! ```

use super::{ADDRESSES_MAX, DNS_NAMES_MAX, Lookup, Reach, Resolution, Trouble, What};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use weir_dial::Random;

/// Lookups that are under way at a time.
pub const LOOKUPS_MAX: usize = 32;
/// How often in a row a server has to say that there is nothing, before a name that had addresses has none.
pub const EMPTY_CONFIRMATIONS: u32 = 3;
/// Without any answer for so long, a name counts as looked up: nobody waits for it any longer.
pub const FIRST_ANSWER_MAX: Duration = Duration::from_secs(5);
/// How long what was there before a name stays in its place while nothing is learned of the name.
pub const SETTLE_MAX: Duration = Duration::from_secs(30);

/// Bounds of the time until the next lookup after a failure; it doubles from one to the next.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// The longest time until "there is nothing" is asked again: RFC 2308 lets a zone say days, and a name that comes to
/// be should not wait for them.
const NEGATIVE_TTL_MAX: Duration = Duration::from_secs(30);
/// The same while it is not confirmed.
const CONFIRM_WITHIN: Duration = Duration::from_secs(5);
/// Where an answer without records says nothing of how long it holds.
const NEGATIVE_TTL: Duration = Duration::from_secs(5);

/// What came of a lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// At least one record, of one family, in any order.
    Addresses {
        /// As they were given.
        addresses: Vec<IpAddr>,
        /// The least of the chain.
        ttl: Duration,
        /// The absolute name that has them.
        found_as: Arc<str>,
    },
    /// A server says that there is nothing: [`What::NoSuchName`] or [`What::NoAddress`].
    Nothing {
        /// Which of the two.
        what: What,
        /// How long that holds, as the zone's SOA says.
        ttl: Option<Duration>,
    },
    /// Nobody says anything that can be used; what follows "the DNS server".
    Failed(String),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Look this up. As what it was found before, if it was.
    Ask(Lookup, Option<Arc<str>>),
    /// Something else than before is known; `None` where the name is not wanted any more.
    Tell(Lookup, Option<Arc<Resolution>>),
}

/// All names that are wanted.
#[derive(Debug)]
pub struct Names {
    reach: Reach,
    random: Random,
    /// When this began, by two clocks.
    began: (Instant, SystemTime),
    entries: BTreeMap<Lookup, Entry>,
    /// Names past [`DNS_NAMES_MAX`].
    past: BTreeSet<Lookup>,
    /// When each name that waits is to be looked up.
    agenda: BTreeSet<(Instant, Lookup)>,
    asked: BTreeSet<Lookup>,
    /// Names of which nothing was learned yet: when that is to be told as well.
    open: BTreeSet<(Instant, Lookup)>,
    /// What was told of each name and is not taken back.
    told: BTreeMap<Lookup, Arc<Resolution>>,
    /// Names of which there may be something else to tell.
    untold: BTreeSet<Lookup>,
}

#[derive(Debug)]
struct Entry {
    wanted_since: Instant,
    /// `None` while it is asked.
    due: Option<Instant>,
    failures: u32,
    /// In a row, failures aside.
    nothings: u32,
    good: Option<Good>,
    /// Something was learned, be it that there is nothing.
    is_known: bool,
    trouble: Option<Trouble>,
}

/// A good answer.
#[derive(Debug)]
struct Good {
    at: Instant,
    addresses: Vec<IpAddr>,
    excess: usize,
    forbidden: Vec<IpAddr>,
    found_as: Arc<str>,
}

impl Names {
    /// Nothing is wanted yet. `seed` should differ between processes, so that replicas do not ask at the same moment.
    #[must_use]
    pub fn new(reach: Reach, seed: u64, now: Instant, wall: SystemTime) -> Self {
        Self {
            reach,
            random: Random::of(seed),
            began: (now, wall),
            entries: BTreeMap::new(),
            past: BTreeSet::new(),
            agenda: BTreeSet::new(),
            asked: BTreeSet::new(),
            open: BTreeSet::new(),
            told: BTreeMap::new(),
            untold: BTreeSet::new(),
        }
    }

    /// From now on these are wanted and no others. New ones are due at once; what was known of others is forgotten.
    pub fn want(&mut self, now: Instant, wanted: &BTreeSet<Lookup>) {
        let served: BTreeSet<&Lookup> = wanted.iter().take(DNS_NAMES_MAX).collect();
        let gone: Vec<_> = self.entries.keys().filter(|lookup| !served.contains(lookup)).cloned().collect();
        gone.iter().for_each(|lookup| self.forget(lookup));
        for lookup in served {
            if self.entries.contains_key(lookup) {
                continue;
            }
            let is_asked = self.asked.contains(lookup);
            let due = (!is_asked).then_some(now);
            self.agenda.extend(due.map(|due| (due, lookup.clone())));
            self.open.insert((now + FIRST_ANSWER_MAX, lookup.clone()));
            self.entries.insert(lookup.clone(), Entry::new(now, due));
        }
        let past = wanted.iter().skip(DNS_NAMES_MAX).cloned().collect();
        self.untold.extend(BTreeSet::symmetric_difference(&past, &self.past).cloned());
        self.past = past;
    }

    fn forget(&mut self, lookup: &Lookup) {
        let Some(entry) = self.entries.remove(lookup) else { return };
        if let Some(due) = entry.due {
            self.agenda.remove(&(due, lookup.clone()));
        }
        self.open.retain(|(_, open)| open != lookup);
        self.untold.insert(lookup.clone());
    }

    /// Takes in what came of a lookup. Without effect for a name that is not wanted any more.
    pub fn answered(&mut self, now: Instant, lookup: &Lookup, answer: Answer) {
        self.asked.remove(lookup);
        let roll = self.roll();
        let wall = self.wall(now);
        let Some(entry) = self.entries.get_mut(lookup) else { return };
        let due = now + entry.take(now, wall, lookup, answer, self.reach, roll);
        let before = entry.due.replace(due);
        if let Some(before) = before {
            self.agenda.remove(&(before, lookup.clone()));
        }
        if entry.is_known {
            self.open.retain(|(_, open)| open != lookup);
        }
        self.agenda.insert((due, lookup.clone()));
        self.untold.insert(lookup.clone());
    }

    /// What is to be done next; `None` when there is nothing before [`Self::due`].
    pub fn next(&mut self, now: Instant) -> Option<Output> {
        while let Some((_, lookup)) = self.open.first().filter(|(at, _)| *at <= now).cloned() {
            self.open.pop_first();
            let Some(entry) = self.entries.get_mut(&lookup) else { continue };
            let settles = entry.wanted_since + SETTLE_MAX;
            if now < settles {
                self.open.insert((settles, lookup.clone()));
            } else {
                entry.is_known = true;
            }
            let since = whole_seconds(self.began.1 + entry.wanted_since.duration_since(self.began.0));
            entry.trouble.get_or_insert(Trouble { what: What::Unanswered, since });
            self.untold.insert(lookup);
        }
        while let Some(lookup) = self.untold.pop_first() {
            if let Some(resolution) = self.news(now, &lookup) {
                return Some(Output::Tell(lookup, resolution));
            }
        }
        if self.asked.len() >= LOOKUPS_MAX {
            return None;
        }
        let (_, lookup) = self.agenda.first().filter(|(at, _)| *at <= now)?.clone();
        self.agenda.pop_first();
        self.asked.insert(lookup.clone());
        let entry = self.entries.get_mut(&lookup).expect("the agenda has entries alone");
        entry.due = None;
        let found_as = entry.good.as_ref().map(|good| Arc::clone(&good.found_as));
        Some(Output::Ask(lookup, found_as))
    }

    /// When [`Self::next`] has something though nothing happens meanwhile.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        let has_room = self.asked.len() < LOOKUPS_MAX;
        let lookup = self.agenda.first().filter(|_| has_room).map(|(at, _)| *at);
        let open = self.open.first().map(|(at, _)| *at);
        lookup.into_iter().chain(open).min()
    }

    /// How many names are looked up.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is looked up.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// When the good answer was given that is the oldest of all that are served.
    #[must_use]
    pub fn oldest_good(&self) -> Option<Instant> {
        self.entries.values().filter_map(|entry| entry.good.as_ref()).map(|good| good.at).min()
    }

    /// What is known of a name, where that was not told.
    fn news(&mut self, now: Instant, lookup: &Lookup) -> Option<Option<Arc<Resolution>>> {
        let told = self.told.get(lookup);
        let is_too_many = |told: &&Arc<Resolution>| {
            told.trouble.as_ref().is_some_and(|trouble| trouble.what == What::TooMany)
        };
        let known = match self.entries.get(lookup) {
            // Who waits for the name goes on waiting.
            Some(entry) if !entry.is_known && entry.trouble.is_none() => return None,
            Some(entry) => Some(entry.resolution()),
            None if !self.past.contains(lookup) => None,
            None if told.as_ref().is_some_and(is_too_many) => return None,
            None => {
                let trouble = Trouble { what: What::TooMany, since: self.wall(now) };
                Some(Resolution { trouble: Some(trouble), ..Resolution::default() })
            }
        };
        if told.map(AsRef::as_ref) == known.as_ref() {
            return None;
        }
        let known = known.map(Arc::new);
        match &known {
            Some(known) => self.told.insert(lookup.clone(), Arc::clone(known)),
            None => self.told.remove(lookup),
        };
        Some(known)
    }

    fn wall(&self, now: Instant) -> SystemTime {
        whole_seconds(self.began.1 + now.duration_since(self.began.0))
    }

    /// From 0 to below 1.
    fn roll(&mut self) -> f64 {
        let bits = u32::try_from(self.random.number() >> 32).unwrap_or_default();
        f64::from(bits) / (f64::from(u32::MAX) + 1.0)
    }
}

impl Entry {
    fn new(now: Instant, due: Option<Instant>) -> Self {
        Self { wanted_since: now, due, failures: 0, nothings: 0, good: None, is_known: false, trouble: None }
    }

    /// Returns the time until the next lookup. `roll` is from 0 to below 1.
    fn take(
        &mut self,
        now: Instant,
        wall: SystemTime,
        lookup: &Lookup,
        answer: Answer,
        reach: Reach,
        roll: f64,
    ) -> Duration {
        let refresh = lookup.refresh;
        match answer {
            Answer::Addresses { addresses, ttl, found_as } => {
                (self.failures, self.nothings, self.is_known, self.trouble) = (0, 0, true, None);
                self.good = Some(Good::new(now, addresses, found_as, reach));
                spread(ttl.clamp(refresh.min, refresh.max), roll)
            }
            Answer::Nothing { what, ttl } => {
                (self.failures, self.is_known) = (0, true);
                self.nothings = self.nothings.saturating_add(1);
                let is_confirmed = self.good.is_none() || self.nothings >= EMPTY_CONFIRMATIONS;
                if is_confirmed {
                    self.good = None;
                }
                self.is_in_trouble(what, wall);
                let max = if is_confirmed { NEGATIVE_TTL_MAX } else { CONFIRM_WITHIN };
                let max = max.min(refresh.max).max(refresh.min);
                spread(ttl.unwrap_or(NEGATIVE_TTL).clamp(refresh.min, max), roll)
            }
            Answer::Failed(how) => {
                let doublings = self.failures.min(16);
                self.failures = self.failures.saturating_add(1);
                self.is_in_trouble(What::Failed(how), wall);
                let backoff = (BACKOFF.0 * 2_u32.pow(doublings)).min(BACKOFF.1);
                // Everyone's lookups fail at once: they come back far apart.
                backoff.mul_f64(1.0 + roll / 2.0)
            }
        }
    }

    /// The moment is that of the first answer of this kind, and the words are those of it: they change nothing.
    fn is_in_trouble(&mut self, what: What, since: SystemTime) {
        let is_same =
            |trouble: &Trouble| std::mem::discriminant(&trouble.what) == std::mem::discriminant(&what);
        if !self.trouble.as_ref().is_some_and(is_same) {
            self.trouble = Some(Trouble { what, since });
        }
    }

    fn resolution(&self) -> Resolution {
        let mut resolution =
            Resolution { is_open: !self.is_known, trouble: self.trouble.clone(), ..Resolution::default() };
        if let Some(good) = &self.good {
            resolution.addresses.clone_from(&good.addresses);
            resolution.excess = good.excess;
            resolution.forbidden.clone_from(&good.forbidden);
        }
        resolution
    }
}

impl Good {
    fn new(at: Instant, addresses: Vec<IpAddr>, found_as: Arc<str>, reach: Reach) -> Self {
        let each: BTreeSet<IpAddr> = addresses.into_iter().map(|address| address.to_canonical()).collect();
        let (mut addresses, mut forbidden): (Vec<_>, Vec<_>) =
            each.into_iter().partition(|address| reach.permits(*address));
        let excess = addresses.len().saturating_sub(ADDRESSES_MAX);
        addresses.truncate(ADDRESSES_MAX);
        forbidden.truncate(ADDRESSES_MAX);
        Self { at, addresses, excess, forbidden, found_as }
    }
}

/// Up to a tenth longer. Not shorter: what a server keeps is the same until the TTL has passed.
fn spread(time: Duration, roll: f64) -> Duration {
    time.mul_f64(1.0 + roll / 10.0)
}

fn whole_seconds(time: SystemTime) -> SystemTime {
    let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(since_epoch.as_secs())
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

//! What proxies of one kind tell each other of the backends that they check, passed on by the controller.
//!
//! A kind is a namespace and a ServiceAccount, as for the keys of TLS tickets: proxies of one deployment, which trust each
//! other as they trust themselves. What is passed on is conflated: one report for each proxy and target, the newest; so
//! a stream that is slow costs what there is to know, and nothing is queued.
//!
//! Pure but for its lock; the time is passed in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use weir_proto::limits::{HEALTH_PROXIES_MAX, HEALTH_REPORTS_MAX, HEALTH_TARGETS_MAX};
use weir_proto::push::{HealthNews, HealthProxies, HealthSaid, ProxyAlive, TargetHealth, TargetState};

/// Every proxy that shares health checks over this process.
#[derive(Debug, Default)]
pub struct Relay(Mutex<BTreeMap<String, Kind>>);

#[derive(Debug, Default)]
struct Kind {
    /// By `health_id`.
    members: BTreeMap<u64, Member>,
}

#[derive(Debug)]
struct Member {
    /// Tells this stream from a later one of the same proxy.
    mailbox: Arc<Mailbox>,
    /// By target; what was taken back is not here.
    reports: BTreeMap<u64, (TargetHealth, Instant)>,
    alive: Option<Instant>,
}

#[derive(Debug, Default)]
struct Mailbox {
    pending: Mutex<Pending>,
    notify: Notify,
}

/// What one proxy has not been told.
#[derive(Debug, Default)]
struct Pending {
    /// The list of proxies changed.
    proxies: Option<Vec<u64>>,
    gone: BTreeSet<u64>,
    /// By proxy and target.
    reports: BTreeMap<(u64, u64), (TargetHealth, Instant)>,
    alive: BTreeMap<u64, Instant>,
}

/// A stream's place among those of its kind; left when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    relay: Arc<Relay>,
    kind: String,
    id: u64,
    mailbox: Arc<Mailbox>,
}

impl Relay {
    /// A stream joins those of its kind, and is told all that they said. A stream before it of the same proxy is told
    /// nothing any more. `None` where [`HEALTH_PROXIES_MAX`] others share already: then it checks for itself.
    pub(super) fn join(self: &Arc<Self>, kind: String, id: u64) -> Option<Seat> {
        let mut kinds = self.kinds();
        let members = &mut kinds.entry(kind.clone()).or_default().members;
        if members.len() >= HEALTH_PROXIES_MAX && !members.contains_key(&id) {
            return None;
        }
        let mailbox = Arc::new(Mailbox::default());
        let member = Member { mailbox: Arc::clone(&mailbox), reports: BTreeMap::new(), alive: None };
        let is_replaced = members.insert(id, member).is_some();
        {
            let mut pending = mailbox.pending();
            for (other, member) in members.iter().filter(|(other, _)| **other != id) {
                let reports = member.reports.iter().map(|(target, said)| ((*other, *target), *said));
                pending.reports.extend(reports);
                pending.alive.extend(member.alive.map(|at| (*other, at)));
            }
        }
        for member in members.values() {
            let mut pending = member.mailbox.pending();
            if is_replaced {
                pending.forget(id);
            }
            pending.proxies = Some(members.keys().copied().collect());
            drop(pending);
            member.mailbox.notify.notify_one();
        }
        drop(kinds);
        Some(Seat { relay: Arc::clone(self), kind, id, mailbox })
    }

    fn kinds(&self) -> MutexGuard<'_, BTreeMap<String, Kind>> {
        // Nothing panics between two writes that belong together.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Passes on what this proxy says. Past [`HEALTH_TARGETS_MAX`] targets, what it says of further ones is not kept for
    /// those that come later, nor passed on.
    pub(super) fn say(&self, said: HealthSaid, now: Instant) {
        let mut kinds = self.relay.kinds();
        let Some(members) = kinds.get_mut(&self.kind).map(|kind| &mut kind.members) else { return };
        let Some(me) = members.get_mut(&self.id).filter(|me| Arc::ptr_eq(&me.mailbox, &self.mailbox)) else {
            return;
        };
        let mut news = Vec::with_capacity(said.reports.len());
        for report in said.reports {
            let report = TargetHealth { proxy: self.id, age_ms: 0, ..report };
            if report.state() == TargetState::Unspecified {
                me.reports.remove(&report.target);
            } else if me.reports.len() < HEALTH_TARGETS_MAX || me.reports.contains_key(&report.target) {
                me.reports.insert(report.target, (report, now));
            } else {
                continue;
            }
            news.push(report);
        }
        if said.alive {
            me.alive = Some(now);
        }
        for (_, member) in members.iter().filter(|(other, _)| **other != self.id) {
            let mut pending = member.mailbox.pending();
            pending.reports.extend(news.iter().map(|report| ((self.id, report.target), (*report, now))));
            pending.alive.extend(said.alive.then_some((self.id, now)));
            drop(pending);
            member.mailbox.notify.notify_one();
        }
    }

    /// Returns when there may be news. Cancellation safe.
    pub(super) async fn changed(&self) {
        self.mailbox.notify.notified().await;
    }

    /// What this proxy has not been told, at most [`HEALTH_REPORTS_MAX`] reports of it; `None` where that is nothing. A
    /// sign of life of a proxy comes after all its reports.
    pub(super) fn next(&self, now: Instant) -> Option<HealthNews> {
        let mut pending = self.mailbox.pending();
        let age_ms = |at: Instant| milliseconds(now.saturating_duration_since(at));
        let proxies = pending.proxies.take().map(|ids| HealthProxies { ids });
        let gone: Vec<u64> = std::mem::take(&mut pending.gone).into_iter().collect();
        let mut reports = Vec::new();
        while reports.len() < HEALTH_REPORTS_MAX
            && let Some((_, (report, at))) = pending.reports.pop_first()
        {
            reports.push(TargetHealth { age_ms: age_ms(at), ..report });
        }
        let waiting = pending.reports.first_key_value().map(|((proxy, _), _)| *proxy);
        let mut alive = Vec::new();
        // Reports go in the order of their proxies: those before the first that waits are told.
        while let Some((proxy, at)) = pending.alive.pop_first() {
            if waiting.is_some_and(|waiting| proxy >= waiting) {
                pending.alive.insert(proxy, at);
                break;
            }
            alive.push(ProxyAlive { proxy, age_ms: age_ms(at) });
        }
        if !pending.reports.is_empty() {
            self.mailbox.notify.notify_one();
        }
        let is_nothing = proxies.is_none() && gone.is_empty() && reports.is_empty() && alive.is_empty();
        (!is_nothing).then_some(HealthNews { proxies, gone, reports, alive })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut kinds = self.relay.kinds();
        let Some(kind) = kinds.get_mut(&self.kind) else { return };
        let is_mine = |me: &Member| Arc::ptr_eq(&me.mailbox, &self.mailbox);
        if !kind.members.get(&self.id).is_some_and(is_mine) {
            return;
        }
        kind.members.remove(&self.id);
        let ids: Vec<u64> = kind.members.keys().copied().collect();
        for member in kind.members.values() {
            let mut pending = member.mailbox.pending();
            pending.forget(self.id);
            pending.proxies = Some(ids.clone());
            drop(pending);
            member.mailbox.notify.notify_one();
        }
        if ids.is_empty() {
            kinds.remove(&self.kind);
        }
    }
}

impl Mailbox {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending {
    /// What a proxy said counts no more.
    fn forget(&mut self, proxy: u64) {
        self.gone.insert(proxy);
        self.alive.remove(&proxy);
        self.reports.retain(|(other, _), _| *other != proxy);
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    struct Bench {
        relay: Arc<Relay>,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            Self { relay: Arc::default(), now: Instant::now() }
        }

        fn join(&self, kind: &str, id: u64) -> Seat {
            self.relay.join(kind.to_owned(), id).expect("there is room")
        }

        fn say(&self, seat: &Seat, targets: &[(u64, TargetState)], alive: bool) {
            let report = |(target, state): &(u64, TargetState)| TargetHealth {
                // What a proxy says of who it is does not count.
                proxy: 4711,
                target: *target,
                state: (*state).into(),
                ..TargetHealth::default()
            };
            let reports = targets.iter().map(report).collect();
            seat.say(HealthSaid { reports, alive }, self.now);
        }

        /// All that waits, as one piece of news.
        fn all(&self, seat: &Seat) -> HealthNews {
            let mut all = HealthNews::default();
            while let Some(HealthNews { proxies, gone, reports, alive }) = seat.next(self.now) {
                all.proxies = proxies.or(all.proxies);
                all.gone.extend(gone);
                all.reports.extend(reports);
                all.alive.extend(alive);
            }
            all
        }
    }

    fn told(news: &HealthNews) -> Vec<(u64, u64, TargetState)> {
        news.reports.iter().map(|report| (report.proxy, report.target, report.state())).collect()
    }

    fn ids(news: &HealthNews) -> Option<&[u64]> {
        news.proxies.as_ref().map(|proxies| proxies.ids.as_slice())
    }

    #[test]
    fn a_proxy_alone_learns_that_it_is_alone() {
        let bench = Bench::new();
        let seat = bench.join("edge/weir-proxy", 1);
        assert_eq!(ids(&bench.all(&seat)), Some(&[1][..]));
        assert_eq!(seat.next(bench.now), None);
    }

    #[test]
    fn what_one_says_the_others_of_its_kind_hear_once_and_newest() {
        let bench = Bench::new();
        let (a, b, other) = (bench.join("edge/a", 1), bench.join("edge/a", 2), bench.join("edge/b", 3));
        bench.say(&a, &[(7, TargetState::Up), (8, TargetState::Up)], false);
        bench.say(&a, &[(7, TargetState::Down)], true);
        let news = bench.all(&b);
        assert_eq!(told(&news), [(1, 7, TargetState::Down), (1, 8, TargetState::Up)]);
        assert_eq!(news.alive, [ProxyAlive { proxy: 1, age_ms: 0 }]);
        assert_eq!(told(&bench.all(&a)), [], "nobody hears himself");
        assert_eq!(ids(&bench.all(&other)), Some(&[3][..]));
        assert_eq!(b.next(bench.now), None);
    }

    #[test]
    fn who_comes_later_is_told_everything_with_its_age() {
        let mut bench = Bench::new();
        let a = bench.join("k", 1);
        bench.say(&a, &[(7, TargetState::Down), (8, TargetState::Up), (9, TargetState::Up)], true);
        bench.say(&a, &[(9, TargetState::Unspecified)], false);
        bench.now += MS * 40;
        let news = bench.all(&bench.join("k", 2));
        assert_eq!(told(&news), [(1, 7, TargetState::Down), (1, 8, TargetState::Up)]);
        assert_eq!((news.reports[0].age_ms, news.alive[0].age_ms), (40, 40));
        assert_eq!(ids(&news), Some(&[1, 2][..]));
    }

    #[test]
    fn who_leaves_is_gone_with_what_it_said() {
        let bench = Bench::new();
        let (a, b) = (bench.join("k", 1), bench.join("k", 2));
        bench.all(&b);
        bench.say(&a, &[(7, TargetState::Down)], true);
        drop(a);
        let news = bench.all(&b);
        assert_eq!((news.gone.as_slice(), told(&news), news.alive.len()), (&[1][..], vec![], 0));
        assert_eq!(ids(&news), Some(&[2][..]));
        drop(b);
        assert!(bench.relay.kinds().is_empty());
    }

    #[test]
    fn a_later_stream_of_a_proxy_takes_the_place_of_the_earlier() {
        let bench = Bench::new();
        let (first, b) = (bench.join("k", 1), bench.join("k", 2));
        bench.say(&first, &[(7, TargetState::Down)], true);
        let second = bench.join("k", 1);
        bench.say(&first, &[(8, TargetState::Down)], true);
        bench.say(&second, &[(9, TargetState::Up)], false);
        let news = bench.all(&b);
        assert_eq!((news.gone.as_slice(), told(&news)), (&[1][..], vec![(1, 9, TargetState::Up)]));
        drop(first);
        assert_eq!(bench.all(&b), HealthNews::default(), "the end of the earlier one takes nothing away");
    }

    #[test]
    fn much_goes_in_pieces_and_a_sign_of_life_comes_after_the_reports() {
        let bench = Bench::new();
        let (a, b) = (bench.join("k", 1), bench.join("k", 2));
        bench.all(&b);
        let targets: Vec<_> =
            (0..=HEALTH_REPORTS_MAX as u64).map(|target| (target, TargetState::Up)).collect();
        bench.say(&a, &targets, true);
        let first = b.next(bench.now).expect("news");
        assert_eq!((first.reports.len(), first.alive.len()), (HEALTH_REPORTS_MAX, 0));
        let second = b.next(bench.now).expect("the rest");
        assert_eq!((second.reports.len(), second.alive.len()), (1, 1));
    }

    #[test]
    fn proxies_share_up_to_the_limit() {
        let bench = Bench::new();
        let seats: Vec<_> = (0..HEALTH_PROXIES_MAX as u64).map(|id| bench.join("k", id)).collect();
        assert!(bench.relay.join("k".to_owned(), u64::MAX).is_none());
        assert!(bench.relay.join("other".to_owned(), u64::MAX).is_some());
        assert!(bench.relay.join("k".to_owned(), 5).is_some(), "in its own place");
        drop(seats);
    }

    #[test]
    fn a_proxy_reports_targets_up_to_the_limit() {
        let bench = Bench::new();
        let (a, b) = (bench.join("k", 1), bench.join("k", 2));
        let targets: Vec<_> =
            (0..=HEALTH_TARGETS_MAX as u64).map(|target| (target, TargetState::Up)).collect();
        bench.say(&a, &targets, false);
        assert_eq!(bench.all(&b).reports.len(), HEALTH_TARGETS_MAX);
    }
}

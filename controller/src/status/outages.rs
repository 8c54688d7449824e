//! Which backends went out, and came back, since the last Event said so: one word for all proxies, pure.
//!
//! Proxies come to the same finding within moments of each other, so a backend is down from when the first says so
//! until the last takes it back. A backend that goes from the pool, or ends, while it is down comes back from nothing,
//! and no proxy at all is no proxy that takes it back.

use super::Verdict;
use super::events::{News, note};
use super::health::Health;
use crate::store::{BackendName, PoolSummary, Unhealthy};
use std::collections::BTreeSet;
use weir_crds::LoadBalancerPoolStatus;

/// Backends that one look at a pool tells of in an Event each; of more, one Event names the first.
pub(super) const EVENTS_PER_LOOK_MAX: usize = 8;

/// The backends of one pool that Events called down.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// Of the pool; another one of the same name has Events of its own.
    pub(super) uid: Option<String>,
    pub(super) down: BTreeSet<BackendName>,
}

/// What is to be told, and what is told then.
///
/// `before` is `None` where this process has told nothing yet. What the one before it told is not known by name; so
/// what is down is only then news when the status shows that nothing was.
pub(super) fn outages(
    before: Option<&Told>,
    verdict: &Verdict,
    summary: &PoolSummary,
    shown: Option<&LoadBalancerPoolStatus>,
) -> (Vec<News>, Told) {
    let health = Health::of(verdict, summary);
    let now: BTreeSet<BackendName> = health.unhealthy.keys().cloned().collect();
    let told = |down| Told { uid: verdict.uid.clone(), down };
    let before = before.filter(|before| before.uid == verdict.uid).map(|before| &before.down);
    let nothing = BTreeSet::new();
    let before = match before {
        Some(before) => before,
        None if shows_unhealthy(shown) => return (Vec::new(), told(now)),
        None => &nothing,
    };
    if summary.proxies == 0 {
        return (Vec::new(), told(before.clone()));
    }
    let down = health.unhealthy.iter().filter(|(name, _)| !before.contains(name));
    let down = down.map(|(name, of)| (name, sentence_down(name, of, summary)));
    let is_there = |name: &&BackendName| {
        let members = verdict.serving.as_ref().map(|serving| &serving.members);
        members.is_some_and(|members| members.ready(&name.set, &name.backend).is_some())
    };
    let up = before.difference(&now).filter(is_there).map(|name| (name, sentence_up(name)));
    let mut news = told_of(down.collect(), true, "BackendDown", "take no requests at some proxy");
    news.extend(told_of(up.collect(), false, "BackendUp", "take requests at every proxy again"));
    (news, told(now))
}

fn told_of(
    backends: Vec<(&BackendName, String)>,
    is_warning: bool,
    reason: &'static str,
    what: &str,
) -> Vec<News> {
    let count = backends.len();
    if count <= EVENTS_PER_LOOK_MAX {
        let one = |(name, sentence): (&BackendName, String)| {
            let backend = Some(name.clone());
            News { is_warning, reason, note: note([sentence]), backend }
        };
        return backends.into_iter().map(one).collect();
    }
    let sentences = backends.into_iter().map(|(_, sentence)| sentence);
    let all = std::iter::once(format!("{count} backends {what}")).chain(sentences);
    vec![News { is_warning, reason, note: note(all), backend: None }]
}

fn sentence_down(name: &BackendName, of: &Unhealthy, summary: &PoolSummary) -> String {
    let BackendName { set, backend } = name;
    let Unhealthy { reason, proxies } = of;
    format!(
        "{backend} of backend set {set} takes no requests at {proxies} of {} proxies: {reason}",
        summary.proxies
    )
}

fn sentence_up(BackendName { set, backend }: &BackendName) -> String {
    format!("{backend} of backend set {set} takes requests at every proxy again")
}

fn shows_unhealthy(shown: Option<&LoadBalancerPoolStatus>) -> bool {
    shown.and_then(|shown| shown.endpoints.as_ref()).is_some_and(|endpoints| endpoints.unhealthy > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::health::tests::{found, served};
    use std::sync::Arc;
    use weir_crds::EndpointStatus;

    fn verdict(ids: &[&str]) -> Verdict {
        Verdict { uid: Some("u".into()), ..served(&[("web", ids)], &[&["web"]]) }
    }

    fn showing(unhealthy: i32) -> LoadBalancerPoolStatus {
        let endpoints = Some(EndpointStatus { unhealthy, ..EndpointStatus::default() });
        LoadBalancerPoolStatus { endpoints, ..LoadBalancerPoolStatus::default() }
    }

    /// What one look after the other tells.
    #[derive(Default)]
    struct Bench {
        told: Option<Told>,
    }

    impl Bench {
        fn look(&mut self, verdict: &Verdict, summary: &PoolSummary) -> Vec<(&'static str, String)> {
            let (news, told) = outages(self.told.as_ref(), verdict, summary, None);
            self.told = Some(told);
            news.into_iter().map(|news| (news.reason, news.note)).collect()
        }
    }

    #[test]
    fn many_proxies_are_one_down_and_one_up() {
        let (pool, mut bench) = (verdict(&["a", "b"]), Bench::default());
        let first = bench.look(&pool, &found(12, &[("web", "a", 1)]));
        let note = "a of backend set web takes no requests at 1 of 12 proxies: timed out";
        assert_eq!(first, [("BackendDown", note.to_owned())]);
        assert_eq!(bench.look(&pool, &found(12, &[("web", "a", 12)])), []);
        assert_eq!(bench.look(&pool, &found(12, &[("web", "a", 1)])), [], "one has not taken it back yet");
        let last = bench.look(&pool, &found(12, &[("web", "b", 2)]));
        let reasons: Vec<_> = last.iter().map(|(reason, note)| (*reason, note.as_str())).collect();
        let up = "a of backend set web takes requests at every proxy again";
        let down = "b of backend set web takes no requests at 2 of 12 proxies: timed out";
        assert_eq!(reasons, [("BackendDown", down), ("BackendUp", up)]);
    }

    #[test]
    fn a_backend_that_goes_while_it_is_down_does_not_come_up() {
        let mut bench = Bench::default();
        bench.look(&verdict(&["a", "b"]), &found(2, &[("web", "a", 2)]));
        assert_eq!(bench.look(&verdict(&["b"]), &found(2, &[("web", "a", 2)])), []);
        assert_eq!(bench.look(&verdict(&["a", "b"]), &found(2, &[])), [], "it came anew, and well");
    }

    #[test]
    fn without_proxies_nothing_comes_up() {
        let (pool, mut bench) = (verdict(&["a"]), Bench::default());
        bench.look(&pool, &found(1, &[("web", "a", 1)]));
        assert_eq!(bench.look(&pool, &found(0, &[])), []);
        assert_eq!(bench.look(&pool, &found(1, &[("web", "a", 1)])), [], "as it was");
        assert_eq!(bench.look(&pool, &found(1, &[])).len(), 1);
    }

    #[test]
    fn who_takes_over_does_not_tell_again_what_the_status_shows() {
        let (pool, down) = (verdict(&["a"]), found(1, &[("web", "a", 1)]));
        let (news, told) = outages(None, &pool, &down, Some(&showing(1)));
        assert_eq!((news.len(), told.down.len()), (0, 1));
        let (news, _) = outages(Some(&told), &pool, &found(1, &[]), Some(&showing(1)));
        assert_eq!(news[0].reason, "BackendUp", "it was down when this one took over");
        assert_eq!(outages(None, &pool, &down, Some(&showing(0))).0.len(), 1, "nobody told of it");
        let another = Verdict { uid: Some("another".into()), ..verdict(&["a"]) };
        assert_eq!(outages(Some(&told), &another, &down, None).0.len(), 1, "a pool of the same name");
    }

    #[test]
    fn many_at_once_are_told_in_one_event_and_up_to_the_limit_in_one_each() {
        let ids: Vec<String> = (0..=EVENTS_PER_LOOK_MAX).map(|n| format!("b{n}")).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let pool = verdict(&ids);
        let down = |count: usize| {
            let backends: Vec<_> = ids[..count].iter().map(|id| ("web", *id, 1)).collect();
            outages(None, &pool, &found(1, &backends), None).0
        };
        assert_eq!(down(EVENTS_PER_LOOK_MAX).len(), EVENTS_PER_LOOK_MAX);
        let all = down(EVENTS_PER_LOOK_MAX + 1);
        assert_eq!((all.len(), &all[0].backend), (1, &None));
        assert!(
            all[0].note.starts_with("9 backends take no requests at some proxy; b0 of"),
            "{}",
            all[0].note
        );
    }

    #[test]
    fn what_a_proxy_says_reaches_the_note_without_control_characters() {
        let mut summary = found(1, &[("web", "a", 1)]);
        for of in Arc::make_mut(&mut summary.unhealthy).values_mut() {
            of.reason = "a\u{1b}[2J".into();
        }
        let (news, _) = outages(None, &verdict(&["a"]), &summary, None);
        assert!(news[0].note.ends_with("proxies: a [2J"), "{}", news[0].note);
    }
}

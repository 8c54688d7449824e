use super::*;
use proptest::prelude::*;

const TARGET: TargetId = TargetId(7);

fn at(milliseconds: u64) -> Moment {
    Moment::after_start(Duration::from_millis(milliseconds))
}

/// A proxy that checks nothing of [`TARGET`], and the two that do.
fn bystander(now: Moment) -> (Sharing, [ProxyId; 2]) {
    let proxies: Vec<ProxyId> = (0..5).map(ProxyId).collect();
    let checkers = checkers_of(TARGET, &proxies).map(|checker| checker.expect("five proxies"));
    let me = proxies.iter().find(|proxy| !checkers.contains(proxy)).expect("five proxies");
    let mut sharing = Sharing::new(*me);
    sharing.hear(News::Proxies(proxies));
    sharing.add(now, TARGET);
    (sharing, checkers)
}

fn report(proxy: ProxyId, state: State, at: Moment) -> News {
    let reason = (state == State::Down).then_some(Reason::Refused);
    News::Report(Remote { proxy, target: TARGET, state, reason, at })
}

fn rely(state: State) -> Duty {
    Duty::Rely(Opinion { state, reason: (state == State::Down).then_some(Reason::Refused) })
}

#[test]
fn only_a_unanimous_down_is_believed() {
    let (mut sharing, [first, second]) = bystander(at(0));
    sharing.hear(report(first, State::Down, at(100)));
    assert_eq!(sharing.duty(at(100), TARGET, false), rely(State::Down));
    sharing.hear(report(second, State::Up, at(100)));
    assert_eq!(sharing.duty(at(100), TARGET, false), rely(State::Up));
    sharing.hear(report(second, State::Down, at(200)));
    assert_eq!(sharing.duty(at(200), TARGET, false), rely(State::Down));
}

#[test]
fn reports_age_unless_their_proxy_is_heard() {
    let (mut sharing, [first, second]) = bystander(at(0));
    sharing.hear(report(first, State::Down, at(0)));
    sharing.hear(report(second, State::Up, at(0)));
    sharing.hear(News::Alive { proxy: first, at: at(2000) });
    assert_eq!(sharing.duty(at(2999), TARGET, false), rely(State::Up));
    assert_eq!(sharing.duty(at(3000), TARGET, false), rely(State::Down));
    assert_eq!(sharing.duty(at(4999), TARGET, false), rely(State::Down));
    assert_eq!(sharing.duty(at(5000), TARGET, false), Duty::Check, "nobody was heard");
}

#[test]
fn who_checks_a_target_believes_itself() {
    let (mut sharing, [first, second]) = bystander(at(0));
    sharing.hear(report(second, State::Down, at(0)));
    sharing.hear(News::Proxies(vec![sharing.me(), second, first]));
    let mine = (0..100).map(TargetId).find(|target| sharing.is_mine(*target)).expect("a third of them");
    sharing.add(at(0), mine);
    assert_eq!(sharing.duty(at(0), mine, false), Duty::Check);
}

#[test]
fn a_new_target_waits_for_a_report_and_then_is_checked() {
    let (sharing, _) = bystander(at(1000));
    assert_eq!(sharing.duty(at(3999), TARGET, false), Duty::Wait);
    assert_eq!(sharing.duty(at(4000), TARGET, false), Duty::Check);
    assert_eq!(sharing.duty(at(1000), TARGET, true), Duty::Check, "who checks goes on until it hears");
}

#[test]
fn who_hands_over_goes_on_until_another_was_heard() {
    let (mut sharing, [first, _]) = bystander(at(0));
    assert_eq!(sharing.duty(at(9000), TARGET, true), Duty::Check);
    sharing.hear(report(first, State::Up, at(9000)));
    assert_eq!(sharing.duty(at(9000), TARGET, true), rely(State::Up));
}

#[test]
fn what_a_proxy_takes_back_or_leaves_behind_counts_no_more() {
    let (mut sharing, [first, second]) = bystander(at(0));
    for gone in [report(first, State::Unknown, at(1)), News::Gone(first), News::Proxies(vec![second])] {
        sharing.hear(report(first, State::Up, at(0)));
        assert_eq!(sharing.duty(at(1), TARGET, false), rely(State::Up));
        sharing.hear(gone);
        assert_eq!(sharing.duty(at(1), TARGET, false), Duty::Wait);
    }
}

#[test]
fn an_older_report_and_one_of_a_stranger_change_nothing() {
    let (mut sharing, [first, _]) = bystander(at(0));
    sharing.hear(report(first, State::Up, at(50)));
    sharing.hear(report(first, State::Down, at(49)));
    sharing.hear(report(ProxyId(99), State::Down, at(60)));
    assert_eq!(sharing.duty(at(60), TARGET, false), rely(State::Up));
}

#[test]
fn at_the_limit_reports_are_kept_and_one_past_it_the_oldest_goes() {
    let proxies: Vec<ProxyId> = (0..20).map(ProxyId).collect();
    let mut sharing = Sharing::new(ProxyId(99));
    sharing.hear(News::Proxies(proxies.clone()));
    sharing.add(at(0), TARGET);
    for (proxy, age) in proxies.iter().zip(1..=REPORTS_PER_TARGET_MAX as u64 + 1) {
        sharing.hear(report(*proxy, State::Up, at(age)));
    }
    let kept = &sharing.targets[&TARGET].reports;
    assert_eq!(kept.len(), REPORTS_PER_TARGET_MAX);
    assert!(kept.iter().all(|report| report.at > at(1)));
}

#[test]
fn at_the_limit_proxies_share_and_one_past_it_only_listens() {
    let proxies: Vec<ProxyId> = (0..=PROXIES_MAX as u64).map(ProxyId).collect();
    let mut last = Sharing::new(ProxyId(PROXIES_MAX as u64));
    last.hear(News::Proxies(proxies.clone()));
    assert_eq!(last.proxies.len(), PROXIES_MAX);
    let targets = || (0..4000).map(TargetId);
    assert!(!targets().any(|target| last.is_mine(target)));
    let mut listed = Sharing::new(ProxyId(PROXIES_MAX as u64));
    listed.hear(News::Proxies(proxies[1..].to_vec()));
    assert!(targets().any(|target| listed.is_mine(target)));
}

#[test]
fn a_new_stream_forgets_what_was_heard_and_waits_again() {
    let (mut sharing, [first, second]) = bystander(at(0));
    sharing.hear(report(first, State::Up, at(9000)));
    sharing.hear(News::Alive { proxy: second, at: at(9500) });
    sharing.reconnect(at(10_000));
    assert_eq!(sharing.duty(at(10_000), TARGET, false), Duty::Wait);
    assert_eq!(sharing.duty(at(12_999), TARGET, false), Duty::Wait);
    assert_eq!(sharing.duty(at(13_000), TARGET, false), Duty::Check);
    sharing.hear(report(second, State::Down, at(9000)));
    assert_eq!(sharing.duty(at(13_000), TARGET, false), Duty::Check, "it was heard on the old stream");
}

#[test]
fn few_proxies_all_check() {
    assert_eq!(checkers_of(TARGET, &[]), [None, None]);
    assert_eq!(checkers_of(TARGET, &[ProxyId(1); 3]), [Some(ProxyId(1)), None]);
}

#[test]
fn targets_are_spread_evenly() {
    let proxies: Vec<ProxyId> = (0..8).map(|n| ProxyId::of_name(&format!("weir-proxy-{n}"))).collect();
    let mut counts = BTreeMap::new();
    for target in 0..8000 {
        for checker in checkers_of(TargetId(target), &proxies).into_iter().flatten() {
            *counts.entry(checker).or_insert(0) += 1;
        }
    }
    assert_eq!(counts.values().sum::<i32>(), 16_000);
    assert!(counts.values().all(|count| (1800..=2200).contains(count)), "{counts:?}");
}

proptest! {
    #[test]
    fn a_proxy_that_leaves_moves_only_what_it_checked(
        proxies in prop::collection::btree_set(any::<u64>(), 3..20), gone in any::<prop::sample::Index>(), target: u64
    ) {
        let proxies: Vec<ProxyId> = proxies.into_iter().map(ProxyId).collect();
        let gone = *gone.get(&proxies);
        let rest: Vec<ProxyId> = proxies.iter().copied().filter(|proxy| *proxy != gone).collect();
        let before = checkers_of(TargetId(target), &proxies);
        let after = checkers_of(TargetId(target), &rest);
        prop_assert_ne!(before[0], before[1]);
        for kept in before.into_iter().filter(|checker| *checker != Some(gone)) {
            prop_assert!(after.contains(&kept));
        }
        if !before.contains(&Some(gone)) {
            prop_assert_eq!(before, after);
        }
    }

    #[test]
    fn the_order_of_the_list_does_not_matter(mut proxies in prop::collection::vec(any::<u64>(), 0..20), target: u64) {
        let of = |proxies: &[u64]| {
            let ids: Vec<ProxyId> = proxies.iter().copied().map(ProxyId).collect();
            checkers_of(TargetId(target), &ids)
        };
        let before = of(&proxies);
        proxies.reverse();
        prop_assert_eq!(before, of(&proxies));
    }
}

//! Each rule of what is asked when and what is served of it, one table or history each.

use super::*;
use crate::dns::{Families, REFRESH_DEFAULT, Refresh};

fn lookup(hostname: &str) -> Lookup {
    Lookup { hostname: hostname.into(), families: Families::default(), refresh: REFRESH_DEFAULT }
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// One name, followed by hand.
struct Bench {
    names: Names,
    now: Instant,
    lookup: Lookup,
    /// What was told last.
    known: Option<Arc<Resolution>>,
    told: usize,
    asked_as: Option<Arc<str>>,
}

impl Bench {
    fn new(refresh: Refresh) -> Self {
        let now = Instant::now();
        let mut names = Names::new(Reach::Cluster, 7, now, SystemTime::UNIX_EPOCH);
        let lookup = Lookup { refresh, ..lookup("db.example.com.") };
        names.want(now, &[lookup.clone()].into());
        let mut bench = Self { names, now, lookup, known: None, told: 0, asked_as: None };
        assert!(bench.drain(), "a new name is asked at once");
        bench
    }

    /// Whether the name is to be asked now.
    fn drain(&mut self) -> bool {
        let mut is_asked = false;
        while let Some(output) = self.names.next(self.now) {
            match output {
                Output::Ask(_, found_as) => {
                    is_asked = true;
                    self.asked_as = found_as;
                }
                Output::Tell(_, known) => {
                    self.known = known;
                    self.told += 1;
                }
            }
        }
        is_asked
    }

    /// The answer, and the time until the name is asked again. Goes on to that moment.
    fn answer(&mut self, answer: Answer) -> Duration {
        self.names.answered(self.now, &self.lookup, answer);
        assert!(!self.drain(), "not again at once");
        let from = self.now;
        loop {
            self.now = self.names.due().expect("it is asked again");
            if self.drain() {
                return self.now - from;
            }
        }
    }

    fn addresses(&self) -> Vec<String> {
        let known = self.known.as_ref().expect("something is known");
        known.addresses.iter().map(ToString::to_string).collect()
    }

    fn trouble(&self) -> Option<&What> {
        self.known.as_ref()?.trouble.as_ref().map(|trouble| &trouble.what)
    }
}

fn addresses(all: &[&str], ttl: f64) -> Answer {
    let addresses = all.iter().map(|address| address.parse().expect("an address")).collect();
    Answer::Addresses { addresses, ttl: seconds(ttl), found_as: "db.example.com.".into() }
}

fn nothing(what: What, ttl: Option<f64>) -> Answer {
    Answer::Nothing { what, ttl: ttl.map(seconds) }
}

fn failed() -> Answer {
    Answer::Failed("answers SERVFAIL".to_owned())
}

fn is_within(time: Duration, from: f64, to: f64) -> bool {
    (seconds(from)..=seconds(to)).contains(&time)
}

#[test]
fn the_ttl_says_when_a_name_is_asked_again_within_its_bounds() {
    let own = Refresh { min: seconds(10.0), max: seconds(20.0) };
    for (refresh, ttl, expected) in [
        (REFRESH_DEFAULT, 30.0, 30.0),
        (REFRESH_DEFAULT, 0.0, 1.0),
        (REFRESH_DEFAULT, 300.0, 300.0),
        (REFRESH_DEFAULT, 301.0, 300.0),
        (REFRESH_DEFAULT, 86_400.0, 300.0),
        (own, 9.0, 10.0),
        (own, 15.0, 15.0),
        (own, 21.0, 20.0),
    ] {
        let mut bench = Bench::new(refresh);
        for _ in 0..20 {
            let again = bench.answer(addresses(&["10.0.0.1"], ttl));
            assert!(is_within(again, expected, expected * 1.1), "{ttl} s: {again:?}");
        }
        assert_eq!(bench.told, 1, "an equal answer is no news");
    }
}

#[test]
fn names_of_one_ttl_are_not_asked_at_one_moment() {
    let mut bench = Bench::new(REFRESH_DEFAULT);
    let times: BTreeSet<_> = (0..50).map(|_| bench.answer(addresses(&["10.0.0.1"], 100.0))).collect();
    assert!(times.len() > 40, "{times:?}");
}

#[test]
fn an_answer_in_another_order_or_with_a_repetition_changes_nothing() {
    let mut bench = Bench::new(REFRESH_DEFAULT);
    bench.answer(addresses(&["10.0.0.2", "10.0.0.10", "10.0.0.1"], 5.0));
    assert_eq!(bench.addresses(), ["10.0.0.1", "10.0.0.2", "10.0.0.10"]);
    bench.answer(addresses(&["10.0.0.1", "10.0.0.10", "10.0.0.2", "10.0.0.1"], 5.0));
    assert_eq!(bench.told, 1);
    bench.answer(addresses(&["10.0.0.1"], 5.0));
    assert_eq!((bench.told, bench.addresses()), (2, vec!["10.0.0.1".to_owned()]));
    assert_eq!(bench.asked_as.as_deref(), Some("db.example.com."));
}

#[test]
fn while_the_server_fails_the_last_good_addresses_stay_and_it_is_asked_ever_more_seldom() {
    let mut bench = Bench::new(REFRESH_DEFAULT);
    bench.answer(addresses(&["10.0.0.1"], 5.0));
    let mut last = 0.0;
    for (attempt, backoff) in [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0].into_iter().enumerate() {
        let again = bench.answer(failed());
        assert!(is_within(again, backoff, backoff * 1.5), "attempt {attempt}: {again:?}");
        last = backoff;
    }
    for _ in 0..1000 {
        assert!(is_within(bench.answer(failed()), last, last * 1.5));
    }
    assert_eq!(bench.addresses(), ["10.0.0.1"], "for ever");
    assert_eq!(bench.told, 2, "the addresses, and once that the server fails");
    assert_eq!(bench.trouble(), Some(&What::Failed("answers SERVFAIL".to_owned())));
    let again = bench.answer(addresses(&["10.0.0.1"], 5.0));
    assert!(is_within(again, 5.0, 5.5) && bench.trouble().is_none());
    assert!(is_within(bench.answer(failed()), 1.0, 1.5), "it begins anew");
}

#[test]
fn a_name_that_had_addresses_has_none_after_three_answers_that_say_so() {
    for what in [What::NoSuchName, What::NoAddress] {
        let mut bench = Bench::new(REFRESH_DEFAULT);
        bench.answer(addresses(&["10.0.0.1"], 5.0));
        for confirmation in 1..EMPTY_CONFIRMATIONS {
            let again = bench.answer(nothing(what.clone(), Some(900.0)));
            assert!(is_within(again, 5.0, 5.5), "confirmed soon, whatever the zone says: {again:?}");
            assert_eq!(bench.addresses(), ["10.0.0.1"], "said {confirmation} times");
            assert_eq!(bench.trouble(), Some(&what));
            // It neither confirms nor denies.
            bench.answer(failed());
            assert_eq!(bench.addresses(), ["10.0.0.1"]);
        }
        let again = bench.answer(nothing(what.clone(), Some(900.0)));
        assert!(is_within(again, 30.0, 33.0), "{again:?}");
        assert_eq!(bench.addresses(), Vec::<String>::new());
        assert_eq!(bench.trouble(), Some(&what));
        bench.answer(addresses(&["10.0.0.2"], 5.0));
        assert_eq!((bench.addresses(), bench.trouble()), (vec!["10.0.0.2".to_owned()], None));
    }
}

#[test]
fn one_good_answer_takes_back_what_was_said_of_nothing() {
    let mut bench = Bench::new(REFRESH_DEFAULT);
    for _ in 0..10 {
        bench.answer(addresses(&["10.0.0.1"], 5.0));
        for _ in 1..EMPTY_CONFIRMATIONS {
            bench.answer(nothing(What::NoSuchName, None));
        }
        assert_eq!(bench.addresses(), ["10.0.0.1"]);
    }
}

#[test]
fn how_long_nothing_holds_is_for_the_zone_to_say_within_bounds() {
    for (ttl, expected) in
        [(None, 5.0), (Some(0.0), 1.0), (Some(10.0), 10.0), (Some(30.0), 30.0), (Some(31.0), 30.0)]
    {
        let mut bench = Bench::new(REFRESH_DEFAULT);
        let again = bench.answer(nothing(What::NoSuchName, ttl));
        assert!(is_within(again, expected, expected * 1.1), "{ttl:?}: {again:?}");
        assert!(!bench.known.as_ref().expect("told at once").is_open, "the server knows");
    }
    let rare = Refresh { min: seconds(60.0), max: seconds(60.0) };
    let again = Bench::new(rare).answer(nothing(What::NoSuchName, Some(1.0)));
    assert!(is_within(again, 60.0, 66.0), "{again:?}");
}

#[test]
fn who_waits_for_a_name_waits_no_longer_than_it_may() {
    let mut bench = Bench::new(REFRESH_DEFAULT);
    assert_eq!(bench.known, None, "nothing is told before there is something");
    let began = bench.now;
    bench.now = bench.names.due().expect("somebody waits");
    assert_eq!(bench.now - began, FIRST_ANSWER_MAX);
    assert!(!bench.drain(), "it is asked already");
    assert_eq!(bench.trouble(), Some(&What::Unanswered));
    assert!(bench.known.as_ref().is_some_and(|known| known.is_open), "what was there before stays");
    bench.now = bench.names.due().expect("somebody still waits");
    assert_eq!(bench.now - began, SETTLE_MAX);
    bench.drain();
    assert!(bench.known.as_ref().is_some_and(|known| !known.is_open && known.addresses.is_empty()));
    bench.answer(addresses(&["10.0.0.1"], 5.0));
    assert_eq!((bench.addresses(), bench.trouble()), (vec!["10.0.0.1".to_owned()], None));
}

#[test]
fn a_first_answer_that_fails_is_told_at_once_and_waited_for_all_the_same() {
    let mut bench = Bench::new(REFRESH_DEFAULT);
    bench.answer(failed());
    let known = bench.known.clone().expect("told");
    assert!(known.is_open && known.trouble.is_some());
    while bench.known.as_ref().is_some_and(|known| known.is_open) {
        bench.answer(failed());
    }
    assert_eq!(bench.trouble(), Some(&What::Failed("answers SERVFAIL".to_owned())));
}

#[test]
fn what_is_forbidden_and_what_is_too_much_is_left_out() {
    let mut bench = Bench::new(REFRESH_DEFAULT);
    bench.answer(addresses(
        &["169.254.169.254", "10.0.0.1", "127.0.0.1", "::ffff:127.0.0.2", "::ffff:10.0.0.1"],
        5.0,
    ));
    let known = bench.known.clone().expect("told");
    assert_eq!(bench.addresses(), ["10.0.0.1"], "an IPv4 address in IPv6's spelling is one");
    let forbidden: Vec<_> = known.forbidden.iter().map(ToString::to_string).collect();
    assert_eq!(forbidden, ["127.0.0.1", "127.0.0.2", "169.254.169.254"]);
    for (count, excess) in [(ADDRESSES_MAX, 0), (ADDRESSES_MAX + 1, 1)] {
        let all: Vec<_> = (0..count).map(|index| format!("10.0.{}.{}", index / 256, index % 256)).collect();
        let all: Vec<_> = all.iter().map(String::as_str).collect();
        bench.answer(addresses(&all, 5.0));
        let known = bench.known.as_ref().expect("told");
        assert_eq!((known.addresses.len(), known.excess), (ADDRESSES_MAX, excess), "{count}");
    }
}

fn many(count: usize) -> BTreeSet<Lookup> {
    (0..count).map(|index| lookup(&format!("n{index:05}."))).collect()
}

#[test]
fn names_past_the_limit_are_told_so_until_there_is_room() {
    let now = Instant::now();
    let mut names = Names::new(Reach::Cluster, 1, now, SystemTime::UNIX_EPOCH);
    names.want(now, &many(DNS_NAMES_MAX));
    assert!(matches!(names.next(now), Some(Output::Ask(..))), "as many as there may be");
    let all = many(DNS_NAMES_MAX + 1);
    let last = all.last().expect("many").clone();
    names.want(now, &all);
    match names.next(now) {
        Some(Output::Tell(lookup, Some(resolution))) => {
            assert_eq!(lookup, last);
            assert_eq!(resolution.trouble.as_ref().map(|trouble| &trouble.what), Some(&What::TooMany));
        }
        other => panic!("{other:?}"),
    }
    names.want(now, &[last.clone()].into());
    let outputs: Vec<_> = std::iter::from_fn(|| names.next(now)).collect();
    assert!(
        outputs.iter().any(|output| matches!(output, Output::Ask(lookup, _) if *lookup == last)),
        "{outputs:?}"
    );
    assert_eq!(names.len(), 1);
}

#[test]
fn few_are_asked_at_a_time_and_none_is_forgotten() {
    let now = Instant::now();
    let mut names = Names::new(Reach::Cluster, 1, now, SystemTime::UNIX_EPOCH);
    names.want(now, &many(LOOKUPS_MAX + 1));
    let asked: Vec<_> = std::iter::from_fn(|| names.next(now)).collect();
    assert_eq!(asked.len(), LOOKUPS_MAX);
    assert!(names.due().is_some_and(|due| due > now), "nothing can be done before one is answered");
    let Output::Ask(first, _) = &asked[0] else { panic!("{asked:?}") };
    names.answered(now, first, failed());
    let next: Vec<_> = std::iter::from_fn(|| names.next(now)).collect();
    assert!(matches!(&next[..], [Output::Tell(..), Output::Ask(..)]), "{next:?}");
}

#[test]
fn what_is_not_wanted_any_more_is_taken_back_and_asked_anew_when_it_is() {
    let mut bench = Bench::new(REFRESH_DEFAULT);
    bench.answer(addresses(&["10.0.0.1"], 100.0));
    bench.names.want(bench.now, &BTreeSet::new());
    assert!(!bench.drain());
    assert_eq!((bench.known.clone(), bench.names.due()), (None, None));
    let wanted = [bench.lookup.clone()].into();
    bench.names.want(bench.now, &wanted);
    assert!(!bench.drain(), "one question of it is under way");
    bench.answer(addresses(&["10.0.0.2"], 5.0));
    assert_eq!(bench.addresses(), ["10.0.0.2"]);
}

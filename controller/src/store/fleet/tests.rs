mod propagation;

use super::expected::count;
use super::*;
use crate::store::Contents;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

/// A record with its own clock and one way to say things.
struct Bench {
    record: FleetRecord,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        Self { record: FleetRecord::default(), now: Instant::now() }
    }

    fn after(&mut self, wait: Duration) -> &mut Self {
        self.now += wait;
        self
    }

    fn make(&self, pool: &str, sequence: u64, config: u64) {
        self.make_at(pool, sequence, config, self.now);
    }

    fn make_at(&self, pool: &str, sequence: u64, config: u64, seen: Instant) {
        self.record.made(&Pool {
            name: pool.into(),
            version: version(sequence),
            takes_away: sequence,
            empty_from_start: BTreeSet::new(),
            contents: Contents { config_digest: config, ..Contents::default() },
            seen,
            whole: OnceLock::new(),
        });
    }

    fn begin(&self, proxy: &str) -> StreamId {
        let peer = Peer { proxy: proxy.into(), identity: "test".into() };
        self.record.begin(peer, self.now).0
    }

    fn join(&self, proxy: &str, pool: &str) -> StreamId {
        let stream = self.begin(proxy);
        self.record.expect(stream, &pool.into());
        stream
    }

    fn ack(&self, stream: StreamId, pool: &str, sequence: u64, config: u64) {
        self.record.acked(stream, &pool.into(), version(sequence), config, self.now);
    }

    fn refuse(&self, stream: StreamId, pool: &str, sequence: u64) {
        let field = "spec.listeners[0].port".into();
        let refusal = Refusal { version: Some(version(sequence)), field, reason: "taken".into() };
        self.record.refused(stream, &pool.into(), refusal, self.now);
    }

    /// `reason` is `None` where it takes requests.
    fn find(&self, stream: StreamId, pool: &str, backend: &str, reason: Option<&str>) {
        let health = BackendHealth {
            pool: pool.into(),
            set: "web".into(),
            backend: backend.into(),
            available: reason.is_none(),
            reason: reason.unwrap_or_default().into(),
        };
        self.record.found(stream, &health);
    }

    fn summary(&self, pool: &str) -> PoolSummary {
        self.record.summary(pool, Reach::Own, self.now)
    }
}

fn version(sequence: u64) -> Version {
    Version { epoch: 1, sequence }
}

fn counts(summary: &PoolSummary) -> (u32, u32, Option<Duration>) {
    (summary.current, summary.proxies, summary.oldest_lag)
}

/// Backend and how many proxies keep requests from it.
fn unhealthy(summary: &PoolSummary) -> Vec<(&str, u32)> {
    summary.unhealthy.iter().map(|(name, is)| (&*name.backend, is.proxies)).collect()
}

#[test]
fn the_end_of_an_old_stream_leaves_the_new_one_of_the_same_proxy() {
    let bench = Bench::new();
    bench.make("ns/p", 4, 9);
    let old = bench.join("proxy-1", "ns/p");
    let new = bench.join("proxy-1", "ns/p");
    bench.ack(new, "ns/p", 4, 9);
    assert_eq!((bench.summary("ns/p").current, bench.summary("ns/p").proxies), (1, 1), "it counts once");
    bench.record.end(old);
    let fleet = bench.record.view();
    assert_eq!(fleet.proxies, [Arc::from("proxy-1")]);
    assert_eq!(fleet.pools["ns/p"]["proxy-1"].version.map(|v| v.sequence), Some(4));
}

#[test]
fn a_refusal_stays_until_the_refused_configuration_is_in_force() {
    let bench = Bench::new();
    bench.make("ns/p", 2, 1);
    let stream = bench.join("proxy-1", "ns/p");
    bench.ack(stream, "ns/p", 2, 1);
    bench.make("ns/p", 4, 2);
    bench.refuse(stream, "ns/p", 4);
    bench.make("ns/p", 6, 2);
    bench.ack(stream, "ns/p", 6, 1);
    let summary = bench.summary("ns/p");
    assert_eq!((summary.current, summary.refused), (0, 1), "only backends moved");
    assert_eq!(&*summary.refusals[0].0, "proxy-1");
    bench.ack(stream, "ns/p", 6, 2);
    assert_eq!((bench.summary("ns/p").current, bench.summary("ns/p").refused), (1, 0));
}

#[test]
fn a_refusal_of_a_configuration_before_is_history() {
    let bench = Bench::new();
    bench.make("ns/p", 2, 1);
    let stream = bench.join("proxy-1", "ns/p");
    bench.refuse(stream, "ns/p", 2);
    bench.make("ns/p", 4, 2);
    let summary = bench.summary("ns/p");
    assert_eq!((summary.current, summary.refused), (0, 0), "of the new one nothing is known yet");
}

#[test]
fn the_lag_is_the_age_of_the_oldest_change_that_a_proxy_lacks_and_then_what_the_newest_took() {
    let mut bench = Bench::new();
    bench.make("ns/p", 2, 1);
    let (fast, slow) = (bench.join("fast", "ns/p"), bench.join("slow", "ns/p"));
    bench.after(MS * 5);
    bench.ack(fast, "ns/p", 2, 1);
    bench.ack(slow, "ns/p", 2, 1);
    assert_eq!(counts(&bench.summary("ns/p")), (2, 2, Some(MS * 5)));
    bench.after(MS * 1_000).make("ns/p", 4, 1);
    bench.after(MS * 10).make("ns/p", 6, 1);
    bench.after(MS * 10).ack(fast, "ns/p", 6, 1);
    assert_eq!(counts(&bench.summary("ns/p")), (1, 2, Some(MS * 20)), "since the change at sequence 4");
    bench.ack(slow, "ns/p", 4, 1);
    assert_eq!(counts(&bench.summary("ns/p")), (1, 2, Some(MS * 10)), "that one arrived");
    bench.after(MS * 30).ack(slow, "ns/p", 6, 1);
    assert_eq!(counts(&bench.summary("ns/p")), (2, 2, Some(MS * 40)), "from its making to the last of them");
    bench.after(MS * 9_000);
    assert_eq!(counts(&bench.summary("ns/p")), (2, 2, Some(MS * 40)), "it does not grow any more");
}

#[test]
fn a_proxy_that_comes_late_is_behind_for_no_longer_than_it_is_there() {
    let mut bench = Bench::new();
    bench.make("ns/p", 2, 1);
    bench.after(MS * 3_600_000);
    let late = bench.join("late", "ns/p");
    bench.after(MS * 3);
    assert_eq!(counts(&bench.summary("ns/p")), (0, 1, Some(MS * 3)));
    bench.ack(late, "ns/p", 2, 1);
    assert_eq!(counts(&bench.summary("ns/p")), (1, 1, Some(MS * 3)));
}

#[test]
fn a_refused_configuration_ages_although_backends_move_on() {
    let mut bench = Bench::new();
    bench.make("ns/p", 2, 1);
    let stream = bench.join("proxy-1", "ns/p");
    bench.ack(stream, "ns/p", 2, 1);
    bench.make("ns/p", 4, 2);
    bench.refuse(stream, "ns/p", 4);
    bench.after(MS * 100).make("ns/p", 6, 2);
    bench.after(MS * 100).ack(stream, "ns/p", 6, 1);
    assert_eq!(counts(&bench.summary("ns/p")), (0, 1, Some(MS * 200)));
}

#[test]
fn times_of_changes_are_remembered_up_to_the_limit_and_never_understated_past_it() {
    let mut bench = Bench::new();
    bench.make("ns/p", 2, 1);
    let stuck = bench.join("stuck", "ns/p");
    let limit = u64::try_from(CHANGES_REMEMBERED_MAX).expect("small");
    for change in 1..3 * limit {
        bench.after(MS).make("ns/p", 2 + 2 * change, 1);
    }
    assert_eq!(bench.record.state().pools["ns/p"].changes.len(), CHANGES_REMEMBERED_MAX);
    let begun = MS * u32::try_from(3 * limit - 1).expect("small");
    assert_eq!(bench.summary("ns/p").oldest_lag, Some(begun), "the oldest is exact");
    bench.ack(stuck, "ns/p", 2 * 2 * limit, 1);
    let lag = bench.summary("ns/p").oldest_lag.expect("behind");
    assert!(lag >= MS * u32::try_from(limit).expect("small") && lag < begun, "{lag:?}");
}

#[test]
fn a_word_after_its_pool_is_gone_brings_nothing_back() {
    let bench = Bench::new();
    bench.make("ns/p", 2, 1);
    let stream = bench.join("proxy-1", "ns/p");
    bench.record.forget_pool("ns/p");
    bench.ack(stream, "ns/p", 2, 1);
    bench.refuse(stream, "ns/p", 2);
    bench.record.expect(stream, &"ns/p".into());
    assert_eq!(bench.summary("ns/p"), PoolSummary::default());
    assert_eq!(bench.record.view().pools, BTreeMap::new());
    bench.make("ns/p", 4, 1);
    assert_eq!(counts(&bench.summary("ns/p")), (0, 0, None), "nobody was asked to serve this one yet");
}

#[test]
fn a_pool_that_left_a_proxy_s_scope_is_expected_of_it_no_more() {
    let bench = Bench::new();
    bench.make("ns/p", 2, 1);
    let stream = bench.join("proxy-1", "ns/p");
    bench.record.release(stream, &"ns/p".into());
    bench.ack(stream, "ns/p", 2, 1);
    assert_eq!(counts(&bench.summary("ns/p")), (0, 0, None));
}

#[test]
fn a_pool_too_large_to_be_sent_says_so_until_it_changes() {
    let bench = Bench::new();
    bench.make("ns/p", 2, 1);
    let stream = bench.join("proxy-1", "ns/p");
    bench.record.too_large(stream, &"ns/p".into(), 70 << 20);
    assert_eq!(bench.summary("ns/p").too_large_bytes, Some(70 << 20));
    bench.make("ns/p", 4, 1);
    assert_eq!(bench.summary("ns/p").too_large_bytes, None);
    assert_eq!(bench.record.counts().too_large, 1);
}

#[test]
fn an_observer_hears_each_changed_pool_once_however_often_it_changed() {
    let bench = Bench::new();
    bench.make("ns/a", 2, 1);
    let (own, all) = (bench.record.observe(Reach::Own), bench.record.observe(Reach::All));
    let a: Arc<str> = "ns/a".into();
    assert_eq!((own.take(), all.take()), ([Arc::clone(&a)].into(), [Arc::clone(&a)].into()), "all there is");
    let stream = bench.join("proxy-1", "ns/a");
    bench.ack(stream, "ns/a", 2, 1);
    bench.make("ns/b", 4, 1);
    assert_eq!(own.take(), [Arc::clone(&a), "ns/b".into()].into());
    assert_eq!(all.take().len(), 2);
    let remote = bench.record.begin_remote(&"replica-2".into()).expect("there is room");
    assert!(bench.record.set_remote(remote, &a, summary_of_a_replica(), bench.now));
    assert_eq!(own.take(), [].into(), "another replica's proxies are not ours");
    assert_eq!(all.take(), [a].into());
    bench.record.end(stream);
    assert_eq!(own.take().len(), 1);
}

fn summary_of_a_replica() -> PoolSummary {
    let name = BackendName { set: "web".into(), backend: "a".into() };
    let unhealthy = Arc::new([(name, Unhealthy { reason: "refused".into(), proxies: 2 })].into());
    let lag = Some(MS);
    PoolSummary {
        proxies: 2,
        current: 1,
        oldest_lag: lag,
        config_digest: 1,
        unhealthy,
        ..PoolSummary::default()
    }
}

#[test]
fn what_a_stream_found_of_a_backend_counts_until_it_ends_or_has_the_pool_no_more() {
    let bench = Bench::new();
    bench.make("ns/p", 2, 1);
    let (one, two) = (bench.join("proxy-1", "ns/p"), bench.join("proxy-2", "ns/p"));
    bench.find(one, "ns/p", "a", Some("timed out"));
    bench.find(two, "ns/p", "a", Some("refused"));
    bench.find(two, "ns/p", "b", Some("refused"));
    bench.find(two, "ns/other", "c", Some("nobody's"));
    assert_eq!(unhealthy(&bench.summary("ns/p")), [("a", 2), ("b", 1)]);
    assert_eq!(bench.record.unhealthy_count(), 2);
    bench.find(two, "ns/p", "b", None);
    bench.make("ns/p", 4, 2);
    assert_eq!(unhealthy(&bench.summary("ns/p")), [("a", 2)], "whatever the configuration");
    bench.record.end(one);
    assert_eq!(unhealthy(&bench.summary("ns/p")), [("a", 1)]);
    bench.record.release(two, &"ns/p".into());
    bench.find(two, "ns/p", "a", Some("late"));
    assert_eq!(unhealthy(&bench.summary("ns/p")), []);
    bench.record.expect(two, &"ns/p".into());
    assert_eq!(unhealthy(&bench.summary("ns/p")), [], "it says everything again");
    bench.find(two, "ns/p", "a", Some("again"));
    bench.record.forget_pool("ns/p");
    bench.make("ns/p", 6, 1);
    bench.record.expect(two, &"ns/p".into());
    assert_eq!(unhealthy(&bench.summary("ns/p")), [], "it is another pool");
}

#[test]
fn of_a_proxy_that_dialled_again_the_newest_stream_says_what_is_unhealthy() {
    let bench = Bench::new();
    bench.make("ns/p", 2, 1);
    let old = bench.join("proxy-1", "ns/p");
    bench.find(old, "ns/p", "a", Some("timed out"));
    assert_eq!(unhealthy(&bench.summary("ns/p")), [("a", 1)]);
    let new = bench.join("proxy-1", "ns/p");
    assert_eq!(unhealthy(&bench.summary("ns/p")), []);
    bench.find(new, "ns/p", "b", Some("timed out"));
    bench.find(old, "ns/p", "b", Some("timed out"));
    assert_eq!(unhealthy(&bench.summary("ns/p")), [("b", 1)]);
}

#[test]
fn unhealthy_backends_add_up_over_replicas_whatever_configuration_those_have() {
    let bench = Bench::new();
    bench.make("ns/p", 2, 7);
    let stream = bench.join("proxy-1", "ns/p");
    bench.find(stream, "ns/p", "a", Some("a reason"));
    bench.find(stream, "ns/p", "b", Some("a reason"));
    let remote = bench.record.begin_remote(&"replica-2".into()).expect("there is room");
    assert!(bench.record.set_remote(remote, &"ns/p".into(), summary_of_a_replica(), bench.now));
    let all = bench.record.summary("ns/p", Reach::All, bench.now);
    assert_eq!((all.proxies, unhealthy(&all)), (3, vec![("a", 3), ("b", 1)]));
    assert_eq!(unhealthy(&bench.summary("ns/p")), [("a", 1), ("b", 1)]);
    bench.record.end_remote(remote);
    assert_eq!(unhealthy(&bench.record.summary("ns/p", Reach::All, bench.now)), [("a", 1), ("b", 1)]);
}

#[test]
fn other_replicas_proxies_count_until_the_replica_is_gone_or_takes_its_word_back() {
    let mut bench = Bench::new();
    bench.make("ns/p", 2, 1);
    let stream = bench.join("proxy-1", "ns/p");
    bench.ack(stream, "ns/p", 2, 1);
    let (replica, pool): (Arc<str>, Arc<str>) = ("replica-2".into(), "ns/p".into());
    let first = bench.record.begin_remote(&replica).expect("there is room");
    assert!(bench.record.set_remote(first, &pool, summary_of_a_replica(), bench.now));
    bench.after(MS * 9);
    let all = |bench: &Bench| counts(&bench.record.summary("ns/p", Reach::All, bench.now));
    assert_eq!(all(&bench), (2, 3, Some(MS * 10)), "what was said grows older");
    assert_eq!(counts(&bench.summary("ns/p")), (1, 1, Some(Duration::ZERO)));
    assert!(bench.record.set_remote(first, &pool, PoolSummary::default(), bench.now));
    assert_eq!(all(&bench).1, 1);
    assert!(bench.record.set_remote(first, &pool, summary_of_a_replica(), bench.now));
    let second = bench.record.begin_remote(&replica).expect("in place of the first");
    assert_eq!(all(&bench).1, 1, "a later stream says everything again");
    assert!(bench.record.set_remote(second, &pool, summary_of_a_replica(), bench.now));
    assert!(!bench.record.set_remote(first, &pool, PoolSummary::default(), bench.now));
    bench.record.end_remote(first);
    assert_eq!(all(&bench).1, 3, "the end of the earlier one takes nothing away");
    bench.record.end_remote(second);
    assert_eq!(all(&bench).1, 1);
}

#[test]
fn a_replica_names_pools_up_to_the_limit() {
    let bench = Bench::new();
    let remote = bench.record.begin_remote(&"replica-2".into()).expect("there is room");
    for pool in 0..=POOLS_MAX {
        let name: Arc<str> = format!("ns/p{pool}").into();
        assert!(bench.record.set_remote(remote, &name, summary_of_a_replica(), bench.now));
    }
    assert_eq!(bench.record.state().remote[&remote].told.len(), POOLS_MAX);
}

#[test]
fn replicas_tell_up_to_the_limit() {
    let bench = Bench::new();
    let begin = |replica: usize| bench.record.begin_remote(&format!("replica-{replica}").into());
    let begun: Vec<_> = (0..REPLICAS_MAX).map(begin).collect();
    assert!(begun.iter().all(Option::is_some));
    assert_eq!(begin(REPLICAS_MAX), None);
    assert!(begin(0).is_some(), "in its own place");
}

/// What may happen to two pools and three proxies, in any order.
#[derive(Debug, Clone)]
enum Step {
    Make {
        pool: usize,
        config: u64,
    },
    Forget {
        pool: usize,
    },
    Begin {
        proxy: usize,
    },
    End {
        proxy: usize,
    },
    Expect {
        proxy: usize,
        pool: usize,
    },
    Release {
        proxy: usize,
        pool: usize,
    },
    /// Of a version so many before the newest one, perhaps with another configuration in force.
    Ack {
        proxy: usize,
        pool: usize,
        before: u64,
        config: u64,
    },
    Refuse {
        proxy: usize,
        pool: usize,
    },
    /// One of a few backends takes requests at the proxy, or none.
    Find {
        proxy: usize,
        pool: usize,
        backend: usize,
        available: bool,
    },
    Wait {
        ms: u32,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let (pool, proxy) = (0..2usize, 0..3usize);
    prop_oneof![
        4 => (pool.clone(), 0..3u64).prop_map(|(pool, config)| Step::Make { pool, config }),
        1 => pool.clone().prop_map(|pool| Step::Forget { pool }),
        2 => proxy.clone().prop_map(|proxy| Step::Begin { proxy }),
        1 => proxy.clone().prop_map(|proxy| Step::End { proxy }),
        4 => (proxy.clone(), pool.clone()).prop_map(|(proxy, pool)| Step::Expect { proxy, pool }),
        1 => (proxy.clone(), pool.clone()).prop_map(|(proxy, pool)| Step::Release { proxy, pool }),
        6 => (proxy.clone(), pool.clone(), 0..3u64, 0..3u64)
            .prop_map(|(proxy, pool, before, config)| Step::Ack { proxy, pool, before, config }),
        1 => (proxy.clone(), pool.clone()).prop_map(|(proxy, pool)| Step::Refuse { proxy, pool }),
        4 => (proxy, pool, 0..BACKENDS.len(), any::<bool>())
            .prop_map(|(proxy, pool, backend, available)| Step::Find { proxy, pool, backend, available }),
        3 => (1..500u32).prop_map(|ms| Step::Wait { ms }),
    ]
}

const POOLS: [&str; 2] = ["ns/a", "ns/b"];
const BACKENDS: [&str; 3] = ["x", "y", "z"];

/// Pools that are expected of a stream, with the backends that it called unhealthy.
type Serves = BTreeMap<usize, BTreeSet<usize>>;

#[derive(Default)]
struct Model {
    sequence: u64,
    /// Newest version and configuration of each pool that is there.
    pools: BTreeMap<usize, (u64, u64)>,
    /// Open streams of each proxy, oldest first.
    streams: BTreeMap<usize, Vec<(StreamId, Serves)>>,
}

impl Model {
    fn take(&mut self, bench: &mut Bench, step: &Step) {
        match *step {
            Step::Make { pool, config } => {
                self.sequence += 2;
                self.pools.insert(pool, (self.sequence, config));
                bench.make(POOLS[pool], self.sequence, config);
            }
            Step::Forget { pool } => {
                self.pools.remove(&pool);
                let streams = self.streams.values_mut().flatten();
                streams.for_each(|(_, serves)| drop(serves.remove(&pool)));
                bench.record.forget_pool(POOLS[pool]);
            }
            Step::Begin { proxy } => {
                let stream = bench.begin(&format!("proxy-{proxy}"));
                self.streams.entry(proxy).or_default().push((stream, Serves::new()));
            }
            Step::End { proxy } => {
                let streams = self.streams.entry(proxy).or_default();
                if !streams.is_empty() {
                    bench.record.end(streams.remove(0).0);
                }
            }
            Step::Expect { proxy, pool } => {
                let is_there = self.pools.contains_key(&pool);
                if let Some((stream, serves)) = self.newest(proxy) {
                    bench.record.expect(*stream, &POOLS[pool].into());
                    if is_there {
                        serves.entry(pool).or_default();
                    }
                }
            }
            Step::Release { proxy, pool } => {
                if let Some((stream, serves)) = self.newest(proxy) {
                    bench.record.release(*stream, &POOLS[pool].into());
                    serves.remove(&pool);
                }
            }
            Step::Ack { proxy, pool, before, config } => {
                let sequence = self.pools.get(&pool).map_or(1, |pool| pool.0).saturating_sub(before);
                if let Some((stream, _)) = self.newest(proxy) {
                    bench.ack(*stream, POOLS[pool], sequence, config);
                }
            }
            Step::Refuse { proxy, pool } => {
                let sequence = self.pools.get(&pool).map_or(1, |pool| pool.0);
                if let Some((stream, _)) = self.newest(proxy) {
                    bench.refuse(*stream, POOLS[pool], sequence);
                }
            }
            Step::Find { proxy, pool, backend, available } => {
                if let Some((stream, serves)) = self.newest(proxy) {
                    bench.find(*stream, POOLS[pool], BACKENDS[backend], (!available).then_some("no"));
                    if let Some(unhealthy) = serves.get_mut(&pool) {
                        unhealthy.remove(&backend);
                        unhealthy.extend((!available).then_some(backend));
                    }
                }
            }
            Step::Wait { ms } => bench.now += MS * ms,
        }
    }

    fn newest(&mut self, proxy: usize) -> Option<&mut (StreamId, Serves)> {
        self.streams.get_mut(&proxy)?.last_mut()
    }

    /// Of each proxy that is to serve the pool by any of its streams, what the newest of those found.
    fn found(&self, pool: usize) -> Vec<&BTreeSet<usize>> {
        let streams = self.streams.values();
        streams.filter_map(|streams| streams.iter().rev().find_map(|(_, serves)| serves.get(&pool))).collect()
    }
}

fn check(model: &Model, bench: &Bench) {
    for (pool, name) in POOLS.iter().enumerate() {
        let summary = bench.summary(name);
        let found = model.found(pool);
        assert_eq!(summary.proxies, count(found.len()), "{name}");
        let said_by = |backend: &usize| count(found.iter().filter(|found| found.contains(backend)).count());
        let expected = BACKENDS.iter().enumerate().map(|(backend, name)| (*name, said_by(&backend)));
        assert_eq!(unhealthy(&summary), expected.filter(|(_, by)| *by > 0).collect::<Vec<_>>(), "{name}");
        assert!(summary.current + summary.refused <= summary.proxies, "{summary:?}");
        assert_eq!(summary.oldest_lag.is_some(), summary.proxies > 0, "{summary:?}");
        assert!(summary.refusals.len() <= REFUSALS_MAX);
        if !model.pools.contains_key(&pool) {
            assert_eq!(summary, PoolSummary::default(), "{name} is gone");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, rng_seed: proptest::test_runner::RngSeed::Fixed(24), ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_counts_stay_true_and_after_all_acks_every_proxy_is_current(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let (mut model, mut bench) = (Model::default(), Bench::new());
        for step in &steps {
            model.take(&mut bench, step);
            check(&model, &bench);
        }
        for (stream, serves) in model.streams.values().flatten() {
            for pool in serves.keys() {
                let (sequence, config) = model.pools[pool];
                bench.ack(*stream, POOLS[*pool], sequence, config);
            }
        }
        for name in POOLS {
            let summary = bench.summary(name);
            prop_assert_eq!(summary.current, summary.proxies);
            prop_assert_eq!(summary.refused, 0);
            prop_assert_eq!(summary.oldest_lag.is_some(), summary.proxies > 0);
        }
    }
}

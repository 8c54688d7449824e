mod guarded;
mod pacing;

use super::*;
use crate::compile::BackendSetContent;
use crate::store::{Completeness, Contents};
use std::sync::OnceLock;
use std::time::Duration;
use weir_proto::limits::{
    CHUNK_BYTES_IN_FLIGHT_MAX, CHUNK_BYTES_MAX, CHUNKS_IN_FLIGHT_MAX, DELTA_BACKENDS_MAX,
};
use weir_proto::push::{
    Ack, Backend, BackendDelta, BackendSet, ChunkReceived, DigestReport, KnownPool, Nack, PoolConfig,
    SetDigest, SnapshotRequest,
};

const EPOCH: u64 = 7;

/// Full chunks that fit the window.
const LARGE_CHUNKS_MAX: usize = CHUNK_BYTES_IN_FLIGHT_MAX / CHUNK_BYTES_MAX;

fn backend(id: &str) -> Backend {
    Backend { id: id.into(), address: "10.0.0.1:80".into(), weight: 1, ..Backend::default() }
}

fn backends(count: usize) -> Vec<Backend> {
    (0..count).map(|n| backend(&format!("b{n:05}"))).collect()
}

/// A pool "ns/p" whose configuration differs by `timeout`.
fn pool(sequence: u64, timeout: u64, sets: &[(&str, Vec<Backend>)]) -> Arc<Pool> {
    let set =
        |name: &str| BackendSet { name: name.into(), connect_timeout_ms: timeout, ..BackendSet::default() };
    let backend_sets = sets.iter().map(|(name, _)| set(name)).collect();
    let config = PoolConfig { pool: "ns/p".into(), backend_sets, ..PoolConfig::default() };
    let config_digest = weir_proto::digest::config(&config);
    let sets = sets
        .iter()
        .map(|(name, members)| ((*name).to_owned(), Arc::new(BackendSetContent::new(members.clone()))));
    let contents =
        Contents { config: Arc::new(config), config_digest, sets: sets.collect(), ..Contents::default() };
    let name: Arc<str> = "ns/p".into();
    let version = Version { epoch: EPOCH, sequence: 2 * sequence };
    // Never held back, but for what `pacing` is about.
    let takes_away = version.sequence;
    Arc::new(Pool {
        name,
        version,
        takes_away,
        empty_from_start: BTreeSet::new(),
        contents,
        seen: Instant::now(),
        whole: OnceLock::new(),
    })
}

fn hello(known: Vec<KnownPool>) -> ProxyMessage {
    from(FromProxy::Hello(Hello { proxy_id: "proxy".into(), known, ..Hello::default() }))
}

fn from(body: FromProxy) -> ProxyMessage {
    ProxyMessage { body: Some(body) }
}

fn known(pool: &Pool) -> KnownPool {
    let sets = pool.contents.sets.iter();
    KnownPool {
        pool: pool.name.to_string(),
        config_digest: pool.contents.config_digest,
        sets: sets.map(|(set, content)| SetDigest { set: set.clone(), digest: content.digest }).collect(),
    }
}

struct Stream {
    session: Session,
    now: Instant,
}

impl Stream {
    fn open(known: Vec<KnownPool>, pools: &[&Arc<Pool>]) -> Self {
        let session = Session::open(hello(known), EPOCH, "c").expect("a proper Hello");
        let mut stream = Self { session, now: Instant::now() };
        for pool in pools {
            stream.change(pool);
        }
        assert!(matches!(stream.next(), Some(ToProxy::Welcome(_))));
        stream
    }

    fn change(&mut self, pool: &Arc<Pool>) {
        self.session.changed(&pool.name, Some(Arc::clone(pool)));
    }

    fn next(&mut self) -> Option<ToProxy> {
        self.session.next(self.now).and_then(|message| message.body)
    }

    fn say(&mut self, body: FromProxy) -> Option<Report> {
        self.session.on_message(self.now, from(body)).expect("no breach")
    }

    fn received(&mut self, chunk: &ConfigChunk) {
        let (pool, version, index) = (chunk.pool.clone(), chunk.version, chunk.index);
        self.say(FromProxy::ChunkReceived(ChunkReceived { pool, version, index }));
    }

    fn chunk(&mut self) -> ConfigChunk {
        match self.next() {
            Some(ToProxy::ConfigChunk(chunk)) => chunk,
            other => panic!("a chunk was due, not {other:?}"),
        }
    }

    fn delta(&mut self) -> BackendDelta {
        match self.next() {
            Some(ToProxy::BackendDelta(delta)) => delta,
            other => panic!("a delta was due, not {other:?}"),
        }
    }

    /// Sends and acknowledges everything about `pool`.
    fn settle(&mut self, pool: &Pool) {
        while let Some(body) = self.next() {
            if let ToProxy::ConfigChunk(chunk) = body {
                self.received(&chunk);
            }
        }
        self.ack(pool);
    }

    fn ack(&mut self, pool: &Pool) {
        let config_digest = pool.contents.config_digest;
        self.say(FromProxy::Ack(Ack { pool: "ns/p".into(), version: Some(pool.version), config_digest }));
    }
}

fn update(chunk: &ConfigChunk) -> weir_proto::push::PoolUpdate {
    prost::Message::decode(chunk.payload.clone()).expect("one whole chunk")
}

#[test]
fn an_equal_pool_is_confirmed_and_nothing_of_it_is_sent() {
    let pool = pool(3, 1, &[("a", backends(2))]);
    let mut stream = Stream::open(vec![known(&pool)], &[&pool]);
    let delta = stream.delta();
    assert_eq!((delta.base, delta.version, delta.sets.len()), (None, Some(pool.version), 0));
    assert!(matches!(stream.next(), Some(ToProxy::Synced(Synced { pools: 1, keep_unmentioned: false }))));
    assert_eq!(stream.next(), None);
}

#[test]
fn keys_come_before_the_pools_and_again_when_they_change_to_a_proxy_that_takes_them() {
    let ring = |key: u8| KeyRing { current: vec![key; 32], ..KeyRing::default() };
    let open = |capabilities: &[&str]| {
        let capabilities = capabilities.iter().map(|name| (*name).to_owned()).collect();
        let hello = Hello { proxy_id: "proxy".into(), capabilities, ..Hello::default() };
        let mut session = Session::open(from(FromProxy::Hello(hello)), EPOCH, "c").expect("a proper Hello");
        session.keys(ring(1));
        let pool = pool(1, 1, &[]);
        session.changed(&pool.name, Some(Arc::clone(&pool)));
        Stream { session, now: Instant::now() }
    };
    let mut stream = open(&["later", KEY_RING_CAPABILITY]);
    assert!(matches!(stream.next(), Some(ToProxy::Welcome(_))));
    assert_eq!(stream.next(), Some(ToProxy::KeyRing(ring(1))));
    assert!(stream.chunk().last);
    stream.session.keys(ring(2));
    stream.session.keys(ring(3));
    assert_eq!(stream.next(), Some(ToProxy::KeyRing(ring(3))), "the newest");
    let mut stream = open(&["later"]);
    assert!(matches!(stream.next(), Some(ToProxy::Welcome(_))));
    assert!(stream.chunk().last, "and no keys");
}

#[test]
fn a_pool_that_only_the_proxy_knows_is_left_alone_until_everything_is_known() {
    let pool = pool(3, 1, &[("a", backends(2))]);
    let mut other = known(&pool);
    other.pool = "ns/unreadable".into();
    let mut stream = Stream::open(vec![known(&pool), other], &[&pool]);
    stream.session.knows(Knowledge::part());
    stream.delta();
    assert!(matches!(stream.next(), Some(ToProxy::Synced(Synced { keep_unmentioned: true, .. }))));
    assert_eq!(stream.next(), None);
    stream.session.knows(Knowledge::all());
    match stream.next() {
        Some(ToProxy::PoolRemoved(removed)) => assert_eq!(removed.pool, "ns/unreadable"),
        other => panic!("a removal was due, not {other:?}"),
    }
}

#[test]
fn members_of_another_source_wait_for_the_rules_that_came_with_them() {
    let with_source = |sequence, source: &str, members| {
        let mut made = Arc::into_inner(pool(sequence, 1, &[("a", backends(members))])).expect("the only one");
        let config = Arc::make_mut(&mut made.contents.config);
        config.backend_sets[0].source = source.into();
        made.contents.config_digest = weir_proto::digest::config(config);
        Arc::new(made)
    };
    let blue = with_source(1, "service blue:80", 2);
    let mut stream = Stream::open(Vec::new(), &[&blue]);
    stream.settle(&blue);
    stream.change(&with_source(2, "service green:80", 3));
    assert_eq!(update(&stream.chunk()).sets[0].backends.len(), 3, "in the update, and not ahead of it");
}

#[test]
fn a_resumed_pool_gets_only_the_sets_that_differ() {
    let old = pool(3, 1, &[("a", backends(2)), ("b", backends(1))]);
    let new = pool(4, 1, &[("a", backends(2)), ("b", backends(9))]);
    let mut stream = Stream::open(vec![known(&old)], &[&new]);
    let update = update(&stream.chunk());
    assert_eq!(update.kept.iter().map(|kept| &*kept.set).collect::<Vec<_>>(), ["a"]);
    assert_eq!(update.sets.iter().map(|sent| &*sent.set).collect::<Vec<_>>(), ["b"]);
    assert!(matches!(stream.next(), Some(ToProxy::Synced(_))));
}

#[test]
fn a_pool_that_is_gone_is_removed_from_a_proxy_that_still_has_it() {
    let pool = pool(3, 1, &[]);
    let mut stream = Stream::open(vec![known(&pool)], &[]);
    assert!(matches!(stream.next(), Some(ToProxy::PoolRemoved(removed)) if removed.pool == "ns/p"));
    assert!(matches!(stream.next(), Some(ToProxy::Synced(Synced { pools: 0, .. }))));
}

#[test]
fn a_pool_under_a_new_name_is_sent_before_the_old_one_is_removed() {
    for (old_name, new_name) in [("ns/a", "ns/b"), ("ns/b", "ns/a")] {
        let named = |name: &str| {
            let mut pool = Arc::into_inner(pool(3, 1, &[("a", backends(1))])).expect("one owner");
            pool.name = name.into();
            Arc::new(pool)
        };
        let (old, new) = (named(old_name), named(new_name));
        let mut stream = Stream::open(vec![known(&old)], &[&old]);
        stream.delta();
        assert!(matches!(stream.next(), Some(ToProxy::Synced(_))));
        stream.session.changed(&old.name, None);
        stream.change(&new);
        assert_eq!(stream.chunk().pool, new_name);
        assert!(matches!(stream.next(), Some(ToProxy::PoolRemoved(removed)) if removed.pool == old_name));
        assert_eq!(stream.next(), None);
    }
}

#[test]
fn a_removed_pool_that_is_back_before_its_removal_was_sent_is_not_removed() {
    let old = pool(3, 1, &[("a", backends(1))]);
    let mut stream = Stream::open(vec![known(&old)], &[&old]);
    stream.delta();
    assert!(matches!(stream.next(), Some(ToProxy::Synced(_))));
    let mut other = Arc::into_inner(pool(4, 1, &[("a", backends(60_000))])).expect("one owner");
    other.name = "ns/other".into();
    stream.session.changed(&old.name, None);
    stream.change(&Arc::new(other));
    assert_eq!(stream.chunk().pool, "ns/other");
    stream.change(&pool(5, 1, &[("a", backends(2))]));
    assert_eq!(stream.delta().pool, "ns/p");
    assert_eq!(stream.chunk().pool, "ns/other");
}

#[test]
fn a_removal_waits_for_other_configurations_until_its_time_is_up() {
    let old = pool(3, 1, &[("a", backends(1))]);
    let mut stream = Stream::open(vec![known(&old)], &[&old]);
    stream.delta();
    assert!(matches!(stream.next(), Some(ToProxy::Synced(_))));
    let mut other = Arc::into_inner(pool(4, 1, &[("a", backends(60_000))])).expect("one owner");
    other.name = "ns/other".into();
    stream.session.changed(&old.name, None);
    stream.change(&Arc::new(other));
    let begun = stream.now;
    for _ in 0..LARGE_CHUNKS_MAX {
        assert_eq!(stream.chunk().pool, "ns/other");
    }
    assert_eq!(stream.next(), None, "the window is full and nothing is acknowledged");
    assert_eq!(stream.session.due(), Some(begun + REMOVAL_WAIT_MAX));
    stream.now = begun + REMOVAL_WAIT_MAX - Duration::from_millis(1);
    assert_eq!(stream.next(), None);
    stream.now = begun + REMOVAL_WAIT_MAX;
    assert!(matches!(stream.next(), Some(ToProxy::PoolRemoved(removed)) if removed.pool == "ns/p"));
    assert_eq!(stream.next(), None);
    assert_eq!(stream.session.due(), None);
}

#[test]
fn a_removal_that_is_taken_back_and_comes_again_waits_anew() {
    let old = pool(3, 1, &[("a", backends(1))]);
    let mut stream = Stream::open(vec![known(&old)], &[&old]);
    stream.delta();
    assert!(matches!(stream.next(), Some(ToProxy::Synced(_))));
    let mut other = Arc::into_inner(pool(4, 1, &[("a", backends(60_000))])).expect("one owner");
    other.name = "ns/other".into();
    stream.session.changed(&old.name, None);
    stream.change(&Arc::new(other));
    stream.chunk();
    stream.change(&old);
    stream.chunk();
    stream.now += REMOVAL_WAIT_MAX;
    stream.session.changed(&old.name, None);
    assert_eq!(stream.chunk().pool, "ns/other");
    assert_eq!(stream.session.due(), Some(stream.now + REMOVAL_WAIT_MAX));
}

#[test]
fn a_change_of_backends_is_one_delta_from_what_was_sent_last() {
    let old = pool(3, 1, &[("a", vec![backend("1"), backend("2"), backend("3")]), ("b", backends(1))]);
    let mut stream = Stream::open(Vec::new(), &[&old]);
    stream.settle(&old);
    let heavy = Backend { weight: 9, ..backend("2") };
    stream.change(&pool(4, 1, &[("a", Vec::new()), ("b", backends(1))]));
    let new = pool(5, 1, &[("a", vec![heavy.clone(), backend("3"), backend("4")]), ("b", backends(1))]);
    stream.change(&new);
    let delta = stream.delta();
    assert_eq!((delta.base, delta.version), (Some(old.version), Some(new.version)), "4 was conflated away");
    let [set] = &delta.sets[..] else { panic!("one set differs: {delta:?}") };
    assert_eq!((&set.upserted[..], &set.removed[..]), (&[heavy, backend("4")][..], &["1".to_owned()][..]));
    assert_eq!(set.digest, new.contents.sets["a"].digest);
    assert_eq!(stream.next(), None);
}

#[test]
fn a_delta_at_the_limit_is_one_message_and_one_past_it_is_an_update() {
    let empty = pool(1, 1, &[("a", Vec::new()), ("b", Vec::new())]);
    for (count, is_delta) in [(DELTA_BACKENDS_MAX, true), (DELTA_BACKENDS_MAX + 1, false)] {
        let mut stream = Stream::open(Vec::new(), &[&empty]);
        stream.settle(&empty);
        stream.change(&pool(2, 1, &[("a", backends(count)), ("b", Vec::new())]));
        assert_eq!(matches!(stream.next(), Some(ToProxy::BackendDelta(_))), is_delta, "{count}");
    }
    // The large set does not hold up the small one.
    let mut stream = Stream::open(Vec::new(), &[&empty]);
    stream.settle(&empty);
    stream.change(&pool(2, 1, &[("a", backends(DELTA_BACKENDS_MAX + 1)), ("b", backends(1))]));
    assert_eq!(stream.delta().sets.len(), 1);
    let update = update(&stream.chunk());
    assert_eq!((update.sets.len(), update.kept.len()), (1, 1));
}

#[test]
fn a_pool_that_would_lose_a_certificate_keeps_what_the_proxy_has_and_holds_up_no_removal() {
    let (lacking, mut gone) = (pool(3, 1, &[("a", backends(2))]), known(&pool(3, 1, &[])));
    gone.pool = "ns/a-gone".into();
    let mut had = known(&lacking);
    had.config_digest += 1;
    let unsure = Knowledge::new(Completeness::All, ["ns/p".to_owned()]);
    let mut stream = Stream::open(vec![had, gone], &[&lacking]);
    stream.session.knows(unsure.clone());
    match stream.next() {
        Some(ToProxy::PoolRemoved(removed)) => assert_eq!(removed.pool, "ns/a-gone"),
        other => panic!("{other:?} is no removal"),
    }
    assert!(matches!(stream.next(), Some(ToProxy::Synced(Synced { keep_unmentioned: true, .. }))));
    stream.change(&pool(4, 1, &[("a", backends(3))]));
    assert_eq!(stream.next(), None, "it still lacks what the proxy may have");
    stream.session.knows(Knowledge::all());
    assert_eq!(update(&stream.chunk()).sets.len(), 1);

    let mut same = Stream::open(vec![known(&lacking)], &[&lacking]);
    same.session.knows(unsure);
    assert_eq!(same.delta().version, Some(lacking.version), "there is nothing to lose");
}

#[test]
fn a_pool_whose_backends_are_not_known_yet_keeps_what_the_proxy_has_until_they_are() {
    let (had, empty) = (pool(3, 1, &[("a", backends(2))]), pool(4, 1, &[("a", vec![])]));
    let open = Knowledge::all().while_open(["ns/p".to_owned()]);
    let mut stream = Stream::open(vec![known(&had)], &[&empty]);
    stream.session.knows(open.clone());
    assert!(matches!(stream.next(), Some(ToProxy::Synced(Synced { keep_unmentioned: true, .. }))));
    assert_eq!(stream.next(), None, "the set is empty for want of an answer");
    stream.change(&pool(5, 1, &[("a", backends(3))]));
    stream.session.knows(Knowledge::all());
    assert_eq!(update(&stream.chunk()).sets.len(), 1);

    let mut new = Stream::open(Vec::new(), &[&empty]);
    new.session.knows(open);
    assert_eq!(update(&new.chunk()).sets.len(), 1, "a proxy that has nothing has nothing to keep");
}

#[test]
fn chunks_wait_for_the_window_and_deltas_do_not() {
    // The set is large enough for more chunks than the window has room for.
    let count = (LARGE_CHUNKS_MAX + 2) * CHUNK_BYTES_MAX / 20;
    let old = pool(1, 1, &[("big", backends(count)), ("small", backends(1))]);
    let mut stream = Stream::open(Vec::new(), &[&old]);
    let sent: Vec<_> = (0..LARGE_CHUNKS_MAX).map(|_| stream.chunk()).collect();
    assert!(sent.iter().all(|chunk| chunk.payload.len() == CHUNK_BYTES_MAX && !chunk.last));
    assert_eq!(stream.next(), None, "the window is full");
    let new = pool(2, 1, &[("big", backends(count)), ("small", backends(2))]);
    stream.change(&new);
    let delta = stream.delta();
    assert_eq!((delta.base, delta.version), (Some(old.version), Some(new.version)));
    assert_eq!(stream.next(), None);
    stream.received(&sent[0]);
    assert_eq!(usize::try_from(stream.chunk().index), Ok(LARGE_CHUNKS_MAX));
    assert_eq!(stream.next(), None);
}

#[test]
fn small_chunks_fill_the_window_by_their_number_and_the_last_one_gives_all_of_them_back() {
    let pools: Vec<_> = (0..=CHUNKS_IN_FLIGHT_MAX)
        .map(|number| {
            let mut pool = Arc::into_inner(pool(1, 1, &[("a", backends(1))])).expect("one owner");
            pool.name = format!("ns/p{number:03}").into();
            Arc::new(pool)
        })
        .collect();
    let mut stream = Stream::open(Vec::new(), &pools.iter().collect::<Vec<_>>());
    let sent: Vec<_> = (0..CHUNKS_IN_FLIGHT_MAX).map(|_| stream.chunk()).collect();
    assert_eq!(stream.next(), None, "the window is full");
    stream.received(&sent[CHUNKS_IN_FLIGHT_MAX - 1]);
    assert_eq!(stream.chunk().pool, pools[CHUNKS_IN_FLIGHT_MAX].name.as_ref());
    let ChunkReceived { pool, version, index } =
        ChunkReceived { pool: sent[0].pool.clone(), version: sent[0].version, index: sent[0].index };
    let again = from(FromProxy::ChunkReceived(ChunkReceived { pool, version, index }));
    assert!(
        matches!(stream.session.on_message(stream.now, again), Err(Breach::ChunkOutOfOrder { index: 0, .. })),
        "it was given back already"
    );
}

#[test]
fn backends_overtake_a_configuration_that_waits() {
    let old = pool(1, 1, &[("a", backends(1))]);
    let mut stream = Stream::open(Vec::new(), &[&old]);
    stream.settle(&old);
    let new = pool(2, 2, &[("a", backends(2)), ("c", backends(1))]);
    stream.change(&new);
    let delta = stream.delta();
    assert_eq!((delta.version, delta.sets[0].upserted.len()), (Some(new.version_ahead()), 1));
    let chunk = stream.chunk();
    let update = update(&chunk);
    assert_eq!((&*update.kept[0].set, &*update.sets[0].set), ("a", "c"));
    stream.received(&chunk);
    let early = Ack {
        pool: "ns/p".into(),
        version: Some(new.version_ahead()),
        config_digest: old.contents.config_digest,
    };
    let report = stream.say(FromProxy::Ack(early));
    assert!(matches!(report, Some(Report::Acked { is_newest_config: false, .. })));
    assert!(stream.session.stuck_at().is_some(), "the configuration itself is not answered");
    stream.ack(&new);
    assert_eq!(stream.session.stuck_at(), None);
}

#[test]
fn a_snapshot_request_starts_an_update_again_with_every_set() {
    let old = pool(1, 1, &[("a", backends(20_000)), ("b", backends(1))]);
    let mut stream = Stream::open(Vec::new(), &[&old]);
    let first = stream.chunk();
    stream.received(&first);
    stream.chunk();
    let request = SnapshotRequest { pool: "ns/p".into(), reason: "test".into() };
    let report = stream.say(FromProxy::SnapshotRequest(request));
    assert!(matches!(report, Some(Report::SnapshotRequested { .. })));
    assert_eq!(stream.chunk().index, 0);
}

#[test]
fn a_report_with_another_digest_brings_the_whole_pool_and_a_late_one_does_not() {
    let old = pool(1, 1, &[("a", backends(1))]);
    let mut stream = Stream::open(Vec::new(), &[&old]);
    stream.settle(&old);
    let report = |version, digest| {
        FromProxy::DigestReport(DigestReport {
            pool: "ns/p".into(),
            version: Some(version),
            config_digest: old.contents.config_digest,
            sets: vec![SetDigest { set: "a".into(), digest }],
        })
    };
    assert_eq!(stream.say(report(old.version, old.contents.sets["a"].digest)), None);
    assert_eq!(stream.say(report(Version { epoch: EPOCH, sequence: 0 }, 1)), None);
    let diverged = stream.say(report(old.version, 1));
    assert!(matches!(diverged, Some(Report::Diverged { .. })), "{diverged:?}");
    assert_eq!(update(&stream.chunk()).sets.len(), 1);
}

#[test]
fn a_pool_that_a_proxy_still_has_after_its_removal_is_removed_again() {
    let old = pool(1, 1, &[("a", backends(1))]);
    let mut stream = Stream::open(Vec::new(), &[&old]);
    stream.settle(&old);
    stream.session.changed(&old.name, None);
    assert!(matches!(stream.next(), Some(ToProxy::PoolRemoved(_))), "which was lost");
    let report = |epoch| {
        let version = Some(Version { epoch, ..old.version });
        FromProxy::DigestReport(DigestReport { pool: "ns/p".into(), version, ..DigestReport::default() })
    };
    assert_eq!(stream.say(report(EPOCH + 1)), None);
    assert_eq!(stream.next(), None, "not on this stream's word");
    assert_eq!(stream.say(report(EPOCH)), None);
    let Some(ToProxy::PoolRemoved(removed)) = stream.next() else { panic!("a removal") };
    assert_eq!((removed.pool.as_str(), stream.next()), ("ns/p", None));
    let unsaid = DigestReport { pool: "ns/kept".into(), ..DigestReport::default() };
    assert_eq!(stream.say(FromProxy::DigestReport(unsaid.clone())), None);
    let Some(ToProxy::PoolRemoved(removed)) = stream.next() else { panic!("a removal") };
    assert_eq!((removed.pool.as_str(), removed.version), ("ns/kept", None));
    stream.session.knows(Knowledge::part());
    assert_eq!(stream.say(FromProxy::DigestReport(unsaid)), None);
    assert_eq!(stream.next(), None, "it may be there");
    assert_eq!(stream.say(report(EPOCH)), None);
    stream.change(&old);
    assert_eq!(update(&stream.chunk()).sets.len(), 1, "one that comes back is sent whole");
}

#[test]
fn a_stream_is_stuck_when_nothing_is_acknowledged_in_time() {
    let old = pool(1, 1, &[("a", backends(1))]);
    let mut stream = Stream::open(Vec::new(), &[&old]);
    assert_eq!(stream.session.stuck_at(), None, "nothing is in flight");
    let begun = stream.now;
    let chunk = stream.chunk();
    assert_eq!(stream.session.stuck_at(), Some(begun + STUCK_STREAM_TIMEOUT));
    stream.now += Duration::from_secs(10);
    stream.received(&chunk);
    assert_eq!(
        stream.session.stuck_at(),
        Some(stream.now + STUCK_STREAM_TIMEOUT),
        "the pool is not acknowledged"
    );
    stream.ack(&old);
    assert_eq!(stream.session.stuck_at(), None);
}

#[test]
fn what_breaks_the_protocol_is_answered_with_a_sentence() {
    let open = |message| Session::open(message, EPOCH, "c").expect_err("refused");
    let named = |proxy_id: String| from(FromProxy::Hello(Hello { proxy_id, ..Hello::default() }));
    assert_eq!(open(from(FromProxy::Ack(Ack::default()))), Breach::HelloMissing);
    assert_eq!(open(ProxyMessage { body: None }), Breach::HelloMissing);
    assert_eq!(open(named(String::new())), Breach::ProxyId(0));
    assert_eq!(open(named("x".repeat(PROXY_ID_BYTES_MAX + 1))), Breach::ProxyId(PROXY_ID_BYTES_MAX + 1));
    assert!(Session::open(named("x".repeat(PROXY_ID_BYTES_MAX)), EPOCH, "c").is_ok());
    assert_eq!(open(hello(vec![KnownPool::default(); POOLS_MAX + 1])), Breach::TooManyPools(POOLS_MAX + 1));

    let mut session = Session::open(hello(Vec::new()), EPOCH, "c").expect("proper");
    let mut say = |message| session.on_message(Instant::now(), message);
    assert_eq!(say(hello(Vec::new())), Err(Breach::HelloAgain));
    assert_eq!(say(ProxyMessage { body: None }), Err(Breach::Unknown));
    let chunk = say(from(FromProxy::ChunkReceived(ChunkReceived::default())));
    assert!(matches!(chunk, Err(Breach::ChunkOutOfOrder { .. })));
    let foreign = Ack { version: Some(Version { epoch: 1, sequence: 1 }), ..Ack::default() };
    assert!(matches!(say(from(FromProxy::Ack(foreign))), Err(Breach::ForeignVersion(_))));
    let crossed = Nack { pool: "gone/pool".into(), ..Nack::default() };
    assert_eq!(say(from(FromProxy::Nack(crossed))), Ok(None), "it may have crossed the removal");
}

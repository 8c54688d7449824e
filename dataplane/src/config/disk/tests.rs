use super::*;
use crate::config::content::SetContent;
use crate::config::replica::Replica;
use std::fs;
use std::path::Path;
use weir_proto::push::controller_message::Body as FromController;
use weir_proto::push::{
    Backend, BackendSet, BackendSetContent, Certificate, ConfigChunk, ControllerMessage, Listener,
    PoolConfig, PoolUpdate, Protocol, Tls, Version,
};

fn backend(id: &str) -> Backend {
    Backend { id: id.into(), address: "10.0.0.1:80".into(), weight: 1, ..Backend::default() }
}

/// With one listener in the clear and, where there is a private key, one with TLS.
fn kept(pool: &str, key_pem: Option<&str>, backends: &[&str]) -> Kept {
    let set = BackendSet { name: "web".into(), ..BackendSet::default() };
    let plain = Listener { name: "plain".into(), port: 80, protocol: 1, ..Listener::default() };
    let secured = key_pem.map(|key| Listener {
        name: "secured".into(),
        port: 443,
        protocol: Protocol::Https.into(),
        tls: Some(Tls {
            certificates: vec![Certificate {
                source: "ns/cert".into(),
                chain_pem: b"chain".to_vec(),
                key_pem: key.into(),
            }],
            ..Tls::default()
        }),
        ..Listener::default()
    });
    let config = PoolConfig {
        pool: pool.into(),
        listeners: [plain].into_iter().chain(secured).collect(),
        backend_sets: vec![set],
        ..PoolConfig::default()
    };
    let content = SetContent::new(backends.iter().map(|id| backend(id)).collect());
    let digest = weir_proto::digest::config(&config);
    Kept { config: config.into(), digest, sets: vec![("web".into(), content)] }
}

fn batch(pools: impl IntoIterator<Item = Kept>) -> Batch {
    let pools = pools.into_iter().map(|kept| (kept.config.pool.clone(), Some(kept)));
    Batch { pools: pools.collect(), ring: None }
}

fn gone(pool: &str) -> Batch {
    Batch { pools: [(pool.to_owned(), None)].into(), ring: None }
}

fn ring(byte: u8) -> KeyRing {
    let key = |at| vec![byte + at; 32];
    KeyRing { previous: key(0), current: key(1), next: key(2) }
}

fn options(folder: &Path, key_file: Option<&Path>) -> StateOptions {
    let (folder, key_file) = (folder.join("state"), key_file.map(ToOwned::to_owned));
    StateOptions { folder, key_file, grace: Duration::ZERO }
}

fn open(folder: &Path, key_file: Option<&Path>) -> (State, Writer, Arc<Status>) {
    let status = Arc::<Status>::default();
    let (state, writer) = State::open(&options(folder, key_file), Arc::clone(&status)).expect("opened");
    (state, writer, status)
}

fn write(folder: &Path, key_file: Option<&Path>, batch: Batch) {
    let (_state, mut writer, status) = open(folder, key_file);
    writer.take(batch);
    writer.save();
    assert_eq!((status.state_writes(), status.state_write_failures()), (1, 0));
}

fn restored(folder: &Path, key_file: Option<&Path>) -> Restored {
    open(folder, key_file).0.restored.expect("something was kept")
}

fn file(folder: &Path) -> Vec<u8> {
    fs::read(folder.join("state").join(FILE)).expect("written")
}

fn shows(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn key(folder: &Path, byte: u8) -> PathBuf {
    let path = folder.join(format!("key-{byte}"));
    fs::write(&path, [byte; 32]).expect("written");
    path
}

#[test]
fn what_was_kept_is_restored_and_known_by_its_digests() {
    let folder = folder();
    let key = key(folder.path(), 1);
    let pools = [kept("ns/a", None, &["x", "y"]), kept("ns/b", Some("hunter2"), &[])];
    let digests: Vec<_> = pools.iter().map(|kept| (kept.digest, kept.sets[0].1.digest())).collect();
    write(folder.path(), Some(&key), Batch { ring: Some(ring(9)), ..batch(pools.clone()) });
    let found = restored(folder.path(), Some(&key));
    let again: Vec<_> = found.pools.iter().map(|pool| (pool.digest(), pool.sets["web"].digest())).collect();
    assert_eq!(again, digests);
    for (pool, kept) in found.pools.iter().zip(&pools) {
        assert_eq!((&pool.config, pool.waiting.len()), (&*kept.config, 0));
    }
    let ids: Vec<_> = found.pools[0].sets["web"].backends().map(|backend| backend.id.as_str()).collect();
    assert_eq!((ids, found.ring), (vec!["x", "y"], Some(ring(9))));
}

#[test]
fn private_keys_are_never_on_disk_in_the_clear() {
    let folder = folder();
    let key = key(folder.path(), 1);
    let secrets = Batch { ring: Some(ring(b'k')), ..batch([kept("ns/a", Some("hunter2"), &["x"])]) };
    write(folder.path(), Some(&key), secrets);
    let bytes = file(folder.path());
    assert!(shows(&bytes, "ns/a") && shows(&bytes, "chain"));
    assert!(!shows(&bytes, "hunter2") && !shows(&bytes, "llllllll"));
    let (_, writer, _) = open(folder.path(), Some(&key));
    assert!(!format!("{writer:?}").contains("hunter2"));
}

/// Care without a key and not in memory, wherever the tests run.
fn leaving_out(folder: &Path) -> (Option<Restored>, Writer, Arc<Status>) {
    let (folder, care) = (Folder::take(&folder.join("state")).expect("taken"), Care::LeftOut);
    let found = read(&folder, &care).unwrap_or_default();
    let (records, ring) = (found.records, found.kept_ring);
    let restored = found.saved.map(|saved| Restored { pools: found.pools, ring: found.ring, saved });
    let status = Arc::<Status>::default();
    let parts = writer::Parts { folder, care, records, ring, known_ring: None, status: Arc::clone(&status) };
    (restored, writer::pair(parts).1, status)
}

#[test]
fn without_a_key_listeners_with_tls_wait_and_the_others_are_restored() {
    let folder = folder();
    let (_, mut writer, _) = leaving_out(folder.path());
    writer.take(Batch { ring: Some(ring(9)), ..batch([kept("ns/a", Some("hunter2"), &["x"])]) });
    writer.save();
    drop(writer);
    assert!(!shows(&file(folder.path()), "hunter2"));
    let (found, ..) = leaving_out(folder.path());
    let found = found.expect("something was kept");
    let [pool] = &found.pools[..] else { panic!("one pool") };
    assert_eq!(pool.waiting, ["secured"]);
    assert_eq!(pool.config.listeners.len(), 1);
    assert_ne!(pool.digest(), kept("ns/a", Some("hunter2"), &["x"]).digest, "not what the controller has");
    assert!(found.ring.is_none());
}

#[test]
fn keys_that_this_start_cannot_open_stay_for_one_that_can() {
    let folder = folder();
    let (right, wrong) = (key(folder.path(), 1), key(folder.path(), 2));
    write(folder.path(), Some(&right), batch([kept("ns/a", Some("hunter2"), &["x"])]));
    let (state, mut writer, _) = open(folder.path(), Some(&wrong));
    assert_eq!(state.restored.expect("kept").pools[0].waiting, ["secured"]);
    writer.take(batch([kept("ns/b", None, &["y"])]));
    writer.save();
    drop(writer);
    let found = restored(folder.path(), Some(&right));
    assert_eq!((found.pools.len(), found.pools[0].waiting.len()), (2, 0));
    // Once a controller has sent it whole, it is sealed with the key that there is.
    write(folder.path(), Some(&wrong), batch([kept("ns/a", Some("hunter2"), &["x"])]));
    assert!(restored(folder.path(), Some(&wrong)).pools[0].waiting.is_empty());
}

#[test]
fn keys_in_the_clear_are_sealed_once_there_is_a_key() {
    let memory = tempfile::tempdir_in("/dev/shm").expect("/dev/shm is there");
    let pool = || batch([kept("ns/a", Some("hunter2"), &["x"])]);
    write(memory.path(), None, pool());
    assert!(shows(&file(memory.path()), "hunter2"), "the folder is in memory");
    assert!(restored(memory.path(), None).pools[0].waiting.is_empty());
    let key = key(memory.path(), 1);
    assert!(restored(memory.path(), Some(&key)).pools[0].waiting.is_empty());
    write(memory.path(), Some(&key), pool());
    assert!(!shows(&file(memory.path()), "hunter2"));
}

#[test]
fn nothing_is_written_where_nothing_changed() {
    let folder = folder();
    let key = key(folder.path(), 1);
    let all = || Batch { ring: Some(ring(9)), ..batch([kept("ns/a", Some("hunter2"), &["x"])]) };
    write(folder.path(), Some(&key), all());
    let before = file(folder.path());
    let (_state, mut writer, status) = open(folder.path(), Some(&key));
    for unchanged in [all(), gone("ns/unknown"), Batch::default()] {
        writer.take(unchanged);
        writer.save();
    }
    assert_eq!((status.state_writes(), file(folder.path()) == before), (0, true));
    writer.take(batch([kept("ns/a", Some("hunter2"), &["x", "y"])]));
    writer.save();
    writer.take(gone("ns/a"));
    writer.save();
    assert_eq!(status.state_writes(), 2);
    drop(writer);
    assert!(restored(folder.path(), Some(&key)).pools.is_empty());
}

#[test]
fn a_damaged_file_is_set_aside_and_counts_as_none() {
    let folder = folder();
    let state = folder.path().join("state");
    let record = |pool: &str| {
        let config = PoolConfig { pool: pool.into(), ..PoolConfig::default() };
        let update = PoolUpdate { config: Some(config), ..PoolUpdate::default() };
        Bytes::from(format::Record { update: Some(update), keys: None }.encode_to_vec())
    };
    let framed = |pools| format::encode(&Stored { pools, ring: None }).expect("small");
    let damaged = [
        Vec::new(),
        b"a diary".to_vec(),
        framed(vec![Bytes::from_static(b"\xff\xff")]),
        framed(vec![record("")]),
        framed(vec![record("ns/a"), record("ns/a")]),
    ];
    for bytes in damaged {
        fs::create_dir_all(&state).expect("made");
        Folder::take(&state).expect("taken").write(&bytes).expect("written");
        let (opened, mut writer, status) = open(folder.path(), None);
        assert!(opened.restored.is_none());
        assert_eq!(fs::read(state.join(ASIDE)).expect("set aside"), bytes);
        writer.take(batch([kept("ns/a", None, &["x"])]));
        writer.save();
        assert_eq!(status.state_writes(), 1, "and the next configuration is kept");
    }
}

#[test]
fn sets_and_secrets_of_any_bytes_are_no_panic() {
    let contents = vec![BackendSetContent { set: "web".into(), digest: 1, backends: vec![backend("x"); 2] }];
    let config = kept("ns/a", Some("hunter2"), &[]).config;
    let update =
        PoolUpdate { config: Some(PoolConfig::clone(&config)), sets: contents, ..PoolUpdate::default() };
    for plain in [&b""[..], b"\xff", b"\x0a\x01k", b"\x0a\x01k\x0a\x01k"] {
        let keys = Some(Secret { sealed: Vec::new(), plain: plain.to_vec() });
        let record = format::Record { update: Some(update.clone()), keys };
        let pool = record::open(record.encode_to_vec().into(), &Care::LeftOut).expect("a record");
        // One key for one certificate, or the listener waits.
        assert_eq!(pool.waiting.is_empty(), plain == b"\x0a\x01k", "{plain:?}");
        assert_eq!(pool.sets["web"].backends().count(), 1);
    }
}

proptest::proptest! {
    #[test]
    fn a_record_of_any_bytes_is_read_or_refused(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        for care in [Care::LeftOut, Care::Memory] {
            if let Ok(pool) = record::open(bytes.clone().into(), &care) {
                proptest::prop_assert!(!pool.config.pool.is_empty());
            }
        }
    }

    #[test]
    fn a_record_that_is_damaged_anywhere_is_no_panic(at in 0..10_000_usize, byte in 0..=255_u8) {
        let mut bytes = record::encode(&kept("ns/a", Some("hunter2"), &["x"]), &Care::Memory).to_vec();
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(pool) = record::open(bytes.into(), &Care::Memory) {
            let _ = Replica::default().restore(pool);
        }
    }
}

#[test]
fn a_disk_that_fails_is_counted_and_what_was_not_written_is_tried_again() {
    let folder = folder();
    let (_state, mut writer, status) = open(folder.path(), None);
    // Also for root: a folder cannot be removed like a file.
    let blocked = folder.path().join("state/last-good.new");
    fs::create_dir_all(blocked.join("full")).expect("made");
    writer.take(batch([kept("ns/a", None, &["x"])]));
    writer.save();
    writer.save();
    assert_eq!((status.state_writes(), status.state_write_failures()), (0, 2));
    fs::remove_dir_all(&blocked).expect("removed");
    writer.save();
    writer.save();
    assert_eq!((status.state_writes(), status.state_write_failures()), (1, 2));
    drop(writer);
    assert_eq!(restored(folder.path(), None).pools.len(), 1);
}

#[test]
fn the_time_of_the_file_moves_on_while_the_proxy_is_in_step_alone() {
    let folder = folder();
    write(folder.path(), None, batch([kept("ns/a", None, &["x"])]));
    let path = folder.path().join("state").join(FILE);
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let file = fs::File::options().write(true).open(&path).expect("ours");
    file.set_modified(old).expect("set");
    let (state, writer, status) = open(folder.path(), None);
    assert_eq!(state.restored.expect("kept").saved, old);
    let time = || fs::metadata(&path).and_then(|status| status.modified()).expect("there");
    writer.touch();
    assert_eq!(time(), old);
    status.in_step();
    writer.touch();
    assert!(time() > old);
}

#[test]
fn a_restored_configuration_is_as_old_as_its_file_until_a_controller_confirms_it() {
    let status = Status::default();
    let hour = Duration::from_secs(3600);
    status.restored(SystemTime::now() - hour);
    let age = status.config_age().expect("known");
    assert!((hour..hour * 2).contains(&age) && !status.is_in_step(), "{age:?}");
    status.lost();
    assert!(status.config_age() >= Some(hour) && status.restored_from().is_some());
    // Of a clock that was set back.
    status.restored(SystemTime::now() + hour);
    assert!(status.config_age() < Some(hour));
    status.in_step();
    assert_eq!((status.config_age(), status.restored_from()), (Some(Duration::ZERO), None));
    let at = |seconds| crate::config::written(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    assert_eq!(at(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
    assert!(at(u64::from(u32::MAX) * 1000).ends_with("GMT"), "a clock that is wrong is no panic");
}

/// A controller's update with this configuration and the backend "z".
fn sent(config: &PoolConfig) -> ControllerMessage {
    let backends = vec![backend("z")];
    let set = BackendSetContent { set: "web".into(), digest: weir_proto::digest::set(&backends), backends };
    let update = PoolUpdate {
        config: Some(config.clone()),
        config_digest: weir_proto::digest::config(config),
        sets: vec![set],
        kept: Vec::new(),
    };
    let payload = update.encode_to_vec().into();
    let version = Some(Version { epoch: 1, sequence: 2 });
    let chunk = ConfigChunk { pool: config.pool.clone(), version, index: 0, last: true, payload };
    ControllerMessage { body: Some(FromController::ConfigChunk(chunk)) }
}

/// In force as it was found.
fn replica_of(found: Restored) -> Replica {
    let mut replica = Replica::default();
    for pool in found.pools {
        let name = pool.config.pool.clone();
        assert_eq!(replica.restore(pool), ["web"]);
        assert!(replica.accepted(&name).is_none(), "nobody asked");
    }
    replica
}

#[test]
fn what_is_restored_is_claimed_as_it_is_held_but_for_pools_in_part() {
    let folder = folder();
    let (right, wrong) = (key(folder.path(), 1), key(folder.path(), 2));
    let pools = [kept("ns/a", None, &["x"]), kept("ns/b", Some("hunter2"), &["y"])];
    write(folder.path(), Some(&right), batch(pools.clone()));
    let mut replica = replica_of(restored(folder.path(), Some(&right)));
    let known = replica.begin_stream("me").known;
    assert_eq!(known.len(), 2);
    for (known, kept) in known.iter().zip(&pools) {
        assert_eq!((&known.pool, known.config_digest), (&kept.config.pool, kept.digest));
        assert_eq!(known.sets[0].digest, kept.sets[0].1.digest());
    }

    let mut replica = replica_of(restored(folder.path(), Some(&wrong)));
    let known: Vec<_> = replica.begin_stream("me").known.into_iter().map(|known| known.pool).collect();
    assert_eq!(known, ["ns/a"]);
    assert!(replica.keepsake("ns/b").is_none(), "what is in the file is more");
    assert!(matches!(replica.keepsake("ns/a"), Some(Some(_))));
    assert!(matches!(replica.keepsake("ns/gone"), Some(None)));
    // The pool has no TLS any more: what came in part is all that there is.
    let (config, _) = replica.in_force("ns/b").expect("restored");
    let message = sent(&PoolConfig::clone(config));
    replica.on_message(message).expect("no breach");
    let Some(Some(kept)) = replica.keepsake("ns/b") else { panic!("whole now") };
    assert_eq!(kept.sets[0].1.backends().next().map(|backend| backend.id.as_str()), Some("z"));
    assert_eq!(replica.begin_stream("me").known.len(), 2);
}

#[test]
fn members_of_a_source_that_was_refused_are_not_kept() {
    let folder = folder();
    write(folder.path(), None, batch([kept("ns/a", None, &["x"])]));
    let mut replica = replica_of(restored(folder.path(), None));
    let mut config = PoolConfig::clone(replica.in_force("ns/a").expect("restored").0);
    config.backend_sets[0].source = "another Service".into();
    replica.on_message(sent(&config)).expect("no breach");
    assert!(replica.keepsake("ns/a").is_none(), "the file keeps the members that serve");
    replica.accepted("ns/a");
    assert!(matches!(replica.keepsake("ns/a"), Some(Some(_))));
}

#[tokio::test]
async fn the_writer_asks_once_in_its_interval_and_takes_the_newest() {
    let folder = folder();
    let (state, writer, status) = open(folder.path(), None);
    let deadline = Duration::from_secs(30);
    let asked = || async { tokio::time::timeout(deadline, state.keeper.wanted()).await.expect("asked") };
    let begun = std::time::Instant::now();
    let task = tokio::spawn(writer.run());
    asked().await;
    assert!(begun.elapsed() < WRITE_INTERVAL, "the first change waits for nothing");
    state.keeper.hand_over(batch([kept("ns/a", None, &["x"])]));
    asked().await;
    assert!(begun.elapsed() >= WRITE_INTERVAL);
    state.keeper.hand_over(batch([kept("ns/a", None, &["x", "y"])]));
    asked().await;
    assert_eq!(status.state_writes(), 2);
    task.abort();
    let _ = task.await;
    assert_eq!(restored(folder.path(), None).pools[0].sets["web"].backends().count(), 2);
}

use super::*;
use prost::Message as _;
use weir_proto::digest;
use weir_proto::push::{BackendSet, BackendSetContent, PoolRemoved, PoolUpdate, SetDelta, Synced};

fn version(sequence: u64) -> Option<Version> {
    Some(Version { epoch: 1, sequence })
}

fn backend(id: &str) -> Backend {
    Backend { id: id.into(), address: "10.0.0.1:80".into(), weight: 1, ..Backend::default() }
}

fn message(body: FromController) -> ControllerMessage {
    ControllerMessage { body: Some(body) }
}

fn update(pool: &str, backends: &[&str]) -> PoolUpdate {
    let set = BackendSet { name: "web".into(), ..BackendSet::default() };
    let config = PoolConfig { pool: pool.into(), backend_sets: vec![set], ..PoolConfig::default() };
    let backends: Vec<_> = backends.iter().map(|id| backend(id)).collect();
    let digest = digest::set(&backends);
    PoolUpdate {
        config_digest: digest::config(&config),
        config: Some(config),
        sets: vec![BackendSetContent { set: "web".into(), digest, backends }],
        kept: Vec::new(),
    }
}

fn chunk(pool: &str, sequence: u64, index: u32, last: bool, payload: Vec<u8>) -> ControllerMessage {
    let payload = payload.into();
    message(FromController::ConfigChunk(ConfigChunk {
        pool: pool.into(),
        version: version(sequence),
        index,
        last,
        payload,
    }))
}

fn delta(base: u64, to: u64, added: &str, after: &[&str]) -> ControllerMessage {
    let after: Vec<_> = after.iter().map(|id| backend(id)).collect();
    message(FromController::BackendDelta(BackendDelta {
        pool: "p".into(),
        base: version(base),
        version: version(to),
        sets: vec![SetDelta {
            set: "web".into(),
            upserted: vec![backend(added)],
            removed: Vec::new(),
            digest: digest::set(&after),
        }],
    }))
}

/// A replica that holds pool "p" at version 2, with backend "a".
fn settled() -> Replica {
    let mut replica = Replica::default();
    let whole = chunk("p", 2, 0, true, update("p", &["a"]).encode_to_vec());
    let events = replica.on_message(whole).expect("no breach");
    assert!(matches!(&events[1], Event::Configured { pool, .. } if pool == "p"), "{events:?}");
    replica.accepted("p").expect("an acknowledgement is due");
    replica
}

fn live(replica: &Replica) -> Vec<&str> {
    replica.backends("p", "web").map(|backend| backend.id.as_str()).collect()
}

fn is_request(event: &Event) -> bool {
    matches!(event, Event::Reply(ToController::SnapshotRequest(_)))
}

#[test]
fn a_delta_during_an_update_is_live_at_once_and_acknowledged_with_the_update() {
    let mut replica = settled();
    let payload = update("p", &["a", "b"]).encode_to_vec();
    let (first, rest) = payload.split_at(10);
    replica.on_message(chunk("p", 4, 0, false, first.to_vec())).expect("no breach");
    let events = replica.on_message(delta(4, 6, "c", &["a", "b", "c"])).expect("no breach");
    assert_eq!(events, [Event::BackendsChanged { pool: "p".into(), sets: vec!["web".into()] }]);
    assert_eq!(live(&replica), ["a", "c"], "unchecked, for b is still on its way");
    assert_eq!(replica.ack("p"), None);
    let events = replica.on_message(chunk("p", 4, 1, true, rest.to_vec())).expect("no breach");
    assert!(matches!(&events[1], Event::BackendsChanged { .. }), "the configuration is equal: {events:?}");
    assert_eq!(live(&replica), ["a", "b", "c"]);
    let Some(ToController::Ack(ack)) = replica.ack("p") else { panic!("due now") };
    assert_eq!(ack.version, version(6));
}

#[test]
fn what_is_out_of_step_is_asked_for_and_what_came_serves_on() {
    let cases = [
        ("a delta from another base", delta(1, 4, "b", &["a", "b"]), vec!["a"]),
        ("a digest that does not match", delta(2, 4, "b", &["b"]), vec!["a", "b"]),
        ("a chunk out of order", chunk("p", 4, 1, true, Vec::new()), vec!["a"]),
        ("an update that cannot be decoded", chunk("p", 4, 0, true, vec![0xff]), vec!["a"]),
        ("an update of another pool", chunk("p", 4, 0, true, update("q", &[]).encode_to_vec()), vec!["a"]),
    ];
    for (what, wrong, serves) in cases {
        let mut replica = settled();
        if what == "a chunk out of order" {
            replica.on_message(chunk("p", 6, 0, false, vec![1])).expect("no breach");
        }
        let events = replica.on_message(wrong).expect("no breach");
        assert!(events.iter().any(is_request), "{what}: {events:?}");
        assert_eq!(live(&replica), serves, "{what}");
        assert_eq!(replica.ack("p"), None, "{what}");
        // What was under way before the request arrived is applied and not answered with another one.
        let events = replica.on_message(delta(8, 9, "z", &[])).expect("no breach");
        assert!(!events.iter().any(is_request), "{what}: {events:?}");
        replica.on_message(chunk("p", 10, 0, true, update("p", &["n"]).encode_to_vec())).expect("no breach");
        assert_eq!(live(&replica), ["n"], "{what}");
        assert!(replica.ack("p").is_some(), "{what}");
    }
}

#[test]
fn a_refused_configuration_keeps_the_one_in_force_with_its_sets() {
    let mut replica = settled();
    let (_, good) = replica.in_force("p").expect("accepted");
    let mut other = update("p", &[]);
    other.config.as_mut().expect("there").backend_sets[0].name = "api".into();
    other.sets[0].set = "api".into();
    other.config_digest += 1;
    replica.on_message(chunk("p", 4, 0, true, other.encode_to_vec())).expect("no breach");
    let Some(ToController::Nack(nack)) = replica.refused("p", "f".into(), "r".into()) else { panic!("due") };
    assert_eq!(nack.version, version(4));
    assert_eq!(replica.in_force("p").map(|(_, digest)| digest), Some(good));
    assert_eq!(live(&replica), ["a"]);
    assert_eq!(replica.candidates().map(|config| &*config.pool).collect::<Vec<_>>(), ["p"]);
    assert_eq!(replica.begin_stream("id").known[0].config_digest, good, "so that it is sent again");
}

#[test]
fn pools_that_a_stream_does_not_mention_are_forgotten_when_it_is_in_step() {
    let mut replica = settled();
    replica.begin_stream("id");
    let confirm = BackendDelta { pool: "p".into(), version: version(8), ..BackendDelta::default() };
    replica.on_message(message(FromController::BackendDelta(confirm))).expect("no breach");
    let synced = |pools| message(FromController::Synced(Synced { pools, keep_unmentioned: false }));
    assert_eq!(replica.on_message(synced(1)), Ok(vec![Event::Synced]));
    assert_eq!(replica.state("p").and_then(|(version, _)| version), version(8));
    replica.begin_stream("id");
    let part = message(FromController::Synced(Synced { pools: 0, keep_unmentioned: true }));
    assert_eq!(replica.on_message(part), Ok(vec![Event::Synced]), "it may not be gone");
    replica.begin_stream("id");
    assert_eq!(replica.on_message(synced(1)), Ok(vec![Event::Synced]), "what was said of one was lost");
    replica.begin_stream("id");
    let events = replica.on_message(synced(0)).expect("no breach");
    assert_eq!(events, [Event::Removed { pool: "p".into() }, Event::Synced]);
    let gone = message(FromController::PoolRemoved(PoolRemoved { pool: "p".into(), version: None }));
    assert_eq!(replica.on_message(gone), Ok(Vec::new()));
}

#[test]
fn a_pool_that_waits_to_be_sent_whole_is_reported_without_a_version() {
    let mut replica = settled();
    let version_told = |replica: &Replica| replica.digest_report("p").map(|report| report.version);
    assert_eq!(version_told(&replica), Some(version(2)));
    replica.on_message(delta(5, 6, "b", &["a", "b"])).expect("no breach");
    assert_eq!(version_told(&replica), Some(None), "its removal may be what was lost");
    replica.on_message(chunk("p", 7, 0, false, vec![1])).expect("no breach");
    assert_eq!(version_told(&replica), Some(None));
    assert_eq!(version_told(&Replica::default()), None);
}

#[test]
fn a_removal_that_comes_behind_the_pool_sent_after_it_removes_nothing() {
    let removal = |version| message(FromController::PoolRemoved(PoolRemoved { pool: "p".into(), version }));
    let of_another_process = Some(Version { epoch: 2, sequence: 1 });
    for (last, is_gone) in
        [(version(1), false), (version(2), true), (version(3), true), (of_another_process, true)]
    {
        let mut replica = settled();
        let gone = Event::Removed { pool: "p".into() };
        let events: Vec<Event> = is_gone.then_some(gone).into_iter().collect();
        assert_eq!(replica.on_message(removal(last)), Ok(events), "{last:?}");
        assert_eq!(replica.pools().count(), usize::from(!is_gone), "{last:?}");
    }
}

#[test]
fn pools_that_do_not_fit_the_hello_forget_the_stream_before_as_well() {
    let mut replica = Replica::default();
    let pad = "x".repeat(MESSAGE_BYTES_MAX / 2 / 4);
    let names: Vec<String> = (0..6).map(|n| format!("{n}{pad}")).collect();
    for name in &names {
        let payload = update(name, &["a"]).encode_to_vec();
        let count = payload.len().div_ceil(CHUNK_BYTES_MAX);
        for (index, part) in payload.chunks(CHUNK_BYTES_MAX).enumerate() {
            let (index, last) = (u32::try_from(index).expect("few"), index + 1 == count);
            replica.on_message(chunk(name, 2, index, last, part.to_vec())).expect("no breach");
        }
        replica.accepted(name).expect("an acknowledgement is due");
    }
    let last = names.last().expect("there are six");
    replica.on_message(chunk(last, 4, 0, false, vec![1; 9])).expect("no breach");
    let hello = replica.begin_stream("id");
    assert!(hello.known.len() < names.len(), "the last pools are left out");
    assert_eq!(replica.state(last).map(|(version, _)| version), Some(None));
    assert_eq!(replica.ack(last), None, "its version is of the stream before");
    replica.on_message(chunk(last, 2, 0, false, vec![1])).expect("the bytes under way are counted anew");
}

#[test]
fn limits_hold_at_the_limit_and_break_one_past_it() {
    let sized = |bytes| chunk("p", 2, 0, false, vec![0; bytes]);
    assert!(Replica::default().on_message(sized(CHUNK_BYTES_MAX)).is_ok());
    let past = Replica::default().on_message(sized(CHUNK_BYTES_MAX + 1));
    assert!(matches!(past, Err(Breach::Limit { limit: CHUNK_BYTES_MAX, .. })));

    let mut many = settled();
    for n in 1..POOLS_MAX {
        many.on_message(chunk(&format!("p{n}"), 2, 0, false, Vec::new())).expect("within the limit");
    }
    let past = many.on_message(chunk("one more", 2, 0, false, Vec::new()));
    assert!(matches!(past, Err(Breach::Limit { limit: POOLS_MAX, .. })));

    let mut large = Replica::default();
    let chunks = u32::try_from(POOL_UPDATE_BYTES_MAX / CHUNK_BYTES_MAX).expect("few");
    for index in 0..chunks {
        large.on_message(chunk("p", 2, index, false, vec![0; CHUNK_BYTES_MAX])).expect("within the limit");
    }
    let past = large.on_message(chunk("p", 2, chunks, false, vec![0]));
    assert!(matches!(past, Err(Breach::Limit { limit: POOL_UPDATE_BYTES_MAX, .. })));
    assert!(large.on_message(chunk("p", 4, 0, false, Vec::new())).is_ok(), "a new update drops the old one");

    let mut held = settled();
    held.on_message(chunk("p", 4, 0, false, vec![1])).expect("no breach");
    for n in 0..DELTAS_HELD_MAX as u64 {
        let events = held.on_message(delta(4 + n, 5 + n, "b", &[])).expect("no breach");
        assert!(!events.iter().any(is_request), "{n}");
    }
    let last = 4 + DELTAS_HELD_MAX as u64;
    let events = held.on_message(delta(last, last + 1, "b", &[])).expect("no breach");
    assert!(events.iter().any(is_request));
}

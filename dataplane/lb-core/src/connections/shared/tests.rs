use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const KEEP: Keep = Keep { idle_max: 100, idle_timeout: Duration::from_secs(60), warm_min: 0 };

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Connections that may have so many streams, opened at second 0.
fn open(streams_max: &[usize]) -> (Shared<usize>, Vec<ConnectionId>) {
    let mut shared = Shared::default();
    let ids = streams_max.iter().map(|max| shared.add(secs(0), *max)).collect();
    (shared, ids)
}

fn take(shared: &mut Shared<usize>) -> Option<ConnectionId> {
    shared.take(|max| *max).map(|(id, _)| id)
}

#[test]
fn a_request_takes_the_connection_with_the_fewest_streams_that_has_room() {
    let (mut shared, ids) = open(&[3, 1, 2]);
    let taken: Vec<_> = (0..7).map(|_| take(&mut shared)).collect();
    let wanted = [0, 1, 2, 0, 2, 0].map(|at| Some(ids[at]));
    assert_eq!((&taken[..6], taken[6]), (&wanted[..], None), "to the limit of each and no further");
    assert_eq!(shared.streams(), 6);
    shared.done(secs(1), ids[1]);
    assert_eq!(take(&mut shared), Some(ids[1]));
    let (mut none, _) = open(&[0]);
    assert_eq!((take(&mut none), take(&mut Shared::default())), (None, None));
}

#[test]
fn one_that_is_closing_keeps_its_streams_and_takes_no_more() {
    let (mut shared, ids) = open(&[5, 5]);
    assert_eq!(take(&mut shared), Some(ids[0]));
    shared.close(ids[0]);
    assert_eq!((take(&mut shared), take(&mut shared)), (Some(ids[1]), Some(ids[1])));
    assert_eq!((shared.len(), shared.get(ids[0])), (2, Some(&5)), "its stream goes on");
    shared.done(secs(1), ids[0]);
    assert_eq!((shared.len(), shared.get(ids[0])), (1, None), "and it goes with the last");
    let (mut idle, ids) = open(&[5]);
    idle.close(ids[0]);
    assert!(idle.is_empty(), "one without streams goes at once");
    idle.close(ids[0]);
    idle.done(secs(1), ids[0]);
}

#[test]
fn one_that_broke_is_gone_and_its_streams_say_nothing() {
    let (mut shared, ids) = open(&[5, 7]);
    assert_eq!(take(&mut shared), Some(ids[0]));
    assert_eq!((shared.remove(ids[0]), shared.remove(ids[0])), (Some(5), None));
    shared.done(secs(1), ids[0]);
    assert_eq!((shared.len(), shared.streams()), (1, 0));
    assert_ne!(shared.add(secs(2), 9), ids[0], "a name is not given twice");
}

#[test]
fn idle_ones_are_closed_in_time_but_for_the_warm_ones() {
    for (now, warm_min, idle_max, left) in [
        (59, 0, 9, 4),
        (60, 0, 9, 2),
        (60, 2, 9, 2),
        (60, 3, 9, 3),
        (60, 9, 9, 4),
        (70, 0, 9, 1),
        (1, 0, 1, 2),
    ] {
        // One has a stream; two are idle since the start, one since second 10.
        let (mut shared, ids) = open(&[1, 1, 1, 1]);
        for _ in 0..2 {
            let _ = take(&mut shared);
        }
        shared.done(secs(10), ids[1]);
        let keep = Keep { warm_min, idle_max, ..KEEP };
        let closed = shared.expire(secs(now), &keep, |_| true);
        assert_eq!((shared.len(), closed), (left, 4 - left), "{warm_min} warm of {idle_max} at {now}");
        assert!(shared.get(ids[0]).is_some(), "one with a stream is not idle");
    }
}

#[test]
fn what_its_backend_closed_is_dropped_when_it_has_no_stream() {
    let (mut shared, ids) = open(&[1, 2]);
    let _ = take(&mut shared);
    let keep = Keep { warm_min: 5, ..KEEP };
    assert_eq!(shared.expire(secs(1), &keep, |_| false), 1);
    assert_eq!((take(&mut shared), shared.lacking(1, &keep)), (None, 4), "nothing that is closing is warm");
    shared.done(secs(2), ids[0]);
    assert!(shared.is_empty());
}

#[test]
fn the_one_that_is_idle_for_longest_is_given_up_and_none_with_a_stream() {
    let (mut shared, ids) = open(&[1, 2, 3]);
    let _ = (take(&mut shared), take(&mut shared));
    shared.done(secs(9), ids[1]);
    assert_eq!((shared.shed(), shared.shed(), shared.shed()), (Some(3), Some(2), None));
}

#[derive(Debug, Clone)]
enum Step {
    Add(usize),
    Take,
    Done(usize),
    Close(usize),
    Remove(usize),
    Expire { warm_min: usize },
    Shed,
    Wait(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0usize..5).prop_map(Step::Add),
        8 => Just(Step::Take),
        6 => (0usize..100).prop_map(Step::Done),
        1 => (0usize..100).prop_map(Step::Close),
        1 => (0usize..100).prop_map(Step::Remove),
        1 => (0usize..3).prop_map(|warm_min| Step::Expire { warm_min }),
        1 => Just(Step::Shed),
        2 => (0u64..40).prop_map(Step::Wait),
    ]
}

#[derive(Debug, Default)]
struct Known {
    streams_max: usize,
    streams: usize,
    is_closing: bool,
}

fn any_of(at: usize, ids: &[ConnectionId]) -> Option<ConnectionId> {
    (!ids.is_empty()).then(|| ids[at % ids.len()])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_connection_has_more_streams_than_it_may_and_none_with_streams_is_lost(
        steps in prop::collection::vec(any_step(), 1..200),
    ) {
        let mut shared = Shared::<usize>::default();
        let mut known = BTreeMap::<ConnectionId, Known>::new();
        let mut streams: Vec<ConnectionId> = Vec::new();
        let mut now = Duration::ZERO;
        for step in steps {
            let ids: Vec<_> = known.keys().copied().collect();
            match step {
                Step::Add(streams_max) => {
                    let id = shared.add(now, streams_max);
                    let before = known.insert(id, Known { streams_max, ..Known::default() });
                    prop_assert!(before.is_none(), "a name is not given twice");
                }
                Step::Take => {
                    let room = known.values().filter(|one| !one.is_closing && one.streams < one.streams_max);
                    let fewest = room.map(|one| one.streams).min();
                    prop_assert_eq!(shared.has_room(|max| *max), fewest.is_some());
                    let taken = take(&mut shared);
                    prop_assert_eq!(taken.map(|id| known[&id].streams), fewest);
                    if let Some(id) = taken {
                        known.get_mut(&id).expect("it is open").streams += 1;
                        streams.push(id);
                    }
                }
                Step::Done(at) => if !streams.is_empty() {
                    let id = streams.swap_remove(at % streams.len());
                    shared.done(now, id);
                    if let Some(one) = known.get_mut(&id) {
                        one.streams -= 1;
                    }
                },
                Step::Close(at) => if let Some(id) = any_of(at, &ids) {
                    shared.close(id);
                    known.get_mut(&id).expect("it is open").is_closing = true;
                },
                Step::Remove(at) => if let Some(id) = any_of(at, &ids) {
                    prop_assert!(shared.remove(id).is_some());
                    known.remove(&id);
                },
                Step::Expire { warm_min } => {
                    let ready = shared.ready();
                    shared.expire(now, &Keep { warm_min, ..KEEP }, |_| true);
                    prop_assert!(shared.ready() >= ready.min(warm_min));
                    let is_old = |(since, _)| now - since >= KEEP.idle_timeout;
                    prop_assert!(shared.ready() <= warm_min || !shared.open.iter().filter_map(Entry::idle).any(is_old));
                    known.retain(|id, one| one.streams > 0 || shared.get(*id).is_some());
                }
                Step::Shed => {
                    let is_idle = known.values().any(|one| one.streams == 0 && !one.is_closing);
                    prop_assert_eq!(shared.shed().is_some(), is_idle);
                    known.retain(|id, one| one.streams > 0 || shared.get(*id).is_some());
                }
                Step::Wait(seconds) => now += secs(seconds),
            }
            known.retain(|_, one| one.streams > 0 || !one.is_closing);
            let found: Vec<_> = shared.open.iter().map(|entry| (entry.id, entry.streams)).collect();
            let wanted: Vec<_> = known.iter().map(|(id, one)| (*id, one.streams)).collect();
            prop_assert_eq!(found, wanted);
        }
    }
}

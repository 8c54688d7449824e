//! What a proxy keeps for a moment, though the controller's first lists do not have it.

use super::*;

const GUARD: Duration = Duration::from_secs(2);

/// A proxy that has `known` from before dials a controller whose lists are two seconds from being believed.
fn resumed(known: Vec<KnownPool>, pools: &[&Arc<Pool>]) -> (Stream, Instant) {
    let mut stream = Stream::open(known, pools);
    let ends = stream.now + GUARD;
    stream.session.guard_until(ends);
    (stream, ends)
}

/// Its set `b` was empty when the store was loaded.
fn emptied(sequence: u64) -> Arc<Pool> {
    let mut emptied =
        Arc::into_inner(pool(sequence, 1, &[("a", backends(2)), ("b", Vec::new())])).expect("the only one");
    emptied.empty_from_start = BTreeSet::from(["b".to_owned()]);
    Arc::new(emptied)
}

fn full() -> Arc<Pool> {
    pool(3, 1, &[("a", backends(2)), ("b", backends(3))])
}

#[test]
fn backends_of_a_set_that_is_empty_from_the_start_are_kept_until_the_guard_ends() {
    let (mut stream, ends) = resumed(vec![known(&full())], &[&emptied(3)]);
    assert_eq!(stream.next(), None, "neither the pool nor Synced");
    assert_eq!(stream.session.due(), Some(ends));
    stream.now = ends - Duration::from_millis(1);
    assert_eq!(stream.next(), None);
    stream.now = ends;
    let update = update(&stream.chunk());
    assert_eq!(update.sets.iter().map(|set| (&*set.set, set.backends.len())).collect::<Vec<_>>(), [("b", 0)]);
    assert!(matches!(stream.next(), Some(ToProxy::Synced(Synced { pools: 1, .. }))));
    assert_eq!((stream.next(), stream.session.due()), (None, None));
}

#[test]
fn backends_that_the_first_list_missed_cost_nothing() {
    let (mut stream, _) = resumed(vec![known(&full())], &[&emptied(3)]);
    assert_eq!(stream.next(), None);
    stream.change(&full());
    assert_eq!(stream.delta().sets.len(), 0, "it has all of them");
    assert!(matches!(stream.next(), Some(ToProxy::Synced(_))));
    assert_eq!((stream.next(), stream.session.due()), (None, None));
}

#[test]
fn a_set_that_an_event_emptied_or_that_was_empty_before_is_not_kept() {
    let by_event = pool(4, 1, &[("a", backends(2)), ("b", Vec::new())]);
    let (mut stream, _) = resumed(vec![known(&full())], &[&by_event]);
    assert_eq!(update(&stream.chunk()).sets[0].backends.len(), 0);
    let (mut stream, _) = resumed(vec![known(&emptied(3))], &[&emptied(4)]);
    assert_eq!(stream.delta().sets.len(), 0);
    assert!(matches!(stream.next(), Some(ToProxy::Synced(_))));
}

#[test]
fn a_pool_that_the_first_list_does_not_have_is_removed_when_the_guard_ends() {
    let (old, new) = (full(), full());
    let mut other = known(&old);
    other.pool = "ns/other".into();
    let (mut stream, ends) = resumed(vec![known(&old), other], &[&new]);
    assert_eq!(stream.delta().pool, "ns/p", "the rest goes on");
    assert_eq!((stream.next(), stream.session.due()), (None, Some(ends)));
    stream.now = ends;
    assert!(matches!(stream.next(), Some(ToProxy::PoolRemoved(removed)) if removed.pool == "ns/other"));
    assert!(matches!(stream.next(), Some(ToProxy::Synced(_))));
    assert_eq!((stream.next(), stream.session.due()), (None, None));
}

#[test]
fn a_pool_that_goes_by_an_event_is_removed_at_once() {
    let (mut stream, _) = resumed(vec![known(&full())], &[&full()]);
    stream.delta();
    assert!(matches!(stream.next(), Some(ToProxy::Synced(_))));
    stream.session.changed(&"ns/p".into(), None);
    assert!(matches!(stream.next(), Some(ToProxy::PoolRemoved(_))));

    let (mut stream, _) = resumed(vec![known(&full())], &[&full()]);
    stream.session.changed(&"ns/p".into(), None);
    assert!(matches!(stream.next(), Some(ToProxy::PoolRemoved(_))), "before anything of it was said too");
}

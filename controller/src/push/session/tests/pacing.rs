//! What is held back, what is not, and what that saves.

use super::*;
use crate::store::Store;
use std::collections::BTreeMap;
use weir_proto::push::BackendState;

const MILLISECOND: Duration = Duration::from_millis(1);

type Members = BTreeMap<String, Backend>;

/// A stream in step with a store, whose proxy acknowledges every chunk at once.
struct Paced {
    store: Arc<Store>,
    pools: BTreeMap<String, (u64, Members)>,
    stream: Stream,
    messages: usize,
    bytes: usize,
}

impl Paced {
    fn new(names: &[&str], members: usize) -> Self {
        let store = Store::new(EPOCH);
        let members: Members = backends(members).into_iter().map(|b| (b.id.clone(), b)).collect();
        let pools = names.iter().map(|name| ((*name).to_owned(), (1, members.clone()))).collect();
        let mut paced = Self { store, pools, stream: Stream::open(Vec::new(), &[]), messages: 0, bytes: 0 };
        paced.put();
        for (name, pool) in paced.store.pools() {
            paced.stream.session.changed(&name, Some(pool));
        }
        paced.drain();
        assert!(paced.stream.session.due().is_none(), "nothing of a first sync is held back");
        (paced.messages, paced.bytes) = (0, 0);
        paced
    }

    fn put(&self) {
        let contents = |(name, (timeout, members)): (&String, &(u64, Members))| {
            let made = pool(1, *timeout, &[("a", members.values().cloned().collect())]);
            (name.clone(), made.contents.clone())
        };
        self.store.replace_all(self.pools.iter().map(contents), Completeness::All);
    }

    /// Of one pool; the store and the stream hear of it.
    fn change(&mut self, name: &str, change: impl FnOnce(&mut u64, &mut Members)) {
        let (timeout, members) = self.pools.get_mut(name).expect("known");
        change(timeout, members);
        self.put();
        self.stream.session.changed(&name.into(), self.store.pool(name));
    }

    /// Sends what there is, and returns its pools.
    fn drain(&mut self) -> Vec<String> {
        let mut pools = Vec::new();
        while let Some(body) = self.stream.next() {
            self.messages += 1;
            self.bytes += prost::Message::encoded_len(&ControllerMessage { body: Some(body.clone()) });
            match body {
                ToProxy::ConfigChunk(chunk) => {
                    self.stream.received(&chunk);
                    pools.push(chunk.pool);
                }
                ToProxy::BackendDelta(delta) => pools.push(delta.pool),
                ToProxy::PoolRemoved(removed) => pools.push(removed.pool),
                _ => {}
            }
        }
        pools
    }

    fn has_sent_all_of(&self, name: &str) -> bool {
        let (target, lane) = (self.store.pool(name), self.stream.session.lanes.get(name));
        match (target, lane) {
            (Some(target), Some(lane)) => lane.sent.as_ref().is_some_and(|sent| sent.is_current(&target)),
            (None, None) => true,
            _ => false,
        }
    }

    fn after(&mut self, time: Duration) {
        self.stream.now += time;
    }

    fn due_in(&self) -> Option<Duration> {
        self.stream.session.due().map(|due| due - self.stream.now)
    }
}

fn add(id: &str) -> impl FnOnce(&mut u64, &mut Members) {
    let added = backend(id);
    move |_, members| drop(members.insert(added.id.clone(), added))
}

#[test]
fn additions_that_follow_closely_go_together_and_those_of_another_pool_go_at_once() {
    let mut paced = Paced::new(&["ns/a", "ns/b"], 2);
    paced.change("ns/a", add("x"));
    assert_eq!(paced.drain(), ["ns/a"], "the first one");
    for id in ["y", "z"] {
        paced.after(MILLISECOND);
        paced.change("ns/a", add(id));
        assert_eq!(paced.drain(), [""; 0], "held back");
        assert_eq!(paced.due_in(), Some(COALESCE_QUIET));
    }
    paced.change("ns/b", add("x"));
    assert_eq!(paced.drain(), ["ns/b"]);
    paced.after(COALESCE_QUIET);
    let delta = paced.stream.delta();
    assert_eq!(delta.sets[0].upserted.iter().map(|b| &*b.id).collect::<Vec<_>>(), ["y", "z"]);
    assert!(paced.has_sent_all_of("ns/a"));
    assert_eq!((paced.drain(), paced.due_in()), (Vec::new(), None));
}

#[test]
fn configurations_are_held_back_as_backends_are() {
    let mut paced = Paced::new(&["ns/a"], 2);
    paced.change("ns/a", |timeout, _| *timeout = 2);
    assert_eq!(paced.drain(), ["ns/a"]);
    for edit in 3..9 {
        paced.after(MILLISECOND);
        paced.change("ns/a", |timeout, _| *timeout = edit);
        assert_eq!(paced.drain(), [""; 0]);
    }
    paced.after(COALESCE_QUIET);
    assert_eq!(paced.drain(), ["ns/a"]);
    assert!(paced.has_sent_all_of("ns/a"));
}

#[test]
fn what_takes_a_backend_away_goes_at_once_with_all_that_waits() {
    let removal = |_: &mut u64, members: &mut Members| drop(members.remove("b00000"));
    let drain = |_: &mut u64, members: &mut Members| {
        members.get_mut("b00000").expect("there").state = BackendState::Draining.into();
    };
    let cases: [fn(&mut u64, &mut Members); 2] = [removal, drain];
    for takes_away in cases {
        let mut paced = Paced::new(&["ns/a"], 2);
        paced.change("ns/a", add("x"));
        paced.drain();
        paced.change("ns/a", add("y"));
        assert_eq!(paced.drain(), [""; 0]);
        paced.change("ns/a", takes_away);
        paced.change("ns/a", add("z"));
        assert_eq!(paced.drain(), ["ns/a"], "the addition behind it does not hold it up");
        assert!(paced.has_sent_all_of("ns/a"));
        assert_eq!(paced.due_in(), None);
    }
}

#[test]
fn a_removed_pool_lets_go_first_what_may_take_over_its_ports() {
    let mut paced = Paced::new(&["ns/a", "ns/b"], 2);
    paced.change("ns/b", add("x"));
    paced.drain();
    paced.change("ns/b", |timeout, _| *timeout = 2);
    paced.pools.remove("ns/a");
    paced.put();
    paced.stream.session.changed(&"ns/a".into(), None);
    assert_eq!(paced.drain(), ["ns/b", "ns/a"]);
    assert_eq!(paced.due_in(), None);
}

#[test]
fn whatever_happens_removals_are_sent_at_once_and_nothing_waits_for_longer_than_the_bound() {
    let names = ["ns/a", "ns/b", "ns/c"];
    for seed in 1..=30_u64 {
        let mut state = seed;
        let mut below = |limit: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % limit
        };
        let mut paced = Paced::new(&names, 3);
        // When the first change that was not sent was made.
        let mut unsent: BTreeMap<&str, Instant> = BTreeMap::new();
        for step in 0..400 {
            paced.after(Duration::from_micros(below(4_000)));
            let name = names[usize::try_from(below(3)).expect("small")];
            let id = format!("b{}", below(6));
            let is_removal = paced.pools[name].1.contains_key(&id) && below(4) == 0;
            let edits = below(5) == 0;
            paced.change(name, |timeout, members| match (is_removal, edits) {
                (true, _) => drop(members.remove(&id)),
                (false, true) => *timeout += 1,
                (false, false) => members.entry(id.clone()).or_insert_with(|| backend(&id)).weight += 1,
            });
            unsent.entry(name).or_insert(paced.stream.now);
            // As the stream's task does: at once, and whenever something is due.
            paced.drain();
            while let Some(due) = paced.stream.session.due().filter(|_| below(3) > 0) {
                paced.stream.now = due;
                paced.drain();
            }
            assert!(!is_removal || paced.has_sent_all_of(name), "seed {seed}, step {step}");
            unsent.retain(|name, _| !paced.has_sent_all_of(name));
            for (name, since) in &unsent {
                let due = paced.stream.session.due().expect("something waits");
                assert!(due > paced.stream.now, "seed {seed}, step {step}: due and not sent");
                let waited = paced.stream.now - *since;
                assert!(
                    waited <= COALESCE_MAX + 4 * MILLISECOND,
                    "seed {seed}, step {step}, {name}: {waited:?}"
                );
            }
        }
        while let Some(due) = paced.stream.session.due() {
            paced.stream.now = due;
            paced.drain();
        }
        assert!(names.iter().all(|name| paced.has_sent_all_of(name)), "seed {seed}");
    }
}

/// Messages and bytes of `count` changes of a set of `begin` backends, one `apart` after the other; the stream's task
/// wakes when something is due.
fn cost(begin: usize, count: usize, apart: Duration, change: impl Fn(usize, &mut Members)) -> (usize, usize) {
    let mut paced = Paced::new(&["ns/a"], begin);
    for n in 0..count {
        let next = paced.stream.now + apart;
        while let Some(due) = paced.stream.session.due().filter(|due| *due < next) {
            paced.stream.now = due;
            paced.drain();
        }
        paced.stream.now = next;
        paced.change("ns/a", |_, members| change(n, members));
        paced.drain();
    }
    while let Some(due) = paced.stream.session.due() {
        paced.stream.now = due;
        paced.drain();
    }
    assert!(paced.has_sent_all_of("ns/a"));
    (paced.messages, paced.bytes)
}

#[test]
fn a_burst_of_changes_becomes_few_messages() {
    let added = |n: usize, members: &mut Members| {
        let added = backend(&format!("10.0.{}.{}:8080", n / 250, n % 250));
        members.insert(added.id.clone(), added);
    };
    // A rolling update: one comes, one goes.
    let replaced = |n: usize, members: &mut Members| {
        if n.is_multiple_of(2) {
            added(n, members);
        } else {
            members.remove(&format!("b{:05}", n / 2));
        }
    };
    let (burst, _) = cost(0, 1_000, Duration::from_micros(100), added);
    assert!(burst <= 3, "1,000 changes in 100 ms: {burst} messages");
    let (messages, bytes) = cost(0, 1_000, MILLISECOND, added);
    assert!(messages <= 12, "the first, and one for each 100 ms: {messages} messages");
    let (apart, apart_bytes) = cost(0, 1_000, COALESCE_QUIET, added);
    assert_eq!(apart, 1_000, "none of them follows another closely");
    let (removing, removing_bytes) = cost(500, 1_000, MILLISECOND, replaced);
    println!("1,000 endpoints, one event each, 1 ms apart: {messages} messages, {bytes} bytes");
    println!("the same without holding back: {apart} messages, {apart_bytes} bytes");
    println!(
        "the same, of a rolling update, where every second one is a removal: {removing} messages, {removing_bytes} bytes"
    );
    assert!(removing <= 501, "each removal at once, and no addition beside it: {removing}");
}

//! `Session` and `Replica` on a simulated stream: pools change at random, messages wait and are taken in any
//! interleaving, the stream breaks and is dialled again, some configurations are refused, some messages get lost.

use crate::fixtures::{Pool, Random, backend};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use weir_controller::push::{Report, Session};
use weir_controller::store::{Completeness, Contents, Store};
use weir_proto::digest;
use weir_proto::limits::{CHUNK_BYTES_IN_FLIGHT_MAX, CHUNKS_IN_FLIGHT_MAX};
use weir_proto::push::controller_message::Body as ToProxy;
use weir_proto::push::proxy_message::Body as FromProxy;
use weir_proto::push::{Backend, ControllerMessage, ProxyMessage};
use weir_proxy::config::replica::{Event, Replica};

const EPOCH: u64 = 99;
const SEEDS: u64 = 40;
const STEPS: usize = 400;

/// A pool on this port is refused by the simulated proxy.
const BAD_PORT: u32 = 666;

struct Simulation {
    random: Random,
    now: Instant,
    pools: BTreeMap<String, Pool>,
    contents: BTreeMap<String, Contents>,
    store: Arc<Store>,
    session: Session,
    to_proxy: VecDeque<ControllerMessage>,
    to_controller: VecDeque<ProxyMessage>,
    proxy: Proxy,
    loses_deltas: bool,
    requests: usize,
}

/// What a proxy serves: only what events told it.
#[derive(Default)]
struct Proxy {
    replica: Replica,
    serving: BTreeMap<String, Served>,
    is_synced: bool,
}

#[derive(Default)]
struct Served {
    config_digest: u64,
    sets: BTreeMap<String, Vec<Backend>>,
}

impl Simulation {
    fn new(seed: u64, loses_deltas: bool) -> Self {
        let store = Store::new(EPOCH);
        store.replace_all([], Completeness::All);
        let mut proxy = Proxy::default();
        let session = dial(&store, &mut proxy);
        Self {
            random: Random(seed),
            now: Instant::now(),
            pools: BTreeMap::new(),
            contents: BTreeMap::new(),
            store,
            session,
            to_proxy: VecDeque::new(),
            to_controller: VecDeque::new(),
            proxy,
            loses_deltas,
            requests: 0,
        }
    }

    fn step(&mut self) {
        self.now += Duration::from_millis(self.random.below(15));
        match self.random.below(16) {
            0..4 => self.change(),
            4..9 => {
                self.send();
            }
            9..12 => self.proxy_takes(),
            12..15 => self.controller_takes(),
            _ if self.random.one_in(8) => self.break_stream(),
            _ => {
                let reports: Vec<_> = self.proxy.replica.digest_reports().collect();
                self.to_controller
                    .extend(reports.into_iter().map(|report| said(FromProxy::DigestReport(report))));
            }
        }
    }

    fn change(&mut self) {
        let name = format!("ns/p{}", self.random.below(5));
        let random = &mut self.random;
        let pool = self.pools.entry(name.clone()).or_insert_with(|| Pool::new(&name, 80, Vec::new()));
        match random.below(10) {
            0 => drop(self.pools.remove(&name)),
            1 => pool.port = if random.one_in(2) { BAD_PORT } else { 80 },
            2 => pool.path = format!("/{}", random.below(3)),
            3 => {
                let set = format!("s{}", random.below(3));
                if pool.sets.remove(&set).is_none() {
                    pool.sets.insert(set, vec![backend("first", 1)]);
                }
            }
            4 => {
                // More than a delta may name, and several chunks.
                let count = random.below(2_000);
                let many = (0..count).map(|n| backend(&format!("b{n}-{:0200}", 0), 1)).collect();
                pool.sets.insert("web".into(), many);
            }
            _ => {
                let nth = random.index(pool.sets.len().max(1));
                if let Some(set) = pool.sets.values_mut().nth(nth) {
                    let id = format!("b{}", random.below(6));
                    let known = set.iter().position(|b| b.id == id);
                    match (known, random.one_in(2)) {
                        (Some(at), true) => drop(set.remove(at)),
                        (Some(at), false) => set[at].weight += 1,
                        (None, _) => set.push(backend(&id, 1)),
                    }
                }
            }
        }
        let before = self.store.pool(&name);
        self.contents.remove(&name);
        self.contents.extend(self.pools.get(&name).map(Pool::contents));
        self.store.replace_all(self.contents.clone(), Completeness::All);
        let after = self.store.pool(&name);
        if before.as_ref().map(|pool| pool.version) != after.as_ref().map(|pool| pool.version) {
            self.session.changed(&name.as_str().into(), after);
        }
    }

    fn send(&mut self) -> bool {
        let Some(message) = self.session.next(self.now) else { return false };
        if self.loses_deltas
            && matches!(message.body, Some(ToProxy::BackendDelta(_)))
            && self.random.one_in(10)
        {
            return true;
        }
        self.to_proxy.push_back(message);
        let chunks = |m: &&ControllerMessage| matches!(m.body, Some(ToProxy::ConfigChunk(_)));
        assert!(self.to_proxy.iter().filter(chunks).count() <= CHUNKS_IN_FLIGHT_MAX);
        let bytes = |m: &ControllerMessage| match &m.body {
            Some(ToProxy::ConfigChunk(chunk)) => chunk.payload.len(),
            _ => 0,
        };
        assert!(self.to_proxy.iter().map(bytes).sum::<usize>() <= CHUNK_BYTES_IN_FLIGHT_MAX);
        true
    }

    fn proxy_takes(&mut self) {
        let Some(message) = self.to_proxy.pop_front() else { return };
        let replies = self.proxy.take(message);
        self.requests +=
            replies.iter().filter(|reply| matches!(reply, FromProxy::SnapshotRequest(_))).count();
        self.to_controller.extend(replies.into_iter().map(said));
    }

    fn controller_takes(&mut self) {
        let Some(message) = self.to_controller.pop_front() else { return };
        let report = self.session.on_message(self.now, message).expect("no breach");
        let diverged = matches!(report, Some(Report::Diverged { .. }));
        assert!(!diverged || self.loses_deltas, "a false alarm: {report:?}");
    }

    fn break_stream(&mut self) {
        self.to_proxy.clear();
        self.to_controller.clear();
        self.session = dial(&self.store, &mut self.proxy);
    }

    fn settle(&mut self) {
        for _ in 0..100_000 {
            let is_quiet = self.to_proxy.is_empty() && self.to_controller.is_empty();
            if !self.send() && is_quiet {
                let Some(due) = self.session.due() else { return };
                self.now = due;
            }
            self.proxy_takes();
            self.controller_takes();
        }
        panic!("the two never stop talking");
    }

    fn check(&self, seed: u64) {
        assert!(self.proxy.is_synced, "seed {seed}");
        let stored = self.store.pools();
        let held: Vec<&str> = self.proxy.replica.pools().collect();
        assert_eq!(held, stored.keys().map(|name| &**name).collect::<Vec<_>>(), "seed {seed}");
        for (name, pool) in &stored {
            let (version, digests) = self.proxy.replica.state(name).expect("held");
            assert_eq!(version, Some(pool.version), "seed {seed}, {name}");
            let digests: BTreeMap<_, _> = digests.into_iter().map(|set| (set.set, set.digest)).collect();
            let served = self.proxy.serving.get(&**name);
            for (set, content) in &pool.contents.sets {
                assert_eq!(digests.get(set), Some(&content.digest), "seed {seed}, {name}/{set}");
                // A refused configuration's own sets are held and not served.
                if let Some(members) = served.and_then(|served| served.sets.get(set)) {
                    assert_eq!(digest::set(members), content.digest, "seed {seed}, live {name}/{set}");
                }
            }
            if pool.contents.config.listeners[0].port != BAD_PORT {
                let served = served.expect("an accepted pool serves");
                assert_eq!(served.config_digest, pool.contents.config_digest, "seed {seed}, {name}");
                assert_eq!(served.sets.len(), pool.contents.sets.len(), "seed {seed}, {name}");
            }
        }
        assert_eq!(self.session.stuck_at(), None, "seed {seed}: something was never acknowledged");
    }
}

impl Proxy {
    fn take(&mut self, message: ControllerMessage) -> Vec<FromProxy> {
        let mut replies = Vec::new();
        for event in self.replica.on_message(message).expect("no breach") {
            match event {
                Event::Reply(reply) => replies.push(reply),
                Event::Welcomed { .. } => {}
                Event::Configured { pool, sets } => replies.extend(self.decide(&pool, &sets)),
                Event::BackendsChanged { pool, sets } => {
                    self.move_backends(&pool, &sets);
                    replies.extend(self.replica.ack(&pool));
                }
                Event::Removed { pool } => drop(self.serving.remove(&pool)),
                Event::Synced => self.is_synced = true,
                Event::Keys(_) => panic!("no keys were given to the store of a simulation"),
                Event::Health(_) | Event::Shares(_) => {}
            }
        }
        replies
    }

    fn decide(&mut self, pool: &str, sets: &[String]) -> Option<FromProxy> {
        let config = Arc::clone(self.replica.candidate(pool).expect("something to decide on"));
        if config.listeners[0].port == BAD_PORT {
            let reply = self.replica.refused(pool, "spec.listeners[0].port".into(), "refused".into());
            self.move_backends(pool, sets);
            return reply;
        }
        let members = |set: &str| self.replica.backends(pool, set).cloned().collect();
        let sets = config.backend_sets.iter().map(|set| (set.name.clone(), members(&set.name))).collect();
        let reply = self.replica.accepted(pool);
        let config_digest = self.replica.in_force(pool).expect("accepted").1;
        self.serving.insert(pool.into(), Served { config_digest, sets });
        reply
    }

    fn move_backends(&mut self, pool: &str, sets: &[String]) {
        let Some(served) = self.serving.get_mut(pool) else { return };
        for set in sets {
            if let Some(members) = served.sets.get_mut(set) {
                *members = self.replica.backends(pool, set).cloned().collect();
            }
        }
    }
}

fn said(body: FromProxy) -> ProxyMessage {
    ProxyMessage { body: Some(body) }
}

fn dial(store: &Store, proxy: &mut Proxy) -> Session {
    let hello = said(FromProxy::Hello(proxy.replica.begin_stream("proxy")));
    proxy.is_synced = false;
    let mut session = Session::open(hello, EPOCH, "controller").expect("a proper Hello");
    for (name, pool) in store.pools() {
        session.changed(&name, Some(pool));
    }
    session
}

#[test]
fn both_ends_agree_whatever_happens_in_between() {
    for seed in 0..SEEDS {
        let mut simulation = Simulation::new(seed, false);
        for _ in 0..STEPS {
            simulation.step();
        }
        simulation.settle();
        simulation.check(seed);
        assert_eq!(simulation.requests, 0, "seed {seed}: no message was lost, so nobody may be out of step");
    }
}

#[test]
fn lost_deltas_are_noticed_and_healed() {
    let mut requests = 0;
    for seed in 0..SEEDS {
        let mut simulation = Simulation::new(seed, true);
        for _ in 0..STEPS {
            simulation.step();
        }
        simulation.loses_deltas = false;
        simulation.settle();
        // A delta that was lost last is not missed by anyone but the controller, whose stuck window closes the stream.
        simulation.break_stream();
        simulation.settle();
        simulation.check(seed);
        requests += simulation.requests;
    }
    assert!(requests > 0, "the loss was never noticed, so this test shows nothing");
}

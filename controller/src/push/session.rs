//! One proxy's stream as a pure state machine: what the proxy has been sent, what it lacks, what goes next.
//!
//! No I/O and no clock: messages and the time come in, messages and reports go out. Nothing is queued but names.
//! Whenever the stream can take a message, [`Session::next`] decides afresh, from the newest state of the pools:
//! a delta of any pool first, then one chunk of one update, if the window has room. So a delta waits for one chunk
//! at most, and a pool that changes faster than the proxy reads costs one message, not many.

use super::report::Report;
use super::update::Update;
use crate::store::{Knowledge, Pool, Refusal};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;
use weir_proto::limits::{CHUNKS_IN_FLIGHT_MAX, POOLS_MAX, PROXY_ID_BYTES_MAX, STUCK_STREAM_TIMEOUT};
use weir_proto::push::controller_message::Body as ToProxy;
use weir_proto::push::proxy_message::Body as FromProxy;
use weir_proto::push::{
    Ack, ChunkReceived, ConfigChunk, ControllerMessage, DigestReport, Hello, Nack, PoolRemoved, ProxyMessage,
    Synced, Version, Welcome,
};

pub(super) use super::update::{Sent, SentSet};

/// Why a stream is closed from this end. The text goes to the proxy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Breach {
    /// The first message was another one.
    #[error("the first message of a stream must be Hello: this proxy does not speak weir.push.v1alpha1")]
    HelloMissing,
    /// Hello twice.
    #[error("Hello came twice on one stream: open a new stream to start again")]
    HelloAgain,
    /// A message without a body, or with one from a later protocol.
    #[error("a message has no body that this controller knows: upgrade the controller before the proxies")]
    Unknown,
    /// Outside 1 to [`PROXY_ID_BYTES_MAX`] bytes.
    #[error("proxy_id has {0} bytes, and must have 1 to {PROXY_ID_BYTES_MAX}: name the proxy after its pod")]
    ProxyId(usize),
    /// More than [`POOLS_MAX`].
    #[error("Hello names {0} pools, more than {POOLS_MAX}: one stream carries no more")]
    TooManyPools(usize),
    /// Not the chunk that was sent first of those in flight.
    #[error("ChunkReceived names chunk {index} of {pool}, which is not the oldest one in flight")]
    ChunkOutOfOrder {
        /// As the proxy said it.
        pool: String,
        /// As the proxy said it.
        index: u32,
    },
    /// A version of another epoch.
    #[error("the version acknowledged for {0} is not of this controller process")]
    ForeignVersion(String),
    /// Nothing was acknowledged for [`STUCK_STREAM_TIMEOUT`].
    #[error("nothing was acknowledged for {} s while messages were in flight: dial again to resume", STUCK_STREAM_TIMEOUT.as_secs())]
    Stuck,
}

/// State of one stream.
#[derive(Debug)]
pub struct Session {
    proxy: Arc<str>,
    epoch: u64,
    welcome: Option<Welcome>,
    lanes: BTreeMap<Arc<str>, Lane>,
    /// Pools to look at before anything else is sent.
    dirty: BTreeSet<Arc<str>>,
    /// Pools whose configuration is to be sent, in order, each once. The first may be partly sent.
    updates: VecDeque<Arc<str>>,
    /// Pools that Synced waits for; `None` once it is sent.
    initial: Option<BTreeSet<Arc<str>>>,
    /// Oldest first, never more than [`CHUNKS_IN_FLIGHT_MAX`].
    chunks: VecDeque<ChunkReceived>,
    /// Pools whose last message is not acknowledged.
    awaiting: BTreeMap<Arc<str>, Version>,
    /// Last acknowledgement, or the first message after a time with nothing in flight.
    progress: Option<Instant>,
    too_large: Vec<Report>,
    /// How much of what there is the store knows.
    knowledge: Knowledge,
}

/// One pool of a stream.
#[derive(Debug, Default)]
struct Lane {
    /// What the proxy is to have; `None` when the pool is gone.
    target: Option<Arc<Pool>>,
    /// What it will have when all that was sent has arrived.
    sent: Option<Sent>,
    /// In the middle of being sent; then the lane is the first of `updates`.
    update: Option<Update>,
    is_queued: bool,
    /// The next update holds every set.
    wants_all: bool,
    /// The proxy refused the configuration that `sent` names.
    is_refused: bool,
    /// The store has, or had, or withholds the pool: that it is gone is known and not guessed.
    is_named: bool,
}

impl Lane {
    /// Whether the proxy keeps what it said in its Hello to have, since that may be more than the store knows: a pool
    /// that the store cannot read, or one that would lose a certificate. Where the configuration is the same there
    /// is nothing to lose, and backends go on changing.
    fn is_left_alone(&self, name: &str, knowledge: &Knowledge) -> bool {
        let Some(told) = self.sent.as_ref().filter(|sent| sent.version.is_none()) else { return false };
        match &self.target {
            None => !self.is_named && knowledge.may_exist(name),
            Some(target) => knowledge.may_lack(name) && told.config_digest != target.contents.config_digest,
        }
    }
}

impl Session {
    /// Begins with the proxy's first message.
    ///
    /// # Errors
    /// [`Breach`] when it is no proper Hello.
    pub fn open(first: ProxyMessage, epoch: u64, controller_id: &str) -> Result<Self, Breach> {
        let Some(FromProxy::Hello(hello)) = first.body else {
            return Err(Breach::HelloMissing);
        };
        if hello.proxy_id.is_empty() || hello.proxy_id.len() > PROXY_ID_BYTES_MAX {
            return Err(Breach::ProxyId(hello.proxy_id.len()));
        }
        if hello.known.len() > POOLS_MAX {
            return Err(Breach::TooManyPools(hello.known.len()));
        }
        let welcome = Welcome {
            controller_id: controller_id.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            epoch,
            capabilities: Vec::new(),
        };
        let mut session = Self {
            proxy: hello.proxy_id.as_str().into(),
            epoch,
            welcome: Some(welcome),
            lanes: BTreeMap::new(),
            dirty: BTreeSet::new(),
            updates: VecDeque::new(),
            initial: Some(BTreeSet::new()),
            chunks: VecDeque::new(),
            awaiting: BTreeMap::new(),
            progress: None,
            too_large: Vec::new(),
            knowledge: Knowledge::all(),
        };
        session.learn(hello);
        Ok(session)
    }

    /// As the proxy named itself.
    #[must_use]
    pub fn proxy(&self) -> &Arc<str> {
        &self.proxy
    }

    /// The pool is now this one (`None`: gone). Between [`Self::open`] and the first [`Self::next`], every pool of
    /// the store must be named.
    pub fn changed(&mut self, name: &Arc<str>, pool: Option<Arc<Pool>>) {
        if pool.is_none() && !self.lanes.contains_key(name) {
            return;
        }
        let lane = self.lanes.entry(Arc::clone(name)).or_default();
        lane.target = pool;
        lane.is_named = true;
        self.dirty.insert(Arc::clone(name));
        if self.welcome.is_some()
            && let Some(initial) = &mut self.initial
        {
            initial.insert(Arc::clone(name));
        }
    }

    /// How much of what there is the store knows. What a proxy may have from before, and the store cannot know, is
    /// left alone.
    pub fn knows(&mut self, knowledge: Knowledge) {
        self.knowledge = knowledge;
    }

    /// The message to send next, decided from the newest state; `None` when there is nothing, or nothing that the
    /// window has room for.
    pub fn next(&mut self, now: Instant) -> Option<ControllerMessage> {
        let body = self.next_body()?;
        if self.is_waiting() && self.progress.is_none() {
            self.progress = Some(now);
        }
        Some(ControllerMessage { body: Some(body) })
    }

    /// Takes a message of the proxy in.
    ///
    /// # Errors
    /// [`Breach`]: the stream must be closed with it. A message about a pool that is gone is not one, for it may
    /// have crossed the removal.
    pub fn on_message(&mut self, now: Instant, message: ProxyMessage) -> Result<Option<Report>, Breach> {
        let report = match message.body {
            Some(FromProxy::Hello(_)) => return Err(Breach::HelloAgain),
            None => return Err(Breach::Unknown),
            Some(FromProxy::Ack(ack)) => self.on_ack(ack)?,
            Some(FromProxy::Nack(nack)) => self.on_nack(nack),
            Some(FromProxy::SnapshotRequest(request)) => {
                let pool = self.resend(&request.pool);
                pool.map(|pool| Report::SnapshotRequested { pool, reason: request.reason })
            }
            Some(FromProxy::DigestReport(report)) => return Ok(self.on_digests(&report)),
            Some(FromProxy::ChunkReceived(received)) => {
                self.on_chunk_received(received)?;
                None
            }
        };
        self.progress = self.is_waiting().then_some(now);
        Ok(report)
    }

    /// When the stream counts as stuck, unless an acknowledgement comes first.
    #[must_use]
    pub fn stuck_at(&self) -> Option<Instant> {
        self.progress.map(|progress| progress + STUCK_STREAM_TIMEOUT)
    }

    /// Pools that could not be sent since the last call.
    pub fn take_too_large(&mut self) -> Vec<Report> {
        std::mem::take(&mut self.too_large)
    }

    fn learn(&mut self, hello: Hello) {
        for known in hello.known {
            let name: Arc<str> = known.pool.into();
            let sets = known.sets.into_iter().map(|s| (s.set, SentSet::Digest(s.digest))).collect();
            let sent = Sent { version: None, config_digest: known.config_digest, config: None, sets };
            self.lanes.insert(Arc::clone(&name), Lane { sent: Some(sent), ..Lane::default() });
            self.dirty.insert(name);
        }
    }

    fn is_waiting(&self) -> bool {
        !self.chunks.is_empty() || !self.awaiting.is_empty()
    }

    fn next_body(&mut self) -> Option<ToProxy> {
        if let Some(welcome) = self.welcome.take() {
            return Some(ToProxy::Welcome(welcome));
        }
        if let Some(body) = self.next_settled() {
            return Some(body);
        }
        if self.initial.as_ref().is_some_and(BTreeSet::is_empty) {
            self.initial = None;
            let pools = self.lanes.values().filter(|lane| lane.target.is_some()).count();
            let pools = u32::try_from(pools).unwrap_or(u32::MAX);
            return Some(ToProxy::Synced(Synced { pools, keep_unmentioned: !self.knowledge.is_sure() }));
        }
        if self.chunks.len() >= CHUNKS_IN_FLIGHT_MAX {
            return None;
        }
        if let Some(chunk) = self.next_chunk() {
            return Some(ToProxy::ConfigChunk(chunk));
        }
        // A pool that could not be sent may have been the last one that a removal or Synced waited for.
        let is_due = self.dirty.iter().any(|name| self.is_movable(name))
            || self.initial.as_ref().is_some_and(BTreeSet::is_empty);
        is_due.then(|| self.next_body()).flatten()
    }

    /// Whether a pool to look at may ask for an update.
    fn is_about_to_serve(&self, name: &Arc<str>) -> bool {
        self.is_movable(name) && self.lanes.get(name).is_some_and(|lane| lane.target.is_some())
    }

    /// Whether a pool to look at is not one that is left alone.
    fn is_movable(&self, name: &Arc<str>) -> bool {
        !self.lanes.get(name).is_some_and(|lane| lane.is_left_alone(name, &self.knowledge))
    }

    fn next_settled(&mut self) -> Option<ToProxy> {
        let mut later = BTreeSet::new();
        let mut body = None;
        while body.is_none()
            && let Some(name) = self.dirty.pop_first()
        {
            if self.must_wait(&name) {
                later.insert(name);
            } else {
                body = self.settle(&name);
            }
        }
        self.dirty.append(&mut later);
        body
    }

    /// Make before break: a pool that is gone is removed once all configurations that wait are sent, so that a pool
    /// of another name takes over its ports and hosts without a moment in which nobody has them.
    ///
    /// Not where the pool is in the middle of being sent, since half of it is worth nothing, nor where the proxy has
    /// no room for another one beside it.
    fn must_wait(&mut self, name: &Arc<str>) -> bool {
        if !self.is_movable(name) {
            self.initial_done(name);
            return true;
        }
        let has_room = self.lanes.len() <= POOLS_MAX;
        let Some(lane) = self.lanes.get_mut(name) else { return false };
        if lane.target.is_some() || lane.sent.is_none() || lane.update.is_some() || !has_room {
            return false;
        }
        lane.is_queued = false;
        self.updates.retain(|queued| queued != name);
        // Names after this one may still ask for an update: they are looked at first.
        let waits = !self.updates.is_empty() || self.dirty.iter().any(|name| self.is_about_to_serve(name));
        if waits && let Some(initial) = &mut self.initial {
            // Synced makes the proxy forget what was not mentioned, and this pool may still come back.
            initial.insert(Arc::clone(name));
        }
        waits
    }

    /// What brings one pool nearer to its target without a chunk; queues it for an update if that takes one.
    fn settle(&mut self, name: &Arc<str>) -> Option<ToProxy> {
        let lane = self.lanes.get_mut(name)?;
        let Some(target) = lane.target.clone() else {
            return self.remove(name);
        };
        let (body, needs_update) = match &mut lane.sent {
            None => (None, true),
            Some(sent) => sent.advance(&target),
        };
        if needs_update || lane.wants_all {
            if !lane.is_queued {
                lane.is_queued = true;
                self.updates.push_back(Arc::clone(name));
            }
        } else if lane.update.is_none() {
            self.initial_done(name);
        }
        if let Some(delta) = &body
            && let Some(lane) = self.lanes.get(name)
            && lane.update.is_none()
        {
            // With an update under way, the proxy acknowledges when that is whole.
            self.awaiting.insert(Arc::clone(name), delta.version.unwrap_or_default());
        }
        body.map(ToProxy::BackendDelta)
    }

    fn remove(&mut self, name: &Arc<str>) -> Option<ToProxy> {
        let lane = self.lanes.remove(name)?;
        self.awaiting.remove(name);
        self.updates.retain(|queued| queued != name);
        self.initial_done(name);
        if !self.is_waiting() {
            self.progress = None;
        }
        let sent = lane.sent?;
        Some(ToProxy::PoolRemoved(PoolRemoved { pool: name.to_string(), version: sent.version }))
    }

    fn initial_done(&mut self, name: &Arc<str>) {
        if let Some(initial) = &mut self.initial {
            initial.remove(name);
        }
    }

    fn next_chunk(&mut self) -> Option<ConfigChunk> {
        loop {
            let name = Arc::clone(self.updates.front()?);
            let lane =
                self.lanes.get_mut(&name).expect("queued pools have lanes until they are removed from both");
            if lane.update.is_none() && !self.begin_update(&name) {
                self.updates.pop_front();
                self.initial_done(&name);
                continue;
            }
            let lane = self.lanes.get_mut(&name).expect("looked up above");
            let update = lane.update.as_mut().expect("begun above");
            let chunk = update.next_chunk(&name);
            if chunk.last {
                lane.update = None;
                lane.is_queued = false;
                let version = lane.sent.as_ref().and_then(|sent| sent.version).unwrap_or_default();
                self.updates.pop_front();
                self.awaiting.insert(Arc::clone(&name), version);
                self.initial_done(&name);
                // The target may have moved on while the chunks went out.
                self.dirty.insert(Arc::clone(&name));
            }
            let (pool, version, index) = (chunk.pool.clone(), chunk.version, chunk.index);
            self.chunks.push_back(ChunkReceived { pool, version, index });
            return Some(chunk);
        }
    }

    /// False when there is nothing left to send for the first pool in the queue.
    fn begin_update(&mut self, name: &Arc<str>) -> bool {
        let Some(lane) = self.lanes.get_mut(name) else { return false };
        let Some(target) = lane.target.clone() else { return false };
        if !lane.wants_all && lane.sent.as_ref().is_some_and(|sent| sent.is_current(&target)) {
            lane.is_queued = false;
            return false;
        }
        let known = if lane.wants_all { None } else { lane.sent.as_ref() };
        match Update::new(&target, known) {
            Ok(update) => {
                lane.update = Some(update);
                lane.sent = Some(Sent::all_of(&target));
                lane.wants_all = false;
                lane.is_refused = false;
                true
            }
            Err(bytes) => {
                lane.is_queued = false;
                self.too_large.push(Report::TooLarge { pool: Arc::clone(name), bytes });
                false
            }
        }
    }

    fn on_ack(&mut self, ack: Ack) -> Result<Option<Report>, Breach> {
        let version = ack.version.unwrap_or_default();
        if version.epoch != self.epoch {
            return Err(Breach::ForeignVersion(ack.pool));
        }
        let Some((pool, lane)) = self.lanes.get_key_value(&*ack.pool) else { return Ok(None) };
        let pool = Arc::clone(pool);
        let is_newest_config = lane.sent.as_ref().is_some_and(|sent| sent.config_digest == ack.config_digest);
        if is_newest_config && let Some(lane) = self.lanes.get_mut(&pool) {
            lane.is_refused = false;
        }
        self.answered(&pool, version);
        Ok(Some(Report::Acked { pool, version, config_digest: ack.config_digest, is_newest_config }))
    }

    fn on_nack(&mut self, nack: Nack) -> Option<Report> {
        let (pool, _) = self.lanes.get_key_value(&*nack.pool)?;
        let pool = Arc::clone(pool);
        if let Some(lane) = self.lanes.get_mut(&pool) {
            lane.is_refused = true;
        }
        self.answered(&pool, nack.version.unwrap_or_default());
        let refusal = Refusal { version: nack.version, field: nack.field, reason: nack.reason };
        Some(Report::Refused { pool, refusal })
    }

    fn answered(&mut self, pool: &Arc<str>, version: Version) {
        if self.awaiting.get(pool).is_some_and(|awaited| awaited.sequence <= version.sequence) {
            self.awaiting.remove(pool);
        }
    }

    fn on_chunk_received(&mut self, received: ChunkReceived) -> Result<(), Breach> {
        if self.chunks.front() != Some(&received) {
            return Err(Breach::ChunkOutOfOrder { pool: received.pool, index: received.index });
        }
        self.chunks.pop_front();
        Ok(())
    }

    fn on_digests(&mut self, report: &DigestReport) -> Option<Report> {
        let (pool, lane) = self.lanes.get_key_value(&*report.pool)?;
        let sent = lane.sent.as_ref()?;
        if lane.update.is_some() || self.awaiting.contains_key(pool) || sent.version != report.version {
            return None;
        }
        let what = sent.divergence(report, lane.is_refused)?;
        let pool = self.resend(&report.pool)?;
        Some(Report::Diverged { pool, what })
    }

    /// Sends the whole pool again, from the beginning if it is being sent.
    fn resend(&mut self, pool: &str) -> Option<Arc<str>> {
        let (name, _) = self.lanes.get_key_value(pool)?;
        let name = Arc::clone(name);
        let lane = self.lanes.get_mut(&name)?;
        lane.update = None;
        lane.wants_all = true;
        self.awaiting.remove(&name);
        self.dirty.insert(Arc::clone(&name));
        Some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::BackendSetContent;
    use crate::store::{Completeness, Contents};
    use std::time::Duration;
    use weir_proto::limits::{CHUNK_BYTES_MAX, DELTA_BACKENDS_MAX};
    use weir_proto::push::{
        Backend, BackendDelta, BackendSet, KnownPool, PoolConfig, SetDigest, SnapshotRequest,
    };

    const EPOCH: u64 = 7;

    fn backend(id: &str) -> Backend {
        Backend { id: id.into(), address: "10.0.0.1:80".into(), weight: 1, ..Backend::default() }
    }

    fn backends(count: usize) -> Vec<Backend> {
        (0..count).map(|n| backend(&format!("b{n:05}"))).collect()
    }

    /// A pool "ns/p" whose configuration differs by `timeout`.
    fn pool(sequence: u64, timeout: u64, sets: &[(&str, Vec<Backend>)]) -> Arc<Pool> {
        let set = |name: &str| BackendSet {
            name: name.into(),
            connect_timeout_ms: timeout,
            ..BackendSet::default()
        };
        let backend_sets = sets.iter().map(|(name, _)| set(name)).collect();
        let config = PoolConfig { pool: "ns/p".into(), backend_sets, ..PoolConfig::default() };
        let config_digest = weir_proto::digest::config(&config);
        let sets = sets
            .iter()
            .map(|(name, members)| ((*name).to_owned(), Arc::new(BackendSetContent::new(members.clone()))));
        let contents =
            Contents { config: Arc::new(config), config_digest, sets: sets.collect(), ..Contents::default() };
        let name: Arc<str> = "ns/p".into();
        Arc::new(Pool { name, version: Version { epoch: EPOCH, sequence: 2 * sequence }, contents })
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
            let mut made =
                Arc::into_inner(pool(sequence, 1, &[("a", backends(members))])).expect("the only one");
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
    fn a_change_of_backends_is_one_delta_from_what_was_sent_last() {
        let old = pool(3, 1, &[("a", vec![backend("1"), backend("2"), backend("3")]), ("b", backends(1))]);
        let mut stream = Stream::open(Vec::new(), &[&old]);
        stream.settle(&old);
        let heavy = Backend { weight: 9, ..backend("2") };
        stream.change(&pool(4, 1, &[("a", Vec::new()), ("b", backends(1))]));
        let new = pool(5, 1, &[("a", vec![heavy.clone(), backend("3"), backend("4")]), ("b", backends(1))]);
        stream.change(&new);
        let delta = stream.delta();
        assert_eq!(
            (delta.base, delta.version),
            (Some(old.version), Some(new.version)),
            "4 was conflated away"
        );
        let [set] = &delta.sets[..] else { panic!("one set differs: {delta:?}") };
        assert_eq!(
            (&set.upserted[..], &set.removed[..]),
            (&[heavy, backend("4")][..], &["1".to_owned()][..])
        );
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
    fn chunks_wait_for_the_window_and_deltas_do_not() {
        // The set is large enough for more chunks than the window has room for.
        let count = (CHUNKS_IN_FLIGHT_MAX + 2) * CHUNK_BYTES_MAX / 20;
        let old = pool(1, 1, &[("big", backends(count)), ("small", backends(1))]);
        let mut stream = Stream::open(Vec::new(), &[&old]);
        let sent: Vec<_> = (0..CHUNKS_IN_FLIGHT_MAX).map(|_| stream.chunk()).collect();
        assert!(sent.iter().all(|chunk| chunk.payload.len() == CHUNK_BYTES_MAX && !chunk.last));
        assert_eq!(stream.next(), None, "the window is full");
        let new = pool(2, 1, &[("big", backends(count)), ("small", backends(2))]);
        stream.change(&new);
        let delta = stream.delta();
        assert_eq!((delta.base, delta.version), (Some(old.version), Some(new.version)));
        assert_eq!(stream.next(), None);
        stream.received(&sent[0]);
        assert_eq!(usize::try_from(stream.chunk().index), Ok(CHUNKS_IN_FLIGHT_MAX));
        assert_eq!(stream.next(), None);
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
        assert_eq!(
            open(hello(vec![KnownPool::default(); POOLS_MAX + 1])),
            Breach::TooManyPools(POOLS_MAX + 1)
        );

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
}

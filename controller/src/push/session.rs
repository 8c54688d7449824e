//! One proxy's stream as a pure state machine: what the proxy has been sent, what it lacks, what goes next.
//!
//! No I/O and no clock: messages and the time come in, messages and reports go out. Nothing is queued but names.
//! Whenever the stream can take a message, [`Session::next`] decides afresh, from the newest state of the pools:
//! a delta of any pool first, then one chunk of one update, if the window has room. So a delta waits for one chunk
//! at most, and a pool that changes faster than the proxy reads costs one message, not many. One that changes faster
//! than anybody needs to know is held back for some milliseconds too ([`pace`]).

mod answers;
mod lane;
mod pace;
mod strays;
mod window;

pub use pace::{COALESCE_MAX, COALESCE_QUIET};

use super::breach::Breach;
use super::report::Report;
use super::update::Update;
use crate::store::{Knowledge, Pool};
use lane::Lane;
use pace::{Pace, Turn};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use weir_proto::limits::{
    HEALTH_CAPABILITY, KEY_RING_CAPABILITY, POOLS_MAX, PROXY_ID_BYTES_MAX, SHARES_CAPABILITY,
    STUCK_STREAM_TIMEOUT, WINDOW_CAPABILITY,
};
use weir_proto::push::controller_message::Body as ToProxy;
use weir_proto::push::proxy_message::Body as FromProxy;
use weir_proto::push::{
    ConfigChunk, ControllerMessage, Hello, KeyRing, PoolRemoved, ProxyMessage, Synced, Version, Welcome,
};
use window::Window;

pub(super) use super::update::{Sent, SentSet, Sets};

/// Longest wait of a removal for configurations ahead of it. Where they change faster than the proxy reads, or the proxy
/// acknowledges nothing, the pool goes all the same, and what takes over its ports may come later.
pub const REMOVAL_WAIT_MAX: Duration = Duration::from_secs(5);

/// State of one stream.
#[derive(Debug)]
pub struct Session {
    proxy: Arc<str>,
    epoch: u64,
    welcome: Option<Welcome>,
    takes_keys: bool,
    health_id: Option<u64>,
    takes_shares: bool,
    /// To be sent before anything of a pool: a port should not begin with keys of its own.
    keys: Option<KeyRing>,
    lanes: BTreeMap<Arc<str>, Lane>,
    /// Pools that changed since Synced, and of which the pace has not been asked.
    heard: BTreeSet<Arc<str>>,
    pace: Pace,
    /// Pools to look at before anything else is sent.
    dirty: BTreeSet<Arc<str>>,
    /// Pools whose configuration is to be sent, in order, each once. The first may be partly sent.
    updates: VecDeque<Arc<str>>,
    /// Pools that Synced waits for; `None` once it is sent.
    initial: Option<BTreeSet<Arc<str>>>,
    chunks: Window,
    /// Pools whose last message is not acknowledged.
    awaiting: BTreeMap<Arc<str>, Version>,
    /// Last acknowledgement, or the first message after a time with nothing in flight.
    progress: Option<Instant>,
    too_large: Vec<Report>,
    /// When the first of what is dirty and waits has waited long enough.
    wait_ends: Option<Instant>,
    /// Until then nothing is taken away that the controller's first lists may only have missed.
    guarded_until: Option<Instant>,
    /// How much of what there is the store knows.
    knowledge: Knowledge,
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
        let is_able = |what: &str| hello.capabilities.iter().any(|capability| capability == what);
        let welcome = Welcome {
            controller_id: controller_id.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            epoch,
            capabilities: [HEALTH_CAPABILITY, WINDOW_CAPABILITY, SHARES_CAPABILITY].map(Into::into).into(),
        };
        let mut session = Self {
            proxy: hello.proxy_id.as_str().into(),
            epoch,
            welcome: Some(welcome),
            takes_keys: is_able(KEY_RING_CAPABILITY),
            health_id: (hello.health_id != 0 && is_able(HEALTH_CAPABILITY)).then_some(hello.health_id),
            takes_shares: is_able(SHARES_CAPABILITY),
            keys: None,
            lanes: BTreeMap::new(),
            heard: BTreeSet::new(),
            pace: Pace::default(),
            dirty: BTreeSet::new(),
            updates: VecDeque::new(),
            initial: Some(BTreeSet::new()),
            chunks: Window::default(),
            awaiting: BTreeMap::new(),
            progress: None,
            too_large: Vec::new(),
            wait_ends: None,
            guarded_until: None,
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

    /// The keys that the proxy shares with others are now these. Not for one that does not take them.
    pub fn keys(&mut self, ring: KeyRing) {
        self.keys = Some(ring).filter(|_| self.takes_keys);
    }

    /// The pool is now this one (`None`: gone). Between [`Self::open`] and the first [`Self::next`], every pool of
    /// the store must be named.
    pub fn changed(&mut self, name: &Arc<str>, pool: Option<Arc<Pool>>) {
        if pool.is_none() && !self.lanes.contains_key(name) {
            return;
        }
        let lane = self.lanes.entry(Arc::clone(name)).or_default();
        if pool.is_some() {
            lane.gone_since = None;
        }
        lane.target = pool;
        lane.is_named = true;
        let Some(initial) = &mut self.initial else {
            self.heard.insert(Arc::clone(name));
            return;
        };
        // What a first sync brings is never held back.
        self.dirty.insert(Arc::clone(name));
        if self.welcome.is_some() {
            initial.insert(Arc::clone(name));
        }
    }

    /// How much of what there is the store knows. What a proxy may have from before, and the store cannot know, is
    /// left alone.
    pub fn knows(&mut self, knowledge: Knowledge) {
        self.knowledge = knowledge;
    }

    /// Before this moment, pools and sets that the proxy has from before and that the controller's first lists do not
    /// have, or have empty, are left as they are: the lists may come from an API server that lags or was restored. Synced
    /// waits for them. Called before the first [`Self::next`].
    pub fn guard_until(&mut self, moment: Instant) {
        self.guarded_until = Some(moment);
    }

    /// The message to send next, decided from the newest state; `None` when there is nothing, or nothing that the
    /// window has room for.
    pub fn next(&mut self, now: Instant) -> Option<ControllerMessage> {
        let body = self.next_body(now)?;
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
            Some(FromProxy::HealthSaid(said)) => return Ok(Some(Report::Health(said))),
            Some(FromProxy::BackendHealth(health)) => return Ok(Some(Report::Backend(health))),
            Some(FromProxy::Demand(demand)) => return Ok(Some(Report::Demand(demand))),
            Some(FromProxy::ChunkReceived(received)) => {
                self.on_chunk_received(received)?;
                None
            }
        };
        self.progress = self.is_waiting().then_some(now);
        Ok(report)
    }

    /// Of a proxy that shares health checks.
    #[must_use]
    pub fn health_id(&self) -> Option<u64> {
        self.health_id
    }

    /// Of a proxy that takes shares of limits.
    #[must_use]
    pub fn shares_id(&self) -> Option<u64> {
        self.health_id.filter(|_| self.takes_shares)
    }

    /// The proxy has every limit whole: there is no other one. Called before the first [`Self::next`].
    pub fn without_shares(&mut self) {
        self.takes_shares = false;
        if let Some(welcome) = &mut self.welcome {
            welcome.capabilities.retain(|capability| capability != SHARES_CAPABILITY);
        }
    }

    /// When the stream counts as stuck, unless an acknowledgement comes first.
    #[must_use]
    pub fn stuck_at(&self) -> Option<Instant> {
        self.progress.map(|progress| progress + STUCK_STREAM_TIMEOUT)
    }

    /// When [`Self::next`] has something to send though nothing happens meanwhile.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        [self.wait_ends, self.pace.due()].into_iter().flatten().min()
    }

    /// Pools that could not be sent since the last call.
    pub fn take_too_large(&mut self) -> Vec<Report> {
        std::mem::take(&mut self.too_large)
    }

    fn learn(&mut self, hello: Hello) {
        for known in hello.known {
            let name: Arc<str> = known.pool.into();
            let sets = known.sets.into_iter().map(|s| (s.set, SentSet::Digest(s.digest)));
            let sets = Sets::Each(sets.collect());
            let sent = Sent { version: None, config_digest: known.config_digest, config: None, sets };
            self.lanes.insert(Arc::clone(&name), Lane { sent: Some(sent), ..Lane::default() });
            self.dirty.insert(name);
        }
    }

    fn is_waiting(&self) -> bool {
        !self.chunks.is_empty() || !self.awaiting.is_empty()
    }

    fn next_body(&mut self, now: Instant) -> Option<ToProxy> {
        if let Some(welcome) = self.welcome.take() {
            return Some(ToProxy::Welcome(welcome));
        }
        if let Some(ring) = self.keys.take() {
            return Some(ToProxy::KeyRing(ring));
        }
        self.admit(now);
        if let Some(body) = self.next_settled(now) {
            return Some(body);
        }
        if self.initial.as_ref().is_some_and(BTreeSet::is_empty) {
            self.initial = None;
            let pools = self.lanes.values().filter(|lane| lane.target.is_some()).count();
            let pools = u32::try_from(pools).unwrap_or(u32::MAX);
            return Some(ToProxy::Synced(Synced { pools, keep_unmentioned: !self.knowledge.is_sure() }));
        }
        if !self.chunks.has_room() {
            return None;
        }
        if let Some(chunk) = self.next_chunk() {
            return Some(ToProxy::ConfigChunk(chunk));
        }
        // A pool that could not be sent may have been the last one that a removal or Synced waited for.
        let is_due = self.dirty.iter().any(|name| self.is_movable(name, now))
            || self.initial.as_ref().is_some_and(BTreeSet::is_empty);
        is_due.then(|| self.next_body(now)).flatten()
    }

    /// Lets those of the pools that changed go whose turn it is.
    fn admit(&mut self, now: Instant) {
        let mut removes = false;
        while let Some(name) = self.heard.pop_first() {
            let Some(lane) = self.lanes.get_mut(&name) else { continue };
            removes |= lane.target.is_none();
            let urgency = lane.urgency();
            if self.pace.changed(&name, &mut lane.beat, urgency, now) == Turn::Now {
                self.dirty.insert(name);
            }
        }
        if removes {
            // What takes over the ports of a pool that is gone must not come behind its removal.
            self.dirty.extend(self.pace.held().cloned());
        }
        while let Some(name) = self.pace.pop_due(now) {
            self.stop_holding(&name);
            self.dirty.insert(name);
        }
    }

    /// Everything of the pool that is held back is being sent.
    fn stop_holding(&mut self, name: &Arc<str>) {
        if let Some(lane) = self.lanes.get_mut(name) {
            self.pace.sent(name, &mut lane.beat);
        }
    }

    /// Whether a pool to look at may ask for an update.
    fn is_about_to_serve(&self, name: &Arc<str>, now: Instant) -> bool {
        self.is_movable(name, now) && self.lanes.get(name).is_some_and(|lane| lane.target.is_some())
    }

    /// Whether a pool to look at is neither left alone nor guarded.
    fn is_movable(&self, name: &Arc<str>, now: Instant) -> bool {
        let is_left_alone = |lane: &Lane| lane.is_left_alone(name, &self.knowledge);
        self.guard_of(name, now).is_none() && !self.lanes.get(name).is_some_and(is_left_alone)
    }

    /// Until when the proxy keeps what it has of the pool, since the first lists may have missed objects. Not where it
    /// has no room for another one beside it.
    fn guard_of(&self, name: &Arc<str>, now: Instant) -> Option<Instant> {
        let has_room = self.lanes.len() <= POOLS_MAX;
        let ends = self.guarded_until.filter(|ends| now < *ends && has_room)?;
        self.lanes.get(name).is_some_and(Lane::would_lose).then_some(ends)
    }

    fn next_settled(&mut self, now: Instant) -> Option<ToProxy> {
        let mut later = BTreeSet::new();
        let mut body = None;
        self.wait_ends = None;
        while body.is_none()
            && let Some(name) = self.dirty.pop_first()
        {
            if self.must_wait(&name, now) {
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
    /// no room for another one beside it, nor for longer than [`REMOVAL_WAIT_MAX`].
    fn must_wait(&mut self, name: &Arc<str>, now: Instant) -> bool {
        if let Some(guard_ends) = self.guard_of(name, now) {
            self.wait(name, guard_ends);
            return true;
        }
        if !self.is_movable(name, now) {
            self.initial_done(name);
            return true;
        }
        let has_room = self.lanes.len() <= POOLS_MAX;
        let Some(lane) = self.lanes.get_mut(name) else { return false };
        if lane.target.is_some() || lane.sent.is_none() || lane.update.is_some() || !has_room {
            return false;
        }
        lane.is_queued = false;
        let due = *lane.gone_since.get_or_insert(now) + REMOVAL_WAIT_MAX;
        self.updates.retain(|queued| queued != name);
        // Names after this one may still ask for an update: they are looked at first.
        let has_others =
            !self.updates.is_empty() || self.dirty.iter().any(|name| self.is_about_to_serve(name, now));
        if !has_others || now >= due {
            return false;
        }
        self.wait(name, due);
        true
    }

    fn wait(&mut self, name: &Arc<str>, due: Instant) {
        self.wait_ends = Some(self.wait_ends.map_or(due, |first| first.min(due)));
        if let Some(initial) = &mut self.initial {
            // Synced makes the proxy forget what was not mentioned, and this pool may still come back.
            initial.insert(Arc::clone(name));
        }
    }

    /// What brings one pool nearer to its target without a chunk; queues it for an update if that takes one.
    fn settle(&mut self, name: &Arc<str>) -> Option<ToProxy> {
        self.stop_holding(name);
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
                let is_held = lane.beat.is_held();
                self.updates.pop_front();
                self.awaiting.insert(Arc::clone(&name), version);
                self.initial_done(&name);
                // The target may have moved on while the chunks went out.
                if !is_held {
                    self.dirty.insert(Arc::clone(&name));
                }
            }
            self.chunks.sent(&chunk);
            return Some(chunk);
        }
    }

    /// False when there is nothing left to send for the first pool in the queue.
    fn begin_update(&mut self, name: &Arc<str>) -> bool {
        self.stop_holding(name);
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
}

#[cfg(test)]
mod tests;

//! The streams between proxies and replicas: who sends what when, and what the network makes of it.

use super::api::NAMESPACE;
use super::chaos::CONTESTED;
use super::link::Pipe;
use super::simulation::{Event, Simulation};
use super::{CONTROLLERS, HEALED, MILLISECOND, SECOND};
use crate::fixtures::Random;
use std::collections::{BTreeMap, VecDeque};
use weir_controller::identity::Identity;
use weir_controller::push::{Conversation, FIRST_SYNC_GUARD, Security, Session};
use weir_proto::limits::{CHUNK_BYTES_IN_FLIGHT_MAX, CHUNKS_IN_FLIGHT_MAX, MESSAGE_BYTES_MAX};
use weir_proto::push::controller_message::Body as ToProxy;
use weir_proto::push::proxy_message::Body as FromProxy;
use weir_proto::push::{ChunkReceived, ConfigChunk, ControllerMessage, ProxyMessage, Version};

/// Of digests. In production they come every half minute; here there is less time.
const DIGESTS_EVERY: u64 = 5 * SECOND;

/// One in so many messages vanishes, in the mode where they do; of removals of pools, which are rare, one in fewer.
const DROPPED_ONE_IN: u64 = 400;
const REMOVALS_DROPPED_ONE_IN: u64 = 4;

/// One in so many comes before others that were sent before it, in the same mode.
const OVERTAKES_ONE_IN: u64 = 200;

/// One stream between a proxy and a replica.
pub(super) struct Stream {
    pub(super) proxy: usize,
    pub(super) controller: usize,
    pub(super) state: StreamState,
    pub(super) down: Pipe<ControllerMessage>,
    pub(super) up: Pipe<ProxyMessage>,
    /// Bytes that may be on their way to the proxy before the sender waits.
    pub(super) window: usize,
    /// The connection is broken, and who is still here does not know: nothing arrives.
    pub(super) is_cut: bool,
    /// A wake-up that is in the queue.
    pub(super) wake_at: Option<u64>,
    /// Up to this moment something kept it from carrying what there was.
    pub(super) troubled_until: u64,
    /// Chunks on the wire, or whose receipt is, with the bytes of each. Oldest first.
    chunks: VecDeque<(ChunkReceived, usize)>,
    /// Of each pool: the highest version sent, and that of the update under way.
    versions: BTreeMap<String, (Version, Version)>,
}

pub(super) enum StreamState {
    /// Hello has not come.
    Dialled,
    /// The replica has not seen everything.
    Waiting(Box<Session>),
    Open(Box<Conversation>),
}

impl Stream {
    fn new(proxy: usize, controller: usize, window: usize) -> Self {
        Self {
            proxy,
            controller,
            state: StreamState::Dialled,
            down: Pipe::default(),
            up: Pipe::default(),
            window,
            is_cut: false,
            wake_at: None,
            troubled_until: 0,
            chunks: VecDeque::new(),
            versions: BTreeMap::new(),
        }
    }

    /// Versions never go back, and what is unacknowledged has a bound.
    fn check(&mut self, message: &ControllerMessage) {
        match &message.body {
            Some(ToProxy::BackendDelta(delta)) => {
                let version = delta.version.expect("every delta has one");
                let (highest, _) = self.versions.entry(delta.pool.clone()).or_default();
                assert!(is_after(version, *highest), "a delta of {} goes back to {version:?}", delta.pool);
                *highest = version;
            }
            Some(ToProxy::ConfigChunk(chunk)) => {
                let version = chunk.version.expect("every chunk has one");
                let (highest, update) = self.versions.entry(chunk.pool.clone()).or_default();
                if chunk.index == 0 {
                    assert!(
                        !is_after(*highest, version),
                        "an update of {} goes back to {version:?}",
                        chunk.pool
                    );
                    (*highest, *update) = (version, version);
                }
                assert_eq!(*update, version, "a chunk of {} is of another update", chunk.pool);
                let ConfigChunk { pool, version, index, payload, .. } = chunk.clone();
                self.chunks.push_back((ChunkReceived { pool, version, index }, payload.len()));
                let (count, bytes) =
                    (self.chunks.len(), self.chunks.iter().map(|(_, bytes)| bytes).sum::<usize>());
                assert!(count <= CHUNKS_IN_FLIGHT_MAX, "{count} chunks are in flight");
                assert!(bytes <= CHUNK_BYTES_IN_FLIGHT_MAX, "{bytes} bytes of chunks are in flight");
            }
            Some(ToProxy::PoolRemoved(removed)) => drop(self.versions.remove(&removed.pool)),
            _ => {}
        }
    }
}

/// Of one epoch, or the first of a stream.
fn is_after(version: Version, before: Version) -> bool {
    (version.epoch == before.epoch || before == Version::default()) && version.sequence > before.sequence
}

/// Not of the begin of a stream, without which there is none.
fn tells_of_pool(message: &ControllerMessage) -> bool {
    let body = &message.body;
    matches!(body, Some(ToProxy::BackendDelta(_) | ToProxy::ConfigChunk(_) | ToProxy::PoolRemoved(_)))
}

impl Simulation {
    pub(super) fn pump_all(&mut self, index: usize) {
        let of_it = self.streams.iter().filter(|(_, stream)| stream.controller == index);
        for stream in of_it.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.pump(stream);
        }
    }

    /// Sends as long as there is something to send, and room for it.
    pub(super) fn pump(&mut self, id: u64) {
        let now = self.now();
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let index = stream.controller;
        let controller = &self.controllers[index];
        if self.postponed(controller.frozen_until, Event::Wake(id)) {
            return;
        }
        self.open(id);
        let mut messages = Vec::new();
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let StreamState::Open(conversation) = &mut stream.state else { return };
        if conversation.stuck_at().is_some_and(|stuck_at| stuck_at <= now) {
            let is_explained = self.mode.drops || stream.is_cut || stream.troubled_until > self.time;
            assert!(is_explained, "stream {id} is stuck");
            self.note(format_args!("stream {id} is stuck"));
            return self.end(id);
        }
        let mut room = stream.window.saturating_sub(stream.down.bytes);
        while room > 0
            && let Some(message) = conversation.next(now)
        {
            room = room.saturating_sub(prost::Message::encoded_len(&message));
            messages.push(message);
        }
        let due = [conversation.due(), conversation.stuck_at()].into_iter().flatten().min();
        messages.into_iter().for_each(|message| self.send_down(id, message));
        if let Some(due) = due {
            let due = self.since_begin(due).max(self.time + 1);
            let stream = self.streams.get_mut(&id).expect("looked up above");
            if stream.wake_at.is_none_or(|at| due < at) {
                stream.wake_at = Some(due);
                self.at(due, Event::Wake(id));
            }
        }
    }

    /// A stream that waited for its replica to see everything.
    fn open(&mut self, id: u64) {
        let now = self.now();
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let controller = &self.controllers[stream.controller];
        let Some(loaded_at) =
            controller.loaded_at.filter(|_| matches!(stream.state, StreamState::Waiting(_)))
        else {
            return;
        };
        let StreamState::Waiting(mut session) = std::mem::replace(&mut stream.state, StreamState::Dialled)
        else {
            unreachable!("matched above")
        };
        session.guard_until(loaded_at + FIRST_SYNC_GUARD);
        let (store, relay) = (&controller.store, &controller.relay);
        let (identity, security) = (Identity::Trusted, Security::plaintext());
        let conversation = Conversation::begin(*session, store, relay, identity, &security, now);
        stream.state = StreamState::Open(Box::new(conversation));
        stream.troubled_until = stream.troubled_until.max(self.time);
        self.note(format_args!("stream {id} is open"));
    }

    pub(super) fn on_up(&mut self, id: u64) {
        let now = self.now();
        let Some(stream) = self.streams.get(&id) else { return };
        if self.postponed(self.controllers[stream.controller].frozen_until, Event::Up(id)) {
            return;
        }
        loop {
            let Some(stream) = self.streams.get_mut(&id) else { return };
            if matches!(stream.state, StreamState::Waiting(_)) {
                break;
            }
            let Some(message) = stream.up.take(self.time) else { break };
            if let Some(FromProxy::ChunkReceived(received)) = &message.body {
                let at = stream.chunks.iter().position(|(sent, _)| sent == received);
                stream.chunks.drain(..at.map_or(0, |at| at + 1));
            }
            let controller = &self.controllers[stream.controller];
            let heard = match &mut stream.state {
                StreamState::Open(conversation) => conversation.hear(now, message),
                StreamState::Dialled | StreamState::Waiting(_) => {
                    let opened = Session::open(message, controller.store.epoch(), &controller.name);
                    opened.map(|session| stream.state = StreamState::Waiting(Box::new(session)))
                }
            };
            if let Err(breach) = heard {
                assert!(self.mode.drops, "a breach on stream {id}: {breach}");
                self.note(format_args!("stream {id}: {breach}"));
                return self.end(id);
            }
        }
        self.pump(id);
    }

    /// The replica ends a stream; its proxy learns that a moment later.
    pub(super) fn end(&mut self, id: u64) {
        let Some(stream) = self.streams.remove(&id) else { return };
        let (proxy, life) = (stream.proxy, self.proxies[stream.proxy].life);
        let delay = self.latency();
        self.after(delay, Event::Closed { proxy, life, stream: id });
    }

    pub(super) fn dial(&mut self, index: usize, life: u64) {
        let proxy = &self.proxies[index];
        if proxy.life != life || proxy.stream.is_some() {
            return;
        }
        if self.postponed(proxy.frozen_until, Event::Dial { proxy: index, life }) {
            return;
        }
        let controller = self.random.index(CONTROLLERS);
        if self.controllers[controller].is_down(self.time) {
            let delay = 100 * MILLISECOND + self.latency();
            return self.after(delay, Event::Dial { proxy: index, life });
        }
        let id = self.id();
        let window = [4 << 10, 64 << 10, 256 << 10][self.random.index(3)];
        self.note(format_args!("proxy {index} dials controller-{controller}: stream {id}"));
        self.counts.streams += 1;
        let proxy = &mut self.proxies[index];
        proxy.stream = Some(id);
        let hello = proxy.follower.begin_stream(&proxy.name);
        self.streams.insert(id, Stream::new(index, controller, window));
        self.send_up(id, FromProxy::Hello(hello));
        let delay = DIGESTS_EVERY / 2 + self.random.below(DIGESTS_EVERY);
        self.after(delay, Event::Digests(id));
    }

    pub(super) fn on_down(&mut self, id: u64) {
        let Some(index) = self.streams.get(&id).map(|stream| stream.proxy) else { return };
        if self.proxies[index].stream != Some(id)
            || self.postponed(self.proxies[index].frozen_until, Event::Down(id))
        {
            return;
        }
        let mut is_any = false;
        while let Some(message) = self.streams.get_mut(&id).and_then(|stream| stream.down.take(self.time)) {
            is_any = true;
            match self.proxies[index].follower.take_in(message) {
                Ok(replies) => replies.into_iter().for_each(|reply| self.send_up(id, reply)),
                Err(breach) => panic!("proxy {index} sees a breach on stream {id}: {breach}"),
            }
        }
        if is_any {
            if let Some(received) = self.proxies[index].follower.received() {
                self.send_up(id, received);
            }
            self.settle(index);
            // What was read makes room, which the sender hears of a moment later.
            let delay = self.latency();
            self.after(delay, Event::Wake(id));
        }
    }

    /// Makes what was taken in serve, and answers.
    pub(super) fn settle(&mut self, index: usize) {
        let answers = self.proxies[index].follower.settle();
        if let Some(stream) = self.proxies[index].stream {
            answers.into_iter().for_each(|answer| self.send_up(stream, answer));
        }
        let follower = &self.proxies[index].follower;
        let due = follower.close_at().into_iter().chain([follower.retry_at()]).min().expect("there is one");
        let due = self.since_begin(due).max(self.time + 1);
        let proxy = &mut self.proxies[index];
        if proxy.wake_at.is_none_or(|at| due < at) {
            proxy.wake_at = Some(due);
            let life = proxy.life;
            self.at(due, Event::ProxyWake { proxy: index, life });
        }
    }

    pub(super) fn on_proxy_wake(&mut self, index: usize, life: u64) {
        let proxy = &self.proxies[index];
        if proxy.life != life || self.postponed(proxy.frozen_until, Event::ProxyWake { proxy: index, life }) {
            return;
        }
        let now = self.now();
        let proxy = &mut self.proxies[index];
        proxy.wake_at = None;
        // Only with a stream: without, what a Hello says must stay true.
        if proxy.follower.retry_at() <= now && proxy.stream.is_some() {
            proxy.follower.retry();
        }
        if proxy.stream.is_some() {
            self.settle(index);
        }
    }

    pub(super) fn on_closed(&mut self, index: usize, life: u64, stream: u64) {
        let proxy = &mut self.proxies[index];
        if proxy.life != life || proxy.stream != Some(stream) {
            return;
        }
        if self.postponed(self.proxies[index].frozen_until, Event::Closed { proxy: index, life, stream }) {
            return;
        }
        self.note(format_args!("proxy {index} has lost stream {stream}"));
        let proxy = &mut self.proxies[index];
        proxy.stream = None;
        proxy.follower.end_stream();
        let delay = self.latency();
        self.after(delay, Event::Dial { proxy: index, life });
    }

    pub(super) fn on_digests(&mut self, id: u64) {
        let Some(index) = self.streams.get(&id).map(|stream| stream.proxy) else { return };
        let proxy = &self.proxies[index];
        if proxy.stream != Some(id) || self.postponed(proxy.frozen_until, Event::Digests(id)) {
            return;
        }
        let reports: Vec<_> = self.proxies[index].follower.replica().digest_reports().collect();
        for report in reports {
            self.send_up(id, FromProxy::DigestReport(report));
        }
        let delay = DIGESTS_EVERY / 2 + self.random.below(DIGESTS_EVERY);
        self.after(delay, Event::Digests(id));
    }

    fn send_down(&mut self, id: u64, message: ControllerMessage) {
        let latency = self.latency();
        let is_dropped = match &message.body {
            Some(ToProxy::PoolRemoved(_)) => self.drops(id, REMOVALS_DROPPED_ONE_IN),
            Some(ToProxy::BackendDelta(_) | ToProxy::ConfigChunk(_)) => self.drops(id, DROPPED_ONE_IN),
            // The begin of a stream, without which there is none.
            _ => false,
        };
        let now = self.time;
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.check(&message);
        if is_dropped {
            return;
        }
        self.counts.bytes_down += prost::Message::encoded_len(&message) as u64;
        let is_of_pool = tells_of_pool(&message);
        let arrival = stream.down.send(now, latency, message);
        assert!(
            stream.down.bytes <= stream.window + MESSAGE_BYTES_MAX,
            "{} bytes are in flight",
            stream.down.bytes
        );
        if !stream.is_cut {
            self.at(arrival, Event::Down(id));
        }
        if is_of_pool {
            self.overtakes(id, |stream, random| stream.down.overtake(tells_of_pool, random));
        }
    }

    fn send_up(&mut self, id: u64, body: FromProxy) {
        let latency = self.latency();
        if let FromProxy::Nack(nack) = &body {
            assert_eq!(nack.pool, format!("{NAMESPACE}/{CONTESTED}"), "nothing stands in its way");
            self.counts.refusals += 1;
        }
        if let FromProxy::SnapshotRequest(request) = &body {
            self.note(format_args!("stream {id}: {} is asked for, {}", request.pool, request.reason));
        }
        let is_dropped = !matches!(body, FromProxy::Hello(_)) && self.drops(id, DROPPED_ONE_IN);
        let now = self.time;
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.is_cut && !is_dropped) else {
            return;
        };
        let is_hello = matches!(body, FromProxy::Hello(_));
        let arrival = stream.up.send(now, latency, ProxyMessage { body: Some(body) });
        self.at(arrival, Event::Up(id));
        if !is_hello {
            let is_no_hello = |message: &ProxyMessage| !matches!(message.body, Some(FromProxy::Hello(_)));
            self.overtakes(id, |stream, random| stream.up.overtake(is_no_hello, random));
        }
    }

    /// A message comes before others that were sent before it, at times. What it passed is late, and its pool may be
    /// stale until somebody notices.
    fn overtakes(&mut self, id: u64, overtake: impl FnOnce(&mut Stream, &mut Random) -> usize) {
        if !self.mode.drops || self.is_calm() || !self.random.one_in(OVERTAKES_ONE_IN) {
            return;
        }
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let passed = overtake(stream, &mut self.random);
        if passed > 0 {
            stream.troubled_until = stream.troubled_until.max(self.time + HEALED);
            self.counts.overtook += 1;
            self.note(format_args!("a message of stream {id} comes before {passed} others"));
        }
    }

    /// Whether a message vanishes. Nobody can know before it is missed: its pool may be stale until then.
    fn drops(&mut self, id: u64, one_in: u64) -> bool {
        let drops = self.mode.drops && !self.is_calm() && self.random.one_in(one_in);
        if drops {
            self.counts.dropped += 1;
            self.note(format_args!("stream {id} loses a message"));
            let until = self.time + HEALED;
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.troubled_until = stream.troubled_until.max(until);
            }
        }
        drops
    }

    /// The connection breaks. What is on its way is lost, and each end learns of it in its time.
    pub(super) fn cut(&mut self, id: u64) {
        let proxy_learns = self.random.below(2 * SECOND);
        let controller_learns = self.random.below(5 * SECOND);
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.is_cut = true;
        (stream.down, stream.up) = (Pipe::default(), Pipe::default());
        let (proxy, life) = (stream.proxy, self.proxies[stream.proxy].life);
        self.note(format_args!("stream {id} breaks"));
        self.after(proxy_learns, Event::Closed { proxy, life, stream: id });
        self.after(controller_learns, Event::Gone(id));
    }

    /// Nothing arrives for a while, in either direction.
    pub(super) fn stall(&mut self, id: u64, until: u64) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.down.stalled_until = until;
        stream.up.stalled_until = until;
        stream.troubled_until = stream.troubled_until.max(until);
        self.note(format_args!("stream {id} stalls until {until}"));
        self.at(until, Event::Down(id));
        self.at(until, Event::Up(id));
    }

    /// Since when the proxy has had a working stream to a replica with working watches; `None` while it has none. May be
    /// in the future.
    pub(super) fn works_since(&self, index: usize) -> Option<u64> {
        let proxy = &self.proxies[index];
        let stream = self.streams.get(&proxy.stream?)?;
        let is_open = matches!(stream.state, StreamState::Open(_)) && !stream.is_cut;
        let controller = self.controllers[stream.controller].troubled_until;
        is_open.then(|| proxy.troubled_until.max(stream.troubled_until).max(controller))
    }
}

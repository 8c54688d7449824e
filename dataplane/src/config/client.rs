//! The proxy's end of the push stream: dials, applies, acknowledges, and dials again for ever.
//!
//! Between two streams nothing changes: the proxy serves what it has. A new stream begins with the digests of
//! that, so that a restarted controller sends only what differs.

mod keeping;
mod machine;
mod rounds;

pub use rounds::{DIGEST_REPORT_INTERVAL, DIGEST_REPORTS_MAX};

use super::apply::Applier;
use super::convert::Rejection;
use super::disk::State;
use super::replica::{Breach, Event, Replica};
use super::status::{PoolStatus, Status};
use crate::config::shares;
use crate::health::Exchange;
use crate::readiness::Readiness;
use crate::tls::tickets::Ring;
use keeping::Keeping;
use rounds::Rounds;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status as GrpcStatus, Streaming};
use weir_dial::{Backoff, DialError, Dialer, Link, Random, with_causes};
use weir_proto::limits::{
    HEALTH_CAPABILITY, KEY_BYTES, MESSAGE_BYTES_MAX, SHARES_CAPABILITY, WINDOW_CAPABILITY,
};
use weir_proto::push::proxy_message::Body as ToController;
use weir_proto::push::push_client::PushClient;
use weir_proto::push::{ControllerMessage, HealthNews, Hello, KeyRing, ProxyMessage, Shares};
use weir_proto::renewal::DIAL_AGAIN_TRAILER;

/// Wait before a configuration that was refused is tried again: what stood in its way, a socket that closes above
/// all, may be gone. Doubles with each attempt.
pub const RETRY_MIN: Duration = Duration::from_millis(50);

/// Longest wait between two attempts to apply a configuration that was refused.
pub const RETRY_MAX: Duration = Duration::from_secs(5);

/// Messages that may arrive before what was staged is committed. Bounds the wait of the first one.
const BATCH_MESSAGES_MAX: usize = 64;

/// Messages to the controller that wait for the stream.
const OUTBOUND_BUFFER: usize = 64;

/// Follows a controller until `shutdown` completes. What is served then is served on. Each stream is dialled anew, at
/// once where the controller ended the one before only because of its age.
///
/// `readiness` becomes ready when everything that the first controller knew has been applied, or when what was kept in
/// `state` serves and no controller came in time.
pub async fn run(
    mut dialer: Dialer,
    proxy_id: String,
    applier: Applier,
    state: Option<State>,
    readiness: Arc<Readiness>,
    shares: Arc<shares::Exchange>,
    shutdown: impl Future<Output = ()>,
) {
    let mut follower = Follower::new(applier, state, readiness).sharing(shares);
    let mut random = Random::default();
    let mut shutdown = std::pin::pin!(shutdown);
    let mut backoff = Backoff::default();
    loop {
        let end = tokio::select! {
            () = &mut shutdown => return,
            end = follower.follow(&mut dialer, &proxy_id, &mut random) => end,
        };
        follower.end_stream();
        if follower.status.is_in_step() {
            backoff.reset();
        }
        // Only after a stream that came into step: a controller that ends every stream must not be dialled in a loop.
        if matches!(end, End::Age) && follower.is_stream_synced {
            follower.status.renewing();
            tracing::debug!("the stream has reached its age; dialling again");
            continue;
        }
        dialer.failed();
        follower.status.lost();
        let wait = backoff.wait(&mut random);
        let reason = with_causes(&end);
        tracing::warn!(%reason, wait_ms = wait.as_millis(), "no stream to a controller; serving what is there");
        tokio::select! {
            () = &mut shutdown => return,
            () = follower.beside(tokio::time::sleep(wait)) => {}
        }
    }
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error(transparent)]
    Dial(#[from] DialError),
    /// As it came; [`Follower::follow`] says what it means.
    #[error("{}", .0.message())]
    Status(#[from] GrpcStatus),
    #[error("{0}")]
    Explained(String),
    #[error("the controller ended the stream because of its age")]
    Age,
    #[error("{0}")]
    Breach(#[from] Breach),
    #[error("the controller closed the stream")]
    Closed,
}

/// What a proxy has and what it makes of a stream. Messages in, answers out; whoever drives it brings them, and the time to
/// try again.
pub struct Follower {
    replica: Replica,
    applier: Applier,
    status: Arc<Status>,
    exchange: Arc<Exchange>,
    /// The controller of this stream passes on what proxies find of backends.
    shares_health: bool,
    shares: Arc<shares::Exchange>,
    /// The newest word on shares, in this batch.
    given: Option<Shares>,
    /// What the controller of this stream does, which the exchange has not heard.
    gives_shares: Option<bool>,
    /// That began with this batch.
    begins_sharing: bool,
    /// For the controller of this stream, one chunk given back stands for all before it.
    gives_back_together: bool,
    /// The newest chunk that is to be given back so.
    received: Option<ToController>,
    /// What others found, in this batch.
    heard: Vec<HealthNews>,
    readiness: Arc<Readiness>,
    /// To be sent once what they are about is committed.
    answers: Vec<ToController>,
    /// Configurations that came in this batch, and sets of them that changed. They are decided on at its end, together,
    /// since each may want what another leaves.
    undecided: BTreeMap<String, BTreeSet<String>>,
    /// In step with a controller at least once.
    is_synced: bool,
    /// In step on the newest stream.
    is_stream_synced: bool,
    /// Something was removed that may have stood in the way of a refused configuration, or time has passed.
    is_retry_due: bool,
    retry_wait: Duration,
    retry_at: Instant,
    /// When the next port closes that no pool wants any more.
    close_at: Option<std::time::Instant>,
    keeping: Keeping,
}

impl Follower {
    async fn follow(&mut self, dialer: &mut Dialer, proxy_id: &str, random: &mut Random) -> End {
        let link = match Box::pin(self.beside(dialer.dial(random))).await {
            Ok(link) => link,
            Err(error) => return error.into(),
        };
        match self.stream(&link, proxy_id, random).await {
            Ok(()) => End::Closed,
            Err(End::Status(status)) if status.metadata().contains_key(DIAL_AGAIN_TRAILER) => End::Age,
            Err(End::Status(status)) => End::Explained(link.explain(&status)),
            Err(end) => end,
        }
    }

    async fn stream(&mut self, link: &Link, proxy_id: &str, random: &mut Random) -> Result<(), End> {
        let mut client = PushClient::new(link.channel())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let (outbound, receiver) = mpsc::channel(OUTBOUND_BUFFER);
        let hello = Hello { health_id: self.exchange.id().0, ..self.begin_stream(proxy_id) };
        let hello = ToController::Hello(hello);
        send(&outbound, hello).await?;
        let request = link.request(ReceiverStream::new(receiver));
        let mut inbound = self.beside(client.connect(request)).await?.into_inner();
        self.status.connected();
        let mut rounds = Rounds::begin(Instant::now(), random);
        loop {
            let retry_at = self.retry_at;
            let close_at = self.close_at.map(Instant::from_std);
            tokio::select! {
                message = inbound.message() => {
                    let Some(message) = message? else { return Ok(()) };
                    self.take_batch(message, &mut inbound, &outbound).await?;
                }
                () = self.exchange.changed(), if self.shares_health => self.say_health(&outbound).await?,
                () = self.shares.changed() => self.say_demand(&outbound).await?,
                () = tokio::time::sleep_until(rounds.due) => {
                    for report in rounds.next(&self.replica, Instant::now(), random) {
                        send(&outbound, ToController::DigestReport(report)).await?;
                    }
                }
                () = tokio::time::sleep_until(close_at.unwrap_or(retry_at)), if close_at.is_some() => {
                    self.close_at = self.applier.close_retired(Instant::now().into_std());
                }
                () = tokio::time::sleep_until(retry_at) => {
                    self.retry();
                    self.flush(&outbound).await?;
                }
                due = self.keeping.due() => self.on_due(due),
            }
        }
    }

    /// Takes a message and those that have arrived behind it, then commits and answers.
    async fn take_batch(
        &mut self,
        first: ControllerMessage,
        inbound: &mut Streaming<ControllerMessage>,
        outbound: &mpsc::Sender<ProxyMessage>,
    ) -> Result<(), End> {
        let mut next = Some(first);
        let mut taken = 0;
        while let Some(message) = next.take() {
            for reply in self.take_in(message)? {
                send(outbound, reply).await?;
            }
            taken += 1;
            if taken < BATCH_MESSAGES_MAX {
                next = tokio::select! {
                    biased;
                    message = inbound.message() => Some(message?.ok_or(End::Closed)?),
                    () = std::future::ready(()) => None,
                };
            }
        }
        if let Some(received) = self.received() {
            send(outbound, received).await?;
        }
        self.flush(outbound).await
    }

    /// Everything that a message means, and the replies that need not wait for the commit. Not async: the replica has
    /// moved on as soon as it has the message, and a stream that dies over a reply must not come between the two.
    ///
    /// # Errors
    /// [`Breach`]: the stream must be closed. The pools stay as they are.
    pub fn take_in(&mut self, message: ControllerMessage) -> Result<Vec<ToController>, Breach> {
        let events = self.replica.on_message(message)?;
        let mut replies: Vec<_> = events.into_iter().filter_map(|event| self.on_event(event)).collect();
        if self.gives_back_together {
            let received = replies.extract_if(.., |reply| matches!(reply, ToController::ChunkReceived(_)));
            self.received = received.last().or(self.received.take());
        }
        Ok(replies)
    }

    /// The reply that gives back all chunks that were taken in since the last call, if it was not among the others. To be
    /// sent when nothing more has arrived.
    pub fn received(&mut self) -> Option<ToController> {
        self.received.take()
    }

    async fn flush(&mut self, outbound: &mpsc::Sender<ProxyMessage>) -> Result<(), End> {
        let answers = self.settle();
        if std::mem::take(&mut self.begins_sharing) {
            self.exchange.begin().await;
            self.say_health(outbound).await?;
        }
        if let Some(gives_shares) = self.gives_shares.take() {
            self.shares.begin(gives_shares).await;
        }
        if let Some(shares) = self.given.take() {
            self.shares.hear(shares).await;
        }
        for news in self.heard.drain(..) {
            self.exchange.hear(news).await;
        }
        for answer in answers {
            send(outbound, answer).await?;
        }
        Ok(())
    }

    /// Makes what was taken in serve; the answers to send then.
    pub fn settle(&mut self) -> Vec<ToController> {
        self.apply();
        self.close_at = self.applier.close_retired(Instant::now().into_std());
        std::mem::take(&mut self.answers)
    }

    async fn say_demand(&self, outbound: &mpsc::Sender<ProxyMessage>) -> Result<(), End> {
        match self.shares.next() {
            Some(demand) => send(outbound, ToController::Demand(demand)).await,
            None => Ok(()),
        }
    }

    async fn say_health(&self, outbound: &mpsc::Sender<ProxyMessage>) -> Result<(), End> {
        while let Some(said) = self.exchange.next() {
            send(outbound, said).await?;
        }
        Ok(())
    }

    /// A reply that need not wait for the commit.
    fn on_event(&mut self, event: Event) -> Option<ToController> {
        match event {
            Event::Reply(reply) => {
                if let ToController::SnapshotRequest(request) = &reply {
                    tracing::warn!(pool = %request.pool, reason = %request.reason, "out of step; asking for the whole pool");
                    self.status.snapshot_requested();
                }
                return Some(reply);
            }
            Event::Welcomed { controller_id, capabilities } => {
                tracing::info!(controller = %controller_id, "connected to a controller");
                self.gives_back_together =
                    capabilities.iter().any(|capability| capability == WINDOW_CAPABILITY);
                self.gives_shares =
                    Some(capabilities.iter().any(|capability| capability == SHARES_CAPABILITY));
                if capabilities.iter().any(|capability| capability == HEALTH_CAPABILITY) {
                    self.shares_health = true;
                    self.begins_sharing = true;
                }
            }
            Event::Configured { pool, sets } => self.undecided.entry(pool).or_default().extend(sets),
            Event::BackendsChanged { pool, sets } => {
                let earlier = self.undecided.remove(&pool);
                let is_undecided = earlier.is_some() && self.replica.candidate(&pool).is_some();
                let mut sets: BTreeSet<String> = sets.into_iter().collect();
                sets.extend(earlier.into_iter().flatten());
                if is_undecided {
                    self.undecided.insert(pool, sets);
                } else {
                    self.on_backends_changed(&pool, &sets);
                }
            }
            Event::Removed { pool } => {
                self.undecided.remove(&pool);
                self.applier.remove(&pool);
                self.status.removed(&pool);
                self.keeping.changed(&pool);
                tracing::info!(%pool, "removed");
                self.is_retry_due = true;
            }
            Event::Keys(ring) => {
                if self.use_keys(&ring) {
                    self.keeping.keys_changed(&ring);
                }
            }
            Event::Health(news) => self.heard.push(news),
            Event::Shares(shares) => self.given = Some(shares),
            Event::Synced => {
                self.is_retry_due = true;
                self.apply();
                self.status.in_step();
                self.is_synced = true;
                self.is_stream_synced = true;
                self.show_readiness();
                tracing::info!(pools = self.replica.pools().count(), "in step with the controller");
            }
        }
        None
    }

    /// Decides on what came, and makes it serve.
    fn apply(&mut self) {
        if std::mem::take(&mut self.is_retry_due) || !self.undecided.is_empty() {
            self.decide();
        }
        self.applier.commit();
        self.shares.look();
    }

    /// Whether they are used. Keys of another length are of a later protocol: what there is serves on.
    fn use_keys(&mut self, ring: &KeyRing) -> bool {
        let Some(ring) = Ring::new(&ring.previous, &ring.current, &ring.next) else {
            tracing::warn!("the controller's keys are not of {KEY_BYTES} bytes each; they are not used");
            return false;
        };
        self.applier.use_ring(ring);
        tracing::info!("session tickets are sealed with the keys that proxies share");
        true
    }

    /// Decides on the configurations that came, and once more on those that were refused: what stood in their way may be
    /// gone. Those that are refused again have been answered.
    fn decide(&mut self) {
        let fresh = std::mem::take(&mut self.undecided);
        let candidates: Vec<_> = self.replica.candidates().cloned().collect();
        let replica = &self.replica;
        let mut refused = self.applier.stage(&candidates, |pool, set| replica.backends(pool, set).collect());
        for config in candidates {
            match (refused.remove(&config.pool), fresh.get(&config.pool)) {
                (None, _) => self.on_accepted(&config.pool),
                (Some(rejection), Some(sets)) => self.on_refused(&config.pool, sets, rejection),
                (Some(_), None) => {}
            }
        }
    }

    /// The pool's candidate is staged: queues the acknowledgement.
    fn on_accepted(&mut self, pool: &str) {
        self.answers.extend(self.replica.accepted(pool));
        let (version, set_digests) = self.replica.state(pool).unwrap_or_default();
        let sequence = version.unwrap_or_default().sequence;
        tracing::info!(%pool, sequence, "a new configuration serves");
        let status = PoolStatus {
            version,
            config_digest: self.replica.in_force(pool).map(|(_, digest)| digest),
            set_digests,
            refusal: None,
            sets: self.applier.sets(pool).map(|(name, set)| (name.to_owned(), Arc::clone(set))).collect(),
        };
        self.status.set_pool(pool, status);
        self.keeping.changed(pool);
        self.show_readiness();
    }

    fn on_refused(&mut self, pool: &str, sets: &BTreeSet<String>, rejection: Rejection) {
        self.retry_wait = RETRY_MIN;
        self.retry_at = Instant::now() + RETRY_MIN;
        let Rejection { field, reason } = &rejection;
        tracing::warn!(%pool, %field, %reason, "a configuration is refused; what served before serves on");
        self.refuse(pool, rejection);
        // Endpoints go stale first; those of a source that was refused with the rest are another matter.
        for set in sets.iter().filter(|set| self.replica.is_of_source_in_force(pool, set)) {
            let backends = self.replica.backends(pool, set).collect();
            // Unusable ones are left out; the answer for this version is given already.
            let _ = self.applier.replace_backends(pool, set, backends);
        }
        self.show_move(pool);
    }

    fn on_backends_changed(&mut self, pool: &str, sets: &BTreeSet<String>) {
        let mut refused = None;
        for set in sets.iter().filter(|set| self.replica.is_of_source_in_force(pool, set)) {
            let backends = self.replica.backends(pool, set).collect();
            if let Err(rejection) = self.applier.replace_backends(pool, set, backends) {
                refused.get_or_insert(rejection);
            }
        }
        match refused {
            None => {
                self.answers.extend(self.replica.ack(pool));
                if self.replica.candidate(pool).is_none() {
                    self.status.healed(pool);
                }
            }
            Some(rejection) => {
                let Rejection { field, reason } = &rejection;
                tracing::warn!(%pool, %field, %reason, "a backend is left out");
                self.refuse(pool, rejection);
            }
        }
        self.show_move(pool);
    }

    fn refuse(&mut self, pool: &str, rejection: Rejection) {
        let Rejection { field, reason } = rejection.clone();
        self.answers.extend(self.replica.refused(pool, field, reason));
        self.status.refused(pool, rejection);
    }

    /// Ready once in step with a controller, unless it sent pools and every one was refused: a rollout would put
    /// such a proxy in the place of good ones. Or once something serves and nobody is waited for any more.
    fn show_readiness(&self) {
        let serves = self.replica.pools().any(|pool| self.replica.in_force(pool).is_some());
        let is_empty = self.replica.pools().next().is_none();
        if self.is_synced && (serves || is_empty) || self.keeping.is_grace_over && serves {
            self.readiness.ready();
        }
    }

    fn show_move(&mut self, pool: &str) {
        self.keeping.changed(pool);
        if let Some((version, digests)) = self.replica.state(pool) {
            self.status.moved(pool, version, digests);
        }
    }
}

async fn send(outbound: &mpsc::Sender<ProxyMessage>, body: ToController) -> Result<(), End> {
    outbound.send(ProxyMessage { body: Some(body) }).await.map_err(|_| End::Closed)
}

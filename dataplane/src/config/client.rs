//! The proxy's end of the push stream: dials, applies, acknowledges, and dials again for ever.
//!
//! Between two streams nothing changes: the proxy serves what it has. A new stream begins with the digests of
//! that, so that a restarted controller sends only what differs.

use super::apply::Applier;
use super::convert::Rejection;
use super::replica::{Breach, Event, Replica};
use super::status::{PoolStatus, Status};
use crate::readiness::Readiness;
use std::collections::BTreeSet;
use std::future::Future;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status as GrpcStatus, Streaming};
use weir_proto::limits::MESSAGE_BYTES_MAX;
use weir_proto::push::proxy_message::Body as ToController;
use weir_proto::push::push_client::PushClient;
use weir_proto::push::{ControllerMessage, ProxyMessage};

/// Wait before the second attempt to dial; doubles with each one that fails, half of it at random.
pub const BACKOFF_MIN: Duration = Duration::from_millis(100);

/// Longest wait between two attempts to dial.
pub const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Between two reports of digests, give or take a fifth.
pub const DIGEST_REPORT_INTERVAL: Duration = Duration::from_secs(30);

/// Wait before a configuration that was refused is tried again: what stood in its way, a socket that closes above
/// all, may be gone. Doubles with each attempt.
pub const RETRY_MIN: Duration = Duration::from_millis(50);

/// Longest wait between two attempts to apply a configuration that was refused.
pub const RETRY_MAX: Duration = Duration::from_secs(5);

/// Longest time to establish a connection to a controller.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A silent connection is asked for a sign of life this often.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// A connection without a sign of life for this long is given up.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Messages that may arrive before what was staged is committed. Bounds the wait of the first one.
const BATCH_MESSAGES_MAX: usize = 64;

/// Messages to the controller that wait for the stream.
const OUTBOUND_BUFFER: usize = 64;

/// A channel to a controller, for example `http://127.0.0.1:9901`; connects when it is first used. Must be called
/// within a runtime.
///
/// # Errors
/// When the address is not a URI.
pub fn dial(address: &str) -> Result<Channel, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(address.to_owned())?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    Ok(endpoint.connect_lazy())
}

/// Follows a controller until `shutdown` completes. What is served then is served on.
///
/// `readiness` becomes ready when everything that the first controller knew has been applied.
pub async fn run(
    channel: Channel,
    proxy_id: String,
    applier: Applier,
    readiness: Arc<Readiness>,
    shutdown: impl Future<Output = ()>,
) {
    let status = applier.status();
    let mut follower = Follower {
        replica: Replica::default(),
        applier,
        status,
        readiness,
        answers: Vec::new(),
        is_synced: false,
        is_retry_due: false,
        retry_wait: RETRY_MAX,
        retry_at: Instant::now() + RETRY_MAX,
    };
    let mut client = PushClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let mut random = Random::new();
    let mut shutdown = std::pin::pin!(shutdown);
    let mut backoff = BACKOFF_MIN;
    loop {
        let end = tokio::select! {
            () = &mut shutdown => return,
            end = follower.follow(&mut client, &proxy_id, &mut random) => end,
        };
        // Half applied is not a state that is left behind.
        follower.applier.commit();
        follower.answers.clear();
        if follower.status.is_in_step() {
            backoff = BACKOFF_MIN;
        }
        follower.status.lost();
        let wait = random.between(backoff / 2, backoff);
        tracing::warn!(reason = %end, wait_ms = wait.as_millis(), "no stream to a controller; serving what is there");
        backoff = (backoff * 2).min(BACKOFF_MAX);
        tokio::select! {
            () = &mut shutdown => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("{}", .0.message())]
    Controller(#[from] GrpcStatus),
    #[error("{0}")]
    Breach(#[from] Breach),
    #[error("the controller closed the stream")]
    Closed,
}

struct Follower {
    replica: Replica,
    applier: Applier,
    status: Arc<Status>,
    readiness: Arc<Readiness>,
    /// To be sent once what they are about is committed.
    answers: Vec<ToController>,
    /// In step with a controller at least once.
    is_synced: bool,
    /// Something was staged or removed that may have stood in the way of a refused configuration.
    is_retry_due: bool,
    retry_wait: Duration,
    retry_at: Instant,
}

impl Follower {
    async fn follow(&mut self, client: &mut PushClient<Channel>, proxy_id: &str, random: &mut Random) -> End {
        match self.stream(client, proxy_id, random).await {
            Ok(()) => End::Closed,
            Err(end) => end,
        }
    }

    async fn stream(
        &mut self,
        client: &mut PushClient<Channel>,
        proxy_id: &str,
        random: &mut Random,
    ) -> Result<(), End> {
        let (outbound, receiver) = mpsc::channel(OUTBOUND_BUFFER);
        let hello = ToController::Hello(self.replica.begin_stream(proxy_id));
        send(&outbound, hello).await?;
        let mut inbound = client.connect(ReceiverStream::new(receiver)).await?.into_inner();
        self.status.connected();
        let mut report_at = Instant::now() + random.around(DIGEST_REPORT_INTERVAL);
        loop {
            let retry_at = self.retry_at;
            tokio::select! {
                message = inbound.message() => {
                    let Some(message) = message? else { return Ok(()) };
                    self.take_batch(message, &mut inbound, &outbound).await?;
                }
                () = tokio::time::sleep_until(report_at) => {
                    let reports: Vec<_> = self.replica.digest_reports().collect();
                    for report in reports {
                        send(&outbound, ToController::DigestReport(report)).await?;
                    }
                    report_at = Instant::now() + random.around(DIGEST_REPORT_INTERVAL);
                }
                () = tokio::time::sleep_until(retry_at) => {
                    self.retry();
                    self.flush(&outbound).await?;
                    self.retry_wait = (self.retry_wait * 2).min(RETRY_MAX);
                    self.retry_at = Instant::now() + self.retry_wait;
                }
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
        self.flush(outbound).await
    }

    /// Everything that a message means, and the replies that need not wait for the commit. Not async: the replica has
    /// moved on as soon as it has the message, and a stream that dies over a reply must not come between the two.
    fn take_in(&mut self, message: ControllerMessage) -> Result<Vec<ToController>, Breach> {
        let events = self.replica.on_message(message)?;
        Ok(events.into_iter().filter_map(|event| self.on_event(event)).collect())
    }

    async fn flush(&mut self, outbound: &mpsc::Sender<ProxyMessage>) -> Result<(), End> {
        if std::mem::take(&mut self.is_retry_due) {
            self.retry();
        }
        self.applier.commit();
        for answer in std::mem::take(&mut self.answers) {
            send(outbound, answer).await?;
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
            Event::Welcomed { controller_id } => {
                tracing::info!(controller = %controller_id, "connected to a controller");
            }
            Event::Configured { pool, sets } => self.on_configured(&pool, &sets),
            Event::BackendsChanged { pool, sets } => self.on_backends_changed(&pool, &sets),
            Event::Removed { pool } => {
                self.applier.remove(&pool);
                self.status.removed(&pool);
                tracing::info!(%pool, "removed");
                // Not committed before the rest of the batch is staged: that may want the same ports.
                self.is_retry_due = true;
            }
            Event::Synced => {
                self.retry();
                self.applier.commit();
                self.status.in_step();
                self.is_synced = true;
                self.show_readiness();
                tracing::info!(pools = self.replica.pools().count(), "in step with the controller");
            }
        }
        None
    }

    fn on_configured(&mut self, pool: &str, sets: &[String]) {
        self.is_retry_due = true;
        if let Err(rejection) = self.try_candidate(pool) {
            self.retry_wait = RETRY_MIN;
            self.retry_at = Instant::now() + RETRY_MIN;
            let Rejection { field, reason } = &rejection;
            tracing::warn!(%pool, %field, %reason, "a configuration is refused; what served before serves on");
            self.answers.extend(self.replica.refused(pool, field.clone(), reason.clone()));
            self.status.refused(pool, rejection);
            // Endpoints go stale first; those of a source that was refused with the rest are another matter.
            for set in sets.iter().filter(|set| self.replica.is_of_source_in_force(pool, set)) {
                let backends = self.replica.backends(pool, set).collect();
                // Unusable ones are left out; the answer for this version is given already.
                let _ = self.applier.replace_backends(pool, set, backends);
            }
            self.show_move(pool);
        }
    }

    fn on_backends_changed(&mut self, pool: &str, sets: &[String]) {
        let mut refused = None;
        for set in sets.iter().filter(|set| self.replica.is_of_source_in_force(pool, set)) {
            let backends = self.replica.backends(pool, set).collect();
            if let Err(rejection) = self.applier.replace_backends(pool, set, backends) {
                refused.get_or_insert(rejection);
            }
        }
        match refused {
            None => self.answers.extend(self.replica.ack(pool)),
            Some(Rejection { field, reason }) => {
                tracing::warn!(%pool, %field, %reason, "a backend is left out");
                self.answers.extend(self.replica.refused(pool, field, reason));
            }
        }
        self.show_move(pool);
        if self.replica.candidate(pool).is_none() {
            self.status.healed(pool);
        }
    }

    /// Stages the pool's candidate and queues the acknowledgement.
    fn try_candidate(&mut self, pool: &str) -> Result<(), Rejection> {
        let Some(config) = self.replica.candidate(pool).cloned() else { return Ok(()) };
        let replica = &self.replica;
        self.applier.stage(&config, |set| replica.backends(pool, set).collect())?;
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
        self.show_readiness();
        Ok(())
    }

    /// Ready once in step with a controller, unless it sent pools and every one was refused: a rollout would put
    /// such a proxy in the place of good ones.
    fn show_readiness(&self) {
        let serves = self.replica.pools().any(|pool| self.replica.in_force(pool).is_some());
        if self.is_synced && (serves || self.replica.pools().next().is_none()) {
            self.readiness.ready();
        }
    }

    fn show_move(&self, pool: &str) {
        if let Some((version, digests)) = self.replica.state(pool) {
            self.status.moved(pool, version, digests);
        }
    }

    /// Tries refused configurations again; those that still fail have been answered. One that comes into force may
    /// free what another waits for, so it goes on while there is progress.
    fn retry(&mut self) {
        let mut waiting: BTreeSet<String> = self.replica.refused_pools().into_iter().collect();
        loop {
            // Ports of pools that are gone are given back by a commit.
            self.applier.commit();
            let before = waiting.len();
            waiting.retain(|pool| self.try_candidate(pool).is_err());
            if waiting.is_empty() || waiting.len() == before {
                return;
            }
        }
    }
}

async fn send(outbound: &mpsc::Sender<ProxyMessage>, body: ToController) -> Result<(), End> {
    outbound.send(ProxyMessage { body: Some(body) }).await.map_err(|_| End::Closed)
}

/// Jitter. Need not be good, only different in each process.
struct Random(u64);

impl Random {
    fn new() -> Self {
        Self(std::collections::hash_map::RandomState::new().build_hasher().finish())
    }

    fn between(&mut self, from: Duration, to: Duration) -> Duration {
        // SplitMix64 (Steele, Lea and Flood, 2014).
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let share = f64::from(u32::try_from((z ^ (z >> 31)) >> 32).unwrap_or(0)) / f64::from(u32::MAX);
        from + (to.saturating_sub(from)).mul_f64(share)
    }

    fn around(&mut self, middle: Duration) -> Duration {
        self.between(middle * 4 / 5, middle * 6 / 5)
    }
}

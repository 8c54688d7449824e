//! The push service: one stream for each proxy, over TCP or within the process; and beside it, on the same port, that
//! of other replicas' reports.
//!
//! [`Session`] decides what is sent; this file moves messages and time in and out of it. It asks for the next
//! message only when the stream has room for it, so that what is decided is never older than what is sent.
//!
//! Before anything is read from a stream, [`Security`] says whose it is; from then on it carries the pools that this
//! identity serves and no others, until it is so old that the question is asked again.

mod auth;
mod breach;
mod identity;
mod relay;
mod report;
mod security;
mod session;
mod tls;
mod update;

pub use auth::{Pods, REVIEW_TIMEOUT, REVIEWS_MAX, REVIEWS_WAITING_MAX};
pub use breach::Breach;
pub use report::Report;
pub use security::{Asked, Files, Protection, STREAM_AGE_MAX, Security, Unprotected};
pub use session::{REMOVAL_WAIT_MAX, Session};
pub use tls::{HANDSHAKE_TIMEOUT, HANDSHAKES_MAX, RELOAD_INTERVAL, TlsError};

use crate::identity::Identity;
use crate::keys::{self, Ring};
use crate::replicas;
use crate::store::{Peer, Pool, Resend, Store, StreamId, Subscription};
use hyper_util::rt::TokioIo;
use prost::Message as _;
use relay::{Relay, Seat};
pub(crate) use security::aged;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::DuplexStream;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::{Connected, TcpIncoming};
use tonic::transport::{Channel, Endpoint, Server, Uri};
use tonic::{Request, Response, Status, Streaming};
use weir_proto::limits::MESSAGE_BYTES_MAX;
use weir_proto::push::push_server::{Push, PushServer};
use weir_proto::push::replicas_server::ReplicasServer;
use weir_proto::push::{BackendHealth, ControllerMessage, ProxyMessage, controller_message};

/// Longest wait for a proxy's Hello.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection on which nothing came for this long is asked for a sign of life.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);

/// A connection that gives no sign of life for this long is closed.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Streams that one connection may carry; a proxy needs one.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 4;

/// Bytes buffered each way between the two halves of an in-process connection.
const IN_PROCESS_BUFFER_BYTES: usize = 256 << 10;

/// In-process connections that wait to be accepted.
const IN_PROCESS_BACKLOG: usize = 4;

/// Serves the push protocol, as `security` says, until `shutdown` completes; open streams are then ended, so that
/// proxies dial another controller.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    store: Arc<Store>,
    security: Security,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), tonic::transport::Error> {
    match security.server_tls() {
        Some(tls) => {
            let incoming = tls::incoming(listener, Arc::clone(tls));
            serve_incoming(incoming, store, security, shutdown).await
        }
        None => {
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            serve_incoming(incoming, store, security, shutdown).await
        }
    }
}

/// The same service without a port: a future that serves until `shutdown` completes, and the channel that reaches
/// it. The channel connects anew whenever it is used after a connection ended. Must be called within a runtime.
pub fn in_process(
    store: Arc<Store>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> (impl Future<Output = Result<(), tonic::transport::Error>> + Send, Channel) {
    let (dial, accept) = mpsc::channel::<io::Result<DuplexStream>>(IN_PROCESS_BACKLOG);
    let connector = tower::service_fn(move |_: Uri| {
        let dial = dial.clone();
        async move {
            let (near, far) = tokio::io::duplex(IN_PROCESS_BUFFER_BYTES);
            let gone = |_| io::Error::new(io::ErrorKind::ConnectionRefused, "the controller has ended");
            dial.send(Ok(far)).await.map_err(gone)?;
            Ok::<_, io::Error>(TokioIo::new(near))
        }
    });
    let channel = Endpoint::from_static("http://in-process").connect_with_connector_lazy(connector);
    (serve_incoming(ReceiverStream::new(accept), store, Security::plaintext(), shutdown), channel)
}

async fn serve_incoming<I, IO>(
    incoming: I,
    store: Arc<Store>,
    security: Security,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), tonic::transport::Error>
where
    I: Stream<Item = io::Result<IO>>,
    IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Connected + Unpin + Send + 'static,
{
    let (end, ended) = watch::channel(false);
    let controller_id: Arc<str> = format!("{:016x}", store.epoch()).into();
    let (replica_store, replica_security) = (Arc::clone(&store), security.clone());
    let replicas = ReplicasServer::new(replicas::Service {
        store: replica_store,
        security: replica_security,
        ended: ended.clone(),
    })
    .max_decoding_message_size(MESSAGE_BYTES_MAX);
    let service = PushServer::new(Service { store, relay: Arc::default(), security, controller_id, ended })
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let shutdown = async move {
        shutdown.await;
        // Streams never end by themselves: without this, a graceful shutdown would wait for ever.
        end.send_replace(true);
    };
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(Some(STREAMS_PER_CONNECTION_MAX))
        .add_service(service)
        .add_service(replicas)
        .serve_with_incoming_shutdown(incoming, shutdown)
        .await
}

struct Service {
    store: Arc<Store>,
    relay: Arc<Relay>,
    security: Security,
    controller_id: Arc<str>,
    ended: watch::Receiver<bool>,
}

#[tonic::async_trait]
impl Push for Service {
    type ConnectStream = ReceiverStream<Result<ControllerMessage, Status>>;

    async fn connect(
        &self,
        request: Request<Streaming<ProxyMessage>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let mut ended = self.ended.clone();
        let identity = tokio::select! {
            identity = self.security.identify(&request) => identity?,
            _ = ended.wait_for(|ended| *ended) => return Err(shutting_down()),
        };
        let ends_at = self.security.ends_at(&request);
        if ends_at.is_some_and(|ends_at| ends_at <= Instant::now()) {
            return Err(aged());
        }
        // One message: what is sent is decided when the one before has left.
        let (outbound, receiver) = mpsc::channel(1);
        let stream = ProxyStream {
            store: Arc::clone(&self.store),
            relay: Arc::clone(&self.relay),
            identity,
            security: self.security.clone(),
            ends_at,
            controller_id: Arc::clone(&self.controller_id),
            ended,
            inbound: request.into_inner(),
            outbound,
        };
        // Owned by the stream: it ends when either direction of it does.
        tokio::spawn(stream.run());
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

struct ProxyStream {
    store: Arc<Store>,
    relay: Arc<Relay>,
    identity: Identity,
    security: Security,
    /// When its proxy must prove itself again; `None` where it need not.
    ends_at: Option<Instant>,
    controller_id: Arc<str>,
    ended: watch::Receiver<bool>,
    inbound: Streaming<ProxyMessage>,
    outbound: mpsc::Sender<Result<ControllerMessage, Status>>,
}

impl ProxyStream {
    async fn run(mut self) {
        let status = match self.open().await {
            Ok(session) => self.drive(session).await,
            Err(status) => Err(status),
        };
        if let Err(status) = status {
            // The proxy may be gone; then nobody needs the reason.
            let _ = self.outbound.send(Err(status)).await;
        }
    }

    async fn open(&mut self) -> Result<Session, Status> {
        let first = tokio::time::timeout(HELLO_TIMEOUT, self.inbound.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no Hello came on the stream in 10 s"))??
            .ok_or_else(|| refused(&Breach::HelloMissing))?;
        let session =
            Session::open(first, self.store.epoch(), &self.controller_id).map_err(|b| refused(&b))?;
        tokio::select! {
            () = self.store.loaded() => Ok(session),
            () = self.outbound.closed() => Err(Status::cancelled("the proxy has left")),
            _ = self.ended.wait_for(|ended| *ended) => Err(shutting_down()),
        }
    }

    async fn drive(&mut self, mut session: Session) -> Result<(), Status> {
        let proxy = name(&self.identity, &session);
        let seat = session.health_id().and_then(|id| self.relay.join(keys::scope(&self.identity), id));
        let record = FleetEntry::begin(&self.store, &proxy, &self.identity, seat);
        let subscription = self.store.subscribe();
        let mut ring = self.store.ring();
        // As if it had changed: what there is, is news to this stream.
        ring.mark_changed();
        tracing::info!(%proxy, "a proxy has connected");
        let serves = |pool: &Arc<Pool>| {
            pool.contents.data_plane.is_served_by(&self.identity, self.security.gateway_namespaces())
        };
        let mut may_have_more = true;
        let end = loop {
            let stuck_at = session.stuck_at().map(Instant::from_std);
            let removal_due = session.removal_due().map(Instant::from_std);
            tokio::select! {
                _ = self.ended.wait_for(|ended| *ended) => break Err(shutting_down()),
                message = self.inbound.message() => match message {
                    Ok(Some(message)) => match session.on_message(Instant::now().into_std(), message) {
                        Ok(report) => {
                            if let Some(report) = report {
                                record.report(report);
                            }
                            may_have_more = true;
                        }
                        Err(breach) => break Err(refused(&breach)),
                    },
                    Ok(None) => break Ok(()),
                    Err(status) => break Err(status),
                },
                permit = self.outbound.reserve(), if may_have_more => {
                    let Ok(permit) = permit else { break Ok(()) };
                    session.knows(self.store.knowledge());
                    hear(&subscription, &mut session, &record, serves);
                    hear_keys(&mut ring, &mut session, &self.identity);
                    let now = Instant::now().into_std();
                    // What others found of backends comes after all that must be served.
                    match session.next(now).or_else(|| record.news(now)) {
                        Some(message) => permit.send(Ok(record.counted(message))),
                        None => may_have_more = false,
                    }
                    session.take_too_large().into_iter().for_each(|report| record.report(report));
                }
                () = subscription.changed() => may_have_more = true,
                () = record.news_changed() => may_have_more = true,
                () = at(removal_due), if !may_have_more => may_have_more = true,
                () = at(stuck_at) => break Err(refused(&Breach::Stuck)),
                Ok(()) = ring.changed() => {
                    ring.mark_changed();
                    hear_keys(&mut ring, &mut session, &self.identity);
                    may_have_more = true;
                }
                () = at(self.ends_at) => {
                    tracing::debug!(%proxy, "a stream has reached its age");
                    return Err(aged());
                }
            }
        };
        match &end {
            Ok(()) => tracing::info!(%proxy, "a proxy has left"),
            Err(status) => {
                tracing::warn!(%proxy, reason = status.message(), "a proxy's stream has ended");
            }
        }
        end
    }
}

/// Waits for a moment; without one, for ever.
pub(crate) async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// What the fleet view and the log call the proxy: what it says in Hello is believed only where nothing is proven.
fn name(identity: &Identity, session: &Session) -> Arc<str> {
    match identity {
        Identity::Trusted => Arc::clone(session.proxy()),
        Identity::Pod(pod) => format!("{}/{}", pod.namespace, pod.name).into(),
    }
}

/// A pool that the stream's proxy does not serve is gone for it.
fn hear(
    subscription: &Subscription,
    session: &mut Session,
    record: &FleetEntry,
    serves: impl Fn(&Arc<Pool>) -> bool,
) {
    for (name, pool) in subscription.take() {
        let pool = pool.filter(&serves);
        match pool {
            Some(_) => record.expect(&name),
            None => record.release(&name),
        }
        session.changed(&name, pool);
    }
}

fn hear_keys(ring: &mut watch::Receiver<Option<Arc<Ring>>>, session: &mut Session, identity: &Identity) {
    // An error would mean that the sender is gone, and it lives in the store.
    if ring.has_changed().unwrap_or(false)
        && let Some(ring) = &*ring.borrow_and_update()
    {
        session.keys(ring.for_scope(&keys::scope(identity)));
    }
}

pub(crate) fn shutting_down() -> Status {
    Status::unavailable("this controller is shutting down: dial again")
}

fn refused(breach: &Breach) -> Status {
    let sentence = breach.to_string();
    match breach {
        Breach::HelloMissing
        | Breach::HelloAgain
        | Breach::ChunkOutOfOrder { .. }
        | Breach::ForeignVersion(_) => Status::failed_precondition(sentence),
        Breach::Unknown => Status::unimplemented(sentence),
        Breach::ProxyId(_) | Breach::TooManyPools(_) => Status::invalid_argument(sentence),
        Breach::Stuck => Status::aborted(sentence),
    }
}

/// A stream's place in the fleet view; leaves it when dropped.
struct FleetEntry {
    store: Arc<Store>,
    stream: StreamId,
    proxy: Arc<str>,
    /// Among the proxies that share health checks; `None` for one that does not.
    seat: Option<Seat>,
    sent_bytes: Arc<AtomicU64>,
}

impl FleetEntry {
    fn begin(store: &Arc<Store>, proxy: &Arc<str>, identity: &Identity, seat: Option<Seat>) -> Self {
        let peer = Peer { proxy: Arc::clone(proxy), identity: identity.to_string().into() };
        let proxy = Arc::clone(proxy);
        let (stream, sent_bytes) = store.fleet_record().begin(peer, Instant::now().into_std());
        Self { store: Arc::clone(store), stream, proxy, seat, sent_bytes }
    }

    /// The message on its way out.
    fn counted(&self, message: ControllerMessage) -> ControllerMessage {
        let bytes = u64::try_from(message.encoded_len()).unwrap_or(u64::MAX);
        self.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
        message
    }

    /// What other proxies said that this one has not been told.
    fn news(&self, now: std::time::Instant) -> Option<ControllerMessage> {
        let news = self.seat.as_ref()?.next(now)?;
        Some(ControllerMessage { body: Some(controller_message::Body::HealthNews(news)) })
    }

    /// Returns when there may be some. Cancellation safe.
    async fn news_changed(&self) {
        match &self.seat {
            Some(seat) => seat.changed().await,
            None => std::future::pending().await,
        }
    }

    fn expect(&self, pool: &Arc<str>) {
        self.store.fleet_record().expect(self.stream, pool);
    }

    fn release(&self, pool: &Arc<str>) {
        self.store.fleet_record().release(self.stream, pool);
    }

    fn report(&self, report: Report) {
        let proxy = &self.proxy;
        match report {
            Report::Acked { pool, version, config_digest, .. } => {
                tracing::debug!(%proxy, %pool, sequence = version.sequence, "applied");
                let now = Instant::now().into_std();
                self.store.fleet_record().acked(self.stream, &pool, version, config_digest, now);
            }
            Report::Refused { pool, refusal } => {
                let (field, reason) = (&refusal.field, &refusal.reason);
                tracing::warn!(%proxy, %pool, %field, %reason, "a proxy refused a pool; it serves its last good configuration");
                let now = Instant::now().into_std();
                self.store.fleet_record().refused(self.stream, &pool, refusal, now);
            }
            Report::SnapshotRequested { pool, reason } => {
                self.store.fleet_record().resent(self.stream, &pool, Resend::Requested);
                tracing::warn!(%proxy, %pool, %reason, "a proxy is out of step and gets the whole pool");
            }
            Report::Diverged { pool, what } => {
                self.store.fleet_record().resent(self.stream, &pool, Resend::Diverged);
                tracing::warn!(%proxy, %pool, %what, "a proxy's digests differ from what it was sent; it gets the whole pool");
            }
            Report::TooLarge { pool, bytes } => {
                self.store.fleet_record().too_large(self.stream, &pool, bytes);
                tracing::error!(%proxy, %pool, bytes, "a pool is too large to be sent: split it into several");
            }
            Report::Backend(health) => {
                let BackendHealth { pool, set, backend, available, reason } = &health;
                tracing::debug!(%proxy, %pool, %set, %backend, available, %reason, "health of a backend");
                self.store.fleet_record().found(self.stream, &health);
            }
            Report::Health(said) => {
                if let Some(seat) = &self.seat {
                    seat.say(said, Instant::now().into_std());
                }
            }
        }
    }
}

impl Drop for FleetEntry {
    fn drop(&mut self) {
        self.store.fleet_record().end(self.stream);
    }
}

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
mod conversation;
mod identity;
mod relay;
mod report;
mod security;
mod session;
mod tls;
mod update;

pub use auth::{Pods, REVIEW_TIMEOUT, REVIEWS_MAX, REVIEWS_WAITING_MAX};
pub use breach::Breach;
pub use conversation::Conversation;
pub use relay::Relay;
pub use report::Report;
pub use security::{Asked, Files, Protection, STREAM_AGE_MAX, Security, Unprotected};
pub use session::{COALESCE_MAX, COALESCE_QUIET, REMOVAL_WAIT_MAX, Session};
pub use tls::{HANDSHAKE_TIMEOUT, HANDSHAKES_MAX, RELOAD_INTERVAL, TlsError};

use crate::identity::Identity;
use crate::replicas;
use crate::store::Store;
use futures_util::FutureExt as _;
use hyper_util::rt::TokioIo;
use prost::Message as _;
pub(crate) use security::aged;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::DuplexStream;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{self, PermitIterator};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::{Connected, TcpIncoming};
use tonic::transport::{Channel, Endpoint, Server, Uri};
use tonic::{Request, Response, Status, Streaming};
use weir_proto::limits::{MESSAGE_BYTES_MAX, STREAM_WINDOW_BYTES};
use weir_proto::push::push_server::{Push, PushServer};
use weir_proto::push::replicas_server::ReplicasServer;
use weir_proto::push::{ControllerMessage, ProxyMessage};

/// Longest wait for a proxy's Hello.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection on which nothing came for this long is asked for a sign of life.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);

/// A connection that gives no sign of life for this long is closed.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest time that a stream which ends waits for room to say why.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest time after the first lists for which what they miss or have empty is not taken from a proxy that has it from
/// before. An API server that lags, or was restored, shows the rest as events.
pub const FIRST_SYNC_GUARD: Duration = Duration::from_secs(2);

/// Messages, and bytes of them, that are decided at once for a stream when all before them have left. Each more of them
/// spares the runtime and the system a turn; a delta that is decided after them waits behind so much.
const BURST_MESSAGES_MAX: usize = 64;
const BURST_BYTES_MAX: usize = 16 << 10;

/// Messages of a proxy that are taken in at once.
const HEARD_AT_ONCE_MAX: usize = 64;

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
    let endpoint = Endpoint::from_static("http://in-process")
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(STREAM_WINDOW_BYTES);
    let channel = endpoint.connect_with_connector_lazy(connector);
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
    .max_decoding_message_size(MESSAGE_BYTES_MAX)
    .max_encoding_message_size(MESSAGE_BYTES_MAX);
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
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(STREAM_WINDOW_BYTES)
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
        // One burst: what is sent is decided when the one before has left.
        let (outbound, receiver) = mpsc::channel(BURST_MESSAGES_MAX);
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
            // The proxy may be gone, or read nothing any more; then nobody needs the reason.
            let _ = tokio::time::timeout(FAREWELL_TIMEOUT, self.outbound.send(Err(status))).await;
        }
    }

    async fn open(&mut self) -> Result<Session, Status> {
        let first = tokio::time::timeout(HELLO_TIMEOUT, self.inbound.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no Hello came on the stream in 10 s"))??
            .ok_or_else(|| refused(&Breach::HelloMissing))?;
        let mut session =
            Session::open(first, self.store.epoch(), &self.controller_id).map_err(|b| refused(&b))?;
        tokio::select! {
            loaded_at = self.store.loaded() => {
                session.guard_until(loaded_at + FIRST_SYNC_GUARD);
                Ok(session)
            }
            () = self.outbound.closed() => Err(Status::cancelled("the proxy has left")),
            _ = self.ended.wait_for(|ended| *ended) => Err(shutting_down()),
        }
    }

    async fn drive(&mut self, session: Session) -> Result<(), Status> {
        let (relay, identity) = (&self.relay, self.identity.clone());
        let now = Instant::now().into_std();
        let mut conversation =
            Conversation::begin(session, &self.store, relay, identity, &self.security, now);
        let proxy = Arc::clone(conversation.proxy());
        tracing::info!(%proxy, "a proxy has connected");
        let mut may_have_more = true;
        let end = loop {
            let stuck_at = conversation.stuck_at().map(Instant::from_std);
            let due = conversation.due().map(Instant::from_std);
            tokio::select! {
                _ = self.ended.wait_for(|ended| *ended) => break Err(shutting_down()),
                message = self.inbound.message() => {
                    match hear(message, &mut self.inbound, &mut conversation) {
                        Ok(true) => may_have_more = true,
                        Ok(false) => break Ok(()),
                        Err(status) => break Err(status),
                    }
                }
                permits = self.outbound.reserve_many(BURST_MESSAGES_MAX), if may_have_more => {
                    let Ok(permits) = permits else { break Ok(()) };
                    may_have_more = say(permits, &mut conversation);
                }
                () = conversation.changed() => may_have_more = true,
                () = at(due), if !may_have_more => may_have_more = true,
                () = at(stuck_at) => break Err(refused(&Breach::Stuck)),
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

/// Takes in a message and those that have come behind it. False where the proxy has ended the stream.
fn hear(
    first: Result<Option<ProxyMessage>, Status>,
    inbound: &mut Streaming<ProxyMessage>,
    conversation: &mut Conversation,
) -> Result<bool, Status> {
    let now = Instant::now().into_std();
    let mut next = first;
    let mut heard = 0;
    loop {
        let Some(message) = next? else { return Ok(false) };
        conversation.hear(now, message).map_err(|breach| refused(&breach))?;
        heard += 1;
        if heard == HEARD_AT_ONCE_MAX {
            return Ok(true);
        }
        let Some(more) = inbound.message().now_or_never() else { return Ok(true) };
        next = more;
    }
}

/// One burst. False where there is nothing more to say.
fn say(
    permits: PermitIterator<'_, Result<ControllerMessage, Status>>,
    conversation: &mut Conversation,
) -> bool {
    let now = Instant::now().into_std();
    let mut bytes = 0;
    for permit in permits {
        let Some(message) = conversation.next(now) else { return false };
        bytes += message.encoded_len();
        permit.send(Ok(message));
        if bytes >= BURST_BYTES_MAX {
            break;
        }
    }
    true
}

/// Waits for a moment; without one, for ever.
pub(crate) async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
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

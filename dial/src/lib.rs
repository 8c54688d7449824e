//! How a controller is reached: by proxies, and by other replicas of it.
//!
//! Everything is looked up and read anew for each stream: the name, the authorities, the token, the client's own
//! certificate. So rotation needs no watch on this side, and a Service of several controllers is several addresses,
//! of which the next one is tried when one fails.

mod pace;
#[cfg(test)]
mod tests;
mod tls;

pub use pace::{BACKOFF_MAX, BACKOFF_MIN, Backoff, Random};
pub use tls::{ClientFiles, Credentials};

use hyper_util::rt::TokioIo;
use std::future::{Ready, ready};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::task::{Context, Poll};
use std::time::Duration;
use tls::{Secrets, TlsTarget, Witness};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::codegen::Service;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status};
use weir_proto::limits::STREAM_WINDOW_BYTES;

/// Longest time to establish a connection to a controller.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A silent connection is asked for a sign of life this often.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// A connection without a sign of life for this long is given up.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Addresses that are tried before a dial counts as failed.
pub const ADDRESSES_MAX: usize = 8;

/// A controller's place as the command line names it, checked.
#[derive(Debug, Clone)]
pub struct Target {
    /// Goes on the wire as scheme and authority of each request.
    origin: Uri,
    /// Without the brackets of an IPv6 address.
    host: String,
    port: u16,
    tls: Option<TlsTarget>,
}

/// What is wrong with a controller's place. Whoever wrote the command line can fix it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Not a URL of a server.
    #[error("`{0}` is not a URL like http://127.0.0.1:9901 or https://weir-controller.weir-system:9901")]
    Url(String),
    /// `https` without authorities.
    #[error("{0} needs --controller-ca: the authority that must have signed the controller's certificate")]
    CaMissing(String),
    /// A token that everyone on the way could read.
    #[error(
        "--token-file is refused for {0}: without TLS the token could be read by anyone on the way; use https"
    )]
    TokenInPlaintext(String),
    /// Something else that only TLS has a use for.
    #[error("{flag} is of no use for {url}, which has no TLS: use https, or leave it out")]
    PointlessInPlaintext {
        /// Which flag.
        flag: &'static str,
        /// The controller's URL.
        url: String,
    },
    /// Not a DNS name or an address.
    #[error("`{0}` is not a name that a certificate can have: set --controller-name to a DNS name")]
    Name(String),
}

impl Target {
    /// Reads a URL and what belongs to it. No file is opened: they are read when they are used.
    ///
    /// # Errors
    /// [`TargetError`]
    pub fn new(url: &str, credentials: Credentials) -> Result<Self, TargetError> {
        let refused = || TargetError::Url(url.to_owned());
        let origin: Uri = url.parse().map_err(|_| refused())?;
        let (Some(scheme), Some(host)) = (origin.scheme_str(), origin.host()) else { return Err(refused()) };
        let has_path = !matches!(origin.path_and_query().map_or("", |path| path.as_str()), "" | "/");
        if has_path || origin.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(refused());
        }
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let (tls, port) = match scheme {
            "http" => {
                credentials.refuse_in_plaintext(url)?;
                (None, 80)
            }
            "https" => (Some(TlsTarget::new(url, &host, credentials)?), 443),
            _ => return Err(refused()),
        };
        let port = origin.port_u16().unwrap_or(port);
        Ok(Self { origin, host, port, tls })
    }

    async fn addresses(&self) -> Result<Vec<SocketAddr>, DialError> {
        let host = || self.host.clone();
        let found = timeout(CONNECT_TIMEOUT, tokio::net::lookup_host((self.host.as_str(), self.port))).await;
        let found = found.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let found: Vec<_> = found.map_err(|source| DialError::Resolve { host: host(), source })?.collect();
        if found.is_empty() {
            return Err(DialError::NoAddress { host: host() });
        }
        Ok(found)
    }

    /// Files are read anew for each connection.
    async fn link(&self, address: SocketAddr) -> Result<Link, DialError> {
        let secrets = match &self.tls {
            Some(tls) => Some(tls.read().await?),
            None => None,
        };
        let connected = timeout(CONNECT_TIMEOUT, self.connect(address, secrets.as_ref())).await;
        connected.unwrap_or(Err(DialError::Timeout { address }))
    }

    async fn connect(&self, address: SocketAddr, secrets: Option<&Secrets>) -> Result<Link, DialError> {
        let refused = |source| DialError::Connect { address, source };
        let socket = TcpStream::connect(address).await.map_err(refused)?;
        socket.set_nodelay(true).map_err(refused)?;
        let witness = Witness::default();
        let channel = match (&self.tls, secrets) {
            (Some(tls), Some(secrets)) => {
                let stream = tls.handshake(socket, address, secrets, &witness).await?;
                self.channel(stream).await
            }
            _ => self.channel(socket).await,
        };
        let channel = channel.map_err(|source| DialError::Http { address, source })?;
        Ok(Link { channel, token: secrets.and_then(|secrets| secrets.token.clone()), witness })
    }

    /// A channel over one connection and no other: the next one has the newest files, and may be to another address.
    async fn channel<IO>(&self, io: IO) -> Result<Channel, tonic::transport::Error>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        Endpoint::from(self.origin.clone())
            .connect_timeout(CONNECT_TIMEOUT)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(STREAM_WINDOW_BYTES)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .connect_with_connector(Once(Some(io)))
            .await
    }
}

/// Why there is no connection to a controller.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the sentences say what each is")]
pub enum DialError {
    #[error("cannot read {}, given by {flag}", .file.display())]
    Read { flag: &'static str, file: PathBuf, source: io::Error },
    #[error("{}, given by {flag}, {fault}", .file.display())]
    Content { flag: &'static str, file: PathBuf, fault: &'static str },
    #[error("cannot find the address of the controller `{host}`")]
    Resolve { host: String, source: io::Error },
    #[error("the controller's name `{host}` has no address")]
    NoAddress { host: String },
    #[error("cannot connect to a controller at {address}")]
    Connect { address: SocketAddr, source: io::Error },
    #[error("no connection to a controller at {address} in {} s", CONNECT_TIMEOUT.as_secs())]
    Timeout { address: SocketAddr },
    #[error("no TLS with the controller at {address}: {sentence}")]
    Tls { address: SocketAddr, sentence: String },
    #[error("no HTTP/2 with the controller at {address}")]
    Http { address: SocketAddr, source: tonic::transport::Error },
}

/// An error with its causes, on one line. A cause that the error before it has quoted already is not said again.
#[must_use]
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut sentence = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !sentence.ends_with(&said) {
            sentence.push_str(": ");
            sentence.push_str(&said);
        }
        cause = error.source();
    }
    sentence
}

/// Dials a controller, once for each stream.
#[derive(Debug)]
pub struct Dialer {
    to: To,
    /// Where the last connection went.
    last: Option<SocketAddr>,
    /// Whether that one is to be tried after all others.
    is_last_bad: bool,
}

#[derive(Debug)]
enum To {
    /// One that connects by itself: a controller in this process.
    Channel(Channel),
    /// Replicas of one controller: any will do. Never empty.
    Targets(Vec<Target>),
}

impl From<Channel> for Dialer {
    fn from(channel: Channel) -> Self {
        Self { to: To::Channel(channel), last: None, is_last_bad: false }
    }
}

impl From<Target> for Dialer {
    fn from(target: Target) -> Self {
        Self { to: To::Targets(vec![target]), last: None, is_last_bad: false }
    }
}

impl Dialer {
    /// For several replicas of one controller. `None` without any.
    #[must_use]
    pub fn of(targets: Vec<Target>) -> Option<Self> {
        (!targets.is_empty()).then_some(Self { to: To::Targets(targets), last: None, is_last_bad: false })
    }

    /// A connection, to any address of the names: in an order by chance, so that the proxies of one Service spread,
    /// with the one that failed before as the last.
    ///
    /// # Errors
    /// [`DialError`] of the last address. Nothing is tried again here.
    pub async fn dial(&mut self, random: &mut Random) -> Result<Link, DialError> {
        let targets = match &self.to {
            To::Channel(channel) => return Ok(Link::over(channel.clone())),
            To::Targets(targets) => targets,
        };
        let bad = self.last.filter(|_| self.is_last_bad);
        let (mut places, mut failure) = (Vec::new(), None);
        for target in targets {
            match target.addresses().await {
                Ok(addresses) => places.extend(addresses.into_iter().map(|address| (target, address))),
                Err(error) => failure = Some(error),
            }
        }
        for (target, address) in in_turn(places, random.number(), |(_, address)| Some(*address) == bad) {
            self.last = Some(address);
            match target.link(address).await {
                Ok(link) => {
                    self.is_last_bad = false;
                    return Ok(link);
                }
                Err(error) => {
                    tracing::debug!(%address, reason = %error, "not this controller");
                    failure = Some(error);
                }
            }
        }
        self.is_last_bad = true;
        // Each target has an address or an error, and each address that gives no link another one.
        Err(failure.unwrap_or(DialError::NoAddress { host: String::new() }))
    }

    /// The stream over the last connection failed.
    pub fn failed(&mut self) {
        self.is_last_bad = true;
    }
}

/// At most [`ADDRESSES_MAX`], beginning with the one whose `turn` it is, bad ones last.
fn in_turn<T>(mut places: Vec<T>, turn: u64, is_bad: impl Fn(&T) -> bool) -> Vec<T> {
    let count = places.len().max(1);
    // The remainder is smaller than a length in memory.
    places.rotate_left(usize::try_from(turn % count as u64).unwrap_or(0));
    places.sort_by_key(is_bad);
    places.truncate(ADDRESSES_MAX);
    places
}

/// One connection to a controller.
pub struct Link {
    channel: Channel,
    token: Option<MetadataValue<Ascii>>,
    witness: Witness,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Neither the token nor anything that could quote it.
        f.debug_struct("Link").finish_non_exhaustive()
    }
}

impl Link {
    fn over(channel: Channel) -> Self {
        Self { channel, token: None, witness: Witness::default() }
    }

    /// To make a client of; over this connection and no other.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// With the token, if there is one.
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", token.clone());
        }
        request
    }

    /// What a stream's end means. The status of a connection that broke does not say what TLS knew: with TLS 1.3 a
    /// client learns only after the handshake that its certificate is refused.
    #[must_use]
    pub fn explain(&self, status: &Status) -> String {
        let said = status.message();
        match (self.witness.sentence(), status.code()) {
            (Some(sentence), _) => sentence,
            (None, tonic::Code::Unauthenticated) => {
                format!("the controller does not know who dials: {said}")
            }
            (None, tonic::Code::PermissionDenied) => format!("the controller refuses who dials: {said}"),
            (None, _) => said.to_owned(),
        }
    }
}

/// Gives one connection away, and is refused the second time.
struct Once<IO>(Option<IO>);

impl<IO> Service<Uri> for Once<IO>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Response = TokioIo<IO>;
    type Error = io::Error;
    type Future = Ready<io::Result<TokioIo<IO>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let gone = || io::Error::new(io::ErrorKind::NotConnected, "the connection has ended");
        ready(self.0.take().map(TokioIo::new).ok_or_else(gone))
    }
}

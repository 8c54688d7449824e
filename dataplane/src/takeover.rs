//! A new process takes over the listening sockets of the one that serves, so that an upgrade refuses no connection.
//!
//! ```text
//! new: connects to the socket, says its protocol
//! old: gives its sockets, those for administration too, and names the pools that it serves
//! new: starts on them, but accepts nothing; once it serves all of these pools: ready
//! old: gives up administration and its state folder: yours; drains
//! new: accepts
//! ```
//!
//! Both hold the same sockets all the while, so a connection that comes between the old one's last accept and the new
//! one's first waits in the kernel. Until "ready" nothing of the old process has changed: whatever goes wrong before, it
//! serves on. Where the old one ends in the middle, the new one has the sockets and goes on alone.
//!
//! Who may ask is decided twice: the socket is its owner's alone (0600), and each side looks who the other one is.
//! Passing descriptors needs `sendmsg`, for which rustix has safe functions and is in the tree; nix, passfd and sendfd
//! do the same with another crate.

mod descriptors;

use crate::config::Status;
use crate::listener::ListeningSocket;
use crate::readiness::{Phase, Readiness};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Instant, timeout};

/// What both sides speak. Another number is refused, and the old process serves on.
pub const PROTOCOL: u64 = 1;

/// Longest time for one message.
const MESSAGE_LIMIT: Duration = Duration::from_secs(5);

/// Longest time from the hand-over of the sockets until the new process is ready.
pub const READY_LIMIT: Duration = Duration::from_secs(60);

/// Longest time after that until it serves every pool that the old one serves.
pub const POOLS_LIMIT: Duration = Duration::from_secs(5);

/// How often that is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Bytes of one message: the names of 10,000 pools.
const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// Sockets that are handed over: 64 workers with 64 ports each.
pub const SOCKETS_MAX: usize = 4096;

const READY: u8 = b'R';
const YOURS: u8 = b'Y';
const GIVEN_UP: u8 = b'X';

/// Why no process was taken over, or none can come.
#[derive(Debug, thiserror::Error)]
pub enum TakeoverError {
    /// The path is of no use.
    #[error("cannot use {path} for --takeover")]
    Place {
        /// As asked for.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Something else is there, which is not ours to replace.
    #[error("{0} is no socket: choose another path for --takeover")]
    NoSocket(PathBuf),
    /// The other side is somebody else's process.
    #[error("the process at the other end of --takeover runs as user {0}, and not as ours")]
    Stranger(u32),
    /// The other side broke off, or took too long.
    #[error("the hand-over broke off; the process that serves goes on")]
    Broken(#[from] io::Error),
    /// The other side said no.
    #[error("the process that serves keeps its listeners: {0}")]
    Refused(String),
    /// Not understood.
    #[error(
        "the other process does not speak version {PROTOCOL} of the hand-over; the one that serves goes on"
    )]
    Protocol,
    /// No complete configuration in time.
    #[error("not ready within {}s; the process that serves goes on", READY_LIMIT.as_secs())]
    NotReady,
    /// The configuration lacks something.
    #[error("this process does not serve {0}, which the one that serves does; that one goes on")]
    Missing(String),
}

/// The process that serves, as seen by the one that takes over.
#[derive(Debug)]
pub(crate) struct Predecessor {
    stream: UnixStream,
    pools: BTreeSet<String>,
    pub(crate) listeners: Vec<ListeningSocket>,
    pub(crate) admin: Option<TcpListener>,
}

impl Predecessor {
    /// Asks whoever serves at `path` for its sockets. `None` where nobody does.
    pub(crate) async fn ask(path: &Path) -> Result<Option<Self>, TakeoverError> {
        let place = |source| TakeoverError::Place { path: path.to_owned(), source };
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(TakeoverError::NoSocket(path.to_owned()));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(place(error)),
        }
        let mut stream = match UnixStream::connect(path).await {
            Ok(stream) => stream,
            // Left by a process that has ended.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(None),
            Err(error) => return Err(place(error)),
        };
        check_peer(&stream)?;
        let hello = json!({ "protocol": PROTOCOL, "version": env!("CARGO_PKG_VERSION") });
        say(&mut stream, &hello).await?;
        let offer = hear(&mut stream).await?;
        if let Some(reason) = offer["refused"].as_str() {
            return Err(TakeoverError::Refused(reason.to_owned()));
        }
        let count = offer["sockets"].as_u64().and_then(|count| usize::try_from(count).ok());
        let count = count.filter(|count| *count <= SOCKETS_MAX).ok_or(TakeoverError::Protocol)?;
        let pools = offer["pools"].as_array().ok_or(TakeoverError::Protocol)?;
        let pools = pools.iter().filter_map(|name| Some(name.as_str()?.to_owned())).collect();
        let receive = descriptors::receive(&stream, count);
        let sockets = timeout(MESSAGE_LIMIT, receive).await.map_err(|_| timed_out())??;
        let mut sockets = sockets.into_iter();
        let admin = if offer["admin"] == true { sockets.next().map(TcpListener::from) } else { None };
        let listeners = sockets.map(ListeningSocket::of).collect::<io::Result<_>>()?;
        Ok(Some(Self { stream, pools, listeners, admin }))
    }

    /// Waits until this process serves all that the other one does, and takes its place.
    pub(crate) async fn replace(
        mut self,
        readiness: &Readiness,
        status: &Status,
    ) -> Result<(), TakeoverError> {
        let prepared = tokio::select! {
            prepared = prepare(&self.pools, readiness, status) => prepared,
            said = self.stream.read_u8() => return said.map_or_else(
                |error| alone(&error),
                |_| Err(TakeoverError::Refused("it has waited long enough".to_owned())),
            ),
        };
        prepared?;
        if let Err(error) = self.stream.write_u8(READY).await {
            return alone(&error);
        }
        match timeout(MESSAGE_LIMIT, self.stream.read_u8()).await {
            Ok(Ok(YOURS)) => Ok(()),
            Ok(Ok(_)) => Err(TakeoverError::Refused("it has waited long enough".to_owned())),
            Ok(Err(error)) => alone(&error),
            Err(_) => Err(timed_out().into()),
        }
    }
}

/// The other process has ended, and its sockets are here: there is nobody else to serve.
fn alone(error: &io::Error) -> Result<(), TakeoverError> {
    tracing::warn!(%error, "the process before this one ended while it handed over; going on with its listeners");
    Ok(())
}

async fn prepare(
    pools: &BTreeSet<String>,
    readiness: &Readiness,
    status: &Status,
) -> Result<(), TakeoverError> {
    let mut phase = readiness.subscribe();
    let ready = timeout(READY_LIMIT, phase.wait_for(|phase| *phase >= Phase::Ready)).await;
    ready.map_err(|_| TakeoverError::NotReady)?.map_err(|_| TakeoverError::NotReady)?;
    let last = Instant::now() + POOLS_LIMIT;
    loop {
        let served = in_force(status);
        let mut missing = pools.difference(&served);
        let Some(first) = missing.next() else { return Ok(()) };
        if Instant::now() >= last {
            let more = match missing.count() {
                0 => String::new(),
                count => format!(" and {count} more"),
            };
            return Err(TakeoverError::Missing(format!("LoadBalancerPool {first}{more}")));
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Names of the pools of which some configuration serves.
fn in_force(status: &Status) -> BTreeSet<String> {
    let pools = status.pools().into_iter();
    pools.filter(|(_, pool)| pool.config_digest.is_some()).map(|(name, _)| name).collect()
}

/// Where the process after this one asks.
#[derive(Debug)]
pub(crate) struct Door {
    path: PathBuf,
    listener: UnixListener,
}

/// What a process has to give.
pub(crate) struct Estate<'a> {
    /// Those of all workers, asked for at the moment.
    pub(crate) listeners: Vec<ListeningSocket>,
    pub(crate) admin: &'a TcpListener,
}

/// The process that takes over, which waits for a word.
#[derive(Debug)]
pub(crate) struct Successor(UnixStream);

impl Door {
    /// Listens at `path`, in place of whoever did.
    pub(crate) fn open(path: &Path) -> Result<Self, TakeoverError> {
        let place = |source| TakeoverError::Place { path: path.to_owned(), source };
        let mut fresh = path.as_os_str().to_owned();
        fresh.push(format!(".{}", std::process::id()));
        let fresh = PathBuf::from(fresh);
        let _ = fs::remove_file(&fresh);
        let listener = UnixListener::bind(&fresh).map_err(place)?;
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600)).map_err(place)?;
        fs::rename(&fresh, path).map_err(place)?;
        Ok(Self { path: path.to_owned(), listener })
    }

    /// Waits for a process that is ready to take over. Those that are not in the end change nothing. `lend` gives what
    /// there is at the moment. Cancellation safe: who was being served sees the end.
    pub(crate) async fn successor<'a, F: Future<Output = Estate<'a>>>(
        &self,
        status: &Status,
        lend: impl Fn() -> F,
    ) -> Successor {
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "no process can ask for the listeners; trying again");
                    tokio::time::sleep(MESSAGE_LIMIT).await;
                    continue;
                }
            };
            match offer(stream, status, &lend).await {
                Ok(successor) => return successor,
                Err(error) => {
                    let reason = weir_dial::with_causes(&error);
                    tracing::warn!(%reason, "another process asked for the listeners and did not take them; serving on");
                }
            }
        }
    }

    /// Leaves nothing behind.
    pub(crate) fn close(self) {
        let _ = fs::remove_file(&self.path);
    }
}

async fn offer<'a, F: Future<Output = Estate<'a>>>(
    mut stream: UnixStream,
    status: &Status,
    lend: impl Fn() -> F,
) -> Result<Successor, TakeoverError> {
    check_peer(&stream)?;
    let hello = hear(&mut stream).await?;
    if hello["protocol"] != PROTOCOL {
        let reason = format!("it speaks version {PROTOCOL} of the hand-over");
        say(&mut stream, &json!({ "refused": reason })).await?;
        return Err(TakeoverError::Protocol);
    }
    let Estate { listeners, admin } = lend().await;
    let mut sockets = vec![OwnedFd::from(admin.try_clone()?)];
    sockets.extend(listeners.into_iter().map(OwnedFd::from));
    if sockets.len() > SOCKETS_MAX {
        let reason = format!("it has {} sockets, and {SOCKETS_MAX} can be handed over", sockets.len());
        say(&mut stream, &json!({ "refused": reason })).await?;
        return Err(TakeoverError::Refused(reason));
    }
    let pools: Vec<Value> = in_force(status).into_iter().map(Value::from).collect();
    let version = hello["version"].as_str().unwrap_or_default();
    tracing::info!(version, sockets = sockets.len(), "another process takes over once it is ready");
    say(&mut stream, &json!({ "sockets": sockets.len(), "admin": true, "pools": pools })).await?;
    let send = descriptors::send(&stream, &sockets);
    timeout(MESSAGE_LIMIT, send).await.map_err(|_| timed_out())??;
    match timeout(READY_LIMIT + POOLS_LIMIT, stream.read_u8()).await {
        Ok(Ok(READY)) => Ok(Successor(stream)),
        Ok(Ok(_)) => Err(TakeoverError::Protocol),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => {
            let _ = stream.write_u8(GIVEN_UP).await;
            Err(TakeoverError::NotReady)
        }
    }
}

impl Successor {
    /// Says that everything of this process is the other one's.
    pub(crate) async fn begin(mut self) {
        // It may have ended meanwhile: then nobody serves, as after any process that ends.
        let _ = self.0.write_u8(YOURS).await;
    }
}

fn check_peer(stream: &UnixStream) -> Result<(), TakeoverError> {
    let (theirs, ours) = (stream.peer_cred()?.uid(), rustix::process::geteuid().as_raw());
    // Root may read our memory anyway.
    if theirs == ours || theirs == 0 { Ok(()) } else { Err(TakeoverError::Stranger(theirs)) }
}

async fn say(stream: &mut UnixStream, message: &Value) -> Result<(), TakeoverError> {
    let bytes = message.to_string().into_bytes();
    let length = u32::try_from(bytes.len()).map_err(|_| TakeoverError::Protocol)?;
    let write = async {
        stream.write_u32(length).await?;
        stream.write_all(&bytes).await
    };
    Ok(timeout(MESSAGE_LIMIT, write).await.map_err(|_| timed_out())??)
}

async fn hear(stream: &mut UnixStream) -> Result<Value, TakeoverError> {
    let read = async {
        let length = usize::try_from(stream.read_u32().await?).unwrap_or(usize::MAX);
        if length > MESSAGE_BYTES_MAX {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        let mut bytes = vec![0; length];
        // Not a byte more: descriptors come with those behind it.
        stream.read_exact(&mut bytes).await?;
        Ok(bytes)
    };
    let bytes = timeout(MESSAGE_LIMIT, read).await.map_err(|_| timed_out())??;
    serde_json::from_slice(&bytes).map_err(|_| TakeoverError::Protocol)
}

fn timed_out() -> io::Error {
    io::ErrorKind::TimedOut.into()
}

#[cfg(test)]
mod tests;

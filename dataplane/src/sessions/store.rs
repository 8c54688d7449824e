//! A store of sessions that proxies share: Redis, or what speaks its protocol.
//!
//! What a table remembers is written there, and where a table knows nothing, the store is asked. It only ever adds: a
//! request waits [`LOOKUP_TIMEOUT`] for it at most, and no request waits from the first failure until the store answers in
//! time again. Meanwhile each proxy goes on with its own table.
//!
//! One task owns the connection; workers reach it by a bounded queue. What is in the queue goes out as one pipeline, so
//! that one round trip carries what came in during the last.
//!
//! ```text
//! weir:s:{pool, 8 hex digits}:{session, 16 hex digits} = set (4 bytes) | backend (8 bytes)
//! ```
//!
//! Keys are hashes, so the store learns neither names of users nor addresses.

use lb_core::sessions::Choice;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo as _, RedisError, Value};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// Longest wait of a request for the store.
pub const LOOKUP_TIMEOUT: Duration = Duration::from_millis(20);

/// Questions and writes that wait for the store; more are dropped, and counted.
pub const WAITING_MAX: usize = 1024;

/// Those that go out together.
const PIPELINE_MAX: usize = 128;

/// Longest wait for a connection, and for the answer to a pipeline.
const STORE_TIMEOUT: Duration = Duration::from_secs(1);

/// Between two questions whether the store is there.
const PING_INTERVAL: Duration = Duration::from_millis(500);

/// Between two attempts to connect; doubles up to the second.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Where the store is, and with which password. Shows only where.
#[derive(Clone)]
pub struct StoreAddress {
    client: Client,
    shown: Arc<str>,
}

/// Why a URL names no store. Never quotes it: it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StoreAddressError {
    /// No URL, or one of another kind.
    #[error("write it as redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE], or rediss:// for TLS")]
    Form,
}

impl StoreAddress {
    /// Reads a URL; asks nobody.
    ///
    /// # Errors
    /// [`StoreAddressError`].
    pub fn read(url: &str) -> Result<Self, StoreAddressError> {
        let has_scheme = ["redis://", "rediss://"].iter().any(|scheme| url.starts_with(scheme));
        let to = url.into_connection_info().ok().filter(|_| has_scheme).ok_or(StoreAddressError::Form)?;
        let shown = match to.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                format!("{host}:{port}").into()
            }
            _ => return Err(StoreAddressError::Form),
        };
        let client = Client::open(to).map_err(|_| StoreAddressError::Form)?;
        Ok(Self { client, shown })
    }
}

impl fmt::Debug for StoreAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreAddress({})", self.shown)
    }
}

/// A session in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoredKey {
    /// [`lb_core::sessions::pool_tag`].
    pub(crate) pool: u32,
    /// [`lb_core::sessions::session_key`].
    pub(crate) session: u64,
}

impl fmt::Display for StoredKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "weir:s:{:08x}:{:016x}", self.pool, self.session)
    }
}

/// The workers' side of the store.
#[derive(Debug, Clone)]
pub struct Store {
    asks: mpsc::Sender<Ask>,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    is_up: AtomicBool,
    errors: AtomicU64,
}

#[derive(Debug)]
enum Ask {
    Find(StoredKey, oneshot::Sender<Option<Choice>>),
    Put(StoredKey, Choice, Duration),
    Refresh(StoredKey, Duration),
    Remove(StoredKey),
}

impl State {
    /// What a request finds is that the store is away, until a ping says otherwise.
    fn failed(&self) {
        self.is_up.store(false, Ordering::Relaxed);
        self.errors.fetch_add(1, Ordering::Relaxed);
    }
}

impl Store {
    /// A store, and the task that owns the connection to it, to be run for as long as the store is used.
    pub fn open(address: StoreAddress) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (asks, asked) = mpsc::channel(WAITING_MAX);
        let state = Arc::<State>::default();
        let owner = Owner { address, asked, state: Arc::clone(&state) };
        (Self { asks, state }, owner.run())
    }

    /// Whether the store answered when it was last asked.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.state.is_up.load(Ordering::Relaxed)
    }

    /// Answers that did not come or were errors, and writes that were dropped, since the process began.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.state.errors.load(Ordering::Relaxed)
    }

    /// Where a session's requests go, as far as the store says in time. `None` at once while it is away.
    pub(crate) async fn find(&self, key: StoredKey) -> Option<Choice> {
        if !self.is_up() {
            return None;
        }
        let (answer, answered) = oneshot::channel();
        if self.asks.try_send(Ask::Find(key, answer)).is_err() {
            self.state.errors.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        match timeout(LOOKUP_TIMEOUT, answered).await {
            Ok(answer) => answer.ok().flatten(),
            Err(_) => {
                self.state.failed();
                None
            }
        }
    }

    /// Remembers a session for this long. Never waits.
    pub(crate) fn put(&self, key: StoredKey, choice: Choice, keep: Duration) {
        self.write(Ask::Put(key, choice, keep));
    }

    /// A session is in use: it is kept for this long from now. Never waits.
    pub(crate) fn refresh(&self, key: StoredKey, keep: Duration) {
        self.write(Ask::Refresh(key, keep));
    }

    /// Ends a session. Never waits.
    pub(crate) fn remove(&self, key: StoredKey) {
        self.write(Ask::Remove(key));
    }

    fn write(&self, ask: Ask) {
        if !self.is_up() || self.asks.try_send(ask).is_err() {
            self.state.errors.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The task that owns the connection.
struct Owner {
    address: StoreAddress,
    asked: mpsc::Receiver<Ask>,
    state: Arc<State>,
}

/// Why a connection is of no use any more.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("it did not answer in time")]
    TimedOut,
    #[error(transparent)]
    Redis(#[from] RedisError),
}

impl Owner {
    async fn run(mut self) {
        let mut pause = PAUSE_MIN;
        let mut is_said = false;
        while !self.asked.is_closed() {
            let broken = match self.connect().await {
                Ok(connection) => {
                    tracing::info!(store = %self.address.shown, "the session store answers");
                    (pause, is_said) = (PAUSE_MIN, false);
                    match self.serve(connection).await {
                        Ok(()) => return,
                        Err(broken) => broken,
                    }
                }
                Err(broken) => broken,
            };
            self.state.failed();
            if !is_said {
                tracing::warn!(
                    store = %self.address.shown,
                    reason = %broken,
                    "the session store is away: each proxy goes on with the sessions that it knows"
                );
                is_said = true;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn connect(&self) -> Result<MultiplexedConnection, Broken> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(STORE_TIMEOUT))
            .set_response_timeout(Some(STORE_TIMEOUT));
        let connect = async {
            let mut connection =
                self.address.client.get_multiplexed_async_connection_with_config(&config).await?;
            ping(&mut connection).await?;
            Ok(connection)
        };
        timeout(STORE_TIMEOUT, connect).await.map_err(|_| Broken::TimedOut)?
    }

    /// Ends well only where nobody is left to ask.
    async fn serve(&mut self, mut connection: MultiplexedConnection) -> Result<(), Broken> {
        self.state.is_up.store(true, Ordering::Relaxed);
        let mut asks = Vec::with_capacity(PIPELINE_MAX);
        loop {
            match timeout(PING_INTERVAL, self.asked.recv_many(&mut asks, PIPELINE_MAX)).await {
                Ok(0) => return Ok(()),
                Ok(_) => {
                    let asked = ask(&mut connection, &mut asks, &self.state);
                    timeout(STORE_TIMEOUT, asked).await.map_err(|_| Broken::TimedOut)??;
                }
                Err(_) => match timeout(LOOKUP_TIMEOUT, ping(&mut connection)).await {
                    Ok(answered) => {
                        answered?;
                        self.state.is_up.store(true, Ordering::Relaxed);
                    }
                    // Too slow for requests, and there all the same.
                    Err(_) => self.state.failed(),
                },
            }
        }
    }
}

async fn ping(connection: &mut MultiplexedConnection) -> Result<(), Broken> {
    Ok(redis::cmd("PING").query_async(connection).await?)
}

/// Sends what was asked, and gives the answers to those who still wait.
async fn ask(
    connection: &mut MultiplexedConnection,
    asks: &mut Vec<Ask>,
    state: &State,
) -> Result<(), Broken> {
    let mut pipeline = redis::pipe();
    // One refused write, of a store that is full, is no reason to lose the other answers.
    pipeline.ignore_errors();
    for ask in &*asks {
        match ask {
            Ask::Find(key, _) => pipeline.cmd("GET").arg(key.to_string()),
            Ask::Put(key, choice, keep) => {
                let set = pipeline.cmd("SET").arg(key.to_string()).arg(&to_bytes(*choice)[..]);
                set.arg("EX").arg(seconds(*keep))
            }
            Ask::Refresh(key, keep) => pipeline.cmd("EXPIRE").arg(key.to_string()).arg(seconds(*keep)),
            Ask::Remove(key) => pipeline.cmd("DEL").arg(key.to_string()),
        };
    }
    let answers: Vec<Value> = pipeline.query_async(connection).await?;
    for (ask, answer) in asks.drain(..).zip(answers) {
        match (ask, answer) {
            (_, Value::ServerError(error)) => {
                state.errors.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(code = error.code(), "the session store refused a command");
            }
            (Ask::Find(_, waiting), Value::BulkString(bytes)) => {
                // Who does not wait any more has gone on without.
                let _ = waiting.send(of_bytes(&bytes));
            }
            _ => {}
        }
    }
    Ok(())
}

fn to_bytes(choice: Choice) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&choice.set.to_be_bytes());
    bytes[4..].copy_from_slice(&choice.backend.to_be_bytes());
    bytes
}

/// `None` for what another program wrote there.
fn of_bytes(bytes: &[u8]) -> Option<Choice> {
    let bytes: &[u8; 12] = bytes.try_into().ok()?;
    let (set, backend) = bytes.split_first_chunk()?;
    let backend = backend.try_into().ok()?;
    Some(Choice { set: u32::from_be_bytes(*set), backend: u64::from_be_bytes(backend) })
}

/// At least one: 0 would end the session.
fn seconds(keep: Duration) -> u64 {
    keep.as_secs().max(1)
}

#[cfg(test)]
pub(super) mod tests;

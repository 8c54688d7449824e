//! A replica's end: dials whoever holds the Lease and tells of its own proxies.

use super::{shares, wire};
use crate::lease::{Holder, Leader};
use crate::store::{FleetObserver, PoolSummary, Reach, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use weir_dial::{
    BACKOFF_MIN, Backoff, Credentials, DialError, Dialer, Link, Random, Target, TargetError, with_causes,
};
use weir_proto::limits::MESSAGE_BYTES_MAX;
use weir_proto::push::ReplicaMessage;
use weir_proto::push::replicas_client::ReplicasClient;
use weir_proto::renewal::DIAL_AGAIN_TRAILER;

/// A change is told at once, further ones together this long after it.
pub const REPORT_INTERVAL: Duration = Duration::from_millis(100);

/// A stream that lasted this long was no failure: the next dial is not delayed by those before it.
const SETTLED_AFTER: Duration = Duration::from_secs(10);

/// Reports that wait for the stream.
const OUTBOUND_BUFFER: usize = 64;

/// How other replicas are dialled at the addresses that the Lease names.
#[derive(Debug, Clone)]
pub struct Peers {
    is_tls: bool,
    credentials: Credentials,
}

impl Peers {
    /// Replicas are alike: one that has TLS finds it at the others.
    ///
    /// # Errors
    /// [`TargetError`] where the credentials do not fit.
    pub fn new(is_tls: bool, credentials: Credentials) -> Result<Self, TargetError> {
        let peers = Self { is_tls, credentials };
        // Any address will do: what can be wrong is what the command line says.
        peers.target(SocketAddr::from(([127, 0, 0, 1], 9901))).map(|_| peers)
    }

    fn target(&self, address: SocketAddr) -> Result<Target, TargetError> {
        let scheme = if self.is_tls { "https" } else { "http" };
        Target::new(&format!("{scheme}://{address}"), self.credentials.clone())
    }
}

/// Tells the holder of the Lease what this process's proxies make of each pool.
#[derive(Debug)]
pub struct Reporter {
    /// This replica, as the Lease would name it.
    pub me: Arc<str>,
    /// What is told.
    pub store: Arc<Store>,
    /// To whom.
    pub leader: watch::Receiver<Leader>,
    /// How they are dialled.
    pub peers: Peers,
}

impl Reporter {
    /// Runs for as long as it is polled.
    pub async fn run(mut self) {
        let mut random = Random::default();
        loop {
            let leader = self.leader.borrow_and_update().clone();
            // One that the Lease names as this replica is a process before this one, or a twin by mistake.
            let other = leader.holder.filter(|holder| !leader.is_me && holder.name != self.me);
            let report = async {
                match &other {
                    Some(holder) => self.report_to(holder, &mut random).await,
                    None => std::future::pending().await,
                }
            };
            let mut changes = self.leader.clone();
            tokio::select! {
                changed = changes.changed() => if changed.is_err() {
                    // Nobody campaigns any more: the process ends.
                    return std::future::pending().await;
                },
                () = report => {}
            }
        }
    }

    /// Until the future is dropped: dials for as long as this replica is the holder.
    async fn report_to(&self, holder: &Holder, random: &mut Random) {
        let target = match self.peers.target(holder.address) {
            Ok(target) => target,
            Err(error) => {
                tracing::error!(%holder, reason = %error, "cannot report to the holder of the Lease");
                return std::future::pending().await;
            }
        };
        let (mut dialer, mut backoff) = (Dialer::from(target), Backoff::default());
        let mut said = None;
        loop {
            let begun = Instant::now();
            let reason = match self.stream(&mut dialer, random, holder).await {
                End::Age => {
                    // Never in a tight loop, whatever the other end does.
                    sleep(BACKOFF_MIN.saturating_sub(begun.elapsed())).await;
                    continue;
                }
                End::Dial(error) => with_causes(&error),
                End::Status(reason) => reason,
            };
            dialer.failed();
            if begun.elapsed() >= SETTLED_AFTER {
                backoff.reset();
                said = None;
            }
            if said.as_ref() != Some(&reason) {
                tracing::warn!(%holder, %reason, "status does not count this replica's proxies: its holder cannot be told of them");
                said = Some(reason);
            }
            sleep(backoff.wait(random)).await;
        }
    }

    async fn stream(&self, dialer: &mut Dialer, random: &mut Random, holder: &Holder) -> End {
        let link = match dialer.dial(random).await {
            Ok(link) => link,
            Err(error) => return End::Dial(error),
        };
        let Err(status) = self.tell(&link, holder).await else {
            return End::Status("it wants to hear no more".into());
        };
        if status.metadata().contains_key(DIAL_AGAIN_TRAILER) {
            return End::Age;
        }
        End::Status(link.explain(&status))
    }

    async fn tell(&self, link: &Link, holder: &Holder) -> Result<(), Status> {
        let mut client = ReplicasClient::new(link.channel()).max_encoding_message_size(MESSAGE_BYTES_MAX);
        let (outbound, receiver) = mpsc::channel(OUTBOUND_BUFFER);
        let told = client.report(link.request(ReceiverStream::new(receiver)));
        tracing::debug!(%holder, "reporting to the holder of the Lease");
        let mut report = Report::begin(&self.store, &self.me);
        tokio::select! {
            told = told => told.map(|_| ()),
            () = feed(&mut report, &outbound) => Ok(()),
            ended = shares::pass_on(link, self.store.desk(), &self.me) => ended,
        }
    }
}

/// Ends when nobody takes the messages any more; the call itself says why, unless it never ends.
async fn feed(report: &mut Report, outbound: &mpsc::Sender<ReplicaMessage>) {
    loop {
        while let Some(message) = report.next_message() {
            if outbound.send(message).await.is_err() {
                return std::future::pending().await;
            }
        }
        sleep(REPORT_INTERVAL).await;
        report.changed().await;
    }
}

/// What one stream has told of a process's proxies, and what it has to tell. No I/O.
#[derive(Debug)]
pub struct Report {
    store: Arc<Store>,
    observer: FleetObserver,
    hello: Option<ReplicaMessage>,
    /// Pools of which there may be something to tell.
    due: BTreeSet<Arc<str>>,
    told: BTreeMap<Arc<str>, PoolSummary>,
}

impl Report {
    /// Of the proxies of this store, by the replica of this name. Nothing is told yet.
    #[must_use]
    pub fn begin(store: &Arc<Store>, me: &str) -> Self {
        Self {
            store: Arc::clone(store),
            observer: store.observe_fleet(Reach::Own),
            hello: Some(wire::hello(me)),
            due: BTreeSet::new(),
            told: BTreeMap::new(),
        }
    }

    /// The next message, of the newest state; `None` when all is told.
    pub fn next_message(&mut self) -> Option<ReplicaMessage> {
        if let Some(hello) = self.hello.take() {
            return Some(hello);
        }
        self.due.append(&mut self.observer.take());
        while let Some(pool) = self.due.pop_first() {
            let summary = self.store.summary(&pool, Reach::Own);
            let before = self.told.get(&pool);
            if before == Some(&summary) || (before.is_none() && summary.proxies == 0) {
                continue;
            }
            let message = wire::report(&pool, &summary);
            if summary.proxies == 0 {
                self.told.remove(&pool);
            } else {
                self.told.insert(pool, summary);
            }
            return Some(message);
        }
        None
    }

    /// Returns when there may be something to tell. Cancellation safe.
    pub async fn changed(&self) {
        self.observer.changed().await;
    }
}

/// Why a stream ended.
enum End {
    /// Its age: dialled again at once.
    Age,
    Dial(DialError),
    Status(String),
}

//! The task that looks names up, and what others have of it.

use super::names::{Answer, Names, Output};
use super::resolver::{Servers, System};
use super::{Lookup, Reach, Resolution, Wanted, What};
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{mpsc, watch};

/// News of names that wait to be taken; past it lookups wait.
pub const NEWS_MAX: usize = 1024;

/// News of one name; `None` where it is not looked up any more.
pub type Answered = (Lookup, Option<Arc<Resolution>>);

/// What whoever compiles has of the lookups.
#[derive(Debug)]
pub struct Client {
    wanted: watch::Sender<Wanted>,
    answers: mpsc::Receiver<Answered>,
}

/// Looks names up for as long as it is polled.
#[derive(Debug)]
pub struct Lookups {
    servers: Servers,
    reach: Reach,
    seed: u64,
    meters: Meters,
    wanted: watch::Receiver<Wanted>,
    answers: mpsc::Sender<Answered>,
}

/// How a lookup ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Ending {
    /// With addresses.
    Addresses,
    /// NXDOMAIN.
    NoSuchName,
    /// Without an address.
    NoAddress,
    /// The server failed, or did not answer.
    Failed,
}

/// Label of a count.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfEnding {
    ending: Ending,
}

/// What is counted.
#[derive(Debug, Clone)]
pub struct Meters {
    /// Lookups that ended.
    pub lookups: Family<OfEnding, Counter>,
    /// Names that are looked up.
    pub names: Gauge,
    began: Instant,
    /// When the oldest good answer was given that is served, in ms after `began`; [`u64::MAX`]: there is none.
    oldest_good_ms: Arc<AtomicU64>,
}

impl Default for Meters {
    fn default() -> Self {
        let oldest_good_ms = Arc::new(AtomicU64::new(u64::MAX));
        let lookups = Family::<OfEnding, Counter>::default();
        for ending in [Ending::Addresses, Ending::NoSuchName, Ending::NoAddress, Ending::Failed] {
            let _ = lookups.get_or_create(&OfEnding { ending });
        }
        Self { lookups, names: Gauge::default(), began: Instant::now(), oldest_good_ms }
    }
}

impl Meters {
    /// The age of the oldest good answer that is served; zero where none is.
    #[must_use]
    pub fn oldest_answer_age(&self) -> Duration {
        match self.oldest_good_ms.load(Ordering::Relaxed) {
            u64::MAX => Duration::ZERO,
            ms => self.began.elapsed().saturating_sub(Duration::from_millis(ms)),
        }
    }

    fn ended(&self, answer: &Answer) {
        let ending = match answer {
            Answer::Addresses { .. } => Ending::Addresses,
            Answer::Nothing { what: What::NoSuchName, .. } => Ending::NoSuchName,
            Answer::Nothing { .. } => Ending::NoAddress,
            Answer::Failed(_) => Ending::Failed,
        };
        self.lookups.get_or_create(&OfEnding { ending }).inc();
    }

    fn measure(&self, names: &Names) {
        self.names.set(i64::try_from(names.len()).unwrap_or(i64::MAX));
        let ms = names.oldest_good().map(|at| at.saturating_duration_since(self.began).as_millis());
        let ms = ms.map_or(u64::MAX, |ms| u64::try_from(ms).unwrap_or(u64::MAX));
        self.oldest_good_ms.store(ms, Ordering::Relaxed);
    }
}

/// The two ends of looking names up. `seed` should differ between processes.
#[must_use]
pub fn client(servers: Servers, reach: Reach, seed: u64, meters: Meters) -> (Client, Lookups) {
    let (wanted, wanted_receiver) = watch::channel(Wanted::default());
    let (sender, answers) = mpsc::channel(NEWS_MAX);
    let lookups = Lookups { servers, reach, seed, meters, wanted: wanted_receiver, answers: sender };
    (Client { wanted, answers }, lookups)
}

impl Client {
    /// From now on these names are wanted and no others. Costs nothing where they are the same.
    pub fn want(&self, wanted: &Wanted) {
        self.wanted.send_if_modified(|before| {
            let is_same = Arc::ptr_eq(before, wanted) || before == wanted;
            before.clone_from(wanted);
            !is_same
        });
    }

    /// Waits for news, and takes what there is, at most [`NEWS_MAX`]. Waits for ever once nobody looks names up any
    /// more. Cancel-safe: what was taken is in the answer.
    pub async fn news(&mut self) -> Vec<Answered> {
        let mut news = Vec::new();
        if self.answers.recv_many(&mut news, NEWS_MAX).await == 0 {
            std::future::pending::<()>().await;
        }
        news
    }
}

impl Lookups {
    /// Ends when the other end is gone.
    pub async fn run(mut self) {
        let mut system = System::new(self.servers);
        let mut names = Names::new(self.reach, self.seed, Instant::now(), SystemTime::now());
        let mut under_way: FuturesUnordered<BoxFuture<'static, (Lookup, Answer)>> = FuturesUnordered::new();
        loop {
            while let Some(output) = names.next(Instant::now()) {
                match output {
                    Output::Ask(lookup, found_as) => {
                        let sources = system.sources();
                        under_way.push(Box::pin(async move {
                            let answer = sources.look_up(&lookup, found_as.as_deref()).await;
                            (lookup, answer)
                        }));
                    }
                    Output::Tell(lookup, resolution) => {
                        if self.answers.send((lookup, resolution)).await.is_err() {
                            return;
                        }
                    }
                }
            }
            self.meters.measure(&names);
            let due = names.due();
            let wake = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.wanted.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let wanted = Arc::clone(&self.wanted.borrow_and_update());
                    names.want(Instant::now(), &wanted);
                }
                Some((lookup, answer)) = under_way.next() => {
                    tracing::debug!(name = %lookup.hostname, ?answer, "looked up");
                    self.meters.ended(&answer);
                    names.answered(Instant::now(), &lookup, answer);
                }
                () = wake => {}
            }
        }
    }
}

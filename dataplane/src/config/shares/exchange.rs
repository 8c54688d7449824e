//! Between the task that keeps shares and the one that follows the stream. What waits to be said is the newest demand.

use super::LEAVE_TIMEOUT;
use super::holdings::{Keeps, Standing};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::timeout;
use weir_proto::push::{Demand, Shares};

/// Words that wait for the task; who speaks waits with one past it.
const HEARD_MAX: usize = 16;

/// What the task hears.
#[derive(Debug)]
pub enum Heard {
    /// The limits in force may be others.
    Look,
    /// A stream has begun.
    Stream {
        /// Its controller has the capability: otherwise there is no other proxy.
        gives_shares: bool,
    },
    /// What the stream brought.
    Shares(Shares),
    /// The proxy ends. The sender is dropped when the controller knows.
    Leave(Keeps, oneshot::Sender<()>),
}

/// The stream's side, and what waits for it.
#[derive(Debug)]
pub struct Exchange {
    demand: Mutex<Option<Demand>>,
    standing: Mutex<Standing>,
    notify: Notify,
    heard: mpsc::Sender<Heard>,
}

impl Exchange {
    /// With where the task hears what comes.
    #[must_use]
    pub fn new() -> (Arc<Self>, mpsc::Receiver<Heard>) {
        let (heard, receiver) = mpsc::channel(HEARD_MAX);
        let exchange =
            Self { demand: Mutex::default(), standing: Mutex::default(), notify: Notify::new(), heard };
        (Arc::new(exchange), receiver)
    }

    /// Returns when there may be something to say. Cancellation safe.
    pub(crate) async fn changed(&self) {
        self.notify.notified().await;
    }

    /// The demand to send, if it was not taken yet.
    pub(crate) fn next(&self) -> Option<Demand> {
        lock(&self.demand).take()
    }

    /// A stream has begun: nothing was said on it.
    pub(crate) async fn begin(&self, gives_shares: bool) {
        lock(&self.demand).take();
        // With nobody there to hear, nothing is shared.
        let _ = self.heard.send(Heard::Stream { gives_shares }).await;
    }

    /// What the stream brought.
    pub(crate) async fn hear(&self, shares: Shares) {
        let _ = self.heard.send(Heard::Shares(shares)).await;
    }

    /// The limits in force may be others. Where words wait, the task looks anyway.
    pub(crate) fn look(&self) {
        let _ = self.heard.try_send(Heard::Look);
    }

    /// Gives shares up, as the proxy ends; returns when the controller knows, or after [`LEAVE_TIMEOUT`].
    pub(crate) async fn leave(&self, keeps: Keeps) {
        let (done, gone) = oneshot::channel();
        let told = async {
            if self.heard.send(Heard::Leave(keeps, done)).await.is_ok() {
                let _ = gone.await;
            }
        };
        let _ = timeout(LEAVE_TIMEOUT, told).await;
    }

    /// How shares stand, for the metrics.
    #[must_use]
    pub fn standing(&self) -> Standing {
        *lock(&self.standing)
    }

    pub(super) fn say(&self, demand: Demand) {
        *lock(&self.demand) = Some(demand);
        self.notify.notify_one();
    }

    pub(super) fn show(&self, standing: Standing) {
        *lock(&self.standing) = standing;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics between two writes that belong together.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

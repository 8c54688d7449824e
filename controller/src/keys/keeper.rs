//! The task beside the API server: every replica follows the Secret, the holder keeps it.

use super::ring::{Key, RandomError, Ring};
use super::secret::{self, Plan, Why};
use super::{ROTATION_INTERVAL_MAX, ROTATION_INTERVAL_MIN, SECRET_NAME};
use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::watch_object;
use kube::{Api, Client};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Names this program in the Secret's managed fields.
const FIELD_MANAGER: &str = "weir-controller";

/// After a write that failed; and until what was written comes back by the watch.
const RETRY_PERIOD: Duration = Duration::from_secs(5);

/// Longest time without a look at the clock of the day, which may be set.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// Longest wait for the API server's answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Follows the Secret, and keeps it while this replica may write.
#[derive(Debug)]
pub struct Keeper {
    api: Api<Secret>,
    rotation: Duration,
    may_write: watch::Receiver<bool>,
    ring: watch::Sender<Option<Arc<Ring>>>,
}

/// Why the Secret could not be written.
#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error(transparent)]
    Random(#[from] RandomError),
    #[error("the API server did not answer in time")]
    TimedOut,
    #[error("{0}")]
    Api(#[source] Box<kube::Error>),
}

impl Keeper {
    /// For the controller's own namespace. `rotation` is brought between [`ROTATION_INTERVAL_MIN`] and
    /// [`ROTATION_INTERVAL_MAX`].
    #[must_use]
    pub fn new(
        client: Client,
        namespace: &str,
        rotation: Duration,
        may_write: watch::Receiver<bool>,
    ) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            rotation: rotation.clamp(ROTATION_INTERVAL_MIN, ROTATION_INTERVAL_MAX),
            may_write,
            ring: watch::Sender::new(None),
        }
    }

    /// The newest whole ring, `None` before the first. A Secret that goes or breaks leaves the ring as it is until
    /// the holder has made another.
    #[must_use]
    pub fn ring(&self) -> watch::Receiver<Option<Arc<Ring>>> {
        self.ring.subscribe()
    }

    /// Runs until `shutdown` completes. Errors of the API server are logged and tried again for ever.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        tokio::select! {
            () = shutdown => {}
            () = self.keep() => {}
        }
    }

    async fn keep(&mut self) {
        let mut states = std::pin::pin!(watch_object(self.api.clone(), SECRET_NAME).default_backoff());
        // `None` before the first word of the API server: "not there yet" and "not there" are not the same.
        let mut found: Option<Option<Secret>> = None;
        let mut due = Instant::now();
        loop {
            let tends = *self.may_write.borrow_and_update() && found.is_some();
            tokio::select! {
                state = states.next() => match state {
                    Some(Ok(state)) => {
                        self.publish(state.as_ref());
                        found = Some(state);
                        due = Instant::now();
                    }
                    Some(Err(error)) => {
                        tracing::warn!(secret = SECRET_NAME, %error, "the watch of the keys failed; trying again");
                    }
                    // It never ends; if it did, the keys there are would serve on.
                    None => return std::future::pending().await,
                },
                changed = self.may_write.changed() => {
                    if changed.is_err() {
                        // Nobody will ever be told to write again: the process is ending.
                        return std::future::pending().await;
                    }
                    due = Instant::now();
                }
                () = tokio::time::sleep_until(due), if tends => {
                    let wait = self.tend(found.as_ref().and_then(Option::as_ref)).await;
                    due = Instant::now() + wait;
                }
            }
        }
    }

    fn publish(&self, state: Option<&Secret>) {
        let Some(state) = state else {
            return tracing::info!(
                secret = SECRET_NAME,
                "there are no keys; the holder of the Lease makes them"
            );
        };
        let Some(ring) = secret::ring(state) else {
            return tracing::warn!(
                secret = SECRET_NAME,
                "the keys are malformed; the last good ones serve until the holder of the Lease has mended them"
            );
        };
        self.ring.send_if_modified(|known| {
            let is_new = known.as_deref() != Some(&ring);
            if is_new {
                *known = Some(Arc::new(ring));
            }
            is_new
        });
    }

    /// Returns for how long there is nothing to do, if the Secret does not change.
    async fn tend(&self, found: Option<&Secret>) -> Duration {
        let now = Timestamp::now();
        let done = match secret::plan(found, now, self.rotation, Key::random) {
            Ok(Plan::KeepUntil(until)) => {
                let left = Duration::try_from(until.duration_since(now)).unwrap_or_default();
                return left.min(CHECK_INTERVAL);
            }
            Ok(Plan::Create(secret)) => self.write(&secret, None).await,
            Ok(Plan::Replace { secret, why }) => self.write(&secret, Some(why)).await,
            Err(error) => Err(error.into()),
        };
        if let Err(error) = done {
            tracing::error!(secret = SECRET_NAME, %error, "the keys could not be written; those there are serve on");
        }
        RETRY_PERIOD
    }

    async fn write(&self, secret: &Secret, why: Option<Why>) -> Result<(), KeepError> {
        let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
        let written = async {
            match why {
                None => self.api.create(&params, secret).await,
                Some(_) => self.api.replace(SECRET_NAME, &params, secret).await,
            }
        };
        match tokio::time::timeout(REQUEST_TIMEOUT, written).await {
            Ok(Ok(_)) => {
                match why {
                    None => tracing::info!(secret = SECRET_NAME, "keys are made"),
                    Some(Why::Rotation) => tracing::info!(secret = SECRET_NAME, "keys are rotated"),
                    Some(Why::Mended) => tracing::warn!(secret = SECRET_NAME, "malformed keys are mended"),
                }
                Ok(())
            }
            // Somebody was faster; the watch says what there is now.
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => Ok(()),
            Ok(Err(error)) => Err(KeepError::Api(Box::new(error))),
            Err(_) => Err(KeepError::TimedOut),
        }
    }
}

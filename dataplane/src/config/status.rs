//! What the control side of this proxy knows, for people and scrapes. Never read by the request path.

use lb_core::backend::BackendSet;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use weir_proto::push::{SetDigest, Version};

use super::convert::Rejection;

/// Time in which a proxy whose stream ended only because of its age still counts as in step. The next stream takes
/// milliseconds.
const RENEWAL_GRACE: Duration = Duration::from_secs(5);

/// Shared by the task that applies configuration and those that show it.
#[derive(Debug, Default)]
pub struct Status {
    pools: Mutex<BTreeMap<String, PoolStatus>>,
    link: Mutex<Link>,
    snapshot_version: AtomicU64,
    nacks: AtomicU64,
    snapshot_requests: AtomicU64,
    connects: AtomicU64,
    state_writes: AtomicU64,
    state_write_failures: AtomicU64,
    started: OnceLock<Instant>,
}

/// One pool as this proxy serves it.
#[derive(Debug, Clone, Default)]
pub struct PoolStatus {
    /// As the controller last confirmed it; `None` while no stream has.
    pub version: Option<Version>,
    /// Of the configuration in force; `None` when none ever was.
    pub config_digest: Option<u64>,
    /// Of the contents held.
    pub set_digests: Vec<SetDigest>,
    /// Why the newest configuration is not in force, or a backend is left out.
    pub refusal: Option<Rejection>,
    /// By name.
    pub sets: BTreeMap<String, Arc<BackendSet>>,
}

#[derive(Debug, Default)]
enum Link {
    /// Never been in step with a controller.
    #[default]
    Never,
    /// Never been in step with a controller in this process, but in one before.
    Restored {
        /// Then it was last known to be the newest.
        saved: SystemTime,
        /// Time from then to `at`.
        age: Duration,
        at: Instant,
    },
    /// Connected, everything applied.
    InStep,
    /// In step until then, when the controller ended the stream because of its age; the next one is being opened.
    Renewing(Instant),
    /// In step until then.
    Lost(Instant),
}

impl Status {
    /// All pools, by name.
    #[must_use]
    pub fn pools(&self) -> BTreeMap<String, PoolStatus> {
        self.lock().clone()
    }

    /// Number of pools held.
    #[must_use]
    pub fn pool_count(&self) -> usize {
        self.lock().len()
    }

    /// Number of pools of which something is refused.
    #[must_use]
    pub fn refused_count(&self) -> usize {
        self.lock().values().filter(|pool| pool.refusal.is_some()).count()
    }

    /// Version of the snapshot in force; grows by one with each swap.
    #[must_use]
    pub fn snapshot_version(&self) -> u64 {
        self.snapshot_version.load(Ordering::Relaxed)
    }

    /// Configurations and backends refused since the process started.
    #[must_use]
    pub fn nacks(&self) -> u64 {
        self.nacks.load(Ordering::Relaxed)
    }

    /// Times that this proxy was out of step and asked for a whole pool.
    #[must_use]
    pub fn snapshot_requests(&self) -> u64 {
        self.snapshot_requests.load(Ordering::Relaxed)
    }

    /// Streams begun since the process started.
    #[must_use]
    pub fn connects(&self) -> u64 {
        self.connects.load(Ordering::Relaxed)
    }

    /// Whether a controller is connected and everything that it knew is applied.
    #[must_use]
    pub fn is_in_step(&self) -> bool {
        match *self.link() {
            Link::InStep => true,
            Link::Renewing(since) => since.elapsed() < RENEWAL_GRACE,
            Link::Never | Link::Restored { .. } | Link::Lost(_) => false,
        }
    }

    /// How long ago the configuration was last known to be the newest: zero while in step, `None` when it never
    /// was.
    #[must_use]
    pub fn config_age(&self) -> Option<Duration> {
        match *self.link() {
            Link::Never => None,
            Link::Restored { age, at, .. } => Some(age + at.elapsed()),
            Link::InStep => Some(Duration::ZERO),
            Link::Renewing(since) | Link::Lost(since) => Some(since.elapsed()),
        }
    }

    /// While a configuration serves that was kept on disk and that no controller has confirmed: when it was last known
    /// to be the newest.
    #[must_use]
    pub fn restored_from(&self) -> Option<SystemTime> {
        match *self.link() {
            Link::Restored { saved, .. } => Some(saved),
            _ => None,
        }
    }

    /// Times that the configuration was written to disk.
    #[must_use]
    pub fn state_writes(&self) -> u64 {
        self.state_writes.load(Ordering::Relaxed)
    }

    /// Times that it could not be.
    #[must_use]
    pub fn state_write_failures(&self) -> u64 {
        self.state_write_failures.load(Ordering::Relaxed)
    }

    /// The process's zero of time was then: what sets and backends are told the time by.
    pub(super) fn started(&self, at: Instant) {
        // Said once, when the proxy is put together.
        let _ = self.started.set(at);
    }

    /// Time since the process began.
    #[must_use]
    pub fn since_start(&self) -> Duration {
        self.started.get().map_or(Duration::ZERO, Instant::elapsed)
    }

    pub(super) fn committed(&self, version: u64) {
        self.snapshot_version.store(version, Ordering::Relaxed);
    }

    pub(super) fn set_pool(&self, name: &str, status: PoolStatus) {
        self.lock().insert(name.into(), status);
    }

    pub(super) fn moved(&self, name: &str, version: Option<Version>, digests: Vec<SetDigest>) {
        if let Some(pool) = self.lock().get_mut(name) {
            pool.version = version;
            pool.set_digests = digests;
        }
    }

    pub(super) fn refused(&self, name: &str, rejection: Rejection) {
        self.nacks.fetch_add(1, Ordering::Relaxed);
        self.lock().entry(name.into()).or_default().refusal = Some(rejection);
    }

    /// What was refused was taken back.
    pub(super) fn healed(&self, name: &str) {
        if let Some(pool) = self.lock().get_mut(name) {
            pool.refusal = None;
        }
    }

    pub(super) fn removed(&self, name: &str) {
        self.lock().remove(name);
    }

    pub(super) fn snapshot_requested(&self) {
        self.snapshot_requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn connected(&self) {
        self.connects.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn state_written(&self, is_good: bool) {
        let count = if is_good { &self.state_writes } else { &self.state_write_failures };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// What was kept serves, which was last known to be the newest at `saved`.
    pub(super) fn restored(&self, saved: SystemTime) {
        // A clock that was moved back makes it younger than it is, never of an age below zero.
        let age = SystemTime::now().duration_since(saved).unwrap_or_default();
        *self.link() = Link::Restored { saved, age, at: Instant::now() };
    }

    pub(super) fn in_step(&self) {
        *self.link() = Link::InStep;
    }

    pub(super) fn lost(&self) {
        let mut link = self.link();
        match *link {
            Link::InStep => *link = Link::Lost(Instant::now()),
            Link::Renewing(since) => *link = Link::Lost(since),
            Link::Never | Link::Restored { .. } | Link::Lost(_) => {}
        }
    }

    /// The stream ended because of its age alone.
    pub(super) fn renewing(&self) {
        let mut link = self.link();
        if matches!(*link, Link::InStep) {
            *link = Link::Renewing(Instant::now());
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, PoolStatus>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A time as people read it, in UTC, to the second (as HTTP writes it, RFC 9110, section 5.6.7).
pub(crate) fn written(at: SystemTime) -> String {
    // What the library can write; a clock that is off by more is wrong anyway.
    let latest = SystemTime::UNIX_EPOCH + Duration::from_secs(250_000_000_000);
    httpdate::fmt_http_date(at.clamp(SystemTime::UNIX_EPOCH, latest))
}

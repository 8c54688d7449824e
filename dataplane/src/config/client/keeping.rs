//! What the follower does beside following: it restores what was kept on disk, says what is to be kept, and waits out
//! the grace in which a controller may still come.
//!
//! A proxy with a restored configuration serves it at once and is ready later: at the first complete snapshot, as any
//! proxy, or when [`crate::config::disk::StateOptions::grace`] is over, whichever comes first. So a fresh
//! configuration is preferred where one is near, and a rollout waits no longer than that where there is none.

use super::Follower;
use crate::config::disk::{Batch, Keeper, Restored, State};
use crate::config::written;
use crate::readiness::Phase;
use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;
use tokio::time::Instant;
use weir_proto::push::KeyRing;

/// What is to be kept, and until when a controller is waited for.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    /// `None` in a proxy that keeps nothing.
    keeper: Option<Keeper>,
    /// Pools of which something changed since the writer last asked.
    dirty: BTreeSet<String>,
    ring: Option<KeyRing>,
    grace_ends: Option<Instant>,
    /// Nobody is waited for any more.
    pub(super) is_grace_over: bool,
}

/// Comes by itself, whether there is a stream or not.
#[derive(Debug, Clone, Copy)]
pub(super) enum Due {
    /// The writer is ready for what changed.
    HandOver,
    /// No controller came in time.
    Grace,
}

impl Keeping {
    pub(super) fn changed(&mut self, pool: &str) {
        if self.keeper.is_some() && !self.dirty.contains(pool) {
            self.dirty.insert(pool.to_owned());
        }
    }

    pub(super) fn keys_changed(&mut self, ring: &KeyRing) {
        if self.keeper.is_some() {
            self.ring = Some(ring.clone());
        }
    }

    /// The next thing to do; never, where there is nothing. Cancelled, it takes nothing back.
    pub(super) async fn due(&self) -> Due {
        let wanted = async {
            match &self.keeper {
                Some(keeper) if !self.dirty.is_empty() || self.ring.is_some() => keeper.wanted().await,
                _ => std::future::pending().await,
            }
        };
        let grace = async {
            match self.grace_ends {
                Some(end) => tokio::time::sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = wanted => Due::HandOver,
            () = grace => Due::Grace,
        }
    }
}

impl Follower {
    /// Serves what was kept, and keeps from now on. Called before anything else.
    pub(super) fn begin_with(&mut self, state: State) {
        let State { restored, keeper, grace } = state;
        self.keeping.keeper = Some(keeper);
        if let Some(restored) = restored.filter(|restored| !restored.pools.is_empty()) {
            self.restore(restored, grace);
        }
    }

    fn restore(&mut self, restored: Restored, grace: Duration) {
        let from = written(restored.saved);
        // Before the ports, so that they begin with the keys that the process before them used.
        if let Some(ring) = &restored.ring {
            self.use_keys(ring);
        }
        for pool in restored.pools {
            let name = pool.config.pool.clone();
            if !pool.waiting.is_empty() {
                let listeners = pool.waiting.join(", ");
                tracing::warn!(
                    pool = %name, %listeners,
                    "HTTPS listeners wait for a controller, for their private keys could not be read from disk: give the proxy the key that sealed them with --state-key-file, or put --state-folder on tmpfs"
                );
            }
            let sets = self.replica.restore(pool);
            self.undecided.insert(name, sets.into_iter().collect());
        }
        self.status.restored(restored.saved);
        self.apply();
        // Nobody asked.
        self.answers.clear();
        self.keeping.grace_ends = Some(Instant::now() + grace);
        let pools = self.replica.pools().count();
        tracing::info!(
            pools,
            "serving the last known configuration, from {from}, until a controller says more"
        );
    }

    /// Does this to its end, and meanwhile what comes due. None of that changes what a Hello said that is on its way.
    pub(super) async fn beside<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                due = self.keeping.due() => self.on_due(due),
            }
        }
    }

    /// Hands what changed over to the writer, which has asked for it.
    pub fn hand_over(&mut self) {
        self.on_due(Due::HandOver);
    }

    pub(super) fn on_due(&mut self, due: Due) {
        match due {
            Due::HandOver => {
                let dirty = std::mem::take(&mut self.keeping.dirty);
                let pools = dirty.into_iter().filter_map(|pool| {
                    let keepsake = self.replica.keepsake(&pool)?;
                    Some((pool, keepsake))
                });
                let batch = Batch { pools: pools.collect(), ring: self.keeping.ring.take() };
                if let Some(keeper) = &self.keeping.keeper {
                    keeper.hand_over(batch);
                }
            }
            Due::Grace => {
                self.keeping.grace_ends = None;
                self.keeping.is_grace_over = true;
                self.show_readiness();
                if !self.is_synced && self.readiness.phase() == Phase::Ready {
                    tracing::warn!("no controller came in time: ready with the last known configuration");
                }
            }
        }
    }
}

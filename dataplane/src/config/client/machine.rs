//! The follower as a state machine, for who drives it: the task above with a stream, a simulation without one.

use super::keeping::Keeping;
use super::{Follower, RETRY_MAX};
use crate::config::apply::{Applier, PORT_LINGER};
use crate::config::disk::State;
use crate::config::replica::Replica;
use crate::config::shares;
use crate::readiness::Readiness;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::time::Instant;
use weir_proto::push::Hello;

impl Follower {
    /// Serves what was kept in `state`, if anything was.
    #[must_use]
    pub fn new(applier: Applier, state: Option<State>, readiness: Arc<Readiness>) -> Self {
        let (status, exchange) = (applier.status(), applier.exchange());
        let mut follower = Self {
            replica: Replica::default(),
            applier,
            status,
            exchange,
            shares_health: false,
            // With nobody who hears, this proxy has no shares.
            shares: shares::Exchange::new().0,
            given: None,
            gives_shares: None,
            begins_sharing: false,
            gives_back_together: false,
            received: None,
            heard: Vec::new(),
            readiness,
            answers: Vec::new(),
            undecided: BTreeMap::new(),
            is_synced: false,
            is_stream_synced: false,
            is_retry_due: false,
            close_at: None,
            retry_wait: RETRY_MAX,
            retry_at: Instant::now() + RETRY_MAX,
            keeping: Keeping::default(),
        };
        if let Some(state) = state {
            follower.begin_with(state);
        }
        follower
    }

    /// Words on shares of limits go to and from here.
    #[must_use]
    pub fn sharing(self, shares: Arc<shares::Exchange>) -> Self {
        Self { shares, ..self }
    }

    /// The proxy's copy of its pools.
    #[must_use]
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// Begins a stream: what belonged to the one before is forgotten, and this is what to say first.
    pub fn begin_stream(&mut self, proxy_id: &str) -> Hello {
        self.is_stream_synced = false;
        (self.shares_health, self.begins_sharing) = (false, false);
        self.heard.clear();
        (self.gives_back_together, self.received) = (false, None);
        (self.given, self.gives_shares) = (None, None);
        self.replica.begin_stream(proxy_id)
    }

    /// Whether everything that the controller of the newest stream knew has come.
    #[must_use]
    pub fn is_stream_synced(&self) -> bool {
        self.is_stream_synced
    }

    /// The stream has ended. Half applied is not a state that is left behind.
    pub fn end_stream(&mut self) {
        // What was refused is tried again, for no Hello is on its way that says what this proxy has.
        self.is_retry_due = true;
        self.apply();
        self.answers.clear();
        // Nobody is there to say who takes these ports over.
        self.close_at = self.applier.close_retired((Instant::now() + PORT_LINGER).into_std());
    }

    /// Tries once more to apply what was refused, at the next [`Self::settle`]. To be called when time has passed.
    pub fn retry(&mut self) {
        self.is_retry_due = true;
        self.retry_wait = (self.retry_wait * 2).min(RETRY_MAX);
        self.retry_at = Instant::now() + self.retry_wait;
    }

    /// When that is to be done next.
    #[must_use]
    pub fn retry_at(&self) -> std::time::Instant {
        self.retry_at.into_std()
    }

    /// When [`Self::settle`] closes the next port that no pool wants any more; `None` while there is none.
    #[must_use]
    pub fn close_at(&self) -> Option<std::time::Instant> {
        self.close_at
    }
}

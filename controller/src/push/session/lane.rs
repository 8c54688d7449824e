//! What a stream keeps of one pool.

use super::pace::{Beat, Urgency};
use super::{Sent, Update};
use crate::store::{Knowledge, Pool};
use std::sync::Arc;
use std::time::Instant;

/// One pool of a stream. There is one for each proxy and pool: what is rarely there is in a box.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// What the proxy is to have; `None` when the pool is gone.
    pub(super) target: Option<Arc<Pool>>,
    /// Since when its removal waits.
    pub(super) gone_since: Option<Instant>,
    /// What it will have when all that was sent has arrived.
    pub(super) sent: Option<Sent>,
    /// In the middle of being sent; then the lane is the first of `updates`.
    pub(super) update: Option<Box<Update>>,
    pub(super) is_queued: bool,
    /// The next update holds every set.
    pub(super) wants_all: bool,
    /// The proxy refused the configuration that `sent` names.
    pub(super) is_refused: bool,
    /// The store has, or had, or withholds the pool: that it is gone is known and not guessed.
    pub(super) is_named: bool,
    /// Of its changes since everything was sent once.
    pub(super) beat: Beat,
}

impl Lane {
    /// What the proxy said in its Hello to have, while nothing else is known of it.
    fn told(&self) -> Option<&Sent> {
        self.sent.as_ref().filter(|sent| sent.version.is_none())
    }

    /// Whether the proxy keeps what it said in its Hello to have, since that may be more than the store knows: a pool
    /// that the store cannot read, or one that would lose a certificate; where the configuration is the same there
    /// is nothing to lose, and backends go on changing. And a pool with a set whose backends are not known yet.
    pub(super) fn is_left_alone(&self, name: &str, knowledge: &Knowledge) -> bool {
        let Some(told) = self.told() else { return false };
        match &self.target {
            None => !self.is_named && knowledge.may_exist(name),
            Some(_) if knowledge.is_open(name) => true,
            Some(target) => knowledge.may_lack(name) && told.config_digest != target.contents.config_digest,
        }
    }

    /// Whether this stream would take from the proxy what the controller's first lists did not have: a pool, or all
    /// backends of a set. What was there and went by an event is another matter.
    pub(super) fn would_lose(&self) -> bool {
        let Some(told) = self.told() else { return false };
        let empty = weir_proto::digest::set(&[]);
        match &self.target {
            None => !self.is_named,
            Some(target) => target
                .empty_from_start
                .iter()
                .any(|set| told.sets.digest(set).is_some_and(|told| told != empty)),
        }
    }

    /// Of the newest change of its target.
    pub(super) fn urgency(&self) -> Urgency {
        let sent = self.sent.as_ref().and_then(|sent| sent.version);
        match (sent, &self.target) {
            (Some(sent), Some(target)) if target.takes_away <= sent.sequence => Urgency::MayWait,
            _ => Urgency::AtOnce,
        }
    }
}

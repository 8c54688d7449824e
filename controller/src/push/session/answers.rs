//! What the proxy says, taken in.

use super::Session;
use crate::push::breach::Breach;
use crate::push::report::Report;
use crate::store::Refusal;
use std::sync::Arc;
use weir_proto::push::{Ack, ChunkReceived, DigestReport, Nack, Version};

impl Session {
    pub(super) fn on_ack(&mut self, ack: Ack) -> Result<Option<Report>, Breach> {
        let version = ack.version.unwrap_or_default();
        if version.epoch != self.epoch {
            return Err(Breach::ForeignVersion(ack.pool));
        }
        let Some((pool, lane)) = self.lanes.get_key_value(&*ack.pool) else { return Ok(None) };
        let pool = Arc::clone(pool);
        let is_newest_config = lane.sent.as_ref().is_some_and(|sent| sent.config_digest == ack.config_digest);
        if is_newest_config && let Some(lane) = self.lanes.get_mut(&pool) {
            lane.is_refused = false;
        }
        self.answered(&pool, version);
        Ok(Some(Report::Acked { pool, version, config_digest: ack.config_digest, is_newest_config }))
    }

    pub(super) fn on_nack(&mut self, nack: Nack) -> Option<Report> {
        let (pool, _) = self.lanes.get_key_value(&*nack.pool)?;
        let pool = Arc::clone(pool);
        self.lanes.get_mut(&pool)?.is_refused = true;
        self.answered(&pool, nack.version.unwrap_or_default());
        let refusal = Refusal { version: nack.version, field: nack.field, reason: nack.reason };
        Some(Report::Refused { pool, refusal })
    }

    pub(super) fn answered(&mut self, pool: &Arc<str>, version: Version) {
        if self.awaiting.get(pool).is_some_and(|awaited| awaited.sequence <= version.sequence) {
            self.awaiting.remove(pool);
        }
    }

    pub(super) fn on_chunk_received(&mut self, received: ChunkReceived) -> Result<(), Breach> {
        if !self.chunks.arrived(&received) {
            return Err(Breach::ChunkOutOfOrder { pool: received.pool, index: received.index });
        }
        Ok(())
    }

    pub(super) fn on_digests(&mut self, report: &DigestReport) -> Option<Report> {
        let Some((pool, lane)) = self.lanes.get_key_value(&*report.pool) else {
            return self.remove_again(report);
        };
        let sent = lane.sent.as_ref()?;
        if sent.is_stray() {
            // It is to be removed, or sent whole.
            return None;
        }
        if lane.update.is_some() || self.awaiting.contains_key(pool) || sent.version != report.version {
            return None;
        }
        let what = sent.divergence(report, lane.is_refused)?;
        self.resend(&report.pool).map(|pool| Report::Diverged { pool, what })
    }

    /// Sends the whole pool again, from the beginning if it is being sent.
    pub(super) fn resend(&mut self, pool: &str) -> Option<Arc<str>> {
        let (name, _) = self.lanes.get_key_value(pool)?;
        let name = Arc::clone(name);
        let lane = self.lanes.get_mut(&name)?;
        lane.update = None;
        lane.wants_all = true;
        self.awaiting.remove(&name);
        self.dirty.insert(Arc::clone(&name));
        Some(name)
    }
}

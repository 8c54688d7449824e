//! Pools that a proxy has though they are gone: their removal is told once more.

use super::{Lane, Report, Sent, Session};
use std::sync::Arc;
use weir_proto::limits::POOLS_MAX;
use weir_proto::push::DigestReport;

impl Session {
    /// A report on a pool that this stream does not have any more. Where it crossed the removal, a second one does no harm;
    /// where that was lost, nothing else would ever end the pool. There is nothing to tell of it.
    pub(super) fn remove_again(&mut self, report: &DigestReport) -> Option<Report> {
        let is_ours = match report.version {
            Some(version) => version.epoch == self.epoch,
            // From before this stream, which was told of its end once it had begun; but for what nobody can know of.
            None => self.initial.is_none() && !self.knowledge.may_exist(&report.pool),
        };
        if !is_ours || self.lanes.len() >= POOLS_MAX {
            return None;
        }
        let sent = Sent::stray(report.version);
        let name: Arc<str> = report.pool.as_str().into();
        self.lanes.insert(Arc::clone(&name), Lane { sent: Some(sent), is_named: true, ..Lane::default() });
        self.dirty.insert(name);
        None
    }
}

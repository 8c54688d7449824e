//! Pools that a proxy has at a version of this stream, though they are gone: their removal is told once more.

use super::{Lane, Report, Sent, Session};
use std::sync::Arc;
use weir_proto::limits::POOLS_MAX;
use weir_proto::push::DigestReport;

impl Session {
    /// A report on a pool that this stream does not have any more. Where it crossed the removal, a second one does no harm;
    /// where that was lost, nothing else would ever end the pool. There is nothing to tell of it.
    pub(super) fn remove_again(&mut self, report: &DigestReport) -> Option<Report> {
        let version = report.version.filter(|version| version.epoch == self.epoch)?;
        if self.lanes.len() >= POOLS_MAX {
            return None;
        }
        let sent = Sent::stray(version);
        let name: Arc<str> = report.pool.as_str().into();
        self.lanes.insert(Arc::clone(&name), Lane { sent: Some(sent), is_named: true, ..Lane::default() });
        self.dirty.insert(name);
        None
    }
}

//! What the copy says of itself, for the controller to compare.

use super::{Replica, digests};
use std::ops::Bound;
use weir_proto::push::DigestReport;

impl Replica {
    /// Names of the pools held behind this one, or of all.
    pub fn pools_after(&self, name: Option<&str>) -> impl Iterator<Item = &str> {
        let from = name.map_or(Bound::Unbounded, Bound::Excluded);
        self.pools.range::<str, _>((from, Bound::Unbounded)).map(|(name, _)| name.as_str())
    }

    /// How many pools are held.
    #[must_use]
    pub fn pool_count(&self) -> usize {
        self.pools.len()
    }

    /// One report for each pool.
    pub fn digest_reports(&self) -> impl Iterator<Item = DigestReport> {
        self.pools().filter_map(|name| self.digest_report(name))
    }

    /// Of one pool; `None` where it is not held. Without a version where the stream has not said a word of the pool, and
    /// where it is not settled: nothing is to be compared then, but a pool that is gone, whose removal was lost, is told to
    /// go again, and would wait for ever for what will not be sent. Costs what it has sets.
    #[must_use]
    pub fn digest_report(&self, name: &str) -> Option<DigestReport> {
        let pool = self.pools.get(name)?;
        let is_settled = pool.update.is_none() && !pool.awaits_snapshot;
        let version = pool.version.filter(|_| is_settled);
        let config_digest = pool.in_force.as_ref().map_or(0, |config| config.digest);
        Some(DigestReport { pool: name.into(), version, config_digest, sets: digests(&pool.sets) })
    }
}

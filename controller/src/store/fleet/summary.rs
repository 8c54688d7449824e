//! What the proxies make of one pool, in a few numbers that add up over replicas.

use super::health::{self, UnhealthyBackends};
use std::sync::Arc;
use std::time::Duration;
use weir_proto::push::Version;

/// Refusals that a summary spells out; the others are only counted.
pub const REFUSALS_MAX: usize = 8;

/// What the proxies make of one pool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PoolSummary {
    /// Proxies that are to serve it, each once.
    pub proxies: u32,
    /// Those of them that acknowledged its newest version with its configuration in force and refused nothing of it;
    /// at most `proxies`.
    pub current: u32,
    /// While some proxy is not current, how long ago the oldest change was seen that one has not acknowledged. When all
    /// are, how long the newest change took from there to the last acknowledgement; a proxy that came later counts from its coming.
    /// `None` without proxies.
    pub oldest_lag: Option<Duration>,
    /// Whose lag that is, while some proxy is not current.
    pub slowest: Option<Arc<str>>,
    /// Proxies that refuse the configuration; at most `proxies` less `current`.
    pub refused: u32,
    /// The first [`REFUSALS_MAX`] of them by the proxy's id.
    pub refusals: Vec<(Arc<str>, Refusal)>,
    /// Bytes of the newest version's encoding, where it is too large for some proxy to be sent.
    pub too_large_bytes: Option<u64>,
    /// Of the configuration that `current` is about; 0 where there is no such pool.
    pub config_digest: u64,
    /// Backends that take no requests at some of `proxies`, whatever its configuration.
    pub unhealthy: UnhealthyBackends,
}

/// Why a proxy refused a version of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The version that was refused.
    pub version: Option<Version>,
    /// Where in the `LoadBalancerPool`.
    pub field: String,
    /// One sentence.
    pub reason: String,
}

impl PoolSummary {
    /// Whether some proxy is not current.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.current < self.proxies
    }

    /// Adds other proxies. What is current is what `self` says: the proxies of a replica with another configuration
    /// are not, whatever they acknowledged there.
    pub fn merge(&mut self, other: &Self) {
        if other.proxies == 0 {
            return;
        }
        if self.config_digest == 0 {
            self.config_digest = other.config_digest;
        }
        let is_same = self.config_digest == other.config_digest;
        let current = if is_same { other.current } else { 0 };
        let is_behind = current < other.proxies;
        let takes_other = match (self.is_behind(), is_behind) {
            (true, false) => false,
            (false, true) => true,
            // The name decides between two that are equal, so that the order of merging does not.
            (true, true) | (false, false) => {
                (other.oldest_lag, &other.slowest) > (self.oldest_lag, &self.slowest)
            }
        };
        if takes_other {
            self.oldest_lag = other.oldest_lag;
            self.slowest.clone_from(&other.slowest);
        }
        self.proxies = self.proxies.saturating_add(other.proxies);
        self.current = self.current.saturating_add(current);
        health::merge(&mut self.unhealthy, &other.unhealthy);
        if is_same {
            self.refused = self.refused.saturating_add(other.refused);
            self.refusals.extend(other.refusals.iter().cloned());
            self.refusals.sort_by(|(a, _), (b, _)| a.cmp(b));
            self.refusals.truncate(REFUSALS_MAX);
            self.too_large_bytes = self.too_large_bytes.max(other.too_large_bytes);
        }
    }

    /// The same, this long after it was said.
    pub(super) fn aged(&self, by: Duration) -> Self {
        let oldest_lag = self.oldest_lag.map(|lag| if self.is_behind() { lag + by } else { lag });
        Self { oldest_lag, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(current: u32, proxies: u32, lag_ms: u64) -> PoolSummary {
        let oldest_lag = (proxies > 0).then(|| Duration::from_millis(lag_ms));
        PoolSummary { proxies, current, oldest_lag, config_digest: 7, ..PoolSummary::default() }
    }

    fn merged(parts: &[PoolSummary]) -> PoolSummary {
        let mut all = PoolSummary { config_digest: 7, ..PoolSummary::default() };
        parts.iter().for_each(|part| all.merge(part));
        all
    }

    #[test]
    fn proxies_add_up_and_the_lag_is_that_of_those_that_are_behind() {
        let done = merged(&[summary(3, 3, 4), summary(2, 2, 9), summary(0, 0, 0)]);
        assert_eq!((done.current, done.proxies, done.oldest_lag), (5, 5, Some(Duration::from_millis(9))));
        let waiting = merged(&[summary(3, 3, 5_000), summary(1, 2, 70)]);
        assert_eq!((waiting.current, waiting.proxies), (4, 5));
        assert_eq!(waiting.oldest_lag, Some(Duration::from_millis(70)), "5 s is what a change once took");
    }

    #[test]
    fn the_order_of_merging_does_not_matter() {
        let parts = [summary(3, 3, 4), summary(1, 2, 70), summary(0, 1, 20), summary(5, 5, 900)];
        let forwards = merged(&parts);
        let backwards = merged(&[&parts[3], &parts[2], &parts[1], &parts[0]].map(Clone::clone));
        assert_eq!(forwards, backwards);
    }

    #[test]
    fn proxies_of_a_replica_with_another_configuration_are_not_current() {
        let mut other = PoolSummary { config_digest: 8, ..summary(2, 2, 4) };
        other.refused = 1;
        let all = merged(&[summary(3, 3, 4), other]);
        assert_eq!((all.current, all.proxies, all.refused), (3, 5, 0), "what it refused is not ours");
    }

    #[test]
    fn refusals_are_listed_up_to_the_limit_and_counted_past_it() {
        let refusal = |n: usize| {
            let refusal = Refusal { version: None, field: "spec".into(), reason: "no".into() };
            (Arc::from(format!("proxy-{n:02}")), refusal)
        };
        let refusing = |from: usize, count: usize| PoolSummary {
            refused: u32::try_from(count).expect("small"),
            refusals: (from..from + count).map(refusal).collect(),
            ..summary(0, 8, 1)
        };
        let at = merged(&[refusing(0, 4), refusing(4, 4)]);
        assert_eq!((at.refused, at.refusals.len()), (8, REFUSALS_MAX));
        let past = merged(&[refusing(4, 5), refusing(0, 4)]);
        assert_eq!((past.refused, past.refusals.len()), (9, REFUSALS_MAX));
        assert_eq!(&*past.refusals[0].0, "proxy-00");
    }

    #[test]
    fn what_a_replica_said_of_a_proxy_that_is_behind_grows_older() {
        let later = Duration::from_secs(2);
        assert_eq!(summary(0, 1, 10).aged(later).oldest_lag, Some(Duration::from_millis(2_010)));
        assert_eq!(summary(1, 1, 10).aged(later).oldest_lag, Some(Duration::from_millis(10)));
    }
}

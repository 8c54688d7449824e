//! When the proxy tells the controller what it holds, so that a divergence that nobody noticed is found and healed.
//!
//! One round takes about [`DIGEST_REPORT_INTERVAL`], whatever the number of pools: few at a time, spread over it, so that
//! ten thousand pools are never a wave of messages on either end. Each wait differs by a fifth, so that proxies which came
//! together do not stay together.

use super::super::replica::Replica;
use std::time::Duration;
use tokio::time::Instant;
use weir_dial::Random;
use weir_proto::push::DigestReport;

/// One round over all pools, give or take a fifth.
pub const DIGEST_REPORT_INTERVAL: Duration = Duration::from_secs(30);

/// Pools that are reported together.
pub const DIGEST_REPORTS_MAX: usize = 32;

/// A place in the round.
#[derive(Debug)]
pub(super) struct Rounds {
    /// The pool that was reported last; `None` at the begin of a round.
    after: Option<String>,
    pub(super) due: Instant,
}

impl Rounds {
    /// For a stream that begins.
    pub(super) fn begin(now: Instant, random: &mut Random) -> Self {
        Self { after: None, due: now + random.around(DIGEST_REPORT_INTERVAL) }
    }

    /// The next few reports.
    pub(super) fn next(&mut self, replica: &Replica, now: Instant, random: &mut Random) -> Vec<DigestReport> {
        let names: Vec<&str> = replica.pools_after(self.after.as_deref()).take(DIGEST_REPORTS_MAX).collect();
        let reports = names.iter().filter_map(|name| replica.digest_report(name)).collect();
        let is_more = |last: &&&str| replica.pools_after(Some(last)).next().is_some();
        self.after = names.last().filter(is_more).map(|last| (*last).to_owned());
        let steps = replica.pool_count().div_ceil(DIGEST_REPORTS_MAX).max(1);
        let wait = DIGEST_REPORT_INTERVAL / u32::try_from(steps).unwrap_or(u32::MAX);
        self.due = now + random.around(wait);
        reports
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use weir_proto::push::controller_message::Body;
    use weir_proto::push::{ConfigChunk, ControllerMessage, PoolConfig, PoolUpdate, Version};
    use weir_proto::{digest, limits::POOLS_MAX};

    fn chunk(name: &str, last: bool) -> ControllerMessage {
        let config = PoolConfig { pool: name.into(), ..PoolConfig::default() };
        let config_digest = digest::config(&config);
        let update = PoolUpdate { config: Some(config), config_digest, ..PoolUpdate::default() };
        let payload = prost::Message::encode_to_vec(&update).into();
        let version = Some(Version { epoch: 1, sequence: 2 });
        let chunk = ConfigChunk { pool: name.into(), version, index: 0, last, payload };
        ControllerMessage { body: Some(Body::ConfigChunk(chunk)) }
    }

    fn holding(names: impl IntoIterator<Item = String>) -> Replica {
        let mut replica = Replica::default();
        for name in names {
            replica.on_message(chunk(&name, true)).expect("no breach");
        }
        replica
    }

    #[test]
    fn every_pool_is_reported_once_in_a_round_and_few_at_a_time() {
        for count in [0, 1, DIGEST_REPORTS_MAX, DIGEST_REPORTS_MAX + 1, POOLS_MAX] {
            let replica = holding((0..count).map(|n| format!("ns/p{n:05}")));
            let (begun, mut random) = (Instant::now(), Random::default());
            let mut rounds = Rounds::begin(begun, &mut random);
            let mut reported = BTreeMap::<String, Vec<Instant>>::new();
            while rounds.due < begun + 4 * DIGEST_REPORT_INTERVAL {
                let now = rounds.due;
                let reports = rounds.next(&replica, now, &mut random);
                assert!(reports.len() <= DIGEST_REPORTS_MAX, "{}", reports.len());
                assert!(rounds.due > now, "time goes on");
                reports.into_iter().for_each(|report| reported.entry(report.pool).or_default().push(now));
            }
            assert_eq!(reported.len(), count);
            for (pool, times) in &reported {
                let first = times[0] - begun;
                assert!(first <= DIGEST_REPORT_INTERVAL * 12 / 5, "{pool} of {count}: {first:?}");
                let longest = times.windows(2).map(|pair| pair[1] - pair[0]).max().expect("several rounds");
                assert!(longest <= DIGEST_REPORT_INTERVAL * 6 / 5, "{pool} of {count}: {longest:?}");
            }
        }
    }

    #[test]
    fn a_pool_on_its_way_is_told_without_a_version_and_one_that_is_gone_ends_nothing() {
        let mut replica = holding((0..=DIGEST_REPORTS_MAX).map(|n| format!("ns/p{n:05}")));
        replica.on_message(chunk("ns/p00000", false)).expect("no breach");
        let (now, mut random) = (Instant::now(), Random::default());
        let mut rounds = Rounds::begin(now, &mut random);
        let first = rounds.next(&replica, now, &mut random);
        let versions: Vec<_> = first.iter().map(|report| report.version.is_some()).collect();
        assert_eq!((versions.len(), versions[0]), (DIGEST_REPORTS_MAX, false), "{first:?}");
        assert!(versions[1..].iter().all(|is_settled| *is_settled), "{first:?}");
        let last = format!("ns/p{:05}", DIGEST_REPORTS_MAX - 1);
        let removed = weir_proto::push::PoolRemoved { pool: last, version: None };
        let removed = ControllerMessage { body: Some(Body::PoolRemoved(removed)) };
        replica.on_message(removed).expect("no breach");
        let names = |reports: Vec<DigestReport>| reports.into_iter().map(|r| r.pool).collect::<Vec<_>>();
        let end = format!("ns/p{DIGEST_REPORTS_MAX:05}");
        assert_eq!(names(rounds.next(&replica, now, &mut random)), [end]);
        assert_eq!(rounds.next(&replica, now, &mut random).len(), DIGEST_REPORTS_MAX, "from the begin again");
    }
}

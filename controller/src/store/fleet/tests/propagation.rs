//! What is said of each proxy: how long changes took to it, what it lacks, what it refused.

use super::*;
use crate::store::{LACKS_MAX, PROXIES_LISTED_MAX};
use futures_util::FutureExt as _;

impl Bench {
    /// Makes a version of which the oldest event was seen that long before.
    fn make_seen(&self, pool: &str, sequence: u64, config: u64, before: Duration) {
        let seen = self.now.checked_sub(before).expect("the clock began before");
        self.make_at(pool, sequence, config, seen);
    }

    fn rows(&self) -> Vec<ProxyRow> {
        let mut rows = Vec::new();
        let mut after: Option<Arc<str>> = None;
        loop {
            let page = self.record.page(after.as_deref(), self.now);
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            let page = runtime.block_on(page);
            assert!(page.rows.len() <= PROXIES_LISTED_MAX);
            rows.extend(page.rows);
            match page.next {
                Some(next) => after = Some(next),
                None => return rows,
            }
        }
    }

    fn took(&self) -> Option<Took> {
        self.rows()[0].took
    }
}

#[test]
fn a_change_takes_from_when_it_was_seen_and_an_acknowledgement_settles_the_oldest_of_several() {
    let mut bench = Bench::new();
    bench.make("ns/p", 2, 1);
    let stream = bench.after(MS * 1_000).join("proxy", "ns/p");
    bench.after(MS * 5).ack(stream, "ns/p", 2, 1);
    assert_eq!(bench.took(), None, "what was there before the stream is no news");
    bench.after(MS * 100).make_seen("ns/p", 4, 1, MS * 20);
    bench.after(MS * 10).make_seen("ns/p", 6, 1, MS * 50);
    bench.make("ns/p", 8, 1);
    bench.after(MS * 3).ack(stream, "ns/p", 6, 1);
    let took = bench.took().expect("two changes");
    assert_eq!((took.last, took.count), (MS * 53, 1), "the second was seen first");
    bench.after(MS).ack(stream, "ns/p", 8, 1);
    let took = bench.took().expect("all changes");
    assert_eq!((took.last, took.longest, took.count), (MS * 4, MS * 53, 2));
    bench.ack(stream, "ns/p", 8, 1);
    assert_eq!(bench.took().map(|took| took.count), Some(2), "said again, it settles nothing");
}

#[test]
fn a_configuration_counts_when_it_is_in_force_and_a_refused_one_never() {
    let mut bench = Bench::new();
    let stream = bench.begin("proxy");
    bench.after(MS * 2).make("ns/p", 2, 1);
    bench.record.expect(stream, &"ns/p".into());
    bench.after(MS * 7).ack(stream, "ns/p", 2, 1);
    assert_eq!(
        bench.took().map(|took| took.last),
        Some(MS * 7),
        "a new pool is news to a stream that was there"
    );
    bench.make("ns/p", 4, 2);
    bench.refuse(stream, "ns/p", 4);
    bench.after(MS * 50).make("ns/p", 6, 2);
    bench.after(MS).ack(stream, "ns/p", 6, 1);
    let took = bench.took().expect("the backends of the last version");
    assert_eq!((took.last, took.count), (MS, 2));
    bench.make("ns/p", 8, 3);
    bench.after(MS * 4).ack(stream, "ns/p", 8, 3);
    assert_eq!(bench.took().map(|took| (took.last, took.count)), Some((MS * 4, 3)));
    // An acknowledgement that crosses a newer configuration is one of the configuration that it names.
    bench.make("ns/p", 10, 4);
    bench.make("ns/p", 12, 5);
    bench.after(MS * 6).ack(stream, "ns/p", 10, 4);
    assert_eq!(bench.took().map(|took| (took.last, took.count)), Some((MS * 6, 4)));
}

#[test]
fn a_lag_counts_from_when_the_change_was_seen_and_the_slowest_proxy_is_named() {
    let mut bench = Bench::new();
    let [fast, slow] = ["fast", "slow"].map(|proxy| bench.begin(proxy));
    bench.after(MS * 500).make_seen("ns/p", 2, 1, MS * 300);
    bench.record.expect(fast, &"ns/p".into());
    bench.record.expect(slow, &"ns/p".into());
    bench.ack(slow, "ns/p", 2, 1);
    let summary = bench.summary("ns/p");
    assert_eq!((summary.oldest_lag, summary.slowest.as_deref()), (Some(MS * 300), Some("fast")));
    bench.ack(fast, "ns/p", 2, 1);
    assert_eq!(bench.summary("ns/p").slowest, None);
    bench.after(MS * 10).make_seen("ns/p", 4, 1, MS);
    bench.ack(fast, "ns/p", 4, 1);
    let summary = bench.summary("ns/p");
    assert_eq!((summary.oldest_lag, summary.slowest.as_deref()), (Some(MS), Some("slow")));
}

#[test]
fn a_row_says_what_a_proxy_lacks_and_refused_by_its_newest_stream() {
    let mut bench = Bench::new();
    bench.begin("proxy");
    let stream = bench.after(MS).begin("proxy");
    let pools: Vec<String> = (0..=LACKS_MAX).map(|n| format!("ns/{n:02}")).collect();
    for (sequence, pool) in (1..).zip(&pools) {
        bench.make(pool, sequence * 2, 1);
        bench.record.expect(stream, &pool.as_str().into());
    }
    bench.refuse(stream, "ns/03", 8);
    bench.record.resent(stream, &"ns/04".into(), Resend::Diverged);
    bench.record.resent(stream, &"ns/04".into(), Resend::Requested);
    bench.after(MS * 9);
    let [row] = &bench.rows()[..] else { panic!("one proxy") };
    assert_eq!((row.pools, row.current, row.refused, row.lag), (17, 0, 1, Some(MS * 9)));
    assert_eq!(row.lacks.len(), LACKS_MAX);
    assert_eq!((&*row.lacks[1].pool, row.lacks[1].acknowledged, row.lacks[1].newest), ("ns/01", 0, 4));
    let (pool, refusal, ago) = row.last_refusal.as_ref().expect("it refused one");
    assert_eq!((&**pool, &*refusal.reason, *ago), ("ns/03", "taken", MS * 9));
    assert_eq!((row.counts.nacks, row.counts.divergences, row.counts.snapshot_requests), (1, 1, 1));
    bench.ack(stream, "ns/16", 34, 1);
    let row = &bench.rows()[0];
    assert_eq!((row.current, row.lacks.len()), (1, LACKS_MAX));
    assert_eq!(
        bench.record.counts(),
        FleetCounts { acks: 1, nacks: 1, snapshot_requests: 1, divergences: 1, too_large: 0 }
    );
}

#[test]
fn proxies_past_a_page_are_on_the_next_one_and_many_pools_are_looked_at_in_pieces() {
    let bench = Bench::new();
    let streams: Vec<_> = (0..=PROXIES_LISTED_MAX).map(|n| bench.begin(&format!("proxy-{n:04}"))).collect();
    let page = bench.record.page(None, bench.now).now_or_never().expect("without pools at once");
    assert_eq!((page.rows.len(), page.next.as_deref()), (PROXIES_LISTED_MAX, Some("proxy-0499")));
    for n in 1..=20 {
        let pool = format!("ns/{n}");
        bench.make(&pool, n * 2, 1);
        streams.iter().for_each(|stream| bench.record.expect(*stream, &pool.as_str().into()));
    }
    let rows = bench.rows();
    assert_eq!(rows.len(), PROXIES_LISTED_MAX + 1);
    assert!(rows.iter().all(|row| row.pools == 20 && row.lacks.len() == LACKS_MAX));
}

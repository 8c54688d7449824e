//! What is known of each proxy, for people: one row for each, bounded, gathered without holding anyone up.

use super::expected::count;
use super::{FleetCounts, FleetRecord, Refusal, StreamId, Took};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Proxies on one page.
pub const PROXIES_LISTED_MAX: usize = 500;

/// Pools that one row names as lacking; further ones are only counted.
pub const LACKS_MAX: usize = 16;

/// Pools, each for each of its proxies, that are looked at while the record is locked.
const LOOKS_MAX: usize = 4096;

/// Some proxies of this process, in the order of their names.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ProxyPage {
    /// At most [`PROXIES_LISTED_MAX`].
    pub rows: Vec<ProxyRow>,
    /// The name after which the next page begins; `None` on the last one.
    pub next: Option<Arc<str>>,
}

/// What is known of one proxy, by its newest stream.
#[derive(Debug, Clone, PartialEq)]
pub struct ProxyRow {
    /// As the fleet calls it.
    pub proxy: Arc<str>,
    /// How that is known.
    pub identity: Arc<str>,
    /// Of the stream.
    pub stream_age: Duration,
    /// Bytes of messages on this stream, before compression and TLS.
    pub sent_bytes: u64,
    /// Pools that it is to serve.
    pub pools: u32,
    /// Those of them whose newest version it runs.
    pub current: u32,
    /// How long ago the oldest change was seen that it lacks; `None` where it lacks none.
    pub lag: Option<Duration>,
    /// The first [`LACKS_MAX`] pools that it is behind on, by name.
    pub lacks: Vec<Lack>,
    /// Pools of which it refuses the configuration.
    pub refused: u32,
    /// The last one that it refused on this stream, with its pool and how long ago; also where it is healed.
    pub last_refusal: Option<(Arc<str>, Refusal, Duration)>,
    /// What the newest changes took to it; `None` where none came on this stream.
    pub took: Option<Took>,
    /// Of this stream.
    pub counts: FleetCounts,
}

/// A pool that a proxy is behind on.
#[derive(Debug, Clone, PartialEq)]
pub struct Lack {
    /// `namespace/name`.
    pub pool: Arc<str>,
    /// How long ago the oldest change of it was seen that the proxy lacks.
    pub lag: Duration,
    /// The sequence that it acknowledged; 0 for none.
    pub acknowledged: u64,
    /// The newest sequence.
    pub newest: u64,
}

impl FleetRecord {
    /// The proxies after that name. Costs the entries of all pools, and lets others run in between.
    pub(crate) async fn page(&self, after: Option<&str>, now: Instant) -> ProxyPage {
        let (mut rows, next) = self.begin_page(after, now);
        let mut pool: Option<Arc<str>> = None;
        while let Some(looked_at) = self.look(&mut rows, pool.as_deref(), now) {
            pool = Some(looked_at);
            tokio::task::yield_now().await;
        }
        let mut rows: Vec<_> = rows.into_values().collect();
        rows.sort_by(|a, b| a.proxy.cmp(&b.proxy));
        ProxyPage { rows, next }
    }

    fn begin_page(
        &self,
        after: Option<&str>,
        now: Instant,
    ) -> (BTreeMap<StreamId, ProxyRow>, Option<Arc<str>>) {
        let state = self.state();
        // The later of two streams of one proxy stays: streams are in the order of their age.
        let newest: BTreeMap<&str, StreamId> =
            state.streams.iter().map(|(id, stream)| (&*stream.peer.proxy, *id)).collect();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = newest.range::<str, _>((from, Bound::Unbounded));
        let mut rows = BTreeMap::new();
        let mut last = None;
        for (_, id) in rest.by_ref().take(PROXIES_LISTED_MAX) {
            let stream = &state.streams[id];
            let ago = |at: Instant| now.saturating_duration_since(at);
            let refusal = stream.last_refusal.as_ref();
            let row = ProxyRow {
                proxy: Arc::clone(&stream.peer.proxy),
                identity: Arc::clone(&stream.peer.identity),
                stream_age: ago(stream.begun),
                sent_bytes: stream.sent_bytes.load(Ordering::Relaxed),
                pools: 0,
                current: 0,
                lag: None,
                lacks: Vec::new(),
                refused: 0,
                last_refusal: refusal
                    .map(|(pool, refusal, at)| (Arc::clone(pool), refusal.clone(), ago(*at))),
                took: stream.recent.took(),
                counts: stream.counts,
            };
            last = Some(Arc::clone(&row.proxy));
            rows.insert(*id, row);
        }
        let next = last.filter(|_| rest.next().is_some());
        (rows, next)
    }

    /// Adds what the next pools say, and returns the last of them; `None` when there are no more.
    fn look(
        &self,
        rows: &mut BTreeMap<StreamId, ProxyRow>,
        after: Option<&str>,
        now: Instant,
    ) -> Option<Arc<str>> {
        let state = self.state();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut looks = 0;
        for (name, expected) in state.pools.range::<str, _>((from, Bound::Unbounded)) {
            for (stream, standing) in &expected.streams {
                let Some(row) = rows.get_mut(stream) else { continue };
                row.pools += 1;
                row.refused += count(usize::from(expected.refusal(standing).is_some()));
                if expected.is_current(standing) {
                    row.current += 1;
                    continue;
                }
                let lag = now.saturating_duration_since(expected.waits_since(standing));
                row.lag = row.lag.max(Some(lag));
                if row.lacks.len() < LACKS_MAX {
                    let (acknowledged, newest) = (standing.sequence(), expected.version.sequence);
                    row.lacks.push(Lack { pool: Arc::clone(name), lag, acknowledged, newest });
                }
            }
            looks += expected.streams.len().max(1);
            if looks >= LOOKS_MAX {
                return Some(Arc::clone(name));
            }
        }
        None
    }
}

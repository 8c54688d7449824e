//! What the proxies say of the pools: the version that each applied, and what it refused and why.
//!
//! Written by the streams; read by whoever prints status. Bounded by pools times connected proxies: a proxy's
//! entries go when its stream ends.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use weir_proto::push::Version;

/// What all proxies reported, at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fleet {
    /// Ids of the proxies with a stream, sorted; one that dials again before its old stream ended is in it twice.
    pub proxies: Vec<Arc<str>>,
    /// Pool to proxy id to report.
    pub pools: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Applied>>,
}

/// What one proxy said of one pool.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Applied {
    /// All messages up to this version are applied.
    pub version: Option<Version>,
    /// Of the configuration in force. The proxy is current when both this and the version are the store's.
    pub config_digest: u64,
    /// What it refused since.
    pub refusal: Option<Refusal>,
    /// Times that the proxy was out of step on this stream and was sent the whole pool.
    pub resent: u64,
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

/// Identifies one stream within the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StreamId(u64);

#[derive(Debug, Default)]
pub(crate) struct FleetRecord {
    streams: Mutex<Streams>,
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Streams {
    begun: u64,
    /// By stream and not by proxy, so that the end of an old stream takes nothing from the one that follows it.
    open: BTreeMap<StreamId, Stream>,
}

#[derive(Debug)]
struct Stream {
    proxy: Arc<str>,
    pools: BTreeMap<Arc<str>, Applied>,
}

impl FleetRecord {
    pub(crate) fn begin(&self, proxy: Arc<str>) -> StreamId {
        let mut streams = self.streams();
        streams.begun += 1;
        let id = StreamId(streams.begun);
        streams.open.insert(id, Stream { proxy, pools: BTreeMap::new() });
        drop(streams);
        self.announce();
        id
    }

    pub(crate) fn end(&self, stream: StreamId) {
        self.streams().open.remove(&stream);
        self.announce();
    }

    /// The newest configuration is in force; a refusal before is healed.
    pub(crate) fn acked(&self, stream: StreamId, pool: &Arc<str>, version: Version, config_digest: u64) {
        self.update(stream, pool, |applied| {
            applied.version = Some(version);
            applied.config_digest = config_digest;
            applied.refusal = None;
        });
    }

    /// Backends moved; the configuration in force is an older one.
    pub(crate) fn moved(&self, stream: StreamId, pool: &Arc<str>, version: Version, config_digest: u64) {
        self.update(stream, pool, |applied| {
            applied.version = Some(version);
            applied.config_digest = config_digest;
        });
    }

    /// The proxy was out of step and gets the whole pool.
    pub(crate) fn resent(&self, stream: StreamId, pool: &Arc<str>) {
        self.update(stream, pool, |applied| applied.resent += 1);
    }

    pub(crate) fn refused(&self, stream: StreamId, pool: &Arc<str>, refusal: Refusal) {
        self.update(stream, pool, |applied| applied.refusal = Some(refusal));
    }

    pub(crate) fn forget_pool(&self, pool: &str) {
        for stream in self.streams().open.values_mut() {
            stream.pools.remove(pool);
        }
        self.announce();
    }

    pub(crate) fn view(&self) -> Fleet {
        let streams = self.streams();
        let mut fleet = Fleet::default();
        for stream in streams.open.values() {
            fleet.proxies.push(Arc::clone(&stream.proxy));
            for (pool, applied) in &stream.pools {
                let proxies = fleet.pools.entry(Arc::clone(pool)).or_default();
                proxies.insert(Arc::clone(&stream.proxy), applied.clone());
            }
        }
        fleet.proxies.sort();
        fleet
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn update(&self, stream: StreamId, pool: &Arc<str>, change: impl FnOnce(&mut Applied)) {
        if let Some(stream) = self.streams().open.get_mut(&stream) {
            change(stream.pools.entry(Arc::clone(pool)).or_default());
        }
        self.announce();
    }

    fn announce(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    fn streams(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_an_old_stream_leaves_the_new_one_of_the_same_proxy() {
        let record = FleetRecord::default();
        let pool: Arc<str> = "ns/p".into();
        let old = record.begin("proxy-1".into());
        let new = record.begin("proxy-1".into());
        record.acked(new, &pool, Version { epoch: 1, sequence: 4 }, 9);
        record.end(old);
        let fleet = record.view();
        assert_eq!(fleet.proxies, [Arc::from("proxy-1")]);
        assert_eq!(fleet.pools["ns/p"]["proxy-1"].version.map(|v| v.sequence), Some(4));
    }

    #[test]
    fn a_refusal_stays_until_the_refused_configuration_is_in_force() {
        let record = FleetRecord::default();
        let pool: Arc<str> = "ns/p".into();
        let stream = record.begin("proxy-1".into());
        let refusal =
            Refusal { version: None, field: "spec.listeners[0].port".into(), reason: "taken".into() };
        record.refused(stream, &pool, refusal);
        record.moved(stream, &pool, Version { epoch: 1, sequence: 5 }, 1);
        assert!(record.view().pools["ns/p"]["proxy-1"].refusal.is_some(), "only backends moved");
        record.acked(stream, &pool, Version { epoch: 1, sequence: 5 }, 2);
        assert!(record.view().pools["ns/p"]["proxy-1"].refusal.is_none());
    }
}

//! Pools as the controller's store holds them, and randomness that can be repeated.

use std::collections::BTreeMap;
use std::sync::Arc;
use weir_controller::compile::BackendSetContent;
use weir_controller::store::Contents;
use weir_proto::digest;
use weir_proto::push::{
    Algorithm, Backend, BackendSet, BackendState, Listener, PathMatch, PathMatchKind, PoolConfig, Protocol,
    Rule, WeightedSet,
};

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    /// Of one of so many.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("below a length")
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// A pool in the making.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    pub(crate) name: String,
    pub(crate) port: u32,
    pub(crate) path: String,
    pub(crate) sets: BTreeMap<String, Vec<Backend>>,
}

pub(crate) fn backend(id: &str, port: u16) -> Backend {
    Backend {
        id: id.into(),
        address: format!("127.0.0.1:{port}"),
        weight: 1,
        state: BackendState::Ready.into(),
        ..Backend::default()
    }
}

impl Pool {
    /// One set, `web`, behind every path.
    pub(crate) fn new(name: &str, port: u16, backends: Vec<Backend>) -> Self {
        let sets = BTreeMap::from([("web".to_owned(), backends)]);
        Self { name: name.into(), port: port.into(), path: "/".into(), sets }
    }

    pub(crate) fn contents(&self) -> (String, Contents) {
        let set = |name: &String| BackendSet {
            name: name.clone(),
            algorithm: Algorithm::RoundRobin.into(),
            connect_timeout_ms: 1_000,
            idle_timeout_ms: 60_000,
            idle_connections_max: 4,
            source: format!("service {name}:80"),
            ..BackendSet::default()
        };
        let weighted = |name: &String| WeightedSet { set: name.clone(), weight: 1, ..WeightedSet::default() };
        let config = PoolConfig {
            pool: self.name.clone(),
            listeners: vec![Listener {
                name: "http".into(),
                port: self.port,
                protocol: Protocol::Http.into(),
                ..Listener::default()
            }],
            rules: vec![Rule {
                paths: vec![PathMatch {
                    kind: PathMatchKind::Prefix.into(),
                    value: self.path.clone(),
                    ..PathMatch::default()
                }],
                backend_sets: self.sets.keys().map(weighted).collect(),
                ..Rule::default()
            }],
            backend_sets: self.sets.keys().map(set).collect(),
        };
        let sets = self.sets.iter();
        let contents = Contents {
            config_digest: digest::config(&config),
            config: Arc::new(config),
            sets: sets
                .map(|(name, of)| (name.clone(), Arc::new(BackendSetContent::new(of.clone()))))
                .collect(),
            ..Contents::default()
        };
        (self.name.clone(), contents)
    }
}

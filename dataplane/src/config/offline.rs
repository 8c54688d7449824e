//! What would be served of configurations, without serving it: for explanations.
//!
//! The way is that of every configuration, by [`Applier`]: nothing here decides what is refused, or what it becomes.

use super::{Applier, Rejection};
use crate::health::Exchange;
use crate::listener::Sockets;
use crate::snapshot::{Current, Snapshot};
use lb_core::backend::Place;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;
use weir_proto::push;

/// The snapshot that a new proxy in this zone would serve of these pools, each with all of its sets, once every backend has
/// passed its first check; and why it would refuse a pool. No port is bound. Costs what an apply costs.
#[must_use]
pub fn snapshot(pools: Vec<push::PoolUpdate>, zone: &str) -> (Arc<Snapshot>, BTreeMap<String, Rejection>) {
    let (mut configs, mut contents) = (Vec::new(), BTreeMap::new());
    for pool in pools {
        let Some(mut config) = pool.config else { continue };
        // Nobody checks anything here, and backends that wait for their first pass would wait for ever.
        let checks = config.backend_sets.iter_mut().filter_map(|set| set.active_check.as_mut());
        checks.for_each(|check| check.initially_down = false);
        let sets = pool.sets.into_iter().map(|content| (content.set, content.backends));
        let sets: BTreeMap<_, _> = sets.collect();
        contents.insert(config.pool.clone(), sets);
        configs.push(Arc::new(config));
    }
    let place = Place { zone: zone.into(), ..Place::default() };
    let current = Current::default();
    let applier = Applier::new(Arc::clone(&current), Sockets::pretended());
    let mut applier = applier.placed(place, Instant::now(), Exchange::new().0);
    let refused = applier.stage(&configs, |pool, set| {
        contents.get(pool).and_then(|sets| sets.get(set)).into_iter().flatten().collect()
    });
    applier.commit();
    (current.load_full(), refused)
}

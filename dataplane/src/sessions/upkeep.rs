//! What is done for session tables beside requests: sessions end that nobody uses, or whose backend is gone.

use crate::snapshot::{Current, Snapshot};
use lb_core::backend::BackendSet;
use lb_core::sessions::Choice;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::MissedTickBehavior;

/// A table is gone through in so many parts, one each [`INTERVAL`]: all of it in half a minute.
const PARTS: usize = 30;

/// Between two parts.
const INTERVAL: Duration = Duration::from_secs(1);

/// Goes round the tables in force for as long as it is polled. `started` is the process's zero of time.
pub(crate) async fn run(current: Current, started: Instant) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    for part in (0..PARTS).cycle() {
        ticks.tick().await;
        round(&current.load(), started.elapsed(), part);
    }
}

fn round(snapshot: &Snapshot, now: Duration, part: usize) {
    if snapshot.tables.is_empty() {
        return;
    }
    let sets: HashMap<u32, &Arc<BackendSet>> = snapshot.sets.iter().map(|set| (set.tag, set)).collect();
    // A set that no rule names any more may be named again by the next edit; its sessions end by their time.
    let is_gone = |choice: Choice| {
        sets.get(&choice.set).is_some_and(|set| set.members().tagged(choice.backend).is_none())
    };
    for table in &snapshot.tables {
        table.sweep(now, part, PARTS);
        table.forget(is_gone, part, PARTS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_core::backend::{Algorithm, Backend, Membership, SetPolicy};
    use lb_core::sessions::SessionTable;

    #[test]
    fn sessions_end_with_their_backend_and_with_their_time() {
        let backend = |id: &str| Backend::new(id, ([127, 0, 0, 1], 80).into());
        let members = Arc::new(Membership::new(1, vec![backend("a"), backend("b")]));
        let policy = SetPolicy::new(Algorithm::RoundRobin);
        let set = Arc::new(BackendSet::new(1, "ns/pool/web".into(), policy, members));
        let table = Arc::new(SessionTable::new(1_000, Duration::from_secs(60)));
        let choice = |id: &str| Choice { set: set.tag, backend: backend(id).tag() };
        for (key, choice) in [(1, choice("a")), (2, choice("b")), (3, Choice { set: 7, backend: 7 })] {
            table.put(key, choice, Duration::ZERO);
        }
        let sets = vec![Arc::clone(&set)];
        let snapshot =
            Snapshot { sets: sets.into(), tables: vec![Arc::clone(&table)], ..Snapshot::default() };
        let rounds =
            |seconds| (0..PARTS).for_each(|part| round(&snapshot, Duration::from_secs(seconds), part));
        rounds(1);
        assert_eq!(table.live(), 3);
        set.replace_members(Arc::new(Membership::new(2, vec![backend("b")])));
        rounds(2);
        assert_eq!(table.live(), 2, "the backend of the first is gone");
        assert_eq!(table.find(2, Duration::from_secs(2)), Some(choice("b")));
        rounds(100);
        assert_eq!((table.live(), table.expired()), (0, 2));
    }
}

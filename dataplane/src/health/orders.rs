//! Which sets are to be kept, and how: from the task that applies configuration to the one that keeps health.

use lb_core::backend::BackendSet;
use lb_core::health::SetPlan;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::sync::Notify;

/// Numbers that are unique within the process: of sets, routes, and versions of memberships.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ids(Arc<AtomicU64>);

impl Ids {
    pub(crate) fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// What is to become of a set.
#[derive(Debug, Clone)]
pub(crate) enum Order {
    /// Its members, or how they are checked, are new.
    Keep { set: Weak<BackendSet>, plan: SetPlan },
    /// It is gone.
    Forget,
}

/// Orders that wait; the newest for each set.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    waiting: Mutex<BTreeMap<u64, Order>>,
    notify: Notify,
}

impl Orders {
    /// Nothing where nothing is to be kept of the set.
    pub(crate) fn keep(&self, set: &Arc<BackendSet>, plan: &SetPlan) {
        let is_checked = plan.active.is_some() || plan.passive.is_some();
        if is_checked || set.policy.eligibility.slow_start.is_some() {
            self.put(set.id, Order::Keep { set: Arc::downgrade(set), plan: plan.clone() });
        }
    }

    pub(crate) fn forget(&self, set: &BackendSet) {
        self.put(set.id, Order::Forget);
    }

    /// Returns when there are orders; may return without. Cancellation safe.
    pub(crate) async fn changed(&self) {
        self.notify.notified().await;
    }

    /// New sets before those that are gone, since these may leave what is known of a backend to those.
    pub(crate) fn take(&self) -> Vec<(u64, Order)> {
        let mut orders: Vec<_> = std::mem::take(&mut *self.waiting()).into_iter().collect();
        orders.sort_by_key(|(_, order)| matches!(order, Order::Forget));
        orders
    }

    fn put(&self, set: u64, order: Order) {
        self.waiting().insert(set, order);
        self.notify.notify_one();
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<u64, Order>> {
        // Nothing panics between two writes that belong together.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

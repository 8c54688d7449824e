//! Who hears that a pool's proxies said something: one name for each pool, however often it changed.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::sync::Notify;

/// Whose proxies are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Those with a stream to this process.
    Own,
    /// Those of every replica.
    All,
}

/// The pools whose summary changed. Ends when dropped.
#[derive(Debug)]
pub struct FleetObserver {
    mailbox: Arc<Mailbox>,
}

#[derive(Debug)]
struct Mailbox {
    reach: Reach,
    changed: Mutex<BTreeSet<Arc<str>>>,
    notify: Notify,
}

#[derive(Debug, Default)]
pub(super) struct Mailboxes(Mutex<Vec<Weak<Mailbox>>>);

impl FleetObserver {
    /// Returns when something changed since the last [`Self::take`], or a proxy came; may return without either.
    /// Cancellation safe.
    pub async fn changed(&self) {
        self.mailbox.notify.notified().await;
    }

    /// The pools that changed since the last call, those that are gone among them.
    #[must_use]
    pub fn take(&self) -> BTreeSet<Arc<str>> {
        std::mem::take(&mut *self.mailbox.changed())
    }
}

impl Mailbox {
    fn changed(&self) -> MutexGuard<'_, BTreeSet<Arc<str>>> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mailboxes {
    pub(super) fn add(&self, reach: Reach, names: impl Iterator<Item = Arc<str>>) -> FleetObserver {
        let changed = Mutex::new(names.collect());
        let mailbox = Arc::new(Mailbox { reach, changed, notify: Notify::new() });
        mailbox.notify.notify_one();
        let mut all = self.all();
        all.retain(|mailbox| mailbox.strong_count() > 0);
        all.push(Arc::downgrade(&mailbox));
        FleetObserver { mailbox }
    }

    /// `changed` says whose proxies; who observes all hears of our own as well.
    pub(super) fn announce(&self, pool: &Arc<str>, changed: Reach) {
        for mailbox in self.all().iter().filter_map(Weak::upgrade) {
            if mailbox.reach == Reach::All || changed == Reach::Own {
                mailbox.changed().insert(Arc::clone(pool));
                mailbox.notify.notify_one();
            }
        }
    }

    /// Something changed that is no pool's.
    pub(super) fn wake(&self) {
        self.all().iter().filter_map(Weak::upgrade).for_each(|mailbox| mailbox.notify.notify_one());
    }

    fn all(&self) -> MutexGuard<'_, Vec<Weak<Mailbox>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

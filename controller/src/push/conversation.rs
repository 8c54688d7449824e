//! One stream's [`Session`] with what it draws on and whom it tells: pools, keys and what other proxies found come in
//! from the store and the relay; what the proxy says goes to the fleet view.
//!
//! No I/O, and no time but what is passed in: whoever drives it moves messages, and asks for the next one only when the
//! stream has room for it.

use super::relay::{Relay, Seat};
use super::{Breach, Report, Security, Session};
use crate::identity::Identity;
use crate::keys::{self, Ring};
use crate::shares;
use crate::store::{Peer, Pool, Resend, Store, StreamId, Subscription};
use prost::Message as _;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::sync::watch;
use weir_proto::push::{BackendHealth, ControllerMessage, Demand, ProxyMessage, controller_message};

/// One stream, from when its proxy is known. The fleet view forgets it when it drops.
pub struct Conversation {
    session: Session,
    store: Arc<Store>,
    identity: Identity,
    security: Security,
    stream: StreamId,
    proxy: Arc<str>,
    sent_bytes: Arc<AtomicU64>,
    /// Among the proxies that share health checks; `None` for one that does not.
    seat: Option<Seat>,
    /// Among those that have limits together; `None` for one that takes no shares.
    shares: Option<shares::Seat>,
    /// The numbers of such limits, by pool: only of those does the proxy get a share.
    limits: BTreeMap<Arc<str>, Vec<u64>>,
    subscription: Subscription,
    ring: watch::Receiver<Option<Arc<Ring>>>,
}

impl Conversation {
    /// With the proxy of this session, whose identity is proven, over a store that has loaded.
    #[must_use]
    pub fn begin(
        mut session: Session,
        store: &Arc<Store>,
        relay: &Arc<Relay>,
        identity: Identity,
        security: &Security,
        now: Instant,
    ) -> Self {
        let seat = session.health_id().and_then(|id| relay.join(keys::scope(&identity), id));
        if store.desk().is_alone() {
            session.without_shares();
        }
        let shares = session.shares_id().and_then(|id| store.desk().join(id));
        let proxy = name(&identity, &session);
        let peer = Peer { proxy: Arc::clone(&proxy), identity: identity.to_string().into() };
        let (stream, sent_bytes) = store.fleet_record().begin(peer, now);
        let mut ring = store.ring();
        // As if it had changed: what there is, is news to this stream.
        ring.mark_changed();
        let (subscription, security) = (store.subscribe(), security.clone());
        let store = Arc::clone(store);
        let limits = BTreeMap::new();
        Self {
            session,
            store,
            identity,
            security,
            stream,
            proxy,
            sent_bytes,
            seat,
            shares,
            limits,
            subscription,
            ring,
        }
    }

    /// As the fleet view and the log call it.
    #[must_use]
    pub fn proxy(&self) -> &Arc<str> {
        &self.proxy
    }

    /// The message to send next, decided from the newest state; `None` when there is nothing, or nothing that the window
    /// has room for.
    pub fn next(&mut self, now: Instant) -> Option<ControllerMessage> {
        self.session.knows(self.store.knowledge());
        self.hear_pools();
        self.hear_keys();
        // What others found of backends comes after all that must be served.
        let message = self.session.next(now).or_else(|| self.shares()).or_else(|| self.news(now));
        self.session.take_too_large().into_iter().for_each(|report| self.report(report, now));
        let bytes = message.as_ref().map_or(0, ControllerMessage::encoded_len);
        self.sent_bytes.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
        message
    }

    /// Takes a message of the proxy in.
    ///
    /// # Errors
    /// [`Breach`]: the stream must be closed with it.
    pub fn hear(&mut self, now: Instant, message: ProxyMessage) -> Result<(), Breach> {
        if let Some(report) = self.session.on_message(now, message)? {
            self.report(report, now);
        }
        Ok(())
    }

    /// Returns when there may be something to send, though the proxy said nothing; may return without. Cancellation safe.
    pub async fn changed(&mut self) {
        tokio::select! {
            () = self.subscription.changed() => {}
            () = news_changed(self.seat.as_ref()) => {}
            () = shares_changed(self.shares.as_ref()) => {}
            Ok(()) = self.ring.changed() => {
                // It counts as news no more, or this would return at once for ever.
                self.ring.mark_changed();
                self.hear_keys();
            }
        }
    }

    /// When the stream counts as stuck, unless an acknowledgement comes first.
    #[must_use]
    pub fn stuck_at(&self) -> Option<Instant> {
        self.session.stuck_at()
    }

    /// When [`Self::next`] has something to send though nothing happens meanwhile.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.session.due()
    }

    /// A pool that the stream's proxy does not serve is gone for it.
    fn hear_pools(&mut self) {
        let serves = |pool: &Arc<Pool>| {
            pool.contents.data_plane.is_served_by(&self.identity, self.security.gateway_namespaces())
        };
        for (name, pool) in self.subscription.take() {
            let pool = pool.filter(serves);
            match &pool {
                Some(_) => self.store.fleet_record().expect(self.stream, &name),
                None => self.store.fleet_record().release(self.stream, &name),
            }
            match pool.as_deref().map(shared_limits).filter(|limits| !limits.is_empty()) {
                Some(limits) => drop(self.limits.insert(Arc::clone(&name), limits)),
                None => drop(self.limits.remove(&name)),
            }
            self.session.changed(&name, pool);
        }
    }

    fn hear_keys(&mut self) {
        // An error would mean that the sender is gone, and it lives in the store.
        if self.ring.has_changed().unwrap_or(false)
            && let Some(ring) = &*self.ring.borrow_and_update()
        {
            self.session.keys(ring.for_scope(&keys::scope(&self.identity)));
        }
    }

    /// What other proxies said that this one has not been told.
    fn news(&self, now: Instant) -> Option<ControllerMessage> {
        let news = self.seat.as_ref()?.next(now)?;
        Some(ControllerMessage { body: Some(controller_message::Body::HealthNews(news)) })
    }

    /// What the proxy may have of limits, if that was not told.
    fn shares(&self) -> Option<ControllerMessage> {
        let shares = self.shares.as_ref()?.next()?;
        Some(ControllerMessage { body: Some(controller_message::Body::Shares(shares)) })
    }

    /// What a proxy asks for: of limits of pools that it serves, and of no others.
    fn wanted(&self, demand: Demand) -> Demand {
        let mut limits = demand.limits;
        limits.retain(|wanted| {
            self.limits.values().any(|numbers| numbers.binary_search(&wanted.limit).is_ok())
        });
        Demand { limits, ..demand }
    }

    fn report(&self, report: Report, now: Instant) {
        let (proxy, fleet) = (&self.proxy, self.store.fleet_record());
        match report {
            Report::Acked { pool, version, config_digest, .. } => {
                tracing::debug!(%proxy, %pool, sequence = version.sequence, "applied");
                fleet.acked(self.stream, &pool, version, config_digest, now);
            }
            Report::Refused { pool, refusal } => {
                let (field, reason) = (&refusal.field, &refusal.reason);
                tracing::warn!(%proxy, %pool, %field, %reason, "a proxy refused a pool; it serves its last good configuration");
                fleet.refused(self.stream, &pool, refusal, now);
            }
            Report::SnapshotRequested { pool, reason } => {
                fleet.resent(self.stream, &pool, Resend::Requested);
                tracing::warn!(%proxy, %pool, %reason, "a proxy is out of step and gets the whole pool");
            }
            Report::Diverged { pool, what } => {
                fleet.resent(self.stream, &pool, Resend::Diverged);
                tracing::warn!(%proxy, %pool, %what, "a proxy's digests differ from what it was sent; it gets the whole pool");
            }
            Report::TooLarge { pool, bytes } => {
                fleet.too_large(self.stream, &pool, bytes);
                tracing::error!(%proxy, %pool, bytes, "a pool is too large to be sent: split it into several");
            }
            Report::Backend(health) => {
                let BackendHealth { pool, set, backend, available, reason } = &health;
                tracing::debug!(%proxy, %pool, %set, %backend, available, %reason, "health of a backend");
                fleet.found(self.stream, &health);
            }
            Report::Demand(demand) => {
                if let Some(seat) = &self.shares {
                    seat.say(self.wanted(demand), now);
                }
            }
            Report::Health(said) => {
                if let Some(seat) = &self.seat {
                    seat.say(said, now);
                }
            }
        }
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        self.store.fleet_record().end(self.stream);
    }
}

/// Returns when there may be shares. Cancellation safe.
async fn shares_changed(seat: Option<&shares::Seat>) {
    match seat {
        Some(seat) => seat.changed().await,
        None => std::future::pending().await,
    }
}

/// The numbers of the limits that proxies of this pool have together, sorted.
fn shared_limits(pool: &Pool) -> Vec<u64> {
    let limits = pool.contents.config.rules.iter().flat_map(|rule| &rule.rate_limits);
    let mut numbers: Vec<u64> = limits.map(|limit| limit.shared).filter(|number| *number != 0).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// Returns when other proxies may have said something. Cancellation safe.
async fn news_changed(seat: Option<&Seat>) {
    match seat {
        Some(seat) => seat.changed().await,
        None => std::future::pending().await,
    }
}

/// What the fleet view and the log call the proxy: what it says in Hello is believed only where nothing is proven.
fn name(identity: &Identity, session: &Session) -> Arc<str> {
    match identity {
        Identity::Trusted => Arc::clone(session.proxy()),
        Identity::Pod(pod) => format!("{}/{}", pod.namespace, pod.name).into(),
    }
}

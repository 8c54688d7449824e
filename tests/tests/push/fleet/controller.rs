//! A replica of the controller: what it watches, compiles and serves is production code; its process and its network
//! are simulated.

use super::RELIST_GUARD;
use super::api::Api;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;
use weir_controller::cluster::{
    Event, Extent, Failure, FailureReason, Follower, Item, Kind, Message, WatchId,
};
use weir_controller::lease::{Elector, Holder, Timing};
use weir_controller::metrics::Metrics;
use weir_controller::push::Relay;
use weir_controller::readiness::Readiness;
use weir_controller::replicas::{Entry, Report};
use weir_controller::status::Board;
use weir_controller::store::Store;
use weir_proto::push::ReplicaMessage;

/// Changes that one reading of a watch brings at most.
const CHANGES_AT_ONCE: usize = 8;

/// One watch, seen from the replica.
pub(super) struct Watch {
    pub(super) kind: Kind,
    /// Nothing comes before.
    pub(super) paused_until: u64,
    /// Something will be read.
    pub(super) is_scheduled: bool,
    /// `None` before the list begins.
    position: Option<usize>,
    /// Up to where everything was told; `None` before the first list.
    told: Option<usize>,
    /// What is left of the list.
    listing: Option<Vec<Item>>,
}

/// What this replica tells another one of its proxies.
pub(super) struct Telling {
    pub(super) id: u64,
    pub(super) to: usize,
    /// Of the process that is told.
    pub(super) to_life: u64,
    pub(super) report: Report,
}

pub(super) struct Controller {
    pub(super) name: Arc<str>,
    /// Grows with each process.
    pub(super) life: u64,
    /// Does not run before.
    pub(super) frozen_until: u64,
    /// The process is not there before.
    pub(super) down_until: u64,
    /// Up to this moment something kept it from following the API server.
    pub(super) troubled_until: u64,
    pub(super) store: Arc<Store>,
    pub(super) board: Arc<Board>,
    pub(super) relay: Arc<Relay>,
    follower: Follower,
    /// When it had listed everything; `None` before.
    pub(super) loaded_at: Option<Instant>,
    pub(super) watches: Vec<Watch>,
    pub(super) elector: Elector,
    /// Of the elector, to tell an answer from one that was given up.
    pub(super) step: u64,
    pub(super) is_waiting: bool,
    pub(super) telling: Option<Telling>,
    /// What others tell this one, by the id of their telling.
    pub(super) entries: BTreeMap<u64, Entry>,
}

pub(super) fn holder(index: usize) -> Holder {
    let address = format!("10.255.0.{index}:9901");
    Holder { name: format!("controller-{index}").into(), address: address.parse().expect("an address") }
}

impl Watch {
    fn new(kind: Kind) -> Self {
        Self { kind, paused_until: 0, is_scheduled: false, position: None, told: None, listing: None }
    }

    /// Goes on where it was (or lists again), after an end.
    pub(super) fn restart(&mut self, lists_again: bool) {
        // A list that broke off is begun again.
        let was_listing = self.listing.take().is_some();
        if lists_again || was_listing {
            self.position = None;
        }
    }

    pub(super) fn is_behind(&self, api: &Api) -> bool {
        self.listing.is_some() || self.position.is_none_or(|position| position < api.log.len())
    }

    /// Whether something went that no event of this watch will tell, since its list is of a later moment: what a replica
    /// keeps for a while. As the API server knows it, whatever the replica makes of it.
    fn passes_over(&self, api: &Api) -> bool {
        let (Some(told), Some(position)) = (self.told, self.position) else { return false };
        self.listing.is_some() && api.has_lost(self.kind, told..position)
    }

    /// What comes next.
    fn read(&mut self, api: &Api) -> Vec<Event> {
        let Some(position) = self.position else {
            let (items, version) = api.list(self.kind);
            (self.position, self.listing) = (Some(version), Some(items));
            return vec![Event::Init];
        };
        if let Some(listing) = &mut self.listing {
            let page: Vec<_> =
                listing.drain(..listing.len().min(CHANGES_AT_ONCE)).map(Event::InitApply).collect();
            if page.is_empty() {
                self.listing = None;
                self.told = self.position;
                return vec![Event::InitDone];
            }
            return page;
        }
        let mut events = Vec::new();
        let mut next = position;
        for change in &api.log[position..] {
            if events.len() >= CHANGES_AT_ONCE {
                break;
            }
            next += 1;
            if change.kind == self.kind {
                events.push(match &change.item {
                    Some(item) => Event::Apply(item.clone()),
                    None => Event::Delete(change.key.clone()),
                });
            }
        }
        (self.position, self.told) = (Some(next), Some(next));
        events
    }
}

impl Controller {
    /// A process of its own: nothing of one before it is left.
    pub(super) fn new(index: usize, life: u64, epoch: u64) -> Self {
        let (store, board, readiness) =
            (Store::new(epoch), Arc::<Board>::default(), Arc::<Readiness>::default());
        let metrics = Arc::new(Metrics::new(Arc::clone(&store), Arc::clone(&readiness)));
        let follower = Follower::new(&[], Arc::clone(&store), Arc::clone(&board), readiness, metrics);
        Self {
            name: holder(index).name,
            life,
            frozen_until: 0,
            down_until: 0,
            troubled_until: 0,
            store,
            board,
            relay: Arc::default(),
            follower,
            loaded_at: None,
            watches: Kind::NAMESPACED.map(Watch::new).into(),
            elector: Elector::new(holder(index).to_string().into(), Timing::default()),
            step: 0,
            is_waiting: true,
            telling: None,
            entries: BTreeMap::new(),
        }
    }

    pub(super) fn is_down(&self, now: u64) -> bool {
        now < self.down_until
    }

    pub(super) fn leads(&self, now: Instant) -> bool {
        self.elector.leads(now)
    }

    /// Takes in what one watch has to say. True when proxies may have something to hear.
    pub(super) fn read(&mut self, watch: usize, api: &Api, now: Instant, time: u64) -> bool {
        if self.watches[watch].passes_over(api) {
            self.troubled_until = self.troubled_until.max(time + RELIST_GUARD);
        }
        let events = self.watches[watch].read(api);
        self.follow(watch, events, now)
    }

    /// Drops what was kept for long enough though no list has it.
    pub(super) fn lapse(&mut self, now: Instant) {
        self.follow(0, Vec::new(), now);
    }

    /// When that is to be done next.
    pub(super) fn due(&self) -> Option<Instant> {
        self.follower.due()
    }

    /// The watch ends with an error.
    pub(super) fn lose(&mut self, watch: usize, now: Instant) {
        let (reason, cause) = (FailureReason::Unreachable, "gone".to_owned());
        let failure = Failure { reason, cause, at: std::time::SystemTime::now() };
        self.follow(watch, vec![Event::Failed(failure)], now);
    }

    fn follow(&mut self, watch: usize, events: Vec<Event>, now: Instant) -> bool {
        let kind = self.watches[watch].kind;
        let message =
            |event| Message { watch: WatchId { kind, extent: Extent::Everywhere }, event, seen: now };
        let is_news = !events.is_empty();
        self.follower.take(events.into_iter().map(message), now);
        self.follower.judge();
        is_news
    }

    /// Pools that it sent again whole.
    pub(super) fn resends(&self) -> u64 {
        let counts = self.store.fleet_counts();
        counts.snapshot_requests + counts.divergences
    }

    /// Takes in what another replica tells. Its first message is its Hello, which says its name.
    pub(super) fn hear(&mut self, id: u64, from: &Arc<str>, message: ReplicaMessage, now: Instant) {
        match self.entries.get(&id) {
            Some(entry) => drop(entry.take(message, now).expect("no breach")),
            None => drop(self.entries.insert(id, Entry::begin(&self.store, from).expect("few replicas"))),
        }
    }
}

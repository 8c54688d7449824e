//! Sessions: where a client's requests stay.

use super::met::Met;
use super::world::{Event, MS, World};
use lb_core::backend::Membership;
use lb_core::sessions::{Choice, SessionTable, rendezvous};
use std::collections::BTreeMap;
use std::time::Duration;

/// Between two looks at whether a session's backend has room.
const LOOK_AGAIN_AFTER: Duration = MS.saturating_mul(5);
/// More than there are clients, so that none is displaced.
const SESSIONS_MAX: u32 = 1000;

/// The table, and what should be in it.
pub(crate) struct Homes {
    table: SessionTable,
    idle_secs: u64,
    /// By client: the backend's tag, and the second of the last use.
    known: BTreeMap<u64, (u64, u64)>,
}

/// Where a request of a session goes.
pub(crate) enum Home {
    /// Anywhere.
    Nowhere,
    Backend(usize),
    Full,
}

impl Homes {
    pub(crate) fn new(idle_secs: u64) -> Self {
        let table = SessionTable::new(SESSIONS_MAX, Duration::from_secs(idle_secs));
        Self { table, idle_secs, known: BTreeMap::new() }
    }

    /// Whose session is not forgotten at this time.
    fn expected(&self, client: u64, now: Duration) -> Option<u64> {
        let (tag, last) = self.known.get(&client)?;
        (now.as_secs() - last <= self.idle_secs).then_some(*tag)
    }

    fn find(&mut self, client: u64, now: Duration) -> Option<Choice> {
        let found = self.table.find(client, now);
        let expected = self.expected(client, now);
        assert_eq!(found.map(|choice| choice.backend), expected, "client {client} at {now:?}");
        if let Some((_, last)) = self.known.get_mut(&client).filter(|_| expected.is_some()) {
            *last = now.as_secs();
        }
        found
    }

    fn put(&mut self, client: u64, choice: Choice, now: Duration) {
        self.table.put(client, choice, now);
        self.known.insert(client, (choice.backend, now.as_secs()));
    }

    pub(crate) fn check_ended(&self, now: Duration) {
        self.table.sweep(now, 0, 1);
        let left = self.known.keys().filter(|client| self.expected(**client, now).is_some()).count();
        assert_eq!((self.table.live(), self.table.displaced()), (left as u64, 0));
    }
}

impl World<'_> {
    /// Where a request that was nowhere yet is at home.
    pub(crate) fn home(&mut self, id: u64, members: &Membership) -> Home {
        let request = &self.requests[&id];
        let (worker, tried) = (request.worker, !request.tried.is_empty());
        let Some(client) = request.client.filter(|_| !tried) else { return Home::Nowhere };
        let is_known = self.homes.known.contains_key(&client);
        let found = self.homes.find(client, self.now);
        if is_known && found.is_none() {
            self.met.insert(Met::SessionForgotten);
        }
        let at_home = found.and_then(|choice| members.tagged(choice.backend));
        let Some(backend) = at_home.or_else(|| rendezvous(client, members)) else { return Home::Nowhere };
        let number: usize = backend.id[1..].parse().expect("a letter and a number");
        let is_full = self.settings.policy.requests_max.is_some_and(|max| backend.live.is_full(max));
        if is_full || !self.can_connect(worker, number) {
            self.met.insert(Met::HomeFull);
            return Home::Full;
        }
        Home::Backend(number)
    }

    /// Its client's requests go there from now on.
    pub(crate) fn settle_at(&mut self, id: u64, number: usize) {
        let request = &self.requests[&id];
        let (Some(client), was_elsewhere) = (request.client, !request.tried.is_empty()) else { return };
        let tag = |number: usize| self.backends[number].tag();
        let choice = Choice { set: self.set.tag, backend: tag(number) };
        match self.homes.expected(client, self.now) {
            Some(home) if home == choice.backend => drop(self.met.insert(Met::SessionKept)),
            Some(home) => {
                let is_member = self.members.iter().any(|number| tag(*number) == home);
                assert!(was_elsewhere || !is_member, "client {client} leaves its home at {:?}", self.now);
                self.met.insert(Met::SessionMoved);
            }
            None => {}
        }
        self.homes.put(client, choice, self.now);
    }

    /// Nobody is woken for one backend alone, so it looks again. `false` when it has waited for long enough.
    pub(crate) fn wait_for_home(&mut self, id: u64) -> bool {
        let (now, timeout) = (self.now, self.queue().timeout());
        let request = self.requests.get_mut(&id).expect("it is not over");
        let until = *request.home_until.get_or_insert(now + timeout);
        if now < until {
            self.schedule(LOOK_AGAIN_AFTER, Event::Retry { request: id });
        }
        now < until
    }
}

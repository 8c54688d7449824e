//! Sessions of the request path: which backends a request's session has chosen, and what its response says of it.
//!
//! Three calls for each request of a route with sessions. [`Keeping::seen`] reads the request, and takes the cookie that is
//! ours out of it. [`Seen::recall`] asks the store that proxies share, where there is one. [`Seen::keep`], with the backend that answered, remembers the choice: in the response's
//! `Set-Cookie`, or in the table. How a backend is chosen, and whether the session's can take the request, is the
//! caller's to say.
//!
//! Reads no clock: [`Moment`] is an argument.

mod seal;
mod store;
pub(crate) mod upkeep;

pub use seal::{Sealer, SealerError};
pub use store::{LOOKUP_TIMEOUT, Store, StoreAddress, StoreAddressError, WAITING_MAX};

use crate::connection::{Peer, Scheme};
use crate::cookie::{self, Learnt};
use crate::message::RequestHead;
use crate::ring::CLOCK_SKEW_MAX;
use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderValue};
use lb_core::route::Sessions;
use lb_core::sessions::{Choice, SealedCookie, SessionSource, SessionTable, Token, pool_tag, session_key};
use seal::{OpenError, Opened};
use std::sync::Arc;
use std::time::Duration;
use store::StoredKey;

/// Cookies of our name that one request may have; later ones are not looked at. Each costs an attempt to open it.
pub(crate) const COOKIES_MAX: usize = 8;

/// Which moment it is, on two clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// Since 1970, by the clock of the day: for cookies, which other processes and later ones read.
    pub(crate) of_day: Duration,
    /// Since the process began: for the table.
    pub(crate) since_start: Duration,
}

/// What all workers keep sessions with.
#[derive(Debug)]
pub struct Keeping {
    /// Seals and opens cookies.
    pub sealer: Arc<Sealer>,
    /// What proxies share of their tables, if they do.
    pub store: Option<Store>,
}

/// Why a cookie of our name was not believed. It is replaced with the next answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Nobody of ours sealed it.
    Forged,
    /// Of another pool.
    Foreign,
    /// Older than sessions may be, or sealed with a key that is gone.
    Expired,
    /// Longer than any of ours.
    Oversized,
}

/// What became of a request's session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SessionResult {
    /// It begins, in this set at least.
    New,
    /// It stays where it was.
    Kept,
    /// It moves to another backend of the same set.
    FailedOver,
}

/// What a request says of its session.
#[derive(Debug)]
pub(crate) struct Seen<'a> {
    sessions: &'a Sessions,
    keeping: &'a Keeping,
    now: Moment,
    /// For a table, the choice that was found, if one was.
    token: Token,
    by: By<'a>,
    refusal: Option<Refusal>,
}

#[derive(Debug)]
enum By<'a> {
    Cookie {
        cookie: &'a SealedCookie,
        is_secure: bool,
        is_current: bool,
    },
    Table {
        table: &'a SessionTable,
        key: Option<u64>,
    },
    /// A route that is to remember in a table and has none.
    Nothing,
}

impl Keeping {
    /// What a request says of its session with a route. Takes our own cookie out of the request: backends never see it.
    ///
    /// Costs one decryption for each cookie of our name, or one look into the table.
    pub(crate) fn seen<'a>(
        &'a self,
        sessions: &'a Sessions,
        head: &mut RequestHead,
        peer: &Peer,
        now: Moment,
    ) -> Seen<'a> {
        let source = &sessions.policy.source;
        let by = match (source, &sessions.table) {
            (SessionSource::Sealed(cookie), _) => {
                let is_secure = cookie.secure.unwrap_or(peer.scheme == Scheme::Https);
                By::Cookie { cookie, is_secure, is_current: true }
            }
            (_, Some(table)) => By::Table { table, key: key(source, Some(head), peer) },
            (_, None) => By::Nothing,
        };
        let mut seen = self.known(sessions, by, now);
        if let By::Cookie { cookie, .. } = seen.by {
            seen.read_cookies(&head.headers, cookie);
            cookie::remove(&mut head.headers, &cookie.name);
        }
        seen
    }

    /// What a connection of layer 4 says of its session: nothing but its client's address.
    pub(crate) fn seen_of_source<'a>(&'a self, sessions: &'a Sessions, peer: &Peer, now: Moment) -> Seen<'a> {
        let by = match (&sessions.policy.source, &sessions.table) {
            (source @ SessionSource::SourceIp, Some(table)) => {
                By::Table { table, key: key(source, None, peer) }
            }
            _ => By::Nothing,
        };
        self.known(sessions, by, now)
    }

    fn known<'a>(&'a self, sessions: &'a Sessions, by: By<'a>, now: Moment) -> Seen<'a> {
        let mut seen = Seen { sessions, keeping: self, now, token: Token::default(), by, refusal: None };
        if let By::Table { table, key: Some(key) } = seen.by
            && let Some((choice, used)) = table.find_used(key, now.since_start)
        {
            seen.token.choices.push(choice);
            seen.refresh(table, key, used);
        }
        seen
    }
}

/// What names a request's session, where it is not known by a cookie of ours. A connection of layer 4 has no head.
pub(crate) fn key(source: &SessionSource, head: Option<&RequestHead>, peer: &Peer) -> Option<u64> {
    sent(source, head, peer).map(|value| session_key(source, value))
}

/// What the client sends of its session.
fn sent<'h>(source: &SessionSource, head: Option<&'h RequestHead>, peer: &'h Peer) -> Option<&'h [u8]> {
    match source {
        SessionSource::Sealed(_) => None,
        SessionSource::SourceIp => Some(peer.ip.as_bytes()),
        SessionSource::Header(name) => head?.headers.get(&**name).map(HeaderValue::as_bytes),
        SessionSource::Learnt(name) => cookie::first(&head?.headers, name),
    }
    .filter(|value| !value.is_empty())
}

impl Seen<'_> {
    /// What the session has chosen, newest first, each set once; empty where it has not.
    pub(crate) fn choices(&self) -> &[Choice] {
        &self.token.choices
    }

    /// Where nothing is chosen: what [`lb_core::sessions::rendezvous`] goes by, so that every proxy begins the session on
    /// the same backend. `None` where any will do.
    pub(crate) fn key(&self) -> Option<u64> {
        match self.by {
            By::Table { key, .. } => key,
            By::Cookie { .. } | By::Nothing => None,
        }
    }

    /// What was wrong with the request's cookie, where none of our name was good.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    /// Asks the store for a session that this process does not know; to be called before anything is chosen. Takes
    /// [`LOOKUP_TIMEOUT`] at most, and no time where there is no store, or nothing to ask. Cancellation safe.
    pub(crate) async fn recall(&mut self) {
        let By::Table { table, key: Some(key) } = self.by else { return };
        if let Some(store) = &self.keeping.store
            && self.token.choices.is_empty()
            && let Some(choice) = store.find(self.stored(key)).await
        {
            table.put(key, choice, self.now.since_start);
            self.token.choices.push(choice);
            store.refresh(self.stored(key), stored_for(table));
        }
    }

    /// Remembers which backend answered; `headers` are those of its response. `None` where there is no session to speak
    /// of: the client sent nothing to know it by, and the application began none.
    pub(crate) fn keep(self, choice: Choice, headers: &mut HeaderMap) -> Option<SessionResult> {
        let result = self.result(choice);
        match self.by {
            By::Cookie { cookie, is_secure, is_current } => {
                if result != SessionResult::Kept || !is_current {
                    self.set_cookie(cookie, is_secure, choice, headers);
                }
                Some(result)
            }
            By::Table { table, key } => match &self.sessions.policy.source {
                SessionSource::Learnt(name) => self.learn(table, key, name, choice, headers),
                _ => {
                    if result != SessionResult::Kept {
                        self.put(table, key?, choice);
                    }
                    key.map(|_| result)
                }
            },
            By::Nothing => None,
        }
    }

    fn result(&self, choice: Choice) -> SessionResult {
        match self.token.chosen(choice.set) {
            Some(before) if before == choice => SessionResult::Kept,
            Some(_) => SessionResult::FailedOver,
            None => SessionResult::New,
        }
    }

    /// The first cookie that opens, is ours and is not over; or else what is wrong with the first.
    fn read_cookies(&mut self, headers: &HeaderMap, cookie: &SealedCookie) {
        for value in cookie::values(headers, &cookie.name).take(COOKIES_MAX) {
            match self.read_cookie(value, cookie) {
                Ok(Opened { token, is_current_key }) => {
                    self.token = token;
                    self.refusal = None;
                    if let By::Cookie { is_current, .. } = &mut self.by {
                        *is_current = is_current_key;
                    }
                    return;
                }
                Err(refusal) => drop(self.refusal.get_or_insert(refusal)),
            }
        }
    }

    fn read_cookie(&self, value: &[u8], cookie: &SealedCookie) -> Result<Opened, Refusal> {
        let opened = self.keeping.sealer.open(value).map_err(|error| match error {
            OpenError::Oversized => Refusal::Oversized,
            OpenError::UnknownKey => Refusal::Expired,
            OpenError::Malformed | OpenError::Forged => Refusal::Forged,
        })?;
        if opened.token.pool != pool_tag(&self.sessions.policy.pool) {
            return Err(Refusal::Foreign);
        }
        if opened.token.is_expired(self.now.of_day, cookie.lifetime, CLOCK_SKEW_MAX) {
            return Err(Refusal::Expired);
        }
        Ok(opened)
    }

    /// A session that goes on keeps the time of its issue, or its lifetime would never end.
    fn set_cookie(self, cookie: &SealedCookie, is_secure: bool, choice: Choice, headers: &mut HeaderMap) {
        let issued = if self.token.choices.is_empty() { self.now.of_day } else { self.token.issued };
        let left = (issued + cookie.lifetime).saturating_sub(self.now.of_day);
        let pool = pool_tag(&self.sessions.policy.pool);
        let token = Token { pool, issued, ..self.token }.with(choice);
        let sealed = self.keeping.sealer.seal(&token);
        let value = sealed.and_then(|value| cookie::set_cookie(cookie, &value, left, is_secure));
        match value {
            Some(value) => drop(headers.append(SET_COOKIE, value)),
            None => tracing::debug!(pool = %self.sessions.policy.pool, "a session cookie could not be made"),
        }
    }

    /// Only the application begins sessions: a client that makes up values fills no table.
    fn learn(
        &self,
        table: &SessionTable,
        key: Option<u64>,
        name: &str,
        choice: Choice,
        headers: &HeaderMap,
    ) -> Option<SessionResult> {
        let result = self.result(choice);
        let is_known = !self.token.choices.is_empty();
        match cookie::learnt(headers, name, self.now.of_day) {
            Some(Learnt::Is(value)) => {
                self.put(table, session_key(&self.sessions.policy.source, value), choice);
                Some(result)
            }
            Some(Learnt::Ends) => {
                table.remove(key?);
                if let Some(store) = &self.keeping.store {
                    store.remove(self.stored(key?));
                }
                is_known.then_some(result)
            }
            None if is_known => {
                if result != SessionResult::Kept {
                    self.put(table, key?, choice);
                }
                Some(result)
            }
            None => None,
        }
    }
}

impl Seen<'_> {
    fn put(&self, table: &SessionTable, key: u64, choice: Choice) {
        table.put(key, choice, self.now.since_start);
        if let Some(store) = &self.keeping.store {
            store.put(self.stored(key), choice, stored_for(table));
        }
    }

    /// Once in each quarter of the idle timeout.
    fn refresh(&self, table: &SessionTable, key: u64, used: Duration) {
        let Some(store) = &self.keeping.store else { return };
        let quarter = (table.idle_timeout() / 4).max(Duration::from_secs(1)).as_millis();
        if used.as_millis() / quarter != self.now.since_start.as_millis() / quarter {
            store.refresh(self.stored(key), stored_for(table));
        }
    }

    fn stored(&self, session: u64) -> StoredKey {
        StoredKey { pool: pool_tag(&self.sessions.policy.pool), session }
    }
}

/// A quarter longer than here, so that a session that is in use is never gone there before its next refresh.
fn stored_for(table: &SessionTable) -> Duration {
    table.idle_timeout() * 5 / 4
}

/// A cookie's value that we did not seal is never believed.
#[cfg(fuzzing)]
pub fn fuzz(bytes: &[u8]) {
    static SEALER: std::sync::LazyLock<Sealer> =
        std::sync::LazyLock::new(|| Sealer::new().expect("the system gives randomness"));
    assert!(SEALER.open(bytes).is_err(), "nobody else has the keys");
}

#[cfg(test)]
mod tests;

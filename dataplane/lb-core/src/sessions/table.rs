//! Sessions by what the client sends: a bounded table without a lock.

use super::Choice;
use std::time::Duration;

/// Sessions of one pool in this process.
#[derive(Debug)]
pub struct SessionTable {
    idle_timeout: Duration,
}

impl SessionTable {
    /// An empty table for at most this many sessions.
    #[must_use]
    pub fn new(_sessions_max: u32, idle_timeout: Duration) -> Self {
        Self { idle_timeout }
    }

    /// Where a session's requests go. Counts as a use.
    #[must_use]
    pub fn find(&self, _key: u64, _now: Duration) -> Option<Choice> {
        let _ = self.idle_timeout;
        None
    }

    /// Remembers a session, or moves it.
    pub fn put(&self, _key: u64, _choice: Choice, _now: Duration) {}
}

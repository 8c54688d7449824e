//! Idle connections to backends, kept for the next request.
//!
//! One pool for each worker: no lock, and a connection's socket stays with the runtime that registered it. The
//! most recently used connection goes first, so that what is not needed ages out.

use crate::http1::client::Connection;
use crate::worker::Worker;
use foldhash::HashMap;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Idle connections of one worker, by address.
#[derive(Debug, Default)]
pub(crate) struct Idle {
    by_address: RefCell<HashMap<SocketAddr, VecDeque<Entry>>>,
}

#[derive(Debug)]
struct Entry {
    connection: Connection,
    expires: Instant,
}

impl Idle {
    /// A kept connection that nobody closed as far as can be seen. It may still turn out stale.
    pub(crate) fn take(&self, address: SocketAddr) -> Option<Connection> {
        let mut by_address = self.by_address.borrow_mut();
        let kept = by_address.get_mut(&address)?;
        while let Some(entry) = kept.pop_back() {
            if entry.connection.wire.is_quiet() {
                return Some(entry.connection);
            }
        }
        None
    }

    /// Keeps a connection whose last exchange is over, unless there are `max` already.
    pub(crate) fn keep(&self, address: SocketAddr, connection: Connection, now: Instant, limits: Limits) {
        let mut by_address = self.by_address.borrow_mut();
        let kept = by_address.entry(address).or_default();
        if kept.len() < limits.idle_max {
            kept.push_back(Entry { connection, expires: now + limits.idle_timeout });
        }
    }

    /// Closes what has been idle for too long, and what its backend closed.
    pub(crate) fn expire(&self, now: Instant) {
        self.by_address.borrow_mut().retain(|_, kept| {
            kept.retain(|entry| entry.expires > now && entry.connection.wire.is_quiet());
            !kept.is_empty()
        });
    }
}

/// What may be kept of one backend's connections.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// In this worker.
    pub(crate) idle_max: usize,
    pub(crate) idle_timeout: Duration,
}

impl Limits {
    /// This worker's part of what a set allows the process; at least one where any is allowed.
    pub(crate) fn of(worker: &Worker, policy: &lb_core::backend::SetPolicy) -> Self {
        let allowed = policy.connections.idle_max as usize;
        Self { idle_max: allowed.div_ceil(worker.count), idle_timeout: policy.connections.idle_timeout }
    }
}

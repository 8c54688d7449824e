//! The proxy's copy of its pools, as they came over the wire. Pure: messages in, events out.
//!
//! The copy is exact or knows that it is not. Each set's digest is kept up to date by the difference and compared
//! after every message, so that a controller and a proxy that drift apart notice at the next change, and the
//! proxy asks for the whole pool. What is served in the meantime is what it has: stale beats nothing.
//!
//! While the chunks of an update arrive, deltas of the same pool go two ways: to the live sets at once, unchecked,
//! since an endpoint that is gone must not wait for a configuration; and into a list that is played again, checked,
//! when the update is whole.

mod kept;
mod reports;

use super::content::{Assembly, SetContent, WireConfig};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use weir_proto::limits::{
    CHUNK_BYTES_MAX, DELTA_BACKENDS_MAX, DELTAS_HELD_MAX, HEALTH_CAPABILITY, KEY_RING_CAPABILITY,
    MESSAGE_BYTES_MAX, POOL_UPDATE_BYTES_MAX, POOLS_MAX, SHARES_CAPABILITY,
};
use weir_proto::push::controller_message::Body as FromController;
use weir_proto::push::proxy_message::Body as ToController;
use weir_proto::push::{
    Ack, Backend, BackendDelta, ChunkReceived, ConfigChunk, ControllerMessage, HealthNews, Hello, KeyRing,
    KnownPool, Nack, PoolConfig, PoolRemoved, SetDigest, Shares, SnapshotRequest, Version, Welcome,
};

/// A message that no controller of this protocol sends. The stream is closed and dialled again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Breach {
    /// Without a body, or with one of a later protocol.
    #[error("the controller sent a message that this proxy does not know: upgrade the proxy")]
    Unknown,
    /// One of [`weir_proto::limits`] does not hold.
    #[error("the controller sent {what} of {pool:?} beyond the limit of {limit}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// Which pool.
        pool: String,
        /// How much may be.
        limit: usize,
    },
}

/// What a message means for the proxy.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// To be sent.
    Reply(ToController),
    /// The first message of the controller.
    Welcomed {
        /// For the log.
        controller_id: String,
        /// Of it.
        capabilities: Vec<String>,
    },
    /// A whole configuration is there, [`Replica::candidate`]. Answer with [`Replica::accepted`] or
    /// [`Replica::refused`].
    Configured {
        /// Which pool.
        pool: String,
        /// Sets whose contents are new, for the case that the configuration is refused.
        sets: Vec<String>,
    },
    /// Contents of sets have changed (perhaps of none). Answer with [`Replica::ack`] once they are live.
    BackendsChanged {
        /// Which pool.
        pool: String,
        /// Which sets.
        sets: Vec<String>,
    },
    /// The pool is not served any more.
    Removed {
        /// Which pool.
        pool: String,
    },
    /// Everything that the controller knew has come.
    Synced,
    /// What proxies share.
    Keys(KeyRing),
    /// What other proxies found of backends.
    Health(HealthNews),
    /// What this proxy may have of limits.
    Shares(Shares),
}

/// Every pool of this proxy.
#[derive(Debug, Default)]
pub struct Replica {
    pools: BTreeMap<String, PoolReplica>,
    /// Held from before this stream, and not mentioned on it so far.
    unconfirmed: BTreeSet<String>,
    assembling_bytes: usize,
}

#[derive(Debug, Default)]
struct PoolReplica {
    /// `None` before the stream has said at which version the pool is.
    version: Option<Version>,
    in_force: Option<WireConfig>,
    /// Arrived and not yet decided on, or refused.
    candidate: Option<WireConfig>,
    /// At `version`, but for sets that only `in_force` uses.
    sets: BTreeMap<String, SetContent>,
    update: Option<Assembly>,
    /// Out of step: nothing is acknowledged before an update.
    awaits_snapshot: bool,
}

impl Replica {
    /// Forgets what belonged to the stream before and tells what this proxy has.
    ///
    /// Pools beyond what one message holds are left out; they will be sent whole.
    pub fn begin_stream(&mut self, proxy_id: &str) -> Hello {
        self.assembling_bytes = 0;
        self.unconfirmed = self.pools.keys().cloned().collect();
        let mut hello = Hello {
            proxy_id: proxy_id.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            capabilities: [KEY_RING_CAPABILITY, HEALTH_CAPABILITY, SHARES_CAPABILITY].map(Into::into).into(),
            ..Hello::default()
        };
        let mut bytes = 0;
        for (name, pool) in &mut self.pools {
            pool.abandon_update();
            pool.version = None;
            pool.awaits_snapshot = false;
            let Some(config) = pool.in_force.as_ref().filter(|config| !config.is_partial) else { continue };
            let known =
                KnownPool { pool: name.clone(), config_digest: config.digest, sets: digests(&pool.sets) };
            bytes += prost::Message::encoded_len(&known) + 8;
            // No early end: what is left out of the message belonged to the stream before all the same.
            if bytes <= MESSAGE_BYTES_MAX / 2 {
                hello.known.push(known);
            }
        }
        hello
    }

    /// Takes a message of the controller in.
    ///
    /// # Errors
    /// [`Breach`]: the stream must be closed. The pools stay as they are.
    pub fn on_message(&mut self, message: ControllerMessage) -> Result<Vec<Event>, Breach> {
        match message.body.ok_or(Breach::Unknown)? {
            FromController::Welcome(welcome) => {
                let Welcome { controller_id, capabilities, .. } = welcome;
                Ok(vec![Event::Welcomed { controller_id, capabilities }])
            }
            FromController::ConfigChunk(chunk) => self.on_chunk(&chunk),
            FromController::BackendDelta(delta) => self.on_delta(delta),
            FromController::KeyRing(ring) => Ok(vec![Event::Keys(ring)]),
            FromController::HealthNews(news) => Ok(vec![Event::Health(news)]),
            FromController::PoolRemoved(removed) if self.is_overtaken(&removed) => Ok(Vec::new()),
            FromController::Shares(shares) => Ok(vec![Event::Shares(shares)]),
            FromController::PoolRemoved(removed) => Ok(self.remove(&removed.pool).into_iter().collect()),
            FromController::Synced(synced) => {
                let mut forgotten = std::mem::take(&mut self.unconfirmed);
                // Where fewer were mentioned than the controller has, what it said of one did not come: nobody knows of which.
                // What is gone ends with its removal, or when it is reported.
                let mentioned = self.pools.len() - forgotten.len();
                if synced.keep_unmentioned || mentioned < usize::try_from(synced.pools).unwrap_or(usize::MAX)
                {
                    forgotten.clear();
                }
                let mut events: Vec<Event> =
                    forgotten.into_iter().filter_map(|pool| self.remove(&pool)).collect();
                events.push(Event::Synced);
                Ok(events)
            }
        }
    }

    /// The configuration to decide on.
    #[must_use]
    pub fn candidate(&self, pool: &str) -> Option<&Arc<PoolConfig>> {
        self.pools.get(pool)?.candidate.as_ref().map(|wire| &wire.config)
    }

    /// Whether the newest contents of a set belong to the configuration in force, and not to one that was refused.
    #[must_use]
    pub fn is_of_source_in_force(&self, pool: &str, set: &str) -> bool {
        let source = |wire: &Option<WireConfig>| {
            let sets = wire.as_ref().map(|wire| &wire.config.backend_sets);
            sets.into_iter().flatten().find(|s| s.name == set).map(|s| s.source.clone())
        };
        let Some(pool) = self.pools.get(pool) else { return false };
        // A set that the candidate does not have is moved by nothing but the configuration in force.
        pool.candidate.is_none() || source(&pool.candidate).is_none_or(|s| Some(s) == source(&pool.in_force))
    }

    /// The configuration that serves, with its digest.
    #[must_use]
    pub fn in_force(&self, pool: &str) -> Option<(&Arc<PoolConfig>, u64)> {
        self.pools.get(pool)?.in_force.as_ref().map(|wire| (&wire.config, wire.digest))
    }

    /// The newest that is known of who is in a set, in the order of ids.
    pub fn backends(&self, pool: &str, set: &str) -> impl Iterator<Item = &Backend> {
        let content = self.pools.get(pool).and_then(|pool| pool.live(set));
        content.into_iter().flat_map(SetContent::backends)
    }

    /// Digest of each set that the pool holds, and the pool's version; `None` for a pool that is not held.
    #[must_use]
    pub fn state(&self, pool: &str) -> Option<(Option<Version>, Vec<SetDigest>)> {
        self.pools.get(pool).map(|pool| (pool.version, digests(&pool.sets)))
    }

    /// Names of all pools held.
    pub fn pools(&self) -> impl Iterator<Item = &str> {
        self.pools.keys().map(String::as_str)
    }

    /// Configurations that are the newest of their pool and not in force, by the pool's name.
    pub fn candidates(&self) -> impl Iterator<Item = &Arc<PoolConfig>> {
        self.pools.values().filter_map(|pool| pool.candidate.as_ref()).map(|wire| &wire.config)
    }

    /// The candidate serves from now on. The acknowledgement to send, if one is due.
    pub fn accepted(&mut self, name: &str) -> Option<ToController> {
        let pool = self.pools.get_mut(name)?;
        if let Some(config) = pool.candidate.take() {
            pool.in_force = Some(config);
        }
        pool.drop_unused_sets();
        self.ack(name)
    }

    /// The candidate was refused; what served before serves on.
    pub fn refused(&mut self, name: &str, field: String, reason: String) -> Option<ToController> {
        let version = self.pools.get(name)?.version;
        Some(ToController::Nack(Nack { pool: name.into(), version, field, reason }))
    }

    /// That everything up to now is applied; `None` while an update is on its way, which will be acknowledged.
    #[must_use]
    pub fn ack(&self, name: &str) -> Option<ToController> {
        let pool = self.pools.get(name)?;
        if pool.update.is_some() || pool.awaits_snapshot {
            return None;
        }
        let version = Some(pool.version?);
        let config_digest = pool.in_force.as_ref().map_or(0, |config| config.digest);
        Some(ToController::Ack(Ack { pool: name.into(), version, config_digest }))
    }

    /// Whether a removal comes behind the pool that was sent after it. No stream of HTTP/2 brings it so; but then the pool
    /// would be gone for good, since a proxy that does not hold a pool does not report it either.
    fn is_overtaken(&self, removed: &PoolRemoved) -> bool {
        let held = self.pools.get(&removed.pool).and_then(|pool| pool.version);
        let (Some(held), Some(last)) = (held, removed.version) else { return false };
        held.epoch == last.epoch && held.sequence > last.sequence
    }

    fn remove(&mut self, name: &str) -> Option<Event> {
        self.unconfirmed.remove(name);
        let pool = self.pools.remove(name)?;
        self.assembling_bytes -= pool.update.map_or(0, |update| update.payload.len());
        Some(Event::Removed { pool: name.into() })
    }

    fn on_chunk(&mut self, chunk: &ConfigChunk) -> Result<Vec<Event>, Breach> {
        let limit = |what, limit| Breach::Limit { what, pool: chunk.pool.clone(), limit };
        if chunk.payload.len() > CHUNK_BYTES_MAX {
            return Err(limit("a chunk", CHUNK_BYTES_MAX));
        }
        if !self.pools.contains_key(&chunk.pool) && self.pools.len() >= POOLS_MAX {
            return Err(limit("the configuration", POOLS_MAX));
        }
        if self.assembling_bytes + chunk.payload.len() > POOL_UPDATE_BYTES_MAX {
            return Err(limit("an update", POOL_UPDATE_BYTES_MAX));
        }
        let pool = self.pools.entry(chunk.pool.clone()).or_default();
        let mut events = vec![Event::Reply(ToController::ChunkReceived(ChunkReceived {
            pool: chunk.pool.clone(),
            version: chunk.version,
            index: chunk.index,
        }))];
        let before = pool.update.as_ref().map_or(0, |update| update.payload.len());
        events.extend(pool.on_chunk(chunk));
        let after = pool.update.as_ref().map_or(0, |update| update.payload.len());
        self.assembling_bytes = self.assembling_bytes - before + after;
        if chunk.last {
            self.unconfirmed.remove(&chunk.pool);
        }
        Ok(events)
    }

    fn on_delta(&mut self, delta: BackendDelta) -> Result<Vec<Event>, Breach> {
        let named: usize = delta.sets.iter().map(|set| set.upserted.len() + set.removed.len()).sum();
        if named > DELTA_BACKENDS_MAX {
            return Err(Breach::Limit { what: "a delta", pool: delta.pool, limit: DELTA_BACKENDS_MAX });
        }
        self.unconfirmed.remove(&delta.pool);
        let Some(pool) = self.pools.get_mut(&delta.pool) else {
            let reason = "a delta came for a pool that this proxy does not hold".into();
            return Ok(vec![request(delta.pool, reason)]);
        };
        let before = pool.update.as_ref().map_or(0, |update| update.payload.len());
        let events = pool.on_delta(delta);
        let after = pool.update.as_ref().map_or(0, |update| update.payload.len());
        self.assembling_bytes = self.assembling_bytes - before + after;
        Ok(events)
    }
}

impl PoolReplica {
    fn live(&self, set: &str) -> Option<&SetContent> {
        self.update.as_ref().and_then(|update| update.live.get(set)).or_else(|| self.sets.get(set))
    }

    /// What came early stays live; the rest of the update is forgotten.
    fn abandon_update(&mut self) {
        if let Some(update) = self.update.take() {
            self.sets.extend(update.live);
        }
    }

    fn drop_unused_sets(&mut self) {
        let configs = [&self.in_force, &self.candidate];
        let used: BTreeSet<&str> = configs
            .into_iter()
            .flatten()
            .flat_map(|wire| &wire.config.backend_sets)
            .map(|set| set.name.as_str())
            .collect();
        self.sets.retain(|name, _| used.contains(name.as_str()));
    }

    fn out_of_step(&mut self, name: &str, reason: String) -> Event {
        self.abandon_update();
        self.awaits_snapshot = true;
        request(name.into(), reason)
    }

    fn on_chunk(&mut self, chunk: &ConfigChunk) -> Vec<Event> {
        if chunk.index == 0 {
            self.abandon_update();
            self.update = Some(Assembly::new(chunk.version));
        }
        let Some(update) = &mut self.update else {
            // The rest of an update that was given up; the request for another is on its way.
            return Vec::new();
        };
        if update.version != chunk.version || update.next_index != chunk.index {
            return vec![self.out_of_step(&chunk.pool, format!("chunk {} is not the next one", chunk.index))];
        }
        update.next_index += 1;
        update.payload.extend_from_slice(&chunk.payload);
        if !chunk.last {
            return Vec::new();
        }
        match self.complete(&chunk.pool) {
            Ok(event) => vec![event],
            Err(reason) => vec![self.out_of_step(&chunk.pool, reason)],
        }
    }

    /// The update is whole: checks it against its digests, plays the deltas that came meanwhile.
    fn complete(&mut self, name: &str) -> Result<Event, String> {
        let Some(update) = &self.update else { return Err("no update is under way".into()) };
        let version = update.tail();
        let (config, mut fresh) = update.contents(name, &self.sets)?;
        for delta in &update.held {
            for set in &delta.sets {
                let content =
                    fresh.get_mut(&set.set).ok_or_else(|| format!("set {:?} is not held", set.set))?;
                content.apply(set);
                if content.digest() != set.digest {
                    return Err(format!("set {:?} has another digest after a delta that was held", set.set));
                }
            }
        }
        let differs = |(set, content): &(&String, &SetContent)| {
            self.live(set).is_none_or(|live| live.digest() != content.digest())
        };
        let changed: Vec<String> = fresh.iter().filter(differs).map(|(set, _)| set.clone()).collect();
        self.abandon_update();
        self.awaits_snapshot = false;
        self.version = version;
        self.sets.extend(fresh);
        let is_in_force = self.in_force.as_ref().is_some_and(|wire| wire.digest == config.digest);
        // Also where it is equal: what came from disk in part is whole then.
        let place = if is_in_force { &mut self.in_force } else { &mut self.candidate };
        *place = Some(config);
        if is_in_force {
            self.candidate = None;
        }
        self.drop_unused_sets();
        let pool = name.to_owned();
        if is_in_force {
            return Ok(Event::BackendsChanged { pool, sets: changed });
        }
        Ok(Event::Configured { pool, sets: changed })
    }

    fn on_delta(&mut self, delta: BackendDelta) -> Vec<Event> {
        if self.awaits_snapshot && self.update.is_none() {
            return self.apply_unchecked(&delta);
        }
        if let Some(update) = &mut self.update {
            if delta.base.is_none() || delta.base != update.tail() {
                return vec![
                    self.out_of_step(&delta.pool, "a delta does not follow the update under way".into()),
                ];
            }
            if update.held.len() >= DELTAS_HELD_MAX {
                return vec![
                    self.out_of_step(&delta.pool, format!("more than {DELTAS_HELD_MAX} deltas came")),
                ];
            }
            update.held.push(delta.clone());
            return self.apply_unchecked(&delta);
        }
        if delta.base.is_none() {
            return self.confirm(&delta);
        }
        if delta.base != self.version {
            let held = self.version.unwrap_or_default().sequence;
            let base = delta.base.unwrap_or_default().sequence;
            return vec![
                self.out_of_step(&delta.pool, format!("a delta follows {base}, this proxy is at {held}")),
            ];
        }
        self.apply_checked(delta)
    }

    fn confirm(&mut self, delta: &BackendDelta) -> Vec<Event> {
        if self.version.is_some() || !delta.sets.is_empty() || self.in_force.is_none() {
            let reason = "a delta without a base came for a pool that was not resumed".into();
            return vec![self.out_of_step(&delta.pool, reason)];
        }
        self.version = delta.version;
        self.candidate = None;
        vec![Event::BackendsChanged { pool: delta.pool.clone(), sets: Vec::new() }]
    }

    fn apply_checked(&mut self, delta: BackendDelta) -> Vec<Event> {
        let mut wrong = None;
        for set in &delta.sets {
            let Some(content) = self.sets.get_mut(&set.set) else {
                wrong = Some(format!("set {:?} is not held", set.set));
                continue;
            };
            content.apply(set);
            if content.digest() != set.digest {
                wrong = Some(format!("set {:?} has another digest after a delta", set.set));
            }
        }
        let sets = delta.sets.into_iter().map(|set| set.set).collect();
        let mut events = vec![Event::BackendsChanged { pool: delta.pool.clone(), sets }];
        match wrong {
            None => self.version = delta.version,
            Some(reason) => events.insert(0, self.out_of_step(&delta.pool, reason)),
        }
        events
    }

    fn apply_unchecked(&mut self, delta: &BackendDelta) -> Vec<Event> {
        let mut sets = Vec::new();
        for change in &delta.sets {
            let content = match &mut self.update {
                None => self.sets.get_mut(&change.set),
                Some(update) => match (update.live.contains_key(&change.set), self.sets.get(&change.set)) {
                    (false, None) => None,
                    (false, Some(held)) => {
                        Some(update.live.entry(change.set.clone()).or_insert(held.clone()))
                    }
                    (true, _) => update.live.get_mut(&change.set),
                },
            };
            if let Some(content) = content {
                content.apply(change);
                sets.push(change.set.clone());
            }
        }
        if sets.is_empty() {
            return Vec::new();
        }
        vec![Event::BackendsChanged { pool: delta.pool.clone(), sets }]
    }
}

fn request(pool: String, reason: String) -> Event {
    Event::Reply(ToController::SnapshotRequest(SnapshotRequest { pool, reason }))
}

fn digests(sets: &BTreeMap<String, SetContent>) -> Vec<SetDigest> {
    sets.iter().map(|(set, content)| SetDigest { set: set.clone(), digest: content.digest() }).collect()
}

#[cfg(test)]
mod tests;

//! What a proxy was sent of a pool, and how the difference to the newest version is written down.

use crate::compile::BackendSetContent;
use crate::store::Pool;
use bytes::Bytes;
use prost::Message as _;
use std::collections::BTreeMap;
use std::sync::Arc;
use weir_proto::limits::{CHUNK_BYTES_MAX, DELTA_BACKENDS_MAX, MESSAGE_BYTES_MAX, POOL_UPDATE_BYTES_MAX};
use weir_proto::push::{
    self, BackendDelta, ConfigChunk, DigestReport, PoolConfig, PoolUpdate, SetDelta, SetDigest, Version,
};

/// What a proxy has of a pool once everything sent has arrived.
#[derive(Debug)]
pub(crate) struct Sent {
    /// `None` while only the proxy's own word in Hello says what it has.
    pub(crate) version: Option<Version>,
    pub(crate) config_digest: u64,
    /// `None` while only its digest is known.
    pub(crate) config: Option<Arc<PoolConfig>>,
    pub(crate) sets: Sets,
}

/// What a proxy has of a pool's sets.
#[derive(Debug)]
pub(crate) enum Sets {
    /// One by one.
    Each(BTreeMap<String, SentSet>),
    /// All that this version has: what most proxies have of most pools, at the cost of a pointer.
    AllOf(Arc<Pool>),
}

/// What a proxy has of a set.
#[derive(Debug)]
pub(crate) enum SentSet {
    /// From Hello: equal or not is all that can be said.
    Digest(u64),
    /// Sent on this stream, or found equal; a delta can be taken from it.
    Content(Arc<BackendSetContent>),
}

impl Sets {
    pub(crate) fn digest(&self, set: &str) -> Option<u64> {
        match self {
            Self::Each(sets) => sets.get(set).map(SentSet::digest),
            Self::AllOf(pool) => pool.contents.sets.get(set).map(|content| content.digest),
        }
    }

    fn content(&self, set: &str) -> Option<&Arc<BackendSetContent>> {
        match self {
            Self::Each(sets) => match sets.get(set)? {
                SentSet::Content(content) => Some(content),
                SentSet::Digest(_) => None,
            },
            Self::AllOf(pool) => pool.contents.sets.get(set),
        }
    }

    fn digests(&self) -> Box<dyn Iterator<Item = (&str, u64)> + '_> {
        match self {
            Self::Each(sets) => Box::new(sets.iter().map(|(name, set)| (name.as_str(), set.digest()))),
            Self::AllOf(pool) => {
                Box::new(pool.contents.sets.iter().map(|(name, set)| (name.as_str(), set.digest)))
            }
        }
    }

    fn insert(&mut self, set: &str, content: &Arc<BackendSetContent>) {
        if let Self::AllOf(pool) = self {
            let content = |(name, set): (&String, &Arc<BackendSetContent>)| {
                (name.clone(), SentSet::Content(Arc::clone(set)))
            };
            *self = Self::Each(pool.contents.sets.iter().map(content).collect());
        }
        if let Self::Each(sets) = self {
            sets.insert(set.to_owned(), SentSet::Content(Arc::clone(content)));
        }
    }
}

impl SentSet {
    fn digest(&self) -> u64 {
        match self {
            Self::Digest(digest) => *digest,
            Self::Content(set) => set.digest,
        }
    }
}

impl Sent {
    pub(crate) fn all_of(pool: &Arc<Pool>) -> Self {
        Self {
            version: Some(pool.version),
            config_digest: pool.contents.config_digest,
            config: Some(Arc::clone(&pool.contents.config)),
            sets: Sets::AllOf(Arc::clone(pool)),
        }
    }

    /// Of a pool that is gone and that the proxy has nevertheless, at this version of the stream or from before it: of no
    /// configuration that there is, so that it is sent whole if it comes back.
    pub(crate) fn stray(version: Option<Version>) -> Self {
        Self { version, config_digest: 0, config: None, sets: Sets::Each(BTreeMap::new()) }
    }

    pub(crate) fn is_current(&self, target: &Pool) -> bool {
        self.version == Some(target.version) && is_complete(self, target)
    }

    /// Moves towards `target` by what fits one delta. The second value says whether an update must follow.
    ///
    /// A set whose source is another one than was sent waits for the update, whose rules its members belong to.
    pub(crate) fn advance(&mut self, target: &Arc<Pool>) -> (Option<BackendDelta>, bool) {
        let Some(base) = self.version else {
            if !is_complete(self, target) {
                return (None, true);
            }
            *self = Self::all_of(target);
            return (Some(delta(target, None, target.version, Vec::new())), false);
        };
        let mut needs_update = self.config_digest != target.contents.config_digest;
        let mut deltas = Vec::new();
        let mut backends = 0;
        for (name, set) in &target.contents.sets {
            if self.sets.digest(name) == Some(set.digest) {
                continue;
            }
            match self.sets.content(name) {
                Some(old) if self.has_source_of(name, target) => {
                    let difference = set_difference(name, old, set);
                    let size = difference.upserted.len() + difference.removed.len();
                    // What does not fit must not hold up what does.
                    if backends + size > DELTA_BACKENDS_MAX {
                        needs_update = true;
                    } else {
                        backends += size;
                        deltas.push(difference);
                    }
                }
                Some(_) | None => needs_update = true,
            }
        }
        let version = if needs_update { target.version_ahead() } else { target.version };
        let message = delta(target, Some(base), version, deltas);
        if prost::Message::encoded_len(&message) > MESSAGE_BYTES_MAX / 2 {
            return (None, true);
        }
        if (message.sets.is_empty() && needs_update) || base.sequence >= version.sequence {
            return (None, needs_update);
        }
        if !needs_update {
            // Sets that the proxy keeps for a configuration still in force are its own matter.
            *self = Self::all_of(target);
            return (Some(message), false);
        }
        for set in &message.sets {
            if let Some(content) = target.contents.sets.get(set.set.as_str()) {
                self.sets.insert(&set.set, content);
            }
        }
        self.version = Some(version);
        (Some(message), needs_update)
    }

    fn has_source_of(&self, set: &str, target: &Pool) -> bool {
        let source = |config: &PoolConfig| {
            config.backend_sets.iter().find(|wire| wire.name == set).map(|wire| wire.source.clone())
        };
        self.config_digest == target.contents.config_digest
            || self.config.as_deref().is_some_and(|config| source(config) == source(&target.contents.config))
    }

    /// What a report says differently, if anything. A configuration that was refused is not in force.
    pub(crate) fn divergence(&self, report: &DigestReport, is_refused: bool) -> Option<String> {
        if report.config_digest != self.config_digest && !is_refused {
            return Some("the configuration".into());
        }
        self.sets.digests().find_map(|(name, sent)| {
            let reported = report.sets.iter().find(|s| s.set == name);
            reported.is_none_or(|s| s.digest != sent).then(|| format!("backend set {name}"))
        })
    }
}

fn delta(target: &Pool, base: Option<Version>, version: Version, sets: Vec<SetDelta>) -> BackendDelta {
    BackendDelta { pool: target.name.to_string(), base, version: Some(version), sets }
}

/// Whether configuration and sets are equal to the target's, whatever the version.
pub(crate) fn is_complete(sent: &Sent, target: &Pool) -> bool {
    sent.config_digest == target.contents.config_digest
        && target.contents.sets.iter().all(|(name, set)| sent.sets.digest(name) == Some(set.digest))
}

/// By one walk over both, which are sorted by id.
pub(crate) fn set_difference(name: &str, old: &BackendSetContent, new: &BackendSetContent) -> SetDelta {
    let mut delta = SetDelta { set: name.into(), digest: new.digest, ..SetDelta::default() };
    let (mut old, mut new) = (old.backends.iter().peekable(), new.backends.iter().peekable());
    loop {
        match (old.peek(), new.peek()) {
            (None, None) => return delta,
            (Some(o), n) if n.is_none_or(|n| o.id < n.id) => {
                delta.removed.push(o.id.clone());
                old.next();
            }
            (Some(o), Some(n)) if o.id == n.id => {
                if o != n {
                    delta.upserted.push((*n).clone());
                }
                old.next();
                new.next();
            }
            (_, Some(n)) => {
                delta.upserted.push((*n).clone());
                new.next();
            }
            (Some(_), None) => unreachable!("an absent new backend is the first case"),
        }
    }
}

/// An encoded `PoolUpdate` of which the first chunks may have been sent.
#[derive(Debug)]
pub(crate) struct Update {
    version: Version,
    index: u32,
    rest: Bytes,
}

impl Update {
    /// Everything of `pool` but the contents of sets that are equal in `known`.
    ///
    /// # Errors
    /// The encoded size in bytes, when it is above [`POOL_UPDATE_BYTES_MAX`].
    pub(crate) fn new(pool: &Pool, known: Option<&Sent>) -> Result<Self, usize> {
        if known.is_none()
            && let Some(whole) = pool.whole.get()
        {
            return Ok(Self { version: pool.version, index: 0, rest: whole.clone() });
        }
        let mut update = PoolUpdate {
            config: Some((*pool.contents.config).clone()),
            config_digest: pool.contents.config_digest,
            ..PoolUpdate::default()
        };
        for (name, set) in &pool.contents.sets {
            let has = known.and_then(|sent| sent.sets.digest(name));
            if has == Some(set.digest) {
                update.kept.push(SetDigest { set: name.clone(), digest: set.digest });
            } else {
                let backends = set.backends.clone();
                update.sets.push(push::BackendSetContent { set: name.clone(), digest: set.digest, backends });
            }
        }
        let bytes = update.encoded_len();
        if bytes > POOL_UPDATE_BYTES_MAX {
            return Err(bytes);
        }
        let encoded = Bytes::from(update.encode_to_vec());
        let rest = match known {
            None => pool.whole.get_or_init(|| encoded).clone(),
            Some(_) => encoded,
        };
        Ok(Self { version: pool.version, index: 0, rest })
    }

    pub(crate) fn next_chunk(&mut self, pool: &str) -> ConfigChunk {
        let payload = self.rest.split_to(self.rest.len().min(CHUNK_BYTES_MAX));
        let index = self.index;
        self.index += 1;
        let last = self.rest.is_empty();
        ConfigChunk { pool: pool.into(), version: Some(self.version), index, last, payload }
    }
}

//! The last known good configuration on disk, so that a proxy starts and serves with no controller.
//!
//! ```text
//! start:   file -> checked -> replica, as candidates -> apply, like any configuration
//! running: replica -> what changed, at most once a second -> writer (a task of its own) -> file
//! ```
//!
//! What is kept is what a controller would be told of in Hello: each pool's configuration in force and the contents of
//! its sets. Versions are not, since they mean nothing on another stream. What is restored counts as known, by the
//! digest of what is held, so a controller that comes back sends only what differs.
//!
//! Private keys leave memory sealed, with a key that the operator mounts, or not at all; a folder in memory (tmpfs) takes
//! them as they are. A pool whose keys are not there is restored without the listeners that need them. It is not
//! claimed to be known and not written again before a controller has sent it, so that keys which another start could open
//! stay in the file.
//!
//! Nothing waits for the disk: the task that applies configuration hands over what changed when the writer asks for it,
//! and goes on when the writer never does.

mod folder;
mod format;
mod record;
mod secrets;
mod writer;

pub use folder::{ASIDE, FILE, FolderError};
pub use format::{FILE_BYTES_MAX, FORMAT, Refusal};
pub(super) use record::RestoredPool;
pub use secrets::{KEY_FILE_BYTES_MAX, StateKey, StateKeyError};
pub(super) use writer::{Batch, Keeper, Kept};
pub use writer::{WRITE_INTERVAL, Writer};

use super::status::Status;
use bytes::Bytes;
use folder::Folder;
use format::{Secret, Stored};
use prost::Message as _;
use record::{KEY_RING, Mark};
use secrets::Care;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use weir_proto::push::KeyRing;

/// Where and how the last known good configuration is kept.
#[derive(Debug, Clone)]
pub struct StateOptions {
    /// A folder for this proxy alone. Made where it is missing.
    pub folder: PathBuf,
    /// File with the key that private keys are sealed with.
    pub key_file: Option<PathBuf>,
    /// How long a proxy that has restored its configuration waits for a controller before it is ready.
    pub grace: Duration,
}

/// Why no state can be kept; who started the process can fix it.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The key.
    #[error(transparent)]
    Key(#[from] StateKeyError),
}

/// What a proxy that keeps its state begins with.
#[derive(Debug)]
pub struct State {
    pub(super) restored: Option<Restored>,
    pub(super) keeper: Keeper,
    pub(super) grace: Duration,
}

/// What was found.
#[derive(Debug)]
pub(super) struct Restored {
    pub(super) pools: Vec<RestoredPool>,
    pub(super) ring: Option<KeyRing>,
    /// When it was last known to be the newest.
    pub(super) saved: SystemTime,
}

impl State {
    /// Takes the folder and reads what is there. A file that cannot be used is set aside, which is logged, and counts as
    /// none. Blocks for as long as the file system does.
    ///
    /// # Errors
    /// [`StateError`]: the folder or the key file is of no use.
    pub fn open(options: &StateOptions, status: Arc<Status>) -> Result<(Self, Writer), StateError> {
        Self::of(Folder::take(&options.folder)?, options, status)
    }

    /// The same in a folder that another process gives up to this one. The writer waits for that.
    ///
    /// # Errors
    /// [`StateError`], as above.
    pub fn inherit(options: &StateOptions, status: Arc<Status>) -> Result<(Self, Writer), StateError> {
        Self::of(Folder::open(&options.folder)?, options, status)
    }

    fn of(folder: Folder, options: &StateOptions, status: Arc<Status>) -> Result<(Self, Writer), StateError> {
        let key = options.key_file.as_deref().map(StateKey::read).transpose()?;
        let care = match key {
            Some(key) => Care::Sealed(key),
            None if folder.is_in_memory() => Care::Memory,
            None => Care::LeftOut,
        };
        let found = read(&folder, &care).unwrap_or_default();
        let known_ring =
            found.ring.clone().filter(|_| found.kept_ring.as_ref().is_some_and(|kept| care.keeps_as(kept)));
        let restored = found.saved.map(|saved| Restored { pools: found.pools, ring: found.ring, saved });
        let (records, ring) = (found.records, found.kept_ring);
        let (keeper, writer) =
            writer::pair(writer::Parts { folder, care, records, ring, known_ring, status });
        Ok((Self { restored, keeper, grace: options.grace }, writer))
    }
}

/// A file taken apart. Empty where there is none.
#[derive(Default)]
struct Found {
    pools: Vec<RestoredPool>,
    /// The pools as they stand in the file.
    records: BTreeMap<String, (Option<Mark>, Bytes)>,
    ring: Option<KeyRing>,
    kept_ring: Option<Secret>,
    saved: Option<SystemTime>,
}

/// `None` where there is nothing, or nothing that can be used.
fn read(folder: &Folder, care: &Care) -> Option<Found> {
    let found = folder.read().and_then(|file| {
        let Some((bytes, saved)) = file else { return Ok(None) };
        let found = take_apart(format::decode(&bytes)?, care)?;
        Ok(Some(Found { saved: Some(saved), ..found }))
    });
    let refusal = match found {
        Ok(found) => return found,
        Err(refusal) => refusal,
    };
    let (file, reason) = (folder.path().join(FILE), weir_dial::with_causes(&refusal));
    match folder.set_aside() {
        Ok(aside) => tracing::warn!(
            file = %file.display(), %reason, aside = %aside.display(),
            "the last known configuration cannot be used and is set aside; starting without it"
        ),
        Err(error) => tracing::warn!(
            file = %file.display(), %reason, %error,
            "the last known configuration cannot be used, nor set aside; starting without it"
        ),
    }
    None
}

fn take_apart(stored: Stored, care: &Care) -> Result<Found, Refusal> {
    let mut found = Found::default();
    for bytes in stored.pools {
        let pool = record::open(bytes.clone(), care)?;
        let name = pool.config.pool.clone();
        if found.records.insert(name.clone(), (pool.mark(), bytes)).is_some() {
            return Err(Refusal::Pool(name));
        }
        found.pools.push(pool);
    }
    let ring = stored.ring.clone().and_then(|secret| care.open(KEY_RING, secret));
    found.ring = ring.and_then(|ring| KeyRing::decode(&*ring).ok());
    found.kept_ring = stored.ring;
    Ok(found)
}

/// Reads any bytes as a file, as they are and with a head that fits them.
#[cfg(fuzzing)]
pub(super) fn fuzz(bytes: &[u8]) {
    let read = |file: &[u8]| {
        if let Ok(stored) = format::decode(file) {
            let again = format::encode(&stored).expect("no longer than it was");
            format::decode(&again).expect("what was read can be read again");
            let _ = take_apart(stored, &Care::Memory);
        }
    };
    read(bytes);
    if let Ok(stored) = Stored::decode(bytes) {
        read(&format::encode(&stored).expect("shorter than a file may be"));
    }
}

#[cfg(test)]
mod tests;

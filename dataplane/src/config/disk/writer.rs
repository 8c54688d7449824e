//! Who writes the file: a task of its own. The disk may be slow or broken; nobody waits for it.
//!
//! The writer asks when it is ready, once in [`WRITE_INTERVAL`] at most; then it is handed what changed since it last
//! asked, in its newest state. So there is no queue, whatever the rate of changes.

use super::folder::Folder;
use super::format::{self, FILE_BYTES_MAX, Secret, Stored};
use super::record::{self, KEY_RING, Mark};
use super::secrets::Care;
use crate::config::content::SetContent;
use crate::config::status::Status;
use bytes::Bytes;
use prost::Message as _;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, MissedTickBehavior};
use weir_proto::push::{KeyRing, PoolConfig};

/// Shortest time between the beginnings of two writes.
pub const WRITE_INTERVAL: Duration = Duration::from_secs(1);

/// Wait after a write that failed, where nothing else changes meanwhile.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// How often the time of the file is moved on while the proxy is in step with a controller.
const TOUCH_INTERVAL: Duration = Duration::from_secs(30);

/// A pool to be kept, as it is in force.
#[derive(Debug, Clone)]
pub(in crate::config) struct Kept {
    pub(in crate::config) config: Arc<PoolConfig>,
    pub(in crate::config) digest: u64,
    pub(in crate::config) sets: Vec<(String, SetContent)>,
}

/// What changed.
#[derive(Debug, Default)]
pub(in crate::config) struct Batch {
    /// `None` for a pool that is gone.
    pub(in crate::config) pools: BTreeMap<String, Option<Kept>>,
    pub(in crate::config) ring: Option<KeyRing>,
}

/// The end of the task that applies configuration.
#[derive(Debug)]
pub(in crate::config) struct Keeper {
    wanted: Arc<Notify>,
    batches: mpsc::Sender<Batch>,
}

impl Keeper {
    /// Completes once the writer asks for what changed; for ever after it has ended, never. Cancelled, it takes nothing
    /// back.
    pub(in crate::config) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Answers the writer's question; to be called once for each.
    pub(in crate::config) fn hand_over(&self, batch: Batch) {
        // There is room, for it asks for one at a time; or it has ended, and nothing is kept any more.
        let _ = self.batches.try_send(batch);
    }
}

/// What a writer works with.
pub(super) struct Parts {
    pub(super) folder: Folder,
    pub(super) care: Care,
    /// What is in the file, by the names of pools. Without a mark, it is replaced whatever comes.
    pub(super) records: BTreeMap<String, (Option<Mark>, Bytes)>,
    pub(super) ring: Option<Secret>,
    /// The ring in the clear, where it stands in the file as it would be written now.
    pub(super) known_ring: Option<KeyRing>,
    pub(super) status: Arc<Status>,
}

/// What a writer does next.
#[derive(Debug)]
enum Work {
    Take(Batch),
    /// What could not be written.
    Retry,
    Touch,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Records may hold private keys.
        f.debug_struct("Parts").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// Writes the file. [`Self::run`] is its task.
#[derive(Debug)]
pub struct Writer {
    parts: Parts,
    wanted: Arc<Notify>,
    batches: mpsc::Receiver<Batch>,
    /// What is in memory is not in the file.
    is_unsaved: bool,
    is_failing: bool,
    has_said_what_is_left_out: bool,
}

/// Both ends.
pub(super) fn pair(parts: Parts) -> (Keeper, Writer) {
    let wanted = Arc::<Notify>::default();
    let (sender, batches) = mpsc::channel(1);
    let keeper = Keeper { wanted: Arc::clone(&wanted), batches: sender };
    let writer = Writer {
        parts,
        wanted,
        batches,
        is_unsaved: false,
        is_failing: false,
        has_said_what_is_left_out: false,
    };
    (keeper, writer)
}

impl Writer {
    /// Writes for as long as there is somebody who may hand something over. What is being written when the task is
    /// aborted is written to its end, unless the process ends first.
    pub async fn run(self) {
        let mut writer = self;
        let mut touches = tokio::time::interval(TOUCH_INTERVAL);
        touches.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let taken = tokio::task::spawn_blocking(move || {
            let taken = writer.parts.folder.wait();
            (writer, taken)
        });
        let Ok((back, taken)) = taken.await else { return };
        writer = back;
        if let Err(error) = taken {
            tracing::warn!(%error, "the state folder cannot be taken; two processes may write there");
        }
        writer.wanted.notify_one();
        loop {
            let work = tokio::select! {
                batch = writer.batches.recv() => match batch {
                    Some(batch) => Work::Take(batch),
                    None => return,
                },
                () = tokio::time::sleep(RETRY_INTERVAL), if writer.is_unsaved => Work::Retry,
                _ = touches.tick() => Work::Touch,
            };
            let is_asked_for = matches!(work, Work::Take(_));
            let begun = Instant::now();
            // A disk may take its time also for what looks small.
            let worked = tokio::task::spawn_blocking(move || {
                match work {
                    Work::Take(batch) => writer.take(batch),
                    Work::Retry => {}
                    Work::Touch => writer.touch(),
                }
                writer.save();
                writer
            });
            // It never panics, and else the process is ending.
            let Ok(back) = worked.await else { return };
            writer = back;
            tokio::time::sleep_until(begun + WRITE_INTERVAL).await;
            if is_asked_for {
                writer.wanted.notify_one();
            }
        }
    }

    /// Writes what was handed over, if anything was, at once and on this thread: for who has no task for it.
    pub fn write(&mut self) {
        while let Ok(batch) = self.batches.try_recv() {
            self.take(batch);
        }
        self.save();
    }

    pub(super) fn take(&mut self, batch: Batch) {
        for (name, kept) in batch.pools {
            let Some(kept) = kept else {
                self.is_unsaved |= self.parts.records.remove(&name).is_some();
                continue;
            };
            let mark = Some(record::mark(&kept, &self.parts.care));
            if self.parts.records.get(&name).is_some_and(|(before, _)| *before == mark) {
                continue;
            }
            self.warn_of_keys(&kept);
            let bytes = record::encode(&kept, &self.parts.care);
            self.parts.records.insert(name, (mark, bytes));
            self.is_unsaved = true;
        }
        if let Some(ring) = batch.ring.filter(|ring| self.parts.known_ring.as_ref() != Some(ring)) {
            if let Some(secret) = self.parts.care.keep(KEY_RING, ring.encode_to_vec()) {
                self.parts.ring = Some(secret);
                self.is_unsaved = true;
            }
            self.parts.known_ring = Some(ring);
        }
    }

    /// Writes what is not in the file yet.
    pub(super) fn save(&mut self) {
        if !self.is_unsaved {
            return;
        }
        let pools = self.parts.records.values().map(|(_, bytes)| bytes.clone()).collect();
        let file = format::encode(&Stored { pools, ring: self.parts.ring.clone() });
        let too_large = || io::Error::other(format!("it would be above the limit of {FILE_BYTES_MAX} bytes"));
        let written = file.ok_or_else(too_large).and_then(|file| self.parts.folder.write(&file));
        self.parts.status.state_written(written.is_ok());
        let folder = self.parts.folder.path().display();
        match written {
            Ok(()) => {
                self.is_unsaved = false;
                if std::mem::take(&mut self.is_failing) {
                    tracing::info!(%folder, "the configuration is kept on disk again");
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_failing, true) {
                    tracing::error!(
                        %folder, %error,
                        "the configuration cannot be kept on disk; it serves on, and a restart without a controller would find an older one"
                    );
                }
            }
        }
    }

    /// The time of the file is when it was last known to be the newest. One that is missing, or cannot be touched, is
    /// found out about by the next write.
    pub(super) fn touch(&self) {
        if self.parts.status.is_in_step() && !self.is_unsaved && !self.parts.records.is_empty() {
            let _ = self.parts.folder.touch(SystemTime::now());
        }
    }

    fn warn_of_keys(&mut self, kept: &Kept) {
        let needs_keys = kept.config.listeners.iter().any(|listener| listener.tls.is_some());
        let is_left_out = matches!(self.parts.care, Care::LeftOut);
        if needs_keys && is_left_out && !std::mem::replace(&mut self.has_said_what_is_left_out, true) {
            tracing::warn!(
                folder = %self.parts.folder.path().display(),
                "private keys are not kept on disk, so HTTPS listeners would wait for a controller after a restart: mount a key with --state-key-file, or put --state-folder on tmpfs"
            );
        }
    }
}

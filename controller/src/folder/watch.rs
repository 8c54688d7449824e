//! Events of a folder, settled.

use super::files::{Events, Folder, is_manifest};
use super::{FolderError, certificates};
use crate::source::Loaded;
use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{RecursiveMode, Watcher as _};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task;

/// A change counts when nothing more came for this long.
pub const SETTLE_QUIET: Duration = Duration::from_millis(5);
/// ... and after this long at the latest, so that a busy file holds up no other.
pub const SETTLE_MAX: Duration = Duration::from_millis(50);
/// How often the folder is looked at where no event says so: file systems without inotify, a lost event, links to
/// files elsewhere.
pub const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// A file that was written and not closed is read after this long without a further write.
const WRITER_GONE_AFTER: Duration = Duration::from_secs(1);

/// Events that wait to be taken; past it they are dropped, and the next load looks at everything.
const EVENTS_MAX: usize = 4096;

/// A folder that is followed.
#[derive(Debug)]
pub struct FolderSource {
    folder: Folder,
    watch: Watch,
}

#[derive(Debug)]
struct Watch {
    path: PathBuf,
    /// Name of the only file that counts, where one was named.
    file: Option<OsString>,
    /// `None` where the system has no inotify to give: then only the poll is left.
    watcher: Option<notify::RecommendedWatcher>,
    events: mpsc::Receiver<notify::Event>,
    /// Device and inode of the folder that is watched; a new folder of the same name is watched anew.
    watched: Option<Inode>,
    /// The same of the folders in it, which may hold certificates.
    inner: BTreeMap<PathBuf, Inode>,
    /// By file name, since the paths of events are absolute, whatever path is watched. With the time of the oldest event
    /// after which the file was whole.
    touched: HashMap<OsString, Instant>,
    /// By file name, with the time of the last write.
    writing: HashMap<OsString, Instant>,
}

/// Device and inode.
type Inode = (u64, u64);

impl FolderSource {
    /// Starts to watch a folder or one file, so that nothing that changes from here on is missed. Reads nothing yet.
    ///
    /// # Errors
    /// Where nothing is at `path`.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        let folder = Folder::open(path)?;
        Ok(Self { folder, watch: Watch::new(path) })
    }

    /// Delivers what the folder holds, at once and then after each change, for ever, with the time when the oldest event
    /// of the change was seen: a file that was being written counts from when its writer was through. Nothing is delivered before
    /// the folder could be listed once: what is not known is not empty. Blocking work, `on_loaded` included, runs
    /// on the runtime's blocking threads; dropping the future ends the watch.
    ///
    /// # Panics
    /// Where a reading task or `on_loaded` panicked or the runtime is shutting down.
    pub async fn run(self, mut on_loaded: impl FnMut(Loaded, Instant) + Send + 'static) {
        let Self { mut folder, mut watch } = self;
        let mut is_first = true;
        loop {
            let (events, seen) = watch.take_settled(Instant::now());
            let read = task::spawn_blocking(move || {
                let is_changed = folder.refresh(&events, Instant::now());
                if let Some(problem) = folder.unlisted() {
                    if is_changed {
                        tracing::warn!("{problem}");
                    }
                } else if is_changed || is_first {
                    is_first = false;
                    on_loaded(folder.loaded(), seen);
                }
                (folder, on_loaded, is_first)
            });
            (folder, on_loaded, is_first) = read.await.expect("reading a folder does not panic");
            watch.changed(folder.next_look()).await;
        }
    }
}

impl Watch {
    fn new(path: &Path) -> Self {
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // An error (a queue that ran over) is an event that names nothing: look at everything.
            let event = event.unwrap_or_else(|_| notify::Event::new(EventKind::Other));
            if concerns(&event.kind) {
                // A full channel wakes the reader as well as one more event would.
                let _ = sender.try_send(event);
            }
        });
        let watcher = watcher.inspect_err(|error| {
            tracing::warn!(%error, poll = ?POLL_INTERVAL, "no file events: the folder is only polled");
        });
        let is_file = path.is_file();
        let mut watch = Self {
            // A single file is watched through its folder, which sees it replaced.
            path: if is_file { parent(path) } else { path.to_owned() },
            file: path.file_name().filter(|_| is_file).map(ToOwned::to_owned),
            watcher: watcher.ok(),
            events,
            watched: None,
            inner: BTreeMap::new(),
            touched: HashMap::new(),
            writing: HashMap::new(),
        };
        watch.follow();
        watch
    }

    /// Watches the folder that is at the path now, and those in it.
    fn follow(&mut self) {
        self.follow_outer();
        if self.file.is_none() {
            self.follow_inner();
        }
    }

    /// Before anything of them is read, so that nothing is missed.
    fn follow_inner(&mut self) {
        let Some(watcher) = &mut self.watcher else { return };
        let folders = certificates::folders(&self.path).unwrap_or_default();
        let found: BTreeMap<_, _> =
            folders.into_iter().filter_map(|path| inode(&path).map(|inode| (path, inode))).collect();
        self.inner.retain(|path, inode| {
            let stays = found.get(path) == Some(inode);
            if !stays {
                // Fails where the folder is gone, and with it the watch.
                let _ = watcher.unwatch(path);
            }
            stays
        });
        for (path, inode) in found {
            // Without it the poll is left.
            if !self.inner.contains_key(&path) && watcher.watch(&path, RecursiveMode::NonRecursive).is_ok() {
                self.inner.insert(path, inode);
            }
        }
    }

    fn follow_outer(&mut self) {
        let found = inode(&self.path);
        let Some(watcher) = self.watcher.as_mut().filter(|_| found != self.watched) else { return };
        if self.watched.take().is_some() {
            // Fails where the old folder is gone, and with it the watch.
            let _ = watcher.unwatch(&self.path);
        }
        match watcher.watch(&self.path, RecursiveMode::NonRecursive) {
            Ok(()) => self.watched = found,
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "cannot watch: the folder is only polled");
            }
        }
    }

    /// What is to be looked at, and when the oldest event of it was seen: now, where it is the poll that finds something.
    fn take_settled(&mut self, now: Instant) -> (Events, Instant) {
        self.writing.retain(|_, last| now < *last + WRITER_GONE_AFTER);
        let writing: HashSet<_> = self.writing.keys().cloned().collect();
        let touched = std::mem::take(&mut self.touched);
        // What is being written is looked at when it is closed.
        let (later, touched): (_, HashMap<_, _>) =
            touched.into_iter().partition(|(name, _)| writing.contains(name));
        self.touched = later;
        let seen = touched.values().min().map_or(now, |oldest| now.min(*oldest));
        (Events { touched: touched.into_keys().collect(), writing }, seen)
    }

    /// Returns when there is something to look at: settled events, the poll, or a time that was set.
    async fn changed(&mut self, next_look: Option<Instant>) {
        let now = Instant::now();
        let closes = self.writing.values().map(|last| *last + WRITER_GONE_AFTER);
        let due = closes.chain(next_look).chain([now + POLL_INTERVAL]).min().unwrap_or(now);
        tokio::select! {
            event = self.events.recv() => {
                if let Some(event) = event {
                    self.note(&event);
                    self.settle().await;
                } else {
                    tokio::time::sleep_until(due.into()).await;
                }
            }
            () = tokio::time::sleep_until(due.into()) => {}
        }
        // Whatever woke us: a folder that was moved away may have events for ever.
        self.follow();
    }

    async fn settle(&mut self) {
        let latest = Instant::now() + SETTLE_MAX;
        loop {
            let quiet = (Instant::now() + SETTLE_QUIET).min(latest);
            match tokio::time::timeout_at(quiet.into(), self.events.recv()).await {
                Ok(Some(event)) => self.note(&event),
                Ok(None) => return,
                // Who writes is waited for, up to the end.
                Err(_) if !self.writing.is_empty() && Instant::now() < latest => {}
                Err(_) => return,
            }
        }
    }

    fn note(&mut self, event: &notify::Event) {
        let now = Instant::now();
        let is_being_written = matches!(event.kind, EventKind::Modify(ModifyKind::Data(_)));
        // An editor's own files (a swap file stays open for hours) must not hold up anything.
        for path in &event.paths {
            let Some(name) = self.counted(path) else { continue };
            let was_whole = if is_being_written {
                self.writing.insert(name.to_owned(), now);
                false
            } else {
                self.writing.remove(name).is_none()
            };
            let seen = self.touched.entry(name.to_owned()).or_insert(now);
            if !was_whole {
                *seen = now;
            }
        }
    }

    /// The name of the file that an event is about, if it counts: for one in a certificate's folder, the folder's.
    fn counted<'a>(&self, path: &'a Path) -> Option<&'a OsStr> {
        let name = path.file_name()?;
        if let Some(file) = &self.file {
            return (file == name).then_some(name);
        }
        let folder = path.parent()?;
        match self.inner.keys().any(|inner| is_same(inner, folder)) {
            true => folder.file_name().filter(|_| certificates::is_part(name)),
            false => is_manifest(path).then_some(name),
        }
    }
}

/// Paths of events are absolute, whatever path is watched.
fn is_same(path: &Path, of_event: &Path) -> bool {
    std::path::absolute(path).is_ok_and(|path| path == of_event)
}

fn inode(path: &Path) -> Option<Inode> {
    std::fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Reading a file is an event too, and must not lead to reading it.
fn concerns(kind: &EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        EventKind::Any
        | EventKind::Create(_)
        | EventKind::Modify(_)
        | EventKind::Remove(_)
        | EventKind::Other => true,
    }
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn watched(path: &Path) -> Option<(u64, u64)> {
        fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
    }

    #[tokio::test]
    async fn a_replaced_folder_is_followed_although_the_old_one_still_has_events() {
        let outer = tempfile::tempdir().expect("a temporary folder");
        let (inner, away) = (outer.path().join("inner"), outer.path().join("away"));
        fs::create_dir(&inner).expect("a folder");
        let mut watch = Watch::new(&inner);
        fs::rename(&inner, &away).expect("a rename");
        fs::create_dir(&inner).expect("a folder");
        fs::write(away.join("a.yaml"), "kind: x").expect("a file");
        // The event of the old folder is there, so that the poll is not what wakes.
        watch.changed(None).await;
        assert_eq!(watch.watched, watched(&inner));
    }

    #[test]
    fn a_change_is_seen_with_the_oldest_event_after_which_its_file_was_whole() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let mut watch = Watch::new(temp.path());
        let mut note = |kind: EventKind, name: &str| {
            let before = Instant::now();
            watch.note(&notify::Event::new(kind).add_path(temp.path().join(name)));
            (before, Instant::now())
        };
        let write = EventKind::Modify(ModifyKind::Data(notify::event::DataChange::Any));
        let close = EventKind::Access(AccessKind::Close(AccessMode::Write));
        note(write, "slow.yaml");
        let closed = note(close, "slow.yaml");
        note(EventKind::Create(notify::event::CreateKind::File), "moved.yaml");
        note(close, "slow.yaml");
        let now = Instant::now();
        let (events, seen) = watch.take_settled(now);
        assert_eq!(events.touched.len(), 2);
        assert!(closed.0 <= seen && seen <= closed.1, "neither the first write nor the last event");
        assert_eq!(watch.take_settled(now).1, now, "nothing came: a poll sees what it finds");
    }

    #[test]
    fn a_single_file_is_protected_while_it_is_written_whatever_it_is_called() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        for name in ["pool.conf", "other.yaml"] {
            fs::write(temp.path().join(name), "kind: x").expect("a file");
        }
        let mut watch = Watch::new(&temp.path().join("pool.conf"));
        for name in ["pool.conf", "other.yaml"] {
            let written = EventKind::Modify(ModifyKind::Data(notify::event::DataChange::Any));
            watch.note(&notify::Event::new(written).add_path(temp.path().join(name)));
        }
        assert_eq!(watch.take_settled(Instant::now()).0.writing, ["pool.conf".into()].into());
    }
}

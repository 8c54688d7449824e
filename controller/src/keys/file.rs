//! The keys of a controller without an API server: a file, so that they outlive the process.
//!
//! It holds what the Secret would ([`super::secret`]), as JSON, and is kept by the same plan: made, rotated and mended
//! over what was read. Several processes of one user may share it. A new file takes the old one's place in one step, so
//! that nobody reads a half; where two processes rotate in the same moment, both go on with what is there afterwards.
//!
//! Whoever reads the file can make session cookies and read TLS sessions: one that others may read, or that belongs to
//! somebody else, is refused and not mended, for nobody knows who has seen it.

use super::ring::{Key, RandomError, Ring};
use super::secret::{self, Plan, Why};
use super::{ROTATION_INTERVAL_MAX, ROTATION_INTERVAL_MIN};
use aws_lc_rs::rand;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Largest file that is read.
pub const FILE_BYTES_MAX: u64 = 64 << 10;

/// Longest time without a look at the file, which another process may have rotated, and at the clock of the day.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// How often a look begins again because another process was faster.
const ATTEMPTS_MAX: usize = 5;

/// What the file may permit: its owner to read and write.
const MODE_MAX: u32 = 0o600;

/// Why a file of keys is of no use; who started the process can fix it.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// No file can be read or written there.
    #[error("cannot keep keys in {path}")]
    Place {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Others may read it, or write it.
    #[error(
        "the keys in {path} are open to others (mode {mode:03o}): delete the file, so that new ones are made"
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It belongs to another user.
    #[error("the keys in {path} belong to user {owner}, not to this process's: name another file")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// Something else is in it, which is not to be overwritten.
    #[error("{0} holds no keys of weir: name another file, or delete it")]
    NoKeys(PathBuf),
    /// Other processes rewrite it all the time.
    #[error("the keys in {0} change faster than they can be read")]
    Busy(PathBuf),
    /// No new keys could be drawn.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// Keeps a file of keys.
#[derive(Debug)]
pub struct FileKeeper {
    path: PathBuf,
    rotation: Duration,
}

/// What there is, and for how long nothing is to be done.
#[derive(Debug)]
struct Kept {
    ring: Ring,
    wait: Duration,
}

impl FileKeeper {
    /// Reads the keys in this file, or makes them there, with the folders that are missing. `rotation` is brought between
    /// [`ROTATION_INTERVAL_MIN`] and [`ROTATION_INTERVAL_MAX`]. Blocks for as long as the file system does.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn open(path: &Path, rotation: Duration) -> Result<(Self, Arc<Ring>), FileError> {
        let rotation = rotation.clamp(ROTATION_INTERVAL_MIN, ROTATION_INTERVAL_MAX);
        let keeper = Self { path: path.to_owned(), rotation };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(|source| keeper.place(source))?;
        }
        let ring = Arc::new(keeper.tend(Timestamp::now())?.ring);
        Ok((keeper, ring))
    }

    /// Rotates for as long as it is polled, and says each ring that is new. What goes wrong is logged and tried again;
    /// the keys there are serve on.
    pub async fn run(self, publish: impl Fn(Arc<Ring>)) {
        let keeper = Arc::new(self);
        let mut known: Option<Ring> = None;
        loop {
            let tending = Arc::clone(&keeper);
            let tended = tokio::task::spawn_blocking(move || tending.tend(Timestamp::now())).await;
            let wait = match tended {
                Ok(Ok(Kept { ring, wait })) => {
                    if known.as_ref() != Some(&ring) {
                        publish(Arc::new(ring.clone()));
                        known = Some(ring);
                    }
                    wait
                }
                Ok(Err(error)) => {
                    let causes = weir_dial::with_causes(&error);
                    tracing::error!("{causes}; the keys there are serve on");
                    CHECK_INTERVAL
                }
                // The process is ending.
                Err(_) => return std::future::pending().await,
            };
            tokio::time::sleep(wait.clamp(ROTATION_INTERVAL_MIN, CHECK_INTERVAL)).await;
        }
    }

    fn tend(&self, now: Timestamp) -> Result<Kept, FileError> {
        for _ in 0..ATTEMPTS_MAX {
            let found = self.read()?;
            match secret::plan(found.as_ref(), now, self.rotation, Key::random)? {
                Plan::KeepUntil(until) => {
                    let ring = found.as_ref().and_then(secret::ring).expect("only whole rings are kept");
                    let wait = Duration::try_from(until.duration_since(now)).unwrap_or_default();
                    return Ok(Kept { ring, wait });
                }
                Plan::Create(secret) => {
                    self.write(&secret, None)?;
                    tracing::info!(file = %self.path.display(), "keys are made");
                }
                Plan::Replace { secret, why } => {
                    self.write(&secret, Some(why))?;
                    match why {
                        Why::Rotation => tracing::info!(file = %self.path.display(), "keys are rotated"),
                        Why::Mended => tracing::warn!(file = %self.path.display(), "keys are mended"),
                    }
                }
            }
        }
        Err(FileError::Busy(self.path.clone()))
    }

    /// `None` where there is no file.
    fn read(&self) -> Result<Option<Secret>, FileError> {
        let path = || self.path.clone();
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(self.place(source)),
        };
        // Of what was opened, not of what has the name by now.
        let status = file.metadata().map_err(|source| self.place(source))?;
        if !status.is_file() || status.len() > FILE_BYTES_MAX {
            return Err(FileError::NoKeys(path()));
        }
        let ours = fs::metadata("/proc/self").map_err(|source| self.place(source))?.uid();
        if status.uid() != ours {
            return Err(FileError::Foreign { path: path(), owner: status.uid() });
        }
        let mode = status.mode() & 0o7777;
        if mode & !MODE_MAX != 0 {
            return Err(FileError::Open { path: path(), mode });
        }
        let mut text = Vec::new();
        file.take(FILE_BYTES_MAX).read_to_end(&mut text).map_err(|source| self.place(source))?;
        let secret: Option<Secret> = serde_json::from_slice(&text).ok();
        let secret = secret.filter(secret::is_ours).ok_or_else(|| FileError::NoKeys(path()))?;
        Ok(Some(secret))
    }

    /// Puts a file in place. Where there was none, one that another process made meanwhile stays.
    fn write(&self, secret: &Secret, over: Option<Why>) -> Result<(), FileError> {
        let text = serde_json::to_vec_pretty(secret).expect("a Secret is JSON");
        // Not the process's number: in two containers that share the folder it may be the same.
        let mut drawn = [0; 8];
        rand::fill(&mut drawn).map_err(|_| RandomError)?;
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{:016x}", u64::from_ne_bytes(drawn)));
        let new = self.path.with_file_name(name);
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE_MAX).open(&new)?;
            file.write_all(&text)?;
            file.sync_all()?;
            match over {
                Some(_) => fs::rename(&new, &self.path),
                None => match fs::hard_link(&new, &self.path) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                    linked => linked,
                },
            }
        })();
        let _ = fs::remove_file(&new);
        written.map_err(|source| self.place(source))
    }

    fn place(&self, source: io::Error) -> FileError {
        FileError::Place { path: self.path.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    const HOUR: Duration = Duration::from_secs(3600);

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a folder")
    }

    fn opened(path: &Path) -> Result<Arc<Ring>, FileError> {
        FileKeeper::open(path, HOUR).map(|(_, ring)| ring)
    }

    fn later(by: Duration) -> Timestamp {
        Timestamp::now().checked_add(by).expect("a time")
    }

    #[test]
    fn keys_are_made_for_their_owner_alone_and_are_there_after_a_restart() {
        let folder = folder();
        let path = folder.path().join("state/weir/keys");
        let first = opened(&path).expect("made");
        let mode = |path: &Path| fs::metadata(path).expect("there").mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().expect("a folder"))), (0o600, 0o700));
        assert_eq!(opened(&path).expect("read"), first);
        let names = fs::read_dir(path.parent().expect("a folder")).expect("a folder").count();
        assert_eq!(names, 1, "nothing is left beside it");
    }

    #[test]
    fn keys_move_up_with_time_and_another_process_follows() {
        let folder = folder();
        let path = folder.path().join("keys");
        let (one, before) = FileKeeper::open(&path, HOUR).expect("made");
        let (two, _) = FileKeeper::open(&path, HOUR).expect("read");
        assert_eq!(one.tend(later(HOUR / 2)).expect("kept").ring, *before);
        let after = one.tend(later(HOUR * 2)).expect("rotated").ring;
        assert_eq!((&after.previous, &after.current), (&before.current, &before.next));
        assert_eq!(two.tend(later(HOUR * 2)).expect("kept").ring, after);
        assert!(two.tend(later(HOUR * 2)).expect("kept").wait <= HOUR);
    }

    #[test]
    fn a_file_that_others_may_read_is_refused_and_left_alone() {
        let folder = folder();
        let path = folder.path().join("keys");
        opened(&path).expect("made");
        for mode in [0o640, 0o604, 0o620, 0o700, 0o4600] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
            let refused = opened(&path).expect_err("too wide");
            assert!(matches!(refused, FileError::Open { mode: found, .. } if found == mode), "{refused}");
            assert!(refused.to_string().contains(&format!("{mode:03o}")), "{refused}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).expect("set");
        assert!(opened(&path).is_ok(), "narrower is fine");
    }

    #[test]
    fn what_holds_something_else_is_never_overwritten() {
        let folder = folder();
        let path = folder.path().join("keys");
        let other = r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"other"},"data":{}}"#;
        let large = "x".repeat(usize::try_from(FILE_BYTES_MAX).expect("small") + 1);
        for text in ["", "a diary", other, &large] {
            fs::write(&path, text).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
            assert!(matches!(opened(&path), Err(FileError::NoKeys(_))), "{:.20}", text);
            assert_eq!(fs::read_to_string(&path).expect("read"), text);
        }
        assert!(matches!(opened(folder.path()), Err(FileError::NoKeys(_))), "a folder");
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named() {
        let folder = folder();
        fs::write(folder.path().join("file"), "").expect("written");
        let path = folder.path().join("file/keys");
        let refused = opened(&path).expect_err("no folder");
        assert!(matches!(refused, FileError::Place { .. }), "{refused}");
        assert!(refused.to_string().contains("file/keys"), "{refused}");
    }

    #[test]
    fn whoever_makes_the_file_first_made_it_for_all() {
        let folder = folder();
        let path = folder.path().join("keys");
        let rings: Vec<_> = std::thread::scope(|scope| {
            let openers: Vec<_> = (0..4).map(|_| scope.spawn(|| opened(&path).expect("opened"))).collect();
            openers.into_iter().map(|opener| opener.join().expect("ended")).collect()
        });
        assert!(rings.iter().all(|ring| *ring == rings[0]));
    }

    #[tokio::test]
    async fn who_keeps_the_file_says_which_ring_is_in_it() {
        let folder = folder();
        let path = folder.path().join("keys");
        let (keeper, ring) = FileKeeper::open(&path, HOUR).expect("made");
        let (said, mut heard) = tokio::sync::mpsc::channel(4);
        let running = tokio::spawn(keeper.run(move |ring| said.try_send(ring).expect("room")));
        let deadline = Duration::from_secs(30);
        let first = tokio::time::timeout(deadline, heard.recv()).await.expect("in time");
        assert_eq!(first, Some(ring));
        running.abort();
    }
}

//! The folder that a proxy keeps its state in, and which is its own while it runs.
//!
//! A file is replaced in one step: written beside it, synced, renamed, and the folder synced. So a crash at any moment
//! leaves the old file or the new one.

use super::format::{FILE_BYTES_MAX, Refusal};
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Name of the file in its folder.
pub const FILE: &str = "last-good";
/// A file that could not be used, for whoever wants to know why. There is one at most: the newest.
pub const ASIDE: &str = "last-good.refused";
const NEW: &str = "last-good.new";
const LOCK: &str = "lock";

/// What files in the folder permit: their owner to read and write.
const MODE: u32 = 0o600;

/// Why a folder cannot be used; who started the process can fix it.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It cannot be made, or nothing can be made in it.
    #[error("cannot keep state in {path}")]
    Place {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is another process's.
    #[error("another proxy keeps its state in {0}: give each its own --state-folder")]
    Taken(PathBuf),
}

/// Taken by this process for as long as the value lives.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// The kernel gives it back when the process ends, however that is.
    lock: File,
}

impl Folder {
    /// Makes the folder where it is missing, and takes it.
    pub(super) fn take(path: &Path) -> Result<Self, FolderError> {
        let folder = Self::open(path)?;
        match folder.lock.try_lock() {
            Ok(()) => Ok(folder),
            Err(TryLockError::WouldBlock) => Err(FolderError::Taken(path.to_owned())),
            Err(TryLockError::Error(source)) => Err(FolderError::Place { path: path.to_owned(), source }),
        }
    }

    /// The same, without taking it: another process still writes there. [`Self::wait`] takes it.
    pub(super) fn open(path: &Path) -> Result<Self, FolderError> {
        let place = |source| FolderError::Place { path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(place)?;
        let lock =
            OpenOptions::new().create(true).truncate(false).write(true).mode(MODE).open(path.join(LOCK));
        Ok(Self { path: path.to_owned(), lock: lock.map_err(place)? })
    }

    /// Takes the folder once whoever has it gives it up. At once where this one has it.
    pub(super) fn wait(&self) -> io::Result<()> {
        self.lock.lock()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The file and when it was last known to be the newest; `None` where there is none.
    pub(super) fn read(&self) -> Result<Option<(Vec<u8>, SystemTime)>, Refusal> {
        let file = match File::open(self.path.join(FILE)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Of what was opened, not of what has the name by now.
        let status = file.metadata()?;
        if !status.is_file() {
            return Err(Refusal::Kind);
        }
        let ours = fs::metadata("/proc/self")?.uid();
        if status.uid() != ours {
            return Err(Refusal::Owner(status.uid()));
        }
        let mode = status.mode() & 0o7777;
        if mode & !MODE != 0 {
            return Err(Refusal::Open(mode));
        }
        if status.len() > FILE_BYTES_MAX as u64 {
            return Err(Refusal::TooLarge(status.len()));
        }
        let mut bytes = Vec::new();
        // One more than may be: a file that grows meanwhile is noticed.
        file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
        Ok(Some((bytes, status.modified()?)))
    }

    /// Renames a file that cannot be used, over the one before it, and says where it is now.
    pub(super) fn set_aside(&self) -> io::Result<PathBuf> {
        let aside = self.path.join(ASIDE);
        fs::rename(self.path.join(FILE), &aside).map(|()| aside)
    }

    /// Puts a file in place.
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let new = self.path.join(NEW);
        // Left by a crash: the folder is ours, so nobody is writing it.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, self.path.join(FILE))?;
        File::open(&self.path)?.sync_all()
    }

    /// What is in the file is known to be the newest at this time.
    pub(super) fn touch(&self, at: SystemTime) -> io::Result<()> {
        OpenOptions::new().write(true).open(self.path.join(FILE))?.set_modified(at)
    }

    /// Whether the folder is in memory (tmpfs, ramfs): what is in it is gone when the machine or the pod is. Where that
    /// cannot be found out, it is not.
    pub(super) fn is_in_memory(&self) -> bool {
        let device = fs::metadata(&self.path).map(|status| status.dev());
        let mounts = fs::read_to_string("/proc/self/mountinfo");
        let (Ok(device), Ok(mounts)) = (device, mounts) else { return false };
        kind_of(device, &mounts).is_some_and(|kind| matches!(kind, "tmpfs" | "ramfs"))
    }
}

/// The file system of a device, by proc_pid_mountinfo(5): `... major:minor ... - type source options`. By device and not
/// by path, so that it does not matter what is mounted over what.
fn kind_of(device: u64, mounts: &str) -> Option<&str> {
    // As the C library takes a dev_t apart, makedev(3).
    let major = (device >> 8 & 0xfff) | (device >> 32 & !0xfff);
    let minor = (device & 0xff) | (device >> 12 & !0xff);
    let number = format!("{major}:{minor}");
    let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some(number.as_str()))?;
    mount.split_once(" - ")?.1.split(' ').next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn taken() -> (tempfile::TempDir, Folder) {
        let folder = tempfile::tempdir().expect("a folder");
        let taken = Folder::take(&folder.path().join("state")).expect("taken");
        (folder, taken)
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("there").mode() & 0o777
    }

    #[test]
    fn a_file_is_its_owner_s_alone_and_replaces_the_one_before() {
        let (_keep, folder) = taken();
        assert!(folder.read().expect("readable").is_none());
        folder.write(b"one").expect("written");
        fs::write(folder.path().join(NEW), "left by a crash").expect("written");
        folder.write(b"two").expect("written");
        assert_eq!(folder.read().expect("readable").expect("there").0, b"two");
        assert_eq!((mode(folder.path()), mode(&folder.path().join(FILE))), (0o700, 0o600));
        assert!(!folder.path().join(NEW).exists());
    }

    #[test]
    fn one_folder_is_one_process_s() {
        let (_keep, folder) = taken();
        let path = folder.path().to_owned();
        let refused = Folder::take(&path).expect_err("taken");
        assert!(matches!(refused, FolderError::Taken(_)), "{refused}");
        drop(folder);
        assert!(Folder::take(&path).is_ok());
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("file"), "").expect("written");
        let refused = Folder::take(&folder.path().join("file/state")).expect_err("no folder");
        assert!(refused.to_string().contains("file/state"), "{refused}");
    }

    #[test]
    fn a_file_that_others_may_touch_is_refused() {
        let (_keep, folder) = taken();
        folder.write(b"one").expect("written");
        let path = folder.path().join(FILE);
        for wide in [0o640, 0o604, 0o620, 0o700, 0o4600] {
            fs::set_permissions(&path, fs::Permissions::from_mode(wide)).expect("set");
            let refused = folder.read().expect_err("too wide");
            assert!(matches!(refused, Refusal::Open(found) if found == wide), "{refused}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).expect("set");
        assert!(folder.read().is_ok(), "narrower is fine");
        fs::remove_file(&path).expect("removed");
        fs::create_dir(&path).expect("made");
        assert!(matches!(folder.read(), Err(Refusal::Kind)));
    }

    #[test]
    fn a_file_above_the_limit_is_not_read() {
        let (_keep, folder) = taken();
        folder.write(b"").expect("written");
        let file = OpenOptions::new().write(true).open(folder.path().join(FILE)).expect("ours");
        file.set_len(FILE_BYTES_MAX as u64 + 1).expect("sparse");
        assert!(matches!(folder.read(), Err(Refusal::TooLarge(_))));
    }

    #[test]
    fn one_refused_file_is_kept_and_no_more() {
        let (_keep, folder) = taken();
        for text in ["one", "two"] {
            folder.write(text.as_bytes()).expect("written");
            let aside = folder.set_aside().expect("renamed");
            assert_eq!(fs::read_to_string(aside).expect("there"), text);
        }
        assert_eq!(fs::read_dir(folder.path()).expect("ours").count(), 2, "that one and the lock");
        assert!(folder.set_aside().is_err(), "there is nothing");
    }

    #[test]
    fn the_time_of_the_file_is_when_it_was_last_true() {
        let (_keep, folder) = taken();
        folder.write(b"one").expect("written");
        let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
        folder.touch(at).expect("touched");
        assert_eq!(folder.read().expect("readable").expect("there").1, at);
    }

    #[test]
    fn a_file_system_is_found_by_its_device() {
        let mounts = "22 27 0:21 / /proc rw,relatime - proc proc rw\n\
            25 24 0:23 / /dev/shm rw shared:1 - tmpfs tmpfs rw,size=1k\n\
            27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
            28 1 259:300 / /x rw - xfs /dev/nvme rw\n";
        assert_eq!(kind_of(23, mounts), Some("tmpfs"));
        assert_eq!(kind_of(254 << 8, mounts), Some("ext4"));
        assert_eq!(kind_of(259 << 8 | 300 & 0xff | (300 & !0xff) << 12, mounts), Some("xfs"));
        assert_eq!(kind_of(24, mounts), None);
        assert_eq!(kind_of(23, "25 24 0:23 / /dev/shm rw"), None);
    }

    #[test]
    fn a_folder_in_memory_is_found_to_be_that() {
        let shared = Path::new("/dev/shm");
        let folder = tempfile::tempdir_in(shared).expect("/dev/shm is there");
        assert!(Folder::take(folder.path()).expect("taken").is_in_memory());
    }
}

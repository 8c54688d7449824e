//! Where lines go: standard output, or a file that may be renamed under us.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Of a file that is made; what the process's umask takes away is taken away.
const FILE_MODE: u32 = 0o640;

/// Between two looks at whether the path names the file.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Output {
    file: File,
    named: Option<Named>,
}

/// A file by its path.
#[derive(Debug)]
struct Named {
    path: PathBuf,
    /// Of the file that is open: its device and its number.
    identity: (u64, u64),
    looked: Instant,
}

impl Output {
    /// Appends to a file.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let (file, identity) = open(path)?;
        Ok(Self { file, named: Some(Named { path: path.to_owned(), identity, looked: Instant::now() }) })
    }

    /// A handle of its own: that of the standard library has a lock, on which who else prints would wait for us.
    pub(super) fn stdout() -> io::Result<Self> {
        Ok(Self::of(io::stdout().as_fd().try_clone_to_owned()?.into()))
    }

    pub(super) fn of(file: File) -> Self {
        Self { file, named: None }
    }

    /// Whether the path does not name the file any more. Looked at once a second at most.
    pub(super) fn has_moved(&mut self, now: Instant) -> bool {
        let Some(named) = &mut self.named else { return false };
        if now.duration_since(named.looked) < LOOK_INTERVAL {
            return false;
        }
        named.looked = now;
        !std::fs::metadata(&named.path).is_ok_and(|found| identity(&found) == named.identity)
    }

    /// Opens the file that the path names now, and makes one where it names none; gives whether that is another one. Where
    /// it cannot, the old one goes on.
    pub(super) fn reopen(&mut self) -> io::Result<bool> {
        let Some(named) = &mut self.named else { return Ok(false) };
        let (file, identity) = open(&named.path)?;
        let is_another = identity != named.identity;
        named.identity = identity;
        self.file = file;
        Ok(is_another)
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    /// Writes bytes, and leaves those that could not be.
    pub(super) fn write_some(&mut self, bytes: &mut &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.file.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => *bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.named {
            Some(named) => named.path.display().fmt(f),
            None => f.write_str("standard output"),
        }
    }
}

/// Without waiting: a pipe by name that nobody reads would keep us for ever otherwise, and is an error now.
fn open(path: &Path) -> io::Result<(File, (u64, u64))> {
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file =
        OpenOptions::new().append(true).create(true).mode(FILE_MODE).custom_flags(nonblocking).open(path)?;
    let identity = identity(&file.metadata()?);
    Ok((file, identity))
}

fn identity(of: &std::fs::Metadata) -> (u64, u64) {
    (of.dev(), of.ino())
}

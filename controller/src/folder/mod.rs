//! A folder of manifests, followed.
//!
//! ```text
//! inotify (or a poll) -> settle -> stat, read and parse what changed -> Loaded
//! ```
//!
//! What an editor or `kubectl` does to a file is never one step, so a change counts when it is over: when the
//! writer closed the file or moved it into place, and nothing more came for [`SETTLE_QUIET`]. A file that is
//! being written, or that is suddenly empty, keeps what it held before for as long as [`files`] says.
//!
//! A folder in it that holds `tls.crt` and `tls.key` is a Secret of its name ([`certificates`]).
//!
//! A file with a broken document keeps the objects that it held before and that are missing now: among them is
//! the one that broke. A file that is gone takes its objects along.

mod certificates;
mod files;
mod watch;

pub use certificates::{CERTIFICATE_BYTES_MAX, CERTIFICATE_FOLDERS_MAX};
pub use files::{FILE_BYTES_MAX, FILES_MAX, Folder};
pub use watch::{FolderSource, POLL_INTERVAL, SETTLE_MAX, SETTLE_QUIET};

use std::io;
use std::path::PathBuf;

/// Why a folder cannot be followed; who started the process can fix it.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// There is nothing to read there.
    #[error("cannot read manifests in {path}: name a folder or a file that exists and can be read")]
    Read {
        /// As named.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The definition is broken, which is a mistake in this build.
    #[error("cannot read the schema of LoadBalancerPool: this build is broken")]
    Schema(#[from] serde_json::Error),
}

#[cfg(test)]
mod tests;

//! Folders of manifests.

use crate::harness::binaries;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// A temporary folder of manifests.
#[derive(Debug)]
pub struct Folder {
    folder: tempfile::TempDir,
}

impl Folder {
    /// An empty one.
    ///
    /// # Panics
    /// When the system has no place for it.
    #[must_use]
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    /// A copy of one of `examples/`, with each text of `replace` replaced.
    ///
    /// # Panics
    /// When the example is not there, or when it does not hold a text that is to be replaced.
    #[must_use]
    pub fn copy_of_example(name: &str, replace: &[(String, String)]) -> Self {
        let copy = Self::new();
        let example = binaries::workspace().join("examples").join(name);
        let mut all = Vec::new();
        for entry in std::fs::read_dir(&example).expect("the example is there") {
            let file = entry.expect("readable").path();
            let text = std::fs::read_to_string(&file).expect("text");
            all.push((file.file_name().expect("a file").to_string_lossy().into_owned(), text));
        }
        for (from, to) in replace {
            assert!(all.iter().any(|(_, text)| text.contains(from)), "examples/{name} says `{from}` nowhere");
            for (_, text) in &mut all {
                *text = text.replace(from, to);
            }
        }
        for (file, text) in all {
            copy.write(&file, &text);
        }
        copy
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Where one of its files is.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Writes a file in one step (a rename, as editors do) and returns the moment before it.
    ///
    /// # Panics
    /// When the disk is full.
    pub fn write(&self, name: &str, text: &str) -> Instant {
        let scratch = self.path().join(format!(".{name}.writing"));
        std::fs::write(&scratch, text).expect("a writable folder");
        let before = Instant::now();
        std::fs::rename(&scratch, self.file(name)).expect("a writable folder");
        before
    }
}

impl Default for Folder {
    fn default() -> Self {
        Self::new()
    }
}

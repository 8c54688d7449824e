//! The files of a folder and what each of them held last.

use super::{FolderError, certificates};
use crate::manifest::{Manifest, Parsed, Place, Problem, Reader};
use crate::source::Loaded;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Largest file that is read, in bytes.
pub const FILE_BYTES_MAX: u64 = 8 << 20;
/// Files of a folder that are read, the first ones by name.
pub const FILES_MAX: usize = 10_000;
/// A file that held objects and is empty counts as empty after this long: until then somebody may be writing it.
pub(super) const EMPTY_AFTER: Duration = Duration::from_millis(50);

/// A folder (or one file) of manifests.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    reader: Reader,
    files: BTreeMap<PathBuf, File>,
    /// Why the folder could not be listed the last time.
    listing: Option<Problem>,
    was_listed: bool,
}

#[derive(Debug)]
struct File {
    name: Arc<str>,
    /// Of the file, or of each file of a certificate's folder.
    stamps: Vec<Option<Stamp>>,
    /// What the file holds.
    parsed: Parsed,
    /// What it held before and lost to a broken document.
    kept: Vec<Manifest>,
    empty_since: Option<Instant>,
}

/// Two of one stamp are one content, unless somebody wrote twice within a tick of the file system's clock; that
/// is what events are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// What events say about files since the last load.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// Names of files to be read again even if their stamp is the same.
    pub(super) touched: HashSet<OsString>,
    /// Names of files that are being written: to be left as they were.
    pub(super) writing: HashSet<OsString>,
}

impl Folder {
    /// A folder that is there. Reads nothing yet.
    ///
    /// # Errors
    /// Where nothing is at `path`.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        let reader = Reader::new()?;
        fs::metadata(path).map_err(|source| FolderError::Read { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), reader, files: BTreeMap::new(), listing: None, was_listed: false })
    }

    /// The path that it was opened with.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads everything that is there now and adds it to what `loaded` holds, which goes first.
    ///
    /// # Errors
    /// Where the folder cannot be listed.
    pub fn load_into(mut self, loaded: &mut Loaded) -> Result<(), FolderError> {
        let names =
            list(&self.path).map_err(|source| FolderError::Read { path: self.path.clone(), source })?;
        self.read(names, &Events::default(), Instant::now());
        self.add_to(loaded);
        Ok(())
    }

    /// Brings the files up to date, and says whether anything is different. A folder that cannot be listed keeps
    /// what it held: that it is gone does not mean that it is meant to be empty.
    pub(super) fn refresh(&mut self, events: &Events, now: Instant) -> bool {
        match list(&self.path) {
            Ok(names) => {
                self.was_listed = true;
                self.read(names, events, now) | self.listing.take().is_some()
            }
            Err(error) => {
                // Looked at with the next listing: a time in the past would be due again and again.
                self.files.values_mut().for_each(|file| file.empty_since = None);
                let sentence = format!("cannot be read ({error}): what it held before serves on");
                let problem = whole_file(&self.path.to_string_lossy().into(), sentence);
                self.listing.replace(problem.clone()) != Some(problem)
            }
        }
    }

    /// Why nothing is known yet of what the folder holds: no listing of it has succeeded so far.
    pub(super) fn unlisted(&self) -> Option<&Problem> {
        self.listing.as_ref().filter(|_| !self.was_listed)
    }

    /// When an empty file is to be looked at again.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.files.values().filter_map(|file| file.empty_since).map(|since| since + EMPTY_AFTER).min()
    }

    /// Everything that the files hold: what is read first, then what is kept; the first file by name wins.
    pub(super) fn loaded(&self) -> Loaded {
        let mut loaded = Loaded::default();
        self.add_to(&mut loaded);
        loaded
    }

    fn add_to(&self, loaded: &mut Loaded) {
        loaded.problems.extend(self.listing.clone());
        for (index, file) in self.files.values().enumerate() {
            if index == FILES_MAX {
                let sentence =
                    format!("is past the {FILES_MAX} files that are read: move it to another folder");
                loaded.problems.push(whole_file(&file.name, sentence));
                break;
            }
            loaded.problems.extend(file.parsed.problems.iter().cloned());
            for manifest in &file.parsed.manifests {
                loaded.add(manifest);
            }
        }
        for manifest in self.files.values().flat_map(|file| &file.kept) {
            if !loaded.origins.contains_key(&(manifest.object.kind(), manifest.key.clone())) {
                loaded.add(manifest);
            }
        }
    }

    fn read(&mut self, names: Vec<PathBuf>, events: &Events, now: Instant) -> bool {
        let mut is_changed = false;
        let names: BTreeSet<_> = names.into_iter().take(FILES_MAX + 1).collect();
        self.files.retain(|path, _| {
            let stays = names.contains(path);
            is_changed |= !stays;
            stays
        });
        for path in names {
            let name = path.file_name().unwrap_or_default();
            if events.writing.contains(name) {
                if let Some(file) = self.files.get_mut(&path) {
                    // Who writes it will close it: until then there is nothing to wake up for.
                    file.empty_since = None;
                }
                continue;
            }
            let is_touched = events.touched.contains(name);
            let file = self.files.entry(path.clone()).or_insert_with(|| File::new(&path));
            is_changed |= file.refresh(&path, &self.reader, is_touched, now);
        }
        is_changed
    }
}

impl File {
    fn new(path: &Path) -> Self {
        let name = path.to_string_lossy().into();
        Self { name, stamps: Vec::new(), parsed: Parsed::default(), kept: Vec::new(), empty_since: None }
    }

    fn refresh(&mut self, path: &Path, reader: &Reader, is_touched: bool, now: Instant) -> bool {
        let metadata = fs::metadata(path).ok();
        let is_certificate = metadata.as_ref().is_some_and(Metadata::is_dir);
        let stamps = if is_certificate {
            certificates::files(path).map(|(_, file)| file.as_deref().and_then(Stamp::at)).collect()
        } else {
            vec![metadata.as_ref().map(Stamp::of)]
        };
        let is_known = stamps.iter().any(Option::is_some) && stamps == self.stamps;
        if is_known && !is_touched && self.empty_since.is_none() {
            return false;
        }
        let parsed = match read_text(path) {
            _ if is_certificate => certificates::read(&self.name, path),
            Ok(text) if text.is_empty() && self.may_be_half_written(now) => return false,
            Ok(text) => reader.read(&self.name, &text),
            Err(sentence) => {
                Parsed { manifests: Vec::new(), problems: vec![whole_file(&self.name, sentence)] }
            }
        };
        self.stamps = stamps;
        self.empty_since = None;
        self.replace(parsed)
    }

    /// True for a file that held objects, from when it is first seen empty until [`EMPTY_AFTER`].
    fn may_be_half_written(&mut self, now: Instant) -> bool {
        if self.parsed.manifests.is_empty() && self.kept.is_empty() {
            return false;
        }
        now < *self.empty_since.get_or_insert(now) + EMPTY_AFTER
    }

    fn replace(&mut self, parsed: Parsed) -> bool {
        let before = std::mem::replace(&mut self.parsed, parsed);
        let mut kept = std::mem::take(&mut self.kept);
        if !self.parsed.problems.is_empty() {
            kept.extend(before.manifests.iter().cloned());
            let is_there = |manifest: &Manifest| {
                let mut manifests = self.parsed.manifests.iter();
                manifests.any(|now| now.key == manifest.key && now.object.kind() == manifest.object.kind())
            };
            kept.retain(|manifest| !is_there(manifest));
            self.kept = kept;
        }
        !same(&before, &self.parsed)
    }
}

fn same(before: &Parsed, now: &Parsed) -> bool {
    let objects = |parsed: &Parsed| -> Vec<_> {
        parsed.manifests.iter().map(|manifest| (manifest.place.clone(), manifest.object.clone())).collect()
    };
    before.problems == now.problems && objects(before) == objects(now)
}

impl Stamp {
    fn at(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|metadata| Self::of(&metadata))
    }

    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

fn whole_file(file: &Arc<str>, sentence: String) -> Problem {
    Problem { place: Place { file: Arc::clone(file), line: 0, column: 0 }, field: String::new(), sentence }
}

/// Manifests of a folder and the folders of certificates in it: nothing hidden (a ConfigMap's `..data` is), symbolic links
/// followed. A file stands for itself, whatever it is called.
fn list(path: &Path) -> io::Result<Vec<PathBuf>> {
    if fs::metadata(path)?.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let (mut paths, mut folders) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        match certificates::is_folder(&entry)? {
            true => folders.push(entry.path()),
            false => paths.extend(Some(entry.path()).filter(|path| is_manifest(path))),
        }
    }
    let folders = certificates::first_by_name(folders).into_iter();
    paths.extend(folders.filter(|path| certificates::is_certificate(path)));
    paths.sort_unstable();
    Ok(paths)
}

pub(super) fn is_manifest(path: &Path) -> bool {
    let is_hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    let extension = path.extension().and_then(|extension| extension.to_str());
    !is_hidden && matches!(extension, Some("yaml" | "yml" | "json"))
}

/// The text of a file, or why there is none.
fn read_text(path: &Path) -> Result<String, String> {
    String::from_utf8(read_bytes(path, FILE_BYTES_MAX)?).map_err(|error| {
        format!("is not UTF-8 from byte {} on: write it in UTF-8", error.utf8_error().valid_up_to())
    })
}

/// The bytes of a file, or why there are none.
pub(super) fn read_bytes(path: &Path, bytes_max: u64) -> Result<Vec<u8>, String> {
    let unreadable = |error: io::Error| format!("cannot be read: {error}");
    let mut bytes = Vec::new();
    // Before it is opened: opening a FIFO waits for who writes to it, for ever if nobody does.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err("is not a file: remove it or give it another name".to_owned());
    }
    let file = fs::File::open(path).map_err(unreadable)?;
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > bytes_max {
        return Err(format!("is larger than {bytes_max} bytes: split it"));
    }
    Ok(bytes)
}

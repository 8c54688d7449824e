//! What a source of objects hands over.

use crate::compile::{ObjectKey, Objects, Rejection};
use crate::folder::{Folder, FolderError};
use crate::manifest::{Fields, Kind, Place, Problem};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Everything that a source has now.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// For [`crate::compile::world`].
    pub objects: Objects,
    /// What could not be read, in the order of the files.
    pub problems: Vec<Problem>,
    /// Where each object was written.
    pub origins: BTreeMap<(Kind, ObjectKey), Origin>,
}

/// Where an object was written.
#[derive(Debug, Clone)]
pub struct Origin {
    /// Where its document begins.
    pub place: Place,
    /// Its fields; only for `LoadBalancerPool`.
    pub fields: Arc<Fields>,
}

impl Loaded {
    /// The place of a field of a pool: its own, or that of the nearest field around it that is written.
    #[must_use]
    pub fn place_of(&self, rejection: &Rejection) -> Option<Place> {
        let origin = self.origins.get(&(Kind::LoadBalancerPool, rejection.pool.clone()))?;
        let mut field = rejection.field.as_str();
        loop {
            if let Some(&(line, column)) = origin.fields.get(field) {
                return Some(Place { line, column, ..origin.place.clone() });
            }
            match field.rfind(['.', '[']) {
                Some(end) => field = &field[..end],
                None => return Some(origin.place.clone()),
            }
        }
    }
}

/// Reads a folder, or one file, once.
///
/// # Errors
/// Where there is nothing at `path`, or it cannot be read.
pub fn load(path: &Path) -> Result<Loaded, FolderError> {
    Folder::open(path)?.load()
}

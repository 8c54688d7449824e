//! What a source of objects hands over, and the check of it that needs no running controller.

use crate::compile::{ObjectKey, Objects, Rejection, Warning, World, world};
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

/// What `weir validate` has to say about a folder or files.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Documents that could not be read.
    pub problems: Vec<Problem>,
    /// Pools that would be refused, each with the place of the field.
    pub rejections: Vec<(Option<Place>, Rejection)>,
    /// Pools that would serve without something that they point to, each with the place of the field.
    pub warnings: Vec<(Option<Place>, Warning)>,
    /// Pools that would be served.
    pub pools: usize,
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

impl Report {
    /// True where everything can be read and every pool would be served; warnings do not count.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.problems.is_empty() && self.rejections.is_empty()
    }

    /// What there is to say about what was loaded and what it compiled to.
    #[must_use]
    pub fn of(loaded: &Loaded, world: &World) -> Self {
        let placed = |rejection: &Rejection| (loaded.place_of(rejection), rejection.clone());
        Self {
            problems: loaded.problems.clone(),
            rejections: world.rejections.values().flatten().map(placed).collect(),
            warnings: world.warnings().map(placed).collect(),
            pools: world.pools.len(),
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

/// Reads a folder, or one file, once and compiles it.
///
/// # Errors
/// As [`load`].
pub fn validate(path: &Path) -> Result<Report, FolderError> {
    let loaded = load(path)?;
    Ok(Report::of(&loaded, &world(&loaded.objects, None)))
}

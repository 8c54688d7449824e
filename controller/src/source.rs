//! What a source of objects hands over.

use crate::compile::{ObjectKey, Objects, Rejection};
use crate::manifest::{Fields, Kind, Manifest, Object, Place, Problem};
use std::collections::BTreeMap;
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
    /// Adds what a document holds. One that is there already stays, and the second is a problem.
    pub fn add(&mut self, manifest: &Manifest) {
        let (key, kind) = (&manifest.key, manifest.object.kind());
        if let Some(first) = self.origins.get(&(kind, key.clone())) {
            let sentence =
                format!("{kind} {key} is already in {}: this one is ignored, remove it", first.place);
            self.problems.push(Problem { place: manifest.place.clone(), field: String::new(), sentence });
            return;
        }
        let origin = Origin { place: manifest.place.clone(), fields: Arc::clone(&manifest.fields) };
        self.origins.insert((kind, key.clone()), origin);
        insert(&mut self.objects, key.clone(), &manifest.object);
    }

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

fn insert(objects: &mut Objects, key: ObjectKey, object: &Object) {
    match object {
        Object::LoadBalancerPool(pool) => {
            objects.pools.insert(key, Arc::clone(pool));
        }
        Object::Service(service) => {
            objects.services.insert(key, Arc::clone(service));
        }
        Object::Secret(secret) => {
            objects.secrets.insert(key, Arc::clone(secret));
        }
        Object::ReferenceGrant(grant) => {
            objects.grants.insert(key, Arc::clone(grant));
        }
        Object::EndpointSlice(slice) => {
            objects.insert_slice(key, Arc::clone(slice));
        }
    }
}

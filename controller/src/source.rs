//! What a source of objects hands over.

use crate::compile::{
    Away, AwayReason, ObjectKey, Objects, Rejection, SelectedPod, Selector, remotes_of, selectors_of,
};
use crate::manifest::{Fields, Kind, Manifest, Object, Place, Problem};
use k8s_openapi::api::core::v1::Pod;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

/// Everything that a source has now.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// For [`crate::compile::world`].
    pub objects: Objects,
    /// What could not be read, in the order of the files.
    pub problems: Vec<Problem>,
    /// Where each object was written.
    pub origins: BTreeMap<(Kind, ObjectKey), Origin>,
    /// Every pod, so that a selector that is read later finds it.
    pods: BTreeMap<ObjectKey, Arc<Pod>>,
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
        match &manifest.object {
            Object::LoadBalancerPool(pool) => {
                let selectors = selectors_of(pool);
                let new = selectors.iter().filter(|selector| !self.objects.pods.is_known(selector));
                new.cloned().collect::<Vec<_>>().iter().for_each(|selector| self.select(selector));
                // Since ever.
                let away = Away { since: SystemTime::UNIX_EPOCH, why: AwayReason::NoCluster };
                let remotes = remotes_of(pool).into_iter().map(|remote| (remote, away.clone()));
                self.objects.remotes.away.extend(remotes);
            }
            Object::Pod(pod) => self.add_pod(key, pod),
            _ => {}
        }
    }

    /// What the API server does for a watch.
    fn select(&mut self, selector: &Selector) {
        let taken = self.pods.iter().filter(|(key, pod)| is_taken(selector, key, pod));
        let taken = taken.map(|(key, pod)| (key.name.clone(), Arc::new(SelectedPod::of(pod)))).collect();
        self.objects.pods.replace(selector, taken);
    }

    fn add_pod(&mut self, key: &ObjectKey, pod: &Arc<Pod>) {
        self.pods.insert(key.clone(), Arc::clone(pod));
        let selectors = self.objects.pods.selectors().filter(|selector| is_taken(selector, key, pod));
        let (selectors, read): (Vec<_>, _) = (selectors.cloned().collect(), Arc::new(SelectedPod::of(pod)));
        for selector in selectors {
            self.objects.pods.insert(&selector, key.name.clone(), Arc::clone(&read));
        }
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

fn is_taken(selector: &Selector, key: &ObjectKey, pod: &Pod) -> bool {
    match &pod.metadata.labels {
        Some(labels) => selector.takes(&key.namespace, labels),
        None => selector.takes(&key.namespace, &BTreeMap::new()),
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
        // By the selectors that take it.
        Object::Pod(_) => {}
    }
}

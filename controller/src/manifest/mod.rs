//! Manifests: text of several YAML documents (JSON is YAML too) into Kubernetes objects.
//!
//! Each document is read on its own, so that a broken one never holds back its neighbours, and each problem is a
//! sentence with a place in the file. A field that `LoadBalancerPool` does not have is a problem, for a typo that
//! is ignored is a setting that silently does not apply; fields of Kubernetes' own kinds that this version does not
//! know are ignored, as its clients do.

mod document;
mod node;
mod object;
mod problem;

pub use object::{Kind, Object};
pub use problem::{Place, Problem};

use crate::compile::ObjectKey;
use node::Schema;
use object::Read;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Documents of one file.
pub const DOCUMENTS_PER_FILE_MAX: usize = 10_000;

/// Reads manifests. Holds the schema of `LoadBalancerPool`, so that it is built once.
#[derive(Debug)]
pub struct Reader {
    schema: Schema,
}

/// What a file holds, in its order.
#[derive(Debug, Clone, Default)]
pub struct Parsed {
    /// One for each document that could be read.
    pub manifests: Vec<Manifest>,
    /// At least one for each document that could not.
    pub problems: Vec<Problem>,
}

/// One object and where it was written.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// Namespace and name; the namespace is `default` where the document has none.
    pub key: ObjectKey,
    /// The object.
    pub object: Object,
    /// Where the document begins.
    pub place: Place,
    /// Lines and columns of the fields, by their paths (`spec.listeners[0].port`); only for `LoadBalancerPool`.
    pub fields: Arc<Fields>,
}

/// Where fields are written: path to line and column.
pub type Fields = BTreeMap<String, (u64, u64)>;

impl Reader {
    /// A reader with the schema of this version.
    ///
    /// # Errors
    /// Only when the definition cannot be written as JSON, which is a mistake in the types of `weir-crds`.
    pub fn new() -> Result<Self, serde_json::Error> {
        Ok(Self { schema: Schema::of_pool()? })
    }

    /// Reads the documents of one file. `file` is how its problems call it.
    #[must_use]
    pub fn read(&self, file: &Arc<str>, text: &str) -> Parsed {
        let mut parsed = Parsed::default();
        for (index, document) in document::split(text).enumerate() {
            let place = Place { file: Arc::clone(file), line: document.first_line, column: 1 };
            if index == DOCUMENTS_PER_FILE_MAX {
                let sentence = format!(
                    "has more than {DOCUMENTS_PER_FILE_MAX} documents: the rest is not read, move it to another file"
                );
                parsed.problems.push(Problem { place, field: String::new(), sentence });
                break;
            }
            match self.read_document(&place, document.text) {
                Ok(manifest) => parsed.manifests.push(manifest),
                Err(problems) => parsed.problems.extend(problems),
            }
        }
        parsed
    }

    fn read_document(&self, place: &Place, text: &str) -> Result<Manifest, Vec<Problem>> {
        let read = Read { start: place, text };
        let node = read.tree()?;
        let kind = read.kind(&node)?;
        if kind == Kind::LoadBalancerPool {
            let unknown = self.schema.unknown_fields(&node);
            if !unknown.is_empty() {
                return Err(unknown
                    .into_iter()
                    .map(|field| read.problem(field.location, field.path, field.sentence))
                    .collect());
            }
        }
        let (key, object) = read.object(kind, &node, &self.schema)?;
        let mut fields = Fields::new();
        if kind == Kind::LoadBalancerPool {
            node.places(&mut |path, location| {
                fields.insert(path.to_owned(), read.position(location));
            });
        }
        Ok(Manifest { key, object, place: place.clone(), fields: Arc::new(fields) })
    }
}

#[cfg(test)]
mod tests;

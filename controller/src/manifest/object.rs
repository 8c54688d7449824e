//! One document into one typed object.

use super::node::{Node, Schema, join};
use super::problem::{Place, Problem};
use crate::compile::{DEFAULT_NAMESPACE, ObjectKey, ReferenceGrant, is_object_name};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::de::DeserializeOwned;
use serde_saphyr::{DefaultMessageFormatter, Location, MessageFormatter as _, Spanned, UserMessageFormatter};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use weir_crds::LoadBalancerPool;

/// Kinds that are read; any other is a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `weir.dev/v1alpha1`
    LoadBalancerPool,
    /// `v1`
    Service,
    /// `discovery.k8s.io/v1`
    EndpointSlice,
    /// `v1`
    Pod,
    /// `v1`
    Secret,
    /// `gateway.networking.k8s.io/v1` and `v1beta1`, which do not differ
    ReferenceGrant,
}

/// An object of a kind that is read.
#[derive(Clone, PartialEq)]
pub enum Object {
    /// A pool.
    LoadBalancerPool(Arc<LoadBalancerPool>),
    /// A Service.
    Service(Arc<Service>),
    /// An EndpointSlice.
    EndpointSlice(Arc<EndpointSlice>),
    /// A pod, whose status says where it is and whether it is Ready.
    Pod(Arc<Pod>),
    /// A Secret with everything in `data`.
    Secret(Arc<Secret>),
    /// A ReferenceGrant.
    ReferenceGrant(Arc<ReferenceGrant>),
}

impl Kind {
    const ALL: [(Self, &'static [&'static str], &'static str); 6] = [
        (Self::LoadBalancerPool, &["weir.dev/v1alpha1"], "LoadBalancerPool"),
        (Self::Service, &["v1"], "Service"),
        (Self::EndpointSlice, &["discovery.k8s.io/v1"], "EndpointSlice"),
        (Self::Pod, &["v1"], "Pod"),
        (Self::Secret, &["v1"], "Secret"),
        (
            Self::ReferenceGrant,
            &["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1"],
            "ReferenceGrant",
        ),
    ];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LoadBalancerPool => "LoadBalancerPool",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Pod => "Pod",
            Self::Secret => "Secret",
            Self::ReferenceGrant => "ReferenceGrant",
        })
    }
}

impl Object {
    /// The kind of this object.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::LoadBalancerPool(_) => Kind::LoadBalancerPool,
            Self::Service(_) => Kind::Service,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
            Self::Pod(_) => Kind::Pod,
            Self::Secret(_) => Kind::Secret,
            Self::ReferenceGrant(_) => Kind::ReferenceGrant,
        }
    }
}

impl fmt::Debug for Object {
    /// The kind only: a Secret must not reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind())
    }
}

/// A document that is being read.
pub(super) struct Read<'a> {
    pub(super) start: &'a Place,
    pub(super) text: &'a str,
}

/// Why a document, or a field of it, could not be read, in the parser's words.
pub(super) struct Fault {
    location: Location,
    /// Empty for the document as a whole.
    field: String,
    /// For the writer of a type.
    message: String,
    /// For the writer of a document.
    plain: String,
}

impl Read<'_> {
    pub(super) fn problem(&self, location: Location, field: String, sentence: String) -> Problem {
        let (line, column) = self.position(location);
        Problem { place: Place { line, column, ..self.start.clone() }, field, sentence }
    }

    /// Line and column in the file.
    pub(super) fn position(&self, location: Location) -> (u64, u64) {
        (self.start.line + location.line().max(1) - 1, location.column().max(1))
    }

    /// The document as a tree.
    pub(super) fn tree(&self) -> Result<Node, Vec<Problem>> {
        self.typed().map_err(|Fault { location, plain, .. }| {
            let sentence = format!("the document cannot be read as YAML: {plain}");
            vec![self.problem(location, String::new(), sentence)]
        })
    }

    fn typed<T: DeserializeOwned>(&self) -> Result<T, Fault> {
        let options = serde_saphyr::options! { with_snippet: false };
        let mut field = String::new();
        let read =
            serde_saphyr::with_deserializer_from_str_with_options(self.text, options, |deserializer| {
                serde_path_to_error::deserialize(deserializer).map_err(|error| {
                    if error.path().iter().next().is_some() {
                        field = error.path().to_string();
                    }
                    error.into_inner()
                })
            });
        read.map_err(|error| {
            let without_control = |message: Cow<'_, str>| message.replace(char::is_control, " ");
            Fault {
                location: error.location().unwrap_or(Location::UNKNOWN),
                field,
                message: without_control(DefaultMessageFormatter.format_message(&error)),
                plain: without_control(UserMessageFormatter.format_message(&error)),
            }
        })
    }

    /// The sentence for a field that is wrong. The schema, where there is one, says what would be right.
    fn field_problem(&self, fault: Fault, document: &Node, schema: Option<&Schema>) -> Vec<Problem> {
        let Fault { location, field, message, .. } = fault;
        if let Some(name) = message.strip_prefix("missing field `").and_then(|rest| rest.split('`').next()) {
            let location = document.location_of(&field).unwrap_or(location);
            return vec![self.problem(location, join(&field, name), "is missing: add it".to_owned())];
        }
        // The message of a type of our own is a sentence already.
        let rule = schema.filter(|_| !message.contains(": write ")).and_then(|schema| schema.rule(&field));
        let sentence = match (rule, self.written(location)) {
            (Some(rule), Some(written)) => format!("{written} cannot be used here: {rule}"),
            (Some(rule), None) => format!("cannot be used here: {rule}"),
            (None, Some(written)) if schema.is_none() => format!("{written} cannot be used here: {message}"),
            (None, _) => message,
        };
        vec![self.problem(location, field, sentence)]
    }

    /// The scalar that is written at a place.
    fn written(&self, location: Location) -> Option<&str> {
        let line = self.text.lines().nth(usize::try_from(location.line()).ok()?.checked_sub(1)?)?;
        let column = usize::try_from(location.column()).ok()?.checked_sub(1)?;
        let (start, _) = line.char_indices().nth(column)?;
        let written = line[start..].split([',', '}', ']', '#']).next().unwrap_or_default().trim_end();
        (!written.is_empty() && !written.starts_with(['{', '[', '|', '>', '&', '*'])).then_some(written)
    }

    pub(super) fn kind(&self, document: &Node) -> Result<Kind, Vec<Problem>> {
        let api_version = self.required(document, "apiVersion")?;
        let kind = self.required(document, "kind")?;
        let (api_version_text, kind_text) = (api_version.0, kind.0);
        let same_kind = Kind::ALL.into_iter().find(|(_, _, name)| *name == kind_text);
        match same_kind {
            Some((kind, versions, _)) if versions.contains(&api_version_text) => Ok(kind),
            Some((_, versions, _)) => {
                let versions: Vec<_> = versions.iter().map(|version| format!("{version:?}")).collect();
                let versions = versions.join(" or ");
                let sentence =
                    format!("{api_version_text:?} is not the version of a {kind_text}: use {versions}");
                Err(vec![self.problem(api_version.1, "apiVersion".to_owned(), sentence)])
            }
            None => {
                let names = Kind::ALL.map(|(_, _, name)| name).join(", ");
                let sentence = format!("{kind_text:?} is not a kind that is read here: use one of {names}");
                Err(vec![self.problem(kind.1, "kind".to_owned(), sentence)])
            }
        }
    }

    fn required<'n>(&self, document: &'n Node, name: &str) -> Result<(&'n str, Location), Vec<Problem>> {
        let Some(Spanned { value, referenced, .. }) = document.field(name) else {
            let sentence = "is missing: every document needs apiVersion, kind and metadata.name".to_owned();
            return Err(vec![self.problem(Location::UNKNOWN, name.to_owned(), sentence)]);
        };
        match value.text() {
            Some(text) => Ok((text, *referenced)),
            None => Err(vec![self.problem(*referenced, name.to_owned(), "is not text".to_owned())]),
        }
    }

    pub(super) fn object(
        &self,
        kind: Kind,
        document: &Node,
        schema: &Schema,
    ) -> Result<(ObjectKey, Object), Vec<Problem>> {
        let key = self.key(document)?;
        let unreadable = |fault| self.field_problem(fault, document, None);
        let object = match kind {
            Kind::LoadBalancerPool => {
                let unreadable = |fault| self.field_problem(fault, document, Some(schema));
                let mut pool: LoadBalancerPool = self.typed().map_err(unreadable)?;
                pool.metadata.namespace = Some(key.namespace.clone());
                Object::LoadBalancerPool(Arc::new(pool))
            }
            Kind::Service => Object::Service(Arc::new(self.typed().map_err(unreadable)?)),
            Kind::EndpointSlice => Object::EndpointSlice(Arc::new(self.typed().map_err(unreadable)?)),
            Kind::Pod => Object::Pod(Arc::new(self.typed().map_err(unreadable)?)),
            Kind::ReferenceGrant => Object::ReferenceGrant(Arc::new(self.typed().map_err(unreadable)?)),
            Kind::Secret => {
                let secret = self.typed().map_err(|fault| self.secret_problem(fault))?;
                Object::Secret(Arc::new(with_string_data(secret)))
            }
        };
        Ok((key, object))
    }

    /// What the parser says may hold what the field holds, which must not reach a log.
    fn secret_problem(&self, fault: Fault) -> Vec<Problem> {
        let sentence =
            "is not what a Secret holds here: values under data are base64, values under stringData are text";
        vec![self.problem(fault.location, fault.field, sentence.to_owned())]
    }

    fn key(&self, document: &Node) -> Result<ObjectKey, Vec<Problem>> {
        let metadata = document.field("metadata").map(|metadata| &metadata.value);
        let part = |name: &str| {
            let field = metadata.and_then(|metadata| metadata.field(name));
            field.and_then(|field| Some((field.value.text()?, field.referenced)))
        };
        let Some((name, location)) = part("name") else {
            let location =
                document.field("metadata").map_or(Location::UNKNOWN, |metadata| metadata.referenced);
            let sentence = "is missing: give the object a name".to_owned();
            return Err(vec![self.problem(location, "metadata.name".to_owned(), sentence)]);
        };
        let namespace = part("namespace").unwrap_or((DEFAULT_NAMESPACE, location));
        for (field, (text, location)) in
            [("metadata.name", (name, location)), ("metadata.namespace", namespace)]
        {
            if !is_object_name(text) {
                let sentence =
                    format!("{text:?} is not the name of an object: use 1 to 253 of a-z, 0-9, - and .");
                return Err(vec![self.problem(location, field.to_owned(), sentence)]);
            }
        }
        Ok(ObjectKey::new(namespace.0, name))
    }
}

/// As the API server does on writing: stringData goes over data.
fn with_string_data(mut secret: Secret) -> Secret {
    let texts = secret.string_data.take().unwrap_or_default();
    if !texts.is_empty() {
        let data = secret.data.get_or_insert_default();
        data.extend(texts.into_iter().map(|(name, text)| (name, ByteString(text.into_bytes()))));
    }
    secret
}

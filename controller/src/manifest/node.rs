//! A document as a tree that remembers where everything was written, and the schema that it is held against.

use serde::Deserialize;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_saphyr::{Location, Spanned};
use std::fmt;

/// One value of a document. Scalars other than text do not matter here.
#[derive(Debug)]
pub(super) enum Node {
    Map(Vec<(Spanned<String>, Spanned<Node>)>),
    List(Vec<Spanned<Node>>),
    Text(String),
    Other,
}

/// The schema of `LoadBalancerPool`.
#[derive(Debug)]
pub(super) struct Schema {
    root: Value,
}

/// A field that the schema does not have.
#[derive(Debug)]
pub(super) struct UnknownField {
    pub(super) path: String,
    pub(super) location: Location,
    pub(super) sentence: String,
}

impl Node {
    /// The value of a field of a map.
    pub(super) fn field(&self, name: &str) -> Option<&Spanned<Self>> {
        let Self::Map(entries) = self else { return None };
        entries.iter().find(|(key, _)| key.value == name).map(|(_, value)| value)
    }

    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Map(_) | Self::List(_) | Self::Other => None,
        }
    }

    /// Visits each field and entry with its path and where it is: fields at their names, entries at their values.
    pub(super) fn places(&self, visit: &mut impl FnMut(&str, Location)) {
        self.visit("", visit);
    }

    /// Where a field or entry is written.
    pub(super) fn location_of(&self, path: &str) -> Option<Location> {
        let mut found = None;
        self.places(&mut |candidate, location| {
            if candidate == path {
                found = Some(location);
            }
        });
        found
    }

    fn visit(&self, path: &str, visit: &mut impl FnMut(&str, Location)) {
        match self {
            Self::Map(entries) => {
                for (key, value) in entries {
                    let path = join(path, &key.value);
                    visit(&path, key.referenced);
                    value.value.visit(&path, visit);
                }
            }
            Self::List(entries) => {
                for (index, value) in entries.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    visit(&path, value.referenced);
                    value.value.visit(&path, visit);
                }
            }
            Self::Text(_) | Self::Other => {}
        }
    }
}

impl Schema {
    pub(super) fn of_pool() -> Result<Self, serde_json::Error> {
        let mut definition = weir_crds::definition()?;
        let mut root = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].take();
        // The API server has the schema of these three.
        for name in ["apiVersion", "kind", "metadata"] {
            root["properties"][name] = Value::Object(serde_json::Map::new());
        }
        Ok(Self { root })
    }

    /// What a field takes, for its author; `None` for a field that the schema does not have.
    pub(super) fn rule(&self, path: &str) -> Option<String> {
        let mut schema = &self.root;
        for step in path.split(['.', '[']) {
            let next = if step.ends_with(']') { &schema["items"] } else { &schema["properties"][step] };
            schema = Some(next).filter(|next| next.is_object())?;
        }
        if let Some(names) = schema["enum"].as_array() {
            let names: Vec<_> = names.iter().filter_map(Value::as_str).collect();
            return Some(format!("use {}", names.join(" or ")));
        }
        match (schema["type"].as_str(), &schema["minimum"], &schema["maximum"]) {
            (Some("integer"), Value::Number(least), Value::Number(most)) => {
                Some(format!("use a whole number from {least} to {most}"))
            }
            (Some("integer"), ..) => Some("use a whole number".to_owned()),
            (Some("string"), ..) => Some("use text".to_owned()),
            (Some("array"), ..) => Some("write a list".to_owned()),
            (Some("object"), ..) => {
                if !schema["additionalProperties"].is_null() {
                    return None;
                }
                let fields = schema["properties"].as_object().into_iter().flatten();
                let names: Vec<_> = fields.map(|(name, _)| name.as_str()).collect();
                let rule = format!("write fields: {}", names.join(", "));
                Some(if names.is_empty() { "write {}".to_owned() } else { rule })
            }
            _ => None,
        }
    }

    pub(super) fn unknown_fields(&self, document: &Node) -> Vec<UnknownField> {
        let mut unknown = Vec::new();
        find_unknown(document, &self.root, "", &mut unknown);
        unknown
    }
}

fn find_unknown(node: &Node, schema: &Value, path: &str, unknown: &mut Vec<UnknownField>) {
    match node {
        Node::Map(entries) => {
            let none = serde_json::Map::new();
            let properties = match schema["properties"].as_object() {
                Some(properties) => properties,
                // An object that has no field: `tcp: {}`.
                None if schema["type"] == "object" && schema["additionalProperties"].is_null() => &none,
                None => return,
            };
            for (key, value) in entries {
                let path = join(path, &key.value);
                match properties.get(&key.value) {
                    Some(schema) => find_unknown(&value.value, schema, &path, unknown),
                    None => unknown.push(UnknownField {
                        location: key.referenced,
                        sentence: advice(&key.value, properties.keys()),
                        path,
                    }),
                }
            }
        }
        Node::List(entries) => {
            for (index, entry) in entries.iter().enumerate() {
                find_unknown(&entry.value, &schema["items"], &format!("{path}[{index}]"), unknown);
            }
        }
        Node::Text(_) | Node::Other => {}
    }
}

fn advice<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> String {
    let known: Vec<_> = known.collect();
    let nearest = known.iter().map(|known| (distance(name, known), known)).min();
    match nearest {
        Some((distance, known)) if distance <= 2 => {
            format!(
                "is not a field of LoadBalancerPool: write {known:?} if that is what you mean, or remove it"
            )
        }
        None => "is not a field of LoadBalancerPool: remove it; there is none in this place".to_owned(),
        Some(_) => {
            let known: Vec<_> = known.iter().map(|known| known.as_str()).collect();
            format!("is not a field of LoadBalancerPool: use one of {}, or remove it", known.join(", "))
        }
    }
}

/// Edits between two names, upper and lower case alike (Levenshtein, one row).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (line, left) in a.to_lowercase().chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, right) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(left != *right);
            diagonal = row[column + 1];
            row[column + 1] = substituted.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Map(entries))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = list.next_element()? {
            entries.push(entry);
        }
        Ok(Node::List(entries))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_i128<E>(self, _: i128) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_u128<E>(self, _: u128) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Other)
    }
}

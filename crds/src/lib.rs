//! The `LoadBalancerPool` resource (`weir.dev/v1alpha1`).
//!
//! The Rust types in [`pool`] are the only source: [`definition_yaml`] derives the CustomResourceDefinition from
//! them, `cargo run -p weir-crds --bin weir-crdgen` writes it to [`DEFINITION_FILE`], and a test fails when the
//! file and the types differ. Field names follow the Gateway API, so that its objects can be compiled to the same
//! wire messages.
//!
//! Only what the product does is in the schema: a field that nothing applies does not exist.
//!
//! The types are what a user may write, not what may be served: ranges and references across fields are the
//! API server's to check (schema and CEL) and, where no API server is, the compile step's. What one scalar can
//! express is checked while it is read ([`Duration`], enums).

mod duration;
pub mod pool;
mod status;

pub use duration::{Duration, DurationError};
pub use pool::{LoadBalancerPool, LoadBalancerPoolSpec};
pub use status::{
    CONDITION_MESSAGE_BYTES_MAX, EndpointStatus, LoadBalancerPoolStatus, ProgrammedStatus, STATUS_ZONES_MAX,
    SUMMARY_MESSAGE_BYTES_MAX, StatusSummary, ZoneStatus,
};

use kube::CustomResourceExt as _;
use serde_json::Value;

/// Where the generated definition is kept, relative to this crate.
pub const DEFINITION_FILE: &str = "loadbalancerpools.weir.dev.yaml";

/// Largest CustomResourceDefinition in bytes of JSON without blanks, as `kubectl apply` keeps it in an annotation, which may
/// have 256 KiB: a definition that grows past 200 KB leaves no room for the next field.
pub const DEFINITION_BYTES_MAX: usize = 200_000;

/// The CustomResourceDefinition as JSON: what kube derives from the types, with four things put right.
///
/// Optional fields are not nullable: left out is the one spelling of absent, and `has()` in a rule would take a
/// null for a value. Bounds of integers are integers. The title repeats the kind, and formats repeat bounds.
///
/// # Errors
/// Only when the definition cannot be written as JSON, which is a mistake in the types of this crate.
pub fn definition() -> Result<Value, serde_json::Error> {
    let mut definition = serde_json::to_value(LoadBalancerPool::crd())?;
    for version in definition["spec"]["versions"].as_array_mut().into_iter().flatten() {
        put_right(&mut version["schema"]["openAPIV3Schema"]);
    }
    Ok(definition)
}

/// The CustomResourceDefinition as YAML, ready for `kubectl apply`.
///
/// # Errors
/// As [`definition`].
pub fn definition_yaml() -> Result<String, serde_saphyr::SerializeError> {
    let yaml = serde_saphyr::to_string(&definition().map_err(|error| error.to_string())?)?;
    Ok(format!(
        "# Generated from crds/src/pool.rs by `cargo run -p weir-crds --bin weir-crdgen`. Do not edit.\n{yaml}"
    ))
}

fn put_right(schema: &mut Value) {
    let Value::Object(keywords) = schema else { return };
    keywords.remove("nullable");
    keywords.remove("title");
    // Bounds say more than a format, and this one took a twentieth of the definition.
    if keywords.contains_key("minimum") && keywords.contains_key("maximum") {
        keywords.remove("format");
    }
    for bound in ["minimum", "maximum"] {
        if let Some(number) = keywords.get_mut(bound)
            && let Some(integer) = number.as_f64().and_then(integer)
        {
            *number = integer.into();
        }
    }
    for each in ["items", "additionalProperties"] {
        if let Some(schema) = keywords.get_mut(each) {
            put_right(schema);
        }
    }
    for property in keywords.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten() {
        put_right(property.1);
    }
}

fn integer(number: f64) -> Option<i32> {
    format!("{number}").parse().ok()
}

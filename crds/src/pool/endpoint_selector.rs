//! Backends straight from pods.

use super::{LABEL_BYTES_MAX, LABEL_VALUE_PATTERN};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Labels that one selector may ask for.
pub const SELECTOR_LABELS_MAX: usize = 16;
/// Expressions of one selector.
pub const SELECTOR_EXPRESSIONS_MAX: usize = 8;
/// Values of one expression.
pub const SELECTOR_VALUES_MAX: usize = 16;
/// Bytes of the name of a label: 253, a slash, and 63.
pub const LABEL_NAME_BYTES_MAX: usize = 317;

/// Name of a label, but for the length of what is before its slash.
pub const LABEL_NAME_PATTERN: &str = "^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$";

/// Pods of the pool's own namespace by their labels. What matchLabels and matchExpressions say has to hold all together;
/// at least one of them says something, since an empty selector would take every pod.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "(has(self.matchLabels) && size(self.matchLabels) > 0) || (has(self.matchExpressions) && size(self.matchExpressions) > 0)",
    "message": "an empty selector would take every pod of the namespace: write matchLabels or matchExpressions",
    "reason": "FieldValueInvalid",
}]))]
pub struct EndpointSelector {
    /// Labels that a pod has, each with the value given here; at most 16.
    // No rule for the names, as for those of proxies: one for each of 256 sets costs more than the API server grants. The
    // compile step checks them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend(
        "maxProperties" = SELECTOR_LABELS_MAX,
        "additionalProperties" = {
            "type": "string",
            "maxLength": LABEL_BYTES_MAX,
            "pattern": LABEL_VALUE_PATTERN,
        },
    ))]
    pub match_labels: BTreeMap<String, String>,

    /// What else holds of a pod's labels; at most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = SELECTOR_EXPRESSIONS_MAX), extend("x-kubernetes-list-type" = "atomic"))]
    pub match_expressions: Vec<LabelExpression>,

    /// Port of the pods, by number (1 to 65535), or by the name that a port of one of their containers has: one of
    /// TCP, or of UDP where only rules of protocol UDP use the set. Pods may give one name several numbers.
    #[schemars(transform = super::port_by_number_or_name)]
    pub port: IntOrString,
}

/// What holds of one label.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
    "message": "operators In and NotIn need values, Exists and DoesNotExist must have none",
    "reason": "FieldValueInvalid",
}]))]
pub struct LabelExpression {
    /// Name of the label.
    #[schemars(length(min = 1, max = LABEL_NAME_BYTES_MAX), regex(pattern = LABEL_NAME_PATTERN))]
    pub key: String,

    /// In: the label has one of the values. NotIn: it has none of them, or there is no such label. Exists, DoesNotExist:
    /// there is such a label, or none.
    pub operator: LabelOperator,

    /// For In and NotIn, 1 to 16 values; for the others none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = SELECTOR_VALUES_MAX),
        inner(length(max = LABEL_BYTES_MAX), regex(pattern = LABEL_VALUE_PATTERN)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub values: Vec<String>,
}

/// How a label is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LabelOperator {
    /// One of the values.
    In,
    /// None of the values, or no such label.
    NotIn,
    /// Any value.
    Exists,
    /// No such label.
    DoesNotExist,
}

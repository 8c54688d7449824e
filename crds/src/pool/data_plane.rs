//! Which proxies serve a pool.

use super::{NAME_BYTES_MAX, NAME_PATTERN};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Label of a pod that says of which class its proxy is.
pub const CLASS_LABEL: &str = "weir.dev/class";
/// Class of pools and of pods that name none.
pub const DEFAULT_CLASS: &str = "default";
/// Labels that a pool may ask of its proxies.
pub const PROXY_LABELS_MAX: usize = 16;
/// Bytes of the part of a label's name before its slash.
pub const LABEL_PREFIX_BYTES_MAX: usize = 253;
/// Bytes of a label's value, and of the part of its name after the slash.
pub const LABEL_BYTES_MAX: usize = 63;

/// Value of a label.
pub const LABEL_VALUE_PATTERN: &str = "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$";

/// Which proxies serve the pool. They run in its own namespace, or in one that the controller counts as a gateway's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DataPlane {
    /// Class of the proxies: the value of the label weir.dev/class of their pods. A pod without the label is of class
    /// default. A DNS label of 1 to 63 characters.
    #[serde(default = "default_class")]
    #[schemars(length(min = 1, max = NAME_BYTES_MAX), regex(pattern = NAME_PATTERN))]
    pub class_name: String,

    /// Which proxies of the class. Without it: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<ProxySelector>,
}

/// Proxies by the labels of their pods.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProxySelector {
    /// Labels that the pod of a proxy has, each with the value given here; at most 16. Without any: every pod.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend(
        "maxProperties" = PROXY_LABELS_MAX,
        "additionalProperties" = {
            "type": "string",
            "maxLength": LABEL_BYTES_MAX,
            "pattern": LABEL_VALUE_PATTERN,
        },
        "x-kubernetes-validations" = [{
            "rule": "self.all(k, k.matches('^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$') && k.split('/')[0].size() <= 253)",
            "message": "the name of a label must be 1 to 63 letters, digits, -, _ and ., with or without a DNS name and a slash in front",
            "reason": "FieldValueInvalid",
        }],
    ))]
    pub match_labels: BTreeMap<String, String>,
}

impl Default for DataPlane {
    fn default() -> Self {
        Self { class_name: default_class(), selector: None }
    }
}

fn default_class() -> String {
    DEFAULT_CLASS.to_owned()
}
